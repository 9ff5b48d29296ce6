//! Store descriptors, and the geometry of contents under their rules.

use super::reseal;
use blockframe::base::ContentRange;
use blockframe::format::{Geometry, StoreDescriptor, layout};
use std::collections::BTreeSet;

/// More bytes than a shard has: the parity of the longest encoded segments, in whole units.
const MAX_SHARD: u64 = (2 << 30) + 64;
/// Most blocks of a geometry that is looked at as a whole.
const MAX_BLOCKS: u32 = 64;

/// The input is 8 bytes of a content's length, then a descriptor without its checksum.
pub fn run(input: &[u8]) {
    let Some((len, body)) = input.split_first_chunk() else { return };
    let Ok(descriptor) = StoreDescriptor::from_bytes(&reseal::sealed_json(body)) else { return };
    let bytes = descriptor.to_bytes().unwrap_or_else(|error| panic!("a descriptor that was read: {error}"));
    assert_eq!(StoreDescriptor::from_bytes(&bytes).ok().as_ref(), Some(&descriptor));
    assert!(descriptor.archive.digest().is_ok());
    let len = u64::from_le_bytes(*len);
    for len in [len, len % 1_000_000, 1] {
        let rule = *descriptor.archive.tier_for(len);
        let size = rule.segment_size_for(len);
        assert!((rule.min_segment_size..=rule.segment_size).contains(&size) && size.is_multiple_of(64));
        if let Some(geometry) = Geometry::choose(rule, len)
            && geometry.blocks() <= MAX_BLOCKS
        {
            check(&geometry, len);
        }
    }
}

/// Every byte of a content of `len` bytes lies in one place, and every shard has its own file.
pub fn check(geometry: &Geometry, len: u64) {
    let mut at = 0;
    if geometry.segments() <= 4096 {
        for piece in geometry.pieces(len, ContentRange::between(0, len)) {
            assert_eq!((piece.content_start, piece.range.is_empty()), (at, false));
            at += piece.range.len();
        }
        assert_eq!(at, len);
    }
    let mut data = 0;
    let mut paths = BTreeSet::new();
    for id in geometry.block_ids().take(256) {
        let block = geometry.block(id).unwrap_or_else(|| panic!("{id:?} is missing"));
        if matches!(id, blockframe::format::BlockId::Data(_)) {
            data += block.data_len();
        }
        for shard in block.shard_indexes() {
            assert!((1..MAX_SHARD).contains(&block.shard_len(shard)));
            assert!(paths.insert(layout::shard_path(geometry, &block, shard)));
        }
    }
    assert_eq!(data, geometry.segments_len());
}

/// The golden descriptors.
pub fn seeds() -> Vec<Vec<u8>> {
    let golden: [&[u8]; 3] = [
        include_bytes!("../../../tests/golden/store-balanced-v1.json"),
        include_bytes!("../../../tests/golden/store-classic-v1.json"),
        include_bytes!("../../../tests/golden/store-compact-v1.json"),
    ];
    let seed = |bytes: &[u8]| [&100_000_000u64.to_le_bytes()[..], &reseal::unsealed_json(bytes)].concat();
    golden.into_iter().map(seed).collect()
}
