//! Time is injected, so that a test or a simulation sets it.

use blockframe_api::Timestamp;
use std::fmt::Debug;
use std::time::{SystemTime, UNIX_EPOCH};

/// Where the current time comes from.
pub trait Clock: Send + Sync + Debug {
    /// Now, in UTC.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the machine")]
    fn now(&self) -> Timestamp {
        timestamp(SystemTime::now())
    }
}

/// A `SystemTime` as a [`Timestamp`], before 1970 included.
pub fn timestamp(time: SystemTime) -> Timestamp {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => Timestamp { seconds: after.as_secs() as i64, nanoseconds: after.subsec_nanos() },
        Err(error) => {
            let before = error.duration();
            let nanos = before.subsec_nanos();
            Timestamp {
                seconds: -(before.as_secs() as i64) - i64::from(nanos > 0),
                nanoseconds: if nanos > 0 { 1_000_000_000 - nanos } else { 0 },
            }
        }
    }
}
