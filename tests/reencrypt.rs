//! `key rotate --reencrypt`: afterwards nothing on the store needs an old key,
//! and all that could be read can be; and so it is at every moment between,
//! wherever the process or the store stops.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod kit;

use blockframe::archive::{Archive, Object, WriteControl};
use blockframe::base::{ContentHash, ContentRange, Secret, SystemClock, Timestamp};
use blockframe::catalog::{Catalog, RebuildSource, rebuild};
use blockframe::codec::seal::CipherSuite;
use blockframe::format::ArchiveDescriptor;
use blockframe::ingest::{IngestError, Reencryption};
use blockframe::keys::{NewSlot, OpenRing, SlotKind, SlotSecret};
use blockframe::store::{BlockStore, Fault, FaultStore, LocalStore, MemoryStore, Operation, StoreErrorKind};
use blockframe::vfs::{ArchiveVfs, VfsLimits};
use kit::program::{Place, can_mount};
use kit::view::{self, Picture, difference};
use kit::{content, scratch, tiny_descriptor};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

const NOW: Timestamp = Timestamp { seconds: 1_790_000_000, nanoseconds: 0 };

fn secret() -> SlotSecret {
    SlotSecret::random(SlotKind::Recovery, &Secret::filled_by(|bytes: &mut [u8; 32]| bytes.fill(7))).unwrap()
}

fn tiny(compressed: bool) -> ArchiveDescriptor {
    ArchiveDescriptor {
        compression: compressed.then(|| "zstd:1".parse().unwrap()),
        encryption: Some(CipherSuite::Aes256Gcm),
        ..tiny_descriptor()
    }
}

/// An archive as a process opens it that has the secret.
struct Opened {
    ring: OpenRing,
    archive: Arc<Archive>,
    catalog: Arc<Catalog>,
}

fn unlocked(store: Arc<dyn BlockStore>) -> (OpenRing, Arc<Archive>) {
    let locked = Archive::open(store, Arc::new(SystemClock), Arc::new(())).unwrap();
    let copies = locked.key_ring().unwrap();
    let ring = copies.open(&secret(), &locked.descriptor().digest().unwrap()).unwrap();
    let archive = Arc::new(locked.unlock(&copies, &ring));
    (ring, archive)
}

fn open(store: Arc<dyn BlockStore>, home: &Path) -> Opened {
    let (ring, archive) = unlocked(store);
    let catalog = Arc::new(Catalog::open(home, &archive).unwrap());
    Opened { ring, archive, catalog }
}

/// A new archive in memory.
fn create(descriptor: ArchiveDescriptor) -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::new("memory"));
    let slot = NewSlot::new(secret(), "paper");
    let mut ring = OpenRing::create(descriptor.id, descriptor.digest().unwrap(), &[slot], NOW).unwrap();
    Archive::create(store.clone(), descriptor, "test".into()).unwrap();
    ring.save(&*store).unwrap();
    store
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => copy(&entry.path(), &to),
            kind if kind.is_file() => drop(fs::copy(entry.path(), to).unwrap()),
            _ => {}
        }
    }
}

fn copy_of(directory: &Path) -> tempfile::TempDir {
    let copied = scratch();
    copy(directory, copied.path());
    copied
}

impl Opened {
    fn picture(&self) -> Picture {
        let (archive, catalog) = (self.archive.clone(), self.catalog.clone());
        view::of_vfs(&ArchiveVfs::new(archive, catalog, Arc::new(()), VfsLimits::default()).unwrap())
    }

    /// Every content that the catalog has, those of the past included.
    fn contents(&self) -> BTreeMap<ContentHash, Vec<u8>> {
        let mut contents = BTreeMap::new();
        let mut records = Vec::new();
        self.catalog
            .objects(None, &mut |record| {
                records.push(record);
                true
            })
            .unwrap();
        for record in records {
            let object = self.archive.object(&record.reference).unwrap();
            for member in self.catalog.members_of(&record.reference.name).unwrap() {
                let range = ContentRange::new(member.offset, member.size).unwrap();
                contents.insert(member.hash, object.read(range).unwrap().bytes().to_vec());
            }
        }
        contents
    }

    /// All that the command does.
    fn reencrypt(&mut self) -> Result<(u64, bool), String> {
        let store = self.archive.store().clone();
        self.ring.rotate_to_reencrypt(&*store, NOW).map_err(|error| error.to_string())?;
        self.go_on().map_err(|error| error.to_string())
    }

    fn go_on(&self) -> Result<(u64, bool), IngestError> {
        let control = WriteControl { progress: &|_| {}, cancel: &AtomicBool::new(false) };
        let writer = self.catalog.writer()?;
        let mut work = Reencryption::new(&self.archive, &self.catalog);
        for old in work.todo()? {
            work.renew(&writer, &old, &control)?;
        }
        work.collect(&writer)?;
        let left = work.sweep(&writer)?;
        writer.finish()?;
        let mut finished = false;
        if left.is_empty() {
            let ring = self.archive.open_ring().and_then(|mut ring| ring.forget_old_epochs_on(&**self.archive.store()));
            finished = ring.is_ok();
        }
        Ok((work.report.objects, finished))
    }

    /// No object and no key of an epoch but this.
    fn is_all_of(&self, epoch: u32, what: &str) {
        assert_eq!(epochs_on(self.archive.store()).into_iter().collect::<Vec<_>>(), [epoch], "{what}");
        let (ring, _) = unlocked(self.archive.store().clone());
        let known: Vec<u32> = ring.ring().epochs().iter().map(|known| known.epoch.get()).collect();
        assert_eq!((known, ring.ring().is_reencrypting()), (vec![epoch], false), "{what}");
        let journal = blockframe::catalog::oldest_journal_epoch(&self.archive).unwrap();
        assert_eq!(journal.map(|epoch| epoch.get()), Some(epoch), "{what}");
    }
}

/// The epochs of all manifests, as somebody sees them who has no key.
fn epochs_on(store: &Arc<dyn BlockStore>) -> std::collections::BTreeSet<u32> {
    let locked = Archive::open(store.clone(), Arc::new(SystemClock), Arc::new(())).unwrap();
    let names = store.list(None).unwrap().into_iter().filter_map(|listed| listed.name.parse().ok());
    names.map(|name| locked.load_manifest(&name).unwrap().encryption().unwrap().1).collect()
}

/// A tree of a bundle and larger files, committed, then changed and committed again.
fn filled(descriptor: ArchiveDescriptor) -> (Arc<MemoryStore>, tempfile::TempDir) {
    let (store, home, source) = (create(descriptor), scratch(), scratch());
    let (_, archive) = unlocked(store.clone());
    drop(Catalog::create(home.path(), &archive).unwrap());
    let root = source.path().join("tree");
    fs::create_dir_all(root.join("empty")).unwrap();
    for index in 0..3 {
        fs::write(root.join(format!("small{index}")), content(300, index)).unwrap();
    }
    fs::write(root.join("large"), vec![b'a'; 70_000]).unwrap();
    let opened = open(store.clone(), home.path());
    view::commit_paths(&opened.archive, &opened.catalog, &[&root]);
    fs::write(root.join("large"), content(15_000, 9)).unwrap();
    fs::write(root.join("small0"), content(400, 10)).unwrap();
    view::commit_paths(&opened.archive, &opened.catalog, &[&root]);
    (store, home)
}

#[test]
fn afterwards_nothing_needs_an_old_key_and_everything_is_as_it_was() {
    for compressed in [false, true] {
        let (store, home) = filled(tiny(compressed));
        let before = store.fork();
        let mut opened = open(store.clone(), home.path());
        let (picture, contents) = (opened.picture(), opened.contents());
        assert!(contents.len() > 5, "the past has contents, too");
        opened.is_all_of(1, "at the beginning");
        let of_objects = |store: Arc<MemoryStore>| {
            let home = scratch();
            let (_, archive) = unlocked(store);
            rebuild(home.path(), &archive, RebuildSource::Objects).unwrap();
            open(archive.store().clone(), home.path()).picture()
        };
        let told = of_objects(Arc::new(store.fork()));
        for epoch in 2..4 {
            let (objects, finished) = opened.reencrypt().unwrap();
            assert!(objects > 2 && finished);
            opened.is_all_of(epoch, "at the end");
            assert_eq!(difference(&picture, &opened.picture()), None);
            assert!(contents == opened.contents());
            // And to a process that opens it now, with and without the database, and from the objects alone.
            opened = open(store.clone(), home.path());
            assert_eq!(difference(&picture, &opened.picture()), None);
            let fresh = open(Arc::new(store.fork()), scratch().path());
            assert_eq!(difference(&picture, &fresh.picture()), None);
            assert!(contents == fresh.contents());
            assert_eq!(difference(&told, &of_objects(Arc::new(store.fork()))), None);
        }
        // A copy that was made before has its own ring, and opens.
        let copy = open(Arc::new(before), scratch().path());
        assert_eq!(difference(&picture, &copy.picture()), None);
        copy.is_all_of(1, "the copy");
    }
}

#[test]
fn a_stop_of_the_store_at_any_operation_loses_nothing_and_the_next_run_finishes() {
    let (begin, begin_home) = filled(tiny(true));
    let opened = open(begin.clone(), begin_home.path());
    let (picture, contents) = (opened.picture(), opened.contents());
    drop(opened);
    let thorough = std::env::var_os("BLOCKFRAME_KILLS").is_some();
    let (mut nth, mut stopped, mut begun) = (1, 0, 0);
    loop {
        let untold = nth % 2 == 0;
        let memory = Arc::new(begin.fork());
        let home = copy_of(begin_home.path());
        let faults = Arc::new(FaultStore::new(memory.clone(), nth));
        let mut opened = open(faults.clone(), home.path());
        let rest = Fault::fail(StoreErrorKind::Io).on(&Operation::CHANGES);
        if untold {
            faults.inject(Fault::fail_after(StoreErrorKind::Io).on(&Operation::CHANGES).from_nth(nth).times(1));
            faults.inject(rest.from_nth(nth + 1));
        } else {
            faults.inject(rest.from_nth(nth));
        }
        let outcome = opened.reencrypt();
        drop(opened);
        memory.crash(nth);
        // With the database as it was then, and with none.
        let lost_home = nth % 3 == 0;
        let what = format!("operation {nth}, done but untold: {untold}, database lost: {lost_home}: {outcome:?}");
        let home = if lost_home { scratch() } else { home };
        let mut opened = open(memory.clone(), home.path());
        assert_eq!(difference(&picture, &opened.picture()), None, "{what}");
        assert!(contents == opened.contents(), "{what}");
        let done = matches!(outcome, Ok((_, true)));
        let rotated = opened.ring.keys().current().epoch().get();
        // Done, and the answer was lost: the next run is another rotation.
        let was_done = rotated == 2 && !opened.ring.ring().is_reencrypting();
        let last = if was_done && !done { 3 } else { 2 };
        begun += u64::from(rotated == 2 && !done);
        if !done {
            stopped += 1;
            let (_, finished) = opened.reencrypt().unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(finished, "{what}");
            assert_eq!(opened.archive.keys().unwrap().current().epoch().get(), last, "it goes on: {what}");
        }
        opened.is_all_of(last, &what);
        assert_eq!(difference(&picture, &opened.picture()), None, "{what}");
        assert!(contents == opened.contents(), "{what}");
        if done {
            break;
        }
        nth += if thorough { 1 } else { 5 };
    }
    println!("{stopped} stops, {begun} of them after the rotation");
    assert!(begun > 10 && stopped > begun);
}

#[test]
fn what_cannot_be_read_keeps_its_key_and_everything_else_gets_the_new_one() {
    let (store, home) = filled(tiny(false));
    let mut opened = open(store.clone(), home.path());
    let place = opened.catalog.place(&blake3::hash(&content(15_000, 9)).into(), 15_000).unwrap().unwrap();
    let object: Arc<Object> = opened.archive.object(&place.object).unwrap();
    let lost = object.manifest().name.clone();
    let mut todo = vec![blockframe::store::StoreKey::new(lost.as_str()).unwrap()];
    while let Some(directory) = todo.pop() {
        for listed in store.list(Some(&directory)).unwrap() {
            let key = directory.join(&listed.name).unwrap();
            match listed.is_prefix {
                true => todo.push(key),
                false if listed.name.contains("manifest") => {}
                false => assert!(store.damage(&key, |bytes| bytes.iter_mut().for_each(|byte| *byte ^= 1))),
            }
        }
    }
    drop(object);
    let (objects, finished) = opened.reencrypt().unwrap();
    assert!(objects > 2 && !finished);
    let (ring, _) = unlocked(store.clone());
    assert_eq!((ring.ring().epochs().len(), ring.ring().is_reencrypting()), (2, true));
    assert!(opened.archive.load_manifest(&lost).is_ok(), "it is still there");
    let store: Arc<dyn BlockStore> = store;
    assert_eq!(epochs_on(&store).into_iter().collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn another_process_follows_a_rotation_before_it_writes() {
    let (store, home) = filled(tiny(false));
    let reader = open(store.clone(), scratch().path());
    let mut writer = open(store.clone(), home.path());
    assert!(writer.reencrypt().unwrap().1);
    // Its ring is the old one.
    let name = epochs_on_names(&store).into_iter().next().unwrap();
    assert!(reader.archive.load_manifest(&name).is_ok());
    let stale = unlocked(store.clone()).1;
    writer.ring = unlocked(store.clone()).0;
    writer.reencrypt().unwrap();
    let plan = blockframe::archive::ObjectPlan {
        readable: Vec::new(),
        kind: blockframe::format::ObjectKind::File,
        sequence: 1,
        entry: None,
        compression: None,
    };
    let control = WriteControl { progress: &|_| {}, cancel: &AtomicBool::new(false) };
    let written = stale.write_object(&content(5000, 77), &plan, &control).unwrap();
    assert_eq!(written.manifest.encryption().unwrap().1, 3);
}

fn epochs_on_names(store: &Arc<MemoryStore>) -> Vec<blockframe::base::ObjectName> {
    store.list(None).unwrap().into_iter().filter_map(|listed| listed.name.parse().ok()).collect()
}

/// A place with an encrypted archive, its key file in `key`, and a tree in it.
fn encrypted_place() -> (Place, Picture) {
    let place = Place::new();
    fs::write(place.path("key"), content(64, 1)).unwrap();
    fs::set_permissions(place.path("key"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::create_dir_all(place.path("tree/d")).unwrap();
    for index in 0..30 {
        fs::write(place.path(&format!("tree/d/{index}")), content(index * 97, index as u64)).unwrap();
    }
    for (name, len) in [("medium", 90_000), ("large", 5_000_001), ("larger", 9_000_001)] {
        fs::write(place.path("tree").join(name), content(len, len as u64)).unwrap();
    }
    ok(&place, &["init", "arch", "--profile", "balanced", "--encrypt", "--no-recovery-phrase"]);
    ok(&place, &["commit", "tree"]);
    let picture = view::of_source("tree", &place.path("tree"));
    (place, picture)
}

fn with_key<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [arguments, &["--key-file", "key"]].concat()
}

fn ok(place: &Place, arguments: &[&str]) -> String {
    place.ok(with_key(arguments))
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

/// What `get` brings back is what was committed.
fn is_whole(place: &Place, expected: &Picture, what: &str) {
    let out = scratch();
    let to = out.path().join("tree");
    ok(place, &["get", "tree", out.path().to_str().unwrap()]);
    let difference = difference(expected, &view::of_source("tree", &to));
    assert!(difference.is_none(), "{what}: {}", difference.unwrap());
}

fn local(directory: &Path) -> Arc<dyn BlockStore> {
    Arc::new(LocalStore::open(directory).unwrap())
}

fn epochs_in(directory: PathBuf) -> Vec<u32> {
    epochs_on(&local(&directory)).into_iter().collect()
}

#[test]
fn the_command_tells_what_it_did_and_what_that_protects() {
    let (place, picture) = encrypted_place();
    copy(&place.archive(), &place.path("before"));
    let told = json(&ok(&place, &["key", "rotate", "--reencrypt", "--json"]));
    assert_eq!((&told["epoch"], &told["finished"]), (&2.into(), &true.into()), "{told}");
    assert_eq!(told["forgotten_epochs"], serde_json::json!([1]));
    assert_eq!(epochs_in(place.archive()), [2]);
    is_whole(&place, &picture, "after");
    let list = json(&ok(&place, &["key", "list", "--json"]));
    assert_eq!(list["epochs"].as_array().unwrap().len(), 1);
    assert_eq!(list["reencrypting"], false);
    let text = ok(&place, &["key", "rotate", "--reencrypt"]);
    assert!(text.contains("does not protect against somebody who has the archive's key"), "{text}");
    assert_eq!(epochs_in(place.archive()), [3]);
    let status = ok(&place, &["status"]);
    assert!(status.contains("epoch 3;") && !status.contains("anew"), "{status}");
    assert_eq!(place.run(with_key(&["health"])).status(), Some(0));
    let nothing = json(&ok(&place, &["gc", "--json"]));
    assert_eq!(nothing["removed"], 0, "{nothing}");
    // The copy that was made before opens as it did.
    let mut command = place.command(with_key(&["cat", "tree/medium"]));
    // On another machine: this one has seen a later state.
    command.env("XDG_STATE_HOME", place.path("mnt")).env("BLOCKFRAME_ARCHIVE", place.path("before"));
    let output = command.output().unwrap();
    assert!(output.stdout == content(90_000, 90_000), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(epochs_in(place.path("before")), [1]);
}

#[test]
fn killed_or_interrupted_at_any_moment_it_loses_nothing_and_goes_on() {
    let (place, picture) = encrypted_place();
    let rotate = with_key(&["key", "rotate", "--reencrypt"]);
    copy(&place.archive(), &place.path("pristine"));
    let begun = Instant::now();
    ok(&place, &["key", "rotate", "--reencrypt"]);
    let whole = begun.elapsed();
    let kills = std::env::var("BLOCKFRAME_KILLS").map_or(8, |text| text.parse::<u32>().unwrap() * 8);
    let mut hits = 0;
    for kill in 0..kills {
        let what = format!("kill {kill} of {kills}");
        fs::remove_dir_all(place.archive()).unwrap();
        copy(&place.path("pristine"), &place.archive());
        // This machine has seen a later state of it.
        fs::remove_dir_all(place.path(".state")).unwrap();
        let mut child = place.command(&rotate).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(whole * kill / kills);
        if kill % 3 == 1 {
            let pid = rustix::process::Pid::from_child(&child);
            rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        } else {
            child.kill().unwrap();
        }
        let status = child.wait().unwrap();
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        hits += u32::from(!status.success());
        assert!([None, Some(0), Some(130)].contains(&status.code()), "{what}: {status}, {said}");
        if status.code() == Some(130) && !said.is_empty() {
            assert!(said.contains("key rotate --reencrypt` goes on"), "{said}");
        }
        is_whole(&place, &picture, &what);
        let began = json(&ok(&place, &["key", "list", "--json"]));
        let told = json(&ok(&place, &["key", "rotate", "--reencrypt", "--json"]));
        if began["reencrypting"] == true {
            assert_eq!(told["epoch"], 2, "{what}: it made another epoch");
        }
        assert_eq!(told["finished"], true, "{what}: {told}");
        assert_eq!(epochs_in(place.archive()).len(), 1, "{what}");
        is_whole(&place, &picture, &what);
    }
    println!("{hits} hits");
}

#[test]
fn in_the_background_it_returns_at_once_and_status_tells() {
    let (place, picture) = encrypted_place();
    ok(&place, &["key", "rotate", "--reencrypt", "--background"]);
    let begun = Instant::now();
    loop {
        let status = json(&ok(&place, &["status", "--json"]));
        if status["encryption"]["reencrypting"].is_null() {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "{status}");
        std::thread::yield_now();
    }
    assert_eq!(epochs_in(place.archive()), [2]);
    is_whole(&place, &picture, "after");
}

#[test]
fn under_a_mount_open_files_go_on_and_what_is_written_has_the_new_key() {
    if !can_mount() {
        return;
    }
    let (place, picture) = encrypted_place();
    ok(&place, &["mount", "mnt"]);
    let larger = content(9_000_001, 9_000_001);
    let file = File::open(place.path("mnt/tree/larger")).unwrap();
    let small = File::open(place.path("mnt/tree/d/7")).unwrap();
    let mut first = vec![0; 100_000];
    file.read_exact_at(&mut first, 0).unwrap();
    let mut byte = [0];
    small.read_exact_at(&mut byte, 0).unwrap();
    let told = json(&ok(&place, &["key", "rotate", "--reencrypt", "--json"]));
    assert_eq!(told["finished"], true, "{told}");
    assert_eq!(epochs_in(place.archive()), [2]);
    // The kernel has read ahead, but not all.
    let mut rest = vec![0; larger.len() - first.len()];
    file.read_exact_at(&mut rest, first.len() as u64).unwrap();
    assert!([first, rest].concat() == larger);
    small.read_exact_at(&mut byte, 600).unwrap();
    let through_mount = view::of_source("tree", &place.path("mnt/tree"));
    assert_eq!(difference(&picture, &through_mount), None);
    for epoch in [2, 3] {
        fs::write(place.path(&format!("mnt/new{epoch}")), content(200_000, epoch)).unwrap();
        ok(&place, &["sync"]);
        assert_eq!(epochs_in(place.archive()).into_iter().max(), Some(epoch as u32));
        ok(&place, &["key", "rotate"]);
    }
    let told = json(&ok(&place, &["key", "rotate", "--reencrypt", "--json"]));
    assert_eq!((&told["finished"], &told["epoch"]), (&true.into(), &5.into()), "{told}");
    assert_eq!(epochs_in(place.archive()), [5]);
    assert!(fs::read(place.path("mnt/new3")).unwrap() == content(200_000, 3));
    drop((file, small));
    ok(&place, &["umount", "mnt"]);
    is_whole(&place, &picture, "after the mount");
    assert_eq!(place.run(with_key(&["health"])).status(), Some(0));
}

#[test]
fn an_archive_without_keys_has_nothing_to_rotate() {
    let place = Place::new();
    place.ok(["init", "arch"]);
    let outcome = place.run(["key", "rotate", "--reencrypt"]);
    assert_eq!(outcome.status(), Some(2), "{}", outcome.stderr());
}
