//! Names of the links to damaged files: the file's path in one name.
//!
//! `/` becomes `:`; `%` and `:` become `%25` and `%3A`. A name that would be
//! too long keeps its end and begins with `%~`, a hash of the path and `~`,
//! which no other name does.

use blockframe_api::NamePolicy;

const SHORTENED: &[u8] = b"%~";
/// Hexadecimal digits of the path's hash.
const HASH_LEN: usize = 32;

/// The name of the link to the file at a path.
pub(super) fn link_name(path: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(path.len());
    for &byte in path {
        match byte {
            b'/' => name.push(b':'),
            b':' => name.extend_from_slice(b"%3A"),
            b'%' => name.extend_from_slice(b"%25"),
            _ => name.push(byte),
        }
    }
    if name.len() <= NamePolicy::MAX_NAME {
        return name;
    }
    let hash = blake3::hash(path).to_hex();
    let head = [SHORTENED, &hash.as_bytes()[..HASH_LEN], b"~"].concat();
    let end = &name[name.len() - (NamePolicy::MAX_NAME - head.len())..];
    [&head, end].concat()
}

/// What a link's name tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Named {
    /// The path.
    Path(Vec<u8>),
    /// Part of a path that was too long.
    Shortened,
    /// It is no link's name.
    Nothing,
}

/// Reads a link's name.
pub(super) fn read_link_name(name: &[u8]) -> Named {
    if name.starts_with(SHORTENED) {
        return Named::Shortened;
    }
    let mut path = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&byte, behind)) = rest.split_first() {
        let (byte, behind) = match byte {
            b':' => (b'/', behind),
            b'%' if behind.starts_with(b"3A") => (b':', &behind[2..]),
            b'%' if behind.starts_with(b"25") => (b'%', &behind[2..]),
            b'%' => return Named::Nothing,
            byte => (byte, behind),
        };
        path.push(byte);
        rest = behind;
    }
    Named::Path(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_path_can_be_read_in_its_name() {
        assert_eq!(link_name(b"photos/2024/a.jpg"), b"photos:2024:a.jpg");
        assert_eq!(link_name(b"at 12:30/100%"), b"at 12%3A30:100%25");
        assert_eq!(read_link_name(b"50%"), Named::Nothing);
        let long = [&[b'd'; 255][..], b"/", &[b'f'; 100]].concat();
        let name = link_name(&long);
        assert_eq!((name.len(), read_link_name(&name)), (255, Named::Shortened));
        assert!(name.ends_with(b"ddd:fff") || name.ends_with(b"fff"));
        assert_eq!(link_name(&[b'n'; 255]), [b'n'; 255]);
    }

    proptest! {
        #[test]
        fn no_two_paths_have_one_name(
            a in proptest::collection::vec(prop_oneof![Just(b'/'), Just(b':'), Just(b'%'), Just(b'~'), Just(b'3'), any::<u8>()], 1..300),
            b in proptest::collection::vec(prop_oneof![Just(b'/'), Just(b':'), Just(b'%'), Just(b'2'), Just(b'5')], 1..8),
        ) {
            let name = link_name(&a);
            prop_assert!(name.len() <= NamePolicy::MAX_NAME);
            match read_link_name(&name) {
                Named::Path(path) => prop_assert_eq!(path, a),
                Named::Shortened => prop_assert!(a.len() > 80),
                Named::Nothing => prop_assert!(false, "not read back"),
            }
            prop_assert_eq!(read_link_name(&link_name(&b)), Named::Path(b));
        }
    }
}
