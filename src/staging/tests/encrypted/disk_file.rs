//! An encrypted file behaves as a plain one that is as long as whole units.

use super::*;
use crate::format::StagingId;
use crate::staging::encrypted::{EncryptedFile, UNIT};
use crate::staging::raw::{DiskFile, RawFile};
use proptest::prelude::*;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const LONGEST: u64 = 700_000;

#[derive(Debug, Clone)]
enum Step {
    Write { at: u64, len: u64 },
    Punch { at: u64, len: u64 },
    Allocate { at: u64, len: u64 },
    SetLen(u64),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let len = prop_oneof![4 => 1u64..50, 2 => 1u64..9000, 1 => 250_000u64..300_000];
    // Near each other often, so that units are shared.
    let at = prop_oneof![0u64..300, 3900u64..4300, 261_000u64..264_000, 0..LONGEST - 300_000];
    let step = prop_oneof![
        6 => (at.clone(), len.clone()).prop_map(|(at, len)| Step::Write { at, len }),
        2 => (at.clone(), len.clone()).prop_map(|(at, len)| Step::Punch { at, len }),
        1 => (at.clone(), len).prop_map(|(at, len)| Step::Allocate { at, len }),
        2 => at.prop_map(Step::SetLen),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..50)
}

fn disk_file() -> (tempfile::TempDir, Arc<File>) {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let file = File::options().create_new(true).read(true).write(true).open(directory.path().join("file")).unwrap();
    (directory, Arc::new(file))
}

fn encrypted(file: &Arc<File>, keys: &StagingKeys, id: u64) -> EncryptedFile {
    keys.encrypted(StagingId::new(id), Arc::new(DiskFile(file.clone())))
}

fn read(file: &EncryptedFile, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xEE; len];
    file.read_exact_at(&mut bytes, at).unwrap();
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn it_is_a_vector_of_bytes(steps in steps(), reads in proptest::collection::vec((0..LONGEST, 1usize..300_000), 20)) {
        let (_directory, disk) = disk_file();
        let mut file = encrypted(&disk, &the_keys(), 7);
        let mut model: Vec<u8> = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Write { at, len } => {
                    let data: Vec<u8> = (0..len).map(|at| (at as usize * 31 + number * 7919) as u8).collect();
                    file.write_all_at(&data, at).unwrap();
                    let (at, end) = (at as usize, (at + len) as usize);
                    model.resize(model.len().max(end), 0);
                    model[at..end].copy_from_slice(&data);
                }
                Step::Punch { at, len } => {
                    file.punch(at, len).unwrap();
                    let (at, end) = (model.len().min(at as usize), model.len().min((at + len) as usize));
                    model[at..end].fill(0);
                }
                Step::Allocate { at, len } => file.allocate(at, len).unwrap(),
                Step::SetLen(len) => {
                    file.set_len(len).unwrap();
                    model.resize(len as usize, 0);
                }
                Step::Reopen => file = encrypted(&disk, &the_keys(), 7),
            }
            let len = (model.len() as u64).next_multiple_of(UNIT);
            prop_assert_eq!(file.metadata().unwrap().len(), len);
            let mut expected = model.clone();
            expected.resize(len as usize, 0);
            let bytes = read(&file, 0, expected.len());
            prop_assert!(bytes == expected, "step {number}: differs at {:?}", (0..bytes.len()).find(|&at| bytes[at] != expected[at]));
        }
        for (at, len) in reads {
            let at = (at as usize).min(model.len());
            let len = len.min(model.len() - at);
            prop_assert!(read(&file, at as u64, len) == model[at..at + len]);
        }
        let mut byte = [0];
        let behind = file.read_exact_at(&mut byte, (model.len() as u64).next_multiple_of(UNIT));
        prop_assert_eq!(behind.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}

#[test]
fn a_hole_reads_as_zeros_and_written_zeros_are_no_hole() {
    let (_directory, disk) = disk_file();
    let file = encrypted(&disk, &the_keys(), 1);
    file.set_len(100_000).unwrap();
    assert_eq!(read(&file, 0, 100_000), [0; 100_000]);
    file.write_all_at(&[0; 5000], 20).unwrap();
    let mut stored = vec![0; 100_000];
    disk.read_exact_at(&mut stored, 0).unwrap();
    assert!(stored[16..5024].chunks(16).all(|unit| unit != [0; 16]), "written, so encrypted");
    assert!(stored[..16].iter().chain(&stored[5024..]).all(|&byte| byte == 0), "not written, so not there");
    assert_eq!(read(&file, 0, 100_000), [0; 100_000]);
}

#[test]
fn only_the_units_that_a_write_touches_change_on_the_disk() {
    let (_directory, disk) = disk_file();
    let file = encrypted(&disk, &the_keys(), 1);
    file.write_all_at(&[1; 8192], 0).unwrap();
    let stored = || {
        let mut bytes = vec![0; 8192];
        disk.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    };
    let before = stored();
    file.write_all_at(&[2; 40], 4090).unwrap();
    let after = stored();
    let changed: Vec<usize> = (0..512).filter(|&unit| before[unit * 16..][..16] != after[unit * 16..][..16]).collect();
    assert_eq!(changed, [255, 256, 257, 258]);
    file.write_all_at(&[1; 40], 4090).unwrap();
    assert!(stored() == before, "the same bytes at the same place are the same on the disk");
}

#[test]
fn another_key_and_another_file_read_something_else() {
    let (_directory, disk) = disk_file();
    encrypted(&disk, &the_keys(), 1).write_all_at(&[5; 4096], 0).unwrap();
    for other in [encrypted(&disk, &keys_of(2), 1), encrypted(&disk, &the_keys(), 2)] {
        let bytes = read(&other, 0, 4096);
        assert!(bytes.chunks(16).all(|unit| unit != [5; 16]));
    }
    assert_eq!(read(&encrypted(&disk, &the_keys(), 1), 0, 4096), [5; 4096]);
}

#[test]
fn a_unit_that_is_cut_is_not_read_and_can_be_written() {
    let (_directory, disk) = disk_file();
    let file = encrypted(&disk, &the_keys(), 1);
    file.write_all_at(&[5; 64], 0).unwrap();
    disk.set_len(50).unwrap();
    assert_eq!(read(&file, 0, 48), [5; 48]);
    let mut bytes = [0; 50];
    assert_eq!(file.read_exact_at(&mut bytes, 0).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    // A write that failed left it; nothing of it was told to be there.
    file.write_all_at(&[6; 4], 50).unwrap();
    assert_eq!(read(&file, 0, 64), [&[5; 48][..], &[0; 2], &[6; 4], &[0; 10]].concat());
}

#[test]
fn places_at_the_end_of_all_numbers_are_errors() {
    let (_directory, disk) = disk_file();
    let file = encrypted(&disk, &the_keys(), 1);
    assert!(file.write_all_at(&[1; 10], u64::MAX - 3).is_err());
    assert!(file.write_all_at(&[1; 10], u64::MAX - 12).is_err());
    assert!(file.set_len(u64::MAX).is_err());
    assert!(file.punch(u64::MAX - 3, 2).is_err());
    assert!(file.allocate(u64::MAX - 3, 9).is_err());
}
