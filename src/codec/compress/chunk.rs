//! Chunks: frames as they are stored, with their headers.
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 4 | magic `BFCF` |
//! | 4 | 4 | CRC32C of everything behind it |
//! | 8 | 4 | stored length: bytes behind the header |
//! | 12 | 4 | plain length |
//! | 16 | | the stored bytes |

use super::codecs::{Compressor, Decompressors, compressor};
use super::{Codec, CodecSpec, CompressError, FRAME_LEN, sample};
use std::fmt;

/// Bytes of a chunk before the stored bytes.
pub const CHUNK_HEADER_LEN: usize = 16;
const MAGIC: [u8; 4] = *b"BFCF";
/// A frame that saves less than this part of itself is kept as it is: reading it costs nothing then.
const LEAST_SAVING: usize = 32;
/// So many frames in a row that did not shrink, and the next ones must look compressible first.
const PATIENCE: u32 = 2;
/// Of frames that do not look compressible, one of so many is tried all the same.
const RETRY: u32 = 32;

fn is_frame_len(len: usize) -> bool {
    len > 0 && len as u64 <= FRAME_LEN
}

/// Compresses frames; one for each thread.
///
/// After frames that did not shrink it looks at a sample of the next ones
/// before it spends time on them. So the bytes of a stream depend on what was
/// encoded before them: [`FrameEncoder::begin`] starts afresh, and a stream
/// whose frames are encoded in their order by one encoder after `begin`
/// is the same each time.
pub struct FrameEncoder {
    spec: CodecSpec,
    compressor: Box<dyn Compressor>,
    hopeless: Hopeless,
}

impl fmt::Debug for FrameEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameEncoder").field("spec", &self.spec).field("hopeless", &self.hopeless).finish()
    }
}

impl FrameEncoder {
    /// An encoder with its working memory.
    pub fn new(spec: CodecSpec) -> Result<Self, CompressError> {
        spec.check().map_err(CompressError::Invalid)?;
        let compressor = compressor(spec).map_err(|source| CompressError::Codec { codec: spec.codec, source })?;
        Ok(Self { spec, compressor, hopeless: Hopeless::default() })
    }

    /// Forgets the frames before: a new stream begins.
    pub fn begin(&mut self) {
        self.hopeless = Hopeless::default();
    }

    /// Appends the chunk of a frame (1 to [`FRAME_LEN`] bytes) to `out`: as it is where it does not shrink.
    /// Returns the chunk's length.
    pub fn encode(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<u32, CompressError> {
        if !is_frame_len(plain.len()) {
            return Err(CompressError::invalid(format!("a frame has 1 to {FRAME_LEN} bytes, and not {}", plain.len())));
        }
        let mut stored = plain;
        if self.hopeless.try_it(plain) {
            let smaller = self
                .compressor
                .compress(plain)
                .map_err(|source| CompressError::Codec { codec: self.spec.codec, source })?
                .filter(|smaller| smaller.len() + plain.len() / LEAST_SAVING < plain.len());
            self.hopeless.tried(smaller.is_some());
            stored = smaller.unwrap_or(plain);
        }
        Ok(put_chunk(stored, plain.len(), out))
    }
}

fn put_chunk(stored: &[u8], plain_len: usize, out: &mut Vec<u8>) -> u32 {
    // Both are at most FRAME_LEN.
    let (stored_len, plain_len) = (stored.len() as u32, plain_len as u32);
    let start = out.len();
    out.reserve(CHUNK_HEADER_LEN + stored.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&stored_len.to_le_bytes());
    out.extend_from_slice(&plain_len.to_le_bytes());
    out.extend_from_slice(stored);
    let crc = crc32c::crc32c(&out[start + 8..]);
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    CHUNK_HEADER_LEN as u32 + stored_len
}

/// Notices stretches that do not compress.
#[derive(Debug, Default)]
struct Hopeless {
    /// Frames in a row that were tried and did not shrink.
    failures: u32,
    /// Frames since then that were not tried.
    skipped: u32,
}

impl Hopeless {
    fn try_it(&mut self, plain: &[u8]) -> bool {
        if self.failures < PATIENCE || sample::frame_looks_compressible(plain) {
            return true;
        }
        self.skipped += 1;
        if self.skipped < RETRY {
            return false;
        }
        self.skipped = 0;
        true
    }

    fn tried(&mut self, shrank: bool) {
        if shrank {
            *self = Self::default();
        } else {
            self.failures = self.failures.saturating_add(1);
        }
    }
}

/// Decompresses frames; one for each thread.
#[derive(Default)]
pub struct FrameDecoder {
    decompressors: Decompressors,
}

impl fmt::Debug for FrameDecoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameDecoder").finish_non_exhaustive()
    }
}

impl FrameDecoder {
    /// Fills `out` from a whole chunk. `out` is as long as the frame must be: no codec
    /// writes, or makes room for, more. After an error `out` holds anything.
    pub fn decode(&mut self, codec: Codec, chunk: &[u8], out: &mut [u8]) -> Result<(), CompressError> {
        if !is_frame_len(out.len()) {
            return Err(CompressError::invalid(format!("a frame has 1 to {FRAME_LEN} bytes, and not {}", out.len())));
        }
        let stored = stored_bytes(chunk, out.len())?;
        if stored.len() == out.len() {
            out.copy_from_slice(stored);
            return Ok(());
        }
        self.decompressors.decompress(codec, stored, out).map_err(|source| CompressError::Codec { codec, source })
    }
}

/// The stored bytes of a chunk of a frame of `plain_len` bytes, with everything checked that the header says.
fn stored_bytes(chunk: &[u8], plain_len: usize) -> Result<&[u8], CompressError> {
    let (header, stored) = chunk.split_first_chunk::<CHUNK_HEADER_LEN>().ok_or_else(|| {
        CompressError::invalid(format!("a chunk of {} bytes has no room for its header", chunk.len()))
    })?;
    let field = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if header[..4] != MAGIC {
        return Err(CompressError::invalid("no chunk begins here"));
    }
    if field(4) != crc32c::crc32c(&chunk[8..]) {
        return Err(CompressError::invalid("the checksum of a chunk is wrong"));
    }
    let says = [field(8), field(12)].map(u64::from);
    if says != [stored.len() as u64, plain_len as u64] || stored.is_empty() || stored.len() > plain_len {
        return Err(CompressError::invalid(format!(
            "a chunk says {} stored bytes for {} plain ones, where {} lie for {plain_len}",
            says[0],
            says[1],
            stored.len()
        )));
    }
    Ok(stored)
}
