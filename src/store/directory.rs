//! An open directory, and what is done by name inside it. Names are resolved
//! from the open directory and never through symbolic links, so nothing that
//! is planted in a store leads out of it.

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// No key of ours has a tenth of it; a hostile tree must not exhaust stack or descriptors.
const DEEPEST_TREE: usize = 64;

/// An open directory.
#[derive(Debug)]
pub(super) struct Directory(File);

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    Other,
}

impl Directory {
    /// Opens a directory by its path; here symbolic links are followed.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(File::from(rustix::fs::openat(CWD, path, flags, Mode::empty())?)))
    }

    /// A second handle on this directory.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Opens a directory in this one.
    pub(super) fn open_child(&self, name: impl AsRef<OsStr>) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.0, name.as_ref(), flags, Mode::empty()) {
            Ok(child) => Ok(Self(File::from(child))),
            // A symbolic link: Linux says NOTDIR, others LOOP.
            Err(Errno::LOOP) => Err(Errno::NOTDIR.into()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Makes a directory in this one. Its name is durable after [`Self::sync`].
    pub(super) fn make_child(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(&self.0, name, Mode::from_raw_mode(0o777))?)
    }

    /// Opens a regular file for reading.
    pub(super) fn open_file(&self, name: &str) -> io::Result<File> {
        self.open_regular(name, OFlags::RDONLY)
    }

    /// Opens a regular file for changes in place.
    pub(super) fn open_file_for_update(&self, name: &str) -> io::Result<File> {
        self.open_regular(name, OFlags::RDWR)
    }

    fn open_regular(&self, name: &str, access: OFlags) -> io::Result<File> {
        // NONBLOCK: opening a FIFO that somebody put here must not hang.
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let not_a_file = || io::Error::new(io::ErrorKind::NotFound, "what stands there is not a regular file");
        let file = match rustix::fs::openat(&self.0, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::LOOP | Errno::ISDIR | Errno::NXIO) => return Err(not_a_file()),
            Err(errno) => return Err(errno.into()),
        };
        if file.metadata()?.is_file() { Ok(file) } else { Err(not_a_file()) }
    }

    /// Creates a file that must not exist yet, for reading and writing.
    pub(super) fn create_file(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&self.0, name.as_ref(), flags, Mode::from_raw_mode(0o666))?))
    }

    /// Removes a name that is no directory.
    pub(super) fn remove_file(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.0, name.as_ref(), AtFlags::empty())?)
    }

    /// Removes an empty directory.
    pub(super) fn remove_empty(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.0, name.as_ref(), AtFlags::REMOVEDIR)?)
    }

    /// Removes a name and everything below it.
    pub(super) fn remove_tree(&self, name: &OsStr) -> io::Result<()> {
        self.remove_below(name, DEEPEST_TREE)
    }

    fn remove_below(&self, name: &OsStr, levels: usize) -> io::Result<()> {
        let child = match self.open_child(name) {
            Ok(child) => child,
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => return self.remove_file(name),
            Err(error) => return Err(error),
        };
        let below = levels.checked_sub(1).ok_or_else(too_deep)?;
        for (name, kind) in child.names()? {
            let removed = match kind {
                Kind::Directory => child.remove_below(&name, below),
                Kind::Other => child.remove_file(&name),
            };
            // Somebody else removed it first: that is what was wanted.
            removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
        }
        self.remove_empty(name)
    }

    /// Renames within or between directories; a file at the target is replaced.
    pub(super) fn rename(&self, from: &OsStr, target: &Self, to: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.0, from, &target.0, to)?)
    }

    /// Gives the file `from` a second name, which must not exist yet. A
    /// symbolic link would be linked as such: look at it first.
    pub(super) fn link(&self, from: &str, target: &Self, to: &str) -> io::Result<()> {
        Ok(rustix::fs::linkat(&self.0, from, &target.0, to, AtFlags::empty())?)
    }

    /// Renames, and fails with `AlreadyExists` when the target exists.
    pub(super) fn rename_new(&self, from: &str, target: &Self, to: &str) -> io::Result<()> {
        #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
        match rustix::fs::renameat_with(&self.0, from, &target.0, to, rustix::fs::RenameFlags::NOREPLACE) {
            // Filesystems that do not know the flag (NFS, many FUSE ones) take the way below.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
            done => return Ok(done?),
        }
        // Between check and rename another process could put something here;
        // the archive's writer lock keeps our own away.
        match rustix::fs::statat(&target.0, to, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => self.rename(OsStr::new(from), target, OsStr::new(to)),
            Err(errno) => Err(errno.into()),
            Ok(_) => Err(Errno::EXIST.into()),
        }
    }

    /// The names in this directory, in no order, without `.` and `..`.
    pub(super) fn names(&self) -> io::Result<Vec<(OsString, Kind)>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.0)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => match rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                    Err(Errno::NOENT) => continue,
                    Err(errno) => return Err(errno.into()),
                },
                known => known,
            };
            let kind = if kind == FileType::Directory { Kind::Directory } else { Kind::Other };
            names.push((name.to_os_string(), kind));
        }
        Ok(names)
    }

    /// Makes the names in this directory durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        match self.0.sync_all() {
            // Filesystems without a notion of it (CIFS, say) answer EINVAL.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
            done => done,
        }
    }

    /// Makes the names in this directory and in all below it durable, the
    /// deepest first.
    pub(super) fn sync_tree(&self) -> io::Result<()> {
        self.sync_below(DEEPEST_TREE)
    }

    fn sync_below(&self, levels: usize) -> io::Result<()> {
        let below = levels.checked_sub(1).ok_or_else(too_deep)?;
        for (name, kind) in self.names()? {
            if kind == Kind::Directory {
                self.open_child(&name)?.sync_below(below)?;
            }
        }
        self.sync()
    }

    /// The directory's own attributes.
    pub(super) fn metadata(&self) -> io::Result<std::fs::Metadata> {
        self.0.metadata()
    }

    /// Total bytes, and bytes an ordinary user may still write.
    pub(super) fn space(&self) -> io::Result<(u64, u64)> {
        let stat = rustix::fs::fstatvfs(&self.0)?;
        Ok((stat.f_blocks.saturating_mul(stat.f_frsize), stat.f_bavail.saturating_mul(stat.f_frsize)))
    }
}

fn too_deep() -> io::Error {
    io::Error::other(format!("directories are nested more than {DEEPEST_TREE} deep"))
}
