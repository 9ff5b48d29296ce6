//! Objects: what is written is read, whatever happened to the shards in
//! between, or an error says what is lost.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod kit;

use blockframe::archive::{ArchiveError, Depth, EventKind, ObjectRef, Verdict};
use blockframe::base::{ArchiveId, ContentRange, Digest};
use blockframe::format::ArchiveDescriptor;
use blockframe::store::BlockStore;
use kit::{
    Fixture, compressible, content, encoded_variants, files_below, leafy_descriptor, reference, scratch, shard_files,
    tiny_descriptor,
};
use std::path::Path;

/// One length for each tier and each kind of end: odd, a whole segment, one byte more.
const LENGTHS: [usize; 14] =
    [1, 63, 64, 4095, 9_999, 10_000, 16_384, 19_999, 20_000, 20_480, 40_961, 59_999, 60_000, 131_073];

fn read_all(fixture: &Fixture, reference: &ObjectRef) -> Result<Vec<u8>, ArchiveError> {
    let object = fixture.archive.object(reference)?;
    let len = object.content_len().unwrap();
    Ok(object.read(ContentRange::between(0, len))?.bytes().to_vec())
}

fn health(fixture: &Fixture, reference: &ObjectRef) -> blockframe::archive::ObjectHealth {
    fixture.archive.object_health(reference, Depth::Full, &|_| {}).unwrap()
}

fn repair(fixture: &Fixture, reference: &ObjectRef) -> blockframe::archive::RepairOutcome {
    let plan = health(fixture, reference).plan(&fixture.archive).unwrap();
    fixture.archive.execute(&plan, &|_| {}).unwrap()
}

#[test]
fn contents_of_every_length_and_tier_read_back_in_every_range() {
    for rules in encoded_variants(&tiny_descriptor()).into_iter().chain(encoded_variants(&leafy_descriptor())) {
        read_back_in_every_range(&Fixture::new(rules));
    }
}

fn read_back_in_every_range(fixture: &Fixture) {
    for (seed, len) in LENGTHS.into_iter().enumerate() {
        let bytes = compressible(len, seed as u64);
        let written = fixture.put(&format!("file{len}"), &bytes);
        assert_eq!(written.manifest.facts().unwrap().key.hash, Digest::of(&bytes), "{len}");
        let object = fixture.object(&reference(&written));
        let step = (len / 7).max(1);
        for start in (0..len).step_by(step) {
            for size in [1, 100, 5000, len] {
                let range = ContentRange::between(start as u64, (start + size) as u64);
                let end = (start + size).min(len);
                assert!(object.read(range).unwrap().bytes() == &bytes[start..end], "{len} bytes, {range}");
            }
        }
        assert_eq!(health(fixture, &reference(&written)).verdict, Verdict::Healthy, "{len}");
        let again = fixture.put(&format!("file{len}"), &bytes);
        assert!(again.already_there, "{len}");
        assert_eq!(again.manifest.root(), written.manifest.root(), "{len}");
    }
}

#[test]
fn plain_segments_concatenate_to_the_content_and_hash_to_the_manifest() {
    let fixture = Fixture::new(tiny_descriptor());
    for (len, tier) in [(9_999, 1), (19_999, 2), (59_999, 3), (131_073, 4)] {
        let bytes = content(len, 5);
        let written = fixture.put("plain", &bytes);
        assert_eq!(written.manifest.geometry().tier(), tier);
        let mut segments: Vec<_> = shard_files(&fixture.path(&reference(&written)))
            .into_iter()
            .filter(|path| {
                let text = path.to_string_lossy();
                !text.starts_with("outer") && (text.contains("segments/") || text == "data.dat")
            })
            .collect();
        segments.sort_by_key(|path| {
            let digits: String =
                path.file_stem().unwrap().to_string_lossy().chars().filter(char::is_ascii_digit).collect();
            digits.parse::<u32>().unwrap_or(0)
        });
        let joined: Vec<u8> = segments
            .iter()
            .flat_map(|path| std::fs::read(fixture.path(&reference(&written)).join(path)).unwrap())
            .collect();
        assert!(joined == bytes, "tier {tier}");
        let manifest =
            String::from_utf8(std::fs::read(fixture.path(&reference(&written)).join("manifest.json")).unwrap())
                .unwrap();
        for path in shard_files(&fixture.path(&reference(&written))) {
            let shard = std::fs::read(fixture.path(&reference(&written)).join(&path)).unwrap();
            assert!(manifest.contains(&Digest::of(&shard).to_hex()), "{path:?}");
        }
    }
}

/// Deletes every combination of up to `m` of a block's shard files.
fn every_bearable_loss(files: &[String], m: u32) -> Vec<Vec<&str>> {
    (1u32..1 << files.len())
        .filter(|set| set.count_ones() <= m)
        .map(|set| (0..files.len()).filter(|file| set >> file & 1 == 1).map(|file| files[file].as_str()).collect())
        .collect()
}

fn block_files(object: &Path, block: &str) -> Vec<String> {
    shard_files(object)
        .into_iter()
        .map(|path| path.to_string_lossy().into_owned())
        .filter(|path| path.starts_with(block))
        .collect()
}

#[test]
fn every_loss_of_up_to_m_shards_is_invisible_and_repaired_to_the_last_byte() {
    for rules in encoded_variants(&tiny_descriptor()) {
        lose_every_bearable_set(&rules);
    }
}

fn lose_every_bearable_set(rules: &ArchiveDescriptor) {
    for (len, block, m) in
        [(5_001, "", 3), (17_001, "", 3), (30_001, "blocks/block_1", 2), (30_001, "blocks/block_0", 2)]
    {
        let mut fixture = Fixture::new(ArchiveDescriptor { id: ArchiveId::random(), ..rules.clone() });
        let bytes = compressible(len, 9);
        let reference = reference(&fixture.put("loss", &bytes));
        let object = fixture.path(&reference);
        let pristine = files_below(&object);
        let mut files = block_files(&object, block);
        if len == 17_001 {
            files.retain(|file| file.contains("segment_4"));
        }
        for lost in every_bearable_loss(&files, m) {
            for file in &lost {
                std::fs::remove_file(object.join(file)).unwrap();
            }
            fixture = fixture.reopened();
            assert!(read_all(&fixture, &reference).unwrap() == bytes, "{lost:?}");
            let outcome = repair(&fixture, &reference);
            assert_eq!((outcome.done, outcome.failed), (lost.len(), 0), "{lost:?}");
            assert!(files_below(&object) == pristine, "{lost:?}");
        }
    }
}

#[test]
fn more_loss_than_the_code_bears_is_an_error_for_that_block_only() {
    let fixture = Fixture::new(tiny_descriptor());
    let bytes = content(50_000, 3);
    let reference = reference(&fixture.put("gone", &bytes));
    for file in ["segments/segment_0.dat", "segments/segment_2.dat", "parity/block_parity_1.dat"] {
        std::fs::remove_file(fixture.path(&reference).join("blocks/block_0").join(file)).unwrap();
    }
    let fixture = fixture.reopened();
    let object = fixture.object(&reference);
    let read = |start: u64, end: u64| object.read(ContentRange::between(start, end));
    assert!(matches!(read(0, 10), Err(ArchiveError::Unrecoverable { .. })));
    assert!(matches!(read(8192, 8193), Err(ArchiveError::Unrecoverable { .. })));
    assert!(read(4096, 8192).unwrap().bytes() == &bytes[4096..8192], "an undamaged segment of the block");
    assert!(read(16_384, 50_000).unwrap().bytes() == &bytes[16_384..], "the other blocks");
    let found = health(&fixture, &reference);
    assert_eq!(found.verdict, Verdict::Unrecoverable);
    assert_eq!(found.lost.len(), 3);
    // Repair restores nothing wrong, and says that it failed.
    assert!(repair(&fixture, &reference).failed > 0);
    assert!(matches!(read(0, 10), Err(ArchiveError::Unrecoverable { .. })));
}

#[test]
fn damage_in_more_than_m_shards_is_healed_where_it_does_not_coincide() {
    let fixture = Fixture::new(leafy_descriptor());
    let bytes = content(4 * 65536, 4);
    let reference = reference(&fixture.put("scattered", &bytes));
    let object = fixture.path(&reference);
    let pristine = files_below(&object);
    for (leaf, file) in block_files(&object, "blocks/block_0").iter().enumerate().take(4) {
        let mut shard = std::fs::read(object.join(file)).unwrap();
        shard[leaf * 16384 + 77] ^= 1;
        std::fs::write(object.join(file), shard).unwrap();
    }
    let fixture = fixture.reopened();
    assert_eq!(health(&fixture, &reference).verdict, Verdict::Recoverable);
    assert!(read_all(&fixture, &reference).unwrap() == bytes);
    repair(&fixture, &reference);
    assert!(files_below(&object) == pristine);
}

#[test]
fn a_flipped_bit_is_healed_by_the_read_and_recorded() {
    let fixture = Fixture::new(leafy_descriptor());
    let bytes = content(200_000, 6);
    let reference = reference(&fixture.put("flip", &bytes));
    let object = fixture.path(&reference);
    let pristine = files_below(&object);
    let file = object.join("blocks/block_0/segments/segment_1.dat");
    let mut shard = std::fs::read(&file).unwrap();
    shard[20_000] ^= 0x40;
    std::fs::write(&file, &shard).unwrap();
    let fixture = fixture.reopened();
    let range = ContentRange::between(65_536 + 19_990, 65_536 + 20_010);
    assert!(fixture.object(&reference).read(range).unwrap().bytes() == &bytes[85_526..85_546]);
    assert!(files_below(&object) == pristine, "healed on disk");
    let events = fixture.events.0.lock().unwrap();
    assert!(
        events.iter().any(|event| event.kind == EventKind::Healed && event.offset == 16384 && event.length == 16384)
    );
}

#[test]
fn a_whole_lost_block_of_tier_4_is_restored_through_the_outer_code() {
    for block in ["blocks/block_0", "blocks/block_4", "blocks/block_7", "outer/group_1/block_0"] {
        let fixture = Fixture::new(tiny_descriptor());
        let bytes = content(131_073, 8);
        let reference = reference(&fixture.put("big", &bytes));
        let object = fixture.path(&reference);
        let pristine = files_below(&object);
        std::fs::remove_dir_all(object.join(block)).unwrap();
        let fixture = fixture.reopened();
        assert!(read_all(&fixture, &reference).unwrap() == bytes, "{block}");
        assert_ne!(health(&fixture, &reference).verdict, Verdict::Unrecoverable, "{block}");
        let outcome = repair(&fixture, &reference);
        assert_eq!(outcome.failed, 0, "{block}");
        let after = files_below(&object);
        for (path, bytes) in &pristine {
            assert!(after.get(path) == Some(bytes), "{block}: {path:?}");
        }
    }
}

#[test]
fn every_flipped_byte_of_an_object_reads_right_and_repairs() {
    for len in [700, 12_500, 30_001, 65_000] {
        let mut fixture = Fixture::new(tiny_descriptor());
        let bytes = content(len, len as u64);
        let reference = reference(&fixture.put("flips", &bytes));
        let object = fixture.path(&reference);
        let pristine = files_below(&object);
        for (path, good) in &pristine {
            // A prime step reaches every kind of place.
            let step = if good.len() < 1500 { 7 } else { 499 };
            for at in (0..good.len()).step_by(step) {
                let mut bad = good.clone();
                bad[at] ^= 1 << (at % 8);
                std::fs::write(object.join(path), &bad).unwrap();
                fixture = fixture.reopened();
                assert!(read_all(&fixture, &reference).unwrap() == bytes, "{path:?} byte {at}");
                std::fs::write(object.join(path), &bad).unwrap();
                fixture = fixture.reopened();
                assert_ne!(health(&fixture, &reference).verdict, Verdict::Healthy, "{path:?} byte {at}");
                assert_eq!(repair(&fixture, &reference).failed, 0, "{path:?} byte {at}");
                assert!(std::fs::read(object.join(path)).unwrap() == *good, "{path:?} byte {at}");
            }
        }
    }
}

#[test]
fn a_shard_that_is_cut_short_or_grown_is_damage() {
    let fixture = Fixture::new(leafy_descriptor());
    let bytes = content(300_000, 2);
    let reference = reference(&fixture.put("length", &bytes));
    let object = fixture.path(&reference);
    let pristine = files_below(&object);
    let file = object.join("blocks/block_0/segments/segment_2.dat");
    let mut fixture = fixture;
    for len in [0, 1, 16_384, 40_000, 65_535, 65_537] {
        std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(len).unwrap();
        fixture = fixture.reopened();
        assert!(read_all(&fixture, &reference).unwrap() == bytes, "{len}");
        assert_eq!(health(&fixture, &reference).verdict, Verdict::Recoverable, "{len}");
        assert_eq!(repair(&fixture, &reference).failed, 0, "{len}");
        assert!(files_below(&object) == pristine, "{len}");
    }
}

#[test]
fn a_content_that_is_stored_already_is_stored_once() {
    let fixture = Fixture::new(tiny_descriptor());
    let bytes = content(30_000, 1);
    let first = fixture.put("same", &bytes);
    let second = fixture.put("same", &bytes);
    assert!(!first.already_there);
    assert!(second.already_there);
    assert_eq!(first.manifest.root(), second.manifest.root());
    assert!(std::fs::read_dir(fixture.dir.path().join(".blockframe/tmp")).map_or(true, |mut dir| dir.next().is_none()));
}

#[test]
fn a_degraded_read_reads_at_most_its_range_of_k_other_shards() {
    let mut descriptor = tiny_descriptor();
    let rule = blockframe::format::TierRule {
        segment_size: 262_144,
        min_segment_size: 262_144,
        k: 30,
        m: 3,
        below: None,
        ..descriptor.tiers[2]
    };
    descriptor.tiers = vec![rule];
    let fixture = Fixture::new(descriptor);
    let bytes = content(30 * 262_144, 4);
    let reference = reference(&fixture.put("wide", &bytes));
    std::fs::remove_file(fixture.path(&reference).join("blocks/block_0/segments/segment_7.dat")).unwrap();
    let store = std::sync::Arc::new(blockframe::store::FaultStore::new(fixture.store.clone(), 1));
    let clock = std::sync::Arc::new(blockframe::base::SystemClock);
    let archive = blockframe::archive::Archive::open(store.clone(), clock, std::sync::Arc::new(())).unwrap();
    let object = archive.object(&reference).unwrap();
    let segment = 7 * 262_144;
    // The leaf hashes are loaded by a first read elsewhere in the shards.
    object.read(ContentRange::between(segment, segment + 1)).unwrap();
    store.reset_counters();
    let range = ContentRange::between(segment + 131_072, segment + 262_144);
    let read = object.read(range).unwrap();
    assert!(read.bytes() == &bytes[range.start() as usize..range.end() as usize]);
    assert!(store.counters().bytes_read() <= 31 * range.len(), "{} bytes", store.counters().bytes_read());
}

#[test]
fn unreadable_shards_are_handled_like_missing_ones() {
    use blockframe::store::{Fault, FaultStore, Operation, StoreErrorKind};
    for kind in [StoreErrorKind::Io, StoreErrorKind::Denied, StoreErrorKind::NotFound] {
        for operation in [Operation::Open, Operation::ReadAt] {
            let fixture = Fixture::new(leafy_descriptor());
            let bytes = content(300_000, 2);
            let reference = reference(&fixture.put("eio", &bytes));
            let store = std::sync::Arc::new(FaultStore::new(fixture.store.clone(), 1));
            store.inject(Fault::fail(kind).on(&[operation]).at("*/block_0/segments/segment_1.dat"));
            store.inject(Fault::fail(kind).on(&[operation]).at("*/block_0/segments/segment_3.dat"));
            let clock = std::sync::Arc::new(blockframe::base::SystemClock);
            let archive = blockframe::archive::Archive::open(store.clone(), clock, std::sync::Arc::new(())).unwrap();
            let object = archive.object(&reference).unwrap();
            let read = object.read(ContentRange::between(0, 300_000)).unwrap();
            assert!(read.bytes() == bytes, "{kind:?} on {operation:?}");
            let found = archive.object_health(&reference, Depth::Full, &|_| {}).unwrap();
            assert_eq!(found.verdict, Verdict::Recoverable, "{kind:?} on {operation:?}");
            let plan = found.plan(&archive).unwrap();
            store.heal();
            assert_eq!(archive.execute(&plan, &|_| {}).unwrap().failed, 0, "{kind:?} on {operation:?}");
            assert_eq!(health(&fixture, &reference).verdict, Verdict::Healthy, "{kind:?} on {operation:?}");
        }
    }
}

#[test]
fn a_full_store_fails_a_commit_and_leaves_nothing_of_it() {
    use blockframe::store::FaultStore;
    let fixture = Fixture::new(tiny_descriptor());
    let before = files_below(fixture.dir.path());
    let store = std::sync::Arc::new(FaultStore::new(fixture.store.clone(), 1));
    let clock = std::sync::Arc::new(blockframe::base::SystemClock);
    let archive = blockframe::archive::Archive::open(store.clone(), clock, std::sync::Arc::new(())).unwrap();
    for space in [0, 1000, 50_000, 100_000] {
        store.limit_space(Some(space));
        let full =
            Fixture { archive: archive.clone(), store: store.clone(), dir: scratch(), events: fixture.events.clone() };
        let error = full.try_put("full", &content(131_073, 1)).unwrap_err();
        assert_eq!(error.class(), blockframe::base::ErrorClass::NoSpace, "{space}");
        assert_eq!(files_below(fixture.dir.path()), before, "{space}");
    }
}

#[test]
fn a_commit_cut_off_at_any_operation_leaves_a_whole_object_or_none() {
    use blockframe::archive::Archive;
    use blockframe::store::{Fault, FaultStore, MemoryStore, Operation, StoreErrorKind};
    use std::sync::Arc;
    let bytes = content(30_001, 5);
    for nth in 1..400 {
        let memory = Arc::new(MemoryStore::new("memory"));
        Archive::create(memory.clone(), tiny_descriptor(), "test".into()).unwrap();
        let store = Arc::new(FaultStore::new(memory.clone(), nth));
        store.inject(Fault::fail(StoreErrorKind::Io).on(&Operation::CHANGES).from_nth(nth));
        let open = |store| Archive::open(store, Arc::new(blockframe::base::SystemClock), Arc::new(())).unwrap();
        let fixture =
            Fixture { archive: open(store.clone()), store: store.clone(), dir: scratch(), events: Default::default() };
        let result = fixture.try_put("cut", &bytes);
        memory.crash(nth);
        let archive = open(memory.clone());
        let names: Vec<_> =
            memory.list(None).unwrap().into_iter().filter_map(|listed| listed.name.parse().ok()).collect();
        let found: Vec<_> = names.iter().map(|name| archive.load_manifest(name).unwrap()).collect();
        match (&result, found.as_slice()) {
            (Ok(_), [manifest]) | (Err(_), [manifest]) => {
                let reference = ObjectRef { name: manifest.name.clone(), root: manifest.root() };
                let health = archive.object_health(&reference, Depth::Full, &|_| {}).unwrap();
                assert_eq!(health.verdict, Verdict::Healthy, "cut at {nth}");
            }
            (Err(_), []) => {}
            other => panic!("cut at {nth}: {other:?}"),
        }
        if result.is_ok() {
            return;
        }
    }
    panic!("a commit of 30,001 bytes should need fewer operations");
}

#[test]
fn the_outer_code_restores_a_last_block_that_is_shorter_than_the_others() {
    let mut descriptor = tiny_descriptor();
    descriptor.tiers[3].segment_size = 3 * 16_384 + 4096;
    descriptor.tiers[3].min_segment_size = descriptor.tiers[3].segment_size;
    // The last block's one segment ends within the first leaf, between units, at a leaf's end, in the last leaf.
    for tail in [1u64, 8081, 16_384, 16_385, 50_001] {
        let mut fixture = Fixture::new(descriptor.clone());
        let bytes = content((8 * descriptor.tiers[3].segment_size + tail) as usize, tail);
        let reference = reference(&fixture.put("short", &bytes));
        let object = fixture.path(&reference);
        let pristine = files_below(&object);
        for block in ["blocks/block_2", "blocks/block_0"] {
            std::fs::remove_dir_all(object.join(block)).unwrap();
            fixture = fixture.reopened();
            assert!(read_all(&fixture, &reference).unwrap() == bytes, "{block}, tail {tail}");
            assert_eq!(repair(&fixture, &reference).failed, 0, "{block}, tail {tail}");
            assert!(files_below(&object) == pristine, "{block}, tail {tail}");
        }
    }
}
