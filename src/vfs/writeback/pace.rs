//! Writing objects gives way to reads in the foreground.

use super::desk::Desk;
use crate::base::{ForegroundLoad, LatencyGauge, LoadSample};
use crate::vfs::live::moment;
use crate::vfs::lock;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How often the foreground is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A read that takes less is never slow; one that takes longer than the other always is.
const SLOW: (Duration, Duration) = (Duration::from_micros(500), Duration::from_millis(20));
/// The shortest and the longest rest after a column.
const REST: (Duration, Duration) = (Duration::from_micros(500), Duration::from_millis(32));

/// Tells how long to rest between the columns of an object. Without reads in
/// the foreground not at all; never so long that the object is not finished.
#[derive(Debug)]
pub(super) struct Pace {
    load: Arc<LatencyGauge>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    looked: Option<Instant>,
    last: LoadSample,
    /// What reads took while nothing was written.
    calm: Duration,
    rest: Duration,
}

impl Pace {
    pub(super) fn new(load: Arc<LatencyGauge>) -> Self {
        let last = load.sample();
        Self { load, state: Mutex::new(State { looked: None, last, calm: Duration::ZERO, rest: Duration::ZERO }) }
    }

    /// An object is going to be written, and none was lately.
    pub(super) fn begin(&self) {
        let mut state = lock(&self.state);
        let sample = self.load.sample();
        if sample.reads != state.last.reads {
            state.calm = sample.average;
        }
        state.last = sample;
    }

    /// A column is done: rests as long as is right.
    pub(super) fn column(&self, desk: &Desk) {
        let rest = self.rest(moment());
        if !rest.is_zero() {
            desk.pause(rest);
        }
    }

    fn rest(&self, now: Instant) -> Duration {
        let mut state = lock(&self.state);
        if state.looked.is_none_or(|looked| now.duration_since(looked) >= LOOK_EVERY) {
            state.looked = Some(now);
            let sample = self.load.sample();
            let slow = sample.average > (state.calm * 2).clamp(SLOW.0, SLOW.1);
            state.rest = match sample.reads != state.last.reads {
                false => Duration::ZERO,
                true if slow => (state.rest * 2).clamp(REST.0, REST.1),
                true if state.rest <= REST.0 => Duration::ZERO,
                true => state.rest / 2,
            };
            state.last = sample;
        }
        state.rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_reads_make_it_rest_and_it_goes_on_at_full_speed_without_them() {
        let gauge = Arc::new(LatencyGauge::default());
        let pace = Pace::new(gauge.clone());
        let mut now = moment();
        let mut look = |read: Option<Duration>| {
            now += LOOK_EVERY;
            if let Some(took) = read {
                (0..64).for_each(|_| gauge.record(took));
            }
            pace.rest(now)
        };
        assert_eq!(look(None), Duration::ZERO);
        assert_eq!(look(Some(Duration::from_micros(100))), Duration::ZERO, "fast reads need no rest");
        assert_eq!(look(Some(Duration::from_millis(50))), REST.0);
        (0..20).for_each(|_| {
            look(Some(Duration::from_millis(50)));
        });
        assert_eq!(look(Some(Duration::from_millis(50))), REST.1, "it never rests for ever");
        assert_eq!(look(Some(Duration::from_micros(100))), REST.1 / 2);
        assert_eq!(look(None), Duration::ZERO, "nobody reads any more");
    }
}
