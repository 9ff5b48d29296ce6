//! Reading: what is staged from the staging file, the rest from the base.

use super::map::{Part, Piece};
use crate::base::ContentRange;
use crate::format::StagedExtent;

/// Fills a buffer with a range of the base, which is as long as the buffer.
pub type BaseReader<'a, E> = dyn FnMut(ContentRange, &mut [u8]) -> Result<(), E> + 'a;

/// `range` from start to end as pieces of a published map and gaps between them.
pub(super) fn parts_of(extents: &[StagedExtent], range: ContentRange) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut at = range.start();
    let first = extents.partition_point(|extent| extent.range.end() <= range.start());
    for extent in extents[first..].iter().take_while(|extent| extent.range.start() < range.end()) {
        let covered = extent.range.intersect(range);
        if at < covered.start() {
            parts.push(Part::Gap(ContentRange::between(at, covered.start())));
        }
        let place = extent.place.map(|place| place + (covered.start() - extent.range.start()));
        parts.push(Part::Piece(Piece { range: covered, place, fresh: false }));
        at = covered.end();
    }
    if at < range.end() {
        parts.push(Part::Gap(ContentRange::between(at, range.end())));
    }
    parts
}

/// The bytes of `buffer` that are `range`, where `buffer` begins at `start`.
pub(super) fn slice(buffer: &mut [u8], start: u64, range: ContentRange) -> &mut [u8] {
    &mut buffer[(range.start() - start) as usize..(range.end() - start) as usize]
}

/// Fills the part of `buffer` that is staged or zeros, and returns what is to come from the base.
pub(super) fn read_staged<E>(
    parts: impl IntoIterator<Item = Part>,
    base_len: u64,
    (start, buffer): (u64, &mut [u8]),
    mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
) -> Result<Vec<ContentRange>, E> {
    let mut of_base = Vec::new();
    for part in parts {
        let zeros = match part {
            Part::Piece(Piece { range, place: Some(place), .. }) => {
                read(place, slice(buffer, start, range))?;
                continue;
            }
            Part::Piece(piece) => piece.range,
            Part::Gap(range) => {
                let (base, zeros) = split_gap(range, base_len);
                of_base.extend(base);
                zeros
            }
        };
        slice(buffer, start, zeros).fill(0);
    }
    Ok(of_base)
}

/// A gap between pieces: the part where the base shows, if any, and the zeros behind it.
pub(super) fn split_gap(range: ContentRange, base_len: u64) -> (Option<ContentRange>, ContentRange) {
    let border = base_len.clamp(range.start(), range.end());
    let base = ContentRange::between(range.start(), border);
    ((!base.is_empty()).then_some(base), ContentRange::between(border, range.end()))
}

/// The first data (or hole) in `parts`, which go on to the file's end.
pub(super) fn seek(
    parts: impl IntoIterator<Item = Part>,
    base_len: u64,
    data: bool,
    base_seek: &dyn Fn(u64, bool) -> Option<u64>,
) -> Option<u64> {
    for part in parts {
        let hole = match part {
            Part::Piece(Piece { range, place: Some(_), .. }) if data => return Some(range.start()),
            Part::Piece(Piece { place: Some(_), .. }) => continue,
            Part::Piece(piece) => piece.range,
            Part::Gap(range) => {
                let (base, zeros) = split_gap(range, base_len);
                let found = base.and_then(|base| {
                    base_seek(base.start(), data).map(|at| at.max(base.start())).filter(|&at| at < base.end())
                });
                if found.is_some() {
                    return found;
                }
                zeros
            }
        };
        if !data && !hole.is_empty() {
            return Some(hole.start());
        }
    }
    None
}
