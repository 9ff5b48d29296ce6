//! Temporary files on the store: entries on their way into the catalog, and
//! standard input on its way into an object.

use super::{IngestError, IngestResult};
use crate::archive::ContentSource;
use crate::base::{ContentHash, StoreId};
use crate::catalog::CatalogResult;
use crate::format::binary::Reader;
use crate::format::journal::MAX_RECORD;
use crate::format::{Entry, FormatError, layout};
use crate::store::{BlockStore, StagedFile, StoreError, StoreKey, StoreResult, StoredFile};
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const WHAT: &str = "spooled entry";
const CHUNK: usize = 256 * 1024;

/// What the name of such a file begins with.
const PREFIX: &str = "spool-";

/// A temporary file, deleted when dropped. A crash leaves it in the store's
/// directory of temporary files, where `gc` finds it.
#[derive(Debug)]
struct Temporary {
    store: Arc<dyn BlockStore>,
    key: StoreKey,
}

impl Temporary {
    fn create(store: &Arc<dyn BlockStore>) -> StoreResult<(Self, Arc<dyn StagedFile>)> {
        let key = StoreKey::new(format!("{}/{PREFIX}{}", layout::TMP_DIR, StoreId::random()))
            .map_err(|error| StoreError::bad_key(store.label(), error))?;
        let file = store.create(&key)?;
        Ok((Self { store: Arc::clone(store), key }, file))
    }

    fn open(&self) -> StoreResult<Arc<dyn StoredFile>> {
        self.store.open(&self.key)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = self.store.delete(&self.key) {
            tracing::warn!(key = %self.key, %error, "a temporary file is left; `blockframe gc` removes it");
        }
    }
}

/// A list of entries in a file, so that memory does not grow with the tree.
#[derive(Debug)]
pub(crate) struct EntrySpool {
    temporary: Temporary,
    file: Arc<dyn StagedFile>,
    buffer: Vec<u8>,
    written: u64,
    count: u64,
}

impl EntrySpool {
    /// An empty list.
    pub(crate) fn create(store: &Arc<dyn BlockStore>) -> StoreResult<Self> {
        let (temporary, file) = Temporary::create(store)?;
        Ok(Self { temporary, file, buffer: Vec::new(), written: 0, count: 0 })
    }

    /// Number of entries.
    pub(super) fn len(&self) -> u64 {
        self.count
    }

    /// Appends an entry: its length (u32) and its bytes.
    pub(crate) fn push(&mut self, entry: &Entry) -> StoreResult<()> {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0; 4]);
        entry.encode(&mut self.buffer);
        let len = (self.buffer.len() - start - 4) as u32;
        self.buffer[start..start + 4].copy_from_slice(&len.to_le_bytes());
        self.count += 1;
        if self.buffer.len() >= CHUNK { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> StoreResult<()> {
        self.file.write_at(self.written, &self.buffer)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// All entries, in order.
    pub(super) fn into_entries(mut self) -> StoreResult<SpooledEntries> {
        self.flush()?;
        let file = self.temporary.open()?;
        Ok(SpooledEntries {
            file,
            _temporary: Some(self.temporary),
            end: self.written,
            at: 0,
            buffer: Vec::new(),
            used: 0,
        })
    }

    /// The file's key, once all entries are in it, for another process to read them.
    pub(crate) fn written(&mut self) -> StoreResult<&StoreKey> {
        self.flush()?;
        Ok(&self.temporary.key)
    }
}

/// Reads an [`EntrySpool`].
#[derive(Debug)]
pub(crate) struct SpooledEntries {
    file: Arc<dyn StoredFile>,
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
    /// The entries that another process wrote. Error for what is no key of such a file.
    pub(crate) fn open(store: &Arc<dyn BlockStore>, key: &StoreKey) -> CatalogResult<Self> {
        let name = key.as_str().strip_prefix(layout::TMP_DIR).and_then(|rest| rest.strip_prefix('/'));
        if !name.is_some_and(|name| name.starts_with(PREFIX) && !name.contains('/')) {
            return Err(FormatError::invalid(WHAT, format!("{key} is no file of entries")).into());
        }
        let file = store.open(key)?;
        let end = file.len();
        Ok(Self { file, _temporary: None, end, at: 0, buffer: Vec::new(), used: 0 })
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
    file: Arc<dyn StoredFile>,
    _temporary: Temporary,
    len: u64,
    hash: ContentHash,
}

impl Spool {
    /// Reads a stream to its end, or until `cancel` is set.
    pub fn fill(store: &Arc<dyn BlockStore>, stream: &mut dyn Read, cancel: &AtomicBool) -> IngestResult<Self> {
        let (temporary, file) = Temporary::create(store)?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; CHUNK];
        let mut len = 0;
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
            file.write_at(len, &buffer[..count])?;
            len += count as u64;
        }
        Ok(Self { file: temporary.open()?, _temporary: temporary, len, hash: hasher.finalize().into() })
    }

    /// BLAKE3 of the stream.
    pub fn hash(&self) -> ContentHash {
        self.hash
    }
}

impl ContentSource for Spool {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, buffer).map_err(io::Error::other)
    }
}
