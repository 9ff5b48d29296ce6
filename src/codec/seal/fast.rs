//! AES-256-GCM and ChaCha20-Poly1305 by AWS-LC.

use super::{CipherSuite, Forged, FrameCipher, Nonce, Tag};
use crate::base::Secret;
use aws_lc_rs::aead::{self, Aad, LessSafeKey, UnboundKey};
use std::fmt;
use zeroize::Zeroize;

/// A suite with a 256-bit key. AWS-LC keeps the key schedule in one allocation
/// of its own and overwrites that when it is freed (`OPENSSL_free`).
pub(super) struct FastCipher {
    suite: CipherSuite,
    key: LessSafeKey,
}

impl FastCipher {
    /// `None` for a suite that AWS-LC does not have.
    pub(super) fn new(suite: CipherSuite, key: &Secret<64>) -> Option<Self> {
        let algorithm = match suite {
            CipherSuite::Aes256Gcm => &aead::AES_256_GCM,
            CipherSuite::Chacha20Poly1305 => &aead::CHACHA20_POLY1305,
            CipherSuite::Aes256Siv => return None,
        };
        let (used, _) = key.expose().split_at(32);
        let key = UnboundKey::new(algorithm, used).ok()?;
        Some(Self { suite, key: LessSafeKey::new(key) })
    }
}

impl fmt::Debug for FastCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (fast)", self.suite)
    }
}

impl FrameCipher for FastCipher {
    fn seal(&self, nonce: &Nonce, context: &[u8], bytes: &mut [u8]) -> Tag {
        let len = bytes.len();
        let nonce = aead::Nonce::assume_unique_for_key(*nonce);
        let sealed = self.key.seal_in_place_separate_tag(nonce, Aad::from(context), bytes);
        match sealed.map(|tag| tag.as_ref().try_into()) {
            Ok(Ok(tag)) => tag,
            _ => panic!("{len} bytes are too many for one frame of {}", self.suite),
        }
    }

    fn open(&self, nonce: &Nonce, context: &[u8], bytes: &mut [u8], tag: &Tag) -> Result<(), Forged> {
        let nonce = aead::Nonce::assume_unique_for_key(*nonce);
        let opened = self.key.open_in_place_separate_tag(nonce, Aad::from(context), tag, bytes).is_ok();
        if opened {
            return Ok(());
        }
        bytes.zeroize();
        Err(Forged)
    }
}
