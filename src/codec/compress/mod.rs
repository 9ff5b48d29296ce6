//! Compressed streams: a content cut into frames that are compressed by
//! themselves, with a table that says where each one lies.
//!
//! stream = chunk for each frame, then the table, then the footer. A chunk is
//! a header (magic, CRC32C, stored length, plain length) and the stored
//! bytes: a complete zstd frame, LZ4 frame, gzip member or Brotli stream, or,
//! when the lengths are equal, the plain bytes themselves.

use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Plain bytes of every frame but the last.
pub const FRAME_LEN: u64 = 128 * 1024;

/// How contents are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// Zstandard (RFC 8878).
    Zstd,
    /// LZ4 frame format 1.6.
    Lz4,
    /// gzip (RFC 1952).
    Gzip,
    /// Brotli (RFC 7932).
    Brotli,
}

/// A codec and how hard it tries; written `zstd:3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CodecSpec {
    /// Which.
    pub codec: Codec,
    /// Its own scale; meaningless for LZ4.
    pub level: i32,
}

impl std::fmt::Display for CodecSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let _ = f;
        unimplemented!("compress helper")
    }
}

impl std::str::FromStr for CodecSpec {
    type Err = String;

    /// `zstd`, `zstd:1` to `zstd:22` and negative ones, `lz4`, `gzip:1` to `gzip:9`, `brotli:0` to `brotli:11`.
    fn from_str(text: &str) -> Result<Self, String> {
        Err(text.to_owned())
    }
}

impl Serialize for CodecSpec {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CodecSpec {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Why a stream cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CompressError {
    /// Its structure is not what a writer makes.
    #[error("compressed stream: {0}")]
    Invalid(String),
    /// The codec refused.
    #[error("the {codec:?} codec failed")]
    Codec {
        /// Which.
        codec: Codec,
        /// What it said.
        #[source]
        source: std::io::Error,
    },
}

/// Number of frames of a content of `plain_len` bytes.
pub fn frame_count(plain_len: u64) -> u64 {
    plain_len.div_ceil(FRAME_LEN)
}

/// Compresses frames; one for each thread.
#[derive(Debug)]
pub struct FrameEncoder {}

impl FrameEncoder {
    /// An encoder with its working memory.
    pub fn new(spec: CodecSpec) -> Result<Self, CompressError> {
        let _ = spec;
        unimplemented!("compress helper")
    }

    /// Appends the chunk of a frame (1 to [`FRAME_LEN`] bytes) to `out`: as it is where it does not shrink.
    /// Returns the chunk's length.
    pub fn encode(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<u32, CompressError> {
        let _ = (plain, out);
        unimplemented!("compress helper")
    }
}

/// Decompresses frames; one for each thread.
#[derive(Debug, Default)]
pub struct FrameDecoder {}

impl FrameDecoder {
    /// Fills `out` from a whole chunk. `out` is as long as the frame must be: no codec
    /// writes, or makes room for, more.
    pub fn decode(&mut self, codec: Codec, chunk: &[u8], out: &mut [u8]) -> Result<(), CompressError> {
        let _ = (codec, chunk, out);
        unimplemented!("compress helper")
    }
}

/// Where the chunks of a stream lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameTable {}

impl FrameTable {
    /// The end of a stream whose chunks have these lengths: table and footer.
    pub fn tail_bytes(spec: CodecSpec, plain_len: u64, chunks: &[u32]) -> Vec<u8> {
        let _ = (spec, plain_len, chunks);
        unimplemented!("compress helper")
    }

    /// Length of table and footer of a stream of `plain_len` plain bytes.
    pub fn tail_len(plain_len: u64) -> u64 {
        let _ = plain_len;
        unimplemented!("compress helper")
    }

    /// Parses the last [`tail_len`](Self::tail_len) bytes of a stream. `stream_len` and
    /// `plain_len` are what the manifest says; everything is checked against them.
    pub fn parse(codec: Codec, stream_len: u64, plain_len: u64, tail: &[u8]) -> Result<Self, CompressError> {
        let _ = (codec, stream_len, plain_len, tail);
        unimplemented!("compress helper")
    }

    /// Where a frame's chunk lies in the stream.
    pub fn chunk(&self, frame: u64) -> Option<Range<u64>> {
        let _ = frame;
        unimplemented!("compress helper")
    }
}

/// A cheap guess from a sample of a few KiB whether compressing pays.
pub fn looks_compressible(sample: &[u8]) -> bool {
    let _ = sample;
    unimplemented!("compress helper")
}
