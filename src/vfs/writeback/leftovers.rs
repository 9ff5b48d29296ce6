//! What a daemon that ended left in staging, committed without a mount.

use super::{DrainProgress, Writeback, WritebackOptions};
use crate::archive::Archive;
use crate::catalog::{Catalog, CatalogResult};
use crate::staging::{StagingArea, StagingKeys, StagingLimits};
use crate::vfs::{HealthSource, LiveVfs, SyncPolicy, VfsLimits, error};
use blockframe_api::VfsResult;
use std::path::Path;
use std::sync::Arc;

/// Whether content lies in staging that no object holds.
pub fn has_leftovers(catalog: &Catalog) -> CatalogResult<bool> {
    let mut found = false;
    catalog.staged(&mut |_, _| found = true)?;
    Ok(found)
}

/// Commits what lies in the staging area in `directory`. As [`Writeback::drain`].
///
/// Error: `Busy` while another process writes.
pub fn drain_leftovers(
    archive: Arc<Archive>,
    catalog: Arc<Catalog>,
    health: Arc<dyn HealthSource>,
    directory: &Path,
    progress: &mut dyn FnMut(DrainProgress) -> bool,
) -> VfsResult<()> {
    // Nothing is written to it here.
    let limits = StagingLimits { quota: u64::MAX, reserve: 0 };
    let staging = StagingKeys::of_archive(&archive).and_then(|keys| StagingArea::open(directory, limits, keys));
    let staging = staging.map_err(|error| error::of_staging(&error))?;
    let vfs = LiveVfs::open(archive, catalog, health, staging, VfsLimits::default(), SyncPolicy::default())?;
    let vfs = Arc::new(vfs);
    let writeback = Writeback::start(&vfs, WritebackOptions::default())?;
    let drained = writeback.drain(None, progress);
    writeback.stop();
    let flushed = vfs.namespace.flush().map_err(|error| error::of_namespace(&error));
    drained.and(flushed)
}
