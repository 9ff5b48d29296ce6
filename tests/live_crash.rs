//! The daemon of a mount that is being written is killed at any moment: after
//! the next mount every thread's directory is as it was after one of the
//! thread's operations, not earlier than the last `fsync` that returned. No
//! file is a mixture of two versions, but one that the kernel wrote in place
//! after an `fsync`. The next mount goes on, and commits all of it.
//!
//! The moment is a number of operations. It comes from a seed, which every
//! failure prints; `BLOCKFRAME_SEED=N` runs that one, `BLOCKFRAME_KILLS=N` runs
//! that many.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod kit;

use kit::program::{Place, can_mount, is_mounted};
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Kills of a quick run.
const KILLS: u64 = 12;
/// And of those with encryption.
const ENCRYPTED_KILLS: u64 = 5;
const THREADS: usize = 4;
/// Bytes that tell of which version they are.
const BLOCK: usize = 512;

/// Numbers that look random, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % limit.max(1)
    }
}

/// The version of each block; 0 for zeros.
type Blocks = Arc<Vec<u64>>;

/// What a file may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    Is(Blocks),
    /// Written in place after an `fsync`: each block of the one or the other.
    Either(Blocks, Blocks),
}

/// A thread's directory after one of its operations.
#[derive(Debug, Clone, Default)]
struct State {
    /// Names of files, and which file each means.
    names: BTreeMap<String, u64>,
    directories: Vec<String>,
    files: HashMap<u64, Content>,
}

/// What a directory is found to hold.
#[derive(Debug, Default)]
struct Found {
    names: BTreeMap<String, (u64, Blocks)>,
    directories: Vec<String>,
}

fn bytes_of(version: u64, from: usize, blocks: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(blocks * BLOCK);
    for block in from..from + blocks {
        let mut one = [0; BLOCK];
        for (word, part) in one.chunks_exact_mut(16).enumerate() {
            part[..8].copy_from_slice(&version.to_le_bytes());
            part[8..].copy_from_slice(&((block as u64) << 8 | word as u64).to_le_bytes());
        }
        bytes.extend_from_slice(&one);
    }
    bytes
}

/// The versions of a file's blocks, or how it is no file of ours.
fn blocks_of(bytes: &[u8]) -> Result<Blocks, String> {
    if !bytes.len().is_multiple_of(BLOCK) {
        return Err(format!("{} bytes", bytes.len()));
    }
    let mut blocks = Vec::with_capacity(bytes.len() / BLOCK);
    for (index, block) in bytes.chunks_exact(BLOCK).enumerate() {
        let version = u64::from_le_bytes(block[..8].try_into().unwrap());
        if version == 0 && block.iter().any(|&byte| byte != 0) || version != 0 && block != bytes_of(version, index, 1) {
            return Err(format!("block {index} of {} is a mixture (version {version})", bytes.len() / BLOCK));
        }
        blocks.push(version);
    }
    Ok(Arc::new(blocks))
}

fn allows(content: &Content, found: &Blocks) -> bool {
    match content {
        Content::Is(blocks) => blocks == found,
        Content::Either(one, other) => {
            one.len().min(other.len()) <= found.len()
                && found.len() <= one.len().max(other.len())
                && found
                    .iter()
                    .enumerate()
                    .all(|(at, block)| one.get(at) == Some(block) || other.get(at) == Some(block))
        }
    }
}

/// Whether a directory is as it was then.
fn is(state: &State, found: &Found) -> bool {
    let mut inodes = HashMap::new();
    state.directories == found.directories
        && state.names.len() == found.names.len()
        && state.names.iter().all(|(name, file)| {
            found.names.get(name).is_some_and(|(inode, blocks)| {
                allows(&state.files[file], blocks) && *inodes.entry(*file).or_insert(*inode) == *inode
            })
        })
}

/// What the threads share.
struct Load {
    /// Operations until the daemon is killed.
    left: AtomicU64,
    killed: AtomicBool,
    daemon: Mutex<Child>,
    /// Operations of each thread that have returned.
    done: [AtomicUsize; THREADS],
    /// Of which so many are durable.
    durable: [AtomicUsize; THREADS],
    version: AtomicU64,
}

impl Load {
    fn kill(&self) {
        if !self.killed.swap(true, Ordering::SeqCst) {
            self.daemon.lock().unwrap().kill().unwrap();
        }
    }
}

/// One thread, and what it has done.
struct Writer<'l> {
    load: &'l Load,
    thread: usize,
    directory: PathBuf,
    dice: Dice,
    /// After each operation, the one that is under way included.
    states: Vec<State>,
    next_file: u64,
}

impl Writer<'_> {
    /// Does something, after which the directory is as `change` makes it.
    fn does<T>(&mut self, change: impl FnOnce(&mut State), work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let mut next = self.states.last().unwrap().clone();
        change(&mut next);
        self.states.push(next);
        let outcome = work()?;
        self.load.done[self.thread].store(self.states.len() - 1, Ordering::SeqCst);
        if self.load.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.load.kill();
        }
        Ok(outcome)
    }

    /// `fsync` of a file: everything that returned before it is durable.
    fn syncs(&mut self, file: &File, change: impl FnOnce(&mut State)) -> io::Result<()> {
        let before: Vec<usize> = self.load.done.iter().map(|done| done.load(Ordering::SeqCst)).collect();
        self.does(change, || file.sync_all())?;
        for (thread, before) in before.into_iter().enumerate() {
            self.load.durable[thread].fetch_max(before, Ordering::SeqCst);
        }
        self.load.durable[self.thread].fetch_max(self.states.len() - 1, Ordering::SeqCst);
        Ok(())
    }

    fn version(&self) -> u64 {
        self.load.version.fetch_add(1, Ordering::SeqCst)
    }

    fn blocks(&mut self) -> usize {
        match self.dice.below(12) {
            0 => 0,
            1..8 => 1 + self.dice.below(40) as usize,
            8..11 => 100 + self.dice.below(800) as usize,
            _ => 2000 + self.dice.below(6000) as usize,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn now(&self) -> &State {
        self.states.last().unwrap()
    }

    fn any(&mut self) -> Option<(String, u64)> {
        let count = self.now().names.len() as u64;
        let at = self.dice.below(count) as usize;
        self.now().names.iter().nth(at).map(|(name, file)| (name.clone(), *file))
    }

    fn blocks_now(&self, file: u64) -> Vec<u64> {
        match &self.now().files[&file] {
            Content::Is(blocks) | Content::Either(_, blocks) => blocks.to_vec(),
        }
    }

    /// A new file, written from its beginning.
    fn creates(&mut self, name: &str) -> io::Result<()> {
        let (file, version, blocks) = (self.next_file, self.version(), self.blocks());
        self.next_file += 1;
        let path = self.path(name);
        let mut options = OpenOptions::new();
        let read = self.dice.below(2) == 0;
        options.write(true).create_new(true).read(read);
        let new = name.to_owned();
        let opened = self.does(
            |state| {
                state.names.insert(new, file);
                state.files.insert(file, Content::Is(Arc::default()));
            },
            || options.open(path),
        )?;
        let content = Arc::new(vec![version; blocks]);
        let half = blocks / 2;
        opened.write_all_at(&bytes_of(version, 0, half), 0)?;
        opened.write_all_at(&bytes_of(version, half, blocks - half), (half * BLOCK) as u64)?;
        if self.dice.below(4) == 0 {
            let synced = Content::Is(content.clone());
            self.syncs(&opened, |state| {
                state.files.insert(file, synced);
            })?;
            if self.dice.below(2) == 0 && blocks > 0 {
                return self.goes_on(opened, file, &content, read);
            }
        }
        self.closes(opened, file, content)
    }

    /// Writes again in the session that has synced.
    fn goes_on(&mut self, opened: File, file: u64, before: &Blocks, read: bool) -> io::Result<()> {
        let version = self.version();
        let count = 1 + self.dice.below(before.len() as u64) as usize;
        let mut after = before.to_vec();
        after[..count].fill(version);
        let after = Arc::new(after);
        if read {
            // What was synced stays until the next publication.
            opened.write_all_at(&bytes_of(version, 0, count), 0)?;
            return self.closes(opened, file, after);
        }
        let either = Content::Either(Arc::clone(before), Arc::clone(&after));
        self.does(
            |state| {
                state.files.insert(file, either);
            },
            || opened.write_all_at(&bytes_of(version, 0, count), 0),
        )?;
        // What was synced before may be found mixed with this from now on.
        let may_be = Content::Either(Arc::clone(before), Arc::clone(&after));
        let was = Content::Is(Arc::clone(before));
        for state in self.states.iter_mut().rev().skip(1) {
            match state.files.get_mut(&file) {
                Some(content) if *content == was => *content = may_be.clone(),
                _ => break,
            }
        }
        self.closes(opened, file, after)
    }

    fn closes(&mut self, opened: File, file: u64, content: Blocks) -> io::Result<()> {
        self.does(
            |state| {
                state.files.insert(file, Content::Is(content));
            },
            || {
                drop(opened);
                Ok(())
            },
        )
    }

    /// Some blocks anew, or some more of them.
    fn changes(&mut self, name: &str, file: u64) -> io::Result<()> {
        let (version, mut blocks) = (self.version(), self.blocks_now(file));
        let start =
            if self.dice.below(3) == 0 { blocks.len() } else { self.dice.below(blocks.len() as u64 + 1) as usize };
        let most = if self.dice.below(6) == 0 { 3000 } else { 60 };
        let count = 1 + self.dice.below(most) as usize;
        blocks.resize(blocks.len().max(start + count), 0);
        blocks[start..start + count].fill(version);
        let read = self.dice.below(2) == 0;
        let opened = OpenOptions::new().read(read).write(true).open(self.path(name))?;
        opened.write_all_at(&bytes_of(version, start, count), (start * BLOCK) as u64)?;
        let content = Arc::new(blocks);
        if self.dice.below(4) == 0 {
            let content = Content::Is(content.clone());
            self.syncs(&opened, |state| {
                state.files.insert(file, content);
            })?;
        }
        self.closes(opened, file, content)
    }

    /// As careful programs replace a file.
    fn replaces(&mut self, name: &str) -> io::Result<()> {
        self.creates("temporary")?;
        let (from, to, new) = (self.path("temporary"), self.path(name), name.to_owned());
        self.does(
            |state| {
                let file = state.names.remove("temporary").unwrap();
                state.names.insert(new, file);
            },
            || fs::rename(from, to),
        )
    }

    fn changes_names(&mut self) -> io::Result<()> {
        let Some((name, file)) = self.any() else { return Ok(()) };
        let fresh = format!("n{}", self.dice.below(12));
        let is_fresh = !self.now().names.contains_key(&fresh);
        match self.dice.below(4) {
            0 if is_fresh => {
                let (from, to) = (self.path(&name), self.path(&fresh));
                self.does(
                    |state| {
                        state.names.insert(fresh, file);
                    },
                    || fs::hard_link(from, to),
                )
            }
            1 if is_fresh => {
                let (from, to) = (self.path(&name), self.path(&fresh));
                self.does(
                    |state| {
                        state.names.remove(&name);
                        state.names.insert(fresh, file);
                    },
                    || fs::rename(from, to),
                )
            }
            2 => {
                let path = self.path("below");
                let gone = self.now().directories.is_empty();
                self.does(
                    |state| state.directories = if gone { vec!["below".into()] } else { Vec::new() },
                    || if gone { fs::create_dir(path) } else { fs::remove_dir(path) },
                )
            }
            _ => {
                let path = self.path(&name);
                self.does(
                    |state| {
                        state.names.remove(&name);
                    },
                    || fs::remove_file(path),
                )
            }
        }
    }

    fn works(&mut self) -> io::Result<()> {
        while !self.load.killed.load(Ordering::SeqCst) {
            let name = format!("n{}", self.dice.below(12));
            match (self.dice.below(10), self.now().names.get(&name).copied()) {
                (0..4, None) => self.creates(&name)?,
                (0..4, Some(file)) => self.changes(&name, file)?,
                (4..6, _) => self.replaces(&name)?,
                (6, _) => {
                    if let Some((name, _)) = self.any() {
                        let file = File::open(self.path(&name))?;
                        self.syncs(&file, |_| ())?;
                    }
                }
                _ => self.changes_names()?,
            }
        }
        Ok(())
    }
}

fn find(directory: &Path) -> Result<Found, String> {
    let mut found = Found::default();
    let text = |error: io::Error| format!("{}: {error}", directory.display());
    for entry in fs::read_dir(directory).map_err(text)? {
        let entry = entry.map_err(text)?;
        let name = entry.file_name().into_string().unwrap();
        let metadata = entry.metadata().map_err(text)?;
        if metadata.is_dir() {
            found.directories.push(name);
        } else {
            let bytes = fs::read(entry.path()).map_err(|error| format!("{name}: {error}"))?;
            let blocks = blocks_of(&bytes).map_err(|error| format!("{name}: {error}"))?;
            found.names.insert(name, (metadata.ino(), blocks));
        }
    }
    Ok(found)
}

/// How a directory differs from a state, in short.
fn difference(state: &State, found: &Found) -> String {
    let brief = |blocks: &Blocks| {
        let mut runs: Vec<(u64, usize)> = Vec::new();
        for &block in blocks.iter() {
            match runs.last_mut() {
                Some((version, count)) if *version == block => *count += 1,
                _ => runs.push((block, 1)),
            }
        }
        format!("{:?}", &runs[..runs.len().min(8)])
    };
    let mut lines = Vec::new();
    for name in state.names.keys().chain(found.names.keys().filter(|name| !state.names.contains_key(*name))) {
        let expected = state.names.get(name).map(|file| &state.files[file]);
        let is = found.names.get(name).map(|(_, blocks)| blocks);
        if expected.zip(is).is_some_and(|(expected, is)| allows(expected, is)) {
            continue;
        }
        let expected = expected.map(|content| match content {
            Content::Is(blocks) => brief(blocks),
            Content::Either(one, other) => format!("{} or {}", brief(one), brief(other)),
        });
        lines.push(format!("  {name}: {:?} instead of {expected:?}", is.map(brief)));
    }
    format!("{}\n  directories {:?}, {:?}", lines.join("\n"), found.directories, state.directories)
}

/// Mounts in the foreground; returns when the mount answers.
fn serve(place: &Place) -> Child {
    let mountpoint = place.path("mnt");
    let mut command = place.command(["mount".as_ref(), mountpoint.as_os_str(), "--foreground".as_ref()]);
    let log = File::create(place.path("log")).unwrap();
    let mut child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
    while !is_mounted(&mountpoint) {
        assert!(child.try_wait().unwrap().is_none(), "{}", fs::read_to_string(place.path("log")).unwrap());
        std::thread::yield_now();
    }
    fs::metadata(&mountpoint).unwrap();
    child
}

/// One life and one death of a daemon.
fn one(seed: u64, encrypted: bool) {
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let place = Place::new();
    if encrypted {
        place.init_encrypted(&["--profile", "balanced", "--compress", "zstd:1"]);
    } else {
        place.ok(["init", "arch", "--profile", "balanced"]);
    }
    // Commits go on during the load, or wait till after it.
    let delay = ["0s", "50ms", "1h"][dice.below(3) as usize];
    let key = if encrypted { "[encryption]\npassphrase_file = \"secret\"\n" } else { "" };
    fs::write(place.path("config.toml"), format!("{key}[staging]\ndelay = \"{delay}\"\n")).unwrap();
    let daemon = serve(&place);
    let mountpoint = place.path("mnt");
    let directories: Vec<PathBuf> = (0..THREADS).map(|thread| mountpoint.join(format!("t{thread}"))).collect();
    for directory in &directories {
        fs::create_dir(directory).unwrap();
    }
    File::open(&mountpoint).unwrap().sync_all().unwrap();
    let most = if dice.below(3) == 0 { 40 } else { 500 };
    let operations = 1 + dice.below(most);
    let load = Load {
        left: AtomicU64::new(operations),
        killed: AtomicBool::new(false),
        daemon: Mutex::new(daemon),
        done: Default::default(),
        durable: Default::default(),
        version: AtomicU64::new(1),
    };
    let histories: Vec<Vec<State>> = std::thread::scope(|scope| {
        let start = |(thread, directory): (usize, &PathBuf)| {
            let dice = Dice(seed * 1000 + thread as u64);
            let directory = directory.clone();
            let load = &load;
            scope.spawn(move || {
                let states = vec![State::default()];
                let mut writer = Writer { load, thread, directory, dice, states, next_file: 1 };
                if let Err(error) = writer.works() {
                    let died = load.killed.load(Ordering::SeqCst);
                    load.kill();
                    assert!(died, "seed {seed}: an operation failed on a living mount: {error}");
                }
                writer.states
            })
        };
        let threads: Vec<_> = directories.iter().enumerate().map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    load.daemon.lock().unwrap().wait().unwrap();

    // The remains are cleaned, and the next mount comes up.
    place.ok(["mount".as_ref(), mountpoint.as_os_str()]);
    let what = format!("BLOCKFRAME_SEED={seed}, {operations} operations, delay {delay}");
    let mut kept = Vec::new();
    for (thread, (directory, states)) in directories.iter().zip(&histories).enumerate() {
        let found = find(directory).unwrap_or_else(|error| panic!("{what}, thread {thread}: {error}"));
        let (durable, done) = (load.durable[thread].load(Ordering::SeqCst), load.done[thread].load(Ordering::SeqCst));
        let at = (durable..states.len()).rev().find(|&at| is(&states[at], &found));
        let Some(at) = at else {
            let earlier = (0..durable).rev().find(|&at| is(&states[at], &found));
            panic!(
                "{what}, thread {thread}: as after no operation between {durable} (durable) and {} ({done} returned); \
                 as after {earlier:?}; against the durable one:\n{}\nagainst the last:\n{}",
                states.len() - 1,
                difference(&states[durable], &found),
                difference(states.last().unwrap(), &found),
            );
        };
        kept.push((at, durable, done));
    }
    // Everything is committed, and reads the same.
    let before: Vec<Found> = directories.iter().map(|directory| find(directory).unwrap()).collect();
    place.ok(["sync"]);
    for (directory, before) in directories.iter().zip(&before) {
        let after = find(directory).unwrap_or_else(|error| panic!("{what}, committed: {error}"));
        assert!(before.names == after.names && before.directories == after.directories, "{what}: a commit changed it");
    }
    place.ok(["umount".as_ref(), mountpoint.as_os_str()]);
    let health = place.run(["health"]);
    assert_eq!(health.status(), Some(0), "{what}: {}{}", health.stdout(), health.stderr());
    place.ok(["mount".as_ref(), mountpoint.as_os_str(), "--read-only".as_ref()]);
    for (directory, before) in directories.iter().zip(&before) {
        let after = find(directory).unwrap_or_else(|error| panic!("{what}, mounted again: {error}"));
        assert!(before.names == after.names && before.directories == after.directories, "{what}: mounted again");
    }
    place.ok(["umount".as_ref(), mountpoint.as_os_str()]);
    println!("{what}: found, durable, returned {kept:?}");
}

fn kills(quick: u64, encrypted: bool) {
    if !can_mount() {
        return;
    }
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match number("BLOCKFRAME_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("BLOCKFRAME_KILLS").unwrap_or(quick),
    };
    seeds.for_each(|seed| one(seed, encrypted));
}

#[test]
fn a_killed_daemon_leaves_every_directory_as_it_was_after_one_of_its_operations() {
    kills(KILLS, false);
}

#[test]
fn so_does_one_of_an_archive_that_is_compressed_and_encrypted() {
    kills(ENCRYPTED_KILLS, true);
}
