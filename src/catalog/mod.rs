//! The namespace: names, inodes, and which object holds which content. A
//! SQLite database is the working copy; the journal on the store is what
//! survives it.

mod error;
mod records;

pub use error::{CatalogError, CatalogResult};
pub use records::{
    CommitSummary, ContentPlace, Inode, NamespaceTotals, NewMember, NewObject, ObjectRecord, SourceSignature,
};

use crate::archive::Archive;
use crate::base::ContentHash;
use crate::format::{Entry, EntryPath};
use blockframe_api::Node;
use std::path::Path;
use std::sync::Arc;

/// The namespace, open for reading from any thread.
#[derive(Debug)]
pub struct Catalog {}

/// The one writer of a catalog: holds the archive's writer lock until dropped.
#[derive(Debug)]
pub struct CatalogWriter {}

impl Catalog {
    /// Makes the catalog of a new archive: the database in `home` and the
    /// journal's first snapshot on the store.
    pub fn create(home: &Path, archive: &Arc<Archive>) -> CatalogResult<Self> {
        let _ = (home, archive);
        Err(CatalogError::NotYet)
    }

    /// Opens the catalog. A database that is missing, damaged or behind the
    /// journal is rebuilt from the journal first (in memory when `home`
    /// cannot be written); a journal that is gone too is replaced by what
    /// manifests and bundles tell.
    pub fn open(home: &Path, archive: &Arc<Archive>) -> CatalogResult<Self> {
        let _ = (home, archive);
        Err(CatalogError::NotYet)
    }

    /// The entry `name` of directory `parent`.
    pub fn lookup(&self, parent: Node, name: &[u8]) -> CatalogResult<Option<Inode>> {
        let _ = (parent, name);
        Err(CatalogError::NotYet)
    }

    /// A node.
    pub fn inode(&self, node: Node) -> CatalogResult<Option<Inode>> {
        let _ = node;
        Err(CatalogError::NotYet)
    }

    /// The node at a path.
    pub fn resolve(&self, path: &EntryPath) -> CatalogResult<Option<Inode>> {
        let _ = path;
        Err(CatalogError::NotYet)
    }

    /// Lists a directory in byte order of the names, after the name `after`,
    /// until `visit` returns false. No lock is held while `visit` runs.
    pub fn list(
        &self,
        directory: Node,
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Inode) -> bool,
    ) -> CatalogResult<()> {
        let _ = (directory, after, visit);
        Err(CatalogError::NotYet)
    }

    /// The parent of a directory; the root is its own.
    pub fn parent(&self, directory: Node) -> CatalogResult<Option<Node>> {
        let _ = directory;
        Err(CatalogError::NotYet)
    }

    /// All paths of a node (several with hard links), sorted.
    pub fn paths_of(&self, node: Node) -> CatalogResult<Vec<EntryPath>> {
        let _ = node;
        Err(CatalogError::NotYet)
    }

    /// The nodes whose content lies in an object.
    pub fn nodes_in(&self, object: &ObjectRecord) -> CatalogResult<Vec<Node>> {
        let _ = object;
        Err(CatalogError::NotYet)
    }

    /// Where a content lies; `None` when no object holds it.
    pub fn place(&self, hash: &ContentHash, size: u64) -> CatalogResult<Option<ContentPlace>> {
        let _ = (hash, size);
        Err(CatalogError::NotYet)
    }

    /// All objects in the order of their names, after `after`, until `visit` returns false.
    pub fn objects(
        &self,
        after: Option<&crate::base::ObjectName>,
        visit: &mut dyn FnMut(ObjectRecord) -> bool,
    ) -> CatalogResult<()> {
        let _ = (after, visit);
        Err(CatalogError::NotYet)
    }

    /// Counts and sizes of everything.
    pub fn totals(&self) -> CatalogResult<NamespaceTotals> {
        Err(CatalogError::NotYet)
    }

    /// A number that changes whenever another process has changed the catalog.
    pub fn generation(&self) -> CatalogResult<u64> {
        Err(CatalogError::NotYet)
    }

    /// Becomes the writer. Error: `Locked` while another process writes.
    pub fn writer(&self) -> CatalogResult<CatalogWriter> {
        Err(CatalogError::NotYet)
    }

    /// Checks that the journal on the store is whole and says what the
    /// database says; writes a fresh snapshot where it is not (if it can).
    /// Returns what was wrong.
    pub fn verify_journal(&self, repair: bool) -> CatalogResult<Vec<String>> {
        let _ = repair;
        Err(CatalogError::NotYet)
    }
}

impl CatalogWriter {
    /// The sequence number that a manifest or bundle written now carries.
    pub fn sequence(&self) -> u64 {
        0
    }

    /// Where a content lies already.
    pub fn place(&self, hash: &ContentHash, size: u64) -> CatalogResult<Option<ContentPlace>> {
        let _ = (hash, size);
        Err(CatalogError::NotYet)
    }

    /// Whether some content has this size: only then can a file of this size be a duplicate.
    pub fn has_size(&self, size: u64) -> CatalogResult<bool> {
        let _ = size;
        Err(CatalogError::NotYet)
    }

    /// The content that a source file had when it was committed with this
    /// very signature, if that content is still stored.
    pub fn seen(&self, signature: &SourceSignature) -> CatalogResult<Option<(ContentHash, u64)>> {
        let _ = signature;
        Err(CatalogError::NotYet)
    }

    /// Records an object that is durable on the store, and the contents it
    /// holds. Durable when it returns; changes no name.
    pub fn add_object(&self, object: &NewObject) -> CatalogResult<()> {
        let _ = object;
        Err(CatalogError::NotYet)
    }

    /// Puts entries into the namespace as one atomic, durable change. Parents
    /// come before children; missing parents are made (mode 0755, times of
    /// now). An entry replaces what stood at its path, except that a
    /// directory keeps what is below it. A file whose content is not stored
    /// is an error, and nothing is changed.
    pub fn commit_entries(
        &self,
        entries: &mut dyn Iterator<Item = CatalogResult<Entry>>,
    ) -> CatalogResult<CommitSummary> {
        let _ = entries;
        Err(CatalogError::NotYet)
    }

    /// Forgets an object that no name needs (for `gc`); its shards are the caller's.
    /// Error when a name does need it.
    pub fn remove_object(&self, object: &ObjectRecord) -> CatalogResult<()> {
        let _ = object;
        Err(CatalogError::NotYet)
    }

    /// Objects that no name needs.
    pub fn unreferenced_objects(&self) -> CatalogResult<Vec<ObjectRecord>> {
        Err(CatalogError::NotYet)
    }

    /// Closes the catalog cleanly: checkpoints and seals the database.
    pub fn finish(self) -> CatalogResult<()> {
        Ok(())
    }
}
