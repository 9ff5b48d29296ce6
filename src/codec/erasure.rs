//! The erasure code: `reed-solomon-simd` 3 over GF(2^16).
//!
//! It works column by column in units of 64 bytes: parity of a byte range
//! that begins and ends on a unit is that range of the parity. So any column
//! of a block can be coded by itself, with memory for that column only.

use crate::base::ShardIndex;
use reed_solomon_simd::{ReedSolomonDecoder, ReedSolomonEncoder};

/// Bytes of a shard that are coded as one, and to which columns are aligned.
pub const UNIT: usize = 64;

/// Why shards cannot be coded.
#[derive(Debug, thiserror::Error)]
pub enum CodeError {
    /// Fewer shards than data shards are left.
    #[error("{present} shards of a block are left, and {needed} are needed")]
    TooFew {
        /// Shards given.
        present: usize,
        /// Data shards of the block.
        needed: usize,
    },
    /// Columns of unequal length, an index out of range, or the like.
    #[error("the erasure coder refused its arguments")]
    Arguments(#[source] reed_solomon_simd::Error),
}

/// A code of `k` data and `m` parity shards, with the working memory for
/// columns of one length. With one data shard, parity is a copy of it.
pub struct ErasureCode {
    k: usize,
    m: usize,
    encoder: Option<ReedSolomonEncoder>,
    decoder: Option<ReedSolomonDecoder>,
}

impl std::fmt::Debug for ErasureCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ErasureCode({}, {})", self.k, self.m)
    }
}

impl ErasureCode {
    /// A code of `k` data (at least one) and `m` parity shards.
    pub fn new(k: u16, m: u16) -> Self {
        Self { k: usize::from(k), m: usize::from(m), encoder: None, decoder: None }
    }

    /// Number of data shards.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Computes all parity columns. `data` holds one column for each data
    /// shard, all of one length, a multiple of [`UNIT`]; shorter shards are
    /// padded with zeros by the caller. `parity` takes the columns in order.
    pub fn encode(&mut self, data: &[&[u8]], parity: &mut [&mut [u8]]) -> Result<(), CodeError> {
        if data.len() != self.k || parity.len() != self.m {
            return Err(CodeError::TooFew { present: data.len(), needed: self.k });
        }
        if self.k == 1 {
            parity.iter_mut().for_each(|column| column.copy_from_slice(data[0]));
            return Ok(());
        }
        let len = data[0].len();
        let encoder = match &mut self.encoder {
            Some(encoder) => {
                encoder.reset(self.k, self.m, len).map_err(CodeError::Arguments)?;
                encoder
            }
            none => none.insert(ReedSolomonEncoder::new(self.k, self.m, len).map_err(CodeError::Arguments)?),
        };
        for column in data {
            encoder.add_original_shard(column).map_err(CodeError::Arguments)?;
        }
        let result = encoder.encode().map_err(CodeError::Arguments)?;
        for (column, computed) in parity.iter_mut().zip(result.recovery_iter()) {
            column.copy_from_slice(computed);
        }
        Ok(())
    }

    /// Computes the column of shard `wanted` from the columns of other shards
    /// (any `k` of them; more are ignored), all of one length, a multiple of
    /// [`UNIT`]. The columns must have been verified: the code detects nothing.
    pub fn decode(&mut self, present: &[(ShardIndex, &[u8])], wanted: ShardIndex) -> Result<Vec<u8>, CodeError> {
        if present.len() < self.k {
            return Err(CodeError::TooFew { present: present.len(), needed: self.k });
        }
        let present = &present[..self.k];
        if self.k == 1 {
            return Ok(present[0].1.to_vec());
        }
        let len = present[0].1.len();
        let mut data = self.decode_data(present, len)?;
        if wanted.as_usize() < self.k {
            return Ok(std::mem::take(&mut data[wanted.as_usize()]));
        }
        let columns: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
        let mut parity = vec![vec![0; len]; self.m];
        let mut slots: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
        self.encode(&columns, &mut slots)?;
        Ok(std::mem::take(&mut parity[wanted.as_usize() - self.k]))
    }

    /// Columns of all data shards; those that were given are copied.
    fn decode_data(&mut self, present: &[(ShardIndex, &[u8])], len: usize) -> Result<Vec<Vec<u8>>, CodeError> {
        let mut data: Vec<Vec<u8>> = vec![Vec::new(); self.k];
        let decoder = match &mut self.decoder {
            Some(decoder) => {
                decoder.reset(self.k, self.m, len).map_err(CodeError::Arguments)?;
                decoder
            }
            none => none.insert(ReedSolomonDecoder::new(self.k, self.m, len).map_err(CodeError::Arguments)?),
        };
        for &(shard, column) in present {
            let index = shard.as_usize();
            if index < self.k {
                decoder.add_original_shard(index, column).map_err(CodeError::Arguments)?;
                data[index] = column.to_vec();
            } else {
                decoder.add_recovery_shard(index - self.k, column).map_err(CodeError::Arguments)?;
            }
        }
        let result = decoder.decode().map_err(CodeError::Arguments)?;
        for (index, column) in result.restored_original_iter() {
            data[index] = column.to_vec();
        }
        Ok(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block(k: usize, m: usize, len: usize, seed: u8) -> Vec<Vec<u8>> {
        let data: Vec<Vec<u8>> = (0..k)
            .map(|shard| {
                let mut column = vec![0; len];
                blake3::Hasher::new().update(&[seed, shard as u8]).finalize_xof().fill(&mut column);
                column
            })
            .collect();
        let mut parity = vec![vec![0; len]; m];
        let columns: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
        let mut slots: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
        ErasureCode::new(k as u16, m as u16).encode(&columns, &mut slots).unwrap();
        data.into_iter().chain(parity).collect()
    }

    #[test]
    fn every_combination_of_up_to_m_lost_shards_is_restored() {
        for (k, m) in [(1, 3), (2, 1), (4, 3), (5, 2), (7, 3)] {
            let shards = block(k, m, 128, 7);
            let mut code = ErasureCode::new(k as u16, m as u16);
            for lost in 0u32..1 << (k + m) {
                if lost == 0 || lost.count_ones() > m as u32 {
                    continue;
                }
                let present: Vec<_> = (0..k + m)
                    .filter(|shard| lost >> shard & 1 == 0)
                    .map(|shard| (ShardIndex::new(shard as u16), shards[shard].as_slice()))
                    .collect();
                for wanted in (0..k + m).filter(|shard| lost >> shard & 1 == 1) {
                    let column = code.decode(&present, ShardIndex::new(wanted as u16)).unwrap();
                    assert!(column == shards[wanted], "k {k} m {m} lost {lost:b} wanted {wanted}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_column_codes_as_the_whole_does(k in 1usize..34, m in 1usize..5, units in 2usize..20, seed: u8) {
            let shards = block(k, m, units * UNIT, seed);
            let at = (seed as usize % (units - 1)) * UNIT;
            let data: Vec<&[u8]> = shards[..k].iter().map(|shard| &shard[at..at + UNIT]).collect();
            let mut parity = vec![vec![0; UNIT]; m];
            let mut slots: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
            ErasureCode::new(k as u16, m as u16).encode(&data, &mut slots).unwrap();
            for (whole, column) in shards[k..].iter().zip(&parity) {
                prop_assert_eq!(&whole[at..at + UNIT], column.as_slice());
            }
        }
    }

    #[test]
    fn too_few_shards_are_an_error() {
        let shards = block(4, 2, 64, 1);
        let present: Vec<_> = (0..3).map(|shard| (ShardIndex::new(shard), shards[shard as usize].as_slice())).collect();
        let error = ErasureCode::new(4, 2).decode(&present, ShardIndex::new(3)).unwrap_err();
        assert!(matches!(error, CodeError::TooFew { present: 3, needed: 4 }));
    }
}
