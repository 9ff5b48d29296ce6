//! Staging files of an encrypted archive: XTS-AES-256 with a key for each file.
//!
//! A unit of 16 bytes is encrypted as a whole, so a write that covers a part
//! of one reads, decrypts, patches and writes it. Two rules keep that harmless:
//!
//! * No unit holds bytes of a published state together with bytes that may
//!   still be written: [`Rooms`](super::rooms::Rooms) hands room out so. Where
//!   published and new bytes did share a unit, the write of the new ones would
//!   change all 16 bytes of it: the disk's own write, which may go on at that
//!   moment, could carry away half of the old unit and half of the new one,
//!   and so could a reader that takes no lock. So a crash finds every unit of
//!   a published state as it was synced, and what a unit of unpublished bytes
//!   is after a crash is nobody's concern.
//! * Writers of one file exclude each other and those who read unpublished
//!   bytes (by the lock of the file's state), so nobody patches a unit under
//!   another's hands. Readers of frozen states need no lock: see above.
//!
//! **Holes.** What was never written, or punched out, are zeros on the disk,
//! and zeros they read as: a unit of ciphertext zeros is not decrypted. A
//! written unit becomes such zeros with a chance of 2^-128, as large as that
//! of guessing half of the key. The file is as long as the plain one would be,
//! rounded up to a unit; what lies behind the plain one's end is zeros.
//!
//! **Secrecy, not authenticity.** XTS has no room for tags. Who writes to the
//! staging disk can turn units into random bytes, into holes, or into what
//! they were before, and nobody notices until the content is looked at; the
//! map of a long extent list alone is checked against the hash in the journal.
//! What is committed is authenticated from then on. Who sees the disk sees the
//! lengths of staging files, which units were changed, and where holes are.

use super::raw::RawFile;
use super::{StagingError, StagingResult};
use crate::archive::Archive;
use crate::base::Secret;
use crate::codec::xts::{XTS_SECTOR, XTS_UNIT, Xts};
use crate::format::StagingId;
use crate::keys::{ArchiveKeys, Purpose};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Bytes of a file that are encrypted by themselves.
pub(super) const UNIT: u64 = XTS_UNIT as u64;
/// Bytes that are copied, encrypted and written at once.
const CHUNK: u64 = 256 * 1024;
const ZEROS: [u8; XTS_UNIT] = [0; XTS_UNIT];

/// From what the keys of an archive's staging files are derived.
#[derive(Debug, Clone)]
pub struct StagingKeys(Secret<32>);

impl StagingKeys {
    /// Those of an archive.
    pub fn of(keys: &ArchiveKeys) -> Self {
        Self(keys.derive(Purpose::Staging))
    }

    /// Those of an archive; `None` when it is not encrypted.
    ///
    /// Error: `Locked` when it is, and was opened without its keys.
    pub fn of_archive(archive: &Archive) -> StagingResult<Option<Self>> {
        match archive.keys() {
            Some(keys) => Ok(Some(Self::of(keys))),
            None if archive.is_encrypted() => Err(StagingError::Locked),
            None => Ok(None),
        }
    }

    /// The key of one file. Ids are never used again, so no other content ever has it.
    fn of_file(&self, id: StagingId) -> Secret<64> {
        let mut hasher = blake3::Hasher::new_derive_key("blockframe 1 staging file");
        hasher.update(self.0.expose()).update(&id.get().to_le_bytes());
        Secret::filled_by(|key| hasher.finalize_xof().fill(key))
    }

    pub(super) fn encrypted(&self, id: StagingId, inner: Arc<dyn RawFile>) -> EncryptedFile {
        EncryptedFile { inner, xts: Xts::new(&self.of_file(id)) }
    }
}

/// A file whose bytes are encrypted on the disk; see the module.
#[derive(Debug)]
pub(super) struct EncryptedFile {
    inner: Arc<dyn RawFile>,
    xts: Xts,
}

fn floor(at: u64) -> u64 {
    at / UNIT * UNIT
}

fn ceiling(at: u64) -> io::Result<u64> {
    at.checked_next_multiple_of(UNIT).ok_or_else(|| io::ErrorKind::FileTooLarge.into())
}

impl EncryptedFile {
    /// Decrypts whole units that lie at `start`, holes to zeros.
    fn decrypt(&self, start: u64, bytes: &mut [u8]) {
        let mut at = start;
        for sector in bytes.chunks_mut(XTS_SECTOR) {
            let (units, _) = sector.as_chunks::<XTS_UNIT>();
            let holes: Vec<usize> =
                units.iter().enumerate().filter(|(_, unit)| **unit == ZEROS).map(|(number, _)| number).collect();
            if holes.len() < units.len() {
                self.xts.decrypt(at / UNIT, sector);
            }
            for hole in holes {
                sector[hole * XTS_UNIT..(hole + 1) * XTS_UNIT].fill(0);
            }
            at += sector.len() as u64;
        }
    }

    /// The plain bytes of the unit at `start`, of which a part shall be written;
    /// `None` for a hole, behind the end, and when the end cuts it: that is what
    /// a failed write leaves, and nobody was told of bytes there.
    fn read_unit(&self, start: u64) -> io::Result<Option<[u8; XTS_UNIT]>> {
        let mut unit = ZEROS;
        let mut read = 0;
        while read < unit.len() {
            match self.inner.file().read_at(&mut unit[read..], start + read as u64) {
                Ok(0) => break,
                Ok(bytes) => read += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if read < unit.len() || unit == ZEROS {
            return Ok(None);
        }
        self.xts.decrypt(start / UNIT, &mut unit);
        Ok(Some(unit))
    }

    /// Makes bytes of one unit zeros, unless they are.
    fn clear_in_unit(&self, from: u64, to: u64) -> io::Result<()> {
        let start = floor(from);
        let part = (from - start) as usize..(to - start) as usize;
        match self.read_unit(start)? {
            Some(mut unit) if unit[part.clone()].iter().any(|&byte| byte != 0) => {
                unit[part].fill(0);
                self.xts.encrypt(start / UNIT, &mut unit);
                self.inner.write_all_at(&unit, start)
            }
            _ => Ok(()),
        }
    }
}

impl RawFile for EncryptedFile {
    fn file(&self) -> &Arc<File> {
        self.inner.file()
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let too_large = || io::Error::from(io::ErrorKind::FileTooLarge);
        let end = offset.checked_add(bytes.len() as u64).ok_or_else(too_large)?;
        ceiling(end)?;
        let mut buffer = Vec::new();
        let mut at = offset;
        while at < end {
            let start = floor(at);
            let to = end.min(start.saturating_add(CHUNK));
            let stop = ceiling(to)?;
            buffer.clear();
            buffer.resize((stop - start) as usize, 0);
            if start < at
                && let Some(unit) = self.read_unit(start)?
            {
                buffer[..XTS_UNIT].copy_from_slice(&unit);
            }
            let last = floor(to);
            if last < to
                && to < stop
                && let Some(unit) = self.read_unit(last)?
            {
                buffer[(last - start) as usize..].copy_from_slice(&unit);
            }
            let (part, place) = ((at - offset) as usize..(to - offset) as usize, (at - start) as usize);
            buffer[place..place + part.len()].copy_from_slice(&bytes[part]);
            self.xts.encrypt(start / UNIT, &mut buffer);
            self.inner.write_all_at(&buffer, start)?;
            at = to;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.sync()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut scratch = Vec::new();
        let (mut at, mut rest) = (offset, buffer);
        while !rest.is_empty() {
            let start = floor(at);
            let skipped = (at - start) as usize;
            let len = rest.len().min(CHUNK as usize - skipped);
            let (part, behind) = rest.split_at_mut(len);
            if skipped == 0 && len.is_multiple_of(XTS_UNIT) {
                self.inner.read_exact_at(part, start)?;
                self.decrypt(start, part);
            } else {
                scratch.resize((skipped + len).next_multiple_of(XTS_UNIT), 0);
                self.inner.read_exact_at(&mut scratch, start)?;
                self.decrypt(start, &mut scratch);
                part.copy_from_slice(&scratch[skipped..skipped + len]);
            }
            at += len as u64;
            rest = behind;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let stop = ceiling(len)?;
        if len < stop {
            self.clear_in_unit(len, stop)?;
        }
        self.inner.set_len(stop)
    }

    fn metadata(&self) -> io::Result<Metadata> {
        self.inner.metadata()
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let start = floor(offset);
        let end = ceiling(offset.saturating_add(len))?;
        self.inner.allocate(start, end - start)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let end = offset.saturating_add(len);
        let (first, last) = (ceiling(offset)?, floor(end));
        if first > last {
            return self.clear_in_unit(offset, end);
        }
        if offset < first {
            self.clear_in_unit(offset, first)?;
        }
        if last < end {
            self.clear_in_unit(last, end)?;
        }
        if first < last { self.inner.punch(first, last - first) } else { Ok(()) }
    }

    fn start_writeback(&self, offset: u64, len: u64) -> io::Result<()> {
        self.inner.start_writeback(offset, len)
    }

    fn seek(&self, offset: u64, data: bool) -> io::Result<Option<u64>> {
        self.inner.seek(offset, data)
    }
}
