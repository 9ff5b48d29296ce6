//! A store that goes wrong as told, and counts what is asked of it.

mod counters;
mod plan;

pub use counters::Counters;
pub use plan::Fault;

use super::{
    BlockStore, Capabilities, ListedName, StagedFile, StoreError, StoreErrorKind, StoreKey, StoreResult, StoreSpace,
    StoredFile,
};
use counters::LiveCounters;
use plan::{Plan, Verdict};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What can be asked of a store and its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// [`BlockStore::write`].
    Write,
    /// [`BlockStore::read`].
    Read,
    /// [`BlockStore::open`].
    Open,
    /// [`StoredFile::read_at`].
    ReadAt,
    /// [`BlockStore::create`].
    Create,
    /// [`StagedFile::write_at`].
    WriteAt,
    /// [`StagedFile::set_len`].
    SetLen,
    /// [`StagedFile::sync`].
    Sync,
    /// [`BlockStore::publish`]; its key is the target.
    Publish,
    /// [`BlockStore::link`]; its key is the new one.
    Link,
    /// [`BlockStore::write_range`].
    WriteRange,
    /// [`BlockStore::delete`].
    Delete,
    /// [`BlockStore::delete_prefix`].
    DeletePrefix,
    /// [`BlockStore::list`]; the key of the top is empty.
    List,
    /// [`BlockStore::space`]; its key is empty.
    Space,
    /// [`BlockStore::health_check`]; its key is empty.
    HealthCheck,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Write,
        Self::Read,
        Self::Open,
        Self::ReadAt,
        Self::Create,
        Self::WriteAt,
        Self::SetLen,
        Self::Sync,
        Self::Publish,
        Self::Link,
        Self::WriteRange,
        Self::Delete,
        Self::DeletePrefix,
        Self::List,
        Self::Space,
        Self::HealthCheck,
    ];

    /// Those that read files.
    pub const READS: [Self; 3] = [Self::Read, Self::Open, Self::ReadAt];

    /// Those that change the store: the instants at which a crash differs.
    pub const CHANGES: [Self; 10] = [
        Self::Write,
        Self::Create,
        Self::WriteAt,
        Self::SetLen,
        Self::Sync,
        Self::Publish,
        Self::Link,
        Self::WriteRange,
        Self::Delete,
        Self::DeletePrefix,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Write | Self::WriteAt => "write",
            Self::Read | Self::ReadAt => "read",
            Self::Open => "open",
            Self::Create => "create",
            Self::SetLen => "set the length of",
            Self::Sync => "sync",
            Self::Publish => "publish",
            Self::Link => "link",
            Self::WriteRange => "write to",
            Self::Delete | Self::DeletePrefix => "delete",
            Self::List => "list",
            Self::Space => "measure",
            Self::HealthCheck => "check",
        }
    }
}

/// Wraps a store: does what the [`Fault`]s say, and counts.
#[derive(Debug)]
pub struct FaultStore {
    inner: Arc<dyn BlockStore>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    label: String,
    plan: Mutex<Plan>,
    counters: LiveCounters,
}

impl FaultStore {
    /// A wrapper that has no faults yet. `seed` decides all that is random.
    pub fn new(inner: Arc<dyn BlockStore>, seed: u64) -> Self {
        let label = inner.label().to_string();
        let shared = Shared { label, plan: Mutex::new(Plan::new(seed)), counters: LiveCounters::default() };
        Self { inner, shared: Arc::new(shared) }
    }

    /// Adds a fault. Of several that match an operation, the first added decides.
    pub fn inject(&self, fault: Fault) {
        self.shared.plan().faults.push(fault);
    }

    /// Lets so many more bytes be written before the store is full; deleting
    /// gives nothing back. `None`: any number.
    pub fn limit_space(&self, bytes: Option<u64>) {
        self.shared.plan().space_left = bytes;
    }

    /// Takes all faults and the limit away. Files whose sync failed stay so.
    pub fn heal(&self) {
        let mut plan = self.shared.plan();
        plan.faults.clear();
        plan.space_left = None;
    }

    /// What was asked so far.
    pub fn counters(&self) -> Counters {
        self.shared.counters.snapshot()
    }

    /// Counts from zero again.
    pub fn reset_counters(&self) {
        self.shared.counters.reset();
    }
}

impl Shared {
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, kind: StoreErrorKind, operation: Operation, key: &str) -> StoreError {
        StoreError::new(kind, operation.name(), &self.label, key)
    }

    /// Counts the operation, asks the plan, and lets `act` do what is left to
    /// do; it returns the bytes it moved beside its result.
    fn run<T>(
        &self,
        operation: Operation,
        key: &str,
        new_bytes: u64,
        act: impl FnOnce(Verdict) -> StoreResult<(T, u64)>,
    ) -> StoreResult<T> {
        self.counters.called(operation);
        let verdict = self.plan().decide(operation, key, new_bytes);
        if let Verdict::Fail(kind) = verdict {
            return Err(self.error(kind, operation, key));
        }
        let (result, bytes) = act(verdict)?;
        self.counters.transferred(operation, bytes);
        match verdict {
            Verdict::FailAfter(kind) => Err(self.error(kind, operation, key)),
            Verdict::Tear(_) => Err(self.error(StoreErrorKind::Io, operation, key)),
            _ => Ok(result),
        }
    }

    fn run_plain<T>(&self, operation: Operation, key: &str, act: impl FnOnce() -> StoreResult<T>) -> StoreResult<T> {
        self.run(operation, key, 0, |_| Ok((act()?, 0)))
    }
}

/// The part of `bytes` that arrives.
fn arriving(verdict: Verdict, bytes: &[u8]) -> &[u8] {
    match verdict {
        Verdict::Tear(random) => &bytes[..random.checked_rem(bytes.len() as u64).unwrap_or(0) as usize],
        _ => bytes,
    }
}

fn flip_bit(verdict: Verdict, bytes: &mut [u8]) {
    if let Verdict::FlipBit(random) = verdict {
        let bit = random.checked_rem(bytes.len() as u64 * 8).unwrap_or(0) as usize;
        if let Some(byte) = bytes.get_mut(bit / 8) {
            *byte ^= 1 << (bit % 8);
        }
    }
}

impl BlockStore for FaultStore {
    fn label(&self) -> &str {
        &self.shared.label
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn write(&self, key: &StoreKey, bytes: &[u8]) -> StoreResult<()> {
        let len = bytes.len() as u64;
        self.shared.run(Operation::Write, key.as_str(), len, |verdict| match verdict {
            Verdict::Tear(_) => Ok(((), 0)),
            _ => Ok((self.inner.write(key, bytes)?, len)),
        })
    }

    fn read(&self, key: &StoreKey, limit: u64) -> StoreResult<Vec<u8>> {
        self.shared.run(Operation::Read, key.as_str(), 0, |verdict| {
            let mut bytes = self.inner.read(key, limit)?;
            if let Verdict::Truncate(len) = verdict {
                bytes.truncate(usize::try_from(len).unwrap_or(usize::MAX));
            }
            flip_bit(verdict, &mut bytes);
            let len = bytes.len() as u64;
            Ok((bytes, len))
        })
    }

    fn open(&self, key: &StoreKey) -> StoreResult<Arc<dyn StoredFile>> {
        self.shared.run(Operation::Open, key.as_str(), 0, |verdict| {
            let inner = self.inner.open(key)?;
            let len = match verdict {
                Verdict::Truncate(len) => len.min(inner.len()),
                _ => inner.len(),
            };
            let file = FaultFile { inner, len, key: key.clone(), shared: Arc::clone(&self.shared) };
            Ok((Arc::new(file) as Arc<dyn StoredFile>, 0))
        })
    }

    fn create(&self, key: &StoreKey) -> StoreResult<Arc<dyn StagedFile>> {
        self.shared.run_plain(Operation::Create, key.as_str(), || {
            Ok(Arc::new(FaultStagedFile {
                inner: self.inner.create(key)?,
                key: key.clone(),
                shared: Arc::clone(&self.shared),
                sync_failed: AtomicBool::new(false),
            }) as Arc<dyn StagedFile>)
        })
    }

    fn publish(&self, from: &StoreKey, to: &StoreKey) -> StoreResult<()> {
        self.shared.run_plain(Operation::Publish, to.as_str(), || self.inner.publish(from, to))
    }

    fn replace(&self, from: &StoreKey, to: &StoreKey) -> StoreResult<()> {
        self.shared.run_plain(Operation::Publish, to.as_str(), || self.inner.replace(from, to))
    }

    fn link(&self, from: &StoreKey, to: &StoreKey) -> StoreResult<()> {
        self.shared.run_plain(Operation::Link, to.as_str(), || self.inner.link(from, to))
    }

    fn write_range(&self, key: &StoreKey, offset: u64, bytes: &[u8]) -> StoreResult<()> {
        // In place: a full store can still do it.
        self.shared.run(Operation::WriteRange, key.as_str(), 0, |verdict| {
            let bytes = arriving(verdict, bytes);
            self.inner.write_range(key, offset, bytes)?;
            Ok(((), bytes.len() as u64))
        })
    }

    fn delete(&self, key: &StoreKey) -> StoreResult<()> {
        self.shared.run_plain(Operation::Delete, key.as_str(), || self.inner.delete(key))
    }

    fn delete_prefix(&self, prefix: &StoreKey) -> StoreResult<()> {
        self.shared.run_plain(Operation::DeletePrefix, prefix.as_str(), || self.inner.delete_prefix(prefix))
    }

    fn list(&self, prefix: Option<&StoreKey>) -> StoreResult<Vec<ListedName>> {
        let key = prefix.map_or("", StoreKey::as_str);
        self.shared.run_plain(Operation::List, key, || self.inner.list(prefix))
    }

    fn space(&self) -> StoreResult<StoreSpace> {
        self.shared.run_plain(Operation::Space, "", || {
            let space = self.inner.space()?;
            let limit = self.shared.plan().space_left;
            Ok(StoreSpace { free: limit.map_or(space.free, |limit| limit.min(space.free)), ..space })
        })
    }

    fn health_check(&self) -> StoreResult<()> {
        self.shared.run_plain(Operation::HealthCheck, "", || self.inner.health_check())
    }

    fn close(&self) {
        self.inner.close();
    }
}

#[derive(Debug)]
struct FaultFile {
    inner: Arc<dyn StoredFile>,
    len: u64,
    key: StoreKey,
    shared: Arc<Shared>,
}

impl StoredFile for FaultFile {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> StoreResult<()> {
        let len = buffer.len() as u64;
        self.shared.run(Operation::ReadAt, self.key.as_str(), 0, |verdict| {
            // A file that was whole when it was opened may be cut by now, and the other way round.
            let cut = match verdict {
                Verdict::Truncate(cut) => Some(cut),
                _ => (self.len < self.inner.len()).then_some(self.len),
            };
            if cut.is_some_and(|cut| offset.saturating_add(len) > cut) {
                return Err(self.shared.error(StoreErrorKind::ShortRead, Operation::ReadAt, self.key.as_str()));
            }
            self.inner.read_at(offset, buffer)?;
            flip_bit(verdict, buffer);
            Ok(((), len))
        })
    }

    fn will_read(&self, offset: u64, len: u64) {
        self.inner.will_read(offset, len);
    }

    fn will_not_read_again(&self, offset: u64, len: u64) {
        self.inner.will_not_read_again(offset, len);
    }
}

#[derive(Debug)]
struct FaultStagedFile {
    inner: Arc<dyn StagedFile>,
    key: StoreKey,
    shared: Arc<Shared>,
    sync_failed: AtomicBool,
}

impl StagedFile for FaultStagedFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> StoreResult<()> {
        self.shared.run(Operation::WriteAt, self.key.as_str(), bytes.len() as u64, |verdict| {
            let bytes = arriving(verdict, bytes);
            self.inner.write_at(offset, bytes)?;
            Ok(((), bytes.len() as u64))
        })
    }

    fn set_len(&self, len: u64) -> StoreResult<()> {
        self.shared.run_plain(Operation::SetLen, self.key.as_str(), || self.inner.set_len(len))
    }

    fn sync(&self) -> StoreResult<()> {
        let synced = self.shared.run_plain(Operation::Sync, self.key.as_str(), || {
            if self.sync_failed.load(Ordering::SeqCst) {
                return Err(self.shared.error(StoreErrorKind::Latched, Operation::Sync, self.key.as_str()));
            }
            self.inner.sync()
        });
        synced.inspect_err(|_| self.sync_failed.store(true, Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    fn key(text: &str) -> StoreKey {
        StoreKey::new(text).unwrap()
    }

    fn store() -> FaultStore {
        let store = FaultStore::new(Arc::new(MemoryStore::new("m")), 42);
        store.write(&key("o/data"), &[7; 100]).unwrap();
        store.write(&key("o/parity"), &[8; 100]).unwrap();
        store
    }

    #[test]
    fn an_operation_that_fails_does_nothing() {
        let store = store();
        store.inject(Fault::fail(StoreErrorKind::Denied).on(&[Operation::Write]).at("o/data"));
        assert_eq!(store.write(&key("o/data"), b"new").unwrap_err().kind(), StoreErrorKind::Denied);
        store.write(&key("o/parity"), b"new").unwrap();
        assert_eq!(store.read(&key("o/data"), 100).unwrap(), [7; 100]);
    }

    #[test]
    fn an_answer_that_is_lost_leaves_the_work_done() {
        let store = store();
        store.inject(Fault::fail_after(StoreErrorKind::Io).on(&[Operation::Publish]).times(1));
        assert_eq!(store.publish(&key("o"), &key("p")).unwrap_err().kind(), StoreErrorKind::Io);
        assert_eq!(store.publish(&key("o"), &key("p")).unwrap_err().kind(), StoreErrorKind::NotFound);
        assert_eq!(store.read(&key("p/data"), 100).unwrap(), [7; 100]);
    }

    #[test]
    fn a_flipped_bit_is_one_bit() {
        let store = store();
        let file = store.open(&key("o/data")).unwrap();
        store.inject(Fault::flip_bit().at("*data"));
        let wrong = |bytes: &[u8]| bytes.iter().map(|byte| (byte ^ 7).count_ones()).sum::<u32>();
        let mut buffer = [0; 50];
        file.read_at(10, &mut buffer).unwrap();
        assert_eq!(wrong(&buffer), 1);
        assert_eq!(wrong(&store.read(&key("o/data"), 100).unwrap()), 1);
        assert_eq!(store.read(&key("o/parity"), 100).unwrap(), [8; 100]);
    }

    #[test]
    fn a_file_that_looks_cut_is_short_everywhere() {
        let store = store();
        let before = store.open(&key("o/data")).unwrap();
        store.inject(Fault::truncate(60).at("o/data"));
        let after = store.open(&key("o/data")).unwrap();
        assert_eq!((before.len(), after.len()), (100, 60));
        for file in [before, after] {
            file.read_at(50, &mut [0; 10]).unwrap();
            assert_eq!(file.read_at(50, &mut [0; 11]).unwrap_err().kind(), StoreErrorKind::ShortRead);
        }
        assert_eq!(store.read(&key("o/data"), 100).unwrap().len(), 60);
    }

    #[test]
    fn a_missing_file_is_missing_also_where_it_was_open() {
        let store = store();
        let file = store.open(&key("o/data")).unwrap();
        store.inject(Fault::missing().at("o/data"));
        assert_eq!(file.read_at(0, &mut [0]).unwrap_err().kind(), StoreErrorKind::NotFound);
        assert_eq!(store.open(&key("o/data")).unwrap_err().kind(), StoreErrorKind::NotFound);
        store.heal();
        store.open(&key("o/data")).unwrap().read_at(0, &mut [0]).unwrap();
    }

    #[test]
    fn a_store_fills_up_and_still_takes_changes_in_place() {
        let store = store();
        store.limit_space(Some(250));
        let file = store.create(&key("new")).unwrap();
        file.write_at(0, &[1; 200]).unwrap();
        assert_eq!(store.space().unwrap().free, 50);
        assert_eq!(file.write_at(200, &[1; 51]).unwrap_err().kind(), StoreErrorKind::NoSpace);
        assert_eq!(store.write(&key("w"), &[1; 51]).unwrap_err().kind(), StoreErrorKind::NoSpace);
        store.write_range(&key("o/data"), 0, &[9; 100]).unwrap();
        file.write_at(200, &[1; 50]).unwrap();
        assert_eq!(store.space().unwrap().free, 0);
    }

    #[test]
    fn a_sync_that_failed_once_fails_for_good_and_synced_nothing() {
        let memory = Arc::new(MemoryStore::new("m"));
        let store = FaultStore::new(memory.clone(), 1);
        store.inject(Fault::fail(StoreErrorKind::Io).on(&[Operation::Sync]).times(1));
        let file = store.create(&key("f")).unwrap();
        file.write_at(0, &[1; 600]).unwrap();
        assert_eq!(file.sync().unwrap_err().kind(), StoreErrorKind::Io);
        assert_eq!(file.sync().unwrap_err().kind(), StoreErrorKind::Latched);
        let another = store.create(&key("g")).unwrap();
        another.sync().unwrap();
    }

    #[test]
    fn a_torn_write_leaves_a_first_part() {
        let store = store();
        store.inject(Fault::tear().times(1));
        assert_eq!(store.write_range(&key("o/data"), 0, &[9; 100]).unwrap_err().kind(), StoreErrorKind::Io);
        let bytes = store.read(&key("o/data"), 100).unwrap();
        let new = bytes.iter().take_while(|&&byte| byte == 9).count();
        assert!(new < 100 && bytes[new..].iter().all(|&byte| byte == 7));
        assert_eq!(store.counters().bytes(Operation::WriteRange), new as u64);
    }

    #[test]
    fn calls_and_bytes_are_counted_by_operation() {
        let store = store();
        store.reset_counters();
        let file = store.open(&key("o/data")).unwrap();
        file.read_at(0, &mut [0; 30]).unwrap();
        file.read_at(90, &mut [0; 30]).unwrap_err();
        store.read(&key("o/parity"), 100).unwrap();
        let counters = store.counters();
        assert_eq!(counters.calls(Operation::ReadAt), 2);
        assert_eq!(counters.calls_of(&Operation::READS), 4);
        assert_eq!(counters.all_calls(), 4);
        assert_eq!(counters.bytes_read(), 130);
        assert_eq!(counters.bytes_written(), 0);
    }

    #[test]
    fn every_operation_counts_in_its_own_place() {
        for (index, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, index);
        }
    }
}
