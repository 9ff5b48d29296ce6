//! The filesystem that can be written against one so simple that it is
//! obviously right: whatever is done with both, the same is seen in both.
//!
//! Rows of operations come from a seed, which every failure prints together
//! with the shortest row that fails; `BLOCKFRAME_SEED=N` runs that one alone,
//! `BLOCKFRAME_CASES=N` runs more of them.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../kit/mod.rs"]
mod kit;
mod mounted;
mod ops;
mod world;

use blockframe_api::{RenameMode, XattrMode};
use ops::{At, Change, Dice, Kind, On, Op, Value, shrunk};
use std::panic::{AssertUnwindSafe, catch_unwind};
use world::Mode;

/// Rows of a quick run.
const CASES: u64 = 70;
/// And of those with real mounts.
const MOUNTED_CASES: u64 = 8;
/// Operations of a row.
const LENGTH: usize = 120;

/// Runs a row; a panic is a failure like any other.
fn failure(row: &[Op], run: impl Fn(&[Op]) -> anyhow::Result<()>) -> Option<String> {
    match catch_unwind(AssertUnwindSafe(|| run(row))) {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!("{error:#}")),
        Err(_) => Some("a panic".into()),
    }
}

fn cases(quick: u64, length: usize, run: impl Fn(u64, &[Op]) -> anyhow::Result<()>) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match number("BLOCKFRAME_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("BLOCKFRAME_CASES").unwrap_or(quick),
    };
    for seed in seeds {
        let row = Dice::new(seed).row(length);
        let fails = |row: &[Op]| failure(row, |row| run(seed, row));
        if let Some(first) = fails(&row) {
            println!("BLOCKFRAME_SEED={seed}: {first}");
            let short = shrunk(row, |row| fails(row).is_some());
            let why = fails(&short);
            let lines: Vec<String> = short.iter().map(|op| format!("    Op::{op:?},")).collect();
            panic!("BLOCKFRAME_SEED={seed}: {}\n{}", why.unwrap_or(first), lines.join("\n"));
        }
    }
}

#[test]
fn whatever_is_done_the_model_shows_the_same() {
    cases(CASES, LENGTH, |seed, row| {
        let mode =
            Mode { far: seed % 4 == 0, eager: seed % 4 == 1, passthrough: seed % 4 == 3, encrypted: seed / 4 % 2 == 1 };
        world::run(row, mode)
    });
}

#[test]
fn whatever_is_done_with_a_mount_looks_as_in_a_plain_directory() {
    if kit::program::can_mount() && rustix::process::geteuid().is_root() {
        cases(MOUNTED_CASES, LENGTH, |seed, row| mounted::run(row, seed % 2 == 1, seed % 4 >= 2));
    }
}

/// Rows that once failed.
fn holds(mode: Mode, row: &[Op]) {
    if let Some(why) = failure(row, |row| world::run(row, mode)) {
        panic!("{why}");
    }
}

#[test]
fn only_a_directory_takes_a_default_access_list() {
    let value = Value::Long([3, 2, 4, 4, 2]);
    let set = |on| Op::SetXattr { on: On::Name(on), name: 4, value, mode: XattrMode::Set };
    holds(Mode::default(), &[set(At(0, 1)), set(At(0, 3)), Op::Compare]);
}

#[test]
fn a_rename_that_must_not_replace_says_first_that_the_name_exists() {
    // A directory into itself, and two names of one file.
    let rename = |from, to| Op::Rename { from, to, mode: RenameMode::NoReplace };
    holds(Mode::default(), &[rename(At(0, 3), At(1, 5)), rename(At(0, 1), At(1, 1))]);
}

#[test]
fn a_new_owner_leaves_a_directorys_capabilities() {
    let on = On::Name(At(0, 3));
    let change = Change { user: Some(5), kill_privileges: true, ..Change::default() };
    let set = Op::SetXattr { on, name: 2, value: Value::Bytes(20), mode: XattrMode::Set };
    holds(Mode::default(), &[set, Op::Set { on, change }, Op::Compare]);
}

#[test]
fn a_length_set_by_path_does_not_hand_the_file_to_the_kernel() {
    let at = At(0, 4);
    let change = Change { size: Some(1_538_525), ..Change::default() };
    let make = Op::Make { at, permissions: 0o104, umask: 0, kind: Kind::File };
    holds(Mode { passthrough: true, ..Mode::default() }, &[make, Op::Set { on: On::Name(at), change }]);
}

#[test]
fn an_access_list_that_is_not_there_can_be_removed() {
    let row = [3, 4].map(|name| Op::RemoveXattr { on: On::Name(At(0, 1)), name });
    holds(Mode::default(), &row);
    let attribute = Op::RemoveXattr { on: On::Name(At(0, 1)), name: 0 };
    holds(Mode::default(), &[attribute]);
    if kit::program::can_mount() && rustix::process::geteuid().is_root() {
        mounted::run(&row, false, false).unwrap();
    }
}
