//! The bare pass-through filesystem that benches compare with: the same
//! library, mount options and threads as BlockFrame's mount, one `pread` per
//! request, nothing verified.
//!
//! `passthrough DIRECTORY MOUNTPOINT [refresh|keep|bypass]` serves the regular
//! files directly in DIRECTORY until it is unmounted. The last argument says
//! what the kernel's page cache keeps of a file from one opening to the next:
//! nothing, all (`FOPEN_KEEP_CACHE`), or nothing ever (`FOPEN_DIRECT_IO`).
#![allow(clippy::unwrap_used, clippy::expect_used)]

use blockframe_api::{
    Attributes, CachePolicy, DirectoryEntry, ErrorClass, Handle, Node, NodeKind, OpenHow, OpenedFile, SpaceUsage,
    Timestamp, Vfs, VfsError, VfsResult,
};
use blockframe_fuse::{MountOptions, spawn};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Inode number of the first file.
const FIRST: u64 = 2;

struct Passthrough {
    names: BTreeMap<Vec<u8>, u64>,
    files: Vec<(PathBuf, File)>,
    cache: CachePolicy,
}

impl Passthrough {
    fn new(directory: &Path, cache: CachePolicy) -> io::Result<Self> {
        let mut names = BTreeMap::new();
        let mut files = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.insert(entry.file_name().as_bytes().to_vec(), FIRST + files.len() as u64);
                files.push((entry.path(), File::open(entry.path())?));
            }
        }
        Ok(Self { names, files, cache })
    }

    fn file(&self, number: u64) -> VfsResult<&(PathBuf, File)> {
        number
            .checked_sub(FIRST)
            .and_then(|index| self.files.get(index as usize))
            .ok_or_else(|| VfsError::new(ErrorClass::NotFound, "no such file"))
    }
}

fn failed(error: &io::Error) -> VfsError {
    VfsError::new(ErrorClass::Unavailable, error.to_string())
}

impl Vfs for Passthrough {
    fn lookup(&self, _parent: Node, name: &[u8]) -> VfsResult<Attributes> {
        match self.names.get(name) {
            Some(&number) => self.attributes(Node::new(number)),
            None => Err(VfsError::new(ErrorClass::NotFound, "no such file")),
        }
    }

    fn attributes(&self, node: Node) -> VfsResult<Attributes> {
        let (kind, size, time) = if node == Node::ROOT {
            (NodeKind::Directory, 4096, 0)
        } else {
            let metadata = self.file(node.number())?.1.metadata().map_err(|error| failed(&error))?;
            (NodeKind::File, metadata.size(), metadata.mtime())
        };
        let time = Timestamp { seconds: time, nanoseconds: 0 };
        Ok(Attributes {
            node,
            kind,
            size,
            allocated: size,
            permissions: 0o755,
            links: 1,
            user: 0,
            group: 0,
            device: 0,
            accessed: time,
            modified: time,
            changed: time,
            born: time,
            block_size: 128 * 1024,
        })
    }

    fn read_link(&self, _node: Node) -> VfsResult<Vec<u8>> {
        Err(VfsError::new(ErrorClass::Invalid, "not a symbolic link"))
    }

    fn open(&self, node: Node, _how: OpenHow) -> VfsResult<OpenedFile> {
        self.file(node.number())?;
        Ok(OpenedFile { handle: Handle::new(node.number()), cache: self.cache, backing: None })
    }

    fn read(&self, handle: Handle, offset: u64, length: u32, deliver: &mut dyn FnMut(&[u8])) -> VfsResult<()> {
        thread_local! {
            static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        let (_, file) = self.file(handle.number())?;
        BUFFER.with(|buffer| {
            let mut buffer = buffer.borrow_mut();
            if buffer.len() < length as usize {
                buffer.resize(length as usize, 0);
            }
            let count = file.read_at(&mut buffer[..length as usize], offset).map_err(|error| failed(&error))?;
            deliver(&buffer[..count]);
            Ok(())
        })
    }

    fn seek(&self, _handle: Handle, offset: u64, _data: bool) -> VfsResult<u64> {
        Ok(offset)
    }

    fn release(&self, _handle: Handle) {}

    fn read_directory(
        &self,
        _node: Node,
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(DirectoryEntry<'_>) -> bool,
    ) -> VfsResult<()> {
        for (name, &number) in self.names.iter().filter(|(name, _)| after.is_none_or(|after| name.as_slice() > after)) {
            if !visit(DirectoryEntry { name, attributes: self.attributes(Node::new(number))? }) {
                break;
            }
        }
        Ok(())
    }

    fn parent(&self, node: Node) -> VfsResult<Node> {
        Ok(node)
    }

    fn extended_attribute(&self, _node: Node, _name: &[u8]) -> VfsResult<Vec<u8>> {
        Err(VfsError::new(ErrorClass::NoAttribute, "no attributes"))
    }

    fn extended_attributes(&self, _node: Node) -> VfsResult<Vec<Vec<u8>>> {
        Ok(Vec::new())
    }

    fn space(&self) -> VfsResult<SpaceUsage> {
        Ok(SpaceUsage { total: 0, free: 0, available: 0, nodes: self.files.len() as u64 })
    }
}

/// Serves what the command line says, until it is unmounted.
pub fn main() {
    let mut arguments = std::env::args_os().skip(1).skip_while(|argument| argument == "passthrough");
    let (Some(directory), Some(mountpoint)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: passthrough DIRECTORY MOUNTPOINT [refresh|keep|bypass]");
        std::process::exit(2);
    };
    let cache = match arguments.next().as_deref().and_then(|word| word.to_str()) {
        Some("keep") => CachePolicy::Keep,
        Some("bypass") => CachePolicy::Bypass,
        _ => CachePolicy::Refresh,
    };
    let vfs = Passthrough::new(Path::new(&directory), cache).expect("the directory can be read");
    let mounted = spawn(Arc::new(vfs), Path::new(&mountpoint), &MountOptions::new("passthrough")).expect("it mounts");
    mounted.wait().expect("the session ends well");
}
