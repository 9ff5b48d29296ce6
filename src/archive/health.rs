//! What is damaged, as data: every file of an object is read and compared
//! with the manifest; nothing is changed.

use super::encode::lock;
use super::object::{Object, ObjectRef};
use super::recover::Codes;
use super::scan::ScanControl;
use super::shard::ShardFault;
use super::{ArchiveResult, Verdict};
use crate::base::units::leaf_count;
use crate::base::{LeafIndex, ShardIndex, ShardRange};
use crate::format::tree::{has_tree, tree_is_whole, tree_len};
use crate::format::{BlockGeometry, BlockId, layout};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of a shard that are read at once.
const READ: u64 = 256 * 1024;
/// Blocks of fewer bytes are not worth a second thread.
const PARALLEL_FROM: u64 = 1024 * 1024;

/// How closely to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Manifests, and whether every file is there with its length.
    Quick,
    /// Every byte.
    Full,
}

/// Leaves that are bad, and in which shards of the block.
type BadLeaves = BTreeMap<LeafIndex, Vec<ShardIndex>>;

/// What a shard's file was found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShardState {
    /// As it was written (as far as the depth tells).
    Healthy,
    /// It cannot be used at all.
    Unusable(ShardFault),
    /// Some leaves are bad, or the file is too short or too long.
    Damaged {
        /// The bad leaves; those behind the end of a short file included.
        leaves: Vec<LeafIndex>,
        /// The file's length, where it is wrong.
        wrong_len: Option<u64>,
    },
}

impl ShardState {
    /// Whether a leaf can be read from the shard.
    pub fn has(&self, leaf: LeafIndex) -> bool {
        match self {
            ShardState::Healthy => true,
            ShardState::Unusable(_) => false,
            ShardState::Damaged { leaves, .. } => leaves.binary_search(&leaf).is_err(),
        }
    }
}

/// One block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockHealth {
    /// Which.
    pub id: BlockId,
    /// Its shards, data first.
    pub shards: Vec<ShardState>,
    /// Whether `tree.dat` is as it was written (or not needed).
    pub tree_good: bool,
}

impl BlockHealth {
    /// Whether anything of it is not as it was written.
    pub fn is_damaged(&self) -> bool {
        !self.tree_good || self.shards.iter().any(|state| *state != ShardState::Healthy)
    }
}

/// Bytes of one shard that are gone for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostRange {
    /// The block.
    pub block: BlockId,
    /// The shard.
    pub shard: ShardIndex,
    /// Its file, relative to the object's directory.
    pub file: String,
    /// Which bytes of it.
    pub range: ShardRange,
}

/// One object.
#[derive(Debug)]
pub struct ObjectHealth {
    /// Which.
    pub reference: ObjectRef,
    /// The word.
    pub verdict: Verdict,
    /// Names of bad manifest copies, and why.
    pub bad_manifests: Vec<(&'static str, String)>,
    /// Blocks with damage; healthy ones are not listed.
    pub damaged: Vec<BlockHealth>,
    /// What no code restores.
    pub lost: Vec<LostRange>,
    /// Bytes that were read and verified.
    pub verified: u64,
}

impl Object {
    /// Looks at every byte of one block.
    pub(super) fn block_health(&self, id: BlockId) -> ArchiveResult<BlockHealth> {
        Ok(self.full_block_health(&self.block(id)?, &ScanControl::SILENT))
    }

    pub(super) fn quick_block_health(&self, block: &BlockGeometry) -> BlockHealth {
        let shards = block
            .shard_indexes()
            .map(|shard| {
                let expected = block.shard_len(shard);
                match self.open_file(&self.shard_file_name(block, shard)) {
                    Err(error) => ShardState::Unusable(ShardFault::of(&error)),
                    Ok(file) if file.len() == expected => ShardState::Healthy,
                    Ok(file) => {
                        ShardState::Damaged { leaves: leaves_behind(file.len(), expected), wrong_len: Some(file.len()) }
                    }
                }
            })
            .collect();
        let tree = self.open_file(&layout::tree_path(self.manifest().geometry(), block));
        let tree_good = !has_tree(block) || tree.is_ok_and(|file| file.len() == tree_len(block));
        BlockHealth { id: block.id, shards, tree_good }
    }

    /// Verifies all shards of a block, several at a time on all cores. Means
    /// nothing when it was stopped.
    pub(super) fn full_block_health(&self, block: &BlockGeometry, control: &ScanControl<'_>) -> BlockHealth {
        let count = usize::from(block.shards());
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if block.stored_len() < PARALLEL_FROM { 1 } else { threads.min(count) };
        let next = AtomicUsize::new(0);
        let states = Mutex::new(vec![ShardState::Healthy; count]);
        let work = || {
            let mut buffer = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return;
                }
                let state = self.shard_state(block, ShardIndex::new(index as u16), &mut buffer, control);
                lock(&states)[index] = state;
            }
        };
        if threads == 1 {
            work();
        } else {
            std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
        }
        let mut shards = std::mem::take(&mut *lock(&states));
        // A shard whose leaf hashes are lost too is judged once the others have restored them.
        for (index, state) in shards.iter_mut().enumerate() {
            let shard = ShardIndex::new(index as u16);
            if *state == ShardState::Unusable(ShardFault::NoLeafTable)
                && self.leaf_table(block, shard, Codes::InnerAndOuter).is_ok()
            {
                *state = self.shard_state(block, shard, &mut Vec::new(), control);
            }
        }
        BlockHealth { id: block.id, shards, tree_good: self.tree_is_good(block) }
    }

    fn tree_is_good(&self, block: &BlockGeometry) -> bool {
        if !has_tree(block) {
            return true;
        }
        let Some(roots) = self.manifest().roots(block.id) else { return false };
        let path = layout::tree_path(self.manifest().geometry(), block);
        let Ok(key) = self.shared().below(self.prefix(), &path) else { return false };
        let bytes = self.shared().store.read(&key, tree_len(block));
        bytes.is_ok_and(|bytes| tree_is_whole(&bytes, block, &roots.root()))
    }

    fn shard_state(
        &self,
        block: &BlockGeometry,
        shard: ShardIndex,
        buffer: &mut Vec<u8>,
        control: &ScanControl<'_>,
    ) -> ShardState {
        let len = block.shard_len(shard);
        // What is on the disk now counts, not what an open file still shows.
        self.shared().caches.forget_file(&self.address(block, shard));
        let file = match self.shard_file(block, shard) {
            Ok(file) => file,
            Err(error) => return ShardState::Unusable(ShardFault::of(&error)),
        };
        let found = file.len();
        buffer.resize(READ.min(len) as usize, 0);
        let mut leaves = Vec::new();
        let mut at = 0;
        while at < len && !control.stopped() {
            let range = ShardRange::between(at, (at + READ).min(len));
            match self.read_leaves(block, shard, range, &mut buffer[..range.len() as usize]) {
                Ok(bad) => leaves.extend(bad),
                Err(ShardFault::Unreadable(_)) => leaves.extend(range.leaves()),
                Err(fault) => return ShardState::Unusable(fault),
            }
            if control.read_once {
                file.will_not_read_again(range.start(), range.len());
            }
            (control.progress)(range.len());
            at = range.end();
        }
        if leaves.is_empty() && found == len {
            ShardState::Healthy
        } else {
            ShardState::Damaged { leaves, wrong_len: (found != len).then_some(found) }
        }
    }

    /// The leaves of a block that its inner code cannot restore, with the shards that are bad there.
    fn beyond_inner(&self, block: &BlockGeometry, health: &BlockHealth) -> BadLeaves {
        let mut bad: BadLeaves = BTreeMap::new();
        for (shard, state) in block.shard_indexes().zip(&health.shards) {
            match state {
                ShardState::Healthy => {}
                ShardState::Unusable(_) => {
                    let all = (0..leaf_count(block.shard_len(shard))).map(LeafIndex::new);
                    all.for_each(|leaf| bad.entry(leaf).or_default().push(shard));
                }
                ShardState::Damaged { leaves, .. } => {
                    leaves.iter().for_each(|leaf| bad.entry(*leaf).or_default().push(shard));
                }
            }
        }
        bad.retain(|_, shards| shards.len() > usize::from(block.m));
        bad
    }

    /// What neither code restores.
    pub(super) fn lost_ranges(&self, damaged: &[BlockHealth]) -> Vec<LostRange> {
        let geometry = self.manifest().geometry();
        let mut lost = Vec::new();
        let mut groups: BTreeMap<Option<u32>, Vec<(BlockGeometry, BadLeaves)>> = BTreeMap::new();
        for health in damaged {
            let Some(block) = geometry.block(health.id) else { continue };
            let beyond = self.beyond_inner(&block, health);
            if beyond.is_empty() {
                continue;
            }
            let group = match health.id {
                BlockId::Data(index) => geometry.group_of(index),
                BlockId::Outer { group, .. } => Some(group),
            };
            groups.entry(group).or_default().push((block, beyond));
        }
        for (group, blocks) in groups {
            let bearable = group.and_then(|_| geometry.outer()).map_or(0, |outer| usize::from(outer.m));
            // A data shard's leaf is lost when more blocks miss it than the outer code bears.
            let mut missing: BTreeMap<(LeafIndex, ShardIndex), usize> = BTreeMap::new();
            for (block, beyond) in &blocks {
                for (leaf, shards) in beyond {
                    for shard in shards.iter().filter(|shard| block.is_data(**shard)) {
                        *missing.entry((*leaf, *shard)).or_default() += 1;
                    }
                }
            }
            for (block, beyond) in &blocks {
                for (leaf, shards) in beyond {
                    let data_lost = |shard: &ShardIndex| missing.get(&(*leaf, *shard)).is_some_and(|&n| n > bearable);
                    let any_lost = shards.iter().any(data_lost);
                    for shard in
                        shards.iter().filter(|shard| if block.is_data(**shard) { data_lost(shard) } else { any_lost })
                    {
                        lost.push(LostRange {
                            block: block.id,
                            shard: *shard,
                            file: self.shard_file_name(block, *shard),
                            range: ShardRange::of_leaf(*leaf, block.shard_len(*shard)),
                        });
                    }
                }
            }
        }
        join_ranges(lost)
    }

    pub(super) fn judge(
        &self,
        bad_manifests: Vec<(&'static str, String)>,
        damaged: Vec<BlockHealth>,
        lost: Vec<LostRange>,
        verified: u64,
    ) -> ObjectHealth {
        let holds_content = |id: BlockId, shard: ShardIndex| {
            matches!(id, BlockId::Data(_)) && self.block(id).is_ok_and(|block| block.is_data(shard))
        };
        let content_damaged = damaged.iter().any(|health| {
            let mut states = health.shards.iter().zip(0..).map(|(state, index)| (state, ShardIndex::new(index)));
            states.any(|(state, shard)| *state != ShardState::Healthy && holds_content(health.id, shard))
        });
        let verdict = if lost.iter().any(|lost| holds_content(lost.block, lost.shard)) {
            Verdict::Unrecoverable
        } else if content_damaged {
            Verdict::Recoverable
        } else if !damaged.is_empty() || !bad_manifests.is_empty() {
            Verdict::Degraded
        } else {
            Verdict::Healthy
        };
        ObjectHealth { reference: self.reference(), verdict, bad_manifests, damaged, lost, verified }
    }
}

/// The leaves of a shard of `expected` bytes that a file of `found` bytes lacks.
fn leaves_behind(found: u64, expected: u64) -> Vec<LeafIndex> {
    let first = (found / crate::base::LEAF_SIZE) as u32;
    if found >= expected { Vec::new() } else { (first..leaf_count(expected)).map(LeafIndex::new).collect() }
}

fn join_ranges(mut lost: Vec<LostRange>) -> Vec<LostRange> {
    lost.sort_by_key(|lost| (lost.block, lost.shard, lost.range.start()));
    let mut joined: Vec<LostRange> = Vec::new();
    for next in lost {
        match joined.last_mut() {
            Some(last)
                if (last.block, last.shard) == (next.block, next.shard) && last.range.end() == next.range.start() =>
            {
                last.range = ShardRange::between(last.range.start(), next.range.end());
            }
            _ => joined.push(next),
        }
    }
    joined
}
