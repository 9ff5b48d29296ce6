//! Messages of the running program, on standard error.

use super::args::GlobalArgs;
use super::config::Config;
use super::error::{CliError, CliResult};
use crate::base::ErrorClass;
use std::io::IsTerminal as _;
use tracing_subscriber::EnvFilter;

/// `-v` and `-q` win over `BLOCKFRAME_LOG`, which wins over the configuration.
pub(super) fn start(global: &GlobalArgs, config: &Config) -> CliResult<()> {
    let flag = match (global.quiet, global.verbose) {
        (true, _) => Some("error"),
        (_, 0) => None,
        (_, 1) => Some("info"),
        (_, 2) => Some("debug"),
        _ => Some("trace"),
    };
    let wanted = match flag {
        Some(level) => level.to_string(),
        None => std::env::var("BLOCKFRAME_LOG").unwrap_or_else(|_| config.logging.level.name().to_string()),
    };
    let filter = EnvFilter::try_new(&wanted).map_err(|error| {
        CliError::new(
            ErrorClass::Invalid,
            format!(
                "BLOCKFRAME_LOG=\"{wanted}\" is no log filter such as debug or blockframe::archive=trace ({error})"
            ),
        )
    })?;
    // A second start in one process keeps the first subscriber.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(global.verbose > 1)
        .try_init();
    Ok(())
}
