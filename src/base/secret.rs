//! Key material in memory.

use super::locked::{POOL, SLOT_LEN, Slot};
use ctutils::CtEq;
use std::fmt;

/// `N` bytes of key material (64 at most): zeroised when dropped, compared in
/// constant time, and never printed.
///
/// They lie in memory that is locked (`mlock`), so that it is not written to
/// swap, and that is not in core dumps (Linux, `MADV_DONTDUMP`). Where the
/// system refuses to lock (`RLIMIT_MEMLOCK`), they lie in other memory, and
/// that is logged once. This covers these bytes, not the copies that a use of
/// them makes in registers, on stacks and in ciphers; and hibernation and
/// snapshots of a virtual machine write all memory to disk.
pub struct Secret<const N: usize>(Slot);

impl<const N: usize> Secret<N> {
    /// A secret that `fill` writes in place, so that no copy is left elsewhere.
    pub fn filled_by(fill: impl FnOnce(&mut [u8; N])) -> Self {
        let mut secret = Self::empty();
        fill(secret.0.bytes_mut().first_chunk_mut().unwrap_or_else(|| unreachable!("checked when this was compiled")));
        secret
    }

    fn empty() -> Self {
        const { assert!(N <= SLOT_LEN, "a secret has 64 bytes at most") };
        Self(POOL.take())
    }

    /// Bytes of the system's random number generator.
    ///
    /// # Errors
    /// If the system has none.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut outcome = Ok(());
        let secret = Self::filled_by(|bytes| outcome = getrandom::fill(bytes));
        outcome.map(|()| secret)
    }

    /// A copy of `bytes`; `None` unless they are `N`. The caller's are left as they are.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; N] = bytes.try_into().ok()?;
        Some(Self::filled_by(|own| own.copy_from_slice(bytes)))
    }

    /// The bytes.
    pub fn expose(&self) -> &[u8; N] {
        self.0.bytes().first_chunk().unwrap_or_else(|| unreachable!("checked when this was compiled"))
    }

    /// Whether both are the same bytes, in a time that does not depend on them.
    pub fn ct_eq(&self, other: &Self) -> bool {
        self.expose()[..].ct_eq(&other.expose()[..]).into()
    }
}

impl<const N: usize> Clone for Secret<N> {
    fn clone(&self) -> Self {
        Self::filled_by(|bytes| bytes.copy_from_slice(self.expose()))
    }
}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret<{N}>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equality_sees_every_bit() {
        let secret = Secret::<32>::random().unwrap();
        assert!(secret.ct_eq(&secret.clone()));
        for bit in 0..256 {
            let mut bytes = *secret.expose();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!secret.ct_eq(&Secret::from_slice(&bytes).unwrap()), "bit {bit}");
        }
    }

    #[test]
    fn random_secrets_differ() {
        let secrets: Vec<Secret<16>> = (0..1000).map(|_| Secret::random().unwrap()).collect();
        let mut bytes: Vec<&[u8; 16]> = secrets.iter().map(Secret::expose).collect();
        bytes.sort_unstable();
        assert!(bytes.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn a_slice_of_another_length_is_no_secret() {
        for len in (0..100).filter(|len| *len != 32) {
            assert!(Secret::<32>::from_slice(&vec![1; len]).is_none());
        }
        assert_eq!(Secret::<3>::from_slice(b"abc").unwrap().expose(), b"abc");
    }

    #[test]
    fn a_secret_begins_with_zeros_whoever_had_its_place() {
        drop(Secret::<64>::filled_by(|bytes| bytes.fill(0xee)));
        for _ in 0..300 {
            drop(Secret::<64>::filled_by(|bytes| assert_eq!(*bytes, [0; 64])));
        }
        let secrets: Vec<Secret<64>> = (0..300).map(|_| Secret::filled_by(|_| ())).collect();
        assert!(secrets.iter().all(|secret| *secret.expose() == [0; 64]));
    }

    #[test]
    fn it_is_not_printed() {
        assert_eq!(format!("{:?}", Secret::<32>::filled_by(|bytes| bytes.fill(7))), "Secret<32>");
    }
}
