//! Damage to any one file of an archive is not seen: every name, attribute
//! and byte is as it was, and the archive always opens.
//!
//! One byte at a time, everywhere: all bytes of short files, of longer ones a
//! prime stride that reaches every structure in them. `BLOCKFRAME_EVERY_BYTE=1`
//! flips all bytes of all files (hours).
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod kit;

use blockframe::archive::Archive;
use blockframe::catalog::{Catalog, HealthLog, RebuildSource, rebuild};
use blockframe::format::layout::{CATALOG_DIR, STORE_DESCRIPTOR, STORE_DESCRIPTOR_COPY};
use blockframe::format::{ArchiveDescriptor, EntryPath, NodeBody};
use blockframe::store::LocalStore;
use kit::program::{Place, can_mount};
use kit::view::{self, Picture, difference};
use kit::{content, files_below, scratch, tiny_descriptor};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// Rules under which 60,000 bytes are tier 4, whose segments have two leaves and so need trees.
fn descriptor() -> ArchiveDescriptor {
    let mut descriptor = tiny_descriptor();
    descriptor.tiers[3].segment_size = 20_480;
    descriptor.tiers[3].min_segment_size = 20_480;
    descriptor
}

/// Names that need a file of each tier, two bundles, links, holes and attributes.
fn make_tree(root: &Path, seed: u64) {
    fs::create_dir_all(root.join("small/empty directory")).unwrap();
    for index in 0..12 {
        fs::write(root.join(format!("small/{index}")), content(80 * index, seed + index as u64)).unwrap();
    }
    for (name, len) in [("tier1", 3001), ("tier2", 11_001), ("tier3", 30_001), ("tier4", 90_001)] {
        fs::write(root.join(name), content(len, seed + len as u64)).unwrap();
    }
    fs::write(root.join("same"), content(3001, seed + 3001)).unwrap();
    fs::write(root.join(std::ffi::OsStr::from_bytes(b"caf\xe9\n")), b"not UTF-8").unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(50_000).unwrap();
    sparse.write_all_at(&content(2000, seed), 30_000).unwrap();
    fs::hard_link(root.join("tier2"), root.join("small/again")).unwrap();
    symlink("../nowhere", root.join("link")).unwrap();
    for name in ["tier3", "small", "small/5"] {
        // tmpfs knows them only lately.
        let _ = xattr::set(root.join(name), "user.colour", format!("{name}{seed}").as_bytes());
    }
    fs::set_permissions(root.join("tier1"), PermissionsExt::from_mode(0o4751)).unwrap();
    fs::set_permissions(root.join("small"), PermissionsExt::from_mode(0o1775)).unwrap();
    let old = std::time::UNIX_EPOCH - std::time::Duration::new(86_400 + seed, 5);
    fs::File::options().write(true).open(root.join("tier4")).unwrap().set_modified(old).unwrap();
}

/// An archive whose files are put back after each damage.
struct Subject {
    directory: TempDir,
    /// The bytes of every file.
    pristine: BTreeMap<PathBuf, Vec<u8>>,
    /// Of those that an earlier commit left different.
    earlier: BTreeMap<PathBuf, Vec<u8>>,
    expected: Picture,
}

impl Subject {
    fn new(seed: u64) -> Self {
        let (directory, source) = (scratch(), scratch());
        let store = Arc::new(LocalStore::open(directory.path()).unwrap());
        Archive::create(store.clone(), descriptor(), "test".into()).unwrap();
        let archive = Arc::new(Archive::open(store, Arc::new(blockframe::base::SystemClock), Arc::new(())).unwrap());
        let catalog = Catalog::create(directory.path(), &archive).unwrap();
        drop(HealthLog::open(directory.path()).unwrap());
        let first = source.path().join("first");
        fs::create_dir(&first).unwrap();
        fs::write(first.join("a"), content(700, seed + 1)).unwrap();
        fs::write(first.join("b"), content(2500, seed + 2)).unwrap();
        view::commit_paths(&archive, &catalog, &[&first]);
        let earlier = files_below(directory.path());
        let tree = source.path().join("tree");
        make_tree(&tree, seed);
        fs::remove_file(first.join("a")).unwrap();
        fs::write(first.join("a"), content(701, seed + 3)).unwrap();
        view::commit_paths(&archive, &catalog, &[&first, &tree]);
        let mut expected = view::of_source("tree", &tree);
        expected.extend(view::of_source("first", &first));
        let pristine = files_below(directory.path());
        let subject = Self { directory, pristine, earlier, expected };
        subject.check("nothing is damaged");
        subject
    }

    fn path(&self, file: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(file)
    }

    /// Everything as it was, whatever was done to it.
    fn put_back(&self) {
        let now = files_below(self.directory.path());
        for file in now.keys().filter(|file| !self.pristine.contains_key(*file)) {
            fs::remove_file(self.path(file)).unwrap();
        }
        for (file, bytes) in self.pristine.iter().filter(|(file, bytes)| now.get(*file) != Some(*bytes)) {
            let path = self.path(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            if path.is_dir() {
                fs::remove_dir_all(&path).unwrap();
            }
            fs::write(path, bytes).unwrap();
        }
    }

    /// Opens it, and compares everything with the source.
    fn check(&self, what: &str) {
        let found = catch_unwind(AssertUnwindSafe(|| view::of_archive(self.directory.path())));
        let found = found.unwrap_or_else(|_| panic!("{what}: the archive cannot be opened or listed"));
        if let Some(difference) = difference(&self.expected, &found) {
            panic!("{what}:\n{difference}");
        }
    }

    /// The same where the bytes of some files may be lost, but not wrong.
    fn check_but(&self, what: &str, may_be_lost: &dyn Fn(&[u8]) -> bool) {
        let found = catch_unwind(AssertUnwindSafe(|| view::of_archive(self.directory.path())));
        let mut found = found.unwrap_or_else(|_| panic!("{what}: the archive cannot be opened or listed"));
        for (path, seen) in &mut found {
            if matches!(seen.content, Some(Err(_))) && may_be_lost(path) {
                seen.content = self.expected[path].content.clone();
            }
        }
        if let Some(difference) = difference(&self.expected, &found) {
            panic!("{what}:\n{difference}");
        }
    }

    /// Damages one file in each way in turn.
    fn check_damages(&self, file: &Path, damages: impl Iterator<Item = (String, Damage)>) -> usize {
        let mut count = 0;
        for (what, damage) in damages {
            let path = self.path(file);
            match damage {
                Damage::Bytes(bytes) => fs::write(&path, bytes).unwrap(),
                Damage::Missing => fs::remove_file(&path).unwrap(),
                Damage::Directory => {
                    fs::remove_file(&path).unwrap();
                    fs::create_dir_all(path.join("in the way")).unwrap();
                }
            }
            self.check(&format!("{}, {what}", file.display()));
            self.put_back();
            count += 1;
        }
        count
    }

    fn files(&self, wanted: impl Fn(&str) -> bool) -> Vec<(&PathBuf, &Vec<u8>)> {
        self.pristine.iter().filter(|(file, _)| wanted(&file.to_string_lossy())).collect()
    }

    /// Which object holds the bytes of each file.
    fn holders(&self) -> BTreeMap<Vec<u8>, PathBuf> {
        let (_, catalog) = view::open(self.directory.path());
        let mut holders = BTreeMap::new();
        for path in self.expected.keys() {
            let inode = catalog.resolve(&EntryPath::new(path.clone()).unwrap()).unwrap().unwrap();
            let NodeBody::File(file) = inode.body else { continue };
            if let Some(place) = catalog.place(&file.hash, file.size).unwrap() {
                holders.insert(path.clone(), PathBuf::from(place.object.name.as_str()));
            }
        }
        holders
    }

    /// The object of a file, by the beginning of its name.
    fn object(&self, name: &str) -> PathBuf {
        let is_it = |file: &&PathBuf| file.to_string_lossy().starts_with(&format!("{name}_"));
        let file = self.pristine.keys().find(is_it).unwrap();
        PathBuf::from(file.iter().next().unwrap())
    }
}

enum Damage {
    Bytes(Vec<u8>),
    Missing,
    /// A directory of that name stands there instead.
    Directory,
}

/// Every `step`-th byte with one bit of it, or all, turned over.
fn flips(good: &[u8], most: usize) -> impl Iterator<Item = (String, Damage)> + '_ {
    const PRIMES: [usize; 14] = [1, 2, 3, 7, 13, 31, 61, 127, 251, 509, 1021, 2039, 4093, 8191];
    let every = std::env::var_os("BLOCKFRAME_EVERY_BYTE").is_some();
    let step = PRIMES.into_iter().find(|step| every || good.len() / step <= most).unwrap_or(16_381);
    // The last byte is the end of a structure too.
    (0..good.len()).step_by(step).chain(good.len().checked_sub(1)).map(|at| {
        let mut bad = good.to_vec();
        bad[at] ^= if at % 9 == 8 { 0xff } else { 1 << (at % 9) };
        (format!("byte {at} flipped"), Damage::Bytes(bad))
    })
}

/// Flips in the files that `wanted` names, at most about `most` in each.
fn check_flips(subject: &Subject, most: usize, wanted: impl Fn(&str) -> bool) {
    let files = subject.files(wanted);
    assert!(!files.is_empty());
    let flipped: usize = files.iter().map(|(file, good)| subject.check_damages(file, flips(good, most))).sum();
    println!("{flipped} flips in {} files", files.len());
}

fn is_manifest(file: &str) -> bool {
    file.ends_with("manifest.json") || file.ends_with("manifest.copy.json")
}

fn is_tree(file: &str) -> bool {
    file.ends_with("tree.dat")
}

fn is_parity(file: &str) -> bool {
    file.contains("parity") || file.contains("outer/")
}

#[test]
fn a_flipped_byte_of_a_data_shard_is_not_seen() {
    check_flips(&Subject::new(1), 9, |file| file.ends_with(".dat") && !is_tree(file) && !is_parity(file));
}

#[test]
fn a_flipped_byte_of_a_parity_shard_is_not_seen() {
    check_flips(&Subject::new(2), 5, |file| file.ends_with(".dat") && !is_tree(file) && is_parity(file));
}

#[test]
fn a_flipped_byte_of_a_manifest_is_not_seen() {
    check_flips(&Subject::new(3), 45, is_manifest);
}

#[test]
fn a_flipped_byte_of_a_leaf_tree_is_not_seen() {
    check_flips(&Subject::new(4), 60, is_tree);
}

#[test]
fn a_flipped_byte_of_a_store_descriptor_is_not_seen() {
    check_flips(&Subject::new(5), 250, |file| file == STORE_DESCRIPTOR || file == STORE_DESCRIPTOR_COPY);
}

#[test]
fn a_flipped_byte_of_the_catalog_s_database_or_its_seal_is_not_seen() {
    let subject = Subject::new(6);
    check_flips(&subject, 400, |file| file == ".blockframe/catalog.db");
    check_flips(&subject, 200, |file| file == ".blockframe/catalog.seal");
}

#[test]
fn a_flipped_byte_of_the_journal_or_its_snapshot_is_not_seen() {
    check_flips(&Subject::new(7), 400, |file| file.starts_with(CATALOG_DIR));
}

#[test]
fn a_flipped_byte_of_what_is_not_needed_is_not_seen() {
    let subject = Subject::new(8);
    check_flips(&subject, 20, |file| file == "RECOVERY.md");
    check_flips(&subject, 20, |file| file == ".blockframe/state.db");
}

#[test]
fn a_flipped_byte_of_the_health_log_costs_the_log_at_most() {
    let subject = Subject::new(9);
    let file = subject.path(".blockframe/state.db");
    let good = fs::read(&file).unwrap();
    for (what, damage) in flips(&good, 300) {
        let Damage::Bytes(bad) = damage else { unreachable!() };
        fs::write(&file, bad).unwrap();
        let log = HealthLog::open(subject.directory.path()).unwrap_or_else(|error| panic!("{what}: {error}"));
        // What it has may be damaged; nothing is lost with it.
        let _ = log.recent_events(10);
        let _ = log.verdicts();
        drop(log);
        subject.put_back();
    }
}

#[test]
fn a_file_that_is_gone_cut_foreign_or_old_is_not_seen() {
    let (subject, other) = (Subject::new(10), Subject::new(10));
    let garbage = |len: usize| content(len, 99);
    let mut count = 0;
    for (file, good) in &subject.pristine {
        let mut damages = vec![
            ("missing".to_string(), Damage::Missing),
            ("empty".into(), Damage::Bytes(Vec::new())),
            ("cut in half".into(), Damage::Bytes(good[..good.len() / 2].to_vec())),
            ("one byte short".into(), Damage::Bytes(good[..good.len().saturating_sub(1)].to_vec())),
            ("longer".into(), Damage::Bytes([good.as_slice(), b"more"].concat())),
            ("garbage".into(), Damage::Bytes(garbage(good.len()))),
            ("zeros".into(), Damage::Bytes(vec![0; good.len()])),
            ("a directory".into(), Damage::Directory),
        ];
        let same_name = if file.starts_with(CATALOG_DIR) {
            other.files(|other| other.starts_with(CATALOG_DIR)).first().map(|(_, bytes)| bytes.to_vec())
        } else {
            other.pristine.get(file).cloned()
        };
        if let Some(bytes) = same_name {
            damages.push(("from another archive".into(), Damage::Bytes(bytes)));
        }
        if let Some(bytes) = subject.earlier.get(file).filter(|bytes| *bytes != good) {
            damages.push(("as it was a commit earlier".into(), Damage::Bytes(bytes.clone())));
        }
        count += subject.check_damages(file, damages.into_iter());
    }
    println!("{count} damages in {} files", subject.pristine.len());
}

#[test]
fn a_directory_that_is_gone_loses_nothing_within_the_promise_and_nothing_else_beyond() {
    let subject = Subject::new(11);
    let mut directories: Vec<PathBuf> = Vec::new();
    for file in subject.pristine.keys() {
        directories.extend(file.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()).map(PathBuf::from));
    }
    directories.sort();
    directories.dedup();
    let (tier3, holders) = ([subject.object("tier3"), subject.object("sparse")], subject.holders());
    for directory in directories {
        let text = directory.to_string_lossy().into_owned();
        // The directory of a whole object; of RS(4,2) more than two shards, where no outer code helps.
        let parts = directory.iter().count();
        let beyond = !text.starts_with(".blockframe")
            && (parts == 1
                || text.ends_with("/blocks")
                || tier3.iter().any(|object| directory.starts_with(object))
                    && text.contains("/block_")
                    && !text.ends_with("/parity"));
        let lost = |path: &[u8]| beyond && holders.get(path) == Some(&PathBuf::from(directory.iter().next().unwrap()));
        for way in ["removed", "a file stands there"] {
            fs::remove_dir_all(subject.path(&directory)).unwrap();
            if way != "removed" {
                fs::write(subject.path(&directory), b"in the way").unwrap();
            }
            subject.check_but(&format!("{text}, {way}"), &lost);
            if way != "removed" && subject.path(&directory).is_file() {
                fs::remove_file(subject.path(&directory)).unwrap();
            }
            subject.put_back();
        }
    }
}

#[test]
fn when_all_of_the_catalog_is_lost_the_objects_give_the_names_back() {
    let subject = Subject::new(12);
    let catalog: Vec<PathBuf> =
        subject.pristine.keys().filter(|file| file.starts_with(".blockframe")).cloned().collect();
    let catalog: Vec<_> = catalog.into_iter().filter(|file| file != Path::new(STORE_DESCRIPTOR_COPY)).collect();
    for way in ["missing", "emptied", "garbage"] {
        for file in &catalog {
            let len = subject.pristine[file].len();
            match way {
                "missing" => fs::remove_file(subject.path(file)).unwrap(),
                "emptied" => fs::write(subject.path(file), b"").unwrap(),
                _ => fs::write(subject.path(file), content(len, 5)).unwrap(),
            }
        }
        subject.check(&format!("all files of the catalog {way}"));
        // What was rebuilt is a catalog like any other.
        subject.check(&format!("all files of the catalog {way}, opened again"));
        subject.put_back();
    }
    fs::remove_dir_all(subject.path(".blockframe")).unwrap();
    subject.check(".blockframe removed");
    subject.put_back();
}

#[test]
fn any_two_of_the_catalog_s_files_may_be_lost() {
    let subject = Subject::new(13);
    let files: Vec<&PathBuf> =
        subject.files(|file| file.starts_with(".blockframe/catalog")).into_iter().map(|(file, _)| file).collect();
    for (index, one) in files.iter().enumerate() {
        for two in &files[index + 1..] {
            for garbage in [false, true] {
                for file in [one, two] {
                    if garbage {
                        fs::write(subject.path(file), content(4096, 3)).unwrap();
                    } else {
                        fs::remove_file(subject.path(file)).unwrap();
                    }
                }
                subject.check(&format!("{} and {}, garbage: {garbage}", one.display(), two.display()));
                subject.put_back();
            }
        }
    }
}

#[test]
fn a_rebuild_from_any_source_gives_the_same_names() {
    let subject = Subject::new(14);
    for source in [RebuildSource::Journal, RebuildSource::Objects, RebuildSource::Best] {
        let (archive, catalog) = view::open(subject.directory.path());
        drop(catalog);
        let report = rebuild(subject.directory.path(), &archive, source).unwrap();
        assert!(report.skipped.is_empty(), "{source:?}: {:?}", report.skipped);
        subject.check(&format!("{source:?}"));
    }
}

#[test]
fn a_mount_comes_up_whatever_one_file_is_damaged() {
    if !can_mount() {
        return;
    }
    let place = Place::new();
    let subject = Subject::new(15);
    let archive = subject.directory.path().as_os_str();
    let mount = |what: &str, expected: &dyn Fn(&Path)| {
        let mountpoint = place.path("mnt");
        let outcome = place.run([std::ffi::OsStr::new("-a"), archive, "mount".as_ref(), mountpoint.as_os_str()]);
        assert_eq!(outcome.status(), Some(0), "{what}: {}", outcome.stderr());
        expected(&mountpoint);
        place.ok([std::ffi::OsStr::new("umount"), mountpoint.as_os_str()]);
        subject.put_back();
    };
    let same = |mountpoint: &Path| {
        for name in ["tree", "first"] {
            let found = view::of_source(name, &mountpoint.join(name));
            let ours: Picture = found.into_iter().map(|(path, seen)| (path, without_ours(seen))).collect();
            let expected = subject.expected.iter().filter(|(path, _)| path.starts_with(name.as_bytes()));
            let expected: Picture = expected.map(|(path, seen)| (path.clone(), without_ours(seen.clone()))).collect();
            if let Some(difference) = difference(&expected, &ours) {
                panic!("{difference}");
            }
        }
    };
    let journal = subject.files(|file| file.starts_with(CATALOG_DIR))[0].0.clone();
    for file in [
        PathBuf::from(".blockframe/catalog.db"),
        PathBuf::from(".blockframe/catalog.seal"),
        PathBuf::from(".blockframe/state.db"),
        journal,
        PathBuf::from(STORE_DESCRIPTOR),
        subject.object("tier3").join("manifest.json"),
        subject.object("tier3").join("blocks/block_0/segments/segment_1.dat"),
    ] {
        fs::write(subject.path(&file), content(subject.pristine[&file].len(), 4)).unwrap();
        mount(&format!("{} is garbage", file.display()), &same);
    }
    fs::remove_dir_all(subject.path(".blockframe")).unwrap();
    mount(".blockframe removed", &same);
    // Beyond every promise: an error for that file, and nothing else.
    fs::remove_dir_all(subject.path(subject.object("tier3"))).unwrap();
    mount("an object is gone", &|mountpoint| {
        let error = fs::read(mountpoint.join("tree/tier3")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
        assert_eq!(fs::read(mountpoint.join("tree/tier2")).unwrap(), content(11_001, 15 + 11_001));
    });
}

/// Without the attributes that tell of the archive.
fn without_ours(mut seen: view::Seen) -> view::Seen {
    let cut = seen.attributes.find(", target").unwrap();
    seen.attributes.truncate(cut);
    seen
}
