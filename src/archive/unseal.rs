//! From a range of an encoded segment to its plain bytes: verified leaves of
//! the segment's file, opened frame by frame, then decompressed.

use super::cache::ShardAddress;
use super::object::Object;
use super::{ArchiveError, ArchiveResult};
use crate::base::{SegmentIndex, ShardRange};
use crate::codec::compress::{self, Codec, FrameDecoder, FrameTable};
use crate::codec::seal::{FrameCipher, Tag};
use crate::format::BlockId;
use crate::format::geometry::Piece;
use crate::format::sealing::{self, FRAME_LEN, SegmentContext};
use crate::keys::{Epoch, ObjectLine};
use std::cell::RefCell;
use std::sync::Arc;

thread_local! {
    /// Working memory of a thread for compressed bytes on their way.
    static STREAM: RefCell<(Vec<u8>, FrameDecoder)> = RefCell::default();
}

/// What is needed to read one encoded segment. Kept in a bounded cache.
#[derive(Debug)]
pub(super) struct OpenSegment {
    seal: Option<OpenSeal>,
    table: Option<(Codec, FrameTable)>,
    plain_len: u64,
}

#[derive(Debug)]
struct OpenSeal {
    context: SegmentContext,
    cipher: Arc<dyn FrameCipher>,
    tags: Vec<Tag>,
}

impl OpenSegment {
    /// Bytes of memory that it takes, about.
    pub(super) fn memory(&self) -> usize {
        let tags = self.seal.as_ref().map_or(0, |seal| seal.tags.as_flattened().len() + 1024);
        let chunks = self.table.as_ref().map_or(0, |_| compress::frame_count(self.plain_len) as usize * 8);
        std::mem::size_of::<Self>() + tags + chunks
    }
}

impl Object {
    /// Where in its segment's file a piece lies, as far as that is known without reading.
    pub(super) fn stored_range(&self, piece: &Piece) -> ShardRange {
        let table = self.shared().caches.segment(&self.segment_address(piece));
        let open = table.as_deref().and_then(|open| open.table.as_ref());
        let Some((_, table)) = open else { return piece.range };
        let (first, last) = frames_of(piece.range);
        match (table.chunk(first), table.chunk(last)) {
            (Some(first), Some(last)) => ShardRange::between(first.start, last.end),
            _ => piece.range,
        }
    }

    fn segment_address(&self, piece: &Piece) -> ShardAddress {
        ShardAddress { root: self.manifest().root(), block: BlockId::Data(piece.block), shard: piece.shard }
    }

    /// Reads a piece of the content from an encoded segment into `buffer`.
    /// Returns where in the buffer it begins.
    pub(super) fn read_encoded(&self, piece: &Piece, buffer: &mut Vec<u8>) -> ArchiveResult<usize> {
        let open = self.open_segment(piece)?;
        let Some((codec, table)) = &open.table else { return self.read_stream(piece, &open, piece.range, buffer) };
        let (first, last) = frames_of(piece.range);
        let (Some(from), Some(to)) = (table.chunk(first), table.chunk(last)) else {
            return Err(self.undecodable(piece.segment, "has fewer frames than its length says"));
        };
        let plain_start = first * compress::FRAME_LEN;
        let plain_end = ((last + 1) * compress::FRAME_LEN).min(open.plain_len);
        let len = (plain_end - plain_start) as usize;
        if buffer.len() < len {
            buffer.resize(len, 0);
        }
        STREAM.with_borrow_mut(|(stream, decoder)| {
            let start = self.read_stream(piece, &open, ShardRange::between(from.start, to.end), stream)?;
            for (frame, plain) in (first..=last).zip(buffer[..len].chunks_mut(compress::FRAME_LEN as usize)) {
                let chunk = table.chunk(frame).and_then(|chunk| {
                    let at = start + usize::try_from(chunk.start.checked_sub(from.start)?).ok()?;
                    stream.get(at..at + usize::try_from(chunk.end - chunk.start).ok()?)
                });
                let chunk =
                    chunk.ok_or_else(|| self.undecodable(piece.segment, "has a frame outside of its stream"))?;
                decoder
                    .decode(*codec, chunk, plain)
                    .map_err(|error| self.undecodable(piece.segment, format!("does not decompress ({error})")))?;
            }
            Ok((piece.range.start() - plain_start) as usize)
        })
    }

    /// Reads a range of a segment's stream into `buffer`, decrypted. Returns
    /// where in the buffer it begins.
    fn read_stream(
        &self,
        piece: &Piece,
        open: &OpenSegment,
        range: ShardRange,
        buffer: &mut Vec<u8>,
    ) -> ArchiveResult<usize> {
        let start = self.read_stored(piece.block, piece.shard, range, buffer)?;
        let Some(seal) = &open.seal else { return Ok(start) };
        // A frame is a leaf: what was read begins with one.
        let first = range.start() / FRAME_LEN;
        let end = range.end().div_ceil(FRAME_LEN).saturating_mul(FRAME_LEN).min(seal.context.padded_len);
        let len = (end - first * FRAME_LEN) as usize;
        let frames = buffer.get_mut(..len).ok_or_else(|| self.undecodable(piece.segment, "ends too early"))?;
        for (number, frame) in (first..).zip(frames.chunks_mut(FRAME_LEN as usize)) {
            let opened = seal.tags.get(number as usize).map(|tag| {
                let number = number as u32;
                seal.cipher.open(&sealing::nonce_of(number), &seal.context.of_frame(number), frame, tag)
            });
            if opened != Some(Ok(())) {
                buffer.fill(0);
                return Err(self.undecodable(piece.segment, format!("has a frame ({number}) that is not authentic")));
            }
        }
        Ok(start)
    }

    fn undecodable(&self, segment: SegmentIndex, why: impl Into<String>) -> ArchiveError {
        ArchiveError::Undecodable { object: self.manifest().name.clone(), segment, why: why.into() }
    }

    /// What is needed to read a segment, from the cache or its file.
    fn open_segment(&self, piece: &Piece) -> ArchiveResult<Arc<OpenSegment>> {
        let address = self.segment_address(piece);
        if let Some(open) = self.shared().caches.segment(&address) {
            return Ok(open);
        }
        let facts = self.manifest().facts()?;
        let geometry = self.manifest().geometry();
        let plain_len = geometry.plain_len(facts.key.plain_size, piece.segment);
        let seal = match self.manifest().encryption() {
            Some((_, epoch)) => Some(self.open_seal(piece, epoch)?),
            None => None,
        };
        let stream_len = match &seal {
            Some(seal) => seal.context.stream_len,
            None => geometry.segment_len(piece.segment),
        };
        let mut open = OpenSegment { seal, table: None, plain_len };
        if let Some(codec) = facts.key.compression.codec() {
            let tail = FrameTable::tail_len(plain_len);
            let start = stream_len
                .checked_sub(tail)
                .ok_or_else(|| self.undecodable(piece.segment, "is shorter than its frame table"))?;
            let mut buffer = Vec::new();
            let at = self.read_stream(piece, &open, ShardRange::between(start, stream_len), &mut buffer)?;
            let table = FrameTable::parse(codec, stream_len, plain_len, &buffer[at..at + tail as usize])
                .map_err(|error| self.undecodable(piece.segment, format!("has no frame table ({error})")))?;
            open.table = Some((codec, table));
        }
        let open = Arc::new(open);
        self.shared().caches.keep_segment(address, open.clone());
        Ok(open)
    }

    fn open_seal(&self, piece: &Piece, epoch: u32) -> ArchiveResult<OpenSeal> {
        let manifest = self.manifest();
        let (facts, geometry) = (manifest.facts()?, manifest.geometry());
        let keys = self.shared().keys.as_ref().ok_or_else(ArchiveError::locked)?;
        let unknown = || ArchiveError::UnknownEpoch { object: manifest.name.clone(), epoch };
        let keys = Epoch::new(epoch).and_then(|epoch| keys.epoch(epoch)).ok_or_else(unknown)?;
        let lens = facts.stream_lens(geometry, piece.segment.get()).zip(facts.sealing());
        let ((lens, sealing), (suite, _)) = lens
            .zip(manifest.encryption())
            .ok_or_else(|| self.undecodable(piece.segment, "is none of the content's"))?;
        let stored = ShardRange::between(lens.padded, geometry.segment_len(piece.segment));
        let mut buffer = Vec::new();
        let at = self.read_stored(piece.block, piece.shard, stored, &mut buffer)?;
        let (tags, footer) = sealing::parse_tail(lens.padded, &buffer[at..at + stored.len() as usize])?;
        if (footer.suite, footer.epoch) != (suite, epoch) {
            return Err(self.undecodable(piece.segment, "was encrypted otherwise than its manifest says"));
        }
        let cipher = keys.segment_cipher(suite, ObjectLine(sealing.line), piece.segment, &footer.salt);
        let context = SegmentContext {
            archive: manifest.archive,
            line: sealing.line,
            segment: piece.segment,
            epoch,
            suite,
            codec: facts.key.compression.codec(),
            plain_len: lens.plain,
            stream_len: lens.stream,
            padded_len: lens.padded,
        };
        Ok(OpenSeal { context, cipher, tags })
    }
}

/// The first and the last frame of a range of a segment's part of the content (not empty).
fn frames_of(range: ShardRange) -> (u64, u64) {
    (range.start() / compress::FRAME_LEN, (range.end() - 1) / compress::FRAME_LEN)
}
