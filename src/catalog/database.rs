//! The SQLite database: schema, connections, and rows that notice damage.

use super::database_key::DatabaseKey;
use super::{CatalogError, CatalogResult};
use crate::base::{ArchiveId, Digest};
use crate::format::binary::Reader;
use crate::format::entry::{decode_node, encode_node};
use crate::format::journal::ChainHead;
use crate::format::{FormatError, NodeBody, NodeMeta, StagedContent};
use rusqlite::{Connection, OpenFlags, OptionalExtension};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Version of the schema; a database of an earlier version is made anew from the journal.
const SCHEMA_VERSION: i64 = 2;

/// How long a reader waits for a writer that spills its cache, or commits.
const BUSY_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the end of a writer waits for readers that are within a question.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);

/// Pages of the write-ahead log after which they are put into the database: 16 MiB.
const CHECKPOINT_PAGES: u32 = 4000;

/// Statements kept compiled per connection.
const CACHED_STATEMENTS: usize = 64;

const SCHEMA: &str = "
CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE inode(ino INTEGER PRIMARY KEY, links INTEGER NOT NULL, content INTEGER,
    since INTEGER NOT NULL, body BLOB NOT NULL);
CREATE INDEX inode_content ON inode(content) WHERE content IS NOT NULL;
CREATE TABLE dirent(parent INTEGER NOT NULL, name BLOB NOT NULL, ino INTEGER NOT NULL, since INTEGER NOT NULL,
    crc INTEGER NOT NULL, PRIMARY KEY(parent, name)) WITHOUT ROWID;
CREATE INDEX dirent_ino ON dirent(ino);
CREATE TABLE object(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, facts BLOB NOT NULL);
CREATE TABLE content(id INTEGER PRIMARY KEY, object INTEGER NOT NULL, offset INTEGER NOT NULL, size INTEGER NOT NULL,
    prefix INTEGER NOT NULL, rest BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE INDEX content_prefix ON content(prefix);
CREATE INDEX content_object ON content(object);
CREATE TABLE source(signature INTEGER PRIMARY KEY, content INTEGER NOT NULL);
CREATE INDEX source_content ON source(content);
CREATE TABLE size(size INTEGER PRIMARY KEY);
CREATE TABLE staged(ino INTEGER PRIMARY KEY, facts BLOB NOT NULL);
CREATE TABLE past_inode(ino INTEGER NOT NULL, since INTEGER NOT NULL, until INTEGER NOT NULL, content INTEGER,
    body BLOB NOT NULL, PRIMARY KEY(ino, until, since)) WITHOUT ROWID;
CREATE INDEX past_inode_until ON past_inode(until);
CREATE INDEX past_inode_content ON past_inode(content) WHERE content IS NOT NULL;
CREATE TABLE past_dirent(parent INTEGER NOT NULL, name BLOB NOT NULL, ino INTEGER NOT NULL, since INTEGER NOT NULL,
    until INTEGER NOT NULL, crc INTEGER NOT NULL, PRIMARY KEY(parent, name, until, since)) WITHOUT ROWID;
CREATE INDEX past_dirent_until ON past_dirent(until);
CREATE INDEX past_dirent_ino ON past_dirent(ino);
";

/// How a connection is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Answers questions.
    Read,
    /// Answers questions where nothing can be written.
    ReadOnlyMedium,
    /// Changes, each durable when it is committed.
    Write,
    /// Makes a database that is synced as a whole before it counts.
    Build,
}

/// One connection, and the file's name for errors.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) connection: Connection,
    pub(super) file: PathBuf,
}

/// Totals and counters, kept beside the rows and changed with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counters {
    pub(super) next_inode: i64,
    pub(super) nodes: i64,
    pub(super) files: i64,
    pub(super) logical_bytes: i64,
    pub(super) objects: i64,
    pub(super) content_bytes: i64,
    pub(super) stored_bytes: i64,
}

/// Up to where the database follows the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// The number in the name of the journal's file.
    pub(super) file: u64,
    /// Bytes of that file that count.
    pub(super) length: u64,
    /// The place in the chain.
    pub(super) chain: ChainHead,
}

impl Database {
    /// Opens an existing database (or, to build, an empty one).
    pub(super) fn open(file: &Path, key: &DatabaseKey, usage: Use, cache_kib: u32) -> CatalogResult<Self> {
        let flags = match usage {
            Use::ReadOnlyMedium => OpenFlags::SQLITE_OPEN_READ_ONLY,
            Use::Read | Use::Write => OpenFlags::SQLITE_OPEN_READ_WRITE,
            Use::Build => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
        } | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let wrap = |source| CatalogError::Database { file: file.to_path_buf(), source };
        let connection = Connection::open_with_flags(file, flags).map_err(wrap)?;
        let database = Self { connection, file: file.to_path_buf() };
        // Before anything is read.
        database.run(|connection| key.apply(connection))?;
        database.configure(usage, cache_kib)?;
        Ok(database)
    }

    /// An empty database in memory, where nothing can be written.
    pub(super) fn in_memory() -> CatalogResult<Self> {
        let file = PathBuf::from(":memory:");
        let connection =
            Connection::open_in_memory().map_err(|source| CatalogError::Database { file: file.clone(), source })?;
        let database = Self { connection, file };
        database.configure(Use::Build, 2048)?;
        Ok(database)
    }

    fn configure(&self, usage: Use, cache_kib: u32) -> CatalogResult<()> {
        self.run(|connection| {
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
            // No mmap: a bad sector would end the process instead of a query.
            connection.pragma_update_and_check(None, "mmap_size", 0, |_| Ok(())).optional()?;
            connection.pragma_update(None, "cache_size", -i64::from(cache_kib))?;
            connection.pragma_update(None, "temp_store", "MEMORY")?;
            match usage {
                Use::Read | Use::ReadOnlyMedium => connection.pragma_update(None, "query_only", true),
                Use::Write => {
                    connection.pragma_update(None, "synchronous", "FULL")?;
                    let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
                    // Leaving the log would write to the file, which may be sealed.
                    if mode != "wal" {
                        connection.pragma_update_and_check(None, "journal_mode", "TRUNCATE", |_| Ok(()))?;
                    }
                    Ok(())
                }
                Use::Build => {
                    connection.pragma_update_and_check(None, "journal_mode", "OFF", |_| Ok(()))?;
                    connection.pragma_update(None, "synchronous", "OFF")
                }
            }
        })
    }

    /// From here on, changes go to a write-ahead log: readers of the database
    /// wait for nothing, and a commit costs no sync. A power cut may take the
    /// database back to an earlier commit; the journal then says what is missing.
    /// Where there can be no such log, everything is as it was. No transaction
    /// may be open.
    pub(super) fn begin_log(&self) {
        let begin = || {
            self.run(|connection| {
                let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
                if mode == "wal" {
                    connection.pragma_update_and_check(None, "wal_autocheckpoint", CHECKPOINT_PAGES, |_| Ok(()))?;
                    connection.pragma_update(None, "synchronous", "NORMAL")?;
                }
                Ok(mode)
            })
        };
        match begin() {
            Ok(mode) if mode == "wal" => {}
            Ok(mode) => tracing::debug!("the catalog's database keeps its journal mode \"{mode}\""),
            Err(error) => tracing::warn!("the catalog's database gets no write-ahead log: {error}"),
        }
    }

    /// Makes what is committed while `change` runs durable at once. No transaction may be open.
    pub(super) fn durably<T>(&self, change: impl FnOnce() -> CatalogResult<T>) -> CatalogResult<T> {
        let level: i64 = self.run(|connection| connection.pragma_query_value(None, "synchronous", |row| row.get(0)))?;
        self.run(|connection| connection.pragma_update(None, "synchronous", "FULL"))?;
        let outcome = change();
        self.run(|connection| connection.pragma_update(None, "synchronous", level))?;
        outcome
    }

    /// Puts everything that is committed into the one file, durably, and ends
    /// the write-ahead log if no reader has the database open. False when
    /// something may be missing from the file, because readers are at work.
    /// No transaction may be open.
    pub(super) fn settle(&self) -> CatalogResult<bool> {
        self.run(|connection| {
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.busy_timeout(SETTLE_TIMEOUT)?;
            let busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
            let rolled = leave_log(connection)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            Ok(busy == 0 || rolled)
        })
    }

    /// Runs a query; what SQLite says is wrapped with the file's name.
    pub(super) fn run<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> CatalogResult<T> {
        query(&self.connection).map_err(|source| self.failed(source))
    }

    /// Runs queries that all see the same state, at the price of one lock on the file.
    pub(super) fn in_one_state<T>(&self, queries: impl FnOnce(&Self) -> CatalogResult<T>) -> CatalogResult<T> {
        let step = |sql| self.run(|connection| connection.prepare_cached(sql)?.execute([]));
        step("BEGIN")?;
        let outcome = queries(self);
        // Nothing was changed, so either way of ending it is right; an error may have ended it already.
        let ended = if self.connection.is_autocommit() { Ok(0) } else { step("ROLLBACK") };
        let outcome = outcome?;
        ended?;
        Ok(outcome)
    }

    /// Opens a transaction unless one is open.
    pub(super) fn begin(&self) -> CatalogResult<()> {
        if self.connection.is_autocommit() {
            self.run(|connection| connection.execute_batch("BEGIN"))?;
        }
        Ok(())
    }

    /// Ends the transaction, if one is open, and what was done in it.
    pub(super) fn roll_back(&self) {
        if !self.connection.is_autocommit()
            && let Err(error) = self.run(|connection| connection.execute_batch("ROLLBACK"))
        {
            tracing::warn!("a change of the catalog could not be rolled back: {error}");
        }
    }

    /// An error of SQLite. What a damaged file causes is told apart.
    pub(super) fn failed(&self, source: rusqlite::Error) -> CatalogError {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        match source.sqlite_error_code() {
            Some(DatabaseCorrupt | NotADatabase) => self.damaged(source.to_string()),
            _ => match source {
                rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..) => self.damaged(source.to_string()),
                source => CatalogError::Database { file: self.file.clone(), source },
            },
        }
    }

    /// A row that no writer produces.
    pub(super) fn damaged(&self, what: impl Into<String>) -> CatalogError {
        CatalogError::Damaged { file: self.file.clone(), what: what.into() }
    }

    /// Makes the tables, for `archive`.
    pub(super) fn make_schema(&self, archive: ArchiveId) -> CatalogResult<()> {
        self.run(|connection| connection.execute_batch(SCHEMA))?;
        self.put_meta("schema", SCHEMA_VERSION)?;
        self.put_meta("archive", archive.as_bytes().as_slice())?;
        self.store_counters(&Counters { next_inode: 1, ..Counters::default() })
    }

    /// The version of the tables, if it is a later one than this program's.
    pub(super) fn newer_schema(&self) -> CatalogResult<Option<i64>> {
        Ok(self.known_meta::<i64>("schema")?.filter(|version| *version > SCHEMA_VERSION))
    }

    /// Whether the tables are of this version, and of this archive.
    pub(super) fn check_identity(&self, archive: ArchiveId) -> CatalogResult<()> {
        let version: i64 = self.meta("schema")?;
        if version != SCHEMA_VERSION {
            return Err(self.damaged(format!("its schema is version {version}, this program's is {SCHEMA_VERSION}")));
        }
        let id: Vec<u8> = self.meta("archive")?;
        if id != archive.as_bytes() {
            return Err(self.damaged("it belongs to another archive"));
        }
        Ok(())
    }

    /// SQLite's own check of the file's structure. Error: `Damaged`.
    pub(super) fn quick_check(&self) -> CatalogResult<()> {
        let found: String =
            self.run(|connection| connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)))?;
        if found == "ok" { Ok(()) } else { Err(self.damaged(found)) }
    }

    pub(super) fn put_meta(&self, key: &str, value: impl rusqlite::ToSql) -> CatalogResult<()> {
        self.run(|connection| {
            connection
                .prepare_cached("INSERT INTO meta(key, value) VALUES(?1, ?2) ON CONFLICT DO UPDATE SET value = ?2")?
                .execute((key, value))?;
            Ok(())
        })
    }

    fn meta<T: rusqlite::types::FromSql>(&self, key: &str) -> CatalogResult<T> {
        self.known_meta(key)?.ok_or_else(|| self.damaged(format!("\"{key}\" is missing")))
    }

    fn known_meta<T: rusqlite::types::FromSql>(&self, key: &str) -> CatalogResult<Option<T>> {
        self.run(|connection| {
            connection
                .prepare_cached("SELECT value FROM meta WHERE key = ?1")?
                .query_row([key], |row| row.get(0))
                .optional()
        })
    }

    /// From when on history is whole, nanoseconds since 1970; `None` while nothing of it was forgotten.
    pub(super) fn history_begin(&self) -> CatalogResult<Option<i64>> {
        let Some(bytes) = self.known_meta::<Vec<u8>>("history_begin")? else { return Ok(None) };
        let read = || -> Result<i64, FormatError> {
            let mut reader = Reader::new("beginning of history", checked(&bytes, &[2])?);
            let begin = reader.u64()? as i64;
            reader.finish()?;
            Ok(begin)
        };
        read().map(Some).map_err(|error| self.damaged(error.to_string()))
    }

    /// History is whole from `before` on at the earliest.
    pub(super) fn raise_history_begin(&self, before: i64) -> CatalogResult<()> {
        if self.history_begin()?.is_some_and(|begin| begin >= before) {
            return Ok(());
        }
        let mut bytes = before.to_le_bytes().to_vec();
        seal_row(&mut bytes, &[2]);
        self.put_meta("history_begin", bytes)
    }

    /// Up to where the database follows the journal.
    pub(super) fn head(&self) -> CatalogResult<Head> {
        let bytes: Vec<u8> = self.meta("head")?;
        let read = || -> Result<Head, FormatError> {
            let mut reader = Reader::new("catalog head", checked(&bytes, &[0])?);
            let (file, length) = (reader.u64()?, reader.u64()?);
            let chain = ChainHead { sequence: reader.u64()?, hash: Digest::new(reader.array()?) };
            reader.finish()?;
            Ok(Head { file, length, chain })
        };
        read().map_err(|error| self.damaged(error.to_string()))
    }

    pub(super) fn store_head(&self, head: &Head) -> CatalogResult<()> {
        let mut bytes = Vec::with_capacity(64);
        for number in [head.file, head.length, head.chain.sequence] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(head.chain.hash.as_bytes());
        seal_row(&mut bytes, &[0]);
        self.put_meta("head", bytes)
    }

    pub(super) fn counters(&self) -> CatalogResult<Counters> {
        let bytes: Vec<u8> = self.meta("counters")?;
        let read = || -> Result<Counters, FormatError> {
            let mut reader = Reader::new("catalog counters", checked(&bytes, &[1])?);
            let mut next = || reader.u64().map(|number| number as i64);
            let counters = Counters {
                next_inode: next()?,
                nodes: next()?,
                files: next()?,
                logical_bytes: next()?,
                objects: next()?,
                content_bytes: next()?,
                stored_bytes: next()?,
            };
            reader.finish()?;
            Ok(counters)
        };
        read().map_err(|error| self.damaged(error.to_string()))
    }

    pub(super) fn store_counters(&self, counters: &Counters) -> CatalogResult<()> {
        let mut bytes = Vec::with_capacity(64);
        for number in [
            counters.next_inode,
            counters.nodes,
            counters.files,
            counters.logical_bytes,
            counters.objects,
            counters.content_bytes,
            counters.stored_bytes,
        ] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        seal_row(&mut bytes, &[1]);
        self.put_meta("counters", bytes)
    }

    /// Reads a row of `inode` or, with both ends of its period, of `past_inode`.
    pub(super) fn parse_node(&self, ino: i64, period: &[i64], bytes: &[u8]) -> CatalogResult<(NodeMeta, NodeBody)> {
        let parse = || {
            let mut reader = Reader::new("catalog node", checked(bytes, &[&[ino], period].concat())?);
            let node = decode_node(&mut reader)?;
            reader.finish()?;
            Ok(node)
        };
        parse().map_err(|error: FormatError| self.damaged(format!("inode {ino}: {error}")))
    }

    /// Everything that lies in staging, by inode number.
    pub(super) fn staged(&self) -> CatalogResult<Vec<(i64, StagedContent)>> {
        let rows: Vec<(i64, Vec<u8>)> = self.run(|connection| {
            connection
                .prepare_cached("SELECT ino, facts FROM staged ORDER BY ino")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })?;
        let parse = |ino: i64, bytes: &[u8]| {
            let mut reader = Reader::new("staged content", checked(bytes, &[ino])?);
            let content = StagedContent::decode(&mut reader)?;
            reader.finish()?;
            Ok((ino, content))
        };
        let parsed = rows.into_iter().map(|(ino, bytes)| {
            parse(ino, &bytes)
                .map_err(|error: FormatError| self.damaged(format!("staged content of inode {ino}: {error}")))
        });
        parsed.collect()
    }

    /// Whether the newest content of a node lies in staging.
    pub(super) fn is_staged(&self, ino: i64) -> CatalogResult<bool> {
        self.run(|connection| connection.prepare_cached("SELECT 1 FROM staged WHERE ino = ?1")?.exists([ino]))
    }

    /// Nodes other than the root that have no name.
    pub(super) fn unnamed(&self) -> CatalogResult<Vec<i64>> {
        self.run(|connection| {
            let mut statement = connection.prepare_cached("SELECT ino FROM inode WHERE links = 0 ORDER BY ino")?;
            statement.query_map([], |row| row.get(0))?.collect()
        })
    }

    /// Checks a row of `dirent` or, with both ends of its period, of `past_dirent`.
    pub(super) fn check_dirent(
        &self,
        parent: i64,
        name: &[u8],
        ino: i64,
        period: &[i64],
        crc: i64,
    ) -> CatalogResult<()> {
        if dirent_crc(parent, name, ino, period) == crc {
            return Ok(());
        }
        Err(self.damaged(format!("the name \"{}\" in directory {parent}", String::from_utf8_lossy(name))))
    }
}

/// Goes back to a rollback journal, which needs no second file to read the
/// database. False when other connections keep the write-ahead log.
fn leave_log(connection: &Connection) -> rusqlite::Result<bool> {
    match connection.pragma_update_and_check(None, "journal_mode", "TRUNCATE", |row| row.get::<_, String>(0)) {
        Ok(mode) => Ok(mode != "wal"),
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The bytes of a row of `inode`: the node as in the journal, then its CRC32C.
pub(super) fn node_row(ino: i64, since: i64, meta: &NodeMeta, body: &NodeBody) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(96);
    encode_node(meta, body, &mut bytes);
    seal_row(&mut bytes, &[ino, since]);
    bytes
}

fn crc_of(keys: &[i64]) -> u32 {
    keys.iter().fold(0, |crc, key| crc32c::crc32c_append(crc, &key.to_le_bytes()))
}

/// Appends the CRC32C over the row's keys (8 bytes each, little-endian) and its bytes.
pub(super) fn seal_row(bytes: &mut Vec<u8>, keys: &[i64]) {
    let crc = crc32c::crc32c_append(crc_of(keys), bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
}

/// The bytes before the CRC32C that [`seal_row`] appended, if it is right.
pub(super) fn checked<'b>(bytes: &'b [u8], keys: &[i64]) -> Result<&'b [u8], FormatError> {
    let what = "catalog row";
    let (row, crc) = bytes.split_last_chunk::<4>().ok_or(FormatError::Truncated { what, at: bytes.len() as u64 })?;
    let expected = crc32c::crc32c_append(crc_of(keys), row);
    if u32::from_le_bytes(*crc) == expected { Ok(row) } else { Err(FormatError::Checksum { what }) }
}

/// The checksum of a row of `dirent` or `past_dirent`.
pub(super) fn dirent_crc(parent: i64, name: &[u8], ino: i64, period: &[i64]) -> i64 {
    let crc = period.iter().fold(crc_of(&[parent, ino]), |crc, end| crc32c::crc32c_append(crc, &end.to_le_bytes()));
    i64::from(crc32c::crc32c_append(crc, name))
}

/// The checksum of a row of `content`.
pub(super) fn content_crc(object: i64, offset: i64, size: i64, hash: &Digest) -> i64 {
    i64::from(crc32c::crc32c_append(crc_of(&[object, offset, size]), hash.as_bytes()))
}

/// A hash as it stands in `content`: eight bytes as a number, which an index
/// holds cheaply, and the other 24.
pub(super) fn split_hash(hash: &Digest) -> (i64, &[u8]) {
    let (prefix, rest) = hash.as_bytes().split_at(8);
    let mut number = [0; 8];
    number.copy_from_slice(prefix);
    (i64::from_le_bytes(number), rest)
}

/// What [`split_hash`] split.
pub(super) fn join_hash(prefix: i64, rest: &[u8]) -> Option<Digest> {
    let mut bytes = [0; 32];
    let (start, end) = bytes.split_at_mut(8);
    start.copy_from_slice(&prefix.to_le_bytes());
    if rest.len() != end.len() {
        return None;
    }
    end.copy_from_slice(rest);
    Some(Digest::new(bytes))
}

/// Connections for readers: each thread takes one that is free.
#[derive(Debug)]
pub(super) struct Pool {
    slots: Vec<Mutex<Option<Database>>>,
    source: PoolSource,
}

#[derive(Debug)]
enum PoolSource {
    File { file: PathBuf, key: DatabaseKey, usage: Use },
    Memory,
}

/// Connections of a pool.
const POOL_SIZE: usize = 4;
/// Page cache of each, KiB.
const POOL_CACHE_KIB: u32 = 8 << 10;
/// The same where pages are encrypted: the kernel's cache does not save decrypting them.
const KEYED_POOL_CACHE_KIB: u32 = 32 << 10;

impl Pool {
    /// Readers of a file.
    pub(super) fn of_file(file: PathBuf, key: DatabaseKey, usage: Use) -> Self {
        let slots = (0..POOL_SIZE).map(|_| Mutex::new(None)).collect();
        Self { slots, source: PoolSource::File { file, key, usage } }
    }

    /// Readers of a database in memory: one at a time.
    pub(super) fn of_memory(database: Database) -> Self {
        Self { slots: vec![Mutex::new(Some(database))], source: PoolSource::Memory }
    }

    /// Whether it reads a file.
    pub(super) fn is_file(&self) -> bool {
        matches!(self.source, PoolSource::File { .. })
    }

    /// Forgets connections to a file that was replaced.
    pub(super) fn reset(&self) {
        if self.is_file() {
            for slot in &self.slots {
                *slot.lock().unwrap_or_else(PoisonError::into_inner) = None;
            }
        }
    }

    /// Runs `query` with a connection.
    pub(super) fn with<T>(&self, query: impl FnOnce(&Database) -> CatalogResult<T>) -> CatalogResult<T> {
        let mut slot = self.free_slot();
        if slot.is_none()
            && let PoolSource::File { file, key, usage } = &self.source
        {
            let cache = if key.is_some() { KEYED_POOL_CACHE_KIB } else { POOL_CACHE_KIB };
            *slot = Some(Database::open(file, key, *usage, cache)?);
        }
        match &*slot {
            Some(database) => query(database),
            None => Err(CatalogError::Damaged { file: ":memory:".into(), what: "it is not open".into() }),
        }
    }

    fn free_slot(&self) -> MutexGuard<'_, Option<Database>> {
        for slot in &self.slots {
            if let Ok(guard) = slot.try_lock() {
                return guard;
            }
        }
        // All busy: threads spread over the slots and wait.
        let spread = std::thread::current().id();
        let mut hasher = std::collections::hash_map::DefaultHasher::new();
        std::hash::Hash::hash(&spread, &mut hasher);
        let at = std::hash::Hasher::finish(&hasher) as usize % self.slots.len();
        self.slots[at].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
