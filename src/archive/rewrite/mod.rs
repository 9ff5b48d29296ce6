//! Writes a changed content as a new object that shares with the old one what
//! did not change.
//!
//! Files of unchanged segments, and of blocks in which nothing changed, are
//! linked. The parity of a changed block is coded from all its segments, or,
//! where that reads less, made from the old parity: the code is linear, so
//! the parity of (new XOR old) XOR the old parity is the new parity.
//!
//! Crash argument: as for an object that is written whole. Links are names in
//! the temporary directory like other files; what they lead to was durable
//! before, and the names become so when the directory is published.

mod add;
mod difference;
mod encoded;
mod keep;

use self::difference::{Difference, Way, segment_of};
use super::encode::{BlockJob, Encoder};
use super::object::Object;
use super::outer::write_group;
use super::recover::Codes;
use super::source::{ContentSource, is_hole};
use super::writer::{NewObject, ObjectPlan, WriteControl, WrittenObject, tree_hash};
use super::{Archive, ArchiveError, ArchiveResult};
use crate::base::{BlockIndex, ContentRange, Digest, LEAF_SIZE, ShardIndex};
use crate::format::manifest::BlockRoots;
use crate::format::{BlockGeometry, BlockId, Geometry, Manifest};
use crate::merkle::{self, LeafHash};
use std::collections::BTreeMap;
use std::sync::Arc;

impl Archive {
    /// Writes the content of `source` (at least one byte) as an object, like
    /// [`Self::write_object`], and with the same result. `changed` (in any
    /// order) are the ranges in which the content may differ from that of
    /// `base`; outside of them it is the same as far as both go. Where a
    /// segment did not change, its file is linked instead of written (copied,
    /// verified, where the store cannot link), and the source is asked for it
    /// only when the parity of its block has to be coded from all segments.
    ///
    /// A file is linked without a look at its bytes, only its length: damage
    /// within the parity stays what it was, and is found by the same reads
    /// and scrubs. A file that is missing, or of a wrong length, is made anew
    /// from the other shards. What enters new parity is verified.
    ///
    /// Everything is written, as by [`Self::write_object`], where the base is
    /// of another archive handle, has no content tree, or is cut by another
    /// rule than the new content, where either has one segment only, and
    /// where more than half of all segments changed.
    ///
    /// When the content turns out to be that of `base`, and the name as well,
    /// that object is returned as `already_there`.
    ///
    /// Errors: those of `write_object`; `SourceChanged` also when the content
    /// differs from the base's outside of `changed`; `Unrecoverable` when
    /// bytes of the base are needed and lost.
    pub fn rewrite_object(
        &self,
        base: &Object,
        source: &dyn ContentSource,
        changed: &[ContentRange],
        plan: &ObjectPlan,
        control: &WriteControl<'_>,
    ) -> ArchiveResult<WrittenObject> {
        let ours = Arc::ptr_eq(base.shared(), &self.shared) && base.content_tree().is_some();
        if ours && base.manifest().geometry().encoded_lens().is_some() {
            return match self.rewrite_encoded(base, source, changed, plan, control)? {
                Some(written) => Ok(written),
                None => self.write_object(source, plan, control),
            };
        }
        if !ours || self.encoding_for(plan.compression)?.is_some() {
            return self.write_object(source, plan, control);
        }
        let len = source.len();
        let geometry = Geometry::choose(*self.descriptor().tier_for(len), len).ok_or(ArchiveError::TooLarge { len })?;
        let difference = Difference::new(base.manifest().geometry().clone(), geometry.clone(), changed);
        let difference = difference.filter(|difference| !difference.is_large());
        let Some(difference) = difference else { return self.write_object(source, plan, control) };
        self.write_staged(source, geometry, control, Some(base.manifest()), |new| {
            Rewrite { new: &new, base, source, difference }.run(plan)
        })
    }
}

/// One object in the making, and the one that it is made from.
struct Rewrite<'a> {
    new: &'a NewObject<'a>,
    base: &'a Object,
    source: &'a dyn ContentSource,
    difference: Difference,
}

impl Rewrite<'_> {
    fn run(&self, plan: &ObjectPlan) -> ArchiveResult<Manifest> {
        let geometry = &self.new.geometry;
        let mut tree = self.base.content_tree().unwrap_or_default().to_vec();
        tree.resize(geometry.segments() as usize, Digest::new([0; 32]));
        let mut roots: BTreeMap<u32, BlockRoots> = BTreeMap::new();
        let mut jobs = Vec::new();
        for index in 0..geometry.blocks() {
            self.new.control.check()?;
            let block = self.new.block(BlockId::Data(BlockIndex::new(index)))?;
            match self.difference.way(&block) {
                (Way::Keep, _) => {
                    roots.insert(index, self.keep_block(&block)?);
                    (self.new.control.progress)(block.data_len());
                }
                (Way::Add, Some(old)) => {
                    let (block_roots, segments) = self.add_to_block(&block, &old)?;
                    roots.insert(index, block_roots);
                    segments.into_iter().for_each(|(segment, value)| tree[segment.as_usize()] = value);
                    (self.new.control.progress)(block.data_len());
                }
                _ => {
                    let (kept, _) = self.difference.split(&block);
                    if let (Some(old), false) = (self.difference.old.block(block.id), kept.is_empty()) {
                        kept.iter().try_for_each(|shard| self.keep_shard(&old, *shard))?;
                    }
                    jobs.push(BlockJob { block: BlockIndex::new(index), kept });
                }
            }
        }
        let check = |block: &BlockGeometry, leaves: &[Vec<LeafHash>]| self.check(block, leaves);
        let encoded = Encoder::new(self.new, self.source, jobs, &check).run()?;
        roots.extend(encoded.roots);
        for (block, segments) in encoded.tree {
            let first = block as usize * usize::from(geometry.k());
            tree[first..first + segments.len()].copy_from_slice(&segments);
        }
        let outer = self.outer()?;
        self.new.manifest(plan, tree_hash(&tree)?, tree, roots.into_values().collect(), outer)
    }

    /// The outer blocks' roots, in order.
    fn outer(&self) -> ArchiveResult<Vec<BlockRoots>> {
        let mut roots = Vec::new();
        let read = |block: &BlockGeometry, shard: ShardIndex, start: u64, buffer: &mut [u8]| {
            let at = self.difference.segment_span(segment_of(block, shard)).start() + start;
            self.read_source(at, buffer).map(|_hole| ())
        };
        for group in 0..self.new.geometry.groups() {
            self.new.control.check()?;
            match self.difference.way_of_group(group) {
                Way::Keep => {
                    let parities = 0..self.new.geometry.outer().map_or(0, |outer| outer.m);
                    for parity in parities {
                        roots.push(self.keep_block(&self.new.block(BlockId::Outer { group, parity })?)?);
                    }
                }
                Way::Add => roots.extend(self.add_to_group(group)?),
                // From the source: what was linked is not verified.
                Way::Encode => roots.extend(write_group(self.new, group, &read)?),
            }
        }
        Ok(roots)
    }

    /// Fills `buffer` from the new content. Whether it is a hole.
    fn read_source(&self, at: u64, buffer: &mut [u8]) -> ArchiveResult<bool> {
        let hole = is_hole(self.source.data_ranges(), ContentRange::between(at, at + buffer.len() as u64));
        if hole {
            buffer.fill(0);
        } else {
            self.source.read_at(at, buffer).map_err(ArchiveError::Source)?;
        }
        Ok(hole)
    }

    /// Refuses a changed block whose data differ from the base's where they
    /// should not: parity that was added to would not be theirs, nor would
    /// files that were kept.
    fn check(&self, block: &BlockGeometry, leaves: &[Vec<LeafHash>]) -> ArchiveResult<()> {
        let Some(old) = self.difference.old.block(block.id) else { return Ok(()) };
        let roots = self.base.manifest().roots(old.id);
        for shard in (0..block.k.min(old.k)).map(ShardIndex::new) {
            let new_leaves = leaves.get(shard.as_usize()).map_or(&[][..], Vec::as_slice);
            let segment = segment_of(block, shard);
            if !self.difference.is_changed(segment) {
                if merkle::root(new_leaves).as_ref() != roots.and_then(|roots| roots.shard(shard)) {
                    return Err(ArchiveError::SourceChanged);
                }
                continue;
            }
            let leaf_count = crate::base::units::leaf_count(old.shard_len(shard)) as usize;
            // A leaf that is a whole shard is hashed in another way.
            if leaf_count.min(new_leaves.len()) <= 1 {
                continue;
            }
            let start = self.difference.segment_span(segment).start();
            let same = |leaf: &usize| {
                let at = start + *leaf as u64 * LEAF_SIZE;
                !self.difference.touches(ContentRange::between(at, at + LEAF_SIZE))
            };
            let mut same = (0..leaf_count.min(new_leaves.len())).filter(same).peekable();
            if same.peek().is_some() {
                let table = self.base.leaf_table(&old, shard, Codes::InnerAndOuter)?;
                if same.any(|leaf| table[leaf] != new_leaves[leaf]) {
                    return Err(ArchiveError::SourceChanged);
                }
            }
        }
        Ok(())
    }
}
