//! What is known of the archive's health: when each object was verified, what
//! happened, and small values that scrubber and daemon keep. Nothing here is
//! precious: a damaged log is set aside, and made anew.
//!
//! The log of an encrypted archive is encrypted, because events tell of names.
//! Who verifies such an archive without its keys knows no name either: what is
//! found then goes to another log, which is not encrypted and tells only of
//! objects by the names of their directories.

use super::database_key::DatabaseKey;
use crate::archive::{Archive, Event, EventSink, Verdict};
use crate::base::{ObjectName, Timestamp};
use crate::catalog::{CatalogError, CatalogResult};
use crate::keys::Purpose;
use rusqlite::{Connection, OptionalExtension};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The log's file.
const FILE: &str = "state.db";
/// That of an encrypted archive whose keys are not there.
const LOCKED_FILE: &str = "state-locked.db";
/// Events that are kept; older ones go.
const MAX_EVENTS: i64 = 10_000;
/// How many events may be added before old ones are removed.
const TRIM_EVERY: u32 = 256;
/// How long to wait for another process that writes to the log.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS verified(object TEXT PRIMARY KEY, seconds INTEGER NOT NULL, nanoseconds INTEGER NOT NULL,
    verdict TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS event(id INTEGER PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS value(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
";

/// A verification says everything about its object, an event only that
/// something was wrong: it counts until the next verification.
const DAMAGED: &str = "
SELECT object FROM verified WHERE verdict <> ?1
UNION
SELECT bad.object FROM
    (SELECT json_extract(body, '$.object') AS object, max(json_extract(body, '$.seconds')) AS seconds FROM event
     WHERE CASE WHEN json_valid(body) THEN json_extract(body, '$.kind') END IN ('lost', 'heal_failed')
     GROUP BY 1) AS bad
    LEFT JOIN verified ON verified.object = bad.object
    WHERE bad.object IS NOT NULL AND (verified.seconds IS NULL OR verified.seconds < bad.seconds)
ORDER BY 1";

/// The health log of one archive. May be used from any thread, and by several processes.
#[derive(Debug)]
pub struct HealthLog {
    file: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    connection: Connection,
    since_trim: u32,
}

impl HealthLog {
    /// Opens the log of `archive` in `home`, or makes it. Where `home` cannot
    /// be written, the log lives in memory. Of an encrypted archive that is
    /// closed it is the log that holds no names.
    pub fn open_for(home: &Path, archive: &Archive) -> CatalogResult<Self> {
        let closed = archive.is_encrypted() && archive.keys().is_none();
        let name = if closed { LOCKED_FILE } else { FILE };
        Self::open_keyed(home, name, &DatabaseKey::of(archive, Purpose::StateDatabase))
    }

    /// As [`open_for`](Self::open_for), of an archive that is not encrypted.
    pub fn open(home: &Path) -> CatalogResult<Self> {
        Self::open_keyed(home, FILE, &DatabaseKey::none())
    }

    fn open_keyed(home: &Path, name: &str, key: &DatabaseKey) -> CatalogResult<Self> {
        let file = home.join(".blockframe").join(name);
        let connection = match open_file(&file, key) {
            Ok(connection) => connection,
            Err(error) if is_damage(&error) => {
                let aside = file.with_extension("db.damaged");
                tracing::warn!("the health log {} was damaged; it is begun anew: {error}", file.display());
                let moved = std::fs::rename(&file, &aside);
                match moved.map_err(|_| ()).and_then(|()| open_file(&file, key).map_err(|_| ())) {
                    Ok(connection) => connection,
                    Err(()) => in_memory(&file)?,
                }
            }
            Err(error) => {
                tracing::debug!("the health log {} is kept in memory: {error}", file.display());
                in_memory(&file)?
            }
        };
        Ok(Self { file, state: Mutex::new(State { connection, since_trim: 0 }) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> CatalogResult<T> {
        query(&self.state().connection).map_err(|source| CatalogError::Database { file: self.file.clone(), source })
    }

    /// The newest `limit` events, newest first.
    pub fn recent_events(&self, limit: usize) -> CatalogResult<Vec<Event>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let bodies: Vec<String> = self.run(|connection| {
            connection
                .prepare_cached("SELECT body FROM event ORDER BY id DESC LIMIT ?1")?
                .query_map([limit], |row| row.get(0))?
                .collect()
        })?;
        // An event that cannot be read is worth less than the others.
        Ok(bodies.iter().filter_map(|body| serde_json::from_str(body).ok()).collect())
    }

    /// Records that an object was verified.
    pub fn set_verified(&self, object: &ObjectName, at: Timestamp, verdict: Verdict) -> CatalogResult<()> {
        self.run(|connection| {
            connection
                .prepare_cached(
                    "INSERT INTO verified(object, seconds, nanoseconds, verdict) VALUES(?1, ?2, ?3, ?4)
                     ON CONFLICT DO UPDATE SET seconds = ?2, nanoseconds = ?3, verdict = ?4",
                )?
                .execute((object.as_str(), at.seconds, at.nanoseconds, verdict.word()))
                .map(drop)
        })
    }

    /// When an object was verified last, and what was found.
    pub fn verified(&self, object: &ObjectName) -> CatalogResult<Option<(Timestamp, Verdict)>> {
        let row: Option<(i64, u32, String)> = self.run(|connection| {
            connection
                .prepare_cached("SELECT seconds, nanoseconds, verdict FROM verified WHERE object = ?1")?
                .query_row([object.as_str()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                .optional()
        })?;
        Ok(row.and_then(|(seconds, nanoseconds, word)| Some((Timestamp { seconds, nanoseconds }, verdict(&word)?))))
    }

    /// At most `limit` of the `existing` objects: those never verified first,
    /// in the order given, then those verified longest ago. What the log has
    /// of other objects is forgotten.
    pub fn oldest(&self, existing: &[ObjectName], limit: usize) -> CatalogResult<Vec<ObjectName>> {
        let rows: Vec<(String, i64, u32)> = self.run(|connection| {
            connection
                .prepare_cached("SELECT object, seconds, nanoseconds FROM verified")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect()
        })?;
        let mut times: HashMap<String, Timestamp> = rows
            .into_iter()
            .map(|(object, seconds, nanoseconds)| (object, Timestamp { seconds, nanoseconds }))
            .collect();
        let mut order: Vec<(Option<Timestamp>, &ObjectName)> =
            existing.iter().map(|object| (times.remove(object.as_str()), object)).collect();
        order.sort_by_key(|(time, _)| *time);
        if !times.is_empty() {
            self.run(|connection| {
                let transaction = connection.unchecked_transaction()?;
                for object in times.keys() {
                    transaction.prepare_cached("DELETE FROM verified WHERE object = ?1")?.execute([object])?;
                }
                transaction.commit()
            })?;
        }
        Ok(order.into_iter().take(limit).map(|(_, object)| object.clone()).collect())
    }

    /// How many objects have each verdict.
    pub fn verdicts(&self) -> CatalogResult<BTreeMap<Verdict, u64>> {
        let rows: Vec<(String, u64)> = self.run(|connection| {
            connection
                .prepare_cached("SELECT verdict, count(*) FROM verified GROUP BY verdict")?
                .query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)))?
                .collect()
        })?;
        Ok(rows.into_iter().filter_map(|(word, count)| Some((verdict(&word)?, count))).collect())
    }

    /// Objects that were not healthy when they were verified last, or whose
    /// damage was met since and not healed, in the order of their names.
    pub fn damaged(&self) -> CatalogResult<Vec<ObjectName>> {
        let names: Vec<String> = self.run(|connection| {
            connection.prepare_cached(DAMAGED)?.query_map([Verdict::Healthy.word()], |row| row.get(0))?.collect()
        })?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// A value that was kept under `key`.
    pub fn get_value(&self, key: &str) -> CatalogResult<Option<String>> {
        self.run(|connection| {
            connection
                .prepare_cached("SELECT value FROM value WHERE key = ?1")?
                .query_row([key], |row| row.get(0))
                .optional()
        })
    }

    /// Keeps a value under `key`; `None` removes it.
    pub fn set_value(&self, key: &str, value: Option<&str>) -> CatalogResult<()> {
        self.run(|connection| match value {
            Some(value) => connection
                .prepare_cached("INSERT INTO value(key, value) VALUES(?1, ?2) ON CONFLICT DO UPDATE SET value = ?2")?
                .execute((key, value))
                .map(drop),
            None => connection.prepare_cached("DELETE FROM value WHERE key = ?1")?.execute([key]).map(drop),
        })
    }
}

impl EventSink for HealthLog {
    fn record(&self, event: Event) {
        let Ok(body) = serde_json::to_string(&event) else { return };
        let mut state = self.state();
        let added = state
            .connection
            .prepare_cached("INSERT INTO event(body) VALUES(?1)")
            .and_then(|mut statement| statement.execute([body]));
        if let Err(error) = added {
            tracing::warn!("an event is not in the health log: {error}");
            return;
        }
        state.since_trim += 1;
        if state.since_trim >= TRIM_EVERY {
            state.since_trim = 0;
            let sql = "DELETE FROM event WHERE id <= (SELECT max(id) FROM event) - ?1";
            if let Err(error) = state.connection.execute(sql, [MAX_EVENTS]) {
                tracing::warn!("old events stay in the health log: {error}");
            }
        }
    }
}

fn verdict(word: &str) -> Option<Verdict> {
    [Verdict::Healthy, Verdict::Degraded, Verdict::Recoverable, Verdict::Unrecoverable]
        .into_iter()
        .find(|verdict| verdict.word() == word)
}

fn open_file(file: &Path, key: &DatabaseKey) -> rusqlite::Result<Connection> {
    if let Some(directory) = file.parent()
        && let Err(error) = std::fs::create_dir_all(directory)
    {
        tracing::debug!("{} cannot be made: {error}", directory.display());
    }
    let connection = Connection::open(file)?;
    key.apply(&connection)?;
    prepare(&connection)?;
    // Finds a torn or flipped page now rather than in the middle of a scrub.
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if found != "ok" {
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
        return Err(rusqlite::Error::SqliteFailure(code, Some(found)));
    }
    // Shows whether it can be written at all.
    connection.execute("DELETE FROM event WHERE id <= (SELECT max(id) FROM event) - ?1", [MAX_EVENTS])?;
    Ok(connection)
}

fn in_memory(file: &Path) -> CatalogResult<Connection> {
    let wrap = |source| CatalogError::Database { file: file.to_path_buf(), source };
    let connection = Connection::open_in_memory().map_err(wrap)?;
    prepare(&connection).map_err(wrap)?;
    Ok(connection)
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update_and_check(None, "mmap_size", 0, |_| Ok(())).optional()?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update_and_check(None, "journal_mode", "TRUNCATE", |_| Ok(()))?;
    // A lost second of the log is cheaper than a sync for each event.
    connection.pragma_update(None, "synchronous", "OFF")?;
    connection.execute_batch(SCHEMA)
}

fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    match error.sqlite_error_code() {
        Some(code) => matches!(code, DatabaseCorrupt | NotADatabase),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::EventKind;
    use crate::base::Digest;

    fn name(text: &str) -> ObjectName {
        ObjectName::new(text.as_bytes(), &Digest::of(text.as_bytes()))
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp { seconds, nanoseconds: 5 }
    }

    #[test]
    fn the_oldest_come_first_and_those_never_verified_before_them() {
        let home = tempfile::tempdir().unwrap();
        let log = HealthLog::open(home.path()).unwrap();
        log.set_verified(&name("new"), at(30), Verdict::Healthy).unwrap();
        log.set_verified(&name("old"), at(10), Verdict::Recoverable).unwrap();
        log.set_verified(&name("gone"), at(1), Verdict::Healthy).unwrap();
        let existing = [name("new"), name("never"), name("old")];
        assert_eq!(log.oldest(&existing, 9).unwrap(), [name("never"), name("old"), name("new")]);
        assert_eq!(log.oldest(&existing, 1).unwrap(), [name("never")]);
        assert_eq!(log.verified(&name("gone")).unwrap(), None);
        drop(log);
        let log = HealthLog::open(home.path()).unwrap();
        assert_eq!(log.verified(&name("old")).unwrap(), Some((at(10), Verdict::Recoverable)));
        assert_eq!(log.verdicts().unwrap(), BTreeMap::from([(Verdict::Healthy, 1), (Verdict::Recoverable, 1)]));
    }

    #[test]
    fn events_are_bounded_and_the_newest_stay() {
        let home = tempfile::tempdir().unwrap();
        let log = HealthLog::open(home.path()).unwrap();
        let count = MAX_EVENTS + i64::from(TRIM_EVERY) * 2;
        log.state().connection.execute_batch("BEGIN").unwrap();
        for number in 0..count {
            log.record(Event::new(at(number), EventKind::Healed, "data.dat", "a flipped bit"));
        }
        log.state().connection.execute_batch("COMMIT").unwrap();
        let events = log.recent_events(usize::MAX).unwrap();
        assert_eq!(events[0].seconds, count - 1);
        assert!(events.len() as i64 >= MAX_EVENTS && events.len() as i64 <= MAX_EVENTS + i64::from(TRIM_EVERY));
    }

    #[test]
    fn values_are_kept_and_removed() {
        let home = tempfile::tempdir().unwrap();
        let log = HealthLog::open(home.path()).unwrap();
        log.set_value("cursor", Some("a")).unwrap();
        log.set_value("cursor", Some("b")).unwrap();
        assert_eq!(log.get_value("cursor").unwrap().as_deref(), Some("b"));
        log.set_value("cursor", None).unwrap();
        assert_eq!(log.get_value("cursor").unwrap(), None);
    }

    #[test]
    fn a_damaged_log_is_set_aside_and_begun_anew() {
        let home = tempfile::tempdir().unwrap();
        drop(HealthLog::open(home.path()).unwrap());
        let file = home.path().join(".blockframe/state.db");
        std::fs::write(&file, vec![0x5a; 9000]).unwrap();
        let log = HealthLog::open(home.path()).unwrap();
        log.set_value("a", Some("b")).unwrap();
        assert!(file.with_extension("db.damaged").exists());
        drop(log);
        assert_eq!(HealthLog::open(home.path()).unwrap().get_value("a").unwrap().as_deref(), Some("b"));
    }

    #[test]
    fn a_home_that_cannot_be_used_gets_a_log_in_memory() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join(".blockframe"), b"a file in the way").unwrap();
        let log = HealthLog::open(home.path()).unwrap();
        log.record(Event::new(at(1), EventKind::Lost, "data.dat", ""));
        assert_eq!(log.recent_events(5).unwrap().len(), 1);
    }
}
