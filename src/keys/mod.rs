//! What an encrypted archive is opened with: a secret opens a slot of the key
//! ring, the slot holds the archive key, that opens the epochs' keys, and all
//! other keys are derived from those.

mod copies;
mod error;
mod gf256;
mod kdf;
pub mod page;
pub mod phrase;
mod ring;
mod secret;
pub mod shares;
mod slot;
#[cfg(test)]
mod tests;
mod words;

pub use copies::{RingCopies, RingHeal};
pub use error::{KeyError, KeyResult};
pub use kdf::{Argon2Cost, Hex, Kdf};
pub use ring::{KeyRing, MAX_EPOCHS, MAX_SLOTS, OpenRing, WrappedEpoch};
pub use secret::{MAX_SECRET, MIN_KEY_FILE, SlotKind, SlotSecret, random_key};
pub use slot::{MAX_LABEL, NewSlot, Slot, SlotId};
pub use words::{Words, WordsError};

use crate::base::{ArchiveId, ContentHash, Digest, Secret, SegmentIndex};
use crate::codec::seal::{CipherSuite, FrameCipher, frame_cipher};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

/// Number of an epoch, from 1. A rotation begins the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Epoch(u32);

impl Epoch {
    /// The first epoch of every archive.
    pub const FIRST: Epoch = Epoch(1);

    /// An epoch by its number; `None` for 0.
    pub const fn new(number: u32) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a key that is derived from the archive key is for. These do not change with the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Authenticates the key ring.
    KeyRing,
    /// Wraps the epochs' keys.
    EpochWrap,
    /// Encrypts the catalog's database.
    CatalogDatabase,
    /// Encrypts the state database.
    StateDatabase,
    /// Encrypts staging files.
    Staging,
    /// Encrypts temporary files.
    Spool,
    /// Authenticates the place in the journal that this machine saw last.
    TrustedHead,
}

impl Purpose {
    fn context(self) -> &'static str {
        match self {
            Purpose::KeyRing => "blockframe 1 key ring",
            Purpose::EpochWrap => "blockframe 1 epoch wrap",
            Purpose::CatalogDatabase => "blockframe 1 catalog database",
            Purpose::StateDatabase => "blockframe 1 state database",
            Purpose::Staging => "blockframe 1 staging",
            Purpose::Spool => "blockframe 1 spool",
            Purpose::TrustedHead => "blockframe 1 trusted head",
        }
    }
}

/// BLAKE3 in its key derivation mode over the parts in order.
fn derive<const N: usize>(context: &str, parts: &[&[u8]]) -> Secret<N> {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for part in parts {
        hasher.update(part);
    }
    Secret::filled_by(|bytes| hasher.finalize_xof().fill(bytes))
}

/// The keys of an open archive. Shared by all that use them; a rotation adds an epoch.
#[derive(Debug)]
pub struct ArchiveKeys {
    archive: ArchiveId,
    key: Secret<32>,
    epochs: RwLock<BTreeMap<Epoch, Arc<EpochKeys>>>,
}

impl ArchiveKeys {
    /// The keys of `archive`; `None` without an epoch.
    pub fn new(archive: ArchiveId, key: Secret<32>, epochs: Vec<(Epoch, Secret<32>)>) -> Option<Arc<Self>> {
        if epochs.is_empty() {
            return None;
        }
        let keys = Self { archive, key, epochs: RwLock::default() };
        epochs.into_iter().for_each(|(epoch, key)| keys.add_epoch(epoch, key));
        Some(Arc::new(keys))
    }

    /// A key for one purpose.
    pub fn derive<const N: usize>(&self, purpose: Purpose) -> Secret<N> {
        derive(purpose.context(), &[self.key.expose(), self.archive.as_bytes()])
    }

    /// The archive they belong to.
    pub fn archive(&self) -> ArchiveId {
        self.archive
    }

    /// The keys of the newest epoch: those for new data.
    pub fn current(&self) -> Arc<EpochKeys> {
        let epochs = self.epochs.read().unwrap_or_else(PoisonError::into_inner);
        let (_, newest) =
            epochs.last_key_value().unwrap_or_else(|| unreachable!("there is an epoch from the beginning"));
        newest.clone()
    }

    /// The keys of an epoch, if it is known.
    pub fn epoch(&self, epoch: Epoch) -> Option<Arc<EpochKeys>> {
        self.epochs.read().unwrap_or_else(PoisonError::into_inner).get(&epoch).cloned()
    }

    /// Makes the key of an epoch known.
    pub fn add_epoch(&self, epoch: Epoch, key: Secret<32>) {
        let keys = EpochKeys { archive: self.archive, epoch, key };
        self.epochs.write().unwrap_or_else(PoisonError::into_inner).insert(epoch, Arc::new(keys));
    }
}

/// The line of an object: the versions of a content that were made from each
/// other by rewriting share it, and so may share segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ObjectLine(pub [u8; 16]);

/// Random bytes in the footer of a sealed segment, which make its key a fresh one.
pub type SegmentSalt = [u8; 32];

/// The keys of one epoch.
#[derive(Debug)]
pub struct EpochKeys {
    archive: ArchiveId,
    epoch: Epoch,
    key: Secret<32>,
}

impl EpochKeys {
    /// Which epoch.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn derive<const N: usize>(&self, context: &str, parts: &[&[u8]]) -> Secret<N> {
        let number = self.epoch.get().to_le_bytes();
        let mut all: Vec<&[u8]> = vec![self.key.expose(), self.archive.as_bytes(), &number];
        all.extend_from_slice(parts);
        derive(context, &all)
    }

    /// What stands for a content's hash in its object's name: BLAKE3 of it, keyed.
    pub fn object_hash(&self, content: &ContentHash) -> Digest {
        let key: Secret<32> = self.derive("blockframe 1 object name", &[]);
        blake3::keyed_hash(key.expose(), content.as_bytes()).into()
    }

    /// The AES-256-SIV key of the sealed part of manifests.
    pub fn manifest_key(&self) -> Secret<64> {
        self.derive("blockframe 1 manifest", &[])
    }

    /// The AES-256-SIV key of the catalog's journal and snapshots.
    pub fn journal_key(&self) -> Secret<64> {
        self.derive("blockframe 1 journal", &[])
    }

    /// The cipher of one segment.
    pub fn segment_cipher(
        &self,
        suite: CipherSuite,
        line: ObjectLine,
        segment: SegmentIndex,
        salt: &SegmentSalt,
    ) -> Arc<dyn FrameCipher> {
        let key = self.derive("blockframe 1 segment", &[&line.0, &segment.get().to_le_bytes(), salt]);
        frame_cipher(suite, &key)
    }
}
