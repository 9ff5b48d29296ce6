//! What the mount daemon does for other processes of this program.

use crate::base::{ErrorClass, Timestamp};
use crate::catalog::{Catalog, CatalogError, CatalogRemovals, CatalogResult, CommitSummary, NewObject, ObjectRecord};
use crate::control::{ControlError, ControlResult, ControlService, DaemonStatus, Purpose, SyncProgress};
use crate::format::{Entry, EntryPath};
use crate::namespace::NamespaceError;
use crate::vfs::{LiveVfs, Rest, Writeback};
use blockframe_api::VfsError;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The live filesystem and its write-back, for the control socket.
pub(super) struct LiveService {
    vfs: Arc<LiveVfs>,
    writeback: Arc<Writeback>,
    mountpoint: PathBuf,
    quota: u64,
    /// What another process does now.
    guest: Mutex<Option<Guest>>,
    /// This process removes no objects any more.
    collected: Condvar,
}

/// Who writes or removes objects beside the write-back.
enum Guest {
    Committing,
    /// No object is written meanwhile.
    Collecting {
        _rest: Rest,
    },
    /// This process removes some, which takes a moment.
    Housekeeping,
}

/// While this is held, no other process and no write-back writes objects, and they may be removed.
pub(super) struct Collector<'s> {
    service: &'s LiveService,
    _rest: Rest,
}

impl Drop for Collector<'_> {
    fn drop(&mut self) {
        *self.service.guest() = None;
        self.service.collected.notify_all();
    }
}

impl CatalogRemovals for Collector<'_> {
    fn remove_object(&self, object: &ObjectRecord) -> CatalogResult<()> {
        let removed = self.service.vfs.namespace().alone(|writer| writer.remove_object(object));
        removed.map_err(to_catalog)
    }

    fn unreferenced_objects(&self) -> CatalogResult<Vec<ObjectRecord>> {
        self.service.vfs.namespace().alone(|writer| writer.unreferenced_objects()).map_err(to_catalog)
    }

    fn remove_history(&self, before: Timestamp) -> CatalogResult<u64> {
        let removed = self.service.vfs.namespace().alone(|writer| writer.remove_history(before));
        removed.map(|removed| removed.names + removed.states).map_err(to_catalog)
    }
}

fn of_vfs(error: &VfsError) -> ControlError {
    ControlError::refused(error.class(), error.to_string())
}

fn of_namespace(error: NamespaceError) -> ControlError {
    match error {
        NamespaceError::Catalog(error) => error.into(),
        error => ControlError::refused(error.class(), error.to_string()),
    }
}

fn to_catalog(error: NamespaceError) -> CatalogError {
    match error {
        NamespaceError::Catalog(error) => error,
        error => CatalogError::Daemon { class: error.class(), message: error.to_string() },
    }
}

impl LiveService {
    pub(super) fn new(vfs: Arc<LiveVfs>, writeback: Arc<Writeback>, mountpoint: PathBuf, quota: u64) -> Self {
        Self { vfs, writeback, mountpoint, quota, guest: Mutex::new(None), collected: Condvar::new() }
    }

    /// The catalog, which lags a little behind the filesystem.
    pub(super) fn catalog(&self) -> &Catalog {
        self.vfs.namespace().catalog()
    }

    /// Whether staged content waits for room on the store.
    pub(super) fn is_full(&self) -> bool {
        self.writeback.status().store_is_full
    }

    /// Makes this process the one that removes objects; `None` while another one writes.
    pub(super) fn collector(&self) -> Option<Collector<'_>> {
        let mut guest = self.guest();
        if guest.is_some() {
            return None;
        }
        *guest = Some(Guest::Housekeeping);
        drop(guest);
        Some(Collector { service: self, _rest: self.writeback.rest() })
    }

    fn guest(&self) -> MutexGuard<'_, Option<Guest>> {
        self.guest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ControlService for LiveService {
    fn status(&self) -> ControlResult<DaemonStatus> {
        let status = self.writeback.status();
        let now = self.vfs.namespace().now();
        let oldest = status.oldest.map(|age| now.seconds.saturating_sub(i64::try_from(age.as_secs()).unwrap_or(0)));
        Ok(DaemonStatus {
            pid: std::process::id(),
            mountpoint: self.mountpoint.display().to_string(),
            staged_files: status.files,
            staged_bytes: status.bytes,
            quota_bytes: self.quota,
            draining: status.current.is_some(),
            oldest_staged: oldest,
            committed_files: status.files_committed,
            committed_bytes: status.bytes_committed,
        })
    }

    fn sync(&self, path: Option<&EntryPath>, progress: &mut dyn FnMut(SyncProgress) -> bool) -> ControlResult<()> {
        let drained = self.writeback.drain(path, &mut |left| {
            progress(SyncProgress { files_left: left.files_left, bytes_left: left.bytes_left })
        });
        drained.map_err(|error| of_vfs(&error))?;
        self.flush()
    }

    fn flush(&self) -> ControlResult<()> {
        self.vfs.namespace().flush().map_err(of_namespace)
    }

    fn begin(&self, purpose: Purpose) -> ControlResult<()> {
        self.vfs.follow_keys().map_err(|error| of_vfs(&error))?;
        let mut guest = self.guest();
        while matches!(*guest, Some(Guest::Housekeeping)) {
            guest = self.collected.wait(guest).unwrap_or_else(PoisonError::into_inner);
        }
        if guest.is_some() {
            let busy = "another blockframe process is writing to this archive; wait until it is done";
            return Err(ControlError::refused(ErrorClass::Busy, busy));
        }
        *guest = Some(match purpose {
            Purpose::Commit => Guest::Committing,
            Purpose::Collect => Guest::Collecting { _rest: self.writeback.rest() },
        });
        Ok(())
    }

    fn end(&self) {
        *self.guest() = None;
    }

    fn sequence(&self) -> ControlResult<u64> {
        Ok(self.vfs.namespace().sequence())
    }

    fn add_object(&self, object: &NewObject) -> ControlResult<()> {
        self.vfs.namespace().add_object(object).map_err(of_namespace)
    }

    fn commit_entries(&self, entries: &mut dyn Iterator<Item = CatalogResult<Entry>>) -> ControlResult<CommitSummary> {
        self.vfs.commit_entries(entries).map_err(|error| of_vfs(&error))
    }

    fn remove_object(&self, object: &ObjectRecord) -> ControlResult<()> {
        self.vfs.namespace().alone(|writer| writer.remove_object(object)).map_err(of_namespace)?;
        self.vfs.leave_object(&object.reference.name);
        Ok(())
    }

    fn remove_history(&self, before: Timestamp) -> ControlResult<u64> {
        let removed = self.vfs.namespace().alone(|writer| writer.remove_history(before)).map_err(of_namespace)?;
        Ok(removed.names + removed.states)
    }

    fn remove_path(&self, path: &EntryPath, recursive: bool) -> ControlResult<u64> {
        self.vfs.remove_path(path, recursive).map_err(|error| of_vfs(&error))
    }
}
