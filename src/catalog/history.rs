//! What was: states of nodes, and names, that ended. A state counts from its
//! first moment up to, not including, the moment at which it ended.
//!
//! Kept is what somebody may want back: committed contents always, anything
//! else that lived at least [`GRAIN`]. A program that writes a file makes many
//! states within a moment, which nobody ever saw.

use super::apply::Applier;
use super::database::{Database, dirent_crc, seal_row};
use super::queries::LiveNode;
use super::{CatalogResult, HistoryRemoved, Inode};
use crate::base::Timestamp;
use crate::format::entry::encode_node;
use crate::format::journal::Record;
use crate::format::{FileContent, NodeBody, NodeMeta};
use rusqlite::OptionalExtension;

/// From and until when, nanoseconds since 1970.
pub(super) type Period = (i64, i64);

const NANOSECONDS: i64 = 1_000_000_000;
/// What lived shorter is not kept, unless it is a committed content; nanoseconds.
pub(super) const GRAIN: i64 = NANOSECONDS;
/// Rows that are read at once.
const PAGE: i64 = 1024;

/// A time as the database's rows have it: nanoseconds since 1970. What lies
/// outside of the years 1677 to 2262 is the first or last moment of these.
pub(super) fn instant(time: Timestamp) -> i64 {
    let nanoseconds = i128::from(time.seconds) * i128::from(NANOSECONDS) + i128::from(time.nanoseconds);
    nanoseconds.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

/// What [`instant`] made.
pub(super) fn timestamp(instant: i64) -> Timestamp {
    let nanoseconds = instant.rem_euclid(NANOSECONDS) as u32;
    Timestamp { seconds: instant.div_euclid(NANOSECONDS), nanoseconds }
}

/// The content of a file that is stored, if it has any bytes.
fn committed(body: &NodeBody) -> Option<&FileContent> {
    match body {
        NodeBody::File(content) if content.size > 0 => Some(content),
        _ => None,
    }
}

impl Applier<'_> {
    /// A node's state ends: another one follows, or the node is removed.
    pub(super) fn end_state(&mut self, old: &LiveNode, new: Option<&NodeBody>) -> CatalogResult<()> {
        let ino = old.inode.node.number() as i64;
        let content = committed(&old.inode.body);
        let next = new.and_then(committed);
        let precious = content.is_some_and(|old| next.is_none_or(|new| (old.hash, old.size) != (new.hash, new.size)));
        let Some(period) = self.kept(old.since, precious, &old.inode)? else { return Ok(()) };
        let Some((node, _)) = old.bytes.split_last_chunk::<4>() else { return Ok(()) };
        self.put_past_inode(ino, period, old.content, node)
    }

    /// A name ends.
    pub(super) fn end_name(&mut self, parent: i64, name: &[u8], node: &Inode, since: i64) -> CatalogResult<()> {
        match self.kept(since, committed(&node.body).is_some(), node)? {
            Some(period) => self.add_past_dirent(parent, name, node.node.number() as i64, period),
            None => Ok(()),
        }
    }

    /// The period of what ends now, if it is kept.
    fn kept(&self, since: i64, precious: bool, node: &Inode) -> CatalogResult<Option<Period>> {
        if !self.keeps_history {
            return Ok(None);
        }
        let until = self.now.max(since);
        if precious {
            // However short it was, it has a moment at which it can be seen.
            let until = until.max(since.saturating_add(1));
            return Ok((until > since).then_some((since, until)));
        }
        if until.saturating_sub(since) < GRAIN || self.is_unborn(node)? {
            return Ok(None);
        }
        Ok(Some((since, until)))
    }

    /// A file of which nothing was ever committed: what it held lay in staging alone.
    fn is_unborn(&self, node: &Inode) -> CatalogResult<bool> {
        if !matches!(&node.body, NodeBody::File(content) if content.size == 0) {
            return Ok(false);
        }
        self.database.is_staged(node.node.number() as i64)
    }

    pub(super) fn add_past_inode(
        &mut self,
        ino: i64,
        period: Period,
        meta: &NodeMeta,
        body: &NodeBody,
    ) -> CatalogResult<()> {
        let content = self.content_of(body)?;
        let mut node = Vec::with_capacity(96);
        encode_node(meta, body, &mut node);
        self.put_past_inode(ino, period, content, &node)
    }

    fn put_past_inode(
        &mut self,
        ino: i64,
        (since, mut until): Period,
        content: Option<i64>,
        node: &[u8],
    ) -> CatalogResult<()> {
        loop {
            let mut row = Vec::with_capacity(node.len() + 4);
            row.extend_from_slice(node);
            seal_row(&mut row, &[ino, since, until]);
            let sql = "INSERT OR IGNORE INTO past_inode(ino, since, until, content, body) VALUES(?1, ?2, ?3, ?4, ?5)";
            if self.execute(sql, (ino, since, until, content, row))? > 0 || until == i64::MAX {
                return Ok(());
            }
            // Several within one moment: each gets one of its own.
            until += 1;
        }
    }

    pub(super) fn add_past_dirent(
        &mut self,
        parent: i64,
        name: &[u8],
        ino: i64,
        (since, mut until): Period,
    ) -> CatalogResult<()> {
        loop {
            let crc = dirent_crc(parent, name, ino, &[since, until]);
            let sql = "INSERT OR IGNORE INTO past_dirent(parent, name, ino, since, until, crc)
                       VALUES(?1, ?2, ?3, ?4, ?5, ?6)";
            if self.execute(sql, (parent, name, ino, since, until, crc))? > 0 || until == i64::MAX {
                return Ok(());
            }
            until += 1;
        }
    }
}

impl Database {
    /// Forgets what ended at or before this moment.
    pub(super) fn forget_past(&self, before: i64) -> CatalogResult<()> {
        self.run(|connection| {
            connection.prepare_cached("DELETE FROM past_inode WHERE until <= ?1")?.execute([before])?;
            connection.prepare_cached("DELETE FROM past_dirent WHERE until <= ?1")?.execute([before])?;
            Ok(())
        })
    }

    /// How much ended at or before this moment.
    pub(super) fn past_until(&self, before: i64) -> CatalogResult<HistoryRemoved> {
        let count = |sql| -> CatalogResult<i64> {
            self.run(|connection| connection.prepare_cached(sql)?.query_row([before], |row| row.get(0)))
        };
        Ok(HistoryRemoved {
            names: count("SELECT count(*) FROM past_dirent WHERE until <= ?1")? as u64,
            states: count("SELECT count(*) FROM past_inode WHERE until <= ?1")? as u64,
        })
    }

    /// Past states find contents that were found after them.
    pub(super) fn mend_past(&self) -> CatalogResult<()> {
        let mut after = (0, i64::MIN, i64::MIN);
        loop {
            let rows = self.past_states(after)?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = (last.ino, last.until, last.since);
            for row in rows {
                let (_, body) = self.parse_node(row.ino, &[row.since, row.until], &row.body)?;
                let found = match committed(&body) {
                    Some(content) if row.content.is_none() => self.content(&content.hash)?,
                    _ => None,
                };
                if let Some(content) = found {
                    let sql = "UPDATE past_inode SET content = ?4 WHERE ino = ?1 AND until = ?2 AND since = ?3";
                    let key = (row.ino, row.until, row.since, content.id);
                    self.run(|connection| connection.prepare_cached(sql)?.execute(key))?;
                }
            }
        }
    }

    /// Some past states after (node, end, beginning), in this order.
    fn past_states(&self, after: (i64, i64, i64)) -> CatalogResult<Vec<PastState>> {
        self.run(|connection| {
            connection
                .prepare_cached(
                    "SELECT ino, until, since, content, body FROM past_inode WHERE (ino, until, since) > (?1, ?2, ?3)
                     ORDER BY ino, until, since LIMIT ?4",
                )?
                .query_map((after.0, after.1, after.2, PAGE), |row| {
                    Ok(PastState {
                        ino: row.get(0)?,
                        until: row.get(1)?,
                        since: row.get(2)?,
                        content: row.get(3)?,
                        body: row.get(4)?,
                    })
                })?
                .collect()
        })
    }

    /// When the oldest state that is kept ended.
    pub(super) fn oldest_past(&self) -> CatalogResult<Option<i64>> {
        self.run(|connection| {
            let mut ends = Vec::new();
            for table in ["past_inode", "past_dirent"] {
                let sql = format!("SELECT until FROM {table} ORDER BY until LIMIT 1");
                let end: Option<i64> = connection.prepare_cached(&sql)?.query_row([], |row| row.get(0)).optional()?;
                ends.extend(end);
            }
            Ok(ends.into_iter().min())
        })
    }

    /// Bytes of the contents that nothing but history needs.
    pub(super) fn past_bytes(&self) -> CatalogResult<u64> {
        let bytes: i64 = self.run(|connection| {
            connection
                .prepare_cached(
                    "SELECT coalesce(sum(c.size), 0) FROM
                     (SELECT DISTINCT content FROM past_inode WHERE content IS NOT NULL) p JOIN content c ON c.id = p.content
                     WHERE NOT EXISTS (SELECT 1 FROM inode i WHERE i.content = c.id)",
                )?
                .query_row([], |row| row.get(0))
        })?;
        Ok(bytes as u64)
    }

    /// The least end of states that must go so that the contents which only
    /// history needs have at most `most` bytes; `None` when they have.
    pub(super) fn history_cut(&self, most: u64) -> CatalogResult<Option<i64>> {
        self.run(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT c.size, max(p.until) AS last FROM past_inode p JOIN content c ON c.id = p.content
                 WHERE NOT EXISTS (SELECT 1 FROM inode i WHERE i.content = c.id) GROUP BY c.id ORDER BY last DESC",
            )?;
            let mut rows = statement.query([])?;
            let mut kept = 0u64;
            while let Some(row) = rows.next()? {
                kept = kept.saturating_add(row.get::<_, i64>(0)? as u64);
                if kept > most {
                    return row.get(1).map(Some);
                }
            }
            Ok(None)
        })
    }
}

/// A row of `past_inode`.
#[derive(Debug)]
struct PastState {
    ino: i64,
    until: i64,
    since: i64,
    content: Option<i64>,
    body: Vec<u8>,
}

/// Calls `take` with the records that say what was.
pub(super) fn dump(database: &Database, take: &mut dyn FnMut(Record) -> CatalogResult<()>) -> CatalogResult<()> {
    let mut after = (0, i64::MIN, i64::MIN);
    loop {
        let rows = database.past_states(after)?;
        let Some(last) = rows.last() else { break };
        after = (last.ino, last.until, last.since);
        for row in rows {
            let (meta, body) = database.parse_node(row.ino, &[row.since, row.until], &row.body)?;
            let (since, until) = (timestamp(row.since), timestamp(row.until));
            take(Record::PastInode { node: row.ino as u64, since, until, meta, body })?;
        }
    }
    let mut after = (0, Vec::new(), i64::MIN, i64::MIN);
    loop {
        let rows: Vec<(i64, Vec<u8>, i64, i64, i64, i64)> = database.run(|connection| {
            connection
                .prepare_cached(
                    "SELECT parent, name, until, since, ino, crc FROM past_dirent
                     WHERE (parent, name, until, since) > (?1, ?2, ?3, ?4)
                     ORDER BY parent, name, until, since LIMIT ?5",
                )?
                .query_map((after.0, &after.1, after.2, after.3, PAGE), |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
                })?
                .collect()
        })?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = (last.0, last.1.clone(), last.2, last.3);
        for (parent, name, until, since, ino, crc) in rows {
            database.check_dirent(parent, &name, ino, &[since, until], crc)?;
            let (since, until) = (timestamp(since), timestamp(until));
            take(Record::PastDirent { parent: parent as u64, name, node: ino as u64, since, until })?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_the_database() {
        for (seconds, nanoseconds) in [(0, 0), (-1, 999_999_999), (1_700_000_000, 1), (-5_000_000_000, 7)] {
            let time = Timestamp { seconds, nanoseconds };
            assert_eq!(timestamp(instant(time)), time);
        }
        assert_eq!(instant(Timestamp { seconds: i64::MAX, nanoseconds: 0 }), i64::MAX);
        assert_eq!(instant(Timestamp { seconds: i64::MIN, nanoseconds: 0 }), i64::MIN);
    }
}
