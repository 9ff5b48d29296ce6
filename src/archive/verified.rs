//! Bytes that were checked against the manifest. Nothing else leaves the archive.

use crate::base::ContentRange;

/// Verified bytes of a content. Only the archive's reader makes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedRange {
    range: ContentRange,
    bytes: Vec<u8>,
}

impl VerifiedRange {
    pub(super) fn new(range: ContentRange, bytes: Vec<u8>) -> Self {
        debug_assert_eq!(range.len(), bytes.len() as u64);
        Self { range, bytes }
    }

    /// Which bytes of the content.
    pub fn range(&self) -> ContentRange {
        self.range
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes, owned.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}
