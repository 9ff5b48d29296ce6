//! Ctrl-C during long work: the first asks it to stop where it can be
//! resumed, the second ends the process.

use super::error::{CliError, CliResult};
use super::exit::ExitStatus;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the user asked to stop.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on SIGINT and SIGTERM ask instead of killing.
    pub fn install() -> CliResult<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order, so that the signal which sets the flag does not also end the process.
            flag::register_conditional_shutdown(signal, ExitStatus::Interrupted.code().into(), Arc::clone(&asked))
                .and_then(|_| flag::register(signal, Arc::clone(&asked)))
                .map_err(|error| CliError::io("cannot watch for Ctrl-C", error))?;
        }
        Ok(Self(asked))
    }

    /// Whether work shall stop.
    pub fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// The flag itself, for what polls it.
    pub fn flag(&self) -> &AtomicBool {
        &self.0
    }
}
