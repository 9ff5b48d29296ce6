//! Real mounts of real archives, through the program itself. Every mount lies
//! in a directory of its own and is gone when its test ends.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_blockframe");
/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A source tree, an archive and a mount point.
struct Fixture {
    directory: TempDir,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // Whatever a failed test left behind.
        while is_mounted(&self.mountpoint()) {
            let _ = rustix::mount::unmount(self.mountpoint(), rustix::mount::UnmountFlags::DETACH);
        }
    }
}

impl Fixture {
    /// `None`, with a line that says why, where there is no FUSE device.
    fn new() -> Option<Self> {
        if !Path::new("/dev/fuse").exists() {
            eprintln!("skipped: there is no /dev/fuse here");
            return None;
        }
        let fixture = Self { directory: tempfile::tempdir().unwrap() };
        fs::create_dir(fixture.source()).unwrap();
        fs::create_dir(fixture.mountpoint()).unwrap();
        Some(fixture)
    }

    /// With an archive of the profile `balanced` that holds what `fill` puts into the source.
    fn with_archive(fill: impl FnOnce(&Path)) -> Option<Self> {
        let fixture = Self::new()?;
        fill(&fixture.source());
        expect_done(
            &fixture
                .run(["init", "--profile", "balanced"].map(OsStr::new).iter().chain([&fixture.archive().as_os_str()])),
        );
        fixture.commit();
        Some(fixture)
    }

    fn source(&self) -> PathBuf {
        self.directory.path().join("source")
    }

    fn archive(&self) -> PathBuf {
        self.directory.path().join("archive")
    }

    fn mountpoint(&self) -> PathBuf {
        self.directory.path().join("mnt")
    }

    /// Where the source's copy is seen in the mount.
    fn mounted(&self) -> PathBuf {
        self.mountpoint().join("source")
    }

    fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg("--archive").arg(self.archive()).args(arguments).current_dir(self.directory.path());
        command.env_remove("NOTIFY_SOCKET").stdin(Stdio::null());
        command
    }

    fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn commit(&self) {
        expect_done(&self.run([OsStr::new("commit"), self.source().as_os_str()]));
    }

    fn mount(&self) {
        expect_done(&self.run([OsStr::new("mount"), self.mountpoint().as_os_str()]));
        assert!(is_mounted(&self.mountpoint()));
    }

    fn unmount(&self) {
        expect_done(&self.run([OsStr::new("umount"), self.mountpoint().as_os_str()]));
        assert!(!is_mounted(&self.mountpoint()));
    }

    /// A daemon in the foreground whose mount answers.
    fn serve(&self) -> Daemon {
        let socket = UnixDatagram::bind(self.directory.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut command =
            self.command([OsStr::new("mount"), self.mountpoint().as_os_str(), OsStr::new("--foreground")]);
        let child = command.env("NOTIFY_SOCKET", self.directory.path().join("notify")).spawn().unwrap();
        let daemon = Daemon { child, socket };
        assert!(daemon.notification().contains("READY=1"));
        daemon
    }
}

/// A daemon in the foreground. It is killed when its test fails.
struct Daemon {
    child: Child,
    socket: UnixDatagram,
}

impl Daemon {
    fn notification(&self) -> String {
        let mut bytes = [0; 1000];
        let len = self.socket.recv(&mut bytes).expect("the daemon notifies");
        String::from_utf8_lossy(&bytes[..len]).into_owned()
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn expect_done(output: &Output) {
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
}

fn is_mounted(mountpoint: &Path) -> bool {
    let table = fs::read("/proc/self/mountinfo").unwrap();
    table
        .split(|&b| b == b'\n')
        .any(|line| line.split(|&b| b == b' ').nth(4) == Some(mountpoint.as_os_str().as_bytes()))
}

/// Bytes that do not compress and do not repeat.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// A tree with everything that an archive promises to keep.
fn fill_with_everything(source: &Path) {
    let write = |name: &str, bytes: &[u8]| fs::write(source.join(name), bytes).unwrap();
    for directory in ["empty", "deep/er/still", "many"] {
        fs::create_dir_all(source.join(directory)).unwrap();
    }
    write("empty file", b"");
    write("one byte", b"x");
    write("deep/er/still/leaf", &noise(1, 16 * 1024));
    write("odd", &noise(2, 300_001));
    write("tier 2", &noise(3, 12_000_003));
    for index in 0..300 {
        write(&format!("many/{index:04}"), &noise(100 + index, (index as usize * 37) % 9000));
    }
    write("twin a", b"the same content");
    write("deep/twin b", b"the same content");
    fs::hard_link(source.join("odd"), source.join("deep/odd again")).unwrap();
    symlink("deep/er", source.join("link")).unwrap();
    symlink("/nowhere/at all", source.join("dangling")).unwrap();
    fs::write(source.join(OsStr::from_bytes(b"not \xff utf-8 \x01")), b"name").unwrap();
    fs::write(source.join("n".repeat(255)), b"long name").unwrap();
    let sparse = fs::File::create(source.join("sparse")).unwrap();
    sparse.write_all_at(&noise(4, 100_000), 8 << 20).unwrap();
    sparse.set_len(20 << 20).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, source.join("pipe"), rustix::fs::Mode::RUSR).unwrap();
    xattr::set(source.join("odd"), "user.colour", b"blue\0green").unwrap();
    xattr::set(source.join("empty"), "user.note", b"a directory's").unwrap();
    for (name, mode) in [("one byte", 0o4711), ("deep", 0o1777), ("empty file", 0o000)] {
        fs::set_permissions(source.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::lchown(source.join("link"), Some(1234), Some(5678)).unwrap();
        std::os::unix::fs::chown(source.join("twin a"), Some(70_000), Some(80_000)).unwrap();
    }
    let times = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH - Duration::new(1000, 123_456_789));
    fs::File::options().write(true).open(source.join("twin a")).unwrap().set_times(times).unwrap();
}

/// All names below `top` in order, with what `stat` and the like say of them.
fn picture(top: &Path) -> BTreeMap<PathBuf, Picture> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![top.to_path_buf()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let picture = Picture::of(&path);
            if picture.kind.is_dir() {
                waiting.push(path.clone());
            }
            found.insert(path.strip_prefix(top).unwrap().to_path_buf(), picture);
        }
    }
    found
}

#[derive(Debug, PartialEq)]
struct Picture {
    kind: fs::FileType,
    mode: u32,
    owner: (u32, u32),
    size: Option<u64>,
    links: u64,
    modified: (i64, i64),
    target: Option<PathBuf>,
    xattrs: Vec<(OsString, Vec<u8>)>,
    content: Option<blake3::Hash>,
}

impl Picture {
    fn of(path: &Path) -> Self {
        let metadata = fs::symlink_metadata(path).unwrap();
        let kind = metadata.file_type();
        let xattrs = if kind.is_symlink() { Vec::new() } else { xattr::list(path).unwrap().collect() };
        let mut xattrs: Vec<OsString> =
            xattrs.into_iter().filter(|name| !name.as_bytes().starts_with(b"user.blockframe.")).collect();
        xattrs.sort();
        let value = |name: OsString| {
            let value = xattr::get(path, &name).unwrap().unwrap();
            (name, value)
        };
        Self {
            kind,
            mode: metadata.mode(),
            owner: (metadata.uid(), metadata.gid()),
            size: (!kind.is_dir()).then_some(metadata.size()),
            links: metadata.nlink(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            target: kind.is_symlink().then(|| fs::read_link(path).unwrap()),
            xattrs: xattrs.into_iter().map(value).collect(),
            content: kind.is_file().then(|| {
                let mut hasher = blake3::Hasher::new();
                io::copy(&mut fs::File::open(path).unwrap(), &mut hasher).unwrap();
                hasher.finalize()
            }),
        }
    }
}

/// The shard files of the object that holds a mounted file, those with content first.
fn shards(fixture: &Fixture, name: &str) -> Vec<PathBuf> {
    let object = xattr::get(fixture.mounted().join(name), "user.blockframe.object").unwrap().unwrap();
    let object = fixture.archive().join(OsStr::from_bytes(&object));
    let mut files = Vec::new();
    let mut waiting = vec![object];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension() == Some(OsStr::new("dat")) && path.file_name() != Some(OsStr::new("tree.dat")) {
                files.push(path);
            }
        }
    }
    files.sort_by_key(|path| (path.to_string_lossy().contains("parity"), path.clone()));
    assert!(files.len() > 1, "{files:?}");
    files
}

fn flip(file: &Path, offset: u64) {
    let file = fs::File::options().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[!byte[0]], offset).unwrap();
}

#[test]
fn the_mounted_tree_is_its_source_in_every_byte_and_attribute() {
    let Some(fixture) = Fixture::with_archive(fill_with_everything) else { return };
    fixture.mount();
    let (source, mounted) = (picture(&fixture.source()), picture(&fixture.mounted()));
    assert_eq!(source.keys().collect::<Vec<_>>(), mounted.keys().collect::<Vec<_>>());
    for (path, expected) in &source {
        assert_eq!(&mounted[path], expected, "{}", path.display());
    }
    let inode = |name: &str| fs::metadata(fixture.mounted().join(name)).unwrap().ino();
    assert_eq!(inode("odd"), inode("deep/odd again"));
    assert_ne!(inode("twin a"), inode("deep/twin b"));
    let sparse = fs::metadata(fixture.mounted().join("sparse")).unwrap();
    assert!(sparse.blocks() * 512 < 1 << 20, "{} blocks", sparse.blocks());
    let mut file = fs::File::open(fixture.mounted().join("sparse")).unwrap();
    assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0)).unwrap(), 8 << 20);
    file.seek(SeekFrom::Start(7 << 20)).unwrap();
    let mut zeros = [1; 4096];
    file.read_exact(&mut zeros).unwrap();
    assert_eq!(zeros, [0; 4096]);
    drop(file);
    fixture.unmount();
    assert_eq!(fs::read_dir(fixture.mountpoint()).unwrap().count(), 0);
}

#[test]
fn inode_numbers_stay_the_same_over_remounts() {
    let Some(fixture) = Fixture::with_archive(fill_with_everything) else { return };
    let numbers = || {
        let paths = picture(&fixture.mounted()).into_keys();
        paths.map(|path| (fs::symlink_metadata(fixture.mounted().join(&path)).unwrap().ino(), path)).collect::<Vec<_>>()
    };
    fixture.mount();
    let first = numbers();
    fixture.unmount();
    fixture.mount();
    assert_eq!(numbers(), first);
    fixture.unmount();
}

#[test]
fn every_file_tells_where_its_bytes_are() {
    let Some(fixture) = Fixture::with_archive(|source| {
        fs::write(source.join("file"), noise(1, 100_000)).unwrap();
        fs::write(source.join("nothing"), b"").unwrap();
    }) else {
        return;
    };
    fixture.mount();
    let get = |file: &str, name: &str| {
        let value = xattr::get(fixture.mounted().join(file), format!("user.blockframe.{name}")).unwrap().unwrap();
        String::from_utf8(value).unwrap()
    };
    assert_eq!(get("file", "hash"), blake3::hash(&noise(1, 100_000)).to_hex().as_str());
    assert_eq!(get("file", "tier"), "1");
    assert!(fixture.archive().join(get("file", "object")).join("manifest.json").is_file());
    assert!(["unknown", "healthy"].contains(&get("file", "state").as_str()));
    assert!(!get("file", "verified_at").is_empty());
    assert_eq!(get("nothing", "object"), "none");
    let listed: Vec<OsString> = xattr::list(fixture.mounted().join("file")).unwrap().collect();
    assert!(listed.is_empty(), "programs that copy attributes would copy them: {listed:?}");
    let space = rustix::fs::statvfs(fixture.mountpoint()).unwrap();
    let store = rustix::fs::statvfs(fixture.archive()).unwrap();
    let free = space.f_bavail * space.f_frsize;
    assert!(free > 0 && free < store.f_bavail * store.f_frsize, "free space is not net of parity");
    fixture.unmount();
}

#[test]
fn damage_within_the_parity_is_not_seen() {
    let content = noise(7, 12_000_003);
    let Some(fixture) = Fixture::with_archive(|source| fs::write(source.join("file"), &content).unwrap()) else {
        return;
    };
    fixture.mount();
    let shards = shards(&fixture, "file");
    flip(&shards[0], 5);
    flip(&shards[1], 70_000);
    fs::remove_file(&shards[2]).unwrap();
    assert!(fs::read(fixture.mounted().join("file")).unwrap() == content, "wrong bytes");
    fixture.unmount();
}

#[test]
fn what_is_lost_is_an_error_for_its_range_alone() {
    let content = noise(8, 200_000);
    let Some(fixture) = Fixture::with_archive(|source| fs::write(source.join("file"), &content).unwrap()) else {
        return;
    };
    fixture.mount();
    // The same leaf of every shard: more than any parity heals.
    for shard in shards(&fixture, "file") {
        flip(&shard, 100);
    }
    let file = fs::File::open(fixture.mounted().join("file")).unwrap();
    let mut byte = [0; 1];
    let error = file.read_exact_at(&mut byte, 100).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
    let mut good = 0;
    for page in 0..content.len() / 4096 {
        let mut bytes = [0; 4096];
        if file.read_exact_at(&mut bytes, page as u64 * 4096).is_ok() {
            assert!(bytes == content[page * 4096..][..4096], "wrong bytes in page {page}");
            good += 1;
        }
    }
    assert!(good >= 24, "only {good} pages are readable");
    drop(file);
    fixture.unmount();
}

#[test]
fn a_commit_is_seen_through_the_mount_and_by_files_that_are_open() {
    let Some(fixture) = Fixture::with_archive(|source| {
        fs::write(source.join("changing"), noise(1, 50_000)).unwrap();
    }) else {
        return;
    };
    fixture.mount();
    let old = fs::File::open(fixture.mounted().join("changing")).unwrap();
    assert!(!fixture.mounted().join("new").exists());
    fs::write(fixture.source().join("new"), b"new").unwrap();
    fs::write(fixture.source().join("changing"), noise(2, 50_000)).unwrap();
    fixture.commit();
    let deadline = Instant::now() + PATIENCE;
    while !fixture.mounted().join("new").exists() {
        assert!(Instant::now() < deadline, "the new name does not appear");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(fs::read(fixture.mounted().join("new")).unwrap(), b"new");
    assert!(fs::read(fixture.mounted().join("changing")).unwrap() == noise(2, 50_000), "the new open reads old bytes");
    let mut bytes = vec![0; 50_000];
    old.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == noise(2, 50_000), "the old handle does not read the new bytes, or a mixture");
    drop(old);
    assert!(fs::read(fixture.mounted().join("changing")).unwrap() == noise(2, 50_000));
    fixture.unmount();
}

#[test]
fn a_signal_unmounts_cleanly_and_systemd_is_told() {
    use rustix::process::Signal;
    let Some(fixture) = Fixture::with_archive(|source| fs::write(source.join("file"), b"x").unwrap()) else { return };
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut daemon = fixture.serve();
        assert_eq!(fs::read(fixture.mounted().join("file")).unwrap(), b"x");
        daemon.signal(signal);
        assert!(daemon.notification().contains("STOPPING=1"));
        assert!(daemon.child.wait().unwrap().success());
        assert!(!is_mounted(&fixture.mountpoint()));
        fs::remove_file(fixture.directory.path().join("notify")).unwrap();
    }
}

#[test]
fn a_signal_ends_the_daemon_although_a_file_is_open() {
    let Some(fixture) = Fixture::with_archive(|source| fs::write(source.join("file"), b"x").unwrap()) else { return };
    let mut daemon = fixture.serve();
    let file = fs::File::open(fixture.mounted().join("file")).unwrap();
    daemon.signal(rustix::process::Signal::TERM);
    assert!(daemon.child.wait().unwrap().success());
    assert!(!is_mounted(&fixture.mountpoint()));
    drop(file);
}

#[test]
fn the_remains_of_a_killed_daemon_are_cleaned_at_the_next_mount() {
    let Some(fixture) = Fixture::with_archive(|source| fs::write(source.join("file"), b"x").unwrap()) else { return };
    let mut daemon = fixture.serve();
    // Now the kernel knows the root's attributes for as long as it was told.
    fs::metadata(fixture.mountpoint()).unwrap();
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    fixture.mount();
    fixture.unmount();
    fs::remove_file(fixture.directory.path().join("notify")).unwrap();
    let mut daemon = fixture.serve();
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    let error = fs::metadata(fixture.mountpoint()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::NOTCONN.raw_os_error()));
    fixture.mount();
    assert_eq!(fs::read(fixture.mounted().join("file")).unwrap(), b"x");
    fixture.unmount();
}

#[test]
fn a_mount_that_cannot_be_is_explained() {
    let Some(fixture) = Fixture::with_archive(|source| fs::write(source.join("file"), b"x").unwrap()) else { return };
    let refused = |arguments: &[&OsStr], named: &str| {
        let output = fixture.run(arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{arguments:?} succeeded");
        assert!(text.contains(named), "{arguments:?}: {text}");
        assert!(!text.contains("panicked"), "{text}");
        output.status.code()
    };
    let (mount, umount) = (OsStr::new("mount"), OsStr::new("umount"));
    let mountpoint = fixture.mountpoint();
    let missing = fixture.directory.path().join("missing");
    refused(&[mount, missing.as_os_str()], "mkdir -p");
    refused(&[mount, fixture.source().join("file").as_os_str()], "is not a directory");
    refused(&[mount, fixture.source().as_os_str()], "is not empty");
    refused(&[umount, mountpoint.as_os_str()], "nothing is mounted");
    assert_eq!(refused(&[mount], "default_mountpoint"), Some(2));
    assert_eq!(refused(&[mount, mountpoint.as_os_str(), OsStr::new("-o"), OsStr::new("fast")], "\"fast\""), Some(2));
    fixture.mount();
    refused(&[mount, mountpoint.as_os_str()], "is busy");
    fixture.unmount();
    fs::remove_dir_all(fixture.archive()).unwrap();
    assert_eq!(refused(&[mount, mountpoint.as_os_str()], "init"), Some(5));
}

#[test]
fn the_helper_of_mount_serves_an_fstab_line() {
    let Some(fixture) = Fixture::with_archive(|source| fs::write(source.join("file"), b"x").unwrap()) else { return };
    let helper = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/mount.blockframe");
    let output = Command::new("sh")
        .arg(helper)
        .arg(fixture.archive())
        .arg(fixture.mountpoint())
        .args(["-n", "-o", "rw,nofail,noexec,x-systemd.automount"])
        .env("BLOCKFRAME", PROGRAM)
        .output()
        .unwrap();
    expect_done(&output);
    assert_eq!(fs::read(fixture.mounted().join("file")).unwrap(), b"x");
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table.lines().find(|line| line.contains(&*fixture.mountpoint().to_string_lossy())).unwrap();
    assert!(line.contains("noexec") && line.contains(" rw,"), "{line}");
    fixture.unmount();
}

#[test]
fn many_readers_at_once_see_the_right_bytes() {
    let Some(fixture) = Fixture::with_archive(fill_with_everything) else { return };
    fixture.mount();
    std::thread::scope(|scope| {
        for reader in 0..8u64 {
            let (source, mounted) = (fixture.source(), fixture.mounted());
            scope.spawn(move || {
                let mut place = reader;
                for _ in 0..200 {
                    place = place.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    let name = match place >> 60 {
                        0..4 => "tier 2".to_owned(),
                        4..6 => "odd".to_owned(),
                        _ => format!("many/{:04}", (place >> 30) % 300),
                    };
                    let expected = fs::File::open(source.join(&name)).unwrap();
                    let got = fs::File::open(mounted.join(&name)).unwrap();
                    let start = (place >> 20) % (expected.metadata().unwrap().size() + 1);
                    let (mut a, mut b) = (vec![0; 20_000], vec![0; 20_000]);
                    let (a_len, b_len) =
                        (expected.read_at(&mut a, start).unwrap(), got.read_at(&mut b, start).unwrap());
                    assert_eq!(a_len, b_len, "{name} at {start}");
                    assert!(a == b, "{name} at {start}: wrong bytes");
                }
            });
        }
    });
    fixture.unmount();
}
