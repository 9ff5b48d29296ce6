//! What is to be done, and who waits for it.

use super::DrainProgress;
use crate::vfs::live::moment;
use crate::vfs::lock;
use blockframe_api::{ErrorClass, Node, VfsError, VfsResult};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often a file that is open, and changes while it is committed, is tried for somebody who waits.
const OPEN_TRIES: u32 = 3;
/// The same for a file that is closed each time.
const TRIES: u32 = 16;
/// How often who waits hears how it goes on.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// Between the thread that commits and everybody else.
#[derive(Debug, Default)]
pub(super) struct Desk {
    orders: Mutex<Orders>,
    changed: Condvar,
    /// The object that is being written is not finished any more.
    pub(super) cancel: AtomicBool,
    /// The store had no room for the last object.
    pub(super) is_full: AtomicBool,
    pub(super) files_done: AtomicU64,
    pub(super) bytes_done: AtomicU64,
    /// Bytes done of the object that is being written.
    pub(super) bytes_of_current: AtomicU64,
    pub(super) current: Mutex<Option<String>>,
    /// Files that could not be committed lately.
    pub(super) failing: Mutex<HashSet<Node>>,
}

#[derive(Debug, Default)]
struct Orders {
    /// A file was closed.
    noticed: bool,
    /// Somebody waits for room.
    pressed: bool,
    end: bool,
    /// Those who want no object written meanwhile.
    rests: u32,
    at_work: bool,
    next_job: u64,
    jobs: BTreeMap<u64, Job>,
}

impl Orders {
    /// Files that somebody waits for.
    fn wanted(&self) -> impl Iterator<Item = Node> {
        self.jobs.values().flat_map(|job| job.todo.keys().copied())
    }
}

/// Files that somebody waits for.
#[derive(Debug)]
struct Job {
    todo: HashMap<Node, Wanted>,
    error: Option<VfsError>,
}

/// One of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// Its length.
    pub(super) bytes: u64,
    tries: u32,
}

impl Wanted {
    pub(super) fn new(bytes: u64) -> Self {
        Self { bytes, tries: 0 }
    }
}

/// What a round does.
#[derive(Debug)]
pub(super) enum Task {
    /// What has rested long enough.
    Due,
    /// All that can be: room is needed.
    Everything,
    /// These, which somebody waits for.
    Wanted(HashSet<Node>),
}

/// What became of a file.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is committed, or not there any more, or cannot be committed while it is open.
    Done,
    /// It has changed meanwhile; `open`: somebody may be changing it still.
    Newer { open: bool },
    /// It could not be committed.
    Failed(VfsError),
}

fn ended() -> VfsError {
    VfsError::new(ErrorClass::Interrupted, "the commit of staged files was ended; the next mount goes on with it")
}

impl Desk {
    fn orders(&self) -> MutexGuard<'_, Orders> {
        lock(&self.orders)
    }

    fn change(&self, change: impl FnOnce(&mut Orders)) {
        change(&mut self.orders());
        self.changed.notify_all();
    }

    fn wait<'a>(&self, orders: MutexGuard<'a, Orders>, time: Option<Duration>) -> MutexGuard<'a, Orders> {
        match time {
            None => self.changed.wait(orders).unwrap_or_else(PoisonError::into_inner),
            Some(time) => self.changed.wait_timeout(orders, time).unwrap_or_else(PoisonError::into_inner).0,
        }
    }

    /// A file was closed.
    pub(super) fn notice(&self) {
        let mut orders = self.orders();
        if !orders.noticed {
            orders.noticed = true;
            self.changed.notify_all();
        }
    }

    /// Somebody waits for room.
    pub(super) fn press(&self) {
        self.change(|orders| orders.pressed = true);
    }

    /// No further object is begun, and the one that is being written is given up.
    pub(super) fn end(&self) {
        self.cancel.store(true, Ordering::Relaxed);
        self.change(|orders| orders.end = true);
    }

    /// Waits until there is something to do, or the time has come; `None` at the end.
    pub(super) fn next(&self, mut due: Option<Instant>, delay: Duration) -> Option<Task> {
        let mut orders = self.orders();
        loop {
            if orders.end {
                return None;
            }
            let now = moment();
            if orders.noticed {
                orders.noticed = false;
                due = Some(due.map_or(now + delay, |due| due.min(now + delay)));
            }
            if orders.rests == 0 {
                let wanted: HashSet<Node> = orders.wanted().collect();
                let task = if !wanted.is_empty() {
                    Some(Task::Wanted(wanted))
                } else if std::mem::take(&mut orders.pressed) {
                    Some(Task::Everything)
                } else {
                    due.filter(|due| *due <= now).map(|_| Task::Due)
                };
                if task.is_some() {
                    orders.at_work = true;
                    return task;
                }
            }
            let time = due.map(|due| due.saturating_duration_since(now)).filter(|_| orders.rests == 0);
            orders = self.wait(orders, time);
        }
    }

    /// The round that [`next`](Self::next) asked for is over.
    pub(super) fn round_is_over(&self) {
        self.change(|orders| orders.at_work = false);
    }

    /// Nothing is done from now on: who waits is told.
    pub(super) fn close(&self) {
        self.change(|orders| {
            orders.end = true;
            orders.at_work = false;
        });
    }

    /// Whether the round shall end soon. `for_due`: also when somebody waits for other files.
    pub(super) fn is_wanted_elsewhere(&self, for_due: bool) -> bool {
        let orders = self.orders();
        orders.end || orders.rests > 0 || (for_due && (orders.pressed || orders.wanted().next().is_some()))
    }

    /// Error: `Interrupted` when the object that is being written shall be given up.
    pub(super) fn go_on(&self) -> VfsResult<()> {
        if self.cancel.load(Ordering::Relaxed) { Err(ended()) } else { Ok(()) }
    }

    /// Returns after `time`, or earlier at the end.
    pub(super) fn pause(&self, time: Duration) {
        let until = moment() + time;
        let mut orders = self.orders();
        while !orders.end {
            let left = until.saturating_duration_since(moment());
            if left.is_zero() {
                return;
            }
            orders = self.wait(orders, Some(left));
        }
    }

    /// Tells everybody who waits for the file.
    pub(super) fn report(&self, node: Node, outcome: &Outcome) {
        let mut orders = self.orders();
        for job in orders.jobs.values_mut() {
            let Some(wanted) = job.todo.get_mut(&node) else { continue };
            match outcome {
                Outcome::Done => {}
                Outcome::Newer { open } => {
                    wanted.tries += 1;
                    if wanted.tries < if *open { OPEN_TRIES } else { TRIES } {
                        continue;
                    }
                }
                Outcome::Failed(error) => {
                    job.error.get_or_insert_with(|| error.clone());
                }
            }
            job.todo.remove(&node);
        }
        drop(orders);
        self.changed.notify_all();
    }

    /// All that somebody waits for has failed.
    pub(super) fn fail_all(&self, error: &VfsError) {
        self.change(|orders| {
            for job in orders.jobs.values_mut() {
                job.todo.clear();
                job.error.get_or_insert_with(|| error.clone());
            }
        });
    }

    /// Has these files committed, and returns when that is done.
    ///
    /// Errors: the first that there was, once all were tried; `Interrupted`
    /// at the end, or when `progress` says that nobody waits any more.
    pub(super) fn see_to(
        &self,
        todo: HashMap<Node, Wanted>,
        progress: &mut dyn FnMut(DrainProgress) -> bool,
    ) -> VfsResult<()> {
        let mut orders = self.orders();
        let number = orders.next_job;
        orders.next_job += 1;
        orders.jobs.insert(number, Job { todo, error: None });
        self.changed.notify_all();
        let mut told = None;
        loop {
            let Some(job) = orders.jobs.get(&number) else { return Err(ended()) };
            let left = DrainProgress {
                files_left: job.todo.len() as u64,
                bytes_left: job.todo.values().map(|wanted| wanted.bytes).sum(),
            };
            let is_over = left.files_left == 0 || orders.end;
            if is_over || told.is_none_or(|told| moment() >= told + TELL_EVERY) {
                // Whoever is told may take its time: nobody else waits for that.
                drop(orders);
                let go_on = progress(left);
                orders = self.orders();
                told = Some(moment());
                if is_over || !go_on {
                    let job = orders.jobs.remove(&number);
                    return match job.and_then(|job| job.error) {
                        Some(error) => Err(error),
                        None if left.files_left == 0 => Ok(()),
                        None => Err(ended()),
                    };
                }
                continue;
            }
            orders = self.wait(orders, Some(TELL_EVERY));
        }
    }

    /// No object is written until [`go_to_work`](Self::go_to_work): returns once all that were are recorded.
    pub(super) fn rest(&self) {
        let mut orders = self.orders();
        orders.rests += 1;
        while orders.at_work {
            orders = self.wait(orders, None);
        }
    }

    pub(super) fn go_to_work(&self) {
        self.change(|orders| orders.rests = orders.rests.saturating_sub(1));
    }
}
