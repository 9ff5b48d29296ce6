//! What a daemon does for other processes.

use super::{ControlResult, DaemonStatus, Purpose, SyncProgress};
use crate::base::Timestamp;
use crate::catalog::{CatalogResult, CommitSummary, NewObject, ObjectRecord};
use crate::format::{Entry, EntryPath};

/// What a daemon does for other processes. Called from several threads at once.
pub trait ControlService: Send + Sync {
    /// What it is doing.
    fn status(&self) -> ControlResult<DaemonStatus>;

    /// Returns when all that was staged at the call (at or below `path`) is
    /// committed. Calls `progress` at least once a second; when that returns
    /// false nobody waits any more, and it returns `Interrupted`.
    fn sync(&self, path: Option<&EntryPath>, progress: &mut dyn FnMut(SyncProgress) -> bool) -> ControlResult<()>;

    /// Returns when every change made before the call is durable, and visible
    /// to other processes in the catalog's database.
    fn flush(&self) -> ControlResult<()>;

    /// Another process begins to write objects, or to remove them; there is
    /// one at a time. For [`Purpose::Collect`] it returns once the daemon has
    /// recorded all objects that it has written, and it writes none until [`end`](Self::end).
    fn begin(&self, purpose: Purpose) -> ControlResult<()>;

    /// The process that [began](Self::begin) is done, or gone.
    fn end(&self);

    /// The sequence number that a manifest or bundle written now carries.
    fn sequence(&self) -> ControlResult<u64>;

    /// Records an object that is durable on the store. Durable when it returns.
    fn add_object(&self, object: &NewObject) -> ControlResult<()>;

    /// Puts entries into the namespace as one atomic, durable change.
    fn commit_entries(&self, entries: &mut dyn Iterator<Item = CatalogResult<Entry>>) -> ControlResult<CommitSummary>;

    /// Forgets an object. Durable when it returns. Error `Busy` when a name,
    /// a version or an open file needs it.
    fn remove_object(&self, object: &ObjectRecord) -> ControlResult<()>;

    /// Forgets the states of names and nodes that ended before a time; returns how many.
    fn remove_history(&self, before: Timestamp) -> ControlResult<u64>;

    /// Removes a name, with `recursive` a directory with all below it, as one
    /// durable change; returns how many names.
    fn remove_path(&self, path: &EntryPath, recursive: bool) -> ControlResult<u64>;
}
