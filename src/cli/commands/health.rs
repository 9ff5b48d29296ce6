//! `health` and `repair`: look at stored data, say what is damaged, mend it.

use super::damage::DamageReport;
use crate::archive::{ArchiveError, Depth, ObjectHealth, RepairOutcome, RepairPlan, RepairStep, Verdict};
use crate::base::ObjectName;
use crate::catalog::ObjectRecord;
use crate::cli::args::{Budget, HealthArgs, RepairArgs};
use crate::cli::context::{Context, OpenArchive};
use crate::cli::error::{CliError, CliResult};
use crate::cli::exit::ExitStatus;
use crate::cli::interrupt::Interrupt;
use crate::cli::namespace::{resolve, walk};
use crate::cli::output::{Output, Progress};
use crate::cli::units;
use crate::format::{EntryPath, NodeBody};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::time::Instant;

/// Counts of what was looked at.
#[derive(Debug)]
struct Tally {
    worst: Verdict,
    objects: u64,
    damaged: u64,
    verified: u64,
    complete: bool,
    metadata: Vec<String>,
}

impl Tally {
    fn new(metadata: Vec<String>) -> Self {
        let worst = if metadata.is_empty() { Verdict::Healthy } else { Verdict::Degraded };
        Self { worst, objects: 0, damaged: 0, verified: 0, complete: true, metadata }
    }

    fn add(&mut self, verdict: Verdict, verified: u64) {
        self.worst = self.worst.max(verdict);
        self.objects += 1;
        self.damaged += u64::from(verdict != Verdict::Healthy);
        self.verified += verified;
    }
}

/// What was found of one object.
enum Found {
    Looked(ObjectHealth),
    /// There is no manifest to look at it with.
    Lost(ArchiveError),
}

impl Found {
    fn verdict(&self) -> Verdict {
        match self {
            Found::Looked(health) => health.verdict,
            Found::Lost(_) => Verdict::Unrecoverable,
        }
    }
}

/// Verifies, and changes nothing on the store.
pub(super) fn health(context: &Context, args: &HealthArgs) -> CliResult<ExitStatus> {
    let open = context.open()?;
    let out = context.out();
    let interrupt = Interrupt::install()?;
    let depth = if args.quick { Depth::Quick } else { Depth::Full };
    let records = select(&open, args.path.as_deref(), args.budget.is_some())?;
    let progress = out.progress("verifying", records.iter().map(|record| record.stored_len).sum());
    let started = Instant::now();
    let mut tally = Tally::new(if args.path.is_none() { open.catalog.verify_journal(false)? } else { Vec::new() });
    for record in &records {
        let spent = match args.budget {
            Some(Budget::Bytes(limit)) => tally.verified >= limit,
            Some(Budget::Time(limit)) => started.elapsed() >= limit,
            None => false,
        };
        if spent || interrupt.asked() {
            tally.complete = false;
            break;
        }
        let found = look(&open, record, depth, &progress)?;
        note(&open, record, depth, &found)?;
        tally.add(found.verdict(), verified(&found));
        if let Some(report) = report(&open, record, &found)? {
            report.print(out)?;
        }
    }
    progress.finish();
    summary(out, &tally)?;
    if interrupt.asked() {
        return Ok(ExitStatus::Interrupted);
    }
    Ok(ExitStatus::of_verdict(tally.worst))
}

/// Makes a plan from what is damaged, prints it, and executes it unless it is a dry run.
pub(super) fn repair(context: &Context, args: &RepairArgs) -> CliResult<ExitStatus> {
    let open = context.open()?;
    let out = context.out();
    let interrupt = Interrupt::install()?;
    let records = select(&open, args.path.as_deref(), false)?;
    let progress = out.progress("verifying", records.iter().map(|record| record.stored_len).sum());
    let metadata = if args.path.is_none() { open.catalog.verify_journal(!args.dry_run)? } else { Vec::new() };
    let mut tally = Tally::new(metadata);
    let mut total = RepairOutcome::default();
    for record in &records {
        if interrupt.asked() {
            tally.complete = false;
            break;
        }
        let found = look(&open, record, Depth::Full, &progress)?;
        note(&open, record, Depth::Full, &found)?;
        tally.add(found.verdict(), verified(&found));
        if let Found::Looked(health) = &found
            && health.verdict != Verdict::Healthy
        {
            let plan = health.plan(&open.archive)?;
            print_plan(out, &plan)?;
            if !args.dry_run {
                total += open.archive.execute(&plan, &|step| tracing::info!(?step, "repairing"))?;
                let after = look(&open, record, Depth::Full, &out.progress("verifying", 0))?;
                note(&open, record, Depth::Full, &after)?;
            }
        }
        if found.verdict() == Verdict::Unrecoverable
            && let Some(report) = report(&open, record, &found)?
        {
            report.print(out)?;
        }
    }
    progress.finish();
    summary(out, &tally)?;
    repaired(out, &total, args.dry_run)?;
    Ok(match (interrupt.asked(), total.failed, tally.worst) {
        (true, ..) => ExitStatus::Interrupted,
        (_, _, Verdict::Unrecoverable) => ExitStatus::DataLost,
        (_, 1.., _) => ExitStatus::Failed,
        (.., worst) => ExitStatus::of_verdict(worst),
    })
}

/// The objects of a path, or all of them; those unverified for longest first when that matters.
fn select(open: &OpenArchive, path: Option<&OsStr>, oldest_first: bool) -> CliResult<Vec<ObjectRecord>> {
    let wanted = match path {
        Some(_) => Some(objects_below(open, path)?),
        None => None,
    };
    let mut records = Vec::new();
    open.catalog.objects(None, &mut |record| {
        if wanted.as_ref().is_none_or(|wanted| wanted.contains(&record.reference.name)) {
            records.push(record);
        }
        true
    })?;
    if oldest_first {
        let mut dated = Vec::with_capacity(records.len());
        for record in records {
            dated.push((open.health.verified(&record.reference.name)?.map(|(at, _)| at), record));
        }
        dated.sort_by_key(|(at, _)| *at);
        records = dated.into_iter().map(|(_, record)| record).collect();
    }
    Ok(records)
}

fn objects_below(open: &OpenArchive, path: Option<&OsStr>) -> CliResult<HashSet<ObjectName>> {
    let (path, inode) = resolve(&open.catalog, path)?;
    let mut names = HashSet::new();
    let mut add = |_: &EntryPath, inode: &crate::catalog::Inode| {
        if let NodeBody::File(content) = &inode.body
            && let Some(place) = open.catalog.place(&content.hash, content.size)?
        {
            names.insert(place.object.name);
        }
        Ok(())
    };
    if inode.is_directory() {
        walk(&open.catalog, inode.node, &path, &mut add)?;
    } else {
        add(&path, &inode)?;
    }
    Ok(names)
}

fn look(open: &OpenArchive, record: &ObjectRecord, depth: Depth, progress: &Progress) -> CliResult<Found> {
    match open.archive.object_health(&record.reference, depth, &|bytes| progress.advance(bytes)) {
        Ok(health) => Ok(Found::Looked(health)),
        // The archive answers: it is this object that is lost, and the others are still to be looked at.
        Err(error @ (ArchiveError::ManifestLost { .. } | ArchiveError::ForeignManifest { .. })) => {
            Ok(Found::Lost(error))
        }
        Err(error) => Err(CliError::from(error)),
    }
}

/// Remembers a full verification for `status`, and for what is verified next.
fn note(open: &OpenArchive, record: &ObjectRecord, depth: Depth, found: &Found) -> CliResult<()> {
    if depth == Depth::Full {
        let now = open.archive.clock().now();
        // A log that cannot be written (a read-only archive) must not stop the verification.
        if let Err(error) = open.health.set_verified(&record.reference.name, now, found.verdict()) {
            tracing::warn!(%error, "cannot remember the verification");
        }
    }
    Ok(())
}

fn verified(found: &Found) -> u64 {
    match found {
        Found::Looked(health) => health.verified,
        Found::Lost(_) => 0,
    }
}

fn report(open: &OpenArchive, record: &ObjectRecord, found: &Found) -> CliResult<Option<DamageReport>> {
    Ok(match found {
        Found::Looked(health) if health.verdict == Verdict::Healthy => None,
        Found::Looked(health) => Some(DamageReport::new(&open.archive, &open.catalog, record, health)?),
        Found::Lost(error) => Some(DamageReport::lost(&open.catalog, record, error)?),
    })
}

fn summary(out: &Output, tally: &Tally) -> CliResult<()> {
    for problem in &tally.metadata {
        out.line(format_args!("catalog journal: {problem}"))?;
    }
    let partial = if tally.complete { "" } else { " (not all was looked at)" };
    out.line(format_args!(
        "{}: {} looked at, {} damaged, {} verified{partial}",
        tally.worst.word(),
        units::plural(tally.objects, "object"),
        tally.damaged,
        units::size(tally.verified),
    ))?;
    out.json(&serde_json::json!({
        "summary": true,
        "verdict": tally.worst,
        "objects": tally.objects,
        "damaged": tally.damaged,
        "verified_bytes": tally.verified,
        "complete": tally.complete,
        "journal_problems": tally.metadata,
    }))
}

fn print_plan(out: &Output, plan: &RepairPlan) -> CliResult<()> {
    out.line(format_args!("object {}", plan.object.name))?;
    let mut steps = Vec::new();
    for step in &plan.steps {
        let (action, file, leaves) = match step {
            RepairStep::Manifest { copy } => ("copy_manifest", (*copy).to_string(), 0),
            RepairStep::Leaves { file, leaves, .. } => ("decode_leaves", file.clone(), leaves.len()),
            RepairStep::Shard { file, .. } => ("write_shard", file.clone(), 0),
            RepairStep::Tree { file, .. } => ("write_tree", file.clone(), 0),
        };
        let what = match step {
            RepairStep::Manifest { .. } => "copy from the other manifest".to_string(),
            RepairStep::Leaves { leaves, .. } => {
                format!("decode {} of 16 KiB in place", units::plural(leaves.len() as u64, "piece"))
            }
            RepairStep::Shard { len, why, .. } => format!("write anew, {} ({why})", units::size(*len)),
            RepairStep::Tree { .. } => "make the leaf hashes anew".to_string(),
        };
        out.line(format_args!("  {file}: {what}"))?;
        steps.push(serde_json::json!({ "action": action, "file": file, "leaves": leaves }));
    }
    out.json(&serde_json::json!({ "object": plan.object.name, "steps": steps, "leaves_losses": plan.leaves_losses }))
}

fn repaired(out: &Output, total: &RepairOutcome, dry_run: bool) -> CliResult<()> {
    if dry_run {
        out.line("Nothing was written: this was a dry run.")?;
    } else if total.done + total.failed > 0 {
        let written = units::size(total.written);
        out.line(format_args!("{} steps done, {} failed, {written} written", total.done, total.failed))?;
    }
    out.json(&serde_json::json!({
        "repair": true, "dry_run": dry_run, "done": total.done, "failed": total.failed, "written_bytes": total.written,
    }))
}
