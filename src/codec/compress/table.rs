//! The end of a stream: where its chunks lie.
//!
//! The table is a `u32` for each chunk, its length with the header. The
//! footer follows it and ends the stream:
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 4 | magic `BFCT` |
//! | 4 | 4 | CRC32C of the table and of the footer behind it |
//! | 8 | 1 | version, 1 |
//! | 9 | 1 | codec: 1 zstd, 2 LZ4, 3 gzip, 4 Brotli |
//! | 10 | 2 | 0 |
//! | 12 | 4 | frame length |
//! | 16 | 8 | plain length of the stream |
//! | 24 | 8 | number of frames |

use super::{CHUNK_HEADER_LEN, Codec, CodecSpec, CompressError, FRAME_LEN, frame_count};
use std::ops::Range;

const MAGIC: [u8; 4] = *b"BFCT";
const VERSION: u8 = 1;
const FOOTER_LEN: usize = 32;
/// Bytes of a chunk's length in the table.
const ENTRY_LEN: usize = 4;

/// Where the chunks of a stream lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameTable {
    plain_len: u64,
    /// Where each chunk begins, and where the last one ends.
    starts: Vec<u64>,
}

impl FrameTable {
    /// The end of a stream whose chunks have these lengths: table and footer.
    pub fn tail_bytes(spec: CodecSpec, plain_len: u64, chunks: &[u32]) -> Vec<u8> {
        debug_assert_eq!(frame_count(plain_len), chunks.len() as u64);
        let table = chunks.len() * ENTRY_LEN;
        let mut tail = Vec::with_capacity(table + FOOTER_LEN);
        chunks.iter().for_each(|len| tail.extend_from_slice(&len.to_le_bytes()));
        tail.extend_from_slice(&MAGIC);
        tail.extend_from_slice(&[0; 4]);
        tail.extend_from_slice(&meaning(spec.codec, plain_len));
        let crc = checksum(&tail[..table], &tail[table + 8..]);
        tail[table + 4..table + 8].copy_from_slice(&crc.to_le_bytes());
        tail
    }

    /// Length of table and footer of a stream of `plain_len` plain bytes.
    pub fn tail_len(plain_len: u64) -> u64 {
        frame_count(plain_len) * ENTRY_LEN as u64 + FOOTER_LEN as u64
    }

    /// Parses the last [`tail_len`](Self::tail_len) bytes of a stream. `stream_len` and
    /// `plain_len` are what the manifest says; everything is checked against them.
    pub fn parse(codec: Codec, stream_len: u64, plain_len: u64, tail: &[u8]) -> Result<Self, CompressError> {
        let expected = Self::tail_len(plain_len);
        if tail.len() as u64 != expected || stream_len < expected {
            return Err(CompressError::invalid(format!(
                "{} bytes of a stream of {stream_len} are no table and footer of {plain_len} plain bytes, which have {expected}",
                tail.len()
            )));
        }
        let (table, footer) = tail.split_at(tail.len() - FOOTER_LEN);
        if footer[..4] != MAGIC {
            return Err(CompressError::invalid("no footer is where it must be"));
        }
        let crc = u32::from_le_bytes([footer[4], footer[5], footer[6], footer[7]]);
        if crc != checksum(table, &footer[8..]) {
            return Err(CompressError::invalid("the checksum of the frame table is wrong"));
        }
        if footer[8] != VERSION {
            return Err(CompressError::invalid(format!("version {} is newer than this program", footer[8])));
        }
        if footer[8..] != meaning(codec, plain_len) {
            return Err(CompressError::invalid(format!(
                "the footer is not the one of {plain_len} bytes in {codec} frames of {FRAME_LEN}"
            )));
        }
        let mut starts = Vec::with_capacity(table.len() / ENTRY_LEN + 1);
        let (mut at, mut plain_left) = (0u64, plain_len);
        starts.push(at);
        for entry in table.chunks_exact(ENTRY_LEN) {
            let len = u64::from(u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]));
            let plain = plain_left.min(FRAME_LEN);
            plain_left -= plain;
            let stored = len.checked_sub(CHUNK_HEADER_LEN as u64).filter(|stored| (1..=plain).contains(stored));
            // At most 2^47 lengths of at most 2^18: no overflow.
            at += stored.map(|_| len).ok_or_else(|| {
                CompressError::invalid(format!("a chunk of {len} bytes cannot hold a frame of {plain}"))
            })?;
            starts.push(at);
        }
        if at != stream_len - expected {
            return Err(CompressError::invalid(format!(
                "the chunks of the table have {at} bytes, those of the stream {}",
                stream_len - expected
            )));
        }
        Ok(Self { plain_len, starts })
    }

    /// Number of frames.
    pub fn frames(&self) -> u64 {
        self.starts.len() as u64 - 1
    }

    /// Where a frame's chunk lies in the stream.
    pub fn chunk(&self, frame: u64) -> Option<Range<u64>> {
        let frame = usize::try_from(frame).ok()?;
        Some(*self.starts.get(frame)?..*self.starts.get(frame.checked_add(1)?)?)
    }

    /// Where a frame's plain bytes lie in the content.
    pub fn plain(&self, frame: u64) -> Option<Range<u64>> {
        let start = frame.checked_mul(FRAME_LEN).filter(|&start| start < self.plain_len)?;
        Some(start..self.plain_len.min(start.saturating_add(FRAME_LEN)))
    }
}

/// What the footer says, without magic and checksum.
fn meaning(codec: Codec, plain_len: u64) -> [u8; FOOTER_LEN - 8] {
    let mut bytes = [0; FOOTER_LEN - 8];
    bytes[0] = VERSION;
    bytes[1] = codec.id();
    bytes[4..8].copy_from_slice(&(FRAME_LEN as u32).to_le_bytes());
    bytes[8..16].copy_from_slice(&plain_len.to_le_bytes());
    bytes[16..].copy_from_slice(&frame_count(plain_len).to_le_bytes());
    bytes
}

fn checksum(table: &[u8], footer: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(table), footer)
}
