//! Objects: written erasure-coded, read verified, healed when damaged.
//! Takes readers and gives verified ranges; knows nothing of names.

mod error;
mod event;
mod object;
mod verified;

pub use error::{ArchiveError, ArchiveResult};
pub use event::{Event, EventKind, EventSink, Verdict};
pub use object::{Object, ObjectRef};
pub use verified::VerifiedRange;

use crate::base::{Clock, StoreId};
use crate::format::ArchiveDescriptor;
use crate::store::BlockStore;
use std::sync::Arc;

/// An open archive: its rules and the store that holds its objects.
#[derive(Debug)]
pub struct Archive {
    descriptor: ArchiveDescriptor,
    store_id: StoreId,
    store: Arc<dyn BlockStore>,
    clock: Arc<dyn Clock>,
    events: Arc<dyn EventSink>,
}

impl Archive {
    /// Makes a new archive in an empty store: writes the descriptor's copies
    /// and the recovery text.
    ///
    /// Errors: `Exists` when the store holds an archive.
    pub fn create(
        store: Arc<dyn BlockStore>,
        descriptor: ArchiveDescriptor,
        failure_domain: String,
    ) -> ArchiveResult<StoreId> {
        let _ = (store, descriptor, failure_domain);
        Err(ArchiveError::NotYet)
    }

    /// Opens the archive in `store`. A damaged copy of the descriptor is
    /// healed from the other where the store can be written.
    pub fn open(store: Arc<dyn BlockStore>, clock: Arc<dyn Clock>, events: Arc<dyn EventSink>) -> ArchiveResult<Self> {
        let _ = (store, clock, events);
        Err(ArchiveError::NotYet)
    }

    /// The archive's rules.
    pub fn descriptor(&self) -> &ArchiveDescriptor {
        &self.descriptor
    }

    /// The store's identity.
    pub fn store_id(&self) -> StoreId {
        self.store_id
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn BlockStore> {
        &self.store
    }

    /// The clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Where events go.
    pub fn events(&self) -> &Arc<dyn EventSink> {
        &self.events
    }

    /// Opens an object: loads its manifest (from the second copy when the
    /// first is bad), checks it against the root that the catalog recorded,
    /// and keeps it in a bounded cache.
    pub fn object(&self, reference: &ObjectRef) -> ArchiveResult<Arc<Object>> {
        let _ = reference;
        Err(ArchiveError::NotYet)
    }
}
