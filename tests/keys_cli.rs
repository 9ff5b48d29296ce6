//! The keys of an encrypted archive as scripts and people use them.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod kit;

use kit::files_below;
use kit::program::{Outcome, Place, can_mount, is_mounted};
use serde_json::Value;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

/// A passphrase that nothing else contains.
const HUSH: &str = "zebra-quartz-91-hush";
const TOP: &str = "blockframe-keys.json";
const PRIVATE: &str = ".blockframe/keys/keyring.json";

/// A file that only its owner reads.
fn secret_file(place: &Place, name: &str, bytes: &[u8]) {
    let path = place.path(name);
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// An encrypted archive that the file `pass` opens, and its recovery phrase.
fn encrypted() -> (Place, String) {
    let place = Place::new();
    secret_file(&place, "pass", format!("{HUSH}\n").as_bytes());
    let made = place.ok(["--json", "init", "--encrypt", "--passphrase-file", "pass"]);
    let phrase = json(&made)["recovery_phrase"].as_str().unwrap().to_string();
    (place, phrase)
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// With the right passphrase.
fn opened(place: &Place, arguments: &[&str]) -> Outcome {
    place.run([&["--passphrase-file", "pass"], arguments].concat())
}

fn kinds(place: &Place) -> Vec<String> {
    let list = json(&place.ok(["--json", "key", "list"]));
    list["slots"].as_array().unwrap().iter().map(|slot| slot["kind"].as_str().unwrap().to_string()).collect()
}

#[test]
fn init_makes_an_archive_that_its_keys_open() {
    let place = Place::new();
    secret_file(&place, "pass", HUSH.as_bytes());
    let made = place.ok(["init", "--encrypt", "aes256-siv", "--passphrase-file", "pass"]);
    assert!(made.contains("Encrypted with aes256-siv") && made.contains("  24. "), "{made}");
    assert_eq!(kinds(&place), ["passphrase", "recovery"]);
    let ring = fs::read(place.archive().join(TOP)).unwrap();
    assert_eq!(ring, fs::read(place.archive().join(PRIVATE)).unwrap());
    assert_eq!(opened(&place, &["ls"]).status(), Some(0));
    // As it is printed, with its numbers, the phrase opens it.
    let phrase = made.split("once.\n").nth(1).unwrap();
    secret_file(&place, "phrase", phrase.as_bytes());
    place.ok(["--recovery-phrase-file", "phrase", "ls"]);
    let status = json(&opened(&place, &["--json", "status"]).stdout());
    assert_eq!(status["encryption"]["cipher"], "aes256-siv");
    assert_eq!(status["encryption"]["slots"], serde_json::json!({ "passphrase": 1, "recovery": 1 }));
    assert!(opened(&place, &["status"]).stdout().contains("2 key slots: 1 passphrase, 1 recovery phrase"));
    assert!(place.ok(["key", "list"]).contains("argon2id, 64MiB, 3 passes, 4 lanes"));
    let health = opened(&place, &["health"]);
    assert!(!health.stdout().contains(TOP), "the key ring is no stranger: {}", health.stdout());
}

#[test]
fn init_without_a_secret_or_with_a_bad_one_makes_nothing() {
    let place = Place::new();
    secret_file(&place, "short", b"fifteen bytes..");
    secret_file(&place, "empty", b"\n");
    for (arguments, status, words) in [
        (&["--encrypt"][..], 2, &["no terminal", "--passphrase-file"][..]),
        (&["--encrypt", "--key-file", "short"], 2, &["short", "at least 16"]),
        (&["--encrypt", "--passphrase-file", "empty"], 2, &["empty"]),
        (&["--encrypt", "--passphrase-file", "none"], 2, &["none"]),
        (&["--encrypt", "aes128-gcm", "--passphrase-file", "short"], 2, &["aes128-gcm", "aes256-gcm"]),
    ] {
        place.run([&["init"], arguments].concat()).told(status, words);
        assert!(!place.archive().exists(), "{arguments:?}");
    }
    assert_eq!(place.run(["init", "--no-confirm"]).status(), Some(2));
    assert_eq!(place.run(["init", "--no-recovery-phrase"]).status(), Some(2));
}

#[test]
fn init_takes_its_keys_from_several_places() {
    let place = Place::new();
    secret_file(&place, "pass", HUSH.as_bytes());
    secret_file(&place, "stick.key", &[7; 64]);
    let arguments = [
        "--json",
        "init",
        "--encrypt",
        "arch",
        "--passphrase-file",
        "pass",
        "--key-file",
        "stick.key",
        "--no-recovery-phrase",
    ];
    let made = json(&place.ok(arguments));
    assert_eq!((&made["recovery_phrase"], made["slots"][1]["label"].as_str()), (&Value::Null, Some("stick.key")));
    assert_eq!(kinds(&place), ["passphrase", "key_file"]);
    place.ok(["--key-file", "stick.key", "ls"]);
    // What the configuration names is taken where no flag does.
    fs::write(place.path("config.toml"), format!("[encryption]\nkey_command = \"echo {HUSH}\"\n")).unwrap();
    place.ok(["init", "other", "--encrypt", "--no-recovery-phrase"]);
    place.ok(["-a", "other", "ls"]);
    // An init that was interrupted before it had a descriptor is no obstacle.
    for name in ["blockframe-store.json", ".blockframe/store.json"] {
        fs::remove_file(place.path("other").join(name)).unwrap();
    }
    fs::remove_dir_all(place.path("other/.blockframe")).unwrap();
    place.ok(["init", "other", "--encrypt"]);
    place.ok(["-a", "other", "ls"]);
}

/// Every command that opens an archive, with every kind of wrong key and with none.
#[test]
fn a_wrong_or_missing_key_ends_with_6_before_anything_is_touched() {
    let (place, phrase) = encrypted();
    secret_file(&place, "key", &[7; 64]);
    assert_eq!(opened(&place, &["key", "add", "--new-key-file", "key"]).status(), Some(0));
    fs::write(place.path("file"), b"content").unwrap();
    secret_file(&place, "wrong-pass", b"zebra-quartz-91-hush ");
    secret_file(&place, "wrong-key", &[8; 64]);
    let abandon = format!("{}art", "abandon ".repeat(23));
    secret_file(&place, "wrong-phrase", abandon.as_bytes());
    secret_file(&place, "cut-phrase", phrase.rsplit_once(' ').unwrap().0.as_bytes());
    // One copy is damaged: whoever has no key does not mend it.
    let copy = place.archive().join(TOP);
    let mut bytes = fs::read(&copy).unwrap();
    bytes[100] ^= 1;
    fs::write(&copy, bytes).unwrap();
    let before = files_below(&place.archive());
    let times = |place: &Place| {
        files_below(&place.archive())
            .keys()
            .map(|path| fs::metadata(place.archive().join(path)).unwrap().modified().unwrap())
            .collect::<Vec<_>>()
    };
    let modified = times(&place);
    let missing: &[&str] = &[];
    for (key, words) in [
        (missing, &["no key was given", "passphrase (1)", "--passphrase-file"][..]),
        (&["--passphrase-file", "wrong-pass"], &["wrong key", "passphrase file wrong-pass"]),
        (&["--passphrase-file", "key"], &["wrong key", "passphrase file key"]),
        (&["--key-file", "wrong-key"], &["wrong key", "key file wrong-key", "config.toml"]),
        (&["--key-file", "pass"], &["wrong key", "key file pass"]),
        (&["--key-file", "none-such"], &["wrong key", "cannot open none-such"]),
        (&["--recovery-phrase-file", "wrong-phrase"], &["wrong key", "recovery phrase file"]),
        (&["--recovery-phrase-file", "cut-phrase"], &["wrong key", "23 words"]),
        (&["--share-file", "pass"], &["wrong key", "share"]),
        (&["--passphrase-file", "wrong-pass", "--key-file", "wrong-key"], &["wrong-pass", "wrong-key"]),
    ] {
        place.run([key, &["ls"]].concat()).told(6, words);
        assert!(files_below(&place.archive()) == before && times(&place) == modified, "{key:?}");
    }
    for command in [
        &["status"][..],
        &["commit", "file"],
        &["find", "*"],
        &["stat", "x"],
        &["cat", "x"],
        &["get", "x", "."],
        &["rm", "x"],
        &["gc"],
        &["sync"],
        &["versions", "x"],
        &["restore", "x"],
        &["rebuild-catalog"],
        &["mount", "mnt"],
        &["mount", "mnt", "--foreground"],
        &["key", "add", "--new-key-file", "key"],
        &["key", "remove", "1"],
        &["key", "change", "--new-key-file", "key"],
        &["key", "rotate"],
        &["key", "rotate", "--reencrypt"],
        &["key", "rotate", "--reencrypt", "--background"],
    ] {
        place.run([&["--passphrase-file", "wrong-pass"], command].concat()).told(6, &["wrong key", "wrong-pass"]);
        assert!(files_below(&place.archive()) == before && times(&place) == modified, "{command:?}");
    }
    let error = json(&place.run(["--json", "ls"]).stderr());
    assert_eq!((error["class"].as_str(), error["exit_status"].as_i64()), (Some("wrong_key"), Some(6)));
}

#[test]
fn a_bad_copy_of_the_ring_is_healed_and_two_are_not_touched() {
    let (place, _) = encrypted();
    let good = fs::read(place.archive().join(TOP)).unwrap();
    for name in [TOP, PRIVATE] {
        let path = place.archive().join(name);
        for bad in [None, Some(&good[..good.len() / 2]), Some(&b"{}"[..])] {
            match bad {
                Some(bad) => fs::write(&path, bad).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            let healed = opened(&place, &["ls"]);
            healed.told(0, &["key ring was bad", name, "rewritten"]);
            assert_eq!(fs::read(&path).unwrap(), good);
            assert_eq!(opened(&place, &["ls"]).status(), Some(0));
        }
    }
    let events = opened(&place, &["--json", "status"]).stdout();
    assert!(events.contains("metadata_healed") && events.contains("keyring.json"), "{events}");
    for name in [TOP, PRIVATE] {
        fs::write(place.archive().join(name), b"{}").unwrap();
    }
    let before = files_below(&place.archive());
    opened(&place, &["ls"]).told(4, &["both copies of the key ring", "backup"]);
    for name in [TOP, PRIVATE] {
        fs::remove_file(place.archive().join(name)).unwrap();
    }
    opened(&place, &["ls"]).told(4, &["missing", "blockframe-keys.json"]);
    assert!(files_below(&place.archive()).len() + 2 == before.len());
}

#[test]
fn keys_are_added_changed_and_removed() {
    let (place, _) = encrypted();
    secret_file(&place, "stick", &[3; 32]);
    secret_file(&place, "new", b"another passphrase");
    let added = opened(&place, &["--json", "key", "add", "--new-key-file", "stick", "--label", "the blue one"]);
    let added = json(&added.stdout());
    assert_eq!((&added["slot"]["label"], &added["generation"]), (&"the blue one".into(), &2.into()));
    place.ok(["--key-file", "stick", "ls"]);
    let phrase = json(&opened(&place, &["--json", "key", "add", "--new-recovery-phrase"]).stdout());
    secret_file(&place, "phrase", phrase["recovery_phrase"].as_str().unwrap().as_bytes());
    place.ok(["--recovery-phrase-file", "phrase", "ls"]);
    let added = opened(&place, &["key", "add", "--new-key-command", "printf 'from a token'"]);
    assert!(added.stdout().contains("Added slot 5 (command)"), "{}", added.stdout());
    // The passphrase is replaced; the slot's label is that of the old one.
    let changed = opened(&place, &["key", "change", "--new-passphrase-file", "new"]).stdout();
    assert!(changed.contains("in the place of slot 1") && changed.contains("whoever kept a copy"), "{changed}");
    opened(&place, &["ls"]).told(6, &["wrong key"]);
    place.ok(["--passphrase-file", "new", "ls"]);
    assert_eq!(kinds(&place), ["recovery", "key_file", "recovery", "command", "passphrase"]);
    place.run(["--key-file", "stick", "key", "remove", "77"]).told(1, &["no slot 77", "key list"]);
    place.run(["--key-file", "stick", "key", "remove", "x"]).told(1, &["no slot", "key list"]);
    for id in ["2", "4", "5", "6"] {
        let removed = place.ok(["--key-file", "stick", "key", "remove", id]);
        assert!(removed.contains("still has the archive's key"), "{removed}");
    }
    place.run(["--passphrase-file", "new", "ls"]).told(6, &["wrong key"]);
    let before = files_below(&place.archive());
    place.run(["--key-file", "stick", "key", "remove", "3"]).told(1, &["the only one", "add another"]);
    assert_eq!(files_below(&place.archive()), before);
    let bad = place.run(["--key-file", "stick", "key", "add", "--new-key-command", "exit 4"]);
    bad.told(2, &["exit status: 4"]);
    assert_eq!(files_below(&place.archive()), before);
}

#[test]
fn a_rotation_says_what_it_does_not_protect() {
    let (place, _) = encrypted();
    let said = opened(&place, &["key", "rotate"]).stdout();
    for word in ["Epoch 2", "next writes", "keeps its old key", "Whoever has the archive's key"] {
        assert!(said.contains(word), "{said}");
    }
    let list = json(&place.ok(["--json", "key", "list"]));
    assert_eq!((list["epochs"].as_array().unwrap().len(), &list["generation"]), (2, &2.into()));
    let said = opened(&place, &["key", "rotate", "--reencrypt"]).stdout();
    for word in ["gets the key of epoch 3", "are gone", "does not protect against somebody who has the archive's key"] {
        assert!(said.contains(word), "{said}");
    }
    assert_eq!(opened(&place, &["ls"]).status(), Some(0));
}

#[test]
fn secrets_come_from_the_configuration_and_from_credentials() {
    let (place, _) = encrypted();
    secret_file(&place, "stick", &[3; 32]);
    assert_eq!(opened(&place, &["key", "add", "--new-key-file", "stick"]).status(), Some(0));
    let config = |text: &str| fs::write(place.path("config.toml"), text).unwrap();
    for text in [
        "[encryption]\npassphrase_file = \"pass\"\n",
        "[encryption]\nkey_file = \"stick\"\n",
        "[encryption]\nkey_command = \"cat pass\"\n",
        "encryption_key_path = \"stick\"\n",
        // One that does not work does not hinder the next.
        "[encryption]\npassphrase_file = \"gone\"\nkey_command = \"cat pass\"\n",
    ] {
        config(text);
        place.ok(["ls"]);
        let doctor = place.run(["doctor"]).stdout();
        assert!(doctor.contains("ok       key ") && doctor.contains("ok       encryption"), "{text}: {doctor}");
    }
    config(&format!("[encryption]\nkey_command = \"echo {HUSH}; exit 7\"\n"));
    let failed = place.run(["ls"]);
    failed.told(6, &["key command", "exit status: 7"]);
    assert!(!failed.stderr().contains(HUSH));
    assert!(place.run(["doctor"]).stdout().contains("PROBLEM  key"));
    config("[encryption]\nkey_command = \"kill -9 $$\"\n");
    place.run(["ls"]).told(6, &["key command", "signal"]);
    // Flags come first.
    opened(&place, &["ls"]);
    fs::remove_file(place.path("config.toml")).unwrap();
    assert!(place.run(["doctor"]).stdout().contains("asked for on the terminal"));
    for (name, file) in [("blockframe-passphrase", "pass"), ("blockframe-key", "stick")] {
        let directory = place.path("credentials");
        fs::create_dir(&directory).unwrap();
        fs::copy(place.path(file), directory.join(name)).unwrap();
        let output = place.command(["ls"]).env("CREDENTIALS_DIRECTORY", &directory).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        fs::remove_dir_all(directory).unwrap();
    }
}

#[test]
fn a_secret_that_others_can_read_is_warned_of() {
    let (place, _) = encrypted();
    assert!(!opened(&place, &["ls"]).stderr().contains("chmod"));
    fs::set_permissions(place.path("pass"), fs::Permissions::from_mode(0o644)).unwrap();
    opened(&place, &["ls"]).told(0, &["other users", "chmod 600 pass"]);
}

#[test]
fn no_secret_is_logged() {
    let (place, phrase) = encrypted();
    secret_file(&place, "phrase", phrase.as_bytes());
    secret_file(&place, "wrong", format!("{HUSH}-wrong").as_bytes());
    fs::write(place.path("config.toml"), "[encryption]\nkey_command = \"cat pass\"\n").unwrap();
    let ring = fs::read_to_string(place.archive().join(TOP)).unwrap();
    for arguments in [
        &["ls"][..],
        &["--passphrase-file", "pass", "ls"],
        &["--passphrase-file", "wrong", "ls"],
        &["--recovery-phrase-file", "phrase", "ls"],
        &["key", "add", "--new-passphrase-file", "wrong"],
        &["doctor"],
        &["config", "check"],
        &["key", "list"],
    ] {
        let outcome = place.run([&["-vvv"], arguments].concat());
        let said = format!("{}{}", outcome.stderr(), outcome.stdout());
        let hexed = hex::encode(HUSH);
        let listed = format!("{:?}", HUSH.as_bytes());
        for secret in [HUSH, &phrase, &hexed, listed.trim_matches(['[', ']'])] {
            assert!(!said.contains(secret), "{arguments:?}: {said}");
        }
    }
    assert!(!ring.contains(HUSH));
}

#[test]
fn an_archive_that_is_not_encrypted_has_no_keys() {
    let place = Place::new();
    secret_file(&place, "pass", HUSH.as_bytes());
    place.ok(["init"]);
    assert!(!place.archive().join(TOP).exists() && !place.archive().join(PRIVATE).exists());
    for command in [&["key", "list"][..], &["key", "rotate"], &["key", "remove", "1"]] {
        place.run(command.iter().copied()).told(2, &["not encrypted", "init --encrypt"]);
    }
    // A key that is configured for another archive does no harm.
    let outcome = opened(&place, &["ls"]);
    assert_eq!((outcome.status(), outcome.stderr().as_str()), (Some(0), ""));
    assert!(place.ok(["status"]).contains("encryption  none"));
    assert_eq!(json(&place.ok(["--json", "status"]))["encryption"], Value::Null);
}

/// What is waited for on the terminal, and what is typed then.
type Line<'a> = (&'a str, &'a dyn Fn(&str) -> String);

/// Runs the program on a terminal of its own, and types each answer when its question shows.
fn on_a_terminal(place: &Place, arguments: &str, talk: &[Line<'_>]) -> Option<(i32, String)> {
    if let Err(error) = Command::new("script").arg("--version").output() {
        eprintln!("skipped: there is no `script` here: {error}");
        return None;
    }
    let program = env!("CARGO_BIN_EXE_blockframe");
    let mut child = Command::new("timeout")
        .args(["60", "script", "-qec", &format!("{program} {arguments}"), "/dev/null"])
        .current_dir(place.directory.path())
        .env("HOME", place.directory.path())
        .env("BLOCKFRAME_ARCHIVE", place.archive())
        .env_remove("BLOCKFRAME_LOG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let mut keys = child.stdin.take().unwrap();
    let mut screen = child.stdout.take().unwrap();
    let (mut said, mut seen) = (String::new(), 0);
    let mut talk = talk.iter();
    let mut next = talk.next();
    let mut buffer = [0; 4096];
    loop {
        let read = screen.read(&mut buffer).unwrap_or(0);
        if read == 0 {
            break;
        }
        said.push_str(&String::from_utf8_lossy(&buffer[..read]));
        while let Some((question, answer)) = next {
            let Some(at) = said[seen..].find(question) else { break };
            seen += at + question.len();
            // What comes right behind the question belongs to it: "Word 7: ".
            let line = said[seen..].split('\n').next().unwrap_or_default();
            if question.ends_with("Word ") && !line.contains(": ") {
                seen -= question.len();
                break;
            }
            keys.write_all(answer(&said).as_bytes()).unwrap();
            next = talk.next();
        }
    }
    drop(keys);
    Some((child.wait().unwrap().code().unwrap(), said))
}

#[test]
fn a_person_is_asked_twice_and_types_words_back() {
    let place = Place::new();
    let type_it = |_: &str| format!("{HUSH}\n");
    let wrong = |_: &str| "nonsense\n".to_string();
    let word = |said: &str| {
        let number = said.rsplit("Word ").next().unwrap().split(':').next().unwrap().to_string();
        let table = said.split("once.").nth(1).unwrap();
        let place = format!(" {number}. ");
        format!("{}\n", table.split(&place).nth(1).unwrap().split_whitespace().next().unwrap())
    };
    let talk: &[Line<'_>] = &[
        ("New passphrase: ", &type_it),
        ("The same again: ", &wrong),
        ("New passphrase: ", &type_it),
        ("The same again: ", &type_it),
        ("Word ", &wrong),
        ("Word ", &word),
        ("Word ", &word),
        ("Word ", &word),
        ("Word ", &word),
        ("Word ", &word),
    ];
    let Some((status, said)) = on_a_terminal(&place, "init --encrypt", talk) else { return };
    assert_eq!(status, 0, "{said}");
    assert!(!said.contains(HUSH), "what was typed showed: {said}");
    assert_eq!(said.matches("  24. ").count(), 1, "the phrase was shown more than once: {said}");
    let right: &[Line<'_>] = &[("Passphrase of ", &wrong), ("Passphrase of ", &type_it)];
    let (status, said) = on_a_terminal(&place, "ls", right).unwrap();
    assert!(status == 0 && !said.contains(HUSH), "{said}");
    // The phrase itself is understood at the same question.
    let table = said_phrase(&place);
    let phrase = move |_: &str| format!("{table}\n");
    let (status, said) = on_a_terminal(&place, "ls", &[("Passphrase of ", &phrase)]).unwrap();
    assert_eq!(status, 0, "{said}");
    let give_up = |_: &str| "\x03".to_string();
    let (status, _) = on_a_terminal(&place, "ls", &[("Passphrase of ", &give_up)]).unwrap();
    assert_eq!(status, 130);
    let thrice: &[Line<'_>] = &[("Passphrase of ", &wrong), ("Passphrase of ", &wrong), ("Passphrase of ", &wrong)];
    let (status, said) = on_a_terminal(&place, "ls", thrice).unwrap();
    assert!(status == 6 && said.contains("what was typed"), "{said}");
}

/// A new recovery phrase of the archive.
fn said_phrase(place: &Place) -> String {
    secret_file(place, "pass", HUSH.as_bytes());
    let added = opened(place, &["--json", "key", "add", "--new-recovery-phrase"]);
    json(&added.stdout())["recovery_phrase"].as_str().unwrap().to_string()
}

/// The process that serves a mount of this archive: its command line and its environment.
fn daemon_of(place: &Place) -> (String, String) {
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let text =
            |name: &str| String::from_utf8_lossy(&fs::read(entry.path().join(name)).unwrap_or_default()).into_owned();
        let (command, environment) = (text("cmdline"), text("environ"));
        let ours = environment.contains("BLOCKFRAME_BACKGROUND_CHILD=1")
            && environment.contains(&*place.archive().to_string_lossy());
        if ours && command.contains("mount") {
            return (command, environment);
        }
    }
    // It keeps its environment from other processes of its own user.
    assert!(!rustix::process::geteuid().is_root(), "the daemon is not there");
    Default::default()
}

fn unmount(place: &Place) {
    place.ok(["umount", "mnt"]);
    assert!(!is_mounted(&place.path("mnt")));
}

#[test]
fn a_mount_in_the_background_gets_its_secret_through_a_pipe() {
    if !can_mount() {
        return;
    }
    let (place, _) = encrypted();
    let type_it = |_: &str| format!("{HUSH}\n");
    if let Some((status, said)) = on_a_terminal(&place, "mount mnt", &[("Passphrase of ", &type_it)]) {
        assert_eq!(status, 0, "{said}");
        assert!(is_mounted(&place.path("mnt")));
        let (command, environment) = daemon_of(&place);
        assert!(!command.contains(HUSH) && !environment.contains(HUSH), "{command} {environment}");
        assert_eq!(opened(&place, &["key", "rotate"]).status(), Some(0));
        fs::write(place.path("mnt/new"), "with the new key").unwrap();
        unmount(&place);
    }
    // The command is asked once, by the process that a person started.
    fs::write(place.path("config.toml"), "[encryption]\nkey_command = \"echo x >> asked; cat pass\"\n").unwrap();
    place.ok(["mount", "mnt"]);
    assert_eq!(fs::read_to_string(place.path("asked")).unwrap(), "x\n");
    let (command, environment) = daemon_of(&place);
    assert!(!command.contains(HUSH) && !environment.contains(HUSH), "{command} {environment}");
    unmount(&place);
}
