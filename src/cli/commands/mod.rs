//! The commands, one subject a file.

mod cat;
mod commit;
mod completions;
mod config;
mod damage;
mod doctor;
mod gc;
mod get;
mod health;
mod init;
mod key;
mod ls;
#[cfg(unix)]
mod mount;
mod plan;
mod rebuild;
mod rm;
mod scrub;
mod status;
mod sync;
#[cfg(unix)]
mod umount;
mod versions;

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
        Command::Init(args) => init::run(context, args),
        Command::Commit(args) => commit::run(context, args),
        Command::Get(args) => get::run(context, args),
        Command::Versions(args) => versions::list(context, args),
        Command::Restore(args) => versions::restore(context, args),
        Command::Rm(args) => rm::run(context, args),
        Command::Sync(args) => sync::run(context, args),
        Command::Plan(args) => plan::run(context, args),
        Command::Ls(args) => ls::ls(context, args),
        Command::Find(args) => ls::find(context, args),
        Command::Stat(args) => ls::stat(context, args),
        Command::Cat(args) => cat::run(context, args),
        #[cfg(unix)]
        Command::Mount(args) => mount::run(context, args),
        #[cfg(unix)]
        Command::Umount(args) => umount::run(context, args),
        Command::Health(args) => health::health(context, args),
        Command::Repair(args) => health::repair(context, args),
        Command::Scrub(args) => scrub::run(context, args),
        Command::Status => status::run(context),
        Command::Gc(args) => gc::run(context, args),
        Command::Key(command) => key::run(context, command),
        Command::RebuildCatalog(args) => rebuild::run(context, args),
        Command::Config(ConfigCommand::Check { file }) => config::check(context, file.as_deref()),
        Command::Doctor => doctor::run(context),
        Command::Completions { shell } => completions::completions(context.out(), *shell),
        Command::Man { directory } => completions::man(context.out(), directory.as_deref()),
    }
}
