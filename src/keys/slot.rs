//! A slot: the archive key, wrapped by what a secret gives.
//!
//! A slot opens under one key only: before anything is unwrapped, a hash that
//! is keyed by material from the slot's key is compared. An attacker who may
//! offer rings and watch what opens cannot make one slot that a thousand
//! passphrases open (Len, Grubbs, Ristenpart: "Partitioning Oracle Attacks", 2021).

use super::error::{KeyError, KeyResult};
use super::kdf::{Argon2Cost, Hex, Kdf};
use super::secret::{SlotKind, SlotSecret};
use crate::base::{ArchiveId, Secret};
use crate::codec::seal::{TAG_LEN, open_metadata, seal_metadata};
use serde::{Deserialize, Serialize};
use std::fmt;
use zeroize::Zeroizing;

/// Length of a wrapped key, bytes.
pub(super) const WRAPPED_LEN: usize = TAG_LEN + 32;
/// Longest label, bytes.
pub const MAX_LABEL: usize = 255;

/// A slot's number: counted, and never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SlotId(pub(super) u32);

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for SlotId {
    type Err = KeyError;

    fn from_str(text: &str) -> KeyResult<Self> {
        text.parse().map(Self).map_err(|_| KeyError::NoSlot(format!("\"{text}\"")))
    }
}

/// The archive key, wrapped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slot {
    /// Its number.
    pub id: SlotId,
    /// What opens it.
    pub kind: SlotKind,
    /// What the user calls it.
    pub label: String,
    /// When it was made: seconds since 1970-01-01 UTC.
    pub created: i64,
    /// How its key is derived.
    pub kdf: Kdf,
    /// Says whether a key is that of this slot.
    pub(super) commitment: Hex<32>,
    /// The archive key.
    pub(super) wrapped: Hex<WRAPPED_LEN>,
}

/// What a new slot is to be.
#[derive(Debug, Clone)]
pub struct NewSlot {
    /// What shall open it.
    pub secret: SlotSecret,
    /// What the user calls it.
    pub label: String,
    /// How its secret is stretched, where it is.
    pub cost: Argon2Cost,
}

impl NewSlot {
    /// A slot for a secret, with the default cost.
    pub fn new(secret: SlotSecret, label: impl Into<String>) -> Self {
        Self { secret, label: label.into(), cost: Argon2Cost::default() }
    }
}

impl Slot {
    /// Wraps the archive key.
    pub(super) fn wrap(
        archive: ArchiveId,
        id: SlotId,
        new: &NewSlot,
        created: i64,
        archive_key: &Secret<32>,
    ) -> KeyResult<Self> {
        if new.label.len() > MAX_LABEL || new.label.chars().any(char::is_control) {
            let why = format!("a label has at most {MAX_LABEL} bytes and no control characters");
            return Err(KeyError::WeakSecret(why));
        }
        let kind = new.secret.kind();
        let kdf = if kind.is_random() { Kdf::blake3()? } else { Kdf::argon2id(new.cost)? };
        let context = context(archive, id, kind, &kdf);
        let key = slot_key(&kdf, &context, &new.secret)?;
        let sealed = seal_metadata(&key, &context, archive_key.expose());
        let mut wrapped = [0; WRAPPED_LEN];
        wrapped.copy_from_slice(&sealed);
        let commitment = Hex(*commitment(&key, &context).as_bytes());
        Ok(Self { id, kind, label: new.label.clone(), created, kdf, commitment, wrapped: Hex(wrapped) })
    }

    /// The archive key, if the secret is that of this slot.
    pub(super) fn open(&self, archive: ArchiveId, secret: &SlotSecret) -> KeyResult<Option<Secret<32>>> {
        let context = context(archive, self.id, self.kind, &self.kdf);
        let key = slot_key(&self.kdf, &context, secret)?;
        // blake3::Hash compares in constant time.
        if commitment(&key, &context) != blake3::Hash::from_bytes(self.commitment.0) {
            return Ok(None);
        }
        let Ok(plain) = open_metadata(&key, &context, &self.wrapped.0).map(Zeroizing::new) else { return Ok(None) };
        Ok((plain.len() == 32).then(|| Secret::filled_by(|bytes| bytes.copy_from_slice(&plain))))
    }
}

/// Where a wrapped key stands, and how it is opened.
fn context(archive: ArchiveId, id: SlotId, kind: SlotKind, kdf: &Kdf) -> Vec<u8> {
    let mut context = b"blockframe key slot 1\0".to_vec();
    context.extend_from_slice(archive.as_bytes());
    context.extend_from_slice(&id.0.to_le_bytes());
    context.push(kind.code());
    context.extend_from_slice(&kdf.context());
    context
}

fn slot_key(kdf: &Kdf, context: &[u8], secret: &SlotSecret) -> KeyResult<Secret<64>> {
    let stretched = kdf.stretch(secret.expose())?;
    Ok(super::derive("blockframe 1 key slot", &[stretched.expose(), context]))
}

fn commitment(key: &Secret<64>, context: &[u8]) -> blake3::Hash {
    let own: Secret<32> = super::derive("blockframe 1 key slot commitment", &[key.expose()]);
    blake3::keyed_hash(own.expose(), context)
}
