//! Types that cross the border between BlockFrame and a platform adapter.

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
    /// Last access: kept equal to `modified`, the archive does not track it.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenedFile {
    /// For reads and the final release.
    pub handle: Handle,
    /// Advice for the page cache.
    pub cache: CachePolicy,
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
