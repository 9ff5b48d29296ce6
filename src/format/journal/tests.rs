//! Blocks, groups and records there and back, and what is refused of them.

use super::*;
use crate::base::ContentRange;
use crate::format::FileContent;
use crate::format::staged::{StagedExtent, StagedMap, StagingId};
use proptest::prelude::*;

fn record() -> impl Strategy<Value = Record> {
    let number = 1u64..1 << 62;
    let name = proptest::collection::vec(1u8..=255, 1..=255)
        .prop_map(|name| name.into_iter().map(|b| if b == b'/' || b == b'.' { b'_' } else { b }).collect::<Vec<_>>());
    let object = ("[a-z .]{0,90}", any::<[u8; 32]>(), any::<[u8; 32]>(), any::<u64>(), any::<u8>()).prop_map(
        |(readable, hash, root, size, tier)| {
            let hash = Digest::new(hash);
            ObjectFacts {
                name: ObjectName::new(readable.as_bytes(), &hash),
                root: Digest::new(root),
                kind: if tier % 2 == 0 { ObjectKind::File } else { ObjectKind::Bundle },
                key: BlockKey::plain(hash, size),
                tier,
                stored_len: size,
            }
        },
    );
    let inode =
        (number.clone(), any::<i64>(), any::<u64>(), any::<[u8; 32]>()).prop_map(|(node, seconds, size, hash)| {
            Record::Inode {
                node,
                meta: NodeMeta { modified: Timestamp { seconds, nanoseconds: 7 }, ..NodeMeta::default() },
                body: NodeBody::File(FileContent { size: size.max(1), hash: Digest::new(hash), extents: None }),
            }
        });
    let time =
        (any::<i64>(), 0..1_000_000_000u32).prop_map(|(seconds, nanoseconds)| Timestamp { seconds, nanoseconds });
    let period = (any::<i64>(), 0..1_000_000_000u32, 1..1u64 << 40).prop_map(|(seconds, nanoseconds, length)| {
        let seconds = seconds.min(i64::MAX - (1 << 41));
        (Timestamp { seconds, nanoseconds }, Timestamp { seconds: seconds + length as i64, nanoseconds })
    });
    let staged = (number.clone(), any::<u64>(), any::<u64>(), 1..1u64 << 50).prop_map(|(node, id, size, place)| {
        let extent = StagedExtent { range: ContentRange::between(place / 2, place), place: Some(id >> 20) };
        let map = if size % 2 == 0 {
            StagedMap::Inline(vec![extent])
        } else {
            StagedMap::InFile { offset: place, len: size, hash: Digest::of(b"map") }
        };
        Record::Staged { node, content: StagedContent { file: StagingId::new(id), size, base_len: place, map } }
    });
    let past_inode = (inode.clone(), period.clone()).prop_map(|(record, (since, until))| match record {
        Record::Inode { node, meta, body } => Record::PastInode { node, since, until, meta, body },
        other => other,
    });
    let past_dirent = (number.clone(), name.clone(), number.clone(), period)
        .prop_map(|(parent, name, node, (since, until))| Record::PastDirent { parent, name, node, since, until });
    prop_oneof![
        time.clone().prop_map(Record::Time),
        staged,
        number.clone().prop_map(Record::StagedRemoved),
        time.prop_map(|before| Record::HistoryRemoved { before }),
        past_inode,
        past_dirent,
        object.clone().prop_map(Record::Object),
        (any::<[u8; 32]>(), any::<u64>(), any::<u64>(), any::<Option<u64>>())
            .prop_map(|(hash, offset, size, source)| Record::Member { hash: Digest::new(hash), offset, size, source }),
        object.prop_map(|object| Record::ObjectRemoved(object.name)),
        inode,
        (number.clone(), name.clone(), number.clone()).prop_map(|(parent, name, node)| Record::Dirent {
            parent,
            name,
            node
        }),
        (number.clone(), name).prop_map(|(parent, name)| Record::DirentRemoved { parent, name }),
        number.clone().prop_map(Record::InodeRemoved),
        number.prop_map(Record::NextInode),
    ]
}

fn read_back(bytes: &[u8], mut at: ChainHead) -> Result<(Vec<Record>, ChainHead), FormatError> {
    let mut assembler = RecordAssembler::default();
    let mut records = Vec::new();
    let blocks = bytes.len() / BLOCK_LEN;
    for (number, bytes) in bytes.chunks(BLOCK_LEN).enumerate() {
        let block = Block::parse(bytes)?;
        assert_eq!((block.first, block.last), (number == 0, number + 1 == blocks));
        assert_eq!(block.place, at);
        at = place_after(&block, bytes);
        assembler.push::<FormatError>(block.payload, &mut |record| {
            records.push(record);
            Ok(())
        })?;
    }
    assembler.finish()?;
    Ok((records, at))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn groups_round_trip(records in proptest::collection::vec(record(), 0..120)) {
        let start = ChainHead { sequence: 9, hash: Digest::of(b"before") };
        let mut encoder = GroupEncoder::new(FileKind::Journal, start);
        let mut bytes = Vec::new();
        for record in &records {
            encoder.push(record, &mut bytes).unwrap();
        }
        let end = encoder.finish(&mut bytes);
        prop_assert_eq!(bytes.len() % BLOCK_LEN, 0);
        let (read, at) = read_back(&bytes, start).unwrap();
        prop_assert_eq!(read, records);
        prop_assert_eq!(at, end);
    }

    #[test]
    fn garbage_never_panics(bytes: Vec<u8>) {
        let _ = Record::from_bytes(&bytes);
        let _ = RecordAssembler::default().push::<FormatError>(&bytes, &mut |_| Ok(()));
        let _ = parse_file_header(&bytes);
    }
}

#[test]
fn every_flipped_bit_of_a_block_is_noticed() {
    let mut bytes = Vec::new();
    let mut encoder = GroupEncoder::new(FileKind::Snapshot, ChainHead::START);
    encoder.push(&Record::NextInode(7), &mut bytes).unwrap();
    encoder.finish(&mut bytes);
    assert!(Block::parse(&bytes).is_ok());
    for bit in 0..BLOCK_LEN * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(Block::parse(&bytes).is_err(), "bit {bit}");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn a_past_state_has_a_length() {
    let time = Timestamp { seconds: 5, nanoseconds: 5 };
    let mut bytes = Vec::new();
    Record::PastDirent { parent: 1, name: b"n".to_vec(), node: 2, since: time, until: time }.encode(&mut bytes);
    assert!(Record::from_bytes(&bytes).is_err());
}

#[test]
fn file_names_sort_by_sequence_and_parse_back() {
    assert!(FileKind::Journal.file_name(9) < FileKind::Journal.file_name(10));
    for kind in [FileKind::Journal, FileKind::Snapshot] {
        assert_eq!(FileKind::parse_file_name(&kind.file_name(77)), Some((kind, 77)));
    }
    assert_eq!(FileKind::parse_file_name("journal-7.bfc"), None);
    assert_eq!(FileKind::parse_file_name("other"), None);
}
