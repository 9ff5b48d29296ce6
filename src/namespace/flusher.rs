//! The thread that writes changes down, in groups.
//!
//! Crash argument: a group is one atomic group of the journal. Before it is
//! appended, the staging files whose publication it tells of are synced; what
//! a change replaces (an old staging file, say) is let go only afterwards.

use super::state::{Later, Queue, State};
use super::{NamespaceError, NamespaceResult, Shared};
use crate::base::ErrorClass;
use crate::format::StagingId;
use crate::format::journal::Record;
use crate::staging::Generation;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long changes gather before they are written, unless somebody waits.
const GATHER: Duration = Duration::from_millis(500);
/// Records that are written without waiting longer.
pub(super) const GROUP: usize = 8 * 1024;
/// How long after a failure that may pass it is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Makes published contents durable.
pub trait Publications: Send + Sync {
    /// Makes the bytes of these staging files durable, as they were published
    /// last. Returns those of which that failed: their publication does not count.
    fn sync(&self, files: &[(StagingId, Generation)]) -> Vec<StagingId>;

    /// The journal tells of these publications (file and generation) now.
    fn durable(&self, files: &[(StagingId, Generation)]);
}

impl Publications for () {
    fn sync(&self, _files: &[(StagingId, Generation)]) -> Vec<StagingId> {
        Vec::new()
    }

    fn durable(&self, _files: &[(StagingId, Generation)]) {}
}

#[derive(Default)]
struct Wish {
    /// Changes wait.
    pending: bool,
    /// Somebody waits for them.
    urgent: bool,
    end: bool,
}

#[derive(Default)]
struct Bell {
    wish: Mutex<Wish>,
    rung: Condvar,
}

impl Bell {
    fn ring(&self, change: impl FnOnce(&mut Wish)) {
        change(&mut self.wish.lock().unwrap_or_else(PoisonError::into_inner));
        self.rung.notify_all();
    }

    /// Waits until there is something to do; false at the end.
    fn wait(&self) -> bool {
        let wish = self.wish.lock().unwrap_or_else(PoisonError::into_inner);
        let wish = self.rung.wait_while(wish, |wish| !wish.pending && !wish.end);
        let wish = wish.unwrap_or_else(PoisonError::into_inner);
        let gathered = self.rung.wait_timeout_while(wish, GATHER, |wish| !wish.urgent && !wish.end);
        let (mut wish, _) = gathered.unwrap_or_else(PoisonError::into_inner);
        wish.pending = false;
        wish.urgent = false;
        !wish.end
    }

    fn pause(&self, time: Duration) {
        let wish = self.wish.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.rung.wait_timeout_while(wish, time, |wish| !wish.end));
    }
}

/// The thread, ended when dropped, once everything is written.
pub(super) struct Flusher {
    shared: Weak<Shared>,
    bell: Arc<Bell>,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    pub(super) fn start(shared: &Arc<Shared>, publications: Arc<dyn super::Publications>) -> NamespaceResult<Self> {
        let bell = Arc::new(Bell::default());
        let (of, rung) = (Arc::clone(shared), Arc::clone(&bell));
        let thread = std::thread::Builder::new()
            .name("namespace".into())
            .spawn(move || {
                while rung.wait() {
                    work_off(&of, &*publications, &rung);
                }
                work_off(&of, &*publications, &rung);
            })
            .map_err(NamespaceError::Thread)?;
        Ok(Self { shared: Arc::downgrade(shared), bell, thread: Some(thread) })
    }

    /// Changes wait to be written.
    pub(super) fn wake(&self) {
        self.bell.ring(|wish| wish.pending = true);
    }

    /// Waits until `reached` says that change `target` is where it shall be.
    ///
    /// Error: when the attempt that would have made it so failed.
    pub(super) fn wait(&self, target: u64, reached: impl Fn(&State) -> u64) -> NamespaceResult<()> {
        let Some(shared) = self.shared.upgrade() else { return Ok(()) };
        let mut state = shared.lock();
        let failures = state.queue_failures;
        while reached(&state) < target {
            if let Some(why) = &state.failure {
                return Err(NamespaceError::Failed { why: why.clone() });
            }
            if let Some((why, class)) = &state.trouble
                && state.queue_failures != failures
            {
                return Err(NamespaceError::NotDurable { why: why.clone(), class: *class });
            }
            self.bell.ring(|wish| {
                wish.pending = true;
                wish.urgent = true;
            });
            state = shared.written.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.bell.ring(|wish| wish.end = true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes the namespace has panicked");
        }
    }
}

/// Writes what waits, as groups, until nothing does.
fn work_off(shared: &Shared, publications: &dyn Publications, bell: &Bell) {
    loop {
        let (queue, upto) = {
            let mut state = shared.lock();
            if state.failure.is_some() || (state.queue.is_empty() && state.applied == state.seq) {
                shared.written.notify_all();
                return;
            }
            (std::mem::take(&mut state.queue), state.seq)
        };
        match write(shared, publications, queue, upto) {
            Ok(later) => {
                for work in later {
                    work();
                }
            }
            Err(again) => {
                if !again {
                    return;
                }
                bell.pause(RETRY);
                if bell.wish.lock().unwrap_or_else(PoisonError::into_inner).end {
                    return;
                }
            }
        }
    }
}

/// Writes one group. On failure: whether it is worth trying again.
fn write(shared: &Shared, publications: &dyn Publications, mut queue: Queue, upto: u64) -> Result<Vec<Later>, bool> {
    queue.staged.sort_unstable();
    // Of several publications of a file the last one counts.
    queue.staged.reverse();
    queue.staged.dedup_by_key(|(file, _)| *file);
    let failed = publications.sync(&queue.staged);
    if !failed.is_empty() {
        queue.staged.retain(|(file, _)| !failed.contains(file));
        queue
            .records
            .retain(|record| !matches!(record, Record::Staged { content, .. } if failed.contains(&content.file)));
    }
    if queue.records.is_empty() {
        shared.lock().settle(upto);
        shared.written.notify_all();
        return Ok(queue.later);
    }
    let mut durable = false;
    let written = shared.writer.write_group(&queue.records, &mut || {
        durable = true;
        shared.lock().journaled = upto;
        shared.written.notify_all();
    });
    match written {
        Ok(()) => {
            publications.durable(&queue.staged);
            let mut state = shared.lock();
            state.journaled = upto;
            state.trouble = None;
            state.settle(upto);
            drop(state);
            shared.written.notify_all();
            Ok(queue.later)
        }
        Err(error) => {
            let (why, class) = (error.to_string(), error.class());
            tracing::error!("changes of names cannot be written: {}", chain(&error));
            let mut state = shared.lock();
            let again = !durable && class == ErrorClass::NoSpace;
            if again {
                // Nothing of it counts: it goes before what came since.
                state.queue.put_before(queue);
                state.trouble = Some((why, class));
            } else {
                // Half-way, or a disk that fails: what counts is for the next opening to find out.
                state.failure = Some(why);
            }
            state.queue_failures += 1;
            drop(state);
            shared.written.notify_all();
            Err(again)
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
