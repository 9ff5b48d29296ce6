//! `sync`: returns when what was written to the mount is committed.

use crate::cli::args::SyncArgs;
use crate::cli::context::Context;
use crate::cli::error::CliResult;
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
    let Some(mut client) = ControlClient::connect(&directory) else {
        drain_leftovers(context, &context.open()?)?;
        return told(context);
    };
    let bar = out.progress("committing", 0);
    let mut total = 0;
    let outcome = client.sync(path.as_ref(), &mut |SyncProgress { files_left, bytes_left }| {
        // More may be written to a file that is waited for.
        if bytes_left > total {
            total = bytes_left;
            bar.set_total(total);
        }
        bar.set(total - bytes_left);
        bar.message(format!("{} left", units::plural(files_left, "file")));
    });
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
