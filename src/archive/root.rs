//! Making and opening an archive: the store's descriptor and recovery text.

use super::manifests::MAX_MANIFEST;
use super::{Archive, ArchiveError, ArchiveResult, Event, EventKind, EventSink, Shared, cache, heal};
use crate::base::{ArchiveId, Clock, ObjectName, StoreId};
use crate::format::layout::{MANIFEST, MANIFEST_COPY, RECOVERY_TEXT, STORE_DESCRIPTOR, STORE_DESCRIPTOR_COPY};
use crate::format::{ArchiveDescriptor, FormatError, Manifest, StoreDescriptor};
use crate::keys::ArchiveKeys;
use crate::store::{BlockStore, StoreError, StoreErrorKind, StoreKey};
use std::sync::Arc;

/// Longest descriptor, bytes.
const MAX_DESCRIPTOR: u64 = 1 << 20;
/// What every store says to somebody who has only the store.
const RECOVERY: &str = include_str!("RECOVERY.md");

/// Manifests that are asked whose store this is.
const WITNESSES: usize = 32;

/// A whole copy of a store's descriptor.
#[derive(Debug, Clone)]
struct Copy {
    name: &'static str,
    descriptor: StoreDescriptor,
    bytes: Vec<u8>,
}

/// The copy to believe: the first, unless the second one's archive is that of more objects here. A copy may be whole
/// and come from another archive.
fn choose(store: &dyn BlockStore, good: &[Copy]) -> Option<Copy> {
    let [first, second] = good else { return good.first().cloned() };
    let (one, two) = (first.descriptor.archive.id, second.descriptor.archive.id);
    if one == two {
        return Some(first.clone());
    }
    let owners = owners_of_objects(store);
    let count = |id| owners.iter().filter(|owner| **owner == id).count();
    tracing::warn!(%one, %two, "the copies of the store's descriptor name different archives; the objects decide");
    Some(if count(two) > count(one) { second.clone() } else { first.clone() })
}

/// The archives that some objects of a store say they belong to.
fn owners_of_objects(store: &dyn BlockStore) -> Vec<ArchiveId> {
    let Ok(listed) = store.list(None) else { return Vec::new() };
    let names = listed.into_iter().filter_map(|listed| listed.name.parse::<ObjectName>().ok());
    let owner = |name: ObjectName| {
        [MANIFEST, MANIFEST_COPY].into_iter().find_map(|copy| {
            let bytes = store.read(&key(store, &format!("{name}/{copy}")).ok()?, MAX_MANIFEST).ok()?;
            Manifest::from_bytes(&bytes).ok().map(|manifest| manifest.archive)
        })
    };
    names.filter_map(owner).take(WITNESSES).collect()
}

fn key(store: &dyn BlockStore, text: &str) -> ArchiveResult<StoreKey> {
    Ok(StoreKey::new(text).map_err(|error| StoreError::bad_key(store.label(), error))?)
}

impl Archive {
    /// Makes a new archive in a store: writes both copies of the descriptor
    /// and the recovery text.
    ///
    /// Errors: `ArchiveExists` when the store holds an archive, whole or damaged.
    pub fn create(
        store: Arc<dyn BlockStore>,
        descriptor: ArchiveDescriptor,
        failure_domain: String,
    ) -> ArchiveResult<StoreId> {
        for name in [STORE_DESCRIPTOR, STORE_DESCRIPTOR_COPY] {
            match store.open(&key(&*store, name)?) {
                Err(error) if error.kind() == StoreErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
                Ok(_) => {
                    return Err(ArchiveError::ArchiveExists { store: store.label().into(), what: name.into() });
                }
            }
        }
        let id = StoreId::random();
        let bytes = StoreDescriptor::new(id, failure_domain, descriptor).to_bytes()?;
        store.write(&key(&*store, RECOVERY_TEXT)?, RECOVERY.as_bytes())?;
        store.write(&key(&*store, STORE_DESCRIPTOR_COPY)?, &bytes)?;
        // The first copy last: a store with it is a whole one.
        store.write(&key(&*store, STORE_DESCRIPTOR)?, &bytes)?;
        Ok(id)
    }

    /// The rules of the archive in `store`, if a copy of its descriptor is good. Nothing is healed.
    pub fn peek(store: &dyn BlockStore) -> Option<ArchiveDescriptor> {
        let read = |name| {
            let bytes = store.read(&key(store, name).ok()?, MAX_DESCRIPTOR).ok()?;
            let descriptor = StoreDescriptor::from_bytes(&bytes).ok()?;
            Some(Copy { name, descriptor, bytes })
        };
        let good: Vec<Copy> = [STORE_DESCRIPTOR, STORE_DESCRIPTOR_COPY].into_iter().filter_map(read).collect();
        choose(store, &good).map(|copy| copy.descriptor.archive)
    }

    /// Opens the archive in `store`. A damaged or missing copy of the
    /// descriptor is healed from the other where the store can be written.
    ///
    /// Errors: `NoArchive`; `DescriptorLost` when no copy is good; `Format`
    /// for a version that this program does not know.
    pub fn open(store: Arc<dyn BlockStore>, clock: Arc<dyn Clock>, events: Arc<dyn EventSink>) -> ArchiveResult<Self> {
        store.health_check().map_err(|error| match error.kind() {
            StoreErrorKind::NotFound => ArchiveError::NoArchive { store: store.label().into() },
            _ => error.into(),
        })?;
        let mut bad = Vec::new();
        let mut missing = 0;
        let mut good: Vec<Copy> = Vec::new();
        for name in [STORE_DESCRIPTOR, STORE_DESCRIPTOR_COPY] {
            match store.read(&key(&*store, name)?, MAX_DESCRIPTOR) {
                Ok(bytes) => match StoreDescriptor::from_bytes(&bytes) {
                    Ok(descriptor) => good.push(Copy { name, descriptor, bytes }),
                    Err(error @ FormatError::Version { .. }) => return Err(error.into()),
                    Err(error) => bad.push((name, error)),
                },
                Err(error) if error.kind() == StoreErrorKind::NotFound => {
                    missing += 1;
                    bad.push((name, FormatError::Truncated { what: "store descriptor", at: 0 }));
                }
                Err(error) => {
                    tracing::warn!(file = name, %error, "a copy of the store's descriptor cannot be read");
                    bad.push((name, FormatError::Truncated { what: "store descriptor", at: 0 }));
                }
            }
        }
        let Some(Copy { name: chosen, descriptor, bytes }) = choose(&*store, &good) else {
            if missing == 2 {
                return Err(ArchiveError::NoArchive { store: store.label().into() });
            }
            let source = bad.into_iter().next().map(|(_, error)| error);
            let source = source.unwrap_or(FormatError::Truncated { what: "store descriptor", at: 0 });
            return Err(ArchiveError::DescriptorLost { store: store.label().into(), source });
        };
        let differs = |copy: &&Copy| copy.bytes != bytes;
        bad.extend(
            good.iter()
                .filter(differs)
                .map(|copy| (copy.name, FormatError::invalid("store descriptor", format!("it differs from {chosen}")))),
        );
        for (name, error) in bad {
            heal_descriptor(&*store, &*clock, &*events, name, &error, &bytes);
        }
        Ok(Self {
            shared: Arc::new(Shared {
                descriptor: descriptor.archive,
                descriptor_bytes: bytes,
                store_id: descriptor.store,
                store,
                clock,
                events,
                keys: None,
                caches: cache::Caches::default(),
                heals: heal::HealQueue::default(),
            }),
        })
    }
}

impl Archive {
    /// The same archive, opened with its keys. They were checked: a key ring
    /// of this archive gave them.
    pub fn unlocked(&self, keys: Arc<ArchiveKeys>) -> Self {
        let shared = &self.shared;
        Self {
            shared: Arc::new(Shared {
                descriptor: shared.descriptor.clone(),
                descriptor_bytes: shared.descriptor_bytes.clone(),
                store_id: shared.store_id,
                store: shared.store.clone(),
                clock: shared.clock.clone(),
                events: shared.events.clone(),
                keys: Some(keys),
                caches: cache::Caches::default(),
                heals: heal::HealQueue::default(),
            }),
        }
    }

    /// Whether the store still shows at least one good copy of its descriptor:
    /// an empty mount point does not.
    pub fn has_descriptor(&self) -> ArchiveResult<bool> {
        for name in [STORE_DESCRIPTOR, STORE_DESCRIPTOR_COPY] {
            let read = self.shared.store.read(&self.shared.key(name)?, MAX_DESCRIPTOR);
            if read.is_ok_and(|bytes| bytes == self.shared.descriptor_bytes) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads both copies of the store's descriptor and key ring again, and looks whether
    /// the recovery text is there. With `repair` what is bad is written anew.
    /// Returns what was wrong.
    pub fn verify_descriptors(&self, repair: bool) -> ArchiveResult<Vec<String>> {
        let shared = &self.shared;
        let mut wrong = Vec::new();
        for name in [STORE_DESCRIPTOR, STORE_DESCRIPTOR_COPY] {
            let cause = match shared.store.read(&shared.key(name)?, MAX_DESCRIPTOR) {
                Ok(bytes) if bytes == shared.descriptor_bytes => continue,
                Ok(_) => FormatError::Checksum { what: "store descriptor" },
                Err(error) if error.kind() == StoreErrorKind::NotFound => {
                    FormatError::Truncated { what: "store descriptor", at: 0 }
                }
                Err(error) => FormatError::invalid("store descriptor", error.to_string()),
            };
            wrong.push(format!("{name}: {cause}"));
            if repair {
                heal_descriptor(
                    &*shared.store,
                    &*shared.clock,
                    &*shared.events,
                    name,
                    &cause,
                    &shared.descriptor_bytes,
                );
            }
        }
        wrong.extend(self.verify_key_ring(repair));
        let recovery = shared.key(RECOVERY_TEXT)?;
        if matches!(shared.store.open(&recovery), Err(error) if error.kind() == StoreErrorKind::NotFound) {
            wrong.push(format!("{RECOVERY_TEXT}: missing"));
            if repair && let Err(error) = shared.store.write(&recovery, RECOVERY.as_bytes()) {
                tracing::warn!(%error, "the recovery text could not be written again");
            }
        }
        Ok(wrong)
    }
}

fn heal_descriptor(
    store: &dyn BlockStore,
    clock: &dyn Clock,
    events: &dyn EventSink,
    name: &str,
    cause: &FormatError,
    bytes: &[u8],
) {
    let result = key(store, name).and_then(|key| Ok(store.write(&key, bytes)?));
    let (kind, outcome) = match result {
        Ok(()) => (EventKind::MetadataHealed, "rewritten from the other copy".to_string()),
        Err(error) => (EventKind::HealFailed, format!("the other copy serves; rewriting failed: {error}")),
    };
    tracing::warn!(file = name, %cause, outcome, "a copy of the store's descriptor was bad");
    events.record(Event::new(clock.now(), kind, name, format!("{cause}; {outcome}")));
}
