//! Where the bytes of a new object come from.

use crate::base::ContentRange;
use std::io;

/// A content of known length that can be read at any offset, from several
/// threads at once.
pub trait ContentSource: Sync {
    /// Length, bytes.
    fn len(&self) -> u64;

    /// Whether there is nothing to read.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buffer` from `offset`; the range lies within the content.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// The ranges that hold data, ascending and disjoint, when some do not:
    /// everything else reads as zeros, and is stored as a hole.
    fn data_ranges(&self) -> Option<&[ContentRange]> {
        None
    }

    /// The range is going to be read soon.
    fn will_need(&self, _range: ContentRange) {}

    /// Whether the content is still what it was when `len` was taken. Asked
    /// once all of it was read.
    fn is_unchanged(&self) -> bool {
        true
    }
}

impl ContentSource for [u8] {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let bytes = usize::try_from(offset).ok().and_then(|start| self.get(start..start.checked_add(buffer.len())?));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl ContentSource for Vec<u8> {
    fn len(&self) -> u64 {
        <[u8] as ContentSource>::len(self)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        <[u8] as ContentSource>::read_at(self, offset, buffer)
    }
}

/// Whether a range lies in a hole: it touches no range that holds data.
pub(super) fn is_hole(data: Option<&[ContentRange]>, range: ContentRange) -> bool {
    let Some(data) = data else { return false };
    let next = data.partition_point(|extent| extent.end() <= range.start());
    data.get(next).is_none_or(|extent| extent.start() >= range.end())
}
