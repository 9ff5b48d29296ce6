//! The keys of the SQLite files of an encrypted archive.
//!
//! SQLCipher encrypts each page (AES-256-CBC with a fresh initialisation
//! vector, HMAC-SHA512 over it), the write-ahead log and the rollback journal
//! included; temporary tables are kept in memory. The index of the log
//! (`-shm`) holds page numbers only. An archive that is not encrypted has plain
//! SQLite files.

use crate::archive::Archive;
use crate::base::Secret;
use crate::keys::Purpose;
use rusqlite::Connection;
use std::fmt::Write as _;
use std::sync::Arc;
use zeroize::Zeroizing;

/// What a database file is opened with. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct DatabaseKey(Option<Arc<Secret<32>>>);

impl DatabaseKey {
    /// The key of the database for `purpose`; none when the archive is not encrypted, or its keys are not there.
    pub(super) fn of(archive: &Archive, purpose: Purpose) -> Self {
        Self(archive.keys().map(|keys| Arc::new(keys.derive(purpose))))
    }

    /// For a file that is not encrypted.
    pub(super) const fn none() -> Self {
        Self(None)
    }

    /// Whether pages are encrypted.
    pub(super) fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// Gives a connection the key, as its first statement.
    pub(super) fn apply(&self, connection: &Connection) -> rusqlite::Result<()> {
        let Some(key) = &self.0 else { return Ok(()) };
        // As long as it will be, so that it does not move and leave a copy.
        let mut pragma = Zeroizing::new(String::with_capacity(128));
        pragma.push_str("PRAGMA key = \"x'");
        for byte in key.expose() {
            // Cannot fail: it is a string.
            let _ = write!(pragma, "{byte:02x}");
        }
        pragma.push_str("'\"");
        // An error might quote the statement.
        connection.execute_batch(&pragma).map_err(|error| {
            let code = error.sqlite_error().map_or(rusqlite::ffi::SQLITE_ERROR, |error| error.extended_code);
            rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), Some("the key was not taken".into()))
        })
    }
}
