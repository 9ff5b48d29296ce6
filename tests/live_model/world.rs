//! The filesystem and the model, side by side.

use super::kit::view;
use super::kit::{content, encoded_variants, scratch, tiny_descriptor, unlocked};
use super::ops::{At, Change, DIRECTORIES, HANDLES, How, Kind, NAMES, On, Op, Time, Value, XATTRS};
use anyhow::{Context as _, Result, bail, ensure};
use blockframe::archive::Archive;
use blockframe::base::Clock;
use blockframe::catalog::Catalog;
use blockframe::format::EntryPath;
use blockframe::staging::{StagingArea, StagingKeys, StagingLimits};
use blockframe::store::MemoryStore;
use blockframe::vfs::{LiveVfs, SyncPolicy, VfsLimits, Writeback, WritebackOptions};
use blockframe_api::memory::MemoryVfs;
use blockframe_api::{
    AttributeChange, Attributes, Caller, ErrorClass, Handle, Kernel, KernelCache, NewNode, Node, NodeKind, OpenHow,
    OpenedFile, RenameMode, TimeChange, Timestamp, Vfs, VfsResult,
};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tempfile::TempDir;

const CALLER: Caller = Caller { user: 5, group: 6, umask: 0 };
const READ: OpenHow = OpenHow { read: true, write: false, truncate: false };
const WRITE: OpenHow = OpenHow { read: false, write: true, truncate: false };
/// Content read at once, bytes.
const STEP: u64 = 1 << 20;
/// What is committed does not go further out than this.
const NEAR: u64 = 3 << 20;

/// Both filesystems have this time.
#[derive(Debug)]
struct ManualClock(Mutex<Timestamp>);

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

impl ManualClock {
    fn tick(&self, nanoseconds: u64) {
        let mut now = self.0.lock().unwrap();
        let total = u64::from(now.nanoseconds) + nanoseconds;
        now.seconds += (total / 1_000_000_000) as i64;
        now.nanoseconds = (total % 1_000_000_000) as u32;
    }
}

struct NoCache;

impl KernelCache for NoCache {
    fn forget_node(&self, _node: Node) {}
    fn forget_name(&self, _parent: Node, _name: &[u8]) {}
}

/// An archive in which something is committed.
struct Base {
    store: MemoryStore,
    home: TempDir,
}

/// An archive with that base in a directory, as the daemon opens it.
pub fn opened_in(directory: &Path, encrypted: bool) -> Result<Arc<LiveVfs>> {
    static STORES: Mutex<BTreeMap<std::path::PathBuf, Arc<MemoryStore>>> = Mutex::new(BTreeMap::new());
    let home = directory.join("home");
    let store = Arc::clone(
        STORES.lock().unwrap().entry(home.clone()).or_insert_with(|| Arc::new(base(encrypted).store.fork())),
    );
    if !home.exists() {
        std::fs::create_dir(&home)?;
        copy(base(encrypted).home.path(), &home);
    }
    let archive = Archive::open(store, Arc::new(blockframe::base::SystemClock), Arc::new(()))?;
    let archive = Arc::new(unlocked(archive));
    let catalog = Arc::new(Catalog::open(&home, &archive)?);
    let (limits, keys) = (StagingLimits { quota: 10 << 30, reserve: 0 }, StagingKeys::of_archive(&archive)?);
    let staging = StagingArea::open(&home.join("staging"), limits, keys)?;
    let live = LiveVfs::open(archive, catalog, Arc::new(()), staging, VfsLimits::default(), SyncPolicy::default())?;
    Ok(Arc::new(live))
}

/// In clear, or compressed and encrypted.
fn base(encrypted: bool) -> &'static Base {
    static BASES: [OnceLock<Base>; 2] = [OnceLock::new(), OnceLock::new()];
    BASES[usize::from(encrypted)].get_or_init(|| {
        let source = scratch();
        let path = |name: &str| source.path().join(name);
        std::fs::create_dir_all(path("d/f")).unwrap();
        for (name, len) in [("a", 100_000), ("b", 900), ("d/a", 19_001), ("d/f/b", 200_000), ("d/f/c", 0)] {
            std::fs::write(path(name), content(len, len as u64)).unwrap();
        }
        let sparse = File::create(path("d/c")).unwrap();
        sparse.write_all_at(&content(5000, 3), 60_000).unwrap();
        sparse.set_len(90_000).unwrap();
        std::fs::hard_link(path("b"), path("d/b")).unwrap();
        std::os::unix::fs::symlink("d/f", path("c")).unwrap();
        let (store, home) = (Arc::new(MemoryStore::new("memory")), scratch());
        let variants = encoded_variants(&tiny_descriptor());
        let descriptor = if encrypted { variants.last() } else { variants.first() };
        Archive::create(store.clone(), descriptor.unwrap().clone(), "test".into()).unwrap();
        let clock = Arc::new(blockframe::base::SystemClock);
        let archive = Arc::new(unlocked(Archive::open(store.clone(), clock, Arc::new(())).unwrap()));
        let catalog = Catalog::create(home.path(), &archive).unwrap();
        let paths = ["a", "b", "c", "d"].map(path);
        view::commit_paths(&archive, &catalog, &paths.each_ref().map(|path| path.as_path()));
        Base { store: store.fork(), home }
    })
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(to.join(entry.file_name())).unwrap();
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// The same node in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pair {
    live: Node,
    memory: Node,
}

const ROOT: Pair = Pair { live: Node::ROOT, memory: Node::ROOT };

struct Open {
    live: Handle,
    memory: Handle,
    node: Pair,
    how: OpenHow,
    backing: Option<Arc<File>>,
}

/// A file's bytes, without its holes.
#[derive(PartialEq, Eq)]
struct Snapshot {
    size: u64,
    parts: Vec<(u64, Vec<u8>)>,
}

/// Both filesystems and what a comparison must know of them.
pub struct World {
    store: Arc<MemoryStore>,
    home: TempDir,
    clock: Arc<ManualClock>,
    live: Option<Arc<LiveVfs>>,
    writeback: Option<Arc<Writeback>>,
    memory: MemoryVfs,
    open: Vec<Open>,
    /// Nodes of the live filesystem, and those of the model that they are.
    nodes: HashMap<Node, Node>,
    /// Nodes (of the model) whose birth the model cannot know.
    given: HashSet<Node>,
    /// Nodes whose access time was set; that of others is up to the filesystem.
    accessed: HashSet<Node>,
    /// Nodes that the kernel writes by itself, with the disk's times.
    in_place: HashSet<Node>,
    /// Published contents of files that were changed since.
    published: HashMap<Node, Snapshot>,
    removed: Vec<Pair>,
    mode: Mode,
}

/// What else goes on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mode {
    /// The kernel writes new files by itself.
    pub passthrough: bool,
    /// Files are committed as soon as they are closed.
    pub eager: bool,
    /// Offsets go far out, and nothing is committed: zeros take their time.
    pub far: bool,
    /// Everything is compressed and encrypted.
    pub encrypted: bool,
}

fn open_how(how: How) -> OpenHow {
    OpenHow { read: how.read, write: how.write, truncate: how.truncate }
}

fn time_change(time: Time) -> TimeChange {
    match time {
        Time::Now => TimeChange::Now,
        Time::To(seconds, nanoseconds) => TimeChange::To(Timestamp { seconds, nanoseconds }),
    }
}

pub fn xattr_value(value: Value) -> Vec<u8> {
    let list = |entries: &[(u16, u16)]| {
        let mut bytes = 2u32.to_le_bytes().to_vec();
        for &(tag, permissions) in entries {
            let id = if tag == 2 { 9u32 } else { u32::MAX };
            bytes.extend([&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat());
        }
        bytes
    };
    match value {
        Value::Bytes(len) => vec![len as u8; len],
        Value::Minimal([u, g, o]) => list(&[(1, u), (4, g), (0x20, o)]),
        Value::Long([u, n, g, m, o]) => list(&[(1, u), (2, n), (4, g), (0x10, m), (0x20, o)]),
    }
}

/// Bytes of a write.
pub fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|at| seed.wrapping_add((at / 7) as u8) | 1).collect()
}

/// Both have done it, or both refused for the same reason.
fn both<L, M>(live: VfsResult<L>, memory: VfsResult<M>) -> Result<Option<(L, M)>> {
    match (live, memory) {
        (Ok(live), Ok(memory)) => Ok(Some((live, memory))),
        (Err(live), Err(memory)) if live.class() == memory.class() => Ok(None),
        (Err(live), Err(memory)) => bail!("refused as {:?} ({live}) instead of {:?}", live.class(), memory.class()),
        (Ok(_), Err(memory)) => bail!("done instead of refused as {:?} ({memory})", memory.class()),
        (Err(live), Ok(_)) => bail!("refused: {:?} ({live})", live.class()),
    }
}

fn read(vfs: &dyn Vfs, handle: Handle, offset: u64, length: u32) -> VfsResult<Vec<u8>> {
    let mut bytes = Vec::new();
    vfs.read(handle, offset, length, &mut |part| bytes.extend_from_slice(part))?;
    Ok(bytes)
}

/// The ranges that are told to hold data.
fn data_ranges(vfs: &dyn Vfs, handle: Handle, size: u64) -> Result<Vec<(u64, u64)>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match vfs.seek(handle, at, true) {
            Err(error) if error.class() == ErrorClass::NoSuchRange => break,
            start => start?,
        };
        let end = vfs.seek(handle, start, false)?;
        ensure!(at <= start && start < end && end <= size, "seek from {at}: data {start} to {end} of {size}");
        ranges.push((start, end));
        at = end;
    }
    Ok(ranges)
}

fn merged(mut ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    ranges.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (start, end) in ranges {
        match merged.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    merged
}

fn snapshot(vfs: &dyn Vfs, node: Node) -> Result<Snapshot> {
    let size = vfs.attributes(node)?.size;
    let handle = vfs.open(node, READ)?.handle;
    let mut parts = Vec::new();
    for (start, end) in data_ranges(vfs, handle, size)? {
        parts.push((start, read(vfs, handle, start, (end - start) as u32)?));
    }
    vfs.release(handle);
    Ok(Snapshot { size, parts })
}

impl World {
    pub fn new(mode: Mode) -> Result<Self> {
        let base = base(mode.encrypted);
        let home = scratch();
        copy(base.home.path(), home.path());
        let clock = Arc::new(ManualClock(Mutex::new(Timestamp { seconds: 5_000_000_000, nanoseconds: 0 })));
        let now = Arc::clone(&clock);
        let mut world = Self {
            store: Arc::new(base.store.fork()),
            home,
            clock,
            live: None,
            writeback: None,
            memory: MemoryVfs::new(Arc::new(move || now.now()), Caller::default()),
            open: Vec::new(),
            nodes: HashMap::from([(Node::ROOT, Node::ROOT)]),
            given: HashSet::from([Node::ROOT]),
            accessed: HashSet::new(),
            in_place: HashSet::new(),
            published: HashMap::new(),
            removed: Vec::new(),
            mode,
        };
        world.start()?;
        world.adopt(ROOT)?;
        for (live, memory) in world.nodes.clone() {
            world.adopt_attributes(Pair { live, memory })?;
        }
        Ok(world)
    }

    fn start(&mut self) -> Result<()> {
        let archive = Arc::new(unlocked(Archive::open(self.store.clone(), self.clock.clone(), Arc::new(()))?));
        let catalog = Arc::new(Catalog::open(self.home.path(), &archive)?);
        let limits = StagingLimits { quota: 10 << 30, reserve: 0 };
        let keys = StagingKeys::of_archive(&archive)?;
        let staging = StagingArea::open(&self.home.path().join("staging"), limits, keys)?;
        // A cache of a few chunks, so that chunks are pushed out and come back.
        let vfs_limits = VfsLimits { cache: 2 << 20, ..VfsLimits::default() };
        let live = LiveVfs::open(archive, catalog, Arc::new(()), staging, vfs_limits, SyncPolicy::default())?;
        let live = Arc::new(live);
        live.attach(Kernel { passthrough: self.mode.passthrough, cache: Arc::new(NoCache) });
        let hour = Duration::from_secs(3600);
        let delay = if self.mode.eager { Duration::ZERO } else { hour };
        self.writeback = Some(Writeback::start(&live, WritebackOptions { delay, gather: delay, compression: None })?);
        self.live = Some(live);
        Ok(())
    }

    fn live(&self) -> &LiveVfs {
        self.live.as_ref().unwrap()
    }

    fn entries(vfs: &dyn Vfs, node: Node, after: Option<&[u8]>, most: usize) -> VfsResult<Vec<(Vec<u8>, Attributes)>> {
        let mut entries = Vec::new();
        vfs.read_directory(node, after, &mut |entry| {
            entries.push((entry.name.to_vec(), entry.attributes));
            entries.len() < most
        })?;
        Ok(entries)
    }

    /// The model gets what the archive has below a directory.
    fn adopt(&mut self, directory: Pair) -> Result<()> {
        for (name, attributes) in Self::entries(self.live(), directory.live, None, usize::MAX)? {
            if let Some(&memory) = self.nodes.get(&attributes.node) {
                self.memory.link(memory, directory.memory, &name)?;
                continue;
            }
            let target;
            let what = match attributes.kind {
                NodeKind::Directory => NewNode::Directory,
                NodeKind::Symlink => {
                    target = self.live().read_link(attributes.node)?;
                    NewNode::Symlink(&target)
                }
                _ => NewNode::File,
            };
            let memory = self.memory.make(CALLER, directory.memory, &name, attributes.permissions, what)?.node;
            let pair = Pair { live: attributes.node, memory };
            self.nodes.insert(pair.live, pair.memory);
            self.given.insert(memory);
            match attributes.kind {
                NodeKind::Directory => self.adopt(pair)?,
                NodeKind::File => self.put(memory, &snapshot(self.live(), pair.live)?)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// The model's file gets this content.
    fn put(&self, node: Node, content: &Snapshot) -> Result<()> {
        let handle = self.memory.open(node, OpenHow { truncate: true, ..WRITE })?.handle;
        for (offset, bytes) in &content.parts {
            self.memory.write(handle, *offset, bytes, false)?;
        }
        self.memory.release(handle);
        let change = AttributeChange { size: Some(content.size), ..Default::default() };
        self.memory.set_attributes(CALLER, node, None, &change)?;
        Ok(())
    }

    /// Both get the same times; the rest the model gets from the other.
    fn adopt_attributes(&self, pair: Pair) -> Result<()> {
        let found = self.live().attributes(pair.live)?;
        let change = AttributeChange {
            permissions: Some(found.permissions),
            user: Some(found.user),
            group: Some(found.group),
            modified: Some(TimeChange::To(found.modified)),
            ..Default::default()
        };
        self.live().set_attributes(CALLER, pair.live, None, &change)?;
        self.memory.set_attributes(CALLER, pair.memory, None, &change)?;
        Ok(())
    }

    fn walk(vfs: &dyn Vfs, names: &[&str]) -> VfsResult<Node> {
        let mut node = Node::ROOT;
        for name in names {
            node = vfs.lookup(node, name.as_bytes())?.node;
        }
        Ok(node)
    }

    /// The node that a path leads to, in both or in none.
    fn find(&mut self, names: &[&str]) -> Result<Option<Pair>> {
        let found = both(Self::walk(self.live(), names), Self::walk(&self.memory, names))?;
        found.map(|(live, memory)| self.known(live, memory)).transpose()
    }

    fn known(&mut self, live: Node, memory: Node) -> Result<Pair> {
        let expected = *self.nodes.entry(live).or_insert(memory);
        ensure!(expected == memory, "inode {} is another one than the model's", live.number());
        Ok(Pair { live, memory })
    }

    /// Kernels ask for names in directories only.
    fn directory(&mut self, at: At) -> Result<Option<Pair>> {
        let found = self.find(DIRECTORIES[at.0])?;
        Ok(found
            .filter(|pair| self.memory.attributes(pair.memory).is_ok_and(|found| found.kind == NodeKind::Directory)))
    }

    fn at(&mut self, at: At) -> Result<Option<Pair>> {
        self.find(&[DIRECTORIES[at.0], &[NAMES[at.1]]].concat())
    }

    fn on(&mut self, on: On) -> Result<Option<(Pair, Option<usize>)>> {
        match on {
            On::Root => Ok(Some((ROOT, None))),
            On::Name(at) => Ok(self.at(at)?.map(|pair| (pair, None))),
            On::Open(file) => {
                let file = self.which(file);
                Ok(self.open.get(file).map(|open| (open.node, Some(file))))
            }
        }
    }

    /// The number counts open files, round and round.
    fn which(&self, file: usize) -> usize {
        file.checked_rem(self.open.len()).unwrap_or(0)
    }

    /// An open file that was opened for it.
    fn file(&self, file: usize, read: bool, write: bool) -> Option<&Open> {
        self.open.get(self.which(file)).filter(|open| (open.how.read || !read) && (open.how.write || !write))
    }

    fn opened(&mut self, node: Pair, how: OpenHow, live: OpenedFile, memory: OpenedFile) {
        if live.backing.is_some() {
            self.in_place.insert(node.memory);
        }
        self.open.push(Open { live: live.handle, memory: memory.handle, node, how, backing: live.backing });
        if self.open.len() > HANDLES {
            self.release(0);
        }
    }

    fn release(&mut self, file: usize) {
        let open = self.open.remove(file);
        drop(open.backing);
        self.live().release(open.live);
        self.memory.release(open.memory);
        if open.how.write {
            self.published.remove(&open.node.memory);
        }
    }

    /// The content is about to be changed: what was published last stays known.
    fn changes(&mut self, node: Pair) -> Result<()> {
        if !self.published.contains_key(&node.memory) {
            let before = snapshot(&self.memory, node.memory)?;
            self.published.insert(node.memory, before);
        }
        Ok(())
    }

    fn same_attributes(&self, live: &Attributes, memory: &Attributes) -> Result<()> {
        let show = |found: &Attributes| {
            let size = if found.kind == NodeKind::Directory { 0 } else { found.size };
            let born = (!self.given.contains(&memory.node)).then_some(found.born);
            let accessed = self.accessed.contains(&memory.node).then_some(found.accessed);
            let times = (!self.in_place.contains(&memory.node)).then_some((found.modified, found.changed, accessed));
            let owner = (found.user, found.group, found.device);
            (found.kind, size, format!("{:o}", found.permissions), found.links, owner, times, born)
        };
        ensure!(show(live) == show(memory), "attributes {:?}\n  instead of {:?}", show(live), show(memory));
        Ok(())
    }

    fn same_xattrs(&self, pair: Pair) -> Result<()> {
        let all = |vfs: &dyn Vfs, node| -> VfsResult<BTreeMap<String, Vec<u8>>> {
            let names = vfs.extended_attributes(node)?.into_iter();
            let stored = names.filter(|name| !name.starts_with(b"user.blockframe."));
            stored
                .map(|name| Ok((String::from_utf8_lossy(&name).into_owned(), vfs.extended_attribute(node, &name)?)))
                .collect()
        };
        let (live, memory) = (all(self.live(), pair.live)?, all(&self.memory, pair.memory)?);
        let names = (live.keys().collect::<Vec<_>>(), memory.keys().collect::<Vec<_>>());
        ensure!(names.0 == names.1, "extended attributes {:?} instead of {:?}", names.0, names.1);
        for (name, value) in &live {
            ensure!(value == &memory[name], "another value of {name}");
        }
        Ok(())
    }

    fn same_content(&self, pair: Pair) -> Result<()> {
        let size = self.memory.attributes(pair.memory)?.size;
        let (live, memory) = (self.live().open(pair.live, READ)?.handle, self.memory.open(pair.memory, READ)?.handle);
        let mut ranges = data_ranges(self.live(), live, size)?;
        ranges.extend(data_ranges(&self.memory, memory, size)?);
        let ranges = merged(ranges);
        // Of holes: their first bytes, their last, and some in the middle.
        let borders = ranges.iter().flat_map(|&(start, end)| [start, end]).chain([0, size, size / 2, size / 3]);
        let probes = borders.map(|at| (at.saturating_sub(4097), (at + 4097).min(size)));
        for (start, end) in ranges.iter().copied().chain(probes.collect::<Vec<_>>()) {
            let mut at = start;
            while at < end {
                let length = (end - at).min(STEP) as u32;
                let found = read(self.live(), live, at, length).with_context(|| format!("{length} bytes at {at}"))?;
                let expected = read(&self.memory, memory, at, length)?;
                ensure!(found.len() == expected.len(), "{} bytes at {at} of {size}", found.len());
                if found != expected
                    && let Some(wrong) = (0..found.len()).find(|&index| found[index] != expected[index])
                {
                    let (is, should) = (found[wrong], expected[wrong]);
                    bail!("byte {} of {size} is {is} instead of {should}", at + wrong as u64);
                }
                at += u64::from(length);
            }
        }
        self.live().release(live);
        self.memory.release(memory);
        Ok(())
    }

    fn same_node(&self, pair: Pair) -> Result<()> {
        let (live, memory) = (self.live().attributes(pair.live)?, self.memory.attributes(pair.memory)?);
        self.same_attributes(&live, &memory)?;
        self.same_xattrs(pair)?;
        match memory.kind {
            NodeKind::File => self.same_content(pair)?,
            NodeKind::Symlink => ensure!(self.live().read_link(pair.live)? == self.memory.read_link(pair.memory)?),
            NodeKind::Directory => {
                let parents = (self.live().parent(pair.live)?, self.memory.parent(pair.memory)?);
                ensure!(self.nodes.get(&parents.0) == Some(&parents.1), "the parent is another one");
            }
            _ => {}
        }
        Ok(())
    }

    /// Lists a directory in both.
    fn listed(&mut self, directory: Pair, after: Option<&[u8]>, most: usize) -> Result<Vec<(Vec<u8>, Pair)>> {
        let live = Self::entries(self.live(), directory.live, after, most)?;
        let memory = Self::entries(&self.memory, directory.memory, after, most)?;
        let names = |entries: &[(Vec<u8>, Attributes)]| -> Vec<String> {
            entries.iter().map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect()
        };
        ensure!(names(&live) == names(&memory), "lists {:?}\n  instead of {:?}", names(&live), names(&memory));
        let mut pairs = Vec::new();
        for ((name, live), (_, memory)) in live.into_iter().zip(memory) {
            let what = format!("{} as listed", String::from_utf8_lossy(&name));
            self.same_attributes(&live, &memory).context(what)?;
            pairs.push((name, self.known(live.node, memory.node)?));
        }
        Ok(pairs)
    }

    /// Everything that can be seen is the same.
    pub fn compare(&mut self) -> Result<()> {
        let mut todo = vec![(String::new(), ROOT)];
        while let Some((path, pair)) = todo.pop() {
            let place = format!("in {path:?}");
            self.same_node(pair).with_context(|| place.clone())?;
            if self.memory.attributes(pair.memory)?.kind == NodeKind::Directory {
                for (name, below) in self.listed(pair, None, usize::MAX).context(place)? {
                    todo.push((format!("{path}/{}", String::from_utf8_lossy(&name)), below));
                }
            }
        }
        for file in 0..self.open.len() {
            self.same_node(self.open[file].node).with_context(|| format!("open file {file}"))?;
        }
        Ok(())
    }

    /// Does one operation with both.
    pub fn step(&mut self, op: Op) -> Result<()> {
        let op = if self.mode.far { op } else { op.nearer(NEAR) };
        match op {
            Op::Create { .. } | Op::Make { .. } | Op::Open { .. } => self.step_make(op)?,
            Op::Read { .. }
            | Op::Write { .. }
            | Op::Scatter { .. }
            | Op::Allocate { .. }
            | Op::CopyRange { .. }
            | Op::Seek { .. } => {
                self.step_bytes(op)?;
            }
            Op::Rename { .. } | Op::Link { .. } | Op::Unlink { .. } | Op::RemoveDirectory { .. } => {
                self.step_names(op)?;
            }
            Op::RemovePath { at, recursive } => self.remove_path(at, recursive)?,
            Op::Set { on, change } => self.set(on, change)?,
            Op::SetXattr { .. } | Op::GetXattr { .. } | Op::RemoveXattr { .. } => self.step_xattr(op)?,
            Op::List { directory, after, most } => {
                if let Some(pair) = self.directory(At(directory, 0))? {
                    self.listed(pair, NAMES.get(after).map(|name| name.as_bytes()), most)?;
                }
            }
            Op::InRemoved { name } => self.in_removed(name)?,
            Op::Compare => self.compare()?,
            Op::Tick { nanoseconds } => self.clock.tick(nanoseconds),
            Op::Restart | Op::Abandon => self.restart(op == Op::Restart)?,
            Op::Release { file } if !self.open.is_empty() => self.release(self.which(file)),
            Op::Release { .. } => {}
            Op::Flush { .. } | Op::Sync { .. } | Op::SyncDirectory | Op::SyncAll | Op::FlushNames | Op::Commit => {
                self.step_durable(op)?;
            }
        }
        self.clock.tick(1000);
        Ok(())
    }

    fn step_make(&mut self, op: Op) -> Result<()> {
        let (Op::Create { at, .. } | Op::Make { at, .. } | Op::Open { at, .. }) = op else { return Ok(()) };
        let name = NAMES[at.1].as_bytes();
        if let Op::Open { how, .. } = op {
            let Some(pair) = self.at(at)? else { return Ok(()) };
            let how = open_how(how);
            if how.truncate && self.memory.attributes(pair.memory)?.kind == NodeKind::File {
                self.changes(pair)?;
            }
            let done = both(self.live().open(pair.live, how), self.memory.open(pair.memory, how))?;
            if let Some((live, memory)) = done {
                self.opened(pair, how, live, memory);
            }
            return Ok(());
        }
        let Some(parent) = self.directory(at)? else { return Ok(()) };
        match op {
            Op::Create { permissions, umask, how, .. } => {
                let (caller, how) = (Caller { umask, ..CALLER }, open_how(how));
                let live = self.live().create(caller, parent.live, name, permissions, how);
                let memory = self.memory.create(caller, parent.memory, name, permissions, how);
                if let Some((live, memory)) = both(live, memory)? {
                    self.same_attributes(&live.0, &memory.0)?;
                    let pair = self.known(live.0.node, memory.0.node)?;
                    self.opened(pair, how, live.1, memory.1);
                }
            }
            Op::Make { permissions, umask, kind, .. } => {
                let caller = Caller { umask, ..CALLER };
                let what = match kind {
                    Kind::File => NewNode::File,
                    Kind::Directory => NewNode::Directory,
                    Kind::Symlink => NewNode::Symlink(b"d/f/target"),
                    Kind::Fifo => NewNode::Fifo,
                    Kind::Socket => NewNode::Socket,
                    Kind::CharDevice => NewNode::CharDevice(0x105),
                    Kind::BlockDevice => NewNode::BlockDevice(0x803),
                };
                // A kernel makes symbolic links with all permissions.
                let permissions = if kind == Kind::Symlink { 0o777 } else { permissions };
                let live = self.live().make(caller, parent.live, name, permissions, what);
                let memory = self.memory.make(caller, parent.memory, name, permissions, what);
                if let Some((live, memory)) = both(live, memory)? {
                    self.same_attributes(&live, &memory)?;
                    self.known(live.node, memory.node)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn step_bytes(&mut self, op: Op) -> Result<()> {
        match op {
            Op::Read { file, offset, length } => {
                let Some(open) = self.file(file, true, false) else { return Ok(()) };
                let live = read(self.live(), open.live, offset, length);
                if let Some((live, memory)) = both(live, read(&self.memory, open.memory, offset, length))? {
                    ensure!(live == memory, "reads other bytes");
                }
            }
            Op::Write { file, offset, length, seed, kill } => {
                let Some(&Open { live, memory, node, ref backing, .. }) = self.file(file, false, true) else {
                    return Ok(());
                };
                let (bytes, backing) = (pattern(length, seed), backing.clone());
                self.changes(node)?;
                // A kernel that serves the file does not ask.
                let written = match backing.filter(|_| !kill && seed % 4 != 0) {
                    Some(backing) => Ok(backing.write_all_at(&bytes, offset)?),
                    None => self.live().write(live, offset, &bytes, kill),
                };
                both(written, self.memory.write(memory, offset, &bytes, kill))?;
            }
            Op::Scatter { file, offset, pieces, stride } => {
                let Some(&Open { live, memory, node, .. }) = self.file(file, false, true) else { return Ok(()) };
                self.changes(node)?;
                for piece in 0..pieces {
                    // Backwards, so that neighbours do not join.
                    let at = offset + (pieces - piece) * stride;
                    let bytes = at.to_le_bytes();
                    both(self.live().write(live, at, &bytes, false), self.memory.write(memory, at, &bytes, false))?;
                }
            }
            Op::Allocate { file, offset, length, mode } => {
                let Some(&Open { live, memory, node, .. }) = self.file(file, false, true) else { return Ok(()) };
                self.changes(node)?;
                let done = self.live().allocate(live, offset, length, mode);
                both(done, self.memory.allocate(memory, offset, length, mode))?;
            }
            Op::CopyRange { from, from_offset, to, to_offset, length } => {
                let (Some(source), Some(target)) = (self.file(from, true, false), self.file(to, false, true)) else {
                    return Ok(());
                };
                let (source, target, node) = ((source.live, source.memory), (target.live, target.memory), target.node);
                // Kernels refuse a range that overlaps with itself.
                if self.open[self.which(from)].node == node && from_offset.abs_diff(to_offset) < length {
                    return Ok(());
                }
                self.changes(node)?;
                let live = self.live().copy_range(source.0, from_offset, target.0, to_offset, length);
                let memory = self.memory.copy_range(source.1, from_offset, target.1, to_offset, length);
                if let Some((live, memory)) = both(live, memory)? {
                    ensure!(live == memory, "copies {live} bytes instead of {memory}");
                }
            }
            Op::Seek { file, offset, data } => self.seek(file, offset, data)?,
            _ => {}
        }
        Ok(())
    }

    /// Holes may be found in other places, but where there is one there are zeros.
    fn seek(&mut self, file: usize, offset: u64, data: bool) -> Result<()> {
        let Some(open) = self.file(file, true, false) else { return Ok(()) };
        let size = self.memory.attributes(open.node.memory)?.size;
        let found = self.live().seek(open.live, offset, data);
        let none = matches!(&found, Err(error) if error.class() == ErrorClass::NoSuchRange);
        if offset >= size {
            ensure!(none, "finds {found:?} at {offset} of {size}");
            return Ok(());
        }
        let found = if none && data { size } else { found? };
        ensure!(offset <= found && found <= size, "finds {found} from {offset} of {size}");
        if data {
            // What was passed over holds nothing.
            let ranges = data_ranges(&self.memory, open.memory, size)?;
            for (start, end) in ranges {
                let (start, end) = (start.max(offset), end.min(found));
                if start < end {
                    let bytes = read(&self.memory, open.memory, start, (end - start) as u32)?;
                    ensure!(
                        bytes.iter().all(|&byte| byte == 0),
                        "data from {offset}: passes over bytes before {found}"
                    );
                }
            }
        } else if found < size {
            ensure!(read(&self.memory, open.memory, found, 1)? == [0], "a hole at {found}, where a byte is");
        }
        Ok(())
    }

    fn step_names(&mut self, op: Op) -> Result<()> {
        match op {
            Op::Rename { from, to, mode } => {
                let (Some(parent), Some(new_parent)) = (self.directory(from)?, self.directory(to)?) else {
                    return Ok(());
                };
                // Kernels do not ask when both names are one node's.
                let (node, other) = (self.at(from)?, self.at(to)?);
                if node.is_some() && node == other && mode != RenameMode::NoReplace {
                    return Ok(());
                }
                let (name, new_name) = (NAMES[from.1].as_bytes(), NAMES[to.1].as_bytes());
                let live = self.live().rename(parent.live, name, new_parent.live, new_name, mode);
                let memory = self.memory.rename(parent.memory, name, new_parent.memory, new_name, mode);
                if both(live, memory)?.is_some()
                    && mode == RenameMode::Replace
                    && let Some(other) = other
                {
                    self.removed.push(other);
                }
            }
            Op::Link { from, to } => {
                let (Some(pair), Some(parent)) = (self.at(from)?, self.directory(to)?) else { return Ok(()) };
                let name = NAMES[to.1].as_bytes();
                let live = self.live().link(pair.live, parent.live, name);
                if let Some((live, memory)) = both(live, self.memory.link(pair.memory, parent.memory, name))? {
                    self.same_attributes(&live, &memory)?;
                }
            }
            Op::Unlink { at } | Op::RemoveDirectory { at } => {
                let Some(parent) = self.directory(at)? else { return Ok(()) };
                let (name, pair) = (NAMES[at.1].as_bytes(), self.at(at)?);
                let done = if matches!(op, Op::Unlink { .. }) {
                    both(self.live().unlink(parent.live, name), self.memory.unlink(parent.memory, name))?
                } else {
                    let live = self.live().remove_directory(parent.live, name);
                    both(live, self.memory.remove_directory(parent.memory, name))?
                };
                self.removed.extend(pair.filter(|_| done.is_some()));
            }
            _ => {}
        }
        Ok(())
    }

    fn remove_tree(&self, parent: Node, name: &[u8], recursive: bool) -> VfsResult<()> {
        let found = self.memory.lookup(parent, name)?;
        if found.kind != NodeKind::Directory {
            return self.memory.unlink(parent, name);
        }
        if recursive {
            for (name, _) in Self::entries(&self.memory, found.node, None, usize::MAX)? {
                self.remove_tree(found.node, &name, true)?;
            }
        }
        self.memory.remove_directory(parent, name)
    }

    fn remove_path(&mut self, at: At, recursive: bool) -> Result<()> {
        let Some(parent) = self.directory(at)? else { return Ok(()) };
        let path = [DIRECTORIES[at.0], &[NAMES[at.1]]].concat().join("/");
        let live = self.live().remove_path(&EntryPath::new(path)?, recursive);
        both(live, self.remove_tree(parent.memory, NAMES[at.1].as_bytes(), recursive))?;
        Ok(())
    }

    fn set(&mut self, on: On, change: Change) -> Result<()> {
        let Some((pair, file)) = self.on(on)? else { return Ok(()) };
        let kind = self.memory.attributes(pair.memory)?.kind;
        // What kernels refuse by themselves.
        let open = file.map(|file| &self.open[file]);
        if change.size.is_some() && (kind != NodeKind::File || open.is_some_and(|open| !open.how.write))
            || change.permissions.is_some() && kind == NodeKind::Symlink
        {
            return Ok(());
        }
        let wanted = AttributeChange {
            permissions: change.permissions,
            user: change.user,
            group: change.group,
            size: change.size,
            accessed: change.accessed.map(time_change),
            modified: change.modified.map(time_change),
            kill_privileges: change.kill_privileges,
        };
        let handles = open.map(|open| (open.live, open.memory));
        if change.size.is_some() {
            self.changes(pair)?;
        }
        let live = self.live().set_attributes(CALLER, pair.live, handles.map(|handles| handles.0), &wanted);
        let memory = self.memory.set_attributes(CALLER, pair.memory, handles.map(|handles| handles.1), &wanted);
        if change.accessed.is_some() {
            self.accessed.insert(pair.memory);
        }
        if change.size.is_some() && handles.is_none() {
            self.published.remove(&pair.memory);
        }
        if let Some((live, memory)) = both(live, memory)? {
            self.same_attributes(&live, &memory)?;
        }
        Ok(())
    }

    fn step_xattr(&mut self, op: Op) -> Result<()> {
        let (Op::SetXattr { on, name, .. } | Op::GetXattr { on, name } | Op::RemoveXattr { on, name }) = op else {
            return Ok(());
        };
        let Some((pair, _)) = self.on(on)? else { return Ok(()) };
        // Symbolic links have no access control lists.
        if name > 2 && self.memory.attributes(pair.memory)?.kind == NodeKind::Symlink {
            return Ok(());
        }
        let name = XATTRS[name].as_bytes();
        match op {
            Op::SetXattr { value, mode, .. } => {
                let value = xattr_value(value);
                let live = self.live().set_extended_attribute(pair.live, name, &value, mode);
                both(live, self.memory.set_extended_attribute(pair.memory, name, &value, mode))?;
            }
            Op::RemoveXattr { .. } => {
                let live = self.live().remove_extended_attribute(pair.live, name);
                both(live, self.memory.remove_extended_attribute(pair.memory, name))?;
            }
            _ => {
                let live = self.live().extended_attribute(pair.live, name);
                if let Some((live, memory)) = both(live, self.memory.extended_attribute(pair.memory, name))? {
                    ensure!(live == memory, "another value");
                }
            }
        }
        let (live, memory) = (self.live().attributes(pair.live)?, self.memory.attributes(pair.memory)?);
        self.same_attributes(&live, &memory)
    }

    fn in_removed(&mut self, name: usize) -> Result<()> {
        let name = NAMES[name].as_bytes();
        let gone = |pair: &&Pair| self.memory.attributes(pair.memory).is_err();
        let Some(&pair) = self.removed.iter().rev().find(gone) else { return Ok(()) };
        let what = NewNode::File;
        let live = self.live().make(CALLER, pair.live, name, 0o644, what);
        let refused = both(live, self.memory.make(CALLER, pair.memory, name, 0o644, what))?;
        ensure!(refused.is_none(), "a removed directory has entries");
        ensure!(self.live().open(pair.live, READ).is_err(), "a removed node can be opened");
        both(self.live().link(pair.live, Node::ROOT, name), self.memory.link(pair.memory, Node::ROOT, name))?;
        Ok(())
    }

    fn step_durable(&mut self, op: Op) -> Result<()> {
        match op {
            Op::Flush { file } | Op::Sync { file } => {
                let Some(open) = self.open.get(self.which(file)) else { return Ok(()) };
                let (memory, writes) = (open.node.memory, open.how.write);
                match op {
                    Op::Flush { .. } => self.live().flush(open.live)?,
                    _ => self.live().sync(open.live, false)?,
                }
                if writes || matches!(op, Op::Sync { .. }) {
                    self.published.remove(&memory);
                }
            }
            Op::SyncDirectory => self.live().sync_directory(Node::ROOT)?,
            Op::SyncAll => {
                self.live().sync_all()?;
                self.published.clear();
            }
            Op::FlushNames => self.live().namespace().flush()?,
            Op::Commit if self.mode.far => {}
            Op::Commit => {
                if let Some(writeback) = &self.writeback {
                    writeback.drain(None, &mut |_| true)?;
                }
                self.published.clear();
            }
            _ => {}
        }
        Ok(())
    }

    /// Ends the process, so to speak, and begins a new one.
    fn restart(&mut self, close: bool) -> Result<()> {
        if close {
            while !self.open.is_empty() {
                self.release(0);
            }
            self.compare().context("before the restart")?;
        }
        if let Some(writeback) = self.writeback.take() {
            writeback.stop();
        }
        self.live = None;
        let left = std::mem::take(&mut self.open);
        let in_place = std::mem::take(&mut self.in_place);
        self.start().context("opening again")?;
        for open in left {
            self.memory.release(open.memory);
        }
        self.removed.clear();
        let published = std::mem::take(&mut self.published);
        for (live, memory) in self.nodes.clone() {
            let pair = Pair { live, memory };
            let Ok(attributes) = self.memory.attributes(memory) else {
                self.nodes.remove(&live);
                continue;
            };
            if attributes.kind != NodeKind::File {
                continue;
            }
            let found = snapshot(self.live(), live).context("after it was opened again")?;
            match published.get(&memory) {
                // Written in place: whatever the kernel had written by then.
                Some(_) if in_place.contains(&memory) => {}
                Some(before) => {
                    self.put(memory, before)?;
                    self.same_content(pair).context("a file that was not closed is not as it was published last")?;
                }
                None if in_place.contains(&memory) => {}
                None => continue,
            }
            self.put(memory, &found)?;
            self.adopt_attributes(pair)?;
        }
        self.compare().context("after the restart")
    }
}

/// Does all operations with both, and compares in the end.
pub fn run(row: &[Op], mode: Mode) -> Result<()> {
    let mut world = World::new(mode)?;
    for (at, op) in row.iter().enumerate() {
        world.step(*op).with_context(|| format!("operation {at}, {op:?}"))?;
    }
    world.step(Op::Restart).context("in the end")
}
