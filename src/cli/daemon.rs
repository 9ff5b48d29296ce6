//! The mount daemon: started in the background or by systemd, it serves until
//! it is unmounted or told to end.
//!
//! Going to the background is running the same command again: a process with
//! threads cannot fork. The child's standard output is a pipe on which it says
//! that the mount answers; until then its standard error is the user's
//! terminal, afterwards the daemon's log.

use super::config::{FsyncMode, ScrubConfig, VersionsConfig};
use super::context::{Context, OpenArchive};
use super::daemon_log::Log;
use super::error::{CliError, CliResult};
use super::exit::ExitStatus;
use super::retention;
use super::secrets;
use super::service::LiveService;
use super::writes;
use crate::archive::Archive;
use crate::base::{ErrorClass, LatencyGauge, Timestamp};
use crate::catalog::{Catalog, CatalogError};
use crate::control::{self, ControlService};
use crate::ingest::{IngestError, SpoolKeys};
use crate::keys::SlotSecret;
use crate::scrub::{CatalogLedger, ScrubDaemon, ScrubOptions, Scrubber, StopSignal};
use crate::staging::{StagingArea, StagingKeys, StagingLimits};
use crate::vfs::{ArchiveVfs, HealthSource, LiveVfs, SyncPolicy, VfsLimits, WithPrivate, Writeback, WritebackOptions};
use blockframe_api::{Vfs, VfsError};
use blockframe_fuse::{MountOptions, Mounted};
use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Set in the environment of the process that serves in the background.
const CHILD: &str = "BLOCKFRAME_BACKGROUND_CHILD";
/// What it says when the mount answers.
const READY: &str = "ready";
/// How long a mount that is in use is waited for when the daemon shall end.
const GRACE: Duration = Duration::from_secs(5);
/// How often the daemon looks whether another process has changed the catalog.
const REFRESH: Duration = Duration::from_secs(1);
/// How often this machine is told how far an encrypted archive has gone.
const REMEMBER: Duration = Duration::from_secs(60);
/// How often the daemon looks how much space the store has.
const LOOK_AT_SPACE: Duration = Duration::from_secs(60);

/// Bytes that staging leaves free on its disk.
const RESERVE: u64 = 64 << 20;
/// How long a daemon that was told to end by a signal commits what is staged:
/// less than service managers wait before they kill.
const DRAIN_AFTER_SIGNAL: Duration = Duration::from_secs(60);

/// How long a mount waits for another writer, and how often it looks.
const PATIENCE: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_millis(50);

/// A moment for durations.
fn monotonic() -> Instant {
    Instant::now()
}

/// Whether this process was started to serve in the background.
pub(super) fn is_background_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// The secret that the process which started this one in the background has handed over.
pub(super) fn handed_secret() -> CliResult<Option<SlotSecret>> {
    if !is_background_child() {
        return Ok(None);
    }
    // Not through the library's buffer, which would keep a copy.
    let pipe = io::stdin().as_fd().try_clone_to_owned();
    let mut pipe =
        File::from(pipe.map_err(|error| CliError::io("cannot read from the process that started this one", error))?);
    secrets::take_over(&mut pipe)
}

/// Runs this very command again in the background, and returns once its mount
/// answers, or with its exit status when it ends before that. The archive's
/// secret, if there is one, goes through a pipe: arguments and environment can be read by others.
pub(super) fn start_in_background(secret: Option<SlotSecret>) -> CliResult<ExitStatus> {
    let failed = |error| CliError::io("cannot start the daemon", error);
    let program = std::env::current_exe().map_err(failed)?;
    let mut child = Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(CHILD, "1")
        .stdin(if secret.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let (Some(secret), Some(mut pipe)) = (secret, child.stdin.take()) {
        // A child that ended before it has told why.
        let _ = secrets::hand_over(&secret, &mut pipe);
    }
    let mut said = String::new();
    if let Some(pipe) = child.stdout.take() {
        BufReader::new(pipe).read_line(&mut said).map_err(failed)?;
    }
    if said.trim_end() == READY {
        return Ok(ExitStatus::Done);
    }
    // It has told the reason on standard error.
    let status = child.wait().map_err(failed)?;
    let known =
        status.code().and_then(|code| ExitStatus::ALL.into_iter().find(|known| i32::from(known.code()) == code));
    match known {
        Some(ExitStatus::Done) | None => {
            Err(CliError::new(ErrorClass::Internal, format!("the daemon ended before the mount answered ({status})")))
        }
        Some(known) => Ok(known),
    }
}

/// Mounts the archive as it is, or as it was at a time, and serves until somebody
/// unmounts, or SIGTERM, SIGINT or SIGHUP arrives.
pub(super) fn serve(
    context: &Context,
    mountpoint: &Path,
    options: &MountOptions,
    at: Option<Timestamp>,
) -> CliResult<ExitStatus> {
    let background = is_background_child();
    if background {
        // Away from the terminal that started it. Fails only for a process that leads a group already.
        let _ = rustix::process::setsid();
    }
    // First, so that a signal during the start ends with an unmount too.
    let mut signals =
        Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(|error| CliError::io("cannot watch for signals", error))?;
    blockframe_fuse::check_mountpoint(mountpoint, options)?;
    let served = Served::new(context, options.read_only, at)?;
    let mounted = Arc::new(blockframe_fuse::spawn(served.vfs.as_vfs(), mountpoint, options)?);
    let service = served.service(mounted.mountpoint());
    let spools = SpoolKeys::of(&served.archive).map_err(IngestError::from)?;
    let control = match &service {
        Some(service) => {
            Some(control::serve(&served.directory, Arc::clone(service) as Arc<dyn ControlService>, spools)?)
        }
        None => None,
    };
    let stop = Arc::new(Stop::default());
    let log = background.then(|| Log::new(&served.directory, &served.archive));
    let workers = start_workers(&served, service, context.config().versions.clone(), log.clone(), &stop)?;
    let scrubber = served.start_scrubber(&context.config().scrub)?;
    announce(log.as_ref())?;
    tracing::info!(mountpoint = %mounted.mountpoint().display(), archive = %served.directory.display(), "mounted");

    let ended = {
        let (mounted, signals) = (Arc::clone(&mounted), signals.handle());
        thread::Builder::new()
            .name("mount-end".to_owned())
            .spawn(move || {
                let outcome = mounted.wait();
                signals.close();
                outcome
            })
            .map_err(|error| CliError::io("cannot start a thread", error))?
    };
    // The iteration ends when the mount has ended.
    let mut time = None;
    if let Some(signal) = signals.forever().next() {
        tracing::info!(signal, "ending");
        notify(&[NotifyState::Stopping]);
        mounted.unmount(GRACE)?;
        time = Some(DRAIN_AFTER_SIGNAL);
    }
    notify(&[NotifyState::Stopping]);
    stop.now();
    drop(scrubber);
    // Whoever mounts next waits for the lock, and is not told that a mount is there.
    drop(control);
    served.vfs.finish(time);
    for worker in workers {
        // A worker that panicked has told so already.
        let _ = worker.join();
    }
    finish(&mounted, ended)
}

/// The session's own outcome; after a forced detach it has none yet.
fn finish(mounted: &Mounted, ended: JoinHandle<Result<(), blockframe_fuse::MountError>>) -> CliResult<ExitStatus> {
    if mounted.ended()
        && let Ok(outcome) = ended.join()
    {
        outcome?;
    }
    tracing::info!("unmounted");
    Ok(ExitStatus::Done)
}

/// What the daemon's threads work on.
struct Served {
    directory: PathBuf,
    archive: Arc<Archive>,
    catalog: Arc<Catalog>,
    ledger: Arc<CatalogLedger>,
    vfs: Filesystem,
}

/// What is mounted.
enum Filesystem {
    /// It can be written; this process is the archive's writer.
    Live { vfs: Arc<LiveVfs>, writeback: Arc<Writeback>, quota: u64 },
    /// It can be read, and shows what other processes commit.
    Present(Arc<ArchiveVfs>),
    /// The archive as it was.
    Past(Arc<ArchiveVfs>),
}

impl Filesystem {
    fn as_vfs(&self) -> Arc<dyn Vfs> {
        match self {
            Filesystem::Live { vfs, .. } => Arc::new(WithPrivate::over_live(Arc::clone(vfs))),
            Filesystem::Present(vfs) => Arc::new(WithPrivate::over(Arc::clone(vfs))),
            Filesystem::Past(vfs) => vfs.clone(),
        }
    }

    fn load(&self) -> Arc<LatencyGauge> {
        match self {
            Filesystem::Live { vfs, .. } => vfs.load().clone(),
            Filesystem::Present(vfs) | Filesystem::Past(vfs) => vfs.load().clone(),
        }
    }

    /// Commits what is staged, once nothing is mounted any more. What cannot
    /// be committed in `time` (no limit: `None`) stays in staging, durable,
    /// and is committed after the next mount.
    fn finish(&self, time: Option<Duration>) {
        let Filesystem::Live { vfs, writeback, .. } = self else { return };
        let began = monotonic();
        let drained = writeback.drain(None, &mut |_| time.is_none_or(|time| began.elapsed() < time));
        if let Err(error) = drained {
            tracing::warn!("not all that was written is committed; the next mount goes on with it: {error}");
        }
        writeback.stop();
        vfs.detach();
    }
}

impl Served {
    fn new(context: &Context, read_only: bool, at: Option<Timestamp>) -> CliResult<Self> {
        let OpenArchive { directory, archive, catalog, health, .. } = context.open()?;
        let limits = VfsLimits { cache: context.config().cache.limit(), ..VfsLimits::default() };
        let ledger = Arc::new(CatalogLedger::new(Arc::clone(&catalog), Arc::clone(&health)));
        let health: Arc<dyn HealthSource> = health;
        let (born, names) = (archive.descriptor().created, Arc::clone(&catalog));
        if at.is_some_and(|at| at.seconds < born || at > archive.clock().now()) {
            let what = "there was no archive then, or it is yet to come; name a time since it was made";
            return Err(CliError::new(ErrorClass::Invalid, what));
        }
        let vfs = match at {
            Some(at) => Filesystem::Past(Arc::new(ArchiveVfs::at(archive.clone(), catalog, health, limits, at)?)),
            None if read_only => {
                Filesystem::Present(Arc::new(ArchiveVfs::new(archive.clone(), catalog, health, limits)?))
            }
            None => Self::live(context, &directory, &archive, catalog, health, limits)?,
        };
        Ok(Self { directory, archive, catalog: names, ledger, vfs })
    }

    fn live(
        context: &Context,
        directory: &Path,
        archive: &Arc<Archive>,
        catalog: Arc<Catalog>,
        health: Arc<dyn HealthSource>,
        limits: VfsLimits,
    ) -> CliResult<Filesystem> {
        wait_for_the_last_daemon(directory, &catalog)?;
        let config = &context.config().staging;
        let free = archive.store().space().map_or(u64::MAX, |space| space.free);
        let quota = config.limit(free);
        let limits_of_staging = StagingLimits { quota, reserve: RESERVE };
        let staging = StagingKeys::of_archive(archive)
            .and_then(|keys| StagingArea::open(&context.staging_directory(directory), limits_of_staging, keys))
            .map_err(|error| CliError::new(error.class(), error.to_string()))?;
        let policy = match config.fsync {
            FsyncMode::Staging => SyncPolicy::Staging,
            FsyncMode::Commit => SyncPolicy::Commit,
        };
        let failed = |error: VfsError| CliError::new(error.class(), error.to_string());
        let vfs = LiveVfs::open(archive.clone(), catalog, health, staging, limits, policy).map_err(failed)?;
        let vfs = Arc::new(vfs);
        let compression = Some(Arc::new(context.config().compression.rules(archive.descriptor().compression)?));
        let options = WritebackOptions { delay: config.delay.0, compression, ..WritebackOptions::default() };
        let writeback = Writeback::start(&vfs, options).map_err(failed)?;
        Ok(Filesystem::Live { vfs, writeback, quota })
    }

    /// What other processes of this program are served with.
    fn service(&self, mountpoint: &Path) -> Option<Arc<LiveService>> {
        let Filesystem::Live { vfs, writeback, quota } = &self.vfs else { return None };
        Some(Arc::new(LiveService::new(vfs.clone(), writeback.clone(), mountpoint.to_path_buf(), *quota)))
    }

    /// Verification in the background, unless the configuration refuses it. Ends when dropped.
    fn start_scrubber(&self, config: &ScrubConfig) -> CliResult<Option<ScrubDaemon>> {
        if !config.enabled {
            return Ok(None);
        }
        let options = ScrubOptions {
            bytes_per_second: Some(config.max_rate.0.max(1)),
            max_age: config.max_age.0,
            ..ScrubOptions::default()
        };
        let stop = Arc::new(StopSignal::default());
        let archive = (*self.archive).clone();
        let scrubber = Scrubber::new(archive, self.ledger.clone(), options, stop.clone(), self.vfs.load());
        Ok(Some(ScrubDaemon::start(scrubber, stop)?))
    }
}

/// A daemon that was unmounted commits what was written last before it gives
/// the archive free.
///
/// Error: `Busy` when the archive is mounted, or somebody else writes for long.
fn wait_for_the_last_daemon(directory: &Path, catalog: &Catalog) -> CliResult<()> {
    let began = monotonic();
    loop {
        match catalog.writer() {
            Ok(_) => return Ok(()),
            Err(error @ CatalogError::Locked { .. }) => {
                writes::refuse_while_mounted(directory, "a second mount is not possible")?;
                if began.elapsed() > PATIENCE {
                    return Err(error.into());
                }
                thread::sleep(RETRY);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Starts all background work of the daemon. Each worker ends soon after `stop` says so.
fn start_workers(
    served: &Served,
    service: Option<Arc<LiveService>>,
    versions: VersionsConfig,
    log: Option<Log>,
    stop: &Arc<Stop>,
) -> CliResult<Vec<JoinHandle<()>>> {
    let maintenance = {
        let view = match &served.vfs {
            Filesystem::Present(view) => Some(Arc::clone(view)),
            Filesystem::Live { .. } | Filesystem::Past(_) => None,
        };
        let (stop, catalog) = (Arc::clone(stop), Arc::clone(&served.catalog));
        move || {
            let mut remembered = monotonic();
            while !stop.wait(REFRESH) {
                if remembered.elapsed() >= REMEMBER {
                    remembered = monotonic();
                    if let Err(error) = catalog.remember_head() {
                        tracing::warn!(%error, "what the store has is not remembered");
                    }
                }
                if let Some(view) = &view
                    && let Err(error) = view.refresh()
                {
                    tracing::warn!(%error, "cannot see whether the catalog has changed");
                }
                if let Some(log) = &log {
                    log.keep_short();
                }
            }
        }
    };
    let mut workers = Vec::new();
    let mut start = |name: &str, work: Box<dyn FnOnce() + Send>| -> CliResult<()> {
        let worker = thread::Builder::new().name(name.to_owned()).spawn(work);
        workers.push(worker.map_err(|error| CliError::io(format!("cannot start the thread {name}"), error))?);
        Ok(())
    };
    start("maintenance", Box::new(maintenance))?;
    if let Some(service) = service {
        let (archive, stop) = (Arc::clone(&served.archive), Arc::clone(stop));
        start("retention", Box::new(move || keep_retention(&service, &archive, &versions, &stop)))?;
    }
    Ok(workers)
}

/// Forgets what has had its time, now and then, and frees what only it needed.
fn keep_retention(service: &LiveService, archive: &Archive, versions: &VersionsConfig, stop: &Stop) {
    let mut rounds = retention::Rounds::default();
    let mut passed = Duration::ZERO;
    loop {
        let short = service.is_full() || archive.store().space().is_ok_and(retention::is_short);
        if rounds.is_due(passed, short) {
            match retention::round(service, archive, versions, short) {
                Ok(removed) if removed == retention::Removed::default() => {}
                Ok(retention::Removed { states, objects, bytes }) => {
                    tracing::info!(states, objects, bytes, "old versions were removed");
                }
                Err(error) => tracing::warn!("old versions could not be removed: {error}"),
            }
        }
        passed = LOOK_AT_SPACE;
        if stop.wait(LOOK_AT_SPACE) {
            return;
        }
    }
}

/// Tells systemd, or the process that started this one, that the mount answers, or the work in the background has begun.
pub(super) fn announce(log: Option<&Log>) -> CliResult<()> {
    notify(&[NotifyState::Ready]);
    let Some(log) = log else { return Ok(()) };
    let failed = |error| CliError::io("cannot leave the terminal", error);
    // The starting process may have been killed; the mount serves all the same.
    let _ = writeln!(io::stdout(), "{READY}").and_then(|()| io::stdout().flush());
    let null = File::options().read(true).write(true).open("/dev/null").map_err(failed)?;
    rustix::stdio::dup2_stdin(&null).map_err(|errno| failed(errno.into()))?;
    rustix::stdio::dup2_stdout(&null).map_err(|errno| failed(errno.into()))?;
    if let Err(error) = log.attach() {
        // A read-only archive can be mounted; its daemon has no log.
        tracing::warn!(%error, "the daemon has no log");
        rustix::stdio::dup2_stderr(&null).map_err(|errno| failed(errno.into()))?;
    }
    // So that the directory it was started in can be unmounted.
    std::env::set_current_dir("/").map_err(failed)
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "cannot notify systemd");
    }
}

/// Tells workers to end, and wakes them for it.
#[derive(Debug, Default)]
struct Stop {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    fn now(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Waits for at most `time`; true when it is time to end.
    fn wait(&self, time: Duration) -> bool {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let (stopped, _) =
            self.changed.wait_timeout_while(stopped, time, |stopped| !*stopped).unwrap_or_else(PoisonError::into_inner);
        *stopped
    }
}
