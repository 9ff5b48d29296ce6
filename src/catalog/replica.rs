//! The journal and its snapshots on the store.
//!
//! Crash argument: files only grow, by [`BlockStore::append`], which is
//! durable when it returns. A group counts when its last block is there and
//! the chain up to it is unbroken, so whatever a crash cuts off was not yet
//! reported as done. A snapshot is one group and counts by the same rule; its
//! journal is made after it, and what both replace is deleted after both were
//! read back.

use super::database::{Database, Head};
use super::history::{self, timestamp};
use super::queries::ROOT;
use super::{CatalogError, CatalogResult};
use crate::base::ArchiveId;
use crate::format::journal::{
    BLOCK_LEN, Block, ChainHead, FileKind, GroupEncoder, Record, RecordAssembler, parse_file_header, place_after,
    put_file_header,
};
use crate::format::{FormatError, layout};
use crate::store::{BlockStore, StoreError, StoreErrorKind, StoreKey, StoredFile};
use std::sync::Arc;

/// Bytes that are collected before they are appended.
const APPEND_CHUNK: usize = 4 << 20;
/// Bytes read at once.
const READ_CHUNK: usize = 1 << 20;

/// The catalog's files on one store.
#[derive(Debug, Clone)]
pub(super) struct Replica {
    store: Arc<dyn BlockStore>,
    archive: ArchiveId,
}

/// A complete group in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// First byte in the file.
    pub(super) offset: u64,
    /// Bytes.
    pub(super) length: u64,
    /// The place in the chain before it.
    pub(super) before: ChainHead,
    /// The place in the chain after it.
    pub(super) after: ChainHead,
}

/// What a file holds.
#[derive(Debug, Clone)]
pub(super) struct Scan {
    pub(super) kind: FileKind,
    pub(super) start: u64,
    /// The places before and after the header; `None` when the header is bad.
    pub(super) header: Option<(ChainHead, ChainHead)>,
    /// All complete groups.
    pub(super) spans: Vec<Span>,
    /// How many of them are linked to the header without a gap.
    pub(super) linked: usize,
    /// The first thing that is wrong, and where.
    pub(super) fault: Option<String>,
}

impl Scan {
    /// The place up to which everything is linked: bytes, and chain.
    pub(super) fn end(&self) -> Option<Head> {
        let (_, header) = self.header?;
        Some(match self.spans[..self.linked].last() {
            Some(span) => Head { file: self.start, length: span.offset + span.length, chain: span.after },
            None => Head { file: self.start, length: BLOCK_LEN as u64, chain: header },
        })
    }

    /// Whether groups stand behind a fault: damage, not a write that a crash cut off.
    pub(super) fn is_damaged(&self) -> bool {
        self.header.is_none() || self.linked < self.spans.len()
    }

    /// Whether it is a snapshot of which all blocks are good.
    pub(super) fn is_whole_snapshot(&self) -> bool {
        self.kind == FileKind::Snapshot && self.linked == 1 && self.spans.len() == 1
    }
}

impl Replica {
    pub(super) fn new(store: Arc<dyn BlockStore>, archive: ArchiveId) -> Self {
        Self { store, archive }
    }

    fn key(&self, name: &str) -> CatalogResult<StoreKey> {
        StoreKey::new(format!("{}/{name}", layout::CATALOG_DIR))
            .map_err(|error| StoreError::bad_key(self.store.label(), error).into())
    }

    /// The key of a file, for messages and events.
    pub(super) fn file_key(kind: FileKind, start: u64) -> String {
        format!("{}/{}", layout::CATALOG_DIR, kind.file_name(start))
    }

    /// All files of the catalog: kind and place in the chain, ascending.
    pub(super) fn files(&self) -> CatalogResult<Vec<(FileKind, u64)>> {
        let prefix = StoreKey::new(layout::CATALOG_DIR)
            .map_err(|error| CatalogError::from(StoreError::bad_key(self.store.label(), error)))?;
        let names = self.store.list(Some(&prefix))?;
        let mut files: Vec<_> = names.iter().filter_map(|listed| FileKind::parse_file_name(&listed.name)).collect();
        files.sort_by_key(|&(kind, start)| (start, kind));
        Ok(files)
    }

    /// Refuses files of a later version.
    ///
    /// Error: `Newer`. What cannot be read is no error here.
    pub(super) fn refuse_newer(&self) -> CatalogResult<()> {
        for (kind, start) in self.files()? {
            let Ok(file) = self.store.open(&self.key(&kind.file_name(start))?) else { continue };
            let mut bytes = vec![0; BLOCK_LEN];
            if file.read_at(0, &mut bytes).is_err() {
                continue;
            }
            let Ok(block) = Block::parse(&bytes) else { continue };
            if let Err(FormatError::Version { found, known, .. }) = parse_file_header(block.payload)
                && block.header
                && found > known
            {
                let what = format!("its version is {found}, this program knows {known}");
                return Err(CatalogError::Newer { place: Self::file_key(kind, start), what });
            }
        }
        Ok(())
    }

    /// Length of a file; `None` when it is missing.
    pub(super) fn length(&self, kind: FileKind, start: u64) -> CatalogResult<Option<u64>> {
        match self.store.open(&self.key(&kind.file_name(start))?) {
            Ok(file) => Ok(Some(file.len())),
            Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the journal ends exactly at `head`: same length, and its last
    /// block is the one that the chain names. Costs one small read.
    pub(super) fn ends_at(&self, head: &Head) -> CatalogResult<bool> {
        if self.files()?.iter().any(|&(kind, start)| kind == FileKind::Journal && start > head.file) {
            return Ok(false);
        }
        let file = match self.store.open(&self.key(&FileKind::Journal.file_name(head.file))?) {
            Ok(file) => file,
            Err(error) if error.kind() == StoreErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let Some(at) = head.length.checked_sub(BLOCK_LEN as u64) else { return Ok(false) };
        let mut last = vec![0; BLOCK_LEN];
        if file.len() != head.length || file.read_at(at, &mut last).is_err() {
            return Ok(false);
        }
        Ok(Block::parse(&last).is_ok_and(|block| place_after(&block, &last) == head.chain))
    }

    /// Reads a file through and tells what it holds. Damage is part of the answer.
    pub(super) fn scan(&self, kind: FileKind, start: u64) -> CatalogResult<Scan> {
        let file = self.store.open(&self.key(&kind.file_name(start))?)?;
        let mut scanner = Scanner::new(self.archive, kind, start);
        read_blocks(&*file, 0, file.len(), &mut |offset, bytes| scanner.take(offset, bytes));
        Ok(scanner.scan)
    }

    /// Hands out the records of a group.
    pub(super) fn replay(
        &self,
        kind: FileKind,
        start: u64,
        span: &Span,
        take: &mut dyn FnMut(Record) -> CatalogResult<()>,
    ) -> CatalogResult<()> {
        let file = self.store.open(&self.key(&kind.file_name(start))?)?;
        let mut records = RecordAssembler::default();
        let mut at = span.before;
        let mut outcome = Ok(());
        read_blocks(&*file, span.offset, span.length, &mut |_, bytes| {
            if outcome.is_err() {
                return;
            }
            outcome = Block::parse(bytes).map_err(CatalogError::from).and_then(|block| {
                if block.place != at {
                    return Err(FormatError::Checksum { what: "catalog journal" }.into());
                }
                at = place_after(&block, bytes);
                records.push(block.payload, take)
            });
        });
        outcome?;
        if at != span.after {
            return Err(FormatError::Truncated { what: "catalog journal", at: span.offset }.into());
        }
        Ok(records.finish()?)
    }

    /// A group that continues the journal at `head`; what stands behind `head` is cut.
    pub(super) fn begin_group(&self, head: Head) -> CatalogResult<GroupWriter<'_>> {
        Ok(GroupWriter {
            replica: self,
            key: self.key(&FileKind::Journal.file_name(head.file))?,
            encoder: GroupEncoder::new(FileKind::Journal, head.chain),
            buffer: Vec::new(),
            head,
            at: head.length,
        })
    }

    /// Writes the database's state as a snapshot that continues the chain at
    /// `chain`, and an empty journal after it. Returns where that ends, and
    /// the snapshot's length. Older files stay.
    pub(super) fn write_snapshot(&self, database: &Database, chain: ChainHead) -> CatalogResult<(Head, u64)> {
        let start = chain.sequence;
        let key = self.key(&FileKind::Snapshot.file_name(start))?;
        let mut buffer = Vec::new();
        let after_header = put_file_header(FileKind::Snapshot, self.archive, chain, &mut buffer);
        let head = Head { file: start, length: 0, chain: after_header };
        let mut writer = GroupWriter {
            replica: self,
            key,
            encoder: GroupEncoder::new(FileKind::Snapshot, after_header),
            buffer,
            head,
            at: 0,
        };
        dump(database, &mut |record| writer.push(&record))?;
        let snapshot = writer.finish()?;
        if !self.scan(FileKind::Snapshot, start)?.is_whole_snapshot() {
            let key = self.key(&FileKind::Snapshot.file_name(start))?;
            return Err(StoreError::new(StoreErrorKind::Io, "read back", self.store.label(), key).into());
        }
        let mut header = Vec::new();
        let chain = put_file_header(FileKind::Journal, self.archive, chain, &mut header);
        let key = self.key(&FileKind::Journal.file_name(start))?;
        self.store.append(&key, 0, &header)?;
        Ok((Head { file: start, length: header.len() as u64, chain }, snapshot.length))
    }

    /// Deletes the files that `start` replaces, and those of a branch that lost.
    pub(super) fn delete_all_but(&self, start: u64) -> CatalogResult<()> {
        for (kind, other) in self.files()? {
            if other != start {
                self.store.delete(&self.key(&kind.file_name(other))?)?;
            }
        }
        Ok(())
    }
}

/// Appends the blocks of one group as they become full.
#[derive(Debug)]
pub(super) struct GroupWriter<'r> {
    replica: &'r Replica,
    key: StoreKey,
    encoder: GroupEncoder,
    buffer: Vec<u8>,
    head: Head,
    at: u64,
}

impl GroupWriter<'_> {
    pub(super) fn push(&mut self, record: &Record) -> CatalogResult<()> {
        self.encoder.push(record, &mut self.buffer)?;
        if self.buffer.len() >= APPEND_CHUNK {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> CatalogResult<()> {
        self.replica.store.append(&self.key, self.at, &self.buffer)?;
        self.at += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Ends the group: afterwards it counts. Returns the new end.
    pub(super) fn finish(mut self) -> CatalogResult<Head> {
        let encoder = std::mem::replace(&mut self.encoder, GroupEncoder::new(FileKind::Journal, ChainHead::START));
        let chain = encoder.finish(&mut self.buffer);
        if let Err(error) = self.flush() {
            // Some of it, even all, may stand there: nobody was told that it counts.
            self.take_back();
            return Err(error);
        }
        Ok(Head { file: self.head.file, length: self.at, chain })
    }

    /// Gives back what was appended already. Nothing of it counts anyway.
    pub(super) fn abandon(self) {
        if self.at > self.head.length {
            self.take_back();
        }
    }

    fn take_back(&self) {
        if self.head.length > 0
            && let Err(error) = self.replica.store.append(&self.key, self.head.length, &[])
        {
            tracing::warn!("the space of an abandoned change is not given back yet: {error}");
        }
    }
}

/// Calls `take` with every block of a range of a file; a piece that cannot be
/// read is handed on as zeros, which no block is.
fn read_blocks(file: &dyn StoredFile, offset: u64, length: u64, take: &mut dyn FnMut(u64, &[u8])) {
    let mut buffer = vec![0; READ_CHUNK];
    let end = offset.saturating_add(length).min(file.len());
    let mut at = offset;
    while at < end {
        let len = (end - at).min(READ_CHUNK as u64) as usize;
        let chunk = &mut buffer[..len];
        if file.read_at(at, chunk).is_err() {
            for (number, block) in chunk.chunks_mut(BLOCK_LEN).enumerate() {
                if file.read_at(at + (number * BLOCK_LEN) as u64, block).is_err() {
                    block.fill(0);
                }
            }
        }
        for (number, block) in chunk.chunks(BLOCK_LEN).enumerate() {
            take(at + (number * BLOCK_LEN) as u64, block);
        }
        at += len as u64;
    }
}

struct Scanner {
    archive: ArchiveId,
    scan: Scan,
    /// The place that the next block must have; unknown behind a bad block.
    expected: Option<ChainHead>,
    /// The group that is open: offset, and the place before it.
    open: Option<(u64, ChainHead)>,
    /// Whether everything so far is linked.
    unbroken: bool,
}

impl Scanner {
    fn new(archive: ArchiveId, kind: FileKind, start: u64) -> Self {
        let scan = Scan { kind, start, header: None, spans: Vec::new(), linked: 0, fault: None };
        Self { archive, scan, expected: None, open: None, unbroken: true }
    }

    fn fault(&mut self, offset: u64, what: impl std::fmt::Display) {
        self.unbroken = false;
        self.expected = None;
        self.open = None;
        self.scan.fault.get_or_insert_with(|| format!("byte {offset}: {what}"));
    }

    fn take(&mut self, offset: u64, bytes: &[u8]) {
        let block = match Block::parse(bytes) {
            Ok(block) => block,
            Err(error) => return self.fault(offset, error),
        };
        if offset == 0 {
            return self.take_header(&block, bytes);
        }
        if block.header || block.kind != self.scan.kind {
            return self.fault(offset, "a block of another file");
        }
        if self.expected.is_some_and(|expected| expected != block.place) {
            self.fault(offset, "the chain is broken");
        }
        if block.first {
            if self.open.is_some() {
                self.fault(offset, "a group has no end");
            }
            self.open = Some((offset, block.place));
        } else if self.open.is_none() && self.unbroken {
            return self.fault(offset, "a group has no beginning");
        }
        let after = place_after(&block, bytes);
        self.expected = Some(after);
        if block.last
            && let Some((start, before)) = self.open.take()
        {
            let length = offset + BLOCK_LEN as u64 - start;
            self.scan.spans.push(Span { offset: start, length, before, after });
            if self.unbroken {
                self.scan.linked = self.scan.spans.len();
            }
        }
    }

    fn take_header(&mut self, block: &Block<'_>, bytes: &[u8]) {
        let owner = parse_file_header(block.payload);
        match owner {
            Err(error) => self.fault(0, error),
            Ok(owner) if owner != self.archive => self.fault(0, "it belongs to another archive"),
            Ok(_) if !block.header || block.kind != self.scan.kind || block.place.sequence != self.scan.start => {
                self.fault(0, "its first block is of another file");
            }
            Ok(_) => {
                let after = place_after(block, bytes);
                self.scan.header = Some((block.place, after));
                self.expected = Some(after);
            }
        }
    }
}

/// Calls `take` with the records that make the database's state from nothing:
/// objects with their contents, nodes, names, what is staged, what was.
fn dump(database: &Database, take: &mut dyn FnMut(Record) -> CatalogResult<()>) -> CatalogResult<()> {
    let mut after = String::new();
    loop {
        let page = database.object_page(&after, 256)?;
        let Some((_, last)) = page.last() else { break };
        after = last.name.as_str().to_string();
        for (id, facts) in page {
            take(Record::Object(facts))?;
            for (hash, offset, size, source) in database.members(id)? {
                take(Record::Member { hash, offset, size, source })?;
            }
        }
    }
    // Many rows in a row are of one time: it is said when it changes.
    let mut time = 0;
    let mut at = |since: i64, take: &mut dyn FnMut(Record) -> CatalogResult<()>| {
        if std::mem::replace(&mut time, since) == since { Ok(()) } else { take(Record::Time(timestamp(since))) }
    };
    let mut after = 0;
    loop {
        let page = database.node_page(after, 1024)?;
        let Some((last, ..)) = page.last() else { break };
        after = *last;
        for (ino, since, (meta, body)) in page {
            at(since, take)?;
            take(Record::Inode { node: ino as u64, meta, body })?;
        }
    }
    let mut after = (ROOT - 1, Vec::new());
    loop {
        let page = database.dirent_page(after.0, &after.1, 1024)?;
        let Some((parent, name, ..)) = page.last() else { break };
        after = (*parent, name.clone());
        for (parent, name, ino, since) in page {
            at(since, take)?;
            take(Record::Dirent { parent: parent as u64, name, node: ino as u64 })?;
        }
    }
    for (ino, content) in database.staged()? {
        take(Record::Staged { node: ino as u64, content })?;
    }
    if let Some(begin) = database.history_begin()? {
        take(Record::HistoryRemoved { before: timestamp(begin) })?;
    }
    history::dump(database, take)?;
    take(Record::NextInode(database.counters()?.next_inode as u64))
}
