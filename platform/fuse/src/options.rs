//! How to mount.

use fuser::{Config, MountOption, SessionACL};
use std::time::Duration;

/// How to mount, and how long the kernel may remember what it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOptions {
    /// What `mount` and `df` show as the source.
    pub source: String,
    /// Users other than the one who mounted may enter. The kernel checks
    /// permissions in any case.
    pub allow_other: bool,
    /// Nothing can be changed. So it is in any case when the filesystem says
    /// that it cannot be written.
    pub read_only: bool,
    /// Mount over a directory that has entries.
    pub nonempty: bool,
    /// Programs on the mount may be executed.
    pub exec: bool,
    /// Set-user-id bits count. Needs root.
    pub suid: bool,
    /// Device nodes work. Needs root.
    pub dev: bool,
    /// Threads that serve requests.
    pub threads: usize,
    /// Each thread has its own channel to the kernel.
    pub clone_fd: bool,
    /// Most bytes that the kernel reads ahead.
    pub max_read_ahead: u32,
    /// How long the kernel may keep attributes.
    pub attribute_ttl: Duration,
    /// How long the kernel may keep a name.
    pub entry_ttl: Duration,
    /// How long the kernel may remember that a name does not exist.
    pub negative_ttl: Duration,
}

impl MountOptions {
    /// The defaults: it can be written; other users may enter when root mounts; names and
    /// attributes are kept for a second, so that another process's commit is
    /// seen soon.
    pub fn new(source: impl Into<String>) -> Self {
        let second = Duration::from_secs(1);
        Self {
            source: source.into(),
            allow_other: rustix::process::geteuid().is_root(),
            read_only: false,
            nonempty: false,
            exec: true,
            suid: false,
            dev: false,
            threads: std::thread::available_parallelism().map_or(4, |n| n.get().clamp(4, 16)),
            clone_fd: true,
            max_read_ahead: 1 << 20,
            attribute_ttl: second,
            entry_ttl: second,
            negative_ttl: second,
        }
    }

    pub(crate) fn config(&self) -> Config {
        let either = |on: bool, yes: MountOption, no: MountOption| if on { yes } else { no };
        let mut config = Config::default();
        config.mount_options = vec![
            // Commas separate options where fusermount3 parses them.
            MountOption::FSName(self.source.replace(',', "_")),
            MountOption::Subtype("blockframe".to_owned()),
            MountOption::DefaultPermissions,
            either(self.read_only, MountOption::RO, MountOption::RW),
            MountOption::NoAtime,
            either(self.exec, MountOption::Exec, MountOption::NoExec),
            either(self.suid, MountOption::Suid, MountOption::NoSuid),
            either(self.dev, MountOption::Dev, MountOption::NoDev),
        ];
        config.acl = if self.allow_other { SessionACL::All } else { SessionACL::Owner };
        config.n_threads = Some(self.threads.max(1));
        config.clone_fd = self.clone_fd;
        config
    }
}
