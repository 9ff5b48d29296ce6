//! Read-ahead: noticing who reads sequentially, and loading what comes next.

use super::cache::{CHUNK, ChunkCache, ChunkKey};
use super::lock;
use crate::archive::Object;
use crate::base::ContentRange;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// Threads that load ahead.
const WORKERS: usize = 2;
/// Loads that may wait; more are dropped, and the reader loads for itself.
const QUEUE: usize = 64;
/// How far from the expected place a request may begin and still be part of a
/// sequential read: the kernel sends several requests at once, and they
/// arrive in any order.
const SLACK: u64 = 2 * CHUNK;
/// Requests in sequence after which a reader counts as sequential.
const CONFIRMED: u32 = 3;

/// What one reader does: a handle on a file, or all who read a bundle.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pattern: Mutex<Pattern>,
}

#[derive(Debug, Default)]
struct Pattern {
    /// Where the next request is expected.
    next: u64,
    /// Requests in sequence.
    hits: u32,
    /// Bytes they covered.
    run: u64,
    /// Up to where chunks were ordered.
    ordered: u64,
}

/// What to do about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Advice {
    /// Read just what is asked for.
    Exact,
    /// Read whole chunks, and order these bytes behind them.
    Ahead(ContentRange),
}

impl Stream {
    /// Takes note of a request. `window`: most bytes to order ahead.
    pub(super) fn observe(&self, range: ContentRange, window: u64) -> Advice {
        let mut pattern = lock(&self.pattern);
        let near =
            range.start() <= pattern.next.saturating_add(SLACK) && range.start().saturating_add(SLACK) >= pattern.next;
        if !near {
            *pattern = Pattern::default();
        }
        pattern.hits = pattern.hits.saturating_add(1);
        pattern.run = pattern.run.saturating_add(range.len());
        pattern.next = if near { pattern.next.max(range.end()) } else { range.end() };
        if pattern.hits < CONFIRMED || window == 0 {
            return Advice::Exact;
        }
        // As far ahead as it has come, so that the distance doubles while it keeps on.
        let distance = pattern.run.clamp(CHUNK.min(window), window);
        let from = pattern.ordered.max(pattern.next);
        let to = pattern.next.saturating_add(distance);
        pattern.ordered = pattern.ordered.max(to);
        Advice::Ahead(ContentRange::between(from, to))
    }
}

/// A chunk to be loaded.
#[derive(Debug)]
struct Order {
    object: Arc<Object>,
    key: ChunkKey,
}

/// The threads that load ahead.
#[derive(Debug)]
pub(super) struct ReadAhead {
    orders: Option<SyncSender<Order>>,
    workers: Vec<JoinHandle<()>>,
}

impl ReadAhead {
    /// Starts the threads; where none can be started, nothing is read ahead.
    pub(super) fn start(cache: &Arc<ChunkCache>) -> Self {
        let (orders, waiting) = sync_channel(QUEUE);
        let waiting = Arc::new(Mutex::new(waiting));
        let mut workers = Vec::new();
        for number in 0..WORKERS {
            let (cache, waiting) = (Arc::clone(cache), Arc::clone(&waiting));
            let worker =
                std::thread::Builder::new().name(format!("read-ahead-{number}")).spawn(move || serve(&cache, &waiting));
            match worker {
                Ok(worker) => workers.push(worker),
                Err(error) => tracing::warn!(%error, "a read-ahead thread cannot be started"),
            }
        }
        Self { orders: Some(orders), workers }
    }

    /// Orders the chunks of `range` that lie within the object.
    pub(super) fn order(&self, object: &Arc<Object>, range: ContentRange) {
        let Some(orders) = self.orders.as_ref().filter(|_| !self.workers.is_empty()) else { return };
        let manifest = object.manifest();
        let Ok(content_len) = object.content_len() else { return };
        let range = range.clamp_to(content_len);
        if range.is_empty() {
            return;
        }
        for index in range.start() / CHUNK..range.end().div_ceil(CHUNK) {
            let key = ChunkKey { root: manifest.root(), index };
            if orders.try_send(Order { object: Arc::clone(object), key }).is_err() {
                return;
            }
        }
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        // Without a sender the workers finish what waits, and end.
        self.orders = None;
        for worker in self.workers.drain(..) {
            // A worker that panicked has told so already.
            let _ = worker.join();
        }
    }
}

fn serve(cache: &ChunkCache, waiting: &Mutex<Receiver<Order>>) {
    loop {
        let order = lock(waiting).recv();
        let Ok(Order { object, key }) = order else { return };
        if let Err(error) = cache.prefetch(key, || object.read(key.range())) {
            // Who needs these bytes reads them again, and gets the error.
            tracing::debug!(%error, "read-ahead failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: u64 = 4 * CHUNK;

    fn range(start: u64, len: u64) -> ContentRange {
        ContentRange::new(start, len).unwrap()
    }

    #[test]
    fn random_reads_are_answered_exactly() {
        let stream = Stream::default();
        let mut place = 1u64;
        for _ in 0..100 {
            place = (place.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407)) >> 24 << 12;
            assert_eq!(stream.observe(range(place, 4096), WINDOW), Advice::Exact, "at {place}");
        }
    }

    #[test]
    fn a_sequential_reader_is_led_by_a_growing_distance_and_nothing_is_ordered_twice() {
        let stream = Stream::default();
        let (mut ordered_to, mut distances) = (0, Vec::new());
        for request in 0..100 {
            let asked = range(request * 128 * 1024, 128 * 1024);
            if let Advice::Ahead(ahead) = stream.observe(asked, WINDOW) {
                assert!(ahead.start() >= ordered_to);
                ordered_to = ahead.end().max(ordered_to);
                distances.push(ordered_to - asked.end());
            }
        }
        assert_eq!(distances.first(), Some(&CHUNK));
        assert_eq!(distances.last(), Some(&WINDOW));
        assert!(distances.is_sorted());
    }

    #[test]
    fn requests_that_overtake_each_other_are_still_a_sequence() {
        let stream = Stream::default();
        let mut sequential = 0;
        for pair in 0..10 {
            for request in [pair * 2 + 1, pair * 2] {
                let advice = stream.observe(range(request * 128 * 1024, 128 * 1024), WINDOW);
                sequential += u32::from(advice != Advice::Exact);
            }
        }
        assert_eq!(sequential, 18);
    }

    #[test]
    fn a_jump_ends_the_sequence() {
        let stream = Stream::default();
        for request in 0..5 {
            stream.observe(range(request * 4096, 4096), WINDOW);
        }
        assert_eq!(stream.observe(range(1 << 30, 4096), WINDOW), Advice::Exact);
    }
}
