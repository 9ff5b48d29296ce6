//! With which keys the catalog's blocks are sealed and opened.

use super::{CatalogError, CatalogResult};
use crate::archive::Archive;
use crate::base::ArchiveId;
use crate::format::FormatError;
use crate::format::journal::{
    Block, ChainHead, FileHeader, FileKind, parse_file_header, put_file_header, put_sealed_header,
};
use crate::format::journal_seal::BlockSeal;
use crate::keys::{ArchiveKeys, Epoch, EpochKeys};
use std::borrow::Cow;
use std::sync::Arc;

const WHAT: &str = "catalog journal";

/// What the blocks of an archive's catalog are opened with.
#[derive(Debug, Clone)]
pub(super) struct JournalKeys {
    archive: ArchiveId,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    /// The archive is not encrypted.
    Plain,
    /// It is, and its keys are not there: blocks can be verified, and not read.
    Locked,
    Keys(Arc<ArchiveKeys>),
}

/// How the blocks of one file are opened.
#[derive(Debug, Clone)]
pub(super) enum Opened {
    /// They are not sealed.
    Plain,
    /// They are, and stay closed.
    Closed,
    Seal(Box<BlockSeal>, Epoch),
}

impl Opened {
    /// A block's piece of records; empty when it stays closed. Error: `Invalid` for a block that is not authentic.
    pub(super) fn payload<'b>(&self, block: &Block<'b>) -> Result<Cow<'b, [u8]>, FormatError> {
        match self {
            Opened::Plain => Ok(Cow::Borrowed(block.payload)),
            Opened::Closed => Ok(Cow::Borrowed(&[])),
            Opened::Seal(seal, _) => seal.open(block).map(Cow::Owned),
        }
    }

    pub(super) fn epoch(&self) -> Option<Epoch> {
        match self {
            Opened::Seal(_, epoch) => Some(*epoch),
            _ => None,
        }
    }

    /// What new blocks are sealed with.
    pub(super) fn seal(&self) -> Option<BlockSeal> {
        match self {
            Opened::Seal(seal, _) => Some((**seal).clone()),
            _ => None,
        }
    }
}

fn seal_of(keys: &EpochKeys, archive: ArchiveId) -> Opened {
    let seal = BlockSeal::new(archive, keys.epoch().get(), keys.journal_key());
    Opened::Seal(Box::new(seal), keys.epoch())
}

impl JournalKeys {
    pub(super) fn of(archive: &Archive) -> Self {
        let kind = match (archive.is_encrypted(), archive.keys()) {
            (false, _) => Kind::Plain,
            (true, None) => Kind::Locked,
            (true, Some(keys)) => Kind::Keys(keys.clone()),
        };
        Self { archive: archive.descriptor().id, kind }
    }

    pub(super) fn archive(&self) -> ArchiveId {
        self.archive
    }

    pub(super) fn are_there(&self) -> bool {
        matches!(self.kind, Kind::Keys(_))
    }

    /// The epoch for new files; `None` when they are not sealed.
    pub(super) fn current(&self) -> Option<Epoch> {
        match &self.kind {
            Kind::Keys(keys) => Some(keys.current().epoch()),
            Kind::Plain | Kind::Locked => None,
        }
    }

    /// How blocks of an epoch are opened, or written.
    ///
    /// Errors: `NoKeys`; `Format` for an epoch that is not known.
    pub(super) fn opened(&self, epoch: Option<Epoch>) -> CatalogResult<Opened> {
        match &self.kind {
            Kind::Plain => Ok(Opened::Plain),
            Kind::Locked => Err(CatalogError::NoKeys),
            Kind::Keys(keys) => {
                let keys = epoch.and_then(|epoch| keys.epoch(epoch));
                let keys = keys.ok_or_else(|| FormatError::invalid(WHAT, "the epoch of a file is not known"))?;
                Ok(seal_of(&keys, self.archive))
            }
        }
    }

    /// Checks that a file's first block is authentic.
    pub(super) fn open_header(&self, kind: FileKind, bytes: &[u8]) -> Result<Opened, FormatError> {
        let block = Block::parse(bytes)?;
        let header = parse_file_header(block.payload)?;
        if !block.header || block.kind != kind {
            return Err(FormatError::invalid(WHAT, "its first block is of another file"));
        }
        match (&self.kind, header.epoch) {
            (Kind::Plain, None) => Ok(Opened::Plain),
            (Kind::Locked, Some(_)) => Ok(Opened::Closed),
            (Kind::Keys(keys), Some(epoch)) => {
                let keys = Epoch::new(epoch).and_then(|epoch| keys.epoch(epoch));
                let keys = keys.ok_or_else(|| FormatError::invalid(WHAT, format!("epoch {epoch} is not known")))?;
                let opened = seal_of(&keys, self.archive);
                opened.seal().map_or(Ok(()), |seal| seal.check_header(&block))?;
                Ok(opened)
            }
            (Kind::Plain, Some(_)) => Err(FormatError::invalid(WHAT, "it is encrypted, and the archive is not")),
            (Kind::Locked | Kind::Keys(_), None) => Err(FormatError::invalid(WHAT, "it is not encrypted")),
        }
    }

    /// How a file is opened whose header is lost, found by one of its blocks: one key must fit.
    pub(super) fn opened_by_trial(&self, block: &Block<'_>) -> Result<Opened, FormatError> {
        match &self.kind {
            Kind::Plain => Ok(Opened::Plain),
            Kind::Locked => Ok(Opened::Closed),
            Kind::Keys(keys) => (1..=keys.current().epoch().get())
                .rev()
                .filter_map(|number| keys.epoch(Epoch::new(number)?))
                .map(|keys| seal_of(&keys, self.archive))
                .find(|opened| opened.payload(block).is_ok())
                .ok_or_else(|| FormatError::invalid(WHAT, format!("block {} is not authentic", block.place.sequence))),
        }
    }

    /// Refuses a file that no key here opens: it is no damage, and may not be written over.
    pub(super) fn refuse_foreign(&self, header: &FileHeader, place: String) -> CatalogResult<()> {
        match (&self.kind, header.epoch) {
            (Kind::Plain, Some(_)) if header.archive == self.archive => Err(CatalogError::NotPlain { place }),
            (Kind::Keys(keys), Some(epoch)) if header.archive == self.archive => {
                match Epoch::new(epoch).and_then(|epoch| keys.epoch(epoch)) {
                    Some(_) => Ok(()),
                    None => Err(CatalogError::UnknownEpoch { place, epoch }),
                }
            }
            _ => Ok(()),
        }
    }

    /// Appends the first block of a file. Returns the place after it.
    pub(super) fn put_header(&self, opened: &Opened, kind: FileKind, at: ChainHead, out: &mut Vec<u8>) -> ChainHead {
        match opened {
            Opened::Seal(seal, _) => put_sealed_header(kind, seal, at, out),
            Opened::Plain | Opened::Closed => put_file_header(kind, self.archive, at, out),
        }
    }
}
