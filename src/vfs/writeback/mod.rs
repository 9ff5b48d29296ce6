//! Commits staged content as objects, in the background: small files in
//! bundles, large ones each as an object. Then the file is switched from
//! staging to the object.
//!
//! A file is committed some time after its last writer has closed it, sooner
//! when somebody waits for it or when staging is full. What is changed while
//! it is committed stays in staging, and is committed again.

mod bundle;
mod desk;
mod failures;
mod leftovers;
mod pace;
mod source;
mod worker;

pub use leftovers::{drain_leftovers, has_leftovers};

use super::live::moment;
use super::{Drain, LiveVfs, error, lock};
use crate::format::EntryPath;
use crate::namespace::CompressionRules;
use blockframe_api::{ErrorClass, Node, VfsError, VfsResult};
use desk::{Desk, Wanted};
use pace::Pace;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::Duration;
use worker::Worker;

/// Priority of the write-back, as nice(1) counts.
const NICE: i32 = 10;
/// Least time between two rounds that nobody waits for.
const BETWEEN_ROUNDS: Duration = Duration::from_millis(500);

/// When and how files are committed.
#[derive(Debug, Clone)]
pub struct WritebackOptions {
    /// How long a file rests after its last writer has closed it.
    pub delay: Duration,
    /// How long small files wait for others, to fill a bundle.
    pub gather: Duration,
    /// With what contents are compressed. None: as the archive was made.
    pub compression: Option<Arc<CompressionRules>>,
}

impl Default for WritebackOptions {
    fn default() -> Self {
        Self { delay: Duration::from_secs(2), gather: Duration::from_secs(5), compression: None }
    }
}

/// How far a drain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DrainProgress {
    /// Files that are still to be committed.
    pub files_left: u64,
    /// Bytes of those.
    pub bytes_left: u64,
}

/// What the write-back is doing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WritebackStatus {
    /// Files whose newest content lies in staging.
    pub files: u64,
    /// Bytes in staging.
    pub bytes: u64,
    /// How long the file that was closed first has been waiting.
    pub oldest: Option<Duration>,
    /// Files committed since the start.
    pub files_committed: u64,
    /// Bytes of those.
    pub bytes_committed: u64,
    /// The file that is being committed.
    pub current: Option<String>,
    /// Bytes of it that are done, where it is large.
    pub current_bytes: u64,
    /// The store had no room for the last object; it is tried again.
    pub store_is_full: bool,
    /// Files that could not be committed when it was tried last.
    pub failing: u64,
}

/// The write-back of one mounted archive. To be stopped before the filesystem
/// is dropped; dropping it stops it too.
pub struct Writeback {
    vfs: Weak<LiveVfs>,
    desk: Arc<Desk>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Writeback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writeback").finish_non_exhaustive()
    }
}

/// While this is held no object is written.
#[derive(Debug)]
pub struct Rest(Arc<Desk>);

impl Drop for Rest {
    fn drop(&mut self) {
        self.0.go_to_work();
    }
}

impl Writeback {
    /// Starts the thread, and makes it the filesystem's [`Drain`].
    pub fn start(vfs: &Arc<LiveVfs>, options: WritebackOptions) -> VfsResult<Arc<Self>> {
        let desk = Arc::new(Desk::default());
        let pace = Arc::new(Pace::new(Arc::clone(vfs.load())));
        let default = vfs.archive.descriptor().compression;
        let rules = options.compression.clone();
        let rules = rules.unwrap_or_else(|| Arc::new(CompressionRules::by_default(default)));
        let worker = Worker::new(Arc::clone(&desk), pace, options.clone(), rules);
        let (of, at) = (Arc::downgrade(vfs), Arc::clone(&desk));
        let thread =
            std::thread::Builder::new().name("write-back".into()).spawn(move || run(&of, &at, worker, options));
        let failed = |cause| VfsError::new(ErrorClass::Unavailable, format!("cannot start the write-back: {cause}"));
        let thread = Mutex::new(Some(thread.map_err(failed)?));
        let writeback = Arc::new(Self { vfs: Arc::downgrade(vfs), desk, thread });
        vfs.set_drain(Arc::clone(&writeback) as Arc<dyn Drain>);
        Ok(writeback)
    }

    fn vfs(&self) -> VfsResult<Arc<LiveVfs>> {
        self.vfs.upgrade().ok_or_else(|| VfsError::new(ErrorClass::Unavailable, "the filesystem is gone"))
    }

    /// Commits what is staged at this moment (with `below`: at or below that
    /// path), and returns when that is done. Files that are open for writing
    /// are published and committed too, if nobody writes to them meanwhile;
    /// those that the kernel writes by itself are left out. Calls `progress`
    /// about twice a second; when that returns false nobody waits any more.
    ///
    /// Errors: the first that there was, once all files were tried;
    /// `Interrupted` when it was stopped or nobody waits.
    pub fn drain(&self, below: Option<&EntryPath>, progress: &mut dyn FnMut(DrainProgress) -> bool) -> VfsResult<()> {
        let vfs = self.vfs()?;
        let mut published = Ok(());
        let mut todo = HashMap::new();
        for file in vfs.files.all_staged() {
            published = published.and(vfs.publish_for_commit(&file));
            if let Some(staged) = file.staged()
                && !staged.is_passthrough()
            {
                todo.insert(file.node(), Wanted::new(staged.size()));
            }
        }
        if let Some(below) = below.filter(|below| !below.is_root()) {
            vfs.namespace.flush().map_err(|error| error::of_namespace(&error))?;
            let catalog = vfs.namespace.catalog();
            let mut inside = HashMap::new();
            for (node, wanted) in todo {
                let paths = catalog.paths_of(node).map_err(|error| error::of_catalog(&error))?;
                if paths.iter().any(|path| is_below(path, below)) {
                    inside.insert(node, wanted);
                }
            }
            todo = inside;
        }
        drop(vfs);
        self.desk.see_to(todo, progress)?;
        published
    }

    /// What it is doing.
    pub fn status(&self) -> WritebackStatus {
        let mut status = WritebackStatus {
            files_committed: self.desk.files_done.load(Ordering::Relaxed),
            bytes_committed: self.desk.bytes_done.load(Ordering::Relaxed),
            current: lock(&self.desk.current).clone(),
            current_bytes: self.desk.bytes_of_current.load(Ordering::Relaxed),
            store_is_full: self.desk.is_full.load(Ordering::Relaxed),
            failing: lock(&self.desk.failing).len() as u64,
            ..WritebackStatus::default()
        };
        let Some(vfs) = self.vfs.upgrade() else { return status };
        let mut oldest = None;
        for file in vfs.files.all_staged() {
            if file.content().is_committed() {
                continue;
            }
            status.files += 1;
            let times = file.times();
            if let Some(closed) = times.closed.filter(|_| times.writers == 0) {
                oldest = Some(oldest.map_or(closed, |oldest: std::time::Instant| oldest.min(closed)));
            }
        }
        status.bytes = vfs.staging.usage().bytes;
        status.oldest = oldest.map(|oldest| moment().saturating_duration_since(oldest));
        status
    }

    /// Waits until all objects that were written are recorded; none is written
    /// until the guard is dropped. For whoever removes objects and temporary files.
    pub fn rest(&self) -> Rest {
        self.desk.rest();
        Rest(Arc::clone(&self.desk))
    }

    /// Ends the thread. The object that is being written is given up; its
    /// content stays in staging.
    pub fn stop(&self) {
        self.desk.end();
        let Some(thread) = lock(&self.thread).take() else { return };
        // The thread may hold the filesystem, and with it this, last.
        if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
            tracing::error!("the write-back has panicked");
        }
    }
}

impl Drop for Writeback {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Drain for Writeback {
    fn closed(&self) {
        self.desk.notice();
    }

    fn commit(&self, node: Node) -> VfsResult<()> {
        let size = self.vfs()?.files.get(node).map_or(0, |file| file.content().size());
        self.desk.see_to(HashMap::from([(node, Wanted::new(size))]), &mut |_| true)
    }

    fn can_drain(&self) -> bool {
        let Some(vfs) = self.vfs.upgrade() else { return false };
        self.desk.press();
        if self.desk.is_full.load(Ordering::Relaxed) {
            return false;
        }
        let failing = lock(&self.desk.failing).clone();
        // What is committed already stands there until its room is given back.
        vfs.files.any_staged(|file, staged| {
            let times = file.times();
            times.writers == 0 && times.lost.is_none() && !failing.contains(&file.node()) && !staged.is_passthrough()
        })
    }
}

fn is_below(path: &EntryPath, below: &EntryPath) -> bool {
    let rest = path.as_bytes().strip_prefix(below.as_bytes());
    rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

fn run(vfs: &Weak<LiveVfs>, desk: &Desk, mut worker: Worker, options: WritebackOptions) {
    // Threads that it starts have the same priority: programs that use the mount go first.
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "the write-back keeps its priority");
    }
    // What an earlier process left is due.
    let mut due = Some(moment() + options.delay);
    while let Some(task) = desk.next(due, options.delay) {
        let Some(vfs) = vfs.upgrade() else { break };
        // Every round looks at all that is staged: not for each file that is due.
        due = worker.round(&vfs, &task).map(|at| at.max(moment() + BETWEEN_ROUNDS.min(options.delay)));
        // Not the last who holds it, if that can be helped: whoever unmounts waits for its end.
        drop(vfs);
        desk.round_is_over();
    }
    desk.close();
}
