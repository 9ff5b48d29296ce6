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

/// An archive `arch` with the tree `src` in it, in a fresh directory.
fn committed() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let source = home.path().join("src");
    fs::create_dir_all(source.join("sub/empty")).unwrap();
    fs::write(source.join("small.txt"), "hello\n").unwrap();
    fs::write(source.join("big.bin"), content(3_000_001)).unwrap();
    fs::hard_link(source.join("small.txt"), source.join("sub/hard")).unwrap();
    std::os::unix::fs::symlink("small.txt", source.join("link")).unwrap();
    ok(home.path(), &["init", "arch", "--profile", "balanced"]);
    ok(home.path(), &["-a", "arch", "commit", "src"]);
    home
}

/// Bytes that do not repeat, the same in every run.
fn content(len: u64) -> Vec<u8> {
    let mut bytes = vec![0; len as usize];
    blake3::Hasher::new().update(b"content").finalize_xof().fill(&mut bytes);
    bytes
}

fn ok(directory: &Path, arguments: &[&str]) -> String {
    let output = run(directory, arguments);
    assert_eq!(status(&output), 0, "{arguments:?}: {}", stderr(&output));
    stdout(&output)
}

/// JSON objects, one a line.
fn json_lines(text: &str) -> Vec<serde_json::Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The stored file of `big.bin` below its object.
fn stored(home: &Path, file: &str) -> std::path::PathBuf {
    let mut objects = fs::read_dir(home.join("arch")).unwrap().map(|entry| entry.unwrap().path());
    let object = objects.find(|path| path.file_name().unwrap().to_string_lossy().starts_with("big.bin_"));
    object.unwrap().join(file)
}

fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 1;
    fs::write(file, bytes).unwrap();
}

#[test]
fn what_was_committed_is_listed_and_read_back() {
    let home = committed();
    let at = home.path();
    assert_eq!(ok(at, &["-a", "arch", "ls"]), "src\n");
    let listing = ok(at, &["-a", "arch", "ls", "-R"]);
    assert_eq!(listing, "src\nsrc/big.bin\nsrc/link\nsrc/small.txt\nsrc/sub\nsrc/sub/empty\nsrc/sub/hard\n");
    assert_eq!(ok(at, &["-a", "arch", "find", "*.bin"]), "src/big.bin\n");
    assert_eq!(ok(at, &["-a", "arch", "find", "src/**/h?rd"]), "src/sub/hard\n");
    assert_eq!(run(at, &["-a", "arch", "cat", "src/big.bin"]).stdout, content(3_000_001));
    let range = run(at, &["-a", "arch", "cat", "/src/big.bin", "--range", "1MB-1000010"]).stdout;
    assert_eq!(range, content(3_000_001)[1_000_000..1_000_010]);
    let long = json_lines(&ok(at, &["-a", "arch", "--json", "ls", "-l", "src"]));
    let small = long.iter().find(|entry| entry["path"] == "src/small.txt").unwrap();
    assert_eq!((&small["size"], &small["links"], &small["kind"]), (&6.into(), &2.into(), &"file".into()));
    assert!(ok(at, &["-a", "arch", "stat", "src/sub/hard"]).contains("src/small.txt"));
    ok(at, &["-a", "arch", "get", "src", "out"]);
    let same =
        Command::new("diff").args(["-r", "--no-dereference", "src", "out/src"]).current_dir(at).status().unwrap();
    assert!(same.success());
}

#[test]
fn committing_again_stores_nothing_and_standard_input_has_a_name() {
    let home = committed();
    let again = json_lines(&ok(home.path(), &["-a", "arch", "--json", "commit", "src"]));
    let summary = again.last().unwrap();
    assert_eq!((&summary["unchanged"], &summary["objects"]), (&2.into(), &0.into()), "{summary}");
    let mut child = blockframe(home.path())
        .args(["-a", "arch", "commit", "-", "--name", "notes", "--to", "in/box"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"from a pipe").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(ok(home.path(), &["-a", "arch", "cat", "in/box/notes"]), "from a pipe");
}

#[test]
fn a_file_that_cannot_be_committed_is_named_and_the_rest_is_committed() {
    let home = committed();
    fs::write(home.path().join("good"), "good").unwrap();
    let output = run(home.path(), &["-a", "arch", "commit", "missing", "good"]);
    assert_eq!(status(&output), 1);
    assert!(stderr(&output).contains("missing"), "{}", stderr(&output));
    assert_eq!(ok(home.path(), &["-a", "arch", "cat", "good"]), "good");
}

#[test]
fn damage_is_told_healed_and_ends_with_3() {
    let home = committed();
    let at = home.path();
    ok(at, &["-a", "arch", "health"]);
    let segment = stored(at, "blocks/block_0/segments/segment_1.dat");
    flip(&segment, 200_000);
    let health = run(at, &["-a", "arch", "--json", "health"]);
    assert_eq!(status(&health), 3);
    let found = json_lines(&stdout(&health));
    assert_eq!(found[0]["verdict"], "recoverable");
    assert_eq!(found[0]["paths"][0]["path"], "src/big.bin");
    assert_eq!(found[0]["files"][0]["ranges"][0], serde_json::json!({ "start": 196_608, "end": 212_992 }));
    assert_eq!(status(&run(at, &["-a", "arch", "status"])), 3);
    let dry = run(at, &["-a", "arch", "repair", "--dry-run"]);
    assert_eq!(status(&dry), 3);
    assert_eq!(status(&run(at, &["-a", "arch", "health"])), 3, "a dry run repaired");
    let read = run(at, &["-a", "arch", "cat", "src/big.bin"]);
    assert_eq!((status(&read), read.stdout), (3, content(3_000_001)));
    ok(at, &["-a", "arch", "health"]);
    fs::remove_file(&segment).unwrap();
    let repair = run(at, &["-a", "arch", "repair", "src"]);
    assert_eq!(status(&repair), 3, "{}", stderr(&repair));
    ok(at, &["-a", "arch", "health"]);
    assert!(ok(at, &["-a", "arch", "status"]).contains("damage      none known"));
}

#[test]
fn lost_bytes_are_listed_and_end_with_4() {
    let home = committed();
    let at = home.path();
    fs::remove_dir_all(stored(at, "blocks/block_0/segments")).unwrap();
    let health = run(at, &["-a", "arch", "--json", "health"]);
    assert_eq!(status(&health), 4);
    let lost = &json_lines(&stdout(&health))[0]["paths"][0];
    assert_eq!(lost["path"], "src/big.bin");
    assert_eq!(lost["lost"], serde_json::json!([{ "start": 0, "end": 3_000_001 }]));
    assert_eq!(status(&run(at, &["-a", "arch", "cat", "src/big.bin"])), 4);
    assert_eq!(status(&run(at, &["-a", "arch", "repair"])), 4);
    assert_eq!(status(&run(at, &["-a", "arch", "get", "src", "out"])), 4);
    assert_eq!(fs::read_to_string(at.join("out/src/small.txt")).unwrap(), "hello\n", "the rest was not restored");
    assert!(stdout(&run(at, &["-a", "arch", "status"])).contains("beyond the parity"));
}

#[test]
fn init_refuses_a_directory_in_use() {
    let home = committed();
    let again = run(home.path(), &["init", "arch"]);
    assert_eq!(status(&again), 1);
    assert!(stderr(&again).contains("--archive arch"), "{}", stderr(&again));
    let foreign = run(home.path(), &["init", "src"]);
    assert_eq!(status(&foreign), 1);
    assert!(stderr(&foreign).contains("not empty"), "{}", stderr(&foreign));
}

#[test]
fn init_says_how_contents_are_compressed() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    assert!(ok(at, &["init", "fast", "--compress", "zstd"]).contains("compressed with zstd:3"));
    let json: serde_json::Value =
        serde_json::from_str(&ok(at, &["--json", "init", "small", "--compress", "brotli:11"])).unwrap();
    assert_eq!(json["compression"], "brotli:11");
    let json: serde_json::Value = serde_json::from_str(&ok(at, &["--json", "init", "plain"])).unwrap();
    assert_eq!(json["compression"], serde_json::Value::Null);
    assert!(!ok(at, &["init", "quiet"]).contains("compressed"));
    for (codec, hint) in [("xz", "zstd, lz4, gzip or brotli"), ("gzip:10", "1 to 9")] {
        let wrong = run(at, &["init", "wrong", "--compress", codec]);
        assert_eq!(status(&wrong), 2);
        assert!(stderr(&wrong).contains(hint), "{}", stderr(&wrong));
        assert!(!at.join("wrong").exists());
    }
    let descriptor = fs::read_to_string(at.join("fast/blockframe-store.json")).unwrap();
    assert!(descriptor.contains("zstd:3"), "{descriptor}");
}

#[test]
fn gc_removes_leftovers_and_nothing_else() {
    let home = committed();
    let at = home.path();
    let leftover = at.join("arch/.blockframe/tmp/object-left");
    fs::create_dir_all(&leftover).unwrap();
    fs::write(leftover.join("data.dat"), "half").unwrap();
    // No process has so high a number.
    let half = stored(at, ".blockframe-tmp-2147483646-3");
    fs::write(&half, "half").unwrap();
    fs::write(at.join("arch/README"), "mine").unwrap();
    fs::create_dir(at.join("arch/holiday")).unwrap();
    assert!(ok(at, &["-a", "arch", "gc", "--dry-run"]).contains("object-left"));
    assert!(leftover.exists(), "a dry run removed something");
    ok(at, &["-a", "arch", "gc"]);
    assert!(!leftover.exists() && !half.exists());
    assert!(at.join("arch/README").exists() && at.join("arch/holiday").exists(), "gc touched what is not ours");
    ok(at, &["-a", "arch", "health"]);
}

#[test]
fn the_catalog_is_rebuilt_from_the_journal_and_from_objects() {
    let home = committed();
    let at = home.path();
    let listing = ok(at, &["-a", "arch", "ls", "-R"]);
    for source in ["best", "journal", "objects"] {
        ok(at, &["-a", "arch", "rebuild-catalog", "--source", source]);
        assert_eq!(ok(at, &["-a", "arch", "ls", "-R"]), listing, "{source}");
    }
}

#[test]
fn plan_compares_the_profiles_without_an_archive() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("file"), content(100_000)).unwrap();
    let document = &json_lines(&ok(home.path(), &["--json", "plan", "file"]))[0];
    assert_eq!(document["bytes"], 100_000);
    let profiles = document["profiles"].as_array().unwrap();
    let stored: Vec<u64> = profiles.iter().map(|profile| profile["stored_bytes"].as_u64().unwrap()).collect();
    assert!(stored.len() == 3 && stored[0] > stored[1], "{stored:?}");
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1, "plan wrote something");
}

#[test]
fn a_foreground_scrub_heals_and_is_remembered() {
    let home = committed();
    let at = home.path();
    flip(&stored(at, "blocks/block_0/parity/block_parity_1.dat"), 5);
    assert!(ok(at, &["-a", "arch", "status"]).starts_with("oldest unverified: 2 objects never verified"));
    let scrub = run(at, &["-a", "arch", "--json", "scrub"]);
    assert_eq!(status(&scrub), 3, "{}", stderr(&scrub));
    let pass = &json_lines(&stdout(&scrub))[0];
    assert_eq!((&pass["objects"], &pass["found"]["healed"]), (&2.into(), &1.into()), "{pass}");
    ok(at, &["-a", "arch", "scrub"]);
    assert!(ok(at, &["-a", "arch", "status"]).contains("damage      none known"));
}

#[test]
fn scrub_wishes_are_kept_for_the_next_daemon() {
    let home = committed();
    let at = home.path();
    assert!(ok(at, &["-a", "arch", "scrub", "pause"]).contains("No daemon scrubs this archive now"));
    let paused = &json_lines(&ok(at, &["-a", "arch", "--json", "scrub", "status"]))[0];
    assert_eq!((&paused["paused"], &paused["alive"]), (&true.into(), &false.into()));
    ok(at, &["-a", "arch", "scrub", "resume"]);
    let resumed = &json_lines(&ok(at, &["-a", "arch", "--json", "scrub", "status"]))[0];
    assert_eq!(resumed["paused"], false);
}

#[test]
fn gc_keeps_a_bundle_that_only_tells_of_names() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir_all(home.path().join("tree/empty/below")).unwrap();
    let blockframe = |arguments: &[&str]| {
        let output = run(home.path(), &[&["-a", "archive"], arguments].concat());
        assert_eq!(status(&output), 0, "{arguments:?}: {}", stderr(&output));
        stdout(&output)
    };
    fs::create_dir(home.path().join("archive")).unwrap();
    blockframe(&["init"]);
    blockframe(&["commit", "tree"]);
    assert!(blockframe(&["gc"]).contains("Removed 0 leftovers"));
    // Without database and journal the names come back from that bundle.
    let private = home.path().join("archive/.blockframe");
    fs::remove_dir_all(private.join("catalog")).unwrap();
    fs::remove_file(private.join("catalog.db")).unwrap();
    assert!(blockframe(&["ls", "-R"]).contains("below"));
}
