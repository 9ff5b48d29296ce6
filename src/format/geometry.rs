//! Which bytes of a content lie in which shard: pure arithmetic, no data.

use super::descriptor::{OuterCode, TierLayout, TierRule};
use crate::base::{BlockIndex, ContentRange, SegmentIndex, ShardIndex, ShardRange};

/// How one content is cut into segments, blocks and groups of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    content_len: u64,
    rule: TierRule,
    segment_size: u64,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockGeometry {
    /// Which block.
    pub id: BlockId,
    /// The number of its first segment within the object (0 in outer blocks).
    pub first_segment: u32,
    /// Data shards.
    pub k: u16,
    /// Parity shards.
    pub m: u16,
    /// Length of all data shards but the last, bytes.
    full_len: u64,
    /// Length of the last data shard, bytes.
    last_len: u64,
}

impl BlockGeometry {
    /// Length of a parity shard. With one data shard parity is a copy of it;
    /// otherwise the longest shard's length in whole 64-byte units.
    pub fn parity_len(&self) -> u64 {
        if self.k == 1 { self.last_len } else { self.full_len.next_multiple_of(64) }
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
        if !self.is_data(shard) {
            self.parity_len()
        } else if shard.get() + 1 == self.k {
            self.last_len
        } else {
            self.full_len
        }
    }

    /// Bytes of all shards.
    pub fn stored_len(&self) -> u64 {
        self.data_len() + u64::from(self.m) * self.parity_len()
    }

    /// Bytes of the data shards.
    pub fn data_len(&self) -> u64 {
        u64::from(self.k - 1) * self.full_len + self.last_len
    }
}

impl Geometry {
    /// The geometry of a content of `content_len` bytes (at least one) under
    /// `rule`, with segments of `segment_size` bytes. `None` when there would
    /// be none or more segments than can be counted.
    pub fn new(rule: TierRule, segment_size: u64, content_len: u64) -> Option<Self> {
        let segments = content_len.checked_div(segment_size)?;
        if content_len == 0 || segments >= u64::from(u32::MAX) / 2 || rule.k == 0 || !segment_size.is_multiple_of(64) {
            return None;
        }
        if rule.layout == TierLayout::Whole && content_len > segment_size {
            return None;
        }
        Some(Self { content_len, rule, segment_size })
    }

    /// The geometry that a commit chooses.
    pub fn choose(rule: TierRule, content_len: u64) -> Option<Self> {
        Self::new(rule, rule.segment_size_for(content_len), content_len)
    }

    /// Length of the content, bytes.
    pub fn content_len(&self) -> u64 {
        self.content_len
    }

    /// The tier's number.
    pub fn tier(&self) -> u8 {
        self.rule.tier
    }

    /// Where the shards lie.
    pub fn layout(&self) -> TierLayout {
        self.rule.layout
    }

    /// Length of all segments but the last, bytes.
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
        self.content_len.div_ceil(self.segment_size) as u32
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
                let last_len = self.segment_len(SegmentIndex::new(first + count - 1));
                Some(BlockGeometry {
                    id,
                    first_segment: first,
                    k: count as u16,
                    m: self.rule.m,
                    full_len: if count > 1 { self.segment_size } else { last_len },
                    last_len,
                })
            }
            BlockId::Outer { group, parity } => {
                let outer = self.rule.outer?;
                if group >= self.groups() || parity >= outer.m {
                    return None;
                }
                // The group's first block is its longest.
                let longest = self.block(BlockId::Data(BlockIndex::new(self.group_blocks(group).start)))?;
                Some(BlockGeometry {
                    id,
                    first_segment: 0,
                    k: longest.k,
                    m: self.rule.m,
                    full_len: longest.full_len.next_multiple_of(64),
                    last_len: longest.last_len.next_multiple_of(64),
                })
            }
        }
    }

    /// Length of a segment, bytes; 0 past the last.
    pub fn segment_len(&self, segment: SegmentIndex) -> u64 {
        let start = u64::from(segment.get()) * self.segment_size;
        self.content_len.saturating_sub(start).min(self.segment_size)
    }

    /// The block and shard of a segment.
    pub fn segment_place(&self, segment: SegmentIndex) -> (BlockIndex, ShardIndex) {
        let k = u32::from(self.rule.k);
        (BlockIndex::new(segment.get() / k), ShardIndex::new((segment.get() % k) as u16))
    }

    /// The pieces of a range of the content (cut at the content's end), in order.
    pub fn pieces(&self, range: ContentRange) -> impl Iterator<Item = Piece> + use<> {
        let geometry = *self;
        let range = range.clamp_to(self.content_len);
        let mut at = range.start();
        std::iter::from_fn(move || {
            if at >= range.end() {
                return None;
            }
            let segment = SegmentIndex::new((at / geometry.segment_size) as u32);
            let start = at % geometry.segment_size;
            let len = (range.end() - at).min(geometry.segment_size - start);
            let (block, shard) = geometry.segment_place(segment);
            let piece = Piece { block, shard, range: ShardRange::between(start, start + len), content_start: at };
            at += len;
            Some(piece)
        })
    }

    /// Whether every segment is a whole subtree of the content's BLAKE3 tree
    /// and not all of it, so that the segments' chaining values give the content's hash.
    pub fn has_content_tree(&self) -> bool {
        self.segments() > 1 && crate::merkle::is_subtree_len(self.segment_size)
    }

    /// Bytes of all shards, outer blocks included.
    pub fn stored_len(&self) -> u64 {
        self.block_ids().filter_map(|id| self.block(id)).map(|block| block.stored_len()).sum()
    }
}

/// A part of a content range that lies in one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// The data block.
    pub block: BlockIndex,
    /// The data shard within it.
    pub shard: ShardIndex,
    /// Where in the shard.
    pub range: ShardRange,
    /// Where in the content.
    pub content_start: u64,
}
