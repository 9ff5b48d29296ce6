//! Units that must not be mixed: positions in a content and positions in a
//! shard look alike as integers, and reading one as the other is how the
//! wrong page is returned.

use std::fmt;

/// Bytes of a shard that are hashed, verified and repaired as one: 16 KiB.
pub const LEAF_SIZE: u64 = 16 * 1024;

macro_rules! index {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name($inner);

        impl $name {
            /// The index, counted from 0.
            pub const fn new(index: $inner) -> Self {
                Self(index)
            }

            /// The number.
            pub const fn get(self) -> $inner {
                self.0
            }

            /// The number, to index a slice with.
            pub const fn as_usize(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

index!(
    /// A segment of an object, counted over all its blocks.
    SegmentIndex(u32)
);
index!(
    /// A data block of an object.
    BlockIndex(u32)
);
index!(
    /// A shard of a block: its data shards first, its parity shards behind them.
    ShardIndex(u16)
);
index!(
    /// A leaf of a shard.
    LeafIndex(u32)
);

macro_rules! range {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name {
            start: u64,
            end: u64,
        }

        impl $name {
            /// `len` bytes from `start`; `None` when the end overflows.
            pub fn new(start: u64, len: u64) -> Option<Self> {
                Some(Self { start, end: start.checked_add(len)? })
            }

            /// From `start` up to, not including, `end`; empty when they cross.
            pub fn between(start: u64, end: u64) -> Self {
                Self { start, end: end.max(start) }
            }

            /// First byte.
            pub fn start(self) -> u64 {
                self.start
            }

            /// One past the last byte.
            pub fn end(self) -> u64 {
                self.end
            }

            /// Number of bytes.
            pub fn len(self) -> u64 {
                self.end - self.start
            }

            /// Whether it holds no byte.
            pub fn is_empty(self) -> bool {
                self.start == self.end
            }

            /// The part of it before `end`.
            pub fn clamp_to(self, end: u64) -> Self {
                Self::between(self.start.min(end), self.end.min(end))
            }

            /// What both have in common (empty when nothing).
            pub fn intersect(self, other: Self) -> Self {
                Self::between(self.start.max(other.start), self.end.min(other.end))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}..{}", self.start, self.end)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}..{}", self.start, self.end)
            }
        }
    };
}

range!(
    /// A range of bytes of a content.
    ContentRange
);
range!(
    /// A range of bytes of one shard.
    ShardRange
);

impl ShardRange {
    /// The leaf's bytes in a shard of `shard_len` bytes.
    pub fn of_leaf(leaf: LeafIndex, shard_len: u64) -> Self {
        let start = u64::from(leaf.get()) * LEAF_SIZE;
        Self::between(start.min(shard_len), (start + LEAF_SIZE).min(shard_len))
    }

    /// The smallest range of whole leaves that covers this one, in a shard of `shard_len` bytes.
    pub fn to_leaves(self, shard_len: u64) -> Self {
        Self::between(
            self.start / LEAF_SIZE * LEAF_SIZE,
            self.end.div_ceil(LEAF_SIZE).saturating_mul(LEAF_SIZE).min(shard_len),
        )
    }

    /// The leaves that this range touches.
    pub fn leaves(self) -> impl DoubleEndedIterator<Item = LeafIndex> + Clone {
        let first = self.start / LEAF_SIZE;
        let end = if self.is_empty() { first } else { self.end.div_ceil(LEAF_SIZE) };
        (first as u32..end as u32).map(LeafIndex::new)
    }
}

/// Number of leaves of a shard of `shard_len` bytes.
pub fn leaf_count(shard_len: u64) -> u32 {
    shard_len.div_ceil(LEAF_SIZE) as u32
}
