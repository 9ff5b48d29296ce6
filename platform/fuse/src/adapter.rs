//! FUSE requests to `Vfs` calls, and answers back.

use crate::directory::{FIRST, Marks};
use crate::errno::translate;
use crate::options::MountOptions;
use blockframe_api::{Attributes, CachePolicy, Handle, Node, NodeKind, Timestamp, Vfs, VfsError};
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Inode numbers are never used twice, so one generation is enough.
const GENERATION: Generation = Generation(0);
/// Unit in which `statfs` counts.
const STATFS_UNIT: u64 = 4096;
/// Read requests that the kernel may have under way without somebody waiting for them.
const MAX_BACKGROUND: u16 = 64;

/// Puts an entry into a reply: its node, name, the offset behind it, its
/// attributes (not of `.` and `..`) and kind. True when the reply is full and
/// the entry is not in it.
type AddEntry<'a> = dyn FnMut(Node, &[u8], u64, Option<&Attributes>, NodeKind) -> bool + 'a;

pub(crate) struct Adapter {
    vfs: Arc<dyn Vfs>,
    options: MountOptions,
    directories: Mutex<HashMap<u64, Arc<Mutex<Marks>>>>,
    next_directory: AtomicU64,
}

impl Adapter {
    pub(crate) fn new(vfs: Arc<dyn Vfs>, options: MountOptions) -> Self {
        Self { vfs, options, directories: Mutex::default(), next_directory: AtomicU64::new(1) }
    }

    fn marks(&self, handle: FileHandle) -> Option<Arc<Mutex<Marks>>> {
        self.directories.lock().unwrap_or_else(PoisonError::into_inner).get(&handle.0).cloned()
    }

    /// Lists from `offset` on, until the reply is full.
    fn list(&self, node: Node, handle: FileHandle, offset: u64, add: &mut AddEntry<'_>) -> Result<(), VfsError> {
        let Some(marks) = self.marks(handle) else {
            return Err(VfsError::new(
                blockframe_api::ErrorClass::Invalid,
                format!("directory handle {} is not open", handle.0),
            ));
        };
        if offset < 1 && add(node, b".", 1, None, NodeKind::Directory) {
            return Ok(());
        }
        if offset < FIRST && add(self.vfs.parent(node)?, b"..", FIRST, None, NodeKind::Directory) {
            return Ok(());
        }
        let start = offset.max(FIRST);
        let (after, mut skip) = marks.lock().unwrap_or_else(PoisonError::into_inner).find(start);
        let mut at = start;
        let mut last = Vec::new();
        self.vfs.read_directory(node, after.as_deref(), &mut |entry| {
            if skip > 0 {
                skip -= 1;
                return true;
            }
            let attributes = &entry.attributes;
            if add(attributes.node, entry.name, at + 1, Some(attributes), attributes.kind) {
                return false;
            }
            at += 1;
            last.clear();
            last.extend_from_slice(entry.name);
            true
        })?;
        if at > start {
            marks.lock().unwrap_or_else(PoisonError::into_inner).remember(at, &last);
        }
        Ok(())
    }
}

fn node(ino: INodeNo) -> Node {
    Node::new(ino.0)
}

fn file_type(kind: NodeKind) -> FileType {
    match kind {
        NodeKind::File => FileType::RegularFile,
        NodeKind::Directory => FileType::Directory,
        NodeKind::Symlink => FileType::Symlink,
        NodeKind::Fifo => FileType::NamedPipe,
        NodeKind::Socket => FileType::Socket,
        NodeKind::CharDevice => FileType::CharDevice,
        NodeKind::BlockDevice => FileType::BlockDevice,
    }
}

fn system_time(time: Timestamp) -> SystemTime {
    let whole = Duration::from_secs(time.seconds.unsigned_abs());
    let second = if time.seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    second.and_then(|second| second.checked_add(Duration::from_nanos(time.nanoseconds.into()))).unwrap_or(UNIX_EPOCH)
}

fn file_attr(attributes: &Attributes) -> FileAttr {
    FileAttr {
        ino: INodeNo(attributes.node.number()),
        size: attributes.size,
        blocks: attributes.allocated.div_ceil(512),
        atime: system_time(attributes.accessed),
        mtime: system_time(attributes.modified),
        ctime: system_time(attributes.changed),
        crtime: system_time(attributes.born),
        kind: file_type(attributes.kind),
        perm: attributes.permissions,
        nlink: attributes.links,
        uid: attributes.user,
        gid: attributes.group,
        rdev: attributes.device,
        blksize: attributes.block_size,
        flags: 0,
    }
}

/// An entry that says "no such name": inode 0 with a time to live.
fn no_entry() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

/// Answers an attribute request: its size when the caller only asks for that.
fn reply_xattr(value: &[u8], room: u32, reply: ReplyXattr) {
    match u32::try_from(value.len()) {
        Ok(len) if room == 0 => reply.size(len),
        Ok(len) if len <= room => reply.data(value),
        _ => reply.error(Errno::ERANGE),
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // Each setter answers with the nearest possible value where the wish is out of reach.
        let ahead = self.options.max_read_ahead.max(4096);
        let _ = config.set_max_write(ahead).or_else(|nearest| config.set_max_write(nearest));
        let _ = config.set_max_readahead(ahead).or_else(|nearest| config.set_max_readahead(nearest));
        let _ = config.set_max_background(MAX_BACKGROUND);
        for capability in [
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_ASYNC_DIO,
            // Always, not by the kernel's guess (READDIRPLUS_AUTO): `find -size`, `ls -l` and `tar` read a whole
            // directory before they look at its entries, and would look up every one by itself.
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
            InitFlags::FUSE_EXPORT_SUPPORT,
        ] {
            if let Err(missing) = config.add_capabilities(capability) {
                tracing::debug!(?missing, "the kernel does not offer a FUSE capability");
            }
        }
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        // A server that exports the mount asks for these two by name.
        let found = match name.as_bytes() {
            b"." => self.vfs.attributes(node(parent)),
            b".." => self.vfs.parent(node(parent)).and_then(|parent| self.vfs.attributes(parent)),
            name => self.vfs.lookup(node(parent), name),
        };
        let (entry_ttl, attribute_ttl) = (&self.options.entry_ttl, &self.options.attribute_ttl);
        match found {
            Ok(attributes) => {
                reply.entry_with_ttls(attribute_ttl, entry_ttl, &file_attr(&attributes), GENERATION);
            }
            Err(error) => match translate("lookup", parent.0, &error) {
                errno if errno.code() == libc::ENOENT => {
                    reply.entry_with_ttls(&Duration::ZERO, &self.options.negative_ttl, &no_entry(), GENERATION);
                }
                errno => reply.error(errno),
            },
        }
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        match self.vfs.attributes(node(ino)) {
            Ok(attributes) => reply.attr(&self.options.attribute_ttl, &file_attr(&attributes)),
            Err(error) => reply.error(translate("getattr", ino.0, &error)),
        }
    }

    fn readlink(&self, _request: &Request, ino: INodeNo, reply: ReplyData) {
        match self.vfs.read_link(node(ino)) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(translate("readlink", ino.0, &error)),
        }
    }

    fn open(&self, _request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if flags.acc_mode() != OpenAccMode::O_RDONLY {
            return reply.error(Errno::EROFS);
        }
        match self.vfs.open(node(ino), blockframe_api::OpenHow { read: true, ..Default::default() }) {
            Ok(opened) => {
                let cache = match opened.cache {
                    CachePolicy::Keep => FopenFlags::FOPEN_KEEP_CACHE,
                    CachePolicy::Refresh => FopenFlags::empty(),
                    CachePolicy::Bypass => FopenFlags::FOPEN_DIRECT_IO,
                };
                reply.opened(FileHandle(opened.handle.number()), cache | FopenFlags::FOPEN_NOFLUSH);
            }
            Err(error) => reply.error(translate("open", ino.0, &error)),
        }
    }

    fn read(
        &self,
        _request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut reply = Some(reply);
        let outcome = self.vfs.read(Handle::new(handle.0), offset, size, &mut |bytes| {
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

    fn release(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.vfs.release(Handle::new(handle.0));
        reply.ok();
    }

    fn flush(&self, _request: &Request, _ino: INodeNo, _handle: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _request: &Request, _ino: INodeNo, _handle: FileHandle, _data: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsyncdir(&self, _request: &Request, _ino: INodeNo, _handle: FileHandle, _data: bool, reply: ReplyEmpty) {
        reply.ok();
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
        let ttl = self.options.entry_ttl.min(self.options.attribute_ttl);
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
        match self.vfs.space() {
            Ok(space) => reply.statfs(
                space.total / STATFS_UNIT,
                space.free / STATFS_UNIT,
                space.available / STATFS_UNIT,
                space.nodes,
                0,
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

    fn lseek(&self, _request: &Request, ino: INodeNo, handle: FileHandle, at: i64, whence: i32, reply: ReplyLseek) {
        let data = match whence {
            libc::SEEK_DATA => true,
            libc::SEEK_HOLE => false,
            _ => return reply.error(Errno::EINVAL),
        };
        let Ok(offset) = u64::try_from(at) else { return reply.error(Errno::ENXIO) };
        match self.vfs.seek(Handle::new(handle.0), offset, data) {
            Ok(found) => match i64::try_from(found) {
                Ok(found) => reply.offset(found),
                Err(_) => reply.error(Errno::EOVERFLOW),
            },
            Err(error) => reply.error(translate("lseek", ino.0, &error)),
        }
    }

    // The mount is read-only. The kernel refuses most of these itself.

    fn setattr(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        _size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply.error(Errno::EROFS);
    }

    fn mknod(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EROFS);
    }

    fn mkdir(&self, _request: &Request, _parent: INodeNo, _name: &OsStr, _mode: u32, _umask: u32, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn unlink(&self, _request: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn rmdir(&self, _request: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn symlink(&self, _request: &Request, _parent: INodeNo, _name: &OsStr, _target: &Path, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn rename(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _new_parent: INodeNo,
        _new_name: &OsStr,
        _flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EROFS);
    }

    fn link(&self, _request: &Request, _ino: INodeNo, _parent: INodeNo, _name: &OsStr, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn write(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _offset: u64,
        _data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::EROFS);
    }

    fn setxattr(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _name: &OsStr,
        _value: &[u8],
        _flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EROFS);
    }

    fn removexattr(&self, _request: &Request, _ino: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn create(
        &self,
        _request: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        reply.error(Errno::EROFS);
    }

    fn fallocate(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _offset: u64,
        _length: u64,
        _mode: i32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EROFS);
    }

    fn copy_file_range(
        &self,
        _request: &Request,
        _from: INodeNo,
        _from_handle: FileHandle,
        _from_offset: u64,
        _to: INodeNo,
        _to_handle: FileHandle,
        _to_offset: u64,
        _length: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::EROFS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_keep_their_nanoseconds() {
        let time = system_time(Timestamp { seconds: -2, nanoseconds: 250_000_000 });
        assert_eq!(UNIX_EPOCH.duration_since(time).unwrap(), Duration::from_millis(1750));
        assert_eq!(system_time(Timestamp { seconds: 3, nanoseconds: 4 }), UNIX_EPOCH + Duration::new(3, 4));
    }
}
