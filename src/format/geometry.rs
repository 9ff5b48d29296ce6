//! Which bytes of a content lie in which shard: pure arithmetic, no data.

use super::descriptor::{OuterCode, TierLayout, TierRule};
use crate::base::{BlockIndex, ContentRange, SegmentIndex, ShardIndex, ShardRange};
use std::sync::Arc;

/// More segments than an object has.
const MAX_SEGMENTS: u64 = u32::MAX as u64 / 2;
/// More bytes than the file of an encoded segment has: twice the longest segment.
pub const MAX_ENCODED_SEGMENT: u64 = 2 << 30;

/// How one content is cut into segments, blocks and groups of blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Geometry {
    rule: TierRule,
    segment_size: u64,
    lens: SegmentLens,
}

/// The lengths of the segments' files.
#[derive(Debug, Clone, PartialEq, Eq)]
enum SegmentLens {
    /// Segments are slices of a content of this many bytes.
    Slices(u64),
    /// Segments are encoded; each has a length of its own.
    Listed(Arc<[u64]>),
}

/// A block that holds content, or a parity block over such blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BlockId {
    /// A block of content segments.
    Data(BlockIndex),
    /// Parity block `parity` over the data blocks of group `group`.
    Outer {
        /// The group of data blocks.
        group: u32,
        /// Which of the group's parity blocks.
        parity: u16,
    },
}

/// The shards of one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockGeometry {
    /// Which block.
    pub id: BlockId,
    /// The number of its first segment within the object (0 in outer blocks).
    pub first_segment: u32,
    /// Data shards.
    pub k: u16,
    /// Parity shards.
    pub m: u16,
    lens: ShardLens,
}

/// The lengths of a block's data shards, bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ShardLens {
    /// All but the last are `full` long.
    Even { full: u64, last: u64 },
    /// Each its own: those of `list` from `first` on.
    Listed { list: Arc<[u64]>, first: usize },
}

impl BlockGeometry {
    /// A data block of encoded segments of these lengths.
    pub fn of_listed(block: BlockIndex, first_segment: u32, m: u16, lens: Arc<[u64]>) -> Self {
        let k = lens.len() as u16;
        Self { id: BlockId::Data(block), first_segment, k, m, lens: ShardLens::Listed { list: lens, first: 0 } }
    }

    fn data_len_of(&self, shard: u16) -> u64 {
        match &self.lens {
            ShardLens::Even { last, .. } if shard + 1 == self.k => *last,
            ShardLens::Even { full, .. } => *full,
            ShardLens::Listed { list, first } => list.get(first + usize::from(shard)).copied().unwrap_or(0),
        }
    }

    /// Length of a parity shard. With one data shard parity is a copy of it;
    /// otherwise the longest shard's length in whole 64-byte units.
    pub fn parity_len(&self) -> u64 {
        match &self.lens {
            _ if self.k == 1 => self.data_len_of(0),
            ShardLens::Even { full, .. } => full.next_multiple_of(64),
            ShardLens::Listed { .. } => {
                (0..self.k).map(|shard| self.data_len_of(shard)).max().unwrap_or(0).next_multiple_of(64)
            }
        }
    }

    /// Number of shards, data and parity.
    pub fn shards(&self) -> u16 {
        self.k + self.m
    }

    /// All shards, data first.
    pub fn shard_indexes(&self) -> impl DoubleEndedIterator<Item = ShardIndex> + use<> {
        (0..self.shards()).map(ShardIndex::new)
    }

    /// Whether the shard holds content (or, in an outer block, outer parity).
    pub fn is_data(&self, shard: ShardIndex) -> bool {
        shard.get() < self.k
    }

    /// Length of a shard's file, bytes.
    pub fn shard_len(&self, shard: ShardIndex) -> u64 {
        if self.is_data(shard) { self.data_len_of(shard.get()) } else { self.parity_len() }
    }

    /// Bytes of all shards.
    pub fn stored_len(&self) -> u64 {
        self.data_len() + u64::from(self.m) * self.parity_len()
    }

    /// Bytes of the data shards.
    pub fn data_len(&self) -> u64 {
        (0..self.k).map(|shard| self.data_len_of(shard)).sum()
    }
}

impl Geometry {
    /// The geometry of a content of `content_len` bytes (at least one) under
    /// `rule`, with segments of `segment_size` bytes. `None` when there would
    /// be none or more segments than can be counted.
    pub fn new(rule: TierRule, segment_size: u64, content_len: u64) -> Option<Self> {
        let segments = content_len.checked_div(segment_size)?;
        if content_len == 0 || segments >= MAX_SEGMENTS || rule.k == 0 || !segment_size.is_multiple_of(64) {
            return None;
        }
        if rule.layout == TierLayout::Whole && content_len > segment_size {
            return None;
        }
        Some(Self { rule, segment_size, lens: SegmentLens::Slices(content_len) })
    }

    /// The geometry that a commit chooses.
    pub fn choose(rule: TierRule, content_len: u64) -> Option<Self> {
        Self::new(rule, rule.segment_size_for(content_len), content_len)
    }

    /// The geometry of encoded segments of these lengths (each at least 1 and
    /// below [`MAX_ENCODED_SEGMENT`]). `segment_size` is the length of the
    /// part of the content that each one encodes. `None` where there are no
    /// such objects.
    pub fn encoded(rule: TierRule, segment_size: u64, lens: Arc<[u64]>) -> Option<Self> {
        let count = lens.len() as u64;
        let whole = rule.layout != TierLayout::Whole || count == 1;
        let sizes = segment_size > 0 && segment_size.is_multiple_of(64);
        let bounded = lens.iter().all(|len| (1..MAX_ENCODED_SEGMENT).contains(len));
        let possible = count > 0 && count < MAX_SEGMENTS && rule.k > 0 && whole && sizes && bounded;
        possible.then_some(Self { rule, segment_size, lens: SegmentLens::Listed(lens) })
    }

    /// The lengths of encoded segments; `None` where segments are slices of the content.
    pub fn encoded_lens(&self) -> Option<&Arc<[u64]>> {
        match &self.lens {
            SegmentLens::Slices(_) => None,
            SegmentLens::Listed(lens) => Some(lens),
        }
    }

    /// The tier and its code.
    pub fn rule(&self) -> &TierRule {
        &self.rule
    }

    /// Bytes of all segments: of the content itself where they are slices of it.
    pub fn segments_len(&self) -> u64 {
        match &self.lens {
            SegmentLens::Slices(len) => *len,
            SegmentLens::Listed(lens) => lens.iter().sum(),
        }
    }

    /// The tier's number.
    pub fn tier(&self) -> u8 {
        self.rule.tier
    }

    /// Where the shards lie.
    pub fn layout(&self) -> TierLayout {
        self.rule.layout
    }

    /// Bytes of the content that each segment but the last holds.
    pub fn segment_size(&self) -> u64 {
        self.segment_size
    }

    /// Data shards of a full block.
    pub fn k(&self) -> u16 {
        self.rule.k
    }

    /// Parity shards of a block.
    pub fn m(&self) -> u16 {
        self.rule.m
    }

    /// The code over blocks.
    pub fn outer(&self) -> Option<OuterCode> {
        self.rule.outer
    }

    /// Number of segments.
    pub fn segments(&self) -> u32 {
        match &self.lens {
            SegmentLens::Slices(len) => len.div_ceil(self.segment_size) as u32,
            SegmentLens::Listed(lens) => lens.len() as u32,
        }
    }

    /// Number of data blocks.
    pub fn blocks(&self) -> u32 {
        self.segments().div_ceil(u32::from(self.rule.k))
    }

    /// Number of groups of data blocks; 0 without an outer code.
    pub fn groups(&self) -> u32 {
        self.rule.outer.map_or(0, |outer| self.blocks().div_ceil(u32::from(outer.k)))
    }

    /// The data blocks of a group.
    pub fn group_blocks(&self, group: u32) -> std::ops::Range<u32> {
        let Some(outer) = self.rule.outer else { return 0..0 };
        let first = group.saturating_mul(u32::from(outer.k));
        first.min(self.blocks())..first.saturating_add(u32::from(outer.k)).min(self.blocks())
    }

    /// The group of a data block.
    pub fn group_of(&self, block: BlockIndex) -> Option<u32> {
        self.rule.outer.map(|outer| block.get() / u32::from(outer.k))
    }

    /// All blocks: those with content, then the outer ones.
    pub fn block_ids(&self) -> impl Iterator<Item = BlockId> + use<> {
        let parities = self.rule.outer.map_or(0, |outer| outer.m);
        let data = (0..self.blocks()).map(|block| BlockId::Data(BlockIndex::new(block)));
        let outer =
            (0..self.groups()).flat_map(move |group| (0..parities).map(move |parity| BlockId::Outer { group, parity }));
        data.chain(outer)
    }

    /// The shards of a block; `None` when the object has no such block.
    pub fn block(&self, id: BlockId) -> Option<BlockGeometry> {
        match id {
            BlockId::Data(block) => {
                if block.get() >= self.blocks() {
                    return None;
                }
                let k = u32::from(self.rule.k);
                let first = block.get() * k;
                let count = (self.segments() - first).min(k);
                let lens = match &self.lens {
                    SegmentLens::Slices(_) => {
                        let last = self.segment_len(SegmentIndex::new(first + count - 1));
                        ShardLens::Even { full: if count > 1 { self.segment_size } else { last }, last }
                    }
                    SegmentLens::Listed(list) => ShardLens::Listed { list: list.clone(), first: first as usize },
                };
                Some(BlockGeometry { id, first_segment: first, k: count as u16, m: self.rule.m, lens })
            }
            BlockId::Outer { group, parity } => {
                let outer = self.rule.outer?;
                if group >= self.groups() || parity >= outer.m {
                    return None;
                }
                // The group's first block has the most shards.
                let members = self.group_blocks(group);
                let first = self.block(BlockId::Data(BlockIndex::new(members.start)))?;
                let lens = match first.lens {
                    ShardLens::Even { full, last } => {
                        ShardLens::Even { full: full.next_multiple_of(64), last: last.next_multiple_of(64) }
                    }
                    ShardLens::Listed { .. } => {
                        let longest = |shard: u16| {
                            let of =
                                |block| Some(self.block(BlockId::Data(BlockIndex::new(block)))?.data_len_of(shard));
                            members.clone().filter_map(of).max().unwrap_or(0).next_multiple_of(64)
                        };
                        ShardLens::Listed { list: (0..first.k).map(longest).collect(), first: 0 }
                    }
                };
                Some(BlockGeometry { id, first_segment: 0, k: first.k, m: self.rule.m, lens })
            }
        }
    }

    /// Length of a segment's file, bytes; 0 past the last.
    pub fn segment_len(&self, segment: SegmentIndex) -> u64 {
        match &self.lens {
            SegmentLens::Slices(len) => slice_len(*len, self.segment_size, segment),
            SegmentLens::Listed(lens) => lens.get(segment.as_usize()).copied().unwrap_or(0),
        }
    }

    /// The block and shard of a segment.
    pub fn segment_place(&self, segment: SegmentIndex) -> (BlockIndex, ShardIndex) {
        place_of(segment, u32::from(self.rule.k))
    }

    /// The pieces of a range (cut at the end) of a content of `content_len` bytes, in order.
    pub fn pieces(&self, content_len: u64, range: ContentRange) -> impl Iterator<Item = Piece> + use<> {
        let (segment_size, k) = (self.segment_size, u32::from(self.rule.k));
        let range = range.clamp_to(content_len);
        let mut at = range.start();
        std::iter::from_fn(move || {
            if at >= range.end() {
                return None;
            }
            let segment = SegmentIndex::new((at / segment_size) as u32);
            let start = at % segment_size;
            let len = (range.end() - at).min(segment_size - start);
            let (block, shard) = place_of(segment, k);
            let piece =
                Piece { segment, block, shard, range: ShardRange::between(start, start + len), content_start: at };
            at += len;
            Some(piece)
        })
    }

    /// Whether every segment of a content of `content_len` bytes is a whole subtree of the
    /// content's BLAKE3 tree and not all of it, so that the segments' chaining values give the content's hash.
    pub fn has_content_tree(&self, content_len: u64) -> bool {
        content_len > self.segment_size && crate::merkle::is_subtree_len(self.segment_size)
    }

    /// Length of the part of a content of `content_len` bytes that a segment holds or encodes.
    pub fn plain_len(&self, content_len: u64, segment: SegmentIndex) -> u64 {
        slice_len(content_len, self.segment_size, segment)
    }

    /// Bytes of all shards, outer blocks included.
    pub fn stored_len(&self) -> u64 {
        self.block_ids().filter_map(|id| self.block(id)).map(|block| block.stored_len()).sum()
    }
}

/// Length of a slice of a content that is cut into slices of `size` bytes; 0 past the last.
fn slice_len(content_len: u64, size: u64, segment: SegmentIndex) -> u64 {
    let start = u64::from(segment.get()) * size;
    content_len.saturating_sub(start).min(size)
}

fn place_of(segment: SegmentIndex, k: u32) -> (BlockIndex, ShardIndex) {
    (BlockIndex::new(segment.get() / k), ShardIndex::new((segment.get() % k) as u16))
}

/// A part of a content range that lies in one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// The segment.
    pub segment: SegmentIndex,
    /// The data block.
    pub block: BlockIndex,
    /// The data shard within it.
    pub shard: ShardIndex,
    /// Where in the segment's part of the content; where segments are slices, where in the shard.
    pub range: ShardRange,
    /// Where in the content.
    pub content_start: u64,
}
