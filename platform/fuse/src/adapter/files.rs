//! Open files: how they are opened, who serves them, and which are left when
//! the mount ends.

use super::Adapter;
use super::names::caller;
use blockframe_api::{
    AllocateMode, AttributeChange, CachePolicy, Caller, Handle, Node, OpenHow, OpenedFile, Vfs, VfsError,
};
use fuser::{BackingId, FopenFlags, OpenAccMode, OpenFlags, Request};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Set-user-id and set-group-id.
const SET_ID: u16 = 0o6000;

/// Access mode and truncation of an `open`.
pub(super) fn open_how(flags: OpenFlags) -> OpenHow {
    let mode = flags.acc_mode();
    OpenHow {
        read: mode != OpenAccMode::O_WRONLY,
        write: mode != OpenAccMode::O_RDONLY,
        truncate: flags.0 & libc::O_TRUNC != 0,
    }
}

/// What `fallocate` shall do: none for a mode that is not supported.
pub(super) fn allocate_mode(mode: i32) -> Option<AllocateMode> {
    const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    const ZERO_KEEP: i32 = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;
    match mode {
        0 => Some(AllocateMode::Extend),
        libc::FALLOC_FL_KEEP_SIZE => Some(AllocateMode::KeepSize),
        PUNCH => Some(AllocateMode::Punch),
        libc::FALLOC_FL_ZERO_RANGE => Some(AllocateMode::Zero),
        ZERO_KEEP => Some(AllocateMode::ZeroKeepSize),
        _ => None,
    }
}

/// A file that the kernel was asked to serve by itself. `id` is none where it
/// refused: then every handle goes through the filesystem.
#[derive(Debug)]
pub(super) struct Served {
    node: Node,
    file: Arc<File>,
    pub(super) id: Option<BackingId>,
}

#[derive(Debug)]
struct Open {
    served: Option<Arc<Served>>,
    /// The page cache is bypassed.
    bypass: bool,
}

#[derive(Debug, Default)]
struct State {
    handles: HashMap<u64, Open>,
    /// Who serves a node's newest handles, and how many of them there are.
    nodes: HashMap<Node, (Arc<Served>, usize)>,
}

/// All open files.
///
/// The kernel refuses to have one node open in both ways, served by itself
/// and through its page cache. What it has open is always a part of what is
/// open here: a release arrives after the kernel has forgotten the handle. So
/// who asks for the same file as the handles here gets what they got, even
/// when they are about to go; and when the filesystem names another file, or
/// none, all earlier handles were released.
#[derive(Debug, Default)]
pub(super) struct OpenFiles {
    state: Mutex<State>,
    /// Whether the kernel may be asked to serve a file.
    passthrough: AtomicBool,
}

impl OpenFiles {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn allow_passthrough(&self) {
        self.passthrough.store(true, Ordering::Relaxed);
    }

    /// Keeps an open file until [`Self::end`]. Returns who serves it, when
    /// the filesystem offers a file for that; `register` hands the file to the kernel.
    pub(super) fn begin(
        &self,
        node: Node,
        opened: &OpenedFile,
        register: impl FnOnce(&File) -> io::Result<BackingId>,
    ) -> Option<Arc<Served>> {
        let mut state = self.state();
        let served = opened.backing.as_ref().and_then(|file| match state.nodes.get_mut(&node) {
            Some((served, handles)) if Arc::ptr_eq(&served.file, file) => {
                *handles += 1;
                Some(Arc::clone(served))
            }
            _ if !self.passthrough.load(Ordering::Relaxed) => None,
            _ => {
                let id = self.registered(register(file));
                let served = Arc::new(Served { node, file: Arc::clone(file), id });
                state.nodes.insert(node, (Arc::clone(&served), 1));
                Some(served)
            }
        });
        let bypass = opened.cache == CachePolicy::Bypass && served.as_ref().is_none_or(|served| served.id.is_none());
        state.handles.insert(opened.handle.number(), Open { served: served.clone(), bypass });
        served
    }

    fn registered(&self, outcome: io::Result<BackingId>) -> Option<BackingId> {
        match outcome {
            Ok(id) => Some(id),
            Err(error) => {
                tracing::debug!(%error, "the kernel does not serve a file by itself");
                // It will not be permitted later either.
                if error.kind() == io::ErrorKind::PermissionDenied {
                    self.passthrough.store(false, Ordering::Relaxed);
                }
                None
            }
        }
    }

    /// Forgets a handle. With the last of a node's handles the kernel gives
    /// the served file back.
    pub(super) fn end(&self, handle: Handle) {
        let mut state = self.state();
        let Some(Open { served: Some(served), .. }) = state.handles.remove(&handle.number()) else { return };
        let mut last = None;
        if let Some((newest, handles)) = state.nodes.get_mut(&served.node)
            && Arc::ptr_eq(newest, &served)
        {
            *handles -= 1;
            if *handles == 0 {
                last = state.nodes.remove(&served.node);
            }
        }
        // The kernel is told without the lock.
        drop(state);
        drop((served, last));
    }

    /// Whether writes through this handle bypass the page cache.
    pub(super) fn bypasses(&self, handle: Handle) -> bool {
        self.state().handles.get(&handle.number()).is_some_and(|open| open.bypass)
    }

    /// All that are open, which forgets them.
    pub(super) fn take(&self) -> Vec<Handle> {
        let state = std::mem::take(&mut *self.state());
        state.handles.keys().map(|&number| Handle::new(number)).collect()
    }
}

/// What the kernel is told of an open file.
pub(super) fn fopen_flags(how: OpenHow, cache: CachePolicy, served: Option<&Served>) -> FopenFlags {
    // Without a write there is no error of writing to report.
    let flush = if how.write { FopenFlags::empty() } else { FopenFlags::FOPEN_NOFLUSH };
    if served.is_some_and(|served| served.id.is_some()) {
        // FOPEN_PASSTHROUGH itself is set by the library; cache flags make the kernel refuse.
        return flush;
    }
    flush
        | match cache {
            CachePolicy::Keep => FopenFlags::FOPEN_KEEP_CACHE,
            CachePolicy::Refresh => FopenFlags::empty(),
            CachePolicy::Bypass => FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES,
        }
}

impl Adapter {
    pub(super) fn open_file(&self, request: &Request, node: Node, how: OpenHow) -> Result<OpenedFile, VfsError> {
        let opened = self.vfs.open(node, how)?;
        // The library does not show FUSE_OPEN_KILL_SUIDGID: who truncates without CAP_FSETID.
        if how.truncate
            && request.uid() != 0
            && let Err(error) = kill_set_id(&*self.vfs, caller(request, 0), node, opened.handle)
        {
            self.vfs.release(opened.handle);
            return Err(error);
        }
        Ok(opened)
    }

    /// With the page cache between, the kernel asks for a sync after each
    /// write to a file opened with `O_SYNC`; without, it leaves that to us.
    pub(super) fn sync_if_asked(&self, handle: Handle, flags: OpenFlags) -> Result<(), VfsError> {
        if flags.0 & libc::O_DSYNC == 0 || !self.files.bypasses(handle) {
            return Ok(());
        }
        self.vfs.sync(handle, flags.0 & libc::O_SYNC != libc::O_SYNC)
    }
}

fn kill_set_id(vfs: &dyn Vfs, caller: Caller, node: Node, handle: Handle) -> Result<(), VfsError> {
    if vfs.attributes(node)?.permissions & SET_ID == 0 {
        return Ok(());
    }
    let change = AttributeChange { kill_privileges: true, ..Default::default() };
    vfs.set_attributes(caller, node, Some(handle), &change).map(drop)
}
