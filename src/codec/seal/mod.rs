//! Authenticated encryption: frames of content with the archive's cipher,
//! small metadata with AES-256-SIV.
//!
//! There are two implementations of the first two suites, and they write the
//! same bytes: `fast` (AWS-LC, with the feature `fast-crypto`) and `portable`
//! (crates in Rust alone). AES-256-SIV is portable always.

#[cfg(feature = "fast-crypto")]
mod fast;
mod metadata;
mod portable;
mod suite;
#[cfg(test)]
mod tests;

pub use metadata::{open_metadata, seal_metadata};
pub use portable::portable_cipher;
pub use suite::{CipherSuite, UnknownCipher};

use crate::base::Secret;
use std::fmt::Debug;
use std::sync::Arc;

/// Length of an authentication tag, bytes.
pub const TAG_LEN: usize = 16;
/// An authentication tag.
pub type Tag = [u8; TAG_LEN];
/// What makes a frame's encryption unique under its key: a counter.
pub type Nonce = [u8; 12];

/// Sealed bytes that were not made with this key, nonce and context, or were changed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are not authentic")]
pub struct Forged;

/// One cipher with one key.
pub trait FrameCipher: Send + Sync + Debug {
    /// Encrypts `bytes` in place. `nonce` is never used twice with one key;
    /// `context` is authenticated with the bytes and not stored.
    ///
    /// # Panics
    /// If there are more bytes than the suite can encrypt with one nonce,
    /// 64 GiB at least.
    fn seal(&self, nonce: &Nonce, context: &[u8], bytes: &mut [u8]) -> Tag;

    /// Decrypts `bytes` in place. On error they are zeros.
    fn open(&self, nonce: &Nonce, context: &[u8], bytes: &mut [u8], tag: &Tag) -> Result<(), Forged>;
}

/// The cipher of a suite with a key; suites with 256-bit keys use the first 32 bytes.
///
/// The cipher keeps what it has made of the key and overwrites it with zeros
/// when it is dropped; that memory is not locked, unlike a [`Secret`]'s.
pub fn frame_cipher(suite: CipherSuite, key: &Secret<64>) -> Arc<dyn FrameCipher> {
    #[cfg(feature = "fast-crypto")]
    if let Some(cipher) = fast::FastCipher::new(suite, key) {
        return Arc::new(cipher);
    }
    portable_cipher(suite, key)
}
