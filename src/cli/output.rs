//! What goes to standard output: lines for people, or JSON; and progress on
//! standard error when a person watches.

use super::error::{CliError, CliResult};
use base64::Engine as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::fmt;
use std::io::{self, BufWriter, IsTerminal as _, Stdout, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Standard output of one command.
#[derive(Debug)]
pub struct Output {
    json: bool,
    quiet: bool,
    terminal: bool,
    stdout: Mutex<BufWriter<Stdout>>,
}

impl Output {
    /// For a command with these global flags.
    pub fn new(json: bool, quiet: bool) -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        Self { json, quiet, terminal, stdout: Mutex::new(BufWriter::with_capacity(64 * 1024, stdout)) }
    }

    /// Whether JSON was asked for.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// A line for people; nothing with `--json`.
    pub fn line(&self, text: impl fmt::Display) -> CliResult<()> {
        if self.json { Ok(()) } else { self.write(format!("{text}\n").as_bytes()) }
    }

    /// A line for people that holds names as they are; nothing with `--json`.
    pub fn raw_line(&self, bytes: &[u8]) -> CliResult<()> {
        if self.json {
            return Ok(());
        }
        self.write(bytes)?;
        self.write(b"\n")
    }

    /// One JSON object on a line of its own; nothing without `--json`.
    pub fn json(&self, value: &impl Serialize) -> CliResult<()> {
        if !self.json {
            return Ok(());
        }
        let mut bytes = serde_json::to_vec(value).map_err(|error| write_error(error.into()))?;
        bytes.push(b'\n');
        self.write(&bytes)
    }

    /// Bytes as they are: content, completions, man pages.
    pub fn write(&self, bytes: &[u8]) -> CliResult<()> {
        self.write_bytes(bytes).map_err(write_error)
    }

    /// As [`Self::write`], with the operating system's own error.
    pub fn write_bytes(&self, bytes: &[u8]) -> io::Result<()> {
        self.locked().write_all(bytes)
    }

    /// Sends what is buffered.
    pub fn flush(&self) -> CliResult<()> {
        self.locked().flush().map_err(write_error)
    }

    /// A name of the archive as it may be printed: on a terminal without
    /// control characters, so that a hostile name cannot write to the screen;
    /// elsewhere byte for byte.
    pub fn name(&self, name: &[u8]) -> Vec<u8> {
        if self.terminal { printable(name).into_bytes() } else { name.to_vec() }
    }

    /// A bar for work of about `total` bytes, on a terminal only.
    pub fn progress(&self, what: &'static str, total: u64) -> Progress {
        if self.json || self.quiet || !io::stderr().is_terminal() {
            return Progress { bar: ProgressBar::hidden() };
        }
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(5));
        let template = "{prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} ETA {eta} {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(what);
        Progress { bar }
    }

    fn locked(&self) -> MutexGuard<'_, BufWriter<Stdout>> {
        self.stdout.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write_error(error: io::Error) -> CliError {
    CliError::io("cannot write to standard output", error)
}

/// Progress of long work, with rate and time left. Invisible in a pipe.
#[derive(Debug, Clone)]
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Whether somebody sees it.
    pub fn is_shown(&self) -> bool {
        !self.bar.is_hidden()
    }

    /// Runs `print`, which writes to the screen, with the bar out of its way.
    pub fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }

    /// The work turned out to be of `total` bytes.
    pub fn set_total(&self, total: u64) {
        self.bar.set_length(total);
    }

    /// `bytes` are done in all.
    pub fn set(&self, bytes: u64) {
        self.bar.set_position(bytes);
    }

    /// `bytes` more are done.
    pub fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// Something to say beside the bar.
    pub fn message(&self, text: String) {
        self.bar.set_message(text);
    }

    /// Takes the bar off the screen.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// A name without control characters; what is not UTF-8 shows as U+FFFD.
pub fn printable(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().flat_map(escaped).collect()
}

fn escaped(c: char) -> impl Iterator<Item = char> {
    let (plain, escape) = if c.is_control() { (None, Some(c.escape_default())) } else { (Some(c), None) };
    plain.into_iter().chain(escape.into_iter().flatten())
}

/// A name or path in JSON: text, and the exact bytes where they are no UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JsonPath {
    /// For people; bytes that are no UTF-8 show as U+FFFD.
    pub path: String,
    /// The exact bytes, only when `path` could not hold them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_base64: Option<String>,
}

impl JsonPath {
    /// A path as bytes.
    pub fn new(bytes: &[u8]) -> Self {
        let path = String::from_utf8_lossy(bytes);
        let lossy = path.as_bytes() != bytes;
        let path_base64 = lossy.then(|| base64::engine::general_purpose::STANDARD.encode(bytes));
        Self { path: path.into_owned(), path_base64 }
    }
}

/// Rows of text in columns as wide as their widest cell.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
    right: Vec<bool>,
}

impl Table {
    /// A table whose columns are titled so; a title that begins with `>` is of a column of numbers.
    pub fn new(titles: &[&str]) -> Self {
        let right = titles.iter().map(|title| title.starts_with('>')).collect();
        let titles = titles.iter().map(|title| title.trim_start_matches('>').to_string()).collect();
        Self { rows: vec![titles], right }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Prints it.
    pub fn print(&self, out: &Output) -> CliResult<()> {
        for line in self.lines() {
            out.line(line)?;
        }
        Ok(())
    }

    fn lines(&self) -> Vec<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width =
            |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
                if self.right.get(column) == Some(&true) {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                }
            });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_string()
        };
        self.rows.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_cannot_write_to_the_screen() {
        assert_eq!(printable(b"a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert_eq!(printable("Übung".as_bytes()), "Übung");
        assert_eq!(printable(b"\xff"), "\u{fffd}");
    }

    #[test]
    fn json_keeps_the_exact_bytes_of_a_path() {
        assert_eq!(serde_json::to_string(&JsonPath::new(b"a/b")).unwrap(), r#"{"path":"a/b"}"#);
        let odd = JsonPath::new(b"\xff");
        assert_eq!(odd.path_base64.as_deref(), Some("/w=="));
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["name", ">size"]);
        table.row(["a".into(), "1 B".into()]);
        table.row(["long".into(), "10 kB".into()]);
        assert_eq!(table.lines(), ["name   size", "a       1 B", "long  10 kB"]);
    }
}
