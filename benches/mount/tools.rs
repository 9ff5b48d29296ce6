//! Clocks, caches, programs and mounts.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Rows: what, the figure, the baseline, the ratio, the target.
#[derive(Default)]
pub struct Table {
    rows: Vec<[String; 5]>,
}

impl Table {
    /// Adds a row, and shows it at once.
    pub fn row(&mut self, what: &str, ours: String, baseline: String, ratio: String, target: &str) {
        eprintln!("{what}: {ours}; {baseline}; {ratio} (target {target})");
        self.rows.push([what.into(), ours, baseline, ratio, target.into()]);
    }

    /// A rate's row: takes of ours and of the baseline, of the same work. The
    /// ratio is the median of the rounds' ratios, so that what slows the
    /// machine for a while slows both sides of it.
    pub fn rate(&mut self, what: &str, ours: &[Figure], baseline: &[Figure], target: &str) {
        let best = |takes: &[Figure]| takes.iter().map(|take| take.seconds).fold(f64::INFINITY, f64::min);
        let ratio = format!("{:.2} (best of each {:.2})", paired(ours, baseline), best(baseline) / best(ours));
        self.row(what, Figure::median(ours).show(), Figure::median(baseline).show(), ratio, target);
    }

    /// As Markdown.
    pub fn print(&self) {
        println!("| what | BlockFrame | baseline | ratio | target |\n|---|---|---|---|---|");
        for row in &self.rows {
            println!("| {} |", row.join(" | "));
        }
    }
}

/// The median of several takes of one piece of work.
#[derive(Clone, Copy, Default)]
pub struct Figure {
    /// Wall time.
    pub seconds: f64,
    /// User and system time of those who did it, without the kernel's own threads.
    pub cpu: f64,
}

impl Figure {
    /// For the table.
    pub fn show(&self) -> String {
        format!("{:.2} s, {:.2} CPU s", self.seconds, self.cpu)
    }

    /// The take in the middle by wall time.
    pub fn median(takes: &[Figure]) -> Figure {
        let mut takes = takes.to_vec();
        takes.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
        takes[takes.len() / 2]
    }
}

/// How many times faster than the baseline: the median over the rounds.
pub fn paired(ours: &[Figure], baseline: &[Figure]) -> f64 {
    let mut ratios: Vec<f64> =
        ours.iter().zip(baseline).map(|(ours, baseline)| baseline.seconds / ours.seconds).collect();
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

/// User and system time of this process and of its children that have ended, seconds.
fn cpu() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<f64> =
        stat.rsplit_once(") ").unwrap().1.split(' ').filter_map(|field| field.parse().ok()).collect();
    // Behind the state: utime, stime, cutime, cstime are the 11th to 14th.
    fields[10..14].iter().sum::<f64>() / 100.0
}

/// Times work, with the processor time of the mounts that serve it.
pub fn timed(mount: Option<&Mount>, work: impl FnOnce()) -> Figure {
    let served = |mount: Option<&Mount>| mount.map_or(0.0, Mount::cpu);
    let (start, used, before) = (Instant::now(), cpu(), served(mount));
    work();
    Figure { seconds: start.elapsed().as_secs_f64(), cpu: cpu() - used + served(mount) - before }
}

/// Writes everything back and forgets what was read.
pub fn drop_caches() {
    run(&mut Command::new("sync"));
    if fs::write("/proc/sys/vm/drop_caches", "3").is_err() {
        eprintln!("the page cache cannot be dropped: cold figures are warm ones");
    }
}

/// Runs a program that must succeed.
pub fn run(command: &mut Command) {
    let status = command.stdout(Stdio::null()).status().unwrap();
    assert!(status.success(), "{command:?}");
}

/// Runs a line of shell in a directory.
pub fn shell(dir: &Path, line: &str) {
    run(Command::new("sh").arg("-c").arg(line).current_dir(dir));
}

/// The program that is measured.
pub fn blockframe() -> Command {
    Command::new(env!("CARGO_BIN_EXE_blockframe"))
}

/// Whether a program is installed.
pub fn installed(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// Makes an empty archive.
pub fn init(archive: &Path, profile: &str) {
    let _ = fs::remove_dir_all(archive);
    run(blockframe().arg("init").arg(archive).args(["--profile", profile]));
    // The other side has no scrubber.
    run(blockframe().arg("--archive").arg(archive).args(["scrub", "pause"]));
}

fn gocryptfs_password(store: &Path) -> PathBuf {
    store.with_file_name("password")
}

/// Makes an empty directory one of gocryptfs.
pub fn gocryptfs_init(store: &Path) {
    let password = gocryptfs_password(store);
    fs::write(&password, "password\n").unwrap();
    let mut init = Command::new("gocryptfs");
    run(init.args(["-init", "-q", "-scryptn", "10", "-passfile"]).arg(&password).arg(store));
}

/// A process that serves a mount.
pub struct Mount {
    child: Child,
    point: PathBuf,
}

impl Mount {
    /// Mounts an archive.
    pub fn archive(archive: &Path, point: &Path) -> Self {
        let mut command = blockframe();
        command.arg("--archive").arg(archive).args(["mount", "--foreground"]).arg(point);
        Self::start(command, point)
    }

    /// Mounts what [`gocryptfs_init`] made.
    pub fn gocryptfs(store: &Path, point: &Path) -> Self {
        let mut serve = Command::new("gocryptfs");
        serve.args(["-fg", "-q", "-passfile"]).arg(gocryptfs_password(store)).arg(store).arg(point);
        Self::start(serve, point)
    }

    /// Mounts an archive whose passphrase is in a file.
    pub fn encrypted(archive: &Path, passphrase: &Path, point: &Path) -> Self {
        let mut command = blockframe();
        command.arg("--archive").arg(archive).arg("--passphrase-file").arg(passphrase);
        command.args(["mount", "--foreground"]).arg(point);
        Self::start(command, point)
    }

    /// Mounts the bare pass-through filesystem over a directory.
    pub fn passthrough(directory: &Path, point: &Path, words: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("passthrough").arg(directory).arg(point).args(words.split(' '));
        Self::start(command, point)
    }

    /// Starts a server in the foreground, and waits for its mount.
    pub fn start(mut command: Command, point: &Path) -> Self {
        fs::create_dir_all(point).unwrap();
        let before = fs::metadata(point).unwrap().dev();
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        while fs::metadata(point).map_or(before, |found| found.dev()) == before {
            assert!(child.try_wait().unwrap().is_none(), "it does not mount: {command:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
        Self { child, point: point.to_path_buf() }
    }

    /// User and system time so far, seconds.
    fn cpu(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
    }

    /// Counters of `/proc/PID/io` by name, bytes or calls.
    pub fn io(&self) -> BTreeMap<String, u64> {
        let text = fs::read_to_string(format!("/proc/{}/io", self.child.id())).unwrap();
        let pairs = text.lines().filter_map(|line| line.split_once(": "));
        pairs.map(|(name, count)| (name.to_owned(), count.parse().unwrap())).collect()
    }

    /// Resident memory, MiB: peak and now.
    pub fn memory(&self) -> (u64, u64) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
        };
        (field("VmHWM"), field("VmRSS"))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // What another program serves knows no command of ours.
        let ours = blockframe().arg("umount").arg(&self.point).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !ours.is_ok_and(|status| status.success()) {
            run(Command::new("umount").arg(&self.point));
        }
        let _ = self.child.wait();
    }
}

/// Entries below a directory, itself left out, and the bytes that they occupy on the disk.
pub fn usage(dir: &Path) -> (u64, u64) {
    let mut sum = (0, 0);
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        sum = (sum.0 + 1, sum.1 + metadata.blocks() * 512);
        if metadata.is_dir() {
            let below = usage(&entry.path());
            sum = (sum.0 + below.0, sum.1 + below.1);
        }
    }
    sum
}

/// Numbers that are the same in every run.
pub struct Dice(blake3::OutputReader);

impl Dice {
    /// A sequence for each seed.
    pub fn new(seed: u64) -> Self {
        Self(blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof())
    }

    /// Less than `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes) % end
    }

    /// Bytes that do not compress.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }
}

/// Writes a file of random bytes.
pub fn write_random(path: &Path, len: u64, dice: &mut Dice) {
    let mut file = File::create(path).unwrap();
    let mut buffer = vec![0; 1 << 20];
    let mut left = len;
    while left > 0 {
        let part = left.min(buffer.len() as u64) as usize;
        dice.fill(&mut buffer[..part]);
        file.write_all(&buffer[..part]).unwrap();
        left -= part as u64;
    }
}

/// Reads a file from start to end as `cat` does.
pub fn read_through(path: &Path) {
    let mut file = File::open(path).unwrap();
    let mut buffer = vec![0; 128 << 10];
    while file.read(&mut buffer).unwrap() > 0 {}
}
