//! Open files. A handle reads one immutable version from open to release,
//! whatever is committed meanwhile.

use super::error::invalid;
use super::live::file::{Source, open_source};
use super::reader::Reader;
use crate::archive::{Archive, ArchiveError, ArchiveResult};
use crate::base::ContentRange;
use crate::catalog::ContentPlace;
use crate::format::FileContent;
use blockframe_api::{CachePolicy, Handle, Node, VfsResult};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

/// All open files.
#[derive(Debug, Default)]
pub(super) struct Handles {
    files: RwLock<HashMap<u64, Arc<OpenFile>>>,
    next: AtomicU64,
}

/// One open file.
#[derive(Debug)]
pub(super) struct OpenFile {
    node: Node,
    content: FileContent,
    /// None: an empty file, which no object holds.
    place: Option<ContentPlace>,
    cache: CachePolicy,
    source: OnceLock<Source>,
}

impl Handles {
    pub(super) fn insert(&self, file: OpenFile) -> Handle {
        let number = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        self.files.write().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::new(file));
        Handle::new(number)
    }

    pub(super) fn get(&self, handle: Handle) -> VfsResult<Arc<OpenFile>> {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        files.get(&handle.number()).cloned().ok_or_else(|| invalid("the handle is not open"))
    }

    pub(super) fn remove(&self, handle: Handle) -> Option<Arc<OpenFile>> {
        self.files.write().unwrap_or_else(PoisonError::into_inner).remove(&handle.number())
    }
}

impl OpenFile {
    pub(super) fn new(node: Node, content: FileContent, place: Option<ContentPlace>, cache: CachePolicy) -> Self {
        Self { node, content, place, cache, source: OnceLock::new() }
    }

    pub(super) fn node(&self) -> Node {
        self.node
    }

    pub(super) fn content(&self) -> &FileContent {
        &self.content
    }

    pub(super) fn cache(&self) -> CachePolicy {
        self.cache
    }

    /// Which bytes of the object's content a request means, cut at the
    /// file's end; `None` when that leaves nothing.
    pub(super) fn place_of(&self, offset: u64, length: u32) -> Option<ContentRange> {
        let place = self.place.as_ref()?;
        let len = self.content.size.saturating_sub(offset).min(length.into());
        let range = ContentRange::new(place.offset.checked_add(offset)?, len)?;
        (!range.is_empty()).then_some(range)
    }

    /// Which bytes a request means at another place than the one it was opened at; `None` when it is the same.
    pub(super) fn moved_to(&self, place: &ContentPlace, offset: u64, length: u32) -> Option<ContentRange> {
        if self.place.as_ref().is_none_or(|old| old.object == place.object) {
            return None;
        }
        let len = self.content.size.saturating_sub(offset).min(length.into());
        ContentRange::new(place.offset.checked_add(offset)?, len)
    }

    /// The object, opened at the first read: `open` itself stays cheap, and
    /// succeeds for a file whose manifest is damaged.
    pub(super) fn object(&self, archive: &Archive, reader: &Reader) -> ArchiveResult<&Source> {
        if let Some(source) = self.source.get() {
            return Ok(source);
        }
        let place = self.place.as_ref().ok_or_else(|| ArchiveError::Internal("an empty file was read".into()))?;
        let source = open_source(archive, reader, place.clone(), self.content.size)?;
        Ok(self.source.get_or_init(|| source))
    }
}
