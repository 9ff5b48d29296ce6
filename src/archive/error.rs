//! What can go wrong with objects.

use crate::base::{ContentRange, ErrorClass, ObjectName, SegmentIndex};
use crate::codec::CodeError;
use crate::codec::compress::CompressError;
use crate::format::FormatError;
use crate::store::{StoreError, StoreErrorKind};

/// The outcome of an archive operation.
pub type ArchiveResult<T> = Result<T, ArchiveError>;

/// A failed archive operation.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The store has no archive.
    #[error("there is no archive in {store}; make one with `blockframe init {store}`, or name another with --archive")]
    NoArchive {
        /// The store's label.
        store: String,
    },
    /// The store has an archive already.
    #[error("{store} holds an archive already ({what}); choose an empty directory")]
    ArchiveExists {
        /// The store's label.
        store: String,
        /// What was found.
        what: String,
    },
    /// Both copies of the store's descriptor are bad.
    #[error("both copies of the descriptor of store {store} are damaged; see RECOVERY.md there")]
    DescriptorLost {
        /// The store's label.
        store: String,
        /// What is wrong with the first copy.
        #[source]
        source: FormatError,
    },
    /// No copy of an object's manifest is good.
    #[error("object {object}: no copy of its manifest is readable; run `blockframe health` for what is affected")]
    ManifestLost {
        /// The object.
        object: ObjectName,
        /// What is wrong with the first copy.
        #[source]
        source: Box<ArchiveError>,
    },
    /// A manifest that is whole but belongs elsewhere.
    #[error("object {object}: its manifest {why}")]
    ForeignManifest {
        /// The object.
        object: ObjectName,
        /// What does not fit.
        why: String,
    },
    /// Damage beyond the parity.
    #[error("object {object}: bytes {range} are lost with {shard} ({detail}); other ranges are readable")]
    Unrecoverable {
        /// The object.
        object: ObjectName,
        /// The shard that held them.
        shard: String,
        /// The range of the content; of the shard, where that holds no content.
        range: ContentRange,
        /// Which shards are bad, and how.
        detail: String,
    },
    /// The source of a commit changed while it was read.
    #[error("the content changed while it was read")]
    SourceChanged,
    /// The source of a commit cannot be read.
    #[error("cannot read the content")]
    Source(#[source] std::io::Error),
    /// A file is too long for the archive's rules.
    #[error("a content of {len} bytes cannot be cut into segments by this archive's rules")]
    TooLarge {
        /// Its length.
        len: u64,
    },
    /// The user asked to stop.
    #[error("interrupted; run the same command again to go on")]
    Interrupted,
    /// The erasure code refused.
    #[error(transparent)]
    Code(CodeError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A stream that does not decompress.
    #[error(transparent)]
    Compress(#[from] CompressError),
    /// Stored bytes are the ones that were recorded, and do not decode.
    #[error("object {object}: segment {segment} {why}; it was written with another key, or by a program with a defect")]
    Undecodable {
        /// The object.
        object: ObjectName,
        /// The segment.
        segment: SegmentIndex,
        /// What does not fit.
        why: String,
    },
    /// The archive's keys are not those of an object.
    #[error("object {object} is encrypted with the keys of epoch {epoch}, which this key ring does not have")]
    UnknownEpoch {
        /// The object.
        object: ObjectName,
        /// The number of the epoch.
        epoch: u32,
    },
    /// Bytes are not what they should be.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A rule of our own was broken.
    #[error("internal error: {0}; please report it")]
    Internal(String),
}

impl ArchiveError {
    /// Something of an encrypted archive is needed that only its keys open.
    pub(crate) fn locked() -> Self {
        Self::Format(FormatError::Sealed { what: "archive" })
    }

    /// For the adapters' tables.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Internal(_) => ErrorClass::Internal,
            Self::Interrupted => ErrorClass::Interrupted,
            Self::NoArchive { .. } => ErrorClass::Unavailable,
            Self::ArchiveExists { .. } => ErrorClass::Exists,
            Self::DescriptorLost { .. }
            | Self::ManifestLost { .. }
            | Self::ForeignManifest { .. }
            | Self::Unrecoverable { .. }
            | Self::Code(_) => ErrorClass::Unrecoverable,
            Self::SourceChanged | Self::Source(_) => ErrorClass::Busy,
            Self::TooLarge { .. } => ErrorClass::Invalid,
            Self::Store(error) if error.kind() == StoreErrorKind::NotFound => ErrorClass::Unrecoverable,
            Self::Store(error) => error.class(),
            Self::Undecodable { .. } | Self::Compress(_) => ErrorClass::Unrecoverable,
            Self::Format(FormatError::Sealed { .. }) | Self::UnknownEpoch { .. } => ErrorClass::WrongKey,
            Self::Format(FormatError::Version { .. }) => ErrorClass::NotSupported,
            Self::Format(_) => ErrorClass::Damaged,
        }
    }
}
