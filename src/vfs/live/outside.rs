//! Changes that do not come from the kernel: commands of the program that go
//! through the daemon.

use super::LiveVfs;
use super::file::{Base, LiveFile};
use super::names::Wanted;
use crate::base::ObjectName;
use crate::catalog::{CatalogResult, CommitSummary};
use crate::format::{Entry, EntryPath, NodeBody};
use crate::vfs::error;
use blockframe_api::{ErrorClass, Node, NodeKind, Vfs as _, VfsError, VfsResult};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl LiveVfs {
    /// Puts entries into the namespace as one atomic, durable change. What was
    /// being written at their paths is replaced by them.
    pub fn commit_entries(&self, entries: &mut dyn Iterator<Item = CatalogResult<Entry>>) -> VfsResult<CommitSummary> {
        // What was published before is older than the entries, and is history.
        self.sync_all()?;
        let catalog = self.namespace.catalog();
        let committed = self.namespace.alone(|writer| {
            let mut replaced = HashSet::new();
            catalog.staged(&mut |node, _| _ = replaced.insert(node))?;
            let summary = writer.commit_entries(entries)?;
            catalog.staged(&mut |node, _| _ = replaced.remove(&node))?;
            Ok((summary, replaced))
        });
        let (summary, replaced) = committed.map_err(|error| error::of_namespace(&error))?;
        self.foreign_changes.fetch_add(1, Ordering::AcqRel);
        for file in self.files.all() {
            self.reconcile(&file, replaced.contains(&file.node()))?;
        }
        Ok(summary)
    }

    /// A file that is open or staged becomes what the catalog says it is now.
    /// `replaced`: what was staged of it counts no more.
    fn reconcile(&self, file: &Arc<LiveFile>, replaced: bool) -> VfsResult<()> {
        let node = file.node();
        let inode = self.namespace.ask(|draft| draft.find_node(node)).map_err(|error| error::of_namespace(&error))?;
        let _one = file.publishing();
        let mut content = file.content_mut();
        let now = match inode.as_ref().map(|inode| &inode.body) {
            Some(NodeBody::File(now))
                if !replaced && content.base.as_ref().is_some_and(|base| base.content == *now) =>
            {
                return Ok(());
            }
            Some(NodeBody::File(now)) => Some(now.clone()),
            _ => None,
        };
        let staged = content.staged.take();
        if let Some(now) = &now {
            content.base = Some(Base::new(now.clone()));
        }
        if let Some(staged) = staged {
            let dropped = self.namespace.change(|draft| {
                if draft.find_node(node)?.is_some() {
                    draft.unstage(node);
                }
                draft.later(self.files.let_go(&staged));
                Ok(())
            });
            dropped.map_err(|error| error::of_namespace(&error))?;
            file.times().written = None;
        }
        drop(content);
        self.files.forget_idle(file);
        self.tell_node(node);
        Ok(())
    }

    /// Another process has changed the key ring, or is about to write: the newest keys are for what is written now.
    pub fn follow_keys(&self) -> VfsResult<()> {
        if !self.archive.is_encrypted() {
            return Ok(());
        }
        self.archive.follow_ring();
        self.namespace.alone(|writer| writer.follow_epoch()).map_err(|error| error::of_namespace(&error))
    }

    /// An object is going to be deleted, and the catalog has its contents
    /// elsewhere. When this returns, no open file reads there any more.
    pub fn leave_object(&self, object: &ObjectName) {
        for file in self.files.all() {
            let is_there = file.content().base.as_ref().is_some_and(|base| base.is_in(object));
            if !is_there {
                continue;
            }
            // Waits for reads that go on.
            let mut content = file.content_mut();
            if let Some(base) = content.base.as_mut().filter(|base| base.is_in(object)) {
                *base = Base::new(base.content.clone());
            }
        }
    }

    /// Removes the name at a path; with `recursive` a directory with all below
    /// it. Durable when it returns. Returns how many names went.
    pub fn remove_path(&self, path: &EntryPath, recursive: bool) -> VfsResult<u64> {
        let (Some(above), name) = (path.parent(), path.name()) else {
            return Err(error::invalid("the root directory cannot be removed"));
        };
        let parent = self.walk(&above)?;
        let removed = self.remove_tree(parent, name, recursive).map_err(|error| match error.class() {
            ErrorClass::NotEmpty if !recursive => {
                VfsError::new(ErrorClass::NotEmpty, format!("{path} has entries; `blockframe rm -r` removes them too"))
            }
            ErrorClass::NotFound => VfsError::new(ErrorClass::NotFound, format!("there is no {path}")),
            _ => error,
        })?;
        self.namespace.sync().map_err(|error| error::of_namespace(&error))?;
        Ok(removed)
    }

    fn walk(&self, path: &EntryPath) -> VfsResult<Node> {
        let mut at = Node::ROOT;
        for name in path.names() {
            let found = self.namespace.lookup(at, name).map_err(|error| error::of_namespace(&error))?;
            at = found.ok_or_else(error::no_name)?.node;
        }
        Ok(at)
    }

    fn remove_tree(&self, parent: Node, name: &[u8], recursive: bool) -> VfsResult<u64> {
        let found = self.namespace.lookup(parent, name).map_err(|error| error::of_namespace(&error))?;
        let inode = found.ok_or_else(error::no_name)?;
        let mut removed = 1;
        let wanted = match inode.body.kind() {
            NodeKind::Directory => Wanted::Directory,
            _ => Wanted::NoDirectory,
        };
        if wanted == Wanted::Directory && recursive {
            // Depth is bounded by the longest path.
            loop {
                let mut names: Vec<Vec<u8>> = Vec::new();
                let listed = self.namespace.list(inode.node, None, &mut |name, _| {
                    names.push(name.to_vec());
                    names.len() < 1024
                });
                listed.map_err(|error| error::of_namespace(&error))?;
                if names.is_empty() {
                    break;
                }
                for name in names {
                    removed += self.remove_tree(inode.node, &name, true)?;
                }
            }
        }
        self.remove_name(parent, name, wanted)?;
        self.tell_name(parent, name);
        Ok(removed)
    }
}
