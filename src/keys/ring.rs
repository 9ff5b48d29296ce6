//! The key ring: slots that hold the archive key, and the epochs' keys, which
//! the archive key wraps. What is read from a store is a [`KeyRing`], and
//! trusted with nothing; [`OpenRing`] is one that a secret has opened and
//! whose every byte the archive key vouches for.

use super::error::{KeyError, KeyResult};
use super::kdf::Hex;
use super::secret::{SlotSecret, random_key};
use super::slot::{MAX_LABEL, NewSlot, Slot, SlotId, WRAPPED_LEN};
use super::{ArchiveKeys, Epoch, Purpose};
use crate::base::{ArchiveId, Digest, Secret, Timestamp};
use crate::codec::seal::{open_metadata, seal_metadata};
use crate::format::{FormatError, sealed_json};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, RwLock};
use zeroize::Zeroizing;

pub(super) const WHAT: &str = "key ring";
const FORMAT: &str = "blockframe-keys";
const VERSION: u64 = 1;
/// Most slots of a ring.
pub const MAX_SLOTS: usize = 32;
/// Most epochs of a ring.
pub const MAX_EPOCHS: usize = 4096;

/// A key ring as it was read: its shape and bounds are checked, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRing {
    /// Always `blockframe-keys`.
    format: String,
    version: u64,
    /// The archive it belongs to.
    archive: ArchiveId,
    /// How often it was written: of two rings the one with the higher number counts.
    pub(super) generation: u64,
    /// Number of the next slot.
    next_slot: SlotId,
    pub(super) slots: Vec<Slot>,
    epochs: Vec<WrappedEpoch>,
    /// What is stored is being encrypted with the last epoch's key, and that is not done.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    reencrypting: bool,
    /// Digest of the archive's rules.
    descriptor: Digest,
    /// BLAKE3 of all this, keyed by the archive key.
    mac: Hex<32>,
}

/// The key of an epoch, wrapped by the archive key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrappedEpoch {
    /// Which.
    pub epoch: Epoch,
    /// When it began: seconds since 1970-01-01 UTC.
    pub created: i64,
    wrapped: Hex<WRAPPED_LEN>,
}

impl KeyRing {
    /// Parses and checks the checksum, the shape, and all bounds.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FormatError> {
        let ring: Self = sealed_json::open_as(WHAT, FORMAT, VERSION, bytes)?;
        match ring.fault() {
            Some(why) => Err(FormatError::invalid(WHAT, why)),
            None => Ok(ring),
        }
    }

    /// What no writer produces.
    fn fault(&self) -> Option<String> {
        if self.slots.is_empty() || self.slots.len() > MAX_SLOTS {
            return Some(format!("it has {} slots, and 1 to {MAX_SLOTS} are possible", self.slots.len()));
        }
        if self.epochs.is_empty() || self.epochs.len() > MAX_EPOCHS {
            return Some(format!("it has {} epochs, and 1 to {MAX_EPOCHS} are possible", self.epochs.len()));
        }
        let ids: BTreeSet<SlotId> = self.slots.iter().map(|slot| slot.id).collect();
        if ids.len() != self.slots.len() || ids.last() >= Some(&self.next_slot) {
            return Some("the numbers of its slots are not counted".into());
        }
        let first = self.epochs.first().map_or(0, |epoch| epoch.epoch.get());
        if first == 0 || !(u64::from(first)..).zip(&self.epochs).all(|(number, at)| u64::from(at.epoch.get()) == number)
        {
            return Some("its epochs do not follow each other".into());
        }
        if self.reencrypting && self.epochs.len() == 1 {
            return Some("it has no epoch from which anything could be encrypted anew".into());
        }
        let label = |slot: &Slot| slot.label.len() > MAX_LABEL || slot.label.chars().any(char::is_control);
        if self.slots.iter().any(label) {
            return Some("a slot's label is too long, or has control characters".into());
        }
        let kdf = |slot: &Slot| {
            let fits = slot.kind.is_random() == matches!(slot.kdf, super::Kdf::Blake3 { .. });
            slot.kdf.refusal().or_else(|| (!fits).then(|| "its key derivation does not fit its kind".into()))
        };
        self.slots.iter().find_map(|slot| Some(format!("slot {}: {}", slot.id, kdf(slot)?)))
    }

    /// The archive it says it belongs to.
    pub fn archive(&self) -> ArchiveId {
        self.archive
    }

    /// How often it was written.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The slots.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The epochs whose keys it has, ascending. The last is the current one.
    pub fn epochs(&self) -> &[WrappedEpoch] {
        &self.epochs
    }

    /// Whether what is stored is to be encrypted with the last epoch's key, and not all of it is.
    pub fn is_reencrypting(&self) -> bool {
        self.reencrypting
    }

    /// The archive key, if the secret opens a slot of its kind; and which.
    pub(super) fn open_slot(&self, secret: &SlotSecret) -> KeyResult<Option<(SlotId, Secret<32>)>> {
        for slot in self.slots.iter().filter(|slot| secret.fits(slot.kind)) {
            if let Some(key) = slot.open(self.archive, secret)? {
                return Ok(Some((slot.id, key)));
            }
        }
        Ok(None)
    }

    fn mac(&self, keys: &ArchiveKeys) -> Result<blake3::Hash, FormatError> {
        let plain = Self { mac: Hex([0; 32]), ..self.clone() };
        let bytes = serde_json::to_vec(&plain).map_err(|source| FormatError::Json { what: WHAT, source })?;
        let key: Secret<32> = keys.derive(Purpose::KeyRing);
        Ok(blake3::keyed_hash(key.expose(), &bytes))
    }

    /// Whether the archive key vouches for every member.
    pub(super) fn is_authentic(&self, keys: &ArchiveKeys) -> bool {
        // blake3::Hash compares in constant time.
        self.archive == keys.archive && self.mac(keys).is_ok_and(|mac| mac == blake3::Hash::from_bytes(self.mac.0))
    }

    pub(super) fn is_of_rules(&self, descriptor: &Digest) -> bool {
        self.descriptor == *descriptor
    }

    /// Makes the keys of all epochs known; false when one does not open.
    pub(super) fn unwrap_epochs(&self, keys: &ArchiveKeys) -> bool {
        let wrap: Secret<64> = keys.derive(Purpose::EpochWrap);
        self.epochs.iter().all(|WrappedEpoch { epoch, wrapped, .. }| {
            let plain = open_metadata(&wrap, &epoch_context(self.archive, *epoch), &wrapped.0).map(Zeroizing::new);
            match plain {
                Ok(plain) if plain.len() == 32 => {
                    keys.add_epoch(*epoch, Secret::filled_by(|bytes| bytes.copy_from_slice(&plain)));
                    true
                }
                _ => false,
            }
        })
    }
}

/// Where an epoch's wrapped key stands.
fn epoch_context(archive: ArchiveId, epoch: Epoch) -> Vec<u8> {
    let mut context = b"blockframe epoch 1\0".to_vec();
    context.extend_from_slice(archive.as_bytes());
    context.extend_from_slice(&epoch.get().to_le_bytes());
    context
}

/// The keys that an archive key alone gives; epochs are to follow.
pub(super) fn keys_without_epochs(archive: ArchiveId, key: Secret<32>) -> ArchiveKeys {
    ArchiveKeys { archive, key, epochs: RwLock::new(BTreeMap::new()) }
}

/// A key ring that was opened and verified, and may be changed.
#[derive(Debug, Clone)]
pub struct OpenRing {
    pub(super) ring: KeyRing,
    pub(super) keys: Arc<ArchiveKeys>,
    /// The slot that opened it.
    pub(super) used: SlotId,
}

impl OpenRing {
    /// The ring of a new archive: a fresh archive key, in a slot for each of
    /// `slots`, and the first epoch. It is on no store yet.
    ///
    /// Errors: `WeakSecret` without a slot; `Full`.
    pub fn create(archive: ArchiveId, descriptor: Digest, slots: &[NewSlot], now: Timestamp) -> KeyResult<Self> {
        let ring = KeyRing {
            format: FORMAT.into(),
            version: VERSION,
            archive,
            generation: 0,
            next_slot: SlotId(1),
            slots: Vec::new(),
            epochs: Vec::new(),
            reencrypting: false,
            descriptor,
            mac: Hex([0; 32]),
        };
        let keys = Arc::new(keys_without_epochs(archive, random_key()?));
        let mut open = Self { ring, keys, used: SlotId(1) };
        for slot in slots {
            open.add_slot(slot, now)?;
        }
        if slots.is_empty() {
            return Err(KeyError::WeakSecret("an encrypted archive needs a secret that opens it".into()));
        }
        let (epoch, key) = open.begin_epoch(now)?;
        open.keys.add_epoch(epoch, key);
        Ok(open)
    }

    /// The ring.
    pub fn ring(&self) -> &KeyRing {
        &self.ring
    }

    /// The keys.
    pub fn keys(&self) -> &Arc<ArchiveKeys> {
        &self.keys
    }

    /// The slot that opened it.
    pub fn used_slot(&self) -> Option<&Slot> {
        self.ring.slots.iter().find(|slot| slot.id == self.used)
    }

    /// Adds a slot.
    ///
    /// Error: `Full`.
    pub fn add_slot(&mut self, new: &NewSlot, now: Timestamp) -> KeyResult<SlotId> {
        let full = KeyError::Full { what: "slots", most: MAX_SLOTS, hint: "; remove one first" };
        if self.ring.slots.len() >= MAX_SLOTS {
            return Err(full);
        }
        let id = self.ring.next_slot;
        let next = id.0.checked_add(1).ok_or(full)?;
        let slot = Slot::wrap(self.ring.archive, id, new, now.seconds, &self.keys.key)?;
        self.ring.slots.push(slot);
        self.ring.next_slot = SlotId(next);
        Ok(id)
    }

    /// Removes a slot.
    ///
    /// Errors: `NoSlot`; `LastSlot`.
    pub fn remove_slot(&mut self, id: SlotId) -> KeyResult<Slot> {
        let at = self.ring.slots.iter().position(|slot| slot.id == id);
        let at = at.ok_or_else(|| KeyError::NoSlot(id.to_string()))?;
        if self.ring.slots.len() == 1 {
            return Err(KeyError::LastSlot(id.to_string()));
        }
        Ok(self.ring.slots.remove(at))
    }

    /// Puts a new slot in the place of another.
    ///
    /// Error: `NoSlot`.
    pub fn replace_slot(&mut self, id: SlotId, new: &NewSlot, now: Timestamp) -> KeyResult<SlotId> {
        let at = self.ring.slots.iter().position(|slot| slot.id == id);
        let at = at.ok_or_else(|| KeyError::NoSlot(id.to_string()))?;
        let old = self.ring.slots.remove(at);
        let added = self.add_slot(new, now);
        if added.is_err() {
            self.ring.slots.insert(at, old);
        } else if self.used == id {
            self.used = *added.as_ref().unwrap_or(&id);
        }
        added
    }

    /// Wraps the key of a next epoch. It must not be used before the ring is on the store.
    pub(super) fn begin_epoch(&mut self, now: Timestamp) -> KeyResult<(Epoch, Secret<32>)> {
        let last = self.ring.epochs.last().map_or(0, |last| last.epoch.get());
        let next = last.checked_add(1).and_then(Epoch::new).filter(|_| self.ring.epochs.len() < MAX_EPOCHS);
        let epoch = next.ok_or(KeyError::Full { what: "epochs", most: MAX_EPOCHS, hint: "" })?;
        let key = random_key()?;
        let wrap: Secret<64> = self.keys.derive(Purpose::EpochWrap);
        let sealed = seal_metadata(&wrap, &epoch_context(self.ring.archive, epoch), key.expose());
        let mut wrapped = [0; WRAPPED_LEN];
        wrapped.copy_from_slice(&sealed);
        self.ring.epochs.push(WrappedEpoch { epoch, created: now.seconds, wrapped: Hex(wrapped) });
        Ok((epoch, key))
    }

    /// What is stored is to be encrypted with the last epoch's key.
    pub(super) fn begin_reencryption(&mut self) {
        self.ring.reencrypting = self.ring.epochs.len() > 1;
    }

    /// Forgets the keys of all epochs before the last. Returns which.
    pub(super) fn forget_old_epochs(&mut self) -> Vec<Epoch> {
        let before_last = self.ring.epochs.len().saturating_sub(1);
        self.ring.reencrypting = false;
        self.ring.epochs.drain(..before_last).map(|epoch| epoch.epoch).collect()
    }

    /// Authenticates the ring anew, and gives its file's bytes.
    pub(super) fn authenticate(&mut self) -> KeyResult<Vec<u8>> {
        self.ring.mac = Hex(*self.ring.mac(&self.keys)?.as_bytes());
        Ok(sealed_json::seal(WHAT, &self.ring)?)
    }
}
