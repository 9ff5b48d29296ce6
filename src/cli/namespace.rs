//! Paths of the archive as commands take and show them.

use super::error::{CliError, CliResult};
use super::output::JsonPath;
use super::units;
use crate::base::{ErrorClass, Timestamp};
use crate::catalog::{Catalog, Inode};
use crate::format::{EntryPath, NodeBody};
use blockframe_api::{Node, NodeKind};
use serde::Serialize;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

/// A path of the archive as the user typed it.
pub fn parse_path(text: &OsStr) -> CliResult<EntryPath> {
    EntryPath::from_user(text.as_bytes())
        .map_err(|error| CliError::new(ErrorClass::Invalid, format!("\"{}\" is no path: {error}", text.display())))
}

/// The node at a path that the user typed; the root when none.
pub fn resolve(catalog: &Catalog, text: Option<&OsStr>) -> CliResult<(EntryPath, Inode)> {
    resolve_at(catalog, text, None)
}

/// As [`resolve`], as of a time if there is one.
pub fn resolve_at(catalog: &Catalog, text: Option<&OsStr>, at: Option<Timestamp>) -> CliResult<(EntryPath, Inode)> {
    let path = match text {
        Some(text) => parse_path(text)?,
        None => EntryPath::root(),
    };
    let found = match at {
        Some(at) => catalog.resolve_at(&path, at)?,
        None => catalog.resolve(&path)?,
    };
    match found {
        Some(inode) => Ok((path, inode)),
        None => {
            let when = at.map_or(String::new(), |at| format!(" at {}", units::rfc3339(at)));
            let hint = format!("{path}: not in the archive{when}; `blockframe find` searches names");
            Err(CliError::new(ErrorClass::NotFound, hint))
        }
    }
}

/// A directory that [`walk`] is in.
struct Level {
    node: Node,
    path: EntryPath,
    after: Option<Vec<u8>>,
}

/// Calls `visit` for everything below a directory: parents before children,
/// names in byte order. Holds one name per level, however large the tree.
pub fn walk(
    catalog: &Catalog,
    directory: Node,
    path: &EntryPath,
    visit: &mut dyn FnMut(&EntryPath, &Inode) -> CliResult<()>,
) -> CliResult<()> {
    walk_at(catalog, directory, path, None, visit)
}

/// As [`walk`], as of a time if there is one.
pub fn walk_at(
    catalog: &Catalog,
    directory: Node,
    path: &EntryPath,
    at: Option<Timestamp>,
    visit: &mut dyn FnMut(&EntryPath, &Inode) -> CliResult<()>,
) -> CliResult<()> {
    let mut stack = vec![Level { node: directory, path: path.clone(), after: None }];
    while let Some(Level { node, path, after }) = stack.pop() {
        let mut result = Ok(());
        let mut descend = None;
        let mut show = |name: &[u8], inode: Inode| {
            let entry = match path.join(name) {
                Ok(entry) => entry,
                Err(error) => {
                    result = Err(error.into());
                    return false;
                }
            };
            result = visit(&entry, &inode);
            if result.is_ok() && inode.is_directory() {
                descend = Some((inode.node, entry, name.to_vec()));
            }
            result.is_ok() && descend.is_none()
        };
        match at {
            Some(at) => catalog.list_at(node, after.as_deref(), at, &mut show)?,
            None => catalog.list(node, after.as_deref(), &mut show)?,
        }
        result?;
        if let Some((below, entry, name)) = descend {
            stack.push(Level { node, path, after: Some(name) });
            stack.push(Level { node: below, path: entry, after: None });
        }
    }
    Ok(())
}

/// The word for a kind of node.
pub fn kind_word(kind: NodeKind) -> &'static str {
    match kind {
        NodeKind::File => "file",
        NodeKind::Directory => "directory",
        NodeKind::Symlink => "symlink",
        NodeKind::Fifo => "fifo",
        NodeKind::Socket => "socket",
        NodeKind::CharDevice => "char_device",
        NodeKind::BlockDevice => "block_device",
    }
}

/// Kind and permissions as `ls -l` shows them: `-rwxr-x---`.
pub fn mode_text(kind: NodeKind, permissions: u16) -> String {
    let first = match kind {
        NodeKind::File => '-',
        NodeKind::Directory => 'd',
        NodeKind::Symlink => 'l',
        NodeKind::Fifo => 'p',
        NodeKind::Socket => 's',
        NodeKind::CharDevice => 'c',
        NodeKind::BlockDevice => 'b',
    };
    let mut text: Vec<char> = std::iter::once(first)
        .chain((0..9).map(|bit| if permissions >> (8 - bit) & 1 == 1 { ['r', 'w', 'x'][bit % 3] } else { '-' }))
        .collect();
    for (bit, at, with, without) in [(11, 3, 's', 'S'), (10, 6, 's', 'S'), (9, 9, 't', 'T')] {
        if permissions >> bit & 1 == 1 {
            text[at] = if text[at] == 'x' { with } else { without };
        }
    }
    text.into_iter().collect()
}

/// A node as JSON output shows it.
#[derive(Debug, Serialize)]
pub struct NodeJson {
    /// Its path, from the archive's root.
    #[serde(flatten)]
    path: JsonPath,
    kind: &'static str,
    size: u64,
    allocated: u64,
    /// Permission bits in octal.
    mode: String,
    user: u32,
    group: u32,
    links: u32,
    inode: u64,
    modified: String,
    changed: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    born: Option<String>,
    /// BLAKE3 of a file's content.
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<JsonPath>,
}

impl NodeJson {
    /// A node under one of its paths.
    pub fn new(path: &EntryPath, inode: &Inode) -> Self {
        let attributes = inode.attributes();
        let hash = match &inode.body {
            NodeBody::File(content) => Some(content.hash.to_hex()),
            _ => None,
        };
        let target = match &inode.body {
            NodeBody::Symlink(target) => Some(JsonPath::new(target)),
            _ => None,
        };
        Self {
            path: JsonPath::new(path.as_bytes()),
            kind: kind_word(attributes.kind),
            size: attributes.size,
            allocated: attributes.allocated,
            mode: format!("{:04o}", attributes.permissions),
            user: attributes.user,
            group: attributes.group,
            links: attributes.links,
            inode: attributes.node.number(),
            modified: units::rfc3339(attributes.modified),
            changed: units::rfc3339(attributes.changed),
            born: inode.meta.born.map(units::rfc3339),
            hash,
            target,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_read_like_ls() {
        assert_eq!(mode_text(NodeKind::File, 0o644), "-rw-r--r--");
        assert_eq!(mode_text(NodeKind::Directory, 0o1777), "drwxrwxrwt");
        assert_eq!(mode_text(NodeKind::File, 0o6755), "-rwsr-sr-x");
        assert_eq!(mode_text(NodeKind::File, 0o4600), "-rwS------");
    }
}
