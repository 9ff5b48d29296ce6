//! One pass over all that is due: order, pace, place, progress.

use super::control::{
    self, Findings, IDLE_HEARTBEAT, LAST_PASS, METADATA_VERIFIED, PassSummary, STATUS, ScrubState, ScrubStatus,
};
use super::cursor::{Cursor, Within};
use super::examine::{Examined, examine};
use super::ledger::{Ledger, Subject, due};
use super::pace::{Pacer, Pause, elapsed, lock};
use super::{ScrubError, ScrubOptions, ScrubResult};
use crate::archive::{Archive, Event, EventKind, HealthScan, ObjectHealth, ScanControl, Verdict};
use crate::base::{Clock, ForegroundLoad, ObjectName, Timestamp};
use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Objects that are put in order at once.
const BATCH: usize = 4096;
/// Objects that may fail to be looked at before a pass gives up.
const MAX_FAILURES: usize = 1000;
/// Lost ranges of an object that are recorded as events.
const MAX_LOST_EVENTS: usize = 16;
/// How often status and place are written, and requests read.
const TICK: Duration = Duration::from_secs(1);
/// Passes that nobody asked for verify descriptors and journal this often, seconds.
const METADATA_EVERY: i64 = 86_400;

/// Verifies and repairs.
#[derive(Debug)]
pub struct Scrubber {
    pub(super) archive: Archive,
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) options: ScrubOptions,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) pause: Arc<dyn Pause>,
    pacer: Pacer,
    live: Mutex<Live>,
    /// Bytes verified of the object that is being examined.
    in_object: AtomicU64,
}

/// What is shown of the work, and when that was done last.
#[derive(Debug, Default)]
struct Live {
    status: ScrubStatus,
    /// Bytes of the pass's finished objects.
    bytes_before: u64,
    ticked: Option<Timestamp>,
    /// Time and bytes of the last look at the rate.
    measured: Option<(Timestamp, u64)>,
    interruption: Option<Interruption>,
}

/// Why a pass stops before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Interruption {
    Stopped,
    Paused,
    Superseded,
}

/// How a pass came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PassEnd {
    /// All that was due is verified.
    Finished(PassSummary),
    /// It was told to stop; the next pass goes on there.
    Stopped,
    /// It is to pause; the next pass goes on there.
    Paused,
    /// A new pass was asked for.
    Superseded,
}

/// What a pass is about, unless one is under way that it goes on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PassScope {
    /// Every object.
    Everything,
    /// Objects that were never verified, or before this time.
    OlderThan(Timestamp),
}

/// Who watches a pass.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// Whether to stop.
    pub stop: &'a (dyn Fn() -> bool + Sync),
    /// Told the status about once a second.
    pub progress: &'a (dyn Fn(&ScrubStatus) + Sync),
    /// Whether requests to pause and to begin anew are for this pass.
    pub takes_requests: bool,
}

impl fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("takes_requests", &self.takes_requests).finish_non_exhaustive()
    }
}

impl Scrubber {
    /// A scrubber of `archive`, which takes the time from the archive's clock.
    pub fn new(
        archive: Archive,
        ledger: Arc<dyn Ledger>,
        options: ScrubOptions,
        pause: Arc<dyn Pause>,
        load: Arc<dyn ForegroundLoad>,
    ) -> Self {
        let clock = archive.clock().clone();
        let pacer = Pacer::new(options.bytes_per_second, options.slow_read, clock.clone(), load);
        let (live, in_object) = (Mutex::default(), AtomicU64::new(0));
        Self { archive, ledger, options, clock, pause, pacer, live, in_object }
    }

    /// Goes on with the pass under way, or makes a new one about `scope`.
    ///
    /// Errors: `Busy` while another process scrubs; `StoreGone` when the store
    /// is not there (nothing is recorded as lost then).
    pub fn run_pass(&self, scope: PassScope, watch: &Watch<'_>) -> ScrubResult<PassEnd> {
        self.check_alone()?;
        let mut cursor = match Cursor::load(&*self.ledger)? {
            Some(cursor) => cursor,
            None => self.new_pass(scope)?,
        };
        *lock(&self.live) = Live::default();
        self.in_object.store(0, Ordering::Relaxed);
        let result = self.pass(&mut cursor, watch);
        let ended = match &result {
            Ok(PassEnd::Finished(_) | PassEnd::Superseded) => Cursor::clear(&*self.ledger),
            _ => cursor.save(&*self.ledger),
        };
        self.publish(match &result {
            Ok(PassEnd::Paused) => ScrubState::Paused,
            _ if watch.takes_requests => ScrubState::Idle,
            _ => ScrubState::Stopped,
        })?;
        let end = result?;
        ended?;
        Ok(end)
    }

    pub(super) fn new_pass(&self, scope: PassScope) -> ScrubResult<Cursor> {
        let now = self.clock.now();
        let cursor = match scope {
            PassScope::Everything => Cursor::new(now, now, true),
            PassScope::OlderThan(before) => Cursor::new(now, before, false),
        };
        cursor.save(&*self.ledger)?;
        Ok(cursor)
    }

    /// Error when another process scrubs.
    pub(super) fn check_alone(&self) -> ScrubResult<()> {
        match control::status(&*self.ledger)? {
            Some(status)
                if status.pid != std::process::id()
                    && status.state == ScrubState::Running
                    && status.is_alive(self.clock.now()) =>
            {
                Err(ScrubError::Busy { pid: status.pid })
            }
            _ => Ok(()),
        }
    }

    fn pass(&self, cursor: &mut Cursor, watch: &Watch<'_>) -> ScrubResult<PassEnd> {
        let mut skipped: HashSet<ObjectName> = HashSet::new();
        loop {
            let include = |record: &Subject| !skipped.contains(&record.reference.name);
            let mut due = due(&*self.ledger, cursor.before.into(), BATCH, &include)?;
            cursor.objects_total = cursor.objects_done + due.objects;
            cursor.bytes_total = cursor.bytes_done.saturating_add(due.bytes);
            if due.first.is_empty() {
                break;
            }
            if let Some(within) = &cursor.within
                && let Some(position) = due.first.iter().position(|record| within.is_in(&record.reference))
            {
                due.first[..=position].rotate_right(1);
            }
            for record in due.first {
                self.heal_waiting(watch);
                self.tick(watch);
                if let Some(end) = self.interrupted() {
                    return Ok(end);
                }
                if let Some(end) = self.object(&record, cursor, watch, &mut skipped)? {
                    return Ok(end);
                }
            }
        }
        self.heal_waiting(watch);
        self.metadata(cursor)?;
        let summary = PassSummary {
            started: Timestamp::from(cursor.started).seconds,
            ended: self.clock.now().seconds,
            objects: cursor.objects_done,
            bytes: cursor.bytes_done,
            found: cursor.found,
        };
        control::set_json_value(&*self.ledger, LAST_PASS, &summary)?;
        Ok(PassEnd::Finished(summary))
    }

    /// Repairs what reads found damaged. A block that cannot be repaired is found again.
    pub(super) fn heal_waiting(&self, watch: &Watch<'_>) {
        let mut left = self.archive.heals_waiting();
        while left > 0 && !(watch.stop)() {
            if let Err(error) = self.archive.run_heals(1) {
                tracing::error!(%error, "a block that a read found damaged could not be repaired");
            }
            left -= 1;
        }
    }

    fn object(
        &self,
        record: &Subject,
        cursor: &mut Cursor,
        watch: &Watch<'_>,
        skipped: &mut HashSet<ObjectName>,
    ) -> ScrubResult<Option<PassEnd>> {
        let object = &record.reference;
        let resume = cursor.within.take_if(|within| within.is_in(object));
        self.show(cursor, Some(&object.name));
        let progress = |bytes| {
            self.in_object.fetch_add(bytes, Ordering::Relaxed);
            self.slow_down(bytes, watch);
        };
        let pace = |bytes| self.slow_down(bytes, watch);
        let cancelled = || self.interrupted().is_some() || (watch.stop)();
        let control = ScanControl { progress: &progress, cancelled: &cancelled, read_once: true };
        let again = ScanControl { progress: &pace, ..control };
        let mut saved = self.clock.now();
        let mut after_block = |scan: &HealthScan, damaged: bool| {
            self.in_object.store(scan.bytes_before(scan.position()), Ordering::Relaxed);
            self.heal_waiting(watch);
            // Kept now and then, so that a crash costs no more than the blocks since.
            let now = self.clock.now();
            if elapsed(saved, now) >= TICK {
                saved = now;
                cursor.within = Within::new(object, scan.position(), scan.damaged_positions(), damaged);
                if let Err(error) = cursor.save(&*self.ledger) {
                    tracing::warn!(%error, "the scrubber's place could not be kept");
                }
            }
        };
        let examined = examine(&self.archive, object, resume.as_ref(), control, again, &mut after_block);
        cursor.within = None;
        match examined {
            Examined::Interrupted(within) => {
                cursor.within = within;
                self.tick(watch);
                return Ok(Some(self.interrupted().unwrap_or(PassEnd::Stopped)));
            }
            Examined::Done { health, damaged } => {
                self.judged(record, health.verdict, Some(&health), damaged, cursor)?;
            }
            Examined::ManifestLost(error) => {
                tracing::error!(%error, "an object is lost");
                // A cleaned-up object has no manifest either.
                if self.ledger.knows(&object.name)? {
                    self.judged(record, Verdict::Unrecoverable, None, true, cursor)?;
                }
            }
            Examined::Failed(error) => {
                tracing::error!(object = %object.name, %error, "an object could not be verified");
                cursor.found.failed += 1;
                skipped.insert(object.name.clone());
                if skipped.len() >= MAX_FAILURES {
                    return Err(error.into());
                }
            }
        }
        self.in_object.store(0, Ordering::Relaxed);
        Ok(None)
    }

    /// Records what an object was found to be.
    fn judged(
        &self,
        record: &Subject,
        verdict: Verdict,
        health: Option<&ObjectHealth>,
        damaged: bool,
        cursor: &mut Cursor,
    ) -> ScrubResult<()> {
        let name = &record.reference.name;
        if verdict == Verdict::Unrecoverable {
            // With the disk gone, everything looks lost.
            self.check_store()?;
            let known = self.ledger.verified(name)?.is_some_and(|(_, before)| before == verdict);
            if !known {
                self.record_losses(name, health);
            }
            cursor.found.lost += 1;
        }
        cursor.found.damaged += u64::from(damaged);
        cursor.found.healed += u64::from(damaged && verdict == Verdict::Healthy);
        // A clock that went back must not make the object due again.
        let at = self.clock.now().max(cursor.started.into());
        self.ledger.set_verified(name, at, verdict)?;
        cursor.objects_done += 1;
        cursor.bytes_done = cursor.bytes_done.saturating_add(record.stored_len);
        Ok(())
    }

    fn record_losses(&self, object: &ObjectName, health: Option<&ObjectHealth>) {
        let now = self.clock.now();
        let event = |file: &str, detail: &str| {
            let mut event = Event::new(now, EventKind::Lost, file, detail);
            event.object = Some(object.clone());
            event
        };
        let Some(health) = health else {
            self.archive.events().record(event(crate::format::layout::MANIFEST, "no copy of the manifest is readable"));
            return;
        };
        for lost in health.lost.iter().take(MAX_LOST_EVENTS) {
            let mut event = event(&lost.file, "damaged beyond the parity");
            (event.offset, event.length) = (lost.range.start(), lost.range.len());
            self.archive.events().record(event);
        }
    }

    /// Error when the store does not show that it is this archive's.
    fn check_store(&self) -> ScrubResult<()> {
        let gone = || ScrubError::StoreGone { store: self.archive.store().label().to_string() };
        self.archive.store().health_check().map_err(|_| gone())?;
        if self.archive.has_descriptor()? { Ok(()) } else { Err(gone()) }
    }

    /// Verifies descriptors and the catalog's journal.
    fn metadata(&self, cursor: &mut Cursor) -> ScrubResult<()> {
        let now = self.clock.now();
        let last: Option<i64> = self.ledger.value(METADATA_VERIFIED)?.and_then(|text| text.parse().ok());
        if !cursor.requested && last.is_some_and(|last| (now.seconds - last).abs() < METADATA_EVERY) {
            return Ok(());
        }
        self.check_store()?;
        let descriptors = self.archive.verify_descriptors(true)?;
        let journal = self.ledger.verify_journal(true)?;
        let kind = if self.ledger.heals_journal() { EventKind::MetadataHealed } else { EventKind::HealFailed };
        for what in &journal {
            tracing::warn!(what, "the catalog's journal was damaged");
            let event = Event::new(now, kind, "catalog journal", what);
            self.archive.events().record(event);
        }
        cursor.found.metadata += (descriptors.len() + journal.len()) as u64;
        Ok(self.ledger.set_value(METADATA_VERIFIED, &now.seconds.to_string())?)
    }

    /// Waits as long as the rate demands; requests and status go on meanwhile.
    fn slow_down(&self, bytes: u64, watch: &Watch<'_>) {
        let mut wait = self.pacer.took(bytes);
        self.tick(watch);
        while !wait.is_zero() && !(watch.stop)() && self.interrupted().is_none() {
            let slice = wait.min(TICK);
            self.pause.pause(slice);
            wait -= slice;
            self.tick(watch);
        }
    }

    fn interrupted(&self) -> Option<PassEnd> {
        lock(&self.live).interruption.map(|interruption| match interruption {
            Interruption::Stopped => PassEnd::Stopped,
            Interruption::Paused => PassEnd::Paused,
            Interruption::Superseded => PassEnd::Superseded,
        })
    }

    fn show(&self, cursor: &Cursor, object: Option<&ObjectName>) {
        let mut live = lock(&self.live);
        live.bytes_before = cursor.bytes_done;
        let status = &mut live.status;
        status.state = ScrubState::Running;
        status.started = Some(Timestamp::from(cursor.started).seconds);
        (status.objects_done, status.objects_total) = (cursor.objects_done, cursor.objects_total);
        (status.bytes_done, status.bytes_total) = (cursor.bytes_done, cursor.bytes_total);
        status.object = object.map(ToString::to_string);
        status.found = cursor.found;
    }

    /// Once a second: writes the status and reads the requests. One thread
    /// does it, the others do not wait.
    fn tick(&self, watch: &Watch<'_>) {
        let Ok(mut live) = self.live.try_lock() else { return };
        if (watch.stop)() {
            live.interruption.get_or_insert(Interruption::Stopped);
        }
        let now = self.clock.now();
        if live.ticked.is_some_and(|ticked| elapsed(ticked, now) < TICK && ticked <= now) {
            return;
        }
        live.ticked = Some(now);
        live.measure(now, self.in_object.load(Ordering::Relaxed));
        if watch.takes_requests {
            match self.request() {
                Ok(Some(interruption)) => {
                    live.interruption.get_or_insert(interruption);
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "requests to the scrubber cannot be read"),
            }
        }
        if let Err(error) = control::set_json_value(&*self.ledger, STATUS, &live.status) {
            tracing::warn!(%error, "the scrubber's status cannot be written");
        }
        let status = live.status.clone();
        drop(live);
        (watch.progress)(&status);
    }

    fn request(&self) -> ScrubResult<Option<Interruption>> {
        if control::is_paused(&*self.ledger)? {
            return Ok(Some(Interruption::Paused));
        }
        Ok(control::start_pending(&*self.ledger)?.map(|_| Interruption::Superseded))
    }

    /// Writes the status of a scrubber without work, if it is news or old.
    pub(super) fn publish_rest(&self, state: ScrubState) -> ScrubResult<()> {
        let now = self.clock.now().seconds;
        let known = {
            let live = lock(&self.live);
            live.status.state == state && (now - live.status.heartbeat).abs() < IDLE_HEARTBEAT
        };
        // A pass in the foreground has written its own status over ours.
        let ours = || control::status(&*self.ledger).map(|status| status.is_some_and(|s| s.pid == std::process::id()));
        if known && ours()? { Ok(()) } else { self.publish(state) }
    }

    /// Writes the status with another state.
    pub(super) fn publish(&self, state: ScrubState) -> ScrubResult<()> {
        let mut live = lock(&self.live);
        live.status.state = state;
        live.status.pid = std::process::id();
        live.status.heartbeat = self.clock.now().seconds;
        if state != ScrubState::Running {
            (live.status.bytes_per_second, live.status.eta_seconds) = (0, None);
        }
        if state == ScrubState::Idle {
            live.status = ScrubStatus {
                state,
                pid: live.status.pid,
                heartbeat: live.status.heartbeat,
                found: Findings::default(),
                ..ScrubStatus::default()
            };
        }
        control::set_json_value(&*self.ledger, STATUS, &live.status)
    }
}

impl Live {
    /// Brings bytes, rate and time left up to date.
    fn measure(&mut self, now: Timestamp, in_object: u64) {
        let bytes = self.bytes_before.saturating_add(in_object);
        let status = &mut self.status;
        (status.pid, status.heartbeat) = (std::process::id(), now.seconds);
        if let Some((then, before)) = self.measured {
            let passed = elapsed(then, now).as_secs_f64();
            if passed > 0.0 {
                let rate = bytes.saturating_sub(before) as f64 / passed;
                let old = status.bytes_per_second as f64;
                let smooth = if old == 0.0 { rate } else { old * 0.8 + rate * 0.2 };
                status.bytes_per_second = smooth as u64;
            }
        }
        self.measured = Some((now, bytes));
        status.bytes_done = bytes.min(status.bytes_total.max(bytes));
        let left = status.bytes_total.saturating_sub(bytes);
        status.eta_seconds = left.checked_div(status.bytes_per_second);
    }
}
