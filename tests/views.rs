//! The archive as it was, and the hidden directory of a mount: views of times
//! against what was seen at these times.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod kit;

use blockframe::archive::{Archive, Event, EventKind, EventSink, Verdict};
use blockframe::base::{Clock, LatencyGauge, Timestamp};
use blockframe::catalog::{Catalog, HealthLog};
use blockframe::scrub::{CatalogLedger, PassEnd, PassScope, ScrubOptions, Scrubber, StopSignal, Watch};
use blockframe::staging::{StagingArea, StagingLimits};
use blockframe::store::LocalStore;
use blockframe::vfs::{ArchiveVfs, LiveVfs, SyncPolicy, VfsLimits, WithPrivate, Writeback, WritebackOptions};
use blockframe_api::{
    AllocateMode, AttributeChange, Attributes, CachePolicy, Caller, ErrorClass, Handle, NewNode, Node, NodeKind,
    OpenHow, RenameMode, Vfs, VfsResult, XattrMode,
};
use kit::{content, files_below, scratch, tiny_descriptor, view};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// When the archives of these tests are made: 2026-11-20T12:00:00Z.
const BORN: i64 = 1_795_176_000;
const HOUR: i64 = 3600;
const READ: OpenHow = OpenHow { read: true, write: false, truncate: false };
const WRITE: OpenHow = OpenHow { read: true, write: true, truncate: false };

fn at(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanoseconds: 0 }
}

#[derive(Debug)]
struct ManualClock(Mutex<Timestamp>);

impl ManualClock {
    fn set(&self, seconds: i64) {
        *self.0.lock().unwrap() = at(seconds);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

struct Home {
    dir: TempDir,
    clock: Arc<ManualClock>,
    archive: Arc<Archive>,
    catalog: Arc<Catalog>,
    log: Arc<HealthLog>,
}

impl Home {
    fn new() -> Self {
        let dir = scratch();
        let clock = Arc::new(ManualClock(Mutex::new(at(BORN))));
        let store = Arc::new(LocalStore::open(dir.path()).unwrap());
        let mut descriptor = tiny_descriptor();
        descriptor.created = BORN;
        Archive::create(store.clone(), descriptor, "test".into()).unwrap();
        let log = Arc::new(HealthLog::open(dir.path()).unwrap());
        let archive = Arc::new(Archive::open(store, clock.clone(), log.clone()).unwrap());
        let catalog = Arc::new(Catalog::create(dir.path(), &archive).unwrap());
        Self { dir, clock, archive, catalog, log }
    }

    fn source(&self) -> PathBuf {
        let source = self.dir.path().join("sources/tree");
        fs::create_dir_all(&source).unwrap();
        source
    }

    /// Commits the source tree at a time.
    fn commit(&self, seconds: i64) {
        self.clock.set(seconds);
        view::commit_paths(&self.archive, &self.catalog, &[&self.source()]);
    }

    fn present(&self) -> Arc<ArchiveVfs> {
        let (archive, catalog) = (self.archive.clone(), self.catalog.clone());
        Arc::new(ArchiveVfs::new(archive, catalog, self.log.clone(), VfsLimits::default()).unwrap())
    }

    fn at(&self, seconds: i64) -> ArchiveVfs {
        let (archive, catalog) = (self.archive.clone(), self.catalog.clone());
        ArchiveVfs::at(archive, catalog, self.log.clone(), VfsLimits::default(), at(seconds)).unwrap()
    }

    fn private(&self) -> WithPrivate<ArchiveVfs> {
        WithPrivate::over(self.present())
    }

    fn live(&self) -> WithPrivate<LiveVfs> {
        let limits = StagingLimits { quota: 1 << 30, reserve: 0 };
        let staging = StagingArea::open(&self.dir.path().join(".blockframe/staging"), limits, None).unwrap();
        let (archive, catalog) = (self.archive.clone(), self.catalog.clone());
        let policy = SyncPolicy::default();
        let live = LiveVfs::open(archive, catalog, self.log.clone(), staging, VfsLimits::default(), policy).unwrap();
        WithPrivate::over_live(Arc::new(live))
    }
}

/// The node at a path below the root.
fn walk(vfs: &dyn Vfs, path: &str) -> VfsResult<Attributes> {
    let mut found = vfs.attributes(Node::ROOT)?;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        found = vfs.lookup(found.node, name.as_bytes())?;
    }
    Ok(found)
}

fn class(outcome: VfsResult<impl std::fmt::Debug>) -> ErrorClass {
    outcome.unwrap_err().class()
}

fn names(vfs: &dyn Vfs, directory: Node) -> Vec<Vec<u8>> {
    let mut names = Vec::new();
    let mut push = |entry: blockframe_api::DirectoryEntry<'_>| {
        names.push(entry.name.to_vec());
        true
    };
    vfs.read_directory(directory, None, &mut push).unwrap();
    names
}

fn read(vfs: &dyn Vfs, handle: Handle) -> VfsResult<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let before = bytes.len();
        vfs.read(handle, before as u64, 100_000, &mut |more| bytes.extend_from_slice(more))?;
        if bytes.len() == before {
            return Ok(bytes);
        }
    }
}

/// What a tree shows: kind, permission bits, names of the node, bytes or target.
type Tree = BTreeMap<Vec<u8>, (NodeKind, u16, u32, Vec<u8>)>;

/// Everything below a directory. Checks on the way that all answers agree.
fn tree(vfs: &dyn Vfs, top: Node) -> Tree {
    let mut tree = Tree::new();
    let mut open = vec![(Vec::new(), top)];
    while let Some((above, directory)) = open.pop() {
        for name in names(vfs, directory) {
            let found = vfs.lookup(directory, &name).unwrap();
            assert_eq!(vfs.attributes(found.node).unwrap(), found);
            let path = if above.is_empty() { name } else { [above.as_slice(), &name].join(&b'/') };
            let bytes = match found.kind {
                NodeKind::Directory => {
                    assert_eq!(vfs.parent(found.node).unwrap(), directory);
                    open.push((path.clone(), found.node));
                    Vec::new()
                }
                NodeKind::Symlink => vfs.read_link(found.node).unwrap(),
                NodeKind::File => {
                    let opened = vfs.open(found.node, READ).unwrap();
                    let bytes = read(vfs, opened.handle).unwrap();
                    vfs.release(opened.handle);
                    assert_eq!(bytes.len() as u64, found.size);
                    bytes
                }
                _ => Vec::new(),
            };
            let links = if found.kind == NodeKind::Directory { 0 } else { found.links };
            tree.insert(path, (found.kind, found.permissions, links, bytes));
        }
    }
    tree
}

#[test]
fn contents_and_names_are_shown_as_they_were() {
    let home = Home::new();
    let source = home.source();
    let long = "n".repeat(255);
    let strange = OsStr::from_bytes(b"\xff\xfe not UTF-8");
    fs::write(source.join(&long), content(500, 1)).unwrap();
    fs::write(source.join(strange), content(70_000, 2)).unwrap();
    fs::hard_link(source.join(strange), source.join("second name")).unwrap();
    fs::create_dir(source.join("deep")).unwrap();
    fs::write(source.join("deep/file"), content(15_000, 3)).unwrap();
    home.commit(BORN + 10);
    let (first, first_tree) = (view::of_vfs(&*home.present()), tree(&*home.present(), Node::ROOT));
    fs::write(source.join(strange), content(3_000, 4)).unwrap();
    fs::write(source.join("deep/file"), b"").unwrap();
    fs::write(source.join("new"), content(100, 5)).unwrap();
    home.commit(BORN + HOUR);
    let second = view::of_vfs(&*home.present());
    assert_ne!(first, second);

    for (seconds, expected) in [(10, &first), (11, &first), (HOUR - 1, &first), (HOUR, &second), (2 * HOUR, &second)] {
        let found = view::of_vfs(&home.at(BORN + seconds));
        if let Some(difference) = view::difference(expected, &found) {
            panic!("after {seconds} s: {difference}");
        }
    }
    assert!(view::of_vfs(&home.at(BORN + 9)).is_empty());

    let mount = home.private();
    let shown = walk(&mount, ".blockframe/snapshots/2026-11-20T12:00:10Z").unwrap();
    assert_eq!(tree(&mount, shown.node), first_tree);
}

#[test]
fn an_open_file_of_a_view_stays_when_the_file_changes() {
    let home = Home::new();
    fs::write(home.source().join("file"), content(30_000, 1)).unwrap();
    home.commit(BORN + 1);
    let mount = home.private();
    let old = walk(&mount, ".blockframe/snapshots/2026-11-20T12:00:01Z/tree/file").unwrap();
    // The moment is not over yet: another process may still have something to write of it.
    let opened = mount.open(old.node, READ).unwrap();
    assert_eq!(opened.cache, CachePolicy::Refresh);
    mount.release(opened.handle);
    home.clock.set(BORN + 61);
    let opened = mount.open(old.node, READ).unwrap();
    assert_eq!(opened.cache, CachePolicy::Keep);
    fs::write(home.source().join("file"), content(40_000, 2)).unwrap();
    home.commit(BORN + 100);
    assert_eq!(read(&mount, opened.handle).unwrap(), content(30_000, 1));
    assert_eq!(mount.attributes(old.node).unwrap(), old);
    assert_eq!(mount.attributes(walk(&mount, "tree/file").unwrap().node).unwrap().size, 40_000);
    mount.release(opened.handle);
    assert_eq!(class(mount.read(opened.handle, 0, 1, &mut |_| ())), ErrorClass::Invalid);
}

#[test]
fn the_hidden_directory_is_found_and_not_listed() {
    let home = Home::new();
    fs::write(home.source().join("file"), b"x").unwrap();
    home.commit(BORN + 1);
    let mount = home.private();
    assert_eq!(names(&mount, Node::ROOT), [b"tree"]);
    let hidden = walk(&mount, ".blockframe").unwrap();
    assert_eq!((hidden.kind, hidden.permissions), (NodeKind::Directory, 0o555));
    assert_eq!(names(&mount, hidden.node), [&b"README.txt"[..], b"damaged", b"snapshots"]);
    assert_eq!(class(walk(&mount, "tree/.blockframe")), ErrorClass::NotFound);
    assert_eq!(class(walk(&mount, ".blockframe/nothing")), ErrorClass::NotFound);
    assert_eq!(mount.parent(hidden.node).unwrap(), Node::ROOT);
    let readme = walk(&mount, ".blockframe/README.txt").unwrap();
    let handle = mount.open(readme.node, READ).unwrap().handle;
    let text = read(&mount, handle).unwrap();
    assert_eq!(text.len() as u64, readme.size);
    assert!(String::from_utf8(text).unwrap().contains("snapshots/"));
    assert_eq!(mount.seek(handle, 5, true).unwrap(), 5);
    assert_eq!(class(mount.seek(handle, readme.size, true)), ErrorClass::NoSuchRange);
    mount.release(handle);
    assert_eq!(class(mount.lookup(readme.node, b"x")), ErrorClass::NotDirectory);
    assert_eq!(class(mount.open(hidden.node, READ)), ErrorClass::IsDirectory);
    assert_eq!(class(mount.extended_attribute(hidden.node, b"user.a")), ErrorClass::NoAttribute);
    // A number that nothing has, and one of a view that nobody asked for.
    for number in [1 << 63, 1 << 63 | 77, 1 << 63 | 9 << 42 | 1, u64::MAX] {
        assert_eq!(class(mount.attributes(Node::new(number))), ErrorClass::NotFound);
    }
}

#[test]
fn an_entry_that_is_there_goes_before_the_hidden_directory() {
    let home = Home::new();
    let source = home.dir.path().join("sources/.blockframe");
    fs::create_dir_all(&source).unwrap();
    fs::write(source.join("mine"), b"x").unwrap();
    view::commit_paths(&home.archive, &home.catalog, &[&source]);
    let mount = home.private();
    let found = walk(&mount, ".blockframe").unwrap();
    assert_eq!(names(&mount, found.node), [b"mine"]);
    let live = home.live();
    let (from, to) = ((Node::ROOT, &b".blockframe"[..]), (Node::ROOT, &b"other"[..]));
    live.rename(from.0, from.1, to.0, to.1, RenameMode::Replace).unwrap();
    assert_eq!(names(&live, walk(&live, ".blockframe").unwrap().node).len(), 3);
}

#[test]
fn only_times_that_have_passed_and_had_the_archive_are_there() {
    let home = Home::new();
    fs::write(home.source().join("file"), b"x").unwrap();
    home.commit(BORN + 86_400);
    let mount = home.private();
    let snapshots = walk(&mount, ".blockframe/snapshots").unwrap().node;
    for there in [
        "2026-11-20T12:00:00Z",
        "2026-11-20T12:00",
        "2026-11-20 12:00:00.5",
        "2026-11-20T13:00+01:00",
        "2026-11-21",
        "2026-11-21T12:00:00.000000000Z",
    ] {
        let found = mount.lookup(snapshots, there.as_bytes()).unwrap_or_else(|error| panic!("{there}: {error}"));
        assert_eq!(mount.lookup(snapshots, there.as_bytes()).unwrap().node, found.node, "{there} is stable");
        assert_eq!(mount.parent(found.node).unwrap(), snapshots);
        let shown = names(&mount, found.node).len();
        assert_eq!(shown, usize::from(there.starts_with("2026-11-21T")), "{there}");
    }
    let far = "9".repeat(255);
    for missing in
        ["2026-11-20T11:59:59Z", "2026-11-20", "2026-11-21T12:00:00.000000001Z", "2027-01-01", "now", "1h ago", &far]
    {
        assert_eq!(class(mount.lookup(snapshots, missing.as_bytes())), ErrorClass::NotFound, "{missing}");
    }
    assert_eq!(class(mount.lookup(snapshots, b"\xff")), ErrorClass::NotFound);
    // Time goes on: what was in the future is a view.
    home.clock.set(BORN + 100 * 86_400);
    assert!(mount.lookup(snapshots, b"2027-01-01").is_ok());
}

#[test]
fn views_are_bounded_and_those_that_are_known_no_more_lead_nowhere() {
    let home = Home::new();
    fs::write(home.source().join("file"), content(5000, 1)).unwrap();
    home.commit(BORN + 1);
    home.clock.set(BORN + 10_000);
    let mount = home.private();
    let snapshots = walk(&mount, ".blockframe/snapshots").unwrap().node;
    let name = |seconds| blockframe::base::calendar::rfc3339_seconds(BORN + seconds).into_bytes();
    let first = mount.lookup(snapshots, &name(1)).unwrap();
    let file = mount.lookup(mount.lookup(first.node, b"tree").unwrap().node, b"file").unwrap();
    let handle = mount.open(file.node, READ).unwrap().handle;
    for seconds in 2..5000 {
        mount.lookup(snapshots, &name(seconds)).unwrap();
    }
    assert_eq!(class(mount.attributes(first.node)), ErrorClass::NotFound);
    assert_eq!(class(mount.open(file.node, READ)), ErrorClass::NotFound);
    assert_eq!(class(mount.parent(file.node)), ErrorClass::NotFound);
    // Who has a file open goes on, and who asks by name gets a number that nothing else had.
    assert_eq!(read(&mount, handle).unwrap(), content(5000, 1));
    mount.release(handle);
    let again = mount.lookup(snapshots, &name(1)).unwrap();
    assert_ne!(again.node, first.node);
    assert_eq!(names(&mount, again.node), [b"tree"]);
}

#[test]
fn nothing_in_the_hidden_directory_can_be_changed() {
    let home = Home::new();
    fs::write(home.source().join("file"), content(5000, 1)).unwrap();
    home.commit(BORN + 1);
    let live = home.live();
    let who = Caller::default();
    let hidden = walk(&live, ".blockframe").unwrap().node;
    let snapshot = walk(&live, ".blockframe/snapshots/2026-11-20T12:00:01Z/tree").unwrap().node;
    let file = live.lookup(snapshot, b"file").unwrap().node;
    let handle = live.open(file, READ).unwrap().handle;
    for parent in [hidden, walk(&live, ".blockframe/snapshots").unwrap().node, snapshot] {
        assert_eq!(class(live.create(who, parent, b"x", 0o644, WRITE)), ErrorClass::ReadOnly);
        assert_eq!(class(live.make(who, parent, b"x", 0o755, NewNode::Directory)), ErrorClass::ReadOnly);
        assert_eq!(class(live.unlink(parent, b"file")), ErrorClass::ReadOnly);
        assert_eq!(class(live.remove_directory(parent, b"damaged")), ErrorClass::ReadOnly);
        let (out, into) = ((parent, &b"file"[..]), (Node::ROOT, &b"file"[..]));
        assert_eq!(class(live.rename(out.0, out.1, into.0, into.1, RenameMode::Replace)), ErrorClass::ReadOnly);
        let tree = (Node::ROOT, &b"tree"[..]);
        assert_eq!(class(live.rename(tree.0, tree.1, parent, b"x", RenameMode::Replace)), ErrorClass::ReadOnly);
        assert_eq!(class(live.set_attributes(who, parent, None, &AttributeChange::default())), ErrorClass::ReadOnly);
        assert_eq!(class(live.set_extended_attribute(parent, b"user.a", b"", XattrMode::Set)), ErrorClass::ReadOnly);
        assert_eq!(class(live.remove_extended_attribute(parent, b"user.a")), ErrorClass::ReadOnly);
        live.sync_directory(parent).unwrap();
    }
    // The directory itself.
    let name = b".blockframe";
    assert_eq!(class(live.make(who, Node::ROOT, name, 0o755, NewNode::Directory)), ErrorClass::Exists);
    assert_eq!(class(live.create(who, Node::ROOT, name, 0o644, WRITE)), ErrorClass::Exists);
    assert_eq!(class(live.remove_directory(Node::ROOT, name)), ErrorClass::ReadOnly);
    assert_eq!(class(live.unlink(Node::ROOT, name)), ErrorClass::ReadOnly);
    for mode in [RenameMode::Replace, RenameMode::NoReplace, RenameMode::Exchange] {
        assert_eq!(class(live.rename(Node::ROOT, b"tree", Node::ROOT, name, mode)), ErrorClass::ReadOnly);
        assert_eq!(class(live.rename(Node::ROOT, name, Node::ROOT, b"x", mode)), ErrorClass::ReadOnly);
    }
    // A name for what was; a name of what is, in what was.
    let present = walk(&live, "tree/file").unwrap().node;
    assert_eq!(class(live.link(file, Node::ROOT, b"x")), ErrorClass::Denied);
    assert_eq!(class(live.link(present, snapshot, b"x")), ErrorClass::ReadOnly);
    assert_eq!(class(live.open(file, WRITE)), ErrorClass::ReadOnly);
    assert_eq!(class(live.open(file, OpenHow { truncate: true, ..READ })), ErrorClass::ReadOnly);
    assert_eq!(class(live.write(handle, 0, b"x", false)), ErrorClass::ReadOnly);
    assert_eq!(class(live.allocate(handle, 0, 1, AllocateMode::Extend)), ErrorClass::ReadOnly);
    live.flush(handle).unwrap();
    live.sync(handle, false).unwrap();
    live.release(handle);
    assert_eq!(tree(&live, snapshot), tree(&live, walk(&live, "tree").unwrap().node));
}

#[test]
fn a_change_that_was_just_made_is_in_the_view_of_now() {
    let home = Home::new();
    let live = home.live();
    let snapshots = walk(&live, ".blockframe/snapshots").unwrap().node;
    for number in 1..=30 {
        home.clock.set(BORN + number);
        let name = format!("directory {number}");
        live.make(Caller::default(), Node::ROOT, name.as_bytes(), 0o755, NewNode::Directory).unwrap();
        let now = blockframe::base::calendar::rfc3339_seconds(BORN + number);
        let view = live.lookup(snapshots, now.as_bytes()).unwrap().node;
        assert_eq!(names(&live, view).len() as i64, number);
    }
}

#[test]
fn what_was_written_into_the_mount_is_seen_as_it_was() {
    let home = Home::new();
    let live = home.live();
    let options = WritebackOptions::default();
    let writeback = Writeback::start(live.inner(), options).unwrap();
    let mut versions = Vec::new();
    let (made, opened) = live.create(Caller::default(), Node::ROOT, b"file", 0o644, WRITE).unwrap();
    live.release(opened.handle);
    for number in 1..4u64 {
        home.clock.set(BORN + 100 * number as i64);
        let bytes = content(1000 * number as usize, number);
        let handle = live.open(made.node, OpenHow { truncate: true, ..WRITE }).unwrap().handle;
        live.write(handle, 0, &bytes, false).unwrap();
        live.flush(handle).unwrap();
        live.release(handle);
        versions.push(bytes);
        // Committed a while after it was closed.
        home.clock.set(BORN + 100 * number as i64 + 50);
        writeback.drain(None, &mut |_| true).unwrap();
    }
    home.clock.set(BORN + 1000);
    live.unlink(Node::ROOT, b"file").unwrap();
    home.clock.set(BORN + 1100);
    let snapshots = walk(&live, ".blockframe/snapshots").unwrap().node;
    for (number, bytes) in (1..).zip(&versions) {
        // After it was closed, and after it was committed.
        for later in [10, 60] {
            let name = blockframe::base::calendar::rfc3339_seconds(BORN + 100 * number + later);
            let found = walk(&live, &format!(".blockframe/snapshots/{name}/file")).unwrap();
            let handle = live.open(found.node, READ).unwrap().handle;
            assert_eq!(&read(&live, handle).unwrap(), bytes, "{name}");
            live.release(handle);
        }
    }
    assert_eq!(class(walk(&live, ".blockframe/snapshots/2026-11-20T12:16:40Z/file")), ErrorClass::NotFound);
    assert!(names(&live, snapshots).contains(&b"2026-11-20T12:00:00Z".to_vec()));
    writeback.stop();
}

#[test]
fn a_copy_out_of_a_view_brings_the_old_bytes_back() {
    let home = Home::new();
    fs::write(home.source().join("file"), content(2_500_000, 1)).unwrap();
    home.commit(BORN + 1);
    let live = home.live();
    let old = walk(&live, ".blockframe/snapshots/2026-11-20T12:00:01Z/tree/file").unwrap();
    let from = live.open(old.node, READ).unwrap().handle;
    let (_, made) = live.create(Caller::default(), Node::ROOT, b"copy", 0o644, WRITE).unwrap();
    assert_eq!(live.copy_range(from, 100, made.handle, 50, 1_000_000).unwrap(), 1_000_000);
    assert_eq!(live.copy_range(from, 1_000_100, made.handle, 1_000_050, 1 << 40).unwrap(), 1_499_900);
    assert_eq!(live.copy_range(from, 2_500_000, made.handle, 0, 10).unwrap(), 0);
    let bytes = read(&live, made.handle).unwrap();
    assert!(bytes[..50] == [0; 50] && bytes[50..] == content(2_500_000, 1)[100..]);
    assert_eq!(class(live.copy_range(made.handle, 0, from, 0, 10)), ErrorClass::ReadOnly);
    live.release(made.handle);
    live.release(from);
}

#[test]
fn damaged_files_are_linked_by_their_paths() {
    let home = Home::new();
    let source = home.source();
    let long = "d".repeat(200);
    fs::create_dir_all(source.join(&long).join("e".repeat(250))).unwrap();
    fs::create_dir(source.join("at 12:30")).unwrap();
    let paths = [
        PathBuf::from("100%"),
        PathBuf::from("at 12:30/file"),
        PathBuf::from(OsStr::from_bytes(b"at 12:30/\xff")),
        PathBuf::from(&long).join("e".repeat(250)).join("f".repeat(255)),
        PathBuf::from(&long).join("e".repeat(250)).join("g".repeat(255)),
    ];
    for (seed, path) in paths.iter().enumerate() {
        fs::write(source.join(path), content(15_000, seed as u64)).unwrap();
    }
    fs::write(source.join("whole"), content(15_000, 99)).unwrap();
    home.commit(BORN + 1);
    let mount = home.private();
    let damaged = walk(&mount, ".blockframe/damaged").unwrap();
    assert_eq!((damaged.permissions, names(&mount, damaged.node).len()), (0o550, 0));

    for path in &paths {
        let file = walk(&mount, &format!("tree/{}", path.parent().unwrap().display())).unwrap();
        let file = mount.lookup(file.node, path.file_name().unwrap().as_bytes()).unwrap();
        let object = mount.extended_attribute(file.node, b"user.blockframe.object").unwrap();
        damage(&home.dir.path().join(OsStr::from_bytes(&object)));
    }
    scrub(&home);

    let links = names(&mount, damaged.node);
    assert_eq!(links.len(), paths.len());
    assert!(links.contains(&b"tree:100%25".to_vec()) && links.contains(&b"tree:at 12%3A30:\xff".to_vec()), "{links:?}");
    let mut targets = Vec::new();
    for name in &links {
        assert!(name.len() <= 255);
        let link = mount.lookup(damaged.node, name).unwrap();
        let target = mount.read_link(link.node).unwrap();
        assert_eq!((link.kind, link.size), (NodeKind::Symlink, target.len() as u64));
        targets.push(target);
    }
    targets.sort();
    let mut expected: Vec<Vec<u8>> =
        paths.iter().map(|path| [&b"../../tree/"[..], path.as_os_str().as_bytes()].concat()).collect();
    expected.sort();
    assert_eq!(targets, expected);
    // A listing goes on behind any of its names.
    for (index, name) in links.iter().enumerate() {
        let mut behind = 0;
        let mut count = |_: blockframe_api::DirectoryEntry<'_>| {
            behind += 1;
            true
        };
        mount.read_directory(damaged.node, Some(name), &mut count).unwrap();
        assert_eq!(behind, links.len() - index - 1);
    }
    for missing in ["tree:whole", "tree/whole", "tree", "100%", "%~", ""] {
        assert_eq!(class(mount.lookup(damaged.node, missing.as_bytes())), ErrorClass::NotFound, "{missing}");
    }
}

#[test]
fn damage_that_a_read_meets_shows_until_the_next_verification() {
    let home = Home::new();
    fs::write(home.source().join("file"), content(15_000, 1)).unwrap();
    home.commit(BORN + 1);
    let mount = home.private();
    let damaged = walk(&mount, ".blockframe/damaged").unwrap().node;
    let file = walk(&mount, "tree/file").unwrap();
    let object = mount.extended_attribute(file.node, b"user.blockframe.object").unwrap();
    let object = String::from_utf8(object).unwrap().parse().unwrap();
    home.log.set_verified(&object, at(BORN + 5), Verdict::Healthy).unwrap();
    let mut event = Event::new(at(BORN + 4), EventKind::HealFailed, "data.dat", "of before the verification");
    event.object = Some(object.clone());
    home.log.record(event.clone());
    event.kind = EventKind::Healed;
    event.seconds = BORN + 9;
    home.log.record(event.clone());
    assert!(names(&mount, damaged).is_empty());
    event.kind = EventKind::HealFailed;
    home.log.record(event);
    assert_eq!(names(&mount, damaged), [b"tree:file"]);
    home.log.set_verified(&object, at(BORN + 10), Verdict::Healthy).unwrap();
    assert!(names(&mount, damaged).is_empty());
    assert_eq!(class(mount.lookup(damaged, b"tree:file")), ErrorClass::NotFound);
}

/// Breaks every shard of an object, beyond what can be healed.
fn damage(object: &std::path::Path) {
    for file in files_below(object).into_keys().filter(|path| path.extension().is_some_and(|end| end == "dat")) {
        let path = object.join(file);
        let mut bytes = fs::read(&path).unwrap();
        bytes.iter_mut().for_each(|byte| *byte ^= 0x55);
        fs::write(&path, bytes).unwrap();
    }
}

/// Verifies everything, as the daemon does in the background.
fn scrub(home: &Home) {
    let ledger = Arc::new(CatalogLedger::new(home.catalog.clone(), home.log.clone()));
    let store = Arc::new(LocalStore::open(home.dir.path()).unwrap());
    let archive = Archive::open(store, home.clock.clone(), home.log.clone()).unwrap();
    let load = Arc::new(LatencyGauge::default());
    let stop = Arc::new(StopSignal::default());
    let scrubber = Scrubber::new(archive, ledger, ScrubOptions::default(), stop, load);
    let watch = Watch { progress: &|_| {}, stop: &|| false, takes_requests: false };
    assert!(matches!(scrubber.run_pass(PassScope::Everything, &watch).unwrap(), PassEnd::Finished(_)));
}

/// A change of names, by numbers that choose among what is there.
#[derive(Debug, Clone)]
enum Change {
    Make(usize, usize, u8),
    Link(usize, usize, usize),
    Remove(usize),
    Rename(usize, usize, usize),
    Permissions(usize, u16),
}

const NAMES: [&[u8]; 5] = [b"a", b"b", b"with space", b"\xff\xfe", &[b'n'; 255]];

fn change() -> impl Strategy<Value = Change> {
    let number = any::<usize>;
    prop_oneof![
        4 => (number(), number(), any::<u8>()).prop_map(|(place, name, kind)| Change::Make(place, name, kind)),
        1 => (number(), number(), number()).prop_map(|(node, place, name)| Change::Link(node, place, name)),
        2 => number().prop_map(Change::Remove),
        2 => (number(), number(), number()).prop_map(|(from, place, name)| Change::Rename(from, place, name)),
        1 => (number(), 0..0o1000u16).prop_map(|(node, bits)| Change::Permissions(node, bits)),
    ]
}

/// The tree as a map: a path to the number of a thing, and what each thing is.
#[derive(Debug, Clone, Default)]
struct Model {
    names: BTreeMap<Vec<u8>, usize>,
    things: Vec<(NodeKind, u16, Vec<u8>)>,
}

impl Model {
    fn tree(&self) -> Tree {
        let links = |thing| self.names.values().filter(|other| **other == thing).count() as u32;
        let shown = |(path, thing): (&Vec<u8>, &usize)| {
            let (kind, permissions, bytes) = self.things[*thing].clone();
            let links = if kind == NodeKind::Directory { 0 } else { links(*thing) };
            (path.clone(), (kind, permissions, links, bytes))
        };
        self.names.iter().map(shown).collect()
    }

    fn path(&self, number: usize) -> Option<Vec<u8>> {
        let count = self.names.len();
        (count > 0).then(|| self.names.keys().nth(number % count).unwrap().clone())
    }

    fn is_directory(&self, path: &[u8]) -> bool {
        path.is_empty() || self.names.get(path).is_some_and(|thing| self.things[*thing].0 == NodeKind::Directory)
    }

    /// A free place: a directory and a name in it.
    fn place(&self, directory: usize, name: usize) -> Option<(Vec<u8>, &'static [u8])> {
        let mut directories: Vec<Vec<u8>> = self.names.keys().filter(|path| self.is_directory(path)).cloned().collect();
        directories.push(Vec::new());
        let above = directories.swap_remove(directory % directories.len());
        let name = NAMES[name % NAMES.len()];
        (!self.names.contains_key(&join(&above, name))).then_some((above, name))
    }
}

fn join(above: &[u8], name: &[u8]) -> Vec<u8> {
    if above.is_empty() { name.to_vec() } else { [above, name].join(&b'/') }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(cut) => (&path[..cut], &path[cut + 1..]),
        None => (b"", path),
    }
}

fn find(vfs: &dyn Vfs, path: &[u8]) -> Node {
    let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
    names.fold(Node::ROOT, |node, name| vfs.lookup(node, name).unwrap().node)
}

/// Makes a change to both; false when it is not possible in this tree.
fn apply(vfs: &dyn Vfs, model: &mut Model, change: &Change) -> bool {
    let who = Caller::default();
    match *change {
        Change::Make(place, name, kind) => {
            let Some((above, name)) = model.place(place, name) else { return false };
            let target = vec![b't'; usize::from(kind)];
            let (what, thing) = match kind % 4 {
                0 | 1 => (NewNode::Directory, (NodeKind::Directory, 0o755, Vec::new())),
                2 => (NewNode::File, (NodeKind::File, 0o755, Vec::new())),
                _ => (NewNode::Symlink(&target), (NodeKind::Symlink, 0o777, target.clone())),
            };
            vfs.make(who, find(vfs, &above), name, 0o755, what).unwrap();
            model.things.push(thing);
            model.names.insert(join(&above, name), model.things.len() - 1);
        }
        Change::Link(node, place, name) => {
            let Some(path) = model.path(node).filter(|path| !model.is_directory(path)) else { return false };
            let Some((above, name)) = model.place(place, name) else { return false };
            vfs.link(find(vfs, &path), find(vfs, &above), name).unwrap();
            model.names.insert(join(&above, name), model.names[&path]);
        }
        Change::Remove(number) => {
            let Some(path) = model.path(number) else { return false };
            let (above, name) = split(&path);
            let above = find(vfs, above);
            if !model.is_directory(&path) {
                vfs.unlink(above, name).unwrap();
            } else if model.names.keys().any(|other| other.starts_with(&join(&path, b""))) {
                return false;
            } else {
                vfs.remove_directory(above, name).unwrap();
            }
            model.names.remove(&path);
        }
        Change::Rename(from, place, name) => {
            let Some(path) = model.path(from) else { return false };
            let Some((above, new_name)) = model.place(place, name) else { return false };
            if above == path || above.starts_with(&join(&path, b"")) {
                return false;
            }
            let (old_above, old_name) = split(&path);
            let mode = RenameMode::NoReplace;
            vfs.rename(find(vfs, old_above), old_name, find(vfs, &above), new_name, mode).unwrap();
            let moved: Vec<Vec<u8>> =
                model.names.keys().filter(|key| **key == path || key.starts_with(&join(&path, b""))).cloned().collect();
            for key in moved {
                let thing = model.names.remove(&key).unwrap();
                model.names.insert([&join(&above, new_name), &key[path.len()..]].concat(), thing);
            }
        }
        Change::Permissions(node, bits) => {
            let Some(path) = model.path(node) else { return false };
            let thing = &mut model.things[model.names[&path]];
            if thing.0 == NodeKind::Symlink {
                return false;
            }
            thing.1 = bits;
            let change = AttributeChange { permissions: Some(bits), ..AttributeChange::default() };
            vfs.set_attributes(who, find(vfs, &path), None, &change).unwrap();
        }
    }
    true
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_time_shows_the_tree_of_that_time(
        changes in proptest::collection::vec((change(), 1..3 * HOUR), 1..60),
    ) {
        let home = Home::new();
        let live = home.live();
        let mut model = Model::default();
        let mut now = BORN + 5;
        let mut past = vec![(now, model.tree())];
        for (change, later) in &changes {
            home.clock.set(now + later);
            if apply(&live, &mut model, change) {
                // States that a node has while its change waits to be written become one.
                live.inner().namespace().flush().unwrap();
                now += later;
                past.push((now, model.tree()));
            }
        }
        home.clock.set(now + 10);
        let snapshots = walk(&live, ".blockframe/snapshots").unwrap().node;
        for (index, (from, expected)) in past.iter().enumerate() {
            let until = past.get(index + 1).map_or(now + 10, |next| next.0 - 1);
            for moment in [*from, (from + until) / 2, until] {
                let name = blockframe::base::calendar::rfc3339_seconds(moment);
                let shown = live.lookup(snapshots, name.as_bytes()).unwrap();
                prop_assert_eq!(&tree(&live, shown.node), expected, "at {}", &name);
            }
            prop_assert_eq!(&tree(&home.at(*from), Node::ROOT), expected);
        }
        prop_assert_eq!(&tree(&live, Node::ROOT), &past.last().unwrap().1);

        // What stood at a whole hour, and ended, stands in one of the views that are listed.
        let listed = names(&live, snapshots);
        prop_assert!(listed.is_sorted());
        let mut shown = std::collections::BTreeSet::new();
        for name in &listed {
            shown.extend(tree(&live, live.lookup(snapshots, name).unwrap().node).into_keys());
        }
        for hour in (BORN..now).step_by(HOUR as usize) {
            let stood = past.iter().rev().find(|(from, _)| *from <= hour).map(|(_, tree)| tree.keys());
            for path in stood.into_iter().flatten().filter(|path| !model.names.contains_key(*path)) {
                prop_assert!(shown.contains(path), "{:?} of hour {hour} is in no listed view", path);
            }
        }
    }
}

/// Runs a program; what it wrote, if it succeeded.
fn run(program: &str, arguments: &[&std::path::Path]) -> Result<Vec<u8>, String> {
    let output = std::process::Command::new(program).args(arguments).output().unwrap();
    if output.status.success() { Ok(output.stdout) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

#[test]
fn programs_use_the_hidden_directory_of_a_real_mount() {
    if !std::path::Path::new("/dev/fuse").exists() {
        eprintln!("skipped: there is no /dev/fuse here");
        return;
    }
    let home = Home::new();
    let source = home.source();
    fs::create_dir(source.join("letters")).unwrap();
    fs::write(source.join("letters/one"), content(300_000, 1)).unwrap();
    fs::write(source.join("letters/\u{e4}"), content(500, 2)).unwrap();
    home.commit(BORN + 1);
    fs::write(source.join("letters/one"), content(10, 3)).unwrap();
    home.commit(BORN + HOUR);
    home.clock.set(BORN + 2 * HOUR);
    let point = tempfile::tempdir().unwrap();
    let top = point.path();
    let mounted =
        blockframe_fuse::spawn(Arc::new(home.live()), top, &blockframe_fuse::MountOptions::new("views")).unwrap();
    let then = top.join(".blockframe/snapshots/2026-11-20T12:00:01Z/tree");

    assert_eq!(run("ls", &["-A".as_ref(), top]).unwrap(), b"tree\n");
    assert_eq!(run("find", &[top, "-name".as_ref(), ".blockframe".as_ref()]).unwrap(), b"");
    let listed = run("ls", &["-A".as_ref(), &top.join(".blockframe")]).unwrap();
    assert_eq!(listed, b"README.txt\ndamaged\nsnapshots\n");
    let snapshots = run("ls", &["-l".as_ref(), &top.join(".blockframe/snapshots")]).unwrap();
    assert!(String::from_utf8(snapshots).unwrap().contains("2026-11-20T12:"));
    assert!(fs::read_to_string(top.join(".blockframe/README.txt")).unwrap().contains("damaged/"));

    // Old and new content of one file, mixed: neither is taken for the other.
    for _ in 0..2 {
        assert_eq!(fs::read(then.join("letters/one")).unwrap(), content(300_000, 1));
        assert_eq!(fs::read(top.join("tree/letters/one")).unwrap(), content(10, 3));
    }
    run("cp", &["-a".as_ref(), &then.join("letters"), &top.join("restored")]).unwrap();
    run("diff", &["-r".as_ref(), &then.join("letters"), &top.join("restored")]).unwrap();
    assert_eq!(fs::read(top.join("restored/one")).unwrap(), content(300_000, 1));

    let refused = |outcome: std::io::Result<()>| outcome.unwrap_err().raw_os_error().unwrap();
    let code = |errno: rustix::io::Errno| errno.raw_os_error();
    assert_eq!(refused(fs::write(then.join("letters/one"), b"x")), code(rustix::io::Errno::ROFS));
    assert_eq!(refused(fs::create_dir(then.join("new"))), code(rustix::io::Errno::ROFS));
    assert_eq!(refused(fs::remove_file(then.join("letters/one"))), code(rustix::io::Errno::ROFS));
    assert_eq!(refused(fs::rename(then.join("letters"), top.join("moved"))), code(rustix::io::Errno::ROFS));
    assert_eq!(refused(fs::create_dir(top.join(".blockframe"))), code(rustix::io::Errno::EXIST));
    assert_eq!(refused(fs::hard_link(then.join("letters/one"), top.join("x"))), code(rustix::io::Errno::ACCESS));
    assert!(run("ls", &[&top.join(".blockframe/snapshots/2027-01-01")]).is_err());

    run("rm", &["-r".as_ref(), &top.join("tree"), &top.join("restored")]).unwrap();
    assert_eq!(fs::read_dir(top).unwrap().count(), 0);
    assert_eq!(fs::read(then.join("letters/one")).unwrap(), content(300_000, 1));
    mounted.unmount(std::time::Duration::from_secs(10)).unwrap();
    mounted.wait().unwrap();
}
