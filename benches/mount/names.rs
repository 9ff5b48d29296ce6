//! An archive of very many files: mounting it, and listing it.

use crate::Settings;
use crate::tools::{Dice, Figure, Mount, Table, blockframe, drop_caches, init, run, shell, timed, write_random};
use blockframe::archive::Archive;
use blockframe::base::SystemClock;
use blockframe::catalog::Catalog;
use blockframe::format::{Entry, EntryPath, FileContent, NodeBody, NodeMeta};
use blockframe::store::LocalStore;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

/// Different contents, each of which many of the files have.
const CONTENTS: usize = 1000;
/// Files in one directory.
const PER_DIRECTORY: usize = 1000;

/// Commits some files with the program, and then very many names for their
/// contents through the library: files on the disk would only slow this down.
fn make_archive(settings: &Settings, archive: &Path) {
    let seeds = settings.dir.join("seeds");
    fs::create_dir_all(&seeds).unwrap();
    let mut dice = Dice::new(3);
    for number in 0..CONTENTS {
        write_random(&seeds.join(format!("{number:04}")), 1 + dice.below(1000), &mut dice);
    }
    init(archive, "compact");
    run(blockframe().arg("--archive").arg(archive).arg("commit").arg(&seeds));
    let store = Arc::new(LocalStore::open(archive).unwrap());
    let open = Arc::new(Archive::open(store, Arc::new(SystemClock), Arc::new(())).unwrap());
    let catalog = Catalog::open(archive, &open).unwrap();
    let path = |text: String| EntryPath::new(text.into_bytes()).unwrap();
    let contents: Vec<FileContent> = (0..CONTENTS)
        .map(|number| match catalog.resolve(&path(format!("seeds/{number:04}"))).unwrap().unwrap().body {
            NodeBody::File(content) => content,
            other => panic!("{other:?}"),
        })
        .collect();
    let mut entries = (0..settings.names).map(|number| {
        let directory = number / PER_DIRECTORY;
        let meta = NodeMeta { permissions: 0o644, ..NodeMeta::default() };
        let body = NodeBody::File(contents[number % CONTENTS].clone());
        let path = path(format!("many/dir_{directory:05}/document-{number:08}.txt"));
        Ok(Entry::Node { path, meta, body })
    });
    let writer = catalog.writer().unwrap();
    writer.commit_entries(&mut entries).unwrap();
    writer.finish().unwrap();
    fs::remove_dir_all(&seeds).unwrap();
}

/// All figures of this part.
pub fn measure(settings: &Settings, table: &mut Table) {
    let (archive, point) = (settings.dir.join("names"), settings.dir.join("mnt"));
    let start = Instant::now();
    make_archive(settings, &archive);
    let catalog = fs::metadata(archive.join(".blockframe/catalog.db")).unwrap().len();
    eprintln!("{} names entered in {:.1} s", settings.names, start.elapsed().as_secs_f64());
    let count = settings.names;
    table.row(
        &format!("catalog of {count} files"),
        format!("{:.1} MiB", catalog as f64 / 1048576.0),
        String::new(),
        format!("{} bytes a file", catalog / count as u64),
        "stated",
    );
    for cold in [true, false] {
        let mut takes = Vec::new();
        for _ in 0..settings.rounds {
            if cold {
                drop_caches();
            }
            let mut mounted = None;
            takes.push(timed(None, || {
                mounted = Some(Mount::archive(&archive, &point));
                assert_eq!(fs::read_dir(&point).unwrap().count(), 2);
            }));
        }
        let seconds = Figure::median(&takes).seconds;
        let state = if cold { "disk cold" } else { "warm" };
        let what = format!("mount of {count} files answers, {state}");
        table.row(&what, format!("{:.0} ms", seconds * 1000.0), String::new(), String::new(), "< 1 s");
    }
    find(settings, &archive, &point, table);
    fs::remove_dir_all(&archive).unwrap();
}

/// Lists everything, twice: from the catalog, and with what the kernel remembers.
fn find(settings: &Settings, archive: &Path, point: &Path, table: &mut Table) {
    let (mut names, mut long) = (Vec::new(), Vec::new());
    let mut memory = (0, 0);
    for _ in 0..settings.rounds {
        drop_caches();
        let mount = Mount::archive(archive, point);
        names.push(timed(Some(&mount), || run(Command::new("find").arg(point))));
        memory = mount.memory().max(memory);
        drop(mount);
        drop_caches();
        let mount = Mount::archive(archive, point);
        long.push(timed(Some(&mount), || shell(point, "find . -printf '%s %T@ %p\\n' > /dev/null")));
        memory = mount.memory().max(memory);
    }
    for (what, takes) in [("find", names), ("find with size and time of each", long)] {
        let figure = Figure::median(&takes);
        table.row(
            &format!("{what}, cold, {} files", settings.names),
            format!("{:.2} s, {:.2} CPU s", figure.seconds, figure.cpu),
            String::new(),
            format!("{:.0} entries/s", settings.names as f64 / figure.seconds),
            ">= 100,000/s",
        );
    }
    table.row(
        "memory of the daemon after it",
        format!("{} MiB (peak {})", memory.1, memory.0),
        String::new(),
        String::new(),
        "< 512 MiB",
    );
}
