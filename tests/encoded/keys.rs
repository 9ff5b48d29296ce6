//! Other keys than those that an archive was made with, or none.

use super::{ENCODINGS, encoded, one_tier, read};
use crate::kit::{Fixture, compressible, files_below, reference};
use blockframe::archive::{Archive, ArchiveError, Depth, ObjectPlan, Verdict, WriteControl};
use blockframe::base::{ArchiveId, ContentRange, ErrorClass, Secret, SystemClock};
use blockframe::format::{FormatError, ObjectKind, TierLayout};
use blockframe::keys::{ArchiveKeys, Epoch};
use blockframe::store::LocalStore;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

fn keys(archive: ArchiveId, epochs: &[(u32, u8)]) -> Arc<ArchiveKeys> {
    let secret = |byte| Secret::filled_by(|bytes: &mut [u8; 32]| bytes.fill(byte));
    let epochs = epochs.iter().map(|(number, byte)| (Epoch::new(*number).unwrap(), secret(*byte))).collect();
    ArchiveKeys::new(archive, secret(1), epochs).unwrap()
}

fn locked(fixture: &Fixture) -> Archive {
    let store = Arc::new(LocalStore::open(fixture.dir.path()).unwrap());
    Archive::open(store, Arc::new(SystemClock), Arc::new(())).unwrap()
}

#[test]
fn other_keys_give_no_bytes_and_change_nothing() {
    for encoding in ENCODINGS.into_iter().filter(|(_, cipher)| cipher.is_some()) {
        let fixture = Fixture::new(encoded(&one_tier(TierLayout::Blocks, 16_384, 2, 1), encoding));
        let object = reference(&fixture.put("object", &compressible(50_000, 1)));
        let before = files_below(fixture.dir.path());
        let id = fixture.archive.descriptor().id;
        for (what, keys) in [
            ("another key of the same epoch", keys(id, &[(1, 3)])),
            ("the keys of another archive", keys(ArchiveId::random(), &[(1, 2)])),
        ] {
            let archive = locked(&fixture).unlocked(keys);
            let error = read(&archive, &object).expect_err(what);
            assert!(matches!(error, ArchiveError::ManifestLost { .. }), "{encoding:?}, {what}: {error:?}");
            assert!(archive.load_manifest(&object.name).is_err(), "{encoding:?}, {what}");
        }
        let archive = locked(&fixture).unlocked(keys(id, &[(2, 2)]));
        let error = read(&archive, &object).expect_err("the epoch is not known");
        let ArchiveError::ManifestLost { source, .. } = &error else { panic!("{error:?}") };
        assert!(matches!(**source, ArchiveError::UnknownEpoch { epoch: 1, .. }), "{encoding:?}: {error:?}");
        assert!(files_below(fixture.dir.path()) == before, "{encoding:?}: something was written");
        // More epochs than the object's do no harm.
        let archive = locked(&fixture).unlocked(keys(id, &[(1, 2), (2, 7)]));
        assert!(read(&archive, &object).unwrap() == compressible(50_000, 1));
    }
}

#[test]
fn without_keys_there_is_health_and_nothing_to_read_or_write() {
    for encoding in ENCODINGS.into_iter().filter(|(_, cipher)| cipher.is_some()) {
        let fixture = Fixture::new(encoded(&one_tier(TierLayout::Blocks, 16_384, 2, 1), encoding));
        let object = reference(&fixture.put("object", &compressible(50_000, 1)));
        let before = files_below(fixture.dir.path());
        let archive = locked(&fixture);
        let opened = archive.object(&object).unwrap();
        for error in [
            opened.content_len().expect_err("its length is known"),
            opened.read(ContentRange::between(0, 1)).expect_err("it is read"),
            opened.read(ContentRange::between(0, 50_000)).expect_err("it is read"),
        ] {
            assert!(matches!(error, ArchiveError::Format(FormatError::Sealed { .. })), "{encoding:?}: {error:?}");
            assert_eq!(error.class(), ErrorClass::WrongKey);
        }
        let plan =
            ObjectPlan { readable: b"x".to_vec(), kind: ObjectKind::File, sequence: 1, entry: None, compression: None };
        let control = WriteControl { progress: &|_| {}, cancel: &AtomicBool::new(false) };
        let error = archive.write_object(&b"new".to_vec(), &plan, &control).expect_err("it is written");
        assert_eq!(error.class(), ErrorClass::WrongKey, "{encoding:?}: {error:?}");
        assert_eq!(archive.object_health(&object, Depth::Full, &|_| {}).unwrap().verdict, Verdict::Healthy);
        assert!(files_below(fixture.dir.path()) == before, "{encoding:?}: something was written");
    }
}
