//! The one writer of a catalog.
//!
//! Crash argument: a change is appended to the journal, durably, before the
//! database's transaction commits. A crash before the journal's last block
//! leaves neither; a crash between the two leaves a database that is behind,
//! which the next opening notices and replays; the database is never ahead.
//! Commits to the database's write-ahead log are not synced, so that a power
//! cut may leave it further behind, at any commit since the log was last put
//! into the database. The journal has what is missing: old journals are deleted
//! only when the database follows the new one durably.

use super::apply::Applier;
use super::change::{Change, Opening, unseal};
use super::database::{Database, Head, Use};
use super::local::WriterLock;
use super::{
    CatalogError, CatalogResult, CommitSummary, ContentPlace, HistoryRemoved, Inode, NewObject, ObjectRecord, Shared,
    SourceSignature, recovery,
};
use crate::base::{ContentHash, Timestamp};
use crate::format::journal::{FileKind, Record};
use crate::format::{Entry, EntryPath};
use crate::store::StoreErrorKind;
use blockframe_api::Node;
use std::cell::Cell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Page cache of the writer, KiB: what does not fit spills to the database.
const WRITER_CACHE_KIB: u32 = 32 << 10;
/// A journal shorter than this is never replaced by a snapshot, bytes.
const ROTATE_FROM: u64 = if cfg!(test) { 4 << 20 } else { 32 << 20 };

/// How often this machine is told where the journal ends while it changes, seconds.
const REMEMBER_EVERY: u64 = 60;

/// The one writer of a catalog: holds the archive's writer lock until dropped.
#[derive(Debug)]
pub struct CatalogWriter {
    shared: Arc<Shared>,
    state: Mutex<State>,
    _lock: WriterLock,
}

#[derive(Debug)]
struct State {
    database: Database,
    head: Head,
    snapshot_length: u64,
    unsealed: Cell<bool>,
    /// When this machine was told last where the journal ends, seconds.
    remembered: i64,
    /// A change got half-way between journal and database: what counts is for the next opening to find out.
    broken: bool,
}

impl CatalogWriter {
    /// Takes the lock and brings the database to the journal's end.
    pub(super) fn begin(shared: &Arc<Shared>) -> CatalogResult<Self> {
        let lock = shared.site.files.lock()?;
        if recovery::recover(&shared.site)?.replaced {
            shared.pool.reset();
        }
        let database = shared.site.open_database(Use::Write, WRITER_CACHE_KIB)?;
        let head = database.head()?;
        let snapshot_length = shared.site.replica.length(FileKind::Snapshot, head.file)?.unwrap_or(0);
        let state = State { database, head, snapshot_length, unsealed: Cell::new(false), remembered: 0, broken: false };
        let writer = Self { shared: shared.clone(), state: Mutex::new(state), _lock: lock };
        writer.follow_epoch()?;
        Ok(writer)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, with a transaction open in which questions are asked. They
    /// then share one lock on the file, which costs a dozen system calls, and
    /// the next change goes on in the same transaction. The lock is a shared
    /// one: it keeps no reader out, and there is no other writer.
    fn asking(&self) -> CatalogResult<MutexGuard<'_, State>> {
        let state = self.state();
        state.database.begin()?;
        Ok(state)
    }

    /// The sequence number that a manifest or bundle written now carries.
    pub fn sequence(&self) -> u64 {
        self.state().head.chain.sequence
    }

    /// The least inode number that was never used.
    pub fn next_node(&self) -> CatalogResult<Node> {
        let counters = self.asking()?.database.counters()?;
        Ok(Node::new(counters.next_inode as u64))
    }

    /// The node at a path, as [`Catalog::resolve`](super::Catalog::resolve) tells it.
    pub fn resolve(&self, path: &EntryPath) -> CatalogResult<Option<Inode>> {
        let state = self.asking()?;
        match state.database.resolve(path)? {
            Some(ino) => state.database.named_node(ino).map(Some),
            None => Ok(None),
        }
    }

    /// Where a content lies already.
    pub fn place(&self, hash: &ContentHash, size: u64) -> CatalogResult<Option<ContentPlace>> {
        self.asking()?.database.place(hash, size)
    }

    /// Whether some content has this size: only then can a file of this size be a duplicate.
    pub fn has_size(&self, size: u64) -> CatalogResult<bool> {
        self.asking()?.database.has_size(size)
    }

    /// The content that a source file had when it was committed with this
    /// very signature, if that content is still stored.
    pub fn seen(&self, signature: &SourceSignature) -> CatalogResult<Option<(ContentHash, u64)>> {
        self.asking()?.database.seen(signature.get())
    }

    /// Records an object that is durable on the store, and the contents it
    /// holds. Durable when it returns; changes no name.
    pub fn add_object(&self, object: &NewObject) -> CatalogResult<()> {
        self.change(|change| {
            change.emit(&Record::Object((&object.record).into()))?;
            for member in &object.members {
                change.emit(&Record::Member {
                    hash: member.hash,
                    offset: member.offset,
                    size: member.size,
                    source: member.source.map(SourceSignature::get),
                })?;
            }
            Ok(())
        })
    }

    /// Puts entries into the namespace as one atomic, durable change. Parents
    /// come before children; missing parents are made (mode 0755, times of
    /// now, owner of the directory above). An entry replaces what stood at its
    /// path, except that a directory keeps what is below it. A file whose
    /// content is not stored is an error, and nothing is changed.
    pub fn commit_entries(
        &self,
        entries: &mut dyn Iterator<Item = CatalogResult<Entry>>,
    ) -> CatalogResult<CommitSummary> {
        self.change(|change| {
            for entry in entries {
                change.put(&entry?)?;
            }
            Ok(change.summary())
        })
    }

    /// Removes what stands at a path, with `recursive` a directory with all
    /// below it, as one atomic, durable change; returns how many names.
    ///
    /// Errors: `NotFound`, `IsDirectory`, `RootRemoved`.
    pub fn remove_path(&self, path: &EntryPath, recursive: bool) -> CatalogResult<u64> {
        self.change(|change| change.remove_path(path, recursive))
    }

    /// Forgets an object that no name needs (for `gc`), nor the history that
    /// is kept; its shards are the caller's. Error when it is needed.
    pub fn remove_object(&self, object: &ObjectRecord) -> CatalogResult<()> {
        self.change(|change| change.remove_object(&object.reference.name))
    }

    /// Objects that neither a name nor the history that is kept needs.
    pub fn unreferenced_objects(&self) -> CatalogResult<Vec<ObjectRecord>> {
        self.state().database.unreferenced_objects(i64::MIN)
    }

    /// Forgets states that ended at or before `before`. Writes nothing when there are none.
    pub fn remove_history(&self, before: Timestamp) -> CatalogResult<HistoryRemoved> {
        self.change(|change| change.remove_history(before))
    }

    /// Closes the catalog cleanly: checkpoints and seals the database.
    pub fn finish(self) -> CatalogResult<()> {
        self.seal()
    }

    /// After a rotation of the keys the journal is begun anew, so that the new epoch's key seals what is written.
    pub fn follow_epoch(&self) -> CatalogResult<()> {
        let head = self.state().head;
        if self.shared.site.replica.is_outdated(head.file)? {
            tracing::info!("the catalog's journal is begun anew with the key of the current epoch");
            self.rewrite_journal()?;
        }
        Ok(())
    }

    /// Replaces journal and snapshot by a fresh snapshot.
    pub(super) fn rewrite_journal(&self) -> CatalogResult<()> {
        let mut state = self.state();
        self.rotate(&mut state)
    }

    fn seal(&self) -> CatalogResult<()> {
        let state = self.state();
        state.database.roll_back();
        if state.unsealed.get() && !state.broken {
            // Readers of this process would keep the log; they open the file again when they need it.
            self.shared.pool.reset();
            self.shared.site.memory.remember(state.head.chain);
            if state.database.settle()? {
                self.shared.site.files.seal()?;
            } else {
                tracing::debug!("the catalog's database is not sealed: readers keep a part of it in its log");
            }
            state.unsealed.set(false);
        }
        Ok(())
    }

    /// Does `records` as one atomic change. They must fit what is there: this
    /// is for callers that know the namespace. `durable` is called when the
    /// change is durable in the journal, before the database follows it.
    ///
    /// An error before that call: nothing happened, and the call may be
    /// repeated. An error after it: the change counts, but this writer cannot
    /// go on; the next opening brings the database up.
    pub fn write_group(&self, records: &[Record], durable: &mut dyn FnMut()) -> CatalogResult<()> {
        let mut guard = self.state();
        let state = &mut *guard;
        if state.broken {
            return Err(CatalogError::Interrupted);
        }
        if records.is_empty() {
            durable();
            return Ok(());
        }
        state.database.roll_back();
        unseal(&self.shared.site.files, &state.database, &state.unsealed)?;
        let head = match self.append(state.head, records) {
            Err(CatalogError::Store(error)) if error.kind() == StoreErrorKind::Latched => {
                // A sync of this journal failed once. It is never trusted again: another one takes its place.
                self.rotate(state)?;
                self.append(state.head, records)?
            }
            appended => appended?,
        };
        durable();
        if let Err(error) = follow(&state.database, records, &head) {
            state.database.roll_back();
            state.broken = true;
            return Err(error);
        }
        state.head = head;
        self.after_change(state);
        Ok(())
    }

    fn append(&self, head: Head, records: &[Record]) -> CatalogResult<Head> {
        let mut group = self.shared.site.replica.begin_group(head)?;
        for record in records {
            if let Err(error) = group.push(record) {
                group.abandon();
                return Err(error);
            }
        }
        group.finish()
    }

    /// Runs one atomic change.
    fn change<T>(&self, body: impl FnOnce(&mut Change<'_>) -> CatalogResult<T>) -> CatalogResult<T> {
        let mut guard = self.state();
        let state = &mut *guard;
        if state.broken {
            return Err(CatalogError::Interrupted);
        }
        state.database.begin()?;
        let database = &state.database;
        let opening = Opening {
            files: &self.shared.site.files,
            replica: &self.shared.site.replica,
            head: state.head,
            unsealed: &state.unsealed,
        };
        let mut change = match Change::new(database, Some(opening), self.shared.site.archive.clock().now()) {
            Ok(change) => change,
            Err(error) => {
                database.roll_back();
                return Err(error);
            }
        };
        let outcome = match body(&mut change) {
            Ok(outcome) => outcome,
            Err(error) => {
                change.abandon();
                database.roll_back();
                return Err(error);
            }
        };
        let ended = change.finish().and_then(|head| {
            if let Some(head) = &head {
                database.store_head(head)?;
            }
            database.run(|connection| connection.execute_batch("COMMIT"))?;
            Ok(head)
        });
        match ended {
            Ok(Some(head)) => state.head = head,
            Ok(None) => return Ok(outcome),
            Err(error) => {
                database.roll_back();
                state.broken = true;
                return Err(error);
            }
        }
        self.after_change(state);
        Ok(outcome)
    }

    /// The change is done already, so trouble here is no error of it.
    fn after_change(&self, state: &mut State) {
        let now = self.shared.site.archive.clock().now().seconds;
        if now.abs_diff(state.remembered) >= REMEMBER_EVERY {
            state.remembered = now;
            self.shared.site.memory.remember(state.head.chain);
        }
        // A rotation of the keys, by this process or another.
        let outdated = self.shared.site.replica.is_outdated(state.head.file).unwrap_or(false);
        if (outdated || state.head.length > ROTATE_FROM.max(state.snapshot_length.saturating_mul(2)))
            && let Err(error) = self.rotate(state)
        {
            tracing::warn!("the catalog's journal cannot be begun anew, and keeps growing: {error}");
        }
    }

    fn rotate(&self, state: &mut State) -> CatalogResult<()> {
        // The new head must be durable before the old journal goes: not within a transaction.
        state.database.roll_back();
        unseal(&self.shared.site.files, &state.database, &state.unsealed)?;
        let (head, length) = recovery::replace_journal(&self.shared.site.replica, &state.database, state.head.chain)?;
        state.head = head;
        state.snapshot_length = length;
        self.shared.site.memory.remember(head.chain);
        Ok(())
    }
}

impl Drop for CatalogWriter {
    fn drop(&mut self) {
        if let Err(error) = self.seal() {
            tracing::warn!("the catalog's database is not sealed, so the next opening checks it: {error}");
        }
    }
}

/// Brings the database to `head` by the records that lead there.
fn follow(database: &Database, records: &[Record], head: &Head) -> CatalogResult<()> {
    database.run(|connection| connection.execute_batch("BEGIN IMMEDIATE"))?;
    let mut applier = Applier::new(database, false)?;
    for record in records {
        applier.apply(record)?;
    }
    applier.finish()?;
    database.store_head(head)?;
    database.run(|connection| connection.execute_batch("COMMIT"))
}
