//! The outer parity blocks of a new object (tier 4): each of their segments
//! is coded over the segments at the same place of the group's blocks, and
//! each outer block has an inner parity of its own, like any block.

use super::encode::{BlockWriter, ColumnWorker, column_of};
use super::writer::{SyncQueue, WriteControl, block_of, finish_block};
use super::{Archive, ArchiveError, ArchiveResult};
use crate::base::{BlockIndex, LEAF_SIZE, ShardIndex};
use crate::codec::{ErasureCode, UNIT};
use crate::format::manifest::BlockRoots;
use crate::format::{BlockId, Geometry, layout};
use crate::merkle;
use crate::store::StoreKey;

/// Writes all outer blocks, reading the data blocks back from `staging`.
/// Returns their roots in the order of [`Geometry::block_ids`]; none without an outer code.
pub(super) fn write_outer(
    archive: &Archive,
    control: &WriteControl<'_>,
    geometry: &Geometry,
    staging: &StoreKey,
    queue: &SyncQueue,
) -> ArchiveResult<Vec<BlockRoots>> {
    let mut roots = Vec::new();
    for group in 0..geometry.groups() {
        roots.extend(write_group(archive, control, geometry, staging, queue, group)?);
    }
    Ok(roots)
}

fn write_group(
    archive: &Archive,
    control: &WriteControl<'_>,
    geometry: &Geometry,
    staging: &StoreKey,
    queue: &SyncQueue,
    group: u32,
) -> ArchiveResult<Vec<BlockRoots>> {
    let Some(outer) = geometry.outer() else { return Ok(Vec::new()) };
    let members = geometry.group_blocks(group);
    let mut code = ErasureCode::new(members.len() as u16, outer.m);
    let writers = (0..outer.m)
        .map(|parity| {
            let block = block_of(geometry, BlockId::Outer { group, parity })?;
            BlockWriter::create(archive, geometry, block, staging)
        })
        .collect::<ArchiveResult<Vec<_>>>()?;
    let Some(first) = writers.first() else { return Ok(Vec::new()) };
    let shape = *first.geometry();
    let mut workers = writers
        .iter()
        .map(|writer| ColumnWorker::new(writer.geometry()))
        .collect::<std::io::Result<Vec<_>>>()
        .map_err(ArchiveError::Source)?;
    let mut start = 0;
    while start < shape.parity_len() {
        control.check()?;
        let len = (shape.parity_len() - start).min(column_of(&shape)) as usize;
        for shard in (0..shape.k).map(ShardIndex::new) {
            let own = shape.shard_len(shard).saturating_sub(start).min(len as u64) as usize;
            let data = members
                .clone()
                .map(|block| read_column(archive, geometry, staging, BlockIndex::new(block), shard, start, own))
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
    writers.iter().map(|writer| finish_block(archive, writer, geometry, staging, queue)).collect()
}

fn put(writer: &BlockWriter, shard: ShardIndex, start: u64, column: &[u8]) -> ArchiveResult<()> {
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
    archive: &Archive,
    geometry: &Geometry,
    staging: &StoreKey,
    block: BlockIndex,
    shard: ShardIndex,
    start: u64,
    len: usize,
) -> ArchiveResult<Vec<u8>> {
    let block = block_of(geometry, BlockId::Data(block))?;
    let mut column = vec![0; len.next_multiple_of(UNIT)];
    if block.is_data(shard) {
        let own = block.shard_len(shard).saturating_sub(start).min(len as u64) as usize;
        if own > 0 {
            let key = archive.below(staging, &layout::shard_path(geometry, &block, shard))?;
            archive.store().open(&key)?.read_at(start, &mut column[..own])?;
        }
    }
    Ok(column)
}
