//! Compressed streams: chunks and frame tables with right checksums, and whatever in them.

use blockframe::codec::compress::{
    CHUNK_HEADER_LEN, Codec, CodecSpec, FRAME_LEN, FrameDecoder, FrameEncoder, FrameTable, frame_count,
};
use std::cell::RefCell;

thread_local! {
    static DECODER: RefCell<FrameDecoder> = RefCell::default();
}

/// The input is a codec and what to do (one byte), a length (3 bytes), then a chunk's stored bytes, a table, or a frame.
pub fn run(input: &[u8]) {
    let Some((&[what, a, b, c], rest)) = input.split_first_chunk() else { return };
    let codec = Codec::ALL[usize::from(what % 4)];
    let len = u64::from(u32::from_le_bytes([a, b, c, 0]));
    match what / 4 % 3 {
        0 => chunk(codec, (len % FRAME_LEN + 1) as usize, rest),
        1 => table(codec, len, rest),
        _ => round_trip(codec.at_default_level(), rest),
    }
}

fn decode(codec: Codec, chunk: &[u8], out: &mut [u8]) -> bool {
    DECODER.with_borrow_mut(|decoder| decoder.decode(codec, chunk, out).is_ok())
}

/// A chunk with right lengths and checksum gives a whole frame or an error, whatever the codec makes of it.
fn chunk(codec: Codec, plain_len: usize, stored: &[u8]) {
    let mut chunk = b"BFCF\0\0\0\0".to_vec();
    chunk.extend_from_slice(&(stored.len() as u32).to_le_bytes());
    chunk.extend_from_slice(&(plain_len as u32).to_le_bytes());
    chunk.extend_from_slice(stored);
    let crc = crc32c::crc32c(&chunk[8..]);
    chunk[4..8].copy_from_slice(&crc.to_le_bytes());
    let mut out = vec![0xaa; plain_len];
    if decode(codec, &chunk, &mut out) {
        assert!(stored.len() <= plain_len);
        let mut again = vec![0x55; plain_len];
        assert!(decode(codec, &chunk, &mut again) && again == out, "not every byte was written");
        round_trip(codec.at_default_level(), &out);
    }
    let mut longer = vec![0; plain_len + 1];
    assert!(longer.len() as u64 > FRAME_LEN || !decode(codec, &chunk, &mut longer));
}

/// A table with right checksums whose chunks fill the stream exactly, or an error.
fn table(codec: Codec, cut: u64, bytes: &[u8]) {
    let (lens, _) = bytes.as_chunks::<4>();
    let lens: Vec<u32> = lens.iter().map(|len| u32::from_le_bytes(*len) % (FRAME_LEN as u32 + 64)).collect();
    let plain_len = (lens.len() as u64 * FRAME_LEN).saturating_sub(cut % FRAME_LEN);
    let tail = FrameTable::tail_bytes(codec.at_default_level(), plain_len, &lens);
    assert_eq!(tail.len() as u64, FrameTable::tail_len(plain_len));
    let chunks: u64 = lens.iter().copied().map(u64::from).sum();
    let stream_len = chunks + tail.len() as u64;
    assert!(FrameTable::parse(codec, stream_len + 1, plain_len, &tail).is_err());
    assert!(FrameTable::parse(codec, stream_len, plain_len + 1, &tail).is_err());
    let Ok(table) = FrameTable::parse(codec, stream_len, plain_len, &tail) else { return };
    let (mut at, mut plain) = (0, 0);
    assert_eq!((table.frames(), frame_count(plain_len)), (lens.len() as u64, lens.len() as u64));
    for (frame, len) in (0..).zip(&lens) {
        let chunk = table.chunk(frame).unwrap_or_default();
        let frame = table.plain(frame).unwrap_or_default();
        assert_eq!((chunk.start, chunk.end, frame.start), (at, at + u64::from(*len), plain));
        assert!(u64::from(*len) > CHUNK_HEADER_LEN as u64 && frame.end - frame.start <= FRAME_LEN);
        (at, plain) = (chunk.end, frame.end);
    }
    assert_eq!((at, plain, table.chunk(table.frames())), (chunks, plain_len, None));
}

/// What was encoded comes back.
fn round_trip(spec: CodecSpec, plain: &[u8]) {
    let plain = &plain[..plain.len().min(FRAME_LEN as usize)];
    let mut chunk = Vec::new();
    let Ok(mut encoder) = FrameEncoder::new(spec) else { return };
    if encoder.encode(plain, &mut chunk).is_err() {
        assert!(plain.is_empty());
        return;
    }
    let mut out = vec![0xaa; plain.len()];
    assert!(decode(spec.codec, &chunk, &mut out) && out == plain);
    assert!(chunk.len() <= plain.len() + CHUNK_HEADER_LEN);
}

/// The chunks of the golden streams without their headers, tables, and a text.
pub fn seeds() -> Vec<Vec<u8>> {
    let golden: [&[u8]; 4] = [
        include_bytes!("../../../tests/golden/stream-zstd-v1.bin"),
        include_bytes!("../../../tests/golden/stream-lz4-v1.bin"),
        include_bytes!("../../../tests/golden/stream-gzip-v1.bin"),
        include_bytes!("../../../tests/golden/stream-brotli-v1.bin"),
    ];
    let mut seeds = Vec::new();
    for (number, stream) in (0u8..).zip(golden) {
        let mut rest = stream;
        while let Some((header, behind)) = rest.split_first_chunk::<CHUNK_HEADER_LEN>() {
            let field = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
            let Some(stored) = behind.get(..field(8) as usize).filter(|_| header.starts_with(b"BFCF")) else { break };
            if stored.len() < 4096 {
                let [a, b, c, _] = field(12).wrapping_sub(1).to_le_bytes();
                seeds.push([&[number, a, b, c], stored].concat());
            }
            rest = &behind[stored.len()..];
        }
        let [a, b, c, _] = 100_000u32.to_le_bytes();
        let lens: Vec<u8> = [50_000u32, 131_088, 900].iter().flat_map(|len| len.to_le_bytes()).collect();
        seeds.push([&[4 + number, a, b, c], &lens[..]].concat());
        seeds.push([&[8 + number, 0, 0, 0], "abc ".repeat(100).as_bytes()].concat());
    }
    seeds
}
