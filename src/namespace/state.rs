//! What is known in memory: changes that the catalog does not have yet (the
//! overlay), rows that were fetched from it (bounded caches), and the queue of
//! records on their way into it.

use super::draft::Edits;
use crate::base::{ErrorClass, Timestamp};
use crate::catalog::Inode;
use crate::format::journal::Record;
use crate::format::{NodeBody, StagingId};
use crate::staging::Generation;
use blockframe_api::Node;
use lru::LruCache;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hasher;
use std::num::NonZeroUsize;
use std::sync::Arc;

/// Rows of each kind that are kept of what the catalog has.
const CLEAN_ROWS: NonZeroUsize = NonZeroUsize::new(64 * 1024).unwrap();
/// Nodes without names that are remembered for whoever still knows their number.
const REMOVED: NonZeroUsize = NonZeroUsize::new(4096).unwrap();
/// Names of fresh directories that are remembered in all.
const FRESH_NAMES: usize = 1 << 20;
/// Changes closer together than this carry one time in the journal, nanoseconds.
const TIME_GRAIN: i128 = 100_000_000;

/// A row that the catalog does not have yet, and the change that made it.
#[derive(Debug, Clone)]
pub(super) struct Row<T> {
    pub(super) value: T,
    pub(super) seq: u64,
}

/// What runs once the change that asked for it is durable.
pub type Later = Box<dyn FnOnce() + Send>;

/// Everything behind the namespace's lock. Nothing here does I/O.
pub(super) struct State {
    pub(super) nodes: HashMap<Node, Row<Option<Arc<Inode>>>>,
    pub(super) names: BTreeMap<(Node, Vec<u8>), Row<Option<Node>>>,
    pub(super) parents: HashMap<Node, Row<Node>>,
    pub(super) clean: Clean,
    /// Open handles of each node.
    pub(super) opened: HashMap<Node, u32>,
    /// Directories that were made here: all names they ever had, as hashes.
    pub(super) fresh: Fresh,
    /// Nodes that lost their last name, for a while.
    pub(super) removed: LruCache<Node, Arc<Inode>>,
    pub(super) next_inode: u64,
    /// What `next_inode` was before the change that is being accepted.
    first_unused: u64,
    pub(super) queue: Queue,
    /// Number of the last change.
    pub(super) seq: u64,
    /// Changes up to this one are durable.
    pub(super) journaled: u64,
    /// Changes up to this one are in the catalog's database.
    pub(super) applied: u64,
    /// Counts how often rows went from the overlay to the database.
    pub(super) epoch: u64,
    /// Why no change is accepted any more.
    pub(super) failure: Option<String>,
    /// Why the last attempt to write failed, which is going to be repeated.
    pub(super) trouble: Option<(String, ErrorClass)>,
    /// Counts failed attempts.
    pub(super) queue_failures: u64,
}

/// Rows as the catalog has them.
pub(super) struct Clean {
    pub(super) nodes: LruCache<Node, Option<Arc<Inode>>>,
    pub(super) names: LruCache<(Node, Vec<u8>), Option<Node>>,
    pub(super) parents: LruCache<Node, Node>,
}

/// Names of directories that were made since this process began. What is not
/// among them does not exist, and the database need not be asked: trees that
/// are being copied or unpacked consist of such directories.
pub(super) struct Fresh {
    directories: LruCache<Node, HashSet<u64>>,
    names: usize,
}

impl Fresh {
    fn new() -> Self {
        Self { directories: LruCache::unbounded(), names: 0 }
    }

    /// A directory was made.
    fn made(&mut self, directory: Node) {
        self.directories.put(directory, HashSet::new());
    }

    /// A name was made.
    fn name(&mut self, directory: Node, name: &[u8]) {
        let Some(names) = self.directories.get_mut(&directory) else { return };
        if names.insert(hash(name)) {
            self.names += 1;
        }
        while self.names > FRESH_NAMES
            && let Some((_, names)) = self.directories.pop_lru()
        {
            self.names -= names.len();
        }
    }

    fn removed(&mut self, directory: Node) {
        if let Some(names) = self.directories.pop(&directory) {
            self.names -= names.len();
        }
    }

    /// Whether the directory never had this name.
    pub(super) fn lacks(&mut self, directory: Node, name: &[u8]) -> bool {
        self.directories.get(&directory).is_some_and(|names| !names.contains(&hash(name)))
    }
}

fn hash(name: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(name);
    hasher.finish()
}

/// Records that wait to be written as one group.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) records: Vec<Record>,
    /// Where in `records` the latest state of a node is: a later one takes its place.
    latest: HashMap<Node, usize>,
    time: Option<Timestamp>,
    /// Publications among the records: staging file and generation.
    pub(super) staged: Vec<(StagingId, Generation)>,
    pub(super) later: Vec<Later>,
}

impl Queue {
    fn push(&mut self, time: Timestamp, records: Vec<Record>) {
        if records.is_empty() {
            return;
        }
        if self.time.is_none_or(|last| nanoseconds(time) - nanoseconds(last) >= TIME_GRAIN) {
            self.records.push(Record::Time(time));
            self.time = Some(time);
        }
        for record in records {
            self.push_record(record);
        }
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty() && self.later.is_empty()
    }

    /// Puts an older queue before this one.
    pub(super) fn put_before(&mut self, older: Queue) {
        let newer = std::mem::replace(self, older);
        let moved = self.records.len();
        self.records.extend(newer.records);
        self.latest.extend(newer.latest.into_iter().map(|(node, at)| (node, at + moved)));
        self.time = newer.time.or(self.time);
        self.staged.extend(newer.staged);
        self.later.extend(newer.later);
    }

    fn push_record(&mut self, record: Record) {
        match &record {
            Record::Inode { node, body, .. } => {
                let node = Node::new(*node);
                if let Some(&at) = self.latest.get(&node)
                    && let Record::Inode { body: old, .. } = &self.records[at]
                    && (old == body || !has_content(old))
                {
                    self.records[at] = record;
                    return;
                }
                self.latest.insert(node, self.records.len());
            }
            Record::InodeRemoved(node) => {
                self.latest.remove(&Node::new(*node));
            }
            _ => {}
        }
        self.records.push(record);
    }
}

/// Whether a body has a committed content: that is history, and not to be skipped.
fn has_content(body: &NodeBody) -> bool {
    matches!(body, NodeBody::File(content) if content.size > 0)
}

fn nanoseconds(time: Timestamp) -> i128 {
    i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds)
}

impl State {
    pub(super) fn new(next_inode: u64) -> Self {
        let clean = Clean {
            nodes: LruCache::new(CLEAN_ROWS),
            names: LruCache::new(CLEAN_ROWS),
            parents: LruCache::new(CLEAN_ROWS),
        };
        Self {
            nodes: HashMap::new(),
            names: BTreeMap::new(),
            parents: HashMap::new(),
            clean,
            opened: HashMap::new(),
            fresh: Fresh::new(),
            removed: LruCache::new(REMOVED),
            next_inode,
            first_unused: next_inode,
            queue: Queue::default(),
            seq: 0,
            journaled: 0,
            applied: 0,
            epoch: 0,
            failure: None,
            trouble: None,
            queue_failures: 0,
        }
    }

    /// A node, if it is known whether there is one.
    pub(super) fn node(&mut self, node: Node) -> Option<Option<Arc<Inode>>> {
        match self.nodes.get(&node) {
            Some(row) => Some(row.value.clone()),
            None => self.clean.nodes.get(&node).cloned(),
        }
    }

    /// Where a name leads, if that is known.
    pub(super) fn name(&mut self, key: &(Node, Vec<u8>)) -> Option<Option<Node>> {
        if let Some(row) = self.names.get(key) {
            return Some(row.value);
        }
        let known = self.clean.names.get(key).copied();
        if known.is_none() && self.fresh.lacks(key.0, &key.1) {
            return Some(None);
        }
        known
    }

    /// The directory above a directory, if it is known.
    pub(super) fn parent(&mut self, directory: Node) -> Option<Node> {
        if directory == Node::ROOT {
            return Some(directory);
        }
        match self.parents.get(&directory) {
            Some(row) => Some(row.value),
            None => self.clean.parents.get(&directory).copied(),
        }
    }

    pub(super) fn is_open(&self, node: Node) -> bool {
        self.opened.contains_key(&node)
    }

    /// Whether nothing was known of a node until now.
    fn is_new(&mut self, node: Node) -> bool {
        !self.nodes.contains_key(&node) && node.number() >= self.first_unused
    }

    /// Makes a draft's edits the truth.
    pub(super) fn accept(&mut self, time: Timestamp, edits: Edits) {
        if let Some(node) = edits.opened {
            *self.opened.entry(node).or_insert(0) += 1;
        }
        self.first_unused = self.next_inode;
        self.next_inode = self.next_inode.max(edits.next_inode);
        if edits.records.is_empty() && edits.later.is_empty() {
            return;
        }
        self.seq += 1;
        let seq = self.seq;
        for (node, value) in edits.nodes {
            match &value {
                Some(inode) => {
                    if inode.is_directory() && self.is_new(node) {
                        self.fresh.made(node);
                    }
                    self.removed.pop(&node);
                }
                None => {
                    self.fresh.removed(node);
                    if let Some(Some(last)) = self.node(node) {
                        let last = Inode { links: 0, ..(*last).clone() };
                        self.removed.put(node, Arc::new(last));
                    }
                }
            }
            self.nodes.insert(node, Row { value, seq });
        }
        for (key, value) in edits.names {
            if value.is_some() {
                self.fresh.name(key.0, &key.1);
            }
            self.names.insert(key, Row { value, seq });
        }
        for (directory, value) in edits.parents {
            self.parents.insert(directory, Row { value, seq });
        }
        self.queue.push(edits.time.unwrap_or(time), edits.records);
        self.queue.staged.extend(edits.staged);
        self.queue.later.extend(edits.later);
    }

    /// The database has everything up to the change `applied`: those rows are
    /// clean now.
    pub(super) fn settle(&mut self, applied: u64) {
        self.applied = applied;
        self.journaled = self.journaled.max(applied);
        self.epoch += 1;
        let clean = &mut self.clean;
        self.nodes.retain(|node, row| {
            let keep = row.seq > applied;
            if !keep {
                clean.nodes.put(*node, row.value.clone());
            }
            keep
        });
        self.names.retain(|key, row| {
            let keep = row.seq > applied;
            if !keep {
                clean.names.put(key.clone(), row.value);
            }
            keep
        });
        self.parents.retain(|directory, row| {
            let keep = row.seq > applied;
            if !keep {
                clean.parents.put(*directory, row.value);
            }
            keep
        });
    }

    /// Forgets what was fetched: somebody has changed the database directly.
    pub(super) fn forget_clean(&mut self, next_inode: u64) {
        self.epoch += 1;
        self.clean.nodes.clear();
        self.clean.names.clear();
        self.clean.parents.clear();
        self.fresh = Fresh::new();
        self.next_inode = self.next_inode.max(next_inode);
    }
}
