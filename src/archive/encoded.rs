//! Writes the data blocks of an object whose segments are encoded: each
//! thread takes the next segment, encodes it in memory and writes it; who
//! writes the last one of a block codes its parity, from the files.

use super::encode::{BlockWriter, COLUMN, ColumnWorker, column_of, lock};
use super::encoding::{EncodedSegment, Encoding};
use super::source::ContentSource;
use super::threads::{processors, run_on};
use super::writer::NewObject;
use super::{ArchiveError, ArchiveResult};
use crate::base::{BlockIndex, ContentHash, Digest, LEAF_SIZE, SegmentIndex, ShardIndex};
use crate::codec::UNIT;
use crate::format::manifest::BlockRoots;
use crate::format::{BlockGeometry, BlockId, Geometry, layout};
use crate::merkle::{self, LeafHash, RootBuilder};
use crate::store::StagedFile;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes that are written at once.
const WRITE: usize = 1 << 20;

/// A segment whose file an earlier version of the content has already.
#[derive(Debug, Clone)]
pub(super) struct KeptSegment {
    pub(super) stored_len: u64,
    pub(super) stream_len: u64,
    /// Leaf hashes of the file.
    pub(super) leaves: Vec<LeafHash>,
    /// Its chaining value as a subtree of the content; none of a segment that is only padding.
    pub(super) subtree: Option<Digest>,
}

/// Puts the files of kept segments in place.
pub(super) trait KeepSegments: Sync {
    /// The segment, if its file is kept; it is in place then.
    fn keep(&self, segment: SegmentIndex) -> ArchiveResult<Option<KeptSegment>>;

    /// The roots of a block of which all files are kept; they are in place then.
    fn keep_block(&self, block: BlockIndex) -> ArchiveResult<Option<(BlockRoots, Vec<KeptSegment>)>>;
}

/// Nothing is kept.
pub(super) struct KeepNothing;

impl KeepSegments for KeepNothing {
    fn keep(&self, _segment: SegmentIndex) -> ArchiveResult<Option<KeptSegment>> {
        Ok(None)
    }

    fn keep_block(&self, _block: BlockIndex) -> ArchiveResult<Option<(BlockRoots, Vec<KeptSegment>)>> {
        Ok(None)
    }
}

/// What was written.
pub(super) struct EncodedBlocks {
    /// The geometry with the lengths of the encoded segments.
    pub(super) geometry: Geometry,
    /// Lengths of the segments' streams before padding.
    pub(super) streams: Vec<u64>,
    pub(super) roots: Vec<BlockRoots>,
    /// Chaining values of the segments, where the content has a tree.
    pub(super) tree: Vec<Digest>,
    /// The content's hash, if it could be taken by the way.
    pub(super) hash: Option<ContentHash>,
}

/// Writes the data blocks of one object.
pub(super) struct SegmentEncoder<'a> {
    new: &'a NewObject<'a>,
    source: &'a dyn ContentSource,
    encoding: &'a Encoding,
    keep: &'a dyn KeepSegments,
    next: AtomicU32,
    wide: bool,
    /// Blocks of which all files are kept.
    kept: BTreeSet<u32>,
    open: Mutex<BTreeMap<u32, BlockState>>,
    done: Mutex<Done>,
}

/// A block of which some segments are written.
#[derive(Debug, Default)]
struct BlockState {
    left: u16,
    segments: BTreeMap<u16, Written>,
}

#[derive(Debug)]
struct Written {
    stored_len: u64,
    leaves: Vec<LeafHash>,
}

#[derive(Default)]
struct Done {
    roots: BTreeMap<u32, BlockRoots>,
    /// Length of file and stream by segment.
    lens: BTreeMap<u32, (u64, u64)>,
    tree: BTreeMap<u32, Digest>,
    /// Content leaves of segments that wait for an earlier one.
    waiting: BTreeMap<u32, Vec<LeafHash>>,
    next: u32,
    content: RootBuilder,
}

impl<'a> SegmentEncoder<'a> {
    pub(super) fn new(
        new: &'a NewObject<'a>,
        source: &'a dyn ContentSource,
        encoding: &'a Encoding,
        keep: &'a dyn KeepSegments,
    ) -> Self {
        Self {
            new,
            source,
            encoding,
            keep,
            next: AtomicU32::new(0),
            wide: new.geometry.segments() < processors() as u32,
            kept: BTreeSet::new(),
            open: Mutex::default(),
            done: Mutex::default(),
        }
    }

    pub(super) fn run(mut self) -> ArchiveResult<EncodedBlocks> {
        let new = self.new;
        let outline = &new.geometry;
        for block in 0..outline.blocks() {
            self.new.control.check()?;
            self.keep_block(BlockIndex::new(block))?;
        }
        run_on(processors().min(outline.segments() as usize), &|| self.work())?;
        let done = self.done.into_inner().unwrap_or_else(PoisonError::into_inner);
        let (stored, streams): (Vec<u64>, Vec<u64>) = done.lens.into_values().unzip();
        let geometry = Geometry::encoded(*outline.rule(), outline.segment_size(), stored.into())
            .ok_or_else(|| ArchiveError::Internal("an object without possible segments was written".into()))?;
        let by_the_way = is_hashed_by_the_way(outline) && !outline.has_content_tree(self.source.len());
        Ok(EncodedBlocks {
            geometry,
            streams,
            roots: done.roots.into_values().collect(),
            tree: done.tree.into_values().collect(),
            hash: if by_the_way { done.content.finish() } else { None },
        })
    }

    fn work(&self) -> ArchiveResult<()> {
        let result = self.work_until_done();
        if result.is_err() {
            // The other threads stop at their next segment.
            self.next.store(u32::MAX / 2, Ordering::Relaxed);
        }
        result
    }

    fn work_until_done(&self) -> ArchiveResult<()> {
        let outline = &self.new.geometry;
        let mut encoded = EncodedSegment::default();
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= outline.segments() {
                return Ok(());
            }
            self.new.control.check()?;
            let segment = SegmentIndex::new(number);
            let (block, shard) = outline.segment_place(segment);
            if self.kept.contains(&block.get()) {
                continue;
            }
            let shape = self.new.block(BlockId::Data(block))?;
            let written = self.segment(&shape, segment, shard, &mut encoded)?;
            (self.new.control.progress)(outline.plain_len(self.source.len(), segment));
            self.segment_done(&shape, shard, written)?;
        }
    }

    /// Keeps all of a block, if that can be.
    fn keep_block(&mut self, block: BlockIndex) -> ArchiveResult<()> {
        let Some((roots, segments)) = self.keep.keep_block(block)? else { return Ok(()) };
        let shape = self.new.block(BlockId::Data(block))?;
        for (number, kept) in (shape.first_segment..).map(SegmentIndex::new).zip(segments) {
            self.content_done(number, kept.stored_len, kept.stream_len, kept.subtree, &[]);
            (self.new.control.progress)(self.new.geometry.plain_len(self.source.len(), number));
        }
        self.kept.insert(block.get());
        lock(&self.done).roots.insert(block.get(), roots);
        Ok(())
    }

    /// Writes (or keeps) the file of a segment; with one data shard, also the copies.
    fn segment(
        &self,
        shape: &BlockGeometry,
        segment: SegmentIndex,
        shard: ShardIndex,
        encoded: &mut EncodedSegment,
    ) -> ArchiveResult<Written> {
        if let Some(kept) = self.keep.keep(segment)? {
            self.content_done(segment, kept.stored_len, kept.stream_len, kept.subtree, &[]);
            return Ok(Written { stored_len: kept.stored_len, leaves: kept.leaves });
        }
        self.encoding.encode(self.source, &self.new.geometry, segment, self.wide, encoded)?;
        let stored_len = encoded.stored.len() as u64;
        let mut leaves = Vec::with_capacity(encoded.stored.len() / LEAF_SIZE as usize + 1);
        merkle::hash_leaves(&encoded.stored, 0, stored_len, &mut leaves);
        let copies = if shape.k == 1 { shape.m } else { 0 };
        let shards = std::iter::once(shard).chain((0..copies).map(|copy| ShardIndex::new(shape.k + copy)));
        for shard in shards {
            let file = self.new.create(&layout::shard_path(&self.new.geometry, shape, shard))?;
            write(&file, &encoded.stored)?;
            self.new.sync_later(file)?;
        }
        self.content_done(segment, stored_len, encoded.stream_len, None, &encoded.content);
        Ok(Written { stored_len, leaves })
    }

    /// Notes what is known of the content of a segment.
    fn content_done(
        &self,
        segment: SegmentIndex,
        stored: u64,
        stream: u64,
        subtree: Option<Digest>,
        leaves: &[LeafHash],
    ) {
        let outline = &self.new.geometry;
        let mut done = lock(&self.done);
        done.lens.insert(segment.get(), (stored, stream));
        if outline.has_content_tree(self.source.len()) {
            let subtree = subtree.or_else(|| merkle::subtree(leaves).map(Digest::new));
            // A segment that is only padding is none of the content's.
            if let Some(subtree) = subtree.filter(|_| outline.plain_len(self.source.len(), segment) > 0) {
                done.tree.insert(segment.get(), subtree);
            }
            return;
        }
        if !is_hashed_by_the_way(outline) {
            return;
        }
        done.waiting.insert(segment.get(), leaves.to_vec());
        loop {
            let next = done.next;
            let Some(leaves) = done.waiting.remove(&next) else { return };
            leaves.into_iter().for_each(|leaf| done.content.push(leaf));
            done.next += 1;
        }
    }

    fn segment_done(&self, shape: &BlockGeometry, shard: ShardIndex, written: Written) -> ArchiveResult<()> {
        let BlockId::Data(block) = shape.id else { return Ok(()) };
        let finished = {
            let mut open = lock(&self.open);
            let state =
                open.entry(block.get()).or_insert_with(|| BlockState { left: shape.k, ..BlockState::default() });
            state.segments.insert(shard.get(), written);
            state.left -= 1;
            if state.left > 0 { None } else { open.remove(&block.get()) }
        };
        let Some(state) = finished else { return Ok(()) };
        let lens: Arc<[u64]> = state.segments.values().map(|written| written.stored_len).collect();
        let geometry = BlockGeometry::of_listed(block, shape.first_segment, shape.m, lens);
        let data: Vec<Vec<LeafHash>> = state.segments.into_values().map(|written| written.leaves).collect();
        let roots =
            if geometry.k == 1 { self.copied_block(geometry, data)? } else { self.coded_block(geometry, data)? };
        lock(&self.done).roots.insert(block.get(), roots);
        Ok(())
    }

    /// A block of one data shard: its copies are written.
    fn copied_block(&self, block: BlockGeometry, data: Vec<Vec<LeafHash>>) -> ArchiveResult<BlockRoots> {
        let kept: Vec<ShardIndex> = block.shard_indexes().collect();
        let writer = BlockWriter::create(self.new, block.clone(), &kept)?;
        let Some(leaves) = data.into_iter().next() else {
            return Err(ArchiveError::Internal("a block without segments was written".into()));
        };
        self.new.finish_block(&writer, &vec![leaves; usize::from(block.shards())])
    }

    /// Codes the parity of a block from its files, every leaf of which is compared with what was written.
    fn coded_block(&self, block: BlockGeometry, data: Vec<Vec<LeafHash>>) -> ArchiveResult<BlockRoots> {
        let shards: Vec<ShardIndex> = (0..block.k).map(ShardIndex::new).collect();
        let writer = BlockWriter::create(self.new, block.clone(), &shards)?;
        let mut files = Vec::with_capacity(shards.len());
        for (shard, leaves) in shards.iter().zip(&data) {
            writer.put_leaves(*shard, 0, leaves);
            let path = layout::shard_path(&self.new.geometry, &block, *shard);
            files.push(self.new.archive.store().open(&self.new.archive.below(self.new.staging, &path)?)?);
        }
        let mut worker = ColumnWorker::new(&block).map_err(ArchiveError::Source)?;
        let mut hashes = Vec::new();
        for start in (0..block.parity_len()).step_by(COLUMN as usize) {
            self.new.control.check()?;
            let len = (block.parity_len() - start).min(column_of(&block)) as usize;
            let coded = len.next_multiple_of(UNIT);
            for ((shard, file), slot) in shards.iter().zip(&files).zip(worker.arena.columns_mut(coded)) {
                let own = block.shard_len(*shard).saturating_sub(start).min(len as u64) as usize;
                slot[own..].fill(0);
                if own == 0 {
                    continue;
                }
                file.read_at(start, &mut slot[..own])?;
                hashes.clear();
                merkle::hash_leaves(&slot[..own], start / LEAF_SIZE, block.shard_len(*shard), &mut hashes);
                let first = (start / LEAF_SIZE) as usize;
                if data[shard.as_usize()].get(first..first + hashes.len()) != Some(&hashes[..]) {
                    let what = "the store does not give back what was written to it a moment ago";
                    return Err(ArchiveError::Source(std::io::Error::other(what)));
                }
            }
            worker.encode(coded)?;
            for (shard, column) in (block.k..block.shards()).map(ShardIndex::new).zip(worker.parity(len, coded)) {
                super::outer::put(&writer, shard, start, column)?;
            }
        }
        let leaves = writer.take_leaves();
        self.new.finish_block(&writer, &leaves)
    }
}

/// Whether segments are whole leaves of the content, so that its leaves are hashed while they are encoded.
fn is_hashed_by_the_way(outline: &Geometry) -> bool {
    outline.segments() == 1 || outline.segment_size().is_multiple_of(LEAF_SIZE)
}

fn write(file: &Arc<dyn StagedFile>, bytes: &[u8]) -> ArchiveResult<()> {
    for (at, part) in (0..).step_by(WRITE).zip(bytes.chunks(WRITE)) {
        file.write_at(at, part)?;
    }
    Ok(())
}
