use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// Paths of one to three names, of which there are few, so that they meet.
fn few_paths() -> impl Strategy<Value = String> {
    "[ab](/[ab]){0,2}"
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn removing_takes_a_name_and_all_below_it_and_nothing_else(
        made in prop::collection::vec((few_paths(), any::<bool>()), 1..12),
        removed in prop::collection::vec((few_paths(), any::<bool>()), 1..6),
    ) {
        let place = Place::new();
        let catalog = place.catalog();
        let writer = catalog.writer().unwrap();
        for (name, is_file) in &made {
            // What does not fit what stands there is refused.
            let _ = writer.commit_entries(&mut std::iter::once(Ok(if *is_file { file(name.as_str(), b"") } else { directory(name.as_str()) })));
        }
        let mut expected: BTreeSet<Vec<u8>> = tree(&catalog).unwrap().into_keys().collect();
        for (name, recursive) in &removed {
            let standing = catalog.resolve(&path(name.as_str())).unwrap();
            let below = format!("{name}/").into_bytes();
            let gone: Vec<_> =
                expected.iter().filter(|known| *known == name.as_bytes() || known.starts_with(&below)).cloned().collect();
            match writer.remove_path(&path(name.as_str()), *recursive) {
                Ok(count) => {
                    prop_assert!(*recursive || !standing.unwrap().is_directory());
                    prop_assert_eq!(count, gone.len() as u64);
                    expected.retain(|known| !gone.contains(known));
                }
                Err(CatalogError::NotFound { .. }) => prop_assert!(gone.is_empty()),
                Err(CatalogError::IsDirectory { .. }) => {
                    prop_assert!(!recursive && standing.unwrap().is_directory());
                }
                Err(other) => panic!("{other}"),
            }
            prop_assert_eq!(&tree(&catalog).unwrap().into_keys().collect::<BTreeSet<_>>(), &expected);
        }
        writer.finish().unwrap();
        let before = tree(&catalog).unwrap();
        let totals = catalog.totals().unwrap();
        prop_assert_eq!(totals.nodes as usize, expected.len() + 1);
        place.lose_database();
        prop_assert_eq!(tree(&place.catalog()).unwrap(), before);
    }
}

#[test]
fn the_root_stays_and_another_name_keeps_its_node() {
    let place = Place::new();
    place.store_contents(&[b"one", b"two!"]);
    place.commit(&[file("a", b"one"), Entry::HardLink { path: path("b"), target: path("a") }]).unwrap();
    let writer = place.catalog().writer().unwrap();
    assert!(matches!(writer.remove_path(&EntryPath::root(), true).unwrap_err(), CatalogError::RootRemoved));
    assert_eq!(writer.remove_path(&path("a"), false).unwrap(), 1);
    let left = place.catalog().resolve(&path("b")).unwrap().unwrap();
    assert_eq!(left.links, 1);
    assert_eq!(writer.unreferenced_objects().unwrap(), []);
    // A file stands where a directory is asked for.
    assert!(matches!(writer.remove_path(&path("b/c"), true).unwrap_err(), CatalogError::NotFound { .. }));
}
