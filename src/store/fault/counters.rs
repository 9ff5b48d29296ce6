//! What was asked of a store, and how many bytes went over.

use super::Operation;
use std::sync::atomic::{AtomicU64, Ordering};

/// Live counters of a store.
#[derive(Debug, Default)]
pub(super) struct LiveCounters {
    calls: [AtomicU64; Operation::ALL.len()],
    bytes: [AtomicU64; Operation::ALL.len()],
}

impl LiveCounters {
    pub(super) fn called(&self, operation: Operation) {
        self.calls[operation as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn transferred(&self, operation: Operation, bytes: u64) {
        self.bytes[operation as usize].fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> Counters {
        let load = |counters: &[AtomicU64; Operation::ALL.len()]| {
            std::array::from_fn(|index| counters[index].load(Ordering::Relaxed))
        };
        Counters { calls: load(&self.calls), bytes: load(&self.bytes) }
    }

    pub(super) fn reset(&self) {
        for counter in self.calls.iter().chain(&self.bytes) {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

/// What was asked of a store since it was wrapped, or since the last reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    calls: [u64; Operation::ALL.len()],
    bytes: [u64; Operation::ALL.len()],
}

impl Counters {
    /// Calls of an operation, failed ones included.
    pub fn calls(&self, operation: Operation) -> u64 {
        self.calls[operation as usize]
    }

    /// Bytes that the successful calls of an operation moved.
    pub fn bytes(&self, operation: Operation) -> u64 {
        self.bytes[operation as usize]
    }

    /// Calls of several operations.
    pub fn calls_of(&self, operations: &[Operation]) -> u64 {
        operations.iter().map(|&operation| self.calls(operation)).sum()
    }

    /// Calls of all operations.
    pub fn all_calls(&self) -> u64 {
        self.calls.iter().sum()
    }

    /// Bytes read, of whole files and of ranges.
    pub fn bytes_read(&self) -> u64 {
        self.bytes(Operation::Read) + self.bytes(Operation::ReadAt)
    }

    /// Bytes written: whole files, staged files and ranges in place.
    pub fn bytes_written(&self) -> u64 {
        self.bytes(Operation::Write) + self.bytes(Operation::WriteAt) + self.bytes(Operation::WriteRange)
    }
}
