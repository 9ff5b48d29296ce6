//! Stored frames are what the public tools read and write: each one that a
//! codec made is given to its tool, byte for byte as it lies in the stream.
#![allow(clippy::unwrap_used)]

use blockframe::codec::compress::{CHUNK_HEADER_LEN, Codec, FRAME_LEN, FrameDecoder, FrameEncoder};
use std::io::Write;
use std::process::{Command, Stdio};

/// What a tool makes of its standard input.
fn tool(codec: Codec, args: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = Command::new(codec.name());
    let child = command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("{codec}: {error}; tests/run.sh installs it"));
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).unwrap());
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{codec} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn contents() -> Vec<Vec<u8>> {
    let text: Vec<u8> = (0..20_000).flat_map(|n: u32| format!("{n} {}\n", n % 17).into_bytes()).collect();
    let mut noise = vec![0; 30_000];
    blake3::Hasher::new().update(b"tools").finalize_xof().fill(&mut noise);
    let whole = FRAME_LEN as usize;
    let mixed = [&text[..50_000], &noise, &text[50_000..70_000]].concat();
    vec![vec![b'x'; whole], text[..whole].to_vec(), text[7..whole - 1].to_vec(), mixed, vec![0; 65_536], vec![b'y'; 64]]
}

#[test]
fn tools_read_every_stored_frame() {
    for codec in Codec::ALL {
        let mut encoder = FrameEncoder::new(codec.at_default_level()).unwrap();
        for plain in contents() {
            let mut chunk = Vec::new();
            encoder.encode(&plain, &mut chunk).unwrap();
            let stored = &chunk[CHUNK_HEADER_LEN..];
            assert!(stored.len() < plain.len(), "{codec}: {}", plain.len());
            assert!(tool(codec, &["-d", "-c"], stored) == plain, "{codec}: {} bytes", plain.len());
        }
    }
}

/// For the codecs whose frames may have more than one shape.
#[test]
fn frames_of_the_tools_are_read() {
    for (codec, args) in
        [(Codec::Zstd, &["-c", "-3"][..]), (Codec::Zstd, &["-c", "-19"]), (Codec::Brotli, &["-c", "-w", "18"])]
    {
        let mut decoder = FrameDecoder::default();
        for plain in contents() {
            let stored = tool(codec, args, &plain);
            let mut chunk = b"BFCF\0\0\0\0".to_vec();
            chunk.extend_from_slice(&(stored.len() as u32).to_le_bytes());
            chunk.extend_from_slice(&(plain.len() as u32).to_le_bytes());
            chunk.extend_from_slice(&stored);
            let crc = crc32c::crc32c(&chunk[8..]);
            chunk[4..8].copy_from_slice(&crc.to_le_bytes());
            let mut out = vec![0; plain.len()];
            decoder.decode(codec, &chunk, &mut out).unwrap();
            assert!(out == plain, "{codec} {args:?}");
        }
    }
}
