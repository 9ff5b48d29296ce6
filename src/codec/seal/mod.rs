//! Authenticated encryption: frames of content with the archive's cipher,
//! small metadata with AES-256-SIV.

use crate::base::Secret;
use serde::{Deserialize, Serialize};
use std::fmt::Debug;
use std::sync::Arc;

/// Length of an authentication tag, bytes.
pub const TAG_LEN: usize = 16;
/// An authentication tag.
pub type Tag = [u8; TAG_LEN];
/// What makes a frame's encryption unique under its key: a counter.
pub type Nonce = [u8; 12];

/// With what contents are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CipherSuite {
    /// AES-256 in Galois/Counter Mode (NIST SP 800-38D).
    Aes256Gcm,
    /// ChaCha20-Poly1305 (RFC 8439).
    #[serde(rename = "chacha20-poly1305")]
    Chacha20Poly1305,
    /// AES-SIV-CMAC with a 512-bit key (RFC 5297): a repeated nonce shows only that frames are equal.
    Aes256Siv,
}

/// Sealed bytes that were not made with this key, nonce and context, or were changed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are not authentic")]
pub struct Forged;

/// One cipher with one key.
pub trait FrameCipher: Send + Sync + Debug {
    /// Encrypts `bytes` in place. `nonce` is never used twice with one key;
    /// `context` is authenticated with the bytes and not stored.
    fn seal(&self, nonce: &Nonce, context: &[u8], bytes: &mut [u8]) -> Tag;

    /// Decrypts `bytes` in place. On error they hold no plaintext.
    fn open(&self, nonce: &Nonce, context: &[u8], bytes: &mut [u8], tag: &Tag) -> Result<(), Forged>;
}

/// The cipher of a suite with a key; suites with 256-bit keys use the first 32 bytes.
pub fn frame_cipher(suite: CipherSuite, key: &Secret<64>) -> Arc<dyn FrameCipher> {
    let _ = (suite, key);
    unimplemented!("seal helper")
}

/// Encrypts small metadata with AES-256-SIV and no nonce: the tag, then as
/// many bytes as `plain` has. Equal bytes in the same `context` give equal
/// results; so the context says where they stand.
pub fn seal_metadata(key: &Secret<64>, context: &[u8], plain: &[u8]) -> Vec<u8> {
    let _ = (key, context, plain);
    unimplemented!("seal helper")
}

/// What [`seal_metadata`] encrypted.
pub fn open_metadata(key: &Secret<64>, context: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Forged> {
    let _ = (key, context, sealed);
    unimplemented!("seal helper")
}
