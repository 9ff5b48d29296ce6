//! The filesystem's operations.

use super::acl::{ACCESS, Acl, DEFAULT};
use super::names::Place;
use super::{CAPACITY, Inode, MAX_ATTRIBUTES, MAX_SIZE, MemoryVfs, error};
use crate::{
    AllocateMode, AttributeChange, Attributes, Caller, DirectoryEntry, ErrorClass, Handle, Kernel, NewNode, Node,
    OpenHow, OpenedFile, RenameMode, SpaceUsage, TimeChange, Timestamp, Vfs, VfsResult, XattrMode,
};
use std::ops::Bound;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

/// Bytes that are copied at a time.
const COPY: u64 = 1 << 20;

fn moment(change: TimeChange, now: Timestamp) -> Timestamp {
    match change {
        TimeChange::Now => now,
        TimeChange::To(time) => time,
    }
}

/// The end of a range that a file can have.
fn range_end(offset: u64, length: u64) -> VfsResult<u64> {
    match offset.checked_add(length) {
        Some(end) if end <= MAX_SIZE => Ok(end),
        _ => error(ErrorClass::TooLarge, "no file can be that long"),
    }
}

fn apply(inode: &mut Inode, change: &AttributeChange, now: Timestamp) -> VfsResult<()> {
    if let Some(size) = change.size {
        range_end(size, 0)?;
        inode.content_mut()?.resize(size);
        inode.touch(now);
    }
    if change.kill_privileges {
        inode.kill_privileges();
    }
    if let Some(permissions) = change.permissions {
        inode.permissions = permissions;
        if let Some(mut acl) = inode.attributes.get(ACCESS).and_then(|value| Acl::parse(value)) {
            acl.set_bits(permissions);
            inode.attributes.insert(ACCESS.to_vec(), acl.to_value());
        }
    }
    inode.user = change.user.unwrap_or(inode.user);
    inode.group = change.group.unwrap_or(inode.group);
    inode.accessed = change.accessed.map_or(inode.accessed, |time| moment(time, now));
    inode.modified = change.modified.map_or(inode.modified, |time| moment(time, now));
    inode.changed = now;
    Ok(())
}

/// Sets a list of access rights: the access list changes the permission bits,
/// and is not kept when they say it all.
fn set_acl(inode: &mut Inode, name: &[u8], value: &[u8]) -> VfsResult<()> {
    let Some(acl) = Acl::parse(value) else { return error(ErrorClass::Invalid, "not an access control list") };
    if name == DEFAULT && !inode.is_directory() {
        return error(ErrorClass::Denied, "only a directory has a default list");
    }
    if name == ACCESS && !acl.is_empty() {
        inode.permissions = inode.permissions & !0o777 | acl.bits();
    }
    if acl.is_empty() || (name == ACCESS && acl.is_minimal()) {
        inode.attributes.remove(name);
    } else {
        inode.attributes.insert(name.to_vec(), value.to_vec());
    }
    Ok(())
}

impl Vfs for MemoryVfs {
    fn lookup(&self, parent: Node, name: &[u8]) -> VfsResult<Attributes> {
        let state = self.state();
        let node = state.find(parent, name)?;
        Ok(state.get(node)?.show(node))
    }

    fn attributes(&self, node: Node) -> VfsResult<Attributes> {
        Ok(self.state().get(node)?.show(node))
    }

    fn read_link(&self, node: Node) -> VfsResult<Vec<u8>> {
        match &self.state().get(node)?.body {
            super::Body::Symlink(target) => Ok(target.clone()),
            _ => error(ErrorClass::Invalid, "not a symbolic link"),
        }
    }

    fn open(&self, node: Node, how: OpenHow) -> VfsResult<OpenedFile> {
        let mut state = self.state();
        let content = state.get_mut(node)?.content_mut()?;
        if how.truncate {
            content.resize(0);
            state.get_mut(node)?.touch((self.now)());
        }
        Ok(OpenedFile { handle: state.open(node)?, cache: self.cache, backing: None })
    }

    fn read(&self, handle: Handle, offset: u64, length: u32, deliver: &mut dyn FnMut(&[u8])) -> VfsResult<()> {
        let bytes = {
            let state = self.state();
            state.get(state.opened(handle)?)?.content()?.read(offset, length.into())
        };
        deliver(&bytes);
        Ok(())
    }

    fn seek(&self, handle: Handle, offset: u64, data: bool) -> VfsResult<u64> {
        let state = self.state();
        let content = state.get(state.opened(handle)?)?.content()?;
        match (offset < content.size()).then(|| content.seek(offset, data)).flatten() {
            Some(found) => Ok(found),
            None => error(ErrorClass::NoSuchRange, "nothing follows"),
        }
    }

    fn release(&self, handle: Handle) {
        let mut state = self.state();
        let Some(node) = state.handles.remove(&handle.number()) else { return };
        if let Ok(inode) = state.get_mut(node) {
            inode.opened -= 1;
        }
        state.forget_unused(node);
    }

    fn read_directory(
        &self,
        node: Node,
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(DirectoryEntry<'_>) -> bool,
    ) -> VfsResult<()> {
        let state = self.state();
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        for (name, &node) in state.get(node)?.entries()?.range::<[u8], _>((start, Bound::Unbounded)) {
            if !visit(DirectoryEntry { name, attributes: state.get(node)?.show(node) }) {
                break;
            }
        }
        Ok(())
    }

    fn parent(&self, node: Node) -> VfsResult<Node> {
        match self.state().get(node)?.body {
            super::Body::Directory { parent, .. } => Ok(parent),
            _ => error(ErrorClass::NotDirectory, "not a directory"),
        }
    }

    fn extended_attribute(&self, node: Node, name: &[u8]) -> VfsResult<Vec<u8>> {
        match self.state().get(node)?.attributes.get(name) {
            Some(value) => Ok(value.clone()),
            None => error(ErrorClass::NoAttribute, "no such attribute"),
        }
    }

    fn extended_attributes(&self, node: Node) -> VfsResult<Vec<Vec<u8>>> {
        Ok(self.state().get(node)?.attributes.keys().cloned().collect())
    }

    fn space(&self) -> VfsResult<SpaceUsage> {
        let state = self.state();
        let used: u64 = state.nodes.iter().map(|(&node, inode)| inode.show(node).allocated).sum();
        let free = CAPACITY.saturating_sub(used);
        Ok(SpaceUsage { total: CAPACITY, free, available: free, nodes: state.nodes.len() as u64 })
    }

    fn attach(&self, kernel: Kernel) {
        *self.kernel.lock().unwrap_or_else(PoisonError::into_inner) = Some(kernel);
    }

    fn detach(&self) {
        *self.kernel.lock().unwrap_or_else(PoisonError::into_inner) = None;
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
        _how: OpenHow,
    ) -> VfsResult<(Attributes, OpenedFile)> {
        let mut state = self.state();
        let node = state.make(caller, Place { parent, name }, permissions, NewNode::File, (self.now)())?;
        let handle = state.open(node)?;
        Ok((state.get(node)?.show(node), OpenedFile { handle, cache: self.cache, backing: None }))
    }

    fn make(
        &self,
        caller: Caller,
        parent: Node,
        name: &[u8],
        permissions: u16,
        what: NewNode<'_>,
    ) -> VfsResult<Attributes> {
        let mut state = self.state();
        let node = state.make(caller, Place { parent, name }, permissions, what, (self.now)())?;
        Ok(state.get(node)?.show(node))
    }

    fn link(&self, node: Node, parent: Node, name: &[u8]) -> VfsResult<Attributes> {
        let mut state = self.state();
        state.link(node, Place { parent, name }, (self.now)())?;
        Ok(state.get(node)?.show(node))
    }

    fn unlink(&self, parent: Node, name: &[u8]) -> VfsResult<()> {
        self.state().unlink(Place { parent, name }, (self.now)())
    }

    fn remove_directory(&self, parent: Node, name: &[u8]) -> VfsResult<()> {
        self.state().remove_directory(Place { parent, name }, (self.now)())
    }

    fn rename(&self, parent: Node, name: &[u8], new_parent: Node, new_name: &[u8], mode: RenameMode) -> VfsResult<()> {
        let (from, to) = (Place { parent, name }, Place { parent: new_parent, name: new_name });
        self.state().rename(from, to, mode, (self.now)())
    }

    fn set_attributes(
        &self,
        _caller: Caller,
        node: Node,
        _handle: Option<Handle>,
        change: &AttributeChange,
    ) -> VfsResult<Attributes> {
        let mut state = self.state();
        let inode = state.get_mut(node)?;
        apply(inode, change, (self.now)())?;
        Ok(inode.show(node))
    }

    fn set_extended_attribute(&self, node: Node, name: &[u8], value: &[u8], mode: XattrMode) -> VfsResult<()> {
        let mut state = self.state();
        let inode = state.get_mut(node)?;
        match (mode, inode.attributes.contains_key(name)) {
            (XattrMode::Create, true) => return error(ErrorClass::Exists, "the attribute exists"),
            (XattrMode::Replace, false) => return error(ErrorClass::NoAttribute, "no such attribute"),
            _ => {}
        }
        let others = inode.attributes.iter().filter(|(other, _)| other.as_slice() != name);
        let used: usize = others.map(|(name, value)| name.len() + value.len()).sum();
        if used + name.len() + value.len() > MAX_ATTRIBUTES {
            return error(ErrorClass::NoSpace, "the attributes are too long together");
        }
        if name == ACCESS || name == DEFAULT {
            set_acl(inode, name, value)?;
        } else {
            inode.attributes.insert(name.to_vec(), value.to_vec());
        }
        inode.changed = (self.now)();
        Ok(())
    }

    fn remove_extended_attribute(&self, node: Node, name: &[u8]) -> VfsResult<()> {
        let mut state = self.state();
        let inode = state.get_mut(node)?;
        if inode.attributes.remove(name).is_none() {
            // Who removes a list wants the mode alone to decide, as it does already.
            if name == ACCESS || name == DEFAULT {
                return Ok(());
            }
            return error(ErrorClass::NoAttribute, "no such attribute");
        }
        inode.changed = (self.now)();
        Ok(())
    }

    fn write(&self, handle: Handle, offset: u64, data: &[u8], kill_privileges: bool) -> VfsResult<()> {
        let mut state = self.state();
        let node = state.opened(handle)?;
        let inode = state.get_mut(node)?;
        range_end(offset, data.len() as u64)?;
        inode.content_mut()?.write(offset, data);
        inode.touch((self.now)());
        if kill_privileges {
            inode.kill_privileges();
        }
        Ok(())
    }

    fn allocate(&self, handle: Handle, offset: u64, length: u64, mode: AllocateMode) -> VfsResult<()> {
        let mut state = self.state();
        let node = state.opened(handle)?;
        let inode = state.get_mut(node)?;
        let end = range_end(offset, length)?;
        let content = inode.content_mut()?;
        match mode {
            // There is always room.
            AllocateMode::KeepSize => {}
            AllocateMode::Extend => content.grow(end),
            AllocateMode::Punch | AllocateMode::ZeroKeepSize => content.zero(offset, length),
            AllocateMode::Zero => {
                content.zero(offset, length);
                content.grow(end);
            }
        }
        inode.touch((self.now)());
        Ok(())
    }

    fn copy_range(&self, from: Handle, from_offset: u64, to: Handle, to_offset: u64, length: u64) -> VfsResult<u64> {
        let mut state = self.state();
        let (from, to) = (state.opened(from)?, state.opened(to)?);
        let length = length.min(state.get(from)?.content()?.size().saturating_sub(from_offset));
        range_end(to_offset, length)?;
        let mut done = 0;
        while done < length {
            let bytes = state.get(from)?.content()?.read(from_offset + done, COPY.min(length - done));
            state.get_mut(to)?.content_mut()?.write(to_offset + done, &bytes);
            done += bytes.len() as u64;
        }
        if length > 0 {
            state.get_mut(to)?.touch((self.now)());
        }
        Ok(length)
    }

    fn sync(&self, _handle: Handle, _data_only: bool) -> VfsResult<()> {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn sync_directory(&self, _node: Node) -> VfsResult<()> {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}
