//! POSIX access control lists, as `acl(5)` has them, in the form of the
//! extended attributes.

/// The list that decides about a node.
pub(super) const ACCESS: &[u8] = b"system.posix_acl_access";
/// The list that a directory's new entries get.
pub(super) const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

#[derive(Debug, Clone, Copy)]
struct Entry {
    tag: u16,
    permissions: u16,
    id: u32,
}

/// A list: one entry each for the owner, the owning group and others, and
/// perhaps entries for users and groups, with a mask.
#[derive(Debug, Clone)]
pub(super) struct Acl(Vec<Entry>);

impl Acl {
    /// Reads an attribute's value. None when it is no list.
    pub(super) fn parse(value: &[u8]) -> Option<Self> {
        let (version, entries) = value.split_first_chunk::<4>()?;
        if u32::from_le_bytes(*version) != VERSION || entries.len() % 8 != 0 {
            return None;
        }
        let mut list = Vec::new();
        for entry in entries.chunks_exact(8) {
            let (tag, rest) = entry.split_first_chunk::<2>()?;
            let (permissions, id) = rest.split_first_chunk::<2>()?;
            list.push(Entry {
                tag: u16::from_le_bytes(*tag),
                permissions: u16::from_le_bytes(*permissions),
                id: u32::from_le_bytes(id.try_into().ok()?),
            });
        }
        let count = |tag| list.iter().filter(|entry| entry.tag == tag).count();
        let named = count(USER) + count(GROUP);
        let whole = count(USER_OBJ) == 1
            && count(GROUP_OBJ) == 1
            && count(OTHER) == 1
            && count(MASK) <= 1
            && (named == 0 || count(MASK) == 1)
            && list.len() == 3 + named + count(MASK)
            && list.iter().all(|entry| entry.permissions <= 7);
        (list.is_empty() || whole).then_some(Self(list))
    }

    /// An attribute without entries: there is no list.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn to_value(&self) -> Vec<u8> {
        let mut value = VERSION.to_le_bytes().to_vec();
        for entry in &self.0 {
            value.extend_from_slice(&entry.tag.to_le_bytes());
            value.extend_from_slice(&entry.permissions.to_le_bytes());
            value.extend_from_slice(&entry.id.to_le_bytes());
        }
        value
    }

    /// Whether it says no more than nine permission bits can.
    pub(super) fn is_minimal(&self) -> bool {
        self.0.iter().all(|entry| matches!(entry.tag, USER_OBJ | GROUP_OBJ | OTHER))
    }

    /// The entry that the group's permission bits show.
    fn group_class(&self) -> u16 {
        if self.0.iter().any(|entry| entry.tag == MASK) { MASK } else { GROUP_OBJ }
    }

    fn shift(&self, tag: u16) -> Option<u16> {
        match tag {
            USER_OBJ => Some(6),
            OTHER => Some(0),
            tag if tag == self.group_class() => Some(3),
            _ => None,
        }
    }

    /// The nine permission bits that it shows as.
    pub(super) fn bits(&self) -> u16 {
        self.0
            .iter()
            .filter_map(|entry| self.shift(entry.tag).map(|shift| entry.permissions << shift))
            .fold(0, |bits, part| bits | part)
    }

    /// `chmod`: the entries that show as permission bits become these.
    pub(super) fn set_bits(&mut self, permissions: u16) {
        let copy = self.clone();
        for entry in &mut self.0 {
            if let Some(shift) = copy.shift(entry.tag) {
                entry.permissions = permissions >> shift & 7;
            }
        }
    }

    /// The access list of a new node in a directory with this default list:
    /// what shows as permission bits is cut to what was asked for.
    pub(super) fn inherited(&self, permissions: u16) -> Self {
        let mut acl = self.clone();
        acl.set_bits(self.bits() & permissions);
        acl
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16)]) -> Acl {
        Acl(entries.iter().map(|&(tag, permissions)| Entry { tag, permissions, id: 0 }).collect())
    }

    #[test]
    fn the_mask_stands_for_the_group_where_there_is_one() {
        let mut long = acl(&[(USER_OBJ, 7), (USER, 6), (GROUP_OBJ, 5), (MASK, 6), (OTHER, 1)]);
        assert_eq!(long.bits(), 0o761);
        long.set_bits(0o640);
        assert_eq!(long.bits(), 0o640);
        assert_eq!(long.0[2].permissions, 5, "the owning group's entry stays");
        assert_eq!(acl(&[(USER_OBJ, 7), (GROUP_OBJ, 5), (OTHER, 1)]).bits(), 0o751);
        assert_eq!(long.inherited(0o400).bits(), 0o400);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let good = acl(&[(USER_OBJ, 7), (GROUP_OBJ, 5), (OTHER, 1)]).to_value();
        assert_eq!(Acl::parse(&good).unwrap().to_value(), good);
        assert!(Acl::parse(&good[..good.len() - 1]).is_none());
        assert!(Acl::parse(&good[..good.len() - 8]).is_none());
        assert!(Acl::parse(&[1, 0, 0, 0]).is_none());
        assert!(Acl::parse(&acl(&[(USER_OBJ, 7), (GROUP_OBJ, 5), (OTHER, 8)]).to_value()).is_none());
        assert!(Acl::parse(&acl(&[(USER_OBJ, 7), (USER, 7), (GROUP_OBJ, 5), (OTHER, 1)]).to_value()).is_none());
        assert!(Acl::parse(&2u32.to_le_bytes()).unwrap().is_empty());
    }
}
