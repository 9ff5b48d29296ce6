//! The staging directory: its files, their ids, their descriptors.

use super::file::{Inner, StagedFile};
use super::names::{Name, Names};
use super::quota::{Admission, Quota};
use super::raw::{DiskFile, RawFile};
use super::state::{Generation, PublishedState, State};
use super::{StagingError, StagingLimits, StagingResult, StagingUsage};
use crate::base::Digest;
use crate::format::staged::extents_from_bytes;
use crate::format::{StagedContent, StagedExtent, StagedMap, StagingId};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// The counter on the disk is this far ahead, so that it is written rarely.
const ID_STEP: u64 = 1 << 20;
/// Most files kept for reuse: where files were deleted lately, ext4 makes new ones ten times slower.
const POOL_FILES: usize = 1024;
/// Most of them that are kept open.
const POOL_OPEN: usize = 256;
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
    pub(super) names: Names,
    pub(super) quota: Quota,
    wrap: Wrap,
    ids: Mutex<Ids>,
    pool: Mutex<Vec<Pooled>>,
    /// Ids that a [`StagedFile`] of this process has.
    claimed: Mutex<HashSet<StagingId>>,
    /// Files that have a descriptor, the longest unused first.
    open: Mutex<VecDeque<Weak<Inner>>>,
    most_open: usize,
}

#[derive(Debug)]
struct Ids {
    next: u64,
    /// What the counter on the disk says.
    limit: u64,
}

/// An empty file without an id.
#[derive(Debug)]
struct Pooled {
    name: Name,
    file: Option<Arc<File>>,
}

impl std::fmt::Debug for StagingArea {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StagingArea").field("names", &self.names).finish_non_exhaustive()
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
    pub fn open(directory: &Path, limits: StagingLimits) -> StagingResult<Arc<Self>> {
        let most_open = OPEN_FILES.min(raise_descriptor_limit() / 2) as usize;
        Self::open_with(directory, limits, most_open, Box::new(|file| Arc::new(DiskFile(file))))
    }

    pub(super) fn open_with(
        directory: &Path,
        limits: StagingLimits,
        most_open: usize,
        wrap: Wrap,
    ) -> StagingResult<Arc<Self>> {
        let names = Names::open(directory)?;
        let mut next = names.read_counter()?.max(1);
        let mut pool = Vec::new();
        for name in names.list()? {
            match name {
                Name::Staged(id) => next = next.max(id.get().saturating_add(1)),
                Name::Free(number) => {
                    next = next.max(number.saturating_add(1));
                    if pool.len() < POOL_FILES {
                        pool.push(Pooled { name, file: None });
                    } else if let Err(error) = names.remove(name) {
                        tracing::warn!(%error, ?name, "cannot remove a staging file that is not needed");
                    }
                }
            }
        }
        Ok(Arc::new(Self {
            names,
            quota: Quota::new(limits),
            wrap,
            ids: Mutex::new(Ids { next, limit: next }),
            pool: Mutex::new(pool),
            claimed: Mutex::default(),
            open: Mutex::default(),
            most_open,
        }))
    }

    /// A file over a base of `base_len` bytes: that long, nothing staged.
    pub fn create(self: &Arc<Self>, base_len: u64) -> StagingResult<StagedFile> {
        let id = self.new_id()?;
        self.claim(id)?;
        let state = State::over_base(base_len);
        let file = self.file_for(id).inspect_err(|_| self.unclaim(id))?;
        let named = self.names.changed();
        Ok(self.opened(Inner::new(self.clone(), id, state, Some((self.wrap)(file)), named)))
    }

    /// The file in exactly the state that `content`, from the journal, names.
    /// A file that the kernel wrote in place, and cut shorter before the
    /// journal heard of it, is as long as it was cut; see [`StagedFile::size`].
    ///
    /// Errors: `Damaged` or `Map` when the staging file is not what `content`
    /// says; `InUse` when this process has the file already.
    pub fn recover(self: &Arc<Self>, content: &StagedContent) -> StagingResult<StagedFile> {
        let id = content.file;
        self.claim(id)?;
        let recover = || -> StagingResult<StagedFile> {
            self.pass_by(id);
            let failed = |source| StagingError::file("open", id, source);
            let file = (self.wrap)(Arc::new(self.names.open_file(Name::Staged(id), false).map_err(failed)?));
            let state = recovered_state(content, &*file)?;
            if let Err(error) = give_back_unused(&state, &*file) {
                tracing::debug!(%error, %id, "the disk does not take room back");
            }
            // Its name was durable before the journal named it.
            Ok(self.opened(Inner::new(self.clone(), id, state, Some(file), 0)))
        };
        recover().inspect_err(|_| self.unclaim(id))
    }

    /// Gives back the room of all files that no [`StagedFile`] of this process
    /// has: what the journal does not name, once all that it names was
    /// recovered. Returns how many there were.
    pub fn discard_unclaimed(&self) -> StagingResult<u64> {
        let mut discarded = 0;
        for name in self.names.list()? {
            let Name::Staged(id) = name else { continue };
            if lock(&self.claimed).contains(&id) {
                continue;
            }
            let failed = |source| StagingError::file("discard", id, source);
            match self.names.open_file(name, false) {
                Ok(file) => self.recycle(id, Some(Arc::new(file))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(error)),
            }
            discarded += 1;
        }
        Ok(discarded)
    }

    /// What is in staging.
    pub fn usage(&self) -> StagingUsage {
        let files = lock(&self.claimed).len() as u64;
        StagingUsage { files, bytes: self.quota.used(), quota: self.quota.limit() }
    }

    /// To be called before `bytes` are written. Returns at once while less
    /// than half of the quota is used; slows the caller down above that; at
    /// the quota, or when the disk has only its reserve left, waits for room.
    ///
    /// Errors: `NoRoom` when `wait` says that none will come.
    pub fn admit(&self, bytes: u64, wait: &dyn Admission) -> StagingResult<()> {
        self.quota.admit(bytes, &|| self.names.free_bytes(), wait)
    }

    /// As [`StagedFile::sync`] of each of `files`, but sooner: many are synced
    /// with their whole filesystem at once. Returns those that failed.
    pub fn sync_all(&self, files: &[StagedFile]) -> Vec<(StagedFile, StagingError)> {
        let mut dirty: Vec<&StagedFile> = files.iter().filter(|file| file.is_dirty()).collect();
        // Locked in one order by everybody, and each once.
        dirty.sort_unstable_by_key(|file| file.id());
        dirty.dedup_by_key(|file| file.id());
        if dirty.len() >= SYNC_TOGETHER {
            let together: Vec<_> = dirty.iter().filter_map(|file| file.begin_sync()).collect();
            // An error may be of any file on that disk: each tells then for itself.
            let synced = self.names.sync_filesystem();
            together.into_iter().for_each(|sync| sync.end(synced.is_ok()));
        } else {
            for file in dirty {
                // For speed alone: the sync tells of every error.
                let _ =
                    file.raw().and_then(|raw| raw.start_writeback(0, 0).map_err(|error| file.failed("sync", error)));
            }
        }
        let sync = |file: &StagedFile| file.sync().err().map(|error| (file.clone(), error));
        files.iter().filter_map(sync).collect()
    }

    /// Makes the names of all files so far durable; [`StagedFile::sync`] does
    /// it for its own, and one call serves all.
    pub(super) fn sync_names(&self, change: u64) -> StagingResult<()> {
        self.names.sync(change)
    }

    /// Ids are never used again: the counter on the disk is at or above all that were given.
    fn new_id(&self) -> StagingResult<StagingId> {
        let mut ids = lock(&self.ids);
        if ids.next >= ids.limit {
            let limit = ids.next.saturating_add(ID_STEP);
            self.names.write_counter(limit)?;
            ids.limit = limit;
        }
        ids.next += 1;
        Ok(StagingId::new(ids.next - 1))
    }

    /// No id up to `id` is given from now on.
    fn pass_by(&self, id: StagingId) {
        let mut ids = lock(&self.ids);
        ids.next = ids.next.max(id.get().saturating_add(1));
    }

    fn claim(&self, id: StagingId) -> StagingResult<()> {
        if lock(&self.claimed).insert(id) { Ok(()) } else { Err(StagingError::InUse { file: id }) }
    }

    pub(super) fn unclaim(&self, id: StagingId) {
        lock(&self.claimed).remove(&id);
    }

    /// An empty file under the name of `id`: one of the pool, or a new one.
    fn file_for(&self, id: StagingId) -> StagingResult<Arc<File>> {
        let name = Name::Staged(id);
        loop {
            let Some(pooled) = lock(&self.pool).pop() else { break };
            let reuse = || -> io::Result<Arc<File>> {
                self.names.rename(pooled.name, name)?;
                if let Some(file) = pooled.file {
                    return Ok(file);
                }
                let file = self.names.open_file(name, false)?;
                file.set_len(0)?;
                Ok(Arc::new(file))
            };
            match reuse() {
                Ok(file) => return Ok(file),
                Err(error) => tracing::warn!(%error, name = ?pooled.name, "cannot reuse a staging file"),
            }
        }
        let created = self.names.open_file(name, true);
        created.map(Arc::new).map_err(|source| StagingError::file("create", id, source))
    }

    /// Opens a file whose descriptor was closed.
    pub(super) fn reopen(&self, id: StagingId) -> StagingResult<Arc<dyn RawFile>> {
        let file = self.names.open_file(Name::Staged(id), false);
        file.map(|file| (self.wrap)(Arc::new(file))).map_err(|source| StagingError::file("open", id, source))
    }

    /// Empties the file of `id` and keeps it for reuse, or removes it.
    pub(super) fn recycle(&self, id: StagingId, file: Option<Arc<File>>) {
        let (from, to) = (Name::Staged(id), Name::Free(id.get()));
        let room = lock(&self.pool).len() < POOL_FILES;
        let recycle = || -> io::Result<()> {
            let file = match file {
                Some(file) => file,
                None => Arc::new(self.names.open_file(from, false)?),
            };
            file.set_len(0)?;
            self.names.rename(from, to)?;
            let mut pool = lock(&self.pool);
            let open = pool.iter().filter(|pooled| pooled.file.is_some()).count() < POOL_OPEN;
            pool.push(Pooled { name: to, file: open.then_some(file) });
            Ok(())
        };
        if room && recycle().inspect_err(|error| tracing::warn!(%error, %id, "cannot reuse a staging file")).is_ok() {
            return;
        }
        self.remove(id);
    }

    /// Removes the file of `id`.
    pub(super) fn remove(&self, id: StagingId) {
        if let Err(error) = self.names.remove(Name::Staged(id)) {
            tracing::warn!(%error, %id, "cannot remove a staging file; the next start does it");
        }
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

/// Frees what was written after the state that was recovered.
fn give_back_unused(state: &State, file: &dyn RawFile) -> io::Result<()> {
    let rooms = state.rooms();
    if file.metadata()?.blocks().saturating_mul(512) <= rooms.used() + UNUSED_KEPT {
        return Ok(());
    }
    file.set_len(rooms.end())?;
    rooms.free().try_for_each(|(start, len)| file.punch(start, len))
}

/// Checks all that the journal says against the file.
fn recovered_state(content: &StagedContent, file: &dyn RawFile) -> StagingResult<State> {
    let id = content.file;
    let damaged = |why| StagingError::Damaged { file: id, why };
    let len = file.metadata().map_err(|source| StagingError::file("open", id, source))?.len();
    let mut content = content.clone();
    if content.base_len > content.size {
        return Err(damaged("more of the base shows than the file is long"));
    }
    let mut extents = match &content.map {
        StagedMap::Inline(extents) => extents.clone(),
        StagedMap::InFile { offset, len: map_len, hash } => {
            if *map_len > MAX_MAP || offset.checked_add(*map_len).is_none_or(|end| end > len) {
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
    let place_end = |extent: &StagedExtent| extent.place.map_or(0, |place| place + extent.range.len());
    let mut cut = false;
    if extents.iter().any(|extent| place_end(extent) > len) {
        let in_place = |extent: &StagedExtent| extent.place == Some(extent.range.start());
        if content.base_len > 0 || !extents.iter().all(in_place) {
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
    let mut state = State::recovered(published).ok_or_else(|| damaged("two of its ranges share bytes"))?;
    state.changed = cut;
    Ok(state)
}
