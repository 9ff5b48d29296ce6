//! The namespace: names, inodes, and which object holds which content. A
//! SQLite database is the working copy; the journal on the store is what
//! survives it.

mod apply;
mod change;
mod database;
mod database_key;
mod error;
mod health_log;
mod history;
mod local;
mod objects;
mod past;
mod presented;
mod queries;
mod rebuild;
mod records;
mod recovery;
mod replica;
mod sealing;
mod trusted_head;
mod trusted_ring;
mod writer;
mod writes;

pub use error::{CatalogError, CatalogResult};
pub use health_log::HealthLog;
pub use rebuild::{RebuildReport, RebuildSource, rebuild, rebuild_trusted};
pub use records::{
    CommitSummary, ContentPlace, HistoryRemoved, HistoryUsage, Inode, NamespaceTotals, NewMember, NewObject, NodeState,
    ObjectRecord, PastVersion, PlaceState, SourceSignature,
};
pub use trusted_head::TrustedHeads;
pub use writer::CatalogWriter;
pub use writes::{CatalogRemovals, CatalogWrites};

use crate::archive::Archive;
use crate::base::{ContentHash, ObjectName};
use crate::format::{EntryPath, StagedContent};
use crate::keys::{Epoch, Purpose};
use blockframe_api::Node;
use database::{Database, Pool, Use};
use database_key::DatabaseKey;
use local::LocalFiles;
use replica::Replica;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use trusted_head::HeadMemory;

/// Names that are fetched at once while a directory is listed.
const LIST_PAGE: usize = 512;
/// Page cache while a new archive's catalog is made, KiB.
const CREATE_CACHE_KIB: u32 = 2 << 10;

/// The namespace, open for reading from any thread.
#[derive(Debug)]
pub struct Catalog {
    shared: Arc<Shared>,
}

/// Where a catalog's parts are.
#[derive(Debug)]
struct Site {
    files: LocalFiles,
    archive: Arc<Archive>,
    replica: Replica,
    key: DatabaseKey,
    memory: HeadMemory,
    /// User and group of a root directory that nothing describes: those of the archive's home.
    owner: (u32, u32),
}

impl Site {
    /// Errors: `NoKeys` when the archive is encrypted and closed; `NotEncrypted`.
    fn new(home: &Path, archive: &Arc<Archive>, heads: TrustedHeads) -> CatalogResult<Self> {
        if archive.is_encrypted() && archive.keys().is_none() {
            return Err(CatalogError::NoKeys);
        }
        let memory = HeadMemory::new(archive, heads);
        memory.refuse_plain(archive.store().label())?;
        Ok(Self {
            files: LocalFiles::new(home),
            archive: archive.clone(),
            replica: Replica::new(archive),
            key: DatabaseKey::of(archive, Purpose::CatalogDatabase),
            memory,
            owner: owner_of(home),
        })
    }

    fn open_database(&self, usage: Use, cache_kib: u32) -> CatalogResult<Database> {
        Database::open(&self.files.database(), &self.key, usage, cache_kib)
    }

    /// An empty database, to be filled and put in the place of the other.
    fn new_database(&self, cache_kib: u32) -> CatalogResult<Database> {
        self.files.clear_new_database()?;
        Database::open(&self.files.new_database(), &self.key, Use::Build, cache_kib)
    }
}

#[cfg(unix)]
fn owner_of(home: &Path) -> (u32, u32) {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(home).map_or((0, 0), |metadata| (metadata.uid(), metadata.gid()))
}

#[cfg(not(unix))]
fn owner_of(_home: &Path) -> (u32, u32) {
    (0, 0)
}

#[derive(Debug)]
struct Shared {
    site: Site,
    pool: Pool,
    generation: Mutex<Generation>,
}

/// Which database file the readers have open.
#[derive(Debug)]
struct Generation {
    file: Option<u64>,
    replacements: u64,
}

fn number(node: Node) -> i64 {
    // Numbers beyond the signed range are never given out, and match no row.
    i64::try_from(node.number()).unwrap_or(-1)
}

impl Catalog {
    /// Makes the catalog of a new archive: the database in `home` and the
    /// journal's first snapshot on the store.
    pub fn create(home: &Path, archive: &Arc<Archive>) -> CatalogResult<Self> {
        Self::create_trusted(home, archive, TrustedHeads::nowhere())
    }

    /// As [`create`](Self::create), and remembers what it made.
    pub fn create_trusted(home: &Path, archive: &Arc<Archive>, heads: TrustedHeads) -> CatalogResult<Self> {
        let site = Site::new(home, archive, heads)?;
        {
            let _lock = site.files.lock()?;
            let database = site.new_database(CREATE_CACHE_KIB)?;
            database.make_schema(archive.descriptor().id)?;
            rebuild::make_root(&site, &database)?;
            recovery::replace_journal(&site.replica, &database, crate::format::journal::ChainHead::START)?;
            drop(database);
            site.files.install_new_database()?;
        }
        Self::open_site(site)
    }

    /// Opens the catalog. A database that is missing, damaged or behind the
    /// journal is rebuilt from the journal first (in memory when `home`
    /// cannot be written); a journal that is gone too is replaced by what
    /// manifests and bundles tell. A rollback is not noticed.
    ///
    /// Error: `NoKeys`, and nothing is changed, when the archive is encrypted and was opened without its keys.
    pub fn open(home: &Path, archive: &Arc<Archive>) -> CatalogResult<Self> {
        Self::open_trusted(home, archive, TrustedHeads::nowhere())
    }

    /// As [`open`](Self::open), and compares what the store presents with what
    /// this machine has seen of an encrypted archive before anything is written.
    ///
    /// Errors: as of [`open`](Self::open), and `RolledBack`, `Forked`, `NotEncrypted`.
    pub fn open_trusted(home: &Path, archive: &Arc<Archive>, heads: TrustedHeads) -> CatalogResult<Self> {
        Self::open_site(Site::new(home, archive, heads)?)
    }

    fn open_site(site: Site) -> CatalogResult<Self> {
        let pool = recovery::open_pool(&site)?;
        if pool.is_file() {
            site.memory.remember(pool.with(Database::head)?.chain);
        }
        let generation = Mutex::new(Generation { file: site.files.database_identity(), replacements: 0 });
        Ok(Self { shared: Arc::new(Shared { site, pool, generation }) })
    }

    fn read<T>(&self, query: impl FnOnce(&Database) -> CatalogResult<T>) -> CatalogResult<T> {
        self.shared.pool.with(|database| database.in_one_state(query))
    }

    /// The entry `name` of directory `parent`.
    pub fn lookup(&self, parent: Node, name: &[u8]) -> CatalogResult<Option<Inode>> {
        self.read(|database| match database.child(number(parent), name)? {
            Some(ino) => database.named_node(ino).map(Some),
            None => Ok(None),
        })
    }

    /// A node.
    pub fn inode(&self, node: Node) -> CatalogResult<Option<Inode>> {
        self.read(|database| database.node(number(node)))
    }

    /// The node at a path.
    pub fn resolve(&self, path: &EntryPath) -> CatalogResult<Option<Inode>> {
        self.read(|database| match database.resolve(path)? {
            Some(ino) => database.named_node(ino).map(Some),
            None => Ok(None),
        })
    }

    /// Lists a directory in byte order of the names, after the name `after`,
    /// until `visit` returns false. No lock is held while `visit` runs.
    pub fn list(
        &self,
        directory: Node,
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Inode) -> bool,
    ) -> CatalogResult<()> {
        let mut after = after.unwrap_or_default().to_vec();
        loop {
            let page = self.read(|database| database.page(number(directory), &after, LIST_PAGE))?;
            let full = page.len() == LIST_PAGE;
            if let Some((name, _)) = page.last() {
                after.clone_from(name);
            }
            for (name, inode) in page {
                if !visit(&name, inode) {
                    return Ok(());
                }
            }
            if !full {
                return Ok(());
            }
        }
    }

    /// The parent of a directory; the root is its own.
    pub fn parent(&self, directory: Node) -> CatalogResult<Option<Node>> {
        if directory == Node::ROOT {
            return Ok(Some(directory));
        }
        let names = self.read(|database| database.names_of(number(directory)))?;
        Ok(names.first().map(|(parent, _)| Node::new(*parent as u64)))
    }

    /// All paths of a node (several with hard links), sorted.
    pub fn paths_of(&self, node: Node) -> CatalogResult<Vec<EntryPath>> {
        self.read(|database| database.paths_of(number(node)))
    }

    /// The nodes whose content lies in an object.
    pub fn nodes_in(&self, object: &ObjectRecord) -> CatalogResult<Vec<Node>> {
        self.read(|database| {
            let Some((id, _)) = database.object(&object.reference.name)? else { return Ok(Vec::new()) };
            Ok(database.nodes_in(id)?.into_iter().map(|ino| Node::new(ino as u64)).collect())
        })
    }

    /// Where a content lies; `None` when no object holds it.
    pub fn place(&self, hash: &ContentHash, size: u64) -> CatalogResult<Option<ContentPlace>> {
        self.read(|database| database.place(hash, size))
    }

    /// All objects in the order of their names, after `after`, until `visit` returns false.
    pub fn objects(
        &self,
        after: Option<&ObjectName>,
        visit: &mut dyn FnMut(ObjectRecord) -> bool,
    ) -> CatalogResult<()> {
        let mut after = after.map_or("", ObjectName::as_str).to_string();
        loop {
            let page = self.read(|database| database.object_page(&after, LIST_PAGE))?;
            let Some((_, last)) = page.last() else { return Ok(()) };
            after = last.name.as_str().to_string();
            for (_, facts) in page {
                if !visit(facts.into()) {
                    return Ok(());
                }
            }
        }
    }

    /// Calls `visit` with every node whose newest content lies in staging.
    pub fn staged(&self, visit: &mut dyn FnMut(Node, StagedContent)) -> CatalogResult<()> {
        for (ino, content) in self.read(Database::staged)? {
            visit(Node::new(ino as u64), content);
        }
        Ok(())
    }

    /// Nodes that have no name: they were removed while something had them
    /// open. Looks at every node.
    pub fn unnamed_nodes(&self) -> CatalogResult<Vec<Node>> {
        let found = self.read(Database::unnamed)?;
        Ok(found.into_iter().map(|ino| Node::new(ino as u64)).collect())
    }

    /// Counts and sizes of everything.
    pub fn totals(&self) -> CatalogResult<NamespaceTotals> {
        self.read(Database::totals)
    }

    /// A number that changes whenever another process has changed the catalog.
    pub fn generation(&self) -> CatalogResult<u64> {
        let replacements = {
            let mut generation = self.shared.generation.lock().unwrap_or_else(PoisonError::into_inner);
            let file = self.shared.site.files.database_identity();
            if self.shared.pool.is_file() && file.is_some() && file != generation.file {
                // A rebuild put another file in its place.
                self.shared.pool.reset();
                generation.file = file;
                generation.replacements += 1;
            }
            generation.replacements
        };
        let sequence = if self.shared.pool.is_file() { self.read(Database::head)?.chain.sequence } else { 0 };
        Ok(sequence.wrapping_add(replacements << 48))
    }

    /// Remembers on this machine up to where the store's journal goes now. A
    /// writer does so by itself when it ends, and while it changes something
    /// once a minute; who keeps a catalog open calls it from time to time.
    pub fn remember_head(&self) -> CatalogResult<()> {
        if self.shared.pool.is_file() {
            self.shared.site.memory.remember(self.read(Database::head)?.chain);
        }
        Ok(())
    }

    /// Becomes the writer. Error: `Locked` while another process writes.
    pub fn writer(&self) -> CatalogResult<CatalogWriter> {
        CatalogWriter::begin(&self.shared)
    }

    /// Checks that the journal on the store is whole and says what the
    /// database says; writes a fresh snapshot where it is not (if it can).
    /// Returns what was wrong.
    pub fn verify_journal(&self, repair: bool) -> CatalogResult<Vec<String>> {
        if !self.shared.pool.is_file() {
            return Ok(Vec::new());
        }
        let mut faults = self.journal_faults()?;
        if !faults.is_empty() {
            // A writer may have been at work meanwhile: look again.
            faults = self.journal_faults()?;
        }
        if repair && !faults.is_empty() {
            match self.writer() {
                Ok(writer) => {
                    writer.rewrite_journal()?;
                    writer.finish()?;
                }
                Err(CatalogError::Locked { .. }) => {
                    tracing::info!("the catalog's journal is not repaired now: another process writes");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(faults)
    }

    fn journal_faults(&self) -> CatalogResult<Vec<String>> {
        let head = self.read(Database::head)?;
        recovery::journal_faults(&self.shared.site.replica, &head)
    }
}

/// The oldest epoch whose key journal or snapshot of an encrypted archive still need; `None` where
/// they need none. A file that does not tell its epoch may need the first.
pub fn oldest_journal_epoch(archive: &Archive) -> CatalogResult<Option<Epoch>> {
    Replica::new(archive).oldest_epoch()
}

/// Verifies journal and snapshot of an archive, file by file: blocks, groups,
/// the chain, and with keys that each block is authentic. Needs no catalog, and of an encrypted
/// archive no keys. Returns what is wrong.
pub fn verify_journal_files(archive: &Archive) -> CatalogResult<Vec<String>> {
    recovery::file_faults(&Replica::new(archive))
}

#[cfg(test)]
mod tests;
