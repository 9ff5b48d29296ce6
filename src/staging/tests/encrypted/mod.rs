//! The same promises of an area whose files are encrypted.

#[path = "../area.rs"]
#[allow(clippy::duplicate_mod, reason = "the same promises, kept by two kinds of areas")]
mod area;
mod at_rest;
mod disk_file;
#[path = "../faults.rs"]
#[allow(clippy::duplicate_mod, reason = "the same promises, kept by two kinds of areas")]
mod faults;
#[path = "../file.rs"]
#[allow(clippy::duplicate_mod, reason = "the same promises, kept by two kinds of areas")]
mod file;
#[path = "../model.rs"]
#[allow(clippy::duplicate_mod, reason = "the same promises, kept by two kinds of areas")]
mod model;
#[path = "../pace.rs"]
#[allow(clippy::duplicate_mod, reason = "the same promises, kept by two kinds of areas")]
mod pace;
mod units;

use super::*;

fn keys() -> Option<StagingKeys> {
    Some(the_keys())
}

fn open(directory: &Path) -> Arc<StagingArea> {
    open_limited(directory, PLENTY)
}

fn open_limited(directory: &Path, limits: StagingLimits) -> Arc<StagingArea> {
    StagingArea::open(directory, limits, keys()).unwrap()
}
