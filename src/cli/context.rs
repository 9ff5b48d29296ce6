//! What every command starts from: flags, configuration, output, and the
//! archive they name.

use super::args::GlobalArgs;
use super::config::{Config, LoadedConfig};
use super::error::{CliError, CliResult};
use super::output::Output;
use crate::base::ErrorClass;
use std::path::PathBuf;

/// What every command starts from.
#[derive(Debug)]
pub struct Context {
    global: GlobalArgs,
    loaded: LoadedConfig,
    out: Output,
}

impl Context {
    /// From the flags and the configuration they lead to.
    pub fn new(global: GlobalArgs, loaded: LoadedConfig) -> Self {
        let out = Output::new(global.json, global.quiet);
        Self { global, loaded, out }
    }

    /// The flags of every command.
    pub fn global(&self) -> &GlobalArgs {
        &self.global
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.loaded.config
    }

    /// The configuration and where it came from.
    pub fn loaded_config(&self) -> &LoadedConfig {
        &self.loaded
    }

    /// Standard output.
    pub fn out(&self) -> &Output {
        &self.out
    }

    /// The archive's directory: from `--archive`, `BLOCKFRAME_ARCHIVE` or the configuration.
    ///
    /// Error: `Unavailable` when none of them names one.
    pub fn archive_directory(&self) -> CliResult<PathBuf> {
        self.global.archive.clone().or_else(|| self.config().archive.directory.clone()).ok_or_else(|| {
            CliError::new(
                ErrorClass::Unavailable,
                "no archive is named; use --archive DIR, set BLOCKFRAME_ARCHIVE, or write `directory` under [archive] \
                 in config.toml (`blockframe init DIR` makes an archive)",
            )
        })
    }
}
