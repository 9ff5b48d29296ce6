//! Makes the database anew: from the journal, and from what manifests and
//! bundles tell where the journal has gaps.

use super::apply::Applier;
use super::change::Change;
use super::database::{Database, Head, Use};
use super::objects::ObjectSurvey;
use super::presented::refuse_whole_old_journal;
use super::queries::ROOT;
use super::recovery::{highest_sequence, refuse_foreign, replace_journal};
use super::replica::{Replica, Scan, Span};
use super::{CatalogError, CatalogResult, Site, TrustedHeads};
use crate::archive::Archive;
use crate::base::{Digest, ObjectName, Timestamp};
use crate::format::journal::{ChainHead, FileKind, Record};
use crate::format::{Entry, EntryPath, FormatError, NodeBody, NodeMeta};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

/// Page cache while building, KiB.
const BUILD_CACHE_KIB: u32 = 64 << 10;
/// Permissions of a root directory that no entry described.
const ROOT_PERMISSIONS: u16 = 0o755;

/// From what a catalog is rebuilt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RebuildSource {
    /// The journal alone.
    Journal,
    /// Manifests and bundles alone.
    Objects,
    /// The journal, and manifests and bundles for what it does not have.
    Best,
}

/// What a rebuild found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RebuildReport {
    /// Whether the journal was used.
    pub from_journal: bool,
    /// Whether manifests and bundles were used.
    pub from_objects: bool,
    /// What is wrong with the journal.
    pub journal_faults: Vec<String>,
    /// Objects whose manifests were read.
    pub objects_seen: u64,
    /// What was left out, and why.
    pub skipped: Vec<(String, String)>,
    /// Names that manifests and bundles gave back.
    pub names_restored: u64,
}

impl RebuildReport {
    /// The sources, in words.
    pub(super) fn source_words(&self) -> &'static str {
        match (self.from_journal, self.from_objects) {
            (true, true) => "the journal, manifests and bundles",
            (true, false) => "the journal",
            _ => "manifests and bundles",
        }
    }
}

/// A database that was built.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) report: RebuildReport,
    /// Where the journal ends, when it can be continued as it is.
    head: Option<Head>,
    /// The least number that the next block may have.
    sequence: u64,
}

/// Rebuilds the catalog of `archive` in `home`. The old database is set aside
/// as `catalog.db.damaged`; unless the journal was whole, it is written anew.
///
/// Errors: `Locked` while another process writes.
pub fn rebuild(home: &Path, archive: &Arc<Archive>, source: RebuildSource) -> CatalogResult<RebuildReport> {
    rebuild_trusted(home, archive, source, TrustedHeads::nowhere())
}

/// As [`rebuild`], and remembers what it made. A journal that is whole and
/// older than what this machine has seen is refused; one that is damaged is
/// not, nor are manifests: they do not tell what came after them.
///
/// Errors: as of [`rebuild`], and `RolledBack`, `Forked`, `NotEncrypted`.
pub fn rebuild_trusted(
    home: &Path,
    archive: &Arc<Archive>,
    source: RebuildSource,
    heads: TrustedHeads,
) -> CatalogResult<RebuildReport> {
    let site = Site::new(home, archive, heads)?;
    let _lock = site.files.lock()?;
    refuse_foreign(&site)?;
    if source != RebuildSource::Objects {
        refuse_whole_old_journal(&site, site.memory.seen())?;
    }
    let report = rebuild_locked(&site, source)?;
    let head = site.open_database(Use::ReadOnlyMedium, BUILD_CACHE_KIB)?.head()?;
    site.memory.remember(head.chain);
    Ok(report)
}

/// [`rebuild`] under a lock that is held already.
pub(super) fn rebuild_locked(site: &Site, source: RebuildSource) -> CatalogResult<RebuildReport> {
    let built = {
        let database = site.new_database(BUILD_CACHE_KIB)?;
        let built = build(site, &database, source)?;
        match built.head {
            Some(head) => database.store_head(&head)?,
            None => {
                let chain = ChainHead { sequence: built.sequence, hash: Digest::new([0; 32]) };
                if let Err(error) = replace_journal(&site.replica, &database, chain) {
                    tracing::warn!("the catalog's journal cannot be written anew: {error}");
                    database.store_head(&Head { file: chain.sequence, length: 0, chain })?;
                }
            }
        }
        built
    };
    site.files.install_new_database()?;
    Ok(built.report)
}

/// Fills an empty database.
pub(super) fn build(site: &Site, database: &Database, source: RebuildSource) -> CatalogResult<Built> {
    database.make_schema(site.archive.descriptor().id)?;
    let mut report = RebuildReport::default();
    let mut replayed = Replayed::default();
    if source != RebuildSource::Objects {
        report.from_journal = true;
        replayed = replay_all(&site.replica, database)?;
        report.journal_faults.clone_from(&replayed.faults);
    }
    make_root(site, database)?;
    // What this machine has seen must not stand after what is made now.
    let seen = site.memory.seen().map_or(0, |seen| seen.sequence.saturating_add(1));
    let mut sequence = highest_sequence(&site.replica).unwrap_or(0).max(seen).max(1);
    let whole = replayed.end.is_some() && replayed.faults.is_empty();
    if source != RebuildSource::Objects && !whole {
        database.mend()?;
    }
    if source == RebuildSource::Objects || (source == RebuildSource::Best && !whole) {
        report.from_objects = true;
        let highest = add_objects(site, database, &replayed, &mut report)?;
        sequence = sequence.max(highest.saturating_add(1));
    }
    if source != RebuildSource::Objects && !whole {
        database.mend()?;
    }
    // What manifests added is not in the journal, so it is written anew.
    let head = if whole && !report.from_objects { replayed.end } else { None };
    Ok(Built { report, head, sequence })
}

/// What a replay of the journal came to.
#[derive(Debug, Default)]
struct Replayed {
    /// Where it ends, when a whole snapshot and linked journals lead there.
    end: Option<Head>,
    faults: Vec<String>,
    /// The chain's number after the last linked group that changed names or
    /// nodes. Objects older than this had their names committed, if ever.
    names_until: u64,
    /// Nodes that groups behind a gap changed, and the number of the group's first block.
    touched: HashMap<u64, u64>,
}

/// The place that a whole snapshot and linked journals lead to.
pub(super) fn whole_history_end(replica: &Replica, journals: &[Scan]) -> Option<Head> {
    let snapshot = newest_snapshot(replica, &mut Vec::new()).ok().flatten()?;
    follow(&snapshot, journals).1
}

fn newest_snapshot(replica: &Replica, faults: &mut Vec<String>) -> CatalogResult<Option<Scan>> {
    for (kind, start) in replica.files()?.into_iter().rev() {
        if kind != FileKind::Snapshot {
            continue;
        }
        match replica.scan(kind, start) {
            Ok(scan) if scan.is_whole_snapshot() => return Ok(Some(scan)),
            Ok(scan) => {
                let why = scan.fault.unwrap_or_else(|| "it is cut short".into());
                faults.push(format!("{}: {why}", Replica::file_key(kind, start)));
            }
            Err(error) => faults.push(error.to_string()),
        }
    }
    Ok(None)
}

/// The linked groups after a snapshot, as (journal, number of groups), and
/// where they end; `None` when the snapshot's own journal is not there.
fn follow<'s>(snapshot: &Scan, journals: &'s [Scan]) -> (Vec<(&'s Scan, usize)>, Option<Head>) {
    let mut steps = Vec::new();
    let mut end: Option<Head> = None;
    for scan in journals {
        let Some((before, _)) = scan.header else { continue };
        let continues = match (&end, snapshot.header) {
            (Some(end), _) => before == end.chain,
            (None, Some((branch, _))) => before == branch,
            (None, None) => false,
        };
        if continues {
            steps.push((scan, scan.linked));
            end = scan.end();
        }
    }
    (steps, end)
}

/// Hands back what is wrong with a file, unless a later version made it.
fn unless_newer(scan: &Scan, error: CatalogError) -> CatalogResult<CatalogError> {
    match error {
        CatalogError::Format(error @ FormatError::Version { .. }) => {
            Err(CatalogError::Newer { place: Replica::file_key(scan.kind, scan.start), what: error.to_string() })
        }
        error => Ok(error),
    }
}

fn replay_all(replica: &Replica, database: &Database) -> CatalogResult<Replayed> {
    let mut replayed = Replayed::default();
    let snapshot = newest_snapshot(replica, &mut replayed.faults)?;
    let mut journals = Vec::new();
    for (kind, start) in replica.files()? {
        if kind != FileKind::Journal || snapshot.as_ref().is_some_and(|snapshot| start < snapshot.start) {
            continue;
        }
        match replica.scan(kind, start) {
            Ok(scan) => journals.push(scan),
            Err(error) => replayed.faults.push(error.to_string()),
        }
    }
    for scan in &journals {
        if let Some(fault) = &scan.fault {
            replayed.faults.push(format!("{}: {fault}", Replica::file_key(scan.kind, scan.start)));
        }
    }
    let steps = match &snapshot {
        Some(snapshot) => {
            let (steps, end) = follow(snapshot, &journals);
            replayed.end = end;
            if end.is_none() {
                replayed.faults.push(format!("{}: missing", Replica::file_key(FileKind::Journal, snapshot.start)));
            }
            steps
        }
        None => {
            if replayed.faults.is_empty() {
                replayed.faults.push("there is no snapshot".into());
            }
            Vec::new()
        }
    };
    replayed.names_until = snapshot.as_ref().map_or(0, |snapshot| snapshot.start);
    database.run(|connection| connection.execute_batch("BEGIN"))?;
    let mut applier = Applier::new(database, true)?;
    let mut replay = |scan: &Scan, span: &Span, take: &mut dyn FnMut(&Record)| {
        applier.begin_group();
        replica.replay(scan.kind, scan.start, span, &mut |record| {
            take(&record);
            applier.apply(&record)
        })
    };
    if let Some(snapshot) = &snapshot
        && let Err(error) = replay(snapshot, &snapshot.spans[0], &mut |_| {})
    {
        let error = unless_newer(snapshot, error)?;
        replayed.faults.push(format!("{}: {error}", Replica::file_key(snapshot.kind, snapshot.start)));
    }
    for scan in &journals {
        let linked = steps.iter().find(|(step, _)| step.start == scan.start).map_or(0, |(_, linked)| *linked);
        for (number, span) in scan.spans.iter().enumerate() {
            let (touched, names_until) = (&mut replayed.touched, &mut replayed.names_until);
            let outcome = replay(scan, span, &mut |record| match record {
                Record::Inode { node, .. } if number >= linked => {
                    touched.insert(*node, span.before.sequence);
                }
                Record::Inode { .. } | Record::Dirent { .. } if number < linked => *names_until = span.after.sequence,
                _ => {}
            });
            if let Err(error) = outcome {
                let error = unless_newer(scan, error)?;
                replayed.faults.push(format!("{}: {error}", Replica::file_key(scan.kind, scan.start)));
            }
        }
        if linked < scan.spans.len() {
            // The chain cannot be continued across a gap.
            replayed.end = None;
        }
    }
    if applier.misfits() > 0 {
        replayed.faults.push(format!("{} records do not fit together", applier.misfits()));
    }
    applier.finish()?;
    database.run(|connection| connection.execute_batch("COMMIT"))?;
    Ok(replayed)
}

/// The root directory, where the journal did not say what it is.
pub(super) fn make_root(site: &Site, database: &Database) -> CatalogResult<()> {
    if database.node(ROOT)?.is_some() {
        return Ok(());
    }
    let now = site.archive.clock().now();
    let (user, group) = site.owner;
    let meta = NodeMeta {
        accessed: None,
        permissions: ROOT_PERMISSIONS,
        user,
        group,
        modified: now,
        changed: now,
        born: None,
        xattrs: Vec::new(),
    };
    let mut applier = Applier::new(database, false)?;
    applier.apply(&Record::Inode { node: ROOT as u64, meta, body: NodeBody::Directory })?;
    applier.finish()
}

/// Adds objects and names that the database does not have. Returns the
/// highest sequence number of any manifest.
fn add_objects(
    site: &Site,
    database: &Database,
    replayed: &Replayed,
    report: &mut RebuildReport,
) -> CatalogResult<u64> {
    let survey = ObjectSurvey::take(&site.archive, report)?;
    database.run(|connection| connection.execute_batch("BEGIN"))?;
    let mut applier = Applier::new(database, false)?;
    for (_, name) in &survey.order {
        survey.register(&site.archive, name, database, &mut applier, report)?;
    }
    applier.finish()?;
    let mut names = Names { database, now: site.archive.clock().now(), replayed, links: BTreeMap::new() };
    for (sequence, name) in &survey.order {
        names.add_object(*sequence, name, &mut survey.entries(&site.archive, name), report)?;
    }
    names.add_links(report)?;
    database.run(|connection| connection.execute_batch("COMMIT"))?;
    Ok(survey.order.last().map_or(0, |(sequence, _)| *sequence))
}

/// Puts names from manifests and bundles into the database, oldest first.
struct Names<'a> {
    database: &'a Database,
    now: Timestamp,
    replayed: &'a Replayed,
    /// Hard links wait until all nodes are there: by path, the target and its sequence.
    links: BTreeMap<EntryPath, (u64, EntryPath)>,
}

impl<'a> Names<'a> {
    fn add_object(
        &mut self,
        sequence: u64,
        object: &ObjectName,
        entries: &mut dyn Iterator<Item = Entry>,
        report: &mut RebuildReport,
    ) -> CatalogResult<()> {
        let mut change = Change::new(self.database, None, self.now)?;
        for entry in entries {
            let outcome = match entry {
                Entry::HardLink { path, target } => {
                    self.links.insert(path, (sequence, target));
                    continue;
                }
                Entry::Node { ref path, .. } => {
                    self.links.remove(path);
                    self.put(&mut change, sequence, &entry)
                }
            };
            if let Err(error) = outcome {
                report.skipped.push((format!("{} (in object {object})", entry.path()), error.to_string()));
            }
        }
        let summary = change.summary();
        report.names_restored += summary.created + summary.changed;
        change.finish().map(drop)
    }

    fn add_links(&mut self, report: &mut RebuildReport) -> CatalogResult<()> {
        let mut change = Change::new(self.database, None, self.now)?;
        for (path, (sequence, target)) in std::mem::take(&mut self.links) {
            let entry = Entry::HardLink { path, target };
            if let Err(error) = self.put(&mut change, sequence, &entry) {
                report.skipped.push((entry.path().to_string(), error.to_string()));
            }
        }
        let summary = change.summary();
        report.names_restored += summary.created + summary.changed;
        change.finish().map(drop)
    }

    /// Puts an entry unless the journal says something later about its path.
    fn put(&self, change: &mut Change<'a>, sequence: u64, entry: &Entry) -> CatalogResult<()> {
        let later = |ino: i64| match self.replayed.touched.get(&(ino as u64)) {
            Some(&touched) => touched >= sequence,
            None => sequence < self.replayed.names_until,
        };
        match self.database.resolve(entry.path())? {
            Some(ino) if later(ino) => Ok(()),
            _ => change.put(entry),
        }
    }
}
