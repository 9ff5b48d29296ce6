//! The mounted view against a filesystem so simple that it is obviously
//! right: a map from paths to bytes.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use blockframe::archive::Archive;
use blockframe::base::SystemClock;
use blockframe::catalog::Catalog;
use blockframe::store::LocalStore;
use blockframe::vfs::{ArchiveVfs, ReadAheadLimits, VfsLimits};
use blockframe_api::{ErrorClass, Node, NodeKind, Vfs};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// What stands at a path: bytes, or a directory.
type Model = BTreeMap<String, Option<Vec<u8>>>;

#[derive(Debug, Clone)]
enum Operation {
    /// Looks up the entry with this number, and a name beside it that is not there.
    Lookup(usize),
    /// Reads a part of the file with this number; both places in thousandths of its size.
    Read(usize, u64, u64),
    /// Reads a file from start to end in requests of this many bytes.
    Scan(usize, u32),
    /// Lists the directory of an entry, resuming behind it.
    ListAfter(usize),
}

fn tree() -> impl Strategy<Value = Model> {
    let name = proptest::sample::select(vec!["a", "b", "cc", "ä", "with space", ".hidden"]);
    let path = proptest::collection::vec(name, 1..4).prop_map(|names| names.join("/"));
    // Around the borders of leaves, segments, bundles' files and read-ahead chunks.
    let size = prop_oneof![
        Just(0),
        1..5000usize,
        Just(16 * 1024),
        (1 << 20) - 2..(1 << 20) + 2usize,
        900_000..1_400_000usize,
        Just(3 << 20)
    ];
    let file = (size, any::<u8>()).prop_map(|(size, seed)| {
        let mut bytes = vec![0; size];
        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
        bytes
    });
    proptest::collection::vec((path, proptest::option::weighted(0.85, file)), 1..16).prop_map(|entries| {
        let mut model = Model::new();
        for (path, body) in entries {
            // A path below a file, or over a directory, is left out.
            let mut above = path.match_indices('/').map(|(at, _)| &path[..at]);
            let below_file = above.clone().any(|parent| matches!(model.get(parent), Some(Some(_))));
            if below_file || model.contains_key(&path) {
                continue;
            }
            let parents: Vec<String> = above.by_ref().map(str::to_owned).collect();
            for parent in parents {
                model.entry(parent).or_insert(None);
            }
            model.insert(path, body);
        }
        model
    })
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        any::<usize>().prop_map(Operation::Lookup),
        (any::<usize>(), 0..1100u64, 0..1000u64).prop_map(|(file, from, len)| Operation::Read(file, from, len)),
        (any::<usize>(), 4096..2_000_000u32).prop_map(|(file, request)| Operation::Scan(file, request)),
        any::<usize>().prop_map(Operation::ListAfter),
    ]
}

fn program(directory: &Path, arguments: &[&str]) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_blockframe")).current_dir(directory).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An archive of the model's tree, below `/source`.
fn archive_of(model: &Model, directory: &Path) -> ArchiveVfs {
    let source = directory.join("source");
    fs::create_dir(&source).unwrap();
    for (path, body) in model {
        match body {
            None => fs::create_dir(source.join(path)).unwrap(),
            Some(bytes) => fs::write(source.join(path), bytes).unwrap(),
        }
    }
    program(directory, &["init", "archive", "--profile", "balanced"]);
    program(directory, &["--archive", "archive", "commit", "source"]);
    let store = LocalStore::open(&directory.join("archive")).unwrap();
    let archive = Arc::new(Archive::open(Arc::new(store), Arc::new(SystemClock), Arc::new(())).unwrap());
    let catalog = Arc::new(Catalog::open(&directory.join("state"), &archive).unwrap());
    // A cache of a few chunks, so that chunks are pushed out and come back.
    let read_ahead = ReadAheadLimits { file: 2 << 20, bundle: 2 << 20 };
    ArchiveVfs::new(archive, catalog, Arc::new(()), VfsLimits { cache: 8 << 20, read_ahead }).unwrap()
}

fn walk(vfs: &ArchiveVfs, path: &str) -> Result<Node, ErrorClass> {
    let mut node = vfs.lookup(Node::ROOT, b"source").unwrap().node;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        node = vfs.lookup(node, name.as_bytes()).map_err(|error| error.class())?.node;
    }
    Ok(node)
}

fn read(vfs: &ArchiveVfs, handle: blockframe_api::Handle, offset: u64, length: u32) -> Vec<u8> {
    let mut got = None;
    vfs.read(handle, offset, length, &mut |bytes| {
        assert!(got.replace(bytes.to_vec()).is_none(), "delivered twice");
    })
    .unwrap();
    got.expect("delivered")
}

fn check(vfs: &ArchiveVfs, model: &Model, operation: &Operation) {
    let entry = |number: usize| model.iter().nth(number % model.len()).unwrap();
    let with_handle = |number: usize, check: &dyn Fn(&[u8], blockframe_api::Handle)| {
        if let (path, Some(bytes)) = entry(number) {
            let opened = vfs
                .open(walk(vfs, path).unwrap(), blockframe_api::OpenHow { read: true, ..Default::default() })
                .unwrap();
            check(bytes, opened.handle);
            vfs.release(opened.handle);
            assert!(vfs.read(opened.handle, 0, 1, &mut |_| ()).is_err(), "a released handle still reads");
        }
    };
    match operation {
        Operation::Lookup(number) => {
            let (path, body) = entry(*number);
            let attributes = vfs.attributes(walk(vfs, path).unwrap()).unwrap();
            match body {
                None => assert_eq!(attributes.kind, NodeKind::Directory),
                Some(bytes) => assert_eq!((attributes.kind, attributes.size), (NodeKind::File, bytes.len() as u64)),
            }
            assert_eq!(walk(vfs, &format!("{path}~")), Err(ErrorClass::NotFound));
            assert_eq!(walk(vfs, &format!("{path}~")), Err(ErrorClass::NotFound), "the second time");
            if body.is_some() {
                assert_eq!(walk(vfs, &format!("{path}/x")), Err(ErrorClass::NotDirectory));
            }
        }
        Operation::Read(number, from, len) => with_handle(*number, &|bytes, handle| {
            let start = bytes.len() * *from as usize / 1000;
            let len = bytes.len() * *len as usize / 1000;
            let expected = &bytes[start.min(bytes.len())..(start + len).min(bytes.len())];
            assert!(read(vfs, handle, start as u64, len as u32) == expected, "{len} bytes at {start}");
        }),
        Operation::Scan(number, request) => with_handle(*number, &|bytes, handle| {
            let mut all = Vec::new();
            loop {
                let part = read(vfs, handle, all.len() as u64, *request);
                if part.is_empty() {
                    break;
                }
                all.extend(part);
            }
            assert!(all == bytes, "a scan in requests of {request} bytes");
        }),
        Operation::ListAfter(number) => {
            let (path, _) = entry(*number);
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
            let mut expected: Vec<&str> = model
                .keys()
                .map(|path| path.rsplit_once('/').unwrap_or(("", path)))
                .filter(|(above, below)| *above == parent && below.as_bytes() > name.as_bytes())
                .map(|(_, name)| name)
                .collect();
            expected.sort_by_key(|name| name.as_bytes().to_vec());
            let mut listed = Vec::new();
            vfs.read_directory(walk(vfs, parent).unwrap(), Some(name.as_bytes()), &mut |entry| {
                listed.push(String::from_utf8(entry.name.to_vec()).unwrap());
                true
            })
            .unwrap();
            assert_eq!(listed, expected, "after {path}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_mounted_view_is_what_was_committed(model in tree(), operations in proptest::collection::vec(operation(), 1..60)) {
        let directory = tempfile::tempdir().unwrap();
        let vfs = archive_of(&model, directory.path());
        for operation in &operations {
            check(&vfs, &model, operation);
        }
    }
}
