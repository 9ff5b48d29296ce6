//! `plan`: what each profile would cost and survive, before anything is written.

use crate::cli::args::PlanArgs;
use crate::cli::context::Context;
use crate::cli::error::CliResult;
use crate::cli::exit::ExitStatus;
use crate::cli::interrupt::Interrupt;
use crate::cli::output::Table;
use crate::cli::units;
use crate::format::EntryPath;
use crate::ingest::{self, CommitItem, Plan};

/// Shows the plan.
pub(super) fn run(context: &Context, args: &PlanArgs) -> CliResult<ExitStatus> {
    let out = context.out();
    let items = [CommitItem::from_path(args.path.clone(), &EntryPath::root())?];
    let interrupt = Interrupt::install()?;
    // An archive is not needed for this; where there is one, its own files do not count.
    let exclude: Vec<_> = context.archive_directory().into_iter().collect();
    let plan = ingest::plan(&items, &exclude, interrupt.flag())?;
    out.line(format_args!(
        "{}: {} in {}, {} other names",
        args.path.display(),
        units::size(plan.bytes),
        units::plural(plan.files, "file"),
        plan.others
    ))?;
    for profile in &plan.profiles {
        out.line(format_args!(
            "\n{}: {} on the disk ({} % more), {} in {}",
            profile.profile,
            units::size(profile.stored_bytes),
            profile.overhead_percent(plan.bytes),
            units::plural(profile.objects, "object"),
            units::plural(profile.shards, "file"),
        ))?;
        let mut table = Table::new(&["  tier", ">objects", ">contents", ">stored", "survives the loss of"]);
        for tier in &profile.tiers {
            table.row([
                format!("  {}", tier.rule.tier),
                tier.objects.to_string(),
                units::size(tier.content_bytes),
                units::size(tier.stored_bytes),
                tier.survives(),
            ]);
        }
        table.print(out)?;
    }
    if plan.unreadable > 0 {
        out.line(format_args!("\n{} could not be looked at", units::plural(plan.unreadable, "name")))?;
    }
    out.json(&document(&plan))?;
    Ok(if plan.unreadable > 0 { ExitStatus::Failed } else { ExitStatus::Done })
}

fn document(plan: &Plan) -> serde_json::Value {
    let profiles: Vec<_> = plan
        .profiles
        .iter()
        .map(|profile| {
            let tiers: Vec<_> = profile
                .tiers
                .iter()
                .map(|tier| {
                    serde_json::json!({
                        "tier": tier.rule.tier,
                        "objects": tier.objects,
                        "content_bytes": tier.content_bytes,
                        "stored_bytes": tier.stored_bytes,
                        "shards": tier.shards,
                        "survives": tier.survives(),
                    })
                })
                .collect();
            serde_json::json!({
                "profile": profile.profile,
                "objects": profile.objects,
                "bundles": profile.bundles,
                "shards": profile.shards,
                "stored_bytes": profile.stored_bytes,
                "overhead_percent": profile.overhead_percent(plan.bytes),
                "tiers": tiers,
            })
        })
        .collect();
    serde_json::json!({
        "files": plan.files,
        "bytes": plan.bytes,
        "others": plan.others,
        "unreadable": plan.unreadable,
        "profiles": profiles,
    })
}
