//! Links to the files whose objects are damaged.

use super::super::{Parts, error, lock};
use super::link_names::{Named, link_name, read_link_name};
use crate::catalog::{CatalogResult, Inode};
use crate::format::{EntryPath, NodeBody};
use blockframe_api::{ErrorClass, Node, VfsError, VfsResult};
use std::sync::{Arc, Mutex};

/// Most links that are listed.
const LISTED: usize = 65_536;
/// From the directory of the links to the mount's root.
const UP: &[u8] = b"../../";
/// Longest target that Linux follows, bytes.
const MAX_TARGET: usize = 4095;

/// Name of a link, and the file it leads to.
type Link = (Vec<u8>, Node);

#[derive(Debug)]
pub(super) struct Damaged {
    parts: Parts,
    /// What the last listing began with: what follows within it is taken from here.
    listing: Mutex<Arc<Vec<Link>>>,
}

impl Damaged {
    pub(super) fn new(parts: Parts) -> Self {
        Self { parts, listing: Mutex::default() }
    }

    /// The file that a link leads to.
    pub(super) fn lookup(&self, name: &[u8]) -> VfsResult<Node> {
        let found = match read_link_name(name) {
            Named::Path(path) => self.damaged_at(path).map_err(|error| error::of_catalog(&error))?,
            Named::Shortened => self.links()?.iter().find(|(link, _)| link == name).map(|(_, node)| *node),
            Named::Nothing => None,
        };
        found.ok_or_else(error::no_name)
    }

    fn damaged_at(&self, path: Vec<u8>) -> CatalogResult<Option<Node>> {
        let catalog = &self.parts.catalog;
        let Ok(path) = EntryPath::new(path) else { return Ok(None) };
        let Some(Inode { node, body: NodeBody::File(content), .. }) = catalog.resolve(&path)? else { return Ok(None) };
        // A file with several names has one link.
        if catalog.paths_of(node)?.first() != Some(&path) {
            return Ok(None);
        }
        let Some(place) = catalog.place(&content.hash, content.size)? else { return Ok(None) };
        let damaged = self.parts.health.damaged();
        Ok(damaged.contains(&place.object.name).then_some(node))
    }

    /// Where the link to a file leads.
    pub(super) fn target(&self, node: Node) -> VfsResult<Vec<u8>> {
        let paths = self.parts.catalog.paths_of(node).map_err(|error| error::of_catalog(&error))?;
        let path = paths.first().ok_or_else(|| error::not_found(node))?;
        let target = [UP, path.as_bytes()].concat();
        if target.len() > MAX_TARGET {
            return Err(VfsError::new(ErrorClass::NameTooLong, format!("{path} is too long for a link to it")));
        }
        Ok(target)
    }

    /// The links in byte order, after `after`, until `visit` returns false.
    pub(super) fn list(
        &self,
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Node) -> VfsResult<bool>,
    ) -> VfsResult<()> {
        let links = match after {
            None => {
                let links = Arc::new(self.links()?);
                *lock(&self.listing) = Arc::clone(&links);
                links
            }
            Some(_) => Arc::clone(&lock(&self.listing)),
        };
        let start = after.map_or(0, |after| links.partition_point(|(name, _)| name.as_slice() <= after));
        for (name, node) in &links[start..] {
            if !visit(name, *node)? {
                break;
            }
        }
        Ok(())
    }

    fn links(&self) -> VfsResult<Vec<Link>> {
        self.find().map_err(|error| error::of_catalog(&error))
    }

    fn find(&self) -> CatalogResult<Vec<Link>> {
        let catalog = &self.parts.catalog;
        let mut links = Vec::new();
        for name in self.parts.health.damaged() {
            let Some(object) = catalog.object(&name)? else { continue };
            for node in catalog.nodes_in(&object)? {
                if let Some(path) = catalog.paths_of(node)?.first() {
                    links.push((link_name(path.as_bytes()), node));
                }
            }
            if links.len() >= LISTED {
                tracing::warn!("more than {LISTED} files are damaged; `blockframe health` names them all");
                break;
            }
        }
        links.sort();
        Ok(links)
    }
}
