//! What is kept in temporary files: entries on their way into the catalog, and
//! standard input on its way into an object.

use super::temporary::{CHUNK, Spools, Temporary, TemporaryReader, TemporaryWriter};
use super::{IngestError, IngestResult};
use crate::archive::ContentSource;
use crate::base::ContentHash;
use crate::catalog::CatalogResult;
use crate::format::binary::Reader;
use crate::format::journal::MAX_RECORD;
use crate::format::{Entry, FormatError};
use crate::store::{StoreKey, StoreResult};
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};

const WHAT: &str = "spooled entry";

/// A list of entries in a file, so that memory does not grow with the tree.
#[derive(Debug)]
pub(crate) struct EntrySpool {
    writer: TemporaryWriter,
    count: u64,
}

impl EntrySpool {
    /// An empty list.
    pub(crate) fn create(spools: &Spools) -> StoreResult<Self> {
        Ok(Self { writer: TemporaryWriter::create(spools)?, count: 0 })
    }

    /// Number of entries.
    pub(super) fn len(&self) -> u64 {
        self.count
    }

    /// Appends an entry: its length (u32) and its bytes.
    pub(crate) fn push(&mut self, entry: &Entry) -> StoreResult<()> {
        self.count += 1;
        self.writer.append(|buffer| {
            let start = buffer.len();
            buffer.extend_from_slice(&[0; 4]);
            entry.encode(buffer);
            let len = (buffer.len() - start - 4) as u32;
            buffer[start..start + 4].copy_from_slice(&len.to_le_bytes());
        })
    }

    /// All entries, in order.
    pub(super) fn into_entries(self) -> CatalogResult<SpooledEntries> {
        let temporary = self.writer.finish()?;
        let mut entries = SpooledEntries::of(temporary.open()?);
        entries._temporary = Some(temporary);
        Ok(entries)
    }

    /// The file with all entries in it, for another process to read them.
    pub(crate) fn written(self) -> StoreResult<WrittenEntries> {
        Ok(WrittenEntries(self.writer.finish()?))
    }
}

/// A list of entries that is complete. Deleted when dropped.
#[derive(Debug)]
pub(crate) struct WrittenEntries(Temporary);

impl WrittenEntries {
    /// The file's key, for [`SpooledEntries::open`].
    pub(crate) fn key(&self) -> &StoreKey {
        self.0.key()
    }
}

/// Reads an [`EntrySpool`].
#[derive(Debug)]
pub(crate) struct SpooledEntries {
    file: TemporaryReader,
    /// None when it is another process's.
    _temporary: Option<Temporary>,
    end: u64,
    /// First byte that is not in `buffer` yet.
    at: u64,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were given out.
    used: usize,
}

impl SpooledEntries {
    fn of(file: TemporaryReader) -> Self {
        let end = file.len();
        Self { file, _temporary: None, end, at: 0, buffer: Vec::new(), used: 0 }
    }

    /// The entries that another process wrote. Error for what is no key of such a file.
    pub(crate) fn open(spools: &Spools, key: &StoreKey) -> CatalogResult<Self> {
        Ok(Self::of(spools.open(key)?))
    }

    /// Makes the buffer hold `len` bytes more than were used.
    fn fill(&mut self, len: usize) -> CatalogResult<()> {
        if self.buffer.len() - self.used >= len {
            return Ok(());
        }
        self.buffer.drain(..self.used);
        self.used = 0;
        let kept = self.buffer.len();
        let more = (self.end - self.at).min(len.max(CHUNK) as u64) as usize;
        self.buffer.resize(kept + more, 0);
        self.file.read_at(self.at, &mut self.buffer[kept..])?;
        self.at += more as u64;
        if self.buffer.len() < len {
            return Err(FormatError::Truncated { what: WHAT, at: self.end }.into());
        }
        Ok(())
    }

    fn take(&mut self, len: usize) -> CatalogResult<&[u8]> {
        self.fill(len)?;
        let bytes = &self.buffer[self.used..self.used + len];
        self.used += len;
        Ok(bytes)
    }

    fn read_entry(&mut self) -> CatalogResult<Entry> {
        let len = Reader::new(WHAT, self.take(4)?).u32()? as usize;
        if len > MAX_RECORD {
            return Err(FormatError::invalid(WHAT, format!("an entry of {len} bytes is too long")).into());
        }
        let mut reader = Reader::new(WHAT, self.take(len)?);
        let entry = Entry::decode(&mut reader)?;
        reader.finish()?;
        Ok(entry)
    }
}

impl Iterator for SpooledEntries {
    type Item = CatalogResult<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.used == self.buffer.len() && self.at == self.end {
            return None;
        }
        let entry = self.read_entry();
        if entry.is_err() {
            // Nothing after a bad record can be told apart.
            (self.used, self.at) = (self.buffer.len(), self.end);
        }
        Some(entry)
    }
}

/// A stream of unknown length, kept in a temporary file.
#[derive(Debug)]
pub struct Spool {
    file: TemporaryReader,
    _temporary: Temporary,
    hash: ContentHash,
}

impl Spool {
    /// Reads a stream to its end, or until `cancel` is set.
    pub fn fill(spools: &Spools, stream: &mut dyn Read, cancel: &AtomicBool) -> IngestResult<Self> {
        let mut writer = TemporaryWriter::create(spools)?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; CHUNK];
        loop {
            if cancel.load(Ordering::Relaxed) {
                return Err(IngestError::Interrupted);
            }
            let count = match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(IngestError::Input(error)),
            };
            hasher.update(&buffer[..count]);
            writer.append(|bytes| bytes.extend_from_slice(&buffer[..count]))?;
        }
        let temporary = writer.finish()?;
        Ok(Self { file: temporary.open()?, _temporary: temporary, hash: hasher.finalize().into() })
    }

    /// BLAKE3 of the stream.
    pub fn hash(&self) -> ContentHash {
        self.hash
    }
}

impl ContentSource for Spool {
    fn len(&self) -> u64 {
        self.file.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, buffer).map_err(io::Error::other)
    }
}
