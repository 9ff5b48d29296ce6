//! Processes that are killed at any moment, and stores that stop at any
//! operation: what was visible before stays so to the last byte, of what was
//! under way everything or nothing is seen, and doing it again completes it.
//!
//! The moments are chosen from the time that the undisturbed command takes. They come from a seed, which every failure prints;
//! `BLOCKFRAME_SEED=N` runs that one, `BLOCKFRAME_KILLS=N` multiplies the kills.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod kit;

use blockframe::archive::Archive;
use blockframe::base::SystemClock;
use blockframe::catalog::Catalog;
use blockframe::format::layout::TMP_DIR;
use blockframe::ingest::{CommitItem, CommitRequest, commit};
use blockframe::namespace::CompressionRules;
use blockframe::store::{BlockStore, Fault, FaultStore, MemoryStore, Operation, StoreErrorKind, is_temporary_name};
use blockframe::vfs::{ArchiveVfs, VfsLimits};
use kit::program::{Outcome, Place, can_mount};
use kit::view::{self, Picture, difference};
use kit::{content, files_below, scratch, shard_files, tiny_descriptor};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Numbers that look random, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        let seed = std::env::var("BLOCKFRAME_SEED").map_or(seed, |text| text.parse().unwrap());
        println!("BLOCKFRAME_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % limit.max(1)
    }
}

/// How many kills a test does that does `kills` in a quick run.
fn times(kills: usize) -> usize {
    kills * std::env::var("BLOCKFRAME_KILLS").map_or(1, |text| text.parse().unwrap())
}

/// Small and large files, links and directories.
fn fill(root: &Path, seed: u64, files: u64) {
    fs::create_dir_all(root.join("many/empty")).unwrap();
    for index in 0..files {
        fs::write(root.join(format!("many/{index}")), content(index as usize * 97 % 3000, seed + index)).unwrap();
    }
    for (name, len) in [("medium", 90_000), ("large", 5_000_001)] {
        fs::write(root.join(name), content(len, seed + len as u64)).unwrap();
    }
    fs::hard_link(root.join("medium"), root.join("many/linked")).unwrap();
    symlink("many", root.join("link")).unwrap();
}

/// An archive that holds the tree `base`, and another tree `next` to be committed.
struct Scene {
    place: Place,
    base: Picture,
    both: Picture,
    /// A copy of the archive as it is at the beginning.
    pristine: PathBuf,
}

impl Scene {
    fn new(seed: u64) -> Self {
        let place = Place::new();
        fill(&place.path("base"), seed, 30);
        fill(&place.path("next"), seed + 1000, 60);
        place.ok(["init", "arch", "--profile", "balanced"]);
        place.ok(["commit", "base"]);
        let base = view::of_source("base", &place.path("base"));
        let both = base.clone().into_iter().chain(view::of_source("next", &place.path("next"))).collect();
        copy(&place.archive(), &place.path("pristine"));
        let pristine = place.path("pristine");
        Self { place, base, both, pristine }
    }

    fn begin_anew(&self) {
        fs::remove_dir_all(self.place.archive()).unwrap();
        copy(&self.pristine, &self.place.archive());
    }

    fn same(&self, expected: &Picture, what: &str) {
        if let Some(difference) = difference(expected, &view::of_archive(&self.place.archive())) {
            panic!("{what}:\n{difference}");
        }
    }

    /// How long a command takes when it is left alone.
    fn duration(&self, arguments: &[&str]) -> Duration {
        let start = Instant::now();
        let outcome = self.place.run(arguments);
        assert!([Some(0), Some(3)].contains(&outcome.status()), "{}", outcome.stderr());
        start.elapsed()
    }

    /// Starts a command and kills it after a while. Whether it was still at work.
    fn kill(&self, arguments: &[&str], after: Duration) -> bool {
        let mut command = self.place.command(arguments);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(after);
        child.kill().unwrap();
        child.wait().unwrap().code().is_none()
    }

    fn objects(&self) -> BTreeSet<PathBuf> {
        let names = fs::read_dir(self.place.archive()).unwrap().map(|entry| entry.unwrap().path());
        names.filter(|path| path.is_dir() && !path.ends_with(".blockframe")).collect()
    }

    fn temporary_files(&self) -> usize {
        let files = files_below(&self.place.archive());
        let half = |path: &Path| is_temporary_name(&path.file_name().unwrap().to_string_lossy());
        files.keys().filter(|path| path.starts_with(TMP_DIR) || half(path)).count()
    }

    /// Nothing is damaged, and nothing is left over.
    fn is_healthy(&self, what: &str) {
        let gc = self.place.run(["gc"]);
        assert_eq!(gc.status(), Some(0), "{what}: {}", gc.stderr());
        assert_eq!(self.temporary_files(), 0, "{what}: gc left temporary files");
        let health = self.place.run(["health"]);
        assert_eq!(health.status(), Some(0), "{what}: {}{}", health.stdout(), health.stderr());
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

fn within(dice: &mut Dice, duration: Duration) -> Duration {
    Duration::from_micros(dice.below(duration.as_micros() as u64 * 11 / 10))
}

/// The duration to choose from next time: machines are busier at one time than at another, and a kill should find
/// the process at work.
fn adapted(duration: Duration, killed: bool) -> Duration {
    if killed { duration * 33 / 32 } else { duration * 7 / 8 }
}

#[test]
fn crash_of_a_commit_shows_all_of_it_or_nothing_and_committing_again_completes_it() {
    let scene = Scene::new(1);
    let objects = scene.objects();
    let mut dice = Dice::new(101);
    let mut whole = scene.duration(&["commit", "next"]);
    let (mut kills, mut visible) = (0, 0);
    while kills < times(45) {
        scene.begin_anew();
        // Sometimes the second attempt is killed too, and the third.
        let row = 1 + dice.below(3);
        let mut seen = false;
        for _ in 0..row {
            let after = within(&mut dice, whole);
            let what = format!("kill {kills}, {after:?} of {whole:?}");
            let killed = scene.kill(&["commit", "next"], after);
            kills += usize::from(killed);
            // Once it is visible there is less to do.
            if killed || !seen {
                whole = adapted(whole, killed);
            }
            let found = view::of_archive(&scene.place.archive());
            let now = found.contains_key(b"next".as_slice());
            let expected = if now { &scene.both } else { &scene.base };
            if let Some(difference) = difference(expected, &found) {
                panic!("{what}:\n{difference}");
            }
            assert!(now || !seen, "{what}: what was visible is gone");
            seen = now;
        }
        visible += usize::from(seen);
        let what = format!("after kill {kills}");
        if !seen && dice.below(3) == 0 {
            scene.is_healthy(&what);
            assert_eq!(scene.objects(), objects, "{what}: gc left objects of the killed commit");
            scene.same(&scene.base, &what);
        }
        let again = scene.place.run(["commit", "next"]);
        assert_eq!(again.status(), Some(0), "{what}: {}", again.stderr());
        scene.same(&scene.both, &what);
        scene.is_healthy(&what);
        scene.same(&scene.both, &what);
    }
    println!("{kills} kills; in {visible} rows all was visible in the end");
}

/// Damages what the profile bears: of each object one shard, and one copy of its manifest.
fn damage(archive: &Path, dice: &mut Dice) {
    for object in fs::read_dir(archive).unwrap().map(|entry| entry.unwrap().path()) {
        if !object.join("manifest.json").is_file() {
            continue;
        }
        let shards = shard_files(&object);
        let shard = object.join(&shards[dice.below(shards.len() as u64) as usize]);
        match dice.below(3) {
            0 => fs::remove_file(shard).unwrap(),
            1 => fs::write(&shard, &fs::read(&shard).unwrap()[1..]).unwrap(),
            _ => {
                let mut bytes = fs::read(&shard).unwrap();
                for _ in 0..20 {
                    let at = dice.below(bytes.len() as u64) as usize;
                    bytes[at] ^= 0x10;
                }
                fs::write(shard, bytes).unwrap();
            }
        }
        let copy = ["manifest.json", "manifest.copy.json"][dice.below(2) as usize];
        fs::write(object.join(copy), b"{}").unwrap();
    }
}

#[test]
fn crash_of_a_repair_leaves_everything_readable_and_repairing_again_completes_it() {
    let scene = Scene::new(2);
    let mut dice = Dice::new(202);
    damage(&scene.place.archive(), &mut dice);
    let mut whole = scene.duration(&["repair"]);
    let mut kills = 0;
    while kills < times(25) {
        scene.begin_anew();
        damage(&scene.place.archive(), &mut dice);
        let after = within(&mut dice, whole);
        let what = format!("kill {kills}, {after:?} of {whole:?}");
        let killed = scene.kill(&["repair"], after);
        kills += usize::from(killed);
        whole = adapted(whole, killed);
        let again = scene.place.run(["repair"]);
        assert!([Some(0), Some(3)].contains(&again.status()), "{what}: {}", again.stderr());
        scene.is_healthy(&what);
        scene.same(&scene.base, &what);
        let found = fs::read_dir(&scene.pristine).unwrap().map(|entry| entry.unwrap().file_name());
        for object in found.filter(|name| scene.pristine.join(name).join("manifest.json").is_file()) {
            let (was, is) =
                (files_below(&scene.pristine.join(&object)), files_below(&scene.place.archive().join(&object)));
            assert!(was == is, "{what}: {object:?} is not what it was");
        }
    }
    println!("{kills} kills");
}

#[test]
fn crash_of_a_rebuild_leaves_a_catalog_that_opens_and_says_the_same() {
    let scene = Scene::new(3);
    let mut dice = Dice::new(303);
    let mut kills = 0;
    for source in ["journal", "objects", "best"].into_iter().cycle() {
        let command = ["rebuild-catalog", "--source", source];
        let whole = scene.duration(&command);
        for round in 0..3 {
            scene.begin_anew();
            if round == 1 {
                fs::remove_file(scene.place.archive().join(".blockframe/catalog.db")).unwrap();
            }
            let after = within(&mut dice, whole);
            let what = format!("{source}, kill {kills}, {after:?} of {whole:?}");
            kills += usize::from(scene.kill(&command, after));
            scene.same(&scene.base, &what);
            let again = scene.place.run(command);
            assert_eq!(again.status(), Some(0), "{what}: {}", again.stderr());
            scene.same(&scene.base, &what);
            scene.is_healthy(&what);
        }
        if kills >= times(25) {
            break;
        }
    }
    println!("{kills} kills");
}

#[test]
fn crash_of_a_mount_that_heals_leaves_everything_readable() {
    if !can_mount() {
        return;
    }
    let scene = Scene::new(4);
    let mut dice = Dice::new(404);
    let mountpoint = scene.place.path("mnt");
    let read_all = |stop_at_error: bool| {
        for path in scene.base.keys().filter(|path| scene.base[*path].content.is_some()) {
            let path = mountpoint.join(String::from_utf8(path.clone()).unwrap());
            match fs::read(&path) {
                Ok(_) => {}
                Err(_) if stop_at_error => return,
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
    };
    // A whole life: up, everything read and healed.
    damage(&scene.place.archive(), &mut dice);
    let start = Instant::now();
    scene.place.ok(["mount".as_ref(), mountpoint.as_os_str()]);
    read_all(false);
    let whole = start.elapsed();
    scene.place.ok(["umount".as_ref(), mountpoint.as_os_str()]);
    scene.same(&scene.base, "after a whole life");
    let mut kills = 0;
    while kills < times(15) {
        scene.begin_anew();
        damage(&scene.place.archive(), &mut dice);
        let after = within(&mut dice, whole);
        let what = format!("kill {kills}, {after:?} of {whole:?}");
        let mut command = scene.place.command(["mount".as_ref(), mountpoint.as_os_str(), "--foreground".as_ref()]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let begun = Instant::now();
                while !kit::program::is_mounted(&mountpoint) {
                    if begun.elapsed() > after {
                        return;
                    }
                    std::thread::yield_now();
                }
                read_all(true);
            });
            std::thread::sleep(after);
            child.kill().unwrap();
            kills += usize::from(child.wait().unwrap().code().is_none());
            reader.join().unwrap();
        });
        scene.same(&scene.base, &what);
        // The remains are cleaned, and the next mount comes up.
        scene.place.ok(["mount".as_ref(), mountpoint.as_os_str()]);
        read_all(false);
        scene.place.ok(["umount".as_ref(), mountpoint.as_os_str()]);
        let repair: Outcome = scene.place.run(["repair"]);
        assert!([Some(0), Some(3)].contains(&repair.status()), "{what}: {}", repair.stderr());
        scene.is_healthy(&what);
    }
    println!("{kills} kills");
}

/// An archive whose store is in memory and whose database is in a directory.
fn open(store: Arc<dyn BlockStore>, home: &Path) -> (Arc<Archive>, Arc<Catalog>) {
    let archive = Arc::new(Archive::open(store, Arc::new(SystemClock), Arc::new(())).unwrap());
    let catalog = Arc::new(Catalog::open(home, &archive).unwrap());
    (archive, catalog)
}

fn picture(store: Arc<dyn BlockStore>, home: &Path) -> Picture {
    let (archive, catalog) = open(store, home);
    view::of_vfs(&ArchiveVfs::new(archive, catalog, Arc::new(()), VfsLimits::default()).unwrap())
}

#[test]
fn crash_of_the_store_at_any_operation_of_a_commit_shows_all_of_it_or_nothing() {
    let source = scratch();
    let (old, new) = (source.path().join("old"), source.path().join("new"));
    for (root, seed) in [(&old, 1), (&new, 50)] {
        fs::create_dir_all(root.join("d")).unwrap();
        for index in 0..9 {
            fs::write(root.join(format!("d/{index}")), content(800, seed + index)).unwrap();
        }
        fs::write(root.join("large"), content(25_000, seed)).unwrap();
    }
    let first = view::of_source("old", &old);
    let both: Picture = first.clone().into_iter().chain(view::of_source("new", &new)).collect();
    let begin = Arc::new(MemoryStore::new("memory"));
    let begin_home = scratch();
    Archive::create(begin.clone(), tiny_descriptor(), "test".into()).unwrap();
    let archive = Arc::new(Archive::open(begin.clone(), Arc::new(SystemClock), Arc::new(())).unwrap());
    let catalog = Catalog::create(begin_home.path(), &archive).unwrap();
    view::commit_paths(&archive, &catalog, &[&old]);
    drop(catalog);
    let mut seen = [0, 0];
    let mut operations = 0;
    for nth in 1.. {
        // The operation at which the store stops is not done, or done and not told.
        let done = [false, true].map(|untold| {
            let memory = Arc::new(begin.fork());
            let home = copy_of(begin_home.path());
            let faults = Arc::new(FaultStore::new(memory.clone(), nth));
            let (archive, catalog) = open(faults.clone(), home.path());
            let rest = Fault::fail(StoreErrorKind::Io).on(&Operation::CHANGES);
            if untold {
                faults.inject(Fault::fail_after(StoreErrorKind::Io).on(&Operation::CHANGES).from_nth(nth).times(1));
                faults.inject(rest.from_nth(nth + 1));
            } else {
                faults.inject(rest.from_nth(nth));
            }
            let done = {
                let items = vec![CommitItem::from_path(new.clone(), &Default::default()).unwrap()];
                let cancel = AtomicBool::new(false);
                let request = CommitRequest {
                    items,
                    exclude: Vec::new(),
                    cancel: &cancel,
                    lost: &|_| false,
                    compression: &CompressionRules::default(),
                };
                let writer = catalog.writer().unwrap();
                commit(&archive, &writer, request, &()).is_ok_and(|report| report.failed == 0)
            };
            drop((archive, catalog));
            memory.crash(nth);
            // With the database as it was then, and with none.
            for lost_home in [false, true] {
                let what = format!("operation {nth}, done but untold: {untold}, database lost: {lost_home}");
                let home = if lost_home { scratch() } else { copy_of(home.path()) };
                let memory = Arc::new(memory.fork());
                let found = picture(memory.clone(), home.path());
                let visible = found.contains_key(b"new".as_slice());
                seen[usize::from(visible)] += 1;
                assert!(visible || !done, "{what}: a finished commit is gone");
                if let Some(difference) = difference(if visible { &both } else { &first }, &found) {
                    panic!("{what}:\n{difference}");
                }
                let (archive, catalog) = open(memory.clone(), home.path());
                view::commit_paths(&archive, &catalog, &[&new]);
                drop((archive, catalog));
                assert_eq!(difference(&both, &picture(memory, home.path())), None, "{what}");
            }
            done
        });
        if done == [true, true] {
            operations = nth;
            break;
        }
    }
    println!("{operations} operations; invisible, visible: {seen:?}");
    assert!(operations > 50 && seen[1] > 2);
}

fn copy_of(directory: &Path) -> tempfile::TempDir {
    let other = scratch();
    copy(directory, other.path());
    other
}
