//! The command line: parses, opens what is needed, calls one command, and
//! ends with the status that its outcome has.

pub mod args;
mod care;
pub mod commands;
pub mod config;
pub mod context;
pub mod core_dumps;
#[cfg(unix)]
mod daemon;
mod daemon_log;
pub mod error;
pub mod exit;
pub mod history;
pub mod interrupt;
mod logging;
pub mod namespace;
mod new_secret;
pub mod output;
mod paper;
mod retention;
mod secrets;
mod service;
mod terminal;
pub mod units;
mod unlock;
mod writes;

use args::Cli;
use clap::Parser as _;
use config::LoadedConfig;
use context::Context;
use error::{CliError, CliResult};
use exit::ExitStatus;
use std::process::ExitCode;

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version are "errors" too, and end well.
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(ExitStatus::Usage.code()));
        }
    };
    let json = cli.global.json;
    match run(cli) {
        Ok(status) => ExitCode::from(status.code()),
        Err(error) if error.is_broken_pipe() => ExitCode::from(ExitStatus::Done.code()),
        Err(error) => {
            report(&error, json);
            ExitCode::from(ExitStatus::of_error(error.class()).code())
        }
    }
}

fn run(cli: Cli) -> CliResult<ExitStatus> {
    // A configuration that is not understood must not keep `config check FILE` from looking at another.
    let loaded = match LoadedConfig::find(cli.global.config.as_deref()) {
        Ok(loaded) => loaded,
        Err(_) if commands::needs_no_configuration(&cli.command) => LoadedConfig::default(),
        Err(error) => return Err(error),
    };
    logging::start(&cli.global, &loaded.config)?;
    let context = Context::new(cli.global, loaded);
    for warning in &context.loaded_config().warnings {
        tracing::warn!("{warning}");
    }
    let status = commands::run(&context, &cli.command)?;
    context.out().flush()?;
    Ok(status)
}

fn report(error: &CliError, json: bool) {
    use std::io::Write as _;
    // Nobody may be reading standard error; there is nowhere left to say so.
    let _ = if json {
        writeln!(std::io::stderr(), "{}", error.to_json())
    } else {
        writeln!(std::io::stderr(), "blockframe: {error}")
    };
}
