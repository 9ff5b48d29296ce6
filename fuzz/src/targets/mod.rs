//! What the targets do. Each has a function `run`, which panics when a promise is broken, and `seeds`, inputs to begin
//! with. Where the format has a checksum, `run` computes it over its input first (`reseal`): mutations have to get past
//! it, as those of somebody who writes to a store would.

pub mod bundle;
pub mod catalog;
pub mod compress;
pub mod config;
pub mod control;
pub mod descriptor;
mod encoded;
pub mod entry;
pub mod journal;
pub mod key_ring;
pub mod manifest;
pub mod names;
pub mod paper;
pub mod record;
mod reseal;
pub mod sealed_manifest;
pub mod sealed_segment;
pub mod staged;
pub mod tree;
pub mod units;

/// One target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its libFuzzer program.
    pub name: &'static str,
    /// What it does with an input.
    pub run: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

macro_rules! targets {
    ($($name:ident),* $(,)?) => {
        /// All of them.
        pub const ALL: &[Target] =
            &[$(Target { name: stringify!($name), run: $name::run, seeds: $name::seeds }),*];
    };
}

targets!(
    bundle,
    catalog,
    compress,
    config,
    control,
    descriptor,
    entry,
    journal,
    key_ring,
    manifest,
    names,
    paper,
    record,
    sealed_manifest,
    sealed_segment,
    staged,
    tree,
    units,
);
