//! The directory: ids, reuse, what is left over, descriptors, the quota.

use super::*;
use crate::base::ErrorClass;
use crate::format::{StagedContent, StagedMap, StagingId};
use crate::staging::StagingUsage;
use crate::staging::raw::DiskFile;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;
use std::time::Duration;

/// How many names there are of files in use, and how many of files kept for reuse.
fn names(area: &StagingArea, directory: &Path) -> (usize, usize) {
    area.store.settle();
    let count = |part| {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
        entries.filter(|name| name.to_str().unwrap().contains(part)).count()
    };
    (count(".staged") - area.store.ready().len(), count("free-"))
}

#[test]
fn the_directory_is_for_its_owner_alone() {
    let above = tempfile::tempdir().unwrap();
    let directory = above.path().join("staging");
    open(&directory);
    assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn ids_are_never_used_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut seen = HashSet::new();
    let mut highest = 0;
    for run in 0..5 {
        let area = open(directory.path());
        for _ in 0..20 {
            let file = area.create(0).unwrap();
            assert!(seen.insert(file.id()) && file.id().get() > highest, "run {run}");
            highest = file.id().get();
            file.write(0, b"x").unwrap();
        }
        if run == 2 {
            // Even when nothing in the directory tells of them.
            for entry in fs::read_dir(directory.path()).unwrap() {
                let path = entry.unwrap().path();
                if path.file_name().unwrap() != "next-id" {
                    fs::remove_file(path).unwrap();
                }
            }
        }
    }
}

#[test]
fn an_id_that_the_journal_names_is_not_given_though_the_counter_was_lost() {
    let directory = tempfile::tempdir().unwrap();
    let area = open(directory.path());
    let file = area.create(0).unwrap();
    let published = publish_durably(&file);
    drop((file, area));
    fs::remove_file(directory.path().join("next-id")).unwrap();
    let area = open(directory.path());
    let file = area.recover(&published.content).unwrap();
    assert!(area.create(0).unwrap().id() > file.id());
}

#[test]
fn a_damaged_counter_is_told_of_and_not_guessed() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).create(0).unwrap();
    for bytes in [&b""[..], b"x", b"-1", b"99999999999999999999999"] {
        fs::write(directory.path().join("next-id"), bytes).unwrap();
        assert_eq!(StagingArea::open(directory.path(), PLENTY, keys()).unwrap_err().class(), ErrorClass::Damaged);
    }
}

#[test]
fn a_discarded_file_serves_again_empty() {
    let directory = tempfile::tempdir().unwrap();
    let area = open(directory.path());
    let first = area.create(0).unwrap();
    first.write(0, &[7; 100_000]).unwrap();
    publish_durably(&first);
    let frozen = first.freeze().unwrap();
    first.discard();
    let id = first.id();
    drop(first);
    assert_eq!(names(&area, directory.path()), (1, 0), "a reader has it");
    let mut byte = [0];
    frozen.read(99_999, &mut byte, &mut no_base).unwrap();
    assert_eq!(byte, [7]);
    drop(frozen);
    assert_eq!(names(&area, directory.path()), (0, 1));
    assert_eq!(area.usage(), StagingUsage { files: 0, bytes: 0, quota: PLENTY.quota });

    // It is one of these.
    let mut files = Vec::new();
    while names(&area, directory.path()).1 > 0 || area.store.ready().len() > 100 {
        files.push(area.create(0).unwrap());
    }
    for file in &files {
        assert!(file.id() > id);
        file.truncate(100_000).unwrap();
        assert_eq!(content(file), [0; 100_000]);
    }
    // After a restart too, together with those that were made ahead.
    drop((files, area));
    let count = || fs::read_dir(directory.path()).unwrap().count();
    let before = count();
    let area = open(directory.path());
    let file = area.create(0).unwrap();
    let (in_use, kept) = names(&area, directory.path());
    assert_eq!(in_use, 1);
    assert!(kept > 0);
    assert_eq!(count(), before);
    drop(file);
}

#[test]
fn ids_are_given_in_order_and_once_whoever_makes_the_files() {
    let directory = tempfile::tempdir().unwrap();
    let area = open(directory.path());
    let given = Mutex::new(HashSet::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut highest = 0;
                for number in 0..1000 {
                    let file = area.create(0).unwrap();
                    assert!(file.id().get() > highest);
                    highest = file.id().get();
                    assert!(given.lock().unwrap().insert(highest));
                    assert_eq!(file.write(0, b"x").and(file.sync()).map_err(|error| error.to_string()), Ok(()));
                    if number % 3 == 0 {
                        // It is emptied while others are made.
                        file.discard();
                    }
                }
            });
        }
    });
    assert_eq!(given.lock().unwrap().len(), 4000);
    area.store.settle();
    let ready = area.store.ready();
    assert!(ready.is_sorted() && !ready.is_empty());
    assert!(ready[0].get() > *given.lock().unwrap().iter().max().unwrap());
}

#[test]
fn files_made_ahead_are_nobodys_leftovers_until_the_process_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let area = open(directory.path());
    let file = area.create(0).unwrap();
    file.write(0, b"kept").unwrap();
    let published = publish_durably(&file).content;
    area.store.settle();
    let ready = area.store.ready();
    assert_eq!(area.usage().files, 1);
    assert_eq!(area.discard_unclaimed().unwrap(), 0);
    assert_eq!(area.store.ready(), ready);
    assert_eq!(names(&area, directory.path()), (1, 0));

    // A crash: another process finds what is there now, whatever this one does later.
    let crashed = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(directory.path()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), crashed.path().join(entry.file_name())).unwrap();
    }
    let after = open(crashed.path());
    let recovered = after.recover(&published).unwrap();
    // Empty ones held no writes.
    assert_eq!(after.discard_unclaimed().unwrap(), 0);
    assert_eq!(names(&after, crashed.path()), (1, ready.len()));
    assert!(after.create(0).unwrap().id() > *ready.last().unwrap());
    assert_eq!(content(&recovered), b"kept");

    // An orderly end.
    drop((file, area));
    assert_eq!(names(&open(directory.path()), directory.path()), (1, ready.len()));
}

#[test]
fn the_first_of_many_files_made_ahead_hold_what_is_written_to_them() {
    let directory = tempfile::tempdir().unwrap();
    let area = open(directory.path());
    drop(area.create(0).unwrap());
    area.store.settle();
    let ready = area.store.ready();
    let files: Vec<_> = ready.iter().map(|_| area.create(0).unwrap()).collect();
    assert!(files.iter().map(StagedFile::id).eq(ready));
    for file in &files {
        file.write(0, &file.id().get().to_le_bytes()).unwrap();
    }
    let published: Vec<_> = files.iter().map(|file| (file.id(), publish_durably(file).content)).collect();
    drop((files, area));
    let area = open(directory.path());
    for (id, published) in published {
        assert_eq!(content(&area.recover(&published).unwrap()), id.get().to_le_bytes());
    }
}

#[test]
fn what_nobody_claims_is_discarded_and_what_is_in_use_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let area = open(directory.path());
    let files: Vec<_> = (0..5u8)
        .map(|byte| {
            let file = area.create(0).unwrap();
            file.write(0, &[byte; 5000]).unwrap();
            (publish_durably(&file), file)
        })
        .collect();
    let contents: Vec<StagedContent> = files.iter().map(|(published, _)| published.content.clone()).collect();
    drop((files, area));

    let area = open(directory.path());
    let kept = area.recover(&contents[3]).unwrap();
    let new = area.create(0).unwrap();
    new.write(0, b"new").unwrap();
    assert_eq!(area.recover(&contents[3]).unwrap_err().class(), ErrorClass::Busy);
    assert_eq!(area.discard_unclaimed().unwrap(), 4);
    assert_eq!(area.discard_unclaimed().unwrap(), 0);
    assert_eq!(content(&kept), [3; 5000]);
    assert_eq!(content(&new), b"new");
    assert_eq!(area.usage().bytes, 5003);
    assert_eq!(area.recover(&contents[0]).unwrap_err().class(), ErrorClass::Unavailable);
}

#[test]
fn more_files_than_descriptors_stay_usable() {
    let directory = tempfile::tempdir().unwrap();
    let area = StagingArea::open_with(directory.path(), PLENTY, 10, keys(), Box::new(|file| Arc::new(DiskFile(file))));
    let area = area.unwrap();
    let files: Vec<StagedFile> = (0..100).map(|_| area.create(0).unwrap()).collect();
    for round in 0..3u8 {
        for (number, file) in files.iter().enumerate() {
            file.write(u64::from(round) * 100, &[number as u8 + round; 100]).unwrap();
            if number % 3 == 0 {
                publish_durably(file);
            }
        }
        let open = files.iter().filter(|file| file.has_descriptor()).count();
        assert!(open <= 40, "{open} files are open");
    }
    for (number, file) in files.iter().enumerate() {
        let expected: Vec<u8> = (0..3).flat_map(|round| [number as u8 + round; 100]).collect();
        assert_eq!(content(file), expected);
    }
}

/// Plays the part of whoever drains staging.
struct Drain<'a> {
    left: RefCell<Vec<StagedFile>>,
    asked: Cell<usize>,
    paused: Cell<Duration>,
    hope: &'a dyn Fn(usize) -> bool,
}

impl<'a> Drain<'a> {
    fn new(left: Vec<StagedFile>, hope: &'a dyn Fn(usize) -> bool) -> Self {
        Self { left: RefCell::new(left), asked: Cell::new(0), paused: Cell::default(), hope }
    }
}

impl Admission for Drain<'_> {
    fn can_drain(&self) -> bool {
        self.asked.set(self.asked.get() + 1);
        let drained = self.left.borrow_mut().pop();
        drained.is_some() || (self.hope)(self.asked.get())
    }

    fn pause(&self, time: Duration) {
        self.paused.set(self.paused.get() + time);
    }
}

fn filled(area: &Arc<StagingArea>, bytes: usize) -> StagedFile {
    let file = area.create(0).unwrap();
    file.write(0, &vec![1; bytes]).unwrap();
    file
}

#[test]
fn writers_are_slowed_down_the_more_the_fuller_staging_is() {
    let directory = tempfile::tempdir().unwrap();
    let area = open_limited(directory.path(), StagingLimits { quota: 1_000_000, reserve: 0 });
    let mut files = Vec::new();
    let mut delays = Vec::new();
    for _ in 0..10 {
        let wait = Drain::new(Vec::new(), &|_| true);
        area.admit(100_000, &wait).unwrap();
        delays.push(wait.paused.get());
        files.push(filled(&area, 100_000));
    }
    assert!(delays[..6].iter().all(Duration::is_zero), "{delays:?}");
    assert!(delays[6..].is_sorted() && delays[5] < delays[6] && delays[6] * 4 < delays[9], "{delays:?}");
}

#[test]
fn a_file_longer_than_the_quota_is_written_while_the_disk_has_room_and_nothing_can_drain() {
    let directory = tempfile::tempdir().unwrap();
    let area = open_limited(directory.path(), StagingLimits { quota: 200_000, reserve: 0 });
    let _file = filled(&area, 250_000);
    let wait = Drain::new(Vec::new(), &|_| false);
    area.admit(100_000, &wait).unwrap();
    assert!(wait.paused.get().is_zero(), "being slow would not help");
    let too_much = area.admit(u64::MAX / 2, &Never).unwrap_err();
    assert_eq!(too_much.class(), ErrorClass::NoSpace);
}

#[test]
fn at_the_quota_a_writer_waits_for_room() {
    let directory = tempfile::tempdir().unwrap();
    let area = open_limited(directory.path(), StagingLimits { quota: 200_000, reserve: 0 });
    let (first, second) = (filled(&area, 150_000), filled(&area, 100_000));
    // The second gives 100 000 back while the writer waits.
    let wait = Drain::new(vec![second], &|_| false);
    area.admit(1, &wait).unwrap();
    assert!(wait.asked.get() >= 1);
    assert_eq!(area.usage().bytes, 150_000);
    drop(first);
    assert_eq!(area.usage().bytes, 0);
}

#[test]
fn a_writer_that_waits_is_woken_by_what_another_thread_gives_back() {
    let directory = tempfile::tempdir().unwrap();
    let area = open_limited(directory.path(), StagingLimits { quota: 200_000, reserve: 0 });
    let file = filled(&area, 250_000);
    let (asked, wait_for) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            wait_for.recv().unwrap();
            drop(file);
        });
        let hope = |_| {
            // It hears the first time only.
            let _ = asked.send(());
            true
        };
        area.admit(1, &Drain::new(Vec::new(), &hope)).unwrap();
    });
}

#[test]
fn the_reserve_of_the_disk_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let limits = StagingLimits { quota: u64::MAX / 4, reserve: u64::MAX / 2 };
    let area = open_limited(directory.path(), limits);
    // Nothing is in staging, so nothing can be drained, whatever is said.
    let error = area.admit(1, &Drain::new(Vec::new(), &|_| true)).unwrap_err();
    assert_eq!(error.class(), ErrorClass::NoSpace);
}

#[test]
fn contents_that_no_writer_told_the_journal_of_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let area = open(directory.path());
    let file = filled(&area, 10_000);
    let good = publish_durably(&file).content;
    drop(file);
    let extent = |start, end, place| crate::format::StagedExtent { range: range(start, end), place };
    let with =
        |size, base_len, extents| StagedContent { size, base_len, map: StagedMap::Inline(extents), ..good.clone() };
    let bad = [
        with(10_000, 10_001, vec![]),
        with(9_999, 0, vec![extent(0, 10_000, Some(0))]),
        with(10_000, 0, vec![extent(0, 10_000, Some(1))]),
        with(10_000, 1, vec![extent(0, 10_001, Some(0))]),
        with(10_000, 0, vec![extent(0, 100, Some(0)), extent(100, 200, Some(99))]),
        with(10_000, 0, vec![extent(0, 10, Some(u64::MAX - 10))]),
        StagedContent {
            map: StagedMap::InFile { offset: 0, len: 100, hash: crate::base::Digest::of(b"") },
            ..good.clone()
        },
        StagedContent {
            map: StagedMap::InFile { offset: 0, len: u64::MAX, hash: crate::base::Digest::of(b"") },
            ..good.clone()
        },
    ];
    for content in bad {
        let error = area.recover(&content).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Unrecoverable, "{content:?}: {error}");
    }
    let missing = StagedContent { file: StagingId::new(1 << 40), ..good.clone() };
    assert_eq!(area.recover(&missing).unwrap_err().class(), ErrorClass::Unavailable);
    assert_eq!(content(&area.recover(&good).unwrap()), [1; 10_000]);
}

#[test]
fn what_was_written_after_the_last_published_state_takes_no_room_after_a_crash() {
    use std::os::unix::fs::MetadataExt;
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let area = open(directory.path());
    let file = filled(&area, 1 << 20);
    file.write(5 << 20, &[1; 1 << 20]).unwrap();
    let published = publish_durably(&file);
    file.write(2 << 20, &[2; 2 << 20]).unwrap();
    file.write(9 << 20, &[2; 5 << 20]).unwrap();
    let expected = |file: &StagedFile| content(file)[..6 << 20].iter().filter(|&&byte| byte == 1).count();
    assert_eq!(expected(&file), 2 << 20);
    let path = directory.path().join(format!("{}.staged", file.id()));
    drop((file, area));
    let file = open(directory.path()).recover(&published.content).unwrap();
    assert_eq!((file.size(), expected(&file)), (6 << 20, 2 << 20));
    assert_eq!(fs::metadata(path).unwrap().blocks() * 512, 2 << 20);
}
