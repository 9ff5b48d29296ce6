//! A file being written.

use super::map::{Part, Piece};
use super::raw::RawFile;
use super::read::{BaseReader, read_staged, seek, slice, split_gap};
use super::state::{Generation, Planned, PublishedState, State};
use super::store::Gone;
use super::{FrozenContent, StagingArea, StagingError, StagingResult};
use crate::base::{ContentRange, Digest, Timestamp};
use crate::format::staged::{MAX_INLINE_EXTENTS, MAX_STAGED_EXTENTS, encode_extents};
use crate::format::{StagedContent, StagedExtent, StagedMap, StagingId};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Longest file: what `off_t` can tell.
const MAX_SIZE: u64 = i64::MAX as u64;
/// After this many bytes written one behind the other the disk is asked to begin.
const EARLY_WRITEBACK: u64 = 16 << 20;
/// Room that is given back to the disk is made of whole blocks of this size.
pub(super) const BLOCK: u64 = 4096;

/// A state of a file that was made to stay, for the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// What the journal is told.
    pub content: StagedContent,
    /// For [`StagedFile::published_is_durable`].
    pub generation: Generation,
}

impl Published {
    fn of(state: &PublishedState) -> Self {
        Self { content: state.content.clone(), generation: state.generation }
    }
}

/// A file being written. Clones are the same file.
///
/// When the last clone (and the last [`FrozenContent`]) is dropped, the bytes
/// stay on the disk if a state was published and nobody called
/// [`discard`](Self::discard).
#[derive(Debug, Clone)]
pub struct StagedFile(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) area: Arc<StagingArea>,
    pub(super) id: StagingId,
    /// Taken for reading while bytes are read, for writing while they are
    /// written: places are reused, and bytes overwritten, under no reader.
    state: RwLock<State>,
    handle: Mutex<Option<Arc<dyn RawFile>>>,
    /// Held during a sync; see [`StagedFile::sync`].
    sync: Mutex<()>,
    /// Written since the last sync.
    dirty: AtomicBool,
    /// Used since somebody looked for a descriptor to close.
    used: AtomicBool,
    /// Served by passthrough, as the state says: for those who must not wait for its lock.
    pub(super) in_place: AtomicBool,
    latched: AtomicBool,
    doomed: AtomicBool,
    /// The change of names that made its own.
    named: u64,
    /// When the empty file was changed last, if it is known.
    pub(super) emptied: Option<Timestamp>,
    /// Empty when it was given to the kernel, and not asked for since.
    pub(super) just_given: AtomicBool,
}

impl Inner {
    pub(super) fn new(
        area: Arc<StagingArea>,
        id: StagingId,
        state: State,
        (handle, named): (Option<Arc<dyn RawFile>>, u64),
        emptied: Option<Timestamp>,
    ) -> Self {
        Self {
            area,
            id,
            state: RwLock::new(state),
            handle: Mutex::new(handle),
            sync: Mutex::default(),
            dirty: AtomicBool::new(false),
            used: AtomicBool::new(true),
            in_place: AtomicBool::new(false),
            latched: AtomicBool::new(false),
            doomed: AtomicBool::new(false),
            named,
            emptied,
            just_given: AtomicBool::new(false),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let handle = self.handle.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let store = &self.area.store;
        if *self.doomed.get_mut() || state.published.is_none() {
            // Blocks that failed before, or a file that the kernel may still hold, serve no other content.
            let reuse = !*self.latched.get_mut() && !state.passthrough;
            let file = handle.map(|handle| handle.file().clone());
            store.let_go(Gone { id: self.id, file, reuse, counted: state.counted });
        } else {
            store.quota.update(state.counted, 0);
            store.release(self.id);
        }
    }
}

impl StagedFile {
    /// The file's id.
    pub fn id(&self) -> StagingId {
        self.0.id
    }

    /// Length of the content, bytes.
    pub fn size(&self) -> u64 {
        let state = self.state();
        if state.passthrough {
            let len = self.raw().and_then(|raw| raw.metadata().map_err(|error| self.failed("look at", error)));
            return len.map_or(state.size, |metadata| metadata.len());
        }
        state.size
    }

    /// Writes `data` at `offset`. What lies between the old end and `offset` reads as zeros.
    ///
    /// Errors: `DiskFull`, after which the bytes in question may be old or
    /// new; `TooLarge`; `TooManyPieces`; whatever else the disk says latches the file.
    pub fn write(&self, offset: u64, data: &[u8]) -> StagingResult<()> {
        if data.is_empty() {
            return Ok(());
        }
        let range = self.checked(offset, data.len() as u64)?;
        self.check_latch()?;
        let raw = self.raw()?;
        let mut state = self.state_mut();
        if state.passthrough {
            let written = raw.write_all_at(data, offset);
            self.0.dirty.store(true, Ordering::Release);
            state.size = state.size.max(range.end());
            return written.map_err(|error| self.write_failed("write", error));
        }
        if state.pieces.len() as u64 + 4 >= MAX_STAGED_EXTENTS {
            return Err(StagingError::TooManyPieces { file: self.0.id });
        }
        let plan = state.plan(range);
        let written = write_plan(&*raw, &plan, offset, data);
        // Before `raw` goes: a file that is not dirty may lose its descriptor.
        self.0.dirty.store(true, Ordering::Release);
        match written {
            Ok(()) => state.written(&plan),
            Err(_) => state.not_written(&plan),
        }
        self.tidy(&raw, &mut state);
        let early = state.early_writeback(&plan);
        drop(state);
        written.map_err(|error| self.write_failed("write", error))?;
        if let Some((start, len)) = early {
            self.0.area.write_early(&raw, start, len);
        }
        Ok(())
    }

    /// Reads from `offset` until `buffer` is full or the file ends; returns
    /// how many bytes. `base` fills a buffer with a range of the base; it is
    /// called with no lock held, and for a state that the file had during the call.
    pub fn read<E: From<StagingError>>(
        &self,
        offset: u64,
        buffer: &mut [u8],
        base: &mut BaseReader<'_, E>,
    ) -> Result<usize, E> {
        let state = self.state();
        if state.passthrough {
            return Ok(self.read_in_place(offset, buffer)?);
        }
        let range = ContentRange::between(offset, offset.saturating_add(buffer.len() as u64)).clamp_to(state.size);
        if range.is_empty() {
            return Ok(0);
        }
        let of_base = read_staged(
            state.pieces.over(range),
            state.base_len,
            (offset, &mut *buffer),
            |place, bytes: &mut [u8]| self.read_place(place, bytes),
        )?;
        drop(state);
        for range in of_base {
            base(range, slice(buffer, offset, range))?;
        }
        Ok(range.len() as usize)
    }

    /// Sets the length. What is added reads as zeros.
    pub fn truncate(&self, len: u64) -> StagingResult<()> {
        self.checked(len, 0)?;
        self.check_latch()?;
        let raw = self.raw()?;
        let mut state = self.state_mut();
        if state.passthrough {
            let result = raw.set_len(len);
            self.0.dirty.store(true, Ordering::Release);
            state.size = len;
            return result.map_err(|error| self.write_failed("set the length of", error));
        }
        state.truncate(len);
        self.tidy(&raw, &mut state);
        Ok(())
    }

    /// The range, as far as the file goes, reads as zeros and takes no room.
    pub fn make_hole(&self, range: ContentRange) -> StagingResult<()> {
        self.check_latch()?;
        let raw = self.raw()?;
        let mut state = self.state_mut();
        if state.passthrough {
            let range = range.clamp_to(self.len_in_place()?);
            let result = if range.is_empty() { Ok(()) } else { raw.punch(range.start(), range.len()) };
            self.0.dirty.store(true, Ordering::Release);
            return result.map_err(|error| self.write_failed("make a hole in", error));
        }
        state.make_hole(range);
        self.tidy(&raw, &mut state);
        Ok(())
    }

    /// Takes room for later writes to the range, so that the next one to each
    /// byte does not fail for want of it. The size stays; the bytes stay.
    pub fn allocate(&self, range: ContentRange) -> StagingResult<()> {
        self.checked(range.start(), range.len())?;
        self.check_latch()?;
        if range.is_empty() {
            return Ok(());
        }
        let raw = self.raw()?;
        let mut state = self.state_mut();
        if state.passthrough {
            return self.allocate_blocks(&*raw, range.start(), range.len());
        }
        let plan = state.plan_reserve(range);
        let reserved = plan.iter().try_for_each(|new| self.allocate_blocks(&*raw, new.place, new.range.len()));
        match reserved {
            Ok(()) => state.reserve(&plan),
            Err(_) => state.not_written(&plan),
        }
        self.tidy(&raw, &mut state);
        reserved
    }

    fn allocate_blocks(&self, raw: &dyn RawFile, start: u64, len: u64) -> StagingResult<()> {
        match raw.allocate(start, len) {
            // A disk that cannot reserve: as far as it can, which is not at all.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
            allocated => allocated.map_err(|error| self.write_failed("reserve room in", error)),
        }
    }

    /// The first offset at or after `offset` with data (`data`) or in a hole;
    /// the end counts as a hole. `base_seek` tells the same of the base; it
    /// must not come back to this file.
    pub fn seek(&self, offset: u64, data: bool, base_seek: &dyn Fn(u64, bool) -> Option<u64>) -> Option<u64> {
        let state = self.state();
        if state.passthrough {
            return self.raw().ok()?.seek(offset, data).ok()?;
        }
        if offset >= state.size {
            return None;
        }
        let parts = state.pieces.over(ContentRange::between(offset, state.size));
        seek(parts, state.base_len, data, base_seek).or((!data).then_some(state.size))
    }

    /// Bytes that the file takes: staged, reserved, and what
    /// `base_allocated` tells of ranges where the base shows.
    pub fn allocated(&self, base_allocated: &dyn Fn(ContentRange) -> u64) -> u64 {
        let state = self.state();
        if state.passthrough {
            return self.blocks_in_place().unwrap_or(state.counted);
        }
        let part = |part| match part {
            Part::Piece(Piece { place: None, .. }) => 0,
            Part::Piece(piece) => piece.range.len(),
            Part::Gap(range) => split_gap(range, state.base_len).0.map_or(0, base_allocated),
        };
        let shown: u64 = state.pieces.over(ContentRange::between(0, state.size)).map(part).sum();
        shown + state.reserved_in_holes()
    }

    /// Whether it may differ from what was published last (or from its base).
    pub fn is_changed(&self) -> bool {
        let state = self.state();
        state.changed || state.passthrough
    }

    /// Makes the present state the published one, which later writes leave as
    /// it is. It is durable after [`sync`](Self::sync) and the journal's.
    /// What the kernel writes by itself goes on being written in place.
    pub fn publish(&self) -> StagingResult<Published> {
        self.check_latch()?;
        let mut state = self.state_mut();
        if state.passthrough {
            return self.publish_in_place(&mut state);
        }
        if let Some(published) = state.published.as_ref().filter(|_| !state.changed) {
            return Ok(Published::of(published));
        }
        let extents = state.pieces.extents();
        self.publish_extents(&mut state, extents)
    }

    pub(super) fn publish_extents(&self, state: &mut State, extents: Vec<StagedExtent>) -> StagingResult<Published> {
        let (map, long) = if extents.len() <= MAX_INLINE_EXTENTS {
            (StagedMap::Inline(extents), None)
        } else {
            (self.write_map(state, &extents)?, Some(extents.into_boxed_slice()))
        };
        let content = StagedContent { file: self.0.id, size: state.size, base_len: state.base_len, map };
        let published = state.publish(content, long);
        self.tidy_lazily(state);
        Ok(Published::of(&published))
    }

    fn write_map(&self, state: &mut State, extents: &[StagedExtent]) -> StagingResult<StagedMap> {
        let mut bytes = Vec::new();
        encode_extents(extents, &mut bytes);
        let raw = self.raw()?;
        let len = bytes.len() as u64;
        let offset = state.take_for_map(len);
        let written = raw.write_all_at(&bytes, offset);
        self.0.dirty.store(true, Ordering::Release);
        if let Err(error) = written {
            state.release_map(offset, len);
            self.tidy(&raw, state);
            return Err(self.write_failed("write the map of", error));
        }
        Ok(StagedMap::InFile { offset, len, hash: Digest::of(&bytes) })
    }

    /// Makes all that was written so far, and the file's name, durable. Once
    /// it failed it is never tried again: the kernel would say that all is
    /// well, though the bytes are not on the disk.
    pub fn sync(&self) -> StagingResult<()> {
        // One at a time: the kernel tells of an error once, and a sync beside the one that is told would succeed.
        let _one = self.0.sync.lock().unwrap_or_else(PoisonError::into_inner);
        self.sync_name()?;
        // What is dirty keeps its descriptor, so nothing is opened here.
        if !self.is_dirty() {
            return Ok(());
        }
        let raw = self.raw()?;
        // A writer sets it behind its write: what is not in this sync sets it again.
        self.0.dirty.swap(self.0.in_place.load(Ordering::Acquire), Ordering::AcqRel);
        raw.sync().map_err(|error| {
            self.latch();
            self.failed("sync", error)
        })
    }

    /// Makes the file's name durable.
    pub(super) fn sync_name(&self) -> StagingResult<()> {
        self.check_latch()?;
        self.0.area.sync_names(self.0.named).inspect_err(|_| self.latch())
    }

    /// Holds all other syncs of the file back while its filesystem is synced as
    /// a whole. `None` when it need not be, or failed before.
    pub(super) fn begin_sync(&self) -> Option<HeldSync<'_>> {
        let one = self.0.sync.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_latch().ok().filter(|()| self.is_dirty())?;
        let raw = self.raw().ok()?;
        self.0.dirty.store(self.0.in_place.load(Ordering::Acquire), Ordering::Release);
        Some(HeldSync { file: self, _raw: raw, _one: one })
    }

    /// The journal durably names the state of this generation, or a newer one:
    /// room that only older ones used is free.
    pub fn published_is_durable(&self, generation: Generation) {
        let mut state = self.state_mut();
        state.durable(generation);
        self.tidy_lazily(&mut state);
    }

    /// The published state, held: its bytes stay until the last clone of it is dropped.
    ///
    /// Errors: `Latched`; `Unpublished`; `WrittenInPlace` while the kernel writes the file.
    pub fn freeze(&self) -> StagingResult<FrozenContent> {
        self.check_latch()?;
        let mut state = self.state_mut();
        if state.passthrough {
            return Err(StagingError::WrittenInPlace { file: self.0.id });
        }
        let Some(published) = state.published.clone() else {
            return Err(StagingError::Unpublished { file: self.0.id });
        };
        state.pin(published.generation);
        Ok(FrozenContent::new(self.clone(), published))
    }

    pub(super) fn unpin(&self, generation: Generation) {
        let mut state = self.state_mut();
        state.unpin(generation);
        self.tidy_lazily(&mut state);
    }

    /// The bytes are not needed any more once the last user is gone: to be
    /// called when the journal durably names the file no more (or never did).
    pub fn discard(&self) {
        self.0.doomed.store(true, Ordering::Release);
    }

    // --- what the parts of this module share ---

    pub(super) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.0.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.0.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open file, opened again if it was closed.
    pub(super) fn raw(&self) -> StagingResult<Arc<dyn RawFile>> {
        self.0.used.store(true, Ordering::Relaxed);
        self.0.just_given.store(false, Ordering::Release);
        let mut handle = self.0.handle.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(raw) = &*handle {
            return Ok(raw.clone());
        }
        let raw = self.0.area.reopen(self.0.id)?;
        *handle = Some(raw.clone());
        drop(handle);
        self.0.area.note_open(self);
        Ok(raw)
    }

    /// Closes the descriptor if nobody uses it, nobody did lately, and nothing unsynced was written through it.
    pub(super) fn close_if_idle(&self) -> bool {
        if self.0.used.swap(false, Ordering::Relaxed) {
            return false;
        }
        let Ok(mut handle) = self.0.handle.try_lock() else { return false };
        let idle = handle.as_ref().is_none_or(|raw| Arc::strong_count(raw) == 1 && Arc::strong_count(raw.file()) == 1);
        let close = idle && !self.0.dirty.load(Ordering::Acquire);
        if close {
            *handle = None;
        }
        close
    }

    #[cfg(test)]
    pub(super) fn has_descriptor(&self) -> bool {
        self.0.handle.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    pub(super) fn set_in_place(&self, in_place: bool) {
        self.0.in_place.store(in_place, Ordering::Release);
    }

    pub(super) fn set_dirty(&self) {
        self.0.dirty.store(true, Ordering::Release);
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.0.dirty.load(Ordering::Acquire)
    }

    pub(super) fn read_place(&self, place: u64, bytes: &mut [u8]) -> StagingResult<()> {
        self.raw()?.read_exact_at(bytes, place).map_err(|error| self.failed("read", error))
    }

    pub(super) fn failed(&self, operation: &'static str, error: io::Error) -> StagingError {
        StagingError::file(operation, self.0.id, error)
    }

    /// A failed change: a full disk says so again next time, everything else is remembered.
    pub(super) fn write_failed(&self, operation: &'static str, error: io::Error) -> StagingError {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        if !matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge) {
            self.latch();
        }
        self.failed(operation, error)
    }

    fn latch(&self) {
        self.0.latched.store(true, Ordering::Release);
    }

    pub(super) fn check_latch(&self) -> StagingResult<()> {
        let latched = self.0.latched.load(Ordering::Acquire);
        if latched { Err(StagingError::Latched { file: self.0.id }) } else { Ok(()) }
    }

    fn checked(&self, offset: u64, len: u64) -> StagingResult<ContentRange> {
        ContentRange::new(offset, len)
            .filter(|range| range.end() <= MAX_SIZE)
            .ok_or(StagingError::TooLarge { file: self.0.id, offset })
    }

    /// Gives free room back to the disk, and tells the quota.
    pub(super) fn tidy(&self, raw: &Arc<dyn RawFile>, state: &mut State) {
        for (start, len) in std::mem::take(&mut state.to_punch) {
            let (first, end) = (start.next_multiple_of(BLOCK), (start + len) / BLOCK * BLOCK);
            if first < end
                && let Err(error) = raw.punch(first, end - first)
            {
                tracing::debug!(%error, id = %self.0.id, "the disk does not take room back");
            }
        }
        self.count(state);
    }

    fn tidy_lazily(&self, state: &mut State) {
        if state.to_punch.is_empty() {
            self.count(state);
        } else if let Ok(raw) = self.raw() {
            self.tidy(&raw, state);
        } else {
            // Not later: something may have been written there by then.
            state.to_punch.clear();
            self.count(state);
        }
    }

    /// Tells the quota what the file uses.
    pub(super) fn count(&self, state: &mut State) {
        let used = state.used();
        self.count_as(state, used);
    }

    pub(super) fn count_as(&self, state: &mut State, used: u64) {
        self.0.area.store.quota.update(state.counted, used);
        state.counted = used;
    }

    pub(super) fn account(&self) {
        self.count(&mut self.state_mut());
    }
}

/// See [`StagedFile::begin_sync`].
pub(super) struct HeldSync<'a> {
    file: &'a StagedFile,
    /// Nobody closes the descriptor meanwhile: it is the one that is told of errors.
    _raw: Arc<dyn RawFile>,
    _one: MutexGuard<'a, ()>,
}

impl HeldSync<'_> {
    pub(super) fn id(&self) -> StagingId {
        self.file.id()
    }

    /// Unless it is known that all went well, the file is to be synced still.
    pub(super) fn end(self, synced: bool) {
        if !synced {
            self.file.set_dirty();
        }
    }
}

impl State {
    /// What the disk should begin to write after `plan` was: a long enough streak.
    fn early_writeback(&mut self, plan: &[Planned]) -> Option<(u64, u64)> {
        for planned in plan {
            let end = planned.place + planned.range.len();
            let start = if planned.place == self.streak.1 { self.streak.0 } else { planned.place };
            self.streak = (start, end);
        }
        let (start, end) = self.streak;
        (end - start >= EARLY_WRITEBACK).then(|| {
            self.streak = (end, end);
            (start, end - start)
        })
    }
}

/// Writes what is planned; neighbours in one go.
fn write_plan(raw: &dyn RawFile, plan: &[Planned], offset: u64, data: &[u8]) -> io::Result<()> {
    let mut at = 0;
    while let Some(first) = plan.get(at) {
        let mut range = first.range;
        at += 1;
        while let Some(next) = plan.get(at).filter(|next| first.place + range.len() == next.place) {
            range = ContentRange::between(range.start(), next.range.end());
            at += 1;
        }
        let bytes = &data[(range.start() - offset) as usize..(range.end() - offset) as usize];
        raw.write_all_at(bytes, first.place)?;
    }
    Ok(())
}
