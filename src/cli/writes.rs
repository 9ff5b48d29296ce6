//! Who changes the catalog for a command: the mount's daemon where there is
//! one, else the command itself.

use super::context::OpenArchive;
use super::error::{CliError, CliResult};
use crate::base::ErrorClass;
use crate::catalog::{CatalogError, CatalogWrites};
use crate::control::{ControlClient, Purpose, RemoteWrites};
use std::path::Path;
use std::sync::Arc;

/// The catalog's writer: through the daemon if one answers, else this process.
///
/// Error: `Busy` while another command writes.
pub(super) fn writes(open: &OpenArchive, purpose: Purpose) -> CliResult<Box<dyn CatalogWrites>> {
    if let Some(client) = ControlClient::connect(&open.directory) {
        return through(client, open, purpose);
    }
    match open.catalog.writer() {
        Ok(writer) => Ok(Box::new(writer)),
        // A daemon that has only just begun holds the lock before it answers.
        Err(error @ CatalogError::Locked { .. }) => match ControlClient::connect(&open.directory) {
            Some(client) => through(client, open, purpose),
            None => Err(error.into()),
        },
        Err(error) => Err(error.into()),
    }
}

fn through(client: ControlClient, open: &OpenArchive, purpose: Purpose) -> CliResult<Box<dyn CatalogWrites>> {
    let (catalog, store) = (Arc::clone(&open.catalog), Arc::clone(open.archive.store()));
    Ok(Box::new(RemoteWrites::begin(client, catalog, store, purpose)?))
}

/// Refuses what cannot be done under a mount.
///
/// Error: `Busy` when a daemon answers.
pub(super) fn refuse_while_mounted(archive: &Path, what: &str) -> CliResult<()> {
    let Some(mut client) = ControlClient::connect(archive) else { return Ok(()) };
    let place =
        client.status().map_or(String::new(), |status| format!(" at {} (process {})", status.mountpoint, status.pid));
    let hint = format!("{what} while the archive is mounted{place}; unmount it first: `blockframe umount`");
    Err(CliError::new(ErrorClass::Busy, hint))
}
