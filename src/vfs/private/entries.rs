//! What stands where in the hidden directory.

use super::numbers::{Place, ViewId};
use super::{NAME, README_TEXT, WithPrivate};
use crate::base::Timestamp;
use crate::vfs::{ArchiveVfs, error};
use blockframe_api::{Attributes, DirectoryEntry, Node, NodeKind, Vfs, VfsResult};
use std::sync::Arc;

/// The hidden directory's entries, in byte order.
const ENTRIES: [(&str, Place); 3] =
    [("README.txt", Place::Readme), ("damaged", Place::Damaged), ("snapshots", Place::Snapshots)];

/// Takes an entry of a listing; false: no more of them.
type Visit<'v> = dyn FnMut(DirectoryEntry<'_>) -> bool + 'v;

impl<V: Vfs> WithPrivate<V> {
    /// The view that `node` lies in.
    pub(super) fn view(&self, node: Node, id: ViewId) -> VfsResult<Arc<ArchiveVfs>> {
        self.views.get(id).ok_or_else(|| error::not_found(node))
    }

    /// Looks at the newest state of the catalog; at what there is when nothing
    /// can be written.
    fn try_to_settle(&self) {
        if let Err(error) = (self.settle)() {
            tracing::warn!(%error, "{NAME} may show less than there is");
        }
    }

    pub(super) fn private_lookup(&self, parent: Place, name: &[u8]) -> VfsResult<Attributes> {
        match parent {
            Place::Directory => {
                let found = ENTRIES.iter().find(|(entry, _)| entry.as_bytes() == name);
                self.private_attributes(found.ok_or_else(error::no_name)?.1)
            }
            Place::Snapshots => {
                let known = self.views.known(name).is_some();
                let (id, vfs) = self.views.open(name)?;
                let recent = self.views.is_recent(&vfs);
                // What was changed up to that time must be in the catalog.
                let settled = if known && !recent { Ok(()) } else { (self.settle)() };
                if recent {
                    settled?;
                }
                shown_in(id, vfs.attributes(Node::ROOT)?)
            }
            Place::Damaged => {
                self.try_to_settle();
                self.private_attributes(Place::Link(self.damaged.lookup(name)?))
            }
            Place::View(id, within) => shown_in(id, self.view(parent.node()?, id)?.lookup(within, name)?),
            Place::Readme | Place::Link(_) => Err(error::not_directory(parent.node()?)),
        }
    }

    pub(super) fn private_attributes(&self, place: Place) -> VfsResult<Attributes> {
        let (kind, permissions, size) = match place {
            Place::View(id, within) => return shown_in(id, self.view(place.node()?, id)?.attributes(within)?),
            Place::Directory | Place::Snapshots => (NodeKind::Directory, 0o555, 0),
            // Its names tell of directories that not everybody may look into.
            Place::Damaged => (NodeKind::Directory, 0o550, 0),
            Place::Readme => (NodeKind::File, 0o444, README_TEXT.len() as u64),
            Place::Link(file) => (NodeKind::Symlink, 0o555, self.damaged.target(file)?.len() as u64),
        };
        let root = self.inner.attributes(Node::ROOT)?;
        let born = Timestamp { seconds: self.parts.archive.descriptor().created, nanoseconds: 0 };
        Ok(Attributes {
            node: place.node()?,
            kind,
            size,
            allocated: size,
            permissions,
            // As of directories whose subdirectories are not counted.
            links: 1,
            user: root.user,
            group: root.group,
            device: 0,
            accessed: born,
            modified: born,
            changed: born,
            born,
            block_size: root.block_size,
        })
    }

    pub(super) fn private_parent(&self, place: Place) -> VfsResult<Node> {
        match place {
            Place::Directory => Ok(Node::ROOT),
            Place::Snapshots | Place::Damaged => Place::Directory.node(),
            Place::View(_, Node::ROOT) => Place::Snapshots.node(),
            Place::View(id, within) => Place::View(id, self.view(place.node()?, id)?.parent(within)?).node(),
            Place::Readme | Place::Link(_) => Err(error::not_directory(place.node()?)),
        }
    }

    pub(super) fn private_list(&self, place: Place, after: Option<&[u8]>, visit: &mut Visit<'_>) -> VfsResult<()> {
        let is_listed = |name: &[u8]| after.is_none_or(|after| name > after);
        match place {
            Place::Directory => {
                for (name, place) in ENTRIES.iter().filter(|(name, _)| is_listed(name.as_bytes())) {
                    let attributes = self.private_attributes(*place)?;
                    if !visit(DirectoryEntry { name: name.as_bytes(), attributes }) {
                        break;
                    }
                }
                Ok(())
            }
            Place::Snapshots => {
                self.try_to_settle();
                for name in self.views.listed()?.iter().filter(|name| is_listed(name.as_bytes())) {
                    let (id, vfs) = self.views.open(name.as_bytes())?;
                    let attributes = shown_in(id, vfs.attributes(Node::ROOT)?)?;
                    if !visit(DirectoryEntry { name: name.as_bytes(), attributes }) {
                        break;
                    }
                }
                Ok(())
            }
            Place::Damaged => {
                if after.is_none() {
                    self.try_to_settle();
                }
                self.damaged.list(after, &mut |name, file| match self.private_attributes(Place::Link(file)) {
                    Ok(attributes) => Ok(visit(DirectoryEntry { name, attributes })),
                    // It was removed meanwhile, or its path is too long.
                    Err(error) => {
                        tracing::debug!(%error, "a damaged file has no link in {NAME}");
                        Ok(true)
                    }
                })
            }
            Place::View(id, within) => self.list_view(self.view(place.node()?, id)?, id, within, after, visit),
            Place::Readme | Place::Link(_) => Err(error::not_directory(place.node()?)),
        }
    }

    fn list_view(
        &self,
        vfs: Arc<ArchiveVfs>,
        id: ViewId,
        directory: Node,
        after: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> VfsResult<()> {
        let mut outcome = Ok(());
        vfs.read_directory(directory, after, &mut |entry| match shown_in(id, entry.attributes) {
            Ok(attributes) => visit(DirectoryEntry { attributes, ..entry }),
            Err(error) => {
                outcome = Err(error);
                false
            }
        })?;
        outcome
    }
}

/// A node's attributes as a view shows them: as they were, so that a copy gets
/// them too. Every change is refused whatever they say.
fn shown_in(id: ViewId, attributes: Attributes) -> VfsResult<Attributes> {
    let node = Place::View(id, attributes.node).node()?;
    Ok(Attributes { node, ..attributes })
}
