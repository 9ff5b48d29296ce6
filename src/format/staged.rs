//! Content that lies in staging, as the catalog's journal tells of it: which
//! bytes of a file are where in its staging file.

use super::FormatError;
use super::binary::{Reader, put_varint};
use crate::base::{ContentRange, Digest};
use std::fmt;

const WHAT: &str = "staged content";
/// Most extents that stand in the record itself; a longer map lies in the staging file.
pub const MAX_INLINE_EXTENTS: usize = 512;
/// Most extents of one map.
pub const MAX_STAGED_EXTENTS: u64 = 16 << 20;

/// Names a staging file. Never used for another content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StagingId(u64);

impl StagingId {
    /// The id of this number.
    pub fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for StagingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What a file's newest published content is made of: extents in a staging
/// file over the content that the catalog names for the node (the base).
/// Where there is neither, it reads as zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedContent {
    /// The staging file.
    pub file: StagingId,
    /// Length of the content, bytes.
    pub size: u64,
    /// How many bytes of the base show where nothing is staged: its length,
    /// or the shortest length that the file was cut to since.
    pub base_len: u64,
    /// What is staged.
    pub map: StagedMap,
}

/// Where the extents are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StagedMap {
    /// Here, ascending and disjoint.
    Inline(Vec<StagedExtent>),
    /// In the staging file: this many bytes at this place, as [`encode_extents`] writes them.
    InFile {
        /// First byte.
        offset: u64,
        /// Length, bytes.
        len: u64,
        /// BLAKE3 of them.
        hash: Digest,
    },
}

/// A range of the content that covers the base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StagedExtent {
    /// Which bytes of the content; not empty.
    pub range: ContentRange,
    /// Where in the staging file they begin; `None`: zeros, a hole.
    pub place: Option<u64>,
}

impl StagedContent {
    /// Appends id, size, base length, then 0 and the extents, or 1 and where they are.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.file.get());
        put_varint(out, self.size);
        put_varint(out, self.base_len);
        match &self.map {
            StagedMap::Inline(extents) => {
                out.push(0);
                encode_extents(extents, out);
            }
            StagedMap::InFile { offset, len, hash } => {
                out.push(1);
                put_varint(out, *offset);
                put_varint(out, *len);
                out.extend_from_slice(hash.as_bytes());
            }
        }
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let file = StagingId(reader.varint()?);
        let size = reader.varint()?;
        let base_len = reader.varint()?;
        let map = match reader.u8()? {
            0 => StagedMap::Inline(decode_extents(reader, MAX_INLINE_EXTENTS as u64)?),
            1 => StagedMap::InFile {
                offset: reader.varint()?,
                len: reader.varint()?,
                hash: Digest::new(reader.array()?),
            },
            other => return Err(reader.invalid(format!("map kind {other} is unknown"))),
        };
        Ok(Self { file, size, base_len, map })
    }
}

/// Appends a map: the number of extents; for each its distance from the end
/// of the one before, its length, and its place plus one (0: zeros).
pub fn encode_extents(extents: &[StagedExtent], out: &mut Vec<u8>) {
    put_varint(out, extents.len() as u64);
    let mut at = 0;
    for extent in extents {
        put_varint(out, extent.range.start() - at);
        put_varint(out, extent.range.len());
        put_varint(out, extent.place.map_or(0, |place| place + 1));
        at = extent.range.end();
    }
}

/// Reads a map of at most `limit` extents.
pub fn decode_extents(reader: &mut Reader<'_>, limit: u64) -> Result<Vec<StagedExtent>, FormatError> {
    let count = reader.varint()?;
    // The shortest extent takes three bytes.
    if count > limit || count > reader.remaining() as u64 / 3 {
        return Err(reader.invalid(format!("{count} extents")));
    }
    let mut extents = Vec::with_capacity(count as usize);
    let mut at = 0u64;
    for _ in 0..count {
        let start = at.checked_add(reader.varint()?);
        let len = reader.varint()?;
        let place = reader.varint()?.checked_sub(1);
        let range = start.and_then(|start| ContentRange::new(start, len)).filter(|range| !range.is_empty());
        let Some(range) = range else { return Err(reader.invalid("an extent is empty or too long")) };
        if place.is_some_and(|place| place.checked_add(len).is_none()) {
            return Err(reader.invalid("an extent lies beyond the end of any file"));
        }
        at = range.end();
        extents.push(StagedExtent { range, place });
    }
    Ok(extents)
}

/// Reads a whole map that lies in a staging file.
pub fn extents_from_bytes(bytes: &[u8]) -> Result<Vec<StagedExtent>, FormatError> {
    let mut reader = Reader::new(WHAT, bytes);
    let extents = decode_extents(&mut reader, MAX_STAGED_EXTENTS)?;
    reader.finish()?;
    Ok(extents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn extents() -> impl Strategy<Value = Vec<StagedExtent>> {
        let extent = (0u64..1 << 40, 1u64..1 << 30, proptest::option::of(0u64..1 << 50));
        proptest::collection::vec(extent, 0..20).prop_map(|steps| {
            let mut at = 0;
            let step = |(gap, len, place)| {
                let range = ContentRange::between(at + gap, at + gap + len);
                at = range.end();
                StagedExtent { range, place }
            };
            steps.into_iter().map(step).collect()
        })
    }

    proptest! {
        #[test]
        fn staged_content_round_trips(extents in extents(), size: u64, base_len: u64, in_file: bool, file: u64) {
            let map = if in_file {
                StagedMap::InFile { offset: size, len: base_len, hash: Digest::of(b"x") }
            } else {
                StagedMap::Inline(extents)
            };
            let content = StagedContent { file: StagingId::new(file), size, base_len, map };
            let mut bytes = Vec::new();
            content.encode(&mut bytes);
            let mut reader = Reader::new("test", &bytes);
            prop_assert_eq!(StagedContent::decode(&mut reader).unwrap(), content);
            prop_assert!(reader.finish().is_ok());
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let _ = StagedContent::decode(&mut Reader::new("test", &bytes));
            let _ = extents_from_bytes(&bytes);
        }
    }
}
