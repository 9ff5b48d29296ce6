//! The defects of BlockFrame's prototype, each under its own name, so that
//! none of them comes back. Those of health and repair stand in `tests/scrub.rs`:
//! `medium_tier_repair_does_something_and_verifies_it`,
//! `large_tier_repair_uses_the_k_of_each_block`,
//! `health_hashes_every_byte_of_large_files`,
//! `a_shard_lost_with_its_parity_is_unrecoverable`,
//! `small_file_repair_writes_verified_bytes_without_padding`.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod kit;

use blockframe::archive::Archive;
use blockframe::base::SystemClock;
use blockframe::catalog::Catalog;
use blockframe::store::{FaultStore, LocalStore, Operation};
use blockframe::vfs::{ArchiveVfs, VfsLimits};
use blockframe_api::{Node, Vfs};
use kit::program::{Place, can_mount};
use kit::view::{self, difference};
use kit::{content, files_below, scratch, tiny_descriptor};
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// An archive with tiny tiers that holds what `fill` makes; its picture equals the source's.
fn archive_of(fill: impl FnOnce(&Path)) -> (tempfile::TempDir, Arc<Archive>, Arc<Catalog>) {
    let (directory, source) = (scratch(), scratch());
    let store = Arc::new(LocalStore::open(directory.path()).unwrap());
    Archive::create(store.clone(), tiny_descriptor(), "test".into()).unwrap();
    let archive = Arc::new(Archive::open(store, Arc::new(SystemClock), Arc::new(())).unwrap());
    let catalog = Arc::new(Catalog::create(directory.path(), &archive).unwrap());
    let tree = source.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fill(&tree);
    view::commit_paths(&archive, &catalog, &[&tree]);
    let expected = view::of_source("tree", &tree);
    if let Some(difference) = difference(&expected, &view::of_archive(directory.path())) {
        panic!("{difference}");
    }
    (directory, archive, catalog)
}

#[test]
fn reads_past_the_first_page_of_a_medium_file_return_that_page() {
    let bytes = content(19_001, 1);
    let (_directory, archive, catalog) = archive_of(|tree| fs::write(tree.join("medium"), &bytes).unwrap());
    let vfs = ArchiveVfs::new(archive, catalog, Arc::new(()), VfsLimits::default()).unwrap();
    let tree = vfs.lookup(Node::ROOT, b"tree").unwrap().node;
    let file = vfs.lookup(tree, b"medium").unwrap().node;
    let handle = vfs.open(file, blockframe_api::OpenHow { read: true, ..Default::default() }).unwrap().handle;
    // Forwards, backwards, and across the segments' ends.
    let pages = (0..=18u64).map(|page| page * 1024);
    for offset in pages.clone().chain(pages.rev()).chain([4095, 4097, 8191, 19_000]) {
        for length in [1, 1024, 4096] {
            let mut read = Vec::new();
            vfs.read(handle, offset, length, &mut |more| read.extend_from_slice(more)).unwrap();
            let end = bytes.len().min((offset + u64::from(length)) as usize);
            assert!(read == bytes[offset as usize..end], "{length} bytes at {offset}");
        }
    }
}

#[test]
fn a_last_segment_of_odd_length_is_stored_and_read_in_every_tier() {
    archive_of(|tree| {
        for len in [1usize, 2, 3, 61, 9_999, 10_001, 12_289, 19_999, 20_001, 24_577, 40_963, 59_999, 60_001, 77_777] {
            fs::write(tree.join(len.to_string()), content(len, len as u64)).unwrap();
        }
    });
}

#[test]
fn empty_files_are_committed() {
    let place = Place::new();
    fs::create_dir_all(place.path("src/sub")).unwrap();
    fs::write(place.path("src/sub/empty"), b"").unwrap();
    fs::write(place.path("alone"), b"").unwrap();
    place.ok(["init", "arch"]);
    place.ok(["commit", "src", "alone"]);
    assert_eq!(place.ok(["cat", "src/sub/empty"]), "");
    assert_eq!(place.ok(["cat", "alone"]), "");
    assert_eq!(place.ok(["ls", "-R"]), "alone\nsrc\nsrc/sub\nsrc/sub/empty\n");
}

#[test]
fn same_named_files_in_several_directories_are_all_there() {
    archive_of(|tree| {
        for directory in ["a", "b", "c/d", "c/e"] {
            fs::create_dir_all(tree.join(directory)).unwrap();
            for (name, len) in [("small", 100), ("name", 5_000), ("large", 30_000)] {
                let seed = directory.bytes().map(u64::from).sum::<u64>() + len as u64;
                fs::write(tree.join(directory).join(name), content(len, seed)).unwrap();
            }
        }
    });
}

#[test]
fn committing_again_succeeds_whether_or_not_something_changed() {
    let place = Place::new();
    fs::create_dir(place.path("src")).unwrap();
    fs::write(place.path("src/small"), "one").unwrap();
    fs::write(place.path("src/large"), content(3_000_000, 1)).unwrap();
    place.ok(["init", "arch", "--profile", "balanced"]);
    for round in 0..4 {
        if round == 2 {
            fs::write(place.path("src/large"), content(3_000_000, 2)).unwrap();
        }
        place.ok(["commit", "src"]);
        let expected = view::of_source("src", &place.path("src"));
        assert_eq!(difference(&expected, &view::of_archive(&place.archive())), None, "round {round}");
    }
}

#[test]
fn commit_writes_to_the_configured_directory_and_nowhere_else() {
    let place = Place::new();
    fs::write(place.path("file"), "bytes").unwrap();
    fs::create_dir(place.path("elsewhere")).unwrap();
    place.ok(["init", "elsewhere/mine"]);
    let config = "[archive]\ndirectory = \"elsewhere/mine\"\n";
    fs::write(place.path("config.toml"), config).unwrap();
    let before: BTreeSet<_> = fs::read_dir(place.directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    for command in [["commit", "file"], ["cat", "file"]] {
        let output = place.command(command).env_remove("BLOCKFRAME_ARCHIVE").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let after: BTreeSet<_> = fs::read_dir(place.directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(before, after, "a commit made something outside the configured archive");
    assert!(files_below(&place.path("elsewhere/mine")).keys().any(|file| file.ends_with("data.dat")));
}

#[test]
fn one_flipped_manifest_byte_or_one_orphan_directory_stops_neither_health_nor_mount() {
    let place = Place::new();
    fs::create_dir(place.path("src")).unwrap();
    for name in ["one", "two"] {
        fs::write(place.path("src").join(name), content(2_000_000, name.len() as u64 + u64::from(name.as_bytes()[0])))
            .unwrap();
    }
    place.ok(["init", "arch"]);
    place.ok(["commit", "src"]);
    let pristine = files_below(&place.archive());
    let manifest = |name: &str| Path::new(place.object(name).file_name().unwrap()).join("manifest.json");
    let manifests = [manifest("one"), manifest("two")];
    let orphan = place.archive().join(format!("orphan_{}", "0".repeat(64)));
    fs::create_dir_all(orphan.join("segments")).unwrap();
    fs::create_dir(place.archive().join("holiday pictures")).unwrap();
    fs::write(place.archive().join("notes.txt"), "mine").unwrap();
    assert_eq!(place.run(["health"]).status(), Some(0), "an orphan directory is no damage");
    for (file, at) in [(&manifests[0], 3), (&manifests[1], 700)] {
        let mut bad = pristine[file].clone();
        bad[at] ^= 4;
        fs::write(place.archive().join(file), &bad).unwrap();
        let health = place.run(["health"]);
        assert_eq!(health.status(), Some(3), "{}{}", health.stdout(), health.stderr());
        fs::write(place.archive().join(file), &bad).unwrap();
        if can_mount() {
            let mountpoint = place.path("mnt");
            place.ok(["mount".as_ref(), mountpoint.as_os_str()]);
            for name in ["one", "two"] {
                assert!(
                    fs::read(mountpoint.join("src").join(name)).unwrap()
                        == fs::read(place.path("src").join(name)).unwrap()
                );
            }
            place.ok(["umount".as_ref(), mountpoint.as_os_str()]);
            assert!(fs::read(place.archive().join(file)).unwrap() == pristine[file], "the manifest is not healed");
        }
    }
    assert!(orphan.exists() && place.archive().join("notes.txt").exists(), "what is not ours was touched");
}

/// Runs a command to its end. Its standard output's length and its peak resident memory, bytes.
fn peak_memory(command: &mut Command) -> u64 {
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let status = PathBuf::from(format!("/proc/{}/status", child.id()));
    let mut peak = 0;
    loop {
        // The peak only grows, and is gone with the process: the last one seen is it.
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
        peak = peak.max(kib.unwrap_or(0) * 1024);
        if let Some(ended) = child.try_wait().unwrap() {
            assert!(ended.success());
            assert!(peak > 0);
            return peak;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

const MEMORY: u64 = 128 << 20;

#[test]
fn a_commit_of_a_large_file_takes_little_memory() {
    // On the disk: this one is larger than many a /dev/shm.
    let directory = tempfile::tempdir().unwrap();
    let place = Place { directory };
    fs::create_dir(place.path("mnt")).unwrap();
    let mut file = fs::File::create(place.path("large")).unwrap();
    let mut stream = blake3::Hasher::new().update(b"large").finalize_xof();
    let mut piece = vec![0; 4 << 20];
    for _ in 0..80 {
        stream.fill(&mut piece);
        file.write_all(&piece).unwrap();
    }
    drop(file);
    for profile in ["compact", "classic"] {
        place.ok(["init", "arch", "--profile", profile]);
        let peak = peak_memory(&mut place.command(["commit", "large"]));
        println!("{profile}: {} MiB at most", peak >> 20);
        assert!(peak < MEMORY, "{profile}: {} MiB", peak >> 20);
        let mut read = place.command(["cat", "large"]);
        let peak = peak_memory(&mut read);
        assert!(peak < 2 * MEMORY, "reading: {} MiB", peak >> 20);
        fs::remove_dir_all(place.archive()).unwrap();
    }
}

#[test]
fn a_commit_of_many_small_files_takes_little_memory() {
    let place = Place::new();
    for directory in 0..40 {
        fs::create_dir_all(place.path(&format!("src/{directory}"))).unwrap();
        for file in 0..150 {
            let bytes = content(1000 + file * 31, directory * 1000 + file as u64);
            fs::write(place.path(&format!("src/{directory}/{file}")), bytes).unwrap();
        }
    }
    place.ok(["init", "arch", "--profile", "compact"]);
    let peak = peak_memory(&mut place.command(["commit", "src"]));
    println!("{} MiB at most", peak >> 20);
    assert!(peak < MEMORY, "{} MiB", peak >> 20);
}

#[test]
fn every_file_of_a_commit_is_synced_before_its_object_is_published() {
    let (directory, source) = (scratch(), scratch());
    let local = Arc::new(LocalStore::open(directory.path()).unwrap());
    Archive::create(local.clone(), tiny_descriptor(), "test".into()).unwrap();
    let store = Arc::new(FaultStore::new(local, 1));
    let archive = Arc::new(Archive::open(store.clone(), Arc::new(SystemClock), Arc::new(())).unwrap());
    let catalog = Catalog::create(directory.path(), &archive).unwrap();
    for (name, len) in [("tier1", 5_000), ("tier2", 15_000), ("tier3", 50_000), ("tier4", 100_000)] {
        let file = source.path().join(name);
        fs::write(&file, content(len, 7)).unwrap();
        store.reset_counters();
        view::commit_paths(&archive, &catalog, &[&file]);
        let counters = store.counters();
        // One is the list of names, which is thrown away.
        let (created, synced) = (counters.calls(Operation::Create), counters.calls(Operation::Sync));
        assert!(synced > 4 && synced + 1 >= created, "{name}: {created} files created, {synced} synced");
        assert_eq!(counters.calls(Operation::Publish), 1, "{name}");
    }
}

/// What the program asked of the kernel, as strace tells it with `-f -y`.
#[derive(Debug, Default)]
struct Trace {
    /// Files that were made, and not synced since.
    unsynced: BTreeSet<PathBuf>,
    /// Directories in which names were made, and that were not synced since.
    unsynced_names: BTreeSet<PathBuf>,
    /// By process: the sync that is under way.
    waiting: HashMap<String, PathBuf>,
    published: usize,
}

impl Trace {
    fn line(&mut self, line: &str) {
        let Some((process, call)) = line.split_once(' ') else { return };
        let call = call.trim_start();
        let path = |text: &str| {
            text.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(path, _)| PathBuf::from(path))
        };
        if call.starts_with("fsync(") || call.starts_with("fdatasync(") {
            let Some(file) = path(call) else { return };
            if call.contains("unfinished") {
                self.waiting.insert(process.into(), file);
            } else {
                self.synced(&file);
            }
        } else if call.starts_with("<...") && call.contains("sync resumed>") {
            if let Some(file) = self.waiting.remove(process) {
                self.synced(&file);
            }
        } else if call.starts_with("openat(") && call.contains("O_CREAT") {
            let Some((_, result)) = call.rsplit_once(" = ") else { return };
            if let Some(file) = path(result) {
                self.unsynced_names.extend(file.parent().map(Path::to_path_buf));
                self.unsynced.insert(file);
            }
        } else if call.starts_with("renameat") && call.contains("object-") {
            let mut quoted = call.split('"').skip(1).step_by(2);
            let from = path(call).unwrap().join(quoted.next().unwrap());
            let bad = |set: &BTreeSet<PathBuf>| {
                set.iter().filter(|file| file.starts_with(&from)).cloned().collect::<Vec<_>>()
            };
            assert_eq!(bad(&self.unsynced), Vec::<PathBuf>::new(), "published before they were synced");
            assert_eq!(bad(&self.unsynced_names), Vec::<PathBuf>::new(), "published with names that were not synced");
            let target = call.split(", ").nth(2).and_then(path).unwrap();
            self.unsynced_names.insert(target);
            self.published += 1;
        }
    }

    fn synced(&mut self, path: &Path) {
        self.unsynced.remove(path);
        self.unsynced_names.remove(path);
    }
}

#[test]
fn the_kernel_is_asked_to_sync_every_file_and_directory_of_a_commit() {
    let place = Place::new();
    fs::create_dir(place.path("src")).unwrap();
    for (name, len) in [("a", 5_000), ("b", 3_000_000), ("c", 20_000_000)] {
        fs::write(place.path("src").join(name), content(len, 1)).unwrap();
    }
    place.ok(["init", "arch", "--profile", "balanced"]);
    let program = place.command(["commit", "src"]);
    let log = place.path("trace");
    let mut command = Command::new("strace");
    command.args(["-f", "-y", "-qq", "-s", "4096", "-e", "trace=openat,fsync,fdatasync,renameat,renameat2", "-o"]);
    command.arg(&log).arg(program.get_program()).args(program.get_args()).current_dir(place.directory.path());
    command.env("BLOCKFRAME_ARCHIVE", place.archive()).env("HOME", place.directory.path());
    match command.stdout(Stdio::null()).output() {
        Err(error) => return eprintln!("skipped: strace cannot be run: {error}"),
        Ok(output) if !fs::metadata(&log).is_ok_and(|log| log.len() > 0) => {
            return eprintln!("skipped: strace traces nothing: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
    }
    let mut trace = Trace::default();
    fs::read_to_string(&log).unwrap().lines().for_each(|line| trace.line(line));
    assert!(trace.published >= 3, "{trace:?}");
    assert!(!trace.unsynced_names.contains(&place.archive()), "the objects' names were not synced: {trace:?}");
    let journal = |file: &&PathBuf| file.to_string_lossy().contains("/catalog/");
    assert_eq!(trace.unsynced.iter().find(journal), None, "the journal was not synced");
}
