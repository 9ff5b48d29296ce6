//! One shard of an object: its file, its leaf table, its verified bytes.

use super::cache::{LeafTable, ShardAddress};
use super::object::Object;
use crate::base::units::leaf_count;
use crate::base::{LEAF_SIZE, LeafIndex, ShardIndex, ShardRange};
use crate::format::tree::{has_tree, tree_slice};
use crate::format::{BlockGeometry, layout};
use crate::merkle::{self, GROUP};
use crate::store::{StoreError, StoreErrorKind, StoredFile};
use std::sync::Arc;

/// Why a shard cannot be used at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShardFault {
    /// There is no file.
    Missing,
    /// The operating system refuses access.
    Denied,
    /// The device reports an error.
    Unreadable(String),
    /// Neither `tree.dat` nor the file itself gives leaf hashes that match the root.
    NoLeafTable,
}

impl ShardFault {
    pub(super) fn of(error: &StoreError) -> Self {
        match error.kind() {
            StoreErrorKind::NotFound => ShardFault::Missing,
            StoreErrorKind::Denied => ShardFault::Denied,
            _ => ShardFault::Unreadable(error.to_string()),
        }
    }
}

impl std::fmt::Display for ShardFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ShardFault::Missing => f.write_str("missing"),
            ShardFault::Denied => f.write_str("permission denied"),
            ShardFault::Unreadable(why) => write!(f, "unreadable ({why})"),
            ShardFault::NoLeafTable => f.write_str("damaged, and so are its leaf hashes"),
        }
    }
}

impl Object {
    pub(super) fn address(&self, block: &BlockGeometry, shard: ShardIndex) -> ShardAddress {
        ShardAddress { root: self.manifest().root(), block: block.id, shard }
    }

    pub(super) fn shard_file_name(&self, block: &BlockGeometry, shard: ShardIndex) -> String {
        layout::shard_path(self.manifest().geometry(), block, shard)
    }

    /// The open file of a shard, from the cache or the store.
    pub(super) fn shard_file(
        &self,
        block: &BlockGeometry,
        shard: ShardIndex,
    ) -> Result<Arc<dyn StoredFile>, StoreError> {
        let address = self.address(block, shard);
        let caches = &self.shared().caches;
        if let Some(file) = caches.file(&address) {
            return Ok(file);
        }
        let file = self.open_file(&self.shard_file_name(block, shard))?;
        caches.keep_file(address, file.clone());
        Ok(file)
    }

    pub(super) fn open_file(&self, path: &str) -> Result<Arc<dyn StoredFile>, StoreError> {
        let store = &self.shared().store;
        let key = self.prefix().join(path).map_err(|error| StoreError::bad_key(store.label(), error))?;
        store.open(&key)
    }

    /// The leaf table of a shard, taken from the cache, from `tree.dat`, or
    /// from the shard itself: whatever matches the root in the manifest.
    pub(super) fn own_leaf_table(&self, block: &BlockGeometry, shard: ShardIndex) -> Option<LeafTable> {
        let address = self.address(block, shard);
        if let Some(table) = self.shared().caches.table(&address) {
            return Some(table);
        }
        let root = *self.manifest().roots(block.id)?.shard(shard)?;
        let table: LeafTable = if leaf_count(block.shard_len(shard)) == 1 {
            Arc::new([*root.as_bytes()])
        } else {
            let matches = |table: &Vec<_>| merkle::root(table) == Some(root);
            let stored = self.stored_leaves(block, shard).filter(matches);
            stored.or_else(|| self.computed_leaves(block, shard).filter(matches))?.into()
        };
        self.shared().caches.keep_table(address, table.clone());
        Some(table)
    }

    /// What `tree.dat` says, unchecked.
    fn stored_leaves(&self, block: &BlockGeometry, shard: ShardIndex) -> Option<Vec<merkle::LeafHash>> {
        if !has_tree(block) {
            return None;
        }
        let (offset, count) = tree_slice(block, shard);
        let mut leaves = vec![[0; 32]; count as usize];
        let file = self.open_file(&layout::tree_path(self.manifest().geometry(), block)).ok()?;
        file.read_at(offset, leaves.as_flattened_mut()).ok()?;
        Some(leaves)
    }

    /// The hashes of what the shard's file holds, unchecked.
    fn computed_leaves(&self, block: &BlockGeometry, shard: ShardIndex) -> Option<Vec<merkle::LeafHash>> {
        let file = self.shard_file(block, shard).ok()?;
        let len = block.shard_len(shard);
        let mut leaves = Vec::with_capacity(leaf_count(len) as usize);
        let mut buffer = vec![0; (256 * 1024).min(len as usize)];
        let mut at = 0;
        while at < len {
            let part = &mut buffer[..(len - at).min(256 * 1024) as usize];
            file.read_at(at, part).ok()?;
            merkle::hash_leaves(part, at / LEAF_SIZE, len, &mut leaves);
            at += part.len() as u64;
        }
        Some(leaves)
    }

    /// Reads whole leaves of a shard (`range` begins on a leaf and ends on one
    /// or at the shard's end) into `buffer` and verifies them. Returns the bad
    /// ones, whose bytes in `buffer` mean nothing. Bytes behind the end of a
    /// file that was cut short count as bad.
    pub(super) fn read_leaves(
        &self,
        block: &BlockGeometry,
        shard: ShardIndex,
        range: ShardRange,
        buffer: &mut [u8],
    ) -> Result<Vec<LeafIndex>, ShardFault> {
        let table = self.own_leaf_table(block, shard).ok_or_else(|| match self.shard_file(block, shard) {
            Ok(_) => ShardFault::NoLeafTable,
            Err(error) => ShardFault::of(&error),
        })?;
        self.read_leaves_against(block, shard, range, buffer, &table)
    }

    /// As [`Self::read_leaves`], with a leaf table that is known already.
    pub(super) fn read_leaves_against(
        &self,
        block: &BlockGeometry,
        shard: ShardIndex,
        range: ShardRange,
        buffer: &mut [u8],
        table: &LeafTable,
    ) -> Result<Vec<LeafIndex>, ShardFault> {
        let bad = self.read_once(block, shard, range, buffer, table);
        if matches!(&bad, Ok(leaves) if leaves.is_empty()) {
            return bad;
        }
        // The file may have been replaced by a repair since it was opened.
        self.shared().caches.forget_file(&self.address(block, shard));
        self.read_once(block, shard, range, buffer, table)
    }

    fn read_once(
        &self,
        block: &BlockGeometry,
        shard: ShardIndex,
        range: ShardRange,
        buffer: &mut [u8],
        table: &LeafTable,
    ) -> Result<Vec<LeafIndex>, ShardFault> {
        let fetched = self.fetch(block, shard, range, buffer)?;
        Ok(fetched.bad_leaves(buffer, table))
    }

    /// Reads whole leaves of a shard without looking at them.
    pub(super) fn fetch(
        &self,
        block: &BlockGeometry,
        shard: ShardIndex,
        range: ShardRange,
        buffer: &mut [u8],
    ) -> Result<Fetched, ShardFault> {
        let file = self.shard_file(block, shard).map_err(|error| ShardFault::of(&error))?;
        let there = range.clamp_to(file.len());
        let present = &mut buffer[..there.len() as usize];
        let unreadable = match file.read_at(there.start(), present) {
            Ok(()) => Vec::new(),
            Err(_) => self.read_leaf_by_leaf(&*file, there, present)?,
        };
        Ok(Fetched { range, there, shard_len: block.shard_len(shard), unreadable })
    }

    /// After a failed read of several leaves: which of them cannot be read.
    /// An error when none can.
    fn read_leaf_by_leaf(
        &self,
        file: &dyn StoredFile,
        range: ShardRange,
        buffer: &mut [u8],
    ) -> Result<Vec<LeafIndex>, ShardFault> {
        let mut bad = Vec::new();
        let mut last = None;
        for (leaf, part) in range.leaves().zip(buffer.chunks_mut(LEAF_SIZE as usize)) {
            if let Err(error) = file.read_at(u64::from(leaf.get()) * LEAF_SIZE, part) {
                bad.push(leaf);
                last = Some(error);
            }
        }
        match last {
            Some(error) if bad.len() == range.leaves().count() => Err(ShardFault::of(&error)),
            _ => Ok(bad),
        }
    }
}

/// Bytes of a shard that were read and not looked at yet: where they came
/// from, and what of them could not be read.
#[derive(Debug)]
pub(super) struct Fetched {
    range: ShardRange,
    there: ShardRange,
    shard_len: u64,
    unreadable: Vec<LeafIndex>,
}

impl Fetched {
    /// The leaves that do not match the table; all others are verified.
    pub(super) fn bad_leaves(&self, buffer: &[u8], table: &[merkle::LeafHash]) -> Vec<LeafIndex> {
        let bytes_of = |leaf: LeafIndex, leaves: u32| {
            let first = ShardRange::of_leaf(leaf, self.shard_len).start();
            let last = ShardRange::of_leaf(LeafIndex::new(leaf.get() + leaves - 1), self.shard_len).end();
            (last <= self.there.end())
                .then(|| &buffer[(first - self.range.start()) as usize..(last - self.range.start()) as usize])
        };
        let mut bad = Vec::new();
        let mut leaves = self.range.leaves().peekable();
        while let Some(&leaf) = leaves.peek() {
            let group = merkle::group_of_leaves(leaf, table);
            let whole =
                group.filter(|_| self.unreadable.is_empty()).and_then(|group| Some((group, bytes_of(leaf, GROUP)?)));
            if let Some((group, bytes)) = whole
                && merkle::group_hash(bytes, leaf) == group
            {
                leaves.by_ref().take(GROUP as usize).for_each(drop);
                continue;
            }
            leaves.next();
            let good = bytes_of(leaf, 1).is_some_and(|bytes| leaf_matches(bytes, leaf, table));
            if !good || self.unreadable.contains(&leaf) {
                bad.push(leaf);
            }
        }
        bad
    }
}

/// Whether a leaf's bytes match its hash in the table.
pub(super) fn leaf_matches(bytes: &[u8], leaf: LeafIndex, table: &[merkle::LeafHash]) -> bool {
    let computed = if table.len() == 1 { *blake3::hash(bytes).as_bytes() } else { merkle::leaf_hash(bytes, leaf) };
    table.get(leaf.as_usize()) == Some(&computed)
}
