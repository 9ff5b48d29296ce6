//! What a platform adapter (FUSE, WinFSP) needs to know of BlockFrame: one
//! trait, its types, and one error class. No `errno`, no `NTSTATUS`, no
//! dependency: each adapter holds exactly one table from [`ErrorClass`] to
//! what its kernel speaks, and decides nothing else.
//!
//! With the feature `memory` there is a reference model of the filesystem for tests.

mod error;
#[cfg(feature = "memory")]
pub mod memory;
mod types;

pub use error::{ErrorClass, VfsError};
pub use types::{
    AllocateMode, AttributeChange, Attributes, CachePolicy, Caller, DirectoryEntry, Handle, NamePolicy, NewNode, Node,
    NodeKind, OpenHow, OpenedFile, RenameMode, SpaceUsage, TimeChange, Timestamp, XattrMode,
};

use std::sync::Arc;

/// The outcome of a [`Vfs`] operation.
pub type VfsResult<T> = Result<T, VfsError>;

/// What the kernel can do for the filesystem, told once when a mount begins.
#[derive(Clone)]
pub struct Kernel {
    /// Whether an open file may be served by the kernel straight from a file
    /// of this machine ([`OpenedFile::backing`]).
    pub passthrough: bool,
    /// What it remembers.
    pub cache: Arc<dyn KernelCache>,
}

/// What the kernel remembers of names, attributes and bytes. Told of changes
/// that did not come from the kernel itself. Calls may block while the kernel
/// waits for an answer: no lock of the filesystem may be held.
pub trait KernelCache: Send + Sync {
    /// Attributes and bytes of a node have changed.
    fn forget_node(&self, node: Node);

    /// A name leads elsewhere now, appeared, or is gone.
    fn forget_name(&self, parent: Node, name: &[u8]);
}

fn read_only<T>() -> VfsResult<T> {
    Err(VfsError::new(ErrorClass::ReadOnly, "the filesystem is mounted read-only"))
}

/// A mounted archive, as the operating system sees it.
///
/// Operations are called from many threads at once and block. A [`Node`] is
/// the file's identity and stays the same over remounts; a [`Handle`] lives
/// from `open` to `release`. Every read sees the newest bytes that were
/// written. The adapter's kernel checks permissions (mode bits, ACLs, sticky
/// directories); the filesystem keeps what it needs for that.
///
/// A filesystem that is never written leaves out the methods below
/// [`Self::is_writable`]: they answer `ReadOnly`. Names are byte strings that satisfy [`Vfs::name_policy`]; an adapter whose
/// kernel speaks UTF-16 converts, and refuses what it cannot convert.
pub trait Vfs: Send + Sync + 'static {
    /// Which names may exist here.
    fn name_policy(&self) -> NamePolicy {
        NamePolicy::UnixBytes
    }

    /// Attributes of the entry `name` in directory `parent`.
    ///
    /// Errors: `NotFound`; `NotDirectory` when `parent` is none.
    fn lookup(&self, parent: Node, name: &[u8]) -> VfsResult<Attributes>;

    /// Attributes of a node.
    fn attributes(&self, node: Node) -> VfsResult<Attributes>;

    /// The target of a symbolic link.
    fn read_link(&self, node: Node) -> VfsResult<Vec<u8>>;

    /// Opens a regular file.
    ///
    /// Errors: `IsDirectory`; `ReadOnly` for an open that would write where
    /// nothing can be written.
    fn open(&self, node: Node, how: OpenHow) -> VfsResult<OpenedFile>;

    /// Reads up to `length` bytes at `offset`, verified, and hands them to
    /// `deliver` once. Fewer bytes only at the end of the file.
    ///
    /// Errors: `Unrecoverable` when the range is damaged beyond the parity;
    /// other ranges of the same file stay readable.
    fn read(&self, handle: Handle, offset: u64, length: u32, deliver: &mut dyn FnMut(&[u8])) -> VfsResult<()>;

    /// The first offset at or after `offset` that holds data (`data`) or lies
    /// in a hole (`!data`). The end of the file counts as a hole.
    ///
    /// Errors: `NoSuchRange` when `offset` is at or past the end, or no data follows.
    fn seek(&self, handle: Handle, offset: u64, data: bool) -> VfsResult<u64>;

    /// Ends the life of a handle.
    fn release(&self, handle: Handle);

    /// Lists directory `node` in a stable order, beginning after the entry
    /// named `after` (from the start when `None`), whether or not that entry
    /// still exists. Stops when `visit` returns false. `.` and `..` are not
    /// listed: the adapter adds them where its kernel wants them.
    fn read_directory(
        &self,
        node: Node,
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(DirectoryEntry<'_>) -> bool,
    ) -> VfsResult<()>;

    /// The parent of a directory; the root is its own parent.
    fn parent(&self, node: Node) -> VfsResult<Node>;

    /// The value of an extended attribute. Error: `NoAttribute`.
    fn extended_attribute(&self, node: Node, name: &[u8]) -> VfsResult<Vec<u8>>;

    /// Names of all extended attributes of a node.
    fn extended_attributes(&self, node: Node) -> VfsResult<Vec<Vec<u8>>>;

    /// Capacity as a user understands it: net of parity.
    fn space(&self) -> VfsResult<SpaceUsage>;

    /// The mount begins: what the kernel can do.
    fn attach(&self, kernel: Kernel) {
        let _ = kernel;
    }

    /// The mount has ended: no further call comes, and no handle is open.
    fn detach(&self) {}

    /// Whether anything can be changed.
    fn is_writable(&self) -> bool {
        false
    }

    /// Makes a regular file and opens it.
    ///
    /// Errors: `Exists`; `NotFound` when `parent` was removed.
    fn create(
        &self,
        caller: Caller,
        parent: Node,
        name: &[u8],
        permissions: u16,
        how: OpenHow,
    ) -> VfsResult<(Attributes, OpenedFile)> {
        let _ = (caller, parent, name, permissions, how);
        read_only()
    }

    /// Makes a node of any kind without opening it.
    ///
    /// Errors: `Exists`; `NotFound` when `parent` was removed.
    fn make(
        &self,
        caller: Caller,
        parent: Node,
        name: &[u8],
        permissions: u16,
        what: NewNode<'_>,
    ) -> VfsResult<Attributes> {
        let _ = (caller, parent, name, permissions, what);
        read_only()
    }

    /// Gives a node that is no directory a further name.
    ///
    /// Errors: `Exists`; `TooManyLinks`.
    fn link(&self, node: Node, parent: Node, name: &[u8]) -> VfsResult<Attributes> {
        let _ = (node, parent, name);
        read_only()
    }

    /// Removes a name that leads to no directory. An open file lives on until
    /// its last handle is released.
    ///
    /// Errors: `NotFound`, `IsDirectory`.
    fn unlink(&self, parent: Node, name: &[u8]) -> VfsResult<()> {
        let _ = (parent, name);
        read_only()
    }

    /// Removes an empty directory.
    ///
    /// Errors: `NotFound`, `NotDirectory`, `NotEmpty`.
    fn remove_directory(&self, parent: Node, name: &[u8]) -> VfsResult<()> {
        let _ = (parent, name);
        read_only()
    }

    /// Moves a name, in one step.
    ///
    /// Errors: `NotFound`; `Exists` (`NoReplace`); `NotEmpty`; `IsDirectory`
    /// and `NotDirectory` when one replaces the other; `Invalid` when a
    /// directory would come to lie within itself.
    fn rename(&self, parent: Node, name: &[u8], new_parent: Node, new_name: &[u8], mode: RenameMode) -> VfsResult<()> {
        let _ = (parent, name, new_parent, new_name, mode);
        read_only()
    }

    /// Changes attributes, all in one step; truncation is the change of the
    /// size. `handle`: the open file through which it is asked, if any.
    fn set_attributes(
        &self,
        caller: Caller,
        node: Node,
        handle: Option<Handle>,
        change: &AttributeChange,
    ) -> VfsResult<Attributes> {
        let _ = (caller, node, handle, change);
        read_only()
    }

    /// Sets an extended attribute. `system.posix_acl_access` changes the
    /// permission bits too.
    ///
    /// Errors: `Exists`, `NoAttribute` (see [`XattrMode`]); `NoSpace` when all
    /// attributes together become too long.
    fn set_extended_attribute(&self, node: Node, name: &[u8], value: &[u8], mode: XattrMode) -> VfsResult<()> {
        let _ = (node, name, value, mode);
        read_only()
    }

    /// Removes an extended attribute. Error: `NoAttribute`, but for an ACL
    /// that is not there, which counts as removed.
    fn remove_extended_attribute(&self, node: Node, name: &[u8]) -> VfsResult<()> {
        let _ = (node, name);
        read_only()
    }

    /// Writes all of `data` at `offset`. With `kill_privileges` the set-user-id
    /// and set-group-id bits and `security.capability` go.
    ///
    /// Errors: `NoSpace` when nothing makes room; `TooLarge`; `Latched`.
    fn write(&self, handle: Handle, offset: u64, data: &[u8], kill_privileges: bool) -> VfsResult<()> {
        let _ = (handle, offset, data, kill_privileges);
        read_only()
    }

    /// Allocates, zeroes or frees a range.
    fn allocate(&self, handle: Handle, offset: u64, length: u64, mode: AllocateMode) -> VfsResult<()> {
        let _ = (handle, offset, length, mode);
        read_only()
    }

    /// Copies a range from one open file to another (or to another place of
    /// the same file, not overlapping). Returns how much was copied: less than
    /// `length` at the end of the source.
    fn copy_range(&self, from: Handle, from_offset: u64, to: Handle, to_offset: u64, length: u64) -> VfsResult<u64> {
        let _ = (from, from_offset, to, to_offset, length);
        read_only()
    }

    /// A descriptor of this open file is being closed: the chance to report
    /// an error of writing that nobody was told of.
    fn flush(&self, handle: Handle) -> VfsResult<()> {
        let _ = handle;
        Ok(())
    }

    /// Makes an open file durable, and every change of names before it.
    ///
    /// Error: `Latched`, once for each handle, when an earlier write to the
    /// disk failed.
    fn sync(&self, handle: Handle, data_only: bool) -> VfsResult<()> {
        let _ = (handle, data_only);
        Ok(())
    }

    /// Makes a directory's names durable.
    fn sync_directory(&self, node: Node) -> VfsResult<()> {
        let _ = node;
        Ok(())
    }

    /// Makes everything durable.
    fn sync_all(&self) -> VfsResult<()> {
        Ok(())
    }
}
