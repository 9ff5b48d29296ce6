//! How reads in the foreground fare, for what must not get in their way.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Reads by people and programs since the process began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoadSample {
    /// Number of reads.
    pub reads: u64,
    /// How long one takes: a moving average.
    pub average: Duration,
}

/// Tells how reads in the foreground fare.
pub trait ForegroundLoad: Send + Sync + Debug {
    /// The state now.
    fn sample(&self) -> LoadSample;
}

/// Nobody reads.
impl ForegroundLoad for () {
    fn sample(&self) -> LoadSample {
        LoadSample::default()
    }
}

/// Measures reads from many threads without a lock: whoever serves reads
/// calls [`LatencyGauge::record`] after each.
#[derive(Debug, Default)]
pub struct LatencyGauge {
    reads: AtomicU64,
    average_nanos: AtomicU64,
}

impl LatencyGauge {
    /// A read took this long. The average moves an eighth of the way to it;
    /// of two threads at the same instant one may not count, which does not matter.
    pub fn record(&self, took: Duration) {
        let new = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let old = self.average_nanos.load(Ordering::Relaxed);
        let next = if self.reads.fetch_add(1, Ordering::Relaxed) == 0 { new } else { old - old / 8 + new / 8 };
        self.average_nanos.store(next, Ordering::Relaxed);
    }
}

impl ForegroundLoad for LatencyGauge {
    fn sample(&self) -> LoadSample {
        LoadSample {
            reads: self.reads.load(Ordering::Relaxed),
            average: Duration::from_nanos(self.average_nanos.load(Ordering::Relaxed)),
        }
    }
}
