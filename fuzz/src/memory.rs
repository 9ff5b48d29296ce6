//! An allocator that counts: a short input must not make a parser take much memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static TAKEN: AtomicUsize = AtomicUsize::new(0);
static HIGHEST: AtomicUsize = AtomicUsize::new(0);

/// What a target may take at its peak whatever its input is, bytes: databases, working memory of codecs.
const FLOOR: usize = 48 << 20;
/// What it may take for each byte of its input. An entry of ten bytes is some 400 in memory, and targets hold copies.
const PER_BYTE: usize = 4096;

/// The system's allocator, with a count of the bytes that are taken.
#[derive(Debug)]
pub struct Counting;

fn taken(bytes: usize) {
    let now = TAKEN.fetch_add(bytes, Relaxed) + bytes;
    HIGHEST.fetch_max(now, Relaxed);
}

// SAFETY: every call is passed on to the system's allocator unchanged; counting touches no memory but two atomics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        TAKEN.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise that `pointer` came from here with `layout` is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Runs `body`, which may take memory in proportion to an input of `len` bytes.
///
/// Panics when it took more.
pub fn bounded(len: usize, body: impl FnOnce()) {
    let before = TAKEN.load(Relaxed);
    HIGHEST.store(before, Relaxed);
    body();
    let peak = HIGHEST.load(Relaxed).saturating_sub(before);
    assert!(peak <= FLOOR + PER_BYTE * len, "{peak} bytes of memory were taken for an input of {len}");
}
