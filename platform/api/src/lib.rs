//! What a platform adapter (FUSE, WinFSP) needs to know of BlockFrame: one
//! trait, its types, and one error class. No `errno`, no `NTSTATUS`, no
//! dependency: each adapter holds exactly one table from [`ErrorClass`] to
//! what its kernel speaks, and decides nothing else.

mod error;
mod types;

pub use error::{ErrorClass, VfsError};
pub use types::{
    Attributes, CachePolicy, DirectoryEntry, Handle, NamePolicy, Node, NodeKind, OpenedFile, SpaceUsage, Timestamp,
};

/// The outcome of a [`Vfs`] operation.
pub type VfsResult<T> = Result<T, VfsError>;

/// A mounted archive, as the operating system sees it.
///
/// Operations are called from many threads at once and block. A [`Node`] is
/// the file's identity and stays the same over remounts; a [`Handle`] lives
/// from `open` to `release` and reads one immutable version throughout.
/// Names are byte strings that satisfy [`Vfs::name_policy`]; an adapter whose
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

    /// Opens a regular file for reading.
    fn open(&self, node: Node) -> VfsResult<OpenedFile>;

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
}
