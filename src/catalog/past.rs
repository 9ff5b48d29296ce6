//! Questions about the namespace as it was at some time, as far as history is
//! kept.
//!
//! States that were not kept leave gaps: a node that has a name at a time but
//! no state is shown in the next state that it had.

use super::database::Database;
use super::history::{Period, instant, timestamp};
use super::queries::{NamedInode, ROOT};
use super::{
    Catalog, CatalogError, CatalogResult, HistoryRemoved, HistoryUsage, Inode, LIST_PAGE, NodeState, ObjectRecord,
    PlaceState, number,
};
use crate::base::Timestamp;
use crate::format::{EntryPath, NodeBody, NodeMeta};
use blockframe_api::Node;
use rusqlite::OptionalExtension;
use std::collections::BTreeMap;

/// The least distance of two times that [`Catalog::change_times`] tells, nanoseconds: an hour.
const CHANGE_STEP: i64 = 3600 * 1_000_000_000;

impl Catalog {
    /// The entry `name` of directory `parent`, as of a time.
    pub fn lookup_at(&self, parent: Node, name: &[u8], at: Timestamp) -> CatalogResult<Option<Inode>> {
        let at = instant(at);
        self.read(|database| match database.child_at(number(parent), name, at)? {
            Some(ino) => database.node_at(ino, at),
            None => Ok(None),
        })
    }

    /// A node as of a time; `None` when it was not there. Its links are the
    /// names that it had; directories have 1: their subdirectories are not counted.
    pub fn inode_at(&self, node: Node, at: Timestamp) -> CatalogResult<Option<Inode>> {
        self.read(|database| database.node_at(number(node), instant(at)))
    }

    /// [`list`](Self::list) as of a time.
    pub fn list_at(
        &self,
        directory: Node,
        after: Option<&[u8]>,
        at: Timestamp,
        visit: &mut dyn FnMut(&[u8], Inode) -> bool,
    ) -> CatalogResult<()> {
        let at = instant(at);
        let mut after = after.unwrap_or_default().to_vec();
        loop {
            let (page, last) = self.read(|database| database.page_at(number(directory), &after, at))?;
            for (name, inode) in page {
                if !visit(&name, inode) {
                    return Ok(());
                }
            }
            match last {
                Some(last) => after = last,
                None => return Ok(()),
            }
        }
    }

    /// The parent that a directory had; the root is its own.
    pub fn parent_at(&self, directory: Node, at: Timestamp) -> CatalogResult<Option<Node>> {
        if directory == Node::ROOT {
            return Ok(Some(directory));
        }
        let names = self.read(|database| database.names_at(number(directory), instant(at)))?;
        Ok(names.first().map(|(parent, _)| Node::new(*parent as u64)))
    }

    /// The node that was at a path.
    pub fn resolve_at(&self, path: &EntryPath, at: Timestamp) -> CatalogResult<Option<Inode>> {
        let at = instant(at);
        self.read(|database| {
            let mut ino = ROOT;
            for name in path.names() {
                match database.child_at(ino, name, at)? {
                    Some(child) => ino = child,
                    None => return Ok(None),
                }
            }
            database.node_at(ino, at)
        })
    }

    /// The states of a node that are kept, oldest first, and the one it has.
    pub fn states_of(&self, node: Node) -> CatalogResult<Vec<NodeState>> {
        self.read(|database| {
            let ino = number(node);
            let mut states = Vec::new();
            for ((since, until), meta, body) in database.states(ino, i64::MIN, i64::MAX)? {
                states.push(NodeState { since: timestamp(since), until: Some(timestamp(until)), meta, body });
            }
            states.sort_by_key(|state| (state.since, state.until));
            if let Some(live) = database.live_node(ino)? {
                let Inode { meta, body, .. } = live.inode;
                states.push(NodeState { since: timestamp(live.since), until: None, meta, body });
            }
            Ok(states)
        })
    }

    /// What a name led to, oldest first, and what it leads to.
    pub fn names_at_place(&self, parent: Node, name: &[u8]) -> CatalogResult<Vec<PlaceState>> {
        self.read(|database| {
            let parent = number(parent);
            let mut states = Vec::new();
            for (ino, (since, until)) in database.past_children(parent, name, i64::MIN)? {
                let (since, until) = (timestamp(since), Some(timestamp(until)));
                states.push(PlaceState { node: Node::new(ino as u64), since, until });
            }
            states.sort_by_key(|state| (state.since, state.until));
            if let Some((ino, since)) = database.child_since(parent, name)? {
                states.push(PlaceState { node: Node::new(ino as u64), since: timestamp(since), until: None });
            }
            Ok(states)
        })
    }

    /// The names of a directory that stand there no more, in byte order and
    /// each once, as long as history has them.
    pub fn past_names(&self, directory: Node) -> CatalogResult<Vec<Vec<u8>>> {
        self.read(|database| {
            database.run(|connection| {
                connection
                    .prepare_cached(
                        "SELECT DISTINCT name FROM past_dirent p WHERE parent = ?1 AND NOT EXISTS
                         (SELECT 1 FROM dirent d WHERE d.parent = p.parent AND d.name = p.name) ORDER BY name",
                    )?
                    .query_map([number(directory)], |row| row.get(0))?
                    .collect()
            })
        })
    }

    /// At most `limit` times, newest first and an hour apart at least, at each
    /// of which something in the namespace ended and the next thing began.
    /// Times at which things were only added are not known.
    pub fn change_times(&self, limit: usize) -> CatalogResult<Vec<Timestamp>> {
        self.read(|database| {
            let mut times = Vec::new();
            let mut bound = i64::MAX;
            while times.len() < limit {
                let Some(time) = database.newest_end(bound)? else { break };
                times.push(timestamp(time));
                bound = time.saturating_sub(CHANGE_STEP);
            }
            Ok(times)
        })
    }

    /// What the history that is kept costs.
    pub fn history_usage(&self) -> CatalogResult<HistoryUsage> {
        self.read(|database| {
            let oldest = database.oldest_past()?.map(timestamp);
            Ok(HistoryUsage { bytes: database.past_bytes()?, oldest })
        })
    }

    /// From when on all that was is known; `None` while nothing was forgotten.
    pub fn history_begin(&self) -> CatalogResult<Option<Timestamp>> {
        Ok(self.read(Database::history_begin)?.map(timestamp))
    }

    /// Refuses a time of which not all is known any more.
    ///
    /// Error: `HistoryForgotten`.
    pub fn check_remembered(&self, at: Timestamp) -> CatalogResult<()> {
        match self.history_begin()? {
            Some(begin) if at < begin => Err(CatalogError::HistoryForgotten { at, begin }),
            _ => Ok(()),
        }
    }

    /// Up to when history must be forgotten, so that the contents which it
    /// alone needs have at most `most` bytes; `None` when they have.
    pub fn history_cut(&self, most: u64) -> CatalogResult<Option<Timestamp>> {
        Ok(self.read(|database| database.history_cut(most))?.map(timestamp))
    }

    /// How much of history ended at or before a time.
    pub fn history_until(&self, before: Timestamp) -> CatalogResult<HistoryRemoved> {
        self.read(|database| database.past_until(instant(before)))
    }

    /// Objects that no name needs, nor the history that is left once
    /// everything up to `before` is forgotten.
    pub fn unreferenced_after(&self, before: Timestamp) -> CatalogResult<Vec<ObjectRecord>> {
        self.read(|database| database.unreferenced_objects(instant(before)))
    }
}

/// Names and nodes of a directory, and where to go on.
type Children = (Vec<(Vec<u8>, i64)>, Option<Vec<u8>>);
/// When, and what.
type State = (Period, NodeMeta, NodeBody);
/// Directory, name, inode number, period.
type PastName = (i64, Vec<u8>, i64, Period);

impl Database {
    /// Past states of a node that ended after `after` and began at or before
    /// `before`, in the order of their ends.
    fn states(&self, ino: i64, after: i64, before: i64) -> CatalogResult<Vec<State>> {
        let rows: Vec<(i64, i64, Vec<u8>)> = self.run(|connection| {
            connection
                .prepare_cached(
                    "SELECT since, until, body FROM past_inode WHERE ino = ?1 AND until > ?2 AND since <= ?3
                     ORDER BY until, since",
                )?
                .query_map((ino, after, before), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect()
        })?;
        let parse = |(since, until, body): (i64, i64, Vec<u8>)| {
            let (meta, body) = self.parse_node(ino, &[since, until], &body)?;
            Ok(((since, until), meta, body))
        };
        rows.into_iter().map(parse).collect()
    }

    /// A node as of a time.
    fn node_at(&self, ino: i64, at: i64) -> CatalogResult<Option<Inode>> {
        let live = self.live_node(ino)?;
        if let Some(live) = &live
            && live.since <= at
        {
            return self.with_links(live.inode.clone(), at).map(Some);
        }
        let mut state = self.states(ino, at, at)?.pop();
        if state.is_none() {
            // No state is kept of that time. If the node was there, its next state is the best there is.
            if ino != ROOT && self.names_at(ino, at)?.is_empty() {
                return Ok(None);
            }
            state = self.states(ino, at, i64::MAX)?.into_iter().next();
        }
        match (state, live) {
            (Some((_, meta, body)), _) => {
                self.with_links(Inode { node: Node::new(ino as u64), links: 1, meta, body }, at).map(Some)
            }
            (None, Some(live)) => self.with_links(live.inode, at).map(Some),
            (None, None) => Ok(None),
        }
    }

    fn with_links(&self, inode: Inode, at: i64) -> CatalogResult<Inode> {
        let links = if inode.is_directory() { 1 } else { self.names_at(inode.node.number() as i64, at)?.len() };
        Ok(Inode { links: u32::try_from(links).unwrap_or(u32::MAX), ..inode })
    }

    /// What a name led to in periods that ended after `after`, in the order of their ends.
    fn past_children(&self, parent: i64, name: &[u8], after: i64) -> CatalogResult<Vec<(i64, Period)>> {
        let rows: Vec<(i64, i64, i64, i64)> = self.run(|connection| {
            connection
                .prepare_cached(
                    "SELECT ino, since, until, crc FROM past_dirent WHERE parent = ?1 AND name = ?2 AND until > ?3
                     ORDER BY until, since",
                )?
                .query_map((parent, name, after), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
                .collect()
        })?;
        let check = |(ino, since, until, crc)| {
            self.check_dirent(parent, name, ino, &[since, until], crc)?;
            Ok((ino, (since, until)))
        };
        rows.into_iter().map(check).collect()
    }

    /// The inode number behind a name, as of a time.
    fn child_at(&self, parent: i64, name: &[u8], at: i64) -> CatalogResult<Option<i64>> {
        if let Some((ino, since)) = self.child_since(parent, name)?
            && since <= at
        {
            return Ok(Some(ino));
        }
        let past = self.past_children(parent, name, at)?;
        Ok(past.into_iter().rfind(|(_, (since, _))| *since <= at).map(|(ino, _)| ino))
    }

    /// The names that a node had.
    fn names_at(&self, ino: i64, at: i64) -> CatalogResult<Vec<(i64, Vec<u8>)>> {
        let mut names: Vec<(i64, Vec<u8>)> = Vec::new();
        for (parent, name, since) in self.names_since(ino)? {
            if since <= at {
                names.push((parent, name));
            }
        }
        let rows: Vec<(PastName, i64)> = self.run(|connection| {
            connection
                .prepare_cached(
                    "SELECT parent, name, since, until, crc FROM past_dirent
                     WHERE ino = ?1 AND since <= ?2 AND until > ?2",
                )?
                .query_map((ino, at), |row| {
                    Ok(((row.get(0)?, row.get(1)?, ino, (row.get(2)?, row.get(3)?)), row.get(4)?))
                })?
                .collect()
        })?;
        for ((parent, name, ino, (since, until)), crc) in rows {
            self.check_dirent(parent, &name, ino, &[since, until], crc)?;
            names.push((parent, name));
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// Some names that a directory had, after `after`, and where to go on.
    fn page_at(&self, parent: i64, after: &[u8], at: i64) -> CatalogResult<(Vec<NamedInode>, Option<Vec<u8>>)> {
        let (live, live_end) = self.children_page(
            "SELECT name, ino, since, NULL, crc FROM dirent
             WHERE parent = ?1 AND name > ?2 AND since <= ?3 ORDER BY name LIMIT ?4",
            (parent, after, at),
        )?;
        let (past, past_end) = self.children_page(
            "SELECT name, ino, since, until, crc FROM past_dirent
             WHERE parent = ?1 AND name > ?2 AND since <= ?3 AND until > ?3 ORDER BY name, until, since LIMIT ?4",
            (parent, after, at),
        )?;
        // What stands behind the end of the shorter page comes with the next one.
        let end = match (live_end, past_end) {
            (Some(live), Some(past)) => Some(live.min(past)),
            (live, past) => live.or(past),
        };
        // The live name wins, then the one that stood longest.
        let mut names: BTreeMap<Vec<u8>, i64> = past.into_iter().collect();
        names.extend(live);
        let mut page = Vec::new();
        for (name, ino) in names {
            if end.as_ref().is_some_and(|end| name > *end) {
                break;
            }
            if let Some(inode) = self.node_at(ino, at)? {
                page.push((name, inode));
            }
        }
        Ok((page, end))
    }

    /// Names and nodes of a directory, and the last name if there may be more.
    fn children_page(&self, sql: &'static str, (parent, after, at): (i64, &[u8], i64)) -> CatalogResult<Children> {
        type Row = (Vec<u8>, i64, i64, Option<i64>, i64);
        let rows: Vec<Row> = self.run(|connection| {
            connection
                .prepare_cached(sql)?
                .query_map((parent, after, at, LIST_PAGE as i64), |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
                })?
                .collect()
        })?;
        let end = if rows.len() == LIST_PAGE { rows.last().map(|row| row.0.clone()) } else { None };
        let mut names = Vec::with_capacity(rows.len());
        for (name, ino, since, until, crc) in rows {
            match until {
                Some(until) => self.check_dirent(parent, &name, ino, &[since, until], crc)?,
                None => self.check_dirent(parent, &name, ino, &[since], crc)?,
            }
            names.push((name, ino));
        }
        Ok((names, end))
    }

    /// The last moment up to `bound` at which something ended.
    fn newest_end(&self, bound: i64) -> CatalogResult<Option<i64>> {
        self.run(|connection| {
            let mut ends = Vec::new();
            for table in ["past_inode", "past_dirent"] {
                let sql = format!("SELECT until FROM {table} WHERE until <= ?1 ORDER BY until DESC LIMIT 1");
                let end: Option<i64> =
                    connection.prepare_cached(&sql)?.query_row([bound], |row| row.get(0)).optional()?;
                ends.extend(end);
            }
            Ok(ends.into_iter().max())
        })
    }
}
