//! Names known not to exist. Programs ask for the same missing names over and
//! over (libraries, `.hidden`, `desktop.ini`); this saves the database.

use super::lock;
use blockframe_api::Node;
use lru::LruCache;
use std::num::NonZeroUsize;
use std::sync::Mutex;

/// Most names that are remembered.
const NAMES: NonZeroUsize = NonZeroUsize::new(16 * 1024).unwrap();

/// The negative cache.
#[derive(Debug)]
pub(super) struct MissingNames {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    names: LruCache<(Node, Box<[u8]>), ()>,
    /// Counts the clearings.
    epoch: u64,
}

/// Since when what a lookup finds is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Epoch(u64);

impl MissingNames {
    /// An empty cache.
    pub(super) fn new() -> Self {
        Self { state: Mutex::new(State { names: LruCache::new(NAMES), epoch: 0 }) }
    }

    /// Whether the name is known not to exist. Otherwise the epoch to hand to
    /// [`Self::remember`] when the database does not have it either.
    pub(super) fn check(&self, parent: Node, name: &[u8]) -> Result<Epoch, Missing> {
        let mut state = lock(&self.state);
        match state.names.get(&(parent, name.into())) {
            Some(()) => Err(Missing),
            None => Ok(Epoch(state.epoch)),
        }
    }

    /// Remembers that the name does not exist, unless names have changed since `epoch`.
    pub(super) fn remember(&self, epoch: Epoch, parent: Node, name: &[u8]) {
        let mut state = lock(&self.state);
        if state.epoch == epoch.0 {
            state.names.put((parent, name.into()), ());
        }
    }

    /// Forgets everything: the namespace has changed.
    pub(super) fn clear(&self) {
        let mut state = lock(&self.state);
        state.names.clear();
        state.epoch += 1;
    }
}

/// The name does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Missing;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_name_is_known_until_the_namespace_changes() {
        let names = MissingNames::new();
        let epoch = names.check(Node::ROOT, b"a").unwrap();
        names.remember(epoch, Node::ROOT, b"a");
        assert_eq!(names.check(Node::ROOT, b"a"), Err(Missing));
        assert!(names.check(Node::new(2), b"a").is_ok());
        names.clear();
        assert!(names.check(Node::ROOT, b"a").is_ok());
    }

    #[test]
    fn an_answer_from_before_a_change_is_not_remembered() {
        let names = MissingNames::new();
        let epoch = names.check(Node::ROOT, b"a").unwrap();
        names.clear();
        names.remember(epoch, Node::ROOT, b"a");
        assert!(names.check(Node::ROOT, b"a").is_ok());
    }

    #[test]
    fn memory_is_bounded() {
        let names = MissingNames::new();
        for index in 0..NAMES.get() as u64 + 100 {
            let name = index.to_le_bytes();
            let epoch = names.check(Node::ROOT, &name).unwrap();
            names.remember(epoch, Node::ROOT, &name);
        }
        assert_eq!(lock(&names.state).names.len(), NAMES.get());
    }
}
