//! Files that could not be committed.

use blockframe_api::Node;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// How long a file that failed is left alone: longer each time.
const FIRST_REST: Duration = Duration::from_secs(30);
/// After this many failures the rest does not get longer.
const LONGEST: u32 = 7;

/// When they may be tried again.
#[derive(Debug, Default)]
pub(super) struct Failures(HashMap<Node, (Instant, u32)>);

impl Failures {
    /// A file failed. Whether it is the first time in a row.
    pub(super) fn add(&mut self, node: Node, now: Instant) -> bool {
        let count = self.0.get(&node).map_or(0, |(_, count)| *count);
        self.0.insert(node, (now + FIRST_REST * (1 << count.min(LONGEST)), count + 1));
        count == 0
    }

    /// When it may be tried again, if it failed.
    pub(super) fn until(&self, node: Node) -> Option<Instant> {
        self.0.get(&node).map(|(until, _)| *until)
    }

    /// The file is committed, or gone. Whether it had failed.
    pub(super) fn remove(&mut self, node: Node) -> bool {
        self.0.remove(&node).is_some()
    }

    /// Forgets those of other files.
    pub(super) fn keep(&mut self, nodes: &HashSet<Node>) -> bool {
        let before = self.0.len();
        self.0.retain(|node, _| nodes.contains(node));
        self.0.len() < before
    }

    /// The files.
    pub(super) fn nodes(&self) -> HashSet<Node> {
        self.0.keys().copied().collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
