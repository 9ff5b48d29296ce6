//! Questions to the database. Each one reads one consistent state.

use super::database::{Database, checked, content_crc, join_hash, split_hash};
use super::{CatalogResult, ContentPlace, Inode, NamespaceTotals, ObjectRecord};
use crate::archive::ObjectRef;
use crate::base::{ContentHash, ObjectName};
use crate::format::journal::{ObjectFacts, Record};
use crate::format::{EntryPath, NodeBody, NodeMeta};
use blockframe_api::Node;
use rusqlite::{OptionalExtension, Row};

/// The inode number of the root directory.
pub(super) const ROOT: i64 = 1;

/// One name of a directory.
pub(super) type NamedInode = (Vec<u8>, Inode);

/// A content of an object: hash, offset, size, signature of a source file.
pub(super) type Member = (ContentHash, u64, u64, Option<u64>);

/// Directory, name, inode number, since when.
pub(super) type DirentRow = (i64, Vec<u8>, i64, i64);

/// Inode number, since when, the node.
pub(super) type NodeRow = (i64, i64, (NodeMeta, NodeBody));

/// All of a node's row.
#[derive(Debug)]
pub(super) struct LiveNode {
    pub(super) inode: Inode,
    /// The row of its content.
    pub(super) content: Option<i64>,
    /// Since when it is so, nanoseconds since 1970.
    pub(super) since: i64,
    /// The node as it stands in the row, with its CRC32C.
    pub(super) bytes: Vec<u8>,
}

/// A content's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ContentRow {
    pub(super) id: i64,
    pub(super) object: i64,
    pub(super) offset: i64,
    pub(super) size: i64,
    pub(super) hash: ContentHash,
}

impl Database {
    /// The inode number behind a name.
    pub(super) fn child(&self, parent: i64, name: &[u8]) -> CatalogResult<Option<i64>> {
        Ok(self.child_since(parent, name)?.map(|(ino, _)| ino))
    }

    /// The inode number behind a name, and since when.
    pub(super) fn child_since(&self, parent: i64, name: &[u8]) -> CatalogResult<Option<(i64, i64)>> {
        let row: Option<(i64, i64, i64)> = self.run(|connection| {
            connection
                .prepare_cached("SELECT ino, since, crc FROM dirent WHERE parent = ?1 AND name = ?2")?
                .query_row((parent, name), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                .optional()
        })?;
        let Some((ino, since, crc)) = row else { return Ok(None) };
        self.check_dirent(parent, name, ino, &[since], crc)?;
        Ok(Some((ino, since)))
    }

    /// A node.
    pub(super) fn node(&self, ino: i64) -> CatalogResult<Option<Inode>> {
        Ok(self.live_node(ino)?.map(|live| live.inode))
    }

    /// A node with all of its row.
    pub(super) fn live_node(&self, ino: i64) -> CatalogResult<Option<LiveNode>> {
        let row: Option<(u32, Option<i64>, i64, Vec<u8>)> = self.run(|connection| {
            connection
                .prepare_cached("SELECT links, content, since, body FROM inode WHERE ino = ?1")?
                .query_row([ino], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
                .optional()
        })?;
        let Some((links, content, since, bytes)) = row else { return Ok(None) };
        let inode = self.inode_of(ino, links, since, &bytes)?;
        Ok(Some(LiveNode { inode, content, since, bytes }))
    }

    /// A node that a name leads to: without it, the database is damaged.
    pub(super) fn named_node(&self, ino: i64) -> CatalogResult<Inode> {
        self.node(ino)?.ok_or_else(|| self.damaged(format!("a name leads to inode {ino}, which is missing")))
    }

    fn inode_of(&self, ino: i64, links: u32, since: i64, body: &[u8]) -> CatalogResult<Inode> {
        let (meta, body) = self.parse_node(ino, &[since], body)?;
        Ok(Inode { node: Node::new(ino as u64), links, meta, body })
    }

    /// The inode number at a path.
    pub(super) fn resolve(&self, path: &EntryPath) -> CatalogResult<Option<i64>> {
        let mut at = ROOT;
        for name in path.names() {
            match self.child(at, name)? {
                Some(ino) => at = ino,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    /// At most `limit` names of a directory after `after`, with their nodes.
    pub(super) fn page(&self, parent: i64, after: &[u8], limit: usize) -> CatalogResult<Vec<NamedInode>> {
        // Names are never empty, so the empty name stands before all of them.
        let statement = self.connection.prepare_cached(
            "SELECT d.name, d.ino, d.since, d.crc, i.links, i.since, i.body FROM dirent d LEFT JOIN inode i ON i.ino = d.ino
             WHERE d.parent = ?1 AND d.name > ?2 ORDER BY d.name LIMIT ?3",
        );
        let mut statement = statement.map_err(|error| self.failed(error))?;
        let mut rows = statement.query((parent, after, limit as i64)).map_err(|error| self.failed(error))?;
        let mut page = Vec::new();
        while let Some(row) = rows.next().map_err(|error| self.failed(error))? {
            let named = self.named_inode(parent, row)?;
            page.push(named);
        }
        Ok(page)
    }

    fn named_inode(&self, parent: i64, row: &Row<'_>) -> CatalogResult<NamedInode> {
        let read = || -> rusqlite::Result<(Vec<u8>, i64, i64, i64)> {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        };
        let (name, ino, since, crc) = read().map_err(|error| self.failed(error))?;
        self.check_dirent(parent, &name, ino, &[since], crc)?;
        let node = || -> rusqlite::Result<Option<(u32, i64, &[u8])>> {
            let Some(body) = row.get_ref(6)?.as_blob_or_null()? else { return Ok(None) };
            Ok(Some((row.get(4)?, row.get(5)?, body)))
        };
        match node().map_err(|error| self.failed(error))? {
            Some((links, since, body)) => Ok((name, self.inode_of(ino, links, since, body)?)),
            None => Err(self.damaged(format!("a name leads to inode {ino}, which is missing"))),
        }
    }

    /// All names of a node: directory and name, in no special order.
    pub(super) fn names_of(&self, ino: i64) -> CatalogResult<Vec<(i64, Vec<u8>)>> {
        Ok(self.names_since(ino)?.into_iter().map(|(parent, name, _)| (parent, name)).collect())
    }

    /// Whether more than one name leads to a node.
    pub(super) fn has_several_names(&self, ino: i64) -> CatalogResult<bool> {
        self.run(|connection| {
            connection.prepare_cached("SELECT 1 FROM dirent WHERE ino = ?1 LIMIT 1 OFFSET 1")?.exists([ino])
        })
    }

    /// All names of a node, and since when.
    pub(super) fn names_since(&self, ino: i64) -> CatalogResult<Vec<(i64, Vec<u8>, i64)>> {
        let rows: Vec<(i64, Vec<u8>, i64, i64)> = self.run(|connection| {
            connection
                .prepare_cached("SELECT parent, name, since, crc FROM dirent WHERE ino = ?1")?
                .query_map([ino], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
                .collect()
        })?;
        for (parent, name, since, crc) in &rows {
            self.check_dirent(*parent, name, ino, &[*since], *crc)?;
        }
        Ok(rows.into_iter().map(|(parent, name, since, _)| (parent, name, since)).collect())
    }

    /// All paths of a node, sorted.
    pub(super) fn paths_of(&self, ino: i64) -> CatalogResult<Vec<EntryPath>> {
        if ino == ROOT {
            return Ok(vec![EntryPath::root()]);
        }
        let mut paths = Vec::new();
        for (mut parent, name) in self.names_of(ino)? {
            let mut names = vec![name];
            // Longer than the longest path: a cycle, which no writer makes.
            while parent != ROOT && names.len() <= crate::format::entry::MAX_PATH {
                match self.names_of(parent)?.pop() {
                    Some((above, name)) => {
                        names.push(name);
                        parent = above;
                    }
                    None => return Err(self.damaged(format!("directory {parent} has no name"))),
                }
            }
            names.reverse();
            paths.push(EntryPath::new(names.join(&b'/')).map_err(|error| self.damaged(error.to_string()))?);
        }
        paths.sort();
        Ok(paths)
    }

    /// A content's row.
    pub(super) fn content(&self, hash: &ContentHash) -> CatalogResult<Option<ContentRow>> {
        let (prefix, rest) = split_hash(hash);
        let row: Option<(i64, i64, i64, i64, i64)> = self.run(|connection| {
            connection
                .prepare_cached("SELECT id, object, offset, size, crc FROM content WHERE prefix = ?1 AND rest = ?2")?
                .query_row((prefix, rest), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))
                .optional()
        })?;
        let Some((id, object, offset, size, crc)) = row else { return Ok(None) };
        if content_crc(object, offset, size, hash) != crc {
            return Err(self.damaged(format!("the place of content {hash}")));
        }
        Ok(Some(ContentRow { id, object, offset, size, hash: *hash }))
    }

    /// Where a content lies.
    pub(super) fn place(&self, hash: &ContentHash, size: u64) -> CatalogResult<Option<ContentPlace>> {
        let Some(row) = self.content(hash)? else { return Ok(None) };
        if row.size as u64 != size {
            return Ok(None);
        }
        let object = self.object_by_id(row.object)?;
        Ok(Some(ContentPlace {
            object: ObjectRef { name: object.name, root: object.root },
            tier: object.tier,
            offset: row.offset as u64,
            size,
        }))
    }

    /// The content that a source file had.
    pub(super) fn seen(&self, signature: u64) -> CatalogResult<Option<(ContentHash, u64)>> {
        type Found = (i64, i64, i64, i64, Vec<u8>, i64);
        let row: Option<Found> = self.run(|connection| {
            connection
                .prepare_cached(
                    "SELECT c.object, c.offset, c.size, c.prefix, c.rest, c.crc
                     FROM source s JOIN content c ON c.id = s.content WHERE s.signature = ?1",
                )?
                .query_row([signature as i64], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
                })
                .optional()
        })?;
        let Some((object, offset, size, prefix, rest, crc)) = row else { return Ok(None) };
        match join_hash(prefix, &rest) {
            Some(hash) if content_crc(object, offset, size, &hash) == crc => Ok(Some((hash, size as u64))),
            _ => Err(self.damaged("the content of a source file")),
        }
    }

    /// Whether some content has, or had, this size.
    pub(super) fn has_size(&self, size: u64) -> CatalogResult<bool> {
        self.run(|connection| connection.prepare_cached("SELECT 1 FROM size WHERE size = ?1")?.exists([size as i64]))
    }

    fn parse_object(&self, id: i64, name: &str, bytes: &[u8]) -> CatalogResult<ObjectFacts> {
        let parse = || match Record::from_bytes(checked(bytes, &[id])?)? {
            Record::Object(facts) if facts.name.as_str() == name => Ok(facts),
            _ => Err(crate::format::FormatError::Checksum { what: "catalog row" }),
        };
        parse().map_err(|error| self.damaged(format!("object {name}: {error}")))
    }

    fn object_by_id(&self, id: i64) -> CatalogResult<ObjectFacts> {
        let row: Option<(String, Vec<u8>)> = self.run(|connection| {
            connection
                .prepare_cached("SELECT name, facts FROM object WHERE id = ?1")?
                .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()
        })?;
        let (name, facts) = row.ok_or_else(|| self.damaged(format!("object {id} is missing")))?;
        self.parse_object(id, &name, &facts)
    }

    /// An object's row and what it says.
    pub(super) fn object(&self, name: &ObjectName) -> CatalogResult<Option<(i64, ObjectFacts)>> {
        let row: Option<(i64, Vec<u8>)> = self.run(|connection| {
            connection
                .prepare_cached("SELECT id, facts FROM object WHERE name = ?1")?
                .query_row([name.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()
        })?;
        row.map(|(id, facts)| Ok((id, self.parse_object(id, name.as_str(), &facts)?))).transpose()
    }

    /// At most `limit` objects in the order of their names, after `after`.
    pub(super) fn object_page(&self, after: &str, limit: usize) -> CatalogResult<Vec<(i64, ObjectFacts)>> {
        let rows: Vec<(i64, String, Vec<u8>)> = self.run(|connection| {
            connection
                .prepare_cached("SELECT id, name, facts FROM object WHERE name > ?1 ORDER BY name LIMIT ?2")?
                .query_map((after, limit as i64), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect()
        })?;
        rows.into_iter().map(|(id, name, facts)| Ok((id, self.parse_object(id, &name, &facts)?))).collect()
    }

    /// Objects whose contents no node has, or had in a state that ended after `before`.
    pub(super) fn unreferenced_objects(&self, before: i64) -> CatalogResult<Vec<ObjectRecord>> {
        let rows: Vec<(i64, String, Vec<u8>)> = self.run(|connection| {
            connection
                .prepare_cached(
                    "SELECT id, name, facts FROM object o WHERE NOT EXISTS
                     (SELECT 1 FROM content c WHERE c.object = o.id
                      AND (EXISTS (SELECT 1 FROM inode i WHERE i.content = c.id)
                           OR EXISTS (SELECT 1 FROM past_inode p WHERE p.content = c.id AND p.until > ?1)))
                     ORDER BY name",
                )?
                .query_map([before], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect()
        })?;
        rows.into_iter().map(|(id, name, facts)| Ok(self.parse_object(id, &name, &facts)?.into())).collect()
    }

    /// Whether a past state of some node needs an object.
    pub(super) fn past_needs(&self, object: i64) -> CatalogResult<bool> {
        self.run(|connection| {
            connection
                .prepare_cached("SELECT 1 FROM content c JOIN past_inode p ON p.content = c.id WHERE c.object = ?1")?
                .exists([object])
        })
    }

    /// The nodes whose content lies in an object.
    pub(super) fn nodes_in(&self, object: i64) -> CatalogResult<Vec<i64>> {
        self.run(|connection| {
            connection
                .prepare_cached(
                    "SELECT i.ino FROM content c JOIN inode i ON i.content = c.id WHERE c.object = ?1 ORDER BY i.ino",
                )?
                .query_map([object], |row| row.get(0))?
                .collect()
        })
    }

    /// The contents of an object, and a source of each.
    pub(super) fn members(&self, object: i64) -> CatalogResult<Vec<Member>> {
        type Found = (i64, i64, i64, Vec<u8>, i64, Option<i64>);
        let rows: Vec<Found> = self.run(|connection| {
            connection
                .prepare_cached(
                    "SELECT offset, size, prefix, rest, crc, (SELECT max(signature) FROM source WHERE content = c.id)
                     FROM content c WHERE object = ?1 ORDER BY offset, id",
                )?
                .query_map([object], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
                })?
                .collect()
        })?;
        let mut members = Vec::with_capacity(rows.len());
        for (offset, size, prefix, rest, crc, source) in rows {
            match join_hash(prefix, &rest) {
                Some(hash) if content_crc(object, offset, size, &hash) == crc => {
                    members.push((hash, offset as u64, size as u64, source.map(|source| source as u64)));
                }
                _ => return Err(self.damaged(format!("a content of object {object}"))),
            }
        }
        Ok(members)
    }

    /// At most `limit` nodes by number, after `after`, and since when they are so.
    pub(super) fn node_page(&self, after: i64, limit: usize) -> CatalogResult<Vec<NodeRow>> {
        let rows: Vec<(i64, i64, Vec<u8>)> = self.run(|connection| {
            connection
                .prepare_cached("SELECT ino, since, body FROM inode WHERE ino > ?1 ORDER BY ino LIMIT ?2")?
                .query_map((after, limit as i64), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect()
        })?;
        let parsed =
            rows.into_iter().map(|(ino, since, body)| Ok((ino, since, self.parse_node(ino, &[since], &body)?)));
        parsed.collect()
    }

    /// At most `limit` names by directory and name, after the one given: the
    /// directory, the name, the node it leads to, and since when.
    pub(super) fn dirent_page(&self, parent: i64, name: &[u8], limit: usize) -> CatalogResult<Vec<DirentRow>> {
        let rows: Vec<(DirentRow, i64)> = self.run(|connection| {
            connection
                .prepare_cached(
                    "SELECT parent, name, ino, since, crc FROM dirent WHERE (parent, name) > (?1, ?2)
                     ORDER BY parent, name LIMIT ?3",
                )?
                .query_map((parent, name, limit as i64), |row| {
                    Ok(((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?), row.get(4)?))
                })?
                .collect()
        })?;
        for ((parent, name, ino, since), crc) in &rows {
            self.check_dirent(*parent, name, *ino, &[*since], *crc)?;
        }
        Ok(rows.into_iter().map(|(row, _)| row).collect())
    }

    /// Counts and sizes of everything.
    pub(super) fn totals(&self) -> CatalogResult<NamespaceTotals> {
        let counters = self.counters()?;
        Ok(NamespaceTotals {
            nodes: counters.nodes as u64,
            files: counters.files as u64,
            logical_bytes: counters.logical_bytes as u64,
            objects: counters.objects as u64,
            content_bytes: counters.content_bytes as u64,
            stored_bytes: counters.stored_bytes as u64,
        })
    }
}

impl From<ObjectFacts> for ObjectRecord {
    fn from(facts: ObjectFacts) -> Self {
        Self {
            reference: ObjectRef { name: facts.name, root: facts.root },
            kind: facts.kind,
            key: facts.key,
            tier: facts.tier,
            stored_len: facts.stored_len,
        }
    }
}

impl From<&ObjectRecord> for ObjectFacts {
    fn from(record: &ObjectRecord) -> Self {
        Self {
            name: record.reference.name.clone(),
            root: record.reference.root,
            kind: record.kind,
            key: record.key,
            tier: record.tier,
            stored_len: record.stored_len,
        }
    }
}
