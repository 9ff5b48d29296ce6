//! The mounted archive that can be written: names from the live namespace,
//! bytes from staging over the archive's objects.
//!
//! A write goes to the file's staging file. Closing a descriptor publishes
//! what was written: a record in the namespace's queue, so that it becomes
//! durable in its order among the changes of names, and only after its bytes.
//! Later, in the background, the content is committed as an object.

mod attributes;
mod content;
pub(super) mod file;
pub(super) mod files;
mod names;
mod open;
mod outside;
mod recover;
pub(super) mod switch;

use super::attributes::HealthSource;
use super::error;
use super::reader::Reader;
use super::space::Space;
use super::{DAEMON, VfsLimits};
use crate::archive::Archive;
use crate::base::LatencyGauge;
use crate::catalog::{Catalog, Inode};
use crate::format::NodeBody;
use crate::namespace::Namespace;
use crate::staging::StagingArea;
use blockframe_api::{
    AllocateMode, AttributeChange, Attributes, Caller, DirectoryEntry, Handle, Kernel, NewNode, Node, OpenHow,
    OpenedFile, RenameMode, SpaceUsage, Vfs, VfsResult, XattrMode,
};
use file::LiveFile;
use files::Files;
use lru::LruCache;
use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Instant;

/// A moment for ages and delays, which no clock's correction changes.
#[expect(clippy::disallowed_methods, reason = "ages only; nothing of it is stored")]
pub(super) fn moment() -> Instant {
    Instant::now()
}

/// What `fsync` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SyncPolicy {
    /// The bytes are durable in staging, and the names in the journal.
    #[default]
    Staging,
    /// The bytes are committed, erasure-coded.
    Commit,
}

/// Commits staged content; told of what there is to do.
pub trait Drain: Send + Sync {
    /// A file with staged content was closed.
    fn closed(&self);

    /// Commits the newest published content of a node, and returns when that is done.
    fn commit(&self, node: Node) -> VfsResult<()>;

    /// Whether waiting can make room in staging.
    fn can_drain(&self) -> bool;
}

/// An archive as a filesystem that can be written.
pub struct LiveVfs {
    pub(super) archive: Arc<Archive>,
    pub(super) namespace: Namespace,
    pub(super) staging: Arc<StagingArea>,
    pub(super) files: Arc<Files>,
    pub(super) health: Arc<dyn HealthSource>,
    pub(super) reader: Arc<Reader>,
    handles: RwLock<HashMap<u64, Arc<OpenLive>>>,
    next_handle: AtomicU64,
    space: Space,
    pub(super) load: Arc<LatencyGauge>,
    kernel: OnceLock<Kernel>,
    drain: OnceLock<Arc<dyn Drain>>,
    sync_policy: SyncPolicy,
    /// Counts changes of contents that the kernel has not seen.
    foreign_changes: AtomicU64,
    /// Up to which of them the kernel's pages of a node were right when it was opened last.
    pages: Mutex<LruCache<Node, u64>>,
}

/// Nodes of whose pages in the kernel something is remembered.
const PAGES: NonZeroUsize = NonZeroUsize::new(64 * 1024).unwrap();

/// One open file.
pub(super) struct OpenLive {
    pub(super) file: Arc<LiveFile>,
    how: OpenHow,
    /// Whether this handle's owner was told that bytes are lost.
    told: std::sync::atomic::AtomicBool,
}

impl fmt::Debug for LiveVfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveVfs").finish_non_exhaustive()
    }
}

impl LiveVfs {
    /// Opens the archive for writing, and takes up what an earlier process
    /// left in staging.
    ///
    /// Error: `Busy` while another process writes.
    pub fn open(
        archive: Arc<Archive>,
        catalog: Arc<Catalog>,
        health: Arc<dyn HealthSource>,
        staging: Arc<StagingArea>,
        limits: VfsLimits,
        sync_policy: SyncPolicy,
    ) -> VfsResult<Self> {
        let files = Arc::new(Files::new(Arc::clone(&staging)));
        let clock = Arc::clone(archive.clock());
        let namespace =
            Namespace::open(catalog, clock, Arc::clone(&files) as _).map_err(|error| error::of_namespace(&error))?;
        let vfs = Self {
            archive,
            namespace,
            staging,
            files,
            health,
            reader: Arc::new(Reader::new(limits.cache, limits.read_ahead)),
            handles: RwLock::default(),
            next_handle: AtomicU64::new(1),
            space: Space::default(),
            load: Arc::default(),
            kernel: OnceLock::new(),
            drain: OnceLock::new(),
            sync_policy,
            foreign_changes: AtomicU64::new(0),
            pages: Mutex::new(LruCache::new(PAGES)),
        };
        vfs.take_up()?;
        Ok(vfs)
    }

    /// Who commits staged content. Set once.
    pub fn set_drain(&self, drain: Arc<dyn Drain>) {
        let _ = self.drain.set(drain);
    }

    /// How long reads and writes take: what works in the background slows down by it.
    pub fn load(&self) -> &Arc<LatencyGauge> {
        &self.load
    }

    /// The live namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The staging area.
    pub fn staging(&self) -> &Arc<StagingArea> {
        &self.staging
    }

    fn handle(&self, handle: Handle) -> VfsResult<Arc<OpenLive>> {
        let handles = self.handles.read().unwrap_or_else(PoisonError::into_inner);
        handles.get(&handle.number()).cloned().ok_or_else(|| error::invalid("the handle is not open"))
    }

    fn inode(&self, node: Node) -> VfsResult<Arc<Inode>> {
        let found = self.namespace.inode(node).map_err(|error| error::of_namespace(&error))?;
        found.ok_or_else(|| error::not_found(node))
    }

    /// What `stat` shows: the namespace's attributes, with what was written since.
    fn shown(&self, inode: &Inode) -> Attributes {
        let mut attributes = inode.attributes();
        if matches!(inode.body, NodeBody::File(_))
            && let Some(file) = self.files.get(inode.node)
        {
            self.show_newest(&file, &mut attributes);
        }
        attributes
    }

    /// A path of the node, for messages.
    pub(super) fn path(&self, node: Node) -> String {
        match self.namespace.catalog().paths_of(node) {
            Ok(paths) if !paths.is_empty() => paths[0].to_string(),
            _ => format!("inode {}", node.number()),
        }
    }

    /// Tells the kernel that a node was changed by somebody else.
    pub(super) fn tell_node(&self, node: Node) {
        if let Some(kernel) = self.kernel.get() {
            kernel.cache.forget_node(node);
        }
    }

    /// Tells the kernel that a name was changed by somebody else.
    pub(super) fn tell_name(&self, parent: Node, name: &[u8]) {
        if let Some(kernel) = self.kernel.get() {
            kernel.cache.forget_name(parent, name);
        }
    }
}

impl Vfs for LiveVfs {
    fn lookup(&self, parent: Node, name: &[u8]) -> VfsResult<Attributes> {
        names::check_length(name)?;
        let found = self.namespace.lookup(parent, name).map_err(|error| error::of_namespace(&error))?;
        match found {
            Some(inode) => Ok(self.shown(&inode)),
            None if self.inode(parent)?.is_directory() => Err(error::no_name()),
            None => Err(error::not_directory(parent)),
        }
    }

    fn attributes(&self, node: Node) -> VfsResult<Attributes> {
        Ok(self.shown(&*self.inode(node)?))
    }

    fn read_link(&self, node: Node) -> VfsResult<Vec<u8>> {
        match &self.inode(node)?.body {
            NodeBody::Symlink(target) => Ok(target.clone()),
            _ => Err(error::invalid("not a symbolic link")),
        }
    }

    fn open(&self, node: Node, how: OpenHow) -> VfsResult<OpenedFile> {
        self.open_file(node, how)
    }

    fn read(&self, handle: Handle, offset: u64, length: u32, deliver: &mut dyn FnMut(&[u8])) -> VfsResult<()> {
        let open = self.handle(handle)?;
        let began = moment();
        let outcome = self.read_file(&open.file, offset, length, deliver);
        self.load.record(began.elapsed());
        outcome
    }

    fn seek(&self, handle: Handle, offset: u64, data: bool) -> VfsResult<u64> {
        let open = self.handle(handle)?;
        self.seek_file(&open.file, offset, data)
    }

    fn release(&self, handle: Handle) {
        let open = self.handles.write().unwrap_or_else(PoisonError::into_inner).remove(&handle.number());
        if let Some(open) = open {
            self.release_file(&open);
        }
    }

    fn read_directory(
        &self,
        node: Node,
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(DirectoryEntry<'_>) -> bool,
    ) -> VfsResult<()> {
        if after.is_none() && !self.inode(node)?.is_directory() {
            return Err(error::not_directory(node));
        }
        self.namespace
            .list(node, after, &mut |name, inode| visit(DirectoryEntry { name, attributes: self.shown(inode) }))
            .map_err(|error| error::of_namespace(&error))
    }

    fn parent(&self, node: Node) -> VfsResult<Node> {
        self.namespace.parent(node).map_err(|error| error::of_namespace(&error))
    }

    fn extended_attribute(&self, node: Node, name: &[u8]) -> VfsResult<Vec<u8>> {
        if node == Node::ROOT && name == DAEMON.as_bytes() {
            return Ok(std::process::id().to_string().into_bytes());
        }
        self.get_xattr(node, name)
    }

    fn extended_attributes(&self, node: Node) -> VfsResult<Vec<Vec<u8>>> {
        Ok(super::attributes::names(&*self.inode(node)?))
    }

    fn space(&self) -> VfsResult<SpaceUsage> {
        let generation = self.namespace.sequence();
        let staged = self.staging.usage().bytes;
        let mut usage = self.space.usage(&self.archive, self.namespace.catalog(), generation)?;
        usage.total = usage.total.saturating_add(staged);
        Ok(usage)
    }

    fn attach(&self, kernel: Kernel) {
        let _ = self.kernel.set(kernel);
    }

    fn detach(&self) {
        if let Err(error) = self.sync_all() {
            tracing::error!(%error, "what was written last may not be durable");
        }
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
        self.create_file(caller, parent, name, permissions, how)
    }

    fn make(
        &self,
        caller: Caller,
        parent: Node,
        name: &[u8],
        permissions: u16,
        what: NewNode<'_>,
    ) -> VfsResult<Attributes> {
        let inode = self.make_node(caller, parent, name, permissions, what, false)?;
        Ok(inode.attributes())
    }

    fn link(&self, node: Node, parent: Node, name: &[u8]) -> VfsResult<Attributes> {
        let inode = self.add_link(node, parent, name)?;
        Ok(self.shown(&inode))
    }

    fn unlink(&self, parent: Node, name: &[u8]) -> VfsResult<()> {
        self.remove_name(parent, name, names::Wanted::NoDirectory)
    }

    fn remove_directory(&self, parent: Node, name: &[u8]) -> VfsResult<()> {
        self.remove_name(parent, name, names::Wanted::Directory)
    }

    fn rename(&self, parent: Node, name: &[u8], new_parent: Node, new_name: &[u8], mode: RenameMode) -> VfsResult<()> {
        self.move_name((parent, name), (new_parent, new_name), mode)
    }

    fn set_attributes(
        &self,
        _caller: Caller,
        node: Node,
        handle: Option<Handle>,
        change: &AttributeChange,
    ) -> VfsResult<Attributes> {
        self.change_attributes(node, handle, change)
    }

    fn set_extended_attribute(&self, node: Node, name: &[u8], value: &[u8], mode: XattrMode) -> VfsResult<()> {
        self.set_xattr(node, name, value, mode)
    }

    fn remove_extended_attribute(&self, node: Node, name: &[u8]) -> VfsResult<()> {
        self.remove_xattr(node, name)
    }

    fn write(&self, handle: Handle, offset: u64, data: &[u8], kill_privileges: bool) -> VfsResult<()> {
        let open = self.handle(handle)?;
        let began = moment();
        self.write_file(&open.file, offset, data)?;
        self.load.record(began.elapsed());
        if kill_privileges {
            self.kill_privileges(open.file.node())?;
        }
        Ok(())
    }

    fn allocate(&self, handle: Handle, offset: u64, length: u64, mode: AllocateMode) -> VfsResult<()> {
        let open = self.handle(handle)?;
        self.allocate_range(&open.file, offset, length, mode)
    }

    fn copy_range(&self, from: Handle, from_offset: u64, to: Handle, to_offset: u64, length: u64) -> VfsResult<u64> {
        let (from, to) = (self.handle(from)?, self.handle(to)?);
        self.copy_between(&from.file, from_offset, &to.file, to_offset, length)
    }

    fn flush(&self, handle: Handle) -> VfsResult<()> {
        let open = self.handle(handle)?;
        if open.how.write {
            self.publish(&open.file)?;
            self.tell_loss(&open)?;
        }
        Ok(())
    }

    fn sync(&self, handle: Handle, _data_only: bool) -> VfsResult<()> {
        let open = self.handle(handle)?;
        self.publish(&open.file)?;
        self.namespace.sync().map_err(|error| error::of_namespace(&error))?;
        self.tell_loss(&open)?;
        match (self.sync_policy, self.drain.get()) {
            (SyncPolicy::Commit, Some(drain)) if open.file.staged().is_some() => drain.commit(open.file.node()),
            _ => Ok(()),
        }
    }

    fn sync_directory(&self, _node: Node) -> VfsResult<()> {
        self.namespace.sync().map_err(|error| error::of_namespace(&error))
    }

    fn sync_all(&self) -> VfsResult<()> {
        let mut outcome = Ok(());
        for file in self.files.all_staged() {
            outcome = outcome.and(self.publish(&file));
        }
        outcome.and(self.namespace.sync().map_err(|error| error::of_namespace(&error)))
    }
}

impl LiveVfs {
    /// Tells the handle's owner, once, that bytes of the file are lost.
    fn tell_loss(&self, open: &OpenLive) -> VfsResult<()> {
        let lost = open.file.check_lost();
        if lost.is_err() && !open.told.swap(true, Ordering::AcqRel) { lost } else { Ok(()) }
    }
}
