//! A store in memory that knows what a power cut may take.
//!
//! Each file has the bytes that a reader sees and those that were synced; each
//! name stands or stands durably. [`MemoryStore::crash`] takes the store to
//! one of the states that the contract of [`BlockStore`] permits: what was
//! durable is there, of the rest any part may be.

use super::random::Random;
use super::{
    BlockStore, Capabilities, ListedName, StagedFile, StoreError, StoreErrorKind, StoreKey, StoreResult, StoreSpace,
    StoredFile,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a disk writes in one piece; of a larger write any piece may be lost.
const SECTOR: usize = 512;

/// What [`BlockStore::space`] tells: enough for any test.
const NOMINAL_SPACE: u64 = 1 << 40;

/// A store in memory, for tests and simulations.
#[derive(Debug)]
pub struct MemoryStore {
    label: Arc<str>,
    names: Mutex<Names>,
}

#[derive(Debug, Default)]
struct Names {
    /// What readers see.
    current: BTreeMap<StoreKey, Arc<Inode>>,
    /// What a power cut must leave.
    durable: BTreeMap<StoreKey, Arc<Inode>>,
}

#[derive(Debug, Default)]
struct Inode(Mutex<Content>);

#[derive(Debug, Default, Clone)]
struct Content {
    current: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors in which the two may differ.
    dirty: BTreeSet<usize>,
}

impl Inode {
    fn synced(bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Content { durable: bytes.clone(), current: bytes, dirty: BTreeSet::new() })))
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if !bytes.is_empty() {
            if self.current.len() < end {
                self.current.resize(end, 0);
            }
            self.current[offset..end].copy_from_slice(bytes);
            self.dirty.extend(offset / SECTOR..=(end - 1) / SECTOR);
        }
    }

    fn set_len(&mut self, len: usize) {
        let (short, long) = (len.min(self.current.len()), len.max(self.current.len()));
        self.dirty.extend(short / SECTOR..long.div_ceil(SECTOR));
        self.current.resize(len, 0);
    }

    fn sync(&mut self) {
        self.durable.resize(self.current.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            copy_sector(sector, &self.current, &mut self.durable);
        }
    }

    /// What a power cut leaves: of each unsynced sector, and of the length,
    /// the old or the new. That all is lost, or all kept, is made likely.
    fn crash(&self, random: &mut Random) -> Vec<u8> {
        let likely = random.below(4);
        let mut is_kept = || match likely {
            0 => false,
            1 => true,
            _ => random.coin(),
        };
        let mut left = self.durable.clone();
        if is_kept() {
            left.resize(self.current.len(), 0);
        }
        for &sector in &self.dirty {
            if is_kept() {
                copy_sector(sector, &self.current, &mut left);
            }
        }
        left
    }
}

fn copy_sector(sector: usize, from: &[u8], to: &mut [u8]) {
    let start = sector * SECTOR;
    let end = (start + SECTOR).min(from.len()).min(to.len());
    if start < end {
        to[start..end].copy_from_slice(&from[start..end]);
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new(label: &str) -> Self {
        Self { label: label.into(), names: Mutex::default() }
    }

    /// Cuts the power and switches it on again. The same seed on the same
    /// state leaves the same. Files that are open go on in the void: nothing
    /// written to them reaches the store.
    pub fn crash(&self, seed: u64) {
        let mut random = Random::new(seed);
        let mut names = self.names();
        let keys: BTreeSet<StoreKey> = names.current.keys().chain(names.durable.keys()).cloned().collect();
        let mut left = BTreeMap::new();
        // A file of several keys is hit once, and is one file afterwards.
        let mut survivors: BTreeMap<*const Inode, Arc<Inode>> = BTreeMap::new();
        for key in keys {
            let (current, durable) = (names.current.get(&key), names.durable.get(&key));
            // Where the two are one and the same file, the choice is none.
            let kept = if random.coin() { current } else { durable };
            if let Some(inode) = kept {
                let survivor = survivors.entry(Arc::as_ptr(inode));
                let survivor = survivor.or_insert_with(|| Inode::synced(inode.content().crash(&mut random)));
                left.insert(key, Arc::clone(survivor));
            }
        }
        *names = Names { current: left.clone(), durable: left };
    }

    /// A store of its own with what readers of this one see, all of it durable.
    pub fn fork(&self) -> Self {
        let mut copies: BTreeMap<*const Inode, Arc<Inode>> = BTreeMap::new();
        let copy = |(key, inode): (&StoreKey, &Arc<Inode>)| {
            let copy = copies.entry(Arc::as_ptr(inode));
            let copy = copy.or_insert_with(|| Inode::synced(inode.content().current.clone()));
            (key.clone(), Arc::clone(copy))
        };
        let files: BTreeMap<_, _> = self.names().current.iter().map(copy).collect();
        Self { label: Arc::clone(&self.label), names: Mutex::new(Names { current: files.clone(), durable: files }) }
    }

    /// All keys, sorted.
    pub fn keys(&self) -> Vec<StoreKey> {
        self.names().current.keys().cloned().collect()
    }

    /// Changes a file behind everybody's back, as a bad disk does; the damage
    /// is durable. False when there is no such file.
    pub fn damage(&self, key: &StoreKey, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let Some(inode) = self.names().current.get(key).cloned() else { return false };
        let mut content = inode.content();
        change(&mut content.current);
        content.durable = content.current.clone();
        content.dirty.clear();
        true
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, kind: StoreErrorKind, operation: &'static str, key: &StoreKey) -> StoreError {
        StoreError::new(kind, operation, &self.label, key)
    }

    fn find(&self, operation: &'static str, key: &StoreKey) -> StoreResult<Arc<Inode>> {
        let found = self.names().current.get(key).cloned();
        found.ok_or_else(|| self.error(StoreErrorKind::NotFound, operation, key))
    }
}

impl Names {
    /// Whether a file can be at `key`: no file is on the way, and none below.
    fn is_free_for_file(&self, key: &StoreKey) -> bool {
        let text = key.as_str();
        let on_the_way = text
            .match_indices('/')
            .any(|(at, _)| StoreKey::new(&text[..at]).is_ok_and(|above| self.current.contains_key(&above)));
        !on_the_way && self.below(key).is_empty()
    }

    /// The keys below a prefix, from either map.
    fn below(&self, prefix: &StoreKey) -> Vec<StoreKey> {
        let start = format!("{prefix}/");
        let keys: BTreeSet<&StoreKey> = self.current.keys().chain(self.durable.keys()).collect();
        keys.into_iter().filter(|key| key.as_str().starts_with(&start)).cloned().collect()
    }
}

/// An offset as an index, when `len` bytes behind it can be addressed as well.
fn in_memory(offset: u64, len: usize) -> Option<usize> {
    let start = usize::try_from(offset).ok()?;
    let end = start.checked_add(len)?;
    (end as u64 <= NOMINAL_SPACE).then_some(start)
}

impl BlockStore for MemoryStore {
    fn label(&self) -> &str {
        &self.label
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { atomic_publish: true, range_write: true, free_space: true, hard_link: true }
    }

    fn write(&self, key: &StoreKey, bytes: &[u8]) -> StoreResult<()> {
        let mut names = self.names();
        if !names.is_free_for_file(key) {
            return Err(self.error(StoreErrorKind::Exists, "write", key));
        }
        let inode = Inode::synced(bytes.to_vec());
        names.current.insert(key.clone(), Arc::clone(&inode));
        names.durable.insert(key.clone(), inode);
        Ok(())
    }

    fn read(&self, key: &StoreKey, limit: u64) -> StoreResult<Vec<u8>> {
        let inode = self.find("read", key)?;
        let content = inode.content();
        if content.current.len() as u64 > limit {
            return Err(self.error(StoreErrorKind::TooLong, "read", key));
        }
        Ok(content.current.clone())
    }

    fn open(&self, key: &StoreKey) -> StoreResult<Arc<dyn StoredFile>> {
        let inode = self.find("open", key)?;
        let len = inode.content().current.len() as u64;
        Ok(Arc::new(MemoryFile { inode, len, key: key.clone(), label: Arc::clone(&self.label) }))
    }

    fn create(&self, key: &StoreKey) -> StoreResult<Arc<dyn StagedFile>> {
        let mut names = self.names();
        if !names.is_free_for_file(key) {
            return Err(self.error(StoreErrorKind::Exists, "create", key));
        }
        let inode = Arc::new(Inode::default());
        names.current.insert(key.clone(), Arc::clone(&inode));
        Ok(Arc::new(MemoryStagedFile { inode, key: key.clone(), label: Arc::clone(&self.label) }))
    }

    fn publish(&self, from: &StoreKey, to: &StoreKey) -> StoreResult<()> {
        let mut names = self.names();
        let sources = names.below(from);
        if !sources.iter().any(|key| names.current.contains_key(key)) {
            return Err(self.error(StoreErrorKind::NotFound, "publish", from));
        }
        if names.current.contains_key(to) || !names.is_free_for_file(to) {
            return Err(self.error(StoreErrorKind::Exists, "publish", to));
        }
        let mut moves = Vec::new();
        for source in &sources {
            let below = &source.as_str()[from.as_str().len() + 1..];
            let target = to.join(below).map_err(|error| StoreError::bad_key(&self.label, error))?;
            moves.push((source, target));
        }
        for (source, target) in moves {
            names.durable.remove(source);
            if let Some(inode) = names.current.remove(source) {
                names.durable.insert(target.clone(), Arc::clone(&inode));
                names.current.insert(target, inode);
            }
        }
        Ok(())
    }

    fn replace(&self, from: &StoreKey, to: &StoreKey) -> StoreResult<()> {
        let mut names = self.names();
        let inode =
            names.current.get(from).cloned().ok_or_else(|| self.error(StoreErrorKind::NotFound, "replace", from))?;
        if !names.current.contains_key(to) && !names.is_free_for_file(to) {
            return Err(self.error(StoreErrorKind::Exists, "replace", to));
        }
        names.current.remove(from);
        names.durable.remove(from);
        names.current.insert(to.clone(), Arc::clone(&inode));
        names.durable.insert(to.clone(), inode);
        Ok(())
    }

    fn link(&self, from: &StoreKey, to: &StoreKey) -> StoreResult<()> {
        let mut names = self.names();
        let inode = names.current.get(from).cloned();
        let inode = inode.ok_or_else(|| self.error(StoreErrorKind::NotFound, "link to", from))?;
        if names.current.contains_key(to) || !names.is_free_for_file(to) {
            return Err(self.error(StoreErrorKind::Exists, "link", to));
        }
        names.current.insert(to.clone(), inode);
        Ok(())
    }

    fn write_range(&self, key: &StoreKey, offset: u64, bytes: &[u8]) -> StoreResult<()> {
        let inode = self.find("write to", key)?;
        let mut content = inode.content();
        let start = in_memory(offset, bytes.len())
            .filter(|start| start + bytes.len() <= content.current.len())
            .ok_or_else(|| self.error(StoreErrorKind::ShortRead, "write to", key))?;
        content.write(start, bytes);
        content.sync();
        Ok(())
    }

    fn delete(&self, key: &StoreKey) -> StoreResult<()> {
        let mut names = self.names();
        names.current.remove(key);
        names.durable.remove(key);
        Ok(())
    }

    fn delete_prefix(&self, prefix: &StoreKey) -> StoreResult<()> {
        let mut names = self.names();
        let mut keys = names.below(prefix);
        keys.push(prefix.clone());
        for key in keys {
            names.current.remove(&key);
            names.durable.remove(&key);
        }
        Ok(())
    }

    fn list(&self, prefix: Option<&StoreKey>) -> StoreResult<Vec<ListedName>> {
        let start = prefix.map_or(String::new(), |prefix| format!("{prefix}/"));
        let names = self.names();
        let listed: BTreeSet<ListedName> = names
            .current
            .keys()
            .filter_map(|key| key.as_str().strip_prefix(&start))
            .map(|below| match below.split_once('/') {
                Some((name, _)) => ListedName { name: name.to_string(), is_prefix: true },
                None => ListedName { name: below.to_string(), is_prefix: false },
            })
            .collect();
        Ok(listed.into_iter().collect())
    }

    fn space(&self) -> StoreResult<StoreSpace> {
        let used: u64 = self.names().current.values().map(|inode| inode.content().current.len() as u64).sum();
        Ok(StoreSpace { total: NOMINAL_SPACE, free: NOMINAL_SPACE.saturating_sub(used) })
    }

    fn health_check(&self) -> StoreResult<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct MemoryFile {
    inode: Arc<Inode>,
    len: u64,
    key: StoreKey,
    label: Arc<str>,
}

impl StoredFile for MemoryFile {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> StoreResult<()> {
        let content = self.inode.content();
        let range = in_memory(offset, buffer.len()).map(|start| start..start + buffer.len());
        let bytes = range
            .and_then(|range| content.current.get(range))
            .ok_or_else(|| StoreError::new(StoreErrorKind::ShortRead, "read", &self.label, &self.key))?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
}

#[derive(Debug)]
struct MemoryStagedFile {
    inode: Arc<Inode>,
    key: StoreKey,
    label: Arc<str>,
}

impl MemoryStagedFile {
    fn offset(&self, operation: &'static str, offset: u64, len: usize) -> StoreResult<usize> {
        in_memory(offset, len)
            .ok_or_else(|| StoreError::new(StoreErrorKind::NoSpace, operation, &self.label, &self.key))
    }
}

impl StagedFile for MemoryStagedFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> StoreResult<()> {
        let start = self.offset("write", offset, bytes.len())?;
        self.inode.content().write(start, bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> StoreResult<()> {
        let len = self.offset("set the length of", len, 0)?;
        self.inode.content().set_len(len);
        Ok(())
    }

    fn sync(&self) -> StoreResult<()> {
        self.inode.content().sync();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEDS: std::ops::Range<u64> = 0..200;

    fn key(text: &str) -> StoreKey {
        StoreKey::new(text).unwrap()
    }

    #[test]
    fn what_was_written_whole_survives_every_crash() {
        for seed in SEEDS {
            let store = MemoryStore::new("m");
            store.write(&key("a/b"), &[1; 2000]).unwrap();
            store.write_range(&key("a/b"), 700, &[2; 600]).unwrap();
            store.crash(seed);
            let mut wanted = vec![1; 2000];
            wanted[700..1300].fill(2);
            assert_eq!(store.read(&key("a/b"), 9999).unwrap(), wanted, "seed {seed}");
        }
    }

    #[test]
    fn what_was_synced_and_published_survives_and_is_gone_from_its_old_place() {
        for seed in SEEDS {
            let store = MemoryStore::new("m");
            let file = store.create(&key("tmp/1/data")).unwrap();
            file.write_at(0, &[5; 3000]).unwrap();
            file.sync().unwrap();
            store.write(&key("tmp/1/manifest"), b"{}").unwrap();
            store.publish(&key("tmp/1"), &key("object")).unwrap();
            store.crash(seed);
            assert_eq!(store.keys(), [key("object/data"), key("object/manifest")], "seed {seed}");
            assert_eq!(store.read(&key("object/data"), 9999).unwrap(), [5; 3000], "seed {seed}");
        }
    }

    #[test]
    fn what_was_deleted_stays_deleted() {
        for seed in SEEDS {
            let store = MemoryStore::new("m");
            store.write(&key("a"), b"1").unwrap();
            store.write(&key("p/b"), b"2").unwrap();
            store.delete(&key("a")).unwrap();
            store.delete_prefix(&key("p")).unwrap();
            store.crash(seed);
            assert_eq!(store.keys(), [], "seed {seed}");
        }
    }

    /// A forgotten sync must be found by tests, so each loss has to happen.
    #[test]
    fn what_was_not_synced_is_lost_kept_or_torn_in_some_crash() {
        let (mut lost, mut kept, mut torn, mut short) = (0, 0, 0, 0);
        for seed in SEEDS {
            let store = MemoryStore::new("m");
            store.create(&key("data")).unwrap().write_at(0, &[5; 3000]).unwrap();
            store.crash(seed);
            match store.read(&key("data"), 9999) {
                Err(_) => lost += 1,
                Ok(bytes) if bytes == [5; 3000] => kept += 1,
                Ok(bytes) if bytes.len() < 3000 => short += 1,
                Ok(_) => torn += 1,
            }
        }
        assert!(lost > 0 && kept > 0 && torn > 0 && short > 0, "{lost} {kept} {torn} {short}");
    }

    #[test]
    fn bytes_that_were_published_without_a_sync_may_be_lost() {
        let damaged = SEEDS.filter(|&seed| {
            let store = MemoryStore::new("m");
            store.create(&key("tmp/data")).unwrap().write_at(0, &[5; 3000]).unwrap();
            store.publish(&key("tmp"), &key("object")).unwrap();
            store.crash(seed);
            store.read(&key("object/data"), 9999).unwrap() != [5; 3000]
        });
        assert!(damaged.count() > 50);
    }

    #[test]
    fn a_file_that_is_being_replaced_is_the_old_or_the_new_one() {
        let (mut old, mut new) = (0, 0);
        for seed in SEEDS {
            let store = MemoryStore::new("m");
            store.write(&key("f"), b"old").unwrap();
            let file = store.create(&key("f")).unwrap();
            file.write_at(0, b"newer").unwrap();
            file.sync().unwrap();
            store.crash(seed);
            match store.read(&key("f"), 10).unwrap().as_slice() {
                b"old" => old += 1,
                b"newer" => new += 1,
                other => panic!("seed {seed}: {other:?}"),
            }
        }
        assert!(old > 0 && new > 0);
    }

    #[test]
    fn the_same_seed_leaves_the_same() {
        let crashed = |seed| {
            let store = MemoryStore::new("m");
            for n in 0..20 {
                store.create(&key(&format!("f{n}"))).unwrap().write_at(0, &[n; 1500]).unwrap();
            }
            store.crash(seed);
            store.keys().into_iter().map(|key| (store.read(&key, 9999).unwrap(), key)).collect::<Vec<_>>()
        };
        assert_eq!(crashed(7), crashed(7));
        assert_ne!(crashed(7), crashed(8));
    }

    #[test]
    fn a_file_cut_and_extended_without_a_sync_shows_old_or_new_bytes_and_no_others() {
        for seed in SEEDS {
            let store = MemoryStore::new("m");
            let file = store.create(&key("t/f")).unwrap();
            file.write_at(0, &[1; 1500]).unwrap();
            file.sync().unwrap();
            store.publish(&key("t"), &key("o")).unwrap();
            file.set_len(100).unwrap();
            file.set_len(1500).unwrap();
            store.crash(seed);
            let bytes = store.read(&key("o/f"), 9999).unwrap();
            assert!(bytes[..100] == [1; 100] && bytes.iter().all(|&b| b < 2), "seed {seed}");
        }
    }

    #[test]
    fn a_file_of_two_keys_is_one_file_after_a_crash_too() {
        let mut lost = 0;
        for seed in SEEDS {
            let store = MemoryStore::new("m");
            store.write(&key("o/a"), &[1; 2000]).unwrap();
            store.link(&key("o/a"), &key("tmp/b")).unwrap();
            let published = seed % 2 == 0;
            if published {
                store.publish(&key("tmp"), &key("p")).unwrap();
            }
            store.crash(seed);
            assert_eq!(store.read(&key("o/a"), 9999).unwrap(), [1; 2000], "seed {seed}");
            let second = key(if published { "p/b" } else { "tmp/b" });
            match store.write_range(&second, 0, &[2; 2000]) {
                Ok(()) => assert_eq!(store.fork().read(&key("o/a"), 9999).unwrap(), [2; 2000], "seed {seed}"),
                Err(error) => {
                    assert!(error.kind() == StoreErrorKind::NotFound && !published, "seed {seed}");
                    lost += 1;
                }
            }
        }
        assert!(lost > 0);
    }

    #[test]
    fn a_fork_is_independent() {
        let store = MemoryStore::new("m");
        store.write(&key("f"), b"one").unwrap();
        let fork = store.fork();
        assert!(fork.damage(&key("f"), |bytes| bytes[0] ^= 1));
        assert!(!fork.damage(&key("none"), |_| ()));
        assert_eq!(store.read(&key("f"), 9).unwrap(), b"one");
        assert_ne!(fork.read(&key("f"), 9).unwrap(), b"one");
    }
}
