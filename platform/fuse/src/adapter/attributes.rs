//! Attributes, times and extended attributes, in both directions.

use blockframe_api::{AttributeChange, Attributes, NodeKind, TimeChange, Timestamp, XattrMode};
use fuser::{Errno, FileAttr, FileType, INodeNo, ReplyXattr, Request, TimeOrNow};
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Permission bits of a mode.
const PERMISSIONS: u32 = 0o7777;

/// Set-group-id.
pub(super) const SET_GROUP: u16 = 0o2000;
/// The attribute that holds the access control list.
pub(super) const ACCESS_LIST: &[u8] = b"system.posix_acl_access";

/// The permission bits of a mode, without the type.
pub(super) fn permissions(mode: u32) -> u16 {
    (mode & PERMISSIONS) as u16
}

pub(super) fn file_type(kind: NodeKind) -> FileType {
    match kind {
        NodeKind::File => FileType::RegularFile,
        NodeKind::Directory => FileType::Directory,
        NodeKind::Symlink => FileType::Symlink,
        NodeKind::Fifo => FileType::NamedPipe,
        NodeKind::Socket => FileType::Socket,
        NodeKind::CharDevice => FileType::CharDevice,
        NodeKind::BlockDevice => FileType::BlockDevice,
    }
}

fn system_time(time: Timestamp) -> SystemTime {
    let whole = Duration::from_secs(time.seconds.unsigned_abs());
    let second = if time.seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    second.and_then(|second| second.checked_add(Duration::from_nanos(time.nanoseconds.into()))).unwrap_or(UNIX_EPOCH)
}

/// What the kernel sent. The library counts the nanoseconds of a time before
/// 1970 towards the past, where the kernel counts them towards the future:
/// seconds and nanoseconds are taken apart again as they came.
fn timestamp(time: SystemTime) -> Timestamp {
    let (negative, distance) = match time.duration_since(UNIX_EPOCH) {
        Ok(distance) => (false, distance),
        Err(before) => (true, before.duration()),
    };
    let whole = distance.as_secs();
    // The kernel's earliest second is one further from 1970 than its latest.
    let seconds = if negative { 0i64.saturating_sub_unsigned(whole) } else { 0i64.saturating_add_unsigned(whole) };
    Timestamp { seconds, nanoseconds: distance.subsec_nanos() }
}

fn time_change(time: TimeOrNow) -> TimeChange {
    match time {
        TimeOrNow::Now => TimeChange::Now,
        TimeOrNow::SpecificTime(time) => TimeChange::To(timestamp(time)),
    }
}

/// What a `setattr` request names.
pub(super) struct Wanted {
    pub(super) mode: Option<u32>,
    pub(super) user: Option<u32>,
    pub(super) group: Option<u32>,
    pub(super) size: Option<u64>,
    pub(super) accessed: Option<TimeOrNow>,
    pub(super) modified: Option<TimeOrNow>,
}

impl Wanted {
    /// The change, as `by_root` or an ordinary user asks for it.
    ///
    /// `FUSE_HANDLE_KILLPRIV_V2` leaves it to the filesystem to clear the
    /// set-user-id and set-group-id bits: with every change of the owner, and
    /// with a change of the size by who lacks `CAP_FSETID`. A request that
    /// names nothing is what remains when the kernel asks for that and no
    /// more: before a write through a backing file, `fallocate` and
    /// `copy_file_range`, and for `chown(-1, -1)`.
    pub(super) fn change(self, by_root: bool) -> AttributeChange {
        let owner = self.user.is_some() || self.group.is_some();
        let nothing =
            self.mode.is_none() && self.size.is_none() && self.accessed.is_none() && self.modified.is_none() && !owner;
        AttributeChange {
            permissions: self.mode.map(permissions),
            user: self.user,
            group: self.group,
            size: self.size,
            accessed: self.accessed.map(time_change),
            modified: self.modified.map(time_change),
            kill_privileges: owner || (!by_root && (self.size.is_some() || nothing)),
        }
    }
}

pub(super) fn file_attr(attributes: &Attributes) -> FileAttr {
    FileAttr {
        ino: INodeNo(attributes.node.number()),
        size: attributes.size,
        blocks: attributes.allocated.div_ceil(512),
        atime: system_time(attributes.accessed),
        mtime: system_time(attributes.modified),
        ctime: system_time(attributes.changed),
        crtime: system_time(attributes.born),
        kind: file_type(attributes.kind),
        perm: attributes.permissions,
        nlink: attributes.links,
        uid: attributes.user,
        gid: attributes.group,
        rdev: attributes.device,
        blksize: attributes.block_size,
        flags: 0,
    }
}

/// An entry that says "no such name": inode 0 with a time to live.
pub(super) fn no_entry() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

/// Answers an attribute request: its size when the caller only asks for that.
pub(super) fn reply_xattr(value: &[u8], room: u32, reply: ReplyXattr) {
    match u32::try_from(value.len()) {
        Ok(len) if room == 0 => reply.size(len),
        Ok(len) if len <= room => reply.data(value),
        _ => reply.error(Errno::ERANGE),
    }
}

/// Whether who asks is in a group. The request names one group; the others
/// are where the kernel shows them. Who cannot be asked is not in it.
pub(super) fn in_group(request: &Request, group: u32) -> bool {
    if request.gid() == group {
        return true;
    }
    let status = fs::read_to_string(format!("/proc/{}/status", request.pid())).unwrap_or_default();
    is_listed(&status, group)
}

fn is_listed(status: &str, group: u32) -> bool {
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    groups.split_whitespace().any(|number| number.parse() == Ok(group))
}

/// The flags of `setxattr`.
pub(super) fn xattr_mode(flags: i32) -> Option<XattrMode> {
    match flags {
        0 => Some(XattrMode::Set),
        libc::XATTR_CREATE => Some(XattrMode::Create),
        libc::XATTR_REPLACE => Some(XattrMode::Replace),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_keep_their_nanoseconds() {
        let time = system_time(Timestamp { seconds: -2, nanoseconds: 250_000_000 });
        assert_eq!(UNIX_EPOCH.duration_since(time).unwrap(), Duration::from_millis(1750));
        assert_eq!(system_time(Timestamp { seconds: 3, nanoseconds: 4 }), UNIX_EPOCH + Duration::new(3, 4));
        // What the library makes of the kernel's (-2, 250_000_000).
        let received = UNIX_EPOCH - Duration::new(2, 250_000_000);
        assert_eq!(timestamp(received), Timestamp { seconds: -2, nanoseconds: 250_000_000 });
    }

    #[test]
    fn supplementary_groups_are_read_from_the_status() {
        let status = "Name:\tsh\nGid:\t7\t7\t7\t7\nGroups:\t4 24 1000 \nNStgid:\t9\n";
        assert!(is_listed(status, 1000) && is_listed(status, 4));
        assert!(!is_listed(status, 100) && !is_listed(status, 7) && !is_listed("", 0));
    }

    #[test]
    fn privileges_go_with_the_owner_and_with_an_ordinary_users_change() {
        let none = || Wanted { mode: None, user: None, group: None, size: None, accessed: None, modified: None };
        assert!(!none().change(true).kill_privileges);
        assert!(none().change(false).kill_privileges);
        assert!(Wanted { user: Some(1), ..none() }.change(true).kill_privileges);
        assert!(Wanted { group: Some(1), ..none() }.change(true).kill_privileges);
        assert!(Wanted { size: Some(1), ..none() }.change(false).kill_privileges);
        assert!(!Wanted { size: Some(1), ..none() }.change(true).kill_privileges);
        assert!(!Wanted { mode: Some(0o4755), ..none() }.change(false).kill_privileges);
        assert!(!Wanted { modified: Some(TimeOrNow::Now), ..none() }.change(false).kill_privileges);
    }
}
