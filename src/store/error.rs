//! What can go wrong in a store.

use crate::base::ErrorClass;
use std::{fmt, io};

/// What went wrong, by what the caller can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreErrorKind {
    /// There is nothing at that key.
    NotFound,
    /// There is something at that key already.
    Exists,
    /// The operating system refuses access.
    Denied,
    /// The store is full, or a quota is.
    NoSpace,
    /// The store cannot be written.
    ReadOnly,
    /// A file is shorter than it has to be.
    ShortRead,
    /// A file is longer than it may be.
    TooLong,
    /// The store or device does not answer, or answers with an I/O error.
    Io,
    /// An earlier sync of this file failed: its bytes are not trusted any more.
    Latched,
    /// The store cannot do this at all.
    Unsupported,
}

/// A failed store operation.
#[derive(Debug)]
pub struct StoreError {
    kind: StoreErrorKind,
    operation: &'static str,
    store: String,
    key: String,
    source: Option<io::Error>,
}

impl StoreError {
    /// An error of `operation` on `key`.
    pub fn new(kind: StoreErrorKind, operation: &'static str, store: &str, key: impl fmt::Display) -> Self {
        Self { kind, operation, store: store.to_string(), key: key.to_string(), source: None }
    }

    /// An error that the operating system reported.
    pub fn io(operation: &'static str, store: &str, key: impl fmt::Display, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => StoreErrorKind::NotFound,
            io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::IsADirectory => {
                StoreErrorKind::Exists
            }
            io::ErrorKind::PermissionDenied => StoreErrorKind::Denied,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                StoreErrorKind::NoSpace
            }
            io::ErrorKind::ReadOnlyFilesystem => StoreErrorKind::ReadOnly,
            io::ErrorKind::UnexpectedEof => StoreErrorKind::ShortRead,
            _ => StoreErrorKind::Io,
        };
        Self { kind, operation, store: store.to_string(), key: key.to_string(), source: Some(source) }
    }

    /// A text that is no key: a bug of the caller, or hostile input.
    pub fn bad_key(store: &str, error: super::key::KeyError) -> Self {
        Self::new(StoreErrorKind::NotFound, "name", store, error)
    }

    /// What went wrong.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// The key in question.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// For the adapters' tables.
    pub fn class(&self) -> ErrorClass {
        match self.kind {
            StoreErrorKind::NotFound => ErrorClass::NotFound,
            StoreErrorKind::Exists => ErrorClass::Exists,
            StoreErrorKind::Denied => ErrorClass::Denied,
            StoreErrorKind::NoSpace => ErrorClass::NoSpace,
            StoreErrorKind::ReadOnly => ErrorClass::ReadOnly,
            StoreErrorKind::ShortRead | StoreErrorKind::TooLong => ErrorClass::Damaged,
            StoreErrorKind::Io => ErrorClass::Unavailable,
            StoreErrorKind::Latched => ErrorClass::Latched,
            StoreErrorKind::Unsupported => ErrorClass::NotSupported,
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            StoreErrorKind::NotFound => "there is no such file",
            StoreErrorKind::Exists => "it exists already",
            StoreErrorKind::Denied => "permission denied",
            StoreErrorKind::NoSpace => "the store is full",
            StoreErrorKind::ReadOnly => "the store is read-only",
            StoreErrorKind::ShortRead => "the file is shorter than it should be",
            StoreErrorKind::TooLong => "the file is longer than it may be",
            StoreErrorKind::Io => "the store reports an I/O error",
            StoreErrorKind::Latched => "an earlier sync of this file failed",
            StoreErrorKind::Unsupported => "this store cannot do that",
        };
        write!(f, "cannot {} {} in store {}: {what}", self.operation, self.key, self.store)
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}
