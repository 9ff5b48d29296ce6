//! Who changes the catalog: the writer itself, or whoever speaks for it.

use super::{
    Catalog, CatalogResult, CatalogWriter, CommitSummary, ContentPlace, Inode, NewObject, ObjectRecord, SourceSignature,
};
use crate::base::{ContentHash, Timestamp};
use crate::format::{Entry, EntryPath};

/// How history and objects are forgotten.
pub trait CatalogRemovals: Send + Sync {
    /// As [`CatalogWriter::remove_object`].
    fn remove_object(&self, object: &ObjectRecord) -> CatalogResult<()>;

    /// As [`CatalogWriter::unreferenced_objects`].
    fn unreferenced_objects(&self) -> CatalogResult<Vec<ObjectRecord>>;

    /// As [`CatalogWriter::remove_history`]; returns how many states of names and nodes.
    fn remove_history(&self, before: Timestamp) -> CatalogResult<u64>;
}

/// What a commit and a garbage collection need of the catalog's writer. While
/// the archive is mounted the daemon is the writer, and another process
/// reaches it through an implementation of this.
pub trait CatalogWrites: CatalogRemovals {
    /// As [`CatalogWriter::sequence`].
    fn sequence(&self) -> CatalogResult<u64>;

    /// As [`CatalogWriter::resolve`].
    fn resolve(&self, path: &EntryPath) -> CatalogResult<Option<Inode>>;

    /// As [`CatalogWriter::place`].
    fn place(&self, hash: &ContentHash, size: u64) -> CatalogResult<Option<ContentPlace>>;

    /// As [`CatalogWriter::has_size`].
    fn has_size(&self, size: u64) -> CatalogResult<bool>;

    /// As [`CatalogWriter::seen`].
    fn seen(&self, signature: &SourceSignature) -> CatalogResult<Option<(ContentHash, u64)>>;

    /// As [`CatalogWriter::add_object`].
    fn add_object(&self, object: &NewObject) -> CatalogResult<()>;

    /// As [`CatalogWriter::commit_entries`].
    fn commit_entries(&self, entries: &mut dyn Iterator<Item = CatalogResult<Entry>>) -> CatalogResult<CommitSummary>;

    /// As [`CatalogWriter::finish`].
    fn finish(self: Box<Self>) -> CatalogResult<()>;
}

impl CatalogRemovals for CatalogWriter {
    fn remove_object(&self, object: &ObjectRecord) -> CatalogResult<()> {
        CatalogWriter::remove_object(self, object)
    }

    fn unreferenced_objects(&self) -> CatalogResult<Vec<ObjectRecord>> {
        CatalogWriter::unreferenced_objects(self)
    }

    fn remove_history(&self, before: Timestamp) -> CatalogResult<u64> {
        let removed = CatalogWriter::remove_history(self, before)?;
        Ok(removed.names + removed.states)
    }
}

impl CatalogWrites for CatalogWriter {
    fn sequence(&self) -> CatalogResult<u64> {
        Ok(CatalogWriter::sequence(self))
    }

    fn resolve(&self, path: &EntryPath) -> CatalogResult<Option<Inode>> {
        CatalogWriter::resolve(self, path)
    }

    fn place(&self, hash: &ContentHash, size: u64) -> CatalogResult<Option<ContentPlace>> {
        CatalogWriter::place(self, hash, size)
    }

    fn has_size(&self, size: u64) -> CatalogResult<bool> {
        CatalogWriter::has_size(self, size)
    }

    fn seen(&self, signature: &SourceSignature) -> CatalogResult<Option<(ContentHash, u64)>> {
        CatalogWriter::seen(self, signature)
    }

    fn add_object(&self, object: &NewObject) -> CatalogResult<()> {
        CatalogWriter::add_object(self, object)
    }

    fn commit_entries(&self, entries: &mut dyn Iterator<Item = CatalogResult<Entry>>) -> CatalogResult<CommitSummary> {
        CatalogWriter::commit_entries(self, entries)
    }

    fn finish(self: Box<Self>) -> CatalogResult<()> {
        CatalogWriter::finish(*self)
    }
}

/// The questions of a commit, to a catalog that somebody else writes.
impl Catalog {
    /// Whether some content has this size: only then can a file of this size be a duplicate.
    pub fn has_size(&self, size: u64) -> CatalogResult<bool> {
        self.read(|database| database.has_size(size))
    }

    /// The content that a source file had when it was committed with this
    /// very signature, if that content is still stored.
    pub fn seen(&self, signature: &SourceSignature) -> CatalogResult<Option<(ContentHash, u64)>> {
        self.read(|database| database.seen(signature.get()))
    }

    /// Objects that no name needs.
    pub fn unreferenced_objects(&self) -> CatalogResult<Vec<ObjectRecord>> {
        self.read(|database| database.unreferenced_objects(i64::MIN))
    }
}
