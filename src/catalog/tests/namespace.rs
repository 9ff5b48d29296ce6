use super::*;
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};

/// The namespace as it should be: names lead to ids, ids to nodes.
#[derive(Clone, Default)]
struct Model {
    names: BTreeMap<Vec<u8>, u64>,
    nodes: HashMap<u64, (NodeMeta, NodeBody)>,
    next: u64,
}

impl Model {
    fn commit(&self, entries: &[Entry]) -> Option<Self> {
        let mut model = self.clone();
        let mut claimed = HashSet::new();
        for entry in entries {
            model.put(entry, &mut claimed)?;
        }
        Some(model)
    }

    fn put(&mut self, entry: &Entry, claimed: &mut HashSet<u64>) -> Option<()> {
        let path = entry.path().as_bytes().to_vec();
        self.parents(&path)?;
        let old = self.names.get(&path).copied();
        match entry {
            Entry::HardLink { target, .. } => {
                let aim = *self.names.get(target.as_bytes())?;
                claimed.insert(aim);
                if old == Some(aim) {
                    return Some(());
                }
                self.remove(&path);
                if self.names.values().all(|id| *id != aim) || self.nodes[&aim].1 == NodeBody::Directory {
                    return None;
                }
                self.names.insert(path, aim);
            }
            Entry::Node { meta, body, .. } => {
                let new = (meta.clone(), body.clone());
                let Some(id) = old else {
                    self.add(path, new);
                    return Some(());
                };
                let shared = self.links(id) > 1 && *body != NodeBody::Directory;
                let taken = shared && claimed.contains(&id);
                if !taken && self.nodes[&id] == new {
                    claimed.extend(shared.then_some(id));
                } else if taken || self.nodes[&id].1.kind() != body.kind() {
                    self.remove(&path);
                    self.add(path, new);
                } else {
                    if shared {
                        let moved = self.next;
                        self.next += 1;
                        self.nodes.insert(moved, self.nodes[&id].clone());
                        let others = self.names.iter_mut().filter(|(name, other)| **other == id && **name != path);
                        others.for_each(|(_, other)| *other = moved);
                    }
                    self.nodes.insert(id, new);
                }
            }
        }
        Some(())
    }

    fn links(&self, id: u64) -> usize {
        self.names.values().filter(|other| **other == id).count()
    }

    fn add(&mut self, path: Vec<u8>, node: (NodeMeta, NodeBody)) {
        self.names.insert(path, self.next);
        self.nodes.insert(self.next, node);
        self.next += 1;
    }

    fn remove(&mut self, path: &[u8]) {
        let below = [path, b"/"].concat();
        self.names.retain(|name, _| name != path && !name.starts_with(&below));
    }

    fn parents(&mut self, path: &[u8]) -> Option<()> {
        for cut in path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(cut, _)| cut) {
            let parent = &path[..cut];
            match self.names.get(parent) {
                Some(id) if self.nodes[id].1 != NodeBody::Directory => return None,
                Some(_) => {}
                None => {
                    let meta = NodeMeta { permissions: 0o755, modified: NOW, changed: NOW, ..NodeMeta::default() };
                    self.add(parent.to_vec(), (meta, NodeBody::Directory));
                }
            }
        }
        Some(())
    }

    /// Compares; `numbers` remembers each id's inode number over all commits.
    fn check(&self, tree: &Tree, numbers: &mut HashMap<u64, Node>) {
        assert_eq!(tree.keys().collect::<Vec<_>>(), self.names.keys().collect::<Vec<_>>());
        let mut seen: HashMap<Node, u64> = HashMap::new();
        for (path, id) in &self.names {
            let inode = &tree[path];
            let shown = String::from_utf8_lossy(path);
            assert_eq!(*seen.entry(inode.node).or_insert(*id), *id, "{shown} shares its node with another");
            assert_eq!(*numbers.entry(*id).or_insert(inode.node), inode.node, "{shown} has another inode number");
            let (meta, body) = &self.nodes[id];
            assert_eq!(inode.body, *body, "{shown}");
            if meta.modified != NOW {
                assert_eq!(inode.meta, *meta, "{shown}");
            }
            let links = if *body == NodeBody::Directory {
                let depth = path.iter().filter(|b| **b == b'/').count() + 1;
                let below = [path.as_slice(), b"/"].concat();
                let children = self.names.iter().filter(|(name, id)| {
                    name.starts_with(&below)
                        && name.iter().filter(|b| **b == b'/').count() == depth
                        && self.nodes[id].1 == NodeBody::Directory
                });
                2 + children.count()
            } else {
                self.links(*id)
            };
            assert_eq!(inode.links as usize, links, "links of {shown}");
        }
    }
}

const CONTENTS: [&[u8]; 3] = [b"one", b"two!", b"three"];

fn entry() -> impl Strategy<Value = Entry> {
    // Few paths, so that entries meet: links need a target that stands there.
    let name = prop_oneof![Just("a"), Just("\u{fc}")];
    let any_path = proptest::collection::vec(name, 1..=2).prop_map(|names| path(names.join("/")));
    let body = prop_oneof![
        3 => (0..3usize).prop_map(|at| {
            let content = CONTENTS[at];
            NodeBody::File(FileContent { size: content.len() as u64, hash: Digest::of(content), extents: None })
        }),
        3 => Just(NodeBody::Directory),
        1 => Just(NodeBody::File(FileContent::empty())),
        1 => Just(NodeBody::Symlink(b"../x".to_vec())),
        1 => Just(NodeBody::Fifo),
    ];
    prop_oneof![
        3 => (any_path.clone(), 0..3i64, body).prop_map(|(path, time, body)| Entry::Node { path, meta: meta(time), body }),
        1 => (any_path.clone(), any_path).prop_map(|(path, target)| Entry::HardLink { path, target }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if encrypted() { 16 } else { 48 }))]
    #[test]
    fn commits_do_what_the_model_does_and_the_journal_repeats_it(
        commits in proptest::collection::vec(proptest::collection::vec(entry(), 1..5), 1..12)
    ) {
        let place = Place::new();
        place.store_contents(&CONTENTS);
        let mut model = Model::default();
        let mut numbers = HashMap::new();
        for entries in &commits {
            let outcome = place.commit(entries);
            match model.commit(entries) {
                Some(changed) => {
                    let summary = outcome.unwrap();
                    prop_assert_eq!(summary.created + summary.changed + summary.unchanged, entries.len() as u64);
                    model = changed;
                }
                None => prop_assert!(outcome.is_err()),
            }
            model.check(&tree(&place.catalog()).unwrap(), &mut numbers);
        }
        let catalog = place.catalog();
        let (before, totals) = (tree(&catalog).unwrap(), catalog.totals().unwrap());
        prop_assert_eq!(totals.nodes as usize, 1 + before.values().map(|i| i.node).collect::<HashSet<_>>().len());
        prop_assert_eq!(catalog.verify_journal(false).unwrap(), Vec::<String>::new());
        drop(catalog);
        place.lose_database();
        let catalog = place.catalog();
        prop_assert_eq!(tree(&catalog).unwrap(), before);
        prop_assert_eq!(catalog.totals().unwrap(), totals);
    }
}

#[test]
fn a_changed_name_parts_from_its_hard_links_and_keeps_its_number() {
    let place = Place::new();
    place.store_contents(&CONTENTS);
    place.commit(&[file("a", b"one"), link("b", "a"), link("c", "a")]).unwrap();
    let before = tree(&place.catalog()).unwrap();
    assert!(before.values().all(|inode| inode.links == 3 && inode.node == before[&b"a"[..]].node));
    place.commit(&[file("b", b"two!")]).unwrap();
    let after = tree(&place.catalog()).unwrap();
    let [a, b, c] = [b"a", b"b", b"c"].map(|name| &after[&name[..]]);
    assert_eq!((b.node, b.links), (before[&b"b"[..]].node, 1));
    assert_eq!((a, a.links), (c, 2));
    assert_eq!(a.body, before[&b"a"[..]].body);
    assert_ne!(b.body, a.body);
    // Linked again at the source, they are one node again.
    place.commit(&[file("a", b"two!"), link("b", "a"), link("c", "a")]).unwrap();
    let again = tree(&place.catalog()).unwrap();
    assert!(again.values().all(|inode| inode.links == 3 && inode.node == a.node));
    assert_eq!(place.catalog().totals().unwrap().nodes, 2);
}

#[test]
fn names_that_are_no_links_at_the_source_any_more_become_two_nodes() {
    let place = Place::new();
    place.store_contents(&CONTENTS);
    place.commit(&[file("a", b"one"), link("b", "a")]).unwrap();
    place.commit(&[file("a", b"one"), file("b", b"one")]).unwrap();
    let tree = tree(&place.catalog()).unwrap();
    assert!(tree.values().all(|inode| inode.links == 1));
}

#[test]
fn an_unchanged_tree_writes_nothing() {
    let place = Place::new();
    place.store_contents(&CONTENTS);
    let entries = [directory("d"), file("d/one", b"one"), link("d/again", "d/one"), file("empty", b"")];
    assert_eq!(place.commit(&entries).unwrap().created, 4);
    let before = (std::fs::metadata(place.journal()).unwrap().len(), place.catalog().generation().unwrap());
    assert_eq!(place.commit(&entries).unwrap(), CommitSummary { created: 0, changed: 0, unchanged: 4 });
    assert_eq!(before, (std::fs::metadata(place.journal()).unwrap().len(), place.catalog().generation().unwrap()));
}

#[test]
fn a_failed_commit_changes_nothing() {
    let place = Place::new();
    place.store_contents(&CONTENTS);
    place.commit(&[file("a", b"one")]).unwrap();
    let before = tree(&place.catalog()).unwrap();
    let error = place.commit(&[file("b", b"two!"), file("c", b"not stored")]).unwrap_err();
    assert!(matches!(error, CatalogError::ContentMissing { .. }), "{error}");
    let error = place.commit(&[file("b", b"two!"), file("a/b", b"one")]).unwrap_err();
    assert!(matches!(error, CatalogError::ParentNotDirectory { .. }), "{error}");
    let error = place.commit(&[file("b", b"two!"), link("x", "nowhere")]).unwrap_err();
    assert!(matches!(error, CatalogError::LinkTargetMissing { .. }), "{error}");
    let writer = place.catalog().writer().unwrap();
    let broken = CatalogError::Interrupted;
    assert!(writer.commit_entries(&mut [Ok(file("b", b"two!")), Err(broken)].into_iter()).is_err());
    // The writer goes on.
    writer.commit_entries(&mut [Ok(file("a", b"one"))].into_iter()).unwrap();
    drop(writer);
    assert_eq!(tree(&place.catalog()).unwrap(), before);
    place.lose_database();
    assert_eq!(tree(&place.catalog()).unwrap(), before);
}

#[test]
fn a_second_writer_is_refused_while_the_first_lives() {
    let place = Place::new();
    let (one, two) = (place.catalog(), place.catalog());
    let writer = one.writer().unwrap();
    assert!(matches!(two.writer().unwrap_err(), CatalogError::Locked { .. }));
    // A reader is not.
    writer.commit_entries(&mut [Ok(directory("d"))].into_iter()).unwrap();
    assert!(place.catalog().resolve(&path("d")).unwrap().is_some());
    writer.finish().unwrap();
    two.writer().unwrap().finish().unwrap();
}

#[test]
fn long_names_and_names_that_are_not_utf8_are_kept() {
    let place = Place::new();
    let names = [vec![b'x'; 255], vec![0xff, 0xfe, b'\n'], b" ".to_vec(), "\u{1f600}".into()];
    place.commit(&names.clone().map(|name| file(name, b""))).unwrap();
    place.lose_database();
    let catalog = place.catalog();
    for name in names {
        assert!(catalog.lookup(Node::ROOT, &name).unwrap().is_some());
    }
}

#[test]
fn a_directory_lists_over_many_pages_and_from_any_name() {
    let place = Place::new();
    let entries: Vec<_> = (0..LIST_PAGE * 2 + 3).map(|number| file(format!("{number:05}"), b"")).collect();
    place.commit(&entries).unwrap();
    let catalog = place.catalog();
    let mut names = Vec::new();
    let collect = &mut |name: &[u8], _: Inode| {
        names.push(name.to_vec());
        true
    };
    catalog.list(Node::ROOT, None, collect).unwrap();
    assert_eq!(names.len(), entries.len());
    let mut rest = Vec::new();
    catalog
        .list(Node::ROOT, Some(b"00600"), &mut |name, _| {
            rest.push(name.to_vec());
            rest.len() < 10
        })
        .unwrap();
    assert_eq!(rest, names[601..611]);
}

#[test]
fn contents_are_found_by_hash_size_and_source() {
    let place = Place::new();
    let writer = place.catalog().writer().unwrap();
    let mut new = object(&CONTENTS);
    let signature = SourceSignature::new(1, 2, 3, NOW, NOW);
    new.members[1].source = Some(signature);
    writer.add_object(&new).unwrap();
    assert!(writer.has_size(4).unwrap() && !writer.has_size(7).unwrap());
    assert_eq!(writer.seen(&signature).unwrap(), Some((Digest::of(b"two!"), 4)));
    assert_eq!(writer.place(&Digest::of(b"two!"), 4).unwrap().unwrap().offset, 3);
    assert_eq!(writer.place(&Digest::of(b"two!"), 5).unwrap(), None);
    assert_eq!(writer.unreferenced_objects().unwrap(), std::slice::from_ref(&new.record));
    writer.commit_entries(&mut [Ok(file("f", b"two!"))].into_iter()).unwrap();
    assert_eq!(writer.unreferenced_objects().unwrap(), []);
    assert!(matches!(writer.remove_object(&new.record).unwrap_err(), CatalogError::ObjectNeeded { .. }));
    let catalog = place.catalog();
    let node = catalog.resolve(&path("f")).unwrap().unwrap().node;
    assert_eq!(catalog.nodes_in(&new.record).unwrap(), [node]);
    writer.commit_entries(&mut [Ok(file("f", b""))].into_iter()).unwrap();
    assert!(matches!(writer.remove_object(&new.record).unwrap_err(), CatalogError::ObjectNeeded { .. }));
    writer.remove_history(Timestamp { seconds: NOW.seconds + 1, nanoseconds: 0 }).unwrap();
    writer.remove_object(&new.record).unwrap();
    assert_eq!(writer.place(&Digest::of(b"two!"), 4).unwrap(), None);
    assert_eq!(writer.seen(&signature).unwrap(), None);
    assert_eq!(catalog.totals().unwrap().objects, 0);
}

#[test]
fn sequence_numbers_only_rise_over_rotation_and_rebuild() {
    let place = Place::new();
    let mut last = 0;
    for round in 0..6 {
        place.commit(&[directory(format!("d{round}"))]).unwrap();
        match round {
            1 => place.lose_database(),
            2 => place.catalog().writer().unwrap().rewrite_journal().unwrap(),
            3 => drop(rebuild(&place.home(), &place.archive(), RebuildSource::Best).unwrap()),
            4 => place.journal_files().iter().for_each(|path| std::fs::remove_file(path).unwrap()),
            _ => {}
        }
        let sequence = place.catalog().writer().unwrap().sequence();
        assert!(sequence > last, "round {round}: {sequence} after {last}");
        last = sequence;
    }
    assert_eq!(tree(&place.catalog()).unwrap().len(), 6);
}

#[test]
fn a_long_journal_is_replaced_by_a_snapshot_that_says_the_same() {
    let place = Place::new();
    let long = "n".repeat(200);
    let entries: Vec<_> =
        (0..24_000).map(|number| file(format!("{:03}/{number:06}{long}", number % 100), b"")).collect();
    place.commit(&entries).unwrap();
    let files = place.journal_files();
    assert_eq!(files.len(), 2, "{files:?}");
    assert_eq!(std::fs::metadata(place.journal()).unwrap().len(), 4096);
    let before = tree(&place.catalog()).unwrap();
    assert_eq!(before.len(), 24_100);
    place.lose_database();
    assert_eq!(tree(&place.catalog()).unwrap(), before);
    assert_eq!(place.catalog().verify_journal(false).unwrap(), Vec::<String>::new());
}
