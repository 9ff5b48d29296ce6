//! One big file: sequential and random reads, against the bare pass-through filesystem.

use crate::Settings;
use crate::tools::{Dice, Figure, Mount, Table, blockframe, drop_caches, init, read_through, run, timed, write_random};
use blockframe::base::LEAF_SIZE;
use rustix::fs::{Advice, Mode, OFlags};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Of so many pages one is read at random: few enough that most are not cached.
pub const RANDOM_SHARE: u64 = 32;

/// A big file, plain and in an archive, and where to mount either.
struct Bed<'a> {
    settings: &'a Settings,
    /// Holds the plain file alone.
    plain: PathBuf,
    archive: PathBuf,
    point: PathBuf,
}

/// Who serves the file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Ours,
    Passthrough(&'static str),
}

const PASSTHROUGH: Side = Side::Passthrough("refresh");

impl Bed<'_> {
    fn mount(&self, side: Side) -> Mount {
        match side {
            Side::Ours => Mount::archive(&self.archive, &self.point),
            Side::Passthrough(cache) => Mount::passthrough(&self.plain, &self.point, cache),
        }
    }

    fn file(&self) -> PathBuf {
        self.point.join("big")
    }

    /// Both sides alternately, each on a fresh mount.
    fn alternate(&self, side: [Side; 2], prepare: &dyn Fn(Side, &Mount), work: &dyn Fn(&Path)) -> [Vec<Figure>; 2] {
        let mut takes = [Vec::new(), Vec::new()];
        for round in 0..self.settings.rounds {
            // Each side is the first in every other round.
            for at in if round % 2 == 0 { [0, 1] } else { [1, 0] } {
                drop_caches();
                let mount = self.mount(side[at]);
                prepare(side[at], &mount);
                takes[at].push(timed(Some(&mount), || work(&self.file())));
            }
        }
        takes
    }

    /// Brings the store's files, or the plain one, into the page cache, and
    /// nothing of the mount's.
    fn warm_store(&self, side: Side) {
        match side {
            Side::Ours => walk(&self.archive),
            Side::Passthrough(_) => read_through(&self.plain.join("big")),
        }
    }
}

fn walk(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            walk(&entry.path());
        } else {
            read_through(&entry.path());
        }
    }
}

/// All figures of this part.
pub fn measure(settings: &Settings, table: &mut Table) {
    let dir = &settings.dir;
    let bed = Bed { settings, plain: dir.join("plain"), archive: dir.join("big-archive"), point: dir.join("mnt") };
    fs::create_dir_all(&bed.plain).unwrap();
    let plain = bed.plain.join("big");
    write_random(&plain, settings.big << 20, &mut Dice::new(2));
    init(&bed.archive, "classic");
    run(blockframe().arg("--archive").arg(&bed.archive).arg("commit").arg(&plain));
    sequential(&bed, table);
    page_cache(&bed, table);
    random(&bed, table);
    fs::remove_dir_all(&bed.plain).unwrap();
    fs::remove_dir_all(&bed.archive).unwrap();
}

fn sequential(bed: &Bed<'_>, table: &mut Table) {
    let mib = bed.settings.big;
    let sides = [Side::Ours, PASSTHROUGH];
    let [ours, theirs] = bed.alternate(sides, &|_, _| (), &|file| read_through(file));
    table.rate(&format!("read {mib} MiB, disk cold, against pass-through"), &ours, &theirs, ">= 0.9");
    let warm = |side: Side, _: &Mount| bed.warm_store(side);
    let [ours, theirs] = bed.alternate(sides, &warm, &|file| read_through(file));
    table.rate(&format!("read {mib} MiB, store in the page cache, against pass-through"), &ours, &theirs, ">= 0.65");
}

/// What the kernel's own cache, and bypassing it, buy.
fn page_cache(bed: &Bed<'_>, table: &mut Table) {
    let once = |side: Side, _: &Mount| {
        bed.warm_store(side);
        read_through(&bed.file());
    };
    let sides = [Side::Ours, Side::Passthrough("keep")];
    let [ours, theirs] = bed.alternate(sides, &once, &|file| read_through(file));
    table.rate(
        "read again (KEEP_CACHE), against pass-through with KEEP_CACHE",
        &ours,
        &theirs,
        "the page cache's speed",
    );
    let warm = |side: Side, _: &Mount| bed.warm_store(side);
    let sides = [Side::Ours, Side::Passthrough("bypass")];
    let [ours, theirs] = bed.alternate(sides, &warm, &|file| direct(file, 1 << 20));
    table.rate("read once past the kernel's cache (O_DIRECT, 1 MiB), against pass-through", &ours, &theirs, "stated");
}

/// Reads a file with `O_DIRECT`, which on a FUSE mount does what `FOPEN_DIRECT_IO` does.
fn direct(path: &Path, step: usize) {
    let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).unwrap());
    let mut buffer = memmap2::MmapMut::map_anon(step).unwrap();
    let mut at = 0;
    loop {
        match file.read_at(&mut buffer, at).unwrap() {
            0 => return,
            count => at += count as u64,
        }
    }
}

fn random(bed: &Bed<'_>, table: &mut Table) {
    let len = bed.settings.big << 20;
    for jobs in [1, 4] {
        // The third: what this disk makes of the 16 KiB that have to be read to verify 4.
        let mut takes = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
        for round in 0..bed.settings.rounds as u64 {
            for (side, takes) in [Side::Ours, PASSTHROUGH].into_iter().zip(&mut takes) {
                drop_caches();
                let mount = bed.mount(side);
                takes.push(timed(Some(&mount), || random_reads(&bed.file(), len, 4096, jobs, round)));
            }
            for (step, takes) in [LEAF_SIZE, 4096].into_iter().zip(&mut takes[2..]) {
                drop_caches();
                takes.push(timed(None, || random_reads(&bed.plain.join("big"), len, step, jobs, round)));
            }
        }
        let [ours, theirs, leaves, pages] = takes;
        let count = len / 4096 / RANDOM_SHARE;
        let what = format!("{count} random reads of 4 KiB, cold, {jobs} at a time, against pass-through");
        table.rate(&what, &ours, &theirs, ">= 0.8");
        let what = format!("the disk itself, {jobs} at a time: 16 KiB (a leaf) against 4 KiB");
        table.rate(&what, &leaves, &pages, "stated");
    }
}

/// Reads at random places.
pub fn random_reads(path: &Path, len: u64, step: u64, jobs: u64, seed: u64) {
    let count = (len / 4096 / RANDOM_SHARE / jobs).max(1);
    let work = |job: u64| {
        let file = File::open(path).unwrap();
        rustix::fs::fadvise(&file, 0, None, Advice::Random).unwrap();
        let mut dice = Dice::new(100 * seed + job);
        let mut buffer = vec![0; step as usize];
        for _ in 0..count {
            file.read_exact_at(&mut buffer, dice.below(len / step) * step).unwrap();
        }
    };
    std::thread::scope(|scope| {
        for job in 0..jobs {
            scope.spawn(move || work(job));
        }
    });
}
