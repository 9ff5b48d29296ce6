//! Compressed streams: what goes in comes out, frame by frame; whatever else
//! lies there is refused, and never more than the caller's buffer is filled.
#![allow(clippy::unwrap_used)]

use blockframe::codec::compress::{
    CHUNK_HEADER_LEN, Codec, CodecSpec, CompressError, FRAME_LEN, FrameDecoder, FrameEncoder, FrameTable, frame_count,
    stream_bound,
};
use proptest::prelude::*;
use std::io::Write;

const FRAME: usize = FRAME_LEN as usize;

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn text(seed: u64, len: usize) -> Vec<u8> {
    let lines = (seed % 1000..).map(|n| format!("{n}: {} and then {}\n", n * n % 977, n % 13));
    let mut bytes = Vec::with_capacity(len + 40);
    lines
        .take_while(|line| {
            bytes.extend_from_slice(line.as_bytes());
            bytes.len() < len
        })
        .for_each(drop);
    bytes.truncate(len);
    bytes
}

fn spec(text: &str) -> CodecSpec {
    text.parse().unwrap()
}

/// A stream made as a writer makes it, one frame after the other.
fn stream_by(encoder: &mut FrameEncoder, spec: CodecSpec, plain: &[u8]) -> Vec<u8> {
    encoder.begin();
    let mut stream = Vec::new();
    let chunks: Vec<u32> = plain.chunks(FRAME).map(|frame| encoder.encode(frame, &mut stream).unwrap()).collect();
    stream.extend(FrameTable::tail_bytes(spec, plain.len() as u64, &chunks));
    stream
}

fn stream(spec: CodecSpec, plain: &[u8]) -> Vec<u8> {
    stream_by(&mut FrameEncoder::new(spec).unwrap(), spec, plain)
}

fn table(codec: Codec, stream: &[u8], plain_len: usize) -> Result<FrameTable, CompressError> {
    let tail = usize::try_from(FrameTable::tail_len(plain_len as u64)).unwrap();
    let tail = &stream[stream.len().saturating_sub(tail)..];
    FrameTable::parse(codec, stream.len() as u64, plain_len as u64, tail)
}

fn chunk<'a>(stream: &'a [u8], table: &FrameTable, frame: u64) -> &'a [u8] {
    let range = table.chunk(frame).unwrap();
    &stream[range.start as usize..range.end as usize]
}

/// Decodes one chunk into a buffer with canaries around it.
fn decode(decoder: &mut FrameDecoder, codec: Codec, chunk: &[u8], len: usize) -> Result<Vec<u8>, CompressError> {
    let mut buffer = vec![0xc5; len + 128];
    let result = decoder.decode(codec, chunk, &mut buffer[64..64 + len]);
    assert!(buffer[..64].iter().chain(&buffer[64 + len..]).all(|&byte| byte == 0xc5), "written outside");
    result.map(|()| buffer[64..64 + len].to_vec())
}

/// Reads a whole stream through its table.
fn read(codec: Codec, stream: &[u8], plain_len: usize) -> Result<Vec<u8>, CompressError> {
    let table = table(codec, stream, plain_len)?;
    let mut decoder = FrameDecoder::default();
    let mut plain = Vec::new();
    for frame in 0..table.frames() {
        let range = table.plain(frame).unwrap();
        assert_eq!(range.start, plain.len() as u64);
        let len = (range.end - range.start) as usize;
        plain.extend(decode(&mut decoder, codec, chunk(stream, &table, frame), len)?);
    }
    Ok(plain)
}

/// Makes the checksum of a chunk right again.
fn reseal_chunk(chunk: &mut [u8]) {
    let crc = crc32c::crc32c(&chunk[8..]);
    chunk[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// Makes the checksum of a table with its footer right again.
fn reseal_tail(tail: &mut [u8]) {
    let footer = tail.len() - 32;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&tail[..footer]), &tail[footer + 8..]);
    tail[footer + 4..footer + 8].copy_from_slice(&crc.to_le_bytes());
}

/// A chunk with any stored bytes and a right checksum.
fn forged_chunk(stored: &[u8], plain_len: u32) -> Vec<u8> {
    let mut chunk = b"BFCF\0\0\0\0".to_vec();
    chunk.extend_from_slice(&(stored.len() as u32).to_le_bytes());
    chunk.extend_from_slice(&plain_len.to_le_bytes());
    chunk.extend_from_slice(stored);
    reseal_chunk(&mut chunk);
    chunk
}

fn specs() -> impl Strategy<Value = CodecSpec> {
    prop::sample::select(vec![
        "zstd:3", "zstd:1", "zstd:-7", "zstd:9", "lz4", "gzip:6", "gzip:1", "brotli:5", "brotli:1",
    ])
    .prop_map(spec)
}

fn lengths() -> impl Strategy<Value = usize> {
    let border =
        (0usize..4, -3i64..=3).prop_map(|(frames, off)| (frames as i64 * FRAME_LEN as i64 + off).max(0) as usize);
    prop_oneof![3 => border, 1 => 0usize..3 * FRAME, 1 => 0usize..300]
}

/// Text, noise, zeros, and all of them by turns.
fn contents() -> impl Strategy<Value = Vec<u8>> {
    (lengths(), 0u8..5, any::<u64>()).prop_map(|(len, kind, seed)| match kind {
        0 => text(seed, len),
        1 => noise(seed, len),
        2 => vec![seed as u8; len],
        3 => noise(seed, 20_000).into_iter().cycle().take(len).collect(),
        _ => {
            let piece = 1 + (seed % 200_000) as usize;
            let (text, noise) = (text(seed, len), noise(seed, len));
            (0..len).map(|at| if (at / piece).is_multiple_of(2) { text[at] } else { noise[at] }).collect()
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_goes_in_comes_out(spec in specs(), plain in contents(), order in any::<u64>()) {
        let stream = stream(spec, &plain);
        let frames = frame_count(plain.len() as u64);
        prop_assert!(stream.len() as u64 <= stream_bound(plain.len() as u64).unwrap());
        prop_assert_eq!(&read(spec.codec, &stream, plain.len()).unwrap(), &plain);

        // Any frame by itself, in any order, by one decoder.
        let table = table(spec.codec, &stream, plain.len()).unwrap();
        prop_assert_eq!((table.frames(), table.chunk(frames), table.plain(frames)), (frames, None, None));
        let mut decoder = FrameDecoder::default();
        for turn in 0..frames {
            let frame = (turn + order % frames) % frames;
            let range = table.plain(frame).unwrap();
            let expected = &plain[range.start as usize..range.end as usize];
            let found = decode(&mut decoder, spec.codec, chunk(&stream, &table, frame), expected.len()).unwrap();
            prop_assert!(found == expected);
        }
    }

    #[test]
    fn a_stream_is_the_same_whatever_was_encoded_before(spec in specs(), first in contents(), plain in contents()) {
        let mut encoder = FrameEncoder::new(spec).unwrap();
        let _ = stream_by(&mut encoder, spec, &first);
        prop_assert!(stream_by(&mut encoder, spec, &plain) == stream(spec, &plain));
    }

    /// Random bytes behind right checksums: the codecs themselves are at bay.
    #[test]
    fn forged_frames_fill_the_buffer_or_fail(
        codec in prop::sample::select(Codec::ALL.to_vec()),
        cut in any::<prop::sample::Index>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..4),
        len in 1usize..5000,
    ) {
        let plain = text(7, 4000);
        let stream = stream(codec.at_default_level(), &plain);
        let table = table(codec, &stream, plain.len()).unwrap();
        let mut stored = chunk(&stream, &table, 0)[CHUNK_HEADER_LEN..].to_vec();
        for (at, flip) in flips {
            let at = at.index(stored.len());
            stored[at] ^= flip;
        }
        stored.truncate(1 + cut.index(stored.len()));
        let _ = decode(&mut FrameDecoder::default(), codec, &forged_chunk(&stored, len as u32), len);
    }
}

#[test]
fn every_level_of_every_codec_works() {
    let plain = [text(1, 30_000), noise(1, 2000), vec![0; 5000]].concat();
    let levels = (-7..=22).filter(|&level| level != 0).map(|level| format!("zstd:{level}"));
    let levels = levels.chain((1..=9).map(|level| format!("gzip:{level}"))).chain(["lz4".into()]);
    for text in levels.chain((0..=11).map(|level| format!("brotli:{level}"))) {
        let spec = spec(&text);
        let stream = stream(spec, &plain);
        assert!(stream.len() < plain.len() * 2 / 3, "{text}: {}", stream.len());
        assert_eq!(read(spec.codec, &stream, plain.len()).unwrap(), plain, "{text}");
    }
    for (codec, level) in [(Codec::Zstd, 0), (Codec::Zstd, 23), (Codec::Lz4, 1), (Codec::Gzip, 10), (Codec::Brotli, -1)]
    {
        assert!(matches!(FrameEncoder::new(CodecSpec { codec, level }), Err(CompressError::Invalid(_))));
    }
}

#[test]
fn a_changed_byte_is_an_error_or_makes_no_difference() {
    for codec in Codec::ALL {
        for plain in [text(3, 400), noise(3, 60)] {
            let stream = stream(codec.at_default_level(), &plain);
            for at in 0..stream.len() {
                for flip in [1, 0x10, 0x80, 0xff] {
                    let mut changed = stream.clone();
                    changed[at] ^= flip;
                    assert!(read(codec, &changed, plain.len()).is_err(), "{codec}: byte {at} ^ {flip}");
                }
            }
        }
    }
}

/// As above, with the checksums made right again: nobody is asked to notice, but nothing breaks.
#[test]
fn a_changed_byte_behind_a_right_checksum_does_no_harm() {
    for codec in Codec::ALL {
        let plain = text(3, 400);
        let stream = stream(codec.at_default_level(), &plain);
        let tail = stream.len() - FrameTable::tail_len(400) as usize;
        for at in 0..stream.len() {
            for flip in [1, 2, 4, 8, 0x10, 0x20, 0x40, 0x80, 0xff] {
                let mut changed = stream.clone();
                changed[at] ^= flip;
                reseal_chunk(&mut changed[..tail]);
                reseal_tail(&mut changed[tail..]);
                let result = read(codec, &changed, plain.len());
                let header = at < CHUNK_HEADER_LEN && !(4..8).contains(&at);
                let footer = at >= tail && !(tail + 8..tail + 12).contains(&at);
                assert!(result.is_err() || !(header || footer), "{codec}: byte {at} ^ {flip}");
                assert!(result.is_err() || result.unwrap().len() == plain.len());
            }
        }
    }
}

#[test]
fn truncated_streams_and_chunks_are_refused() {
    for codec in Codec::ALL {
        let plain = text(5, 900);
        let stream = stream(codec.at_default_level(), &plain);
        for len in 0..stream.len() {
            assert!(read(codec, &stream[..len], plain.len()).is_err(), "{codec}: cut at {len}");
            assert!(read(codec, &stream[stream.len() - len..], plain.len()).is_err(), "{codec}: the last {len}");
        }
        let table = table(codec, &stream, plain.len()).unwrap();
        let whole = chunk(&stream, &table, 0);
        let mut decoder = FrameDecoder::default();
        for len in 0..whole.len() {
            assert!(decode(&mut decoder, codec, &whole[..len], plain.len()).is_err());
            // A shorter stored stream that a checksum and the lengths vouch for.
            if len > CHUNK_HEADER_LEN {
                let cut = forged_chunk(&whole[CHUNK_HEADER_LEN..len], plain.len() as u32);
                assert!(decode(&mut decoder, codec, &cut, plain.len()).is_err(), "{codec}: cut at {len}");
            }
        }
        // And the decoder still works after all these errors.
        assert_eq!(decode(&mut decoder, codec, whole, plain.len()).unwrap(), plain);
    }
}

fn standard_stream(codec: Codec, plain: &[u8]) -> Vec<u8> {
    match codec {
        Codec::Zstd => zstd::bulk::compress(plain, 3).unwrap(),
        Codec::Lz4 => {
            let block = lz4_flex::block::compress(plain);
            let len = (block.len() as u32).to_le_bytes();
            [&b"\x04\x22\x4d\x18\x60\x50\xfb"[..], &len, &block, &[0; 4]].concat()
        }
        Codec::Gzip => {
            let mut encoder =
                flate2::GzBuilder::new().operating_system(255).write(Vec::new(), flate2::Compression::new(6));
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        Codec::Brotli => {
            let params = brotli::enc::BrotliEncoderParams { quality: 5, lgwin: 18, ..Default::default() };
            let mut stored = Vec::new();
            brotli::BrotliCompress(&mut &*plain, &mut stored, &params).unwrap();
            stored
        }
    }
}

#[test]
fn bombs_are_refused() {
    for codec in Codec::ALL {
        for bomb_len in [1001, FRAME + 1, 16 << 20] {
            let stored = standard_stream(codec, &vec![0; bomb_len]);
            let len = if stored.len() < 1000 { 1000 } else { FRAME };
            if stored.len() >= FRAME {
                continue;
            }
            let error = decode(&mut FrameDecoder::default(), codec, &forged_chunk(&stored, len as u32), len);
            assert!(matches!(error, Err(CompressError::Codec { .. })), "{codec}: {bomb_len} in {len}: {error:?}");
        }
        // The same kind of stream with the right length is fine; with too few bytes it is refused as well.
        let stored = standard_stream(codec, &[0; 1000]);
        let mut decoder = FrameDecoder::default();
        assert_eq!(decode(&mut decoder, codec, &forged_chunk(&stored, 1000), 1000).unwrap(), [0; 1000]);
        assert!(decode(&mut decoder, codec, &forged_chunk(&stored, 1001), 1001).is_err());
        // Two streams, or one with bytes behind it, are not one.
        let half = standard_stream(codec, &[0; 500]);
        let twice = [half.clone(), half.clone()].concat();
        assert!(decode(&mut decoder, codec, &forged_chunk(&twice, 1000), 1000).is_err(), "{codec}");
        let more = [half, vec![0]].concat();
        assert!(decode(&mut decoder, codec, &forged_chunk(&more, 500), 500).is_err(), "{codec}");
    }
}

#[test]
fn chunks_of_other_places_have_other_lengths() {
    for codec in Codec::ALL {
        let plain = [text(1, FRAME), text(9, FRAME - 1), noise(1, 2)].concat();
        let plain = &plain[..2 * FRAME];
        let short = [plain, b"end"].concat();
        let stream = stream(codec.at_default_level(), &short);
        let table = table(codec, &stream, short.len()).unwrap();
        let parts: Vec<&[u8]> = (0..3).map(|frame| chunk(&stream, &table, frame)).collect();
        let tail = &stream[stream.len() - FrameTable::tail_len(short.len() as u64) as usize..];
        assert_ne!(parts[0].len(), parts[1].len());
        for order in [[1, 0, 2], [0, 2, 1], [2, 1, 0]] {
            let mut swapped = order.map(|part| parts[part]).concat();
            swapped.extend_from_slice(tail);
            assert!(read(codec, &swapped, short.len()).is_err(), "{codec}: {order:?}");
        }
        // Told apart by the caller's length, even where the chunk is whole.
        assert!(decode(&mut FrameDecoder::default(), codec, parts[2], FRAME).is_err());
        assert!(decode(&mut FrameDecoder::default(), codec, parts[0], 3).is_err());
    }
}

#[test]
fn a_table_is_believed_only_as_far_as_the_caller_knows_better() {
    let plain = text(1, 2 * FRAME + 5);
    let len = plain.len() as u64;
    let stream = stream(spec("zstd:3"), &plain);
    let whole = stream.len() as u64;
    let tail = &stream[stream.len() - FrameTable::tail_len(len) as usize..];
    let parse = FrameTable::parse;
    assert!(parse(Codec::Zstd, whole, len, tail).is_ok());
    assert!(parse(Codec::Lz4, whole, len, tail).is_err());
    for wrong in [len - 1, len + 1, len - FRAME_LEN, 0, u64::MAX] {
        assert!(parse(Codec::Zstd, whole, wrong, tail).is_err());
    }
    for wrong in [whole - 1, whole + 1, 0, tail.len() as u64 - 1, u64::MAX] {
        assert!(parse(Codec::Zstd, wrong, len, tail).is_err());
    }
    // Lengths no chunk can have, with the sum kept and the checksum right.
    for (first, second) in [(16u32, None), (0, None), (16 + FRAME as u32 + 1, None), (u32::MAX, None), (17, Some(17))] {
        let mut tail = tail.to_vec();
        let old: Vec<u32> = tail.chunks(4).take(2).map(|entry| u32::from_le_bytes(entry.try_into().unwrap())).collect();
        let second = second.unwrap_or((old[0] + old[1]).wrapping_sub(first));
        tail[..4].copy_from_slice(&first.to_le_bytes());
        tail[4..8].copy_from_slice(&second.to_le_bytes());
        reseal_tail(&mut tail);
        assert!(parse(Codec::Zstd, whole, len, &tail).is_err(), "{first}");
    }
    // A later version says so.
    let mut newer = tail.to_vec();
    newer[tail.len() - 32 + 8] = 2;
    reseal_tail(&mut newer);
    let error = parse(Codec::Zstd, whole, len, &newer).unwrap_err().to_string();
    assert!(error.contains("version 2"), "{error}");
    assert_eq!(FrameTable::tail_len(0), 32);
    assert!(FrameTable::tail_len(u64::MAX) > 0 && stream_bound(u64::MAX).is_none());
}

#[test]
fn frames_have_bounds() {
    for codec in Codec::ALL {
        let mut encoder = FrameEncoder::new(codec.at_default_level()).unwrap();
        let mut out = vec![1, 2, 3];
        assert!(encoder.encode(&[], &mut out).is_err());
        assert!(encoder.encode(&vec![0; FRAME + 1], &mut out).is_err());
        assert_eq!(out, [1, 2, 3]);
        assert_eq!(encoder.encode(&[9], &mut out).unwrap(), 17);
        assert_eq!(out.len(), 20);
        let mut decoder = FrameDecoder::default();
        assert_eq!(decode(&mut decoder, codec, &out[3..], 1).unwrap(), [9]);
        assert!(decode(&mut decoder, codec, &out[3..], 0).is_err());
        assert!(decode(&mut decoder, codec, &forged_chunk(&[], 0), 0).is_err());
        assert!(decode(&mut decoder, codec, &forged_chunk(&[], 1), 1).is_err());
    }
}

#[test]
fn noise_is_kept_as_it_is_and_what_follows_it_is_found() {
    for codec in Codec::ALL {
        let mut encoder = FrameEncoder::new(codec.at_default_level()).unwrap();
        let mut out = Vec::new();
        for seed in 0..40 {
            assert_eq!(encoder.encode(&noise(seed, FRAME), &mut out).unwrap(), 16 + FRAME as u32, "{codec}");
        }
        assert!(encoder.encode(&text(1, FRAME), &mut out).unwrap() < 16 + FRAME as u32 / 2, "{codec}");
        // Equally frequent bytes that repeat: no sample shows it, a try now and then does.
        let repeats: Vec<u8> = noise(9, 6000).into_iter().cycle().take(FRAME).collect();
        for seed in 0..3 {
            encoder.encode(&noise(seed, FRAME), &mut out).unwrap();
        }
        let shrank = (0..32).any(|_| encoder.encode(&repeats, &mut out).unwrap() < 16 + FRAME as u32 / 2);
        assert!(shrank, "{codec}");
    }
}

/// Streams that earlier builds wrote are read for ever. What a codec makes of a frame may change with
/// its version; everything around it may not. `BLOCKFRAME_BLESS=1` writes files that are missing.
#[test]
fn golden_streams_are_read() {
    let plain = [vec![b'a'; FRAME], text(1, 3000), noise(1, 100), vec![0; FRAME - 3100], noise(2, 200)].concat();
    for codec in Codec::ALL {
        let name = format!("{}/tests/golden/stream-{codec}-v1.bin", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("BLOCKFRAME_BLESS").is_some() && !std::path::Path::new(&name).exists() {
            std::fs::write(&name, stream(codec.at_default_level(), &plain)).unwrap();
        }
        let golden = std::fs::read(&name).unwrap();
        assert!(read(codec, &golden, plain.len()).unwrap() == plain, "{name}");
        // The last frame is noise: its chunk, and the footer, depend on no codec.
        let own = stream(codec.at_default_level(), &plain);
        let kept = 16 + 200;
        let end =
            |stream: &[u8]| stream[stream.len() - FrameTable::tail_len(plain.len() as u64) as usize - kept..].to_vec();
        let (golden, own) = (end(&golden), end(&own));
        assert_eq!(golden[..kept], own[..kept]);
        // Behind the lengths of chunks and the checksum over them.
        assert_eq!(golden[kept + 8..kept + 16], own[kept + 8..kept + 16]);
        assert_eq!(golden[kept + 20..], own[kept + 20..]);
    }
}
