//! `umount`: ends a mount.

use super::mount::chosen_mountpoint;
use crate::base::ErrorClass;
use crate::cli::args::UmountArgs;
use crate::cli::context::Context;
use crate::cli::error::{CliError, CliResult};
use crate::cli::exit::ExitStatus;
use crate::vfs::DAEMON;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the mount may take to vanish.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long it waits for the daemon before it says so.
const QUIET: Duration = Duration::from_secs(3);

/// How often the daemon is looked for.
const POLL: Duration = Duration::from_millis(5);

/// Unmounts, and waits until the mount and its daemon are gone: the disk that
/// holds the archive can be unmounted then.
pub(super) fn run(context: &Context, args: &UmountArgs) -> CliResult<ExitStatus> {
    let mountpoint = chosen_mountpoint(context, args.mountpoint.as_ref())?;
    // A lazy unmount is for a mount that hangs, or whose files are still open: nobody answers or ends soon.
    let daemon = if args.lazy { None } else { daemon(&mountpoint) };
    blockframe_fuse::unmount(&mountpoint, args.lazy)?;
    if blockframe_fuse::wait_until_gone(&mountpoint, PATIENCE) {
        if let Some(pid) = daemon {
            wait_for_end(pid);
        }
        return Ok(ExitStatus::Done);
    }
    Err(CliError::new(
        ErrorClass::Busy,
        format!("{0} is still mounted; another mount lies below it, see `findmnt {0}`", mountpoint.display()),
    ))
}

/// The process that serves a mount, where that tells.
fn daemon(mountpoint: &Path) -> Option<Pid> {
    let value = xattr::get(mountpoint, DAEMON).ok()??;
    Pid::from_raw(std::str::from_utf8(&value).ok()?.parse().ok()?)
}

/// Waits until the daemon has ended: it commits first what was written last.
fn wait_for_end(pid: Pid) {
    let told = Instant::now() + QUIET;
    let mut quiet = true;
    while !has_ended(pid) {
        if quiet && Instant::now() >= told {
            quiet = false;
            tracing::warn!(
                pid = pid.as_raw_nonzero(),
                "unmounted; the daemon still commits what was written (interrupt to let it do so in the background)"
            );
        }
        std::thread::sleep(POLL);
    }
}

fn has_ended(pid: Pid) -> bool {
    // A daemon in the foreground may end before its parent asks for it.
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    let is_zombie = stat.is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('Z')));
    is_zombie || test_kill_process(pid) == Err(Errno::SRCH)
}
