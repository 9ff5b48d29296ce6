//! Mount points: what stands there, and how it goes away.

use crate::MountError;
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, io};

/// How often a pending unmount is looked at.
const POLL: Duration = Duration::from_millis(20);
/// Dead mounts that may lie upon each other at one mount point.
const MAX_STALE: usize = 16;

/// One line of `/proc/self/mountinfo`.
#[derive(Debug, PartialEq, Eq)]
struct MountLine {
    mountpoint: PathBuf,
    kind: String,
    source: String,
}

impl MountLine {
    /// The fields of a line: see `proc_pid_mountinfo(5)`.
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|&b| b == b' ');
        let mountpoint = PathBuf::from(OsString::from_vec(unescape(fields.nth(4)?)));
        fields.find(|field| *field == b"-")?;
        let kind = String::from_utf8_lossy(&unescape(fields.next()?)).into_owned();
        let source = String::from_utf8_lossy(&unescape(fields.next()?)).into_owned();
        Some(Self { mountpoint, kind, source })
    }
}

/// Undoes the octal escapes (`\040` for a space) of `/proc/self/mountinfo`.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let digits = tail.get(..3).filter(|d| first == b'\\' && d.iter().all(|b| (b'0'..=b'7').contains(b)));
        match digits {
            Some(digits) => {
                let value = digits.iter().fold(0u32, |value, digit| value * 8 + u32::from(digit - b'0'));
                bytes.push(value as u8);
                rest = &tail[3..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    bytes
}

/// The mount that is on top at `mountpoint` (an absolute path without symbolic links).
fn mounted_at(mountpoint: &Path) -> io::Result<Option<MountLine>> {
    let table = fs::read("/proc/self/mountinfo")?;
    Ok(table.split(|&b| b == b'\n').filter_map(MountLine::parse).rfind(|line| line.mountpoint == mountpoint))
}

/// The absolute path without symbolic links, for a dead mount too: there only
/// the directory above can be resolved.
fn resolve(mountpoint: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(mountpoint) {
        Err(error) if is_stale(&error) => {
            let absolute = std::path::absolute(mountpoint)?;
            match (absolute.parent(), absolute.file_name()) {
                (Some(parent), Some(name)) => Ok(fs::canonicalize(parent)?.join(name)),
                _ => Err(error),
            }
        }
        resolved => resolved,
    }
}

fn is_stale(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::NOTCONN.raw_os_error())
}

/// Checks that `mountpoint` can be mounted on, removes the remains of dead
/// mounts, and returns its absolute path.
pub(crate) fn prepare(mountpoint: &Path, nonempty: bool) -> Result<PathBuf, MountError> {
    let shown = || mountpoint.to_path_buf();
    let unreadable = |source| MountError::Unreadable { mountpoint: mountpoint.to_path_buf(), source };
    let mut attempts = 0;
    let metadata = loop {
        match fs::metadata(mountpoint) {
            Ok(metadata) => break metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(MountError::Missing { mountpoint: shown() });
            }
            Err(error) if is_stale(&error) && attempts < MAX_STALE => {
                attempts += 1;
                tracing::warn!(mountpoint = %mountpoint.display(), "removing the remains of a mount whose daemon is gone");
                let path = resolve(mountpoint).map_err(unreadable)?;
                detach(&path).map_err(|source| MountError::Stale { mountpoint: shown(), source })?;
            }
            Err(error) if is_stale(&error) => {
                return Err(MountError::Stale { mountpoint: shown(), source: error });
            }
            Err(error) => return Err(unreadable(error)),
        }
    };
    if !metadata.is_dir() {
        return Err(MountError::NotDirectory { mountpoint: shown() });
    }
    let path = resolve(mountpoint).map_err(unreadable)?;
    if let Some(line) = mounted_at(&path).map_err(unreadable)?
        && line.kind.starts_with("fuse")
    {
        return Err(MountError::Busy { mountpoint: shown(), source_name: line.source, kind: line.kind });
    }
    if !nonempty && fs::read_dir(&path).map_err(unreadable)?.next().is_some() {
        return Err(MountError::NotEmpty { mountpoint: shown() });
    }
    Ok(path)
}

/// Removes a mount from the namespace at once; who uses it keeps it until it closes.
fn detach(path: &Path) -> io::Result<()> {
    match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::PERM) => fusermount(path, true),
        Err(errno) => Err(errno.into()),
    }
}

/// Asks the setuid helper, which may unmount what this user mounted.
fn fusermount(path: &Path, lazy: bool) -> io::Result<()> {
    let mut command = Command::new("fusermount3");
    command.env("LC_ALL", "C").arg("-u");
    if lazy {
        command.arg("-z");
    }
    let output = command.arg("--").arg(path).output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if text.contains("busy") { Err(Errno::BUSY.into()) } else { Err(io::Error::other(text)) }
}

/// Unmounts the FUSE filesystem at `mountpoint`: as root directly, else with
/// `fusermount3`. With `lazy` also when it is in use: it vanishes from the
/// namespace, and ends when the last user closes.
pub fn unmount(mountpoint: &Path, lazy: bool) -> Result<(), MountError> {
    let shown = || mountpoint.to_path_buf();
    let path = match resolve(mountpoint) {
        Ok(path) => path,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(MountError::Missing { mountpoint: shown() });
        }
        Err(source) => return Err(MountError::Unreadable { mountpoint: shown(), source }),
    };
    let line = mounted_at(&path).map_err(|source| MountError::Unmount { mountpoint: shown(), source })?;
    if !line.is_some_and(|line| line.kind.starts_with("fuse")) {
        return Err(MountError::NotMounted { mountpoint: shown() });
    }
    let done = if lazy {
        detach(&path)
    } else {
        match rustix::mount::unmount(&path, UnmountFlags::NOFOLLOW) {
            Ok(()) => Ok(()),
            Err(Errno::PERM) => fusermount(&path, false),
            Err(errno) => Err(errno.into()),
        }
    };
    match done {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Err(MountError::InUse { mountpoint: shown() }),
        Err(source) => Err(MountError::Unmount { mountpoint: shown(), source }),
    }
}

/// Waits until nothing of FUSE is mounted at `mountpoint`. False when it
/// still is after `patience`.
pub fn wait_until_gone(mountpoint: &Path, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        let line = resolve(mountpoint).and_then(|path| mounted_at(&path));
        match line {
            Ok(Some(line)) if line.kind.starts_with("fuse") => {}
            _ => return true,
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(POLL);
    }
}

/// Checks that the FUSE device can be used.
pub(crate) fn check_device() -> Result<(), MountError> {
    match fs::File::options().read(true).write(true).open("/dev/fuse") {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(MountError::DeviceDenied(error)),
        // ENODEV and ENXIO: the node is there, the module is not.
        Err(_) => Err(MountError::NoDevice),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_lines_are_read_with_their_escapes() {
        let line = b"36 35 98:0 / /mnt/my\\040disk rw,noatime shared:1 - fuse.blockframe /srv/a\\134b rw";
        assert_eq!(
            MountLine::parse(line),
            Some(MountLine {
                mountpoint: "/mnt/my disk".into(),
                kind: "fuse.blockframe".into(),
                source: "/srv/a\\b".into()
            })
        );
        assert_eq!(MountLine::parse(b""), None);
        assert_eq!(MountLine::parse(b"36 35 98:0 / /mnt rw"), None);
    }

    #[test]
    fn bad_mount_points_are_named_with_the_next_step() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("missing");
        let text = prepare(&missing, false).unwrap_err().to_string();
        assert!(text.contains("does not exist") && text.contains("mkdir -p"), "{text}");

        let file = directory.path().join("file");
        fs::write(&file, b"x").unwrap();
        let text = prepare(&file, false).unwrap_err().to_string();
        assert!(text.contains("is not a directory"), "{text}");

        let text = prepare(directory.path(), false).unwrap_err().to_string();
        assert!(text.contains("is not empty") && text.contains("nonempty"), "{text}");
        assert_eq!(prepare(directory.path(), true).unwrap(), directory.path().canonicalize().unwrap());
        assert!(matches!(unmount(directory.path(), false), Err(MountError::NotMounted { .. })));
    }
}
