//! Where secrets come from: files, what commands print, the person at the
//! terminal. Never the command line, never the environment.

use super::error::{CliError, CliResult};
use super::output::printable;
use crate::base::ErrorClass;
use crate::keys::phrase::{PHRASE_WORDS, RecoveryPhrase};
use crate::keys::shares::{self, SHARE_WORDS, Share, SharesError};
use crate::keys::{MAX_SECRET, SlotKind, SlotSecret};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use zeroize::Zeroizing;

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// A passphrase in a file.
    PassphraseFile(PathBuf),
    /// A file whose bytes are the key.
    KeyFile(PathBuf),
    /// A recovery phrase in a file.
    PhraseFile(PathBuf),
    /// Shares, one a file.
    ShareFiles(Vec<PathBuf>),
    /// What a command prints.
    Command(String),
}

impl Origin {
    /// For messages.
    pub(super) fn text(&self) -> String {
        match self {
            Origin::PassphraseFile(path) => format!("passphrase file {}", path.display()),
            Origin::KeyFile(path) => format!("key file {}", path.display()),
            Origin::PhraseFile(path) => format!("recovery phrase file {}", path.display()),
            Origin::ShareFiles(paths) => {
                let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
                format!("share files {}", names.join(", "))
            }
            Origin::Command(_) => "key command".into(),
        }
    }

    /// Fetches the secret.
    ///
    /// Errors are of the class `WrongKey`: a key that cannot be had is a missing one.
    pub(super) fn secret(&self) -> CliResult<SlotSecret> {
        match self {
            Origin::PassphraseFile(path) => {
                let mut bytes = read_file(path)?;
                strip_newline(&mut bytes);
                slot_secret(SlotKind::Passphrase, bytes)
            }
            Origin::KeyFile(path) => slot_secret(SlotKind::KeyFile, read_file(path)?),
            Origin::PhraseFile(path) => {
                let text = text(read_file(path)?)?;
                let phrase = RecoveryPhrase::parse(&text).map_err(wrong)?;
                SlotSecret::random(SlotKind::Recovery, phrase.secret()).map_err(wrong)
            }
            Origin::ShareFiles(paths) => {
                let share = |path: &PathBuf| {
                    Share::parse(&text(read_file(path)?)?).map_err(|error| wrong(error).context(path.display()))
                };
                let shares = paths.iter().map(share).collect::<CliResult<Vec<Share>>>()?;
                let secret = shares::combine(&shares).map_err(wrong)?;
                SlotSecret::random(SlotKind::Shares, &secret).map_err(wrong)
            }
            Origin::Command(command) => {
                let mut bytes = run_command(command)?;
                strip_newline(&mut bytes);
                slot_secret(SlotKind::Command, bytes)
            }
        }
    }
}

fn wrong(error: impl std::fmt::Display) -> CliError {
    CliError::new(ErrorClass::WrongKey, error)
}

fn slot_secret(kind: SlotKind, bytes: Zeroizing<Vec<u8>>) -> CliResult<SlotSecret> {
    SlotSecret::new(kind, bytes).map_err(wrong)
}

fn text(bytes: Zeroizing<Vec<u8>>) -> CliResult<Zeroizing<String>> {
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_string())),
        Err(_) => Err(wrong("it is not UTF-8 text")),
    }
}

/// Cuts off one newline at the end, as editors and `echo` write it.
fn strip_newline(bytes: &mut Zeroizing<Vec<u8>>) {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
}

/// All that `source` has, at most [`MAX_SECRET`] bytes.
fn read_all(source: &mut impl Read, what: &str) -> CliResult<Zeroizing<Vec<u8>>> {
    // All room at once: growing would leave copies behind.
    let mut bytes = Zeroizing::new(vec![0; MAX_SECRET + 1]);
    let mut len = 0;
    while len < bytes.len() {
        match source.read(&mut bytes[len..]) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(wrong(format!("cannot read {what}: {error}"))),
        }
    }
    if len > MAX_SECRET {
        return Err(wrong(format!("{what} has more than {MAX_SECRET} bytes, which is no secret")));
    }
    bytes.truncate(len);
    Ok(bytes)
}

fn read_file(path: &Path) -> CliResult<Zeroizing<Vec<u8>>> {
    let mut file = File::open(path).map_err(|error| wrong(format!("cannot open {}: {error}", path.display())))?;
    warn_if_shared(path, &file);
    read_all(&mut file, &path.display().to_string())
}

/// A secret that others can read is not one.
fn warn_if_shared(path: &Path, file: &File) {
    use std::os::unix::fs::PermissionsExt as _;
    let Ok(metadata) = file.metadata() else { return };
    if metadata.is_file() && metadata.permissions().mode() & 0o077 != 0 {
        tracing::warn!("other users may read {0}; `chmod 600 {0}` keeps it to you", path.display());
    }
}

/// Standard output of a command that must end well.
fn run_command(command: &str) -> CliResult<Zeroizing<Vec<u8>>> {
    let mut child = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| wrong(format!("sh cannot be started: {error}")))?;
    let printed = match child.stdout.take() {
        Some(mut pipe) => read_all(&mut pipe, "what it prints"),
        None => Ok(Zeroizing::default()),
    };
    if printed.is_err() {
        // It may go on printing for ever.
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| wrong(format!("it cannot be waited for: {error}")))?;
    let printed = printed?;
    if !status.success() {
        return Err(wrong(format!("it failed ({status})")));
    }
    Ok(printed)
}

/// A secret that somebody has typed: a passphrase, and a recovery phrase too if it reads like one.
pub(super) fn typed(bytes: Zeroizing<Vec<u8>>) -> CliResult<Vec<SlotSecret>> {
    let phrase = std::str::from_utf8(&bytes).ok().and_then(|text| RecoveryPhrase::parse(text).ok());
    let phrase =
        phrase.map(|phrase| SlotSecret::random(SlotKind::Recovery, phrase.secret())).transpose().map_err(wrong)?;
    Ok([phrase, Some(slot_secret(SlotKind::Passphrase, bytes)?)].into_iter().flatten().collect())
}

/// A share that somebody has typed.
pub(super) fn typed_share(bytes: &[u8]) -> Result<Share, SharesError> {
    // Bytes that are no text are no word of the list either.
    Share::parse(&Zeroizing::new(String::from_utf8_lossy(bytes).into_owned()))
}

/// What is wrong with something typed that looks like a recovery phrase or a share, and is none.
pub(super) fn misread(bytes: &[u8]) -> Option<String> {
    let text = Zeroizing::new(String::from_utf8_lossy(bytes).into_owned());
    let longest_phrase = (PHRASE_WORDS + SHARE_WORDS) / 2;
    match text.split_whitespace().filter(|word| word.contains(char::is_alphabetic)).count() {
        words if words < PHRASE_WORDS / 2 => None,
        words if words <= longest_phrase => RecoveryPhrase::parse(&text).err().map(|error| error.to_string()),
        _ => typed_share(bytes).err().map(|error| error.to_string()),
    }
}

/// Hands a secret to another process of this program: its kind, then its bytes to the end.
pub(super) fn hand_over(secret: &SlotSecret, pipe: &mut impl io::Write) -> io::Result<()> {
    pipe.write_all(&[secret.kind().code()])?;
    pipe.write_all(secret.expose())?;
    pipe.flush()
}

/// What [`hand_over`] wrote; none when there is nothing.
pub(super) fn take_over(pipe: &mut impl Read) -> CliResult<Option<SlotSecret>> {
    let mut bytes = read_all(pipe, "the secret from the process that started this one")?;
    let Some(kind) = bytes.first().copied() else { return Ok(None) };
    let internal = || CliError::new(ErrorClass::Internal, "the secret that was handed over is of no known kind");
    let kind = SlotKind::from_code(kind).ok_or_else(internal)?;
    bytes.remove(0);
    slot_secret(kind, bytes).map(Some)
}

/// A label for the slot of a new secret.
pub(super) fn label_of(origin: &Origin) -> String {
    match origin {
        Origin::KeyFile(path) => path.file_name().map_or_else(String::new, |name| printable(name.as_encoded_bytes())),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        std::fs::write(&path, bytes).unwrap();
        (directory, path)
    }

    #[test]
    fn one_newline_at_the_end_of_a_passphrase_does_not_count() {
        for (bytes, secret) in
            [(&b"a b\n"[..], &b"a b"[..]), (b"a b", b"a b"), (b"a\n\n", b"a\n"), (b"a\r\n", b"a"), (b" a\r", b" a\r")]
        {
            let (_directory, path) = file(bytes);
            assert_eq!(Origin::PassphraseFile(path).secret().unwrap().expose(), secret);
        }
        let (_directory, path) = file(b"sixteen bytes...\n");
        assert_eq!(Origin::KeyFile(path).secret().unwrap().expose(), b"sixteen bytes...\n");
    }

    #[test]
    fn what_cannot_be_had_is_a_missing_key() {
        let (_directory, path) = file(b"\n");
        let long = Origin::KeyFile("/dev/zero".into());
        let command = |text: &str| Origin::Command(text.into());
        for (origin, word) in [
            (Origin::PassphraseFile(path.clone()), "empty"),
            (Origin::KeyFile(path.clone()), "at least 16"),
            (Origin::PhraseFile(path.clone()), "words"),
            (Origin::ShareFiles(vec![path.clone()]), "words"),
            (Origin::PassphraseFile("/none/such".into()), "/none/such"),
            (Origin::PassphraseFile("/".into()), "cannot read"),
            (long, "more than"),
            (command("exit 3"), "exit status: 3"),
            (command("kill -9 $$"), "signal: 9"),
            (command("true"), "printed nothing"),
            (command("cat /dev/zero"), "more than"),
        ] {
            let error = origin.secret().unwrap_err();
            assert!(error.to_string().contains(word), "{origin:?}: {error}");
            assert_eq!(error.class(), ErrorClass::WrongKey);
        }
    }

    #[test]
    fn a_command_prints_the_secret_and_a_failed_one_does_not() {
        let secret = |text: &str| Origin::Command(text.into()).secret();
        assert_eq!(secret("echo hush").unwrap().expose(), b"hush");
        assert_eq!(secret("printf 'two\\nlines\\n'").unwrap().expose(), b"two\nlines");
        let failed = secret("echo hush; exit 1").unwrap_err();
        assert!(!failed.to_string().contains("hush"), "{failed}");
    }

    #[test]
    fn a_secret_goes_from_process_to_process_whole() {
        let secret = SlotSecret::new(SlotKind::KeyFile, Zeroizing::new((0..=255).collect())).unwrap();
        let mut pipe = Vec::new();
        hand_over(&secret, &mut pipe).unwrap();
        let taken = take_over(&mut &pipe[..]).unwrap().unwrap();
        assert_eq!((taken.kind(), taken.expose()), (secret.kind(), secret.expose()));
        assert!(take_over(&mut &b""[..]).unwrap().is_none());
        assert!(take_over(&mut &b"\xffabc"[..]).is_err());
    }
}
