//! The fuzz targets with their seeds and some thousand mutations of these: the same promises as `fuzz/run.sh` looks for
//! hours at, in seconds. `BLOCKFRAME_SEED=N` repeats the round that a failure named, `BLOCKFRAME_CASES=N` makes N
//! mutations instead.
#![allow(clippy::unwrap_used)]

#[path = "../fuzz/src/targets/mod.rs"]
mod targets;

use blockframe::base::{Clock as _, SystemClock};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A small generator of numbers (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        if limit == 0 { 0 } else { (self.next() % limit as u64) as usize }
    }
}

/// Bytes that parsers stumble over.
const ODD: [&[u8]; 8] = [
    &[0],
    &[0xff],
    &[0x7f],
    &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
    b"18446744073709551615",
    b"-1",
    b"null",
];

fn mutate(input: &mut Vec<u8>, others: &[Vec<u8>], random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(input.len() + 1);
        let end = (at + 1 + random.below(16)).min(input.len());
        match random.below(7) {
            0 if at < input.len() => input[at] ^= 1 << random.below(8),
            1 if at < input.len() => input[at] = random.next() as u8,
            2 => input.truncate(at),
            3 if at < end => drop(input.drain(at..end)),
            4 if at < end => {
                let piece = input[at..end].to_vec();
                input.splice(at..at, piece);
            }
            5 => {
                let other = &others[random.below(others.len())];
                let from = random.below(other.len() + 1);
                let to = (from + 1 + random.below(64)).min(other.len());
                input.splice(at..at, other[from..to].iter().copied());
            }
            _ => drop(input.splice(at..end.min(at + random.below(3)), ODD[random.below(ODD.len())].iter().copied())),
        }
    }
}

fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn check(name: &str, cases: u64) {
    let target = targets::ALL.iter().find(|target| target.name == name).unwrap();
    let seeds = (target.seeds)();
    for (number, seed) in seeds.iter().enumerate() {
        let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(seed)));
        assert!(outcome.is_ok(), "{name}: its seed {number} breaks a promise");
    }
    let now = SystemClock.now();
    let time = (now.seconds as u64).wrapping_mul(1_000_000_000).wrapping_add(now.nanoseconds.into());
    let first = number_of("BLOCKFRAME_SEED").unwrap_or(time);
    let cases = number_of("BLOCKFRAME_CASES").unwrap_or(cases);
    for case in 0..cases {
        // Each case has a number of its own, which repeats it as the first one.
        let number = first.wrapping_add(case);
        let mut random = Random(blake3_of(number));
        let mut input = seeds[random.below(seeds.len())].clone();
        mutate(&mut input, &seeds, &mut random);
        let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(&input)));
        let hint = "repeats it, where the sources are as they were";
        assert!(outcome.is_ok(), "{name}: BLOCKFRAME_SEED={number} {hint}; input {}", hex::encode(&input));
    }
}

fn blake3_of(number: u64) -> u64 {
    let hash = blake3::hash(&number.to_le_bytes());
    u64::from_le_bytes(*hash.as_bytes().first_chunk().unwrap()) | 1
}

macro_rules! held {
    ($($target:ident: $cases:literal),* $(,)?) => {
        $(#[test] fn $target() { check(stringify!($target), $cases); })*

        #[test]
        fn every_target_is_held() {
            let held = [$(stringify!($target)),*];
            assert!(targets::ALL.iter().all(|target| held.contains(&target.name)));
        }
    };
}

held! {
    bundle: 5000,
    catalog: 25,
    compress: 1000,
    config: 300,
    control: 5000,
    descriptor: 3000,
    entry: 20000,
    journal: 2000,
    key_ring: 2000,
    manifest: 2000,
    names: 10000,
    paper: 500,
    record: 20000,
    sealed_manifest: 1000,
    sealed_segment: 20000,
    staged: 20000,
    tree: 1000,
    units: 5000,
}
