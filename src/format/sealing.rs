//! Sealed segments: how an encrypted segment lies in its file.
//!
//! A segment's stream (its part of the content, or that compressed) is padded
//! with zeros and cut into frames of one leaf, each encrypted in place. The
//! file is the ciphertext, then the frames' tags, then a footer. So a place
//! in the stream is the same place in the file, and a frame is a leaf.

use super::FormatError;
use super::binary::Reader;
use crate::base::{ArchiveId, LEAF_SIZE, SegmentIndex};
use crate::codec::compress::Codec;
use crate::codec::seal::{CipherSuite, Nonce, TAG_LEN, Tag};

const WHAT: &str = "sealed segment";
const MAGIC: &[u8; 8] = b"BFSEAL1\n";
/// Bytes of every frame but the last.
pub const FRAME_LEN: u64 = LEAF_SIZE;
/// Length of the footer, bytes.
pub const FOOTER_LEN: u64 = 64;
/// The least length to which contents are padded, bytes.
const MIN_PADDED: u64 = 4096;

/// The length to which `len` bytes are padded before they are encrypted:
/// Padmé (Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and
/// Communication with PURBs", PETS 2019), at least 4096. It lets at most
/// O(log log len) bits of the length be seen, and costs at most 12 %, less the longer the content is.
pub fn padded_len(len: u64) -> u64 {
    if len <= MIN_PADDED {
        return MIN_PADDED;
    }
    let exponent = u64::from(len.ilog2());
    let kept = u64::from(exponent.ilog2()) + 1;
    let grain = 1u64 << (exponent - kept);
    len.div_ceil(grain).saturating_mul(grain)
}

/// Number of frames of a padded stream.
pub fn frame_count(padded: u64) -> u64 {
    padded.div_ceil(FRAME_LEN)
}

/// Length of the file of a segment whose padded stream has `padded` bytes.
pub fn sealed_len(padded: u64) -> u64 {
    padded + tail_len(padded)
}

/// Length of what follows the ciphertext: tags and footer.
pub fn tail_len(padded: u64) -> u64 {
    frame_count(padded) * TAG_LEN as u64 + FOOTER_LEN
}

/// The padded length of the stream in a file of `len` bytes; `None` where no file is that long.
pub fn padded_of_sealed(len: u64) -> Option<u64> {
    // Each whole frame takes FRAME_LEN + TAG_LEN bytes; the last one may be shorter.
    let body = len.checked_sub(FOOTER_LEN)?;
    let frames = body.div_ceil(FRAME_LEN + TAG_LEN as u64);
    let padded = body.checked_sub(frames * TAG_LEN as u64)?;
    (padded > 0 && sealed_len(padded) == len).then_some(padded)
}

/// The end of a sealed segment's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealFooter {
    /// What makes the segment's key a fresh one.
    pub salt: [u8; 32],
    /// The cipher; the manifest says the same.
    pub suite: CipherSuite,
    /// The number of the epoch; the manifest says the same.
    pub epoch: u32,
}

impl SealFooter {
    /// Magic, salt, epoch (u32), suite (u8), zeros, CRC32C of the bytes before it.
    pub fn to_bytes(&self) -> [u8; FOOTER_LEN as usize] {
        let mut bytes = [0; FOOTER_LEN as usize];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..40].copy_from_slice(&self.salt);
        bytes[40..44].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[44] = suite_code(self.suite);
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Parses the last [`FOOTER_LEN`] bytes of a file.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FormatError> {
        if bytes.len() as u64 != FOOTER_LEN {
            return Err(FormatError::Truncated { what: WHAT, at: bytes.len() as u64 });
        }
        let mut reader = Reader::new(WHAT, bytes);
        if &reader.array()? != MAGIC {
            return Err(reader.invalid("it has no footer"));
        }
        let salt = reader.array()?;
        let epoch = reader.u32()?;
        let suite = match reader.u8()? {
            1 => CipherSuite::Aes256Gcm,
            2 => CipherSuite::Chacha20Poly1305,
            3 => CipherSuite::Aes256Siv,
            other => return Err(reader.invalid(format!("cipher {other} is unknown"))),
        };
        if reader.take(15)?.iter().any(|&byte| byte != 0) {
            return Err(reader.invalid("unused bytes of its footer are not zero"));
        }
        if reader.u32()? != crc32c::crc32c(&bytes[..60]) {
            return Err(FormatError::Checksum { what: WHAT });
        }
        Ok(Self { salt, suite, epoch })
    }
}

/// The number of a suite in footers and contexts.
pub(super) fn suite_code(suite: CipherSuite) -> u8 {
    match suite {
        CipherSuite::Aes256Gcm => 1,
        CipherSuite::Chacha20Poly1305 => 2,
        CipherSuite::Aes256Siv => 3,
    }
}

/// What a sealed segment is: all that is authenticated with each of its frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentContext {
    /// The archive.
    pub archive: ArchiveId,
    /// The object's line.
    pub line: [u8; 16],
    /// The number of the segment in the object.
    pub segment: SegmentIndex,
    /// The number of the epoch.
    pub epoch: u32,
    /// The cipher.
    pub suite: CipherSuite,
    /// How the segment's part of the content is compressed.
    pub codec: Option<Codec>,
    /// Length of that part, bytes.
    pub plain_len: u64,
    /// Length of the stream before padding, bytes.
    pub stream_len: u64,
    /// Length of the padded stream, bytes.
    pub padded_len: u64,
}

impl SegmentContext {
    /// What is authenticated with a frame: `blockframe frame 1`, a newline,
    /// archive (16 bytes), line (16), segment (u32), epoch (u32), cipher (u8),
    /// codec (u8: none 0, zstd 1, LZ4 2, gzip 3, Brotli 4), the three lengths
    /// (u64), the frame's number (u32), and 1 in the last frame, else 0 (u8);
    /// integers little-endian.
    pub fn of_frame(&self, frame: u32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(96);
        bytes.extend_from_slice(b"blockframe frame 1\n");
        bytes.extend_from_slice(self.archive.as_bytes());
        bytes.extend_from_slice(&self.line);
        bytes.extend_from_slice(&self.segment.get().to_le_bytes());
        bytes.extend_from_slice(&self.epoch.to_le_bytes());
        bytes.push(suite_code(self.suite));
        bytes.push(match self.codec {
            None => 0,
            Some(Codec::Zstd) => 1,
            Some(Codec::Lz4) => 2,
            Some(Codec::Gzip) => 3,
            Some(Codec::Brotli) => 4,
        });
        for len in [self.plain_len, self.stream_len, self.padded_len] {
            bytes.extend_from_slice(&len.to_le_bytes());
        }
        bytes.extend_from_slice(&frame.to_le_bytes());
        bytes.push(u8::from(u64::from(frame) + 1 == frame_count(self.padded_len)));
        bytes
    }
}

/// A frame's nonce: its number (u32, little-endian), then zeros. The key is
/// the segment's own, and each of its frames is encrypted once.
pub fn nonce_of(frame: u32) -> Nonce {
    let mut nonce = Nonce::default();
    nonce[..4].copy_from_slice(&frame.to_le_bytes());
    nonce
}

/// The tags of a segment, from what follows its ciphertext.
pub fn parse_tail(padded: u64, tail: &[u8]) -> Result<(Vec<Tag>, SealFooter), FormatError> {
    if tail.len() as u64 != tail_len(padded) {
        return Err(FormatError::Truncated { what: WHAT, at: tail.len() as u64 });
    }
    let (tags, footer) = tail.split_at(tail.len() - FOOTER_LEN as usize);
    let (tags, _) = tags.as_chunks::<TAG_LEN>();
    Ok((tags.to_vec(), SealFooter::from_bytes(footer)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_padded_length_follows_from_the_files(len in 0u64..1 << 34) {
            let padded = padded_len(len);
            prop_assert!(padded >= len);
            prop_assert!(len <= MIN_PADDED || padded - len <= len / 8);
            prop_assert_eq!(padded_len(padded), padded);
            prop_assert_eq!(padded_of_sealed(sealed_len(padded)), Some(padded));
        }

        #[test]
        fn any_length_of_a_stream_follows_from_its_file(padded in 1u64..200_000) {
            prop_assert_eq!(padded_of_sealed(sealed_len(padded)), Some(padded));
        }
    }

    #[test]
    fn padding_leaves_few_lengths() {
        // Of the lengths between 1 and 2 MiB, only 32 are seen.
        let mut seen: Vec<u64> = (1 << 20..2 << 20).step_by(997).map(padded_len).collect();
        seen.dedup();
        assert!(seen.len() <= 33, "{}", seen.len());
    }

    #[test]
    fn every_changed_byte_of_a_footer_is_noticed() {
        let footer = SealFooter { salt: [7; 32], suite: CipherSuite::Aes256Siv, epoch: 3 };
        let bytes = footer.to_bytes();
        assert_eq!(SealFooter::from_bytes(&bytes).unwrap(), footer);
        for at in 0..bytes.len() {
            let mut bad = bytes;
            bad[at] ^= 0x40;
            assert!(SealFooter::from_bytes(&bad).is_err(), "{at}");
        }
    }
}
