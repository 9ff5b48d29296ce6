//! gzip (RFC 1952): one member whose header is always the same.

use super::{Compressor, invalid, wrong_length};
use flate2::{Compress, Compression, Crc, Decompress, FlushCompress, FlushDecompress, Status};
use std::io;

/// Magic number, deflate, no flags, no time, no hint; of an unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// CRC-32 and length of the plain bytes.
const TRAILER_LEN: usize = 8;

pub(super) struct Gzip {
    deflate: Compress,
    buffer: Vec<u8>,
}

impl Gzip {
    pub(super) fn new(level: i32) -> Self {
        let deflate = Compress::new(Compression::new(level.unsigned_abs()), false);
        Self { deflate, buffer: Vec::new() }
    }
}

fn trailer(plain: &[u8]) -> [u8; TRAILER_LEN] {
    let mut crc = Crc::new();
    crc.update(plain);
    let mut trailer = [0; TRAILER_LEN];
    trailer[..4].copy_from_slice(&crc.sum().to_le_bytes());
    trailer[4..].copy_from_slice(&crc.amount().to_le_bytes());
    trailer
}

impl Compressor for Gzip {
    fn compress(&mut self, plain: &[u8]) -> io::Result<Option<&[u8]>> {
        // What does not fit does not shrink.
        let room = plain.len().saturating_sub(HEADER.len() + TRAILER_LEN);
        let body = HEADER.len();
        if self.buffer.len() < body + room + TRAILER_LEN {
            self.buffer.resize(body + room + TRAILER_LEN, 0);
        }
        self.deflate.reset();
        let output = &mut self.buffer[body..body + room];
        let status = self.deflate.compress(plain, output, FlushCompress::Finish)?;
        if status != Status::StreamEnd {
            return Ok(None);
        }
        let end = body + usize::try_from(self.deflate.total_out()).map_err(io::Error::other)?;
        self.buffer[..body].copy_from_slice(&HEADER);
        self.buffer[end..end + TRAILER_LEN].copy_from_slice(&trailer(plain));
        let member = &self.buffer[..end + TRAILER_LEN];
        Ok((member.len() < plain.len()).then_some(member))
    }
}

/// One decompression state for all frames, made when the first one comes.
#[derive(Default)]
pub(super) struct Decoder(Option<Decompress>);

impl Decoder {
    pub(super) fn decompress(&mut self, stored: &[u8], out: &mut [u8]) -> io::Result<()> {
        let not_one = || invalid("the stored bytes are not one gzip member");
        let (body, sums) =
            stored.strip_prefix(&HEADER).and_then(|rest| rest.split_last_chunk::<TRAILER_LEN>()).ok_or_else(not_one)?;
        let inflate = self.0.get_or_insert_with(|| Decompress::new(false));
        inflate.reset(false);
        let status = inflate.decompress(body, out, FlushDecompress::Finish)?;
        if status != Status::StreamEnd {
            return Err(invalid("the deflate stream does not end where it must"));
        }
        if inflate.total_in() != body.len() as u64 {
            return Err(not_one());
        }
        if inflate.total_out() != out.len() as u64 {
            return Err(wrong_length(usize::try_from(inflate.total_out()).unwrap_or(usize::MAX), out.len()));
        }
        if *sums != trailer(out) {
            return Err(invalid("the checksum of the gzip member is wrong"));
        }
        Ok(())
    }
}
