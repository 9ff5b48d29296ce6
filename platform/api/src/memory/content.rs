//! The bytes of a file: pages, and holes between them.

use std::collections::BTreeMap;

/// Bytes of a page.
pub(super) const PAGE: u64 = 4096;

/// A file's content. A page that is not there reads as zeros.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    size: u64,
    pages: BTreeMap<u64, Box<[u8; PAGE as usize]>>,
}

/// The pages of a range, each with its part: page, start and end within it.
fn parts(offset: u64, length: u64) -> impl Iterator<Item = (u64, usize, usize)> {
    let end = offset + length;
    (offset / PAGE..end.div_ceil(PAGE)).map(move |page| {
        let start = offset.max(page * PAGE) - page * PAGE;
        (page, start as usize, (end.min((page + 1) * PAGE) - page * PAGE) as usize)
    })
}

impl Content {
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that its pages occupy.
    pub(super) fn allocated(&self) -> u64 {
        self.pages.len() as u64 * PAGE
    }

    /// What is there of a range.
    pub(super) fn read(&self, offset: u64, length: u64) -> Vec<u8> {
        let length = length.min(self.size.saturating_sub(offset));
        let mut bytes = Vec::new();
        for (page, start, end) in parts(offset, length) {
            match self.pages.get(&page) {
                Some(page) => bytes.extend_from_slice(&page[start..end]),
                None => bytes.resize(bytes.len() + end - start, 0),
            }
        }
        bytes
    }

    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        let mut rest = data;
        for (page, start, end) in parts(offset, data.len() as u64) {
            let (now, later) = rest.split_at(end - start);
            let page = self.pages.entry(page).or_insert_with(|| Box::new([0; PAGE as usize]));
            page[start..end].copy_from_slice(now);
            rest = later;
        }
        if !data.is_empty() {
            self.grow(offset + data.len() as u64);
        }
    }

    /// The size becomes `size`, unless it is more already.
    pub(super) fn grow(&mut self, size: u64) {
        self.size = self.size.max(size);
    }

    /// The size becomes `size`.
    pub(super) fn resize(&mut self, size: u64) {
        if size < self.size {
            self.zero(size, u64::MAX - size);
        }
        self.size = size;
    }

    /// The range reads as zeros; whole pages of it become holes.
    pub(super) fn zero(&mut self, offset: u64, length: u64) {
        // Behind the size there is nothing; a range may be as long as numbers go.
        let length = length.min(self.size.next_multiple_of(PAGE).saturating_sub(offset));
        let end = offset + length;
        let whole = offset.div_ceil(PAGE)..(end / PAGE).max(offset.div_ceil(PAGE));
        self.pages.retain(|page, _| !whole.contains(page));
        for edge in [offset / PAGE, end / PAGE] {
            let (start, end) = (offset.max(edge * PAGE), end.min((edge + 1) * PAGE));
            if let (true, Some(page)) = (start < end, self.pages.get_mut(&edge)) {
                page[(start - edge * PAGE) as usize..(end - edge * PAGE) as usize].fill(0);
            }
        }
    }

    /// The first offset from `offset` on (less than the size) that holds data or lies in a hole.
    pub(super) fn seek(&self, offset: u64, data: bool) -> Option<u64> {
        let first = offset / PAGE;
        let page = if data {
            self.pages.range(first..).next().map(|(&page, _)| page)?
        } else {
            let full = self.pages.range(first..).map(|(&page, _)| page).zip(first..).take_while(|(a, b)| a == b);
            first + full.count() as u64
        };
        let found = offset.max(page * PAGE);
        if data { (found < self.size).then_some(found) } else { Some(found.min(self.size)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_read_as_zeros_and_are_found() {
        let mut content = Content::default();
        content.write(2 * PAGE - 1, b"abc");
        assert_eq!(content.size(), 2 * PAGE + 2);
        assert_eq!(content.read(2 * PAGE - 3, 100), b"\0\0abc");
        assert_eq!((content.seek(0, true), content.seek(0, false)), (Some(PAGE), Some(0)));
        assert_eq!((content.seek(PAGE, true), content.seek(PAGE, false)), (Some(PAGE), Some(2 * PAGE + 2)));
        content.zero(PAGE, u64::MAX / 2);
        assert_eq!((content.seek(0, true), content.allocated()), (None, 0));
    }

    #[test]
    fn what_was_cut_off_does_not_come_back() {
        let mut content = Content::default();
        content.write(0, &[7; 10_000]);
        content.resize(5);
        content.resize(10_000);
        assert_eq!(content.read(0, 10_000), [&[7; 5][..], &[0; 9_995]].concat());
        content.write(0, &[7; 10_000]);
        content.zero(3, 4096);
        assert_eq!(content.read(0, 10_000), [&[7; 3][..], &[0; 4096], &[7; 5901]].concat());
    }
}
