//! Healing on read: bad leaves are written back at once; what needs more is
//! queued for [`Archive::run_heals`].

use super::encode::lock;
use super::object::{Object, ObjectRef, runs};
use super::shard::{ShardFault, leaf_matches};
use super::{Archive, ArchiveResult, Event, EventKind};
use crate::base::{LeafIndex, ShardIndex, ShardRange};
use crate::format::layout::QUARANTINE_DIR;
use crate::format::{BlockGeometry, BlockId};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Blocks that a read found damaged and could not heal by itself.
#[derive(Debug, Default)]
pub(super) struct HealQueue {
    blocks: Mutex<BTreeMap<(String, BlockId), ObjectRef>>,
    quarantined: AtomicU64,
}

/// Most blocks that wait to be healed; what is more is found by the next scrub.
const MAX_QUEUED: usize = 10_000;
/// Bytes that one process keeps of the bad ones it overwrites.
const MAX_QUARANTINE: u64 = 64 << 20;

impl Archive {
    /// Number of blocks that wait to be healed.
    pub fn heals_waiting(&self) -> usize {
        lock(&self.shared.heals.blocks).len()
    }

    /// Repairs up to `limit` blocks that reads found damaged. Returns how many were tried.
    pub fn run_heals(&self, limit: usize) -> ArchiveResult<usize> {
        let mut tried = 0;
        while tried < limit {
            let next = lock(&self.shared.heals.blocks).pop_first();
            let Some(((_, block), reference)) = next else { break };
            let object = self.object(&reference)?;
            let health = object.block_health(block)?;
            object.repair_block(&health)?;
            tried += 1;
        }
        Ok(tried)
    }
}

impl Object {
    fn queue_heal(&self, block: &BlockGeometry) {
        let mut blocks = lock(&self.shared().heals.blocks);
        if blocks.len() < MAX_QUEUED {
            blocks.insert((self.manifest().name.to_string(), block.id), self.reference());
        }
    }

    /// A shard that cannot be used at all: reads go around it for a while,
    /// and its block waits to be healed.
    pub(super) fn found_unusable(&self, block: &BlockGeometry, shard: ShardIndex, fault: &ShardFault) {
        let address = self.address(block, shard);
        let now = self.shared().clock.now();
        if !self.shared().caches.is_suspect(&address, now) {
            let file = self.shard_file_name(block, shard);
            tracing::warn!(object = %self.manifest().name, %file, %fault, "a shard is unusable; the others serve");
        }
        self.shared().caches.suspect(address, now);
        self.queue_heal(block);
    }

    /// Bad leaves of a shard that was only asked for help.
    pub(super) fn found_bad(&self, block: &BlockGeometry, shard: ShardIndex, bad: &[LeafIndex]) {
        let file = self.shard_file_name(block, shard);
        tracing::warn!(object = %self.manifest().name, %file, leaves = bad.len(), "damage found while decoding");
        self.queue_heal(block);
    }

    /// Writes recovered leaves back in place and reads them again. Never
    /// fails: what cannot be healed now is queued.
    ///
    /// Crash argument: the range was bad before; a write that is torn leaves
    /// it bad, and the other shards still restore it.
    pub(super) fn heal_leaves(
        &self,
        block: &BlockGeometry,
        shard: ShardIndex,
        range: ShardRange,
        bytes: &[u8],
    ) -> bool {
        let shared = self.shared();
        let file = self.shard_file_name(block, shard);
        let result = self.write_back(block, shard, range, bytes);
        let (kind, detail) = match &result {
            Ok(true) => (EventKind::Healed, "bad leaves were decoded from other shards and written back".to_string()),
            Ok(false) => {
                self.queue_heal(block);
                (EventKind::HealFailed, "served from other shards; the file as a whole waits to be rebuilt".to_string())
            }
            Err(error) => {
                self.queue_heal(block);
                (EventKind::HealFailed, format!("served from other shards; writing back failed: {error}"))
            }
        };
        tracing::warn!(object = %self.manifest().name, %file, %range, detail, "damage found");
        self.record(kind, &file, range, detail);
        if matches!(result, Ok(true)) {
            shared.caches.forget_shard(&self.address(block, shard));
        }
        matches!(result, Ok(true))
    }

    pub(super) fn record(&self, kind: EventKind, file: &str, range: ShardRange, detail: String) {
        let mut event = Event::new(self.shared().clock.now(), kind, file, detail);
        event.object = Some(self.manifest().name.clone());
        event.offset = range.start();
        event.length = range.len();
        self.shared().events.record(event);
    }

    /// Overwrites a range in place and verifies what the store then holds.
    /// `false` where the file is not of a kind that can be healed in place.
    fn write_back(
        &self,
        block: &BlockGeometry,
        shard: ShardIndex,
        range: ShardRange,
        bytes: &[u8],
    ) -> ArchiveResult<bool> {
        let store = &self.shared().store;
        let path = self.shard_file_name(block, shard);
        if !store.capabilities().range_write || self.open_file(&path)?.len() != block.shard_len(shard) {
            return Ok(false);
        }
        self.quarantine(&path, range);
        store.write_range(&self.shared().below(self.prefix(), &path)?, range.start(), bytes)?;
        let Some(table) = self.own_leaf_table(block, shard) else { return Ok(false) };
        let mut again = vec![0; bytes.len()];
        self.open_file(&path)?.read_at(range.start(), &mut again)?;
        let good = range.leaves().all(|leaf| {
            let part = ShardRange::of_leaf(leaf, block.shard_len(shard));
            let start = (part.start() - range.start()) as usize;
            leaf_matches(&again[start..start + part.len() as usize], leaf, &table)
        });
        Ok(good)
    }

    /// Keeps the bad bytes for inspection, as far as the bound allows. Best effort.
    fn quarantine(&self, path: &str, range: ShardRange) {
        let shared = self.shared();
        if shared.heals.quarantined.fetch_add(range.len(), Ordering::Relaxed) > MAX_QUARANTINE {
            return;
        }
        let mut bytes = vec![0; range.len() as usize];
        let kept = self.open_file(path).and_then(|file| file.read_at(range.start(), &mut bytes)).is_ok();
        let name = format!("{QUARANTINE_DIR}/{}/{}-{}", self.manifest().name, path.replace('/', "_"), range.start());
        if kept
            && let Ok(key) = shared.key(&name)
            && let Err(error) = shared.store.write(&key, &bytes)
        {
            tracing::debug!(%error, "the bad bytes could not be kept");
        }
    }

    /// Heals leaves of a shard that are known to be bad: decodes and writes them back.
    pub(super) fn heal_known_bad(
        &self,
        block: &BlockGeometry,
        shard: ShardIndex,
        bad: &[LeafIndex],
    ) -> ArchiveResult<bool> {
        let mut all = true;
        for run in runs(bad, block.shard_len(shard)) {
            let bytes = self.recover(block, shard, run, super::recover::Codes::InnerAndOuter)?;
            all &= self.heal_leaves(block, shard, run, &bytes);
        }
        Ok(all)
    }
}
