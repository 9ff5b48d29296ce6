//! `.blockframe` in the root of a mount: the archive as of times, and links to
//! damaged files. It is found by its name and not listed, so that nothing
//! that copies or removes a tree walks into it. Nothing in it can be changed.
//!
//! It is a layer around a filesystem. Its nodes and handles have numbers with
//! the top bit, which the filesystem within never gives out.

mod damaged;
mod entries;
mod link_names;
mod numbers;
mod views;

use super::live::LiveVfs;
use super::{ArchiveVfs, DAEMON, Parts, error};
use blockframe_api::{
    AllocateMode, AttributeChange, Attributes, CachePolicy, Caller, DirectoryEntry, ErrorClass, Handle, Kernel,
    NamePolicy, NewNode, Node, OpenHow, OpenedFile, RenameMode, SpaceUsage, Vfs, VfsError, VfsResult, XattrMode,
};
use damaged::Damaged;
use numbers::{PRIVATE, Place, is_private};
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use views::Views;

/// The hidden directory's name.
const NAME: &str = ".blockframe";
/// Bytes that are copied at once out of a view.
const COPY: u64 = 1 << 20;

const README_TEXT: &str = "\
This directory is made by BlockFrame. It is not listed, and nothing in it can
be changed.

snapshots/  The archive as it was. Name any time that has passed:
                ls .blockframe/snapshots/2026-11-20T12:00:00Z
                cp -a .blockframe/snapshots/2026-11-20/letters .
            Times are UTC unless they end with an offset (2026-11-20T12:00+01:00).
            A listing shows whole hours around which something was changed or
            removed. Contents reach as far back as history is kept.

damaged/    Links to the files that were not whole when they were verified or
            read last; / in their paths is shown as : here. `blockframe repair`
            mends what can be mended.
";

/// A filesystem with the hidden directory in its root. An entry of that name
/// that the filesystem has itself goes before it.
pub struct WithPrivate<V> {
    inner: Arc<V>,
    parts: Parts,
    views: Views,
    damaged: Damaged,
    settle: Settle,
    handles: RwLock<HashMap<u64, Open>>,
    next_handle: AtomicU64,
}

/// Returns when the catalog has every change made so far.
type Settle = Box<dyn Fn() -> VfsResult<()> + Send + Sync>;

/// An open file of the hidden directory.
#[derive(Clone)]
enum Open {
    Readme,
    /// In a view, which stays for it even when it is known no more.
    View(Arc<ArchiveVfs>, Handle),
}

impl<V> fmt::Debug for WithPrivate<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WithPrivate").finish_non_exhaustive()
    }
}

impl WithPrivate<ArchiveVfs> {
    /// The hidden directory in a read-only filesystem that shows the present.
    pub fn over(inner: Arc<ArchiveVfs>) -> Self {
        let parts = inner.parts();
        Self::new(inner, parts, Box::new(|| Ok(())))
    }
}

impl WithPrivate<LiveVfs> {
    /// The hidden directory in a filesystem that can be written.
    pub fn over_live(inner: Arc<LiveVfs>) -> Self {
        let parts = Parts {
            archive: Arc::clone(&inner.archive),
            catalog: Arc::clone(inner.namespace.catalog()),
            health: Arc::clone(&inner.health),
            reader: Arc::clone(&inner.reader),
            load: Arc::clone(&inner.load),
        };
        let live = Arc::clone(&inner);
        let settle = move || live.namespace.flush().map_err(|error| error::of_namespace(&error));
        Self::new(inner, parts, Box::new(settle))
    }
}

fn read_only<T>() -> VfsResult<T> {
    Err(VfsError::new(ErrorClass::ReadOnly, format!("nothing below {NAME} can be changed")))
}

fn no_attribute<T>() -> VfsResult<T> {
    Err(VfsError::new(ErrorClass::NoAttribute, "no such extended attribute"))
}

impl<V> WithPrivate<V> {
    fn new(inner: Arc<V>, parts: Parts, settle: Settle) -> Self {
        Self {
            inner,
            views: Views::new(parts.clone()),
            damaged: Damaged::new(parts.clone()),
            parts,
            settle,
            handles: RwLock::default(),
            next_handle: AtomicU64::new(1),
        }
    }

    /// The filesystem without the hidden directory.
    pub fn inner(&self) -> &Arc<V> {
        &self.inner
    }

    /// An open file, if the handle is of this layer.
    fn private(&self, handle: Handle) -> VfsResult<Option<Open>> {
        if handle.number() & PRIVATE == 0 {
            return Ok(None);
        }
        let handles = self.handles.read().unwrap_or_else(PoisonError::into_inner);
        let open = handles.get(&handle.number()).cloned();
        open.map(Some).ok_or_else(|| error::invalid("the handle is not open"))
    }

    fn keep(&self, open: Open) -> OpenedFile {
        let number = PRIVATE | self.next_handle.fetch_add(1, Ordering::Relaxed);
        self.handles.write().unwrap_or_else(PoisonError::into_inner).insert(number, open);
        OpenedFile { handle: Handle::new(number), cache: CachePolicy::Keep, backing: None }
    }
}

impl<V: Vfs> WithPrivate<V> {
    /// Whether this name in this directory is the hidden directory.
    fn hides(&self, parent: Node, name: &[u8]) -> VfsResult<bool> {
        if parent != Node::ROOT || name != NAME.as_bytes() {
            return Ok(false);
        }
        match self.inner.lookup(parent, name) {
            Ok(_) => Ok(false),
            Err(error) if error.class() == ErrorClass::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Refuses a change of names where none can be changed.
    fn check_name(&self, parent: Node, name: &[u8]) -> VfsResult<()> {
        if is_private(parent) || self.hides(parent, name)? { read_only() } else { Ok(()) }
    }

    /// Refuses a new name where none can be made.
    fn check_new_name(&self, parent: Node, name: &[u8]) -> VfsResult<()> {
        if is_private(parent) {
            return read_only();
        }
        if self.hides(parent, name)? {
            return Err(VfsError::new(ErrorClass::Exists, format!("{NAME} is there already")));
        }
        Ok(())
    }

    /// Copies out of a view, until `length` bytes or the end of the file.
    fn copy_out(
        &self,
        (vfs, from): (&ArchiveVfs, Handle),
        from_offset: u64,
        to: Handle,
        to_offset: u64,
        length: u64,
    ) -> VfsResult<u64> {
        let mut copied = 0;
        while copied < length {
            let part = (length - copied).min(COPY);
            let mut bytes = Vec::new();
            let read = vfs.read(from, from_offset.saturating_add(copied), part as u32, &mut |data| bytes.extend(data));
            if read.is_ok() && bytes.is_empty() {
                break;
            }
            let written = read.and_then(|()| self.inner.write(to, to_offset.saturating_add(copied), &bytes, false));
            match written {
                Err(error) if copied == 0 => return Err(error),
                // What was copied counts; who goes on meets the error again.
                Err(_) => break,
                Ok(()) => copied += bytes.len() as u64,
            }
        }
        Ok(copied)
    }
}

impl<V: Vfs> Vfs for WithPrivate<V> {
    fn name_policy(&self) -> NamePolicy {
        self.inner.name_policy()
    }

    fn lookup(&self, parent: Node, name: &[u8]) -> VfsResult<Attributes> {
        if is_private(parent) {
            return self.private_lookup(Place::of(parent)?, name);
        }
        match self.inner.lookup(parent, name) {
            Err(error) if error.class() == ErrorClass::NotFound && parent == Node::ROOT && name == NAME.as_bytes() => {
                self.private_attributes(Place::Directory)
            }
            found => found,
        }
    }

    fn attributes(&self, node: Node) -> VfsResult<Attributes> {
        if is_private(node) { self.private_attributes(Place::of(node)?) } else { self.inner.attributes(node) }
    }

    fn read_link(&self, node: Node) -> VfsResult<Vec<u8>> {
        if !is_private(node) {
            return self.inner.read_link(node);
        }
        match Place::of(node)? {
            Place::Link(file) => self.damaged.target(file),
            Place::View(id, within) => self.view(node, id)?.read_link(within),
            _ => Err(error::invalid("not a symbolic link")),
        }
    }

    fn open(&self, node: Node, how: OpenHow) -> VfsResult<OpenedFile> {
        if !is_private(node) {
            return self.inner.open(node, how);
        }
        let place = Place::of(node)?;
        if how.write || how.truncate {
            return read_only();
        }
        match place {
            Place::Readme => Ok(self.keep(Open::Readme)),
            Place::View(id, within) => {
                let vfs = self.view(node, id)?;
                let opened = vfs.open(within, how)?;
                Ok(OpenedFile { cache: self.views.cache_policy(&vfs), ..self.keep(Open::View(vfs, opened.handle)) })
            }
            Place::Link(_) => Err(error::invalid("only regular files have content")),
            _ => Err(VfsError::new(ErrorClass::IsDirectory, "a directory has no content")),
        }
    }

    fn read(&self, handle: Handle, offset: u64, length: u32, deliver: &mut dyn FnMut(&[u8])) -> VfsResult<()> {
        match self.private(handle)? {
            None => self.inner.read(handle, offset, length, deliver),
            Some(Open::View(vfs, within)) => vfs.read(within, offset, length, deliver),
            Some(Open::Readme) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(README_TEXT.len());
                let end = start.saturating_add(length as usize).min(README_TEXT.len());
                deliver(&README_TEXT.as_bytes()[start..end]);
                Ok(())
            }
        }
    }

    fn seek(&self, handle: Handle, offset: u64, data: bool) -> VfsResult<u64> {
        match self.private(handle)? {
            None => self.inner.seek(handle, offset, data),
            Some(Open::View(vfs, within)) => vfs.seek(within, offset, data),
            Some(Open::Readme) if offset >= README_TEXT.len() as u64 => Err(error::no_such_range()),
            Some(Open::Readme) => Ok(if data { offset } else { README_TEXT.len() as u64 }),
        }
    }

    fn release(&self, handle: Handle) {
        if handle.number() & PRIVATE == 0 {
            return self.inner.release(handle);
        }
        let open = self.handles.write().unwrap_or_else(PoisonError::into_inner).remove(&handle.number());
        if let Some(Open::View(vfs, within)) = open {
            vfs.release(within);
        }
    }

    fn read_directory(
        &self,
        node: Node,
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(DirectoryEntry<'_>) -> bool,
    ) -> VfsResult<()> {
        if is_private(node) {
            self.private_list(Place::of(node)?, after, visit)
        } else {
            self.inner.read_directory(node, after, visit)
        }
    }

    fn parent(&self, node: Node) -> VfsResult<Node> {
        if is_private(node) { self.private_parent(Place::of(node)?) } else { self.inner.parent(node) }
    }

    fn extended_attribute(&self, node: Node, name: &[u8]) -> VfsResult<Vec<u8>> {
        if !is_private(node) {
            return self.inner.extended_attribute(node, name);
        }
        match Place::of(node)? {
            // A view is no mount, whose daemon could be waited for.
            Place::View(_, Node::ROOT) if name == DAEMON.as_bytes() => no_attribute(),
            Place::View(id, within) => self.view(node, id)?.extended_attribute(within, name),
            _ => no_attribute(),
        }
    }

    fn extended_attributes(&self, node: Node) -> VfsResult<Vec<Vec<u8>>> {
        if !is_private(node) {
            return self.inner.extended_attributes(node);
        }
        match Place::of(node)? {
            Place::View(id, within) => self.view(node, id)?.extended_attributes(within),
            _ => Ok(Vec::new()),
        }
    }

    fn space(&self) -> VfsResult<SpaceUsage> {
        self.inner.space()
    }

    fn attach(&self, kernel: Kernel) {
        self.inner.attach(kernel);
    }

    fn detach(&self) {
        self.inner.detach();
    }

    fn is_writable(&self) -> bool {
        self.inner.is_writable()
    }

    fn create(
        &self,
        caller: Caller,
        parent: Node,
        name: &[u8],
        permissions: u16,
        how: OpenHow,
    ) -> VfsResult<(Attributes, OpenedFile)> {
        self.check_new_name(parent, name)?;
        self.inner.create(caller, parent, name, permissions, how)
    }

    fn make(
        &self,
        caller: Caller,
        parent: Node,
        name: &[u8],
        permissions: u16,
        what: NewNode<'_>,
    ) -> VfsResult<Attributes> {
        self.check_new_name(parent, name)?;
        self.inner.make(caller, parent, name, permissions, what)
    }

    fn link(&self, node: Node, parent: Node, name: &[u8]) -> VfsResult<Attributes> {
        self.check_new_name(parent, name)?;
        if is_private(node) {
            return Err(VfsError::new(ErrorClass::Denied, "what was has no new names; copy it"));
        }
        self.inner.link(node, parent, name)
    }

    fn unlink(&self, parent: Node, name: &[u8]) -> VfsResult<()> {
        self.check_name(parent, name)?;
        self.inner.unlink(parent, name)
    }

    fn remove_directory(&self, parent: Node, name: &[u8]) -> VfsResult<()> {
        self.check_name(parent, name)?;
        self.inner.remove_directory(parent, name)
    }

    fn rename(&self, parent: Node, name: &[u8], new_parent: Node, new_name: &[u8], mode: RenameMode) -> VfsResult<()> {
        self.check_name(parent, name)?;
        self.check_name(new_parent, new_name)?;
        self.inner.rename(parent, name, new_parent, new_name, mode)
    }

    fn set_attributes(
        &self,
        caller: Caller,
        node: Node,
        handle: Option<Handle>,
        change: &AttributeChange,
    ) -> VfsResult<Attributes> {
        if is_private(node) { read_only() } else { self.inner.set_attributes(caller, node, handle, change) }
    }

    fn set_extended_attribute(&self, node: Node, name: &[u8], value: &[u8], mode: XattrMode) -> VfsResult<()> {
        if is_private(node) { read_only() } else { self.inner.set_extended_attribute(node, name, value, mode) }
    }

    fn remove_extended_attribute(&self, node: Node, name: &[u8]) -> VfsResult<()> {
        if is_private(node) { read_only() } else { self.inner.remove_extended_attribute(node, name) }
    }

    fn write(&self, handle: Handle, offset: u64, data: &[u8], kill_privileges: bool) -> VfsResult<()> {
        match self.private(handle)? {
            Some(_) => read_only(),
            None => self.inner.write(handle, offset, data, kill_privileges),
        }
    }

    fn allocate(&self, handle: Handle, offset: u64, length: u64, mode: AllocateMode) -> VfsResult<()> {
        match self.private(handle)? {
            Some(_) => read_only(),
            None => self.inner.allocate(handle, offset, length, mode),
        }
    }

    fn copy_range(&self, from: Handle, from_offset: u64, to: Handle, to_offset: u64, length: u64) -> VfsResult<u64> {
        if self.private(to)?.is_some() {
            return read_only();
        }
        match self.private(from)? {
            None => self.inner.copy_range(from, from_offset, to, to_offset, length),
            Some(Open::View(vfs, within)) => self.copy_out((&vfs, within), from_offset, to, to_offset, length),
            Some(Open::Readme) => {
                Err(VfsError::new(ErrorClass::NotSupported, "this file is copied by reading and writing"))
            }
        }
    }

    fn flush(&self, handle: Handle) -> VfsResult<()> {
        match self.private(handle)? {
            Some(_) => Ok(()),
            None => self.inner.flush(handle),
        }
    }

    fn sync(&self, handle: Handle, data_only: bool) -> VfsResult<()> {
        match self.private(handle)? {
            Some(_) => Ok(()),
            None => self.inner.sync(handle, data_only),
        }
    }

    fn sync_directory(&self, node: Node) -> VfsResult<()> {
        if is_private(node) { Ok(()) } else { self.inner.sync_directory(node) }
    }

    fn sync_all(&self) -> VfsResult<()> {
        self.inner.sync_all()
    }
}
