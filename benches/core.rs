//! Speed of the archive core, each figure as a ratio to a baseline that is
//! measured in the same run on the same disk:
//!
//! ```text
//! cargo bench --bench core -- [DIRECTORY] [SIZE_IN_MIB]
//! ```
//!
//! DIRECTORY is on the disk to be measured (default: the temporary directory);
//! the word `ciphers` in its place measures the ciphers alone.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use blockframe::archive::{Archive, ContentSource, Depth, ObjectPlan, ObjectRef, WriteControl};
use blockframe::base::{ArchiveId, ContentRange, Secret, SystemClock, Timestamp};
use blockframe::codec::compress::{CodecSpec, FRAME_LEN, FrameDecoder, FrameEncoder};
use blockframe::codec::seal::{CipherSuite, FrameCipher, Tag, frame_cipher, portable_cipher};
use blockframe::format::{ArchiveDescriptor, ObjectKind, Profile};
use blockframe::store::LocalStore;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

struct FileSource {
    file: File,
    len: u64,
}

impl ContentSource for FileSource {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn will_need(&self, range: ContentRange) {
        let len = std::num::NonZeroU64::new(range.len());
        let _ = rustix::fs::fadvise(&self.file, range.start(), len, rustix::fs::Advice::WillNeed);
    }
}

/// User and system time of this process, seconds.
fn times() -> [f64; 2] {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    [11, 12].map(|field| fields[field].parse::<f64>().unwrap() / 100.0)
}

/// Both of them.
fn cpu() -> f64 {
    times().iter().sum()
}

/// Peak resident memory of this process, MiB.
fn peak_rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, f64, f64) {
    let (start, used) = (Instant::now(), cpu());
    let result = work();
    (result, start.elapsed().as_secs_f64(), cpu() - used)
}

fn drop_caches() {
    let _ = Command::new("sync").status();
    let _ = std::fs::write("/proc/sys/vm/drop_caches", "3");
}

fn make_input(path: &Path, len: u64) {
    let mut file = File::create(path).unwrap();
    let mut reader = blake3::Hasher::new().update(b"bench").finalize_xof();
    let mut buffer = vec![0; 1 << 20];
    for _ in 0..len >> 20 {
        reader.fill(&mut buffer);
        file.write_all(&buffer).unwrap();
    }
    file.sync_all().unwrap();
}

/// Seconds that `cp` and `sync` need to write `bytes`, taken from `input` again and again.
fn copy_baseline(input: &Path, dir: &Path, bytes: u64) -> f64 {
    let len = input.metadata().unwrap().len();
    let start = Instant::now();
    let copies = bytes.div_ceil(len);
    for copy in 0..copies {
        assert!(Command::new("cp").arg(input).arg(dir.join(format!("copy{copy}"))).status().unwrap().success());
    }
    Command::new("sync").status().unwrap();
    let seconds = start.elapsed().as_secs_f64() * bytes as f64 / (copies * len) as f64;
    (0..copies).for_each(|copy| std::fs::remove_file(dir.join(format!("copy{copy}"))).unwrap());
    seconds
}

fn archive(dir: &Path, profile: Profile) -> Archive {
    let _ = std::fs::remove_dir_all(dir);
    std::fs::create_dir_all(dir).unwrap();
    let store = Arc::new(LocalStore::open(dir).unwrap());
    let descriptor = ArchiveDescriptor::new(profile, ArchiveId::random(), Timestamp::default());
    Archive::create(store.clone(), descriptor, "bench".into()).unwrap();
    Archive::open(store, Arc::new(SystemClock), Arc::new(())).unwrap()
}

fn commit(archive: &Archive, input: &Path) -> ObjectRef {
    let file = File::open(input).unwrap();
    let source = FileSource { len: file.metadata().unwrap().len(), file };
    let plan =
        ObjectPlan { readable: b"input".to_vec(), kind: ObjectKind::File, sequence: 1, entry: None, compression: None };
    let control = WriteControl { progress: &|_| {}, cancel: &AtomicBool::new(false) };
    let written = archive.write_object(&source, &plan, &control).unwrap();
    ObjectRef { name: written.manifest.name.clone(), root: written.manifest.root() }
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / (1u64 << 30) as f64
}

fn commits(dir: &Path, input: &Path) -> (Archive, ObjectRef) {
    let len = input.metadata().unwrap().len();
    let mut last = None;
    for profile in [Profile::Compact, Profile::Classic] {
        drop_caches();
        std::io::copy(&mut File::open(input).unwrap(), &mut io::sink()).unwrap();
        let archive = archive(&dir.join(profile.name()), profile);
        let [user, _] = times();
        let (reference, seconds, used) = timed(|| commit(&archive, input));
        let user = times()[0] - user;
        let stored = archive.object(&reference).unwrap().manifest().geometry().stored_len();
        let baseline = copy_baseline(input, dir, stored);
        println!(
            "commit {} {:.1} GiB: {:.2} GiB/s of input, {:.2} CPU s/GiB ({:.2} of it not in the kernel), peak RSS {} MiB; ratio to cp + sync of the same bytes {:.2}",
            profile.name(),
            gib(len),
            gib(len) / seconds,
            used / gib(len),
            user / gib(len),
            peak_rss(),
            baseline / seconds
        );
        last = Some((archive, reference));
    }
    last.unwrap()
}

fn reads(archive: &Archive, reference: &ObjectRef, input: &Path) {
    let len = input.metadata().unwrap().len();
    let object = archive.object(reference).unwrap();
    let read = || {
        let mut buffer = Vec::new();
        let mut at = 0;
        while at < len {
            let range = ContentRange::between(at, (at + (128 << 10)).min(len));
            let verified = object.read_reusing(range, buffer).unwrap();
            at = verified.range().end();
            buffer = verified.into_buffer();
        }
    };
    read();
    let ((), seconds, used) = timed(read);
    let mut buffer = vec![0; 128 << 10];
    let ((), plain, _) = timed(|| {
        let mut file = File::open(input).unwrap();
        while file.read(&mut buffer).unwrap() > 0 {}
    });
    println!(
        "read verified, 128 KiB, from the page cache: {:.2} GiB/s, {:.2} CPU s/GiB; ratio to plain read {:.2}",
        gib(len) / seconds,
        used / gib(len),
        plain / seconds
    );
}

fn verify(archive: &Archive, reference: &ObjectRef, dir: &Path) {
    let stored = archive.object(reference).unwrap().manifest().geometry().stored_len();
    let check = || archive.object_health(reference, Depth::Full, &|_| {}).unwrap();
    check();
    let (_, seconds, used) = timed(check);
    let script = format!("find {} -name '*.dat' -print0 | xargs -0 b3sum > /dev/null", dir.join("classic").display());
    let (status, plain, _) = timed(|| Command::new("sh").arg("-c").arg(script).status());
    let ratio = if status.is_ok_and(|status| status.success()) {
        format!("{:.2}", plain / seconds)
    } else {
        "(no b3sum)".into()
    };
    println!(
        "verify: {:.2} GiB/s, {:.2} CPU s/GiB; ratio to b3sum of the same files {ratio}",
        gib(stored) / seconds,
        used / gib(stored)
    );
}

/// The middle of the durations of `count` reads of 128 KiB in one segment, microseconds.
fn median_read(archive: &Archive, reference: &ObjectRef, segment: u64, count: u64) -> f64 {
    let object = archive.object(reference).unwrap();
    let size = object.manifest().geometry().segment_size();
    let mut durations: Vec<f64> = (0..count)
        .map(|n| {
            let start = segment * size + (n * 7919 * (128 << 10)) % (size - (128 << 10)) / (128 << 10) * (128 << 10);
            let (_, seconds, _) = timed(|| object.read(ContentRange::between(start, start + (128 << 10))).unwrap());
            seconds * 1e6
        })
        .collect();
    durations.sort_by(f64::total_cmp);
    durations[durations.len() / 2]
}

fn read_block(archive: &Archive, reference: &ObjectRef) -> f64 {
    let object = archive.object(reference).unwrap();
    let geometry = object.manifest().geometry();
    let len = geometry.segment_size() * u64::from(geometry.k());
    let ((), seconds, _) = timed(|| {
        let mut buffer = Vec::new();
        for at in (0..len).step_by(1 << 20) {
            buffer = object.read_reusing(ContentRange::between(at, at + (1 << 20)), buffer).unwrap().into_buffer();
        }
    });
    seconds
}

/// Reads around a lost segment, and the repair of scattered damage, in RS(30,3).
fn damage(archive: &Archive, reference: &ObjectRef, dir: &Path) {
    let healthy = median_read(archive, reference, 3, 200);
    let healthy_block = read_block(archive, reference);
    let object_dir = dir.join("classic").join(reference.name.as_str());
    let segment = object_dir.join("blocks/block_0/segments/segment_3.dat");
    std::fs::rename(&segment, dir.join("away")).unwrap();
    // A fresh archive: the open one still has the file.
    let store = Arc::new(LocalStore::open(&dir.join("classic")).unwrap());
    let archive = Archive::open(store, Arc::new(SystemClock), Arc::new(())).unwrap();
    let degraded = median_read(&archive, reference, 3, 100);
    println!(
        "degraded 128 KiB read of RS(30,3), page cache: p50 {degraded:.0} µs, healthy {healthy:.0} µs: {:.0} times",
        degraded / healthy
    );
    let degraded_block = read_block(&archive, reference);
    println!(
        "a block of RS(30,3) with one segment lost: {degraded_block:.2} s, healthy {healthy_block:.2} s; ratio {:.2}",
        healthy_block / degraded_block
    );
    std::fs::rename(dir.join("away"), &segment).unwrap();
    let shards: Vec<PathBuf> = std::fs::read_dir(object_dir.join("blocks/block_0/segments"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    for n in 0..64u64 {
        let file =
            std::fs::OpenOptions::new().read(true).write(true).open(&shards[n as usize * 13 % shards.len()]).unwrap();
        let at = (n * 104_729) % 2048 * 16_384;
        let mut page = vec![0; 4096];
        file.read_exact_at(&mut page, at).unwrap();
        page.iter_mut().for_each(|byte| *byte ^= 0xff);
        file.write_all_at(&page, at).unwrap();
    }
    let (found, verifying, _) = timed(|| archive.object_health(reference, Depth::Full, &|_| {}).unwrap());
    let (outcome, repairing, _) = timed(|| archive.execute(&found.plan(&archive).unwrap(), &|_| {}).unwrap());
    println!(
        "repair of 64 flipped pages: {repairing:.2} s beyond a verification of {verifying:.2} s, {} KiB written, {} failed",
        outcome.written >> 10,
        outcome.failed
    );
}

/// GiB/s with which `work` goes over `bytes` bytes, by the processor time of this thread.
fn speed(bytes: usize, work: impl FnOnce()) -> f64 {
    let used = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    };
    let start = used();
    work();
    gib(bytes as u64) / (used() - start)
}

/// Encrypts and decrypts frames in place: 4 MiB of them each time, more than the nearest caches hold.
fn cipher(cipher: &dyn FrameCipher, frame_len: usize, copying: f64) {
    let mut bytes = vec![0x5a; 4 << 20];
    let mut tags: Vec<Tag> = Vec::with_capacity(bytes.len() / frame_len);
    let context = [7; 64];
    let nonce = |number: usize| [[0; 4], (number as u32).to_le_bytes(), [0; 4]].concat().try_into().unwrap();
    let (mut sealing, mut opening) = (0.0_f64, 0.0_f64);
    for _ in 0..16 {
        sealing = sealing.max(speed(bytes.len(), || {
            tags.clear();
            let frames = bytes.chunks_exact_mut(frame_len).enumerate();
            tags.extend(frames.map(|(number, frame)| cipher.seal(&nonce(number), &context, frame)));
        }));
        opening = opening.max(speed(bytes.len(), || {
            for (number, (frame, tag)) in bytes.chunks_exact_mut(frame_len).zip(&tags).enumerate() {
                cipher.open(&nonce(number), &context, frame, tag).unwrap();
            }
        }));
    }
    println!(
        "{cipher:?}, frames of {} KiB: seal {sealing:.2} GiB/s, open {opening:.2} GiB/s; ratios to memcpy {:.3}, {:.3}",
        frame_len >> 10,
        sealing / copying,
        opening / copying
    );
}

/// Each suite on one core, by both implementations.
fn ciphers() {
    let key = Secret::filled_by(|key| key.fill(0x42));
    for frame_len in [16 << 10, 128 << 10] {
        let (from, mut to) = (vec![0x5a_u8; 4 << 20], vec![0; 4 << 20]);
        let copying = (0..16).map(|_| {
            speed(from.len(), || {
                for (to, from) in to.chunks_exact_mut(frame_len).zip(from.chunks_exact(frame_len)) {
                    std::hint::black_box(to).copy_from_slice(std::hint::black_box(from));
                }
            })
        });
        let copying = copying.fold(0.0, f64::max);
        println!("memcpy of {} KiB: {copying:.2} GiB/s", frame_len >> 10);
        for suite in CipherSuite::ALL {
            let chosen = frame_cipher(suite, &key);
            let portable = portable_cipher(suite, &key);
            cipher(&*chosen, frame_len, copying);
            if format!("{chosen:?}") != format!("{portable:?}") {
                cipher(&*portable, frame_len, copying);
            }
        }
    }
}

/// Up to `len` bytes of programs and libraries, the way they lie one behind the other.
fn programs(len: usize) -> Vec<u8> {
    let mut files: Vec<PathBuf> = ["/usr/bin", "/usr/lib/x86_64-linux-gnu", "/usr/share/doc"]
        .iter()
        .flat_map(|dir| std::fs::read_dir(dir).into_iter().flatten())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.symlink_metadata().is_ok_and(|metadata| metadata.is_file()))
        .collect();
    files.sort();
    let mut bytes = Vec::with_capacity(len);
    for file in files {
        if bytes.len() < len {
            bytes.extend(std::fs::read(file).unwrap_or_default());
        }
    }
    bytes.truncate(len);
    bytes
}

/// CPU seconds of this thread, and of children that were waited for: codecs are compared
/// by what they compute, however busy the machine is.
fn computing<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let used = || {
        let own = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        let own = own.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9;
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        own + [13, 14].map(|field| fields[field].parse::<f64>().unwrap() / 100.0).iter().sum::<f64>()
    };
    let start = used();
    let result = work();
    (result, used() - start)
}

/// Lengths of the chunks in `out`, and the seconds it took.
fn encode(spec: CodecSpec, plain: &[u8], out: &mut Vec<u8>) -> (Vec<u32>, f64) {
    let mut encoder = FrameEncoder::new(spec).unwrap();
    out.clear();
    computing(|| plain.chunks(FRAME_LEN as usize).map(|frame| encoder.encode(frame, out).unwrap()).collect())
}

/// Each codec in and out, one thread, in memory.
fn codecs(dir: &Path) {
    let plain = programs(64 << 20);
    let mut noise = vec![0; plain.len()];
    blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut noise);
    let mib = plain.len() as f64 / f64::from(1 << 20);
    let mut copy = vec![1; plain.len()];
    let mut stream = vec![1; plain.len() + (1 << 20)];
    let ((), memcpy) = computing(|| copy.copy_from_slice(&plain));
    let (_, hash) = computing(|| blake3::hash(&plain));
    println!("codecs, {mib:.0} MiB of programs: memcpy {:.0} MiB/s, BLAKE3 {:.0} MiB/s", mib / memcpy, mib / hash);
    let file = dir.join("programs");
    std::fs::write(&file, &plain).unwrap();
    let (output, tool) =
        computing(|| Command::new("zstd").args(["-3", "-q", "--single-thread", "-c"]).arg(&file).output());
    match output.ok().filter(|output| output.status.success()).map(|output| output.stdout.len()) {
        Some(len) => {
            println!("zstd -3, the tool: {:.0} MiB/s, to {:.3} of it", mib / tool, len as f64 / plain.len() as f64);
        }
        None => println!("zstd -3, the tool: (no zstd)"),
    }
    for spec in ["zstd:1", "zstd:3", "zstd:9", "lz4", "gzip", "brotli:1", "brotli"] {
        let spec: CodecSpec = spec.parse().unwrap();
        let (chunks, coding) = encode(spec, &plain, &mut stream);
        let mut decoder = FrameDecoder::default();
        let ((), decoding) = computing(|| {
            let mut at = 0;
            for (len, frame) in chunks.iter().zip(copy.chunks_mut(FRAME_LEN as usize)) {
                decoder.decode(spec.codec, &stream[at..at + *len as usize], frame).unwrap();
                at += *len as usize;
            }
        });
        assert!(copy == plain);
        let stored = stream.len() as f64 / plain.len() as f64;
        let (_, refusing) = encode(spec, &noise, &mut stream);
        println!(
            "{spec}: in {:.0} MiB/s ({:.3} of BLAKE3, {:.2} of the tool), to {stored:.3} of it, out {:.0} MiB/s \
             ({:.2} of BLAKE3); noise in {:.0} MiB/s ({:.2} of BLAKE3, {:.2} of memcpy)",
            mib / coding,
            hash / coding,
            tool / coding,
            mib / decoding,
            hash / decoding,
            mib / refusing,
            hash / refusing,
            memcpy / refusing,
        );
    }
    std::fs::remove_file(&file).unwrap();
}

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| !arg.starts_with("--"));
    let first = args.next();
    ciphers();
    if first.as_deref() == Some("ciphers") {
        return;
    }
    let base = first.map_or_else(std::env::temp_dir, PathBuf::from);
    let mib: u64 = args.next().map_or(4096, |text| text.parse().expect("a size in MiB"));
    let dir = base.join("blockframe-bench");
    std::fs::create_dir_all(&dir).unwrap();
    let input = dir.join("input");
    codecs(&dir);
    make_input(&input, mib << 20);
    let (archive, reference) = commits(&dir, &input);
    reads(&archive, &reference, &input);
    verify(&archive, &reference, &dir);
    damage(&archive, &reference, &dir);
    std::fs::remove_dir_all(&dir).unwrap();
}
