//! The tests that hold for every archive: as `sealed` for an encrypted one.

mod damage;
mod groups;
mod history;
mod namespace;
mod objects;
mod removal;

pub(super) use super::super::*;
use crate::archive::{Archive, Event, EventSink};
use crate::base::{ArchiveId, Clock, Digest, Secret, Timestamp};
use crate::codec::seal::CipherSuite;
use crate::format::{ArchiveDescriptor, BlockKey, Entry, FileContent, NodeBody, NodeMeta, ObjectKind, Profile};
use crate::keys::{ArchiveKeys, Epoch};
use crate::store::LocalStore;
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(Debug)]
pub(super) struct FixedClock;

pub(super) const NOW: Timestamp = Timestamp { seconds: 1_700_000_000, nanoseconds: 1 };

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        NOW
    }
}

#[derive(Debug, Default)]
pub(super) struct Events(Mutex<Vec<Event>>);

impl EventSink for Events {
    fn record(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

/// Whether this is the suite of encrypted archives.
pub(super) fn encrypted() -> bool {
    module_path!().ends_with("sealed")
}

/// The keys of every encrypted archive here.
pub(super) fn keys(archive: ArchiveId) -> Arc<ArchiveKeys> {
    let secret = |byte| Secret::filled_by(|bytes| bytes.fill(byte));
    ArchiveKeys::new(archive, secret(1), vec![(Epoch::FIRST, secret(2))]).unwrap()
}

/// Opens the archive in a directory, with its keys if it has some.
pub(super) fn open_archive(store: &Path, events: Arc<Events>) -> Archive {
    let store = Arc::new(LocalStore::open(store).unwrap());
    let archive = Archive::open(store, Arc::new(FixedClock), events).unwrap();
    if archive.is_encrypted() { archive.unlocked(keys(archive.descriptor().id)) } else { archive }
}

/// A store and a home, in one temporary directory.
pub(super) struct Place {
    pub(in crate::catalog::tests) directory: tempfile::TempDir,
    events: Arc<Events>,
}

/// Everything below the root: path to node.
pub(super) type Tree = BTreeMap<Vec<u8>, Inode>;

impl Place {
    pub(in crate::catalog::tests) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let place = Self { directory, events: Arc::default() };
        std::fs::create_dir_all(place.store()).unwrap();
        std::fs::create_dir_all(place.home()).unwrap();
        let store = Arc::new(LocalStore::open(&place.store()).unwrap());
        let mut descriptor = ArchiveDescriptor::new(Profile::Compact, ArchiveId::random(), NOW);
        descriptor.encryption = encrypted().then_some(CipherSuite::Aes256Gcm);
        Archive::create(store, descriptor, "here".into()).unwrap();
        Catalog::create(&place.home(), &place.archive()).unwrap();
        place
    }

    /// The same bytes in another directory.
    pub(in crate::catalog::tests) fn copy(&self) -> Self {
        let directory = tempfile::tempdir().unwrap();
        copy_tree(self.directory.path(), directory.path());
        Self { directory, events: Arc::default() }
    }

    pub(in crate::catalog::tests) fn store(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    pub(in crate::catalog::tests) fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    pub(in crate::catalog::tests) fn local(&self, name: &str) -> PathBuf {
        self.home().join(".blockframe").join(name)
    }

    pub(in crate::catalog::tests) fn journal_files(&self) -> Vec<PathBuf> {
        let directory = self.store().join(".blockframe/catalog");
        let mut files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    pub(in crate::catalog::tests) fn journal(&self) -> PathBuf {
        self.journal_files().into_iter().find(|path| path.to_string_lossy().contains("journal-")).unwrap()
    }

    pub(in crate::catalog::tests) fn archive(&self) -> Arc<Archive> {
        Arc::new(open_archive(&self.store(), self.events.clone()))
    }

    pub(in crate::catalog::tests) fn catalog(&self) -> Catalog {
        Catalog::open(&self.home(), &self.archive()).unwrap()
    }

    pub(in crate::catalog::tests) fn commit(&self, entries: &[Entry]) -> CatalogResult<CommitSummary> {
        let writer = self.catalog().writer()?;
        let summary = writer.commit_entries(&mut entries.iter().cloned().map(Ok))?;
        writer.finish()?;
        Ok(summary)
    }

    /// Records an object that holds these contents, one after the other.
    pub(in crate::catalog::tests) fn store_contents(&self, contents: &[&[u8]]) {
        let writer = self.catalog().writer().unwrap();
        writer.add_object(&object(contents)).unwrap();
        writer.finish().unwrap();
    }

    pub(in crate::catalog::tests) fn lose_database(&self) {
        for name in ["catalog.db", "catalog.seal", "catalog.db-journal", "catalog.db-wal", "catalog.db-shm"] {
            let _ = std::fs::remove_file(self.local(name));
        }
    }

    pub(in crate::catalog::tests) fn events(&self) -> usize {
        self.events.0.lock().unwrap().len()
    }
}

pub(super) fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &to.join(entry.file_name()));
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

pub(super) fn object(contents: &[&[u8]]) -> NewObject {
    let all = contents.concat();
    let hash = Digest::of(&all);
    let mut offset = 0;
    let members = contents
        .iter()
        .map(|content| {
            let member = NewMember { hash: Digest::of(content), offset, size: content.len() as u64, source: None };
            offset += content.len() as u64;
            member
        })
        .collect();
    let record = ObjectRecord {
        reference: crate::archive::ObjectRef { name: ObjectName::new(b"bundle", &hash), root: Digest::of(b"root") },
        kind: ObjectKind::Bundle,
        key: BlockKey::plain(hash, all.len() as u64),
        tier: 1,
        stored_len: all.len() as u64 * 4,
    };
    NewObject { record, members }
}

pub(super) fn path(text: impl Into<Vec<u8>>) -> EntryPath {
    EntryPath::new(text).unwrap()
}

pub(super) fn meta(number: i64) -> NodeMeta {
    let time = Timestamp { seconds: number, nanoseconds: 3 };
    NodeMeta { permissions: 0o640, user: 7, group: 8, modified: time, changed: time, ..NodeMeta::default() }
}

pub(super) fn file(at: impl Into<Vec<u8>>, content: &[u8]) -> Entry {
    let body = NodeBody::File(FileContent { size: content.len() as u64, hash: Digest::of(content), extents: None });
    Entry::Node { path: path(at), meta: meta(1), body }
}

pub(super) fn directory(at: impl Into<Vec<u8>>) -> Entry {
    Entry::Node { path: path(at), meta: meta(2), body: NodeBody::Directory }
}

pub(super) fn link(at: &str, target: &str) -> Entry {
    Entry::HardLink { path: path(at), target: path(target) }
}

/// The whole tree; checks on the way that every question gives the same answer.
pub(super) fn tree(catalog: &Catalog) -> CatalogResult<Tree> {
    let mut tree = Tree::new();
    let mut open = vec![(EntryPath::root(), Node::ROOT)];
    while let Some((above, node)) = open.pop() {
        let mut names = Vec::new();
        catalog.list(node, None, &mut |name, inode| {
            names.push((name.to_vec(), inode));
            true
        })?;
        assert!(names.is_sorted_by(|(a, _), (b, _)| a < b));
        for (name, inode) in names {
            let path = above.join(&name).unwrap();
            assert_eq!(catalog.lookup(node, &name)?.as_ref(), Some(&inode));
            assert_eq!(catalog.resolve(&path)?.as_ref(), Some(&inode));
            assert!(catalog.paths_of(inode.node)?.contains(&path));
            if inode.is_directory() {
                assert_eq!(catalog.parent(inode.node)?, Some(node));
                open.push((path.clone(), inode.node));
            }
            tree.insert(path.as_bytes().to_vec(), inode);
        }
    }
    Ok(tree)
}
