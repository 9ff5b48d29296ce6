//! Commands beside a running daemon: what goes over its socket has the same
//! effect as doing it oneself, and nothing that comes over it does harm.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod kit;

use blockframe::archive::Archive;
use blockframe::base::{ErrorClass, SystemClock, Timestamp};
use blockframe::catalog::{
    Catalog, CatalogRemovals, CatalogResult, CatalogWriter, CatalogWrites, CommitSummary, NewObject, ObjectRecord,
};
use blockframe::control::{
    ControlClient, ControlError, ControlResult, ControlService, DaemonStatus, Purpose, RemoteWrites, SOCKET,
    SyncProgress, serve,
};
use blockframe::format::{Entry, EntryPath, NodeBody, NodeMeta};
use blockframe::ingest::{CommitItem, CommitReport, CommitRequest, FileReport, Outcome, Reporter, Spools, commit};
use blockframe::namespace::CompressionRules;
use blockframe::store::LocalStore;
use kit::program::Place;
use kit::{Events, Fixture, content, files_below, scratch, tiny_descriptor};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Barrier, Mutex};

/// A daemon without a mount: remembers what it was asked; changes go to a
/// catalog's writer where there is one.
#[derive(Default)]
struct Daemon {
    writer: Option<CatalogWriter>,
    asked: Mutex<Vec<String>>,
    /// `sync` waits here, where there is one.
    gate: Option<Barrier>,
}

impl Daemon {
    fn note(&self, what: impl Into<String>) {
        self.asked.lock().unwrap().push(what.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    fn writer(&self) -> ControlResult<&CatalogWriter> {
        self.writer.as_ref().ok_or_else(|| ControlError::refused(ErrorClass::NotSupported, "there is no catalog"))
    }
}

impl ControlService for Daemon {
    fn status(&self) -> ControlResult<DaemonStatus> {
        Ok(DaemonStatus { pid: 7, mountpoint: "/mnt/ä".into(), staged_files: 3, ..DaemonStatus::default() })
    }

    fn sync(&self, path: Option<&EntryPath>, progress: &mut dyn FnMut(SyncProgress) -> bool) -> ControlResult<()> {
        if let Some(gate) = &self.gate {
            gate.wait();
        }
        for files_left in [2, 1] {
            if !progress(SyncProgress { files_left, bytes_left: 10 * files_left }) {
                self.note("nobody waits");
                return Err(ControlError::refused(ErrorClass::Interrupted, "nobody waits"));
            }
        }
        self.note(format!("sync {path:?}"));
        Ok(())
    }

    fn flush(&self) -> ControlResult<()> {
        self.note("flush");
        Ok(())
    }

    fn begin(&self, purpose: Purpose) -> ControlResult<()> {
        self.note(format!("begin {purpose:?}"));
        Ok(())
    }

    fn end(&self) {
        self.note("end");
    }

    fn sequence(&self) -> ControlResult<u64> {
        Ok(CatalogWriter::sequence(self.writer()?))
    }

    fn add_object(&self, object: &NewObject) -> ControlResult<()> {
        Ok(self.writer()?.add_object(object)?)
    }

    fn commit_entries(&self, entries: &mut dyn Iterator<Item = CatalogResult<Entry>>) -> ControlResult<CommitSummary> {
        self.note("commit_entries");
        Ok(self.writer()?.commit_entries(entries)?)
    }

    fn remove_object(&self, object: &ObjectRecord) -> ControlResult<()> {
        Ok(self.writer()?.remove_object(object)?)
    }

    fn remove_history(&self, before: Timestamp) -> ControlResult<u64> {
        self.note(format!("remove_history {}.{}", before.seconds, before.nanoseconds));
        Ok(5)
    }

    fn remove_path(&self, path: &EntryPath, recursive: bool) -> ControlResult<u64> {
        self.note(format!("remove_path {path} {recursive}"));
        Ok(1)
    }
}

/// A directory that looks enough like an archive for a socket.
fn bare() -> tempfile::TempDir {
    let directory = scratch();
    fs::create_dir(directory.path().join(".blockframe")).unwrap();
    directory
}

fn socket_of(archive: &Path) -> PathBuf {
    archive.join(".blockframe").join(SOCKET)
}

fn client(archive: &Path) -> ControlClient {
    ControlClient::connect(archive).expect("the daemon answers")
}

#[test]
fn every_question_reaches_the_daemon_and_its_answer_comes_back() {
    let place = bare();
    let daemon = Arc::new(Daemon::default());
    let server = serve(place.path(), daemon.clone(), None).unwrap();
    let mut client = client(place.path());
    let status = client.status().unwrap();
    assert_eq!((status.pid, status.mountpoint.as_str(), status.staged_files), (7, "/mnt/ä", 3));
    let path = EntryPath::new(b"a/\xff\"b".to_vec()).unwrap();
    let mut seen = Vec::new();
    client.sync(Some(&path), &mut |progress| seen.push(progress.files_left)).unwrap();
    assert_eq!(seen, [2, 1]);
    client.flush().unwrap();
    assert_eq!(client.remove_history(Timestamp { seconds: -3, nanoseconds: 999_999_999 }).unwrap(), 5);
    assert_eq!(client.remove_path(&path, true).unwrap(), 1);
    let error = client.sequence().unwrap_err();
    assert_eq!((error.class(), error.to_string().as_str()), (ErrorClass::NotSupported, "there is no catalog"));
    client.flush().unwrap();
    assert_eq!(
        daemon.take(),
        [
            format!("sync {:?}", Some(&path)),
            "flush".into(),
            "remove_history -3.999999999".into(),
            format!("remove_path {path} true"),
            "flush".into()
        ]
    );
    drop(server);
    assert_eq!(client.status().unwrap_err().class(), ErrorClass::Unavailable);
    assert!(!socket_of(place.path()).exists());
    assert!(ControlClient::connect(place.path()).is_none());
}

#[test]
fn only_this_user_may_connect_and_a_dead_daemons_socket_is_replaced() {
    let place = bare();
    let socket = socket_of(place.path());
    drop(UnixListener::bind(&socket).unwrap());
    fs::write(socket.with_extension("sock.new"), "left by a crash").unwrap();
    assert!(socket.exists());
    assert!(ControlClient::connect(place.path()).is_none());
    let first = serve(place.path(), Arc::new(Daemon::default()), None).unwrap();
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let error = serve(place.path(), Arc::new(Daemon::default()), None).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Busy);
    client(place.path()).status().unwrap();
    // Somebody put another socket there: it is not the first daemon's to remove.
    fs::remove_file(&socket).unwrap();
    let second = serve(place.path(), Arc::new(Daemon::default()), None).unwrap();
    drop(first);
    client(place.path()).status().unwrap();
    drop(second);
    assert_eq!(fs::read_dir(place.path().join(".blockframe")).unwrap().count(), 0);
}

#[test]
fn an_archive_may_lie_deeper_than_a_socket_address_is_long() {
    let top = scratch();
    let deep = top.path().join("d".repeat(120)).join("e".repeat(200));
    fs::create_dir_all(deep.join(".blockframe")).unwrap();
    let server = serve(&deep, Arc::new(Daemon::default()), None).unwrap();
    client(&deep).status().unwrap();
    drop(server);
    assert!(!socket_of(&deep).exists());
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_le_bytes(), body].concat()
}

/// Sends bytes as they are, ends the sending side, and returns what comes back.
fn raw(archive: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket_of(archive)).unwrap();
    // The server may have closed already.
    let _ = stream.write_all(bytes).and_then(|()| stream.shutdown(std::net::Shutdown::Write));
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply);
    String::from_utf8_lossy(&reply).into_owned()
}

#[test]
fn hostile_messages_end_their_own_connection_only() {
    let place = bare();
    let daemon = Arc::new(Daemon::default());
    let server = serve(place.path(), daemon.clone(), None).unwrap();
    let mut bystander = client(place.path());
    for (bytes, answer) in [
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "longer than"),
        (u32::MAX.to_le_bytes().to_vec(), "longer than"),
        (b"\x05".to_vec(), "not whole"),
        (b"\x40\x00\x00\x00{\"version\":1".to_vec(), "not whole"),
        (framed(b""), "not understood"),
        (framed(b"null"), "not understood"),
        (framed(b"{\"version\":9,\"body\":{}}"), "version 9"),
        (framed(b"{\"version\":1,\"body\":{\"request\":\"format_disk\"}}"), "not understood"),
        (
            framed(b"{\"version\":1,\"body\":{\"request\":\"remove_path\",\"path\":\"*\",\"recursive\":true}}"),
            "Invalid symbol",
        ),
        (framed("[".repeat(100_000).as_bytes()), "not understood"),
    ] {
        let reply = raw(place.path(), &bytes);
        assert!(reply.contains("failed") && reply.contains(answer), "{answer}: {reply}");
        bystander.status().unwrap();
    }
    // Understood, and refused.
    let refused = [
        (r#"{"request":"remove_path","path":"Li4vLi4=","recursive":true}"#, "is not a file name"),
        (r#"{"request":"add_object","records":[]}"#, "before `begin`"),
        (r#"{"request":"commit_entries","spool":".blockframe/tmp/spool-x"}"#, "before `begin`"),
        (r#"{"request":"remove_history","seconds":0,"nanoseconds":4000000000}"#, "no time"),
    ];
    for (body, answer) in refused {
        let reply = raw(place.path(), &framed(format!("{{\"version\":1,\"body\":{body}}}").as_bytes()));
        assert!(reply.contains("failed") && reply.contains(answer), "{answer}: {reply}");
    }
    assert_eq!(daemon.take(), [""; 0]);
    drop(server);
}

#[test]
fn a_writer_over_the_socket_cannot_name_files_outside_the_temporary_ones() {
    let place = bare();
    fs::create_dir(place.path().join(".blockframe/tmp")).unwrap();
    fs::write(place.path().join("spool-outside"), "").unwrap();
    fs::write(place.path().join(".blockframe/tmp/other"), "").unwrap();
    fs::write(place.path().join(".blockframe/tmp/spool-bad"), [255; 64]).unwrap();
    let _server = serve(place.path(), Arc::new(Daemon::default()), None).unwrap();
    for (spool, answer) in [
        ("spool-outside", "no file of entries"),
        ("../spool-outside", "is not a store key"),
        (".blockframe/tmp/../../spool-outside", "is not a store key"),
        (".blockframe/tmp/other", "no file of entries"),
        (".blockframe/tmp/spool-none", "not_found"),
        (".blockframe/tmp/spool-bad", "no catalog"),
        ("", "is not a store key"),
    ] {
        let begin = framed(br#"{"version":1,"body":{"request":"begin","purpose":"commit"}}"#);
        let body = format!("{{\"version\":1,\"body\":{{\"request\":\"commit_entries\",\"spool\":\"{spool}\"}}}}");
        let reply = loop {
            // The one before may not have ended yet.
            let reply = raw(place.path(), &[begin.clone(), framed(body.as_bytes())].concat());
            if !reply.contains("busy") {
                break reply;
            }
        };
        assert!(reply.contains("done") && reply.contains("failed") && reply.contains(answer), "{spool}: {reply}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_stop_the_daemon(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 1..4), frame in any::<bool>()) {
        let place = bare();
        let server = serve(place.path(), Arc::new(Daemon::default()), None).unwrap();
        let bytes: Vec<u8> = pieces.iter().flat_map(|piece| if frame { framed(piece) } else { piece.clone() }).collect();
        raw(place.path(), &bytes);
        client(place.path()).status().unwrap();
        drop(server);
    }
}

#[test]
fn one_client_waits_while_another_is_served() {
    let place = bare();
    let daemon = Arc::new(Daemon { gate: Some(Barrier::new(2)), ..Daemon::default() });
    let server = serve(place.path(), daemon.clone(), None).unwrap();
    let mut waiting = client(place.path());
    std::thread::scope(|scope| {
        let waited = scope.spawn(|| waiting.sync(None, &mut |_| {}));
        let mut other = client(place.path());
        for _ in 0..10 {
            other.status().unwrap();
        }
        daemon.gate.as_ref().unwrap().wait();
        waited.join().unwrap().unwrap();
    });
    assert_eq!(daemon.take(), ["sync None"]);
    drop(server);
}

/// Begins as soon as the one before has been let go.
fn begin_after(client: &mut ControlClient, purpose: Purpose) {
    while let Err(error) = client.begin(purpose) {
        assert_eq!(error.class(), ErrorClass::Busy);
        std::thread::yield_now();
    }
}

#[test]
fn one_process_writes_at_a_time_and_its_death_lets_the_next_begin() {
    let place = bare();
    let daemon = Arc::new(Daemon::default());
    let server = serve(place.path(), daemon.clone(), None).unwrap();
    let (mut one, mut two) = (client(place.path()), client(place.path()));
    one.begin(Purpose::Commit).unwrap();
    let error = two.begin(Purpose::Collect).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Busy);
    assert!(error.to_string().contains("another blockframe process"), "{error}");
    // Somebody else's end ends nothing.
    two.end().unwrap();
    assert!(two.begin(Purpose::Collect).is_err());
    one.end().unwrap();
    two.begin(Purpose::Collect).unwrap();
    drop(two);
    begin_after(&mut one, Purpose::Commit);
    drop(server);
    assert_eq!(daemon.take(), ["begin Commit", "end", "begin Collect", "end", "begin Commit", "end"]);
}

#[test]
fn too_many_connections_are_told_to_come_later() {
    let place = bare();
    let _server = serve(place.path(), Arc::new(Daemon::default()), None).unwrap();
    let mut clients: Vec<ControlClient> = (0..16).map(|_| client(place.path())).collect();
    for client in &mut clients {
        client.status().unwrap();
    }
    let error = client(place.path()).status().unwrap_err();
    assert_eq!(error.class(), ErrorClass::Busy, "{error}");
    clients.pop();
    while let Err(error) = client(place.path()).status() {
        assert_eq!(error.class(), ErrorClass::Busy, "{error}");
    }
}

/// An archive, and a catalog of it that this process only reads.
struct Bench {
    fixture: Fixture,
    archive: Arc<Archive>,
    catalog: Arc<Catalog>,
}

impl Bench {
    fn new() -> Self {
        let fixture = Fixture::new(tiny_descriptor());
        let archive = Archive::open(fixture.store.clone(), Arc::new(SystemClock), Arc::new(Events::default())).unwrap();
        let archive = Arc::new(archive);
        let catalog = Arc::new(Catalog::create(fixture.dir.path(), &archive).unwrap());
        Self { fixture, archive, catalog }
    }

    fn path(&self) -> &Path {
        self.fixture.dir.path()
    }

    /// A daemon that is this catalog's writer, over its own handles.
    fn daemon(&self) -> Arc<Daemon> {
        let catalog = Catalog::open(self.path(), &self.archive).unwrap();
        Arc::new(Daemon { writer: Some(catalog.writer().unwrap()), ..Daemon::default() })
    }

    fn remote(&self) -> RemoteWrites {
        let client = client(self.path());
        RemoteWrites::begin(
            client,
            self.catalog.clone(),
            Spools::new(self.fixture.store.clone(), None),
            Purpose::Commit,
        )
        .unwrap()
    }

    fn commit(&self, writes: &dyn CatalogWrites, source: &Path) -> (CommitReport, Vec<String>) {
        let items = vec![CommitItem::from_path(source.to_path_buf(), &EntryPath::root()).unwrap()];
        let cancel = AtomicBool::new(false);
        let request = CommitRequest {
            items,
            exclude: vec![],
            cancel: &cancel,
            lost: &|_| false,
            compression: &CompressionRules::default(),
        };
        let log = Log::default();
        let report = commit(&self.archive, writes, request, &log).unwrap();
        let mut files = log.0.into_inner().unwrap();
        files.sort();
        (report, files)
    }

    /// Every path with what stands there.
    fn names(&self) -> BTreeMap<EntryPath, (NodeMeta, NodeBody, u32)> {
        let mut names = BTreeMap::new();
        let mut todo = vec![EntryPath::root()];
        while let Some(path) = todo.pop() {
            let inode = self.catalog.resolve(&path).unwrap().unwrap();
            self.catalog
                .list(inode.node, None, &mut |name, _| {
                    todo.push(path.join(name).unwrap());
                    true
                })
                .unwrap();
            if !path.is_root() {
                names.insert(path, (inode.meta, inode.body, inode.links));
            }
        }
        names
    }

    /// What is stored, by content.
    fn contents(&self) -> Vec<String> {
        let mut objects = Vec::new();
        let mut add = |record: ObjectRecord| {
            objects.push(format!("{:?} {:?} {}", record.kind, record.key, record.tier));
            true
        };
        self.catalog.objects(None, &mut add).unwrap();
        objects.sort();
        objects
    }
}

#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl Reporter for Log {
    fn file(&self, report: &FileReport) {
        let outcome = match &report.outcome {
            Outcome::Failed(problem) => problem.to_string(),
            other => format!("{other:?}"),
        };
        self.0.lock().unwrap().push(format!("{} {} {:?} {outcome}", report.path, report.size, report.tier));
    }
}

fn make_tree(top: &Path) {
    fs::create_dir_all(top.join("deep/er")).unwrap();
    for (name, len) in [("empty", 0), ("a", 10), ("b", 900), ("same", 900), ("deep/c", 15_000), ("deep/er/d", 70_000)] {
        fs::write(top.join(name), content(len, len as u64)).unwrap();
    }
    for index in 0..30 {
        fs::write(top.join(format!("deep/small{index}")), content(700, index)).unwrap();
    }
    fs::hard_link(top.join("a"), top.join("deep/link")).unwrap();
    std::os::unix::fs::symlink("../a", top.join("deep/symlink")).unwrap();
}

#[test]
fn a_commit_through_the_daemon_is_the_commit_that_it_would_be_without() {
    let source = scratch();
    let tree = source.path().join("tree");
    make_tree(&tree);
    let (direct, through) = (Bench::new(), Bench::new());
    let writer = direct.catalog.writer().unwrap();
    let expected = direct.commit(&writer, &tree);
    assert!(expected.0.objects >= 4 && expected.0.duplicates >= 1, "{:?}", expected.0);

    let daemon = through.daemon();
    let server = serve(through.path(), daemon.clone(), None).unwrap();
    assert!(through.catalog.writer().is_err(), "the daemon holds the lock");
    let writes = Box::new(through.remote());
    let report = through.commit(&*writes, &tree);
    assert_eq!(report.0.summary, expected.0.summary);
    assert_eq!(format!("{report:?}"), format!("{expected:?}"));
    assert_eq!(through.names(), direct.names());
    assert_eq!(through.contents(), direct.contents());
    assert_eq!(writes.unreferenced_objects().unwrap(), []);

    // What was committed is known, and nothing of it is stored again.
    fs::write(tree.join("new"), content(40_000, 5)).unwrap();
    fs::copy(tree.join("deep/c"), tree.join("copy")).unwrap();
    let (again, expected) = (through.commit(&*writes, &tree), direct.commit(&writer, &tree));
    assert_eq!(format!("{again:?}"), format!("{expected:?}"));
    assert_eq!((again.0.stored, again.0.duplicates), (1, 1));
    assert_eq!(through.names(), direct.names());
    writes.finish().unwrap();
    drop(server);

    let left = files_below(through.path()).into_keys().find(|path| path.starts_with(".blockframe/tmp"));
    assert_eq!(left, None, "temporary files");
    // The daemon's journal tells the same as its database.
    drop(daemon);
    assert_eq!(through.catalog.verify_journal(false).unwrap(), [""; 0]);
}

#[test]
fn an_object_that_a_name_needs_is_not_removed_over_the_socket() {
    let source = scratch();
    make_tree(&source.path().join("tree"));
    let bench = Bench::new();
    let _server = serve(bench.path(), bench.daemon(), None).unwrap();
    let writes = bench.remote();
    bench.commit(&writes, &source.path().join("tree"));
    let mut objects = Vec::new();
    let mut add = |record| {
        objects.push(record);
        true
    };
    bench.catalog.objects(None, &mut add).unwrap();
    for object in objects {
        assert_eq!(writes.remove_object(&object).unwrap_err().class(), ErrorClass::Busy);
    }
}

#[test]
fn the_program_finds_the_daemon() {
    let place = Place::new();
    place.ok(["init", "arch"]);
    make_tree(&place.path("tree"));
    let archive = place.archive();
    let daemon = {
        let store = Arc::new(LocalStore::open(&archive).unwrap());
        let opened = Archive::open(store, Arc::new(SystemClock), Arc::new(Events::default())).unwrap();
        let catalog = Catalog::open(&archive, &Arc::new(opened)).unwrap();
        Arc::new(Daemon { writer: Some(catalog.writer().unwrap()), ..Daemon::default() })
    };
    // A writer that answers on no socket.
    assert_eq!(place.run(["commit", "tree"]).status(), Some(1));
    let server = serve(&archive, daemon.clone(), None).unwrap();
    place.ok(["commit", "tree"]);
    assert_eq!(daemon.take(), ["flush", "begin Commit", "flush", "commit_entries", "end"]);
    assert_eq!(place.ok(["cat", "tree/b"]).len(), String::from_utf8_lossy(&content(900, 900)).len());

    fs::create_dir_all(archive.join(".blockframe/tmp")).unwrap();
    fs::write(archive.join(".blockframe/tmp/spool-left"), "x").unwrap();
    let removed = place.ok(["gc"]);
    assert!(removed.contains("spool-left") && removed.contains("Removed 1 leftover"), "{removed}");
    assert_eq!(daemon.take(), ["flush", "begin Collect", "flush", "end"]);

    place.ok(["sync", "tree/a"]);
    let removed = place.ok(["--json", "rm", "-r", "tree/deep"]);
    assert!(removed.contains(r#""names":1"#), "{removed}");
    assert_eq!(daemon.take(), ["sync Some(/tree/a)", "remove_path /tree/deep true"]);
    let status = place.ok(["--json", "status"]);
    assert!(status.contains(r#""files":3"#) && status.contains(r#""mountpoint":"/mnt/ä""#), "{status}");

    let refused = place.run(["rebuild-catalog"]);
    assert_eq!(refused.status(), Some(1));
    assert!(
        refused.stderr().contains("/mnt/ä") && refused.stderr().contains("blockframe umount"),
        "{}",
        refused.stderr()
    );

    // One writes already.
    let mut other = client(&archive);
    other.begin(Purpose::Commit).unwrap();
    let busy = place.run(["commit", "tree"]);
    assert_eq!(busy.status(), Some(1));
    assert!(busy.stderr().contains("another blockframe process is writing"), "{}", busy.stderr());
    drop(other);
    drop(server);
    drop(daemon);
    place.ok(["commit", "tree"]);
    place.ok(["sync"]);
    assert!(place.ok(["status"]).contains("staged      none; not mounted for writing"));
}

#[test]
fn rm_removes_what_it_can_and_fails_for_the_rest() {
    let place = Place::new();
    place.ok(["init", "arch"]);
    make_tree(&place.path("tree"));
    place.ok(["commit", "tree"]);
    let refused = place.run(["rm", "tree/none", "tree/deep", "tree/a"]);
    assert_eq!(refused.status(), Some(1));
    assert!(refused.stderr().contains("/tree/none is not in the archive"), "{}", refused.stderr());
    assert!(refused.stderr().contains("`-r` removes it"), "{}", refused.stderr());
    assert_eq!(place.run(["rm", "-r", "/"]).status(), Some(2));
    assert_eq!(
        place.ok(["rm", "-r", "tree/deep", "tree/b"]),
        "Removed 37 names; `blockframe restore` brings them back.\n"
    );
    assert_eq!(place.ok(["ls", "tree"]), "empty\nsame\n");
}
