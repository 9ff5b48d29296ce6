//! Which bytes of a content lie where in the staging file.

use crate::base::ContentRange;
use crate::format::StagedExtent;
use std::collections::BTreeMap;
use std::collections::btree_map::Range;
use std::iter::Peekable;

/// A range of the content that covers the base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) range: ContentRange,
    /// Where it begins in the staging file; `None`: zeros.
    pub(super) place: Option<u64>,
    /// Not part of any published state: may be overwritten in place.
    pub(super) fresh: bool,
}

impl Piece {
    /// The part of it in `range`, which must touch it.
    fn within(self, range: ContentRange) -> Self {
        let part = self.range.intersect(range);
        let skipped = part.start() - self.range.start();
        Self { range: part, place: self.place.map(|place| place + skipped), fresh: self.fresh }
    }

    /// Whether `next` continues it, in the content and in the staging file.
    fn continues_with(self, next: Self) -> bool {
        let places = match (self.place, next.place) {
            (Some(place), Some(next)) => place + self.range.len() == next,
            (None, None) => true,
            _ => false,
        };
        places && self.fresh == next.fresh && self.range.end() == next.range.start()
    }

    /// The extent of a published map.
    pub(super) fn extent(self) -> StagedExtent {
        StagedExtent { range: self.range, place: self.place }
    }
}

/// What is stored for a piece, under its start.
#[derive(Debug, Clone, Copy)]
struct Stored {
    end: u64,
    /// `ZEROS` for none: no file reaches there.
    place: u64,
    fresh: bool,
}

const ZEROS: u64 = u64::MAX;

/// Pieces, disjoint, coalesced where they continue each other.
#[derive(Debug, Default)]
pub(super) struct PieceMap {
    pieces: BTreeMap<u64, Stored>,
}

fn piece(start: u64, stored: Stored) -> Piece {
    let place = (stored.place != ZEROS).then_some(stored.place);
    Piece { range: ContentRange::between(start, stored.end), place, fresh: stored.fresh }
}

impl PieceMap {
    /// The pieces of a published map, none of them fresh.
    pub(super) fn of_extents(extents: &[StagedExtent]) -> Self {
        let stored = |extent: &StagedExtent| {
            let place = extent.place.unwrap_or(ZEROS);
            (extent.range.start(), Stored { end: extent.range.end(), place, fresh: false })
        };
        Self { pieces: extents.iter().map(stored).collect() }
    }

    pub(super) fn len(&self) -> usize {
        self.pieces.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Piece> {
        self.pieces.iter().map(|(&start, &stored)| piece(start, stored))
    }

    /// The map as it is published: fresh or not makes no difference there.
    pub(super) fn extents(&self) -> Vec<StagedExtent> {
        let mut extents: Vec<StagedExtent> = Vec::with_capacity(self.pieces.len());
        let mut last: Option<Piece> = None;
        for next in self.iter().map(|piece| Piece { fresh: false, ..piece }) {
            match last {
                Some(before) if before.continues_with(next) => {
                    last =
                        Some(Piece { range: ContentRange::between(before.range.start(), next.range.end()), ..before });
                }
                _ => extents.extend(last.replace(next).map(Piece::extent)),
            }
        }
        extents.extend(last.map(Piece::extent));
        extents
    }

    /// `range` from its start to its end, cut into pieces and gaps between them.
    pub(super) fn over(&self, range: ContentRange) -> Over<'_> {
        let before = self.pieces.range(..range.start()).next_back().filter(|(_, stored)| stored.end > range.start());
        let start = before.map_or(range.start(), |(&start, _)| start);
        // An empty range may begin inside of a piece.
        let end = range.end().max(start);
        Over { pieces: self.pieces.range(start..end).peekable(), rest: range }
    }

    /// Removes everything in `range` and tells what went.
    pub(super) fn cut(&mut self, range: ContentRange, mut gone: impl FnMut(Piece)) {
        if range.is_empty() {
            return;
        }
        let before = self.pieces.range(..range.start()).next_back().map(|(&start, &stored)| (start, stored));
        if let Some((start, stored)) = before.filter(|(_, stored)| stored.end > range.start()) {
            self.pieces.insert(start, Stored { end: range.start(), ..stored });
            self.cut_one(piece(start, stored), range, &mut gone);
        }
        while let Some((&start, &stored)) = self.pieces.range(range.start()..range.end()).next() {
            self.pieces.remove(&start);
            self.cut_one(piece(start, stored), range, &mut gone);
        }
    }

    /// Tells of the part of `whole` in `range`, and puts back what lies behind it.
    fn cut_one(&mut self, whole: Piece, range: ContentRange, gone: &mut impl FnMut(Piece)) {
        gone(whole.within(range));
        if whole.range.end() > range.end() {
            self.store(whole.within(ContentRange::between(range.end(), whole.range.end())));
        }
    }

    /// Adds a piece where nothing is (see [`cut`](Self::cut)).
    pub(super) fn put(&mut self, mut new: Piece) {
        if new.range.is_empty() {
            return;
        }
        if let Some((&start, &stored)) = self.pieces.range(..new.range.start()).next_back() {
            let before = piece(start, stored);
            if before.continues_with(new) {
                new = Piece { range: ContentRange::between(start, new.range.end()), ..before };
            }
        }
        if let Some(&stored) = self.pieces.get(&new.range.end()) {
            let after = piece(new.range.end(), stored);
            if new.continues_with(after) {
                self.pieces.remove(&new.range.end());
                new.range = ContentRange::between(new.range.start(), after.range.end());
            }
        }
        self.store(new);
    }

    fn store(&mut self, piece: Piece) {
        let place = piece.place.unwrap_or(ZEROS);
        self.pieces.insert(piece.range.start(), Stored { end: piece.range.end(), place, fresh: piece.fresh });
    }
}

/// See [`PieceMap::over`].
pub(super) struct Over<'a> {
    pieces: Peekable<Range<'a, u64, Stored>>,
    rest: ContentRange,
}

/// A piece, or a gap between pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Piece(Piece),
    Gap(ContentRange),
}

impl Part {
    pub(super) fn range(self) -> ContentRange {
        match self {
            Self::Piece(piece) => piece.range,
            Self::Gap(range) => range,
        }
    }
}

impl Iterator for Over<'_> {
    type Item = Part;

    fn next(&mut self) -> Option<Part> {
        if self.rest.is_empty() {
            return None;
        }
        let next = self.pieces.peek().map(|&(&start, &stored)| piece(start, stored));
        let part = match next {
            Some(piece) if piece.range.start() <= self.rest.start() => {
                self.pieces.next();
                Part::Piece(piece.within(self.rest))
            }
            Some(piece) => {
                Part::Gap(ContentRange::between(self.rest.start(), piece.range.start()).clamp_to(self.rest.end()))
            }
            None => Part::Gap(self.rest),
        };
        self.rest = ContentRange::between(part.range().end(), self.rest.end());
        Some(part)
    }
}
