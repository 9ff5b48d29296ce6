//! The generation of an archive's key ring that this machine has seen, kept
//! beside the [last place of its journal](super::TrustedHeads): a store may
//! bring back both copies of an older ring, in which a removed slot still is.

use super::trusted_head::{TrustedHeads, read};
use super::{CatalogError, CatalogResult};
use crate::base::{ArchiveId, Secret};
use crate::format::sealed_json;
use crate::keys::{ArchiveKeys, Purpose};
use crate::store::publish_file;
use serde::{Deserialize, Serialize};

const WHAT: &str = "trusted key ring";
const FORMAT: &str = "blockframe-trusted-ring";
const VERSION: u64 = 1;

/// The file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: String,
    version: u64,
    archive: ArchiveId,
    /// Of the ring.
    generation: u64,
    /// Keyed BLAKE3 over archive, `ring` and generation.
    authentication: crate::base::Digest,
}

impl TrustedHeads {
    /// Compares the generation of a key ring that was opened with the newest
    /// one that this machine has seen, and remembers it. `label` names the store.
    ///
    /// Error: `OldKeyRing`, unless a rollback is accepted.
    pub fn check_ring(&self, label: &str, keys: &ArchiveKeys, generation: u64) -> CatalogResult<()> {
        let Some(directory) = self.directory() else { return Ok(()) };
        let file = directory.join(format!("{}-keys.json", keys.archive()));
        let key: Secret<32> = keys.derive(Purpose::TrustedHead);
        let seen = read(&file).ok().and_then(|bytes| open(&bytes, keys.archive(), &key));
        match seen {
            Some(seen) if seen == generation => return Ok(()),
            Some(seen) if seen > generation && !self.accepts_rollback() => {
                return Err(CatalogError::OldKeyRing { store: label.to_string(), presented: generation, seen });
            }
            _ => {}
        }
        let document = Document {
            format: FORMAT.into(),
            version: VERSION,
            archive: keys.archive(),
            generation,
            authentication: authentication(keys.archive(), generation, &key).into(),
        };
        let written = sealed_json::seal(WHAT, &document).map_err(std::io::Error::other).and_then(|bytes| {
            std::fs::create_dir_all(directory)?;
            publish_file(&file, &bytes)
        });
        if let Err(error) = written {
            tracing::warn!("{} cannot be written, an older key ring may not be noticed: {error}", file.display());
        }
        Ok(())
    }
}

fn authentication(archive: ArchiveId, generation: u64, key: &Secret<32>) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_keyed(key.expose());
    hasher.update(archive.as_bytes());
    hasher.update(b"ring");
    hasher.update(&generation.to_le_bytes());
    hasher.finalize()
}

fn open(bytes: &[u8], archive: ArchiveId, key: &Secret<32>) -> Option<u64> {
    let document: Document = sealed_json::open_as(WHAT, FORMAT, VERSION, bytes).ok()?;
    // Compared in constant time.
    let said = blake3::Hash::from_bytes(*document.authentication.as_bytes());
    let authentic = document.archive == archive && authentication(archive, document.generation, key) == said;
    authentic.then_some(document.generation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Epoch;

    #[test]
    fn an_older_key_ring_is_noticed_and_can_be_accepted() {
        let state = tempfile::tempdir().unwrap();
        let secret = |byte| Secret::filled_by(|bytes: &mut [u8; 32]| bytes.fill(byte));
        let keys = ArchiveKeys::new(ArchiveId::random(), secret(1), vec![(Epoch::FIRST, secret(2))]).unwrap();
        let heads = |accept| TrustedHeads::in_directory(state.path().join("heads"), accept);
        heads(false).check_ring("store", &keys, 3).unwrap();
        heads(false).check_ring("store", &keys, 5).unwrap();
        let refused = heads(false).check_ring("store", &keys, 4);
        assert!(matches!(refused, Err(CatalogError::OldKeyRing { presented: 4, seen: 5, .. })), "{refused:?}");
        heads(true).check_ring("store", &keys, 4).unwrap();
        heads(false).check_ring("store", &keys, 4).unwrap();
        // What is not authentic is no memory.
        let file = state.path().join("heads").join(format!("{}-keys.json", keys.archive()));
        let other = ArchiveKeys::new(keys.archive(), secret(9), vec![(Epoch::FIRST, secret(2))]).unwrap();
        heads(false).check_ring("store", &other, 1).unwrap();
        std::fs::write(&file, b"{}").unwrap();
        heads(false).check_ring("store", &keys, 1).unwrap();
    }
}
