//! `cat`: a file's content, verified.

use crate::base::{ContentRange, ErrorClass};
use crate::cli::args::{ByteSpan, CatArgs};
use crate::cli::context::Context;
use crate::cli::error::{CliError, CliResult};
use crate::cli::exit::ExitStatus;
use crate::cli::namespace::resolve;
use crate::cli::output::printable;
use crate::format::NodeBody;

/// Bytes that are read and written as one.
const STEP: u64 = 1 << 20;

/// Writes the content, or a range of it, to standard output.
pub(super) fn run(context: &Context, args: &CatArgs) -> CliResult<ExitStatus> {
    let open = context.open()?;
    let (path, inode) = resolve(&open.catalog, Some(&args.path))?;
    let content = match &inode.body {
        NodeBody::File(content) => content,
        NodeBody::Directory => {
            let hint = format!("{path} is a directory; `blockframe ls` lists it, `blockframe get` copies it");
            return Err(CliError::new(ErrorClass::IsDirectory, hint));
        }
        NodeBody::Symlink(target) => {
            let hint = format!("{path} is a symbolic link to {}; name that", printable(target));
            return Err(CliError::new(ErrorClass::Invalid, hint));
        }
        _ => return Err(CliError::new(ErrorClass::Invalid, format!("{path} is no regular file"))),
    };
    let range = within(args.range, content.size, &path.to_string())?;
    if range.is_empty() {
        return Ok(ExitStatus::Done);
    }
    let Some(place) = open.catalog.place(&content.hash, content.size)? else {
        let hint = format!("{path}: no object holds its content any more; `blockframe status` tells what is lost");
        return Err(CliError::new(ErrorClass::Unrecoverable, hint));
    };
    let object = open.archive.object(&place.object)?;
    let mut at = range.start();
    let mut buffer = Vec::new();
    while at < range.end() {
        let step = ContentRange::between(place.offset + at, place.offset + (at + STEP).min(range.end()));
        let verified = object
            .read_reusing(step, std::mem::take(&mut buffer))
            .map_err(|error| CliError::from(error).context(format!("{path}: {} bytes were read before this", at)))?;
        if verified.range().len() != step.len() {
            let hint = format!("{path}: its object is shorter than the catalog says; run `blockframe rebuild-catalog`");
            return Err(CliError::new(ErrorClass::Unrecoverable, hint));
        }
        context.out().write(verified.bytes())?;
        at += step.len();
        buffer = verified.into_buffer();
    }
    context.out().flush()?;
    Ok(open.outcome())
}

fn within(asked: Option<ByteSpan>, size: u64, path: &str) -> CliResult<ContentRange> {
    let Some(ByteSpan { start, end }) = asked else { return Ok(ContentRange::between(0, size)) };
    if start > size {
        let hint = format!("{path} has {size} bytes; byte {start} is past its end");
        return Err(CliError::new(ErrorClass::NoSuchRange, hint));
    }
    Ok(ContentRange::between(start, end.unwrap_or(size).min(size)))
}
