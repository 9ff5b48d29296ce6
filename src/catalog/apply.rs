//! Applies records to the database. Live changes and replay of the journal
//! both go through here, so that one can never differ from the other.

use super::CatalogResult;
use super::database::{Counters, Database, content_crc, dirent_crc, node_row, seal_row, split_hash};
use super::history::instant;
use super::queries::ROOT;
use crate::base::{ContentHash, ObjectName};
use crate::format::journal::{ObjectFacts, Record};
use crate::format::{FileContent, NodeBody, NodeMeta, StagedContent};

/// Applies one group of records after the other within the caller's transaction.
#[derive(Debug)]
pub(super) struct Applier<'d> {
    pub(super) database: &'d Database,
    counters: Counters,
    /// When the records of this group happened, nanoseconds since 1970; 0 where nothing says it.
    pub(super) now: i64,
    /// Whether what ends is kept as history.
    pub(super) keeps_history: bool,
    object: Option<i64>,
    /// The node set last, and whether it is a directory: its name comes next.
    latest: Option<(i64, bool)>,
    /// Pieces of the journal are missing: what does not fit is left out
    /// instead of being an error.
    lenient: bool,
    misfits: u64,
}

impl<'d> Applier<'d> {
    pub(super) fn new(database: &'d Database, lenient: bool) -> CatalogResult<Self> {
        let counters = database.counters()?;
        Ok(Self { database, counters, now: 0, keeps_history: true, object: None, latest: None, lenient, misfits: 0 })
    }

    /// What ends from here on is forgotten.
    pub(super) fn without_history(self) -> Self {
        Self { keeps_history: false, ..self }
    }

    /// What follows is another group: what an earlier record said of the next ones is over.
    pub(super) fn begin_group(&mut self) {
        self.now = 0;
        self.object = None;
        self.latest = None;
    }

    /// The inode number that a new node gets.
    pub(super) fn next_inode(&self) -> u64 {
        self.counters.next_inode as u64
    }

    /// Writes the counters beside the rows they count.
    pub(super) fn finish(self) -> CatalogResult<()> {
        self.database.store_counters(&self.counters)
    }

    pub(super) fn apply(&mut self, record: &Record) -> CatalogResult<()> {
        match record {
            Record::Object(facts) => self.set_object(facts),
            Record::Member { hash, offset, size, source } => self.set_member(hash, *offset, *size, *source),
            Record::ObjectRemoved(name) => self.remove_object(name),
            Record::Inode { node, meta, body } => self.set_inode(*node as i64, meta, body),
            Record::Dirent { parent, name, node } => self.set_dirent(*parent as i64, name, *node as i64),
            Record::DirentRemoved { parent, name } => self.remove_dirent(*parent as i64, name),
            Record::InodeRemoved(node) => self.remove_inode(*node as i64),
            Record::NextInode(node) => {
                self.counters.next_inode = self.counters.next_inode.max(*node as i64);
                Ok(())
            }
            Record::Time(time) => {
                self.now = instant(*time);
                Ok(())
            }
            Record::Staged { node, content } => self.set_staged(*node as i64, content),
            Record::StagedRemoved(node) => self.remove_staged(*node as i64),
            Record::HistoryRemoved { before } => {
                self.database.forget_past(instant(*before))?;
                self.database.raise_history_begin(instant(*before))
            }
            Record::PastInode { node, since, until, meta, body } => {
                self.add_past_inode(*node as i64, (instant(*since), instant(*until)), meta, body)
            }
            Record::PastDirent { parent, name, node, since, until } => {
                let period = (instant(*since), instant(*until));
                self.add_past_dirent(*parent as i64, name, *node as i64, period)
            }
        }
    }

    /// Records that were left out.
    pub(super) fn misfits(&self) -> u64 {
        self.misfits
    }

    fn misfit(&mut self, what: impl FnOnce() -> String) -> CatalogResult<()> {
        self.misfits += 1;
        if self.lenient { Ok(()) } else { Err(self.database.damaged(what())) }
    }

    pub(super) fn execute(&self, sql: &str, parameters: impl rusqlite::Params) -> CatalogResult<usize> {
        self.database.run(|connection| connection.prepare_cached(sql)?.execute(parameters))
    }

    fn set_object(&mut self, facts: &ObjectFacts) -> CatalogResult<()> {
        let id = match self.database.object(&facts.name)? {
            Some((id, old)) => {
                self.count_object(&old, -1);
                id
            }
            None => self.database.run(|connection| {
                connection
                    .prepare_cached("SELECT coalesce(max(id), 0) + 1 FROM object")?
                    .query_row([], |row| row.get(0))
            })?,
        };
        let mut bytes = Vec::with_capacity(256);
        Record::Object(facts.clone()).encode(&mut bytes);
        seal_row(&mut bytes, &[id]);
        self.execute(
            "INSERT INTO object(id, name, facts) VALUES(?1, ?2, ?3) ON CONFLICT(id) DO UPDATE SET facts = ?3",
            (id, facts.name.as_str(), bytes),
        )?;
        self.count_object(facts, 1);
        self.object = Some(id);
        Ok(())
    }

    fn count_object(&mut self, facts: &ObjectFacts, sign: i64) {
        self.counters.objects += sign;
        add(&mut self.counters.content_bytes, sign, facts.key.plain_size);
        add(&mut self.counters.stored_bytes, sign, facts.stored_len);
    }

    fn set_member(&mut self, hash: &ContentHash, offset: u64, size: u64, source: Option<u64>) -> CatalogResult<()> {
        let Some(object) = self.object else {
            return self.misfit(|| format!("content {hash} comes before its object"));
        };
        let (offset, size) = (offset as i64, size as i64);
        let crc = content_crc(object, offset, size, hash);
        let id = match self.database.content(hash)? {
            Some(old) => {
                self.execute(
                    "UPDATE content SET object = ?2, offset = ?3, size = ?4, crc = ?5 WHERE id = ?1",
                    (old.id, object, offset, size, crc),
                )?;
                old.id
            }
            None => {
                let (prefix, rest) = split_hash(hash);
                self.execute(
                    "INSERT INTO content(object, offset, size, prefix, rest, crc) VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
                    (object, offset, size, prefix, rest, crc),
                )?;
                self.database.connection.last_insert_rowid()
            }
        };
        self.execute("INSERT INTO size(size) VALUES(?1) ON CONFLICT DO NOTHING", [size])?;
        if let Some(signature) = source {
            self.execute(
                "INSERT INTO source(signature, content) VALUES(?1, ?2) ON CONFLICT DO UPDATE SET content = ?2",
                (signature as i64, id),
            )?;
        }
        Ok(())
    }

    fn remove_object(&mut self, name: &ObjectName) -> CatalogResult<()> {
        let Some((id, facts)) = self.database.object(name)? else {
            return self.misfit(|| format!("object {name} is removed and was never there"));
        };
        self.count_object(&facts, -1);
        self.execute(
            "UPDATE inode SET content = NULL WHERE content IN (SELECT id FROM content WHERE object = ?1)",
            [id],
        )?;
        self.execute(
            "UPDATE past_inode SET content = NULL WHERE content IN (SELECT id FROM content WHERE object = ?1)",
            [id],
        )?;
        self.execute("DELETE FROM source WHERE content IN (SELECT id FROM content WHERE object = ?1)", [id])?;
        self.execute("DELETE FROM content WHERE object = ?1", [id])?;
        self.execute("DELETE FROM object WHERE id = ?1", [id])?;
        self.object = None;
        Ok(())
    }

    fn set_inode(&mut self, ino: i64, meta: &NodeMeta, body: &NodeBody) -> CatalogResult<()> {
        let content = self.content_of(body)?;
        let is_directory = matches!(body, NodeBody::Directory);
        let now = self.now;
        let row = node_row(ino, now, meta, body);
        // Numbers from `next_inode` on were never used, so there is no old row.
        let old = if ino < self.counters.next_inode { self.database.live_node(ino)? } else { None };
        if let Some(old) = &old {
            if old.inode.is_directory() != is_directory && !self.lenient {
                return Err(self.database.damaged(format!("inode {ino} turns into a directory, or from one")));
            }
            if (&old.inode.meta, &old.inode.body) == (meta, body) {
                self.latest = Some((ino, is_directory));
                return Ok(());
            }
            self.end_state(old, Some(body))?;
            self.count_node(&old.inode.body, -1);
            self.execute(
                "UPDATE inode SET content = ?2, since = ?3, body = ?4 WHERE ino = ?1",
                (ino, content, now, row),
            )?;
        } else {
            // The root needs no name.
            let links = if ino == ROOT { 2 } else { 0 };
            self.execute(
                "INSERT INTO inode(ino, links, content, since, body) VALUES(?1, ?2, ?3, ?4, ?5)",
                (ino, links, content, now, row),
            )?;
        }
        self.count_node(body, 1);
        self.counters.next_inode = self.counters.next_inode.max(ino.saturating_add(1));
        self.latest = Some((ino, is_directory));
        Ok(())
    }

    /// The row of a body's content, if it has one that is stored.
    pub(super) fn content_of(&self, body: &NodeBody) -> CatalogResult<Option<i64>> {
        match body {
            NodeBody::File(FileContent { hash, size, .. }) if *size > 0 => {
                Ok(self.database.content(hash)?.map(|row| row.id))
            }
            _ => Ok(None),
        }
    }

    fn count_node(&mut self, body: &NodeBody, sign: i64) {
        self.counters.nodes += sign;
        if let NodeBody::File(content) = body {
            self.counters.files += sign;
            add(&mut self.counters.logical_bytes, sign, content.size);
        }
    }

    /// Adds `change` to the links that a name from `parent` to `ino` makes: a
    /// directory's name counts in its parent, and its name and `.` in itself;
    /// any other name counts in its node. What has no name has no links.
    fn change_links(&mut self, parent: i64, ino: i64, is_directory: bool, change: i64) -> CatalogResult<()> {
        if is_directory {
            self.add_links(parent, change)?;
            self.add_links(ino, 2 * change)
        } else {
            self.add_links(ino, change)
        }
    }

    fn add_links(&mut self, ino: i64, change: i64) -> CatalogResult<()> {
        let changed = self.execute("UPDATE inode SET links = max(links + ?2, 0) WHERE ino = ?1", (ino, change))?;
        if changed == 1 { Ok(()) } else { self.misfit(|| format!("inode {ino} is missing")) }
    }

    fn set_dirent(&mut self, parent: i64, name: &[u8], ino: i64) -> CatalogResult<()> {
        if self.lenient && self.database.child(parent, name)?.is_some() {
            self.misfits += 1;
            self.remove_dirent(parent, name)?;
        }
        let now = self.now;
        self.execute(
            "INSERT INTO dirent(parent, name, ino, since, crc) VALUES(?1, ?2, ?3, ?4, ?5)",
            (parent, name, ino, now, dirent_crc(parent, name, ino, &[now])),
        )?;
        let is_directory = match self.latest {
            Some((latest, is_directory)) if latest == ino => is_directory,
            _ => match self.database.node(ino)? {
                Some(node) => node.is_directory(),
                None => return self.misfit(|| format!("a name leads to inode {ino}, which is missing")),
            },
        };
        // Or there could be a way in circles.
        if is_directory && (ino == ROOT || self.database.has_several_names(ino)?) {
            self.misfit(|| format!("directory {ino} gets a second name"))?;
        }
        self.change_links(parent, ino, is_directory, 1)
    }

    fn remove_dirent(&mut self, parent: i64, name: &[u8]) -> CatalogResult<()> {
        let Some((ino, since)) = self.database.child_since(parent, name)? else {
            return self.misfit(|| format!("a name in directory {parent} is removed and was never there"));
        };
        self.execute("DELETE FROM dirent WHERE parent = ?1 AND name = ?2", (parent, name))?;
        let Some(node) = self.database.node(ino)? else {
            return self.misfit(|| format!("a name leads to inode {ino}, which is missing"));
        };
        self.end_name(parent, name, &node, since)?;
        self.change_links(parent, ino, node.is_directory(), -1)
    }

    fn remove_inode(&mut self, ino: i64) -> CatalogResult<()> {
        let Some(old) = self.database.live_node(ino)? else {
            return self.misfit(|| format!("inode {ino} is removed and was never there"));
        };
        if ino == ROOT {
            return self.misfit(|| "the root directory is removed".into());
        }
        self.end_state(&old, None)?;
        self.count_node(&old.inode.body, -1);
        self.latest = None;
        self.execute("DELETE FROM inode WHERE ino = ?1", [ino])?;
        self.remove_staged(ino)
    }

    fn set_staged(&mut self, ino: i64, content: &StagedContent) -> CatalogResult<()> {
        let known = self.latest.is_some_and(|(latest, _)| latest == ino) || self.database.node(ino)?.is_some();
        if !known {
            return self.misfit(|| format!("something is staged for inode {ino}, which is missing"));
        }
        let mut bytes = Vec::with_capacity(64);
        content.encode(&mut bytes);
        seal_row(&mut bytes, &[ino]);
        self.execute("INSERT INTO staged(ino, facts) VALUES(?1, ?2) ON CONFLICT DO UPDATE SET facts = ?2", (ino, bytes))
            .map(drop)
    }

    fn remove_staged(&mut self, ino: i64) -> CatalogResult<()> {
        self.execute("DELETE FROM staged WHERE ino = ?1", [ino]).map(drop)
    }
}

/// Counts a size once (`sign` 1) or takes it away (-1). Sizes are whatever a journal says: sums wrap, so that taking
/// away what was added gives what was there before.
fn add(total: &mut i64, sign: i64, size: u64) {
    *total = total.wrapping_add(sign.wrapping_mul(size as i64));
}

impl Database {
    /// Makes one tree again of what was put together from pieces: names that
    /// lead nowhere and nodes that nothing leads to go, links are counted
    /// anew, files find contents that were found after them.
    pub(super) fn mend(&self) -> CatalogResult<()> {
        let mut lost: Vec<(i64, ContentHash)> = Vec::new();
        let mut counters = Counters { next_inode: self.counters()?.next_inode, ..Counters::default() };
        self.run(|connection| {
            connection.execute_batch(
                "DELETE FROM dirent WHERE ino = 1 OR ino NOT IN (SELECT ino FROM inode);
                 CREATE TEMP TABLE reached(ino INTEGER PRIMARY KEY);
                 WITH RECURSIVE tree(ino) AS
                    (VALUES(1) UNION SELECT d.ino FROM tree t JOIN dirent d ON d.parent = t.ino)
                 INSERT INTO reached SELECT ino FROM tree;
                 DELETE FROM dirent WHERE parent NOT IN (SELECT ino FROM reached);
                 DELETE FROM inode WHERE ino NOT IN (SELECT ino FROM reached);
                 DELETE FROM staged WHERE ino NOT IN (SELECT ino FROM inode);
                 DROP TABLE reached;
                 CREATE TEMP TABLE directory(ino INTEGER PRIMARY KEY);",
            )
        })?;
        let mut after = 0;
        loop {
            let rows: Vec<(i64, Option<i64>, i64, Vec<u8>)> = self.run(|connection| {
                connection
                    .prepare_cached(
                        "SELECT ino, content, since, body FROM inode WHERE ino > ?1 ORDER BY ino LIMIT 1000",
                    )?
                    .query_map([after], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
                    .collect()
            })?;
            let Some(last) = rows.last() else { break };
            after = last.0;
            for (ino, content, since, bytes) in &rows {
                let (_, body) = self.parse_node(*ino, &[*since], bytes)?;
                counters.nodes += 1;
                match body {
                    NodeBody::Directory => {
                        let sql = "INSERT INTO directory(ino) VALUES(?1)";
                        self.run(|connection| connection.prepare_cached(sql)?.execute([ino]))?;
                    }
                    NodeBody::File(file) => {
                        counters.files += 1;
                        add(&mut counters.logical_bytes, 1, file.size);
                        if file.size > 0 && content.is_none() {
                            lost.push((*ino, file.hash));
                        }
                    }
                    _ => {}
                }
            }
        }
        for (ino, hash) in lost {
            if let Some(row) = self.content(&hash)? {
                self.run(|connection| {
                    connection.execute("UPDATE inode SET content = ?2 WHERE ino = ?1", (ino, row.id))
                })?;
            }
        }
        self.mend_past()?;
        self.run(|connection| {
            // A directory has one name: of several, the first counts.
            connection.execute_batch(
                "DELETE FROM dirent WHERE ino IN (SELECT ino FROM directory) AND (parent, name) NOT IN
                    (SELECT parent, min(name) FROM dirent e WHERE e.ino = dirent.ino
                     AND e.parent = (SELECT min(parent) FROM dirent f WHERE f.ino = dirent.ino));
                 UPDATE inode SET links = 2 + (SELECT count(*) FROM dirent d JOIN directory c ON c.ino = d.ino
                    WHERE d.parent = inode.ino) WHERE ino IN (SELECT ino FROM directory);
                 UPDATE inode SET links = (SELECT count(*) FROM dirent d WHERE d.ino = inode.ino)
                    WHERE ino NOT IN (SELECT ino FROM directory);
                 DROP TABLE directory;",
            )
        })?;
        self.count_objects(&mut counters)?;
        self.store_counters(&counters)
    }

    fn count_objects(&self, counters: &mut Counters) -> CatalogResult<()> {
        let mut name = String::new();
        loop {
            let page = self.object_page(&name, 1000)?;
            let Some((_, last)) = page.last() else { break };
            name = last.name.as_str().to_string();
            for (_, facts) in &page {
                counters.objects += 1;
                add(&mut counters.content_bytes, 1, facts.key.plain_size);
                add(&mut counters.stored_bytes, 1, facts.stored_len);
            }
        }
        Ok(())
    }
}
