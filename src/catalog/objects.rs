//! What the objects on the store tell of themselves: manifests, and the
//! tables of bundles. A bad one is reported and skipped.

use super::apply::Applier;
use super::database::Database;
use super::queries::Member;
use super::rebuild::RebuildReport;
use super::{Catalog, CatalogError, CatalogResult, NewMember, ObjectRecord, SourceSignature};
use crate::archive::{Archive, ArchiveResult, ObjectRef};
use crate::base::{ContentRange, ObjectName};
use crate::format::bundle::{BundleTable, TAIL_LEN};
use crate::format::journal::{ObjectFacts, Record};
use crate::format::{Entry, Manifest, NodeBody, ObjectKind};

/// Most bytes of a bundle's table: bundles are small, a longer one is damage.
const TABLE_LIMIT: u64 = 1 << 30;

/// The objects whose manifests can be read.
#[derive(Debug)]
pub(super) struct ObjectSurvey {
    /// Sequence number and name, oldest first.
    pub(super) order: Vec<(u64, ObjectName)>,
}

impl ObjectSurvey {
    /// Reads all manifests.
    pub(super) fn take(archive: &Archive, report: &mut RebuildReport) -> CatalogResult<Self> {
        let mut order = Vec::new();
        for listed in archive.store().list(None)? {
            let Ok(name) = listed.name.parse::<ObjectName>() else { continue };
            if !listed.is_prefix {
                continue;
            }
            let sequence = archive
                .load_manifest(&name)
                .map_err(CatalogError::from)
                .and_then(|manifest| Ok(manifest.facts()?.sequence));
            match sequence {
                Ok(sequence) => order.push((sequence, name)),
                Err(error) => report.skipped.push((name.to_string(), error.to_string())),
            }
        }
        report.objects_seen = order.len() as u64;
        order.sort();
        Ok(Self { order })
    }

    /// Records an object and its contents, unless the database knows it.
    pub(super) fn register(
        &self,
        archive: &Archive,
        name: &ObjectName,
        database: &Database,
        applier: &mut Applier<'_>,
        report: &mut RebuildReport,
    ) -> CatalogResult<()> {
        if database.object(name)?.is_some() {
            return Ok(());
        }
        let (manifest, table) = match load(archive, name) {
            Ok(loaded) => loaded,
            Err(error) => {
                report.skipped.push((name.to_string(), error.to_string()));
                return Ok(());
            }
        };
        applier.apply(&Record::Object(facts(&manifest)?))?;
        let crate::format::ContentFacts { kind, key, .. } = manifest.facts()?;
        let whole = Record::Member { hash: key.hash, offset: 0, size: key.plain_size, source: None };
        if *kind == ObjectKind::File {
            applier.apply(&whole)?;
        }
        for row in table.iter().flat_map(|table| &table.rows) {
            if let (Some(member), Entry::Node { body: NodeBody::File(file), .. }) = (row.member, &row.entry) {
                let (offset, size) = (member.start(), member.len());
                applier.apply(&Record::Member { hash: file.hash, offset, size, source: None })?;
            }
        }
        Ok(())
    }

    /// An object's entries in order. What cannot be read was reported before.
    pub(super) fn entries(&self, archive: &Archive, name: &ObjectName) -> impl Iterator<Item = Entry> + use<> {
        let loaded = load(archive, name).ok();
        loaded.into_iter().flat_map(|(manifest, table)| {
            let rows = table.into_iter().flat_map(|table| table.rows);
            let entry = manifest.facts().ok().and_then(|facts| facts.entry.clone());
            entry.into_iter().chain(rows.map(|row| row.entry))
        })
    }
}

impl Catalog {
    /// The object of this name.
    pub fn object(&self, name: &ObjectName) -> CatalogResult<Option<ObjectRecord>> {
        self.read(|database| Ok(database.object(name)?.map(|(_, facts)| facts.into())))
    }

    /// The contents that the catalog has in an object.
    pub fn members_of(&self, object: &ObjectName) -> CatalogResult<Vec<NewMember>> {
        let members = self.read(|database| match database.object(object)? {
            Some((id, _)) => database.members(id),
            None => Ok(Vec::new()),
        })?;
        let member = |(hash, offset, size, source): Member| NewMember {
            hash,
            offset,
            size,
            source: source.map(SourceSignature::from_number),
        };
        Ok(members.into_iter().map(member).collect())
    }

    /// Whether a bundle's table tells of a name that stands in the namespace,
    /// and not of a file's content before its present one. Such a bundle is worth keeping when no content of it is needed any
    /// more: it is what a rebuild without the journal would know the name from.
    pub fn is_told_by(&self, archive: &Archive, bundle: &ObjectName) -> CatalogResult<bool> {
        let (_, table) = load(archive, bundle)?;
        for row in table.iter().flat_map(|table| &table.rows) {
            if let Some(inode) = self.resolve(row.entry.path())?
                && !is_outdated(&row.entry, &inode.body)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether an entry tells of another content than the file has at its path.
fn is_outdated(entry: &Entry, now: &NodeBody) -> bool {
    match (entry, now) {
        (Entry::Node { body: NodeBody::File(told), .. }, NodeBody::File(now)) => {
            told.size > 0 && (told.hash, told.size) != (now.hash, now.size)
        }
        _ => false,
    }
}

/// An object's manifest, and its table if it is a bundle.
fn load(archive: &Archive, name: &ObjectName) -> CatalogResult<(Manifest, Option<BundleTable>)> {
    let manifest = archive.load_manifest(name)?;
    let table = match manifest.facts()?.kind {
        ObjectKind::File => None,
        ObjectKind::Bundle => Some(read_table(archive, &manifest)?),
    };
    Ok((manifest, table))
}

fn read_table(archive: &Archive, manifest: &Manifest) -> CatalogResult<BundleTable> {
    let object = archive.object(&ObjectRef { name: manifest.name.clone(), root: manifest.root() })?;
    let read = |range: ContentRange| -> ArchiveResult<Vec<u8>> { Ok(object.read(range)?.bytes().to_vec()) };
    let len = object.content_len()?;
    let tail = read(ContentRange::between(len.saturating_sub(TAIL_LEN), len))?;
    let place = BundleTable::locate(len, &tail)?;
    if place.len() > TABLE_LIMIT {
        let what = format!("a table of {} bytes is too long", place.len());
        return Err(CatalogError::Format(crate::format::FormatError::Invalid { what: "bundle", why: what }));
    }
    Ok(BundleTable::parse(place, &read(place)?)?)
}

fn facts(manifest: &Manifest) -> CatalogResult<ObjectFacts> {
    let geometry = manifest.geometry();
    let facts = manifest.facts()?;
    Ok(ObjectFacts {
        name: manifest.name.clone(),
        root: manifest.root(),
        kind: facts.kind,
        key: facts.key,
        tier: geometry.tier(),
        stored_len: geometry.stored_len(),
    })
}
