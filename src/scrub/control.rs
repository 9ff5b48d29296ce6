//! What the daemon's scrubber and the command line tell each other, as values
//! in the health log. All survive restarts; each has one writer:
//!
//! | key | writer | value |
//! |---|---|---|
//! | `scrub.paused` | command line | `true` or `false` |
//! | `scrub.start_requested` | command line | time of the last `scrub start`, as `seconds.nanoseconds` |
//! | `scrub.start_served` | whoever scrubs | the `scrub.start_requested` for which a pass was begun |
//! | `scrub.status` | whoever scrubs | [`ScrubStatus`] as JSON, renewed every second of a pass, else every minute |
//! | `scrub.cursor` | whoever scrubs | the pass under way as JSON ([`super::cursor::Cursor`]) |
//! | `scrub.last_pass` | whoever scrubs | [`PassSummary`] of the last finished pass as JSON |
//! | `scrub.metadata_verified` | whoever scrubs | when descriptors and journal were last verified, seconds |

use super::ScrubResult;
use super::ledger::Ledger;
use crate::base::Timestamp;
use serde::{Deserialize, Serialize};

pub(super) const PAUSED: &str = "scrub.paused";
pub(super) const START_REQUESTED: &str = "scrub.start_requested";
pub(super) const START_SERVED: &str = "scrub.start_served";
pub(super) const STATUS: &str = "scrub.status";
pub(super) const CURSOR: &str = "scrub.cursor";
pub(super) const LAST_PASS: &str = "scrub.last_pass";
pub(super) const METADATA_VERIFIED: &str = "scrub.metadata_verified";

/// How often a scrubber without work renews its status, so that a disk may sleep, seconds.
pub(super) const IDLE_HEARTBEAT: i64 = 60;
/// A status of a pass that is older than this belongs to a process that is gone, seconds.
const STALE: i64 = 15;

/// What a scrubber is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScrubState {
    /// No pass is due.
    #[default]
    Idle,
    /// A pass is under way.
    Running,
    /// Stopped until `resume`.
    Paused,
    /// The process has ended; an unfinished pass goes on with the next one.
    Stopped,
}

/// Where a scrubber is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ScrubStatus {
    /// What it is doing.
    pub state: ScrubState,
    /// Its process.
    pub pid: u32,
    /// When this was written, seconds since 1970-01-01 UTC.
    pub heartbeat: i64,
    /// When the pass began, seconds since 1970-01-01 UTC.
    pub started: Option<i64>,
    /// Objects that the pass has verified.
    pub objects_done: u64,
    /// Objects that the pass shall verify.
    pub objects_total: u64,
    /// Bytes that the pass has verified.
    pub bytes_done: u64,
    /// Bytes that the pass shall verify.
    pub bytes_total: u64,
    /// Bytes verified per second, lately.
    pub bytes_per_second: u64,
    /// Seconds until the pass ends, at that rate.
    pub eta_seconds: Option<u64>,
    /// The object that is being verified.
    pub object: Option<String>,
    /// What the pass has found so far.
    pub found: Findings,
}

impl ScrubStatus {
    /// Whether the process that wrote it still scrubs, or could.
    pub fn is_alive(&self, now: Timestamp) -> bool {
        let stale = match self.state {
            ScrubState::Stopped => return false,
            ScrubState::Running => STALE,
            ScrubState::Idle | ScrubState::Paused => 2 * IDLE_HEARTBEAT + STALE,
        };
        (now.seconds - self.heartbeat).abs() <= stale
            && i32::try_from(self.pid)
                .ok()
                .and_then(rustix::process::Pid::from_raw)
                // An error other than "no such process" means that it is somebody else's.
                .is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
    }
}

/// What a pass has found, in objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Findings {
    /// Objects with any damage.
    pub damaged: u64,
    /// Damaged objects that are whole again.
    pub healed: u64,
    /// Objects of which content is lost.
    pub lost: u64,
    /// Objects that could not be looked at.
    pub failed: u64,
    /// Descriptors and journals that were damaged.
    pub metadata: u64,
}

/// A pass that came to its end.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PassSummary {
    /// When it began, seconds since 1970-01-01 UTC.
    pub started: i64,
    /// When it ended, seconds since 1970-01-01 UTC.
    pub ended: i64,
    /// Objects verified.
    pub objects: u64,
    /// Bytes verified.
    pub bytes: u64,
    /// What was found.
    pub found: Findings,
}

/// Asks for a new pass, and ends a pause.
pub fn request_start(ledger: &dyn Ledger, now: Timestamp) -> ScrubResult<()> {
    ledger.set_value(PAUSED, "false")?;
    Ok(ledger.set_value(START_REQUESTED, &format!("{}.{:09}", now.seconds, now.nanoseconds))?)
}

/// Asks the scrubber to pause, or to go on.
pub fn request_pause(ledger: &dyn Ledger, paused: bool) -> ScrubResult<()> {
    Ok(ledger.set_value(PAUSED, if paused { "true" } else { "false" })?)
}

/// Whether the scrubber is to pause.
pub fn is_paused(ledger: &dyn Ledger) -> ScrubResult<bool> {
    Ok(ledger.value(PAUSED)?.is_some_and(|value| value == "true"))
}

/// The request for a new pass that no pass was begun for yet.
pub fn start_pending(ledger: &dyn Ledger) -> ScrubResult<Option<String>> {
    let served = ledger.value(START_SERVED)?;
    Ok(ledger.value(START_REQUESTED)?.filter(|requested| Some(requested) != served.as_ref()))
}

/// A pass was begun for this request.
pub(super) fn start_served(ledger: &dyn Ledger, request: &str) -> ScrubResult<()> {
    Ok(ledger.set_value(START_SERVED, request)?)
}

/// The last status that any scrubber wrote. What is unreadable counts as none.
pub fn status(ledger: &dyn Ledger) -> ScrubResult<Option<ScrubStatus>> {
    json_value(ledger, STATUS)
}

/// The last pass that came to its end.
pub fn last_pass(ledger: &dyn Ledger) -> ScrubResult<Option<PassSummary>> {
    json_value(ledger, LAST_PASS)
}

pub(super) fn json_value<T: for<'de> Deserialize<'de>>(ledger: &dyn Ledger, key: &str) -> ScrubResult<Option<T>> {
    let Some(text) = ledger.value(key)? else { return Ok(None) };
    let parsed = serde_json::from_str(&text);
    if let Err(error) = &parsed {
        tracing::warn!(key, %error, "a value of the health log is unreadable and is ignored");
    }
    Ok(parsed.ok())
}

pub(super) fn set_json_value<T: Serialize>(ledger: &dyn Ledger, key: &str, value: &T) -> ScrubResult<()> {
    match serde_json::to_string(value) {
        Ok(text) => Ok(ledger.set_value(key, &text)?),
        Err(error) => {
            tracing::error!(key, %error, "a value cannot be written as JSON");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_alive_only_while_its_process_renews_it() {
        let now = Timestamp { seconds: 1000, nanoseconds: 0 };
        let own = ScrubStatus {
            state: ScrubState::Running,
            pid: std::process::id(),
            heartbeat: 995,
            ..ScrubStatus::default()
        };
        assert!(own.is_alive(now));
        assert!(!ScrubStatus { heartbeat: 900, ..own.clone() }.is_alive(now));
        assert!(!ScrubStatus { state: ScrubState::Stopped, ..own.clone() }.is_alive(now));
        assert!(!ScrubStatus { pid: 0, ..own.clone() }.is_alive(now));
        assert!(!ScrubStatus { pid: u32::MAX, ..own }.is_alive(now));
    }

    #[test]
    fn the_status_json_has_stable_names() {
        let json = serde_json::to_value(ScrubStatus::default()).unwrap();
        let names: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
        let mut expected = [
            "state",
            "pid",
            "heartbeat",
            "started",
            "objects_done",
            "objects_total",
            "bytes_done",
            "bytes_total",
            "bytes_per_second",
            "eta_seconds",
            "object",
            "found",
        ];
        expected.sort_unstable();
        assert_eq!(names, expected);
        assert_eq!(json["state"], "idle");
    }
}
