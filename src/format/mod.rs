//! Bytes to checked types and back: everything that `docs/FORMAT.md`
//! specifies. No I/O. Parsers bound every length before they use it, and
//! return an error for whatever they do not understand.

pub mod binary;
pub mod bundle;
pub mod descriptor;
pub mod entry;
pub mod geometry;
pub mod journal;
pub mod journal_seal;
pub mod layout;
pub mod manifest;
pub mod sealed_json;
pub mod sealing;
pub mod staged;
mod tar_header;
pub mod tree;

pub use bundle::{BundleBuilder, BundleRow, BundleTable};
pub use descriptor::{ArchiveDescriptor, BundleRule, OuterCode, Profile, StoreDescriptor, TierLayout, TierRule};
pub use entry::{Entry, EntryPath, FileContent, NodeBody, NodeMeta};
pub use geometry::{BlockGeometry, BlockId, Geometry};
pub use manifest::{BlockKey, Compression, ContentFacts, HashAlgorithm, Manifest, ObjectKind};
pub use staged::{StagedContent, StagedExtent, StagedMap, StagingId};

/// Why bytes are not what they should be.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The checksum inside does not match the bytes.
    #[error("{what}: checksum mismatch, the bytes are damaged")]
    Checksum {
        /// Which structure.
        what: &'static str,
    },
    /// It ends before it should.
    #[error("{what}: cut short at byte {at}")]
    Truncated {
        /// Which structure.
        what: &'static str,
        /// Where the bytes ended.
        at: u64,
    },
    /// A version this program does not know.
    #[error("{what}: format version {found}, this program knows version {known}; use a newer blockframe")]
    Version {
        /// Which structure.
        what: &'static str,
        /// What the bytes say.
        found: u64,
        /// What this program reads.
        known: u64,
    },
    /// It is encrypted, and the archive was opened without its keys.
    #[error("{what}: it is sealed; open the archive with its passphrase or key file")]
    Sealed {
        /// Which structure.
        what: &'static str,
    },
    /// A value that no writer produces.
    #[error("{what}: {why}")]
    Invalid {
        /// Which structure.
        what: &'static str,
        /// Which rule it breaks.
        why: String,
    },
    /// No JSON, or not of this shape.
    #[error("{what}: not valid JSON of this kind")]
    Json {
        /// Which structure.
        what: &'static str,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
}

impl FormatError {
    pub(crate) fn invalid(what: &'static str, why: impl Into<String>) -> Self {
        Self::Invalid { what, why: why.into() }
    }
}
