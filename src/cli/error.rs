//! Why a command failed: a class for the exit status, and a chain of causes
//! for people.

use super::exit::{ExitStatus, class_name};
use crate::archive::ArchiveError;
use crate::base::ErrorClass;
use crate::catalog::CatalogError;
use crate::control::ControlError;
use crate::format::FormatError;
use crate::ingest::IngestError;
use crate::keys::KeyError;
use crate::scrub::ScrubError;
use crate::store::StoreError;
use blockframe_api::VfsError;
use std::fmt;
use std::io;

/// The outcome of a command's part.
pub type CliResult<T> = Result<T, CliError>;

/// Why a command failed.
#[derive(Debug)]
pub struct CliError {
    class: ErrorClass,
    source: anyhow::Error,
}

impl CliError {
    /// A failure of this class. `message` says what happened, to what, and what to do next.
    pub fn new(class: ErrorClass, message: impl fmt::Display) -> Self {
        Self { class, source: anyhow::Error::msg(message.to_string()) }
    }

    /// A failure that the operating system reported while doing `what`.
    pub fn io(what: impl fmt::Display, error: io::Error) -> Self {
        let class = class_of_io(&error);
        Self { class, source: anyhow::Error::new(error).context(what.to_string()) }
    }

    /// The failure with what was being done put before it.
    pub fn context(self, what: impl fmt::Display) -> Self {
        Self { class: self.class, source: self.source.context(what.to_string()) }
    }

    /// For the table of exit statuses.
    pub fn class(&self) -> ErrorClass {
        self.class
    }

    /// Whether nobody reads what is being written any more.
    pub fn is_broken_pipe(&self) -> bool {
        self.source
            .chain()
            .filter_map(|cause| cause.downcast_ref::<io::Error>())
            .any(|error| error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The message and its causes as one JSON object.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "error": self.source.to_string(),
            "causes": self.source.chain().skip(1).map(ToString::to_string).collect::<Vec<_>>(),
            "class": class_name(self.class),
            "exit_status": ExitStatus::of_error(self.class).code(),
        })
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.source)?;
        for cause in self.source.chain().skip(1) {
            write!(f, ": {cause}")?;
        }
        Ok(())
    }
}

macro_rules! from_layer {
    ($($layer:ty),*) => {
        $(impl From<$layer> for CliError {
            fn from(error: $layer) -> Self {
                Self { class: error.class(), source: error.into() }
            }
        })*
    };
}
from_layer!(ArchiveError, CatalogError, ControlError, IngestError, KeyError, ScrubError, StoreError, VfsError);
#[cfg(unix)]
from_layer!(blockframe_fuse::MountError);

impl From<FormatError> for CliError {
    fn from(error: FormatError) -> Self {
        ArchiveError::from(error).into()
    }
}

/// An error with its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn class_of_io(error: &io::Error) -> ErrorClass {
    match error.kind() {
        io::ErrorKind::NotFound => ErrorClass::NotFound,
        io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty => ErrorClass::Exists,
        io::ErrorKind::PermissionDenied => ErrorClass::Denied,
        io::ErrorKind::NotADirectory => ErrorClass::NotDirectory,
        io::ErrorKind::IsADirectory => ErrorClass::IsDirectory,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorClass::NoSpace,
        io::ErrorKind::ReadOnlyFilesystem => ErrorClass::ReadOnly,
        io::ErrorKind::ResourceBusy => ErrorClass::Busy,
        io::ErrorKind::Interrupted => ErrorClass::Interrupted,
        _ => ErrorClass::Unavailable,
    }
}
