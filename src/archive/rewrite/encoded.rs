//! Rewriting an object whose segments are encoded: the files of segments that
//! did not change are linked, the others are encoded anew, and the parity of
//! their blocks is coded from all files of the block.

use super::Rewrite;
use super::difference::Difference;
use crate::archive::encoded::{KeepSegments, KeptSegment, SegmentEncoder};
use crate::archive::encoding::{Encoding, Sealer};
use crate::archive::object::Object;
use crate::archive::recover::Codes;
use crate::archive::source::ContentSource;
use crate::archive::writer::{ObjectPlan, WriteControl, WrittenObject, write_encoded};
use crate::archive::{Archive, ArchiveError, ArchiveResult};
use crate::base::{BlockIndex, ContentRange, SegmentIndex};
use crate::format::manifest::BlockRoots;
use crate::format::{BlockGeometry, BlockId, Geometry};
use crate::keys::ObjectLine;

/// How a content can be encoded so that segments of the base serve.
struct Plan {
    encoding: Encoding,
    outline: Geometry,
    difference: Difference,
}

impl Archive {
    /// As [`Self::rewrite_object`], for a base whose segments are encoded;
    /// `None` where nothing of it can be kept.
    pub(super) fn rewrite_encoded(
        &self,
        base: &Object,
        source: &dyn ContentSource,
        changed: &[ContentRange],
        plan: &ObjectPlan,
        control: &WriteControl<'_>,
    ) -> ArchiveResult<Option<WrittenObject>> {
        let Some(Plan { encoding, outline, difference }) = self.plan_encoded(base, source, changed, plan)? else {
            return Ok(None);
        };
        let written = self.write_staged(source, outline, control, Some(base.manifest()), |new| {
            write_encoded(new, source, plan, &encoding, |new| {
                let keep = KeepUnchanged(Rewrite { new, base, source, difference });
                SegmentEncoder::new(new, source, &encoding, &keep).run()
            })
        })?;
        Ok(Some(written))
    }

    fn plan_encoded(
        &self,
        base: &Object,
        source: &dyn ContentSource,
        changed: &[ContentRange],
        plan: &ObjectPlan,
    ) -> ArchiveResult<Option<Plan>> {
        let (facts, len) = (base.manifest().facts()?, source.len());
        // What is compressed stays so, and what did not seem to be worth it as well.
        let codec = facts.key.compression.codec();
        let compression = plan.compression.filter(|spec| Some(spec.codec) == codec);
        if codec.is_some() != compression.is_some() {
            return Ok(None);
        }
        let sealer = match (self.descriptor().encryption, facts.sealing(), base.manifest().encryption()) {
            (None, None, None) => None,
            (Some(suite), Some(sealing), Some((of_base, epoch))) => {
                let sealer = Sealer::new(self, suite, Some(ObjectLine(sealing.line)))?;
                // New data is encrypted with the newest keys only.
                if (of_base, epoch) != (suite, sealer.keys.epoch().get()) {
                    return Ok(None);
                }
                Some(sealer)
            }
            _ => return Ok(None),
        };
        let encoding = Encoding { compression, sealer };
        let outline = encoding.outline(self.descriptor(), len).ok_or(ArchiveError::TooLarge { len })?;
        let geometry = base.manifest().geometry();
        let slices = |of: &Geometry, len| Geometry::new(*of.rule(), of.segment_size(), len);
        let contents = slices(geometry, facts.key.plain_size).zip(slices(&outline, len));
        let difference = contents.and_then(|(old, new)| Difference::new(old, new, changed));
        let difference = difference.filter(|difference| !difference.is_large());
        Ok(difference.map(|difference| Plan { encoding, outline, difference }))
    }
}

/// Keeps the segments in which nothing changed.
struct KeepUnchanged<'a>(Rewrite<'a>);

impl KeepUnchanged<'_> {
    /// What the base has of a segment whose file can be the new object's.
    fn of_base(&self, segment: SegmentIndex) -> ArchiveResult<Option<KeptSegment>> {
        let Rewrite { new, base, source, difference } = &self.0;
        let geometry = base.manifest().geometry();
        let stored_len = geometry.segment_len(segment);
        let facts = base.manifest().facts()?;
        let plain_len = geometry.plain_len(facts.key.plain_size, segment);
        if stored_len == 0
            || difference.is_changed(segment)
            || plain_len != new.geometry.plain_len(source.len(), segment)
        {
            return Ok(None);
        }
        let stream_len = match (facts.stream_lens(geometry, segment.get()), facts.key.compression.codec()) {
            (Some(lens), None) if lens.padded != new.geometry.segment_len(segment) => return Ok(None),
            (Some(lens), _) => lens.stream,
            (None, _) => stored_len,
        };
        let subtree = base.content_tree().and_then(|tree| tree.get(segment.as_usize())).copied();
        Ok(Some(KeptSegment { stored_len, stream_len, leaves: Vec::new(), subtree }))
    }

    fn old_block(&self, block: BlockIndex) -> Option<BlockGeometry> {
        self.0.base.manifest().geometry().block(BlockId::Data(block))
    }
}

impl KeepSegments for KeepUnchanged<'_> {
    fn keep(&self, segment: SegmentIndex) -> ArchiveResult<Option<KeptSegment>> {
        let (block, shard) = self.0.new.geometry.segment_place(segment);
        // Where a segment has a block of its own, that is kept or nothing is.
        let Some(old) = self.old_block(block).filter(|old| old.k > 1) else { return Ok(None) };
        let Some(kept) = self.of_base(segment)? else { return Ok(None) };
        self.0.keep_shard(&old, shard)?;
        let leaves = self.0.base.leaf_table(&old, shard, Codes::InnerAndOuter)?.to_vec();
        Ok(Some(KeptSegment { leaves, ..kept }))
    }

    fn keep_block(&self, block: BlockIndex) -> ArchiveResult<Option<(BlockRoots, Vec<KeptSegment>)>> {
        let new = self.0.new.block(BlockId::Data(block))?;
        let Some(old) = self.old_block(block).filter(|old| old.k == new.k) else { return Ok(None) };
        let segments = (0..u32::from(new.k)).map(|index| self.of_base(SegmentIndex::new(new.first_segment + index)));
        let Some(segments) = segments.collect::<ArchiveResult<Option<Vec<_>>>>()? else { return Ok(None) };
        Ok(Some((self.0.keep_block(&old)?, segments)))
    }
}
