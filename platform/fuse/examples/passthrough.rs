//! The bare pass-through filesystem that benches compare with: the same
//! library, mount options and threads as BlockFrame's mount, one `pread` or
//! `pwrite` per request, nothing verified.
//!
//! `passthrough DIRECTORY MOUNTPOINT [refresh|keep|bypass] [backing]` serves
//! DIRECTORY, read and write, until it is unmounted. The third argument says
//! what the kernel's page cache keeps of a file from one opening to the next:
//! nothing, all (`FOPEN_KEEP_CACHE`), or nothing ever (`FOPEN_DIRECT_IO`).
//! With `backing` the kernel itself serves new files until they are closed.
//!
//! DIRECTORY must lie on one filesystem. Default ACLs are left to that
//! filesystem, which does not know the umask of who asks.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use blockframe_api::{
    AllocateMode, AttributeChange, Attributes, CachePolicy, Caller, DirectoryEntry, ErrorClass, Handle, NewNode, Node,
    NodeKind, OpenHow, OpenedFile, RenameMode, SpaceUsage, TimeChange, Timestamp, Vfs, VfsError, VfsResult, XattrMode,
};
use blockframe_fuse::{MountOptions, spawn};
use rustix::fs::{
    AtFlags, Dir, FallocateFlags, FileType, Gid, Mode, OFlags, RenameFlags, SeekFrom, Stat, Timespec, Timestamps,
    UTIME_NOW, UTIME_OMIT, Uid, XattrFlags,
};
use rustix::io::Errno;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

const NOFOLLOW: AtFlags = AtFlags::SYMLINK_NOFOLLOW;
/// Longest value of an extended attribute, bytes.
const MAX_VALUE: usize = 64 << 10;

/// A name, with its directory's number.
type Place = (u64, Box<[u8]>);

/// An open file, by the descriptor that was opened first.
struct Opened {
    file: Arc<File>,
    backing: Option<Arc<File>>,
    handles: usize,
}

/// What is known of nodes: an inode number is a node's number, but the root's.
#[derive(Default)]
struct Tables {
    /// Every name that was met.
    names: HashMap<u64, Vec<Place>>,
    opened: HashMap<u64, Opened>,
}

/// The pass-through filesystem.
pub struct Passthrough {
    root: u64,
    cache: CachePolicy,
    backing: bool,
    tables: RwLock<Tables>,
    directories: RwLock<HashMap<u64, Arc<OwnedFd>>>,
    handles: RwLock<HashMap<u64, (u64, Arc<File>)>>,
    /// Sorted names of the directories that are being listed.
    listings: Mutex<HashMap<u64, Arc<Vec<CString>>>>,
    last_handle: Mutex<u64>,
    requests: AtomicU64,
}

fn failed(errno: Errno) -> VfsError {
    let class = match errno {
        Errno::NOENT => ErrorClass::NotFound,
        Errno::EXIST => ErrorClass::Exists,
        Errno::NOTDIR => ErrorClass::NotDirectory,
        Errno::ISDIR => ErrorClass::IsDirectory,
        Errno::NOTEMPTY => ErrorClass::NotEmpty,
        Errno::MLINK => ErrorClass::TooManyLinks,
        Errno::FBIG => ErrorClass::TooLarge,
        Errno::ACCESS | Errno::PERM => ErrorClass::Denied,
        Errno::INVAL => ErrorClass::Invalid,
        Errno::NAMETOOLONG => ErrorClass::NameTooLong,
        Errno::NODATA => ErrorClass::NoAttribute,
        Errno::NXIO => ErrorClass::NoSuchRange,
        Errno::ROFS => ErrorClass::ReadOnly,
        Errno::OPNOTSUPP | Errno::NOSYS => ErrorClass::NotSupported,
        Errno::BUSY => ErrorClass::Busy,
        Errno::NOSPC => ErrorClass::NoSpace,
        _ => ErrorClass::Unavailable,
    };
    VfsError::new(class, errno.to_string())
}

fn io_failed(error: std::io::Error) -> VfsError {
    failed(Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

fn os(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}

/// A device number as the kernel encodes it in FUSE.
fn encode(device: u64) -> u32 {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    minor & 0xff | major << 8 | (minor & !0xff) << 12
}

fn decode(device: u32) -> u64 {
    rustix::fs::makedev(device >> 8 & 0xfff, device & 0xff | device >> 12 & !0xff)
}

fn kind(mode: u32) -> NodeKind {
    match FileType::from_raw_mode(mode) {
        FileType::Directory => NodeKind::Directory,
        FileType::Symlink => NodeKind::Symlink,
        FileType::Fifo => NodeKind::Fifo,
        FileType::Socket => NodeKind::Socket,
        FileType::CharacterDevice => NodeKind::CharDevice,
        FileType::BlockDevice => NodeKind::BlockDevice,
        _ => NodeKind::File,
    }
}

fn moment(change: Option<TimeChange>) -> Timespec {
    match change {
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        Some(TimeChange::Now) => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        Some(TimeChange::To(time)) => Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() },
    }
}

impl Passthrough {
    /// Serves `directory`.
    pub fn new(directory: &Path, cache: CachePolicy, backing: bool) -> std::io::Result<Self> {
        let root = rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
        let number = rustix::fs::fstat(&root)?.st_ino;
        Ok(Self {
            root: number,
            cache,
            backing,
            tables: RwLock::default(),
            directories: RwLock::new(HashMap::from([(Node::ROOT.number(), Arc::new(root))])),
            handles: RwLock::default(),
            listings: Mutex::default(),
            last_handle: Mutex::new(0),
            requests: AtomicU64::new(0),
        })
    }

    /// Reads and writes that were served here, not by the kernel.
    #[allow(dead_code, reason = "tests use it")]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    fn show(&self, stat: &Stat) -> Attributes {
        let time = |seconds: i64, nanoseconds: u64| Timestamp { seconds, nanoseconds: nanoseconds as u32 };
        let changed = time(stat.st_ctime, stat.st_ctime_nsec);
        Attributes {
            node: if stat.st_ino == self.root { Node::ROOT } else { Node::new(stat.st_ino) },
            kind: kind(stat.st_mode),
            size: stat.st_size as u64,
            allocated: stat.st_blocks as u64 * 512,
            permissions: (stat.st_mode & 0o7777) as u16,
            links: stat.st_nlink as u32,
            user: stat.st_uid,
            group: stat.st_gid,
            device: encode(stat.st_rdev),
            accessed: time(stat.st_atime, stat.st_atime_nsec),
            modified: time(stat.st_mtime, stat.st_mtime_nsec),
            changed,
            born: changed,
            block_size: 128 << 10,
        }
    }

    /// Where a node is: a directory that is open, and its name there.
    fn place(&self, node: Node) -> VfsResult<(Arc<OwnedFd>, Box<[u8]>)> {
        if node == Node::ROOT {
            return Ok((self.directory(node)?, b".".as_slice().into()));
        }
        let (parent, name) = {
            let tables = self.tables.read().unwrap();
            let names = tables.names.get(&node.number()).ok_or_else(|| failed(Errno::NOENT))?;
            names.last().cloned().ok_or_else(|| failed(Errno::NOENT))?
        };
        Ok((self.directory(Node::new(parent))?, name))
    }

    fn directory(&self, node: Node) -> VfsResult<Arc<OwnedFd>> {
        if let Some(directory) = self.directories.read().unwrap().get(&node.number()) {
            return Ok(Arc::clone(directory));
        }
        let (parent, name) = self.place(node)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let directory = Arc::new(rustix::fs::openat(&*parent, os(&name), flags, Mode::empty()).map_err(failed)?);
        self.directories.write().unwrap().insert(node.number(), Arc::clone(&directory));
        Ok(directory)
    }

    fn learn(&self, node: Node, parent: Node, name: &[u8]) {
        let known =
            |names: &Vec<Place>| names.last().is_some_and(|(at, known)| *at == parent.number() && **known == *name);
        if self.tables.read().unwrap().names.get(&node.number()).is_some_and(known) {
            return;
        }
        let mut tables = self.tables.write().unwrap();
        let names = tables.names.entry(node.number()).or_default();
        names.retain(|(at, known)| *at != parent.number() || **known != *name);
        names.push((parent.number(), name.into()));
    }

    fn unlearn(&self, node: Node, parent: Node, name: &[u8]) {
        let mut tables = self.tables.write().unwrap();
        if let Some(names) = tables.names.get_mut(&node.number()) {
            names.retain(|(at, known)| *at != parent.number() || **known != *name);
            if names.is_empty() {
                tables.names.remove(&node.number());
            }
        }
    }

    fn stat(&self, parent: &OwnedFd, name: &[u8]) -> VfsResult<Attributes> {
        Ok(self.show(&rustix::fs::statat(parent, os(name), NOFOLLOW).map_err(failed)?))
    }

    /// The path by which attributes are reached that have no `*at` call.
    fn path(&self, node: Node) -> VfsResult<PathBuf> {
        let (parent, name) = self.place(node)?;
        Ok(Path::new(&format!("/proc/self/fd/{}", parent.as_raw_fd())).join(os(&name)))
    }

    fn file(&self, handle: Handle) -> VfsResult<Arc<File>> {
        let handles = self.handles.read().unwrap();
        handles.get(&handle.number()).map(|(_, file)| Arc::clone(file)).ok_or_else(|| failed(Errno::INVAL))
    }

    fn begin(&self, node: Node, file: File, new: bool) -> OpenedFile {
        let file = Arc::new(file);
        let number = {
            let mut last = self.last_handle.lock().unwrap();
            *last += 1;
            *last
        };
        self.handles.write().unwrap().insert(number, (node.number(), Arc::clone(&file)));
        let mut tables = self.tables.write().unwrap();
        let backing = (new && self.backing).then(|| Arc::clone(&file));
        let opened = tables.opened.entry(node.number()).or_insert(Opened { file, backing, handles: 0 });
        opened.handles += 1;
        OpenedFile { handle: Handle::new(number), cache: self.cache, backing: opened.backing.clone() }
    }

    /// Who asks becomes the owner, unless the directory says otherwise.
    fn own(&self, caller: Caller, parent: &OwnedFd, name: &[u8]) -> VfsResult<()> {
        if caller.user == 0 && caller.group == 0 {
            return Ok(());
        }
        let directory = rustix::fs::fstat(parent).map_err(failed)?;
        let group = (directory.st_mode & 0o2000 == 0).then(|| Gid::from_raw(caller.group));
        rustix::fs::chownat(parent, os(name), Some(Uid::from_raw(caller.user)), group, NOFOLLOW).map_err(failed)
    }

    fn listing(&self, node: Node, anew: bool) -> VfsResult<Arc<Vec<CString>>> {
        if let (false, Some(known)) = (anew, self.listings.lock().unwrap().get(&node.number())) {
            return Ok(Arc::clone(known));
        }
        let directory = self.directory(node)?;
        let open = rustix::fs::openat(&*directory, ".", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty());
        let mut names = Vec::new();
        for entry in Dir::new(open.map_err(failed)?).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_owned());
            }
        }
        names.sort_unstable();
        let names = Arc::new(names);
        self.listings.lock().unwrap().insert(node.number(), Arc::clone(&names));
        Ok(names)
    }

    fn kill_privileges(file: impl AsFd) -> VfsResult<()> {
        let mode = rustix::fs::fstat(&file).map_err(failed)?.st_mode;
        if mode & 0o6000 == 0 {
            return Ok(());
        }
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o1777)).map_err(failed)
    }

    /// Changes what needs the file itself: the one that is open, else one opened for it.
    fn change_file(&self, node: Node, handle: Option<Handle>, change: &AttributeChange) -> VfsResult<()> {
        if change.size.is_none() && !change.kill_privileges {
            return Ok(());
        }
        let file = match handle {
            Some(handle) => self.file(handle)?,
            None => {
                let (parent, name) = self.place(node)?;
                let stat = rustix::fs::statat(&*parent, os(&name), NOFOLLOW).map_err(failed)?;
                if kind(stat.st_mode) != NodeKind::File {
                    return Ok(());
                }
                let mode = if change.size.is_some() { OFlags::WRONLY } else { OFlags::RDONLY };
                let file = rustix::fs::openat(&*parent, os(&name), mode | OFlags::NOFOLLOW, Mode::empty());
                Arc::new(File::from(file.map_err(failed)?))
            }
        };
        if let Some(size) = change.size {
            rustix::fs::ftruncate(&*file, size).map_err(failed)?;
        }
        if change.kill_privileges { Self::kill_privileges(&*file) } else { Ok(()) }
    }
}

impl Vfs for Passthrough {
    fn lookup(&self, parent: Node, name: &[u8]) -> VfsResult<Attributes> {
        let attributes = self.stat(&*self.directory(parent)?, name)?;
        self.learn(attributes.node, parent, name);
        Ok(attributes)
    }

    fn attributes(&self, node: Node) -> VfsResult<Attributes> {
        let open = self.tables.read().unwrap().opened.get(&node.number()).map(|opened| Arc::clone(&opened.file));
        if let Some(file) = open {
            return Ok(self.show(&rustix::fs::fstat(&*file).map_err(failed)?));
        }
        let (parent, name) = self.place(node)?;
        self.stat(&parent, &name)
    }

    fn read_link(&self, node: Node) -> VfsResult<Vec<u8>> {
        let (parent, name) = self.place(node)?;
        Ok(rustix::fs::readlinkat(&*parent, os(&name), Vec::new()).map_err(failed)?.into_bytes())
    }

    fn open(&self, node: Node, how: OpenHow) -> VfsResult<OpenedFile> {
        let (parent, name) = self.place(node)?;
        let mut flags = match (how.read, how.write) {
            (_, false) => OFlags::RDONLY,
            (false, true) => OFlags::WRONLY,
            (true, true) => OFlags::RDWR,
        };
        flags.set(OFlags::TRUNC, how.truncate);
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&*parent, os(&name), flags, Mode::empty()).map_err(failed)?;
        Ok(self.begin(node, file.into(), false))
    }

    fn read(&self, handle: Handle, offset: u64, length: u32, deliver: &mut dyn FnMut(&[u8])) -> VfsResult<()> {
        thread_local! {
            static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        let file = self.file(handle)?;
        BUFFER.with(|buffer| {
            let mut buffer = buffer.borrow_mut();
            if buffer.len() < length as usize {
                buffer.resize(length as usize, 0);
            }
            let count = file.read_at(&mut buffer[..length as usize], offset).map_err(io_failed)?;
            deliver(&buffer[..count]);
            Ok(())
        })
    }

    fn seek(&self, handle: Handle, offset: u64, data: bool) -> VfsResult<u64> {
        let to = if data { SeekFrom::Data(offset) } else { SeekFrom::Hole(offset) };
        rustix::fs::seek(&*self.file(handle)?, to).map_err(failed)
    }

    fn release(&self, handle: Handle) {
        let Some((node, _file)) = self.handles.write().unwrap().remove(&handle.number()) else { return };
        let mut tables = self.tables.write().unwrap();
        if let Some(opened) = tables.opened.get_mut(&node) {
            opened.handles -= 1;
            if opened.handles == 0 {
                tables.opened.remove(&node);
            }
        }
    }

    fn read_directory(
        &self,
        node: Node,
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(DirectoryEntry<'_>) -> bool,
    ) -> VfsResult<()> {
        let names = self.listing(node, after.is_none())?;
        let directory = self.directory(node)?;
        let start = after.map_or(0, |after| names.partition_point(|name| name.to_bytes() <= after));
        for name in &names[start..] {
            // It may have been removed meanwhile.
            let Ok(attributes) = self.stat(&directory, name.to_bytes()) else { continue };
            self.learn(attributes.node, node, name.to_bytes());
            if !visit(DirectoryEntry { name: name.to_bytes(), attributes }) {
                return Ok(());
            }
        }
        self.listings.lock().unwrap().remove(&node.number());
        Ok(())
    }

    fn parent(&self, node: Node) -> VfsResult<Node> {
        let tables = self.tables.read().unwrap();
        let parent = tables.names.get(&node.number()).and_then(|names| names.last()).map(|(parent, _)| *parent);
        Ok(parent.map_or(Node::ROOT, Node::new))
    }

    fn extended_attribute(&self, node: Node, name: &[u8]) -> VfsResult<Vec<u8>> {
        let mut value = Vec::with_capacity(MAX_VALUE);
        let room = rustix::buffer::spare_capacity(&mut value);
        rustix::fs::lgetxattr(self.path(node)?, os(name), room).map_err(failed)?;
        Ok(value)
    }

    fn extended_attributes(&self, node: Node) -> VfsResult<Vec<Vec<u8>>> {
        let mut list = Vec::with_capacity(MAX_VALUE);
        let room = rustix::buffer::spare_capacity(&mut list);
        rustix::fs::llistxattr(self.path(node)?, room).map_err(failed)?;
        Ok(list.split(|&byte| byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
    }

    fn space(&self) -> VfsResult<SpaceUsage> {
        let found = rustix::fs::fstatvfs(&*self.directory(Node::ROOT)?).map_err(failed)?;
        Ok(SpaceUsage {
            total: found.f_blocks * found.f_frsize,
            free: found.f_bfree * found.f_frsize,
            available: found.f_bavail * found.f_frsize,
            nodes: found.f_files - found.f_ffree,
        })
    }

    fn is_writable(&self) -> bool {
        true
    }

    fn create(
        &self,
        caller: Caller,
        parent: Node,
        name: &[u8],
        permissions: u16,
        how: OpenHow,
    ) -> VfsResult<(Attributes, OpenedFile)> {
        let directory = self.directory(parent)?;
        let access = if how.read || !how.write { OFlags::RDWR } else { OFlags::WRONLY };
        let flags = access | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(u32::from(permissions & !caller.umask));
        let file = rustix::fs::openat(&*directory, os(name), flags, mode).map_err(failed)?;
        self.own(caller, &directory, name)?;
        let attributes = self.show(&rustix::fs::fstat(&file).map_err(failed)?);
        self.learn(attributes.node, parent, name);
        Ok((attributes, self.begin(attributes.node, file.into(), true)))
    }

    fn make(
        &self,
        caller: Caller,
        parent: Node,
        name: &[u8],
        permissions: u16,
        what: NewNode<'_>,
    ) -> VfsResult<Attributes> {
        let directory = self.directory(parent)?;
        let mode = Mode::from_raw_mode(u32::from(permissions & !caller.umask));
        let node = |kind, device| rustix::fs::mknodat(&*directory, os(name), kind, mode, device);
        let made = match what {
            NewNode::File => node(FileType::RegularFile, 0),
            NewNode::Directory => rustix::fs::mkdirat(&*directory, os(name), mode),
            NewNode::Symlink(target) => rustix::fs::symlinkat(os(target), &*directory, os(name)),
            NewNode::Fifo => node(FileType::Fifo, 0),
            NewNode::Socket => node(FileType::Socket, 0),
            NewNode::CharDevice(device) => node(FileType::CharacterDevice, decode(device)),
            NewNode::BlockDevice(device) => node(FileType::BlockDevice, decode(device)),
        };
        made.map_err(failed)?;
        self.own(caller, &directory, name)?;
        self.lookup(parent, name)
    }

    fn link(&self, node: Node, parent: Node, name: &[u8]) -> VfsResult<Attributes> {
        let (from, old) = self.place(node)?;
        let to = self.directory(parent)?;
        rustix::fs::linkat(&*from, os(&old), &*to, os(name), AtFlags::empty()).map_err(failed)?;
        self.lookup(parent, name)
    }

    fn unlink(&self, parent: Node, name: &[u8]) -> VfsResult<()> {
        let directory = self.directory(parent)?;
        let node = self.stat(&directory, name)?.node;
        rustix::fs::unlinkat(&*directory, os(name), AtFlags::empty()).map_err(failed)?;
        self.unlearn(node, parent, name);
        Ok(())
    }

    fn remove_directory(&self, parent: Node, name: &[u8]) -> VfsResult<()> {
        let directory = self.directory(parent)?;
        let node = self.stat(&directory, name)?.node;
        rustix::fs::unlinkat(&*directory, os(name), AtFlags::REMOVEDIR).map_err(failed)?;
        self.unlearn(node, parent, name);
        self.directories.write().unwrap().remove(&node.number());
        Ok(())
    }

    fn rename(&self, parent: Node, name: &[u8], new_parent: Node, new_name: &[u8], mode: RenameMode) -> VfsResult<()> {
        let flags = match mode {
            RenameMode::Replace => RenameFlags::empty(),
            RenameMode::NoReplace => RenameFlags::NOREPLACE,
            RenameMode::Exchange => RenameFlags::EXCHANGE,
        };
        let (from, to) = (self.directory(parent)?, self.directory(new_parent)?);
        let node = self.stat(&from, name)?.node;
        let other = self.stat(&to, new_name).ok().map(|attributes| attributes.node);
        rustix::fs::renameat_with(&*from, os(name), &*to, os(new_name), flags).map_err(failed)?;
        if other == Some(node) {
            return Ok(());
        }
        self.unlearn(node, parent, name);
        if let Some(other) = other {
            self.unlearn(other, new_parent, new_name);
            if mode == RenameMode::Exchange {
                self.learn(other, parent, name);
            } else {
                self.directories.write().unwrap().remove(&other.number());
            }
        }
        self.learn(node, new_parent, new_name);
        Ok(())
    }

    fn set_attributes(
        &self,
        _caller: Caller,
        node: Node,
        handle: Option<Handle>,
        change: &AttributeChange,
    ) -> VfsResult<Attributes> {
        self.change_file(node, handle, change)?;
        if change.user.is_some() || change.group.is_some() {
            let (parent, name) = self.place(node)?;
            let (user, group) = (change.user.map(Uid::from_raw), change.group.map(Gid::from_raw));
            rustix::fs::chownat(&*parent, os(&name), user, group, NOFOLLOW).map_err(failed)?;
        }
        if let Some(permissions) = change.permissions {
            let (parent, name) = self.place(node)?;
            let mode = Mode::from_raw_mode(permissions.into());
            rustix::fs::chmodat(&*parent, os(&name), mode, AtFlags::empty()).map_err(failed)?;
        }
        if change.accessed.is_some() || change.modified.is_some() {
            let times = Timestamps { last_access: moment(change.accessed), last_modification: moment(change.modified) };
            match handle {
                Some(handle) => rustix::fs::futimens(&*self.file(handle)?, &times),
                None => {
                    let (parent, name) = self.place(node)?;
                    rustix::fs::utimensat(&*parent, os(&name), &times, NOFOLLOW)
                }
            }
            .map_err(failed)?;
        }
        self.attributes(node)
    }

    fn set_extended_attribute(&self, node: Node, name: &[u8], value: &[u8], mode: XattrMode) -> VfsResult<()> {
        let flags = match mode {
            XattrMode::Set => XattrFlags::empty(),
            XattrMode::Create => XattrFlags::CREATE,
            XattrMode::Replace => XattrFlags::REPLACE,
        };
        rustix::fs::lsetxattr(self.path(node)?, os(name), value, flags).map_err(failed)
    }

    fn remove_extended_attribute(&self, node: Node, name: &[u8]) -> VfsResult<()> {
        rustix::fs::lremovexattr(self.path(node)?, os(name)).map_err(failed)
    }

    fn write(&self, handle: Handle, offset: u64, data: &[u8], kill_privileges: bool) -> VfsResult<()> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let file = self.file(handle)?;
        file.write_all_at(data, offset).map_err(io_failed)?;
        if kill_privileges { Self::kill_privileges(&*file) } else { Ok(()) }
    }

    fn allocate(&self, handle: Handle, offset: u64, length: u64, mode: AllocateMode) -> VfsResult<()> {
        let flags = match mode {
            AllocateMode::Extend => FallocateFlags::empty(),
            AllocateMode::KeepSize => FallocateFlags::KEEP_SIZE,
            AllocateMode::Punch => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            AllocateMode::Zero => FallocateFlags::ZERO_RANGE,
            AllocateMode::ZeroKeepSize => FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
        };
        rustix::fs::fallocate(&*self.file(handle)?, flags, offset, length).map_err(failed)
    }

    fn copy_range(&self, from: Handle, from_offset: u64, to: Handle, to_offset: u64, length: u64) -> VfsResult<u64> {
        let (from, to) = (self.file(from)?, self.file(to)?);
        let (mut read, mut written) = (from_offset, to_offset);
        let copied = rustix::fs::copy_file_range(&*from, Some(&mut read), &*to, Some(&mut written), length as usize);
        Ok(copied.map_err(failed)? as u64)
    }

    fn sync(&self, handle: Handle, data_only: bool) -> VfsResult<()> {
        let file = self.file(handle)?;
        if data_only { file.sync_data() } else { file.sync_all() }.map_err(io_failed)
    }

    fn sync_directory(&self, node: Node) -> VfsResult<()> {
        let directory = self.directory(node)?;
        let open = rustix::fs::openat(&*directory, ".", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty());
        rustix::fs::fsync(open.map_err(failed)?).map_err(failed)
    }
}

/// Serves what the command line says, until it is unmounted.
pub fn main() {
    let mut arguments = std::env::args_os().skip(1).skip_while(|argument| argument == "passthrough");
    let (Some(directory), Some(mountpoint)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: passthrough DIRECTORY MOUNTPOINT [refresh|keep|bypass] [backing]");
        std::process::exit(2);
    };
    let (mut cache, mut backing) = (CachePolicy::Refresh, false);
    for word in arguments {
        match word.to_str() {
            Some("keep") => cache = CachePolicy::Keep,
            Some("bypass") => cache = CachePolicy::Bypass,
            Some("backing") => backing = true,
            _ => {}
        }
    }
    // Every directory that was entered stays open, and modes come with their umask applied.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised);
    rustix::process::umask(Mode::empty());
    let vfs = Passthrough::new(Path::new(&directory), cache, backing).expect("the directory can be opened");
    let root = rustix::process::geteuid().is_root();
    let options = MountOptions { suid: root, dev: root, ..MountOptions::new("passthrough") };
    let mounted = spawn(Arc::new(vfs), Path::new(&mountpoint), &options).expect("it mounts");
    mounted.wait().expect("the session ends well");
}
