//! Real mounts of a small filesystem in memory: what the adapter promises
//! to programs.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod kit;

use blockframe_api::{
    Attributes, CachePolicy, DirectoryEntry, ErrorClass, Handle, Node, NodeKind, OpenHow, OpenedFile, SpaceUsage,
    Timestamp, Vfs, VfsError, VfsResult,
};
use blockframe_fuse::{MountError, MountOptions, spawn};
use kit::Fixture;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Root directory with `entries` files `f0000000...` that all hold their own
/// name, a file `broken` that cannot be read, and a symlink.
struct Memory {
    names: BTreeMap<Vec<u8>, Node>,
    lookups: AtomicU64,
    entries: u64,
}

const BROKEN: u64 = 2;
const LINK: u64 = 3;
const FIRST: u64 = 10;

impl Memory {
    fn new(entries: u64) -> Arc<Self> {
        let mut names = BTreeMap::new();
        names.insert(b"broken".to_vec(), Node::new(BROKEN));
        names.insert(b"link".to_vec(), Node::new(LINK));
        for index in 0..entries {
            names.insert(format!("f{index:07}").into_bytes(), Node::new(FIRST + index));
        }
        Arc::new(Self { names, lookups: AtomicU64::new(0), entries })
    }

    fn content(&self, node: u64) -> Vec<u8> {
        format!("f{:07}", node - FIRST).into_bytes()
    }
}

fn not_found() -> VfsError {
    VfsError::new(ErrorClass::NotFound, "no such entry")
}

impl Vfs for Memory {
    fn lookup(&self, _parent: Node, name: &[u8]) -> VfsResult<Attributes> {
        self.lookups.fetch_add(1, Ordering::SeqCst);
        self.attributes(*self.names.get(name).ok_or_else(not_found)?)
    }

    fn attributes(&self, node: Node) -> VfsResult<Attributes> {
        let (kind, size) = match node.number() {
            1 => (NodeKind::Directory, 4096),
            LINK => (NodeKind::Symlink, 8),
            BROKEN => (NodeKind::File, 100),
            n if n < FIRST + self.entries => (NodeKind::File, 8),
            _ => return Err(not_found()),
        };
        let time = Timestamp { seconds: -1, nanoseconds: 5 };
        Ok(Attributes {
            node,
            kind,
            size,
            allocated: 512,
            permissions: 0o750,
            links: 3,
            user: 12,
            group: 34,
            device: 0,
            accessed: time,
            modified: time,
            changed: time,
            born: time,
            block_size: 4096,
        })
    }

    fn read_link(&self, _node: Node) -> VfsResult<Vec<u8>> {
        Ok(b"f0000000".to_vec())
    }

    fn open(&self, node: Node, _how: OpenHow) -> VfsResult<OpenedFile> {
        Ok(OpenedFile { handle: Handle::new(node.number()), cache: CachePolicy::Refresh, backing: None })
    }

    fn read(&self, handle: Handle, offset: u64, length: u32, deliver: &mut dyn FnMut(&[u8])) -> VfsResult<()> {
        if handle.number() == BROKEN {
            return Err(VfsError::new(ErrorClass::Unrecoverable, "lost"));
        }
        let content = self.content(handle.number());
        let start = (offset as usize).min(content.len());
        let end = (start + length as usize).min(content.len());
        deliver(&content[start..end]);
        Ok(())
    }

    fn seek(&self, _handle: Handle, offset: u64, data: bool) -> VfsResult<u64> {
        if data && offset >= 4 { Err(VfsError::new(ErrorClass::NoSuchRange, "past the end")) } else { Ok(4) }
    }

    fn release(&self, _handle: Handle) {}

    fn read_directory(
        &self,
        node: Node,
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(DirectoryEntry<'_>) -> bool,
    ) -> VfsResult<()> {
        assert_eq!(node, Node::ROOT);
        let start = match after {
            Some(name) => std::ops::Bound::Excluded(name.to_vec()),
            None => std::ops::Bound::Unbounded,
        };
        for (name, node) in self.names.range((start, std::ops::Bound::Unbounded)) {
            if !visit(DirectoryEntry { name, attributes: self.attributes(*node)? }) {
                break;
            }
        }
        Ok(())
    }

    fn parent(&self, node: Node) -> VfsResult<Node> {
        Ok(node)
    }

    fn extended_attribute(&self, _node: Node, name: &[u8]) -> VfsResult<Vec<u8>> {
        match name {
            b"user.colour" => Ok(b"blue".to_vec()),
            _ => Err(VfsError::new(ErrorClass::NoAttribute, "no such attribute")),
        }
    }

    fn extended_attributes(&self, _node: Node) -> VfsResult<Vec<Vec<u8>>> {
        Ok(vec![b"user.colour".to_vec(), b"user.size".to_vec()])
    }

    fn space(&self) -> VfsResult<SpaceUsage> {
        Ok(SpaceUsage { total: 4096 * 100, free: 4096 * 40, available: 4096 * 30, nodes: 7 })
    }
}

/// `None` where there is no FUSE device.
fn mount(vfs: Arc<Memory>) -> Option<Fixture> {
    Fixture::new(vfs, &MountOptions::new("blockframe:test"))
}

#[test]
fn attributes_content_and_links_arrive_unchanged() {
    let Some(fixture) = mount(Memory::new(3)) else { return };
    let metadata = fs::metadata(fixture.path().join("f0000001")).unwrap();
    assert_eq!((metadata.ino(), metadata.size(), metadata.blocks()), (FIRST + 1, 8, 1));
    assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777, metadata.nlink()), (12, 34, 0o750, 3));
    assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (-1, 5));
    assert_eq!(fs::read(fixture.path().join("f0000001")).unwrap(), b"f0000001");
    assert_eq!(fs::read(fixture.path().join("link")).unwrap(), b"f0000000");
    let space = rustix::fs::statvfs(fixture.path()).unwrap();
    assert_eq!((space.f_blocks, space.f_bfree, space.f_bavail, space.f_files), (100, 40, 30, 7));
}

#[test]
fn a_large_directory_is_listed_once_and_whole() {
    let Some(fixture) = mount(Memory::new(50_000)) else { return };
    let mut names: Vec<_> = fs::read_dir(fixture.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 50_002);
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 50_002);
}

#[test]
fn a_listing_resumes_at_any_earlier_position() {
    use rustix::fs::{Mode, OFlags, RawDir, SeekFrom, openat, seek};
    let Some(fixture) = mount(Memory::new(5_000)) else { return };
    let directory = openat(rustix::fs::CWD, fixture.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let mut all: Vec<(Vec<u8>, u64)> = Vec::new();
    let mut buffer = vec![std::mem::MaybeUninit::uninit(); 8192];
    let mut raw = RawDir::new(&directory, &mut buffer);
    while let Some(entry) = raw.next() {
        let entry = entry.unwrap();
        all.push((entry.file_name().to_bytes().to_vec(), entry.next_entry_cookie()));
    }
    assert_eq!(all.len(), 5_004);
    assert_eq!((all[0].0.as_slice(), all[1].0.as_slice()), (&b"."[..], &b".."[..]));
    for index in [0, 1, 2, 3, 77, 2500, 4999, 5_002] {
        seek(&directory, SeekFrom::Start(all[index].1)).unwrap();
        let mut raw = RawDir::new(&directory, &mut buffer);
        let next = raw.next().unwrap().unwrap();
        assert_eq!(next.file_name().to_bytes(), all[index + 1].0.as_slice(), "after entry {index}");
    }
}

#[test]
fn missing_names_are_remembered_by_the_kernel() {
    let memory = Memory::new(1);
    let Some(fixture) = mount(Arc::clone(&memory)) else { return };
    for _ in 0..50 {
        let error = fs::metadata(fixture.path().join("nowhere")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }
    let lookups = memory.lookups.load(Ordering::SeqCst);
    assert!(lookups < 25, "{lookups} lookups for 50 attempts within a second");
}

#[test]
fn nothing_can_be_written() {
    let Some(fixture) = mount(Memory::new(1)) else { return };
    let file = fixture.path().join("f0000000");
    let errors = [
        fs::write(&file, b"x").unwrap_err(),
        fs::write(fixture.path().join("new"), b"x").unwrap_err(),
        fs::remove_file(&file).unwrap_err(),
        fs::create_dir(fixture.path().join("new")).unwrap_err(),
        fs::rename(&file, fixture.path().join("new")).unwrap_err(),
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    }
}

#[test]
fn a_lost_range_is_an_io_error() {
    let Some(fixture) = mount(Memory::new(1)) else { return };
    let mut file = fs::File::open(fixture.path().join("broken")).unwrap();
    assert_eq!(file.read(&mut [0; 10]).unwrap_err().raw_os_error(), Some(libc::EIO));
}

#[test]
fn extended_attributes_have_sizes_values_and_errors() {
    use rustix::buffer::spare_capacity;
    let Some(fixture) = mount(Memory::new(1)) else { return };
    let file = fixture.path().join("f0000000");
    let get = |name: &str, room: usize| {
        let mut value = vec![0; room];
        let name = CString::new(name).unwrap();
        rustix::fs::getxattr(&file, &name, &mut value[..])
    };
    // The crate asks for the size first.
    assert_eq!(xattr::get(&file, "user.colour").unwrap().as_deref(), Some(&b"blue"[..]));
    assert_eq!(get("user.colour", 4), Ok(4));
    assert_eq!(get("user.colour", 3), Err(rustix::io::Errno::RANGE));
    assert_eq!(get("user.none", 10), Err(rustix::io::Errno::NODATA));
    let mut list: Vec<u8> = Vec::with_capacity(100);
    rustix::fs::listxattr(&file, spare_capacity(&mut list)).unwrap();
    assert_eq!(list, b"user.colour\0user.size\0");
}

#[test]
fn data_and_holes_can_be_sought() {
    use rustix::fs::{SeekFrom, seek};
    let Some(fixture) = mount(Memory::new(1)) else { return };
    let file = fs::File::open(fixture.path().join("f0000000")).unwrap();
    assert_eq!(seek(&file, SeekFrom::Data(0)), Ok(4));
    assert_eq!(seek(&file, SeekFrom::Hole(0)), Ok(4));
    assert_eq!(seek(&file, SeekFrom::Data(5)), Err(rustix::io::Errno::NXIO));
}

#[test]
fn a_busy_mount_point_is_refused_and_a_clean_unmount_leaves_it_empty() {
    let Some(mut fixture) = mount(Memory::new(1)) else { return };
    let again = spawn(Memory::new(1), fixture.path(), &MountOptions::new("blockframe:test"));
    let error = again.unwrap_err();
    assert!(matches!(error, MountError::Busy { .. }), "{error}");
    assert!(error.to_string().contains("blockframe:test"), "{error}");
    let mounted = fixture.mounted.take().unwrap();
    mounted.unmount(Duration::from_secs(10)).unwrap();
    assert!(mounted.ended());
    assert_eq!(fs::read_dir(fixture.path()).unwrap().count(), 0);
}

#[test]
fn an_unmount_while_a_file_is_open_detaches_after_its_grace() {
    let Some(mut fixture) = mount(Memory::new(1)) else { return };
    let file = fs::File::open(fixture.path().join("f0000000")).unwrap();
    let mounted = fixture.mounted.take().unwrap();
    mounted.unmount(Duration::ZERO).unwrap();
    assert_eq!(fs::read_dir(fixture.path()).unwrap().count(), 0, "the namespace still shows the mount");
    let mut byte = [0; 1];
    file.read_exact_at(&mut byte, 0).unwrap();
    drop(file);
    mounted.wait().unwrap();
}

#[test]
fn a_source_with_commas_and_spaces_can_be_mounted() {
    if !Path::new("/dev/fuse").exists() {
        eprintln!("skipped: there is no /dev/fuse here");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mounted = spawn(Memory::new(1), directory.path(), &MountOptions::new("blockframe:/a,b c")).unwrap();
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(table.contains("blockframe:/a_b\\040c"), "{table}");
    drop(mounted);
}
