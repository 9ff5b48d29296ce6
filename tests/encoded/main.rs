//! Objects that are compressed, encrypted, or both, against accidents and
//! against somebody who can write to the store: reads give the right bytes or
//! an error, and never anything else.
//!
//! `accident`: any one byte changed. `attack`: stored bytes moved, cut or
//! replaced by somebody who computes anew all that needs no key, or even has
//! the manifests' key. `bomb`: streams that claim other lengths. `keys`: other
//! keys, or none. `golden`: objects that were written once, and stay readable.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../kit/mod.rs"]
mod kit;

mod accident;
mod attack;
mod bomb;
mod forge;
mod golden;
mod keys;

use blockframe::archive::{Archive, ArchiveResult, ObjectRef};
use blockframe::base::{ArchiveId, ContentRange};
use blockframe::codec::compress::CodecSpec;
use blockframe::codec::seal::CipherSuite;
use blockframe::format::{ArchiveDescriptor, TierLayout, TierRule};

/// How contents are encoded: codec, cipher.
type Encoding = (Option<&'static str>, Option<CipherSuite>);

/// Each codec, each cipher, and each cipher with a codec.
const ENCODINGS: [Encoding; 10] = [
    (Some("zstd:1"), None),
    (Some("lz4"), None),
    (Some("gzip:1"), None),
    (Some("brotli:1"), None),
    (None, Some(CipherSuite::Aes256Gcm)),
    (None, Some(CipherSuite::Chacha20Poly1305)),
    (None, Some(CipherSuite::Aes256Siv)),
    (Some("zstd:1"), Some(CipherSuite::Aes256Gcm)),
    (Some("lz4"), Some(CipherSuite::Chacha20Poly1305)),
    (Some("gzip:1"), Some(CipherSuite::Aes256Siv)),
];

/// An archive of such contents, under the rules of another one.
fn encoded(rules: &ArchiveDescriptor, (codec, encryption): Encoding) -> ArchiveDescriptor {
    let compression = codec.map(|codec| codec.parse::<CodecSpec>().unwrap());
    ArchiveDescriptor { id: ArchiveId::random(), compression, encryption, ..rules.clone() }
}

/// Rules with one tier.
fn one_tier(layout: TierLayout, segment_size: u64, k: u16, m: u16) -> ArchiveDescriptor {
    let mut rules = kit::tiny_descriptor();
    let min_segment_size = segment_size;
    rules.tiers = vec![TierRule { tier: 1, below: None, layout, segment_size, min_segment_size, k, m, outer: None }];
    rules
}

/// All of an object's content.
fn read(archive: &Archive, reference: &ObjectRef) -> ArchiveResult<Vec<u8>> {
    let object = archive.object(reference)?;
    Ok(object.read(ContentRange::between(0, object.content_len()?))?.bytes().to_vec())
}

/// Places in `len` bytes, `about` as many as said and some at the end; all with `BLOCKFRAME_EVERY_BYTE=1`.
fn positions(len: usize, about: usize) -> Vec<usize> {
    if std::env::var_os("BLOCKFRAME_EVERY_BYTE").is_some() {
        return (0..len).collect();
    }
    // Odd, so that it meets every place within structures of even length; and the end, where footers are.
    let stride = (len / about) | 1;
    let mut found: Vec<usize> = (0..len).step_by(stride).chain((len.saturating_sub(64)..len).step_by(9)).collect();
    found.sort_unstable();
    found.dedup();
    found
}
