//! The namespace as it is at this moment: the catalog, and over it the
//! changes that the catalog does not have yet.
//!
//! A change is made in memory at once and seen by everybody; a thread of its
//! own writes what has gathered as one group: contents that were published
//! first, then the journal, then the database. So changes become durable in
//! their order, each whole or not at all, and never before the contents they
//! tell of. `sync` waits for the journal.

mod compression;
mod draft;
mod error;
mod flusher;
mod listing;
mod state;

pub use compression::{CompressionRules, PathPattern, PatternError};
pub use draft::{Draft, Removed};
pub use error::{Key, NamespaceError, Stop};
pub use flusher::Publications;
pub use state::Later;

use crate::base::{Clock, Timestamp};
use crate::catalog::{Catalog, CatalogResult, CatalogWriter, Inode, NewObject};
use blockframe_api::Node;
use draft::Emptiness;
use flusher::Flusher;
use state::State;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

/// The outcome of an operation on the namespace.
pub type NamespaceResult<T> = Result<T, NamespaceError>;

/// Records that may wait; whoever changes more waits for the thread that writes them.
const MAX_QUEUE: usize = 32 * 1024;

/// The live namespace. Holds the archive's writer lock until dropped.
pub struct Namespace {
    shared: Arc<Shared>,
    flusher: Flusher,
}

/// While this is held, nobody has the catalog alone: an object that is known
/// stays known. Not to be held over anything long.
pub struct Steady<'n> {
    namespace: &'n Namespace,
    _gate: RwLockReadGuard<'n, ()>,
}

impl Steady<'_> {
    /// The writer, for questions.
    pub fn writer(&self) -> &CatalogWriter {
        &self.namespace.shared.writer
    }

    /// As [`Namespace::change`].
    pub fn change<T>(&self, body: impl Fn(&mut Draft<'_>) -> Result<T, Stop>) -> NamespaceResult<T> {
        self.namespace.run(body)
    }
}

pub(super) struct Shared {
    catalog: Arc<Catalog>,
    writer: CatalogWriter,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Something was written, or failed.
    written: Condvar,
    /// Changes hold it shared; what needs the database to itself, alone.
    gate: RwLock<()>,
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Namespace").finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Edits are accepted as a whole, so what a panicking thread left is consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Namespace {
    /// Takes the archive's writer lock. `publications` makes staged contents durable.
    ///
    /// Error: `Locked` while another process writes.
    pub fn open(
        catalog: Arc<Catalog>,
        clock: Arc<dyn Clock>,
        publications: Arc<dyn Publications>,
    ) -> NamespaceResult<Self> {
        let writer = catalog.writer()?;
        let state = Mutex::new(State::new(writer.next_node()?.number()));
        let shared = Arc::new(Shared { catalog, writer, clock, state, written: Condvar::new(), gate: RwLock::new(()) });
        let flusher = Flusher::start(&shared, publications)?;
        Ok(Self { shared, flusher })
    }

    /// The catalog below. It lags behind; see [`Self::flush`].
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.shared.catalog
    }

    /// Asks what is in memory; rows that are not are fetched first.
    pub fn ask<T>(&self, question: impl Fn(&mut Draft<'_>) -> Result<T, Stop>) -> NamespaceResult<T> {
        self.run(question)
    }

    /// Changes the namespace, at once and as a whole. `body` may run several
    /// times, until all rows it asks for are in memory; only its last run counts.
    pub fn change<T>(&self, body: impl Fn(&mut Draft<'_>) -> Result<T, Stop>) -> NamespaceResult<T> {
        self.throttle()?;
        let _shared = self.shared.gate.read().unwrap_or_else(PoisonError::into_inner);
        self.run(body)
    }

    fn run<T>(&self, body: impl Fn(&mut Draft<'_>) -> Result<T, Stop>) -> NamespaceResult<T> {
        let mut emptiness = None;
        loop {
            let now = self.shared.clock.now();
            let need = {
                let mut state = self.shared.lock();
                let mut draft = Draft::new(&mut state, now, emptiness);
                match body(&mut draft) {
                    Ok(outcome) => {
                        let edits = draft.into_edits();
                        if let Some(why) = &state.failure
                            && !edits.records.is_empty()
                        {
                            return Err(NamespaceError::Failed { why: why.clone() });
                        }
                        let first = state.queue.is_empty();
                        state.accept(now, edits);
                        if (first && !state.queue.is_empty()) || state.queue.records.len() >= flusher::GROUP {
                            self.flusher.wake();
                        }
                        return Ok(outcome);
                    }
                    Err(Stop::Refused(error)) => return Err(NamespaceError::Refused(error)),
                    Err(Stop::Need(key)) => key,
                }
            };
            match need {
                Key::Emptiness(directory) => emptiness = Some(self.emptiness(directory)?),
                key => self.fetch(&key)?,
            }
        }
    }

    /// Keeps [`Self::alone`] out, for a change that rests on what the
    /// catalog's writer says.
    pub fn steady(&self) -> NamespaceResult<Steady<'_>> {
        self.throttle()?;
        Ok(Steady { namespace: self, _gate: self.shared.gate.read().unwrap_or_else(PoisonError::into_inner) })
    }

    /// Waits while too much waits to be written.
    fn throttle(&self) -> NamespaceResult<()> {
        let mut state = self.shared.lock();
        while state.queue.records.len() >= MAX_QUEUE {
            if let Some(why) = &state.failure {
                return Err(NamespaceError::Failed { why: why.clone() });
            }
            self.flusher.wake();
            state = self.shared.written.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// Brings a row into memory.
    ///
    /// What was read is kept only if no row has gone from the overlay to the
    /// database meanwhile: the reading may be older than that.
    fn fetch(&self, key: &Key) -> NamespaceResult<()> {
        let catalog = &self.shared.catalog;
        loop {
            let epoch = self.shared.lock().epoch;
            match key {
                Key::Node(node) => {
                    let found = catalog.inode(*node)?.map(Arc::new);
                    let mut state = self.shared.lock();
                    if state.epoch != epoch {
                        continue;
                    }
                    state.clean.nodes.put(*node, found);
                }
                Key::Name(directory, name) => {
                    let found = catalog.lookup(*directory, name)?;
                    let mut state = self.shared.lock();
                    if state.epoch != epoch {
                        continue;
                    }
                    state.clean.names.put((*directory, name.to_vec()), found.as_ref().map(|inode| inode.node));
                    if let Some(inode) = found {
                        state.clean.nodes.put(inode.node, Some(Arc::new(inode)));
                    }
                }
                Key::Parent(directory) => {
                    let found = catalog.parent(*directory)?;
                    let mut state = self.shared.lock();
                    if state.epoch != epoch {
                        continue;
                    }
                    // A directory without a parent was removed: nothing climbs beyond it.
                    state.clean.parents.put(*directory, found.unwrap_or(Node::ROOT));
                }
                Key::Emptiness(_) => {}
            }
            return Ok(());
        }
    }

    fn emptiness(&self, directory: Node) -> NamespaceResult<Emptiness> {
        let epoch = self.shared.lock().epoch;
        let mut is_empty = true;
        self.list(directory, None, &mut |_, _| {
            is_empty = false;
            false
        })?;
        Ok(Emptiness { directory, epoch, is_empty })
    }

    /// The node behind a name.
    pub fn lookup(&self, directory: Node, name: &[u8]) -> NamespaceResult<Option<Arc<Inode>>> {
        self.ask(|draft| match draft.child(directory, name)? {
            Some(node) => draft.find_node(node),
            None => Ok(None),
        })
    }

    /// A node; one that lost its last name a while ago as well.
    pub fn inode(&self, node: Node) -> NamespaceResult<Option<Arc<Inode>>> {
        match self.ask(|draft| draft.find_node(node))? {
            Some(inode) => Ok(Some(inode)),
            None => Ok(self.shared.lock().removed.get(&node).cloned()),
        }
    }

    /// The directory above a directory.
    pub fn parent(&self, directory: Node) -> NamespaceResult<Node> {
        self.ask(|draft| draft.parent(directory))
    }

    /// A handle of the node was released. Returns whether it was the last one
    /// of a node without names, which nothing leads to any more.
    pub fn close(&self, node: Node) -> NamespaceResult<bool> {
        {
            let mut state = self.shared.lock();
            match state.opened.get_mut(&node) {
                Some(count) if *count > 1 => {
                    *count -= 1;
                    return Ok(false);
                }
                _ => {
                    state.opened.remove(&node);
                }
            }
        }
        self.ask(|draft| Ok(draft.find_node(node)?.is_some_and(|inode| inode.links == 0)))
    }

    /// Whether a handle of the node is open.
    pub fn is_open(&self, node: Node) -> bool {
        self.shared.lock().is_open(node)
    }

    /// Waits until every change made so far is durable.
    pub fn sync(&self) -> NamespaceResult<()> {
        let target = self.shared.lock().seq;
        self.flusher.wait(target, |state| state.journaled)
    }

    /// Waits until the catalog's database has every change made so far.
    pub fn flush(&self) -> NamespaceResult<()> {
        let target = self.shared.lock().seq;
        self.flusher.wait(target, |state| state.applied)
    }

    /// The sequence number that an object written now carries.
    pub fn sequence(&self) -> u64 {
        self.shared.writer.sequence()
    }

    /// Records an object that is durable on the store. Durable when it returns.
    pub fn add_object(&self, object: &NewObject) -> NamespaceResult<()> {
        Ok(self.shared.writer.add_object(object)?)
    }

    /// The writer, for questions and for what changes no name.
    pub fn writer(&self) -> &CatalogWriter {
        &self.shared.writer
    }

    /// Gives `work` the catalog with every change written and none coming, and
    /// forgets afterwards what was known of it.
    pub fn alone<T>(&self, work: impl FnOnce(&CatalogWriter) -> CatalogResult<T>) -> NamespaceResult<T> {
        let _alone = self.shared.gate.write().unwrap_or_else(PoisonError::into_inner);
        self.flush()?;
        let outcome = work(&self.shared.writer);
        let next_inode = self.shared.writer.next_node()?.number();
        self.shared.lock().forget_clean(next_inode);
        Ok(outcome?)
    }

    /// The time of the namespace's clock.
    pub fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }
}

#[cfg(test)]
mod tests;
