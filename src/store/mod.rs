//! Places that hold shards. A store knows keys and bytes; what they mean is
//! the archive's business.

mod directory;
mod error;
mod fault;
mod key;
mod local;
mod memory;
mod publish;
mod random;

pub use error::{StoreError, StoreErrorKind};
pub use fault::{Counters, Fault, FaultStore, Operation};
pub use key::{KeyError, StoreKey};
pub use local::LocalStore;
pub use memory::MemoryStore;
pub use publish::{is_leftover_name, is_temporary_name, publish_file, sync_directory};

use std::fmt::Debug;
use std::sync::Arc;

/// The outcome of a store operation.
pub type StoreResult<T> = Result<T, StoreError>;

/// What only some stores can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// [`BlockStore::publish`] moves a whole prefix in one step.
    pub atomic_publish: bool,
    /// [`BlockStore::write_range`] changes bytes in place.
    pub range_write: bool,
    /// [`BlockStore::space`] knows how much is free.
    pub free_space: bool,
    /// [`BlockStore::link`] gives a file a second key without copying it.
    pub hard_link: bool,
}

/// Total and free bytes of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreSpace {
    /// Bytes in all.
    pub total: u64,
    /// Bytes that may still be written.
    pub free: u64,
}

/// A place that holds shards.
///
/// All methods block, may be called from many threads at once, and name the
/// store and the key in their errors. "Durable" means: survives a power cut
/// once the call has returned.
pub trait BlockStore: Send + Sync + Debug {
    /// The store's name for people, as in `/mnt/disk1`.
    fn label(&self) -> &str;

    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Writes a whole file: afterwards the key has all of `bytes`, durably, or
    /// on error what it had before. Directories above are made.
    fn write(&self, key: &StoreKey, bytes: &[u8]) -> StoreResult<()>;

    /// Reads a whole file of at most `limit` bytes.
    ///
    /// Errors: `NotFound`; `TooLong` when it is longer than `limit`.
    fn read(&self, key: &StoreKey, limit: u64) -> StoreResult<Vec<u8>>;

    /// Opens a file for ranged reads.
    fn open(&self, key: &StoreKey) -> StoreResult<Arc<dyn StoredFile>>;

    /// Creates a file (or empties an old one) for writing at any offset.
    /// Neither bytes nor name are durable before `sync` and [`Self::publish`].
    fn create(&self, key: &StoreKey) -> StoreResult<Arc<dyn StagedFile>>;

    /// Moves everything below `from` to `to`, durably, file data excepted
    /// (each file was synced before). With `atomic_publish` it is one step.
    /// Directories below `from` are made durable too.
    ///
    /// Errors: `Exists` when there is anything at `to`, which then is untouched.
    fn publish(&self, from: &StoreKey, to: &StoreKey) -> StoreResult<()>;

    /// Moves the file `from`, which was synced, to `to`, durably and in one
    /// step; a file that stood at `to` is gone.
    fn replace(&self, from: &StoreKey, to: &StoreKey) -> StoreResult<()>;

    /// Makes the file `from`, which was synced, be found at `to` as well,
    /// without a copy of its bytes. Only with the capability `hard_link`. The
    /// new key is not durable before [`Self::publish`]. Directories above are made.
    ///
    /// The two keys are one file for [`Self::write_range`] and
    /// [`Self::append`], and two for all that puts another file at a key or
    /// deletes it ([`Self::write`], [`Self::create`], [`Self::replace`],
    /// [`Self::delete`], [`Self::delete_prefix`]): the other key keeps its bytes.
    ///
    /// Errors: `NotFound`; `Exists` when there is anything at `to`; `Latched`
    /// when a sync of the file failed; `Unsupported`.
    fn link(&self, from: &StoreKey, to: &StoreKey) -> StoreResult<()> {
        let _ = from;
        Err(StoreError::new(StoreErrorKind::Unsupported, "link to", self.label(), to))
    }

    /// Overwrites bytes of an existing file in place, durably. Only with the
    /// capability `range_write`; never extends the file.
    fn write_range(&self, key: &StoreKey, offset: u64, bytes: &[u8]) -> StoreResult<()>;

    /// Makes the file at `key` end with `bytes` after its first `keep` bytes:
    /// what stood behind those is cut off, and the new end is durable. With
    /// `keep` 0 a missing file is made. After an error the file has its first
    /// `keep` bytes and possibly some of `bytes`.
    ///
    /// A store that cannot append writes the whole file anew.
    ///
    /// Errors: `NotFound`; `ShortRead` when the file is shorter than `keep`.
    fn append(&self, key: &StoreKey, keep: u64, bytes: &[u8]) -> StoreResult<()> {
        let mut whole = Vec::new();
        if keep > 0 {
            let file = self.open(key)?;
            if file.len() < keep {
                return Err(StoreError::new(StoreErrorKind::ShortRead, "append to", self.label(), key));
            }
            whole.resize(keep as usize, 0);
            file.read_at(0, &mut whole)?;
        }
        whole.extend_from_slice(bytes);
        self.write(key, &whole)
    }

    /// Deletes a file; a missing one is no error. Directories that it leaves
    /// empty may be removed.
    fn delete(&self, key: &StoreKey) -> StoreResult<()>;

    /// Deletes everything at and below a prefix; a missing one is no error.
    fn delete_prefix(&self, prefix: &StoreKey) -> StoreResult<()>;

    /// The names directly below `prefix` (`None`: the store's top), sorted;
    /// empty when there is no such prefix. Names that are no store keys (not
    /// UTF-8, say) are left out; unfinished files ([`is_temporary_name`]) are not.
    fn list(&self, prefix: Option<&StoreKey>) -> StoreResult<Vec<ListedName>>;

    /// Total and free bytes.
    fn space(&self) -> StoreResult<StoreSpace>;

    /// Whether the store answers and can be read.
    fn health_check(&self) -> StoreResult<()>;

    /// Ends the use of the store.
    fn close(&self) {}
}

/// One name of a listing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListedName {
    /// The last part of the key.
    pub name: String,
    /// Whether more lies below it.
    pub is_prefix: bool,
}

/// A stored file that is open for reading.
pub trait StoredFile: Send + Sync + Debug {
    /// Length when it was opened, bytes.
    fn len(&self) -> u64;

    /// Whether it had no byte when it was opened.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buffer` from `offset`. Error `ShortRead` when the file ends before.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> StoreResult<()>;

    /// A hint that the range will be read soon: the store may fetch it ahead.
    fn will_read(&self, offset: u64, len: u64) {
        let _ = (offset, len);
    }

    /// A hint that the range was read once and for all, as by a scrub: the
    /// store need not keep it in memory.
    fn will_not_read_again(&self, offset: u64, len: u64) {
        let _ = (offset, len);
    }
}

/// A file that is being written.
pub trait StagedFile: Send + Sync + Debug {
    /// Writes all of `bytes` at `offset`. What lies between written ranges reads as zeros.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> StoreResult<()>;

    /// Sets the length: cuts, or extends with zeros (as a hole where the store can).
    fn set_len(&self, len: u64) -> StoreResult<()>;

    /// Makes the file's bytes durable. After an error the file is not to be
    /// trusted, and a second call fails as well: the kernel may have dropped
    /// the pages that failed.
    fn sync(&self) -> StoreResult<()>;
}
