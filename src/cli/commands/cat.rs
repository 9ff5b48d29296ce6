//! `cat`: a file's content, verified.

use crate::base::{ContentRange, ErrorClass};
use crate::cli::args::{ByteSpan, CatArgs};
use crate::cli::context::Context;
use crate::cli::error::{CliError, CliResult};
use crate::cli::exit::ExitStatus;
use crate::cli::history;
use crate::cli::namespace::{parse_path, resolve_at};
use crate::cli::output::printable;
use crate::cli::writes::{Newest, settle};
use crate::format::{EntryPath, NodeBody};
use crate::ingest;
use std::sync::atomic::AtomicBool;

/// Writes the content, or a range of it, to standard output.
pub(super) fn run(context: &Context, args: &CatArgs) -> CliResult<ExitStatus> {
    let open = context.open()?;
    settle(context, &open, Newest::Contents(parse_path(&args.path)?))?;
    let at = history::remembered(&open, args.at)?;
    let (path, inode) = resolve_at(&open.catalog, Some(&args.path), at)?;
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
    let range = within(args.range, content.size, &path)?;
    // Ctrl-C ends the process: there is nothing to be resumed.
    let never = AtomicBool::new(false);
    let out = context.out();
    let mut sink = |bytes: &[u8]| out.write_bytes(bytes);
    ingest::stream(&open.archive, &open.catalog, &path, content, range, &never, &mut sink)?;
    out.flush()?;
    Ok(open.outcome())
}

fn within(asked: Option<ByteSpan>, size: u64, path: &EntryPath) -> CliResult<ContentRange> {
    let Some(ByteSpan { start, end }) = asked else { return Ok(ContentRange::between(0, size)) };
    if start > size {
        let hint = format!("{path} has {size} bytes; byte {start} is past its end");
        return Err(CliError::new(ErrorClass::NoSuchRange, hint));
    }
    Ok(ContentRange::between(start, end.unwrap_or(size).min(size)))
}
