//! Errors of the layers below, as an adapter sees them.

use crate::archive::ArchiveError;
use crate::catalog::CatalogError;
use crate::namespace::NamespaceError;
use crate::staging::StagingError;
use blockframe_api::{ErrorClass, Node, VfsError};
use std::error::Error;

pub(super) fn not_found(node: Node) -> VfsError {
    VfsError::new(ErrorClass::NotFound, format!("there is no inode {}", node.number()))
}

pub(super) fn not_directory(node: Node) -> VfsError {
    VfsError::new(ErrorClass::NotDirectory, format!("inode {} is not a directory", node.number()))
}

pub(super) fn invalid(why: &str) -> VfsError {
    VfsError::new(ErrorClass::Invalid, why)
}

pub(super) fn no_such_range() -> VfsError {
    VfsError::new(ErrorClass::NoSuchRange, "no data or hole follows that offset")
}

/// The message with those of its causes.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

pub(super) fn of_catalog(error: &CatalogError) -> VfsError {
    let text = chain(error);
    tracing::error!("{text}");
    VfsError::new(error.class(), text)
}

pub(super) fn no_name() -> VfsError {
    VfsError::new(ErrorClass::NotFound, "no such name")
}

pub(super) fn of_namespace(error: &NamespaceError) -> VfsError {
    match error {
        NamespaceError::Refused(error) => error.clone(),
        NamespaceError::Catalog(error) => of_catalog(error),
        error => {
            let text = chain(error);
            tracing::error!("{text}");
            VfsError::new(error.class(), text)
        }
    }
}

pub(super) fn of_staging(error: &StagingError) -> VfsError {
    let text = chain(error);
    tracing::error!("{text}");
    VfsError::new(error.class(), text)
}

impl From<StagingError> for VfsError {
    fn from(error: StagingError) -> Self {
        of_staging(&error)
    }
}

/// A file whose content no object holds.
pub(super) fn content_missing(path: &str) -> VfsError {
    let text = format!("{path}: no object holds its content; run `blockframe health` for what is affected");
    tracing::error!("{text}");
    VfsError::new(ErrorClass::Unrecoverable, text)
}

/// A content that could not be committed. Not logged: who commits knows whether it was told already.
pub(super) fn of_commit(error: &ArchiveError) -> VfsError {
    VfsError::new(error.class(), chain(error))
}

/// A failed read: the log names the file, what was asked for, and what is
/// damaged where (object, shard and range are in the archive's message).
pub(super) fn of_read(path: &str, offset: u64, length: u32, error: &ArchiveError) -> VfsError {
    let text = chain(error);
    match error {
        ArchiveError::Unrecoverable { object, shard, range, detail } => {
            tracing::error!(path, offset, length, %object, shard, %range, detail, "bytes of a file are lost");
        }
        _ => tracing::error!(path, offset, length, "cannot read: {text}"),
    }
    VfsError::new(error.class(), format!("{path}: {text}"))
}
