//! `rebuild-catalog`: the namespace from the store alone.

use crate::catalog::{self, RebuildSource};
use crate::cli::args::{RebuildArgs, RebuildFrom};
use crate::cli::context::Context;
use crate::cli::error::CliResult;
use crate::cli::exit::ExitStatus;
use crate::cli::units;
use crate::cli::writes::refuse_while_mounted;

/// Rebuilds the catalog, and says what could not be had.
pub(super) fn run(context: &Context, args: &RebuildArgs) -> CliResult<ExitStatus> {
    let base = context.open_objects()?.unlock(context)?;
    refuse_while_mounted(&base.directory, "the catalog cannot be rebuilt")?;
    let source = match args.source {
        RebuildFrom::Best => RebuildSource::Best,
        RebuildFrom::Journal => RebuildSource::Journal,
        RebuildFrom::Objects => RebuildSource::Objects,
    };
    let report = catalog::rebuild_trusted(&base.directory, &base.archive, source, base.heads.clone())?;
    let totals = base.open_catalog()?.catalog.totals()?;
    let out = context.out();
    for fault in &report.journal_faults {
        out.line(format_args!("journal: {fault}"))?;
    }
    for (what, why) in &report.skipped {
        out.line(format_args!("left out {what}: {why}"))?;
    }
    let from = match (report.from_journal, report.from_objects) {
        (true, true) => "the journal, manifests and bundles",
        (true, false) => "the journal",
        _ => "manifests and bundles",
    };
    out.line(format_args!(
        "Rebuilt the catalog from {from}: {} in {}, {}.",
        units::plural(totals.files, "file"),
        units::plural(totals.nodes, "node"),
        units::plural(totals.objects, "object"),
    ))?;
    out.json(&serde_json::json!({
        "from_journal": report.from_journal,
        "from_objects": report.from_objects,
        "journal_faults": report.journal_faults,
        "skipped": report.skipped.iter().map(|(what, why)| serde_json::json!({ "what": what, "why": why })).collect::<Vec<_>>(),
        "objects_seen": report.objects_seen,
        "names_restored": report.names_restored,
        "files": totals.files,
        "nodes": totals.nodes,
        "objects": totals.objects,
    }))?;
    Ok(if report.skipped.is_empty() { ExitStatus::Done } else { ExitStatus::DamageFound })
}
