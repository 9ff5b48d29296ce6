//! `scrub`: wishes for the daemon's scrubber, or one pass in the foreground.

use crate::base::Timestamp;
use crate::cli::args::{ScrubAction, ScrubArgs};
use crate::cli::care::Care;
use crate::cli::context::Context;
use crate::cli::error::CliResult;
use crate::cli::exit::ExitStatus;
use crate::cli::interrupt::Interrupt;
use crate::cli::output::Output;
use crate::cli::units;
use crate::scrub::{
    Findings, Ledger, PassEnd, PassScope, PassSummary, ScrubOptions, ScrubState, ScrubStatus, Scrubber, StopSignal,
    Watch, is_paused, last_pass, request_pause, request_start, status,
};
use std::sync::Arc;

/// Does what the arguments say.
pub(super) fn run(context: &Context, args: &ScrubArgs) -> CliResult<ExitStatus> {
    // The daemon reads its wishes in the log that needs the key.
    let for_daemon = matches!(args.action, Some(ScrubAction::Pause | ScrubAction::Resume));
    let care = context.open_for_care(for_daemon)?;
    if for_daemon {
        care.names_for("what is asked of the mount's daemon")?;
    }
    let ledger = &*care.ledger;
    let now = care.archive.clock().now();
    let alive = status(ledger)?.is_some_and(|status| status.is_alive(now));
    match args.action {
        None => return foreground(context, &care),
        Some(ScrubAction::Start) if !alive => return foreground(context, &care),
        Some(ScrubAction::Start) => request_start(ledger, now)?,
        Some(ScrubAction::Pause) => request_pause(ledger, true)?,
        Some(ScrubAction::Resume) => request_pause(ledger, false)?,
        Some(ScrubAction::Status) => {}
    }
    let out = context.out();
    out.line(one_line(&care)?)?;
    if args.action != Some(ScrubAction::Status) && !alive {
        out.line("No daemon scrubs this archive now; the wish is kept for the next `blockframe mount`.")?;
    }
    if let Some(pass) = last_pass(ledger)? {
        out.line(format_args!(
            "last pass   {} to {}: {} in {}, {}",
            units::time(pass.started),
            units::time(pass.ended),
            units::size(pass.bytes),
            units::plural(pass.objects, "object"),
            found(&pass.found, ledger),
        ))?;
    }
    out.json(&document(&care)?)?;
    Ok(ExitStatus::Done)
}

fn foreground(context: &Context, care: &Care) -> CliResult<ExitStatus> {
    let out = context.out();
    let interrupt = Interrupt::install()?;
    // Somebody waits for it: as fast as it goes.
    let options = ScrubOptions { bytes_per_second: None, ..ScrubOptions::default() };
    let pause = Arc::new(StopSignal::default());
    let scrubber = Scrubber::new((*care.archive).clone(), Arc::clone(&care.ledger), options, pause, Arc::new(()));
    let progress = out.progress("scrubbing", 0);
    let show = |status: &ScrubStatus| {
        progress.set_total(status.bytes_total);
        progress.set(status.bytes_done);
    };
    let watch = Watch { stop: &|| interrupt.asked(), progress: &show, takes_requests: false };
    let end = scrubber.run_pass(PassScope::Everything, &watch);
    progress.finish();
    match end? {
        PassEnd::Finished(summary) => finished(out, &summary, &*care.ledger),
        PassEnd::Stopped | PassEnd::Paused | PassEnd::Superseded => {
            out.line("Stopped; `blockframe scrub` goes on there.")?;
            Ok(ExitStatus::Interrupted)
        }
    }
}

fn finished(out: &Output, summary: &PassSummary, ledger: &dyn Ledger) -> CliResult<ExitStatus> {
    out.line(format_args!(
        "Verified {} in {}: {}",
        units::size(summary.bytes),
        units::plural(summary.objects, "object"),
        found(&summary.found, ledger)
    ))?;
    out.json(summary)?;
    let Findings { damaged, lost, failed, metadata, .. } = summary.found;
    Ok(match (lost, damaged + metadata, failed) {
        (1.., ..) => ExitStatus::DataLost,
        (0, 1.., _) => ExitStatus::DamageFound,
        (0, 0, 1..) => ExitStatus::Failed,
        (0, 0, 0) => ExitStatus::Done,
    })
}

fn found(found: &Findings, ledger: &dyn Ledger) -> String {
    if *found == Findings::default() {
        return "no damage".into();
    }
    let Findings { damaged, healed, lost, failed, metadata } = found;
    let ours = if ledger.heals_journal() { "healed" } else { "damaged" };
    format!(
        "{} damaged, {healed} healed, {lost} with losses, {failed} not looked at, {} of ours {ours}",
        units::plural(*damaged, "object"),
        units::plural(*metadata, "file")
    )
}

/// The scrubber's state, for `status`.
pub(super) fn one_line(care: &Care) -> CliResult<String> {
    let ledger = &*care.ledger;
    let now = care.archive.clock().now();
    let paused = if is_paused(ledger)? { "paused; `blockframe scrub resume` goes on" } else { "" };
    Ok(match status(ledger)?.filter(|status| status.is_alive(now)) {
        None if care.is_closed() => {
            "what the mount's daemon does needs the key; `blockframe scrub` makes a pass without".into()
        }
        None if paused.is_empty() => {
            "no daemon runs; `blockframe mount` starts one, `blockframe scrub` makes a pass".into()
        }
        None => paused.into(),
        Some(status) => living(&status, now, paused),
    })
}

fn living(status: &ScrubStatus, now: Timestamp, paused: &str) -> String {
    match status.state {
        ScrubState::Running => {
            let done = status.bytes_done.saturating_mul(100).checked_div(status.bytes_total).unwrap_or(100);
            let eta = status.eta_seconds.map_or(String::new(), |seconds| format!(", {} left", units::age(seconds)));
            let since = u64::try_from(now.seconds.saturating_sub(status.started.unwrap_or(now.seconds))).unwrap_or(0);
            format!(
                "running for {}: {done} % of {}, {}/s{eta}",
                units::age(since),
                units::size(status.bytes_total),
                units::size(status.bytes_per_second)
            )
        }
        ScrubState::Paused => paused.into(),
        ScrubState::Idle | ScrubState::Stopped => "idle: nothing is due".into(),
    }
}

/// The scrubber's state in JSON.
pub(super) fn document(care: &Care) -> CliResult<serde_json::Value> {
    let ledger = &*care.ledger;
    let status = status(ledger)?;
    let alive = status.as_ref().is_some_and(|status| status.is_alive(care.archive.clock().now()));
    Ok(serde_json::json!({
        "alive": alive,
        "paused": is_paused(ledger)?,
        "status": status,
        "last_pass": last_pass(ledger)?,
    }))
}
