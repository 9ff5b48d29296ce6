//! The catalog's files beside the store: the database, its seal, the writer's lock.
//!
//! The seal says that the database was closed cleanly: its length and hash.
//! It is removed, durably, before the first change, and written after the
//! last one was durable. So a seal that fits proves every byte of the
//! database, and one that does not fit proves damage.

use super::{CatalogError, CatalogResult};
use crate::base::Digest;
use crate::format::sealed_json;
use crate::store::{publish_file, sync_directory};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SEAL_WHAT: &str = "catalog seal";
/// Longest seal that is read, bytes.
const SEAL_LIMIT: u64 = 4096;
/// Bytes read at once for hashing, and how many such pieces wait.
const HASH_CHUNK: usize = 1 << 20;
const HASH_QUEUE: usize = 4;

/// Where the files are.
#[derive(Debug, Clone)]
pub(super) struct LocalFiles {
    directory: PathBuf,
}

/// What a seal says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seal {
    format: String,
    version: u64,
    length: u64,
    hash: Digest,
}

/// What the seal tells of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SealState {
    /// Every byte is as it was when the database was closed.
    Matches,
    /// There is none: a writer is at work, or was stopped by a crash.
    Missing,
    /// The database or the seal was damaged since.
    Broken,
}

/// The writer's lock, held until dropped.
#[derive(Debug)]
pub(super) struct WriterLock {
    _file: File,
}

impl LocalFiles {
    pub(super) fn new(home: &Path) -> Self {
        Self { directory: home.join(".blockframe") }
    }

    pub(super) fn database(&self) -> PathBuf {
        self.directory.join("catalog.db")
    }

    /// What SQLite may keep beside the database: its rollback journal, its
    /// write-ahead log, and the index of that.
    fn companions(&self) -> [PathBuf; 3] {
        ["catalog.db-journal", "catalog.db-wal", "catalog.db-shm"].map(|name| self.directory.join(name))
    }

    /// Where a database is built before it takes the place of the other.
    pub(super) fn new_database(&self) -> PathBuf {
        self.directory.join("catalog.db.new")
    }

    fn damaged_database(&self) -> PathBuf {
        self.directory.join("catalog.db.damaged")
    }

    fn seal_file(&self) -> PathBuf {
        self.directory.join("catalog.seal")
    }

    fn error(operation: &'static str, file: PathBuf) -> impl FnOnce(io::Error) -> CatalogError {
        move |source| CatalogError::Local { operation, file, source }
    }

    /// Takes the writer's lock. Errors: `Locked`; `Local` where nothing can be written.
    pub(super) fn lock(&self) -> CatalogResult<WriterLock> {
        let path = self.directory.join("lock");
        std::fs::create_dir_all(&self.directory).map_err(Self::error("make", self.directory.clone()))?;
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(Self::error("open", path.clone()))?;
        match file.try_lock() {
            Ok(()) => Ok(WriterLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(CatalogError::Locked { lock: path }),
            Err(TryLockError::Error(source)) => Err(CatalogError::Local { operation: "lock", file: path, source }),
        }
    }

    pub(super) fn database_exists(&self) -> bool {
        self.database().is_file()
    }

    /// Whether this process may write to the database.
    pub(super) fn database_is_writable(&self) -> bool {
        // Asked without opening it: closing it again would drop the locks of this process (see `keep_open`).
        #[cfg(unix)]
        return rustix::fs::access(self.database(), rustix::fs::Access::WRITE_OK).is_ok();
        #[cfg(not(unix))]
        return std::fs::metadata(self.database()).is_ok_and(|metadata| !metadata.permissions().readonly());
    }

    /// Tells the database's file from another one of that name; `None` when there is none.
    pub(super) fn database_identity(&self) -> Option<u64> {
        let metadata = std::fs::metadata(self.database()).ok()?;
        #[cfg(unix)]
        return Some(std::os::unix::fs::MetadataExt::ino(&metadata));
        #[cfg(not(unix))]
        return metadata.created().ok()?.duration_since(std::time::UNIX_EPOCH).ok().map(|age| age.as_micros() as u64);
    }

    /// Compares the database with its seal.
    pub(super) fn check_seal(&self) -> SealState {
        let path = self.seal_file();
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|file| file.take(SEAL_LIMIT).read_to_end(&mut bytes)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return SealState::Missing,
            Err(error) => {
                tracing::warn!("{} cannot be read: {error}", path.display());
                return SealState::Broken;
            }
            Ok(_) => {}
        }
        let Ok(seal) = sealed_json::open::<Seal>(SEAL_WHAT, &bytes) else { return SealState::Broken };
        // The log is empty before the seal is written, and the seal gone before the log is begun. One that
        // stands here belongs to another database, and SQLite would mix the two.
        if self.companions().iter().any(|file| !file.ends_with("catalog.db-shm") && length(file) > 0) {
            return SealState::Broken;
        }
        match hash_file(&self.database()) {
            Ok((length, hash)) if (length, hash) == (seal.length, seal.hash) && seal.version == 1 => SealState::Matches,
            _ => SealState::Broken,
        }
    }

    /// Writes the seal of a database that nobody changes now.
    pub(super) fn seal(&self) -> CatalogResult<()> {
        let database = self.database();
        let (length, hash) = hash_file(&database).map_err(Self::error("read", database))?;
        let seal = Seal { format: "blockframe-catalog-seal".into(), version: 1, length, hash };
        let bytes = sealed_json::seal(SEAL_WHAT, &seal)?;
        publish_file(&self.seal_file(), &bytes).map_err(Self::error("write", self.seal_file()))
    }

    /// Removes the seal, durably.
    pub(super) fn unseal(&self) -> CatalogResult<()> {
        remove(&self.seal_file()).map_err(Self::error("remove", self.seal_file()))?;
        self.sync()
    }

    fn sync(&self) -> CatalogResult<()> {
        sync_directory(&self.directory).map_err(Self::error("sync", self.directory.clone()))
    }

    /// Removes what an interrupted rebuild left, and makes the directory.
    pub(super) fn clear_new_database(&self) -> CatalogResult<()> {
        std::fs::create_dir_all(&self.directory).map_err(Self::error("make", self.directory.clone()))?;
        remove(&self.new_database()).map_err(Self::error("remove", self.new_database()))
    }

    /// Puts the database that was built in the place of the other, which is
    /// kept under another name; seals it.
    pub(super) fn install_new_database(&self) -> CatalogResult<()> {
        let (new, database) = (self.new_database(), self.database());
        let synced = File::open(&new).and_then(|file| file.sync_all());
        synced.map_err(Self::error("sync", new.clone()))?;
        self.unseal()?;
        if database.exists() {
            let aside = self.damaged_database();
            std::fs::rename(&database, &aside).map_err(Self::error("set aside", database.clone()))?;
        }
        // SQLite would put the old database's changes into the new one.
        for file in self.companions() {
            remove(&file).map_err(Self::error("remove", file))?;
        }
        self.sync()?;
        std::fs::rename(&new, &database).map_err(Self::error("publish", database))?;
        self.sync()?;
        self.seal()
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// Opens a database file to read its bytes. On Unix, a process that closes any
/// handle of a file drops all its locks on that file, those of SQLite too:
/// another process would then take the write-ahead log away under it. So such a
/// handle stays open until the file has no name.
#[cfg(unix)]
fn keep_open(path: &Path) -> io::Result<Arc<File>> {
    use std::os::unix::fs::MetadataExt;
    use std::sync::{Mutex, PoisonError};
    static KEPT: Mutex<Vec<(u64, u64, Arc<File>)>> = Mutex::new(Vec::new());
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let named = std::fs::metadata(path)?;
    if let Some((_, _, file)) = kept.iter().find(|(device, inode, _)| (*device, *inode) == (named.dev(), named.ino())) {
        return Ok(file.clone());
    }
    kept.retain(|(_, _, file)| file.metadata().map_or(true, |metadata| metadata.nlink() > 0));
    let file = Arc::new(File::open(path)?);
    let opened = file.metadata()?;
    kept.push((opened.dev(), opened.ino(), file.clone()));
    Ok(file)
}

#[cfg(not(unix))]
fn keep_open(path: &Path) -> io::Result<Arc<File>> {
    File::open(path).map(Arc::new)
}

/// Fills `piece` with at most [`HASH_CHUNK`] bytes from `offset`.
fn read_piece(file: &File, offset: u64, piece: &mut Vec<u8>) -> io::Result<()> {
    piece.resize(HASH_CHUNK, 0);
    let mut filled = 0;
    while filled < piece.len() {
        #[cfg(unix)]
        let read = std::os::unix::fs::FileExt::read_at(file, &mut piece[filled..], offset + filled as u64);
        #[cfg(not(unix))]
        let read = std::os::windows::fs::FileExt::seek_read(file, &mut piece[filled..], offset + filled as u64);
        match read {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    piece.truncate(filled);
    Ok(())
}

/// Length and BLAKE3 of a file; one thread reads while another hashes.
fn hash_file(path: &Path) -> io::Result<(u64, Digest)> {
    let file = keep_open(path)?;
    let mut offset = 0;
    std::thread::scope(|scope| {
        let (send, receive) = std::sync::mpsc::sync_channel::<Vec<u8>>(HASH_QUEUE);
        let (give_back, spare) = std::sync::mpsc::channel::<Vec<u8>>();
        let hashing = scope.spawn(move || {
            let mut hasher = blake3::Hasher::new();
            let mut length = 0;
            for piece in receive {
                hasher.update(&piece);
                length += piece.len() as u64;
                // The reader may have ended already.
                let _ = give_back.send(piece);
            }
            (length, hasher.finalize().into())
        });
        loop {
            let mut piece = spare.try_recv().unwrap_or_default();
            read_piece(&file, offset, &mut piece)?;
            offset += piece.len() as u64;
            if piece.is_empty() || send.send(piece).is_err() {
                break;
            }
        }
        drop(send);
        hashing.join().map_err(|_| io::Error::other("the hashing thread ended early"))
    })
}
