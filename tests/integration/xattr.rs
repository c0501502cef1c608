//! Extended attributes: what the server knows of an object beyond its bytes, for at most one request a version.

#![allow(unsafe_code, reason = "the calls are in no library that is here")]

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use crate::common::{Backend, Bucket, Counts, Mount, Put};
use nix::errno::Errno;

/// Keeps what the mount knows for the whole test.
const LONG: &str = "--metadata-ttl 1h --negative-ttl 1h";

fn c(bytes: &[u8]) -> CString {
    CString::new(bytes).expect("no NUL")
}

/// getxattr(2).
pub fn get(path: &Path, name: &str) -> Result<String, Errno> {
    let mut value = vec![0_u8; 4096];
    let (path, name) = (c(path.as_os_str().as_bytes()), c(name.as_bytes()));
    // SAFETY: both names end in NUL, and the buffer has the length that is told.
    let len = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    let len = Errno::result(len)?;
    value.truncate(usize::try_from(len).expect("a length"));
    Ok(String::from_utf8(value).expect("text"))
}

/// getxattr(2) with a buffer of this size, and what it answers.
fn get_into(path: &Path, name: &str, size: usize) -> Result<usize, Errno> {
    let mut value = vec![0_u8; size.max(1)];
    let (path, name) = (c(path.as_os_str().as_bytes()), c(name.as_bytes()));
    // SAFETY: as above; the buffer is at least as large as told.
    let len = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), size) };
    Errno::result(len).map(|len| usize::try_from(len).expect("a length"))
}

/// listxattr(2), in byte order.
pub fn list(path: &Path) -> Vec<String> {
    let mut names = vec![0_u8; 65_536];
    let path = c(path.as_os_str().as_bytes());
    // SAFETY: as above.
    let len = unsafe { libc::listxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    names.truncate(usize::try_from(Errno::result(len).expect("a list of names")).expect("a length"));
    let text = String::from_utf8(names).expect("text");
    let mut names: Vec<String> = text.split_terminator('\0').map(ToOwned::to_owned).collect();
    names.sort();
    names
}

fn ours(name: &str) -> String {
    format!("user.supabase.{name}")
}

/// An object that has every attribute.
fn put_rich(bucket: &Bucket<'_>, key: &str) {
    let metadata = [("author", "Jo Doe"), ("mtime", "1600000000"), ("with-dash", "a=b; c")];
    let how = Put {
        content_type: Some("image/jpeg".to_owned()),
        cache_control: Some("max-age=1234".to_owned()),
        metadata: metadata.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
    };
    bucket.put_with(key, key, how);
}

fn rich(bucket: &Bucket<'_>, key: &str) -> BTreeMap<String, String> {
    let etag = bucket.etag(key).trim_matches('"').to_owned();
    let pairs = [
        ("key", key),
        ("etag", etag.as_str()),
        ("content-type", "image/jpeg"),
        ("cache-control", "max-age=1234"),
        ("meta.author", "Jo Doe"),
        ("meta.mtime", "1600000000"),
        ("meta.with-dash", "a=b; c"),
    ];
    pairs.map(|(name, value)| (ours(name), value.to_owned())).into()
}

fn cost(backend: &Backend, mount: &Mount, work: impl FnOnce()) -> Counts {
    let before = mount.counts(backend);
    work();
    mount.counts(backend) - before
}

#[test]
fn every_attribute_has_its_value() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let keys = ["photo.jpg", "deep/er/photo.jpg", "with space/x & y.jpg", "esc!C3!A9.jpg"];
    for key in keys {
        put_rich(&bucket, key);
    }
    let mount = Mount::with(&backend, &bucket, LONG);
    for key in keys {
        let path = mount.at(&key.replace("!C3!A9", "é"));
        for (name, value) in rich(&bucket, key) {
            assert_eq!(get(&path, &name).as_ref(), Ok(&value), "{name} of {key}");
        }
    }
}

#[test]
fn an_alias_tells_the_key_it_stands_for() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["a", "a/b", "a//c"]);
    let mount = Mount::new(&backend, &bucket);
    for (path, key) in [("a!00", "a"), ("a/b", "a/b"), ("a", "a/"), ("a/!2F/c", "a//c")] {
        assert_eq!(get(&mount.at(path), "user.supabase.key").as_deref(), Ok(key), "{path}");
    }
}

#[test]
fn what_is_missing_is_enodata() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["plain", "dir/inside"]);
    let mount = Mount::new(&backend, &bucket);
    for name in ["user.supabase.meta.none", "user.supabase.meta.", "user.supabase.nonsense", "user.other"] {
        for path in ["plain", "dir", ""] {
            assert_eq!(get(&mount.at(path), name), Err(Errno::ENODATA), "{name} of {path:?}");
        }
    }
    for name in ["etag", "content-type", "cache-control"] {
        assert_eq!(get(&mount.at("dir"), &ours(name)), Err(Errno::ENODATA), "{name}");
    }
    assert_eq!(get(&mount.at("nothing"), "user.supabase.key"), Err(Errno::ENOENT));
}

#[test]
fn sizes_are_told_and_short_buffers_refused() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    put_rich(&bucket, "photo.jpg");
    let mount = Mount::new(&backend, &bucket);
    let (path, name) = (mount.at("photo.jpg"), ours("content-type"));
    assert_eq!(get_into(&path, &name, 0), Ok("image/jpeg".len()));
    assert_eq!(get_into(&path, &name, "image/jpeg".len()), Ok("image/jpeg".len()));
    assert_eq!(get_into(&path, &name, 3), Err(Errno::ERANGE));
}

#[test]
fn the_names_are_listed_and_the_tool_prints_all() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    put_rich(&bucket, "photo.jpg");
    bucket.put_keys(["dir/inside"]);
    let wanted = rich(&bucket, "photo.jpg");
    let mount = Mount::with(&backend, &bucket, LONG);
    assert_eq!(list(&mount.at("photo.jpg")), wanted.keys().cloned().collect::<Vec<_>>());
    assert_eq!(list(&mount.at("dir")), ["user.supabase.key"]);
    drop(mount);

    let mount = Mount::with(&backend, &bucket, LONG);
    let lines: Vec<String> = wanted.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    let printed = mount.sh("getfattr -d photo.jpg | grep = | sort");
    assert_eq!(crate::common::sorted_lines(&printed), lines);
}

#[test]
fn the_tool_prints_all_of_many_files_and_after_others_looked_at_them() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    for i in 0..12 {
        put_rich(&bucket, &format!("d/{i:02}.jpg"));
    }
    let mount = Mount::with(&backend, &bucket, LONG);
    let used = cost(&backend, &mount, || {
        let printed = mount.sh("getfattr -d d/* | grep -c 'content-type=\"image/jpeg\"'");
        assert_eq!(printed.trim(), "12");
    });
    assert!(used.head <= 12, "{used:?}");
    drop(mount);
    // A tool that goes through a directory costs no request a file.
    let mount = Mount::with(&backend, &bucket, LONG);
    mount.names("d");
    let used =
        cost(&backend, &mount, || drop(mount.sh("ls -l d; cp --attributes-only d/00.jpg /dev/null || true")));
    assert_eq!(used.total(), 0, "{used:?}");
}

#[test]
fn what_tools_ask_of_every_file_is_answered_from_nothing() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["file", "dir/inside"]);
    let mount = Mount::with(&backend, &bucket, LONG);
    mount.files();
    let names = [
        "security.capability",
        "security.selinux",
        "security.ima",
        "system.posix_acl_access",
        "system.posix_acl_default",
        "trusted.overlay.opaque",
    ];
    let used = cost(&backend, &mount, || {
        for path in ["", "file", "dir", "dir/inside"] {
            for name in names {
                let error = get(&mount.at(path), name).expect_err(name);
                assert!(matches!(error, Errno::ENODATA | Errno::EOPNOTSUPP), "{name} of {path:?}: {error}");
            }
            // Known from the listing.
            assert!(get(&mount.at(path), "user.supabase.key").is_ok());
        }
        assert!(get(&mount.at("file"), "user.supabase.etag").is_ok());
    });
    assert_eq!(used, Counts::NONE);
}

#[test]
fn a_version_not_read_before_costs_one_head() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    put_rich(&bucket, "photo.jpg");
    let mount = Mount::with(&backend, &bucket, "--metadata-ttl 200ms");
    let all = |mount: &Mount| {
        for (name, value) in rich(&bucket, "photo.jpg") {
            assert_eq!(get(&mount.at("photo.jpg"), &name), Ok(value), "{name}");
        }
        assert_eq!(get(&mount.at("photo.jpg"), "user.supabase.meta.none"), Err(Errno::ENODATA));
        list(&mount.at("photo.jpg"));
    };
    let heads = |mount: &Mount| Counts::of_status(&mount.status()).head;
    all(&mount);
    assert_eq!(heads(&mount), 1);
    all(&mount);
    // Of the same version it is still known when the listing has aged.
    std::thread::sleep(Duration::from_millis(300));
    all(&mount);
    assert_eq!(heads(&mount), 1);

    let how = Put { content_type: Some("image/png".to_owned()), ..Put::default() };
    bucket.put_with("photo.jpg", "another body", how);
    crate::common::eventually("the new version", || {
        (get(&mount.at("photo.jpg"), "user.supabase.content-type").as_deref() == Ok("image/png"))
            .then_some(())
    });
    assert_eq!(get(&mount.at("photo.jpg"), "user.supabase.meta.author"), Err(Errno::ENODATA));
    assert_eq!(heads(&mount), 2);
}

#[test]
fn a_version_that_was_read_costs_no_head() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    put_rich(&bucket, "photo.jpg");
    let mount = Mount::with(&backend, &bucket, LONG);
    mount.read("photo.jpg");
    let wanted = rich(&bucket, "photo.jpg");
    let used = cost(&backend, &mount, || {
        for (name, value) in &wanted {
            assert_eq!(get(&mount.at("photo.jpg"), name).as_ref(), Ok(value), "{name}");
        }
        assert_eq!(list(&mount.at("photo.jpg")).len(), wanted.len());
    });
    assert_eq!(used, Counts::NONE);
}

#[test]
fn many_who_ask_at_once_share_one_head() {
    let backend = standin_only!("it holds requests back");
    let bucket = backend.bucket();
    put_rich(&bucket, "photo.jpg");
    let mount = Mount::with(&backend, &bucket, LONG);
    mount.names("");
    backend.standin().set_latency(Duration::from_millis(300));
    let used = cost(&backend, &mount, || {
        std::thread::scope(|scope| {
            for _ in 0..12 {
                scope.spawn(|| {
                    let value = get(&mount.at("photo.jpg"), "user.supabase.content-type");
                    assert_eq!(value.as_deref(), Ok("image/jpeg"));
                });
            }
        });
    });
    assert_eq!(used, Counts { head: 1, ..Counts::NONE });
}
