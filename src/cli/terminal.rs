//! Questions to the person at the terminal, secrets without an echo.

use super::error::{CliError, CliResult};
use crate::base::ErrorClass;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Write as _};
use zeroize::Zeroizing;

/// Longest answer, bytes.
const MAX_ANSWER: usize = 4096;

/// The terminal of a person who is there to answer.
#[derive(Debug)]
pub struct Terminal(File);

impl Terminal {
    /// The terminal, if a person sees what this process says. Standard input may be data.
    pub fn open() -> Option<Self> {
        if !io::stderr().is_terminal() {
            return None;
        }
        OpenOptions::new().read(true).write(true).open("/dev/tty").ok().map(Self)
    }

    /// Shows a text.
    pub fn say(&mut self, text: &str) -> CliResult<()> {
        self.0.write_all(text.as_bytes()).map_err(failed)
    }

    /// Asks for a line that may be seen.
    pub fn ask(&mut self, question: &str) -> CliResult<Zeroizing<Vec<u8>>> {
        self.answer(question, true)
    }

    /// Asks for a secret. What is typed does not show.
    pub fn ask_secret(&mut self, question: &str) -> CliResult<Zeroizing<Vec<u8>>> {
        self.answer(question, false)
    }

    /// Key by key, also where it shows: the terminal's own line buffer would hold words of a recovery phrase.
    fn answer(&mut self, question: &str, shown: bool) -> CliResult<Zeroizing<Vec<u8>>> {
        let answer = {
            // Before the question: what is typed at it is not lost.
            let _quiet = Quiet::begin(&self.0)?;
            (&self.0).write_all(question.as_bytes()).map_err(failed)?;
            let (mut keys, mut screen) = (&self.0, &self.0);
            read_line(&mut keys, shown.then_some(&mut screen))
        };
        self.say("\n")?;
        answer?.ok_or_else(|| CliError::new(ErrorClass::Interrupted, "interrupted; nothing was done"))
    }
}

fn failed(error: io::Error) -> CliError {
    CliError::io("cannot use the terminal", error)
}

/// The terminal hands over each key as it is, and shows nothing, until this is dropped.
struct Quiet<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Quiet<'a> {
    fn begin(terminal: &'a File) -> CliResult<Self> {
        let errno = |error: rustix::io::Errno| failed(error.into());
        let before = tcgetattr(terminal).map_err(errno)?;
        let mut quiet = before.clone();
        // Without ISIG Ctrl-C is a key like others: it cannot end the process while the terminal is deaf.
        quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG | LocalModes::IEXTEN);
        quiet.special_codes[SpecialCodeIndex::VMIN] = 1;
        quiet.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(terminal, OptionalActions::Flush, &quiet).map_err(errno)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        // There is nobody to tell.
        let _ = tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}

/// A line, key by key; none when the person gave up. `echo` gets what may be seen.
fn read_line(keys: &mut impl io::Read, mut echo: Option<&mut impl io::Write>) -> CliResult<Option<Zeroizing<Vec<u8>>>> {
    // All room at once: growing would leave copies behind.
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_ANSWER));
    let mut key = Zeroizing::new([0u8]);
    loop {
        match keys.read(&mut *key) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(error)),
        }
        let mut show = |bytes: &[u8]| match echo.as_mut() {
            Some(echo) => echo.write_all(bytes).map_err(failed),
            None => Ok(()),
        };
        match key[0] {
            b'\n' | b'\r' => return Ok(Some(line)),
            // Ctrl-C, and Ctrl-D where nothing was typed.
            3 => return Ok(None),
            4 if line.is_empty() => return Ok(None),
            4 => return Ok(Some(line)),
            // Backspace takes a whole character.
            8 | 127 => {
                let is_tail = |byte: Option<&u8>| byte.is_some_and(|byte| byte & 0xc0 == 0x80);
                while is_tail(line.last()) {
                    line.pop();
                }
                if line.pop().is_some() {
                    show(b"\x08 \x08")?;
                }
            }
            // Ctrl-U.
            21 => {
                let characters = line.iter().filter(|&&byte| byte & 0xc0 != 0x80).count();
                show(&b"\x08 \x08".repeat(characters))?;
                line.clear();
            }
            _ if line.len() >= MAX_ANSWER => {
                return Err(CliError::new(ErrorClass::Invalid, format!("more than {MAX_ANSWER} bytes were typed")));
            }
            byte => {
                line.push(byte);
                show(&[byte])?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &[u8]) -> Option<Vec<u8>> {
        let mut echo = Vec::new();
        let line = read_line(&mut &*keys, Some(&mut echo)).unwrap();
        line.map(|line| line.to_vec())
    }

    #[test]
    fn keys_edit_the_line_as_people_expect() {
        for (keys, line) in [
            (&b"secret\n"[..], Some("secret")),
            (b"secret\r", Some("secret")),
            (b"secrets\x7f\n", Some("secret")),
            ("grün\u{7f}\u{7f}\n".as_bytes(), Some("gr")),
            (b"wrong\x15right\n", Some("right")),
            (b"\x7f\x7fx\n", Some("x")),
            (b"\n", Some("")),
            (b"half\x03", None),
            (b"\x04", None),
            (b"", None),
        ] {
            assert_eq!(typed(keys).as_deref(), line.map(str::as_bytes), "{keys:?}");
        }
        assert!(read_line(&mut &[b'x'; MAX_ANSWER + 1][..], None::<&mut Vec<u8>>).is_err());
    }

    #[test]
    fn a_secret_does_not_show() {
        let mut echo = Vec::new();
        read_line(&mut &b"ab\x7fc\n"[..], Some(&mut echo)).unwrap();
        assert_eq!(echo, b"ab\x08 \x08c");
        read_line(&mut &b"ab\n"[..], None::<&mut Vec<u8>>).unwrap();
    }
}
