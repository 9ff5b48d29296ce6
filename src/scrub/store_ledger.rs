//! The ledger of an archive whose catalog cannot be opened, because its keys
//! are not there: the objects are those that lie in the store, and each one's
//! manifest tells how to verify it. That takes the manifest's own word: which
//! objects there should be, only the catalog knows.

use super::ledger::{Ledger, Subject};
use crate::archive::{Archive, ArchiveResult, ObjectRef, Verdict};
use crate::base::{Digest, ObjectName, Timestamp};
use crate::catalog::{CatalogError, CatalogResult, HealthLog, verify_journal_files};
use crate::store::{StoreError, StoreKey};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The objects of a store, and a health log, as the scrubber's memory.
#[derive(Debug)]
pub struct StoreLedger {
    archive: Archive,
    health: Arc<HealthLog>,
    /// Roots and lengths by name: a manifest never changes while its object is there.
    read: Mutex<HashMap<ObjectName, (Digest, u64)>>,
}

impl StoreLedger {
    /// The ledger of an archive, open or not.
    pub fn new(archive: Archive, health: Arc<HealthLog>) -> Self {
        Self { archive, health, read: Mutex::default() }
    }

    /// The name of an object, if a name in the store's top directory is that of one.
    fn object_name(&self, name: &str) -> Option<ObjectName> {
        name.parse::<ObjectName>().ok().filter(|name| !self.archive.is_encrypted() || name.is_sealed())
    }

    fn subject(&self, name: ObjectName) -> Subject {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&(root, stored_len)) = read.get(&name) {
            return Subject { reference: ObjectRef { name, root }, stored_len };
        }
        match self.load(&name) {
            Ok((root, stored_len)) => {
                read.insert(name.clone(), (root, stored_len));
                Subject { reference: ObjectRef { name, root }, stored_len }
            }
            Err(error) => {
                tracing::debug!(object = %name, %error, "no manifest of it can be read");
                Subject { reference: ObjectRef::unreadable(name), stored_len: 0 }
            }
        }
    }

    fn load(&self, name: &ObjectName) -> ArchiveResult<(Digest, u64)> {
        let manifest = self.archive.load_manifest(name)?;
        Ok((manifest.root(), manifest.geometry().stored_len()))
    }
}

impl Ledger for StoreLedger {
    fn objects(&self, visit: &mut dyn FnMut(Subject) -> bool) -> CatalogResult<()> {
        for listed in self.archive.store().list(None)? {
            if listed.is_prefix
                && let Some(name) = self.object_name(&listed.name)
                && !visit(self.subject(name))
            {
                break;
            }
        }
        Ok(())
    }

    fn knows(&self, object: &ObjectName) -> CatalogResult<bool> {
        let store = self.archive.store();
        let key = StoreKey::new(object.as_str())
            .map_err(|error| CatalogError::from(StoreError::bad_key(store.label(), error)))?;
        // A directory is there as long as something lies in it.
        Ok(!store.list(Some(&key))?.is_empty())
    }

    fn verified(&self, object: &ObjectName) -> CatalogResult<Option<(Timestamp, Verdict)>> {
        self.health.verified(object)
    }

    fn set_verified(&self, object: &ObjectName, at: Timestamp, verdict: Verdict) -> CatalogResult<()> {
        self.health.set_verified(object, at, verdict)
    }

    fn value(&self, key: &str) -> CatalogResult<Option<String>> {
        self.health.get_value(key)
    }

    fn set_value(&self, key: &str, value: &str) -> CatalogResult<()> {
        self.health.set_value(key, Some(value))
    }

    /// Without the catalog's database the journal's files are verified by
    /// themselves. Nothing of them is repaired: that takes the keys.
    fn verify_journal(&self, _repair: bool) -> CatalogResult<Vec<String>> {
        let faults = verify_journal_files(&self.archive)?;
        if faults.is_empty() {
            return Ok(faults);
        }
        // A writer may have been at work meanwhile: only what stays is damage.
        let again = verify_journal_files(&self.archive)?;
        Ok(again.into_iter().filter(|fault| faults.contains(fault)).collect())
    }

    fn heals_journal(&self) -> bool {
        false
    }
}
