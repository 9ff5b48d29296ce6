//! Which names a read-only filesystem shows: those that are, or those that were.

use crate::base::Timestamp;
use crate::catalog::{Catalog, CatalogResult, Inode};
use blockframe_api::Node;
use std::sync::Arc;

/// The namespace, at present or as of a time.
#[derive(Debug, Clone)]
pub(super) struct Names {
    catalog: Arc<Catalog>,
    at: Option<Timestamp>,
}

impl Names {
    /// `at`: the time to show; `None`: the present.
    pub(super) fn new(catalog: Arc<Catalog>, at: Option<Timestamp>) -> Self {
        Self { catalog, at }
    }

    /// The time that it shows; `None`: the present.
    pub(super) fn at(&self) -> Option<Timestamp> {
        self.at
    }

    pub(super) fn lookup(&self, parent: Node, name: &[u8]) -> CatalogResult<Option<Inode>> {
        match self.at {
            None => self.catalog.lookup(parent, name),
            Some(at) => self.catalog.lookup_at(parent, name, at),
        }
    }

    pub(super) fn inode(&self, node: Node) -> CatalogResult<Option<Inode>> {
        match self.at {
            None => self.catalog.inode(node),
            Some(at) => self.catalog.inode_at(node, at),
        }
    }

    pub(super) fn list(
        &self,
        directory: Node,
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Inode) -> bool,
    ) -> CatalogResult<()> {
        match self.at {
            None => self.catalog.list(directory, after, visit),
            Some(at) => self.catalog.list_at(directory, after, at, visit),
        }
    }

    pub(super) fn parent(&self, directory: Node) -> CatalogResult<Option<Node>> {
        match self.at {
            None => self.catalog.parent(directory),
            Some(at) => self.catalog.parent_at(directory, at),
        }
    }

    /// A path of the node, for messages: the one that it has now.
    pub(super) fn path(&self, node: Node) -> String {
        let past = if self.at.is_some() { ", as it was" } else { "" };
        match self.catalog.paths_of(node) {
            Ok(paths) if !paths.is_empty() => format!("{}{past}", paths[0]),
            _ => format!("inode {}{past}", node.number()),
        }
    }
}
