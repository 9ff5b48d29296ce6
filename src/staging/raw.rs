//! What the staging area asks of a file of the disk.

use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;
use std::fmt::Debug;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// A file of the disk. A trait, so that tests make it fail.
pub(super) trait RawFile: Send + Sync + Debug {
    /// The file itself.
    fn file(&self) -> &Arc<File>;

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file().write_all_at(bytes, offset)
    }

    /// Makes bytes and length durable.
    fn sync(&self) -> io::Result<()> {
        self.file().sync_data()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file().read_exact_at(buffer, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file().set_len(len)
    }

    fn metadata(&self) -> io::Result<Metadata> {
        self.file().metadata()
    }

    /// Reserves blocks for a range; the length stays.
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(self.file(), FallocateFlags::KEEP_SIZE, offset, len)?)
    }

    /// The range reads as zeros and takes no blocks; the length stays.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(self.file(), FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len)?)
    }

    /// Asks the kernel to begin to write a range to the disk.
    fn start_writeback(&self, offset: u64, len: u64) -> io::Result<()> {
        blockframe_writeback::start_writeback(self.file(), offset, len)
    }

    /// The next data (or hole) from `offset`; `None` when there is no more.
    fn seek(&self, offset: u64, data: bool) -> io::Result<Option<u64>> {
        let to = if data { SeekFrom::Data(offset) } else { SeekFrom::Hole(offset) };
        match rustix::fs::seek(self.file(), to) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NXIO) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// A file of the disk as it is.
#[derive(Debug)]
pub(super) struct DiskFile(pub(super) Arc<File>);

impl RawFile for DiskFile {
    fn file(&self) -> &Arc<File> {
        &self.0
    }
}
