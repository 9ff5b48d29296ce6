//! `key rotate --reencrypt`: what is stored already, encrypted anew.
//!
//! Work is done in short sections. In one the process is the archive's writer
//! (through the mount's daemon where there is one) and writes objects anew; in
//! between others get their turn. Old objects are removed some at a time,
//! while nobody writes objects.

use super::{Change, encrypted};
use crate::archive::WriteControl;
use crate::base::ErrorClass;
use crate::catalog::{CatalogWrites, ObjectRecord};
use crate::cli::context::{Context, OpenArchive};
use crate::cli::daemon;
use crate::cli::daemon_log::Log;
use crate::cli::error::{CliError, CliResult};
use crate::cli::exit::ExitStatus;
use crate::cli::interrupt::Interrupt;
use crate::cli::output::Progress;
use crate::cli::units;
use crate::cli::unlock::secret_for_background;
use crate::cli::writes::writes;
use crate::control::Purpose;
use crate::format::layout::KEY_RING;
use crate::ingest::{OldKeys, Reencryption};
use crate::keys::Epoch;
use rustix::fs::{FlockOperation, flock};
use std::collections::VecDeque;
use std::fs::File;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// How long this process is the writer at a stretch; an object is finished in any case.
const SECTION: Duration = Duration::from_secs(2);
/// The pause in which others get their turn: longer than they wait before they look again.
const TURN: Duration = Duration::from_millis(80);
/// Longest pause of work in the background.
const LONGEST_REST: Duration = Duration::from_secs(5);
/// How often it is looked whether another writer is done.
const RETRY: Duration = Duration::from_millis(100);
/// Old objects are removed when they have so many bytes in all.
const REPLACED: u64 = 256 << 20;
/// Niceness of work in the background.
const NICE: i32 = 15;
/// Passes: what others write with the old key meanwhile is found by the next one.
const PASSES: u32 = 8;

const PROTECTS: &str = "Somebody who learned the key of an old epoch can read nothing of what this archive stores now.";
const DOES_NOT: &str = "It does not protect against somebody who has the archive's key: who kept a copy of an old key \
                        ring and a secret that opens it. Nor are copies of the archive changed that were made before.";
const GO_ON: &str = "`blockframe key rotate --reencrypt` goes on where it stopped";

/// Encrypts what is stored already anew.
pub(super) fn run(context: &Context, background: bool) -> CliResult<ExitStatus> {
    encrypted(context)?;
    if !background {
        return reencrypt(context, None);
    }
    if daemon::is_background_child() {
        // Away from the terminal that started it. Fails only for a process that leads a group already.
        let _ = rustix::process::setsid();
        // Slower is a wish, no promise.
        let _ = rustix::process::nice(NICE);
        return reencrypt(context, Some(()));
    }
    let status = daemon::start_in_background(secret_for_background(context)?)?;
    if status == ExitStatus::Done {
        let what = "What is stored is being encrypted anew in the background; `blockframe status` tells when it is \
                    done. Should it be interrupted,";
        context.out().line(format_args!("{what} {GO_ON}."))?;
        context.out().json(&serde_json::json!({ "background": true }))?;
    }
    Ok(status)
}

/// Whether a process encrypts an archive anew.
pub(in crate::cli) fn is_running(archive: &Path) -> bool {
    let Ok(directory) = ring_directory(archive) else { return false };
    flock(&directory, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
}

fn ring_directory(archive: &Path) -> std::io::Result<File> {
    let ring = archive.join(KEY_RING);
    File::open(ring.parent().unwrap_or(archive))
}

/// One process at a time does this.
fn lock(archive: &Path) -> CliResult<File> {
    let failed = |error| CliError::io(format!("cannot lock the key ring of {}", archive.display()), error);
    let lock = ring_directory(archive).map_err(failed)?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(CliError::new(ErrorClass::Busy, "another process encrypts this archive anew already"))
        }
        Err(error) => Err(failed(error.into())),
    }
}

fn reencrypt(context: &Context, background: Option<()>) -> CliResult<ExitStatus> {
    let mut change = Change::begin(context)?;
    let _one = lock(&change.objects.directory)?;
    let interrupt = Interrupt::install()?;
    let store = change.objects.archive.store().clone();
    let goes_on = change.unlocked.ring.ring().is_reencrypting();
    let epoch = change.unlocked.ring.rotate_to_reencrypt(&*store, change.now)?;
    let open = change.objects.open_catalog()?;
    // From here on other commands may change the ring.
    drop(change._lock);
    if background.is_some() {
        daemon::announce(Some(&Log::of(&open.directory, &open.archive, "reencrypt")))?;
    } else {
        let begun = if goes_on { "The encryption anew goes on" } else { "A new epoch has begun" };
        context.out().line(format_args!("{begun}: what is stored gets the key of epoch {epoch}."))?;
    }
    let bar = context.out().progress("encrypting", 0);
    let work = Work { open: &open, interrupt: &interrupt, bar: &bar, is_slow: background.is_some() };
    let mut reencryption = Reencryption::new(&open.archive, &open.catalog);
    let outcome = work.all(&mut reencryption);
    if outcome.is_err()
        && let Ok(writer) = writes(&open, Purpose::Collect)
    {
        // So that the next run need not look at these again.
        reencryption.collect(&*writer).and_then(|()| Ok(writer.finish()?)).unwrap_or_else(|error| {
            tracing::debug!(%error, "what was replaced is removed by the next run");
        });
    }
    bar.finish();
    let report = reencryption.report;
    let (left, forgotten) = match outcome {
        Ok(done) => done,
        Err(error) if error.class() == ErrorClass::Interrupted => {
            let what = format!(
                "interrupted after {} ({}); everything can be read, and {GO_ON}",
                units::plural(report.objects, "object"),
                units::size(report.bytes)
            );
            return Err(CliError::new(ErrorClass::Interrupted, what));
        }
        Err(error) => return Err(error),
    };
    let out = context.out();
    out.line(format_args!(
        "Encrypted {} ({}) anew with the key of epoch {epoch}.",
        units::plural(report.objects, "object"),
        units::size(report.bytes)
    ))?;
    let finished = forgotten.is_some();
    if finished {
        tracing::info!(objects = report.objects, bytes = report.bytes, "all that is stored is encrypted anew");
        out.line(format_args!("The keys of older epochs are gone from the key ring. {PROTECTS} {DOES_NOT}"))?;
    } else {
        let what = left_text(&left);
        tracing::warn!("the keys of older epochs stay in the key ring: {what}");
        out.line(format_args!("The keys of older epochs stay in the key ring: {what}. When that is mended, {GO_ON}."))?;
    }
    out.json(&serde_json::json!({
        "epoch": epoch,
        "objects": report.objects,
        "bytes": report.bytes,
        "removed": report.removed,
        "unreadable": report.unreadable,
        "unknown": left.unknown,
        "forgotten_epochs": forgotten.unwrap_or_default(),
        "finished": finished,
        "protects": PROTECTS,
        "does_not_protect": DOES_NOT,
    }))?;
    Ok(match (report.unreadable.is_empty(), finished) {
        (false, _) => ExitStatus::DataLost,
        (true, true) => ExitStatus::Done,
        (true, false) => ExitStatus::DamageFound,
    })
}

fn left_text(left: &OldKeys) -> String {
    let mut what = Vec::new();
    if left.recorded > 0 {
        let objects = units::plural(left.recorded, "object");
        what.push(format!("{objects} cannot be read whole (`blockframe health` lists the files)"));
    }
    if !left.unknown.is_empty() {
        let objects = units::plural(left.unknown.len() as u64, "object");
        what.push(format!("{objects} on the store are not known to the catalog (`blockframe gc`, `rebuild-catalog`)"));
    }
    if left.journal {
        what.push("the catalog's journal has an old key".into());
    }
    if what.is_empty() {
        what.push("other commands began new epochs meanwhile".into());
    }
    what.join("; ")
}

struct Work<'a> {
    open: &'a OpenArchive,
    interrupt: &'a Interrupt,
    bar: &'a Progress,
    /// In the background: half of the time is rest.
    is_slow: bool,
}

impl Work<'_> {
    /// Returns what still needs old keys; when that is nothing, also which epochs' keys are gone.
    fn all(&self, reencryption: &mut Reencryption<'_>) -> CliResult<(OldKeys, Option<Vec<Epoch>>)> {
        let mut left = OldKeys::default();
        for _ in 0..PASSES {
            let todo = reencryption.todo()?;
            let bytes = todo.iter().map(|old| old.key.plain_size).sum::<u64>();
            self.bar.set_total(reencryption.report.bytes + bytes);
            self.pass(reencryption, todo.into())?;
            // Both need that nobody writes objects, and that all that were written are recorded.
            let writer = self.begin(Purpose::Collect)?;
            reencryption.collect(&*writer)?;
            left = reencryption.sweep(&*writer)?;
            let forgotten = if left.is_empty() { self.forget()? } else { None };
            writer.finish()?;
            if forgotten.is_some() {
                return Ok((left, forgotten));
            }
            if reencryption.todo()?.is_empty() && !left.journal {
                break;
            }
        }
        Ok((left, None))
    }

    fn pass(&self, reencryption: &mut Reencryption<'_>, mut todo: VecDeque<ObjectRecord>) -> CliResult<()> {
        let progress = |bytes| self.bar.advance(bytes);
        let control = WriteControl { progress: &progress, cancel: self.interrupt.flag() };
        while !todo.is_empty() {
            let began = monotonic();
            let mut failed = None;
            let writer = self.begin(Purpose::Commit)?;
            while began.elapsed() < SECTION && reencryption.bytes_replaced() < REPLACED {
                let Some(old) = todo.pop_front() else { break };
                if let Err(error) = reencryption.renew(&*writer, &old, &control) {
                    todo.push_front(old);
                    failed = Some(error);
                    break;
                }
            }
            writer.finish()?;
            let worked = began.elapsed();
            let full = failed.as_ref().is_some_and(|error| error.class() == ErrorClass::NoSpace);
            let makes_room = full && reencryption.bytes_replaced() > 0;
            if makes_room || reencryption.bytes_replaced() >= REPLACED {
                let writer = self.begin(Purpose::Collect)?;
                reencryption.collect(&*writer)?;
                writer.finish()?;
            }
            match failed {
                Some(error) if !makes_room => return Err(error.into()),
                _ => self.rest(if self.is_slow { worked.clamp(TURN, LONGEST_REST) } else { TURN })?,
            }
        }
        Ok(())
    }

    /// Becomes the writer as soon as nobody else is.
    fn begin(&self, purpose: Purpose) -> CliResult<Box<dyn CatalogWrites>> {
        loop {
            match writes(self.open, purpose) {
                Err(error) if error.class() == ErrorClass::Busy => self.rest(RETRY)?,
                other => return other,
            }
        }
    }

    fn rest(&self, time: Duration) -> CliResult<()> {
        let began = monotonic();
        loop {
            if self.interrupt.asked() {
                return Err(CliError::new(ErrorClass::Interrupted, "interrupted"));
            }
            let left = time.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(RETRY));
        }
    }

    /// Drops the keys that nothing needs any more; `None` where another epoch has begun meanwhile:
    /// what was written before it needs the key that was the newest then.
    fn forget(&self) -> CliResult<Option<Vec<Epoch>>> {
        loop {
            let _ring = match super::lock(&self.open.directory) {
                Err(error) if error.class() == ErrorClass::Busy => {
                    self.rest(RETRY)?;
                    continue;
                }
                other => other?,
            };
            let archive = &self.open.archive;
            let current = archive.keys().map(|keys| keys.current().epoch());
            let mut ring = archive.open_ring()?;
            let newest = ring.ring().epochs().last().map(|epoch| epoch.epoch);
            if newest != current {
                return Ok(None);
            }
            return Ok(Some(ring.forget_old_epochs_on(&**archive.store())?));
        }
    }
}

fn monotonic() -> Instant {
    Instant::now()
}
