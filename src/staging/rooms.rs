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

/// A place where room is wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    pub(super) place: u64,
    /// The byte before it is in use, by nothing that has to stay as it is.
    pub(super) behind_fresh: bool,
    /// The same of the byte behind the wanted room.
    pub(super) before_fresh: bool,
}

/// The room of one staging file.
///
/// It is handed out so that bytes which have to stay as they are, and bytes
/// handed out later, never lie in one *unit*: see [`new`](Self::new).
#[derive(Debug)]
pub(super) struct Rooms {
    unit: u64,
    /// Free ranges before `end`, none next to another or to `end`.
    free: BTreeMap<u64, Free>,
    /// Behind it everything is free.
    end: u64,
    /// Bytes in use.
    used: u64,
}

impl Default for Rooms {
    fn default() -> Self {
        Self::new(1)
    }
}

impl Rooms {
    /// Nothing is in use. `unit`: so many bytes, at a multiple of it, are only
    /// ever written together; 1 when every byte is written by itself.
    pub(super) fn new(unit: u64) -> Self {
        Self { unit, free: BTreeMap::new(), end: 0, used: 0 }
    }

    /// Of `taken` ranges (start, length), ascending. `None` when they overlap.
    pub(super) fn of_taken(unit: u64, taken: impl IntoIterator<Item = (u64, u64)>) -> Option<Self> {
        let mut rooms = Self::new(unit);
        for (start, len) in taken {
            if start < rooms.end {
                return None;
            }
            start.checked_add(len)?;
            rooms.take_behind(start, len);
        }
        Some(rooms)
    }

    pub(super) fn unit(&self) -> u64 {
        self.unit
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

    /// Takes `len` bytes: as the first wish that can be, else where they fit first, else at the end.
    pub(super) fn take(&mut self, len: u64, wishes: &[Wish]) -> u64 {
        if let Some(wish) = wishes.iter().find(|wish| self.take_at(wish, len)) {
            return wish.place;
        }
        // At both sides of a free range is something in use: the units there belong to that.
        let usable = |start: u64, end: u64| (start.next_multiple_of(self.unit), end / self.unit * self.unit);
        let mut tried = self.free.iter().take(FIRST_FIT_TRIES);
        let fit = tried.find_map(|(&start, free)| {
            let (place, end) = usable(start, free.end);
            (end.saturating_sub(place) >= len).then_some((start, place))
        });
        match fit {
            Some((start, place)) => {
                self.split(start, place, len);
                place
            }
            None => {
                let place = self.end.next_multiple_of(self.unit);
                self.take_behind(place, len);
                place
            }
        }
    }

    fn take_at(&mut self, wish: &Wish, len: u64) -> bool {
        let place = wish.place;
        let Some(end) = place.checked_add(len).filter(|&end| end <= HIGHEST_ORDERLY) else { return false };
        let (first, last) = (place / self.unit * self.unit, end.next_multiple_of(self.unit));
        // What the room's first and last unit hold beside it: nothing, or bytes that may change.
        let apart = |free: u64, free_end: u64| {
            (free <= first || (free == place && wish.behind_fresh))
                && (free_end >= last || (free_end == end && wish.before_fresh))
        };
        if place >= self.end {
            let apart = apart(self.end, u64::MAX);
            if apart {
                self.take_behind(place, len);
            }
            return apart;
        }
        match self.free.range(..=place).next_back() {
            Some((&start, free)) if free.end >= end && apart(start, free.end) => {
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
            unit in prop_oneof![Just(1u64), Just(16)],
            steps in proptest::collection::vec((1u64..200_000, proptest::option::of(0u64..1_000_000), any::<bool>(), any::<prop::sample::Index>()), 1..80),
        ) {
            let mut rooms = Rooms::new(unit);
            let mut taken: Vec<(u64, u64)> = Vec::new();
            for (len, preferred, release, which) in steps {
                if release && !taken.is_empty() {
                    let (start, len) = taken.swap_remove(which.index(taken.len()));
                    if let Some((from, bytes)) = rooms.release(start, len) {
                        prop_assert!(taken.iter().all(|&(start, len)| start + len <= from || from + bytes <= start));
                    }
                } else {
                    let place = rooms.take(len, preferred.map(|place| Wish { place, behind_fresh: false, before_fresh: false }).as_slice());
                    let (first, last) = (place / unit * unit, (place + len).next_multiple_of(unit));
                    prop_assert!(taken.iter().all(|&(start, other)| start + other <= first || last <= start));
                    taken.push((place, len));
                }
                let used: u64 = taken.iter().map(|(_, len)| len).sum();
                let free: u64 = rooms.free().map(|(_, len)| len).sum();
                prop_assert_eq!(rooms.used(), used);
                prop_assert_eq!(rooms.end(), used + free);
            }
            taken.sort_unstable();
            let again = Rooms::of_taken(unit, taken).unwrap();
            prop_assert_eq!(again.end(), rooms.end());
            prop_assert!(again.free().eq(rooms.free()));
        }
    }
}
