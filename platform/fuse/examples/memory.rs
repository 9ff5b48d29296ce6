//! Serves the reference model, a filesystem in memory: what it holds is gone
//! when it is unmounted. With it the POSIX suites are run against the adapter
//! alone.
//!
//! `memory MOUNTPOINT [keep|refresh|bypass]`: everybody may enter, set-user-id
//! bits, devices and programs work. The last word says what the kernel's page
//! cache keeps of a file from one opening to the next.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use blockframe_api::memory::MemoryVfs;
use blockframe_api::{CachePolicy, Caller, Timestamp};
use blockframe_fuse::{MountOptions, spawn};
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    let Some(mountpoint) = arguments.next() else {
        eprintln!("usage: memory MOUNTPOINT [keep|refresh|bypass]");
        std::process::exit(2);
    };
    let cache = match arguments.next().as_deref().and_then(|word| word.to_str()) {
        Some("refresh") => CachePolicy::Refresh,
        Some("bypass") => CachePolicy::Bypass,
        _ => CachePolicy::Keep,
    };
    #[allow(clippy::disallowed_methods, reason = "the model's clock is injected here")]
    let now = || {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp { seconds: time.as_secs() as i64, nanoseconds: time.subsec_nanos() }
    };
    let owner =
        Caller { user: rustix::process::getuid().as_raw(), group: rustix::process::getgid().as_raw(), umask: 0 };
    let vfs = MemoryVfs::new(Arc::new(now), owner).with_cache(cache);
    let root = rustix::process::geteuid().is_root();
    let options = MountOptions { suid: root, dev: root, ..MountOptions::new("memory") };
    let mounted = spawn(Arc::new(vfs), Path::new(&mountpoint), &options).expect("it mounts");
    mounted.wait().expect("the session ends well");
}
