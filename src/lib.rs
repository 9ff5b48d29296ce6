//! BlockFrame: an archive that mounts like a disk, heals like ZFS and stays
//! readable without it.
//!
//! The layers, each importing only what stands above it in this list:
//! [`base`] (ids, units, clock), [`format`] (bytes to checked types),
//! [`codec`] (erasure code), [`merkle`] (leaf trees), [`store`] (where shards
//! lie), [`keys`] (what an encrypted archive is opened with), [`archive`] (objects: write, read, heal), [`catalog`] (names),
//! [`staging`] (files being written), [`namespace`] (names as they are this
//! moment), [`ingest`] (trees in, trees out), [`vfs`] (the mounted view),
//! [`scrub`] (background verification), [`control`] (the daemon, reached by
//! other processes), [`cli`]. `docs/ARCHITECTURE.md` tells the why.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod archive;
pub mod base;
pub mod catalog;
pub mod cli;
pub mod codec;
pub mod control;
pub mod format;
pub mod ingest;
pub mod keys;
pub mod merkle;
pub mod namespace;
pub mod scrub;
pub mod staging;
pub mod store;
pub mod vfs;
