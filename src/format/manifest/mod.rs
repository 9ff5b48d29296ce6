//! `manifest.json`: an object's geometry, the roots of all its shards, and
//! what its content is. The root over all of it is recorded in the catalog.
//! In an encrypted archive what the content is stands in a sealed part; the
//! rest is enough to verify and repair the object.

mod facts;
mod raw;

pub use facts::{BlockKey, Compression, ContentFacts, HashAlgorithm, ObjectKind, Sealing, StreamLens};

use self::raw::{Raw, RawBlock, RawEntry, RawGeometry, RawTime};
use super::descriptor::{MAX_SEGMENT, OuterCode, TierLayout, TierRule};
use super::geometry::{BlockId, Geometry};
use super::{Entry, FormatError, sealed_json};
use crate::base::{ArchiveId, ContentHash, Digest, ObjectName, Secret, ShardIndex, Timestamp};
use crate::codec::seal::CipherSuite;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

const WHAT: &str = "manifest";
const FORMAT: &str = "blockframe-manifest";
/// A manifest without `content_tree`.
const VERSION_PLAIN: u64 = 1;
/// A manifest with `content_tree`.
const VERSION_TREE: u64 = 2;
/// The manifest of an object with encoded segments.
const VERSION_ENCODED: u64 = 3;
/// The erasure code's name: `reed-solomon-simd` 3 with its default rate over
/// GF(2^16), 64-byte units; one data shard is copied.
pub const ERASURE_CODE: &str = "rs16-simd3";

/// Cipher of a stored content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Cipher {
    /// Not encrypted.
    None,
    #[serde(untagged)]
    Suite(CipherSuite),
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
    geometry: Geometry,
    blocks: Vec<BlockRoots>,
    outer: Vec<BlockRoots>,
    root: Digest,
    content: Content,
}

/// What a manifest says of the content.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    /// In clear.
    Plain(ContentFacts),
    /// Sealed, and, when it was opened with the key, known.
    Sealed { seal: Seal, facts: Option<ContentFacts> },
}

/// The sealed part, and with what it was sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seal {
    suite: CipherSuite,
    epoch: u32,
    bytes: Vec<u8>,
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

/// What was written: a content, and how it was encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenContent {
    /// BLAKE3 of it.
    pub hash: ContentHash,
    /// Its length, bytes.
    pub size: u64,
    /// How its segments are compressed.
    pub compression: Compression,
    /// Chaining values of its segments, where there is a content tree.
    pub tree: Option<Vec<Digest>>,
}

/// With what a manifest is sealed.
#[derive(Debug)]
pub struct SealWith {
    /// What stands for the content's hash in the object's name.
    pub object_hash: Digest,
    /// The cipher of the segments.
    pub suite: CipherSuite,
    /// The number of the epoch.
    pub epoch: u32,
    /// The epoch's key for manifests.
    pub key: Secret<64>,
    /// Line and streams.
    pub sealing: Sealing,
}

impl Manifest {
    /// The manifest of a content in clear. `blocks` and `outer` stand in the
    /// order of [`Geometry::block_ids`].
    pub fn new(
        parts: ManifestParts,
        geometry: Geometry,
        content: WrittenContent,
        blocks: Vec<BlockRoots>,
        outer: Vec<BlockRoots>,
    ) -> Result<Self, FormatError> {
        let name = ObjectName::new(&parts.readable, &content.hash);
        let (archive, facts) = facts_of(parts, content, &geometry, None);
        facts.check(&geometry)?;
        let root = object_root(&RootOf { name: &name, facts: Some(&facts), seal: None }, &geometry, &blocks, &outer);
        let manifest = Self { archive, name, geometry, blocks, outer, root, content: Content::Plain(facts) };
        manifest.check_counts()?;
        Ok(manifest)
    }

    /// The manifest of an encrypted content.
    pub fn sealed(
        parts: ManifestParts,
        geometry: Geometry,
        content: WrittenContent,
        blocks: Vec<BlockRoots>,
        outer: Vec<BlockRoots>,
        with: SealWith,
    ) -> Result<Self, FormatError> {
        let name = ObjectName::sealed(&with.object_hash);
        let (archive, facts) = facts_of(parts, content, &geometry, Some(with.sealing));
        facts.check(&geometry)?;
        let mut seal = Seal { suite: with.suite, epoch: with.epoch, bytes: Vec::new() };
        let root = object_root(&RootOf { name: &name, facts: None, seal: Some(&seal) }, &geometry, &blocks, &outer);
        seal.bytes = facts::seal(&facts, &with.key, &seal_context(archive, &name, &root, &seal))?;
        let content = Content::Sealed { seal, facts: Some(facts) };
        let manifest = Self { archive, name, geometry, blocks, outer, root, content };
        manifest.check_counts()?;
        Ok(manifest)
    }

    /// What the content is. Error: `Sealed`, when it was not [opened](Self::open).
    pub fn facts(&self) -> Result<&ContentFacts, FormatError> {
        match &self.content {
            Content::Plain(facts) | Content::Sealed { facts: Some(facts), .. } => Ok(facts),
            Content::Sealed { facts: None, .. } => Err(FormatError::Sealed { what: WHAT }),
        }
    }

    /// Cipher and number of the epoch of an encrypted object.
    pub fn encryption(&self) -> Option<(CipherSuite, u32)> {
        match &self.content {
            Content::Plain(_) => None,
            Content::Sealed { seal, .. } => Some((seal.suite, seal.epoch)),
        }
    }

    /// Opens the sealed part with the epoch's key for manifests; nothing
    /// happens where none is sealed.
    pub fn open(&mut self, key: &Secret<64>) -> Result<(), FormatError> {
        let Content::Sealed { seal, facts: None } = &self.content else { return Ok(()) };
        let context = seal_context(self.archive, &self.name, &self.root, seal);
        let opened = facts::open(&seal.bytes, key, &context)?;
        opened.check(&self.geometry)?;
        if let Content::Sealed { facts, .. } = &mut self.content {
            *facts = Some(opened);
        }
        Ok(())
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
        let (seal, facts) = match &self.content {
            Content::Plain(facts) => (None, Some(facts)),
            Content::Sealed { seal, .. } => (Some(seal), None),
        };
        let time = |time: Timestamp| RawTime { seconds: time.seconds, nanoseconds: time.nanoseconds };
        let content_tree = facts.and_then(|facts| facts.content_tree.clone());
        let raw = Raw {
            format: FORMAT.into(),
            version: version(geometry.encoded_lens().is_some(), content_tree.is_some()),
            archive: self.archive,
            object: self.name.clone(),
            kind: facts.map(|facts| facts.kind),
            sequence: facts.map(|facts| facts.sequence),
            committed: facts.map(|facts| time(facts.committed)),
            key: facts.map(|facts| facts.key),
            cipher: seal.map_or(Cipher::None, |seal| Cipher::Suite(seal.suite)),
            epoch: seal.map(|seal| seal.epoch),
            geometry: RawGeometry {
                tier: geometry.tier(),
                layout: geometry.layout(),
                code: ERASURE_CODE.into(),
                segment_size: geometry.segment_size(),
                k: geometry.k(),
                m: geometry.m(),
                outer: geometry.outer(),
            },
            stored: geometry.encoded_lens().map(|lens| lens.to_vec()),
            sealed: seal.map(|seal| STANDARD.encode(&seal.bytes)),
            entry: facts.and_then(|facts| facts.entry.as_ref()).map(RawEntry::new),
            root: self.root,
            content_tree,
            blocks,
            outer,
        };
        sealed_json::seal(WHAT, &raw)
    }

    /// Parses and checks everything that can be checked without the shards and without a key.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut raw: Raw = sealed_json::open_as_one_of(WHAT, FORMAT, VERSION_PLAIN..=VERSION_ENCODED, bytes)?;
        let invalid = |why: &str| FormatError::invalid(WHAT, why);
        if raw.version != version(raw.stored.is_some(), raw.content_tree.is_some()) {
            return Err(invalid("its version and its members disagree"));
        }
        if raw.geometry.code != ERASURE_CODE {
            return Err(invalid("its erasure code is not known to this version"));
        }
        let rule = rule_of(&raw.geometry)?;
        let roots = |block: RawBlock| {
            let mut shards = block.segments;
            shards.extend(block.parity);
            BlockRoots::new(shards)
        };
        let blocks: Vec<_> = std::mem::take(&mut raw.blocks).into_iter().map(roots).collect();
        let outer: Vec<_> = std::mem::take(&mut raw.outer).into_iter().map(roots).collect();
        let stored = raw.stored.take();
        let (archive, name, root) = (raw.archive, raw.object.clone(), raw.root);
        let content = content_of(raw, stored.as_deref())?;
        let geometry = match (stored, &content) {
            (Some(stored), _) => Geometry::encoded(rule, rule.segment_size, stored.into()),
            (None, Content::Plain(facts)) => Geometry::new(rule, rule.segment_size, facts.key.stored_size),
            (None, Content::Sealed { .. }) => None,
        };
        let geometry = geometry.ok_or_else(|| invalid("its geometry is impossible"))?;
        let of = match &content {
            Content::Plain(facts) => {
                facts.check(&geometry)?;
                RootOf { name: &name, facts: Some(facts), seal: None }
            }
            Content::Sealed { seal, .. } => RootOf { name: &name, facts: None, seal: Some(seal) },
        };
        let computed = object_root(&of, &geometry, &blocks, &outer);
        let manifest = Self { archive, name, geometry, blocks, outer, root: computed, content };
        manifest.check_counts()?;
        if manifest.root != root {
            return Err(invalid("its root does not match its shards' roots"));
        }
        Ok(manifest)
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

fn version(encoded: bool, tree: bool) -> u64 {
    match (encoded, tree) {
        (true, _) => VERSION_ENCODED,
        (false, true) => VERSION_TREE,
        (false, false) => VERSION_PLAIN,
    }
}

fn facts_of(
    parts: ManifestParts,
    content: WrittenContent,
    geometry: &Geometry,
    sealing: Option<Sealing>,
) -> (ArchiveId, ContentFacts) {
    let key = BlockKey {
        hash_algorithm: HashAlgorithm::Blake3,
        hash: content.hash,
        plain_size: content.size,
        stored_size: geometry.segments_len(),
        compression: content.compression,
    };
    let facts = ContentFacts {
        kind: parts.kind,
        key,
        sequence: parts.sequence,
        committed: parts.committed,
        entry: parts.entry,
        content_tree: content.tree,
        sealing,
    };
    (parts.archive, facts)
}

fn rule_of(geometry: &RawGeometry) -> Result<TierRule, FormatError> {
    let rule = TierRule {
        tier: geometry.tier,
        below: None,
        layout: geometry.layout,
        segment_size: geometry.segment_size,
        min_segment_size: geometry.segment_size,
        k: geometry.k,
        m: geometry.m,
        outer: geometry.outer,
    };
    rule.check()?;
    if rule.segment_size > MAX_SEGMENT {
        return Err(FormatError::invalid(WHAT, "segment size out of range"));
    }
    Ok(rule)
}

/// What a manifest's members say of the content.
fn content_of(raw: Raw, stored: Option<&[u64]>) -> Result<Content, FormatError> {
    let invalid = |why: &str| FormatError::invalid(WHAT, why);
    match (raw.cipher, raw.epoch, raw.sealed) {
        (Cipher::None, None, None) => {
            let (Some(kind), Some(sequence), Some(committed), Some(key)) =
                (raw.kind, raw.sequence, raw.committed, raw.key)
            else {
                return Err(invalid("it does not say what the content is"));
            };
            if raw.object.hash() != Some(key.hash) {
                return Err(invalid("its name and its content hash disagree"));
            }
            Ok(Content::Plain(ContentFacts {
                kind,
                key,
                sequence,
                committed: Timestamp { seconds: committed.seconds, nanoseconds: committed.nanoseconds },
                entry: raw.entry.map(RawEntry::open).transpose()?,
                content_tree: raw.content_tree,
                sealing: None,
            }))
        }
        (Cipher::Suite(suite), Some(epoch), Some(sealed)) if stored.is_some() && epoch > 0 => {
            let clear = (raw.kind.is_some(), raw.sequence.is_some(), raw.committed.is_some(), raw.key.is_some());
            if clear != (false, false, false, false) || raw.entry.is_some() || raw.content_tree.is_some() {
                return Err(invalid("it says in clear what must be sealed"));
            }
            let bytes = STANDARD.decode(&sealed).map_err(|_| invalid("its sealed part is not base64"))?;
            Ok(Content::Sealed { seal: Seal { suite, epoch, bytes }, facts: None })
        }
        _ => Err(invalid("its cipher and its members disagree")),
    }
}

/// What the sealed part is authenticated with: `blockframe manifest 1`, a
/// newline, the archive (16 bytes), the root (32), the epoch (u32,
/// little-endian), the object's name.
fn seal_context(archive: ArchiveId, name: &ObjectName, root: &Digest, seal: &Seal) -> Vec<u8> {
    let mut context = b"blockframe manifest 1\n".to_vec();
    context.extend_from_slice(archive.as_bytes());
    context.extend_from_slice(root.as_bytes());
    context.extend_from_slice(&seal.epoch.to_le_bytes());
    context.extend_from_slice(name.as_str().as_bytes());
    context
}

/// Of what a root is.
struct RootOf<'a> {
    name: &'a ObjectName,
    /// In clear.
    facts: Option<&'a ContentFacts>,
    seal: Option<&'a Seal>,
}

/// The object's root: `docs/FORMAT.md`, "Trees and roots".
fn object_root(of: &RootOf<'_>, geometry: &Geometry, blocks: &[BlockRoots], outer: &[BlockRoots]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    match (geometry.encoded_lens(), of.facts) {
        (None, Some(ContentFacts { key, .. })) => {
            hasher.update(b"blockframe object 1\n");
            hasher.update(key.hash.as_bytes());
            hasher.update(&key.plain_size.to_le_bytes());
            hasher.update(&key.stored_size.to_le_bytes());
        }
        (lens, facts) => {
            hasher.update(b"blockframe object 2\n");
            hasher.update(of.name.hash().unwrap_or(Digest::new([0; 32])).as_bytes());
            let plain_size = facts.map_or(0, |facts| facts.key.plain_size);
            let codec = facts.map_or(0, |facts| facts.key.compression as u8);
            let (suite, epoch) = of.seal.map_or((0, 0), |seal| (super::sealing::suite_code(seal.suite), seal.epoch));
            hasher.update(&plain_size.to_le_bytes());
            hasher.update(&[codec, suite]);
            hasher.update(&epoch.to_le_bytes());
            let lens = lens.map(|lens| &lens[..]).unwrap_or_default();
            hasher.update(&(lens.len() as u32).to_le_bytes());
            for len in lens {
                hasher.update(&len.to_le_bytes());
            }
        }
    }
    let layout = match geometry.layout() {
        TierLayout::Whole => 0u8,
        TierLayout::Segments => 1,
        TierLayout::Blocks => 2,
    };
    let OuterCode { k: outer_k, m: outer_m } = geometry.outer().unwrap_or(OuterCode { k: 0, m: 0 });
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
