//! `get`: files and trees come out of the archive, with their attributes.

use crate::base::ErrorClass;
use crate::cli::args::GetArgs;
use crate::cli::context::Context;
use crate::cli::error::{CliError, CliResult, chain};
use crate::cli::exit::ExitStatus;
use crate::cli::history::remembered;
use crate::cli::interrupt::Interrupt;
use crate::cli::namespace::{parse_path, resolve_at, walk_at};
use crate::cli::output::{JsonPath, Output, Progress};
use crate::cli::units;
use crate::cli::writes::{Newest, settle};
use crate::format::NodeBody;
use crate::ingest::{self, Problem, RestoreOutcome, RestoreReport, RestoreReporter, RestoreRequest, Restored};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// Copies what the arguments name to the last of them.
pub(super) fn run(context: &Context, args: &GetArgs) -> CliResult<ExitStatus> {
    let out = context.out();
    let Some((destination, paths)) = args.paths.split_last() else {
        return Err(CliError::new(ErrorClass::Invalid, "name what to get, and where to put it"));
    };
    let paths = paths.iter().map(|path| parse_path(path)).collect::<CliResult<Vec<_>>>()?;
    let open = context.open()?;
    settle(context, &open, Newest::Contents(crate::format::EntryPath::root()))?;
    let at = remembered(&open, args.at)?;
    let interrupt = Interrupt::install()?;
    let progress = out.progress("restoring", 0);
    if progress.is_shown() {
        let mut total = 0;
        for path in &args.paths[..paths.len()] {
            let (path, inode) = resolve_at(&open.catalog, Some(path), at)?;
            total += inode.attributes().size;
            if inode.is_directory() {
                walk_at(&open.catalog, inode.node, &path, at, &mut |_, inode| {
                    total += if matches!(inode.body, NodeBody::File(_)) { inode.attributes().size } else { 0 };
                    Ok(())
                })?;
            }
        }
        progress.set_total(total);
    }
    let reporter = Printer { out, progress, lost: AtomicBool::new(false) };
    let request = RestoreRequest { paths, destination: PathBuf::from(destination), at, cancel: interrupt.flag() };
    let result = ingest::restore(&open.archive, &open.catalog, &request, &reporter);
    reporter.progress.finish();
    let report = result?;
    summary(out, &report)?;
    Ok(match (reporter.lost.load(Ordering::Relaxed), report.failed) {
        (true, _) => ExitStatus::DataLost,
        (false, 1..) => ExitStatus::Failed,
        (false, 0) => open.outcome(),
    })
}

/// Tells of every entry: in JSON of all, to people of what failed.
struct Printer<'a> {
    out: &'a Output,
    progress: Progress,
    /// Whether some content is gone.
    lost: AtomicBool,
}

impl RestoreReporter for Printer<'_> {
    fn advance(&self, bytes: u64) {
        self.progress.advance(bytes);
    }

    fn entry(&self, restored: &Restored) {
        let (word, problem) = match &restored.outcome {
            RestoreOutcome::Written => ("written", None),
            RestoreOutcome::AlreadyThere => ("already_there", None),
            RestoreOutcome::Failed(problem) => ("failed", Some(chain(problem))),
        };
        if let RestoreOutcome::Failed(Problem::Content(error)) = &restored.outcome
            && error.class() == ErrorClass::Unrecoverable
        {
            self.lost.store(true, Ordering::Relaxed);
        }
        if let Some(problem) = &problem {
            tracing::error!("{} was not restored: {problem}", restored.path);
        }
        // A listing that nobody reads any more must not stop the restore.
        let _ = self.out.json(&serde_json::json!({
            "file": JsonPath::new(restored.path.as_bytes()),
            "target": JsonPath::new(restored.target.as_os_str().as_bytes()),
            "size": restored.size,
            "outcome": word,
            "problem": problem,
        }));
    }
}

fn summary(out: &Output, report: &RestoreReport) -> CliResult<()> {
    if report.attributes_refused > 0 {
        tracing::warn!(
            "{} could not be set (owners need root, and some filesystems know no extended attributes)",
            units::plural(report.attributes_refused, "attribute")
        );
    }
    out.line(format_args!(
        "{} written ({}), {} there already, {} failed",
        units::plural(report.written, "entry"),
        units::size(report.bytes),
        report.already_there,
        report.failed
    ))?;
    out.json(&serde_json::json!({
        "summary": true,
        "written": report.written,
        "already_there": report.already_there,
        "failed": report.failed,
        "bytes": report.bytes,
        "attributes_refused": report.attributes_refused,
    }))
}
