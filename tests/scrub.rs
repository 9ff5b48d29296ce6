//! The scrubber: in which order, how fast, from where after a restart, and
//! what is healed. Time is a test's own, nothing sleeps.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod kit;

use blockframe::archive::{Archive, ArchiveError, Depth, EventKind, ObjectRef, Verdict, WrittenObject};
use blockframe::base::{Clock, ContentRange, LatencyGauge, ObjectName, Timestamp};
use blockframe::catalog::{CatalogResult, ObjectRecord};
use blockframe::format::layout::{MANIFEST, MANIFEST_COPY};
use blockframe::scrub::{
    Ledger, PassEnd, PassScope, PassSummary, Pause, ScrubDaemon, ScrubError, ScrubOptions, ScrubState, Scrubber,
    StopSignal, Subject, Watch, last_pass, request_pause, request_start, start_pending, status,
};
use blockframe::store::LocalStore;
use kit::{Events, Fixture, content, files_below, leafy_descriptor, reference, shard_files, tiny_descriptor};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A clock that only a pause moves.
#[derive(Debug)]
struct FakeTime(AtomicU64);

impl FakeTime {
    fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(1_800_000_000_000_000_000)))
    }
}

impl Clock for FakeTime {
    fn now(&self) -> Timestamp {
        // Each look takes a microsecond, so that moments differ.
        let nanos = self.0.fetch_add(1000, Ordering::Relaxed);
        Timestamp { seconds: (nanos / 1_000_000_000) as i64, nanoseconds: (nanos % 1_000_000_000) as u32 }
    }
}

impl Pause for FakeTime {
    fn pause(&self, duration: Duration) {
        self.0.fetch_add(duration.as_nanos() as u64, Ordering::Relaxed);
    }
}

/// A catalog and health log in memory.
#[derive(Debug, Default)]
struct Book {
    records: Mutex<Vec<ObjectRecord>>,
    verified: Mutex<BTreeMap<ObjectName, (Timestamp, Verdict)>>,
    values: Mutex<BTreeMap<String, String>>,
    /// Objects in the order in which they were found verified.
    order: Mutex<Vec<ObjectName>>,
    journals: AtomicU64,
    /// Told each object that was verified.
    told: Mutex<Option<std::sync::mpsc::Sender<ObjectName>>>,
}

impl Ledger for Book {
    fn objects(&self, visit: &mut dyn FnMut(Subject) -> bool) -> CatalogResult<()> {
        for record in self.records.lock().unwrap().clone() {
            if !visit(record.into()) {
                break;
            }
        }
        Ok(())
    }

    fn knows(&self, object: &ObjectName) -> CatalogResult<bool> {
        Ok(self.records.lock().unwrap().iter().any(|record| record.reference.name == *object))
    }

    fn verified(&self, object: &ObjectName) -> CatalogResult<Option<(Timestamp, Verdict)>> {
        Ok(self.verified.lock().unwrap().get(object).copied())
    }

    fn set_verified(&self, object: &ObjectName, at: Timestamp, verdict: Verdict) -> CatalogResult<()> {
        self.verified.lock().unwrap().insert(object.clone(), (at, verdict));
        self.order.lock().unwrap().push(object.clone());
        if let Some(told) = &*self.told.lock().unwrap() {
            told.send(object.clone()).unwrap();
        }
        Ok(())
    }

    fn value(&self, key: &str) -> CatalogResult<Option<String>> {
        Ok(self.values.lock().unwrap().get(key).cloned())
    }

    fn set_value(&self, key: &str, value: &str) -> CatalogResult<()> {
        self.values.lock().unwrap().insert(key.into(), value.into());
        Ok(())
    }

    fn verify_journal(&self, _repair: bool) -> CatalogResult<Vec<String>> {
        self.journals.fetch_add(1, Ordering::Relaxed);
        Ok(Vec::new())
    }
}

struct Bench {
    fixture: Fixture,
    book: Arc<Book>,
    time: Arc<FakeTime>,
    events: Arc<Events>,
    files: Vec<(ObjectRef, Vec<u8>)>,
}

impl Bench {
    fn new(fixture: Fixture) -> Self {
        Self { fixture, book: Arc::default(), time: FakeTime::new(), events: Arc::default(), files: Vec::new() }
    }

    fn put(&mut self, name: &str, bytes: Vec<u8>) -> ObjectRef {
        let written = self.fixture.put(name, &bytes);
        let reference = reference(&written);
        self.book.records.lock().unwrap().push(record(&written));
        self.files.push((reference.clone(), bytes));
        reference
    }

    /// The archive as a new process would open it.
    fn archive(&self) -> Archive {
        let store = Arc::new(LocalStore::open(self.fixture.dir.path()).unwrap());
        Archive::open(store, self.time.clone(), self.events.clone()).unwrap()
    }

    fn scrubber(&self, bytes_per_second: Option<u64>) -> Scrubber {
        let options = ScrubOptions { bytes_per_second, ..ScrubOptions::default() };
        Scrubber::new(self.archive(), self.book.clone(), options, self.time.clone(), Arc::new(()))
    }

    fn pass(&self) -> PassSummary {
        match self.scrubber(None).run_pass(PassScope::Everything, &QUIET).unwrap() {
            PassEnd::Finished(summary) => summary,
            other => panic!("{other:?}"),
        }
    }

    fn path(&self, reference: &ObjectRef) -> PathBuf {
        self.fixture.path(reference)
    }

    fn verdict(&self, reference: &ObjectRef) -> Verdict {
        self.book.verified(&reference.name).unwrap().unwrap().1
    }

    fn set_verified_at(&self, reference: &ObjectRef, seconds: i64) {
        let at = Timestamp { seconds, nanoseconds: 0 };
        self.book.verified.lock().unwrap().insert(reference.name.clone(), (at, Verdict::Healthy));
    }
}

const QUIET: Watch<'static> = Watch { stop: &|| false, progress: &|_| {}, takes_requests: false };

fn record(written: &WrittenObject) -> ObjectRecord {
    let manifest = &written.manifest;
    ObjectRecord {
        reference: reference(written),
        kind: blockframe::format::ObjectKind::File,
        key: manifest.facts().unwrap().key,
        tier: manifest.geometry().tier(),
        stored_len: manifest.geometry().stored_len(),
    }
}

fn flip(file: &Path, at: usize) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[at] ^= 0x10;
    std::fs::write(file, bytes).unwrap();
}

/// A small generator, so that a seed replays a run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % sides.max(1)
    }
}

#[test]
fn the_longest_unverified_come_first_and_the_never_verified_before_them() {
    let mut bench = Bench::new(Fixture::new(tiny_descriptor()));
    let newer = bench.put("a_newer", content(100, 1));
    let never = bench.put("z_never", content(100, 2));
    let older = bench.put("m_older", content(100, 3));
    bench.set_verified_at(&newer, 2000);
    bench.set_verified_at(&older, 1000);
    let summary = bench.pass();
    assert_eq!(summary.objects, 3);
    let order = bench.book.order.lock().unwrap().clone();
    assert_eq!(order, [never.name, older.name, newer.name]);
}

#[test]
fn only_what_is_old_enough_is_verified_when_nobody_asked() {
    let mut bench = Bench::new(Fixture::new(tiny_descriptor()));
    let fresh = bench.put("fresh", content(100, 1));
    let stale = bench.put("stale", content(100, 2));
    bench.set_verified_at(&fresh, 2000);
    bench.set_verified_at(&stale, 1000);
    let scope = PassScope::OlderThan(Timestamp { seconds: 1500, nanoseconds: 0 });
    bench.scrubber(None).run_pass(scope, &QUIET).unwrap();
    assert_eq!(*bench.book.order.lock().unwrap(), [stale.name]);
}

#[test]
fn a_pass_takes_as_long_as_its_rate_says() {
    let mut bench = Bench::new(Fixture::new(leafy_descriptor()));
    bench.put("big", content(1_000_000, 1));
    let bytes: u64 = bench.book.records.lock().unwrap().iter().map(|record| record.stored_len).sum();
    let before = bench.time.now().seconds;
    bench.scrubber(Some(10_000)).run_pass(PassScope::Everything, &QUIET).unwrap();
    let took = (bench.time.now().seconds - before) as u64;
    assert!(took.abs_diff(bytes / 10_000) <= 3, "{took} s for {bytes} bytes");
}

#[test]
fn a_pause_survives_a_restart_and_the_pass_goes_on_at_the_block_where_it_stopped() {
    let mut bench = Bench::new(Fixture::new(leafy_descriptor()));
    let first = bench.put("a", content(1000, 1));
    let big = bench.put("b", content(3_000_000, 2));
    let asked = std::sync::atomic::AtomicBool::new(false);
    let mut verified = 0;
    let pause_in_the_middle = |status: &blockframe::scrub::ScrubStatus| {
        if status.object.as_deref() == Some(big.name.as_str()) && status.bytes_done > 1_500_000 {
            asked.store(true, Ordering::Relaxed);
            request_pause(&*bench.book, true).unwrap();
        }
    };
    let watch = Watch { stop: &|| false, progress: &pause_in_the_middle, takes_requests: true };
    let end = bench.scrubber(Some(200_000)).run_pass(PassScope::Everything, &watch).unwrap();
    assert_eq!(end, PassEnd::Paused);
    assert!(asked.load(Ordering::Relaxed));
    assert_eq!(*bench.book.order.lock().unwrap(), std::slice::from_ref(&first.name));
    let told = status(&*bench.book).unwrap().unwrap();
    assert_eq!(told.state, ScrubState::Paused);
    let cursor: serde_json::Value = serde_json::from_str(&bench.book.value("scrub.cursor").unwrap().unwrap()).unwrap();
    let next = cursor["within"]["next_block"].as_u64().unwrap();
    assert!(next > 2, "{cursor}");
    // Still paused: another process stops at once.
    let again = bench.scrubber(Some(200_000)).run_pass(PassScope::Everything, &Watch { progress: &|_| {}, ..watch });
    assert_eq!(again.unwrap(), PassEnd::Paused);
    request_pause(&*bench.book, false).unwrap();
    let before = bench.time.now().seconds;
    let end = bench.scrubber(Some(200_000)).run_pass(PassScope::Everything, &QUIET).unwrap();
    let took = (bench.time.now().seconds - before) as u64;
    let PassEnd::Finished(summary) = end else { panic!("{end:?}") };
    verified += took * 200_000;
    assert_eq!(summary.objects, 2);
    assert!(verified < 3_500_000, "the blocks before the pause are not read again: {verified}");
    assert_eq!(bench.verdict(&big), Verdict::Healthy);
    assert!(bench.book.value("scrub.cursor").unwrap().unwrap().is_empty());
    assert_eq!(last_pass(&*bench.book).unwrap().unwrap(), summary);
}

#[test]
fn damage_that_could_not_be_healed_before_a_restart_is_not_forgotten() {
    let mut bench = Bench::new(Fixture::new(leafy_descriptor()));
    let big = bench.put("big", content(2_000_000, 2));
    for file in ["segments/segment_0.dat", "segments/segment_1.dat", "parity/block_parity_0.dat"] {
        std::fs::remove_file(bench.path(&big).join("blocks/block_0").join(file)).unwrap();
    }
    let looks = AtomicU64::new(0);
    let stop = || looks.fetch_add(1, Ordering::Relaxed) > 60;
    let watch = Watch { stop: &stop, ..QUIET };
    let end = bench.scrubber(None).run_pass(PassScope::Everything, &watch).unwrap();
    assert_eq!(end, PassEnd::Stopped);
    let cursor: serde_json::Value = serde_json::from_str(&bench.book.value("scrub.cursor").unwrap().unwrap()).unwrap();
    assert!(cursor["within"]["next_block"].as_u64().unwrap() > 0, "{cursor}");
    assert_eq!(cursor["within"]["revisit"][0], 0, "{cursor}");
    let summary = bench.pass();
    assert_eq!((summary.found.lost, summary.found.damaged), (1, 1));
    assert_eq!(bench.verdict(&big), Verdict::Unrecoverable);
}

#[test]
fn a_read_s_queued_heal_is_done_between_objects() {
    let mut bench = Bench::new(Fixture::new(leafy_descriptor()));
    let object = bench.put("read", content(500_000, 2));
    let pristine = files_below(&bench.path(&object));
    std::fs::remove_file(bench.path(&object).join("blocks/block_0/segments/segment_2.dat")).unwrap();
    let scrubber_archive = bench.archive();
    scrubber_archive.object(&object).unwrap().read(ContentRange::between(131_072, 131_080)).unwrap();
    assert_eq!(scrubber_archive.heals_waiting(), 1);
    // Verified already, as far as the pass is concerned: only the queue is worked off.
    bench.set_verified_at(&object, i64::from(u32::MAX));
    let options = ScrubOptions::default();
    let scrubber =
        Scrubber::new(scrubber_archive.clone(), bench.book.clone(), options, bench.time.clone(), Arc::new(()));
    scrubber.run_pass(PassScope::Everything, &QUIET).unwrap();
    assert_eq!(scrubber_archive.heals_waiting(), 0);
    assert!(files_below(&bench.path(&object)) == pristine);
}

/// Damages up to `m` shards of each block of an object in random ways, and perhaps a tree and one manifest copy.
fn damage_within_the_bound(object: &Path, dice: &mut Dice) {
    let files = shard_files(object);
    let mut blocks: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for file in files {
        let text = file.to_string_lossy().into_owned();
        let block = match text.split('/').collect::<Vec<_>>()[..] {
            ["blocks", block, ..] => block.to_string(),
            ["outer", group, block, ..] => format!("{group}/{block}"),
            // Tier 2: a block is a segment and its parity files.
            ["segments" | "parity", name] => name.split(['_', '.']).nth(1).unwrap().to_string(),
            _ => String::new(),
        };
        blocks.entry(block).or_default().push(file);
    }
    for (block, mut files) in blocks {
        let m = if block.starts_with("block_") || block.starts_with("group_") { 2 } else { 3 };
        for _ in 0..dice.roll(m + 1) {
            let file = object.join(files.remove(dice.roll(files.len())));
            let mut bytes = std::fs::read(&file).unwrap();
            match dice.roll(4) {
                0 => std::fs::remove_file(&file).unwrap(),
                1 => {
                    bytes.truncate(dice.roll(bytes.len()));
                    std::fs::write(&file, bytes).unwrap();
                }
                2 => {
                    for _ in 0..=dice.roll(20) {
                        let at = dice.roll(bytes.len());
                        bytes[at] ^= 1 << dice.roll(8);
                    }
                    std::fs::write(&file, bytes).unwrap();
                }
                _ => {
                    bytes.extend_from_slice(b"tail");
                    std::fs::write(&file, bytes).unwrap();
                }
            }
        }
    }
    for (path, bytes) in files_below(object) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let chosen = name.ends_with("tree.dat") && dice.roll(3) == 0 || name == MANIFEST && dice.roll(2) == 0;
        if chosen && !bytes.is_empty() {
            match dice.roll(3) {
                0 => std::fs::remove_file(object.join(&path)).unwrap(),
                1 => std::fs::write(object.join(&path), &bytes[..dice.roll(bytes.len())]).unwrap(),
                _ => flip(&object.join(&path), dice.roll(bytes.len())),
            }
        }
    }
}

#[test]
fn a_pass_heals_everything_that_a_random_damager_does_within_the_bound() {
    let seed = std::env::var("BLOCKFRAME_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| u64::from(blockframe::base::SystemClock.now().nanoseconds));
    for round in 0..12 {
        let seed = seed + round;
        println!("BLOCKFRAME_TEST_SEED={seed}");
        let mut dice = Dice(seed);
        let descriptor = if round % 3 == 2 { leafy_descriptor() } else { tiny_descriptor() };
        let mut bench = Bench::new(Fixture::new(descriptor));
        for (number, len) in [300, 9_000, 13_000, 35_000, 50_001, 75_000, 110_000].into_iter().enumerate() {
            bench.put(&format!("file{number}"), content(len + dice.roll(200), dice.roll(1000) as u64));
        }
        let pristine: Vec<_> = bench.files.iter().map(|(object, _)| files_below(&bench.path(object))).collect();
        for (object, _) in &bench.files {
            damage_within_the_bound(&bench.path(object), &mut dice);
        }
        let summary = bench.pass();
        assert_eq!((summary.found.lost, summary.found.failed), (0, 0), "seed {seed}");
        assert_eq!(summary.found.damaged, summary.found.healed, "seed {seed}");
        for ((object, _), before) in bench.files.iter().zip(pristine) {
            let after = files_below(&bench.path(object));
            for (path, bytes) in &before {
                assert!(after.get(path) == Some(bytes), "seed {seed}: {object:?} {path:?}");
            }
            assert_eq!(bench.verdict(object), Verdict::Healthy, "seed {seed}");
        }
    }
}

#[test]
fn beyond_the_bound_loss_is_reported_and_never_a_wrong_byte() {
    for seed in 0..30 {
        let mut dice = Dice(seed);
        let mut bench = Bench::new(Fixture::new(tiny_descriptor()));
        for (number, len) in [900, 15_000, 50_000, 90_000].into_iter().enumerate() {
            bench.put(&format!("file{number}"), content(len, seed * 10 + number as u64));
        }
        for (object, _) in &bench.files {
            let root = bench.path(object);
            for file in shard_files(&root) {
                match dice.roll(3) {
                    0 => std::fs::remove_file(root.join(file)).unwrap(),
                    1 => flip(&root.join(&file), dice.roll(std::fs::read(root.join(&file)).unwrap().len())),
                    _ => {}
                }
            }
        }
        let summary = bench.pass();
        let archive = bench.archive();
        let mut lost = 0;
        for (object, bytes) in &bench.files {
            let open = archive.object(object).unwrap();
            let mut whole = true;
            for start in (0..bytes.len()).step_by(1000) {
                let end = (start + 1000).min(bytes.len());
                match open.read(ContentRange::between(start as u64, end as u64)) {
                    Ok(read) => assert!(read.bytes() == &bytes[start..end], "seed {seed} {object:?} {start}"),
                    Err(ArchiveError::Unrecoverable { .. }) => whole = false,
                    Err(error) => panic!("seed {seed} {object:?}: {error}"),
                }
            }
            assert_eq!(whole, bench.verdict(object) != Verdict::Unrecoverable, "seed {seed} {object:?}");
            lost += u64::from(!whole);
        }
        assert_eq!(summary.found.lost, lost, "seed {seed}");
    }
}

#[test]
fn a_disk_that_is_not_there_is_no_loss() {
    let mut bench = Bench::new(Fixture::new(tiny_descriptor()));
    let object = bench.put("safe", content(500, 1));
    let scrubber = bench.scrubber(None);
    let away = bench.fixture.dir.path().join("..").join(format!("away-{}", std::process::id()));
    std::fs::create_dir(&away).unwrap();
    for entry in std::fs::read_dir(bench.fixture.dir.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::rename(entry.path(), away.join(entry.file_name())).unwrap();
    }
    let result = scrubber.run_pass(PassScope::Everything, &QUIET);
    let recorded = bench.book.verified(&object.name).unwrap();
    for entry in std::fs::read_dir(&away).unwrap() {
        let entry = entry.unwrap();
        std::fs::rename(entry.path(), bench.fixture.dir.path().join(entry.file_name())).unwrap();
    }
    std::fs::remove_dir(&away).unwrap();
    assert!(matches!(result, Err(ScrubError::StoreGone { .. })), "{result:?}");
    assert_eq!(recorded, None);
    assert_eq!(bench.pass().objects, 1);
    assert_eq!(bench.verdict(&object), Verdict::Healthy);
}

#[test]
fn descriptors_and_journal_are_verified_at_the_end_of_a_pass() {
    let bench = Bench::new(Fixture::new(tiny_descriptor()));
    let file = bench.fixture.dir.path().join("blockframe-store.json");
    let pristine = std::fs::read(&file).unwrap();
    let scrubber = bench.scrubber(None);
    flip(&file, 40);
    let PassEnd::Finished(summary) = scrubber.run_pass(PassScope::Everything, &QUIET).unwrap() else { panic!() };
    assert_eq!(summary.found.metadata, 1);
    assert!(std::fs::read(&file).unwrap() == pristine);
    assert_eq!(bench.book.journals.load(Ordering::Relaxed), 1);
}

#[test]
fn a_new_object_and_a_cleaned_up_one_disturb_no_pass() {
    let mut bench = Bench::new(Fixture::new(tiny_descriptor()));
    let gone = bench.put("gone", content(500, 1));
    std::fs::remove_dir_all(bench.path(&gone)).unwrap();
    let kept = bench.put("kept", content(500, 2));
    let records = bench.book.records.lock().unwrap().clone();
    // Forgotten by the catalog only once the pass has it in its list.
    let forget = |_: &blockframe::scrub::ScrubStatus| {
        bench.book.records.lock().unwrap().retain(|record| record.reference == kept);
    };
    let watch = Watch { progress: &forget, ..QUIET };
    let end = bench.scrubber(None).run_pass(PassScope::Everything, &watch).unwrap();
    assert_eq!(records.len(), 2);
    let PassEnd::Finished(summary) = end else { panic!("{end:?}") };
    assert_eq!((summary.objects, summary.found.lost), (1, 0));
}

// Defects of the earlier prototype.

#[test]
fn medium_tier_repair_does_something_and_verifies_it() {
    let mut bench = Bench::new(Fixture::new(tiny_descriptor()));
    let object = bench.put("medium", content(15_000, 1));
    let pristine = files_below(&bench.path(&object));
    let file = bench.path(&object).join("segments/segment_2.dat");
    flip(&file, 100);
    let health = bench.archive().object_health(&object, Depth::Full, &|_| {}).unwrap();
    assert_eq!(health.verdict, Verdict::Recoverable);
    let archive = bench.archive();
    let outcome = archive.execute(&health.plan(&archive).unwrap(), &|_| {}).unwrap();
    assert_eq!((outcome.done, outcome.failed), (1, 0));
    assert!(outcome.written > 0);
    assert!(files_below(&bench.path(&object)) == pristine);
    // With nothing to restore it from, repair says that it failed.
    for parity in 0..3 {
        flip(&bench.path(&object).join(format!("parity/segment_2_parity_{parity}.dat")), 100);
    }
    flip(&file, 100);
    let archive = bench.archive();
    let health = archive.object_health(&object, Depth::Full, &|_| {}).unwrap();
    let outcome = archive.execute(&health.plan(&archive).unwrap(), &|_| {}).unwrap();
    assert!(outcome.failed > 0);
    assert_eq!(archive.object_health(&object, Depth::Full, &|_| {}).unwrap().verdict, Verdict::Unrecoverable);
}

#[test]
fn large_tier_repair_uses_the_k_of_each_block() {
    // 4 + 4 + 2 segments, the last of them short.
    let mut bench = Bench::new(Fixture::new(tiny_descriptor()));
    let bytes = content(9 * 4096 + 777, 1);
    let object = bench.put("large", bytes.clone());
    let pristine = files_below(&bench.path(&object));
    for lost in [["segment_8", "segment_9"], ["segment_0", "segment_3"]] {
        for segment in lost {
            let block = if segment < "segment_4" { 0 } else { 2 };
            std::fs::remove_file(bench.path(&object).join(format!("blocks/block_{block}/segments/{segment}.dat")))
                .unwrap();
        }
        let summary = bench.pass();
        assert_eq!((summary.found.healed, summary.found.lost), (1, 0), "{lost:?}");
        assert!(files_below(&bench.path(&object)) == pristine, "{lost:?}");
    }
}

#[test]
fn health_hashes_every_byte_of_large_files() {
    let mut bench = Bench::new(Fixture::new(leafy_descriptor()));
    let object = bench.put("large", content(700_000, 1));
    let root = bench.path(&object);
    let archive = bench.archive();
    let total: u64 = shard_files(&root).iter().map(|file| std::fs::metadata(root.join(file)).unwrap().len()).sum();
    assert_eq!(archive.object_health(&object, Depth::Full, &|_| {}).unwrap().verified, total);
    for file in shard_files(&root) {
        let len = std::fs::read(root.join(&file)).unwrap().len();
        flip(&root.join(&file), len - 1);
        let verdict = bench.archive().object_health(&object, Depth::Full, &|_| {}).unwrap().verdict;
        assert_ne!(verdict, Verdict::Healthy, "{file:?}");
        flip(&root.join(&file), len - 1);
    }
}

#[test]
fn a_shard_lost_with_its_parity_is_unrecoverable() {
    let mut bench = Bench::new(Fixture::new(tiny_descriptor()));
    let object = bench.put("lost", content(15_000, 1));
    std::fs::remove_file(bench.path(&object).join("segments/segment_1.dat")).unwrap();
    for parity in 0..3 {
        assert_eq!(bench.pass().found.lost, 0, "{parity} parity shards lost");
        std::fs::remove_file(bench.path(&object).join("segments/segment_1.dat")).unwrap();
        for gone in 0..=parity {
            std::fs::remove_file(bench.path(&object).join(format!("parity/segment_1_parity_{gone}.dat"))).unwrap();
        }
    }
    let summary = bench.pass();
    assert_eq!((summary.found.lost, summary.found.healed), (1, 0));
    assert_eq!(bench.verdict(&object), Verdict::Unrecoverable);
    let events = bench.events.0.lock().unwrap();
    assert!(events.iter().any(|event| event.kind == EventKind::Lost && event.file == "segments/segment_1.dat"));
}

#[test]
fn small_file_repair_writes_verified_bytes_without_padding() {
    for len in [1, 63, 65, 1001, 9_999] {
        let mut bench = Bench::new(Fixture::new(tiny_descriptor()));
        let bytes = content(len, 4);
        let object = bench.put("small", bytes.clone());
        let root = bench.path(&object);
        std::fs::remove_file(root.join("data.dat")).unwrap();
        // The first parity shards lie, and must not be believed.
        flip(&root.join("parity_0.dat"), 0);
        flip(&root.join("parity_1.dat"), len / 2);
        assert_eq!(bench.pass().found.healed, 1, "{len}");
        assert!(std::fs::read(root.join("data.dat")).unwrap() == bytes, "{len}");
    }
}

#[test]
fn one_flipped_manifest_byte_or_one_orphan_stops_nothing() {
    let mut bench = Bench::new(Fixture::new(tiny_descriptor()));
    let flipped = bench.put("flipped", content(500, 1));
    let lost = bench.put("lost", content(500, 2));
    let fine = bench.put("fine", content(500, 3));
    flip(&bench.path(&flipped).join(MANIFEST), 30);
    flip(&bench.path(&lost).join(MANIFEST), 30);
    flip(&bench.path(&lost).join(MANIFEST_COPY), 31);
    let top = bench.fixture.dir.path();
    let orphan = top.join(ObjectName::new(b"orphan", &blockframe::base::Digest::of(b"orphan")).as_str());
    std::fs::create_dir(&orphan).unwrap();
    std::fs::write(orphan.join("data.dat"), b"who knows").unwrap();
    std::fs::write(top.join("holiday.txt"), b"mine").unwrap();
    let summary = bench.pass();
    assert_eq!((summary.objects, summary.found.damaged), (3, 2));
    assert_eq!((summary.found.healed, summary.found.lost, summary.found.failed), (1, 1, 0));
    assert_eq!(bench.verdict(&flipped), Verdict::Healthy);
    assert_eq!(bench.verdict(&lost), Verdict::Unrecoverable);
    assert_eq!(bench.verdict(&fine), Verdict::Healthy);
    assert!(orphan.join("data.dat").exists() && top.join("holiday.txt").exists(), "strangers are left alone");
    let names: Vec<_> = bench.files.iter().map(|(object, _)| object.name.to_string()).collect();
    let archive = bench.archive();
    let found = blockframe::scrub::strangers(&archive, &|name| Ok(names.iter().any(|known| known == name))).unwrap();
    assert_eq!(found.orphans, [orphan.file_name().unwrap().to_string_lossy()]);
    assert_eq!(found.foreign, ["holiday.txt"]);
}

#[test]
fn the_daemon_heals_what_is_due_by_itself_and_says_when_it_ends() {
    let mut bench = Bench::new(Fixture::new(tiny_descriptor()));
    let object = bench.put("damaged", content(30_000, 1));
    let pristine = files_below(&bench.path(&object));
    flip(&bench.path(&object).join("blocks/block_0/segments/segment_1.dat"), 9);
    let (send, receive) = std::sync::mpsc::channel();
    *bench.book.told.lock().unwrap() = Some(send);
    let stop = Arc::new(StopSignal::default());
    let scrubber = Scrubber::new(
        bench.archive(),
        bench.book.clone(),
        ScrubOptions::default(),
        stop.clone(),
        Arc::new(LatencyGauge::default()),
    );
    let daemon = ScrubDaemon::start(scrubber, stop).unwrap();
    assert_eq!(receive.recv_timeout(Duration::from_secs(60)).unwrap(), object.name);
    drop(daemon);
    assert!(files_below(&bench.path(&object)) == pristine);
    assert_eq!(status(&*bench.book).unwrap().unwrap().state, ScrubState::Stopped);
}

#[test]
fn a_request_for_a_new_pass_ends_the_one_under_way() {
    let mut bench = Bench::new(Fixture::new(leafy_descriptor()));
    bench.put("big", content(2_000_000, 2));
    let ask = |status: &blockframe::scrub::ScrubStatus| {
        if status.bytes_done > 500_000 {
            request_start(&*bench.book, bench.time.now()).unwrap();
        }
    };
    let watch = Watch { stop: &|| false, progress: &ask, takes_requests: true };
    let end = bench.scrubber(Some(200_000)).run_pass(PassScope::Everything, &watch).unwrap();
    assert_eq!(end, PassEnd::Superseded);
    assert!(bench.book.value("scrub.cursor").unwrap().unwrap().is_empty());
    assert!(start_pending(&*bench.book).unwrap().is_some(), "the daemon's next look begins it");
}

#[test]
fn two_processes_do_not_scrub_at_once() {
    let mut bench = Bench::new(Fixture::new(tiny_descriptor()));
    bench.put("file", content(100, 2));
    let heartbeat = bench.time.now().seconds;
    // Process 1 lives as long as the machine.
    let other = format!(r#"{{"state":"running","pid":1,"heartbeat":{heartbeat}}}"#);
    bench.book.set_value("scrub.status", &other).unwrap();
    let refused = bench.scrubber(None).run_pass(PassScope::Everything, &QUIET);
    assert!(matches!(refused, Err(ScrubError::Busy { pid: 1 })), "{refused:?}");
    bench.time.pause(Duration::from_secs(60));
    assert_eq!(bench.pass().objects, 1, "a status that is not renewed hinders nobody");
}

#[test]
fn planning_a_repair_changes_nothing() {
    let mut bench = Bench::new(Fixture::new(tiny_descriptor()));
    let object = bench.put("file", content(30_000, 2));
    flip(&bench.path(&object).join(MANIFEST), 30);
    flip(&bench.path(&object).join("blocks/block_0/segments/segment_1.dat"), 9);
    let damaged = files_below(&bench.path(&object));
    let archive = bench.archive();
    let health = archive.object_health(&object, Depth::Full, &|_| {}).unwrap();
    assert_eq!(health.plan(&archive).unwrap().steps.len(), 2);
    assert!(files_below(&bench.path(&object)) == damaged);
}
