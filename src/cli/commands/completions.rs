//! `completions` and `man`: made from the definitions of the command line.

use crate::cli::args::Cli;
use crate::cli::error::{CliError, CliResult};
use crate::cli::exit::ExitStatus;
use crate::cli::output::Output;
use clap::CommandFactory as _;
use std::path::Path;

/// Prints a completion script.
pub(super) fn completions(out: &Output, shell: clap_complete::Shell) -> CliResult<ExitStatus> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "blockframe", &mut script);
    out.write(&script)?;
    Ok(ExitStatus::Done)
}

/// Prints the manual page of `blockframe`, or writes all pages to `directory`.
pub(super) fn man(out: &Output, directory: Option<&Path>) -> CliResult<ExitStatus> {
    let Some(directory) = directory else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command())
            .render(&mut page)
            .map_err(|error| CliError::io("cannot make the manual page", error))?;
        out.write(&page)?;
        return Ok(ExitStatus::Done);
    };
    let failed = |error| CliError::io(format!("cannot write manual pages to {}", directory.display()), error);
    std::fs::create_dir_all(directory).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), directory).map_err(failed)?;
    out.line(format_args!("manual pages are in {}", directory.display()))?;
    out.json(&serde_json::json!({ "directory": directory }))?;
    Ok(ExitStatus::Done)
}
