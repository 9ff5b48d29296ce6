//! A store that goes back to an older state, as a user of the program meets it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod kit;

use kit::program::{Outcome, Place};
use std::fs;
use std::path::Path;
use std::process::Command;

/// An encrypted archive with one file, a key file beside it, and a machine's memory.
struct Encrypted(Place);

impl Encrypted {
    fn new() -> Self {
        let place = Place::new();
        fs::write(place.path("key"), [0x6b; 64]).unwrap();
        fs::create_dir(place.path("src")).unwrap();
        fs::write(place.path("src/one"), "one").unwrap();
        let this = Self(place);
        let archive = this.0.archive();
        this.ok(&["init", archive.to_str().unwrap(), "--encrypt", "--no-recovery-phrase"]);
        this.ok(&["commit", "src"]);
        this
    }

    fn run_on(&self, machine: &str, arguments: &[&str]) -> Outcome {
        let mut command = self.0.command(["--key-file", "key"]);
        command.args(arguments).env("XDG_STATE_HOME", self.0.path(machine));
        Outcome(command.output().unwrap())
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        self.run_on("state", arguments)
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let outcome = self.run(arguments);
        assert_eq!(outcome.status(), Some(0), "{}", outcome.stderr());
        outcome.stdout()
    }

    fn copy(&self, from: &str, to: &str) {
        let _ = fs::remove_dir_all(self.0.path(to));
        let copied = Command::new("cp").args(["-a", from, to]).current_dir(self.0.directory.path()).status().unwrap();
        assert!(copied.success());
    }
}

fn is_there(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some())
}

#[test]
fn an_older_store_ends_with_5_until_it_is_accepted() {
    let place = Encrypted::new();
    assert!(is_there(&place.0.path("state/blockframe/heads")));
    place.copy("arch", "older");
    fs::write(place.0.path("src/two"), "two").unwrap();
    place.ok(&["commit", "src"]);
    place.copy("arch", "newer");
    place.copy("older", "arch");
    for command in [&["ls"][..], &["commit", "src"], &["rebuild-catalog"], &["status"]] {
        place.run(command).told(5, &["presents generation", "has seen", "--accept-rollback"]);
    }
    // Another machine sees it for the first time; so does this one with another memory.
    assert_eq!(place.run_on("other", &["ls", "src"]).status(), Some(0));
    assert_eq!(place.ok(&["--accept-rollback", "ls", "src"]).trim(), "one");
    assert_eq!(place.ok(&["ls", "src"]).trim(), "one");
    // It goes on from there; what was before is a fork now.
    fs::write(place.0.path("src/three"), "three").unwrap();
    place.ok(&["commit", "src"]);
    place.copy("newer", "arch");
    place.run(&["ls"]).told(5, &["presents generation", "--accept-rollback"]);
}

#[test]
fn the_directory_of_the_memory_can_be_configured() {
    let place = Encrypted::new();
    fs::write(place.0.path("config.toml"), "[encryption]\nstate_directory = \"elsewhere\"\n").unwrap();
    place.ok(&["ls"]);
    assert!(is_there(&place.0.path("elsewhere/heads")));
}
