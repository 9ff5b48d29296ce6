//! What a commit tells while it runs, and at its end.

use super::Problem;
use crate::base::{ContentHash, ObjectName};
use crate::catalog::CommitSummary;
use crate::format::EntryPath;
use std::path::PathBuf;

/// What became of one file.
#[derive(Debug)]
pub enum Outcome {
    /// Its content is new and stored now.
    Stored,
    /// Its content was in the archive already, under another name or of another time.
    Duplicate,
    /// It was committed before and has not changed: it was not read.
    Unchanged,
    /// It was not committed.
    Failed(Problem),
}

/// One regular file, or whatever failed.
#[derive(Debug)]
pub struct FileReport {
    /// Its path in the archive (the nearest directory above, for a name the archive cannot hold).
    pub path: EntryPath,
    /// Where it was read from.
    pub source: PathBuf,
    /// Length, bytes.
    pub size: u64,
    /// The tier that holds it; `None` for empty and failed ones.
    pub tier: Option<u8>,
    /// BLAKE3 of its content; `None` when it failed.
    pub hash: Option<ContentHash>,
    /// What became of it.
    pub outcome: Outcome,
}

/// Follows a commit. Called from the thread that commits and from threads that write.
pub trait Reporter: Sync {
    /// Whether the tree shall be counted before it is read, for a percentage.
    fn wants_total(&self) -> bool {
        false
    }

    /// How much there is: regular files and their bytes, as far as could be seen.
    fn total(&self, _files: u64, _bytes: u64) {}

    /// So many more bytes of sources are done.
    fn advance(&self, _bytes: u64) {}

    /// A file is done: durable when stored, but not visible before the commit ends.
    fn file(&self, _report: &FileReport) {}

    /// A damaged object was replaced by a whole one of the same content.
    fn object_replaced(&self, _object: &ObjectName) {}
}

/// Tells nobody.
impl Reporter for () {}

/// What a commit did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CommitReport {
    /// Files whose content was stored.
    pub stored: u64,
    /// Files whose content was there already.
    pub duplicates: u64,
    /// Files that were not read because they have not changed.
    pub unchanged: u64,
    /// What could not be committed; each was reported.
    pub failed: u64,
    /// Directories, links and special files.
    pub others: u64,
    /// Bytes of all regular files committed.
    pub bytes: u64,
    /// New objects.
    pub objects: u64,
    /// Bytes that the new objects take on the store, all shards counted.
    pub stored_bytes: u64,
    /// What changed in the namespace.
    pub summary: CommitSummary,
}

impl CommitReport {
    pub(super) fn count(&mut self, report: &FileReport) {
        match report.outcome {
            Outcome::Stored => self.stored += 1,
            Outcome::Duplicate => self.duplicates += 1,
            Outcome::Unchanged => self.unchanged += 1,
            Outcome::Failed(_) => {
                self.failed += 1;
                return;
            }
        }
        self.bytes += report.size;
    }
}
