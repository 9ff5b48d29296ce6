//! An open directory: the kernel resumes a listing at a number, the `Vfs`
//! after a name.

use std::collections::BTreeMap;

/// Offset of the first entry behind `.` (1) and `..` (2).
pub(crate) const FIRST: u64 = 2;
/// Most marks of one open directory.
const MAX_MARKS: usize = 1024;

/// Which name stands at which offset.
///
/// The kernel goes on behind any entry of the last reply: it hands a program
/// as many as fit in its buffer. Those names are all kept, so that a listing
/// goes on behind the right name whatever was made and removed meanwhile. A
/// jump further back finds a mark near its target and skips the entries
/// between, which is exact while the directory does not change. The distance
/// between marks doubles when there are too many: memory is bounded by one
/// reply (at most the largest read, 1 MiB) and [`MAX_MARKS`] names, whatever the directory's size.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    names: BTreeMap<u64, Box<[u8]>>,
    /// The offset before the last reply's first entry, and its names.
    latest: (u64, Vec<Box<[u8]>>),
    /// Least distance between two marks.
    stride: u64,
}

impl Marks {
    /// Where to begin for the entry behind `offset` (at least [`FIRST`]): the
    /// name to list after, and how many entries to skip behind it.
    pub(crate) fn find(&self, offset: u64) -> (Option<Box<[u8]>>, u64) {
        if offset <= FIRST {
            return (None, 0);
        }
        let (before, names) = &self.latest;
        let place = offset.checked_sub(before + 1).and_then(|place| usize::try_from(place).ok());
        if let Some(name) = place.and_then(|place| names.get(place)) {
            return (Some(name.clone()), 0);
        }
        match self.names.range(..=offset).next_back() {
            Some((&at, name)) => (Some(name.clone()), offset - at),
            None => (None, offset - FIRST),
        }
    }

    /// Remembers the entries of a reply that began behind `offset`.
    pub(crate) fn remember(&mut self, offset: u64, names: Vec<Box<[u8]>>) {
        if offset <= FIRST {
            // A new listing: what stood where in the last one means nothing now.
            *self = Self::default();
        }
        let Some(last) = names.last() else { return };
        self.mark(offset + names.len() as u64, last);
        self.latest = (offset, names);
    }

    fn mark(&mut self, offset: u64, name: &[u8]) {
        let before = self.names.range(..=offset).next_back().map_or(FIRST, |(&at, _)| at);
        if offset - before.min(offset) < self.stride.max(1) {
            return;
        }
        self.names.insert(offset, name.into());
        if self.names.len() > MAX_MARKS {
            self.stride = (self.stride * 2).max(64);
            let (stride, mut last) = (self.stride, FIRST);
            self.names.retain(|&at, _| {
                let keep = at.saturating_sub(last) >= stride;
                if keep {
                    last = at;
                }
                keep
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(index: u64) -> Vec<u8> {
        format!("{index:08}").into_bytes()
    }

    /// Reads a directory of `total` entries in replies of `reply` entries
    /// and returns how many entries were skipped on the way.
    fn scan(marks: &mut Marks, total: u64, reply: u64) -> u64 {
        let mut offset = FIRST;
        let mut skipped = 0;
        while offset < total + FIRST {
            let (after, skip) = marks.find(offset);
            let base = after.map_or(0, |name| String::from_utf8_lossy(&name).parse::<u64>().unwrap() + 1);
            assert_eq!(base + skip + FIRST, offset, "the mark leads to the wrong entry");
            skipped += skip;
            let end = (offset + reply).min(total + FIRST);
            marks.remember(offset, (offset..end).map(|at| name(at - FIRST).into()).collect());
            offset = end;
        }
        skipped
    }

    #[test]
    fn a_listing_from_start_to_end_is_linear_and_bounded() {
        let mut marks = Marks::default();
        assert_eq!(scan(&mut marks, 1_000_000, 7), 0);
        assert!(marks.names.len() <= MAX_MARKS);
    }

    #[test]
    fn any_earlier_offset_can_be_found_again() {
        let mut marks = Marks::default();
        scan(&mut marks, 100_000, 7);
        for offset in [2, 3, 9, 10, 11, 5_000, 99_999, 100_001] {
            let (after, skip) = marks.find(offset);
            let base = after.map_or(0, |name| String::from_utf8_lossy(&name).parse::<u64>().unwrap() + 1);
            assert_eq!(base + skip + FIRST, offset);
            assert!(skip < 1000, "{skip} entries skipped for offset {offset}");
        }
    }

    #[test]
    fn every_entry_of_the_last_reply_is_found_by_its_name() {
        let mut marks = Marks::default();
        marks.remember(FIRST, (0..100).map(|index| name(index).into()).collect());
        marks.remember(102, (100..200).map(|index| name(index).into()).collect());
        for offset in 102..=202 {
            assert_eq!(marks.find(offset), (Some(name(offset - FIRST - 1).into()), 0));
        }
        assert_eq!(marks.find(FIRST), (None, 0));
    }

    #[test]
    fn a_new_listing_forgets_the_last_one() {
        let mut marks = Marks::default();
        scan(&mut marks, 1000, 7);
        marks.remember(FIRST, vec![name(500).into()]);
        assert_eq!(marks.find(FIRST + 1), (Some(name(500).into()), 0));
        assert_eq!(marks.find(FIRST + 3), (Some(name(500).into()), 2));
    }
}
