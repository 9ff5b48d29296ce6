//! A pool of small places in memory that is kept out of swap and core dumps.

use memmap2::MmapMut;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use zeroize::Zeroize;

/// Length of a place, bytes.
pub(super) const SLOT_LEN: usize = 64;
/// How much is mapped and locked at a time: 256 places.
const MAP_LEN: usize = 16 << 10;

/// Places that are free. What was mapped once stays mapped for other secrets,
/// so there are never more maps than the most secrets at one time needed.
pub(super) struct Pool {
    free: Mutex<Vec<&'static mut [u8; SLOT_LEN]>>,
    keep: fn(&MmapMut) -> io::Result<()>,
    refused: AtomicBool,
}

/// The pool of all secrets.
pub(super) static POOL: Pool = Pool::new(keep_in_memory);

/// Locks the pages (`mlock`) and takes them out of core dumps (`MADV_DONTDUMP`, Linux).
fn keep_in_memory(map: &MmapMut) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    map.advise(memmap2::Advice::DontDump)?;
    #[cfg(unix)]
    map.lock()?;
    Ok(())
}

impl Pool {
    const fn new(keep: fn(&MmapMut) -> io::Result<()>) -> Self {
        Self { free: Mutex::new(Vec::new()), keep, refused: AtomicBool::new(false) }
    }

    /// A place of zeros, which comes back to the pool when it is dropped.
    pub(super) fn take(&'static self) -> Slot {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.is_empty() {
            free.extend(self.map().as_chunks_mut().0);
        }
        let bytes = free.pop();
        Slot { pool: self, bytes }
    }

    /// New memory for places, locked if the system allows it.
    fn map(&self) -> &'static mut [u8] {
        match MmapMut::map_anon(MAP_LEN) {
            Ok(map) => {
                (self.keep)(&map).unwrap_or_else(|error| self.tell(&error));
                let map: &'static mut MmapMut = Box::leak(Box::new(map));
                map
            }
            Err(error) => {
                self.tell(&error);
                Box::leak(vec![0; MAP_LEN].into_boxed_slice())
            }
        }
    }

    fn tell(&self, error: &io::Error) {
        if !self.refused.swap(true, Ordering::Relaxed) {
            tracing::debug!("keys may be written to swap: the system does not lock memory ({error}); see ulimit -l");
        }
    }
}

/// A place in the pool that nobody else uses.
pub(super) struct Slot {
    pool: &'static Pool,
    /// `None` only while it is dropped.
    bytes: Option<&'static mut [u8; SLOT_LEN]>,
}

impl Slot {
    pub(super) fn bytes(&self) -> &[u8; SLOT_LEN] {
        self.bytes.as_deref().unwrap_or_else(|| unreachable!("a place is there until it is dropped"))
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8; SLOT_LEN] {
        self.bytes.as_deref_mut().unwrap_or_else(|| unreachable!("a place is there until it is dropped"))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(bytes) = self.bytes.take() {
            bytes.zeroize();
            self.pool.free.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(keep: fn(&MmapMut) -> io::Result<()>) -> &'static Pool {
        Box::leak(Box::new(Pool::new(keep)))
    }

    fn address(bytes: &[u8; SLOT_LEN]) -> usize {
        bytes.as_ptr().addr()
    }

    /// The lines of /proc/self/smaps about the map that holds an address.
    #[cfg(target_os = "linux")]
    fn smaps(address: usize) -> String {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let range = |line: &str| {
            let (start, end) = line.split(' ').next()?.split_once('-')?;
            Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
        };
        let mut lines = smaps.lines().skip_while(|line| range(line).is_none_or(|range| !range.contains(&address)));
        let first = lines.next().unwrap();
        std::iter::once(first).chain(lines.take_while(|line| range(line).is_none())).collect::<Vec<_>>().join("\n")
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn pages_are_locked_and_not_dumped() {
        // As far as this machine allows it: 8 MiB are usual, but a limit of nothing is possible.
        let allowed = MmapMut::map_anon(MAP_LEN).unwrap().lock().is_ok();
        let slot = pool(keep_in_memory).take();
        let smaps = smaps(address(slot.bytes()));
        let flags = smaps.lines().find_map(|line| line.strip_prefix("VmFlags:")).unwrap();
        let flags: Vec<&str> = flags.split_whitespace().collect();
        assert!(flags.contains(&"dd"), "{smaps}");
        assert_eq!(flags.contains(&"lo"), allowed, "{smaps}");
        let locked = smaps.lines().find_map(|line| line.strip_prefix("Locked:")).unwrap();
        assert_eq!(locked.trim() != "0 kB", allowed, "{smaps}");
    }

    #[test]
    fn a_dropped_place_is_zeros_and_used_again() {
        let pool = pool(keep_in_memory);
        let mut slot = pool.take();
        let at = address(slot.bytes());
        slot.bytes_mut().fill(0xee);
        assert_eq!(pool.free.lock().unwrap().len(), MAP_LEN / SLOT_LEN - 1);
        drop(slot);
        let free = pool.free.lock().unwrap();
        assert_eq!(free.len(), MAP_LEN / SLOT_LEN);
        let same = free.iter().find(|bytes| address(bytes) == at).unwrap();
        assert_eq!(**same, [0; SLOT_LEN]);
    }

    #[test]
    fn the_pool_grows_and_its_places_are_apart() {
        let pool = pool(keep_in_memory);
        let count = MAP_LEN / SLOT_LEN * 2 + 1;
        let mut slots: Vec<Slot> = (0..count).map(|_| pool.take()).collect();
        for (number, slot) in slots.iter_mut().enumerate() {
            assert_eq!(*slot.bytes(), [0; SLOT_LEN]);
            slot.bytes_mut().fill(number as u8);
        }
        for (number, slot) in slots.iter().enumerate() {
            assert_eq!(*slot.bytes(), [number as u8; SLOT_LEN]);
        }
        drop(slots);
        let free = pool.free.lock().unwrap();
        assert_eq!(free.len(), MAP_LEN / SLOT_LEN * 3);
        assert!(free.iter().all(|bytes| **bytes == [0; SLOT_LEN]));
    }

    #[test]
    fn without_permission_to_lock_there_are_places_still() {
        let pool = pool(|_| Err(io::ErrorKind::PermissionDenied.into()));
        let mut slot = pool.take();
        slot.bytes_mut().fill(1);
        assert!(pool.refused.load(Ordering::Relaxed));
        drop(slot);
        assert!(pool.free.lock().unwrap().iter().all(|bytes| **bytes == [0; SLOT_LEN]));
    }

    #[test]
    fn many_threads_never_share_a_place() {
        let pool = pool(keep_in_memory);
        std::thread::scope(|scope| {
            for thread in 1..=8_u8 {
                scope.spawn(move || {
                    for round in 0..400_usize {
                        let mut slots: Vec<Slot> = (0..round % 70).map(|_| pool.take()).collect();
                        assert!(slots.iter().all(|slot| *slot.bytes() == [0; SLOT_LEN]));
                        slots.iter_mut().for_each(|slot| slot.bytes_mut().fill(thread));
                        std::thread::yield_now();
                        assert!(slots.iter().all(|slot| *slot.bytes() == [thread; SLOT_LEN]));
                    }
                });
            }
        });
        let free = pool.free.lock().unwrap();
        let mut addresses: Vec<usize> = free.iter().map(|bytes| address(bytes)).collect();
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), free.len());
        assert_eq!(free.len() % (MAP_LEN / SLOT_LEN), 0, "a place was lost");
    }
}
