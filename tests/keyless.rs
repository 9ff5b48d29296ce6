//! Healing needs no key: what is stored of an encrypted archive is verified
//! and repaired by a process that never gets one.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod kit;

use blockframe::archive::{Archive, Depth, ObjectHealth, ObjectRef, ShardState, Verdict};
use blockframe::base::{ContentRange, ObjectName, ShardIndex, SystemClock};
use blockframe::catalog::HealthLog;
use blockframe::format::layout::{MANIFEST, MANIFEST_COPY, shard_path, tree_path};
use blockframe::scrub::{
    Finding, Ledger, PassEnd, PassScope, PassSummary, ScrubOptions, Scrubber, StopSignal, StoreLedger, Subject, Survey,
    Watch, strangers,
};
use blockframe::store::LocalStore;
use kit::program::{Outcome, Place};
use kit::{Fixture, compressible, encoded_variants, files_below, reference, tiny_descriptor};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

type Picture = BTreeMap<PathBuf, Vec<u8>>;

/// An archive's contents that were written, and what a process without its keys sees of it.
struct Bench {
    fixture: Fixture,
    files: Vec<(ObjectRef, Vec<u8>)>,
    picture: Picture,
    closed: Archive,
    ledger: Arc<StoreLedger>,
    home: tempfile::TempDir,
}

fn ledger(home: &Path, closed: &Archive) -> Arc<StoreLedger> {
    fs::create_dir_all(home.join(".blockframe")).unwrap();
    let health = Arc::new(HealthLog::open_for(home, closed).unwrap());
    Arc::new(StoreLedger::new(closed.clone(), health))
}

/// All bytes of the store but what was kept for inspection, and what the test itself keeps.
fn picture(directory: &Path) -> Picture {
    let mut files = files_below(directory);
    files.retain(|path, _| !path.starts_with(".blockframe/quarantine"));
    files
}

impl Bench {
    /// Objects of all tiers under each way of encoding.
    fn all() -> Vec<Self> {
        encoded_variants(&tiny_descriptor())
            .into_iter()
            .map(|rules| {
                let fixture = Fixture::new(rules);
                let lens = [3000, 15_000, 40_000, 100_000];
                let contents = lens.into_iter().zip(1..).map(|(len, seed)| compressible(len, seed));
                let files = contents.map(|bytes| (reference(&fixture.put("file", &bytes)), bytes)).collect();
                Self::of(fixture, files)
            })
            .collect()
    }

    fn encrypted() -> Self {
        Self::all().pop().unwrap()
    }

    fn of(fixture: Fixture, files: Vec<(ObjectRef, Vec<u8>)>) -> Self {
        let home = kit::scratch();
        let store = Arc::new(LocalStore::open(fixture.dir.path()).unwrap());
        let closed = Archive::open(store, Arc::new(SystemClock), Arc::new(())).unwrap();
        assert!(closed.keys().is_none());
        let ledger = ledger(home.path(), &closed);
        let picture = picture(fixture.dir.path());
        Self { fixture, files, picture, closed, ledger, home }
    }

    fn object(&self, reference: &ObjectRef) -> PathBuf {
        self.fixture.dir.path().join(reference.name.as_str())
    }

    /// The files of an object: those of its shards, its trees, its manifests.
    fn object_files(&self, reference: &ObjectRef) -> Vec<String> {
        files_below(&self.object(reference)).into_keys().map(|path| path.to_str().unwrap().to_string()).collect()
    }

    fn subjects(&self) -> Vec<Subject> {
        let mut subjects = Vec::new();
        self.ledger
            .objects(&mut |subject| {
                subjects.push(subject);
                true
            })
            .unwrap();
        subjects
    }

    fn survey(&self, depth: Depth) -> BTreeMap<ObjectName, Finding> {
        let survey = Survey { archive: &self.closed, depth, progress: &|_| {}, stop: &|| false, enough: &|| false };
        let mut found = BTreeMap::new();
        let done = survey.run(self.subjects().into_iter(), &mut |subject, finding| {
            found.insert(subject.reference.name, finding);
            Ok::<_, blockframe::scrub::ScrubError>(())
        });
        assert!(done.unwrap());
        found
    }

    /// What is damaged: `object/file`.
    fn damage(&self, depth: Depth) -> BTreeSet<String> {
        let mut damaged = BTreeSet::new();
        for (name, finding) in self.survey(depth) {
            match finding {
                Finding::Looked(health) => {
                    assert_eq!(health.verdict == Verdict::Healthy, self.bad_files(&health).is_empty());
                    damaged.extend(self.bad_files(&health).iter().map(|file| format!("{name}/{file}")));
                }
                other => panic!("{name}: {other:?}"),
            }
        }
        damaged
    }

    fn bad_files(&self, health: &ObjectHealth) -> BTreeSet<String> {
        let object = self.closed.inspect(&health.reference).unwrap();
        let geometry = object.manifest().geometry();
        let mut files: BTreeSet<String> = health.bad_manifests.iter().map(|(copy, _)| (*copy).to_string()).collect();
        for health in &health.damaged {
            let block = geometry.block(health.id).unwrap();
            for (shard, state) in health.shards.iter().enumerate() {
                if *state != ShardState::Healthy {
                    files.insert(shard_path(geometry, &block, ShardIndex::new(shard as u16)));
                }
            }
            if !health.tree_good {
                files.insert(tree_path(geometry, &block));
            }
        }
        files
    }

    /// As `repair` does it. Returns the number of steps that failed.
    fn repair(&self) -> usize {
        let mut failed = 0;
        for finding in self.survey(Depth::Full).into_values() {
            if let Finding::Looked(health) = finding {
                let plan = health.plan(&self.closed).unwrap();
                failed += self.closed.execute(&plan, &|_| {}).unwrap().failed;
            }
        }
        failed
    }

    fn scrub(&self) -> PassSummary {
        match self.pass(&|| false) {
            PassEnd::Finished(summary) => summary,
            other => panic!("{other:?}"),
        }
    }

    fn pass(&self, stop: &(dyn Fn() -> bool + Sync)) -> PassEnd {
        let options = ScrubOptions { bytes_per_second: None, ..ScrubOptions::default() };
        let signal = Arc::new(StopSignal::default());
        let scrubber = Scrubber::new(self.closed.clone(), self.ledger.clone(), options, signal, Arc::new(()));
        scrubber.run_pass(PassScope::Everything, &Watch { stop, progress: &|_| {}, takes_requests: false }).unwrap()
    }

    /// Every byte is as it was written.
    fn assert_restored(&self, after: &str) {
        let now = picture(self.fixture.dir.path());
        let names = |picture: &Picture| picture.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&now), names(&self.picture), "after {after}");
        for (path, bytes) in &now {
            assert!(*bytes == self.picture[path], "{} differs after {after}", path.display());
        }
    }

    fn assert_readable(&self) {
        for (reference, content) in &self.files {
            let object = self.fixture.object(reference);
            let read = object.read(ContentRange::between(0, content.len() as u64)).unwrap();
            assert!(read.bytes() == &content[..]);
        }
    }
}

/// What can happen to a file.
#[derive(Debug, Clone, Copy)]
enum Blow {
    Flip,
    Shorter,
    Longer,
    Gone,
}

const BLOWS: [Blow; 4] = [Blow::Flip, Blow::Shorter, Blow::Longer, Blow::Gone];

impl Blow {
    fn strike(self, file: &Path, dice: &mut Dice) {
        let mut bytes = fs::read(file).unwrap();
        match self {
            Self::Flip => {
                let at = dice.roll(bytes.len());
                bytes[at] ^= 1 << dice.roll(8);
            }
            Self::Shorter => bytes.truncate(dice.roll(bytes.len())),
            Self::Longer => bytes.extend_from_slice(b"more"),
            Self::Gone => return fs::remove_file(file).unwrap(),
        }
        fs::write(file, bytes).unwrap();
    }
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
fn the_objects_are_found_in_the_store_with_their_lengths() {
    for bench in Bench::all() {
        let found: BTreeSet<Listed> = bench.subjects().into_iter().map(Listed::from).collect();
        let length = |reference: &ObjectRef| bench.fixture.object(reference).manifest().geometry().stored_len();
        let written = bench.files.iter().map(|(reference, _)| {
            Listed::from(Subject { reference: reference.clone(), stored_len: length(reference) })
        });
        assert_eq!(found, written.collect());
        for (reference, _) in &bench.files {
            assert!(bench.ledger.knows(&reference.name).unwrap());
        }
        let stranger = ObjectName::sealed(&blockframe::base::Digest::of(b"stranger"));
        assert!(!bench.ledger.knows(&stranger).unwrap());
        let found =
            strangers(&bench.closed, &|name| Ok(bench.subjects().iter().any(|s| s.reference.name.as_str() == name)));
        assert_eq!(found.unwrap(), blockframe::scrub::Strangers::default());
    }
}

#[test]
fn what_is_not_encrypted_is_no_object_of_an_encrypted_archive() {
    let bench = Bench::encrypted();
    let foreign = format!("holiday_{}", "0".repeat(64));
    fs::create_dir(bench.fixture.dir.path().join(&foreign)).unwrap();
    assert_eq!(bench.subjects().len(), bench.files.len());
    assert_eq!(bench.damage(Depth::Full), BTreeSet::new());
    let known: Vec<String> = bench.subjects().iter().map(|subject| subject.reference.name.to_string()).collect();
    let found = strangers(&bench.closed, &|name| Ok(known.iter().any(|known| known == name))).unwrap();
    assert_eq!((found.orphans, found.foreign), (vec![foreign], vec![]));
}

/// A subject that can be put in order.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Listed(String, String, u64);

impl From<Subject> for Listed {
    fn from(subject: Subject) -> Self {
        let ObjectRef { name, root } = subject.reference;
        Self(name.to_string(), root.to_hex(), subject.stored_len)
    }
}

#[test]
fn every_damaged_file_is_found_and_nothing_else_and_is_restored_byte_for_byte() {
    let mut dice = Dice(71);
    for bench in Bench::all() {
        assert_eq!(bench.damage(Depth::Full), BTreeSet::new());
        let mut next = 0;
        for (reference, _) in &bench.files {
            for file in bench.object_files(reference) {
                let blow = BLOWS[next % BLOWS.len()];
                next += 1;
                blow.strike(&bench.object(reference).join(&file), &mut dice);
                let what = format!("{blow:?} of {}/{file}", reference.name);
                let hit = BTreeSet::from([format!("{}/{file}", reference.name)]);
                assert_eq!(bench.damage(Depth::Full), hit, "{what}");
                if !matches!(blow, Blow::Flip) {
                    assert_eq!(bench.damage(Depth::Quick), hit, "{what}");
                }
                assert_eq!(bench.repair(), 0, "{what}");
                bench.assert_restored(&what);
            }
        }
        assert_eq!(bench.damage(Depth::Full), BTreeSet::new());
        bench.assert_readable();
    }
}

/// Damages as many shards of every block as it bears, one manifest of every object, and all trees.
fn strike_all_that_is_borne(bench: &Bench, dice: &mut Dice) -> usize {
    let mut struck = 0;
    for (reference, _) in &bench.files {
        let object = bench.closed.inspect(reference).unwrap();
        let geometry = object.manifest().geometry();
        let directory = bench.object(reference);
        let mut strike = |file: &str, dice: &mut Dice| {
            BLOWS[dice.roll(BLOWS.len())].strike(&directory.join(file), dice);
            struck += 1;
        };
        for id in geometry.block_ids() {
            let block = geometry.block(id).unwrap();
            let mut shards: Vec<u16> = (0..block.shards()).collect();
            for _ in 0..block.m {
                let shard = shards.swap_remove(dice.roll(shards.len()));
                strike(&shard_path(geometry, &block, ShardIndex::new(shard)), dice);
            }
            if directory.join(tree_path(geometry, &block)).exists() {
                strike(&tree_path(geometry, &block), dice);
            }
        }
        strike([MANIFEST, MANIFEST_COPY][dice.roll(2)], dice);
    }
    struck
}

#[test]
fn as_much_as_the_parity_bears_is_restored_by_repair_and_by_a_scrub() {
    for seed in 0..6 {
        let mut dice = Dice(seed);
        for bench in Bench::all() {
            let struck = strike_all_that_is_borne(&bench, &mut dice);
            assert_eq!(bench.damage(Depth::Full).len(), struck, "seed {seed}");
            assert_eq!(bench.repair(), 0, "seed {seed}");
            bench.assert_restored(&format!("repair, seed {seed}"));
            strike_all_that_is_borne(&bench, &mut dice);
            let found = bench.scrub().found;
            let objects = bench.files.len() as u64;
            assert_eq!(
                (found.damaged, found.healed, found.lost, found.failed),
                (objects, objects, 0, 0),
                "seed {seed}"
            );
            bench.assert_restored(&format!("a scrub, seed {seed}"));
            for (reference, _) in &bench.files {
                assert_eq!(bench.ledger.verified(&reference.name).unwrap().unwrap().1, Verdict::Healthy);
            }
            bench.assert_readable();
        }
    }
}

#[test]
fn what_is_beyond_the_parity_is_lost_and_the_rest_is_restored() {
    let bench = Bench::encrypted();
    let (lost, _) = &bench.files[1];
    for file in bench.object_files(lost).iter().filter(|file| file.contains("segment_0")) {
        fs::remove_file(bench.object(lost).join(file)).unwrap();
    }
    let (other, _) = &bench.files[2];
    fs::remove_file(bench.object(other).join(MANIFEST)).unwrap();
    let found = bench.survey(Depth::Full);
    for (name, finding) in &found {
        let Finding::Looked(health) = finding else { panic!("{finding:?}") };
        let word = if *name == lost.name {
            Verdict::Unrecoverable
        } else if *name == other.name {
            Verdict::Degraded
        } else {
            Verdict::Healthy
        };
        assert_eq!(health.verdict, word, "{name}");
        assert_eq!(health.lost.is_empty(), *name != lost.name);
    }
    assert!(bench.repair() > 0);
    assert!(bench.object(other).join(MANIFEST).exists());
    let found = bench.scrub().found;
    assert_eq!((found.lost, found.failed), (1, 0));
}

#[test]
fn an_object_without_a_manifest_is_lost_and_no_error_of_the_others() {
    let bench = Bench::encrypted();
    let (lost, _) = &bench.files[0];
    for copy in [MANIFEST, MANIFEST_COPY] {
        fs::write(bench.object(lost).join(copy), b"garbage").unwrap();
    }
    for (name, finding) in bench.survey(Depth::Full) {
        match finding {
            Finding::ManifestLost(_) => assert_eq!(name, lost.name),
            Finding::Looked(health) => assert_eq!(health.verdict, Verdict::Healthy),
            Finding::Failed(error) => panic!("{error}"),
        }
    }
    let summary = bench.scrub();
    assert_eq!((summary.objects, summary.found.lost), (bench.files.len() as u64, 1));
}

#[test]
fn of_two_whole_manifests_that_differ_neither_replaces_the_other_without_the_key() {
    let mut bench = Bench::encrypted();
    let (reference, content) = bench.files[2].clone();
    let directory = bench.object(&reference);
    let old = fs::read(directory.join(MANIFEST)).unwrap();
    fs::remove_dir_all(&directory).unwrap();
    let again = self::reference(&bench.fixture.put("file", &content));
    assert_eq!(again.name, reference.name);
    assert_ne!(again.root, reference.root, "each time it is encrypted differently");
    for copy in [MANIFEST, MANIFEST_COPY] {
        let new = fs::read(directory.join(copy)).unwrap();
        fs::write(directory.join(copy), &old).unwrap();
        bench.picture = picture(bench.fixture.dir.path());
        let found = bench.survey(Depth::Full);
        let Finding::Looked(health) = &found[&reference.name] else { panic!("{found:?}") };
        assert_eq!(health.bad_manifests.len(), 1);
        assert!(bench.repair() > 0);
        let found = bench.scrub().found;
        assert_eq!((found.damaged, found.healed), (1, 0));
        bench.assert_restored("a repair that must not decide");
        // The catalog's root and the keys decide.
        let health = bench.fixture.archive.object_health(&again, Depth::Full, &|_| {}).unwrap();
        let plan = health.plan(&bench.fixture.archive).unwrap();
        assert_eq!(bench.fixture.archive.execute(&plan, &|_| {}).unwrap().failed, 0);
        assert!(fs::read(directory.join(copy)).unwrap() == new);
    }
}

#[test]
fn a_pass_that_was_stopped_goes_on_in_another_process_without_a_key() {
    let mut bench = Bench::encrypted();
    let mut dice = Dice(9);
    strike_all_that_is_borne(&bench, &mut dice);
    let mut stops = 0;
    let summary = loop {
        let asked = AtomicUsize::new(0);
        match bench.pass(&|| asked.fetch_add(1, Ordering::Relaxed) > 40) {
            PassEnd::Finished(summary) => break summary,
            PassEnd::Stopped => stops += 1,
            other => panic!("{other:?}"),
        }
        assert!(stops < 1000, "it gets nowhere");
        bench.ledger = ledger(bench.home.path(), &bench.closed);
    };
    assert!(stops > 0);
    let objects = bench.files.len() as u64;
    assert_eq!((summary.objects, summary.found.healed), (objects, objects));
    assert!(bench.home.path().join(".blockframe/state-locked.db").exists());
    bench.assert_restored("a pass in pieces");
}

/// An encrypted archive that the file `stick` opens, with a few files in it.
struct Committed {
    place: Place,
    picture: Picture,
}

const KEY: [&str; 2] = ["--key-file", "stick"];

impl Committed {
    fn new() -> Self {
        let place = Place::new();
        fs::write(place.path("stick"), [7; 64]).unwrap();
        fs::set_permissions(place.path("stick"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::create_dir(place.path("src")).unwrap();
        for (name, seed) in [("a.bin", 1), ("b.bin", 2)] {
            fs::write(place.path("src").join(name), compressible(2_000_000, seed)).unwrap();
        }
        fs::write(place.path("src/secret-diary.txt"), b"small, so it goes to a bundle").unwrap();
        place.ok([&KEY[..], &["init", "--encrypt", "--no-recovery-phrase"]].concat());
        place.ok([&KEY[..], &["commit", "src"]].concat());
        let picture = stored(&place);
        Self { place, picture }
    }

    /// Without any key, and with nobody to ask.
    fn keyless(&self, arguments: &[&str], status: i32) -> Outcome {
        let outcome = self.place.run(arguments);
        assert_eq!(outcome.status(), Some(status), "{arguments:?}: {}{}", outcome.stdout(), outcome.stderr());
        assert!(!outcome.stderr().contains("panicked"), "{}", outcome.stderr());
        for text in [outcome.stdout(), outcome.stderr()] {
            assert!(!text.contains("diary") && !text.contains("a.bin"), "{text}");
        }
        outcome
    }

    fn json(&self, arguments: &[&str], status: i32) -> Vec<Value> {
        let outcome = self.keyless(&[&["--json"], arguments].concat(), status);
        outcome.stdout().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The directories of all objects, the largest first.
    fn objects(&self) -> Vec<PathBuf> {
        let names = fs::read_dir(self.place.archive()).unwrap().map(|entry| entry.unwrap().path());
        let is_object = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("sealed_");
        let mut objects: Vec<PathBuf> = names.filter(is_object).collect();
        let size = |path: &PathBuf| files_below(path).values().map(Vec::len).sum::<usize>();
        objects.sort_by_key(|path| std::cmp::Reverse(size(path)));
        objects
    }

    fn shards(&self, object: &Path) -> Vec<PathBuf> {
        kit::shard_files(object).into_iter().map(|file| object.join(file)).collect()
    }

    fn assert_restored(&self) {
        let now = stored(&self.place);
        assert_eq!(now.keys().collect::<Vec<_>>(), self.picture.keys().collect::<Vec<_>>());
        for (path, bytes) in &now {
            assert!(*bytes == self.picture[path], "{} differs", path.display());
        }
    }
}

/// The bytes that make up the archive: not the databases, which each process that opens them touches.
fn stored(place: &Place) -> Picture {
    let mut files = picture(&place.archive());
    files.retain(|path, _| {
        let text = path.to_string_lossy();
        !text.starts_with(".blockframe/state") && !text.starts_with(".blockframe/catalog.db") && !text.contains("lock")
    });
    files
}

fn summary(lines: &[Value]) -> &Value {
    lines.iter().find(|line| line["summary"] == true).unwrap()
}

#[test]
fn the_commands_find_and_heal_without_a_key_and_say_so() {
    let archive = Committed::new();
    let healthy = archive.keyless(&["health"], 0);
    assert!(healthy.stderr().contains("no key was named"), "{}", healthy.stderr());
    assert!(!archive.keyless(&["--no-key", "health"], 0).stderr().contains("no key was named"));
    let lines = archive.json(&["--no-key", "health", "--quick"], 0);
    assert_eq!(lines.len(), 1, "no strangers: {lines:?}");
    assert_eq!((&summary(&lines)["objects"], &summary(&lines)["staged_files"]), (&Value::from(3), &Value::Null));
    let objects = archive.objects();
    let name = |object: &PathBuf| object.file_name().unwrap().to_str().unwrap().to_string();

    // Two objects with damage that the parity bears.
    let shards = archive.shards(&objects[0]);
    Blow::Flip.strike(&shards[0], &mut Dice(1));
    Blow::Gone.strike(shards.last().unwrap(), &mut Dice(2));
    Blow::Gone.strike(&objects[1].join(MANIFEST), &mut Dice(3));
    let lines = archive.json(&["health"], 3);
    let reports: Vec<&Value> = lines.iter().filter(|line| line["object"].is_string()).collect();
    assert_eq!(reports.len(), 2);
    for report in reports {
        assert_eq!((&report["paths_need_key"], &report["paths"]), (&Value::Bool(true), &serde_json::json!([])));
        let files: Vec<&str> =
            report["files"].as_array().unwrap().iter().map(|f| f["file"].as_str().unwrap()).collect();
        if report["object"] == name(&objects[1]) {
            assert_eq!(files, [MANIFEST]);
        } else {
            assert_eq!(report["object"], name(&objects[0]));
            assert_eq!(files.len(), 2);
        }
    }
    assert!(archive.keyless(&["health"], 3).stdout().contains("paths need the key"));
    archive.json(&["status"], 3);
    let dry = archive.keyless(&["repair", "--dry-run"], 3);
    assert!(dry.stdout().contains("copy from the other manifest"), "{}", dry.stdout());
    archive.json(&["repair"], 3);
    archive.assert_restored();
    archive.json(&["health"], 0);
    archive.json(&["status"], 0);

    Blow::Gone.strike(&shards[0], &mut Dice(4));
    let pass = &archive.json(&["scrub"], 3)[0];
    assert_eq!((&pass["found"]["damaged"], &pass["found"]["healed"]), (&Value::from(1), &Value::from(1)));
    archive.assert_restored();
    archive.json(&["scrub"], 0);
    archive.json(&["scrub", "status"], 0);
    archive.json(&["health", "--budget", "1kB"], 0);
    for (file, bytes) in files_below(&archive.place.archive()) {
        let tells = bytes.windows(12).any(|window| window == b"secret-diary");
        assert!(!tells, "{} tells a name", file.display());
    }
    let content = archive.place.run([&KEY[..], &["cat", "src/a.bin"]].concat());
    assert!(content.0.stdout == compressible(2_000_000, 1), "{}", content.stderr());
    archive.place.ok([&KEY[..], &["health"]].concat());
}

#[test]
fn losses_are_told_by_object_and_segment() {
    let archive = Committed::new();
    let object = &archive.objects()[0];
    // More than the parity bears: of all but one shard nothing is left.
    archive.shards(object).iter().skip(1).for_each(|file| fs::remove_file(file).unwrap());
    let data = object.join("data.dat");
    let mut bytes = fs::read(&data).unwrap();
    bytes[50_000] ^= 1;
    fs::write(&data, bytes).unwrap();
    let lines = archive.json(&["health"], 4);
    let report = lines.iter().find(|line| line["verdict"] == "unrecoverable").unwrap();
    let lost = serde_json::json!([{ "segment": 0, "lost": [{ "start": 49_152, "end": 65_536 }] }]);
    assert_eq!(report["lost_segments"], lost);
    assert!(archive.keyless(&["health"], 4).stdout().contains("segment 0  LOST stored bytes 49152..65536"));
    archive.keyless(&["repair"], 4);
    archive.keyless(&["scrub"], 4);
    archive.keyless(&["status"], 4);
    // Its manifests too: it is named, and the others are looked at.
    for copy in [MANIFEST, MANIFEST_COPY] {
        fs::write(object.join(copy), b"garbage").unwrap();
    }
    let lines = archive.json(&["health"], 4);
    assert_eq!(summary(&lines)["words"]["healthy"], 2);
    assert_eq!(summary(&lines)["words"]["unrecoverable"], 1);
    let lost = lines.iter().find(|line| line["verdict"] == "unrecoverable").unwrap();
    assert!(lost["next"].as_str().unwrap().contains("with the key tells"), "{lost}");
}

#[test]
fn metadata_is_verified_without_a_key_and_the_journal_is_healed_with_it() {
    let archive = Committed::new();
    for name in ["blockframe-store.json", "RECOVERY.md"] {
        fs::remove_file(archive.place.archive().join(name)).unwrap();
        archive.keyless(&["repair"], if name == "RECOVERY.md" { 3 } else { 0 });
        archive.assert_restored();
    }
    let catalog = archive.place.archive().join(".blockframe/catalog");
    for (file, bytes) in files_below(&catalog) {
        for blow in [Blow::Flip, Blow::Shorter, Blow::Gone] {
            blow.strike(&catalog.join(&file), &mut Dice(5));
            let lines = archive.json(&["health"], 3);
            let problems = summary(&lines)["metadata_problems"].to_string();
            assert!(problems.contains(file.to_str().unwrap()), "{blow:?}: {problems}");
            archive.json(&["scrub"], 3);
            fs::write(catalog.join(&file), &bytes).unwrap();
        }
    }
    archive.json(&["health"], 0);
    let journal = files_below(&catalog).into_keys().next().unwrap();
    Blow::Flip.strike(&catalog.join(journal), &mut Dice(6));
    archive.keyless(&["repair"], 3).stdout().contains("with the key mends it").then_some(()).unwrap();
    archive.keyless(&["health"], 3);
    let repaired = archive.place.run([&KEY[..], &["repair"]].concat());
    assert_eq!(repaired.status(), Some(3), "{}", repaired.stderr());
    archive.keyless(&["health"], 0);
}

#[test]
fn a_damaged_copy_of_the_key_ring_is_healed_without_a_key() {
    let archive = Committed::new();
    for name in ["blockframe-keys.json", ".blockframe/keys/keyring.json"] {
        let file = archive.place.archive().join(name);
        for blow in BLOWS {
            blow.strike(&file, &mut Dice(8));
            let lines = archive.json(&["health"], 3);
            assert!(summary(&lines)["metadata_problems"].to_string().contains(name), "{blow:?} {name}: {lines:?}");
            archive.keyless(&["repair"], 3);
            archive.assert_restored();
            archive.json(&["health"], 0);
        }
    }
}

#[test]
fn no_key_is_used_even_where_one_is_configured() {
    let archive = Committed::new();
    // Reading the key would fail, and is not even tried.
    fs::write(archive.place.path("config.toml"), "[encryption]\nkey_file = \"/nowhere/key\"\n").unwrap();
    for arguments in [&["health"][..], &["repair"], &["scrub"], &["status"]] {
        archive.keyless(&[&["--no-key"], arguments].concat(), 0);
        archive.keyless(arguments, 6);
    }
    let doctor = archive.place.run(["--json", "--no-key", "doctor"]);
    let document: Value = serde_json::from_str(&doctor.stdout()).unwrap();
    let checks = document["checks"].as_array().unwrap();
    for check in ["archive", "encryption", "key"] {
        assert!(checks.iter().any(|found| found["check"] == check && found["ok"] == true), "{document}");
    }
    fs::remove_file(archive.place.path("config.toml")).unwrap();
    archive.place.run(["--no-key", "ls"]).told(6, &["--no-key"]);
    archive.place.run(["--no-key", "health", "src"]).told(6, &["a path needs its key"]);
    archive.place.run(["health", "src"]).told(6, &["encrypted"]);
    archive.place.run(["scrub", "pause"]).told(6, &["encrypted"]);
    assert_eq!(archive.place.run([&["--no-key"], &KEY[..], &["health"]].concat()).status(), Some(2));
}

#[test]
fn an_archive_in_clear_is_cared_for_with_its_names_as_ever() {
    let place = Place::new();
    place.ok(["init"]);
    fs::write(place.path("plain.bin"), compressible(2_000_000, 3)).unwrap();
    place.ok(["commit", "plain.bin"]);
    fs::remove_file(place.object("plain.bin").join(MANIFEST)).unwrap();
    for arguments in [&["--json", "health"][..], &["--json", "--no-key", "health"]] {
        let outcome = place.run(arguments);
        assert_eq!(outcome.status(), Some(3), "{}", outcome.stderr());
        let report: Value = serde_json::from_str(outcome.stdout().lines().next().unwrap()).unwrap();
        assert_eq!(report["paths"][0]["path"], "plain.bin");
        assert_eq!((&report["paths_need_key"], &report["lost_segments"]), (&Value::Null, &Value::Null));
        assert_eq!(outcome.stderr(), "");
    }
    place.run(["repair"]);
    place.ok(["health"]);
}
