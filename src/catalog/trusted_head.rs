//! The last place of an archive's journal that this machine has seen, kept
//! outside of the stores: whoever can write to a store can put back an older
//! state of it, of which every byte is authentic. Only a memory elsewhere
//! tells that it is old.
//!
//! A place is remembered when the group before it is durable on the store. So
//! no crash of this program, and no power cut under an honest disk, makes a
//! store end before it: what a torn tail loses was never remembered.

use super::{CatalogError, CatalogResult};
use crate::archive::Archive;
use crate::base::calendar::rfc3339_seconds;
use crate::base::{ArchiveId, Clock, Digest, Secret};
use crate::format::journal::ChainHead;
use crate::format::sealed_json;
use crate::keys::{ArchiveKeys, Purpose};
use crate::store::publish_file;
use serde::{Deserialize, Serialize};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const WHAT: &str = "trusted head";
const FORMAT: &str = "blockframe-trusted-head";
const VERSION: u64 = 1;
/// Longest file that is read, bytes.
const LIMIT: u64 = 4096;

/// Where this machine remembers what it saw of encrypted archives, and how strict it is.
#[derive(Debug, Clone, Default)]
pub struct TrustedHeads {
    directory: Option<PathBuf>,
    accept_rollback: bool,
}

impl TrustedHeads {
    /// In a directory of this machine, which is on none of the stores. `accept_rollback` believes
    /// whatever the store presents, and remembers it instead.
    pub fn in_directory(directory: PathBuf, accept_rollback: bool) -> Self {
        Self { directory: Some(directory), accept_rollback }
    }

    pub(super) fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    pub(super) fn accepts_rollback(&self) -> bool {
        self.accept_rollback
    }

    /// Nothing is remembered, so that no rollback is noticed.
    pub fn nowhere() -> Self {
        Self::default()
    }
}

/// The file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: String,
    version: u64,
    archive: ArchiveId,
    /// Number of the next block.
    generation: u64,
    /// BLAKE3 of the block before it.
    hash: Digest,
    /// When it was seen, for people.
    seen: String,
    /// Keyed BLAKE3 over archive, generation and hash.
    authentication: Digest,
}

/// What this machine remembers of one archive.
#[derive(Debug, Clone)]
pub(super) struct HeadMemory {
    heads: TrustedHeads,
    archive: ArchiveId,
    keys: Option<Arc<ArchiveKeys>>,
    clock: Arc<dyn Clock>,
}

/// What a store presents, in the terms of what was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contains {
    /// The very place.
    Yes,
    /// Another block stands there, or none that can be read.
    No,
    /// The journal begins after it: it was compacted.
    Compacted,
    /// The journal cannot tell; the database, which is further, does.
    Unknown,
}

/// A place that was seen, against what the store `label` presents now.
///
/// Errors: `RolledBack`, `Forked`. With several stores each is asked by itself.
pub(super) fn judge(label: &str, seen: ChainHead, presented: u64, contains: Contains) -> CatalogResult<()> {
    let (store, generation) = (label.to_string(), seen.sequence);
    if presented < generation {
        return Err(CatalogError::RolledBack { store, presented, seen: generation });
    }
    match contains {
        Contains::Yes => Ok(()),
        Contains::No => Err(CatalogError::Forked { store, presented, seen: generation }),
        Contains::Compacted | Contains::Unknown => {
            tracing::info!("{label} presents generation {presented} and does not have {generation} any more; accepted");
            Ok(())
        }
    }
}

impl HeadMemory {
    pub(super) fn new(archive: &Archive, heads: TrustedHeads) -> Self {
        let keys = archive.keys().cloned();
        Self { heads, archive: archive.descriptor().id, keys, clock: archive.clock().clone() }
    }

    fn file(&self) -> Option<PathBuf> {
        self.heads.directory.as_ref().map(|directory| directory.join(format!("{}.json", self.archive)))
    }

    pub(super) fn accepts_rollback(&self) -> bool {
        self.heads.accept_rollback
    }

    /// An archive of which this machine has seen an encrypted state does not become one that is not encrypted.
    ///
    /// Error: `NotEncrypted`.
    pub(super) fn refuse_plain(&self, label: &str) -> CatalogResult<()> {
        match self.file() {
            Some(file) if self.keys.is_none() && file.exists() => {
                if self.heads.accept_rollback {
                    tracing::warn!("{label} is not encrypted any more; accepted");
                    return std::fs::remove_file(&file).map_err(|source| CatalogError::Local {
                        operation: "remove",
                        file,
                        source,
                    });
                }
                Err(CatalogError::NotEncrypted { store: label.to_string(), file })
            }
            _ => Ok(()),
        }
    }

    /// The place that was seen last. `None` for a machine that never saw the
    /// archive, and for a file that is not authentic.
    pub(super) fn seen(&self) -> Option<ChainHead> {
        let (keys, file) = (self.keys.as_ref()?, self.file()?);
        match read(&file) {
            Ok(bytes) => match open(&bytes, self.archive, &key(keys)) {
                Some(seen) => Some(seen),
                None => {
                    tracing::warn!("{} is damaged or not authentic; a rollback cannot be noticed", file.display());
                    None
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tracing::info!("this machine sees the archive for the first time: a rollback cannot be noticed");
                None
            }
            Err(error) => {
                tracing::warn!("{} cannot be read, a rollback cannot be noticed: {error}", file.display());
                None
            }
        }
    }

    /// Remembers a place before which everything is durable, unless a later one is remembered.
    pub(super) fn remember(&self, place: ChainHead) {
        self.write(place, self.heads.accept_rollback);
    }

    fn write(&self, place: ChainHead, back: bool) {
        let (Some(keys), Some(file)) = (&self.keys, self.file()) else { return };
        let key = key(keys);
        let known = read(&file).ok().and_then(|bytes| open(&bytes, self.archive, &key));
        if known.is_some_and(|known| known == place || (known.sequence > place.sequence && !back)) {
            return;
        }
        let seen = rfc3339_seconds(self.clock.now().seconds);
        if let Err(error) = write(&file, self.archive, place, seen, &key) {
            tracing::warn!("{} cannot be written, a rollback may not be noticed: {error}", file.display());
        }
    }
}

fn key(keys: &ArchiveKeys) -> Secret<32> {
    keys.derive(Purpose::TrustedHead)
}

fn authentication(archive: ArchiveId, place: &ChainHead, key: &Secret<32>) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_keyed(key.expose());
    hasher.update(archive.as_bytes());
    hasher.update(&place.sequence.to_le_bytes());
    hasher.update(place.hash.as_bytes());
    hasher.finalize()
}

pub(super) fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(file)?.take(LIMIT).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn open(bytes: &[u8], archive: ArchiveId, key: &Secret<32>) -> Option<ChainHead> {
    let document: Document = sealed_json::open_as(WHAT, FORMAT, VERSION, bytes).ok()?;
    let place = ChainHead { sequence: document.generation, hash: document.hash };
    // Compared in constant time.
    let said = blake3::Hash::from_bytes(*document.authentication.as_bytes());
    (document.archive == archive && authentication(archive, &place, key) == said).then_some(place)
}

fn write(file: &Path, archive: ArchiveId, place: ChainHead, seen: String, key: &Secret<32>) -> io::Result<()> {
    let document = Document {
        format: FORMAT.into(),
        version: VERSION,
        archive,
        generation: place.sequence,
        hash: place.hash,
        seen,
        authentication: authentication(archive, &place, key).into(),
    };
    let bytes = sealed_json::seal(WHAT, &document).map_err(io::Error::other)?;
    if let Some(directory) = file.parent() {
        std::fs::create_dir_all(directory)?;
    }
    publish_file(file, &bytes)
}
