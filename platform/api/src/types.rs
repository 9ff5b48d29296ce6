//! Types that cross the border between BlockFrame and a platform adapter.

use std::fs::File;
use std::sync::Arc;

/// A file's identity: its inode number, the same over remounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node(u64);

impl Node {
    /// The root directory.
    pub const ROOT: Node = Node(1);

    /// A node by its inode number.
    pub fn new(number: u64) -> Self {
        Self(number)
    }

    /// The inode number.
    pub fn number(self) -> u64 {
        self.0
    }
}

/// An open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handle(u64);

impl Handle {
    /// A handle by its number.
    pub fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number, as the kernel hands it back.
    pub fn number(self) -> u64 {
        self.0
    }
}

/// Which byte strings are names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamePolicy {
    /// 1 to 255 bytes, any but `/` and NUL, neither `.` nor `..`.
    UnixBytes,
}

impl NamePolicy {
    /// Longest name, in bytes.
    pub const MAX_NAME: usize = 255;

    /// Whether `name` may be an entry's name.
    pub fn allows(self, name: &[u8]) -> bool {
        match self {
            NamePolicy::UnixBytes => {
                !name.is_empty()
                    && name.len() <= Self::MAX_NAME
                    && name != b"."
                    && name != b".."
                    && !name.iter().any(|&b| b == b'/' || b == 0)
            }
        }
    }
}

/// Seconds and nanoseconds since 1970-01-01 UTC; before it, seconds are negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    /// Whole seconds, rounded towards the past.
    pub seconds: i64,
    /// 0 to 999,999,999, added to `seconds`.
    pub nanoseconds: u32,
}

/// What kind of thing a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodeKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

/// What `stat` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Inode number.
    pub node: Node,
    /// What it is.
    pub kind: NodeKind,
    /// Content length in bytes; a symlink's target length.
    pub size: u64,
    /// Bytes that hold data; less than `size` for a sparse file.
    pub allocated: u64,
    /// Permission bits with setuid, setgid and sticky, 0 to 0o7777.
    pub permissions: u16,
    /// Names that lead to this node; for a directory 2 plus its subdirectories.
    pub links: u32,
    /// Owner.
    pub user: u32,
    /// Group.
    pub group: u32,
    /// Device number as the kernel encodes it (devices only).
    pub device: u32,
    /// Last access: as it was set; reading does not change it.
    pub accessed: Timestamp,
    /// Last change of content.
    pub modified: Timestamp,
    /// Last change of content or attributes.
    pub changed: Timestamp,
    /// Birth.
    pub born: Timestamp,
    /// Preferred unit of reading, in bytes.
    pub block_size: u32,
}

/// How the operating system's page cache shall treat an open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CachePolicy {
    /// Content has not changed since the last open: keep cached pages.
    Keep,
    /// Content is new to the kernel: drop what it has, then cache.
    Refresh,
    /// A stream that is read once: bypass the page cache.
    Bypass,
}

/// What `open` gives.
#[derive(Debug, Clone)]
pub struct OpenedFile {
    /// For reads, writes and the final release.
    pub handle: Handle,
    /// Advice for the page cache.
    pub cache: CachePolicy,
    /// The file that the kernel shall read and write by itself, without
    /// asking. All handles of a node that are open together have the same one,
    /// or none. An adapter that cannot use it reads and writes through the
    /// filesystem, which then means the same bytes.
    pub backing: Option<Arc<File>>,
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpenHow {
    /// For reading.
    pub read: bool,
    /// For writing.
    pub write: bool,
    /// It becomes empty first.
    pub truncate: bool,
}

/// Who asks: becomes the owner of what is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Caller {
    /// User.
    pub user: u32,
    /// Group.
    pub group: u32,
    /// Permission bits that a new node does not get, unless its directory has
    /// a default ACL.
    pub umask: u16,
}

/// What is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewNode<'a> {
    /// An empty regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link to this target.
    Symlink(&'a [u8]),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device, with its number as the kernel encodes it.
    CharDevice(u32),
    /// A block device, with its number as the kernel encodes it.
    BlockDevice(u32),
}

/// What a rename does with what stands at the new name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenameMode {
    /// Replace it.
    Replace,
    /// Fail with `Exists`.
    NoReplace,
    /// Let the two change places.
    Exchange,
}

/// What becomes of a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeChange {
    /// The present moment.
    Now,
    /// This one.
    To(Timestamp),
}

/// Attributes to change; `None`: as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AttributeChange {
    /// Permission bits, 0 to 0o7777.
    pub permissions: Option<u16>,
    /// Owner.
    pub user: Option<u32>,
    /// Group.
    pub group: Option<u32>,
    /// Content length in bytes.
    pub size: Option<u64>,
    /// Last access.
    pub accessed: Option<TimeChange>,
    /// Last change of content.
    pub modified: Option<TimeChange>,
    /// The set-user-id and set-group-id bits go, as when an ordinary user
    /// truncates or changes the owner.
    pub kill_privileges: bool,
}

/// Whether an extended attribute must exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XattrMode {
    /// Make or replace it.
    Set,
    /// Make it: `Exists` when it is there.
    Create,
    /// Replace it: `NoAttribute` when it is not there.
    Replace,
}

/// What `fallocate` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AllocateMode {
    /// Reserves room; the file grows to the range's end.
    Extend,
    /// Reserves room; the size stays.
    KeepSize,
    /// The range becomes a hole; the size stays.
    Punch,
    /// The range reads as zeros; the file grows to its end.
    Zero,
    /// The range reads as zeros; the size stays.
    ZeroKeepSize,
}

/// One entry of a directory listing.
#[derive(Debug, Clone, Copy)]
pub struct DirectoryEntry<'a> {
    /// The entry's name.
    pub name: &'a [u8],
    /// Its attributes.
    pub attributes: Attributes,
}

/// What `statfs` shows, net of parity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpaceUsage {
    /// Content that fits in all, bytes.
    pub total: u64,
    /// Content that still fits, bytes.
    pub free: u64,
    /// Content that an ordinary user may still add, bytes.
    pub available: u64,
    /// Inodes in use.
    pub nodes: u64,
}
