//! XTS-AES-256 (IEEE 1619-2018, NIST SP 800-38E): encryption of a disk's
//! sectors in place, without room for anything beside the bytes.
//!
//! It keeps bytes secret and does not authenticate them. Every 16 bytes (a
//! *unit*) are encrypted by themselves, in a way that depends on where they
//! lie: who sees a disk twice sees which units were changed, and who writes
//! to it can bring back an old unit or make one random, not choose it.

use crate::base::Secret;
use aes::Aes256;
use aes::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use std::fmt;

/// Bytes that are encrypted together: a block of the cipher.
pub const XTS_UNIT: usize = 16;
/// Bytes whose units have one number together, the sector's.
pub const XTS_SECTOR: usize = 4096;

const SECTOR_UNITS: u64 = (XTS_SECTOR / XTS_UNIT) as u64;
/// Units that go to the cipher at once; it interleaves eight or more.
const BATCH: usize = 32;

/// The cipher with a key.
pub struct Xts {
    data: Aes256,
    tweak: Aes256,
}

impl fmt::Debug for Xts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Xts")
    }
}

/// Multiplies by x in the field of 2^128 elements, as IEEE 1619 (5.2) orders its bits.
fn times_x(tweak: u128) -> u128 {
    (tweak << 1) ^ ((tweak >> 127) * 0x87)
}

impl Xts {
    /// With a key: its first half encrypts units, the second one the numbers of sectors.
    pub fn new(key: &Secret<64>) -> Self {
        let (data, tweak) = key.expose().split_at(32);
        let cipher = |half: &[u8]| {
            Aes256::new_from_slice(half).unwrap_or_else(|_| unreachable!("half of the key is 32 bytes long"))
        };
        Self { data: cipher(data), tweak: cipher(tweak) }
    }

    /// Encrypts whole units in place, of which the first is `first_unit` of the disk.
    ///
    /// # Panics
    ///
    /// When the length is not a multiple of [`XTS_UNIT`].
    pub fn encrypt(&self, first_unit: u64, bytes: &mut [u8]) {
        self.apply(first_unit, bytes, |cipher, units| cipher.encrypt_blocks(units));
    }

    /// Decrypts what [`encrypt`](Self::encrypt) made at the same place.
    pub fn decrypt(&self, first_unit: u64, bytes: &mut [u8]) {
        self.apply(first_unit, bytes, |cipher, units| cipher.decrypt_blocks(units));
    }

    fn apply(&self, first_unit: u64, bytes: &mut [u8], cipher: impl Fn(&Aes256, &mut [aes::Block])) {
        let (units, rest) = Array::slice_as_chunks_mut(bytes);
        assert!(rest.is_empty(), "only whole units can be encrypted");
        let mut unit = first_unit;
        let mut left = units;
        while !left.is_empty() {
            let in_sector = unit % SECTOR_UNITS;
            let count = left.len().min((SECTOR_UNITS - in_sector) as usize);
            let (sector, behind) = left.split_at_mut(count);
            let mut tweak = self.first_tweak(unit / SECTOR_UNITS, in_sector);
            for batch in sector.chunks_mut(BATCH) {
                let mut masks = [0u128; BATCH];
                for mask in &mut masks[..batch.len()] {
                    *mask = tweak;
                    tweak = times_x(tweak);
                }
                xor(batch, &masks);
                cipher(&self.data, batch);
                xor(batch, &masks);
            }
            unit += count as u64;
            left = behind;
        }
    }

    /// The tweak of a unit of a sector.
    fn first_tweak(&self, sector: u64, unit: u64) -> u128 {
        let mut block = aes::Block::from(u128::from(sector).to_le_bytes());
        self.tweak.encrypt_block(&mut block);
        (0..unit).fold(u128::from_le_bytes(block.into()), |tweak, _| times_x(tweak))
    }
}

fn xor(units: &mut [aes::Block], masks: &[u128; BATCH]) {
    for (unit, mask) in units.iter_mut().zip(masks) {
        *unit = (u128::from_le_bytes((*unit).into()) ^ mask).to_le_bytes().into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(bytes: &[u8]) -> Secret<64> {
        Secret::filled_by(|key| key.copy_from_slice(bytes))
    }

    /// IEEE 1619-2018, annex B, vector 10: sector 0xff, 512 bytes.
    #[test]
    fn the_standards_vector() {
        let key = key(&hex::decode(concat!(
            "2718281828459045235360287471352662497757247093699959574966967627",
            "3141592653589793238462643383279502884197169399375105820974944592",
        ))
        .unwrap());
        let expected = hex::decode(concat!(
            "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b",
            "5d31e276f8fe4a8d66b317f9ac683f44680a86ac35adfc3345befecb4bb188fd",
            "5776926c49a3095eb108fd1098baec70aaa66999a72a82f27d848b21d4a741b0",
            "c5cd4d5fff9dac89aeba122961d03a757123e9870f8acf1000020887891429ca",
            "2a3e7a7d7df7b10355165c8b9a6d0a7de8b062c4500dc4cd120c0f7418dae3d0",
            "b5781c34803fa75421c790dfe1de1834f280d7667b327f6c8cd7557e12ac3a0f",
            "93ec05c52e0493ef31a12d3d9260f79a289d6a379bc70c50841473d1a8cc81ec",
            "583e9645e07b8d9670655ba5bbcfecc6dc3966380ad8fecb17b6ba02469a020a",
            "84e18e8f84252070c13e9f1f289be54fbc481457778f616015e1327a02b140f1",
            "505eb309326d68378f8374595c849d84f4c333ec4423885143cb47bd71c5edae",
            "9be69a2ffeceb1bec9de244fbe15992b11b77c040f12bd8f6a975a44a0f90c29",
            "a9abc3d4d893927284c58754cce294529f8614dcd2aba991925fedc4ae74ffac",
            "6e333b93eb4aff0479da9a410e4450e0dd7ae4c6e2910900575da401fc07059f",
            "645e8b7e9bfdef33943054ff84011493c27b3429eaedb4ed5376441a77ed4385",
            "1ad77f16f541dfd269d50d6a5f14fb0aab1cbb4c1550be97f7ab4066193c4caa",
            "773dad38014bd2092fa755c824bb5e54c4f36ffda9fcea70b9c6e693e148c151",
        ))
        .unwrap();
        let plain: Vec<u8> = (0..512).map(|at| at as u8).collect();
        let xts = Xts::new(&key);
        let mut bytes = plain.clone();
        xts.encrypt(0xFF * SECTOR_UNITS, &mut bytes);
        assert_eq!(hex::encode(&bytes), hex::encode(&expected));
        xts.decrypt(0xFF * SECTOR_UNITS, &mut bytes);
        assert_eq!(bytes, plain);
    }

    proptest! {
        /// Another implementation agrees on whole sectors, and a part is what it is in the whole.
        #[test]
        fn every_run_of_units_is_encrypted_as_in_the_whole(
            secret in proptest::collection::vec(any::<u8>(), 64),
            sector in prop_oneof![0u64..5, (u64::MAX >> 8) - 5..(u64::MAX >> 8) - 3, any::<u32>().prop_map(u64::from)],
            seed: u8,
            from in 0usize..768,
            len in 0usize..768,
        ) {
            let xts = Xts::new(&key(&secret));
            let plain: Vec<u8> = (0..3 * XTS_SECTOR).map(|at| (at as u8).wrapping_mul(31) ^ seed).collect();
            let mut whole = plain.clone();
            xts.encrypt(sector * SECTOR_UNITS, &mut whole);
            let [data, tweak] = [0, 32].map(|at| Aes256::new_from_slice(&secret[at..at + 32]).unwrap());
            let mut other = plain.clone();
            let number = u128::from(sector);
            xts_mode::Xts128::new(data, tweak).encrypt_area(&mut other, XTS_SECTOR, number, xts_mode::get_tweak_default);
            prop_assert!(whole == other);
            let end = (from + len).min(768);
            let mut part = plain[from * XTS_UNIT..end * XTS_UNIT].to_vec();
            xts.encrypt(sector * SECTOR_UNITS + from as u64, &mut part);
            prop_assert!(part == whole[from * XTS_UNIT..end * XTS_UNIT]);
            xts.decrypt(sector * SECTOR_UNITS + from as u64, &mut part);
            prop_assert!(part == plain[from * XTS_UNIT..end * XTS_UNIT]);
        }
    }
}
