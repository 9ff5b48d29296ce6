//! Everything that can be seen of a tree: of a source through the operating
//! system, of an archive through the mounted view. Two equal pictures are two
//! equal trees, byte for byte.

use blockframe::archive::Archive;
use blockframe::base::SystemClock;
use blockframe::catalog::Catalog;
use blockframe::ingest::{CommitItem, CommitRequest, commit};
use blockframe::namespace::CompressionRules;
use blockframe::store::LocalStore;
use blockframe::vfs::{ArchiveVfs, VfsLimits};
use blockframe_api::{Node, NodeKind, OpenHow, Vfs};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What is seen of one name.
#[derive(Clone, PartialEq, Eq)]
pub struct Seen {
    /// Everything but the bytes of a file.
    pub attributes: String,
    /// The bytes of a file, or why they cannot be read. `None` for what is no file.
    pub content: Option<Result<Vec<u8>, String>>,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let content = match &self.content {
            None => "no file".into(),
            Some(Ok(bytes)) => format!("{} bytes, {}", bytes.len(), blake3::hash(bytes).to_hex()),
            Some(Err(error)) => error.clone(),
        };
        write!(f, "{}; {content}", self.attributes)
    }
}

/// By path below the root.
pub type Picture = BTreeMap<Vec<u8>, Seen>;

/// How a picture differs from the one that it should be: a line for each name. `None` when it does not.
pub fn difference(expected: &Picture, found: &Picture) -> Option<String> {
    let mut lines = String::new();
    for path in expected.keys().chain(found.keys().filter(|path| !expected.contains_key(*path))) {
        let (right, shown) = (expected.get(path), String::from_utf8_lossy(path));
        if right != found.get(path) {
            let _ = writeln!(lines, "{shown}: {:?}\n  instead of {right:?}", found.get(path));
        }
    }
    (!lines.is_empty()).then_some(lines)
}

type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

fn line(kind: &str, numbers: [u64; 5], modified: (i64, u32), target: Option<&[u8]>, mut xattrs: Xattrs) -> String {
    xattrs.sort();
    let target = target.map(String::from_utf8_lossy);
    format!("{kind}, mode/user/group/links/size {numbers:?}, modified {modified:?}, target {target:?}, {xattrs:?}")
}

/// The picture of a directory and everything below it, with the directory itself as `name`.
pub fn of_source(name: &str, root: &Path) -> Picture {
    let mut picture = Picture::new();
    let mut todo = vec![(name.as_bytes().to_vec(), root.to_path_buf())];
    while let Some((path, file)) = todo.pop() {
        let found = fs::symlink_metadata(&file).unwrap();
        let kind = found.file_type();
        let (word, directory) = if kind.is_dir() {
            ("Directory", true)
        } else if kind.is_symlink() {
            ("Symlink", false)
        } else if kind.is_fifo() {
            ("Fifo", false)
        } else {
            assert!(kind.is_file(), "{file:?}");
            ("File", false)
        };
        if directory {
            for entry in fs::read_dir(&file).unwrap() {
                let entry = entry.unwrap();
                todo.push(([&path, entry.file_name().as_bytes()].join(&b'/'), entry.path()));
            }
        }
        let xattrs = if kind.is_symlink() {
            Xattrs::new()
        } else {
            let value = |name: std::ffi::OsString| {
                (name.as_bytes().to_vec(), xattr::get(&file, &name).unwrap().unwrap_or_default())
            };
            // What a mount of ours adds is no part of the tree.
            let is_stored = |name: &std::ffi::OsString| !name.as_bytes().starts_with(b"user.blockframe.");
            xattr::list(&file).unwrap().filter(is_stored).map(value).collect()
        };
        let target = kind.is_symlink().then(|| fs::read_link(&file).unwrap());
        let (links, size) = if directory { (0, 0) } else { (found.nlink(), found.size()) };
        let numbers = [u64::from(found.mode()) & 0o7777, found.uid().into(), found.gid().into(), links, size];
        let target = target.as_ref().map(|target| target.as_os_str().as_bytes());
        let attributes = line(word, numbers, (found.mtime(), found.mtime_nsec() as u32), target, xattrs);
        let content = kind.is_file().then(|| Ok(fs::read(&file).unwrap()));
        picture.insert(path, Seen { attributes, content });
    }
    picture
}

/// The picture of everything below the root of a mounted view.
pub fn of_vfs(vfs: &dyn Vfs) -> Picture {
    let mut picture = Picture::new();
    let mut todo = vec![(Vec::new(), Node::ROOT)];
    while let Some((directory, node)) = todo.pop() {
        let mut entries = Vec::new();
        let listed = vfs.read_directory(node, None, &mut |entry| {
            entries.push((entry.name.to_vec(), entry.attributes));
            true
        });
        listed.unwrap_or_else(|error| panic!("{} is not listed: {error}", String::from_utf8_lossy(&directory)));
        for (name, attributes) in entries {
            let path = if directory.is_empty() { name.clone() } else { [directory.as_slice(), &name].join(&b'/') };
            assert_eq!(vfs.lookup(node, &name).unwrap(), attributes, "{}", String::from_utf8_lossy(&path));
            let of_ours = |name: &Vec<u8>| name.starts_with(b"user.blockframe.");
            let names = vfs.extended_attributes(attributes.node).unwrap();
            let value = |name: Vec<u8>| {
                let value = vfs.extended_attribute(attributes.node, &name).unwrap();
                (name, value)
            };
            let xattrs = names.into_iter().filter(|name| !of_ours(name)).map(value).collect();
            let is_directory = attributes.kind == NodeKind::Directory;
            let target = (attributes.kind == NodeKind::Symlink).then(|| vfs.read_link(attributes.node).unwrap());
            let (links, size) = if is_directory { (0, 0) } else { (attributes.links.into(), attributes.size) };
            let numbers = [attributes.permissions.into(), attributes.user.into(), attributes.group.into(), links, size];
            let modified = (attributes.modified.seconds, attributes.modified.nanoseconds);
            let word = format!("{:?}", attributes.kind);
            let seen = Seen {
                attributes: line(&word, numbers, modified, target.as_deref(), xattrs),
                content: (attributes.kind == NodeKind::File).then(|| read(vfs, attributes.node)),
            };
            picture.insert(path.clone(), seen);
            if is_directory {
                todo.push((path, attributes.node));
            }
        }
    }
    picture
}

/// Pages as the kernel would ask for them: the first error is the outcome, and so is what is too short.
fn read(vfs: &dyn Vfs, node: Node) -> Result<Vec<u8>, String> {
    const ASKED: u32 = 20_000;
    let handle =
        vfs.open(node, OpenHow { read: true, ..OpenHow::default() }).map_err(|error| error.to_string())?.handle;
    let mut bytes = Vec::new();
    let outcome = loop {
        let before = bytes.len();
        let read = vfs.read(handle, before as u64, ASKED, &mut |more| bytes.extend_from_slice(more));
        match read {
            Err(error) => break Err(error.to_string()),
            Ok(()) if bytes.len() < before + ASKED as usize => break Ok(()),
            Ok(()) => {}
        }
    };
    vfs.release(handle);
    outcome.map(|()| bytes)
}

/// An archive as a fresh process opens it. Objects and names share the directory, as they do for the program.
pub fn open(directory: &Path) -> (Arc<Archive>, Arc<Catalog>) {
    let store = Arc::new(LocalStore::open(directory).unwrap());
    let archive = Arc::new(Archive::open(store, Arc::new(SystemClock), Arc::new(())).unwrap());
    let catalog = Arc::new(Catalog::open(directory, &archive).unwrap());
    (archive, catalog)
}

/// The picture of an archive that is opened for it.
pub fn of_archive(directory: &Path) -> Picture {
    let (archive, catalog) = open(directory);
    of_vfs(&ArchiveVfs::new(archive, catalog, Arc::new(()), VfsLimits::default()).unwrap())
}

/// Commits paths to the root of an archive; all of it succeeds.
pub fn commit_paths(archive: &Arc<Archive>, catalog: &Catalog, paths: &[&Path]) {
    let items = paths.iter().map(|path| CommitItem::from_path(path.to_path_buf(), &Default::default()).unwrap());
    let request = CommitRequest {
        items: items.collect(),
        exclude: Vec::new(),
        cancel: &AtomicBool::new(false),
        lost: &|_| false,
        compression: &CompressionRules::default(),
    };
    let writer = catalog.writer().unwrap();
    let report = commit(archive, &writer, request, &()).unwrap();
    writer.finish().unwrap();
    assert_eq!(report.failed, 0);
}
