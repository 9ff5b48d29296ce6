//! What the operating system's page cache holds of each node.
//!
//! Pages belong to a node, and a node's content can be replaced by a commit
//! while somebody reads the old one. Two contents must never meet in the page
//! cache: pages of the old one would be served as the new one. So while a
//! handle that fills the cache with one content is open, a handle on another
//! content of the same node bypasses the cache.

use super::lock;
use crate::base::ContentHash;
use blockframe_api::{CachePolicy, Node};
use lru::LruCache;
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Mutex;

/// Closed nodes whose cached content is remembered.
const CLOSED: NonZeroUsize = NonZeroUsize::new(64 * 1024).unwrap();

#[derive(Debug)]
pub(super) struct CachedPages {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Content and number of the open handles that fill the cache.
    open: HashMap<Node, (ContentHash, u64)>,
    closed: LruCache<Node, ContentHash>,
}

impl CachedPages {
    pub(super) fn new() -> Self {
        Self { state: Mutex::new(State { open: HashMap::new(), closed: LruCache::new(CLOSED) }) }
    }

    /// A handle on this content of the node is being opened.
    pub(super) fn opened(&self, node: Node, content: ContentHash) -> CachePolicy {
        let mut state = lock(&self.state);
        if let Some((cached, handles)) = state.open.get_mut(&node) {
            if *cached != content {
                return CachePolicy::Bypass;
            }
            *handles += 1;
            return CachePolicy::Keep;
        }
        state.open.insert(node, (content, 1));
        if state.closed.pop(&node) == Some(content) { CachePolicy::Keep } else { CachePolicy::Refresh }
    }

    /// A handle that got `policy` was closed.
    pub(super) fn closed(&self, node: Node, policy: CachePolicy) {
        if policy == CachePolicy::Bypass {
            return;
        }
        let mut state = lock(&self.state);
        let Some((content, handles)) = state.open.get_mut(&node) else { return };
        *handles -= 1;
        if *handles == 0 {
            let content = *content;
            state.open.remove(&node);
            state.closed.put(node, content);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Digest;

    const NODE: Node = Node::ROOT;

    #[test]
    fn an_unchanged_content_keeps_its_pages_and_a_new_one_drops_them() {
        let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
        let pages = CachedPages::new();
        let first = pages.opened(NODE, old);
        assert_eq!(first, CachePolicy::Refresh);
        assert_eq!(pages.opened(NODE, old), CachePolicy::Keep);
        pages.closed(NODE, first);
        pages.closed(NODE, CachePolicy::Keep);
        assert_eq!(pages.opened(NODE, old), CachePolicy::Keep);
        pages.closed(NODE, CachePolicy::Keep);
        assert_eq!(pages.opened(NODE, new), CachePolicy::Refresh);
    }

    #[test]
    fn two_contents_never_meet_in_the_page_cache() {
        let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
        let pages = CachedPages::new();
        let reader = pages.opened(NODE, old);
        let bypassing = pages.opened(NODE, new);
        assert_eq!(bypassing, CachePolicy::Bypass);
        pages.closed(NODE, bypassing);
        assert_eq!(pages.opened(NODE, new), CachePolicy::Bypass);
        pages.closed(NODE, reader);
        assert_eq!(pages.opened(NODE, new), CachePolicy::Refresh);
    }
}
