//! Manifests.

use super::{descriptor, reseal};
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
    descriptor::check(manifest.geometry());
    for id in manifest.geometry().block_ids() {
        let shards = manifest.geometry().block(id).map(|block| block.shard_indexes());
        let roots = manifest.roots(id);
        assert!(shards.into_iter().flatten().all(|shard| roots.is_some_and(|roots| roots.shard(shard).is_some())));
    }
}

/// Sets `root` and `object` as docs/FORMAT.md, sections 7 and 1, compute them.
fn rooted(manifest: &mut Value) -> Option<()> {
    let key = &manifest["key"];
    let geometry = &manifest["geometry"];
    let hash = hex(&key["hash"])?;
    let layout = ["whole", "segments", "blocks"].iter().position(|name| geometry["layout"] == *name)? as u8;
    let small = |value: &Value| value.as_u64().and_then(|number| u16::try_from(number).ok());
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"blockframe object 1\n").update(&hash);
    hasher.update(&key["plain_size"].as_u64()?.to_le_bytes()).update(&key["stored_size"].as_u64()?.to_le_bytes());
    hasher.update(&[u8::try_from(geometry["tier"].as_u64()?).ok()?, layout]);
    hasher.update(&geometry["segment_size"].as_u64()?.to_le_bytes());
    let outer = &geometry["outer"];
    for number in [&geometry["k"], &geometry["m"]] {
        hasher.update(&small(number)?.to_le_bytes());
    }
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
    let root = hasher.finalize().to_hex().to_string();
    let readable = manifest["object"].as_str()?.rsplit_once('_').map_or("x", |(readable, _)| readable).to_string();
    let hash = key["hash"].as_str()?.to_string();
    let object = manifest.as_object_mut()?;
    object.insert("root".into(), root.into());
    object.insert("object".into(), format!("{readable}_{hash}").into());
    Some(())
}

fn hex(value: &Value) -> Option<[u8; 32]> {
    blake3::Hash::from_hex(value.as_str()?).ok().map(Into::into)
}

/// The golden manifests.
pub fn seeds() -> Vec<Vec<u8>> {
    let golden: [&[u8]; 5] = [
        include_bytes!("../../../tests/golden/manifest-tier1-v1.json"),
        include_bytes!("../../../tests/golden/manifest-tier2-v1.json"),
        include_bytes!("../../../tests/golden/manifest-tier3-v1.json"),
        include_bytes!("../../../tests/golden/manifest-tier4-v1.json"),
        include_bytes!("../../../tests/golden/manifest-tree-v2.json"),
    ];
    golden.into_iter().map(reseal::unsealed_json).collect()
}
