//! Looking at an object block by block, so that it can be paced, stopped, and
//! gone on with where it stopped.

use super::health::{BlockHealth, Depth, ObjectHealth};
use super::manifests::ManifestCopies;
use super::object::{Object, ObjectRef};
use super::repair::{RepairPlan, RepairStep};
use super::{Archive, ArchiveError, ArchiveResult};
use crate::format::{BlockGeometry, BlockId};
use std::fmt;
use std::sync::Arc;

/// How a scan is watched, paced and stopped.
#[derive(Clone, Copy)]
pub struct ScanControl<'a> {
    /// Called with the number of bytes verified since the last call, a MiB or
    /// less; a scan is slowed down by taking long to return.
    pub progress: &'a (dyn Fn(u64) + Sync),
    /// Whether to stop as soon as possible.
    pub cancelled: &'a (dyn Fn() -> bool + Sync),
    /// Whether the store need not keep in memory what the scan has read.
    pub read_once: bool,
}

impl fmt::Debug for ScanControl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScanControl").field("read_once", &self.read_once).finish_non_exhaustive()
    }
}

impl ScanControl<'_> {
    /// Never stops, tells nobody.
    pub(super) const SILENT: ScanControl<'static> =
        ScanControl { progress: &|_| {}, cancelled: &|| false, read_once: false };

    pub(super) fn stopped(&self) -> bool {
        (self.cancelled)()
    }
}

/// A look at one object that is under way.
#[derive(Debug)]
pub struct HealthScan {
    object: Arc<Object>,
    depth: Depth,
    bad_manifests: Vec<(&'static str, String)>,
    damaged: Vec<BlockHealth>,
    verified: u64,
    ids: Vec<BlockId>,
    next: usize,
}

impl Archive {
    /// Begins to look at an object: reads both copies of its manifest, and no shard yet.
    ///
    /// Errors: `ManifestLost` when there is no manifest to compare with.
    pub fn health_scan(&self, reference: &ObjectRef, depth: Depth) -> ArchiveResult<HealthScan> {
        let copies = self.shared.read_manifests(&reference.name, Some(reference.root))?;
        let bad_manifests = copies.bad.iter().map(|(copy, error)| (*copy, describe(error))).collect();
        let ManifestCopies { manifest, .. } = copies;
        let ids = manifest.geometry().block_ids().collect();
        let object = Arc::new(Object::new(self.shared.clone(), Arc::new(manifest))?);
        Ok(HealthScan { object, depth, bad_manifests, damaged: Vec::new(), verified: 0, ids, next: 0 })
    }

    /// Looks at all of an object. `progress` is called with bytes verified since the last call.
    ///
    /// Errors: `ManifestLost` when there is no manifest to compare with; damage is no error.
    pub fn object_health(
        &self,
        reference: &ObjectRef,
        depth: Depth,
        progress: &(dyn Fn(u64) + Sync),
    ) -> ArchiveResult<ObjectHealth> {
        let control = ScanControl { progress, ..ScanControl::SILENT };
        let mut scan = self.health_scan(reference, depth)?;
        scan.run(&control)?;
        Ok(scan.finish())
    }
}

impl HealthScan {
    /// Number of blocks, outer ones included.
    pub fn blocks(&self) -> usize {
        self.ids.len()
    }

    /// The position of the block that is next; [`Self::blocks`] at the end.
    pub fn position(&self) -> usize {
        self.next
    }

    /// Goes on at the block at `position` (at most [`Self::blocks`]): what was
    /// skipped counts as healthy.
    pub fn skip_to(&mut self, position: usize) {
        self.next = position.min(self.ids.len());
    }

    /// Bytes of all shards of the blocks before `position`.
    pub fn bytes_before(&self, position: usize) -> u64 {
        let blocks = self.ids.iter().take(position).filter_map(|id| self.object.manifest().geometry().block(*id));
        blocks.map(|block| block.stored_len()).sum()
    }

    /// Looks at the next block, and remembers it if it is damaged. `None` after the last one.
    ///
    /// Errors: `Interrupted` when `control` says to stop; the block is then still the next.
    pub fn next_block(&mut self, control: &ScanControl<'_>) -> ArchiveResult<Option<BlockHealth>> {
        let Some(id) = self.ids.get(self.next).copied() else { return Ok(None) };
        let health = self.look_at(id, control)?;
        self.next += 1;
        self.damaged.retain(|known| known.id != id);
        if health.is_damaged() {
            self.damaged.push(health.clone());
        }
        Ok(Some(health))
    }

    /// Looks again at a block that was damaged, after its repair. Its bytes
    /// do not count as verified a second time.
    pub fn look_again(&mut self, id: BlockId, control: &ScanControl<'_>) -> ArchiveResult<BlockHealth> {
        let verified = self.verified;
        let health = self.look_at(id, control)?;
        self.verified = verified;
        self.damaged.retain(|known| known.id != id);
        if health.is_damaged() {
            self.damaged.push(health.clone());
        }
        Ok(health)
    }

    fn look_at(&mut self, id: BlockId, control: &ScanControl<'_>) -> ArchiveResult<BlockHealth> {
        let block: BlockGeometry = self.object.block(id)?;
        if control.stopped() {
            return Err(ArchiveError::Interrupted);
        }
        let health = match self.depth {
            Depth::Quick => self.object.quick_block_health(&block),
            Depth::Full => self.object.full_block_health(&block, control),
        };
        // A stopped look has not seen everything.
        if control.stopped() {
            return Err(ArchiveError::Interrupted);
        }
        if self.depth == Depth::Full {
            self.verified += block.stored_len();
        }
        Ok(health)
    }

    /// Looks at all blocks that are left.
    pub fn run(&mut self, control: &ScanControl<'_>) -> ArchiveResult<()> {
        while self.next_block(control)?.is_some() {}
        Ok(())
    }

    /// The positions of the blocks that are damaged as far as is known.
    pub fn damaged_positions(&self) -> Vec<usize> {
        let is_damaged = |id: &BlockId| self.damaged.iter().any(|health| health.id == *id);
        (0..self.ids.len()).filter(|position| is_damaged(&self.ids[*position])).collect()
    }

    /// The plan against the damage of the manifest's copies.
    pub fn plan_manifests(&self) -> RepairPlan {
        let steps = self.bad_manifests.iter().map(|(copy, _)| RepairStep::Manifest { copy }).collect();
        RepairPlan { object: self.object.reference(), steps, leaves_losses: false }
    }

    /// Takes note that both copies of the manifest are good now.
    pub fn manifests_healed(&mut self) {
        self.bad_manifests.clear();
    }

    /// The plan against the damage of one block.
    pub fn plan_block(&self, health: &BlockHealth) -> ArchiveResult<RepairPlan> {
        let steps = self.object.plan_block(health)?;
        Ok(RepairPlan { object: self.object.reference(), steps, leaves_losses: false })
    }

    /// The judgement over what was looked at.
    pub fn finish(self) -> ObjectHealth {
        let lost = self.object.lost_ranges(&self.damaged);
        self.object.judge(self.bad_manifests, self.damaged, lost, self.verified)
    }
}

fn describe(error: &ArchiveError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
