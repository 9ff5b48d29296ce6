//! A disk that fails, or is full.

use super::*;
use crate::base::ErrorClass;
use crate::staging::raw::RawFile;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

const ENOSPC: i32 = rustix::io::Errno::NOSPC.raw_os_error();
const EIO: i32 = rustix::io::Errno::IO.raw_os_error();

/// What the disk says; 0: all is well.
#[derive(Debug, Default)]
struct Faults {
    write: AtomicI32,
    sync: AtomicI32,
    syncs: AtomicUsize,
}

#[derive(Debug)]
struct Faulty {
    file: Arc<File>,
    faults: Arc<Faults>,
}

fn say(code: &AtomicI32) -> io::Result<()> {
    match code.load(Ordering::Relaxed) {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

impl RawFile for Faulty {
    fn file(&self) -> &Arc<File> {
        &self.file
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        if let Err(error) = say(&self.faults.write) {
            // Half of it got there.
            self.file.write_all_at(&bytes[..bytes.len() / 2], offset)?;
            return Err(error);
        }
        self.file.write_all_at(bytes, offset)
    }

    fn allocate(&self, _: u64, _: u64) -> io::Result<()> {
        say(&self.faults.write)
    }

    fn sync(&self) -> io::Result<()> {
        self.faults.syncs.fetch_add(1, Ordering::Relaxed);
        say(&self.faults.sync)
    }
}

fn faulty() -> (tempfile::TempDir, Arc<StagingArea>, Arc<Faults>) {
    let directory = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let told = faults.clone();
    let wrap = Box::new(move |file| Arc::new(Faulty { file, faults: told.clone() }) as Arc<dyn RawFile>);
    let area = StagingArea::open_with(directory.path(), PLENTY, 100, keys(), wrap).unwrap();
    (directory, area, faults)
}

fn class<T: std::fmt::Debug>(result: Result<T, StagingError>) -> ErrorClass {
    result.unwrap_err().class()
}

#[test]
fn a_full_disk_is_told_and_forgotten_and_published_bytes_do_not_suffer() {
    let (_directory, area, faults) = faulty();
    let file = area.create(0).unwrap();
    file.write(0, &[1; 10_000]).unwrap();
    publish_durably(&file);
    let used = area.usage().bytes;
    faults.write.store(ENOSPC, Ordering::Relaxed);
    assert_eq!(class(file.write(5_000, &[2; 10_000])), ErrorClass::NoSpace);
    assert_eq!(class(file.allocate(range(20_000, 30_000))), ErrorClass::NoSpace);
    assert_eq!(content(&file), [1; 10_000]);
    assert!(!file.is_changed());
    assert_eq!(area.usage().bytes, used);
    faults.write.store(0, Ordering::Relaxed);
    file.write(5_000, &[3; 5_000]).unwrap();
    publish_durably(&file);
    assert_eq!(content(&file)[4_999..5_001], [1, 3]);
}

#[test]
fn a_long_map_that_finds_no_room_leaves_the_old_state_published() {
    let (_directory, area, faults) = faulty();
    let file = area.create(0).unwrap();
    file.write(0, b"old").unwrap();
    let old = publish_durably(&file);
    for at in 1..1000 {
        file.write(at * 100, b"new").unwrap();
    }
    faults.write.store(ENOSPC, Ordering::Relaxed);
    let used = area.usage().bytes;
    assert_eq!(class(file.publish()), ErrorClass::NoSpace);
    assert_eq!(area.usage().bytes, used);
    assert_eq!(file.freeze().unwrap().content(), &old.content);
    faults.write.store(0, Ordering::Relaxed);
    let new = publish_durably(&file);
    assert!(new.generation > old.generation);
}

#[test]
fn after_a_failed_write_the_file_takes_nothing_more() {
    let (_directory, area, faults) = faulty();
    let file = area.create(0).unwrap();
    file.write(0, b"good").unwrap();
    publish_durably(&file);
    faults.write.store(EIO, Ordering::Relaxed);
    assert_eq!(class(file.write(4, b"bad")), ErrorClass::Unavailable);
    faults.write.store(0, Ordering::Relaxed);
    assert_eq!(class(file.write(4, b"bad")), ErrorClass::Latched);
    assert_eq!(class(file.truncate(0)), ErrorClass::Latched);
    assert_eq!(class(file.make_hole(range(0, 1))), ErrorClass::Latched);
    assert_eq!(class(file.allocate(range(0, 1))), ErrorClass::Latched);
    assert_eq!(class(file.publish()), ErrorClass::Latched);
    assert_eq!(class(file.freeze()), ErrorClass::Latched);
    let syncs = faults.syncs.load(Ordering::Relaxed);
    assert_eq!(class(file.sync()), ErrorClass::Latched);
    assert_eq!(faults.syncs.load(Ordering::Relaxed), syncs);
    assert_eq!(content(&file), b"good");
    // Another file is another matter.
    let other = area.create(0).unwrap();
    other.write(0, b"other").unwrap();
    publish_durably(&other);
}

#[test]
fn a_failed_sync_is_never_tried_again() {
    let (directory, area, faults) = faulty();
    let file = area.create(0).unwrap();
    file.write(0, b"lost").unwrap();
    file.publish().unwrap();
    faults.sync.store(EIO, Ordering::Relaxed);
    assert_eq!(class(file.sync()), ErrorClass::Unavailable);
    faults.sync.store(0, Ordering::Relaxed);
    for _ in 0..3 {
        assert_eq!(class(file.sync()), ErrorClass::Latched);
    }
    assert_eq!(faults.syncs.load(Ordering::Relaxed), 1);
    assert_eq!(class(file.write(0, b"more")), ErrorClass::Latched);
    // Its blocks serve nobody else.
    file.discard();
    let name = format!("{}.staged", file.id());
    drop(file);
    area.store.settle();
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 1 + area.store.ready().len());
    assert!(left.iter().all(|left| *left != *name));
}

#[test]
fn a_file_without_news_is_not_synced_again() {
    let (_directory, area, faults) = faulty();
    let file = area.create(0).unwrap();
    file.write(0, b"x").unwrap();
    let published = publish_durably(&file);
    assert_eq!(publish_durably(&file), published);
    assert_eq!(faults.syncs.load(Ordering::Relaxed), 1);
}

#[test]
fn files_synced_together_are_durable_or_named() {
    let (_directory, area, faults) = faulty();
    for count in [3, 40] {
        let files: Vec<StagedFile> = (0..count)
            .map(|number| {
                let file = area.create(0).unwrap();
                file.write(0, &[number; 100]).unwrap();
                file.publish().unwrap();
                file
            })
            .collect();
        let twice = [&files[..], &files[..1]].concat();
        assert!(area.sync_all(&twice).is_empty());
        assert!(area.sync_all(&files).is_empty());
        let together = if count == 3 { 3 } else { 0 };
        assert_eq!(faults.syncs.swap(0, Ordering::Relaxed), together, "of {count} files");
        faults.sync.store(EIO, Ordering::Relaxed);
        files[1].write(0, b"lost").unwrap();
        let failed = area.sync_all(&files);
        assert_eq!(failed.iter().map(|(file, _)| file.id()).collect::<Vec<_>>(), [files[1].id()]);
        faults.sync.store(0, Ordering::Relaxed);
        assert_eq!(area.sync_all(&files)[0].1.class(), ErrorClass::Latched);
        faults.syncs.store(0, Ordering::Relaxed);
    }
}

#[test]
fn files_that_the_kernel_writes_are_not_synced_one_by_one_after_their_filesystem() {
    let (_directory, area, faults) = faulty();
    let files: Vec<StagedFile> = (0..40).map(|_| area.create(0).unwrap()).collect();
    if area.is_encrypted() {
        assert!(files[0].backing().is_none(), "the kernel would write what it is given");
        return;
    }
    for file in &files {
        let backing = file.backing().unwrap();
        std::os::unix::fs::FileExt::write_all_at(&*backing, b"bytes", 0).unwrap();
        file.publish().unwrap();
    }
    assert!(area.sync_all(&files).is_empty());
    assert_eq!(faults.syncs.load(Ordering::Relaxed), 0, "while the kernel has them");
    for file in &files {
        file.end_passthrough().unwrap();
        file.publish().unwrap();
    }
    assert!(area.sync_all(&files).is_empty());
    assert!(files.iter().all(|file| file.sync().is_ok()));
    assert_eq!(faults.syncs.load(Ordering::Relaxed), 0, "closed and synced");
    // What was written since the sync is not known to be on the disk.
    files[0].write(0, b"news").unwrap();
    publish_durably(&files[0]);
    assert_eq!(faults.syncs.load(Ordering::Relaxed), 1);
}

#[test]
fn a_disk_that_makes_no_files_ahead_is_told_of_by_who_needs_one() {
    let (directory, area, _faults) = faulty();
    let file = area.create(0).unwrap();
    area.store.settle();
    let ready = area.store.ready().len();
    assert!(ready > 0);
    std::fs::remove_dir_all(directory.path()).unwrap();
    // Those that are there are given out; the thread fails quietly.
    let files: Vec<_> = (0..ready).map(|_| area.create(0).unwrap()).collect();
    area.store.settle();
    assert!(area.store.ready().is_empty());
    assert_eq!(class(area.create(0)), ErrorClass::Unavailable);
    drop((files, file));
}
