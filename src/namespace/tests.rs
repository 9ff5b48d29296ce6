use super::*;
use crate::archive::{Archive, Event, EventSink};
use crate::base::{ArchiveId, ErrorClass};
use crate::format::{ArchiveDescriptor, FileContent, NodeBody, NodeMeta, Profile};
use crate::store::LocalStore;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// A clock that goes on by a millisecond whenever it is asked.
#[derive(Debug, Default)]
struct Ticking(std::sync::atomic::AtomicI64);

impl Clock for Ticking {
    fn now(&self) -> Timestamp {
        let at = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Timestamp { seconds: 1_700_000_000 + at / 1000, nanoseconds: (at % 1000 * 1_000_000) as u32 }
    }
}

#[derive(Debug)]
struct NoEvents;

impl EventSink for NoEvents {
    fn record(&self, _event: Event) {}
}

struct Fixture {
    home: tempfile::TempDir,
    archive: Arc<Archive>,
}

impl Fixture {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let store = home.path().join("store");
        std::fs::create_dir_all(&store).unwrap();
        let store = Arc::new(LocalStore::open(&store).unwrap());
        let descriptor = ArchiveDescriptor::new(Profile::Compact, ArchiveId::random(), Timestamp::default());
        Archive::create(store.clone(), descriptor, "here".into()).unwrap();
        let archive = Archive::open(store, Arc::new(Ticking::default()), Arc::new(NoEvents)).unwrap();
        let archive = Arc::new(archive);
        Catalog::create(home.path(), &archive).unwrap();
        Self { home, archive }
    }

    fn open(&self) -> Namespace {
        let catalog = Arc::new(Catalog::open(self.home.path(), &self.archive).unwrap());
        Namespace::open(catalog, Arc::new(Ticking::default()), Arc::new(())).unwrap()
    }
}

fn file(name: &str) -> (NodeMeta, NodeBody) {
    let meta = NodeMeta { permissions: 0o644, xattrs: vec![(b"user.n".to_vec(), name.into())], ..Default::default() };
    (meta, NodeBody::File(FileContent::empty()))
}

fn make(namespace: &Namespace, parent: Node, name: &str, body: NodeBody) -> Node {
    let made = namespace.change(|draft| {
        let node = draft.make(file(name).0, body.clone());
        draft.add_name(parent, name.as_bytes(), node)?;
        Ok(node)
    });
    made.unwrap()
}

fn listed(namespace: &Namespace, directory: Node) -> Vec<String> {
    let mut names = Vec::new();
    let list = namespace.list(directory, None, &mut |name, _| {
        names.push(String::from_utf8_lossy(name).into_owned());
        true
    });
    list.unwrap();
    names
}

#[test]
fn a_change_is_seen_at_once_and_is_there_after_a_sync_and_a_new_opening() {
    let fixture = Fixture::new();
    let namespace = fixture.open();
    let directory = make(&namespace, Node::ROOT, "d", NodeBody::Directory);
    let node = make(&namespace, directory, "f", file("f").1);
    assert_eq!(namespace.lookup(directory, b"f").unwrap().unwrap().node, node);
    assert_eq!(namespace.inode(Node::ROOT).unwrap().unwrap().links, 3);
    namespace.sync().unwrap();
    drop(namespace);
    let namespace = fixture.open();
    assert_eq!(namespace.lookup(directory, b"f").unwrap().unwrap().node, node);
    assert_eq!(namespace.inode(Node::ROOT).unwrap().unwrap().links, 3);
    assert_eq!(namespace.parent(directory).unwrap(), Node::ROOT);
}

#[test]
fn numbers_of_nodes_are_not_given_twice() {
    let fixture = Fixture::new();
    let namespace = fixture.open();
    let first = make(&namespace, Node::ROOT, "a", file("a").1);
    drop(namespace);
    let namespace = fixture.open();
    let second = make(&namespace, Node::ROOT, "b", file("b").1);
    assert_ne!(first, second);
}

#[test]
fn an_open_node_outlives_its_last_name() {
    let fixture = Fixture::new();
    let namespace = fixture.open();
    let node = make(&namespace, Node::ROOT, "a", file("a").1);
    let opened = namespace.change(|draft| {
        draft.open(node);
        Ok(())
    });
    opened.unwrap();
    let removed = namespace.change(|draft| {
        draft.take_name(Node::ROOT, b"a", node)?;
        draft.drop_unnamed(node)
    });
    assert_eq!(removed.unwrap(), Removed::Open);
    assert_eq!(namespace.inode(node).unwrap().unwrap().links, 0);
    assert!(namespace.close(node).unwrap());
    assert_eq!(namespace.change(|draft| draft.drop_unnamed(node)).unwrap(), Removed::Gone);
    // Whoever still knows the number sees a node without names.
    assert_eq!(namespace.inode(node).unwrap().unwrap().links, 0);
    namespace.flush().unwrap();
    assert!(namespace.catalog().inode(node).unwrap().is_none());
}

#[test]
fn what_shall_run_when_a_change_is_durable_runs_after_it() {
    let fixture = Fixture::new();
    let namespace = fixture.open();
    let ran = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&ran);
    let changed = namespace.change(|draft| {
        let node = draft.make(file("a").0, file("a").1);
        draft.add_name(Node::ROOT, b"a", node)?;
        let noted = Arc::clone(&noted);
        draft.later(Box::new(move || noted.lock().unwrap().push(node)));
        Ok(())
    });
    changed.unwrap();
    // The flusher runs them in order, before the next group.
    namespace.flush().unwrap();
    make(&namespace, Node::ROOT, "b", file("b").1);
    namespace.flush().unwrap();
    drop(namespace);
    assert_eq!(ran.lock().unwrap().len(), 1);
}

/// What a random test does.
#[derive(Debug, Clone)]
enum Step {
    Make(u8, u8),
    MakeDirectory(u8, u8),
    Remove(u8, u8),
    Rename((u8, u8), (u8, u8)),
    Flush,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let name = || (0..4u8, 0..6u8);
    prop_oneof![
        4 => name().prop_map(|(d, n)| Step::Make(d, n)),
        1 => name().prop_map(|(d, n)| Step::MakeDirectory(d, n)),
        3 => name().prop_map(|(d, n)| Step::Remove(d, n)),
        3 => (name(), name()).prop_map(|(from, to)| Step::Rename(from, to)),
        1 => Just(Step::Flush),
        1 => Just(Step::Reopen),
    ]
}

/// Removes a name with its node; directories only when they are empty.
fn remove(namespace: &Namespace, directory: Node, name: &[u8]) -> NamespaceResult<()> {
    namespace.change(|draft| {
        let absent = || Stop::from(blockframe_api::VfsError::new(ErrorClass::NotFound, "absent"));
        let node = draft.child(directory, name)?.ok_or_else(absent)?;
        if draft.node(node)?.is_directory() && !draft.is_empty(node)? {
            return Err(blockframe_api::VfsError::new(ErrorClass::NotEmpty, "not empty").into());
        }
        draft.take_name(directory, name, node)?;
        draft.drop_unnamed(node)?;
        Ok(())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// The model: four directories in the root, each a map from names to nodes.
    #[test]
    fn names_are_what_a_map_says(steps in proptest::collection::vec(step(), 1..60)) {
        let fixture = Fixture::new();
        let mut namespace = fixture.open();
        let tops: Vec<Node> =
            (0..4).map(|top| make(&namespace, Node::ROOT, &format!("top{top}"), NodeBody::Directory)).collect();
        let mut model: Vec<BTreeMap<String, Node>> = vec![BTreeMap::new(); 4];
        for step in steps {
            match step {
                Step::Make(d, n) | Step::MakeDirectory(d, n) => {
                    let name = format!("n{n}");
                    if model[d as usize].contains_key(&name) {
                        continue;
                    }
                    let body = if matches!(step, Step::Make(..)) { file("x").1 } else { NodeBody::Directory };
                    let node = make(&namespace, tops[d as usize], &name, body);
                    model[d as usize].insert(name, node);
                }
                Step::Remove(d, n) => {
                    let name = format!("n{n}");
                    let outcome = remove(&namespace, tops[d as usize], name.as_bytes());
                    prop_assert_eq!(outcome.is_ok(), model[d as usize].remove(&name).is_some());
                }
                Step::Rename((d, n), (e, m)) => {
                    let (from, to) = (format!("n{n}"), format!("n{m}"));
                    if model[e as usize].contains_key(&to) || !model[d as usize].contains_key(&from) {
                        continue;
                    }
                    let node = model[d as usize].remove(&from).unwrap();
                    let moved = namespace.change(|draft| {
                        draft.take_name(tops[d as usize], from.as_bytes(), node)?;
                        draft.add_name(tops[e as usize], to.as_bytes(), node)
                    });
                    moved.unwrap();
                    model[e as usize].insert(to, node);
                }
                Step::Flush => namespace.flush().unwrap(),
                Step::Reopen => {
                    drop(namespace);
                    namespace = fixture.open();
                }
            }
            for (top, names) in model.iter().enumerate() {
                let expected: Vec<String> = names.keys().cloned().collect();
                prop_assert_eq!(listed(&namespace, tops[top]), expected);
                for (name, node) in names {
                    let found = namespace.lookup(tops[top], name.as_bytes()).unwrap().unwrap();
                    prop_assert_eq!(found.node, *node);
                }
                let directories = names.values().filter(|node| namespace.inode(**node).unwrap().unwrap().is_directory());
                let links = namespace.lookup(Node::ROOT, format!("top{top}").as_bytes()).unwrap().unwrap().links;
                prop_assert_eq!(links as usize, 2 + directories.count());
            }
        }
        // The journal alone gives the same.
        namespace.flush().unwrap();
        drop(namespace);
        std::fs::remove_file(fixture.home.path().join(".blockframe/catalog.db")).unwrap();
        let namespace = fixture.open();
        for (top, names) in model.iter().enumerate() {
            let expected: Vec<String> = names.keys().cloned().collect();
            prop_assert_eq!(listed(&namespace, tops[top]), expected);
        }
    }
}

#[test]
fn a_directory_longer_than_a_page_is_listed_whole_from_both_places() {
    let fixture = Fixture::new();
    let namespace = fixture.open();
    let name = |number: u32| format!("{number:05}");
    for number in (0..1500).step_by(2) {
        make(&namespace, Node::ROOT, &name(number), file("x").1);
    }
    namespace.flush().unwrap();
    for number in (1..1500).step_by(2) {
        make(&namespace, Node::ROOT, &name(number), file("x").1);
    }
    for number in (0..1500).step_by(100) {
        remove(&namespace, Node::ROOT, name(number).as_bytes()).unwrap();
    }
    // Of a name that was moved, the node is still there.
    let moved = namespace.lookup(Node::ROOT, b"00002").unwrap().unwrap().node;
    let rename = namespace.change(|draft| {
        draft.take_name(Node::ROOT, b"00002", moved)?;
        draft.add_name(Node::ROOT, b"moved", moved)
    });
    rename.unwrap();
    let stays = |number: &u32| !number.is_multiple_of(100) && *number != 2;
    let expected: Vec<String> = (0..1500).filter(stays).map(name).chain(["moved".into()]).collect();
    assert_eq!(listed(&namespace, Node::ROOT), expected);
    let mut after = Vec::new();
    let list = namespace.list(Node::ROOT, Some(b"01400"), &mut |name, _| {
        after.push(name.to_vec());
        after.len() < 3
    });
    list.unwrap();
    assert_eq!(after, [b"01401", b"01402", b"01403"]);
}
