//! How the content of a new object is encoded: compressed, encrypted, both,
//! or not at all; and the bytes of one encoded segment.

use super::source::{ContentSource, is_hole};
use super::{Archive, ArchiveError, ArchiveResult};
use crate::base::{ArchiveId, ContentRange, LEAF_SIZE, SegmentIndex};
use crate::codec::compress::{self, CodecSpec, CompressError, FrameEncoder, FrameTable};
use crate::codec::seal::{CipherSuite, Tag};
use crate::format::geometry::Geometry;
use crate::format::sealing::{self, SealFooter, SegmentContext};
use crate::format::{ArchiveDescriptor, TierRule};
use crate::keys::{EpochKeys, ObjectLine, SegmentSalt};
use crate::merkle::{self, LeafHash};
use rayon::prelude::*;
use std::sync::Arc;

/// Bytes of the content that are read at once: whole frames, whole leaves.
const BATCH: usize = 4 << 20;

/// How the segments of a new object are encoded. At least one of the two is there.
#[derive(Debug)]
pub(super) struct Encoding {
    pub(super) compression: Option<CodecSpec>,
    pub(super) sealer: Option<Sealer>,
}

/// With what the segments of a new object are encrypted.
#[derive(Debug)]
pub(super) struct Sealer {
    pub(super) archive: ArchiveId,
    pub(super) keys: Arc<EpochKeys>,
    pub(super) suite: CipherSuite,
    pub(super) line: ObjectLine,
}

/// A segment as it is stored.
#[derive(Debug, Default)]
pub(super) struct EncodedSegment {
    /// The file's bytes.
    pub(super) stored: Vec<u8>,
    /// Length of its stream before padding, bytes.
    pub(super) stream_len: u64,
    /// Hashes of its leaves as leaves of the content.
    pub(super) content: Vec<LeafHash>,
}

impl Archive {
    /// How a content is to be encoded; `None`: it is stored as it is.
    ///
    /// Error: `Format(Sealed)` in an encrypted archive that was opened without its keys.
    pub(super) fn encoding_for(&self, compression: Option<CodecSpec>) -> ArchiveResult<Option<Encoding>> {
        let sealer = match self.descriptor().encryption {
            Some(suite) => Some(Sealer::new(self, suite, None)?),
            None => None,
        };
        Ok((compression.is_some() || sealer.is_some()).then_some(Encoding { compression, sealer }))
    }
}

impl Sealer {
    /// With the newest keys; for a new line unless one is given.
    pub(super) fn new(archive: &Archive, suite: CipherSuite, line: Option<ObjectLine>) -> ArchiveResult<Self> {
        // Another process may have begun an epoch. What is written from then on has its key.
        archive.follow_ring();
        let keys = archive.keys().ok_or_else(ArchiveError::locked)?.current();
        let line = match line {
            Some(line) => line,
            None => ObjectLine(random()?),
        };
        Ok(Self { archive: archive.descriptor().id, keys, suite, line })
    }
}

/// Random bytes from the operating system.
fn random<const N: usize>() -> ArchiveResult<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| ArchiveError::Source(std::io::Error::other(error.to_string())))?;
    Ok(bytes)
}

/// Fills `buffer` from the content; holes read as zeros and are not asked for.
fn read(source: &dyn ContentSource, at: u64, buffer: &mut [u8]) -> ArchiveResult<()> {
    if is_hole(source.data_ranges(), ContentRange::between(at, at + buffer.len() as u64)) {
        buffer.fill(0);
        return Ok(());
    }
    source.read_at(at, buffer).map_err(ArchiveError::Source)
}

impl Encoding {
    /// The tier for a content of `len` bytes, and the geometry before its
    /// segments are encoded: of an encrypted object everything that can be
    /// seen follows from the padded length alone.
    pub(super) fn outline(&self, rules: &ArchiveDescriptor, len: u64) -> Option<Geometry> {
        let covered = if self.sealer.is_some() { sealing::padded_len(len) } else { len };
        let rule: TierRule = *rules.tier_for(covered);
        Geometry::choose(rule, covered)
    }

    /// Encodes a segment. `outline` is the geometry before encoding; with
    /// `wide`, all cores work on this one segment.
    pub(super) fn encode(
        &self,
        source: &dyn ContentSource,
        outline: &Geometry,
        segment: SegmentIndex,
        wide: bool,
        out: &mut EncodedSegment,
    ) -> ArchiveResult<()> {
        let content_len = source.len();
        let start = u64::from(segment.get()) * outline.segment_size();
        let plain_len = outline.plain_len(content_len, segment);
        out.stored.clear();
        out.content.clear();
        match self.compression {
            Some(spec) => self.compress(source, start, plain_len, spec, wide, out)?,
            None => {
                let EncodedSegment { stored, content, .. } = &mut *out;
                stored.resize(plain_len as usize, 0);
                for (at, part) in (start..).step_by(BATCH).zip(stored.chunks_mut(BATCH)) {
                    read(source, at, part)?;
                    hash_content(at, part, content_len, content);
                }
            }
        }
        out.stream_len = out.stored.len() as u64;
        if let Some(sealer) = &self.sealer {
            let padded_len = match self.compression {
                Some(_) => sealing::padded_len(out.stream_len),
                None => outline.segment_len(segment),
            };
            let context = SegmentContext {
                archive: sealer.archive,
                line: sealer.line.0,
                segment,
                epoch: sealer.keys.epoch().get(),
                suite: sealer.suite,
                codec: self.compression.map(|spec| spec.codec),
                plain_len,
                stream_len: out.stream_len,
                padded_len,
            };
            sealer.seal(&context, wide, &mut out.stored)?;
        }
        Ok(())
    }

    fn compress(
        &self,
        source: &dyn ContentSource,
        start: u64,
        plain_len: u64,
        spec: CodecSpec,
        wide: bool,
        out: &mut EncodedSegment,
    ) -> ArchiveResult<()> {
        let mut chunks = Vec::with_capacity(compress::frame_count(plain_len) as usize);
        let mut encoder = FrameEncoder::new(spec)?;
        let mut buffer = vec![0; BATCH.min(plain_len as usize)];
        let mut done = 0;
        while done < plain_len {
            let part = &mut buffer[..(plain_len - done).min(BATCH as u64) as usize];
            read(source, start + done, part)?;
            let frames = part.chunks(compress::FRAME_LEN as usize);
            if wide && frames.len() > 1 {
                // Each frame for itself, so that the bytes do not depend on who encodes what.
                let encode = |encoder: &mut Result<FrameEncoder, CompressError>, frame: &[u8]| {
                    let encoder = encoder.as_mut().map_err(|error| ArchiveError::Internal(error.to_string()))?;
                    let mut chunk = Vec::new();
                    encoder.begin();
                    encoder.encode(frame, &mut chunk)?;
                    Ok(chunk)
                };
                let frames = part.par_chunks(compress::FRAME_LEN as usize);
                let encoded: Vec<ArchiveResult<Vec<u8>>> =
                    frames.map_init(|| FrameEncoder::new(spec), encode).collect();
                for chunk in encoded {
                    let chunk = chunk?;
                    chunks.push(chunk.len() as u32);
                    out.stored.extend_from_slice(&chunk);
                }
            } else {
                for frame in frames {
                    chunks.push(encoder.encode(frame, &mut out.stored)?);
                }
            }
            hash_content(start + done, part, source.len(), &mut out.content);
            done += part.len() as u64;
        }
        out.stored.extend_from_slice(&FrameTable::tail_bytes(spec, plain_len, &chunks));
        Ok(())
    }
}

/// Hashes whole leaves of the content; where segments are no whole leaves, what comes out means nothing.
fn hash_content(at: u64, bytes: &[u8], content_len: u64, out: &mut Vec<LeafHash>) {
    if at.is_multiple_of(LEAF_SIZE) {
        merkle::hash_leaves(bytes, at / LEAF_SIZE, content_len, out);
    }
}

impl Sealer {
    /// Pads a stream, encrypts it in place, and appends tags and footer.
    fn seal(&self, context: &SegmentContext, wide: bool, stored: &mut Vec<u8>) -> ArchiveResult<()> {
        stored.reserve_exact((sealing::sealed_len(context.padded_len) as usize).saturating_sub(stored.len()));
        stored.resize(context.padded_len as usize, 0);
        let salt: SegmentSalt = random()?;
        let cipher = self.keys.segment_cipher(self.suite, self.line, context.segment, &salt);
        let seal = |(number, frame): (usize, &mut [u8])| -> Tag {
            let number = number as u32;
            cipher.seal(&sealing::nonce_of(number), &context.of_frame(number), frame)
        };
        let len = sealing::FRAME_LEN as usize;
        let tags: Vec<Tag> = match wide {
            true => stored.par_chunks_mut(len).enumerate().map(seal).collect(),
            false => stored.chunks_mut(len).enumerate().map(seal).collect(),
        };
        stored.extend_from_slice(tags.as_flattened());
        let footer = SealFooter { salt, suite: self.suite, epoch: context.epoch };
        stored.extend_from_slice(&footer.to_bytes());
        Ok(())
    }
}
