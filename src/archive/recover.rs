//! Bytes of a shard from the other shards of its block, and, where an outer
//! code exists, from the other blocks of its group.

use super::cache::LeafTable;
use super::object::Object;
use super::shard::{Fetched, leaf_matches};
use super::{ArchiveError, ArchiveResult};
use crate::base::units::leaf_count;
use crate::base::{BlockIndex, LeafIndex, ShardIndex, ShardRange};
use crate::codec::{ErasureCode, UNIT};
use crate::format::{BlockGeometry, BlockId};
use crate::merkle::{self, RootBuilder};
use rayon::prelude::*;

/// Bytes of each shard that a recovery of a whole shard decodes at once.
pub(super) const DECODE_COLUMN: u64 = 256 * 1024;

/// Which codes a recovery may use. Recovery through the outer code reads
/// other blocks through their inner code only, which ends the recursion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codes {
    Inner,
    InnerAndOuter,
}

/// Columns of other shards, padded with zeros, side by side in one memory.
struct Gathered {
    memory: Vec<u8>,
    /// Bytes of a column.
    len: usize,
    columns: Vec<Column>,
}

/// Whose column it is, and which of its leaves are bad.
struct Column {
    shard: ShardIndex,
    bad: Vec<LeafIndex>,
}

impl Gathered {
    fn column(&self, index: usize) -> &[u8] {
        &self.memory[index * self.len..(index + 1) * self.len]
    }

    /// The first `k` columns without a bad leaf, if there are as many.
    fn clean(&self, k: u16) -> Option<Vec<(ShardIndex, &[u8])>> {
        let clean = self.columns.iter().enumerate().filter(|(_, column)| column.bad.is_empty());
        let clean: Vec<_> =
            clean.take(usize::from(k)).map(|(index, column)| (column.shard, self.column(index))).collect();
        (clean.len() == usize::from(k)).then_some(clean)
    }
}

impl Object {
    /// The leaf table of a shard: its own, or computed from what the other
    /// shards say it was.
    pub(super) fn leaf_table(
        &self,
        block: &BlockGeometry,
        shard: ShardIndex,
        codes: Codes,
    ) -> ArchiveResult<LeafTable> {
        if let Some(table) = self.own_leaf_table(block, shard) {
            return Ok(table);
        }
        let len = block.shard_len(shard);
        let root = self.manifest().roots(block.id).and_then(|roots| roots.shard(shard)).copied();
        let mut leaves = Vec::with_capacity(leaf_count(len) as usize);
        let mut builder = RootBuilder::default();
        let mut at = 0;
        while at < len {
            let range = ShardRange::between(at, (at + DECODE_COLUMN).min(len));
            let bytes = self.decode_unchecked(block, shard, range, codes)?;
            let first = leaves.len();
            merkle::hash_leaves(&bytes, at / crate::base::LEAF_SIZE, len, &mut leaves);
            leaves[first..].iter().for_each(|leaf| builder.push(*leaf));
            at = range.end();
        }
        if builder.finish() != root {
            return Err(self.lost(
                block,
                shard,
                ShardRange::between(0, len),
                "the other shards do not restore it".into(),
            ));
        }
        let table: LeafTable = leaves.into();
        self.shared().caches.keep_table(self.address(block, shard), table.clone());
        Ok(table)
    }

    /// Verified bytes of whole leaves of a shard, computed without reading it.
    pub(super) fn recover(
        &self,
        block: &BlockGeometry,
        shard: ShardIndex,
        range: ShardRange,
        codes: Codes,
    ) -> ArchiveResult<Vec<u8>> {
        let table = self.leaf_table(block, shard, codes)?;
        let bytes = self.decode_unchecked(block, shard, range, codes)?;
        let wrong = range.leaves().find(|leaf| {
            let part = ShardRange::of_leaf(*leaf, block.shard_len(shard));
            let start = (part.start() - range.start()) as usize;
            !leaf_matches(&bytes[start..start + part.len() as usize], *leaf, &table)
        });
        match wrong {
            None => Ok(bytes),
            Some(leaf) => {
                let part = ShardRange::of_leaf(leaf, block.shard_len(shard));
                Err(self.lost(block, shard, part, "the other shards do not restore it".into()))
            }
        }
    }

    /// Decodes whole leaves of a shard from verified leaves of others. The
    /// result still has to be compared with the shard's own leaf table.
    fn decode_unchecked(
        &self,
        block: &BlockGeometry,
        wanted: ShardIndex,
        range: ShardRange,
        codes: Codes,
    ) -> ArchiveResult<Vec<u8>> {
        // The column ends where the parity does: neighbours may be longer than the wanted shard.
        let column = ShardRange::between(range.start(), range.to_leaves(block.parity_len()).end());
        let gathered = self.gather(block, wanted, column);
        let mut bytes = match gathered.clean(block.k) {
            Some(clean) => self.combine(block, wanted, &clean)?,
            None => self.decode_leaf_by_leaf(block, wanted, column, &gathered, codes)?,
        };
        self.shared().caches.keep_memory(gathered.memory);
        bytes.truncate(range.len() as usize);
        Ok(bytes)
    }

    /// The wanted shard's column from `k` verified ones.
    fn combine(
        &self,
        block: &BlockGeometry,
        wanted: ShardIndex,
        clean: &[(ShardIndex, &[u8])],
    ) -> ArchiveResult<Vec<u8>> {
        let columns: Vec<&[u8]> = clean.iter().map(|(_, column)| *column).collect();
        if block.k == 1 {
            return Ok(columns[0].to_vec());
        }
        let present: Vec<ShardIndex> = clean.iter().map(|(shard, _)| *shard).collect();
        let combination =
            self.shared().caches.combination(block.k, block.m, &present, wanted).map_err(ArchiveError::Code)?;
        let mut bytes = vec![0; columns[0].len()];
        combination.apply(&columns, &mut bytes);
        Ok(bytes)
    }

    /// Reads the column from other shards until enough are clean.
    fn gather(&self, block: &BlockGeometry, wanted: ShardIndex, column: ShardRange) -> Gathered {
        let now = self.shared().clock.now();
        let (fresh, suspects): (Vec<_>, Vec<_>) = block
            .shard_indexes()
            .filter(|shard| *shard != wanted)
            .partition(|shard| !self.shared().caches.is_suspect(&self.address(block, *shard), now));
        let len = column.len() as usize;
        let mut candidates = fresh.into_iter().chain(suspects);
        let first: Vec<ShardIndex> = candidates.by_ref().take(usize::from(block.k)).collect();
        let mut memory = self.shared().caches.memory();
        memory.resize(memory.len().max(len * first.len()), 0);
        let mut columns = Vec::with_capacity(first.len());
        // Read one after the other, verified side by side: the coding threads never wait for a disk.
        let fetched: Vec<_> = first
            .iter()
            .zip(memory.chunks_mut(len))
            .map(|(shard, slot)| self.fetch_column(block, *shard, column, slot))
            .collect();
        let verified: Vec<bool> = fetched
            .par_iter()
            .zip(memory.par_chunks(len))
            .map(|(fetched, slot)| fetched.as_ref().is_some_and(|f| f.is_good(slot)))
            .collect();
        let mut clean = 0;
        let mut doubtful = Vec::new();
        for (shard, good) in first.into_iter().zip(verified) {
            columns.push(Column { shard, bad: if good { Vec::new() } else { column.leaves().collect() } });
            clean += usize::from(good);
            if !good {
                doubtful.push(columns.len() - 1);
            }
        }
        let mut gathered = Gathered { memory, len, columns };
        for index in doubtful {
            clean += usize::from(self.look_again(block, column, &mut gathered, index));
        }
        for shard in candidates {
            if clean >= usize::from(block.k) {
                break;
            }
            let index = gathered.columns.len();
            gathered.columns.push(Column { shard, bad: column.leaves().collect() });
            gathered.memory.resize(gathered.memory.len().max(len * (index + 1)), 0);
            clean += usize::from(self.look_again(block, column, &mut gathered, index));
        }
        gathered
    }

    /// Reads a column and its leaf hashes; `None` where that needs a closer look.
    fn fetch_column(
        &self,
        block: &BlockGeometry,
        shard: ShardIndex,
        column: ShardRange,
        slot: &mut [u8],
    ) -> Option<FetchedColumn> {
        let own = column.clamp_to(block.shard_len(shard));
        let (own_slot, padding) = slot.split_at_mut(own.len() as usize);
        padding.fill(0);
        if own.is_empty() {
            return Some(FetchedColumn { len: 0, fetched: None });
        }
        let table = self.own_leaf_table(block, shard)?;
        let fetched = self.fetch(block, shard, own, own_slot).ok()?;
        Some(FetchedColumn { len: own_slot.len(), fetched: Some((fetched, table)) })
    }

    /// Reads a column leaf by leaf, from a file opened anew if need be, and
    /// notes what is bad. Whether all of it is good.
    fn look_again(&self, block: &BlockGeometry, column: ShardRange, gathered: &mut Gathered, index: usize) -> bool {
        let shard = gathered.columns[index].shard;
        let own = column.clamp_to(block.shard_len(shard));
        let slot = &mut gathered.memory[index * gathered.len..(index + 1) * gathered.len];
        let (own_slot, padding) = slot.split_at_mut(own.len() as usize);
        padding.fill(0);
        let bad = if own.is_empty() { Ok(Vec::new()) } else { self.read_leaves(block, shard, own, own_slot) };
        match bad {
            Ok(bad) => {
                if !bad.is_empty() {
                    self.found_bad(block, shard, &bad);
                }
                gathered.columns[index].bad = bad;
            }
            Err(fault) => self.found_unusable(block, shard, &fault),
        }
        gathered.columns[index].bad.is_empty()
    }

    /// Decodes each leaf from whichever shards are good at that leaf.
    fn decode_leaf_by_leaf(
        &self,
        block: &BlockGeometry,
        wanted: ShardIndex,
        column: ShardRange,
        gathered: &Gathered,
        codes: Codes,
    ) -> ArchiveResult<Vec<u8>> {
        let mut bytes = Vec::with_capacity(column.len() as usize);
        for leaf in column.leaves() {
            let part = ShardRange::of_leaf(leaf, block.parity_len());
            let cut = (part.start() - column.start()) as usize..(part.end() - column.start()) as usize;
            let good: Vec<(ShardIndex, &[u8])> = gathered
                .columns
                .iter()
                .enumerate()
                .filter(|(_, candidate)| !candidate.bad.contains(&leaf))
                .map(|(index, candidate)| (candidate.shard, &gathered.column(index)[cut.clone()]))
                .take(usize::from(block.k))
                .collect();
            let decoded = if good.len() == usize::from(block.k) {
                self.combine(block, wanted, &good)?
            } else if codes == Codes::InnerAndOuter && self.manifest().geometry().outer().is_some() {
                self.decode_outer(block, wanted, part)?
            } else {
                let detail = format!("{} of {} needed shards are good there", good.len(), block.k);
                return Err(self.lost(block, wanted, part.clamp_to(block.shard_len(wanted)), detail));
            };
            bytes.extend_from_slice(&decoded);
        }
        Ok(bytes)
    }

    /// Decodes a part of a shard through the outer code. A data shard comes
    /// from the shards at its place in the other blocks of the group; a
    /// parity shard is coded anew from its block's data shards.
    fn decode_outer(&self, block: &BlockGeometry, wanted: ShardIndex, part: ShardRange) -> ArchiveResult<Vec<u8>> {
        if block.is_data(wanted) {
            return self.decode_across_blocks(block, wanted, part);
        }
        let mut data = Vec::with_capacity(usize::from(block.k));
        for shard in (0..block.k).map(ShardIndex::new) {
            let own = part.clamp_to(block.shard_len(shard));
            let mut bytes = vec![0; part.len() as usize];
            if !own.is_empty() {
                let slot = &mut bytes[..own.len() as usize];
                match self.read_leaves(block, shard, own, slot) {
                    Ok(bad) if bad.is_empty() => {}
                    _ => slot.copy_from_slice(&self.decode_across_blocks(block, shard, part)?[..own.len() as usize]),
                }
            }
            data.push((shard, bytes));
        }
        let present: Vec<(ShardIndex, &[u8])> = data.iter().map(|(shard, bytes)| (*shard, bytes.as_slice())).collect();
        ErasureCode::new(block.k, block.m).decode(&present, wanted).map_err(ArchiveError::Code)
    }

    fn decode_across_blocks(
        &self,
        block: &BlockGeometry,
        wanted: ShardIndex,
        part: ShardRange,
    ) -> ArchiveResult<Vec<u8>> {
        let geometry = self.manifest().geometry();
        let lost =
            || self.lost(block, wanted, part.clamp_to(block.shard_len(wanted)), "the outer code is exhausted".into());
        let outer = geometry.outer().ok_or_else(lost)?;
        let group = match block.id {
            BlockId::Data(index) => geometry.group_of(index).ok_or_else(lost)?,
            BlockId::Outer { group, .. } => group,
        };
        let members = geometry.group_blocks(group);
        let k = members.len() as u16;
        let ids = members.map(|index| BlockId::Data(BlockIndex::new(index)));
        let ids = ids.chain((0..outer.m).map(|parity| BlockId::Outer { group, parity }));
        let len = (part.len() as usize).next_multiple_of(UNIT);
        let mut place = None;
        let mut present: Vec<(ShardIndex, Vec<u8>)> = Vec::new();
        for (index, id) in (0..).map(ShardIndex::new).zip(ids) {
            if id == block.id {
                place = Some(index);
                continue;
            }
            if present.len() == usize::from(k) {
                continue;
            }
            let Some(other) = geometry.block(id) else { continue };
            let mut bytes = vec![0; len];
            if other.is_data(wanted) {
                // Whole leaves of the other shard, which may be longer than the wanted one.
                let own = part.to_leaves(other.shard_len(wanted));
                let mut leaves = vec![0; own.len() as usize];
                if !own.is_empty() {
                    let direct = self.read_leaves(&other, wanted, own, &mut leaves);
                    if !matches!(direct, Ok(bad) if bad.is_empty()) {
                        match self.recover(&other, wanted, own, Codes::Inner) {
                            Ok(recovered) => leaves = recovered,
                            Err(_) => continue,
                        }
                    }
                }
                let used = leaves.len().min(len);
                bytes[..used].copy_from_slice(&leaves[..used]);
            }
            present.push((index, bytes));
        }
        let place = place.ok_or_else(lost)?;
        if present.len() < usize::from(k) {
            return Err(lost());
        }
        let present: Vec<(ShardIndex, &[u8])> =
            present.iter().map(|(shard, bytes)| (*shard, bytes.as_slice())).collect();
        let mut bytes = ErasureCode::new(k, outer.m).decode(&present, place).map_err(ArchiveError::Code)?;
        bytes.resize(part.len() as usize, 0);
        Ok(bytes)
    }

    /// The error for bytes that are gone, in terms of the content where they are content.
    pub(super) fn lost(
        &self,
        block: &BlockGeometry,
        shard: ShardIndex,
        range: ShardRange,
        detail: String,
    ) -> ArchiveError {
        let geometry = self.manifest().geometry();
        let base = match block.id {
            BlockId::Data(_) if block.is_data(shard) => {
                (u64::from(block.first_segment) + u64::from(shard.get())) * geometry.segment_size()
            }
            _ => 0,
        };
        ArchiveError::Unrecoverable {
            object: self.manifest().name.clone(),
            shard: self.shard_file_name(block, shard),
            range: crate::base::ContentRange::between(base + range.start(), base + range.end()),
            detail,
        }
    }
}

/// A column that was read, with what it is to be compared with.
struct FetchedColumn {
    /// The shard's own bytes in the column; what follows is padding.
    len: usize,
    fetched: Option<(Fetched, LeafTable)>,
}

impl FetchedColumn {
    fn is_good(&self, slot: &[u8]) -> bool {
        let good = |(fetched, table): &(Fetched, LeafTable)| fetched.bad_leaves(&slot[..self.len], table).is_empty();
        self.fetched.as_ref().is_none_or(good)
    }
}
