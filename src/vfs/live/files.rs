//! All files that are open or staged.

use super::file::{Content, LiveFile};
use crate::format::StagingId;
use crate::namespace::{Later, Publications};
use crate::staging::{Generation, StagedFile, StagingArea};
use blockframe_api::Node;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The registry. A file is in it while it has a handle or staged content.
#[derive(Debug)]
pub(in crate::vfs) struct Files {
    area: Arc<StagingArea>,
    nodes: RwLock<HashMap<Node, Arc<LiveFile>>>,
    staged: RwLock<HashMap<StagingId, (StagedFile, Arc<LiveFile>)>>,
}

impl Files {
    pub(in crate::vfs) fn new(area: Arc<StagingArea>) -> Self {
        Self { area, nodes: RwLock::default(), staged: RwLock::default() }
    }

    fn nodes(&self) -> RwLockReadGuard<'_, HashMap<Node, Arc<LiveFile>>> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn nodes_mut(&self) -> RwLockWriteGuard<'_, HashMap<Node, Arc<LiveFile>>> {
        self.nodes.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn staged(&self) -> RwLockReadGuard<'_, HashMap<StagingId, (StagedFile, Arc<LiveFile>)>> {
        self.staged.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file of a node, if it is open or staged.
    pub(in crate::vfs) fn get(&self, node: Node) -> Option<Arc<LiveFile>> {
        self.nodes().get(&node).cloned()
    }

    /// The file of a node that is being opened: it stays until
    /// [`Self::release`] was called as often as this.
    pub(in crate::vfs) fn hold(&self, node: Node, writes: bool) -> Arc<LiveFile> {
        let mut nodes = self.nodes_mut();
        let file = nodes.entry(node).or_insert_with(|| Arc::new(LiveFile::new(node)));
        let mut times = file.times();
        times.handles += 1;
        times.writers += u32::from(writes);
        drop(times);
        Arc::clone(file)
    }

    /// A handle was released. Returns how many handles and writers are left.
    pub(in crate::vfs) fn release(&self, file: &LiveFile, wrote: bool) -> (u32, u32) {
        let mut nodes = self.nodes_mut();
        let left = {
            let mut times = file.times();
            times.handles = times.handles.saturating_sub(1);
            times.writers = times.writers.saturating_sub(u32::from(wrote));
            if wrote && times.writers == 0 {
                times.closed = Some(super::moment());
            }
            (times.handles, times.writers)
        };
        if left.0 == 0 && file.content().staged.is_none() {
            nodes.remove(&file.node());
        }
        left
    }

    /// Forgets a file that has neither handles nor staged content any more.
    pub(in crate::vfs) fn forget_idle(&self, file: &LiveFile) {
        let mut nodes = self.nodes_mut();
        // Forgotten already, the node may have been opened as another.
        let is_known = nodes.get(&file.node()).is_some_and(|known| std::ptr::eq(&**known, file));
        if is_known && file.times().handles == 0 && file.content().staged.is_none() {
            nodes.remove(&file.node());
        }
    }

    /// The file's newest content is `staged`, from now on.
    pub(in crate::vfs) fn stage(&self, file: &Arc<LiveFile>, content: &mut Content, staged: StagedFile) {
        let mut map = self.staged.write().unwrap_or_else(PoisonError::into_inner);
        map.insert(staged.id(), (staged.clone(), Arc::clone(file)));
        content.staged = Some(staged);
    }

    /// What is to run once the journal names the staging file no more. Until
    /// then it is synced with whatever publication of it waits to be written.
    pub(in crate::vfs) fn let_go(self: &Arc<Self>, staged: &StagedFile) -> Later {
        let (files, staged) = (Arc::clone(self), staged.clone());
        Box::new(move || {
            files.staged.write().unwrap_or_else(PoisonError::into_inner).remove(&staged.id());
            staged.discard();
        })
    }

    /// All of them, in no special order.
    pub(in crate::vfs) fn all(&self) -> Vec<Arc<LiveFile>> {
        self.nodes().values().cloned().collect()
    }

    /// Files with staged content, in no special order; some that had it lately.
    pub(in crate::vfs) fn all_staged(&self) -> Vec<Arc<LiveFile>> {
        self.staged().values().map(|(_, file)| Arc::clone(file)).collect()
    }

    /// Whether some file with staged content is as `wanted` says.
    pub(in crate::vfs) fn any_staged(&self, wanted: impl Fn(&LiveFile, &StagedFile) -> bool) -> bool {
        self.staged().values().any(|(staged, file)| wanted(file, staged))
    }
}

impl Publications for Files {
    fn sync(&self, files: &[(StagingId, Generation)]) -> Vec<StagingId> {
        let (staged, of): (Vec<_>, Vec<_>) = {
            let staged = self.staged();
            files.iter().filter_map(|(id, _)| staged.get(id).cloned()).unzip()
        };
        let mut failed = Vec::new();
        for (staged, error) in self.area.sync_all(&staged) {
            failed.push(staged.id());
            if let Some(file) = of.iter().find(|file| file.staged().is_some_and(|own| own.id() == staged.id())) {
                let node = file.node().number();
                tracing::error!(node, %error, "bytes that were written are lost: the staging disk failed");
                file.times().lost.get_or_insert_with(|| error.to_string());
            }
        }
        failed
    }

    fn durable(&self, files: &[(StagingId, Generation)]) {
        let staged = self.staged();
        for (id, generation) in files {
            if let Some((staged, _)) = staged.get(id) {
                staged.published_is_durable(*generation);
            }
        }
    }
}
