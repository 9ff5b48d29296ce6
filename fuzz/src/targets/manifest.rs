//! Manifests.

use super::{descriptor, encoded, reseal};
use blockframe::format::Manifest;
use serde_json::Value;

/// The input is a manifest without its checksum. It gets the root and the name that its other members demand, so that
/// what comes after their checks is reached.
pub fn run(input: &[u8]) {
    parse(&reseal::sealed_json(input));
    if let Ok(mut value) = serde_json::from_slice(input)
        && rooted(&mut value).is_some()
        && let Ok(body) = serde_json::to_vec(&value)
    {
        parse(&reseal::sealed_json(&body));
    }
}

/// A manifest that is read is the same after it was written.
fn parse(bytes: &[u8]) {
    let Ok(manifest) = Manifest::from_bytes(bytes) else { return };
    let written = manifest.to_bytes().unwrap_or_else(|error| panic!("a manifest that was read: {error}"));
    let again = Manifest::from_bytes(&written).unwrap_or_else(|error| panic!("a manifest that was written: {error}"));
    assert_eq!(again, manifest);
    assert_eq!(again.to_bytes().ok(), Some(written));
    if let Ok(facts) = manifest.facts() {
        descriptor::check(manifest.geometry(), facts.key.plain_size);
    }
    for id in manifest.geometry().block_ids() {
        let shards = manifest.geometry().block(id).map(|block| block.shard_indexes());
        let roots = manifest.roots(id);
        assert!(shards.into_iter().flatten().all(|shard| roots.is_some_and(|roots| roots.shard(shard).is_some())));
    }
}

/// Sets `root`, and `object` where nothing is sealed, as docs/FORMAT.md, sections 7 and 1, compute them.
fn rooted(manifest: &mut Value) -> Option<()> {
    let key = &manifest["key"];
    let mut hasher = blake3::Hasher::new();
    let number = |value: &Value| value.as_u64();
    match manifest["stored"].as_array() {
        None => {
            hasher.update(b"blockframe object 1\n").update(&hex(&key["hash"])?);
            hasher.update(&number(&key["plain_size"])?.to_le_bytes());
            hasher.update(&number(&key["stored_size"])?.to_le_bytes());
        }
        Some(stored) => {
            let sealed_name = manifest["object"].as_str()?.rsplit_once('_')?.1;
            let name =
                if key.is_null() { blake3::Hash::from_hex(sealed_name).ok()?.into() } else { hex(&key["hash"])? };
            hasher.update(b"blockframe object 2\n").update(&name);
            hasher.update(&number(&key["plain_size"]).unwrap_or(0).to_le_bytes());
            hasher.update(&[place(&["none", "zstd", "lz4", "gzip", "brotli"], &key["compression"]).unwrap_or(0)]);
            hasher.update(&[place(&["none", "aes256-gcm", "chacha20-poly1305", "aes256-siv"], &manifest["cipher"])?]);
            hasher.update(&u32::try_from(number(&manifest["epoch"]).unwrap_or(0)).ok()?.to_le_bytes());
            hasher.update(&(stored.len() as u32).to_le_bytes());
            for len in stored {
                hasher.update(&number(len)?.to_le_bytes());
            }
        }
    }
    let geometry = &manifest["geometry"];
    let outer = &geometry["outer"];
    let small = |value: &Value| number(value).and_then(|number| u16::try_from(number).ok());
    hasher.update(&[u8::try_from(number(&geometry["tier"])?).ok()?]);
    hasher.update(&[place(&["whole", "segments", "blocks"], &geometry["layout"])?]);
    hasher.update(&number(&geometry["segment_size"])?.to_le_bytes());
    hasher.update(&small(&geometry["k"])?.to_le_bytes()).update(&small(&geometry["m"])?.to_le_bytes());
    for number in [&outer["k"], &outer["m"]] {
        hasher.update(&small(number).unwrap_or(0).to_le_bytes());
    }
    let empty = Vec::new();
    let blocks = manifest["blocks"].as_array()?;
    hasher.update(&(blocks.len() as u32).to_le_bytes());
    for block in blocks.iter().chain(manifest["outer"].as_array().unwrap_or(&empty)) {
        let roots: Vec<&Value> = block["segments"].as_array()?.iter().chain(block["parity"].as_array()?).collect();
        let mut inner = blake3::Hasher::new();
        inner.update(b"blockframe block 1\n").update(&(roots.len() as u32).to_le_bytes());
        for root in roots {
            inner.update(&hex(root)?);
        }
        hasher.update(inner.finalize().as_bytes());
    }
    let hash = key["hash"].as_str().map(str::to_string);
    let object = manifest.as_object_mut()?;
    object.insert("root".into(), hasher.finalize().to_hex().to_string().into());
    if let Some(hash) = hash {
        let readable =
            object.get("object")?.as_str()?.rsplit_once('_').map_or("x", |(readable, _)| readable).to_string();
        object.insert("object".into(), format!("{readable}_{hash}").into());
    }
    Some(())
}

fn place(names: &[&str], value: &Value) -> Option<u8> {
    names.iter().position(|name| value == *name).map(|place| place as u8)
}

fn hex(value: &Value) -> Option<[u8; 32]> {
    blake3::Hash::from_hex(value.as_str()?).ok().map(Into::into)
}

/// The golden manifests, and those of encoded contents.
pub fn seeds() -> Vec<Vec<u8>> {
    let golden: [&[u8]; 5] = [
        include_bytes!("../../../tests/golden/manifest-tier1-v1.json"),
        include_bytes!("../../../tests/golden/manifest-tier2-v1.json"),
        include_bytes!("../../../tests/golden/manifest-tier3-v1.json"),
        include_bytes!("../../../tests/golden/manifest-tier4-v1.json"),
        include_bytes!("../../../tests/golden/manifest-tree-v2.json"),
    ];
    let mut seeds: Vec<Vec<u8>> = golden.into_iter().map(reseal::unsealed_json).collect();
    for manifest in [encoded::compressed(), encoded::sealed(false), encoded::sealed(true)] {
        seeds.extend(manifest.to_bytes().map(|bytes| reseal::unsealed_json(&bytes)));
    }
    seeds
}
