//! The codecs: each makes complete streams of its own format and takes them
//! apart into a buffer whose length is the bound of everything.

mod brotli;
mod gzip;
mod lz4;
mod zstd;

use super::{Codec, CodecSpec};
use std::io;

/// Compresses frames; keeps its working memory from one to the next.
pub(super) trait Compressor: Send {
    /// A complete stream of the format. `None`: it would not be shorter than `plain`.
    fn compress(&mut self, plain: &[u8]) -> io::Result<Option<&[u8]>>;
}

/// The compressor of a specification whose level was checked.
pub(super) fn compressor(spec: CodecSpec) -> io::Result<Box<dyn Compressor>> {
    Ok(match spec.codec {
        Codec::Zstd => Box::new(zstd::Zstd::new(spec.level)?),
        Codec::Lz4 => Box::new(lz4::Lz4::new()),
        Codec::Gzip => Box::new(gzip::Gzip::new(spec.level)),
        Codec::Brotli => Box::new(brotli::Brotli::new(spec.level)),
    })
}

/// Decompresses frames of all codecs; keeps working memory from one to the next.
#[derive(Default)]
pub(super) struct Decompressors {
    zstd: zstd::Decoder,
    gzip: gzip::Decoder,
}

impl Decompressors {
    /// Fills `out` from exactly one stream, which is all of `stored`. A stream
    /// of more or fewer bytes than `out` has is an error; what `out` holds then is undefined.
    pub(super) fn decompress(&mut self, codec: Codec, stored: &[u8], out: &mut [u8]) -> io::Result<()> {
        match codec {
            Codec::Zstd => self.zstd.decompress(stored, out),
            Codec::Lz4 => lz4::decompress(stored, out),
            Codec::Gzip => self.gzip.decompress(stored, out),
            Codec::Brotli => brotli::decompress(stored, out),
        }
    }
}

fn invalid(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

/// For a stream that ended before it filled the buffer.
fn wrong_length(written: usize, expected: usize) -> io::Error {
    invalid(format!("the data have {written} bytes instead of {expected}"))
}
