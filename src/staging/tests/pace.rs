//! Measurements, for a quiet machine: `cargo test --release --lib staging::tests::pace -- --ignored --nocapture`.

use super::*;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

const FILES: usize = 10_000;
/// What the namespace writes as one group, at about this rate.
const GROUP: usize = 250;

/// Creates, writes 4 KiB, publishes; another thread syncs groups meanwhile.
fn run(area: &Arc<StagingArea>, in_place: bool) -> (Duration, Duration, Duration, Vec<StagedFile>) {
    let (to_sync, groups) = std::sync::mpsc::channel::<Vec<StagedFile>>();
    let syncing = area.clone();
    let thread = std::thread::spawn(move || {
        groups.iter().for_each(|group| assert!(syncing.sync_all(&group).is_empty()));
    });
    let (mut files, mut creating, mut slowest) = (Vec::new(), Duration::ZERO, Duration::ZERO);
    let begun = Instant::now();
    for number in 0..FILES {
        let create = Instant::now();
        let file = area.create(0).unwrap();
        let backing = in_place.then(|| file.backing().unwrap());
        if in_place {
            file.refresh().unwrap();
        }
        creating += create.elapsed();
        slowest = slowest.max(create.elapsed());
        match backing {
            Some(backing) => {
                backing.write_all_at(&[1; 4096], 0).unwrap();
                drop(backing);
                file.end_passthrough().unwrap();
            }
            None => file.write(0, &[1; 4096]).unwrap(),
        }
        file.publish().unwrap();
        files.push(file);
        if number % GROUP == GROUP - 1 {
            to_sync.send(files[number + 1 - GROUP..].to_vec()).unwrap();
        }
    }
    let all = begun.elapsed();
    drop(to_sync);
    thread.join().unwrap();
    (creating, slowest, all, files)
}

#[test]
#[ignore = "a measurement"]
fn how_long_creating_takes() {
    let kinds = if keys().is_some() { &[false][..] } else { &[false, true] };
    for &in_place in kinds {
        let above = std::env::var_os("PACE_DIRECTORY").map_or_else(std::env::temp_dir, Into::into);
        let directory = tempfile::tempdir_in(above).unwrap();
        let area = open(directory.path());
        for round in ["new", "recycled"] {
            let (creating, slowest, all, files) = run(&area, in_place);
            let begun = Instant::now();
            files.iter().for_each(StagedFile::discard);
            drop(files);
            let dropping = begun.elapsed() / FILES as u32;
            println!(
                "in place {in_place}, {round}: create {:?} (slowest {slowest:?}), create+write+publish {:?}, drop {dropping:?} a file",
                creating / FILES as u32,
                all / FILES as u32
            );
        }
    }
}

/// Bytes per second that are written and read back in pieces of 128 KiB, a multiple of units or not.
#[test]
#[ignore = "a measurement"]
fn how_fast_bytes_go_through() {
    const FILE: u64 = 1 << 30;
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let area = open(directory.path());
    for len in [128 << 10, (128 << 10) - 1, 4096] {
        let file = area.create(0).unwrap();
        let mut buffer = vec![1; len];
        let steps = FILE / len as u64;
        let mut rate = |step: &mut dyn FnMut(u64, &mut [u8])| {
            let begun = Instant::now();
            (0..steps).for_each(|number| step(number * len as u64, &mut buffer));
            (steps * len as u64) as f64 / begun.elapsed().as_secs_f64() / 1e9
        };
        let written = rate(&mut |at, bytes| file.write(at, bytes).unwrap());
        let again = rate(&mut |at, bytes| file.write(at, bytes).unwrap());
        let read = rate(&mut |at, bytes| assert_eq!(file.read(at, bytes, &mut no_base).unwrap(), bytes.len()));
        println!("pieces of {len}: written {written:.2} GB/s, once more {again:.2} GB/s, read {read:.2} GB/s");
    }
}
