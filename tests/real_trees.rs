//! Real trees of the machine, committed and mounted by the real program: every
//! byte and attribute is the source's.
//!
//! `BLOCKFRAME_TEST_TREES=/usr/share:/usr/lib cargo nextest run --test real_trees`
//! takes others than the few that a quick run affords.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod kit;

use kit::program::{Place, can_mount};
use kit::view::{Picture, Seen};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Trees that most machines have one of: many small files, links, binaries.
const QUICK: [&str; 4] = ["/usr/share/doc", "/usr/share/zoneinfo", "/usr/lib/git-core", "/usr/lib/udev"];

fn trees() -> Vec<PathBuf> {
    let named = std::env::var_os("BLOCKFRAME_TEST_TREES");
    let candidates: Vec<PathBuf> = match &named {
        Some(list) => std::env::split_paths(list).collect(),
        None => QUICK.iter().map(PathBuf::from).collect(),
    };
    candidates.into_iter().filter(|tree| tree.is_dir()).collect()
}

/// The picture with each content's hash in its place, so that a large tree fits memory.
fn digest(picture: Picture) -> BTreeMap<Vec<u8>, String> {
    picture
        .into_iter()
        .map(|(path, Seen { attributes, content })| {
            let content = content.map(|bytes| blake3::hash(&bytes.unwrap()).to_hex());
            (path, format!("{attributes}; {content:?}"))
        })
        .collect()
}

fn top_of(tree: &Path) -> String {
    tree.file_name().unwrap().to_string_lossy().into_owned()
}

#[test]
fn mounted_real_trees_are_their_sources_in_every_byte_and_attribute() {
    if !can_mount() {
        return;
    }
    for tree in trees() {
        let place = Place::new();
        let name = top_of(&tree);
        place.ok(["init", "arch", "--profile", "compact"]);
        place.ok(["commit".as_ref(), tree.as_os_str()]);
        let mountpoint = place.path("mnt");
        place.ok(["mount".as_ref(), mountpoint.as_os_str()]);
        for entry in std::fs::read_dir(&tree).unwrap() {
            // One directory at a time bounds what is held in memory.
            let (entry, below) = (entry.unwrap(), mountpoint.join(&name));
            let top = entry.file_name().to_string_lossy().into_owned();
            let source = digest(kit::view::of_source(&top, &entry.path()));
            let mounted = digest(kit::view::of_source(&top, &below.join(entry.file_name())));
            for (path, expected) in &source {
                let found = mounted.get(path);
                // Names of the same file outside of the tree are links that the archive does not have.
                assert!(
                    found.is_some_and(|found| found == expected || links_alone_differ(found, expected)),
                    "{}: {found:?} instead of {expected}",
                    String::from_utf8_lossy(path)
                );
            }
            assert_eq!(source.len(), mounted.len(), "{top}");
        }
        place.ok(["umount".as_ref(), mountpoint.as_os_str()]);
    }
}

/// Whether two lines are the same but for the fourth of their numbers, the link count.
fn links_alone_differ(one: &str, other: &str) -> bool {
    let without = |line: &str| {
        let mut fields: Vec<String> = line.split(", ").map(str::to_string).collect();
        if fields.len() > 4 {
            fields.remove(4);
        }
        fields
    };
    without(one) == without(other)
}
