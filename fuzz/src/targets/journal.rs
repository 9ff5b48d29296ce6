//! Blocks and groups of the catalog's journal.

use super::reseal;
use blockframe::base::ArchiveId;
use blockframe::format::FormatError;
use blockframe::format::journal::{
    BLOCK_LEN, Block, ChainHead, FileHeader, FileKind, GroupEncoder, MAX_PAYLOAD, Record, RecordAssembler,
    parse_file_header, place_after, put_file_header,
};

const GOLDEN: &[u8] = include_bytes!("../../../tests/golden/journal-v1.bfc");

/// The input is a block that gets its magic and checksum, and a group's payload that is cut in pieces of two lengths.
pub fn run(input: &[u8]) {
    block(input);
    let Some((&cut, payload)) = input.split_first() else { return };
    let whole = records(payload.chunks(MAX_PAYLOAD));
    let pieces = records(payload.chunks(usize::from(cut) + 1));
    assert_eq!(whole, pieces, "where blocks end must not change what a group says");
    if let Some(records) = whole {
        group(&records, payload);
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
    // The header of a sealed file has a tag, which needs its key.
    if let (true, Ok(FileHeader { archive, epoch: None })) = (block.header, parse_file_header(block.payload)) {
        let mut again = Vec::new();
        put_file_header(block.kind, archive, block.place, &mut again);
        assert_eq!(again, bytes);
    }
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

/// Records that were read give the same group when they are written.
fn group(records: &[Record], payload: &[u8]) {
    let mut bytes = Vec::new();
    let start = put_file_header(FileKind::Snapshot, ArchiveId::from_bytes([7; 16]), ChainHead::START, &mut bytes);
    let mut encoder = GroupEncoder::new(FileKind::Snapshot, start);
    for record in records {
        assert!(encoder.push(record, &mut bytes).is_ok());
    }
    let end = encoder.finish(&mut bytes);
    let mut at = start;
    let mut written = Vec::new();
    for bytes in bytes[BLOCK_LEN..].chunks(BLOCK_LEN) {
        let block = Block::parse(bytes).unwrap_or_else(|error| panic!("a block that was written: {error}"));
        assert!(block.place == at && block.first == written.is_empty() && !block.header);
        at = place_after(&block, bytes);
        written.extend_from_slice(block.payload);
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
    let mut payload = vec![100];
    payload.extend(payload_of(&golden_records()));
    seeds.push(payload);
    seeds
}
