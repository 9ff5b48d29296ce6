//! A file's bytes from the archive, in verified steps.

use super::{IngestError, IngestResult};
use crate::archive::Archive;
use crate::base::ContentRange;
use crate::catalog::{Catalog, CatalogError, ContentPlace};
use crate::format::{EntryPath, FileContent};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes read in one step: bounds memory, and how much is lost by an interrupt.
const STEP: u64 = 1024 * 1024;

/// Gives the bytes of `range` (cut at the content's end) of a file's content
/// to `sink`, in order, all of them verified. `path` is for messages.
///
/// Errors: `Output` when the sink fails, `Interrupted` when `cancel` is set.
pub fn stream(
    archive: &Archive,
    catalog: &Catalog,
    path: &EntryPath,
    content: &FileContent,
    range: ContentRange,
    cancel: &AtomicBool,
    sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> IngestResult<()> {
    let range = range.clamp_to(content.size);
    if range.is_empty() {
        return Ok(());
    }
    let missing = || CatalogError::ContentMissing { path: path.clone() };
    let find = || -> IngestResult<_> { Ok(catalog.place(&content.hash, content.size)?.ok_or_else(missing)?) };
    let mut place = find()?;
    let mut at = range.start();
    while at < range.end() {
        if cancel.load(Ordering::Relaxed) {
            return Err(IngestError::Interrupted);
        }
        // Steps end at whole steps, so that no leaf is read twice.
        let end = (at / STEP + 1).saturating_mul(STEP).min(range.end());
        let read = |place: &ContentPlace| -> IngestResult<_> {
            let range = place.offset.checked_add(at).and_then(|start| ContentRange::new(start, end - at));
            Ok(archive.object(&place.object)?.read(range.ok_or_else(missing)?)?)
        };
        let bytes = match read(&place) {
            Ok(bytes) => bytes,
            Err(error) => {
                // The content may have got another object, and the old one been deleted.
                let now = find()?;
                if now.object == place.object {
                    return Err(error);
                }
                place = now;
                read(&place)?
            }
        };
        if bytes.bytes().len() as u64 != end - at {
            return Err(missing().into());
        }
        sink(bytes.bytes()).map_err(IngestError::Output)?;
        at = end;
    }
    Ok(())
}
