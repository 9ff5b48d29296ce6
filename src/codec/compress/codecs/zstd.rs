//! Zstandard (RFC 8878) by the reference implementation.

use super::{Compressor, invalid, wrong_length};
use std::io;
use zstd::bulk;
use zstd::zstd_safe::{compress_bound, find_frame_compressed_size};

/// One compression context for all frames.
pub(super) struct Zstd {
    context: bulk::Compressor<'static>,
    buffer: Vec<u8>,
}

impl Zstd {
    pub(super) fn new(level: i32) -> io::Result<Self> {
        let mut context = bulk::Compressor::new(level)?;
        // A frame is far shorter than what it looks for.
        context.long_distance_matching(false)?;
        Ok(Self { context, buffer: Vec::new() })
    }
}

impl Compressor for Zstd {
    fn compress(&mut self, plain: &[u8]) -> io::Result<Option<&[u8]>> {
        self.buffer.clear();
        self.buffer.reserve(compress_bound(plain.len()));
        self.context.compress_to_buffer(plain, &mut self.buffer)?;
        Ok((self.buffer.len() < plain.len()).then_some(&self.buffer))
    }
}

/// One decompression context for all frames, made when the first one comes.
#[derive(Default)]
pub(super) struct Decoder(Option<bulk::Decompressor<'static>>);

impl Decoder {
    /// In one pass, so that `out` is the window and the header's window size allocates nothing.
    pub(super) fn decompress(&mut self, stored: &[u8], out: &mut [u8]) -> io::Result<()> {
        if !find_frame_compressed_size(stored).is_ok_and(|len| len == stored.len()) {
            return Err(invalid("the stored bytes are not one zstd frame"));
        }
        let context = match &mut self.0 {
            Some(context) => context,
            none => none.insert(bulk::Decompressor::new()?),
        };
        let written = context.decompress_to_buffer(stored, out)?;
        if written == out.len() { Ok(()) } else { Err(wrong_length(written, out.len())) }
    }
}
