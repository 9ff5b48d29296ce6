//! What shall open an archive from now on: a file, a command, a passphrase
//! typed twice, a recovery phrase that is shown once.

use super::args::NewKeyArgs;
use super::context::Context;
use super::error::{CliError, CliResult};
use super::secrets::{self, Origin};
use super::terminal::Terminal;
use crate::base::ErrorClass;
use crate::keys::page::{About, Sheet};
use crate::keys::phrase::{PHRASE_WORDS, RecoveryPhrase};
use crate::keys::{NewSlot, SlotKind, SlotSecret, random_key};
use zeroize::Zeroizing;

/// How often a person may type a passphrase twice, or words of a phrase.
const ATTEMPTS: u32 = 3;
/// Words that are asked for.
const ASKED_WORDS: usize = 3;
/// A passphrase shorter than this is worth a word, bytes.
const SHORT: usize = 12;

/// The slot for a secret that lies somewhere.
pub(super) fn slot_from(origin: &Origin, label: Option<&str>) -> CliResult<NewSlot> {
    let secret = origin.secret();
    let secret = secret.map_err(|error| CliError::new(ErrorClass::Invalid, error).context(origin.text()))?;
    warn_if_short(&secret);
    Ok(NewSlot::new(secret, label.map_or_else(|| secrets::label_of(origin), String::from)))
}

/// The slot for a passphrase that a person types twice.
///
/// Error: `Invalid` where there is nobody to ask.
pub(super) fn slot_from_person(label: &str, instead: &str) -> CliResult<NewSlot> {
    let Some(mut terminal) = Terminal::open() else {
        return Err(CliError::new(
            ErrorClass::Invalid,
            format!("there is no terminal to ask for a passphrase on; use {instead}"),
        ));
    };
    for _ in 0..ATTEMPTS {
        let first = terminal.ask_secret("New passphrase: ")?;
        if first.is_empty() {
            terminal.say("An empty passphrase protects nothing.\n")?;
            continue;
        }
        if *terminal.ask_secret("The same again: ")? == *first {
            let secret = SlotSecret::new(SlotKind::Passphrase, first)?;
            warn_if_short(&secret);
            return Ok(NewSlot::new(secret, label));
        }
        terminal.say("They differ. Once more.\n")?;
    }
    Err(CliError::new(ErrorClass::Invalid, "no passphrase was chosen; nothing was changed"))
}

fn warn_if_short(secret: &SlotSecret) {
    if secret.kind() == SlotKind::Passphrase && secret.expose().len() < SHORT {
        tracing::warn!(
            "the passphrase is short: whoever has a copy of the archive may guess it; several random words are better"
        );
    }
}

/// What `key add` and `key change` are told to make: a slot, and the phrase where it is a new one.
pub(super) fn chosen(context: &Context, args: &NewKeyArgs, label: &str) -> CliResult<(NewSlot, Option<NewPhrase>)> {
    let label = args.label.as_deref().or(Some(label).filter(|label| !label.is_empty()));
    let origin = if let Some(path) = &args.new_passphrase_file {
        Origin::PassphraseFile(path.clone())
    } else if let Some(path) = &args.new_key_file {
        Origin::KeyFile(path.clone())
    } else if let Some(command) = &args.new_key_command {
        Origin::Command(command.clone())
    } else if args.new_recovery_phrase {
        // What is on a page need not be on a screen.
        let phrase = NewPhrase::make(context, !args.no_confirm && args.page.is_none())?;
        return Ok((phrase.slot(label.unwrap_or_default())?, Some(phrase)));
    } else {
        let instead = "--new-passphrase-file, --new-key-file, --new-key-command or --new-recovery-phrase";
        return Ok((slot_from_person(label.unwrap_or_default(), instead)?, None));
    };
    Ok((slot_from(&origin, label)?, None))
}

/// A recovery phrase that was just made.
#[derive(Debug)]
pub(super) struct NewPhrase {
    phrase: RecoveryPhrase,
    /// A person has seen it and typed some of it back.
    confirmed: bool,
}

impl NewPhrase {
    /// Makes a phrase. Where a person is there it is shown now, and some of its words are asked for.
    ///
    /// Error: `Invalid` when they are not right.
    pub(super) fn make(context: &Context, confirm: bool) -> CliResult<Self> {
        let phrase = RecoveryPhrase::of(random_key()?);
        let terminal = if confirm && !context.out().is_json() { Terminal::open() } else { None };
        let confirmed = terminal.is_some();
        if let Some(mut terminal) = terminal {
            terminal.say(&shown(&phrase))?;
            ask_back(&mut terminal, &phrase)?;
        }
        Ok(Self { phrase, confirmed })
    }

    /// The slot that it opens.
    pub(super) fn slot(&self, label: &str) -> CliResult<NewSlot> {
        Ok(NewSlot::new(SlotSecret::random(SlotKind::Recovery, self.phrase.secret())?, label))
    }

    /// Prints it, unless a person has seen it already.
    pub(super) fn print(&self, context: &Context) -> CliResult<()> {
        if self.confirmed { Ok(()) } else { context.out().line(shown(&self.phrase).trim_end()) }
    }

    /// The sheet of paper for it.
    pub(super) fn sheet(&self, about: &About<'_>) -> Sheet {
        Sheet::of_phrase(&self.phrase, about)
    }

    /// As JSON shows it.
    pub(super) fn json(&self) -> Zeroizing<String> {
        self.phrase.words().text()
    }
}

/// The words in four columns.
fn shown(phrase: &RecoveryPhrase) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(1024));
    text.push_str(
        "\nThe recovery phrase. It opens the archive when all other keys are lost, and for everybody who has it.\n\
         Write it down on paper, and keep it away from this machine. It is shown this once.\n\n",
    );
    for (at, word) in phrase.words().iter().enumerate() {
        let end = if at % 4 == 3 { "\n" } else { "" };
        text.push_str(&format!("{:>4}. {word:<10}{end}", at + 1));
    }
    text.push('\n');
    text
}

fn ask_back(terminal: &mut Terminal, phrase: &RecoveryPhrase) -> CliResult<()> {
    let words: Vec<&str> = phrase.words().iter().collect();
    for _ in 0..ATTEMPTS {
        let mut right = true;
        for at in some_positions()? {
            let answer = terminal.ask(&format!("Word {}: ", at + 1))?;
            let answer = Zeroizing::new(String::from_utf8_lossy(&answer).trim().to_lowercase());
            right &= words.get(at).is_some_and(|word| *word == answer.as_str());
        }
        if right {
            return Ok(());
        }
        terminal.say("That is not what the phrase has there. Compare, and once more.\n")?;
    }
    Err(CliError::new(
        ErrorClass::Invalid,
        "the recovery phrase was not confirmed, so nothing was made; run the command again",
    ))
}

/// Some of the phrase's words, in order.
fn some_positions() -> CliResult<Vec<usize>> {
    let random = random_key()?;
    let mut chosen: Vec<usize> = Vec::new();
    for byte in random.expose() {
        let at = usize::from(*byte) % PHRASE_WORDS;
        if chosen.len() < ASKED_WORDS && !chosen.contains(&at) {
            chosen.push(at);
        }
    }
    chosen.sort_unstable();
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Secret;

    #[test]
    fn the_phrase_is_shown_whole_and_numbered() {
        let phrase = RecoveryPhrase::of(Secret::filled_by(|bytes| bytes.fill(7)));
        let text = shown(&phrase);
        assert!(text.contains("   1. ") && text.contains("  24. "), "{}", *text);
        assert!(text.capacity() <= 1024, "it grew, and left copies behind");
        // As it is written down, with its numbers, it can be typed.
        let table = text.split("once.\n").nth(1).unwrap();
        assert_eq!(RecoveryPhrase::parse(table).unwrap().secret().expose(), &[7; 32]);
    }

    #[test]
    fn the_words_that_are_asked_for_are_words_of_the_phrase() {
        for _ in 0..100 {
            let positions = some_positions().unwrap();
            assert!(positions.is_sorted() && positions.iter().all(|&at| at < PHRASE_WORDS), "{positions:?}");
            assert!(positions.len() == ASKED_WORDS, "{positions:?}");
        }
    }
}
