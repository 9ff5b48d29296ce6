//! What a manifest says of the content: in an encrypted archive, its sealed part.

use super::WHAT;
use super::raw::RawEntry;
use crate::base::Secret;
use crate::base::{ContentHash, Digest, Timestamp};
use crate::codec::compress::Codec;
use crate::codec::seal::{open_metadata, seal_metadata};
use crate::format::geometry::Geometry;
use crate::format::{Entry, FormatError, sealing};
use crate::merkle::RootBuilder;
use serde::{Deserialize, Serialize};

/// Hash of a BlockKey.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HashAlgorithm {
    /// SHA-256: named by the format, not computed by this version.
    Sha256,
    /// SHA-512: named by the format, not computed by this version.
    Sha512,
    /// BLAKE3, 32 bytes.
    Blake3,
}

/// Compression of a stored content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Stored as it is.
    None,
    /// Zstandard.
    Zstd,
    /// LZ4.
    Lz4,
    /// gzip.
    Gzip,
    /// Brotli.
    Brotli,
}

/// Identity of a stored content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockKey {
    /// Which hash.
    pub hash_algorithm: HashAlgorithm,
    /// Its value over the plain content.
    pub hash: ContentHash,
    /// Length of the plain content, bytes.
    pub plain_size: u64,
    /// Length of what is cut into segments, bytes; equal to `plain_size` when not encoded.
    pub stored_size: u64,
    /// How the plain content became the stored one.
    pub compression: Compression,
}

impl BlockKey {
    /// The key of a content that is stored as it is.
    pub fn plain(hash: ContentHash, size: u64) -> Self {
        Self {
            hash_algorithm: HashAlgorithm::Blake3,
            hash,
            plain_size: size,
            stored_size: size,
            compression: Compression::None,
        }
    }
}

/// What an object's content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectKind {
    /// One file's bytes.
    File,
    /// A tar of small files with an entry table.
    Bundle,
}

impl Compression {
    /// The codec; `None` when contents are stored as they are.
    pub fn codec(self) -> Option<Codec> {
        match self {
            Compression::None => None,
            Compression::Zstd => Some(Codec::Zstd),
            Compression::Lz4 => Some(Codec::Lz4),
            Compression::Gzip => Some(Codec::Gzip),
            Compression::Brotli => Some(Codec::Brotli),
        }
    }
}

impl From<Option<Codec>> for Compression {
    fn from(codec: Option<Codec>) -> Self {
        match codec {
            None => Compression::None,
            Some(Codec::Zstd) => Compression::Zstd,
            Some(Codec::Lz4) => Compression::Lz4,
            Some(Codec::Gzip) => Compression::Gzip,
            Some(Codec::Brotli) => Compression::Brotli,
        }
    }
}

/// What is known of an object's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentFacts {
    /// What the content is.
    pub kind: ObjectKind,
    /// The content's identity.
    pub key: BlockKey,
    /// The catalog's sequence number when it was written: later wins.
    pub sequence: u64,
    /// When it was written.
    pub committed: Timestamp,
    /// The name and attributes under which a file was first committed.
    pub entry: Option<Entry>,
    pub(super) content_tree: Option<Vec<Digest>>,
    /// In an encrypted archive.
    pub(super) sealing: Option<Sealing>,
}

/// What only the manifest of an encrypted object knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealing {
    /// Random; versions of a content that were made from each other share it, and so may share segments.
    pub line: [u8; 16],
    /// Where contents are compressed: the length of each segment's stream before padding, bytes.
    pub streams: Option<Vec<u64>>,
}

/// What is known of one segment of an encrypted object, as its frames' contexts say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamLens {
    /// Of the part of the content, bytes.
    pub plain: u64,
    /// Before padding, bytes.
    pub stream: u64,
    /// Of the padded stream, bytes.
    pub padded: u64,
}

impl ContentFacts {
    /// The BLAKE3 chaining value of each segment as a subtree of the content,
    /// in order; they were checked against the content's hash. `None` where
    /// segments are no subtrees, and in manifests that were written without.
    pub fn content_tree(&self) -> Option<&[Digest]> {
        self.content_tree.as_deref()
    }

    /// What the manifest of an encrypted object knows.
    pub fn sealing(&self) -> Option<&Sealing> {
        self.sealing.as_ref()
    }

    pub(super) fn check(&self, geometry: &Geometry) -> Result<(), FormatError> {
        let invalid = |why: &str| Err(FormatError::invalid(WHAT, why));
        let size = self.key.plain_size;
        if self.key.hash_algorithm != HashAlgorithm::Blake3 {
            return invalid("its hash algorithm is not known to this version");
        }
        if self.committed.nanoseconds > 999_999_999 {
            return invalid("nanoseconds out of range");
        }
        if size == 0 || self.key.stored_size != geometry.segments_len() {
            return invalid("its sizes and its geometry disagree");
        }
        let covered = match self.sealing {
            Some(_) => sealing::padded_len(size),
            None => size,
        };
        if covered.div_ceil(geometry.segment_size()) != u64::from(geometry.segments()) {
            return invalid("its size and the number of its segments disagree");
        }
        let Some(sealing) = &self.sealing else {
            let encoded = geometry.encoded_lens().is_some();
            if encoded != (self.key.compression != Compression::None) || (!encoded && self.key.stored_size != size) {
                return invalid("its compression and its geometry disagree");
            }
            return self.check_tree(geometry);
        };
        let Some(stored) = geometry.encoded_lens() else { return invalid("an encrypted content is no slices") };
        if sealing.streams.is_some() != (self.key.compression != Compression::None)
            || sealing.streams.as_ref().is_some_and(|streams| streams.len() != stored.len())
        {
            return invalid("its compression and its streams disagree");
        }
        for (index, stored) in (0..).zip(stored.iter()) {
            let lens = self.stream_lens(geometry, index);
            if lens.is_none_or(|lens| sealing::sealed_len(lens.padded) != *stored) {
                return invalid("a segment's file is longer or shorter than its stream says");
            }
        }
        self.check_tree(geometry)
    }

    /// The lengths of a segment of an encrypted object. `None` where there is no such segment.
    pub fn stream_lens(&self, geometry: &Geometry, segment: u32) -> Option<StreamLens> {
        let index = crate::base::SegmentIndex::new(segment);
        let plain = geometry.plain_len(self.key.plain_size, index);
        match &self.sealing.as_ref()?.streams {
            Some(streams) => {
                let stream = *streams.get(index.as_usize())?;
                // Bounded, so that the sum below is.
                let padded = sealing::padded_len(stream.min(crate::format::geometry::MAX_ENCODED_SEGMENT));
                Some(StreamLens { plain, stream, padded })
            }
            None => {
                let padded = geometry.plain_len(sealing::padded_len(self.key.plain_size), index);
                (padded > 0).then_some(StreamLens { plain, stream: plain, padded })
            }
        }
    }

    pub(super) fn check_tree(&self, geometry: &Geometry) -> Result<(), FormatError> {
        let Some(segments) = &self.content_tree else { return Ok(()) };
        let size = self.key.plain_size;
        let count = size.div_ceil(geometry.segment_size());
        if !geometry.has_content_tree(size) || segments.len() as u64 != count {
            return Err(FormatError::invalid(WHAT, "its content tree does not fit its geometry"));
        }
        let mut builder = RootBuilder::default();
        segments.iter().for_each(|segment| builder.push(*segment.as_bytes()));
        if builder.finish() != Some(self.key.hash) {
            return Err(FormatError::invalid(WHAT, "its content tree does not give its content hash"));
        }
        Ok(())
    }
}

/// The facts as JSON: sealed, or as members of the manifest.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFacts {
    kind: ObjectKind,
    sequence: u64,
    seconds: i64,
    nanoseconds: u32,
    key: BlockKey,
    line: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    entry: Option<RawEntry>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    streams: Option<Vec<u64>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    content_tree: Option<Vec<Digest>>,
}

/// The sealed part of a manifest: compact JSON, padded with spaces so that
/// its length tells little, encrypted with AES-256-SIV.
pub(super) fn seal(facts: &ContentFacts, key: &Secret<64>, context: &[u8]) -> Result<Vec<u8>, FormatError> {
    let Some(sealing) = &facts.sealing else { return Err(FormatError::invalid(WHAT, "there is nothing to seal")) };
    let raw = RawFacts {
        kind: facts.kind,
        sequence: facts.sequence,
        seconds: facts.committed.seconds,
        nanoseconds: facts.committed.nanoseconds,
        key: facts.key,
        line: hex::encode(sealing.line),
        entry: facts.entry.as_ref().map(RawEntry::new),
        streams: sealing.streams.clone(),
        content_tree: facts.content_tree.clone(),
    };
    let mut json = serde_json::to_vec(&raw).map_err(|source| FormatError::Json { what: WHAT, source })?;
    json.resize(sealing::padded_len(json.len() as u64) as usize, b' ');
    Ok(seal_metadata(key, context, &json))
}

/// What [`seal`] sealed. Checked against the geometry by the caller.
pub(super) fn open(sealed: &[u8], key: &Secret<64>, context: &[u8]) -> Result<ContentFacts, FormatError> {
    let json = open_metadata(key, context, sealed)
        .map_err(|_| FormatError::invalid(WHAT, "its sealed part is not authentic"))?;
    let raw: RawFacts = serde_json::from_slice(&json).map_err(|source| FormatError::Json { what: WHAT, source })?;
    let mut line = [0; 16];
    hex::decode_to_slice(&raw.line, &mut line)
        .map_err(|_| FormatError::invalid(WHAT, "its line is not 32 hex digits"))?;
    Ok(ContentFacts {
        kind: raw.kind,
        key: raw.key,
        sequence: raw.sequence,
        committed: Timestamp { seconds: raw.seconds, nanoseconds: raw.nanoseconds },
        entry: raw.entry.map(RawEntry::open).transpose()?,
        content_tree: raw.content_tree,
        sealing: Some(Sealing { line, streams: raw.streams }),
    })
}
