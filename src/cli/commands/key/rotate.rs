//! `key rotate`: a new key for what is written from now on.

use super::Change;
use crate::base::ErrorClass;
use crate::cli::context::Context;
use crate::cli::error::CliResult;
use crate::cli::exit::ExitStatus;
use crate::cli::writes::writes;
use crate::control::Purpose;

const PROTECTS: &str = "Should the key of one epoch become known, it opens only what was written in that epoch.";
const DOES_NOT: &str = "What is stored already keeps its old key; `blockframe key rotate --reencrypt` gives it the new \
                        one. Whoever has the archive's key, from a secret and a copy of a key ring that it opens or \
                        once opened, finds the new key in the new key ring.";

/// Begins a new epoch.
pub(super) fn run(context: &Context) -> CliResult<ExitStatus> {
    let mut change = Change::begin(context)?;
    let store = change.objects.archive.store().clone();
    let epoch = change.unlocked.ring.rotate(&*store, change.now)?;
    let generation = change.unlocked.ring.ring().generation();
    // The journal follows at once, a mount's daemon too.
    let open = change.objects.open_catalog()?;
    match writes(&open, Purpose::Commit) {
        Ok(writer) => writer.finish()?,
        Err(error) if error.class() == ErrorClass::Busy => {
            tracing::info!("another process writes to the archive now; the catalog's journal follows when it is done");
        }
        Err(error) => return Err(error),
    }
    let out = context.out();
    out.line(format_args!("Epoch {epoch} has begun: the next writes use its key. {PROTECTS} {DOES_NOT}"))?;
    out.json(&serde_json::json!({
        "epoch": epoch,
        "generation": generation,
        "protects": PROTECTS,
        "does_not_protect": DOES_NOT,
    }))?;
    Ok(ExitStatus::Done)
}
