//! What ends a commit or a restore as a whole. What concerns one file only is
//! a [`Problem`](super::Problem).

use crate::archive::ArchiveError;
use crate::base::ErrorClass;
use crate::catalog::CatalogError;
use crate::format::{EntryPath, FormatError};
use crate::store::StoreError;
use std::path::PathBuf;

/// The outcome of a commit or a restore.
pub type IngestResult<T> = Result<T, IngestError>;

/// Why a commit or a restore ended.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The user stopped it.
    #[error("interrupted; run the same command again to continue where it stopped")]
    Interrupted,
    /// The store is full.
    #[error(
        "the store is full; what was stored so far is kept: make room, then run the same command again to continue"
    )]
    StoreFull(#[source] Box<IngestError>),
    /// Two arguments would be committed under one name.
    #[error("{first} and {second} would both become {path}; commit them one after the other, or into different directories with --to", first = .first.display(), second = .second.display())]
    SameDestination {
        /// The name in the archive.
        path: EntryPath,
        /// One source.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// A path that the archive does not have.
    #[error("{path} is not in the archive; `blockframe ls` shows what is")]
    NotFound {
        /// The path.
        path: EntryPath,
    },
    /// A path without bytes to stream.
    #[error("{path} is not a regular file")]
    NotAFile {
        /// The path.
        path: EntryPath,
    },
    /// Where `get` shall write does not work.
    #[error("cannot {operation} {path}", path = .path.display())]
    Local {
        /// What was tried.
        operation: &'static str,
        /// Where.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// Standard input failed.
    #[error("cannot read the input")]
    Input(#[source] std::io::Error),
    /// Who takes the bytes failed.
    #[error("cannot write the output")]
    Output(#[source] std::io::Error),
    /// The archive failed.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The catalog failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Bytes or names are not what they should be.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A rule of our own was broken.
    #[error("internal error: {0}; please report it")]
    Internal(&'static str),
}

impl IngestError {
    /// For the adapters' tables.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Interrupted => ErrorClass::Interrupted,
            Self::StoreFull(_) => ErrorClass::NoSpace,
            Self::SameDestination { .. } | Self::Format(_) => ErrorClass::Invalid,
            Self::NotFound { .. } => ErrorClass::NotFound,
            Self::NotAFile { .. } => ErrorClass::IsDirectory,
            Self::Local { .. } | Self::Input(_) | Self::Output(_) => ErrorClass::Unavailable,
            Self::Archive(error) => error.class(),
            Self::Catalog(error) => error.class(),
            Self::Store(error) => error.class(),
            Self::Internal(_) => ErrorClass::Internal,
        }
    }

    /// The same error, said as what it means to a whole commit.
    pub(super) fn of_commit(self) -> Self {
        match self.class() {
            ErrorClass::Interrupted => Self::Interrupted,
            ErrorClass::NoSpace if !matches!(self, Self::StoreFull(_)) => Self::StoreFull(Box::new(self)),
            _ => self,
        }
    }
}
