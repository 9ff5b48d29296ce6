//! Somebody who can write to a store, and computes anew all that needs no key:
//! lengths, roots, tree files, the object root, the manifest's checksum. From
//! the words of docs/FORMAT.md, not with the program's own functions.

use blockframe::base::{ArchiveId, Digest, ObjectName, Secret};
use blockframe::codec::seal::{open_metadata, seal_metadata};
use blockframe::format::sealing::sealed_len;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// An object of the layout `segments` with one parity shard, opened for changes.
#[derive(Clone)]
pub struct Forgery {
    /// The manifest.
    pub document: Value,
    /// The segments' files.
    pub segments: Vec<Vec<u8>>,
}

impl Forgery {
    pub fn of(directory: &Path) -> Self {
        let document: Value = serde_json::from_slice(&fs::read(directory.join("manifest.json")).unwrap()).unwrap();
        assert_eq!(document["geometry"]["layout"], "segments");
        let count = document["blocks"].as_array().unwrap().len();
        let file = |number| directory.join(format!("segments/segment_{number}.dat"));
        Self { document, segments: (0..count).map(|number| fs::read(file(number)).unwrap()).collect() }
    }

    pub fn name(&self) -> ObjectName {
        self.document["object"].as_str().unwrap().parse().unwrap()
    }

    /// What stands in the sealed part, for somebody who has the manifests' key.
    pub fn facts(&self, key: &Secret<64>) -> Value {
        use base64::Engine as _;
        let sealed = self.document["sealed"].as_str().unwrap();
        let sealed = base64::engine::general_purpose::STANDARD.decode(sealed).unwrap();
        serde_json::from_slice(&open_metadata(key, &self.context(), &sealed).unwrap()).unwrap()
    }

    /// Seals other facts; after [`Self::compute`].
    pub fn seal_facts(&mut self, key: &Secret<64>, facts: &Value) {
        use base64::Engine as _;
        let sealed = seal_metadata(key, &self.context(), &serde_json::to_vec(facts).unwrap());
        self.document["sealed"] = json!(base64::engine::general_purpose::STANDARD.encode(sealed));
    }

    fn context(&self) -> Vec<u8> {
        let archive: ArchiveId = self.document["archive"].as_str().unwrap().parse().unwrap();
        let root = hex::decode(self.document["root"].as_str().unwrap()).unwrap();
        let epoch = self.document["epoch"].as_u64().unwrap() as u32;
        let name = self.document["object"].as_str().unwrap().as_bytes();
        [b"blockframe manifest 1\n", &archive.as_bytes()[..], &root, &epoch.to_le_bytes(), name].concat()
    }

    /// Lengths and roots, from the segments as they are now.
    pub fn compute(&mut self) {
        let roots: Vec<String> = self.segments.iter().map(|bytes| Digest::of(bytes).to_hex()).collect();
        self.document["blocks"] = roots.iter().map(|root| json!({"segments": [root], "parity": [root]})).collect();
        self.document["stored"] = self.segments.iter().map(|bytes| bytes.len()).collect();
        if let Some(key) = self.document.get_mut("key") {
            key["stored_size"] = json!(self.segments.iter().map(Vec::len).sum::<usize>());
        }
        self.document["root"] = json!(self.root().to_hex());
    }

    fn root(&self) -> Digest {
        let document = &self.document;
        let number = |value: &Value| value.as_u64().unwrap();
        let place = |list: &[&str], value: &Value| {
            list.iter().position(|word| value == word).unwrap_or_else(|| panic!("{value}")) as u8
        };
        let mut bytes = b"blockframe object 2\n".to_vec();
        bytes.extend_from_slice(self.name().hash().unwrap().as_bytes());
        let key = document.get("key");
        bytes.extend_from_slice(&key.map_or(0, |key| number(&key["plain_size"])).to_le_bytes());
        let codecs = ["none", "zstd", "lz4", "gzip", "brotli"];
        bytes.push(key.map_or(0, |key| place(&codecs, &key["compression"])));
        bytes.push(place(&["none", "aes256-gcm", "chacha20-poly1305", "aes256-siv"], &document["cipher"]));
        bytes.extend_from_slice(&document.get("epoch").map_or(0, |epoch| number(epoch) as u32).to_le_bytes());
        let stored = document["stored"].as_array().unwrap();
        bytes.extend_from_slice(&(stored.len() as u32).to_le_bytes());
        stored.iter().for_each(|len| bytes.extend_from_slice(&number(len).to_le_bytes()));
        let geometry = &document["geometry"];
        bytes.push(number(&geometry["tier"]) as u8);
        bytes.push(place(&["whole", "segments", "blocks"], &geometry["layout"]));
        bytes.extend_from_slice(&number(&geometry["segment_size"]).to_le_bytes());
        for member in [&geometry["k"], &geometry["m"], &json!(0), &json!(0)] {
            bytes.extend_from_slice(&(number(member) as u16).to_le_bytes());
        }
        let blocks = document["blocks"].as_array().unwrap();
        bytes.extend_from_slice(&(blocks.len() as u32).to_le_bytes());
        blocks.iter().for_each(|block| bytes.extend_from_slice(block_root(block).as_bytes()));
        Digest::of(&bytes)
    }

    /// The manifest's bytes, with their checksum.
    pub fn manifest(&self) -> Vec<u8> {
        let mut document = self.document.clone();
        document.as_object_mut().unwrap().remove("checksum");
        let mut text = serde_json::to_string_pretty(&document).unwrap();
        text.truncate(text.len() - 2);
        let head = format!("{text},\n  \"checksum\": \"");
        let digest = Digest::of(format!("{head}{}\"\n}}\n", "0".repeat(64)).as_bytes());
        format!("{head}{}\"\n}}\n", digest.to_hex()).into_bytes()
    }

    /// Takes the place of all that is in `directory`.
    pub fn write(&self, directory: &Path) {
        if directory.exists() {
            fs::remove_dir_all(directory).unwrap();
        }
        fs::create_dir_all(directory.join("segments")).unwrap();
        fs::create_dir_all(directory.join("parity")).unwrap();
        for (number, bytes) in self.segments.iter().enumerate() {
            fs::write(directory.join(format!("segments/segment_{number}.dat")), bytes).unwrap();
            fs::write(directory.join(format!("parity/segment_{number}_parity_0.dat")), bytes).unwrap();
            if bytes.len() > 16384 {
                let block = &self.document["blocks"][number];
                fs::write(directory.join(format!("parity/segment_{number}_tree.dat")), tree(block, bytes)).unwrap();
            }
        }
        for copy in ["manifest.json", "manifest.copy.json"] {
            fs::write(directory.join(copy), self.manifest()).unwrap();
        }
    }

    /// Computes what needs no key, and takes the object's place.
    pub fn put(mut self, store: &Path) -> PathBuf {
        self.compute();
        self.put_as_it_is(store)
    }

    pub fn put_as_it_is(&self, store: &Path) -> PathBuf {
        let directory = store.join(self.name().as_str());
        self.write(&directory);
        directory
    }
}

fn block_root(block: &Value) -> Digest {
    let shards: Vec<&Value> = ["segments", "parity"].iter().flat_map(|list| block[*list].as_array().unwrap()).collect();
    let mut bytes = b"blockframe block 1\n".to_vec();
    bytes.extend_from_slice(&(shards.len() as u32).to_le_bytes());
    for shard in shards {
        bytes.extend_from_slice(&hex::decode(shard.as_str().unwrap()).unwrap());
    }
    Digest::of(&bytes)
}

/// The tree file of a block of one segment and its copy.
fn tree(block: &Value, bytes: &[u8]) -> Vec<u8> {
    let mut leaves = Vec::new();
    blockframe::merkle::hash_leaves(bytes, 0, bytes.len() as u64, &mut leaves);
    let leaves = leaves.concat();
    let head = [&b"BFTREE1\n"[..], block_root(block).as_bytes(), &2u32.to_le_bytes(), &[0; 4]].concat();
    let body = [head, leaves.clone(), leaves].concat();
    let digest = Digest::of(&body);
    [&body[..], digest.as_bytes()].concat()
}

/// The parts of a sealed segment's file.
#[derive(Clone)]
pub struct SealedFile {
    pub frames: Vec<Vec<u8>>,
    pub tags: Vec<[u8; 16]>,
    pub footer: Vec<u8>,
}

impl SealedFile {
    pub fn parse(bytes: &[u8]) -> Self {
        let padded = (1..bytes.len() as u64).find(|len| sealed_len(*len) == bytes.len() as u64).unwrap() as usize;
        let frames: Vec<Vec<u8>> = bytes[..padded].chunks(16384).map(<[u8]>::to_vec).collect();
        let tags = bytes[padded..padded + 16 * frames.len()].as_chunks().0.to_vec();
        Self { frames, tags, footer: bytes[bytes.len() - 64..].to_vec() }
    }

    pub fn bytes(&self) -> Vec<u8> {
        [self.frames.concat(), self.tags.concat(), self.footer.clone()].concat()
    }

    /// The footer with another byte, and the checksum that belongs to it.
    pub fn set_footer(&mut self, at: usize, byte: u8) {
        self.footer[at] = byte;
        let crc = crc32c::crc32c(&self.footer[..60]);
        self.footer[60..].copy_from_slice(&crc.to_le_bytes());
    }
}
