//! Why a mount failed, and what to do about it.

use blockframe_api::ErrorClass;
use std::io;
use std::path::PathBuf;

/// A failed mount or unmount.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The mount point does not exist.
    #[error("the mount point {mountpoint} does not exist; make it with `mkdir -p {mountpoint}`", mountpoint = mountpoint.display())]
    Missing {
        /// The mount point.
        mountpoint: PathBuf,
    },
    /// The mount point is not a directory.
    #[error("the mount point {mountpoint} is not a directory; choose an empty directory", mountpoint = mountpoint.display())]
    NotDirectory {
        /// The mount point.
        mountpoint: PathBuf,
    },
    /// Something is mounted there.
    #[error("{mountpoint} is busy: {source_name} ({kind}) is mounted there; unmount it with `blockframe umount {mountpoint}`, or choose another directory", mountpoint = mountpoint.display())]
    Busy {
        /// The mount point.
        mountpoint: PathBuf,
        /// What is mounted.
        source_name: String,
        /// Its type of filesystem.
        kind: String,
    },
    /// The mount point has entries, which the mount would hide.
    #[error("the mount point {mountpoint} is not empty, and mounting would hide what is in it; choose an empty directory, or mount with `-o nonempty`", mountpoint = mountpoint.display())]
    NotEmpty {
        /// The mount point.
        mountpoint: PathBuf,
    },
    /// The mount point cannot be examined.
    #[error("the mount point {mountpoint} cannot be read", mountpoint = mountpoint.display())]
    Unreadable {
        /// The mount point.
        mountpoint: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// A dead mount could not be removed.
    #[error("{mountpoint} holds the remains of a mount whose daemon is gone, and they cannot be removed; try `umount -l {mountpoint}` as root", mountpoint = mountpoint.display())]
    Stale {
        /// The mount point.
        mountpoint: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// There is no FUSE device.
    #[error(
        "there is no /dev/fuse; load the module with `modprobe fuse`, or give the container the device (`--device /dev/fuse --cap-add SYS_ADMIN`)"
    )]
    NoDevice,
    /// The FUSE device may not be opened.
    #[error("/dev/fuse may not be opened by this user; run as root, or join the group that owns /dev/fuse")]
    DeviceDenied(#[source] io::Error),
    /// Users other than root need the setuid helper.
    #[error("only root may mount without the helper fusermount3; install the package fuse3, or run as root")]
    NoHelper(#[source] io::Error),
    /// `allow_other` is not allowed to this user.
    #[error(
        "the option allow_other needs the line `user_allow_other` in /etc/fuse.conf; add it, or mount without allow_other"
    )]
    AllowOther(#[source] io::Error),
    /// The user may not mount here.
    #[error("mounting on {mountpoint} is not permitted; run as root, or choose a directory that this user owns", mountpoint = mountpoint.display())]
    NotPermitted {
        /// The mount point.
        mountpoint: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The mount failed for another reason.
    #[error("cannot mount on {mountpoint}", mountpoint = mountpoint.display())]
    Mount {
        /// The mount point.
        mountpoint: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// Nothing of the kind is mounted there.
    #[error("nothing is mounted on {mountpoint}", mountpoint = mountpoint.display())]
    NotMounted {
        /// The mount point.
        mountpoint: PathBuf,
    },
    /// Programs still use the mount.
    #[error("{mountpoint} is in use; close what uses it (`fuser -vm {mountpoint}` lists it), or unmount with `--lazy`", mountpoint = mountpoint.display())]
    InUse {
        /// The mount point.
        mountpoint: PathBuf,
    },
    /// The unmount failed for another reason.
    #[error("cannot unmount {mountpoint}", mountpoint = mountpoint.display())]
    Unmount {
        /// The mount point.
        mountpoint: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The session ended with an error.
    #[error("the FUSE session of {mountpoint} failed", mountpoint = mountpoint.display())]
    Session {
        /// The mount point.
        mountpoint: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
}

impl MountError {
    /// For the table of exit statuses.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Missing { .. } | Self::NotMounted { .. } => ErrorClass::NotFound,
            Self::NotDirectory { .. } => ErrorClass::NotDirectory,
            Self::Busy { .. } | Self::InUse { .. } | Self::Stale { .. } => ErrorClass::Busy,
            Self::NotEmpty { .. } => ErrorClass::Exists,
            Self::DeviceDenied(_) | Self::NoHelper(_) | Self::AllowOther(_) | Self::NotPermitted { .. } => {
                ErrorClass::Denied
            }
            Self::NoDevice => ErrorClass::NotSupported,
            // What fails here is this machine's set-up, not the archive.
            Self::Unreadable { .. } | Self::Mount { .. } | Self::Unmount { .. } | Self::Session { .. } => {
                ErrorClass::Denied
            }
        }
    }
}
