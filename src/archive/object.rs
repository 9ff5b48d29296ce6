//! An open object, and the one way from a question to its bytes.

use super::recover::Codes;
use super::shard::ShardFault;
use super::{ArchiveError, ArchiveResult, Shared, VerifiedRange};
use crate::base::{BlockIndex, ContentRange, Digest, LeafIndex, ObjectName, ShardIndex, ShardRange};
use crate::format::geometry::Piece;
use crate::format::{BlockGeometry, BlockId, Manifest, ObjectKind};
use crate::store::StoreKey;
use std::sync::Arc;

/// Which object, and the root that its manifest must have. The root comes
/// from the catalog (or, when that is being rebuilt, from the manifest itself).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObjectRef {
    /// The object's directory.
    pub name: ObjectName,
    /// Root over key, geometry and all shards.
    pub root: Digest,
}

impl ObjectRef {
    /// A reference that no manifest fits: of an object that has none that can be read.
    pub fn unreadable(name: ObjectName) -> Self {
        Self { name, root: Digest::new([0; Digest::LEN]) }
    }
}

/// An open object: its manifest was checked.
#[derive(Debug)]
pub struct Object {
    shared: Arc<Shared>,
    prefix: StoreKey,
    manifest: Arc<Manifest>,
}

impl Object {
    pub(super) fn new(shared: Arc<Shared>, manifest: Arc<Manifest>) -> ArchiveResult<Self> {
        let prefix = shared.key(manifest.name.as_str())?;
        Ok(Self { shared, prefix, manifest })
    }

    /// The checked manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Name and root.
    pub fn reference(&self) -> ObjectRef {
        ObjectRef { name: self.manifest.name.clone(), root: self.manifest.root() }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn prefix(&self) -> &StoreKey {
        &self.prefix
    }

    /// Length of the content, bytes. Error: `Format(Sealed)` without the archive's keys.
    pub fn content_len(&self) -> ArchiveResult<u64> {
        Ok(self.manifest.facts()?.key.plain_size)
    }

    /// What the content is. Of an object that is sealed, and was not opened, it counts as a file.
    pub fn kind(&self) -> ObjectKind {
        self.manifest.facts().map_or(ObjectKind::File, |facts| facts.kind)
    }

    /// The chaining values of the segments, where the manifest has them.
    pub(super) fn content_tree(&self) -> Option<&[Digest]> {
        self.manifest.facts().ok()?.content_tree()
    }

    /// Reads a range of the content (cut at its end), verified leaf by leaf.
    /// Damaged leaves are decoded from other shards, returned, and written back.
    ///
    /// Errors: `Unrecoverable` for a range damaged beyond the parity;
    /// `Format(Sealed)` without the archive's keys.
    pub fn read(&self, range: ContentRange) -> ArchiveResult<VerifiedRange> {
        self.read_reusing(range, Vec::new())
    }

    /// As [`Self::read`], in memory that an earlier read has left.
    pub fn read_reusing(&self, range: ContentRange, mut buffer: Vec<u8>) -> ArchiveResult<VerifiedRange> {
        let geometry = self.manifest.geometry();
        let content_len = self.content_len()?;
        let range = range.clamp_to(content_len);
        let mut pieces = geometry.pieces(content_len, range);
        let Some(first) = pieces.next() else {
            return Ok(VerifiedRange::new(ContentRange::between(range.start(), range.start()), buffer, 0));
        };
        if first.range.len() == range.len() {
            let start = self.read_piece(&first, &mut buffer)?;
            return Ok(VerifiedRange::new(range, buffer, start));
        }
        let mut whole = Vec::with_capacity(range.len() as usize);
        for piece in geometry.pieces(content_len, range) {
            let start = self.read_piece(&piece, &mut buffer)?;
            whole.extend_from_slice(&buffer[start..start + piece.range.len() as usize]);
        }
        Ok(VerifiedRange::new(range, whole, 0))
    }

    /// Tells the store that a range of the content (cut at its end) is going
    /// to be read soon. Reads nothing itself, and reports nothing.
    pub fn will_read(&self, range: ContentRange) {
        let (Ok(content_len), geometry) = (self.content_len(), self.manifest.geometry()) else { return };
        for piece in geometry.pieces(content_len, range) {
            let block = geometry.block(BlockId::Data(piece.block));
            if let Some(file) = block.and_then(|block| self.shard_file(&block, piece.shard).ok()) {
                let range = self.stored_range(&piece);
                file.will_read(range.start(), range.len());
            }
        }
    }

    /// Reads a piece of one segment into `buffer`, with what stands around
    /// it. Returns where in the buffer the piece begins.
    fn read_piece(&self, piece: &Piece, buffer: &mut Vec<u8>) -> ArchiveResult<usize> {
        match self.manifest.geometry().encoded_lens() {
            None => self.read_stored(piece.block, piece.shard, piece.range, buffer),
            Some(_) => self.read_encoded(piece, buffer),
        }
    }

    /// Reads the leaves around a range of a data shard into `buffer`. Returns
    /// where in the buffer the range begins.
    pub(super) fn read_stored(
        &self,
        block: BlockIndex,
        shard: ShardIndex,
        range: ShardRange,
        buffer: &mut Vec<u8>,
    ) -> ArchiveResult<usize> {
        let block = self.block(BlockId::Data(block))?;
        let leaves = range.to_leaves(block.shard_len(shard));
        let len = leaves.len() as usize;
        if buffer.len() < len {
            buffer.resize(len, 0);
        }
        self.read_shard(&block, shard, leaves, &mut buffer[..len])?;
        Ok((range.start() - leaves.start()) as usize)
    }

    /// Fills `buffer` with verified whole leaves of a shard, whatever it takes.
    pub(super) fn read_shard(
        &self,
        block: &BlockGeometry,
        shard: ShardIndex,
        range: ShardRange,
        buffer: &mut [u8],
    ) -> ArchiveResult<()> {
        let suspect = self.shared.caches.is_suspect(&self.address(block, shard), self.shared.clock.now());
        let mut outcome =
            if suspect { Err(ShardFault::Missing) } else { self.read_leaves(block, shard, range, buffer) };
        if outcome == Err(ShardFault::NoLeafTable) {
            // The bytes may be good, and only their hashes bad.
            self.leaf_table(block, shard, Codes::InnerAndOuter)?;
            outcome = self.read_leaves(block, shard, range, buffer);
        }
        match outcome {
            Ok(bad) if bad.is_empty() => Ok(()),
            Ok(bad) => {
                for run in runs(&bad, block.shard_len(shard)) {
                    let bytes = self.recover(block, shard, run, Codes::InnerAndOuter)?;
                    let start = (run.start() - range.start()) as usize;
                    self.heal_leaves(block, shard, run, &bytes);
                    buffer[start..start + bytes.len()].copy_from_slice(&bytes);
                }
                Ok(())
            }
            Err(fault) => {
                let bytes = self.recover(block, shard, range, Codes::InnerAndOuter)?;
                buffer.copy_from_slice(&bytes);
                if !suspect {
                    self.found_unusable(block, shard, &fault);
                }
                Ok(())
            }
        }
    }

    /// A block of this object.
    pub(super) fn block(&self, id: BlockId) -> ArchiveResult<BlockGeometry> {
        let missing = || ArchiveError::Internal(format!("object {} has no block {id:?}", self.manifest.name));
        self.manifest.geometry().block(id).ok_or_else(missing)
    }
}

/// Joins consecutive leaves to ranges.
pub(super) fn runs(leaves: &[LeafIndex], shard_len: u64) -> Vec<ShardRange> {
    let mut runs: Vec<ShardRange> = Vec::new();
    for leaf in leaves {
        let part = ShardRange::of_leaf(*leaf, shard_len);
        match runs.last_mut() {
            Some(run) if run.end() == part.start() => *run = ShardRange::between(run.start(), part.end()),
            _ => runs.push(part),
        }
    }
    runs
}
