//! What was: states of nodes, and names, that ended. A state counts from its
//! first moment up to, not including, the moment at which it ended.

use super::CatalogResult;
use super::apply::Applier;
use super::database::{Database, past_dirent_crc, past_node_key, seal_row};
use crate::base::Timestamp;
use crate::format::binary::Reader;
use crate::format::entry::encode_node;
use crate::format::journal::Record;
use crate::format::{FileContent, NodeBody, NodeMeta};

/// From and until when, nanoseconds since 1970.
pub(super) type Period = (i64, i64);

const NANOSECONDS: i64 = 1_000_000_000;

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

impl Applier<'_> {
    pub(super) fn add_past_inode(
        &mut self,
        ino: i64,
        (since, until): Period,
        meta: &NodeMeta,
        body: &NodeBody,
    ) -> CatalogResult<()> {
        let content = match body {
            NodeBody::File(FileContent { hash, size, .. }) if *size > 0 => {
                self.database.content(hash)?.map(|row| row.id)
            }
            _ => None,
        };
        let mut row = Vec::with_capacity(96);
        encode_node(meta, body, &mut row);
        seal_row(&mut row, past_node_key(ino, since, until));
        self.execute(
            "INSERT OR REPLACE INTO past_inode(ino, since, until, content, body) VALUES(?1, ?2, ?3, ?4, ?5)",
            (ino, since, until, content, row),
        )
        .map(drop)
    }

    pub(super) fn add_past_dirent(
        &mut self,
        parent: i64,
        name: &[u8],
        ino: i64,
        (since, until): Period,
    ) -> CatalogResult<()> {
        let crc = past_dirent_crc(parent, name, ino, since, until);
        self.execute(
            "INSERT OR REPLACE INTO past_dirent(parent, name, ino, since, until, crc) VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
            (parent, name, ino, since, until, crc),
        )
        .map(drop)
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

    fn parse_past_node(&self, ino: i64, period: Period, bytes: &[u8]) -> CatalogResult<(NodeMeta, NodeBody)> {
        let parse = || {
            let mut reader =
                Reader::new("catalog node", super::database::checked(bytes, past_node_key(ino, period.0, period.1))?);
            let node = crate::format::entry::decode_node(&mut reader)?;
            reader.finish()?;
            Ok(node)
        };
        parse()
            .map_err(|error: crate::format::FormatError| self.damaged(format!("a past state of inode {ino}: {error}")))
    }
}

/// Calls `take` with the records that say what was.
pub(super) fn dump(database: &Database, take: &mut dyn FnMut(Record) -> CatalogResult<()>) -> CatalogResult<()> {
    type Row = (i64, i64, i64, Vec<u8>);
    let mut after = (0, i64::MIN, i64::MIN);
    loop {
        let rows: Vec<Row> = database.run(|connection| {
            connection
                .prepare_cached(
                    "SELECT ino, until, since, body FROM past_inode WHERE (ino, until, since) > (?1, ?2, ?3)
                     ORDER BY ino, until, since LIMIT 1024",
                )?
                .query_map(after, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
                .collect()
        })?;
        let Some(last) = rows.last() else { break };
        after = (last.0, last.1, last.2);
        for (ino, until, since, body) in rows {
            let (meta, body) = database.parse_past_node(ino, (since, until), &body)?;
            let (since, until) = (timestamp(since), timestamp(until));
            take(Record::PastInode { node: ino as u64, since, until, meta, body })?;
        }
    }
    let mut after = (0, Vec::new(), i64::MIN, i64::MIN);
    loop {
        let rows: Vec<(i64, Vec<u8>, i64, i64, i64, i64)> = database.run(|connection| {
            connection
                .prepare_cached(
                    "SELECT parent, name, until, since, ino, crc FROM past_dirent
                     WHERE (parent, name, until, since) > (?1, ?2, ?3, ?4)
                     ORDER BY parent, name, until, since LIMIT 1024",
                )?
                .query_map((after.0, &after.1, after.2, after.3), |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
                })?
                .collect()
        })?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = (last.0, last.1.clone(), last.2, last.3);
        for (parent, name, until, since, ino, crc) in rows {
            database.check_past_dirent(parent, &name, ino, (since, until), crc)?;
            let (since, until) = (timestamp(since), timestamp(until));
            take(Record::PastDirent { parent: parent as u64, name, node: ino as u64, since, until })?;
        }
    }
}
