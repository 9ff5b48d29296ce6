//! One file of the machine: attributes, signature, bytes and holes.

use super::Problem;
use super::attributes::{device_number, read_xattrs};
use crate::archive::ContentSource;
use crate::base::clock::timestamp;
use crate::base::{ContentRange, Timestamp};
use crate::catalog::SourceSignature;
use crate::format::entry::MAX_EXTENTS;
use crate::format::{FileContent, NodeBody, NodeMeta};
use rustix::fs::{Advice, Mode, OFlags, SeekFrom};
use std::fs::{File, Metadata};
use std::io;
use std::num::NonZeroU64;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;

/// The attributes of a file that `lstat` and the extended attributes tell.
pub(super) fn meta_of(path: &Path, metadata: &Metadata) -> Result<NodeMeta, Problem> {
    Ok(NodeMeta {
        accessed: None,
        permissions: (metadata.mode() & 0o7777) as u16,
        user: metadata.uid(),
        group: metadata.gid(),
        modified: modified(metadata),
        changed: changed(metadata),
        born: metadata.created().ok().map(timestamp),
        xattrs: read_xattrs(path)?,
    })
}

/// What a file without bytes is; `None` for a regular file.
pub(super) fn body_of(path: &Path, metadata: &Metadata) -> Result<Option<NodeBody>, Problem> {
    let kind = metadata.file_type();
    let device = device_number(metadata.rdev());
    Ok(Some(if kind.is_file() {
        return Ok(None);
    } else if kind.is_dir() {
        NodeBody::Directory
    } else if kind.is_symlink() {
        let target = std::fs::read_link(path).map_err(Problem::local("read the target of"))?;
        NodeBody::Symlink(target.into_os_string().into_vec())
    } else if kind.is_fifo() {
        NodeBody::Fifo
    } else if kind.is_socket() {
        NodeBody::Socket
    } else if kind.is_char_device() {
        NodeBody::CharDevice(device)
    } else if kind.is_block_device() {
        NodeBody::BlockDevice(device)
    } else {
        return Err(Problem::UnknownKind);
    }))
}

pub(super) fn modified(metadata: &Metadata) -> Timestamp {
    Timestamp { seconds: metadata.mtime(), nanoseconds: metadata.mtime_nsec() as u32 }
}

pub(super) fn changed(metadata: &Metadata) -> Timestamp {
    Timestamp { seconds: metadata.ctime(), nanoseconds: metadata.ctime_nsec() as u32 }
}

/// Tells the file as it is now from every other.
pub(super) fn signature(metadata: &Metadata) -> SourceSignature {
    SourceSignature::new(metadata.dev(), metadata.ino(), metadata.size(), modified(metadata), changed(metadata))
}

/// Whether it has holes, or is compressed by its filesystem.
pub(super) fn may_be_sparse(metadata: &Metadata) -> bool {
    metadata.blocks().saturating_mul(512) < metadata.size()
}

/// A regular file, open to be committed.
#[derive(Debug)]
pub(super) struct FileSource {
    file: File,
    metadata: Metadata,
    extents: Option<Vec<ContentRange>>,
}

impl FileSource {
    /// Opens a file. It neither follows a symlink nor waits for a pipe that
    /// took the file's place.
    pub(super) fn open(path: &Path) -> Result<Self, Problem> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(
            rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| Problem::local("open")(errno.into()))?,
        );
        let metadata = file.metadata().map_err(Problem::local("examine"))?;
        if !metadata.is_file() {
            return Err(Problem::Changing);
        }
        let extents = if may_be_sparse(&metadata) { data_ranges(&file, metadata.size()) } else { None };
        Ok(Self { file, metadata, extents })
    }

    /// What `fstat` said when it was opened.
    pub(super) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The content, once its hash is known.
    pub(super) fn content(&self, hash: crate::base::ContentHash) -> FileContent {
        FileContent { size: self.len(), hash, extents: self.extents.clone() }
    }

    /// All bytes. Meant for short files.
    pub(super) fn read_all(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.len() as usize];
        self.file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}

impl ContentSource for FileSource {
    fn len(&self) -> u64 {
        self.metadata.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn data_ranges(&self) -> Option<&[ContentRange]> {
        self.extents.as_deref()
    }

    fn will_need(&self, range: ContentRange) {
        // Only advice: a filesystem that does not take it reads all the same.
        let _ = rustix::fs::fadvise(&self.file, range.start(), NonZeroU64::new(range.len()), Advice::WillNeed);
    }

    fn is_unchanged(&self) -> bool {
        self.file.metadata().is_ok_and(|now| {
            now.size() == self.metadata.size()
                && modified(&now) == modified(&self.metadata)
                && changed(&now) == changed(&self.metadata)
        })
    }
}

/// The ranges that hold data; `None` when all does, when the filesystem
/// cannot tell, or when there are too many to keep.
fn data_ranges(file: &File, size: u64) -> Option<Vec<ContentRange>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            // No data after `at`.
            Err(rustix::io::Errno::NXIO) => break,
            Err(_) => return None,
        };
        let end = rustix::fs::seek(file, SeekFrom::Hole(start)).ok()?.min(size);
        if start >= size {
            break;
        }
        if start < at || end <= start || ranges.len() == MAX_EXTENTS {
            return None;
        }
        ranges.push(ContentRange::between(start, end));
        at = end;
    }
    (ranges != [ContentRange::between(0, size)]).then_some(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_found_and_a_change_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sparse");
        let file = File::create(&path).unwrap();
        file.set_len(1 << 20).unwrap();
        file.write_all_at(&[1; 4096], 512 * 1024).unwrap();
        let source = FileSource::open(&path).unwrap();
        let ranges = source.data_ranges().unwrap().to_vec();
        assert_eq!(ranges, [ContentRange::between(512 * 1024, 516 * 1024)]);
        assert!(source.is_unchanged());
        file.write_all_at(&[2], 0).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        assert!(!source.is_unchanged());
    }

    #[test]
    fn a_file_of_holes_alone_has_no_data() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hole");
        File::create(&path).unwrap().set_len(1 << 20).unwrap();
        assert_eq!(FileSource::open(&path).unwrap().data_ranges(), Some(&[][..]));
    }

    #[test]
    fn a_symlink_in_the_files_place_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("link");
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(FileSource::open(&path).is_err());
    }
}
