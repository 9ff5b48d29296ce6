//! Compressed streams: a content cut into frames that are compressed by
//! themselves, with a table that says where each one lies.
//!
//! stream = chunk for each frame, then the table, then the footer. A chunk is
//! a header (magic, CRC32C, stored length, plain length) and the stored
//! bytes: a complete zstd frame, LZ4 frame, gzip member or Brotli stream, or,
//! when the lengths are equal, the plain bytes themselves.
//!
//! The checksums find accidents, not attackers: what a stream says is
//! believed only because the Merkle tree and the manifest vouch for its bytes.
//! Even so no stream, however made, writes or allocates beyond the lengths
//! that the caller gives.

mod chunk;
mod codecs;
mod sample;
mod spec;
mod table;

pub use chunk::{CHUNK_HEADER_LEN, FrameDecoder, FrameEncoder};
pub use sample::looks_compressible;
pub use spec::{Codec, CodecSpec};
pub use table::FrameTable;

/// Plain bytes of every frame but the last.
pub const FRAME_LEN: u64 = 128 * 1024;

/// Why a stream cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CompressError {
    /// Its structure is not what a writer makes.
    #[error("compressed stream: {0}")]
    Invalid(String),
    /// The codec refused.
    #[error("the {codec} codec failed")]
    Codec {
        /// Which.
        codec: Codec,
        /// What it said.
        #[source]
        source: std::io::Error,
    },
}

impl CompressError {
    fn invalid(why: impl Into<String>) -> Self {
        Self::Invalid(why.into())
    }
}

/// Number of frames of a content of `plain_len` bytes.
pub fn frame_count(plain_len: u64) -> u64 {
    plain_len.div_ceil(FRAME_LEN)
}

/// Length of the longest stream of a content of `plain_len` bytes: all of its
/// frames are kept as they are. `None` where that is more than a `u64` holds.
pub fn stream_bound(plain_len: u64) -> Option<u64> {
    let headers = frame_count(plain_len).checked_mul(CHUNK_HEADER_LEN as u64)?;
    plain_len.checked_add(headers)?.checked_add(FrameTable::tail_len(plain_len))
}
