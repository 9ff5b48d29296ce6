//! Another reader, in Python, written from docs/FORMAT.md: it reads what is
//! compressed, encrypted, or both, from the store's directory and the keys of
//! the epochs. See `tests/segment.py`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod kit;

use blockframe::archive::{Archive, ObjectPlan, WriteControl};
use blockframe::base::{ArchiveId, ContentRange, Secret, Timestamp};
use blockframe::codec::seal::CipherSuite;
use blockframe::format::{ArchiveDescriptor, ObjectKind, TierLayout, TierRule};
use blockframe::keys::{ArchiveKeys, Epoch, NewSlot, OpenRing, SlotKind, SlotSecret};
use kit::{Fixture, compressible, content, reference, tiny_descriptor};
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::AtomicBool;

/// Values of BLAKE3 at the lengths where its tree changes.
fn vectors() -> Vec<Value> {
    let lengths = [0, 1, 63, 64, 65, 1023, 1024, 1025, 2048, 2049, 3072, 4097, 7168, 31744];
    let vector = |length: usize| {
        let data: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        let mut derived = [0; 131];
        blake3::Hasher::new_derive_key("a context").update(&data).finalize_xof().fill(&mut derived);
        json!({
            "length": length,
            "hash": blake3::hash(&data).to_hex().as_str(),
            "keyed": blake3::keyed_hash(b"whats the Elvish word for friend", &data).to_hex().as_str(),
            "derived": hex::encode(derived),
        })
    };
    lengths.into_iter().map(vector).collect()
}

fn python(object: &Path, epochs: &Value) -> Output {
    python_with(json!({"object": object, "epochs": epochs, "vectors": vectors()}))
}

fn python_with(task: Value) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/segment.py");
    let mut child = Command::new("python3")
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python3 is installed (tests/run.sh installs it)");
    let written = child.stdin.take().unwrap().write_all(&serde_json::to_vec(&task).unwrap());
    let output = child.wait_with_output().unwrap();
    written.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    output
}

/// The bytes that every epoch's key is made of.
fn epoch_key(number: u32) -> [u8; 32] {
    [number as u8 + 40; 32]
}

fn keys(archive: ArchiveId, newest: u32) -> std::sync::Arc<ArchiveKeys> {
    let secret = |key: [u8; 32]| Secret::filled_by(|bytes: &mut [u8; 32]| *bytes = key);
    let epochs = (1..=newest).map(|number| (Epoch::new(number).unwrap(), secret(epoch_key(number)))).collect();
    ArchiveKeys::new(archive, secret([7; 32]), epochs).unwrap()
}

fn epochs() -> Value {
    json!({"1": hex::encode(epoch_key(1)), "2": hex::encode(epoch_key(2))})
}

/// Files of one segment, of segments, and of blocks.
fn rules(codec: Option<&str>, encryption: Option<CipherSuite>) -> ArchiveDescriptor {
    let row = |tier, below, layout, segment_size, k| TierRule {
        tier,
        below,
        layout,
        segment_size,
        min_segment_size: segment_size,
        k,
        m: 1,
        outer: None,
    };
    ArchiveDescriptor {
        tiers: vec![
            row(1, Some(10_000), TierLayout::Whole, 10_048, 1),
            row(2, Some(100_000), TierLayout::Segments, 32_768, 1),
            row(3, None, TierLayout::Blocks, 262_144, 2),
        ],
        compression: codec.map(|codec| codec.parse().unwrap()),
        encryption,
        ..tiny_descriptor()
    }
}

/// Contents that shrink and ones that do not, with the ends of segments and frames in them.
fn contents() -> Vec<Vec<u8>> {
    let mut mixed = compressible(262_144 + 901, 4);
    mixed[20_000..150_000].copy_from_slice(&content(130_000, 5));
    vec![vec![b'x'], compressible(3000, 1), content(40_000, 2), mixed]
}

fn reads_all(codec: Option<&str>, encryption: Option<CipherSuite>) {
    let mut fixture = Fixture::new(rules(codec, encryption));
    let id = fixture.archive.descriptor().id;
    for (number, content) in (0u32..).zip(contents()) {
        if encryption.is_some() {
            // Later objects are of a later epoch.
            fixture.archive = fixture.archive.unlocked(keys(id, 1 + number % 2));
        }
        let object = reference(&fixture.put("object", &content));
        let output = python(&fixture.path(&object), &epochs());
        let what = format!("{codec:?}, {encryption:?}, {} bytes", content.len());
        assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout == content, "{what}: it reads something else");
    }
}

#[test]
fn compressed_objects_are_read_by_another_reader() {
    ["zstd:3", "lz4", "gzip:6", "brotli:4"].into_iter().for_each(|codec| reads_all(Some(codec), None));
}

#[test]
fn encrypted_objects_are_read_by_another_reader() {
    CipherSuite::ALL.into_iter().for_each(|suite| reads_all(None, Some(suite)));
}

#[test]
fn compressed_and_encrypted_objects_are_read_by_another_reader() {
    for (codec, suite) in ["zstd:3", "lz4", "gzip:6"].into_iter().zip(CipherSuite::ALL) {
        reads_all(Some(codec), Some(suite));
    }
}

/// An object that shares segments with an earlier version of its content is read like any other.
#[test]
fn rewritten_objects_are_read_by_another_reader() {
    let mut descriptor = rules(Some("zstd:1"), Some(CipherSuite::Aes256Gcm));
    descriptor.tiers.truncate(1);
    descriptor.tiers[0] = TierRule {
        below: None,
        layout: TierLayout::Segments,
        segment_size: 32_768,
        min_segment_size: 32_768,
        ..descriptor.tiers[0]
    };
    let fixture = Fixture::new(descriptor);
    let archive: Archive = fixture.archive.unlocked(keys(fixture.archive.descriptor().id, 1));
    let fixture = Fixture { archive: archive.clone(), ..fixture };
    let mut bytes = compressible(150_000, 9);
    let base = reference(&fixture.put("object", &bytes));
    bytes[40_000..40_100].fill(1);
    let compression = archive.descriptor().compression;
    let plan = ObjectPlan { readable: b"x".to_vec(), kind: ObjectKind::File, sequence: 2, entry: None, compression };
    let control = WriteControl { progress: &|_| {}, cancel: &AtomicBool::new(false) };
    let base = archive.object(&base).unwrap();
    let written = archive.rewrite_object(&base, &bytes, &[ContentRange::between(40_000, 40_100)], &plan, &control);
    let object = reference(&written.unwrap());
    let output = python(&fixture.path(&object), &epochs());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout == bytes);
}

/// From the secret of a recovery phrase to the content: slot, archive key, epochs, and whatever authenticates them.
#[test]
fn the_key_ring_is_opened_by_another_reader() {
    let fixture = Fixture::new(rules(Some("zstd:1"), Some(CipherSuite::Aes256Gcm)));
    let descriptor = fixture.archive.descriptor();
    let secret = Secret::filled_by(|bytes: &mut [u8; 32]| *bytes = [0x5a; 32]);
    let other = Secret::filled_by(|bytes: &mut [u8; 32]| *bytes = [0x5b; 32]);
    let slot = |kind, secret: &Secret<32>, label: &str| NewSlot::new(SlotSecret::random(kind, secret).unwrap(), label);
    let slots = [slot(SlotKind::Shares, &other, "among \u{e9}ight \"quoted\""), slot(SlotKind::Recovery, &secret, "")];
    let now = Timestamp { seconds: 1_800_000_000, nanoseconds: 0 };
    let mut ring = OpenRing::create(descriptor.id, descriptor.digest().unwrap(), &slots, now).unwrap();
    ring.save(&*fixture.store).unwrap();
    ring.rotate(&*fixture.store, now).unwrap();
    let fixture = Fixture { archive: fixture.archive.unlocked(ring.keys().clone()), ..fixture };
    let content = compressible(3000, 8);
    let object = fixture.path(&reference(&fixture.put("object", &content)));
    for secret in [&secret, &other] {
        let task = json!({"object": object, "secret": hex::encode(secret.expose()), "vectors": vectors()});
        let output = python_with(task);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout == content);
    }
    let wrong = json!({"object": object, "secret": "5c".repeat(32), "vectors": vectors()});
    assert!(String::from_utf8_lossy(&python_with(wrong).stderr).contains("no slot opens"));
}
