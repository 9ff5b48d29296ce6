//! Texts that name things: objects, stored files, journal files, ids, paths.

use blockframe::base::{ArchiveId, Digest, ObjectName};
use blockframe::format::EntryPath;
use blockframe::format::journal::FileKind;
use blockframe::store::StoreKey;

/// What is read is shown as it was read, and none of it climbs.
pub fn run(input: &[u8]) {
    let made = ObjectName::new(input, &Digest::of(input));
    assert_eq!((made.as_str().parse().ok().as_ref(), made.hash()), (Some(&made), Some(Digest::of(input))));
    if let Ok(path) = EntryPath::from_user(input) {
        assert_eq!(EntryPath::new(path.as_bytes()).ok(), Some(path.clone()));
        assert!(path.names().all(|name| name != b".." && name != b"." && name.len() <= 255));
        assert_eq!(path.parent().is_none(), path.is_root());
    }
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(name) = text.parse::<ObjectName>() {
        assert_eq!(name.as_str(), text);
        assert!(StoreKey::new(text).is_ok(), "an object's name is no key");
        assert!(name.hash().is_some() && !text.starts_with('.') && !text.contains(['/', '\\', '\0']));
    }
    if let Ok(key) = StoreKey::new(text) {
        assert_eq!(key.as_str(), text);
        assert!(text.split('/').all(|name| !name.is_empty() && name != ".." && name != "."));
    }
    if let Some((kind, sequence)) = FileKind::parse_file_name(text) {
        assert_eq!(kind.file_name(sequence), text);
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_hex(), text);
    }
    if let Ok(id) = text.parse::<ArchiveId>() {
        assert_eq!(id.to_string().parse::<ArchiveId>(), Ok(id));
    }
}

/// One text of each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    let hash = Digest::of(b"golden").to_hex();
    let texts = [
        format!("holiday_photo.jpg_{hash}"),
        hash,
        "journal-00000000000000000012.bfc".into(),
        "snapshot-18446744073709551615.bfc".into(),
        ".blockframe/tmp/spool-1".into(),
        "a1a1a1a1-a1a1-a1a1-a1a1-a1a1a1a1a1a1".into(),
        "//a/./b/".into(),
    ];
    texts.into_iter().map(String::into_bytes).collect()
}
