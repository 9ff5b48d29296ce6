//! Which bytes of a staging file are in use.

use std::collections::BTreeMap;

/// Free room of at least this many bytes that still holds blocks of the disk is given back to it.
const PUNCH: u64 = 64 * 1024;
/// Most free ranges that are looked at for a place.
const FIRST_FIT_TRIES: usize = 128;
/// Places above are not used for the sake of order: the disk's filesystem may
/// know no file that long (ext4: 16 TiB).
const HIGHEST_ORDERLY: u64 = 8 << 40;

#[derive(Debug, Clone, Copy)]
struct Free {
    end: u64,
    /// About how many of its bytes the disk still keeps.
    kept: u64,
}

/// The room of one staging file.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    /// Free ranges before `end`, none next to another or to `end`.
    free: BTreeMap<u64, Free>,
    /// Behind it everything is free.
    end: u64,
    /// Bytes in use.
    used: u64,
}

impl Rooms {
    /// Of `taken` ranges (start, length), ascending. `None` when they overlap.
    pub(super) fn of_taken(taken: impl IntoIterator<Item = (u64, u64)>) -> Option<Self> {
        let mut rooms = Self::default();
        for (start, len) in taken {
            if start < rooms.end {
                return None;
            }
            start.checked_add(len)?;
            rooms.take_behind(start, len);
        }
        Some(rooms)
    }

    /// Bytes in use.
    pub(super) fn used(&self) -> u64 {
        self.used
    }

    /// One past the last byte in use.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// The free ranges (start, length) before the end.
    pub(super) fn free(&self) -> impl Iterator<Item = (u64, u64)> {
        self.free.iter().map(|(&start, free)| (start, free.end - start))
    }

    /// Takes `len` bytes: at `preferred` if that is free, else where they fit first, else at the end.
    pub(super) fn take(&mut self, len: u64, preferred: Option<u64>) -> u64 {
        if let Some(place) = preferred.filter(|&place| self.take_at(place, len)) {
            return place;
        }
        let mut tried = self.free.iter().take(FIRST_FIT_TRIES);
        let fit = tried.find(|(start, free)| free.end - **start >= len).map(|(&start, _)| start);
        match fit {
            Some(place) => {
                self.split(place, place, len);
                place
            }
            None => {
                let place = self.end;
                self.take_behind(place, len);
                place
            }
        }
    }

    fn take_at(&mut self, place: u64, len: u64) -> bool {
        let Some(end) = place.checked_add(len).filter(|&end| end <= HIGHEST_ORDERLY) else { return false };
        if place >= self.end {
            self.take_behind(place, len);
            return true;
        }
        match self.free.range(..=place).next_back() {
            Some((&start, free)) if free.end >= end => {
                self.split(start, place, len);
                true
            }
            _ => false,
        }
    }

    /// Takes from `place`, which is not before the end.
    fn take_behind(&mut self, place: u64, len: u64) {
        if place > self.end {
            self.free.insert(self.end, Free { end: place, kept: 0 });
        }
        self.end = place + len;
        self.used += len;
    }

    /// Takes from the middle of the free range that begins at `start`.
    fn split(&mut self, start: u64, place: u64, len: u64) {
        let Some(free) = self.free.remove(&start) else { return };
        let behind = place + len;
        for (start, end) in [(start, place), (behind, free.end)] {
            if start < end {
                self.free.insert(start, Free { end, kept: free.kept.min(end - start) });
            }
        }
        self.used += len;
    }

    /// Frees room that was taken. Returns a range (start, length) that the
    /// disk should have back.
    #[must_use = "the disk keeps the range until it is punched out"]
    pub(super) fn release(&mut self, start: u64, len: u64) -> Option<(u64, u64)> {
        if len == 0 {
            return None;
        }
        self.used -= len;
        let (mut start, mut end, mut kept) = (start, start + len, len);
        if let Some((&before, free)) = self.free.range(..start).next_back().filter(|(_, free)| free.end == start) {
            kept += free.kept;
            start = before;
        }
        if let Some(free) = self.free.remove(&end) {
            kept += free.kept;
            end = free.end;
        }
        self.free.remove(&start);
        let punch = kept >= PUNCH;
        if end == self.end {
            self.end = start;
        } else {
            self.free.insert(start, Free { end, kept: if punch { 0 } else { kept } });
        }
        punch.then_some((start, end - start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_byte_is_given_twice_and_none_is_lost(
            steps in proptest::collection::vec((1u64..200_000, proptest::option::of(0u64..1_000_000), any::<bool>(), any::<prop::sample::Index>()), 1..80),
        ) {
            let mut rooms = Rooms::default();
            let mut taken: Vec<(u64, u64)> = Vec::new();
            for (len, preferred, release, which) in steps {
                if release && !taken.is_empty() {
                    let (start, len) = taken.swap_remove(which.index(taken.len()));
                    if let Some((from, bytes)) = rooms.release(start, len) {
                        prop_assert!(taken.iter().all(|&(start, len)| start + len <= from || from + bytes <= start));
                    }
                } else {
                    let place = rooms.take(len, preferred);
                    prop_assert!(taken.iter().all(|&(start, other)| start + other <= place || place + len <= start));
                    taken.push((place, len));
                }
                let used: u64 = taken.iter().map(|(_, len)| len).sum();
                let free: u64 = rooms.free().map(|(_, len)| len).sum();
                prop_assert_eq!(rooms.used(), used);
                prop_assert_eq!(rooms.end(), used + free);
            }
            taken.sort_unstable();
            let again = Rooms::of_taken(taken).unwrap();
            prop_assert_eq!(again.end(), rooms.end());
            prop_assert!(again.free().eq(rooms.free()));
        }
    }
}
