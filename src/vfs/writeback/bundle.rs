//! Small files on their way into a bundle. One bundle is being filled while
//! the one before is being written; so at most two are in memory.

use super::desk::Desk;
use super::pace::Pace;
use crate::archive::{Archive, ArchiveError, ArchiveResult, ObjectPlan, WriteControl, WrittenObject};
use crate::base::ContentHash;
use crate::catalog::{NewMember, NewObject};
use crate::format::bundle::readable_name;
use crate::format::{BundleBuilder, BundleTable, Entry, FileContent, FormatError, ObjectKind, StagingId};
use crate::namespace::CompressionRules;
use crate::staging::Generation;
use crate::vfs::live::switch::Origin;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

/// A file whose content is in a bundle.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) origin: Origin,
    pub(super) content: FileContent,
}

/// The bundle that is being filled.
#[derive(Debug, Default)]
pub(super) struct OpenBundle {
    builder: BundleBuilder,
    /// Its first entry, for its name.
    first: Option<Entry>,
    members: Vec<NewMember>,
    hashes: HashSet<ContentHash>,
    files: Vec<Member>,
    states: HashMap<StagingId, Generation>,
    /// When its first file came.
    since: Option<Instant>,
}

impl OpenBundle {
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// When its first file came.
    pub(super) fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Whether the state is in it already.
    pub(super) fn has(&self, origin: &Origin) -> bool {
        self.states.get(&origin.staged.id()) == Some(&origin.generation)
    }

    /// Whether there is room for an entry with its bytes.
    pub(super) fn has_room(&self, entry: &Entry, target: u64) -> bool {
        self.builder.is_empty() || self.builder.content_len_with(entry, true) <= target
    }

    /// Adds a file with its bytes, which are left out where it has them already.
    pub(super) fn add(&mut self, file: Member, entry: &Entry, data: &[u8], now: Instant) -> Result<(), FormatError> {
        let hash = file.content.hash;
        if self.hashes.contains(&hash) {
            self.builder.add_row(entry);
        } else {
            let range = self.builder.add_member(entry, data)?;
            self.members.push(NewMember { hash, offset: range.start(), size: range.len(), source: None });
            self.hashes.insert(hash);
        }
        self.first.get_or_insert_with(|| entry.clone());
        self.since.get_or_insert(now);
        self.states.insert(file.origin.staged.id(), file.origin.generation);
        self.files.push(file);
        Ok(())
    }
}

/// The bundle that is being written.
#[derive(Debug)]
pub(super) struct InFlight {
    thread: JoinHandle<ArchiveResult<WrittenObject>>,
    members: Vec<NewMember>,
    files: Vec<Member>,
}

impl InFlight {
    /// Starts writing a bundle. A file that is alone in it becomes a plain
    /// object that carries its entry.
    pub(super) fn start(
        archive: &Archive,
        bundle: OpenBundle,
        sequence: u64,
        compression: &CompressionRules,
        (pace, desk): (&Arc<Pace>, &Arc<Desk>),
    ) -> Result<Self, (ArchiveError, Vec<Member>)> {
        let OpenBundle { builder, first, mut members, files, .. } = bundle;
        let made = make(builder, first, sequence, compression, &mut members);
        let (plan, content) = match made {
            Ok(made) => made,
            Err(error) => return Err((error, files)),
        };
        let (archive, pace, desk) = (archive.clone(), Arc::clone(pace), Arc::clone(desk));
        let write = move || {
            let control = WriteControl { progress: &|_| pace.column(&desk), cancel: &desk.cancel };
            archive.write_object(&content, &plan, &control)
        };
        match std::thread::Builder::new().name("bundle-writer".into()).spawn(write) {
            Ok(thread) => Ok(Self { thread, members, files }),
            Err(error) => Err((ArchiveError::Source(error), files)),
        }
    }

    /// Waits until it is durable.
    pub(super) fn finish(self) -> (ArchiveResult<(WrittenObject, NewObject)>, Vec<Member>) {
        let panicked = |_| Err(ArchiveError::Internal("a thread that wrote a bundle panicked".into()));
        let written = self.thread.join().unwrap_or_else(panicked);
        let recorded = written.and_then(|written| {
            let object = NewObject::new(&written.manifest, self.members)?;
            Ok((written, object))
        });
        (recorded, self.files)
    }
}

/// What is to be written: the bundle, or the only file in it.
fn make(
    builder: BundleBuilder,
    first: Option<Entry>,
    sequence: u64,
    compression: &CompressionRules,
    members: &mut [NewMember],
) -> ArchiveResult<(ObjectPlan, Vec<u8>)> {
    let first = first.ok_or_else(|| ArchiveError::Internal("a bundle without entries is to be written".into()))?;
    let alone = builder.members() == 1 && builder.rows() == 1;
    let content = builder.finish();
    if !alone {
        let (readable, kind) = (readable_name(&first), ObjectKind::Bundle);
        let compression = compression.default_spec();
        let plan = ObjectPlan { readable, kind, sequence, entry: None, compression };
        return Ok((plan, content));
    }
    let member = BundleTable::of_content(&content)?.rows.first().and_then(|row| row.member);
    let range = member.ok_or_else(|| ArchiveError::Internal("a bundle's only member is missing".into()))?;
    members.iter_mut().for_each(|member| member.offset = 0);
    let readable = first.path().name().to_vec();
    let content = content[range.start() as usize..range.end() as usize].to_vec();
    let compression = compression.choose(first.path(), &content).map_err(ArchiveError::Source)?;
    let plan = ObjectPlan { readable, kind: ObjectKind::File, sequence, entry: Some(first), compression };
    Ok((plan, content))
}
