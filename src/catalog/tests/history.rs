use super::groups::{empty, gone, inode, name, staged, write};
use super::*;
use crate::format::journal::Record;
use proptest::prelude::*;
use std::collections::BTreeSet;

const CONTENTS: [&[u8]; 3] = [b"one", b"two!", b"three"];

fn at(seconds: i64) -> Timestamp {
    Timestamp { seconds: 1_000_000 + seconds, nanoseconds: 0 }
}

fn time(seconds: i64) -> Record {
    Record::Time(at(seconds))
}

fn content(bytes: &[u8]) -> NodeBody {
    NodeBody::File(FileContent { size: bytes.len() as u64, hash: Digest::of(bytes), extents: None })
}

/// Everything below the root as of a time; checks that all questions agree.
fn tree_at(catalog: &Catalog, at: Timestamp) -> Tree {
    let mut tree = Tree::new();
    let mut open = vec![(EntryPath::root(), Node::ROOT)];
    while let Some((above, node)) = open.pop() {
        let mut names = Vec::new();
        let mut collect = |name: &[u8], inode: Inode| {
            names.push((name.to_vec(), inode));
            true
        };
        catalog.list_at(node, None, at, &mut collect).unwrap();
        assert!(names.is_sorted_by(|(a, _), (b, _)| a < b));
        for (name, inode) in names {
            let path = above.join(&name).unwrap();
            assert_eq!(catalog.lookup_at(node, &name, at).unwrap().as_ref(), Some(&inode));
            assert_eq!(catalog.resolve_at(&path, at).unwrap().as_ref(), Some(&inode));
            assert_eq!(catalog.inode_at(inode.node, at).unwrap().as_ref(), Some(&inode));
            if inode.is_directory() {
                assert_eq!(catalog.parent_at(inode.node, at).unwrap(), Some(node));
                open.push((path.clone(), inode.node));
            }
            tree.insert(path.as_bytes().to_vec(), inode);
        }
    }
    tree
}

/// As views show it: directories do not count their subdirectories.
fn as_view(mut tree: Tree) -> Tree {
    tree.values_mut().filter(|inode| inode.is_directory()).for_each(|inode| inode.links = 1);
    tree
}

/// A namespace that makes records of random operations, all of them valid.
#[derive(Default)]
struct Player {
    /// (directory, name) to node.
    names: BTreeMap<(u64, u8), u64>,
    directories: BTreeSet<u64>,
    next: u64,
}

impl Player {
    fn new() -> Self {
        Self { directories: BTreeSet::from([1]), next: 2, ..Self::default() }
    }

    fn place(&self, a: u8) -> (u64, u8) {
        let at = usize::from(a) % self.directories.len();
        (*self.directories.iter().nth(at).unwrap(), b'a' + a / 32 % 3)
    }

    fn is_below(&self, mut directory: u64, above: u64) -> bool {
        while directory != above && directory != 1 {
            directory = self.names.iter().find(|(_, node)| **node == directory).unwrap().0.0;
        }
        directory == above
    }

    fn remove(&mut self, place: (u64, u8), out: &mut Vec<Record>) {
        let Some(node) = self.names.remove(&place) else { return };
        out.push(gone(place.0, std::str::from_utf8(&[place.1]).unwrap()));
        if self.directories.remove(&node) || !self.names.values().any(|other| *other == node) {
            out.push(Record::InodeRemoved(node));
        }
    }

    fn add(&mut self, place: (u64, u8), node: u64, out: &mut Vec<Record>) {
        self.names.insert(place, node);
        out.push(name(place.0, std::str::from_utf8(&[place.1]).unwrap(), node));
    }

    fn play(&mut self, (what, a, b): (u8, u8, u8), out: &mut Vec<Record>) {
        let (place, other) = (self.place(a), self.place(b));
        let full = |player: &Self, node| player.names.keys().any(|(parent, _)| *parent == node);
        let node = self.names.get(&place).copied();
        let removable = |player: &Self, place| player.names.get(place).is_none_or(|node| !full(player, *node));
        match what % 6 {
            0 | 1 if node.is_none() => {
                let node = self.next;
                self.next += 1;
                let body = if b % 3 == 0 {
                    self.directories.insert(node);
                    NodeBody::Directory
                } else {
                    content(CONTENTS[usize::from(b) % 3])
                };
                out.push(inode(node, body));
                self.add(place, node, out);
            }
            0..=2 => {
                let Some(node) = node.filter(|node| !self.directories.contains(node)) else { return };
                out.push(inode(node, content(CONTENTS[usize::from(b) % 3])));
            }
            3 if removable(self, &place) => self.remove(place, out),
            4 if place != other && removable(self, &other) => {
                let Some(node) = node else { return };
                if self.is_below(other.0, node) || self.names.get(&other) == Some(&node) {
                    return;
                }
                // What the directory that goes holds must not be what comes.
                self.remove(other, out);
                if !self.directories.contains(&other.0) {
                    return;
                }
                self.names.remove(&place);
                out.push(gone(place.0, std::str::from_utf8(&[place.1]).unwrap()));
                self.add(other, node, out);
            }
            5 if !self.names.contains_key(&other) => {
                let Some(node) = node.filter(|node| !self.directories.contains(node)) else { return };
                self.add(other, node, out);
            }
            _ => {}
        }
    }
}

fn rebuilt(place: &Place) -> Catalog {
    place.lose_database();
    place.catalog()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if encrypted() { 12 } else { 32 }))]
    #[test]
    fn every_moment_is_seen_again_as_it_was(
        groups in proptest::collection::vec(proptest::collection::vec(any::<(u8, u8, u8)>(), 1..6), 1..20),
        forget in 0..20usize,
    ) {
        let place = Place::new();
        place.store_contents(&CONTENTS);
        let catalog = place.catalog();
        let writer = catalog.writer().unwrap();
        let mut player = Player::new();
        let mut moments = vec![(at(0), Tree::new())];
        for (number, steps) in groups.iter().enumerate() {
            let now = 2 * number as i64 + 2;
            let mut records = vec![time(now)];
            steps.iter().for_each(|step| player.play(*step, &mut records));
            write(&writer, &records);
            if number == groups.len() / 2 {
                writer.rewrite_journal().unwrap();
            }
            moments.push((at(now), as_view(tree(&catalog).unwrap())));
        }
        let check = |catalog: &Catalog, moments: &[(Timestamp, Tree)]| {
            for (moment, tree) in moments {
                // At the very moment, what came and went within it may be seen.
                let behind = Timestamp { nanoseconds: 1000, ..*moment };
                assert_eq!(&tree_at(catalog, behind), tree, "at {moment:?}");
                let between = Timestamp { nanoseconds: 999_999_999, ..*moment };
                assert_eq!(&tree_at(catalog, between), tree, "after {moment:?}");
            }
        };
        check(&catalog, &moments);
        writer.finish().unwrap();
        drop(catalog);
        let catalog = rebuilt(&place);
        check(&catalog, &moments);
        let writer = catalog.writer().unwrap();
        let (before, rest) = moments.split_at(forget.min(moments.len()));
        let before = before.last().map_or(at(0), |(moment, _)| *moment);
        writer.remove_history(before).unwrap();
        prop_assert_eq!(writer.remove_history(before).unwrap(), HistoryRemoved::default());
        prop_assert!(catalog.history_usage().unwrap().oldest.is_none_or(|oldest| oldest > before));
        check(&catalog, rest);
        writer.finish().unwrap();
        drop(catalog);
        check(&rebuilt(&place), rest);
    }
}

#[test]
fn versions_of_a_file_and_of_a_name_are_kept_until_they_are_forgotten() {
    let place = Place::new();
    place.store_contents(&CONTENTS);
    let object = object(&CONTENTS).record;
    let catalog = place.catalog();
    let writer = catalog.writer().unwrap();
    write(&writer, &[time(10), inode(2, content(b"one")), name(1, "f", 2)]);
    write(&writer, &[time(20), inode(2, content(b"two!"))]);
    write(&writer, &[time(30), gone(1, "f"), Record::InodeRemoved(2), inode(3, content(b"two!")), name(1, "f", 3)]);
    write(&writer, &[time(40), gone(1, "f"), Record::InodeRemoved(3)]);
    let states = catalog.states_of(Node::new(2)).unwrap();
    let bodies: Vec<_> = states.iter().map(|state| (state.since, state.until, state.body.clone())).collect();
    assert_eq!(bodies, [(at(10), Some(at(20)), content(b"one")), (at(20), Some(at(30)), content(b"two!"))]);
    let names = catalog.names_at_place(Node::ROOT, b"f").unwrap();
    let names: Vec<_> = names.iter().map(|state| (state.node.number(), state.since, state.until)).collect();
    assert_eq!(names, [(2, at(10), Some(at(30))), (3, at(30), Some(at(40)))]);
    assert_eq!(catalog.past_names(Node::ROOT).unwrap(), [b"f"]);
    assert_eq!(catalog.history_usage().unwrap(), HistoryUsage { bytes: 7, oldest: Some(at(20)) });
    // Nothing but history needs the object.
    assert_eq!(writer.unreferenced_objects().unwrap(), []);
    assert!(matches!(writer.remove_object(&object).unwrap_err(), CatalogError::ObjectNeeded { .. }));
    assert_eq!(writer.remove_history(at(30)).unwrap(), HistoryRemoved { names: 1, states: 2 });
    assert_eq!(catalog.history_usage().unwrap(), HistoryUsage { bytes: 4, oldest: Some(at(40)) });
    assert_eq!(writer.unreferenced_objects().unwrap(), []);
    assert_eq!(writer.remove_history(at(40)).unwrap(), HistoryRemoved { names: 1, states: 1 });
    assert_eq!(catalog.history_usage().unwrap(), HistoryUsage::default());
    writer.remove_object(&object).unwrap();
    assert_eq!(catalog.names_at_place(Node::ROOT, b"f").unwrap(), []);
}

#[test]
fn what_must_go_for_the_rest_to_fit_is_known_before_it_goes() {
    let place = Place::new();
    for content in CONTENTS {
        place.store_contents(&[content]);
    }
    let catalog = place.catalog();
    let writer = catalog.writer().unwrap();
    write(&writer, &[time(10), inode(2, content(b"one")), name(1, "f", 2), inode(3, content(b"three"))]);
    write(&writer, &[name(1, "g", 3)]);
    for (seconds, bytes) in [(20, CONTENTS[1]), (30, CONTENTS[0]), (40, CONTENTS[2]), (50, b"")] {
        write(&writer, &[time(seconds), inode(2, content(bytes))]);
    }
    // "three" is current in another file. "one" ended at 40 last, "two!" at 30.
    assert_eq!(catalog.history_usage().unwrap().bytes, 7);
    for (most, cut) in [(7, None), (6, Some(at(30))), (3, Some(at(30))), (2, Some(at(40))), (0, Some(at(40)))] {
        assert_eq!(catalog.history_cut(most).unwrap(), cut, "at most {most}");
    }
    assert_eq!(catalog.history_until(at(30)).unwrap(), HistoryRemoved { names: 0, states: 2 });
    let freed = |before| -> Vec<u64> {
        catalog.unreferenced_after(before).unwrap().iter().map(|object| object.key.plain_size).collect()
    };
    assert_eq!((freed(at(29)), freed(at(30)), freed(at(40)).len()), (vec![], vec![4], 2));
    writer.remove_history(at(30)).unwrap();
    assert_eq!((catalog.history_usage().unwrap().bytes, catalog.history_cut(3).unwrap()), (3, None));
}

#[test]
fn times_of_which_not_all_is_known_are_refused_after_any_rebuild() {
    let place = Place::new();
    place.store_contents(&CONTENTS);
    let catalog = place.catalog();
    let writer = catalog.writer().unwrap();
    write(&writer, &[time(10), inode(2, content(b"one")), name(1, "f", 2)]);
    write(&writer, &[time(20), inode(2, content(b"two!"))]);
    writer.remove_history(at(15)).unwrap();
    // Nothing was forgotten, so all is known.
    assert_eq!(catalog.history_begin().unwrap(), None);
    catalog.check_remembered(at(0)).unwrap();
    writer.remove_history(at(25)).unwrap();
    let check = |catalog: &Catalog| {
        assert_eq!(catalog.history_begin().unwrap(), Some(at(25)));
        catalog.check_remembered(at(25)).unwrap();
        let error = catalog.check_remembered(at(24)).unwrap_err();
        assert_eq!(error.class(), crate::base::ErrorClass::NotFound);
        assert!(error.to_string().contains("1970-01-12T13:47:05Z"), "{error}");
    };
    check(&catalog);
    writer.finish().unwrap();
    drop(catalog);
    let catalog = rebuilt(&place);
    check(&catalog);
    // A snapshot tells it too.
    let writer = catalog.writer().unwrap();
    writer.rewrite_journal().unwrap();
    writer.finish().unwrap();
    drop(catalog);
    check(&rebuilt(&place));
}

#[test]
fn what_nobody_saw_is_not_kept() {
    let place = Place::new();
    place.store_contents(&CONTENTS);
    let catalog = place.catalog();
    let writer = catalog.writer().unwrap();
    let half = |seconds| Record::Time(Timestamp { nanoseconds: 500_000_000, ..at(seconds) });
    // A directory that lived for half a second, and an empty file.
    write(&writer, &[time(1), inode(2, NodeBody::Directory), name(1, "d", 2), inode(3, empty()), name(1, "e", 3)]);
    write(&writer, &[half(1), gone(1, "d"), Record::InodeRemoved(2), gone(1, "e"), Record::InodeRemoved(3)]);
    // A file that was written for an hour and never committed.
    write(&writer, &[time(10), inode(4, empty()), name(1, "t", 4), staged(4, 1)]);
    write(&writer, &[time(3600), gone(1, "t"), Record::InodeRemoved(4)]);
    assert_eq!(catalog.history_usage().unwrap(), HistoryUsage::default());
    // A file that was committed after an hour: it never was empty.
    write(&writer, &[time(4000), inode(5, empty()), name(1, "w", 5), staged(5, 2)]);
    write(&writer, &[time(8000), inode(5, content(b"one")), Record::StagedRemoved(5)]);
    assert_eq!(catalog.history_usage().unwrap(), HistoryUsage::default());
    assert_eq!(catalog.lookup_at(Node::ROOT, b"w", at(5000)).unwrap().unwrap().body, content(b"one"));
    assert_eq!(catalog.lookup_at(Node::ROOT, b"w", at(3999)).unwrap(), None);
    assert_eq!(catalog.inode_at(Node::new(5), at(3999)).unwrap(), None);
    // But a committed content is kept, however short it was there, and an attribute that was long so.
    write(&writer, &[time(8000), inode(5, content(b"two!"))]);
    write(&writer, &[time(8000), inode(5, content(b"three"))]);
    write(&writer, &[time(8000), inode(6, empty()), name(1, "x", 6)]);
    write(&writer, &[time(9000), Record::Inode { node: 6, meta: meta(99), body: empty() }]);
    assert_eq!(catalog.states_of(Node::new(5)).unwrap().len(), 3);
    assert_eq!(catalog.states_of(Node::new(6)).unwrap().len(), 2);
    // Nothing changed: no state ends.
    write(&writer, &[time(9900), Record::Inode { node: 6, meta: meta(99), body: empty() }]);
    assert_eq!(catalog.states_of(Node::new(6)).unwrap().len(), 2);
    let before = catalog.states_of(Node::new(5)).unwrap();
    writer.finish().unwrap();
    drop(catalog);
    let catalog = rebuilt(&place);
    assert_eq!(catalog.states_of(Node::new(5)).unwrap(), before);
    catalog.writer().unwrap().rewrite_journal().unwrap();
    drop(catalog);
    assert_eq!(rebuilt(&place).states_of(Node::new(5)).unwrap(), before);
}

#[test]
fn a_large_directory_lists_as_it_was() {
    let place = Place::new();
    let catalog = place.catalog();
    let writer = catalog.writer().unwrap();
    let mut records = vec![time(1)];
    let count = 2 * LIST_PAGE as u64 + 7;
    for number in 0..count {
        records.extend([inode(10 + number, NodeBody::Fifo), name(1, &format!("{number:06}"), 10 + number)]);
    }
    write(&writer, &records);
    let before = as_view(tree(&catalog).unwrap());
    // All but each third go, and others come.
    let mut records = vec![time(5)];
    for number in (0..count).filter(|number| number % 3 > 0) {
        records.extend([gone(1, &format!("{number:06}")), Record::InodeRemoved(10 + number)]);
        records.extend([inode(10_000 + number, NodeBody::Socket), name(1, &format!("{number:06}x"), 10_000 + number)]);
    }
    write(&writer, &records);
    assert_eq!(tree_at(&catalog, at(4)), before);
    assert_eq!(tree_at(&catalog, at(5)), as_view(tree(&catalog).unwrap()));
    assert_eq!(tree_at(&catalog, at(0)), Tree::new());
    let mut some = Vec::new();
    let mut collect = |name: &[u8], _: Inode| {
        some.push(name.to_vec());
        some.len() < 5
    };
    catalog.list_at(Node::ROOT, Some(b"000600"), at(4), &mut collect).unwrap();
    assert_eq!(some, (601..606).map(|number| format!("{number:06}").into_bytes()).collect::<Vec<_>>());
}

#[test]
fn times_of_change_are_an_hour_apart() {
    let place = Place::new();
    let catalog = place.catalog();
    let writer = catalog.writer().unwrap();
    for minutes in 0..300i64 {
        let meta = NodeMeta { permissions: minutes as u16, ..NodeMeta::default() };
        write(&writer, &[time(60 * minutes), Record::Inode { node: 1, meta, body: NodeBody::Directory }]);
    }
    let times = catalog.change_times(100).unwrap();
    let expected: Vec<_> = (0..5).map(|hour| at(60 * (299 - 60 * hour))).collect();
    assert_eq!(times, expected);
    assert_eq!(catalog.change_times(2).unwrap(), expected[..2]);
}

#[test]
fn a_commit_of_entries_keeps_what_it_replaces() {
    let place = Place::new();
    place.store_contents(&CONTENTS);
    place.commit(&[file("a", b"one"), link("b", "a")]).unwrap();
    place.commit(&[file("b", b"two!"), directory("a")]).unwrap();
    let catalog = place.catalog();
    let node = catalog.resolve(&path("b")).unwrap().unwrap().node;
    let bodies: Vec<_> = catalog.states_of(node).unwrap().into_iter().map(|state| state.body).collect();
    assert_eq!(bodies, [content(b"one"), content(b"two!")]);
    assert!(catalog.states_of(node).unwrap().iter().all(|state| state.since == NOW));
    let before = catalog.states_of(node).unwrap();
    // What the objects alone say has no past.
    drop(catalog);
    assert_eq!(rebuilt(&place).states_of(node).unwrap(), before);
}

#[test]
fn a_damaged_row_of_the_past_is_noticed() {
    let place = Place::new();
    place.store_contents(&CONTENTS);
    let catalog = place.catalog();
    let writer = catalog.writer().unwrap();
    write(&writer, &[time(10), inode(2, content(b"one")), name(1, "f", 2)]);
    write(&writer, &[time(20), gone(1, "f"), Record::InodeRemoved(2)]);
    writer.finish().unwrap();
    drop(catalog);
    for change in [
        "UPDATE past_inode SET since = since + 1",
        "UPDATE past_inode SET until = until + 1",
        "UPDATE past_inode SET ino = 3",
        "UPDATE past_inode SET body = zeroblob(80)",
        "UPDATE past_dirent SET since = since + 1",
        "UPDATE past_dirent SET until = until + 1",
        "UPDATE past_dirent SET ino = 1",
        "UPDATE past_dirent SET name = x'67'",
    ] {
        let copy = place.copy();
        let catalog = copy.catalog();
        let database = catalog.shared.site.open_database(Use::Write, 1024).unwrap();
        database.connection.execute(change, []).unwrap();
        drop(database);
        let outcomes = [
            catalog.lookup_at(Node::ROOT, b"f", at(15)).map(drop),
            catalog.lookup_at(Node::ROOT, b"g", at(15)).map(drop),
            catalog.states_of(Node::new(3)).map(drop),
        ];
        let noticed = outcomes.iter().any(|outcome| matches!(outcome, Err(CatalogError::Damaged { .. })));
        assert!(noticed, "{change}: {outcomes:?}");
        // And the next opening has it right.
        assert_eq!(copy.catalog().lookup_at(Node::ROOT, b"f", at(15)).unwrap().unwrap().body, content(b"one"));
    }
}

#[test]
fn a_gap_in_the_journal_leaves_what_is_known_of_the_past() {
    let place = Place::new();
    place.store_contents(&CONTENTS);
    let catalog = place.catalog();
    let writer = catalog.writer().unwrap();
    write(&writer, &[time(10), inode(2, content(b"one")), name(1, "f", 2)]);
    write(&writer, &[time(20), gone(1, "f"), Record::InodeRemoved(2)]);
    writer.rewrite_journal().unwrap();
    write(&writer, &[time(30), inode(3, empty()), name(1, "lost", 3)]);
    write(&writer, &[time(40), inode(4, empty()), name(1, "there", 4)]);
    writer.finish().unwrap();
    drop(catalog);
    let mut bytes = std::fs::read(place.journal()).unwrap();
    bytes[4096 + 100] ^= 1;
    std::fs::write(place.journal(), bytes).unwrap();
    let catalog = rebuilt(&place);
    assert_eq!(catalog.lookup_at(Node::ROOT, b"f", at(15)).unwrap().unwrap().body, content(b"one"));
    assert!(catalog.lookup(Node::ROOT, b"there").unwrap().is_some());
    assert_eq!(catalog.history_usage().unwrap().bytes, 3);
}
