//! Tests of the catalog's promises, over a real directory.

mod damage;
mod groups;
mod history;
mod namespace;
mod objects;
mod removal;

use super::*;
use crate::archive::{Archive, Event, EventSink};
use crate::base::{ArchiveId, Clock, Digest, Timestamp};
use crate::format::{ArchiveDescriptor, BlockKey, Entry, FileContent, NodeBody, NodeMeta, ObjectKind, Profile};
use crate::store::LocalStore;
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(Debug)]
struct FixedClock;

const NOW: Timestamp = Timestamp { seconds: 1_700_000_000, nanoseconds: 1 };

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        NOW
    }
}

#[derive(Debug, Default)]
struct Events(Mutex<Vec<Event>>);

impl EventSink for Events {
    fn record(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

/// A store and a home, in one temporary directory.
struct Place {
    directory: tempfile::TempDir,
    events: Arc<Events>,
}

/// Everything below the root: path to node.
type Tree = BTreeMap<Vec<u8>, Inode>;

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let place = Self { directory, events: Arc::default() };
        std::fs::create_dir_all(place.store()).unwrap();
        std::fs::create_dir_all(place.home()).unwrap();
        let store = Arc::new(LocalStore::open(&place.store()).unwrap());
        let descriptor = ArchiveDescriptor::new(Profile::Compact, ArchiveId::random(), NOW);
        Archive::create(store, descriptor, "here".into()).unwrap();
        Catalog::create(&place.home(), &place.archive()).unwrap();
        place
    }

    /// The same bytes in another directory.
    fn copy(&self) -> Self {
        let directory = tempfile::tempdir().unwrap();
        copy_tree(self.directory.path(), directory.path());
        Self { directory, events: Arc::default() }
    }

    fn store(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    fn local(&self, name: &str) -> PathBuf {
        self.home().join(".blockframe").join(name)
    }

    fn journal_files(&self) -> Vec<PathBuf> {
        let directory = self.store().join(".blockframe/catalog");
        let mut files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    fn journal(&self) -> PathBuf {
        self.journal_files().into_iter().find(|path| path.to_string_lossy().contains("journal-")).unwrap()
    }

    fn archive(&self) -> Arc<Archive> {
        let store = Arc::new(LocalStore::open(&self.store()).unwrap());
        Arc::new(Archive::open(store, Arc::new(FixedClock), self.events.clone()).unwrap())
    }

    fn catalog(&self) -> Catalog {
        Catalog::open(&self.home(), &self.archive()).unwrap()
    }

    fn commit(&self, entries: &[Entry]) -> CatalogResult<CommitSummary> {
        let writer = self.catalog().writer()?;
        let summary = writer.commit_entries(&mut entries.iter().cloned().map(Ok))?;
        writer.finish()?;
        Ok(summary)
    }

    /// Records an object that holds these contents, one after the other.
    fn store_contents(&self, contents: &[&[u8]]) {
        let writer = self.catalog().writer().unwrap();
        writer.add_object(&object(contents)).unwrap();
        writer.finish().unwrap();
    }

    fn lose_database(&self) {
        for name in ["catalog.db", "catalog.seal", "catalog.db-journal", "catalog.db-wal", "catalog.db-shm"] {
            let _ = std::fs::remove_file(self.local(name));
        }
    }

    fn events(&self) -> usize {
        self.events.0.lock().unwrap().len()
    }
}

fn copy_tree(from: &Path, to: &Path) {
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

fn object(contents: &[&[u8]]) -> NewObject {
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

fn path(text: impl Into<Vec<u8>>) -> EntryPath {
    EntryPath::new(text).unwrap()
}

fn meta(number: i64) -> NodeMeta {
    let time = Timestamp { seconds: number, nanoseconds: 3 };
    NodeMeta { permissions: 0o640, user: 7, group: 8, modified: time, changed: time, ..NodeMeta::default() }
}

fn file(at: impl Into<Vec<u8>>, content: &[u8]) -> Entry {
    let body = NodeBody::File(FileContent { size: content.len() as u64, hash: Digest::of(content), extents: None });
    Entry::Node { path: path(at), meta: meta(1), body }
}

fn directory(at: impl Into<Vec<u8>>) -> Entry {
    Entry::Node { path: path(at), meta: meta(2), body: NodeBody::Directory }
}

fn link(at: &str, target: &str) -> Entry {
    Entry::HardLink { path: path(at), target: path(target) }
}

/// The whole tree; checks on the way that every question gives the same answer.
fn tree(catalog: &Catalog) -> CatalogResult<Tree> {
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
