//! What happened to stored data, for `status` and the log.

use crate::base::{ObjectName, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt::Debug;

/// The four words of `health`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Every shard, tree and manifest copy is as it was written.
    Healthy,
    /// All content reads directly; parity, a tree or a manifest copy is damaged.
    Degraded,
    /// Content is damaged, and the parity can restore all of it.
    Recoverable,
    /// Content is damaged beyond the parity.
    Unrecoverable,
}

impl Verdict {
    /// The word, capitalised, as `health` prints it.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Healthy => "Healthy",
            Verdict::Degraded => "Degraded",
            Verdict::Recoverable => "Recoverable",
            Verdict::Unrecoverable => "Unrecoverable",
        }
    }
}

/// What kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// Damage was found and healed on disk.
    Healed,
    /// Damage was found, the read was served, the disk could not be healed.
    HealFailed,
    /// Bytes are lost.
    Lost,
    /// A structure of ours (manifest copy, tree, catalog, journal) was damaged and rebuilt.
    MetadataHealed,
    /// A store misbehaves.
    StoreSuspect,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When: seconds since 1970-01-01 UTC.
    pub seconds: i64,
    /// What.
    pub kind: EventKind,
    /// To which object, if to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<ObjectName>,
    /// Which file of it (`blocks/block_0/segments/segment_3.dat`), or which file of the store.
    pub file: String,
    /// First byte of the file that was affected.
    pub offset: u64,
    /// Number of bytes affected.
    pub length: u64,
    /// For people: cause, and what was done.
    pub detail: String,
}

impl Event {
    /// An event of the time `now`.
    pub fn new(now: Timestamp, kind: EventKind, file: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            seconds: now.seconds,
            kind,
            object: None,
            file: file.into(),
            offset: 0,
            length: 0,
            detail: detail.into(),
        }
    }
}

/// Where events go. Must not block for long, nor fail.
pub trait EventSink: Send + Sync + Debug {
    /// Takes one event.
    fn record(&self, event: Event);
}

/// Drops events.
impl EventSink for () {
    fn record(&self, _event: Event) {}
}
