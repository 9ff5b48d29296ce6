//! What the scrubber must know and remember: which objects there are, when
//! each was verified, and a few values that survive a restart.

use super::ScrubResult;
use crate::archive::{ObjectRef, Verdict};
use crate::base::{ObjectName, Timestamp};
use crate::catalog::{CatalogResult, ObjectRecord};
use std::collections::BinaryHeap;
use std::fmt::Debug;

/// An object that is to be verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Name and root.
    pub reference: ObjectRef,
    /// Bytes of all shards.
    pub stored_len: u64,
}

impl From<ObjectRecord> for Subject {
    fn from(record: ObjectRecord) -> Self {
        Self { reference: record.reference, stored_len: record.stored_len }
    }
}

/// The scrubber's memory and its list of objects. Durable as far as the
/// implementation is; losing it costs work, never data.
pub trait Ledger: Send + Sync + Debug {
    /// All objects in any order, until `visit` returns false.
    fn objects(&self, visit: &mut dyn FnMut(Subject) -> bool) -> CatalogResult<()>;

    /// Whether there (still) is an object of this name.
    fn knows(&self, object: &ObjectName) -> CatalogResult<bool>;

    /// When an object was last verified as a whole, and what it was found to be.
    fn verified(&self, object: &ObjectName) -> CatalogResult<Option<(Timestamp, Verdict)>>;

    /// Takes note that an object was verified as a whole.
    fn set_verified(&self, object: &ObjectName, at: Timestamp, verdict: Verdict) -> CatalogResult<()>;

    /// A value that was kept under `key`.
    fn value(&self, key: &str) -> CatalogResult<Option<String>>;

    /// Keeps a value under `key`.
    fn set_value(&self, key: &str, value: &str) -> CatalogResult<()>;

    /// Verifies the catalog's journal. Returns what was wrong.
    fn verify_journal(&self, repair: bool) -> CatalogResult<Vec<String>>;

    /// Whether it can heal the catalog's journal.
    fn heals_journal(&self) -> bool {
        true
    }
}

/// What is to be verified.
#[derive(Debug, Default)]
pub struct Due {
    /// Number of objects.
    pub objects: u64,
    /// Bytes of their shards.
    pub bytes: u64,
    /// The first of them: those that were never verified, then those that
    /// were verified longest ago; by name where that is equal.
    pub first: Vec<Subject>,
}

/// One object in the order of scrubbing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    verified: Option<Timestamp>,
    name: ObjectName,
}

/// An object in a heap whose top is the one to be verified last.
#[derive(Debug)]
struct Ranked {
    rank: Rank,
    record: Subject,
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.rank == other.rank
    }
}
impl Eq for Ranked {}
impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank.cmp(&other.rank)
    }
}

/// What `include` accepts of the objects that were not verified at or after
/// `before`, with the first `limit` of them.
pub fn due(
    ledger: &dyn Ledger,
    before: Timestamp,
    limit: usize,
    include: &dyn Fn(&Subject) -> bool,
) -> ScrubResult<Due> {
    let mut due = Due::default();
    let mut heap: BinaryHeap<Ranked> = BinaryHeap::new();
    let mut failed = Ok(());
    ledger.objects(&mut |record| {
        let verified = match ledger.verified(&record.reference.name) {
            Ok(verified) => verified.map(|(at, _)| at),
            Err(error) => {
                failed = Err(error);
                return false;
            }
        };
        if verified.is_some_and(|at| at >= before) || !include(&record) {
            return true;
        }
        due.objects += 1;
        due.bytes = due.bytes.saturating_add(record.stored_len);
        heap.push(Ranked { rank: Rank { verified, name: record.reference.name.clone() }, record });
        if heap.len() > limit {
            heap.pop();
        }
        true
    })?;
    failed?;
    due.first = heap.into_sorted_vec().into_iter().map(|ranked| ranked.record).collect();
    Ok(due)
}
