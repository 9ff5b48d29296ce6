//! What the catalog stores and answers.

use crate::archive::ObjectRef;
use crate::base::{ContentHash, Timestamp};
use crate::format::{BlockKey, EntryPath, FileContent, Manifest, NodeBody, NodeMeta, ObjectKind};
use blockframe_api::{Attributes, Node, NodeKind};

/// A node of the namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// Its inode number: the same for ever, over rebuilds from the journal too.
    pub node: Node,
    /// Names that lead to it; for a directory 2 plus its subdirectories.
    pub links: u32,
    /// Attributes.
    pub meta: NodeMeta,
    /// What it is.
    pub body: NodeBody,
}

impl Inode {
    /// What `stat` shows.
    pub fn attributes(&self) -> Attributes {
        let (size, allocated) = match &self.body {
            NodeBody::File(content) => (content.size, content.allocated()),
            NodeBody::Symlink(target) => (target.len() as u64, 0),
            NodeBody::Directory => (4096, 4096),
            _ => (0, 0),
        };
        let device = match self.body {
            NodeBody::CharDevice(device) | NodeBody::BlockDevice(device) => device,
            _ => 0,
        };
        Attributes {
            node: self.node,
            kind: self.body.kind(),
            size,
            allocated,
            permissions: self.meta.permissions,
            links: self.links,
            user: self.meta.user,
            group: self.meta.group,
            device,
            accessed: self.meta.accessed.unwrap_or(self.meta.modified),
            modified: self.meta.modified,
            changed: self.meta.changed,
            born: self.meta.born.unwrap_or(self.meta.modified),
            block_size: 128 * 1024,
        }
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.body.kind() == NodeKind::Directory
    }
}

/// Where a content lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentPlace {
    /// The object.
    pub object: ObjectRef,
    /// Its tier.
    pub tier: u8,
    /// First byte of the content within the object's content.
    pub offset: u64,
    /// Length, bytes.
    pub size: u64,
}

/// An object as the catalog knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectRecord {
    /// Name and root.
    pub reference: ObjectRef,
    /// File or bundle.
    pub kind: ObjectKind,
    /// The content's identity.
    pub key: BlockKey,
    /// Tier.
    pub tier: u8,
    /// Bytes of all shards.
    pub stored_len: u64,
}

/// An object to be recorded, with the contents it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewObject {
    /// The object.
    pub record: ObjectRecord,
    /// Contents: for a file one member at offset 0, for a bundle its files.
    pub members: Vec<NewMember>,
}

impl NewObject {
    /// The record of a written object.
    ///
    /// Error: a manifest whose content is not known.
    pub fn new(manifest: &Manifest, members: Vec<NewMember>) -> Result<Self, crate::format::FormatError> {
        let geometry = manifest.geometry();
        let facts = manifest.facts()?;
        let record = ObjectRecord {
            reference: ObjectRef { name: manifest.name.clone(), root: manifest.root() },
            kind: facts.kind,
            key: facts.key,
            tier: geometry.tier(),
            stored_len: geometry.stored_len(),
        };
        Ok(Self { record, members })
    }
}

/// One content within an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMember {
    /// BLAKE3 of the content.
    pub hash: ContentHash,
    /// First byte within the object's content.
    pub offset: u64,
    /// Length, bytes.
    pub size: u64,
    /// The source file it was read from.
    pub source: Option<SourceSignature>,
}

/// Tells whether a source file is the one that was committed before: device,
/// inode, size and times in one 64-bit hash. Local to this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SourceSignature(u64);

impl SourceSignature {
    /// The signature of a source file.
    pub fn new(device: u64, inode: u64, size: u64, modified: Timestamp, changed: Timestamp) -> Self {
        let mut hasher = blake3::Hasher::new();
        for number in [
            device,
            inode,
            size,
            modified.seconds as u64,
            u64::from(modified.nanoseconds),
            changed.seconds as u64,
            u64::from(changed.nanoseconds),
        ] {
            hasher.update(&number.to_le_bytes());
        }
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        Self(u64::from_le_bytes(bytes))
    }

    /// The signature that [`get`](Self::get) gave.
    pub fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// As a number, to be stored.
    pub fn get(self) -> u64 {
        self.0
    }
}

/// What a change of the namespace did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CommitSummary {
    /// Names that are new.
    pub created: u64,
    /// Names whose node changed.
    pub changed: u64,
    /// Names that stood there just so.
    pub unchanged: u64,
}

/// Counts and sizes of everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NamespaceTotals {
    /// Nodes of all kinds.
    pub nodes: u64,
    /// Regular files.
    pub files: u64,
    /// Bytes of all regular files, as `stat` shows them.
    pub logical_bytes: u64,
    /// Objects.
    pub objects: u64,
    /// Bytes of the objects' contents.
    pub content_bytes: u64,
    /// Bytes of all shards.
    pub stored_bytes: u64,
}

/// A state of a node, as it is or was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeState {
    /// From when.
    pub since: Timestamp,
    /// Until when, not including it; `None`: it is so.
    pub until: Option<Timestamp>,
    /// Attributes.
    pub meta: NodeMeta,
    /// What it is or was.
    pub body: NodeBody,
}

/// What a name leads or led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlaceState {
    /// The node.
    pub node: Node,
    /// From when.
    pub since: Timestamp,
    /// Until when, not including it; `None`: it does.
    pub until: Option<Timestamp>,
}

/// What was forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HistoryRemoved {
    /// Names.
    pub names: u64,
    /// States of nodes.
    pub states: u64,
}

/// What the history that is kept costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HistoryUsage {
    /// Bytes of the contents that nothing but history needs.
    pub bytes: u64,
    /// When the oldest state that is kept ended.
    pub oldest: Option<Timestamp>,
}

/// An old version of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastVersion {
    /// From when it was there.
    pub since: Timestamp,
    /// What it contained.
    pub content: FileContent,
    /// The paths that it had at its end.
    pub paths: Vec<EntryPath>,
}
