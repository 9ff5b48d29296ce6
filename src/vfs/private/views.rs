//! The archive as of times: each a directory, named by its time.

use super::super::{ArchiveVfs, Parts, error, lock};
use super::numbers::ViewId;
use crate::base::Timestamp;
use crate::base::calendar::{parse_time, rfc3339_seconds};
use crate::catalog::CatalogError;
use blockframe_api::{CachePolicy, VfsError, VfsResult};
use lru::LruCache;
use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

/// Views that are known at once; each costs about a kilobyte.
const VIEWS: NonZeroUsize = NonZeroUsize::new(4096).unwrap();
/// Hours with changes that are listed, each as one view or two.
const LISTED: usize = 1000;
/// Seconds.
const HOUR: i64 = 3600;
/// Seconds after which a change is certainly written.
const RECENT: i64 = 60;

/// The views that were asked for, by name and by number.
#[derive(Debug)]
pub(super) struct Views {
    parts: Parts,
    state: Mutex<State>,
}

/// A view: its number, and what it shows.
pub(super) type View = (ViewId, Arc<ArchiveVfs>);

#[derive(Debug)]
struct State {
    known: LruCache<ViewId, Known>,
    /// One time can have several names; each has a directory of its own.
    by_name: HashMap<Arc<[u8]>, ViewId>,
    next: ViewId,
    /// Whether numbers of views were given out that older ones had.
    reused: bool,
}

#[derive(Debug)]
struct Known {
    name: Arc<[u8]>,
    vfs: Arc<ArchiveVfs>,
}

impl Views {
    pub(super) fn new(parts: Parts) -> Self {
        let state = State { known: LruCache::new(VIEWS), by_name: HashMap::new(), next: ViewId::FIRST, reused: false };
        Self { parts, state: Mutex::new(state) }
    }

    /// The view of this name, if it is known.
    pub(super) fn known(&self, name: &[u8]) -> Option<View> {
        let mut state = lock(&self.state);
        let id = *state.by_name.get(name)?;
        state.known.get(&id).map(|known| (id, Arc::clone(&known.vfs)))
    }

    /// The view of this name: a time that has passed, and in which there was the archive.
    pub(super) fn open(&self, name: &[u8]) -> VfsResult<View> {
        if let Some(view) = self.known(name) {
            return Ok(view);
        }
        let at = std::str::from_utf8(name).ok().and_then(parse_time).filter(|at| self.can_show(*at));
        let at = at.ok_or_else(error::no_name)?;
        match self.parts.catalog.check_remembered(at) {
            Ok(()) => {}
            Err(error @ CatalogError::HistoryForgotten { .. }) => {
                return Err(VfsError::new(error.class(), error.to_string()));
            }
            Err(error) => return Err(error::of_catalog(&error)),
        }
        let vfs = Arc::new(self.parts.view(at));
        let mut state = lock(&self.state);
        if let Some(&id) = state.by_name.get(name)
            && let Some(known) = state.known.get(&id)
        {
            return Ok((id, Arc::clone(&known.vfs)));
        }
        let name: Arc<[u8]> = name.into();
        while state.known.contains(&state.next) {
            state.next = state.next.next();
        }
        let id = state.next;
        state.next = id.next();
        state.reused |= state.next == ViewId::FIRST;
        let known = Known { name: Arc::clone(&name), vfs: Arc::clone(&vfs) };
        state.by_name.insert(name, id);
        if let Some((_, evicted)) = state.known.push(id, known) {
            state.by_name.remove(&evicted.name);
        }
        Ok((id, vfs))
    }

    /// A view by its number; `None` when it was not asked for, or long ago.
    pub(super) fn get(&self, id: ViewId) -> Option<Arc<ArchiveVfs>> {
        lock(&self.state).known.get(&id).map(|known| Arc::clone(&known.vfs))
    }

    /// How the kernel caches a file of a view. Its content is for ever the
    /// same, once everything of that time is written; but a number can mean
    /// another view after a million of them.
    pub(super) fn cache_policy(&self, vfs: &ArchiveVfs) -> CachePolicy {
        let reused = lock(&self.state).reused;
        if reused || self.is_recent(vfs) { CachePolicy::Refresh } else { CachePolicy::Keep }
    }

    /// Whether changes up to a view's time may wait to be written, here or in
    /// another process.
    pub(super) fn is_recent(&self, vfs: &ArchiveVfs) -> bool {
        let now = self.parts.archive.clock().now().seconds;
        vfs.names.at().is_none_or(|at| now.saturating_sub(at.seconds) < RECENT)
    }

    fn can_show(&self, at: Timestamp) -> bool {
        at.seconds >= self.parts.archive.descriptor().created && at <= self.parts.archive.clock().now()
    }

    /// Names of some views, in byte order, which is that of their times.
    ///
    /// The catalog tells of one change within an hour before each, so at the
    /// whole hours between there stood what ended: these are listed. What
    /// ended within the archive's first hour stood a second before.
    pub(super) fn listed(&self) -> VfsResult<BTreeSet<String>> {
        let changes = self.parts.catalog.change_times(LISTED).map_err(|error| error::of_catalog(&error))?;
        let begin = self.parts.catalog.history_begin().map_err(|error| error::of_catalog(&error))?;
        let show = |seconds| Timestamp { seconds, nanoseconds: 0 };
        let mut listed = BTreeSet::new();
        for change in changes {
            let last = if change.nanoseconds > 0 { change.seconds } else { change.seconds - 1 };
            for hour in [last, last - HOUR].map(|second| second.div_euclid(HOUR) * HOUR) {
                let seconds = if self.can_show(show(hour)) { hour } else { last };
                let is_known = begin.is_none_or(|begin| show(seconds) >= begin);
                if is_known && self.can_show(show(seconds)) {
                    listed.insert(rfc3339_seconds(seconds));
                }
            }
        }
        Ok(listed)
    }
}
