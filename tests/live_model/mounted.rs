//! A real mount, and a plain directory beside it. Both are used through the
//! operating system, and must answer and look the same.

use super::kit::program::is_mounted;
use super::ops::{At, Change, DIRECTORIES, HANDLES, How, Kind, NAMES, On, Op, Time, Value, XATTRS};
use super::world::{opened_in, pattern, xattr_value};
use anyhow::{Context as _, Result, bail, ensure};
use blockframe::vfs::{LiveVfs, Writeback, WritebackOptions};
use blockframe_api::{AllocateMode, RenameMode, XattrMode};
use blockframe_fuse::{MountOptions, Mounted, spawn};
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Mode, RenameFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, XattrFlags,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tempfile::TempDir;

/// Content behind this is left to the test without a mount.
const FAR: u64 = 4 << 20;

/// Something was done in both, or refused with this number in both.
fn both<T>(mount: io::Result<T>, plain: io::Result<T>) -> Result<Option<(T, T)>> {
    let number = |error: &io::Error| rustix::io::Errno::from_io_error(error);
    match (mount, plain) {
        (Ok(mount), Ok(plain)) => Ok(Some((mount, plain))),
        (Err(mount), Err(plain)) if number(&mount) == number(&plain) => Ok(None),
        (Err(mount), Err(plain)) => bail!("refused: {mount}; instead of: {plain}"),
        (Ok(_), Err(plain)) => bail!("done instead of refused: {plain}"),
        (Err(mount), Ok(_)) => bail!("refused: {mount}"),
    }
}

struct Open {
    mount: File,
    plain: File,
    how: How,
}

pub struct Sides {
    directory: TempDir,
    open: Vec<Open>,
    mounted: Option<Mounted>,
    live: Weak<LiveVfs>,
    writeback: Option<Arc<Writeback>>,
    eager: bool,
    encrypted: bool,
}

impl Drop for Sides {
    fn drop(&mut self) {
        self.open.clear();
        self.mounted = None;
        while is_mounted(&self.mount()) {
            let _ = rustix::mount::unmount(self.mount(), rustix::mount::UnmountFlags::DETACH);
        }
    }
}

/// What is seen of a name, its content aside.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    kind: fs::FileType,
    mode: String,
    owner: (u32, u32),
    links: u64,
    size: u64,
    device: u64,
    target: Option<PathBuf>,
    xattrs: BTreeMap<String, Vec<u8>>,
}

fn seen(path: &Path) -> Result<Seen> {
    let found = fs::symlink_metadata(path)?;
    let kind = found.file_type();
    let names = xattr::list(path)?.map(|name| name.to_string_lossy().into_owned());
    let stored = names.filter(|name| !name.starts_with("user.blockframe.") && !name.starts_with("security.selinux"));
    let xattrs = stored.map(|name| Ok((name.clone(), xattr::get(path, &name)?.unwrap_or_default())));
    Ok(Seen {
        kind,
        mode: format!("{:o}", found.mode()),
        owner: (found.uid(), found.gid()),
        links: found.nlink(),
        size: if kind.is_dir() { 0 } else { found.size() },
        device: if kind.is_file() { 0 } else { found.rdev() },
        target: kind.is_symlink().then(|| fs::read_link(path)).transpose()?,
        xattrs: xattrs.collect::<Result<_>>()?,
    })
}

fn names(path: &Path) -> Result<BTreeSet<std::ffi::OsString>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(path)? {
        ensure!(names.insert(entry?.file_name()), "a name is listed twice");
    }
    Ok(names)
}

fn same(mount: &Path, plain: &Path) -> Result<()> {
    let (found, expected) = (seen(mount)?, seen(plain)?);
    ensure!(found == expected, "{found:?}\n  instead of {expected:?}");
    if expected.kind.is_file() {
        same_bytes(&fs::read(mount)?, &fs::read(plain)?)?;
    } else if expected.kind.is_dir() {
        let (found, expected) = (names(mount)?, names(plain)?);
        ensure!(found == expected, "{found:?} instead of {expected:?}");
        for name in expected {
            same(&mount.join(&name), &plain.join(&name)).with_context(|| format!("in {name:?}"))?;
        }
    }
    Ok(())
}

fn same_bytes(found: &[u8], expected: &[u8]) -> Result<()> {
    ensure!(found.len() == expected.len(), "{} bytes instead of {}", found.len(), expected.len());
    if found == expected {
        return Ok(());
    }
    if let Some(at) = (0..found.len()).find(|&at| found[at] != expected[at]) {
        bail!("byte {at} of {} is {} instead of {}", found.len(), found[at], expected[at]);
    }
    Ok(())
}

fn timespec(time: Option<Time>) -> Timespec {
    match time {
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        Some(Time::Now) => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        Some(Time::To(seconds, nanoseconds)) => Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() },
    }
}

fn options(how: How) -> OpenOptions {
    let mut options = File::options();
    options.read(how.read).write(how.write).truncate(how.truncate);
    // A pipe must not be waited for.
    options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32);
    options
}

fn make(path: &Path, permissions: u16, kind: Kind) -> io::Result<()> {
    let mode = Mode::from_raw_mode(permissions.into());
    let node = |kind, device| Ok(rustix::fs::mknodat(CWD, path, kind, mode, device)?);
    match kind {
        Kind::Directory => Ok(rustix::fs::mkdir(path, mode)?),
        Kind::Symlink => std::os::unix::fs::symlink("d/f", path),
        Kind::File => node(FileType::RegularFile, 0),
        Kind::Fifo => node(FileType::Fifo, 0),
        Kind::Socket => node(FileType::Socket, 0),
        Kind::CharDevice => node(FileType::CharacterDevice, rustix::fs::makedev(1, 5)),
        Kind::BlockDevice => node(FileType::BlockDevice, rustix::fs::makedev(8, 3)),
    }
}

fn rename(from: &Path, to: &Path, mode: RenameMode) -> io::Result<()> {
    let flags = match mode {
        RenameMode::Replace => RenameFlags::empty(),
        RenameMode::NoReplace => RenameFlags::NOREPLACE,
        RenameMode::Exchange => RenameFlags::EXCHANGE,
    };
    Ok(rustix::fs::renameat_with(CWD, from, CWD, to, flags)?)
}

fn allocate(file: &File, offset: u64, length: u64, mode: AllocateMode) -> io::Result<()> {
    let flags = match mode {
        AllocateMode::Extend => FallocateFlags::empty(),
        AllocateMode::KeepSize => FallocateFlags::KEEP_SIZE,
        AllocateMode::Punch => FallocateFlags::KEEP_SIZE | FallocateFlags::PUNCH_HOLE,
        AllocateMode::Zero => FallocateFlags::ZERO_RANGE,
        AllocateMode::ZeroKeepSize => FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
    };
    Ok(rustix::fs::fallocate(file, flags, offset, length)?)
}

fn read(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut done = 0;
    while done < length {
        match file.read_at(&mut bytes[done..], offset + done as u64)? {
            0 => break,
            more => done += more,
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}

fn copy_range(from: &File, from_offset: u64, to: &File, to_offset: u64, length: usize) -> io::Result<usize> {
    let (mut from_offset, mut to_offset, mut done) = (from_offset, to_offset, 0);
    while done < length {
        match rustix::fs::copy_file_range(from, Some(&mut from_offset), to, Some(&mut to_offset), length - done)? {
            0 => break,
            more => done += more,
        }
    }
    Ok(done)
}

fn set(path: &Path, change: Change) -> io::Result<()> {
    if let Some(size) = change.size {
        options(How { read: false, write: true, truncate: false }).open(path)?.set_len(size)?;
    }
    if let Some(permissions) = change.permissions {
        fs::set_permissions(path, Permissions::from_mode(permissions.into()))?;
    }
    if change.user.is_some() || change.group.is_some() {
        std::os::unix::fs::lchown(path, change.user, change.group)?;
    }
    if change.accessed.is_some() || change.modified.is_some() {
        let times = Timestamps { last_access: timespec(change.accessed), last_modification: timespec(change.modified) };
        rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

impl Sides {
    /// A mount, and a plain copy of it. `eager`: files are committed as soon as they are closed. `encrypted`: and compressed.
    pub fn new(eager: bool, encrypted: bool) -> Result<Self> {
        // Not in memory: the plain directory's filesystem shall be an ordinary one.
        let directory = tempfile::tempdir()?;
        fs::create_dir(directory.path().join("mnt"))?;
        let mut sides =
            Self { directory, open: Vec::new(), mounted: None, live: Weak::new(), writeback: None, eager, encrypted };
        sides.begin()?;
        let copied = Command::new("cp").arg("-a").arg(sides.mount()).arg(sides.plain()).status()?;
        ensure!(copied.success());
        sides.compare().context("at the beginning")?;
        Ok(sides)
    }

    fn mount(&self) -> PathBuf {
        self.directory.path().join("mnt")
    }

    fn plain(&self) -> PathBuf {
        self.directory.path().join("plain")
    }

    fn begin(&mut self) -> Result<()> {
        let live = opened_in(self.directory.path(), self.encrypted)?;
        self.live = Arc::downgrade(&live);
        let delay = Duration::from_secs(if self.eager { 0 } else { 3600 });
        self.writeback = Some(Writeback::start(&live, WritebackOptions { delay, gather: delay, compression: None })?);
        let options = MountOptions { suid: true, dev: true, ..MountOptions::new("blockframe:test") };
        self.mounted = Some(spawn(live, &self.mount(), &options)?);
        Ok(())
    }

    fn restart(&mut self) -> Result<()> {
        self.open.clear();
        self.mounted = None;
        if let Some(writeback) = self.writeback.take() {
            writeback.stop();
        }
        // The session's threads let go of it a little later.
        while self.live.strong_count() > 0 {
            std::thread::yield_now();
        }
        self.begin().context("mounting again")?;
        self.compare().context("after the restart")
    }

    fn paths(&self, at: At) -> (PathBuf, PathBuf) {
        let path: PathBuf = DIRECTORIES[at.0].iter().chain([&NAMES[at.1]]).collect();
        (self.mount().join(&path), self.plain().join(path))
    }

    fn on(&self, on: On) -> (PathBuf, PathBuf) {
        match on {
            On::Name(at) => self.paths(at),
            On::Open(file) => self.paths(At(file % DIRECTORIES.len(), file)),
            On::Root => (self.mount(), self.plain()),
        }
    }

    fn file(&self, file: usize, read: bool, write: bool) -> Option<&Open> {
        let file = file.checked_rem(self.open.len())?;
        self.open.get(file).filter(|open| (open.how.read || !read) && (open.how.write || !write))
    }

    fn opened(&mut self, files: Option<(File, File)>, how: How) {
        let Some((mount, plain)) = files else { return };
        if self.open.len() == HANDLES {
            self.open.remove(0);
        }
        self.open.push(Open { mount, plain, how });
    }

    pub fn compare(&self) -> Result<()> {
        same(&self.mount(), &self.plain())?;
        for (at, open) in self.open.iter().enumerate() {
            let (found, expected) = (open.mount.metadata()?, open.plain.metadata()?);
            let show = |of: &fs::Metadata| (of.mode(), of.nlink(), of.uid(), of.gid(), of.size());
            ensure!(show(&found) == show(&expected), "open file {at}: {found:?}\n  instead of {expected:?}");
            if open.how.read {
                let length = expected.size() as usize;
                same_bytes(&read(&open.mount, 0, length)?, &read(&open.plain, 0, length)?)
                    .with_context(|| format!("open file {at}"))?;
            }
        }
        Ok(())
    }

    pub fn step(&mut self, op: Op) -> Result<()> {
        let op = op.nearer(FAR);
        match op {
            Op::Create { at, permissions, how, .. } => {
                let (mount, plain) = self.paths(at);
                let how = How { write: true, truncate: false, ..how };
                let mut options = options(how);
                options.create_new(true).mode(permissions.into());
                let files = both(options.open(mount), options.open(plain))?;
                self.opened(files, how);
            }
            Op::Open { at, how } => {
                let (mount, plain) = self.paths(at);
                let special = fs::metadata(&plain).is_ok_and(|found| !found.is_file() && !found.is_dir());
                // A directory that is opened for reading is no open file.
                let directory = fs::metadata(&plain).is_ok_and(|found| found.is_dir()) && !how.write;
                if !special && !directory {
                    let files = both(options(how).open(mount), options(how).open(plain))?;
                    self.opened(files, how);
                }
            }
            Op::Release { file } => {
                if let Some(file) = file.checked_rem(self.open.len()) {
                    self.open.remove(file);
                }
            }
            Op::Read { .. } | Op::Write { .. } | Op::Scatter { .. } | Op::Allocate { .. } | Op::CopyRange { .. } => {
                self.step_bytes(op)?;
            }
            Op::Flush { file } | Op::Sync { file } => {
                if let Some(open) = self.file(file, false, false) {
                    open.mount.sync_all()?;
                }
            }
            Op::SyncDirectory | Op::SyncAll => File::open(self.mount())?.sync_all()?,
            Op::Make { .. } | Op::Rename { .. } | Op::Link { .. } | Op::Unlink { .. } | Op::RemoveDirectory { .. } => {
                self.step_names(op)?;
            }
            Op::Set { .. } | Op::SetXattr { .. } | Op::GetXattr { .. } | Op::RemoveXattr { .. } => {
                self.step_attributes(op)?;
            }
            Op::Compare => self.compare()?,
            Op::Restart | Op::Abandon => self.restart()?,
            // For the test without a mount.
            Op::Seek { .. }
            | Op::RemovePath { .. }
            | Op::List { .. }
            | Op::InRemoved { .. }
            | Op::FlushNames
            | Op::Tick { .. } => {}
            Op::Commit => {
                if let Some(writeback) = &self.writeback {
                    writeback.drain(None, &mut |_| true)?;
                }
            }
        }
        Ok(())
    }

    fn step_bytes(&mut self, op: Op) -> Result<()> {
        match op {
            Op::Read { file, offset, length } => {
                let Some(open) = self.file(file, true, false) else { return Ok(()) };
                let length = length as usize;
                let done = both(read(&open.mount, offset, length), read(&open.plain, offset, length))?;
                if let Some((found, expected)) = done {
                    same_bytes(&found, &expected)?;
                }
            }
            Op::Write { file, offset, length, seed, .. } => {
                let Some(open) = self.file(file, false, true) else { return Ok(()) };
                let bytes = pattern(length, seed);
                both(open.mount.write_all_at(&bytes, offset), open.plain.write_all_at(&bytes, offset))?;
            }
            Op::Scatter { file, offset, pieces, stride } => {
                let Some(open) = self.file(file, false, true) else { return Ok(()) };
                for piece in 0..pieces.min(50) {
                    let at = offset + (pieces - piece) * stride;
                    let bytes = at.to_le_bytes();
                    both(open.mount.write_all_at(&bytes, at), open.plain.write_all_at(&bytes, at))?;
                }
            }
            Op::Allocate { file, offset, length, mode } => {
                let Some(open) = self.file(file, false, true) else { return Ok(()) };
                both(allocate(&open.mount, offset, length, mode), allocate(&open.plain, offset, length, mode))?;
            }
            Op::CopyRange { from, from_offset, to, to_offset, length } => {
                let (Some(source), Some(target)) = (self.file(from, true, false), self.file(to, false, true)) else {
                    return Ok(());
                };
                let length = length as usize;
                let mount = copy_range(&source.mount, from_offset, &target.mount, to_offset, length);
                let plain = copy_range(&source.plain, from_offset, &target.plain, to_offset, length);
                if let Some((found, expected)) = both(mount, plain)? {
                    ensure!(found == expected, "{found} bytes instead of {expected}");
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn step_names(&mut self, op: Op) -> Result<()> {
        match op {
            Op::Make { at, permissions, kind, .. } => {
                let (mount, plain) = self.paths(at);
                both(make(&mount, permissions, kind), make(&plain, permissions, kind))?;
            }
            Op::Rename { from, to, mode } => {
                let (from, to) = (self.paths(from), self.paths(to));
                both(rename(&from.0, &to.0, mode), rename(&from.1, &to.1, mode))?;
            }
            Op::Link { from, to } => {
                let (from, to) = (self.paths(from), self.paths(to));
                both(fs::hard_link(from.0, to.0), fs::hard_link(from.1, to.1))?;
            }
            Op::Unlink { at } => {
                let (mount, plain) = self.paths(at);
                both(fs::remove_file(mount), fs::remove_file(plain))?;
            }
            Op::RemoveDirectory { at } => {
                let (mount, plain) = self.paths(at);
                both(fs::remove_dir(mount), fs::remove_dir(plain))?;
            }
            _ => {}
        }
        Ok(())
    }

    fn step_attributes(&mut self, op: Op) -> Result<()> {
        let (Op::Set { on, .. } | Op::SetXattr { on, .. } | Op::GetXattr { on, .. } | Op::RemoveXattr { on, .. }) = op
        else {
            return Ok(());
        };
        let (mount, plain) = self.on(on);
        match op {
            Op::Set { change, .. } => {
                let file = fs::metadata(&plain).map_or(true, |found| found.is_file() || found.is_dir());
                let change = Change { size: change.size.filter(|_| file), ..change };
                if both(set(&mount, change), set(&plain, change))?.is_some()
                    && let Some(Time::To(..)) = change.modified
                {
                    let (found, expected) = (fs::symlink_metadata(&mount)?, fs::symlink_metadata(&plain)?);
                    let time = |of: &fs::Metadata| (of.mtime(), of.mtime_nsec());
                    ensure!(
                        time(&found) == time(&expected),
                        "modified {:?} instead of {:?}",
                        time(&found),
                        time(&expected)
                    );
                }
            }
            // Capabilities are the kernel's own.
            Op::SetXattr { name: 2, .. } | Op::GetXattr { name: 2, .. } | Op::RemoveXattr { name: 2, .. } => {}
            Op::SetXattr { name, value, mode, .. } => {
                let flags = match mode {
                    XattrMode::Set => XattrFlags::empty(),
                    XattrMode::Create => XattrFlags::CREATE,
                    XattrMode::Replace => XattrFlags::REPLACE,
                };
                // Plain filesystems keep little.
                let value = xattr_value(if let Value::Bytes(len) = value { Value::Bytes(len % 300) } else { value });
                let set = |path: &Path| Ok(rustix::fs::lsetxattr(path, XATTRS[name], &value, flags)?);
                both(set(&mount), set(&plain))?;
            }
            Op::RemoveXattr { name, .. } => {
                let remove = |path: &Path| Ok(rustix::fs::lremovexattr(path, XATTRS[name])?);
                both(remove(&mount), remove(&plain))?;
            }
            Op::GetXattr { name, .. } => {
                let done = both(xattr::get(&mount, XATTRS[name]), xattr::get(&plain, XATTRS[name]))?;
                ensure!(done.is_none_or(|(found, expected)| found == expected), "another value");
            }
            _ => {}
        }
        Ok(())
    }
}

/// Does all operations in both, and compares in the end.
pub fn run(row: &[Op], eager: bool, encrypted: bool) -> Result<()> {
    let mut sides = Sides::new(eager, encrypted)?;
    for (at, op) in row.iter().enumerate() {
        sides.step(*op).with_context(|| format!("operation {at}, {op:?}"))?;
    }
    sides.compare().context("in the end")?;
    sides.restart().context("in the end")
}
