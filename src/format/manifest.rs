//! `manifest.json`: an object's geometry, the roots of all its shards, and
//! what its content is. The root over all of it is recorded in the catalog.

use super::binary::Reader;
use super::descriptor::{MAX_SEGMENT, OuterCode, TierLayout, TierRule};
use super::geometry::{BlockId, Geometry};
use super::{Entry, FormatError, sealed_json};
use crate::base::{ArchiveId, ContentHash, Digest, ObjectName, ShardIndex, Timestamp};
use crate::merkle::RootBuilder;
use base64::Engine as _;
use serde::{Deserialize, Serialize};

const WHAT: &str = "manifest";
const FORMAT: &str = "blockframe-manifest";
/// A manifest without `content_tree`.
const VERSION_PLAIN: u64 = 1;
/// A manifest with `content_tree`.
const VERSION_TREE: u64 = 2;
/// The erasure code's name: `reed-solomon-simd` 3 with its default rate over
/// GF(2^16), 64-byte units; one data shard is copied.
pub const ERASURE_CODE: &str = "rs16-simd3";

/// Hash of a BlockKey.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HashAlgorithm {
    /// SHA-256: named by the format, not computed by this version.
    Sha256,
    /// SHA-512: named by the format, not computed by this version.
    Sha512,
    /// BLAKE3, 32 bytes.
    Blake3,
}

/// Compression of a stored content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Stored as it is.
    None,
    /// Zstandard: named by the format, not written by this version.
    Zstd,
    /// LZ4: named by the format, not written by this version.
    Lz4,
    /// gzip: named by the format, not written by this version.
    Gzip,
    /// Brotli: named by the format, not written by this version.
    Brotli,
}

/// Cipher of a stored content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cipher {
    /// Not encrypted.
    None,
    /// AES-256-GCM: named by the format, not written by this version.
    Aes256Gcm,
    /// ChaCha20-Poly1305: named by the format, not written by this version.
    Chacha20Poly1305,
    /// AES-256-SIV: named by the format, not written by this version.
    Aes256Siv,
}

/// Identity of a stored content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockKey {
    /// Which hash.
    pub hash_algorithm: HashAlgorithm,
    /// Its value over the plain content.
    pub hash: ContentHash,
    /// Length of the plain content, bytes.
    pub plain_size: u64,
    /// Length of what is cut into segments, bytes; equal to `plain_size` when not encoded.
    pub stored_size: u64,
    /// How the plain content became the stored one.
    pub compression: Compression,
}

impl BlockKey {
    /// The key of a content that is stored as it is.
    pub fn plain(hash: ContentHash, size: u64) -> Self {
        Self {
            hash_algorithm: HashAlgorithm::Blake3,
            hash,
            plain_size: size,
            stored_size: size,
            compression: Compression::None,
        }
    }
}

/// What an object's content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectKind {
    /// One file's bytes.
    File,
    /// A tar of small files with an entry table.
    Bundle,
}

/// The roots (plain BLAKE3) of a block's shard files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockRoots {
    shards: Vec<Digest>,
}

impl BlockRoots {
    /// Roots of all shards of a block: data first, then parity.
    pub fn new(shards: Vec<Digest>) -> Self {
        Self { shards }
    }

    /// The root of one shard.
    pub fn shard(&self, shard: ShardIndex) -> Option<&Digest> {
        self.shards.get(shard.as_usize())
    }

    /// BLAKE3 of `blockframe block 1`, a newline, the number of shards (u32
    /// little-endian) and the shard roots in order.
    pub fn root(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"blockframe block 1\n");
        hasher.update(&(self.shards.len() as u32).to_le_bytes());
        for shard in &self.shards {
            hasher.update(shard.as_bytes());
        }
        hasher.finalize().into()
    }
}

/// A checked manifest: its geometry is possible, and its roots are as many as
/// the geometry demands and match the object's root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The archive it belongs to.
    pub archive: ArchiveId,
    /// The object's directory.
    pub name: ObjectName,
    /// What the content is.
    pub kind: ObjectKind,
    /// The content's identity.
    pub key: BlockKey,
    /// The catalog's sequence number when it was written: later wins.
    pub sequence: u64,
    /// When it was written.
    pub committed: Timestamp,
    /// The name and attributes under which a file was first committed.
    pub entry: Option<Entry>,
    geometry: Geometry,
    blocks: Vec<BlockRoots>,
    outer: Vec<BlockRoots>,
    root: Digest,
    content_tree: Option<Vec<Digest>>,
}

/// What a commit knows of an object besides its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestParts {
    /// The archive it belongs to.
    pub archive: ArchiveId,
    /// The readable part of the object's name.
    pub readable: Vec<u8>,
    /// What the content is.
    pub kind: ObjectKind,
    /// The catalog's sequence number.
    pub sequence: u64,
    /// When it was written.
    pub committed: Timestamp,
    /// Name and attributes.
    pub entry: Option<Entry>,
}

impl Manifest {
    /// A manifest for a plain content. `blocks` and `outer` stand in the
    /// order of [`Geometry::block_ids`].
    pub fn new(
        parts: ManifestParts,
        geometry: Geometry,
        hash: ContentHash,
        blocks: Vec<BlockRoots>,
        outer: Vec<BlockRoots>,
    ) -> Result<Self, FormatError> {
        let key = BlockKey::plain(hash, geometry.content_len());
        let root = object_root(&key, &geometry, &blocks, &outer);
        let manifest = Self {
            archive: parts.archive,
            name: ObjectName::new(&parts.readable, &hash),
            kind: parts.kind,
            key,
            sequence: parts.sequence,
            committed: parts.committed,
            entry: parts.entry,
            geometry,
            blocks,
            outer,
            root,
            content_tree: None,
        };
        manifest.check_counts()?;
        Ok(manifest)
    }

    /// Adds the chaining values of all segments as subtrees of the content.
    /// Error where the geometry has none, or they do not give the content's hash.
    pub fn with_content_tree(mut self, segments: Vec<Digest>) -> Result<Self, FormatError> {
        check_content_tree(&self.geometry, &self.key.hash, &segments)?;
        self.content_tree = Some(segments);
        Ok(self)
    }

    /// The BLAKE3 chaining value of each segment as a subtree of the content,
    /// in order; they were checked against the content's hash. `None` where
    /// segments are no subtrees, and in manifests that were written without.
    pub fn content_tree(&self) -> Option<&[Digest]> {
        self.content_tree.as_deref()
    }

    /// How the content is cut.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The root over key, geometry and all block roots.
    pub fn root(&self) -> Digest {
        self.root
    }

    /// The roots of a block's shards.
    pub fn roots(&self, id: BlockId) -> Option<&BlockRoots> {
        match id {
            BlockId::Data(block) => self.blocks.get(block.as_usize()),
            BlockId::Outer { group, parity } => {
                let m = self.geometry.outer()?.m;
                (parity < m).then(|| self.outer.get(group as usize * usize::from(m) + usize::from(parity)))?
            }
        }
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, FormatError> {
        let geometry = &self.geometry;
        let block = |(id, roots): (BlockId, &BlockRoots)| {
            let k = geometry.block(id).map_or(0, |block| usize::from(block.k));
            RawBlock { segments: roots.shards[..k].to_vec(), parity: roots.shards[k..].to_vec() }
        };
        let mut ids = geometry.block_ids();
        let blocks = ids.by_ref().zip(&self.blocks).map(block).collect();
        let outer = geometry.block_ids().skip(self.blocks.len()).zip(&self.outer).map(block).collect();
        let raw = Raw {
            format: FORMAT.into(),
            version: if self.content_tree.is_some() { VERSION_TREE } else { VERSION_PLAIN },
            archive: self.archive,
            object: self.name.clone(),
            kind: self.kind,
            sequence: self.sequence,
            committed: RawTime { seconds: self.committed.seconds, nanoseconds: self.committed.nanoseconds },
            key: self.key,
            cipher: Cipher::None,
            geometry: RawGeometry {
                tier: geometry.tier(),
                layout: geometry.layout(),
                code: ERASURE_CODE.into(),
                segment_size: geometry.segment_size(),
                k: geometry.k(),
                m: geometry.m(),
                outer: geometry.outer(),
            },
            entry: self.entry.as_ref().map(RawEntry::new),
            root: self.root,
            content_tree: self.content_tree.clone(),
            blocks,
            outer,
        };
        sealed_json::seal(WHAT, &raw)
    }

    /// Parses and checks everything that can be checked without the shards.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FormatError> {
        let raw: Raw = sealed_json::open_as_one_of(WHAT, FORMAT, VERSION_PLAIN..=VERSION_TREE, bytes)?;
        let invalid = |why: &str| FormatError::invalid(WHAT, why);
        if (raw.version == VERSION_TREE) != raw.content_tree.is_some() {
            return Err(invalid("its version and its members disagree"));
        }
        if raw.key.hash_algorithm != HashAlgorithm::Blake3 {
            return Err(invalid("its hash algorithm is not known to this version"));
        }
        if raw.key.compression != Compression::None
            || raw.cipher != Cipher::None
            || raw.key.plain_size != raw.key.stored_size
        {
            return Err(invalid("it is compressed or encrypted, which this version does not read"));
        }
        if raw.geometry.code != ERASURE_CODE {
            return Err(invalid("its erasure code is not known to this version"));
        }
        if raw.object.hash() != Some(raw.key.hash) {
            return Err(invalid("its name and its content hash disagree"));
        }
        if raw.committed.nanoseconds > 999_999_999 {
            return Err(invalid("nanoseconds out of range"));
        }
        let rule = TierRule {
            tier: raw.geometry.tier,
            below: None,
            layout: raw.geometry.layout,
            segment_size: raw.geometry.segment_size,
            min_segment_size: raw.geometry.segment_size,
            k: raw.geometry.k,
            m: raw.geometry.m,
            outer: raw.geometry.outer,
        };
        rule.check()?;
        if rule.segment_size > MAX_SEGMENT {
            return Err(invalid("segment size out of range"));
        }
        let geometry = Geometry::new(rule, rule.segment_size, raw.key.stored_size)
            .ok_or_else(|| invalid("its geometry is impossible"))?;
        let roots = |block: RawBlock| {
            let mut shards = block.segments;
            shards.extend(block.parity);
            BlockRoots::new(shards)
        };
        let blocks: Vec<_> = raw.blocks.into_iter().map(roots).collect();
        let outer: Vec<_> = raw.outer.into_iter().map(roots).collect();
        let manifest = Self {
            archive: raw.archive,
            name: raw.object,
            kind: raw.kind,
            key: raw.key,
            sequence: raw.sequence,
            committed: Timestamp { seconds: raw.committed.seconds, nanoseconds: raw.committed.nanoseconds },
            entry: raw.entry.map(RawEntry::open).transpose()?,
            root: object_root(&raw.key, &geometry, &blocks, &outer),
            geometry,
            blocks,
            outer,
            content_tree: None,
        };
        manifest.check_counts()?;
        if manifest.root != raw.root {
            return Err(invalid("its root does not match its shards' roots"));
        }
        match raw.content_tree {
            Some(segments) => manifest.with_content_tree(segments),
            None => Ok(manifest),
        }
    }

    fn check_counts(&self) -> Result<(), FormatError> {
        let geometry = &self.geometry;
        let outer_blocks = geometry.groups() as usize * geometry.outer().map_or(0, |outer| usize::from(outer.m));
        if self.blocks.len() != geometry.blocks() as usize || self.outer.len() != outer_blocks {
            return Err(FormatError::invalid(WHAT, "it lists more or fewer blocks than its geometry has"));
        }
        for id in geometry.block_ids() {
            let expected = geometry.block(id).map(|block| usize::from(block.shards()));
            if self.roots(id).map(|roots| roots.shards.len()) != expected {
                return Err(FormatError::invalid(WHAT, "a block lists more or fewer shards than its geometry has"));
            }
        }
        Ok(())
    }
}

fn check_content_tree(geometry: &Geometry, hash: &ContentHash, segments: &[Digest]) -> Result<(), FormatError> {
    if !geometry.has_content_tree() || segments.len() != geometry.segments() as usize {
        return Err(FormatError::invalid(WHAT, "its content tree does not fit its geometry"));
    }
    let mut builder = RootBuilder::default();
    segments.iter().for_each(|segment| builder.push(*segment.as_bytes()));
    if builder.finish() != Some(*hash) {
        return Err(FormatError::invalid(WHAT, "its content tree does not give its content hash"));
    }
    Ok(())
}

/// BLAKE3 of `blockframe object 1`, a newline, the content hash, the plain
/// and stored sizes (u64), tier (u8), layout (u8: whole 0, segments 1, blocks
/// 2), segment size (u64), k and m (u16), outer k and m (u16, 0 without), the
/// number of data blocks (u32), their roots, and the outer blocks' roots;
/// integers little-endian.
fn object_root(key: &BlockKey, geometry: &Geometry, blocks: &[BlockRoots], outer: &[BlockRoots]) -> Digest {
    let layout = match geometry.layout() {
        TierLayout::Whole => 0u8,
        TierLayout::Segments => 1,
        TierLayout::Blocks => 2,
    };
    let OuterCode { k: outer_k, m: outer_m } = geometry.outer().unwrap_or(OuterCode { k: 0, m: 0 });
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"blockframe object 1\n");
    hasher.update(key.hash.as_bytes());
    hasher.update(&key.plain_size.to_le_bytes());
    hasher.update(&key.stored_size.to_le_bytes());
    hasher.update(&[geometry.tier(), layout]);
    hasher.update(&geometry.segment_size().to_le_bytes());
    for number in [geometry.k(), geometry.m(), outer_k, outer_m] {
        hasher.update(&number.to_le_bytes());
    }
    hasher.update(&(blocks.len() as u32).to_le_bytes());
    for block in blocks.iter().chain(outer) {
        hasher.update(block.root().as_bytes());
    }
    hasher.finalize().into()
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    format: String,
    version: u64,
    archive: ArchiveId,
    object: ObjectName,
    kind: ObjectKind,
    sequence: u64,
    committed: RawTime,
    key: BlockKey,
    cipher: Cipher,
    geometry: RawGeometry,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    entry: Option<RawEntry>,
    root: Digest,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    content_tree: Option<Vec<Digest>>,
    blocks: Vec<RawBlock>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    outer: Vec<RawBlock>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTime {
    seconds: i64,
    nanoseconds: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGeometry {
    tier: u8,
    layout: TierLayout,
    code: String,
    segment_size: u64,
    k: u16,
    m: u16,
    outer: Option<OuterCode>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBlock {
    segments: Vec<Digest>,
    parity: Vec<Digest>,
}

/// The path for people, and the exact entry as base64 of its binary form.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEntry {
    path: String,
    record: String,
}

impl RawEntry {
    fn new(entry: &Entry) -> Self {
        let mut record = Vec::new();
        entry.encode(&mut record);
        Self {
            path: String::from_utf8_lossy(entry.path().as_bytes()).into_owned(),
            record: base64::engine::general_purpose::STANDARD.encode(record),
        }
    }

    fn open(self) -> Result<Entry, FormatError> {
        let record = base64::engine::general_purpose::STANDARD
            .decode(&self.record)
            .map_err(|_| FormatError::invalid(WHAT, "its entry is not base64"))?;
        let mut reader = Reader::new(WHAT, &record);
        let entry = Entry::decode(&mut reader)?;
        reader.finish()?;
        Ok(entry)
    }
}
