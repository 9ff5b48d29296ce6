//! Fuzzing of everything that BlockFrame parses. `targets` holds what each target does, as plain functions that the
//! program's own tests call too (`tests/fuzz_targets.rs`); `memory` counts what they allocate.

pub mod memory;
pub mod targets;

use std::path::Path;

/// Where a target writes its seeds instead of fuzzing.
pub const SEEDS: &str = "BLOCKFRAME_FUZZ_SEEDS";

/// Writes the seeds of a target, and ends the process, where [`SEEDS`] names a directory.
pub fn write_seeds(target: &str) {
    let Some(directory) = std::env::var_os(SEEDS) else { return };
    let seeds = targets::ALL.iter().find(|known| known.name == target).map(|known| (known.seeds)());
    let write = |(number, seed)| std::fs::write(Path::new(&directory).join(format!("seed-{number}")), seed);
    let written = seeds.unwrap_or_default().iter().enumerate().map(write).collect::<std::io::Result<()>>();
    std::process::exit(match written {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("cannot write seeds: {error}");
            1
        }
    })
}

/// The libFuzzer program of a target: its body, with bounded memory.
#[macro_export]
macro_rules! libfuzzer {
    ($target:ident) => {
        #[global_allocator]
        static ALLOCATOR: $crate::memory::Counting = $crate::memory::Counting;

        libfuzzer_sys::fuzz_target!(
            init: $crate::write_seeds(stringify!($target)),
            |input: &[u8]| $crate::memory::bounded(input.len(), || $crate::targets::$target::run(input))
        );
    };
}
