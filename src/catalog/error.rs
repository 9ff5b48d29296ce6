//! What can go wrong in the catalog.

use crate::archive::ArchiveError;
use crate::base::calendar::rfc3339_seconds;
use crate::base::{ErrorClass, ObjectName, Timestamp};
use crate::format::{EntryPath, FormatError};
use crate::store::StoreError;
use std::path::PathBuf;

/// The outcome of a catalog operation.
pub type CatalogResult<T> = Result<T, CatalogError>;

/// A failed catalog operation.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// Another process is writing to the archive.
    #[error("another blockframe process is writing to this archive ({lock}); wait until it is done")]
    Locked {
        /// The lock file.
        lock: PathBuf,
    },
    /// An entry's parent is no directory.
    #[error("{path} cannot be made: {parent} is not a directory")]
    ParentNotDirectory {
        /// The entry.
        path: EntryPath,
        /// What stands where its parent should.
        parent: EntryPath,
    },
    /// An entry refers to a content that no object holds.
    #[error("{path}: its content is not stored")]
    ContentMissing {
        /// The entry.
        path: EntryPath,
    },
    /// A hard link leads nowhere, or to a directory.
    #[error("{path} cannot be linked: {target} is not a file that stands there already")]
    LinkTargetMissing {
        /// The link.
        path: EntryPath,
        /// Where it should lead.
        target: EntryPath,
    },
    /// A path that the archive does not have.
    #[error("{path} is not in the archive; `blockframe ls` shows what is")]
    NotFound {
        /// The path.
        path: EntryPath,
    },
    /// A directory that shall go, and not what is below it.
    #[error("{path} is a directory; `-r` removes it with all that is below it")]
    IsDirectory {
        /// The path.
        path: EntryPath,
    },
    /// The root directory shall go.
    #[error("the root directory cannot be removed; name what lies in it")]
    RootRemoved,
    /// An object that shall be forgotten holds contents of files.
    #[error("object {object} is not removed: files need it")]
    ObjectNeeded {
        /// The object.
        object: ObjectName,
    },
    /// A time of which not all is known any more.
    #[error(
        "what was at {} is forgotten: history is whole from {} on ([versions] in config.toml says how long it is kept)",
        rfc3339_seconds(at.seconds),
        rfc3339_seconds(begin.seconds.saturating_add(i64::from(begin.nanoseconds > 0)))
    )]
    HistoryForgotten {
        /// The time.
        at: Timestamp,
        /// From when on all is known.
        begin: Timestamp,
    },
    /// An earlier change of this writer failed half-way.
    #[error("an earlier change of the catalog failed half-way; run the command again to continue from what is durable")]
    Interrupted,
    /// The mount's daemon, which is the writer, did not do it.
    #[error("{message}")]
    Daemon {
        /// What went wrong there, or on the way.
        class: ErrorClass,
        /// The same for people.
        message: String,
    },
    /// The database failed.
    #[error("the catalog's database {file} failed")]
    Database {
        /// The file.
        file: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// A row that no writer produces.
    #[error("the catalog's database {file} is damaged ({what}); run `blockframe rebuild-catalog`")]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Which row, and what is wrong.
        what: String,
    },
    /// Something that a later version of this program made.
    #[error("{place} was made by a newer blockframe ({what}); use that version")]
    Newer {
        /// The file.
        place: String,
        /// What is not known here.
        what: String,
    },
    /// The names of an encrypted archive are closed.
    #[error("the archive is encrypted, and its keys are not here; name a passphrase, a key file or a key command")]
    NoKeys,
    /// A file of the journal whose key the key ring does not have.
    #[error(
        "{place} is encrypted with the key of epoch {epoch}, which the key ring does not have; is the key ring an older copy?"
    )]
    UnknownEpoch {
        /// The file.
        place: String,
        /// The epoch.
        epoch: u32,
    },
    /// A sealed file in an archive that says of itself that it is not encrypted.
    #[error("{place} is encrypted, and the store's descriptor says that the archive is not; nothing is touched")]
    NotPlain {
        /// The file.
        place: String,
    },
    /// Both copies of the key ring are older than one that this machine has seen.
    #[error(
        "{store} presents generation {presented} of its key ring, this machine has seen {seen}: an older state was put \
             back, and slots that were removed may be in it; --accept-rollback accepts it, for a disk that you restored"
    )]
    OldKeyRing {
        /// The store.
        store: String,
        /// Of the ring that is there.
        presented: u64,
        /// Of the newest one seen.
        seen: u64,
    },
    /// A store has gone back to an earlier state.
    #[error(
        "{store} presents generation {presented}, this machine has seen {seen}: an older state was put in its place; if \
         you did that yourself (a restored disk), run the command again with --accept-rollback"
    )]
    RolledBack {
        /// The store.
        store: String,
        /// Number of the block after the last one that it has.
        presented: u64,
        /// The same, as it was seen before.
        seen: u64,
    },
    /// A store's history is not the continuation of the one that was seen.
    #[error(
        "{store} presents generation {presented}, which does not continue generation {seen} as this machine has seen it: \
         the archive was continued from an older state elsewhere; if that is right, run the command again with \
         --accept-rollback"
    )]
    Forked {
        /// The store.
        store: String,
        /// Number of the block after the last one that it has.
        presented: u64,
        /// The same, as it was seen before.
        seen: u64,
    },
    /// An archive that was encrypted says that it is not.
    #[error(
        "{store} says that the archive is not encrypted, and this machine has seen it encrypted ({}); if that is right, \
         run the command again with --accept-rollback",
        file.display()
    )]
    NotEncrypted {
        /// The store.
        store: String,
        /// What remembers it.
        file: PathBuf,
    },
    /// A local file of the catalog failed.
    #[error("cannot {operation} {file}")]
    Local {
        /// What was tried.
        operation: &'static str,
        /// The file.
        file: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The archive failed.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Bytes are not what they should be.
    #[error(transparent)]
    Format(#[from] FormatError),
}

impl CatalogError {
    /// For the adapters' tables.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Locked { .. } => ErrorClass::Busy,
            Self::ParentNotDirectory { .. } => ErrorClass::NotDirectory,
            Self::ContentMissing { .. } => ErrorClass::Internal,
            Self::LinkTargetMissing { .. } => ErrorClass::NotFound,
            Self::NotFound { .. } | Self::HistoryForgotten { .. } => ErrorClass::NotFound,
            Self::IsDirectory { .. } => ErrorClass::IsDirectory,
            Self::RootRemoved => ErrorClass::Invalid,
            Self::ObjectNeeded { .. } => ErrorClass::Busy,
            Self::Interrupted => ErrorClass::Latched,
            Self::Daemon { class, .. } => *class,
            Self::Database { .. } => ErrorClass::Unavailable,
            Self::Newer { .. } | Self::Format(FormatError::Version { .. }) => ErrorClass::NotSupported,
            Self::NoKeys | Self::UnknownEpoch { .. } => ErrorClass::WrongKey,
            Self::NotPlain { .. }
            | Self::RolledBack { .. }
            | Self::OldKeyRing { .. }
            | Self::Forked { .. }
            | Self::NotEncrypted { .. } => ErrorClass::Unavailable,
            Self::Damaged { .. } | Self::Format(_) => ErrorClass::Damaged,
            Self::Local { source, .. } => match source.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorClass::NoSpace,
                std::io::ErrorKind::PermissionDenied => ErrorClass::Denied,
                std::io::ErrorKind::ReadOnlyFilesystem => ErrorClass::ReadOnly,
                _ => ErrorClass::Unavailable,
            },
            Self::Store(error) => error.class(),
            Self::Archive(error) => error.class(),
        }
    }
}
