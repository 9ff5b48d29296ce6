//! The bytes of a frozen content: those in staging, and those of the object
//! that it lies over, read verified and past the caches.

use crate::archive::{Archive, ArchiveError, ContentSource, Object};
use crate::base::{ContentHash, ContentRange};
use crate::catalog::{Catalog, ContentPlace};
use crate::format::entry::MAX_EXTENTS;
use crate::format::{FileContent, ObjectKind};
use crate::staging::{FrozenContent, Source, StagingError};
use crate::vfs::error;
use blockframe_api::{ErrorClass, VfsError, VfsResult};
use std::io;
use std::sync::Arc;

/// Bytes that are read at once to be hashed.
const CHUNK: usize = 1 << 20;

/// See the module.
#[derive(Debug)]
pub(super) struct FrozenSource {
    frozen: FrozenContent,
    base: Option<BaseObject>,
    /// Where data is; `None`: everywhere.
    extents: Option<Vec<ContentRange>>,
}

/// The object that holds the content below.
#[derive(Debug)]
struct BaseObject {
    object: Arc<Object>,
    place: ContentPlace,
}

/// Why bytes cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    #[error(transparent)]
    Staging(#[from] StagingError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

impl SourceError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Staging(error) => error.class(),
            Self::Archive(error) => error.class(),
        }
    }
}

impl FrozenSource {
    /// The content over `base`, whose object is opened when bytes of it are needed.
    pub(super) fn open(
        archive: &Archive,
        catalog: &Catalog,
        frozen: FrozenContent,
        base: &FileContent,
        path: &str,
    ) -> VfsResult<Self> {
        let sources = frozen.sources();
        let needs_base = sources.iter().any(|(_, source)| *source == Source::Base);
        let base_object = match needs_base {
            true => {
                let place = catalog.place(&base.hash, base.size).map_err(|error| error::of_catalog(&error))?;
                let place = place.ok_or_else(|| error::content_missing(path))?;
                let object = archive.object(&place.object).map_err(|error| error::of_commit(&error))?;
                Some(BaseObject { object, place })
            }
            false => None,
        };
        let extents = extents(&sources, base, frozen.size());
        Ok(Self { frozen, base: base_object, extents })
    }

    /// The content, with a hash that is perhaps not known yet.
    pub(super) fn content(&self, hash: ContentHash) -> FileContent {
        FileContent { size: self.len(), hash, extents: self.extents.clone() }
    }

    /// The object of which this is an edit, and the ranges that do not come from it.
    pub(super) fn difference(&self) -> Option<(&Object, Vec<ContentRange>)> {
        let BaseObject { object, .. } = self.base.as_ref()?;
        (object.kind() == ObjectKind::File).then(|| (&**object, self.frozen.changed_ranges()))
    }

    /// All bytes. Meant for short files.
    pub(super) fn read_all(&self) -> VfsResult<Vec<u8>> {
        let mut bytes = vec![0; self.len() as usize];
        self.read_at(0, &mut bytes).map_err(of_source)?;
        Ok(bytes)
    }

    /// BLAKE3 of all bytes; `go_on` is asked now and then.
    pub(super) fn hash(&self, go_on: &dyn Fn() -> VfsResult<()>) -> VfsResult<ContentHash> {
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; CHUNK];
        let mut at = 0;
        while at < self.len() {
            go_on()?;
            let len = (self.len() - at).min(CHUNK as u64) as usize;
            self.read_at(at, &mut buffer[..len]).map_err(of_source)?;
            hasher.update(&buffer[..len]);
            at += len as u64;
        }
        Ok(hasher.finalize().into())
    }

    fn fill(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, SourceError> {
        let mut memory = Vec::new();
        self.frozen.read(offset, buffer, &mut |range: ContentRange, buffer: &mut [u8]| {
            let lost =
                || SourceError::Archive(ArchiveError::Internal("staged content without what it lies over".into()));
            let base = self.base.as_ref().ok_or_else(lost)?;
            let start = base.place.offset.checked_add(range.start()).ok_or_else(lost)?;
            let place = ContentRange::new(start, range.len()).ok_or_else(lost)?;
            let verified = base.object.read_reusing(place, std::mem::take(&mut memory))?;
            if verified.bytes().len() != buffer.len() {
                return Err(lost());
            }
            buffer.copy_from_slice(verified.bytes());
            memory = verified.into_buffer();
            Ok(())
        })
    }
}

impl ContentSource for FrozenSource {
    fn len(&self) -> u64 {
        self.frozen.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let read = self.fill(offset, buffer).map_err(io::Error::other)?;
        if read == buffer.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn data_ranges(&self) -> Option<&[ContentRange]> {
        self.extents.as_deref()
    }
}

/// A failed read of a [`FrozenSource`].
fn of_source(error: io::Error) -> VfsError {
    let class = error.get_ref().and_then(|cause| cause.downcast_ref::<SourceError>()).map(SourceError::class);
    VfsError::new(class.unwrap_or(ErrorClass::Unavailable), error.to_string())
}

/// A failed writing of an object whose bytes come from a [`FrozenSource`].
pub(super) fn of_writing(error: ArchiveError) -> VfsError {
    match error {
        ArchiveError::Source(error) => of_source(error),
        error => error::of_commit(&error),
    }
}

/// The ranges that hold data: what is staged, and of the base what is no hole
/// there. `None` when all does, or when they are too many to keep.
fn extents(sources: &[(ContentRange, Source)], base: &FileContent, size: u64) -> Option<Vec<ContentRange>> {
    let mut extents: Vec<ContentRange> = Vec::new();
    let mut add = |range: ContentRange| match extents.last_mut() {
        _ if range.is_empty() => {}
        Some(last) if last.end() == range.start() => *last = ContentRange::between(last.start(), range.end()),
        _ => extents.push(range),
    };
    for (range, source) in sources {
        match (source, &base.extents) {
            (Source::Zeros, _) => {}
            (Source::Base, Some(data)) => {
                let first = data.partition_point(|extent| extent.end() <= range.start());
                let touched = data[first..].iter().take_while(|extent| extent.start() < range.end());
                touched.for_each(|extent| add(extent.intersect(*range)));
            }
            (Source::Base, None) | (Source::Staged, _) => add(*range),
        }
    }
    (extents.len() <= MAX_EXTENTS && extents != [ContentRange::between(0, size)]).then_some(extents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The model: a flag for each byte.
        #[test]
        fn data_is_where_staging_or_the_base_has_some(
            lens in proptest::collection::vec((1u64..20, 0usize..3), 0..12),
            holes in proptest::option::of(proptest::collection::vec((1u64..8, 1u64..8), 0..12)),
        ) {
            let kinds = [Source::Staged, Source::Base, Source::Zeros];
            let mut at = 0;
            let mut sources: Vec<(ContentRange, Source)> = Vec::new();
            for (len, kind) in lens {
                sources.push((ContentRange::between(at, at + len), kinds[kind]));
                at += len;
            }
            let size = at;
            let base_extents = holes.map(|pairs| {
                let mut at = 0;
                let extent = |(gap, len): (u64, u64)| {
                    let range = ContentRange::between(at + gap, at + gap + len);
                    at = range.end();
                    range
                };
                pairs.into_iter().map(extent).collect::<Vec<_>>()
            });
            let in_base = |byte: u64| {
                base_extents.as_ref().is_none_or(|extents| extents.iter().any(|e| e.start() <= byte && byte < e.end()))
            };
            let expected: Vec<bool> = (0..size)
                .map(|byte| {
                    let (_, source) = sources.iter().find(|(range, _)| byte < range.end()).unwrap();
                    *source == Source::Staged || (*source == Source::Base && in_base(byte))
                })
                .collect();
            let base = FileContent { size: 1000, hash: ContentHash::of(b""), extents: base_extents.clone() };
            let found = extents(&sources, &base, size);
            let shown: Vec<bool> = (0..size)
                .map(|byte| found.as_ref().is_none_or(|extents| extents.iter().any(|e| e.start() <= byte && byte < e.end())))
                .collect();
            prop_assert_eq!(shown, expected);
            let found = found.unwrap_or_default();
            prop_assert!(found.windows(2).all(|pair| pair[0].end() < pair[1].start()));
        }
    }
}
