//! The key ring of an encrypted archive's store: healed when it was opened,
//! looked at without a key.

use super::{Archive, Event, EventKind, Shared};
use crate::keys::{KeyError, KeyResult, OpenRing, RingCopies, RingHeal};

impl Archive {
    /// Both copies of the store's key ring.
    pub fn key_ring(&self) -> KeyResult<RingCopies> {
        RingCopies::read(&**self.store(), self.descriptor().id)
    }

    /// The archive with the keys of a ring that was opened. A copy of the ring
    /// that was bad is healed from it.
    pub fn unlock(&self, copies: &RingCopies, ring: &OpenRing) -> Self {
        for heal in copies.heal(&**self.store(), ring) {
            self.ring_healed(&heal);
        }
        self.unlocked(ring.keys().clone())
    }

    /// Makes the epochs known that other processes began since the key ring was opened. Never
    /// fails: without a readable ring the keys stay as they are.
    pub fn follow_ring(&self) {
        self.shared.follow_ring();
    }

    /// The key ring as it is now, opened with the archive's keys.
    ///
    /// Errors: those of [`RingCopies`]; `RingMissing` also for an archive that is not unlocked.
    pub fn open_ring(&self) -> KeyResult<OpenRing> {
        let keys = self.keys().ok_or_else(|| KeyError::RingMissing { store: self.store().label().into() })?;
        self.key_ring()?.follow(keys, &self.descriptor().digest()?)
    }

    /// Looks at the copies of the key ring; without keys only as far as that
    /// goes. With `repair` what is known to be bad is written anew. Returns
    /// what was wrong; in an archive that is not encrypted, nothing is.
    pub(super) fn verify_key_ring(&self, repair: bool) -> Vec<String> {
        if !self.is_encrypted() {
            return Vec::new();
        }
        let copies = match self.key_ring() {
            Ok(copies) => copies,
            Err(error) => return vec![error.to_string()],
        };
        let found = copies.check(&**self.store(), self.keys().map(|keys| &**keys), repair);
        found.iter().filter_map(|(_, heal)| heal.as_ref()).for_each(|heal| self.ring_healed(heal));
        found.into_iter().map(|(told, _)| told).collect()
    }

    fn ring_healed(&self, heal: &RingHeal) {
        let RingHeal { name, cause, outcome } = heal;
        let (kind, outcome) = match outcome {
            Ok(()) => (EventKind::MetadataHealed, "rewritten from the other copy".to_string()),
            Err(error) => (EventKind::HealFailed, format!("the other copy serves; rewriting failed: {error}")),
        };
        tracing::warn!(file = name, %cause, outcome, "a copy of the key ring was bad");
        self.events().record(Event::new(self.clock().now(), kind, *name, format!("{cause}; {outcome}")));
    }
}

impl Shared {
    /// As [`Archive::follow_ring`].
    pub(super) fn follow_ring(&self) {
        let Some(keys) = &self.keys else { return };
        let followed = RingCopies::read(&*self.store, self.descriptor.id)
            .and_then(|copies| copies.follow(keys, &self.descriptor.digest()?));
        if let Err(error) = followed {
            tracing::debug!(%error, "the key ring cannot be read again");
        }
    }
}
