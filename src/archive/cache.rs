//! What an archive keeps of its objects: open files, leaf tables, manifests,
//! and which shards were found unusable a moment ago. All bounded.

use super::encode::lock;
use super::object::ObjectRef;
use super::unseal::OpenSegment;
use crate::base::{Digest, ShardIndex, Timestamp};
use crate::codec::{CodeError, Combination, ErasureCode};
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
/// Bytes of tags and frame tables of encoded segments: enough for some 16 GiB of content.
const SEGMENT_BYTES: usize = 20 << 20;
const COMBINATIONS: usize = 64;
/// Pieces of working memory that are kept; each has the columns of one block.
const KEPT_MEMORY: usize = 2;
/// How long an unusable shard is not asked again, seconds.
const SUSPECT_SECONDS: i64 = 30;

#[derive(Debug)]
pub(super) struct Caches {
    files: Mutex<LruCache<ShardAddress, Arc<dyn StoredFile>>>,
    tables: Mutex<Tables>,
    manifests: Mutex<LruCache<ObjectRef, Arc<Manifest>>>,
    suspects: Mutex<LruCache<ShardAddress, i64>>,
    segments: Mutex<Segments>,
    combinations: Mutex<LruCache<CombinationKey, Arc<Combination>>>,
    /// Working memory that a decode left for the next one.
    memory: Mutex<Vec<Vec<u8>>>,
}

/// k, m, the present shards and the wanted one.
type CombinationKey = (u16, u16, Vec<ShardIndex>, ShardIndex);

#[derive(Debug)]
struct Segments {
    lru: LruCache<ShardAddress, Arc<OpenSegment>>,
    bytes: usize,
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
            segments: Mutex::new(Segments { lru: LruCache::unbounded(), bytes: 0 }),
            combinations: Mutex::new(LruCache::new(bound(COMBINATIONS))),
            memory: Mutex::default(),
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

    pub(super) fn segment(&self, address: &ShardAddress) -> Option<Arc<OpenSegment>> {
        lock(&self.segments).lru.get(address).cloned()
    }

    pub(super) fn keep_segment(&self, address: ShardAddress, segment: Arc<OpenSegment>) {
        let mut segments = lock(&self.segments);
        segments.bytes += segment.memory();
        if let Some(old) = segments.lru.put(address, segment) {
            segments.bytes -= old.memory();
        }
        while segments.bytes > SEGMENT_BYTES && segments.lru.len() > 1 {
            if let Some((_, old)) = segments.lru.pop_lru() {
                segments.bytes -= old.memory();
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

    /// How to compute a shard from `present` ones.
    pub(super) fn combination(
        &self,
        k: u16,
        m: u16,
        present: &[ShardIndex],
        wanted: ShardIndex,
    ) -> Result<Arc<Combination>, CodeError> {
        let key = (k, m, present.to_vec(), wanted);
        if let Some(combination) = lock(&self.combinations).get(&key) {
            return Ok(combination.clone());
        }
        let combination = Arc::new(Combination::new(&mut ErasureCode::new(k, m), present, wanted)?);
        lock(&self.combinations).put(key, combination.clone());
        Ok(combination)
    }

    /// Memory for the columns of a decode; its bytes mean nothing.
    pub(super) fn memory(&self) -> Vec<u8> {
        lock(&self.memory).pop().unwrap_or_default()
    }

    /// Keeps memory for the next decode.
    pub(super) fn keep_memory(&self, memory: Vec<u8>) {
        let mut kept = lock(&self.memory);
        if kept.len() < KEPT_MEMORY {
            kept.push(memory);
        }
    }

    /// Forgets open files and doubts of an object that was written anew.
    pub(super) fn forget_object(&self, root: &Digest) {
        let forget = |address: &ShardAddress| address.root == *root;
        let mut files = lock(&self.files);
        let stale: Vec<ShardAddress> = files.iter().map(|(address, _)| *address).filter(forget).collect();
        for address in &stale {
            files.pop(address);
        }
        let mut suspects = lock(&self.suspects);
        let stale: Vec<ShardAddress> = suspects.iter().map(|(address, _)| *address).filter(forget).collect();
        for address in &stale {
            suspects.pop(address);
        }
    }

    /// Forgets all that is known of a shard's file, after it was rewritten.
    pub(super) fn forget_shard(&self, address: &ShardAddress) {
        self.forget_file(address);
        lock(&self.suspects).pop(address);
    }
}
