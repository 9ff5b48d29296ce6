//! What can go wrong in the staging area.

use crate::base::ErrorClass;
use crate::format::{FormatError, StagingId};
use std::io;
use std::path::PathBuf;

/// The outcome of an operation on staging.
pub type StagingResult<T> = Result<T, StagingError>;

/// Why the staging area could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StagingError {
    /// The operating system reports an error about the directory or one of its names.
    #[error("cannot {operation} {}: the disk below the staging area must be in order", .path.display())]
    Directory {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The operating system reports an error about a staging file.
    #[error("cannot {operation} staging file {file}: the disk below the staging area must be in order")]
    File {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        file: StagingId,
        /// What the system said.
        source: io::Error,
    },
    /// The disk below is full.
    #[error("cannot {operation} staging file {file}: the disk below the staging area is full")]
    DiskFull {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        file: StagingId,
        /// What the system said.
        source: io::Error,
    },
    /// As much waits to be committed as may, or the disk below has only its reserve left, and nothing gets less.
    #[error(
        "no room in the staging area ({used} of {quota} bytes in use), and none can be made; free space or raise its quota"
    )]
    NoRoom {
        /// Bytes in staging.
        used: u64,
        /// Bytes that may be.
        quota: u64,
    },
    /// An earlier write or sync of this file failed.
    #[error(
        "an earlier write or sync of staging file {file} failed: what was written since the last sync is not trusted"
    )]
    Latched {
        /// Which file.
        file: StagingId,
    },
    /// An offset that no file can have.
    #[error("staging file {file} cannot hold byte {offset}: that is more than a file can have")]
    TooLarge {
        /// Which file.
        file: StagingId,
        /// Where.
        offset: u64,
    },
    /// More extents than a map can name.
    #[error("staging file {file} is in too many pieces; close the file, so that it is committed")]
    TooManyPieces {
        /// Which file.
        file: StagingId,
    },
    /// The staging file is not what the journal says it is.
    #[error("staging file {file} is damaged: {why}")]
    Damaged {
        /// Which file.
        file: StagingId,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// The map in a staging file cannot be read.
    #[error("the map of staging file {file} is damaged")]
    Map {
        /// Which file.
        file: StagingId,
        /// What is wrong with it.
        source: FormatError,
    },
    /// The file that tells which ids were used is damaged.
    #[error(
        "{} is damaged: it must hold a number above that of every staging file there ever was; write such a number into it",
        .path.display()
    )]
    Counter {
        /// The file.
        path: PathBuf,
    },
    /// Two are about to use the same staging file.
    #[error("staging file {file} is in use already")]
    InUse {
        /// Which file.
        file: StagingId,
    },
    /// The kernel writes the file in place: there is no state that stays as it is.
    #[error("staging file {file} is written by the kernel at the moment; try again after it was closed")]
    WrittenInPlace {
        /// Which file.
        file: StagingId,
    },
    /// Nothing of an encrypted archive is written without its keys.
    #[error("the archive is encrypted, and was opened without its keys")]
    Locked,
    /// No state of the file was published yet.
    #[error("nothing of staging file {file} was published")]
    Unpublished {
        /// Which file.
        file: StagingId,
    },
}

impl StagingError {
    /// An error that the system reported about a staging file.
    pub(super) fn file(operation: &'static str, file: StagingId, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { operation, file, source },
            _ => Self::File { operation, file, source },
        }
    }

    /// For the adapters' tables.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Directory { source, .. } | Self::File { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorClass::NoSpace,
                io::ErrorKind::PermissionDenied => ErrorClass::Denied,
                io::ErrorKind::ReadOnlyFilesystem => ErrorClass::ReadOnly,
                io::ErrorKind::FileTooLarge => ErrorClass::TooLarge,
                io::ErrorKind::UnexpectedEof => ErrorClass::Unrecoverable,
                _ => ErrorClass::Unavailable,
            },
            Self::DiskFull { .. } | Self::NoRoom { .. } | Self::TooManyPieces { .. } => ErrorClass::NoSpace,
            Self::Latched { .. } => ErrorClass::Latched,
            Self::TooLarge { .. } => ErrorClass::TooLarge,
            // Bytes in staging have no parity.
            Self::Damaged { .. } | Self::Map { .. } => ErrorClass::Unrecoverable,
            Self::Counter { .. } => ErrorClass::Damaged,
            Self::InUse { .. } | Self::WrittenInPlace { .. } => ErrorClass::Busy,
            Self::Unpublished { .. } => ErrorClass::Invalid,
            Self::Locked => ErrorClass::WrongKey,
        }
    }
}
