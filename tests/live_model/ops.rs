//! The operations, and rows of them from a seed.

use blockframe_api::{AllocateMode, RenameMode, XattrMode};

/// Directories in which names are used, by path.
pub const DIRECTORIES: [&[&str]; 4] = [&[], &["d"], &["e"], &["d", "f"]];
/// The names.
pub const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
/// Extended attributes.
pub const XATTRS: [&str; 5] =
    ["user.one", "user.two", "security.capability", "system.posix_acl_access", "system.posix_acl_default"];
/// Most files that are open at once.
pub const HANDLES: usize = 6;

/// A name in one of the directories, both by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At(pub usize, pub usize);

/// What an operation works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    Name(At),
    /// An open file, by number.
    Open(usize),
    Root,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct How {
    pub read: bool,
    pub write: bool,
    pub truncate: bool,
}

/// Values of an extended attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    Bytes(usize),
    /// An access control list that says no more than the mode.
    Minimal([u16; 3]),
    /// Owner, a named user, group, mask, others.
    Long([u16; 5]),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time {
    Now,
    To(i64, u32),
}

/// Attributes to change, besides the size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Change {
    pub permissions: Option<u16>,
    pub user: Option<u32>,
    pub group: Option<u32>,
    pub accessed: Option<Time>,
    pub modified: Option<Time>,
    pub kill_privileges: bool,
    pub size: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Create {
        at: At,
        permissions: u16,
        umask: u16,
        how: How,
    },
    Make {
        at: At,
        permissions: u16,
        umask: u16,
        kind: Kind,
    },
    Open {
        at: At,
        how: How,
    },
    Release {
        file: usize,
    },
    Read {
        file: usize,
        offset: u64,
        length: u32,
    },
    Write {
        file: usize,
        offset: u64,
        length: usize,
        seed: u8,
        kill: bool,
    },
    /// Eight bytes each.
    Scatter {
        file: usize,
        offset: u64,
        pieces: u64,
        stride: u64,
    },
    Allocate {
        file: usize,
        offset: u64,
        length: u64,
        mode: AllocateMode,
    },
    CopyRange {
        from: usize,
        from_offset: u64,
        to: usize,
        to_offset: u64,
        length: u64,
    },
    Seek {
        file: usize,
        offset: u64,
        data: bool,
    },
    Flush {
        file: usize,
    },
    Sync {
        file: usize,
    },
    SyncDirectory,
    SyncAll,
    Rename {
        from: At,
        to: At,
        mode: RenameMode,
    },
    Link {
        from: At,
        to: At,
    },
    Unlink {
        at: At,
    },
    RemoveDirectory {
        at: At,
    },
    /// What a command of the program removes.
    RemovePath {
        at: At,
        recursive: bool,
    },
    Set {
        on: On,
        change: Change,
    },
    SetXattr {
        on: On,
        name: usize,
        value: Value,
        mode: XattrMode,
    },
    GetXattr {
        on: On,
        name: usize,
    },
    RemoveXattr {
        on: On,
        name: usize,
    },
    List {
        directory: usize,
        after: usize,
        most: usize,
    },
    /// In a directory that was removed.
    InRemoved {
        name: usize,
    },
    /// The catalog's database gets everything.
    FlushNames,
    /// What is staged becomes objects.
    Commit,
    /// All files are closed, and everything is opened again.
    Restart,
    /// The same, but what is open is not closed first.
    Abandon,
    /// Everything that can be seen is compared.
    Compare,
    Tick {
        nanoseconds: u64,
    },
}

impl Op {
    /// The same with all offsets below a limit.
    pub fn nearer(mut self, limit: u64) -> Self {
        match &mut self {
            Op::Read { offset, .. }
            | Op::Write { offset, .. }
            | Op::Scatter { offset, .. }
            | Op::Allocate { offset, .. }
            | Op::Seek { offset, .. } => *offset %= limit,
            Op::CopyRange { from_offset, to_offset, .. } => {
                *from_offset %= limit;
                *to_offset %= limit;
            }
            Op::Set { change: Change { size: Some(size), .. }, .. } => *size %= limit,
            _ => {}
        }
        self
    }
}

/// Numbers that look random, the same for the same seed.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        let mut dice = Self(seed ^ 0x9E37_79B9_7F4A_7C15);
        dice.below(1);
        dice
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ mixed >> 31) % limit.max(1)
    }

    pub fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }

    pub fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    fn at(&mut self) -> At {
        At(self.of(&[0, 0, 0, 1, 1, 2, 3]), self.below(NAMES.len() as u64) as usize)
    }

    fn file(&mut self) -> usize {
        self.below(HANDLES as u64) as usize
    }

    fn on(&mut self) -> On {
        match self.below(12) {
            0 => On::Root,
            1..5 => On::Open(self.file()),
            _ => On::Name(self.at()),
        }
    }

    fn how(&mut self) -> How {
        let (read, write) = self.of(&[(true, false), (true, true), (true, true), (false, true)]);
        How { read, write, truncate: write && self.one_in(5) }
    }

    fn permissions(&mut self) -> u16 {
        if self.one_in(4) { self.below(0o10000) as u16 } else { self.of(&[0o644, 0o755, 0o600, 0o2755, 0o6755]) }
    }

    /// Near the beginning as a rule, seldom far out.
    fn offset(&mut self) -> u64 {
        match self.below(12) {
            0 => 0,
            1..5 => self.below(20_000),
            5..8 => self.below(80) * 4096 + self.of(&[0, 0, 1, 4095]),
            8..11 => self.below(2 << 20),
            _ => self.below(1 << 30),
        }
    }

    fn length(&mut self) -> u64 {
        match self.below(8) {
            0..3 => 1 + self.below(300),
            3..5 => 4096 * (1 + self.below(8)),
            5..7 => 1 + self.below(40_000),
            _ => 1 + self.below(600_000),
        }
    }

    fn time(&mut self) -> Time {
        if self.one_in(3) {
            Time::Now
        } else {
            Time::To(self.below(4_000_000_000) as i64 - 9, self.below(1_000_000_000) as u32)
        }
    }

    fn change(&mut self) -> Change {
        let mut change = Change::default();
        match self.below(8) {
            0..3 => change.size = Some(if self.one_in(4) { self.of(&[0, 0, 1, 4096]) } else { self.offset() }),
            3 => change.permissions = Some(self.permissions()),
            4 => {
                change.user = self.of(&[None, Some(5)]);
                change.group = Some(self.of(&[0, 6]));
                change.kill_privileges = self.one_in(2);
            }
            5 => change.modified = Some(self.time()),
            6 => change.accessed = Some(self.time()),
            _ => {
                change.accessed = Some(self.time());
                change.modified = Some(self.time());
                change.size = self.of(&[None, None, Some(100)]);
            }
        }
        change
    }

    fn xattr(&mut self, on: On) -> Op {
        let name = self.below(XATTRS.len() as u64) as usize;
        let mut bits = || self.below(8) as u16;
        let value = match name {
            0..3 => Value::Bytes(if self.one_in(10) { 9000 } else { self.below(40) as usize }),
            _ if bits() < 3 => Value::Minimal([bits(), bits(), bits()]),
            _ => Value::Long([bits(), bits(), bits(), bits(), bits()]),
        };
        let mode = self.of(&[XattrMode::Set, XattrMode::Set, XattrMode::Create, XattrMode::Replace]);
        Op::SetXattr { on, name, value, mode }
    }

    fn allocate(&mut self) -> Op {
        use AllocateMode::{Extend, KeepSize, Punch, Zero, ZeroKeepSize};
        let mode = self.of(&[Extend, KeepSize, Punch, Punch, Zero, ZeroKeepSize]);
        Op::Allocate { file: self.file(), offset: self.offset().min(8 << 20), length: self.length(), mode }
    }

    fn copy_range(&mut self) -> Op {
        let (from_offset, to_offset) = (self.offset(), self.offset());
        Op::CopyRange { from: self.file(), from_offset, to: self.file(), to_offset, length: self.length() }
    }

    fn bytes(&mut self) -> Op {
        let file = self.file();
        match self.below(20) {
            0 => {
                let pieces = self.of(&[3, 40, 700]);
                Op::Scatter { file, offset: self.below(100_000), pieces, stride: self.of(&[9, 600, 4096]) }
            }
            1..9 => {
                let kill = self.one_in(6);
                let length = self.length() as usize;
                Op::Write { file, offset: self.offset(), length, seed: self.below(256) as u8, kill }
            }
            9..13 => Op::Read { file, offset: self.offset(), length: self.length() as u32 },
            13..16 => self.allocate(),
            16..18 => self.copy_range(),
            _ => Op::Seek { file, offset: self.offset(), data: self.one_in(2) },
        }
    }

    fn names(&mut self) -> Op {
        let at = self.at();
        match self.below(18) {
            0..5 => {
                use RenameMode::{Exchange, NoReplace, Replace};
                Op::Rename { from: at, to: self.at(), mode: self.of(&[Replace, Replace, Replace, NoReplace, Exchange]) }
            }
            5..8 => Op::Link { from: at, to: self.at() },
            8..12 => Op::Unlink { at },
            12..14 => Op::RemoveDirectory { at },
            14 => Op::RemovePath { at, recursive: self.one_in(2) },
            15 => Op::InRemoved { name: self.below(NAMES.len() as u64) as usize },
            _ => {
                let (directory, after) = (self.below(4) as usize, self.below(NAMES.len() as u64 + 1) as usize);
                Op::List { directory, after, most: 1 + self.below(4) as usize }
            }
        }
    }

    fn make(&mut self) -> Op {
        use Kind::{BlockDevice, CharDevice, Directory, Fifo, File, Socket, Symlink};
        let (at, permissions, umask) = (self.at(), self.permissions(), self.of(&[0, 0o022, 0o077]));
        if self.one_in(2) {
            let how = self.how();
            return Op::Create { at, permissions, umask, how };
        }
        let kind = self.of(&[
            File,
            File,
            Directory,
            Directory,
            Directory,
            Directory,
            Symlink,
            Fifo,
            Socket,
            CharDevice,
            BlockDevice,
        ]);
        Op::Make { at, permissions, umask, kind }
    }

    fn making_durable(&mut self) -> Op {
        let file = self.file();
        match self.below(16) {
            0..5 => Op::Flush { file },
            5..9 => Op::Sync { file },
            9 => Op::SyncDirectory,
            10 => Op::SyncAll,
            11..13 => Op::FlushNames,
            13 => Op::Commit,
            14 => Op::Restart,
            _ => Op::Abandon,
        }
    }

    fn op(&mut self) -> Op {
        match self.below(100) {
            0..12 => self.make(),
            12..24 => Op::Open { at: self.at(), how: self.how() },
            24..30 => Op::Release { file: self.file() },
            30..58 => self.bytes(),
            58..72 => self.names(),
            72..80 => Op::Set { on: self.on(), change: self.change() },
            80..84 => {
                let on = self.on();
                self.xattr(on)
            }
            84 => Op::GetXattr { on: self.on(), name: self.below(XATTRS.len() as u64) as usize },
            85 => Op::RemoveXattr { on: self.on(), name: self.below(XATTRS.len() as u64) as usize },
            86..95 => self.making_durable(),
            95..97 => Op::Compare,
            _ => Op::Tick { nanoseconds: self.of(&[1, 5_000_000, 3_000_000_000]) },
        }
    }

    /// A row of operations.
    pub fn row(&mut self, length: usize) -> Vec<Op> {
        (0..length).map(|_| self.op()).collect()
    }
}

/// The shortest row found, by leaving out operations, that `fails`.
pub fn shrunk(mut row: Vec<Op>, fails: impl Fn(&[Op]) -> bool) -> Vec<Op> {
    let mut chunk = row.len() / 2;
    while chunk > 0 {
        let mut at = 0;
        while at < row.len() {
            let mut shorter = row.clone();
            shorter.drain(at..(at + chunk).min(row.len()));
            if fails(&shorter) {
                row = shorter;
            } else {
                at += chunk;
            }
        }
        chunk /= 2;
    }
    row
}
