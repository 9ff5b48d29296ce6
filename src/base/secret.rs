//! Key material in memory.

use std::fmt;
use zeroize::Zeroizing;

/// `N` bytes of key material: zeroised when dropped, compared in constant
/// time, and never printed.
pub struct Secret<const N: usize>(Box<Zeroizing<[u8; N]>>);

impl<const N: usize> Secret<N> {
    /// A secret that `fill` writes in place, so that no copy is left elsewhere.
    pub fn filled_by(fill: impl FnOnce(&mut [u8; N])) -> Self {
        let mut bytes = Box::new(Zeroizing::new([0; N]));
        fill(&mut bytes);
        Self(bytes)
    }

    /// The bytes.
    pub fn expose(&self) -> &[u8; N] {
        &self.0
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
