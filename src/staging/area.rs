//! The staging directory: its files, their ids, their descriptors.

use super::encrypted::{StagingKeys, UNIT};
use super::file::{BLOCK, Inner, StagedFile};
use super::names::Name;
use super::quota::Admission;
use super::raw::{DiskFile, RawFile};
use super::state::{Generation, PublishedState, State};
use super::store::{Ready, Store};
use super::{StagingError, StagingLimits, StagingResult, StagingUsage};
use crate::base::Digest;
use crate::format::staged::extents_from_bytes;
use crate::format::{StagedContent, StagedExtent, StagedMap, StagingId};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::JoinHandle;

/// Most descriptors of staging files, unless more are in use or not synced.
const OPEN_FILES: u64 = 4096;
/// Descriptors looked at to find one to close.
const CLOSE_TRIES: usize = 64;
/// From this many files on one sync of the whole filesystem is sooner done.
const SYNC_TOGETHER: usize = 16;
/// A recovered file may keep this many bytes of the disk that it does not use.
const UNUSED_KEPT: u64 = 1 << 20;
/// Longest map that is read, bytes: what the longest allowed one can take.
const MAX_MAP: u64 = 512 << 20;

/// Makes the file of the disk into what the area works with; tests put faults in.
pub(super) type Wrap = Box<dyn Fn(Arc<File>) -> Arc<dyn RawFile> + Send + Sync>;

/// Where the bytes of files being written are kept, until they are committed.
pub struct StagingArea {
    pub(super) store: Arc<Store>,
    wrap: Wrap,
    keys: Option<StagingKeys>,
    /// Files that have a descriptor, the longest unused first.
    open: Mutex<VecDeque<Weak<Inner>>>,
    most_open: usize,
    /// Works for the store, from the first file on. It has the store only, so that the area can end it.
    thread: OnceLock<Option<JoinHandle<()>>>,
    /// Ranges that the disk shall begin to write, for a thread that may wait for it.
    early: OnceLock<Option<SyncSender<Early>>>,
}

/// A range of a file that the disk shall begin to write.
type Early = (Arc<dyn RawFile>, u64, u64);

/// Most ranges that wait; what does not fit is left to the system.
const EARLY_QUEUE: usize = 64;

impl std::fmt::Debug for StagingArea {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StagingArea").field("store", &self.store).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets this process have as many descriptors as it may, and tells how many.
fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let limit = if setrlimit(Resource::Nofile, raised).is_ok() { raised } else { limit };
    limit.current.unwrap_or(u64::MAX)
}

impl StagingArea {
    /// Opens the area in `directory`, which is made (for its owner alone) when it is missing.
    /// With `keys` nothing that is written to it can be read on the disk; to
    /// be given when the archive is encrypted, and always the same ones.
    pub fn open(directory: &Path, limits: StagingLimits, keys: Option<StagingKeys>) -> StagingResult<Arc<Self>> {
        let most_open = OPEN_FILES.min(raise_descriptor_limit() / 2) as usize;
        Self::open_with(directory, limits, most_open, keys, Box::new(|file| Arc::new(DiskFile(file))))
    }

    /// Whether the files are encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.keys.is_some()
    }

    /// The bytes that are written together; see [`Rooms::new`](super::rooms::Rooms::new).
    fn unit(&self) -> u64 {
        if self.is_encrypted() { UNIT } else { 1 }
    }

    /// The staging file of an id, as the area works with it.
    fn raw_file(&self, id: StagingId, file: Arc<File>) -> Arc<dyn RawFile> {
        let file = (self.wrap)(file);
        match &self.keys {
            Some(keys) => Arc::new(keys.encrypted(id, file)),
            None => file,
        }
    }

    /// Asks the disk to begin writing a range, without waiting for it.
    pub(super) fn write_early(&self, raw: &Arc<dyn RawFile>, start: u64, len: u64) {
        let start_thread = || {
            let (sender, ranges) = sync_channel::<Early>(EARLY_QUEUE);
            let work = move || {
                for (raw, start, len) in ranges {
                    // For speed alone: the sync tells of every error.
                    let _ = raw.start_writeback(start, len);
                }
            };
            // It ends with the area, which has the other end of the channel.
            std::thread::Builder::new().name("staging-early".into()).spawn(work).ok().map(|_| sender)
        };
        if let Some(queue) = self.early.get_or_init(start_thread) {
            let _ = queue.try_send((Arc::clone(raw), start, len));
        }
    }

    pub(super) fn open_with(
        directory: &Path,
        limits: StagingLimits,
        most_open: usize,
        keys: Option<StagingKeys>,
        wrap: Wrap,
    ) -> StagingResult<Arc<Self>> {
        Ok(Arc::new(Self {
            store: Arc::new(Store::open(directory, limits, most_open)?),
            wrap,
            keys,
            open: Mutex::default(),
            early: OnceLock::new(),
            most_open,
            thread: OnceLock::new(),
        }))
    }

    /// Starts the thread. Without one, its work is done by those who need it.
    fn start_thread(&self) -> Option<JoinHandle<()>> {
        self.store.begin();
        let store = Arc::clone(&self.store);
        let work = move || {
            let _running = Running(&store);
            store.work_off();
        };
        match std::thread::Builder::new().name("staging".into()).spawn(work) {
            Ok(thread) => Some(thread),
            Err(error) => {
                tracing::warn!(%error, "no thread for the staging area: files are made when they are needed");
                self.store.no_thread();
                None
            }
        }
    }

    /// A file over a base of `base_len` bytes: that long, nothing staged.
    pub fn create(self: &Arc<Self>, base_len: u64) -> StagingResult<StagedFile> {
        self.thread.get_or_init(|| self.start_thread());
        let Ready { id, file, named, modified } = self.store.take()?;
        let state = State::over_base(base_len, self.unit());
        Ok(self.opened(Inner::new(self.clone(), id, state, (Some(self.raw_file(id, file)), named), modified)))
    }

    /// The file in exactly the state that `content`, from the journal, names.
    /// A file that the kernel wrote in place, and cut shorter before the
    /// journal heard of it, is as long as it was cut; see [`StagedFile::size`].
    ///
    /// Errors: `Damaged` or `Map` when the staging file is not what `content`
    /// says; `InUse` when this process has the file already.
    pub fn recover(self: &Arc<Self>, content: &StagedContent) -> StagingResult<StagedFile> {
        let id = content.file;
        self.store.claim(id)?;
        let recover = || -> StagingResult<StagedFile> {
            let failed = |source| StagingError::file("open", id, source);
            let file = self.store.names.open_file(Name::Staged(id), false).map_err(failed)?;
            let file = self.raw_file(id, Arc::new(file));
            let state = recovered_state(content, &*file, self.unit())?;
            if let Err(error) = give_back_unused(&state, &*file) {
                tracing::debug!(%error, %id, "the disk does not take room back");
            }
            // Its name was durable before the journal named it.
            Ok(self.opened(Inner::new(self.clone(), id, state, (Some(file), 0), None)))
        };
        recover().inspect_err(|_| self.store.release(id))
    }

    /// Gives back the room of all files that no [`StagedFile`] of this process
    /// has: what the journal does not name, once all that it names was
    /// recovered. Returns how many of them held bytes.
    pub fn discard_unclaimed(&self) -> StagingResult<u64> {
        let mut discarded = 0;
        for name in self.store.names.list()? {
            let Name::Staged(id) = name else { continue };
            if self.store.is_claimed(id) {
                continue;
            }
            let failed = |source| StagingError::file("discard", id, source);
            match self.store.names.open_file(name, false) {
                Ok(file) => {
                    // Empty ones were made ahead, or never written.
                    discarded += u64::from(file.metadata().map_err(failed)?.len() > 0);
                    self.store.recycle(id, Some(Arc::new(file)));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(discarded)
    }

    /// What is in staging.
    pub fn usage(&self) -> StagingUsage {
        let quota = &self.store.quota;
        StagingUsage { files: self.store.files(), bytes: quota.needed(), quota: quota.limit() }
    }

    /// To be called before `bytes` are written. Returns at once while less
    /// than half of the quota is used; slows the caller down above that; at
    /// the quota, or when the disk has only its reserve left, waits for room.
    ///
    /// Errors: `NoRoom` when `wait` says that none will come.
    pub fn admit(&self, bytes: u64, wait: &dyn Admission) -> StagingResult<()> {
        let store = &self.store;
        store.quota.admit(bytes, &|| store.names.free_bytes(), &|| store.is_freeing(), wait)
    }

    /// As [`StagedFile::sync`] of each of `files`, but sooner: many are synced
    /// with their whole filesystem at once. Returns those that failed.
    pub fn sync_all(&self, files: &[StagedFile]) -> Vec<(StagedFile, StagingError)> {
        let mut dirty: Vec<&StagedFile> = files.iter().filter(|file| file.is_dirty()).collect();
        // Locked in one order by everybody, and each once.
        dirty.sort_unstable_by_key(|file| file.id());
        dirty.dedup_by_key(|file| file.id());
        let mut synced = Vec::new();
        if dirty.len() >= SYNC_TOGETHER {
            let together: Vec<_> = dirty.iter().filter_map(|file| file.begin_sync()).collect();
            // An error may be of any file on that disk: each tells then for itself.
            let outcome = self.store.names.sync_filesystem();
            if outcome.is_ok() {
                synced.extend(together.iter().map(|sync| sync.id()));
            }
            together.into_iter().for_each(|sync| sync.end(outcome.is_ok()));
        } else {
            for file in dirty {
                // For speed alone: the sync tells of every error.
                let _ =
                    file.raw().and_then(|raw| raw.start_writeback(0, 0).map_err(|error| file.failed("sync", error)));
            }
        }
        // Those that the kernel writes stay dirty; what they held when we were called is on the disk.
        let sync = |file: &StagedFile| {
            let outcome = if synced.binary_search(&file.id()).is_ok() { file.sync_name() } else { file.sync() };
            outcome.err().map(|error| (file.clone(), error))
        };
        files.iter().filter_map(sync).collect()
    }

    /// Makes the names of all files so far durable; [`StagedFile::sync`] does
    /// it for its own, and one call serves all.
    pub(super) fn sync_names(&self, change: u64) -> StagingResult<()> {
        self.store.names.sync(change)
    }

    /// Opens a file whose descriptor was closed.
    pub(super) fn reopen(&self, id: StagingId) -> StagingResult<Arc<dyn RawFile>> {
        let file = self.store.names.open_file(Name::Staged(id), false);
        file.map(|file| self.raw_file(id, Arc::new(file))).map_err(|source| StagingError::file("open", id, source))
    }

    fn opened(&self, inner: Inner) -> StagedFile {
        let file = StagedFile(Arc::new(inner));
        file.account();
        self.note_open(&file);
        file
    }

    /// `file` has a descriptor now; another may have to lose its own.
    pub(super) fn note_open(&self, file: &StagedFile) {
        let mut open = lock(&self.open);
        open.push_back(Arc::downgrade(&file.0));
        let mut unsynced = None;
        for _ in 0..CLOSE_TRIES {
            if open.len() <= self.most_open {
                return;
            }
            let Some(candidate) = open.pop_front().and_then(|weak| weak.upgrade()).map(StagedFile) else { continue };
            if !candidate.close_if_idle() {
                open.push_back(Arc::downgrade(&candidate.0));
                if candidate.0.id != file.0.id && unsynced.is_none() {
                    unsynced = Some(candidate);
                }
            }
        }
        drop(open);
        // The kernel tells of a failed write-back only those who have the file
        // open, so nothing unsynced is closed. Its own sync will tell again what went wrong.
        if let Some(file) = unsynced {
            let _ = file.sync();
            file.close_if_idle();
        }
    }
}

impl Drop for StagingArea {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take().flatten() {
            self.store.end();
            if thread.join().is_err() {
                tracing::error!("the thread of the staging area has panicked");
            }
        }
        self.store.finish();
    }
}

/// Tells the store when its thread has ended, however it did.
struct Running<'a>(&'a Store);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.no_thread();
    }
}

/// Frees what was written after the state that was recovered.
fn give_back_unused(state: &State, file: &dyn RawFile) -> io::Result<()> {
    let rooms = state.rooms();
    if file.metadata()?.blocks().saturating_mul(512) <= rooms.used() + UNUSED_KEPT {
        return Ok(());
    }
    // Whole blocks: nothing that is in use is touched, nor anything that is written together with it.
    file.set_len(rooms.end().next_multiple_of(BLOCK))?;
    rooms.free().try_for_each(|(start, len)| {
        let (first, end) = (start.next_multiple_of(BLOCK), (start + len) / BLOCK * BLOCK);
        if first < end { file.punch(first, end - first) } else { Ok(()) }
    })
}

/// Checks all that the journal says against the file.
fn recovered_state(content: &StagedContent, file: &dyn RawFile, unit: u64) -> StagingResult<State> {
    let id = content.file;
    let damaged = |why| StagingError::Damaged { file: id, why };
    let len = file.metadata().map_err(|source| StagingError::file("open", id, source))?.len();
    // The last bytes are there when all that were written together with them are.
    let whole = |end: u64| end.checked_next_multiple_of(unit).unwrap_or(u64::MAX);
    let mut content = content.clone();
    if content.base_len > content.size {
        return Err(damaged("more of the base shows than the file is long"));
    }
    let mut extents = match &content.map {
        StagedMap::Inline(extents) => extents.clone(),
        StagedMap::InFile { offset, len: map_len, hash } => {
            if *map_len > MAX_MAP || offset.checked_add(*map_len).is_none_or(|end| whole(end) > len) {
                return Err(damaged("its map is not there"));
            }
            let mut bytes = vec![0; *map_len as usize];
            file.read_exact_at(&mut bytes, *offset).map_err(|source| StagingError::file("read", id, source))?;
            if Digest::of(&bytes) != *hash {
                return Err(damaged("its map has changed"));
            }
            extents_from_bytes(&bytes).map_err(|source| StagingError::Map { file: id, source })?
        }
    };
    if extents.last().is_some_and(|extent| extent.range.end() > content.size) {
        return Err(damaged("it holds bytes behind the file's end"));
    }
    let place_end = |extent: &StagedExtent| extent.place.map_or(0, |place| whole(place + extent.range.len()));
    let mut cut = false;
    if extents.iter().any(|extent| place_end(extent) > len) {
        let in_place = |extent: &StagedExtent| extent.place == Some(extent.range.start());
        // What is encrypted was not written by the kernel.
        if unit > 1 || content.base_len > 0 || !extents.iter().all(in_place) {
            return Err(damaged("bytes that were synced are not there"));
        }
        tracing::warn!(%id, from = content.size, to = len, "a file written in place was cut after its last sync");
        extents.retain_mut(|extent| {
            extent.range = extent.range.clamp_to(len);
            !extent.range.is_empty()
        });
        content.size = len;
        content.map = StagedMap::Inline(extents.clone());
        cut = true;
    }
    let long = matches!(content.map, StagedMap::InFile { .. }).then(|| extents.into_boxed_slice());
    let published = PublishedState { generation: Generation(1), content, long };
    let mut state = State::recovered(published, unit).ok_or_else(|| damaged("two of its ranges share bytes"))?;
    state.changed = cut;
    Ok(state)
}
