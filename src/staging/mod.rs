//! Files being written: their bytes, until these are committed as objects.
//!
//! A file's content is what is staged over a *base* (the content that is
//! committed already). Each has one file in the staging directory, to which
//! new bytes are appended in the manner of a log: bytes of a published state
//! are not written again until the journal names a newer one, so a crash
//! finds exactly the state that the journal names. `state.rs` tells why.
//!
//! The order that a caller keeps: [`StagedFile::publish`], then
//! [`StagedFile::sync`], then the journal record with the
//! [`StagedContent`](crate::format::StagedContent) is made durable, then
//! [`StagedFile::published_is_durable`]. A file that the journal names no
//! more goes by [`StagedFile::discard`], after that is durable.

mod area;
mod encrypted;
mod error;
mod file;
mod frozen;
mod map;
mod names;
mod passthrough;
mod quota;
mod raw;
mod read;
mod rooms;
mod state;
mod store;
#[cfg(test)]
mod tests;

pub use area::StagingArea;
pub use encrypted::StagingKeys;
pub use error::{StagingError, StagingResult};
pub use file::{Published, StagedFile};
pub use frozen::{FrozenContent, Source};
pub use passthrough::InPlace;
pub use quota::Admission;
pub use read::BaseReader;
pub use state::Generation;

/// How much staging may take.
#[derive(Debug, Clone, Copy)]
pub struct StagingLimits {
    /// Most bytes in staging.
    pub quota: u64,
    /// Bytes that are to stay free on the disk below.
    pub reserve: u64,
}

/// What is in staging.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StagingUsage {
    /// Files in use.
    pub files: u64,
    /// Bytes that they hold. What the kernel writes by itself counts with the
    /// next [`StagedFile::refresh`].
    pub bytes: u64,
    /// Most bytes that there may be.
    pub quota: u64,
}
