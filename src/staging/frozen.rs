//! A published state that is held while it is committed.

use super::map::{Part, Piece};
use super::read::{BaseReader, parts_of, read_staged, slice, split_gap};
use super::state::{Generation, PublishedState};
use super::{StagedFile, StagingError};
use crate::base::ContentRange;
use crate::format::StagedContent;
use std::sync::Arc;

/// Where bytes of a content come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// They are in staging.
    Staged,
    /// They are those of the base.
    Base,
    /// There are none: zeros.
    Zeros,
}

/// A published state of a file: stays readable, whatever is written to the
/// file and published of it, until it is dropped.
#[derive(Debug)]
pub struct FrozenContent {
    file: StagedFile,
    state: Arc<PublishedState>,
}

impl FrozenContent {
    pub(super) fn new(file: StagedFile, state: Arc<PublishedState>) -> Self {
        Self { file, state }
    }

    /// What the journal was told of it.
    pub fn content(&self) -> &StagedContent {
        &self.state.content
    }

    /// Which of the file's states it is.
    pub fn generation(&self) -> Generation {
        self.state.generation
    }

    /// Length, bytes.
    pub fn size(&self) -> u64 {
        self.state.content.size
    }

    /// As [`StagedFile::read`].
    pub fn read<E: From<StagingError>>(
        &self,
        offset: u64,
        buffer: &mut [u8],
        base: &mut BaseReader<'_, E>,
    ) -> Result<usize, E> {
        let content = &self.state.content;
        let range = ContentRange::between(offset, offset.saturating_add(buffer.len() as u64)).clamp_to(content.size);
        if range.is_empty() {
            return Ok(0);
        }
        let of_base = read_staged(
            parts_of(self.state.extents(), range),
            content.base_len,
            (offset, &mut *buffer),
            // No lock: nothing is written to these places while the state is held.
            |place, bytes: &mut [u8]| self.file.read_place(place, bytes),
        )?;
        for range in of_base {
            base(range, slice(buffer, offset, range))?;
        }
        Ok(range.len() as usize)
    }

    /// All of the content from its start to its end: ranges that touch and are not empty.
    pub fn sources(&self) -> Vec<(ContentRange, Source)> {
        let content = &self.state.content;
        let mut sources: Vec<(ContentRange, Source)> = Vec::new();
        let mut add = |range: ContentRange, source| match sources.last_mut() {
            _ if range.is_empty() => {}
            Some((last, same)) if *same == source => *last = ContentRange::between(last.start(), range.end()),
            _ => sources.push((range, source)),
        };
        for part in parts_of(self.state.extents(), ContentRange::between(0, content.size)) {
            match part {
                Part::Piece(Piece { range, place, .. }) => {
                    add(range, if place.is_some() { Source::Staged } else { Source::Zeros });
                }
                Part::Gap(range) => {
                    let (base, zeros) = split_gap(range, content.base_len);
                    base.into_iter().for_each(|base| add(base, Source::Base));
                    add(zeros, Source::Zeros);
                }
            }
        }
        sources
    }

    /// The ranges that do not come from the base.
    pub fn changed_ranges(&self) -> Vec<ContentRange> {
        self.merged(|source| source != Source::Base)
    }

    /// The ranges that are no holes of staging (the base may have holes of its own).
    pub fn data_ranges(&self) -> Vec<ContentRange> {
        self.merged(|source| source != Source::Zeros)
    }

    fn merged(&self, wanted: impl Fn(Source) -> bool) -> Vec<ContentRange> {
        let mut ranges: Vec<ContentRange> = Vec::new();
        for (range, _) in self.sources().into_iter().filter(|&(_, source)| wanted(source)) {
            match ranges.last_mut() {
                Some(last) if last.end() == range.start() => *last = ContentRange::between(last.start(), range.end()),
                _ => ranges.push(range),
            }
        }
        ranges
    }
}

impl Drop for FrozenContent {
    fn drop(&mut self) {
        self.file.unpin(self.state.generation);
    }
}
