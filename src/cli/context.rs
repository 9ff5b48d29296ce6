//! What every command starts from: flags, configuration, output, and the
//! archive they name.

use super::args::GlobalArgs;
use super::config::{Config, LoadedConfig};
use super::error::{CliError, CliResult};
use super::exit::ExitStatus;
use super::output::Output;
use super::unlock::{Ask, Unlocked, unlock};
use crate::archive::{Archive, Event, EventKind, EventSink};
use crate::base::{ErrorClass, SystemClock};
use crate::catalog::{Catalog, HealthLog, TrustedHeads};
use crate::store::LocalStore;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// What every command starts from.
#[derive(Debug)]
pub struct Context {
    global: GlobalArgs,
    loaded: LoadedConfig,
    out: Output,
}

impl Context {
    /// From the flags and the configuration they lead to.
    pub fn new(global: GlobalArgs, loaded: LoadedConfig) -> Self {
        let out = Output::new(global.json, global.quiet);
        Self { global, loaded, out }
    }

    /// The flags of every command.
    pub fn global(&self) -> &GlobalArgs {
        &self.global
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.loaded.config
    }

    /// The configuration and where it came from.
    pub fn loaded_config(&self) -> &LoadedConfig {
        &self.loaded
    }

    /// Standard output.
    pub fn out(&self) -> &Output {
        &self.out
    }

    /// The archive's directory: from `--archive`, `BLOCKFRAME_ARCHIVE` or the configuration.
    ///
    /// Error: `Unavailable` when none of them names one.
    pub fn archive_directory(&self) -> CliResult<PathBuf> {
        self.global.archive.clone().or_else(|| self.config().archive.directory.clone()).ok_or_else(|| {
            CliError::new(
                ErrorClass::Unavailable,
                "no archive is named; use --archive DIR, set BLOCKFRAME_ARCHIVE, or write `directory` under [archive] \
                 in config.toml (`blockframe init DIR` makes an archive)",
            )
        })
    }
}

/// Where the working files of this machine lie: the catalog's database, the
/// health log, the daemon's log. All can be made anew from the rest of the archive.
pub fn state_directory(archive: &Path) -> PathBuf {
    archive.join(crate::format::layout::PRIVATE_DIR)
}

/// An archive that commands work on.
#[derive(Debug)]
pub struct OpenArchive {
    /// Its directory.
    pub directory: PathBuf,
    /// Its objects.
    pub archive: Arc<Archive>,
    /// Its names.
    pub catalog: Arc<Catalog>,
    /// What happened to it, and what was verified when.
    pub health: Arc<HealthLog>,
    seen: Arc<Seen>,
}

/// An archive whose names are not open: for what must work without a catalog.
#[derive(Debug)]
pub struct OpenObjects {
    /// Its directory.
    pub directory: PathBuf,
    /// Its objects.
    pub archive: Arc<Archive>,
    /// What this machine remembers of it.
    pub heads: TrustedHeads,
    seen: Arc<Seen>,
}

impl Context {
    /// Opens the archive that the user means, with its key where it is encrypted.
    ///
    /// Error: `WrongKey`, before anything is touched.
    pub fn open(&self) -> CliResult<OpenArchive> {
        self.open_objects()?.unlock(self)?.open_catalog()
    }

    /// What this machine remembers of encrypted archives.
    pub fn trusted_heads(&self) -> TrustedHeads {
        match self.config().encryption.state_directory() {
            Some(state) => TrustedHeads::in_directory(state.join("heads"), self.global.accept_rollback),
            None => {
                tracing::warn!("there is no directory for the state of this machine: a rollback cannot be noticed");
                TrustedHeads::nowhere()
            }
        }
    }

    /// Where files of the archive in `archive` lie while they are written.
    pub fn staging_directory(&self, archive: &Path) -> PathBuf {
        self.config().staging.directory.clone().unwrap_or_else(|| state_directory(archive).join("staging"))
    }

    /// Opens the archive that the user means, without its catalog and without a key.
    pub fn open_objects(&self) -> CliResult<OpenObjects> {
        let directory = self.archive_directory()?;
        let directory = std::fs::canonicalize(&directory).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => CliError::new(
                ErrorClass::Unavailable,
                format!("there is no directory {0}; `blockframe init {0}` makes an archive there", directory.display()),
            ),
            _ => CliError::io(format!("cannot open the archive {}", directory.display()), error),
        })?;
        if directory.is_file() {
            let what = format!("{} is not a directory, so no archive; name its directory", directory.display());
            return Err(CliError::new(ErrorClass::Unavailable, what));
        }
        let store = Arc::new(LocalStore::open(&directory)?);
        let seen = Arc::new(Seen::default());
        let archive = Arc::new(Archive::open(store, Arc::new(SystemClock), seen.clone())?);
        Ok(OpenObjects { directory, archive, heads: self.trusted_heads(), seen })
    }
}

impl OpenObjects {
    /// Opens what is encrypted with the key that the user gives.
    ///
    /// Error: `WrongKey`, before anything is touched.
    pub fn unlock(self, context: &Context) -> CliResult<Self> {
        if !self.archive.is_encrypted() {
            return Ok(self);
        }
        let unlocked = self.key_ring(context, Ask::Person)?;
        Ok(self.unlocked(&unlocked))
    }

    /// With the keys of its ring, whose copies are healed.
    pub(super) fn unlocked(self, unlocked: &Unlocked) -> Self {
        Self { archive: Arc::new(self.archive.unlock(&unlocked.copies, &unlocked.ring)), ..self }
    }

    /// Opens the key ring of an encrypted archive.
    pub(super) fn key_ring(&self, context: &Context, ask: Ask) -> CliResult<Unlocked> {
        unlock(context, &self.directory, &**self.archive.store(), self.archive.descriptor(), ask)
    }

    /// Opens the health log; of an encrypted archive that is closed, the one that holds no names.
    pub(super) fn open_log(&self) -> CliResult<Arc<HealthLog>> {
        let health = Arc::new(HealthLog::open_for(&self.directory, &self.archive)?);
        self.seen.log_to(&health);
        Ok(health)
    }

    /// Opens the catalog and the health log too.
    pub fn open_catalog(self) -> CliResult<OpenArchive> {
        // The log is made only here, so that looking at a foreign directory leaves nothing there.
        let health = self.open_log()?;
        let Self { directory, archive, heads, seen } = self;
        let catalog = Arc::new(Catalog::open_trusted(&directory, &archive, heads)?);
        Ok(OpenArchive { directory, archive, catalog, health, seen })
    }
}

impl OpenArchive {
    /// The status of a command that has only read: whether it met damage.
    pub fn outcome(&self) -> ExitStatus {
        if self.seen.loss.load(Ordering::Relaxed) {
            ExitStatus::DataLost
        } else if self.seen.damage.load(Ordering::Relaxed) {
            ExitStatus::DamageFound
        } else {
            ExitStatus::Done
        }
    }
}

/// Logs events, and remembers for the exit status that there were some.
#[derive(Debug, Default)]
struct Seen {
    log: OnceLock<Arc<HealthLog>>,
    /// What happened before there was a log.
    early: Mutex<Vec<Event>>,
    damage: AtomicBool,
    loss: AtomicBool,
}

impl Seen {
    fn log_to(&self, log: &Arc<HealthLog>) {
        let log = self.log.get_or_init(|| Arc::clone(log));
        for event in self.early.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            log.record(event);
        }
    }
}

impl EventSink for Seen {
    fn record(&self, event: Event) {
        let flag = if event.kind == EventKind::Lost { &self.loss } else { &self.damage };
        flag.store(true, Ordering::Relaxed);
        match self.log.get() {
            Some(log) => log.record(event),
            None => self.early.lock().unwrap_or_else(PoisonError::into_inner).push(event),
        }
    }
}
