//! `status`: the archive on one screen.

use super::scrub;
use crate::archive::{Event, Verdict};
use crate::base::{ObjectName, Timestamp};
use crate::catalog::{HistoryUsage, NamespaceTotals};
use crate::cli::care::Care;
use crate::cli::context::{Context, OpenArchive};
use crate::cli::error::CliResult;
use crate::cli::exit::ExitStatus;
use crate::cli::output::Output;
use crate::cli::units;
use crate::cli::unlock::EncryptionSummary;
use crate::cli::writes::leftovers;
use crate::control::{ControlClient, DaemonStatus};
use crate::format::ArchiveDescriptor;
use serde::Serialize;

/// Events that are shown.
const SHOWN_EVENTS: usize = 5;

/// What the log knows of all objects.
#[derive(Debug, Default, Serialize)]
struct Verification {
    /// Objects never verified since they were committed.
    unverified: u64,
    /// Objects whose last verification found damage, not healed since.
    damaged: u64,
    /// Of those, beyond the parity.
    lost: u64,
    /// When the object that waits longest was verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest: Option<i64>,
    #[serde(skip)]
    examples: Vec<ObjectName>,
    #[serde(skip)]
    objects: u64,
    /// Bytes of all shards.
    #[serde(skip)]
    stored: u64,
}

impl Verification {
    fn status(&self) -> ExitStatus {
        match (self.lost, self.damaged) {
            (1.., _) => ExitStatus::DataLost,
            (_, 1..) => ExitStatus::DamageFound,
            _ => ExitStatus::Done,
        }
    }
}

/// Shows the state.
pub(super) fn run(context: &Context) -> CliResult<ExitStatus> {
    let care = context.open_for_care(false)?;
    let out = context.out();
    let Some(open) = &care.names else { return closed(out, &care) };
    let rules = open.archive.descriptor();
    let totals = open.catalog.totals()?;
    let verification = verification(&care)?;
    let events = open.health.recent_events(SHOWN_EVENTS)?;
    let space = open.archive.store().space()?;
    let now = open.archive.clock().now();
    out.line(oldest_line(&verification, totals.objects, now))?;
    out.line(format_args!("archive     {} in {}", rules.id, open.directory.display()))?;
    out.line(format_args!(
        "contents    {} in {}",
        units::size(totals.logical_bytes),
        units::plural(totals.files, "file")
    ))?;
    out.line(format_args!(
        "stored      {} in {}; {} of {} free on the disk",
        units::size(totals.stored_bytes),
        units::plural(totals.objects, "object"),
        units::size(space.free),
        units::size(space.total),
    ))?;
    let encryption = EncryptionSummary::of(&open.archive, super::key::is_running(&open.directory))?;
    out.line(format_args!("encryption  {}", encryption.as_ref().map_or("none".into(), EncryptionSummary::text)))?;
    let redundancy = redundancy(rules, Some(&totals));
    out.line(format_args!("redundancy  {redundancy}"))?;
    out.line(damage_line(&verification))?;
    for object in &verification.examples {
        out.line(format_args!("            {object}"))?;
    }
    out.line(format_args!("scrub       {}", scrub::one_line(&care)?))?;
    let staged = Staged::of(open)?;
    out.line(format_args!("staged      {}", staged.text(now)))?;
    let history = open.catalog.history_usage()?;
    out.line(format_args!("versions    {}", versions_text(&history, now)))?;
    out.line(if events.is_empty() { "events      none" } else { "events" })?;
    for event in &events {
        out.line(format_args!("  {}", event_line(event)))?;
    }
    out.json(&serde_json::json!({
        "archive": rules.id,
        "directory": open.directory,
        "profile": rules.profile,
        "files": totals.files,
        "nodes": totals.nodes,
        "objects": totals.objects,
        "logical_bytes": totals.logical_bytes,
        "content_bytes": totals.content_bytes,
        "stored_bytes": totals.stored_bytes,
        "disk_total": space.total,
        "disk_free": space.free,
        "encryption": encryption,
        "redundancy": redundancy,
        "verification": verification,
        "scrub": scrub::document(&care)?,
        "staged": staged,
        "versions": { "bytes": history.bytes, "oldest": history.oldest.map(units::rfc3339) },
        "events": events,
    }))?;
    Ok(verification.status())
}

/// What can be said without the archive's keys.
fn closed(out: &Output, care: &Care) -> CliResult<ExitStatus> {
    let rules = care.archive.descriptor();
    let verification = verification(care)?;
    let events = care.health.recent_events(SHOWN_EVENTS)?;
    let space = care.archive.store().space()?;
    let now = care.archive.clock().now();
    let Verification { objects, stored, .. } = verification;
    out.line(oldest_line(&verification, objects, now))?;
    out.line(format_args!("archive     {} in {}", rules.id, care.directory.display()))?;
    out.line("contents    how much it is, and in which files, needs the key")?;
    out.line(format_args!(
        "stored      {} in {}; {} of {} free on the disk",
        units::size(stored),
        units::plural(objects, "object"),
        units::size(space.free),
        units::size(space.total),
    ))?;
    let redundancy = redundancy(rules, None);
    out.line(format_args!("redundancy  {redundancy}"))?;
    // A key ring that cannot be read is damage, which `health` tells of: the rest is shown all the same.
    let encryption =
        EncryptionSummary::of(&care.archive, super::key::is_running(&care.directory)).unwrap_or_else(|error| {
            tracing::error!("{error}");
            None
        });
    out.line(format_args!("encryption  {}", encryption.as_ref().map_or("unknown".into(), EncryptionSummary::text)))?;
    out.line(damage_line(&verification))?;
    for object in &verification.examples {
        out.line(format_args!("            {object}"))?;
    }
    out.line(format_args!("scrub       {}", scrub::one_line(care)?))?;
    out.line(if events.is_empty() { "events      none" } else { "events" })?;
    for event in &events {
        out.line(format_args!("  {}", event_line(event)))?;
    }
    out.json(&serde_json::json!({
        "archive": rules.id,
        "directory": care.directory,
        "profile": rules.profile,
        "objects": objects,
        "stored_bytes": stored,
        "disk_total": space.total,
        "disk_free": space.free,
        "redundancy": redundancy,
        "encryption": encryption,
        "verification": verification,
        "scrub": scrub::document(care)?,
        "events": events,
        "names_need_key": true,
    }))?;
    Ok(verification.status())
}

fn versions_text(history: &HistoryUsage, now: Timestamp) -> String {
    let Some(oldest) = history.oldest else { return "none kept".into() };
    let age = u64::try_from(now.seconds.saturating_sub(oldest.seconds)).unwrap_or(0);
    format!(
        "{} kept for what was changed or removed, the oldest ended {} ago",
        units::size(history.bytes),
        units::age(age)
    )
}

/// Files that wait to be committed.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Staged {
    files: u64,
    bytes: u64,
    /// The daemon of the mount, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    daemon: Option<DaemonStatus>,
}

impl Staged {
    fn of(open: &OpenArchive) -> CliResult<Self> {
        let answer = ControlClient::connect(&open.directory).map(|mut client| client.status());
        match answer {
            Some(Ok(daemon)) => {
                Ok(Self { files: daemon.staged_files, bytes: daemon.staged_bytes, daemon: Some(daemon) })
            }
            other => {
                if let Some(Err(error)) = other {
                    tracing::warn!(%error, "the mount's daemon does not tell what it does");
                }
                let (files, bytes) = leftovers(open)?;
                Ok(Self { files, bytes, daemon: None })
            }
        }
    }

    fn text(&self, now: Timestamp) -> String {
        let amount = format!("{} in {}", units::size(self.bytes), units::plural(self.files, "file"));
        let Some(daemon) = &self.daemon else {
            return match self.files {
                0 => "none; not mounted for writing".into(),
                _ => format!("{amount}, left by a mount; `blockframe sync` commits them"),
            };
        };
        if self.files == 0 {
            return format!("none; mounted at {}", daemon.mountpoint);
        }
        let oldest = daemon.oldest_staged.map_or(String::new(), |oldest| {
            let age = u64::try_from(now.seconds.saturating_sub(oldest)).unwrap_or(0);
            format!(", the oldest for {}", units::age(age))
        });
        let state = if daemon.draining { ", being committed" } else { "" };
        format!("{amount}, of at most {}{oldest}{state}", units::size(daemon.quota_bytes))
    }
}

fn verification(care: &Care) -> CliResult<Verification> {
    let mut all = Verification::default();
    let mut result = Ok(());
    care.ledger.objects(&mut |subject| {
        all.objects += 1;
        all.stored = all.stored.saturating_add(subject.stored_len);
        match care.ledger.verified(&subject.reference.name) {
            Ok(None) => all.unverified += 1,
            Ok(Some((at, verdict))) => {
                all.oldest = Some(all.oldest.map_or(at.seconds, |oldest| oldest.min(at.seconds)));
                all.lost += u64::from(verdict == Verdict::Unrecoverable);
                if verdict != Verdict::Healthy {
                    all.damaged += 1;
                    if all.examples.len() < SHOWN_EVENTS {
                        all.examples.push(subject.reference.name);
                    }
                }
            }
            Err(error) => result = Err(error),
        }
        result.is_ok()
    })?;
    result?;
    Ok(all)
}

fn oldest_line(verification: &Verification, objects: u64, now: Timestamp) -> String {
    match (objects, verification.unverified, verification.oldest) {
        (0, ..) => "oldest unverified: nothing is stored yet".into(),
        (_, 1.., _) => format!(
            "oldest unverified: {} never verified since the commit; `blockframe scrub` verifies them",
            units::plural(verification.unverified, "object")
        ),
        (_, 0, oldest) => {
            let seconds = u64::try_from(now.seconds.saturating_sub(oldest.unwrap_or(now.seconds))).unwrap_or(0);
            format!("oldest unverified: {}", units::age(seconds))
        }
    }
}

fn redundancy(rules: &ArchiveDescriptor, totals: Option<&NamespaceTotals>) -> String {
    let least = rules.tiers.iter().map(|tier| tier.m).min().unwrap_or(0);
    let survives = format!("profile {}: any {least} lost shards of a block are healed", rules.profile);
    let Some(totals) = totals.filter(|totals| totals.content_bytes > 0) else { return survives };
    let extra = totals.stored_bytes.saturating_sub(totals.content_bytes) as f64 / totals.content_bytes as f64;
    format!("{survives}, at {:.0} % overhead; the loss of the whole disk is not survived", extra * 100.0)
}

fn damage_line(verification: &Verification) -> String {
    match (verification.damaged, verification.lost) {
        (0, _) => "damage      none known".into(),
        (damaged, 0) => format!("damage      {}, all healable: `blockframe repair`", units::plural(damaged, "object")),
        (damaged, lost) => {
            format!(
                "damage      {}, {lost} beyond the parity: `blockframe health` lists the files",
                units::plural(damaged, "object")
            )
        }
    }
}

fn event_line(event: &Event) -> String {
    let object = event.object.as_ref().map_or(String::new(), |object| format!("{object}/"));
    let kind =
        serde_json::to_value(event.kind).ok().and_then(|kind| kind.as_str().map(String::from)).unwrap_or_default();
    format!("{}  {kind}  {object}{}  {}", units::time(event.seconds), event.file, event.detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_staged_line_tells_who_commits_and_how_much_waits() {
        let now = Timestamp { seconds: 10_000, nanoseconds: 0 };
        let left = Staged { files: 2, bytes: 1500, daemon: None };
        assert_eq!(left.text(now), "1.50 kB in 2 files, left by a mount; `blockframe sync` commits them");
        let daemon = DaemonStatus {
            mountpoint: "/mnt".into(),
            quota_bytes: 1_000_000,
            oldest_staged: Some(9_880),
            draining: true,
            ..DaemonStatus::default()
        };
        let idle = Staged { daemon: Some(daemon.clone()), ..Staged::default() };
        assert_eq!(idle.text(now), "none; mounted at /mnt");
        let busy = Staged { files: 1, bytes: 10, daemon: Some(daemon) };
        assert_eq!(busy.text(now), "10 B in 1 file, of at most 1.00 MB, the oldest for 2 minutes, being committed");
    }
}
