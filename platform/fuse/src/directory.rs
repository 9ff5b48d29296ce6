//! An open directory: the kernel resumes a listing at a number, the `Vfs`
//! after a name.

use std::collections::BTreeMap;

/// Offset of the first entry behind `.` (1) and `..` (2).
pub(crate) const FIRST: u64 = 2;
/// Most marks of one open directory.
const MAX_MARKS: usize = 1024;

/// Which name stands at which offset. A listing that is read from start to
/// end always finds the mark of its last reply; a jump back finds a mark near
/// its target and skips the entries between. The distance between marks
/// doubles when there are too many, so memory is bounded whatever the
/// directory's size.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    names: BTreeMap<u64, Box<[u8]>>,
    /// Where the last reply ended.
    latest: Option<(u64, Box<[u8]>)>,
    /// Least distance between two marks.
    stride: u64,
}

impl Marks {
    /// Where to begin for the entry behind `offset` (at least [`FIRST`]): the
    /// name to list after, and how many entries to skip behind it.
    pub(crate) fn find(&self, offset: u64) -> (Option<Box<[u8]>>, u64) {
        let kept = self.names.range(..=offset).next_back().map(|(&at, name)| (at, name));
        let latest = self.latest.as_ref().filter(|(at, _)| *at <= offset).map(|(at, name)| (*at, name));
        match kept.into_iter().chain(latest).max_by_key(|(at, _)| *at) {
            Some((at, name)) => (Some(name.clone()), offset - at),
            None => (None, offset.saturating_sub(FIRST)),
        }
    }

    /// Remembers that the entry `name` has `offset`.
    pub(crate) fn remember(&mut self, offset: u64, name: &[u8]) {
        self.latest = Some((offset, name.into()));
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
            offset = (offset + reply).min(total + FIRST);
            marks.remember(offset, &name(offset - FIRST - 1));
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
}
