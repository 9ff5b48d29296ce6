//! One file that is open, or whose newest content lies in staging.

use crate::archive::{Archive, ArchiveError, ArchiveResult, Object};
use crate::base::{ContentRange, ObjectName, Timestamp};
use crate::catalog::ContentPlace;
use crate::format::FileContent;
use crate::staging::{InPlace, StagedFile};
use crate::vfs::read_ahead::Stream;
use crate::vfs::reader::Reader;
use blockframe_api::{ErrorClass, Node, VfsError};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

/// A file that is open or staged. There is one for each node.
#[derive(Debug)]
pub(in crate::vfs) struct LiveFile {
    node: Node,
    content: RwLock<Content>,
    /// Held while a new content is published, or a committed one takes its place.
    publishing: Mutex<()>,
    times: Mutex<Times>,
}

/// Where the bytes are.
#[derive(Debug, Default)]
pub(in crate::vfs) struct Content {
    /// What the catalog names; `None` until somebody has asked.
    pub(in crate::vfs) base: Option<Base>,
    /// What was written over it.
    pub(in crate::vfs) staged: Option<StagedFile>,
}

/// The committed content.
#[derive(Debug)]
pub(in crate::vfs) struct Base {
    pub(in crate::vfs) content: FileContent,
    source: OnceLock<Source>,
}

/// Where a committed content's bytes come from.
#[derive(Debug)]
pub(in crate::vfs) struct Source {
    pub(in crate::vfs) object: Arc<Object>,
    pub(in crate::vfs) stream: Arc<Stream>,
    pub(in crate::vfs) place: ContentPlace,
}

/// Who uses the file, and what nobody was told yet.
#[derive(Debug, Default)]
pub(in crate::vfs) struct Times {
    /// Open handles.
    pub(in crate::vfs) handles: u32,
    /// Those that may write.
    pub(in crate::vfs) writers: u32,
    /// The last write that the namespace does not know: content, attributes.
    pub(in crate::vfs) written: Option<Timestamp>,
    /// A modification time that was set after it.
    pub(in crate::vfs) modified: Option<Timestamp>,
    /// What was seen last of a file that the kernel writes by itself.
    pub(in crate::vfs) in_place: Option<InPlace>,
    /// When the last writer closed it.
    pub(in crate::vfs) closed: Option<Instant>,
    /// When it was published last.
    pub(in crate::vfs) published: Option<Timestamp>,
    /// Bytes that were written could not be kept: who asks is told.
    pub(in crate::vfs) lost: Option<String>,
}

impl LiveFile {
    pub(in crate::vfs) fn new(node: Node) -> Self {
        Self { node, content: RwLock::default(), publishing: Mutex::new(()), times: Mutex::default() }
    }

    pub(in crate::vfs) fn node(&self) -> Node {
        self.node
    }

    pub(in crate::vfs) fn content(&self) -> RwLockReadGuard<'_, Content> {
        self.content.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::vfs) fn content_mut(&self) -> RwLockWriteGuard<'_, Content> {
        self.content.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::vfs) fn times(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::vfs) fn publishing(&self) -> MutexGuard<'_, ()> {
        self.publishing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is staged, if anything is.
    pub(in crate::vfs) fn staged(&self) -> Option<StagedFile> {
        self.content().staged.clone()
    }

    /// An error of an earlier write, if there was one.
    pub(in crate::vfs) fn check_lost(&self) -> Result<(), VfsError> {
        match &self.times().lost {
            Some(why) => Err(VfsError::new(ErrorClass::Latched, why.clone())),
            None => Ok(()),
        }
    }
}

impl Content {
    /// Length of the newest content.
    pub(in crate::vfs) fn size(&self) -> u64 {
        match (&self.staged, &self.base) {
            (Some(staged), _) => staged.size(),
            (None, Some(base)) => base.content.size,
            (None, None) => 0,
        }
    }
}

impl Base {
    pub(in crate::vfs) fn new(content: FileContent) -> Self {
        Self { content, source: OnceLock::new() }
    }

    /// Whether its bytes are read from this object.
    pub(in crate::vfs) fn is_in(&self, object: &ObjectName) -> bool {
        self.source.get().is_some_and(|source| source.place.object.name == *object)
    }

    /// The object, opened at the first read: `open` itself stays cheap, and
    /// succeeds for a file whose manifest is damaged.
    pub(in crate::vfs) fn source(
        &self,
        archive: &Archive,
        reader: &Reader,
        find: impl FnOnce(&FileContent) -> Result<ContentPlace, VfsError>,
        failed: impl Fn(&ArchiveError) -> VfsError,
    ) -> Result<&Source, VfsError> {
        if let Some(source) = self.source.get() {
            return Ok(source);
        }
        let place = find(&self.content)?;
        let source = open_source(archive, reader, place, self.content.size).map_err(|error| failed(&error))?;
        Ok(self.source.get_or_init(|| source))
    }
}

/// Opens the object at a place, which must hold a content of `size` bytes there.
pub(in crate::vfs) fn open_source(
    archive: &Archive,
    reader: &Reader,
    place: ContentPlace,
    size: u64,
) -> ArchiveResult<Source> {
    let object = archive.object(&place.object)?;
    let content_len = object.content_len()?;
    if place.offset.checked_add(size).is_none_or(|end| end > content_len) {
        return Err(ArchiveError::ForeignManifest {
            object: place.object.name.clone(),
            why: format!("says {content_len} bytes, and the catalog expects more"),
        });
    }
    let stream = reader.stream(&object);
    Ok(Source { object, stream, place })
}

impl Source {
    /// The range of the object's content that a range of the file means.
    pub(in crate::vfs) fn place_of(&self, range: ContentRange) -> Option<ContentRange> {
        ContentRange::new(self.place.offset.checked_add(range.start())?, range.len())
    }
}
