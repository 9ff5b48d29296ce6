//! A changed content that is written as a new object beside the old one: the
//! same object as if all of it had been written, with the files that did not
//! change shared between the two.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod kit;

use blockframe::archive::{
    Archive, ArchiveError, ArchiveResult, ContentSource, Depth, Object, ObjectPlan, ObjectRef, Verdict, WriteControl,
    WrittenObject,
};
use blockframe::base::{ContentRange, Digest, SystemClock};
use blockframe::format::{ArchiveDescriptor, ObjectKind, OuterCode, TierLayout};
use blockframe::store::{BlockStore, Fault, FaultStore, LocalStore, MemoryStore, Operation, StoreErrorKind};
use kit::{Fixture, content, files_below, reference, scratch, shard_files, tiny_descriptor};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Tier 1 below 10,000 bytes, tier 2 below 200,000, tier 3 below 1,000,000; segments are subtrees of the content.
fn descriptor() -> ArchiveDescriptor {
    let mut descriptor = tiny_descriptor();
    let bounds = [Some(10_000), Some(200_000), Some(1_000_000), None];
    let segments = [10_048, 16_384, 32_768, 16_384];
    for ((tier, below), segment) in descriptor.tiers.iter_mut().zip(bounds).zip(segments) {
        (tier.below, tier.segment_size, tier.min_segment_size) = (below, segment, segment);
    }
    for tier in &mut descriptor.tiers[2..] {
        (tier.k, tier.m) = (6, 2);
    }
    descriptor.tiers[3].outer = Some(OuterCode { k: 4, m: 2 });
    descriptor
}

/// A content with holes, and where it was changed since it was committed.
#[derive(Debug, Clone)]
struct Edited {
    bytes: Vec<u8>,
    hole: Vec<bool>,
    data: Option<Vec<ContentRange>>,
    changed: Vec<ContentRange>,
    base_len: usize,
}

#[derive(Debug, Clone)]
enum Edit {
    Overwrite(f64, usize, u64),
    Extend(usize, u64),
    ExtendByHole(usize),
    Shorten(usize),
    Punch(f64, usize),
}

impl Edited {
    fn new(bytes: Vec<u8>) -> Self {
        let (hole, base_len) = (vec![false; bytes.len()], bytes.len());
        Self { bytes, hole, data: None, changed: Vec::new(), base_len }
    }

    fn put(&mut self, at: usize, bytes: &[u8], hole: bool) {
        let end = at + bytes.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
            self.hole.resize(end, true);
        }
        self.bytes[at..end].copy_from_slice(bytes);
        self.hole[at..end].fill(hole);
        // What only the new content has need not be told.
        if at < self.base_len {
            self.changed.push(ContentRange::between(at as u64, end as u64));
        }
    }

    fn apply(&mut self, edit: &Edit) {
        let at = |place: f64| ((self.bytes.len() as f64 * place) as usize).min(self.bytes.len() - 1);
        match *edit {
            Edit::Overwrite(place, len, seed) => {
                let at = at(place);
                let len = len.min(self.bytes.len() - at);
                self.put(at, &content(len, seed), false);
            }
            Edit::Punch(place, len) => {
                let at = at(place);
                let len = len.min(self.bytes.len() - at);
                self.put(at, &vec![0; len], true);
            }
            Edit::Extend(len, seed) => self.put(self.bytes.len(), &content(len, seed), false),
            Edit::ExtendByHole(len) => self.put(self.bytes.len(), &vec![0; len], true),
            Edit::Shorten(len) => {
                let left = self.bytes.len().saturating_sub(len).max(1);
                self.bytes.truncate(left);
                self.hole.truncate(left);
            }
        }
    }

    fn finish(mut self) -> Self {
        let mut data: Vec<ContentRange> = Vec::new();
        for at in (0..self.bytes.len()).filter(|at| !self.hole[*at]) {
            let at = at as u64;
            match data.last_mut() {
                Some(last) if last.end() == at => *last = ContentRange::between(last.start(), at + 1),
                _ => data.push(ContentRange::between(at, at + 1)),
            }
        }
        self.data = self.hole.contains(&true).then_some(data);
        self.changed.sort_by_key(|range| range.start());
        self
    }
}

impl ContentSource for Edited {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        self.bytes.read_at(offset, buffer)
    }

    fn data_ranges(&self) -> Option<&[ContentRange]> {
        self.data.as_deref()
    }
}

fn overwritten(bytes: &[u8], ranges: &[(usize, usize)]) -> Edited {
    let mut edited = Edited::new(bytes.to_vec());
    for (seed, (at, len)) in ranges.iter().enumerate() {
        edited.put(*at, &content(*len, 1000 + seed as u64), false);
    }
    edited.finish()
}

fn plan(name: &str) -> ObjectPlan {
    ObjectPlan { readable: name.into(), kind: ObjectKind::File, sequence: 1, entry: None, compression: None }
}

fn rewrite(
    archive: &Archive,
    base: &Object,
    source: &dyn ContentSource,
    changed: &[ContentRange],
) -> ArchiveResult<WrittenObject> {
    let done = AtomicU64::new(0);
    let progress = |bytes| {
        done.fetch_add(bytes, Ordering::Relaxed);
    };
    let control = WriteControl { progress: &progress, cancel: &AtomicBool::new(false) };
    let plan = ObjectPlan { compression: archive.descriptor().compression, ..plan("x") };
    let written = archive.rewrite_object(base, source, changed, &plan, &control);
    assert!(written.is_err() || done.into_inner() == source.len(), "progress tells of every byte once");
    written
}

fn read_all(archive: &Archive, reference: &ObjectRef) -> Vec<u8> {
    let object = archive.object(reference).unwrap();
    object.read(ContentRange::between(0, object.manifest().facts().unwrap().key.plain_size)).unwrap().bytes().to_vec()
}

fn health(archive: &Archive, reference: &ObjectRef) -> Verdict {
    archive.object_health(reference, Depth::Full, &|_| {}).unwrap().verdict
}

fn without_manifests(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = files_below(dir);
    files.retain(|path, _| !path.to_string_lossy().contains("manifest"));
    files
}

/// The object is the one that a commit of all the content would have written.
fn assert_as_if_written_whole(fixture: &Fixture, written: &WrittenObject, source: &Edited) {
    let oracle = Fixture::new(fixture.archive.descriptor().clone());
    let whole = oracle.try_put("x", source).unwrap();
    assert_eq!(written.manifest.facts().unwrap().key, whole.manifest.facts().unwrap().key);
    assert_eq!(written.manifest.facts().unwrap().key.hash, Digest::of(&source.bytes));
    assert_eq!(written.manifest.root(), whole.manifest.root());
    assert_eq!(written.manifest.name, whole.manifest.name);
    assert_eq!(written.manifest.facts().unwrap().content_tree(), whole.manifest.facts().unwrap().content_tree());
    let (ours, theirs) =
        (without_manifests(&fixture.path(&reference(written))), without_manifests(&oracle.path(&reference(&whole))));
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    for (path, bytes) in &ours {
        assert!(bytes == &theirs[path], "{path:?}");
    }
    let tmp = fixture.dir.path().join(".blockframe/tmp");
    assert!(std::fs::read_dir(tmp).map_or(true, |mut dir| dir.next().is_none()), "nothing is left behind");
}

/// Files of an object that are another object's as well.
fn shared_files(object: &Path) -> usize {
    files_below(object).keys().filter(|path| object.join(path).metadata().unwrap().nlink() > 1).count()
}

/// Removes `m` shards of every block, chosen by the seed.
fn lose_shards(object: &Path, m: usize, seed: u64) {
    let mut blocks: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for path in shard_files(object) {
        let text = path.to_string_lossy().into_owned();
        let digits: String = path
            .file_name()
            .unwrap()
            .to_string_lossy()
            .chars()
            .skip_while(|c| !c.is_ascii_digit())
            .take_while(char::is_ascii_digit)
            .collect();
        let block = match text.starts_with("segments") || text.starts_with("parity") {
            true => digits,
            false => text.split("/segments").next().unwrap().split("/parity").next().unwrap().to_string(),
        };
        blocks.entry(block).or_default().push(path);
    }
    for files in blocks.values() {
        for step in 0..m.min(files.len() - 1) {
            let _ = std::fs::remove_file(object.join(&files[(seed as usize + step * 3) % files.len()]));
        }
    }
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let edit = prop_oneof![
        4 => (0.0..1.0, 1usize..20_000, any::<u64>()).prop_map(|(at, len, seed)| Edit::Overwrite(at, len, seed)),
        1 => (0.9..1.0, 1usize..9_000, any::<u64>()).prop_map(|(at, len, seed)| Edit::Overwrite(at, len, seed)),
        2 => (1usize..90_000, any::<u64>()).prop_map(|(len, seed)| Edit::Extend(len, seed)),
        1 => (1usize..90_000).prop_map(Edit::ExtendByHole),
        2 => (1usize..90_000).prop_map(Edit::Shorten),
        1 => (0.0..1.0, 1usize..70_000).prop_map(|(at, len)| Edit::Punch(at, len)),
    ];
    prop::collection::vec(edit, 0..4)
}

fn lengths() -> impl Strategy<Value = usize> {
    let whole_leaves = |range: std::ops::Range<usize>| range.prop_map(|leaves| leaves * 16_384);
    prop_oneof![
        1 => 1usize..10_000,
        2 => 10_000usize..200_000,
        4 => 200_000usize..1_000_000,
        4 => 1_000_000usize..1_900_000,
        1 => whole_leaves(1..12),
        1 => whole_leaves(13..60),
        2 => whole_leaves(62..110),
    ]
}

#[test]
fn a_rewritten_object_is_the_one_that_would_have_been_written_whole() {
    let shared = AtomicU64::new(0);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(80));
    let outcome = runner.run(&(lengths(), edits(), any::<u64>()), |(len, edits, seed)| {
        let fixture = Fixture::new(descriptor());
        let bytes = content(len, seed);
        let base = reference(&fixture.put("x", &bytes));
        let before = files_below(&fixture.path(&base));
        let mut edited = Edited::new(bytes.clone());
        edits.iter().for_each(|edit| edited.apply(edit));
        let edited = edited.finish();
        let written = rewrite(&fixture.archive, &fixture.object(&base), &edited, &edited.changed).unwrap();
        assert_as_if_written_whole(&fixture, &written, &edited);
        assert!(files_below(&fixture.path(&base)) == before, "the base is what it was");
        let new = reference(&written);
        assert_eq!(written.already_there, edited.bytes == bytes);
        assert_eq!(health(&fixture.archive, &new), Verdict::Healthy);
        shared.fetch_add(shared_files(&fixture.path(&new)) as u64, Ordering::Relaxed);
        let m = written.manifest.geometry().m();
        if new != base {
            lose_shards(&fixture.path(&new), usize::from(m), seed);
            let fixture = fixture.reopened();
            assert!(read_all(&fixture.archive, &new) == edited.bytes, "after losses");
            assert!(read_all(&fixture.archive, &base) == bytes, "the base, after losses of the new object");
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    assert!(shared.into_inner() > 500, "nothing was shared");
}

/// Encoded once more an object has other bytes; so what counts is what is read, and what is shared.
#[test]
fn rewritten_encoded_objects_read_back_and_share_what_did_not_change() {
    let shared = [(); 4].map(|()| AtomicU64::new(0));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(60));
    let outcome = runner.run(&(lengths(), edits(), any::<u64>(), 1usize..4), |(len, edits, seed, variant)| {
        let rules = kit::encoded_variants(&descriptor()).swap_remove(variant);
        let fixture = Fixture::new(rules);
        let bytes = kit::compressible(len, seed);
        let base = reference(&fixture.put("x", &bytes));
        let before = files_below(&fixture.path(&base));
        let mut edited = Edited::new(bytes.clone());
        edits.iter().for_each(|edit| edited.apply(edit));
        let edited = edited.finish();
        let written = rewrite(&fixture.archive, &fixture.object(&base), &edited, &edited.changed).unwrap();
        assert!(files_below(&fixture.path(&base)) == before, "the base is what it was");
        let new = reference(&written);
        let facts = written.manifest.facts().unwrap();
        assert_eq!((facts.key.hash, facts.key.plain_size), (Digest::of(&edited.bytes), edited.bytes.len() as u64));
        assert_eq!(written.already_there, edited.bytes == bytes);
        assert_eq!(health(&fixture.archive, &new), Verdict::Healthy);
        shared[variant].fetch_add(shared_files(&fixture.path(&new)) as u64, Ordering::Relaxed);
        let m = written.manifest.geometry().m();
        let fixture = fixture.reopened();
        assert!(read_all(&fixture.archive, &new) == edited.bytes, "read back");
        if new != base {
            lose_shards(&fixture.path(&new), usize::from(m), seed);
            let fixture = fixture.reopened();
            assert!(read_all(&fixture.archive, &new) == edited.bytes, "after losses");
            assert!(read_all(&fixture.archive, &base) == bytes, "the base, after losses of the new object");
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    for shared in &shared[1..] {
        assert!(shared.load(Ordering::Relaxed) > 100, "nothing was shared: {shared:?}");
    }
}

#[test]
fn several_rewrites_one_after_the_other_stay_right() {
    for len in [150_000, 900_001, 1_700_000] {
        let fixture = Fixture::new(descriptor());
        let mut bytes = content(len, 1);
        let mut base = reference(&fixture.put("x", &bytes));
        for round in 0..6 {
            let edited = overwritten(&bytes, &[(len / 7 * round, 5_000), (len - 3, 3)]);
            let written = rewrite(&fixture.archive, &fixture.object(&base), &edited, &edited.changed).unwrap();
            assert_as_if_written_whole(&fixture, &written, &edited);
            // The one before goes away, as after its retention.
            fixture.store.delete_prefix(&blockframe::store::StoreKey::new(base.name.as_str()).unwrap()).unwrap();
            (base, bytes) = (reference(&written), edited.bytes);
            assert_eq!(health(&fixture.archive, &base), Verdict::Healthy);
        }
    }
}

#[test]
fn what_a_base_has_lost_is_made_anew_in_the_new_object() {
    let truncate = |path: &Path, len: u64| std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(len);
    // In the block that changes, in another one, and in an outer one.
    for victim in [
        "blocks/block_0/segments/segment_2.dat",
        "blocks/block_0/segments/segment_0.dat",
        "blocks/block_0/parity/block_parity_1.dat",
        "blocks/block_0/tree.dat",
        "blocks/block_1/segments/segment_8.dat",
        "blocks/block_1/parity/block_parity_0.dat",
        "blocks/block_1/tree.dat",
        "outer/group_0/block_1/segments/segment_3.dat",
        "outer/group_0/block_0/segments/segment_0.dat",
        "outer/group_1/block_0/parity/block_parity_1.dat",
    ] {
        for damage in ["missing", "short", "long"] {
            for links in [true, false] {
                let fixture = Fixture::new(descriptor());
                let len = if victim.contains("outer") { 1_700_000 } else { 800_000 };
                let bytes = content(len, 4);
                let base = reference(&fixture.put("x", &bytes));
                let file = fixture.path(&base).join(victim);
                match damage {
                    "missing" => std::fs::remove_file(&file).unwrap(),
                    "short" => truncate(&file, 5).unwrap(),
                    _ => truncate(&file, file.metadata().unwrap().len() + 1).unwrap(),
                }
                let (archive, store) = faulty(&fixture);
                if !links {
                    store.inject(Fault::fail(StoreErrorKind::Unsupported).on(&[Operation::Link]));
                }
                let edited = overwritten(&bytes, &[(1000, 4096)]);
                let object = archive.object(&base).unwrap();
                let written = rewrite(&archive, &object, &edited, &edited.changed).unwrap();
                assert_as_if_written_whole(&fixture, &written, &edited);
            }
        }
    }
}

fn faulty(fixture: &Fixture) -> (Archive, Arc<FaultStore>) {
    let store = Arc::new(FaultStore::new(fixture.store.clone(), 1));
    (Archive::open(store.clone(), Arc::new(SystemClock), Arc::new(())).unwrap(), store)
}

#[test]
fn what_is_damaged_in_the_base_does_not_enter_what_is_written() {
    // One bit of each file that parity is made from, or that is copied, is wrong.
    let fixture = Fixture::new(descriptor());
    let bytes = content(1_700_000, 4);
    let base = reference(&fixture.put("x", &bytes));
    let files = shard_files(&fixture.path(&base));
    for victim in files.iter().filter(|path| path.starts_with("blocks/block_0") || path.starts_with("outer/group_0")) {
        for links in [true, false] {
            let fixture = Fixture::new(descriptor());
            let base = reference(&fixture.put("x", &bytes));
            let file = fixture.path(&base).join(victim);
            let mut shard = std::fs::read(&file).unwrap();
            shard[777] ^= 4;
            std::fs::write(&file, shard).unwrap();
            let (archive, store) = faulty(&fixture);
            if !links {
                store.inject(Fault::fail(StoreErrorKind::Io).on(&[Operation::Link]));
            }
            let edited = overwritten(&bytes, &[(1000, 4096)]);
            let object = archive.object(&base).unwrap();
            let written = rewrite(&archive, &object, &edited, &edited.changed).unwrap();
            let new = reference(&written);
            if links {
                // A linked file may be damaged as it was; then it is healed, for both.
                assert!(read_all(&archive, &new) == edited.bytes);
                let found = archive.object_health(&new, Depth::Full, &|_| {}).unwrap();
                assert_ne!(found.verdict, Verdict::Unrecoverable);
                archive.execute(&found.plan(&archive).unwrap(), &|_| {}).unwrap();
            }
            assert_as_if_written_whole(&fixture, &written, &edited);
        }
    }
}

#[test]
fn healing_a_shared_file_heals_it_for_both_and_deleting_one_object_leaves_the_other() {
    let fixture = Fixture::new(descriptor());
    let bytes = content(800_000, 4);
    let base = reference(&fixture.put("x", &bytes));
    let edited = overwritten(&bytes, &[(1000, 4096)]);
    let written = rewrite(&fixture.archive, &fixture.object(&base), &edited, &edited.changed).unwrap();
    let new = reference(&written);
    let file = "blocks/block_1/segments/segment_8.dat";
    let (in_base, in_new) = (fixture.path(&base).join(file), fixture.path(&new).join(file));
    assert_eq!(in_base.metadata().unwrap().ino(), in_new.metadata().unwrap().ino());
    let pristine = (files_below(&fixture.path(&base)), files_below(&fixture.path(&new)));

    // One bit: written back in place, by a read of either.
    let mut shard = std::fs::read(&in_base).unwrap();
    shard[20_000] ^= 1;
    std::fs::write(&in_base, &shard).unwrap();
    let fixture = fixture.reopened();
    assert!(read_all(&fixture.archive, &new) == edited.bytes);
    assert_eq!(in_base.metadata().unwrap().ino(), in_new.metadata().unwrap().ino());
    assert_eq!(health(&fixture.archive, &base), Verdict::Healthy);
    let quarantined = files_below(&fixture.dir.path().join(".blockframe/quarantine"));
    assert!(quarantined.values().any(|kept| kept[..] == shard[16_384..32_768]), "the bad bytes were kept");

    // The whole file: written anew for one, and the other waits for its own repair.
    std::fs::write(&in_new, content(32_768, 99)).unwrap();
    let fixture = fixture.reopened();
    for object in [&new, &base] {
        assert_eq!(health(&fixture.archive, object), Verdict::Recoverable);
        let found = fixture.archive.object_health(object, Depth::Full, &|_| {}).unwrap();
        let outcome = fixture.archive.execute(&found.plan(&fixture.archive).unwrap(), &|_| {}).unwrap();
        assert_eq!(outcome.failed, 0);
        assert_eq!(health(&fixture.archive, object), Verdict::Healthy);
    }
    assert!((files_below(&fixture.path(&base)), files_below(&fixture.path(&new))) == pristine);

    fixture.store.delete_prefix(&blockframe::store::StoreKey::new(base.name.as_str()).unwrap()).unwrap();
    let fixture = fixture.reopened();
    assert_eq!(health(&fixture.archive, &new), Verdict::Healthy);
    assert!(files_below(&fixture.path(&new)) == pristine.1);
}

#[test]
fn a_content_that_lies_about_what_changed_is_refused_and_leaves_nothing() {
    for (len, told, untold) in [
        // In the changed segment, and in another one of a block that is coded anew.
        (800_000, vec![(0, 4096)], 20_000),
        (800_000, vec![(0, 70_000)], 100_000),
    ] {
        let fixture = Fixture::new(descriptor());
        let bytes = content(len, 7);
        let base = reference(&fixture.put("x", &bytes));
        let before = files_below(fixture.dir.path());
        let mut edited = overwritten(&bytes, &told);
        edited.bytes[untold] ^= 1;
        let error = rewrite(&fixture.archive, &fixture.object(&base), &edited, &edited.changed).unwrap_err();
        assert!(matches!(error, ArchiveError::SourceChanged), "{error}");
        assert_eq!(files_below(fixture.dir.path()), before);
    }
}

#[test]
fn a_base_without_a_content_tree_and_one_of_another_tier_serve_as_well() {
    let fixture = Fixture::new(descriptor());
    let bytes = content(800_000, 7);
    let base = reference(&fixture.put("x", &bytes));
    let object = fixture.path(&base);
    let manifest = without_tree(&std::fs::read_to_string(object.join("manifest.json")).unwrap());
    for copy in ["manifest.json", "manifest.copy.json"] {
        std::fs::write(object.join(copy), &manifest).unwrap();
    }
    let fixture = fixture.reopened();
    assert_eq!(fixture.object(&base).manifest().facts().unwrap().content_tree(), None);
    let edited = overwritten(&bytes, &[(1000, 4096)]);
    let written = rewrite(&fixture.archive, &fixture.object(&base), &edited, &edited.changed).unwrap();
    assert_as_if_written_whole(&fixture, &written, &edited);
    assert_eq!(shared_files(&fixture.path(&reference(&written))), 0);
    for (from, to) in [(9_000, 12_000), (180_000, 220_000), (1_050_000, 900_000), (16_384, 40_000), (40_000, 16_384)] {
        let fixture = Fixture::new(descriptor());
        let bytes = content(from, 7);
        let base = reference(&fixture.put("x", &bytes));
        let mut edited = Edited::new(bytes);
        if to > from {
            edited.apply(&Edit::Extend(to - from, 3))
        } else {
            edited.apply(&Edit::Shorten(from - to))
        }
        let edited = edited.finish();
        let written = rewrite(&fixture.archive, &fixture.object(&base), &edited, &edited.changed).unwrap();
        assert_as_if_written_whole(&fixture, &written, &edited);
    }
}

/// A manifest as it was written before there was a content tree.
fn without_tree(manifest: &str) -> Vec<u8> {
    let (before, rest) = manifest.split_once("  \"content_tree\": [").unwrap();
    let (_, after) = rest.split_once("],\n").unwrap();
    let mut text = format!("{before}{after}").replace("\"version\": 2", "\"version\": 1");
    let at = text.len() - "\"\n}\n".len() - 64;
    text.replace_range(at..at + 64, &"0".repeat(64));
    let digest = Digest::of(text.as_bytes()).to_hex();
    text.replace_range(at..at + 64, &digest);
    text.into_bytes()
}

/// The base's content with some ranges changed; counts what is read of these.
struct OverBase<'a> {
    base: &'a Object,
    len: u64,
    changed: ContentRange,
    fill: u8,
    own_bytes: AtomicU64,
}

impl ContentSource for OverBase<'_> {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        let range = ContentRange::between(offset, offset + buffer.len() as u64);
        buffer.copy_from_slice(self.base.read(range).map_err(std::io::Error::other)?.bytes());
        let own = range.intersect(self.changed);
        self.own_bytes.fetch_add(own.len(), Ordering::Relaxed);
        if !own.is_empty() {
            buffer[(own.start() - offset) as usize..(own.end() - offset) as usize].fill(self.fill);
        }
        Ok(())
    }
}

#[test]
fn four_kilobytes_changed_in_128_segments_cost_a_few_segments() {
    // The segment and its block's parity; leaf hashes and two manifests besides.
    // With an outer code, as much again for each outer block, which shares its group with others.
    let outer = Some(OuterCode { k: 4, m: 1 });
    for (tier, outer, most_read, most_written) in [(3, None, 6, 5), (4, outer, 10, 9)] {
        let segment = 131_072;
        let mut descriptor = tiny_descriptor();
        let mut rule = descriptor.tiers[tier - 1];
        assert_eq!(rule.layout, TierLayout::Blocks);
        (rule.segment_size, rule.min_segment_size, rule.k, rule.m) = (segment, segment, 30, 3);
        (rule.below, rule.outer) = (None, outer);
        descriptor.tiers = vec![rule];
        let fixture = Fixture::new(descriptor);
        let len = 128 * segment;
        let bytes = content(len as usize, 5);
        let base = reference(&fixture.put("x", &bytes));
        let (archive, store) = faulty(&fixture);
        let object = archive.object(&base).unwrap();
        let changed = ContentRange::between(50 * segment + 40_000, 50 * segment + 44_096);
        let source = OverBase { base: &object, len, changed, fill: 9, own_bytes: AtomicU64::new(0) };
        store.reset_counters();
        let written = rewrite(&archive, &object, &source, &[changed]).unwrap();
        let counted = store.counters();
        let read = counted.bytes_read() + source.own_bytes.load(Ordering::Relaxed);
        assert!(read < most_read * segment, "tier {tier}: {read} bytes read");
        assert!(counted.bytes_written() < most_written * segment, "tier {tier}: {} bytes", counted.bytes_written());
        let mut expected = bytes;
        expected[changed.start() as usize..changed.end() as usize].fill(9);
        assert_eq!(written.manifest.facts().unwrap().key.hash, Digest::of(&expected));
        assert_eq!(health(&archive, &reference(&written)), Verdict::Healthy);
    }
}

#[test]
fn a_rewrite_cut_off_at_any_operation_leaves_the_base_and_a_whole_object_or_none() {
    let bytes = content(430_000, 5);
    let edited = overwritten(&bytes, &[(1000, 4096)]);
    for nth in 1..400 {
        let memory = Arc::new(MemoryStore::new("memory"));
        Archive::create(memory.clone(), descriptor(), "test".into()).unwrap();
        let open = |store| Archive::open(store, Arc::new(SystemClock), Arc::new(())).unwrap();
        let control = WriteControl { progress: &|_| {}, cancel: &AtomicBool::new(false) };
        let base = open(memory.clone()).write_object(&bytes, &plan("x"), &control).unwrap();
        let store = Arc::new(FaultStore::new(memory.clone(), nth));
        store.inject(Fault::fail(StoreErrorKind::Io).on(&Operation::CHANGES).from_nth(nth));
        let archive = open(store.clone());
        let object = archive.object(&reference(&base)).unwrap();
        let result = rewrite(&archive, &object, &edited, &edited.changed);
        memory.crash(nth);
        let archive = open(memory.clone());
        assert_eq!(health(&archive, &reference(&base)), Verdict::Healthy, "cut at {nth}");
        assert!(read_all(&archive, &reference(&base)) == bytes);
        let names = memory.list(None).unwrap().into_iter().filter_map(|listed| listed.name.parse().ok());
        let others: Vec<_> = names.filter(|name| *name != base.manifest.name).collect();
        for name in &others {
            let manifest = archive.load_manifest(name).unwrap();
            let new = ObjectRef { name: manifest.name.clone(), root: manifest.root() };
            assert_eq!(health(&archive, &new), Verdict::Healthy, "cut at {nth}");
            assert!(read_all(&archive, &new) == edited.bytes);
        }
        if result.is_ok() {
            assert_eq!(others.len(), 1);
            return;
        }
    }
    panic!("a rewrite of 430,000 bytes should need fewer operations");
}

#[test]
fn holes_stay_holes() {
    let dir = scratch();
    let store: Arc<dyn BlockStore> = Arc::new(LocalStore::open(dir.path()).unwrap());
    Archive::create(store.clone(), descriptor(), "test".into()).unwrap();
    let archive = Archive::open(store, Arc::new(SystemClock), Arc::new(())).unwrap();
    let mut sparse = Edited::new(content(16_384, 1));
    sparse.apply(&Edit::ExtendByHole(900_000));
    let sparse = sparse.finish();
    let control = WriteControl { progress: &|_| {}, cancel: &AtomicBool::new(false) };
    let base = archive.write_object(&sparse, &plan("x"), &control).unwrap();
    let mut edited = sparse.clone();
    edited.base_len = edited.bytes.len();
    edited.changed.clear();
    edited.put(500_000, b"island", false);
    let edited = edited.finish();
    let object = archive.object(&reference(&base)).unwrap();
    let written = rewrite(&archive, &object, &edited, &edited.changed).unwrap();
    assert_eq!(written.manifest.facts().unwrap().key.hash, Digest::of(&edited.bytes));
    let path = dir.path().join(written.manifest.name.as_str());
    let allocated: u64 = files_below(&path).keys().map(|file| path.join(file).metadata().unwrap().blocks() * 512).sum();
    assert!(allocated < 400_000, "{allocated} bytes are allocated");
}
