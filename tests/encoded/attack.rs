//! A hostile store: it has no key, or only that of the manifests, and computes
//! anew everything else. Nothing of what it makes is ever returned as content.

use super::forge::{Forgery, SealedFile};
use super::{ENCODINGS, Encoding, encoded, one_tier, read};
use crate::kit::{Fixture, compressible, content, files_below, reference, test_keys};
use blockframe::archive::{Archive, ArchiveError, ObjectPlan, ObjectRef, WriteControl};
use blockframe::base::{ContentRange, Secret, SystemClock};
use blockframe::codec::seal::CipherSuite;
use blockframe::format::{ArchiveDescriptor, ObjectKind, TierLayout};
use blockframe::keys::{ArchiveKeys, Epoch};
use blockframe::store::LocalStore;
use serde_json::{Value, json};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Segments of four leaves.
const SEGMENT: usize = 65_536;
/// Three segments; all but the last are equally long, and the content's tree says all their hashes.
const LEN: usize = 3 * SEGMENT - 5000;

fn encrypted() -> impl Iterator<Item = Encoding> {
    ENCODINGS.into_iter().filter(|(_, cipher)| cipher.is_some())
}

fn rules(encoding: Encoding) -> ArchiveDescriptor {
    encoded(&one_tier(TierLayout::Segments, SEGMENT as u64, 1, 1), encoding)
}

/// An encrypted archive with one object, and what is true of it.
struct Subject {
    fixture: Fixture,
    object: ObjectRef,
    content: Vec<u8>,
    forgery: Forgery,
    encoding: Encoding,
}

impl Subject {
    fn new(encoding: Encoding) -> Self {
        let fixture = Fixture::new(rules(encoding));
        // What does not shrink keeps its length: segments are equally long, and can be swapped.
        let content = content(LEN, 5);
        let object = reference(&fixture.put("object", &content));
        let forgery = Forgery::of(&fixture.path(&object));
        let subject = Self { fixture, object, content, forgery, encoding };
        // Computing everything anew without a change gives what was there.
        let mut same = subject.forgery.clone();
        same.compute();
        assert_eq!(same.document, subject.forgery.document, "{encoding:?}");
        let before = files_below(subject.fixture.dir.path());
        same.put_as_it_is(subject.fixture.dir.path());
        let after = files_below(subject.fixture.dir.path());
        assert!(before.keys().eq(after.keys()));
        assert!(subject.read_forged().is_ok_and(|found| found == subject.content));
        subject
    }

    fn keys(&self) -> Arc<ArchiveKeys> {
        test_keys(self.fixture.archive.descriptor().id)
    }

    fn manifest_key(&self) -> Secret<64> {
        self.keys().current().manifest_key()
    }

    fn archive(&self) -> Archive {
        open(&self.fixture).unlocked(self.keys())
    }

    /// What is read when the catalog is lost as well, so that the object's root comes from its manifest.
    fn read_forged(&self) -> Result<Vec<u8>, ArchiveError> {
        let archive = self.archive();
        let root = archive.load_manifest(&self.object.name)?.root();
        read(&archive, &ObjectRef { name: self.object.name.clone(), root })
    }

    /// Without a key: the manifest is not believed, with the catalog's root or without.
    fn refused(&self, what: &str, forgery: Forgery) {
        forgery.put(self.fixture.dir.path());
        self.refused_as_it_is(what);
    }

    fn refused_as_it_is(&self, what: &str) {
        let what = format!("{:?}, {what}", self.encoding);
        for outcome in [self.read_forged(), read(&self.archive(), &self.object)] {
            let error = outcome.err().unwrap_or_else(|| panic!("{what}: it is believed"));
            assert!(matches!(error, ArchiveError::ManifestLost { .. }), "{what}: {error:?}");
        }
        // Nor is anything rewritten on the word of such a manifest.
        assert!(self.archive().load_manifest(&self.object.name).is_err(), "{what}");
    }

    /// With the manifests' key, `change` of the facts, and everything else computed: frames are still not authentic.
    /// What is read of the rest is right.
    fn not_authentic(&self, what: &str, mut forgery: Forgery, change: impl FnOnce(&mut Value)) {
        let what = format!("{:?}, {what}", self.encoding);
        let mut facts = forgery.facts(&self.manifest_key());
        forgery.compute();
        facts["key"]["stored_size"] = json!(forgery.segments.iter().map(Vec::len).sum::<usize>());
        change(&mut facts);
        forgery.seal_facts(&self.manifest_key(), &facts);
        forgery.put_as_it_is(self.fixture.dir.path());
        let archive = self.archive();
        let root = archive.load_manifest(&self.object.name).unwrap_or_else(|error| panic!("{what}: {error:?}")).root();
        let object = archive.object(&ObjectRef { name: self.object.name.clone(), root }).unwrap();
        let len = object.content_len().unwrap() as usize;
        let whole = object.read(ContentRange::between(0, len as u64)).expect_err(&what);
        assert!(matches!(whole, ArchiveError::Undecodable { .. }), "{what}: {whole:?}");
        for start in (0..len).step_by(16_384) {
            let end = (start + 16_384).min(len);
            if let Ok(found) = object.read(ContentRange::between(start as u64, end as u64)) {
                let same = self.content.get(start..end) == Some(found.bytes());
                assert!(same, "{what}: {start} to {end} is read as something else");
            }
        }
    }
}

fn open(fixture: &Fixture) -> Archive {
    let store = Arc::new(LocalStore::open(fixture.dir.path()).unwrap());
    Archive::open(store, Arc::new(SystemClock), Arc::new(())).unwrap()
}

#[test]
fn every_changed_byte_is_noticed_however_the_roots_are_computed() {
    for encoding in encrypted() {
        let subject = Subject::new(encoding);
        for segment in 0..subject.forgery.segments.len() {
            for at in super::positions(subject.forgery.segments[segment].len(), 10) {
                let mut forgery = subject.forgery.clone();
                forgery.segments[segment][at] ^= 0x10;
                if at % 2 == 0 {
                    subject.refused(&format!("segment {segment}, byte {at}"), forgery);
                } else {
                    subject.not_authentic_or_refused(&format!("segment {segment}, byte {at}"), forgery);
                }
            }
        }
    }
}

impl Subject {
    /// A changed footer may be no footer any more, which is another error than a frame that is not authentic.
    fn not_authentic_or_refused(&self, what: &str, mut forgery: Forgery) {
        let what = format!("{:?}, {what}", self.encoding);
        let facts = forgery.facts(&self.manifest_key());
        forgery.compute();
        forgery.seal_facts(&self.manifest_key(), &facts);
        forgery.put_as_it_is(self.fixture.dir.path());
        let outcome = self.read_forged();
        assert!(outcome.is_err(), "{what}: it is read");
    }
}

#[test]
fn every_pair_of_frames_of_a_segment_swapped() {
    for encoding in encrypted() {
        let subject = Subject::new(encoding);
        for segment in [0, 2] {
            let pristine = SealedFile::parse(&subject.forgery.segments[segment]);
            for one in 0..pristine.frames.len() {
                for other in one + 1..pristine.frames.len() {
                    if pristine.frames[one].len() != pristine.frames[other].len() {
                        continue;
                    }
                    for (frames, tags) in [(true, true), (true, false), (false, true)] {
                        let mut file = pristine.clone();
                        if frames {
                            file.frames.swap(one, other);
                        }
                        if tags {
                            file.tags.swap(one, other);
                        }
                        let what = format!("segment {segment}: {one} and {other} swapped ({frames}, {tags})");
                        let mut forgery = subject.forgery.clone();
                        forgery.segments[segment] = file.bytes();
                        subject.not_authentic(&what, forgery.clone(), |_| {});
                        if frames && tags {
                            subject.refused(&what, forgery);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn every_pair_of_segments_swapped_and_doubled() {
    for encoding in encrypted() {
        let subject = Subject::new(encoding);
        let count = subject.forgery.segments.len();
        for one in 0..count {
            for other in (0..count).filter(|other| *other != one) {
                let mut doubled = subject.forgery.clone();
                doubled.segments[one] = doubled.segments[other].clone();
                subject.refused(&format!("{other} in the place of {one}"), doubled.clone());
                let same_len = subject.forgery.segments[one].len() == subject.forgery.segments[other].len();
                if same_len {
                    subject.not_authentic(&format!("{other} in the place of {one}"), doubled, |_| {});
                    let mut swapped = subject.forgery.clone();
                    swapped.segments.swap(one, other);
                    subject.refused(&format!("{one} and {other} swapped"), swapped.clone());
                    subject.not_authentic(&format!("{one} and {other} swapped"), swapped, |_| {});
                }
            }
        }
    }
}

#[test]
fn segments_and_manifests_of_another_object() {
    for encoding in encrypted() {
        let subject = Subject::new(encoding);
        let other = reference(&subject.fixture.put("other", &content(LEN, 6)));
        let other = Forgery::of(&subject.fixture.path(&other));
        for segment in 0..other.segments.len() {
            let mut forgery = subject.forgery.clone();
            forgery.segments[segment] = other.segments[segment].clone();
            subject.refused(&format!("segment {segment} of another object"), forgery.clone());
            subject.not_authentic(&format!("segment {segment} of another object"), forgery, |_| {});
        }
        // All of it, under this object's name.
        let mut renamed = other.clone();
        renamed.document["object"] = subject.forgery.document["object"].clone();
        subject.refused("another object under this one's name", renamed);
        // Only its manifest, as it is.
        let directory = subject.forgery.put_as_it_is(subject.fixture.dir.path());
        for copy in ["manifest.json", "manifest.copy.json"] {
            fs::write(directory.join(copy), other.manifest()).unwrap();
        }
        subject.refused_as_it_is("another object's manifest");
    }
}

/// The key of an epoch with this number, of the archive with these rules, is another one.
#[test]
fn segments_of_another_archive_another_epoch_or_another_key() {
    for encoding in encrypted() {
        let subject = Subject::new(encoding);
        let foreign = |descriptor: ArchiveDescriptor, keys: &dyn Fn(&Archive) -> Arc<ArchiveKeys>| {
            let mut fixture = Fixture::new(descriptor);
            fixture.archive = fixture.archive.unlocked(keys(&fixture.archive));
            let object = reference(&fixture.put("object", &subject.content));
            Forgery::of(&fixture.path(&object))
        };
        let id = subject.fixture.archive.descriptor().id;
        let same_id = ArchiveDescriptor { id, ..rules(encoding) };
        let secret = |byte| Secret::filled_by(|bytes: &mut [u8; 32]| bytes.fill(byte));
        let second = Epoch::new(2).unwrap();
        let of_archive = foreign(rules(encoding), &|archive| test_keys(archive.descriptor().id));
        let of_key =
            foreign(same_id.clone(), &|_| ArchiveKeys::new(id, secret(1), vec![(Epoch::FIRST, secret(9))]).unwrap());
        let of_epoch = foreign(same_id, &|_| ArchiveKeys::new(id, secret(1), vec![(second, secret(2))]).unwrap());
        for (what, foreign) in [("archive", of_archive), ("key", of_key), ("epoch", of_epoch)] {
            for segment in [0, foreign.segments.len() - 1] {
                let mut forgery = subject.forgery.clone();
                forgery.segments[segment] = foreign.segments[segment].clone();
                subject.refused(&format!("segment {segment} of another {what}"), forgery.clone());
                subject.not_authentic(&format!("segment {segment} of another {what}"), forgery.clone(), |_| {});
                // And with the footer's epoch set to what is expected.
                let mut file = SealedFile::parse(&forgery.segments[segment]);
                file.set_footer(40, 1);
                forgery.segments[segment] = file.bytes();
                subject.not_authentic(
                    &format!("segment {segment} of another {what}, its epoch changed"),
                    forgery,
                    |_| {},
                );
            }
            let mut whole = foreign.clone();
            whole.document["object"] = subject.forgery.document["object"].clone();
            whole.document["archive"] = subject.forgery.document["archive"].clone();
            subject.refused(&format!("all of another {what}"), whole.clone());
            whole.document["epoch"] = json!(1);
            subject.refused(&format!("all of another {what}, as of epoch 1"), whole);
        }
    }
}

/// Versions of one line share keys of segments by intention; only their manifests say which segment is whose.
#[test]
fn versions_of_one_line_are_not_mixed() {
    for encoding in encrypted() {
        let subject = Subject::new(encoding);
        let archive = subject.archive();
        let mut next = subject.content.clone();
        next[SEGMENT + 100..SEGMENT + 200].fill(7);
        let (start, end) = (SEGMENT as u64 + 100, SEGMENT as u64 + 200);
        let compression = archive.descriptor().compression;
        let kind = ObjectKind::File;
        let plan = ObjectPlan { readable: b"object".to_vec(), kind, sequence: 2, entry: None, compression };
        let control = WriteControl { progress: &|_| {}, cancel: &AtomicBool::new(false) };
        let base = archive.object(&subject.object).unwrap();
        let changed = [ContentRange::between(start, end)];
        let written = archive.rewrite_object(&base, &next, &changed, &plan, &control).unwrap();
        let newer = reference(&written);
        let newer_files = Forgery::of(&subject.fixture.path(&newer));
        let line = |forgery: &Forgery| forgery.facts(&subject.manifest_key())["line"].clone();
        assert_eq!(line(&newer_files), line(&subject.forgery), "{encoding:?}: the same line");
        assert_eq!(newer_files.segments[0], subject.forgery.segments[0], "{encoding:?}: a shared segment");
        assert_ne!(newer_files.segments[1], subject.forgery.segments[1], "{encoding:?}");
        // The older segment in the newer object, and the other way round.
        let mut rolled_back = newer_files.clone();
        rolled_back.segments[1] = subject.forgery.segments[1].clone();
        rolled_back.put(subject.fixture.dir.path());
        let fresh = subject.archive();
        assert!(fresh.load_manifest(&newer.name).is_err(), "{encoding:?}: an older segment is believed");
        assert!(read(&fresh, &newer).is_err(), "{encoding:?}: an older segment is believed");
        let mut ahead = subject.forgery.clone();
        ahead.segments[1] = newer_files.segments[1].clone();
        subject.refused("a newer segment in the older version", ahead);
        // The older version as a whole, in the place of the newer one.
        let mut older = subject.forgery.clone();
        older.document["object"] = newer_files.document["object"].clone();
        older.put(subject.fixture.dir.path());
        assert!(subject.archive().load_manifest(&newer.name).is_err(), "{encoding:?}: an older version is believed");
        assert!(read(&subject.archive(), &newer).is_err(), "{encoding:?}: an older version is believed");
    }
}

/// The same content was encrypted twice: an older state of the object is whole, and its content the same. It is not
/// what the catalog recorded.
#[test]
fn an_older_manifest_is_not_the_one_that_the_catalog_recorded() {
    for encoding in encrypted() {
        let subject = Subject::new(encoding);
        fs::remove_dir_all(subject.fixture.path(&subject.object)).unwrap();
        let fixture = Fixture { archive: subject.archive(), ..subject.fixture };
        let newer = reference(&fixture.put("object", &subject.content));
        assert_eq!(newer.name, subject.object.name);
        assert_ne!(newer.root, subject.object.root);
        subject.forgery.put_as_it_is(fixture.dir.path());
        let archive = open(&fixture).unlocked(test_keys(fixture.archive.descriptor().id));
        assert!(matches!(read(&archive, &newer), Err(ArchiveError::ManifestLost { .. })), "{encoding:?}");
        assert!(read(&archive, &subject.object).unwrap() == subject.content, "{encoding:?}");
    }
}

#[test]
fn cut_off_ends_with_lengths_to_match() {
    for encoding in encrypted() {
        let subject = Subject::new(encoding);
        let last = subject.forgery.segments.len() - 1;
        let mut fewer = subject.forgery.clone();
        fewer.segments.pop();
        subject.refused("without its last segment", fewer.clone());
        let mut first_only = subject.forgery.clone();
        first_only.segments.truncate(1);
        subject.refused("with its first segment only", first_only);
        for segment in [0, last] {
            let pristine = SealedFile::parse(&subject.forgery.segments[segment]);
            for keep in 1..pristine.frames.len() {
                let mut file = pristine.clone();
                file.frames.truncate(keep);
                file.tags.truncate(keep);
                let mut forgery = subject.forgery.clone();
                forgery.segments[segment] = file.bytes();
                subject.refused(&format!("segment {segment} has {keep} frames"), forgery);
            }
            for cut in [1, 16, 64, 80, 16384] {
                let mut forgery = subject.forgery.clone();
                let len = forgery.segments[segment].len();
                forgery.segments[segment].truncate(len - cut);
                subject.refused(&format!("segment {segment} without {cut} bytes"), forgery.clone());
                forgery.segments[segment] = subject.forgery.segments[segment].clone();
                forgery.segments[segment].extend_from_slice(&vec![0; cut]);
                subject.refused(&format!("segment {segment} with {cut} bytes more"), forgery);
            }
        }
    }
}

/// The manifests' key in wrong hands: lengths that all agree, and a segment whose last frame was not its last.
#[test]
fn cut_off_ends_are_noticed_by_the_frames_themselves() {
    for (codec, cipher) in encrypted().filter(|(codec, _)| codec.is_none()) {
        // One segment that is not padded: frames are cut off, and the content's length says so.
        let len = SEGMENT - 16384;
        let fixture = Fixture::new(rules((codec, cipher)));
        let bytes = content(len, 8);
        let object = reference(&fixture.put("object", &bytes));
        let forgery = Forgery::of(&fixture.path(&object));
        let subject = Subject { fixture, object, content: bytes, forgery, encoding: (codec, cipher) };
        for keep in 1..3 {
            let mut file = SealedFile::parse(&subject.forgery.segments[0]);
            assert_eq!(file.frames.len(), 3);
            file.frames.truncate(keep);
            file.tags.truncate(keep);
            let mut forgery = subject.forgery.clone();
            forgery.segments[0] = file.bytes();
            subject.not_authentic(&format!("{keep} of 3 frames"), forgery, |facts| {
                facts["key"]["plain_size"] = json!(keep * 16384);
            });
        }
    }
}

/// Lengths, codec, cipher, epoch and line stand in the context of every frame.
#[test]
fn frames_are_bound_to_what_the_manifest_says() {
    for encoding in encrypted() {
        let subject = Subject::new(encoding);
        let same = || subject.forgery.clone();
        subject
            .not_authentic("another line", same(), |facts| facts["line"] = json!("00112233445566778899aabbccddeeff"));
        match encoding.0 {
            // Within the same padded length.
            None => subject.not_authentic("a longer content", same(), |facts| {
                facts["key"]["plain_size"] = json!(LEN + 1);
                facts.as_object_mut().unwrap().remove("content_tree");
            }),
            Some(_) => {
                subject.not_authentic("another codec", same(), |facts| {
                    let other = if facts["key"]["compression"] == "zstd" { "lz4" } else { "zstd" };
                    facts["key"]["compression"] = json!(other);
                });
                subject.not_authentic("not compressed", same(), |facts| {
                    // Where the lengths allow it: streams without a codec are refused before anything is read.
                    facts["streams"][0] = json!(facts["streams"][0].as_u64().unwrap() - 1);
                });
            }
        }
        // The footer's salt and cipher.
        for (what, at, byte) in
            [("another salt", 8, 0xa5), ("another cipher", 44, 1), ("another cipher", 44, 2), ("another epoch", 40, 2)]
        {
            let mut forgery = same();
            let mut file = SealedFile::parse(&forgery.segments[1]);
            if file.footer[at] == byte {
                continue;
            }
            file.set_footer(at, byte);
            forgery.segments[1] = file.bytes();
            subject.refused(what, forgery.clone());
            subject.not_authentic(what, forgery, |_| {});
        }
        // The cipher in manifest and footers.
        for (code, suite) in (1..).zip(CipherSuite::ALL).filter(|(_, suite)| Some(*suite) != encoding.1) {
            let mut forgery = same();
            for segment in &mut forgery.segments {
                let mut file = SealedFile::parse(segment);
                file.set_footer(44, code);
                *segment = file.bytes();
            }
            let facts = forgery.facts(&subject.manifest_key());
            forgery.document["cipher"] = json!(suite.name());
            subject.refused("another cipher everywhere", forgery.clone());
            forgery.compute();
            forgery.seal_facts(&subject.manifest_key(), &facts);
            forgery.put_as_it_is(subject.fixture.dir.path());
            assert!(
                matches!(subject.read_forged(), Err(ArchiveError::Undecodable { .. })),
                "{encoding:?} as {suite:?}"
            );
        }
    }
}

#[test]
fn members_of_the_manifest_are_bound_to_the_sealed_part() {
    for encoding in encrypted() {
        let subject = Subject::new(encoding);
        let with = |change: &dyn Fn(&mut Value)| {
            let mut forgery = subject.forgery.clone();
            change(&mut forgery.document);
            forgery
        };
        subject.refused("an epoch that is not known", with(&|document| document["epoch"] = json!(2)));
        subject.refused("another tier", with(&|document| document["geometry"]["tier"] = json!(9)));
        subject
            .refused("shorter segments", with(&|document| document["geometry"]["segment_size"] = json!(SEGMENT / 2)));
        subject.refused(
            "another cipher",
            with(&|document| {
                let other = if document["cipher"] == "aes256-siv" { "aes256-gcm" } else { "aes256-siv" };
                document["cipher"] = json!(other);
            }),
        );
        subject.refused("no sealed part", with(&|document| document["sealed"] = json!("")));
        subject.refused(
            "a shorter sealed part",
            with(&|document| {
                let sealed = document["sealed"].as_str().unwrap();
                document["sealed"] = json!(sealed[..sealed.len() - 4]);
            }),
        );
        let sealed = subject.forgery.document["sealed"].as_str().unwrap().to_string();
        for at in super::positions(sealed.len() - 4, 12) {
            let other = if sealed.as_bytes()[at] == b'A' { "B" } else { "A" };
            let forged = format!("{}{other}{}", &sealed[..at], &sealed[at + 1..]);
            subject.refused(
                &format!("another digit of the sealed part ({at})"),
                with(&|document| document["sealed"] = json!(forged)),
            );
        }
        // In clear, and so without a key: the form of an object that is not encrypted.
        let plain = with(&|document| {
            let members = document.as_object_mut().unwrap();
            members.remove("sealed");
            members.remove("epoch");
            members.insert("cipher".into(), json!("none"));
            members.insert("kind".into(), json!("file"));
            members.insert("sequence".into(), json!(1));
            members.insert("committed".into(), json!({"seconds": 0, "nanoseconds": 0}));
            let hash = document["object"].as_str().unwrap().rsplit_once('_').unwrap().1.to_string();
            document["key"] = json!({"hash_algorithm": "blake3", "hash": hash, "plain_size": 3 * SEGMENT, "stored_size": 0, "compression": "zstd"});
        });
        subject.refused("said not to be encrypted", plain);
    }
}

#[test]
fn an_object_in_clear_is_none_of_an_encrypted_archive() {
    for encoding in encrypted() {
        let subject = Subject::new(encoding);
        for planted in [(None, None), (Some("zstd:1"), None)] {
            let id = subject.fixture.archive.descriptor().id;
            let elsewhere = Fixture::new(ArchiveDescriptor { id, ..rules(planted) });
            let object = reference(&elsewhere.put("planted", b"what somebody wants to be found"));
            for (file, bytes) in files_below(&elsewhere.path(&object)) {
                let target = subject.fixture.path(&object).join(file);
                fs::create_dir_all(target.parent().unwrap()).unwrap();
                fs::write(target, bytes).unwrap();
            }
            let error = subject.archive().load_manifest(&object.name).expect_err("it is believed");
            let ArchiveError::ManifestLost { source, .. } = error else { panic!("{error:?}") };
            assert!(
                matches!(&*source, ArchiveError::ForeignManifest { why, .. } if why.contains("not encrypted")),
                "{source:?}"
            );
            assert!(read(&subject.archive(), &object).is_err());
        }
    }
}

#[test]
fn a_name_is_the_keyed_hash_of_its_content() {
    for encoding in encrypted() {
        let subject = Subject::new(encoding);
        let key = subject.manifest_key();
        let facts = subject.forgery.facts(&key);
        let other = subject.keys().current().object_hash(&blockframe::base::Digest::of(b"another content"));
        let plain = facts["key"]["hash"].as_str().unwrap().to_string();
        for hash in [other.to_hex(), plain] {
            let mut forgery = subject.forgery.clone();
            forgery.document["object"] = json!(format!("sealed_{hash}"));
            forgery.compute();
            forgery.seal_facts(&key, &facts);
            forgery.put_as_it_is(subject.fixture.dir.path());
            let error = subject.archive().load_manifest(&forgery.name()).expect_err("it is believed");
            let ArchiveError::ManifestLost { source, .. } = error else { panic!("{error:?}") };
            assert!(matches!(&*source, ArchiveError::ForeignManifest { .. }), "{encoding:?}: {source:?}");
        }
    }
}

/// In the padding stands nothing but zeros, and it is authenticated like the rest: what is behind the end of the
/// content cannot be made part of it.
#[test]
fn the_padding_is_authentic_and_never_read() {
    for (codec, cipher) in encrypted().filter(|(codec, _)| codec.is_none()) {
        let fixture = Fixture::new(rules((codec, cipher)));
        let bytes = compressible(SEGMENT + 100, 3);
        let object = reference(&fixture.put("object", &bytes));
        let forgery = Forgery::of(&fixture.path(&object));
        let subject = Subject { fixture, object, content: bytes.clone(), forgery, encoding: (codec, cipher) };
        let mut changed = subject.forgery.clone();
        // The last segment holds 100 bytes of content; the padding's last byte is in its first frame.
        let padded = SealedFile::parse(&changed.segments[1]).frames.concat().len();
        changed.segments[1][padded - 1] ^= 1;
        subject.refused("padding changed", changed.clone());
        subject.not_authentic("padding changed", changed, |_| {});
        subject.forgery.put_as_it_is(subject.fixture.dir.path());
        let archive = subject.archive();
        let opened = archive.object(&subject.object).unwrap();
        let over = opened.read(ContentRange::between(SEGMENT as u64, 3 * SEGMENT as u64)).unwrap();
        assert_eq!(over.bytes(), &bytes[SEGMENT..], "reads end where the content ends");
    }
}
