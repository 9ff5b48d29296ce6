//! Numbers of what lies in the hidden directory: inode numbers with the top
//! bit, which the catalog never gives out.

use super::super::error::not_found;
use blockframe_api::{ErrorClass, Node, VfsError, VfsResult};

/// Set in inode numbers and handles of the hidden directory.
pub(super) const PRIVATE: u64 = 1 << 63;
/// Bits of an inode number of the archive that a view can show.
const NODE_BITS: u32 = 42;
/// Bits of a view's number, above them.
const VIEW_BITS: u32 = 20;
/// Among the nodes of view 0: a link to a damaged file.
const LINK: u64 = 1 << (NODE_BITS - 1);
const DIRECTORY: u64 = 1;
const SNAPSHOTS: u64 = 2;
const DAMAGED: u64 = 3;
const README: u64 = 4;

/// Number of a view, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ViewId(u64);

impl ViewId {
    pub(super) const FIRST: ViewId = ViewId(1);

    /// The next number; after the last one, the first again.
    pub(super) fn next(self) -> Self {
        if self.0 + 1 < 1 << VIEW_BITS { Self(self.0 + 1) } else { Self::FIRST }
    }
}

/// What a node of the hidden directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The hidden directory itself.
    Directory,
    /// The directory of views.
    Snapshots,
    /// The directory of links to damaged files.
    Damaged,
    /// The explanation.
    Readme,
    /// The link to this file.
    Link(Node),
    /// A node as a view shows it.
    View(ViewId, Node),
}

/// Whether a node lies in the hidden directory.
pub(super) fn is_private(node: Node) -> bool {
    node.number() & PRIVATE != 0
}

impl Place {
    /// What a node is that lies in the hidden directory.
    pub(super) fn of(node: Node) -> VfsResult<Self> {
        let number = node.number() & !PRIVATE;
        let (view, low) = (number >> NODE_BITS, number & ((1 << NODE_BITS) - 1));
        match (view, low) {
            (0, DIRECTORY) => Ok(Place::Directory),
            (0, SNAPSHOTS) => Ok(Place::Snapshots),
            (0, DAMAGED) => Ok(Place::Damaged),
            (0, README) => Ok(Place::Readme),
            (0, low) if low > LINK => Ok(Place::Link(Node::new(low & !LINK))),
            (1.., low) if view < 1 << VIEW_BITS && low > 0 => Ok(Place::View(ViewId(view), Node::new(low))),
            _ => Err(not_found(node)),
        }
    }

    /// Its inode number. Error: the archive has more nodes than can be shown here.
    pub(super) fn node(self) -> VfsResult<Node> {
        let fits = |node: Node, limit: u64| {
            if node.number() < limit {
                return Ok(node.number());
            }
            let why = format!("inode {} is too large a number for {}", node.number(), super::NAME);
            Err(VfsError::new(ErrorClass::NotSupported, why))
        };
        let low = match self {
            Place::Directory => DIRECTORY,
            Place::Snapshots => SNAPSHOTS,
            Place::Damaged => DAMAGED,
            Place::Readme => README,
            Place::Link(node) => LINK | fits(node, LINK)?,
            Place::View(view, node) => view.0 << NODE_BITS | fits(node, 1 << NODE_BITS)?,
        };
        Ok(Node::new(PRIVATE | low))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_has_a_number_of_its_own() {
        let mut last = ViewId::FIRST;
        while last.next() != ViewId::FIRST {
            last = last.next();
        }
        let mut places = vec![Place::Directory, Place::Snapshots, Place::Damaged, Place::Readme];
        for number in [1, 2, 3, 4, (1 << 41) - 1] {
            places.push(Place::Link(Node::new(number)));
            for view in [ViewId::FIRST, ViewId::FIRST.next(), last] {
                places.push(Place::View(view, Node::new(number)));
            }
        }
        places.push(Place::View(last, Node::new((1 << 42) - 1)));
        let mut numbers = std::collections::HashSet::new();
        for place in places {
            let node = place.node().unwrap();
            assert!(is_private(node) && numbers.insert(node));
            assert_eq!(Place::of(node).unwrap(), place);
        }
    }

    #[test]
    fn numbers_that_nothing_has_lead_nowhere() {
        for number in [PRIVATE, PRIVATE | 5, PRIVATE | LINK, PRIVATE | 1 << 62 | 1, u64::MAX, PRIVATE | 1 << 42] {
            assert_eq!(Place::of(Node::new(number)).unwrap_err().class(), ErrorClass::NotFound, "{number:x}");
        }
        assert!(Place::Link(Node::new(1 << 41)).node().is_err());
        assert!(Place::View(ViewId::FIRST, Node::new(1 << 42)).node().is_err());
    }
}
