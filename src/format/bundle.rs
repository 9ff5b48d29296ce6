//! A bundle's content: many small files as one tar that `tar xf` unpacks. Its
//! last member is the entry table, which holds the exact attributes of the
//! members and every entry of the commit that has no bytes of its own, so
//! that names can be rebuilt from bundles and manifests alone.
//! `docs/FORMAT.md` gives the bytes.

use super::binary::{Reader, put_varint};
use super::{Entry, FileContent, FormatError, NodeBody, NodeMeta, tar_header};
use crate::base::{ContentRange, Digest};

const WHAT: &str = "bundle table";
/// The table's name as a tar member.
pub const TABLE_NAME: &[u8] = b".blockframe-entries";
/// Bytes at the content's end that suffice to [locate](BundleTable::locate) the table.
pub const TAIL_LEN: u64 = END_LEN + TRAILER_LEN;

const MAGIC: &[u8; 8] = b"BFENTRYS";
const TRAILER_MAGIC: &[u8; 8] = b"BFTABEND";
const VERSION: u32 = 1;
const HEADER_LEN: u64 = 16;
const TRAILER_LEN: u64 = 48;
/// Two zero blocks end a tar.
const END_LEN: u64 = 2 * tar_header::BLOCK;

/// Builds a bundle's content in memory.
#[derive(Debug, Default)]
pub struct BundleBuilder {
    /// Tar members so far, each padded.
    members: Vec<u8>,
    /// Encoded rows so far.
    rows: Vec<u8>,
    row_count: u32,
    member_count: u32,
}

impl BundleBuilder {
    /// An empty bundle.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it has neither members nor rows.
    pub fn is_empty(&self) -> bool {
        self.row_count == 0
    }

    /// Number of rows, those of members included.
    pub fn rows(&self) -> u32 {
        self.row_count
    }

    /// Number of files whose bytes are in it.
    pub fn members(&self) -> u32 {
        self.member_count
    }

    /// Length of the content if it were finished now, bytes.
    pub fn content_len(&self) -> u64 {
        content_len(self.members.len() as u64, self.rows.len() as u64)
    }

    /// Length of the content with this entry in it too (and, if it shall be a
    /// member, its bytes), if it were finished then.
    pub fn content_len_with(&self, entry: &Entry, as_member: bool) -> u64 {
        let mut row = Vec::new();
        entry.encode(&mut row);
        let mut members = self.members.len() as u64;
        if let (true, Entry::Node { path, meta, body: NodeBody::File(content) }) = (as_member, entry) {
            members += tar_header::headers(path.as_bytes(), meta, content.size).len() as u64
                + content.size.next_multiple_of(tar_header::BLOCK);
        }
        // The longest varint is ten bytes.
        content_len(members, self.rows.len() as u64 + row.len() as u64 + 10)
    }

    /// Whether an entry can be a member: a file with bytes whose name does
    /// not collide with the table's when the tar is unpacked.
    pub fn takes(entry: &Entry) -> bool {
        matches!(entry, Entry::Node { path, body: NodeBody::File(content), .. }
            if content.size > 0 && path.as_bytes() != TABLE_NAME)
    }

    /// Adds a file with its bytes, and returns where they lie in the content.
    ///
    /// Errors: the entry cannot be a member, or says another length.
    pub fn add_member(&mut self, entry: &Entry, data: &[u8]) -> Result<ContentRange, FormatError> {
        let (path, meta, content) = match entry {
            Entry::Node { path, meta, body: NodeBody::File(content) } if Self::takes(entry) => (path, meta, content),
            _ => return Err(FormatError::invalid(WHAT, format!("{} cannot be a member", entry.path()))),
        };
        if content.size != data.len() as u64 {
            return Err(FormatError::invalid(WHAT, format!("{path}: {} bytes, not {}", data.len(), content.size)));
        }
        self.members.extend_from_slice(&tar_header::headers(path.as_bytes(), meta, content.size));
        let start = self.members.len() as u64;
        self.members.extend_from_slice(data);
        pad(&mut self.members);
        self.member_count += 1;
        self.push_row(entry, start + 1);
        Ok(ContentRange::between(start, start + content.size))
    }

    /// Adds an entry without bytes: a directory, a link, a file that is stored elsewhere.
    pub fn add_row(&mut self, entry: &Entry) {
        self.push_row(entry, 0);
    }

    fn push_row(&mut self, entry: &Entry, place: u64) {
        entry.encode(&mut self.rows);
        put_varint(&mut self.rows, place);
        self.row_count += 1;
    }

    /// The content.
    pub fn finish(self) -> Vec<u8> {
        let table_len = table_len(self.rows.len() as u64);
        let meta = NodeMeta { permissions: 0o644, ..NodeMeta::default() };
        let mut content = self.members;
        content.reserve_exact((tar_header::BLOCK + table_len + END_LEN) as usize);
        content.extend_from_slice(&tar_header::headers(TABLE_NAME, &meta, table_len));
        let start = content.len();
        content.extend_from_slice(MAGIC);
        content.extend_from_slice(&VERSION.to_le_bytes());
        content.extend_from_slice(&self.row_count.to_le_bytes());
        content.extend_from_slice(&self.rows);
        content.resize(start + (table_len - TRAILER_LEN) as usize, 0);
        content.extend_from_slice(TRAILER_MAGIC);
        content.extend_from_slice(&table_len.to_le_bytes());
        let hash = Digest::of(&content[start..]);
        content.extend_from_slice(hash.as_bytes());
        content.resize(content.len() + END_LEN as usize, 0);
        content
    }
}

/// What people see of a bundle: the directory of its first entry, or its name at the top.
pub fn readable_name(first: &Entry) -> Vec<u8> {
    let path = first.path();
    match path.parent() {
        Some(parent) if !parent.is_root() => parent.name().to_vec(),
        _ => path.name().to_vec(),
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(tar_header::BLOCK as usize), 0);
}

fn table_len(rows_len: u64) -> u64 {
    (HEADER_LEN + rows_len + TRAILER_LEN).next_multiple_of(tar_header::BLOCK)
}

fn content_len(members_len: u64, rows_len: u64) -> u64 {
    members_len + tar_header::BLOCK + table_len(rows_len) + END_LEN
}

/// One row of a bundle's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleRow {
    /// Name and attributes.
    pub entry: Entry,
    /// Where the file's bytes lie in the bundle's content; `None` when they do not.
    pub member: Option<ContentRange>,
}

/// A bundle's checked table: every member lies in the content, before the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleTable {
    /// The rows, in the order in which they were committed.
    pub rows: Vec<BundleRow>,
}

impl BundleTable {
    /// Where the table lies in a content of `content_len` bytes whose last
    /// bytes (at least [`TAIL_LEN`]) are `tail`.
    pub fn locate(content_len: u64, tail: &[u8]) -> Result<ContentRange, FormatError> {
        if content_len < TAIL_LEN || (tail.len() as u64) < TAIL_LEN {
            return Err(FormatError::Truncated { what: WHAT, at: content_len.min(tail.len() as u64) });
        }
        let (trailer, end) = tail[tail.len() - TAIL_LEN as usize..].split_at(TRAILER_LEN as usize);
        if end.iter().any(|&byte| byte != 0) {
            return Err(FormatError::invalid(WHAT, "the content does not end with two zero blocks"));
        }
        let table_len = trailer_len(trailer)?;
        let table_end = content_len - END_LEN;
        match table_end.checked_sub(table_len) {
            Some(start) if start >= tar_header::BLOCK => Ok(ContentRange::between(start, table_end)),
            _ => Err(FormatError::invalid(WHAT, "it is longer than the content")),
        }
    }

    /// Parses the `bytes` of the table that lies at `place` (as [`locate`](Self::locate) found it).
    pub fn parse(place: ContentRange, bytes: &[u8]) -> Result<Self, FormatError> {
        if bytes.len() as u64 != place.len() || place.len() < HEADER_LEN + TRAILER_LEN {
            return Err(FormatError::Truncated { what: WHAT, at: bytes.len() as u64 });
        }
        let (body, trailer) = bytes.split_at(bytes.len() - TRAILER_LEN as usize);
        if trailer_len(trailer)? != place.len() {
            return Err(FormatError::invalid(WHAT, "its trailer says another length"));
        }
        let (hashed, hash) = bytes.split_at(bytes.len() - Digest::LEN);
        if Digest::of(hashed).as_bytes() != hash {
            return Err(FormatError::Checksum { what: WHAT });
        }
        let mut reader = Reader::new(WHAT, body);
        if reader.take(MAGIC.len())? != MAGIC {
            return Err(reader.invalid("its magic is wrong"));
        }
        let version = reader.u32()?;
        if version != VERSION {
            return Err(FormatError::Version { what: WHAT, found: version.into(), known: VERSION.into() });
        }
        let count = reader.u32()?;
        let members_end = place.start().saturating_sub(tar_header::BLOCK);
        let mut rows = Vec::new();
        for _ in 0..count {
            let entry = Entry::decode(&mut reader)?;
            let member = match reader.varint()? {
                0 => None,
                start => Some(checked_member(&entry, start - 1, members_end)?),
            };
            rows.push(BundleRow { entry, member });
        }
        let padding = reader.take(reader.remaining())?;
        if padding.len() as u64 >= tar_header::BLOCK || padding.iter().any(|&byte| byte != 0) {
            return Err(reader.invalid("bytes follow its rows"));
        }
        Ok(Self { rows })
    }

    /// Reads the table out of a whole content.
    pub fn of_content(content: &[u8]) -> Result<Self, FormatError> {
        let place = Self::locate(content.len() as u64, content)?;
        Self::parse(place, &content[place.start() as usize..place.end() as usize])
    }
}

/// The table's length as its trailer tells it: whole blocks.
fn trailer_len(trailer: &[u8]) -> Result<u64, FormatError> {
    let mut reader = Reader::new(WHAT, trailer);
    if reader.take(TRAILER_MAGIC.len())? != TRAILER_MAGIC {
        return Err(reader.invalid("its trailer's magic is wrong"));
    }
    let len = reader.u64()?;
    if len < HEADER_LEN + TRAILER_LEN || !len.is_multiple_of(tar_header::BLOCK) {
        return Err(reader.invalid(format!("a length of {len} is impossible")));
    }
    Ok(len)
}

fn checked_member(entry: &Entry, start: u64, members_end: u64) -> Result<ContentRange, FormatError> {
    let Entry::Node { body: NodeBody::File(FileContent { size, .. }), .. } = entry else {
        return Err(FormatError::invalid(WHAT, format!("{} has bytes, but is no file", entry.path())));
    };
    match ContentRange::new(start, *size) {
        Some(range)
            if range.end() <= members_end
                && !range.is_empty()
                && start >= tar_header::BLOCK
                && start.is_multiple_of(tar_header::BLOCK) =>
        {
            Ok(range)
        }
        _ => Err(FormatError::invalid(WHAT, format!("{} lies outside the bundle", entry.path()))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::EntryPath;
    use super::*;
    use crate::base::Timestamp;
    use proptest::prelude::*;

    const GOLDEN: &[u8] = include_bytes!("../../tests/golden/bundle-v1.tar");

    fn file(path: &[u8], data: &[u8]) -> Entry {
        Entry::Node {
            path: EntryPath::new(path).unwrap(),
            meta: NodeMeta {
                accessed: None,
                permissions: 0o640,
                user: 1000,
                group: 100,
                modified: Timestamp { seconds: 1_700_000_000, nanoseconds: 123_456_789 },
                changed: Timestamp { seconds: 1_700_000_001, nanoseconds: 0 },
                born: None,
                xattrs: vec![(b"user.tag".to_vec(), b"x".to_vec())],
            },
            body: NodeBody::File(FileContent { size: data.len() as u64, hash: Digest::of(data), extents: None }),
        }
    }

    fn node(path: &str, body: NodeBody) -> Entry {
        Entry::Node { path: EntryPath::new(path).unwrap(), meta: NodeMeta::default(), body }
    }

    fn sample() -> (BundleBuilder, Vec<BundleRow>) {
        let mut builder = BundleBuilder::new();
        let mut rows = Vec::new();
        for entry in [
            node("d", NodeBody::Directory),
            node("d/link", NodeBody::Symlink(b"hello.txt".to_vec())),
            node("d/empty", NodeBody::File(FileContent::empty())),
            Entry::HardLink {
                path: EntryPath::new("d/second").unwrap(),
                target: EntryPath::new("d/hello.txt").unwrap(),
            },
        ] {
            builder.add_row(&entry);
            rows.push(BundleRow { entry, member: None });
        }
        for (path, data) in [("d/hello.txt", &b"hello, world\n"[..]), ("d/block", &[7; 512])] {
            let entry = file(path.as_bytes(), data);
            let member = builder.add_member(&entry, data).unwrap();
            rows.push(BundleRow { entry, member: Some(member) });
        }
        (builder, rows)
    }

    /// Writes a valid trailer for a table of these bytes, so that only what is wrong inside is tested.
    fn sealed(mut table: Vec<u8>) -> Vec<u8> {
        let len = table.len();
        table[len - 48..len - 40].copy_from_slice(TRAILER_MAGIC);
        table[len - 40..len - 32].copy_from_slice(&(len as u64).to_le_bytes());
        let hash = Digest::of(&table[..len - 32]);
        table[len - 32..].copy_from_slice(hash.as_bytes());
        table
    }

    #[test]
    fn the_bytes_are_those_of_format_version_1() {
        let (builder, rows) = sample();
        let expected_len = builder.content_len();
        let content = builder.finish();
        assert_eq!(content.len() as u64, expected_len);
        assert!(content == GOLDEN, "the bundle format changed: existing archives would not be readable");
        assert_eq!(BundleTable::of_content(GOLDEN).unwrap().rows, rows);
    }

    #[test]
    fn the_table_is_found_from_the_tail_and_leads_to_the_bytes() {
        let (builder, rows) = sample();
        let content = builder.finish();
        let tail = &content[content.len() - TAIL_LEN as usize..];
        let place = BundleTable::locate(content.len() as u64, tail).unwrap();
        let table = BundleTable::parse(place, &content[place.start() as usize..place.end() as usize]).unwrap();
        assert_eq!(table.rows, rows);
        let member = table.rows[4].member.unwrap();
        assert_eq!(&content[member.start() as usize..member.end() as usize], b"hello, world\n");
    }

    #[test]
    fn a_bundle_without_members_is_a_bundle() {
        let mut builder = BundleBuilder::new();
        let entry = node("only", NodeBody::Directory);
        builder.add_row(&entry);
        let table = BundleTable::of_content(&builder.finish()).unwrap();
        assert_eq!(table.rows, [BundleRow { entry, member: None }]);
    }

    #[test]
    fn system_tar_lists_and_extracts_every_member() {
        let directory = tempfile::tempdir().unwrap();
        let mut builder = BundleBuilder::new();
        let split = [vec![b'd'; 120], vec![b'/'], vec![b'n'; 100]].concat();
        let pax = vec![b'p'; 200];
        let paths: [&[u8]; 5] = [b"plain", b"with space/\xff\xfe", &split, &pax, b"deep/er/still"];
        for (index, path) in paths.iter().enumerate() {
            let mut entry = file(path, &vec![index as u8; index * 700 + 1]);
            if let (Entry::Node { meta, .. }, true) = (&mut entry, index == 4) {
                meta.user = u32::MAX;
                meta.modified.seconds = -86_400;
            }
            builder.add_member(&entry, &vec![index as u8; index * 700 + 1]).unwrap();
        }
        let tar = directory.path().join("bundle.tar");
        std::fs::write(&tar, builder.finish()).unwrap();
        let run = |arguments: &[&str]| {
            let output = std::process::Command::new("tar").args(arguments).arg(&tar).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            output.stdout
        };
        let listed = run(&["--quoting-style=literal", "-tf"]);
        let mut expected = paths.join(&b'\n');
        expected.extend_from_slice(b"\n.blockframe-entries\n");
        assert_eq!(listed, expected);
        run(&["--no-same-owner", "-C", directory.path().to_str().unwrap(), "-xf"]);
        for (index, path) in paths.iter().enumerate() {
            use std::os::unix::ffi::OsStrExt;
            let extracted = directory.path().join(std::ffi::OsStr::from_bytes(path));
            assert_eq!(std::fs::read(&extracted).unwrap(), vec![index as u8; index * 700 + 1]);
            let modified = crate::base::clock::timestamp(extracted.metadata().unwrap().modified().unwrap());
            assert_eq!(modified.seconds, if index == 4 { -86_400 } else { 1_700_000_000 });
        }
    }

    #[test]
    fn the_predicted_length_is_never_too_short() {
        let (builder, _) = sample();
        for len in [0, 1, 511, 512, 513, 5000] {
            let data = vec![1; len];
            let entry = file(&vec![b'n'; 255], &data);
            let mut grown =
                BundleBuilder { members: builder.members.clone(), rows: builder.rows.clone(), ..sample().0 };
            let predicted = grown.content_len_with(&entry, BundleBuilder::takes(&entry));
            if BundleBuilder::takes(&entry) {
                grown.add_member(&entry, &data).unwrap();
            } else {
                grown.add_row(&entry);
            }
            let actual = grown.finish().len() as u64;
            assert!(actual <= predicted && predicted - actual <= 512, "{actual} {predicted}");
        }
    }

    #[test]
    fn what_cannot_be_a_member_is_refused() {
        let mut builder = BundleBuilder::new();
        assert!(builder.add_member(&node("d", NodeBody::Directory), b"").is_err());
        assert!(builder.add_member(&file(b"f", b""), b"").is_err());
        assert!(builder.add_member(&file(b"f", b"abc"), b"ab").is_err());
        assert!(builder.add_member(&file(TABLE_NAME, b"abc"), b"abc").is_err());
        assert!(builder.is_empty());
    }

    #[test]
    fn every_flipped_byte_of_the_table_is_found() {
        let (builder, _) = sample();
        let mut content = builder.finish();
        let place = BundleTable::locate(content.len() as u64, &content).unwrap();
        for at in place.start()..content.len() as u64 {
            content[at as usize] ^= 0x20;
            assert!(BundleTable::of_content(&content).is_err(), "byte {at}");
            content[at as usize] ^= 0x20;
        }
    }

    #[test]
    fn members_outside_the_content_are_refused() {
        for member in [0, 1, 513, 1024, 512 * 1024, u64::MAX - 2, u64::MAX - 1] {
            let mut table = Vec::new();
            table.extend_from_slice(MAGIC);
            table.extend_from_slice(&1u32.to_le_bytes());
            table.extend_from_slice(&1u32.to_le_bytes());
            file(b"f", &[1; 512]).encode(&mut table);
            put_varint(&mut table, member + 1);
            table.resize(512, 0);
            let place = ContentRange::between(1536, 2048);
            assert!(BundleTable::parse(place, &sealed(table)).is_err(), "{member}");
        }
    }

    proptest! {
        #[test]
        fn hostile_tables_never_panic(rows: Vec<u8>, count: u32, at in 512..100_000u64, flip in 0..2048usize) {
            let mut table = MAGIC.to_vec();
            table.extend_from_slice(&1u32.to_le_bytes());
            table.extend_from_slice(&count.to_le_bytes());
            table.extend_from_slice(&rows);
            table.resize((table.len() + 48).next_multiple_of(512), 0);
            let table = sealed(table);
            let _ = BundleTable::parse(ContentRange::between(at, at + table.len() as u64), &table);
            let _ = BundleTable::of_content(&table);

            let mut content = GOLDEN.to_vec();
            let len = content.len();
            content[len - 1 - flip.min(len - 1)] ^= count as u8;
            let _ = BundleTable::of_content(&content);
            let _ = BundleTable::of_content(&content[..flip]);
        }
    }
}
