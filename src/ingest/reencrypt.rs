//! What is stored already gets the newest key: object by object it is read,
//! written anew under the current epoch, and the old object goes.
//!
//! Crash argument, for each object: the new one is durable before it is
//! recorded; recording it moves all its contents there, in one change; only
//! then the old record is removed, and after that the old directory. So at
//! every instant each content lies where the catalog says. What a crash
//! leaves is the new object unrecorded (found there and recorded by the next
//! run), the old one recorded and without contents (removed by the next run),
//! or its directory without a record (deleted by the next run, or by `gc`).
//! The keys of old epochs are dropped when [`Reencryption::sweep`] has found
//! nothing on the store that needs one.

use super::error::{IngestError, IngestResult};
use crate::archive::{Archive, ArchiveError, ContentSource, Object, ObjectPlan, WriteControl};
use crate::base::{ContentRange, ErrorClass, ObjectName, StoreId};
use crate::catalog::{Catalog, CatalogRemovals, CatalogWrites, NewObject, ObjectRecord, oldest_journal_epoch};
use crate::codec::compress::{Codec, CodecSpec};
use crate::format::Manifest;
use crate::format::layout::{MANIFEST, MANIFEST_COPY, TMP_DIR};
use crate::keys::Epoch;
use crate::store::{StoreError, StoreErrorKind, StoreKey};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;

/// Bytes that are read from an old object at once.
const READ: u64 = 4 << 20;

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct ReencryptReport {
    /// Objects that were written anew.
    pub objects: u64,
    /// Bytes of their contents.
    pub bytes: u64,
    /// Old objects that were removed.
    pub removed: u64,
    /// Objects that cannot be read whole. They stay as they are, and with them their key.
    pub unreadable: Vec<ObjectName>,
}

/// What still needs the key of an old epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OldKeys {
    /// Objects that the catalog knows.
    pub recorded: u64,
    /// Objects that it does not know, and that may be the only copy of something.
    pub unknown: Vec<ObjectName>,
    /// The journal is of an old epoch.
    pub journal: bool,
}

impl OldKeys {
    /// Whether nothing does.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Encrypts the objects of an archive with the current epoch's key.
#[derive(Debug)]
pub struct Reencryption<'a> {
    archive: &'a Archive,
    catalog: &'a Catalog,
    /// Objects whose contents lie elsewhere now.
    replaced: Vec<ObjectRecord>,
    /// What was done so far.
    pub report: ReencryptReport,
}

impl<'a> Reencryption<'a> {
    /// Of an archive that was opened with its keys.
    pub fn new(archive: &'a Archive, catalog: &'a Catalog) -> Self {
        Self { archive, catalog, replaced: Vec::new(), report: ReencryptReport::default() }
    }

    /// The recorded objects that are not of the current epoch, less those that were replaced or cannot be read.
    pub fn todo(&self) -> IngestResult<Vec<ObjectRecord>> {
        let keys = self.archive.keys().ok_or_else(ArchiveError::locked)?.current();
        let mut todo = Vec::new();
        self.catalog.objects(None, &mut |record| {
            // The name says the epoch: its key is in it.
            let is_current = record.reference.name.hash() == Some(keys.object_hash(&record.key.hash));
            if !is_current && !self.is_done(&record.reference.name) {
                todo.push(record);
            }
            true
        })?;
        Ok(todo)
    }

    fn is_done(&self, name: &ObjectName) -> bool {
        self.replaced.iter().any(|replaced| replaced.reference.name == *name) || self.report.unreadable.contains(name)
    }

    /// Bytes of the objects that were replaced and are not removed yet.
    pub fn bytes_replaced(&self) -> u64 {
        self.replaced.iter().map(|record| record.stored_len).sum()
    }

    /// Writes an object anew and records it; the old one is to be removed by [`Self::collect`].
    /// One that cannot be read whole is reported, and stays.
    ///
    /// Errors: `Interrupted`; `StoreFull`; those of archive and catalog.
    pub fn renew(
        &mut self,
        writer: &dyn CatalogWrites,
        old: &ObjectRecord,
        control: &WriteControl<'_>,
    ) -> IngestResult<()> {
        match self.write(old, control) {
            Ok(manifest) => {
                let members = self.catalog.members_of(&old.reference.name)?;
                writer.add_object(&NewObject::new(&manifest, members)?)?;
                self.report.objects += 1;
                self.report.bytes += old.key.plain_size;
                self.replaced.push(old.clone());
                Ok(())
            }
            Err(error) if error.class() == ErrorClass::Unrecoverable => {
                tracing::error!(object = %old.reference.name, "it keeps its old key: {error}");
                self.report.unreadable.push(old.reference.name.clone());
                Ok(())
            }
            Err(error) => Err(IngestError::from(error).of_commit()),
        }
    }

    fn write(&self, old: &ObjectRecord, control: &WriteControl<'_>) -> Result<Manifest, ArchiveError> {
        let object = self.archive.object(&old.reference)?;
        let facts = object.manifest().facts()?;
        let plan = ObjectPlan {
            readable: Vec::new(),
            kind: facts.kind,
            // A rebuild from the objects alone is to find what it would have found.
            sequence: facts.sequence,
            entry: facts.entry.clone(),
            compression: facts.key.compression.codec().map(|codec| self.level_of(codec)),
        };
        let source = Stored { object: object.clone(), len: facts.key.plain_size };
        let written = match self.archive.write_object(&source, &plan, control) {
            Err(ArchiveError::Source(error)) => return Err(of_source(error)),
            other => other?.manifest,
        };
        let key = &written.facts()?.key;
        if (key.hash, key.plain_size) != (facts.key.hash, facts.key.plain_size) {
            return Err(ArchiveError::Internal(format!("object {} was read as another content", old.reference.name)));
        }
        Ok(written)
    }

    fn level_of(&self, codec: Codec) -> CodecSpec {
        let own = self.archive.descriptor().compression.filter(|own| own.codec == codec);
        own.unwrap_or_else(|| codec.at_default_level())
    }

    /// Removes what was replaced. `writer` must be one that began to
    /// [collect](crate::catalog::CatalogRemovals): nobody else writes objects.
    pub fn collect(&mut self, writer: &dyn CatalogRemovals) -> IngestResult<()> {
        let mut removed = Vec::new();
        for old in std::mem::take(&mut self.replaced) {
            match writer.remove_object(&old) {
                Ok(()) => removed.push(old.reference.name),
                // A content came back to it; it is looked at once more.
                Err(error) if error.class() == ErrorClass::Busy => {
                    tracing::debug!(object = %old.reference.name, "it came into use again");
                }
                Err(error) => return Err(error.into()),
            }
        }
        for name in removed {
            self.delete(&name)?;
            self.report.removed += 1;
        }
        Ok(())
    }

    /// Takes a directory away in one step, then deletes it: who still reads there finds all or nothing.
    fn delete(&self, name: &ObjectName) -> IngestResult<()> {
        let store = self.archive.store();
        let from = self.key(name.as_str())?;
        let aside = self.key(&format!("{TMP_DIR}/replaced-{}", StoreId::random()))?;
        match store.publish(&from, &aside) {
            Err(error) if error.kind() != StoreErrorKind::NotFound => Err(error.into()),
            _ => Ok(store.delete_prefix(&aside)?),
        }
    }

    fn key(&self, text: &str) -> IngestResult<StoreKey> {
        Ok(StoreKey::new(text).map_err(|error| StoreError::bad_key(self.archive.store().label(), error))?)
    }

    /// Looks through the store for what needs the key of an old epoch, and
    /// deletes objects that a crash left without a record. As for
    /// [`Self::collect`], nobody else may write objects.
    pub fn sweep(&mut self, writer: &dyn CatalogWrites) -> IngestResult<OldKeys> {
        let current = self.archive.keys().ok_or_else(ArchiveError::locked)?.current();
        let sequence = writer.sequence()?;
        let mut known = HashMap::new();
        self.catalog.objects(None, &mut |record| {
            let is_current = record.reference.name.hash() == Some(current.object_hash(&record.key.hash));
            known.insert(record.reference.name, is_current);
            true
        })?;
        let mut old = OldKeys {
            recorded: known.values().filter(|is_current| !**is_current).count() as u64,
            ..OldKeys::default()
        };
        for listed in self.archive.store().list(None)? {
            let Ok(name) = listed.name.parse::<ObjectName>() else { continue };
            if !listed.is_prefix || known.contains_key(&name) {
                continue;
            }
            match self.archive.load_manifest(&name) {
                Ok(manifest) if epoch_of(&manifest) == Some(current.epoch()) => {}
                Ok(manifest) if manifest.facts()?.sequence <= sequence => {
                    self.delete(&name)?;
                    self.report.removed += 1;
                }
                // Newer than the catalog, or not to be read: it may be the only copy.
                Ok(_) => old.unknown.push(name),
                Err(error) if error.class() == ErrorClass::NotFound || !self.has_manifest(&name)? => {}
                Err(error) => {
                    tracing::warn!(object = %name, "it may need an old key: {error}");
                    old.unknown.push(name);
                }
            }
        }
        old.journal = oldest_journal_epoch(self.archive)?.is_some_and(|epoch| epoch < current.epoch());
        Ok(old)
    }

    /// Without a manifest no key opens an object.
    fn has_manifest(&self, name: &ObjectName) -> IngestResult<bool> {
        for copy in [MANIFEST, MANIFEST_COPY] {
            match self.archive.store().open(&self.key(&format!("{name}/{copy}"))?) {
                Err(error) if error.kind() == StoreErrorKind::NotFound => {}
                _ => return Ok(true),
            }
        }
        Ok(false)
    }
}

fn epoch_of(manifest: &Manifest) -> Option<Epoch> {
    manifest.encryption().and_then(|(_, epoch)| Epoch::new(epoch))
}

/// The content of an object, as the source of another.
struct Stored {
    object: Arc<Object>,
    len: u64,
}

impl ContentSource for Stored {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset + buffer.len() as u64;
        let mut at = offset;
        for part in buffer.chunks_mut(READ as usize) {
            let range = ContentRange::between(at, (at + part.len() as u64).min(end));
            let read = self.object.read(range).map_err(io::Error::other)?;
            if read.bytes().len() != part.len() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            part.copy_from_slice(read.bytes());
            at += part.len() as u64;
        }
        Ok(())
    }
}

/// What the old object said, out of the error that it went through.
fn of_source(error: io::Error) -> ArchiveError {
    match error.downcast::<ArchiveError>() {
        Ok(error) => error,
        Err(error) => ArchiveError::Source(error),
    }
}
