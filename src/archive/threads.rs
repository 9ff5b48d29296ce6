//! The same work on several threads.

use super::{ArchiveError, ArchiveResult};

/// Threads that the machine has processors for.
pub(super) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Lets `work` run on `threads` threads (on this one, for one or none), and
/// returns the first error once all have ended.
pub(super) fn run_on(threads: usize, work: &(dyn Fn() -> ArchiveResult<()> + Sync)) -> ArchiveResult<()> {
    if threads <= 1 {
        return work();
    }
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        // All are joined before the first error is returned.
        let results: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        results.into_iter().try_for_each(|result| {
            result.unwrap_or_else(|_| Err(ArchiveError::Internal("a coding thread panicked".into())))
        })
    })
}
