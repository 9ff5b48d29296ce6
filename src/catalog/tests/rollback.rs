//! A store that goes back to an older state, or continues another one.

use super::sealed::*;
use crate::base::ErrorClass;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A machine with its memory, and the place it uses.
struct Machine {
    memory: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        Self { memory: tempfile::tempdir().unwrap() }
    }

    fn heads(&self) -> TrustedHeads {
        TrustedHeads::in_directory(self.memory.path().join("heads"), false)
    }

    fn open(&self, place: &Place) -> CatalogResult<Catalog> {
        Catalog::open_trusted(&place.home(), &place.archive(), self.heads())
    }

    fn open_accepting(&self, place: &Place) -> Catalog {
        let heads = TrustedHeads::in_directory(self.memory.path().join("heads"), true);
        Catalog::open_trusted(&place.home(), &place.archive(), heads).unwrap()
    }

    fn make(&self, place: &Place, name: &str) {
        let writer = self.open(place).unwrap().writer().unwrap();
        writer.commit_entries(&mut [directory(name)].into_iter().map(Ok)).unwrap();
        writer.finish().unwrap();
    }

    fn rotate(&self, place: &Place) {
        let writer = self.open(place).unwrap().writer().unwrap();
        writer.rewrite_journal().unwrap();
        writer.finish().unwrap();
    }

    fn file(&self) -> PathBuf {
        std::fs::read_dir(self.memory.path().join("heads")).unwrap().next().unwrap().unwrap().path()
    }
}

fn bytes_of_all(place: &Place) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = place.journal_files();
    files.extend(std::fs::read_dir(place.local("")).unwrap().map(|entry| entry.unwrap().path()));
    files.into_iter().map(|file| (file.clone(), std::fs::read(file).unwrap())).collect()
}

/// The last state of the place, on the machine that made it, and an older one.
fn with_older() -> (Machine, Place, Place) {
    let (machine, place) = (Machine::new(), Place::new());
    machine.make(&place, "one");
    let older = place.copy();
    machine.make(&place, "two");
    (machine, place, older)
}

fn is_rolled_back(machine: &Machine, place: &Place) {
    let before = bytes_of_all(place);
    let error = machine.open(place).unwrap_err();
    let CatalogError::RolledBack { presented, seen, .. } = &error else { panic!("{error}") };
    assert!(presented < seen, "{error}");
    assert_eq!(error.class(), ErrorClass::Unavailable);
    let text = error.to_string();
    assert!(text.contains(&format!("generation {presented}")) && text.contains(&seen.to_string()), "{text}");
    assert!(bytes_of_all(place) == before, "something was written");
}

#[test]
fn an_older_pair_of_database_and_journal_is_refused_until_it_is_accepted() {
    for rotated in [false, true] {
        let (machine, place, older) = with_older();
        if rotated {
            machine.rotate(&place);
        }
        is_rolled_back(&machine, &older);
        // Without its database the journal tells the same; nothing is rebuilt.
        let bare = older.copy();
        bare.lose_database();
        let error = machine.open(&bare).unwrap_err();
        assert!(matches!(error, CatalogError::RolledBack { .. }), "{error}");
        assert!(!bare.local("catalog.db").exists());
        let source = RebuildSource::Best;
        let error = rebuild_trusted(&bare.home(), &bare.archive(), source, machine.heads()).unwrap_err();
        assert!(matches!(error, CatalogError::RolledBack { .. }), "{error}");
        // A machine that never saw it cannot tell.
        assert_eq!(tree(&Machine::new().open(&older).unwrap()).unwrap().len(), 1);
        assert_eq!(tree(&machine.open_accepting(&older)).unwrap().len(), 1);
        machine.make(&older, "three");
        assert_eq!(tree(&machine.open(&older).unwrap()).unwrap().len(), 2);
        // And now the other is a fork, or behind.
        assert!(machine.open(&place).is_err());
    }
}

#[test]
fn an_older_journal_beside_a_good_database_is_healed_and_an_older_database_follows() {
    let (machine, place, older) = with_older();
    let copy = place.copy();
    for name in ["catalog.db", "catalog.seal"] {
        std::fs::copy(older.local(name), place.local(name)).unwrap();
    }
    assert_eq!(tree(&machine.open(&place).unwrap()).unwrap().len(), 2);
    std::fs::copy(older.journal(), copy.journal()).unwrap();
    assert_eq!(tree(&machine.open(&copy).unwrap()).unwrap().len(), 2);
    assert_eq!(copy.events(), 1);
}

#[test]
fn a_fork_is_refused_at_the_same_and_at_a_higher_generation() {
    let (machine, place, older) = with_older();
    let other = Machine::new();
    let seen = machine.open(&place).unwrap().generation().unwrap();
    other.make(&older, "fork");
    for _ in 0..2 {
        assert!(other.open(&older).unwrap().generation().unwrap() >= seen);
        for bare in [false, true] {
            let copy = older.copy();
            if bare {
                copy.lose_database();
            }
            let error = machine.open(&copy).unwrap_err();
            assert!(matches!(error, CatalogError::Forked { .. }), "{error}");
            assert_eq!(error.class(), ErrorClass::Unavailable);
        }
        other.make(&older, "longer");
    }
    assert_eq!(tree(&machine.open_accepting(&older)).unwrap().len(), 3);
    assert!(machine.open(&older).is_ok());
}

#[test]
fn what_another_machine_went_on_with_is_accepted_also_after_it_was_compacted() {
    let (machine, place, _) = with_older();
    let other = Machine::new();
    other.make(&place, "three");
    machine.open(&place.copy()).unwrap();
    other.rotate(&place);
    other.make(&place, "four");
    assert_eq!(tree(&machine.open(&place).unwrap()).unwrap().len(), 4);
}

#[test]
fn rebuilding_does_not_trip_it_whatever_was_lost() {
    for (lose_journal, source) in
        [(false, RebuildSource::Journal), (false, RebuildSource::Objects), (true, RebuildSource::Best)]
    {
        let (machine, place, older) = with_older();
        if lose_journal {
            place.journal_files().iter().for_each(|file| std::fs::remove_file(file).unwrap());
        }
        place.lose_database();
        rebuild_trusted(&place.home(), &place.archive(), source, machine.heads()).unwrap();
        machine.open(&place).unwrap();
        machine.make(&place, "after");
        machine.open(&place).unwrap();
        // The state before is older than what was made.
        is_rolled_back(&machine, &older);
    }
}

#[test]
fn a_crash_never_trips_it() {
    let (machine, place, _) = with_older();
    let catalog = machine.open(&place).unwrap();
    let writer = catalog.writer().unwrap();
    for number in 0..5 {
        writer.commit_entries(&mut [directory(format!("d{number}"))].into_iter().map(Ok)).unwrap();
        let crashed = place.copy();
        assert_eq!(tree(&machine.open(&crashed).unwrap()).unwrap().len(), 3 + number);
        if number == 2 {
            writer.rewrite_journal().unwrap();
            assert!(machine.open(&place.copy()).is_ok());
        }
    }
    // A group that was never finished, and its torn tail.
    writer.finish().unwrap();
    drop(catalog);
    let mut bytes = std::fs::read(place.journal()).unwrap();
    bytes.extend_from_slice(&[7; 5000]);
    std::fs::write(place.journal(), &bytes).unwrap();
    machine.open(&place).unwrap();
    place.lose_database();
    machine.open(&place).unwrap();
}

#[test]
fn readers_beside_a_writer_are_not_refused() {
    let (machine, place, _) = with_older();
    let catalog = machine.open(&place).unwrap();
    let writer = catalog.writer().unwrap();
    for number in 0..3 {
        writer.commit_entries(&mut [directory(format!("d{number}"))].into_iter().map(Ok)).unwrap();
        let reader = machine.open(&place).unwrap();
        reader.remember_head().unwrap();
        assert_eq!(tree(&reader).unwrap().len(), 3 + number);
    }
    writer.finish().unwrap();
}

#[test]
fn a_memory_that_is_damaged_or_forged_is_none() {
    let (machine, place, older) = with_older();
    let file = machine.file();
    let good = std::fs::read(&file).unwrap();
    for at in (0..good.len()).step_by(11) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&file, bad).unwrap();
        assert_eq!(tree(&machine.open(&older.copy()).unwrap()).unwrap().len(), 1);
    }
    // One that somebody wrote without the key, to keep the owner out.
    let text = String::from_utf8(good.clone()).unwrap();
    let line = text.lines().find(|line| line.contains("\"generation\"")).unwrap();
    let forged = text.replace(line, "  \"generation\": 99999,");
    let start = forged.find("\"checksum\": \"").unwrap() + 13;
    let zeroed = format!("{}{}{}", &forged[..start], "0".repeat(64), &forged[start + 64..]);
    let checksum = crate::base::Digest::of(zeroed.as_bytes()).to_hex();
    let forged = format!("{}{checksum}{}", &forged[..start], &forged[start + 64..]);
    std::fs::write(&file, forged).unwrap();
    assert_eq!(tree(&machine.open(&place).unwrap()).unwrap().len(), 2);
    // It was written anew.
    is_rolled_back(&machine, &older);
}

#[test]
fn an_archive_that_was_encrypted_does_not_become_plain_unnoticed() {
    let (machine, place, _) = with_older();
    let plain = super::plain::Place::new();
    let id = plain.archive().descriptor().id;
    let file = machine.file();
    assert!(Catalog::open_trusted(&plain.home(), &plain.archive(), machine.heads()).is_ok());
    std::fs::copy(&file, file.with_file_name(format!("{id}.json"))).unwrap();
    let error = Catalog::open_trusted(&plain.home(), &plain.archive(), machine.heads()).unwrap_err();
    assert!(matches!(error, CatalogError::NotEncrypted { .. }), "{error}");
    let heads = TrustedHeads::in_directory(machine.memory.path().join("heads"), true);
    assert!(Catalog::open_trusted(&plain.home(), &plain.archive(), heads).is_ok());
    assert!(Catalog::open_trusted(&plain.home(), &plain.archive(), machine.heads()).is_ok());
    machine.open(&place).unwrap();
}
