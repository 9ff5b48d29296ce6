//! The socket's file.

use super::{ControlError, ControlResult};
use crate::format::layout::PRIVATE_DIR;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// The socket, below the archive's private directory.
pub const SOCKET: &str = "control.sock";
/// Where it stands until it may be connected to.
const NEW_SOCKET: &str = "control.sock.new";
/// Longest path that fits a socket address everywhere (Linux: 108 bytes with the final zero).
const MAX_ADDRESS: usize = 100;

/// The socket of an archive's daemon.
pub(super) fn path_of(archive: &Path) -> PathBuf {
    archive.join(PRIVATE_DIR).join(SOCKET)
}

/// Calls `use_path` with a path of `name` in `directory` that is short enough for an address.
fn with_short_path<T>(directory: &Path, name: &str, use_path: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let path = directory.join(name);
    if path.as_os_str().len() <= MAX_ADDRESS {
        return use_path(&path);
    }
    let opened = File::open(directory)?;
    use_path(&PathBuf::from(format!("/proc/self/fd/{}/{name}", opened.as_raw_fd())))
}

/// A socket that is listened on; its file is removed when dropped.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) listener: UnixListener,
    path: PathBuf,
    identity: Option<(u64, u64)>,
}

impl Listener {
    /// Begins to listen, in the place of what a dead daemon left. The caller holds the writer's lock.
    ///
    /// Error: `Refused` (`Busy`) while somebody answers there.
    pub(super) fn bind(archive: &Path) -> ControlResult<Self> {
        let path = path_of(archive);
        if connect(archive).is_ok() {
            let what = format!("a daemon already answers on {}; unmount the archive first", path.display());
            return Err(ControlError::refused(crate::base::ErrorClass::Busy, what));
        }
        let failed = |source| ControlError::Socket { operation: "make", socket: path.clone(), source };
        let directory = archive.join(PRIVATE_DIR);
        let new = directory.join(NEW_SOCKET);
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = with_short_path(&directory, NEW_SOCKET, |path| UnixListener::bind(path)).map_err(failed)?;
        // Under the name that clients know it appears with its permissions, and replaces a stale one.
        fs::set_permissions(&new, Permissions::from_mode(0o600)).map_err(failed)?;
        fs::rename(&new, &path).map_err(failed)?;
        let identity = identity(&path);
        Ok(Self { listener, path, identity })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Another daemon may have put its own there.
        if self.identity.is_some() && identity(&self.path) == self.identity {
            // What is left is replaced by the next daemon.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Connects to an archive's daemon.
pub(super) fn connect(archive: &Path) -> io::Result<UnixStream> {
    with_short_path(&archive.join(PRIVATE_DIR), SOCKET, |path| UnixStream::connect(path))
}

/// Whether the process at the other end belongs to the same user as this one, or to root.
#[cfg(target_os = "linux")]
pub(super) fn is_allowed(stream: &UnixStream) -> io::Result<bool> {
    let peer = rustix::net::sockopt::socket_peercred(stream)?;
    Ok(peer.uid.is_root() || peer.uid == rustix::process::geteuid())
}

/// Elsewhere the socket's permissions say who may connect.
#[cfg(not(target_os = "linux"))]
pub(super) fn is_allowed(_stream: &UnixStream) -> io::Result<bool> {
    Ok(true)
}
