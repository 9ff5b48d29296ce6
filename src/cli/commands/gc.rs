//! `gc`: removes what crashed or failed commits left, and old bad bytes.

use crate::archive::Archive;
use crate::base::{ObjectName, Timestamp};
use crate::catalog::{Catalog, CatalogWrites, ObjectRecord};
use crate::cli::args::GcArgs;
use crate::cli::context::{Context, OpenArchive};
use crate::cli::error::CliResult;
use crate::cli::exit::ExitStatus;
use crate::cli::retention::{self, Overdue};
use crate::cli::units;
use crate::cli::writes::writes;
use crate::control::Purpose;
use crate::format::layout::{PRIVATE_DIR, QUARANTINE_DIR, TMP_DIR};
use crate::store::{BlockStore, StoreError, StoreKey, is_leftover_name};
use serde::Serialize;
use std::collections::HashSet;

/// What is removed, and why it may be.
#[derive(Debug, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
enum Leftover {
    /// A commit that did not get to publishing its object.
    Temporary { path: String },
    /// An object whose names were never committed, or are gone.
    Unreferenced { object: ObjectName, bytes: u64 },
    /// An object that a crash kept from being recorded in the catalog.
    Orphan { object: ObjectName, bytes: u64 },
    /// What was until then: states of names and nodes.
    History { before: String, states: u64 },
    /// Bad bytes that were kept for inspection.
    Quarantine { path: String },
}

/// Removes leftovers.
pub(super) fn run(context: &Context, args: &GcArgs) -> CliResult<ExitStatus> {
    let open = context.open()?;
    let out = context.out();
    // The one writer: while it is, nothing below tmp/ belongs to a commit that still runs.
    let writer = writes(&open, Purpose::Collect)?;
    let store = open.archive.store();
    let forgotten = forget_history(context, &open, &*writer, args.dry_run)?;
    let Orphans { removable, ahead } = orphans(&open.archive, &open.catalog, &*writer)?;
    let mut count = 0;
    let mut freed = 0;
    let mut tell = |leftover: &Leftover, line: String, bytes: u64| {
        count += 1;
        freed += bytes;
        out.json(leftover)?;
        out.line(line)
    };
    for path in below(&**store, TMP_DIR)?.into_iter().chain(half_written(&**store)?) {
        tell(&Leftover::Temporary { path: path.to_string() }, format!("unfinished   {path}"), 0)?;
        remove(&**store, &path, args.dry_run)?;
    }
    let mut show = |record: &ObjectRecord| {
        let object = record.reference.name.clone();
        let line = format!("unreferenced {object}");
        tell(&Leftover::Unreferenced { object, bytes: record.stored_len }, line, record.stored_len)
    };
    match forgotten.filter(|_| args.dry_run) {
        Some(before) => {
            for record in retention::removable(&open.archive, &open.catalog, open.catalog.unreferenced_after(before)?) {
                show(&record)?;
            }
        }
        None => {
            for record in retention::removable(&open.archive, &open.catalog, writer.unreferenced_objects()?) {
                if args.dry_run || retention::remove_object(&open.archive, &*writer, &record)? {
                    show(&record)?;
                }
            }
        }
    }
    for (object, bytes) in removable {
        let line = format!("orphan       {object}");
        let key = key(&**store, object.as_str())?;
        tell(&Leftover::Orphan { object, bytes }, line, bytes)?;
        remove(&**store, &key, args.dry_run)?;
    }
    for path in below(&**store, QUARANTINE_DIR)? {
        tell(&Leftover::Quarantine { path: path.to_string() }, format!("quarantined  {path}"), 0)?;
        remove(&**store, &path, args.dry_run)?;
    }
    writer.finish()?;
    for object in &ahead {
        tracing::warn!(%object, "kept: newer than the catalog, which may have been rolled back; run `blockframe rebuild-catalog`");
    }
    let verb = if args.dry_run { "Would remove" } else { "Removed" };
    out.line(format_args!("{verb} {}, {} of objects.", units::plural(count, "leftover"), units::size(freed)))?;
    out.json(&serde_json::json!({
        "summary": true, "removed": count, "bytes": freed, "dry_run": args.dry_run, "kept_newer_than_catalog": ahead,
    }))?;
    Ok(ExitStatus::Done)
}

/// Forgets the history whose time is over; returns up to when.
fn forget_history(
    context: &Context,
    open: &OpenArchive,
    writer: &dyn CatalogWrites,
    dry_run: bool,
) -> CliResult<Option<Timestamp>> {
    let Some(Overdue { before, states }) =
        retention::overdue(&open.archive, &open.catalog, &context.config().versions)?
    else {
        return Ok(None);
    };
    let states = if dry_run { states } else { writer.remove_history(before)? };
    let (out, before_text) = (context.out(), units::rfc3339(before));
    out.line(format_args!("history      {} that ended before {before_text}", units::plural(states, "state")))?;
    out.json(&Leftover::History { before: before_text, states })?;
    Ok(Some(before))
}

/// Objects on the store that the catalog does not know.
#[derive(Debug, Default)]
struct Orphans {
    /// Those that may go, with the bytes of their shards.
    removable: Vec<(ObjectName, u64)>,
    /// Those that are newer than the catalog.
    ahead: Vec<ObjectName>,
}

/// Looks for objects that the catalog does not know.
///
/// An object that was published just before a crash carries the sequence
/// number that the catalog still stands at. One with a higher number says
/// that the catalog has lost its end, and then the object is the only copy.
fn orphans(archive: &Archive, catalog: &Catalog, writer: &dyn CatalogWrites) -> CliResult<Orphans> {
    let mut known = HashSet::new();
    catalog.objects(None, &mut |record| {
        known.insert(record.reference.name);
        true
    })?;
    let mut orphans = Orphans::default();
    for listed in archive.store().list(None)? {
        let Ok(name) = listed.name.parse::<ObjectName>() else { continue };
        if !listed.is_prefix || known.contains(&name) {
            continue;
        }
        // Without a manifest of ours nothing says whose it is: it stays.
        let Ok(manifest) = archive.load_manifest(&name) else { continue };
        if manifest.facts()?.sequence <= writer.sequence()? {
            orphans.removable.push((name, manifest.geometry().stored_len()));
        } else {
            orphans.ahead.push(name);
        }
    }
    Ok(orphans)
}

fn key(store: &dyn BlockStore, text: &str) -> CliResult<StoreKey> {
    Ok(StoreKey::new(text).map_err(|error| StoreError::bad_key(store.label(), error))?)
}

fn below(store: &dyn BlockStore, directory: &str) -> CliResult<Vec<StoreKey>> {
    let directory = key(store, directory)?;
    let names = store.list(Some(&directory))?;
    names.iter().map(|listed| key(store, &format!("{directory}/{}", listed.name))).collect()
}

/// Files that were being replaced, as healing does it beside the old one, when their process ended.
fn half_written(store: &dyn BlockStore) -> CliResult<Vec<StoreKey>> {
    let mut found = Vec::new();
    let mut todo = vec![None];
    while let Some(directory) = todo.pop() {
        for listed in store.list(directory.as_ref())? {
            let path = match &directory {
                Some(directory) => key(store, &format!("{directory}/{}", listed.name))?,
                None => key(store, &listed.name)?,
            };
            let is_ours =
                directory.is_some() || listed.name == PRIVATE_DIR || listed.name.parse::<ObjectName>().is_ok();
            if listed.is_prefix {
                if is_ours && ![TMP_DIR, QUARANTINE_DIR].contains(&path.as_str()) {
                    todo.push(Some(path));
                }
            } else if is_leftover_name(&listed.name) {
                found.push(path);
            }
        }
    }
    Ok(found)
}

fn remove(store: &dyn BlockStore, key: &StoreKey, dry_run: bool) -> CliResult<()> {
    if !dry_run {
        store.delete_prefix(key)?;
        store.delete(key)?;
    }
    Ok(())
}
