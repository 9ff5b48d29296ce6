//! Bundles: the entry table at the end of a tar.

use super::{entry, reseal};
use blockframe::format::binary::{Reader, put_varint};
use blockframe::format::{BundleBuilder, BundleTable, Entry, NodeBody};

const BLOCK: usize = 512;
const TRAILER: usize = 48;
const GOLDEN: &[u8] = include_bytes!("../../../tests/golden/bundle-v1.tar");

/// The input is a number of blocks for members, then a table without its trailer; or entries to make a bundle of.
pub fn run(input: &[u8]) {
    let Some((&members, table)) = input.split_first() else { return };
    hostile(usize::from(members) * BLOCK, table);
    made_here(table);
}

/// A table that is whole in itself gives its rows, and these are the bytes that would be written.
fn hostile(members: usize, table: &[u8]) {
    let mut content = vec![0; members];
    let start = content.len();
    content.extend_from_slice(table);
    content.resize(start + (table.len() + TRAILER).next_multiple_of(BLOCK), 0);
    let (end, len) = (content.len(), (content.len() - start) as u64);
    content[end - 48..end - 40].copy_from_slice(b"BFTABEND");
    content[end - 40..end - 32].copy_from_slice(&len.to_le_bytes());
    reseal::blake3_at(&mut content, start..end - 32, end - 32);
    content.resize(end + 2 * BLOCK, 0);
    let Ok(parsed) = BundleTable::of_content(&content) else { return };
    let mut rows = Vec::new();
    for row in &parsed.rows {
        row.entry.encode(&mut rows);
        put_varint(&mut rows, row.member.map_or(0, |member| member.start() + 1));
        if let Some(member) = row.member {
            assert!(!member.is_empty() && member.end() as usize + BLOCK <= start);
            assert!(matches!(&row.entry, Entry::Node { body: NodeBody::File(file), .. } if file.size == member.len()));
        }
    }
    assert_eq!(rows, content[start + 16..start + 16 + rows.len()]);
}

/// A bundle of whatever entries the input holds gives them back.
fn made_here(input: &[u8]) {
    let mut reader = Reader::new("fuzz", input);
    let mut builder = BundleBuilder::new();
    let mut expected = Vec::new();
    while let Ok(entry) = Entry::decode(&mut reader) {
        let size = match &entry {
            Entry::Node { body: NodeBody::File(content), .. } => content.size,
            _ => 0,
        };
        let as_member = BundleBuilder::takes(&entry) && size < 1 << 16;
        let longest = builder.content_len_with(&entry, as_member);
        if as_member {
            let data = vec![b'x'; size as usize];
            expected.push((entry.clone(), builder.add_member(&entry, &data).ok()));
        } else {
            builder.add_row(&entry);
            expected.push((entry, None));
        }
        assert!(builder.content_len() <= longest);
    }
    let length = builder.content_len();
    let content = builder.finish();
    assert_eq!(content.len() as u64, length);
    let table = BundleTable::of_content(&content).unwrap_or_else(|error| panic!("a bundle that was made: {error}"));
    let rows: Vec<_> = table.rows.into_iter().map(|row| (row.entry, row.member)).collect();
    assert_eq!(rows, expected);
}

/// The golden bundle's table, and the golden entries one after the other.
pub fn seeds() -> Vec<Vec<u8>> {
    let place = BundleTable::locate(GOLDEN.len() as u64, GOLDEN).map_or(0..0, |range| {
        let (start, end) = (range.start() as usize, range.end() as usize);
        start..end
    });
    let mut table = vec![(place.start / BLOCK) as u8];
    table.extend_from_slice(&GOLDEN[place]);
    table.truncate(table.len() - TRAILER);
    let mut entries = vec![0];
    entry::seeds().iter().for_each(|entry| entries.extend_from_slice(entry));
    vec![table, entries]
}
