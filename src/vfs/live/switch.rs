//! A committed content takes the place of the staged one that it was made from.
//!
//! Readers hold the content's lock while they read, and writers while they
//! write, so each finds either the staging file or the object, and both hold
//! the same bytes. The publishing lock comes first: what was published is in
//! the namespace's queue then. A content's lock is never taken within a change
//! of the namespace; a change may be made under it.

use super::LiveVfs;
use super::file::{Base, LiveFile};
use crate::base::Timestamp;
use crate::format::{FileContent, NodeBody};
use crate::staging::{FrozenContent, Generation, StagedFile, StagingError};
use crate::vfs::error;
use blockframe_api::VfsResult;
use std::sync::Arc;

/// A published state of a file, held.
#[derive(Debug)]
pub(in crate::vfs) struct Frozen {
    pub(in crate::vfs) origin: Origin,
    pub(in crate::vfs) content: FrozenContent,
    /// What it lies over.
    pub(in crate::vfs) base: FileContent,
}

/// Which state of which file.
#[derive(Debug, Clone)]
pub(in crate::vfs) struct Origin {
    pub(in crate::vfs) file: Arc<LiveFile>,
    pub(in crate::vfs) staged: StagedFile,
    pub(in crate::vfs) generation: Generation,
    /// When it was published, if this process did it.
    published: Option<Timestamp>,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::vfs) enum Switched {
    /// The object is the file's content.
    Done,
    /// Something newer is.
    Newer,
    /// The file was removed, or has nothing in staging.
    Gone,
    /// The object was removed meanwhile.
    Missing,
}

impl LiveVfs {
    /// Publishes what was written, unless the kernel is writing it.
    pub(in crate::vfs) fn publish_for_commit(&self, file: &Arc<LiveFile>) -> VfsResult<()> {
        match file.staged() {
            Some(staged) if !staged.is_passthrough() => self.publish(file),
            _ => Ok(()),
        }
    }

    /// The state that was published last; `None` when there is none that would stay.
    pub(in crate::vfs) fn freeze(&self, file: &Arc<LiveFile>) -> VfsResult<Option<Frozen>> {
        file.check_lost()?;
        let _one = file.publishing();
        let content = file.content();
        let (Some(staged), Some(base)) = (&content.staged, &content.base) else { return Ok(None) };
        let frozen = match staged.freeze() {
            Ok(frozen) => frozen,
            Err(StagingError::Unpublished { .. } | StagingError::WrittenInPlace { .. }) => return Ok(None),
            Err(error) => return Err(error::of_staging(&error)),
        };
        let generation = frozen.generation();
        let published = file.times().published;
        let origin = Origin { file: Arc::clone(file), staged: staged.clone(), generation, published };
        Ok(Some(Frozen { origin, content: frozen, base: base.content.clone() }))
    }

    /// Makes `committed`, which an object holds, the content of the file, if
    /// the state that it was made from is still its newest. The staging file
    /// goes once that is durable.
    pub(in crate::vfs) fn switch(&self, origin: &Origin, committed: &FileContent) -> VfsResult<Switched> {
        let file = &origin.file;
        let _one = file.publishing();
        // Until the change is made, nobody takes the object for one that nothing needs.
        let steady = self.namespace.steady().map_err(|error| error::of_namespace(&error))?;
        if committed.size > 0 {
            let place = steady.writer().place(&committed.hash, committed.size);
            if place.map_err(|error| error::of_catalog(&error))?.is_none() {
                return Ok(Switched::Missing);
            }
        }
        let mut content = file.content_mut();
        match &content.staged {
            None => return Ok(Switched::Gone),
            Some(staged) if !is_newest(file, staged, origin) => return Ok(Switched::Newer),
            Some(_) => {}
        }
        let switched = steady.change(|draft| {
            let Some(inode) = draft.find_node(file.node())? else { return Ok(false) };
            let mut inode = (*inode).clone();
            // It is what the file was since it was published, but not before its attributes were what they are.
            let since = origin.published.unwrap_or(draft.now()).max(inode.meta.changed).min(draft.now());
            inode.body = NodeBody::File(committed.clone());
            draft.put(inode);
            draft.unstage(file.node());
            draft.set_time(since);
            draft.later(self.files.let_go(&origin.staged));
            Ok(true)
        });
        if !switched.map_err(|error| error::of_namespace(&error))? {
            return Ok(Switched::Gone);
        }
        content.base = Some(Base::new(committed.clone()));
        content.staged = None;
        drop(content);
        self.files.forget_idle(file);
        Ok(Switched::Done)
    }
}

/// Whether the file is what it was: the content's lock is held, so nothing is
/// written, and the publishing lock, so nothing is published.
fn is_newest(file: &LiveFile, staged: &StagedFile, origin: &Origin) -> bool {
    let times = file.times();
    staged.id() == origin.staged.id()
        && !staged.is_changed()
        && times.written.is_none()
        && times.lost.is_none()
        && staged.freeze().is_ok_and(|now| now.generation() == origin.generation)
}
