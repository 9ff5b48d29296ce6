//! FUSE adapter: serves a [`blockframe_api::Vfs`] to the Linux kernel.
//!
//! It translates and decides nothing. Errors go through one table
//! ([`errno_of`]); a listing's offsets become names (the kernel resumes at a
//! number, the [`Vfs`](blockframe_api::Vfs) after a name); files that the
//! filesystem offers for it are served by the kernel itself.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod adapter;
mod directory;
mod errno;
mod error;
mod mounted;
mod mountpoint;
mod options;

pub use errno::errno_of;
pub use error::MountError;
pub use mounted::{Mounted, check_mountpoint, spawn};
pub use mountpoint::{unmount, wait_until_gone};
pub use options::MountOptions;
