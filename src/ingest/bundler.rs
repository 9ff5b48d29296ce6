//! Packs small files into bundles, and writes one bundle while the next is
//! being filled. At most two bundles are in memory.

use super::commit::Progress;
use super::report::FileReport;
use super::{IngestError, IngestResult};
use crate::archive::{Archive, ArchiveError, ArchiveResult, ObjectPlan, WriteControl, WrittenObject};
use crate::base::ContentHash;
use crate::catalog::{CatalogWrites, NewMember, NewObject, SourceSignature};
use crate::format::{BundleBuilder, BundleTable, Entry, ObjectKind, bundle};
use crate::namespace::CompressionRules;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

/// The open bundle, and the one that is being written.
pub(super) struct Bundler<'a> {
    archive: &'a Arc<Archive>,
    writer: &'a dyn CatalogWrites,
    progress: &'a Progress<'a>,
    compression: &'a CompressionRules,
    open: OpenBundle,
    in_flight: Option<InFlight>,
    /// Whether any bundle was closed yet.
    closed_one: bool,
}

#[derive(Default)]
struct OpenBundle {
    builder: BundleBuilder,
    /// Its first entry, for its name.
    first: Option<Entry>,
    contents: Contents,
}

/// What becomes known once a bundle is durable.
#[derive(Default)]
struct Contents {
    members: Vec<NewMember>,
    hashes: HashSet<ContentHash>,
    reports: Vec<FileReport>,
}

struct InFlight {
    thread: JoinHandle<ArchiveResult<WrittenObject>>,
    contents: Contents,
}

impl<'a> Bundler<'a> {
    pub(super) fn new(
        archive: &'a Arc<Archive>,
        writer: &'a dyn CatalogWrites,
        progress: &'a Progress<'a>,
        compression: &'a CompressionRules,
    ) -> Self {
        let open = OpenBundle::default();
        Self { archive, writer, progress, compression, open, in_flight: None, closed_one: false }
    }

    /// Whether a bundle that the catalog does not know yet holds this content.
    pub(super) fn holds(&self, hash: &ContentHash) -> bool {
        let in_flight = self.in_flight.as_ref().is_some_and(|bundle| bundle.contents.hashes.contains(hash));
        in_flight || self.open.contents.hashes.contains(hash)
    }

    /// Adds a file with its bytes. It is reported once it is durable.
    pub(super) fn add_file(
        &mut self,
        entry: &Entry,
        data: &[u8],
        hash: ContentHash,
        source: SourceSignature,
        report: FileReport,
    ) -> IngestResult<()> {
        self.make_room(entry, true)?;
        let range = self.open.builder.add_member(entry, data)?;
        self.open.first.get_or_insert_with(|| entry.clone());
        let contents = &mut self.open.contents;
        contents.members.push(NewMember { hash, offset: range.start(), size: range.len(), source: Some(source) });
        contents.hashes.insert(hash);
        contents.reports.push(report);
        Ok(())
    }

    /// Adds an entry without bytes.
    pub(super) fn add_row(&mut self, entry: &Entry) -> IngestResult<()> {
        self.make_room(entry, false)?;
        self.open.builder.add_row(entry);
        self.open.first.get_or_insert_with(|| entry.clone());
        Ok(())
    }

    /// Reports a file whose content waits in a bundle, once that is durable.
    pub(super) fn report_later(&mut self, report: FileReport) {
        self.open.contents.reports.push(report);
    }

    fn make_room(&mut self, entry: &Entry, as_member: bool) -> IngestResult<()> {
        let target = self.archive.descriptor().bundle.target;
        if !self.open.builder.is_empty() && self.open.builder.content_len_with(entry, as_member) > target {
            self.close()?;
        }
        Ok(())
    }

    /// Starts writing the open bundle, once the one before it is durable.
    fn close(&mut self) -> IngestResult<()> {
        self.settle()?;
        let open = std::mem::take(&mut self.open);
        let Some(first) = open.first else { return Ok(()) };
        self.closed_one = true;
        let plan = ObjectPlan {
            readable: bundle::readable_name(&first),
            kind: ObjectKind::Bundle,
            sequence: self.writer.sequence()?,
            entry: None,
            compression: self.compression.default_spec(),
        };
        let archive = Arc::clone(self.archive);
        let content = open.builder.finish();
        let thread = std::thread::Builder::new()
            .name("bundle-writer".into())
            .spawn(move || {
                // A bundle is short: it is finished even after an interrupt, so that its files need not be read again.
                let control = WriteControl { progress: &|_| {}, cancel: &AtomicBool::new(false) };
                archive.write_object(&content, &plan, &control)
            })
            .map_err(|source| IngestError::Local {
                operation: "start a thread for",
                path: "a bundle".into(),
                source,
            })?;
        self.in_flight = Some(InFlight { thread, contents: open.contents });
        Ok(())
    }

    /// Waits for the bundle that is being written and records it.
    pub(super) fn settle(&mut self) -> IngestResult<()> {
        let Some(bundle) = self.in_flight.take() else { return Ok(()) };
        let written =
            bundle.thread.join().map_err(|_| IngestError::Internal("a thread that wrote a bundle panicked"))?;
        self.record(&written?, bundle.contents)
    }

    fn record(&self, written: &WrittenObject, contents: Contents) -> IngestResult<()> {
        let tier = written.manifest.geometry().tier();
        self.writer.add_object(&NewObject::new(&written.manifest, contents.members)?)?;
        self.progress.object(written);
        for mut report in contents.reports {
            report.tier.get_or_insert(tier);
            self.progress.file(&report);
        }
        Ok(())
    }

    /// Writes what is left. A commit of one file alone becomes a plain object
    /// that carries its entry.
    pub(super) fn finish(&mut self) -> IngestResult<()> {
        let open = &self.open;
        let alone = !self.closed_one && open.builder.members() == 1 && open.builder.rows() == 1;
        if !alone {
            self.close()?;
            return self.settle();
        }
        let OpenBundle { builder, first, mut contents } = std::mem::take(&mut self.open);
        let content = builder.finish();
        let member = BundleTable::of_content(&content)?.rows.first().and_then(|row| row.member);
        let (Some(entry), Some(range)) = (first, member) else {
            return Err(IngestError::Internal("a bundle's only member is missing"));
        };
        let data = content[range.start() as usize..range.end() as usize].to_vec();
        let compression = self.compression.choose(entry.path(), &data).map_err(ArchiveError::Source)?;
        let plan = ObjectPlan {
            readable: entry.path().name().to_vec(),
            kind: ObjectKind::File,
            sequence: self.writer.sequence()?,
            entry: Some(entry),
            compression,
        };
        let control = WriteControl { progress: &|_| {}, cancel: &AtomicBool::new(false) };
        let written = self.archive.write_object(&data, &plan, &control)?;
        for member in &mut contents.members {
            member.offset = 0;
        }
        self.record(&written, contents)
    }
}

impl Drop for Bundler<'_> {
    /// After an error: what is being written is recorded all the same, so that the next commit finds it.
    fn drop(&mut self) {
        if let Err(error) = self.settle() {
            tracing::debug!(%error, "the last bundle of a failed commit was not recorded");
        }
    }
}
