//! The thread's work: round after round.
//!
//! Crash argument: an object is durable before the catalog knows it, known
//! before a file is switched to it, and the switch is one change of the
//! namespace that also says that the staging file is needed no more; that file
//! goes once the change is durable. A crash in between leaves the content in
//! staging, and an object that the next round finds by its hash.

use super::WritebackOptions;
use super::bundle::{InFlight, Member, OpenBundle};
use super::desk::{Desk, Outcome, Task};
use super::failures::Failures;
use super::pace::Pace;
use super::source::{FrozenSource, of_writing};
use crate::archive::{ArchiveError, Depth, Event, EventKind, ObjectPlan, Verdict, WriteControl, WrittenObject};
use crate::base::{ContentHash, Digest};
use crate::catalog::{ContentPlace, NewMember, NewObject};
use crate::format::{BundleBuilder, Entry, FileContent, FormatError, NodeBody, ObjectKind};
use crate::namespace::CompressionRules;
use crate::vfs::live::file::LiveFile;
use crate::vfs::live::moment;
use crate::vfs::live::switch::{Frozen, Origin, Switched};
use crate::vfs::{LiveVfs, error, lock};
use blockframe_api::{ErrorClass, Node, VfsError, VfsResult};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long a store that is full is left alone.
const FULL_REST: Duration = Duration::from_secs(30);
/// An entry with more attributes or extents than this does not stand in its
/// object's manifest, which is meant to stay small.
const MAX_MANIFEST_ENTRY: usize = 64 * 1024;
/// Stands for a hash that the archive computes while it writes.
const NO_HASH: ContentHash = ContentHash::new([0; 32]);

/// What the thread keeps from round to round.
pub(super) struct Worker {
    desk: Arc<Desk>,
    pace: Arc<Pace>,
    options: WritebackOptions,
    compression: Arc<CompressionRules>,
    open: OpenBundle,
    in_flight: Option<InFlight>,
    failures: Failures,
    full_until: Option<Instant>,
    /// Whether the content of an object (by its root) can be relied on, as far as was looked in this round.
    usable: HashMap<Digest, bool>,
}

/// A file on its way.
struct Subject {
    origin: Origin,
    source: FrozenSource,
    entry: Entry,
    path: String,
}

/// The files of a round, and when there are more.
struct Candidates {
    files: Vec<Arc<LiveFile>>,
    next: Option<Instant>,
}

fn earlier(one: Option<Instant>, other: Instant) -> Option<Instant> {
    Some(one.map_or(other, |one| one.min(other)))
}

impl Worker {
    pub(super) fn new(
        desk: Arc<Desk>,
        pace: Arc<Pace>,
        options: WritebackOptions,
        compression: Arc<CompressionRules>,
    ) -> Self {
        Self {
            desk,
            pace,
            options,
            compression,
            open: OpenBundle::default(),
            in_flight: None,
            failures: Failures::default(),
            full_until: None,
            usable: HashMap::new(),
        }
    }

    /// Does what the task says, and tells when there is something to do without a task.
    pub(super) fn round(&mut self, vfs: &LiveVfs, task: &Task) -> Option<Instant> {
        self.usable.clear();
        let Candidates { files, mut next } = self.candidates(vfs, task);
        if !files.is_empty() {
            self.pace.begin();
            if let Err(error) = self.commit_files(vfs, &files, task) {
                next = earlier(
                    next,
                    moment() + if error.class() == ErrorClass::NoSpace { FULL_REST } else { self.options.delay },
                );
                self.desk.fail_all(&error);
            } else if matches!(task, Task::Due) && self.desk.is_wanted_elsewhere(true) {
                next = Some(moment());
            }
        }
        let gathered = self.open.since().is_some_and(|since| moment() >= since + self.options.gather);
        if gathered || !matches!(task, Task::Due) {
            self.close_bundle(vfs);
        }
        self.settle(vfs);
        *lock(&self.desk.current) = None;
        match self.open.since() {
            Some(since) => earlier(next, since + self.options.gather),
            None => next,
        }
    }

    fn candidates(&mut self, vfs: &LiveVfs, task: &Task) -> Candidates {
        let now = moment();
        let mut due: Vec<(Instant, Arc<LiveFile>)> = Vec::new();
        let mut next = None;
        let mut staged = vfs.files.all_staged();
        staged.retain(|file| !file.content().is_committed());
        if !self.failures.is_empty() && self.failures.keep(&staged.iter().map(|file| file.node()).collect()) {
            *lock(&self.desk.failing) = self.failures.nodes();
        }
        for file in staged {
            if let Task::Wanted(wanted) = task {
                if wanted.contains(&file.node()) {
                    due.push((now, file));
                }
                continue;
            }
            let (writers, closed, lost) = {
                let times = file.times();
                (times.writers, times.closed.unwrap_or(now), times.lost.is_some())
            };
            if writers > 0 || lost {
                continue;
            }
            let delay = if matches!(task, Task::Everything) { Duration::ZERO } else { self.options.delay };
            let after_failure = self.failures.until(file.node()).into_iter().chain(self.full_until);
            let at = after_failure.fold(closed + delay, Instant::max);
            if at <= now {
                due.push((closed, file));
            } else {
                next = earlier(next, at);
            }
        }
        due.sort_by_key(|(closed, file)| (*closed, file.node().number()));
        let mut files: Vec<_> = due.into_iter().map(|(_, file)| file).collect();
        files.dedup_by_key(|file| file.node());
        if let Task::Wanted(wanted) = task {
            // What was removed or committed meanwhile is done.
            let found: HashSet<Node> = files.iter().map(|file| file.node()).collect();
            wanted.difference(&found).for_each(|node| self.desk.report(*node, &Outcome::Done));
        }
        Candidates { files, next }
    }

    /// Commits file after file. Error: nothing further can be done now.
    fn commit_files(&mut self, vfs: &LiveVfs, files: &[Arc<LiveFile>], task: &Task) -> VfsResult<()> {
        if matches!(task, Task::Wanted(_)) {
            for file in files {
                // What cannot be published cannot be frozen either, and that is told.
                let _ = vfs.publish_for_commit(file);
            }
        }
        // From now on the catalog tells their names.
        vfs.namespace.flush().map_err(|error| error::of_namespace(&error))?;
        for file in files {
            if self.desk.is_wanted_elsewhere(matches!(task, Task::Due)) {
                break;
            }
            match self.commit_file(vfs, file) {
                Ok(()) => {}
                Err(error) => {
                    self.failed(vfs, file.node(), &error);
                    if error.class() == ErrorClass::NoSpace {
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    fn commit_file(&mut self, vfs: &LiveVfs, file: &Arc<LiveFile>) -> VfsResult<()> {
        self.desk.go_on()?;
        let Some(subject) = self.subject(vfs, file)? else {
            self.desk.report(file.node(), &Outcome::Done);
            return Ok(());
        };
        if self.open.has(&subject.origin) {
            return Ok(());
        }
        *lock(&self.desk.current) = Some(subject.path.clone());
        let content = subject.source.content(NO_HASH);
        let rule = vfs.archive.descriptor().bundle;
        if content.size == 0 {
            self.switch(vfs, &subject.origin, &FileContent::empty())
        } else if content.size <= rule.max_file && BundleBuilder::takes(&subject.entry) {
            self.small_file(vfs, subject)
        } else {
            self.large_file(vfs, subject)
        }
    }

    /// The published state of a file that has a name.
    fn subject(&self, vfs: &LiveVfs, file: &Arc<LiveFile>) -> VfsResult<Option<Subject>> {
        let Some(Frozen { origin, content, base }) = vfs.freeze(file)? else { return Ok(None) };
        let catalog = vfs.namespace.catalog();
        let paths = catalog.paths_of(file.node()).map_err(|error| error::of_catalog(&error))?;
        let inode = vfs.namespace.inode(file.node()).map_err(|error| error::of_namespace(&error))?;
        let (Some(path), Some(inode)) = (paths.into_iter().next(), inode) else { return Ok(None) };
        let shown = path.to_string();
        let source = FrozenSource::open(&vfs.archive, catalog, content, &base, &shown)?;
        let body = NodeBody::File(source.content(NO_HASH));
        let entry = Entry::Node { path, meta: inode.meta.clone(), body };
        Ok(Some(Subject { origin, source, entry, path: shown }))
    }

    /// Puts a file into the open bundle, unless its content is stored already.
    fn small_file(&mut self, vfs: &LiveVfs, subject: Subject) -> VfsResult<()> {
        let data = subject.source.read_all()?;
        let content = subject.source.content(ContentHash::of(&data));
        if self.stored(vfs, &content.hash, content.size)? {
            return self.switch(vfs, &subject.origin, &content);
        }
        let entry = with_content(subject.entry, &content);
        if !self.open.has_room(&entry, vfs.archive.descriptor().bundle.target) {
            self.close_bundle(vfs);
        }
        let member = Member { origin: subject.origin, content };
        let added = self.open.add(member, &entry, &data, moment());
        added.map_err(|error| VfsError::new(ErrorClass::Internal, error.to_string()))
    }

    /// Stores a file as an object of its own, unless its content is stored already.
    fn large_file(&mut self, vfs: &LiveVfs, subject: Subject) -> VfsResult<()> {
        // One object is written at a time, to bound memory.
        self.settle(vfs);
        let Subject { origin, source, entry, .. } = subject;
        let content = source.content(NO_HASH);
        // Of an edited file little is read; its hash alone would need all of it.
        let may_be_stored = source.difference().is_none()
            && vfs.namespace.catalog().has_size(content.size).map_err(|error| error::of_catalog(&error))?;
        if may_be_stored {
            let hash = source.hash(&|| self.desk.go_on())?;
            if self.stored(vfs, &hash, content.size)? {
                return self.switch(vfs, &origin, &FileContent { hash, ..content });
            }
        }
        let mut encoded = Vec::new();
        entry.encode(&mut encoded);
        let compression =
            self.compression.choose(entry.path(), &source).map_err(|error| of_writing(ArchiveError::Source(error)))?;
        let plan = ObjectPlan {
            readable: entry.path().name().to_vec(),
            kind: ObjectKind::File,
            sequence: vfs.namespace.sequence(),
            entry: (encoded.len() <= MAX_MANIFEST_ENTRY).then_some(entry),
            compression,
        };
        let (desk, pace) = (&self.desk, &self.pace);
        desk.bytes_of_current.store(0, Ordering::Relaxed);
        let progress = |bytes| {
            desk.bytes_of_current.fetch_add(bytes, Ordering::Relaxed);
            pace.column(desk);
        };
        let control = WriteControl { progress: &progress, cancel: &desk.cancel };
        let written = store_content(vfs, &source, &plan, &control)?;
        desk.bytes_of_current.store(0, Ordering::Relaxed);
        let of_object = |error: FormatError| error::of_commit(&error.into());
        let hash = written.manifest.facts().map_err(of_object)?.key.hash;
        let member = NewMember { hash, offset: 0, size: content.size, source: None };
        self.record(vfs, &NewObject::new(&written.manifest, vec![member]).map_err(of_object)?)?;
        // The staging file goes with the last who holds it.
        drop(source);
        self.switch(vfs, &origin, &FileContent { hash, ..content })
    }

    fn record(&mut self, vfs: &LiveVfs, object: &NewObject) -> VfsResult<()> {
        vfs.namespace.add_object(object).map_err(|error| error::of_namespace(&error))?;
        self.full_until = None;
        if self.desk.is_full.swap(false, Ordering::Relaxed) {
            tracing::info!("the store has room again; staged files are being committed");
        }
        Ok(())
    }

    /// Whether a content lies in an object that is there, and not known to be lost.
    fn stored(&mut self, vfs: &LiveVfs, hash: &ContentHash, size: u64) -> VfsResult<bool> {
        let place = vfs.namespace.catalog().place(hash, size).map_err(|error| error::of_catalog(&error))?;
        let Some(ContentPlace { object, .. }) = place else { return Ok(false) };
        let look = || {
            let health = vfs.archive.object_health(&object, Depth::Quick, &|_| {});
            let is_there = health.is_ok_and(|health| health.verdict != Verdict::Unrecoverable);
            is_there && !matches!(vfs.health.verified(&object.name), Some((_, Verdict::Unrecoverable)))
        };
        Ok(*self.usable.entry(object.root).or_insert_with(look))
    }

    /// The object that holds `content` is recorded: the file is switched to it.
    fn switch(&mut self, vfs: &LiveVfs, origin: &Origin, content: &FileContent) -> VfsResult<()> {
        let node = origin.file.node();
        let outcome = match vfs.switch(origin, content)? {
            Switched::Done => {
                self.desk.files_done.fetch_add(1, Ordering::Relaxed);
                self.desk.bytes_done.fetch_add(content.size, Ordering::Relaxed);
                Outcome::Done
            }
            Switched::Gone => Outcome::Done,
            Switched::Newer => Outcome::Newer { open: origin.file.times().writers > 0 },
            Switched::Missing => {
                let why = "the object that held the content was removed meanwhile; it is written again";
                return Err(VfsError::new(ErrorClass::Busy, why));
            }
        };
        if self.failures.remove(node) {
            lock(&self.desk.failing).remove(&node);
        }
        self.desk.report(node, &outcome);
        Ok(())
    }

    /// Starts writing the open bundle, once the one before is done.
    fn close_bundle(&mut self, vfs: &LiveVfs) {
        self.settle(vfs);
        if self.open.is_empty() {
            return;
        }
        let bundle = std::mem::take(&mut self.open);
        let started = InFlight::start(
            &vfs.archive,
            bundle,
            vfs.namespace.sequence(),
            &self.compression,
            (&self.pace, &self.desk),
        );
        match started {
            Ok(in_flight) => self.in_flight = Some(in_flight),
            Err((error, files)) => self.all_failed(vfs, &files, &of_writing(error)),
        }
    }

    /// Waits for the bundle that is being written, records it, and switches its files.
    fn settle(&mut self, vfs: &LiveVfs) {
        let Some(in_flight) = self.in_flight.take() else { return };
        let (written, files) = in_flight.finish();
        let recorded = written.map_err(of_writing).and_then(|(_, object)| self.record(vfs, &object));
        if let Err(error) = recorded {
            return self.all_failed(vfs, &files, &error);
        }
        for file in &files {
            if let Err(error) = self.switch(vfs, &file.origin, &file.content) {
                self.failed(vfs, file.origin.file.node(), &error);
            }
        }
    }

    fn all_failed(&mut self, vfs: &LiveVfs, files: &[Member], error: &VfsError) {
        for file in files {
            self.failed(vfs, file.origin.file.node(), error);
        }
    }

    /// A file stays in staging, and is tried again later.
    fn failed(&mut self, vfs: &LiveVfs, node: Node, error: &VfsError) {
        self.desk.report(node, &Outcome::Failed(error.clone()));
        let now = moment();
        match error.class() {
            // It was ended, not failed.
            ErrorClass::Interrupted => {}
            ErrorClass::NoSpace => {
                self.full_until = Some(now + FULL_REST);
                if !self.desk.is_full.swap(true, Ordering::Relaxed) {
                    let what = format!("the store has no room for what was written ({error}); it stays in staging");
                    tell(vfs, EventKind::StoreSuspect, vfs.archive.store().label().to_string(), what);
                }
            }
            class => {
                if self.failures.add(node, now) {
                    lock(&self.desk.failing).insert(node);
                    let what = format!("cannot be committed, and stays in staging: {error}");
                    let kind = match class {
                        ErrorClass::Unrecoverable | ErrorClass::Damaged => EventKind::Lost,
                        _ => EventKind::StoreSuspect,
                    };
                    tell(vfs, kind, vfs.path(node), what);
                }
            }
        }
    }
}

fn tell(vfs: &LiveVfs, kind: EventKind, file: String, what: String) {
    tracing::error!("{file}: {what}");
    vfs.archive.events().record(Event::new(vfs.namespace.now(), kind, file, what));
}

fn with_content(entry: Entry, content: &FileContent) -> Entry {
    match entry {
        Entry::Node { path, meta, .. } => Entry::Node { path, meta, body: NodeBody::File(content.clone()) },
        other => other,
    }
}

/// Writes a content as an object, sharing what it can with the one below.
fn store_content(
    vfs: &LiveVfs,
    source: &FrozenSource,
    plan: &ObjectPlan,
    control: &WriteControl<'_>,
) -> VfsResult<WrittenObject> {
    let written = match source.difference() {
        Some((base, changed)) => vfs.archive.rewrite_object(base, source, &changed, plan, control),
        None => vfs.archive.write_object(source, plan, control),
    };
    written.map_err(of_writing)
}
