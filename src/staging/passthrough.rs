//! Files that the kernel reads and writes by itself (FUSE passthrough).
//!
//! Such a file is written in place, without a word to us. That is right for a
//! file of which nothing was published when it began, and which is what its
//! staging file is, byte for byte. A crash then finds at least what was
//! synced, and perhaps bytes written later, as on any other filesystem.

use super::file::Published;
use super::state::State;
use super::{StagedFile, StagingResult};
use crate::base::clock::timestamp;
use crate::base::{ContentRange, Timestamp};
use crate::format::StagedExtent;
use crate::format::staged::MAX_INLINE_EXTENTS;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What the disk tells of a file that the kernel writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InPlace {
    /// Length, bytes.
    pub size: u64,
    /// When it was written last.
    pub modified: Timestamp,
    /// Bytes of the disk that it takes.
    pub allocated: u64,
}

impl InPlace {
    fn of(metadata: &Metadata) -> io::Result<Self> {
        Ok(Self {
            size: metadata.len(),
            modified: timestamp(metadata.modified()?),
            allocated: metadata.blocks().saturating_mul(512),
        })
    }
}

impl StagedFile {
    /// The file that the kernel may read and write in our place, from now on
    /// until [`end_passthrough`](Self::end_passthrough); `None` when the
    /// content is not simply that of the file, or something was published already.
    /// An encrypted file is never given: the kernel would write plain bytes.
    pub fn backing(&self) -> Option<Arc<File>> {
        self.check_latch().ok().filter(|()| !self.0.area.is_encrypted())?;
        let raw = self.raw().ok()?;
        let mut state = self.state_mut();
        if !state.passthrough {
            if !state.is_in_place() {
                return None;
            }
            let untouched = self.make_identical(&mut state).ok()?;
            state.passthrough = true;
            self.set_in_place(true);
            self.0.just_given.store(untouched, Ordering::Release);
        }
        // It stays so until the passthrough ends: the kernel does not tell when it writes.
        self.set_dirty();
        Some(raw.file().clone())
    }

    /// Makes the staging file's bytes those of the content, holes and length
    /// included. Returns whether it is as empty as it was made.
    fn make_identical(&self, state: &mut State) -> StagingResult<bool> {
        let untouched = !state.changed && !self.is_dirty() && state.used() == 0 && state.size == 0;
        if untouched {
            return Ok(true);
        }
        let raw = self.raw()?;
        state.drop_all_reserved();
        self.tidy(&raw, state);
        let failed = |error| self.write_failed("prepare", error);
        raw.set_len(state.rooms().end()).map_err(failed)?;
        // Free room may hold bytes of former writes.
        for (start, len) in state.rooms().free() {
            raw.punch(start, len).map_err(|error| self.failed("prepare", error))?;
        }
        raw.set_len(state.size).map_err(|error| self.write_failed("prepare", error))?;
        Ok(false)
    }

    /// Whether the kernel writes it by itself.
    pub fn is_passthrough(&self) -> bool {
        self.0.in_place.load(Ordering::Acquire)
    }

    /// Asks the disk what became of a file that the kernel writes; `None` when
    /// it does not. The first call after the [`backing`](Self::backing) that
    /// began it may tell of that moment: it is to be made before the kernel is
    /// given the file.
    pub fn refresh(&self) -> StagingResult<Option<InPlace>> {
        let mut state = self.state_mut();
        if !state.passthrough {
            return Ok(None);
        }
        if self.0.just_given.swap(false, Ordering::AcqRel)
            && let Some(modified) = self.0.emptied
        {
            return Ok(Some(InPlace { size: 0, modified, allocated: 0 }));
        }
        self.refreshed(&mut state).map(Some)
    }

    fn refreshed(&self, state: &mut State) -> StagingResult<InPlace> {
        let look = self.raw()?.metadata().and_then(|metadata| InPlace::of(&metadata));
        let found = look.map_err(|error| self.failed("look at", error))?;
        state.size = found.size;
        self.count_as(state, found.allocated);
        Ok(found)
    }

    /// The kernel has let go of the file: what it wrote is the content, what
    /// it left out are holes. `None` when the kernel did not have it.
    pub fn end_passthrough(&self) -> StagingResult<Option<InPlace>> {
        let mut state = self.state_mut();
        if !state.passthrough {
            return Ok(None);
        }
        let found = self.refreshed(&mut state)?;
        let data = match found.size > 0 && found.allocated >= found.size {
            true => vec![ContentRange::between(0, found.size)],
            false => self.data_in_place(found.size)?,
        };
        state.set_in_place(found.size, &data);
        self.set_in_place(false);
        self.set_dirty();
        self.count(&mut state);
        Ok(Some(found))
    }

    /// The ranges of the file that are no holes.
    fn data_in_place(&self, size: u64) -> StagingResult<Vec<ContentRange>> {
        let raw = self.raw()?;
        let find = |from, data| raw.seek(from, data).map_err(|error| self.failed("look for holes in", error));
        let mut ranges = Vec::new();
        let mut at = 0;
        while at < size {
            let Some(start) = find(at, true)?.filter(|&start| start < size) else { break };
            let end = find(start, false)?.unwrap_or(size).min(size);
            ranges.push(ContentRange::between(start, end));
            at = end;
        }
        Ok(ranges)
    }

    pub(super) fn publish_in_place(&self, state: &mut State) -> StagingResult<Published> {
        let found = self.refreshed(state)?;
        let size = found.size;
        let whole = [ContentRange::between(0, size)];
        // As many blocks as bytes: no holes to look for.
        let data = if size > 0 && found.allocated >= size { whole.to_vec() } else { self.data_in_place(size)? };
        // A long map would have to lie in the file itself, where the kernel
        // writes. Holes named as data are read as the zeros that they are.
        let data = if data.len() > MAX_INLINE_EXTENTS { &whole[..] } else { &data };
        let extents = data.iter().map(|&range| StagedExtent { range, place: Some(range.start()) }).collect();
        let counted = state.counted;
        let published = self.publish_extents(state, extents)?;
        self.count_as(state, counted);
        Ok(published)
    }

    pub(super) fn len_in_place(&self) -> StagingResult<u64> {
        Ok(self.raw()?.metadata().map_err(|error| self.failed("look at", error))?.len())
    }

    pub(super) fn blocks_in_place(&self) -> Option<u64> {
        let metadata = self.raw().ok()?.metadata().ok()?;
        Some(metadata.blocks().saturating_mul(512))
    }

    pub(super) fn read_in_place(&self, offset: u64, buffer: &mut [u8]) -> StagingResult<usize> {
        let raw = self.raw()?;
        let mut read = 0;
        while read < buffer.len() {
            match raw.file().read_at(&mut buffer[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(bytes) => read += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed("read", error)),
            }
        }
        Ok(read)
    }
}
