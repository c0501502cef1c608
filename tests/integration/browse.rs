//! Browsing and reading with the tools that people use: what is shown is what is stored, and nothing can be changed.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use crate::common::{Backend, Bucket, Mount, MountOptions, Place, Random, body, ino, run, sha256_hex};
use nix::errno::Errno;

/// Sizes around the boundaries of pages, blocks and parts.
const SIZES: [usize; 9] =
    [0, 1, 4095, 4096, 131_071, 131_073, 1 << 20, (1 << 20) + 1, 5 * (1 << 20) + 12_345];

/// Fills a bucket, and a local directory with the same tree.
fn tree(bucket: &Bucket<'_>, local: &Path) {
    for (i, size) in SIZES.into_iter().enumerate() {
        for folder in ["", "docs/", "docs/2025/deep er/", "photos & more/"] {
            let key = format!("{folder}file {i}.bin");
            let bytes = body(i as u64 + folder.len() as u64, size);
            let path = local.join(&key);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, &bytes).expect("a file");
            bucket.put(&key, bytes);
        }
    }
}

fn has(tool: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {tool}")]).output();
    found.is_ok_and(|output| output.status.success())
}

#[test]
fn a_tree_is_shown_and_read_as_it_was_stored() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["a.txt", "docs/one.md", "docs/deep/er/two.md", "with space/x y.txt"]);
    let mount = Mount::new(&backend, &bucket);
    assert_eq!(mount.names(""), ["a.txt", "docs", "with space"]);
    assert_eq!(mount.files(), bucket.keys());
    for key in bucket.keys() {
        assert_eq!(mount.read(&key), key.as_bytes());
    }
    mount.stop();
}

#[test]
fn copying_tools_bring_every_byte() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let place = Place::new();
    let local = place.path().join("local");
    tree(&bucket, &local);
    let mount = Mount::new(&backend, &bucket);
    let (from, to) = (mount.path.display(), place.path().join("to"));
    fs::create_dir(&to).expect("a directory");
    run(&to, &format!("cp -r '{from}' cp && diff -r cp '{}'", local.display()));
    run(
        &to,
        &format!(
            "mkdir tar && tar -C '{from}' -cf - . | tar -C tar -xf - && diff -r tar '{}'",
            local.display()
        ),
    );
    run(&to, &format!("diff -r '{from}' '{}'", local.display()));
    if has("rsync") {
        run(&to, &format!("rsync -a '{from}/' rsync/ && diff -r rsync '{}'", local.display()));
        let again = run(&to, &format!("rsync -a --itemize-changes '{from}/' rsync/"));
        assert_eq!(again, "", "a second rsync finds nothing to do");
    } else {
        eprintln!("rsync is not installed: left out");
    }
}

#[test]
fn reading_tools_see_the_bytes() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let place = Place::new();
    tree(&bucket, &place.path().join("local"));
    let mount = Mount::new(&backend, &bucket);
    let local = place.path().join("local");
    for line in [
        "find . | sort",
        "find . -type f -size +1M | sort",
        "find . -type f -exec sha256sum {} + | sort",
        "grep -rlc . . | sort || true",
        "head -c 100 'file 8.bin' | sha256sum",
        "tail -c 100 'file 8.bin' | sha256sum",
        "tail -c +5000000 'docs/file 8.bin' | sha256sum",
        "dd if='file 8.bin' bs=1000 skip=3333 count=77 status=none | sha256sum",
        "cat docs/*.bin | sha256sum",
        "wc -c docs/*.bin",
        "stat -c '%n %s %F' 'file 0.bin' 'file 8.bin' 'docs/file 3.bin'",
        "du -ab --apparent-size 'docs/2025/deep er/file 8.bin'",
    ] {
        assert_eq!(mount.sh(line), run(&local, line), "{line}");
    }
}

#[test]
fn a_file_can_be_mapped_into_memory() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let program = fs::read("/bin/sh").expect("a program");
    bucket.put("bin/sh", program);
    let mount = Mount::with(&backend, &bucket, "--file-mode 755");
    // The kernel maps what it executes.
    assert_eq!(mount.sh("./bin/sh -c 'echo mapped'"), "mapped\n");
}

#[test]
fn a_file_can_be_sent_to_a_socket_by_the_kernel() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let bytes = body(3, 3 * (1 << 20) + 17);
    bucket.put("file", bytes.clone());
    let mount = Mount::new(&backend, &bucket);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let path = mount.at("file");
    let sender = std::thread::spawn(move || {
        let mut file = File::open(path).expect("open");
        let mut socket = TcpStream::connect(address).expect("connected");
        // Becomes sendfile(2) on Linux.
        io::copy(&mut file, &mut socket).expect("sent")
    });
    let mut received = Vec::new();
    listener.accept().expect("a peer").0.read_to_end(&mut received).expect("the bytes");
    assert_eq!(sender.join().expect("sender"), bytes.len() as u64);
    assert_eq!(sha256_hex(&received), sha256_hex(&bytes));
}

#[test]
fn an_empty_object_is_an_empty_file() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_with("empty", vec![], crate::common::Put::default());
    let mount = Mount::new(&backend, &bucket);
    assert_eq!(fs::metadata(mount.at("empty")).expect("stat").len(), 0);
    assert_eq!(mount.read("empty"), b"");
    assert_eq!(
        mount.sh("cat empty; tail -c 5 empty; sha256sum < empty"),
        format!("{}  -\n", sha256_hex(b""))
    );
}

#[test]
fn objects_of_terabytes_have_their_size_and_their_last_byte() {
    let backend = standin_only!("it stores no terabytes");
    let bucket = backend.bucket();
    let sizes = [("4g", (1_u64 << 32) + 5), ("5g", 5 << 30), ("5t", 5 << 40)];
    for (i, (key, size)) in sizes.into_iter().enumerate() {
        backend.standin().put_synthetic(&bucket.name, key, size, i as u64);
    }
    let mount = Mount::new(&backend, &bucket);
    for (i, (key, size)) in sizes.into_iter().enumerate() {
        let file = File::open(mount.at(key)).expect("open");
        let meta = file.metadata().expect("stat");
        assert_eq!((meta.len(), meta.blocks()), (size, size.div_ceil(512)));
        let edges = [0, (1 << 31) - 3, (1 << 32) - 7, size / 2 + 1, size - 100];
        for offset in edges.into_iter().filter(|offset| offset + 100 <= size) {
            let mut bytes = vec![0; 100];
            file.read_exact_at(&mut bytes, offset).expect("100 bytes");
            assert_eq!(bytes, supafs_standin::synthetic_bytes(i as u64, offset, 100), "{key} at {offset}");
        }
        assert_eq!(file.read_at(&mut [0; 10], size).expect("the end"), 0);
        assert_eq!(file.read_at(&mut [0; 10], size - 3).expect("the end"), 3);
        let tail = mount.sh(&format!("tail -c 1000 {key} | sha256sum | cut -c -64"));
        assert_eq!(tail.trim(), sha256_hex(&supafs_standin::synthetic_bytes(i as u64, size - 1000, 1000)));
    }
    assert_eq!(mount.sh("du -b 5t | cut -f 1").trim(), (5_u64 << 40).to_string());
}

#[test]
fn random_reads_give_the_bytes_at_their_offsets() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let bytes = body(11, 9 * (1 << 20) + 321);
    bucket.put("file", bytes.clone());
    let mount = Mount::with(&backend, &bucket, "--cache-memory 16MiB");
    let file = File::open(mount.at("file")).expect("open");
    let mut random = Random(42);
    for _ in 0..300 {
        let offset = usize::try_from(random.below(bytes.len() as u64)).expect("fits");
        let len = usize::try_from(1 + random.below(300_000)).expect("fits");
        let mut buffer = vec![0; len];
        let mut read = 0;
        while read < len {
            match file.read_at(&mut buffer[read..], (offset + read) as u64).expect("read") {
                0 => break,
                n => read += n,
            }
        }
        let wanted = &bytes[offset..(offset + len).min(bytes.len())];
        assert!(&buffer[..read] == wanted, "{len} bytes at {offset}");
    }
}

#[test]
fn several_readers_of_one_file_and_of_several_do_not_disturb_each_other() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let bodies: Vec<_> =
        (0..4).map(|i| body(i, 6 * (1 << 20) + usize::try_from(i).expect("small"))).collect();
    for (i, bytes) in bodies.iter().enumerate() {
        bucket.put(&format!("f{i}"), bytes.clone());
    }
    let mount = Mount::new(&backend, &bucket);
    std::thread::scope(|scope| {
        for reader in 0..12 {
            let (mount, bodies) = (&mount, &bodies);
            scope.spawn(move || {
                let which = if reader < 6 { 0 } else { reader % 4 };
                let read = mount.read(&format!("f{which}"));
                assert!(read == bodies[which], "reader {reader} of f{which}");
            });
        }
    });
}

#[test]
fn every_change_is_refused_with_erofs() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["file", "dir/inside"]);
    for args in ["--read-only", "-o ro"] {
        let mount = Mount::with(&backend, &bucket, args);
        for (what, result) in changes(&mount) {
            let error = result.expect_err(what).raw_os_error().map(Errno::from_raw);
            assert_eq!(error, Some(Errno::EROFS), "{what} with {args:?}");
        }
        // Not by way of a shell that creates, nor by a tool that ignores errors.
        let touch = Command::new("touch").arg(mount.at("new")).output().expect("touch");
        assert!(!touch.status.success());
        assert_eq!(mount.files(), ["dir/inside", "file"]);
        assert_eq!(mount.read("file"), b"file");
    }
    assert_eq!(bucket.keys(), ["dir/inside", "file"]);
}

fn changes(mount: &Mount) -> Vec<(&'static str, io::Result<()>)> {
    use nix::sys::stat::{Mode, SFlag, mknod, utimes};
    use nix::sys::time::TimeVal;
    use nix::unistd::{Gid, Uid, chown, linkat, mkfifo, symlinkat, truncate};
    let at = |path: &str| mount.at(path);
    let open = |options: &mut OpenOptions, path| options.open(path).map(drop);
    let errno = |result: nix::Result<()>| result.map_err(io::Error::from);
    let cwd = nix::fcntl::AT_FDCWD;
    let time = TimeVal::new(1_000_000, 0);
    vec![
        ("create", File::create_new(at("new")).map(drop)),
        ("open for writing", open(OpenOptions::new().write(true), at("file"))),
        ("open for appending", open(OpenOptions::new().append(true), at("file"))),
        ("open for both", open(OpenOptions::new().read(true).write(true), at("file"))),
        ("open with truncation", open(OpenOptions::new().write(true).truncate(true), at("file"))),
        ("mkdir", fs::create_dir(at("newdir"))),
        ("unlink", fs::remove_file(at("file"))),
        ("rmdir", fs::remove_dir(at("dir"))),
        ("rename", fs::rename(at("file"), at("file2"))),
        ("rename over", fs::rename(at("file"), at("dir/inside"))),
        ("truncate", errno(truncate(&at("file"), 0))),
        ("chmod", fs::set_permissions(at("file"), fs::Permissions::from_mode(0o600))),
        ("chown", errno(chown(&at("file"), Some(Uid::from_raw(1)), Some(Gid::from_raw(1))))),
        ("utimes", errno(utimes(&at("file"), &time, &time))),
        ("symlink", errno(symlinkat("file", cwd, &at("link")))),
        ("link", errno(linkat(cwd, &at("file"), cwd, &at("hard"), nix::fcntl::AtFlags::empty()))),
        ("mkfifo", errno(mkfifo(&at("fifo"), Mode::S_IRUSR))),
        ("mknod", errno(mknod(&at("node"), SFlag::S_IFREG, Mode::S_IRUSR, 0))),
        ("setxattr", setxattr(&at("file"))),
    ]
}

/// By the tool: its words are all there is to see of the errno.
fn setxattr(path: &Path) -> io::Result<()> {
    let output =
        Command::new("setfattr").args(["-n", "user.x", "-v", "y"]).arg(path).env("LC_ALL", "C").output()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.success() {
        true => Ok(()),
        false if text.contains("Read-only file system") => Err(io::Error::from(Errno::EROFS)),
        false => Err(io::Error::other(text)),
    }
}

#[test]
fn du_counts_what_objects_hold() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put("a/one", body(1, 1000));
    bucket.put("a/two", body(2, 100_000));
    bucket.put_with("a/none", vec![], crate::common::Put::default());
    let mount = Mount::new(&backend, &bucket);
    assert_eq!(mount.sh("stat -c '%b %B' a/one a/two a/none"), "2 512\n196 512\n0 512\n");
    assert_eq!(mount.sh("du -B 512 a/one a/two a/none"), "2\ta/one\n196\ta/two\n0\ta/none\n");
    assert_eq!(mount.sh("du -s -B 512 . | cut -f 1"), "198\n");
    assert_eq!(mount.sh("find . -type f -printf '%s\\n' | sort -n"), "0\n1000\n100000\n");
}

#[test]
fn the_file_system_has_room_and_a_name_length() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["file"]);
    let mount = Mount::new(&backend, &bucket);
    assert_eq!(mount.sh("stat -f -c '%l' ."), "255\n");
    let free: u64 = mount.sh("df --output=avail . | tail -1").trim().parse().expect("a number");
    assert!(free > 1 << 30, "{free} KiB");
    let source = mount.sh("df --output=source,fstype . | tail -1");
    assert_eq!(source.split_whitespace().collect::<Vec<_>>(), [bucket.name.as_str(), "fuse.supafs"]);
}

#[test]
fn modes_and_owners_come_from_the_options() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["dir/file"]);
    let show = "stat -c '%a %u %g %F' . dir dir/file";
    let mount = Mount::new(&backend, &bucket);
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    assert_eq!(
        mount.sh(show),
        format!("755 {uid} {gid} directory\n755 {uid} {gid} directory\n644 {uid} {gid} regular file\n")
    );
    let table = fs::read_to_string("/proc/mounts").expect("the table");
    let path = mount.path.to_str().expect("text").to_owned();
    let line = table.lines().find(|line| line.contains(&path)).expect("it is mounted").to_owned();
    for option in ["nosuid", "nodev", "default_permissions"] {
        assert!(line.contains(option), "{line}");
    }
    drop(mount);
    let mount = Mount::with(&backend, &bucket, "--uid 1234 --gid 4321 --file-mode 440 --dir-mode 550");
    assert_eq!(
        mount.sh(show),
        "550 1234 4321 directory\n550 1234 4321 directory\n440 1234 4321 regular file\n"
    );
}

#[test]
fn times_are_those_of_the_objects() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let before = now();
    bucket.put_keys(["plain"]);
    let metadata = BTreeMap::from([("mtime".to_owned(), "1600000000.123456789".to_owned())]);
    bucket.put_with("kept", "old", crate::common::Put { metadata, ..crate::common::Put::default() });
    let after = now();
    let mount = Mount::with(&backend, &bucket, "--metadata-ttl 1h");
    let plain = fs::metadata(mount.at("plain")).expect("stat");
    assert!((before - 2..=after + 2).contains(&plain.mtime()), "{before} {} {after}", plain.mtime());
    // What another tool stored as `mtime` is known once the object was read.
    mount.read("kept");
    crate::common::eventually("the stored time", || {
        mount.drop_kernel_caches();
        let kept = fs::metadata(mount.at("kept")).expect("stat");
        (kept.mtime() == 1_600_000_000 && kept.mtime_nsec() == 123_456_789).then_some(())
    });
}

fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_secs()).expect("fits")
}

#[test]
fn inode_numbers_are_stable_and_differ() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["a", "b", "dir/a"]);
    let mount = Mount::with(&backend, &bucket, "--metadata-ttl 200ms");
    let numbers = || ["a", "b", "dir", "dir/a", ""].map(|path| ino(&mount.at(path)));
    let _held = (File::open(mount.at("a")), File::open(mount.at("b")), File::open(mount.at("dir/a")));
    let first = numbers();
    let mut distinct = first.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), first.len());
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(numbers(), first, "after the time to live");
}

#[test]
fn a_folder_can_be_mounted_by_itself() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["top", "docs/a", "docs/2025/b", "docs-other/c"]);
    for target in ["docs", "docs/"] {
        let mount = MountOptions::new(&backend, &format!("{}/{target}", bucket.name)).start();
        assert_eq!(mount.files(), ["2025/b", "a"]);
        assert_eq!(mount.read("2025/b"), b"docs/2025/b");
    }
}

#[test]
fn what_is_not_there_is_enoent_and_a_file_is_no_directory() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["file", "dir/inside"]);
    let mount = Mount::new(&backend, &bucket);
    let errno =
        |path: &str| fs::metadata(mount.at(path)).expect_err(path).raw_os_error().map(Errno::from_raw);
    assert_eq!(errno("nothing"), Some(Errno::ENOENT));
    assert_eq!(errno("dir/nothing"), Some(Errno::ENOENT));
    assert_eq!(errno("no/such/dir"), Some(Errno::ENOENT));
    assert_eq!(errno("file/inside"), Some(Errno::ENOTDIR));
    assert_eq!(errno(&"x".repeat(256)), Some(Errno::ENAMETOOLONG));
    assert_eq!(errno(&"x".repeat(255)), Some(Errno::ENOENT));
    let read = File::open(mount.at("dir")).and_then(|mut dir| dir.read(&mut [0; 1]));
    assert_eq!(read.expect_err("a directory").raw_os_error(), Some(Errno::EISDIR as i32));
    let list = fs::read_dir(mount.at("file")).expect_err("a file").raw_os_error();
    assert_eq!(list, Some(Errno::ENOTDIR as i32));
}

#[test]
fn a_new_object_shows_after_the_time_to_live_and_a_deleted_one_is_gone() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["one"]);
    let mount = Mount::with(&backend, &bucket, "--metadata-ttl 100ms --negative-ttl 100ms");
    assert_eq!(mount.names(""), ["one"]);
    assert!(!mount.at("two").exists());
    bucket.put_keys(["two", "new/three"]);
    crate::common::eventually("the new objects", || (mount.names("") == ["new", "one", "two"]).then_some(()));
    assert_eq!(mount.read("new/three"), b"new/three");
    bucket.delete("one");
    bucket.delete("new/three");
    crate::common::eventually("their end", || (mount.names("") == ["two"]).then_some(()));
    crate::common::eventually("a stat that says so", || (!mount.at("one").exists()).then_some(()));
    crate::common::eventually("a stat that says so", || (!mount.at("new").exists()).then_some(()));
}
