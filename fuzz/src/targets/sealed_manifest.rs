//! The sealed part of manifests: the input gets past its authentication.

use super::{encoded, reseal};
use blockframe::base::SegmentIndex;
use blockframe::codec::seal::{open_metadata, seal_metadata};
use blockframe::format::{Manifest, sealing};
use serde_json::Value;
use std::sync::LazyLock;

/// Two manifests, without and with compression, as documents and as what stands in them.
static BASES: LazyLock<[(Manifest, Value); 2]> = LazyLock::new(|| {
    [false, true].map(|compressed| {
        let manifest = encoded::sealed(compressed);
        let bytes = manifest.to_bytes().unwrap_or_else(|error| panic!("a manifest: {error}"));
        let value = serde_json::from_slice(&reseal::unsealed_json(&bytes));
        (manifest, value.unwrap_or_else(|error| panic!("a manifest: {error}")))
    })
});

/// What the sealed part is authenticated with, as docs/FORMAT.md says it.
fn context(manifest: &Manifest) -> Vec<u8> {
    let mut context = b"blockframe manifest 1\n".to_vec();
    context.extend_from_slice(manifest.archive.as_bytes());
    context.extend_from_slice(manifest.root().as_bytes());
    context.extend_from_slice(&1u32.to_le_bytes());
    context.extend_from_slice(manifest.name.as_str().as_bytes());
    context
}

fn sealed_bytes(document: &Value) -> Vec<u8> {
    let text = document["sealed"].as_str().unwrap_or_default();
    base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).unwrap_or_default()
}

/// The input is which manifest, and its facts. What opens agrees with the public part, whatever it says; what was
/// sealed for another object does not open.
pub fn run(input: &[u8]) {
    let Some((&which, facts)) = input.split_first() else { return };
    let (base, document) = &BASES[usize::from(which & 1)];
    let sealed = seal_metadata(&encoded::key(), &context(base), facts);
    let mut changed = document.clone();
    changed["sealed"] = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &sealed).into();
    let Ok(body) = serde_json::to_vec(&changed) else { return };
    let parsed = Manifest::from_bytes(&reseal::sealed_json(&body));
    let mut manifest = parsed.unwrap_or_else(|error| panic!("the public part is as it was: {error}"));
    assert!(manifest.facts().is_err() && manifest.root() == base.root());
    if manifest.open(&encoded::key()).is_err() {
        assert!(manifest.facts().is_err());
        return;
    }
    let facts = manifest.facts().unwrap_or_else(|error| panic!("it was opened: {error}"));
    let geometry = manifest.geometry();
    assert!(facts.sealing().is_some() && facts.key.plain_size > 0);
    let mut plain = 0;
    for segment in 0..geometry.segments() {
        let lens = facts.stream_lens(geometry, segment).unwrap_or_else(|| panic!("segment {segment} has no lengths"));
        assert_eq!(sealing::sealed_len(lens.padded), geometry.segment_len(SegmentIndex::new(segment)));
        assert!(lens.stream <= lens.padded && lens.plain <= geometry.segment_size());
        plain += lens.plain;
    }
    assert_eq!(plain, facts.key.plain_size);
    // The other manifest is of another root: nothing that was sealed for this one opens there.
    let (other, _) = &BASES[usize::from(which & 1 ^ 1)];
    assert!(open_metadata(&encoded::key(), &context(other), &sealed).is_err());
}

/// The facts of both.
pub fn seeds() -> Vec<Vec<u8>> {
    let facts = |(which, (manifest, document)): (usize, &(Manifest, Value))| {
        let plain = open_metadata(&encoded::key(), &context(manifest), &sealed_bytes(document));
        let mut seed = vec![which as u8];
        seed.extend_from_slice(plain.unwrap_or_default().trim_ascii_end());
        seed
    };
    BASES.iter().enumerate().map(facts).collect()
}
