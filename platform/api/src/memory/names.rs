//! Names: making, linking, moving and removing them.

use super::acl::{ACCESS, Acl, DEFAULT};
use super::{Body, Inode, MAX_LINKS, SET_GROUP, State, error};
use crate::memory::content::Content;
use crate::{Caller, ErrorClass, NamePolicy, NewNode, Node, RenameMode, Timestamp, VfsResult};
use std::collections::BTreeMap;

/// A name in a directory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Place<'a> {
    pub(super) parent: Node,
    pub(super) name: &'a [u8],
}

impl State {
    /// Checks that a name can be made.
    fn vacant(&self, place: Place<'_>) -> VfsResult<()> {
        let entries = self.get(place.parent)?.entries()?;
        if place.name.len() > NamePolicy::MAX_NAME {
            return error(ErrorClass::NameTooLong, "the name is too long");
        }
        if !NamePolicy::UnixBytes.allows(place.name) {
            return error(ErrorClass::Invalid, "not a name");
        }
        if entries.contains_key(place.name) {
            return error(ErrorClass::Exists, "the name exists");
        }
        Ok(())
    }

    /// Puts a name where none is. A directory's `..` follows.
    fn enter(&mut self, place: Place<'_>, node: Node, now: Timestamp) -> VfsResult<()> {
        let parent = self.get_mut(place.parent)?;
        parent.entries_mut()?.insert(place.name.to_vec(), node);
        parent.touch(now);
        if let Body::Directory { parent, .. } = &mut self.get_mut(node)?.body {
            *parent = place.parent;
            self.get_mut(place.parent)?.links += 1;
        }
        self.get_mut(node)?.changed = now;
        Ok(())
    }

    /// Takes a name away.
    fn leave(&mut self, place: Place<'_>, node: Node, now: Timestamp) -> VfsResult<()> {
        let directory = self.get(node)?.is_directory();
        let parent = self.get_mut(place.parent)?;
        parent.entries_mut()?.remove(place.name);
        parent.touch(now);
        if directory {
            parent.links -= 1;
        }
        self.get_mut(node)?.changed = now;
        Ok(())
    }

    /// The name was the node's, and is no more.
    fn drop_link(&mut self, node: Node) -> VfsResult<()> {
        let inode = self.get_mut(node)?;
        inode.links = if inode.is_directory() { 0 } else { inode.links - 1 };
        self.forget_unused(node);
        Ok(())
    }

    pub(super) fn make(
        &mut self,
        caller: Caller,
        place: Place<'_>,
        permissions: u16,
        what: NewNode<'_>,
        now: Timestamp,
    ) -> VfsResult<Node> {
        self.vacant(place)?;
        let node = Node::new(self.last_node + 1);
        let body = match what {
            NewNode::File => Body::File(Content::default()),
            NewNode::Directory => Body::Directory { parent: place.parent, entries: BTreeMap::new() },
            NewNode::Symlink(target) => Body::Symlink(target.to_vec()),
            NewNode::Fifo => Body::Fifo,
            NewNode::Socket => Body::Socket,
            NewNode::CharDevice(device) => Body::CharDevice(device),
            NewNode::BlockDevice(device) => Body::BlockDevice(device),
        };
        let mut inode = Inode::new(body, permissions, caller.user, caller.group, now);
        inherit(self.get(place.parent)?, &mut inode, caller.umask);
        if inode.is_directory() {
            inode.links = 2;
        }
        self.last_node = node.number();
        self.nodes.insert(node, inode);
        self.enter(place, node, now)?;
        Ok(node)
    }

    pub(super) fn link(&mut self, node: Node, place: Place<'_>, now: Timestamp) -> VfsResult<()> {
        let inode = self.get(node)?;
        if inode.is_directory() {
            return error(ErrorClass::Denied, "a directory has one name");
        }
        if inode.links == 0 {
            return error(ErrorClass::NotFound, "the node has no name any more");
        }
        if inode.links >= MAX_LINKS {
            return error(ErrorClass::TooManyLinks, "too many names");
        }
        self.vacant(place)?;
        self.enter(place, node, now)?;
        self.get_mut(node)?.links += 1;
        Ok(())
    }

    pub(super) fn unlink(&mut self, place: Place<'_>, now: Timestamp) -> VfsResult<()> {
        let node = self.find(place.parent, place.name)?;
        if self.get(node)?.is_directory() {
            return error(ErrorClass::IsDirectory, "a directory");
        }
        self.leave(place, node, now)?;
        self.drop_link(node)
    }

    pub(super) fn remove_directory(&mut self, place: Place<'_>, now: Timestamp) -> VfsResult<()> {
        let node = self.find(place.parent, place.name)?;
        if !self.get(node)?.entries()?.is_empty() {
            return error(ErrorClass::NotEmpty, "the directory is not empty");
        }
        self.leave(place, node, now)?;
        self.drop_link(node)
    }

    pub(super) fn rename(&mut self, from: Place<'_>, to: Place<'_>, mode: RenameMode, now: Timestamp) -> VfsResult<()> {
        let node = self.find(from.parent, from.name)?;
        let other = match self.find(to.parent, to.name) {
            Ok(other) => Some(other),
            Err(missing) if missing.class() == ErrorClass::NotFound && mode != RenameMode::Exchange => {
                self.vacant(to)?;
                None
            }
            Err(error) => return Err(error),
        };
        if mode == RenameMode::NoReplace && other.is_some() {
            return error(ErrorClass::Exists, "the new name exists");
        }
        if other == Some(node) {
            return Ok(());
        }
        self.must_not_contain(node, to.parent)?;
        match other {
            Some(other) if mode == RenameMode::Exchange => {
                self.must_not_contain(other, from.parent)?;
                self.leave(from, node, now)?;
                self.leave(to, other, now)?;
                self.enter(from, other, now)?;
            }
            Some(other) => {
                self.replaceable(node, other)?;
                self.leave(from, node, now)?;
                self.leave(to, other, now)?;
                self.drop_link(other)?;
            }
            None => self.leave(from, node, now)?,
        }
        self.enter(to, node, now)
    }

    fn replaceable(&self, node: Node, other: Node) -> VfsResult<()> {
        match (self.get(node)?.is_directory(), self.get(other)?.entries()) {
            (true, Ok(entries)) if entries.is_empty() => Ok(()),
            (true, Ok(_)) => error(ErrorClass::NotEmpty, "the directory at the new name is not empty"),
            (true, Err(_)) => error(ErrorClass::NotDirectory, "what has the new name is no directory"),
            (false, Ok(_)) => error(ErrorClass::IsDirectory, "what has the new name is a directory"),
            (false, Err(_)) => Ok(()),
        }
    }

    /// Checks that `node` does not lie above `below`, and is not that directory.
    fn must_not_contain(&self, node: Node, below: Node) -> VfsResult<()> {
        let mut at = below;
        loop {
            if at == node {
                return error(ErrorClass::Invalid, "a directory cannot lie within itself");
            }
            match self.get(at)?.body {
                Body::Directory { parent, .. } if at != Node::ROOT => at = parent,
                _ => return Ok(()),
            }
        }
    }
}

/// What a new node has from its directory: the group where the directory's
/// set-group-id bit says so, and the default ACL, which takes the umask's place.
fn inherit(directory: &Inode, inode: &mut Inode, umask: u16) {
    if directory.permissions & SET_GROUP != 0 {
        inode.group = directory.group;
        if inode.is_directory() {
            inode.permissions |= SET_GROUP;
        }
    }
    if matches!(inode.body, Body::Symlink(_)) {
        return;
    }
    let Some(default) = directory.attributes.get(DEFAULT).and_then(|value| Acl::parse(value)) else {
        inode.permissions &= !umask;
        return;
    };
    let access = default.inherited(inode.permissions);
    inode.permissions = inode.permissions & !0o777 | access.bits();
    if !access.is_minimal() {
        inode.attributes.insert(ACCESS.to_vec(), access.to_value());
    }
    if inode.is_directory() {
        inode.attributes.insert(DEFAULT.to_vec(), default.to_value());
    }
}
