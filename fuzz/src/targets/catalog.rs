//! The whole catalog over a journal that somebody else wrote: blocks, hashes and groups are as they should be, what the
//! records say is not.

use super::journal;
use blockframe::archive::Archive;
use blockframe::base::{ArchiveId, SystemClock, Timestamp};
use blockframe::catalog::{Catalog, CatalogResult, Inode, RebuildSource, rebuild};
use blockframe::format::binary::Reader;
use blockframe::format::journal::{ChainHead, FileKind, GroupEncoder, MAX_RECORD, Record, put_file_header};
use blockframe::format::{ArchiveDescriptor, Entry, EntryPath, FileContent, NodeBody, NodeMeta, Profile, layout};
use blockframe::store::{BlockStore, MemoryStore, StoreKey};
use blockframe_api::{Node, NodeKind};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// Nodes that are looked at.
const MAX_NODES: usize = 200;

/// The input is how many records the snapshot has, how many a group of the journal has, flags (1: the database is a
/// file, and what was opened is written and read again; 2: the files stand at a high place of the chain), and the
/// records, each after its length.
pub fn run(input: &[u8]) {
    let Some((&[snapshot, group, flags], payload)) = input.split_first_chunk() else { return };
    let mut reader = Reader::new("fuzz", payload);
    let mut records = Vec::new();
    while let Ok(bytes) = reader.bytes(MAX_RECORD) {
        records.extend(Record::from_bytes(bytes));
    }
    let (first, rest) = records.split_at(usize::from(snapshot).min(records.len()));
    let groups: Vec<&[Record]> = rest.chunks(usize::from(group).max(1)).collect();
    let start = if flags & 2 == 0 { 0 } else { u64::MAX >> (flags >> 4) };
    let archive = archive(first, &groups, start);
    let archive = Arc::new(archive);
    if flags & 1 == 0 {
        // Where no directory can be made, the database is in memory.
        if let Ok(catalog) = Catalog::open(Path::new("/dev/null"), &archive) {
            let _ = walk(&catalog);
        }
    } else if let Ok(home) = tempfile::tempdir() {
        written_again(home.path(), &archive);
    }
}

fn archive(snapshot: &[Record], groups: &[&[Record]], start: u64) -> Archive {
    let id = ArchiveId::from_bytes([0xa1; 16]);
    let store: Arc<dyn BlockStore> = Arc::new(MemoryStore::new("fuzz"));
    let descriptor = ArchiveDescriptor::new(Profile::Compact, id, Timestamp::default());
    let place = ChainHead { sequence: start, hash: ChainHead::START.hash };
    for (kind, groups) in [(FileKind::Snapshot, &[snapshot][..]), (FileKind::Journal, groups)] {
        let mut bytes = Vec::new();
        let mut at = put_file_header(kind, id, place, &mut bytes);
        for records in groups {
            let mut encoder = GroupEncoder::new(kind, at);
            for record in *records {
                assert!(encoder.push(record, &mut bytes).is_ok());
            }
            at = encoder.finish(&mut bytes);
        }
        let key = StoreKey::new(format!("{}/{}", layout::CATALOG_DIR, kind.file_name(start)));
        assert!(key.is_ok_and(|key| store.write(&key, &bytes).is_ok()));
    }
    let created = Archive::create(store.clone(), descriptor, "fuzz".into());
    assert!(created.is_ok(), "{created:?}");
    Archive::open(store, Arc::new(SystemClock), Arc::new(())).unwrap_or_else(|error| panic!("an archive: {error}"))
}

/// What a catalog says, with all that can be asked of it. It ends whatever the journal said.
fn walk(catalog: &Catalog) -> CatalogResult<Vec<(Vec<u8>, Inode)>> {
    let mut found: Vec<(Vec<u8>, Inode)> = Vec::new();
    let mut pending = vec![(EntryPath::root(), Node::ROOT)];
    let mut directories = BTreeSet::from([Node::ROOT.number()]);
    while let Some((path, directory)) = pending.pop() {
        let mut listed = Vec::new();
        catalog.list(directory, None, &mut |name, inode| {
            listed.push((name.to_vec(), inode));
            found.len() + listed.len() < MAX_NODES
        })?;
        for (name, inode) in listed {
            let Ok(path) = path.join(&name) else { continue };
            let _ = (catalog.paths_of(inode.node), catalog.parent(inode.node), catalog.states_of(inode.node));
            let _ = (catalog.names_at_place(directory, &name), inode.attributes());
            if let NodeBody::File(content) = &inode.body {
                let _ = catalog.place(&content.hash, content.size);
            }
            if inode.body.kind() == NodeKind::Directory {
                assert!(directories.insert(inode.node.number()), "directory {} has two names", inode.node.number());
                if found.len() < MAX_NODES {
                    pending.push((path.clone(), inode.node));
                }
            }
            found.push((path.as_bytes().to_vec(), inode));
        }
    }
    let mut objects = Vec::new();
    catalog.objects(None, &mut |object| {
        objects.push(object);
        objects.len() < MAX_NODES
    })?;
    for object in &objects {
        let _ = (catalog.nodes_in(object), catalog.past_versions_in(object));
    }
    for time in catalog.change_times(10)? {
        catalog.list_at(Node::ROOT, None, time, &mut |_, inode| {
            let _ = (catalog.inode_at(inode.node, time), catalog.parent_at(inode.node, time));
            true
        })?;
    }
    let _ = (catalog.totals(), catalog.history_usage(), catalog.history_begin(), catalog.unnamed_nodes());
    catalog.staged(&mut |_, _| {})?;
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// A catalog that opens can be changed, and says the same after its database was lost.
fn written_again(home: &Path, archive: &Arc<Archive>) {
    let Ok(catalog) = Catalog::open(home, archive) else { return };
    let Ok(before) = walk(&catalog) else { return };
    let path = EntryPath::new("zz-new").unwrap_or_default();
    let body = NodeBody::File(FileContent::empty());
    let entry = Entry::Node { path: path.clone(), meta: NodeMeta::default(), body };
    if let Ok(writer) = catalog.writer() {
        let _ = writer.commit_entries(&mut std::iter::once(Ok(entry)));
        let _ = writer.finish();
    }
    let Ok(changed) = walk(&catalog) else { return };
    assert!(changed.len() >= before.len().min(MAX_NODES));
    drop(catalog);
    if rebuild(home, archive, RebuildSource::Journal).is_err() {
        return;
    }
    let reopened = Catalog::open(home, archive).unwrap_or_else(|error| panic!("a catalog that was written: {error}"));
    let after = walk(&reopened).unwrap_or_else(|error| panic!("a catalog that was written: {error}"));
    if changed.len() < MAX_NODES {
        assert_eq!(after, changed);
    }
}

/// The golden journal in memory and on disk, and small trees.
pub fn seeds() -> Vec<Vec<u8>> {
    let golden = journal::payload_of(&journal::golden_records());
    let with = |head: [u8; 3], payload: &[u8]| [&head[..], payload].concat();
    let directory = |node| Record::Inode { node, meta: NodeMeta::default(), body: NodeBody::Directory };
    let file = |node| Record::Inode { node, meta: NodeMeta::default(), body: NodeBody::File(FileContent::empty()) };
    let name = |parent, name: &str, node| Record::Dirent { parent, name: name.into(), node };
    let tree = [directory(1), directory(2), file(3), name(1, "d", 2), name(2, "f", 3), name(1, "g", 3)];
    let later = [
        Record::Time(Timestamp { seconds: 1_700_000_000, nanoseconds: 5 }),
        Record::DirentRemoved { parent: 1, name: b"g".to_vec() },
        file(4),
        name(2, "h", 4),
    ];
    let all = journal::payload_of(&[&tree[..], &later].concat());
    let circle = [directory(1), directory(2), directory(3), name(1, "d", 2), name(2, "e", 3), name(3, "up", 2)];
    vec![
        with([6, 1, 0], &journal::payload_of(&circle)),
        with([4, 1, 1], &journal::payload_of(&circle)),
        with([4, 1, 1], &journal::payload_of(&[&tree[..4], &[name(2, "root", 1)]].concat())),
        with([255, 1, 0], &golden),
        with([255, 1, 1], &golden),
        with([0, 255, 0], &golden),
        with([tree.len() as u8, 4, 0], &all),
        with([tree.len() as u8, 4, 1], &all),
        with([tree.len() as u8, 4, 2], &all),
        with([tree.len() as u8, 4, 0x13], &all),
    ]
}
