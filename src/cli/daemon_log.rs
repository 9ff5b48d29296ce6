//! The log of a daemon in the background: what it writes to standard error.
//!
//! Names of files stand in it. So the daemon of an encrypted archive has its
//! log on a filesystem in memory (`/run/blockframe` for root, else
//! `$XDG_RUNTIME_DIR/blockframe`), where it goes with the machine's next
//! start, and none where there is no such filesystem. What happened to the
//! archive is in its health log, which is encrypted.

use super::context::state_directory;
use crate::archive::Archive;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// The log is begun anew when it is longer; the one before is kept.
const MAX_LOG: u64 = 1 << 20;

/// The work of a mount's daemon.
const DAEMON: &str = "daemon";

/// Where a daemon's log is, or why it has none.
#[derive(Debug, Clone)]
pub(super) struct Log {
    file: Result<PathBuf, &'static str>,
}

impl Log {
    /// That of an archive's daemon.
    pub(super) fn new(directory: &Path, archive: &Archive) -> Self {
        Self::of(directory, archive, DAEMON)
    }

    /// That of other work in the background.
    pub(super) fn of(directory: &Path, archive: &Archive, work: &str) -> Self {
        let ending = if work == DAEMON { String::new() } else { format!("-{work}") };
        let file = if archive.is_encrypted() {
            volatile_directory(rustix::process::geteuid().is_root(), std::env::var_os("XDG_RUNTIME_DIR"))
                .map(|volatile| volatile.join(format!("{}{ending}.log", archive.descriptor().id)))
        } else {
            Ok(state_directory(directory).join(format!("{work}.log")))
        };
        Self { file }
    }

    /// Makes standard error the log.
    pub(super) fn attach(&self) -> io::Result<()> {
        let file = self.file.as_ref().map_err(|why| io::Error::other(*why))?;
        let open = || {
            let opened = File::options().create(true).append(true).open(file)?;
            Ok(rustix::stdio::dup2_stderr(&opened)?)
        };
        open().map_err(|error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", file.display())))
    }

    /// Begins a new log when this one has become long.
    pub(super) fn keep_short(&self) {
        let Ok(file) = &self.file else { return };
        if !fs::metadata(file).is_ok_and(|metadata| metadata.len() > MAX_LOG) {
            return;
        }
        let old = file.with_extension("log.old");
        if let Err(error) = fs::rename(file, old).and_then(|()| self.attach()) {
            tracing::warn!(file = %file.display(), %error, "cannot begin a new log");
        }
    }
}

/// A directory of ours in memory, for our eyes alone.
fn volatile_directory(root: bool, of_user: Option<OsString>) -> Result<PathBuf, &'static str> {
    let above =
        if root { Some(PathBuf::from("/run")) } else { of_user.map(PathBuf::from).filter(|dir| dir.is_absolute()) };
    let above = above.ok_or("the archive is encrypted, and there is no $XDG_RUNTIME_DIR to keep a log in memory")?;
    if !is_in_memory(&above) {
        return Err("the archive is encrypted, and there is no filesystem in memory for a log");
    }
    let directory = above.join("blockframe");
    match DirBuilder::new().mode(0o700).create(&directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err("the archive is encrypted, and no directory for its log can be made in memory");
        }
        _ => {}
    }
    let ours = fs::symlink_metadata(&directory).is_ok_and(|found| {
        found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o077 == 0
    });
    if ours && is_in_memory(&directory) {
        Ok(directory)
    } else {
        Err("the directory for logs in memory is not ours alone")
    }
}

#[cfg(target_os = "linux")]
fn is_in_memory(directory: &Path) -> bool {
    /// tmpfs and ramfs (statfs(2)).
    const IN_MEMORY: [u32; 2] = [0x0102_1994, 0x8584_58F6];
    rustix::fs::statfs(directory).is_ok_and(|found| IN_MEMORY.contains(&(found.f_type as u32)))
}

#[cfg(not(target_os = "linux"))]
fn is_in_memory(_: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_log_with_names_is_in_memory_and_for_us_alone_or_nowhere() {
        let memory = tempfile::tempdir_in("/dev/shm").unwrap();
        let of_user = || Some(memory.path().as_os_str().to_owned());
        let found = volatile_directory(false, of_user()).unwrap();
        assert_eq!(found, memory.path().join("blockframe"));
        assert_eq!(fs::metadata(&found).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(volatile_directory(false, of_user()).unwrap(), found, "it is there already");
        fs::set_permissions(&found, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(volatile_directory(false, of_user()).is_err(), "others can read it");
        fs::remove_dir(&found).unwrap();
        let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), &found).unwrap();
        assert!(volatile_directory(false, of_user()).is_err(), "it is somewhere else");

        assert!(volatile_directory(false, None).is_err());
        assert!(volatile_directory(false, Some("here".into())).is_err());
        assert!(volatile_directory(false, Some("/proc".into())).is_err());
        let disk = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        if !is_in_memory(disk.path()) {
            assert!(volatile_directory(false, Some(disk.path().into())).is_err());
            assert!(!disk.path().join("blockframe").exists());
        }
    }
}
