use super::*;
use crate::format::journal::Record;
use crate::format::{StagedExtent, StagedMap, StagingId};
use std::os::unix::fs::PermissionsExt;

pub(super) fn inode(node: u64, body: NodeBody) -> Record {
    Record::Inode { node, meta: meta(node as i64), body }
}

pub(super) fn empty() -> NodeBody {
    NodeBody::File(FileContent::empty())
}

pub(super) fn name(parent: u64, name: &str, node: u64) -> Record {
    Record::Dirent { parent, name: name.into(), node }
}

pub(super) fn gone(parent: u64, name: &str) -> Record {
    Record::DirentRemoved { parent, name: name.into() }
}

pub(super) fn staged(node: u64, id: u64) -> Record {
    let extent = StagedExtent { range: crate::base::ContentRange::between(3, 9), place: Some(4096) };
    let map = StagedMap::Inline(vec![extent]);
    Record::Staged { node, content: StagedContent { file: StagingId::new(id), size: 9, base_len: 0, map } }
}

fn staged_of(catalog: &Catalog) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    catalog.staged(&mut |node, content| found.push((node.number(), content.file.get()))).unwrap();
    found
}

pub(super) fn write(writer: &CatalogWriter, records: &[Record]) {
    let mut calls = 0;
    writer.write_group(records, &mut || calls += 1).unwrap();
    assert_eq!(calls, 1);
}

/// Two directories, one in the other, a file with two names.
fn base() -> Vec<Record> {
    vec![
        inode(2, NodeBody::Directory),
        name(1, "a", 2),
        inode(3, NodeBody::Directory),
        name(2, "sub", 3),
        inode(4, NodeBody::Directory),
        name(1, "b", 4),
        inode(5, empty()),
        name(3, "f", 5),
        name(4, "again", 5),
    ]
}

fn links(catalog: &Catalog, node: u64) -> u32 {
    catalog.inode(Node::new(node)).unwrap().unwrap().links
}

/// The state is the same when it is read back from the journal alone.
fn survives(place: &Place) {
    let catalog = place.catalog();
    let (before, staged, totals) = (tree(&catalog).unwrap(), staged_of(&catalog), catalog.totals().unwrap());
    let unnamed = catalog.unnamed_nodes().unwrap();
    drop(catalog);
    place.lose_database();
    let catalog = place.catalog();
    assert_eq!(tree(&catalog).unwrap(), before);
    assert_eq!((staged_of(&catalog), catalog.totals().unwrap()), (staged, totals));
    assert_eq!(catalog.unnamed_nodes().unwrap(), unnamed);
}

#[test]
fn groups_rename_exchange_and_link() {
    let place = Place::new();
    let catalog = place.catalog();
    let writer = catalog.writer().unwrap();
    assert_eq!(writer.next_node().unwrap(), Node::new(2));
    write(&writer, &base());
    assert_eq!(writer.next_node().unwrap(), Node::new(6));
    assert_eq!((1..=5).map(|node| links(&catalog, node)).collect::<Vec<_>>(), [4, 3, 2, 2, 2]);
    // A directory moves to another parent, set long before.
    write(&writer, &[gone(2, "sub"), name(4, "moved", 3)]);
    assert_eq!((1..=5).map(|node| links(&catalog, node)).collect::<Vec<_>>(), [4, 2, 2, 3, 2]);
    assert_eq!(catalog.parent(Node::new(3)).unwrap(), Some(Node::new(4)));
    // A directory and a file change places.
    write(&writer, &[gone(1, "a"), gone(4, "again"), name(1, "a", 5), name(4, "again", 2)]);
    assert_eq!((1..=5).map(|node| links(&catalog, node)).collect::<Vec<_>>(), [3, 2, 2, 4, 2]);
    // A name leads to another node.
    write(&writer, &[inode(6, empty()), gone(1, "a"), name(1, "a", 6), gone(3, "f"), Record::InodeRemoved(5)]);
    assert_eq!(links(&catalog, 6), 1);
    assert_eq!(catalog.inode(Node::new(5)).unwrap(), None);
    writer.finish().unwrap();
    assert_eq!(tree(&catalog).unwrap().len(), 4);
    survives(&place);
}

#[test]
fn nodes_without_names_are_listed_until_they_are_removed() {
    let place = Place::new();
    let catalog = place.catalog();
    let writer = catalog.writer().unwrap();
    write(&writer, &base());
    assert_eq!(catalog.unnamed_nodes().unwrap(), []);
    write(&writer, &[gone(3, "f"), gone(4, "again"), gone(2, "sub"), inode(7, empty()), staged(7, 1)]);
    let [three, five, seven] = [3, 5, 7].map(Node::new);
    assert_eq!(catalog.unnamed_nodes().unwrap(), [three, five, seven]);
    assert_eq!(catalog.inode(three).unwrap().unwrap().links, 0);
    // One comes back.
    write(&writer, &[name(1, "back", 3), Record::InodeRemoved(5)]);
    assert_eq!(catalog.unnamed_nodes().unwrap(), [seven]);
    assert_eq!(links(&catalog, 3), 2);
    writer.finish().unwrap();
    survives(&place);
    // With a damaged journal they may go; names stay.
    let before = tree(&place.catalog()).unwrap();
    place.lose_database();
    let bytes = std::fs::read(place.journal()).unwrap();
    std::fs::write(place.journal(), [&bytes, &[7; 4096][..]].concat()).unwrap();
    assert_eq!(tree(&place.catalog()).unwrap(), before);
}

#[test]
fn staged_content_goes_with_its_node_or_by_itself() {
    let place = Place::new();
    let catalog = place.catalog();
    let writer = catalog.writer().unwrap();
    write(&writer, &base());
    write(&writer, &[inode(6, empty()), name(1, "x", 6), staged(6, 10), staged(5, 11)]);
    assert_eq!(staged_of(&catalog), [(5, 11), (6, 10)]);
    write(&writer, &[staged(5, 12)]);
    assert_eq!(staged_of(&catalog), [(5, 12), (6, 10)]);
    writer.rewrite_journal().unwrap();
    writer.finish().unwrap();
    survives(&place);
    let catalog = place.catalog();
    let writer = catalog.writer().unwrap();
    write(&writer, &[Record::StagedRemoved(5), gone(1, "x"), Record::InodeRemoved(6)]);
    assert_eq!(staged_of(&catalog), []);
    writer.finish().unwrap();
    survives(&place);
}

#[test]
fn a_group_that_does_not_fit_stops_the_writer_and_the_journal_has_it() {
    let place = Place::new();
    let catalog = place.catalog();
    let writer = catalog.writer().unwrap();
    write(&writer, &base());
    let mut durable = false;
    assert!(writer.write_group(&[gone(1, "nothing")], &mut || durable = true).is_err());
    assert!(durable);
    assert!(matches!(writer.write_group(&base(), &mut || ()).unwrap_err(), CatalogError::Interrupted));
    drop(writer);
    assert_eq!(tree(&place.catalog()).unwrap().len(), 5);
}

#[test]
fn a_group_that_the_journal_refuses_may_be_tried_again() {
    let place = Place::new();
    let catalog = place.catalog();
    let writer = catalog.writer().unwrap();
    write(&writer, &base());
    let mut durable = false;
    // A record that is too long for any group.
    let mut long = meta(1);
    long.xattrs = (0..4096u32).map(|at| (at.to_be_bytes().to_vec(), vec![1; 80_000])).collect();
    let records = [inode(6, empty()), Record::Inode { node: 7, meta: long, body: empty() }];
    assert!(writer.write_group(&records, &mut || durable = true).is_err());
    assert!(!durable);
    write(&writer, &[inode(6, empty()), name(1, "six", 6)]);
    writer.finish().unwrap();
    assert_eq!(place.catalog().verify_journal(false).unwrap(), Vec::<String>::new());
    assert_eq!(tree(&place.catalog()).unwrap().len(), 6);
    survives(&place);
}

/// What a crash leaves: the bytes of all files while the writer lives.
#[test]
fn a_crash_at_any_moment_of_a_writer_loses_nothing() {
    let place = Place::new();
    let catalog = place.catalog();
    let writer = catalog.writer().unwrap();
    write(&writer, &base());
    let early = place.copy();
    for number in 0..50 {
        write(&writer, &[inode(10 + number, empty()), name(1, &format!("n{number}"), 10 + number), staged(10, number)]);
    }
    let before = tree(&catalog).unwrap();
    let late = place.copy();
    assert!(std::fs::metadata(late.local("catalog.db-wal")).unwrap().len() > 0);
    assert_eq!(tree(&late.catalog()).unwrap(), before);
    assert_eq!((late.events(), staged_of(&late.catalog())), (0, vec![(10, 49)]));
    // A power cut takes back what the log was not synced for: all of it, or its end.
    for cut in 0..4 {
        let copy = place.copy();
        let log = copy.local("catalog.db-wal");
        let bytes = std::fs::read(&log).unwrap();
        std::fs::write(&log, &bytes[..bytes.len() * cut / 4]).unwrap();
        assert_eq!(tree(&copy.catalog()).unwrap(), before, "cut {cut}");
        assert_eq!(copy.events(), 0, "cut {cut}");
    }
    // The database of an earlier moment, too.
    for name in ["catalog.db", "catalog.db-wal", "catalog.db-shm"] {
        std::fs::copy(early.local(name), late.local(name)).unwrap();
    }
    std::fs::remove_file(late.local("catalog.seal")).unwrap();
    assert_eq!(tree(&late.catalog()).unwrap(), before);
    assert_eq!(late.events(), 0);
    writer.finish().unwrap();
    assert_eq!(tree(&place.catalog()).unwrap(), before);
}

#[test]
fn a_power_cut_after_a_rotation_finds_the_new_journal() {
    let place = Place::new();
    let catalog = place.catalog();
    let writer = catalog.writer().unwrap();
    write(&writer, &base());
    writer.rewrite_journal().unwrap();
    let synced = std::fs::metadata(place.local("catalog.db-wal")).unwrap().len() as usize;
    write(&writer, &[inode(6, empty()), name(1, "six", 6)]);
    let copy = place.copy();
    let log = copy.local("catalog.db-wal");
    let bytes = std::fs::read(&log).unwrap();
    assert!(bytes.len() > synced);
    std::fs::write(&log, &bytes[..synced]).unwrap();
    assert_eq!(tree(&copy.catalog()).unwrap(), tree(&catalog).unwrap());
    assert_eq!(copy.events(), 0);
}

#[test]
fn a_log_that_is_not_the_databases_is_not_mixed_into_it() {
    let place = Place::new();
    let catalog = place.catalog();
    let writer = catalog.writer().unwrap();
    write(&writer, &base());
    let other = place.copy();
    write(&writer, &[gone(1, "b"), name(1, "c", 4)]);
    writer.finish().unwrap();
    drop(catalog);
    let before = tree(&place.catalog()).unwrap();
    // Beside a sealed database, and beside none.
    for lose in [false, true] {
        if lose {
            place.lose_database();
        }
        for name in ["catalog.db-wal", "catalog.db-shm"] {
            std::fs::copy(other.local(name), place.local(name)).unwrap();
        }
        assert_eq!(tree(&place.catalog()).unwrap(), before, "lost: {lose}");
        assert_eq!(place.events(), 1 + usize::from(lose), "lost: {lose}");
        assert_eq!(tree(&place.catalog()).unwrap(), before, "lost: {lose}");
    }
}

#[test]
fn a_medium_that_cannot_be_written_shows_what_a_crash_left() {
    let place = Place::new();
    let catalog = place.catalog();
    let writer = catalog.writer().unwrap();
    write(&writer, &base());
    let before = tree(&catalog).unwrap();
    let copy = place.copy();
    writer.finish().unwrap();
    let directory = copy.local("");
    let set = |mode| {
        for entry in std::fs::read_dir(&directory).unwrap() {
            std::fs::set_permissions(entry.unwrap().path(), PermissionsExt::from_mode(mode & 0o666)).unwrap();
        }
        std::fs::set_permissions(&directory, PermissionsExt::from_mode(mode)).unwrap();
    };
    set(0o555);
    assert_eq!(tree(&copy.catalog()).unwrap(), before);
    set(0o755);
    assert_eq!(tree(&copy.catalog()).unwrap(), before);
}

#[test]
fn the_last_writer_leaves_one_sealed_file() {
    let place = Place::new();
    let catalog = place.catalog();
    let writer = catalog.writer().unwrap();
    write(&writer, &base());
    assert_eq!(tree(&catalog).unwrap().len(), 5);
    assert!(!place.local("catalog.seal").exists());
    writer.finish().unwrap();
    assert!(place.local("catalog.seal").exists());
    assert!(!place.local("catalog.db-wal").exists());
    // Readers that have it open keep the log, empty, and the seal holds.
    let reader = place.catalog();
    assert_eq!(tree(&reader).unwrap().len(), 5);
    let writer = catalog.writer().unwrap();
    write(&writer, &[inode(6, empty()), name(1, "six", 6)]);
    assert_eq!(tree(&reader).unwrap().len(), 6);
    writer.finish().unwrap();
    assert!(place.local("catalog.seal").exists());
    assert_eq!(std::fs::metadata(place.local("catalog.db-wal")).map_or(0, |log| log.len()), 0);
    assert_eq!(tree(&place.catalog()).unwrap().len(), 6);
    drop(place.catalog().writer().unwrap());
    assert_eq!(tree(&reader).unwrap().len(), 6);
    drop((reader, catalog));
    assert_eq!(tree(&place.catalog()).unwrap().len(), 6);
    assert_eq!(place.events(), 0);
}

/// Where the other process of the next test finds its place.
const OTHER_PROCESS: &str = "BLOCKFRAME_TEST_READ";

/// Not a test of its own: what another process sees.
#[test]
fn another_process_reads() {
    let Some(directory) = std::env::var_os(OTHER_PROCESS) else { return };
    let directory = PathBuf::from(directory);
    let archive = open_archive(&directory.join("store"), Arc::default());
    let catalog = Catalog::open(&directory.join("home"), &Arc::new(archive)).unwrap();
    println!("names: {}.", tree(&catalog).unwrap().len());
}

#[test]
fn readers_of_other_processes_come_and_go_while_a_writer_lives() {
    let place = Place::new();
    let other = || {
        let (_, module) = module_path!().split_once("::").unwrap();
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("{module}::another_process_reads"), "--nocapture"])
            .env(OTHER_PROCESS, place.directory.path())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (_, rest) = text.split_once("names: ").unwrap_or_else(|| panic!("{text}"));
        rest.split('.').next().unwrap().parse::<usize>().unwrap()
    };
    let catalog = place.catalog();
    let writer = catalog.writer().unwrap();
    write(&writer, &base());
    for number in 0..4 {
        // Others of this process open and close their own.
        assert_eq!(tree(&place.catalog()).unwrap().len(), 5 + number);
        assert_eq!(other(), 5 + number);
        assert!(place.local("catalog.db-wal").exists());
        let node = 10 + number as u64;
        write(&writer, &[inode(node, empty()), name(1, &format!("n{number}"), node)]);
        assert_eq!(tree(&catalog).unwrap().len(), 6 + number);
    }
    assert_eq!(other(), 9);
    writer.finish().unwrap();
    assert_eq!(other(), 9);
    assert_eq!(place.events(), 0);
}

#[test]
fn an_entry_replaces_what_is_staged_at_its_path_even_with_the_content_below_it() {
    let place = Place::new();
    place.store_contents(&[b"base", b"new"]);
    place.commit(&[file("a", b"base"), file("b", b"base"), file("c", b"base")]).unwrap();
    let catalog = place.catalog();
    let writer = catalog.writer().unwrap();
    let node = |path: &str| catalog.resolve(&super::path(path)).unwrap().unwrap().node.number();
    let (a, b, c) = (node("a"), node("b"), node("c"));
    write(&writer, &[staged(a, 1), staged(b, 2), staged(c, 3)]);
    let entries = [file("a", b"new"), file("b", b"base")];
    let summary = writer.commit_entries(&mut entries.into_iter().map(Ok)).unwrap();
    assert_eq!((summary.changed, summary.unchanged), (2, 0));
    let mut left = Vec::new();
    catalog.staged(&mut |node, _| left.push(node.number())).unwrap();
    assert_eq!(left, [c]);
    writer.finish().unwrap();
    drop(catalog);
    // What a rebuild puts together from manifests is older than what is staged.
    place.lose_database();
    let mut left = Vec::new();
    place.catalog().staged(&mut |node, _| left.push(node.number())).unwrap();
    assert_eq!(left, [c]);
}

#[test]
fn a_directory_has_one_name_and_the_root_none_so_that_there_is_no_way_in_circles() {
    for second in [name(3, "up", 2), name(3, "root", 1), name(1, "again", 3), name(3, "itself", 3)] {
        let place = Place::new();
        let writer = place.catalog().writer().unwrap();
        write(&writer, &base());
        let mut durable = false;
        let error = writer.write_group(&[second], &mut || durable = true).unwrap_err();
        assert!(error.to_string().contains("second name"), "{error}");
        // What the journal has by then is put in order when it is read.
        drop(writer);
        assert_eq!((durable, tree(&place.catalog()).unwrap().len()), (true, 5));
        place.lose_database();
        assert_eq!(tree(&place.catalog()).unwrap().len(), 5);
    }
}
