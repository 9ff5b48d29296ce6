//! What an archive keeps of its objects: open files, leaf tables, manifests,
//! and which shards were found unusable a moment ago. All bounded.

use super::encode::lock;
use super::object::ObjectRef;
use crate::base::{Digest, ShardIndex, Timestamp};
use crate::format::{BlockId, Manifest};
use crate::merkle::LeafHash;
use crate::store::StoredFile;
use lru::LruCache;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

/// One shard of one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ShardAddress {
    pub(super) root: Digest,
    pub(super) block: BlockId,
    pub(super) shard: ShardIndex,
}

/// Verified leaf hashes of one shard.
pub(super) type LeafTable = Arc<[LeafHash]>;

const OPEN_FILES: usize = 256;
const MANIFESTS: usize = 256;
const SUSPECTS: usize = 4096;
/// Bytes of leaf tables: enough for 16 GiB of shards.
const TABLE_BYTES: usize = 32 << 20;
/// How long an unusable shard is not asked again, seconds.
const SUSPECT_SECONDS: i64 = 30;

#[derive(Debug)]
pub(super) struct Caches {
    files: Mutex<LruCache<ShardAddress, Arc<dyn StoredFile>>>,
    tables: Mutex<Tables>,
    manifests: Mutex<LruCache<ObjectRef, Arc<Manifest>>>,
    suspects: Mutex<LruCache<ShardAddress, i64>>,
}

#[derive(Debug)]
struct Tables {
    lru: LruCache<ShardAddress, LeafTable>,
    bytes: usize,
}

fn bound(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN)
}

impl Default for Caches {
    fn default() -> Self {
        Self {
            files: Mutex::new(LruCache::new(bound(OPEN_FILES))),
            tables: Mutex::new(Tables { lru: LruCache::unbounded(), bytes: 0 }),
            manifests: Mutex::new(LruCache::new(bound(MANIFESTS))),
            suspects: Mutex::new(LruCache::new(bound(SUSPECTS))),
        }
    }
}

impl Caches {
    pub(super) fn file(&self, address: &ShardAddress) -> Option<Arc<dyn StoredFile>> {
        lock(&self.files).get(address).cloned()
    }

    pub(super) fn keep_file(&self, address: ShardAddress, file: Arc<dyn StoredFile>) {
        lock(&self.files).put(address, file);
    }

    /// Forgets an open file: the name may lead to another one now.
    pub(super) fn forget_file(&self, address: &ShardAddress) {
        lock(&self.files).pop(address);
    }

    pub(super) fn table(&self, address: &ShardAddress) -> Option<LeafTable> {
        lock(&self.tables).lru.get(address).cloned()
    }

    pub(super) fn keep_table(&self, address: ShardAddress, table: LeafTable) {
        let mut tables = lock(&self.tables);
        tables.bytes += table.as_flattened().len();
        if let Some(old) = tables.lru.put(address, table) {
            tables.bytes -= old.as_flattened().len();
        }
        while tables.bytes > TABLE_BYTES && tables.lru.len() > 1 {
            if let Some((_, old)) = tables.lru.pop_lru() {
                tables.bytes -= old.as_flattened().len();
            }
        }
    }

    pub(super) fn manifest(&self, reference: &ObjectRef) -> Option<Arc<Manifest>> {
        lock(&self.manifests).get(reference).cloned()
    }

    pub(super) fn keep_manifest(&self, reference: ObjectRef, manifest: Arc<Manifest>) {
        lock(&self.manifests).put(reference, manifest);
    }

    /// Whether the shard was found unusable a moment ago.
    pub(super) fn is_suspect(&self, address: &ShardAddress, now: Timestamp) -> bool {
        lock(&self.suspects).get(address).is_some_and(|since| (now.seconds - since).abs() < SUSPECT_SECONDS)
    }

    pub(super) fn suspect(&self, address: ShardAddress, now: Timestamp) {
        lock(&self.suspects).put(address, now.seconds);
    }

    /// Forgets all that is known of a shard's file, after it was rewritten.
    pub(super) fn forget_shard(&self, address: &ShardAddress) {
        self.forget_file(address);
        lock(&self.suspects).pop(address);
    }
}
