//! What bad input gets: one clear message that names the thing and the next
//! step, the right exit status, and nothing else affected.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod kit;

use blockframe::archive::{ObjectPlan, WriteControl};
use blockframe::base::Digest;
use blockframe::catalog::{RebuildSource, rebuild};
use blockframe::format::{
    BundleBuilder, BundleTable, Entry, EntryPath, FileContent, NodeBody, NodeMeta, ObjectKind, sealed_json,
};
use kit::program::{Place, can_mount};
use kit::view::{self, difference};
use kit::{content, files_below};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A place with the archive `arch` that holds the tree `src`.
fn with_archive() -> Place {
    let place = Place::new();
    fs::create_dir(place.path("src")).unwrap();
    fs::write(place.path("src/small"), "small").unwrap();
    fs::write(place.path("src/one"), content(2_000_000, 1)).unwrap();
    fs::write(place.path("src/two"), content(3_000_000, 2)).unwrap();
    place.ok(["init", "arch", "--profile", "balanced"]);
    place.ok(["commit", "src"]);
    place
}

fn is_whole(place: &Place, what: &str) {
    let expected = view::of_source("src", &place.path("src"));
    if let Some(difference) = difference(&expected, &view::of_archive(&place.archive())) {
        panic!("{what}:\n{difference}");
    }
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: this needs root");
    }
    root
}

/// A sealed document with one change, sealed again.
fn resealed(bytes: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut value: Value = serde_json::from_slice(bytes).unwrap();
    value.as_object_mut().unwrap().remove("checksum");
    change(&mut value);
    sealed_json::seal("test", &value).unwrap()
}

#[test]
fn where_no_archive_is_every_command_says_how_to_make_one() {
    let place = Place::new();
    fs::create_dir(place.path("empty")).unwrap();
    fs::write(place.path("file"), "x").unwrap();
    let commands: [&[&str]; 9] = [
        &["commit", "file"],
        &["ls"],
        &["cat", "x"],
        &["health"],
        &["repair"],
        &["status"],
        &["gc"],
        &["rebuild-catalog"],
        &["mount", "mnt"],
    ];
    for command in commands {
        for directory in ["missing", "empty"] {
            let outcome = place.run(["-a", directory].iter().chain(command));
            outcome.told(5, &[directory, "blockframe init"]);
            assert_eq!(outcome.stderr().lines().count(), 1, "{command:?}: {}", outcome.stderr());
            assert_eq!(outcome.stdout(), "", "{command:?}");
        }
        place.run(["-a", "file"].iter().chain(command)).told(5, &["file"]);
    }
    assert!(!place.path("missing").exists());
    assert_eq!(fs::read_dir(place.path("empty")).unwrap().count(), 0, "looking left something behind");
}

#[test]
fn a_version_of_the_future_is_named_and_left_alone() {
    let place = with_archive();
    let newer = |file: &Path| {
        let bytes = resealed(&fs::read(file).unwrap(), |value| value["version"] = json!(99));
        fs::write(file, bytes).unwrap();
    };
    newer(&place.archive().join("blockframe-store.json"));
    newer(&place.archive().join(".blockframe/store.json"));
    let before = files_below(&place.archive());
    for command in [&["ls"][..], &["commit", "src"], &["health"], &["repair"], &["gc"], &["mount", "mnt"]] {
        let outcome = place.run(command);
        assert_eq!(outcome.status(), Some(1), "{command:?}: {}", outcome.stderr());
        outcome.told(1, &["version 99", "newer"]);
    }
    assert!(files_below(&place.archive()) == before, "an archive of another version was changed");
}

#[test]
fn an_unknown_key_of_the_configuration_is_named_with_its_line() {
    let place = with_archive();
    fs::write(place.path("config.toml"), "[cache]\nmax_sise = \"1MB\"\n").unwrap();
    for command in [&["ls"][..], &["commit", "src"], &["mount", "mnt"]] {
        place.run(command).told(2, &["config.toml:2", "max_sise", "max_size"]);
    }
    fs::write(place.path("config.toml"), "[cache]\nmax_size = \"lots\"\n").unwrap();
    place.run(["ls"]).told(2, &["config.toml:2", "lots"]);
    fs::write(place.path("config.toml"), b"\xff\xfe = [[[").unwrap();
    place.run(["ls"]).told(2, &["config.toml"]);
}

#[test]
fn a_mount_point_that_cannot_be_used_is_named_with_the_next_step() {
    if !can_mount() {
        return;
    }
    let place = with_archive();
    place.run(["mount", "missing"]).told(1, &["missing", "mkdir"]);
    place.run(["mount", "src"]).told(1, &["src", "not empty"]);
    place.run(["mount", "src/one"]).told(1, &["src/one", "not a directory"]);
    place.run(["umount", "src"]).told(1, &["src", "nothing is mounted"]);
    place.ok(["mount", "mnt"]);
    place.run(["mount", "mnt"]).told(1, &["mnt", "busy", "blockframe umount"]);
    assert_eq!(fs::read(place.path("mnt/src/small")).unwrap(), b"small", "the first mount was disturbed");
    place.ok(["umount", "mnt"]);
}

#[test]
fn a_file_that_cannot_be_read_is_named_and_the_rest_is_committed() {
    let place = with_archive();
    fs::create_dir_all(place.path("tree/closed")).unwrap();
    fs::write(place.path("tree/good"), "good").unwrap();
    fs::write(place.path("tree/secret"), "secret").unwrap();
    fs::write(place.path("tree/closed/inside"), "inside").unwrap();
    fs::set_permissions(place.path("tree/secret"), PermissionsExt::from_mode(0o000)).unwrap();
    fs::set_permissions(place.path("tree/closed"), PermissionsExt::from_mode(0o000)).unwrap();
    let mut command = place.command(["commit", "tree"]);
    if rustix::process::geteuid().is_root() {
        // Root may read everything, so somebody else does it.
        for path in files_below(&place.archive()).keys() {
            for above in path.ancestors() {
                std::os::unix::fs::chown(place.archive().join(above), Some(65_534), Some(65_534)).unwrap();
            }
        }
        fs::set_permissions(place.directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        // The program itself may lie where only root comes to.
        let program = place.path("blockframe");
        fs::copy(command.get_program(), &program).unwrap();
        let mut other = Command::new("setpriv");
        other.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]).arg(program);
        other.args(command.get_args()).current_dir(place.directory.path()).env("BLOCKFRAME_ARCHIVE", place.archive());
        command = other;
    }
    let outcome = match command.stdin(Stdio::null()).output() {
        Ok(output) => kit::program::Outcome(output),
        Err(error) => return eprintln!("skipped: setpriv cannot be run: {error}"),
    };
    outcome.told(1, &["tree/secret", "Permission denied"]);
    outcome.told(1, &["tree/closed", "Permission denied"]);
    assert_eq!(place.ok(["cat", "tree/good"]), "good");
    place.run(["cat", "tree/secret"]).told(1, &["tree/secret"]);
    is_whole_below(&place, "src");
    assert_eq!(place.run(["health"]).status(), Some(0));
}

/// What was committed before is as it was.
fn is_whole_below(place: &Place, name: &str) {
    let mut found = view::of_archive(&place.archive());
    found.retain(|path, _| path.starts_with(name.as_bytes()));
    if let Some(difference) = difference(&view::of_source(name, &place.path(name)), &found) {
        panic!("{difference}");
    }
}

#[test]
fn a_file_that_fails_while_it_is_read_is_named_and_the_rest_is_committed() {
    let place = with_archive();
    if can_mount() {
        // A mount of ours with a lost object is a disk that fails.
        place.ok(["init", "other"]);
        place.ok(["mount", "mnt"]);
        fs::remove_dir_all(place.object("one")).unwrap();
        let outcome = place.run(["-a", "other", "commit", "mnt/src"]);
        outcome.told(1, &["mnt/src/one", "Input/output error"]);
        let read = place.run(["-a", "other", "cat", "src/two"]);
        assert!(read.0.stdout == content(3_000_000, 2), "the rest was not committed");
        place.run(["-a", "other", "cat", "src/one"]).told(1, &["src/one"]);
        assert_eq!(place.run(["-a", "other", "health"]).status(), Some(0));
        place.ok(["umount", "mnt"]);
        fs::remove_dir_all(place.archive()).unwrap();
        place.ok(["init", "arch"]);
        place.ok(["commit", "src"]);
    }
    place.run(["commit", "nowhere", "src"]).told(1, &["nowhere", "No such file"]);
    is_whole(&place, "after a file that is not there");
    assert_eq!(place.run(["health"]).status(), Some(0));
}

/// A file system of its own with little space.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn at(path: PathBuf, mib: u64) -> Option<Self> {
        fs::create_dir(&path).unwrap();
        let options = std::ffi::CString::new(format!("size={mib}m")).unwrap();
        let mounted =
            rustix::mount::mount("tmpfs", &path, "tmpfs", rustix::mount::MountFlags::empty(), Some(&*options));
        match mounted {
            Ok(()) => Some(Self(path)),
            Err(error) => {
                eprintln!("skipped: no tmpfs can be mounted: {error}");
                None
            }
        }
    }

    fn free(&self) -> u64 {
        let space = rustix::fs::statvfs(&self.0).unwrap();
        space.f_bavail * space.f_frsize
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn a_full_disk_is_told_shows_nothing_and_gives_its_space_back() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let Some(disk) = SmallDisk::at(place.path("disk"), 20) else { return };
    let archive = place.path("disk/arch");
    let run = |arguments: &[&str]| place.run([&["-a", archive.to_str().unwrap()], arguments].concat());
    assert_eq!(place.run(["init", "disk/arch"]).status(), Some(0));
    fs::create_dir(place.path("tree")).unwrap();
    fs::write(place.path("tree/small"), "small").unwrap();
    assert_eq!(run(&["commit", "tree"]).status(), Some(0));
    let free = disk.free();
    // Classic: four times its size.
    fs::write(place.path("large"), content(9_000_000, 1)).unwrap();
    let outcome = run(&["commit", "large"]);
    outcome.told(1, &["full"]);
    assert!(free - disk.free() < 200_000, "{} bytes are not given back", free - disk.free());
    assert_eq!(run(&["ls"]).stdout(), "tree\n");
    // Many files: what is whole may stay for the next commit, and goes with gc.
    fs::create_dir(place.path("many")).unwrap();
    for index in 0..30 {
        fs::write(place.path(&format!("many/{index}")), content(400_000, index)).unwrap();
    }
    run(&["commit", "many"]).told(1, &["full"]);
    assert_eq!(run(&["ls"]).stdout(), "tree\n", "a part of the commit is visible");
    let gc = run(&["gc"]);
    assert_eq!(gc.status(), Some(0), "{}", gc.stderr());
    assert!(free - disk.free() < 300_000, "{} bytes are not given back", free - disk.free());
    assert_eq!(run(&["cat", "tree/small"]).stdout(), "small");
    assert_eq!(run(&["health"]).status(), Some(0));
    // Not a byte is left: everything that only reads still works.
    let mut filler = fs::File::create(place.path("disk/filler")).unwrap();
    let piece = vec![1; 1 << 16];
    while std::io::Write::write_all(&mut filler, &piece).is_ok() {}
    while std::io::Write::write_all(&mut filler, &piece[..512]).is_ok() {}
    assert_eq!(run(&["cat", "tree/small"]).stdout(), "small");
    assert_eq!(run(&["ls"]).stdout(), "tree\n");
    fs::write(place.path("tiny"), "tiny").unwrap();
    run(&["commit", "tiny"]).told(1, &["full"]);
    if can_mount() {
        let mountpoint = place.path("mnt");
        let outcome = run(&["mount", mountpoint.to_str().unwrap()]);
        assert_eq!(outcome.status(), Some(0), "{}", outcome.stderr());
        assert_eq!(fs::read(mountpoint.join("tree/small")).unwrap(), b"small");
        place.ok(["umount", "mnt"]);
    }
    drop(filler);
    fs::remove_file(place.path("disk/filler")).unwrap();
    assert_eq!(run(&["commit", "tiny"]).status(), Some(0));
}

#[test]
fn names_that_are_too_long_are_told_and_the_rest_is_committed() {
    let place = with_archive();
    let deep = vec!["d".repeat(250); 17].join("/");
    place.run(["commit", "src/small", "--to", &deep]).told(2, &["longer"]);
    place.run(["cat", &"n".repeat(300)]).told(2, &["file name"]);
    // A path that fits on the disk and not below its destination.
    let half = vec!["h".repeat(250); 8].join("/");
    fs::create_dir_all(place.path(&format!("tree/{half}"))).unwrap();
    fs::write(place.path("tree/kept"), "kept").unwrap();
    let outcome = place.run(["commit", "tree", "--to", &half.replace('h', "t")]);
    assert_eq!(outcome.status(), Some(if outcome.stderr().is_empty() { 0 } else { 1 }), "{}", outcome.stderr());
    assert!(place.ok(["find", "kept"]).contains("/tree/kept"));
    is_whole_below(&place, "src");
    // Nothing is created outside by a name that climbs.
    place.run(["commit", "src", "--to", "../../up"]).told(2, &[".."]);
}

type Change = Box<dyn Fn(&mut Value)>;

/// Damages each copy of an object's manifest in the same way.
fn replace_manifests(place: &Place, object: &Path, change: &dyn Fn(&mut Value)) {
    let bytes = fs::read(object.join("manifest.json")).unwrap();
    let bad = resealed(&bytes, change);
    for copy in ["manifest.json", "manifest.copy.json"] {
        fs::write(place.archive().join(object).join(copy), &bad).unwrap();
    }
}

#[test]
fn a_hostile_manifest_harms_its_object_alone() {
    let place = with_archive();
    let pristine = files_below(&place.archive());
    let object = place.object("one");
    let bytes = fs::read(object.join("manifest.json")).unwrap();
    let good: Value = serde_json::from_slice(&bytes).unwrap();
    println!("{}", serde_json::to_string_pretty(&good).unwrap());
    let mut cases: Vec<(String, Change)> = Vec::new();
    // Every number anywhere in it, one after the other, becomes each of these.
    let numbers = paths_of(&good, &|value| value.is_number());
    assert!(numbers.len() > 8, "{numbers:?}");
    for path in &numbers {
        for bad in [json!(0), json!(-1), json!(u64::MAX), json!(1u64 << 40), json!(1e300), json!("7"), Value::Null] {
            let path = path.clone();
            cases.push((
                format!("{path} is {bad}"),
                Box::new(move |value| *value.pointer_mut(&path).unwrap() = bad.clone()),
            ));
        }
    }
    for path in paths_of(&good, &|value| value.is_string() || value.is_array() || value.is_object()) {
        if path.is_empty() {
            continue;
        }
        for bad in [json!(""), json!("../../../etc/passwd"), json!([]), json!({}), json!([[[[]]]]), Value::Null] {
            let path = path.clone();
            cases.push((
                format!("{path} is {bad}"),
                Box::new(move |value| *value.pointer_mut(&path).unwrap() = bad.clone()),
            ));
        }
    }
    cases.push(("an unknown member".into(), Box::new(|value| value["surprise"] = json!(1))));
    let outside = files_below(place.directory.path()).len();
    for (what, change) in &cases {
        replace_manifests(&place, &object, change);
        let found = std::panic::catch_unwind(|| view::of_archive(&place.archive()));
        let mut found = found.unwrap_or_else(|_| panic!("{what}: the archive cannot be opened or listed"));
        let one = found.get_mut(b"src/one".as_slice()).unwrap();
        if matches!(one.content, Some(Err(_))) {
            one.content = Some(Ok(content(2_000_000, 1)));
        }
        if let Some(difference) = difference(&view::of_source("src", &place.path("src")), &found) {
            panic!("{what}:\n{difference}");
        }
        // Nor does a rebuild from the objects alone fall for it.
        let (archive, catalog) = view::open(&place.archive());
        drop(catalog);
        rebuild(&place.archive(), &archive, RebuildSource::Objects).unwrap_or_else(|error| panic!("{what}: {error}"));
        let rebuilt = view::of_archive(&place.archive());
        for name in [b"src/small".as_slice(), b"src/two"] {
            assert_eq!(rebuilt.get(name), found.get(name), "{what}");
        }
        for file in files_below(&place.archive()).keys().filter(|file| !pristine.contains_key(*file)) {
            fs::remove_file(place.archive().join(file)).unwrap();
        }
        let changed = |file: &&PathBuf| file.starts_with(".blockframe") || file.to_string_lossy().contains("manifest");
        for file in pristine.keys().filter(changed) {
            fs::write(place.archive().join(file), &pristine[file]).unwrap();
        }
    }
    assert_eq!(files_below(place.directory.path()).len(), outside, "something was made outside");
    assert!(
        files_below(&object)
            .iter()
            .all(|(file, bytes)| { pristine[&PathBuf::from(object.file_name().unwrap()).join(file)] == *bytes })
    );
    println!("{} hostile manifests", cases.len());
    // What the program says of some of them, and that a rebuild does not believe them either.
    let of_sizes = |value: &mut Value| value["key"]["plain_size"] = json!(u64::MAX);
    let foreign = |value: &mut Value| value["archive"] = json!("00000000-0000-4000-8000-000000000000");
    for change in [&of_sizes as &dyn Fn(&mut Value), &foreign] {
        replace_manifests(&place, &object, change);
        let name = object.file_name().unwrap().to_str().unwrap();
        let health = place.run(["health"]);
        assert_eq!(health.status(), Some(4), "{}{}", health.stdout(), health.stderr());
        assert!(health.stdout().contains("src/one"), "{}", health.stdout());
        place.run(["cat", "src/one"]).told(4, &[name, "manifest"]);
        assert_eq!(place.ok(["cat", "src/small"]), "small");
        let rebuilt = place.run(["rebuild-catalog", "--source", "objects"]);
        assert_eq!(rebuilt.status(), Some(3), "{}{}", rebuilt.stdout(), rebuilt.stderr());
        assert!(rebuilt.stdout().contains(name), "{}", rebuilt.stdout());
        assert_eq!(place.ok(["cat", "src/small"]), "small");
        for (file, bytes) in &pristine {
            fs::write(place.archive().join(file), bytes).unwrap();
        }
        is_whole(&place, "put back");
    }
}

/// JSON pointers of all values that are as wanted.
fn paths_of(value: &Value, wanted: &dyn Fn(&Value) -> bool) -> Vec<String> {
    let mut paths = Vec::new();
    let mut todo = vec![(String::new(), value)];
    while let Some((path, value)) = todo.pop() {
        if wanted(value) && path != "/checksum" {
            paths.push(path.clone());
        }
        match value {
            Value::Array(items) => {
                todo.extend(items.iter().take(3).enumerate().map(|(index, item)| (format!("{path}/{index}"), item)));
            }
            Value::Object(members) => {
                todo.extend(
                    members.iter().map(|(name, member)| (format!("{path}/{}", name.replace('/', "~1")), member)),
                );
            }
            _ => {}
        }
    }
    paths.sort();
    paths
}

#[test]
fn a_hostile_descriptor_is_an_error_and_not_a_crash() {
    let place = with_archive();
    let pristine = files_below(&place.archive());
    let bytes = fs::read(place.archive().join("blockframe-store.json")).unwrap();
    let good: Value = serde_json::from_slice(&bytes).unwrap();
    let mut refused = 0;
    for path in paths_of(&good, &|value| value.is_number()) {
        for bad in [json!(0), json!(-1), json!(u64::MAX), json!(1u64 << 33)] {
            let hostile = resealed(&bytes, |value| *value.pointer_mut(&path).unwrap() = bad.clone());
            for copy in ["blockframe-store.json", ".blockframe/store.json"] {
                fs::write(place.archive().join(copy), &hostile).unwrap();
            }
            let outcome = place.run(["cat", "src/small"]);
            assert!(!outcome.stderr().contains("panicked"), "{path} is {bad}: {}", outcome.stderr());
            match outcome.status() {
                Some(0) => assert_eq!(outcome.stdout(), "small"),
                Some(1 | 4 | 5) => refused += 1,
                other => panic!("{path} is {bad}: {other:?} {}", outcome.stderr()),
            }
            for (file, bytes) in &pristine {
                fs::write(place.archive().join(file), bytes).unwrap();
            }
        }
    }
    assert!(refused > 20, "{refused}");
    is_whole(&place, "put back");
}

#[test]
fn orphans_and_foreign_files_are_left_alone() {
    let place = with_archive();
    let archive = place.archive();
    fs::write(archive.join("notes.txt"), "mine").unwrap();
    fs::write(archive.join(format!("file_{}", "a".repeat(64))), "no directory").unwrap();
    fs::create_dir_all(archive.join(format!("orphan_{}/segments", "0".repeat(64)))).unwrap();
    fs::create_dir_all(archive.join("holiday/2020")).unwrap();
    fs::write(archive.join("holiday/2020/a.jpg"), "picture").unwrap();
    symlink("/etc", archive.join("link")).unwrap();
    symlink(".", archive.join(format!("cycle_{}", "1".repeat(64)))).unwrap();
    fs::write(place.object("one").join("Thumbs.db"), "foreign").unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, place.object("two").join("pipe"), rustix::fs::Mode::RUSR).unwrap();
    let foreign = ["notes.txt", "holiday/2020/a.jpg"];
    for command in
        [&["ls"][..], &["health"], &["repair"], &["gc"], &["status"], &["commit", "src"], &["rebuild-catalog"]]
    {
        let outcome = place.run(command);
        assert_eq!(outcome.status(), Some(0), "{command:?}: {}{}", outcome.stdout(), outcome.stderr());
    }
    assert!(foreign.iter().all(|file| archive.join(file).is_file()));
    assert!(archive.join("link").is_symlink() && place.object("one").join("Thumbs.db").is_file());
    fs::remove_file(place.object("two").join("pipe")).unwrap();
    fs::remove_file(archive.join("link")).unwrap();
    fs::remove_file(archive.join(format!("cycle_{}", "1".repeat(64)))).unwrap();
    is_whole(&place, "among foreign files");
}

#[test]
fn another_archive_s_object_is_not_taken_for_ours() {
    let place = with_archive();
    fs::write(place.path("theirs"), content(2_500_000, 9)).unwrap();
    place.ok(["init", "other", "--profile", "balanced"]);
    place.ok(["-a", "other", "commit", "theirs"]);
    let theirs = fs::read_dir(place.path("other")).unwrap().map(|entry| entry.unwrap().path());
    let theirs = theirs.into_iter().find(|path| path.to_string_lossy().contains("theirs_")).unwrap();
    let here = place.archive().join(theirs.file_name().unwrap());
    fs::rename(&theirs, &here).unwrap();
    for command in [&["health"][..], &["gc"], &["rebuild-catalog", "--source", "journal"]] {
        let outcome = place.run(command);
        assert_eq!(outcome.status(), Some(0), "{command:?}: {}{}", outcome.stdout(), outcome.stderr());
    }
    // From the objects alone it is told, and left out.
    let rebuilt = place.run(["rebuild-catalog", "--source", "objects"]);
    assert!(rebuilt.stdout().contains("theirs_"), "{}{}", rebuilt.stdout(), rebuilt.stderr());
    is_whole(&place, "with a foreign object");
    assert!(here.join("manifest.json").is_file(), "what is not ours was removed");
}

/// A file's entry of this content.
fn file_entry(path: &str, bytes: &[u8]) -> Entry {
    let body = NodeBody::File(FileContent { size: bytes.len() as u64, hash: Digest::of(bytes), extents: None });
    Entry::Node { path: EntryPath::new(path).unwrap(), meta: NodeMeta::default(), body }
}

/// The bundle's content with some bytes replaced by as many others, sealed again.
fn tampered(mut content: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let places: Vec<usize> = (0..content.len() - from.len()).filter(|at| content[*at..].starts_with(from)).collect();
    assert!(!places.is_empty());
    for at in places {
        content[at..at + to.len()].copy_from_slice(to);
    }
    let place = BundleTable::locate(content.len() as u64, &content).unwrap();
    let end = place.end() as usize - Digest::LEN;
    let hash = Digest::of(&content[place.start() as usize..end]);
    content[end..end + Digest::LEN].copy_from_slice(hash.as_bytes());
    content
}

#[test]
fn a_hostile_bundle_harms_no_name_but_its_own() {
    let good = {
        let mut bundle = BundleBuilder::new();
        bundle.add_member(&file_entry("good/file", b"good"), b"good").unwrap();
        bundle.finish()
    };
    let evil = |path: &str| {
        let mut bundle = BundleBuilder::new();
        bundle.add_member(&file_entry(path, b"evil"), b"evil").unwrap();
        bundle.finish()
    };
    let links = {
        let link = |path: &str, target: &str| Entry::HardLink {
            path: EntryPath::new(path).unwrap(),
            target: EntryPath::new(target).unwrap(),
        };
        let mut bundle = BundleBuilder::new();
        for (path, target) in [("a", "b"), ("b", "a"), ("self", "self"), ("gone", "nowhere"), ("top", "good")] {
            bundle.add_row(&link(path, target));
        }
        bundle.add_member(&file_entry("good", b"a file where a directory is"), b"a file where a directory is").unwrap();
        bundle.add_member(&file_entry("good/file/below", b"evil"), b"evil").unwrap();
        bundle.finish()
    };
    let hostile = [
        ("climbs", tampered(evil("aa/evil"), b"aa/evil", b"../evil")),
        ("stays", tampered(evil("aa/a/evil"), b"aa/a/evil", b"aa/./evil")),
        ("is absolute", tampered(evil("atmp/evil"), b"atmp/evil", b"/tmp/evil")),
        ("has a NUL", tampered(evil("aa/evil"), b"aa/evil", b"aa/\0vil")),
        ("links in circles", links),
    ];
    for (what, content) in hostile {
        let fixture = kit::Fixture::new(kit::tiny_descriptor());
        let put = |name: &str, content: &Vec<u8>, sequence| {
            let plan = ObjectPlan {
                readable: name.into(),
                kind: ObjectKind::Bundle,
                sequence,
                entry: None,
                compression: None,
            };
            let control = WriteControl { progress: &|_| {}, cancel: &false.into() };
            fixture.archive.write_object(content, &plan, &control).unwrap();
        };
        put("good", &good, 1);
        put("evil", &content, 2);
        let found = view::of_archive(fixture.dir.path());
        for path in found.keys().map(|path| String::from_utf8_lossy(path).into_owned()) {
            assert!(!path.contains("..") && !path.contains("evil") && !path.contains("vil"), "{what}: {path} is there");
        }
        if what != "links in circles" {
            let seen = found.get(b"good/file".as_slice()).unwrap_or_else(|| panic!("{what}: {found:?}"));
            assert_eq!(seen.content, Some(Ok(b"good".to_vec())), "{what}");
        }
        println!("{what}: {:?}", found.keys().map(|path| String::from_utf8_lossy(path)).collect::<Vec<_>>());
    }
}
