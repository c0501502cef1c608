use super::*;
use crate::attrs::Modified;
use crate::etag::ETag;

fn version(tag: &str) -> FileVersion {
    FileVersion { etag: ETag::new(tag), size: 1, modified: Modified::listed(1) }
}

fn file(name: &str, tag: &str) -> Entry {
    Entry { name: name.as_bytes().into(), component: None, kind: Kind::File(version(tag)) }
}

fn directory(name: &str) -> Entry {
    Entry { name: name.as_bytes().into(), component: None, kind: Kind::Directory }
}

#[test]
fn a_name_keeps_its_number_while_known() {
    let mut table = InodeTable::new();
    let dir = table.upsert(ROOT, &directory("d"));
    table.remember(dir);
    let ino = table.upsert(dir, &file("f", "1"));
    table.remember(ino);
    assert_eq!(table.upsert(dir, &file("f", "1")), ino);
    assert_eq!(table.key(ino).as_deref(), Some("d/f"));
    assert_eq!(table.key(dir).as_deref(), Some("d/"));
    assert_eq!(table.key(ROOT).as_deref(), Some(""));
    // A new version of a file that is not open: same number, nothing of the old one is kept.
    table.get_mut(ino).unwrap().file_mut().unwrap().handed_out = true;
    assert_eq!(table.upsert(dir, &file("f", "2")), ino);
    assert!(!table.get(ino).unwrap().file().unwrap().handed_out);
}

#[test]
fn a_new_version_of_an_open_file_gets_a_new_number() {
    let mut table = InodeTable::new();
    let old = table.upsert(ROOT, &file("f", "1"));
    table.remember(old);
    table.opened(old);
    let new = table.upsert(ROOT, &file("f", "2"));
    assert_ne!(old, new);
    table.remember(new);
    assert!(table.get(old).unwrap().is_detached());
    assert_eq!(table.named(ROOT, b"f"), Some(new));
    assert_eq!(table.get(old).unwrap().file().unwrap().version, version("1"));
    table.forget(old, 1);
    assert!(table.get(old).is_some(), "still open");
    table.closed(old);
    assert!(table.get(old).is_none());
    assert_eq!(table.named(ROOT, b"f"), Some(new));
}

#[test]
fn a_version_of_another_size_gets_a_new_number_where_the_kernel_knows_the_old_one() {
    let mut table = InodeTable::new();
    let entry = |tag, size| {
        let version = FileVersion { size, ..version(tag) };
        Entry { kind: Kind::File(version), ..file("f", tag) }
    };
    let old = table.upsert(ROOT, &entry("1", 1));
    assert_eq!(table.upsert(ROOT, &entry("2", 2)), old, "nobody was told of it");
    table.remember(old);
    assert_eq!(table.upsert(ROOT, &entry("3", 2)), old);
    assert_ne!(
        table.upsert(ROOT, &entry("4", 4)),
        old,
        "a reader that opens it now would stop at the old size"
    );
}

#[test]
fn a_file_that_becomes_a_folder_gets_a_new_number() {
    let mut table = InodeTable::new();
    let old = table.upsert(ROOT, &file("x", "1"));
    table.remember(old);
    let new = table.upsert(ROOT, &directory("x"));
    assert_ne!(old, new);
}

#[test]
fn nothing_is_left_when_the_kernel_forgets() {
    let mut table = InodeTable::new();
    let dir = table.upsert(ROOT, &directory("d"));
    table.remember(dir);
    let ino = table.upsert(dir, &file("f", "1"));
    table.remember(ino);
    table.remember(ino);
    // The parent goes first: it stays for the sake of its child.
    table.forget(dir, 1);
    assert_eq!(table.key(ino).as_deref(), Some("d/f"));
    table.forget(ino, 2);
    assert_eq!(table.count(), 1);
    assert_eq!(table.by_name.len(), 0);
}

#[test]
fn an_inode_is_small() {
    assert!(size_of::<Inode>() <= 160, "{}", size_of::<Inode>());
}
