//! Contents: one big file, trees, builds.

use super::{Bed, Side, alternate, rows};
use crate::Settings;
use crate::tools::{Dice, Figure, Table, installed, shell, timed};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

/// Files in one directory of the repository.
const PER_DIRECTORY: usize = 50;

/// Writes a new file in pieces of 1 MiB, the last of them closed.
fn write(path: &Path, mib: u64, also_read: bool) {
    let mut buffer = vec![0; 1 << 20];
    Dice::new(6).fill(&mut buffer);
    let mut file = File::options().write(true).read(also_read).create_new(true).open(path).unwrap();
    for number in 0..mib {
        // No two pieces are the same.
        buffer[..8].copy_from_slice(&number.to_le_bytes());
        file.write_all(&buffer).unwrap();
    }
}

/// A big new file. The kernel serves ours itself when it is opened for writing only.
pub fn big(settings: &Settings, table: &mut Table) {
    let mib = settings.write.file;
    let (served, through) = (Side::Passthrough("refresh backing"), Side::Passthrough("refresh"));
    for (how, also_read, baseline) in
        [("write only: served by the kernel", false, served), ("read and write: through the daemon", true, through)]
    {
        let sides = [Side::Ours, baseline, Side::Plain];
        let takes = alternate(settings, &sides, &|bed: &Bed| {
            vec![timed(bed.mount.as_ref(), || write(&bed.top.join("big"), mib, also_read))]
        });
        rows(table, &[format!("{mib} MiB written and closed, {how}")], &sides, &takes, ">= 0.9");
    }
}

/// Clone, tar x and a build, against the disk's own filesystem.
pub fn trees(settings: &Settings, table: &mut Table) {
    let count = settings.write.clone;
    let source = settings.dir.join("repository");
    make_repository(&source, count);
    shell(&settings.dir, "tar cf tree.tar --exclude=.git repository");
    let from = settings.dir.display().to_string();
    let builds = installed("make") && installed("cc");
    let sides = [Side::Ours, Side::Plain];
    let takes = alternate(settings, &sides, &|bed: &Bed| {
        let step = |line: &str| timed(bed.mount.as_ref(), || shell(&bed.top, line));
        let mut figures: Vec<Figure> = Vec::new();
        figures.push(step(&format!("git clone -q file://{from}/repository clone")));
        figures.push(step(&format!("tar xf {from}/tree.tar")));
        figures.push(step("cd clone && git status --porcelain"));
        if builds {
            figures.push(step("cd repository/build && make -s -j2"));
        }
        figures
    });
    let mut what = vec![
        format!("git clone of {count} files"),
        format!("tar x of {count} files"),
        "git status in the clone".to_owned(),
    ];
    if builds {
        what.push("make of 100 C files".into());
    }
    rows(table, &what, &sides, &takes, "stated");
    fs::remove_dir_all(&source).unwrap();
}

fn make_repository(top: &Path, count: usize) {
    let mut dice = Dice::new(7);
    for number in 0..count {
        let parent = top.join(format!("d{:03}", number / PER_DIRECTORY));
        if number % PER_DIRECTORY == 0 {
            fs::create_dir_all(&parent).unwrap();
        }
        let mut text = vec![0; 200 + dice.below(4000) as usize];
        dice.fill(&mut text);
        fs::write(parent.join(format!("file-{number:06}")), hex::encode(text)).unwrap();
    }
    let build = top.join("build");
    fs::create_dir_all(&build).unwrap();
    for number in 0..100 {
        let text = format!("#include <stdio.h>\nint f{number}(void) {{ return printf(\"%d\", {number}); }}\n");
        fs::write(build.join(format!("f{number}.c")), text).unwrap();
    }
    fs::write(build.join("Makefile"), "lib.a: $(patsubst %.c,%.o,$(wildcard *.c))\n\tar rcs $@ $^\n").unwrap();
    let identity = "-c user.name=a -c user.email=a@example.org -c gc.auto=0";
    shell(top, &format!("git init -q && git add . && git {identity} commit -qm one && git gc -q"));
}
