//! The ledger of a real archive: its catalog and its health log.

use super::ledger::{Ledger, Subject};
use crate::archive::Verdict;
use crate::base::{ObjectName, Timestamp};
use crate::catalog::{Catalog, CatalogResult, HealthLog};
use std::sync::Arc;

/// A catalog and the health log beside it, as the scrubber's memory.
#[derive(Debug, Clone)]
pub struct CatalogLedger {
    catalog: Arc<Catalog>,
    health: Arc<HealthLog>,
}

impl CatalogLedger {
    /// The ledger of an open archive.
    pub fn new(catalog: Arc<Catalog>, health: Arc<HealthLog>) -> Self {
        Self { catalog, health }
    }
}

impl Ledger for CatalogLedger {
    fn objects(&self, visit: &mut dyn FnMut(Subject) -> bool) -> CatalogResult<()> {
        self.catalog.objects(None, &mut |record| visit(record.into()))
    }

    fn knows(&self, object: &ObjectName) -> CatalogResult<bool> {
        Ok(self.catalog.object(object)?.is_some())
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

    fn verify_journal(&self, repair: bool) -> CatalogResult<Vec<String>> {
        self.catalog.verify_journal(repair)
    }
}
