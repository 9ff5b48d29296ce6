//! The one way in which a whole file comes into being or is replaced.
//!
//! Crash argument: the bytes are durable under a temporary name before the
//! rename; the rename is atomic; the directory is synced before we return. So
//! at every instant the name has the old bytes or the new ones, whole, and
//! after a return with success the new ones. A sync is never tried twice: on
//! failure the temporary file goes away, and the next attempt writes a new one.

use super::directory::Directory;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// How the names of unfinished files begin.
const TEMPORARY_PREFIX: &str = ".blockframe-tmp-";

/// Larger buffered writes cost several times the CPU per byte.
pub(super) const WRITE_CHUNK: usize = 1 << 20;

/// Whether a name is that of a file in the middle of being published, or of
/// one that a crash left behind.
pub fn is_temporary_name(name: &str) -> bool {
    name.starts_with(TEMPORARY_PREFIX)
}

/// Whether a name is that of a file that a crash left behind: no process of the number in it runs here. Should a
/// machine that shares the store be writing it, its write fails and the old file stays.
pub fn is_leftover_name(name: &str) -> bool {
    let process = name.strip_prefix(TEMPORARY_PREFIX).and_then(|rest| rest.split('-').next()?.parse().ok());
    process.is_some_and(|process| !is_running(process))
}

#[cfg(unix)]
fn is_running(process: i32) -> bool {
    use rustix::process::{Pid, test_kill_process};
    // Another user's process may not be signalled, but is there.
    Pid::from_raw(process).is_some_and(|pid| test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

#[cfg(not(unix))]
fn is_running(_process: i32) -> bool {
    true
}

/// Makes the file at `path` have exactly `bytes`, durably. Its directory must exist.
///
/// On error the file has what it had before; only when the directory could
/// not be synced after the rename it may have the new bytes, not durably.
pub fn publish_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path does not end in a file name"))?;
    publish_at(&Directory::open(parent_of(path))?, name, bytes)
}

/// Makes the names in the directory at `path` durable.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    Directory::open(path)?.sync()
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// [`publish_file`] for a name in an open directory.
pub(super) fn publish_at(directory: &Directory, name: &OsStr, bytes: &[u8]) -> io::Result<()> {
    let (file, temporary) = create_temporary(directory)?;
    let renamed = fill(file, bytes).and_then(|()| directory.rename(&temporary, directory, name));
    if let Err(error) = renamed {
        // The first error is the one to tell; a leftover is found by its name.
        let _ = directory.remove_file(&temporary);
        return Err(error);
    }
    directory.sync()
}

fn fill(mut file: File, bytes: &[u8]) -> io::Result<()> {
    for chunk in bytes.chunks(WRITE_CHUNK) {
        file.write_all(chunk)?;
    }
    file.sync_all()
}

fn create_temporary(directory: &Directory) -> io::Result<(File, OsString)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = OsString::from(format!("{TEMPORARY_PREFIX}{}-{number}", std::process::id()));
        match directory.create_file(&name) {
            // A crash left it, or another machine writes to the same place.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(file) => return Ok((file, name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_published_file_has_the_new_bytes_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        for bytes in [b"one".to_vec(), Vec::new(), vec![7; 3 * WRITE_CHUNK + 1]] {
            publish_file(&path, &bytes).unwrap();
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
        assert_eq!(names(directory.path()), ["state.json"]);
    }

    #[test]
    fn a_failed_publish_leaves_the_target_as_it_was_and_no_temporary_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("occupied");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("inside"), b"kept").unwrap();
        publish_file(&path, b"new").unwrap_err();
        assert_eq!(names(directory.path()), ["occupied"]);
        assert_eq!(fs::read(path.join("inside")).unwrap(), b"kept");
    }

    #[test]
    fn a_symbolic_link_at_the_target_is_replaced_and_not_written_through() {
        let directory = tempfile::tempdir().unwrap();
        let elsewhere = directory.path().join("elsewhere");
        fs::write(&elsewhere, b"theirs").unwrap();
        let path = directory.path().join("ours");
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        publish_file(&path, b"new").unwrap();
        assert_eq!(fs::read(&elsewhere).unwrap(), b"theirs");
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn a_temporary_file_that_a_crash_left_is_stepped_over() {
        let directory = tempfile::tempdir().unwrap();
        let open = Directory::open(directory.path()).unwrap();
        let (_, first) = create_temporary(&open).unwrap();
        let (_, second) = create_temporary(&open).unwrap();
        assert_ne!(first, second);
        assert!(names(directory.path()).iter().all(|name| is_temporary_name(name)));
    }

    #[test]
    fn only_what_a_dead_process_left_is_a_leftover() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let dead = child.id();
        child.wait().unwrap();
        assert!(is_leftover_name(&format!("{TEMPORARY_PREFIX}{dead}-0")));
        assert!(!is_leftover_name(&format!("{TEMPORARY_PREFIX}{}-0", std::process::id())));
        for foreign in ["manifest.json", TEMPORARY_PREFIX, ".blockframe-tmp-x-1", ".blockframe-tmp--1-0"] {
            assert!(!is_leftover_name(foreign), "{foreign}");
        }
    }

    #[test]
    fn publishing_into_a_missing_directory_says_not_found() {
        let directory = tempfile::tempdir().unwrap();
        let error = publish_file(&directory.path().join("none/file"), b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
