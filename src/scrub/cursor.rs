//! Where a pass is, so that a restart goes on there.

use super::ScrubResult;
use super::control::{self, CURSOR, Findings};
use super::ledger::Ledger;
use crate::archive::ObjectRef;
use crate::base::{ObjectName, Timestamp};
use serde::{Deserialize, Serialize};

/// The version of the cursor that this program writes; others are ignored, and the pass begins anew.
const VERSION: u32 = 1;

/// Most damaged blocks of an object that are remembered over a restart;
/// with more, the object is begun anew.
const MAX_REVISITS: usize = 256;

/// A moment as the cursor keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    seconds: i64,
    nanoseconds: u32,
}

impl From<Timestamp> for Moment {
    fn from(time: Timestamp) -> Self {
        Self { seconds: time.seconds, nanoseconds: time.nanoseconds }
    }
}

impl From<Moment> for Timestamp {
    fn from(moment: Moment) -> Self {
        Self { seconds: moment.seconds, nanoseconds: moment.nanoseconds }
    }
}

/// A pass under way. Which objects are done is told by when they were
/// verified; here stands the rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    version: u32,
    /// When the pass began.
    pub started: Moment,
    /// The pass is about objects that were not verified at this time or later.
    pub before: Moment,
    /// Whether somebody asked for the pass.
    pub requested: bool,
    /// Objects to verify in all.
    pub objects_total: u64,
    /// Bytes to verify in all.
    pub bytes_total: u64,
    /// Objects verified.
    pub objects_done: u64,
    /// Bytes verified, of finished objects.
    pub bytes_done: u64,
    /// What was found.
    pub found: Findings,
    /// The object in the middle of which the pass stopped.
    pub within: Option<Within>,
}

/// A place within an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Within {
    /// The object's directory.
    pub object: ObjectName,
    /// The object's root.
    pub root: crate::base::Digest,
    /// Position of the block to go on with.
    pub next_block: usize,
    /// Positions of earlier blocks that are still damaged.
    pub revisit: Vec<usize>,
    /// Whether any damage was found in it.
    pub damaged: bool,
}

impl Within {
    /// The place before block `next_block`; `None` where it is not worth
    /// keeping, or too much would have to be kept.
    pub fn new(object: &ObjectRef, next_block: usize, revisit: Vec<usize>, damaged: bool) -> Option<Self> {
        (next_block > 0 && revisit.len() <= MAX_REVISITS).then(|| Self {
            object: object.name.clone(),
            root: object.root,
            next_block,
            revisit,
            damaged,
        })
    }

    /// Whether it is a place in this object.
    pub fn is_in(&self, object: &ObjectRef) -> bool {
        self.object == object.name && self.root == object.root
    }
}

impl Cursor {
    /// A pass that begins now.
    pub fn new(started: Timestamp, before: Timestamp, requested: bool) -> Self {
        Self {
            version: VERSION,
            started: started.into(),
            before: before.into(),
            requested,
            objects_total: 0,
            bytes_total: 0,
            objects_done: 0,
            bytes_done: 0,
            found: Findings::default(),
            within: None,
        }
    }

    /// The pass that was under way; none when there was none, or it cannot be understood.
    pub fn load(ledger: &dyn Ledger) -> ScrubResult<Option<Self>> {
        if ledger.value(CURSOR)?.is_none_or(|text| text.is_empty()) {
            return Ok(None);
        }
        let cursor: Option<Self> = control::json_value(ledger, CURSOR)?;
        Ok(cursor.filter(|cursor| cursor.version == VERSION))
    }

    /// Keeps the place.
    pub fn save(&self, ledger: &dyn Ledger) -> ScrubResult<()> {
        control::set_json_value(ledger, CURSOR, self)
    }

    /// No pass is under way.
    pub fn clear(ledger: &dyn Ledger) -> ScrubResult<()> {
        Ok(ledger.set_value(CURSOR, "")?)
    }
}
