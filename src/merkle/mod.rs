//! BLAKE3 trees with leaves of 16 KiB, through `blake3::hazmat`: a tree's
//! root is the plain BLAKE3 of the bytes, and a leaf's hash is the chaining
//! value of its subtree.
//!
//! Source: BLAKE3 specification, section 2.1 (tree structure), and the
//! documentation of `blake3::hazmat`.

use crate::base::{Digest, LEAF_SIZE, LeafIndex};
use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

/// The hash of one leaf: a chaining value, or, where the leaf is the whole
/// content, its plain BLAKE3.
pub type LeafHash = [u8; 32];

/// Hashes a leaf of a content that has more than one leaf.
pub fn leaf_hash(bytes: &[u8], leaf: LeafIndex) -> LeafHash {
    leaf_hash_at(bytes, u64::from(leaf.get()))
}

/// As [`leaf_hash`], for contents with more leaves than a shard can have.
pub fn leaf_hash_at(bytes: &[u8], leaf: u64) -> LeafHash {
    debug_assert!(!bytes.is_empty() && bytes.len() as u64 <= LEAF_SIZE);
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(leaf * LEAF_SIZE);
    hasher.update(bytes);
    hasher.finalize_non_root()
}

/// Leaves that can be checked by one hash where they are read together: an
/// eighth of the calls, and longer inputs for the hash's wide instructions
/// (`cargo bench --bench core`, "verify").
pub const GROUP: u32 = 8;

/// The chaining value of the aligned group of [`GROUP`] leaves that begins at
/// `leaf`, from the leaves' own; `None` where no whole group begins there, or
/// the group would be the whole tree.
pub fn group_of_leaves(leaf: LeafIndex, table: &[LeafHash]) -> Option<LeafHash> {
    let first = leaf.as_usize();
    if !leaf.get().is_multiple_of(GROUP) || table.len() <= GROUP as usize {
        return None;
    }
    let mut level = table.get(first..first + GROUP as usize)?.to_vec();
    while level.len() > 1 {
        level = level.chunks(2).map(|pair| merge_subtrees_non_root(&pair[0], &pair[1], Mode::Hash)).collect();
    }
    level.pop()
}

/// The chaining value of the bytes of such a group.
pub fn group_hash(bytes: &[u8], first: LeafIndex) -> LeafHash {
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(u64::from(first.get()) * LEAF_SIZE);
    hasher.update(bytes);
    hasher.finalize_non_root()
}

/// Appends the hashes of the leaves of `bytes`, which begin at leaf `first`
/// of a content of `content_len` bytes and end at a leaf's end or the content's.
pub fn hash_leaves(bytes: &[u8], first: u64, content_len: u64, out: &mut Vec<LeafHash>) {
    if content_len <= LEAF_SIZE {
        out.push(*blake3::hash(bytes).as_bytes());
        return;
    }
    for (at, leaf) in bytes.chunks(LEAF_SIZE as usize).enumerate() {
        out.push(leaf_hash_at(leaf, first + at as u64));
    }
}

/// Collects leaf hashes in order, holding one hash for each level.
#[derive(Debug, Clone, Default)]
pub struct RootBuilder {
    stack: Vec<LeafHash>,
    count: u64,
}

impl RootBuilder {
    /// Takes the next leaf's hash.
    pub fn push(&mut self, leaf: LeafHash) {
        // Subtrees are merged only once a leaf follows them: the topmost
        // merge is of another kind, and which one that is shows at the end.
        let mut complete = self.count;
        while complete > 0 && self.stack.len() as u32 > complete.count_ones() {
            self.merge();
        }
        complete += 1;
        self.stack.push(leaf);
        self.count = complete;
    }

    fn merge(&mut self) {
        if let (Some(right), Some(left)) = (self.stack.pop(), self.stack.pop()) {
            self.stack.push(merge_subtrees_non_root(&left, &right, Mode::Hash));
        }
    }

    /// The chaining value of the leaves as a subtree of something longer;
    /// `None` when no leaf was pushed.
    pub fn finish_subtree(mut self) -> Option<LeafHash> {
        while self.stack.len() > 1 {
            self.merge();
        }
        self.stack.pop()
    }

    /// The root; `None` when no leaf was pushed. A single leaf's hash is the root.
    pub fn finish(mut self) -> Option<Digest> {
        while self.stack.len() > 2 {
            self.merge();
        }
        match self.stack.as_slice() {
            [] => None,
            [only] => Some(Digest::new(*only)),
            [left, right, ..] => Some(merge_subtrees_root(left, right, Mode::Hash).into()),
        }
    }
}

/// The root of a content whose leaves have these hashes; `None` for none.
pub fn root(leaves: &[LeafHash]) -> Option<Digest> {
    let mut builder = RootBuilder::default();
    leaves.iter().for_each(|leaf| builder.push(*leaf));
    builder.finish()
}

/// The chaining value of leaves (their hashes in order) that are a subtree of
/// something longer: a power of two of them at a place that is a multiple of
/// their number, or the last ones of all behind such a place. `None` for none.
pub fn subtree(leaves: &[LeafHash]) -> Option<LeafHash> {
    let mut builder = RootBuilder::default();
    leaves.iter().for_each(|leaf| builder.push(*leaf));
    builder.finish_subtree()
}

/// Whether pieces of this length are whole subtrees of a longer content that
/// begins with a multiple of them: a power of two of leaves. The last piece
/// may be shorter.
pub fn is_subtree_len(len: u64) -> bool {
    len >= LEAF_SIZE && len.is_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn root_of(bytes: &[u8]) -> Digest {
        let mut leaves = Vec::new();
        hash_leaves(bytes, 0, bytes.len() as u64, &mut leaves);
        root(&leaves).unwrap()
    }

    #[test]
    fn the_root_is_plain_blake3_at_awkward_sizes() {
        let bytes: Vec<u8> = (0..17 * LEAF_SIZE + 5).map(|at| (at * 31 % 251) as u8).collect();
        let leaf = LEAF_SIZE as usize;
        for len in [
            1,
            63,
            1024,
            1025,
            leaf - 1,
            leaf,
            leaf + 1,
            2 * leaf,
            3 * leaf,
            4 * leaf + 1,
            7 * leaf,
            16 * leaf + 1024,
            bytes.len(),
        ] {
            assert_eq!(root_of(&bytes[..len]), Digest::of(&bytes[..len]), "{len} bytes");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn subtrees_merge_to_the_root(len in 1usize..40 * 16384, power in 0u32..4, seed: u8) {
            let mut bytes = vec![0; len];
            blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
            let mut leaves = Vec::new();
            hash_leaves(&bytes, 0, len as u64, &mut leaves);
            let piece = 1 << power;
            prop_assert!(is_subtree_len(piece as u64 * LEAF_SIZE));
            prop_assume!(leaves.len() > piece);
            let subtrees: Vec<LeafHash> = leaves.chunks(piece).map(|leaves| subtree(leaves).unwrap()).collect();
            prop_assert_eq!(root(&subtrees), Some(Digest::of(&bytes)));
        }

        #[test]
        fn the_root_is_plain_blake3(len in 1usize..40 * 16384, seed: u8) {
            let mut bytes = vec![0; len];
            blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
            prop_assert_eq!(root_of(&bytes), Digest::of(&bytes));
        }
    }
}
