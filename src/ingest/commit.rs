//! Stores files and trees. Contents become durable one after the other and
//! are recorded as such; the names appear all at once at the end. So whatever
//! ends a commit early, nothing of it is visible, and the next one skips what
//! is stored already.

use super::bundler::Bundler;
use super::report::{CommitReport, FileReport, Outcome, Reporter};
use super::source::{FileSource, body_of, changed, may_be_sparse, meta_of, modified, signature};
use super::spool::{EntrySpool, Spool};
use super::temporary::Spools;
use super::walk::{CommitItem, CommitSource, Excluded, Found, Walk, check_distinct, may_overlap};
use super::{IngestError, IngestResult, Problem};
use crate::archive::{Archive, ArchiveError, ContentSource, Depth, ObjectPlan, Verdict, WriteControl, WrittenObject};
use crate::base::{ContentHash, Digest, ObjectName};
use crate::catalog::{CatalogWrites, ContentPlace, Inode, NewMember, NewObject, SourceSignature};
use crate::format::{BundleBuilder, Entry, EntryPath, FileContent, NodeBody, NodeMeta, ObjectKind};
use crate::namespace::CompressionRules;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::Metadata;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How often a file that changes while it is read is read again.
const ATTEMPTS: usize = 3;
const CHUNK: usize = 1024 * 1024;
/// An entry with more attributes or extents than this stands in a bundle's
/// table and not in its object's manifest, which is meant to stay small.
const MAX_MANIFEST_ENTRY: usize = 64 * 1024;

/// What to commit.
pub struct CommitRequest<'a> {
    /// Files, trees and streams.
    pub items: Vec<CommitItem>,
    /// Directories that are not entered: the archive's own.
    pub exclude: Vec<PathBuf>,
    /// Set to stop between two files or two segments.
    pub cancel: &'a AtomicBool,
    /// Whether a verification found content of the object lost: such contents
    /// are stored anew where they are met.
    pub lost: &'a dyn Fn(&ObjectName) -> bool,
    /// With what contents are compressed.
    pub compression: &'a CompressionRules,
}

impl std::fmt::Debug for CommitRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CommitRequest")
            .field("items", &self.items)
            .field("exclude", &self.exclude)
            .finish_non_exhaustive()
    }
}

/// Commits. Files that cannot be read are reported and counted as failed; the
/// rest is committed. On error nothing of the commit is visible.
pub fn commit(
    archive: &Arc<Archive>,
    writer: &dyn CatalogWrites,
    request: CommitRequest<'_>,
    reporter: &dyn Reporter,
) -> IngestResult<CommitReport> {
    check_distinct(&request.items)?;
    let excluded = Excluded::new(&request.exclude);
    if reporter.wants_total() {
        let (files, bytes) = super::plan::count(&request.items, &excluded, request.cancel);
        reporter.total(files, bytes);
    }
    let progress = Progress { reporter, report: Cell::default() };
    run(archive, writer, request, &excluded, &progress).map_err(IngestError::of_commit)
}

fn run(
    archive: &Arc<Archive>,
    writer: &dyn CatalogWrites,
    request: CommitRequest<'_>,
    excluded: &Excluded,
    progress: &Progress<'_>,
) -> IngestResult<CommitReport> {
    let mut commit = Commit {
        archive,
        writer,
        progress,
        cancel: request.cancel,
        lost: request.lost,
        compression: request.compression,
        usable: RefCell::default(),
        bundler: Bundler::new(archive, writer, progress, request.compression),
        spool: EntrySpool::create(&Spools::of(archive)?)?,
        links: HashMap::new(),
        may_overlap: may_overlap(&request.items),
    };
    for item in request.items {
        commit.item(item, excluded)?;
    }
    commit.bundler.finish()?;
    commit.check_cancel()?;
    let mut report = progress.report.get();
    let spool = commit.spool;
    if spool.len() > 0 {
        report.summary = writer.commit_entries(&mut spool.into_entries()?)?;
    }
    Ok(report)
}

/// Counts and reports. Lives on the committing thread.
pub(super) struct Progress<'a> {
    reporter: &'a dyn Reporter,
    report: Cell<CommitReport>,
}

impl Progress<'_> {
    fn update(&self, change: impl FnOnce(&mut CommitReport)) {
        let mut report = self.report.get();
        change(&mut report);
        self.report.set(report);
    }

    /// A file is done.
    pub(super) fn file(&self, report: &FileReport) {
        self.update(|all| all.count(report));
        self.reporter.file(report);
    }

    /// An object is durable.
    pub(super) fn object(&self, written: &WrittenObject) {
        if written.replaced {
            self.reporter.object_replaced(&written.manifest.name);
        }
        if !written.already_there {
            self.update(|all| {
                all.objects += 1;
                all.stored_bytes += written.manifest.geometry().stored_len();
            });
        }
    }
}

/// The first name of a file with several.
struct FirstName {
    path: EntryPath,
    /// Whether this commit puts it into the namespace; otherwise it stands there just so.
    changes: bool,
    /// Names not met yet.
    left: u64,
}

struct Commit<'a> {
    archive: &'a Arc<Archive>,
    writer: &'a dyn CatalogWrites,
    progress: &'a Progress<'a>,
    cancel: &'a AtomicBool,
    lost: &'a dyn Fn(&ObjectName) -> bool,
    compression: &'a CompressionRules,
    /// Whether the content of an object (by its root) can be relied on, as far as was looked.
    usable: RefCell<HashMap<Digest, bool>>,
    bundler: Bundler<'a>,
    spool: EntrySpool,
    links: HashMap<(u64, u64), FirstName>,
    /// Whether a path may be met twice: then what stands at it now may not be
    /// what stands there before the later one.
    may_overlap: bool,
}

/// Why a file is not committed: the file's fault, or the end of all.
enum Halt {
    File(Problem),
    All(IngestError),
}

impl<E: Into<IngestError>> From<E> for Halt {
    fn from(error: E) -> Self {
        Self::All(error.into())
    }
}

impl From<Problem> for Halt {
    fn from(problem: Problem) -> Self {
        Self::File(problem)
    }
}

impl Commit<'_> {
    fn check_cancel(&self) -> IngestResult<()> {
        if self.cancel.load(Ordering::Relaxed) { Err(IngestError::Interrupted) } else { Ok(()) }
    }

    fn item(&mut self, item: CommitItem, excluded: &Excluded) -> IngestResult<()> {
        let origin = item.origin();
        let mut walk = match item.source {
            CommitSource::Stream(mut stream, meta) => return self.stream(&mut *stream, item.path, meta),
            CommitSource::Path(source) => Walk::new(source, item.path, excluded),
            CommitSource::Contents(source) => match Walk::contents(source, item.path.clone(), excluded) {
                Ok(walk) => walk,
                Err(problem) => {
                    self.failed(item.path, origin, problem);
                    return Ok(());
                }
            },
        };
        while let Some(Found { source, path, metadata }) = walk.next() {
            self.check_cancel()?;
            let outcome = match metadata {
                Err(problem) => Err(problem.into()),
                Ok(metadata) => self.node(&source, &path, &metadata).and_then(|()| {
                    if metadata.is_dir() { walk.enter(&source, &path).map_err(Halt::File) } else { Ok(()) }
                }),
            };
            match outcome {
                Ok(()) => {}
                Err(Halt::File(problem)) => self.failed(path, source, problem),
                Err(Halt::All(error)) => return Err(error),
            }
        }
        Ok(())
    }

    fn failed(&self, path: EntryPath, source: PathBuf, problem: Problem) {
        let outcome = Outcome::Failed(problem);
        self.progress.file(&FileReport { path, source, size: 0, tier: None, hash: None, outcome });
    }

    /// Commits what stands at one path.
    fn node(&mut self, source: &Path, path: &EntryPath, metadata: &Metadata) -> Result<(), Halt> {
        let linked = metadata.nlink() > 1 && !metadata.is_dir();
        let identity = (metadata.dev(), metadata.ino());
        if linked && self.further_name(path, identity)? {
            return Ok(());
        }
        let existing = self.writer.resolve(path)?;
        let changes = match body_of(source, metadata)? {
            Some(body) => {
                let entry = Entry::Node { path: path.clone(), meta: meta_of(source, metadata)?, body };
                let changes = self.put(&entry, existing.as_ref())?;
                self.progress.update(|report| report.others += 1);
                changes
            }
            None => self.file(source, path, metadata, existing.as_ref())?,
        };
        if linked {
            self.links.insert(identity, FirstName { path: path.clone(), changes, left: metadata.nlink() - 1 });
        }
        Ok(())
    }

    /// Commits a path as a hard link when another name of the same file was committed already.
    fn further_name(&mut self, path: &EntryPath, identity: (u64, u64)) -> Result<bool, Halt> {
        let Some(first) = self.links.get_mut(&identity) else { return Ok(false) };
        first.left = first.left.saturating_sub(1);
        let (target, changes, done) = (first.path.clone(), first.changes, first.left == 0);
        if done {
            self.links.remove(&identity);
        }
        let node = |inode: Option<Inode>| inode.map(|inode| inode.node);
        let stands =
            !self.may_overlap && !changes && node(self.writer.resolve(path)?) == node(self.writer.resolve(&target)?);
        if !stands {
            let entry = Entry::HardLink { path: path.clone(), target };
            self.bundler.add_row(&entry)?;
            self.spool.push(&entry)?;
        }
        self.progress.update(|report| report.others += 1);
        Ok(true)
    }

    /// Puts an entry whose content (if any) is stored apart from it into the
    /// namespace, unless it stands there just so. Returns whether it changes.
    fn put(&mut self, entry: &Entry, existing: Option<&Inode>) -> IngestResult<bool> {
        let stands = !self.may_overlap
            && matches!((entry, existing), (Entry::Node { meta, body, .. }, Some(inode))
                if inode.meta == *meta && inode.body == *body);
        if !stands {
            self.bundler.add_row(entry)?;
            self.spool.push(entry)?;
        }
        Ok(!stands)
    }

    /// Commits a regular file. Returns whether the namespace changes.
    fn file(
        &mut self,
        source: &Path,
        path: &EntryPath,
        metadata: &Metadata,
        existing: Option<&Inode>,
    ) -> Result<bool, Halt> {
        if let Some((content, tier)) = self.known_content(source, metadata, existing)? {
            let meta = meta_of(source, metadata)?;
            let report = file_report(path, source, &content, tier, Outcome::Unchanged);
            let entry = Entry::Node { path: path.clone(), meta, body: NodeBody::File(content) };
            let changes = self.put(&entry, existing)?;
            self.progress.reporter.advance(report.size);
            self.progress.file(&report);
            return Ok(changes);
        }
        for _ in 0..ATTEMPTS {
            self.check_cancel()?;
            let file = FileSource::open(source)?;
            let subject = Subject { source, path, meta: meta_of(source, file.metadata())?, existing };
            let rule = self.archive.descriptor().bundle;
            let committed = if file.is_empty() {
                self.empty_file(subject)?
            } else if file.len() <= rule.max_file && BundleBuilder::takes(&subject.entry(file.content(NO_HASH))) {
                self.small_file(subject, &file)?
            } else {
                self.large_file(subject, &file)?
            };
            if let Some(changes) = committed {
                return Ok(changes);
            }
        }
        Err(Problem::Changing.into())
    }

    /// The content of a file that was committed before and has not changed
    /// since, with the tier that holds it.
    fn known_content(
        &self,
        source: &Path,
        metadata: &Metadata,
        existing: Option<&Inode>,
    ) -> Result<Option<(FileContent, Option<u8>)>, Halt> {
        let size = metadata.size();
        let content = match existing {
            Some(Inode { meta, body: NodeBody::File(content), .. })
                if content.size == size && meta.modified == modified(metadata) && meta.changed == changed(metadata) =>
            {
                content.clone()
            }
            _ => match self.writer.seen(&signature(metadata))? {
                Some((hash, seen_size)) if seen_size == size => {
                    if may_be_sparse(metadata) {
                        let file = FileSource::open(source)?;
                        if signature(file.metadata()) != signature(metadata) {
                            return Ok(None);
                        }
                        file.content(hash)
                    } else {
                        FileContent { size, hash, extents: None }
                    }
                }
                _ => return Ok(None),
            },
        };
        if size == 0 {
            return Ok(Some((content, None)));
        }
        Ok(self.stored(&content.hash, size)?.map(|place| (content, Some(place.tier))))
    }

    /// Where a content lies, if its object is there and not known to be lost.
    fn stored(&self, hash: &ContentHash, size: u64) -> IngestResult<Option<ContentPlace>> {
        let Some(place) = self.writer.place(hash, size)? else { return Ok(None) };
        let known = self.usable.borrow().get(&place.object.root).copied();
        let usable = known.unwrap_or_else(|| {
            let health = self.archive.object_health(&place.object, Depth::Quick, &|_| {});
            let there = health.is_ok_and(|health| health.verdict != Verdict::Unrecoverable);
            there && !(self.lost)(&place.object.name)
        });
        if known.is_none() {
            self.usable.borrow_mut().insert(place.object.root, usable);
        }
        Ok(usable.then_some(place))
    }

    fn empty_file(&mut self, subject: Subject<'_>) -> Result<Option<bool>, Halt> {
        let content = FileContent::empty();
        let report = file_report(subject.path, subject.source, &content, None, Outcome::Stored);
        let changes = self.put(&subject.entry(content), subject.existing)?;
        self.progress.file(&report);
        Ok(Some(changes))
    }

    /// Puts a file into the open bundle. `None` when it changed meanwhile.
    fn small_file(&mut self, subject: Subject<'_>, file: &FileSource) -> Result<Option<bool>, Halt> {
        let data = match file.read_all() {
            Ok(data) => data,
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(Problem::local("read")(error).into()),
        };
        if !file.is_unchanged() {
            return Ok(None);
        }
        let hash = ContentHash::of(&data);
        let content = file.content(hash);
        let entry = subject.entry(content.clone());
        let report = |tier, outcome| file_report(subject.path, subject.source, &content, tier, outcome);
        self.progress.reporter.advance(content.size);
        if self.bundler.holds(&hash) {
            let changes = self.put(&entry, subject.existing)?;
            self.bundler.report_later(report(None, Outcome::Duplicate));
            return Ok(Some(changes));
        }
        if let Some(place) = self.stored(&hash, content.size)? {
            let changes = self.put(&entry, subject.existing)?;
            self.progress.file(&report(Some(place.tier), Outcome::Duplicate));
            return Ok(Some(changes));
        }
        let report = report(None, Outcome::Stored);
        self.bundler.add_file(&entry, &data, hash, signature(file.metadata()), report)?;
        self.spool.push(&entry)?;
        Ok(Some(true))
    }

    /// Stores a file as an object of its own. `None` when it changed meanwhile.
    fn large_file(&mut self, subject: Subject<'_>, file: &FileSource) -> Result<Option<bool>, Halt> {
        let size = file.len();
        if self.writer.has_size(size)? {
            let Some(hash) = self.hash(file)? else { return Ok(None) };
            if let Some(changes) = self.duplicate(&subject, file.content(hash))? {
                self.progress.reporter.advance(size);
                return Ok(Some(changes));
            }
        }
        let content = file.content(NO_HASH);
        match self.store_alone(subject, file, content, Some(signature(file.metadata()))) {
            Ok(()) => Ok(Some(true)),
            Err(IngestError::Archive(ArchiveError::SourceChanged)) => Ok(None),
            Err(IngestError::Archive(ArchiveError::Source(error))) => match error.kind() {
                std::io::ErrorKind::UnexpectedEof => Ok(None),
                _ => Err(Problem::local("read")(error).into()),
            },
            Err(IngestError::Archive(error @ ArchiveError::TooLarge { .. })) => Err(Problem::Content(error).into()),
            Err(error) => Err(error.into()),
        }
    }

    /// If the content is stored already, puts the name only.
    fn duplicate(&mut self, subject: &Subject<'_>, content: FileContent) -> IngestResult<Option<bool>> {
        let report = |tier| file_report(subject.path, subject.source, &content, tier, Outcome::Duplicate);
        let report = if let Some(place) = self.stored(&content.hash, content.size)? {
            report(Some(place.tier))
        } else if self.bundler.holds(&content.hash) {
            report(None)
        } else {
            return Ok(None);
        };
        let changes = self.put(&subject.entry(content), subject.existing)?;
        match report.tier {
            Some(_) => self.progress.file(&report),
            None => self.bundler.report_later(report),
        }
        Ok(Some(changes))
    }

    /// Stores a content as an object that carries the file's entry. The hash
    /// in `content` is not known yet.
    fn store_alone(
        &mut self,
        subject: Subject<'_>,
        bytes: &dyn ContentSource,
        content: FileContent,
        signature: Option<SourceSignature>,
    ) -> IngestResult<()> {
        // One object is written at a time, to bound memory.
        self.bundler.settle()?;
        let entry = subject.entry(content.clone());
        let mut encoded = Vec::new();
        entry.encode(&mut encoded);
        let plan = ObjectPlan {
            readable: subject.path.name().to_vec(),
            kind: ObjectKind::File,
            sequence: self.writer.sequence()?,
            entry: (encoded.len() <= MAX_MANIFEST_ENTRY).then_some(entry),
            compression: self.compression.choose(subject.path, bytes).map_err(ArchiveError::Source)?,
        };
        let reporter = self.progress.reporter;
        let control = WriteControl { progress: &|bytes| reporter.advance(bytes), cancel: self.cancel };
        let written = self.archive.write_object(bytes, &plan, &control)?;
        let manifest = &written.manifest;
        let hash = manifest.facts()?.key.hash;
        let member = NewMember { hash, offset: 0, size: content.size, source: signature };
        self.writer.add_object(&NewObject::new(manifest, vec![member])?)?;
        self.progress.object(&written);

        let content = FileContent { hash, ..content };
        let report =
            file_report(subject.path, subject.source, &content, Some(manifest.geometry().tier()), Outcome::Stored);
        let entry = subject.entry(content);
        if written.already_there || plan.entry.is_none() {
            self.bundler.add_row(&entry)?;
        }
        self.spool.push(&entry)?;
        self.progress.file(&report);
        Ok(())
    }

    /// BLAKE3 of a file; `None` when it changed meanwhile.
    fn hash(&self, file: &FileSource) -> Result<Option<ContentHash>, Halt> {
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; CHUNK];
        let mut at = 0;
        while at < file.len() {
            self.check_cancel()?;
            let len = (file.len() - at).min(CHUNK as u64) as usize;
            match file.read_at(at, &mut buffer[..len]) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
                Err(error) => return Err(Problem::local("read")(error).into()),
            }
            hasher.update(&buffer[..len]);
            at += len as u64;
        }
        Ok(file.is_unchanged().then(|| hasher.finalize().into()))
    }

    /// Commits a stream as one file.
    fn stream(&mut self, stream: &mut dyn Read, path: EntryPath, meta: NodeMeta) -> IngestResult<()> {
        let spool = Spool::fill(&Spools::of(self.archive)?, stream, self.cancel)?;
        let existing = self.writer.resolve(&path)?;
        let subject = Subject { source: Path::new("-"), path: &path, meta, existing: existing.as_ref() };
        let content = FileContent { size: spool.len(), hash: spool.hash(), extents: None };
        if spool.is_empty() {
            let report = file_report(&path, subject.source, &content, None, Outcome::Stored);
            self.put(&subject.entry(content), subject.existing)?;
            self.progress.file(&report);
            return Ok(());
        }
        if self.duplicate(&subject, content.clone())?.is_some() {
            return Ok(());
        }
        self.store_alone(subject, &spool, content, None)
    }
}

/// Stands for a hash that the archive computes while it writes.
const NO_HASH: ContentHash = ContentHash::new([0; 32]);

/// A file on its way.
struct Subject<'a> {
    source: &'a Path,
    path: &'a EntryPath,
    meta: NodeMeta,
    existing: Option<&'a Inode>,
}

impl Subject<'_> {
    fn entry(&self, content: FileContent) -> Entry {
        Entry::Node { path: self.path.clone(), meta: self.meta.clone(), body: NodeBody::File(content) }
    }
}

fn file_report(
    path: &EntryPath,
    source: &Path,
    content: &FileContent,
    tier: Option<u8>,
    outcome: Outcome,
) -> FileReport {
    FileReport {
        path: path.clone(),
        source: source.to_path_buf(),
        size: content.size,
        tier,
        hash: Some(content.hash),
        outcome,
    }
}
