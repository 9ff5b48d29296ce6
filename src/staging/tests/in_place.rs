//! Files that the kernel writes by itself.

use super::*;
use crate::base::ErrorClass;
use crate::format::{StagedContent, StagedExtent, StagedMap};
use std::fs;
use std::os::unix::fs::FileExt;

fn extents(content: &StagedContent) -> &[StagedExtent] {
    match &content.map {
        StagedMap::Inline(extents) => extents,
        StagedMap::InFile { .. } => panic!("a long map"),
    }
}

#[test]
fn what_the_kernel_wrote_is_the_content_and_what_it_left_out_is_a_hole() {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let area = open(directory.path());
    let file = area.create(0).unwrap();
    let backing = file.backing().unwrap();
    backing.write_all_at(&[1; 8192], 0).unwrap();
    backing.write_all_at(&[2; 100], 65_536).unwrap();
    assert_eq!(file.size(), 65_636);
    assert!(file.is_changed());
    let found = file.refresh().unwrap().unwrap();
    assert_eq!(found.size, 65_636);
    assert!(found.modified.seconds > 0 && found.allocated >= 8292);
    assert_eq!(area.usage().bytes, found.allocated);
    let mut expected = vec![0; 65_636];
    expected[..8192].fill(1);
    expected[65_536..].fill(2);
    assert_eq!(content(&file), expected);
    assert_eq!(file.seek(0, false, &|_, _| None), Some(8192));

    // We write too, as long as it lasts.
    file.write(65_636, b"end").unwrap();
    file.make_hole(range(4096, 8192)).unwrap();
    expected.extend(b"end");
    expected[4096..8192].fill(0);
    assert_eq!(content(&file), expected);

    drop(backing);
    assert_eq!(file.end_passthrough().unwrap().unwrap().size, 65_639);
    assert_eq!(file.end_passthrough().unwrap(), None);
    assert_eq!(content(&file), expected);
    let published = publish_durably(&file);
    assert_eq!(extents(&published.content)[0], StagedExtent { range: range(0, 4096), place: Some(0) });
    assert_eq!(extents(&published.content).len(), 2);
    assert_eq!(file.seek(0, false, &|_, _| None), Some(4096));
    assert!(file.backing().is_none(), "it was published");

    // From now on as any other.
    let frozen = file.freeze().unwrap();
    file.write(0, &[9; 8192]).unwrap();
    let mut bytes = vec![0; expected.len()];
    frozen.read(0, &mut bytes, &mut no_base).unwrap();
    assert_eq!(bytes, expected);
    drop((file, frozen, area));
    let recovered = open(directory.path()).recover(&published.content).unwrap();
    assert_eq!(content(&recovered), expected);
}

#[test]
fn the_first_look_at_a_file_made_ahead_tells_what_the_disk_would() {
    let directory = tempfile::tempdir().unwrap();
    let area = open(directory.path());
    drop(area.create(0).unwrap());
    area.store.settle();
    let file = area.create(0).unwrap();
    let backing = file.backing().unwrap();
    let (first, asked) = (file.refresh().unwrap(), file.refresh().unwrap());
    assert_eq!(first.unwrap().size, 0);
    assert_eq!(first, asked);
    backing.write_all_at(b"news", 0).unwrap();
    assert_eq!(file.refresh().unwrap().unwrap().size, 4);
    drop(backing);

    // Whatever else asks for the file, the next look is at the disk.
    let file = area.create(0).unwrap();
    file.backing().unwrap().write_all_at(b"news", 0).unwrap();
    assert_eq!(file.size(), 4);
    assert_eq!(file.refresh().unwrap().unwrap().size, 4);
    let file = area.create(0).unwrap();
    file.backing().unwrap();
    file.write(0, b"news").unwrap();
    assert_eq!(file.refresh().unwrap().unwrap().size, 4);
}

#[test]
fn only_a_file_that_is_read_from_where_it_lies_is_given_to_the_kernel() {
    let directory = tempfile::tempdir().unwrap();
    let area = open(directory.path());
    assert!(area.create(10).unwrap().backing().is_none(), "it has a base");
    let published = area.create(0).unwrap();
    publish_durably(&published);
    assert!(published.backing().is_none());
    let cut = area.create(10).unwrap();
    cut.truncate(0).unwrap();
    assert!(cut.backing().is_some(), "nothing of the base is left");
}

#[test]
fn the_kernel_sees_the_content_and_nothing_of_what_was_there_before() {
    let directory = tempfile::tempdir().unwrap();
    let file = open(directory.path()).create(0).unwrap();
    file.allocate(range(0, 300_000)).unwrap();
    file.write(0, &[7; 30_000]).unwrap();
    file.truncate(10_001).unwrap();
    file.truncate(50_000).unwrap();
    file.make_hole(range(3, 4_097)).unwrap();
    let expected = content(&file);
    let backing = file.backing().unwrap();
    let mut bytes = vec![0xEE; 60_000];
    assert_eq!(backing.read_at(&mut bytes, 0).unwrap(), 50_000);
    assert_eq!(bytes[..50_000], expected);
    assert_eq!(expected.iter().filter(|&&byte| byte == 7).count(), 10_001 - 4_094);
}

#[test]
fn a_file_published_while_the_kernel_writes_it_is_found_after_a_crash() {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let area = open(directory.path());
    let file = area.create(0).unwrap();
    let backing = file.backing().unwrap();
    backing.write_all_at(&[1; 10_000], 0).unwrap();
    let published = publish_durably(&file);
    assert_eq!(file.freeze().unwrap_err().class(), ErrorClass::Busy);
    backing.write_all_at(&[2; 10], 20_000).unwrap();
    let path = directory.path().join(format!("{}.staged", file.id()));
    let crash = || {
        let copy = tempfile::tempdir_in("/dev/shm").unwrap();
        fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        content(&open(copy.path()).recover(&published.content).unwrap())
    };
    assert_eq!(crash(), [1; 10_000]);
    // Cut in place, and the journal has not heard of it.
    backing.set_len(100).unwrap();
    assert_eq!(crash(), [1; 100]);
    // What was published stays readable after the kernel has let go, whatever is written then.
    backing.set_len(50_000).unwrap();
    let mut published = publish_durably(&file).content;
    drop(backing);
    file.end_passthrough().unwrap();
    let frozen = file.freeze().unwrap();
    for at in 0..200 {
        file.write(at * 777, &[3; 500]).unwrap();
    }
    let mut bytes = vec![0xEE; 50_000];
    frozen.read(0, &mut bytes, &mut no_base).unwrap();
    assert_eq!((&bytes[..100], &bytes[100..]), (&[1; 100][..], &[0; 49_900][..]));
    drop((frozen, file, area));
    published.map = StagedMap::Inline(extents(&published).to_vec());
    let recovered = content(&open(directory.path()).recover(&published).unwrap());
    assert_eq!(recovered, bytes);
}

#[test]
fn a_file_of_many_holes_can_be_published_in_place() {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let file = open(directory.path()).create(0).unwrap();
    let backing = file.backing().unwrap();
    for page in 0..600 {
        backing.write_all_at(b"x", page * 8192).unwrap();
    }
    let published = publish_durably(&file);
    assert_eq!(extents(&published.content).len(), 1);
    drop(backing);
    file.end_passthrough().unwrap();
    let published = publish_durably(&file);
    assert!(matches!(published.content.map, StagedMap::InFile { .. }));
    let bytes = content(&file);
    assert_eq!(bytes.iter().filter(|&&byte| byte == b'x').count(), 600);
}
