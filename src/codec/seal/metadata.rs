//! Small metadata: AES-256-SIV without a nonce.

use super::portable::{siv_open, siv_seal};
use super::{Forged, TAG_LEN};
use crate::base::Secret;
use zeroize::Zeroizing;

/// Encrypts small metadata with AES-256-SIV (RFC 5297) and no nonce: the tag,
/// then as many bytes as `plain` has. Equal bytes in the same `context` give
/// equal results; so the context says where they stand. It is the one string
/// of associated data.
pub fn seal_metadata(key: &Secret<64>, context: &[u8], plain: &[u8]) -> Vec<u8> {
    // Of the right capacity: growing would leave plaintext behind.
    let mut sealed = Vec::with_capacity(TAG_LEN + plain.len());
    sealed.extend_from_slice(&[0; TAG_LEN]);
    sealed.extend_from_slice(plain);
    let (head, bytes) = sealed.split_at_mut(TAG_LEN);
    head.copy_from_slice(&siv_seal(key, &[context], bytes));
    sealed
}

/// What [`seal_metadata`] encrypted.
pub fn open_metadata(key: &Secret<64>, context: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Forged> {
    let (tag, bytes) = sealed.split_first_chunk().ok_or(Forged)?;
    let mut plain = Zeroizing::new(bytes.to_vec());
    siv_open(key, &[context], &mut plain, tag)?;
    Ok(std::mem::take(&mut plain))
}
