//! The key ring: the input gets past its checksum, and past what the archive key vouches for.

use super::reseal;
use blockframe::base::{ArchiveId, Digest, Secret, Timestamp};
use blockframe::format::layout::{KEY_RING, KEY_RING_COPY};
use blockframe::keys::{
    ArchiveKeys, KeyRing, MAX_EPOCHS, MAX_SLOTS, OpenRing, Purpose, RingCopies, SlotKind, SlotSecret,
};
use blockframe::store::{BlockStore, MemoryStore, StoreKey};
use std::sync::{Arc, LazyLock};

/// A ring with slots for a recovery phrase and a passphrase, which nothing but this target uses.
const RING: &[u8] = include_bytes!("key-ring.json");

fn archive() -> ArchiveId {
    ArchiveId::from_bytes([0xa1; 16])
}

fn rules() -> Digest {
    Digest::of(b"rules")
}

/// The phrase of the ring's first slot. Slots of other secrets are not tried with it, so nothing is stretched.
fn secret() -> SlotSecret {
    let secret = SlotSecret::random(SlotKind::Recovery, &Secret::filled_by(|bytes| bytes.fill(7)));
    secret.unwrap_or_else(|error| panic!("a secret: {error}"))
}

fn open(ring: &[u8]) -> Option<(MemoryStore, OpenRing)> {
    let store = MemoryStore::new("fuzz");
    for name in [KEY_RING, KEY_RING_COPY] {
        store.write(&StoreKey::new(name).ok()?, ring).ok()?;
    }
    let copies = RingCopies::read(&store, archive()).ok()?;
    let open = copies.open(&secret(), &rules()).ok()?;
    Some((store, open))
}

static KEYS: LazyLock<Arc<ArchiveKeys>> = LazyLock::new(|| match open(RING) {
    Some((_, open)) => open.keys().clone(),
    None => panic!("the ring does not open"),
});

/// The ring's document with the authentication that its members demand.
fn authenticated(ring: &KeyRing) -> Option<Vec<u8>> {
    let mut value = serde_json::to_string(ring).ok()?;
    let mark = "\"mac\":\"";
    let at = value.rfind(mark)? + mark.len();
    value.replace_range(at..at + 64, &"0".repeat(64));
    let key: Secret<32> = KEYS.derive(Purpose::KeyRing);
    let mac = blake3::keyed_hash(key.expose(), value.as_bytes()).to_hex();
    value.replace_range(at..at + 64, &mac);
    Some(reseal::sealed_json(value.as_bytes()))
}

/// The input is a ring without its checksum.
pub fn run(input: &[u8]) {
    let sealed = reseal::sealed_json(input);
    let Ok(ring) = KeyRing::from_bytes(&sealed) else { return };
    assert!((1..=MAX_SLOTS).contains(&ring.slots().len()) && (1..=MAX_EPOCHS).contains(&ring.epochs().len()));
    assert!(ring.slots().iter().all(|slot| slot.kdf.refusal().is_none()));
    let unchanged = ring == *BASE;
    // Whoever has no archive key makes nothing that opens.
    assert_eq!(open(&sealed).is_some(), unchanged);
    let Some((store, mut open)) = authenticated(&ring).and_then(|bytes| open(&bytes)) else { return };
    assert_eq!(open.keys().current().epoch().get() as usize, ring.epochs().len());
    assert!(open.used_slot().is_some_and(|slot| slot.kind == SlotKind::Recovery));
    let before = open.ring().generation();
    if open.rotate(&store, Timestamp::default()).is_ok() {
        let again = RingCopies::read(&store, archive()).and_then(|copies| copies.open(&secret(), &rules()));
        let again = again.unwrap_or_else(|error| panic!("a ring that was written: {error}"));
        assert!(again.ring().generation() > before && again.ring().epochs().len() == ring.epochs().len() + 1);
    }
}

static BASE: LazyLock<KeyRing> =
    LazyLock::new(|| KeyRing::from_bytes(RING).unwrap_or_else(|error| panic!("the ring: {error}")));

/// The ring.
pub fn seeds() -> Vec<Vec<u8>> {
    vec![reseal::unsealed_json(RING)]
}
