use super::*;

const CONTENTS: [&[u8]; 2] = [b"first content", b"second"];

/// A place with a few commits, and the tree after each.
fn small() -> (Place, Vec<Tree>) {
    let place = Place::new();
    let mut trees = vec![Tree::new()];
    place.store_contents(&CONTENTS);
    let commits = [
        vec![directory("d"), file("d/f", CONTENTS[0]), file("g", CONTENTS[1])],
        vec![link("d/h", "d/f"), file("g", b"")],
        vec![directory("e"), file("e/x", CONTENTS[1]), file("d/f", CONTENTS[1])],
    ];
    for entries in commits {
        place.commit(&entries).unwrap();
        trees.push(tree(&place.catalog()).unwrap());
    }
    (place, trees)
}

/// Runs `check` on copies of a place, each with one byte of `file` flipped.
fn with_flips(place: &Place, file: &Path, step: usize, check: impl Fn(&Place, usize)) {
    let below = file.strip_prefix(place.directory.path()).unwrap();
    let bytes = std::fs::read(file).unwrap();
    for at in (0..bytes.len()).step_by(step) {
        let copy = place.copy();
        let mut bad = bytes.clone();
        bad[at] ^= 1 << (at % 8);
        std::fs::write(copy.directory.path().join(below), bad).unwrap();
        check(&copy, at);
    }
}

#[test]
fn a_flipped_byte_of_the_database_is_noticed_and_the_journal_says_what_was_there() {
    let (place, trees) = small();
    let file = place.local("catalog.db");
    with_flips(&place, &file, 293, |copy, at| {
        assert_eq!(tree(&copy.catalog()).unwrap(), trees[3], "byte {at}");
        assert_eq!(copy.events(), 1, "byte {at}");
        assert!(copy.local("catalog.db.damaged").exists());
        // The next opening finds it healed.
        assert_eq!(tree(&copy.catalog()).unwrap(), trees[3], "byte {at}");
        assert_eq!(copy.events(), 1, "byte {at}");
    });
}

#[test]
fn a_flipped_byte_of_the_seal_costs_a_rebuild_at_most() {
    let (place, trees) = small();
    let file = place.local("catalog.seal");
    with_flips(&place, &file, 7, |copy, at| assert_eq!(tree(&copy.catalog()).unwrap(), trees[3], "byte {at}"));
}

#[test]
fn a_flipped_byte_of_the_journal_is_found_and_repaired_from_the_database() {
    let (place, trees) = small();
    for file in place.journal_files() {
        with_flips(&place, &file, 151, |copy, at| {
            let catalog = copy.catalog();
            assert_eq!(tree(&catalog).unwrap(), trees[3], "byte {at}");
            // What the opening did not see, the scrubber does.
            let found = catalog.verify_journal(true).unwrap();
            assert!(!found.is_empty() || copy.events() == 1, "byte {at}");
            assert_eq!(catalog.verify_journal(false).unwrap(), Vec::<String>::new(), "byte {at}");
            copy.lose_database();
            assert_eq!(tree(&copy.catalog()).unwrap(), trees[3], "byte {at}");
        });
    }
}

#[test]
fn a_flipped_byte_of_the_journal_without_a_database_gives_no_wrong_name() {
    let (place, trees) = small();
    place.lose_database();
    for file in place.journal_files() {
        with_flips(&place, &file, 211, |copy, at| {
            let found = tree(&copy.catalog()).unwrap();
            for (path, inode) in &found {
                let right = trees.iter().filter_map(|tree| tree.get(path));
                let shown = String::from_utf8_lossy(path);
                assert!(
                    right.clone().any(|right| (&right.meta, &right.body) == (&inode.meta, &inode.body)),
                    "byte {at}: {shown} is {inode:?}"
                );
            }
            // It is a catalog like any other from then on.
            copy.commit(&[directory("new")]).unwrap();
            assert_eq!(tree(&copy.catalog()).unwrap().len(), found.len() + 1, "byte {at}");
        });
    }
}

#[test]
fn a_journal_torn_at_any_length_gives_a_state_that_was() {
    let (place, trees) = small();
    let bytes = std::fs::read(place.journal()).unwrap();
    let lengths = (0..bytes.len()).step_by(509).chain((0..=bytes.len()).step_by(4096));
    for length in lengths {
        place.lose_database();
        std::fs::write(place.journal(), &bytes[..length]).unwrap();
        let copy = place.copy();
        let found = tree(&copy.catalog()).unwrap();
        assert!(trees.contains(&found), "cut at {length}: {found:?}");
        assert_eq!(tree(&copy.catalog()).unwrap(), found, "cut at {length}");
    }
}

#[test]
fn a_journal_that_shrank_is_reported_and_not_believed() {
    let (place, trees) = small();
    let file = std::fs::OpenOptions::new().write(true).open(place.journal()).unwrap();
    file.set_len(file.metadata().unwrap().len() - 4096).unwrap();
    assert_eq!(tree(&place.catalog()).unwrap(), trees[3]);
    assert_eq!(place.events(), 1);
    place.lose_database();
    assert_eq!(tree(&place.catalog()).unwrap(), trees[3]);
}

#[test]
fn a_change_that_reached_the_journal_alone_is_replayed() {
    for keep_seal in [false, true] {
        let (place, trees) = small();
        let (database, seal) = (place.local("catalog.db"), place.local("catalog.seal"));
        let old = (std::fs::read(&database).unwrap(), std::fs::read(&seal).unwrap());
        place.commit(&[directory("late"), file("late/f", CONTENTS[0])]).unwrap();
        let after = tree(&place.catalog()).unwrap();
        assert_ne!(after, trees[3]);
        std::fs::write(&database, &old.0).unwrap();
        if keep_seal {
            std::fs::write(&seal, &old.1).unwrap();
        } else {
            std::fs::remove_file(&seal).unwrap();
        }
        assert_eq!(tree(&place.catalog()).unwrap(), after);
        assert_eq!(place.commit(&[directory("late")]).unwrap().unchanged, 1);
    }
}

#[test]
fn an_unfinished_group_behind_the_journal_does_not_count_and_is_cut() {
    let (place, trees) = small();
    let good = std::fs::read(place.journal()).unwrap();
    place.commit(&[directory("late")]).unwrap();
    let more = std::fs::read(place.journal()).unwrap();
    place.lose_database();
    std::fs::write(place.journal(), &more[..more.len() - 1]).unwrap();
    assert_eq!(tree(&place.catalog()).unwrap(), trees[3]);
    // With the database, nothing is rewritten: the tail goes with the next change.
    std::fs::write(place.journal(), [good.as_slice(), &[1; 5000]].concat()).unwrap_or_default();
    place.commit(&[directory("other")]).unwrap();
    let after = tree(&place.catalog()).unwrap();
    place.lose_database();
    assert_eq!(tree(&place.catalog()).unwrap(), after);
}

#[test]
fn a_journal_from_which_a_block_was_taken_is_noticed_though_every_block_is_good() {
    let (place, trees) = small();
    let bytes = std::fs::read(place.journal()).unwrap();
    for block in 1..bytes.len() / 4096 {
        let copy = place.copy();
        let (before, after) = (&bytes[..block * 4096], &bytes[(block + 1) * 4096..]);
        // Something of the same length takes its place at the end, so that only the chain tells.
        let last = bytes[bytes.len() - 4096..].to_vec();
        let shifted = [before, after, &last].concat();
        std::fs::write(copy.journal(), shifted).unwrap();
        let catalog = copy.catalog();
        assert_eq!(tree(&catalog).unwrap(), trees[3], "block {block}");
        if block + 1 < bytes.len() / 4096 {
            assert!(!catalog.verify_journal(true).unwrap().is_empty(), "block {block}");
        }
        copy.lose_database();
        assert_eq!(tree(&copy.catalog()).unwrap(), trees[3], "block {block}");
    }
}

#[test]
fn a_missing_journal_is_written_anew() {
    let (place, trees) = small();
    place.journal_files().iter().for_each(|path| std::fs::remove_file(path).unwrap());
    assert_eq!(tree(&place.catalog()).unwrap(), trees[3]);
    place.lose_database();
    assert_eq!(tree(&place.catalog()).unwrap(), trees[3]);
}

#[test]
fn a_home_that_cannot_be_written_is_read_from_memory() {
    let (place, trees) = small();
    std::fs::remove_dir_all(place.home()).unwrap();
    std::fs::create_dir_all(place.home()).unwrap();
    std::fs::write(place.home().join(".blockframe"), b"in the way").unwrap();
    let catalog = place.catalog();
    assert_eq!(tree(&catalog).unwrap(), trees[3]);
    assert!(catalog.writer().is_err());
}

#[test]
fn another_archives_database_is_not_used() {
    let (place, trees) = small();
    let (other, _) = small();
    for name in ["catalog.db", "catalog.seal"] {
        std::fs::copy(other.local(name), place.local(name)).unwrap();
    }
    other.commit(&[directory("theirs")]).unwrap();
    assert_eq!(tree(&place.catalog()).unwrap(), trees[3]);
}

#[test]
fn readers_follow_a_rebuild_by_another_process() {
    let (place, trees) = small();
    let reader = place.catalog();
    let before = reader.generation().unwrap();
    rebuild(&place.home(), &place.archive(), RebuildSource::Journal).unwrap();
    place.commit(&[directory("late")]).unwrap();
    assert_ne!(reader.generation().unwrap(), before);
    assert_eq!(tree(&reader).unwrap().len(), trees[3].len() + 1);
}

/// The bytes of every file of a place.
fn all_bytes(place: &Place) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files: Vec<PathBuf> = place.journal_files();
    files.extend(std::fs::read_dir(place.home().join(".blockframe")).unwrap().map(|entry| entry.unwrap().path()));
    // A database that lost its seal is examined, no more.
    files.retain(|file| file.is_file() && !file.ends_with("catalog.seal"));
    files.into_iter().map(|file| (file.clone(), std::fs::read(&file).unwrap())).collect()
}

/// Every way to open or rebuild tells to use a newer version, and changes nothing.
fn is_refused(place: &Place, named: &str) {
    let before = all_bytes(place);
    let opened = Catalog::open(&place.home(), &place.archive()).unwrap_err();
    let rebuilt = [RebuildSource::Best, RebuildSource::Journal]
        .map(|source| rebuild(&place.home(), &place.archive(), source).unwrap_err());
    for error in [opened].into_iter().chain(rebuilt) {
        assert_eq!(error.class(), crate::base::ErrorClass::NotSupported, "{error}");
        let text = error.to_string();
        assert!(text.contains("newer blockframe") && text.contains(named), "{text}");
    }
    let mut after = all_bytes(place);
    // What a rebuild had begun is no harm.
    after.retain(|file, _| before.contains_key(file));
    assert!(after == before, "something was changed");
}

fn set_schema(place: &Place, version: i64) {
    let site = Site::new(&place.home(), &place.archive(), TrustedHeads::nowhere()).unwrap();
    let database = site.open_database(Use::Write, 1024).unwrap();
    database.put_meta("schema", version).unwrap();
}

#[test]
fn a_database_of_a_later_version_is_refused_and_one_of_an_earlier_is_made_anew() {
    let (place, trees) = small();
    std::fs::remove_file(place.local("catalog.seal")).unwrap();
    set_schema(&place, 99);
    is_refused(&place, "version 99");
    set_schema(&place, 1);
    assert_eq!(tree(&place.catalog()).unwrap(), trees[3]);
}

#[test]
fn a_newer_looking_version_in_a_damaged_database_is_damage() {
    let (place, trees) = small();
    // The seal was made over other bytes.
    set_schema(&place, 99);
    assert_eq!(tree(&place.catalog()).unwrap(), trees[3]);
    assert_eq!(place.events(), 1);
}

#[test]
fn a_journal_of_a_later_version_is_refused_with_and_without_a_database() {
    let (place, _) = small();
    let file = place.journal();
    let mut bytes = std::fs::read(&file).unwrap();
    // The version stands behind the archive's id.
    bytes[crate::format::journal::HEADER_LEN + 16] = 3;
    let crc = crc32c::crc32c(&bytes[8..4096]);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&file, bytes).unwrap();
    is_refused(&place, "journal-");
    place.lose_database();
    is_refused(&place, "journal-");
}

#[test]
fn a_record_of_a_later_version_is_refused_with_and_without_a_database() {
    if encrypted() {
        // It is made by hand below.
        return;
    }
    let (place, _) = small();
    let file = place.journal();
    let bytes = std::fs::read(&file).unwrap();
    let last = crate::format::journal::Block::parse(&bytes[bytes.len() - 4096..]).unwrap();
    let at = crate::format::journal::place_after(&last, &bytes[bytes.len() - 4096..]);
    let mut group = Vec::new();
    group.extend_from_slice(b"BFCJ\0\0\0\0");
    // Three bytes of payload: a record of two bytes, of type 77. A journal's block, the group's first and last.
    group.extend_from_slice(&[3, 0, 1, 6]);
    group.extend_from_slice(&at.sequence.to_le_bytes());
    group.extend_from_slice(at.hash.as_bytes());
    group.extend_from_slice(&[2, 77, 0]);
    group.resize(4096, 0);
    let crc = crc32c::crc32c(&group[8..]);
    group[4..8].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&file, [bytes, group].concat()).unwrap();
    is_refused(&place, "77");
    place.lose_database();
    is_refused(&place, "77");
}

#[test]
fn a_journal_with_the_last_number_there_is_does_not_stop_the_opening() {
    let (place, trees) = small();
    let file = place.store().join(".blockframe/catalog/journal-18446744073709551615.bfc");
    std::fs::write(file, b"no block").unwrap();
    assert_eq!(tree(&place.catalog()).unwrap(), trees[3]);
    place.lose_database();
    assert_eq!(tree(&place.catalog()).unwrap(), trees[3]);
}
