//! `umount`: ends a mount.

use super::mount::chosen_mountpoint;
use crate::base::ErrorClass;
use crate::cli::args::UmountArgs;
use crate::cli::context::Context;
use crate::cli::error::{CliError, CliResult};
use crate::cli::exit::ExitStatus;
use std::time::Duration;

/// How long the mount may take to vanish.
const PATIENCE: Duration = Duration::from_secs(30);

/// Unmounts, and waits until the mount is gone.
pub(super) fn run(context: &Context, args: &UmountArgs) -> CliResult<ExitStatus> {
    let mountpoint = chosen_mountpoint(context, args.mountpoint.as_ref())?;
    blockframe_fuse::unmount(&mountpoint, args.lazy)?;
    if blockframe_fuse::wait_until_gone(&mountpoint, PATIENCE) {
        return Ok(ExitStatus::Done);
    }
    Err(CliError::new(
        ErrorClass::Busy,
        format!("{0} is still mounted; another mount lies below it, see `findmnt {0}`", mountpoint.display()),
    ))
}
