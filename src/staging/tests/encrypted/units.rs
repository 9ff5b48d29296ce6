//! No unit holds published bytes together with bytes that are written later.

use super::*;
use crate::format::{StagedContent, StagedExtent, StagedMap, StagingId};
use crate::staging::encrypted::UNIT;
use crate::staging::state::{Generation, State};
use proptest::prelude::*;
use proptest::sample::Index;
use std::collections::{BTreeMap, HashSet};

#[derive(Debug, Clone)]
enum Step {
    Write { at: u64, len: u64, fails: bool },
    Truncate(u64),
    Hole { at: u64, len: u64 },
    Reserve { at: u64, len: u64 },
    Publish { long: bool },
    Durable(Index),
    Pin,
    Unpin(Index),
    Recover(Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let len = prop_oneof![1u64..40, 1u64..600];
    let at = 0u64..2000;
    let step = prop_oneof![
        8 => (at.clone(), len.clone(), prop::bool::weighted(0.1)).prop_map(|(at, len, fails)| Step::Write { at, len, fails }),
        1 => at.clone().prop_map(Step::Truncate),
        2 => (at.clone(), len.clone()).prop_map(|(at, len)| Step::Hole { at, len }),
        2 => (at, len).prop_map(|(at, len)| Step::Reserve { at, len }),
        4 => prop::bool::weighted(0.3).prop_map(|long| Step::Publish { long }),
        2 => any::<Index>().prop_map(Step::Durable),
        1 => Just(Step::Pin),
        1 => any::<Index>().prop_map(Step::Unpin),
        1 => any::<Index>().prop_map(Step::Recover),
    ];
    proptest::collection::vec(step, 1..120)
}

/// The units that a published state reads.
fn units(content: &StagedContent, extents: &[StagedExtent]) -> HashSet<u64> {
    let mut ranges: Vec<(u64, u64)> =
        extents.iter().filter_map(|extent| extent.place.map(|place| (place, extent.range.len()))).collect();
    if let StagedMap::InFile { offset, len, .. } = content.map {
        ranges.push((offset, len));
    }
    ranges.iter().flat_map(|&(start, len)| start / UNIT..(start + len).div_ceil(UNIT)).collect()
}

struct Stays {
    content: StagedContent,
    extents: Vec<StagedExtent>,
    units: HashSet<u64>,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn published_units_are_not_written(steps in steps()) {
        let mut state = State::over_base(0, UNIT);
        // What a crash may find, or a reader holds, by generations.
        let mut published: BTreeMap<Generation, Stays> = BTreeMap::new();
        let mut durable = Generation(0);
        let mut pins: Vec<Generation> = Vec::new();
        for step in steps {
            let stays = |pins: &[Generation], durable: Generation, generation: &Generation| {
                *generation >= durable || pins.contains(generation)
            };
            let check = |published: &BTreeMap<Generation, Stays>, pins: &[Generation], durable, start: u64, len: u64| {
                let written: HashSet<u64> = (start / UNIT..(start + len).div_ceil(UNIT)).collect();
                published
                    .iter()
                    .filter(|(generation, _)| stays(pins, durable, generation))
                    .all(|(_, kept)| kept.units.is_disjoint(&written))
            };
            match step {
                Step::Write { at, len, fails } => {
                    let plan = state.plan(range(at, at + len));
                    for planned in &plan {
                        prop_assert!(check(&published, &pins, durable, planned.place, planned.range.len()), "{planned:?}");
                    }
                    if fails { state.not_written(&plan) } else { state.written(&plan) }
                }
                Step::Truncate(len) => state.truncate(len),
                Step::Hole { at, len } => state.make_hole(range(at, at + len)),
                Step::Reserve { at, len } => {
                    let plan = state.plan_reserve(range(at, at + len));
                    state.reserve(&plan);
                }
                Step::Publish { long } => {
                    let extents = state.pieces.extents();
                    let map = if long {
                        let len = 10 * extents.len() as u64 + 1;
                        let offset = state.take_for_map(len);
                        prop_assert!(check(&published, &pins, durable, offset, len));
                        StagedMap::InFile { offset, len, hash: crate::base::Digest::of(b"") }
                    } else {
                        StagedMap::Inline(extents.clone())
                    };
                    let content = StagedContent { file: StagingId::new(1), size: state.size, base_len: 0, map };
                    let boxed = long.then(|| extents.clone().into_boxed_slice());
                    let generation = state.publish(content.clone(), boxed).generation;
                    let units = units(&content, &extents);
                    published.insert(generation, Stays { content, extents, units });
                }
                Step::Durable(which) if !published.is_empty() => {
                    let generation = *published.keys().nth(which.index(published.len())).unwrap();
                    durable = durable.max(generation);
                    state.durable(generation);
                }
                Step::Pin => {
                    if let Some(newest) = published.keys().next_back() {
                        state.pin(*newest);
                        pins.push(*newest);
                    }
                }
                Step::Unpin(which) if !pins.is_empty() => {
                    let generation = pins.swap_remove(which.index(pins.len()));
                    state.unpin(generation);
                }
                Step::Recover(which) => {
                    let open: Vec<Generation> = published.keys().filter(|generation| **generation >= durable).copied().collect();
                    if open.is_empty() {
                        continue;
                    }
                    let kept = published.remove(&open[which.index(open.len())]).unwrap();
                    let long = matches!(kept.content.map, StagedMap::InFile { .. });
                    let found = crate::staging::state::PublishedState {
                        generation: Generation(1),
                        content: kept.content.clone(),
                        long: long.then(|| kept.extents.clone().into_boxed_slice()),
                    };
                    state = State::recovered(found, UNIT).unwrap();
                    (durable, pins) = (Generation(1), Vec::new());
                    published = BTreeMap::from([(Generation(1), kept)]);
                }
                _ => {}
            }
            published.retain(|generation, _| stays(&pins, durable, generation));
        }
    }
}

fn extents(content: &StagedContent) -> usize {
    match &content.map {
        StagedMap::Inline(extents) => extents.len(),
        StagedMap::InFile { .. } => usize::MAX,
    }
}

#[test]
fn what_is_written_one_behind_the_other_is_one_piece_whatever_its_lengths() {
    let directory = tempfile::tempdir().unwrap();
    let file = open(directory.path()).create(0).unwrap();
    let mut expected = Vec::new();
    for round in 0..4 {
        for number in 0..200 {
            let bytes = vec![number as u8 | 1; 1 + number * 7 % 100];
            file.write(expected.len() as u64, &bytes).unwrap();
            expected.extend(bytes);
        }
        // A state that was published stays apart from what comes next.
        let published = publish_durably(&file);
        assert!(extents(&published.content) <= 1 + round, "{:?}", published.content);
    }
    assert_eq!(content(&file), expected);
    let reversed = open(directory.path()).create(0).unwrap();
    for page in (0..100).rev() {
        reversed.write(page * 1000, &[page as u8; 1000]).unwrap();
    }
    assert_eq!(extents(&publish_durably(&reversed).content), 1);
}
