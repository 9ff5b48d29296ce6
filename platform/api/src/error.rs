//! The one error class that all adapters translate.

use std::fmt;

/// What went wrong, by what the caller can do about it.
///
/// Four tables translate it, and only these: `errno`, `NTSTATUS`, HTTP
/// status and exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// No such file, object or archive.
    NotFound,
    /// It exists already.
    Exists,
    /// A path component is no directory.
    NotDirectory,
    /// A directory where a file was wanted.
    IsDirectory,
    /// A directory that has entries.
    NotEmpty,
    /// More names for one node than can be counted.
    TooManyLinks,
    /// A file longer than can be.
    TooLarge,
    /// The operating system or the archive's rules refuse access.
    Denied,
    /// An argument makes no sense here.
    Invalid,
    /// A name is longer than the archive allows.
    NameTooLong,
    /// No extended attribute of that name.
    NoAttribute,
    /// The range asked for does not exist in this file.
    NoSuchRange,
    /// The archive is mounted read-only.
    ReadOnly,
    /// This build or this platform cannot do it.
    NotSupported,
    /// Somebody else holds it now; later it may work.
    Busy,
    /// The store is full.
    NoSpace,
    /// A store or device does not answer; later it may work.
    Unavailable,
    /// Damage that the parity can heal, and that was not healed yet.
    Damaged,
    /// Damage beyond the parity: these bytes are lost unless a copy returns.
    Unrecoverable,
    /// An earlier write failed, and nothing written since is trusted.
    Latched,
    /// The wrong key, or none.
    WrongKey,
    /// Interrupted by the user; it can be resumed.
    Interrupted,
    /// A bug of ours.
    Internal,
}

/// An error as an adapter sees it: a class to translate, a message to log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VfsError {
    class: ErrorClass,
    message: String,
}

impl VfsError {
    /// An error of this class. `message` says what happened to what.
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self { class, message: message.into() }
    }

    /// What the adapter translates.
    pub fn class(&self) -> ErrorClass {
        self.class
    }
}

impl fmt::Display for VfsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for VfsError {}
