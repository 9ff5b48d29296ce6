//! One file.

use super::*;
use crate::format::StagedMap;

#[test]
fn what_is_written_one_behind_the_other_is_one_extent_where_it_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let file = open(directory.path()).create(0).unwrap();
    // Whole units: bytes that would share one with published bytes lie elsewhere.
    let len = if keys().is_some() { 1008 } else { 1000 };
    for at in 0..100 {
        file.write(at * len, &vec![at as u8; len as usize]).unwrap();
        if at % 7 == 0 {
            publish_durably(&file);
        }
    }
    let published = file.publish().unwrap();
    let StagedMap::Inline(extents) = published.content.map else { panic!("a long map") };
    assert_eq!(extents, [crate::format::StagedExtent { range: range(0, 100 * len), place: Some(0) }]);
}

#[test]
fn a_long_map_lies_in_the_file_and_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let area = open(directory.path());
    let file = area.create(0).unwrap();
    let mut published = publish_durably(&file);
    for round in 0..3u8 {
        // Backwards, so that nothing coalesces.
        for at in (0..2000).rev() {
            file.write(at * 100, &[round + 1; 50]).unwrap();
        }
        published = publish_durably(&file);
        assert!(matches!(published.content.map, StagedMap::InFile { .. }));
        // Room of the rounds before is used again.
        assert!(area.usage().bytes < 2000 * 50 * 2 + 40_000, "{:?}", area.usage());
    }
    let expected = content(&file);
    file.write(0, &[9; 200_000]).unwrap();
    file.publish().unwrap();
    drop((file, area));
    let area = open(directory.path());
    let file = area.recover(&published.content).unwrap();
    assert_eq!(content(&file), expected);
    drop(file);

    let path = directory.path().join(format!("{}.staged", published.content.file));
    let StagedMap::InFile { offset, .. } = published.content.map else { unreachable!() };
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[offset as usize + 5] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let error = area.recover(&published.content).unwrap_err();
    assert_eq!(error.class(), crate::base::ErrorClass::Unrecoverable);
}

#[test]
fn room_of_older_states_is_used_again_and_the_disk_has_the_rest_back() {
    use std::os::unix::fs::MetadataExt;
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let area = open(directory.path());
    let file = area.create(0).unwrap();
    for round in 0..20u8 {
        file.write(0, &vec![round; 1 << 20]).unwrap();
        publish_durably(&file);
    }
    assert_eq!(area.usage().bytes, 1 << 20);
    let path = directory.path().join(format!("{}.staged", file.id()));
    let metadata = std::fs::metadata(path).unwrap();
    assert!(metadata.len() <= 2 << 20, "{} bytes long", metadata.len());
    assert_eq!(metadata.blocks() * 512, 1 << 20);
}

#[test]
fn only_what_differs_from_the_published_state_is_a_change() {
    let directory = tempfile::tempdir().unwrap();
    let file = open(directory.path()).create(100).unwrap();
    assert!(!file.is_changed());
    file.truncate(100).unwrap();
    file.make_hole(range(100, 200)).unwrap();
    file.allocate(range(0, 200)).unwrap();
    file.write(50, b"").unwrap();
    assert!(!file.is_changed());
    for change in [
        &|file: &StagedFile| file.write(0, b"x").unwrap() as _,
        &|file: &StagedFile| file.truncate(99).unwrap(),
        &|file: &StagedFile| file.make_hole(range(5, 6)).unwrap(),
    ] as [&dyn Fn(&StagedFile); 3]
    {
        change(&file);
        assert!(file.is_changed());
        publish_durably(&file);
        assert!(!file.is_changed());
    }
}

#[test]
fn what_grows_after_it_was_cut_is_zeros_and_not_the_base_again() {
    let directory = tempfile::tempdir().unwrap();
    let file = open(directory.path()).create(100).unwrap();
    file.truncate(40).unwrap();
    file.truncate(100).unwrap();
    let mut bytes = [0xEE; 100];
    let mut base = |range: ContentRange, buffer: &mut [u8]| {
        assert!(range.end() <= 40);
        buffer.fill(7);
        Ok::<(), StagingError>(())
    };
    file.read(0, &mut bytes, &mut base).unwrap();
    assert_eq!((&bytes[..40], &bytes[40..]), (&[7; 40][..], &[0; 60][..]));
    assert_eq!(publish_durably(&file).content.base_len, 40);
}

#[test]
fn blocks_are_counted_for_what_is_staged_reserved_and_of_the_base() {
    let directory = tempfile::tempdir().unwrap();
    let file = open(directory.path()).create(100_000).unwrap();
    let base = |range: ContentRange| range.len() / 2;
    assert_eq!(file.allocated(&base), 50_000);
    file.write(0, &[1; 20_000]).unwrap();
    assert_eq!(file.allocated(&base), 60_000);
    file.make_hole(range(10_000, 40_000)).unwrap();
    assert_eq!(file.allocated(&base), 40_000);
    file.allocate(range(200_000, 201_000)).unwrap();
    assert_eq!(file.allocated(&base), 41_000);
    file.write(200_000, &[1; 1000]).unwrap();
    assert_eq!(file.allocated(&base), 41_000);
}

#[test]
fn offsets_that_no_file_can_have_are_refused() {
    use crate::base::ErrorClass;
    let directory = tempfile::tempdir().unwrap();
    let file = open(directory.path()).create(0).unwrap();
    assert_eq!(file.write(u64::MAX, b"x").unwrap_err().class(), ErrorClass::TooLarge);
    assert_eq!(file.write(i64::MAX as u64, b"x").unwrap_err().class(), ErrorClass::TooLarge);
    assert_eq!(file.truncate(1 << 63).unwrap_err().class(), ErrorClass::TooLarge);
    // Longer than the disk's filesystem knows files to be, with little in it.
    file.write((1 << 62) + 5, b"far").unwrap();
    let mut bytes = [0; 10];
    assert_eq!(file.read(1 << 62, &mut bytes, &mut no_base).unwrap(), 8);
    assert_eq!(&bytes, b"\0\0\0\0\0far\0\0");
    assert_eq!(file.seek(0, true, &|_, _| None), Some((1 << 62) + 5));
}

#[test]
fn readers_see_whole_writes_of_other_threads() {
    let directory = tempfile::tempdir().unwrap();
    let file = open(directory.path()).create(0).unwrap();
    file.write(0, &[0; 20_000]).unwrap();
    let rounds = 200u8;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let bytes = content(&file);
                    assert!(bytes.iter().all(|byte| *byte == bytes[0]), "half of a write was read");
                    if bytes[0] == rounds {
                        break;
                    }
                }
            });
        }
        for round in 1..=rounds {
            file.write(0, &[round; 20_000]).unwrap();
            if round % 3 == 0 {
                publish_durably(&file);
            }
        }
    });
}

#[test]
fn a_small_file_takes_less_than_a_kilobyte_of_memory() {
    // The map's one node (11 pieces), the published state with its extent, two levels of open file.
    let map_node = 11 * (8 + 24) + 16;
    let published = size_of::<crate::staging::state::PublishedState>() + size_of::<crate::format::StagedExtent>() + 16;
    let handle = 16 + 16 + 8;
    let inner = size_of::<crate::staging::file::Inner>() + 16;
    assert!(inner + map_node + published + handle < 1024, "{inner} + {map_node} + {published} + {handle}");
}
