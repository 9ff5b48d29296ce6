//! Puts one node back: bytes, holes and attributes under a temporary name,
//! then its own.

use super::attributes::{device_from, write_xattrs};
use super::restore::{RestoreReporter, directory_of};
use super::{IngestError, Problem, stream};
use crate::archive::{Archive, ArchiveError};
use crate::base::{ContentHash, ContentRange, StoreId, Timestamp};
use crate::catalog::{Catalog, CatalogError, Inode};
use crate::format::{EntryPath, FileContent, NodeBody};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps};
use std::ffi::OsStr;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// What was done, and how many attributes could not be set.
pub(super) enum Applied {
    Written(u64),
    AlreadyThere(u64),
}

/// Restores nodes one by one.
pub(super) struct Restorer<'a> {
    archive: &'a Archive,
    catalog: &'a Catalog,
    reporter: &'a dyn RestoreReporter,
    cancel: &'a AtomicBool,
    /// Only root can give files away.
    is_root: bool,
}

impl<'a> Restorer<'a> {
    pub(super) fn new(
        archive: &'a Archive,
        catalog: &'a Catalog,
        reporter: &'a dyn RestoreReporter,
        cancel: &'a AtomicBool,
    ) -> Self {
        Self { archive, catalog, reporter, cancel, is_root: rustix::process::geteuid().is_root() }
    }

    /// Makes a directory that only this user enters; its attributes come last.
    pub(super) fn directory(&self, target: &Path) -> Result<(), Problem> {
        match DirBuilder::new().mode(0o700).create(target) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match target.symlink_metadata() {
                Ok(found) if found.is_dir() => {
                    // One that an earlier restore left read-only has to take new files; its own permissions come last.
                    if found.mode() & 0o700 != 0o700 {
                        let open = Permissions::from_mode(found.mode() & 0o7777 | 0o700);
                        std::fs::set_permissions(target, open).map_err(Problem::local("set the permissions of"))?;
                    }
                    Ok(())
                }
                _ => Err(Problem::InTheWay("something that is no directory")),
            },
            Err(error) => Err(Problem::local("make")(error)),
        }
    }

    /// Restores a node that is no directory.
    pub(super) fn node(&self, path: &EntryPath, target: &Path, inode: &Inode) -> Result<Applied, Problem> {
        if let NodeBody::File(content) = &inode.body
            && is_same(target, content, inode.meta.modified)
        {
            self.reporter.advance(content.size);
            return self.attributes(target, inode).map(Applied::AlreadyThere);
        }
        check_free(target)?;
        let temporary = Temporary::beside(target);
        match &inode.body {
            NodeBody::File(content) => self.file(path, &temporary.path, content)?,
            NodeBody::Symlink(link) => {
                symlink(OsStr::from_bytes(link), &temporary.path).map_err(Problem::local("make"))?;
            }
            NodeBody::Fifo => make_special(&temporary.path, FileType::Fifo, 0)?,
            NodeBody::Socket => make_special(&temporary.path, FileType::Socket, 0)?,
            NodeBody::CharDevice(number) => make_special(&temporary.path, FileType::CharacterDevice, *number)?,
            NodeBody::BlockDevice(number) => make_special(&temporary.path, FileType::BlockDevice, *number)?,
            NodeBody::Directory => return Err(Problem::InTheWay("a directory")),
        }
        let refused = self.attributes(&temporary.path, inode)?;
        temporary.publish(target)?;
        Ok(Applied::Written(refused))
    }

    /// Makes `target` a further name of the restored file `first`.
    pub(super) fn link(&self, first: &Path, target: &Path) -> Result<(), Problem> {
        let identity = |path: &Path| path.symlink_metadata().map(|found| (found.dev(), found.ino()));
        // Renaming one name of a file over another does nothing, and would leave the temporary one.
        if let (Ok(one), Ok(other)) = (identity(first), identity(target))
            && one == other
        {
            return Ok(());
        }
        check_free(target)?;
        let temporary = Temporary::beside(target);
        std::fs::hard_link(first, &temporary.path).map_err(Problem::local("link"))?;
        temporary.publish(target)
    }

    fn file(&self, path: &EntryPath, target: &Path, content: &FileContent) -> Result<(), Problem> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(target);
        let file = file.map_err(Problem::local("make"))?;
        file.set_len(content.size).map_err(Problem::local("set the length of"))?;
        let whole = [ContentRange::between(0, content.size)];
        for range in content.extents.as_deref().unwrap_or(&whole) {
            let mut at = range.start();
            let mut write = |bytes: &[u8]| {
                file.write_all_at(bytes, at)?;
                at += bytes.len() as u64;
                self.reporter.advance(bytes.len() as u64);
                Ok(())
            };
            stream(self.archive, self.catalog, path, content, *range, self.cancel, &mut write).map_err(of_stream)?;
        }
        Ok(())
    }

    /// Gives a restored node its attributes; returns how many could not be
    /// set. The owner first (a change clears setuid and capabilities), then
    /// extended attributes, permissions (which may forbid what came before),
    /// and times.
    pub(super) fn attributes(&self, target: &Path, inode: &Inode) -> Result<u64, Problem> {
        let meta = &inode.meta;
        let mut refused = 0;
        let mut permissions = u32::from(meta.permissions);
        if !self.is_root {
            let owner = target.symlink_metadata().map_err(Problem::local("examine"))?;
            if (owner.uid(), owner.gid()) != (meta.user, meta.group) {
                // setuid for somebody else than it was meant for is a hole.
                permissions &= 0o1777;
            }
        } else if lchown(target, Some(meta.user), Some(meta.group)).is_err() {
            permissions &= 0o1777;
            refused += 1;
        }
        refused += write_xattrs(target, &meta.xattrs)?;
        if !matches!(inode.body, NodeBody::Symlink(_)) {
            let permissions = Permissions::from_mode(permissions);
            std::fs::set_permissions(target, permissions).map_err(Problem::local("set the permissions of"))?;
        }
        let time = Timespec { tv_sec: meta.modified.seconds, tv_nsec: meta.modified.nanoseconds.into() };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, target, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| Problem::local("set the times of")(errno.into()))?;
        Ok(refused)
    }
}

/// A file that exists under a temporary name, deleted unless published.
struct Temporary {
    path: PathBuf,
    published: bool,
}

impl Temporary {
    fn beside(target: &Path) -> Self {
        let path = directory_of(target).join(format!(".blockframe-get-{}", StoreId::random()));
        Self { path, published: false }
    }

    fn publish(mut self, target: &Path) -> Result<(), Problem> {
        std::fs::rename(&self.path, target).map_err(Problem::local("rename"))?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.published {
            // It may never have been made; if it cannot be deleted, its name tells whose it is.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn check_free(target: &Path) -> Result<(), Problem> {
    match target.symlink_metadata() {
        Ok(found) if found.is_dir() => Err(Problem::InTheWay("a directory")),
        _ => Ok(()),
    }
}

fn make_special(path: &Path, kind: FileType, number: u32) -> Result<(), Problem> {
    rustix::fs::mknodat(CWD, path, kind, Mode::RUSR | Mode::WUSR, device_from(number))
        .map_err(|errno| Problem::local("make")(errno.into()))
}

/// Whether a file with this content and time stands there. The bytes are read.
fn is_same(target: &Path, content: &FileContent, time: Timestamp) -> bool {
    let Ok(found) = target.symlink_metadata() else { return false };
    if !found.is_file() || found.size() != content.size || super::source::modified(&found) != time {
        return false;
    }
    File::open(target).and_then(hash).is_ok_and(|hash| hash == content.hash)
}

fn hash(mut file: File) -> io::Result<ContentHash> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1024 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().into()),
            count => hasher.update(&buffer[..count]),
        };
    }
}

fn of_stream(error: IngestError) -> Problem {
    match error {
        IngestError::Output(source) => Problem::Local { operation: "write", source },
        IngestError::Archive(error) => Problem::Content(error),
        IngestError::Interrupted => Problem::Content(ArchiveError::Interrupted),
        IngestError::Catalog(CatalogError::ContentMissing { .. }) => Problem::Missing,
        other => Problem::Lookup(Box::new(other)),
    }
}
