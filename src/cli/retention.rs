//! What has had its time: history that is older than the retention or takes
//! more than its share of the store, and the objects that nothing needs once
//! it is forgotten. `gc` and the mount's daemon both remove it with this.

use super::config::VersionsConfig;
use super::error::CliResult;
use super::service::LiveService;
use super::units::Moment;
use crate::archive::Archive;
use crate::base::{ErrorClass, ObjectName, Timestamp};
use crate::catalog::{Catalog, CatalogRemovals, ObjectRecord};
use crate::format::ObjectKind;
use crate::store::{StoreError, StoreKey, StoreSpace};
use std::collections::HashSet;
use std::time::Duration;

/// How often the daemon looks for what has had its time.
const INTERVAL: Duration = Duration::from_secs(3600);
/// How often at most when the store is short of space.
const SHORT_INTERVAL: Duration = Duration::from_secs(600);
/// A store is short of space when less than one part of this many is free.
const SHORT_PART: u64 = 20;

/// History whose time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overdue {
    /// What ended up to then.
    pub before: Timestamp,
    /// How many states of names and nodes that are.
    pub states: u64,
}

/// The history that is older than the retention, or among the oldest of what
/// takes more than its share; `None` when all of it may stay.
pub fn overdue(archive: &Archive, catalog: &Catalog, config: &VersionsConfig) -> CliResult<Option<Overdue>> {
    let mut before = Moment::Ago(config.retention.0).when(archive.clock().now());
    let most = config.max_share.of(archive.store().space()?.total);
    if let Some(cut) = catalog.history_cut(most)? {
        before = before.max(cut);
    }
    let over = catalog.history_until(before)?;
    let states = over.names + over.states;
    Ok((states > 0).then_some(Overdue { before, states }))
}

/// Those of the objects without a needed content that may go.
pub fn removable<'a>(
    archive: &'a Archive,
    catalog: &'a Catalog,
    objects: Vec<ObjectRecord>,
) -> impl Iterator<Item = ObjectRecord> + 'a {
    objects
        .into_iter()
        .filter(|record| record.kind != ObjectKind::Bundle || tells_nothing(catalog, archive, &record.reference.name))
}

/// Whether a bundle of which no content is needed may go: it tells of no name
/// either, or what it told is lost.
fn tells_nothing(catalog: &Catalog, archive: &Archive, bundle: &ObjectName) -> bool {
    match catalog.is_told_by(archive, bundle) {
        Ok(needed) => !needed,
        Err(error) if error.class() == ErrorClass::Unrecoverable => true,
        Err(error) => {
            tracing::warn!(%bundle, %error, "kept: its table cannot be read now");
            false
        }
    }
}

/// Removes an object that nothing needs; false when it came into use meanwhile.
pub fn remove_object(archive: &Archive, writer: &dyn CatalogRemovals, record: &ObjectRecord) -> CliResult<bool> {
    let (store, object) = (archive.store(), &record.reference.name);
    let key = StoreKey::new(object.as_str()).map_err(|error| StoreError::bad_key(store.label(), error))?;
    // The record first: a record without shards would be taken for stored content, shards
    // without a record are only an orphan for the next gc.
    match writer.remove_object(record) {
        Ok(()) => {
            store.delete_prefix(&key)?;
            Ok(true)
        }
        // A program may still read a file that has no name any more.
        Err(error) if error.class() == ErrorClass::Busy => {
            tracing::warn!(%object, "kept: it came into use meanwhile");
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// What a round of the daemon removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removed {
    /// States of names and nodes.
    pub states: u64,
    /// Objects.
    pub objects: u64,
    /// Bytes of their shards.
    pub bytes: u64,
}

/// Removes what has had its time. An object that was without a name before
/// stays, since an interrupted commit goes on with it, unless the store is `short` of space.
pub fn remove(
    archive: &Archive,
    catalog: &Catalog,
    writer: &dyn CatalogRemovals,
    config: &VersionsConfig,
    short: bool,
) -> CliResult<Removed> {
    let mut removed = Removed::default();
    let overdue = overdue(archive, catalog, config)?;
    if overdue.is_none() && !short {
        return Ok(removed);
    }
    let mut spared = HashSet::new();
    if !short {
        spared.extend(writer.unreferenced_objects()?.into_iter().map(|record| record.reference.name));
    }
    if let Some(Overdue { before, .. }) = overdue {
        removed.states = writer.remove_history(before)?;
    }
    for record in removable(archive, catalog, writer.unreferenced_objects()?) {
        if !spared.contains(&record.reference.name) && remove_object(archive, writer, &record)? {
            removed.objects += 1;
            removed.bytes += record.stored_len;
        }
    }
    Ok(removed)
}

/// When the daemon looks for what has had its time.
#[derive(Debug, Default)]
pub struct Rounds {
    /// How long ago the last round was.
    since: Option<Duration>,
}

impl Rounds {
    /// Whether a round is due, `passed` after it was asked last.
    pub fn is_due(&mut self, passed: Duration, short: bool) -> bool {
        let since = self.since.map(|since| since.saturating_add(passed));
        let due = since.is_none_or(|since| since >= if short { SHORT_INTERVAL } else { INTERVAL });
        self.since = if due { Some(Duration::ZERO) } else { since };
        due
    }
}

/// Whether a store has little room left.
pub fn is_short(space: StoreSpace) -> bool {
    space.free < space.total / SHORT_PART
}

/// A round of the daemon, with the write-back at rest. Nothing is done while a command writes.
pub fn round(service: &LiveService, archive: &Archive, config: &VersionsConfig, short: bool) -> CliResult<Removed> {
    // Most rounds find nothing, and nobody shall wait for them.
    if !short && overdue(archive, service.catalog(), config)?.is_none() {
        return Ok(Removed::default());
    }
    match service.collector() {
        Some(collector) => remove(archive, service.catalog(), &collector, config, short),
        None => Ok(Removed::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_come_hourly_and_sooner_when_space_is_short() {
        let minute = Duration::from_secs(60);
        let mut rounds = Rounds::default();
        let due: Vec<u32> = (0..=120).filter(|at| rounds.is_due(minute, *at > 100)).collect();
        assert_eq!(due, [0, 60, 101, 111]);
        assert!(is_short(StoreSpace { total: 100, free: 4 }) && !is_short(StoreSpace { total: 100, free: 5 }));
    }
}
