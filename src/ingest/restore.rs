//! Puts files and trees back on the machine. Each file is written under a
//! temporary name and renamed, so that whatever has its final name is whole;
//! run again, it skips what is there already.

use super::restore_node::{Applied, Restorer};
use super::{IngestError, IngestResult, Problem};
use crate::archive::Archive;
use crate::base::{ErrorClass, Timestamp};
use crate::catalog::{Catalog, Inode};
use crate::format::{EntryPath, NodeBody};
use blockframe_api::Node;
use std::collections::{HashMap, VecDeque};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Entries of a directory that are looked up at once.
const PAGE: usize = 1024;

/// What to restore, and where.
#[derive(Debug)]
pub struct RestoreRequest<'a> {
    /// Files and trees of the archive.
    pub paths: Vec<EntryPath>,
    /// A directory that gets them under their base names; it is made when it
    /// is missing. A single path that is no directory becomes this very path
    /// unless a directory stands there.
    pub destination: PathBuf,
    /// As they were then; `None`: as they are.
    pub at: Option<Timestamp>,
    /// Set to stop between two files or two steps of a file.
    pub cancel: &'a AtomicBool,
}

/// What became of one entry.
#[derive(Debug)]
pub enum RestoreOutcome {
    /// It was written.
    Written,
    /// A file with this very content was there.
    AlreadyThere,
    /// It was not restored.
    Failed(Problem),
}

/// One entry, done.
#[derive(Debug)]
pub struct Restored {
    /// Its path in the archive.
    pub path: EntryPath,
    /// Its path on the machine.
    pub target: PathBuf,
    /// Length of a regular file's content, bytes; 0 for other kinds.
    pub size: u64,
    /// What became of it.
    pub outcome: RestoreOutcome,
}

/// Follows a restore.
pub trait RestoreReporter: Sync {
    /// So many more bytes of contents are done.
    fn advance(&self, _bytes: u64) {}

    /// An entry is done.
    fn entry(&self, _restored: &Restored) {}
}

/// Tells nobody.
impl RestoreReporter for () {}

/// What a restore did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RestoreReport {
    /// Entries written.
    pub written: u64,
    /// Files that were there already.
    pub already_there: u64,
    /// Entries not restored; each was reported.
    pub failed: u64,
    /// Bytes of the files written.
    pub bytes: u64,
    /// Owners and extended attributes that this user or that filesystem cannot set.
    pub attributes_refused: u64,
}

/// Restores. What cannot be restored is reported and counted; the rest is
/// restored.
///
/// Errors: a path is not in the archive, the destination cannot be used or is
/// full, the user stopped it.
pub fn restore(
    archive: &Archive,
    catalog: &Catalog,
    request: &RestoreRequest<'_>,
    reporter: &dyn RestoreReporter,
) -> IngestResult<RestoreReport> {
    let roots = resolve_roots(catalog, request)?;
    let mut run = Run {
        catalog,
        at: request.at,
        reporter,
        cancel: request.cancel,
        restorer: Restorer::new(archive, catalog, reporter, request.cancel),
        links: HashMap::new(),
        report: RestoreReport::default(),
    };
    for root in roots {
        run.tree(root)?;
    }
    Ok(run.report)
}

/// Something to restore, and where to.
struct Job {
    path: EntryPath,
    inode: Inode,
    target: PathBuf,
}

fn resolve_roots(catalog: &Catalog, request: &RestoreRequest<'_>) -> IngestResult<Vec<Job>> {
    let mut roots: Vec<Job> = Vec::new();
    for path in &request.paths {
        let found = match request.at {
            Some(at) => catalog.resolve_at(path, at)?,
            None => catalog.resolve(path)?,
        };
        let inode = found.ok_or_else(|| IngestError::NotFound { path: path.clone() })?;
        roots.push(Job { path: path.clone(), inode, target: request.destination.clone() });
    }
    if let [only] = &roots[..]
        && !only.inode.is_directory()
        && !request.destination.is_dir()
        && !request.destination.as_os_str().as_bytes().ends_with(b"/")
    {
        return Ok(roots);
    }
    let mut names: HashMap<Vec<u8>, EntryPath> = HashMap::new();
    for root in roots.iter_mut().filter(|root| !root.path.is_root()) {
        let name = root.path.name().to_vec();
        root.target.push(OsStr::from_bytes(&name));
        if let Some(other) = names.insert(name, root.path.clone()) {
            return Err(IngestError::SameDestination {
                path: EntryPath::new(root.path.name())?,
                first: other.to_string().into(),
                second: root.path.to_string().into(),
            });
        }
    }
    std::fs::create_dir_all(&request.destination).map_err(|source| IngestError::Local {
        operation: "make the directory",
        path: request.destination.clone(),
        source,
    })?;
    Ok(roots)
}

struct Run<'a> {
    catalog: &'a Catalog,
    at: Option<Timestamp>,
    reporter: &'a dyn RestoreReporter,
    cancel: &'a AtomicBool,
    restorer: Restorer<'a>,
    /// Where the first name of a node with several went, and how many names are left.
    links: HashMap<Node, (PathBuf, u32)>,
    report: RestoreReport,
}

/// A directory whose entries are being restored.
struct Level {
    job: Job,
    page: VecDeque<(Vec<u8>, Inode)>,
    after: Option<Vec<u8>>,
    complete: bool,
}

/// An entry that cannot be restored.
struct Failed {
    path: EntryPath,
    target: PathBuf,
    problem: Problem,
}

impl Run<'_> {
    fn tree(&mut self, root: Job) -> IngestResult<()> {
        let mut levels = Vec::new();
        levels.extend(self.start(root)?);
        while let Some(level) = levels.last_mut() {
            if self.cancel.load(Ordering::Relaxed) {
                return Err(IngestError::Interrupted);
            }
            match self.next_of(level)? {
                Some(Ok(job)) => levels.extend(self.start(job)?),
                Some(Err(Failed { path, target, problem })) => self.failed(path, target, problem)?,
                None => {
                    // Times last: what is written below changes them.
                    if let Some(level) = levels.pop() {
                        let applied = self.restorer.attributes(&level.job.target, &level.job.inode);
                        self.finish(level.job, applied.map(Applied::Written))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Restores one entry, or opens a directory.
    fn start(&mut self, job: Job) -> IngestResult<Option<Level>> {
        if job.inode.is_directory() {
            return match self.restorer.directory(&job.target) {
                Ok(()) => Ok(Some(Level { job, page: VecDeque::new(), after: None, complete: false })),
                Err(problem) => self.failed(job.path, job.target, problem).map(|()| None),
            };
        }
        let linked = job.inode.links > 1;
        let applied = match self.links.get_mut(&job.inode.node).filter(|_| linked) {
            Some((first, left)) => {
                let applied = self.restorer.link(first, &job.target).map(|()| Applied::Written(0));
                *left = left.saturating_sub(1);
                if *left == 0 {
                    self.links.remove(&job.inode.node);
                }
                applied
            }
            None => self.restorer.node(&job.path, &job.target, &job.inode),
        };
        if linked && applied.is_ok() {
            let left = job.inode.links - 1;
            self.links.entry(job.inode.node).or_insert_with(|| (job.target.clone(), left));
        }
        self.finish(job, applied)?;
        Ok(None)
    }

    /// The next entry of a directory, or why it cannot be restored.
    fn next_of(&self, level: &mut Level) -> IngestResult<Option<Result<Job, Failed>>> {
        if level.page.is_empty() && !level.complete {
            let page = &mut level.page;
            let (directory, after) = (level.job.inode.node, level.after.as_deref());
            let mut take = |name: &[u8], inode| {
                page.push_back((name.to_vec(), inode));
                page.len() < PAGE
            };
            match self.at {
                Some(at) => self.catalog.list_at(directory, after, at, &mut take)?,
                None => self.catalog.list(directory, after, &mut take)?,
            }
            level.complete = page.len() < PAGE;
            level.after = page.back().map(|(name, _)| name.clone());
        }
        let Some((name, inode)) = level.page.pop_front() else { return Ok(None) };
        let target = level.job.target.join(OsStr::from_bytes(&name));
        Ok(Some(match level.job.path.join(&name) {
            Ok(path) => Ok(Job { path, inode, target }),
            Err(error) => Err(Failed { path: level.job.path.clone(), target, problem: Problem::Name(error) }),
        }))
    }

    fn finish(&mut self, job: Job, applied: Result<Applied, Problem>) -> IngestResult<()> {
        let size = match &job.inode.body {
            NodeBody::File(content) => content.size,
            _ => 0,
        };
        let outcome = match applied {
            Err(problem) => return self.failed(job.path, job.target, problem),
            Ok(Applied::Written(refused)) => {
                self.report.written += 1;
                self.report.bytes += size;
                self.report.attributes_refused += refused;
                RestoreOutcome::Written
            }
            Ok(Applied::AlreadyThere(refused)) => {
                self.report.already_there += 1;
                self.report.attributes_refused += refused;
                RestoreOutcome::AlreadyThere
            }
        };
        self.reporter.entry(&Restored { path: job.path, target: job.target, size, outcome });
        Ok(())
    }

    /// Reports what failed; a full disk or an interrupt ends everything.
    fn failed(&mut self, path: EntryPath, target: PathBuf, problem: Problem) -> IngestResult<()> {
        match problem {
            Problem::Local { operation, source } if Problem::is_full(&source) => {
                return Err(IngestError::Local { operation, path: target, source });
            }
            Problem::Content(error) if error.class() == ErrorClass::Interrupted => {
                return Err(IngestError::Interrupted);
            }
            _ => {}
        }
        self.report.failed += 1;
        let outcome = RestoreOutcome::Failed(problem);
        self.reporter.entry(&Restored { path, target, size: 0, outcome });
        Ok(())
    }
}

/// The directory that holds a path on the machine.
pub(super) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
