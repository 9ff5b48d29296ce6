//! The promises of `BlockStore`, kept by every store.
#![allow(clippy::unwrap_used, missing_docs)]

use blockframe::store::{
    BlockStore, FaultStore, ListedName, LocalStore, MemoryStore, StoreError, StoreErrorKind, StoreKey, StoreResult,
};
use std::fmt::Debug;
use std::sync::Arc;

fn key(text: &str) -> StoreKey {
    StoreKey::new(text).unwrap()
}

fn kind<T: Debug>(result: StoreResult<T>) -> StoreErrorKind {
    result.unwrap_err().kind()
}

fn names(store: &dyn BlockStore, prefix: Option<&str>) -> Vec<(String, bool)> {
    let listed = store.list(prefix.map(key).as_ref()).unwrap();
    listed.into_iter().map(|ListedName { name, is_prefix }| (name, is_prefix)).collect()
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 31 + n / 251) as u8).collect()
}

fn stage(store: &dyn BlockStore, at: &str, bytes: &[u8]) {
    let file = store.create(&key(at)).unwrap();
    file.write_at(0, bytes).unwrap();
    file.sync().unwrap();
}

fn a_whole_file_comes_back_as_written(store: &dyn BlockStore) {
    for len in [0, 1, 511, 4096, 70_001, (1 << 20) + 3] {
        let bytes = pattern(len);
        store.write(&key("deep/er/file"), &bytes).unwrap();
        assert!(store.read(&key("deep/er/file"), len as u64).unwrap() == bytes, "{len} bytes");
    }
    assert_eq!(names(store, Some("deep/er")), [("file".to_string(), false)]);
}

fn a_missing_file_is_not_found(store: &dyn BlockStore) {
    store.write(&key("a/file"), b"x").unwrap();
    for missing in ["none", "a/none", "a", "none/none", "a/file/below"] {
        let missing = key(missing);
        assert_eq!(kind(store.read(&missing, 10)), StoreErrorKind::NotFound, "read {missing}");
        assert_eq!(kind(store.open(&missing)), StoreErrorKind::NotFound, "open {missing}");
        assert_eq!(kind(store.write_range(&missing, 0, b"x")), StoreErrorKind::NotFound, "write to {missing}");
    }
}

fn a_file_longer_than_the_limit_is_refused(store: &dyn BlockStore) {
    store.write(&key("file"), &[1; 100]).unwrap();
    assert_eq!(kind(store.read(&key("file"), 99)), StoreErrorKind::TooLong);
    assert_eq!(kind(store.read(&key("file"), 0)), StoreErrorKind::TooLong);
    assert_eq!(store.read(&key("file"), 100).unwrap().len(), 100);
    assert_eq!(store.read(&key("file"), u64::MAX).unwrap().len(), 100);
}

fn ranges_come_back_exactly_or_not_at_all(store: &dyn BlockStore) {
    let bytes = pattern(100_000);
    store.write(&key("o/data"), &bytes).unwrap();
    let file = store.open(&key("o/data")).unwrap();
    assert_eq!(file.len(), 100_000);
    assert!(!file.is_empty());
    for (offset, len) in [(0, 1), (0, 100_000), (99_999, 1), (4095, 2), (100_000, 0), (50_000, 16_384)] {
        let mut buffer = vec![0; len];
        file.read_at(offset as u64, &mut buffer).unwrap();
        assert!(buffer == bytes[offset..offset + len], "{len} at {offset}");
    }
    for (offset, len) in [(99_999, 2), (100_000, 1), (1 << 40, 1), (0, 100_001)] {
        assert_eq!(kind(file.read_at(offset, &mut vec![0; len])), StoreErrorKind::ShortRead, "{len} at {offset}");
    }
    file.will_read(0, 100_000);
    file.will_not_read_again(90_000, 100_000);
    file.read_at(0, &mut [0; 10]).unwrap();
}

fn a_file_that_is_open_stays_what_it_was_when_the_key_gets_another(store: &dyn BlockStore) {
    store.write(&key("file"), b"before").unwrap();
    let file = store.open(&key("file")).unwrap();
    store.write(&key("file"), b"AFTER").unwrap();
    let mut buffer = [0; 6];
    file.read_at(0, &mut buffer).unwrap();
    assert_eq!(&buffer, b"before");
    stage(store, "file", b"THIRD");
    store.delete(&key("file")).unwrap();
    file.read_at(0, &mut buffer).unwrap();
    assert_eq!(&buffer, b"before");
}

fn a_staged_file_takes_writes_in_any_order(store: &dyn BlockStore) {
    let file = store.create(&key("tmp/1/data")).unwrap();
    file.write_at(9_000, b"end").unwrap();
    file.write_at(0, b"start").unwrap();
    file.write_at(3, b"RT").unwrap();
    file.write_at(20_000, b"").unwrap();
    file.sync().unwrap();
    let mut wanted = vec![0; 9_003];
    wanted[..5].copy_from_slice(b"staRT");
    wanted[9_000..].copy_from_slice(b"end");
    assert_eq!(store.read(&key("tmp/1/data"), 10_000).unwrap(), wanted);
    file.set_len(4).unwrap();
    file.set_len(8).unwrap();
    file.sync().unwrap();
    assert_eq!(store.read(&key("tmp/1/data"), 10_000).unwrap(), b"staR\0\0\0\0");
}

fn creating_again_begins_with_an_empty_file(store: &dyn BlockStore) {
    store.write(&key("file"), b"old bytes").unwrap();
    store.create(&key("file")).unwrap().sync().unwrap();
    assert!(store.open(&key("file")).unwrap().is_empty());
}

fn publishing_moves_everything(store: &dyn BlockStore) {
    stage(store, "tmp/1/data.dat", b"data");
    stage(store, "tmp/1/blocks/block_0/parity/p", b"parity");
    store.write(&key("tmp/1/manifest.json"), b"{}").unwrap();
    stage(store, "tmp/10/other", b"other");
    store.publish(&key("tmp/1"), &key("new/place/object")).unwrap();
    assert_eq!(store.read(&key("new/place/object/data.dat"), 10).unwrap(), b"data");
    assert_eq!(store.read(&key("new/place/object/blocks/block_0/parity/p"), 10).unwrap(), b"parity");
    assert_eq!(store.read(&key("new/place/object/manifest.json"), 10).unwrap(), b"{}");
    assert_eq!(names(store, Some("tmp")), [("10".to_string(), true)]);
}

fn publishing_onto_something_leaves_both_untouched(store: &dyn BlockStore) {
    store.write(&key("object/data"), b"old").unwrap();
    store.write(&key("file"), b"file").unwrap();
    stage(store, "tmp/1/data", b"new");
    for target in ["object", "file", "object/data", "file/below"] {
        assert_eq!(kind(store.publish(&key("tmp/1"), &key(target))), StoreErrorKind::Exists, "{target}");
    }
    assert_eq!(store.read(&key("object/data"), 10).unwrap(), b"old");
    assert_eq!(store.read(&key("file"), 10).unwrap(), b"file");
    assert_eq!(store.read(&key("tmp/1/data"), 10).unwrap(), b"new");
}

fn publishing_nothing_is_not_found(store: &dyn BlockStore) {
    assert_eq!(kind(store.publish(&key("tmp/1"), &key("object"))), StoreErrorKind::NotFound);
    store.write(&key("file"), b"x").unwrap();
    assert_eq!(kind(store.publish(&key("file"), &key("object"))), StoreErrorKind::NotFound);
    assert_eq!(names(store, None), [("file".to_string(), false)]);
}

fn replacing_moves_one_file_over_another(store: &dyn BlockStore) {
    store.write(&key("dir/target"), b"old").unwrap();
    stage(store, "tmp/new", b"newer");
    store.replace(&key("tmp/new"), &key("dir/target")).unwrap();
    assert_eq!(store.read(&key("dir/target"), 10).unwrap(), b"newer");
    assert_eq!(kind(store.read(&key("tmp/new"), 10)), StoreErrorKind::NotFound);
    stage(store, "tmp/new", b"first");
    store.replace(&key("tmp/new"), &key("other/target")).unwrap();
    assert_eq!(store.read(&key("other/target"), 10).unwrap(), b"first");
    assert_eq!(kind(store.replace(&key("tmp/none"), &key("dir/target"))), StoreErrorKind::NotFound);
    assert_eq!(store.read(&key("dir/target"), 10).unwrap(), b"newer");
}

fn a_linked_file_is_one_file_until_either_key_gets_another(store: &dyn BlockStore) {
    if !store.capabilities().hard_link {
        assert_eq!(kind(store.link(&key("a/one"), &key("b/two"))), StoreErrorKind::Unsupported);
        return;
    }
    store.write(&key("a/one"), b"0123456789").unwrap();
    store.link(&key("a/one"), &key("tmp/x/deep/two")).unwrap();
    stage(store, "tmp/x/three", b"3");
    store.publish(&key("tmp/x"), &key("b")).unwrap();
    assert_eq!(store.read(&key("b/deep/two"), 10).unwrap(), b"0123456789");
    if store.capabilities().range_write {
        store.write_range(&key("b/deep/two"), 2, b"XY").unwrap();
        assert_eq!(store.read(&key("a/one"), 10).unwrap(), b"01XY456789");
        store.write_range(&key("a/one"), 2, b"23").unwrap();
    }
    store.link(&key("b/deep/two"), &key("c/four")).unwrap();
    store.link(&key("b/deep/two"), &key("c/five")).unwrap();
    store.link(&key("b/deep/two"), &key("c/six")).unwrap();
    // Whatever puts another file at a key leaves the other keys alone.
    store.write(&key("a/one"), b"new").unwrap();
    stage(store, "tmp/new", b"newer");
    store.replace(&key("tmp/new"), &key("c/four")).unwrap();
    stage(store, "c/five", b"newest");
    store.delete_prefix(&key("b")).unwrap();
    assert_eq!(store.read(&key("c/six"), 10).unwrap(), b"0123456789");
    assert_eq!(store.read(&key("a/one"), 10).unwrap(), b"new");
    assert_eq!(store.read(&key("c/four"), 10).unwrap(), b"newer");
    assert_eq!(store.read(&key("c/five"), 10).unwrap(), b"newest");
}

fn linking_needs_a_file_and_a_free_key(store: &dyn BlockStore) {
    if !store.capabilities().hard_link {
        return;
    }
    store.write(&key("a/one"), b"1").unwrap();
    store.write(&key("a/two"), b"2").unwrap();
    for taken in ["a/two", "a", "a/two/below", "a/one"] {
        assert_eq!(kind(store.link(&key("a/one"), &key(taken))), StoreErrorKind::Exists, "{taken}");
    }
    for missing in ["none", "a", "a/none", "a/one/below"] {
        assert_eq!(kind(store.link(&key(missing), &key("new/file"))), StoreErrorKind::NotFound, "{missing}");
    }
    assert_eq!(store.read(&key("a/two"), 10).unwrap(), b"2");
    assert_eq!(kind(store.read(&key("new/file"), 10)), StoreErrorKind::NotFound);
}

fn a_range_is_written_in_place_and_never_beyond_the_end(store: &dyn BlockStore) {
    if !store.capabilities().range_write {
        assert_eq!(kind(store.write_range(&key("f"), 0, b"x")), StoreErrorKind::Unsupported);
        return;
    }
    store.write(&key("f"), b"0123456789").unwrap();
    let open = store.open(&key("f")).unwrap();
    store.write_range(&key("f"), 8, b"ab").unwrap();
    store.write_range(&key("f"), 0, b"XY").unwrap();
    store.write_range(&key("f"), 10, b"").unwrap();
    for (offset, bytes) in [(9, b"ab".as_slice()), (10, b"a"), (u64::MAX, b"a"), (11, b"")] {
        assert_eq!(kind(store.write_range(&key("f"), offset, bytes)), StoreErrorKind::ShortRead, "at {offset}");
    }
    assert_eq!(store.read(&key("f"), 100).unwrap(), b"XY234567ab");
    let mut buffer = [0; 2];
    open.read_at(0, &mut buffer).unwrap();
    assert_eq!(&buffer, b"XY");
}

fn appending_cuts_what_stood_behind_the_place_and_puts_the_bytes_there(store: &dyn BlockStore) {
    let at = key("d/grows");
    assert_eq!(kind(store.append(&at, 1, b"x")), StoreErrorKind::NotFound);
    store.append(&at, 0, b"one two").unwrap();
    store.append(&at, 7, b" three").unwrap();
    assert_eq!(store.read(&at, 99).unwrap(), b"one two three");
    store.append(&at, 4, b"2").unwrap();
    assert_eq!(store.read(&at, 99).unwrap(), b"one 2");
    store.append(&at, 3, b"").unwrap();
    assert_eq!(store.read(&at, 99).unwrap(), b"one");
    assert_eq!(kind(store.append(&at, 4, b"x")), StoreErrorKind::ShortRead);
    assert_eq!(store.read(&at, 99).unwrap(), b"one");
    store.append(&at, 0, b"anew").unwrap();
    assert_eq!(store.read(&at, 99).unwrap(), b"anew");
}

fn deleting_removes_one_file_and_a_missing_one_is_no_error(store: &dyn BlockStore) {
    store.write(&key("a/b/one"), b"1").unwrap();
    store.write(&key("a/two"), b"2").unwrap();
    store.delete(&key("a/b/one")).unwrap();
    store.delete(&key("a/b/one")).unwrap();
    store.delete(&key("none/none")).unwrap();
    store.delete(&key("a/two/below")).unwrap();
    // A prefix is no file.
    store.delete(&key("a")).unwrap();
    assert_eq!(names(store, Some("a")), [("two".to_string(), false)]);
    store.write(&key("a/b/one"), b"again").unwrap();
    store.delete(&key("a/two")).unwrap();
    assert_eq!(store.read(&key("a/b/one"), 10).unwrap(), b"again");
}

fn deleting_a_prefix_takes_what_is_below_and_no_namesake(store: &dyn BlockStore) {
    for file in ["o/a", "o/b/c/d", "o2/a", "x/o/a"] {
        store.write(&key(file), b"x").unwrap();
    }
    store.delete_prefix(&key("o")).unwrap();
    store.delete_prefix(&key("o")).unwrap();
    store.delete_prefix(&key("none/none")).unwrap();
    assert_eq!(names(store, None), [("o2".to_string(), true), ("x".to_string(), true)]);
    assert_eq!(store.read(&key("x/o/a"), 10).unwrap(), b"x");
    store.delete_prefix(&key("o2")).unwrap();
    store.delete_prefix(&key("x")).unwrap();
    assert_eq!(names(store, None), []);
    store.health_check().unwrap();
    store.write(&key("o/a"), b"new").unwrap();
}

fn listings_are_sorted_and_tell_files_from_prefixes(store: &dyn BlockStore) {
    for file in ["b", "a/1", "a/2/3", "c-d", "c/1", "Z"] {
        store.write(&key(file), b"").unwrap();
    }
    let wanted = [("Z", false), ("a", true), ("b", false), ("c", true), ("c-d", false)];
    assert_eq!(names(store, None), wanted.map(|(name, is_prefix)| (name.to_string(), is_prefix)));
    assert_eq!(names(store, Some("a")), [("1".to_string(), false), ("2".to_string(), true)]);
    for nothing in ["none", "a/none", "b", "b/below"] {
        assert_eq!(names(store, Some(nothing)), [], "{nothing}");
    }
}

fn a_file_is_no_prefix_and_a_prefix_no_file(store: &dyn BlockStore) {
    store.write(&key("file"), b"x").unwrap();
    store.write(&key("prefix/file"), b"x").unwrap();
    for refused in ["file/below", "file/far/below", "prefix"] {
        let refused = key(refused);
        assert_eq!(kind(store.write(&refused, b"y")), StoreErrorKind::Exists, "write {refused}");
        assert_eq!(kind(store.create(&refused)), StoreErrorKind::Exists, "create {refused}");
    }
    assert_eq!(store.read(&key("file"), 10).unwrap(), b"x");
    assert_eq!(store.read(&key("prefix/file"), 10).unwrap(), b"x");
}

fn errors_name_the_store_and_the_key(store: &dyn BlockStore) {
    let error: StoreError = store.read(&key("lost/shard.dat"), 1).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("lost/shard.dat") && message.contains(store.label()), "{message}");
    assert_eq!(error.key(), "lost/shard.dat");
}

fn space_is_told_by_those_that_know_it(store: &dyn BlockStore) {
    if store.capabilities().free_space {
        let space = store.space().unwrap();
        assert!(space.free <= space.total && space.total > 0);
    } else {
        assert_eq!(kind(store.space()), StoreErrorKind::Unsupported);
    }
    store.health_check().unwrap();
    store.close();
}

fn many_threads_may_use_it_at_once(store: &dyn BlockStore) {
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            scope.spawn(move || {
                for round in 0..20_u8 {
                    let (own, object) = (format!("tmp/{thread}-{round}"), format!("o-{thread}-{round}"));
                    stage(store, &format!("{own}/data"), &[thread; 1000]);
                    store.publish(&key(&own), &key(&object)).unwrap();
                    store.write(&key("shared/file"), &[thread; 1000]).unwrap();
                    let shared = store.read(&key("shared/file"), 1000).unwrap();
                    assert!(shared.len() == 1000 && shared.iter().all(|&byte| byte == shared[0]));
                    if round % 2 == 0 {
                        store.delete_prefix(&key(&object)).unwrap();
                    }
                }
            });
        }
    });
    let left = names(store, None).into_iter().filter(|(name, _)| name.starts_with("o-")).count();
    assert_eq!(left, 40);
}

fn with_local(check: fn(&dyn BlockStore)) {
    let root = tempfile::tempdir().unwrap();
    check(&LocalStore::open(root.path()).unwrap());
    // Whatever happened, the root stays.
    assert!(root.path().is_dir());
}

fn with_memory(check: fn(&dyn BlockStore)) {
    check(&MemoryStore::new("memory"));
}

fn with_fault(check: fn(&dyn BlockStore)) {
    check(&FaultStore::new(Arc::new(MemoryStore::new("faulty")), 0));
}

macro_rules! suite {
    ($($store:ident with $with:ident),* ; $checks:tt) => { $(suite!(@ $store $with $checks);)* };
    (@ $store:ident $with:ident [$($check:ident),* $(,)?]) => {
        mod $store {
            $(#[test]
            fn $check() {
                super::$with(super::$check);
            })*
        }
    };
}

suite! {
    local with with_local, memory with with_memory, fault with with_fault;
    [
        a_whole_file_comes_back_as_written,
        a_missing_file_is_not_found,
        a_file_longer_than_the_limit_is_refused,
        ranges_come_back_exactly_or_not_at_all,
        a_file_that_is_open_stays_what_it_was_when_the_key_gets_another,
        a_staged_file_takes_writes_in_any_order,
        creating_again_begins_with_an_empty_file,
        publishing_moves_everything,
        publishing_onto_something_leaves_both_untouched,
        replacing_moves_one_file_over_another,
        publishing_nothing_is_not_found,
        a_linked_file_is_one_file_until_either_key_gets_another,
        linking_needs_a_file_and_a_free_key,
        a_range_is_written_in_place_and_never_beyond_the_end,
        appending_cuts_what_stood_behind_the_place_and_puts_the_bytes_there,
        deleting_removes_one_file_and_a_missing_one_is_no_error,
        deleting_a_prefix_takes_what_is_below_and_no_namesake,
        listings_are_sorted_and_tell_files_from_prefixes,
        a_file_is_no_prefix_and_a_prefix_no_file,
        errors_name_the_store_and_the_key,
        space_is_told_by_those_that_know_it,
        many_threads_may_use_it_at_once,
    ]
}
