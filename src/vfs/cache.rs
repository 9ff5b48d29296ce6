//! The block cache: verified chunks of objects, least recently used first to
//! go, bounded in bytes. Only [`VerifiedRange`]s get in, so nothing unverified
//! can come out.

use super::lock;
use crate::archive::{ArchiveResult, VerifiedRange};
use crate::base::{ContentRange, Digest, LEAF_SIZE};
use lru::LruCache;
use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Bytes of one chunk of an object's content: as long as the kernel's longest
/// read request, so that most requests are answered from one chunk without copying.
pub(super) const CHUNK: u64 = 1 << 20;

/// A chunk of an object: the object's root and the chunk's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ChunkKey {
    pub(super) root: Digest,
    pub(super) index: u64,
}

impl ChunkKey {
    /// Which bytes of the object's content it is.
    pub(super) fn range(self) -> ContentRange {
        let start = self.index.saturating_mul(CHUNK);
        ContentRange::between(start, start.saturating_add(CHUNK))
    }
}

/// The cache. Its lock is never held while data is read.
#[derive(Debug)]
pub(super) struct ChunkCache {
    limit: u64,
    state: Mutex<State>,
    landed: Condvar,
}

#[derive(Debug)]
struct State {
    chunks: LruCache<ChunkKey, Arc<VerifiedRange>>,
    bytes: u64,
    loading: HashSet<ChunkKey>,
}

/// Takes the key out of the set of those that are being loaded, however the load ends.
struct Loading<'a> {
    cache: &'a ChunkCache,
    key: ChunkKey,
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        lock(&self.cache.state).loading.remove(&self.key);
        self.cache.landed.notify_all();
    }
}

/// Memory that a chunk occupies: the archive reads whole leaves around it.
fn cost(chunk: &VerifiedRange) -> u64 {
    chunk.range().len() + 2 * LEAF_SIZE
}

impl ChunkCache {
    /// A cache of at most `limit` bytes.
    pub(super) fn new(limit: u64) -> Self {
        let state = State { chunks: LruCache::unbounded(), bytes: 0, loading: HashSet::new() };
        Self { limit, state: Mutex::new(state), landed: Condvar::new() }
    }

    /// Most bytes that it holds.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// A chunk, if it is there.
    pub(super) fn get(&self, key: ChunkKey) -> Option<Arc<VerifiedRange>> {
        lock(&self.state).chunks.get(&key).cloned()
    }

    /// A chunk: from the cache, from a load that is under way, or from `load`.
    /// After a failed load those who waited for it try for themselves.
    pub(super) fn get_or_load(
        &self,
        key: ChunkKey,
        load: impl FnOnce() -> ArchiveResult<VerifiedRange>,
    ) -> ArchiveResult<Arc<VerifiedRange>> {
        let mut state = lock(&self.state);
        loop {
            if let Some(chunk) = state.chunks.get(&key) {
                return Ok(Arc::clone(chunk));
            }
            if state.loading.insert(key) {
                break;
            }
            state = self.landed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        self.load(key, load)
    }

    /// Loads a chunk unless it is there or on its way.
    pub(super) fn prefetch(
        &self,
        key: ChunkKey,
        load: impl FnOnce() -> ArchiveResult<VerifiedRange>,
    ) -> ArchiveResult<()> {
        {
            let mut state = lock(&self.state);
            if state.chunks.contains(&key) || !state.loading.insert(key) {
                return Ok(());
            }
        }
        self.load(key, load).map(|_| ())
    }

    /// Loads a chunk whose key the caller has put into `loading`.
    fn load(
        &self,
        key: ChunkKey,
        load: impl FnOnce() -> ArchiveResult<VerifiedRange>,
    ) -> ArchiveResult<Arc<VerifiedRange>> {
        let _loading = Loading { cache: self, key };
        let chunk = Arc::new(load()?);
        let mut state = lock(&self.state);
        state.bytes += cost(&chunk);
        if let Some(old) = state.chunks.put(key, Arc::clone(&chunk)) {
            state.bytes -= cost(&old);
        }
        while state.bytes > self.limit {
            let Some((_, old)) = state.chunks.pop_lru() else { break };
            state.bytes -= cost(&old);
        }
        Ok(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::ArchiveError;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn key(index: u64) -> ChunkKey {
        ChunkKey { root: Digest::of(b"object"), index }
    }

    fn chunk(index: u64, len: usize) -> VerifiedRange {
        let start = key(index).range().start();
        VerifiedRange::for_test(start, vec![index as u8; len])
    }

    #[test]
    fn memory_stays_within_the_limit_and_the_oldest_go_first() {
        let cache = ChunkCache::new(4 * (CHUNK + 2 * LEAF_SIZE));
        for index in 0..10 {
            cache.get_or_load(key(index), || Ok(chunk(index, CHUNK as usize))).unwrap();
            assert!(lock(&cache.state).bytes <= cache.limit());
        }
        assert!(cache.get(key(5)).is_none());
        assert!((6..10).all(|index| cache.get(key(index)).is_some()));
    }

    #[test]
    fn a_chunk_larger_than_the_cache_is_returned_and_not_kept() {
        let cache = ChunkCache::new(10);
        let got = cache.get_or_load(key(0), || Ok(chunk(0, 100))).unwrap();
        assert_eq!(got.bytes(), [0; 100]);
        assert!(cache.get(key(0)).is_none());
        assert_eq!(lock(&cache.state).bytes, 0);
    }

    #[test]
    fn readers_of_one_chunk_share_one_load() {
        let cache = ChunkCache::new(1 << 30);
        let loads = AtomicUsize::new(0);
        let barrier = Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    barrier.wait();
                    let got = cache.get_or_load(key(3), || {
                        loads.fetch_add(1, Ordering::SeqCst);
                        Ok(chunk(3, 1000))
                    });
                    assert_eq!(got.unwrap().bytes(), [3; 1000]);
                });
            }
        });
        assert_eq!(loads.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_failed_load_is_not_remembered() {
        let cache = ChunkCache::new(1 << 30);
        assert!(cache.get_or_load(key(0), || Err(ArchiveError::Internal("lost".into()))).is_err());
        assert!(cache.get_or_load(key(0), || Ok(chunk(0, 10))).is_ok());
    }
}
