//! Extended attributes and device numbers, from the machine and back.

use super::Problem;
use crate::format::entry::{MAX_XATTR_VALUE, MAX_XATTRS};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Extended attributes: name and value.
pub(super) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// Namespaces that are kept. Others (`system.nfs4_acl` and the like) are
/// views that a filesystem computes.
const KEPT: [&[u8]; 4] = [b"user.", b"trusted.", b"security.", b"system.posix_acl_"];
/// What the mounted view shows of itself is no attribute of the file.
const OURS: &[u8] = b"user.blockframe.";

/// The extended attributes of a file (of a symlink itself, not of its target), sorted by name.
pub(super) fn read_xattrs(path: &Path) -> Result<Xattrs, Problem> {
    let names = match xattr::list(path) {
        Ok(names) => names,
        Err(error) if unsupported(&error) => return Ok(Vec::new()),
        Err(error) => return Err(Problem::local("list the extended attributes of")(error)),
    };
    let mut xattrs = Vec::new();
    for name in names {
        let bytes = name.as_bytes();
        if !KEPT.iter().any(|prefix| bytes.starts_with(prefix)) || bytes.starts_with(OURS) {
            continue;
        }
        let value = match xattr::get(path, &name) {
            Ok(Some(value)) => value,
            Ok(None) => continue,
            Err(error) if unsupported(&error) => continue,
            Err(error) => return Err(Problem::local("read an extended attribute of")(error)),
        };
        if value.len() > MAX_XATTR_VALUE || xattrs.len() == MAX_XATTRS {
            return Err(Problem::Attributes);
        }
        xattrs.push((bytes.to_vec(), value));
    }
    xattrs.sort();
    Ok(xattrs)
}

/// Sets extended attributes on a file (on a symlink itself). What this user
/// or that filesystem cannot set is left out; returns how many were.
pub(super) fn write_xattrs(path: &Path, xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<u64, Problem> {
    let mut refused = 0;
    for (name, value) in xattrs {
        match xattr::set(path, OsStr::from_bytes(name), value) {
            Ok(()) => {}
            Err(error) if unsupported(&error) || error.kind() == io::ErrorKind::PermissionDenied => refused += 1,
            Err(error) => return Err(Problem::local("set an extended attribute of")(error)),
        }
    }
    Ok(refused)
}

fn unsupported(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported || error.raw_os_error() == Some(rustix::io::Errno::NOTSUP.raw_os_error())
}

/// A device number as the kernel encodes it in 32 bits.
pub(super) fn device_number(device: u64) -> u32 {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    (minor & 0xff) | (major & 0xfff) << 8 | (minor & 0xf_ff00) << 12
}

/// The device number for `mknod`.
pub(super) fn device_from(number: u32) -> u64 {
    let (major, minor) = (number >> 8 & 0xfff, (number & 0xff) | (number >> 12 & 0xf_ff00));
    rustix::fs::makedev(major, minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_come_back() {
        for (major, minor) in [(1, 3), (8, 17), (259, 65536), (0xfff, 0xf_ffff)] {
            let device = rustix::fs::makedev(major, minor);
            assert_eq!(device_from(device_number(device)), device);
        }
        assert_eq!(device_number(rustix::fs::makedev(1, 3)), 0x103);
    }
}
