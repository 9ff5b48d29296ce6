//! What is wrong with one file while the rest goes on.

use super::IngestError;
use crate::archive::ArchiveError;
use crate::base::ErrorClass;
use crate::format::FormatError;
use std::io;

/// Why one file was not committed or restored.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The operating system refuses.
    #[error("cannot {operation} it")]
    Local {
        /// What was tried.
        operation: &'static str,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// Somebody writes to it.
    #[error("it changed each time it was read; commit it again when nothing writes to it")]
    Changing,
    /// The archive cannot hold such a name.
    #[error("its name or path is too long for the archive")]
    Name(#[source] FormatError),
    /// It is part of the archive that is being written.
    #[error("it is the archive itself")]
    Archive,
    /// Its content cannot be stored or read.
    #[error("its content is not available")]
    Content(#[source] ArchiveError),
    /// The catalog knows no object that holds it.
    #[error("its content is in no object; run `blockframe health`")]
    Missing,
    /// Where its content lies could not be found out.
    #[error("cannot find its content")]
    Lookup(#[source] Box<IngestError>),
    /// Something else stands at its place.
    #[error("{0} stands at its place; move it away first")]
    InTheWay(&'static str),
    /// A kind of file that the archive does not know.
    #[error("it is neither file, directory, link, pipe, socket nor device")]
    UnknownKind,
    /// An extended attribute that the archive does not hold.
    #[error("it has too many or too long extended attributes")]
    Attributes,
}

impl Problem {
    /// For the adapters' tables.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Local { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => ErrorClass::NotFound,
                io::ErrorKind::PermissionDenied => ErrorClass::Denied,
                _ if Self::is_full(source) => ErrorClass::NoSpace,
                _ => ErrorClass::Unavailable,
            },
            Self::Changing => ErrorClass::Busy,
            Self::Name(_) => ErrorClass::NameTooLong,
            Self::Content(error) => error.class(),
            Self::Lookup(error) => error.class(),
            Self::Missing => ErrorClass::Unrecoverable,
            Self::InTheWay(_) => ErrorClass::Exists,
            Self::Archive | Self::UnknownKind | Self::Attributes => ErrorClass::NotSupported,
        }
    }

    /// Whether the disk or the quota is full.
    pub(super) fn is_full(error: &io::Error) -> bool {
        matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    /// Makes the error of a failed operation on the file.
    pub(super) fn local(operation: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Local { operation, source }
    }
}
