//! `commit`: files, trees and standard input go into the archive.

use crate::archive::Verdict;
use crate::base::{ErrorClass, ObjectName};
use crate::cli::args::CommitArgs;
use crate::cli::context::{Context, OpenArchive};
use crate::cli::error::{CliError, CliResult, chain};
use crate::cli::exit::ExitStatus;
use crate::cli::interrupt::Interrupt;
use crate::cli::namespace::parse_path;
use crate::cli::output::{JsonPath, Output, Progress};
use crate::cli::units;
use crate::cli::writes::{Newest, settle, writes};
use crate::control::Purpose;
use crate::format::EntryPath;
use crate::ingest::{self, CommitItem, CommitReport, CommitRequest, FileReport, Outcome, Reporter};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Commits what the arguments name.
pub(super) fn run(context: &Context, args: &CommitArgs) -> CliResult<ExitStatus> {
    let out = context.out();
    let directory = match &args.to {
        Some(directory) => parse_path(directory)?,
        None => EntryPath::root(),
    };
    let open = context.open()?;
    settle(context, &open, Newest::Names)?;
    let items = items(args, &open, &directory)?;
    let interrupt = Interrupt::install()?;
    let writer = writes(&open, Purpose::Commit)?;
    let reporter = Printer { out, open: &open, progress: out.progress("committing", 0) };
    let lost = |object: &ObjectName| matches!(open.health.verified(object), Ok(Some((_, Verdict::Unrecoverable))));
    let exclude = vec![open.directory.clone()];
    let compression = context.config().compression.rules(open.archive.descriptor().compression)?;
    let request = CommitRequest { items, exclude, cancel: interrupt.flag(), lost: &lost, compression: &compression };
    let result = ingest::commit(&open.archive, &*writer, request, &reporter);
    reporter.progress.finish();
    // Also after an error: what was stored is recorded, and the next commit continues from there.
    let finished = writer.finish();
    let report = result?;
    finished?;
    summary(out, &report)?;
    Ok(if report.failed > 0 { ExitStatus::Failed } else { ExitStatus::Done })
}

fn items(args: &CommitArgs, open: &OpenArchive, directory: &EntryPath) -> CliResult<Vec<CommitItem>> {
    let mut items = Vec::new();
    for path in args.files.iter().chain(&args.paths) {
        if path != Path::new("-") {
            items.push(CommitItem::from_path(path.clone(), directory)?);
            continue;
        }
        let Some(name) = &args.name else {
            let hint = "standard input needs a name in the archive: `blockframe commit - --name NAME`";
            return Err(CliError::new(ErrorClass::Invalid, hint));
        };
        let now = open.archive.clock().now();
        items.push(CommitItem::from_stream(Box::new(std::io::stdin()), name.as_bytes(), directory, now)?);
    }
    if args.name.is_some() && !args.files.iter().chain(&args.paths).any(|path| path == Path::new("-")) {
        let hint = "--name names standard input; add `-` to read it";
        return Err(CliError::new(ErrorClass::Invalid, hint));
    }
    Ok(items)
}

/// Prints a line per file.
struct Printer<'a> {
    out: &'a Output,
    open: &'a OpenArchive,
    progress: Progress,
}

impl Reporter for Printer<'_> {
    fn wants_total(&self) -> bool {
        self.progress.is_shown()
    }

    fn total(&self, _files: u64, bytes: u64) {
        self.progress.set_total(bytes);
    }

    fn advance(&self, bytes: u64) {
        self.progress.advance(bytes);
    }

    fn object_replaced(&self, object: &ObjectName) {
        let now = self.open.archive.clock().now();
        if let Err(error) = self.open.health.set_verified(object, now, Verdict::Healthy) {
            tracing::warn!(%object, %error, "the health log still calls this object lost");
        }
    }

    fn file(&self, report: &FileReport) {
        // A listing that nobody reads any more must not stop the commit.
        let _ = self.progress.suspend(|| print_file(self.out, report));
    }
}

fn print_file(out: &Output, report: &FileReport) -> CliResult<()> {
    let (word, problem) = match &report.outcome {
        Outcome::Stored => ("stored", None),
        Outcome::Duplicate => ("duplicate", None),
        Outcome::Unchanged => ("unchanged", None),
        Outcome::Failed(problem) => ("failed", Some(chain(problem))),
    };
    if let Some(problem) = &problem {
        tracing::error!("{} was not committed: {problem}", report.source.display());
    }
    if out.is_json() {
        return out.json(&serde_json::json!({
            "file": JsonPath::new(report.path.as_bytes()),
            "source": JsonPath::new(report.source.as_os_str().as_bytes()),
            "tier": report.tier,
            "size": report.size,
            "hash": report.hash,
            "outcome": word,
            "problem": problem,
        }));
    }
    let Some(hash) = report.hash else { return Ok(()) };
    let tier = report.tier.map_or("-".into(), |tier| tier.to_string());
    let mut line = out.name(report.path.as_bytes());
    line.extend_from_slice(format!("  tier {tier}  {}  {hash}  {word}", units::size(report.size)).as_bytes());
    out.raw_line(&line)
}

fn summary(out: &Output, report: &CommitReport) -> CliResult<()> {
    let files = report.stored + report.duplicates + report.unchanged;
    out.line(format_args!(
        "{} ({}): {} stored, {} duplicate, {} unchanged; {} new on the store in {}; {} failed",
        units::plural(files, "file"),
        units::size(report.bytes),
        report.stored,
        report.duplicates,
        report.unchanged,
        units::size(report.stored_bytes),
        units::plural(report.objects, "object"),
        report.failed,
    ))?;
    out.json(&serde_json::json!({
        "summary": true,
        "stored": report.stored,
        "duplicates": report.duplicates,
        "unchanged": report.unchanged,
        "failed": report.failed,
        "others": report.others,
        "bytes": report.bytes,
        "objects": report.objects,
        "stored_bytes": report.stored_bytes,
        "names_created": report.summary.created,
        "names_changed": report.summary.changed,
        "names_unchanged": report.summary.unchanged,
    }))
}
