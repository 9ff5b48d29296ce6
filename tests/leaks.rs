//! Nothing that can be read reaches the directory of an encrypted archive:
//! everything that went in is a marker, and every file is searched for all of
//! them, while the archive is mounted and after it. The same search in an
//! archive that is not encrypted finds them.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod kit;

use base64::Engine as _;
use blockframe::archive::Archive;
use blockframe::base::{Secret, SystemClock};
use blockframe::codec::seal::open_metadata;
use blockframe::keys::phrase::RecoveryPhrase;
use blockframe::keys::{Purpose, SlotKind, SlotSecret};
use blockframe::store::LocalStore;
use kit::content;
use kit::program::{Place, can_mount};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const PASSPHRASE: &str = "quartz-jigsaw-vex-dwarf-passphrase";
const SECOND_PASSPHRASE: &str = "sphinx-of-black-quartz-second-passphrase";

/// Inode, length and time of the last change of each file.
type Searched = BTreeMap<PathBuf, Option<(u64, u64, i64, i64)>>;

/// What must not be found, by what it is.
#[derive(Default)]
struct Markers(BTreeMap<String, Vec<u8>>);

impl Markers {
    fn bytes(&mut self, what: impl Into<String>, bytes: &[u8]) {
        assert!(bytes.len() >= 6, "too short to be unmistakable");
        self.0.insert(what.into(), bytes.to_vec());
    }

    /// A text of the same kind that occurs nowhere else: as it is, and as hexadecimal digits and base64 would have it.
    fn text(&mut self, text: &str) {
        self.bytes(text, text.as_bytes());
        self.encoded(text, text.as_bytes());
        let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        self.bytes(format!("{text} in UTF-16"), &utf16);
    }

    /// As hexadecimal digits, and as base64 at any place.
    fn encoded(&mut self, what: &str, bytes: &[u8]) {
        self.bytes(format!("{what} in hexadecimal"), hex::encode(bytes).as_bytes());
        self.bytes(format!("{what} in hexadecimal capitals"), hex::encode_upper(bytes).as_bytes());
        for shift in 0..3 {
            let code = base64::engine::general_purpose::STANDARD_NO_PAD.encode([&vec![0; shift][..], bytes].concat());
            self.bytes(format!("{what} in base64, {shift}"), &code.as_bytes()[4..code.len() - 2]);
        }
    }

    /// 32 random bytes, or a hash.
    fn secret(&mut self, what: &str, bytes: &[u8]) {
        self.bytes(what, bytes);
        self.encoded(what, bytes);
    }

    /// The bytes of a content, its hash and its length: in binary, and in text.
    fn content(&mut self, what: &str, bytes: &[u8]) {
        for (part, at) in [("begins", 0), ("goes on", bytes.len() / 2), ("ends", bytes.len() - 24)] {
            self.bytes(format!("{what} {part}"), &bytes[at..at + 24]);
        }
        self.secret(&format!("the hash of {what}"), blake3::hash(bytes).as_bytes());
        if bytes.len() > 100_000 {
            self.bytes(format!("the size of {what}"), bytes.len().to_string().as_bytes());
            self.bytes(format!("the size of {what} in binary"), &(bytes.len() as u64).to_le_bytes());
        }
    }

    fn found_in(&self, bytes: &[u8]) -> Vec<&str> {
        // A byte that few of the markers begin with would be as good: it is the second, third and fourth that count.
        let mut by_start: BTreeMap<[u8; 4], Vec<(&str, &[u8])>> = BTreeMap::new();
        for (what, marker) in &self.0 {
            by_start.entry(marker[..4].try_into().unwrap()).or_default().push((what, marker));
        }
        let mut starts = vec![false; 1 << 16];
        for start in by_start.keys() {
            starts[usize::from(u16::from_le_bytes([start[0], start[1]]))] = true;
        }
        let mut found = Vec::new();
        for (at, four) in bytes.windows(4).enumerate() {
            if !starts[usize::from(u16::from_le_bytes([four[0], four[1]]))] {
                continue;
            }
            for (what, marker) in by_start.get(four).into_iter().flatten() {
                if bytes[at..].starts_with(marker) {
                    found.push(*what);
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// By file, what is found in it or in its name.
    ///
    /// `searched` says which files were as they are now when they were searched before: what went in since then is
    /// not in them.
    fn found_below(&self, directory: &Path, searched: &mut Searched) -> BTreeMap<PathBuf, Vec<String>> {
        let mut found = BTreeMap::new();
        for path in everything_below(directory) {
            let state =
                fs::symlink_metadata(&path).map(|now| (now.ino(), now.len(), now.ctime(), now.ctime_nsec())).ok();
            if searched.insert(path.clone(), state) == Some(state) && state.is_some() {
                continue;
            }
            let mut seen = self.found_in(path.strip_prefix(directory).unwrap().as_os_str().as_encoded_bytes());
            let kind = fs::symlink_metadata(&path).map(|metadata| metadata.file_type());
            let bytes = match kind {
                // A file of a daemon that is at work may be gone by now.
                Ok(kind) if kind.is_file() => fs::read(&path).unwrap_or_default(),
                Ok(kind) if kind.is_symlink() => fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
                Ok(kind) => {
                    assert!(kind.is_dir() || kind.is_socket(), "{}", path.display());
                    Vec::new()
                }
                Err(_) => Vec::new(),
            };
            seen.extend(self.found_in(&bytes));
            if !seen.is_empty() {
                found.insert(path, seen.into_iter().map(String::from).collect());
            }
        }
        found
    }
}

fn everything_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![directory.to_path_buf()];
    while let Some(next) = todo.pop() {
        for entry in fs::read_dir(next).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.is_symlink() {
                todo.push(path.clone());
            }
            found.push(path);
        }
    }
    found
}

/// A tree of which everything is a marker, and an archive for it.
struct Scenario {
    place: Place,
    markers: Markers,
    encrypted: bool,
    searched: Searched,
    /// Everything that was ever found in an archive in clear.
    seen: Vec<String>,
}

impl Scenario {
    fn new(options: &[&str], encrypted: bool) -> Self {
        let place = Place::new();
        let mut markers = Markers::default();
        let mut words = vec!["init", "--json"];
        words.extend(options);
        if encrypted {
            fs::write(place.path("pass"), format!("{PASSPHRASE}\n")).unwrap();
            fs::write(place.path("second"), format!("{SECOND_PASSPHRASE}\n")).unwrap();
            fs::write(place.path("keyfile"), content(48, 77)).unwrap();
            fs::create_dir_all(place.path(".config/blockframe")).unwrap();
            fs::write(place.path(".config/blockframe/config.toml"), "[encryption]\npassphrase_file = \"../../pass\"\n")
                .unwrap();
            words.extend(["--encrypt", "--no-confirm", "--passphrase-file", "pass"]);
            let made: serde_json::Value = serde_json::from_str(&place.ok(words)).unwrap();
            let phrase = made["recovery_phrase"].as_str().unwrap();
            markers.text(PASSPHRASE);
            markers.text(SECOND_PASSPHRASE);
            markers.secret("the key file", &content(48, 77));
            let all: Vec<&str> = phrase.split(' ').collect();
            for three in all.windows(3) {
                markers.bytes(format!("words of the recovery phrase: {three:?}"), three.join(" ").as_bytes());
            }
            let parsed = RecoveryPhrase::parse(phrase).unwrap();
            markers.secret("the secret of the recovery phrase", parsed.secret().expose());
            place.ok(["key", "add", "--new-key-file", "keyfile"]);
            for (what, key) in keys(&place, parsed.secret()) {
                markers.secret(&what, &key);
            }
        } else {
            place.ok(words);
        }
        Self { place, markers, encrypted, searched: Searched::new(), seen: Vec::new() }
    }

    /// A file of markers.
    fn write(&mut self, path: &Path, len: usize, seed: u64) {
        let name = path.file_name().unwrap().to_str().unwrap();
        self.markers.text(name);
        let head = format!("Mark0fContent-{seed:06}-{name}-");
        let mut bytes = content(len, seed);
        // At the end as well: it is in another segment of a long one, and in another frame.
        for at in [0, len.saturating_sub(head.len())] {
            let end = (at + head.len()).min(len);
            bytes[at..end].copy_from_slice(&head.as_bytes()[..end - at]);
        }
        self.markers.text(&head[..23]);
        self.markers.content(name, &bytes);
        fs::write(path, bytes).unwrap();
    }

    fn attribute(&mut self, path: &Path, seed: u32) {
        let (name, value) = (format!("user.mark0fattribute{seed:04}"), format!("Mark0fValue{seed:04}"));
        self.markers.text(&name[5..]);
        self.markers.text(&value);
        if let Err(error) = xattr::set(path, &name, value.as_bytes()) {
            // Of sources: not every filesystem has them.
            assert!(!path.starts_with(self.place.path("mnt")), "{error}");
        }
    }

    fn link(&mut self, path: &Path, target: &str) {
        self.markers.text(target);
        self.markers.text(path.file_name().unwrap().to_str().unwrap());
        symlink(target, path).unwrap();
    }

    /// Nothing is in the archive, nor in what this machine keeps outside of it.
    fn nothing_is_found(&mut self, when: &str) {
        let found = self.markers.found_below(&self.place.archive(), &mut self.searched);
        if self.encrypted {
            assert!(found.is_empty(), "{when}: {found:#?}");
            for other in [".local", ".cache", ".state"] {
                let found = self.markers.found_below(&self.place.path(other), &mut self.searched);
                assert!(found.is_empty(), "{when}: {found:#?}");
            }
        } else {
            self.seen.extend(found.into_values().flatten());
        }
    }

    fn run(&mut self) {
        let source = self.place.path("Mark0fSource");
        self.markers.text("Mark0fSource");
        let directory = source.join("Mark0fDirectory");
        self.markers.text("Mark0fDirectory");
        fs::create_dir_all(&directory).unwrap();
        for (seed, len) in (1..).zip([60, 900, 5000, 70_001, 1_234_567, 1_545_679]) {
            self.write(&directory.join(format!("Mark0fName-{seed}")), len, seed);
        }
        self.link(&directory.join("Mark0fLink"), "Mark0fTarget/nowhere");
        self.attribute(&directory.join("Mark0fName-3"), 1);
        self.attribute(&directory, 2);
        self.place.ok(["commit".as_ref(), source.as_os_str()]);
        self.nothing_is_found("after a commit");
        self.write(&directory.join("Mark0fName-3"), 5001, 33);
        self.write(&directory.join("Mark0fName-5"), 1_234_577, 55);
        fs::remove_file(directory.join("Mark0fName-2")).unwrap();
        self.place.ok(["commit".as_ref(), source.as_os_str()]);
        self.place.ok(["versions", "Mark0fSource/Mark0fDirectory/Mark0fName-3"]);
        self.place.ok(["rm", "Mark0fSource/Mark0fDirectory/Mark0fName-4"]);
        self.nothing_is_found("after another commit");
        if can_mount() {
            self.mounted();
        }
        self.damaged();
        if self.encrypted {
            self.place.ok(["key", "add", "--new-passphrase-file", "second"]);
            self.place.ok(["key", "rotate", "--key-file", "keyfile"]);
            self.write(&directory.join("Mark0fName-90"), 40_000, 90);
            self.place.ok(["commit".as_ref(), source.as_os_str()]);
            self.nothing_is_found("after a rotation");
            self.place.ok(["key", "rotate", "--reencrypt"]);
            self.nothing_is_found("after all was encrypted anew");
        }
        self.place.ok(["gc"]);
        self.place.ok(["health"]);
        self.nothing_is_found("at the end");
    }

    fn mounted(&mut self) {
        let mnt = self.place.path("mnt");
        self.place.ok(["mount".as_ref(), mnt.as_os_str()]);
        if self.encrypted {
            self.daemon_keeps_secrets();
        }
        let directory = mnt.join("Mark0fNewDirectory");
        self.markers.text("Mark0fNewDirectory");
        fs::create_dir(&directory).unwrap();
        for (seed, len) in (20..).zip([70, 3000, 200_003, 1_357_913]) {
            self.write(&directory.join(format!("Mark0fWritten-{seed}")), len, seed);
            self.nothing_is_found("while it is written");
        }
        self.attribute(&directory.join("Mark0fWritten-20"), 3);
        self.link(&directory.join("Mark0fNewLink"), "Mark0fNewTarget");
        // An old file is changed in its middle, and one is open and not yet durable.
        let old = mnt.join("Mark0fSource/Mark0fDirectory/Mark0fName-6");
        let file = fs::File::options().write(true).open(&old).unwrap();
        self.markers.text("Mark0fMiddleOfAnOldFile");
        std::os::unix::fs::FileExt::write_all_at(&file, b"Mark0fMiddleOfAnOldFile", 777_777).unwrap();
        self.nothing_is_found("while a file is open");
        file.sync_all().unwrap();
        self.nothing_is_found("after fsync");
        drop(file);
        self.markers.text("Mark0fRenamed");
        fs::rename(directory.join("Mark0fWritten-21"), directory.join("Mark0fRenamed")).unwrap();
        fs::remove_file(directory.join("Mark0fWritten-20")).unwrap();
        self.place.ok(["ls", "-R", "Mark0fNewDirectory"]);
        self.nothing_is_found("before the sync");
        self.place.ok(["sync"]);
        self.nothing_is_found("after the sync, mounted");
        let changed = fs::read(&old).unwrap();
        self.markers.content("the changed old file", &changed);
        self.place.ok(["umount".as_ref(), mnt.as_os_str()]);
        self.nothing_is_found("after the mount");
    }

    /// The daemon's process makes no core file, and no process was told a secret where others can read it.
    fn daemon_keeps_secrets(&self) {
        let secrets = [PASSPHRASE.as_bytes(), SECOND_PASSPHRASE.as_bytes()];
        let archive = self.place.archive();
        let mut daemons = 0;
        for process in fs::read_dir("/proc").unwrap() {
            let process = process.unwrap().path();
            let read = |name: &str| fs::read(process.join(name)).unwrap_or_default();
            for member in ["cmdline", "environ"] {
                let bytes = read(member);
                for secret in secrets {
                    let shown = bytes.windows(secret.len()).any(|window| window == secret);
                    assert!(!shown, "{} of {} shows a secret", member, process.display());
                }
            }
            let ours =
                fs::read_link(process.join("exe")).is_ok_and(|exe| exe == Path::new(env!("CARGO_BIN_EXE_blockframe")));
            let environ = read("environ");
            let names = |bytes: &[u8]| {
                bytes.windows(archive.as_os_str().len()).any(|window| window == archive.as_os_str().as_encoded_bytes())
            };
            if ours && names(&environ) {
                daemons += 1;
                let limits = String::from_utf8(read("limits")).unwrap();
                let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
                assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{core}");
            }
        }
        assert!(daemons > 0, "there is no daemon");
    }

    /// Bad bytes are set aside, and what is found is written down.
    fn damaged(&mut self) {
        let mut files = everything_below(&self.place.archive());
        files.retain(|path| {
            path.is_file() && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("data"))
        });
        files.sort();
        let victim = files.first().unwrap_or_else(|| panic!("there are no shards"));
        let mut bytes = fs::read(victim).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(victim, bytes).unwrap();
        self.place.run(["health"]).told_damage();
        self.nothing_is_found("after a look at damage");
        assert!(matches!(self.place.run(["repair"]).status(), Some(0 | 3)));
        self.nothing_is_found("after a repair");
        self.place.ok(["scrub"]);
        self.nothing_is_found("after a scrub");
    }
}

trait ToldDamage {
    fn told_damage(&self);
}

impl ToldDamage for kit::program::Outcome {
    fn told_damage(&self) {
        assert_eq!(self.status(), Some(3), "{}{}", self.stdout(), self.stderr());
    }
}

fn derive(context: &str, parts: &[&[u8]], key: &mut [u8]) {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    parts.iter().for_each(|part| {
        hasher.update(part);
    });
    hasher.finalize_xof().fill(key);
}

/// The archive's key, and those that are derived from it.
fn keys(place: &Place, phrase: &Secret<32>) -> Vec<(String, Vec<u8>)> {
    let store = Arc::new(LocalStore::open(&place.archive()).unwrap());
    let archive = Archive::open(store, Arc::new(SystemClock), Arc::new(())).unwrap();
    let slot_secret = SlotSecret::random(SlotKind::Recovery, phrase).unwrap();
    let digest = archive.descriptor().digest().unwrap();
    let ring = archive.key_ring().unwrap().open(&slot_secret, &digest).unwrap();
    let keys = ring.keys();
    let epoch = keys.current();
    let mut found = vec![
        ("the database's key".to_string(), keys.derive::<32>(Purpose::CatalogDatabase).expose().to_vec()),
        ("the state's key".to_string(), keys.derive::<32>(Purpose::StateDatabase).expose().to_vec()),
        ("the key of the staging files".to_string(), keys.derive::<32>(Purpose::Staging).expose().to_vec()),
        ("the key of epochs".to_string(), keys.derive::<64>(Purpose::EpochWrap).expose().to_vec()),
        ("the manifests' key".to_string(), epoch.manifest_key().expose().to_vec()),
        ("the journal's key".to_string(), epoch.journal_key().expose().to_vec()),
    ];
    // The archive's key itself, from its slot.
    let document: serde_json::Value =
        serde_json::from_slice(&fs::read(place.archive().join("blockframe-keys.json")).unwrap()).unwrap();
    let slots = document["slots"].as_array().unwrap();
    let slot = slots.iter().find(|slot| slot["kdf"]["name"] == "blake3").unwrap();
    let salt = hex::decode(slot["kdf"]["salt"].as_str().unwrap()).unwrap();
    let id = slot["id"].as_u64().unwrap() as u32;
    let mut context = b"blockframe key slot 1\0".to_vec();
    context.extend_from_slice(archive.descriptor().id.as_bytes());
    context.extend_from_slice(&id.to_le_bytes());
    context.extend_from_slice(&[SlotKind::Recovery.code(), 2]);
    context.extend_from_slice(&[0; 12]);
    context.extend_from_slice(&salt);
    let (mut stretched, mut key) = ([0; 32], [0; 64]);
    derive("blockframe 1 key slot secret", &[&salt, &32u64.to_le_bytes(), phrase.expose()], &mut stretched);
    derive("blockframe 1 key slot", &[&stretched, &context], &mut key);
    let key = Secret::filled_by(|bytes: &mut [u8; 64]| *bytes = key);
    let wrapped = hex::decode(slot["wrapped"].as_str().unwrap()).unwrap();
    found.push(("the archive's key".to_string(), open_metadata(&key, &context, &wrapped).unwrap()));
    found
}

#[test]
fn nothing_of_an_encrypted_archive_can_be_read_from_its_directory() {
    Scenario::new(&[], true).run();
}

#[test]
fn nothing_of_a_compressed_and_encrypted_archive_can_be_read_from_its_directory() {
    Scenario::new(&["--compress", "zstd:1"], true).run();
}

/// The search is one that finds: in an archive in clear it does.
#[test]
fn everything_of_an_archive_in_clear_is_found() {
    let mut scenario = Scenario::new(&[], false);
    scenario.run();
    let seen = &scenario.seen;
    let wanted = [
        "Mark0fDirectory",
        "Mark0fName-1",
        "Mark0fName-6",
        "Mark0fTarget/nowhere",
        "Mark0fContent-000003-Ma",
        "Mark0fName-5 begins",
        "the hash of Mark0fName-5",
        "the hash of Mark0fName-5 in hexadecimal",
        "the size of Mark0fName-5",
        "the hash of Mark0fName-1",
    ];
    for marker in wanted {
        assert!(seen.iter().any(|found| found == marker), "{marker} is not found");
    }
    if can_mount() {
        for marker in [
            "Mark0fNewDirectory",
            "Mark0fWritten-22",
            "Mark0fRenamed",
            "Mark0fNewTarget",
            "mark0fattribute0003",
            "Mark0fValue0003",
            "Mark0fMiddleOfAnOldFile",
            "Mark0fWritten-22 begins",
            "the hash of Mark0fWritten-23",
        ] {
            assert!(seen.iter().any(|found| found == marker), "{marker} is not found");
        }
    }
}
