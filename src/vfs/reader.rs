//! From a range of an object to verified bytes: exactly, or through the chunk
//! cache with read-ahead.

use super::cache::{CHUNK, ChunkCache, ChunkKey};
use super::lock;
use super::read_ahead::{Advice, ReadAhead, Stream};
use crate::archive::{ArchiveResult, Object, VerifiedRange};
use crate::base::{ContentRange, Digest};
use crate::format::ObjectKind;
use lru::LruCache;
use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

/// Bundles whose readers are remembered.
const BUNDLES: NonZeroUsize = NonZeroUsize::new(256).unwrap();
/// Most memory that a thread keeps for its next read, bytes.
const KEPT_BUFFER: usize = 2 << 20;

thread_local! {
    /// Memory for exact reads, kept so that a stream of them allocates nothing.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// How much is read ahead, in bytes; 0: nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadAheadLimits {
    /// Within a file that is an object of its own: what the store is told of in
    /// advance. The operating system reads ahead within one segment's file,
    /// and begins anew with each (`cargo bench --bench mount -- only=big`).
    pub file: u64,
    /// Within a bundle, over the borders of the files in it: the operating
    /// system cannot know that the next small file lies behind this one.
    pub bundle: u64,
}

impl Default for ReadAheadLimits {
    fn default() -> Self {
        Self { file: 8 << 20, bundle: 4 << 20 }
    }
}

/// Reads objects for all handles.
#[derive(Debug)]
pub(super) struct Reader {
    cache: Arc<ChunkCache>,
    read_ahead: ReadAhead,
    limits: ReadAheadLimits,
    bundles: Mutex<LruCache<Digest, Arc<Stream>>>,
}

impl Reader {
    /// A reader with a cache of `cache_limit` bytes.
    pub(super) fn new(cache_limit: u64, limits: ReadAheadLimits) -> Self {
        let cache = Arc::new(ChunkCache::new(cache_limit));
        // What is read ahead must not push itself out of the cache.
        let most = cache.limit() / 4;
        let limits = ReadAheadLimits { file: limits.file.min(most), bundle: limits.bundle.min(most) };
        let read_ahead = ReadAhead::start(&cache);
        Self { cache, read_ahead, limits, bundles: Mutex::new(LruCache::new(BUNDLES)) }
    }

    /// The stream that a new handle on this object reads in: one for each
    /// handle on a file, one for all that read a bundle.
    pub(super) fn stream(&self, object: &Object) -> Arc<Stream> {
        match object.kind() {
            ObjectKind::File => Arc::default(),
            ObjectKind::Bundle => Arc::clone(lock(&self.bundles).get_or_insert(object.manifest().root(), Arc::default)),
        }
    }

    /// Reads a range of the object's content and hands the bytes to `deliver`, once.
    pub(super) fn read(
        &self,
        object: &Arc<Object>,
        stream: &Stream,
        range: ContentRange,
        deliver: &mut dyn FnMut(&[u8]),
    ) -> ArchiveResult<()> {
        if object.kind() == ObjectKind::File {
            if let Advice::Ahead(ahead) = stream.observe(range, self.limits.file) {
                object.will_read(ahead);
            }
            return exact(object, range, deliver);
        }
        let window = self.limits.bundle;
        match stream.observe(range, window) {
            Advice::Ahead(ahead) => {
                self.read_ahead.order(object, ahead);
                self.chunked(object, range, deliver)
            }
            Advice::Exact => match self.cached(object, range) {
                Some(chunk) => deliver_part(&chunk, range, deliver),
                None => exact(object, range, deliver),
            },
        }
    }

    /// The chunk that holds all of `range`, if it is in the cache.
    fn cached(&self, object: &Object, range: ContentRange) -> Option<Arc<VerifiedRange>> {
        let index = range.start() / CHUNK;
        let key = ChunkKey { root: object.manifest().root(), index };
        self.cache.get(key).filter(|chunk| range.end() <= chunk.range().end())
    }

    fn chunked(&self, object: &Arc<Object>, range: ContentRange, deliver: &mut dyn FnMut(&[u8])) -> ArchiveResult<()> {
        let root = object.manifest().root();
        let mut joined = Vec::new();
        for index in range.start() / CHUNK..range.end().div_ceil(CHUNK) {
            let key = ChunkKey { root, index };
            // Damage somewhere in a chunk must not fail a range beside it.
            let Ok(chunk) = self.cache.get_or_load(key, || object.read(key.range())) else {
                return exact(object, range, deliver);
            };
            if range.end() <= chunk.range().end() && joined.is_empty() {
                return deliver_part(&chunk, range, deliver);
            }
            joined.extend_from_slice(part(&chunk, range));
        }
        deliver(&joined);
        Ok(())
    }
}

/// The bytes of `range` that are in the chunk.
fn part(chunk: &VerifiedRange, range: ContentRange) -> &[u8] {
    let held = chunk.range();
    let common = held.intersect(range);
    if common.is_empty() {
        return &[];
    }
    let start = (common.start() - held.start()) as usize;
    &chunk.bytes()[start..start + common.len() as usize]
}

fn deliver_part(chunk: &VerifiedRange, range: ContentRange, deliver: &mut dyn FnMut(&[u8])) -> ArchiveResult<()> {
    deliver(part(chunk, range));
    Ok(())
}

/// Reads just the range, into memory that the thread keeps.
fn exact(object: &Object, range: ContentRange, deliver: &mut dyn FnMut(&[u8])) -> ArchiveResult<()> {
    let buffer = BUFFER.take();
    let verified = object.read_reusing(range, buffer)?;
    deliver(verified.bytes());
    let buffer = verified.into_buffer();
    if buffer.capacity() <= KEPT_BUFFER {
        BUFFER.set(buffer);
    }
    Ok(())
}
