//! Encrypted blocks of the catalog's journal and snapshots.
//!
//! A sealed block is as long as any other, and its header is not encrypted:
//! whoever has no key can still verify blocks, groups and the chain. What the
//! header says is authenticated with the payload, so that a block of another
//! place, file, archive or epoch does not open.

use super::FormatError;
use super::binary::Reader;
use super::journal::{Block, ChainHead, FileKind, MAX_PAYLOAD, WHAT};
use crate::base::{ArchiveId, Secret};
use crate::codec::seal::{TAG_LEN, open_metadata, seal_metadata};

const LABEL: &[u8] = b"blockframe journal 1";
/// Length of what is encrypted, bytes: always all that a block has room for.
const PLAIN_LEN: usize = MAX_PAYLOAD - TAG_LEN;
/// Most bytes of records in a sealed block: the length of what counts stands before them.
pub const MAX_SEALED: usize = PLAIN_LEN - 2;

/// Encrypts and opens the blocks of one file: of one archive and epoch.
#[derive(Debug, Clone)]
pub struct BlockSeal {
    archive: ArchiveId,
    epoch: u32,
    key: Secret<64>,
}

impl BlockSeal {
    /// The seal of an archive's files of an epoch. `key` is that epoch's journal key.
    pub fn new(archive: ArchiveId, epoch: u32, key: Secret<64>) -> Self {
        Self { archive, epoch, key }
    }

    /// Its epoch.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Its archive.
    pub fn archive(&self) -> ArchiveId {
        self.archive
    }

    fn context(&self, kind: FileKind, flags: u8, at: &ChainHead) -> Vec<u8> {
        let mut context = Vec::with_capacity(LABEL.len() + 62);
        context.extend_from_slice(LABEL);
        context.extend_from_slice(self.archive.as_bytes());
        context.extend_from_slice(&[kind.code(), flags]);
        context.extend_from_slice(&at.sequence.to_le_bytes());
        context.extend_from_slice(at.hash.as_bytes());
        context.extend_from_slice(&self.epoch.to_le_bytes());
        context
    }

    /// A block's payload: the length of `plain`, `plain`, zeros, sealed. At most [`MAX_SEALED`] bytes.
    pub(super) fn seal(&self, kind: FileKind, flags: u8, at: &ChainHead, plain: &[u8]) -> Vec<u8> {
        let mut padded = Vec::with_capacity(PLAIN_LEN);
        padded.extend_from_slice(&(plain.len() as u16).to_le_bytes());
        padded.extend_from_slice(plain);
        padded.resize(PLAIN_LEN, 0);
        seal_metadata(&self.key, &self.context(kind, flags, at), &padded)
    }

    /// What a header block carries behind the epoch: nothing, sealed, so that no header is made without the key.
    pub(super) fn header_tag(&self, kind: FileKind, flags: u8, at: &ChainHead) -> Vec<u8> {
        seal_metadata(&self.key, &self.context(kind, flags, at), &[])
    }

    /// The piece of records in a block. Error: `Invalid` for one that was not made with this seal, for this place.
    pub fn open(&self, block: &Block<'_>) -> Result<Vec<u8>, FormatError> {
        let forged = || FormatError::invalid(WHAT, format!("block {} is not authentic", block.place.sequence));
        if block.payload.len() != MAX_PAYLOAD {
            return Err(forged());
        }
        let context = self.context(block.kind, block.flags(), &block.place);
        let mut plain = open_metadata(&self.key, &context, block.payload).map_err(|_| forged())?;
        let len = usize::from(Reader::new(WHAT, &plain).u16()?);
        if len > MAX_SEALED || plain.iter().skip(2 + len).any(|&byte| byte != 0) {
            return Err(FormatError::invalid(WHAT, "a sealed block's length is wrong"));
        }
        plain.truncate(2 + len);
        plain.drain(..2);
        Ok(plain)
    }

    /// Checks that a header block was made with this seal. Error: `Invalid`.
    pub fn check_header(&self, block: &Block<'_>) -> Result<(), FormatError> {
        let context = self.context(block.kind, block.flags(), &block.place);
        let tag = block.payload.last_chunk::<TAG_LEN>();
        match tag.map(|tag| open_metadata(&self.key, &context, tag)) {
            Some(Ok(empty)) if empty.is_empty() => Ok(()),
            _ => Err(FormatError::invalid(WHAT, "a file's header is not authentic")),
        }
    }
}
