//! Versions from the command line: what was changed or removed comes back,
//! as often as wanted, until its time is over.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod kit;

use blockframe::archive::Archive;
use blockframe::base::{Clock, SystemClock, Timestamp};
use blockframe::catalog::Catalog;
use blockframe::format::EntryPath;
use blockframe::ingest::{self, CommitItem, CommitRequest, FileReport, Reporter};
use blockframe::namespace::CompressionRules;
use blockframe::store::LocalStore;
use kit::program::{Place, can_mount};
use kit::{Events, files_below, tiny_descriptor};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Some hours ago.
#[derive(Debug)]
struct Ago(i64);

impl Clock for Ago {
    fn now(&self) -> Timestamp {
        let now = SystemClock.now();
        Timestamp { seconds: now.seconds - 3600 * self.0, ..now }
    }
}

fn commit(place: &Place, hours_ago: i64) {
    let store = Arc::new(LocalStore::open(&place.archive()).unwrap());
    let archive = Arc::new(Archive::open(store, Arc::new(Ago(hours_ago)), Arc::new(Events::default())).unwrap());
    let catalog = Catalog::open(&place.archive(), &archive).unwrap();
    let writer = catalog.writer().unwrap();
    let items = vec![CommitItem::from_path(place.path("t"), &EntryPath::root()).unwrap()];
    let request = CommitRequest {
        items,
        exclude: vec![],
        cancel: &AtomicBool::new(false),
        lost: &|_| false,
        compression: &CompressionRules::default(),
    };
    ingest::commit(&archive, &writer, request, &Quiet).unwrap();
    writer.finish().unwrap();
}

struct Quiet;

impl Reporter for Quiet {
    fn file(&self, _report: &FileReport) {}
}

/// An archive with `t/f` in two versions, of four and two hours ago, and a tree with a hard link.
fn place() -> Place {
    let place = Place::new();
    fs::create_dir(place.archive()).unwrap();
    let store = Arc::new(LocalStore::open(&place.archive()).unwrap());
    Archive::create(store.clone(), tiny_descriptor(), "test".into()).unwrap();
    let archive = Arc::new(Archive::open(store, Arc::new(Ago(5)), Arc::new(Events::default())).unwrap());
    Catalog::create(&place.archive(), &archive).unwrap();
    fs::create_dir_all(place.path("t/d/e")).unwrap();
    fs::write(place.path("t/f"), "first").unwrap();
    fs::write(place.path("t/d/g"), "gold").unwrap();
    fs::write(place.path("t/d/e/h"), "hidden").unwrap();
    fs::hard_link(place.path("t/d/g"), place.path("t/d/e/g2")).unwrap();
    commit(&place, 4);
    fs::write(place.path("t/f"), "second one").unwrap();
    commit(&place, 2);
    place
}

/// A file whose content of three hours ago is alone in its object, and replaced two hours ago.
fn alone(place: &Place) {
    fs::write(place.path("t/alone"), [7; 2000]).unwrap();
    commit(place, 3);
    fs::write(place.path("t/alone"), "gold").unwrap();
    commit(place, 2);
}

fn lines(text: &str) -> Vec<serde_json::Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn versions(place: &Place, path: &str) -> Vec<serde_json::Value> {
    lines(&place.ok(["--json", "versions", path]))
}

#[test]
fn every_version_of_a_file_can_be_listed_read_and_restored() {
    let place = place();
    let listed = versions(&place, "t/f");
    let sizes: Vec<u64> = listed.iter().map(|version| version["size"].as_u64().unwrap()).collect();
    assert_eq!(sizes, [5, 10]);
    assert_eq!((&listed[0]["current"], &listed[1]["current"]), (&false.into(), &true.into()));
    assert_eq!(listed[0]["until"], listed[1]["version"]);
    let first = listed[0]["version"].as_str().unwrap();
    assert_eq!(place.ok(["cat", "t/f", "--at", first]), "first");
    assert_eq!(place.ok(["cat", "t/f"]), "second one");
    assert!(place.ok(["stat", "t/f", "--at", first]).contains("5 bytes"));
    let table = place.ok(["versions", "t/f"]);
    assert!(table.contains("replaced") && table.contains("current"), "{table}");

    place.ok(["restore", "t/f", "--version", first, "--to", "other/name"]);
    assert_eq!(place.ok(["cat", "other/name"]), "first");
    assert_eq!(place.ok(["cat", "t/f"]), "second one");
    place.ok(["restore", "t/f"]);
    assert_eq!(place.ok(["cat", "t/f"]), "first");
    let hash = listed[1]["hash"].as_str().unwrap();
    place.ok(["restore", "t/f", "--version", &hash[..10]]);
    assert_eq!(place.ok(["cat", "t/f"]), "second one");
    assert_eq!(versions(&place, "t/f").len(), 4);

    assert_eq!(place.run(["restore", "t/f", "--version", "9"]).status(), Some(1));
    assert_eq!(place.run(["versions", "t/none"]).status(), Some(1));
    assert_eq!(place.run(["restore", "t/f", "--at", "1999-01-01"]).status(), Some(1));
}

#[test]
fn what_was_removed_comes_back_with_all_below_it() {
    let place = place();
    let before = place.ok(["ls", "-R"]);
    assert_eq!(place.ok(["ls", "--deleted", "t"]), "");
    place.ok(["rm", "-r", "t/d", "t/f"]);
    assert_eq!(place.ok(["ls", "t"]), "");
    assert_eq!(place.ok(["ls", "--deleted", "t"]), "d\nf\n");
    // In a directory that is gone itself.
    assert_eq!(place.ok(["ls", "--deleted", "t/d"]), "e\ng\n");
    let last = versions(&place, "t/f").pop().unwrap();
    assert_eq!((&last["removed"], &last["current"]), (&true.into(), &false.into()));

    place.ok(["restore", "t/d"]);
    place.ok(["restore", "t/f"]);
    assert_eq!(place.ok(["ls", "-R"]), before);
    assert_eq!(place.ok(["cat", "t/d/e/h"]), "hidden");
    assert!(place.ok(["stat", "t/d/g"]).contains("2 links"));
    assert_eq!(place.ok(["ls", "--deleted", "t"]), "");
}

#[test]
fn gc_forgets_what_has_had_its_time_and_only_that() {
    let place = place();
    alone(&place);
    place.ok(["rm", "t/d/e/h"]);
    let status: serde_json::Value = serde_json::from_str(&place.ok(["--json", "status"])).unwrap();
    assert_eq!(status["versions"]["bytes"], 5 + 6 + 2000);
    assert_eq!(place.ok(["gc"]).lines().count(), 1, "nothing is 30 days old");
    place.ok(["restore", "t/d/e/h"]);

    fs::write(place.path("strict.toml"), "[versions]\nretention = \"0s\"\n").unwrap();
    let would = place.ok(["--config", "strict.toml", "gc", "--dry-run"]);
    assert!(would.contains("history") && would.contains("unreferenced"), "{would}");
    assert_eq!(versions(&place, "t/f").len(), 2);
    let did = place.ok(["--config", "strict.toml", "gc"]);
    // The time until which it goes is that of each run.
    let tidy = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split(" that ended").next().unwrap().replace("Would remove", "Removed")).collect()
    };
    assert_eq!(tidy(&did), tidy(&would));
    assert_eq!(versions(&place, "t/f").len(), 1);
    assert!(place.ok(["status"]).contains("versions    none kept"));
    assert_eq!(place.ok(["cat", "t/d/e/h"]), "hidden");
    assert_eq!(place.ok(["cat", "t/f"]), "second one");
    let refused: [&[&str]; 6] = [
        &["ls", "--at", "3h ago"],
        &["cat", "t/f", "--at", "3h ago"],
        &["find", "*", "--at", "3h ago"],
        &["restore", "t/f", "--at", "3h ago"],
        &["get", "t/f", "out", "--at", "3h ago"],
        &["mount", "mnt", "--at", "3h ago"],
    ];
    for words in refused {
        place.run(words.iter().copied()).told(1, &["forgotten", "history is whole from 20"]);
    }
    assert_eq!(place.ok(["ls", "t", "--at", "now"]), "alone\nd\nf\n");
}

#[test]
fn the_mount_forgets_by_itself_what_has_had_its_time() {
    if !can_mount() {
        return;
    }
    let place = place();
    alone(&place);
    let objects = || fs::read_dir(place.archive()).unwrap().count();
    let before = objects();
    fs::write(place.path("strict.toml"), "[versions]\nretention = \"1h\"\n").unwrap();
    place.ok(["--config", "strict.toml", "mount", "mnt"]);
    // The first version ended two hours ago. Its object goes last.
    let gone = (0..30_000).any(|_| {
        std::thread::yield_now();
        objects() < before
    });
    let old = fs::read_dir(place.path("mnt/.blockframe/snapshots").join(rfc3339_hours_ago(3))).map(drop);
    let current = fs::read_to_string(place.path("mnt/t/f"));
    place.ok(["umount", "mnt"]);
    assert!(gone, "the object of the first version is still there");
    assert_eq!(current.unwrap(), "second one");
    assert_eq!(old.unwrap_err().kind(), std::io::ErrorKind::NotFound);
    assert_eq!(versions(&place, "t/f").len(), 1);
    assert_eq!(place.ok(["cat", "t/d/g"]), "gold");
}

#[test]
fn damage_to_what_only_an_old_version_needs_is_told_with_its_path_and_time() {
    let place = place();
    alone(&place);
    let since = versions(&place, "t/alone")[0]["version"].as_str().unwrap().to_owned();
    place.ok(["rm", "t/alone"]);
    let object = place.object("alone");
    assert_eq!(place.run(["health"]).status(), Some(0));
    let shards: Vec<_> = files_below(&object)
        .into_iter()
        .filter(|(_, bytes)| bytes.len() == 2000)
        .map(|(file, _)| object.join(file))
        .collect();
    let first = &shards[0];
    fs::write(first, [1; 2000]).unwrap();
    let told = place.run(["health"]).stdout();
    assert!(told.contains(&format!("/t/alone (version of {since})")), "{told}");
    // All of it: lost, and no current file is.
    for shard in shards {
        fs::write(shard, [1; 2000]).unwrap();
    }
    let lost = place.run(["health"]);
    assert_eq!(lost.status(), Some(4), "{}", lost.stdout());
    assert!(lost.stdout().contains(&format!("/t/alone (version of {since})  LOST")), "{}", lost.stdout());
    assert!(lost.stdout().contains("no current file needs it"), "{}", lost.stdout());
}

#[test]
fn what_is_staged_is_shown_with_its_size_and_as_staged() {
    if !can_mount() {
        return;
    }
    let place = place();
    fs::write(place.path("slow.toml"), "[staging]\ndelay = \"1h\"\n").unwrap();
    place.ok(["--config", "slow.toml", "mount", "mnt"]);
    fs::write(place.path("mnt/t/fresh"), [1; 12_345]).unwrap();
    let shown = [["ls", "-l", "t/fresh"], ["stat", "t/fresh", "--json"], ["find", "fresh", "--json"]]
        .map(|words| place.run(words).stdout());
    let (stat, health) = (place.run(["stat", "t/fresh"]).stdout(), place.run(["health"]).stdout());
    let unstaged = place.run(["ls", "-l", "t/f"]).stdout();
    place.ok(["umount", "mnt"]);
    for text in &shown {
        assert!(text.contains("12345") && text.contains("staged"), "{text}");
    }
    assert!(stat.contains("12345 bytes (staged") && !stat.contains("blake3"), "{stat}");
    assert!(health.contains("1 file staged"), "{health}");
    assert!(!unstaged.contains("staged"), "{unstaged}");
    let after = place.ok(["stat", "t/fresh"]);
    assert!(after.contains("12345 bytes") && !after.contains("staged"), "{after}");
}

fn rfc3339_hours_ago(hours: i64) -> String {
    blockframe::base::calendar::rfc3339_seconds(Ago(hours).now().seconds)
}

#[test]
fn the_archive_can_be_looked_at_as_it_was() {
    let place = place();
    let first = "3h ago";
    let names = place.ok(["ls", "-R"]);
    place.ok(["rm", "-r", "t"]);
    assert_eq!(place.ok(["ls", "-R", "--at", first]), names);
    assert_eq!(place.ok(["find", "g*", "--at", first]), "t/d/e/g2\nt/d/g\n");
    assert_eq!(place.ok(["ls", "-R"]), "");
    place.ok(["get", "t", "out", "--at", first]);
    assert_eq!(fs::read_to_string(place.path("out/t/f")).unwrap(), "first");
    assert_eq!(fs::read_to_string(place.path("out/t/d/e/h")).unwrap(), "hidden");
    place.ok(["get", "t/f", "f", "--at", first]);
    assert_eq!(fs::read_to_string(place.path("f")).unwrap(), "first");
    place.run(["get", "t/f", "f2"]).told(1, &["t/f"]);
    place.ok(["restore", "t", "--at", first]);
    assert_eq!(place.ok(["cat", "t/f"]), "first");
    assert_eq!(place.run(["ls", "t", "--at", "6h"]).status(), Some(1));
}

#[test]
fn old_versions_that_take_more_than_their_share_go_oldest_first() {
    let place = place();
    fs::write(place.path("none.toml"), "[versions]\nmax_share = 0\n").unwrap();
    place.ok(["rm", "t/f"]);
    place.ok(["--config", "none.toml", "gc"]);
    assert_eq!(place.run(["versions", "t/f"]).status(), Some(1));
    let status: serde_json::Value = serde_json::from_str(&place.ok(["--json", "status"])).unwrap();
    assert_eq!(status["versions"]["bytes"], 0);
}

#[test]
fn the_archive_can_be_mounted_as_it_was() {
    if !can_mount() {
        return;
    }
    let place = place();
    place.ok(["rm", "-r", "t/d"]);
    place.ok(["mount", "mnt", "--at", "3h ago"]);
    let read = fs::read_to_string(place.path("mnt/t/f")).unwrap();
    let below = fs::read_to_string(place.path("mnt/t/d/e/h")).unwrap();
    let refused = fs::write(place.path("mnt/t/new"), "x").unwrap_err();
    place.ok(["umount", "mnt"]);
    assert_eq!((read.as_str(), below.as_str()), ("first", "hidden"));
    assert_eq!(refused.raw_os_error(), Some(rustix::io::Errno::ROFS.raw_os_error()));
}
