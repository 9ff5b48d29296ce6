//! Staged contents become objects behind the back of whoever uses the mount:
//! at every moment the newest bytes are read, and none that was synced is lost.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod kit;

use blockframe::archive::{Archive, Event, EventKind};
use blockframe::base::SystemClock;
use blockframe::catalog::{Catalog, ObjectRecord};
use blockframe::format::{ArchiveDescriptor, BundleRule, EntryPath, ObjectKind};
use blockframe::staging::{StagingArea, StagingKeys, StagingLimits};
use blockframe::store::{
    BlockStore, Capabilities, Fault, FaultStore, ListedName, LocalStore, MemoryStore, Operation, StagedFile,
    StoreErrorKind, StoreKey, StoreResult, StoreSpace, StoredFile,
};
use blockframe::vfs::{
    ArchiveVfs, Drain, LiveVfs, SyncPolicy, VfsLimits, Writeback, WritebackOptions, drain_leftovers, has_leftovers,
};
use blockframe_api::{
    AllocateMode, AttributeChange, Caller, ErrorClass, Handle, Node, OpenHow, RenameMode, Vfs, VfsResult,
};
use kit::{Events, content, encoded_variants, scratch, tiny_descriptor, unlocked};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

const WRITE: OpenHow = OpenHow { read: true, write: true, truncate: false };
const READ: OpenHow = OpenHow { read: true, write: false, truncate: false };
const ANEW: OpenHow = OpenHow { read: false, write: true, truncate: true };
/// Nothing happens unless somebody asks for it.
const ASKED: WritebackOptions =
    WritebackOptions { delay: Duration::from_secs(1 << 30), gather: Duration::from_secs(1 << 30), compression: None };

/// What happens at the moment when an object is published.
type Hook = Box<dyn FnOnce() + Send>;

/// A store that lets something happen just before it publishes an object.
#[derive(Clone)]
struct HookStore {
    inner: Arc<dyn BlockStore>,
    hook: Arc<Mutex<Option<Hook>>>,
    published: Arc<AtomicUsize>,
}

impl std::fmt::Debug for HookStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HookStore").finish_non_exhaustive()
    }
}

impl HookStore {
    fn new(inner: Arc<dyn BlockStore>) -> Self {
        Self { inner, hook: Arc::default(), published: Arc::default() }
    }

    fn at_publish(&self, hook: impl FnOnce() + Send + 'static) {
        *self.hook.lock().unwrap() = Some(Box::new(hook));
    }
}

impl BlockStore for HookStore {
    fn label(&self) -> &str {
        self.inner.label()
    }
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
    fn write(&self, key: &StoreKey, bytes: &[u8]) -> StoreResult<()> {
        self.inner.write(key, bytes)
    }
    fn read(&self, key: &StoreKey, limit: u64) -> StoreResult<Vec<u8>> {
        self.inner.read(key, limit)
    }
    fn open(&self, key: &StoreKey) -> StoreResult<Arc<dyn StoredFile>> {
        self.inner.open(key)
    }
    fn create(&self, key: &StoreKey) -> StoreResult<Arc<dyn StagedFile>> {
        self.inner.create(key)
    }
    fn publish(&self, from: &StoreKey, to: &StoreKey) -> StoreResult<()> {
        let hook = self.hook.lock().unwrap().take();
        if let Some(hook) = hook {
            hook();
        }
        self.published.fetch_add(1, Ordering::SeqCst);
        self.inner.publish(from, to)
    }
    fn replace(&self, from: &StoreKey, to: &StoreKey) -> StoreResult<()> {
        self.inner.replace(from, to)
    }
    fn link(&self, from: &StoreKey, to: &StoreKey) -> StoreResult<()> {
        self.inner.link(from, to)
    }
    fn write_range(&self, key: &StoreKey, offset: u64, bytes: &[u8]) -> StoreResult<()> {
        self.inner.write_range(key, offset, bytes)
    }
    fn append(&self, key: &StoreKey, keep: u64, bytes: &[u8]) -> StoreResult<()> {
        self.inner.append(key, keep, bytes)
    }
    fn delete(&self, key: &StoreKey) -> StoreResult<()> {
        self.inner.delete(key)
    }
    fn delete_prefix(&self, prefix: &StoreKey) -> StoreResult<()> {
        self.inner.delete_prefix(prefix)
    }
    fn list(&self, prefix: Option<&StoreKey>) -> StoreResult<Vec<ListedName>> {
        self.inner.list(prefix)
    }
    fn space(&self) -> StoreResult<StoreSpace> {
        self.inner.space()
    }
    fn health_check(&self) -> StoreResult<()> {
        self.inner.health_check()
    }
}

/// A mounted archive without the mount.
struct Scene {
    store: HookStore,
    archive: Arc<Archive>,
    catalog: Arc<Catalog>,
    events: Arc<Events>,
    vfs: Arc<LiveVfs>,
    writeback: Arc<Writeback>,
    home: TempDir,
}

impl Scene {
    fn new(descriptor: ArchiveDescriptor, options: WritebackOptions) -> Self {
        Self::on(Arc::new(MemoryStore::new("memory")), descriptor, options)
    }

    fn on(store: Arc<dyn BlockStore>, descriptor: ArchiveDescriptor, options: WritebackOptions) -> Self {
        let home = scratch();
        Archive::create(store.clone(), descriptor, "test".into()).unwrap();
        let archive = Arc::new(unlocked(Archive::open(store.clone(), Arc::new(SystemClock), Arc::new(())).unwrap()));
        Catalog::create(home.path(), &archive).unwrap();
        Self::open(store, home, options)
    }

    fn open(store: Arc<dyn BlockStore>, home: TempDir, options: WritebackOptions) -> Self {
        let store = HookStore::new(store);
        let events = Arc::new(Events::default());
        let archive = Archive::open(Arc::new(store.clone()), Arc::new(SystemClock), events.clone()).unwrap();
        let archive = Arc::new(unlocked(archive));
        let catalog = Arc::new(Catalog::open(home.path(), &archive).unwrap());
        let limits = StagingLimits { quota: 1 << 30, reserve: 0 };
        let keys = StagingKeys::of_archive(&archive).unwrap();
        let staging = StagingArea::open(&home.path().join("staging"), limits, keys).unwrap();
        let (policy, limits) = (SyncPolicy::default(), VfsLimits::default());
        let vfs = LiveVfs::open(archive.clone(), catalog.clone(), Arc::new(()), staging, limits, policy).unwrap();
        let vfs = Arc::new(vfs);
        let writeback = Writeback::start(&vfs, options).unwrap();
        Self { store, archive, catalog, events, vfs, writeback, home }
    }

    /// Ends it, as a crash of the process would: nothing is written any more
    /// than what is on its way.
    fn close(self) -> (Arc<dyn BlockStore>, TempDir) {
        let Self { store, archive, catalog, vfs, writeback, home, .. } = self;
        writeback.stop();
        drop((vfs, writeback, catalog, archive));
        (store.inner, home)
    }

    fn reopened(self, options: WritebackOptions) -> Self {
        let (store, home) = self.close();
        Self::open(store, home, options)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Node {
        let node = write(&self.vfs, name, bytes);
        assert_eq!(self.read(name), bytes, "{name}");
        node
    }

    fn read(&self, name: &str) -> Vec<u8> {
        read(&*self.vfs, name).unwrap()
    }

    fn edit(&self, name: &str, offset: u64, bytes: &[u8]) {
        edit(&self.vfs, name, offset, bytes);
    }

    fn drain(&self) {
        self.writeback.drain(None, &mut |_| true).unwrap();
        assert_eq!(self.writeback.status().files, 0, "something is left in staging");
    }

    fn objects(&self) -> Vec<ObjectRecord> {
        self.vfs.namespace().flush().unwrap();
        let mut objects = Vec::new();
        let listed = self.catalog.objects(None, &mut |record| {
            objects.push(record);
            true
        });
        listed.unwrap();
        objects
    }

    /// Ends it, and looks at what is there through the read-only view.
    fn view(self) -> View {
        let (store, home) = self.close();
        View::of(store, home)
    }
}

/// The archive as a process that only reads finds it.
struct View {
    vfs: ArchiveVfs,
    catalog: Arc<Catalog>,
    _home: TempDir,
}

impl View {
    fn of(store: Arc<dyn BlockStore>, home: TempDir) -> Self {
        let archive = Arc::new(unlocked(Archive::open(store, Arc::new(SystemClock), Arc::new(())).unwrap()));
        let catalog = Arc::new(Catalog::open(home.path(), &archive).unwrap());
        let vfs = ArchiveVfs::new(archive, catalog.clone(), Arc::new(()), VfsLimits::default()).unwrap();
        Self { vfs, catalog, _home: home }
    }

    fn read(&self, name: &str) -> Vec<u8> {
        read(&self.vfs, name).unwrap()
    }
}

fn write(vfs: &LiveVfs, name: &str, bytes: &[u8]) -> Node {
    let (node, handle) = match vfs.lookup(Node::ROOT, name.as_bytes()) {
        Ok(found) => (found.node, vfs.open(found.node, ANEW).unwrap().handle),
        Err(_) => {
            let (made, opened) = vfs.create(Caller::default(), Node::ROOT, name.as_bytes(), 0o644, WRITE).unwrap();
            (made.node, opened.handle)
        }
    };
    for (index, piece) in bytes.chunks(10_000).enumerate() {
        vfs.write(handle, index as u64 * 10_000, piece, false).unwrap();
    }
    close(vfs, handle);
    node
}

fn close(vfs: &LiveVfs, handle: Handle) {
    vfs.flush(handle).unwrap();
    vfs.release(handle);
}

fn edit(vfs: &LiveVfs, name: &str, offset: u64, bytes: &[u8]) {
    let node = vfs.lookup(Node::ROOT, name.as_bytes()).unwrap().node;
    let handle = vfs.open(node, WRITE).unwrap().handle;
    vfs.write(handle, offset, bytes, false).unwrap();
    close(vfs, handle);
}

fn read(vfs: &dyn Vfs, name: &str) -> VfsResult<Vec<u8>> {
    let found = vfs.lookup(Node::ROOT, name.as_bytes())?;
    let handle = vfs.open(found.node, READ)?.handle;
    let bytes = read_open(vfs, handle);
    vfs.release(handle);
    let bytes = bytes?;
    assert_eq!(found.size, bytes.len() as u64, "{name}: the length that is told");
    Ok(bytes)
}

fn read_open(vfs: &dyn Vfs, handle: Handle) -> VfsResult<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let before = bytes.len();
        vfs.read(handle, before as u64, 30_000, &mut |more| bytes.extend_from_slice(more))?;
        if bytes.len() == before {
            return Ok(bytes);
        }
    }
}

fn patched(mut bytes: Vec<u8>, offset: usize, new: &[u8]) -> Vec<u8> {
    bytes.resize(bytes.len().max(offset + new.len()), 0);
    bytes[offset..offset + new.len()].copy_from_slice(new);
    bytes
}

fn roomy_descriptor() -> ArchiveDescriptor {
    ArchiveDescriptor { bundle: BundleRule { max_file: 1000, target: 60_000 }, ..tiny_descriptor() }
}

#[test]
fn files_of_all_sizes_are_committed_and_stay_what_they_were() {
    for descriptor in encoded_variants(&tiny_descriptor()) {
        let scene = Scene::new(descriptor, ASKED);
        let sizes = [0, 1, 511, 999, 1000, 1001, 9_999, 10_000, 19_999, 20_000, 59_999, 60_000, 100_001];
        let name = |size: usize| format!("f{size}");
        for size in sizes {
            scene.write(&name(size), &content(size, size as u64));
        }
        // An empty file has nothing to be staged.
        let staged = sizes.len() as u64 - 1;
        assert_eq!(scene.writeback.status().files, staged);
        scene.drain();
        assert_eq!(scene.writeback.status().files_committed, staged);
        for size in sizes {
            assert_eq!(scene.read(&name(size)), content(size, size as u64));
        }
        scene.vfs.namespace().flush().unwrap();
        let view = scene.view();
        assert!(!has_leftovers(&view.catalog).unwrap());
        for size in sizes {
            assert_eq!(view.read(&name(size)), content(size, size as u64), "{size}");
        }
    }
}

#[test]
fn room_in_staging_is_given_back() {
    let scene = Scene::new(tiny_descriptor(), ASKED);
    for index in 0..20 {
        scene.write(&format!("f{index}"), &content(7000, index));
    }
    assert!(scene.vfs.staging().usage().bytes >= 140_000);
    scene.drain();
    scene.vfs.namespace().flush().unwrap();
    // The thread that wrote the change gives back what it let go, a moment later.
    while scene.vfs.staging().usage().bytes > 0 {
        std::thread::yield_now();
    }
}

#[test]
fn small_files_share_objects() {
    let scene = Scene::new(roomy_descriptor(), ASKED);
    for index in 0..500u64 {
        scene.write(&format!("f{index}"), &content(300 + index as usize, index));
    }
    scene.drain();
    let objects = scene.objects();
    assert!(objects.len() < 20, "{} objects", objects.len());
    assert!(objects.iter().all(|object| object.kind == ObjectKind::Bundle));
    let view = scene.view();
    for index in 0..500u64 {
        assert_eq!(view.read(&format!("f{index}")), content(300 + index as usize, index));
    }
}

#[test]
fn a_small_file_alone_is_an_object_of_its_own() {
    let scene = Scene::new(roomy_descriptor(), ASKED);
    scene.write("alone", &content(500, 1));
    scene.drain();
    let objects = scene.objects();
    assert_eq!(objects.len(), 1);
    assert_eq!(objects[0].kind, ObjectKind::File);
    assert_eq!(scene.view().read("alone"), content(500, 1));
}

#[test]
fn without_being_asked_what_was_closed_is_committed_after_its_rest() {
    let options = WritebackOptions { delay: Duration::ZERO, gather: Duration::ZERO, compression: None };
    let scene = Scene::new(tiny_descriptor(), options);
    scene.write("small", &content(100, 1));
    scene.write("large", &content(30_000, 2));
    while scene.writeback.status().files > 0 {
        std::thread::yield_now();
    }
    assert_eq!((scene.read("small"), scene.read("large")), (content(100, 1), content(30_000, 2)));
}

#[test]
fn equal_contents_are_stored_once() {
    for descriptor in encoded_variants(&roomy_descriptor()) {
        let scene = Scene::new(descriptor, ASKED);
        for name in ["a", "b"] {
            scene.write(name, &content(600, 1));
            scene.write(&format!("large {name}"), &content(30_000, 2));
        }
        scene.drain();
        let stored = scene.objects().len();
        scene.write("c", &content(600, 1));
        scene.write("large c", &content(30_000, 2));
        scene.drain();
        assert_eq!(scene.objects().len(), stored);
        assert_eq!(stored, 2);
        let view = scene.view();
        for name in ["a", "b", "c"] {
            assert_eq!(view.read(name), content(600, 1));
            assert_eq!(view.read(&format!("large {name}")), content(30_000, 2));
        }
    }
}

#[test]
fn what_is_written_while_a_file_is_committed_stays_its_newest_content() {
    for len in [700, 30_000] {
        let scene = Scene::new(roomy_descriptor(), ASKED);
        let node = scene.write("f", &content(len, 1));
        scene.write("other", &content(len, 2));
        let reader = scene.vfs.open(node, READ).unwrap().handle;
        let vfs = Arc::clone(&scene.vfs);
        let newest = patched(content(len, 1), 300, b"written while it is committed");
        let expected = newest.clone();
        scene.store.at_publish(move || {
            edit(&vfs, "f", 300, b"written while it is committed");
            assert_eq!(read(&*vfs, "f").unwrap(), expected);
        });
        scene.drain();
        assert_eq!(read_open(&*scene.vfs, reader).unwrap(), newest, "{len}: an open handle");
        assert_eq!(scene.read("f"), newest, "{len}");
        scene.vfs.release(reader);
        assert_eq!(scene.view().read("f"), newest, "{len}: after a new opening");
    }
}

#[test]
fn what_is_written_and_not_published_yet_is_not_passed_over() {
    let scene = Scene::new(tiny_descriptor(), ASKED);
    let node = scene.write("f", &content(30_000, 1));
    let writer = scene.vfs.open(node, WRITE).unwrap().handle;
    let vfs = Arc::clone(&scene.vfs);
    scene.store.at_publish(move || vfs.write(writer, 5, b"in flight", false).unwrap());
    scene.writeback.drain(None, &mut |_| true).unwrap();
    let newest = patched(content(30_000, 1), 5, b"in flight");
    assert_eq!(scene.read("f"), newest);
    close(&scene.vfs, writer);
    scene.drain();
    assert_eq!(scene.view().read("f"), newest);
}

#[test]
fn a_file_that_is_open_is_committed_and_can_be_written_further() {
    let scene = Scene::new(tiny_descriptor(), ASKED);
    let node = scene.write("f", b"");
    let writer = scene.vfs.open(node, WRITE).unwrap().handle;
    let mut expected = Vec::new();
    for round in 0..3 {
        let piece = content(15_000, round);
        scene.vfs.write(writer, expected.len() as u64, &piece, false).unwrap();
        expected.extend_from_slice(&piece);
        scene.drain();
        assert_eq!(read_open(&*scene.vfs, writer).unwrap(), expected);
    }
    close(&scene.vfs, writer);
    scene.vfs.namespace().flush().unwrap();
    assert_eq!(scene.view().read("f"), expected);
}

#[test]
fn names_may_change_while_their_files_are_committed() {
    for len in [700, 30_000] {
        let scene = Scene::new(roomy_descriptor(), ASKED);
        for (seed, name) in ["moved", "removed", "replaced", "linked", "stays"].into_iter().enumerate() {
            scene.write(name, &content(len, seed as u64));
        }
        let vfs = Arc::clone(&scene.vfs);
        scene.store.at_publish(move || {
            vfs.rename(Node::ROOT, b"moved", Node::ROOT, b"moved here", RenameMode::NoReplace).unwrap();
            vfs.unlink(Node::ROOT, b"removed").unwrap();
            write(&vfs, "new", &content(len + 1, 77));
            vfs.rename(Node::ROOT, b"new", Node::ROOT, b"replaced", RenameMode::Replace).unwrap();
            let linked = vfs.lookup(Node::ROOT, b"linked").unwrap().node;
            vfs.link(linked, Node::ROOT, b"link").unwrap();
            vfs.unlink(Node::ROOT, b"linked").unwrap();
            let stays = vfs.lookup(Node::ROOT, b"stays").unwrap().node;
            let change = AttributeChange { permissions: Some(0o600), ..Default::default() };
            vfs.set_attributes(Caller::default(), stays, None, &change).unwrap();
        });
        // What came meanwhile is for the next time.
        scene.writeback.drain(None, &mut |_| true).unwrap();
        scene.drain();
        scene.vfs.namespace().flush().unwrap();
        let view = scene.view();
        assert_eq!(view.read("moved here"), content(len, 0));
        assert_eq!(view.read("replaced"), content(len + 1, 77));
        assert_eq!(view.read("link"), content(len, 3));
        assert_eq!(view.read("stays"), content(len, 4));
        assert_eq!(view.vfs.lookup(Node::ROOT, b"stays").unwrap().permissions, 0o600);
        for gone in ["moved", "removed", "new", "linked"] {
            assert!(view.vfs.lookup(Node::ROOT, gone.as_bytes()).is_err(), "{gone}");
        }
        assert!(!has_leftovers(&view.catalog).unwrap());
    }
}

#[test]
fn a_removed_file_that_is_open_is_read_to_its_end() {
    let scene = Scene::new(tiny_descriptor(), ASKED);
    let node = scene.write("f", &content(30_000, 1));
    let reader = scene.vfs.open(node, READ).unwrap().handle;
    let vfs = Arc::clone(&scene.vfs);
    scene.store.at_publish(move || vfs.unlink(Node::ROOT, b"f").unwrap());
    scene.writeback.drain(None, &mut |_| true).unwrap();
    assert_eq!(read_open(&*scene.vfs, reader).unwrap(), content(30_000, 1));
    scene.vfs.release(reader);
    scene.drain();
}

/// Where data is, as `seek` tells it.
fn data(vfs: &dyn Vfs, name: &str) -> Vec<(u64, u64)> {
    let node = vfs.lookup(Node::ROOT, name.as_bytes()).unwrap().node;
    let handle = vfs.open(node, READ).unwrap().handle;
    let mut found = Vec::new();
    let mut at = 0;
    while let Ok(start) = vfs.seek(handle, at, true) {
        at = vfs.seek(handle, start, false).unwrap();
        found.push((start, at));
    }
    vfs.release(handle);
    found
}

#[test]
fn holes_stay_holes_over_commits_and_edits() {
    for descriptor in encoded_variants(&tiny_descriptor()) {
        let scene = Scene::new(descriptor, ASKED);
        let node = scene.write("f", b"");
        let handle = scene.vfs.open(node, WRITE).unwrap().handle;
        scene.vfs.write(handle, 40_000, &content(10_000, 1), false).unwrap();
        scene.vfs.allocate(handle, 200_000, 1, AllocateMode::Zero).unwrap();
        close(&scene.vfs, handle);
        let mut expected = vec![0; 200_001];
        expected[40_000..50_000].copy_from_slice(&content(10_000, 1));
        assert_eq!(scene.read("f"), expected);
        scene.drain();
        assert_eq!(data(&*scene.vfs, "f"), [(40_000, 50_000)]);
        scene.edit("f", 100_000, b"island");
        let handle = scene.vfs.open(node, WRITE).unwrap().handle;
        scene.vfs.allocate(handle, 42_000, 3000, AllocateMode::Punch).unwrap();
        close(&scene.vfs, handle);
        expected[100_000..100_006].copy_from_slice(b"island");
        expected[42_000..45_000].fill(0);
        scene.drain();
        assert_eq!(scene.read("f"), expected);
        let holey = [(40_000, 42_000), (45_000, 50_000), (100_000, 100_006)];
        assert_eq!(data(&*scene.vfs, "f"), holey);
        let view = scene.view();
        assert_eq!(view.read("f"), expected);
        assert_eq!(data(&view.vfs, "f"), holey);
    }
}

#[test]
fn edits_of_committed_files_are_committed() {
    for descriptor in encoded_variants(&roomy_descriptor()) {
        let scene = Scene::new(descriptor, ASKED);
        let mut expected = Vec::new();
        for (index, len) in [400usize, 12_000, 70_000].into_iter().enumerate() {
            let name = format!("f{len}");
            scene.write(&name, &content(len, index as u64));
            expected.push((name, content(len, index as u64)));
        }
        scene.write("filler", &content(500, 99));
        scene.drain();
        for round in 0..3u64 {
            for (name, bytes) in &mut expected {
                let offset = bytes.len() / 2 + round as usize;
                let piece = content(50, 1000 + round);
                scene.edit(name, offset as u64, &piece);
                *bytes = patched(std::mem::take(bytes), offset, &piece);
                if round == 1 {
                    let node = scene.vfs.lookup(Node::ROOT, name.as_bytes()).unwrap().node;
                    let cut = bytes.len() as u64 - 150;
                    let change = AttributeChange { size: Some(cut), ..Default::default() };
                    scene.vfs.set_attributes(Caller::default(), node, None, &change).unwrap();
                    bytes.truncate(cut as usize);
                }
                assert_eq!(scene.read(name), *bytes);
            }
            scene.drain();
            for (name, bytes) in &expected {
                assert_eq!(scene.read(name), *bytes, "{name} after round {round}");
            }
        }
        scene.vfs.namespace().flush().unwrap();
        let view = scene.view();
        for (name, bytes) in &expected {
            assert_eq!(view.read(name), *bytes, "{name}");
        }
    }
}

#[test]
fn a_full_store_keeps_everything_in_staging_until_there_is_room() {
    let faults = Arc::new(FaultStore::new(Arc::new(MemoryStore::new("memory")), 1));
    let scene = Scene::on(faults.clone(), tiny_descriptor(), ASKED);
    for index in 0..5 {
        scene.write(&format!("f{index}"), &content(30_000, index));
    }
    scene.vfs.sync_all().unwrap();
    scene.vfs.namespace().flush().unwrap();
    assert!(scene.writeback.can_drain());
    faults.limit_space(Some(100_000));
    let error = scene.writeback.drain(None, &mut |_| true).unwrap_err();
    assert_eq!(error.class(), ErrorClass::NoSpace, "{error}");
    assert!(!scene.writeback.can_drain() && scene.writeback.status().store_is_full);
    let told = scene.events.0.lock().unwrap().iter().filter(|event| event.kind == EventKind::StoreSuspect).count();
    assert_eq!(told, 1);
    for index in 0..5 {
        assert_eq!(scene.read(&format!("f{index}")), content(30_000, index));
    }
    faults.heal();
    scene.drain();
    assert!(!scene.writeback.status().store_is_full);
    let view = scene.view();
    for index in 0..5 {
        assert_eq!(view.read(&format!("f{index}")), content(30_000, index));
    }
}

#[test]
fn an_edit_over_bytes_that_are_lost_stays_in_staging_and_keeps_nothing_else_up() {
    let directory = scratch();
    let store = Arc::new(LocalStore::open(directory.path()).unwrap());
    let scene = Scene::on(store, tiny_descriptor(), ASKED);
    scene.write("f", &content(30_000, 1));
    scene.drain();
    let object = directory.path().join(scene.objects()[0].reference.name.as_str());
    for file in kit::shard_files(&object) {
        std::fs::write(object.join(file), b"damaged").unwrap();
    }
    let scene = scene.reopened(ASKED);
    scene.edit("f", 10, b"edited");
    scene.write("whole", &content(5000, 2));
    let error = scene.writeback.drain(None, &mut |_| true).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Unrecoverable, "{error}");
    let status = scene.writeback.status();
    assert_eq!((status.files, status.files_committed, status.failing), (1, 1, 1));
    let told = scene.events.0.lock().unwrap().clone();
    let is_of_file = |event: &Event| event.kind == EventKind::Lost && event.detail.contains("stays in staging");
    assert!(told.iter().any(is_of_file), "{told:?}");
    // Nothing is left that could be committed, once the room of the other file was given back.
    while scene.writeback.can_drain() {
        std::thread::yield_now();
    }
    // What was written can be read, and is still there at the next mount.
    let scene = scene.reopened(ASKED);
    let node = scene.vfs.lookup(Node::ROOT, b"f").unwrap().node;
    let handle = scene.vfs.open(node, READ).unwrap().handle;
    let mut found = Vec::new();
    scene.vfs.read(handle, 10, 6, &mut |bytes| found.extend_from_slice(bytes)).unwrap();
    assert_eq!(found, b"edited");
    scene.vfs.release(handle);
    assert_eq!(scene.read("whole"), content(5000, 2));
    // Written anew it needs no lost bytes.
    scene.write("f", &content(30_000, 5));
    scene.drain();
    assert_eq!(scene.view().read("f"), content(30_000, 5));
}

#[test]
fn what_a_process_left_behind_is_committed_by_the_next_one() {
    for descriptor in encoded_variants(&roomy_descriptor()) {
        let scene = Scene::new(descriptor, ASKED);
        for index in 1..31 {
            scene.write(&format!("f{index}"), &content(index as usize * 100, index));
        }
        scene.vfs.sync_all().unwrap();
        let (store, home) = scene.close();
        let archive = Arc::new(unlocked(Archive::open(store.clone(), Arc::new(SystemClock), Arc::new(())).unwrap()));
        let catalog = Arc::new(Catalog::open(home.path(), &archive).unwrap());
        assert!(has_leftovers(&catalog).unwrap());
        let mut told = Vec::new();
        drain_leftovers(archive, catalog, Arc::new(()), &home.path().join("staging"), &mut |progress| {
            told.push(progress.files_left);
            true
        })
        .unwrap();
        assert_eq!((told.first(), told.last()), (Some(&30), Some(&0)));
        let view = View::of(store, home);
        assert!(!has_leftovers(&view.catalog).unwrap());
        for index in 1..31 {
            assert_eq!(view.read(&format!("f{index}")), content(index as usize * 100, index));
        }
    }
}

#[test]
fn a_drain_below_a_path_leaves_the_rest() {
    let scene = Scene::new(tiny_descriptor(), ASKED);
    let directory =
        scene.vfs.make(Caller::default(), Node::ROOT, b"d", 0o755, blockframe_api::NewNode::Directory).unwrap().node;
    for (parent, name) in [(directory, "in"), (Node::ROOT, "dd"), (Node::ROOT, "out")] {
        let opened = scene.vfs.create(Caller::default(), parent, name.as_bytes(), 0o644, WRITE).unwrap().1;
        scene.vfs.write(opened.handle, 0, &content(2000, name.len() as u64), false).unwrap();
        close(&scene.vfs, opened.handle);
    }
    let below = EntryPath::new(b"d".to_vec()).unwrap();
    scene.writeback.drain(Some(&below), &mut |_| true).unwrap();
    assert_eq!((scene.writeback.status().files, scene.writeback.status().files_committed), (2, 1));
    scene.drain();
}

#[test]
fn who_does_not_wait_any_more_is_let_go_and_an_end_is_told() {
    let scene = Scene::new(tiny_descriptor(), ASKED);
    scene.write("f", &content(30_000, 1));
    let rest = scene.writeback.rest();
    let error = scene.writeback.drain(None, &mut |_| false).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Interrupted);
    let writeback = Arc::clone(&scene.writeback);
    let mut stopped = false;
    let error = scene.writeback.drain(None, &mut |_| {
        if !std::mem::replace(&mut stopped, true) {
            writeback.stop();
        }
        true
    });
    assert_eq!(error.unwrap_err().class(), ErrorClass::Interrupted);
    drop(rest);
    assert_eq!(scene.read("f"), content(30_000, 1));
}

#[test]
fn while_it_rests_no_object_is_written() {
    let scene = Scene::new(
        tiny_descriptor(),
        WritebackOptions { delay: Duration::ZERO, gather: Duration::ZERO, compression: None },
    );
    let mut rest = Some(scene.writeback.rest());
    let before = scene.store.published.load(Ordering::SeqCst);
    scene.write("f", &content(30_000, 1));
    let published = Arc::clone(&scene.store.published);
    let mut calls = 0;
    let drained = scene.writeback.drain(None, &mut |progress| {
        calls += 1;
        if calls == 2 {
            assert_eq!((published.load(Ordering::SeqCst), progress.files_left), (before, 1));
            rest = None;
        }
        true
    });
    drained.unwrap();
    assert!(rest.is_none() && calls > 2);
    assert_eq!(scene.view().read("f"), content(30_000, 1));
}

#[test]
fn a_sync_with_that_policy_returns_when_the_object_is_there() {
    let scene = Scene::new(tiny_descriptor(), ASKED);
    let node = scene.write("f", &content(3000, 1));
    Drain::commit(&*scene.writeback, node).unwrap();
    assert_eq!((scene.objects().len(), scene.writeback.status().files), (1, 0));
}

#[test]
fn many_writers_and_a_busy_write_back_agree_on_every_byte() {
    let options = WritebackOptions { delay: Duration::ZERO, gather: Duration::ZERO, compression: None };
    let scene = Scene::new(roomy_descriptor(), options);
    let (vfs, writeback) = (&scene.vfs, &scene.writeback);
    let seed: u64 = std::env::var("BLOCKFRAME_SEED").map_or(1, |text| text.parse().unwrap());
    println!("BLOCKFRAME_SEED={seed}");
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            scope.spawn(move || {
                let name = |index: u64| format!("t{thread} f{index}");
                let mut model: Vec<Option<Vec<u8>>> = vec![None; 6];
                let mut state = seed * 4 + thread + 1;
                let mut dice = |limit: u64| {
                    state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    (state >> 33) % limit
                };
                for step in 0..150u64 {
                    if dice(12) == 0 {
                        writeback.drain(None, &mut |_| true).unwrap();
                    }
                    let index = dice(6);
                    let slot = &mut model[index as usize];
                    let name = name(index);
                    match (dice(6), &mut *slot) {
                        (0, Some(_)) => {
                            vfs.unlink(Node::ROOT, name.as_bytes()).unwrap();
                            *slot = None;
                        }
                        (1..=3, Some(bytes)) => {
                            let offset = dice(bytes.len() as u64 + 1);
                            let piece = content(dice(400) as usize + 1, step);
                            edit(vfs, &name, offset, &piece);
                            *bytes = patched(std::mem::take(bytes), offset as usize, &piece);
                        }
                        _ => {
                            let bytes = content([300, 900, 4000, 25_000][dice(4) as usize], step);
                            write(vfs, &name, &bytes);
                            *slot = Some(bytes);
                        }
                    }
                    let looked = dice(6);
                    let path = format!("t{thread} f{looked}");
                    match &model[looked as usize] {
                        Some(bytes) => {
                            let found = read(&**vfs, &path).unwrap();
                            let differs = found.iter().zip(bytes).position(|(one, other)| one != other);
                            let lens = (found.len(), bytes.len());
                            assert!(found == *bytes, "{path} at step {step}: {lens:?} bytes, differ at {differs:?}");
                        }
                        None => assert!(read(&**vfs, &path).is_err(), "{path} at step {step}"),
                    }
                }
            });
        }
    });
    let mut names = Vec::new();
    let listed = vfs.read_directory(Node::ROOT, None, &mut |entry| {
        names.push(String::from_utf8(entry.name.to_vec()).unwrap());
        true
    });
    listed.unwrap();
    let expected: Vec<_> = names.iter().map(|name| scene.read(name)).collect();
    scene.drain();
    scene.vfs.namespace().flush().unwrap();
    let view = scene.view();
    for (name, bytes) in names.iter().zip(expected) {
        assert!(view.read(name) == bytes, "{name}");
    }
    assert!(!has_leftovers(&view.catalog).unwrap());
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}

#[test]
fn a_store_that_stops_at_any_operation_of_a_drain_loses_nothing() {
    let begin = Arc::new(MemoryStore::new("memory"));
    let scene = Scene::on(begin.clone(), tiny_descriptor(), ASKED);
    let mut expected = Vec::new();
    for (index, len) in [0usize, 300, 700, 800, 12_000, 25_000].into_iter().enumerate() {
        expected.push((format!("f{len}"), content(len, index as u64)));
        scene.write(&expected[index].0, &expected[index].1);
    }
    scene.drain();
    for (name, bytes) in &mut expected[1..] {
        let offset = bytes.len() / 2;
        scene.edit(name, offset as u64, b"edited");
        *bytes = patched(std::mem::take(bytes), offset, b"edited");
    }
    for (index, len) in [500usize, 600, 15_000].into_iter().enumerate() {
        expected.push((format!("n{len}"), content(len, 50 + index as u64)));
        scene.write(&format!("n{len}"), &content(len, 50 + index as u64));
    }
    scene.vfs.sync_all().unwrap();
    let (_, begin_home) = scene.close();
    let mut finished = 0;
    for nth in 1.. {
        let memory = Arc::new(begin.fork());
        let home = scratch();
        copy(begin_home.path(), home.path());
        let faults = Arc::new(FaultStore::new(memory.clone(), nth));
        let scene = Scene::open(faults.clone(), home, ASKED);
        let rest = Fault::fail(StoreErrorKind::Io).on(&Operation::CHANGES);
        if nth % 2 == 0 {
            faults.inject(Fault::fail_after(StoreErrorKind::Io).on(&Operation::CHANGES).from_nth(nth / 2 + 1).times(1));
            faults.inject(rest.from_nth(nth / 2 + 2));
        } else {
            faults.inject(rest.from_nth(nth / 2 + 1));
        }
        let drained = scene.writeback.drain(None, &mut |_| true).is_ok() && scene.vfs.namespace().flush().is_ok();
        for (name, bytes) in &expected {
            assert!(scene.read(name) == *bytes, "operation {nth}: {name}, before the crash");
        }
        let (_, home) = scene.close();
        memory.crash(nth);
        let scene = Scene::open(Arc::new(memory.fork()), home, ASKED);
        for (name, bytes) in &expected {
            assert!(scene.read(name) == *bytes, "operation {nth}: {name}, after the crash");
        }
        scene.drain();
        scene.vfs.namespace().flush().unwrap();
        let view = scene.view();
        for (name, bytes) in &expected {
            assert!(view.read(name) == *bytes, "operation {nth}: {name}, committed after the crash");
        }
        finished = if drained { finished + 1 } else { 0 };
        if finished == 2 {
            println!("{} operations", nth / 2);
            assert!(nth > 100);
            break;
        }
    }
}
