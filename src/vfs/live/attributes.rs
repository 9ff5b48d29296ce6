//! Changing attributes, and showing those of files that are being written.

use super::LiveVfs;
use super::file::LiveFile;
use super::names::without_privileges;
use crate::base::Timestamp;
use crate::catalog::Inode;
use crate::format::entry::{MAX_XATTR_VALUE, MAX_XATTRS};
use crate::format::{NodeBody, NodeMeta};
use crate::namespace::{Draft, Stop};
use crate::vfs::acl::{self, Acl};
use crate::vfs::{attributes, error};
use blockframe_api::{
    AttributeChange, Attributes, ErrorClass, Handle, Node, TimeChange, VfsError, VfsResult, XattrMode,
};

/// Most bytes of all extended attributes of a node.
const MAX_XATTR_BYTES: usize = 1 << 20;
const CAPABILITY: &[u8] = b"security.capability";

fn no_attribute() -> VfsError {
    VfsError::new(ErrorClass::NoAttribute, "no such extended attribute")
}

fn xattr<'m>(meta: &'m NodeMeta, name: &[u8]) -> Option<&'m [u8]> {
    meta.xattrs.iter().find(|(stored, _)| stored == name).map(|(_, value)| value.as_slice())
}

fn put_xattr(meta: &mut NodeMeta, name: &[u8], value: &[u8]) {
    match meta.xattrs.binary_search_by(|(stored, _)| stored.as_slice().cmp(name)) {
        Ok(at) => meta.xattrs[at].1 = value.to_vec(),
        Err(at) => meta.xattrs.insert(at, (name.to_vec(), value.to_vec())),
    }
}

fn take_xattr(meta: &mut NodeMeta, name: &[u8]) -> bool {
    let before = meta.xattrs.len();
    meta.xattrs.retain(|(stored, _)| stored != name);
    meta.xattrs.len() < before
}

/// Sets the permission bits, and those of the ACL with them.
fn set_permissions(meta: &mut NodeMeta, permissions: u16) {
    meta.permissions = permissions & 0o7777;
    if let Some(mut list) = xattr(meta, acl::ACCESS).and_then(Acl::parse) {
        list.set_mode(permissions);
        put_xattr(meta, acl::ACCESS, &list.to_bytes());
    }
}

impl LiveVfs {
    /// Puts what was written, and the namespace does not know yet, over the attributes.
    pub(super) fn show_newest(&self, file: &LiveFile, attributes: &mut Attributes) {
        let content = file.content();
        let Some(staged) = &content.staged else { return };
        self.note_passthrough(file, staged);
        attributes.size = staged.size();
        let base = content.base.as_ref().map(|base| &base.content);
        attributes.allocated = staged.allocated(&|range| base.map_or(0, |base| super::content::allocated(base, range)));
        drop(content);
        let times = file.times();
        if let Some(written) = times.written {
            attributes.modified = times.modified.unwrap_or(written);
            attributes.changed = attributes.changed.max(written);
        }
    }

    pub(super) fn change_attributes(
        &self,
        node: Node,
        handle: Option<Handle>,
        change: &AttributeChange,
    ) -> VfsResult<Attributes> {
        if let Some(size) = change.size {
            self.truncate_node(node, handle, size)?;
        }
        let file = self.files.get(node);
        let resolve = |draft: &Draft<'_>, time: TimeChange| match time {
            TimeChange::Now => draft.now(),
            TimeChange::To(time) => time,
        };
        let changed = self.namespace.change(|draft| {
            let mut inode = (*draft.node(node)?).clone();
            let meta = &mut inode.meta;
            if let Some(permissions) = change.permissions {
                set_permissions(meta, permissions);
            }
            meta.user = change.user.unwrap_or(meta.user);
            meta.group = change.group.unwrap_or(meta.group);
            if change.kill_privileges {
                drop_privileges(meta, matches!(inode.body, NodeBody::Directory));
            }
            if let Some(time) = change.accessed {
                meta.accessed = Some(resolve(draft, time));
            }
            let modified = change.modified.map(|time| resolve(draft, time));
            if let Some(time) = modified {
                // An access time that nobody set would seem to follow.
                meta.accessed.get_or_insert(meta.modified);
                meta.modified = time;
            }
            meta.changed = draft.now();
            draft.put(inode);
            Ok((modified, draft.node(node)?))
        });
        let (modified, inode) = changed.map_err(|error| error::of_namespace(&error))?;
        if let (Some(time), Some(file)) = (modified, &file) {
            self.modified_is(file, time);
        }
        Ok(self.shown(&inode))
    }

    /// The modification time was set, after whatever was written.
    fn modified_is(&self, file: &LiveFile, time: Timestamp) {
        if let Some(staged) = file.staged() {
            self.note_passthrough(file, &staged);
        }
        let mut times = file.times();
        if times.written.is_some() {
            times.modified = Some(time);
        }
    }

    /// An ordinary user has written: the file acts with nobody's privileges any more.
    pub(super) fn kill_privileges(&self, node: Node) -> VfsResult<()> {
        let needed = |inode: &Inode| {
            without_privileges(inode.meta.permissions) != inode.meta.permissions
                || xattr(&inode.meta, CAPABILITY).is_some()
        };
        if !needed(&*self.inode(node)?) {
            return Ok(());
        }
        let changed = self.namespace.change(|draft| {
            let mut inode = (*draft.node(node)?).clone();
            drop_privileges(&mut inode.meta, false);
            inode.meta.changed = draft.now();
            draft.put(inode);
            Ok(())
        });
        changed.map_err(|error| error::of_namespace(&error))
    }

    pub(super) fn get_xattr(&self, node: Node, name: &[u8]) -> VfsResult<Vec<u8>> {
        let inode = self.inode(node)?;
        match attributes::virtual_name(&inode, name) {
            Some(short) => self.virtual_xattr(&inode, short),
            None => xattr(&inode.meta, name).map(<[u8]>::to_vec).ok_or_else(no_attribute),
        }
    }

    pub(super) fn set_xattr(&self, node: Node, name: &[u8], value: &[u8], mode: XattrMode) -> VfsResult<()> {
        if name.len() > blockframe_api::NamePolicy::MAX_NAME {
            return Err(VfsError::new(ErrorClass::NameTooLong, "an attribute's name has at most 255 bytes"));
        }
        if value.len() > MAX_XATTR_VALUE {
            return Err(VfsError::new(ErrorClass::NoSpace, "an attribute's value has at most 65536 bytes"));
        }
        let changed = self.namespace.change(|draft| {
            let mut inode = (*draft.node(node)?).clone();
            if attributes::virtual_name(&inode, name).is_some() {
                // Somebody copies back what an earlier version listed: it says what is, whatever is set.
                return Ok(());
            }
            match (mode, xattr(&inode.meta, name).is_some()) {
                (XattrMode::Create, true) => {
                    return Err(VfsError::new(ErrorClass::Exists, "the attribute exists").into());
                }
                (XattrMode::Replace, false) => return Err(no_attribute().into()),
                _ => {}
            }
            let is_directory = matches!(inode.body, NodeBody::Directory);
            set_stored(&mut inode.meta, is_directory, name, value)?;
            inode.meta.changed = draft.now();
            draft.put(inode);
            Ok(())
        });
        changed.map_err(|error| error::of_namespace(&error))
    }

    pub(super) fn remove_xattr(&self, node: Node, name: &[u8]) -> VfsResult<()> {
        let changed = self.namespace.change(|draft| {
            let mut inode = (*draft.node(node)?).clone();
            if !take_xattr(&mut inode.meta, name) {
                // Who removes an ACL wants the mode alone to decide, as it does already.
                let is_acl = name == acl::ACCESS || name == acl::DEFAULT;
                return if is_acl { Ok(()) } else { Err(no_attribute().into()) };
            }
            inode.meta.changed = draft.now();
            draft.put(inode);
            Ok(())
        });
        changed.map_err(|error| error::of_namespace(&error))
    }
}

/// Removes what gives privileges to whoever executes the file.
fn drop_privileges(meta: &mut NodeMeta, is_directory: bool) {
    if !is_directory {
        meta.permissions = without_privileges(meta.permissions);
        take_xattr(meta, CAPABILITY);
    }
}

fn set_stored(meta: &mut NodeMeta, is_directory: bool, name: &[u8], value: &[u8]) -> Result<(), Stop> {
    if name == acl::DEFAULT && !is_directory {
        return Err(VfsError::new(ErrorClass::Denied, "only a directory has a default ACL").into());
    }
    if name == acl::ACCESS || name == acl::DEFAULT {
        let list = Acl::parse(value).ok_or_else(|| error::invalid("this is not an ACL"))?;
        if name == acl::ACCESS {
            meta.permissions = meta.permissions & !0o777 | list.mode();
            if list.is_only_mode() {
                take_xattr(meta, name);
                return Ok(());
            }
        }
    }
    put_xattr(meta, name, value);
    let bytes: usize = meta.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
    if meta.xattrs.len() > MAX_XATTRS || bytes > MAX_XATTR_BYTES {
        return Err(VfsError::new(ErrorClass::NoSpace, "the attributes of this file are too many or too long").into());
    }
    Ok(())
}
