//! The program as scripts see it: output, exit statuses, messages.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The program in a directory of its own, without the machine's configuration.
fn blockframe(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_blockframe"));
    command.current_dir(directory).env("HOME", directory).env_remove("XDG_CONFIG_HOME");
    for variable in ["BLOCKFRAME_ARCHIVE", "BLOCKFRAME_LOG"] {
        command.env_remove(variable);
    }
    command
}

fn run(directory: &Path, arguments: &[&str]) -> Output {
    blockframe(directory).args(arguments).output().unwrap()
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

#[test]
fn help_and_version_end_well() {
    let home = tempfile::tempdir().unwrap();
    let help = run(home.path(), &["--help"]);
    assert_eq!(status(&help), 0);
    for command in ["init", "commit", "mount", "rebuild-catalog", "doctor"] {
        assert!(stdout(&help).contains(command), "{command}");
    }
    let version = run(home.path(), &["--version"]);
    assert_eq!(stdout(&version), format!("blockframe {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_usage_ends_with_2() {
    let home = tempfile::tempdir().unwrap();
    for arguments in [&["frobnicate"][..], &["commit"], &["ls", "--nope"], &["cat", "a", "--range", "9-1"]] {
        let output = run(home.path(), arguments);
        assert_eq!(status(&output), 2, "{arguments:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn no_archive_ends_with_5_and_the_next_step() {
    let home = tempfile::tempdir().unwrap();
    let unnamed = run(home.path(), &["ls"]);
    assert_eq!(status(&unnamed), 5);
    assert!(stderr(&unnamed).contains("--archive") && stderr(&unnamed).contains("init"), "{}", stderr(&unnamed));
    let missing = run(home.path(), &["-a", "none", "ls"]);
    assert_eq!(status(&missing), 5);
    assert!(stderr(&missing).contains("blockframe init none"), "{}", stderr(&missing));
    fs::create_dir(home.path().join("empty")).unwrap();
    let empty = run(home.path(), &["-a", "empty", "ls"]);
    assert_eq!(status(&empty), 5);
    assert!(stderr(&empty).contains("init"), "{}", stderr(&empty));
    assert_eq!(fs::read_dir(home.path().join("empty")).unwrap().count(), 0, "looking for an archive left something");
}

#[test]
fn errors_are_json_when_asked_for() {
    let home = tempfile::tempdir().unwrap();
    let output = run(home.path(), &["--json", "ls"]);
    let error: serde_json::Value = serde_json::from_str(&stderr(&output)).unwrap();
    assert_eq!(error["class"], "unavailable");
    assert_eq!(error["exit_status"], 5);
}

#[test]
fn an_unknown_configuration_key_names_the_nearest() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("config.toml"), "[archive]\ndirectroy = \"x\"\n").unwrap();
    let output = run(home.path(), &["ls"]);
    assert_eq!(status(&output), 2);
    assert!(
        stderr(&output).contains("config.toml:2: unknown key \"directroy\"; did you mean directory?"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn the_example_configuration_is_accepted() {
    let home = tempfile::tempdir().unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml.example");
    let output = run(home.path(), &["config", "check", example.to_str().unwrap()]);
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    assert!(stdout(&output).contains("max_size = \"256MiB\""), "{}", stdout(&output));
    fs::copy(&example, home.path().join("config.toml")).unwrap();
    let json = run(home.path(), &["--json", "config", "check"]);
    let document: serde_json::Value = serde_json::from_str(&stdout(&json)).unwrap();
    assert_eq!(document["config"]["server"]["default_port"], 8080);
}

#[test]
fn a_broken_configuration_does_not_hinder_checking_another() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("config.toml"), "nonsense").unwrap();
    fs::write(home.path().join("good.toml"), "[logging]\nlevel = \"info\"\n").unwrap();
    assert_eq!(status(&run(home.path(), &["config", "check"])), 2);
    assert_eq!(status(&run(home.path(), &["config", "check", "good.toml"])), 0);
}

#[test]
fn completions_and_man_pages_are_made() {
    let home = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let output = run(home.path(), &["completions", shell]);
        assert_eq!(status(&output), 0);
        assert!(stdout(&output).contains("rebuild-catalog"), "{shell}");
    }
    assert!(stdout(&run(home.path(), &["man"])).contains(".TH blockframe"));
    assert_eq!(status(&run(home.path(), &["man", "pages"])), 0);
    for page in ["blockframe.1", "blockframe-commit.1", "blockframe-rebuild-catalog.1"] {
        assert!(home.path().join("pages").join(page).is_file(), "{page}");
    }
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let home = tempfile::tempdir().unwrap();
    let mut child = blockframe(home.path())
        .args(["completions", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(stderr(&output), "");
    assert_eq!(status(&output), 0);
}

#[test]
fn doctor_names_what_is_wrong_and_the_fix() {
    let home = tempfile::tempdir().unwrap();
    let output = run(home.path(), &["doctor", "-a", "none"]);
    assert_eq!(status(&output), 1);
    let text = stdout(&output);
    assert!(text.contains("PROBLEM  archive") && text.contains("fix: "), "{text}");
    let json = run(home.path(), &["--json", "doctor", "-a", "none"]);
    let document: serde_json::Value = serde_json::from_str(&stdout(&json)).unwrap();
    assert_eq!(document["ok"], false);
}
