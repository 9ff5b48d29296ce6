//! `health`, `repair` and `scrub` as scripts see them.
#![allow(clippy::unwrap_used)]

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn blockframe(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_blockframe"));
    command.current_dir(directory).env("HOME", directory).env_remove("XDG_CONFIG_HOME").env_remove("BLOCKFRAME_LOG");
    command.env("BLOCKFRAME_ARCHIVE", "arch").args(arguments).output().unwrap()
}

/// Ends with `status`; returns the lines of JSON.
fn json(directory: &Path, arguments: &[&str], status: i32) -> Vec<Value> {
    let arguments: Vec<&str> = ["--json"].iter().chain(arguments).copied().collect();
    let output = blockframe(directory, &arguments);
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// An archive `arch` of three files that are objects of their own, and a bundle for their directory.
fn committed() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let source = home.path().join("src");
    fs::create_dir(&source).unwrap();
    for (name, seed) in [("a.bin", 1u8), ("b.bin", 2), ("c.bin", 3)] {
        let bytes: Vec<u8> = (0..3_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8 ^ seed).collect();
        fs::write(source.join(name), bytes).unwrap();
    }
    for arguments in [&["init", "arch"][..], &["commit", "src"]] {
        let output = blockframe(home.path(), arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    home
}

fn object(home: &Path, name: &str) -> PathBuf {
    let mut entries = fs::read_dir(home.join("arch")).unwrap().map(|entry| entry.unwrap().path());
    entries.find(|path| path.file_name().unwrap().to_string_lossy().starts_with(name)).unwrap()
}

fn summary(lines: &[Value]) -> &Value {
    lines.iter().find(|line| line["summary"] == true).unwrap()
}

#[test]
fn strangers_in_the_store_are_noted_and_are_no_damage() {
    let home = committed();
    let at = home.path();
    let orphan = format!("orphan_{}", "0".repeat(64));
    fs::create_dir(at.join("arch").join(&orphan)).unwrap();
    fs::write(at.join("arch/holiday.txt"), b"mine").unwrap();
    let lines = json(at, &["health"], 0);
    let strangers = lines.iter().find(|line| line["strangers"] == true).unwrap();
    assert_eq!(strangers["orphans"], serde_json::json!([orphan]));
    assert_eq!(strangers["foreign"], serde_json::json!(["holiday.txt"]));
    assert_eq!(summary(&lines)["verdict"], "healthy");
    json(at, &["repair"], 0);
    assert!(at.join("arch/holiday.txt").exists() && at.join("arch").join(&orphan).exists());
}

#[test]
fn an_object_without_a_manifest_is_lost_by_name_and_the_rest_goes_on() {
    let home = committed();
    let at = home.path();
    for copy in ["manifest.json", "manifest.copy.json"] {
        fs::write(object(at, "b.bin").join(copy), b"garbage").unwrap();
    }
    for arguments in [&["health"][..], &["repair"], &["health", "--quick"]] {
        let lines = json(at, arguments, 4);
        let lost = lines.iter().find(|line| line["verdict"] == "unrecoverable").unwrap();
        assert_eq!(lost["paths"][0]["path"], "src/b.bin", "{arguments:?}");
        assert_eq!(summary(&lines)["words"]["healthy"], 3, "{arguments:?}");
        assert_eq!(summary(&lines)["words"]["unrecoverable"], 1, "{arguments:?}");
    }
    json(at, &["health", "src/a.bin"], 0);
    json(at, &["scrub"], 4);
    json(at, &["status"], 4);
}

#[test]
fn a_budget_goes_to_what_was_verified_longest_ago() {
    let home = committed();
    let at = home.path();
    json(at, &["health", "src/a.bin"], 0);
    json(at, &["health", "src/c.bin"], 0);
    // Damaged in the only file that was never verified: a small budget finds it.
    let data = object(at, "b.bin").join("data.dat");
    let data = if data.exists() { data } else { object(at, "b.bin").join("blocks/block_0/segments/segment_0.dat") };
    let mut bytes = fs::read(&data).unwrap();
    bytes[5] ^= 1;
    fs::write(&data, bytes).unwrap();
    let lines = json(at, &["health", "--budget", "100kB"], 3);
    assert_eq!(summary(&lines)["damaged"], 1);
}

#[test]
fn a_dry_run_writes_nothing_and_a_repair_ends_healthy() {
    let home = committed();
    let at = home.path();
    let manifest = object(at, "a.bin").join("manifest.json");
    let good = fs::read(&manifest).unwrap();
    let mut bad = good.clone();
    bad[30] ^= 1;
    fs::write(&manifest, &bad).unwrap();
    json(at, &["health"], 3);
    let plan = json(at, &["repair", "--dry-run"], 3);
    assert_eq!(plan[0]["steps"][0]["action"], "copy_manifest");
    assert!(fs::read(&manifest).unwrap() == bad, "looking and planning changed the store");
    json(at, &["repair"], 3);
    assert!(fs::read(&manifest).unwrap() == good);
    assert_eq!(summary(&json(at, &["health"], 0))["words"]["healthy"], 4);
}

#[test]
fn scrub_start_without_a_daemon_is_a_pass_here_and_now() {
    let home = committed();
    let at = home.path();
    let pass = json(at, &["scrub", "start"], 0);
    assert_eq!((&pass[0]["objects"], &pass[0]["found"]["damaged"]), (&Value::from(4), &Value::from(0)));
    let status = &json(at, &["scrub", "status"], 0)[0];
    assert_eq!(status["alive"], false);
    assert_eq!(status["last_pass"]["objects"], 4);
}
