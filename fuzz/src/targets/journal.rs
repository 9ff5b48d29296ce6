//! Blocks and groups of the catalog's journal.

use super::reseal;
use blockframe::base::{ArchiveId, Secret};
use blockframe::codec::seal::{TAG_LEN, seal_metadata};
use blockframe::format::FormatError;
use blockframe::format::journal::{
    BLOCK_LEN, Block, ChainHead, FileKind, GroupEncoder, HEADER_LEN, MAX_PAYLOAD, Record, RecordAssembler,
    parse_file_header, place_after, put_file_header, put_sealed_header,
};
use blockframe::format::journal_seal::{BlockSeal, MAX_SEALED};

const GOLDEN: &[u8] = include_bytes!("../../../tests/golden/journal-v1.bfc");

/// The input is a block that gets its magic and checksum, and a group's payload that is cut in pieces of two lengths.
pub fn run(input: &[u8]) {
    block(input);
    let Some((&cut, payload)) = input.split_first() else { return };
    let whole = records(payload.chunks(MAX_PAYLOAD));
    let pieces = records(payload.chunks(usize::from(cut) + 1));
    assert_eq!(whole, pieces, "where blocks end must not change what a group says");
    if let Some(records) = whole {
        group(&records, payload, None);
        group(&records, payload, Some(&seal(archive(), 1)));
    }
}

/// A block that is good says the same when it is written again.
fn block(input: &[u8]) {
    let mut bytes = input[..input.len().min(BLOCK_LEN)].to_vec();
    bytes.resize(BLOCK_LEN, 0);
    reseal::journal_block(&mut bytes);
    let Ok(block) = Block::parse(&bytes) else { return };
    assert!(block.payload.len() <= MAX_PAYLOAD && place_after(&block, &bytes).sequence >= block.place.sequence);
    let file = block.kind.file_name(block.place.sequence);
    assert_eq!(FileKind::parse_file_name(&file), Some((block.kind, block.place.sequence)));
    if let (true, Ok(header)) = (block.header, parse_file_header(block.payload)) {
        let mut again = Vec::new();
        match header.epoch {
            None => put_file_header(block.kind, header.archive, block.place, &mut again),
            Some(epoch) => put_sealed_header(block.kind, &seal(header.archive, epoch), block.place, &mut again),
        };
        // The header that the key makes is the only one that it accepts.
        let authentic = header.epoch.is_none_or(|epoch| seal(header.archive, epoch).check_header(&block).is_ok());
        assert_eq!(authentic, again == bytes);
    }
    assert!(seal(archive(), 1).open(&block).is_err());
    sealed(&mut bytes);
}

/// The block's payload as that of a sealed block, with the tag that it demands: what is opened has a length that fits,
/// and the block opens nowhere else.
fn sealed(bytes: &mut [u8]) {
    let plain = bytes[HEADER_LEN..BLOCK_LEN - TAG_LEN].to_vec();
    let mut context = b"blockframe journal 1".to_vec();
    context.extend_from_slice(archive().as_bytes());
    context.extend_from_slice(&bytes[10..HEADER_LEN]);
    context.extend_from_slice(&1u32.to_le_bytes());
    bytes[HEADER_LEN..].copy_from_slice(&seal_metadata(&key(), &context, &plain));
    bytes[8..10].copy_from_slice(&(MAX_PAYLOAD as u16).to_le_bytes());
    reseal::journal_block(bytes);
    let Ok(block) = Block::parse(bytes) else { return };
    assert!(seal(archive(), 2).open(&block).is_err() && seal(ArchiveId::from_bytes([0; 16]), 1).open(&block).is_err());
    if let Ok(opened) = seal(archive(), 1).open(&block) {
        assert!(opened.len() <= MAX_SEALED && plain[2..].starts_with(&opened));
        assert_eq!(plain[..2], (opened.len() as u16).to_le_bytes());
    }
}

fn archive() -> ArchiveId {
    ArchiveId::from_bytes([7; 16])
}

fn key() -> Secret<64> {
    Secret::filled_by(|bytes| bytes.fill(5))
}

fn seal(archive: ArchiveId, epoch: u32) -> BlockSeal {
    BlockSeal::new(archive, epoch, key())
}

/// The records of a group whose payload arrives in these pieces.
fn records<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Option<Vec<Record>> {
    let mut assembler = RecordAssembler::default();
    let mut records = Vec::new();
    for piece in pieces {
        let mut take = |record| {
            records.push(record);
            Ok::<(), FormatError>(())
        };
        assembler.push(piece, &mut take).ok()?;
    }
    assembler.finish().ok()?;
    Some(records)
}

/// Records that were read give the same group when they are written, sealed or not.
fn group(records: &[Record], payload: &[u8], by: Option<&BlockSeal>) {
    let mut bytes = Vec::new();
    let start = match by {
        None => put_file_header(FileKind::Snapshot, archive(), ChainHead::START, &mut bytes),
        Some(seal) => put_sealed_header(FileKind::Snapshot, seal, ChainHead::START, &mut bytes),
    };
    let mut encoder = GroupEncoder::new(FileKind::Snapshot, start).sealed_by(by.cloned());
    for record in records {
        assert!(encoder.push(record, &mut bytes).is_ok());
    }
    let end = encoder.finish(&mut bytes);
    let mut at = start;
    let mut written = Vec::new();
    for bytes in bytes[BLOCK_LEN..].chunks(BLOCK_LEN) {
        let block = Block::parse(bytes).unwrap_or_else(|error| panic!("a block that was written: {error}"));
        assert!(block.place == at && block.first == (at == start) && !block.header);
        at = place_after(&block, bytes);
        match by {
            None => written.extend_from_slice(block.payload),
            Some(seal) => written.extend(seal.open(&block).unwrap_or_else(|error| panic!("a sealed block: {error}"))),
        }
        assert_eq!(block.last, at == end);
    }
    assert_eq!((at, written.as_slice()), (end, payload));
}

/// The records of the golden journal.
pub fn golden_records() -> Vec<Record> {
    let blocks = GOLDEN.chunks(BLOCK_LEN).filter_map(|bytes| Block::parse(bytes).ok());
    let mut all = Vec::new();
    let mut assembler = RecordAssembler::default();
    for block in blocks.filter(|block| !block.header) {
        let mut take = |record| {
            all.push(record);
            Ok::<(), FormatError>(())
        };
        assembler.push(block.payload, &mut take).unwrap_or_else(|error| panic!("the golden journal: {error}"));
    }
    all
}

/// Records as a group's payload has them: each after its length.
pub fn payload_of(records: &[Record]) -> Vec<u8> {
    let mut payload = Vec::new();
    for record in records {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        blockframe::format::binary::put_bytes(&mut payload, &bytes);
    }
    payload
}

/// The golden blocks, and the golden group's payload.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = GOLDEN.chunks(BLOCK_LEN).map(<[u8]>::to_vec).collect();
    let mut header = Vec::new();
    put_sealed_header(FileKind::Journal, &seal(archive(), 1), ChainHead::START, &mut header);
    let mut full = GOLDEN[BLOCK_LEN..2 * BLOCK_LEN].to_vec();
    full[HEADER_LEN..].fill(0);
    full[HEADER_LEN] = 9;
    seeds.extend([header, full]);
    let mut payload = vec![100];
    payload.extend(payload_of(&golden_records()));
    seeds.push(payload);
    seeds
}
