//! Which parts of a content differ from an earlier one, and what follows for
//! segments and blocks: arithmetic, no data.

use crate::base::{ContentRange, LEAF_SIZE, SegmentIndex, ShardIndex};
use crate::format::{BlockGeometry, BlockId, Geometry};

/// How a data block of the new object comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Nothing in it changed: all its files are those of the base.
    Keep,
    /// Its parity is the old one and what the difference adds to it.
    Add,
    /// It is coded from all its segments.
    Encode,
}

/// Where a new content may differ from the base's.
#[derive(Debug)]
pub(super) struct Difference {
    pub(super) old: Geometry,
    pub(super) new: Geometry,
    /// Ascending, disjoint, each of whole leaves of the content; what one of
    /// the two contents has and the other has not is among them.
    ranges: Vec<ContentRange>,
}

impl Difference {
    /// `None` where the two are not cut by the same rule, or their segments
    /// are no subtrees of the content, so that nothing can be kept.
    pub(super) fn new(old: Geometry, new: Geometry, changed: &[ContentRange]) -> Option<Self> {
        let rule = |geometry: &Geometry| {
            let (tier, layout) = (geometry.tier(), geometry.layout());
            (tier, layout, geometry.k(), geometry.m(), geometry.segment_size(), geometry.outer())
        };
        if rule(&old) != rule(&new)
            || !old.has_content_tree(old.segments_len())
            || !new.has_content_tree(new.segments_len())
        {
            return None;
        }
        let (short, long) = (old.segments_len().min(new.segments_len()), old.segments_len().max(new.segments_len()));
        let mut leaves: Vec<ContentRange> = changed
            .iter()
            .map(|range| range.clamp_to(long))
            .chain([ContentRange::between(short, long)])
            .filter(|range| !range.is_empty())
            .map(|range| {
                let start = range.start() / LEAF_SIZE * LEAF_SIZE;
                ContentRange::between(start, range.end().next_multiple_of(LEAF_SIZE))
            })
            .collect();
        leaves.sort_by_key(|range| range.start());
        let mut ranges: Vec<ContentRange> = Vec::with_capacity(leaves.len());
        for range in leaves {
            match ranges.last_mut() {
                Some(last) if range.start() <= last.end() => {
                    *last = ContentRange::between(last.start(), last.end().max(range.end()));
                }
                _ => ranges.push(range),
            }
        }
        Some(Self { old, new, ranges })
    }

    /// The parts of `span` that may differ, ascending.
    pub(super) fn within(&self, span: ContentRange) -> impl Iterator<Item = ContentRange> {
        let first = self.ranges.partition_point(|range| range.end() <= span.start());
        self.ranges[first..].iter().map(move |range| range.intersect(span)).take_while(|range| !range.is_empty())
    }

    /// Whether anything in `span` may differ.
    pub(super) fn touches(&self, span: ContentRange) -> bool {
        self.within(span).next().is_some()
    }

    /// Where a segment lies, as if it were a full one.
    pub(super) fn segment_span(&self, segment: SegmentIndex) -> ContentRange {
        let start = u64::from(segment.get()) * self.new.segment_size();
        ContentRange::between(start, start + self.new.segment_size())
    }

    /// Whether the segment's file is another one than the base's. Where only
    /// its length is, what one content has and the other has not lies in its span.
    pub(super) fn is_changed(&self, segment: SegmentIndex) -> bool {
        self.touches(self.segment_span(segment))
    }

    /// Whether more than half of all segments are other ones.
    pub(super) fn is_large(&self) -> bool {
        let changed = (0..self.new.segments()).filter(|segment| self.is_changed(SegmentIndex::new(*segment))).count();
        changed * 2 > self.new.segments() as usize
    }

    /// The shards of a data block whose files are those of the base, and the others.
    pub(super) fn split(&self, block: &BlockGeometry) -> (Vec<ShardIndex>, Vec<ShardIndex>) {
        (0..block.k).map(ShardIndex::new).partition(|shard| !self.is_changed(segment_of(block, *shard)))
    }

    /// How a data block is best made, with the base's block where it serves.
    pub(super) fn way(&self, block: &BlockGeometry) -> (Way, Option<BlockGeometry>) {
        let (_, changed) = self.split(block);
        let Some(old) = self.old.block(block.id).filter(|old| old.k == block.k) else { return (Way::Encode, None) };
        if changed.is_empty() {
            return (Way::Keep, Some(old));
        }
        let lengths: u64 = changed.iter().map(|shard| block.shard_len(*shard)).sum();
        let differing: u64 =
            changed.iter().map(|shard| self.differing(self.segment_span(segment_of(block, *shard)))).sum();
        // What each way reads: the old parity and both sides of the difference, or everything.
        let adding = lengths + differing + u64::from(block.m) * block.parity_len();
        if adding < block.data_len() { (Way::Add, Some(old)) } else { (Way::Encode, Some(old)) }
    }

    /// How the outer blocks of a group are best made; with `Add`, the outer
    /// code of the group and the shape of its blocks are the base's.
    pub(super) fn way_of_group(&self, group: u32) -> Way {
        let members = |geometry: &Geometry| (group < geometry.groups()).then(|| geometry.group_blocks(group));
        let shape = |geometry: &Geometry| geometry.block(BlockId::Outer { group, parity: 0 });
        let (Some(blocks), Some(outer)) = (members(&self.new), self.new.outer()) else { return Way::Encode };
        let Some(outer_block) = shape(&self.new) else { return Way::Encode };
        if members(&self.old) != Some(blocks.clone()) || shape(&self.old).as_ref() != Some(&outer_block) {
            return Way::Encode;
        }
        let block_size = u64::from(self.new.k()) * self.new.segment_size();
        let span = ContentRange::between(u64::from(blocks.start) * block_size, u64::from(blocks.end) * block_size);
        let differing = self.differing(span);
        if differing == 0 {
            return Way::Keep;
        }
        let adding = 2 * differing + u64::from(outer.m) * outer_block.stored_len();
        if adding < span.clamp_to(self.new.segments_len()).len() { Way::Add } else { Way::Encode }
    }

    fn differing(&self, span: ContentRange) -> u64 {
        self.within(span).map(ContentRange::len).sum()
    }
}

/// The segment that a data shard of a data block is.
pub(super) fn segment_of(block: &BlockGeometry, shard: ShardIndex) -> SegmentIndex {
    SegmentIndex::new(block.first_segment + u32::from(shard.get()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{TierLayout, TierRule};
    use proptest::prelude::*;

    fn geometry(len: u64) -> Geometry {
        let rule = TierRule {
            tier: 3,
            below: None,
            layout: TierLayout::Blocks,
            segment_size: 32768,
            min_segment_size: 32768,
            k: 4,
            m: 2,
            outer: None,
        };
        Geometry::choose(rule, len).unwrap()
    }

    proptest! {
        #[test]
        fn it_covers_what_changed_and_what_only_one_has(
            old in 40_000u64..400_000,
            new in 40_000u64..400_000,
            changes in prop::collection::vec((0u64..400_000, 1u64..50_000), 0..5),
        ) {
            let changed: Vec<_> = changes.iter().map(|(start, len)| ContentRange::between(*start, start + len)).collect();
            let difference = Difference::new(geometry(old), geometry(new), &changed).unwrap();
            for at in (0..old.max(new)).step_by(997) {
                let byte = ContentRange::between(at, at + 1);
                let differs = changed.iter().any(|range| !range.intersect(byte).is_empty()) || at >= old.min(new);
                prop_assert!(!differs || difference.touches(byte), "{}", at);
            }
            for pair in difference.ranges.windows(2) {
                prop_assert!(pair[0].end() < pair[1].start());
            }
            for segment in 0..difference.new.segments() {
                let segment = SegmentIndex::new(segment);
                let span = difference.segment_span(segment).clamp_to(old.max(new));
                let same = old.clamp(span.start(), span.end()) == new.clamp(span.start(), span.end());
                let touched = changed.iter().any(|range| !range.intersect(span).is_empty());
                prop_assert!(difference.is_changed(segment) || (same && !touched));
            }
        }
    }
}
