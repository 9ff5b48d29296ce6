//! Bytes that were checked against the manifest. Nothing else leaves the archive.

use crate::base::ContentRange;

/// Verified bytes of a content. Only the archive's reader makes them.
#[derive(Debug, Clone)]
pub struct VerifiedRange {
    range: ContentRange,
    buffer: Vec<u8>,
    /// Where in `buffer` the range begins: whole leaves are read, and less may have been asked for.
    start: usize,
}

impl VerifiedRange {
    pub(super) fn new(range: ContentRange, buffer: Vec<u8>, start: usize) -> Self {
        debug_assert!(start as u64 + range.len() <= buffer.len() as u64);
        Self { range, buffer, start }
    }

    /// Which bytes of the content.
    pub fn range(&self) -> ContentRange {
        self.range
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.start + self.range.len() as usize]
    }

    /// The memory, to be used by the next read.
    pub fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }
}

#[cfg(test)]
impl VerifiedRange {
    /// Bytes for tests of what stands above the archive.
    pub(crate) fn for_test(start: u64, bytes: Vec<u8>) -> Self {
        Self::new(ContentRange::between(start, start + bytes.len() as u64), bytes, 0)
    }
}
