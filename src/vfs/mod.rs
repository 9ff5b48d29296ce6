//! The mounted view of an archive: names and attributes from the catalog,
//! bytes from the archive, caches between them. Read-only, at present or as
//! of a time.

mod acl;
mod attributes;
mod cache;
mod error;
mod handles;
mod live;
mod names;
mod pages;
mod private;
mod read_ahead;
mod reader;
mod space;
mod view;
mod writeback;

pub use attributes::DAEMON;
pub use attributes::HealthSource;
pub use live::{Drain, LiveVfs, SyncPolicy};
pub use private::WithPrivate;
pub use reader::ReadAheadLimits;
pub use writeback::{
    DrainProgress, Rest, Writeback, WritebackOptions, WritebackStatus, drain_leftovers, has_leftovers,
};

use crate::archive::Archive;
use crate::base::{LatencyGauge, Timestamp};
use crate::catalog::{Catalog, CatalogResult, Inode};
use crate::format::{FileContent, NodeBody};
use blockframe_api::{
    Attributes, CachePolicy, DirectoryEntry, ErrorClass, Handle, Node, OpenHow, OpenedFile, SpaceUsage, Vfs, VfsError,
    VfsResult,
};
use error::{invalid, no_such_range, not_directory, not_found};
use handles::{Handles, OpenFile};
use live::file::{Source, open_source};
use names::MissingNames;
use pages::CachedPages;
use reader::Reader;
use space::Space;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use view::Names;

/// What a mount may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VfsLimits {
    /// Most bytes of verified data kept in memory.
    pub cache: u64,
    /// How much is read ahead.
    pub read_ahead: ReadAheadLimits,
}

impl Default for VfsLimits {
    fn default() -> Self {
        Self { cache: 256 << 20, read_ahead: ReadAheadLimits::default() }
    }
}

/// An archive as a filesystem.
#[derive(Debug)]
pub struct ArchiveVfs {
    archive: Arc<Archive>,
    catalog: Arc<Catalog>,
    health: Arc<dyn HealthSource>,
    names: Names,
    reader: Arc<Reader>,
    handles: Handles,
    /// None in a view among many, which shall cost little.
    missing: Option<MissingNames>,
    /// As above: there a node has one content for ever.
    pages: Option<CachedPages>,
    space: Space,
    /// The catalog's generation when the caches were last cleared.
    generation: AtomicU64,
    /// How long reads take, for work in the background.
    load: Arc<LatencyGauge>,
}

impl ArchiveVfs {
    /// The view of an open archive and its catalog.
    pub fn new(
        archive: Arc<Archive>,
        catalog: Arc<Catalog>,
        health: Arc<dyn HealthSource>,
        limits: VfsLimits,
    ) -> CatalogResult<Self> {
        Self::showing(archive, catalog, health, limits, None)
    }

    /// The view of an open archive as it was at a time, as far as the catalog
    /// keeps history.
    ///
    /// Error: `HistoryForgotten` for a time of which not all is known any more.
    pub fn at(
        archive: Arc<Archive>,
        catalog: Arc<Catalog>,
        health: Arc<dyn HealthSource>,
        limits: VfsLimits,
        at: Timestamp,
    ) -> CatalogResult<Self> {
        catalog.check_remembered(at)?;
        Self::showing(archive, catalog, health, limits, Some(at))
    }

    fn showing(
        archive: Arc<Archive>,
        catalog: Arc<Catalog>,
        health: Arc<dyn HealthSource>,
        limits: VfsLimits,
        at: Option<Timestamp>,
    ) -> CatalogResult<Self> {
        let generation = catalog.generation()?;
        let reader = Arc::new(Reader::new(limits.cache, limits.read_ahead));
        let parts = Parts { archive, catalog, health, reader, load: Arc::default() };
        let (missing, pages) = (Some(MissingNames::new()), Some(CachedPages::new()));
        Ok(Self { missing, pages, ..Self::assembled(parts, at, generation) })
    }

    /// A view without caches of its own.
    fn assembled(parts: Parts, at: Option<Timestamp>, generation: u64) -> Self {
        let Parts { archive, catalog, health, reader, load } = parts;
        Self {
            archive,
            names: Names::new(Arc::clone(&catalog), at),
            catalog,
            health,
            reader,
            handles: Handles::default(),
            missing: None,
            pages: None,
            space: Space::default(),
            generation: AtomicU64::new(generation),
            load,
        }
    }

    fn parts(&self) -> Parts {
        Parts {
            archive: Arc::clone(&self.archive),
            catalog: Arc::clone(&self.catalog),
            health: Arc::clone(&self.health),
            reader: Arc::clone(&self.reader),
            load: Arc::clone(&self.load),
        }
    }

    /// How long reads take: what works in the background slows down by it.
    pub fn load(&self) -> &Arc<LatencyGauge> {
        &self.load
    }

    /// Looks whether another process has changed the catalog, and forgets
    /// what was derived from it. Returns whether what is shown may have
    /// changed; a time that has passed does not. To be called about once a second.
    pub fn refresh(&self) -> CatalogResult<bool> {
        let generation = self.catalog.generation()?;
        let changed = self.generation.swap(generation, Ordering::AcqRel) != generation;
        if let Some(missing) = self.missing.as_ref().filter(|_| changed) {
            // In a view of a time too: a change of just before it may be written only now.
            missing.clear();
        }
        Ok(changed && self.names.at().is_none())
    }

    fn inode(&self, node: Node) -> VfsResult<Inode> {
        self.names.inode(node).map_err(|error| error::of_catalog(&error))?.ok_or_else(|| not_found(node))
    }

    fn file(&self, node: Node) -> VfsResult<FileContent> {
        match self.inode(node)?.body {
            NodeBody::File(content) => Ok(content),
            NodeBody::Directory => Err(VfsError::new(ErrorClass::IsDirectory, "a directory has no content")),
            _ => Err(invalid("only regular files have content")),
        }
    }

    /// A path of the node, for messages.
    fn path(&self, node: Node) -> String {
        self.names.path(node)
    }
}

/// What several views of one archive share.
#[derive(Debug, Clone)]
struct Parts {
    archive: Arc<Archive>,
    catalog: Arc<Catalog>,
    health: Arc<dyn HealthSource>,
    reader: Arc<Reader>,
    load: Arc<LatencyGauge>,
}

impl Parts {
    /// The archive as of a time.
    fn view(&self, at: Timestamp) -> ArchiveVfs {
        ArchiveVfs::assembled(self.clone(), Some(at), 0)
    }
}

impl Vfs for ArchiveVfs {
    fn lookup(&self, parent: Node, name: &[u8]) -> VfsResult<Attributes> {
        if name.len() > blockframe_api::NamePolicy::MAX_NAME {
            return Err(VfsError::new(ErrorClass::NameTooLong, "the name is longer than 255 bytes"));
        }
        let missing = || VfsError::new(ErrorClass::NotFound, "no such name");
        let known = self.missing.as_ref().map(|names| (names, names.check(parent, name)));
        if let Some((_, Err(_))) = known {
            return Err(missing());
        }
        match self.names.lookup(parent, name).map_err(|error| error::of_catalog(&error))? {
            Some(inode) => Ok(inode.attributes()),
            None if self.inode(parent)?.is_directory() => {
                if let Some((names, Ok(epoch))) = known {
                    names.remember(epoch, parent, name);
                }
                Err(missing())
            }
            None => Err(not_directory(parent)),
        }
    }

    fn attributes(&self, node: Node) -> VfsResult<Attributes> {
        Ok(self.inode(node)?.attributes())
    }

    fn read_link(&self, node: Node) -> VfsResult<Vec<u8>> {
        match self.inode(node)?.body {
            NodeBody::Symlink(target) => Ok(target),
            _ => Err(invalid("not a symbolic link")),
        }
    }

    fn open(&self, node: Node, how: OpenHow) -> VfsResult<OpenedFile> {
        if how.write || how.truncate {
            return Err(VfsError::new(ErrorClass::ReadOnly, "the filesystem is mounted read-only"));
        }
        let content = self.file(node)?;
        let place = if content.size == 0 { None } else { Some(self.place(node, &content)?) };
        let cache = self.pages.as_ref().map_or(CachePolicy::Keep, |pages| pages.opened(node, content.hash));
        let handle = self.handles.insert(OpenFile::new(node, content, place, cache));
        Ok(OpenedFile { handle, cache, backing: None })
    }

    fn read(&self, handle: Handle, offset: u64, length: u32, deliver: &mut dyn FnMut(&[u8])) -> VfsResult<()> {
        let file = self.handles.get(handle)?;
        let Some(range) = file.place_of(offset, length) else {
            deliver(&[]);
            return Ok(());
        };
        let began = Instant::now();
        let read = |source: &Source, range, deliver: &mut dyn FnMut(&[u8])| {
            self.reader.read(&source.object, &source.stream, range, deliver)
        };
        let mut outcome =
            file.object(&self.archive, &self.reader).and_then(|source| read(source, range, &mut *deliver));
        // The content may have got another object, and the old one been deleted.
        if outcome.is_err()
            && let Ok(place) = self.place(file.node(), file.content())
            && let Some(range) = file.moved_to(&place, offset, length)
        {
            outcome = open_source(&self.archive, &self.reader, place, file.content().size)
                .and_then(|source| read(&source, range, deliver));
        }
        self.load.record(began.elapsed());
        outcome.map_err(|error| error::of_read(&self.path(file.node()), offset, length, &error))
    }

    fn seek(&self, handle: Handle, offset: u64, data: bool) -> VfsResult<u64> {
        let file = self.handles.get(handle)?;
        seek(file.content(), offset, data).ok_or_else(no_such_range)
    }

    fn release(&self, handle: Handle) {
        if let (Some(file), Some(pages)) = (self.handles.remove(handle), &self.pages) {
            pages.closed(file.node(), file.cache());
        }
    }

    fn read_directory(
        &self,
        node: Node,
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(DirectoryEntry<'_>) -> bool,
    ) -> VfsResult<()> {
        if after.is_none() && !self.inode(node)?.is_directory() {
            return Err(not_directory(node));
        }
        self.names
            .list(node, after, &mut |name, inode| visit(DirectoryEntry { name, attributes: inode.attributes() }))
            .map_err(|error| error::of_catalog(&error))
    }

    fn parent(&self, node: Node) -> VfsResult<Node> {
        self.names.parent(node).map_err(|error| error::of_catalog(&error))?.ok_or_else(|| not_found(node))
    }

    fn extended_attribute(&self, node: Node, name: &[u8]) -> VfsResult<Vec<u8>> {
        if node == Node::ROOT && name == DAEMON.as_bytes() {
            return Ok(std::process::id().to_string().into_bytes());
        }
        self.xattr(&self.inode(node)?, name)
    }

    fn extended_attributes(&self, node: Node) -> VfsResult<Vec<Vec<u8>>> {
        Ok(attributes::names(&self.inode(node)?))
    }

    fn space(&self) -> VfsResult<SpaceUsage> {
        self.space.usage(&self.archive, &self.catalog, self.generation.load(Ordering::Acquire))
    }
}

/// The first offset at or after `offset` that holds data, or lies in a hole.
fn seek(content: &FileContent, offset: u64, data: bool) -> Option<u64> {
    if offset >= content.size {
        return None;
    }
    let Some(extents) = &content.extents else { return Some(if data { offset } else { content.size }) };
    let following = extents.iter().filter(|extent| extent.end() > offset);
    if data {
        return following.map(|extent| extent.start().max(offset)).next();
    }
    let mut hole = offset;
    for extent in following {
        if extent.start() > hole {
            break;
        }
        hole = extent.end();
    }
    Some(hole.min(content.size))
}

/// Locks; what a panicking thread left behind is consistent in all users of this.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{ContentRange, Digest};

    #[test]
    fn data_and_holes_are_found_as_the_extents_say() {
        let extent = ContentRange::between;
        let extents = Some(vec![extent(10, 20), extent(20, 30), extent(50, 60)]);
        let sparse = FileContent { size: 100, hash: Digest::of(b""), extents };
        for (offset, data, hole) in [
            (0, Some(10), Some(0)),
            (10, Some(10), Some(30)),
            (25, Some(25), Some(30)),
            (30, Some(50), Some(30)),
            (59, Some(59), Some(60)),
            (60, None, Some(60)),
            (99, None, Some(99)),
            (100, None, None),
            (u64::MAX, None, None),
        ] {
            assert_eq!(seek(&sparse, offset, true), data, "data from {offset}");
            assert_eq!(seek(&sparse, offset, false), hole, "hole from {offset}");
        }
        let plain = FileContent { size: 100, hash: Digest::of(b""), extents: None };
        assert_eq!((seek(&plain, 7, true), seek(&plain, 7, false)), (Some(7), Some(100)));
        assert_eq!(seek(&FileContent::empty(), 0, true), None);
    }
}
