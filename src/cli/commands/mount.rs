//! `mount`: serves the archive as a filesystem.

use crate::base::{Clock as _, ErrorClass, SystemClock};
use crate::cli::args::MountArgs;
use crate::cli::context::Context;
use crate::cli::daemon;
use crate::cli::error::{CliError, CliResult};
use crate::cli::exit::ExitStatus;
use crate::cli::unlock::secret_for_background;
use blockframe_fuse::MountOptions;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Mounts in the background and returns once the mount answers; with
/// `--foreground`, or as the background process itself, serves until it is unmounted.
pub(super) fn run(context: &Context, args: &MountArgs) -> CliResult<ExitStatus> {
    let mountpoint = chosen_mountpoint(context, args.mountpoint())?;
    let archive = context.archive_directory()?;
    let mut options = mount_options(&archive, &args.options)?;
    options.read_only |= args.read_only;
    let at = args.at.map(|moment| moment.when(SystemClock.now()));
    options.read_only |= at.is_some();
    if daemon::is_background_child() || args.foreground {
        daemon::serve(context, &mountpoint, &options, at)
    } else {
        daemon::start_in_background(secret_for_background(context)?)
    }
}

/// The mount point that was named, else the configured one.
pub(super) fn chosen_mountpoint(context: &Context, named: Option<&PathBuf>) -> CliResult<PathBuf> {
    named.or(context.config().mount.default_mountpoint.as_ref()).cloned().ok_or_else(|| {
        CliError::new(
            ErrorClass::Invalid,
            "no mount point is named; give one, or write `default_mountpoint` under [mount] in config.toml",
        )
    })
}

/// `-o` options, those that `mount` passes from fstab included.
fn mount_options(archive: &Path, words: &[String]) -> CliResult<MountOptions> {
    let shown = std::path::absolute(archive).unwrap_or_else(|_| archive.to_path_buf());
    let mut options = MountOptions::new(format!("blockframe:{}", shown.display()));
    for word in words.iter().flat_map(|word| word.split(',')).filter(|word| !word.is_empty()) {
        let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        match (name, value) {
            ("allow_other", None) => options.allow_other = true,
            ("noallow_other", None) => options.allow_other = false,
            ("nonempty", None) => options.nonempty = true,
            ("exec", None) => options.exec = true,
            ("noexec", None) => options.exec = false,
            ("suid", None) => options.suid = true,
            ("nosuid", None) => options.suid = false,
            ("dev", None) => options.dev = true,
            ("nodev", None) => options.dev = false,
            ("threads", Some(value)) => options.threads = number(word, value, 1..=256)? as usize,
            ("attr_timeout", Some(value)) => options.attribute_ttl = seconds(word, value)?,
            ("entry_timeout", Some(value)) => options.entry_ttl = seconds(word, value)?,
            ("negative_timeout", Some(value)) => options.negative_ttl = seconds(word, value)?,
            ("ro", None) => options.read_only = true,
            // `defaults` stands for `rw` among others.
            ("rw" | "defaults", None) => options.read_only = false,
            // True of every mount.
            ("default_permissions" | "noatime" | "relatime" | "async" | "nodiratime", None) => {}
            // For mount, systemd and fstab alone.
            ("auto" | "noauto" | "user" | "nouser" | "users" | "nofail" | "_netdev", None) => {}
            ("comment", Some(_)) => {}
            _ if name.starts_with("x-") || name.starts_with("X-") => {}
            _ => {
                return Err(CliError::new(
                    ErrorClass::Invalid,
                    format!("unknown mount option \"{word}\"; `blockframe mount --help` lists the known ones"),
                ));
            }
        }
    }
    Ok(options)
}

fn number(word: &str, value: &str, allowed: std::ops::RangeInclusive<u64>) -> CliResult<u64> {
    value.parse().ok().filter(|number| allowed.contains(number)).ok_or_else(|| {
        CliError::new(
            ErrorClass::Invalid,
            format!("mount option \"{word}\": expected a whole number from {} to {}", allowed.start(), allowed.end()),
        )
    })
}

fn seconds(word: &str, value: &str) -> CliResult<Duration> {
    let parsed = value.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    parsed.ok_or_else(|| {
        CliError::new(ErrorClass::Invalid, format!("mount option \"{word}\": expected seconds, such as 1.5"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(words: &str) -> CliResult<MountOptions> {
        mount_options(Path::new("/archive"), &[words.to_owned()])
    }

    #[test]
    fn an_fstab_line_is_understood() {
        let parsed =
            options("rw,noexec,nofail,_netdev,x-systemd.automount,allow_other,threads=3,attr_timeout=0.5").unwrap();
        assert!(parsed.allow_other && !parsed.exec);
        assert_eq!((parsed.threads, parsed.attribute_ttl), (3, Duration::from_millis(500)));
        assert_eq!(parsed.source, "blockframe:/archive");
        for (words, read_only) in [("defaults", false), ("ro,nofail", true), ("ro,rw", false), ("rw,ro", true)] {
            assert_eq!(options(words).unwrap().read_only, read_only, "{words}");
        }
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (words, named) in [
            ("allow_otter", "allow_otter"),
            ("ro,threads=0", "threads=0"),
            ("attr_timeout=-1", "attr_timeout=-1"),
            ("entry_timeout=soon", "entry_timeout=soon"),
            ("allow_other=1", "allow_other=1"),
        ] {
            let error = options(words).unwrap_err();
            assert!(error.to_string().contains(named), "{error}");
            assert_eq!(error.class(), ErrorClass::Invalid);
        }
    }
}
