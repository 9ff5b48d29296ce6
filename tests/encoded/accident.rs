//! Any one byte of any file of an object is changed.

use super::{ENCODINGS, Encoding, encoded, one_tier, positions, read};
use crate::kit::{Fixture, compressible, files_below, reference, tiny_descriptor};
use blockframe::archive::Depth;
use blockframe::base::ContentRange;
use blockframe::format::{ArchiveDescriptor, TierLayout};
use std::fs;

/// Reads are right whatever byte is changed, and after a repair every file is what it was.
fn every_byte(rules: &ArchiveDescriptor, len: usize, encoding: Encoding) {
    let content = compressible(len, 11);
    let mut fixture = Fixture::new(encoded(rules, encoding));
    let object = reference(&fixture.put("object", &content));
    let directory = fixture.path(&object);
    let pristine = files_below(fixture.dir.path());
    let files = files_below(&directory);
    assert!(files.len() > 3, "{:?}", files.keys());
    for (file, bytes) in &files {
        for at in positions(bytes.len(), 10) {
            let place = format!("{encoding:?}, {}, byte {at}", file.display());
            let mut bad = bytes.clone();
            bad[at] ^= 1 << (at % 8);
            fs::write(directory.join(file), &bad).unwrap();
            fixture = fixture.reopened();
            let found = read(&fixture.archive, &object).unwrap_or_else(|error| panic!("{place}: {error}"));
            assert!(found == content, "{place}: other bytes were read");
            let health = fixture.archive.object_health(&object, Depth::Full, &|_| {}).unwrap();
            fixture.archive.execute(&health.plan(&fixture.archive).unwrap(), &|_| {}).unwrap();
            let after = files_below(fixture.dir.path());
            for (file, bytes) in &pristine {
                assert!(after.get(file) == Some(bytes), "{place}: {} is not repaired", file.display());
            }
        }
    }
    assert!(files_below(&directory) == files, "there are more files than before");
}

fn of_one_file(range: std::ops::Range<usize>) {
    let rules = {
        let mut rules = tiny_descriptor();
        rules.tiers.truncate(2);
        rules.tiers[1].below = None;
        rules
    };
    ENCODINGS[range].iter().for_each(|encoding| every_byte(&rules, 3000, *encoding));
}

fn of_blocks(range: std::ops::Range<usize>) {
    let rules = one_tier(TierLayout::Blocks, 65_536, 2, 2);
    ENCODINGS[range].iter().for_each(|encoding| every_byte(&rules, 70_001, *encoding));
}

#[test]
fn a_changed_byte_of_a_small_compressed_object_is_healed() {
    of_one_file(0..4);
}

#[test]
fn a_changed_byte_of_a_small_encrypted_object_is_healed() {
    of_one_file(4..10);
}

#[test]
fn a_changed_byte_of_a_compressed_object_is_healed() {
    of_blocks(0..4);
}

#[test]
fn a_changed_byte_of_an_encrypted_object_is_healed() {
    of_blocks(4..7);
}

#[test]
fn a_changed_byte_of_a_compressed_and_encrypted_object_is_healed() {
    of_blocks(7..10);
}

/// Damage beyond the parity: an error for what is lost, the right bytes for the rest.
#[test]
fn beyond_the_parity_no_other_bytes_are_read() {
    for encoding in ENCODINGS {
        let content = compressible(70_001, 12);
        let mut fixture = Fixture::new(encoded(&one_tier(TierLayout::Segments, 65_536, 1, 1), encoding));
        let object = reference(&fixture.put("object", &content));
        let directory = fixture.path(&object);
        for segment in 0..2 {
            let copies = ["segments/segment_{}.dat", "parity/segment_{}_parity_0.dat"];
            let copies = copies.map(|name| directory.join(name.replace("{}", &segment.to_string())));
            let bytes = fs::read(&copies[0]).unwrap();
            for at in positions(bytes.len(), 12) {
                let mut bad = bytes.clone();
                bad[at] ^= 0x20;
                copies.iter().for_each(|copy| fs::write(copy, &bad).unwrap());
                fixture = fixture.reopened();
                let opened = fixture.archive.object(&object).unwrap();
                let mut lost = 0;
                for start in (0..content.len()).step_by(5000) {
                    let end = (start + 5000).min(content.len());
                    match opened.read(ContentRange::between(start as u64, end as u64)) {
                        Ok(found) => {
                            assert!(found.bytes() == &content[start..end], "{encoding:?}, {segment}, byte {at}")
                        }
                        Err(_) => lost += 1,
                    }
                }
                // Only in what is no leaf of the content, damage is not seen by reads.
                assert!(lost > 0 || at > 5000, "{encoding:?}, {segment}, byte {at}: nothing is lost");
            }
            copies.iter().for_each(|copy| fs::write(copy, &bytes).unwrap());
        }
        assert!(read(&fixture.reopened().archive, &object).unwrap() == content);
    }
}
