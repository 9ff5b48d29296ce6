use super::*;
use crate::archive::{ObjectPlan, WriteControl};
use crate::format::bundle::BundleBuilder;
use std::sync::atomic::AtomicBool;

fn write(archive: &Archive, kind: ObjectKind, sequence: u64, entry: Option<Entry>, bytes: &[u8]) -> NewObject {
    let cancel = AtomicBool::new(false);
    let control = WriteControl { progress: &|_| {}, cancel: &cancel };
    let plan = ObjectPlan { readable: b"o".to_vec(), kind, sequence, entry, compression: None };
    let written = archive.write_object(&bytes.to_vec(), &plan, &control).unwrap();
    let manifest = &written.manifest;
    let record = ObjectRecord {
        reference: crate::archive::ObjectRef { name: manifest.name.clone(), root: manifest.root() },
        kind,
        key: manifest.facts().unwrap().key,
        tier: manifest.geometry().tier(),
        stored_len: 1,
    };
    NewObject { record, members: Vec::new() }
}

/// Commits one large file, and a bundle with everything else.
fn commit(place: &Place, large: &(EntryPath, Vec<u8>), rows: &[(Entry, Option<&[u8]>)]) {
    let archive = place.archive();
    let writer = place.catalog().writer().unwrap();
    let sequence = writer.sequence();
    let entry = file(large.0.as_bytes(), &large.1);
    let mut object = write(&archive, ObjectKind::File, sequence, Some(entry.clone()), &large.1);
    let hash = Digest::of(&large.1);
    object.members.push(NewMember { hash, offset: 0, size: large.1.len() as u64, source: None });
    writer.add_object(&object).unwrap();
    let mut builder = BundleBuilder::new();
    let mut members = Vec::new();
    for (entry, data) in rows {
        match data {
            Some(data) => {
                let range = builder.add_member(entry, data).unwrap();
                let (offset, size) = (range.start(), range.len());
                members.push(NewMember { hash: Digest::of(data), offset, size, source: None });
            }
            None => builder.add_row(entry),
        }
    }
    let mut object = write(&archive, ObjectKind::Bundle, sequence, None, &builder.finish());
    object.members = members;
    writer.add_object(&object).unwrap();
    let entries = rows.iter().map(|(entry, _)| entry.clone()).chain([entry]);
    writer.commit_entries(&mut entries.map(Ok)).unwrap();
    writer.finish().unwrap();
}

fn two_commits(place: &Place) {
    let large = (path("d/large"), vec![7; 100_000]);
    commit(
        place,
        &large,
        &[
            (directory("d"), None),
            (file("d/small", b"small"), Some(b"small")),
            (link("d/linked", "d/small"), None),
            (file("d/copy", &large.1), None),
            (Entry::Node { path: path("s"), meta: meta(4), body: NodeBody::Symlink(b"d".to_vec()) }, None),
        ],
    );
    let large = (path("d/large"), vec![8; 90_000]);
    commit(place, &large, &[(directory("d"), None), (file("d/small", b"newer"), Some(b"newer"))]);
}

/// A tree without its inode numbers.
fn plain(tree: &Tree) -> Vec<(Vec<u8>, NodeMeta, NodeBody, u32)> {
    tree.iter().map(|(path, i)| (path.clone(), i.meta.clone(), i.body.clone(), i.links)).collect()
}

#[test]
fn manifests_and_bundles_alone_give_the_namespace_back_and_later_wins() {
    let place = Place::new();
    two_commits(&place);
    let before = tree(&place.catalog()).unwrap();
    let report = rebuild(&place.home(), &place.archive(), RebuildSource::Objects).unwrap();
    assert_eq!(report.objects_seen, 4);
    assert_eq!(report.skipped, []);
    let catalog = place.catalog();
    // The second commit parted `d/small` from `d/linked`, whose old content no
    // entry of that commit names: the link follows its target instead.
    let after = tree(&catalog).unwrap();
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    for name in ["d", "d/large", "d/small", "d/copy", "s"] {
        let key = name.as_bytes();
        assert_eq!((&after[key].meta, &after[key].body), (&before[key].meta, &before[key].body), "{name}");
    }
    let size = 90_000;
    assert!(catalog.place(&Digest::of(&vec![8; size]), size as u64).unwrap().is_some());
    assert_eq!(catalog.verify_journal(false).unwrap(), Vec::<String>::new());
    place.commit(&[directory("after")]).unwrap();
}

#[test]
fn everything_of_the_catalog_may_be_lost() {
    let place = Place::new();
    let large = (path("large"), vec![1; 50_000]);
    commit(&place, &large, &[(directory("x"), None), (file("x/y", b"data"), Some(b"data"))]);
    let before = tree(&place.catalog()).unwrap();
    place.lose_database();
    place.journal_files().iter().for_each(|path| std::fs::remove_file(path).unwrap());
    assert_eq!(plain(&tree(&place.catalog()).unwrap()), plain(&before));
    // And read-only, in memory, too.
    std::fs::remove_dir_all(place.local("")).unwrap();
    place.journal_files().iter().for_each(|path| std::fs::remove_file(path).unwrap());
    std::fs::write(place.home().join(".blockframe"), b"in the way").unwrap();
    assert_eq!(plain(&tree(&place.catalog()).unwrap()), plain(&before));
}

#[test]
fn a_gap_in_the_journal_is_filled_from_manifests_and_bundles() {
    let place = Place::new();
    two_commits(&place);
    let before = tree(&place.catalog()).unwrap();
    let bytes = std::fs::read(place.journal()).unwrap();
    for block in 0..bytes.len() / 4096 {
        place.lose_database();
        let copy = place.copy();
        let mut bad = bytes.clone();
        bad[block * 4096 + 100] ^= 1;
        std::fs::write(copy.journal(), bad).unwrap();
        let after = tree(&copy.catalog()).unwrap();
        assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>(), "block {block}");
        for name in ["d/large", "d/small", "d/copy", "s"] {
            let key = name.as_bytes();
            assert_eq!(after[key].body, before[key].body, "block {block}: {name}");
        }
    }
}

#[test]
fn a_bad_manifest_is_skipped_and_named() {
    let place = Place::new();
    let large = (path("large"), vec![1; 50_000]);
    commit(&place, &large, &[(file("y", b"data"), Some(b"data"))]);
    std::fs::create_dir(place.store().join(format!("orphan_{}", Digest::of(b"orphan")))).unwrap();
    std::fs::create_dir(place.store().join("foreign")).unwrap();
    let report = rebuild(&place.home(), &place.archive(), RebuildSource::Objects).unwrap();
    assert_eq!(report.skipped.len(), 1, "{report:?}");
    assert!(report.skipped[0].0.starts_with("orphan_"));
    assert_eq!(tree(&place.catalog()).unwrap().len(), 2);
}

#[test]
fn sizes_that_no_disk_has_are_counted_without_overflow() {
    let place = Place::new();
    let writer = place.catalog().writer().unwrap();
    let mut objects = [object(&[b"a"]), object(&[b"b"]), object(&[b"c"])];
    for (object, size) in objects.iter_mut().zip([1 << 63, 1 << 63, u64::MAX]) {
        object.record.key.plain_size = size;
        object.record.stored_len = size;
        writer.add_object(object).unwrap();
    }
    for object in &objects[..2] {
        writer.remove_object(&object.record).unwrap();
    }
    writer.finish().unwrap();
    assert_eq!(place.catalog().totals().unwrap().content_bytes, u64::MAX);
}
