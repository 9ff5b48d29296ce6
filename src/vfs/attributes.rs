//! Extended attributes: those that were stored, and `user.blockframe.*`,
//! which tell where a file's bytes are and how they fare.

use super::error::content_missing;
use super::live::LiveVfs;
use super::{ArchiveVfs, error};
use crate::archive::Verdict;
use crate::base::{ObjectName, Timestamp};
use crate::catalog::{ContentPlace, HealthLog, Inode};
use crate::format::{FileContent, NodeBody};
use blockframe_api::{ErrorClass, Node, VfsError, VfsResult};
use std::fmt::Debug;
use std::time::{Duration, UNIX_EPOCH};

const PREFIX: &[u8] = b"user.blockframe.";
/// On the root, and not listed: the process that serves the mount, in decimal.
/// `umount` waits for its end, so that the disk below is free afterwards.
pub const DAEMON: &str = "user.blockframe.daemon";
/// The attributes of every regular file, without the prefix.
const VIRTUAL: [&[u8]; 5] = [b"hash", b"tier", b"state", b"verified_at", b"object"];

/// Knows when objects were last verified, and how they fared.
pub trait HealthSource: Send + Sync + Debug {
    /// The last complete verification of an object.
    fn verified(&self, object: &ObjectName) -> Option<(Timestamp, Verdict)>;

    /// Objects that are not whole as far as is known, in the order of their names.
    fn damaged(&self) -> Vec<ObjectName> {
        Vec::new()
    }
}

/// Knows of no verification.
impl HealthSource for () {
    fn verified(&self, _object: &ObjectName) -> Option<(Timestamp, Verdict)> {
        None
    }
}

impl HealthSource for HealthLog {
    fn verified(&self, object: &ObjectName) -> Option<(Timestamp, Verdict)> {
        match HealthLog::verified(self, object) {
            Ok(verified) => verified,
            Err(error) => {
                tracing::warn!(%object, %error, "the health log cannot be read");
                None
            }
        }
    }

    fn damaged(&self) -> Vec<ObjectName> {
        HealthLog::damaged(self).unwrap_or_else(|error| {
            tracing::warn!(%error, "the health log cannot be read");
            Vec::new()
        })
    }
}

/// Names of all extended attributes of a node. Those that tell what is are
/// not listed: programs that copy attributes would copy them.
pub(super) fn names(inode: &Inode) -> Vec<Vec<u8>> {
    let stored = inode.meta.xattrs.iter().map(|(name, _)| name);
    stored.filter(|name| virtual_name(inode, name).is_none()).cloned().collect()
}

/// The short name of an attribute that tells what is, if it is one of this node's.
pub(super) fn virtual_name<'n>(inode: &Inode, name: &'n [u8]) -> Option<&'n [u8]> {
    let short = name.strip_prefix(PREFIX)?;
    (matches!(inode.body, NodeBody::File(_)) && VIRTUAL.contains(&short)).then_some(short)
}

impl LiveVfs {
    /// What a virtual attribute says.
    pub(super) fn virtual_xattr(&self, inode: &Inode, short: &[u8]) -> VfsResult<Vec<u8>> {
        let staged = self.files.get(inode.node).is_some_and(|file| !file.content().is_committed());
        let value = match (&inode.body, short) {
            // Nothing of it is known before it is committed.
            (_, b"state") if staged => "staged".into(),
            (_, b"verified_at") if staged => "never".into(),
            (_, _) if staged => "none".into(),
            (NodeBody::File(content), _) => told(content, short, &*self.health, || self.place(inode.node, content))?,
            _ => "none".into(),
        };
        Ok(value.into_bytes())
    }

    /// Where a content of at least one byte lies.
    pub(super) fn place(&self, node: Node, content: &FileContent) -> VfsResult<ContentPlace> {
        let place = self.namespace.catalog().place(&content.hash, content.size);
        place.map_err(|error| error::of_catalog(&error))?.ok_or_else(|| content_missing(&self.path(node)))
    }
}

/// What a virtual attribute of a committed content says.
fn told(
    content: &FileContent,
    short: &[u8],
    health: &dyn HealthSource,
    place: impl FnOnce() -> VfsResult<ContentPlace>,
) -> VfsResult<String> {
    if short == b"hash" {
        return Ok(content.hash.to_hex());
    }
    // An empty file needs no object: nothing of it can be lost.
    if content.size == 0 {
        return Ok(match short {
            b"state" => Verdict::Healthy.word().to_lowercase(),
            b"verified_at" => "never".into(),
            _ => "none".into(),
        });
    }
    let place = place()?;
    let verified = || health.verified(&place.object.name);
    Ok(match short {
        b"tier" => place.tier.to_string(),
        b"object" => place.object.name.to_string(),
        b"state" => verified().map_or("unknown".into(), |(_, verdict)| verdict.word().to_lowercase()),
        _ => verified().map_or("never".into(), |(time, _)| rfc3339(time)),
    })
}

impl ArchiveVfs {
    pub(super) fn xattr(&self, inode: &Inode, name: &[u8]) -> VfsResult<Vec<u8>> {
        if let (NodeBody::File(content), Some(short)) = (&inode.body, name.strip_prefix(PREFIX))
            && VIRTUAL.contains(&short)
        {
            return Ok(self.virtual_xattr(inode.node, content, short)?.into_bytes());
        }
        let stored = inode.meta.xattrs.iter().find(|(stored, _)| stored == name);
        stored
            .map(|(_, value)| value.clone())
            .ok_or_else(|| VfsError::new(ErrorClass::NoAttribute, "no such extended attribute"))
    }

    fn virtual_xattr(&self, node: Node, content: &FileContent, short: &[u8]) -> VfsResult<String> {
        told(content, short, &*self.health, || self.place(node, content))
    }

    /// Where a content of at least one byte lies.
    pub(super) fn place(&self, node: Node, content: &FileContent) -> VfsResult<ContentPlace> {
        let place = self.catalog.place(&content.hash, content.size).map_err(|error| error::of_catalog(&error))?;
        place.ok_or_else(|| content_missing(&self.path(node)))
    }
}

/// `2026-11-20T22:06:01Z`
fn rfc3339(time: Timestamp) -> String {
    let since = Duration::from_secs(u64::try_from(time.seconds).unwrap_or(0));
    match UNIX_EPOCH.checked_add(since) {
        // The format's years have four digits.
        Some(time) if since.as_secs() < 253_402_300_800 => humantime::format_rfc3339_seconds(time).to_string(),
        _ => "never".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_rfc_3339() {
        let at = |seconds| rfc3339(Timestamp { seconds, nanoseconds: 5 });
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(1_795_212_361), "2026-11-20T22:06:01Z");
        assert_eq!(at(i64::MAX), "never");
    }

    #[test]
    fn attributes_that_tell_what_is_are_not_listed() {
        let stored = vec![(b"user.a".to_vec(), vec![]), (b"user.blockframe.tier".to_vec(), vec![])];
        let meta = crate::format::NodeMeta { xattrs: stored, ..Default::default() };
        let file =
            Inode { node: Node::new(2), links: 1, meta: meta.clone(), body: NodeBody::File(FileContent::empty()) };
        assert_eq!(names(&file), [b"user.a".to_vec()]);
        let directory = Inode { body: NodeBody::Directory, ..file };
        assert_eq!(names(&directory).len(), 2);
    }
}
