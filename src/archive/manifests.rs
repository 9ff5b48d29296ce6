//! Manifests: two copies of each, either of which will do.

use super::object::{Object, ObjectRef};
use super::{Archive, ArchiveError, ArchiveResult, Event, EventKind, Shared};
use crate::base::{Digest, ObjectName};
use crate::format::Manifest;
use crate::format::layout::{MANIFEST, MANIFEST_COPY};
use crate::keys::Epoch;
use std::sync::Arc;

/// Longest manifest, bytes: some 20 TB of content in one file.
pub(super) const MAX_MANIFEST: u64 = 512 << 20;

/// What the copies of a manifest were found to be.
#[derive(Debug)]
pub(super) struct ManifestCopies {
    /// The manifest, from the first good copy.
    pub(super) manifest: Manifest,
    /// The good copy's bytes.
    pub(super) bytes: Vec<u8>,
    /// Names of the copies that are bad, and why.
    pub(super) bad: Vec<(&'static str, ArchiveError)>,
    /// Both copies are whole, and say different things, and neither the
    /// catalog nor a key is there to tell which counts. Then nothing may be
    /// written that only one of them vouches for.
    pub(super) undecided: bool,
}

impl Archive {
    /// Opens an object: loads its manifest (from the second copy when the
    /// first is bad, which then is healed), checks it against the root that
    /// the catalog recorded, and keeps it in a bounded cache.
    ///
    /// Errors: `ManifestLost` when no copy is good.
    pub fn object(&self, reference: &ObjectRef) -> ArchiveResult<Arc<Object>> {
        let manifest = match self.shared.caches.manifest(reference) {
            Some(manifest) => manifest,
            None => {
                let copies = self.shared.read_manifests(&reference.name, Some(reference.root))?;
                self.shared.heal_manifests(&copies);
                let manifest = Arc::new(copies.manifest);
                self.shared.caches.keep_manifest(reference.clone(), manifest.clone());
                manifest
            }
        };
        Ok(Arc::new(Object::new(self.shared.clone(), manifest)?))
    }

    /// Opens an object and changes nothing, even where a copy of its manifest is bad.
    ///
    /// Errors: `ManifestLost` when no copy is good.
    pub fn inspect(&self, reference: &ObjectRef) -> ArchiveResult<Object> {
        let copies = self.shared.read_manifests(&reference.name, Some(reference.root))?;
        Object::new(self.shared.clone(), Arc::new(copies.manifest))
    }

    /// The manifest of an object that the catalog does not know (yet): its
    /// root is taken from itself.
    pub fn load_manifest(&self, name: &ObjectName) -> ArchiveResult<Manifest> {
        Ok(self.shared.read_manifests(name, None)?.manifest)
    }
}

impl Shared {
    /// Reads both copies.
    pub(super) fn read_manifests(&self, name: &ObjectName, root: Option<Digest>) -> ArchiveResult<ManifestCopies> {
        let mut good: Option<(Manifest, Vec<u8>)> = None;
        let mut bad = Vec::new();
        let mut whole = 0;
        for copy in [MANIFEST, MANIFEST_COPY] {
            let read = self.read_manifest(name, copy);
            whole += usize::from(read.is_ok());
            let read = read.and_then(|(manifest, bytes)| match root {
                Some(root) if root != manifest.root() => {
                    let why = "describes other shards than the catalog recorded".to_string();
                    Err(ArchiveError::ForeignManifest { object: name.clone(), why })
                }
                _ => Ok((manifest, bytes)),
            });
            match read {
                Ok((_, bytes)) if good.as_ref().is_some_and(|(_, first)| *first != bytes) => {
                    let why = "differs from the first copy".to_string();
                    bad.push((copy, ArchiveError::ForeignManifest { object: name.clone(), why }));
                }
                Ok(found) => {
                    good.get_or_insert(found);
                }
                Err(error) => bad.push((copy, error)),
            }
        }
        match good {
            Some((manifest, bytes)) => {
                let closed = self.descriptor.encryption.is_some() && self.keys.is_none();
                let undecided = closed && whole == 2 && !bad.is_empty();
                Ok(ManifestCopies { manifest, bytes, bad, undecided })
            }
            None => {
                let first = bad.into_iter().next().map(|(_, error)| error);
                let source = first.unwrap_or_else(|| ArchiveError::Internal("no manifest was read".into()));
                Err(ArchiveError::ManifestLost { object: name.clone(), source: Box::new(source) })
            }
        }
    }

    fn read_manifest(&self, name: &ObjectName, copy: &str) -> ArchiveResult<(Manifest, Vec<u8>)> {
        let key = self.key(&format!("{name}/{copy}"))?;
        let bytes = self.store.read(&key, MAX_MANIFEST)?;
        let mut manifest = Manifest::from_bytes(&bytes)?;
        let foreign = |why: String| Err(ArchiveError::ForeignManifest { object: name.clone(), why });
        if manifest.archive != self.descriptor.id {
            return foreign(format!("belongs to the archive {}", manifest.archive));
        }
        if manifest.name != *name {
            return foreign(format!("is that of {}", manifest.name));
        }
        self.open_manifest(&mut manifest)?;
        Ok((manifest, bytes))
    }

    /// Opens the sealed part of a manifest, where there are keys. What is not
    /// encrypted as the archive demands is refused: nobody else wrote it.
    fn open_manifest(&self, manifest: &mut Manifest) -> ArchiveResult<()> {
        let object = manifest.name.clone();
        let Some((_, epoch)) = manifest.encryption() else {
            return match self.descriptor.encryption {
                None => Ok(()),
                Some(_) => Err(ArchiveError::ForeignManifest { object, why: "is not encrypted".into() }),
            };
        };
        let Some(keys) = &self.keys else { return Ok(()) };
        let known = || Epoch::new(epoch).and_then(|epoch| keys.epoch(epoch));
        // Another process may have begun it.
        let found = known().or_else(|| {
            self.follow_ring();
            known()
        });
        let Some(keys) = found else { return Err(ArchiveError::UnknownEpoch { object, epoch }) };
        manifest.open(&keys.manifest_key())?;
        let named = keys.object_hash(&manifest.facts()?.key.hash);
        if object.hash() != Some(named) {
            return Err(ArchiveError::ForeignManifest {
                object,
                why: "describes another content than its name".into(),
            });
        }
        Ok(())
    }

    /// Rewrites bad copies, where it is known which are. Returns whether all are good now.
    pub(super) fn heal_manifests(&self, copies: &ManifestCopies) -> bool {
        if copies.undecided {
            return false;
        }
        copies.bad.iter().fold(true, |all, (copy, cause)| {
            let file = format!("{}/{copy}", copies.manifest.name);
            let result = self.key(&file).and_then(|key| Ok(self.store.write(&key, &copies.bytes)?));
            let (kind, outcome) = match &result {
                Ok(()) => (EventKind::MetadataHealed, "rewritten from the other copy".to_string()),
                Err(error) => (EventKind::HealFailed, format!("the other copy serves; rewriting failed: {error}")),
            };
            tracing::warn!(%file, %cause, outcome, "a manifest copy was bad");
            let mut event = Event::new(self.clock.now(), kind, *copy, format!("{cause}; {outcome}"));
            event.object = Some(copies.manifest.name.clone());
            self.events.record(event);
            all && result.is_ok()
        })
    }
}
