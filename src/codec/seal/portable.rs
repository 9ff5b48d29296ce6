//! The suites by crates in Rust alone.

use super::{CipherSuite, Forged, FrameCipher, Nonce, Tag};
use crate::base::Secret;
use aes_gcm::Aes256Gcm;
use aes_siv::siv::Aes256Siv;
use chacha20poly1305::ChaCha20Poly1305;
use chacha20poly1305::aead::consts::{U12, U16};
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use std::fmt;
use std::sync::Arc;
use zeroize::Zeroize;

/// Like [`frame_cipher`](super::frame_cipher), with crates in Rust alone whatever the features are.
///
/// What is overwritten with zeros on drop: of AES-256-GCM the key schedule
/// (crate `aes`) and the powers of the GHASH key (`ghash`, `polyval`); of
/// ChaCha20-Poly1305 the key. AES-256-SIV keeps nothing but a [`Secret`] and
/// makes the key schedules for every frame; those and the state of CMAC are
/// overwritten after it (`aes`, `aes-siv`, `cmac`).
pub fn portable_cipher(suite: CipherSuite, key: &Secret<64>) -> Arc<dyn FrameCipher> {
    match suite {
        CipherSuite::Aes256Gcm => Arc::new(Portable::<Aes256Gcm>::new(suite, key)),
        CipherSuite::Chacha20Poly1305 => Arc::new(Portable::<ChaCha20Poly1305>::new(suite, key)),
        CipherSuite::Aes256Siv => Arc::new(SivCipher { key: key.clone() }),
    }
}

/// A cipher with a 256-bit key.
struct Portable<C> {
    suite: CipherSuite,
    cipher: C,
}

impl<C: KeyInit> Portable<C> {
    fn new(suite: CipherSuite, key: &Secret<64>) -> Self {
        let (used, _) = key.expose().split_at(32);
        let cipher = C::new_from_slice(used).unwrap_or_else(|_| unreachable!("{suite} has a key of 32 bytes"));
        Self { suite, cipher }
    }
}

impl<C> fmt::Debug for Portable<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (portable)", self.suite)
    }
}

impl<C: AeadInOut<NonceSize = U12, TagSize = U16> + Send + Sync> FrameCipher for Portable<C> {
    fn seal(&self, nonce: &Nonce, context: &[u8], bytes: &mut [u8]) -> Tag {
        let len = bytes.len();
        match self.cipher.encrypt_inout_detached(nonce.into(), context, bytes.into()) {
            Ok(tag) => tag.into(),
            Err(_) => panic!("{len} bytes are too many for one frame of {}", self.suite),
        }
    }

    fn open(&self, nonce: &Nonce, context: &[u8], bytes: &mut [u8], tag: &Tag) -> Result<(), Forged> {
        let opened = self.cipher.decrypt_inout_detached(nonce.into(), context, (&mut *bytes).into(), tag.into());
        opened.map_err(|_| {
            bytes.zeroize();
            Forged
        })
    }
}

/// AES-256-SIV with the associated data (context, nonce).
struct SivCipher {
    key: Secret<64>,
}

impl fmt::Debug for SivCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (portable)", CipherSuite::Aes256Siv)
    }
}

impl FrameCipher for SivCipher {
    fn seal(&self, nonce: &Nonce, context: &[u8], bytes: &mut [u8]) -> Tag {
        // RFC 5297, section 3: the nonce is the last of the associated data.
        siv_seal(&self.key, &[context, nonce], bytes)
    }

    fn open(&self, nonce: &Nonce, context: &[u8], bytes: &mut [u8], tag: &Tag) -> Result<(), Forged> {
        siv_open(&self.key, &[context, nonce], bytes, tag)
    }
}

/// AES-SIV-CMAC in place with any number of strings of associated data that the caller has fixed.
pub(super) fn siv_seal(key: &Secret<64>, associated: &[&[u8]], bytes: &mut [u8]) -> Tag {
    let sealed = Aes256Siv::new(key.expose().into()).encrypt_inout_detached(associated, bytes.into());
    sealed.unwrap_or_else(|_| unreachable!("AES-SIV takes {} strings of associated data", associated.len())).into()
}

/// What [`siv_seal`] encrypted; zeros if it did not.
pub(super) fn siv_open(key: &Secret<64>, associated: &[&[u8]], bytes: &mut [u8], tag: &Tag) -> Result<(), Forged> {
    let mut siv = Aes256Siv::new(key.expose().into());
    siv.decrypt_inout_detached(associated, (&mut *bytes).into(), tag.into()).map_err(|_| {
        bytes.zeroize();
        Forged
    })
}
