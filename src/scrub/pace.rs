//! How fast: so many bytes a second, and less while people wait for reads.

use crate::base::{Clock, ForegroundLoad, LoadSample, Timestamp};
use std::fmt::Debug;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The data behind these locks is valid between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sleeps; a test's pause only moves its clock.
pub trait Pause: Send + Sync + Debug {
    /// Returns after `duration`, or earlier when the work is to end.
    fn pause(&self, duration: Duration);
}

/// A real pause that ends at once when somebody asks the work to stop.
#[derive(Debug, Default)]
pub struct StopSignal {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl StopSignal {
    /// Ends all pauses, now and later.
    pub fn stop(&self) {
        *lock(&self.stopped) = true;
        self.changed.notify_all();
    }

    /// Whether [`Self::stop`] was called.
    pub fn is_stopped(&self) -> bool {
        *lock(&self.stopped)
    }
}

impl Pause for StopSignal {
    fn pause(&self, duration: Duration) {
        let guard = lock(&self.stopped);
        // A poisoned lock is still a lock; the result tells nothing else of use.
        drop(self.changed.wait_timeout_while(guard, duration, |stopped| !*stopped));
    }
}

/// The slowest that foreground reads can make a scrub: this part of its rate.
/// Never zero: a busy archive must be verified too.
const SLOWEST: u64 = 16;
/// How often the foreground is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// What may be used at once after a rest.
const BURST: Duration = Duration::from_millis(500);

/// Slows the reading of several threads down to one rate in all.
#[derive(Debug)]
pub struct Pacer {
    /// `None`: as fast as it goes.
    bytes_per_second: Option<u64>,
    slow_read: Duration,
    clock: Arc<dyn Clock>,
    load: Arc<dyn ForegroundLoad>,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    /// Bytes that may be read at once; negative: a debt that is slept off.
    available: i128,
    filled: Option<Timestamp>,
    looked: Option<Timestamp>,
    last: LoadSample,
    /// The rate is divided by this.
    divisor: u64,
}

impl Pacer {
    /// At most `bytes_per_second`, and down to a sixteenth of it while
    /// foreground reads take `slow_read` or longer.
    pub fn new(
        bytes_per_second: Option<u64>,
        slow_read: Duration,
        clock: Arc<dyn Clock>,
        load: Arc<dyn ForegroundLoad>,
    ) -> Self {
        let last = load.sample();
        let bucket = Bucket { available: 0, filled: None, looked: None, last, divisor: 1 };
        let bytes_per_second = bytes_per_second.map(|rate| rate.max(1));
        Self { bytes_per_second, slow_read, clock, load, bucket: Mutex::new(bucket) }
    }

    /// `bytes` were read: tells how long to wait until that was allowed.
    #[must_use]
    pub fn took(&self, bytes: u64) -> Duration {
        let Some(rate) = self.bytes_per_second else { return Duration::ZERO };
        let mut bucket = lock(&self.bucket);
        let now = self.clock.now();
        self.look(&mut bucket, now);
        let rate = (rate / bucket.divisor).max(1);
        bucket.take(bytes, rate, now)
    }

    fn look(&self, bucket: &mut Bucket, now: Timestamp) {
        if bucket.looked.is_some_and(|looked| elapsed(looked, now) < LOOK_EVERY) {
            return;
        }
        bucket.looked = Some(now);
        let sample = self.load.sample();
        let slow = sample.reads != bucket.last.reads && sample.average >= self.slow_read;
        bucket.divisor = if slow { (bucket.divisor * 2).min(SLOWEST) } else { (bucket.divisor / 2).max(1) };
        bucket.last = sample;
    }
}

impl Bucket {
    /// Takes `bytes`, and tells how long to wait for them.
    fn take(&mut self, bytes: u64, rate: u64, now: Timestamp) -> Duration {
        let rate = i128::from(rate);
        // A clock that jumps must neither stall nor unleash the scrub.
        let passed = self.filled.map_or(Duration::ZERO, |filled| elapsed(filled, now).min(Duration::from_secs(60)));
        self.filled = Some(now);
        let burst = rate * BURST.as_millis() as i128 / 1000;
        let earned = rate.saturating_mul(passed.as_nanos() as i128) / 1_000_000_000;
        self.available = (self.available + earned).min(burst) - i128::from(bytes);
        if self.available >= 0 {
            return Duration::ZERO;
        }
        let nanos = (-self.available).saturating_mul(1_000_000_000) / rate;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).min(Duration::from_secs(60))
    }
}

/// Time from `from` to `to`; none when the clock went back.
pub(super) fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    let nanos = |time: Timestamp| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds);
    Duration::from_nanos(u64::try_from((nanos(to) - nanos(from)).max(0)).unwrap_or(u64::MAX))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::base::LatencyGauge;

    /// A clock that moves only when somebody pauses, or a test says so.
    #[derive(Debug)]
    pub(crate) struct FakeTime(pub(crate) Mutex<Timestamp>);

    impl FakeTime {
        pub(crate) fn at(seconds: i64) -> Arc<Self> {
            Arc::new(Self(Mutex::new(Timestamp { seconds, nanoseconds: 0 })))
        }

        pub(crate) fn advance(&self, duration: Duration) {
            let mut now = lock(&self.0);
            let nanos = u64::from(now.nanoseconds) + u64::from(duration.subsec_nanos());
            now.seconds += duration.as_secs() as i64 + (nanos / 1_000_000_000) as i64;
            now.nanoseconds = (nanos % 1_000_000_000) as u32;
        }
    }

    impl Clock for FakeTime {
        fn now(&self) -> Timestamp {
            *lock(&self.0)
        }
    }

    impl Pause for FakeTime {
        fn pause(&self, duration: Duration) {
            self.advance(duration);
        }
    }

    fn seconds_for(bytes: u64, rate: u64, load: Arc<dyn ForegroundLoad>, after_each: &dyn Fn()) -> f64 {
        let time = FakeTime::at(1000);
        let start = time.now();
        let pacer = Pacer::new(Some(rate), Duration::from_millis(20), time.clone(), load);
        for _ in 0..bytes / 1000 {
            time.pause(pacer.took(1000));
            after_each();
        }
        elapsed(start, time.now()).as_secs_f64()
    }

    #[test]
    fn the_rate_is_kept() {
        let took = seconds_for(1_000_000, 50_000, Arc::new(()), &|| {});
        assert!((19.0..=20.1).contains(&took), "{took}");
    }

    #[test]
    fn without_a_rate_nobody_waits() {
        let time = FakeTime::at(5);
        let pacer = Pacer::new(None, Duration::ZERO, time.clone(), Arc::new(()));
        assert_eq!(pacer.took(u64::MAX), Duration::ZERO);
    }

    #[test]
    fn slow_reads_in_the_foreground_slow_the_scrub_and_it_recovers() {
        let gauge = Arc::new(LatencyGauge::default());
        let slow = gauge.clone();
        let slowed = seconds_for(1_000_000, 50_000, gauge.clone(), &move || slow.record(Duration::from_millis(100)));
        assert!((200.0..=321.0).contains(&slowed), "{slowed}");
        // The same gauge, now quiet: the old average does not count.
        let quiet = seconds_for(1_000_000, 50_000, gauge.clone(), &|| {});
        assert!((19.0..=20.1).contains(&quiet), "{quiet}");
        let fast = Arc::new(LatencyGauge::default());
        let quick = fast.clone();
        let busy = seconds_for(1_000_000, 50_000, fast, &move || quick.record(Duration::from_millis(1)));
        assert!((19.0..=20.1).contains(&busy), "fast reads need no slowing down: {busy}");
    }

    #[test]
    fn a_clock_that_jumps_neither_stalls_nor_unleashes() {
        let time = FakeTime::at(1_000_000);
        let pacer = Pacer::new(Some(1000), Duration::from_secs(1), time.clone(), Arc::new(()));
        time.pause(pacer.took(1000));
        lock(&time.0).seconds = 10;
        time.pause(pacer.took(1000));
        assert!(time.now().seconds < 13);
        lock(&time.0).seconds = 9_000_000;
        let before = time.now();
        (0..10).for_each(|_| time.pause(pacer.took(1000)));
        assert!(elapsed(before, time.now()) >= Duration::from_secs(9));
    }

    #[test]
    fn a_stop_ends_a_long_pause_at_once() {
        let signal = Arc::new(StopSignal::default());
        let sleeper = signal.clone();
        let thread = std::thread::spawn(move || sleeper.pause(Duration::from_secs(3600)));
        signal.stop();
        thread.join().unwrap();
        assert!(signal.is_stopped());
    }
}
