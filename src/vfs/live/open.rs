//! Opening, closing, publishing.

use super::file::{Base, Content, LiveFile};
use super::{LiveVfs, OpenLive, SyncPolicy};
use crate::format::{FileContent, NodeBody};
use crate::namespace::Removed;
use crate::staging::StagedFile;
use crate::vfs::error;
use blockframe_api::{
    Attributes, CachePolicy, Caller, ErrorClass, Handle, NewNode, Node, OpenHow, OpenedFile, VfsError, VfsResult,
};
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

impl LiveVfs {
    pub(super) fn create_file(
        &self,
        caller: Caller,
        parent: Node,
        name: &[u8],
        permissions: u16,
        how: OpenHow,
    ) -> VfsResult<(Attributes, OpenedFile)> {
        let inode = self.make_node(caller, parent, name, permissions, NewNode::File, true)?;
        let file = self.files.hold(inode.node, how.write);
        file.content_mut().base.get_or_insert_with(|| Base::new(FileContent::empty()));
        let backing = self.backing(&file, how).unwrap_or_else(|error| {
            tracing::debug!(%error, "the kernel does not serve this file by itself");
            None
        });
        Ok((inode.attributes(), self.opened(file, how, backing)))
    }

    pub(super) fn open_file(&self, node: Node, how: OpenHow) -> VfsResult<OpenedFile> {
        let file = self.files.hold(node, how.write);
        let outcome = self.open_held(&file, node, how);
        if outcome.is_err() {
            self.files.release(&file, how.write);
        }
        let backing = outcome?;
        Ok(self.opened(file, how, backing))
    }

    fn open_held(&self, file: &Arc<LiveFile>, node: Node, how: OpenHow) -> VfsResult<Option<Arc<File>>> {
        let inode = self.namespace.change(|draft| {
            let inode = draft.node(node)?;
            if matches!(inode.body, NodeBody::File(_)) {
                draft.open(node);
            }
            Ok(inode)
        });
        let inode = inode.map_err(|error| error::of_namespace(&error))?;
        let NodeBody::File(committed) = &inode.body else {
            return Err(match inode.is_directory() {
                true => VfsError::new(ErrorClass::IsDirectory, "a directory has no content"),
                false => error::invalid("only regular files have content"),
            });
        };
        file.content_mut().base.get_or_insert_with(|| Base::new(committed.clone()));
        let prepared = match how.truncate {
            true => self.truncate_file(file, 0),
            false => Ok(()),
        };
        let backing = prepared.and_then(|()| self.backing(file, how));
        if backing.is_err()
            && let Err(error) = self.namespace.close(node)
        {
            tracing::debug!(%error, "closing a file that could not be opened");
        }
        backing
    }

    /// The file that the kernel shall serve by itself, if it may: a new one,
    /// written from its beginning. While it does, it does so for every handle.
    fn backing(&self, file: &Arc<LiveFile>, how: OpenHow) -> VfsResult<Option<Arc<File>>> {
        let mut content = file.content_mut();
        if let Some(staged) = &content.staged
            && staged.is_passthrough()
        {
            return Ok(staged.backing());
        }
        // A program that reads what it writes, a database say, gets its bytes
        // back as they were at its last fsync after a crash; the kernel's own
        // writing cannot promise that.
        // Nor can such a file be committed before the kernel lets go of it.
        let wanted = how.write && !how.read && file.times().handles == 1 && self.sync_policy == SyncPolicy::Staging;
        if !wanted || !self.kernel.get().is_some_and(|kernel| kernel.passthrough) {
            return Ok(None);
        }
        // The kernel's writing cannot be slowed down.
        let usage = self.staging.usage();
        if usage.bytes > usage.quota / 2 {
            return Ok(None);
        }
        let is_new = match &content.staged {
            Some(staged) => staged.size() == 0,
            None => content.base.as_ref().is_some_and(|base| base.content.size == 0),
        };
        if !is_new {
            return Ok(None);
        }
        let staged = self.staged_for_write(file, &mut content)?;
        let backing = staged.backing();
        file.times().in_place = staged.refresh().map_err(|error| error::of_staging(&error))?;
        Ok(backing)
    }

    fn opened(&self, file: Arc<LiveFile>, how: OpenHow, backing: Option<Arc<File>>) -> OpenedFile {
        let number = self.next_handle.fetch_add(1, Ordering::Relaxed);
        let cache = self.cache_policy(file.node());
        let open = Arc::new(OpenLive { file, how, told: AtomicBool::new(false) });
        self.handles.write().unwrap_or_else(PoisonError::into_inner).insert(number, open);
        OpenedFile { handle: Handle::new(number), cache, backing }
    }

    /// The kernel's pages of a node are right as long as all changes come
    /// through the kernel.
    fn cache_policy(&self, node: Node) -> CachePolicy {
        let foreign = self.foreign_changes.load(Ordering::Acquire);
        match crate::vfs::lock(&self.pages).put(node, foreign) {
            Some(seen) if seen == foreign => CachePolicy::Keep,
            _ => CachePolicy::Refresh,
        }
    }

    /// The staging file that takes writes; made when there is none.
    pub(super) fn staged_for_write(&self, file: &Arc<LiveFile>, content: &mut Content) -> VfsResult<StagedFile> {
        if let Some(staged) = &content.staged {
            return Ok(staged.clone());
        }
        let base_len = content.base.as_ref().map_or(0, |base| base.content.size);
        let staged = self.staging.create(base_len).map_err(|error| error::of_staging(&error))?;
        self.files.stage(file, content, staged.clone());
        Ok(staged)
    }

    /// Takes notice of what the kernel has written by itself.
    pub(super) fn note_passthrough(&self, file: &LiveFile, staged: &StagedFile) {
        if !staged.is_passthrough() {
            return;
        }
        match staged.refresh() {
            Ok(Some(found)) => file.times().found_in_place(&found),
            Ok(None) => {}
            Err(error) => tracing::warn!(node = file.node().number(), %error, "cannot see what was written"),
        }
    }

    /// Queues what was written since the last time, so that it becomes durable
    /// in its order among the changes of names.
    pub(super) fn publish(&self, file: &Arc<LiveFile>) -> VfsResult<()> {
        let _one = file.publishing();
        let Some(staged) = file.staged() else { return Ok(()) };
        self.note_passthrough(file, &staged);
        let (written, modified) = {
            let times = file.times();
            (times.written, times.modified)
        };
        if !staged.is_changed() && written.is_none() {
            return Ok(());
        }
        let published = staged.publish().map_err(|error| {
            file.times().lost.get_or_insert_with(|| error.to_string());
            error::of_staging(&error)
        })?;
        let queued = self.namespace.change(|draft| {
            let Some(inode) = draft.find_node(file.node())? else { return Ok(draft.now()) };
            let mut inode = (*inode).clone();
            if let Some(written) = written {
                inode.meta.modified = modified.unwrap_or(written);
                inode.meta.changed = inode.meta.changed.max(written);
            }
            draft.put(inode);
            draft.stage(file.node(), published.content.clone(), published.generation);
            Ok(draft.now())
        });
        let queued = queued.map_err(|error| error::of_namespace(&error))?;
        let mut times = file.times();
        times.published = Some(queued);
        if times.written == written && times.modified == modified {
            times.written = None;
            times.modified = None;
        }
        Ok(())
    }

    pub(super) fn release_file(&self, open: &OpenLive) {
        let file = &open.file;
        // What the kernel writes by itself is published when it lets go of the file, below.
        let in_place = file.times().in_place.is_some();
        if open.how.write
            && !in_place
            && let Err(error) = self.publish(file)
        {
            tracing::error!(file = self.path(file.node()), %error, "what was written cannot be kept");
        }
        let (handles, writers) = self.files.release(file, open.how.write);
        if handles == 0 {
            self.end_passthrough(file);
        }
        let unnamed = match self.namespace.close(file.node()) {
            Ok(unnamed) => unnamed,
            Err(error) => {
                tracing::error!(%error, "a closed file cannot be looked at");
                return;
            }
        };
        if unnamed {
            self.remove_unnamed(file.node());
        } else if writers == 0
            && file.staged().is_some()
            && let Some(drain) = self.drain.get()
        {
            drain.closed();
        }
    }

    /// The kernel has let go of the file, unless it was opened again.
    fn end_passthrough(&self, file: &Arc<LiveFile>) {
        {
            // An open counts its handle first, and looks for the backing file under this lock.
            let content = file.content_mut();
            let Some(staged) = content.staged.as_ref().filter(|staged| staged.is_passthrough()) else { return };
            if file.times().handles > 0 {
                return;
            }
            let ended = staged.end_passthrough();
            let mut times = file.times();
            match ended {
                Ok(found) => {
                    if let Some(found) = &found {
                        times.found_in_place(found);
                    }
                    times.in_place = None;
                }
                Err(error) => {
                    tracing::error!(node = file.node().number(), %error, "a file's staged content cannot be read");
                    times.lost.get_or_insert_with(|| error.to_string());
                    return;
                }
            }
        }
        // A mapping may have written after the last close of a descriptor.
        if let Err(error) = self.publish(file) {
            tracing::error!(file = self.path(file.node()), %error, "what was written cannot be kept");
        }
    }

    /// The last handle of a node without names was released.
    pub(super) fn remove_unnamed(&self, node: Node) {
        let removed = self.namespace.change(|draft| match draft.find_node(node)? {
            Some(inode) if inode.links == 0 => draft.drop_unnamed(node),
            Some(_) => Ok(Removed::Named),
            None => Ok(Removed::Gone),
        });
        match removed {
            Ok(removed) => self.after_removal(node, removed),
            Err(error) => tracing::warn!(%error, "a removed file stays until the next mount"),
        }
    }
}
