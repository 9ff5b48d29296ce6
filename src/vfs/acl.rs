//! POSIX ACLs, as far as a filesystem has a part in them: the kernel checks
//! them, the filesystem keeps mode bits and ACL in step and lets new nodes
//! inherit. Source: acl(5), and the layout of `system.posix_acl_*` in
//! `include/uapi/linux/posix_acl_xattr.h`.

/// The attribute that holds a node's own ACL.
pub(super) const ACCESS: &[u8] = b"system.posix_acl_access";
/// The attribute that holds what new nodes in a directory get.
pub(super) const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const ENTRY_LEN: usize = 8;
const USER_OBJ: u16 = 0x01;
const GROUP_OBJ: u16 = 0x04;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// An ACL that was well formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Acl {
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    tag: u16,
    permissions: u16,
    id: u32,
}

impl Acl {
    /// Reads an attribute's value; `None` when it is no ACL with the three
    /// entries that each must have.
    pub(super) fn parse(value: &[u8]) -> Option<Self> {
        let (version, rest) = value.split_first_chunk::<4>()?;
        if u32::from_le_bytes(*version) != VERSION || rest.len() % ENTRY_LEN != 0 {
            return None;
        }
        let number = |bytes: &[u8]| u16::from_le_bytes([bytes[0], bytes[1]]);
        let entries: Vec<Entry> = rest
            .chunks_exact(ENTRY_LEN)
            .map(|bytes| Entry {
                tag: number(bytes),
                permissions: number(&bytes[2..]),
                id: u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
            })
            .collect();
        let acl = Self { entries };
        let whole = [USER_OBJ, GROUP_OBJ, OTHER].iter().all(|&tag| acl.get(tag).is_some());
        let sound = acl.entries.iter().all(|entry| entry.permissions <= 7);
        (whole && sound).then_some(acl)
    }

    /// The attribute's value.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for entry in &self.entries {
            bytes.extend_from_slice(&entry.tag.to_le_bytes());
            bytes.extend_from_slice(&entry.permissions.to_le_bytes());
            bytes.extend_from_slice(&entry.id.to_le_bytes());
        }
        bytes
    }

    fn get(&self, tag: u16) -> Option<u16> {
        self.entries.iter().find(|entry| entry.tag == tag).map(|entry| entry.permissions)
    }

    fn set(&mut self, tag: u16, permissions: u16) {
        for entry in self.entries.iter_mut().filter(|entry| entry.tag == tag) {
            entry.permissions = permissions;
        }
    }

    /// Which entry stands for the group bits of the mode.
    fn group_class(&self) -> u16 {
        if self.get(MASK).is_some() { MASK } else { GROUP_OBJ }
    }

    /// The nine permission bits that it stands for.
    pub(super) fn mode(&self) -> u16 {
        let bits = |tag| self.get(tag).unwrap_or(0) & 7;
        bits(USER_OBJ) << 6 | bits(self.group_class()) << 3 | bits(OTHER)
    }

    /// Whether the mode bits alone say the same.
    pub(super) fn is_only_mode(&self) -> bool {
        self.entries.len() == 3
    }

    /// After `chmod`: the classes get these bits.
    pub(super) fn set_mode(&mut self, mode: u16) {
        self.set(USER_OBJ, mode >> 6 & 7);
        self.set(self.group_class(), mode >> 3 & 7);
        self.set(OTHER, mode & 7);
    }

    /// The access ACL of a node that is made with `mode` where this is the default.
    pub(super) fn inherited(&self, mode: u16) -> Self {
        let mut acl = self.clone();
        let class = acl.group_class();
        for (tag, bits) in [(USER_OBJ, mode >> 6), (class, mode >> 3), (OTHER, mode)] {
            let kept = acl.get(tag).unwrap_or(0) & bits & 7;
            acl.set(tag, kept);
        }
        acl
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16, u32)]) -> Acl {
        let entries = entries.iter().map(|&(tag, permissions, id)| Entry { tag, permissions, id }).collect();
        Acl { entries }
    }

    #[test]
    fn an_acl_round_trips_and_garbage_is_none() {
        let value =
            acl(&[(USER_OBJ, 7, u32::MAX), (2, 5, 1000), (GROUP_OBJ, 5, u32::MAX), (MASK, 5, 0), (OTHER, 0, 0)]);
        assert_eq!(Acl::parse(&value.to_bytes()).unwrap(), value);
        assert_eq!(value.mode(), 0o750);
        assert!(Acl::parse(b"").is_none());
        assert!(Acl::parse(&[2, 0, 0, 0, 1]).is_none());
        assert!(Acl::parse(&[2, 0, 0, 0]).is_none());
    }

    #[test]
    fn the_group_bits_are_the_mask_where_there_is_one() {
        let mut value = acl(&[(USER_OBJ, 7, 0), (2, 7, 5), (GROUP_OBJ, 7, 0), (MASK, 7, 0), (OTHER, 7, 0)]);
        value.set_mode(0o640);
        assert_eq!((value.get(GROUP_OBJ), value.get(MASK), value.mode()), (Some(7), Some(4), 0o640));
        let inherited = value.inherited(0o770);
        assert_eq!(inherited.mode(), 0o640);
    }
}
