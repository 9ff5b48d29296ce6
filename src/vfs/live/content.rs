//! Reading and writing bytes.

use super::LiveVfs;
use super::file::{Base, Content, LiveFile};
use crate::base::ContentRange;
use crate::format::FileContent;
use crate::staging::{InPlace, StagedFile};
use crate::vfs::{error, seek};
use blockframe_api::{AllocateMode, ErrorClass, Handle, Node, VfsError, VfsResult};
use std::cell::RefCell;
use std::sync::Arc;

/// Longest file, bytes: what offsets of the kernel can name.
const MAX_FILE: u64 = i64::MAX as u64;
/// Bytes copied at once from one file to another.
const COPY_STEP: u64 = 1 << 20;
/// Most bytes that one call copies, so that it can be interrupted.
const COPY_MOST: u64 = 128 << 20;
/// Most memory that a thread keeps for its next read, bytes.
const KEPT_BUFFER: usize = 2 << 20;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Bytes of a range that hold data in a committed content.
pub(super) fn allocated(content: &FileContent, range: ContentRange) -> u64 {
    let range = range.clamp_to(content.size);
    match &content.extents {
        None => range.len(),
        Some(extents) => extents.iter().map(|extent| extent.intersect(range).len()).sum(),
    }
}

fn end_of(offset: u64, length: u64) -> VfsResult<u64> {
    let too_large = || VfsError::new(ErrorClass::TooLarge, "a file cannot be that long");
    offset.checked_add(length).filter(|end| *end <= MAX_FILE).ok_or_else(too_large)
}

impl LiveVfs {
    pub(super) fn read_file(
        &self,
        file: &LiveFile,
        offset: u64,
        length: u32,
        deliver: &mut dyn FnMut(&[u8]),
    ) -> VfsResult<()> {
        let content = file.content();
        if let Some(staged) = &content.staged {
            self.note_passthrough(file, staged);
        }
        let len = content.size().saturating_sub(offset).min(length.into());
        let Some(range) = ContentRange::new(offset, len).filter(|range| !range.is_empty()) else {
            deliver(&[]);
            return Ok(());
        };
        let base = content.base.as_ref();
        match &content.staged {
            None => base.map_or(Ok(()), |base| self.read_base(file.node(), base, range, deliver)),
            Some(staged) => {
                let mut buffer = BUFFER.take();
                buffer.resize(len as usize, 0);
                let read = self.read_staged(file.node(), staged, base, range, &mut buffer)?;
                deliver(&buffer[..read.min(buffer.len())]);
                if buffer.capacity() <= KEPT_BUFFER {
                    BUFFER.set(buffer);
                }
                Ok(())
            }
        }
    }

    /// Fills `buffer` with a range of a content that lies in staging over a
    /// base. Returns how many bytes there were.
    fn read_staged(
        &self,
        node: Node,
        staged: &StagedFile,
        base: Option<&Base>,
        range: ContentRange,
        buffer: &mut [u8],
    ) -> VfsResult<usize> {
        let mut from_base = |range: ContentRange, buffer: &mut [u8]| -> VfsResult<()> {
            match base {
                Some(base) => self.read_base(node, base, range, &mut |bytes| {
                    let len = bytes.len().min(buffer.len());
                    buffer[..len].copy_from_slice(&bytes[..len]);
                }),
                None => Err(VfsError::new(ErrorClass::Internal, "staged content without what it lies over")),
            }
        };
        staged.read(range.start(), buffer, &mut from_base)
    }

    /// Reads a range of a committed content, verified.
    pub(super) fn read_base(
        &self,
        node: Node,
        base: &Base,
        range: ContentRange,
        deliver: &mut dyn FnMut(&[u8]),
    ) -> VfsResult<()> {
        let failed = |cause: &crate::archive::ArchiveError| {
            error::of_read(&self.path(node), range.start(), range.len() as u32, cause)
        };
        let find = |content: &FileContent| self.place(node, content);
        let source = base.source(&self.archive, &self.reader, find, failed)?;
        let place = source.place_of(range).ok_or_else(error::no_such_range)?;
        self.reader.read(&source.object, &source.stream, place, deliver).map_err(|error| failed(&error))
    }

    pub(super) fn seek_file(&self, file: &LiveFile, offset: u64, data: bool) -> VfsResult<u64> {
        let content = file.content();
        let base = content.base.as_ref().map(|base| &base.content);
        let found = match &content.staged {
            None => base.and_then(|base| seek(base, offset, data)),
            Some(staged) => {
                self.note_passthrough(file, staged);
                staged.seek(offset, data, &|offset, data| base.and_then(|base| seek(base, offset, data)))
            }
        };
        found.ok_or_else(error::no_such_range)
    }

    /// The staging file that takes a change; the time of the change is noted.
    fn change<T>(
        &self,
        file: &Arc<LiveFile>,
        room: u64,
        work: impl FnOnce(&StagedFile) -> Result<T, crate::staging::StagingError>,
    ) -> VfsResult<T> {
        file.check_lost()?;
        self.admit(room)?;
        let staged = match file.staged() {
            Some(staged) => staged,
            None => self.staged_for_write(file, &mut file.content_mut())?,
        };
        // Shared with reads, against a committed content that takes its place.
        let content = file.content();
        let staged = match &content.staged {
            Some(staged) => staged.clone(),
            // It was committed in between: once more, over the new base.
            None => {
                drop((content, staged));
                let mut content = file.content_mut();
                let staged = self.staged_for_write(file, &mut content)?;
                let outcome = work(&staged).map_err(|error| error::of_staging(&error))?;
                file.times().written_now(self.namespace.now());
                return Ok(outcome);
            }
        };
        let outcome = work(&staged).map_err(|error| error::of_staging(&error))?;
        file.times().written_now(self.namespace.now());
        Ok(outcome)
    }

    /// Waits for room in staging.
    fn admit(&self, bytes: u64) -> VfsResult<()> {
        self.staging.admit(bytes, &DrainOf(self)).map_err(|error| error::of_staging(&error))
    }

    pub(super) fn write_file(&self, file: &Arc<LiveFile>, offset: u64, data: &[u8]) -> VfsResult<()> {
        end_of(offset, data.len() as u64)?;
        if data.is_empty() {
            return Ok(());
        }
        self.change(file, data.len() as u64, |staged| staged.write(offset, data))
    }

    /// Sets the length of a file, on behalf of a path or of a handle.
    pub(super) fn truncate_node(&self, node: Node, handle: Option<Handle>, size: u64) -> VfsResult<()> {
        end_of(size, 0)?;
        if let Some(handle) = handle {
            return self.truncate_file(&self.handle(handle)?.file, size);
        }
        // Not for writing alone, which would hand the file to the kernel.
        let how = blockframe_api::OpenHow { read: true, write: true, truncate: false };
        let opened = self.open_file(node, how)?;
        let open = self.handle(opened.handle)?;
        let outcome = self.truncate_file(&open.file, size);
        drop(open);
        blockframe_api::Vfs::release(self, opened.handle);
        outcome
    }

    pub(super) fn truncate_file(&self, file: &Arc<LiveFile>, size: u64) -> VfsResult<()> {
        let (known, passthrough) = {
            let content = file.content();
            let passthrough = content.staged.as_ref().is_some_and(|staged| staged.is_passthrough());
            (content.size(), passthrough)
        };
        if known == size && size == 0 && !passthrough {
            // POSIX marks the times even so.
            if file.staged().is_some() {
                file.times().written_now(self.namespace.now());
                return Ok(());
            }
        }
        self.change(file, 0, |staged| staged.truncate(size))
    }

    pub(super) fn allocate_range(
        &self,
        file: &Arc<LiveFile>,
        offset: u64,
        length: u64,
        mode: AllocateMode,
    ) -> VfsResult<()> {
        let end = end_of(offset, length)?;
        let range = ContentRange::between(offset, end);
        self.change(file, 0, |staged| {
            let size = staged.size();
            let inside = ContentRange::between(offset.min(size), end.min(size));
            match mode {
                AllocateMode::KeepSize => staged.allocate(inside),
                AllocateMode::Extend => {
                    if end > size {
                        staged.truncate(end)?;
                    }
                    staged.allocate(range)
                }
                AllocateMode::Punch | AllocateMode::ZeroKeepSize => staged.make_hole(inside),
                AllocateMode::Zero => {
                    staged.make_hole(inside)?;
                    if end > size { staged.truncate(end) } else { Ok(()) }
                }
            }
        })
    }

    pub(super) fn copy_between(
        &self,
        from: &Arc<LiveFile>,
        from_offset: u64,
        to: &Arc<LiveFile>,
        to_offset: u64,
        length: u64,
    ) -> VfsResult<u64> {
        let size = from.content().size();
        let most = size.saturating_sub(from_offset).min(length).min(COPY_MOST);
        end_of(to_offset, most)?;
        let mut done = 0;
        let mut buffer = Vec::new();
        while done < most {
            let step = (most - done).min(COPY_STEP);
            // Holes stay holes.
            match self.seek_file(from, from_offset + done, true) {
                Ok(data) if data > from_offset + done => {
                    let hole = (data - from_offset - done).min(most - done);
                    self.copy_hole(to, to_offset + done, hole)?;
                    done += hole;
                    continue;
                }
                Err(error) if error.class() == ErrorClass::NoSuchRange => {
                    self.copy_hole(to, to_offset + done, most - done)?;
                    return Ok(most);
                }
                _ => {}
            }
            buffer.clear();
            self.read_file(from, from_offset + done, step as u32, &mut |bytes| buffer.extend_from_slice(bytes))?;
            if buffer.is_empty() {
                break;
            }
            self.write_file(to, to_offset + done, &buffer)?;
            done += buffer.len() as u64;
        }
        Ok(done)
    }

    fn copy_hole(&self, to: &Arc<LiveFile>, offset: u64, length: u64) -> VfsResult<()> {
        self.allocate_range(to, offset, length, AllocateMode::Zero)
    }
}

/// Asks whether waiting makes room.
struct DrainOf<'a>(&'a LiveVfs);

impl crate::staging::Admission for DrainOf<'_> {
    fn can_drain(&self) -> bool {
        self.0.drain.get().is_some_and(|drain| {
            drain.closed();
            drain.can_drain()
        })
    }
}

impl super::file::Times {
    /// Bytes were written at this time.
    pub(super) fn written_now(&mut self, now: blockframe_api::Timestamp) {
        self.written = Some(now);
        self.modified = None;
    }
}

impl super::file::Times {
    /// This is what the disk tells of a file that the kernel writes by itself.
    pub(super) fn found_in_place(&mut self, found: &InPlace) {
        let seen = self.in_place.replace(*found);
        if seen.is_some_and(|seen| (seen.size, seen.modified) != (found.size, found.modified)) {
            self.written = Some(found.modified);
            self.modified = None;
        }
    }
}

impl Content {
    /// Whether nothing lies in staging.
    pub(in crate::vfs) fn is_committed(&self) -> bool {
        self.staged.is_none()
    }
}
