//! Speed of small files and of the mount, each figure as a ratio to a
//! baseline that is measured in the same run on the same disk:
//!
//! ```text
//! cargo bench --bench mount -- [DIRECTORY] [files=20000] [big=2048] [names=1000000] [rounds=3] [only=small,big,names]
//! cargo bench --bench mount -- [DIRECTORY] only=write [write=4096] [create=10000] [clone=20000] [entries=1000000] [part=a,b,c,d,e,f]
//! cargo bench --bench mount -- [DIRECTORY] only=encoded [big=2048] [rounds=3]
//! ```
//!
//! DIRECTORY is on the disk to be measured (default: the temporary directory);
//! `big` and `write` are in MiB; a size of 0 leaves that part out. `write` is
//! measured when it is asked for. Root is needed for cold
//! figures (it drops the page cache), `borg` for its comparison.
//!
//! Baselines and ours are taken alternately, `rounds` times; the table shows
//! the medians, and as ratio the median of the rounds' ratios.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod big;
mod encoded;
mod names;
#[path = "../../platform/fuse/examples/passthrough.rs"]
mod passthrough;
mod small;
mod tools;
mod write;

use std::path::PathBuf;
use tools::Table;

/// What the command line asks for.
pub struct Settings {
    /// Where everything is written; deleted at the end.
    pub dir: PathBuf,
    /// Small files.
    pub files: usize,
    /// Length of the big file, MiB.
    pub big: u64,
    /// Files in the archive that is listed.
    pub names: usize,
    /// How often each figure is taken.
    pub rounds: usize,
    /// Sizes of what is written.
    pub write: write::Sizes,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    if args.first().is_some_and(|first| first == "passthrough") {
        return passthrough::main();
    }
    let option = |name: &str| args.iter().find_map(|arg| arg.strip_prefix(name)?.strip_prefix('='));
    let number = |name: &str, default: usize| option(name).map_or(default, |text| text.parse().expect("a number"));
    let base = args.iter().find(|arg| !arg.contains('=')).map_or_else(std::env::temp_dir, PathBuf::from);
    let settings = Settings {
        dir: base.join("blockframe-bench-mount"),
        files: number("files", 20_000),
        big: number("big", 2048) as u64,
        names: number("names", 1_000_000),
        rounds: number("rounds", 3).max(1),
        write: write::Sizes {
            file: number("write", 4096) as u64,
            create: number("create", 10_000),
            clone: number("clone", 20_000),
            entries: number("entries", 1_000_000),
            parts: option("part").map_or_else(|| "abcdef".into(), str::to_owned),
        },
    };
    let wanted = |part: &str| option("only").is_none_or(|parts| parts.split(',').any(|one| one == part));
    let _ = std::fs::remove_dir_all(&settings.dir);
    std::fs::create_dir_all(&settings.dir).unwrap();
    let mut table = Table::default();
    if wanted("small") && settings.files > 0 {
        small::measure(&settings, &mut table);
    }
    if wanted("big") && settings.big > 0 {
        big::measure(&settings, &mut table);
    }
    if wanted("names") && settings.names > 0 {
        names::measure(&settings, &mut table);
    }
    if option("only").is_some_and(|parts| parts.split(',').any(|one| one == "encoded")) {
        encoded::measure(&settings, &mut table);
    }
    if option("only").is_some_and(|parts| parts.split(',').any(|one| one == "write")) {
        write::measure(&settings, &mut table);
    }
    std::fs::remove_dir_all(&settings.dir).unwrap();
    table.print();
}
