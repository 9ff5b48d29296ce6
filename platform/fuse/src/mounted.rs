//! The life of a mount.

use crate::adapter::{Adapter, Connection};
use crate::mountpoint;
use crate::{MountError, MountOptions};
use blockframe_api::{Kernel, KernelCache, Vfs};
use fuser::Session;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

/// How often a busy mount point is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// How the session ended, once it has.
#[derive(Debug, Default)]
struct Ending {
    outcome: Mutex<Option<io::Result<()>>>,
    changed: Condvar,
}

/// A mounted filesystem. Dropping it unmounts, lazily when it is in use.
#[derive(Debug)]
pub struct Mounted {
    mountpoint: PathBuf,
    ending: Arc<Ending>,
}

/// How a mount was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Removal {
    /// It is out of the namespace and nobody used it.
    Clean,
    /// Programs use it.
    InUse,
    /// Somebody else took it out of the namespace; programs may still use it.
    Gone,
}

/// Whether it could be mounted there: what is wrong is better told before the
/// filesystem is opened.
pub fn check_mountpoint(mountpoint: &Path, options: &MountOptions) -> Result<(), MountError> {
    mountpoint::check_device()?;
    mountpoint::prepare(mountpoint, options.nonempty).map(|_| ())
}

/// Mounts `vfs` at `mountpoint` and serves it from threads of its own. The
/// mount answers when this returns.
pub fn spawn(vfs: Arc<dyn Vfs>, mountpoint: &Path, options: &MountOptions) -> Result<Mounted, MountError> {
    mountpoint::check_device()?;
    let path = mountpoint::prepare(mountpoint, options.nonempty)?;
    let failed = |source| MountError::Mount { mountpoint: path.clone(), source };
    let options = MountOptions { read_only: options.read_only || !vfs.is_writable(), ..options.clone() };
    let connection = Arc::new(Connection::default());
    let adapter = Adapter::new(Arc::clone(&vfs), options.clone(), Arc::clone(&connection));
    let session = Session::new(adapter, &path, &options.config()).map_err(|error| explain(&path, error))?;
    // The connection's terms are settled, and no request was read yet.
    connection.begin(session.notifier());
    let cache: Arc<dyn KernelCache> = Arc::clone(&connection) as _;
    vfs.attach(Kernel { passthrough: connection.passthrough(), cache });
    let ending = Arc::new(Ending::default());
    let reached = Arc::clone(&ending);
    thread::Builder::new()
        .name("fuse-session".to_owned())
        .spawn(move || {
            let outcome = session.run();
            *reached.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
            reached.changed.notify_all();
        })
        .map_err(failed)?;
    let mounted = Mounted { mountpoint: path.clone(), ending };
    // The first request: it also shows that the mount answers.
    let root = rustix::fs::stat(&path).map_err(|errno| failed(errno.into()))?;
    raise_read_ahead(root.st_dev, options.max_read_ahead);
    Ok(mounted)
}

/// The kernel offers a FUSE mount 128 KiB of read-ahead; root may raise it.
fn raise_read_ahead(device: u64, bytes: u32) {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let file = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    if let Err(error) = fs::write(&file, (bytes / 1024).to_string()) {
        tracing::debug!(file, %error, "the mount keeps the kernel's default read-ahead");
    }
}

/// What a failed mount means for the user.
fn explain(mountpoint: &Path, error: io::Error) -> MountError {
    let text = error.to_string();
    let denied = |text: &str| text.contains("Permission denied") || text.contains("not permitted");
    if text.contains("user_allow_other") {
        MountError::AllowOther(error)
    } else if error.kind() == io::ErrorKind::NotFound {
        // The mount point and the device were there a moment ago: it is the helper that is missing.
        MountError::NoHelper(error)
    } else if error.kind() == io::ErrorKind::PermissionDenied || denied(&text) {
        MountError::NotPermitted { mountpoint: mountpoint.to_path_buf(), source: error }
    } else {
        MountError::Mount { mountpoint: mountpoint.to_path_buf(), source: error }
    }
}

impl Mounted {
    /// Where it is mounted: an absolute path.
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// Waits until the filesystem is unmounted, by whomever.
    pub fn wait(&self) -> Result<(), MountError> {
        let mut outcome = self.ending.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match outcome.take() {
                Some(Ok(())) => {
                    *outcome = Some(Ok(()));
                    return Ok(());
                }
                Some(Err(source)) => {
                    *outcome = Some(Ok(()));
                    return Err(MountError::Session { mountpoint: self.mountpoint.clone(), source });
                }
                None => outcome = self.ending.changed.wait(outcome).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Whether it was unmounted.
    pub fn ended(&self) -> bool {
        self.ending.outcome.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Unmounts and waits for the end. While programs use the mount it is
    /// tried again, for at most `grace`; then it is taken out of the
    /// namespace, and those programs' next access fails when this process ends.
    pub fn unmount(&self, grace: Duration) -> Result<(), MountError> {
        let deadline = Instant::now() + grace;
        while !self.ended() {
            match self.remove(false)? {
                Removal::Clean => return self.wait(),
                Removal::InUse | Removal::Gone if Instant::now() >= deadline => {
                    tracing::warn!(mountpoint = %self.mountpoint.display(), "still in use; detaching it");
                    self.remove(true)?;
                    return Ok(());
                }
                Removal::InUse | Removal::Gone => thread::sleep(RETRY),
            }
        }
        self.wait()
    }

    fn remove(&self, lazy: bool) -> Result<Removal, MountError> {
        match mountpoint::unmount(&self.mountpoint, lazy) {
            Ok(()) => Ok(Removal::Clean),
            Err(MountError::InUse { .. }) => Ok(Removal::InUse),
            Err(MountError::NotMounted { .. }) => Ok(Removal::Gone),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if !self.ended()
            && let Err(error) = self.unmount(Duration::ZERO)
        {
            tracing::warn!(mountpoint = %self.mountpoint.display(), "{error}");
        }
    }
}
