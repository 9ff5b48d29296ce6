//! The names in the staging directory: `{id}.staged` for files in use,
//! `free-{number}` for files kept for reuse, `next-id`.

use super::{StagingError, StagingResult};
use crate::format::StagingId;
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

const COUNTER: &str = "next-id";
const COUNTER_TEMPORARY: &str = "next-id.new";

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    Staged(StagingId),
    Free(u64),
}

impl Name {
    fn parse(text: &str) -> Option<Self> {
        let number = |digits: &str| u64::from_str_radix(digits, 16).ok();
        let name = match (text.strip_suffix(".staged"), text.strip_prefix("free-")) {
            (Some(digits), _) => Self::Staged(StagingId::new(number(digits)?)),
            (_, Some(digits)) => Self::Free(number(digits)?),
            _ => return None,
        };
        (name.text() == text).then_some(name)
    }

    fn text(self) -> String {
        match self {
            Self::Staged(id) => format!("{id}.staged"),
            Self::Free(number) => format!("free-{number:016x}"),
        }
    }
}

/// The staging directory.
#[derive(Debug)]
pub(super) struct Names {
    path: PathBuf,
    directory: File,
    /// Changes of names so far, and how many of them are known to be durable.
    changes: Mutex<(u64, u64)>,
    /// Held during a sync; set when one failed, after which none can be trusted.
    sync_failed: Mutex<bool>,
}

impl Names {
    /// Opens the directory, made when it is missing.
    pub(super) fn open(path: &Path) -> StagingResult<Self> {
        let open = || -> io::Result<File> {
            match rustix::fs::mkdirat(CWD, path, Mode::from_raw_mode(0o700)) {
                Ok(()) => {
                    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
                    File::open(above.unwrap_or(Path::new(".")))?.sync_all()?;
                }
                Err(rustix::io::Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            Ok(File::from(rustix::fs::openat(CWD, path, flags, Mode::empty())?))
        };
        let failed = |source| StagingError::Directory { operation: "open", path: path.to_path_buf(), source };
        let directory = open().map_err(failed)?;
        Ok(Self { path: path.to_path_buf(), directory, changes: Mutex::default(), sync_failed: Mutex::default() })
    }

    fn failed(&self, operation: &'static str, name: &str) -> impl FnOnce(io::Error) -> StagingError {
        let path = self.path.join(name);
        move |source| StagingError::Directory { operation, path, source }
    }

    /// All names of ours.
    pub(super) fn list(&self) -> StagingResult<Vec<Name>> {
        let list = || -> io::Result<Vec<Name>> {
            let mut names = Vec::new();
            for entry in Dir::read_from(&self.directory)? {
                names.extend(entry?.file_name().to_str().ok().and_then(Name::parse));
            }
            Ok(names)
        };
        list().map_err(self.failed("list", ""))
    }

    /// Opens a file for reading and writing.
    pub(super) fn open_file(&self, name: Name, create: bool) -> io::Result<File> {
        let create = if create { OFlags::CREATE | OFlags::EXCL } else { OFlags::empty() };
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | create;
        let file = rustix::fs::openat(&self.directory, name.text(), flags, Mode::from_raw_mode(0o600))?;
        Ok(File::from(file))
    }

    pub(super) fn rename(&self, from: Name, to: Name) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.directory, from.text(), &self.directory, to.text())?)
    }

    pub(super) fn remove(&self, name: Name) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.directory, name.text(), AtFlags::empty())?)
    }

    /// Counts a change; the number goes to [`sync`](Self::sync).
    pub(super) fn changed(&self) -> u64 {
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        changes.0 += 1;
        changes.0
    }

    /// Makes all names up to a change durable. One sync serves all changes before it.
    pub(super) fn sync(&self, change: u64) -> StagingResult<()> {
        let known = || *self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        if known().1 >= change {
            return Ok(());
        }
        let mut sync_failed = self.sync_failed.lock().unwrap_or_else(PoisonError::into_inner);
        if *sync_failed {
            let source = io::Error::other("an earlier sync of the staging directory failed");
            return Err(self.failed("sync", "")(source));
        }
        let (made, durable) = known();
        if durable >= change {
            return Ok(());
        }
        self.directory.sync_all().map_err(|source| {
            *sync_failed = true;
            self.failed("sync", "")(source)
        })?;
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).1 = made;
        Ok(())
    }

    /// Makes everything on the filesystem below durable, the names too.
    pub(super) fn sync_filesystem(&self) -> io::Result<()> {
        let sync_failed = self.sync_failed.lock().unwrap_or_else(PoisonError::into_inner);
        let made = self.changes.lock().unwrap_or_else(PoisonError::into_inner).0;
        rustix::fs::syncfs(&self.directory)?;
        // Names of which the disk said before that it lost them are not there for that.
        if !*sync_failed {
            self.changes.lock().unwrap_or_else(PoisonError::into_inner).1 = made;
        }
        Ok(())
    }

    /// The first id that no earlier run used; 0 when there was none.
    pub(super) fn read_counter(&self) -> StagingResult<u64> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.directory, COUNTER, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::NOENT) => return Ok(0),
            Err(errno) => return Err(self.failed("open", COUNTER)(errno.into())),
        };
        let mut bytes = Vec::new();
        file.take(64).read_to_end(&mut bytes).map_err(self.failed("read", COUNTER))?;
        let number = std::str::from_utf8(&bytes).ok().and_then(|text| text.trim_end().parse().ok());
        number.ok_or_else(|| StagingError::Counter { path: self.path.join(COUNTER) })
    }

    /// Durably notes that ids below `next` may be used from now on.
    pub(super) fn write_counter(&self, next: u64) -> StagingResult<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let write = || -> io::Result<()> {
            let mode = Mode::from_raw_mode(0o600);
            let mut file = File::from(rustix::fs::openat(&self.directory, COUNTER_TEMPORARY, flags, mode)?);
            file.write_all(format!("{next}\n").as_bytes())?;
            file.sync_all()?;
            rustix::fs::renameat(&self.directory, COUNTER_TEMPORARY, &self.directory, COUNTER)?;
            self.directory.sync_all()
        };
        write().map_err(self.failed("write", COUNTER))
    }

    /// Bytes that the disk below has free for ordinary users.
    pub(super) fn free_bytes(&self) -> StagingResult<u64> {
        let space = rustix::fs::fstatvfs(&self.directory).map_err(|errno| self.failed("measure", "")(errno.into()))?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }
}
