//! Opening an encrypted archive: which secrets are tried, in which order, and
//! what is said when none opens it.

use super::context::Context;
use super::core_dumps::forbid_core_dumps;
#[cfg(unix)]
use super::daemon;
use super::error::{CliError, CliResult};
use super::secrets::{self, Origin};
use super::terminal::Terminal;
use crate::archive::Archive;
use crate::base::{Digest, ErrorClass};
use crate::format::ArchiveDescriptor;
use crate::keys::shares::{Gathering, Share};
use crate::keys::{KeyError, KeyRing, OpenRing, RingCopies, SlotKind, SlotSecret};
use crate::store::{BlockStore, LocalStore};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// How often a person may try.
const ATTEMPTS: u32 = 3;
/// A key ring that was opened.
#[derive(Debug)]
pub(super) struct Unlocked {
    /// Both copies as they were read.
    pub(super) copies: RingCopies,
    /// The ring.
    pub(super) ring: OpenRing,
    /// What opened it.
    pub(super) secret: SlotSecret,
}

/// Whether a person may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// Where nothing else is configured.
    Person,
    /// No.
    Nobody,
}

/// Where secrets may be, in the order in which they are tried.
fn origins(context: &Context) -> Vec<Origin> {
    let global = context.global();
    let mut origins = Vec::new();
    origins.extend(global.passphrase_file.clone().map(Origin::PassphraseFile));
    origins.extend(global.key_file.clone().map(Origin::KeyFile));
    origins.extend(global.recovery_phrase_file.clone().map(Origin::PhraseFile));
    if !global.share_files.is_empty() {
        origins.push(Origin::ShareFiles(global.share_files.clone()));
    }
    for origin in configured(context).into_iter().chain(credentials()) {
        if !origins.contains(&origin) {
            origins.push(origin);
        }
    }
    origins
}

/// Whether the user has named a secret anywhere.
pub(super) fn has_origins(context: &Context) -> bool {
    !origins(context).is_empty()
}

/// What the configuration names.
pub(super) fn configured(context: &Context) -> Vec<Origin> {
    let config = &context.config().encryption;
    let mut origins = Vec::new();
    origins.extend(config.passphrase_file.clone().map(Origin::PassphraseFile));
    origins.extend(config.key_file.clone().map(Origin::KeyFile));
    if !config.key_command.is_empty() {
        origins.push(Origin::Command(config.key_command.clone()));
    }
    origins
}

/// Credentials that the service manager passes, see systemd.exec(5).
fn credentials() -> Vec<Origin> {
    let Some(directory) = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from) else { return Vec::new() };
    let known = [
        Origin::PassphraseFile(directory.join("blockframe-passphrase")),
        Origin::KeyFile(directory.join("blockframe-key")),
    ];
    let is_there = |origin: &Origin| match origin {
        Origin::PassphraseFile(path) | Origin::KeyFile(path) => path.is_file(),
        _ => false,
    };
    known.into_iter().filter(is_there).collect()
}

/// One archive's ring on a store, and what it is asked with.
struct Attempt<'a> {
    copies: RingCopies,
    rules: Digest,
    directory: &'a Path,
    /// What was tried, and what came of it.
    tried: Vec<String>,
}

impl Attempt<'_> {
    /// Tries a secret; none when it does not open the ring.
    fn with(&mut self, secret: SlotSecret, what: &str) -> CliResult<Option<(OpenRing, SlotSecret)>> {
        match self.copies.open(&secret, &self.rules) {
            Ok(ring) => {
                tracing::debug!(from = what, "the key ring is open");
                Ok(Some((ring, secret)))
            }
            Err(error @ (KeyError::WrongSecret | KeyError::Superseded { .. })) => {
                self.tried.push(format!("{what}: {error}"));
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn origins(&mut self, origins: Vec<Origin>) -> CliResult<Option<(OpenRing, SlotSecret)>> {
        for origin in origins {
            let what = origin.text();
            match origin.secret() {
                Ok(secret) => {
                    if let Some(opened) = self.with(secret, &what)? {
                        return Ok(Some(opened));
                    }
                }
                Err(error) => self.tried.push(format!("{what}: {error}")),
            }
        }
        Ok(None)
    }

    fn person(&mut self, terminal: &mut Terminal) -> CliResult<Option<(OpenRing, SlotSecret)>> {
        for attempt in 1..=ATTEMPTS {
            let typed = terminal.ask_secret(&format!("Passphrase of {}: ", self.directory.display()))?;
            if typed.is_empty() {
                break;
            }
            if let Ok(share) = secrets::typed_share(&typed) {
                match self.shares(terminal, share)? {
                    Some(opened) => return Ok(Some(opened)),
                    None => continue,
                }
            }
            let misread = secrets::misread(&typed);
            for secret in secrets::typed(typed)? {
                if let Some(opened) = self.with(secret, "what was typed")? {
                    return Ok(Some(opened));
                }
            }
            if attempt < ATTEMPTS {
                terminal.say(&misread.unwrap_or_else(|| "It does not open the archive. Try again.".into()))?;
                terminal.say("\n")?;
            }
        }
        self.tried.dedup();
        Ok(None)
    }

    /// Asks for shares, after the first, until there are enough or the person has no more.
    fn shares(&mut self, terminal: &mut Terminal, first: Share) -> CliResult<Option<(OpenRing, SlotSecret)>> {
        let mut gathering = Gathering::default();
        let mut share = first;
        loop {
            match gathering.take(share) {
                Ok(Some(secret)) => {
                    return self.with(SlotSecret::random(SlotKind::Shares, &secret)?, "the shares that were typed");
                }
                Ok(None) => {}
                Err(error) => terminal.say(&format!("{error}\n"))?,
            }
            let Some(missing) = gathering.missing() else { return Ok(None) };
            share = loop {
                let here = gathering.have().len();
                let typed = terminal.ask_secret(&format!("Share {} of {}: ", here + 1, here + usize::from(missing)))?;
                if typed.is_empty() {
                    self.tried.push(format!("{here} shares, {missing} too few"));
                    return Ok(None);
                }
                match secrets::typed_share(&typed) {
                    Ok(share) => break share,
                    Err(error) => terminal.say(&format!("{error}\n"))?,
                }
            };
        }
    }

    fn failure(&self) -> CliError {
        let slots = self.copies.newest().map_or_else(String::new, slots_text);
        let ways =
            "--passphrase-file, --key-file, --recovery-phrase-file or --share-file, or [encryption] in config.toml";
        let message = if self.tried.is_empty() {
            format!(
                "{} is encrypted, and no key was given; it has slots for {slots}. Name one with {ways}",
                self.directory.display()
            )
        } else {
            format!(
                "wrong key for {}: {}. It has slots for {slots}; name the right one with {ways}",
                self.directory.display(),
                self.tried.join("; ")
            )
        };
        CliError::new(ErrorClass::WrongKey, message)
    }
}

/// The kinds of a ring's slots, for people: `2 passphrases and a recovery phrase`, with labels.
pub(super) fn slots_text(ring: &KeyRing) -> String {
    let slot = |slot: &crate::keys::Slot| {
        let name = slot.kind.name();
        if slot.label.is_empty() { format!("{name} ({})", slot.id) } else { format!("{name} \"{}\"", slot.label) }
    };
    ring.slots().iter().map(slot).collect::<Vec<_>>().join(", ")
}

/// Opens the key ring of the archive in `directory`. Nothing is written.
///
/// Errors: `WrongKey`, which tells what was tried; those of [`RingCopies`].
pub(super) fn unlock(
    context: &Context,
    directory: &Path,
    store: &dyn BlockStore,
    descriptor: &ArchiveDescriptor,
    ask: Ask,
) -> CliResult<Unlocked> {
    if context.global().no_key {
        let what = format!("{} is encrypted, and --no-key forbids to open it; leave --no-key out", directory.display());
        return Err(CliError::new(ErrorClass::WrongKey, what));
    }
    keep_out_of_core_dumps();
    let copies = RingCopies::read(store, descriptor.id)?;
    let mut attempt = Attempt { copies, rules: descriptor.digest()?, directory, tried: Vec::new() };
    let opened = match daemon::handed_secret()? {
        Some(secret) => attempt.with(secret, "the secret that the mount was started with")?,
        None => {
            let origins = origins(context);
            let alone = origins.is_empty();
            let opened = attempt.origins(origins)?;
            match (opened, ask, Terminal::open()) {
                (None, Ask::Person, Some(mut terminal)) if alone => attempt.person(&mut terminal)?,
                (opened, ..) => opened,
            }
        }
    };
    match opened {
        Some((ring, secret)) => {
            context.trusted_heads().check_ring(store.label(), ring.keys(), ring.ring().generation())?;
            Ok(Unlocked { copies: attempt.copies, ring, secret })
        }
        None => Err(attempt.failure()),
    }
}

/// From now on this process holds keys.
pub(super) fn keep_out_of_core_dumps() {
    if let Err(error) = forbid_core_dumps() {
        tracing::debug!(%error, "core dumps cannot be turned off");
    }
}

/// The secret of the archive that the user means, for a process that goes on in the background and can ask nobody.
/// None where none is needed, or where that process has more to say about what is wrong.
pub(super) fn secret_for_background(context: &Context) -> CliResult<Option<SlotSecret>> {
    let directory = context.archive_directory()?;
    let Ok(store) = LocalStore::open(&directory) else { return Ok(None) };
    let Some(descriptor) = Archive::peek(&store).filter(|descriptor| descriptor.encryption.is_some()) else {
        return Ok(None);
    };
    Ok(Some(unlock(context, &directory, &store, &descriptor, Ask::Person)?.secret))
}

/// How far the encryption anew of what is stored is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
enum Reencrypting {
    /// A process is at it.
    Running,
    /// It was interrupted.
    Unfinished,
}

/// What is known of an archive's encryption without a key.
#[derive(Debug, serde::Serialize)]
pub(super) struct EncryptionSummary {
    cipher: &'static str,
    /// How many slots there are of each kind.
    slots: BTreeMap<SlotKind, usize>,
    /// Number of the current epoch.
    epochs: u32,
    generation: u64,
    /// Whether what is stored is being encrypted with the current epoch's key, or waits for it.
    reencrypting: Option<Reencrypting>,
}

impl EncryptionSummary {
    /// That of an archive; none when it is not encrypted.
    pub(super) fn of(archive: &Archive, reencryption_runs: bool) -> CliResult<Option<Self>> {
        let Some(cipher) = archive.descriptor().encryption else { return Ok(None) };
        let copies = archive.key_ring()?;
        let mut summary =
            Self { cipher: cipher.name(), slots: BTreeMap::new(), epochs: 0, generation: 0, reencrypting: None };
        if let Some(ring) = copies.newest() {
            summary.epochs = ring.epochs().last().map_or(0, |epoch| epoch.epoch.get());
            summary.reencrypting = ring.is_reencrypting().then_some(match reencryption_runs {
                true => Reencrypting::Running,
                false => Reencrypting::Unfinished,
            });
            summary.generation = ring.generation();
            for slot in ring.slots() {
                *summary.slots.entry(slot.kind).or_default() += 1;
            }
        }
        Ok(Some(summary))
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let slots: Vec<String> = self.slots.iter().map(|(kind, count)| format!("{count} {}", kind.name())).collect();
        let total = self.slots.values().sum::<usize>();
        let noun = if total == 1 { "slot" } else { "slots" };
        let anew = match self.reencrypting {
            None => "",
            Some(Reencrypting::Running) => "; what is stored is being encrypted anew",
            Some(Reencrypting::Unfinished) => {
                "; what is stored is not all encrypted anew: `blockframe key rotate --reencrypt` goes on"
            }
        };
        format!("{}, epoch {}; {total} key {noun}: {}{anew}", self.cipher, self.epochs, slots.join(", "))
    }
}
