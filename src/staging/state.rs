//! What a file is made of at the moment, and which room its states need.
//!
//! Crash argument: the journal names a published state only after everything
//! it refers to was synced, and no byte that a published state refers to is
//! written again before the journal durably names a newer one (and no reader
//! holds the older): new bytes go to free room. So whatever was written since,
//! a crash finds all bytes of the state that the journal names. Pages that
//! published and new bytes share are written back with the published bytes as
//! they were, like those of any file that is appended to. Where more than one
//! byte is written at once (`encrypted.rs`: units of 16), published and new
//! bytes share no such unit: rooms are taken so, from what is known here.

use super::map::{Part, Piece, PieceMap};
use super::rooms::{Rooms, Wish};
use crate::base::ContentRange;
use crate::format::{StagedContent, StagedExtent, StagedMap};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Counts the published states of one staging file, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Generation(pub(super) u64);

/// A state that stays as it is.
#[derive(Debug)]
pub(super) struct PublishedState {
    pub(super) generation: Generation,
    pub(super) content: StagedContent,
    /// The extents, when the content's map lies in the file.
    pub(super) long: Option<Box<[StagedExtent]>>,
}

impl PublishedState {
    pub(super) fn extents(&self) -> &[StagedExtent] {
        match (&self.long, &self.content.map) {
            (Some(long), _) => long,
            (None, StagedMap::Inline(extents)) => extents,
            (None, StagedMap::InFile { .. }) => &[],
        }
    }
}

/// One write to the staging file, as planned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Planned {
    pub(super) range: ContentRange,
    pub(super) place: u64,
    /// The room was taken for it.
    pub(super) new: bool,
}

/// The state of one file. Knows places, does no I/O.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) size: u64,
    /// At most `size`. Where there is no piece, the base shows below, zeros above.
    pub(super) base_len: u64,
    pub(super) pieces: PieceMap,
    rooms: Rooms,
    /// Room that no piece uses and that later writes to its range will take.
    reserved: PieceMap,
    /// Room of published states (start, length) that is free once a state
    /// newer than the generation is durable and none up to it is pinned.
    retired: VecDeque<(Generation, u64, u64)>,
    pub(super) published: Option<Arc<PublishedState>>,
    /// The newest generation that the journal has.
    durable: Generation,
    /// Generations that readers hold, and how many of them.
    pins: BTreeMap<Generation, usize>,
    /// Differs from what was published.
    pub(super) changed: bool,
    /// The kernel writes the file: nothing above but `published` counts.
    pub(super) passthrough: bool,
    /// Where the writes that follow each other began and ended, in the staging file.
    pub(super) streak: (u64, u64),
    /// What the quota was told of.
    pub(super) counted: u64,
    /// Free room that the disk shall have back.
    pub(super) to_punch: Vec<(u64, u64)>,
}

impl State {
    /// Nothing staged over a base of this length. `unit`: see [`Rooms::new`].
    pub(super) fn over_base(base_len: u64, unit: u64) -> Self {
        Self { size: base_len, base_len, rooms: Rooms::new(unit), ..Self::default() }
    }

    /// The state that the journal names. `None` when two extents share bytes.
    pub(super) fn recovered(published: PublishedState, unit: u64) -> Option<Self> {
        let extents = published.extents();
        let place = |extent: &StagedExtent| extent.place.map(|place| (place, extent.range.len()));
        let mut taken: Vec<(u64, u64)> = extents.iter().filter_map(place).collect();
        if let StagedMap::InFile { offset, len, .. } = published.content.map {
            taken.push((offset, len));
        }
        taken.sort_unstable();
        Some(Self {
            size: published.content.size,
            base_len: published.content.base_len,
            pieces: PieceMap::of_extents(extents),
            rooms: Rooms::of_taken(unit, taken)?,
            durable: published.generation,
            published: Some(Arc::new(published)),
            ..Self::default()
        })
    }

    /// Whether every byte is read from where it lies, and no published state could be written over.
    pub(super) fn is_in_place(&self) -> bool {
        let in_place = |piece: Piece| piece.place == Some(piece.range.start());
        self.published.is_none() && self.base_len == 0 && self.pieces.iter().all(in_place)
    }

    /// Forgets all reservations.
    pub(super) fn drop_all_reserved(&mut self) {
        self.drop_reserved(ContentRange::between(0, u64::MAX));
    }

    /// The state of a file that the kernel wrote: `data` ranges lie where they are read.
    pub(super) fn set_in_place(&mut self, size: u64, data: &[ContentRange]) {
        // All of it counts as published if anything was: what was may be part of it.
        let fresh = self.published.is_none();
        self.size = size;
        self.base_len = 0;
        self.pieces = PieceMap::default();
        for &range in data {
            self.pieces.put(Piece { range, place: Some(range.start()), fresh });
        }
        // What was published may name more than there is now: ranges that were cut or became holes.
        let mut taken = PieceMap::of_extents(&self.pieces.extents());
        self.retired.clear();
        if let Some(published) = &self.published {
            for extent in published.extents() {
                let gone: Vec<_> = taken.over(extent.range).filter(|part| matches!(part, Part::Gap(_))).collect();
                for range in gone.into_iter().map(Part::range) {
                    taken.put(Piece { range, place: Some(range.start()), fresh: false });
                    self.retired.push_back((published.generation, range.start(), range.len()));
                }
            }
        }
        let places = taken.iter().map(|piece| (piece.range.start(), piece.range.len()));
        self.rooms = Rooms::of_taken(1, places).unwrap_or_default();
        self.reserved = PieceMap::default();
        self.passthrough = false;
        self.changed = true;
    }

    pub(super) fn used(&self) -> u64 {
        self.rooms.used()
    }

    pub(super) fn rooms(&self) -> &Rooms {
        &self.rooms
    }

    fn generation(&self) -> Generation {
        self.published.as_ref().map_or(Generation(0), |published| published.generation)
    }

    fn release(&mut self, start: u64, len: u64) {
        self.to_punch.extend(self.rooms.release(start, len));
    }

    /// Where each byte of `range` is to be written. Every `new` entry must be
    /// followed by [`written`](Self::written) or [`not_written`](Self::not_written).
    pub(super) fn plan(&mut self, range: ContentRange) -> Vec<Planned> {
        let mut plan: Vec<Planned> = Vec::with_capacity(1);
        let mut runs: Vec<(ContentRange, Option<u64>)> = Vec::with_capacity(1);
        for part in self.pieces.over(range) {
            let in_place = match part {
                Part::Piece(Piece { place: Some(place), fresh: true, .. }) => Some(place),
                _ => None,
            };
            match (in_place, runs.last_mut()) {
                (None, Some((run, None))) => *run = ContentRange::between(run.start(), part.range().end()),
                _ => runs.push((part.range(), in_place)),
            }
        }
        for (run, in_place) in runs {
            match in_place {
                Some(place) => plan.push(Planned { range: run, place, new: false }),
                None => self.plan_new(run, &mut plan),
            }
        }
        plan
    }

    /// Where a byte of the content lies that may be written again there, or is to be.
    fn fresh_place(&self, at: u64) -> Option<u64> {
        let byte = ContentRange::between(at, at + 1);
        let fresh = self.pieces.over(byte).find_map(|part| match part {
            Part::Piece(piece) if piece.fresh => piece.place,
            _ => None,
        });
        let reserved =
            || self.reserved.over(byte).find_map(|part| if let Part::Piece(piece) = part { piece.place } else { None });
        fresh.or_else(reserved)
    }

    /// Takes room for a range: best where it lies in the content, so that its
    /// neighbours there are its neighbours, else behind the one before it.
    ///
    /// A unit with a fresh byte holds none that is published: all that is
    /// fresh is published at once. So one such neighbour tells of all of them.
    fn take(&mut self, range: ContentRange) -> u64 {
        let in_order = Wish { place: range.start(), behind_fresh: false, before_fresh: false };
        if self.rooms.unit() == 1 {
            return self.rooms.take(range.len(), &[in_order]);
        }
        let before = range.start().checked_sub(1).and_then(|at| Some(self.fresh_place(at)? + 1));
        let behind = self.fresh_place(range.end());
        let wish = |place: u64| Wish {
            place,
            behind_fresh: before == Some(place),
            before_fresh: behind.is_some_and(|behind| behind.checked_sub(range.len()) == Some(place)),
        };
        let wishes: Vec<Wish> = [Some(range.start()), before].into_iter().flatten().map(wish).collect();
        self.rooms.take(range.len(), &wishes)
    }

    fn plan_new(&mut self, run: ContentRange, plan: &mut Vec<Planned>) {
        if self.reserved.is_empty() {
            let place = self.take(run);
            plan.push(Planned { range: run, place, new: true });
            return;
        }
        let parts: Vec<Part> = self.reserved.over(run).collect();
        for part in parts {
            let place = match part {
                Part::Piece(Piece { place: Some(place), .. }) => place,
                _ => self.take(part.range()),
            };
            plan.push(Planned { range: part.range(), place, new: true });
        }
        self.reserved.cut(run, |_| {});
    }

    /// The bytes of a plan are in the file.
    pub(super) fn written(&mut self, plan: &[Planned]) {
        for planned in plan.iter().filter(|planned| planned.new) {
            self.drop_pieces(planned.range);
            self.pieces.put(Piece { range: planned.range, place: Some(planned.place), fresh: true });
        }
        if let Some(last) = plan.last() {
            self.size = self.size.max(last.range.end());
        }
        self.changed = true;
    }

    /// They are not, or not all: the new room is given back.
    pub(super) fn not_written(&mut self, plan: &[Planned]) {
        for planned in plan.iter().filter(|planned| planned.new) {
            self.release(planned.place, planned.range.len());
        }
    }

    /// Removes the pieces of a range. Room that only this state used is free.
    fn drop_pieces(&mut self, range: ContentRange) {
        let generation = self.generation();
        let (rooms, retired, to_punch) = (&mut self.rooms, &mut self.retired, &mut self.to_punch);
        self.pieces.cut(range, |piece| match piece.place {
            Some(place) if piece.fresh => to_punch.extend(rooms.release(place, piece.range.len())),
            Some(place) => retired.push_back((generation, place, piece.range.len())),
            None => {}
        });
    }

    fn drop_reserved(&mut self, range: ContentRange) {
        let (rooms, to_punch) = (&mut self.rooms, &mut self.to_punch);
        self.reserved.cut(range, |piece| {
            to_punch.extend(piece.place.and_then(|place| rooms.release(place, piece.range.len())));
        });
    }

    pub(super) fn truncate(&mut self, len: u64) {
        if len == self.size {
            return;
        }
        if len < self.size {
            let rest = ContentRange::between(len, u64::MAX);
            self.drop_pieces(rest);
            self.drop_reserved(rest);
            self.base_len = self.base_len.min(len);
        }
        self.size = len;
        self.changed = true;
    }

    /// `range`, as far as the file goes, reads as zeros and uses no room.
    pub(super) fn make_hole(&mut self, range: ContentRange) {
        self.drop_reserved(range);
        let range = range.clamp_to(self.size);
        if range.is_empty() {
            return;
        }
        self.drop_pieces(range);
        let over_base = range.clamp_to(self.base_len);
        self.pieces.put(Piece { range: over_base, place: None, fresh: true });
        self.changed = true;
    }

    /// Takes room for later writes to `range`, where such would need new room.
    pub(super) fn plan_reserve(&mut self, range: ContentRange) -> Vec<Planned> {
        let in_place = |part: &Part| matches!(part, Part::Piece(Piece { place: Some(_), fresh: true, .. }));
        let runs: Vec<ContentRange> = self.pieces.over(range).filter(|part| !in_place(part)).map(Part::range).collect();
        let mut plan = Vec::new();
        for run in runs {
            let parts: Vec<Part> = self.reserved.over(run).collect();
            for part in parts {
                if let Part::Gap(range) = part {
                    plan.push(Planned { range, place: self.take(range), new: true });
                }
            }
        }
        plan
    }

    /// The disk has the blocks of a plan.
    pub(super) fn reserve(&mut self, plan: &[Planned]) {
        for planned in plan {
            self.reserved.put(Piece { range: planned.range, place: Some(planned.place), fresh: true });
        }
    }

    /// Bytes reserved where no byte is staged.
    pub(super) fn reserved_in_holes(&self) -> u64 {
        let staged = |part: &Part| matches!(part, Part::Piece(Piece { place: Some(_), .. }));
        self.reserved
            .iter()
            .map(|piece| {
                self.pieces.over(piece.range).filter(|part| !staged(part)).map(|part| part.range().len()).sum::<u64>()
            })
            .sum()
    }

    /// Takes room for a map that is to be published.
    pub(super) fn take_for_map(&mut self, len: u64) -> u64 {
        self.rooms.take(len, &[])
    }

    pub(super) fn release_map(&mut self, place: u64, len: u64) {
        self.release(place, len);
    }

    /// The present state becomes the published one; `long` are its extents when they do not stand in `content`.
    pub(super) fn publish(&mut self, content: StagedContent, long: Option<Box<[StagedExtent]>>) -> Arc<PublishedState> {
        self.trim_reserved();
        let old = self.generation();
        if let Some(StagedMap::InFile { offset, len, .. }) = self.published.as_ref().map(|state| &state.content.map) {
            self.retired.push_back((old, *offset, *len));
        }
        let published = Arc::new(PublishedState { generation: Generation(old.0 + 1), content, long });
        self.pieces = PieceMap::of_extents(published.extents());
        self.published = Some(published.clone());
        self.changed = false;
        published
    }

    /// Gives up what is reserved of units that it may share with what is published now.
    fn trim_reserved(&mut self) {
        let unit = self.rooms.unit();
        if unit == 1 || self.reserved.is_empty() {
            return;
        }
        for piece in std::mem::take(&mut self.reserved).iter() {
            let Some(place) = piece.place else { continue };
            let end = place + piece.range.len();
            let (first, last) = (place.next_multiple_of(unit), end / unit * unit);
            let (first, last) = if first < last { (first, last) } else { (end, end) };
            self.release(place, first - place);
            self.release(last, end - last);
            let at = |place_there: u64| piece.range.start() + (place_there - place);
            let range = ContentRange::between(at(first), at(last));
            self.reserved.put(Piece { range, place: Some(first), ..piece });
        }
    }

    /// The journal durably has a generation.
    pub(super) fn durable(&mut self, generation: Generation) {
        self.durable = self.durable.max(generation).min(self.generation());
        self.release_retired();
    }

    pub(super) fn pin(&mut self, generation: Generation) {
        *self.pins.entry(generation).or_default() += 1;
    }

    pub(super) fn unpin(&mut self, generation: Generation) {
        if let Some(count) = self.pins.get_mut(&generation) {
            *count -= 1;
            if *count == 0 {
                self.pins.remove(&generation);
            }
        }
        self.release_retired();
    }

    fn release_retired(&mut self) {
        let pinned = self.pins.keys().next().copied();
        let limit = pinned.map_or(self.durable, |pinned| pinned.min(self.durable));
        while let Some(&(generation, start, len)) = self.retired.front().filter(|(generation, ..)| *generation < limit)
        {
            debug_assert!(generation < limit);
            self.retired.pop_front();
            self.release(start, len);
        }
    }
}
