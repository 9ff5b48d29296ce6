//! A filesystem in memory, written in the most obvious way: one lock, maps,
//! and the rules of POSIX one after the other.
//!
//! It is the reference that tests compare the real filesystem with, and shows
//! that an adapter is right. It is no place to keep files: nothing survives,
//! nothing is fast, and memory is the only limit.

mod acl;
mod content;
mod names;
mod operations;
#[cfg(test)]
mod tests;

use crate::{
    Attributes, CachePolicy, Caller, ErrorClass, Handle, Kernel, NamePolicy, Node, NodeKind, Timestamp, VfsError,
    VfsResult,
};
use content::{Content, PAGE};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Longest file, bytes.
const MAX_SIZE: u64 = i64::MAX as u64;
/// Most names of one node.
const MAX_LINKS: u32 = 65_000;
/// Names and values of a node's extended attributes together, bytes.
const MAX_ATTRIBUTES: usize = 1 << 20;
/// What `statfs` shows as the whole, bytes.
const CAPACITY: u64 = 1 << 36;
const SET_USER: u16 = 0o4000;
const SET_GROUP: u16 = 0o2000;

/// Tells the present moment.
pub type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The reference filesystem. See the module's documentation.
pub struct MemoryVfs {
    now: Now,
    cache: CachePolicy,
    syncs: AtomicU64,
    kernel: Mutex<Option<Kernel>>,
    state: Mutex<State>,
}

struct State {
    nodes: HashMap<Node, Inode>,
    last_node: u64,
    handles: HashMap<u64, Node>,
    last_handle: u64,
}

struct Inode {
    body: Body,
    permissions: u16,
    user: u32,
    group: u32,
    links: u32,
    accessed: Timestamp,
    modified: Timestamp,
    changed: Timestamp,
    born: Timestamp,
    attributes: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Open handles.
    opened: u32,
}

enum Body {
    File(Content),
    Directory { parent: Node, entries: BTreeMap<Vec<u8>, Node> },
    Symlink(Vec<u8>),
    Fifo,
    Socket,
    CharDevice(u32),
    BlockDevice(u32),
}

fn error<T>(class: ErrorClass, message: &str) -> VfsResult<T> {
    Err(VfsError::new(class, message))
}

impl MemoryVfs {
    /// An empty filesystem whose root directory belongs to `owner`.
    pub fn new(now: Now, owner: Caller) -> Self {
        let time = now();
        let body = Body::Directory { parent: Node::ROOT, entries: BTreeMap::new() };
        let root = Inode { links: 2, ..Inode::new(body, 0o755, owner.user, owner.group, time) };
        let state = State {
            nodes: HashMap::from([(Node::ROOT, root)]),
            last_node: Node::ROOT.number(),
            handles: HashMap::new(),
            last_handle: 0,
        };
        Self {
            now,
            cache: CachePolicy::Keep,
            syncs: AtomicU64::new(0),
            kernel: Mutex::default(),
            state: Mutex::new(state),
        }
    }

    /// The same, with this advice for the page cache at every opening. As a
    /// rule it is [`CachePolicy::Keep`]: all changes come from the kernel.
    #[must_use]
    pub fn with_cache(self, cache: CachePolicy) -> Self {
        Self { cache, ..self }
    }

    /// How often something was to be made durable.
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::SeqCst)
    }

    /// What the kernel offered when the mount began.
    pub fn kernel(&self) -> Option<Kernel> {
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Files that are open.
    pub fn open_handles(&self) -> usize {
        self.state().handles.len()
    }

    /// Nodes that have a name or are open.
    pub fn nodes(&self) -> usize {
        self.state().nodes.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inode {
    fn new(body: Body, permissions: u16, user: u32, group: u32, now: Timestamp) -> Self {
        Self {
            body,
            permissions,
            user,
            group,
            links: 1,
            accessed: now,
            modified: now,
            changed: now,
            born: now,
            attributes: BTreeMap::new(),
            opened: 0,
        }
    }

    fn kind(&self) -> NodeKind {
        match self.body {
            Body::File(_) => NodeKind::File,
            Body::Directory { .. } => NodeKind::Directory,
            Body::Symlink(_) => NodeKind::Symlink,
            Body::Fifo => NodeKind::Fifo,
            Body::Socket => NodeKind::Socket,
            Body::CharDevice(_) => NodeKind::CharDevice,
            Body::BlockDevice(_) => NodeKind::BlockDevice,
        }
    }

    fn is_directory(&self) -> bool {
        matches!(self.body, Body::Directory { .. })
    }

    fn show(&self, node: Node) -> Attributes {
        let (size, allocated) = match &self.body {
            Body::File(content) => (content.size(), content.allocated()),
            Body::Directory { .. } => (PAGE, PAGE),
            Body::Symlink(target) => (target.len() as u64, 0),
            _ => (0, 0),
        };
        Attributes {
            node,
            kind: self.kind(),
            size,
            allocated,
            permissions: self.permissions,
            links: self.links,
            user: self.user,
            group: self.group,
            device: match self.body {
                Body::CharDevice(device) | Body::BlockDevice(device) => device,
                _ => 0,
            },
            accessed: self.accessed,
            modified: self.modified,
            changed: self.changed,
            born: self.born,
            block_size: PAGE as u32,
        }
    }

    /// Its content changes.
    fn touch(&mut self, now: Timestamp) {
        self.modified = now;
        self.changed = now;
    }

    /// Who changes it may not pass its privileges on. For a directory the
    /// bits mean something else.
    fn kill_privileges(&mut self) {
        if !self.is_directory() {
            // Without the group's execute bit, set-group-id gives no privilege.
            let group = if self.permissions & 0o010 != 0 { SET_GROUP } else { 0 };
            self.permissions &= !(SET_USER | group);
            self.attributes.remove(&b"security.capability"[..]);
        }
    }

    fn entries(&self) -> VfsResult<&BTreeMap<Vec<u8>, Node>> {
        match &self.body {
            Body::Directory { entries, .. } => Ok(entries),
            _ => error(ErrorClass::NotDirectory, "not a directory"),
        }
    }

    fn entries_mut(&mut self) -> VfsResult<&mut BTreeMap<Vec<u8>, Node>> {
        match &mut self.body {
            Body::Directory { entries, .. } => Ok(entries),
            _ => error(ErrorClass::NotDirectory, "not a directory"),
        }
    }

    fn content(&self) -> VfsResult<&Content> {
        match &self.body {
            Body::File(content) => Ok(content),
            Body::Directory { .. } => error(ErrorClass::IsDirectory, "a directory"),
            _ => error(ErrorClass::Invalid, "no regular file"),
        }
    }

    fn content_mut(&mut self) -> VfsResult<&mut Content> {
        match &mut self.body {
            Body::File(content) => Ok(content),
            Body::Directory { .. } => error(ErrorClass::IsDirectory, "a directory"),
            _ => error(ErrorClass::Invalid, "no regular file"),
        }
    }
}

impl State {
    fn get(&self, node: Node) -> VfsResult<&Inode> {
        self.nodes.get(&node).ok_or_else(|| VfsError::new(ErrorClass::NotFound, "no such node"))
    }

    fn get_mut(&mut self, node: Node) -> VfsResult<&mut Inode> {
        self.nodes.get_mut(&node).ok_or_else(|| VfsError::new(ErrorClass::NotFound, "no such node"))
    }

    /// The node that `name` leads to.
    fn find(&self, parent: Node, name: &[u8]) -> VfsResult<Node> {
        let entries = self.get(parent)?.entries()?;
        match entries.get(name) {
            Some(&node) => Ok(node),
            None if name.len() > NamePolicy::MAX_NAME => error(ErrorClass::NameTooLong, "the name is too long"),
            None => error(ErrorClass::NotFound, "no such entry"),
        }
    }

    fn opened(&self, handle: Handle) -> VfsResult<Node> {
        match self.handles.get(&handle.number()) {
            Some(&node) => Ok(node),
            None => error(ErrorClass::Invalid, "the handle is not open"),
        }
    }

    fn open(&mut self, node: Node) -> VfsResult<Handle> {
        self.get_mut(node)?.opened += 1;
        self.last_handle += 1;
        self.handles.insert(self.last_handle, node);
        Ok(Handle::new(self.last_handle))
    }

    /// Forgets a node that has no name and is not open.
    fn forget_unused(&mut self, node: Node) {
        if self.nodes.get(&node).is_some_and(|inode| inode.links == 0 && inode.opened == 0) {
            self.nodes.remove(&node);
        }
    }
}
