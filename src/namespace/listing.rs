//! Lists directories: the database's names with the overlay's over them.

use super::state::State;
use super::{Key, Namespace, NamespaceResult};
use crate::catalog::Inode;
use blockframe_api::Node;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// Names that are taken from the database or the overlay at once.
const PAGE: usize = 512;

/// Some names in byte order, and whether they are the last.
struct Page {
    names: Vec<(Vec<u8>, Arc<Inode>)>,
    last: bool,
    /// Where the next page begins.
    next: Vec<u8>,
}

impl Namespace {
    /// Lists a directory in byte order of the names, after the name `after`,
    /// until `visit` returns false. No lock is held while `visit` runs. A name
    /// that stands there all the time is listed once, whatever else changes.
    pub fn list(
        &self,
        directory: Node,
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &Arc<Inode>) -> bool,
    ) -> NamespaceResult<()> {
        let mut after = after.unwrap_or_default().to_vec();
        loop {
            let page = self.page(directory, &after)?;
            for (name, inode) in &page.names {
                if !visit(name, inode) {
                    return Ok(());
                }
            }
            if page.last {
                return Ok(());
            }
            after = page.next;
        }
    }

    fn page(&self, directory: Node, after: &[u8]) -> NamespaceResult<Page> {
        loop {
            let epoch = self.shared.lock().epoch;
            let mut stored = Vec::new();
            self.shared.catalog.list(directory, Some(after), &mut |name, inode| {
                stored.push((name.to_vec(), inode));
                stored.len() < PAGE
            })?;
            let mut state = self.shared.lock();
            if state.epoch != epoch {
                // Names may have gone from the overlay to the database in between.
                continue;
            }
            match merge(&mut state, directory, after, stored) {
                Ok(page) => return Ok(page),
                Err(missing) => {
                    drop(state);
                    for node in missing {
                        self.fetch(&Key::Node(node))?;
                    }
                }
            }
        }
    }
}

/// One page of both; nodes that must be fetched first where some are missing.
fn merge(state: &mut State, directory: Node, after: &[u8], stored: Vec<(Vec<u8>, Inode)>) -> Result<Page, Vec<Node>> {
    // Beyond the last name of a full page the database is not known yet.
    let mut bound = (stored.len() == PAGE).then(|| stored.last().map(|(name, _)| name.clone())).flatten();
    let own = state.names.range((Bound::Excluded((directory, after.to_vec())), Bound::Unbounded));
    let mut changed = Vec::new();
    for ((of, name), row) in own {
        if *of != directory || bound.as_ref().is_some_and(|bound| name > bound) {
            break;
        }
        changed.push((name.clone(), row.value));
        if changed.len() == PAGE {
            bound = Some(name.clone());
            break;
        }
    }
    let within = |name: &[u8]| bound.as_ref().is_none_or(|bound| name <= bound.as_slice());
    let mut names: BTreeMap<Vec<u8>, Arc<Inode>> = BTreeMap::new();
    for (name, inode) in stored {
        if within(&name) {
            let newest = match state.nodes.get(&inode.node) {
                Some(row) => row.value.clone(),
                None => Some(Arc::new(inode)),
            };
            if let Some(inode) = newest {
                names.insert(name, inode);
            }
        }
    }
    let mut missing = Vec::new();
    for (name, node) in changed {
        match node.map(|node| (node, state.node(node))) {
            None => {
                names.remove(&name);
            }
            Some((_, Some(Some(inode)))) => {
                names.insert(name, inode);
            }
            Some((_, Some(None))) => {
                names.remove(&name);
            }
            Some((node, None)) => missing.push(node),
        }
    }
    if !missing.is_empty() {
        return Err(missing);
    }
    let last = bound.is_none();
    Ok(Page { names: names.into_iter().collect(), last, next: bound.unwrap_or_default() })
}
