//! Blocks whose parity is made from the old one: the parity of what differs,
//! in all other places zeros, is added to it. Every byte of the base that
//! enters was verified.

use super::Rewrite;
use super::difference::segment_of;
use crate::archive::encode::{BlockWriter, COLUMN, ColumnWorker, column_of, lock};
use crate::archive::outer::put;
use crate::archive::recover::Codes;
use crate::archive::threads::{processors, run_on};
use crate::archive::{ArchiveError, ArchiveResult};
use crate::base::{ContentRange, Digest, LEAF_SIZE, SegmentIndex, ShardIndex, ShardRange};
use crate::codec::{ErasureCode, UNIT};
use crate::format::manifest::BlockRoots;
use crate::format::{BlockGeometry, BlockId};
use crate::merkle::{self, LeafHash};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// A data block to whose parity is added.
struct AddedBlock<'a> {
    old: &'a BlockGeometry,
    writer: BlockWriter,
    changed: Vec<ShardIndex>,
    /// For each changed shard the hashes of its leaves as leaves of the content.
    content: Mutex<Vec<Vec<LeafHash>>>,
}

/// The outer blocks of a group that are added to.
struct AddedGroup {
    /// The numbers of the data blocks in it.
    members: std::ops::Range<u32>,
    shape: BlockGeometry,
    /// Data shards of the outer blocks that change.
    affected: Vec<ShardIndex>,
    writers: Vec<BlockWriter>,
}

impl Rewrite<'_> {
    /// Writes the changed shards and the parity of a data block that has as
    /// many data shards in both objects. Returns its roots, and the chaining
    /// values of the changed segments.
    pub(super) fn add_to_block(
        &self,
        block: &BlockGeometry,
        old: &BlockGeometry,
    ) -> ArchiveResult<(BlockRoots, Vec<(SegmentIndex, Digest)>)> {
        let (kept, changed) = self.difference.split(block);
        let writer = BlockWriter::create(self.new, block.clone(), &kept)?;
        self.keep_shards(&writer, old, &kept)?;
        let content = changed.iter().map(|shard| leaves_of(block.shard_len(*shard))).collect();
        let added = AddedBlock { old, writer, changed, content: Mutex::new(content) };
        self.in_columns(block, &|worker, start| self.add_column(&added, worker, start))?;
        let leaves = added.writer.take_leaves();
        self.check(block, &leaves)?;
        let content = std::mem::take(&mut *lock(&added.content));
        let values = added
            .changed
            .iter()
            .zip(&content)
            .filter_map(|(shard, leaves)| Some((segment_of(block, *shard), Digest::new(merkle::subtree(leaves)?))));
        Ok((self.new.finish_block(&added.writer, &leaves)?, values.collect()))
    }

    /// Links shards of a block of the base, and hands on their leaf hashes.
    fn keep_shards(&self, writer: &BlockWriter, old: &BlockGeometry, kept: &[ShardIndex]) -> ArchiveResult<()> {
        for shard in kept {
            self.keep_shard(old, *shard)?;
            writer.put_leaves(*shard, 0, &self.base.leaf_table(old, *shard, Codes::InnerAndOuter)?);
        }
        Ok(())
    }

    /// Lets all cores work on the columns of a block.
    fn in_columns(
        &self,
        block: &BlockGeometry,
        work: &(dyn Fn(&mut ColumnWorker, u64) -> ArchiveResult<()> + Sync),
    ) -> ArchiveResult<()> {
        let columns = block.parity_len().div_ceil(column_of(block));
        let next = AtomicU64::new(0);
        let work_until_done = || {
            let mut worker = ColumnWorker::new(block).map_err(ArchiveError::Source)?;
            loop {
                let column = next.fetch_add(1, Ordering::Relaxed);
                if column >= columns {
                    return Ok(());
                }
                let done = self.new.control.check().and_then(|()| work(&mut worker, column * column_of(block)));
                if done.is_err() {
                    // The other threads stop at their next column.
                    next.store(u64::MAX / 2, Ordering::Relaxed);
                    return done;
                }
            }
        };
        run_on(processors().min(columns as usize), &work_until_done)
    }

    fn add_column(&self, added: &AddedBlock<'_>, worker: &mut ColumnWorker, start: u64) -> ArchiveResult<()> {
        let block = added.writer.geometry();
        let len = (block.parity_len() - start).min(COLUMN) as usize;
        let coded = len.next_multiple_of(UNIT);
        let mut buffer = vec![0; len];
        let mut differs = false;
        for (index, shard) in added.changed.iter().enumerate() {
            let own = block.shard_len(*shard).saturating_sub(start).min(len as u64) as usize;
            let bytes = &mut buffer[..own];
            let segment = segment_of(block, *shard);
            if own > 0 {
                let at = self.difference.segment_span(segment).start() + start;
                let hole = self.read_source(at, bytes)?;
                self.hash_shard(&added.writer, *shard, start, bytes);
                let mut hashes = Vec::new();
                merkle::hash_leaves(bytes, at / LEAF_SIZE, self.new.geometry.segments_len(), &mut hashes);
                let first = (start / LEAF_SIZE) as usize;
                lock(&added.content)[index][first..first + hashes.len()].copy_from_slice(&hashes);
                added.writer.write(*shard, start, bytes, hole)?;
            }
            if let Some(slot) = worker.arena.columns_mut(coded).nth(shard.as_usize()) {
                differs |= self.difference_of(segment, start, Some(bytes), slot)?;
            }
        }
        if differs {
            worker.encode(coded)?;
        }
        for (shard, addend) in (block.k..block.shards()).map(ShardIndex::new).zip(worker.parity(len, coded)) {
            let range = ShardRange::between(start, start + len as u64);
            self.base.read_shard(added.old, shard, range, &mut buffer)?;
            if differs {
                xor(&mut buffer, addend);
            }
            self.hash_shard(&added.writer, shard, start, &buffer);
            // Where all is a hole, the parity is one as well.
            let hole = buffer.iter().all(|byte| *byte == 0);
            added.writer.write(shard, start, &buffer, hole)?;
        }
        Ok(())
    }

    fn hash_shard(&self, writer: &BlockWriter, shard: ShardIndex, start: u64, bytes: &[u8]) {
        let mut hashes = Vec::with_capacity(bytes.len() / LEAF_SIZE as usize + 1);
        merkle::hash_leaves(bytes, start / LEAF_SIZE, writer.geometry().shard_len(shard), &mut hashes);
        writer.put_leaves(shard, start / LEAF_SIZE, &hashes);
    }

    /// Fills `out` with new XOR old of a segment from its byte `start` on,
    /// either counted as zeros where there is nothing. `known` has the new
    /// bytes, as far as there are any. Whether anything may differ there.
    fn difference_of(
        &self,
        segment: SegmentIndex,
        start: u64,
        known: Option<&[u8]>,
        out: &mut [u8],
    ) -> ArchiveResult<bool> {
        out.fill(0);
        let base = self.difference.segment_span(segment).start() + start;
        let mut any = false;
        for range in self.difference.within(ContentRange::between(base, base + out.len() as u64)) {
            any = true;
            let from = (range.start() - base) as usize;
            let part = &mut out[from..from + range.len() as usize];
            let new = range.clamp_to(self.new.geometry.segments_len()).len() as usize;
            match known {
                Some(bytes) if new > 0 => part[..new].copy_from_slice(&bytes[from..from + new]),
                None if new > 0 => drop(self.read_source(range.start(), &mut part[..new])?),
                _ => {}
            }
            let old = range.clamp_to(self.difference.old.segments_len());
            if !old.is_empty() {
                xor(part, self.base.read(old)?.bytes());
            }
        }
        Ok(any)
    }

    /// Writes what changes of the outer blocks of a group whose shape is the
    /// same in both objects. Returns their roots.
    pub(super) fn add_to_group(&self, group: u32) -> ArchiveResult<Vec<BlockRoots>> {
        let geometry = &self.new.geometry;
        let Some(outer) = geometry.outer() else { return Ok(Vec::new()) };
        let members = geometry.group_blocks(group);
        let shape = self.new.block(BlockId::Outer { group, parity: 0 })?;
        let changes = |shard: &ShardIndex| {
            members
                .clone()
                .any(|block| self.difference.touches(self.difference.segment_span(self.member(block, *shard))))
        };
        let (affected, kept): (Vec<_>, Vec<_>) = (0..shape.k).map(ShardIndex::new).partition(changes);
        let mut writers = Vec::with_capacity(usize::from(outer.m));
        let mut workers = Vec::with_capacity(usize::from(outer.m));
        for parity in 0..outer.m {
            let block = self.new.block(BlockId::Outer { group, parity })?;
            let writer = BlockWriter::create(self.new, block.clone(), &kept)?;
            self.keep_shards(&writer, &block, &kept)?;
            writers.push(writer);
            workers.push(ColumnWorker::new(&block).map_err(ArchiveError::Source)?);
        }
        let mut code = ErasureCode::new(members.len() as u16, outer.m);
        let added = AddedGroup { members, shape: shape.clone(), affected, writers };
        let mut start = 0;
        while start < shape.parity_len() {
            self.new.control.check()?;
            self.add_group_column(&added, &mut code, &mut workers, start)?;
            start += column_of(&shape);
        }
        added.writers.iter().map(|writer| self.new.finish_block(writer, &writer.take_leaves())).collect()
    }

    /// The segment that is data shard `shard` of data block `block`.
    fn member(&self, block: u32, shard: ShardIndex) -> SegmentIndex {
        SegmentIndex::new(block * u32::from(self.new.geometry.k()) + u32::from(shard.get()))
    }

    fn add_group_column(
        &self,
        added: &AddedGroup,
        code: &mut ErasureCode,
        workers: &mut [ColumnWorker],
        start: u64,
    ) -> ArchiveResult<()> {
        let shape = &added.shape;
        let len = (shape.parity_len() - start).min(column_of(shape)) as usize;
        let coded = len.next_multiple_of(UNIT);
        let mut differs = false;
        for shard in &added.affected {
            let own = shape.shard_len(*shard).saturating_sub(start).min(len as u64) as usize;
            let addends = self.outer_addends(added, code, *shard, start, own)?;
            differs |= addends.is_some();
            for (index, (writer, worker)) in added.writers.iter().zip(workers.iter_mut()).enumerate() {
                let Some(slot) = worker.arena.columns_mut(coded).nth(shard.as_usize()) else { continue };
                slot.fill(0);
                if let Some(addends) = &addends {
                    slot[..own].copy_from_slice(&addends[index]);
                }
                let addend = &slot[..own];
                self.add_outer(writer, *shard, start, addend)?;
            }
        }
        for (writer, worker) in added.writers.iter().zip(workers) {
            if differs {
                worker.encode(coded)?;
            }
            for (parity, addend) in (shape.k..shape.shards()).zip(worker.parity(len, coded)) {
                let zeros = vec![0; if differs { 0 } else { len }];
                let addend = if differs { addend } else { &zeros };
                self.add_outer(writer, ShardIndex::new(parity), start, addend)?;
            }
        }
        Ok(())
    }

    /// What the outer code adds to a data shard of each outer block; `None`: nothing.
    fn outer_addends(
        &self,
        added: &AddedGroup,
        code: &mut ErasureCode,
        shard: ShardIndex,
        start: u64,
        own: usize,
    ) -> ArchiveResult<Option<Vec<Vec<u8>>>> {
        let mut differs = false;
        let mut data = Vec::with_capacity(added.members.len());
        for block in added.members.clone() {
            let mut column = vec![0; own];
            differs |= self.difference_of(self.member(block, shard), start, None, &mut column)?;
            data.push(column);
        }
        if !differs {
            return Ok(None);
        }
        let columns: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
        let mut parity = vec![vec![0; own]; added.writers.len()];
        let mut slots: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
        code.encode(&columns, &mut slots).map_err(ArchiveError::Code)?;
        Ok(Some(parity))
    }

    /// Writes a column of a shard of an outer block: the old one and an addend.
    fn add_outer(&self, writer: &BlockWriter, shard: ShardIndex, start: u64, addend: &[u8]) -> ArchiveResult<()> {
        if addend.is_empty() {
            return Ok(());
        }
        let mut bytes = vec![0; addend.len()];
        let range = ShardRange::between(start, start + addend.len() as u64);
        self.base.read_shard(writer.geometry(), shard, range, &mut bytes)?;
        xor(&mut bytes, addend);
        put(writer, shard, start, &bytes)
    }
}

fn leaves_of(len: u64) -> Vec<LeafHash> {
    vec![[0; 32]; crate::base::units::leaf_count(len) as usize]
}

fn xor(bytes: &mut [u8], addend: &[u8]) {
    bytes.iter_mut().zip(addend).for_each(|(byte, other)| *byte ^= other);
}
