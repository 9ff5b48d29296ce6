//! One shard as a sum of multiples of k others.
//!
//! The code is linear over GF(2^16): for a given set of k present shards,
//! each element of the wanted shard is the sum of the present elements at its
//! place, each multiplied by a constant. A decode call finds the constants
//! once (it costs some half a millisecond however short, for a transform over
//! the whole field); after that a column costs k multiplications, with no
//! working memory to speak of. `cargo bench --bench core`, "degraded", shows
//! what it buys.

use super::erasure::{CodeError, ErasureCode, UNIT};
use crate::base::ShardIndex;
use rayon::prelude::*;
use reed_solomon_simd::engine::{DefaultEngine, Engine, GfElement, tables};

/// Elements of a unit: their low bytes stand first, their high bytes behind.
const ELEMENTS: usize = UNIT / 2;
/// Bytes of the result that one task computes.
const TASK: usize = 16 * 1024;

/// How to compute one shard of a block from k others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Combination {
    /// The present shards, and the logarithm of each one's factor; `None` for the factor zero.
    terms: Vec<(ShardIndex, Option<GfElement>)>,
}

impl Combination {
    /// Finds the factors for `wanted`, given the shards `present` (exactly k, all different).
    pub fn new(code: &mut ErasureCode, present: &[ShardIndex], wanted: ShardIndex) -> Result<Self, CodeError> {
        // Present shard i is 1 at element i and 0 elsewhere: element i of the result is its factor.
        let len = present.len().div_ceil(ELEMENTS) * UNIT;
        let ones: Vec<Vec<u8>> = (0..present.len())
            .map(|element| {
                let mut column = vec![0; len];
                column[element / ELEMENTS * UNIT + element % ELEMENTS] = 1;
                column
            })
            .collect();
        let columns: Vec<(ShardIndex, &[u8])> =
            present.iter().zip(&ones).map(|(shard, column)| (*shard, column.as_slice())).collect();
        let factors = code.decode(&columns, wanted)?;
        let log = &tables::get_exp_log().log;
        let terms = present
            .iter()
            .enumerate()
            .map(|(element, shard)| {
                let low = element / ELEMENTS * UNIT + element % ELEMENTS;
                let factor = u16::from_le_bytes([factors[low], factors[low + ELEMENTS]]);
                (*shard, (factor != 0).then(|| log[usize::from(factor)]))
            })
            .collect();
        Ok(Self { terms })
    }

    /// The shards it needs, in the order in which [`Self::apply`] takes them.
    pub fn present(&self) -> impl Iterator<Item = ShardIndex> {
        self.terms.iter().map(|(shard, _)| *shard)
    }

    /// The wanted shard's column, from the present shards' columns, all of
    /// one length, a multiple of [`UNIT`]. They must have been verified.
    pub fn apply(&self, columns: &[&[u8]], result: &mut [u8]) {
        let engine = DefaultEngine::new();
        result.par_chunks_mut(TASK).enumerate().for_each(|(task, result)| {
            let start = task * TASK;
            let mut product = [[0u8; UNIT]; TASK / UNIT];
            let product = &mut product[..result.len() / UNIT];
            result.fill(0);
            for ((_, factor), column) in self.terms.iter().zip(columns) {
                let Some(factor) = factor else { continue };
                product.as_flattened_mut().copy_from_slice(&column[start..start + result.len()]);
                engine.mul(product, *factor);
                for (sum, term) in result.iter_mut().zip(product.as_flattened()) {
                    *sum ^= term;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn it_gives_what_the_decoder_gives(k in 2u16..70, m in 1u16..5, units in 1usize..600, seed: u64) {
            let len = units * UNIT;
            let data: Vec<Vec<u8>> = (0..k)
                .map(|shard| {
                    let mut column = vec![0; len];
                    blake3::Hasher::new().update(&seed.to_le_bytes()).update(&shard.to_le_bytes()).finalize_xof().fill(&mut column);
                    column
                })
                .collect();
            let mut parity = vec![vec![0; len]; usize::from(m)];
            let mut code = ErasureCode::new(k, m);
            let columns: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
            let mut slots: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
            code.encode(&columns, &mut slots).unwrap();
            let shards: Vec<Vec<u8>> = data.into_iter().chain(parity).collect();
            // Any k of the others, beginning at a place that the seed chooses.
            let wanted = (seed % u64::from(k + m)) as u16;
            let present: Vec<ShardIndex> = (1..=k).map(|step| ShardIndex::new((wanted + step) % (k + m))).collect();
            let wanted = ShardIndex::new(wanted);
            let combination = Combination::new(&mut code, &present, wanted).unwrap();
            let columns: Vec<&[u8]> = combination.present().map(|shard| shards[shard.as_usize()].as_slice()).collect();
            let mut result = vec![0xff; len];
            combination.apply(&columns, &mut result);
            prop_assert!(result == shards[wanted.as_usize()]);
        }
    }
}
