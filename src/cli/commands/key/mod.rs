//! `key`: what opens an encrypted archive, shown and changed.

mod list;
mod reencrypt;
mod rotate;
mod slots;
mod split;

pub(super) use list::slot_json;
pub(in crate::cli) use reencrypt::is_running;

use crate::base::{ErrorClass, Timestamp};
use crate::cli::args::KeyCommand;
use crate::cli::context::{Context, OpenObjects, state_directory};
use crate::cli::error::{CliError, CliResult};
use crate::cli::exit::ExitStatus;
use crate::cli::paper::Paper;
use crate::cli::unlock::{Ask, Unlocked};
use crate::keys::KeyError;
use crate::keys::page::About;
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::path::Path;

/// Runs one of the commands.
pub(super) fn run(context: &Context, command: &KeyCommand) -> CliResult<ExitStatus> {
    match command {
        KeyCommand::List => list::run(context),
        KeyCommand::Add(args) => slots::add(context, args),
        KeyCommand::Remove { id } => slots::remove(context, id),
        KeyCommand::Change(args) => slots::change(context, args),
        KeyCommand::Split(args) => split::run(context, args),
        KeyCommand::Rotate { reencrypt: true, background } => reencrypt::run(context, *background),
        KeyCommand::Rotate { reencrypt: false, .. } => rotate::run(context),
    }
}

/// The archive's objects, if it is an encrypted one.
///
/// Error: `Invalid` for an archive without keys.
fn encrypted(context: &Context) -> CliResult<OpenObjects> {
    let objects = context.open_objects()?;
    if objects.archive.is_encrypted() {
        return Ok(objects);
    }
    let what = format!(
        "{} is not encrypted, so it has no keys; `blockframe init --encrypt` makes an archive that is",
        objects.directory.display()
    );
    Err(CliError::new(ErrorClass::Invalid, what))
}

/// A key ring that this command alone changes.
struct Change {
    objects: OpenObjects,
    unlocked: Unlocked,
    now: Timestamp,
    /// Held until the change is written.
    _lock: File,
}

impl Change {
    /// Opens the ring with the archive's key, and mends its copies, so that both are there to be replaced.
    ///
    /// Errors: `WrongKey`; `Busy` while another command changes it.
    fn begin(context: &Context) -> CliResult<Self> {
        let objects = encrypted(context)?;
        let lock = lock(&objects.directory)?;
        let unlocked = objects.key_ring(context, Ask::Person)?;
        let objects = objects.unlocked(&unlocked);
        let now = objects.archive.clock().now();
        Ok(Self { objects, unlocked, now, _lock: lock })
    }

    /// Writes the changed ring.
    fn save(&mut self) -> CliResult<()> {
        Ok(self.unlocked.ring.save(&**self.objects.archive.store())?)
    }

    /// Writes the changed ring. What was written on paper for its new slot is
    /// taken back if there is no such slot.
    fn save_with(&mut self, paper: Option<&Paper>) -> CliResult<()> {
        let saved = self.unlocked.ring.save(&**self.objects.archive.store());
        // When one copy of the ring is written, it has the slot.
        if let (Err(error), Some(paper)) = (&saved, paper)
            && !matches!(error, KeyError::HalfWritten(_))
        {
            paper.take_back();
        }
        Ok(saved?)
    }

    /// What a page for a new slot says of the archive.
    fn about<'a>(&self, name: &'a str) -> About<'a> {
        About { archive: self.objects.archive.descriptor().id, name, date: self.now.seconds }
    }
}

/// One command at a time changes the ring.
fn lock(archive: &Path) -> CliResult<File> {
    let directory = state_directory(archive);
    let failed = |error| CliError::io(format!("cannot lock {}", directory.display()), error);
    let lock = File::open(&directory).map_err(failed)?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(CliError::new(
            ErrorClass::Busy,
            "another command changes the key ring now; run this one when it is done",
        )),
        Err(error) => Err(failed(error.into())),
    }
}
