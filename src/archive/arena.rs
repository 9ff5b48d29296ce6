//! Page-aligned working memory for the columns of a block.

use memmap2::MmapMut;
use std::io;

/// Equal columns side by side, each followed by a gap of 64 bytes: with a
/// power-of-two stride the columns of 33 shards would fall on the same cache sets.
#[derive(Debug)]
pub(super) struct ColumnArena {
    memory: MmapMut,
    column: usize,
}

const GAP: usize = 64;

impl ColumnArena {
    /// Room for `count` columns of up to `column` bytes (a multiple of 64). Zeroed.
    pub(super) fn new(count: usize, column: usize) -> io::Result<Self> {
        let memory = MmapMut::map_anon((count * (column + GAP)).max(1))?;
        Ok(Self { memory, column })
    }

    /// All columns, cut to `len` bytes, for writing.
    pub(super) fn columns_mut(&mut self, len: usize) -> impl Iterator<Item = &mut [u8]> {
        self.memory.chunks_mut(self.column + GAP).map(move |column| &mut column[..len])
    }

    /// All columns, cut to `len` bytes.
    pub(super) fn columns(&self, len: usize) -> impl Iterator<Item = &[u8]> {
        self.memory.chunks(self.column + GAP).map(move |column| &column[..len])
    }
}
