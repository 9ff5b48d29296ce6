//! `rm`: removes names. What stood there can be restored until its retention ends.

use crate::cli::args::RmArgs;
use crate::cli::context::{Context, OpenArchive};
use crate::cli::error::{CliError, CliResult};
use crate::cli::exit::{ExitStatus, class_name};
use crate::cli::namespace::parse_path;
use crate::cli::output::JsonPath;
use crate::cli::units;
use crate::cli::writes::{Remover, remover};
use crate::format::EntryPath;

/// Removes what the arguments name, one after the other; what cannot be
/// removed does not keep the rest.
pub(super) fn run(context: &Context, args: &RmArgs) -> CliResult<ExitStatus> {
    let paths = args.paths.iter().map(|path| parse_path(path)).collect::<CliResult<Vec<EntryPath>>>()?;
    let open: OpenArchive = context.open()?;
    let out = context.out();
    let mut remover: Remover = remover(&open)?;
    let mut names = 0;
    let mut worst: Option<CliError> = None;
    for path in &paths {
        let outcome = remover.remove(path, args.recursive);
        let error = outcome.as_ref().err();
        out.json(&serde_json::json!({
            "removed": JsonPath::new(path.as_bytes()),
            "names": outcome.as_ref().ok(),
            "problem": error.map(ToString::to_string),
            "class": error.map(|error| class_name(error.class())),
        }))?;
        match outcome {
            Ok(count) => names += count,
            Err(error) => {
                if let Some(earlier) = worst.replace(error) {
                    tracing::error!("{earlier}");
                }
            }
        }
    }
    remover.finish()?;
    if let Some(error) = worst {
        return Err(error);
    }
    out.line(format_args!("Removed {}; `blockframe restore` brings them back.", units::plural(names, "name")))?;
    Ok(ExitStatus::Done)
}
