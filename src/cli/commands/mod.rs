//! The commands, one subject a file.

mod completions;
mod config;
mod doctor;

use super::args::{Command, ConfigCommand};
use super::context::Context;
use super::error::CliResult;
use super::exit::ExitStatus;

/// Whether a command works although the configuration is not understood.
pub fn needs_no_configuration(command: &Command) -> bool {
    matches!(
        command,
        Command::Completions { .. } | Command::Man { .. } | Command::Config(ConfigCommand::Check { file: Some(_) })
    )
}

/// Runs a command.
pub fn run(context: &Context, command: &Command) -> CliResult<ExitStatus> {
    match command {
        Command::Config(ConfigCommand::Check { file }) => config::check(context, file.as_deref()),
        Command::Doctor => doctor::run(context),
        Command::Completions { shell } => completions::completions(context.out(), *shell),
        Command::Man { directory } => completions::man(context.out(), directory.as_deref()),
        _ => unreachable!("WIP"),
    }
}
