//! `health` and `repair`: look at stored data, say what is damaged, mend it.

use super::damage::DamageReport;
use crate::archive::{Depth, ObjectHealth, RepairOutcome, RepairPlan, RepairStep, Verdict};
use crate::base::ObjectName;
use crate::cli::args::{Budget, HealthArgs, RepairArgs};
use crate::cli::care::Care;
use crate::cli::context::Context;
use crate::cli::error::{CliResult, chain};
use crate::cli::exit::ExitStatus;
use crate::cli::interrupt::Interrupt;
use crate::cli::namespace::{resolve, walk};
use crate::cli::output::{Output, Table, printable};
use crate::cli::units;
use crate::format::{EntryPath, NodeBody};
use crate::scrub::{Finding, Strangers, Subject, Survey, strangers};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// The words, best first.
const WORDS: [Verdict; 4] = [Verdict::Healthy, Verdict::Degraded, Verdict::Recoverable, Verdict::Unrecoverable];

/// Counts of what was looked at.
#[derive(Debug)]
struct Tally {
    worst: Verdict,
    objects: u64,
    /// Objects for each of [`WORDS`].
    words: [u64; 4],
    damaged: u64,
    /// Objects that could not be looked at.
    failed: u64,
    verified: u64,
    complete: bool,
    metadata: Vec<String>,
}

impl Tally {
    fn new(metadata: Vec<String>) -> Self {
        let worst = if metadata.is_empty() { Verdict::Healthy } else { Verdict::Degraded };
        Self { worst, objects: 0, words: [0; 4], damaged: 0, failed: 0, verified: 0, complete: true, metadata }
    }

    fn add(&mut self, finding: &Finding) {
        let Some(verdict) = verdict(finding) else {
            self.failed += 1;
            return;
        };
        self.worst = self.worst.max(verdict);
        self.objects += 1;
        for (word, count) in WORDS.iter().zip(&mut self.words) {
            *count += u64::from(*word == verdict);
        }
        self.damaged += u64::from(verdict != Verdict::Healthy);
        if let Finding::Looked(health) = finding {
            self.verified += health.verified;
        }
    }

    fn status(&self) -> ExitStatus {
        match ExitStatus::of_verdict(self.worst) {
            ExitStatus::Done if self.failed > 0 => ExitStatus::Failed,
            status => status,
        }
    }
}

/// Verifies, and changes nothing on the store.
pub(super) fn health(context: &Context, args: &HealthArgs) -> CliResult<ExitStatus> {
    let care = context.open_for_care(args.path.is_some())?;
    let out = context.out();
    let interrupt = Interrupt::install()?;
    let depth = if args.quick { Depth::Quick } else { Depth::Full };
    let subjects = select(&care, args.path.as_deref(), args.budget.is_some())?;
    let progress = out.progress("verifying", subjects.iter().map(|subject| subject.stored_len).sum());
    let mut tally = Tally::new(if args.path.is_none() { metadata(&care, false)? } else { Vec::new() });
    let read = AtomicU64::new(0);
    let started = Instant::now();
    let stop = || interrupt.asked();
    let enough = || match args.budget {
        Some(Budget::Bytes(limit)) => read.load(Ordering::Relaxed) >= limit,
        Some(Budget::Time(limit)) => started.elapsed() >= limit,
        None => false,
    };
    let count = |bytes| {
        read.fetch_add(bytes, Ordering::Relaxed);
        progress.advance(bytes);
    };
    let survey = Survey { archive: &care.archive, depth, progress: &count, stop: &stop, enough: &enough };
    tally.complete = survey.run(subjects.into_iter(), &mut |subject, finding| -> CliResult<()> {
        if is_gone(&care, &subject, &finding)? {
            return Ok(());
        }
        note(&care, &subject, depth, &finding);
        tally.add(&finding);
        match report(&care, &subject, &finding)? {
            Some(report) => progress.suspend(|| report.print(out)),
            None => Ok(()),
        }
    })?;
    progress.finish();
    summary(out, &tally, care.staged()?)?;
    if args.path.is_none() {
        tell_strangers(&care, out)?;
    }
    Ok(if interrupt.asked() { ExitStatus::Interrupted } else { tally.status() })
}

/// Makes a plan from what is damaged, prints it, and executes it unless it is a dry run.
pub(super) fn repair(context: &Context, args: &RepairArgs) -> CliResult<ExitStatus> {
    let care = context.open_for_care(args.path.is_some())?;
    let out = context.out();
    let interrupt = Interrupt::install()?;
    let subjects = select(&care, args.path.as_deref(), false)?;
    let progress = out.progress("verifying", subjects.iter().map(|subject| subject.stored_len).sum());
    let metadata = if args.path.is_none() { metadata(&care, !args.dry_run)? } else { Vec::new() };
    let mut tally = Tally::new(metadata);
    let mut total = RepairOutcome::default();
    let (stop, count) = (|| interrupt.asked(), |bytes| progress.advance(bytes));
    let survey =
        Survey { archive: &care.archive, depth: Depth::Full, progress: &count, stop: &stop, enough: &|| false };
    tally.complete = survey.run(subjects.into_iter(), &mut |subject, finding| -> CliResult<()> {
        if is_gone(&care, &subject, &finding)? {
            return Ok(());
        }
        note(&care, &subject, Depth::Full, &finding);
        tally.add(&finding);
        if let Finding::Looked(health) = &finding
            && health.verdict != Verdict::Healthy
        {
            total += progress.suspend(|| repair_object(&care, out, &subject, health, args.dry_run))?;
        }
        match report(&care, &subject, &finding)? {
            Some(report) if verdict(&finding) == Some(Verdict::Unrecoverable) => progress.suspend(|| report.print(out)),
            _ => Ok(()),
        }
    })?;
    progress.finish();
    summary(out, &tally, care.staged()?)?;
    repaired(out, &total, args.dry_run)?;
    Ok(match (interrupt.asked(), tally.status()) {
        (true, _) => ExitStatus::Interrupted,
        (false, ExitStatus::DataLost) => ExitStatus::DataLost,
        (false, _) if total.failed > 0 => ExitStatus::Failed,
        (false, status) => status,
    })
}

fn repair_object(
    care: &Care,
    out: &Output,
    subject: &Subject,
    health: &ObjectHealth,
    dry_run: bool,
) -> CliResult<RepairOutcome> {
    let plan = health.plan(&care.archive)?;
    print_plan(out, &plan)?;
    if dry_run {
        return Ok(RepairOutcome::default());
    }
    let outcome = care.archive.execute(&plan, &|step| tracing::info!(?step, "repairing"))?;
    let after = care.archive.object_health(&subject.reference, Depth::Full, &|_| {})?;
    note(care, subject, Depth::Full, &Finding::Looked(after));
    Ok(outcome)
}

/// What is known now of an object; none when it could not be looked at.
fn verdict(finding: &Finding) -> Option<Verdict> {
    match finding {
        Finding::Looked(health) => Some(health.verdict),
        Finding::ManifestLost(_) => Some(Verdict::Unrecoverable),
        Finding::Failed(_) => None,
    }
}

/// Verifies the store's descriptors and the catalog's journal. Returns what was wrong.
fn metadata(care: &Care, repair: bool) -> CliResult<Vec<String>> {
    let mut wrong = care.archive.verify_descriptors(repair)?;
    let healer =
        if repair && !care.ledger.heals_journal() { "; `blockframe repair` with the key mends it" } else { "" };
    let faults = care.ledger.verify_journal(repair)?;
    wrong.extend(faults.into_iter().map(|what| format!("catalog journal: {what}{healer}")));
    Ok(wrong)
}

/// Names what lies in the store besides the archive. That is no damage, and nothing is done about it.
fn tell_strangers(care: &Care, out: &Output) -> CliResult<()> {
    let mut known = HashSet::new();
    care.ledger.objects(&mut |subject| {
        known.insert(subject.reference.name.to_string());
        true
    })?;
    let found = strangers(&care.archive, &|name| Ok(known.contains(name)))?;
    for (names, what) in [
        (
            &found.orphans,
            "looks like an object, and the catalog does not know it (`blockframe gc --dry-run` tells more)",
        ),
        (&found.foreign, "is not of this archive"),
    ] {
        for name in names {
            out.line(format_args!("note: {} {what}; it was left alone", printable(name.as_bytes())))?;
        }
    }
    if found != Strangers::default() {
        out.json(&serde_json::json!({ "strangers": true, "orphans": found.orphans, "foreign": found.foreign }))?;
    }
    Ok(())
}

/// The objects of a path, or all of them; those unverified for longest first when that matters.
fn select(care: &Care, path: Option<&OsStr>, oldest_first: bool) -> CliResult<Vec<Subject>> {
    let wanted = match path {
        Some(_) => Some(objects_below(care, path)?),
        None => None,
    };
    let mut subjects = Vec::new();
    care.ledger.objects(&mut |subject| {
        if wanted.as_ref().is_none_or(|wanted| wanted.contains(&subject.reference.name)) {
            subjects.push(subject);
        }
        true
    })?;
    if oldest_first {
        let mut dated = Vec::with_capacity(subjects.len());
        for subject in subjects {
            dated.push((care.ledger.verified(&subject.reference.name)?.map(|(at, _)| at), subject));
        }
        dated.sort_by_key(|(at, _)| *at);
        subjects = dated.into_iter().map(|(_, subject)| subject).collect();
    }
    Ok(subjects)
}

fn objects_below(care: &Care, path: Option<&OsStr>) -> CliResult<HashSet<ObjectName>> {
    let open = care.names_for("a path")?;
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

/// Remembers a full verification for `status`, and for what is verified next.
fn note(care: &Care, subject: &Subject, depth: Depth, finding: &Finding) {
    let (Depth::Full, Some(verdict)) = (depth, verdict(finding)) else { return };
    let now = care.archive.clock().now();
    // A log that cannot be written must not stop the verification.
    if let Err(error) = care.ledger.set_verified(&subject.reference.name, now, verdict) {
        tracing::warn!(%error, "cannot remember the verification");
    }
}

/// Whether an object of a closed archive was removed by another process since it was listed. With the catalog what
/// is listed is what must be there.
fn is_gone(care: &Care, subject: &Subject, finding: &Finding) -> CliResult<bool> {
    Ok(matches!(finding, Finding::ManifestLost(_))
        && care.is_closed()
        && !care.ledger.knows(&subject.reference.name)?)
}

fn report(care: &Care, subject: &Subject, finding: &Finding) -> CliResult<Option<DamageReport>> {
    let object = &subject.reference;
    Ok(match finding {
        Finding::Looked(health) if health.verdict == Verdict::Healthy => None,
        Finding::Looked(health) => Some(DamageReport::new(care, object, health)?),
        Finding::ManifestLost(error) => Some(DamageReport::lost(care, object, error)?),
        Finding::Failed(error) => {
            tracing::error!("object {} cannot be looked at: {}", object.name, chain(error));
            None
        }
    })
}

fn summary(out: &Output, tally: &Tally, staged: Option<u64>) -> CliResult<()> {
    for problem in &tally.metadata {
        out.line(problem)?;
    }
    if tally.damaged > 0 {
        let mut table = Table::new(&["health", ">objects"]);
        for (word, count) in WORDS.iter().zip(tally.words) {
            table.row([word.word().to_string(), count.to_string()]);
        }
        table.print(out)?;
    }
    let partial = if tally.complete { "" } else { " (not all was looked at)" };
    out.line(format_args!(
        "{}: {} looked at, {} damaged, {} verified{partial}",
        tally.worst.word(),
        units::plural(tally.objects, "object"),
        tally.damaged,
        units::size(tally.verified),
    ))?;
    if let Some(staged) = staged.filter(|staged| *staged > 0) {
        out.line(format_args!("{} staged and not committed yet: without redundancy", units::plural(staged, "file")))?;
    }
    out.json(&serde_json::json!({
        "summary": true,
        "verdict": tally.worst,
        "staged_files": staged,
        "objects": tally.objects,
        "damaged": tally.damaged,
        "failed": tally.failed,
        "verified_bytes": tally.verified,
        "complete": tally.complete,
        "words": {
            "healthy": tally.words[0],
            "degraded": tally.words[1],
            "recoverable": tally.words[2],
            "unrecoverable": tally.words[3],
        },
        "metadata_problems": tally.metadata,
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
