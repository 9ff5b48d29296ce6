//! `sync`: returns when what was written to the mount is committed.

use crate::cli::args::SyncArgs;
use crate::cli::context::Context;
use crate::cli::error::{CliError, CliResult};
use crate::cli::exit::ExitStatus;
use crate::cli::namespace::parse_path;
use crate::cli::units;
use crate::cli::writes::drain_leftovers;
use crate::control::{ControlClient, SyncProgress};

/// Waits for the daemon to commit; without one, commits what a mount left.
pub(super) fn run(context: &Context, args: &SyncArgs) -> CliResult<ExitStatus> {
    let path = args.path.as_deref().map(parse_path).transpose()?;
    let directory = context.archive_directory()?;
    let out = context.out();
    let bar = out.progress("committing", 0);
    let mut total = 0;
    let mut progress = |SyncProgress { files_left, bytes_left }| {
        // More may be written to a file that is waited for.
        if bytes_left > total {
            total = bytes_left;
            bar.set_total(total);
        }
        bar.set(total - bytes_left);
        bar.message(format!("{} left", units::plural(files_left, "file")));
    };
    let outcome = match ControlClient::connect(&directory) {
        Some(mut client) => client.sync(path.as_ref(), &mut progress).map_err(CliError::from),
        None => {
            let open = context.open()?;
            let staging = context.staging_directory(&open.directory);
            drain_leftovers(&open, &staging, &mut progress)
        }
    };
    bar.finish();
    outcome?;
    told(context)
}

fn told(context: &Context) -> CliResult<ExitStatus> {
    let out = context.out();
    out.line("Everything is committed.")?;
    out.json(&serde_json::json!({ "synced": true }))?;
    Ok(ExitStatus::Done)
}
