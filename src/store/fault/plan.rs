//! Which operations go wrong, and how.

use super::Operation;
use crate::store::StoreErrorKind;
use crate::store::random::Random;

/// A text with `*` for any run of characters, `/` included.
#[derive(Debug, Clone, PartialEq, Eq)]
struct KeyPattern(String);

impl KeyPattern {
    fn matches(&self, key: &str) -> bool {
        let Some((first, rest)) = self.0.split_once('*') else { return self.0 == key };
        let Some(mut key) = key.strip_prefix(first) else { return false };
        let mut pieces: Vec<&str> = rest.split('*').collect();
        let last = pieces.pop().unwrap_or_default();
        for piece in pieces {
            let Some(at) = key.find(piece) else { return false };
            key = &key[at + piece.len()..];
        }
        key.ends_with(last)
    }
}

/// What happens to an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Fail(StoreErrorKind),
    FailAfter(StoreErrorKind),
    FlipBit,
    Truncate(u64),
    Tear,
}

/// What a store does wrong, to which operations, and when.
///
/// ```
/// use blockframe::store::{Fault, Operation, StoreErrorKind};
///
/// // The third read of a parity file fails, and each one after it.
/// let bad_sector = Fault::fail(StoreErrorKind::Io).on(&Operation::READS).at("*/parity/*").from_nth(3);
/// // The next sync fails, once.
/// let lost_write = Fault::fail(StoreErrorKind::Io).on(&[Operation::Sync]).times(1);
/// # let _ = (bad_sector, lost_write);
/// ```
#[derive(Debug, Clone)]
pub struct Fault {
    effect: Effect,
    operations: Vec<Operation>,
    pattern: Option<KeyPattern>,
    /// Matching operations that pass before the first one is hit.
    skip: u64,
    /// How many more are hit; `None`: all.
    left: Option<u64>,
    /// Of a thousand that could be hit, how many are.
    per_mille: u64,
}

impl Fault {
    /// The operation fails and does nothing.
    pub fn fail(kind: StoreErrorKind) -> Self {
        Self::new(Effect::Fail(kind), &Operation::ALL)
    }

    /// The operation does its work and then reports a failure, as when the
    /// answer of a remote store is lost.
    pub fn fail_after(kind: StoreErrorKind) -> Self {
        Self::new(Effect::FailAfter(kind), &Operation::ALL)
    }

    /// One bit of what is read is wrong, another one each time.
    pub fn flip_bit() -> Self {
        Self::new(Effect::FlipBit, &Operation::READS)
    }

    /// Files look as if they were cut to `len` bytes.
    pub fn truncate(len: u64) -> Self {
        Self::new(Effect::Truncate(len), &Operation::READS)
    }

    /// Files look as if they were not there, to all that reads.
    pub fn missing() -> Self {
        Self::new(Effect::Fail(StoreErrorKind::NotFound), &Operation::READS)
    }

    /// Of what is written a random first part arrives, then the store fails
    /// with an I/O error. Whole files ([`Operation::Write`]) come whole or not at all.
    pub fn tear() -> Self {
        Self::new(Effect::Tear, &[Operation::WriteAt, Operation::WriteRange])
    }

    fn new(effect: Effect, operations: &[Operation]) -> Self {
        Self { effect, operations: operations.to_vec(), pattern: None, skip: 0, left: None, per_mille: 1000 }
    }

    /// Hits these operations alone.
    pub fn on(mut self, operations: &[Operation]) -> Self {
        self.operations = operations.to_vec();
        self
    }

    /// Hits keys of this pattern alone: `*` stands for any run of characters, `/` included.
    pub fn at(mut self, pattern: &str) -> Self {
        self.pattern = Some(KeyPattern(pattern.to_string()));
        self
    }

    /// Hits the `n`-th matching operation from now on, the first being 1, and those after it.
    pub fn from_nth(mut self, n: u64) -> Self {
        self.skip = n.saturating_sub(1);
        self
    }

    /// Hits so many operations; then the store is well again.
    pub fn times(mut self, times: u64) -> Self {
        self.left = Some(times);
        self
    }

    /// Hits, by the store's seed, so many of a thousand that would be hit.
    pub fn per_mille(mut self, per_mille: u64) -> Self {
        self.per_mille = per_mille;
        self
    }

    fn hits(&mut self, operation: Operation, key: &str, random: &mut Random) -> bool {
        let matches = self.operations.contains(&operation) && self.pattern.as_ref().is_none_or(|p| p.matches(key));
        if !matches || self.left == Some(0) {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        if self.per_mille < 1000 && random.below(1000) >= self.per_mille {
            return false;
        }
        self.left = self.left.map(|left| left - 1);
        true
    }
}

/// What is to happen to one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Proceed,
    Fail(StoreErrorKind),
    FailAfter(StoreErrorKind),
    /// The number chooses the bit.
    FlipBit(u64),
    Truncate(u64),
    /// The number chooses the length that arrives.
    Tear(u64),
}

/// The faults of a store.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) faults: Vec<Fault>,
    /// Bytes that may still be written; `None`: any number.
    pub(super) space_left: Option<u64>,
    random: Random,
}

impl Plan {
    pub(super) fn new(seed: u64) -> Self {
        Self { faults: Vec::new(), space_left: None, random: Random::new(seed) }
    }

    /// What happens to an operation that would write `new_bytes` more. Of the
    /// faults that match, the first decides; the others do not count it.
    pub(super) fn decide(&mut self, operation: Operation, key: &str, new_bytes: u64) -> Verdict {
        for fault in &mut self.faults {
            if fault.hits(operation, key, &mut self.random) {
                return match fault.effect {
                    Effect::Fail(kind) => Verdict::Fail(kind),
                    Effect::FailAfter(kind) => Verdict::FailAfter(kind),
                    Effect::FlipBit => Verdict::FlipBit(self.random.next()),
                    Effect::Truncate(len) => Verdict::Truncate(len),
                    Effect::Tear => Verdict::Tear(self.random.next()),
                };
            }
        }
        match self.space_left.as_mut() {
            None => Verdict::Proceed,
            Some(left) => match left.checked_sub(new_bytes) {
                Some(rest) => {
                    *left = rest;
                    Verdict::Proceed
                }
                None => Verdict::Fail(StoreErrorKind::NoSpace),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_as_it_reads() {
        for (pattern, key, wanted) in [
            ("a/b", "a/b", true),
            ("a/b", "a/bc", false),
            ("*", "", true),
            ("*.dat", "a/b.dat", true),
            ("*.dat", "a/b.data", false),
            ("a*", "ba", false),
            ("*/parity/*", "x/parity/1", true),
            ("*/parity/*", "parity/1", false),
            ("a*b*a", "aba", true),
            ("a*b*a", "ab", false),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(KeyPattern(pattern.to_string()).matches(key), wanted, "{pattern} on {key}");
        }
    }

    #[test]
    fn the_nth_matching_operation_is_hit_so_many_times() {
        let mut plan = Plan::new(1);
        plan.faults.push(Fault::fail(StoreErrorKind::Io).on(&[Operation::Sync]).at("a*").from_nth(3).times(2));
        let mut hit = Vec::new();
        for n in 1..=6 {
            assert_eq!(plan.decide(Operation::Sync, "b", 0), Verdict::Proceed);
            assert_eq!(plan.decide(Operation::Read, "a", 0), Verdict::Proceed);
            if plan.decide(Operation::Sync, "a", 0) == Verdict::Fail(StoreErrorKind::Io) {
                hit.push(n);
            }
        }
        assert_eq!(hit, [3, 4]);
    }

    #[test]
    fn chance_follows_the_seed() {
        let run = |seed| {
            let mut plan = Plan::new(seed);
            plan.faults.push(Fault::fail(StoreErrorKind::Io).per_mille(300));
            (0..1000).map(|_| plan.decide(Operation::Read, "k", 0) == Verdict::Proceed).collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        let passed = run(1).into_iter().filter(|&passed| passed).count();
        assert!((600..800).contains(&passed), "{passed}");
    }
}
