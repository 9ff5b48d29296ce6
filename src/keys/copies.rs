//! The two copies of the key ring on a store.
//!
//! Crash argument: each copy is replaced in one step, one after the other.
//! At every instant both copies are whole, and each is the old ring or the
//! new one; so the old secrets open one, or the new ones. Once a secret has
//! opened a ring, its archive key tells which copies are authentic, and the
//! authentic one of the highest generation is what counts: it replaces the
//! other.

use super::error::{KeyError, KeyResult};
use super::ring::{KeyRing, OpenRing, WHAT, keys_without_epochs};
use super::secret::SlotSecret;
use super::slot::SlotId;
use super::{ArchiveKeys, Epoch};
use crate::base::{ArchiveId, Digest, Timestamp};
use crate::format::FormatError;
use crate::format::layout::{KEY_RING, KEY_RING_COPY};
use crate::store::{BlockStore, StoreError, StoreErrorKind, StoreKey, StoreResult};
use std::sync::Arc;

/// Longest key ring, bytes.
const MAX_RING: u64 = 2 << 20;
/// Both copies, in the order in which they are written.
const NAMES: [&str; 2] = [KEY_RING_COPY, KEY_RING];

/// One copy.
#[derive(Debug)]
struct RingCopy {
    name: &'static str,
    /// The ring with its bytes, or what is wrong with the file.
    found: Result<(KeyRing, Vec<u8>), FormatError>,
}

/// Both copies of a store's key ring as they were read. Nothing is trusted yet.
#[derive(Debug)]
pub struct RingCopies {
    store: String,
    copies: Vec<RingCopy>,
}

/// What happened to a copy that was bad.
#[derive(Debug)]
pub struct RingHeal {
    /// The file.
    pub name: &'static str,
    /// What was wrong with it.
    pub cause: String,
    /// Whether it is good now.
    pub outcome: StoreResult<()>,
}

fn key(store: &dyn BlockStore, name: &str) -> KeyResult<StoreKey> {
    Ok(StoreKey::new(name).map_err(|error| StoreError::bad_key(store.label(), error))?)
}

impl RingCopies {
    /// Reads both copies.
    ///
    /// Errors: `RingMissing`; `RingLost` when none is whole; `Store` when none
    /// can be read; `Format` for a version that this program does not know.
    pub fn read(store: &dyn BlockStore, archive: ArchiveId) -> KeyResult<Self> {
        let mut copies = Vec::new();
        let mut missing = 0;
        let mut failed = None;
        for name in NAMES {
            let found = match store.read(&key(store, name)?, MAX_RING) {
                Ok(bytes) => match KeyRing::from_bytes(&bytes) {
                    Err(error @ FormatError::Version { .. }) => return Err(error.into()),
                    Ok(ring) if ring.archive() != archive => {
                        Err(FormatError::invalid(WHAT, format!("it belongs to the archive {}", ring.archive())))
                    }
                    other => other.map(|ring| (ring, bytes)),
                },
                Err(error) if error.kind() == StoreErrorKind::NotFound => {
                    missing += 1;
                    Err(FormatError::Truncated { what: WHAT, at: 0 })
                }
                Err(error) => {
                    let cause = FormatError::invalid(WHAT, error.to_string());
                    if error.kind() != StoreErrorKind::TooLong {
                        failed = Some(error);
                    }
                    Err(cause)
                }
            };
            copies.push(RingCopy { name, found });
        }
        if copies.iter().any(|copy| copy.found.is_ok()) {
            return Ok(Self { store: store.label().into(), copies });
        }
        let store = store.label().to_string();
        match (failed, missing) {
            (Some(error), _) => Err(error.into()),
            (None, 2) => Err(KeyError::RingMissing { store }),
            _ => {
                let causes = copies.into_iter().rev().filter_map(|copy| copy.found.err());
                let not_missing = |cause: &FormatError| !matches!(cause, FormatError::Truncated { .. });
                let source = causes.into_iter().find(not_missing).unwrap_or(FormatError::Checksum { what: WHAT });
                Err(KeyError::RingLost { store, source })
            }
        }
    }

    /// The rings, the highest generation first; equal ones once.
    fn candidates(&self) -> Vec<&KeyRing> {
        let mut rings: Vec<&KeyRing> =
            self.copies.iter().filter_map(|copy| copy.found.as_ref().ok()).map(|(ring, _)| ring).collect();
        rings.sort_by_key(|ring| std::cmp::Reverse(ring.generation()));
        rings.dedup();
        rings
    }

    /// The ring that most probably counts, for what can be told without a secret.
    pub fn newest(&self) -> Option<&KeyRing> {
        self.candidates().first().copied()
    }

    /// Opens the newest authentic ring with a secret. `descriptor` is the
    /// digest of the archive's rules as the store has them.
    ///
    /// Errors: `WrongSecret`; `Superseded` when it opens only an earlier ring;
    /// `Forged` when the ring or the rules are not those that the archive key vouches for.
    pub fn open(&self, secret: &SlotSecret, descriptor: &Digest) -> KeyResult<OpenRing> {
        let candidates = self.candidates();
        let mut forged = None;
        for (at, ring) in candidates.iter().enumerate() {
            let Some((used, key)) = ring.open_slot(secret)? else { continue };
            let keys = keys_without_epochs(ring.archive(), key);
            let forgery = |what| KeyError::Forged { what, store: self.store.clone() };
            if !ring.is_authentic(&keys) {
                forged = Some(forgery(WHAT));
                continue;
            }
            if let Some(newer) = candidates[..at].iter().find(|newer| newer.is_authentic(&keys)) {
                return Err(KeyError::Superseded { opened: ring.generation(), newest: newer.generation() });
            }
            if !ring.is_of_rules(descriptor) {
                return Err(forgery("description of the archive"));
            }
            if !ring.unwrap_epochs(&keys) {
                return Err(forgery(WHAT));
            }
            return Ok(OpenRing { ring: (*ring).clone(), keys: Arc::new(keys), used });
        }
        Err(forged.unwrap_or(KeyError::WrongSecret))
    }

    /// Opens the newest authentic ring with the archive key itself, and makes its epochs known to `keys`.
    ///
    /// Error: `Forged` when the archive key vouches for none of them.
    pub fn follow(&self, keys: &Arc<ArchiveKeys>, descriptor: &Digest) -> KeyResult<OpenRing> {
        let candidates = self.candidates();
        let authentic = candidates.iter().find(|ring| ring.is_authentic(keys) && ring.is_of_rules(descriptor));
        match authentic.filter(|ring| ring.unwrap_epochs(keys)) {
            Some(ring) => Ok(OpenRing { ring: (*ring).clone(), keys: keys.clone(), used: SlotId(0) }),
            None => Err(KeyError::Forged { what: WHAT, store: self.store.clone() }),
        }
    }

    /// Makes both copies be the ring that was opened.
    pub fn heal(&self, store: &dyn BlockStore, open: &OpenRing) -> Vec<RingHeal> {
        let good = self.whole().find(|(_, ring, _)| **ring == open.ring);
        good.map_or_else(Vec::new, |(_, ring, bytes)| {
            self.faults(ring, Some(&open.keys)).map(|(name, cause)| mend(store, name, cause, bytes)).collect()
        })
    }

    /// What is wrong with the copies. With `repair` a bad one is written anew
    /// from the good one. Without keys only a copy that is missing or damaged
    /// by itself is known to be bad; which of two that differ counts, is not.
    pub fn check(
        &self,
        store: &dyn BlockStore,
        keys: Option<&ArchiveKeys>,
        repair: bool,
    ) -> Vec<(String, Option<RingHeal>)> {
        let trusted = |ring: &KeyRing| keys.is_none_or(|keys| ring.is_authentic(keys));
        let newest = self.candidates().into_iter().find(|ring| trusted(ring));
        let Some((_, good, bytes)) = self.whole().find(|(_, ring, _)| Some(*ring) == newest) else {
            return vec![(format!("{KEY_RING}: the archive key does not vouch for any copy"), None)];
        };
        let certain = keys.is_some() || self.copies.iter().any(|copy| copy.found.is_err());
        let fault = |(name, cause): (&'static str, String)| {
            let told = format!("{name}: {cause}");
            (told, (repair && certain).then(|| mend(store, name, cause, bytes)))
        };
        self.faults(good, keys).map(fault).collect()
    }

    /// The copies that are whole: name, ring and bytes.
    fn whole(&self) -> impl Iterator<Item = (&'static str, &KeyRing, &[u8])> {
        self.copies
            .iter()
            .filter_map(|copy| copy.found.as_ref().ok().map(|(ring, bytes)| (copy.name, ring, &bytes[..])))
    }

    /// The copies that are not `good`, and why.
    fn faults(&self, good: &KeyRing, keys: Option<&ArchiveKeys>) -> impl Iterator<Item = (&'static str, String)> {
        let authentic = move |ring: &KeyRing| keys.map(|keys| ring.is_authentic(keys));
        self.copies.iter().filter_map(move |copy| {
            let why = match &copy.found {
                Ok((ring, _)) if ring == good => return None,
                Ok((ring, _)) => match authentic(ring) {
                    Some(false) => "key ring: the archive key does not vouch for it".into(),
                    Some(true) => {
                        format!(
                            "key ring: it is of generation {}, and {} is the newest",
                            ring.generation(),
                            good.generation()
                        )
                    }
                    None => "key ring: it differs from the other copy; the next command that has a key decides".into(),
                },
                Err(error) => return Some((copy.name, error.to_string())),
            };
            Some((copy.name, why))
        })
    }
}

/// Writes a copy anew.
fn mend(store: &dyn BlockStore, name: &'static str, cause: String, bytes: &[u8]) -> RingHeal {
    let outcome = StoreKey::new(name).map_err(|error| StoreError::bad_key(store.label(), error));
    RingHeal { name, cause, outcome: outcome.and_then(|key| store.write(&key, bytes)) }
}

impl OpenRing {
    /// Writes the changed ring as the next generation: both copies, durably.
    ///
    /// Errors: `Changed` when the store has another ring than the one that was
    /// opened; `Store` when the first copy could not be written, which has the
    /// old ring then, or the new one not durably; `HalfWritten` when the first was and the other was not.
    pub fn save(&mut self, store: &dyn BlockStore) -> KeyResult<()> {
        self.refuse_if_changed(store)?;
        self.ring.generation = self.ring.generation.saturating_add(1);
        let bytes = self.authenticate()?;
        // What could not be read again must not replace what can.
        KeyRing::from_bytes(&bytes)?;
        let [first, second] = NAMES;
        store.write(&key(store, first)?, &bytes)?;
        store.write(&key(store, second)?, &bytes).map_err(KeyError::HalfWritten)
    }

    /// Begins a new epoch, and returns when it is on the store: new data may use it now.
    ///
    /// Errors: as [`Self::save`]; `Full`.
    pub fn rotate(&mut self, store: &dyn BlockStore, now: Timestamp) -> KeyResult<Epoch> {
        let (epoch, key) = self.begin_epoch(now)?;
        self.save(store)?;
        ArchiveKeys::add_epoch(&self.keys, epoch, key);
        Ok(epoch)
    }

    /// As [`Self::rotate`], and what is stored is to be encrypted with the new epoch's key. Where
    /// that was begun before and is not done, it begins no other epoch.
    ///
    /// Errors: those of [`Self::rotate`].
    pub fn rotate_to_reencrypt(&mut self, store: &dyn BlockStore, now: Timestamp) -> KeyResult<Epoch> {
        if self.ring.is_reencrypting() {
            return Ok(self.keys.current().epoch());
        }
        let (epoch, key) = self.begin_epoch(now)?;
        self.begin_reencryption();
        self.save(store)?;
        ArchiveKeys::add_epoch(&self.keys, epoch, key);
        Ok(epoch)
    }

    /// Forgets the keys of all epochs before the last: nothing is stored any more that needs them.
    /// Returns which those were.
    ///
    /// Errors: as [`Self::save`].
    pub fn forget_old_epochs_on(&mut self, store: &dyn BlockStore) -> KeyResult<Vec<Epoch>> {
        let forgotten = self.forget_old_epochs();
        self.save(store)?;
        Ok(forgotten)
    }

    fn refuse_if_changed(&self, store: &dyn BlockStore) -> KeyResult<()> {
        let found = match RingCopies::read(store, self.ring.archive()) {
            Ok(copies) => {
                copies.candidates().iter().find(|ring| ring.is_authentic(&self.keys)).map(|ring| ring.generation())
            }
            Err(KeyError::RingMissing { .. } | KeyError::RingLost { .. }) => None,
            Err(error) => return Err(error),
        };
        match found {
            Some(generation) if generation != self.ring.generation() => Err(KeyError::Changed),
            _ => Ok(()),
        }
    }
}
