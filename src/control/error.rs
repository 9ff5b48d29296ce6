//! What can go wrong between a command and the daemon.

use crate::base::ErrorClass;
use crate::catalog::CatalogError;
use crate::format::FormatError;
use crate::store::StoreError;
use std::error::Error;
use std::io;
use std::path::PathBuf;

/// The outcome of something asked of the daemon.
pub type ControlResult<T> = Result<T, ControlError>;

/// Why the daemon did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The connection failed.
    #[error("cannot {operation} the daemon's socket {socket}; see whether the mount still serves", socket = .socket.display())]
    Socket {
        /// What was tried.
        operation: &'static str,
        /// The socket.
        socket: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The daemon has ended, or closed the connection.
    #[error("the mount's daemon ended before it was done; mount again, then run the command again")]
    Ended,
    /// What came is no message of this protocol.
    #[error("between this program and the mount's daemon: {why}; use the same version of blockframe for both")]
    Protocol {
        /// What is wrong with it.
        why: String,
    },
    /// The daemon could not, or would not.
    #[error("{message}")]
    Refused {
        /// For the tables.
        class: ErrorClass,
        /// What happened, to what, and what to do next.
        message: String,
    },
    /// The catalog failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

impl ControlError {
    /// A refusal. `message` says what happened, to what, and what to do next.
    pub fn refused(class: ErrorClass, message: impl Into<String>) -> Self {
        Self::Refused { class, message: message.into() }
    }

    /// For the adapters' tables.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Socket { .. } | Self::Ended => ErrorClass::Unavailable,
            Self::Protocol { .. } => ErrorClass::NotSupported,
            Self::Refused { class, .. } => *class,
            Self::Catalog(error) => error.class(),
        }
    }

    /// The message with its causes.
    pub(super) fn text(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }
}

impl From<ControlError> for CatalogError {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Catalog(error) => error,
            other => CatalogError::Daemon { class: other.class(), message: other.text() },
        }
    }
}

impl From<FormatError> for ControlError {
    fn from(error: FormatError) -> Self {
        Self::Catalog(error.into())
    }
}

impl From<StoreError> for ControlError {
    fn from(error: StoreError) -> Self {
        Self::Catalog(error.into())
    }
}
