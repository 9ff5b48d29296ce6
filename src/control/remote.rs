//! The catalog's writer as another process than the daemon has it.

use super::{ControlClient, ControlResult, Purpose};
use crate::base::{ContentHash, Timestamp};
use crate::catalog::{
    Catalog, CatalogRemovals, CatalogResult, CatalogWrites, CommitSummary, ContentPlace, Inode, NewObject,
    ObjectRecord, SourceSignature,
};
use crate::format::{Entry, EntryPath};
use crate::ingest::{EntrySpool, Spools};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Changes go to the daemon, questions to this process's own view of the database.
#[derive(Debug)]
pub struct RemoteWrites {
    catalog: Arc<Catalog>,
    spools: Spools,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    client: ControlClient,
    /// Whether the database may lack what the daemon was told.
    behind: bool,
}

impl RemoteWrites {
    /// Becomes the one process that writes through the daemon, until dropped.
    ///
    /// Error: `Busy` while another one is.
    pub fn begin(
        mut client: ControlClient,
        catalog: Arc<Catalog>,
        spools: Spools,
        purpose: Purpose,
    ) -> ControlResult<Self> {
        client.begin(purpose)?;
        // The caller may ask the catalog itself.
        client.flush()?;
        Ok(Self { catalog, spools, state: Mutex::new(State { client, behind: false }) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, body: impl FnOnce(&mut ControlClient) -> ControlResult<T>) -> CatalogResult<T> {
        let mut state = self.state();
        state.behind = true;
        Ok(body(&mut state.client)?)
    }

    /// The catalog, once it shows all that was told to the daemon.
    fn asking(&self) -> CatalogResult<&Catalog> {
        let mut state = self.state();
        if state.behind {
            state.client.flush()?;
            state.behind = false;
        }
        Ok(&self.catalog)
    }
}

impl CatalogRemovals for RemoteWrites {
    fn remove_object(&self, object: &ObjectRecord) -> CatalogResult<()> {
        self.change(|client| client.remove_object(object))
    }

    fn unreferenced_objects(&self) -> CatalogResult<Vec<ObjectRecord>> {
        self.asking()?.unreferenced_objects()
    }

    fn remove_history(&self, before: Timestamp) -> CatalogResult<u64> {
        // The next question is one to the catalog itself: how much is left.
        self.change(|client| {
            let removed = client.remove_history(before)?;
            client.flush()?;
            Ok(removed)
        })
    }
}

impl CatalogWrites for RemoteWrites {
    fn sequence(&self) -> CatalogResult<u64> {
        Ok(self.state().client.sequence()?)
    }

    fn resolve(&self, path: &EntryPath) -> CatalogResult<Option<Inode>> {
        self.asking()?.resolve(path)
    }

    fn place(&self, hash: &ContentHash, size: u64) -> CatalogResult<Option<ContentPlace>> {
        self.asking()?.place(hash, size)
    }

    fn has_size(&self, size: u64) -> CatalogResult<bool> {
        self.asking()?.has_size(size)
    }

    fn seen(&self, signature: &SourceSignature) -> CatalogResult<Option<(ContentHash, u64)>> {
        self.asking()?.seen(signature)
    }

    fn add_object(&self, object: &NewObject) -> CatalogResult<()> {
        self.change(|client| client.add_object(object))
    }

    fn commit_entries(&self, entries: &mut dyn Iterator<Item = CatalogResult<Entry>>) -> CatalogResult<CommitSummary> {
        let mut spool = EntrySpool::create(&self.spools)?;
        for entry in entries {
            spool.push(&entry?)?;
        }
        let written = spool.written()?;
        self.change(|client| client.commit_entries(written.key()))
    }

    fn finish(self: Box<Self>) -> CatalogResult<()> {
        Ok(self.state().client.end()?)
    }
}
