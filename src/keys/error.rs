//! What can go wrong with keys.

use crate::base::ErrorClass;
use crate::format::FormatError;
use crate::store::StoreError;

/// The outcome of an operation on keys.
pub type KeyResult<T> = Result<T, KeyError>;

/// A failed operation on keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// No slot of the ring opens with this secret.
    #[error("no slot of the key ring opens with it")]
    WrongSecret,
    /// The secret opened an earlier key ring, and was removed from the newest.
    #[error(
        "it was removed from the archive: it opens the key ring of generation {opened}, and not the newest one, {newest}"
    )]
    Superseded {
        /// The generation that it opens.
        opened: u64,
        /// The newest generation.
        newest: u64,
    },
    /// A secret that protects nothing.
    #[error("{0}")]
    WeakSecret(String),
    /// The store has no key ring.
    #[error(
        "both copies of the key ring are missing from store {store}; copy blockframe-keys.json there from another store or a backup"
    )]
    RingMissing {
        /// The store's label.
        store: String,
    },
    /// No copy of the key ring is whole.
    #[error(
        "both copies of the key ring of store {store} are damaged; copy blockframe-keys.json there from another store or a backup"
    )]
    RingLost {
        /// The store's label.
        store: String,
        /// What is wrong with the first copy.
        #[source]
        source: FormatError,
    },
    /// Somebody without the archive key has changed the ring, or the archive's rules.
    #[error(
        "the {what} of store {store} was changed by somebody who does not have the archive's key; nothing was opened. \
             Copy it from another store or a backup"
    )]
    Forged {
        /// What does not fit.
        what: &'static str,
        /// The store's label.
        store: String,
    },
    /// One copy was written, the other not.
    #[error(
        "the new key ring is written to one copy, and the other still has the old one: repeat the command, or open the archive \
             once, when the store can be written again"
    )]
    HalfWritten(#[source] StoreError),
    /// Another process has changed the ring meanwhile.
    #[error("another command has changed the key ring meanwhile; nothing was written. Run the command again")]
    Changed,
    /// There is no such slot.
    #[error("there is no slot {0}; `blockframe key list` shows them")]
    NoSlot(String),
    /// Without it nobody could open the archive.
    #[error("slot {0} is the only one: without it nobody could open the archive; add another first")]
    LastSlot(String),
    /// The ring is full.
    #[error("the key ring has room for {most} {what}, and they are all used{hint}")]
    Full {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        most: usize,
        /// What helps.
        hint: &'static str,
    },
    /// The key derivation could not run.
    #[error("the key derivation needs {memory_kib} KiB of memory and failed: {why}")]
    Derivation {
        /// What the slot asks for.
        memory_kib: u32,
        /// What the library said.
        why: String,
    },
    /// The operating system gave no random numbers.
    #[error("the operating system gives no random numbers: {0}")]
    Random(String),
    /// The bytes are not a key ring.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl KeyError {
    /// For the adapters' tables.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::WrongSecret | Self::Superseded { .. } => ErrorClass::WrongKey,
            Self::WeakSecret(_) => ErrorClass::Invalid,
            Self::RingMissing { .. } | Self::RingLost { .. } => ErrorClass::Unrecoverable,
            Self::Forged { .. } | Self::LastSlot(_) => ErrorClass::Denied,
            Self::HalfWritten(error) => error.class(),
            Self::Changed => ErrorClass::Busy,
            Self::NoSlot(_) => ErrorClass::NotFound,
            Self::Full { .. } => ErrorClass::TooLarge,
            Self::Derivation { .. } | Self::Random(_) => ErrorClass::Unavailable,
            Self::Format(FormatError::Version { .. }) => ErrorClass::NotSupported,
            Self::Format(_) => ErrorClass::Damaged,
            Self::Store(error) => error.class(),
        }
    }
}
