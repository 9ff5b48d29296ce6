//! One change of the namespace in the making. It reads what is in memory,
//! collects its edits, and stops where a row must be fetched first: no lock is
//! held over I/O, and what a draft has read cannot change under it.

use super::error::{Key, Stop};
use super::state::{Later, State};
use crate::base::Timestamp;
use crate::catalog::Inode;
use crate::format::journal::Record;
use crate::format::{NodeBody, NodeMeta, StagedContent, StagingId};
use crate::staging::Generation;
use blockframe_api::{ErrorClass, Node, VfsError};
use std::sync::Arc;

/// A change in the making.
pub struct Draft<'s> {
    state: &'s mut State,
    now: Timestamp,
    emptiness: Option<Emptiness>,
    edits: Edits,
}

/// Whether a directory had entries, as of an epoch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Emptiness {
    pub(super) directory: Node,
    pub(super) epoch: u64,
    pub(super) is_empty: bool,
}

/// A name: its directory, and what it is called there.
pub(super) type Name = (Node, Vec<u8>);

/// What a draft changes.
#[derive(Default)]
pub(super) struct Edits {
    pub(super) nodes: Vec<(Node, Option<Arc<Inode>>)>,
    pub(super) names: Vec<(Name, Option<Node>)>,
    pub(super) parents: Vec<(Node, Node)>,
    pub(super) records: Vec<Record>,
    pub(super) staged: Vec<(StagingId, Generation)>,
    pub(super) later: Vec<Later>,
    pub(super) opened: Option<Node>,
    pub(super) next_inode: u64,
    /// When it happened, if not now.
    pub(super) time: Option<Timestamp>,
}

/// What became of a node that lost a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// It has other names.
    Named,
    /// It has none and lives on until its last handle is released.
    Open,
    /// It is gone.
    Gone,
}

impl<'s> Draft<'s> {
    pub(super) fn new(state: &'s mut State, now: Timestamp, emptiness: Option<Emptiness>) -> Self {
        let edits = Edits { next_inode: state.next_inode, ..Edits::default() };
        Self { state, now, emptiness, edits }
    }

    pub(super) fn into_edits(self) -> Edits {
        self.edits
    }

    /// When the change happens.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Says that the change stands for something that happened then.
    pub fn set_time(&mut self, time: Timestamp) {
        self.edits.time = Some(time);
    }

    /// A node; `NotFound` when there is none.
    pub fn node(&mut self, node: Node) -> Result<Arc<Inode>, Stop> {
        self.find_node(node)?
            .ok_or_else(|| VfsError::new(ErrorClass::NotFound, format!("there is no inode {}", node.number())).into())
    }

    /// A node, if there is one.
    pub fn find_node(&mut self, node: Node) -> Result<Option<Arc<Inode>>, Stop> {
        if let Some((_, edited)) = self.edits.nodes.iter().find(|(of, _)| *of == node) {
            return Ok(edited.clone());
        }
        self.state.node(node).ok_or(Stop::Need(Key::Node(node)))
    }

    /// A directory; `NotDirectory` for anything else.
    pub fn directory(&mut self, node: Node) -> Result<Arc<Inode>, Stop> {
        let inode = self.node(node)?;
        if inode.is_directory() {
            return Ok(inode);
        }
        Err(VfsError::new(ErrorClass::NotDirectory, format!("inode {} is not a directory", node.number())).into())
    }

    /// Where a name leads.
    pub fn child(&mut self, directory: Node, name: &[u8]) -> Result<Option<Node>, Stop> {
        let key = (directory, name.to_vec());
        if let Some((_, edited)) = self.edits.names.iter().rev().find(|(of, _)| *of == key) {
            return Ok(*edited);
        }
        self.state.name(&key).ok_or_else(|| Stop::Need(Key::Name(directory, name.into())))
    }

    /// The directory above a directory; the root is its own.
    pub fn parent(&mut self, directory: Node) -> Result<Node, Stop> {
        if let Some((_, edited)) = self.edits.parents.iter().find(|(of, _)| *of == directory) {
            return Ok(*edited);
        }
        self.state.parent(directory).ok_or(Stop::Need(Key::Parent(directory)))
    }

    /// Whether a directory has no entries.
    pub fn is_empty(&mut self, directory: Node) -> Result<bool, Stop> {
        let own = self.state.names.range((directory, Vec::new())..);
        if own.take_while(|((of, _), _)| *of == directory).any(|(_, row)| row.value.is_some()) {
            return Ok(false);
        }
        // Within one epoch the database's names stay; those that are removed are so in the overlay.
        match self.emptiness {
            Some(known) if known.directory == directory && known.epoch == self.state.epoch => Ok(known.is_empty),
            _ => Err(Stop::Need(Key::Emptiness(directory))),
        }
    }

    /// Makes a node without a name.
    pub fn make(&mut self, meta: NodeMeta, body: NodeBody) -> Node {
        let node = Node::new(self.edits.next_inode);
        self.edits.next_inode += 1;
        let links = if body == NodeBody::Directory { 2 } else { 0 };
        self.put(Inode { node, links, meta, body });
        node
    }

    /// Sets a node's attributes and body; its links stay what the names say.
    pub fn put(&mut self, inode: Inode) {
        self.edits.records.push(Record::Inode {
            node: inode.node.number(),
            meta: inode.meta.clone(),
            body: inode.body.clone(),
        });
        self.keep(inode);
    }

    fn keep(&mut self, inode: Inode) {
        let node = inode.node;
        let value = Some(Arc::new(inode));
        match self.edits.nodes.iter_mut().find(|(of, _)| *of == node) {
            Some((_, edited)) => *edited = value,
            None => self.edits.nodes.push((node, value)),
        }
    }

    fn change_links(&mut self, node: Node, change: i32) -> Result<u32, Stop> {
        let inode = self.node(node)?;
        let links = inode.links.saturating_add_signed(change);
        self.keep(Inode { links, ..(*inode).clone() });
        Ok(links)
    }

    /// Gives a node a name that does not stand there yet.
    pub fn add_name(&mut self, directory: Node, name: &[u8], node: Node) -> Result<(), Stop> {
        let is_directory = self.node(node)?.is_directory();
        self.change_links(if is_directory { directory } else { node }, 1)?;
        if is_directory {
            match self.edits.parents.iter_mut().find(|(of, _)| *of == node) {
                Some((_, parent)) => *parent = directory,
                None => self.edits.parents.push((node, directory)),
            }
        }
        self.edits.names.push(((directory, name.to_vec()), Some(node)));
        let (parent, name, node) = (directory.number(), name.to_vec(), node.number());
        self.edits.records.push(Record::Dirent { parent, name, node });
        Ok(())
    }

    /// Takes a name away from the node it leads to, which stays whatever its
    /// links are: see [`Self::drop_unnamed`].
    pub fn take_name(&mut self, directory: Node, name: &[u8], node: Node) -> Result<(), Stop> {
        let is_directory = self.node(node)?.is_directory();
        self.change_links(if is_directory { directory } else { node }, -1)?;
        self.edits.names.push(((directory, name.to_vec()), None));
        self.edits.records.push(Record::DirentRemoved { parent: directory.number(), name: name.to_vec() });
        Ok(())
    }

    /// Removes a node that has lost its last name, unless it is open. A
    /// directory has one name: without it, it is gone.
    pub fn drop_unnamed(&mut self, node: Node) -> Result<Removed, Stop> {
        let inode = self.node(node)?;
        if inode.links > 0 && !inode.is_directory() {
            return Ok(Removed::Named);
        }
        if self.state.is_open(node) {
            return Ok(Removed::Open);
        }
        self.edits.records.push(Record::InodeRemoved(node.number()));
        match self.edits.nodes.iter_mut().find(|(of, _)| *of == node) {
            Some((_, edited)) => *edited = None,
            None => self.edits.nodes.push((node, None)),
        }
        Ok(Removed::Gone)
    }

    /// The node's newest content lies in staging; durable when the change is.
    pub fn stage(&mut self, node: Node, content: StagedContent, generation: Generation) {
        self.edits.staged.push((content.file, generation));
        self.edits.records.push(Record::Staged { node: node.number(), content });
    }

    /// The node's newest content is its body's.
    pub fn unstage(&mut self, node: Node) {
        self.edits.records.push(Record::StagedRemoved(node.number()));
    }

    /// The node is open from now on; [`Namespace::close`](super::Namespace::close) ends it.
    pub fn open(&mut self, node: Node) {
        self.edits.opened = Some(node);
    }

    /// Runs once this change is durable.
    pub fn later(&mut self, work: Later) {
        self.edits.later.push(work);
    }
}
