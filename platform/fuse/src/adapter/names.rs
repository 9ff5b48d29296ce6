//! Listings of directories, and what is made under a name.

use super::Adapter;
use super::attributes::permissions;
use crate::directory::{FIRST, Marks};
use blockframe_api::{Attributes, Caller, ErrorClass, NamePolicy, NewNode, Node, NodeKind, RenameMode, VfsError};
use fuser::{Errno, FileHandle, RenameFlags, Request};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, PoisonError};

/// Puts an entry into a reply: its node, name, the offset behind it, its
/// attributes (not of `.` and `..`) and kind. True when the reply is full and
/// the entry is not in it.
type AddEntry<'a> = dyn FnMut(Node, &[u8], u64, Option<&Attributes>, NodeKind) -> bool + 'a;

impl Adapter {
    fn marks(&self, handle: FileHandle) -> Option<Arc<Mutex<Marks>>> {
        self.directories.lock().unwrap_or_else(PoisonError::into_inner).get(&handle.0).cloned()
    }

    /// Lists from `offset` on, until the reply is full.
    pub(super) fn list(
        &self,
        node: Node,
        handle: FileHandle,
        offset: u64,
        add: &mut AddEntry<'_>,
    ) -> Result<(), VfsError> {
        let Some(marks) = self.marks(handle) else {
            return Err(VfsError::new(ErrorClass::Invalid, format!("directory handle {} is not open", handle.0)));
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
        let mut names = Vec::new();
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
            names.push(entry.name.into());
            true
        })?;
        marks.lock().unwrap_or_else(PoisonError::into_inner).remember(start, names);
        Ok(())
    }
}

/// A name as the filesystem takes it. The kernel lets through longer ones
/// than it has here.
pub(super) fn checked(policy: NamePolicy, name: &OsStr) -> Result<&[u8], Errno> {
    let name = name.as_bytes();
    if policy.allows(name) {
        Ok(name)
    } else if name.len() > NamePolicy::MAX_NAME {
        Err(Errno::ENAMETOOLONG)
    } else {
        Err(Errno::EINVAL)
    }
}

/// Who asks, with the permission bits that what is made shall not have.
pub(super) fn caller(request: &Request, umask: u32) -> Caller {
    Caller { user: request.uid(), group: request.gid(), umask: permissions(umask) & 0o777 }
}

/// What `mknod` shall make: none for a type that is made in another way.
pub(super) fn new_node(mode: u32, device: u32) -> Option<NewNode<'static>> {
    match mode & libc::S_IFMT {
        0 | libc::S_IFREG => Some(NewNode::File),
        libc::S_IFIFO => Some(NewNode::Fifo),
        libc::S_IFSOCK => Some(NewNode::Socket),
        libc::S_IFCHR => Some(NewNode::CharDevice(device)),
        libc::S_IFBLK => Some(NewNode::BlockDevice(device)),
        _ => None,
    }
}

/// The flags of `renameat2` that are understood.
pub(super) fn rename_mode(flags: RenameFlags) -> Option<RenameMode> {
    if flags.is_empty() {
        Some(RenameMode::Replace)
    } else if flags == RenameFlags::RENAME_NOREPLACE {
        Some(RenameMode::NoReplace)
    } else if flags == RenameFlags::RENAME_EXCHANGE {
        Some(RenameMode::Exchange)
    } else {
        None
    }
}
