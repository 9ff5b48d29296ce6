//! What is true of an encrypted archive's files only.

use super::sealed::*;
use crate::archive::{Archive, Event, EventKind, EventSink as _};
use crate::base::{ArchiveId, Digest, ErrorClass, Secret};
use crate::catalog::HealthLog;
use crate::format::journal::{
    BLOCK_LEN, Block, ChainHead, FileKind, GroupEncoder, Record, parse_file_header, place_after, put_file_header,
    put_sealed_header,
};
use crate::format::journal_seal::BlockSeal;
use crate::format::{Entry, FormatError, NodeBody};
use crate::keys::Epoch;
use crate::store::LocalStore;
use std::collections::BTreeMap;
use std::path::PathBuf;

const NAMES: [&str; 4] = ["Krankenakte-2026", "scan of the passport.pdf", "Liebe Ada, heute", "xattribute-of-mine"];

/// A place with entries of speaking names, and a health log that tells of them.
fn telling() -> Place {
    let place = Place::new();
    place.store_contents(&[b"secret content"]);
    let mut entries = vec![directory(NAMES[0]), file(format!("{}/{}", NAMES[0], NAMES[1]), b"secret content")];
    entries.push(link(NAMES[2], &format!("{}/{}", NAMES[0], NAMES[1])));
    let mut meta = meta(7);
    meta.xattrs = vec![(format!("user.{}", NAMES[3]).into_bytes(), NAMES[3].into())];
    entries.push(Entry::Node { path: path("odd"), meta, body: NodeBody::Directory });
    place.commit(&entries).unwrap();
    let log = HealthLog::open_for(&place.home(), &place.archive()).unwrap();
    for name in NAMES {
        log.record(Event::new(NOW, EventKind::Lost, "data.dat", format!("part of {name}")));
        log.set_value(name, Some(name)).unwrap();
    }
    place
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut open = vec![directory.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { open.push(path) } else { files.push(path) }
        }
    }
    files
}

fn finds(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

/// No file tells a name; `SQLite format 3` and the tables' names are names, too.
fn tells_nothing(directory: &Path) {
    let files = files_below(directory);
    assert!(files.len() >= 6, "{files:?}");
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        for name in NAMES.iter().copied().chain(["secret content", "SQLite format", "CREATE TABLE", "dirent"]) {
            let whole = finds(&bytes, name.as_bytes());
            let part = name.len() > 8 && finds(&bytes, &name.as_bytes()[..8]);
            assert!(!whole && !part, "{} tells \"{name}\"", file.display());
        }
    }
}

#[test]
fn no_file_tells_a_name_neither_at_rest_nor_while_a_writer_lives() {
    let place = telling();
    tells_nothing(place.directory.path());
    let catalog = place.catalog();
    let writer = catalog.writer().unwrap();
    let entries = [directory(format!("{}-again", NAMES[0])), directory(NAMES[1])];
    writer.commit_entries(&mut entries.into_iter().map(Ok)).unwrap();
    assert!(std::fs::metadata(place.local("catalog.db-wal")).unwrap().len() > 0);
    tells_nothing(place.directory.path());
    writer.rewrite_journal().unwrap();
    tells_nothing(place.directory.path());
    writer.finish().unwrap();
    drop(catalog);
    // What is set aside tells nothing either.
    rebuild(&place.home(), &place.archive(), RebuildSource::Journal).unwrap();
    assert!(place.local("catalog.db.damaged").exists());
    tells_nothing(place.directory.path());
    // The same search finds them in an archive that is not encrypted.
    let open = super::plain::Place::new();
    open.commit(&[directory(NAMES[0])]).unwrap();
    for file in [open.local("catalog.db"), open.journal()] {
        assert!(finds(&std::fs::read(file).unwrap(), NAMES[0].as_bytes()));
    }
}

fn bytes_of_all(place: &Place) -> BTreeMap<PathBuf, Vec<u8>> {
    files_below(place.directory.path()).into_iter().map(|file| (file.clone(), std::fs::read(file).unwrap())).collect()
}

fn locked(place: &Place) -> Arc<Archive> {
    let store = Arc::new(LocalStore::open(&place.store()).unwrap());
    Arc::new(Archive::open(store, Arc::new(FixedClock), Arc::<Events>::default()).unwrap())
}

#[test]
fn without_keys_nothing_opens_and_nothing_is_changed() {
    let place = telling();
    let writer = place.catalog().writer().unwrap();
    let before = bytes_of_all(&place);
    let archive = locked(&place);
    for lose in [false, true] {
        if lose {
            drop(place.catalog());
        }
        let errors = [
            Catalog::open(&place.home(), &archive).unwrap_err(),
            Catalog::create(&place.home(), &archive).unwrap_err(),
            rebuild(&place.home(), &archive, RebuildSource::Best).unwrap_err(),
        ];
        assert!(errors.iter().all(|error| error.class() == ErrorClass::WrongKey));
    }
    assert!(bytes_of_all(&place) == before);
    drop(writer);
}

#[test]
fn without_keys_the_journal_can_be_verified() {
    let place = telling();
    let archive = locked(&place);
    assert_eq!(verify_journal_files(&archive).unwrap(), Vec::<String>::new());
    for file in place.journal_files() {
        let good = std::fs::read(&file).unwrap();
        for at in (0..good.len()).step_by(97) {
            let mut bad = good.clone();
            bad[at] ^= 4;
            std::fs::write(&file, bad).unwrap();
            assert_eq!(verify_journal_files(&archive).unwrap().len(), 1, "byte {at}");
        }
        std::fs::write(&file, good).unwrap();
    }
}

#[test]
fn a_log_without_keys_is_another_file() {
    let place = telling();
    let archive = locked(&place);
    let log = HealthLog::open_for(&place.home(), &archive).unwrap();
    assert_eq!(log.recent_events(10).unwrap().len(), 0);
    log.set_value("cursor", Some("x")).unwrap();
    drop(log);
    assert!(!place.local("state.db.damaged").exists());
    let open = HealthLog::open_for(&place.home(), &place.archive()).unwrap();
    assert_eq!(open.recent_events(10).unwrap().len(), NAMES.len());
    assert_eq!(HealthLog::open_for(&place.home(), &archive).unwrap().get_value("cursor").unwrap().unwrap(), "x");
}

/// The same archive after a rotation of its keys.
fn rotated(place: &Place) -> Arc<Archive> {
    let archive = locked(place);
    let keys = keys(archive.descriptor().id);
    keys.add_epoch(Epoch::new(2).unwrap(), Secret::filled_by(|bytes| bytes.fill(9)));
    Arc::new(archive.unlocked(keys))
}

fn epoch_of(journal: &Path) -> u32 {
    let bytes = std::fs::read(journal).unwrap();
    parse_file_header(Block::parse(&bytes[..BLOCK_LEN]).unwrap().payload).unwrap().epoch.unwrap()
}

#[test]
fn after_a_rotation_the_next_writer_begins_a_journal_of_the_new_epoch() {
    let place = telling();
    let before = tree(&place.catalog()).unwrap();
    assert_eq!(epoch_of(&place.journal()), 1);
    let archive = rotated(&place);
    let catalog = Catalog::open(&place.home(), &archive).unwrap();
    // Readers read the old one.
    assert_eq!(tree(&catalog).unwrap(), before);
    assert_eq!(epoch_of(&place.journal()), 1);
    let writer = catalog.writer().unwrap();
    assert!(place.journal_files().iter().all(|file| epoch_of(file) == 2));
    writer.commit_entries(&mut [directory("later")].into_iter().map(Ok)).unwrap();
    writer.finish().unwrap();
    drop(catalog);
    place.lose_database();
    let catalog = Catalog::open(&place.home(), &archive).unwrap();
    assert_eq!(tree(&catalog).unwrap().len(), before.len() + 1);
    drop(catalog);
    // A key ring from before the rotation opens nothing, and harms nothing.
    let bytes = bytes_of_all(&place);
    let error = Catalog::open(&place.home(), &place.archive()).unwrap_err();
    assert_eq!(error.class(), ErrorClass::WrongKey, "{error}");
    assert!(error.to_string().contains("epoch 2"), "{error}");
    assert!(bytes_of_all(&place) == bytes);
}

#[test]
fn a_lost_header_does_not_hide_the_epoch() {
    let place = telling();
    let before = tree(&place.catalog()).unwrap();
    let mut bytes = std::fs::read(place.journal()).unwrap();
    bytes[70] ^= 1;
    std::fs::write(place.journal(), bytes).unwrap();
    // The writer does not know it at once, and begins another journal.
    place.commit(&[directory("later")]).unwrap();
    let after = tree(&place.catalog()).unwrap();
    assert_eq!(after.len(), before.len() + 1);
    place.lose_database();
    assert_eq!(tree(&place.catalog()).unwrap(), after);
}

/// A block whose checksum is right again after its bytes were changed.
fn resealed(block: &mut [u8]) {
    let crc = crc32c::crc32c(&block[8..]);
    block[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// The tree of a copy whose journal is replaced, without the database.
fn tree_of(place: &Place, journal: &[u8]) -> Tree {
    let copy = place.copy();
    copy.lose_database();
    std::fs::write(copy.journal(), journal).unwrap();
    tree(&copy.catalog()).unwrap()
}

/// Every name of `found` is one of `right`, with the same node behind it.
fn is_within(found: &Tree, right: &Tree) {
    for (path, inode) in found {
        let told = right.get(path).unwrap_or_else(|| panic!("{} never was", String::from_utf8_lossy(path)));
        assert_eq!((&told.meta, &told.body), (&inode.meta, &inode.body));
    }
}

#[test]
fn a_changed_byte_whose_checksum_was_made_right_is_still_damage() {
    let place = telling();
    let all = tree(&place.catalog()).unwrap();
    let good = std::fs::read(place.journal()).unwrap();
    let last = good.len() - BLOCK_LEN;
    for at in (last + 8..good.len()).step_by(61).chain([last + 10, last + 11]) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        resealed(&mut bad[last..]);
        // The group of the names is gone as a whole: there is no other in this journal after the contents.
        let found = tree_of(&place, &bad);
        assert!(found.is_empty(), "byte {at}: {} of {}", found.len(), all.len());
    }
}

#[test]
fn a_changed_byte_of_a_journal_is_a_fault_with_a_right_checksum_too() {
    let place = telling();
    let replica = Replica::new(&place.archive());
    let (_, start) = FileKind::parse_file_name(place.journal().file_name().unwrap().to_str().unwrap()).unwrap();
    let good = std::fs::read(place.journal()).unwrap();
    let whole = replica.scan(FileKind::Journal, start).unwrap();
    assert_eq!((whole.fault, whole.linked), (None, 2));
    for at in (0..good.len()).step_by(23) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        if at % BLOCK_LEN >= 8 {
            let block = at / BLOCK_LEN * BLOCK_LEN;
            resealed(&mut bad[block..block + BLOCK_LEN]);
        }
        std::fs::write(place.journal(), bad).unwrap();
        let scan = replica.scan(FileKind::Journal, start).unwrap();
        assert!(scan.fault.is_some() && scan.linked < 2, "byte {at}");
    }
}

#[test]
fn a_block_opens_only_where_it_was_written() {
    let archive = ArchiveId::random();
    let key = |byte| Secret::filled_by(|bytes: &mut [u8; 64]| bytes.fill(byte));
    let seal = BlockSeal::new(archive, 5, key(1));
    let mut bytes = Vec::new();
    let at = put_sealed_header(FileKind::Journal, &seal, ChainHead::START, &mut bytes);
    let mut encoder = GroupEncoder::new(FileKind::Journal, at).sealed_by(Some(seal.clone()));
    encoder.push(&Record::NextInode(7), &mut bytes).unwrap();
    encoder.finish(&mut bytes);
    let (header, block) = bytes.split_at(BLOCK_LEN);
    let header = Block::parse(header).unwrap();
    let block = Block::parse(block).unwrap();
    assert_eq!(seal.open(&block).unwrap().len(), 3);
    seal.check_header(&header).unwrap();
    let others = [
        BlockSeal::new(ArchiveId::random(), 5, key(1)),
        BlockSeal::new(archive, 6, key(1)),
        BlockSeal::new(archive, 5, key(2)),
    ];
    for other in &others {
        assert!(other.open(&block).is_err() && other.check_header(&header).is_err());
    }
    for at in 8..BLOCK_LEN {
        // Of the header of a file, what follows its tag is not zero any more.
        let mut bad = bytes.clone();
        for start in [0, BLOCK_LEN] {
            bad[start + at] ^= 1 << (at % 8);
            resealed(&mut bad[start..start + BLOCK_LEN]);
        }
        let (header, block) = bad.split_at(BLOCK_LEN);
        let authentic = |bytes| -> Result<(), FormatError> {
            let block = Block::parse(bytes)?;
            if block.header {
                let said = parse_file_header(block.payload)?;
                seal.check_header(&block)?;
                // Not the tag's business: what is read of it is compared with what the seal knows.
                assert!(said.archive != archive || said.epoch != Some(5));
                return Err(FormatError::Checksum { what: "file" });
            }
            seal.open(&block).map(drop)
        };
        assert!(authentic(block).is_err() && authentic(header).is_err(), "byte {at}");
    }
    let moved = |change: &dyn Fn(&mut Block<'_>)| {
        let (mut block, mut header) = (block, header);
        change(&mut block);
        change(&mut header);
        assert!(seal.open(&block).is_err() && seal.check_header(&header).is_err());
    };
    moved(&|block| block.kind = FileKind::Snapshot);
    moved(&|block| block.first = !block.first);
    moved(&|block| block.last = !block.last);
    moved(&|block| block.header = !block.header);
    moved(&|block| block.place.sequence += 1);
    moved(&|block| block.place.hash = Digest::of(b"another block"));
}

#[test]
fn swapped_blocks_and_blocks_of_another_archive_give_no_wrong_name() {
    let place = telling();
    place.commit(&[directory("one")]).unwrap();
    place.commit(&[directory("two")]).unwrap();
    let all = tree(&place.catalog()).unwrap();
    let good = std::fs::read(place.journal()).unwrap();
    let other = telling();
    other.commit(&[directory("foreign")]).unwrap();
    let foreign = std::fs::read(other.journal()).unwrap();
    let blocks = good.len() / BLOCK_LEN;
    let slot = |block: usize| block * BLOCK_LEN..(block + 1) * BLOCK_LEN;
    for one in 1..blocks {
        for two in 1..one {
            let mut bad = good.clone();
            bad[slot(one)].copy_from_slice(&good[slot(two)]);
            bad[slot(two)].copy_from_slice(&good[slot(one)]);
            is_within(&tree_of(&place, &bad), &all);
        }
        let mut bad = good.clone();
        bad[slot(one)].copy_from_slice(&foreign[slot(one.min(foreign.len() / BLOCK_LEN - 1))]);
        // As if it stood there: the place of the block that it replaces, and a right checksum.
        bad[slot(one)][12..52].copy_from_slice(&good[slot(one)][12..52]);
        resealed(&mut bad[slot(one)]);
        is_within(&tree_of(&place, &bad), &all);
    }
}

#[test]
fn a_journal_that_is_not_sealed_is_not_believed() {
    let place = telling();
    let all = tree(&place.catalog()).unwrap();
    let id = place.archive().descriptor().id;
    let good = std::fs::read(place.journal()).unwrap();
    let first = Block::parse(&good[..BLOCK_LEN]).unwrap().place;
    let mut forged = Vec::new();
    let at = put_file_header(FileKind::Journal, id, first, &mut forged);
    let mut encoder = GroupEncoder::new(FileKind::Journal, at);
    let meta = meta(3);
    let records = [
        Record::Inode { node: 99, meta, body: NodeBody::Directory },
        Record::Dirent { parent: 1, name: b"planted".to_vec(), node: 99 },
    ];
    records.iter().for_each(|record| encoder.push(record, &mut forged).unwrap());
    encoder.finish(&mut forged);
    is_within(&tree_of(&place, &forged), &all);
    // Nor a group that is not sealed behind good ones.
    let mut tail = Vec::new();
    let last = good.len() - BLOCK_LEN;
    let after = place_after(&Block::parse(&good[last..]).unwrap(), &good[last..]);
    let mut encoder = GroupEncoder::new(FileKind::Journal, after);
    records.iter().for_each(|record| encoder.push(record, &mut tail).unwrap());
    encoder.finish(&mut tail);
    assert_eq!(tree_of(&place, &[good.clone(), tail].concat()), all);
}

#[test]
fn a_sealed_journal_in_an_archive_that_says_it_is_not_encrypted_is_left_alone() {
    let place = super::plain::Place::new();
    place.commit(&[directory("a")]).unwrap();
    let id = place.archive().descriptor().id;
    let seal = BlockSeal::new(id, 1, Secret::filled_by(|bytes| bytes.fill(1)));
    let mut bytes = Vec::new();
    put_sealed_header(FileKind::Journal, &seal, ChainHead { sequence: 900, hash: Digest::of(b"") }, &mut bytes);
    let file = place.journal().with_file_name(FileKind::Journal.file_name(900));
    std::fs::write(&file, &bytes).unwrap();
    for _ in 0..2 {
        let error = Catalog::open(&place.home(), &place.archive()).unwrap_err();
        assert!(matches!(error, CatalogError::NotPlain { .. }), "{error}");
        place.lose_database();
    }
    assert_eq!(std::fs::read(&file).unwrap(), bytes);
}
