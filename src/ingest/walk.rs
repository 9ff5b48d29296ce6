//! Walks trees of the machine in byte order of the names, directories before
//! what they hold, never through a symlink.

use super::{IngestError, IngestResult, Problem};
use crate::base::Timestamp;
use crate::format::{EntryPath, NodeMeta};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fmt;
use std::fs::Metadata;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// One thing to be committed.
#[derive(Debug)]
pub struct CommitItem {
    /// Where its bytes come from.
    pub source: CommitSource,
    /// The path in the archive that it gets.
    pub path: EntryPath,
}

/// Where the bytes of an item come from.
pub enum CommitSource {
    /// A file, a symlink, or a directory with all it holds.
    Path(PathBuf),
    /// What a directory holds, without the directory.
    Contents(PathBuf),
    /// A stream, read to its end.
    Stream(Box<dyn Read + Send>, NodeMeta),
}

impl fmt::Debug for CommitSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "Path({path:?})"),
            Self::Contents(path) => write!(f, "Contents({path:?})"),
            Self::Stream(_, meta) => write!(f, "Stream({meta:?})"),
        }
    }
}

impl CommitItem {
    /// What `cp -r SOURCE DIRECTORY` would copy: the base name goes into the
    /// directory; of a path without one (`.`, `..`, `/`, `dir/.`), the contents.
    pub fn from_path(source: PathBuf, directory: &EntryPath) -> IngestResult<Self> {
        let bytes = source.as_os_str().as_bytes();
        let contents = bytes == b"." || bytes.ends_with(b"/.");
        match source.file_name() {
            Some(name) if !contents => {
                let path = directory.join(name.as_bytes())?;
                Ok(Self { source: CommitSource::Path(source), path })
            }
            _ => Ok(Self { source: CommitSource::Contents(source), path: directory.clone() }),
        }
    }

    /// A stream as the file `name` in a directory, written now by user and group of this process.
    pub fn from_stream(
        stream: Box<dyn Read + Send>,
        name: &[u8],
        directory: &EntryPath,
        now: Timestamp,
    ) -> IngestResult<Self> {
        let meta = NodeMeta {
            permissions: 0o644,
            user: rustix::process::geteuid().as_raw(),
            group: rustix::process::getegid().as_raw(),
            modified: now,
            changed: now,
            ..NodeMeta::default()
        };
        Ok(Self { source: CommitSource::Stream(stream, meta), path: directory.join(name)? })
    }

    /// The path on the machine, for messages.
    pub(super) fn origin(&self) -> PathBuf {
        match &self.source {
            CommitSource::Path(path) | CommitSource::Contents(path) => path.clone(),
            CommitSource::Stream(..) => PathBuf::from("-"),
        }
    }
}

/// Refuses items of which one would overwrite another.
pub(super) fn check_distinct(items: &[CommitItem]) -> IngestResult<()> {
    let mut seen: std::collections::HashMap<&EntryPath, &CommitItem> = std::collections::HashMap::new();
    for item in items.iter().filter(|item| !matches!(item.source, CommitSource::Contents(_))) {
        if let Some(other) = seen.insert(&item.path, item) {
            return Err(IngestError::SameDestination {
                path: item.path.clone(),
                first: other.origin(),
                second: item.origin(),
            });
        }
    }
    Ok(())
}

/// Whether one item may put something where another does.
pub(super) fn may_overlap(items: &[CommitItem]) -> bool {
    let mut paths = HashSet::new();
    let repeated = items.iter().any(|item| !paths.insert(&item.path));
    let inside = |item: &CommitItem| {
        std::iter::successors(item.path.parent(), EntryPath::parent).any(|above| paths.contains(&above))
    };
    repeated || items.iter().any(inside)
}

/// Directories by device and inode that a walk does not enter.
#[derive(Debug, Default)]
pub(super) struct Excluded(HashSet<(u64, u64)>);

impl Excluded {
    /// Those of the paths that exist.
    pub(super) fn new(paths: &[PathBuf]) -> Self {
        Self(paths.iter().filter_map(|path| path.metadata().ok()).map(|found| (found.dev(), found.ino())).collect())
    }
}

/// Something that a walk found.
#[derive(Debug)]
pub(super) struct Found {
    /// On the machine.
    pub(super) source: PathBuf,
    /// In the archive; of a [`Problem::Name`], the directory above.
    pub(super) path: EntryPath,
    /// What `lstat` said.
    pub(super) metadata: Result<Metadata, Problem>,
}

/// A walk over one tree.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    excluded: &'a Excluded,
    first: Option<(PathBuf, EntryPath)>,
    levels: Vec<Level>,
}

#[derive(Debug)]
struct Level {
    source: PathBuf,
    path: EntryPath,
    names: Names,
    next: usize,
}

impl<'a> Walk<'a> {
    /// The tree at `source`, which is `path` in the archive.
    pub(super) fn new(source: PathBuf, path: EntryPath, excluded: &'a Excluded) -> Self {
        Self { excluded, first: Some((source, path)), levels: Vec::new() }
    }

    /// What the directory `source` holds.
    pub(super) fn contents(source: PathBuf, path: EntryPath, excluded: &'a Excluded) -> Result<Self, Problem> {
        let mut walk = Self { excluded, first: None, levels: Vec::new() };
        walk.enter(&source, &path)?;
        Ok(walk)
    }

    /// Goes into the directory that was found last.
    pub(super) fn enter(&mut self, source: &Path, path: &EntryPath) -> Result<(), Problem> {
        let names = Names::of(source).map_err(Problem::local("list"))?;
        self.levels.push(Level { source: source.to_path_buf(), path: path.clone(), names, next: 0 });
        Ok(())
    }

    /// The next thing. A directory's contents follow if it is [entered](Self::enter).
    pub(super) fn next(&mut self) -> Option<Found> {
        let (source, path) = match self.first.take() {
            Some(first) => first,
            None => match self.next_name()? {
                Ok(next) => next,
                Err(found) => return Some(*found),
            },
        };
        let metadata = source.symlink_metadata().map_err(Problem::local("examine"));
        let metadata = match metadata {
            Ok(found) if self.excluded.0.contains(&(found.dev(), found.ino())) => Err(Problem::Archive),
            other => other,
        };
        Some(Found { source, path, metadata })
    }

    fn next_name(&mut self) -> Option<Result<(PathBuf, EntryPath), Box<Found>>> {
        loop {
            let level = self.levels.last_mut()?;
            let Some(name) = level.names.get(level.next) else {
                self.levels.pop();
                continue;
            };
            level.next += 1;
            let source = level.source.join(OsStr::from_bytes(name));
            return Some(match level.path.join(name) {
                Ok(path) => Ok((source, path)),
                Err(error) => {
                    Err(Box::new(Found { source, path: level.path.clone(), metadata: Err(Problem::Name(error)) }))
                }
            });
        }
    }
}

/// The sorted names of a directory in one allocation: a directory of a
/// million names takes some 30 MB and not 100.
#[derive(Debug)]
struct Names {
    bytes: Vec<u8>,
    /// Start and length of each name.
    spans: Vec<(u32, u16)>,
}

impl Names {
    fn of(directory: &Path) -> io::Result<Self> {
        let mut names = Self { bytes: Vec::new(), spans: Vec::new() };
        for entry in std::fs::read_dir(directory)? {
            let name = entry?.file_name();
            let start = u32::try_from(names.bytes.len()).map_err(|_| io::ErrorKind::OutOfMemory)?;
            names.bytes.extend_from_slice(name.as_bytes());
            names.spans.push((start, name.len() as u16));
        }
        let bytes = &names.bytes;
        names.spans.sort_unstable_by_key(|span| slice(bytes, *span));
        Ok(names)
    }

    fn get(&self, index: usize) -> Option<&[u8]> {
        self.spans.get(index).map(|span| slice(&self.bytes, *span))
    }
}

fn slice(bytes: &[u8], (start, len): (u32, u16)) -> &[u8] {
    &bytes[start as usize..start as usize + usize::from(len)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walked(mut walk: Walk<'_>) -> Vec<String> {
        let mut paths = Vec::new();
        while let Some(found) = walk.next() {
            if found.metadata.as_ref().is_ok_and(Metadata::is_dir) {
                walk.enter(&found.source, &found.path).unwrap();
            }
            paths.push(format!("{}{}", found.path, if found.metadata.is_err() { " !" } else { "" }));
        }
        paths
    }

    #[test]
    fn a_walk_is_sorted_goes_parents_first_and_does_not_follow_symlinks() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        std::fs::create_dir_all(root.join("b/c")).unwrap();
        std::fs::create_dir(root.join("archive")).unwrap();
        std::fs::write(root.join("archive/hidden"), "").unwrap();
        std::fs::write(root.join("b/c/deep"), "").unwrap();
        std::fs::write(root.join("b.txt"), "").unwrap();
        std::fs::write(root.join("Z"), "").unwrap();
        std::os::unix::fs::symlink("..", root.join("loop")).unwrap();
        let excluded = Excluded::new(&[root.join("archive")]);
        let expected = ["/r", "/r/Z", "/r/archive !", "/r/b", "/r/b/c", "/r/b/c/deep", "/r/b.txt", "/r/loop"];
        let walk = Walk::new(root.clone(), EntryPath::new("r").unwrap(), &excluded);
        assert_eq!(walked(walk), expected);
        let walk = Walk::contents(root, EntryPath::new("r").unwrap(), &excluded).unwrap();
        assert_eq!(walked(walk), expected[1..]);
    }

    #[test]
    fn arguments_get_the_names_that_cp_gives() {
        let to = EntryPath::new("to").unwrap();
        for (argument, path, contents) in [
            ("a/b", "/to/b", false),
            ("a/b/", "/to/b", false),
            (".", "/to", true),
            ("..", "/to", true),
            ("a/.", "/to", true),
            ("/", "/to", true),
        ] {
            let item = CommitItem::from_path(argument.into(), &to).unwrap();
            assert_eq!(item.path.to_string(), path, "{argument}");
            assert_eq!(matches!(item.source, CommitSource::Contents(_)), contents, "{argument}");
        }
        let same =
            [CommitItem::from_path("a/x".into(), &to).unwrap(), CommitItem::from_path("b/x".into(), &to).unwrap()];
        assert!(matches!(check_distinct(&same), Err(IngestError::SameDestination { .. })));
        let items = |arguments: &[&str]| -> Vec<CommitItem> {
            arguments.iter().map(|argument| CommitItem::from_path(argument.into(), &to).unwrap()).collect()
        };
        assert!(!may_overlap(&items(&["a/x", "b/y", "z"])));
        assert!(!may_overlap(&items(&["a/."])));
        assert!(may_overlap(&items(&["a/.", "b/."])));
        assert!(may_overlap(&items(&["a/x", "b/."])));
    }
}
