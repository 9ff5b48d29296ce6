//! Encrypted and compressed archives: against gocryptfs, against archives
//! that store contents as they are, and against the `zstd` tool.

use crate::Settings;
use crate::big::{RANDOM_SHARE, random_reads};
use crate::tools::{
    Dice, Figure, Mount, Table, blockframe, drop_caches, gocryptfs_init, installed, read_through, run, timed,
    write_random,
};
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where everything lies.
struct Bed<'a> {
    settings: &'a Settings,
    passphrase: PathBuf,
    /// Does not compress.
    noise: PathBuf,
    archive: PathBuf,
    crypt: PathBuf,
    point: PathBuf,
}

impl Bed<'_> {
    /// Makes an empty archive with these flags of `init`.
    fn init(&self, flags: &[&str]) {
        let _ = fs::remove_dir_all(&self.archive);
        let mut init = blockframe();
        init.arg("init").arg(&self.archive).args(["--profile", "classic"]).args(flags);
        if flags.contains(&"--encrypt") {
            init.arg("--passphrase-file").arg(&self.passphrase).arg("--no-recovery-phrase");
        }
        run(&mut init);
        run(self.on_archive().args(["scrub", "pause"]));
    }

    fn on_archive(&self) -> Command {
        let mut command = blockframe();
        command.arg("--archive").arg(&self.archive).arg("--passphrase-file").arg(&self.passphrase);
        command
    }

    /// A commit into a fresh archive; the input is in the page cache.
    fn commit(&self, flags: &[&str], input: &Path) -> Figure {
        self.init(flags);
        drop_caches();
        read_through(input);
        timed(None, || {
            run(self.on_archive().args(["commit", "-q"]).arg(input));
            run(&mut Command::new("sync"));
        })
    }

    fn alternate(&self, sides: [&dyn Fn() -> Figure; 2]) -> [Vec<Figure>; 2] {
        let mut takes = [Vec::new(), Vec::new()];
        for round in 0..self.settings.rounds {
            // Each side is the first in every other round.
            for at in if round % 2 == 0 { [0, 1] } else { [1, 0] } {
                takes[at].push(sides[at]());
            }
        }
        takes
    }
}

/// All figures of this part.
pub fn measure(settings: &Settings, table: &mut Table) {
    let dir = settings.dir.join("encoded");
    let bed = Bed {
        settings,
        passphrase: dir.join("passphrase"),
        noise: dir.join("noise"),
        archive: dir.join("archive"),
        crypt: dir.join("crypt"),
        point: dir.join("mnt"),
    };
    fs::create_dir_all(&dir).unwrap();
    fs::write(&bed.passphrase, "correct horse battery staple\n").unwrap();
    fs::set_permissions(&bed.passphrase, Permissions::from_mode(0o600)).unwrap();
    write_random(&bed.noise, settings.big << 20, &mut Dice::new(3));
    unlock(&bed, table);
    commits(&bed, table);
    compression(&bed, table);
    if installed("gocryptfs") {
        reads(&bed, table);
    } else {
        eprintln!("gocryptfs is not installed: reads are not measured");
    }
    fs::remove_dir_all(&dir).unwrap();
}

fn unlock(bed: &Bed<'_>, table: &mut Table) {
    let ls = || timed(None, || run(bed.on_archive().arg("ls")));
    let side = |flags: &'static [&'static str]| {
        move || {
            bed.init(flags);
            ls()
        }
    };
    let [ours, plain] = bed.alternate([&side(&["--encrypt"]), &side(&[])]);
    table.rate("`ls` of an empty encrypted archive (default argon2id), against a plain one", &ours, &plain, "< 2 s");
}

fn commits(bed: &Bed<'_>, table: &mut Table) {
    let mib = bed.settings.big;
    let plain = || bed.commit(&[], &bed.noise);
    let encrypted = || bed.commit(&["--encrypt"], &bed.noise);
    let [ours, theirs] = bed.alternate([&encrypted, &plain]);
    table.rate(&format!("encrypted commit of {mib} MiB, against the plain one"), &ours, &theirs, ">= 0.8");
    let compressing = || bed.commit(&["--compress", "zstd:3"], &bed.noise);
    let [ours, theirs] = bed.alternate([&compressing, &plain]);
    let what = format!("commit of {mib} MiB that do not compress with zstd:3, against without compression");
    table.rate(&what, &ours, &theirs, ">= 0.95");
}

/// Up to `len` bytes of programs and libraries.
fn write_programs(path: &Path, len: u64) {
    let mut file = File::create(path).unwrap();
    let mut left = len;
    while left > 0 {
        let before = left;
        for dir in ["/usr/bin", "/usr/lib/x86_64-linux-gnu", "/usr/lib/git-core"] {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                if left > 0 && entry.path().symlink_metadata().is_ok_and(|metadata| metadata.is_file()) {
                    let bytes = fs::read(entry.path()).unwrap_or_default();
                    let part = left.min(bytes.len() as u64);
                    file.write_all(&bytes[..part as usize]).unwrap();
                    left -= part;
                }
            }
        }
        assert!(left < before, "there are no programs to compress");
    }
}

fn compression(bed: &Bed<'_>, table: &mut Table) {
    let mib = bed.settings.big;
    let programs = bed.noise.with_file_name("programs");
    write_programs(&programs, mib << 20);
    let commit = || bed.commit(&["--compress", "zstd:3"], &programs);
    let tool = || {
        drop_caches();
        read_through(&programs);
        let output = bed.noise.with_file_name("programs.zst");
        let figure = timed(None, || {
            run(Command::new("zstd").args(["-3", "-T2", "-q", "-f", "-o"]).arg(&output).arg(&programs));
            run(&mut Command::new("sync"));
        });
        fs::remove_file(output).unwrap();
        figure
    };
    let [ours, theirs] = bed.alternate([&commit, &tool]);
    table.rate(
        &format!("commit of {mib} MiB of programs with zstd:3, against `zstd -3 -T2`"),
        &ours,
        &theirs,
        "stated",
    );
    fs::remove_file(programs).unwrap();
}

fn reads(bed: &Bed<'_>, table: &mut Table) {
    bed.init(&["--encrypt"]);
    run(bed.on_archive().args(["commit", "-q"]).arg(&bed.noise).stderr(Stdio::null()));
    fs::create_dir_all(&bed.crypt).unwrap();
    gocryptfs_init(&bed.crypt);
    {
        let mount = Mount::gocryptfs(&bed.crypt, &bed.point);
        run(Command::new("cp").arg(&bed.noise).arg(&bed.point));
        drop(mount);
    }
    let len = bed.settings.big << 20;
    let file = bed.point.join("noise");
    let ours = || Mount::encrypted(&bed.archive, &bed.passphrase, &bed.point);
    let theirs = || Mount::gocryptfs(&bed.crypt, &bed.point);
    let take = |mount: &dyn Fn() -> Mount, work: &dyn Fn()| {
        drop_caches();
        let mount = mount();
        timed(Some(&mount), work)
    };
    let through = || read_through(&file);
    let [a, b] = bed.alternate([&|| take(&ours, &through), &|| take(&theirs, &through)]);
    table.rate(&format!("encrypted read of {} MiB, disk cold, against gocryptfs", bed.settings.big), &a, &b, ">= 1.3");
    for jobs in [1, 4] {
        let random = || random_reads(&file, len, 4096, jobs, 7);
        let [a, b] = bed.alternate([&|| take(&ours, &random), &|| take(&theirs, &random)]);
        let count = len / 4096 / RANDOM_SHARE;
        let what = format!("encrypted: {count} random reads of 4 KiB, cold, {jobs} at a time, against gocryptfs");
        table.rate(&what, &a, &b, ">= 1");
    }
}
