//! What the disk has of an encrypted area.

use super::*;
use crate::base::ErrorClass;
use crate::format::StagedMap;
use std::fs;

const MARKER: &[u8; 16] = b"MARKER readable!";

/// Everything in the directory, names too.
fn everything(directory: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        all.extend(entry.file_name().as_encoded_bytes());
        all.extend(fs::read(entry.path()).unwrap());
    }
    all
}

fn shows(directory: &Path, marker: &[u8]) -> bool {
    everything(directory).windows(marker.len()).any(|bytes| bytes == marker)
}

/// One of everything that leaves bytes in the directory.
fn use_it(area: &Arc<StagingArea>) -> Vec<(StagedFile, crate::format::StagedContent, Vec<u8>)> {
    let mut files = Vec::new();
    for skew in [0u64, 1, 5, 16, 4093] {
        let file = area.create(0).unwrap();
        for at in 0..1000 {
            file.write(skew + at * 48, MARKER).unwrap();
        }
        file.allocate(range(100_000, 200_000)).unwrap();
        file.write(150_001, MARKER).unwrap();
        file.make_hole(range(1_000, 9_000)).unwrap();
        file.truncate(160_003).unwrap();
        let published = publish_durably(&file);
        assert!(matches!(published.content.map, StagedMap::InFile { .. }));
        let bytes = content(&file);
        assert!(bytes.windows(MARKER.len()).any(|window| window == MARKER));
        // Written, and not published; written, and let go.
        file.write(300_000, &MARKER.repeat(1000)).unwrap();
        let gone = area.create(0).unwrap();
        gone.write(skew, &MARKER.repeat(100)).unwrap();
        gone.discard();
        files.push((file, published.content, bytes));
    }
    area.store.settle();
    files
}

#[test]
fn nothing_that_is_written_can_be_read_on_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let area = open(directory.path());
    let files = use_it(&area);
    assert!(!shows(directory.path(), MARKER));
    // The map of a long list of extents is among it: the lengths are all 16, the steps 48.
    let StagedMap::InFile { len, .. } = files[0].1.map else { panic!() };
    assert!(len > 600);

    // The search finds what is there.
    let plain = tempfile::tempdir().unwrap();
    let _files = use_it(&StagingArea::open(plain.path(), PLENTY, None).unwrap());
    assert!(shows(plain.path(), MARKER));
}

#[test]
fn published_states_come_back_with_the_keys_and_not_without() {
    let directory = tempfile::tempdir().unwrap();
    let area = open(directory.path());
    let long: Vec<_> = use_it(&area)
        .into_iter()
        .map(|(file, content, bytes)| {
            drop(file);
            (content, bytes)
        })
        .collect();
    let short = area.create(0).unwrap();
    short.write(3, &[7; 10_000]).unwrap();
    let short_content = publish_durably(&short).content;
    drop((short, area));
    for keys in [None, Some(keys_of(2))] {
        let area = StagingArea::open(directory.path(), PLENTY, keys).unwrap();
        for (published, _) in &long {
            assert_eq!(area.recover(published).unwrap_err().class(), ErrorClass::Unrecoverable, "its map is no map");
        }
        let other = content(&area.recover(&short_content).unwrap());
        assert!(other.iter().filter(|&&byte| byte == 7).count() < 200);
    }
    let area = open(directory.path());
    for (published, bytes) in &long {
        assert!(content(&area.recover(published).unwrap()) == *bytes);
    }
    assert_eq!(content(&area.recover(&short_content).unwrap())[3..], [7; 10_000]);
}

#[test]
fn a_file_cut_behind_our_back_is_damage_not_the_kernels_work() {
    let directory = tempfile::tempdir().unwrap();
    let area = open(directory.path());
    let file = area.create(0).unwrap();
    file.write(0, &[1; 10_000]).unwrap();
    let published = publish_durably(&file).content;
    let path = directory.path().join(format!("{}.staged", file.id()));
    drop((file, area));
    fs::File::options().write(true).open(path).unwrap().set_len(4096).unwrap();
    assert_eq!(open(directory.path()).recover(&published).unwrap_err().class(), ErrorClass::Unrecoverable);
}

#[test]
fn the_same_content_is_different_in_every_file() {
    let directory = tempfile::tempdir().unwrap();
    let area = open(directory.path());
    let files: Vec<StagedFile> = (0..2).map(|_| area.create(0).unwrap()).collect();
    let stored = files.iter().map(|file| {
        file.write(0, &[0; 4096]).unwrap();
        publish_durably(file);
        fs::read(directory.path().join(format!("{}.staged", file.id()))).unwrap()
    });
    let stored: Vec<Vec<u8>> = stored.collect();
    assert!(stored[0].chunks(16).zip(stored[1].chunks(16)).all(|(first, second)| first != second));
}

#[test]
fn keys_are_not_printed() {
    let text = format!("{:?} {:?}", the_keys(), open(tempfile::tempdir().unwrap().path()));
    assert!(!text.contains("[1, 1") && text.contains("Secret<32>"), "{text}");
}
