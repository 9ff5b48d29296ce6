//! How fast and how much may be written: staging is drained by the commit of
//! objects, and must not grow without end when writers are faster.

use super::{StagingError, StagingLimits, StagingResult};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The disk is asked for its free bytes this often, or after this many bytes.
const FREE_AGE: Duration = Duration::from_millis(100);
const FREE_BYTES: u64 = 64 << 20;
/// How often a writer that waits asks whether there is still hope.
const POLL: Duration = Duration::from_millis(50);
/// Bytes a second that a writer is slowed down to where half of the room between half and full quota is used.
const PACE: u64 = 256 << 20;
/// Longest delay of one write.
const LONGEST_DELAY: Duration = Duration::from_millis(250);

/// What a writer that has to wait asks.
pub trait Admission {
    /// Whether something is at work, or will be, that takes bytes out of staging.
    fn can_drain(&self) -> bool;

    /// Waits for `time`.
    fn pause(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// Bytes in staging, and who waits for them to become fewer.
#[derive(Debug)]
pub(super) struct Quota {
    limits: StagingLimits,
    used: AtomicU64,
    /// Those of them that somebody needs: the others are given back soon.
    needed: AtomicU64,
    free: Mutex<FreeBytes>,
    waiting: Mutex<usize>,
    released: Condvar,
}

#[derive(Debug)]
struct FreeBytes {
    free: u64,
    /// Admitted since the disk was asked.
    admitted: u64,
    asked: Option<Instant>,
}

impl Quota {
    pub(super) fn new(limits: StagingLimits) -> Self {
        Self {
            limits,
            used: AtomicU64::new(0),
            needed: AtomicU64::new(0),
            free: Mutex::new(FreeBytes { free: 0, admitted: 0, asked: None }),
            waiting: Mutex::new(0),
            released: Condvar::new(),
        }
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes that somebody needs.
    pub(super) fn needed(&self) -> u64 {
        self.needed.load(Ordering::Relaxed)
    }

    pub(super) fn limit(&self) -> u64 {
        self.limits.quota
    }

    /// A file that used `before` bytes uses `now`.
    pub(super) fn update(&self, before: u64, now: u64) {
        if now > before {
            self.used.fetch_add(now - before, Ordering::Relaxed);
            self.needed.fetch_add(now - before, Ordering::Relaxed);
        } else {
            self.leave(before - now);
            self.left(before - now);
        }
    }

    /// Nobody needs these bytes any more; they are given back soon.
    pub(super) fn leave(&self, bytes: u64) {
        self.needed.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// They are given back.
    pub(super) fn left(&self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        if *self.waiting() > 0 {
            self.released.notify_all();
        }
    }

    fn waiting(&self) -> MutexGuard<'_, usize> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `bytes` more be written, at once, later, or not at all. `ask`
    /// tells how many bytes the disk has free, `freeing` whether it is about to have more.
    pub(super) fn admit(
        &self,
        bytes: u64,
        ask: &dyn Fn() -> StagingResult<u64>,
        freeing: &dyn Fn() -> bool,
        wait: &dyn Admission,
    ) -> StagingResult<()> {
        loop {
            // Asked first: what was given back before is seen below.
            let freeing = freeing();
            if self.has_room(bytes, ask)? {
                break;
            }
            // With nothing in staging there is nothing that could get less.
            if !freeing && (self.used() == 0 || !wait.can_drain()) {
                // A file longer than the quota cannot be committed before it is closed.
                return match self.used() > 0 && self.has_room_beyond(bytes, ask)? {
                    true => Ok(()),
                    false => Err(StagingError::NoRoom { used: self.used(), quota: self.limits.quota }),
                };
            }
            let mut waiting = self.waiting();
            // Looked at once more under the lock: what was released since the first look would wake nobody.
            if !self.has_room(bytes, ask)? {
                *waiting += 1;
                waiting = self.released.wait_timeout(waiting, POLL).unwrap_or_else(PoisonError::into_inner).0;
                *waiting -= 1;
            }
        }
        // Where nothing drains, being slow would not help.
        if let Some(delay) = self.delay(bytes)
            && wait.can_drain()
        {
            wait.pause(delay);
        }
        Ok(())
    }

    fn has_room(&self, bytes: u64, ask: &dyn Fn() -> StagingResult<u64>) -> StagingResult<bool> {
        if self.used() >= self.limits.quota {
            return Ok(false);
        }
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let needed = self.limits.reserve.saturating_add(bytes);
        let known = free.free.saturating_sub(free.admitted);
        let old = free.asked.is_none_or(|asked| asked.elapsed() >= FREE_AGE) || free.admitted >= FREE_BYTES;
        // What is known to be too little is asked for again: it may have become more.
        if old || known < needed {
            *free = FreeBytes { free: ask()?, admitted: 0, asked: Some(Instant::now()) };
        }
        let room = free.free.saturating_sub(free.admitted) >= needed;
        if room {
            free.admitted += bytes;
        }
        Ok(room)
    }

    /// Whether more than the quota may be in staging because the disk has room
    /// for it twice: staged, and committed with its parity.
    fn has_room_beyond(&self, bytes: u64, ask: &dyn Fn() -> StagingResult<u64>) -> StagingResult<bool> {
        let committed = self.used().saturating_add(self.used() / 4);
        Ok(ask()? >= self.limits.reserve.saturating_add(bytes).saturating_add(committed))
    }

    /// Below half of the quota none; from there the rate falls towards zero at the quota.
    fn delay(&self, bytes: u64) -> Option<Duration> {
        let half = self.limits.quota / 2;
        let over = self.used().checked_sub(half).filter(|&over| over > 0)?;
        let left = (self.limits.quota - half).saturating_sub(over).max(1);
        let nanos = u128::from(bytes) * u128::from(over) * 1_000_000_000 / (u128::from(left) * u128::from(PACE));
        Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).min(LONGEST_DELAY))
    }
}
