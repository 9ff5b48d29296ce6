//! Maps of staged contents.

use blockframe::format::binary::Reader;
use blockframe::format::staged::{encode_extents, extents_from_bytes};
use blockframe::format::{StagedContent, StagedExtent, StagedMap};

/// What is read is what would be written, byte for byte; extents ascend and do not overlap.
pub fn run(input: &[u8]) {
    let mut reader = Reader::new("fuzz", input);
    if let Ok(content) = StagedContent::decode(&mut reader) {
        let mut bytes = Vec::new();
        content.encode(&mut bytes);
        assert_eq!(bytes, input[..reader.position()]);
        if let StagedMap::Inline(extents) = &content.map {
            check(extents);
        }
    }
    if let Ok(extents) = extents_from_bytes(input) {
        let mut bytes = Vec::new();
        encode_extents(&extents, &mut bytes);
        assert_eq!(bytes, input);
        check(&extents);
    }
}

fn check(extents: &[StagedExtent]) {
    let mut at = 0;
    for extent in extents {
        assert!(!extent.range.is_empty() && extent.range.start() >= at);
        assert!(extent.place.is_none_or(|place| place.checked_add(extent.range.len()).is_some()));
        at = extent.range.end();
    }
}

/// A map in the record, one in the staging file, and one by itself.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut in_file = vec![7, 100, 50, 1, 5, 9];
    in_file.extend_from_slice(&[3; 32]);
    vec![vec![7, 100, 50, 0, 2, 1, 10, 0, 5, 20, 8], in_file, vec![2, 1, 10, 0, 5, 20, 8]]
}
