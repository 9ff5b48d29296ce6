//! Where things lie below an object's directory and below a store.

use super::descriptor::TierLayout;
use super::geometry::{BlockGeometry, BlockId, Geometry};
use crate::base::ShardIndex;

/// First copy of a store's identity.
pub const STORE_DESCRIPTOR: &str = "blockframe-store.json";
/// Second copy of a store's identity.
pub const STORE_DESCRIPTOR_COPY: &str = ".blockframe/store.json";
/// How to get everything back without BlockFrame.
pub const RECOVERY_TEXT: &str = "RECOVERY.md";
/// Everything of ours that is no object.
pub const PRIVATE_DIR: &str = ".blockframe";
/// First copy of the key ring of an encrypted archive.
pub const KEY_RING: &str = "blockframe-keys.json";
/// Second copy of the key ring.
pub const KEY_RING_COPY: &str = ".blockframe/keys/keyring.json";
/// Commits in progress.
pub const TMP_DIR: &str = ".blockframe/tmp";
/// The catalog's journal and snapshots.
pub const CATALOG_DIR: &str = ".blockframe/catalog";
/// Bad bytes kept for inspection.
pub const QUARANTINE_DIR: &str = ".blockframe/quarantine";
/// First copy of an object's manifest.
pub const MANIFEST: &str = "manifest.json";
/// Second copy of an object's manifest.
pub const MANIFEST_COPY: &str = "manifest.copy.json";

/// A shard's file, relative to the object's directory.
pub fn shard_path(geometry: &Geometry, block: &BlockGeometry, shard: ShardIndex) -> String {
    let parity = shard.get().saturating_sub(block.k);
    let is_data = block.is_data(shard);
    match (geometry.layout(), block.id) {
        (TierLayout::Whole, _) if is_data => "data.dat".into(),
        (TierLayout::Whole, _) => format!("parity_{parity}.dat"),
        (TierLayout::Segments, _) if is_data => format!("segments/segment_{}.dat", block.first_segment),
        (TierLayout::Segments, _) => format!("parity/segment_{}_parity_{parity}.dat", block.first_segment),
        (TierLayout::Blocks, id) => {
            let dir = block_dir(id);
            if is_data {
                format!("{dir}/segments/segment_{}.dat", block.first_segment + u32::from(shard.get()))
            } else {
                format!("{dir}/parity/block_parity_{parity}.dat")
            }
        }
    }
}

/// The file with the leaf hashes of a block's shards, relative to the object's directory.
pub fn tree_path(geometry: &Geometry, block: &BlockGeometry) -> String {
    match geometry.layout() {
        TierLayout::Whole => "tree.dat".into(),
        TierLayout::Segments => format!("parity/segment_{}_tree.dat", block.first_segment),
        TierLayout::Blocks => format!("{}/tree.dat", block_dir(block.id)),
    }
}

fn block_dir(id: BlockId) -> String {
    match id {
        BlockId::Data(block) => format!("blocks/block_{block}"),
        BlockId::Outer { group, parity } => format!("outer/group_{group}/block_{parity}"),
    }
}
