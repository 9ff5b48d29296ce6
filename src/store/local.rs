//! A store in a local directory.
//!
//! Every name is resolved from the root that was open at the start. When the
//! disk behind the path is unmounted or exchanged, nothing is written to
//! whatever stands there then; [`BlockStore::health_check`] tells.
//!
//! Crash argument for names: a directory's own name is durable once the
//! directory above was synced. Which names are known to be so is remembered
//! (for speed alone), and [`BlockStore::write`] and [`BlockStore::publish`]
//! sync the rest of the chain before they put anything at its end.

use super::directory::{Directory, Kind};
use super::publish::{WRITE_CHUNK, publish_at};
use super::{
    BlockStore, Capabilities, ListedName, StagedFile, StoreError, StoreErrorKind, StoreKey, StoreResult, StoreSpace,
    StoredFile,
};
use rustix::fs::Advice;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Directory names remembered as durable; beyond it they are synced anew.
const REMEMBERED_NAMES: usize = 4096;

/// How often a new file is tried when another thread removes the directory,
/// just emptied, that it should go to.
const RACE_TRIES: usize = 16;

/// A directory that holds a store. All files are read with `pread`, never
/// mapped: a bad sector is an error here, and would be a SIGBUS there.
#[derive(Debug)]
pub struct LocalStore {
    path: PathBuf,
    label: Arc<str>,
    root: Directory,
    /// Keys of directories whose chain of names was synced by this process.
    durable: Mutex<HashSet<String>>,
    /// Keys whose last in-place sync failed, until the file is replaced.
    latched: Mutex<HashSet<StoreKey>>,
}

/// When the names of directories that a write needs become durable.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    /// Before the call returns.
    Durable,
    /// With the `publish` that follows.
    Later,
}

impl LocalStore {
    /// Opens the store in the directory `root`, which must exist.
    pub fn open(root: &Path) -> StoreResult<Self> {
        let label: Arc<str> = root.display().to_string().into();
        let directory = Directory::open(root).map_err(|error| StoreError::io("open", &label, "its root", error))?;
        Ok(Self {
            path: root.to_path_buf(),
            label,
            root: directory,
            durable: Mutex::default(),
            latched: Mutex::default(),
        })
    }

    /// The directory that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn error(&self, operation: &'static str, key: &StoreKey, error: io::Error) -> StoreError {
        // A store that is gone as a whole must not look like one that lost this file.
        let error = if error.kind() == io::ErrorKind::NotFound && self.root_is_gone() { root_gone() } else { error };
        StoreError::io(operation, &self.label, key, error)
    }

    fn root_is_gone(&self) -> bool {
        self.root.metadata().is_ok_and(|attributes| attributes.nlink() == 0)
    }

    fn durable(&self) -> MutexGuard<'_, HashSet<String>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn latched(&self) -> MutexGuard<'_, HashSet<StoreKey>> {
        self.latched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn walk(&self, prefix: &str) -> io::Result<Directory> {
        let mut directory = self.root.try_clone()?;
        for name in prefix.split('/').filter(|name| !name.is_empty()) {
            directory = directory.open_child(name)?;
        }
        Ok(directory)
    }

    fn parent<'a>(&self, key: &'a StoreKey) -> io::Result<(Directory, &'a str)> {
        let (above, name) = split(key);
        Ok((self.walk(above)?, name))
    }

    /// The directory of `key`, made when it is missing.
    fn make_parent<'a>(&self, key: &'a StoreKey, names: Names) -> io::Result<(Directory, &'a str)> {
        let (above, last) = split(key);
        let mut directory = self.root.try_clone()?;
        let mut reached = String::new();
        for name in above.split('/').filter(|name| !name.is_empty()) {
            if !reached.is_empty() {
                reached.push('/');
            }
            reached.push_str(name);
            let child = match directory.open_child(name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.durable().remove(&reached);
                    directory.make_child(name).or_else(ignore(io::ErrorKind::AlreadyExists))?;
                    directory.open_child(name)
                }
                opened => opened,
            };
            let child = child.map_err(|error| match error.kind() {
                io::ErrorKind::NotADirectory => {
                    io::Error::new(io::ErrorKind::AlreadyExists, "what stands there is not a directory")
                }
                _ => error,
            })?;
            if names == Names::Durable && !self.durable().contains(&reached) {
                directory.sync()?;
                let mut durable = self.durable();
                if durable.len() >= REMEMBERED_NAMES {
                    durable.clear();
                }
                durable.insert(reached.clone());
            }
            directory = child;
        }
        Ok((directory, last))
    }

    /// Runs `put` in the directory of `key`, again when that was removed meanwhile.
    fn put<T>(&self, key: &StoreKey, names: Names, put: impl Fn(&Directory, &str) -> io::Result<T>) -> io::Result<T> {
        let mut tries = 1;
        loop {
            match self.make_parent(key, names).and_then(|(directory, name)| put(&directory, name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && tries < RACE_TRIES && !self.root_is_gone() => {
                    tries += 1;
                }
                done => return done,
            }
        }
    }

    /// Removes the directories above `key` as far as they are empty.
    fn remove_emptied(&self, key: &StoreKey) {
        let mut below = split(key).0;
        while !below.is_empty() {
            let (above, name) = below.rsplit_once('/').unwrap_or(("", below));
            self.durable().remove(below);
            // Tidiness alone: whatever the reason, what cannot go stays.
            if self.walk(above).and_then(|directory| directory.remove_empty(name)).is_err() {
                return;
            }
            below = above;
        }
    }

    /// Forgets what was known of directories and files at and below `prefix`.
    fn forget(&self, prefix: &StoreKey) {
        let within = |key: &str| key.strip_prefix(prefix.as_str()).is_some_and(|r| r.is_empty() || r.starts_with('/'));
        self.durable().retain(|key| !within(key));
        self.latched().retain(|key| !within(key.as_str()));
    }

    fn publish_inner(&self, from: &StoreKey, to: &StoreKey) -> io::Result<()> {
        let (source, from_name) = self.parent(from)?;
        source.open_child(from_name)?.sync_tree()?;
        let (target, to_name) = self.make_parent(to, Names::Durable)?;
        let renamed = match source.rename_new(from_name, &target, to_name) {
            // An empty directory holds no key. Only such a one can be removed so.
            Err(error) if is_occupied(&error) && target.remove_empty(to_name).is_ok() => {
                source.rename_new(from_name, &target, to_name)
            }
            done => done,
        };
        renamed?;
        self.forget(from);
        // The new name first: a crash between the two leaves both, never neither.
        target.sync()?;
        source.sync()
    }

    fn replace_inner(&self, from: &StoreKey, to: &StoreKey) -> io::Result<()> {
        let (source, from_name) = self.parent(from)?;
        let (target, to_name) = self.make_parent(to, Names::Durable)?;
        source.rename(OsStr::new(from_name), &target, OsStr::new(to_name))?;
        self.latched().remove(to);
        target.sync()?;
        source.sync()
    }

    fn write_range_inner(&self, key: &StoreKey, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let (directory, name) = self.parent(key)?;
        let file = directory.open_file_for_update(name)?;
        let len = file.metadata()?.len();
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > len) {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the range to write ends after the file"));
        }
        write_all_at(&file, bytes, offset)?;
        file.sync_data().inspect_err(|_| {
            self.latched().insert(key.clone());
        })
    }
}

impl LocalStore {
    fn append_inner(&self, key: &StoreKey, keep: u64, bytes: &[u8]) -> io::Result<()> {
        if keep == 0 {
            return self.put(key, Names::Durable, |directory, name| publish_at(directory, OsStr::new(name), bytes));
        }
        let (directory, name) = self.parent(key)?;
        let file = directory.open_file_for_update(name)?;
        let len = file.metadata()?.len();
        if len < keep {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file ends before the place to append at"));
        }
        if len > keep {
            file.set_len(keep)?;
        }
        write_all_at(&file, bytes, keep)?;
        file.sync_data().inspect_err(|_| {
            self.latched().insert(key.clone());
        })
    }
}

impl BlockStore for LocalStore {
    fn label(&self) -> &str {
        &self.label
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { atomic_publish: true, range_write: true, free_space: true, hard_link: true }
    }

    fn write(&self, key: &StoreKey, bytes: &[u8]) -> StoreResult<()> {
        self.put(key, Names::Durable, |directory, name| publish_at(directory, OsStr::new(name), bytes))
            .map_err(|error| self.error("write", key, error))?;
        self.latched().remove(key);
        Ok(())
    }

    fn read(&self, key: &StoreKey, limit: u64) -> StoreResult<Vec<u8>> {
        let read = || {
            let (directory, name) = self.parent(key)?;
            let mut bytes = Vec::new();
            // One byte more than allowed tells a longer file, also one that grows meanwhile.
            directory.open_file(name)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().map_err(|error| self.error("read", key, error))?;
        if bytes.len() as u64 > limit {
            return Err(StoreError::new(StoreErrorKind::TooLong, "read", &self.label, key));
        }
        Ok(bytes)
    }

    fn open(&self, key: &StoreKey) -> StoreResult<Arc<dyn StoredFile>> {
        let open = || {
            let (directory, name) = self.parent(key)?;
            let file = directory.open_file(name)?;
            let len = file.metadata()?.len();
            Ok(LocalFile { file, len, key: key.clone(), label: Arc::clone(&self.label) })
        };
        let file = open().map_err(|error| self.error("open", key, error))?;
        Ok(Arc::new(file))
    }

    fn create(&self, key: &StoreKey) -> StoreResult<Arc<dyn StagedFile>> {
        // A new inode each time: an old one may have readers, other names, or
        // pages that the kernel failed to write.
        let create = |directory: &Directory, name: &str| {
            directory.remove_file(name).or_else(ignore(io::ErrorKind::NotFound))?;
            directory.create_file(name)
        };
        let file = self.put(key, Names::Later, create).map_err(|error| self.error("create", key, error))?;
        self.latched().remove(key);
        Ok(Arc::new(LocalStagedFile {
            file,
            key: key.clone(),
            label: Arc::clone(&self.label),
            sync_failed: Mutex::new(false),
        }))
    }

    fn publish(&self, from: &StoreKey, to: &StoreKey) -> StoreResult<()> {
        self.publish_inner(from, to).map_err(|error| {
            let key = if is_occupied(&error) { to } else { from };
            self.error("publish", key, error)
        })
    }

    fn replace(&self, from: &StoreKey, to: &StoreKey) -> StoreResult<()> {
        self.replace_inner(from, to).map_err(|error| self.error("replace", to, error))
    }

    fn link(&self, from: &StoreKey, to: &StoreKey) -> StoreResult<()> {
        if self.latched().contains(from) {
            return Err(StoreError::new(StoreErrorKind::Latched, "link to", &self.label, from));
        }
        let (source, from_name) = self.parent(from).map_err(|error| self.error("link to", from, error))?;
        // A regular file alone is linked, and a missing one told apart from a missing directory of `to`.
        source.open_file(from_name).map_err(|error| self.error("link to", from, error))?;
        self.put(to, Names::Later, |target, to_name| source.link(from_name, target, to_name))
            .map_err(|error| self.error("link", to, error))
    }

    fn write_range(&self, key: &StoreKey, offset: u64, bytes: &[u8]) -> StoreResult<()> {
        if self.latched().contains(key) {
            return Err(StoreError::new(StoreErrorKind::Latched, "write to", &self.label, key));
        }
        self.write_range_inner(key, offset, bytes).map_err(|error| self.error("write to", key, error))
    }

    fn append(&self, key: &StoreKey, keep: u64, bytes: &[u8]) -> StoreResult<()> {
        if keep == 0 {
            self.latched().remove(key);
        } else if self.latched().contains(key) {
            return Err(StoreError::new(StoreErrorKind::Latched, "append to", &self.label, key));
        }
        self.append_inner(key, keep, bytes).map_err(|error| self.error("append to", key, error))
    }

    fn delete(&self, key: &StoreKey) -> StoreResult<()> {
        let delete = || {
            let (directory, name) = self.parent(key)?;
            directory.remove_file(name)?;
            directory.sync()
        };
        match delete() {
            Ok(()) => {}
            // No file of that key: nothing at all, or a directory.
            Err(error) if is_absent(&error) || error.kind() == io::ErrorKind::IsADirectory => return Ok(()),
            Err(error) => return Err(self.error("delete", key, error)),
        }
        self.latched().remove(key);
        self.remove_emptied(key);
        Ok(())
    }

    fn delete_prefix(&self, prefix: &StoreKey) -> StoreResult<()> {
        self.forget(prefix);
        let delete = || {
            let (directory, name) = self.parent(prefix)?;
            directory.remove_tree(OsStr::new(name))?;
            directory.sync()
        };
        delete()
            .or_else(|error| if is_absent(&error) { Ok(()) } else { Err(error) })
            .map_err(|error| self.error("delete", prefix, error))?;
        self.remove_emptied(prefix);
        Ok(())
    }

    fn list(&self, prefix: Option<&StoreKey>) -> StoreResult<Vec<ListedName>> {
        let place = prefix.map_or("", StoreKey::as_str);
        let names = match self.walk(place).and_then(|directory| directory.names()) {
            Err(error) if is_absent(&error) => Vec::new(),
            names => names.map_err(|error| StoreError::io("list", &self.label, place, error))?,
        };
        if names.is_empty() && self.root_is_gone() {
            return Err(StoreError::io("list", &self.label, place, root_gone()));
        }
        let mut listed: Vec<_> = names
            .into_iter()
            .filter_map(|(name, kind)| Some((name.into_string().ok()?, kind)))
            .filter(|(name, _)| StoreKey::new(name.as_str()).is_ok())
            .map(|(name, kind)| ListedName { name, is_prefix: kind == Kind::Directory })
            .collect();
        listed.sort();
        Ok(listed)
    }

    fn space(&self) -> StoreResult<StoreSpace> {
        let (total, free) =
            self.root.space().map_err(|error| StoreError::io("measure", &self.label, "its root", error))?;
        Ok(StoreSpace { total, free })
    }

    fn health_check(&self) -> StoreResult<()> {
        let check = || {
            let (opened, now) = (self.root.metadata()?, Directory::open(&self.path)?.metadata()?);
            if (opened.dev(), opened.ino()) != (now.dev(), now.ino()) {
                return Err(io::Error::other("another directory stands at its path now; restart with the right one"));
            }
            self.root.names().map(drop)
        };
        check().map_err(|error| {
            let error = if error.kind() == io::ErrorKind::NotFound { root_gone() } else { error };
            StoreError::io("check", &self.label, "its root", error)
        })
    }
}

fn split(key: &StoreKey) -> (&str, &str) {
    key.as_str().rsplit_once('/').unwrap_or(("", key.as_str()))
}

fn root_gone() -> io::Error {
    io::Error::other("the store's directory was deleted or its disk is not mounted")
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn is_occupied(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty)
}

fn ignore(kind: io::ErrorKind) -> impl Fn(io::Error) -> io::Result<()> {
    move |error| if error.kind() == kind { Ok(()) } else { Err(error) }
}

fn write_all_at(file: &File, bytes: &[u8], mut offset: u64) -> io::Result<()> {
    for chunk in bytes.chunks(WRITE_CHUNK) {
        file.write_all_at(chunk, offset)?;
        offset = offset.saturating_add(chunk.len() as u64);
    }
    Ok(())
}

/// A file of a [`LocalStore`], open for reading.
#[derive(Debug)]
struct LocalFile {
    file: File,
    len: u64,
    key: StoreKey,
    label: Arc<str>,
}

impl StoredFile for LocalFile {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> StoreResult<()> {
        self.file.read_exact_at(buffer, offset).map_err(|error| StoreError::io("read", &self.label, &self.key, error))
    }

    fn will_read(&self, offset: u64, len: u64) {
        if let Some(len) = NonZeroU64::new(len) {
            // A hint: where it is not understood, reads are merely slower.
            let _ = rustix::fs::fadvise(&self.file, offset, Some(len), Advice::WillNeed);
        }
    }

    fn will_not_read_again(&self, offset: u64, len: u64) {
        if let Some(len) = NonZeroU64::new(len) {
            let _ = rustix::fs::fadvise(&self.file, offset, Some(len), Advice::DontNeed);
        }
    }
}

/// A file of a [`LocalStore`] that is being written.
#[derive(Debug)]
struct LocalStagedFile {
    file: File,
    key: StoreKey,
    label: Arc<str>,
    /// Held during the sync: the kernel reports a failed write-back once per
    /// open file, and a sync beside the one that is told would succeed.
    sync_failed: Mutex<bool>,
}

impl LocalStagedFile {
    fn error(&self, operation: &'static str, error: io::Error) -> StoreError {
        StoreError::io(operation, &self.label, &self.key, error)
    }
}

impl StagedFile for LocalStagedFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> StoreResult<()> {
        write_all_at(&self.file, bytes, offset).map_err(|error| self.error("write", error))
    }

    fn set_len(&self, len: u64) -> StoreResult<()> {
        self.file.set_len(len).map_err(|error| self.error("set the length of", error))
    }

    fn sync(&self) -> StoreResult<()> {
        let mut failed = self.sync_failed.lock().unwrap_or_else(PoisonError::into_inner);
        if *failed {
            return Err(StoreError::new(StoreErrorKind::Latched, "sync", &self.label, &self.key));
        }
        self.file.sync_data().map_err(|error| {
            *failed = true;
            self.error("sync", error)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::is_temporary_name;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn key(text: &str) -> StoreKey {
        StoreKey::new(text).unwrap()
    }

    fn store() -> (tempfile::TempDir, LocalStore) {
        let root = tempfile::tempdir().unwrap();
        let store = LocalStore::open(root.path()).unwrap();
        (root, store)
    }

    fn staged(file: File) -> LocalStagedFile {
        LocalStagedFile { file, key: key("staged"), label: "test".into(), sync_failed: Mutex::new(false) }
    }

    #[test]
    fn a_root_that_does_not_exist_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let error = LocalStore::open(&directory.path().join("none")).unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::NotFound);
        let file = directory.path().join("file");
        fs::write(&file, b"").unwrap();
        LocalStore::open(&file).unwrap_err();
    }

    #[test]
    fn no_operation_follows_a_symbolic_link_out_of_the_root() {
        let (root, store) = store();
        let outside = tempfile::tempdir().unwrap();
        fs::create_dir(outside.path().join("below")).unwrap();
        let theirs = outside.path().join("theirs");
        fs::write(&theirs, b"private").unwrap();
        symlink(outside.path(), root.path().join("out")).unwrap();
        symlink(&theirs, root.path().join("link")).unwrap();

        for text in ["out/theirs", "link"] {
            let key = key(text);
            assert_eq!(store.read(&key, 100).unwrap_err().kind(), StoreErrorKind::NotFound, "{text}");
            assert_eq!(store.open(&key).unwrap_err().kind(), StoreErrorKind::NotFound, "{text}");
            store.write_range(&key, 0, b"x").unwrap_err();
            store.link(&key, &super::StoreKey::new("mine/file").unwrap()).unwrap_err();
        }
        store.write(&key("out/new"), b"x").unwrap_err();
        store.create(&key("out/new")).unwrap_err();
        store.delete(&key("out/theirs")).unwrap();
        store.delete_prefix(&key("out/below")).unwrap();
        store.write(&key("ours/file"), b"x").unwrap();
        store.publish(&key("ours"), &key("out/ours")).unwrap_err();
        store.link(&key("ours/file"), &key("out/file")).unwrap_err();
        store.publish(&key("out/below"), &key("mine")).unwrap_err();
        assert_eq!(store.list(Some(&key("out"))).unwrap(), []);
        // The link itself is a name of ours: it goes, what it points to stays.
        store.delete_prefix(&key("out")).unwrap();
        store.write(&key("link"), b"ours").unwrap();
        assert_eq!(fs::read(&theirs).unwrap(), b"private");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_tree_with_links_in_it_is_deleted_without_following_them() {
        let (root, store) = store();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("theirs"), b"kept").unwrap();
        store.write(&key("tree/a/b/file"), b"x").unwrap();
        symlink(outside.path(), root.path().join("tree/a/out")).unwrap();
        store.delete_prefix(&key("tree")).unwrap();
        assert!(!root.path().join("tree").exists());
        assert!(outside.path().join("theirs").exists());
    }

    #[test]
    fn a_pipe_in_place_of_a_shard_is_no_file_and_does_not_hang() {
        let (root, store) = store();
        let path = root.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        assert_eq!(store.open(&key("pipe")).unwrap_err().kind(), StoreErrorKind::NotFound);
        assert_eq!(store.write_range(&key("pipe"), 0, b"x").unwrap_err().kind(), StoreErrorKind::NotFound);
    }

    #[test]
    fn after_a_failed_sync_no_later_sync_succeeds() {
        // A device that cannot be synced stands for a disk that fails to.
        let file = staged(File::options().write(true).open("/dev/full").unwrap());
        assert_eq!(file.sync().unwrap_err().kind(), StoreErrorKind::Io);
        assert_eq!(file.sync().unwrap_err().kind(), StoreErrorKind::Latched);
        assert_eq!(file.sync().unwrap_err().kind(), StoreErrorKind::Latched);
    }

    #[test]
    fn a_file_whose_sync_in_place_failed_takes_no_more_until_it_is_replaced() {
        let (_root, store) = store();
        let file = key("object/data.dat");
        store.write(&file, b"old").unwrap();
        store.latched().insert(file.clone());
        assert_eq!(store.write_range(&file, 0, b"new").unwrap_err().kind(), StoreErrorKind::Latched);
        assert_eq!(store.link(&file, &key("tmp/data.dat")).unwrap_err().kind(), StoreErrorKind::Latched);
        store.write(&file, b"new").unwrap();
        store.write_range(&file, 0, b"N").unwrap();
        assert_eq!(store.read(&file, 10).unwrap(), b"New");
    }

    #[test]
    fn a_full_device_is_reported_as_full() {
        let file = staged(File::options().write(true).open("/dev/full").unwrap());
        assert_eq!(file.write_at(0, b"x").unwrap_err().kind(), StoreErrorKind::NoSpace);
    }

    #[test]
    fn errors_of_the_system_come_out_by_what_can_be_done() {
        use rustix::io::Errno;
        for (errno, kind) in [
            (Errno::NOSPC, StoreErrorKind::NoSpace),
            (Errno::DQUOT, StoreErrorKind::NoSpace),
            (Errno::ROFS, StoreErrorKind::ReadOnly),
            (Errno::ACCESS, StoreErrorKind::Denied),
            (Errno::PERM, StoreErrorKind::Denied),
            (Errno::IO, StoreErrorKind::Io),
            (Errno::STALE, StoreErrorKind::Io),
            (Errno::NOENT, StoreErrorKind::NotFound),
            (Errno::EXIST, StoreErrorKind::Exists),
            (Errno::NOTEMPTY, StoreErrorKind::Exists),
            (Errno::ISDIR, StoreErrorKind::Exists),
        ] {
            let error = StoreError::io("write", "test", "key", errno.into());
            assert_eq!(error.kind(), kind, "{errno:?}");
            assert!(std::error::Error::source(&error).is_some());
        }
    }

    #[test]
    fn a_store_whose_directory_was_deleted_does_not_claim_that_files_are_missing() {
        let (root, store) = store();
        store.write(&key("file"), b"x").unwrap();
        fs::remove_dir_all(root.path()).unwrap();
        assert_eq!(store.read(&key("file"), 10).unwrap_err().kind(), StoreErrorKind::Io);
        assert_eq!(store.list(None).unwrap_err().kind(), StoreErrorKind::Io);
        assert_eq!(store.write(&key("file"), b"x").unwrap_err().kind(), StoreErrorKind::Io);
        assert_eq!(store.health_check().unwrap_err().kind(), StoreErrorKind::Io);
    }

    #[test]
    fn nothing_is_written_to_another_directory_that_took_the_path() {
        let (root, store) = store();
        let moved = root.path().with_extension("moved");
        fs::rename(root.path(), &moved).unwrap();
        fs::create_dir(root.path()).unwrap();
        assert_eq!(store.health_check().unwrap_err().kind(), StoreErrorKind::Io);
        store.write(&key("file"), b"x").unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        fs::remove_dir_all(&moved).unwrap();
    }

    #[test]
    fn an_empty_directory_left_at_the_target_does_not_stop_a_publish() {
        let (root, store) = store();
        fs::create_dir(root.path().join("object")).unwrap();
        store.write(&key("tmp/1/data.dat"), b"x").unwrap();
        store.publish(&key("tmp/1"), &key("object")).unwrap();
        assert_eq!(store.read(&key("object/data.dat"), 10).unwrap(), b"x");
    }

    #[test]
    fn files_stay_writable_while_others_delete_their_neighbours() {
        let (_root, store) = store();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let store = &store;
                scope.spawn(move || {
                    let file = key(&format!("shared/deep/{thread}"));
                    for _ in 0..100 {
                        store.create(&file).unwrap().write_at(0, b"x").unwrap();
                        store.delete(&file).unwrap();
                    }
                });
            }
        });
        assert_eq!(store.list(None).unwrap(), []);
    }

    #[test]
    fn names_that_are_no_keys_are_left_out_of_listings_and_leftovers_are_told() {
        use std::os::unix::ffi::OsStrExt;
        let (root, store) = store();
        fs::write(root.path().join(OsStr::from_bytes(b"bad\xff")), b"").unwrap();
        fs::write(root.path().join(OsStr::from_bytes(b"bad\n")), b"").unwrap();
        fs::write(root.path().join(".blockframe-tmp-1-1"), b"").unwrap();
        let names = store.list(None).unwrap();
        assert_eq!(names.len(), 1);
        assert!(is_temporary_name(&names[0].name));
    }

    #[test]
    fn space_is_what_an_ordinary_user_may_use() {
        let (_root, store) = store();
        let space = store.space().unwrap();
        assert!(space.total > 0 && space.free <= space.total);
    }
}
