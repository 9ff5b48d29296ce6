//! `config check`.

use crate::cli::config::{LoadedConfig, search_path};
use crate::cli::context::Context;
use crate::cli::error::CliResult;
use crate::cli::exit::ExitStatus;
use std::path::Path;

/// Says whether the configuration is understood, and what it amounts to.
pub(super) fn check(context: &Context, file: Option<&Path>) -> CliResult<ExitStatus> {
    let own;
    let loaded = match file {
        Some(file) => {
            own = LoadedConfig::load(file)?;
            &own
        }
        None => context.loaded_config(),
    };
    let out = context.out();
    match &loaded.file {
        Some(file) => out.line(format_args!("# {} is understood and amounts to", file.display()))?,
        None => {
            let places: Vec<String> = search_path().iter().map(|path| path.display().to_string()).collect();
            out.line(format_args!("# no configuration at {}; the defaults are in force", places.join(", ")))?;
        }
    }
    if let Ok(text) = toml::to_string(&loaded.config) {
        out.line(text.trim_end())?;
    }
    for warning in &loaded.warnings {
        out.line(format_args!("# note: {warning}"))?;
    }
    out.json(&serde_json::json!({ "file": loaded.file, "config": loaded.config, "warnings": loaded.warnings }))?;
    Ok(ExitStatus::Done)
}
