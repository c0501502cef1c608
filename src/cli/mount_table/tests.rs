//! The mount table is read as the kernel writes it.

use super::*;

#[test]
fn a_line_with_escapes_and_optional_fields() {
    let line = b"36 35 0:50 / /mnt/my\\040photos rw,nosuid shared:1 master:2 - fuse.supafs supafs:ph\\040x rw,user_id=0";
    let entry = parse_line(line).expect("an entry");
    assert_eq!(entry.mountpoint, Path::new("/mnt/my photos"));
    assert_eq!((entry.fstype.as_str(), entry.source.as_str()), ("fuse.supafs", "supafs:ph x"));
    assert!(entry.is_supafs());
}

#[test]
fn what_is_no_line_is_left_out() {
    assert_eq!(parse(b"\nnonsense\n36 35 0:50 / /a rw\n"), []);
    assert_eq!(unescape(b"a\\"), b"a\\");
}

#[test]
fn the_root_is_mounted() {
    let entry = at(Path::new("/")).expect("a table").expect("an entry");
    assert!(!entry.is_supafs());
}
