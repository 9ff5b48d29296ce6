//! Entries of bundles, manifests and the journal.

use blockframe::format::binary::Reader;
use blockframe::format::{Entry, FileContent, NodeBody};

/// What is read is what would be written, byte for byte, and keeps the rules of docs/FORMAT.md, section 9.
pub fn run(input: &[u8]) {
    let mut reader = Reader::new("fuzz", input);
    let Ok(entry) = Entry::decode(&mut reader) else { return };
    let mut bytes = Vec::new();
    entry.encode(&mut bytes);
    assert_eq!(bytes, input[..reader.position()]);
    let path = entry.path();
    assert!(path.names().all(|name| !name.is_empty() && name != b"." && name != b".." && !name.contains(&0)));
    if let Some(parent) = path.parent() {
        assert_eq!(parent.join(path.name()).as_ref().ok(), Some(path));
    }
    if let Entry::Node { meta, body, .. } = &entry {
        assert!(meta.xattrs.is_sorted_by(|(a, _), (b, _)| a < b), "extended attributes out of order");
        assert!(meta.permissions <= 0o7777 && meta.modified.nanoseconds < 1_000_000_000);
        if let NodeBody::File(content) = body {
            check_extents(content);
        }
    }
}

fn check_extents(content: &FileContent) {
    assert!(content.allocated() <= content.size);
    let mut at = 0;
    for extent in content.extents.iter().flatten() {
        assert!(!extent.is_empty() && extent.start() >= at && extent.end() <= content.size);
        at = extent.end();
    }
}

/// The golden entries, each by itself.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![include_bytes!("../../../tests/golden/entry-accessed-v1.bin").to_vec()];
    let mut rest = &include_bytes!("../../../tests/golden/entries-v1.bin")[..];
    while !rest.is_empty() {
        let mut reader = Reader::new("golden", rest);
        if Entry::decode(&mut reader).is_err() {
            break;
        }
        let (entry, behind) = rest.split_at(reader.position());
        seeds.push(entry.to_vec());
        rest = behind;
    }
    seeds
}
