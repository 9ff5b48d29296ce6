//! Whole archives with one object each, under `tests/golden/encoded/`. They
//! were written once (salts are random, and codecs change what they write): what
//! is promised is that they stay readable. `BLOCKFRAME_BLESS=1` adds those that are missing.

use super::{Encoding, encoded, one_tier, read};
use crate::kit::{Fixture, compressible, files_below, scratch, test_keys};
use blockframe::archive::{Archive, Depth, ObjectRef, Verdict};
use blockframe::base::{ObjectName, SystemClock};
use blockframe::codec::seal::CipherSuite;
use blockframe::format::TierLayout;
use blockframe::store::LocalStore;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of the content: more than one frame where it is not compressed.
const LEN: usize = 20_000;
const SEED: u64 = 2026;
/// BLAKE3 of the content.
const HASH: &str = "909f7cba21a9285ba06c3bcaca94344d08370b67d848674101121a6af22541e6";

const GOLDEN: [(&str, Encoding); 7] = [
    ("zstd", (Some("zstd:3"), None)),
    ("lz4", (Some("lz4"), None)),
    ("gzip", (Some("gzip:6"), None)),
    ("brotli", (Some("brotli:5"), None)),
    ("aes256-gcm", (None, Some(CipherSuite::Aes256Gcm))),
    ("chacha20-poly1305-zstd", (Some("zstd:3"), Some(CipherSuite::Chacha20Poly1305))),
    ("aes256-siv-lz4", (Some("lz4"), Some(CipherSuite::Aes256Siv))),
];

fn copy(from: &Path, to: &Path) {
    for (file, bytes) in files_below(from) {
        let target = to.join(file);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::write(target, bytes).unwrap();
    }
}

fn place(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/encoded").join(name)
}

fn make(name: &str, encoding: Encoding) {
    let fixture = Fixture::new(encoded(&one_tier(TierLayout::Blocks, 16_384, 2, 1), encoding));
    fixture.put(name, &compressible(LEN, SEED));
    copy(fixture.dir.path(), &place(name));
}

#[test]
fn objects_that_were_written_once_stay_readable() {
    let content = compressible(LEN, SEED);
    assert_eq!(blake3::hash(&content).to_hex().as_str(), HASH);
    for (name, encoding) in GOLDEN {
        if std::env::var_os("BLOCKFRAME_BLESS").is_some() && !place(name).exists() {
            make(name, encoding);
        }
        let directory = scratch();
        copy(&place(name), directory.path());
        let store = Arc::new(LocalStore::open(directory.path()).unwrap());
        let locked = Archive::open(store, Arc::new(SystemClock), Arc::new(())).unwrap();
        assert_eq!(locked.descriptor().encryption, encoding.1, "{name}");
        let is_object = |entry: &fs::DirEntry| entry.file_name().to_str().unwrap().parse::<ObjectName>().ok();
        let mut objects = fs::read_dir(directory.path()).unwrap().filter_map(|entry| is_object(&entry.unwrap()));
        let object = objects.next().unwrap();
        assert_eq!(objects.next(), None);
        let root = locked.load_manifest(&object).unwrap().root();
        let object = ObjectRef { name: object, root };
        assert_eq!(locked.object_health(&object, Depth::Full, &|_| {}).unwrap().verdict, Verdict::Healthy, "{name}");
        let archive = if locked.is_encrypted() { locked.unlocked(test_keys(locked.descriptor().id)) } else { locked };
        assert!(read(&archive, &object).unwrap() == content, "{name}: it is read as something else");
        // Each file can be lost.
        for file in files_below(&directory.path().join(object.name.as_str())).into_keys() {
            let path = directory.path().join(object.name.as_str()).join(file);
            let bytes = fs::read(&path).unwrap();
            fs::remove_file(&path).unwrap();
            let store = Arc::new(LocalStore::open(directory.path()).unwrap());
            let archive = Archive::open(store, Arc::new(SystemClock), Arc::new(())).unwrap();
            let id = archive.descriptor().id;
            let archive = if archive.is_encrypted() { archive.unlocked(test_keys(id)) } else { archive };
            assert!(read(&archive, &object).unwrap() == content, "{name} without {}", path.display());
            fs::write(&path, bytes).unwrap();
        }
    }
}
