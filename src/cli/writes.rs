//! Who changes the catalog for a command: the mount's daemon where there is
//! one, else the command itself.

use super::context::{Context, OpenArchive};
use super::error::{CliError, CliResult};
use super::units;
use crate::base::{ErrorClass, Timestamp};
use crate::catalog::{CatalogError, CatalogWriter, CatalogWrites};
use crate::control::{ControlClient, Purpose, RemoteWrites};
use crate::format::EntryPath;
use crate::ingest::{IngestError, Spools};
use crate::vfs::{self, HealthSource};
use blockframe_api::Node;
use std::collections::HashMap;
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
    let spools = Spools::of(&open.archive).map_err(IngestError::from)?;
    Ok(Box::new(RemoteWrites::begin(client, Arc::clone(&open.catalog), spools, purpose)?))
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
    Own(Box<CatalogWriter>),
}

/// Who removes names.
///
/// Error: `Busy` while another command writes and no daemon answers.
pub(super) fn remover(open: &OpenArchive) -> CliResult<Remover> {
    match ControlClient::connect(&open.directory) {
        Some(client) => Ok(Remover::Daemon(client)),
        None => Ok(Remover::Own(Box::new(open.catalog.writer()?))),
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
            Self::Own(writer) => Ok((*writer).finish()?),
        }
    }
}

/// Sizes of the files whose newest content lies in staging.
#[derive(Debug, Default)]
pub(super) struct StagedSizes(HashMap<Node, u64>);

impl StagedSizes {
    /// As the catalog tells them; at a time that has passed nothing is staged.
    pub(super) fn of(open: &OpenArchive, at: Option<Timestamp>) -> CliResult<Self> {
        let mut sizes = HashMap::new();
        if at.is_none() {
            open.catalog.staged(&mut |node, content| _ = sizes.insert(node, content.size))?;
        }
        Ok(Self(sizes))
    }

    /// The size of a node's content, if it is staged.
    pub(super) fn get(&self, node: Node) -> Option<u64> {
        self.0.get(&node).copied()
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
/// Error: `Busy` while another process writes.
pub(super) fn drain_leftovers(context: &Context, open: &OpenArchive) -> CliResult<()> {
    let (files, _) = leftovers(open)?;
    if files == 0 {
        return Ok(());
    }
    tracing::info!("committing {}, which an interrupted mount left in staging", units::plural(files, "file"));
    let directory = context.staging_directory(&open.directory);
    let (archive, catalog) = (Arc::clone(&open.archive), Arc::clone(&open.catalog));
    let health: Arc<dyn HealthSource> = open.health.clone();
    let bar = context.out().progress("committing", 0);
    let mut total = 0;
    let drained = vfs::drain_leftovers(archive, catalog, health, &directory, &mut |left| {
        if left.bytes_left > total {
            total = left.bytes_left;
            bar.set_total(total);
        }
        bar.set(total - left.bytes_left);
        true
    });
    bar.finish();
    drained.map_err(|error| CliError::new(error.class(), error.to_string()))
}

/// What a command that reads needs to see the newest of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Newest {
    /// Names and attributes.
    Names,
    /// What files at and below this path contain.
    Contents(EntryPath),
}

/// Brings what a mount is still holding back into the catalog, and into
/// objects where contents are asked for. An archive that cannot be written, or
/// that another command writes to, is shown as it was committed.
pub(super) fn settle(context: &Context, open: &OpenArchive, newest: Newest) -> CliResult<()> {
    if let Some(mut client) = ControlClient::connect(&open.directory) {
        match newest {
            Newest::Names => client.flush()?,
            Newest::Contents(path) => {
                client.flush()?;
                if leftovers(open)?.0 > 0 {
                    client.sync(Some(&path), &mut |_| {})?;
                }
            }
        }
        return Ok(());
    }
    match drain_leftovers(context, open) {
        Err(error) if matches!(error.class(), ErrorClass::Busy | ErrorClass::Denied | ErrorClass::ReadOnly) => {
            tracing::warn!("what was written last is not shown: {error}");
            Ok(())
        }
        outcome => outcome,
    }
}
