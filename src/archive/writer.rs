//! Writes one object: cuts the content into segments, codes it column by
//! column on all cores, and publishes the whole directory at the end.
//!
//! Crash argument: everything is written below `.blockframe/tmp/`, each file
//! is synced, and only then the directory is renamed into place and its new
//! parent synced. A crash before the rename leaves a temporary directory,
//! which `gc` removes; after it, a whole object.

use super::encode::{BlockJob, BlockWriter, Encoder};
use super::encoded::{EncodedBlocks, KeepNothing, SegmentEncoder};
use super::encoding::Encoding;
use super::outer::write_outer;
use super::source::ContentSource;
use super::{Archive, ArchiveError, ArchiveResult, Depth, ObjectRef, Verdict};
use crate::base::{BlockIndex, ContentHash, Digest};
use crate::codec::compress::CodecSpec;
use crate::format::layout::{MANIFEST, MANIFEST_COPY, QUARANTINE_DIR, TMP_DIR};
use crate::format::manifest::{BlockRoots, ManifestParts, SealWith, Sealing, WrittenContent};
use crate::format::{BlockId, Compression, Entry, Geometry, Manifest, ObjectKind};
use crate::merkle::{LeafHash, RootBuilder};
use crate::store::{StagedFile, StoreErrorKind, StoreKey};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

/// How a commit watches and stops the writing of an object.
pub struct WriteControl<'a> {
    /// Called with the number of content bytes done since the last call.
    pub progress: &'a (dyn Fn(u64) + Sync),
    /// Set to stop as soon as possible.
    pub cancel: &'a AtomicBool,
}

impl std::fmt::Debug for WriteControl<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteControl").field("cancel", self.cancel).finish_non_exhaustive()
    }
}

impl WriteControl<'_> {
    pub(super) fn check(&self) -> ArchiveResult<()> {
        if self.cancel.load(Ordering::Relaxed) { Err(ArchiveError::Interrupted) } else { Ok(()) }
    }
}

/// What an object is to be, besides its bytes.
#[derive(Debug, Clone)]
pub struct ObjectPlan {
    /// The readable part of its directory's name.
    pub readable: Vec<u8>,
    /// File or bundle.
    pub kind: ObjectKind,
    /// The catalog's sequence number.
    pub sequence: u64,
    /// Name and attributes of a file that is committed by itself. Its content
    /// hash and size are filled in by the writer.
    pub entry: Option<Entry>,
    /// How the content is compressed.
    pub compression: Option<CodecSpec>,
}

/// An object that is durable.
#[derive(Debug, Clone)]
pub struct WrittenObject {
    /// Its manifest.
    pub manifest: Manifest,
    /// Whether the store held it already.
    pub already_there: bool,
    /// Whether it took the place of a damaged one.
    pub replaced: bool,
}

impl Archive {
    /// Writes the content of `source` (at least one byte) as an object. It is
    /// durable and published when this returns; on error nothing of it is left.
    ///
    /// Errors: `SourceChanged`, `Source`, `Interrupted`, `TooLarge`, and the store's.
    pub fn write_object(
        &self,
        source: &dyn ContentSource,
        plan: &ObjectPlan,
        control: &WriteControl<'_>,
    ) -> ArchiveResult<WrittenObject> {
        let len = source.len();
        let encoding = self.encoding_for(plan.compression)?;
        let geometry = match &encoding {
            Some(encoding) => encoding.outline(self.descriptor(), len),
            None => Geometry::choose(*self.descriptor().tier_for(len), len),
        };
        let geometry = geometry.ok_or(ArchiveError::TooLarge { len })?;
        self.write_staged(source, geometry, control, None, |new| match &encoding {
            Some(encoding) => write_encoded(new, source, plan, encoding, |new| {
                SegmentEncoder::new(new, source, encoding, &KeepNothing).run()
            }),
            None => write_shards(&new, source, plan),
        })
    }

    /// Lets `write` put all shards of an object into a temporary directory,
    /// then publishes it. With the content that `base` has already, under the
    /// same name, nothing is published: that object stays.
    pub(super) fn write_staged(
        &self,
        source: &dyn ContentSource,
        geometry: Geometry,
        control: &WriteControl<'_>,
        base: Option<&Manifest>,
        write: impl FnOnce(NewObject<'_>) -> ArchiveResult<Manifest>,
    ) -> ArchiveResult<WrittenObject> {
        let staging = self.shared.key(&format!("{TMP_DIR}/object-{}", crate::base::StoreId::random()))?;
        let result = self.write_synced(source, geometry, control, &staging, write).and_then(|manifest| {
            match base.filter(|base| base.name == manifest.name) {
                Some(base) => {
                    self.store().delete_prefix(&staging)?;
                    Ok(WrittenObject { manifest: base.clone(), already_there: true, replaced: false })
                }
                None => self.publish_object(&staging, manifest),
            }
        });
        if result.is_err()
            && let Err(error) = self.store().delete_prefix(&staging)
        {
            tracing::warn!(%staging, %error, "a failed commit left temporary files; `blockframe gc` removes them");
        }
        result
    }

    fn write_synced(
        &self,
        source: &dyn ContentSource,
        geometry: Geometry,
        control: &WriteControl<'_>,
        staging: &StoreKey,
        write: impl FnOnce(NewObject<'_>) -> ArchiveResult<Manifest>,
    ) -> ArchiveResult<Manifest> {
        let (syncer, queue) = Syncer::new();
        let manifest = std::thread::scope(|scope| {
            let syncing = scope.spawn(move || syncer.run());
            let written = write(NewObject { archive: self, geometry, staging, control, queue });
            let synced = syncing.join().map_err(|_| ArchiveError::Internal("the syncing thread panicked".into()))?;
            let manifest = written?;
            synced?;
            Ok::<_, ArchiveError>(manifest)
        })?;
        if !source.is_unchanged() {
            return Err(ArchiveError::SourceChanged);
        }
        let bytes = manifest.to_bytes()?;
        for name in [MANIFEST, MANIFEST_COPY] {
            let file = self.store().create(&self.below(staging, name)?)?;
            file.write_at(0, &bytes)?;
            file.sync()?;
        }
        Ok(manifest)
    }

    /// Moves a finished object into place. An object of that name that is
    /// there already and whole is kept; one that is not is set aside.
    fn publish_object(&self, staging: &StoreKey, manifest: Manifest) -> ArchiveResult<WrittenObject> {
        let target = self.shared.key(manifest.name.as_str())?;
        match self.store().publish(staging, &target) {
            Ok(()) => return Ok(WrittenObject { manifest, already_there: false, replaced: false }),
            Err(error) if error.kind() == StoreErrorKind::Exists => {}
            Err(error) => return Err(error.into()),
        }
        // The name says the content. Encoded once more it has other bytes, and other roots.
        let there = self.load_manifest(&manifest.name).ok().filter(|there| is_same_content(there, &manifest));
        let root = there.as_ref().map_or(manifest.root(), Manifest::root);
        let reference = ObjectRef { name: manifest.name.clone(), root };
        let health = self.object_health(&reference, Depth::Full, &|_| {});
        if let Some(there) = there
            && health.as_ref().is_ok_and(|health| health.verdict == Verdict::Healthy)
        {
            self.store().delete_prefix(staging)?;
            return Ok(WrittenObject { manifest: there, already_there: true, replaced: false });
        }
        let aside = format!("{QUARANTINE_DIR}/{}-{}", manifest.name, crate::base::StoreId::random());
        let aside = self.shared.key(&aside)?;
        tracing::warn!(object = %manifest.name, "what stood at this object's place was damaged; replaced by a whole one");
        self.store().publish(&target, &aside)?;
        self.store().publish(staging, &target)?;
        self.shared.caches.forget_object(&reference.root);
        // The same content, damaged: the new object has all that it had. Anything else is kept.
        if health.is_ok() {
            self.store().delete_prefix(&aside)?;
        }
        Ok(WrittenObject { manifest, already_there: false, replaced: true })
    }
}

/// Whether two manifests are of the same content.
fn is_same_content(one: &Manifest, other: &Manifest) -> bool {
    let identity = |manifest: &Manifest| manifest.facts().ok().map(|facts| (facts.key.hash, facts.key.plain_size));
    identity(one).is_some_and(|one| identity(other) == Some(one))
}

/// An object in the making: where its files go.
pub(super) struct NewObject<'a> {
    pub(super) archive: &'a Archive,
    pub(super) geometry: Geometry,
    /// The directory that becomes the object's.
    pub(super) staging: &'a StoreKey,
    pub(super) control: &'a WriteControl<'a>,
    /// Closed when the object in the making is dropped.
    queue: SyncQueue,
}

impl NewObject<'_> {
    /// Creates a file of the object.
    pub(super) fn create(&self, path: &str) -> ArchiveResult<Arc<dyn StagedFile>> {
        Ok(self.archive.store().create(&self.archive.below(self.staging, path)?)?)
    }

    /// Hands a finished file over to be synced. The receiver lives as long as
    /// the scope, so this fails only when the syncing thread panicked.
    pub(super) fn sync_later(&self, file: Arc<dyn StagedFile>) -> ArchiveResult<()> {
        self.queue.send(file).map_err(|_| ArchiveError::Internal("the syncing thread is gone".into()))
    }

    /// A block of the object; a manifest or a loop asks only for blocks that exist.
    pub(super) fn block(&self, id: BlockId) -> ArchiveResult<crate::format::BlockGeometry> {
        self.geometry.block(id).ok_or_else(|| ArchiveError::Internal(format!("there is no block {id:?}")))
    }

    /// The finished block's roots, from the leaf hashes of all its shards;
    /// tree file written and all files queued.
    pub(super) fn finish_block(&self, block: &BlockWriter, leaves: &[Vec<LeafHash>]) -> ArchiveResult<BlockRoots> {
        let missing = || ArchiveError::Internal("a shard without leaves was written".into());
        let shards: Vec<Digest> = leaves
            .iter()
            .map(|leaves| crate::merkle::root(leaves).ok_or_else(missing))
            .collect::<ArchiveResult<_>>()?;
        let roots = BlockRoots::new(shards);
        block.finish(self)?;
        if crate::format::tree::has_tree(block.geometry()) {
            let bytes = crate::format::tree::tree_bytes(&roots.root(), leaves.iter().map(Vec::as_slice));
            let file = self.create(&crate::format::layout::tree_path(&self.geometry, block.geometry()))?;
            file.write_at(0, &bytes)?;
            self.sync_later(file)?;
        }
        Ok(roots)
    }

    /// The manifest of a content that is stored as it is, when all shards were
    /// written. `tree` holds the segments' chaining values where the content has a tree.
    pub(super) fn manifest(
        &self,
        plan: &ObjectPlan,
        hash: ContentHash,
        tree: Vec<Digest>,
        blocks: Vec<BlockRoots>,
        outer: Vec<BlockRoots>,
    ) -> ArchiveResult<Manifest> {
        let size = self.geometry.segments_len();
        let tree = self.geometry.has_content_tree(size).then_some(tree);
        let content = WrittenContent { hash, size, compression: Compression::None, tree };
        Ok(Manifest::new(self.parts(plan, hash, size), self.geometry.clone(), content, blocks, outer)?)
    }

    fn parts(&self, plan: &ObjectPlan, hash: ContentHash, size: u64) -> ManifestParts {
        ManifestParts {
            archive: self.archive.descriptor().id,
            readable: plan.readable.clone(),
            kind: plan.kind,
            sequence: plan.sequence,
            committed: self.archive.clock().now(),
            entry: plan.entry.clone().map(|entry| with_content(entry, hash, size)),
        }
    }
}

/// Writes the shards of a content whose segments are encoded, and with `write` the data blocks.
pub(super) fn write_encoded(
    mut new: NewObject<'_>,
    source: &dyn ContentSource,
    plan: &ObjectPlan,
    encoding: &Encoding,
    write: impl FnOnce(&NewObject<'_>) -> ArchiveResult<EncodedBlocks>,
) -> ArchiveResult<Manifest> {
    let encoded = write(&new)?;
    let size = source.len();
    let has_tree = new.geometry.has_content_tree(size);
    let hash = match encoded.hash {
        Some(hash) => hash,
        None if has_tree => tree_hash(&encoded.tree)?,
        None => hash_content(source, new.control)?,
    };
    new.geometry = encoded.geometry;
    let outer = write_outer(&new)?;
    let compression = Compression::from(encoding.compression.map(|spec| spec.codec));
    let content = WrittenContent { hash, size, compression, tree: has_tree.then_some(encoded.tree) };
    let (parts, geometry) = (new.parts(plan, hash, size), new.geometry.clone());
    let Some(sealer) = &encoding.sealer else {
        return Ok(Manifest::new(parts, geometry, content, encoded.roots, outer)?);
    };
    let with = SealWith {
        object_hash: sealer.keys.object_hash(&hash),
        suite: sealer.suite,
        epoch: sealer.keys.epoch().get(),
        key: sealer.keys.manifest_key(),
        sealing: Sealing { line: sealer.line.0, streams: encoding.compression.map(|_| encoded.streams) },
    };
    Ok(Manifest::sealed(parts, geometry, content, encoded.roots, outer, with)?)
}

fn write_shards(new: &NewObject<'_>, source: &dyn ContentSource, plan: &ObjectPlan) -> ArchiveResult<Manifest> {
    let jobs = (0..new.geometry.blocks()).map(|block| BlockJob::whole(BlockIndex::new(block))).collect();
    let encoded = Encoder::new(new, source, jobs, &|_, _| Ok(())).run()?;
    let tree: Vec<Digest> = encoded.tree.into_values().flatten().collect();
    let hash = match encoded.hash {
        Some(hash) => hash,
        None if new.geometry.has_content_tree(source.len()) => tree_hash(&tree)?,
        None => hash_content(source, new.control)?,
    };
    let outer = write_outer(new)?;
    new.manifest(plan, hash, tree, encoded.roots.into_values().collect(), outer)
}

/// The content's hash from the chaining values of its segments.
pub(super) fn tree_hash(tree: &[Digest]) -> ArchiveResult<ContentHash> {
    let mut builder = RootBuilder::default();
    tree.iter().for_each(|segment| builder.push(*segment.as_bytes()));
    builder.finish().ok_or_else(|| ArchiveError::Internal("a content without segments was written".into()))
}

/// The entry with the content that was read.
fn with_content(entry: Entry, hash: ContentHash, size: u64) -> Entry {
    use crate::format::{FileContent, NodeBody};
    match entry {
        Entry::Node { path, meta, body: NodeBody::File(content) } => {
            Entry::Node { path, meta, body: NodeBody::File(FileContent { hash, size, extents: content.extents }) }
        }
        other => other,
    }
}

/// BLAKE3 of a content whose segments are no whole leaves.
fn hash_content(source: &dyn ContentSource, control: &WriteControl<'_>) -> ArchiveResult<ContentHash> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut at = 0;
    while at < source.len() {
        control.check()?;
        let len = (source.len() - at).min(buffer.len() as u64) as usize;
        source.read_at(at, &mut buffer[..len]).map_err(ArchiveError::Source)?;
        hasher.update(&buffer[..len]);
        at += len as u64;
    }
    Ok(hasher.finalize().into())
}

/// Files that are finished and wait to be synced, at most this many.
const SYNC_QUEUE: usize = 128;

/// Where finished files go, to be synced by a thread of their own while the
/// next block is being coded.
type SyncQueue = mpsc::SyncSender<Arc<dyn StagedFile>>;

struct Syncer {
    files: mpsc::Receiver<Arc<dyn StagedFile>>,
}

impl Syncer {
    fn new() -> (Self, SyncQueue) {
        let (sender, files) = mpsc::sync_channel(SYNC_QUEUE);
        (Self { files }, sender)
    }

    /// Syncs until the queue is closed. After the first error it only drains.
    fn run(self) -> ArchiveResult<()> {
        let mut result = Ok(());
        for file in self.files {
            if result.is_ok() {
                result = file.sync().map_err(ArchiveError::from);
            }
        }
        result
    }
}
