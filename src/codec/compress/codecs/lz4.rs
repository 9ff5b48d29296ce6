//! LZ4 in the frame format, always of the same shape: one independent block
//! of at most 256 KiB without checksums (the chunk has one). So a frame is
//! unpacked straight into the caller's buffer.

use super::{Compressor, invalid, wrong_length};
use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};
use std::io;

/// Magic number; version 1, independent blocks; blocks of at most 256 KiB; the header's checksum.
const HEADER: [u8; 7] = [0x04, 0x22, 0x4d, 0x18, 0x60, 0x50, 0xfb];
/// In a block's length: its bytes are not compressed.
const UNCOMPRESSED: u32 = 1 << 31;
const END_MARK: [u8; 4] = [0; 4];
/// Where the block begins: behind the header and its length.
const BLOCK: usize = HEADER.len() + 4;

pub(super) struct Lz4 {
    table: CompressTable,
    buffer: Vec<u8>,
}

impl Lz4 {
    pub(super) fn new() -> Self {
        Self { table: CompressTable::large(), buffer: Vec::new() }
    }
}

impl Compressor for Lz4 {
    fn compress(&mut self, plain: &[u8]) -> io::Result<Option<&[u8]>> {
        let room = BLOCK + get_maximum_output_size(plain.len()) + END_MARK.len();
        if self.buffer.len() < room {
            self.buffer.resize(room, 0);
        }
        let len =
            compress_into_with_table(plain, &mut self.buffer[BLOCK..], &mut self.table).map_err(io::Error::other)?;
        let end = BLOCK + len + END_MARK.len();
        if end >= plain.len() {
            return Ok(None);
        }
        let field = u32::try_from(len).ok().filter(|len| len & UNCOMPRESSED == 0);
        let field = field.ok_or_else(|| io::Error::other("a frame is too long for LZ4"))?;
        self.buffer[..HEADER.len()].copy_from_slice(&HEADER);
        self.buffer[HEADER.len()..BLOCK].copy_from_slice(&field.to_le_bytes());
        self.buffer[BLOCK + len..end].copy_from_slice(&END_MARK);
        Ok(Some(&self.buffer[..end]))
    }
}

pub(super) fn decompress(stored: &[u8], out: &mut [u8]) -> io::Result<()> {
    let block = stored
        .strip_prefix(&HEADER)
        .and_then(|rest| rest.strip_suffix(&END_MARK))
        .and_then(|rest| rest.split_first_chunk::<4>())
        .filter(|(len, block)| usize::try_from(u32::from_le_bytes(**len)) == Ok(block.len()))
        .map(|(_, block)| block)
        .ok_or_else(|| invalid("the stored bytes are not one LZ4 frame of one block"))?;
    let written = decompress_into(block, out).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    if written == out.len() { Ok(()) } else { Err(wrong_length(written, out.len())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn the_header_is_what_the_crate_writes() {
        use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
        let info = FrameInfo::new().block_size(BlockSize::Max256KB).block_mode(BlockMode::Independent);
        let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(&[7; 1000]).unwrap();
        let theirs = encoder.finish().unwrap();
        assert_eq!(theirs[..7], HEADER);
        let mut lz4 = Lz4::new();
        let ours = lz4.compress(&[7; 1000]).unwrap().unwrap();
        let mut plain = Vec::new();
        lz4_flex::frame::FrameDecoder::new(ours).read_to_end(&mut plain).unwrap();
        assert_eq!(plain, [7; 1000]);
    }
}
