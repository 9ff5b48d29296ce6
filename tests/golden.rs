//! The bytes on disk do not change: fixed values give the bytes under
//! `tests/golden/`, and those bytes give the values back. A difference is
//! either a bug or a new format version. `BLOCKFRAME_BLESS=1` rewrites the files.
#![allow(clippy::unwrap_used)]

use blockframe::base::{ArchiveId, ContentRange, Digest, ObjectName, Secret, StoreId, Timestamp};
use blockframe::format::binary::Reader;
use blockframe::format::journal::{
    BLOCK_LEN, Block, ChainHead, FileKind, GroupEncoder, ObjectFacts, Record, RecordAssembler, parse_file_header,
    put_file_header, put_sealed_header,
};
use blockframe::format::journal_seal::BlockSeal;
use blockframe::format::manifest::{BlockRoots, ManifestParts, WrittenContent};
use blockframe::format::{
    ArchiveDescriptor, BlockId, BlockKey, Compression, Entry, EntryPath, FileContent, FormatError, Geometry, Manifest,
    NodeBody, NodeMeta, ObjectKind, OuterCode, Profile, StagedContent, StagedExtent, StagedMap, StagingId,
    StoreDescriptor, TierLayout, TierRule,
};
use std::fs;
use std::path::Path;

fn check(name: &str, bytes: &[u8]) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("BLOCKFRAME_BLESS").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, bytes).unwrap();
    }
    let golden = fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let at = golden.iter().zip(bytes).position(|(a, b)| a != b).unwrap_or(golden.len().min(bytes.len()));
    assert!(
        golden == bytes,
        "{name} differs from byte {at} on: {:?}",
        String::from_utf8_lossy(&bytes[at..bytes.len().min(at + 80)])
    );
}

fn archive() -> ArchiveId {
    ArchiveId::from_bytes([0xa1; 16])
}

fn digest(number: u32) -> Digest {
    Digest::of(&number.to_le_bytes())
}

const TIME: Timestamp = Timestamp { seconds: 1_700_000_000, nanoseconds: 123_456_789 };

#[test]
fn store_descriptors_of_all_profiles() {
    for profile in Profile::ALL {
        let rules = ArchiveDescriptor::new(profile, archive(), TIME);
        let descriptor = StoreDescriptor::new(StoreId::from_bytes([0x51; 16]), "host-1".into(), rules);
        let bytes = descriptor.to_bytes().unwrap();
        check(&format!("store-{}-v1.json", profile.name()), &bytes);
        assert_eq!(StoreDescriptor::from_bytes(&bytes).unwrap(), descriptor);
    }
}

fn manifest(rule: TierRule, content_len: u64, entry: Option<Entry>) -> Manifest {
    manifest_of(rule, content_len, entry, Digest::of(b"golden"), None).unwrap()
}

fn manifest_of(
    rule: TierRule,
    content_len: u64,
    entry: Option<Entry>,
    hash: Digest,
    tree: Option<Vec<Digest>>,
) -> Result<Manifest, FormatError> {
    let geometry = Geometry::choose(rule, content_len).unwrap();
    let mut number = 0;
    let mut roots = |id: BlockId| {
        let shards = geometry.block(id).unwrap().shards();
        let digests = (0..shards).map(|_| {
            number += 1;
            digest(number)
        });
        BlockRoots::new(digests.collect())
    };
    let ids: Vec<BlockId> = geometry.block_ids().collect();
    let (data, outer): (Vec<_>, Vec<_>) = ids.into_iter().partition(|id| matches!(id, BlockId::Data(_)));
    let (blocks, outer) = (data.into_iter().map(&mut roots).collect(), outer.into_iter().map(&mut roots).collect());
    let parts = ManifestParts {
        archive: archive(),
        readable: b"holiday photo.jpg".to_vec(),
        kind: ObjectKind::File,
        sequence: 7,
        committed: TIME,
        entry,
    };
    let content = WrittenContent { hash, size: content_len, compression: Compression::None, tree };
    Manifest::new(parts, geometry, content, blocks, outer)
}

fn rule(tier: u8, layout: TierLayout, segment_size: u64, k: u16, m: u16, outer: Option<OuterCode>) -> TierRule {
    TierRule { tier, below: None, layout, segment_size, min_segment_size: segment_size, k, m, outer }
}

#[test]
fn manifests_of_all_layouts() {
    let entry = entries().remove(0);
    let outer = Some(OuterCode { k: 2, m: 1 });
    let cases = [
        ("manifest-tier1-v1.json", manifest(rule(1, TierLayout::Whole, 65536, 1, 3, None), 1000, Some(entry))),
        ("manifest-tier2-v1.json", manifest(rule(2, TierLayout::Segments, 65536, 1, 3, None), 100_000, None)),
        ("manifest-tier3-v1.json", manifest(rule(3, TierLayout::Blocks, 65536, 3, 2, None), 400_001, None)),
        ("manifest-tier4-v1.json", manifest(rule(4, TierLayout::Blocks, 16384, 2, 1, outer), 100_001, None)),
    ];
    for (name, manifest) in cases {
        let bytes = manifest.to_bytes().unwrap();
        check(name, &bytes);
        assert_eq!(Manifest::from_bytes(&bytes).unwrap(), manifest);
    }
}

/// Bytes, and the chaining values of their segments, for a manifest whose content tree can be checked.
fn content_with_tree(len: usize, segment_size: usize) -> (Vec<u8>, Vec<Digest>) {
    let bytes: Vec<u8> = (0..len).map(|at| (at * 31 % 251) as u8).collect();
    let mut leaves = Vec::new();
    blockframe::merkle::hash_leaves(&bytes, 0, len as u64, &mut leaves);
    let segments = leaves.chunks(segment_size / 16384).map(|leaves| blockframe::merkle::subtree(leaves).unwrap());
    (bytes, segments.map(Digest::new).collect())
}

#[test]
fn manifests_with_a_content_tree() {
    let (bytes, tree) = content_with_tree(400_001, 65536);
    let with =
        |tree| manifest_of(rule(3, TierLayout::Blocks, 65536, 3, 2, None), 400_001, None, Digest::of(&bytes), tree);
    let plain = with(None).unwrap();
    let with_tree = with(Some(tree.clone())).unwrap();
    let golden = with_tree.to_bytes().unwrap();
    check("manifest-tree-v2.json", &golden);
    assert_eq!(Manifest::from_bytes(&golden).unwrap(), with_tree);
    assert_eq!(Manifest::from_bytes(&golden).unwrap().facts().unwrap().content_tree(), Some(tree.as_slice()));
    assert_eq!(Manifest::from_bytes(&plain.to_bytes().unwrap()).unwrap().facts().unwrap().content_tree(), None);
    // A wrong tree is refused, in memory and in a file that is sealed.
    let mut wrong = tree.clone();
    wrong.swap(0, 1);
    assert!(with(Some(wrong)).is_err());
    assert!(with(Some(tree[1..].to_vec())).is_err());
    let text = String::from_utf8(golden).unwrap();
    for (from, to) in [
        (tree[2].to_hex(), tree[3].to_hex()),
        ("\"version\": 2".into(), "\"version\": 1".into()),
        ("\"version\": 2".into(), "\"version\": 3".into()),
        ("content_tree".into(), "content_free".into()),
    ] {
        assert!(text.contains(&from));
        assert!(Manifest::from_bytes(&resealed(text.replace(&from, &to))).is_err(), "{from} to {to}");
    }
    let text = String::from_utf8(plain.to_bytes().unwrap()).unwrap();
    let newer = resealed(text.replace("\"version\": 1", "\"version\": 2"));
    assert!(Manifest::from_bytes(&newer).is_err(), "version 2 without its member");
}

/// The document with a checksum that fits it.
fn resealed(mut text: String) -> Vec<u8> {
    let at = text.len() - "\"\n}\n".len() - 64;
    text.replace_range(at..at + 64, &"0".repeat(64));
    let digest = Digest::of(text.as_bytes()).to_hex();
    text.replace_range(at..at + 64, &digest);
    text.into_bytes()
}

/// One of each kind, with every optional part somewhere.
fn entries() -> Vec<Entry> {
    let node = |path: &str, body: NodeBody, born: Option<Timestamp>, xattrs: Vec<(Vec<u8>, Vec<u8>)>| Entry::Node {
        path: EntryPath::new(path).unwrap(),
        meta: NodeMeta {
            accessed: None,
            permissions: 0o4755,
            user: 1000,
            group: 100,
            modified: TIME,
            changed: Timestamp { seconds: TIME.seconds + 5, nanoseconds: 1 },
            born,
            xattrs,
        },
        body,
    };
    let born = Some(Timestamp { seconds: -1, nanoseconds: 999_999_999 });
    let xattrs = vec![(b"user.note".to_vec(), b"\x00\xff".to_vec()), (b"user.z".to_vec(), vec![])];
    let sparse = FileContent {
        size: 1 << 33,
        hash: digest(99),
        extents: Some(vec![ContentRange::between(4096, 8192), ContentRange::between(1 << 32, 1 << 33)]),
    };
    vec![
        node("a/file", NodeBody::File(FileContent { size: 300, hash: digest(1), extents: None }), born, xattrs),
        node("empty", NodeBody::File(FileContent::empty()), None, vec![]),
        node("sparse", NodeBody::File(sparse), None, vec![]),
        node("dir", NodeBody::Directory, born, vec![]),
        node("link", NodeBody::Symlink(b"../\xfftarget".to_vec()), None, vec![]),
        node("fifo", NodeBody::Fifo, None, vec![]),
        node("socket", NodeBody::Socket, None, vec![]),
        node("char", NodeBody::CharDevice(0x0501), None, vec![]),
        node("block", NodeBody::BlockDevice(0x0800), None, vec![]),
        Entry::HardLink { path: EntryPath::new("hard").unwrap(), target: EntryPath::new("a/file").unwrap() },
    ]
}

#[test]
fn access_times() {
    let accessed = Some(Timestamp { seconds: TIME.seconds - 1, nanoseconds: 5 });
    let meta = NodeMeta { permissions: 0o600, modified: TIME, changed: TIME, accessed, ..NodeMeta::default() };
    let body = NodeBody::File(FileContent { size: 5, hash: digest(5), extents: None });
    let entry = Entry::Node { path: EntryPath::new("read").unwrap(), meta, body };
    let mut bytes = Vec::new();
    entry.encode(&mut bytes);
    check("entry-accessed-v1.bin", &bytes);
    assert_eq!(Entry::decode(&mut Reader::new("golden", &bytes)).unwrap(), entry);
}

/// One of each type.
fn records() -> Vec<Record> {
    let facts = ObjectFacts {
        name: ObjectName::new(b"o", &digest(1)),
        root: digest(2),
        kind: ObjectKind::Bundle,
        key: BlockKey::plain(digest(1), 4096),
        tier: 2,
        stored_len: 9999,
    };
    let meta = NodeMeta { permissions: 0o644, modified: TIME, changed: TIME, ..NodeMeta::default() };
    let body = NodeBody::File(FileContent { size: 300, hash: digest(1), extents: None });
    let name = b"n\xff".to_vec();
    let until = Timestamp { seconds: TIME.seconds + 60, nanoseconds: 0 };
    let extents = vec![
        StagedExtent { range: ContentRange::between(10, 20), place: Some(4096) },
        StagedExtent { range: ContentRange::between(300, 400), place: None },
    ];
    let staged = |map| StagedContent { file: StagingId::new(77), size: 500, base_len: 250, map };
    let in_file = StagedMap::InFile { offset: 8192, len: 1000, hash: digest(3) };
    vec![
        Record::Object(facts.clone()),
        Record::Member { hash: digest(1), offset: 512, size: 300, source: None },
        Record::Member { hash: digest(4), offset: 1024, size: 1, source: Some(0x0123_4567_89ab_cdef) },
        Record::ObjectRemoved(facts.name),
        Record::Inode { node: 7, meta: meta.clone(), body: body.clone() },
        Record::Dirent { parent: 1, name: name.clone(), node: 7 },
        Record::DirentRemoved { parent: 1, name: name.clone() },
        Record::InodeRemoved(7),
        Record::NextInode(1000),
        Record::Time(TIME),
        Record::Staged { node: 7, content: staged(StagedMap::Inline(extents)) },
        Record::Staged { node: 8, content: staged(in_file) },
        Record::StagedRemoved(7),
        Record::HistoryRemoved { before: TIME },
        Record::PastInode { node: 7, since: TIME, until, meta, body },
        Record::PastDirent { parent: 1, name, node: 7, since: TIME, until },
    ]
}

#[test]
fn a_journal_with_records_of_all_types() {
    let start = ChainHead { sequence: 5, hash: digest(6) };
    let mut bytes = Vec::new();
    let mut encoder =
        GroupEncoder::new(FileKind::Journal, put_file_header(FileKind::Journal, archive(), start, &mut bytes));
    for record in records() {
        encoder.push(&record, &mut bytes).unwrap();
    }
    encoder.finish(&mut bytes);
    check("journal-v1.bfc", &bytes);
    let (header, group) = bytes.split_at(BLOCK_LEN);
    assert_eq!(parse_file_header(Block::parse(header).unwrap().payload).unwrap().archive, archive());
    let mut found = Vec::new();
    let mut take = |record| -> Result<(), FormatError> {
        found.push(record);
        Ok(())
    };
    RecordAssembler::default().push(Block::parse(group).unwrap().payload, &mut take).unwrap();
    assert_eq!(found, records());
}

#[test]
fn a_sealed_journal() {
    let seal = BlockSeal::new(archive(), 3, Secret::filled_by(|key| key.fill(0x4b)));
    let start = ChainHead { sequence: 42, hash: digest(41) };
    let mut bytes = Vec::new();
    let at = put_sealed_header(FileKind::Journal, &seal, start, &mut bytes);
    let mut encoder = GroupEncoder::new(FileKind::Journal, at).sealed_by(Some(seal.clone()));
    records().iter().for_each(|record| encoder.push(record, &mut bytes).unwrap());
    encoder.finish(&mut bytes);
    check("journal-sealed-v2.bfc", &bytes);
    let (header, group) = bytes.split_at(BLOCK_LEN);
    let header = Block::parse(header).unwrap();
    let said = parse_file_header(header.payload).unwrap();
    assert_eq!((said.archive, said.epoch), (archive(), Some(3)));
    seal.check_header(&header).unwrap();
    let mut found = Vec::new();
    let mut take = |record| -> Result<(), FormatError> {
        found.push(record);
        Ok(())
    };
    let mut assembler = RecordAssembler::default();
    for block in group.chunks(BLOCK_LEN) {
        let block = Block::parse(block).unwrap();
        assembler.push(&seal.open(&block).unwrap(), &mut take).unwrap();
    }
    assert_eq!(found, records());
}

#[test]
fn entries_of_all_kinds() {
    let entries = entries();
    let mut bytes = Vec::new();
    for entry in &entries {
        entry.encode(&mut bytes);
    }
    check("entries-v1.bin", &bytes);
    let mut reader = Reader::new("golden", &bytes);
    for entry in &entries {
        assert_eq!(&Entry::decode(&mut reader).unwrap(), entry);
    }
    reader.finish().unwrap();
}
