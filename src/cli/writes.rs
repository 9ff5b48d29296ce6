//! Who changes the catalog for a command: the mount's daemon where there is
//! one, else the command itself.

use super::context::OpenArchive;
use super::error::{CliError, CliResult};
use super::units;
use crate::base::ErrorClass;
use crate::catalog::{CatalogError, CatalogWriter, CatalogWrites};
use crate::control::{ControlClient, Purpose, RemoteWrites};
use crate::format::EntryPath;
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

/// Removes names: through the daemon if one answers, else this process.
pub(super) enum Remover {
    /// Beside a command that commits, too: the daemon puts both in order.
    Daemon(ControlClient),
    /// No daemon serves the archive.
    Own(CatalogWriter),
}

/// Who removes names.
///
/// Error: `Busy` while another command writes and no daemon answers.
pub(super) fn remover(open: &OpenArchive) -> CliResult<Remover> {
    match ControlClient::connect(&open.directory) {
        Some(client) => Ok(Remover::Daemon(client)),
        None => Ok(Remover::Own(open.catalog.writer()?)),
    }
}

impl Remover {
    /// Removes a name, with `recursive` all below it; returns how many names.
    pub(super) fn remove(&mut self, path: &EntryPath, recursive: bool) -> CliResult<u64> {
        match self {
            Self::Daemon(client) => Ok(client.remove_path(path, recursive)?),
            Self::Own(writer) => Ok(writer.remove_path(path, recursive)?),
        }
    }

    /// Ends cleanly.
    pub(super) fn finish(self) -> CliResult<()> {
        match self {
            Self::Daemon(_) => Ok(()),
            Self::Own(writer) => Ok(writer.finish()?),
        }
    }
}

/// Files that a mount left in staging: how many, and their bytes. They are
/// committed by the next mount.
pub(super) fn leftovers(open: &OpenArchive) -> CliResult<(u64, u64)> {
    let (mut files, mut bytes) = (0, 0u64);
    open.catalog.staged(&mut |_, content| {
        files += 1;
        bytes = bytes.saturating_add(content.size);
    })?;
    Ok((files, bytes))
}

/// Commits what a mount left in staging. The caller knows that no daemon serves the archive.
///
/// Error: `NotSupported` when something is left there.
pub(super) fn drain_leftovers(open: &OpenArchive) -> CliResult<()> {
    match leftovers(open)? {
        (0, _) => Ok(()),
        (files, bytes) => {
            let what = format!("{} ({}) wait in staging", units::plural(files, "file"), units::size(bytes));
            let hint = format!("{what}; mount the archive, and they are committed: `blockframe mount`");
            Err(CliError::new(ErrorClass::NotSupported, hint))
        }
    }
}
