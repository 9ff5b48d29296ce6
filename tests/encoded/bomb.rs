//! Compressed objects whose streams claim other lengths than they have, with
//! every checksum and root computed anew: an error, within bounded memory.

use super::forge::Forgery;
use super::{encoded, one_tier};
use crate::kit::{Fixture, compressible, reference};
use blockframe::archive::{Archive, ArchiveResult, ObjectRef};
use blockframe::base::{ContentRange, SystemClock};
use blockframe::format::TierLayout;
use blockframe::store::LocalStore;
use serde_json::json;
use std::fs;
use std::io::Write as _;
use std::sync::Arc;

const FRAME: usize = 131_072;
const SEGMENT: u64 = 1 << 20;
/// A frame may be decoded, and a thread has its working memory; a bomb has 64 MiB or more.
const ALLOWED: u64 = 32 << 20;

/// Bytes of memory that this process has had at most since `begin`.
struct Peak(u64);

impl Peak {
    fn begin() -> Self {
        // 5: the high-water mark begins anew. proc(5), clear_refs.
        let _ = fs::write("/proc/self/clear_refs", "5");
        Self(Self::of("VmRSS:"))
    }

    fn of(member: &str) -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with(member)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
    }

    fn is_bounded(&self, what: &str) {
        let taken = Self::of("VmHWM:").saturating_sub(self.0);
        assert!(taken < ALLOWED, "{what}: {} MiB of memory", taken >> 20);
    }
}

fn chunk(stored: &[u8], stored_len: u32, plain_len: u32) -> Vec<u8> {
    let behind = [&stored_len.to_le_bytes()[..], &plain_len.to_le_bytes(), stored].concat();
    [&b"BFCF"[..], &crc32c::crc32c(&behind).to_le_bytes(), &behind].concat()
}

/// The end of a stream of these chunks.
fn tail(codec: u8, plain_len: u64, count: u64, chunks: &[u32]) -> Vec<u8> {
    let table: Vec<u8> = chunks.iter().flat_map(|len| len.to_le_bytes()).collect();
    let meaning =
        [&[1, codec, 0, 0][..], &(FRAME as u32).to_le_bytes(), &plain_len.to_le_bytes(), &count.to_le_bytes()].concat();
    let crc = crc32c::crc32c(&[&table[..], &meaning].concat());
    [&table[..], b"BFCT", &crc.to_le_bytes(), &meaning].concat()
}

fn stream(codec: u8, plain_len: u64, chunks: &[Vec<u8>]) -> Vec<u8> {
    let lens: Vec<u32> = chunks.iter().map(|chunk| chunk.len() as u32).collect();
    [chunks.concat(), tail(codec, plain_len, chunks.len() as u64, &lens)].concat()
}

/// 256 MiB of zeros (gzip: 64 MiB), as this codec writes them in less than a frame.
fn inflated(codec: &str) -> Vec<u8> {
    let zeros = vec![0; 1 << 20];
    let blow = |writer: &mut dyn std::io::Write| (0..256).for_each(|_| writer.write_all(&zeros).unwrap());
    match codec {
        "zstd" => {
            let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
            blow(&mut encoder);
            encoder.finish().unwrap()
        }
        "gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            (0..64).for_each(|_| encoder.write_all(&zeros).unwrap());
            encoder.finish().unwrap()
        }
        "brotli" => {
            let mut out = Vec::new();
            let mut writer = brotli::CompressorWriter::new(&mut out, 4096, 1, 18);
            blow(&mut writer);
            writer.flush().unwrap();
            drop(writer);
            out
        }
        _ => {
            // A block of LZ4 in which one literal is repeated: length bytes of 255.
            let mut block = vec![0x1f, 0, 1, 0];
            block.extend_from_slice(&vec![255; 120_000]);
            block.push(0);
            let head = [0x04, 0x22, 0x4d, 0x18, 0x60, 0x50, 0xfb];
            [&head[..], &(block.len() as u32).to_le_bytes(), &block, &[0; 4]].concat()
        }
    }
}

struct Subject {
    fixture: Fixture,
    object: ObjectRef,
    forgery: Forgery,
    codec: &'static str,
    code: u8,
}

impl Subject {
    fn all() -> impl Iterator<Item = Self> {
        (1..).zip(["zstd", "lz4", "gzip", "brotli"]).map(|(code, codec)| {
            let fixture = Fixture::new(encoded(&one_tier(TierLayout::Segments, SEGMENT, 1, 1), (Some(codec), None)));
            let object = reference(&fixture.put("object", &compressible(3 * FRAME + 77, 2)));
            let forgery = Forgery::of(&fixture.path(&object));
            Self { fixture, object, forgery, codec, code }
        })
    }

    fn archive(&self) -> Archive {
        let store = Arc::new(LocalStore::open(self.fixture.dir.path()).unwrap());
        Archive::open(store, Arc::new(SystemClock), Arc::new(())).unwrap()
    }

    /// With other bytes of its only segment, and everything computed: the beginning, a byte in the middle, and the
    /// end of what it claims to have are read.
    fn is_refused(&self, what: &str, plain_size: u64, segment: Vec<u8>, change: impl FnOnce(&mut Forgery)) {
        let what = format!("{}: {what}", self.codec);
        let mut forgery = self.forgery.clone();
        forgery.segments = vec![segment];
        forgery.document["key"]["plain_size"] = json!(plain_size);
        forgery.document.as_object_mut().unwrap().remove("content_tree");
        change(&mut forgery);
        forgery.put(self.fixture.dir.path());
        let peak = Peak::begin();
        let archive = self.archive();
        let read = |start: u64, end: u64| -> ArchiveResult<()> {
            let root = archive.load_manifest(&self.object.name)?.root();
            let object = archive.object(&ObjectRef { name: self.object.name.clone(), root })?;
            object.read(ContentRange::between(start, end)).map(|_| ())
        };
        let ranges =
            [(0, 1), (plain_size / 2, plain_size / 2 + 1), (plain_size - 1, plain_size), (0, plain_size.min(1 << 20))];
        let failed = ranges.iter().filter(|(start, end)| read(*start, *end).is_err()).count();
        assert!(failed > 0, "{what}: all is read");
        peak.is_bounded(&what);
        let health = archive.load_manifest(&self.object.name).and_then(|manifest| {
            let reference = ObjectRef { name: self.object.name.clone(), root: manifest.root() };
            archive.object_health(&reference, blockframe::archive::Depth::Full, &|_| {})
        });
        drop(health);
        peak.is_bounded(&what);
    }
}

#[test]
fn a_frame_that_becomes_longer_than_it_says_is_refused() {
    for subject in Subject::all() {
        let bomb = inflated(subject.codec);
        assert!(bomb.len() < FRAME, "{}: {}", subject.codec, bomb.len());
        let one = chunk(&bomb, bomb.len() as u32, FRAME as u32);
        let short = chunk(&bomb, bomb.len() as u32, bomb.len() as u32 + 1);
        let chunks = vec![one.clone(), one.clone()];
        subject.is_refused(
            "frames that inflate",
            2 * FRAME as u64,
            stream(subject.code, 2 * FRAME as u64, &chunks),
            |_| {},
        );
        let plain = bomb.len() as u64 + 1;
        subject.is_refused("a last frame that inflates", plain, stream(subject.code, plain, &[short]), |_| {});
    }
}

#[test]
fn lengths_that_chunks_claim_are_checked_before_anything_is_allocated() {
    for subject in Subject::all() {
        let small = inflated(subject.codec);
        let small = &small[..small.len().min(1000)];
        for (stored, plain) in
            [(u32::MAX, u32::MAX), (small.len() as u32, u32::MAX), (u32::MAX, FRAME as u32), (0, FRAME as u32), (0, 0)]
        {
            let bytes = stream(subject.code, FRAME as u64, &[chunk(small, stored, plain)]);
            subject.is_refused(&format!("a chunk of {stored} for {plain} bytes"), FRAME as u64, bytes, |_| {});
        }
    }
}

#[test]
fn contents_that_are_longer_than_their_streams_are_refused() {
    for subject in Subject::all() {
        let honest = subject.forgery.segments[0].clone();
        let plain = 3 * FRAME as u64 + 77;
        // Only the manifest says so.
        subject.is_refused("a manifest that says more", SEGMENT, honest.clone(), |_| {});
        subject.is_refused("a manifest that says less", plain - 1, honest.clone(), |_| {});
        // A segment of a GiB, with a table of all its frames.
        let huge = 1u64 << 30;
        let geometry = |forgery: &mut Forgery| forgery.document["geometry"]["segment_size"] = json!(huge);
        subject.is_refused("a huge segment, with the table of a small one", huge, honest, geometry);
        let count = huge / FRAME as u64;
        let few = tail(subject.code, huge, count, &[17, 17, 17]);
        subject.is_refused("a huge segment, with a table cut short", huge, few, geometry);
        let lens = vec![17; count as usize];
        let only_table = tail(subject.code, huge, count, &lens);
        subject.is_refused("a huge segment, with a table and no frames", huge, only_table, geometry);
        let one = chunk(&[0], 1, FRAME as u32);
        let frames = stream(subject.code, huge, &vec![one; count as usize]);
        subject.is_refused("a huge segment of frames of a byte", huge, frames, geometry);
    }
}

#[test]
fn tables_that_overlap_or_overflow_are_refused() {
    for subject in Subject::all() {
        let plain = 2 * FRAME as u64;
        let body = vec![0; 5000];
        for lens in [[u32::MAX, u32::MAX], [0, 5000], [16, 4984], [17, 17], [2500, 2501], [FRAME as u32 + 17, 17]] {
            let bytes = [body.clone(), tail(subject.code, plain, 2, &lens)].concat();
            subject.is_refused(&format!("a table of {lens:?}"), plain, bytes, |_| {});
        }
        for count in [0, 1, 3, u64::MAX] {
            let bytes = [body.clone(), tail(subject.code, plain, count, &[2500, 2500])].concat();
            subject.is_refused(&format!("a footer of {count} frames"), plain, bytes, |_| {});
        }
    }
}
