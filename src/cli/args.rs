//! The command line, defined once: parsing, help, man pages and completions
//! all come from these types.

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::units::{self, Moment};
use crate::codec::compress::CodecSpec;

const AFTER_HELP: &str = "\
The archive is found from --archive, else BLOCKFRAME_ARCHIVE, else [archive] directory in the configuration:
--config, else ./config.toml, else $XDG_CONFIG_HOME/blockframe/config.toml, else /etc/blockframe/config.toml.

Exit status: 0 done and healthy; 1 failed; 2 wrong usage; 3 damage found, all of it healed or healable;
4 data lost (listed); 5 archive or store unavailable; 6 wrong or missing key; 130 interrupted (resumable).";

/// An archive that mounts like a disk, heals itself, and stays readable without it.
#[derive(Debug, Parser)]
#[command(name = "blockframe", version, after_help = AFTER_HELP, arg_required_else_help = true)]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, Default, Args)]
pub struct GlobalArgs {
    /// Configuration file
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Directory of the archive
    #[arg(short, long, global = true, value_name = "DIR", env = "BLOCKFRAME_ARCHIVE", hide_env_values = true, value_hint = ValueHint::DirPath)]
    pub archive: Option<PathBuf>,
    /// Print JSON: one document, or for long listings one object a line
    #[arg(long, global = true)]
    pub json: bool,
    /// Only errors, no progress
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// File with a passphrase of the archive
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Key of an encrypted archive")]
    pub passphrase_file: Option<PathBuf>,
    /// File whose bytes are a key of the archive
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Key of an encrypted archive")]
    pub key_file: Option<PathBuf>,
    /// File with the archive's recovery phrase
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Key of an encrypted archive")]
    pub recovery_phrase_file: Option<PathBuf>,
    /// File with a share of the archive's key; as often as there are shares
    #[arg(long = "share-file", global = true, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Key of an encrypted archive")]
    pub share_files: Vec<PathBuf>,
    /// Use no key, not even one that is configured: `health`, `repair`, `scrub`, `status` and `doctor` need none
    #[arg(long, global = true, conflicts_with_all = ["passphrase_file", "key_file", "recovery_phrase_file", "share_files"], help_heading = "Key of an encrypted archive")]
    pub no_key: bool,
    /// Believe a store that is older than what this machine has seen of it (a restored disk), and go on from there
    #[arg(long, global = true, help_heading = "Key of an encrypted archive")]
    pub accept_rollback: bool,
    /// Tell more (-v: info, -vv: debug, -vvv: trace)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make an archive
    Init(InitArgs),
    /// Put files or whole trees into the archive
    Commit(CommitArgs),
    /// List a directory of the archive
    Ls(LsArgs),
    /// Find names by a pattern
    Find(FindArgs),
    /// Show all that is known of a name
    Stat(StatArgs),
    /// Write a file's content to standard output, verified
    Cat(CatArgs),
    /// Copy files and trees out of the archive, with their attributes
    Get(GetArgs),
    /// Show what stood at a path over time, what was removed included
    Versions(PathArg),
    /// Bring back an old version, or what was removed
    Restore(RestoreArgs),
    /// Remove files or trees; they can be restored until the retention ends
    Rm(RmArgs),
    /// Mount the archive
    Mount(MountArgs),
    /// Unmount the archive
    Umount(UmountArgs),
    /// Return when all that was written to the mount is committed
    Sync(SyncArgs),
    /// Tell what committing a path would cost and survive under each profile, without writing
    Plan(PlanArgs),
    /// Verify stored data: Healthy, Degraded, Recoverable or Unrecoverable
    Health(HealthArgs),
    /// Plan a repair, print the plan, execute it
    Repair(RepairArgs),
    /// Control the background scrubber of the running daemon, or make one pass in the foreground
    Scrub(ScrubArgs),
    /// Show the archive's state on one screen
    Status,
    /// Forget old versions that have had their time, and remove what crashed or failed commits left
    Gc(GcArgs),
    /// Show and change what opens an encrypted archive
    #[command(subcommand)]
    Key(KeyCommand),
    /// Rebuild the namespace from the store alone
    RebuildCatalog(RebuildArgs),
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Check the set-up of this machine, and say how to mend it
    Doctor,
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write all manual pages to a directory
    Man {
        /// Where to write them
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        directory: Option<PathBuf>,
    },
}

/// Arguments of `init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Directory for the archive: empty, or not there yet [default: the configured archive]
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub directory: Option<PathBuf>,
    /// How much redundancy, by size of the content
    #[arg(long, value_enum, default_value_t = ProfileName::Classic)]
    pub profile: ProfileName,
    /// Compress what is stored: zstd[:1-22], lz4, gzip[:1-9] or brotli[:0-11] [default: nothing is compressed]
    #[arg(long, value_name = "CODEC[:LEVEL]")]
    pub compress: Option<CodecSpec>,
    /// Name of what fails together with this directory (a disk, a machine) [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub failure_domain: Option<String>,
    /// Encrypt everything: aes256-gcm, chacha20-poly1305 or aes256-siv [default: what is fastest here]. It is opened
    /// with what --passphrase-file and --key-file name, else with a passphrase that is asked for
    #[arg(long, value_name = "CIPHER", num_args = 0..=1, default_missing_value = "")]
    pub encrypt: Option<String>,
    /// Make no recovery phrase
    #[arg(long, requires = "encrypt")]
    pub no_recovery_phrase: bool,
    /// Do not ask for words of the recovery phrase
    #[arg(long, requires = "encrypt")]
    pub no_confirm: bool,
}

/// A redundancy profile by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProfileName {
    /// Four copies up to 1 GB, Reed-Solomon 30+3 above
    Classic,
    /// Reed-Solomon throughout, generous for short contents
    Balanced,
    /// Reed-Solomon throughout, as little as survives any three lost shards of a block
    Compact,
}

/// Arguments of `commit`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("sources").required(true).multiple(true))]
pub struct CommitArgs {
    /// Files or directories; `-` is standard input
    #[arg(value_name = "PATH", group = "sources", value_hint = ValueHint::AnyPath)]
    pub paths: Vec<PathBuf>,
    /// A file or directory (the same as PATH)
    #[arg(short, long = "file", value_name = "PATH", group = "sources", value_hint = ValueHint::AnyPath)]
    pub files: Vec<PathBuf>,
    /// Directory of the archive that takes them [default: its root]
    #[arg(long, value_name = "DIR")]
    pub to: Option<OsString>,
    /// Name for standard input
    #[arg(long, value_name = "NAME")]
    pub name: Option<OsString>,
}

/// Arguments of `ls`.
#[derive(Debug, Args)]
pub struct LsArgs {
    /// Attributes, size and health too
    #[arg(short = 'l', long)]
    pub long: bool,
    /// Everything below too
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// Names that were removed and can be restored
    #[arg(long, conflicts_with_all = ["recursive", "at"])]
    pub deleted: bool,
    /// As it was then: 2026-11-20T12:00:00Z, "2026-11-20 12:00" (UTC), "2h ago", yesterday
    #[arg(long, value_name = "TIME", value_parser = units::parse_moment)]
    pub at: Option<Moment>,
    /// A directory or file of the archive [default: its root]
    #[arg(value_name = "PATH")]
    pub path: Option<OsString>,
}

/// Arguments of `find`.
#[derive(Debug, Args)]
pub struct FindArgs {
    /// A glob: of names (`*.jpg`), or with a slash of whole paths (`photos/**/*.jpg`)
    #[arg(value_name = "PATTERN")]
    pub pattern: OsString,
    /// As it was then: 2026-11-20T12:00:00Z, "2026-11-20 12:00" (UTC), "2h ago", yesterday
    #[arg(long, value_name = "TIME", value_parser = units::parse_moment)]
    pub at: Option<Moment>,
}

/// One path of the archive.
#[derive(Debug, Args)]
pub struct PathArg {
    /// A path of the archive
    #[arg(value_name = "PATH")]
    pub path: OsString,
}

/// Arguments of `stat`.
#[derive(Debug, Args)]
pub struct StatArgs {
    /// A path of the archive
    #[arg(value_name = "PATH")]
    pub path: OsString,
    /// As it was then: 2026-11-20T12:00:00Z, "2026-11-20 12:00" (UTC), "2h ago", yesterday
    #[arg(long, value_name = "TIME", value_parser = units::parse_moment)]
    pub at: Option<Moment>,
}

/// Arguments of `restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// A path of the archive: a file, or a directory with all that was below it
    #[arg(value_name = "PATH")]
    pub path: OsString,
    /// Which: an id or a number that `versions` shows, or the beginning of a hash [default: the newest old one]
    #[arg(long, value_name = "VERSION")]
    pub version: Option<String>,
    /// As it was then: 2026-11-20T12:00:00Z, "2026-11-20 12:00" (UTC), "2h ago", yesterday
    #[arg(long, conflicts_with = "version", value_name = "TIME", value_parser = units::parse_moment)]
    pub at: Option<Moment>,
    /// Where to put it [default: where it was, in the place of what stands there]
    #[arg(long, value_name = "PATH")]
    pub to: Option<OsString>,
}

/// Arguments of `cat`.
#[derive(Debug, Args)]
pub struct CatArgs {
    /// A file of the archive
    #[arg(value_name = "PATH")]
    pub path: OsString,
    /// Only these bytes: from A up to, not including, B (`100-200`, `1MiB-`)
    #[arg(long, value_name = "A-B", value_parser = units::parse_range)]
    pub range: Option<ByteSpan>,
    /// As it was then: 2026-11-20T12:00:00Z, "2026-11-20 12:00" (UTC), "2h ago", yesterday
    #[arg(long, value_name = "TIME", value_parser = units::parse_moment)]
    pub at: Option<Moment>,
}

/// Bytes from `start` up to, not including, `end` (to the end when none).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSpan {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: Option<u64>,
}

/// Arguments of `get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// Files or directories of the archive, then the directory that takes them
    #[arg(value_name = "PATH... DEST", required = true, num_args = 2..)]
    pub paths: Vec<OsString>,
    /// As it was then: 2026-11-20T12:00:00Z, "2026-11-20 12:00" (UTC), "2h ago", yesterday
    #[arg(long, value_name = "TIME", value_parser = units::parse_moment)]
    pub at: Option<Moment>,
}

/// Arguments of `rm`.
#[derive(Debug, Args)]
pub struct RmArgs {
    /// Directories too, with all that is below them
    #[arg(short, long)]
    pub recursive: bool,
    /// Files or directories of the archive
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<OsString>,
}

/// Arguments of `sync`.
#[derive(Debug, Args)]
pub struct SyncArgs {
    /// Only what lies at or below this path of the archive [default: everything]
    #[arg(value_name = "PATH")]
    pub path: Option<OsString>,
}

/// Arguments of `mount`.
#[derive(Debug, Args)]
pub struct MountArgs {
    /// An empty directory [default: [mount] default_mountpoint in the configuration]
    #[arg(value_name = "MOUNTPOINT", value_hint = ValueHint::DirPath)]
    pub mountpoint: Option<PathBuf>,
    /// The mount point (the same as MOUNTPOINT)
    #[arg(short, long = "mountpoint", value_name = "DIR", conflicts_with = "mountpoint", value_hint = ValueHint::DirPath)]
    pub mountpoint_flag: Option<PathBuf>,
    /// Mount options: ro, rw, allow_other, nonempty, noexec, suid, dev, threads=N, and in seconds attr_timeout=S,
    /// entry_timeout=S, negative_timeout=S
    #[arg(short, value_name = "OPT,...", value_delimiter = ',')]
    pub options: Vec<String>,
    /// Refuse all writes (the same as -o ro)
    #[arg(long)]
    pub read_only: bool,
    /// Show the archive as it was then, read-only: 2026-11-20T12:00:00Z, "2026-11-20 12:00" (UTC), "2h ago", yesterday
    #[arg(long, value_name = "TIME", value_parser = units::parse_moment)]
    pub at: Option<Moment>,
    /// Stay in the foreground
    #[arg(long)]
    pub foreground: bool,
}

impl MountArgs {
    /// The mount point, whichever way it was given.
    pub fn mountpoint(&self) -> Option<&PathBuf> {
        self.mountpoint.as_ref().or(self.mountpoint_flag.as_ref())
    }
}

/// Arguments of `umount`.
#[derive(Debug, Args)]
pub struct UmountArgs {
    /// The mount point [default: [mount] default_mountpoint in the configuration]
    #[arg(value_name = "MOUNTPOINT", value_hint = ValueHint::DirPath)]
    pub mountpoint: Option<PathBuf>,
    /// Unmount although programs use it: it vanishes now, and ends when the last of them closes
    #[arg(short, long)]
    pub lazy: bool,
}

/// Arguments of `plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// A file or directory that might be committed
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub path: PathBuf,
}

/// Arguments of `health`.
#[derive(Debug, Args)]
pub struct HealthArgs {
    /// Only what lies at or below this path of the archive [default: everything]
    #[arg(value_name = "PATH")]
    pub path: Option<OsString>,
    /// Presence and length of every shard, without reading them
    #[arg(long)]
    pub quick: bool,
    /// Begin no further object after reading this much or for this long, longest unverified first (`20GB`, `2h`)
    #[arg(long, value_name = "SIZE|TIME", value_parser = units::parse_budget)]
    pub budget: Option<Budget>,
}

/// How much may be verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    /// Bytes read from the store.
    Bytes(u64),
    /// Time.
    Time(Duration),
}

/// Arguments of `repair`.
#[derive(Debug, Args)]
pub struct RepairArgs {
    /// Only what lies at or below this path of the archive [default: everything]
    #[arg(value_name = "PATH")]
    pub path: Option<OsString>,
    /// Print the plan and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Arguments of `scrub`.
#[derive(Debug, Args)]
pub struct ScrubArgs {
    /// What the daemon's scrubber shall do; without it: one pass here and now
    #[arg(value_enum, value_name = "ACTION")]
    pub action: Option<ScrubAction>,
}

/// What the background scrubber shall do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ScrubAction {
    /// Begin a new pass
    Start,
    /// Stop until `resume`, over restarts too
    Pause,
    /// Go on
    Resume,
    /// Tell where it is
    Status,
}

/// Arguments of `gc`.
#[derive(Debug, Args)]
pub struct GcArgs {
    /// Tell what would be removed, and remove nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Arguments of `rebuild-catalog`.
#[derive(Debug, Args)]
pub struct RebuildArgs {
    /// What to believe
    #[arg(long, value_enum, default_value_t = RebuildFrom::Best)]
    pub source: RebuildFrom,
}

/// From what the catalog is rebuilt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RebuildFrom {
    /// The journal, and manifests and bundles for what it does not have
    Best,
    /// The journal alone
    Journal,
    /// Manifests and bundles alone
    Objects,
}

/// Commands about the keys of an encrypted archive.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// List the slots: what opens the archive
    List,
    /// Add a slot, for a new secret
    Add(NewKeyArgs),
    /// Remove a slot
    Remove {
        /// Its number, as `key list` shows it
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Put a new secret in the place of the one that the archive is opened with
    Change(NewKeyArgs),
    /// Add a slot for a new secret that is split into shares, some of which open the archive together
    Split(SplitKeyArgs),
    /// Encrypt what is written from now on with a new key
    #[command(after_help = ROTATE_HELP)]
    Rotate {
        /// Encrypt what is stored already anew, too; goes on where an interrupted run stopped
        #[arg(long)]
        reencrypt: bool,
        /// With --reencrypt: return at once and do it in the background, slowly
        #[arg(long, requires = "reencrypt")]
        background: bool,
    },
}

/// What a rotation is good for.
const ROTATE_HELP: &str = "\
A new key protects what is written from now on, and with --reencrypt what is stored too, against somebody who \
learned the key of an old epoch. It does not protect against somebody who has the archive's key: who kept a copy of \
an old key ring and a secret that opens it finds in it what opens the new ring as well. Nor does it change copies of \
the archive that were made before.";

/// A new secret; without one of these a passphrase is asked for.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("new_secret").multiple(false))]
pub struct NewKeyArgs {
    /// File with the new passphrase
    #[arg(long, value_name = "FILE", group = "new_secret", value_hint = ValueHint::FilePath)]
    pub new_passphrase_file: Option<PathBuf>,
    /// File whose bytes are the new key
    #[arg(long, value_name = "FILE", group = "new_secret", value_hint = ValueHint::FilePath)]
    pub new_key_file: Option<PathBuf>,
    /// Command for `sh` that prints the new secret
    #[arg(long, value_name = "COMMAND", group = "new_secret", value_hint = ValueHint::CommandString)]
    pub new_key_command: Option<String>,
    /// Make a new recovery phrase and print it
    #[arg(long, group = "new_secret")]
    pub new_recovery_phrase: bool,
    /// Do not ask for words of the recovery phrase
    #[arg(long, requires = "new_recovery_phrase")]
    pub no_confirm: bool,
    /// Write the recovery phrase into this new file instead: a page to print, or plain text if it ends with .txt
    // `requires` alone lets it pass beside another secret, as that conflicts with what is required.
    #[arg(long, value_name = "FILE", requires = "new_recovery_phrase", value_hint = ValueHint::FilePath)]
    #[arg(conflicts_with_all = ["new_passphrase_file", "new_key_file", "new_key_command"])]
    pub page: Option<PathBuf>,
    /// A name for the slot
    #[arg(long, value_name = "TEXT")]
    pub label: Option<String>,
}

/// A secret in shares.
#[derive(Debug, Args)]
pub struct SplitKeyArgs {
    /// How many shares shall be needed, at least 2
    #[arg(long, value_name = "COUNT")]
    pub threshold: u8,
    /// How many shares there shall be, at most 100
    #[arg(long, value_name = "COUNT")]
    pub shares: u8,
    /// Write each share into new files in this directory, as text and as a page to print, instead of showing them
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub out: Option<PathBuf>,
    /// A name for the slot [default: how many shares are needed, and their set]
    #[arg(long, value_name = "TEXT")]
    pub label: Option<String>,
}

/// Commands about the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say whether the configuration is understood, and what it amounts to
    Check {
        /// A file other than the one that is in force
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: Option<PathBuf>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn documented_forms_parse() {
        for line in [
            "init /a --profile compact --failure-domain nas",
            "commit -f a b --to x",
            "commit a b",
            "commit - --name x",
            "ls -lR photos",
            "find *.jpg",
            "cat a --range 1KiB-",
            "get a b dest",
            "-a /x mount /mnt -o allow_other,ro --foreground",
            "mount -m /mnt -a /x --read-only",
            "mount /mnt --at 2026-11-20T12:00:00Z",
            "rm -r a b",
            "versions a",
            "restore a --version 2 --to b",
            "restore a --at yesterday",
            "ls --deleted a",
            "ls -lR --at 2026-11-20",
            "cat a --at 2h",
            "stat a --at 2h",
            "find x --at 2h",
            "sync",
            "sync photos",
            "umount",
            "health --quick",
            "health --budget 20GB",
            "repair --dry-run x",
            "scrub pause",
            "scrub",
            "gc --dry-run",
            "rebuild-catalog",
            "config check",
            "completions bash",
            "man out",
            "--json -vv status",
        ] {
            let words = std::iter::once("blockframe").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
        for line in [
            "commit",
            "rm",
            "mount --at soon",
            "get a",
            "cat a --range 9-1",
            "health --budget soon",
            "-q -v status",
            "init --profile x",
        ] {
            let words = std::iter::once("blockframe").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }
}
