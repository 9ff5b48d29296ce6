//! The manifest as JSON.

use super::facts::{BlockKey, ObjectKind};
use super::{Cipher, WHAT};
use crate::base::{ArchiveId, Digest, ObjectName};
use crate::format::binary::Reader;
use crate::format::descriptor::{OuterCode, TierLayout};
use crate::format::{Entry, FormatError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) format: String,
    pub(super) version: u64,
    pub(super) archive: ArchiveId,
    pub(super) object: ObjectName,
    /// This and the next three, the entry and the content tree: not where they are sealed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) kind: Option<ObjectKind>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) sequence: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) committed: Option<RawTime>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) key: Option<BlockKey>,
    pub(super) cipher: Cipher,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) epoch: Option<u32>,
    pub(super) geometry: RawGeometry,
    /// Lengths of encoded segments.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) stored: Option<Vec<u64>>,
    /// Base64.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) sealed: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) entry: Option<RawEntry>,
    pub(super) root: Digest,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) content_tree: Option<Vec<Digest>>,
    pub(super) blocks: Vec<RawBlock>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(super) outer: Vec<RawBlock>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTime {
    pub(super) seconds: i64,
    pub(super) nanoseconds: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawGeometry {
    pub(super) tier: u8,
    pub(super) layout: TierLayout,
    pub(super) code: String,
    pub(super) segment_size: u64,
    pub(super) k: u16,
    pub(super) m: u16,
    pub(super) outer: Option<OuterCode>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBlock {
    pub(super) segments: Vec<Digest>,
    pub(super) parity: Vec<Digest>,
}

/// The path for people, and the exact entry as base64 of its binary form.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEntry {
    pub(super) path: String,
    pub(super) record: String,
}

impl RawEntry {
    pub(super) fn new(entry: &Entry) -> Self {
        let mut record = Vec::new();
        entry.encode(&mut record);
        Self { path: String::from_utf8_lossy(entry.path().as_bytes()).into_owned(), record: STANDARD.encode(record) }
    }

    pub(super) fn open(self) -> Result<Entry, FormatError> {
        let record =
            STANDARD.decode(&self.record).map_err(|_| FormatError::invalid(WHAT, "its entry is not base64"))?;
        let mut reader = Reader::new(WHAT, &record);
        let entry = Entry::decode(&mut reader)?;
        reader.finish()?;
        Ok(entry)
    }
}
