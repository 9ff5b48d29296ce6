//! Looking at many objects without changing them, several at a time: what
//! `health` and the first half of `repair` do.

use super::ScrubResult;
use super::ledger::Subject;
use crate::archive::{Archive, ArchiveError, Depth, ObjectHealth, ScanControl};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, PoisonError};

/// A look at many objects.
#[derive(Clone, Copy)]
pub struct Survey<'a> {
    /// The archive.
    pub archive: &'a Archive,
    /// How closely to look.
    pub depth: Depth,
    /// Called with bytes verified since the last call.
    pub progress: &'a (dyn Fn(u64) + Sync),
    /// Whether to stop at once.
    pub stop: &'a (dyn Fn() -> bool + Sync),
    /// Whether to begin no further object. Those under way are finished: an
    /// object that is larger than a budget would never be verified otherwise.
    pub enough: &'a (dyn Fn() -> bool + Sync),
}

impl fmt::Debug for Survey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Survey").field("depth", &self.depth).finish_non_exhaustive()
    }
}

/// What was found of one object.
#[derive(Debug)]
pub enum Finding {
    /// It was looked at.
    Looked(ObjectHealth),
    /// No copy of its manifest is readable: all of it is lost.
    ManifestLost(ArchiveError),
    /// It could not be looked at.
    Failed(ArchiveError),
}

impl Survey<'_> {
    /// Looks at `objects`, begun in their order, as many at a time as there
    /// are cores. `found` gets each as it is done; its error ends the survey.
    /// Returns false when it was stopped before the end.
    pub fn run<E: From<super::ScrubError>>(
        &self,
        objects: impl Iterator<Item = Subject> + Send,
        found: &mut dyn FnMut(Subject, Finding) -> Result<(), E>,
    ) -> Result<bool, E> {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let queue = Mutex::new(objects);
        let ended = AtomicBool::new(false);
        let stopped = AtomicBool::new(false);
        let (send, receive) = sync_channel(workers * 2);
        let cancelled = || ended.load(Ordering::Relaxed) || (self.stop)();
        let control = ScanControl { progress: self.progress, cancelled: &cancelled, read_once: false };
        std::thread::scope(|scope| {
            for _ in 0..workers {
                let (send, queue, stopped, control) = (send.clone(), &queue, &stopped, &control);
                scope.spawn(move || {
                    loop {
                        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                        let Some(record) = next else { return };
                        if (control.cancelled)() || (self.enough)() {
                            stopped.store(true, Ordering::Relaxed);
                            return;
                        }
                        match self.look(&record, control) {
                            Finding::Failed(ArchiveError::Interrupted) => stopped.store(true, Ordering::Relaxed),
                            // The receiver is gone after an error; then nobody needs the rest.
                            finding => drop(send.send((record, finding))),
                        }
                    }
                });
            }
            drop(send);
            let mut result = Ok(());
            for (record, finding) in receive {
                if result.is_ok() {
                    result = found(record, finding);
                    if result.is_err() {
                        ended.store(true, Ordering::Relaxed);
                    }
                }
            }
            result
        })?;
        Ok(!stopped.load(Ordering::Relaxed))
    }

    fn look(&self, record: &Subject, control: &ScanControl<'_>) -> Finding {
        let looked = self.archive.health_scan(&record.reference, self.depth).and_then(|mut scan| {
            scan.run(control)?;
            Ok(scan.finish())
        });
        match looked {
            Ok(health) => Finding::Looked(health),
            Err(error @ ArchiveError::ManifestLost { .. }) => Finding::ManifestLost(error),
            Err(error) => Finding::Failed(error),
        }
    }
}

/// Names in the store's top directory that are neither the archive's own
/// files nor objects that the catalog knows. Nothing is done about them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Strangers {
    /// Directories named like objects; `gc` removes those that a crash left.
    pub orphans: Vec<String>,
    /// Everything else.
    pub foreign: Vec<String>,
}

/// Lists what lies in the store besides the archive.
pub fn strangers(archive: &Archive, known: &dyn Fn(&str) -> ScrubResult<bool>) -> ScrubResult<Strangers> {
    use crate::base::ObjectName;
    use crate::format::layout::{KEY_RING, PRIVATE_DIR, RECOVERY_TEXT, STORE_DESCRIPTOR};
    let mut strangers = Strangers::default();
    for listed in archive.store().list(None).map_err(ArchiveError::from)? {
        let ours = [STORE_DESCRIPTOR, KEY_RING, PRIVATE_DIR, RECOVERY_TEXT, "blockframe_recover.py"];
        if ours.contains(&listed.name.as_str()) || known(&listed.name)? {
            continue;
        }
        if listed.is_prefix && listed.name.parse::<ObjectName>().is_ok() {
            strangers.orphans.push(listed.name);
        } else {
            strangers.foreign.push(listed.name);
        }
    }
    Ok(strangers)
}
