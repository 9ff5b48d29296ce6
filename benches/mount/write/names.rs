//! Creating, listing and removing names.

use super::{Bed, Side, alternate, available, rows};
use crate::Settings;
use crate::tools::{Dice, Figure, Table, drop_caches, timed};
use std::fs::{self, File};
use std::io::Write;

/// Creates small files in one directory, then removes all.
pub fn create_and_remove(settings: &Settings, table: &mut Table) {
    let count = settings.write.create;
    let sides = available(&[Side::Ours, Side::Passthrough("refresh backing"), Side::Gocryptfs, Side::Plain]);
    let mut content = [0; 4096];
    Dice::new(4).fill(&mut content);
    let takes = alternate(settings, &sides, &|bed| {
        let top = bed.top.join("files");
        fs::create_dir(&top).unwrap();
        let create = || {
            for number in 0..count {
                File::create_new(top.join(format!("file-{number:06}"))).unwrap().write_all(&content).unwrap();
            }
        };
        let created = timed(bed.mount.as_ref(), create);
        vec![created, timed(bed.mount.as_ref(), || fs::remove_dir_all(&top).unwrap())]
    });
    let what = [format!("create, write 4 KiB, close of {count} files"), format!("rm -r of {count} files")];
    rows(table, &what, &sides, &takes, "stated");
}

/// One directory with very many entries.
pub fn large_directory(settings: &Settings, table: &mut Table) {
    let count = settings.write.entries;
    let bed = Bed::new(settings, Side::Ours);
    let top = bed.top.join("many");
    fs::create_dir(&top).unwrap();
    let path = |number: u64| top.join(format!("entry-{number:08}"));
    let created = timed(bed.mount.as_ref(), || {
        for number in 0..count as u64 {
            File::create_new(path(number)).unwrap();
        }
    });
    let list = || assert_eq!(fs::read_dir(&top).unwrap().count(), count);
    let first = timed(bed.mount.as_ref(), list);
    drop_caches();
    let cold = timed(bed.mount.as_ref(), list);
    drop_caches();
    let lookups = 10_000;
    let mut dice = Dice::new(5);
    let looked = timed(bed.mount.as_ref(), || {
        for _ in 0..lookups {
            fs::symlink_metadata(path(dice.below(count as u64))).unwrap();
        }
    });
    let mut row = |what: String, figure: &Figure, done: usize| {
        let rate = format!("{:.0}/s", done as f64 / figure.seconds);
        table.row(&what, figure.show(), String::new(), rate, "stated");
    };
    row(format!("{count} empty files created in one directory"), &created, count);
    row("the directory listed".into(), &first, count);
    row("the directory listed, caches dropped".into(), &cold, count);
    row(format!("{lookups} random lookups in it, caches dropped"), &looked, lookups);
    let memory = bed.mount.as_ref().unwrap().memory();
    let shown = format!("{} MiB (peak {})", memory.1, memory.0);
    table.row("memory of the daemon after it", shown, String::new(), String::new(), "< 512 MiB");
}
