//! Brotli (RFC 7932).

use super::{Compressor, invalid, wrong_length};
use brotli::enc::BrotliEncoderParams;
use brotli::{BrotliCompress, BrotliDecompressStream, BrotliResult, BrotliState, HeapAlloc, HuffmanCode};
use std::io;

/// Window of every stream, bits: the smallest that spans a frame (17 ends 16 bytes short of it).
const WINDOW_BITS: i32 = 18;

pub(super) struct Brotli {
    params: BrotliEncoderParams,
    buffer: Vec<u8>,
}

impl Brotli {
    pub(super) fn new(level: i32) -> Self {
        let params = BrotliEncoderParams { quality: level, lgwin: WINDOW_BITS, ..BrotliEncoderParams::default() };
        Self { params, buffer: Vec::new() }
    }
}

impl Compressor for Brotli {
    fn compress(&mut self, plain: &[u8]) -> io::Result<Option<&[u8]>> {
        self.buffer.clear();
        self.params.size_hint = plain.len();
        BrotliCompress(&mut &*plain, &mut self.buffer, &self.params)?;
        Ok((self.buffer.len() < plain.len()).then_some(&self.buffer))
    }
}

/// Window that a stream asks for, bits (RFC 7932, section 9.1); `None` for the reserved one.
fn window_bits(first: u8) -> Option<u8> {
    match (first & 1, first >> 1 & 7, first >> 4 & 7) {
        (0, _, _) => Some(16),
        (_, 0, 0) => Some(17),
        (_, 0, 1) => None,
        (_, 0, low) => Some(8 + low),
        (_, high, _) => Some(17 + high),
    }
}

/// The decoder allocates a window, no longer than a frame's; its code tables
/// are bounded by the format (RFC 7932, section 9.2: 256 trees of a kind).
pub(super) fn decompress(stored: &[u8], out: &mut [u8]) -> io::Result<()> {
    let window = stored.first().and_then(|&first| window_bits(first));
    if window.is_none_or(|bits| i32::from(bits) > WINDOW_BITS) {
        return Err(invalid("the Brotli stream asks for a window that is longer than a frame"));
    }
    let (bytes, words, codes) = (HeapAlloc::new(0u8), HeapAlloc::new(0u32), HeapAlloc::new(HuffmanCode::default()));
    let mut state = BrotliState::new_strict(bytes, words, codes);
    let (mut left, mut at, mut room, mut filled, mut total) = (stored.len(), 0, out.len(), 0, 0);
    let result =
        BrotliDecompressStream(&mut left, &mut at, stored, &mut room, &mut filled, out, &mut total, &mut state);
    match result {
        BrotliResult::ResultSuccess if left == 0 && filled == out.len() => Ok(()),
        BrotliResult::ResultSuccess if left > 0 => Err(invalid("the stored bytes are not one Brotli stream")),
        BrotliResult::ResultSuccess => Err(wrong_length(filled, out.len())),
        BrotliResult::NeedsMoreInput => Err(invalid("the Brotli stream is cut off")),
        BrotliResult::NeedsMoreOutput => Err(invalid(format!("the data have more than {} bytes", out.len()))),
        BrotliResult::ResultFailure => Err(invalid("this is no Brotli stream")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_levels_ask_for_the_window_of_a_frame() {
        for level in 0..=11 {
            let mut brotli = Brotli::new(level);
            for len in [100, 5000, 131_072] {
                let stored = brotli.compress(&vec![b'x'; len]).unwrap().unwrap();
                assert_eq!(window_bits(stored[0]), Some(18), "level {level}");
            }
        }
    }

    #[test]
    fn a_window_of_gigabytes_is_refused() {
        for first in [0x11, 0x91, 0x0f, 0x05] {
            let error = decompress(&[first, 30, 0, 0], &mut [0; 10]).unwrap_err();
            assert!(error.to_string().contains("window"), "{error}");
        }
    }
}
