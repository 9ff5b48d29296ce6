//! `tree.dat`: the leaf hashes of a block's shards. A cache: each shard's
//! part is checked against the shard's root before it is used.
//!
//! Layout: magic `BFTREE1\n`, the block's root (32 bytes), number of shards
//! (u32), 0 (u32); then for each shard in order its leaf hashes (32 bytes
//! each, one a leaf); then BLAKE3 of all that (32 bytes). Integers are
//! little-endian. Where every shard of a block is one leaf, there is no file:
//! the shard's root is the leaf's hash.

use super::BlockGeometry;
use crate::base::units::leaf_count;
use crate::base::{Digest, ShardIndex};

const MAGIC: &[u8; 8] = b"BFTREE1\n";
const HEADER: u64 = 48;

/// Whether a block has a tree file.
pub fn has_tree(block: &BlockGeometry) -> bool {
    block.shard_indexes().any(|shard| leaf_count(block.shard_len(shard)) > 1)
}

/// Where the leaf hashes of a shard begin, and how many there are.
pub fn tree_slice(block: &BlockGeometry, shard: ShardIndex) -> (u64, u32) {
    let before: u64 =
        (0..shard.get()).map(|index| u64::from(leaf_count(block.shard_len(ShardIndex::new(index))))).sum();
    (HEADER + before * 32, leaf_count(block.shard_len(shard)))
}

/// Length of the whole file, bytes.
pub fn tree_len(block: &BlockGeometry) -> u64 {
    let (start, _) = tree_slice(block, ShardIndex::new(block.shards()));
    start + 32
}

/// The file's bytes. `leaves` holds the hashes of each shard in order.
pub fn tree_bytes<'a>(block_root: &Digest, leaves: impl ExactSizeIterator<Item = &'a [[u8; 32]]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(block_root.as_bytes());
    bytes.extend_from_slice(&(leaves.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    for shard in leaves {
        bytes.extend_from_slice(shard.as_flattened());
    }
    let digest = Digest::of(&bytes);
    bytes.extend_from_slice(digest.as_bytes());
    bytes
}

/// Whether `bytes` are a whole tree file for a block of this root.
pub fn tree_is_whole(bytes: &[u8], block: &BlockGeometry, block_root: &Digest) -> bool {
    let Some(at) = bytes.len().checked_sub(32) else { return false };
    bytes.len() as u64 == tree_len(block)
        && bytes.starts_with(MAGIC)
        && bytes[8..40] == *block_root.as_bytes()
        && bytes[40..44] == u32::from(block.shards()).to_le_bytes()
        && *Digest::of(&bytes[..at]).as_bytes() == bytes[at..]
}
