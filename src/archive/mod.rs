//! Objects: written erasure-coded, read verified, healed when damaged.
//! Takes readers and gives verified ranges; knows nothing of names.

mod arena;
mod cache;
mod encode;
mod encoded;
mod encoding;
mod error;
mod event;
mod heal;
mod health;
mod manifests;
mod object;
mod outer;
mod recover;
mod repair;
mod rewrite;
mod ring;
mod root;
mod scan;
mod shard;
mod source;
mod threads;
mod unseal;
mod verified;
mod writer;

pub use error::{ArchiveError, ArchiveResult};
pub use event::{Event, EventKind, EventSink, Verdict};
pub use health::{BlockHealth, Depth, LostRange, ObjectHealth, ShardState};
pub use object::{Object, ObjectRef};
pub use repair::{RepairOutcome, RepairPlan, RepairStep};
pub use scan::{HealthScan, ScanControl};
pub use shard::ShardFault;
pub use source::ContentSource;
pub use verified::VerifiedRange;
pub use writer::{ObjectPlan, WriteControl, WrittenObject};

use crate::base::{Clock, StoreId};
use crate::format::ArchiveDescriptor;
use crate::keys::ArchiveKeys;
use crate::store::{BlockStore, StoreError, StoreKey};
use std::sync::Arc;

/// An open archive: its rules and the store that holds its objects. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Archive {
    shared: Arc<Shared>,
}

/// What an archive and its open objects have in common.
#[derive(Debug)]
struct Shared {
    descriptor: ArchiveDescriptor,
    store_id: StoreId,
    /// The store's descriptor as it was read, from which both copies can be written again.
    descriptor_bytes: Vec<u8>,
    store: Arc<dyn BlockStore>,
    clock: Arc<dyn Clock>,
    events: Arc<dyn EventSink>,
    /// None: the archive is not encrypted, or was opened without its keys.
    keys: Option<Arc<ArchiveKeys>>,
    caches: cache::Caches,
    heals: heal::HealQueue,
}

impl Archive {
    /// The archive's rules.
    pub fn descriptor(&self) -> &ArchiveDescriptor {
        &self.shared.descriptor
    }

    /// Whether contents, names and attributes are encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.shared.descriptor.encryption.is_some()
    }

    /// The keys, when it was unlocked with them. Without them objects of an
    /// encrypted archive can be verified and repaired, and not read.
    pub fn keys(&self) -> Option<&Arc<ArchiveKeys>> {
        self.shared.keys.as_ref()
    }

    /// The store's identity.
    pub fn store_id(&self) -> StoreId {
        self.shared.store_id
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn BlockStore> {
        &self.shared.store
    }

    /// The clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.shared.clock
    }

    /// Where events go.
    pub fn events(&self) -> &Arc<dyn EventSink> {
        &self.shared.events
    }

    fn below(&self, prefix: &StoreKey, path: &str) -> ArchiveResult<StoreKey> {
        self.shared.below(prefix, path)
    }
}

impl Shared {
    fn key(&self, text: &str) -> ArchiveResult<StoreKey> {
        Ok(StoreKey::new(text).map_err(|error| StoreError::bad_key(self.store.label(), error))?)
    }

    fn below(&self, prefix: &StoreKey, path: &str) -> ArchiveResult<StoreKey> {
        Ok(prefix.join(path).map_err(|error| StoreError::bad_key(self.store.label(), error))?)
    }
}
