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
    pub cause: FormatError,
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

    /// Makes both copies be the ring that was opened.
    pub fn heal(&self, store: &dyn BlockStore, open: &OpenRing) -> Vec<RingHeal> {
        let good = self.copies.iter().find_map(|copy| copy.found.as_ref().ok().filter(|(ring, _)| *ring == open.ring));
        let Some((_, bytes)) = good else { return Vec::new() };
        let bad = |copy: &RingCopy| {
            let cause = match &copy.found {
                Ok((ring, _)) if *ring == open.ring => return None,
                Ok((ring, _)) if ring.is_authentic(&open.keys) => FormatError::invalid(
                    WHAT,
                    format!("it is of generation {}, and {} is the newest", ring.generation(), open.ring.generation()),
                ),
                Ok(_) => FormatError::invalid(WHAT, "the archive key does not vouch for it"),
                Err(error) => FormatError::invalid(WHAT, error.to_string()),
            };
            let outcome = match key(store, copy.name) {
                Ok(key) => store.write(&key, bytes),
                Err(_) => return None,
            };
            Some(RingHeal { name: copy.name, cause, outcome })
        };
        self.copies.iter().filter_map(bad).collect()
    }

    /// Copies that are missing or damaged by themselves, so that no key is
    /// needed to tell, written anew from the other one if `repair` says so.
    /// That the copies differ is told as well; which one counts, only a secret can tell.
    pub fn check(&self, store: &dyn BlockStore, repair: bool) -> Vec<(String, Option<RingHeal>)> {
        let good: Vec<_> = self.copies.iter().filter_map(|copy| Some((copy.name, copy.found.as_ref().ok()?))).collect();
        if let [(_, (one, _)), (name, (two, _))] = good[..] {
            let differ =
                format!("{name}: {WHAT}: it differs from the other copy; the next command that has a key mends it");
            return if one == two { Vec::new() } else { vec![(differ, None)] };
        }
        let Some((_, (_, bytes))) = good.first() else { return Vec::new() };
        let told = |copy: &RingCopy| {
            let cause = copy.found.as_ref().err()?;
            let told = format!("{}: {cause}", copy.name);
            let cause = FormatError::invalid(WHAT, cause.to_string());
            let heal = repair.then(|| key(store, copy.name).ok()).flatten();
            let heal = heal.map(|key| RingHeal { name: copy.name, cause, outcome: store.write(&key, bytes) });
            Some((told, heal))
        };
        self.copies.iter().filter_map(told).collect()
    }
}

impl OpenRing {
    /// Writes the changed ring as the next generation: both copies, durably.
    ///
    /// Errors: `Changed` when the store has another ring than the one that was
    /// opened; `Store` when nothing was written; `HalfWritten` when one copy was.
    pub fn save(&mut self, store: &dyn BlockStore) -> KeyResult<()> {
        self.refuse_if_changed(store)?;
        self.ring.generation = self.ring.generation.saturating_add(1);
        let bytes = self.to_bytes()?;
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
