//! Extended attributes that any program sets are kept, and what is listed can be read and removed, in every state of a
//! file, a folder or a link.

#![allow(unsafe_code, reason = "the calls are in no library that is here")]

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use crate::common::{Backend, Mount, Place, body, eventually, run, spent};
use crate::xattr::list;
use nix::errno::Errno;

/// Keeps what the mount knows for the whole test.
const LONG: &str = "--metadata-ttl 1h --negative-ttl 1h";

/// Follows changes at once.
const QUICK: &str = "--metadata-ttl 100ms --negative-ttl 100ms";

fn c(bytes: &[u8]) -> CString {
    CString::new(bytes).expect("no NUL")
}

fn set_with(path: &Path, name: &[u8], value: &[u8], flags: i32) -> Result<(), Errno> {
    let (path, name) = (c(path.as_os_str().as_bytes()), c(name));
    // SAFETY: both names end in NUL, and the buffer has the length that is told.
    let done =
        unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), flags) };
    Errno::result(done).map(drop)
}

fn set(path: &Path, name: &str, value: &[u8]) {
    set_with(path, name.as_bytes(), value, 0).expect(name);
}

fn get(path: &Path, name: &[u8]) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0_u8; 65_536];
    let (path, name) = (c(path.as_os_str().as_bytes()), c(name));
    // SAFETY: as above.
    let len = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    value.truncate(usize::try_from(Errno::result(len)?).expect("a length"));
    Ok(value)
}

fn remove(path: &Path, name: &str) -> Result<(), Errno> {
    let (path, name) = (c(path.as_os_str().as_bytes()), c(name.as_bytes()));
    // SAFETY: as above.
    Errno::result(unsafe { libc::removexattr(path.as_ptr(), name.as_ptr()) }).map(drop)
}

/// llistxattr(2).
fn list_of_link(path: &Path) -> usize {
    let path = c(path.as_os_str().as_bytes());
    // SAFETY: a size of 0 writes nothing.
    let len = unsafe { libc::llistxattr(path.as_ptr(), std::ptr::null_mut(), 0) };
    usize::try_from(Errno::result(len).expect("a list of names")).expect("a length")
}

/// Values with everything that no header holds, and names that no header has.
fn strange() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("user.xdg.origin.url", b"https://example.com/a  b?c=\xc3\xa9 ".to_vec()),
        ("user.DOSATTRIB", (0..=255).collect()),
        ("user.com.apple.metadata:kMDItem_#%", vec![]),
        ("user.gr\u{fc}n", b"\0\n\r\t".to_vec()),
    ]
}

fn set_all(path: &Path) {
    for (name, value) in strange() {
        set(path, name, &value);
    }
}

#[track_caller]
fn assert_all(path: &Path, state: &str) {
    let names = list(path);
    for (name, value) in strange() {
        assert!(names.iter().any(|listed| listed == name), "{state}: {name} in {names:?}");
        assert_eq!(get(path, name.as_bytes()), Ok(value), "{state}: {name}");
    }
}

/// What is listed can be read and removed; what is not cannot.
#[track_caller]
fn assert_whole(path: &Path, state: &str) {
    let names = list(path);
    for name in &names {
        assert!(get(path, name.as_bytes()).is_ok(), "{state}: {name} of {names:?} cannot be read");
    }
    let facts = ["key", "etag", "last-error", "content-type", "cache-control"];
    let stat = ["meta.mode", "meta.mtime", "meta.uid", "meta.gid"];
    let others = ["user.none".to_owned()];
    let all = facts.iter().chain(&stat).map(|name| format!("user.supabase.{name}")).chain(others);
    for name in all.filter(|name| !names.contains(name)) {
        assert_eq!(get(path, name.as_bytes()), Err(Errno::ENODATA), "{state}: {name} is not listed");
        assert_eq!(remove(path, &name), Err(Errno::ENODATA), "{state}: {name} is not listed");
    }
    for name in &names {
        assert_eq!(remove(path, name), Ok(()), "{state}: {name} of {names:?} cannot be removed");
    }
}

fn settled(mount: &Mount) {
    eventually("everything to be in the bucket", || {
        let status = mount.status();
        (status["drafts"] == 0 && status["waiting"] == 0).then_some(())
    });
}

#[test]
fn what_is_listed_can_be_read_and_removed_in_every_state() {
    let backend = Backend::start();
    for args in ["", "--write-back --write-back-delay 300ms"] {
        let bucket = backend.bucket();
        bucket.put_keys(["theirs", "folder/inside"]);
        let mount = Mount::with(&backend, &bucket, &format!("{LONG} {args}"));
        let file = File::create(mount.at("file")).expect("create");
        assert_whole(&mount.at("file"), "just made");
        file.set_permissions(fs::Permissions::from_mode(0o600)).expect("chmod");
        assert_whole(&mount.at("file"), "open after chmod");
        assert_eq!(file.metadata().expect("stat").mode() & 0o777, 0o600, "it is as private as before");
        file.write_all_at(b"text", 0).expect("write");
        assert_whole(&mount.at("file"), "written");
        drop(file);
        assert_whole(&mount.at("file"), "closed");
        mount.sh("chmod 640 file theirs");
        assert_whole(&mount.at("file"), "pending");
        assert_whole(&mount.at("theirs"), "pending, of an object");
        settled(&mount);
        assert_whole(&mount.at("file"), "at rest");
        assert_eq!(mount.sh("stat -c %a file theirs"), "640\n640\n");
        mount.sh("echo more >> theirs; mkdir made; chmod 700 made folder");
        for path in ["theirs", "made", "folder", ""] {
            assert_whole(&mount.at(path), path);
        }
        settled(&mount);
        assert_whole(&mount.at("folder"), "folder at rest");
        assert_eq!(mount.sh("stat -c %a made folder"), "700\n700\n");
        symlink("file", mount.at("link")).expect("symlink");
        assert_eq!(list_of_link(&mount.at("link")), 0, "the kernel lets nobody read what a link has");
    }
}

#[test]
fn attributes_of_other_programs_survive_all_that_is_done_to_a_file() {
    let backend = Backend::start();
    for args in ["", "--write-back"] {
        let bucket = backend.bucket();
        bucket.put("theirs", "theirs");
        let mount = Mount::with(&backend, &bucket, &format!("{LONG} {args}"));
        let file = File::create(mount.at("open")).expect("create");
        set_all(&mount.at("open"));
        assert_all(&mount.at("open"), "open");
        (&file).write_all(b"text").expect("write");
        drop(file);
        fs::write(mount.at("large"), body(1, 20 << 20)).expect("write");
        for name in ["theirs", "large"] {
            set_all(&mount.at(name));
            assert_all(&mount.at(name), name);
        }
        settled(&mount);
        for name in ["open", "theirs", "large"] {
            assert_all(&mount.at(name), "at rest");
            fs::write(mount.at(name), b"overwritten").expect("write");
            assert_all(&mount.at(name), "overwritten");
            mount.sh(&format!("mv {name} {name}.txt && mv {name}.txt {name}"));
            assert_all(&mount.at(name), "renamed");
            mount.sh(&format!("touch -d 2001-02-03 {name}; echo more >> {name}; chmod 600 {name}"));
            assert_all(&mount.at(name), "touched");
        }
        settled(&mount);
        fs::create_dir(mount.at("moved")).expect("mkdir");
        mount.sh("mkdir d && mv open theirs large d/ && mv d moved/");
        mount.stop();
        // Another machine's mount.
        let mount = Mount::with(&backend, &bucket, QUICK);
        for name in ["open", "theirs", "large"] {
            let path = mount.at("moved/d").join(name);
            assert_all(&path, "in another mount");
            assert_eq!(fs::read(&path).expect("read"), b"overwrittenmore\n");
            for (name, _) in strange() {
                remove(&path, name).expect(name);
                assert_eq!(get(&path, name.as_bytes()), Err(Errno::ENODATA));
            }
            assert!(list(&path).iter().all(|name| name.starts_with("user.supabase.")), "{:?}", list(&path));
        }
        settled(&mount);
        let metadata = bucket.headers("moved/d/open").expect("there").metadata;
        assert!(metadata.keys().all(|name| !name.starts_with("supafs-xattr-")), "{metadata:?}");
    }
}

#[test]
fn attributes_of_folders_are_in_their_placeholders() {
    let backend = Backend::start();
    for args in ["", "--write-back"] {
        let bucket = backend.bucket();
        bucket.put("theirs/file", "x");
        let mount = Mount::with(&backend, &bucket, &format!("{LONG} {args}"));
        fs::create_dir(mount.at("made")).expect("mkdir");
        for folder in ["made", "theirs", ""] {
            set_all(&mount.at(folder));
            set(&mount.at(folder), "user.supabase.meta.k", b"v");
            assert_all(&mount.at(folder), folder);
        }
        mount.sh("chmod 700 made theirs; touch -d 2001-02-03 made theirs");
        settled(&mount);
        mount.sh("chmod 710 made theirs; rm theirs/file");
        for folder in ["made", "theirs"] {
            assert_all(&mount.at(folder), "after chmod");
        }
        settled(&mount);
        mount.sh("mv made moved");
        assert_all(&mount.at("moved"), "renamed");
        mount.stop();
        let mount = Mount::with(&backend, &bucket, QUICK);
        for folder in ["moved", "theirs", ""] {
            assert_all(&mount.at(folder), "in another mount");
            assert_eq!(get(&mount.at(folder), b"user.supabase.meta.k").as_deref(), Ok(&b"v"[..]));
        }
        let stored = bucket.headers("moved/.emptyFolderPlaceholder").expect("there").metadata;
        assert_eq!(stored["mode"], (0o040_710).to_string());
        assert_eq!(
            set_with(&mount.at("moved"), b"user.supabase.content-type", b"a/b", 0),
            Err(Errno::EOPNOTSUPP)
        );
        remove(&mount.at("moved"), "user.DOSATTRIB").expect("remove");
        assert_eq!(get(&mount.at("moved"), b"user.DOSATTRIB"), Err(Errno::ENODATA));
    }
}

#[test]
fn flags_and_limits_are_told_at_the_call() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put("file", "x");
    let mount = Mount::with(&backend, &bucket, LONG);
    let path = mount.at("file");
    assert_eq!(set_with(&path, b"user.a", b"1", libc::XATTR_REPLACE), Err(Errno::ENODATA));
    assert_eq!(set_with(&path, b"user.a", b"1", libc::XATTR_CREATE), Ok(()));
    assert_eq!(set_with(&path, b"user.a", b"2", libc::XATTR_CREATE), Err(Errno::EEXIST));
    assert_eq!(set_with(&path, b"user.a", b"2", libc::XATTR_REPLACE), Ok(()));
    assert_eq!(set_with(&path, b"user.", b"2", 0), Err(Errno::EINVAL));
    assert_eq!(remove(&path, "user.b"), Err(Errno::ENODATA));
    assert_eq!(set_with(&path, b"user.large", &[7; 10_000], 0), Err(Errno::E2BIG));
    let mut kept = 0;
    let full = (0..10).find_map(|at| {
        let set = set_with(&path, format!("user.part{at}").as_bytes(), &[7; 1500], 0);
        kept += u32::from(set.is_ok());
        set.err()
    });
    assert_eq!(full, Some(Errno::ENOSPC));
    assert!(kept >= 3, "{kept}");
    mount.sh("chmod 600 file; touch -d 2001-02-03 file; mv file moved");
    settled(&mount);
    mount.stop();
    // What was accepted is there, also under the longest token.
    let mount = Mount::with(&backend, &bucket, QUICK);
    for at in 0..kept {
        let value = get(&mount.at("moved"), format!("user.part{at}").as_bytes());
        assert_eq!(value.as_deref(), Ok(&[7; 1500][..]));
    }
    assert_eq!(get(&mount.at("moved"), b"user.a").as_deref(), Ok(&b"2"[..]));
}

/// A tree with attributes, in a local folder whose file system keeps them.
fn tree(place: &Place) -> std::path::PathBuf {
    let source = place.path().join("source");
    fs::create_dir_all(source.join("sub")).expect("a local folder");
    for name in ["one.txt", "two", "sub/three"] {
        fs::write(source.join(name), name).expect("a local file");
    }
    fs::set_permissions(source.join("two"), fs::Permissions::from_mode(0o600)).expect("chmod");
    symlink("one.txt", source.join("link")).expect("a link");
    for name in ["one.txt", "two", "sub/three", "sub"] {
        set_all(&source.join(name));
    }
    source
}

#[test]
fn rsync_and_cp_carry_attributes_both_ways() {
    let backend = Backend::start();
    for args in ["", "--write-back"] {
        let bucket = backend.bucket();
        let place = Place::new();
        let source = tree(&place);
        if set_with(&source, b"user.test", b"x", 0).is_err() {
            eprintln!("skipped: the local file system has no extended attributes");
            return;
        }
        let from = source.display();
        let mount = Mount::with(&backend, &bucket, &format!("{LONG} {args}"));
        mount.sh(&format!("rsync -aX {from}/ rsync/ && rsync -aX {from}/ rsync/"));
        mount.sh(&format!("cp -a --preserve=xattr {from} cp"));
        mount
            .sh(&format!("python3 -c \"import shutil; shutil.copytree('{from}', 'python', symlinks=True)\""));
        let trees = ["rsync", "cp", "python"];
        let check = |at: &Path, state: &str| {
            for name in ["one.txt", "two", "sub/three", "sub"] {
                assert_all(&at.join(name), &format!("{state}: {name}"));
            }
            assert_eq!(fs::read_link(at.join("link")).expect("a link"), Path::new("one.txt"));
            assert_eq!(fs::metadata(at.join("two")).expect("stat").mode() & 0o777, 0o600, "{state}");
        };
        for tree in &trees {
            check(&mount.at(tree), "here");
        }
        mount.stop();
        let mount = Mount::with(&backend, &bucket, QUICK);
        for tree in trees {
            check_remote(&mount.at(tree), tree);
            let back = place.path().join(format!("back-{tree}"));
            let to = back.display();
            mount.sh(&format!("rsync -aX {tree}/ {to}/ && rsync -aX {tree}/ {to}/"));
            check_remote(&back, "by rsync to a local folder");
            run(
                place.path(),
                &format!("rm -rf {to} && cp -r --preserve=xattr,links {}/{tree} {to}", mount.path.display()),
            );
            check_remote(&back, "by cp to a local folder");
            mount.sh(&format!("rsync -aX {tree}/ {tree}-again/"));
            check_remote(&mount.at(&format!("{tree}-again")), "within the mount");
        }
    }
}

/// Modes of files that nobody has read are not known to another machine.
#[track_caller]
fn check_remote(at: &Path, state: &str) {
    for name in ["one.txt", "two", "sub/three", "sub"] {
        assert_all(&at.join(name), &format!("{state}: {name}"));
    }
    assert_eq!(fs::read_link(at.join("link")).expect("a link"), Path::new("one.txt"));
}

#[test]
fn who_lists_many_files_without_a_look_pays_little_and_spoils_it_for_nobody() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    for at in 0..20 {
        bucket.put(&format!("d/{at:02}"), "x");
    }
    let mount = Mount::with(&backend, &bucket, LONG);
    mount.names("d");
    mount.sh("for i in d/*; do setfattr -n user.mark -v $i $i; done");
    settled(&mount);
    mount.stop();
    let mount = Mount::with(&backend, &bucket, LONG);
    mount.names("d");
    let used = spent(&backend, &mount, || {
        let listing = "import os; [os.listxattr(f'd/{i:02}') for i in range(20)]";
        mount.sh(&format!("python3 -c \"{listing}\""));
    });
    assert!(used.get("HeadObject") <= 2, "{used:?}");
    // Several at once.
    let used = spent(&backend, &mount, || {
        std::thread::scope(|scope| {
            for half in 0..2 {
                let mount = &mount;
                scope.spawn(move || {
                    let files = format!("d/{half}*");
                    let found = mount.sh(&format!("getfattr -d {files} | grep -c user.mark="));
                    assert_eq!(found.trim(), "10", "{files}");
                });
            }
            scope.spawn(|| {
                mount.sh("python3 -c \"import os; [os.listxattr(f'd/{i:02}') for i in range(20)]\"")
            });
        });
    });
    assert!(used.get("HeadObject") <= 20, "{used:?}");
}

#[test]
fn setting_an_attribute_moves_ctime() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put("d/file", "x");
    let mount = Mount::with(&backend, &bucket, LONG);
    for path in ["d/file", "d"] {
        let at = mount.at(path);
        let stat = || fs::metadata(&at).map(|stat| (stat.ctime(), stat.ctime_nsec())).expect("stat");
        let before = (stat(), fs::metadata(&at).expect("stat").modified().expect("a time"));
        set(&at, "user.a", b"1");
        let set_at = stat();
        assert!(set_at > before.0, "{path}: {set_at:?} {before:?}");
        remove(&at, "user.a").expect("remove");
        assert!(stat() > set_at, "{path}");
        assert_eq!(fs::metadata(&at).expect("stat").modified().expect("a time"), before.1, "{path}");
    }
}
