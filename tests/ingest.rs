//! Trees in and trees out: what was committed comes back with every
//! attribute, nothing is stored twice, and whatever stops a commit leaves
//! nothing visible and nothing to be done again.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod kit;

use blockframe::archive::{Archive, Depth, Verdict};
use blockframe::base::{ContentHash, ContentRange, ErrorClass, SystemClock, Timestamp};
use blockframe::catalog::{Catalog, Inode, ObjectRecord};
use blockframe::format::{ArchiveDescriptor, BundleTable, Entry, EntryPath, NodeBody, ObjectKind, layout};
use blockframe::ingest::{
    CommitItem, CommitReport, CommitRequest, FileReport, IngestError, IngestResult, Outcome, Problem, Reporter,
    RestoreReport, RestoreReporter, RestoreRequest, commit, restore, stream,
};
use blockframe::namespace::CompressionRules;
use blockframe::store::{Fault, FaultStore, Operation, StoreErrorKind};
use kit::{Fixture, content, encoded_variants, files_below, scratch, tiny_descriptor, unlocked};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// An archive with its catalog, and a directory to commit from.
struct Bench {
    fixture: Fixture,
    faults: Arc<FaultStore>,
    archive: Arc<Archive>,
    catalog: Catalog,
    home: TempDir,
    work: TempDir,
}

impl Bench {
    fn new() -> Self {
        Self::of(tiny_descriptor())
    }

    /// For contents as they are, compressed, encrypted, and both.
    fn variants() -> impl Iterator<Item = Self> {
        encoded_variants(&tiny_descriptor()).into_iter().map(Self::of)
    }

    fn of(descriptor: ArchiveDescriptor) -> Self {
        let fixture = Fixture::new(descriptor);
        let faults = Arc::new(FaultStore::new(fixture.store.clone(), 1));
        let archive = Archive::open(faults.clone(), Arc::new(SystemClock), fixture.events.clone()).unwrap();
        let archive = Arc::new(unlocked(archive));
        let home = scratch();
        let catalog = Catalog::create(home.path(), &archive).unwrap();
        Self { fixture, faults, archive, catalog, home, work: scratch() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    fn try_commit(
        &self,
        items: Vec<CommitItem>,
        cancel: &AtomicBool,
        log: &dyn Reporter,
    ) -> IngestResult<CommitReport> {
        let request = CommitRequest {
            items,
            exclude: vec![self.fixture.dir.path().to_path_buf()],
            cancel,
            lost: &|_| false,
            compression: &CompressionRules::default(),
        };
        let writer = self.catalog.writer()?;
        commit(&self.archive, &writer, request, log)
    }

    /// Commits paths of the working directory to the archive's root.
    fn commit(&self, names: &[&str]) -> (CommitReport, Vec<FileReport>) {
        let log = Log::default();
        let items = names.iter().map(|name| item(&self.path(name))).collect();
        let report = self.try_commit(items, &AtomicBool::new(false), &log).unwrap();
        assert_eq!(self.temporary_files(), 0, "a commit leaves no temporary files");
        (report, log.0.into_inner().unwrap())
    }

    fn temporary_files(&self) -> usize {
        files_below(self.fixture.dir.path()).keys().filter(|path| path.starts_with(layout::TMP_DIR)).count()
    }

    fn restore(&self, path: &str, destination: &str) -> RestoreReport {
        let request = RestoreRequest {
            paths: vec![entry_path(path)],
            destination: self.path(destination),
            at: None,
            cancel: &AtomicBool::new(false),
        };
        restore(&self.archive, &self.catalog, &request, &()).unwrap()
    }

    fn resolve(&self, path: &str) -> Option<Inode> {
        self.catalog.resolve(&entry_path(path)).unwrap()
    }

    fn read(&self, path: &str, range: ContentRange) -> Vec<u8> {
        let NodeBody::File(file) = self.resolve(path).unwrap().body else { panic!("{path} is no file") };
        let mut bytes = Vec::new();
        let mut sink = |more: &[u8]| {
            bytes.extend_from_slice(more);
            Ok(())
        };
        stream(&self.archive, &self.catalog, &entry_path(path), &file, range, &AtomicBool::new(false), &mut sink)
            .unwrap();
        bytes
    }

    fn objects(&self) -> Vec<ObjectRecord> {
        let mut objects = Vec::new();
        let mut add = |object| {
            objects.push(object);
            true
        };
        self.catalog.objects(None, &mut add).unwrap();
        objects
    }

    /// All entries that the stored objects tell, without the catalog.
    fn entries_on_store(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        for record in self.objects() {
            let object = self.archive.object(&record.reference).unwrap();
            entries.extend(object.manifest().facts().unwrap().entry.clone());
            if record.kind == ObjectKind::Bundle {
                let all = object.read(ContentRange::between(0, record.key.plain_size)).unwrap();
                entries.extend(BundleTable::of_content(all.bytes()).unwrap().rows.into_iter().map(|row| row.entry));
            }
        }
        entries
    }
}

/// Keeps every report.
#[derive(Default)]
struct Log(Mutex<Vec<FileReport>>);

impl Reporter for Log {
    fn file(&self, report: &FileReport) {
        let FileReport { path, source, size, tier, hash, outcome } = report;
        let outcome = match outcome {
            Outcome::Stored => Outcome::Stored,
            Outcome::Duplicate => Outcome::Duplicate,
            Outcome::Unchanged => Outcome::Unchanged,
            Outcome::Failed(Problem::Changing) => Outcome::Failed(Problem::Changing),
            Outcome::Failed(_) => Outcome::Failed(Problem::UnknownKind),
        };
        let copy =
            FileReport { path: path.clone(), source: source.clone(), size: *size, tier: *tier, hash: *hash, outcome };
        self.0.lock().unwrap().push(copy);
    }
}

fn entry_path(text: &str) -> EntryPath {
    EntryPath::from_user(text.as_bytes()).unwrap()
}

fn item(path: &Path) -> CommitItem {
    CommitItem::from_path(path.to_path_buf(), &EntryPath::root()).unwrap()
}

/// Everything about a tree that a restore has to give back, a line for each name.
fn picture(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut todo = vec![root.to_path_buf()];
    while let Some(path) = todo.pop() {
        let found = path.symlink_metadata().unwrap();
        let kind = found.file_type();
        let what = if kind.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            "directory".to_string()
        } else if kind.is_symlink() {
            format!("link to {:?}", fs::read_link(&path).unwrap())
        } else if kind.is_file() {
            format!("{} bytes, {}", found.size(), ContentHash::of(&fs::read(&path).unwrap()))
        } else {
            format!("{kind:?}, device {}", found.rdev())
        };
        let mut xattrs: Vec<_> =
            xattr::list(&path).unwrap().map(|name| (xattr::get(&path, &name).unwrap(), name)).collect();
        xattrs.sort();
        lines.push(format!(
            "{:?}: {what}; mode {:o}, owner {}:{}, modified {}.{:09}, names {}, xattrs {xattrs:?}",
            path.strip_prefix(root).unwrap(),
            found.mode(),
            found.uid(),
            found.gid(),
            found.mtime(),
            found.mtime_nsec(),
            if kind.is_dir() { 0 } else { found.nlink() },
        ));
    }
    lines.sort();
    lines
}

/// A tree with one of everything, in all tiers.
fn make_tree(root: &Path) {
    let is_root = rustix::process::geteuid().is_root();
    fs::create_dir_all(root.join("photos/2020")).unwrap();
    fs::create_dir_all(root.join("photos/2021/empty directory")).unwrap();
    for (index, len) in [1, 17, 511, 512, 513, 999, 1000].into_iter().enumerate() {
        fs::write(root.join(format!("photos/2020/{index}.jpg")), content(len, index as u64)).unwrap();
        fs::write(root.join(format!("photos/2021/{index}.jpg")), content(len, 100 + index as u64)).unwrap();
    }
    for (name, len) in [("medium", 1001), ("tier2", 15_000), ("tier3", 40_000), ("tier4", 200_000)] {
        fs::write(root.join(name), content(len, len as u64)).unwrap();
    }
    fs::write(root.join("empty"), b"").unwrap();
    fs::write(root.join("copy of tier3"), content(40_000, 40_000)).unwrap();
    fs::write(root.join("copy of 5"), content(999, 5)).unwrap();
    fs::write(root.join(OsStr::from_bytes(b"caf\xe9 \xff\n.txt")), b"not UTF-8").unwrap();
    fs::write(root.join("n".repeat(255)), b"long name").unwrap();
    fs::hard_link(root.join("tier2"), root.join("zz second name")).unwrap();
    fs::hard_link(root.join("photos/2020/1.jpg"), root.join("photos/2021/also 1.jpg")).unwrap();
    symlink("../no/such/file", root.join("dangling")).unwrap();
    symlink("photos", root.join("to directory")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, root.join("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let _ = std::os::unix::net::UnixListener::bind(root.join("socket"));
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.set_len(1 << 20).unwrap();
    sparse.write_all_at(&content(5000, 7), 512 * 1024).unwrap();
    for name in ["medium", "photos", "empty"] {
        let _ = xattr::set(root.join(name), "user.colour", name.as_bytes());
    }
    fs::set_permissions(root.join("medium"), PermissionsExt::from_mode(0o4751)).unwrap();
    fs::set_permissions(root.join("empty"), PermissionsExt::from_mode(0o400)).unwrap();
    fs::set_permissions(root.join("photos/2021"), PermissionsExt::from_mode(0o1555)).unwrap();
    if is_root {
        std::os::unix::fs::lchown(root.join("tier3"), Some(1234), Some(70_000)).unwrap();
        std::os::unix::fs::lchown(root.join("dangling"), Some(1234), Some(5)).unwrap();
        let device = rustix::fs::makedev(1, 3);
        let kind = rustix::fs::FileType::CharacterDevice;
        // Containers may forbid devices to root.
        let _ = rustix::fs::mknodat(rustix::fs::CWD, root.join("null"), kind, 0o666.into(), device);
    }
    let old = std::time::UNIX_EPOCH - std::time::Duration::new(86_400, 5);
    File::options().write(true).open(root.join("tier4")).unwrap().set_modified(old).unwrap();
    File::open(root.join("photos/2020")).unwrap().set_modified(old).unwrap();
}

#[test]
fn a_tree_comes_back_with_every_attribute() {
    for bench in Bench::variants() {
        make_tree(&bench.path("tree"));
        let (report, _) = bench.commit(&["tree"]);
        assert_eq!(report.failed, 0);
        let restored = bench.restore("tree", "out");
        assert_eq!((restored.failed, restored.attributes_refused), (0, 0));
        assert_eq!(picture(&bench.path("out/tree")), picture(&bench.path("tree")));
        let sparse = bench.path("out/tree/sparse").metadata().unwrap();
        assert!(sparse.blocks() * 512 < 64 * 1024, "holes stay holes, also when restored: {} blocks", sparse.blocks());
        let names: Vec<_> = fs::read_dir(bench.path("out")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["tree"], "no temporary file is left");
    }
}

#[test]
fn restoring_again_reads_what_is_there_and_repairs_what_differs() {
    let bench = Bench::new();
    make_tree(&bench.path("tree"));
    bench.commit(&["tree"]);
    bench.restore("tree", "out");
    let time = fs::metadata(bench.path("out/tree/tier3")).unwrap().modified().unwrap();
    let damaged = File::options().write(true).open(bench.path("out/tree/tier3")).unwrap();
    damaged.write_all_at(b"!", 1000).unwrap();
    damaged.set_modified(time).unwrap();
    fs::remove_file(bench.path("out/tree/photos/2020/3.jpg")).unwrap();
    fs::remove_file(bench.path("out/tree/dangling")).unwrap();
    fs::set_permissions(bench.path("out/tree/tier2"), PermissionsExt::from_mode(0o600)).unwrap();
    let again = bench.restore("tree", "out");
    assert_eq!(again.failed, 0);
    assert!(again.already_there > 15, "{again:?}");
    assert!(again.bytes < 60_000, "only the damaged and the missing file are written: {again:?}");
    assert_eq!(picture(&bench.path("out/tree")), picture(&bench.path("tree")));
}

#[test]
fn what_stands_in_the_way_is_named_and_kept() {
    let bench = Bench::new();
    fs::create_dir(bench.path("tree")).unwrap();
    fs::write(bench.path("tree/a"), "a").unwrap();
    fs::create_dir(bench.path("tree/b")).unwrap();
    fs::write(bench.path("tree/b/c"), "c").unwrap();
    bench.commit(&["tree"]);
    fs::create_dir_all(bench.path("out/tree/a/mine")).unwrap();
    fs::create_dir(bench.path("elsewhere")).unwrap();
    symlink(bench.path("elsewhere"), bench.path("out/tree/b")).unwrap();
    let report = bench.restore("tree", "out");
    assert_eq!(report.failed, 2);
    assert!(bench.path("out/tree/a/mine").is_dir());
    assert!(!bench.path("elsewhere/c").exists(), "a restore does not write through a symlink");
}

#[test]
fn a_second_commit_of_the_same_tree_stores_nothing() {
    for bench in Bench::variants() {
        make_tree(&bench.path("tree"));
        let (first, _) = bench.commit(&["tree"]);
        let files = files_below(bench.fixture.dir.path());
        let objects = |files: &std::collections::BTreeMap<PathBuf, Vec<u8>>| {
            files.keys().filter(|path| !path.starts_with(".blockframe")).cloned().collect::<Vec<_>>()
        };
        let (second, reports) = bench.commit(&["tree"]);
        assert_eq!((second.stored, second.duplicates, second.objects, second.failed), (0, 0, 0, 0));
        assert_eq!(second.unchanged, first.stored + first.duplicates);
        assert!(reports.iter().all(|report| matches!(report.outcome, Outcome::Unchanged)));
        assert_eq!((second.summary.created, second.summary.changed), (0, 0));
        assert_eq!(objects(&files), objects(&files_below(bench.fixture.dir.path())));
    }
}

#[test]
fn a_changed_file_is_stored_and_the_rest_is_not() {
    for bench in Bench::variants() {
        make_tree(&bench.path("tree"));
        bench.commit(&["tree"]);
        fs::write(bench.path("tree/photos/2020/6.jpg"), "new").unwrap();
        fs::write(bench.path("tree/tier3"), content(40_001, 1)).unwrap();
        let (second, _) = bench.commit(&["tree"]);
        assert_eq!((second.stored, second.duplicates), (2, 0));
        assert_eq!(bench.read("tree/photos/2020/6.jpg", ContentRange::between(0, 100)), b"new");
        assert_eq!(bench.read("tree/tier3", ContentRange::between(7, 5007)), &content(40_001, 1)[7..5007]);
        bench.restore("tree", "out");
        assert_eq!(picture(&bench.path("out/tree")), picture(&bench.path("tree")));
    }
}

#[test]
fn equal_contents_are_stored_once_under_all_their_names() {
    for bench in Bench::variants() {
        for directory in ["a", "b", "c"] {
            fs::create_dir_all(bench.path("tree").join(directory)).unwrap();
            fs::write(bench.path("tree").join(directory).join("name"), content(800, 1)).unwrap();
            fs::write(bench.path("tree").join(directory).join("large"), content(30_000, 2)).unwrap();
        }
        let (report, reports) = bench.commit(&["tree"]);
        assert_eq!((report.stored, report.duplicates), (2, 4));
        assert!(reports.iter().all(|report| report.tier.is_some()), "{reports:?}");
        let stored: u64 = bench.objects().iter().map(|object| object.key.plain_size).sum();
        assert!(stored < 30_000 + 800 + 8192, "{stored}");
        for directory in ["a", "b", "c"] {
            assert_eq!(bench.read(&format!("tree/{directory}/name"), ContentRange::between(0, 800)), content(800, 1));
            assert_eq!(
                bench.read(&format!("tree/{directory}/large"), ContentRange::between(0, 30_000)),
                content(30_000, 2)
            );
        }
    }
}

#[test]
fn one_file_alone_is_a_plain_object_that_carries_its_entry() {
    for len in [1000, 15_000] {
        let bench = Bench::new();
        fs::write(bench.path("alone.txt"), content(len, 1)).unwrap();
        let (report, reports) = bench.commit(&["alone.txt"]);
        assert_eq!((report.stored, report.objects), (1, 1));
        assert_eq!(reports[0].hash, Some(ContentHash::of(&content(len, 1))));
        let objects = bench.objects();
        assert_eq!((objects.len(), objects[0].kind), (1, ObjectKind::File));
        assert!(objects[0].reference.name.as_str().starts_with("alone.txt_"));
        let entries = bench.entries_on_store();
        let inode = bench.resolve("alone.txt").unwrap();
        let expected = Entry::Node { path: entry_path("alone.txt"), meta: inode.meta, body: inode.body };
        assert_eq!(entries, [expected], "the manifest holds the exact entry");
        assert_eq!(bench.read("alone.txt", ContentRange::between(0, len as u64)), content(len, 1));
    }
}

#[test]
fn every_name_can_be_rebuilt_from_manifests_and_bundles() {
    for bench in Bench::variants() {
        make_tree(&bench.path("tree"));
        bench.commit(&["tree"]);
        let mut told: Vec<EntryPath> = bench.entries_on_store().iter().map(|entry| entry.path().clone()).collect();
        told.sort();
        let mut expected: Vec<EntryPath> = Vec::new();
        let mut todo = vec![bench.path("tree")];
        while let Some(path) = todo.pop() {
            let below = path.strip_prefix(bench.work.path()).unwrap();
            expected.push(EntryPath::new(below.as_os_str().as_bytes()).unwrap());
            if path.symlink_metadata().unwrap().is_dir() {
                todo.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
        expected.sort();
        assert_eq!(told, expected, "each name once");
    }
}

#[test]
fn the_tree_comes_back_when_everything_of_the_catalog_is_lost() {
    for mut bench in Bench::variants() {
        make_tree(&bench.path("tree"));
        bench.commit(&["tree"]);
        fs::write(bench.path("tree/photos/2020/6.jpg"), "changed").unwrap();
        fs::remove_file(bench.path("tree/photos/2021/also 1.jpg")).unwrap();
        fs::hard_link(bench.path("tree/tier4"), bench.path("tree/photos/2021/also 1.jpg")).unwrap();
        fs::rename(bench.path("tree/tier3"), bench.path("tree/tier3 renamed")).unwrap();
        fs::write(bench.path("tree/tier3"), content(44_444, 3)).unwrap();
        bench.commit(&["tree"]);
        fs::remove_dir_all(bench.fixture.dir.path().join(layout::CATALOG_DIR)).unwrap();
        bench.home = scratch();
        bench.catalog = Catalog::open(bench.home.path(), &bench.archive).unwrap();
        assert_eq!(bench.restore("tree", "out").failed, 0);
        assert_eq!(picture(&bench.path("out/tree")), picture(&bench.path("tree")));
    }
}

#[test]
fn bundles_stay_below_their_target() {
    let bench = Bench::new();
    make_tree(&bench.path("tree"));
    bench.commit(&["tree"]);
    let target = bench.archive.descriptor().bundle.target;
    let bundles: Vec<_> = bench.objects().into_iter().filter(|object| object.kind == ObjectKind::Bundle).collect();
    assert!(bundles.len() > 1);
    assert!(bundles.iter().all(|bundle| bundle.key.plain_size <= target), "{bundles:?}");
}

#[test]
fn names_that_the_archive_cannot_hold_are_named_and_the_rest_is_committed() {
    let bench = Bench::new();
    let deep = "d".repeat(250);
    let directory = bench.path("tree").join(&deep).join(&deep);
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("kept"), "kept").unwrap();
    let destination = EntryPath::new([deep.as_str(); 15].join("/")).unwrap();
    let log = Log::default();
    let item = CommitItem::from_path(bench.path("tree"), &destination).unwrap();
    let report = bench.try_commit(vec![item], &AtomicBool::new(false), &log).unwrap();
    assert_eq!(report.failed, 1, "{:?}", log.0);
    assert!(bench.catalog.resolve(&destination.join(b"tree").unwrap()).unwrap().is_some());
}

#[test]
fn unreadable_files_and_the_archive_itself_are_left_out() {
    let bench = Bench::new();
    let log = Log::default();
    fs::write(bench.path("good"), "good").unwrap();
    let items = vec![item(&bench.path("missing")), item(bench.fixture.dir.path()), item(&bench.path("good"))];
    let report = bench.try_commit(items, &AtomicBool::new(false), &log).unwrap();
    assert_eq!((report.failed, report.stored), (2, 1));
    assert!(bench.resolve("good").is_some());
}

#[test]
fn two_sources_of_one_name_are_refused() {
    let bench = Bench::new();
    for directory in ["a", "b"] {
        fs::create_dir(bench.path(directory)).unwrap();
        fs::write(bench.path(directory).join("same"), directory).unwrap();
    }
    let items = vec![item(&bench.path("a/same")), item(&bench.path("b/same"))];
    let error = bench.try_commit(items, &AtomicBool::new(false), &()).unwrap_err();
    assert!(matches!(error, IngestError::SameDestination { .. }), "{error}");
    assert!(bench.objects().is_empty());
}

#[test]
fn streams_of_every_size_are_stored_under_their_name() {
    for len in [0, 5, 1000, 30_000] {
        let bench = Bench::new();
        let bytes = content(len, 3);
        let input = Box::new(std::io::Cursor::new(bytes.clone()));
        let now = Timestamp { seconds: 1_700_000_000, nanoseconds: 5 };
        let item = CommitItem::from_stream(input, b"dump.sql", &entry_path("backups"), now).unwrap();
        let report = bench.try_commit(vec![item], &AtomicBool::new(false), &()).unwrap();
        assert_eq!((report.stored, report.bytes), (1, len as u64));
        assert_eq!(bench.read("backups/dump.sql", ContentRange::between(0, len as u64)), bytes);
        assert_eq!(bench.resolve("backups/dump.sql").unwrap().meta.modified, now);
        assert_eq!(bench.temporary_files(), 0);
    }
}

/// Changes a file whenever bytes of it were stored.
struct Meddler {
    path: PathBuf,
    changes: AtomicUsize,
    most: usize,
    log: Log,
}

impl Reporter for Meddler {
    fn advance(&self, _bytes: u64) {
        if self.changes.load(Ordering::Relaxed) < self.most {
            let count = self.changes.fetch_add(1, Ordering::Relaxed);
            let file = File::options().write(true).open(&self.path).unwrap();
            file.write_all_at(&[count as u8], 0).unwrap();
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(count as u64);
            file.set_modified(time).unwrap();
        }
    }

    fn file(&self, report: &FileReport) {
        self.log.file(report);
    }
}

#[test]
fn a_file_that_changes_while_it_is_read_is_read_again_and_at_last_refused() {
    for (most, failed) in [(1, 0), (usize::MAX, 1)] {
        let bench = Bench::new();
        fs::create_dir(bench.path("tree")).unwrap();
        fs::write(bench.path("tree/busy"), content(50_000, 1)).unwrap();
        fs::write(bench.path("tree/calm"), "calm").unwrap();
        let busy = bench.path("tree/busy");
        let meddler = Meddler { path: busy.clone(), changes: AtomicUsize::new(0), most, log: Log::default() };
        let report = bench.try_commit(vec![item(&bench.path("tree"))], &AtomicBool::new(false), &meddler).unwrap();
        assert_eq!(report.failed, failed);
        assert!(bench.resolve("tree/calm").is_some());
        assert_eq!(bench.resolve("tree/busy").is_some(), failed == 0);
        if failed == 0 {
            let stored = bench.read("tree/busy", ContentRange::between(0, 50_000));
            assert_eq!(stored, fs::read(&busy).unwrap(), "what is stored is one state of the file");
        } else {
            let log = meddler.log.0.into_inner().unwrap();
            assert!(log.iter().any(|report| matches!(report.outcome, Outcome::Failed(Problem::Changing))));
        }
        assert_eq!(bench.temporary_files(), 0);
    }
}

/// Interrupts after so many finished files.
struct Interrupter<'a> {
    after: usize,
    done: AtomicUsize,
    cancel: &'a AtomicBool,
}

impl Reporter for Interrupter<'_> {
    fn file(&self, _report: &FileReport) {
        if self.done.fetch_add(1, Ordering::Relaxed) + 1 == self.after {
            self.cancel.store(true, Ordering::Relaxed);
        }
    }
}

#[test]
fn an_interrupted_commit_shows_nothing_and_the_next_continues() {
    for after in [1, 6, 12, 20] {
        let bench = Bench::new();
        make_tree(&bench.path("tree"));
        let cancel = AtomicBool::new(false);
        let interrupter = Interrupter { after, done: AtomicUsize::new(0), cancel: &cancel };
        let error = bench.try_commit(vec![item(&bench.path("tree"))], &cancel, &interrupter).unwrap_err();
        assert!(matches!(error, IngestError::Interrupted), "{error}");
        assert!(bench.resolve("tree").is_none(), "nothing is visible");
        assert_eq!(bench.temporary_files(), 0);
        let kept = bench.objects().len();
        assert!(kept > 0);

        let (report, reports) = bench.commit(&["tree"]);
        assert_eq!(report.failed, 0);
        let skipped = reports.iter().filter(|report| matches!(report.outcome, Outcome::Unchanged)).count();
        assert!(skipped > 0, "what was stored before the interrupt ({after}) is not read again");
        bench.restore("tree", "out");
        assert_eq!(picture(&bench.path("out/tree")), picture(&bench.path("tree")));
    }
}

/// Interrupts once so many bytes are done.
struct ByteInterrupter<'a> {
    left: AtomicI64,
    cancel: &'a AtomicBool,
}

impl ByteInterrupter<'_> {
    fn count(&self, bytes: u64) {
        if self.left.fetch_sub(bytes as i64, Ordering::Relaxed) <= bytes as i64 {
            self.cancel.store(true, Ordering::Relaxed);
        }
    }
}

impl Reporter for ByteInterrupter<'_> {
    fn advance(&self, bytes: u64) {
        self.count(bytes);
    }
}

impl RestoreReporter for ByteInterrupter<'_> {
    fn advance(&self, bytes: u64) {
        self.count(bytes);
    }
}

#[test]
fn an_interrupt_in_the_middle_of_a_large_file_leaves_nothing_of_it() {
    let bench = Bench::new();
    fs::write(bench.path("large"), content(400_000, 1)).unwrap();
    let cancel = AtomicBool::new(false);
    let interrupter = ByteInterrupter { left: AtomicI64::new(1), cancel: &cancel };
    let error = bench.try_commit(vec![item(&bench.path("large"))], &cancel, &interrupter).unwrap_err();
    assert!(matches!(error, IngestError::Interrupted), "{error}");
    assert_eq!(bench.temporary_files(), 0);
    assert!(bench.objects().is_empty());
}

#[test]
fn an_interrupted_restore_leaves_only_whole_files_and_continues() {
    for bytes in [1, 5_000, 100_000, 300_000] {
        let bench = Bench::new();
        make_tree(&bench.path("tree"));
        bench.commit(&["tree"]);
        let cancel = AtomicBool::new(false);
        let interrupter = ByteInterrupter { left: AtomicI64::new(bytes), cancel: &cancel };
        let request = RestoreRequest {
            paths: vec![entry_path("tree")],
            destination: bench.path("out"),
            at: None,
            cancel: &cancel,
        };
        let error = restore(&bench.archive, &bench.catalog, &request, &interrupter).unwrap_err();
        assert!(matches!(error, IngestError::Interrupted), "{error}");
        for (path, bytes) in files_below_real(&bench.path("out")) {
            let whole = fs::read(bench.path("").join(path.strip_prefix(bench.path("out")).unwrap())).unwrap();
            assert!(whole == bytes, "{path:?} is not whole");
        }
        bench.restore("tree", "out");
        assert_eq!(picture(&bench.path("out/tree")), picture(&bench.path("tree")));
    }
}

/// Regular files with their bytes, symlinks and special files left out.
fn files_below_real(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut todo = vec![root.to_path_buf()];
    while let Some(path) = todo.pop() {
        let found = path.symlink_metadata().unwrap();
        if found.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if found.is_file() {
            let bytes = fs::read(&path).unwrap();
            files.push((path, bytes));
        }
    }
    files
}

#[test]
fn of_overlapping_sources_the_later_one_wins() {
    let bench = Bench::new();
    for (directory, bytes) in [("a", "from a"), ("b", "from b")] {
        fs::create_dir(bench.path(directory)).unwrap();
        fs::write(bench.path(directory).join("x"), bytes).unwrap();
    }
    let contents = |name: &str| item(&bench.path(name).join("."));
    bench.try_commit(vec![contents("b")], &AtomicBool::new(false), &()).unwrap();
    bench.try_commit(vec![contents("a"), contents("b")], &AtomicBool::new(false), &()).unwrap();
    assert_eq!(bench.read("x", ContentRange::between(0, 9)), b"from b");
}

#[test]
fn a_full_store_ends_the_commit_keeps_what_is_whole_and_the_next_continues() {
    for room in [0, 10_000, 100_000, 400_000] {
        let bench = Bench::new();
        make_tree(&bench.path("tree"));
        bench.faults.limit_space(Some(room));
        let error = bench.try_commit(vec![item(&bench.path("tree"))], &AtomicBool::new(false), &()).unwrap_err();
        assert!(matches!(error, IngestError::StoreFull(_)), "{room}: {error}");
        assert_eq!(error.class(), ErrorClass::NoSpace);
        assert!(bench.resolve("tree").is_none(), "{room}: nothing is visible");
        assert_eq!(bench.temporary_files(), 0, "{room}");
        let kept = bench.objects();
        bench.faults.heal();
        let (report, _) = bench.commit(&["tree"]);
        assert_eq!(report.failed, 0);
        assert!(kept.iter().all(|object| bench.objects().contains(object)));
        bench.restore("tree", "out");
        assert_eq!(picture(&bench.path("out/tree")), picture(&bench.path("tree")));
    }
}

#[test]
fn whichever_write_fails_nothing_is_visible_and_the_next_commit_is_whole() {
    let changes = |bench: &Bench| bench.faults.counters().calls_of(&Operation::CHANGES);
    let total = {
        let bench = Bench::new();
        make_small_tree(&bench.path("tree"));
        let before = changes(&bench);
        bench.commit(&["tree"]);
        changes(&bench) - before
    };
    assert!(total > 20, "{total}");
    for at in 1..=total {
        let bench = Bench::new();
        make_small_tree(&bench.path("tree"));
        bench.faults.inject(Fault::fail(StoreErrorKind::Io).on(&Operation::CHANGES).from_nth(at).times(1));
        let result = bench.try_commit(vec![item(&bench.path("tree"))], &AtomicBool::new(false), &());
        // Deleting a temporary file may fail without harm.
        assert_eq!(bench.resolve("tree").is_some(), result.is_ok(), "change {at} of {total}");
        bench.faults.heal();
        let again = bench.try_commit(vec![item(&bench.path("tree"))], &AtomicBool::new(false), &());
        assert_eq!(again.unwrap().failed, 0, "change {at} of {total}");
        bench.restore("tree", "out");
        assert_eq!(picture(&bench.path("out/tree")), picture(&bench.path("tree")), "change {at} of {total}");
    }
}

/// Two bundles, two objects, a link and a duplicate.
fn make_small_tree(root: &Path) {
    fs::create_dir_all(root.join("d")).unwrap();
    for index in 0..9 {
        fs::write(root.join(format!("d/{index}")), content(900, index)).unwrap();
    }
    fs::write(root.join("large"), content(12_000, 1)).unwrap();
    fs::write(root.join("larger"), content(25_000, 1)).unwrap();
    fs::write(root.join("same"), content(900, 3)).unwrap();
    symlink("d", root.join("link")).unwrap();
}

#[test]
fn the_contents_of_a_directory_go_below_the_destination() {
    let bench = Bench::new();
    fs::create_dir_all(bench.path("tree/sub")).unwrap();
    fs::write(bench.path("tree/sub/file"), "x").unwrap();
    let item = CommitItem::from_path(bench.path("tree/."), &entry_path("to/here")).unwrap();
    bench.try_commit(vec![item], &AtomicBool::new(false), &()).unwrap();
    assert!(bench.resolve("to/here/sub/file").is_some());
}

#[test]
fn a_single_file_is_restored_under_the_name_given() {
    let bench = Bench::new();
    fs::write(bench.path("file"), "x").unwrap();
    bench.commit(&["file"]);
    bench.restore("file", "renamed");
    assert_eq!(fs::read(bench.path("renamed")).unwrap(), b"x");
    bench.restore("file", "directory/");
    assert_eq!(fs::read(bench.path("directory/file")).unwrap(), b"x");
    let missing = RestoreRequest {
        paths: vec![entry_path("nothing")],
        destination: bench.path("out"),
        at: None,
        cancel: &AtomicBool::new(false),
    };
    let error = restore(&bench.archive, &bench.catalog, &missing, &()).unwrap_err();
    assert!(matches!(error, IngestError::NotFound { .. }));
}

#[test]
fn committing_again_stores_anew_what_was_lost() {
    for bench in Bench::variants() {
        let large = content(30_001, 77);
        fs::create_dir(bench.path("tree")).unwrap();
        fs::write(bench.path("tree/large"), &large).unwrap();
        fs::write(bench.path("tree/small"), b"small").unwrap();
        fs::write(bench.path("tree/small2"), b"small too").unwrap();
        bench.commit(&["tree"]);
        for object in bench.objects() {
            let directory = bench.fixture.path(&object.reference);
            for file in kit::shard_files(&directory) {
                fs::remove_file(directory.join(file)).unwrap();
            }
        }
        let bench = Bench { archive: Arc::new(bench.fixture.archive.clone()), ..bench };
        let (report, _) = bench.commit(&["tree"]);
        assert_eq!((report.stored, report.failed), (3, 0));
        let everything = ContentRange::between(0, u64::MAX);
        assert!(bench.read("tree/large", everything) == large);
        assert_eq!(bench.read("tree/small", everything), b"small");
        assert_eq!(bench.read("tree/small2", everything), b"small too");
        for path in ["tree/large", "tree/small", "tree/small2"] {
            let NodeBody::File(file) = bench.resolve(path).unwrap().body else { panic!("{path} is no file") };
            let place = bench.catalog.place(&file.hash, file.size).unwrap().unwrap();
            let health = bench.archive.object_health(&place.object, Depth::Full, &|_| {});
            assert!(health.is_ok_and(|health| health.verdict == Verdict::Healthy), "{path}");
        }
        let (report, _) = bench.commit(&["tree"]);
        assert_eq!((report.unchanged, report.stored), (3, 0));
    }
}
