//! Keys must not end in a core dump.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;

/// Forbids core dumps of this process; called before it gets a key.
///
/// * `RLIMIT_CORE` becomes 0, for this process and those that it starts: no
///   core file is written. Programs that the kernel hands dumps to
///   (`core_pattern` with a pipe) are not bound by it.
/// * On Linux the process is no longer *dumpable* (`PR_SET_DUMPABLE`): the
///   kernel makes no dump for anybody, and other processes of the same user
///   can no longer attach to it (`ptrace`: debuggers, `strace`) or read its
///   memory (`/proc/PID/mem`), open files and environment. Root still can. A
///   program that this process runs is dumpable again.
///
/// What it does not prevent: a dump of the whole machine (hibernation, a
/// snapshot of a virtual machine, kdump).
///
/// # Errors
/// What the system refuses; the other of the two is done anyway.
pub fn forbid_core_dumps() -> io::Result<()> {
    // Lowering the highest permitted value as well: what runs in this process cannot raise it again.
    let none = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(none?)
}

/// Whether [`forbid_core_dumps`] has been effective.
pub fn core_dumps_are_forbidden() -> bool {
    #[cfg(target_os = "linux")]
    if !matches!(rustix::process::dumpable_behavior(), Ok(rustix::process::DumpableBehavior::NotDumpable)) {
        return false;
    }
    getrlimit(Resource::Core).current == Some(0)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    /// Set for the process that the test below starts.
    const CHILD: &str = "BLOCKFRAME_TEST_CORE_DUMPS";

    /// In a process of its own, because it cannot be undone.
    #[test]
    fn they_are_forbidden_and_own_files_are_still_reached() {
        if std::env::var_os(CHILD).is_none() {
            let name = "cli::core_dumps::tests::they_are_forbidden_and_own_files_are_still_reached";
            let mut child = Command::new(std::env::current_exe().unwrap());
            child.args(["--exact", name, "--nocapture"]).env(CHILD, "1").stdout(Stdio::piped());
            let output = child.output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success() && said.contains("1 passed") && said.contains("forbidden now"), "{said}");
            return;
        }
        forbid_core_dumps().unwrap();
        assert!(core_dumps_are_forbidden());
        println!("forbidden now");
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
        // The control socket and the mount reach their own descriptors and tables in this way.
        let file = std::fs::File::open("/proc/self/mountinfo").unwrap();
        let through = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        assert!(std::fs::read(through).is_ok());
        forbid_core_dumps().unwrap();
    }
}
