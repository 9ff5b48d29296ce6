//! An open object.

use super::{ArchiveError, ArchiveResult, VerifiedRange};
use crate::base::{ContentRange, Digest, ObjectName};
use crate::format::Manifest;

/// Which object, and the root that its manifest must have. The root comes
/// from the catalog (or, when that is being rebuilt, from the manifest itself).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObjectRef {
    /// The object's directory.
    pub name: ObjectName,
    /// Root over key, geometry and all shards.
    pub root: Digest,
}

/// An open object: its manifest was checked.
#[derive(Debug)]
pub struct Object {
    manifest: Manifest,
}

impl Object {
    /// The checked manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Reads a range of the content (cut at its end), verified leaf by leaf.
    /// Damaged leaves are decoded from other shards, returned, and written back.
    ///
    /// Errors: `Unrecoverable` for a range damaged beyond the parity.
    pub fn read(&self, range: ContentRange) -> ArchiveResult<VerifiedRange> {
        let _ = range;
        Err(ArchiveError::NotYet)
    }
}
