//! The catalog's journal and snapshots: blocks of 4096 bytes, chained by
//! their hashes, that carry groups of records. `docs/FORMAT.md` says the same
//! byte by byte.
//!
//! A group is atomic: it counts when all its blocks, up to the one marked
//! last, verify. A snapshot is one group that says the whole namespace.

use super::binary::{Reader, put_bytes, put_timestamp, put_varint};
use super::entry::{decode_node, encode_node};
use super::journal_seal::{BlockSeal, MAX_SEALED};
use super::staged::StagedContent;
use super::{BlockKey, Compression, FormatError, HashAlgorithm, NodeBody, NodeMeta, ObjectKind};
use crate::base::{ArchiveId, ContentHash, Digest, ObjectName, Timestamp};
use crate::codec::seal::TAG_LEN;
use blockframe_api::NamePolicy;

pub(super) const WHAT: &str = "catalog journal";
/// Length of a block, bytes.
pub const BLOCK_LEN: usize = 4096;
/// Length of a block's header, bytes.
pub const HEADER_LEN: usize = 52;
/// Most payload of a block, bytes.
pub const MAX_PAYLOAD: usize = BLOCK_LEN - HEADER_LEN;
/// Longest record, bytes: a node with as many and as long extended attributes as an entry may have.
pub const MAX_RECORD: usize = 288 << 20;
/// Version of a file's header, of an archive that is not encrypted.
pub const VERSION: u8 = 1;
/// Version of a file's header whose blocks are sealed.
pub const SEALED_VERSION: u8 = 2;

/// The highest type of record.
const LAST_TYPE: u8 = 15;

const MAGIC: [u8; 4] = *b"BFCJ";
const FLAG_HEADER: u8 = 1;
const FLAG_FIRST: u8 = 2;
const FLAG_LAST: u8 = 4;

/// Which of the two kinds of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileKind {
    /// Changes, in the order in which they happened.
    Journal,
    /// The whole namespace at one moment, as one group.
    Snapshot,
}

impl FileKind {
    pub(super) fn code(self) -> u8 {
        match self {
            FileKind::Journal => 1,
            FileKind::Snapshot => 2,
        }
    }

    /// The file that continues the chain at block number `sequence`.
    pub fn file_name(self, sequence: u64) -> String {
        match self {
            FileKind::Journal => format!("journal-{sequence:020}.bfc"),
            FileKind::Snapshot => format!("snapshot-{sequence:020}.bfc"),
        }
    }

    /// What [`file_name`](Self::file_name) made; `None` for any other name.
    pub fn parse_file_name(name: &str) -> Option<(FileKind, u64)> {
        let (kind, rest) = match name.strip_prefix("journal-") {
            Some(rest) => (FileKind::Journal, rest),
            None => (FileKind::Snapshot, name.strip_prefix("snapshot-")?),
        };
        let sequence = rest.strip_suffix(".bfc")?.parse().ok()?;
        (kind.file_name(sequence) == name).then_some((kind, sequence))
    }
}

/// A place in the chain: between two blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChainHead {
    /// Number of the next block.
    pub sequence: u64,
    /// BLAKE3 of the block before it; zeros before block 0.
    pub hash: Digest,
}

impl ChainHead {
    /// Before the first block.
    pub const START: ChainHead = ChainHead { sequence: 0, hash: Digest::new([0; 32]) };
}

/// A block whose checksum and header are good.
#[derive(Debug, Clone, Copy)]
pub struct Block<'a> {
    /// The kind of its file.
    pub kind: FileKind,
    /// Whether it is a file's first block.
    pub header: bool,
    /// Whether a group begins with it.
    pub first: bool,
    /// Whether a group ends with it.
    pub last: bool,
    /// Its place in the chain.
    pub place: ChainHead,
    /// A piece of the group's records, perhaps sealed; in a header block, the file's identity.
    pub payload: &'a [u8],
}

impl<'a> Block<'a> {
    /// Checks a block's checksum, then its header.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FormatError> {
        if bytes.len() != BLOCK_LEN {
            return Err(FormatError::Truncated { what: WHAT, at: bytes.len() as u64 });
        }
        let mut reader = Reader::new(WHAT, bytes);
        if reader.array()? != MAGIC {
            return Err(FormatError::Checksum { what: WHAT });
        }
        if reader.u32()? != crc32c::crc32c(&bytes[8..]) {
            return Err(FormatError::Checksum { what: WHAT });
        }
        let len = usize::from(reader.u16()?);
        let kind = match reader.u8()? {
            1 => FileKind::Journal,
            2 => FileKind::Snapshot,
            other => return Err(reader.invalid(format!("file kind {other} is unknown"))),
        };
        let flags = reader.u8()?;
        if flags != FLAG_HEADER && flags & !(FLAG_FIRST | FLAG_LAST) != 0 {
            return Err(reader.invalid(format!("block flags {flags:#04x} are unknown")));
        }
        let place = ChainHead { sequence: reader.u64()?, hash: Digest::new(reader.array()?) };
        if len > MAX_PAYLOAD {
            return Err(reader.invalid(format!("a payload of {len} bytes does not fit its block")));
        }
        let payload = reader.take(len)?;
        if reader.take(reader.remaining())?.iter().any(|&byte| byte != 0) {
            return Err(reader.invalid("a block's unused bytes are not zero"));
        }
        Ok(Self {
            kind,
            header: flags == FLAG_HEADER,
            first: flags & FLAG_FIRST != 0,
            last: flags & FLAG_LAST != 0,
            place,
            payload,
        })
    }

    pub(super) fn flags(&self) -> u8 {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        flag(self.header, FLAG_HEADER) | flag(self.first, FLAG_FIRST) | flag(self.last, FLAG_LAST)
    }
}

/// The place after a block that was parsed from `bytes`.
pub fn place_after(block: &Block<'_>, bytes: &[u8]) -> ChainHead {
    ChainHead { sequence: block.place.sequence.saturating_add(1), hash: Digest::of(bytes) }
}

fn put_block(kind: FileKind, flags: u8, at: &mut ChainHead, payload: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(payload.len() as u16).to_le_bytes());
    out.extend_from_slice(&[kind.code(), flags]);
    out.extend_from_slice(&at.sequence.to_le_bytes());
    out.extend_from_slice(at.hash.as_bytes());
    out.extend_from_slice(payload);
    out.resize(start + BLOCK_LEN, 0);
    let crc = crc32c::crc32c(&out[start + 8..]);
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    *at = ChainHead { sequence: at.sequence.saturating_add(1), hash: Digest::of(&out[start..]) };
}

/// Appends a file's first block: the archive's 16 bytes, then the version of
/// the records. Returns the place after it.
pub fn put_file_header(kind: FileKind, archive: ArchiveId, mut at: ChainHead, out: &mut Vec<u8>) -> ChainHead {
    let mut payload = archive.as_bytes().to_vec();
    payload.push(VERSION);
    put_block(kind, FLAG_HEADER, &mut at, &payload, out);
    at
}

/// Appends the first block of a file whose blocks `seal` encrypts: the
/// archive, the version, the epoch, a tag. Returns the place after it.
pub fn put_sealed_header(kind: FileKind, seal: &BlockSeal, mut at: ChainHead, out: &mut Vec<u8>) -> ChainHead {
    let mut payload = seal.archive().as_bytes().to_vec();
    payload.push(SEALED_VERSION);
    payload.extend_from_slice(&seal.epoch().to_le_bytes());
    payload.extend_from_slice(&seal.header_tag(kind, FLAG_HEADER, &at));
    put_block(kind, FLAG_HEADER, &mut at, &payload, out);
    at
}

/// Whose file it is, as its header block says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileHeader {
    /// The archive.
    pub archive: ArchiveId,
    /// The epoch whose key opens the blocks; `None` when they are not encrypted. Only
    /// [`BlockSeal::check_header`] tells that it is true.
    pub epoch: Option<u32>,
}

/// Reads a header block's payload.
pub fn parse_file_header(payload: &[u8]) -> Result<FileHeader, FormatError> {
    let mut reader = Reader::new(WHAT, payload);
    let archive = ArchiveId::from_bytes(reader.array()?);
    let epoch = match reader.u8()? {
        VERSION => None,
        SEALED_VERSION => {
            let epoch = reader.u32()?;
            reader.take(TAG_LEN)?;
            Some(epoch)
        }
        version => {
            let (found, known) = (u64::from(version), u64::from(SEALED_VERSION));
            return Err(FormatError::Version { what: WHAT, found, known });
        }
    };
    reader.finish()?;
    Ok(FileHeader { archive, epoch })
}

/// Cuts the records of one group into blocks.
#[derive(Debug)]
pub struct GroupEncoder {
    kind: FileKind,
    at: ChainHead,
    first: bool,
    pending: Vec<u8>,
    used: usize,
    record: Vec<u8>,
    seal: Option<BlockSeal>,
}

impl GroupEncoder {
    /// A group that continues the chain at `at`.
    pub fn new(kind: FileKind, at: ChainHead) -> Self {
        Self { kind, at, first: true, pending: Vec::new(), used: 0, record: Vec::new(), seal: None }
    }

    /// The same, with its blocks sealed if there is a seal.
    pub fn sealed_by(self, seal: Option<BlockSeal>) -> Self {
        Self { seal, ..self }
    }

    /// Adds a record; blocks that are full go to `out`.
    pub fn push(&mut self, record: &Record, out: &mut Vec<u8>) -> Result<(), FormatError> {
        self.record.clear();
        record.encode(&mut self.record);
        if self.record.len() > MAX_RECORD {
            return Err(FormatError::invalid(WHAT, format!("a record of {} bytes is too long", self.record.len())));
        }
        put_bytes(&mut self.pending, &self.record);
        // The last block is known only when the group ends, so one stays.
        let room = if self.seal.is_some() { MAX_SEALED } else { MAX_PAYLOAD };
        while self.pending.len() - self.used > room {
            self.put(0, room, out);
        }
        if self.used > 0 {
            self.pending.drain(..self.used);
            self.used = 0;
        }
        Ok(())
    }

    /// Ends the group. Returns the place after it.
    pub fn finish(mut self, out: &mut Vec<u8>) -> ChainHead {
        self.put(FLAG_LAST, self.pending.len() - self.used, out);
        self.at
    }

    fn put(&mut self, flags: u8, len: usize, out: &mut Vec<u8>) {
        let flags = flags | if self.first { FLAG_FIRST } else { 0 };
        self.first = false;
        let payload = &self.pending[self.used..self.used + len];
        match &self.seal {
            None => put_block(self.kind, flags, &mut self.at, payload, out),
            Some(seal) => {
                let sealed = seal.seal(self.kind, flags, &self.at, payload);
                put_block(self.kind, flags, &mut self.at, &sealed, out);
            }
        }
        self.used += len;
    }
}

/// Puts the payloads of a group's blocks together and cuts records out of them.
#[derive(Debug, Default)]
pub struct RecordAssembler {
    bytes: Vec<u8>,
}

impl RecordAssembler {
    /// Takes the next block's payload and hands out every record that is complete.
    pub fn push<E: From<FormatError>>(
        &mut self,
        payload: &[u8],
        take: &mut dyn FnMut(Record) -> Result<(), E>,
    ) -> Result<(), E> {
        self.bytes.extend_from_slice(payload);
        let mut used = 0;
        loop {
            let mut reader = Reader::new(WHAT, &self.bytes[used..]);
            // A length that is cut off by the block's end is not an error yet.
            let Some(len) = varint_if_complete(&mut reader)? else { break };
            if len > MAX_RECORD as u64 {
                return Err(reader.invalid(format!("a record of {len} bytes is too long")).into());
            }
            if (reader.remaining() as u64) < len {
                break;
            }
            let body = reader.take(len as usize)?;
            used += reader.position();
            take(Record::from_bytes(body)?)?;
        }
        self.bytes.drain(..used);
        Ok(())
    }

    /// At the group's end no piece of a record may be left.
    pub fn finish(&self) -> Result<(), FormatError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(FormatError::invalid(WHAT, "a group ends within a record")) }
    }
}

fn varint_if_complete(reader: &mut Reader<'_>) -> Result<Option<u64>, FormatError> {
    let mut probe = reader.clone();
    let available = probe.take(probe.remaining().min(10))?;
    if available.len() < 10 && available.iter().all(|byte| byte & 0x80 != 0) {
        return Ok(None);
    }
    reader.varint().map(Some)
}

/// What the catalog knows of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectFacts {
    /// Its directory.
    pub name: ObjectName,
    /// Root over key, geometry and shards.
    pub root: Digest,
    /// File or bundle.
    pub kind: ObjectKind,
    /// Identity of its content.
    pub key: BlockKey,
    /// Tier.
    pub tier: u8,
    /// Bytes of all shards.
    pub stored_len: u64,
}

/// One change of the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// An object is stored. Its contents follow as members.
    Object(ObjectFacts),
    /// A content of the object named last; replaces what was known of that content.
    Member {
        /// BLAKE3 of the content.
        hash: ContentHash,
        /// First byte within the object's content.
        offset: u64,
        /// Length, bytes.
        size: u64,
        /// Signature of the source file it was read from.
        source: Option<u64>,
    },
    /// An object and its contents are gone.
    ObjectRemoved(ObjectName),
    /// A node is made or changed. Its number of links follows from the names.
    Inode {
        /// Its inode number.
        node: u64,
        /// Attributes.
        meta: NodeMeta,
        /// What it is.
        body: NodeBody,
    },
    /// A name is made. No such name stands there before.
    Dirent {
        /// Inode number of the directory.
        parent: u64,
        /// The name.
        name: Vec<u8>,
        /// Inode number it leads to.
        node: u64,
    },
    /// A name is removed.
    DirentRemoved {
        /// Inode number of the directory.
        parent: u64,
        /// The name.
        name: Vec<u8>,
    },
    /// A node without names is removed.
    InodeRemoved(u64),
    /// Inode numbers below this one were used.
    NextInode(u64),
    /// The records after it in this group happened then.
    Time(Timestamp),
    /// A file's newest published content lies in staging, over the content of
    /// its body; replaces what was known of that node.
    Staged {
        /// Its inode number.
        node: u64,
        /// The content.
        content: StagedContent,
    },
    /// Nothing of a node lies in staging any more.
    StagedRemoved(u64),
    /// States that ended at or before this time are gone.
    HistoryRemoved {
        /// The time.
        before: Timestamp,
    },
    /// What a node was for a while. In snapshots only: otherwise it follows from the changes.
    PastInode {
        /// Its inode number.
        node: u64,
        /// From when.
        since: Timestamp,
        /// Until when; not after that.
        until: Timestamp,
        /// Attributes.
        meta: NodeMeta,
        /// What it was.
        body: NodeBody,
    },
    /// A name that stood for a while. In snapshots only.
    PastDirent {
        /// Inode number of the directory.
        parent: u64,
        /// The name.
        name: Vec<u8>,
        /// Inode number it led to.
        node: u64,
        /// From when.
        since: Timestamp,
        /// Until when; not after that.
        until: Timestamp,
    },
}

impl Record {
    /// Appends the record's bytes, without its length.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Record::Object(object) => {
                out.push(1);
                put_bytes(out, object.name.as_str().as_bytes());
                out.extend_from_slice(object.root.as_bytes());
                out.push(match object.kind {
                    ObjectKind::File => 1,
                    ObjectKind::Bundle => 2,
                });
                out.push(match object.key.hash_algorithm {
                    HashAlgorithm::Sha256 => 1,
                    HashAlgorithm::Sha512 => 2,
                    HashAlgorithm::Blake3 => 3,
                });
                out.extend_from_slice(object.key.hash.as_bytes());
                put_varint(out, object.key.plain_size);
                put_varint(out, object.key.stored_size);
                out.push(match object.key.compression {
                    Compression::None => 0,
                    Compression::Zstd => 1,
                    Compression::Lz4 => 2,
                    Compression::Gzip => 3,
                    Compression::Brotli => 4,
                });
                out.push(object.tier);
                put_varint(out, object.stored_len);
            }
            Record::Member { hash, offset, size, source } => {
                out.push(if source.is_some() { 3 } else { 2 });
                out.extend_from_slice(hash.as_bytes());
                put_varint(out, *offset);
                put_varint(out, *size);
                if let Some(source) = source {
                    out.extend_from_slice(&source.to_le_bytes());
                }
            }
            Record::ObjectRemoved(name) => {
                out.push(4);
                put_bytes(out, name.as_str().as_bytes());
            }
            Record::Inode { node, meta, body } => {
                out.push(5);
                put_varint(out, *node);
                encode_node(meta, body, out);
            }
            Record::Dirent { parent, name, node } => {
                out.push(6);
                put_varint(out, *parent);
                put_bytes(out, name);
                put_varint(out, *node);
            }
            Record::DirentRemoved { parent, name } => {
                out.push(7);
                put_varint(out, *parent);
                put_bytes(out, name);
            }
            Record::InodeRemoved(node) => {
                out.push(8);
                put_varint(out, *node);
            }
            Record::NextInode(node) => {
                out.push(9);
                put_varint(out, *node);
            }
            later => later.encode_history(out),
        }
    }

    /// [`encode`](Self::encode) of what tells of time and of staging.
    fn encode_history(&self, out: &mut Vec<u8>) {
        match self {
            Record::Time(time) => {
                out.push(10);
                put_timestamp(out, *time);
            }
            Record::Staged { node, content } => {
                out.push(11);
                put_varint(out, *node);
                content.encode(out);
            }
            Record::StagedRemoved(node) => {
                out.push(12);
                put_varint(out, *node);
            }
            Record::HistoryRemoved { before } => {
                out.push(13);
                put_timestamp(out, *before);
            }
            Record::PastInode { node, since, until, meta, body } => {
                out.push(14);
                put_varint(out, *node);
                put_timestamp(out, *since);
                put_timestamp(out, *until);
                encode_node(meta, body, out);
            }
            Record::PastDirent { parent, name, node, since, until } => {
                out.push(15);
                put_varint(out, *parent);
                put_bytes(out, name);
                put_varint(out, *node);
                put_timestamp(out, *since);
                put_timestamp(out, *until);
            }
            Record::Object(_)
            | Record::Member { .. }
            | Record::ObjectRemoved(_)
            | Record::Inode { .. }
            | Record::Dirent { .. }
            | Record::DirentRemoved { .. }
            | Record::InodeRemoved(_)
            | Record::NextInode(_) => {}
        }
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(WHAT, bytes);
        let record = match reader.u8()? {
            1 => Record::Object(decode_object(&mut reader)?),
            code @ (2 | 3) => Record::Member {
                hash: Digest::new(reader.array()?),
                offset: reader.varint()?,
                size: reader.varint()?,
                source: if code == 3 { Some(reader.u64()?) } else { None },
            },
            4 => Record::ObjectRemoved(object_name(&mut reader)?),
            5 => {
                let node = inode_number(&mut reader)?;
                let (meta, body) = decode_node(&mut reader)?;
                Record::Inode { node, meta, body }
            }
            6 => {
                let (parent, name) = place(&mut reader)?;
                Record::Dirent { parent, name, node: inode_number(&mut reader)? }
            }
            7 => {
                let (parent, name) = place(&mut reader)?;
                Record::DirentRemoved { parent, name }
            }
            8 => Record::InodeRemoved(inode_number(&mut reader)?),
            9 => Record::NextInode(inode_number(&mut reader)?),
            10 => Record::Time(reader.timestamp()?),
            11 => Record::Staged { node: inode_number(&mut reader)?, content: StagedContent::decode(&mut reader)? },
            12 => Record::StagedRemoved(inode_number(&mut reader)?),
            13 => Record::HistoryRemoved { before: reader.timestamp()? },
            14 => {
                let node = inode_number(&mut reader)?;
                let (since, until) = period(&mut reader)?;
                let (meta, body) = decode_node(&mut reader)?;
                Record::PastInode { node, since, until, meta, body }
            }
            15 => {
                let (parent, name) = place(&mut reader)?;
                let node = inode_number(&mut reader)?;
                let (since, until) = period(&mut reader)?;
                Record::PastDirent { parent, name, node, since, until }
            }
            0 => return Err(reader.invalid("there is no record type 0")),
            newer => {
                let (found, known) = (u64::from(newer), u64::from(LAST_TYPE));
                return Err(FormatError::Version { what: "record type of the catalog journal", found, known });
            }
        };
        reader.finish()?;
        Ok(record)
    }
}

fn decode_object(reader: &mut Reader<'_>) -> Result<ObjectFacts, FormatError> {
    let name = object_name(reader)?;
    let root = Digest::new(reader.array()?);
    let kind = match reader.u8()? {
        1 => ObjectKind::File,
        2 => ObjectKind::Bundle,
        other => return Err(reader.invalid(format!("object kind {other} is unknown"))),
    };
    let hash_algorithm = match reader.u8()? {
        1 => HashAlgorithm::Sha256,
        2 => HashAlgorithm::Sha512,
        3 => HashAlgorithm::Blake3,
        other => return Err(reader.invalid(format!("hash algorithm {other} is unknown"))),
    };
    let hash = Digest::new(reader.array()?);
    let plain_size = reader.varint()?;
    let stored_size = reader.varint()?;
    let compression = match reader.u8()? {
        0 => Compression::None,
        1 => Compression::Zstd,
        2 => Compression::Lz4,
        3 => Compression::Gzip,
        4 => Compression::Brotli,
        other => return Err(reader.invalid(format!("compression {other} is unknown"))),
    };
    let tier = reader.u8()?;
    let stored_len = reader.varint()?;
    let key = BlockKey { hash_algorithm, hash, plain_size, stored_size, compression };
    Ok(ObjectFacts { name, root, kind, key, tier, stored_len })
}

fn object_name(reader: &mut Reader<'_>) -> Result<ObjectName, FormatError> {
    let text = reader.bytes(255)?;
    let text = std::str::from_utf8(text).map_err(|_| reader.invalid("an object's name is not UTF-8"))?;
    text.parse().map_err(|_| reader.invalid(format!("\"{text}\" is not an object's name")))
}

/// Inode numbers are positive and fit the database's signed 64 bits.
fn inode_number(reader: &mut Reader<'_>) -> Result<u64, FormatError> {
    match reader.varint()? {
        0 => Err(reader.invalid("inode number 0")),
        number if number > i64::MAX as u64 => Err(reader.invalid("an inode number is out of range")),
        number => Ok(number),
    }
}

/// A time that passed: it has a length.
fn period(reader: &mut Reader<'_>) -> Result<(Timestamp, Timestamp), FormatError> {
    let (since, until) = (reader.timestamp()?, reader.timestamp()?);
    if since < until { Ok((since, until)) } else { Err(reader.invalid("a past state ends before it begins")) }
}

fn place(reader: &mut Reader<'_>) -> Result<(u64, Vec<u8>), FormatError> {
    let parent = inode_number(reader)?;
    let name = reader.bytes(NamePolicy::MAX_NAME)?;
    if !NamePolicy::UnixBytes.allows(name) {
        return Err(reader.invalid(format!("\"{}\" is not a file name", String::from_utf8_lossy(name))));
    }
    Ok((parent, name.to_vec()))
}

#[cfg(test)]
mod tests;
