//! `key rotate --reencrypt`: what is stored already, encrypted anew.

use super::encrypted;
use crate::base::ErrorClass;
use crate::cli::context::Context;
use crate::cli::error::{CliError, CliResult};
use crate::cli::exit::ExitStatus;

/// Encrypts what is stored already anew.
///
/// Error: `NotSupported` in this version.
pub(super) fn run(context: &Context) -> CliResult<ExitStatus> {
    encrypted(context)?;
    let what =
        "this version does not offer --reencrypt; `blockframe key rotate` gives what is written from now on a new key";
    Err(CliError::new(ErrorClass::NotSupported, what))
}
