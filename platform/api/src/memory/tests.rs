//! The rules that a comparison with the model relies on.
#![allow(clippy::unwrap_used)]

use super::MemoryVfs;
use crate::{
    AllocateMode, AttributeChange, Attributes, Caller, ErrorClass, NewNode, Node, OpenHow, RenameMode, TimeChange,
    Timestamp, Vfs, VfsResult, XattrMode,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

const USER: Caller = Caller { user: 5, group: 6, umask: 0o022 };
const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";

/// Every look at the clock is a second later.
fn fresh() -> MemoryVfs {
    let ticks = AtomicI64::new(0);
    let now = move || Timestamp { seconds: ticks.fetch_add(1, Ordering::SeqCst), nanoseconds: 0 };
    MemoryVfs::new(Arc::new(now), Caller::default())
}

fn make(vfs: &MemoryVfs, parent: Node, name: &str, permissions: u16, what: NewNode<'_>) -> Attributes {
    vfs.make(USER, parent, name.as_bytes(), permissions, what).unwrap()
}

fn directory(vfs: &MemoryVfs, parent: Node, name: &str) -> Node {
    make(vfs, parent, name, 0o755, NewNode::Directory).node
}

fn class<T>(result: VfsResult<T>) -> Option<ErrorClass> {
    result.err().map(|error| error.class())
}

/// A list of owner, named user 9, group, mask and others.
fn acl(bits: [u16; 5]) -> Vec<u8> {
    let mut value = 2u32.to_le_bytes().to_vec();
    for (tag, permissions) in [1u16, 2, 4, 0x10, 0x20].into_iter().zip(bits) {
        let id = if tag == 2 { 9u32 } else { u32::MAX };
        value.extend([&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat());
    }
    value
}

#[test]
fn the_mode_and_the_access_list_show_the_same() {
    let vfs = fresh();
    let file = make(&vfs, Node::ROOT, "f", 0o666, NewNode::File);
    assert_eq!(file.permissions, 0o644, "the umask counts");
    vfs.set_extended_attribute(file.node, ACCESS, &acl([7, 6, 5, 6, 0]), XattrMode::Set).unwrap();
    assert_eq!(vfs.attributes(file.node).unwrap().permissions, 0o760);
    let change = AttributeChange { permissions: Some(0o4710), ..Default::default() };
    vfs.set_attributes(USER, file.node, None, &change).unwrap();
    assert_eq!(vfs.extended_attribute(file.node, ACCESS).unwrap(), acl([7, 6, 5, 1, 0]), "chmod changes the mask");
    // Three entries say no more than the mode, which is then all there is.
    let minimal = [&acl([6, 0, 0, 0, 0])[..12], &[4, 0, 4, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255]];
    vfs.set_extended_attribute(file.node, ACCESS, &minimal.concat(), XattrMode::Set).unwrap();
    assert_eq!(vfs.attributes(file.node).unwrap().permissions, 0o4640);
    assert_eq!(class(vfs.extended_attribute(file.node, ACCESS)), Some(ErrorClass::NoAttribute));
    let refused = vfs.set_extended_attribute(file.node, DEFAULT, &acl([7; 5]), XattrMode::Set);
    assert_eq!(class(refused), Some(ErrorClass::Denied));
}

#[test]
fn new_nodes_have_their_directorys_default_list() {
    let vfs = fresh();
    let parent = directory(&vfs, Node::ROOT, "d");
    vfs.set_extended_attribute(parent, DEFAULT, &acl([7, 7, 7, 7, 5]), XattrMode::Set).unwrap();
    let file = make(&vfs, parent, "f", 0o640, NewNode::File);
    assert_eq!(file.permissions, 0o640, "the list takes the umask's place");
    assert_eq!(vfs.extended_attribute(file.node, ACCESS).unwrap(), acl([6, 7, 7, 4, 0]));
    assert_eq!(class(vfs.extended_attribute(file.node, DEFAULT)), Some(ErrorClass::NoAttribute));
    let below = make(&vfs, parent, "s", 0o777, NewNode::Directory);
    assert_eq!(below.permissions, 0o775);
    assert_eq!(vfs.extended_attribute(below.node, DEFAULT).unwrap(), acl([7, 7, 7, 7, 5]));
    let link = make(&vfs, parent, "l", 0o777, NewNode::Symlink(b"x"));
    assert_eq!((link.permissions, vfs.extended_attributes(link.node).unwrap().len()), (0o777, 0));
}

#[test]
fn privileges_come_from_set_group_id_directories_and_go_with_changes() {
    let vfs = fresh();
    let parent = directory(&vfs, Node::ROOT, "d");
    let change = AttributeChange { permissions: Some(0o2777), group: Some(77), ..Default::default() };
    vfs.set_attributes(USER, parent, None, &change).unwrap();
    let below = make(&vfs, parent, "s", 0o755, NewNode::Directory);
    assert_eq!((below.group, below.permissions), (77, 0o2755));
    let how = OpenHow { write: true, ..Default::default() };
    let (file, opened) = vfs.create(USER, parent, b"f", 0o755, how).unwrap();
    assert_eq!((file.user, file.group, file.permissions), (5, 77, 0o755));
    let arm = || {
        let change = AttributeChange { permissions: Some(0o6755), ..Default::default() };
        vfs.set_attributes(USER, file.node, None, &change).unwrap();
        vfs.set_extended_attribute(file.node, b"security.capability", b"x", XattrMode::Set).unwrap();
    };
    let bits = || {
        let kept = vfs.extended_attribute(file.node, b"security.capability").is_ok();
        (vfs.attributes(file.node).unwrap().permissions, kept)
    };
    arm();
    vfs.write(opened.handle, 0, b"x", false).unwrap();
    assert_eq!(bits(), (0o6755, true));
    vfs.write(opened.handle, 0, b"x", true).unwrap();
    assert_eq!(bits(), (0o755, false));
    arm();
    let change = AttributeChange { user: Some(8), kill_privileges: true, ..Default::default() };
    vfs.set_attributes(USER, file.node, None, &change).unwrap();
    assert_eq!(bits(), (0o755, false));
    vfs.set_attributes(USER, below.node, None, &change).unwrap();
    assert_eq!(vfs.attributes(below.node).unwrap().permissions, 0o2755, "a directory keeps the bit");
}

#[test]
fn renames_keep_counts_and_parents() {
    let vfs = fresh();
    let (a, b) = (directory(&vfs, Node::ROOT, "a"), directory(&vfs, Node::ROOT, "b"));
    let inner = directory(&vfs, a, "inner");
    make(&vfs, b, "file", 0o644, NewNode::File);
    let rename = |from: (Node, &str), to: (Node, &str), mode| {
        class(vfs.rename(from.0, from.1.as_bytes(), to.0, to.1.as_bytes(), mode))
    };
    assert_eq!(rename((Node::ROOT, "a"), (inner, "x"), RenameMode::Replace), Some(ErrorClass::Invalid));
    assert_eq!(rename((Node::ROOT, "a"), (a, "inner"), RenameMode::Exchange), Some(ErrorClass::Invalid));
    assert_eq!(rename((a, "inner"), (Node::ROOT, "a"), RenameMode::Exchange), Some(ErrorClass::Invalid));
    assert_eq!(rename((a, "inner"), (Node::ROOT, "b"), RenameMode::Replace), Some(ErrorClass::NotEmpty));
    assert_eq!(rename((a, "inner"), (b, "file"), RenameMode::Replace), Some(ErrorClass::NotDirectory));
    assert_eq!(rename((b, "file"), (a, "inner"), RenameMode::Replace), Some(ErrorClass::IsDirectory));
    assert_eq!(rename((b, "file"), (a, "inner"), RenameMode::NoReplace), Some(ErrorClass::Exists));
    assert_eq!(rename((b, "none"), (a, "inner"), RenameMode::Replace), Some(ErrorClass::NotFound));
    assert_eq!(rename((a, "inner"), (b, "file"), RenameMode::Exchange), None);
    let links = |node| vfs.attributes(node).unwrap().links;
    assert_eq!((links(Node::ROOT), links(a), links(b), links(inner)), (4, 2, 3, 2));
    assert_eq!(vfs.parent(inner).unwrap(), b);
    assert_eq!(rename((b, "file"), (Node::ROOT, "c"), RenameMode::Replace), None);
    assert_eq!((links(Node::ROOT), links(b), vfs.parent(inner).unwrap()), (5, 2, Node::ROOT));
    assert_eq!(rename((Node::ROOT, "b"), (Node::ROOT, "c"), RenameMode::Replace), None);
    assert_eq!((links(Node::ROOT), class(vfs.attributes(inner))), (4, Some(ErrorClass::NotFound)));
}

#[test]
fn a_file_without_a_name_lives_until_it_is_closed() {
    let vfs = fresh();
    let how = OpenHow { read: true, write: true, truncate: false };
    let (file, opened) = vfs.create(USER, Node::ROOT, b"f", 0o644, how).unwrap();
    assert_eq!(vfs.link(file.node, Node::ROOT, b"g").unwrap().links, 2);
    assert_eq!(class(vfs.link(file.node, Node::ROOT, b"g")), Some(ErrorClass::Exists));
    vfs.unlink(Node::ROOT, b"f").unwrap();
    vfs.unlink(Node::ROOT, b"g").unwrap();
    vfs.write(opened.handle, 3, b"x", false).unwrap();
    assert_eq!((vfs.attributes(file.node).unwrap().links, vfs.attributes(file.node).unwrap().size), (0, 4));
    assert_eq!(class(vfs.link(file.node, Node::ROOT, b"h")), Some(ErrorClass::NotFound));
    vfs.release(opened.handle);
    assert_eq!((vfs.nodes(), vfs.open_handles()), (1, 0));
}

#[test]
fn names_are_limited_in_number_and_length() {
    let vfs = fresh();
    let file = make(&vfs, Node::ROOT, "f", 0o644, NewNode::File).node;
    for index in 1..65_000 {
        vfs.link(file, Node::ROOT, format!("{index}").as_bytes()).unwrap();
    }
    assert_eq!(class(vfs.link(file, Node::ROOT, b"one more")), Some(ErrorClass::TooManyLinks));
    assert_eq!(class(vfs.link(file, Node::ROOT, &[b'n'; 256])), Some(ErrorClass::TooManyLinks));
    assert_eq!(class(vfs.lookup(Node::ROOT, &[b'n'; 256])), Some(ErrorClass::NameTooLong));
    assert_eq!(class(vfs.make(USER, Node::ROOT, b"a/b", 0, NewNode::File)), Some(ErrorClass::Invalid));
}

#[test]
fn times_tell_what_changed() {
    let vfs = fresh();
    let how = OpenHow { write: true, ..Default::default() };
    let (file, opened) = vfs.create(USER, Node::ROOT, b"f", 0o644, how).unwrap();
    let changed = |action: &dyn Fn()| {
        let before = vfs.attributes(file.node).unwrap();
        action();
        let after = vfs.attributes(file.node).unwrap();
        (after.accessed != before.accessed, after.modified != before.modified, after.changed != before.changed)
    };
    let set = |change: AttributeChange| assert!(vfs.set_attributes(USER, file.node, None, &change).is_ok());
    let none = AttributeChange::default();
    let to = Some(TimeChange::To(Timestamp { seconds: -9, nanoseconds: 1 }));
    assert_eq!(changed(&|| vfs.write(opened.handle, 0, b"x", false).unwrap()), (false, true, true));
    assert_eq!(changed(&|| set(AttributeChange { size: Some(1), ..none })), (false, true, true));
    assert_eq!(changed(&|| set(AttributeChange { permissions: Some(0), ..none })), (false, false, true));
    assert_eq!(changed(&|| set(AttributeChange { accessed: to, ..none })), (true, false, true));
    assert_eq!(changed(&|| set(AttributeChange { modified: Some(TimeChange::Now), ..none })), (false, true, true));
    let allocate = |mode| vfs.allocate(opened.handle, 0, 9, mode).unwrap();
    assert_eq!(changed(&|| allocate(AllocateMode::Punch)), (false, true, true));
    assert_eq!(changed(&|| assert!(vfs.link(file.node, Node::ROOT, b"g").is_ok())), (false, false, true));
    let rename = || vfs.rename(Node::ROOT, b"g", Node::ROOT, b"h", RenameMode::Replace).unwrap();
    assert_eq!(changed(&rename), (false, false, true));
    assert_eq!(changed(&|| vfs.unlink(Node::ROOT, b"h").unwrap()), (false, false, true));
    let xattr = || vfs.set_extended_attribute(file.node, b"user.a", b"1", XattrMode::Create).unwrap();
    assert_eq!(changed(&xattr), (false, false, true));
}

#[test]
fn ranges_are_copied_zeroed_and_bounded() {
    let vfs = fresh();
    let how = OpenHow { read: true, write: true, truncate: false };
    let (_, a) = vfs.create(USER, Node::ROOT, b"a", 0o644, how).unwrap();
    let (b_attributes, b) = vfs.create(USER, Node::ROOT, b"b", 0o644, how).unwrap();
    vfs.write(a.handle, 0, b"0123456789", false).unwrap();
    assert_eq!(vfs.copy_range(a.handle, 4, b.handle, 2, 100).unwrap(), 6);
    assert_eq!(vfs.copy_range(a.handle, 10, b.handle, 50, 100).unwrap(), 0);
    vfs.allocate(b.handle, 3, 2, AllocateMode::ZeroKeepSize).unwrap();
    vfs.allocate(b.handle, 9, 3, AllocateMode::KeepSize).unwrap();
    let read = || {
        let mut all = Vec::new();
        vfs.read(b.handle, 0, 100, &mut |bytes| all.extend_from_slice(bytes)).unwrap();
        all
    };
    assert_eq!(read(), b"\0\x004\0\x00789");
    vfs.allocate(b.handle, 7, 3, AllocateMode::Zero).unwrap();
    assert_eq!(read(), b"\0\x004\0\x0078\0\0\0");
    assert_eq!(class(vfs.write(b.handle, i64::MAX as u64, b"x", false)), Some(ErrorClass::TooLarge));
    assert_eq!(class(vfs.allocate(b.handle, u64::MAX, 2, AllocateMode::Extend)), Some(ErrorClass::TooLarge));
    let truncated = vfs.open(b_attributes.node, OpenHow { truncate: true, ..how }).unwrap();
    assert_eq!(read(), b"");
    assert_eq!(class(vfs.seek(truncated.handle, 0, false)), Some(ErrorClass::NoSuchRange));
}
