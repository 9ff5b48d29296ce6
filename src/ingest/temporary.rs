//! Temporary files on the store. In an encrypted archive they are sealed.
//!
//! A sealed one is a row of frames: 16 KiB (the last one less, perhaps
//! nothing), and the tag. The cipher is the archive's, the key the file's own,
//! derived from its random name; the nonce is the frame's number, and whether
//! it is the last is authenticated with it. So frames are not exchanged, left
//! out, or cut off unnoticed, and whoever has the archive's keys can read the
//! file: the daemon reads what a command wrote.

use crate::archive::Archive;
use crate::base::{Secret, StoreId};
use crate::catalog::{CatalogError, CatalogResult};
use crate::codec::seal::{CipherSuite, FrameCipher, Nonce, TAG_LEN, frame_cipher};
use crate::format::{FormatError, layout};
use crate::keys::Purpose;
use crate::store::{BlockStore, StagedFile, StoreError, StoreKey, StoreResult, StoredFile};
use std::sync::Arc;

const WHAT: &str = "temporary file";
/// Plain bytes of a frame.
const FRAME: usize = 16 * 1024;
const SEALED_FRAME: usize = FRAME + TAG_LEN;
/// Bytes that are written at once.
pub(super) const CHUNK: usize = 256 * 1024;

/// What the name of such a file begins with.
const PREFIX: &str = "spool-";

/// With what the temporary files of an encrypted archive are sealed.
#[derive(Debug, Clone)]
pub struct SpoolKeys {
    key: Secret<32>,
    suite: CipherSuite,
}

impl SpoolKeys {
    /// Those of an archive; `None` when it is not encrypted.
    ///
    /// Error: `NoKeys` when it is, and was opened without them.
    pub fn of(archive: &Archive) -> CatalogResult<Option<Self>> {
        let Some(suite) = archive.descriptor().encryption else { return Ok(None) };
        let keys = archive.keys().ok_or(CatalogError::NoKeys)?;
        Ok(Some(Self { key: keys.derive(Purpose::Spool), suite }))
    }

    fn cipher(&self, file: &StoreKey) -> Arc<dyn FrameCipher> {
        let mut hasher = blake3::Hasher::new_derive_key("blockframe 1 spool file");
        hasher.update(self.key.expose()).update(file.as_str().as_bytes());
        frame_cipher(self.suite, &Secret::filled_by(|key| hasher.finalize_xof().fill(key)))
    }
}

/// Where temporary files are made, and how.
#[derive(Debug, Clone)]
pub struct Spools {
    store: Arc<dyn BlockStore>,
    keys: Option<SpoolKeys>,
}

impl Spools {
    /// On a store; with keys, sealed.
    pub fn new(store: Arc<dyn BlockStore>, keys: Option<SpoolKeys>) -> Self {
        Self { store, keys }
    }

    /// Those of an archive. Error: as [`SpoolKeys::of`].
    pub fn of(archive: &Archive) -> CatalogResult<Self> {
        Ok(Self::new(archive.store().clone(), SpoolKeys::of(archive)?))
    }

    fn cipher(&self, file: &StoreKey) -> Option<Arc<dyn FrameCipher>> {
        self.keys.as_ref().map(|keys| keys.cipher(file))
    }

    /// Opens a file that another process wrote. Error for what is no key of such a file.
    pub(super) fn open(&self, key: &StoreKey) -> CatalogResult<TemporaryReader> {
        let name = key.as_str().strip_prefix(layout::TMP_DIR).and_then(|rest| rest.strip_prefix('/'));
        if !name.is_some_and(|name| name.starts_with(PREFIX) && !name.contains('/')) {
            return Err(FormatError::invalid(WHAT, format!("{key} is no file of entries")).into());
        }
        TemporaryReader::new(self.store.open(key)?, self.cipher(key))
    }
}

/// A temporary file, deleted when dropped. A crash leaves it in the store's
/// directory of temporary files, where `gc` finds it.
#[derive(Debug)]
pub(super) struct Temporary {
    spools: Spools,
    key: StoreKey,
}

impl Temporary {
    /// The key under which [`Spools::open`] finds it.
    pub(super) fn key(&self) -> &StoreKey {
        &self.key
    }

    pub(super) fn open(&self) -> CatalogResult<TemporaryReader> {
        self.spools.open(&self.key)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = self.spools.store.delete(&self.key) {
            tracing::warn!(key = %self.key, %error, "a temporary file is left; `blockframe gc` removes it");
        }
    }
}

fn nonce(frame: u64) -> Nonce {
    let mut nonce = Nonce::default();
    nonce[..8].copy_from_slice(&frame.to_le_bytes());
    nonce
}

/// What is authenticated with a frame.
fn context(last: bool) -> &'static [u8] {
    if last { b"last" } else { b"more" }
}

/// Writes a temporary file from its beginning to its end.
#[derive(Debug)]
pub(super) struct TemporaryWriter {
    temporary: Temporary,
    file: Arc<dyn StagedFile>,
    cipher: Option<Arc<dyn FrameCipher>>,
    /// Plain bytes that are not in the file yet.
    buffer: Vec<u8>,
    /// Frames written.
    frames: u64,
    written: u64,
}

impl TemporaryWriter {
    pub(super) fn create(spools: &Spools) -> StoreResult<Self> {
        let key = StoreKey::new(format!("{}/{PREFIX}{}", layout::TMP_DIR, StoreId::random()))
            .map_err(|error| StoreError::bad_key(spools.store.label(), error))?;
        let file = spools.store.create(&key)?;
        let cipher = spools.cipher(&key);
        let temporary = Temporary { spools: spools.clone(), key };
        Ok(Self { temporary, file, cipher, buffer: Vec::new(), frames: 0, written: 0 })
    }

    /// Appends what `append` adds to the vector; what is in there already is to stay.
    pub(super) fn append(&mut self, append: impl FnOnce(&mut Vec<u8>)) -> StoreResult<()> {
        append(&mut self.buffer);
        if self.buffer.len() < CHUNK {
            return Ok(());
        }
        // Which frame is the last is not known before the end: something stays.
        let keep = if self.cipher.is_some() { (self.buffer.len() - 1) % FRAME + 1 } else { 0 };
        let rest = self.buffer.split_off(self.buffer.len() - keep);
        self.flush(false)?;
        self.buffer = rest;
        Ok(())
    }

    /// Writes the buffer. Before the end it holds whole frames.
    fn flush(&mut self, last: bool) -> StoreResult<()> {
        let plain = std::mem::take(&mut self.buffer);
        let Some(cipher) = &self.cipher else {
            self.file.write_at(self.written, &plain)?;
            self.written += plain.len() as u64;
            return Ok(());
        };
        let mut sealed = Vec::with_capacity((plain.len() / FRAME + 1) * SEALED_FRAME);
        let mut rest = &plain[..];
        loop {
            let (frame, behind) = rest.split_at(rest.len().min(FRAME));
            let is_last = last && behind.is_empty();
            let start = sealed.len();
            sealed.extend_from_slice(frame);
            let tag = cipher.seal(&nonce(self.frames), context(is_last), &mut sealed[start..]);
            sealed.extend_from_slice(&tag);
            self.frames += 1;
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        self.file.write_at(self.written, &sealed)?;
        self.written += sealed.len() as u64;
        Ok(())
    }

    /// All is written.
    pub(super) fn finish(mut self) -> StoreResult<Temporary> {
        self.flush(true)?;
        Ok(self.temporary)
    }
}

/// Reads a temporary file.
#[derive(Debug)]
pub(super) struct TemporaryReader {
    file: Arc<dyn StoredFile>,
    cipher: Option<Arc<dyn FrameCipher>>,
    len: u64,
}

fn forged() -> FormatError {
    let why = "it was changed since it was written, or with the keys of another archive; repeat the command";
    FormatError::invalid(WHAT, why.to_owned())
}

impl TemporaryReader {
    fn new(file: Arc<dyn StoredFile>, cipher: Option<Arc<dyn FrameCipher>>) -> CatalogResult<Self> {
        let stored = file.len();
        let (sealed, tag) = (SEALED_FRAME as u64, TAG_LEN as u64);
        let len = match &cipher {
            None => stored,
            // A last frame is there in any case, and is no tag without its end.
            Some(_) if stored == 0 || (1..tag).contains(&(stored % sealed)) => return Err(forged().into()),
            Some(_) => stored - stored.div_ceil(sealed) * tag,
        };
        let reader = Self { file, cipher, len };
        if reader.cipher.is_some() {
            reader.read_frames(reader.last_frame(), reader.last_frame())?;
        }
        Ok(reader)
    }

    /// Plain bytes.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    fn last_frame(&self) -> u64 {
        (self.file.len() - 1) / SEALED_FRAME as u64
    }

    /// Fills `buffer` from `offset`.
    pub(super) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> CatalogResult<()> {
        if self.cipher.is_none() || buffer.is_empty() {
            return Ok(self.file.read_at(offset, buffer)?);
        }
        let end = offset.checked_add(buffer.len() as u64).filter(|&end| end <= self.len);
        let end = end.ok_or(FormatError::Truncated { what: WHAT, at: self.len })?;
        let (first, last) = (offset / FRAME as u64, (end - 1) / FRAME as u64);
        let plain = self.read_frames(first, last)?;
        let skipped = (offset - first * FRAME as u64) as usize;
        buffer.copy_from_slice(&plain[skipped..skipped + buffer.len()]);
        Ok(())
    }

    /// The plain bytes of frames, the second one included.
    fn read_frames(&self, first: u64, last: u64) -> CatalogResult<Vec<u8>> {
        let Some(cipher) = &self.cipher else { return Ok(Vec::new()) };
        let start = first * SEALED_FRAME as u64;
        let end = self.file.len().min((last + 1) * SEALED_FRAME as u64);
        let mut sealed = vec![0; (end - start) as usize];
        self.file.read_at(start, &mut sealed)?;
        let mut plain = Vec::with_capacity(sealed.len());
        for (number, frame) in (first..).zip(sealed.chunks_mut(SEALED_FRAME)) {
            let (bytes, tag) = frame.split_last_chunk_mut::<TAG_LEN>().ok_or_else(forged)?;
            let context = context(number == self.last_frame());
            cipher.open(&nonce(number), context, bytes, tag).map_err(|_| forged())?;
            plain.extend_from_slice(bytes);
        }
        Ok(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    fn keys(byte: u8) -> SpoolKeys {
        SpoolKeys { key: Secret::filled_by(|key| key.fill(byte)), suite: CipherSuite::Aes256Gcm }
    }

    fn spools(keys: Option<SpoolKeys>) -> Spools {
        Spools::new(Arc::new(MemoryStore::new("spools")), keys)
    }

    fn written(spools: &Spools, bytes: &[u8], piece: usize) -> Temporary {
        let mut writer = TemporaryWriter::create(spools).unwrap();
        for piece in bytes.chunks(piece) {
            writer.append(|buffer| buffer.extend_from_slice(piece)).unwrap();
        }
        writer.finish().unwrap()
    }

    fn all(reader: &TemporaryReader) -> CatalogResult<Vec<u8>> {
        let mut bytes = vec![0xEE; reader.len() as usize];
        reader.read_at(0, &mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn what_was_written_is_read_whatever_its_length() {
        for keys in [None, Some(keys(1))] {
            let spools = spools(keys);
            for len in [0, 1, FRAME - 1, FRAME, FRAME + 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 777] {
                let bytes: Vec<u8> = (0..len).map(|at| (at * 31 / 7) as u8).collect();
                for piece in [1000, FRAME, CHUNK, 2 * CHUNK + 1] {
                    let reader = written(&spools, &bytes, piece);
                    let reader = reader.open().unwrap();
                    assert_eq!(reader.len(), len as u64);
                    assert!(all(&reader).unwrap() == bytes, "{len} bytes in pieces of {piece}");
                    for at in (0..len).step_by(9_999) {
                        let mut part = vec![0; (len - at).min(20_000)];
                        reader.read_at(at as u64, &mut part).unwrap();
                        assert!(part == bytes[at..at + part.len()]);
                    }
                    assert!(reader.read_at(len as u64, &mut [0]).is_err());
                }
            }
        }
    }

    fn stored(spools: &Spools, temporary: &Temporary) -> Vec<u8> {
        let file = spools.store.open(temporary.key()).unwrap();
        let mut bytes = vec![0; file.len() as usize];
        file.read_at(0, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_sealed_file_shows_nothing_and_every_change_of_it_is_noticed() {
        let spools = spools(Some(keys(1)));
        let plain = b"MARKER readable!".repeat(3 * FRAME / 16);
        let temporary = written(&spools, &plain, 1000);
        let good = stored(&spools, &temporary);
        assert!(!good.windows(16).any(|window| window == b"MARKER readable!"));
        let with = |bytes: &[u8]| {
            let file = spools.store.create(temporary.key()).unwrap();
            file.write_at(0, bytes).unwrap();
            temporary.open().and_then(|reader| all(&reader))
        };
        for at in (0..good.len()).step_by(97).chain([good.len() - 1]) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(with(&bad).is_err(), "byte {at}");
        }
        for len in [0, 1, 15, 16, SEALED_FRAME, SEALED_FRAME + 5, 2 * SEALED_FRAME, good.len() - 1] {
            assert!(with(&good[..len]).is_err(), "cut to {len}");
        }
        let (first, rest) = good.split_at(SEALED_FRAME);
        let (second, third) = rest.split_at(SEALED_FRAME);
        assert!(with(&[second, first, third].concat()).is_err());
        assert!(with(&[first, second, second, third].concat()).is_err());
        assert!(with(&good).unwrap() == plain);
    }

    #[test]
    fn another_file_and_another_archive_have_another_key() {
        let spools = spools(Some(keys(1)));
        let [first, second] = [(); 2].map(|()| written(&spools, b"the same", 8));
        assert_ne!(stored(&spools, &first), stored(&spools, &second));
        let others = Spools::new(spools.store.clone(), Some(keys(2)));
        assert!(others.open(first.key()).is_err());
        assert_eq!(all(&spools.open(first.key()).unwrap()).unwrap(), b"the same");
    }
}
