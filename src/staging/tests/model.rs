//! A file behaves as a vector of bytes does, and what was published comes
//! back after a crash, byte for byte.

use super::*;
use crate::staging::{FrozenContent, Published, Source};
use proptest::prelude::*;
use proptest::sample::Index;

const BASE: usize = 150_000;
const LONGEST: u64 = 400_000;

#[derive(Debug, Clone)]
enum Step {
    Write {
        at: u64,
        len: usize,
    },
    Truncate(u64),
    Hole {
        at: u64,
        len: u64,
    },
    Allocate {
        at: u64,
        len: u64,
    },
    Publish,
    /// The journal durably has one of the states published since the last that it has.
    Durable(Index),
    Freeze,
    Thaw(Index),
    /// The process ends; the journal has one of the states it may have.
    Crash(Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Small and large, so that pieces break up and room becomes large enough to be given back.
    let len = prop_oneof![1u64..200, 1u64..9000, 60_000u64..140_000];
    let at = prop_oneof![0..LONGEST - 140_000, (0u64..60).prop_map(|page| page * 4096)];
    let step = prop_oneof![
        8 => (at.clone(), len.clone()).prop_map(|(at, len)| Step::Write { at, len: len as usize }),
        1 => (0..LONGEST).prop_map(Step::Truncate),
        2 => (at.clone(), len.clone()).prop_map(|(at, len)| Step::Hole { at, len }),
        1 => (at, len).prop_map(|(at, len)| Step::Allocate { at, len }),
        3 => Just(Step::Publish),
        2 => any::<Index>().prop_map(Step::Durable),
        1 => Just(Step::Freeze),
        1 => any::<Index>().prop_map(Step::Thaw),
        1 => any::<Index>().prop_map(Step::Crash),
    ];
    proptest::collection::vec(step, 1..60)
}

struct World {
    directory: tempfile::TempDir,
    area: Arc<StagingArea>,
    file: Option<StagedFile>,
    base: Vec<u8>,
    /// What the file has to hold.
    model: Vec<u8>,
    /// States that the journal may have: the durable one and all published since.
    published: Vec<(Published, Vec<u8>)>,
    frozen: Vec<(FrozenContent, Vec<u8>)>,
    written: u32,
}

impl World {
    fn new(base_len: usize) -> Self {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let area = open(directory.path());
        let base: Vec<u8> = (0..base_len).map(|at| (at % 251) as u8 | 1).collect();
        let file = Some(area.create(base_len as u64).unwrap());
        let (published, frozen) = (Vec::new(), Vec::new());
        Self { directory, area, file, model: base.clone(), base, published, frozen, written: 0 }
    }

    fn file(&self) -> &StagedFile {
        self.file.as_ref().unwrap()
    }

    fn grow(&mut self, len: usize) {
        let len = len.max(self.model.len());
        self.model.resize(len, 0);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Write { at, len } => {
                self.written += 1;
                let seed = self.written;
                let data: Vec<u8> = (0..len).map(|at| (at as u32 * 31 + seed * 7919) as u8).collect();
                self.file().write(at, &data).unwrap();
                self.grow(at as usize + len);
                self.model[at as usize..at as usize + len].copy_from_slice(&data);
            }
            Step::Truncate(len) => {
                self.file().truncate(len).unwrap();
                self.model.resize(len as usize, 0);
            }
            Step::Hole { at, len } => {
                self.file().make_hole(range(at, at + len)).unwrap();
                let end = self.model.len();
                self.model[end.min(at as usize)..end.min((at + len) as usize)].fill(0);
            }
            Step::Allocate { at, len } => self.file().allocate(range(at, at + len)).unwrap(),
            Step::Publish => {
                let published = self.file().publish().unwrap();
                self.file().sync().unwrap();
                self.published.push((published, self.model.clone()));
            }
            Step::Durable(which) if !self.published.is_empty() => {
                let which = which.index(self.published.len());
                self.file().published_is_durable(self.published[which].0.generation);
                self.published.drain(..which);
            }
            Step::Freeze if !self.published.is_empty() => {
                let newest = self.published.last().unwrap().1.clone();
                self.frozen.push((self.file().freeze().unwrap(), newest));
            }
            Step::Thaw(which) if !self.frozen.is_empty() => {
                self.frozen.swap_remove(which.index(self.frozen.len()));
            }
            Step::Crash(which) if !self.published.is_empty() => {
                self.frozen.clear();
                self.file = None;
                self.area = open(self.directory.path());
                let (published, model) = self.published.swap_remove(which.index(self.published.len()));
                let file = self.area.recover(&published.content).unwrap();
                assert_eq!(self.area.discard_unclaimed().unwrap(), 0);
                // Generations are counted anew; nothing changed, so this is the state that was recovered.
                let again = file.publish().unwrap();
                assert_eq!(again.content, published.content);
                (self.file, self.model) = (Some(file), model.clone());
                self.published = vec![(again, model)];
            }
            _ => {}
        }
    }

    fn read(
        &self,
        read: impl Fn(&mut [u8], &mut dyn FnMut(ContentRange, &mut [u8]) -> Result<(), StagingError>) -> usize,
    ) -> Vec<u8> {
        let mut bytes = vec![0xEE; LONGEST as usize];
        let mut base = |range: ContentRange, buffer: &mut [u8]| {
            buffer.copy_from_slice(&self.base[range.start() as usize..range.end() as usize]);
            Ok(())
        };
        let len = read(&mut bytes, &mut base);
        bytes.truncate(len);
        bytes
    }

    fn check(&self) {
        let file = self.file();
        assert_eq!(file.size(), self.model.len() as u64);
        let now = self.read(|bytes, base| file.read(0, bytes, base).unwrap());
        assert!(now == self.model, "differs at {:?}", (0..now.len()).find(|&at| now.get(at) != self.model.get(at)));
        for (frozen, model) in &self.frozen {
            assert!(self.read(|bytes, base| frozen.read(0, bytes, base).unwrap()) == *model, "frozen content differs");
            self.check_sources(frozen, model);
        }
        self.check_seek();
    }

    fn check_sources(&self, frozen: &FrozenContent, model: &[u8]) {
        let mut at = 0;
        for (range, source) in frozen.sources() {
            assert_eq!(range.start(), at);
            let bytes = range.start() as usize..range.end() as usize;
            match source {
                Source::Staged => {}
                Source::Base => assert!(model[bytes.clone()] == self.base[bytes]),
                Source::Zeros => assert!(model[bytes].iter().all(|&byte| byte == 0)),
            }
            at = range.end();
        }
        assert_eq!(at, frozen.size());
    }

    /// What a seek calls a hole is zeros; the answers walk through the file.
    fn check_seek(&self) {
        let base_len = self.base.len() as u64;
        let base_seek = |at: u64, data: bool| if data { Some(at).filter(|&at| at < base_len) } else { Some(base_len) };
        let size = self.model.len() as u64;
        let mut at = 0;
        while at < size {
            let data = self.file().seek(at, true, &base_seek).unwrap_or(size);
            assert!(data >= at && self.model[at as usize..data as usize].iter().all(|&byte| byte == 0));
            if data == size {
                break;
            }
            at = self.file().seek(data, false, &base_seek).unwrap();
            assert!(at > data && at <= size);
        }
        assert_eq!(self.file().seek(size, false, &base_seek), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn a_file_is_a_vector_of_bytes_and_every_published_state_survives(with_base: bool, steps in steps()) {
        let mut world = World::new(if with_base { BASE } else { 0 });
        for step in steps {
            world.step(step);
            world.check();
        }
    }
}
