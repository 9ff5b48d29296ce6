//! Repair: a plan made from what `health` found, printable before it is
//! executed. Every byte that is written was decoded from verified shards and
//! verified itself.

use super::encode::lock;
use super::health::{BlockHealth, ObjectHealth, ShardState};
use super::object::{Object, ObjectRef};
use super::recover::{Codes, DECODE_COLUMN};
use super::{Archive, ArchiveError, ArchiveResult, EventKind};
use crate::base::{LeafIndex, ShardIndex, ShardRange};
use crate::format::layout::TMP_DIR;
use crate::format::tree::{has_tree, tree_bytes};
use crate::format::{BlockGeometry, BlockId, layout};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// One step of a repair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RepairStep {
    /// Rewrite a manifest copy from the other.
    Manifest {
        /// Which copy.
        copy: &'static str,
    },
    /// Decode bad leaves and write them in place.
    Leaves {
        /// The block.
        block: BlockId,
        /// The shard.
        shard: ShardIndex,
        /// Its file, relative to the object's directory.
        file: String,
        /// The bad leaves.
        leaves: Vec<LeafIndex>,
    },
    /// Write the whole shard anew.
    Shard {
        /// The block.
        block: BlockId,
        /// The shard.
        shard: ShardIndex,
        /// Its file, relative to the object's directory.
        file: String,
        /// Its length, bytes.
        len: u64,
        /// Why.
        why: String,
    },
    /// Write the leaf hashes anew.
    Tree {
        /// The block.
        block: BlockId,
        /// The file, relative to the object's directory.
        file: String,
    },
}

/// What to do about an object's damage, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairPlan {
    /// Which object.
    pub object: ObjectRef,
    /// The steps; none for a healthy object.
    pub steps: Vec<RepairStep>,
    /// Whether some bytes will stay lost.
    pub leaves_losses: bool,
}

/// What a repair did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RepairOutcome {
    /// Steps done.
    pub done: usize,
    /// Steps that failed, or left something lost.
    pub failed: usize,
    /// Bytes written to shards.
    pub written: u64,
}

impl std::ops::AddAssign for RepairOutcome {
    fn add_assign(&mut self, other: Self) {
        self.done += other.done;
        self.failed += other.failed;
        self.written += other.written;
    }
}

/// With more bad leaves than one in this many, a shard is written anew.
const REWRITE_FRACTION: usize = 4;

impl ObjectHealth {
    /// The plan against this damage. Changes nothing.
    pub fn plan(&self, archive: &Archive) -> ArchiveResult<RepairPlan> {
        let mut steps: Vec<_> = self.bad_manifests.iter().map(|(copy, _)| RepairStep::Manifest { copy }).collect();
        let object = archive.inspect(&self.reference)?;
        for health in &self.damaged {
            steps.extend(object.plan_block(health)?);
        }
        Ok(RepairPlan { object: self.reference.clone(), steps, leaves_losses: !self.lost.is_empty() })
    }
}

impl Archive {
    /// Executes a plan, step by step; a step that fails is reported and does
    /// not stop the others.
    pub fn execute(&self, plan: &RepairPlan, progress: &dyn Fn(&RepairStep)) -> ArchiveResult<RepairOutcome> {
        let copies = self.shared.read_manifests(&plan.object.name, Some(plan.object.root))?;
        if copies.undecided {
            let object = &plan.object.name;
            tracing::error!(%object, "the copies of its manifest differ; only the archive's key tells which counts");
            return Ok(RepairOutcome { failed: plan.steps.len(), ..RepairOutcome::default() });
        }
        let manifests_good = copies.bad.is_empty() || self.shared.heal_manifests(&copies);
        let object = self.object(&plan.object)?;
        let mut outcome = RepairOutcome::default();
        for step in &plan.steps {
            progress(step);
            let result = match step {
                RepairStep::Manifest { .. } => Ok((manifests_good, 0)),
                _ => object.execute(step),
            };
            match result {
                Ok((true, written)) => {
                    outcome.done += 1;
                    outcome.written += written;
                }
                Ok((false, written)) => {
                    outcome.failed += 1;
                    outcome.written += written;
                }
                Err(error) => {
                    outcome.failed += 1;
                    tracing::error!(object = %plan.object.name, ?step, %error, "a repair step failed");
                }
            }
        }
        Ok(outcome)
    }
}

impl Object {
    /// Plans and repairs one block. A step that fails is logged, and does not stop the others.
    pub(super) fn repair_block(&self, health: &BlockHealth) -> ArchiveResult<()> {
        for step in self.plan_block(health)? {
            if let Err(error) = self.execute(&step) {
                tracing::error!(object = %self.manifest().name, ?step, %error, "a repair step failed");
            }
        }
        Ok(())
    }

    pub(super) fn plan_block(&self, health: &BlockHealth) -> ArchiveResult<Vec<RepairStep>> {
        let block = self.block(health.id)?;
        let mut steps = Vec::new();
        let in_place = self.shared().store.capabilities().range_write;
        for (shard, state) in block.shard_indexes().zip(&health.shards) {
            let file = self.shard_file_name(&block, shard);
            let len = block.shard_len(shard);
            let why = match state {
                ShardState::Healthy => continue,
                ShardState::Unusable(fault) => fault.to_string(),
                ShardState::Damaged { wrong_len: Some(found), .. } => format!("{found} bytes long instead of {len}"),
                ShardState::Damaged { leaves, .. } => {
                    let all = crate::base::units::leaf_count(len) as usize;
                    if in_place && leaves.len() <= (all / REWRITE_FRACTION).max(1) {
                        steps.push(RepairStep::Leaves { block: block.id, shard, file, leaves: leaves.clone() });
                        continue;
                    }
                    format!("{} of {all} leaves are bad", leaves.len())
                }
            };
            steps.push(RepairStep::Shard { block: block.id, shard, file, len, why });
        }
        if !health.tree_good {
            let file = layout::tree_path(self.manifest().geometry(), &block);
            steps.push(RepairStep::Tree { block: block.id, file });
        }
        Ok(steps)
    }

    /// Whether the step left nothing undone, and how many bytes it wrote.
    fn execute(&self, step: &RepairStep) -> ArchiveResult<(bool, u64)> {
        match step {
            RepairStep::Manifest { .. } => Ok((true, 0)),
            RepairStep::Leaves { block, shard, leaves, .. } => {
                let block = self.block(*block)?;
                let mut all = true;
                let mut written = 0;
                // One bad leaf beyond the code must not keep the others from being healed.
                for leaf in leaves {
                    match self.heal_known_bad(&block, *shard, std::slice::from_ref(leaf)) {
                        Ok(healed) => {
                            all &= healed;
                            written += ShardRange::of_leaf(*leaf, block.shard_len(*shard)).len();
                        }
                        Err(error) => {
                            all = false;
                            tracing::error!(%error, "a leaf stays bad");
                        }
                    }
                }
                Ok((all, written))
            }
            RepairStep::Shard { block, shard, why, .. } => self.rebuild_shard(&self.block(*block)?, *shard, why),
            RepairStep::Tree { block, .. } => self.rebuild_tree(&self.block(*block)?),
        }
    }

    /// Writes a shard anew, beside the old file, which it then replaces.
    /// Leaves that are lost become zeros, which fail verification as before.
    fn rebuild_shard(&self, block: &BlockGeometry, shard: ShardIndex, why: &str) -> ArchiveResult<(bool, u64)> {
        let shared = self.shared();
        let file_name = self.shard_file_name(block, shard);
        let len = block.shard_len(shard);
        let staged_key = shared.key(&format!("{TMP_DIR}/shard-{}", crate::base::StoreId::random()))?;
        // Without this, parallel columns would each compute the leaf hashes.
        let all_lost = self.leaf_table(block, shard, Codes::InnerAndOuter).is_err();
        if all_lost {
            return Err(self.lost(block, shard, ShardRange::between(0, len), "nothing of it can be restored".into()));
        }
        let staged = shared.store.create(&staged_key)?;
        let lost = Mutex::new(0);
        let next = AtomicU64::new(0);
        let work = || -> ArchiveResult<()> {
            loop {
                let start = next.fetch_add(DECODE_COLUMN, Ordering::Relaxed);
                if start >= len {
                    return Ok(());
                }
                let range = ShardRange::between(start, (start + DECODE_COLUMN).min(len));
                for (range, bytes) in self.restore(block, shard, range) {
                    match bytes {
                        Ok(bytes) => staged.write_at(range.start(), &bytes)?,
                        Err(ArchiveError::Unrecoverable { .. }) => *lock(&lost) += range.len(),
                        Err(error) => return Err(error),
                    }
                }
            }
        };
        let threads =
            std::thread::available_parallelism().map_or(1, usize::from).min(len.div_ceil(DECODE_COLUMN) as usize);
        let written = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let results: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
            results.into_iter().try_for_each(|result| {
                result.unwrap_or_else(|_| Err(ArchiveError::Internal("a rebuilding thread panicked".into())))
            })
        });
        let published = written.and_then(|()| {
            staged.set_len(len)?;
            staged.sync()?;
            Ok(shared.store.replace(&staged_key, &shared.below(self.prefix(), &file_name)?)?)
        });
        if let Err(error) = published {
            let _ = shared.store.delete(&staged_key);
            return Err(error);
        }
        shared.caches.forget_shard(&self.address(block, shard));
        let lost = *lock(&lost);
        let kind = if lost == 0 { EventKind::Healed } else { EventKind::Lost };
        let detail = match lost {
            0 => format!("{why}; the file was written anew from the other shards"),
            lost => format!("{why}; the file was written anew, {lost} bytes of it are lost"),
        };
        tracing::warn!(object = %self.manifest().name, file = file_name, detail, "damage repaired");
        self.record(kind, &file_name, ShardRange::between(0, len), detail);
        Ok((lost == 0, len - lost))
    }

    /// The range at once, or, where that fails, leaf by leaf.
    fn restore(
        &self,
        block: &BlockGeometry,
        shard: ShardIndex,
        range: ShardRange,
    ) -> Vec<(ShardRange, ArchiveResult<Vec<u8>>)> {
        match self.recover(block, shard, range, Codes::InnerAndOuter) {
            Err(ArchiveError::Unrecoverable { .. }) => range
                .leaves()
                .map(|leaf| {
                    let part = ShardRange::of_leaf(leaf, block.shard_len(shard));
                    // What the damaged file still has is better than nothing.
                    let mut own = vec![0; part.len() as usize];
                    match self.read_leaves(block, shard, part, &mut own) {
                        Ok(bad) if bad.is_empty() => (part, Ok(own)),
                        _ => (part, self.recover(block, shard, part, Codes::InnerAndOuter)),
                    }
                })
                .collect(),
            other => vec![(range, other)],
        }
    }

    fn rebuild_tree(&self, block: &BlockGeometry) -> ArchiveResult<(bool, u64)> {
        if !has_tree(block) {
            return Ok((true, 0));
        }
        let roots = self.manifest().roots(block.id);
        let roots = roots.ok_or_else(|| ArchiveError::Internal("a block without roots".into()))?;
        let tables = block
            .shard_indexes()
            .map(|shard| self.leaf_table(block, shard, Codes::InnerAndOuter))
            .collect::<ArchiveResult<Vec<_>>>()?;
        let bytes = tree_bytes(&roots.root(), tables.iter().map(|table| &**table));
        let path = layout::tree_path(self.manifest().geometry(), block);
        self.shared().store.write(&self.shared().below(self.prefix(), &path)?, &bytes)?;
        let whole = ShardRange::between(0, bytes.len() as u64);
        self.record(EventKind::MetadataHealed, &path, whole, "the leaf hashes were written anew".into());
        Ok((true, bytes.len() as u64))
    }
}
