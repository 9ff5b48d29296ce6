//! An area of an archive that is not encrypted.

#[path = "../area.rs"]
#[allow(clippy::duplicate_mod, reason = "the same promises, kept by two kinds of areas")]
mod area;
#[path = "../faults.rs"]
#[allow(clippy::duplicate_mod, reason = "the same promises, kept by two kinds of areas")]
mod faults;
#[path = "../file.rs"]
#[allow(clippy::duplicate_mod, reason = "the same promises, kept by two kinds of areas")]
mod file;
#[path = "../in_place.rs"]
mod in_place;
#[path = "../model.rs"]
#[allow(clippy::duplicate_mod, reason = "the same promises, kept by two kinds of areas")]
mod model;
#[path = "../pace.rs"]
#[allow(clippy::duplicate_mod, reason = "the same promises, kept by two kinds of areas")]
mod pace;

use super::*;

fn keys() -> Option<StagingKeys> {
    None
}

fn open(directory: &Path) -> Arc<StagingArea> {
    open_limited(directory, PLENTY)
}

fn open_limited(directory: &Path, limits: StagingLimits) -> Arc<StagingArea> {
    StagingArea::open(directory, limits, keys()).unwrap()
}
