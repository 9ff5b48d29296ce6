//! Real mounts that are written: the reference model in memory stands behind
//! them, or a directory that is passed through.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod kit;
#[path = "../examples/passthrough.rs"]
#[allow(dead_code)]
mod passthrough;

use blockframe_api::memory::MemoryVfs;
use blockframe_api::{CachePolicy, Caller, Node, OpenHow, Timestamp, Vfs};
use blockframe_fuse::MountOptions;
use kit::Fixture;
use rustix::fs::{CWD, FlockOperation, OFlags, RawDir, RenameFlags, renameat_with};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread;
use std::time::Duration;

/// An ordinary user.
const NOBODY: u32 = 65534;

fn memory(cache: CachePolicy) -> Arc<MemoryVfs> {
    let ticks = AtomicI64::new(1_000_000_000);
    let now = move || Timestamp { seconds: ticks.fetch_add(1, Ordering::SeqCst), nanoseconds: 7 };
    let owner =
        Caller { user: rustix::process::getuid().as_raw(), group: rustix::process::getgid().as_raw(), umask: 0 };
    Arc::new(MemoryVfs::new(Arc::new(now), owner).with_cache(cache))
}

fn options() -> MountOptions {
    MountOptions { suid: is_root(), ..MountOptions::new("blockframe:test") }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn mount(vfs: &Arc<MemoryVfs>) -> Option<Fixture> {
    Fixture::new(Arc::clone(vfs) as Arc<dyn Vfs>, &options())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn errno(result: std::io::Result<impl Sized>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

#[test]
fn rename_understands_its_flags() {
    let Some(fixture) = mount(&memory(CachePolicy::Keep)) else { return };
    let (a, b, c) = (fixture.path().join("a"), fixture.path().join("b"), fixture.path().join("c"));
    fs::write(&a, "a").unwrap();
    fs::create_dir(&b).unwrap();
    assert_eq!(renameat_with(CWD, &a, CWD, &b, RenameFlags::NOREPLACE), Err(Errno::EXIST));
    assert_eq!(renameat_with(CWD, &a, CWD, &b, RenameFlags::empty()), Err(Errno::ISDIR));
    assert_eq!(renameat_with(CWD, &a, CWD, &c, RenameFlags::WHITEOUT), Err(Errno::INVAL));
    assert_eq!(renameat_with(CWD, &a, CWD, &c, RenameFlags::EXCHANGE), Err(Errno::NOENT));
    renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).unwrap();
    assert!(a.is_dir());
    assert_eq!(fs::read(&b).unwrap(), b"a");
    renameat_with(CWD, &b, CWD, &c, RenameFlags::NOREPLACE).unwrap();
    assert_eq!(fs::read(&c).unwrap(), b"a");
}

/// Runs a line of shell as an ordinary user.
fn as_nobody(path: &Path, line: &str) {
    let mut command = Command::new("sh");
    let status = command.arg("-c").arg(line).arg("sh").arg(path).uid(NOBODY).gid(NOBODY).status().unwrap();
    assert!(status.success(), "{line}");
}

#[test]
fn an_ordinary_users_change_takes_the_set_id_bits_away() {
    if !is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    for cache in [CachePolicy::Keep, CachePolicy::Bypass] {
        let Some(fixture) = mount(&memory(cache)) else { return };
        let file = fixture.path().join("program");
        let arm = || {
            fs::write(&file, "0123456789").unwrap();
            fs::set_permissions(&file, PermissionsExt::from_mode(0o6777)).unwrap();
        };
        for line in ["echo x >> \"$1\"", ": > \"$1\"", "truncate -s 3 \"$1\"", "fallocate -l 20 \"$1\""] {
            arm();
            // The kernel knows the mode: what it remembers must go as well.
            assert_eq!(mode(&file), 0o6777);
            as_nobody(&file, line);
            assert_eq!(mode(&file), 0o777, "{line}");
        }
        arm();
        OpenOptions::new().append(true).open(&file).unwrap().write_all(b"x").unwrap();
        File::options().write(true).open(&file).unwrap().set_len(3).unwrap();
        assert_eq!(mode(&file), 0o6777, "root may");
        std::os::unix::fs::chown(&file, Some(NOBODY), None).unwrap();
        assert_eq!(mode(&file), 0o777, "a new owner");
        let directory = fixture.path().join("directory");
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, PermissionsExt::from_mode(0o2777)).unwrap();
        std::os::unix::fs::chown(&directory, None, Some(NOBODY)).unwrap();
        fs::create_dir(directory.join("below")).unwrap();
        let below = fs::metadata(directory.join("below")).unwrap();
        assert_eq!((below.gid(), below.mode() & 0o2000), (NOBODY, 0o2000));
    }
}

#[test]
fn an_access_list_takes_set_group_id_from_who_is_not_in_the_group() {
    if !is_root() || Command::new("setfacl").arg("--version").output().is_err() {
        eprintln!("skipped: needs root and setfacl");
        return;
    }
    let Some(fixture) = mount(&memory(CachePolicy::Keep)) else { return };
    let file = fixture.path().join("file");
    fs::write(&file, "").unwrap();
    for (group, left) in [(NOBODY, 0o2000), (0, 0)] {
        std::os::unix::fs::chown(&file, Some(NOBODY), Some(group)).unwrap();
        fs::set_permissions(&file, PermissionsExt::from_mode(0o2755)).unwrap();
        as_nobody(&file, "setfacl -m u:1:rwx \"$1\"");
        assert_eq!(mode(&file), 0o775 | left);
    }
}

/// The other process of the next test.
#[test]
fn another_process_tries_locks() {
    let Some(path) = std::env::var_os("BLOCKFRAME_TEST_LOCKED") else { return };
    let file = File::options().read(true).write(true).open(path).unwrap();
    let flock = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
    let posix = rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
    std::process::exit(100 + i32::from(flock) + 2 * i32::from(posix));
}

#[test]
fn locks_of_both_kinds_hold_between_processes() {
    let Some(fixture) = mount(&memory(CachePolicy::Keep)) else { return };
    let path = fixture.path().join("locked");
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    let other = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "another_process_tries_locks"]).env("BLOCKFRAME_TEST_LOCKED", &path);
        command.output().unwrap().status.code().unwrap() - 100
    };
    assert_eq!(other(), 3);
    rustix::fs::flock(&file, FlockOperation::LockExclusive).unwrap();
    assert_eq!(other(), 2, "flock");
    rustix::fs::flock(&file, FlockOperation::Unlock).unwrap();
    rustix::fs::fcntl_lock(&file, FlockOperation::LockExclusive).unwrap();
    assert_eq!(other(), 1, "fcntl");
    rustix::fs::fcntl_lock(&file, FlockOperation::Unlock).unwrap();
    assert_eq!(other(), 3);
}

#[test]
fn direct_and_cached_access_see_the_same_bytes() {
    for cache in [CachePolicy::Keep, CachePolicy::Refresh, CachePolicy::Bypass] {
        let Some(fixture) = mount(&memory(cache)) else { return };
        let path = fixture.path().join("file");
        let cached = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        cached.write_all_at(&[1; 20_000], 0).unwrap();
        let flags = OFlags::DIRECT.bits() as i32;
        let direct = File::options().read(true).write(true).custom_flags(flags).open(&path).unwrap();
        let mut bytes = vec![0; 8192];
        direct.read_exact_at(&mut bytes, 4096).unwrap();
        assert_eq!(bytes, [1; 8192]);
        direct.write_all_at(&[2; 4096], 4096).unwrap();
        cached.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!((bytes[4095], bytes[4096], bytes[8191]), (1, 2, 2));
        cached.write_all_at(&[3; 10], 4090).unwrap();
        direct.read_exact_at(&mut bytes[..4096], 4096).unwrap();
        assert_eq!((bytes[3], bytes[4]), (3, 2));
    }
}

#[test]
fn what_is_written_to_shared_memory_arrives() {
    use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};
    const LEN: usize = 8192;
    for cache in [CachePolicy::Keep, CachePolicy::Bypass] {
        let vfs = memory(cache);
        let Some(fixture) = mount(&vfs) else { return };
        let path = fixture.path().join("file");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        file.set_len(LEN as u64).unwrap();
        // SAFETY: a new mapping of a file that stays as long as it is mapped; it is written through this pointer only.
        unsafe {
            let flags = ProtFlags::READ | ProtFlags::WRITE;
            let memory = mmap(std::ptr::null_mut(), LEN, flags, MapFlags::SHARED, &file, 0).unwrap();
            memory.cast::<u8>().add(5000).write(42);
            msync(memory, LEN, MsyncFlags::SYNC).unwrap();
            munmap(memory, LEN).unwrap();
        }
        let node = vfs.lookup(Node::ROOT, b"file").unwrap().node;
        let opened = vfs.open(node, OpenHow { read: true, ..Default::default() }).unwrap();
        let mut found = Vec::new();
        vfs.read(opened.handle, 5000, 1, &mut |bytes| found.extend_from_slice(bytes)).unwrap();
        assert_eq!(found, [42], "{cache:?}");
        vfs.release(opened.handle);
    }
}

#[test]
fn names_may_have_255_bytes_and_no_more() {
    let Some(fixture) = mount(&memory(CachePolicy::Keep)) else { return };
    let (fits, long) = (fixture.path().join("n".repeat(255)), fixture.path().join("n".repeat(256)));
    fs::write(&fits, "x").unwrap();
    assert_eq!(fs::read(&fits).unwrap(), b"x");
    let outcomes = [
        errno(File::create(&long)),
        errno(fs::metadata(&long)),
        errno(fs::create_dir(&long)),
        errno(fs::rename(&fits, &long)),
        errno(fs::hard_link(&fits, &long)),
        errno(symlink("x", &long)),
        errno(fs::remove_file(&long)),
    ];
    assert_eq!(outcomes, [Some(libc::ENAMETOOLONG); 7]);
}

/// Lists a directory through a buffer in which few entries have room.
fn list_slowly(directory: &Path, mut visit: impl FnMut(&str)) {
    let open = File::open(directory).unwrap();
    let mut buffer = vec![std::mem::MaybeUninit::uninit(); 300];
    let mut raw = RawDir::new(&open, &mut buffer);
    while let Some(entry) = raw.next() {
        let name = entry.unwrap().file_name().to_str().unwrap().to_string();
        if name != "." && name != ".." {
            visit(&name);
        }
    }
}

#[test]
fn a_listing_shows_what_stays_once_while_other_names_come_and_go() {
    let Some(fixture) = mount(&memory(CachePolicy::Keep)) else { return };
    let directory = fixture.path().join("d");
    fs::create_dir(&directory).unwrap();
    for index in 0..500 {
        fs::write(directory.join(format!("stays-{index:03}")), "").unwrap();
    }
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut round = 0;
            while !stop.load(Ordering::Relaxed) {
                // Before, between and behind those that stay.
                for prefix in ["a", "stays-250", "z"] {
                    let name = directory.join(format!("{prefix}-{}", round % 40));
                    if fs::remove_file(&name).is_err() {
                        fs::write(&name, "").unwrap();
                    }
                }
                round += 1;
            }
        });
        for _ in 0..20 {
            let mut seen = BTreeMap::new();
            list_slowly(&directory, |name| *seen.entry(name.to_string()).or_insert(0) += 1);
            let stayed = seen.keys().filter(|name| name.starts_with("stays-") && name.len() == 9).count();
            let twice = seen.iter().find(|(name, count)| name.starts_with("stays-") && **count > 1);
            if stayed != 500 || twice.is_some() {
                stop.store(true, Ordering::Relaxed);
            }
            assert_eq!((stayed, twice), (500, None));
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_directory_can_be_emptied_while_it_is_listed() {
    let Some(fixture) = mount(&memory(CachePolicy::Keep)) else { return };
    let directory = fixture.path().join("d");
    fs::create_dir(&directory).unwrap();
    for index in 0..1000 {
        fs::write(directory.join(format!("{index}")), "").unwrap();
    }
    list_slowly(&directory, |name| fs::remove_file(directory.join(name)).unwrap());
    fs::remove_dir(&directory).unwrap();
}

#[test]
fn a_file_opened_for_synchronous_writing_is_synced_with_each_write() {
    for cache in [CachePolicy::Keep, CachePolicy::Bypass] {
        let vfs = memory(cache);
        let Some(fixture) = mount(&vfs) else { return };
        let path = fixture.path().join("file");
        let flags = OFlags::DSYNC.bits() as i32;
        let mut file = File::options().write(true).create_new(true).custom_flags(flags).open(&path).unwrap();
        for writes in 1..4 {
            file.write_all(b"x").unwrap();
            assert_eq!(vfs.syncs(), writes, "{cache:?}");
        }
        fs::write(fixture.path().join("other"), "x").unwrap();
        assert_eq!(vfs.syncs(), 3, "{cache:?}");
    }
}

#[test]
fn no_handle_is_left_after_an_unmount() {
    let vfs = memory(CachePolicy::Keep);
    for round in 0..10 {
        let Some(mut fixture) = mount(&vfs) else { return };
        assert_eq!(vfs.kernel().unwrap().passthrough, is_root());
        for index in 0..50 {
            fs::write(fixture.path().join(format!("{round}-{index}")), "x").unwrap();
        }
        fixture.mounted.take().unwrap().unmount(Duration::from_secs(10)).unwrap();
        assert_eq!(vfs.open_handles(), 0);
        assert!(vfs.kernel().is_none(), "it was told of the end");
    }
}

#[test]
fn handles_whose_release_never_arrives_are_released() {
    if !is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let vfs = memory(CachePolicy::Keep);
    let Some(fixture) = mount(&vfs) else { return };
    let file = File::create(fixture.path().join("file")).unwrap();
    assert_eq!(vfs.open_handles(), 1);
    // It is in use; but the connection ends, with all that the kernel had to say.
    let flags = rustix::mount::UnmountFlags::FORCE;
    assert_eq!(rustix::mount::unmount(fixture.path(), flags), Err(Errno::BUSY));
    fixture.mounted.as_ref().unwrap().wait().unwrap();
    assert_eq!(vfs.open_handles(), 0);
    assert!(vfs.kernel().is_none());
    drop(file);
    rustix::mount::unmount(fixture.path(), rustix::mount::UnmountFlags::empty()).unwrap();
}

/// Changes a file as a program that does not go through the kernel.
fn change_behind(vfs: &MemoryVfs, name: &[u8], content: &[u8]) -> Node {
    let node = vfs.lookup(Node::ROOT, name).unwrap().node;
    let opened = vfs.open(node, OpenHow { write: true, ..Default::default() }).unwrap();
    vfs.write(opened.handle, 0, content, false).unwrap();
    vfs.release(opened.handle);
    node
}

#[test]
fn the_kernel_forgets_what_it_is_told_to() {
    let vfs = memory(CachePolicy::Keep);
    let hour = Duration::from_secs(3600);
    let long = MountOptions { attribute_ttl: hour, entry_ttl: hour, negative_ttl: hour, ..options() };
    let Some(fixture) = Fixture::new(Arc::clone(&vfs) as Arc<dyn Vfs>, &long) else { return };
    let cache = vfs.kernel().unwrap().cache;
    let (file, new) = (fixture.path().join("file"), fixture.path().join("new"));
    fs::write(&file, "old").unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"old");
    // Of the same length: another size is seen by the attributes that a reading asks for.
    let node = change_behind(&vfs, b"file", b"NEW");
    assert_eq!(fs::read(&file).unwrap(), b"old", "the kernel does not ask: the test shows nothing otherwise");
    cache.forget_node(node);
    assert_eq!(fs::read(&file).unwrap(), b"NEW");

    assert!(fs::metadata(&new).is_err());
    vfs.link(node, Node::ROOT, b"new").unwrap();
    assert!(fs::metadata(&new).is_err(), "remembered as missing");
    cache.forget_name(Node::ROOT, b"new");
    assert_eq!(fs::read(&new).unwrap(), b"NEW");
    // What it does not know, it forgets easily.
    cache.forget_node(Node::new(999_999));
    cache.forget_name(Node::ROOT, b"never");
    cache.forget_name(Node::new(999_999), b"never");
}

#[test]
fn creating_what_somebody_else_made_meanwhile_opens_it() {
    let vfs = memory(CachePolicy::Keep);
    let long = MountOptions { negative_ttl: Duration::from_secs(3600), ..options() };
    let Some(fixture) = Fixture::new(Arc::clone(&vfs) as Arc<dyn Vfs>, &long) else { return };
    let file = fixture.path().join("file");
    assert!(fs::metadata(&file).is_err());
    let how = OpenHow { write: true, ..Default::default() };
    let (_, opened) = vfs.create(Caller::default(), Node::ROOT, b"file", 0o644, how).unwrap();
    vfs.write(opened.handle, 0, b"theirs", false).unwrap();
    vfs.release(opened.handle);
    let mut text = String::new();
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&file);
    options.unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "theirs");
    assert_eq!(errno(File::options().write(true).create_new(true).open(&file)), Some(libc::EEXIST));
}

#[test]
fn any_time_that_the_kernel_knows_can_be_set() {
    use rustix::fs::{AtFlags, Timespec, Timestamps, UTIME_OMIT, utimensat};
    let Some(fixture) = mount(&memory(CachePolicy::Keep)) else { return };
    let file = fixture.path().join("file");
    fs::write(&file, "").unwrap();
    for (seconds, nanoseconds) in
        [(-5, 250_000_000), (-1, 999_999_999), (0, 1), (1 << 40, 3), (-(1 << 40), 3), (i64::MAX, 0), (i64::MIN, 0)]
    {
        let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
        let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let before = fs::metadata(&file).unwrap();
        let times = Timestamps { last_access: omit, last_modification: time };
        utimensat(CWD, &file, &times, AtFlags::empty()).unwrap();
        let after = fs::metadata(&file).unwrap();
        assert_eq!((after.mtime(), after.mtime_nsec()), (seconds, nanoseconds));
        assert_eq!((after.atime(), after.atime_nsec()), (before.atime(), before.atime_nsec()));
        assert!(after.ctime() > before.ctime());
    }
}

#[test]
fn a_default_acl_takes_the_umasks_place() {
    let Some(fixture) = mount(&memory(CachePolicy::Keep)) else { return };
    let make = |name: &str| {
        let line = "umask 077; : > \"$1\"";
        let path = fixture.path().join(name);
        assert!(Command::new("sh").args(["-c", line, "sh"]).arg(&path).status().unwrap().success());
        mode(&path)
    };
    assert_eq!(make("plain"), 0o600);
    fs::create_dir(fixture.path().join("d")).unwrap();
    let entries = [(1u16, 7u16), (4, 7), (0x20, 5)];
    let mut acl = 2u32.to_le_bytes().to_vec();
    for (tag, permissions) in entries {
        acl.extend([tag.to_le_bytes(), permissions.to_le_bytes(), [255; 2], [255; 2]].concat());
    }
    xattr::set(fixture.path().join("d"), "system.posix_acl_default", &acl).unwrap();
    assert_eq!(make("d/file"), 0o664);
}

#[test]
fn a_mount_can_be_read_only_though_the_filesystem_is_not() {
    let read_only = MountOptions { read_only: true, ..options() };
    let Some(fixture) = Fixture::new(memory(CachePolicy::Keep), &read_only) else { return };
    assert_eq!(errno(File::create(fixture.path().join("file"))), Some(libc::EROFS));
}

/// A directory that is passed through, new files by the kernel itself.
fn pass_through() -> Option<(Arc<passthrough::Passthrough>, tempfile::TempDir, Fixture)> {
    if !is_root() {
        eprintln!("skipped: needs root");
        return None;
    }
    // Not under an overlay: the kernel passes nothing through to a stacked filesystem.
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let vfs = Arc::new(passthrough::Passthrough::new(directory.path(), CachePolicy::Keep, true).unwrap());
    let fixture = Fixture::new(Arc::clone(&vfs) as Arc<dyn Vfs>, &options())?;
    Some((vfs, directory, fixture))
}

#[test]
fn the_kernel_serves_a_new_file_by_itself_until_it_is_closed() {
    let Some((vfs, directory, fixture)) = pass_through() else { return };
    let path = fixture.path().join("file");
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    file.write_all_at(&[5; 100_000], 10).unwrap();
    let again = File::options().read(true).write(true).open(&path).unwrap();
    again.write_all_at(b"again", 50_000).unwrap();
    let mut bytes = vec![0; 100_010];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!((bytes[9], bytes[10], &bytes[50_000..50_005]), (0, 5, &b"again"[..]));
    assert_eq!(file.metadata().unwrap().len(), 100_010);
    assert_eq!(vfs.requests(), 0, "the kernel did not serve it by itself");
    drop((file, again));
    assert_eq!(fs::read(directory.path().join("file")).unwrap(), bytes);
    // A release arrives when it likes: until then the kernel may serve it still.
    while vfs.requests() == 0 {
        assert_eq!(fs::read(&path).unwrap(), bytes);
        thread::yield_now();
    }
}

#[test]
fn a_file_that_the_kernel_serves_loses_its_privileges_too() {
    let Some((vfs, _directory, fixture)) = pass_through() else { return };
    let path = fixture.path().join("file");
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    file.set_permissions(PermissionsExt::from_mode(0o6777)).unwrap();
    file.write_all_at(b"root may", 0).unwrap();
    assert_eq!(mode(&path), 0o6777);
    as_nobody(&path, "echo x >> \"$1\"");
    assert_eq!((mode(&path), file.metadata().unwrap().len(), vfs.requests()), (0o777, 10, 0));
}

#[test]
fn files_come_and_go_between_the_two_ways_of_serving() {
    let Some((_vfs, _directory, fixture)) = pass_through() else { return };
    thread::scope(|scope| {
        for thread in 0..4 {
            let path = fixture.path().join(format!("{}", thread % 2));
            scope.spawn(move || {
                for round in 0..300u32 {
                    // Two threads at one name: it may be new, open in one way or the other, or gone.
                    let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
                    let file = match file {
                        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => continue,
                        file => file.unwrap(),
                    };
                    file.write_all_at(&round.to_le_bytes(), 0).unwrap();
                    file.read_exact_at(&mut [0; 4], 0).unwrap();
                    if round % 3 == 0 {
                        let _ = fs::remove_file(&path);
                    }
                }
            });
        }
    });
}
