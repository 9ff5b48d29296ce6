//! What the archive tests share: tiny archives in which a few kilobytes reach
//! every tier, and exact pictures of a directory's files.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

pub mod program;
pub mod view;

use blockframe::archive::{
    Archive, ContentSource, Event, EventSink, Object, ObjectPlan, ObjectRef, WriteControl, WrittenObject,
};
use blockframe::base::{ArchiveId, Secret, SystemClock, Timestamp};
use blockframe::codec::seal::CipherSuite;
use blockframe::format::{ArchiveDescriptor, BundleRule, ObjectKind, OuterCode, Profile, TierLayout, TierRule};
use blockframe::keys::{ArchiveKeys, Epoch};
use blockframe::store::{BlockStore, LocalStore};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// Collects events.
#[derive(Debug, Default)]
pub struct Events(pub Mutex<Vec<Event>>);

impl EventSink for Events {
    fn record(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

/// An archive in a temporary directory.
pub struct Fixture {
    pub dir: TempDir,
    pub store: Arc<dyn BlockStore>,
    pub archive: Archive,
    pub events: Arc<Events>,
}

/// Rules under which 60 KB are tier 4: tier 1 below 10,000 bytes, tier 2
/// below 20,000, tier 3 below 60,000.
pub fn tiny_descriptor() -> ArchiveDescriptor {
    let mut descriptor = ArchiveDescriptor::new(Profile::Classic, ArchiveId::random(), Timestamp::default());
    let row = |tier, below, layout, segment_size, k, m, outer| TierRule {
        tier,
        below,
        layout,
        segment_size,
        min_segment_size: segment_size,
        k,
        m,
        outer,
    };
    descriptor.tiers = vec![
        row(1, Some(10_000), TierLayout::Whole, 10_048, 1, 3, None),
        row(2, Some(20_000), TierLayout::Segments, 4096, 1, 3, None),
        row(3, Some(60_000), TierLayout::Blocks, 4096, 4, 2, None),
        row(4, None, TierLayout::Blocks, 4096, 4, 2, Some(OuterCode { k: 3, m: 1 })),
    ];
    descriptor.bundle = BundleRule { max_file: 1000, target: 9000 };
    descriptor
}

/// As [`tiny_descriptor`], with segments of several leaves: tier 3 alone, RS(4,2), 64 KiB segments.
pub fn leafy_descriptor() -> ArchiveDescriptor {
    let mut descriptor = tiny_descriptor();
    let rule = TierRule { segment_size: 65536, min_segment_size: 65536, ..descriptor.tiers[2] };
    descriptor.tiers = vec![TierRule { below: None, ..rule }];
    descriptor
}

impl Fixture {
    pub fn new(descriptor: ArchiveDescriptor) -> Self {
        let dir = scratch();
        let store: Arc<dyn BlockStore> = Arc::new(LocalStore::open(dir.path()).unwrap());
        Archive::create(store.clone(), descriptor, "test".into()).unwrap();
        Self::open(dir, store)
    }

    fn open(dir: TempDir, store: Arc<dyn BlockStore>) -> Self {
        let events = Arc::new(Events::default());
        let archive = unlocked(Archive::open(store.clone(), Arc::new(SystemClock), events.clone()).unwrap());
        Self { dir, store, archive, events }
    }

    /// The same archive with empty caches.
    pub fn reopened(self) -> Self {
        let store: Arc<dyn BlockStore> = Arc::new(LocalStore::open(self.dir.path()).unwrap());
        Self::open(self.dir, store)
    }

    pub fn put(&self, name: &str, content: &[u8]) -> WrittenObject {
        self.try_put(name, &content.to_vec()).unwrap()
    }

    pub fn try_put(
        &self,
        name: &str,
        content: &dyn ContentSource,
    ) -> blockframe::archive::ArchiveResult<WrittenObject> {
        let compression = self.archive.descriptor().compression;
        let plan = ObjectPlan { readable: name.into(), kind: ObjectKind::File, sequence: 1, entry: None, compression };
        let control = WriteControl { progress: &|_| {}, cancel: &AtomicBool::new(false) };
        self.archive.write_object(content, &plan, &control)
    }

    pub fn object(&self, reference: &ObjectRef) -> Arc<Object> {
        self.archive.object(reference).unwrap()
    }

    pub fn path(&self, reference: &ObjectRef) -> PathBuf {
        self.dir.path().join(reference.name.as_str())
    }
}

/// The archive with its keys, where it is encrypted.
pub fn unlocked(archive: Archive) -> Archive {
    if archive.is_encrypted() { archive.unlocked(test_keys(archive.descriptor().id)) } else { archive }
}

/// The keys of all encrypted archives of tests: one epoch.
pub fn test_keys(archive: ArchiveId) -> Arc<ArchiveKeys> {
    let secret = |byte| Secret::filled_by(|bytes: &mut [u8; 32]| bytes.fill(byte));
    ArchiveKeys::new(archive, secret(1), vec![(Epoch::FIRST, secret(2))]).unwrap()
}

/// The same rules for contents as they are, compressed, encrypted, and both.
pub fn encoded_variants(rules: &ArchiveDescriptor) -> Vec<ArchiveDescriptor> {
    let zstd = Some("zstd:1".parse().unwrap());
    let variants =
        [(None, None), (zstd, None), (None, Some(CipherSuite::Aes256Gcm)), (zstd, Some(CipherSuite::Chacha20Poly1305))];
    variants
        .into_iter()
        .map(|(compression, encryption)| ArchiveDescriptor {
            id: ArchiveId::random(),
            compression,
            encryption,
            ..rules.clone()
        })
        .collect()
}

/// Bytes of which about a half can be compressed away, the same for the same seed.
pub fn compressible(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = content(len, seed);
    bytes.chunks_mut(64).for_each(|chunk| chunk.iter_mut().skip(32).for_each(|byte| *byte = b'.'));
    bytes
}

/// A temporary directory in memory where there is such a place: the tests
/// sync thousands of times.
pub fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// Reference of an object that was just written.
pub fn reference(written: &WrittenObject) -> ObjectRef {
    ObjectRef { name: written.manifest.name.clone(), root: written.manifest.root() }
}

/// Bytes that are all different in a way, the same for the same seed.
pub fn content(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Every file below a directory with its bytes.
pub fn files_below(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut todo = vec![dir.to_path_buf()];
    while let Some(next) = todo.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else {
                files.insert(path.strip_prefix(dir).unwrap().to_path_buf(), std::fs::read(&path).unwrap());
            }
        }
    }
    files
}

/// The files of an object that hold shards.
pub fn shard_files(object: &Path) -> Vec<PathBuf> {
    let is_shard = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.ends_with(".dat") && !name.contains("tree")
    };
    files_below(object).into_keys().filter(is_shard).collect()
}
