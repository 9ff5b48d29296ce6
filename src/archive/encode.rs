//! The data blocks of a new object: each thread takes the next column of a
//! block, reads it from all segments, hashes, codes and writes it.

use super::arena::ColumnArena;
use super::source::{ContentSource, is_hole};
use super::threads::{processors, run_on};
use super::writer::NewObject;
use super::{ArchiveError, ArchiveResult};
use crate::base::{BlockIndex, ContentHash, ContentRange, Digest, LEAF_SIZE, ShardIndex};
use crate::codec::{ErasureCode, UNIT};
use crate::format::manifest::BlockRoots;
use crate::format::{BlockGeometry, BlockId, layout};
use crate::merkle::{self, LeafHash, RootBuilder};
use crate::store::StagedFile;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of each shard that are coded at once: small enough that the columns
/// of a block stay in the processor's caches, whole leaves.
pub(super) const COLUMN: u64 = 128 * 1024;
/// The same for blocks of one data shard, which are only copied.
const COPY_COLUMN: u64 = 1024 * 1024;
/// How many columns the source is told of in advance.
const AHEAD: u64 = 8;

/// Bytes of a column of this block.
pub(super) fn column_of(block: &BlockGeometry) -> u64 {
    if block.k == 1 { COPY_COLUMN } else { COLUMN }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The data behind these locks is valid between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A data block that is to be written.
#[derive(Debug)]
pub(super) struct BlockJob {
    pub(super) block: BlockIndex,
    /// Data shards whose files are there already: they are read from the
    /// source, hashed and coded, and not written.
    pub(super) kept: Vec<ShardIndex>,
}

impl BlockJob {
    pub(super) fn whole(block: BlockIndex) -> Self {
        Self { block, kept: Vec::new() }
    }
}

/// The files and leaf hashes of a block that is being written.
#[derive(Debug)]
pub(super) struct BlockWriter {
    geometry: BlockGeometry,
    /// `None` for shards whose files are there already.
    files: Vec<Option<Arc<dyn StagedFile>>>,
    leaves: Mutex<Vec<Vec<LeafHash>>>,
    columns_left: AtomicU64,
}

impl BlockWriter {
    /// Creates the files of a block, those of the `kept` shards excepted.
    pub(super) fn create(new: &NewObject<'_>, block: BlockGeometry, kept: &[ShardIndex]) -> ArchiveResult<Self> {
        let files = block
            .shard_indexes()
            .map(|shard| match kept.contains(&shard) {
                true => Ok(None),
                false => new.create(&layout::shard_path(&new.geometry, &block, shard)).map(Some),
            })
            .collect::<ArchiveResult<_>>()?;
        let leaves = block
            .shard_indexes()
            .map(|shard| vec![[0; 32]; crate::base::units::leaf_count(block.shard_len(shard)) as usize])
            .collect();
        let columns_left = AtomicU64::new(block.parity_len().div_ceil(column_of(&block)));
        Ok(Self { geometry: block, files, leaves: Mutex::new(leaves), columns_left })
    }

    pub(super) fn geometry(&self) -> &BlockGeometry {
        &self.geometry
    }

    /// Records the hashes of leaves of `shard` from leaf `first` on.
    pub(super) fn put_leaves(&self, shard: ShardIndex, first: u64, hashes: &[LeafHash]) {
        let first = first as usize;
        lock(&self.leaves)[shard.as_usize()][first..first + hashes.len()].copy_from_slice(hashes);
    }

    /// The leaf hashes, once all columns are done.
    pub(super) fn take_leaves(&self) -> Vec<Vec<LeafHash>> {
        std::mem::take(&mut *lock(&self.leaves))
    }

    /// Writes a column of a shard; a hole is left out.
    pub(super) fn write(&self, shard: ShardIndex, start: u64, bytes: &[u8], hole: bool) -> ArchiveResult<()> {
        match &self.files[shard.as_usize()] {
            Some(file) if !hole && !bytes.is_empty() => Ok(file.write_at(start, bytes)?),
            _ => Ok(()),
        }
    }

    /// Whether this was the block's last column.
    pub(super) fn column_done(&self) -> bool {
        self.columns_left.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Gives all files their length and hands them to the syncing thread.
    pub(super) fn finish(&self, new: &NewObject<'_>) -> ArchiveResult<()> {
        for (shard, file) in self.geometry.shard_indexes().zip(&self.files) {
            if let Some(file) = file {
                file.set_len(self.geometry.shard_len(shard))?;
                new.sync_later(file.clone())?;
            }
        }
        Ok(())
    }
}

/// Looks at the leaf hashes of all shards of a block that was coded.
pub(super) type BlockCheck<'a> = &'a (dyn Fn(&BlockGeometry, &[Vec<LeafHash>]) -> ArchiveResult<()> + Sync);

/// Writes data blocks of one object.
pub(super) struct Encoder<'a> {
    new: &'a NewObject<'a>,
    source: &'a dyn ContentSource,
    jobs: Vec<BlockJob>,
    check: BlockCheck<'a>,
    /// Segments are whole leaves, so the content's leaves can be hashed by the way.
    hash_by_the_way: bool,
    next_column: AtomicU64,
    open: Mutex<BTreeMap<u32, Arc<BlockState>>>,
    done: Mutex<Done>,
}

struct BlockState {
    writer: BlockWriter,
    /// Hashes of the content's leaves in this block, where that is not the
    /// same as its one shard's.
    content: Mutex<Vec<LeafHash>>,
}

/// Finished blocks.
#[derive(Default)]
struct Done {
    roots: BTreeMap<u32, BlockRoots>,
    tree: BTreeMap<u32, Vec<Digest>>,
    /// Content leaves of blocks that wait for an earlier one.
    waiting: BTreeMap<u32, Vec<LeafHash>>,
    next: u32,
    content: RootBuilder,
}

/// Blocks that were coded and written, by their numbers.
pub(super) struct Encoded {
    /// Roots of the shards.
    pub(super) roots: BTreeMap<u32, BlockRoots>,
    /// Chaining values of the segments, where the geometry has a content tree.
    pub(super) tree: BTreeMap<u32, Vec<Digest>>,
    /// The content's hash, where it has no tree and could be taken by the
    /// way, from all blocks.
    pub(super) hash: Option<ContentHash>,
}

impl<'a> Encoder<'a> {
    /// Writes the blocks `jobs`, in ascending order; without a content tree
    /// these must be all. `check` may refuse a block.
    pub(super) fn new(
        new: &'a NewObject<'a>,
        source: &'a dyn ContentSource,
        jobs: Vec<BlockJob>,
        check: BlockCheck<'a>,
    ) -> Self {
        let geometry = &new.geometry;
        Self {
            new,
            source,
            jobs,
            check,
            hash_by_the_way: geometry.segments() == 1 || geometry.segment_size().is_multiple_of(LEAF_SIZE),
            next_column: AtomicU64::new(0),
            open: Mutex::new(BTreeMap::new()),
            done: Mutex::new(Done::default()),
        }
    }

    pub(super) fn run(self) -> ArchiveResult<Encoded> {
        let columns = self.columns_per_block()? * self.jobs.len() as u64;
        run_on(processors().min(columns as usize), &|| self.work())?;
        let done = self.done.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(Encoded { roots: done.roots, tree: done.tree, hash: done.content.finish() })
    }

    /// Columns of a full block. The last block may have fewer; its surplus numbers are skipped.
    fn columns_per_block(&self) -> ArchiveResult<u64> {
        let first = self.new.block(BlockId::Data(BlockIndex::new(0)))?;
        Ok(first.parity_len().div_ceil(column_of(&first)))
    }

    fn work(&self) -> ArchiveResult<()> {
        let result = self.work_until_done();
        if result.is_err() {
            // The other threads stop at their next column.
            self.next_column.store(u64::MAX / 2, Ordering::Relaxed);
        }
        result
    }

    fn work_until_done(&self) -> ArchiveResult<()> {
        let per_block = self.columns_per_block()?;
        let mut worker: Option<ColumnWorker> = None;
        loop {
            let number = self.next_column.fetch_add(1, Ordering::Relaxed);
            let (job, column) = (number / per_block, number % per_block);
            let Some(job) = usize::try_from(job).ok().and_then(|job| self.jobs.get(job)) else { return Ok(()) };
            self.new.control.check()?;
            let block = self.new.block(BlockId::Data(job.block))?;
            let start = column * column_of(&block);
            if start >= block.parity_len() {
                continue;
            }
            let state = self.state(job, &block)?;
            let worker = match &mut worker {
                Some(worker) if worker.fits(&block) => worker,
                other => other.insert(ColumnWorker::new(&block).map_err(ArchiveError::Source)?),
            };
            let bytes = self.code_column(worker, &state, start)?;
            (self.new.control.progress)(bytes);
            if state.writer.column_done() {
                self.finish(job.block.get(), &state)?;
            }
        }
    }

    fn state(&self, job: &BlockJob, block: &BlockGeometry) -> ArchiveResult<Arc<BlockState>> {
        let mut open = lock(&self.open);
        if let Some(state) = open.get(&job.block.get()) {
            return Ok(state.clone());
        }
        let leaves = block.data_len().div_ceil(LEAF_SIZE) as usize;
        let separate = self.hash_by_the_way && self.new.geometry.segments() > 1;
        let state = Arc::new(BlockState {
            writer: BlockWriter::create(self.new, block.clone(), &job.kept)?,
            content: Mutex::new(if separate { vec![[0; 32]; leaves] } else { Vec::new() }),
        });
        open.insert(job.block.get(), state.clone());
        Ok(state)
    }

    /// Reads, hashes, codes and writes one column. Returns the content bytes in it.
    fn code_column(&self, worker: &mut ColumnWorker, state: &BlockState, start: u64) -> ArchiveResult<u64> {
        let block = state.writer.geometry();
        let holes = self.source.data_ranges();
        let len = (block.parity_len() - start).min(column_of(block));
        let coded = (len as usize).next_multiple_of(UNIT);
        if start.is_multiple_of(AHEAD * column_of(block)) {
            self.announce(block, start);
        }
        let mut bytes = 0;
        let mut all_holes = true;
        let mut hashes = Vec::with_capacity((len / LEAF_SIZE) as usize + 1);
        for (shard, slot) in (0..block.k).map(ShardIndex::new).zip(worker.arena.columns_mut(coded)) {
            let own = block.shard_len(shard).saturating_sub(start).min(len) as usize;
            slot[own..].fill(0);
            if own == 0 {
                continue;
            }
            let at = self.content_offset(block, shard) + start;
            let hole = is_hole(holes, ContentRange::between(at, at + own as u64));
            all_holes &= hole;
            if hole {
                slot[..own].fill(0);
            } else {
                self.source.read_at(at, &mut slot[..own]).map_err(ArchiveError::Source)?;
            }
            hashes.clear();
            merkle::hash_leaves(&slot[..own], start / LEAF_SIZE, block.shard_len(shard), &mut hashes);
            state.writer.put_leaves(shard, start / LEAF_SIZE, &hashes);
            self.hash_content(state, block, at, &slot[..own]);
            state.writer.write(shard, start, &slot[..own], hole)?;
            bytes += own as u64;
        }
        worker.encode(coded)?;
        for (shard, slot) in (block.k..block.shards()).map(ShardIndex::new).zip(worker.parity(len as usize, coded)) {
            hashes.clear();
            merkle::hash_leaves(slot, start / LEAF_SIZE, block.parity_len(), &mut hashes);
            state.writer.put_leaves(shard, start / LEAF_SIZE, &hashes);
            state.writer.write(shard, start, slot, all_holes)?;
        }
        Ok(bytes)
    }

    /// Where a data shard's bytes begin in the content.
    fn content_offset(&self, block: &BlockGeometry, shard: ShardIndex) -> u64 {
        (u64::from(block.first_segment) + u64::from(shard.get())) * self.new.geometry.segment_size()
    }

    fn hash_content(&self, state: &BlockState, block: &BlockGeometry, at: u64, bytes: &[u8]) {
        if !self.hash_by_the_way || self.new.geometry.segments() == 1 {
            return;
        }
        let mut hashes = Vec::with_capacity(bytes.len() / LEAF_SIZE as usize + 1);
        merkle::hash_leaves(bytes, at / LEAF_SIZE, self.new.geometry.segments_len(), &mut hashes);
        let first = ((at - self.content_offset(block, ShardIndex::new(0))) / LEAF_SIZE) as usize;
        lock(&state.content)[first..first + hashes.len()].copy_from_slice(&hashes);
    }

    /// Tells the source which ranges come next, in all segments of the block:
    /// a kernel's read-ahead follows one reader, not thirty.
    fn announce(&self, block: &BlockGeometry, start: u64) {
        let span = AHEAD * column_of(block);
        for shard in (0..block.k).map(ShardIndex::new) {
            let base = self.content_offset(block, shard);
            let end = base + block.shard_len(shard);
            let next = if start == 0 { base } else { base + start + span };
            let next = ContentRange::between(next.min(end), (base + start + 2 * span).min(end));
            if !next.is_empty() {
                self.source.will_need(next);
            }
        }
    }

    fn finish(&self, index: u32, state: &BlockState) -> ArchiveResult<()> {
        let leaves = state.writer.take_leaves();
        (self.check)(&state.writer.geometry, &leaves)?;
        let content = match self.new.geometry.segments() {
            1 => leaves[0].clone(),
            _ => std::mem::take(&mut *lock(&state.content)),
        };
        let roots = self.new.finish_block(&state.writer, &leaves)?;
        lock(&self.open).remove(&index);
        let mut done = lock(&self.done);
        done.roots.insert(index, roots);
        if self.new.geometry.has_content_tree(self.source.len()) {
            let leaves_of_segment = (self.new.geometry.segment_size() / LEAF_SIZE) as usize;
            let segments = content.chunks(leaves_of_segment).filter_map(merkle::subtree).map(Digest::new);
            done.tree.insert(index, segments.collect());
            return Ok(());
        }
        done.waiting.insert(index, content);
        loop {
            let next = done.next;
            let Some(leaves) = done.waiting.remove(&next) else { return Ok(()) };
            leaves.into_iter().for_each(|leaf| done.content.push(leaf));
            done.next += 1;
        }
    }
}

/// One thread's memory and coder.
pub(super) struct ColumnWorker {
    k: u16,
    m: u16,
    pub(super) arena: ColumnArena,
    code: ErasureCode,
}

impl ColumnWorker {
    pub(super) fn new(block: &BlockGeometry) -> std::io::Result<Self> {
        let arena = ColumnArena::new(usize::from(block.shards()), column_of(block) as usize)?;
        Ok(Self { k: block.k, m: block.m, arena, code: ErasureCode::new(block.k, block.m) })
    }

    fn fits(&self, block: &BlockGeometry) -> bool {
        (self.k, self.m) == (block.k, block.m)
    }

    /// Computes the parity columns behind the data columns.
    pub(super) fn encode(&mut self, coded: usize) -> ArchiveResult<()> {
        let mut columns: Vec<&mut [u8]> = self.arena.columns_mut(coded).collect();
        let (data, parity) = columns.split_at_mut(usize::from(self.k));
        let data: Vec<&[u8]> = data.iter().map(|column| &**column).collect();
        self.code.encode(&data, parity).map_err(ArchiveError::Code)
    }

    /// The parity columns, cut to `len` bytes.
    pub(super) fn parity(&self, len: usize, coded: usize) -> impl Iterator<Item = &[u8]> {
        self.arena.columns(coded).skip(usize::from(self.k)).map(move |column| &column[..len])
    }
}
