//! Promises of the key ring, broken on purpose.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::base::Timestamp;
use crate::format::FormatError;
use crate::format::layout::{KEY_RING, KEY_RING_COPY};
use crate::store::{BlockStore, Fault, FaultStore, MemoryStore, Operation, StoreErrorKind, StoreKey};
use std::collections::HashSet;
use zeroize::Zeroizing;

const ARCHIVE: ArchiveId = ArchiveId::from_bytes([3; 16]);
/// As cheap as it may be: nothing here depends on the cost.
const CHEAP: Argon2Cost = Argon2Cost { memory_kib: 16, passes: 1, lanes: 1 };
const NOW: Timestamp = Timestamp { seconds: 1_790_000_000, nanoseconds: 0 };

fn rules() -> Digest {
    Digest::of(b"the archive's rules")
}

fn secret(kind: SlotKind, text: &str) -> SlotSecret {
    let bytes = if kind.is_random() { Digest::of(text.as_bytes()).as_bytes().to_vec() } else { text.into() };
    SlotSecret::new(kind, Zeroizing::new(bytes)).unwrap()
}

fn slot(kind: SlotKind, text: &str) -> NewSlot {
    NewSlot { secret: secret(kind, text), label: format!("of {text}"), cost: CHEAP }
}

fn passphrase(text: &str) -> SlotSecret {
    secret(SlotKind::Passphrase, text)
}

/// A store with the ring of a new archive.
fn place(slots: &[NewSlot]) -> (MemoryStore, OpenRing) {
    let store = MemoryStore::new("memory");
    let mut ring = OpenRing::create(ARCHIVE, rules(), slots, NOW).unwrap();
    ring.save(&store).unwrap();
    (store, ring)
}

fn key(name: &str) -> StoreKey {
    StoreKey::new(name).unwrap()
}

fn bytes(store: &dyn BlockStore, name: &str) -> Vec<u8> {
    store.read(&key(name), 1 << 20).unwrap()
}

fn open(store: &dyn BlockStore, secret: &SlotSecret) -> KeyResult<OpenRing> {
    RingCopies::read(store, ARCHIVE)?.open(secret, &rules())
}

/// The keys by what they give: two archive keys that are equal derive equal keys.
fn fingerprint(ring: &OpenRing) -> Vec<[u8; 32]> {
    let keys = ring.keys();
    let own: Secret<32> = keys.derive(Purpose::Staging);
    let epochs = (1..=ring.ring().epochs().len() as u32).filter_map(|n| keys.epoch(Epoch::new(n).unwrap()));
    std::iter::once(*own.expose()).chain(epochs.map(|epoch| *epoch.object_hash(&Digest::of(b"x")).as_bytes())).collect()
}

const KINDS: [(SlotKind, &str); 5] = [
    (SlotKind::Passphrase, "correct horse"),
    (SlotKind::KeyFile, "sixteen bytes and more"),
    (SlotKind::Recovery, "phrase"),
    (SlotKind::Command, "printed"),
    (SlotKind::Shares, "three of five"),
];

#[test]
fn every_kind_of_slot_opens_the_same_keys_and_no_other_kind_does() {
    let slots: Vec<NewSlot> = KINDS.iter().map(|&(kind, text)| slot(kind, text)).collect();
    let (store, made) = place(&slots);
    for (kind, text) in KINDS {
        let ring = open(&store, &secret(kind, text)).unwrap();
        assert_eq!(fingerprint(&ring), fingerprint(&made));
        assert_eq!(ring.used_slot().unwrap().kind, kind);
        assert_eq!(ring.keys().current().epoch(), Epoch::FIRST);
        let wrong = open(&store, &secret(kind, "something else entirely")).unwrap_err();
        assert!(matches!(wrong, KeyError::WrongSecret), "{wrong}");
        assert_eq!(wrong.class(), crate::base::ErrorClass::WrongKey);
        for other in SlotKind::ALL {
            let typed = |kind| [SlotKind::Passphrase, SlotKind::Command].contains(&kind);
            let bytes = Zeroizing::new(secret(kind, text).expose().to_vec());
            let Ok(moved) = SlotSecret::new(other, bytes) else { continue };
            assert_eq!(
                open(&store, &moved).is_ok(),
                other == kind || typed(other) && typed(kind),
                "{kind:?} {other:?}"
            );
        }
    }
}

#[test]
fn secrets_that_protect_nothing_are_refused() {
    let refused = |kind, len| SlotSecret::new(kind, Zeroizing::new(vec![1; len])).is_err();
    assert!(refused(SlotKind::Passphrase, 0) && !refused(SlotKind::Passphrase, 1));
    assert!(refused(SlotKind::KeyFile, 15) && !refused(SlotKind::KeyFile, 16));
    assert!(refused(SlotKind::Command, 0) && refused(SlotKind::Recovery, 31) && refused(SlotKind::Shares, 33));
    assert!(SlotKind::ALL.into_iter().all(|kind| refused(kind, MAX_SECRET + 1)));
    assert!(matches!(OpenRing::create(ARCHIVE, rules(), &[], NOW), Err(KeyError::WeakSecret(_))));
}

#[test]
fn nothing_secret_is_printed() {
    let (_, ring) = place(&[slot(SlotKind::Passphrase, "correct horse")]);
    let text = format!("{:?} {:?} {ring:?}", slot(SlotKind::Passphrase, "correct horse"), passphrase("correct horse"));
    let key = ring.keys.key.expose();
    assert!(!text.contains("horse\")") && !text.contains("[99, 111") && !text.contains(&hex::encode(key)), "{text}");
    assert!(!text.contains(&format!("{key:?}")));
}

/// Every byte of both copies, and of one.
#[test]
fn a_changed_byte_is_refused_in_both_copies_and_healed_in_one() {
    let (store, made) = place(&[slot(SlotKind::Passphrase, "p"), slot(SlotKind::Recovery, "r")]);
    let good = bytes(&store, KEY_RING);
    assert_eq!(good, bytes(&store, KEY_RING_COPY));
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        for names in [&[KEY_RING][..], &[KEY_RING_COPY], &[KEY_RING, KEY_RING_COPY]] {
            for name in names {
                store.write(&key(name), &bad).unwrap();
            }
            if names.len() == 2 {
                let error = open(&store, &passphrase("p")).unwrap_err();
                assert!(matches!(error, KeyError::RingLost { .. }), "byte {at}: {error}");
                assert_eq!(bytes(&store, KEY_RING), bad, "something was written without a key");
            } else {
                let copies = RingCopies::read(&store, ARCHIVE).unwrap();
                let ring = copies.open(&secret(SlotKind::Recovery, "r"), &rules()).unwrap();
                assert_eq!(fingerprint(&ring), fingerprint(&made));
                let healed = copies.heal(&store, &ring);
                assert!(matches!(&healed[..], [one] if one.name == names[0] && one.outcome.is_ok()), "{healed:?}");
            }
            for name in [KEY_RING, KEY_RING_COPY] {
                assert!(names.len() == 2 || bytes(&store, name) == good, "byte {at}");
                store.write(&key(name), &good).unwrap();
            }
        }
    }
}

/// Somebody who can write to the store and compute checksums changes one member.
#[test]
fn a_ring_that_was_changed_and_sealed_again_is_refused_or_healed() {
    let (store, made) = place(&[slot(SlotKind::Passphrase, "p"), slot(SlotKind::Passphrase, "q")]);
    let good = bytes(&store, KEY_RING);
    let ring = KeyRing::from_bytes(&good).unwrap();
    let document = serde_json::to_value(&ring).unwrap();
    let mut changed = 0;
    let mut pending = vec![String::new()];
    while let Some(pointer) = pending.pop() {
        let value = document.pointer(&pointer).unwrap();
        let below: Vec<String> = match value {
            serde_json::Value::Object(members) => members.keys().map(|name| format!("{pointer}/{name}")).collect(),
            serde_json::Value::Array(elements) => (0..elements.len()).map(|at| format!("{pointer}/{at}")).collect(),
            _ => vec![],
        };
        let other = match value {
            serde_json::Value::Number(number) => serde_json::json!(number.as_i64().unwrap() + 1),
            serde_json::Value::String(text) => {
                let swapped: String = match text.strip_prefix('0') {
                    Some(rest) => format!("1{rest}"),
                    None => format!("0{}", text.get(1..).unwrap_or_default()),
                };
                swapped.into()
            }
            serde_json::Value::Array(elements) => serde_json::Value::Array(elements.iter().rev().cloned().collect()),
            _ => serde_json::Value::Null,
        };
        pending.extend(below);
        let mut bad = document.clone();
        *bad.pointer_mut(&pointer).unwrap() = other;
        if bad == document || pointer.is_empty() {
            continue;
        }
        changed += 1;
        // In the order of the members, which the struct gives; a value that is no ring at all stands as it is.
        let sealed = match serde_json::from_value::<KeyRing>(bad.clone()) {
            Ok(ring) => crate::format::sealed_json::seal("test", &ring).unwrap(),
            Err(_) => crate::format::sealed_json::seal("test", &bad).unwrap(),
        };
        store.write(&key(KEY_RING), &sealed).unwrap();
        store.write(&key(KEY_RING_COPY), &sealed).unwrap();
        let before = store.fork();
        let outcome = open(&store, &passphrase("p"));
        assert!(outcome.is_err(), "{pointer} was changed, and the ring opens");
        assert_eq!(bytes(&before, KEY_RING), bytes(&store, KEY_RING));
        store.write(&key(KEY_RING_COPY), &good).unwrap();
        if let Ok(copies) = RingCopies::read(&store, ARCHIVE) {
            let ring = copies.open(&passphrase("p"), &rules()).unwrap_or_else(|error| panic!("{pointer}: {error}"));
            assert_eq!(fingerprint(&ring), fingerprint(&made));
            assert_eq!(copies.heal(&store, &ring).len(), 1, "{pointer}");
            assert_eq!(bytes(&store, KEY_RING), good);
        } else {
            // A version that is not known ends everything: this program must not write over it.
            assert_eq!(pointer, "/version");
        }
    }
    assert!(changed > 30, "{changed}");
}

#[test]
fn slots_cannot_be_swapped_between_places_or_rings() {
    let (_, one) = place(&[slot(SlotKind::Passphrase, "p"), slot(SlotKind::Command, "q")]);
    let archive_key = one.keys.key.expose();
    let opens = |slot: &Slot, archive, text| slot.open(archive, &passphrase(text)).unwrap();
    let [first, second] = one.ring.slots() else { panic!() };
    assert_eq!(opens(first, ARCHIVE, "p").unwrap().expose(), archive_key);
    assert!(opens(first, ArchiveId::from_bytes([4; 16]), "p").is_none(), "in another archive");
    assert!(opens(&Slot { id: second.id, ..first.clone() }, ARCHIVE, "p").is_none(), "under another number");
    assert!(opens(&Slot { kind: SlotKind::Command, ..first.clone() }, ARCHIVE, "p").is_none(), "as another kind");
    assert!(opens(&Slot { kdf: second.kdf.clone(), ..first.clone() }, ARCHIVE, "p").is_none());
    assert!(opens(&Slot { wrapped: second.wrapped, ..first.clone() }, ARCHIVE, "p").is_none());
    // The commitment decides alone, before anything is unwrapped.
    let mut torn = second.clone();
    torn.commitment.0[0] ^= 1;
    assert!(opens(&torn, ARCHIVE, "q").is_none());
}

/// A slot of an attacker's own, whose passphrase they know, with an archive key of their own: the owner's data must
/// not be written under it.
#[test]
fn a_ring_of_somebody_else_does_not_open_with_the_owners_secret() {
    let (store, _) = place(&[slot(SlotKind::Passphrase, "p")]);
    let (_, mut foreign) = place(&[slot(SlotKind::Passphrase, "attacker")]);
    let bad = foreign.authenticate().unwrap();
    store.write(&key(KEY_RING), &bad).unwrap();
    store.write(&key(KEY_RING_COPY), &bad).unwrap();
    assert!(matches!(open(&store, &passphrase("p")), Err(KeyError::WrongSecret)));
}

#[test]
fn a_changed_rule_of_the_archive_is_refused() {
    let (store, _) = place(&[slot(SlotKind::Passphrase, "p")]);
    let copies = RingCopies::read(&store, ARCHIVE).unwrap();
    let error = copies.open(&passphrase("p"), &Digest::of(b"other rules")).unwrap_err();
    assert!(matches!(error, KeyError::Forged { what: "description of the archive", .. }), "{error}");
    assert!(matches!(RingCopies::read(&store, ArchiveId::from_bytes([9; 16])), Err(KeyError::RingLost { .. })));
}

#[test]
fn the_newest_authentic_ring_counts() {
    let (store, mut ring) = place(&[slot(SlotKind::Passphrase, "old"), slot(SlotKind::Recovery, "r")]);
    let old = bytes(&store, KEY_RING);
    let used = open(&store, &passphrase("old")).unwrap().used;
    ring.replace_slot(used, &slot(SlotKind::Passphrase, "new"), NOW).unwrap();
    ring.save(&store).unwrap();
    let new = bytes(&store, KEY_RING);
    for name in [KEY_RING, KEY_RING_COPY] {
        // One copy rolled back.
        store.write(&key(name), &old).unwrap();
        let revoked = open(&store, &passphrase("old")).unwrap_err();
        assert!(matches!(revoked, KeyError::Superseded { opened: 1, newest: 2 }), "{revoked}");
        let copies = RingCopies::read(&store, ARCHIVE).unwrap();
        for secret in [passphrase("new"), secret(SlotKind::Recovery, "r")] {
            assert_eq!(copies.open(&secret, &rules()).unwrap().ring().generation(), 2);
        }
        let opened = copies.open(&passphrase("new"), &rules()).unwrap();
        assert_eq!(copies.heal(&store, &opened).len(), 1);
        assert_eq!((bytes(&store, KEY_RING), bytes(&store, KEY_RING_COPY)), (new.clone(), new.clone()));
    }
    assert!(matches!(open(&store, &passphrase("old")), Err(KeyError::WrongSecret)));
}

#[test]
fn slots_are_added_and_removed_and_the_last_one_stays() {
    let (store, mut ring) = place(&[slot(SlotKind::Passphrase, "p")]);
    let first = ring.used;
    assert!(matches!(ring.remove_slot(first), Err(KeyError::LastSlot(_))));
    let second = ring.add_slot(&slot(SlotKind::KeyFile, "a file of some bytes"), NOW).unwrap();
    ring.save(&store).unwrap();
    assert_ne!(first, second);
    ring.remove_slot(first).unwrap();
    assert!(matches!(ring.remove_slot(first), Err(KeyError::NoSlot(_))));
    ring.save(&store).unwrap();
    assert!(matches!(open(&store, &passphrase("p")), Err(KeyError::WrongSecret)));
    let mut ring = open(&store, &secret(SlotKind::KeyFile, "a file of some bytes")).unwrap();
    assert_eq!(ring.ring().generation(), 3);
    for _ in 1..MAX_SLOTS {
        ring.add_slot(&slot(SlotKind::Recovery, "r"), NOW).unwrap();
    }
    assert!(matches!(ring.add_slot(&slot(SlotKind::Recovery, "r"), NOW), Err(KeyError::Full { .. })));
    let salts: HashSet<Vec<u8>> = ring.ring().slots().iter().map(|slot| slot.kdf.context().to_vec()).collect();
    assert_eq!(salts.len(), MAX_SLOTS, "a salt was used twice");
    ring.save(&store).unwrap();
    let label = "x".repeat(MAX_LABEL + 1);
    let long = NewSlot { label, ..slot(SlotKind::Recovery, "r") };
    assert!(matches!(ring.replace_slot(second, &long, NOW), Err(KeyError::WeakSecret(_))));
    assert_eq!(ring.ring().slots().len(), MAX_SLOTS);
}

#[test]
fn a_rotation_keeps_the_old_epochs() {
    let (store, mut ring) = place(&[slot(SlotKind::Passphrase, "p")]);
    let before = fingerprint(&ring);
    assert_eq!(ring.rotate(&store, NOW).unwrap().get(), 2);
    assert_eq!(ring.keys().current().epoch().get(), 2);
    let opened = open(&store, &passphrase("p")).unwrap();
    assert_eq!(fingerprint(&opened)[..2], before[..]);
    assert_eq!(fingerprint(&opened), fingerprint(&ring));
    assert_eq!(fingerprint(&opened).iter().collect::<HashSet<_>>().len(), 3);
}

#[test]
fn old_epochs_are_forgotten_when_all_is_encrypted_anew() {
    let (store, mut ring) = place(&[slot(SlotKind::Passphrase, "p")]);
    let other = open(&store, &passphrase("p")).unwrap();
    assert_eq!(ring.rotate_to_reencrypt(&store, NOW).unwrap().get(), 2);
    // Going on begins no other epoch, in this process and in the next.
    assert_eq!(ring.rotate_to_reencrypt(&store, NOW).unwrap().get(), 2);
    let mut ring = open(&store, &passphrase("p")).unwrap();
    assert!(ring.ring().is_reencrypting());
    assert_eq!(ring.rotate_to_reencrypt(&store, NOW).unwrap().get(), 2);
    assert_eq!(ring.forget_old_epochs_on(&store).unwrap(), [Epoch::FIRST]);
    let ring = open(&store, &passphrase("p")).unwrap();
    assert_eq!((ring.ring().epochs().len(), ring.ring().is_reencrypting()), (1, false));
    assert!(ring.keys().epoch(Epoch::FIRST).is_none());
    // The number of an epoch never comes back.
    let mut ring = ring;
    assert_eq!(ring.rotate(&store, NOW).unwrap().get(), 3);
    assert_eq!(open(&store, &passphrase("p")).unwrap().keys().current().epoch().get(), 3);
    // Who has the archive key follows without a secret.
    RingCopies::read(&store, ARCHIVE).unwrap().follow(other.keys(), &rules()).unwrap();
    assert_eq!(other.keys().current().epoch().get(), 3);
    let stranger = OpenRing::create(ARCHIVE, rules(), &[slot(SlotKind::Recovery, "r")], NOW).unwrap();
    let followed = RingCopies::read(&store, ARCHIVE).unwrap().follow(stranger.keys(), &rules());
    assert!(matches!(followed, Err(KeyError::Forged { .. })));
}

#[test]
fn two_changes_at_the_same_time_do_not_undo_each_other() {
    let (store, mut one) = place(&[slot(SlotKind::Passphrase, "p")]);
    let mut two = open(&store, &passphrase("p")).unwrap();
    one.add_slot(&slot(SlotKind::Recovery, "one"), NOW).unwrap();
    one.save(&store).unwrap();
    two.add_slot(&slot(SlotKind::Recovery, "two"), NOW).unwrap();
    assert!(matches!(two.save(&store), Err(KeyError::Changed)));
    assert_eq!(open(&store, &passphrase("p")).unwrap().ring().slots().len(), 2);
}

type Change = fn(&mut OpenRing, &dyn BlockStore) -> KeyResult<()>;

/// Each change, with a failure (before or after the work) or a power cut at each write.
#[test]
fn a_crash_at_any_step_leaves_a_ring_that_opens() {
    let changes: [Change; 5] = [
        |ring, store| {
            ring.add_slot(&slot(SlotKind::Passphrase, "new"), NOW)?;
            ring.save(store)
        },
        |ring, store| {
            let used = ring.used;
            ring.replace_slot(used, &slot(SlotKind::Passphrase, "new"), NOW)?;
            ring.save(store)
        },
        |ring, store| {
            let used = ring.used;
            ring.remove_slot(used)?;
            ring.save(store)
        },
        |ring, store| ring.rotate(store, NOW).map(|_| ()),
        |ring, store| ring.rotate_to_reencrypt(store, NOW).map(|_| ()),
    ];
    let recovery = secret(SlotKind::Recovery, "r");
    for (which, change) in changes.into_iter().enumerate() {
        for nth in 1..=3 {
            for (after, seed) in [(false, 1), (true, 2), (false, 3), (true, 4)] {
                let (memory, _) = place(&[slot(SlotKind::Passphrase, "p"), slot(SlotKind::Recovery, "r")]);
                let memory = Arc::new(memory);
                let store = FaultStore::new(memory.clone(), seed);
                let fault = if after { Fault::fail_after } else { Fault::fail };
                store.inject(fault(StoreErrorKind::Io).on(&[Operation::Write]).from_nth(nth));
                let mut ring = open(&store, &passphrase("p")).unwrap();
                let epochs = ring.ring().epochs().len();
                let outcome = change(&mut ring, &store);
                let step = format!("change {which}, write {nth}, after {after}, seed {seed}: {outcome:?}");
                assert_eq!(outcome.is_ok(), nth == 3, "{step}");
                if nth == 2 {
                    assert!(matches!(outcome, Err(KeyError::HalfWritten(_))), "{step}");
                }
                if outcome.is_err() {
                    assert_eq!(ring.keys().current().epoch().get() as usize, epochs, "an epoch is used early: {step}");
                }
                memory.crash(seed);
                // The one that every state has.
                let copies = RingCopies::read(&*memory, ARCHIVE).unwrap();
                let opened = copies.open(&recovery, &rules()).unwrap_or_else(|error| panic!("{step}: {error}"));
                let either = open(&*memory, &passphrase("p")).is_ok() || open(&*memory, &passphrase("new")).is_ok();
                assert!(either || which == 2, "{step}");
                copies.heal(&*memory, &opened);
                assert_eq!(bytes(&*memory, KEY_RING), bytes(&*memory, KEY_RING_COPY), "{step}");
                let again = open(&*memory, &recovery).unwrap();
                assert_eq!(fingerprint(&again), fingerprint(&opened), "{step}");
            }
        }
    }
}

#[test]
fn what_is_missing_or_damaged_by_itself_is_mended_without_a_key() {
    let (store, mut ring) = place(&[slot(SlotKind::Passphrase, "p")]);
    let good = bytes(&store, KEY_RING);
    let keys = ring.keys().clone();
    let check = |repair| RingCopies::read(&store, ARCHIVE).unwrap().check(&store, None, repair);
    assert!(check(true).is_empty());
    store.delete(&key(KEY_RING)).unwrap();
    assert!(matches!(&check(false)[..], [(_, None)]));
    assert!(matches!(&check(true)[..], [(_, Some(heal))] if heal.outcome.is_ok()));
    assert_eq!(bytes(&store, KEY_RING), good);
    store.damage(&key(KEY_RING_COPY), |bytes| bytes[50] ^= 1);
    assert_eq!(check(true).len(), 1);
    assert_eq!(bytes(&store, KEY_RING_COPY), good);
    // Which of two whole ones counts is not for somebody without a key to say.
    ring.save(&store).unwrap();
    store.write(&key(KEY_RING), &good).unwrap();
    assert!(matches!(&check(true)[..], [(told, None)] if told.contains("differs")));
    assert_eq!(bytes(&store, KEY_RING), good);
    // With a key it is.
    let newest = bytes(&store, KEY_RING_COPY);
    let check = |repair| RingCopies::read(&store, ARCHIVE).unwrap().check(&store, Some(&keys), repair);
    assert!(matches!(&check(false)[..], [(told, None)] if told.contains("generation 1, and 2")));
    assert!(matches!(&check(true)[..], [(_, Some(heal))] if heal.outcome.is_ok()));
    assert_eq!((bytes(&store, KEY_RING), check(true).len()), (newest, 0));
    let (_, mut foreign) = place(&[slot(SlotKind::Passphrase, "attacker")]);
    store.write(&key(KEY_RING), &foreign.authenticate().unwrap()).unwrap();
    assert!(matches!(&check(true)[..], [(told, Some(_))] if told.contains("vouch")));
    for name in [KEY_RING, KEY_RING_COPY] {
        store.write(&key(name), &foreign.authenticate().unwrap()).unwrap();
    }
    assert!(matches!(&check(true)[..], [(told, None)] if told.contains("vouch")));
    store.delete(&key(KEY_RING)).unwrap();
    store.delete(&key(KEY_RING_COPY)).unwrap();
    assert!(matches!(RingCopies::read(&store, ARCHIVE), Err(KeyError::RingMissing { .. })));
}

#[test]
fn a_ring_of_parameters_that_would_take_all_memory_is_no_ring() {
    let (store, mut ring) = place(&[slot(SlotKind::Passphrase, "p"), slot(SlotKind::Recovery, "r")]);
    let salt = Hex([1; 32]);
    let bombs = [
        Kdf::Argon2id { memory_kib: u32::MAX, passes: 1, lanes: 1, salt },
        Kdf::Argon2id { memory_kib: 64, passes: u32::MAX, lanes: 1, salt },
        Kdf::Argon2id { memory_kib: 64, passes: 1, lanes: u32::MAX, salt },
        Kdf::Argon2id { memory_kib: 64, passes: 0, lanes: 1, salt },
        // Guessing a passphrase would cost nothing.
        Kdf::Blake3 { salt },
    ];
    for bomb in bombs {
        ring.ring.slots[0].kdf = bomb.clone();
        let bad = ring.authenticate().unwrap();
        assert!(matches!(KeyRing::from_bytes(&bad), Err(FormatError::Invalid { .. })), "{bomb:?}");
        store.write(&key(KEY_RING), &bad).unwrap();
        assert!(open(&store, &passphrase("p")).is_ok(), "the other copy serves");
    }
}
