//! The scrubber's thread in the mount daemon.

use super::control::{self, ScrubState};
use super::cursor::Cursor;
use super::ledger::due;
use super::pace::{Pause, StopSignal, elapsed};
use super::pass::{PassScope, Scrubber, Watch};
use super::{ScrubError, ScrubResult};
use crate::base::Timestamp;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// How often requests are looked for while nothing is due.
const POLL: Duration = Duration::from_secs(1);
/// How long the scrubber rests after an error.
const AFTER_ERROR: Duration = Duration::from_secs(60);

/// A running scrubber. Stops, and waits for its thread, when dropped.
#[derive(Debug)]
pub struct ScrubDaemon {
    stop: Arc<StopSignal>,
    thread: Option<JoinHandle<()>>,
}

impl ScrubDaemon {
    /// Starts the thread "scrub". `stop` must be the pause that `scrubber` was made with.
    pub fn start(scrubber: Scrubber, stop: Arc<StopSignal>) -> ScrubResult<Self> {
        let signal = stop.clone();
        let serve = move || scrubber.serve(&signal);
        let thread = std::thread::Builder::new().name("scrub".into()).spawn(serve).map_err(ScrubError::Thread)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for ScrubDaemon {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the scrubbing thread panicked");
        }
    }
}

/// What the daemon remembers between its looks.
#[derive(Debug, Default)]
pub(super) struct Watchman {
    /// When it was last looked for objects that are due.
    looked: Option<Timestamp>,
}

impl Scrubber {
    /// Works until `stop`.
    fn serve(&self, stop: &StopSignal) {
        let stopped = || stop.is_stopped();
        let watch = Watch { stop: &stopped, progress: &|_| {}, takes_requests: true };
        let mut watchman = Watchman::default();
        while !stop.is_stopped() {
            let rest = match self.serve_once(&mut watchman, &watch) {
                Ok(()) => POLL,
                // Somebody's pass in the foreground: it does the same work.
                Err(ScrubError::Busy { .. }) => POLL,
                Err(error) => {
                    tracing::error!(%error, "the scrub stopped; it goes on in a while");
                    AFTER_ERROR
                }
            };
            stop.pause(rest);
        }
        if let Err(error) = self.publish(ScrubState::Stopped) {
            tracing::warn!(%error, "the scrubber's status cannot be written");
        }
    }

    /// One look: heals what waits, and makes a pass if one is due.
    pub(super) fn serve_once(&self, watchman: &mut Watchman, watch: &Watch<'_>) -> ScrubResult<()> {
        self.heal_waiting(watch);
        // Before anything else: the pass of another process is not to be begun anew, nor its status overwritten.
        self.check_alone()?;
        if control::is_paused(&*self.ledger)? {
            return self.publish_rest(ScrubState::Paused);
        }
        match self.next_scope(watchman)? {
            Some(scope) => self.run_pass(scope, watch).map(drop),
            None => self.publish_rest(ScrubState::Idle),
        }
    }

    /// The pass to make now, if any.
    fn next_scope(&self, watchman: &mut Watchman) -> ScrubResult<Option<PassScope>> {
        let now = self.clock.now();
        if let Some(request) = control::start_pending(&*self.ledger)? {
            self.new_pass(PassScope::Everything)?;
            control::start_served(&*self.ledger, &request)?;
            return Ok(Some(PassScope::Everything));
        }
        let before = Timestamp { seconds: now.seconds.saturating_sub_unsigned(self.options.max_age.as_secs()), ..now };
        if Cursor::load(&*self.ledger)?.is_some() {
            return Ok(Some(PassScope::OlderThan(before)));
        }
        if watchman.looked.is_some_and(|looked| looked <= now && elapsed(looked, now) < self.options.check_every) {
            return Ok(None);
        }
        watchman.looked = Some(now);
        let any = due(&*self.ledger, before, 1, &|_| true)?.objects > 0;
        Ok(any.then_some(PassScope::OlderThan(before)))
    }
}
