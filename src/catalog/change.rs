//! One atomic change of the namespace: entries become records, which go to
//! the journal and to the database in lock-step.

use super::apply::Applier;
use super::database::{Database, Head};
use super::history::instant;
use super::local::LocalFiles;
use super::queries::ROOT;
use super::replica::{GroupWriter, Replica};
use super::{CatalogError, CatalogResult, CommitSummary, HistoryRemoved, Inode};
use crate::base::{ObjectName, Timestamp};
use crate::format::journal::Record;
use crate::format::{Entry, EntryPath, FileContent, NodeBody, NodeMeta};
use std::cell::Cell;
use std::collections::{HashMap, HashSet};

/// Directories whose inode number is remembered during a change.
const REMEMBERED_DIRECTORIES: usize = 1 << 16;
/// Permissions of a parent that no entry described.
const PARENT_PERMISSIONS: u16 = 0o755;

/// What happens before the first record of a change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opening<'a> {
    pub(super) files: &'a LocalFiles,
    pub(super) replica: &'a Replica,
    pub(super) head: Head,
    pub(super) unsealed: &'a Cell<bool>,
}

/// Makes the database ready for its writer's first change, unless it is. Ends
/// the transaction that may be open; nothing was changed in it yet.
pub(super) fn unseal(files: &LocalFiles, database: &Database, unsealed: &Cell<bool>) -> CatalogResult<()> {
    if !unsealed.get() {
        // Neither the seal nor a transaction may be there when the log is begun: both would be wrong after it.
        database.roll_back();
        files.unseal()?;
        unsealed.set(true);
        database.begin_log();
    }
    Ok(())
}

impl<'a> Opening<'a> {
    fn begin(self, database: &Database) -> CatalogResult<GroupWriter<'a>> {
        unseal(self.files, database, self.unsealed)?;
        database.begin()?;
        self.replica.begin_group(self.head)
    }
}

/// A change in the making, within the caller's database transaction.
#[derive(Debug)]
pub(super) struct Change<'a> {
    database: &'a Database,
    applier: Applier<'a>,
    opening: Option<Opening<'a>>,
    journal: Option<GroupWriter<'a>>,
    records: u64,
    now: Timestamp,
    directories: HashMap<Vec<u8>, i64>,
    /// Nodes with several names that an entry of this change has spoken for:
    /// another entry with the same attributes is another node.
    claimed: HashSet<i64>,
    summary: CommitSummary,
}

/// A name as it stands: its directory, itself, and the node it leads to.
struct Standing<'n> {
    parent: i64,
    name: &'n [u8],
    node: Option<Inode>,
}

fn number(node: &Inode) -> i64 {
    node.node.number() as i64
}

impl<'a> Change<'a> {
    /// A change that goes to the journal too; without `opening`, to the database alone.
    pub(super) fn new(database: &'a Database, opening: Option<Opening<'a>>, now: Timestamp) -> CatalogResult<Self> {
        let applier = Applier::new(database, false)?;
        // What is put together from manifests tells no times.
        let applier = if opening.is_some() { applier } else { applier.without_history() };
        Ok(Self {
            database,
            applier,
            opening,
            journal: None,
            records: 0,
            now,
            directories: HashMap::new(),
            claimed: HashSet::new(),
            summary: CommitSummary::default(),
        })
    }

    /// What was done so far.
    pub(super) fn summary(&self) -> CommitSummary {
        self.summary
    }

    /// Does one record.
    pub(super) fn emit(&mut self, record: &Record) -> CatalogResult<()> {
        if self.records == 0
            && let Some(opening) = self.opening
        {
            self.journal = Some(opening.begin(self.database)?);
            self.record(&Record::Time(self.now))?;
        }
        self.record(record)
    }

    fn record(&mut self, record: &Record) -> CatalogResult<()> {
        self.records += 1;
        if let Some(journal) = &mut self.journal {
            journal.push(record)?;
        }
        self.applier.apply(record)
    }

    /// Makes the change count in the journal; `None` when nothing changed. The
    /// database's transaction is the caller's to commit.
    pub(super) fn finish(self) -> CatalogResult<Option<Head>> {
        if self.records == 0 {
            return Ok(None);
        }
        self.applier.finish()?;
        self.journal.map(GroupWriter::finish).transpose()
    }

    /// Gives the change up.
    pub(super) fn abandon(self) {
        if let Some(journal) = self.journal {
            journal.abandon();
        }
    }

    /// Puts one entry into the namespace.
    pub(super) fn put(&mut self, entry: &Entry) -> CatalogResult<()> {
        match entry {
            Entry::Node { path, meta, body } => self.put_node(path, meta, body),
            Entry::HardLink { path, target } => self.put_link(path, target),
        }
    }

    /// Forgets an object that no node needs, now or in a past that is kept.
    pub(super) fn remove_object(&mut self, name: &ObjectName) -> CatalogResult<()> {
        let Some((id, _)) = self.database.object(name)? else { return Ok(()) };
        if !self.database.nodes_in(id)?.is_empty() || self.database.past_needs(id)? {
            return Err(CatalogError::ObjectNeeded { object: name.clone() });
        }
        self.emit(&Record::ObjectRemoved(name.clone()))
    }

    /// Forgets states that ended at or before `before`.
    pub(super) fn remove_history(&mut self, before: Timestamp) -> CatalogResult<HistoryRemoved> {
        let removed = self.database.past_until(instant(before))?;
        if removed != HistoryRemoved::default() {
            self.emit(&Record::HistoryRemoved { before })?;
        }
        Ok(removed)
    }

    fn put_node(&mut self, path: &EntryPath, meta: &NodeMeta, body: &NodeBody) -> CatalogResult<()> {
        let Some(above) = path.parent() else { return self.put_root(meta, body) };
        let parent = self.directory(path, &above)?;
        let standing = self.standing(parent, path.name())?;
        let Some(old) = &standing.node else {
            self.check_content(path, body)?;
            self.summary.created += 1;
            return self.make_node(path, &standing, meta, body);
        };
        let shared = old.links > 1 && !old.is_directory();
        let taken = shared && self.claimed.contains(&number(old));
        // What manifests tell is older than anything staged.
        let replaces_staged = !taken && self.opening.is_some() && self.database.is_staged(number(old))?;
        if !taken && !replaces_staged && old.meta == *meta && old.body == *body {
            self.summary.unchanged += 1;
            if shared {
                self.claimed.insert(number(old));
            }
            return Ok(());
        }
        self.check_content(path, body)?;
        self.summary.changed += 1;
        if taken || old.body.kind() != body.kind() {
            self.remove_name(standing.parent, standing.name, old)?;
            return self.make_node(path, &Standing { node: None, ..standing }, meta, body);
        }
        if shared {
            self.part(&standing, old)?;
        }
        self.emit(&Record::Inode { node: old.node.number(), meta: meta.clone(), body: body.clone() })?;
        if replaces_staged { self.emit(&Record::StagedRemoved(old.node.number())) } else { Ok(()) }
    }

    fn put_root(&mut self, meta: &NodeMeta, body: &NodeBody) -> CatalogResult<()> {
        let root = self.database.named_node(ROOT)?;
        if *body != NodeBody::Directory {
            let path = EntryPath::root();
            return Err(CatalogError::ParentNotDirectory { path: path.clone(), parent: path });
        }
        if root.meta == *meta {
            self.summary.unchanged += 1;
            return Ok(());
        }
        self.summary.changed += 1;
        self.emit(&Record::Inode { node: ROOT as u64, meta: meta.clone(), body: body.clone() })
    }

    fn put_link(&mut self, path: &EntryPath, target: &EntryPath) -> CatalogResult<()> {
        let missing = || CatalogError::LinkTargetMissing { path: path.clone(), target: target.clone() };
        let above = path.parent().ok_or_else(missing)?;
        let parent = self.directory(path, &above)?;
        let standing = self.standing(parent, path.name())?;
        let aim = self.database.resolve(target)?.ok_or_else(missing)?;
        self.claimed.insert(aim);
        match &standing.node {
            Some(old) if number(old) == aim => {
                self.summary.unchanged += 1;
                return Ok(());
            }
            Some(old) => {
                self.summary.changed += 1;
                self.remove_name(parent, path.name(), old)?;
            }
            None => self.summary.created += 1,
        }
        // What was removed may have been a directory with the target in it.
        let node = self.database.node(aim)?.filter(|node| !node.is_directory()).ok_or_else(missing)?;
        self.emit(&Record::Dirent { parent: parent as u64, name: path.name().to_vec(), node: node.node.number() })
    }

    fn standing<'n>(&self, parent: i64, name: &'n [u8]) -> CatalogResult<Standing<'n>> {
        let node = match self.database.child(parent, name)? {
            Some(ino) => Some(self.database.named_node(ino)?),
            None => None,
        };
        Ok(Standing { parent, name, node })
    }

    fn check_content(&self, path: &EntryPath, body: &NodeBody) -> CatalogResult<()> {
        if let NodeBody::File(FileContent { size, hash, .. }) = body
            && *size > 0
            && self.database.content(hash)?.is_none_or(|row| row.size as u64 != *size)
        {
            return Err(CatalogError::ContentMissing { path: path.clone() });
        }
        Ok(())
    }

    fn make_node(
        &mut self,
        path: &EntryPath,
        standing: &Standing<'_>,
        meta: &NodeMeta,
        body: &NodeBody,
    ) -> CatalogResult<()> {
        let node = self.applier.next_inode();
        self.emit(&Record::Inode { node, meta: meta.clone(), body: body.clone() })?;
        self.emit(&Record::Dirent { parent: standing.parent as u64, name: standing.name.to_vec(), node })?;
        if *body == NodeBody::Directory {
            self.remember(path, node as i64);
        }
        Ok(())
    }

    /// A name of several gets another content: the other names keep the old
    /// one, in a node of their own; this name keeps its inode number.
    fn part(&mut self, standing: &Standing<'_>, old: &Inode) -> CatalogResult<()> {
        let others = self.database.names_of(number(old))?;
        let node = self.applier.next_inode();
        self.emit(&Record::Inode { node, meta: old.meta.clone(), body: old.body.clone() })?;
        for (parent, name) in others {
            if (parent, name.as_slice()) != (standing.parent, standing.name) {
                let parent = parent as u64;
                self.emit(&Record::DirentRemoved { parent, name: name.clone() })?;
                self.emit(&Record::Dirent { parent, name, node })?;
            }
        }
        Ok(())
    }

    /// Removes a name, what lies below it, and every node that has no name left.
    /// Returns how many names that were.
    fn remove_name(&mut self, parent: i64, name: &[u8], node: &Inode) -> CatalogResult<u64> {
        let mut removed = 1;
        if node.is_directory() {
            self.directories.clear();
            removed += self.remove_below(number(node))?;
        }
        self.emit(&Record::DirentRemoved { parent: parent as u64, name: name.to_vec() })?;
        let left = self.database.named_node(number(node))?;
        if left.is_directory() || left.links == 0 {
            self.emit(&Record::InodeRemoved(node.node.number()))?;
        }
        Ok(removed)
    }

    fn remove_below(&mut self, directory: i64) -> CatalogResult<u64> {
        let mut removed = 0;
        // Depth is bounded by the longest path.
        while let Some((name, node)) = self.database.page(directory, &[], 1)?.pop() {
            removed += self.remove_name(directory, &name, &node)?;
        }
        Ok(removed)
    }

    /// Removes what stands at a path; with `recursive`, a directory with all
    /// that is below it. Returns how many names that were.
    pub(super) fn remove_path(&mut self, path: &EntryPath, recursive: bool) -> CatalogResult<u64> {
        let missing = || CatalogError::NotFound { path: path.clone() };
        let above = path.parent().ok_or(CatalogError::RootRemoved)?;
        let parent = self.database.resolve(&above)?.ok_or_else(missing)?;
        let node = self.standing(parent, path.name())?.node.ok_or_else(missing)?;
        if node.is_directory() && !recursive {
            return Err(CatalogError::IsDirectory { path: path.clone() });
        }
        self.remove_name(parent, path.name(), &node)
    }

    /// The inode number of the directory `above`, which `path` needs; made
    /// where it is missing.
    fn directory(&mut self, path: &EntryPath, above: &EntryPath) -> CatalogResult<i64> {
        if let Some(&ino) = self.directories.get(above.as_bytes()) {
            return Ok(ino);
        }
        let mut at = self.database.named_node(ROOT)?;
        let mut reached = EntryPath::root();
        for name in above.names() {
            reached = reached.join(name)?;
            let standing = self.standing(number(&at), name)?;
            at = match standing.node {
                Some(node) if node.is_directory() => node,
                Some(_) => return Err(CatalogError::ParentNotDirectory { path: path.clone(), parent: reached }),
                None => {
                    let meta = NodeMeta {
                        accessed: None,
                        permissions: PARENT_PERMISSIONS,
                        user: at.meta.user,
                        group: at.meta.group,
                        modified: self.now,
                        changed: self.now,
                        born: None,
                        xattrs: Vec::new(),
                    };
                    let node = self.applier.next_inode() as i64;
                    self.make_node(&reached, &standing, &meta, &NodeBody::Directory)?;
                    self.database.named_node(node)?
                }
            };
        }
        self.remember(above, number(&at));
        Ok(number(&at))
    }

    fn remember(&mut self, path: &EntryPath, ino: i64) {
        if self.directories.len() >= REMEMBERED_DIRECTORIES {
            self.directories.clear();
        }
        self.directories.insert(path.as_bytes().to_vec(), ino);
    }
}
