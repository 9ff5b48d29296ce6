//! FUSE requests to `Vfs` calls, and answers back.

mod attributes;
mod files;
mod kernel;
mod names;

pub(crate) use kernel::Connection;

use crate::directory::Marks;
use crate::errno::translate;
use crate::options::MountOptions;
use attributes::{
    ACCESS_LIST, SET_GROUP, Wanted, file_attr, file_type, in_group, no_entry, permissions, reply_xattr, xattr_mode,
};
use blockframe_api::{AttributeChange, Attributes, ErrorClass, Handle, NewNode, Node, Vfs, VfsResult};
use files::{OpenFiles, allocate_mode, fopen_flags, open_how};
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileAttr, FileHandle, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use names::{caller, checked, new_node, rename_mode};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// Inode numbers are never used twice, so one generation is enough.
const GENERATION: Generation = Generation(0);
/// Unit in which `statfs` counts.
const STATFS_UNIT: u64 = 4096;
/// Inodes that `statfs` shows as free where something can be written: there is no limit.
const FREE_NODES: u64 = u32::MAX as u64;
/// Read requests that the kernel may have under way without somebody waiting for them.
const MAX_BACKGROUND: u16 = 64;
/// Most bytes of one write request.
const MAX_WRITE: u32 = 1 << 20;
/// Most bytes that one copy request is answered with: its answer has 32 bits.
const MAX_COPY: u64 = 1 << 31;

pub(crate) struct Adapter {
    vfs: Arc<dyn Vfs>,
    options: MountOptions,
    connection: Arc<Connection>,
    files: OpenFiles,
    directories: Mutex<HashMap<u64, Arc<Mutex<Marks>>>>,
    next_directory: AtomicU64,
}

impl Adapter {
    pub(crate) fn new(vfs: Arc<dyn Vfs>, options: MountOptions, connection: Arc<Connection>) -> Self {
        Self {
            vfs,
            options,
            connection,
            files: OpenFiles::default(),
            directories: Mutex::default(),
            next_directory: AtomicU64::new(1),
        }
    }

    fn name<'a>(&self, name: &'a OsStr) -> Result<&'a [u8], Errno> {
        checked(self.vfs.name_policy(), name)
    }

    fn offer_passthrough(&self, config: &mut KernelConfig) {
        // One file upon another: the file behind is on no stacked filesystem.
        let possible = rustix::process::geteuid().is_root()
            && !self.options.read_only
            && config.set_max_stack_depth(1).is_ok()
            && config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok();
        if possible {
            self.files.allow_passthrough();
            self.connection.set_passthrough();
        } else {
            let _ = config.set_max_stack_depth(0);
        }
    }

    /// Who sets an access list and is not in the file's group takes its
    /// set-group-id bit away. The kernel would say so
    /// (`FUSE_SETXATTR_ACL_KILL_SGID`), were the library able to hear it.
    fn kill_set_group(&self, request: &Request, node: Node) -> VfsResult<()> {
        if request.uid() == 0 {
            return Ok(());
        }
        let Attributes { permissions, group, .. } = self.vfs.attributes(node)?;
        if permissions & SET_GROUP == 0 || in_group(request, group) {
            return Ok(());
        }
        let change = AttributeChange { permissions: Some(permissions & !SET_GROUP), ..Default::default() };
        self.vfs.set_attributes(caller(request, 0), node, None, &change).map(drop)
    }

    fn answer_entry(&self, operation: &'static str, node: u64, made: VfsResult<Attributes>, reply: ReplyEntry) {
        match made {
            Ok(attributes) => reply.entry_with_ttls(
                &self.options.attribute_ttl,
                &self.options.entry_ttl,
                &file_attr(&attributes),
                GENERATION,
            ),
            Err(error) => reply.error(translate(operation, node, &error)),
        }
    }

    fn answer_attributes(&self, operation: &'static str, node: u64, found: VfsResult<Attributes>, reply: ReplyAttr) {
        match found {
            Ok(attributes) => reply.attr(&self.options.attribute_ttl, &file_attr(&attributes)),
            Err(error) => reply.error(translate(operation, node, &error)),
        }
    }

    /// The one time to live of replies that have no two.
    fn common_ttl(&self) -> Duration {
        self.options.entry_ttl.min(self.options.attribute_ttl)
    }
}

fn node(ino: INodeNo) -> Node {
    Node::new(ino.0)
}

fn handle(handle: FileHandle) -> Handle {
    Handle::new(handle.0)
}

fn answer(operation: &'static str, node: u64, done: VfsResult<()>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(translate(operation, node, &error)),
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // Each setter answers with the nearest possible value where the wish is out of reach.
        let ahead = self.options.max_read_ahead.max(4096);
        let _ = config.set_max_write(MAX_WRITE).or_else(|nearest| config.set_max_write(nearest));
        let _ = config.set_max_readahead(ahead).or_else(|nearest| config.set_max_readahead(nearest));
        let _ = config.set_max_background(MAX_BACKGROUND);
        // Locks are not among them: without FUSE_POSIX_LOCKS and FUSE_FLOCK_LOCKS the kernel keeps both kinds
        // itself. Neither is FUSE_WRITEBACK_CACHE: every write is here before it returns to its program.
        for capability in [
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_ASYNC_DIO,
            // Always, not by the kernel's guess (READDIRPLUS_AUTO): `find -size`, `ls -l` and `tar` read a whole
            // directory before they look at its entries, and would look up every one by itself.
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
            InitFlags::FUSE_EXPORT_SUPPORT,
            InitFlags::FUSE_POSIX_ACL,
            // A default ACL takes the umask's place: only the filesystem knows whether there is one.
            InitFlags::FUSE_DONT_MASK,
            // Else the kernel asks for security.capability before each write.
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
            InitFlags::FUSE_ATOMIC_O_TRUNC,
        ] {
            if let Err(missing) = config.add_capabilities(capability) {
                tracing::debug!(?missing, "the kernel does not offer a FUSE capability");
            }
        }
        self.offer_passthrough(config);
        Ok(())
    }

    fn destroy(&mut self) {
        // The kernel does not wait for releases when it unmounts: some never arrive.
        for handle in self.files.take() {
            self.vfs.release(handle);
        }
        if self.connection.end() {
            self.vfs.detach();
        }
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        // A server that exports the mount asks for these two by name.
        let found = match name.as_bytes() {
            b"." => self.vfs.attributes(node(parent)),
            b".." => self.vfs.parent(node(parent)).and_then(|parent| self.vfs.attributes(parent)),
            _ => match self.name(name) {
                Ok(name) => self.vfs.lookup(node(parent), name),
                Err(errno) => return reply.error(errno),
            },
        };
        match found {
            Err(error) if error.class() == ErrorClass::NotFound => {
                reply.entry_with_ttls(&Duration::ZERO, &self.options.negative_ttl, &no_entry(), GENERATION);
            }
            found => self.answer_entry("lookup", parent.0, found, reply),
        }
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        self.answer_attributes("getattr", ino.0, self.vfs.attributes(node(ino)), reply);
    }

    fn readlink(&self, _request: &Request, ino: INodeNo, reply: ReplyData) {
        match self.vfs.read_link(node(ino)) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(translate("readlink", ino.0, &error)),
        }
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let how = open_how(flags);
        match self.open_file(request, node(ino), how) {
            Ok(opened) => {
                let served = self.files.begin(node(ino), &opened, |file| reply.open_backing(file));
                let (number, flags) =
                    (FileHandle(opened.handle.number()), fopen_flags(how, opened.cache, served.as_deref()));
                match served.as_ref().and_then(|served| served.id.as_ref()) {
                    Some(id) => reply.opened_passthrough(number, flags, id),
                    None => reply.opened(number, flags),
                }
            }
            Err(error) => reply.error(translate("open", ino.0, &error)),
        }
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let name = match self.name(name) {
            Ok(name) => name,
            Err(errno) => return reply.error(errno),
        };
        let how = open_how(OpenFlags(flags));
        let made = self.vfs.create(caller(request, umask), node(parent), name, permissions(mode), how);
        match made {
            Ok((attributes, opened)) => {
                let served = self.files.begin(attributes.node, &opened, |file| reply.open_backing(file));
                let (number, flags) =
                    (FileHandle(opened.handle.number()), fopen_flags(how, opened.cache, served.as_deref()));
                let (ttl, attr) = (self.common_ttl(), file_attr(&attributes));
                match served.as_ref().and_then(|served| served.id.as_ref()) {
                    Some(id) => reply.created_passthrough(&ttl, &attr, GENERATION, number, flags, id),
                    None => reply.created(&ttl, &attr, GENERATION, number, flags),
                }
            }
            // Somebody was faster, and the program would be content with that file. It cannot be opened here, as the
            // kernel checks no permissions of what was just made; but it looks again, and opens what it finds.
            Err(error) if error.class() == ErrorClass::Exists && flags & libc::O_EXCL == 0 => {
                reply.error(Errno::ESTALE);
            }
            Err(error) => reply.error(translate("create", parent.0, &error)),
        }
    }

    fn read(
        &self,
        _request: &Request,
        ino: INodeNo,
        file: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut reply = Some(reply);
        let outcome = self.vfs.read(handle(file), offset, size, &mut |bytes| {
            if let Some(reply) = reply.take() {
                reply.data(bytes);
            }
        });
        match (outcome, reply) {
            (Ok(()), Some(reply)) => reply.data(&[]),
            (Err(error), Some(reply)) => reply.error(translate("read", ino.0, &error)),
            (_, None) => {}
        }
    }

    fn write(
        &self,
        _request: &Request,
        ino: INodeNo,
        file: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let kill = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let written =
            self.vfs.write(handle(file), offset, data, kill).and_then(|()| self.sync_if_asked(handle(file), flags));
        match written {
            // No request is longer than MAX_WRITE.
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(translate("write", ino.0, &error)),
        }
    }

    fn release(
        &self,
        _request: &Request,
        _ino: INodeNo,
        file: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.files.end(handle(file));
        self.vfs.release(handle(file));
        reply.ok();
    }

    fn flush(&self, _request: &Request, ino: INodeNo, file: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        answer("flush", ino.0, self.vfs.flush(handle(file)), reply);
    }

    fn fsync(&self, _request: &Request, ino: INodeNo, file: FileHandle, data_only: bool, reply: ReplyEmpty) {
        answer("fsync", ino.0, self.vfs.sync(handle(file), data_only), reply);
    }

    fn fsyncdir(&self, _request: &Request, ino: INodeNo, _handle: FileHandle, _data: bool, reply: ReplyEmpty) {
        answer("fsyncdir", ino.0, self.vfs.sync_directory(node(ino)), reply);
    }

    fn opendir(&self, _request: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let handle = self.next_directory.fetch_add(1, Ordering::Relaxed);
        self.directories.lock().unwrap_or_else(PoisonError::into_inner).insert(handle, Arc::default());
        reply.opened(FileHandle(handle), FopenFlags::empty());
    }

    fn readdir(&self, _request: &Request, ino: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listed = self.list(node(ino), handle, offset, &mut |node, name, next, _, kind| {
            reply.add(INodeNo(node.number()), next, file_type(kind), OsStr::from_bytes(name))
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(translate("readdir", ino.0, &error)),
        }
    }

    fn readdirplus(
        &self,
        _request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let ttl = self.common_ttl();
        let listed = self.list(node(ino), handle, offset, &mut |node, name, next, attributes, kind| {
            let attr = match attributes {
                Some(attributes) => file_attr(attributes),
                // The kernel takes number and type of `.` and `..`, and nothing else.
                None => FileAttr { ino: INodeNo(node.number()), kind: file_type(kind), ..no_entry() },
            };
            reply.add(attr.ino, next, OsStr::from_bytes(name), &ttl, &attr, GENERATION)
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(translate("readdirplus", ino.0, &error)),
        }
    }

    fn releasedir(&self, _request: &Request, _ino: INodeNo, handle: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        self.directories.lock().unwrap_or_else(PoisonError::into_inner).remove(&handle.0);
        reply.ok();
    }

    fn statfs(&self, _request: &Request, ino: INodeNo, reply: ReplyStatfs) {
        let free_nodes = if self.options.read_only { 0 } else { FREE_NODES };
        match self.vfs.space() {
            Ok(space) => reply.statfs(
                space.total / STATFS_UNIT,
                space.free / STATFS_UNIT,
                space.available / STATFS_UNIT,
                space.nodes + free_nodes,
                free_nodes,
                STATFS_UNIT as u32,
                blockframe_api::NamePolicy::MAX_NAME as u32,
                STATFS_UNIT as u32,
            ),
            Err(error) => reply.error(translate("statfs", ino.0, &error)),
        }
    }

    fn getxattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        match self.vfs.extended_attribute(node(ino), name.as_bytes()) {
            Ok(value) => reply_xattr(&value, size, reply),
            Err(error) => reply.error(translate("getxattr", ino.0, &error)),
        }
    }

    fn listxattr(&self, _request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        match self.vfs.extended_attributes(node(ino)) {
            Ok(names) => {
                let mut list = Vec::new();
                for name in names {
                    list.extend_from_slice(&name);
                    list.push(0);
                }
                reply_xattr(&list, size, reply);
            }
            Err(error) => reply.error(translate("listxattr", ino.0, &error)),
        }
    }

    fn access(&self, _request: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        // With default_permissions the kernel decides, and this stops it from asking.
        reply.error(Errno::ENOSYS);
    }

    fn lseek(&self, _request: &Request, ino: INodeNo, file: FileHandle, at: i64, whence: i32, reply: ReplyLseek) {
        let data = match whence {
            libc::SEEK_DATA => true,
            libc::SEEK_HOLE => false,
            _ => return reply.error(Errno::EINVAL),
        };
        let Ok(offset) = u64::try_from(at) else { return reply.error(Errno::ENXIO) };
        match self.vfs.seek(handle(file), offset, data) {
            Ok(found) => match i64::try_from(found) {
                Ok(found) => reply.offset(found),
                Err(_) => reply.error(Errno::EOVERFLOW),
            },
            Err(error) => reply.error(translate("lseek", ino.0, &error)),
        }
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        user: Option<u32>,
        group: Option<u32>,
        size: Option<u64>,
        accessed: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        file: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = Wanted { mode, user, group, size, accessed, modified }.change(request.uid() == 0);
        let changed = self.vfs.set_attributes(caller(request, 0), node(ino), file.map(handle), &change);
        self.answer_attributes("setattr", ino.0, changed, reply);
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        device: u32,
        reply: ReplyEntry,
    ) {
        let name = match self.name(name) {
            Ok(name) => name,
            Err(errno) => return reply.error(errno),
        };
        let Some(what) = new_node(mode, device) else { return reply.error(Errno::EINVAL) };
        let made = self.vfs.make(caller(request, umask), node(parent), name, permissions(mode), what);
        self.answer_entry("mknod", parent.0, made, reply);
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let name = match self.name(name) {
            Ok(name) => name,
            Err(errno) => return reply.error(errno),
        };
        let caller = caller(request, umask);
        let made = self.vfs.make(caller, node(parent), name, permissions(mode), NewNode::Directory);
        self.answer_entry("mkdir", parent.0, made, reply);
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let name = match self.name(name) {
            Ok(name) => name,
            Err(errno) => return reply.error(errno),
        };
        let what = NewNode::Symlink(target.as_os_str().as_bytes());
        let made = self.vfs.make(caller(request, 0), node(parent), name, 0o777, what);
        self.answer_entry("symlink", parent.0, made, reply);
    }

    fn link(&self, _request: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = match self.name(name) {
            Ok(name) => name,
            Err(errno) => return reply.error(errno),
        };
        self.answer_entry("link", ino.0, self.vfs.link(node(ino), node(parent), name), reply);
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer("unlink", parent.0, self.vfs.unlink(node(parent), name.as_bytes()), reply);
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer("rmdir", parent.0, self.vfs.remove_directory(node(parent), name.as_bytes()), reply);
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let Some(mode) = rename_mode(flags) else { return reply.error(Errno::EINVAL) };
        let new_name = match self.name(new_name) {
            Ok(name) => name,
            Err(errno) => return reply.error(errno),
        };
        answer(
            "rename",
            parent.0,
            self.vfs.rename(node(parent), name.as_bytes(), node(new_parent), new_name, mode),
            reply,
        );
    }

    fn setxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let Some(mode) = xattr_mode(flags) else { return reply.error(Errno::EINVAL) };
        let name = name.as_bytes();
        let killed = if name == ACCESS_LIST { self.kill_set_group(request, node(ino)) } else { Ok(()) };
        let set = killed.and_then(|()| self.vfs.set_extended_attribute(node(ino), name, value, mode));
        answer("setxattr", ino.0, set, reply);
    }

    fn removexattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer("removexattr", ino.0, self.vfs.remove_extended_attribute(node(ino), name.as_bytes()), reply);
    }

    fn fallocate(
        &self,
        _request: &Request,
        ino: INodeNo,
        file: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let Some(mode) = allocate_mode(mode) else { return reply.error(Errno::EOPNOTSUPP) };
        answer("fallocate", ino.0, self.vfs.allocate(handle(file), offset, length, mode), reply);
    }

    fn copy_file_range(
        &self,
        _request: &Request,
        from: INodeNo,
        from_file: FileHandle,
        from_offset: u64,
        _to: INodeNo,
        to_file: FileHandle,
        to_offset: u64,
        length: u64,
        flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let length = length.min(MAX_COPY);
        match self.vfs.copy_range(handle(from_file), from_offset, handle(to_file), to_offset, length) {
            // No more than MAX_COPY.
            Ok(copied) => reply.written(copied.min(MAX_COPY) as u32),
            Err(error) => reply.error(translate("copy_file_range", from.0, &error)),
        }
    }

    fn ioctl(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _data: &[u8],
        _room: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }
}
