//! One name in the namespace with all that is known of it. The same bytes
//! stand in a bundle's entry table, in a manifest, in the catalog's journal
//! and in its rows.

use super::FormatError;
use super::binary::{Reader, put_bytes, put_signed, put_timestamp, put_varint};
use crate::base::{ContentHash, ContentRange, Digest, Timestamp};
use blockframe_api::{NamePolicy, NodeKind};
use std::fmt;

const WHAT: &str = "entry";
/// Longest path, in bytes.
pub const MAX_PATH: usize = 4096;
/// Longest symlink target, in bytes.
pub const MAX_TARGET: usize = 4095;
/// Longest value of an extended attribute, in bytes (Linux: 64 KiB).
pub const MAX_XATTR_VALUE: usize = 64 * 1024;
/// Most extended attributes of one entry.
pub const MAX_XATTRS: usize = 4096;
/// Most data extents kept of a sparse file; what is more fragmented keeps its
/// bytes and loses its holes.
pub const MAX_EXTENTS: usize = 65536;

/// A path below the archive's root: names joined by `/`, bytes as they are.
/// The root itself is the empty path. It cannot climb.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct EntryPath(Vec<u8>);

impl EntryPath {
    /// The root directory.
    pub fn root() -> Self {
        Self(Vec::new())
    }

    /// Checks a relative path: no empty name, no `.`, no `..`, no NUL.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, FormatError> {
        let bytes = bytes.into();
        if bytes.len() > MAX_PATH {
            return Err(FormatError::invalid(
                WHAT,
                format!("a path of {} bytes is longer than {MAX_PATH}", bytes.len()),
            ));
        }
        if !bytes.is_empty() {
            for name in bytes.split(|&b| b == b'/') {
                if !NamePolicy::UnixBytes.allows(name) {
                    let shown = String::from_utf8_lossy(name);
                    return Err(FormatError::invalid(WHAT, format!("\"{shown}\" is not a file name")));
                }
            }
        }
        Ok(Self(bytes))
    }

    /// What a user typed: leading, trailing and doubled slashes do not count.
    pub fn from_user(text: &[u8]) -> Result<Self, FormatError> {
        let names: Vec<&[u8]> = text.split(|&b| b == b'/').filter(|name| !name.is_empty() && *name != b".").collect();
        Self::new(names.join(&b'/'))
    }

    /// The bytes, without a leading slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether it is the root directory.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The names on the way down.
    pub fn names(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|&b| b == b'/').filter(|name| !name.is_empty())
    }

    /// The last name; empty for the root.
    pub fn name(&self) -> &[u8] {
        self.names().next_back().unwrap_or_default()
    }

    /// The directory above; `None` for the root.
    pub fn parent(&self) -> Option<EntryPath> {
        if self.is_root() {
            return None;
        }
        let cut = self.0.iter().rposition(|&b| b == b'/').unwrap_or(0);
        Some(Self(self.0[..cut].to_vec()))
    }

    /// The entry `name` below this directory.
    pub fn join(&self, name: &[u8]) -> Result<EntryPath, FormatError> {
        if self.is_root() {
            return Self::new(name);
        }
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.len());
        bytes.extend_from_slice(&self.0);
        bytes.push(b'/');
        bytes.extend_from_slice(name);
        Self::new(bytes)
    }
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeBody {
    /// A regular file.
    File(FileContent),
    /// A directory.
    Directory,
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device, with its number as the kernel encodes it.
    CharDevice(u32),
    /// A block device, with its number as the kernel encodes it.
    BlockDevice(u32),
}

impl NodeBody {
    /// The kind that `stat` shows.
    pub fn kind(&self) -> NodeKind {
        match self {
            NodeBody::File(_) => NodeKind::File,
            NodeBody::Directory => NodeKind::Directory,
            NodeBody::Symlink(_) => NodeKind::Symlink,
            NodeBody::Fifo => NodeKind::Fifo,
            NodeBody::Socket => NodeKind::Socket,
            NodeBody::CharDevice(_) => NodeKind::CharDevice,
            NodeBody::BlockDevice(_) => NodeKind::BlockDevice,
        }
    }
}

/// Which bytes a regular file has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileContent {
    /// Length in bytes.
    pub size: u64,
    /// BLAKE3 of the content (of no bytes, for an empty file).
    pub hash: ContentHash,
    /// The ranges that hold data, ascending and disjoint; `None`: all of it.
    /// Everything outside reads as zeros.
    pub extents: Option<Vec<ContentRange>>,
}

impl FileContent {
    /// The content of an empty file.
    pub fn empty() -> Self {
        Self { size: 0, hash: Digest::of(b""), extents: None }
    }

    /// Bytes that hold data.
    pub fn allocated(&self) -> u64 {
        match &self.extents {
            None => self.size,
            Some(extents) => extents.iter().map(|extent| extent.len()).sum(),
        }
    }
}

/// Attributes common to all kinds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeMeta {
    /// Permission bits with setuid, setgid and sticky, 0 to 0o7777.
    pub permissions: u16,
    /// Owner.
    pub user: u32,
    /// Group.
    pub group: u32,
    /// Last access, where somebody set it; otherwise it is taken to be `modified`.
    pub accessed: Option<Timestamp>,
    /// Last change of content.
    pub modified: Timestamp,
    /// Last change of content or attributes.
    pub changed: Timestamp,
    /// Birth, where the source's filesystem knew it.
    pub born: Option<Timestamp>,
    /// Extended attributes, names as the kernel gives them (`user.x`), sorted by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A name, and what it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A node with its attributes.
    Node {
        /// Where.
        path: EntryPath,
        /// Attributes.
        meta: NodeMeta,
        /// What.
        body: NodeBody,
    },
    /// A further name of a node.
    HardLink {
        /// Where.
        path: EntryPath,
        /// The node's first name.
        target: EntryPath,
    },
}

impl Entry {
    /// Where it stands.
    pub fn path(&self) -> &EntryPath {
        match self {
            Entry::Node { path, .. } | Entry::HardLink { path, .. } => path,
        }
    }

    /// Appends the entry: path, then 0 and the node, or 255 and the target's path.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.path().as_bytes());
        match self {
            Entry::Node { meta, body, .. } => encode_node(meta, body, out),
            Entry::HardLink { target, .. } => {
                out.push(255);
                put_bytes(out, target.as_bytes());
            }
        }
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let path = EntryPath::new(reader.bytes(MAX_PATH)?)?;
        let kind = reader.u8()?;
        if kind == 255 {
            let target = EntryPath::new(reader.bytes(MAX_PATH)?)?;
            return Ok(Entry::HardLink { path, target });
        }
        let (meta, body) = decode_node_of_kind(kind, reader)?;
        Ok(Entry::Node { path, meta, body })
    }
}

const HAS_BORN: u8 = 0x80;
const HAS_XATTRS: u8 = 0x40;
const HAS_EXTENTS: u8 = 0x20;
const HAS_ACCESSED: u8 = 0x10;
const KIND: u8 = 0x0f;

/// Appends a node: one byte (kind in the low four bits, then flags for access
/// time, extents, xattrs, birth), permissions, user, group, modified; changed,
/// born and accessed as differences to modified; then what the kind needs.
pub fn encode_node(meta: &NodeMeta, body: &NodeBody, out: &mut Vec<u8>) {
    let kind = match body {
        NodeBody::File(_) => 1,
        NodeBody::Directory => 2,
        NodeBody::Symlink(_) => 3,
        NodeBody::Fifo => 4,
        NodeBody::Socket => 5,
        NodeBody::CharDevice(_) => 6,
        NodeBody::BlockDevice(_) => 7,
    };
    let mut flags = 0;
    if meta.born.is_some() {
        flags |= HAS_BORN;
    }
    if !meta.xattrs.is_empty() {
        flags |= HAS_XATTRS;
    }
    if meta.accessed.is_some() {
        flags |= HAS_ACCESSED;
    }
    if matches!(body, NodeBody::File(FileContent { extents: Some(_), .. })) {
        flags |= HAS_EXTENTS;
    }
    out.push(kind | flags);
    put_varint(out, u64::from(meta.permissions));
    put_varint(out, u64::from(meta.user));
    put_varint(out, u64::from(meta.group));
    put_timestamp(out, meta.modified);
    put_relative(out, meta.modified, meta.changed);
    if let Some(born) = meta.born {
        put_relative(out, meta.modified, born);
    }
    if let Some(accessed) = meta.accessed {
        put_relative(out, meta.modified, accessed);
    }
    match body {
        NodeBody::File(content) => {
            put_varint(out, content.size);
            if content.size > 0 {
                out.extend_from_slice(content.hash.as_bytes());
            }
            if let Some(extents) = &content.extents {
                put_varint(out, extents.len() as u64);
                let mut at = 0;
                for extent in extents {
                    put_varint(out, extent.start() - at);
                    put_varint(out, extent.len());
                    at = extent.end();
                }
            }
        }
        NodeBody::Symlink(target) => put_bytes(out, target),
        NodeBody::CharDevice(device) | NodeBody::BlockDevice(device) => put_varint(out, u64::from(*device)),
        NodeBody::Directory | NodeBody::Fifo | NodeBody::Socket => {}
    }
    if !meta.xattrs.is_empty() {
        put_varint(out, meta.xattrs.len() as u64);
        for (name, value) in &meta.xattrs {
            put_bytes(out, name);
            put_bytes(out, value);
        }
    }
}

/// Reads what [`encode_node`] wrote.
pub fn decode_node(reader: &mut Reader<'_>) -> Result<(NodeMeta, NodeBody), FormatError> {
    let kind = reader.u8()?;
    decode_node_of_kind(kind, reader)
}

fn decode_node_of_kind(byte: u8, reader: &mut Reader<'_>) -> Result<(NodeMeta, NodeBody), FormatError> {
    let (kind, flags) = (byte & KIND, byte & !KIND);
    let permissions = reader.varint()?;
    if permissions > 0o7777 {
        return Err(reader.invalid("permission bits out of range"));
    }
    let user = reader.varint_u32()?;
    let group = reader.varint_u32()?;
    let modified = reader.timestamp()?;
    let changed = relative(reader, modified)?;
    let born = if flags & HAS_BORN != 0 { Some(relative(reader, modified)?) } else { None };
    let accessed = if flags & HAS_ACCESSED != 0 { Some(relative(reader, modified)?) } else { None };
    if flags & HAS_EXTENTS != 0 && kind != 1 {
        return Err(reader.invalid("only a file has extents"));
    }
    let body = match kind {
        1 => {
            let size = reader.varint()?;
            let hash = if size > 0 { Digest::new(reader.array()?) } else { Digest::of(b"") };
            let extents = if flags & HAS_EXTENTS != 0 { Some(decode_extents(reader, size)?) } else { None };
            NodeBody::File(FileContent { size, hash, extents })
        }
        2 => NodeBody::Directory,
        3 => NodeBody::Symlink(reader.bytes(MAX_TARGET)?.to_vec()),
        4 => NodeBody::Fifo,
        5 => NodeBody::Socket,
        6 => NodeBody::CharDevice(reader.varint_u32()?),
        7 => NodeBody::BlockDevice(reader.varint_u32()?),
        other => return Err(reader.invalid(format!("kind {other} is unknown"))),
    };
    let mut xattrs = Vec::new();
    if flags & HAS_XATTRS != 0 {
        let count = reader.varint()?;
        if count == 0 || count > MAX_XATTRS as u64 {
            return Err(reader.invalid(format!("{count} extended attributes")));
        }
        for _ in 0..count {
            let name = reader.bytes(NamePolicy::MAX_NAME)?.to_vec();
            let value = reader.bytes(MAX_XATTR_VALUE)?.to_vec();
            if xattrs.last().is_some_and(|(last, _)| *last >= name) {
                return Err(reader.invalid("extended attributes are out of order, or one is there twice"));
            }
            xattrs.push((name, value));
        }
    }
    let meta = NodeMeta { permissions: permissions as u16, user, group, accessed, modified, changed, born, xattrs };
    Ok((meta, body))
}

fn decode_extents(reader: &mut Reader<'_>, size: u64) -> Result<Vec<ContentRange>, FormatError> {
    let count = reader.varint()?;
    if count > MAX_EXTENTS as u64 {
        return Err(reader.invalid(format!("{count} extents")));
    }
    let mut extents = Vec::new();
    let mut at = 0u64;
    for _ in 0..count {
        let start = at.checked_add(reader.varint()?);
        let len = reader.varint()?;
        let extent = start.and_then(|start| ContentRange::new(start, len));
        match extent {
            Some(extent) if extent.end() <= size && !extent.is_empty() => {
                at = extent.end();
                extents.push(extent);
            }
            _ => return Err(reader.invalid("an extent lies outside its file")),
        }
    }
    Ok(extents)
}

fn put_relative(out: &mut Vec<u8>, base: Timestamp, time: Timestamp) {
    put_signed(out, time.seconds.wrapping_sub(base.seconds));
    put_signed(out, i64::from(time.nanoseconds) - i64::from(base.nanoseconds));
}

fn relative(reader: &mut Reader<'_>, base: Timestamp) -> Result<Timestamp, FormatError> {
    let seconds = base.seconds.wrapping_add(reader.signed()?);
    let nanoseconds = i64::from(base.nanoseconds).checked_add(reader.signed()?);
    match nanoseconds {
        Some(nanoseconds @ 0..=999_999_999) => Ok(Timestamp { seconds, nanoseconds: nanoseconds as u32 }),
        _ => Err(reader.invalid("nanoseconds out of range")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn time() -> impl Strategy<Value = Timestamp> {
        (any::<i64>(), 0..1_000_000_000u32).prop_map(|(seconds, nanoseconds)| Timestamp { seconds, nanoseconds })
    }

    fn path() -> impl Strategy<Value = EntryPath> {
        proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..12), 1..5)
            .prop_filter_map("names", |names| EntryPath::new(names.join(&b'/')).ok())
    }

    fn body() -> impl Strategy<Value = NodeBody> {
        prop_oneof![
            (1..u64::MAX, any::<[u8; 32]>(), any::<bool>()).prop_map(|(size, hash, sparse)| {
                let extents = sparse.then(|| vec![ContentRange::between(size / 2, size)]);
                NodeBody::File(FileContent { size, hash: Digest::new(hash), extents })
            }),
            Just(NodeBody::File(FileContent::empty())),
            Just(NodeBody::Directory),
            proptest::collection::vec(any::<u8>(), 0..50).prop_map(NodeBody::Symlink),
            any::<u32>().prop_map(NodeBody::CharDevice),
            Just(NodeBody::Fifo),
        ]
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let name = proptest::collection::vec(any::<u8>(), 1..9);
        let xattrs = proptest::collection::btree_map(name, any::<Vec<u8>>(), 0..3)
            .prop_map(|xattrs| xattrs.into_iter().collect());
        let meta =
            (
                0..0o10000u16,
                any::<u32>(),
                any::<u32>(),
                time(),
                time(),
                proptest::option::of(time()),
                proptest::option::of(time()),
                xattrs,
            )
                .prop_map(|(permissions, user, group, modified, changed, born, accessed, xattrs)| {
                    NodeMeta { accessed, permissions, user, group, modified, changed, born, xattrs }
                });
        prop_oneof![
            (path(), meta, body()).prop_map(|(path, meta, body)| Entry::Node { path, meta, body }),
            (path(), path()).prop_map(|(path, target)| Entry::HardLink { path, target }),
        ]
    }

    proptest! {
        #[test]
        fn entries_round_trip(entry in entry()) {
            let mut bytes = Vec::new();
            entry.encode(&mut bytes);
            let mut reader = Reader::new("test", &bytes);
            prop_assert_eq!(Entry::decode(&mut reader).unwrap(), entry);
            prop_assert!(reader.finish().is_ok());
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let _ = Entry::decode(&mut Reader::new("test", &bytes));
        }
    }

    #[test]
    fn extended_attributes_stand_in_order_and_once() {
        for (names, good) in
            [(["user.a", "user.b"], true), (["user.b", "user.a"], false), (["user.a", "user.a"], false)]
        {
            let xattrs = names.map(|name| (name.as_bytes().to_vec(), b"x".to_vec())).to_vec();
            let mut bytes = Vec::new();
            encode_node(&NodeMeta { xattrs, ..NodeMeta::default() }, &NodeBody::Fifo, &mut bytes);
            assert_eq!(decode_node(&mut Reader::new("test", &bytes)).is_ok(), good, "{names:?}");
        }
    }

    #[test]
    fn paths_cannot_climb() {
        for bad in ["..", "a/../b", "a//b", "/a", "a/", ".", "a\0b"] {
            assert!(EntryPath::new(bad).is_err(), "{bad:?}");
        }
        assert!(EntryPath::new(vec![b'x'; 256]).is_err());
        assert_eq!(EntryPath::from_user(b"//a/./b/").unwrap().as_bytes(), b"a/b");
        assert!(EntryPath::from_user(b"a/../b").is_err());
        assert_eq!(EntryPath::new("a/b").unwrap().parent().unwrap().as_bytes(), b"a");
        assert!(EntryPath::new("a").unwrap().parent().unwrap().is_root());
    }
}
