//! What becomes of what was written: commits in the background.

use super::{Bed, Side};
use crate::Settings;
use crate::tools::{Dice, Table, drop_caches, shell, timed, write_random};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Segments of tier 3, bytes: what a change is counted in.
const SEGMENT: f64 = (32 << 20) as f64;

/// Bytes that one small change of a large committed file costs.
pub fn small_change(settings: &Settings, table: &mut Table) {
    let mib = settings.write.file;
    let bed = Bed::new(settings, Side::Ours);
    let path = bed.top.join("big");
    write_random(&path, mib << 20, &mut Dice::new(8));
    bed.commit();
    drop_caches();
    let mount = bed.mount.as_ref().unwrap();
    let before = mount.io();
    let figure = timed(Some(mount), || {
        let file = File::options().read(true).write(true).open(&path).unwrap();
        file.write_all_at(&[7; 4096], (mib << 19) + 4096).unwrap();
        drop(file);
        bed.commit();
    });
    let after = mount.io();
    let segments = |name: &str| {
        let bytes = (after[name] - before[name]) as f64;
        format!("{:.1} MiB = {:.2} segments", bytes / 1048576.0, bytes / SEGMENT)
    };
    let what = format!("4 KiB changed in a committed file of {mib} MiB");
    table.row(&format!("{what}: read by calls"), segments("rchar"), String::new(), figure.show(), "< 60 segments");
    table.row(&format!("{what}: written by calls"), segments("wchar"), String::new(), String::new(), "< 5 segments");
    table.row(&format!("{what}: read from the disk"), segments("read_bytes"), String::new(), String::new(), "stated");
    table.row(&format!("{what}: written to the disk"), segments("write_bytes"), String::new(), String::new(), "stated");
}

/// Reads 4 KiB at random places until told to end. Returns how long each took, sorted, seconds.
fn reads(path: &Path, len: u64, end: &dyn Fn(usize) -> bool) -> Vec<f64> {
    let file = File::open(path).unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random).unwrap();
    let mut dice = Dice::new(9);
    let (mut took, mut page) = (Vec::new(), [0; 4096]);
    while !end(took.len()) {
        let start = Instant::now();
        file.read_exact_at(&mut page, dice.below(len / 4096) * 4096).unwrap();
        took.push(start.elapsed().as_secs_f64());
    }
    took.sort_by(f64::total_cmp);
    took
}

fn share(sorted: &[f64], part: f64) -> f64 {
    sorted.get(((sorted.len() as f64) * part) as usize).or(sorted.last()).copied().unwrap_or_default() * 1000.0
}

/// How fast written files are committed, and what readers notice of it.
pub fn drain(settings: &Settings, table: &mut Table) {
    let mib = settings.write.file;
    let bed = Bed::new(settings, Side::Ours);
    // Read from while the other is committed.
    let (still, len) = (bed.top.join("still"), (mib << 20).min(1 << 30));
    write_random(&still, len, &mut Dice::new(10));
    bed.commit();
    drop_caches();
    let alone = reads(&still, len, &|count| count >= 2000);
    let dd =
        timed(None, || shell(&bed.root, &format!("dd if=/dev/zero of=dd bs=1M count={mib} conv=fsync 2>/dev/null")));
    shell(&bed.root, "rm dd");
    let mount = bed.mount.as_ref().unwrap();
    let mut beside = Vec::new();
    for (name, with_reads) in [("nothing else done", false), ("random reads beside", true)] {
        write_random(&bed.top.join(format!("new, {name}")), mib << 20, &mut Dice::new(11 + u64::from(with_reads)));
        drop_caches();
        let (before, done) = (mount.io(), AtomicBool::new(!with_reads));
        let figure = std::thread::scope(|scope| {
            let reader = scope.spawn(|| reads(&still, len, &|_| done.load(Ordering::Relaxed)));
            let figure = timed(Some(mount), || bed.commit());
            done.store(true, Ordering::Relaxed);
            beside = reader.join().unwrap();
            figure
        });
        let written = (mount.io()["wchar"] - before["wchar"]) as f64 / 1048576.0;
        let (ours, disk) = (written / figure.seconds, mib as f64 / dd.seconds);
        table.row(
            &format!("{mib} MiB committed in the background, {name}"),
            format!("{ours:.0} MiB/s written ({:.0} MiB/s of content)", mib as f64 / figure.seconds),
            format!("{disk:.0} MiB/s (dd with fsync)"),
            format!("{:.2}; {}", ours / disk, figure.show()),
            "stated",
        );
    }
    for (name, part) in [("median", 0.5), ("p99", 0.99)] {
        let (alone, beside) = (share(&alone, part), share(&beside, part));
        table.row(
            &format!("random read of 4 KiB during a commit, {name}"),
            format!("{beside:.2} ms"),
            format!("{alone:.2} ms without"),
            format!("{:.2} times", beside / alone),
            "stated",
        );
    }
}
