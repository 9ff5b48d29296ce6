//! The outer parity blocks of a new object (tier 4): each of their segments
//! is coded over the segments at the same place of the group's blocks, and
//! each outer block has an inner parity of its own, like any block.

use super::encode::{BlockWriter, ColumnWorker, column_of};
use super::writer::NewObject;
use super::{ArchiveError, ArchiveResult};
use crate::base::{BlockIndex, LEAF_SIZE, ShardIndex};
use crate::codec::{ErasureCode, UNIT};
use crate::format::manifest::BlockRoots;
use crate::format::{BlockGeometry, BlockId, layout};
use crate::merkle;

/// Fills a buffer with bytes of a data shard of a data block, from an offset.
pub(super) type ReadData<'a> = &'a dyn Fn(&BlockGeometry, ShardIndex, u64, &mut [u8]) -> ArchiveResult<()>;

/// Writes all outer blocks, reading the data blocks back from where they were
/// written. Returns their roots in the order of [`crate::format::Geometry::block_ids`];
/// none without an outer code.
pub(super) fn write_outer(new: &NewObject<'_>) -> ArchiveResult<Vec<BlockRoots>> {
    let read = |block: &BlockGeometry, shard: ShardIndex, start: u64, buffer: &mut [u8]| {
        let key = new.archive.below(new.staging, &layout::shard_path(&new.geometry, block, shard))?;
        Ok(new.archive.store().open(&key)?.read_at(start, buffer)?)
    };
    let mut roots = Vec::new();
    for group in 0..new.geometry.groups() {
        roots.extend(write_group(new, group, &read)?);
    }
    Ok(roots)
}

/// Writes the outer blocks of one group.
pub(super) fn write_group(new: &NewObject<'_>, group: u32, read: ReadData<'_>) -> ArchiveResult<Vec<BlockRoots>> {
    let Some(outer) = new.geometry.outer() else { return Ok(Vec::new()) };
    let members = new.geometry.group_blocks(group);
    let mut code = ErasureCode::new(members.len() as u16, outer.m);
    let writers = (0..outer.m)
        .map(|parity| BlockWriter::create(new, new.block(BlockId::Outer { group, parity })?, &[]))
        .collect::<ArchiveResult<Vec<_>>>()?;
    let Some(first) = writers.first() else { return Ok(Vec::new()) };
    let shape = first.geometry().clone();
    let mut workers = writers
        .iter()
        .map(|writer| ColumnWorker::new(writer.geometry()))
        .collect::<std::io::Result<Vec<_>>>()
        .map_err(ArchiveError::Source)?;
    let mut start = 0;
    while start < shape.parity_len() {
        new.control.check()?;
        let len = (shape.parity_len() - start).min(column_of(&shape)) as usize;
        for shard in (0..shape.k).map(ShardIndex::new) {
            let own = shape.shard_len(shard).saturating_sub(start).min(len as u64) as usize;
            let data = members
                .clone()
                .map(|block| read_column(new, read, BlockIndex::new(block), shard, start, own))
                .collect::<ArchiveResult<Vec<_>>>()?;
            let columns: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
            let mut parity = vec![vec![0; own.next_multiple_of(UNIT)]; usize::from(outer.m)];
            let mut slots: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
            if own > 0 {
                code.encode(&columns, &mut slots).map_err(ArchiveError::Code)?;
            }
            for ((writer, worker), column) in writers.iter().zip(&mut workers).zip(&parity) {
                put(writer, shard, start, &column[..own])?;
                if let Some(slot) = worker.arena.columns_mut(len.next_multiple_of(UNIT)).nth(shard.as_usize()) {
                    slot[..own].copy_from_slice(&column[..own]);
                    slot[own..].fill(0);
                }
            }
        }
        for (writer, worker) in writers.iter().zip(&mut workers) {
            worker.encode(len.next_multiple_of(UNIT))?;
            for (parity, column) in (shape.k..shape.shards()).zip(worker.parity(len, len.next_multiple_of(UNIT))) {
                put(writer, ShardIndex::new(parity), start, column)?;
            }
        }
        start += len as u64;
    }
    writers.iter().map(|writer| new.finish_block(writer, &writer.take_leaves())).collect()
}

/// Hashes and writes a column of a shard of an outer block.
pub(super) fn put(writer: &BlockWriter, shard: ShardIndex, start: u64, column: &[u8]) -> ArchiveResult<()> {
    if column.is_empty() {
        return Ok(());
    }
    let mut hashes = Vec::new();
    merkle::hash_leaves(column, start / LEAF_SIZE, writer.geometry().shard_len(shard), &mut hashes);
    writer.put_leaves(shard, start / LEAF_SIZE, &hashes);
    writer.write(shard, start, column, false)
}

/// A column of a data shard, padded with zeros; all zeros where the block has no such shard.
fn read_column(
    new: &NewObject<'_>,
    read: ReadData<'_>,
    block: BlockIndex,
    shard: ShardIndex,
    start: u64,
    len: usize,
) -> ArchiveResult<Vec<u8>> {
    let block = new.block(BlockId::Data(block))?;
    let mut column = vec![0; len.next_multiple_of(UNIT)];
    if block.is_data(shard) {
        let own = block.shard_len(shard).saturating_sub(start).min(len as u64) as usize;
        if own > 0 {
            read(&block, shard, start, &mut column[..own])?;
        }
    }
    Ok(column)
}
