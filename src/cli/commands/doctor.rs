//! `doctor`: is this machine set up, and if not, what mends it?

use crate::base::ErrorClass;
use crate::cli::context::{Context, OpenObjects};
use crate::cli::error::{CliError, CliResult};
use crate::cli::exit::ExitStatus;
use crate::cli::units;
use crate::cli::unlock::{Ask, EncryptionSummary, has_origins};
use rustix::fs::{Access, access, statvfs};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    check: &'static str,
    ok: bool,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl Check {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, ok: true, found: found.into(), fix: None }
    }

    fn problem(check: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, ok: false, found: found.into(), fix: Some(fix.into()) }
    }
}

/// Prints a line for everything that was looked at; fails when something is wrong.
pub(super) fn run(context: &Context) -> CliResult<ExitStatus> {
    let mut checks = vec![configuration(context), fuse_device(), fuse_helper(), allow_other()];
    checks.extend(mountpoint(context));
    checks.extend(archive(context));
    let out = context.out();
    for check in &checks {
        out.line(format_args!("{:<8} {:<14} {}", if check.ok { "ok" } else { "PROBLEM" }, check.check, check.found))?;
        if let Some(fix) = &check.fix {
            out.line(format_args!("{:<23} fix: {fix}", ""))?;
        }
    }
    let ok = checks.iter().all(|check| check.ok);
    out.json(&serde_json::json!({ "ok": ok, "checks": checks }))?;
    Ok(if ok { ExitStatus::Done } else { ExitStatus::Failed })
}

fn configuration(context: &Context) -> Check {
    let loaded = context.loaded_config();
    match (&loaded.file, loaded.warnings.as_slice()) {
        (None, _) => Check::ok("configuration", "none; the defaults are in force"),
        (Some(file), []) => Check::ok("configuration", file.display().to_string()),
        (Some(file), warnings) => {
            Check::problem("configuration", warnings.join("; "), format!("remove the keys from {}", file.display()))
        }
    }
}

fn fuse_device() -> Check {
    let device = Path::new("/dev/fuse");
    match std::fs::OpenOptions::new().read(true).write(true).open(device) {
        Ok(_) => Check::ok("fuse", "/dev/fuse can be used"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Check::problem(
            "fuse",
            "there is no /dev/fuse",
            "load the kernel module (`modprobe fuse`); in a container start it with `--device /dev/fuse --cap-add SYS_ADMIN`",
        ),
        Err(error) => Check::problem(
            "fuse",
            format!("/dev/fuse cannot be opened: {error}"),
            "`chmod 666 /dev/fuse`, or run as a user who may open it",
        ),
    }
}

fn fuse_helper() -> Check {
    let helper = std::env::var_os("PATH")
        .and_then(|path| std::env::split_paths(&path).map(|dir| dir.join("fusermount3")).find(|file| file.is_file()));
    match helper {
        Some(file) => Check::ok("fusermount3", file.display().to_string()),
        None => Check::problem("fusermount3", "not found in PATH", "`apt install fuse3`"),
    }
}

fn allow_other() -> Check {
    let user_allowed = std::fs::read_to_string("/etc/fuse.conf")
        .is_ok_and(|text| text.lines().any(|line| line.trim() == "user_allow_other"));
    if rustix::process::geteuid().is_root() || user_allowed {
        Check::ok("allow_other", "mounts can be shared with other users")
    } else {
        // Only `-o allow_other` needs it: worth a word, no problem by itself.
        Check::ok(
            "allow_other",
            "only root may share mounts; uncomment user_allow_other in /etc/fuse.conf to change it",
        )
    }
}

fn mountpoint(context: &Context) -> Option<Check> {
    let path: &PathBuf = context.config().mount.default_mountpoint.as_ref()?;
    let shown = path.display();
    Some(match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Check::ok("mount point", shown.to_string()),
        Ok(_) => Check::problem(
            "mount point",
            format!("{shown} is no directory"),
            "set [mount] default_mountpoint to an empty directory",
        ),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOTCONN.raw_os_error()) => Check::problem(
            "mount point",
            format!("{shown} is a mount whose daemon is gone"),
            format!("`blockframe umount {shown}`"),
        ),
        Err(error) => Check::problem("mount point", format!("{shown}: {error}"), format!("`mkdir -p {shown}`")),
    })
}

fn not_opened(error: &CliError, shown: &str) -> Check {
    Check::problem("archive", error.to_string(), format!("`blockframe init {shown}` if it shall be made there"))
}

/// An archive whose store answers: does its key open it, and does its catalog?
fn opened(context: &Context, objects: OpenObjects, shown: &str) -> Vec<Check> {
    let rules = objects.archive.descriptor().clone();
    let mut checks = Vec::new();
    let mut archive = Check::ok("archive", format!("{shown}: {} ({})", rules.id, rules.profile));
    let catalog = match EncryptionSummary::of(&objects.archive, super::key::is_running(&objects.directory)) {
        Ok(None) => objects.open_catalog().map(|_| ()),
        Ok(Some(summary)) => {
            checks.push(Check::ok("encryption", summary.text()));
            match objects.key_ring(context, Ask::Nobody) {
                Err(_) if context.global().no_key => {
                    checks.push(Check::ok("key", "not asked for (--no-key); verifying and repairing need none"));
                    Ok(())
                }
                Ok(unlocked) => {
                    let kind = unlocked.secret.kind().name();
                    checks.push(Check::ok("key", format!("the archive opens with the {kind} that is configured")));
                    objects.unlocked(&unlocked).open_catalog().map(|_| ())
                }
                Err(error) if error.class() == ErrorClass::WrongKey && !has_origins(context) => {
                    checks.push(Check::ok("key", "none is configured; a passphrase is asked for on the terminal"));
                    Ok(())
                }
                Err(error) => {
                    let fix =
                        "name the right key in [encryption] in config.toml, or by a flag such as --passphrase-file";
                    checks.push(Check::problem("key", error.to_string(), fix));
                    Ok(())
                }
            }
        }
        Err(error) => {
            let fix = "copy blockframe-keys.json of this archive there, from another store or a backup";
            checks.push(Check::problem("encryption", error.to_string(), fix));
            Ok(())
        }
    };
    if let Err(error) = catalog {
        archive = not_opened(&error, shown);
    }
    checks.insert(0, archive);
    checks
}

fn archive(context: &Context) -> Vec<Check> {
    let directory = match context.archive_directory() {
        Ok(directory) => directory,
        Err(error) => {
            return vec![Check::problem("archive", error.to_string(), "`blockframe init DIR`, then name it")];
        }
    };
    let shown = directory.display().to_string();
    let mut checks = match context.open_objects() {
        Ok(objects) => opened(context, objects, &shown),
        Err(error) => vec![not_opened(&error, &shown)],
    };
    if !directory.is_dir() {
        return checks;
    }
    checks.push(match access(&directory, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Check::ok("permissions", format!("{shown} can be read and written")),
        Err(error) => Check::problem(
            "permissions",
            format!("{shown}: {error}; damage cannot be healed there"),
            "run as the archive's owner, or `chown` it to you",
        ),
    });
    if let Ok(space) = statvfs(&directory) {
        let (free, total) =
            (space.f_bavail.saturating_mul(space.f_frsize), space.f_blocks.saturating_mul(space.f_frsize));
        let found = format!("{} of {} free", units::size(free), units::size(total));
        checks.push(if free < total / 50 {
            Check::problem("free space", found, "make room: healing and commits need some")
        } else {
            Check::ok("free space", found)
        });
    }
    checks
}
