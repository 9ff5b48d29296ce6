//! The real program, run by tests in a directory of their own.

use super::scratch;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// A directory for an archive `arch`, sources and a mount point `mnt`. What is mounted there goes with it.
pub struct Place {
    pub directory: TempDir,
}

impl Drop for Place {
    fn drop(&mut self) {
        while is_mounted(&self.path("mnt")) {
            let _ = rustix::mount::unmount(self.path("mnt"), rustix::mount::UnmountFlags::DETACH);
        }
    }
}

impl Place {
    pub fn new() -> Self {
        let directory = scratch();
        fs::create_dir(directory.path().join("mnt")).unwrap();
        Self { directory }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn archive(&self) -> PathBuf {
        self.path("arch")
    }

    /// The program, without the machine's configuration.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_blockframe"));
        command.args(arguments).current_dir(self.directory.path()).env("HOME", self.directory.path());
        for variable in ["XDG_CONFIG_HOME", "BLOCKFRAME_LOG", "NOTIFY_SOCKET"] {
            command.env_remove(variable);
        }
        command.env("XDG_STATE_HOME", self.path(".state"));
        command.env("BLOCKFRAME_ARCHIVE", self.archive()).stdin(Stdio::null());
        command
    }

    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Outcome {
        Outcome(self.command(arguments).output().unwrap())
    }

    /// Standard output of a command that must end well.
    pub fn ok<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> String {
        let outcome = self.run(arguments);
        assert_eq!(outcome.status(), Some(0), "{}", outcome.stderr());
        outcome.stdout()
    }

    /// Makes the archive, encrypted. Its key is in the user's configuration, where every later run finds it.
    pub fn init_encrypted(&self, options: &[&str]) {
        use std::os::unix::fs::PermissionsExt;
        let (secret, config) = (self.path("secret"), self.path(".config/blockframe"));
        fs::write(&secret, "a passphrase for tests\n").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        fs::create_dir_all(&config).unwrap();
        fs::write(config.join("config.toml"), "[encryption]\npassphrase_file = \"../../secret\"\n").unwrap();
        let archive = self.archive();
        let words = ["init", archive.to_str().unwrap(), "--no-recovery-phrase"];
        self.ok(words.iter().chain(options).chain(&["--encrypt"]));
    }

    /// An object's directory, by the beginning of its name.
    pub fn object(&self, name: &str) -> PathBuf {
        let names = fs::read_dir(self.archive()).unwrap().map(|entry| entry.unwrap().path());
        let is_it = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(&format!("{name}_"));
        names.into_iter().find(is_it).unwrap_or_else(|| panic!("there is no object {name}"))
    }
}

/// How a run of the program ended.
#[derive(Debug)]
pub struct Outcome(pub Output);

impl Outcome {
    pub fn status(&self) -> Option<i32> {
        self.0.status.code()
    }

    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.0.stdout).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    /// Ended with this status, and told all of `words` in one message without a panic.
    pub fn told(&self, status: i32, words: &[&str]) {
        let text = self.stderr();
        assert_eq!(self.status(), Some(status), "{text}");
        assert!(!text.contains("panicked"), "{text}");
        let in_one_line = text.lines().any(|line| words.iter().all(|word| line.contains(word)));
        assert!(in_one_line, "no line tells {words:?}: {text}");
    }
}

pub fn is_mounted(mountpoint: &Path) -> bool {
    let table = fs::read("/proc/self/mountinfo").unwrap();
    let points = table.split(|&b| b == b'\n').map(|line| line.split(|&b| b == b' ').nth(4));
    points.into_iter().any(|point| point == Some(mountpoint.as_os_str().as_bytes()))
}

/// Whether mounts can be tested here; a line says why not.
pub fn can_mount() -> bool {
    let can = Path::new("/dev/fuse").exists();
    if !can {
        eprintln!("skipped: there is no /dev/fuse here");
    }
    can
}
