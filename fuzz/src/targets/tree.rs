//! Tree files, and the trees of shards.

use super::reseal;
use blockframe::base::{BlockIndex, Digest};
use blockframe::format::tree::{has_tree, tree_bytes, tree_is_whole, tree_len, tree_slice};
use blockframe::format::{BlockId, Geometry, TierLayout, TierRule};
use blockframe::merkle::{self, LeafHash};

const LEAF: u64 = 16384;

/// The input is a geometry (8 bytes), then a tree file that gets its root, its number of shards and its hash.
pub fn run(input: &[u8]) {
    let Some((&[k, m, a, b, c, d, e, f], file)) = input.split_first_chunk() else { return };
    let rule = TierRule {
        tier: 1,
        below: None,
        layout: TierLayout::Blocks,
        segment_size: 64 * (1 + u64::from(u16::from_le_bytes([a, b]))),
        min_segment_size: 64,
        k: u16::from(k % 8) + 1,
        m: u16::from(m % 4) + 1,
        outer: None,
    };
    let len = u64::from(u32::from_le_bytes([c, d, e, f])) % (rule.segment_size * u64::from(rule.k)) + 1;
    let Some(geometry) = Geometry::new(rule, rule.segment_size, len) else { return };
    let Some(block) = geometry.block(BlockId::Data(BlockIndex::new(0))) else { return };
    let root = Digest::of(b"root");
    let mut at = 48;
    let mut tables: Vec<Vec<LeafHash>> = Vec::new();
    for shard in block.shard_indexes() {
        let (start, leaves) = tree_slice(&block, shard);
        assert_eq!((start, u64::from(leaves)), (at, block.shard_len(shard).div_ceil(LEAF)));
        at += u64::from(leaves) * 32;
        tables.push((0..leaves).map(|leaf| *Digest::of(&leaf.to_le_bytes()).as_bytes()).collect());
    }
    assert_eq!((tree_len(&block), has_tree(&block)), (at + 32, tables.iter().any(|table| table.len() > 1)));
    let written = tree_bytes(&root, tables.iter().map(Vec::as_slice));
    assert!(written.len() as u64 == tree_len(&block) && tree_is_whole(&written, &block, &root));
    for table in &tables {
        let mut builder = merkle::RootBuilder::default();
        table.iter().for_each(|leaf| builder.push(*leaf));
        assert_eq!(builder.finish(), merkle::root(table));
    }
    let mut bytes = file.to_vec();
    let end = bytes.len().saturating_sub(32);
    reseal::blake3_at(&mut bytes, 0..end, end);
    let right = |bytes: &[u8]| bytes.len() == written.len() && bytes[..48] == written[..48];
    assert_eq!(tree_is_whole(&bytes, &block, &root), right(&bytes) && bytes[44..48] == [0; 4]);
}

/// Two geometries, with and without a tree.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut whole = vec![2, 1, 0, 1, 0x21, 0x43, 0, 0];
    whole.extend_from_slice(b"BFTREE1\n");
    whole.resize(200, 0);
    vec![whole, vec![7, 3, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0]]
}
