//! Making, linking, removing and moving names.

use super::LiveVfs;
use crate::catalog::Inode;
use crate::format::entry::MAX_TARGET;
use crate::format::{FileContent, NodeBody, NodeMeta};
use crate::namespace::{Draft, Removed, Stop};
use crate::staging::StagedFile;
use crate::vfs::acl::{self, Acl};
use crate::vfs::error;
use blockframe_api::{Caller, ErrorClass, NamePolicy, NewNode, Node, NodeKind, RenameMode, VfsError, VfsResult};
use std::sync::Arc;

/// Most names of one node.
const MAX_LINKS: u32 = 1 << 20;
const SET_USER: u16 = 0o4000;
const SET_GROUP: u16 = 0o2000;

/// What a name that is to be removed must lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Directory,
    NoDirectory,
}

pub(super) fn check_length(name: &[u8]) -> VfsResult<()> {
    if name.len() > NamePolicy::MAX_NAME {
        return Err(VfsError::new(ErrorClass::NameTooLong, "the name is longer than 255 bytes"));
    }
    Ok(())
}

fn check_name(name: &[u8]) -> VfsResult<()> {
    check_length(name)?;
    if NamePolicy::UnixBytes.allows(name) { Ok(()) } else { Err(error::invalid("this cannot be a name")) }
}

fn refuse(class: ErrorClass, why: &str) -> Stop {
    VfsError::new(class, why).into()
}

fn exists() -> Stop {
    refuse(ErrorClass::Exists, "the name exists")
}

/// A directory in which names may change: `NotFound` when it was removed.
fn directory(draft: &mut Draft<'_>, node: Node) -> Result<Arc<Inode>, Stop> {
    draft.directory(node)
}

/// The directory's names have changed now.
fn touch(draft: &mut Draft<'_>, node: Node) -> Result<(), Stop> {
    let mut inode = (*draft.node(node)?).clone();
    inode.meta.modified = draft.now();
    inode.meta.changed = draft.now();
    draft.put(inode);
    Ok(())
}

/// The node's attributes have changed now.
fn touch_changed(draft: &mut Draft<'_>, node: Node) -> Result<(), Stop> {
    let mut inode = (*draft.node(node)?).clone();
    inode.meta.changed = draft.now();
    draft.put(inode);
    Ok(())
}

fn body_of(what: NewNode<'_>) -> NodeBody {
    match what {
        NewNode::File => NodeBody::File(FileContent::empty()),
        NewNode::Directory => NodeBody::Directory,
        NewNode::Symlink(target) => NodeBody::Symlink(target.to_vec()),
        NewNode::Fifo => NodeBody::Fifo,
        NewNode::Socket => NodeBody::Socket,
        NewNode::CharDevice(number) => NodeBody::CharDevice(number),
        NewNode::BlockDevice(number) => NodeBody::BlockDevice(number),
    }
}

/// Attributes of a new node: owner, group and permissions as acl(5) and
/// `inode_init_owner` of Linux say.
fn new_meta(parent: &Inode, caller: Caller, permissions: u16, kind: NodeKind, draft: &Draft<'_>) -> NodeMeta {
    let mut permissions = permissions & 0o7777;
    let mut group = caller.group;
    if parent.meta.permissions & SET_GROUP != 0 {
        group = parent.meta.group;
        if kind == NodeKind::Directory {
            permissions |= SET_GROUP;
        }
    }
    let mut xattrs = Vec::new();
    let inherited = parent.meta.xattrs.iter().find(|(name, _)| name == acl::DEFAULT);
    match inherited.and_then(|(_, value)| Acl::parse(value)) {
        Some(default) if kind != NodeKind::Symlink => {
            let access = default.inherited(permissions);
            permissions = permissions & !0o777 | access.mode();
            if !access.is_only_mode() {
                xattrs.push((acl::ACCESS.to_vec(), access.to_bytes()));
            }
            if kind == NodeKind::Directory {
                xattrs.push((acl::DEFAULT.to_vec(), default.to_bytes()));
            }
        }
        _ if kind == NodeKind::Symlink => permissions = 0o777,
        _ => permissions &= !(caller.umask & 0o777),
    }
    let now = draft.now();
    NodeMeta {
        permissions,
        user: caller.user,
        group,
        accessed: None,
        modified: now,
        changed: now,
        born: Some(now),
        xattrs,
    }
}

impl LiveVfs {
    /// Makes a node and its name; with `open` a handle is counted on it.
    pub(super) fn make_node(
        &self,
        caller: Caller,
        parent: Node,
        name: &[u8],
        permissions: u16,
        what: NewNode<'_>,
        open: bool,
    ) -> VfsResult<Arc<Inode>> {
        check_name(name)?;
        if let NewNode::Symlink(target) = what
            && (target.is_empty() || target.len() > MAX_TARGET)
        {
            return Err(VfsError::new(ErrorClass::NameTooLong, "the target of a symbolic link has 1 to 4095 bytes"));
        }
        let made = self.namespace.change(|draft| {
            let above = directory(draft, parent)?;
            if draft.child(parent, name)?.is_some() {
                return Err(exists());
            }
            let body = body_of(what);
            let meta = new_meta(&above, caller, permissions, body.kind(), draft);
            let node = draft.make(meta, body);
            draft.add_name(parent, name, node)?;
            touch(draft, parent)?;
            if open {
                draft.open(node);
            }
            draft.node(node)
        });
        made.map_err(|error| error::of_namespace(&error))
    }

    pub(super) fn add_link(&self, node: Node, parent: Node, name: &[u8]) -> VfsResult<Arc<Inode>> {
        check_name(name)?;
        let linked = self.namespace.change(|draft| {
            directory(draft, parent)?;
            let inode = draft.node(node)?;
            if inode.is_directory() {
                return Err(refuse(ErrorClass::Denied, "a directory has one name"));
            }
            if inode.links == 0 {
                return Err(refuse(ErrorClass::NotFound, "the file was removed"));
            }
            if inode.links >= MAX_LINKS {
                return Err(refuse(ErrorClass::TooManyLinks, "the file has as many names as can be"));
            }
            if draft.child(parent, name)?.is_some() {
                return Err(exists());
            }
            draft.add_name(parent, name, node)?;
            touch_changed(draft, node)?;
            touch(draft, parent)?;
            draft.node(node)
        });
        linked.map_err(|error| error::of_namespace(&error))
    }

    pub(super) fn remove_name(&self, parent: Node, name: &[u8], wanted: Wanted) -> VfsResult<()> {
        check_length(name)?;
        let removed = self.namespace.change(|draft| {
            directory(draft, parent)?;
            let node = draft.child(parent, name)?.ok_or_else(|| Stop::from(error::no_name()))?;
            let is_directory = draft.node(node)?.is_directory();
            match wanted {
                Wanted::Directory if !is_directory => {
                    return Err(refuse(ErrorClass::NotDirectory, "not a directory"));
                }
                Wanted::NoDirectory if is_directory => {
                    return Err(refuse(ErrorClass::IsDirectory, "a directory"));
                }
                Wanted::Directory if !draft.is_empty(node)? => {
                    return Err(refuse(ErrorClass::NotEmpty, "the directory has entries"));
                }
                _ => {}
            }
            let removed = unname(draft, parent, name, node)?;
            touch(draft, parent)?;
            Ok((node, removed))
        });
        let (node, removed) = removed.map_err(|error| error::of_namespace(&error))?;
        self.after_removal(node, removed);
        Ok(())
    }

    /// A node that is gone has no live file.
    pub(super) fn after_removal(&self, node: Node, removed: Removed) {
        if removed == Removed::Gone
            && let Some(file) = self.files.get(node)
        {
            // Not within the change that removed it: a content's lock is never taken within one.
            let staged = file.content_mut().staged.take();
            if let Some(staged) = staged {
                self.discard_later(&staged);
            }
            self.files.forget_idle(&file);
        }
    }

    /// The staging file of a node that is gone is let go, once that is durable.
    fn discard_later(&self, staged: &StagedFile) {
        let queued = self.namespace.change(|draft| {
            draft.later(self.files.let_go(staged));
            Ok(())
        });
        if let Err(error) = queued {
            tracing::debug!(%error, "the staging file of a removed file stays until the next mount");
        }
    }

    pub(super) fn move_name(&self, from: (Node, &[u8]), to: (Node, &[u8]), mode: RenameMode) -> VfsResult<()> {
        check_length(from.1)?;
        check_name(to.1)?;
        let moved = self.namespace.change(|draft| {
            directory(draft, from.0)?;
            directory(draft, to.0)?;
            let node = draft.child(from.0, from.1)?.ok_or_else(|| Stop::from(error::no_name()))?;
            let standing = draft.child(to.0, to.1)?;
            match (standing, mode) {
                (Some(_), RenameMode::NoReplace) => return Err(exists()),
                (None, RenameMode::Exchange) => return Err(error::no_name().into()),
                // Two names of one file: POSIX lets both stay.
                (Some(other), _) if other == node => return Ok(None),
                _ => {}
            }
            refuse_cycle(draft, node, to.0)?;
            let gone = match (standing, mode) {
                (Some(other), RenameMode::Exchange) => {
                    refuse_cycle(draft, other, from.0)?;
                    exchange(draft, from, node, to, other)?;
                    None
                }
                (Some(other), _) => {
                    check_replaceable(draft, node, other)?;
                    let removed = unname(draft, to.0, to.1, other)?;
                    relocate(draft, from, to, node)?;
                    Some((other, removed))
                }
                (None, _) => {
                    relocate(draft, from, to, node)?;
                    None
                }
            };
            touch(draft, from.0)?;
            if to.0 != from.0 {
                touch(draft, to.0)?;
            }
            Ok(gone)
        });
        if let Some((node, removed)) = moved.map_err(|error| error::of_namespace(&error))? {
            self.after_removal(node, removed);
        }
        Ok(())
    }
}

/// Takes a name away, and the node with it when it was the last.
fn unname(draft: &mut Draft<'_>, parent: Node, name: &[u8], node: Node) -> Result<Removed, Stop> {
    draft.take_name(parent, name, node)?;
    touch_changed(draft, node)?;
    draft.drop_unnamed(node)
}

fn relocate(draft: &mut Draft<'_>, from: (Node, &[u8]), to: (Node, &[u8]), node: Node) -> Result<(), Stop> {
    draft.take_name(from.0, from.1, node)?;
    draft.add_name(to.0, to.1, node)?;
    touch_changed(draft, node)
}

fn exchange(
    draft: &mut Draft<'_>,
    from: (Node, &[u8]),
    node: Node,
    to: (Node, &[u8]),
    other: Node,
) -> Result<(), Stop> {
    draft.take_name(from.0, from.1, node)?;
    draft.take_name(to.0, to.1, other)?;
    draft.add_name(to.0, to.1, node)?;
    draft.add_name(from.0, from.1, other)?;
    touch_changed(draft, node)?;
    touch_changed(draft, other)
}

/// What `rename` may put over what.
fn check_replaceable(draft: &mut Draft<'_>, node: Node, other: Node) -> Result<(), Stop> {
    match (draft.node(node)?.is_directory(), draft.node(other)?.is_directory()) {
        (true, false) => Err(refuse(ErrorClass::NotDirectory, "a directory replaces directories only")),
        (false, true) => Err(refuse(ErrorClass::IsDirectory, "a directory stands at the new name")),
        (true, true) if !draft.is_empty(other)? => {
            Err(refuse(ErrorClass::NotEmpty, "the directory at the new name has entries"))
        }
        _ => Ok(()),
    }
}

/// A directory may not come to lie within itself.
fn refuse_cycle(draft: &mut Draft<'_>, node: Node, into: Node) -> Result<(), Stop> {
    if !draft.node(node)?.is_directory() {
        return Ok(());
    }
    let mut at = into;
    loop {
        if at == node {
            return Err(refuse(ErrorClass::Invalid, "a directory cannot be moved into itself"));
        }
        if at == Node::ROOT {
            return Ok(());
        }
        at = draft.parent(at)?;
    }
}

/// Whether these bits give privileges that a writer may not keep.
pub(super) fn without_privileges(permissions: u16) -> u16 {
    let group = if permissions & 0o010 != 0 { SET_GROUP } else { 0 };
    permissions & !(SET_USER | group)
}
