//! The files of the directory: their ids, a store of empty ones that are
//! ready, and those that are to be emptied for reuse.
//!
//! Making a file, and emptying one that was synced, may wait for the disk. So
//! a thread does both: files are made ahead, under the names that they will
//! have, and handed out in the order of their ids. A crash leaves those that
//! nobody took as files that no journal names, which the next start discards.

use super::names::{Name, Names};
use super::quota::Quota;
use super::{StagingError, StagingLimits, StagingResult};
use crate::base::Timestamp;
use crate::base::clock::timestamp;
use crate::format::StagingId;
use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The counter on the disk is this far ahead, so that it is written rarely.
const ID_STEP: u64 = 1 << 20;
/// Most files kept for reuse: where files were deleted lately, ext4 makes new ones ten times slower.
const POOL_FILES: usize = 1024;
/// Most of them that are kept open.
const POOL_OPEN: usize = 256;
/// Files that are kept ready at first, and at most.
const READY_FILES: usize = 128;
const MOST_READY: usize = 1024;
/// Most files that wait to be emptied; who lets more go empties them himself.
const MOST_GONE: usize = 1024;

/// An empty file under its name.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) id: StagingId,
    pub(super) file: Arc<File>,
    /// The change of names that made its own.
    pub(super) named: u64,
    /// When it was emptied, as the disk tells; `None` when the disk was not asked.
    pub(super) modified: Option<Timestamp>,
}

/// A file that nobody needs any more.
#[derive(Debug)]
pub(super) struct Gone {
    pub(super) id: StagingId,
    pub(super) file: Option<Arc<File>>,
    /// Whether it may serve again.
    pub(super) reuse: bool,
    /// What the quota was told of.
    pub(super) counted: u64,
}

/// The files of the directory.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) names: Names,
    pub(super) quota: Quota,
    ids: Mutex<Ids>,
    claims: Mutex<Claims>,
    pool: Mutex<Vec<Pooled>>,
    /// Held while a file gets its id and its name, so that ids are given in order.
    making: Mutex<()>,
    work: Mutex<Work>,
    woken: Condvar,
    idle: Condvar,
    most_ready: usize,
}

#[derive(Debug)]
struct Ids {
    next: u64,
    /// What the counter on the disk says.
    limit: u64,
}

/// Files that are no leftovers.
#[derive(Debug, Default)]
struct Claims {
    /// Ids that a [`StagedFile`](super::StagedFile) of this process has.
    used: HashSet<StagingId>,
    /// Ids of files that are ready, are being made, or wait to be emptied.
    apart: HashSet<StagingId>,
}

/// An empty file without an id.
#[derive(Debug)]
struct Pooled {
    name: Name,
    file: Option<Arc<File>>,
}

/// What the thread has to do, and what it has done.
#[derive(Debug, Default)]
struct Work {
    /// There is a thread.
    running: bool,
    sleeping: bool,
    end: bool,
    /// By ascending ids.
    ready: VecDeque<Ready>,
    /// How many are to be ready.
    wanted: usize,
    /// There are to be more of them.
    fill: bool,
    /// There were as many as wanted since `wanted` grew.
    was_full: bool,
    gone: VecDeque<Gone>,
    /// One that was in `gone` is being emptied.
    clearing: bool,
}

enum Task {
    Make,
    Clear(Gone),
    End,
}

impl Work {
    fn next(&mut self) -> Option<Task> {
        if self.end {
            return Some(Task::End);
        }
        if self.fill && self.ready.len() >= self.wanted {
            self.fill = false;
            self.was_full = true;
        }
        if self.fill && (self.gone.is_empty() || self.ready.len() < self.wanted / 2) {
            return Some(Task::Make);
        }
        let gone = self.gone.pop_front()?;
        self.clearing = true;
        Some(Task::Clear(gone))
    }

    fn take(&mut self, most: usize) -> Option<Ready> {
        let ready = self.ready.pop_front();
        if ready.is_none() && self.was_full {
            self.wanted = (self.wanted * 2).min(most);
            self.was_full = false;
        }
        self.fill |= self.ready.len() < self.wanted.div_ceil(2);
        ready
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// Opens the directory, made when it is missing. At most `most_open / 4` files are made ahead.
    pub(super) fn open(directory: &Path, limits: StagingLimits, most_open: usize) -> StagingResult<Self> {
        let names = Names::open(directory)?;
        let mut next = names.read_counter()?.max(1);
        let mut pool = Vec::new();
        for name in names.list()? {
            match name {
                Name::Staged(id) => next = next.max(id.get().saturating_add(1)),
                Name::Free(number) => {
                    next = next.max(number.saturating_add(1));
                    if pool.len() < POOL_FILES {
                        pool.push(Pooled { name, file: None });
                    } else if let Err(error) = names.remove(name) {
                        tracing::warn!(%error, ?name, "cannot remove a staging file that is not needed");
                    }
                }
            }
        }
        let most_ready = MOST_READY.min(most_open / 4);
        Ok(Self {
            names,
            quota: Quota::new(limits),
            ids: Mutex::new(Ids { next, limit: next }),
            claims: Mutex::default(),
            pool: Mutex::new(pool),
            making: Mutex::new(()),
            work: Mutex::new(Work { wanted: READY_FILES.min(most_ready), ..Work::default() }),
            woken: Condvar::new(),
            idle: Condvar::new(),
            most_ready,
        })
    }

    /// An empty file: one that is ready, or one that is made now.
    pub(super) fn take(&self) -> StagingResult<Ready> {
        let ready = match self.take_ready() {
            Some(ready) => ready,
            None => {
                let _one = lock(&self.making);
                // One that was made meanwhile has the lower id.
                match self.take_ready() {
                    Some(ready) => ready,
                    None => self.make()?,
                }
            }
        };
        let mut claims = lock(&self.claims);
        claims.apart.remove(&ready.id);
        claims.used.insert(ready.id);
        Ok(ready)
    }

    fn take_ready(&self) -> Option<Ready> {
        let mut work = lock(&self.work);
        let ready = work.take(self.most_ready);
        if work.fill && work.sleeping {
            self.woken.notify_one();
        }
        ready
    }

    /// Makes a file under the next id. The caller holds `making`.
    fn make(&self) -> StagingResult<Ready> {
        let id = self.new_id()?;
        // Before the file is there: nobody shall take it for a leftover.
        lock(&self.claims).apart.insert(id);
        let file = self.file_for(id).inspect_err(|_| self.release(id))?;
        Ok(Ready { id, file, named: self.names.changed(), modified: None })
    }

    /// Takes an id that the journal names: none up to it is given from now on.
    pub(super) fn claim(&self, id: StagingId) -> StagingResult<()> {
        let mut claims = lock(&self.claims);
        if claims.apart.contains(&id) || !claims.used.insert(id) {
            return Err(StagingError::InUse { file: id });
        }
        drop(claims);
        let mut ids = lock(&self.ids);
        ids.next = ids.next.max(id.get().saturating_add(1));
        Ok(())
    }

    /// Nobody has the file any more; it stays.
    pub(super) fn release(&self, id: StagingId) {
        let mut claims = lock(&self.claims);
        claims.used.remove(&id);
        claims.apart.remove(&id);
    }

    /// Whether the file is in use, or ready, or about to be emptied.
    pub(super) fn is_claimed(&self, id: StagingId) -> bool {
        let claims = lock(&self.claims);
        claims.used.contains(&id) || claims.apart.contains(&id)
    }

    /// Files in use.
    pub(super) fn files(&self) -> u64 {
        lock(&self.claims).used.len() as u64
    }

    /// The file is not needed any more: it is emptied for reuse, or removed, soon.
    pub(super) fn let_go(&self, gone: Gone) {
        let mut claims = lock(&self.claims);
        claims.used.remove(&gone.id);
        claims.apart.insert(gone.id);
        drop(claims);
        self.quota.leave(gone.counted);
        let mut work = lock(&self.work);
        if !work.running || work.gone.len() >= MOST_GONE {
            drop(work);
            return self.clear(gone);
        }
        work.gone.push_back(gone);
        if work.sleeping {
            self.woken.notify_one();
        }
    }

    /// Whether room is about to become free.
    pub(super) fn is_freeing(&self) -> bool {
        let work = lock(&self.work);
        work.running && (work.clearing || !work.gone.is_empty())
    }

    fn clear(&self, gone: Gone) {
        if gone.reuse {
            self.recycle(gone.id, gone.file);
        } else {
            self.remove(gone.id);
            drop(gone.file);
        }
        self.release(gone.id);
        self.quota.left(gone.counted);
    }

    /// Ids are never used again: the counter on the disk is at or above all that were given.
    fn new_id(&self) -> StagingResult<StagingId> {
        let mut ids = lock(&self.ids);
        if ids.next >= ids.limit {
            let limit = ids.next.saturating_add(ID_STEP);
            self.names.write_counter(limit)?;
            ids.limit = limit;
        }
        ids.next += 1;
        Ok(StagingId::new(ids.next - 1))
    }

    /// An empty file under the name of `id`: one of the pool, or a new one.
    fn file_for(&self, id: StagingId) -> StagingResult<Arc<File>> {
        let name = Name::Staged(id);
        loop {
            let Some(pooled) = lock(&self.pool).pop() else { break };
            let reuse = || -> io::Result<Arc<File>> {
                self.names.rename(pooled.name, name)?;
                if let Some(file) = pooled.file {
                    return Ok(file);
                }
                let file = self.names.open_file(name, false)?;
                file.set_len(0)?;
                Ok(Arc::new(file))
            };
            match reuse() {
                Ok(file) => return Ok(file),
                Err(error) => tracing::warn!(%error, name = ?pooled.name, "cannot reuse a staging file"),
            }
        }
        let created = self.names.open_file(name, true);
        created.map(Arc::new).map_err(|source| StagingError::file("create", id, source))
    }

    /// Empties the file of `id` and keeps it for reuse, or removes it.
    pub(super) fn recycle(&self, id: StagingId, file: Option<Arc<File>>) {
        let room = lock(&self.pool).len() < POOL_FILES;
        let recycle = || -> io::Result<()> {
            let file = match file {
                Some(file) => file,
                None => Arc::new(self.names.open_file(Name::Staged(id), false)?),
            };
            file.set_len(0)?;
            self.pool_empty(id, file)
        };
        if room && recycle().inspect_err(|error| tracing::warn!(%error, %id, "cannot reuse a staging file")).is_ok() {
            return;
        }
        self.remove(id);
    }

    fn pool_empty(&self, id: StagingId, file: Arc<File>) -> io::Result<()> {
        let name = Name::Free(id.get());
        self.names.rename(Name::Staged(id), name)?;
        let mut pool = lock(&self.pool);
        let open = pool.iter().filter(|pooled| pooled.file.is_some()).count() < POOL_OPEN;
        pool.push(Pooled { name, file: open.then_some(file) });
        Ok(())
    }

    /// Removes the file of `id`.
    fn remove(&self, id: StagingId) {
        if let Err(error) = self.names.remove(Name::Staged(id)) {
            tracing::warn!(%error, %id, "cannot remove a staging file; the next start does it");
        }
    }

    /// Before the thread is started: from now on work is left to it.
    pub(super) fn begin(&self) {
        lock(&self.work).running = true;
    }

    /// There is no thread (any more).
    pub(super) fn no_thread(&self) {
        lock(&self.work).running = false;
        self.idle.notify_all();
    }

    /// The thread: makes files ahead and empties those that were let go, until [`Self::end`].
    pub(super) fn work_off(&self) {
        loop {
            let mut work = lock(&self.work);
            let task = loop {
                if let Some(task) = work.next() {
                    break task;
                }
                work.sleeping = true;
                self.idle.notify_all();
                work = self.woken.wait(work).unwrap_or_else(PoisonError::into_inner);
                work.sleeping = false;
            };
            drop(work);
            match task {
                Task::Make => self.make_ahead(),
                Task::Clear(gone) => {
                    self.clear(gone);
                    lock(&self.work).clearing = false;
                }
                Task::End => return,
            }
        }
    }

    fn make_ahead(&self) {
        let _one = lock(&self.making);
        let made = self.make();
        let mut work = lock(&self.work);
        match made {
            Ok(mut ready) => {
                drop(work);
                ready.modified = ready.file.metadata().and_then(|metadata| metadata.modified()).map(timestamp).ok();
                lock(&self.work).ready.push_back(ready);
            }
            Err(error) => {
                tracing::debug!(%error, "no staging file can be made ahead");
                // Whoever needs one is told the reason, and has it tried again.
                work.fill = false;
            }
        }
    }

    /// Ends the thread, which the caller joins.
    pub(super) fn end(&self) {
        lock(&self.work).end = true;
        self.woken.notify_one();
    }

    /// After the thread has ended: what it left over is done, files that nobody took serve the next time.
    pub(super) fn finish(&self) {
        let (gone, ready) = {
            let mut work = lock(&self.work);
            (std::mem::take(&mut work.gone), std::mem::take(&mut work.ready))
        };
        gone.into_iter().for_each(|gone| self.clear(gone));
        for Ready { id, file, .. } in ready {
            let room = lock(&self.pool).len() < POOL_FILES;
            if !room || self.pool_empty(id, file).is_err() {
                self.remove(id);
            }
            self.release(id);
        }
    }

    /// Waits until the thread has nothing to do.
    #[cfg(test)]
    pub(super) fn settle(&self) {
        let at_work = |work: &mut Work| work.running && (!work.sleeping || work.fill || !work.gone.is_empty());
        drop(self.idle.wait_while(lock(&self.work), at_work).unwrap_or_else(PoisonError::into_inner));
    }

    /// Files that are ready, by the order in which they will be taken.
    #[cfg(test)]
    pub(super) fn ready(&self) -> Vec<StagingId> {
        lock(&self.work).ready.iter().map(|ready| ready.id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_files_are_made_ahead_when_all_were_used_up_and_not_while_they_are_made() {
        let mut work = Work { running: true, wanted: 128, ..Work::default() };
        assert!(work.take(1024).is_none() && work.fill);
        assert_eq!(work.wanted, 128, "there was no time yet to make any");
        for expected in [256, 512, 1024, 1024] {
            work.was_full = true;
            assert!(work.take(1024).is_none() && work.take(1024).is_none());
            assert_eq!(work.wanted, expected);
        }
    }

    #[test]
    fn files_are_emptied_as_long_as_enough_are_ready() {
        let gone = |id| Gone { id: StagingId::new(id), file: None, reuse: true, counted: 0 };
        let mut work = Work { running: true, wanted: 2, fill: true, ..Work::default() };
        work.gone.extend([gone(1), gone(2)]);
        assert!(matches!(work.next(), Some(Task::Make)), "none is ready");
        work.wanted = 1;
        assert!(matches!(work.next(), Some(Task::Clear(Gone { id, .. })) if id == StagingId::new(1)));
        assert!(work.clearing);
        work.fill = false;
        assert!(matches!(work.next(), Some(Task::Clear(_))));
        assert!(work.next().is_none());
        work.end = true;
        assert!(matches!(work.next(), Some(Task::End)));
    }
}
