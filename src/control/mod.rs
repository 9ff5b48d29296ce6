//! How other processes reach the daemon of a mount. While an archive is
//! mounted its daemon is the catalog's writer; commands that change the
//! catalog, or ask for what only the daemon knows, speak to it over a Unix
//! socket in the archive's private directory.
//!
//! A message is its length (u32, little endian) and that many bytes of JSON:
//! `{"version": 1, "body": {...}}`. The client asks, the daemon replies once,
//! except that progress may come before the reply to `sync`. A connection
//! serves any number of requests.

mod client;
mod error;
mod message;
mod remote;
mod server;
mod service;
mod socket;

pub use client::ControlClient;
pub use error::{ControlError, ControlResult};
pub use message::{DaemonStatus, Purpose, SyncProgress, understands};
pub use remote::RemoteWrites;
pub use server::{ControlServer, serve};
pub use service::ControlService;
pub use socket::SOCKET;
