//! The journal and its snapshots on the store.
//!
//! Crash argument: files only grow, by [`BlockStore::append`], which is
//! durable when it returns. A group counts when its last block is there and
//! the chain up to it is unbroken, so whatever a crash cuts off was not yet
//! reported as done. A snapshot is one group and counts by the same rule; its
//! journal is made after it, and what both replace is deleted after both were
//! read back.
//!
//! Of an encrypted archive every block is sealed. A block that does not open
//! with the key of its file's epoch is damage like any other. Without keys
//! blocks, groups and chain are verified all the same; the records stay closed.

use super::database::{Database, Head};
use super::history::{self, timestamp};
use super::queries::ROOT;
use super::sealing::{JournalKeys, Opened};
use super::{CatalogError, CatalogResult};
use crate::archive::Archive;
use crate::format::journal::{
    BLOCK_LEN, Block, ChainHead, FileHeader, FileKind, GroupEncoder, Record, RecordAssembler, parse_file_header,
    place_after,
};
use crate::format::{FormatError, layout};
use crate::keys::Epoch;
use crate::store::{BlockStore, StoreError, StoreErrorKind, StoreKey, StoredFile};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes that are collected before they are appended.
const APPEND_CHUNK: usize = 4 << 20;
/// Bytes read at once.
const READ_CHUNK: usize = 1 << 20;

/// The catalog's files on one store.
#[derive(Debug, Clone)]
pub(super) struct Replica {
    store: Arc<dyn BlockStore>,
    keys: JournalKeys,
    /// Number and epoch of the journal that was asked for last.
    epoch: Arc<Mutex<Option<(u64, Epoch)>>>,
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
    /// The epoch whose key opens it; `None` when it is not sealed, or no key was there to try.
    pub(super) epoch: Option<Epoch>,
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
    pub(super) fn new(archive: &Archive) -> Self {
        Self { store: archive.store().clone(), keys: JournalKeys::of(archive), epoch: Arc::default() }
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

    /// Refuses files of a later version, or of an epoch whose key is not
    /// there, and sealed ones where nothing should be.
    ///
    /// Errors: `Newer`, `UnknownEpoch`, `NotPlain`. What cannot be read is no error here.
    pub(super) fn refuse_foreign(&self) -> CatalogResult<()> {
        for (kind, start) in self.files()? {
            let Ok(file) = self.store.open(&self.key(&kind.file_name(start))?) else { continue };
            let mut bytes = vec![0; BLOCK_LEN];
            if file.read_at(0, &mut bytes).is_err() {
                continue;
            }
            let Ok(block) = Block::parse(&bytes) else { continue };
            let place = Self::file_key(kind, start);
            match parse_file_header(block.payload) {
                Err(FormatError::Version { found, known, .. }) if block.header && found > known => {
                    let what = format!("its version is {found}, this program knows {known}");
                    return Err(CatalogError::Newer { place, what });
                }
                Ok(header) if block.header => self.keys.refuse_foreign(&header, place)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// The epoch with whose key a journal is sealed; `None` when it is not sealed, or nothing in it says so.
    pub(super) fn epoch(&self, start: u64) -> CatalogResult<Option<Epoch>> {
        if !self.keys.are_there() {
            return Ok(None);
        }
        let mut known = self.epoch.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, epoch)) = known.filter(|(file, _)| *file == start) {
            return Ok(Some(epoch));
        }
        let header = self.read_block(start, 0)?;
        let epoch = match header.map(|bytes| self.keys.open_header(FileKind::Journal, &bytes)) {
            Some(Ok(opened)) => opened.epoch(),
            _ => self.scan(FileKind::Journal, start)?.spans.first().and_then(|span| span.epoch),
        };
        *known = epoch.map(|epoch| (start, epoch));
        Ok(epoch)
    }

    /// The oldest epoch that a file says it is of; the first, where one does not say it.
    pub(super) fn oldest_epoch(&self) -> CatalogResult<Option<Epoch>> {
        let mut oldest = None;
        if !self.keys.are_there() {
            return Ok(oldest);
        }
        for (kind, start) in self.files()? {
            let bytes = match self.store.open(&self.key(&kind.file_name(start))?) {
                Ok(file) => {
                    let mut bytes = vec![0; BLOCK_LEN];
                    file.read_at(0, &mut bytes).is_ok().then_some(bytes)
                }
                Err(error) if error.kind() == StoreErrorKind::NotFound => continue,
                Err(error) => return Err(error.into()),
            };
            let opened = bytes.and_then(|bytes| self.keys.open_header(kind, &bytes).ok());
            let epoch = opened.and_then(|opened| opened.epoch()).unwrap_or(Epoch::FIRST);
            oldest = Some(oldest.map_or(epoch, |oldest: Epoch| oldest.min(epoch)));
        }
        Ok(oldest)
    }

    /// Whether new groups should not go to this journal: a later epoch has begun, or it does not tell its own.
    pub(super) fn is_outdated(&self, start: u64) -> CatalogResult<bool> {
        match self.keys.current() {
            Some(current) => Ok(self.epoch(start)?.is_none_or(|epoch| epoch < current)),
            None => Ok(false),
        }
    }

    /// The place of a journal's block, if it is authentic.
    pub(super) fn authentic_place(&self, start: u64, bytes: &[u8]) -> CatalogResult<Option<ChainHead>> {
        let Ok(block) = Block::parse(bytes) else { return Ok(None) };
        let authentic = if block.header {
            self.keys.open_header(FileKind::Journal, bytes).is_ok()
        } else {
            self.keys.opened(self.epoch(start)?)?.payload(&block).is_ok()
        };
        Ok(authentic.then_some(block.place))
    }

    /// The block of a journal at an offset; `None` when it cannot be had.
    pub(super) fn read_block(&self, start: u64, offset: u64) -> CatalogResult<Option<Vec<u8>>> {
        let file = match self.store.open(&self.key(&FileKind::Journal.file_name(start))?) {
            Ok(file) => file,
            Err(error) if error.kind() == StoreErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut bytes = vec![0; BLOCK_LEN];
        Ok(file.read_at(offset, &mut bytes).is_ok().then_some(bytes))
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
        let mut scanner = Scanner::new(&self.keys, kind, start);
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
        let opened = self.keys.opened(span.epoch)?;
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
                records.push(&opened.payload(&block)?, take)
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
        let opened = self.keys.opened(self.epoch(head.file)?)?;
        Ok(GroupWriter {
            replica: self,
            key: self.key(&FileKind::Journal.file_name(head.file))?,
            encoder: GroupEncoder::new(FileKind::Journal, head.chain).sealed_by(opened.seal()),
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
        let opened = self.keys.opened(self.keys.current())?;
        let mut buffer = Vec::new();
        let after_header = self.keys.put_header(&opened, FileKind::Snapshot, chain, &mut buffer);
        let head = Head { file: start, length: 0, chain: after_header };
        let mut writer = GroupWriter {
            replica: self,
            key,
            encoder: GroupEncoder::new(FileKind::Snapshot, after_header).sealed_by(opened.seal()),
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
        let chain = self.keys.put_header(&opened, FileKind::Journal, chain, &mut header);
        let key = self.key(&FileKind::Journal.file_name(start))?;
        self.store.append(&key, 0, &header)?;
        *self.epoch.lock().unwrap_or_else(PoisonError::into_inner) = opened.epoch().map(|epoch| (start, epoch));
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

struct Scanner<'k> {
    keys: &'k JournalKeys,
    /// How the file's blocks are opened; unknown while its header is lost and no block was good.
    opened: Option<Opened>,
    scan: Scan,
    /// The place that the next block must have; unknown behind a bad block.
    expected: Option<ChainHead>,
    /// The group that is open: offset, and the place before it.
    open: Option<(u64, ChainHead)>,
    /// Whether everything so far is linked.
    unbroken: bool,
}

impl<'k> Scanner<'k> {
    fn new(keys: &'k JournalKeys, kind: FileKind, start: u64) -> Self {
        let scan = Scan { kind, start, header: None, spans: Vec::new(), linked: 0, fault: None };
        Self { keys, opened: None, scan, expected: None, open: None, unbroken: true }
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
        let authentic = match &self.opened {
            Some(opened) => opened.payload(&block).map(drop),
            None => self.keys.opened_by_trial(&block).map(|opened| self.opened = Some(opened)),
        };
        if let Err(error) = authentic {
            return self.fault(offset, error);
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
            let epoch = self.opened.as_ref().and_then(Opened::epoch);
            self.scan.spans.push(Span { offset: start, length, before, after, epoch });
            if self.unbroken {
                self.scan.linked = self.scan.spans.len();
            }
        }
    }

    fn take_header(&mut self, block: &Block<'_>, bytes: &[u8]) {
        let owner = parse_file_header(block.payload);
        match owner {
            Err(error) => self.fault(0, error),
            Ok(FileHeader { archive, .. }) if archive != self.keys.archive() => {
                self.fault(0, "it belongs to another archive");
            }
            Ok(_) if !block.header || block.kind != self.scan.kind || block.place.sequence != self.scan.start => {
                self.fault(0, "its first block is of another file");
            }
            Ok(_) => match self.keys.open_header(self.scan.kind, bytes) {
                Err(error) => self.fault(0, error),
                Ok(opened) => {
                    let after = place_after(block, bytes);
                    self.opened = Some(opened);
                    self.scan.header = Some((block.place, after));
                    self.expected = Some(after);
                }
            },
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
