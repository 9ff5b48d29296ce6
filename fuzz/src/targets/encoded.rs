//! Manifests of encoded contents, which are compressed, encrypted or both.

use blockframe::base::{ArchiveId, ContentHash, Digest, Secret, Timestamp};
use blockframe::codec::seal::CipherSuite;
use blockframe::format::manifest::{BlockRoots, ManifestParts, SealWith, Sealing, WrittenContent};
use blockframe::format::{
    BlockId, Compression, Geometry, Manifest, ObjectKind, OuterCode, TierLayout, TierRule, sealing,
};

const SIZE: u64 = 100_001;
const SEGMENT: u64 = 16384;

/// The key of sealed parts.
pub fn key() -> Secret<64> {
    Secret::filled_by(|bytes| bytes.fill(7))
}

fn geometry(lens: Vec<u64>) -> Geometry {
    let rule = TierRule {
        tier: 4,
        below: None,
        layout: TierLayout::Blocks,
        segment_size: SEGMENT,
        min_segment_size: SEGMENT,
        k: 2,
        m: 1,
        outer: Some(OuterCode { k: 2, m: 1 }),
    };
    Geometry::encoded(rule, SEGMENT, lens.into()).unwrap_or_else(|| panic!("a geometry"))
}

fn roots(geometry: &Geometry) -> (Vec<BlockRoots>, Vec<BlockRoots>) {
    let of = |id: &BlockId| {
        let shards = geometry.block(*id).map_or(0, |block| block.shards());
        BlockRoots::new((0..shards).map(|shard| Digest::of(format!("{id:?} {shard}").as_bytes())).collect())
    };
    let (data, outer): (Vec<_>, Vec<_>) = geometry.block_ids().partition(|id| matches!(id, BlockId::Data(_)));
    (data.iter().map(of).collect(), outer.iter().map(of).collect())
}

fn parts() -> ManifestParts {
    ManifestParts {
        archive: ArchiveId::from_bytes([0xa1; 16]),
        readable: b"notes.txt".to_vec(),
        kind: ObjectKind::File,
        sequence: 7,
        committed: Timestamp { seconds: 1_700_000_000, nanoseconds: 5 },
        entry: None,
    }
}

fn content(compression: Compression) -> WrittenContent {
    let hash: ContentHash = Digest::of(b"golden");
    WrittenContent { hash, size: SIZE, compression, tree: None }
}

/// That of a compressed content.
pub fn compressed() -> Manifest {
    let geometry = geometry((0..7).map(|segment| 1000 + segment).collect());
    let (blocks, outer) = roots(&geometry);
    Manifest::new(parts(), geometry, content(Compression::Zstd), blocks, outer)
        .unwrap_or_else(|error| panic!("a manifest: {error}"))
}

/// That of an encrypted content, which may be compressed too.
pub fn sealed(compressed: bool) -> Manifest {
    let padded = sealing::padded_len(SIZE);
    let count = padded.div_ceil(SEGMENT);
    let streams = compressed.then(|| (0..count).map(|segment| 5000 + segment).collect::<Vec<u64>>());
    let stored = |segment: u64| match &streams {
        Some(streams) => sealing::sealed_len(sealing::padded_len(streams[segment as usize])),
        None => sealing::sealed_len(SEGMENT.min(padded - segment * SEGMENT)),
    };
    let geometry = geometry((0..count).map(stored).collect());
    let (blocks, outer) = roots(&geometry);
    let with = SealWith {
        object_hash: Digest::of(b"keyed"),
        suite: CipherSuite::Aes256Gcm,
        epoch: 1,
        key: key(),
        sealing: Sealing { line: [9; 16], streams },
    };
    let compression = if compressed { Compression::Lz4 } else { Compression::None };
    Manifest::sealed(parts(), geometry, content(compression), blocks, outer, with)
        .unwrap_or_else(|error| panic!("a sealed manifest: {error}"))
}
