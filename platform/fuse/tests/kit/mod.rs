//! What the tests of real mounts share.

use blockframe_api::Vfs;
use blockframe_fuse::{MountOptions, Mounted, spawn};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

/// A mount in a directory of its own, which is unmounted when it is dropped.
pub struct Fixture {
    pub mounted: Option<Mounted>,
    directory: tempfile::TempDir,
}

impl Fixture {
    /// `None` where there is no FUSE device.
    pub fn new(vfs: Arc<dyn Vfs>, options: &MountOptions) -> Option<Self> {
        if !Path::new("/dev/fuse").exists() {
            eprintln!("skipped: there is no /dev/fuse here");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mounted = spawn(vfs, directory.path(), options).unwrap();
        Some(Self { mounted: Some(mounted), directory })
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.mounted.take();
    }
}
