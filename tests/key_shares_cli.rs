//! Keys on paper as people use them: `key split`, `--share-file`, shares that are typed, pages of recovery phrases.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// A directory with an encrypted archive, `photos`, whose passphrase is in `pass`.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        fs::write(home.path().join("pass"), "correct horse battery staple\n").unwrap();
        fs::set_permissions(home.path().join("pass"), fs::Permissions::from_mode(0o600)).unwrap();
        let made = home.run(&["init", "photos", "--encrypt", "--passphrase-file", "pass", "--no-recovery-phrase"]);
        assert_eq!(status(&made), 0, "{}", stderr(&made));
        home
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn prepared(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.path()).env("HOME", self.path()).env("BLOCKFRAME_ARCHIVE", "photos");
        for variable in ["XDG_CONFIG_HOME", "BLOCKFRAME_LOG", "CREDENTIALS_DIRECTORY"] {
            command.env_remove(variable);
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.prepared(env!("CARGO_BIN_EXE_blockframe")).args(arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// With the passphrase.
    fn run_open(&self, arguments: &[&str]) -> Output {
        self.run(&[arguments, &["--passphrase-file", "pass"]].concat())
    }

    /// Three of five shares in `paper`.
    fn split(&self) -> serde_json::Value {
        let split = self.run_open(&["key", "split", "--threshold", "3", "--shares", "5", "--out", "paper", "--json"]);
        assert_eq!(status(&split), 0, "{}", stderr(&split));
        serde_json::from_slice(&split.stdout).unwrap()
    }

    /// What `ls` ends with, opened by files of `paper`.
    fn open_with(&self, files: &[&str]) -> Output {
        let files: Vec<String> = files.iter().map(|file| format!("--share-file=paper/{file}")).collect();
        let mut arguments = vec!["ls"];
        arguments.extend(files.iter().map(String::as_str));
        self.run(&arguments)
    }

    /// Slots as `key list` has them.
    fn slots(&self) -> Vec<serde_json::Value> {
        let list = self.run(&["key", "list", "--json"]);
        assert_eq!(status(&list), 0, "{}", stderr(&list));
        let list: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
        list["slots"].as_array().unwrap().clone()
    }

    /// Runs the program at a terminal of its own: answers each prompt, a text that ends with ": ", with the next line.
    /// Returns all that was on the screen, and the exit status.
    fn at_terminal(&self, arguments: &[&str], answers: &[String]) -> (String, i32) {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = || {
            let path = Path::new(std::ffi::OsStr::from_bytes(name.as_bytes()));
            OpenOptions::new().read(true).write(true).open(path).unwrap()
        };
        // Its standard input becomes the terminal that /dev/tty is.
        let mut command = self.prepared("setsid");
        command.args(["--ctty", "--wait", env!("CARGO_BIN_EXE_blockframe")]).args(arguments);
        let mut child = command.stdin(slave()).stdout(slave()).stderr(slave()).spawn().unwrap();
        drop(command);
        let mut master = File::from(master);
        let mut screen = Vec::new();
        let mut answers = answers.iter();
        let mut seen = 0;
        let mut some = [0; 4096];
        // Reading ends with an error when the last one has closed the terminal.
        while let Ok(len @ 1..) = master.read(&mut some) {
            screen.extend_from_slice(&some[..len]);
            if screen[seen..].ends_with(b": ") {
                seen = screen.len();
                let Some(answer) = answers.next() else { continue };
                // The program flushes what was typed before it asked; it asks before it is deaf.
                wait_until_deaf(&master, &mut child);
                master.write_all(format!("{answer}\n").as_bytes()).unwrap();
            }
        }
        let status = child.wait().unwrap().code().unwrap();
        (String::from_utf8_lossy(&screen).into_owned(), status)
    }
}

/// Waits until the program reads key by key.
fn wait_until_deaf(terminal: &File, program: &mut Child) {
    let line_by_line = || tcgetattr(terminal).unwrap().local_modes.contains(LocalModes::ICANON);
    while line_by_line() && program.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
}

fn status(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The files of a directory, sorted.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The words of a share's text, in one line as people type them.
fn words(file: PathBuf) -> String {
    let text = fs::read_to_string(file).unwrap();
    let table: Vec<&str> = text.lines().filter(|line| line.starts_with(' ') && line.contains(". ")).collect();
    table.join(" ").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn any_three_of_five_open_and_two_say_how_many_are_missing() {
    let home = Home::new();
    let split = home.split();
    let paper = home.path().join("paper");
    assert_eq!(files(&paper).len(), 10);
    for file in files(&paper) {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
    assert_eq!(split["files"].as_array().unwrap().len(), 10);
    assert_eq!(split["slot"]["kind"], "shares");
    assert_eq!(split["slot"]["label"], format!("3 of 5, set {}", split["set"].as_str().unwrap()));
    assert!(split.get("words").is_none());
    assert_eq!(home.slots().len(), 2);

    let (text, page) = (|n: u8| format!("share-{n}-of-5.txt"), |n: u8| format!("share-{n}-of-5.html"));
    for three in [[text(1), text(2), text(3)], [page(5), text(4), page(2)], [text(3), text(5), text(1)]] {
        let opened = home.open_with(&[&three[0], &three[1], &three[2]]);
        assert_eq!(status(&opened), 0, "{three:?}: {}", stderr(&opened));
    }
    let all = home.open_with(&[&text(1), &text(2), &text(3), &text(4), &text(5)]);
    assert_eq!(status(&all), 0, "{}", stderr(&all));

    let two = home.open_with(&[&text(1), &page(4)]);
    assert_eq!(status(&two), 6);
    assert!(stderr(&two).contains("1 more of the 5 shares") && stderr(&two).contains("1 and 4"), "{}", stderr(&two));
    let doubled = home.open_with(&[&text(1), &page(1), &text(2)]);
    assert_eq!(status(&doubled), 6);
    assert!(stderr(&doubled).contains("given twice: 1 share is still needed"), "{}", stderr(&doubled));
}

#[test]
fn a_mistyped_share_file_is_told_where() {
    let home = Home::new();
    home.split();
    let paper = home.path().join("paper");
    let mut typed: Vec<String> = words(paper.join("share-1-of-5.txt")).split(' ').map(String::from).collect();
    typed[9] = "exspect".into();
    fs::write(paper.join("typed"), typed.join("\n")).unwrap();
    let opened = home.open_with(&["typed", "share-2-of-5.txt", "share-3-of-5.txt"]);
    assert_eq!(status(&opened), 6);
    let told = stderr(&opened);
    assert!(told.contains("paper/typed") && told.contains("word 5") && told.contains("expect"), "{told}");
    // Retyped in capitals on one line, it is read.
    fs::write(paper.join("typed"), words(paper.join("share-1-of-5.txt")).to_uppercase()).unwrap();
    let opened = home.open_with(&["typed", "share-2-of-5.txt", "share-3-of-5.txt"]);
    assert_eq!(status(&opened), 0, "{}", stderr(&opened));
}

#[test]
fn shares_that_were_removed_or_belong_to_another_archive_open_nothing() {
    let (home, other) = (Home::new(), Home::new());
    let split = home.split();
    other.split();
    let set = ["share-1-of-5.txt", "share-2-of-5.txt", "share-3-of-5.txt"];
    fs::copy(other.path().join("paper/share-3-of-5.txt"), home.path().join("paper/foreign.txt")).unwrap();
    let mixed = home.open_with(&[set[0], set[1], "foreign.txt"]);
    assert_eq!(status(&mixed), 6);
    assert!(
        stderr(&mixed).contains("leave it out") && stderr(&mixed).contains("1 share is still"),
        "{}",
        stderr(&mixed)
    );
    let id = split["slot"]["id"].to_string();
    let removed = home.run_open(&["key", "remove", &id]);
    assert_eq!(status(&removed), 0, "{}", stderr(&removed));
    let opened = home.open_with(&set);
    assert_eq!(status(&opened), 6, "{}", stderr(&opened));
    assert!(stderr(&opened).contains("no slot"), "{}", stderr(&opened));
}

#[test]
fn nothing_is_overwritten_and_nothing_half_made() {
    let home = Home::new();
    let split = |arguments: &[&str]| home.run_open(&[&["key", "split"], arguments].concat());
    let paper = home.path().join("paper");
    fs::create_dir(&paper).unwrap();
    fs::write(paper.join("share-4-of-5.html"), "mine").unwrap();
    let there = split(&["--threshold", "3", "--shares", "5", "--out", "paper"]);
    assert_eq!(status(&there), 1, "{}", stderr(&there));
    assert!(stderr(&there).contains("share-4-of-5.html") && stderr(&there).contains("only copy"), "{}", stderr(&there));
    assert_eq!(files(&paper).len(), 1);
    assert_eq!(fs::read_to_string(paper.join("share-4-of-5.html")).unwrap(), "mine");

    let inside = split(&["--threshold", "3", "--shares", "5", "--out", "photos/paper"]);
    assert_ne!(status(&inside), 0);
    assert!(stderr(&inside).contains("inside the archive"), "{}", stderr(&inside));
    for (threshold, shares) in [("1", "5"), ("4", "3"), ("2", "101"), ("0", "0"), ("300", "5")] {
        let refused = split(&["--threshold", threshold, "--shares", shares, "--out", "other"]);
        assert_ne!(status(&refused), 0);
        assert!(!stderr(&refused).is_empty());
    }
    let keyless = home.run(&["key", "split", "--threshold", "2", "--shares", "3", "--out", "other"]);
    assert_eq!(status(&keyless), 6);
    assert!(!home.path().join("other").exists());
    assert_eq!(home.slots().len(), 1);
}

#[test]
fn without_a_place_the_shares_are_shown() {
    let home = Home::new();
    let split = home.run_open(&["key", "split", "--threshold", "2", "--shares", "3", "--label", "for the family"]);
    assert_eq!(status(&split), 0, "{}", stderr(&split));
    let shown = stdout(&split);
    let parts: Vec<&str> = shown.split("BlockFrame key share ").skip(1).collect();
    assert_eq!(parts.len(), 3);
    fs::create_dir(home.path().join("paper")).unwrap();
    for (number, part) in parts.iter().enumerate() {
        fs::write(home.path().join("paper").join(number.to_string()), part).unwrap();
    }
    let opened = home.open_with(&["2", "0"]);
    assert_eq!(status(&opened), 0, "{}", stderr(&opened));
    assert_eq!(home.slots()[1]["label"], "for the family");

    let split = home.run_open(&["key", "split", "--threshold", "2", "--shares", "3", "--json"]);
    let split: serde_json::Value = serde_json::from_slice(&split.stdout).unwrap();
    let words = split["words"].as_array().unwrap();
    for (number, words) in words.iter().enumerate() {
        fs::write(home.path().join("paper").join(number.to_string()), words.as_str().unwrap()).unwrap();
    }
    let opened = home.open_with(&["1", "2"]);
    assert_eq!(status(&opened), 0, "{}", stderr(&opened));
}

#[test]
fn a_recovery_phrase_goes_onto_a_page() {
    let home = Home::new();
    for page in ["phrase.html", "phrase.txt"] {
        let add = ["key", "add", "--new-recovery-phrase", "--page", page];
        let added = home.run_open(&add);
        assert_eq!(status(&added), 0, "{}", stderr(&added));
        let text = fs::read_to_string(home.path().join(page)).unwrap();
        let code = text.split("BLOCKFRAME-PHRASE: ").nth(1).unwrap();
        let word = code.split_whitespace().next().unwrap().to_lowercase();
        assert!(!stdout(&added).contains(&format!(" {word}")), "the phrase is on the screen too");
        assert!(stdout(&added).contains(page) && text.contains("photos"));
        assert_eq!(text.starts_with("<!DOCTYPE html>"), page.ends_with("html"));
        assert_eq!(home.path().join(page).metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let opened = home.run(&["ls", "--recovery-phrase-file", page]);
        assert_eq!(status(&opened), 0, "{}", stderr(&opened));
        let again = home.run_open(&add);
        assert_eq!(status(&again), 1, "{}", stderr(&again));
        assert_eq!(fs::read_to_string(home.path().join(page)).unwrap(), text);
    }
    assert_eq!(home.slots().len(), 3);
    let wrong = home.run_open(&["key", "add", "--new-passphrase-file", "pass", "--page", "x.html"]);
    assert_eq!(status(&wrong), 2, "{}", stderr(&wrong));
}

#[test]
fn shares_are_typed_until_there_are_enough() {
    let home = Home::new();
    home.split();
    let share = |number: u8| words(home.path().join(format!("paper/share-{number}-of-5.txt")));
    let mut mistyped: Vec<String> = share(2).split(' ').map(String::from).collect();
    let last = mistyped.len() - 1;
    mistyped[last] = "zooo".into();
    let answers = [mistyped.join(" "), share(5), mistyped.join(" "), share(5), share(2), share(4)];
    let (screen, status) = home.at_terminal(&["ls"], &answers);
    assert_eq!(status, 0, "{screen}");
    assert!(screen.contains("Passphrase of"), "{screen}");
    assert!(screen.contains("Share 2 of 3") && screen.contains("Share 3 of 3"), "{screen}");
    assert_eq!(screen.matches("word 32, \"zooo\"").count(), 2, "{screen}");
    assert!(screen.contains("share 5 of set") && screen.contains("given twice: 2 shares"), "{screen}");
    for number in [2, 4, 5] {
        let typed = share(number);
        let longest = typed.split(' ').max_by_key(|word| word.len()).unwrap();
        assert!(!screen.contains(longest), "what was typed shows: {screen}");
    }
    // Who has no more gives up.
    let (screen, status) = home.at_terminal(&["ls"], &[share(1), String::new(), String::new()]);
    assert_eq!(status, 6, "{screen}");
    assert!(screen.contains("2 too few"), "{screen}");
}
