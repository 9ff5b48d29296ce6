//! What can go wrong with the live namespace.

use crate::base::ErrorClass;
use crate::catalog::CatalogError;
use blockframe_api::VfsError;

/// A failed operation on the live namespace.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// The catalog below failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The rules of the filesystem refuse it.
    #[error("{0}")]
    Refused(VfsError),
    /// Changes could not be made durable some time ago; none is accepted since.
    #[error("the namespace accepts no change since it could not be made durable ({why}); unmount and mount again")]
    Failed {
        /// What happened then.
        why: String,
    },
    /// The changes of this moment could not be made durable, and are tried again.
    #[error("changes of names are not durable yet ({why})")]
    NotDurable {
        /// What happened.
        why: String,
        /// Its class.
        class: ErrorClass,
    },
    /// A thread could not be started.
    #[error("cannot start the thread that writes the namespace")]
    Thread(#[source] std::io::Error),
}

impl NamespaceError {
    /// For the adapters' tables.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Catalog(error) => error.class(),
            Self::Refused(error) => error.class(),
            Self::Failed { .. } => ErrorClass::Latched,
            Self::NotDurable { class, .. } => *class,
            Self::Thread(_) => ErrorClass::Unavailable,
        }
    }
}

/// Why a draft stops.
#[derive(Debug)]
pub enum Stop {
    /// A row must be fetched from the catalog first; then the draft is made again.
    Need(Key),
    /// The rules of the filesystem refuse the change.
    Refused(VfsError),
}

impl From<VfsError> for Stop {
    fn from(error: VfsError) -> Self {
        Self::Refused(error)
    }
}

/// A row that is not in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// A node's attributes.
    Node(blockframe_api::Node),
    /// Where a name leads.
    Name(blockframe_api::Node, Box<[u8]>),
    /// The directory above a directory.
    Parent(blockframe_api::Node),
    /// Whether a directory has no entries.
    Emptiness(blockframe_api::Node),
}
