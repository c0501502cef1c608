//! Times, modes, owners and links: kept as user metadata, in the form that s3fs and rclone use, and across remounts.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use crate::common::{Backend, Bucket, Mount, MountOptions, Ops, Place, Put, eventually, run, spent};
use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, mknod};

/// Keeps what the mount knows for the whole test.
const LONG: &str = "--metadata-ttl 1h --negative-ttl 1h";

/// Follows changes at once.
const QUICK: &str = "--metadata-ttl 100ms --negative-ttl 100ms";

/// A home that outlives a mount, so that the next one finds what was remembered.
struct Home(Place, String);

impl Home {
    fn new() -> Self {
        let place = Place::new();
        let state = place.path().join("state").display().to_string();
        Self(place, state)
    }

    fn mount(&self, backend: &Backend, bucket: &Bucket<'_>, args: &str) -> Mount {
        assert!(self.0.path().exists());
        MountOptions::new(backend, &bucket.name).args(args).env("XDG_STATE_HOME", &self.1).start()
    }
}

fn metadata(bucket: &Bucket<'_>, key: &str) -> std::collections::BTreeMap<String, String> {
    bucket.headers(key).expect("the object is there").metadata
}

/// Waits until a metadata entry has this value, for what is saved a moment later.
fn await_entry(bucket: &Bucket<'_>, key: &str, name: &str, value: &str) {
    eventually(&format!("{name} of {key} to be {value}"), || {
        (metadata(bucket, key).get(name).map(String::as_str) == Some(value)).then_some(())
    });
}

fn set_mtime(path: &Path, seconds: u64, nanos: u32) {
    let time = UNIX_EPOCH + Duration::new(seconds, nanos);
    let file = File::options().write(true).open(path).expect("open");
    file.set_times(FileTimes::new().set_modified(time)).expect("utimens");
}

/// Everything that `stat` shows and a tool compares.
fn shown(path: &Path) -> (u32, u32, u32, i64, i64) {
    let stat = fs::symlink_metadata(path).expect("stat");
    (stat.mode() & 0o7777, stat.uid(), stat.gid(), stat.mtime(), stat.mtime_nsec())
}

#[test]
fn attributes_are_kept_as_s3fs_and_rclone_write_them() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_with("file", "content", Put { content_type: Some("a/b".to_owned()), ..Put::default() });
    let (home, path) = (Home::new(), "file");
    let mount = home.mount(&backend, &bucket, LONG);
    let at = mount.at(path);
    fs::set_permissions(&at, fs::Permissions::from_mode(0o640)).expect("chmod");
    chown(&at, Some(1234), Some(5678)).expect("chown");
    set_mtime(&at, 1_600_000_000, 123_456_789);
    let wanted = (0o640, 1234, 5678, 1_600_000_000, 123_456_789);
    assert_eq!(shown(&at), wanted, "at once");
    await_entry(&bucket, path, "mtime", "1600000000.123456789");
    await_entry(&bucket, path, "gid", "5678");
    let stored = metadata(&bucket, path);
    assert_eq!(stored["mode"], (0o100_640).to_string());
    assert_eq!(stored["uid"], "1234");
    assert_eq!(bucket.bytes(path).as_deref(), Some(&b"content"[..]));
    assert_eq!(bucket.headers(path).and_then(|now| now.content_type).as_deref(), Some("a/b"));
    mount.stop();
    // Across a remount, and without a HEAD.
    let mount = home.mount(&backend, &bucket, LONG);
    let used = spent(&backend, &mount, || {
        mount.sh("ls -lR > /dev/null");
        assert_eq!(shown(&mount.at(path)), wanted, "after a remount");
    });
    assert_eq!(used, Ops::of([("ListObjectsV2", 1)]));
    // Another machine learns them when it reads the file.
    let mount = Mount::with(&backend, &bucket, QUICK);
    mount.read(path);
    eventually("the attributes of a file that was read", || (shown(&mount.at(path)) == wanted).then_some(()));
}

#[test]
fn what_others_stored_is_read_in_their_forms() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    for (key, mode) in [("s3fs", "33261"), ("rclone", "0100640"), ("short", "600"), ("setuid", "35309")] {
        let entries = [("mode", mode), ("uid", "7"), ("gid", "8"), ("mtime", "1500000000.5")];
        let metadata = entries.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        bucket.put_with(key, key, Put { metadata, ..Put::default() });
    }
    let mount = Mount::with(&backend, &bucket, QUICK);
    for (key, mode) in [("s3fs", 0o755), ("rclone", 0o640), ("short", 0o600), ("setuid", 0o4755)] {
        mount.read(key);
        let wanted = (mode, 7, 8, 1_500_000_000, 500_000_000);
        eventually(key, || (shown(&mount.at(key)) == wanted).then_some(()));
    }
    // A set-user-id bit is shown, and never honoured.
    let options = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let ours = options.lines().find(|line| line.contains(&*mount.path.to_string_lossy())).expect("ours");
    assert!(ours.contains("nosuid") && ours.contains("nodev"), "{ours}");
}

#[test]
fn modes_are_enforced_by_the_kernel() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let options = MountOptions::new(&backend, &bucket.name).args(LONG).args("--allow-other");
    let Ok(mount) = options.try_start() else {
        eprintln!("skipped: user_allow_other is not set in /etc/fuse.conf");
        return;
    };
    mount.sh("chmod 755 ..");
    mount.sh("echo secret > mine; chmod 600 mine; echo open > shared; chmod 644 shared; chmod 1777 .");
    let nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups";
    if nix::unistd::geteuid().is_root() {
        mount.sh(&format!("! {nobody} cat mine 2> /dev/null; {nobody} cat shared > /dev/null"));
        mount.sh(&format!(
            "! {nobody} sh -c 'echo x > shared' 2> /dev/null; ! {nobody} rm shared 2> /dev/null"
        ));
        mount.sh(&format!("{nobody} sh -c 'echo theirs > theirs'"));
        assert_eq!(mount.sh("stat -c %u theirs"), "65534\n");
        assert_eq!(metadata(&bucket, "theirs")["uid"], "65534");
    }
}

#[test]
fn a_touch_by_another_client_is_seen() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let home = Home::new();
    let mount = home.mount(&backend, &bucket, QUICK);
    fs::write(mount.at("file"), b"same").expect("write");
    set_mtime(&mount.at("file"), 1_500_000_000, 0);
    await_entry(&bucket, "file", "mtime", "1500000000.000000000");
    // Our own write is bound to the time of the first listing after it.
    eventually("a listing", || {
        mount.names("");
        (shown(&mount.at("file")).3 == 1_500_000_000).then_some(())
    });
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(mount.names(""), ["file"]);
    assert_eq!(shown(&mount.at("file")).3, 1_500_000_000);
    bucket.put("file", "same");
    eventually("the server's time", || {
        mount.names("");
        (shown(&mount.at("file")).3 > 1_600_000_000).then_some(())
    });
    mount.stop();
    let mount = home.mount(&backend, &bucket, QUICK);
    assert!(shown(&mount.at("file")).3 > 1_600_000_000, "nor is it forgotten by a remount");
}

#[test]
fn copies_keep_their_attributes_and_rsync_has_nothing_to_do_again() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let home = Home::new();
    let source = home.0.path().join("source");
    fs::create_dir_all(source.join("sub")).expect("a local folder");
    for (name, mode) in [("one.txt", 0o644), ("two.sh", 0o755), ("sub/three", 0o600)] {
        fs::write(source.join(name), name).expect("a local file");
        fs::set_permissions(source.join(name), fs::Permissions::from_mode(mode)).expect("chmod");
        set_mtime(&source.join(name), 1_400_000_000, 7);
    }
    symlink("one.txt", source.join("link")).expect("a link");
    let from = source.display().to_string();
    run(&source, "touch -h -d 2002-03-04 sub link .");
    let mount = home.mount(&backend, &bucket, LONG);
    mount.sh(&format!("cp -p {from}/two.sh copied"));
    assert_eq!(shown(&mount.at("copied")), shown(&source.join("two.sh")));
    mount.sh(&format!("rsync -a {from}/ tree/"));
    // Times of the link and of folders are set after these are there, which costs a request each a moment later.
    eventually("what was set to be saved", || {
        let status = mount.status();
        (status["drafts"] == 0 && status["waiting"] == 0).then_some(())
    });
    let again = format!("rsync -ai {from}/ tree/");
    let used = spent(&backend, &mount, || assert_eq!(mount.sh(&again), "", "the second time"));
    assert_eq!(used.get("PutObject") + used.get("CopyObject") + used.get("HeadObject"), 0, "{used:?}");
    mount.stop();
    for args in [LONG, QUICK] {
        let mount = home.mount(&backend, &bucket, args);
        let used = spent(&backend, &mount, || assert_eq!(mount.sh(&again), "", "after a remount"));
        // The link's target is read; nothing else moves.
        assert_eq!(used.get("PutObject") + used.get("CopyObject") + used.get("HeadObject"), 0, "{used:?}");
        assert!(used.get("GetObject") <= 1, "{used:?}");
        for name in ["one.txt", "two.sh", "sub/three", "sub", "link"] {
            assert_eq!(shown(&mount.at("tree").join(name)), shown(&source.join(name)), "{name}");
        }
        mount.stop();
    }
}

#[test]
fn links_survive_a_remount_and_stand_beside_files_of_their_kind() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put("theirs.rclonelink", "../some/where");
    bucket.put_keys(["both", "both.rclonelink"]);
    let home = Home::new();
    let mount = home.mount(&backend, &bucket, QUICK);
    symlink("target é", mount.at("mine")).expect("symlink");
    assert_eq!(
        Errno::from_raw(symlink("x", mount.at("mine")).expect_err("taken").raw_os_error().expect("one")),
        Errno::EEXIST
    );
    assert_eq!(bucket.bytes("mine.rclonelink").as_deref(), Some("target é".as_bytes()));
    // Times of the link itself.
    mount.sh("touch -h -d 2001-02-03 mine");
    assert_eq!(mount.sh("stat -c '%F %y' mine")[..24], *"symbolic link 2001-02-03");
    await_link_time(&bucket);
    mount.stop();
    let mount = home.mount(&backend, &bucket, QUICK);
    assert_eq!(mount.names(""), ["both", "both.rclonelink", "mine", "theirs"]);
    assert_eq!(fs::read_link(mount.at("mine")).expect("readlink"), Path::new("target é"));
    assert_eq!(mount.sh("stat -c '%F %y' mine")[..24], *"symbolic link 2001-02-03");
    assert_eq!(fs::read_link(mount.at("theirs")).expect("readlink"), Path::new("../some/where"));
    assert_eq!(mount.read("both"), b"both");
    assert_eq!(mount.read("both.rclonelink"), b"both.rclonelink");
    fs::rename(mount.at("mine"), mount.at("moved")).expect("rename");
    assert_eq!(fs::read_link(mount.at("moved")).expect("readlink"), Path::new("target é"));
    fs::remove_file(mount.at("moved")).expect("unlink");
    fs::remove_file(mount.at("both.rclonelink")).expect("unlink");
    assert_eq!(bucket.keys(), ["both", "theirs.rclonelink"]);
}

fn await_link_time(bucket: &Bucket<'_>) {
    eventually("the link's time", || {
        let mtime = metadata(bucket, "mine.rclonelink").get("mtime").cloned()?;
        mtime.starts_with("9811").then_some(())
    });
}

#[test]
fn hard_links_and_devices_are_eperm() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["file"]);
    let mount = Mount::with(&backend, &bucket, LONG);
    let refused = fs::hard_link(mount.at("file"), mount.at("other")).expect_err("no hard links");
    assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
    for kind in [SFlag::S_IFCHR, SFlag::S_IFBLK] {
        assert_eq!(mknod(&mount.at("node"), kind, Mode::S_IRWXU, 0), Err(Errno::EPERM), "{kind:?}");
    }
    mknod(&mount.at("regular"), SFlag::S_IFREG, Mode::S_IRWXU, 0).expect("a regular file");
    assert_eq!(bucket.keys(), ["file", "regular"]);
    assert_eq!(metadata(&bucket, "regular")["mode"], (0o100_700).to_string());
}

#[test]
fn times_before_the_epoch_are_exact_and_those_beyond_2262_refused() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let home = Home::new();
    let mount = home.mount(&backend, &bucket, LONG);
    fs::create_dir(mount.at("dir")).expect("mkdir");
    fs::write(mount.at("file"), b"x").expect("write");
    let times = "0 500000000;-1 500000000;-2 500000000;-1 999999999;-1 0;-2 1;1 1";
    for name in ["file", "dir"] {
        for time in times.split(';') {
            let pair = time.replace(' ', ", ");
            let set = format!(
                "python3 -c \"import os; t = ({pair}); ns = t[0] * 10**9 + t[1]; os.utime('{name}', ns=(ns, ns)); \
                 stat = os.stat('{name}'); print(stat.st_mtime_ns - ns, stat.st_atime_ns - ns)\""
            );
            assert_eq!(mount.sh(&set), "0 0\n", "{name} {time}");
        }
    }
    fs::write(mount.at("half"), b"x").expect("write");
    mount.sh("touch -d '1969-12-31 23:59:59.5 UTC' half");
    await_entry(&bucket, "half", "mtime", "-0.500000000");
    let refused = mount.sh("! touch -d '2300-01-01' half 2>&1");
    assert!(refused.contains("Invalid argument"), "{refused}");
    mount.stop();
    let mount = home.mount(&backend, &bucket, LONG);
    assert_eq!(mount.sh("stat -c %.9Y half file"), "-0.500000000\n1.000000001\n");
}

#[test]
fn a_write_moves_mtime_and_ctime_and_leaves_atime() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["file", "dir/inside"]);
    let mount = Mount::with(&backend, &bucket, LONG);
    let times = |path: &str| {
        let stat = fs::metadata(mount.at(path)).expect("stat");
        let nanos = |seconds: i64, nanos: i64| seconds * 1_000_000_000 + nanos;
        let (atime, mtime) = (nanos(stat.atime(), stat.atime_nsec()), nanos(stat.mtime(), stat.mtime_nsec()));
        (atime, mtime, nanos(stat.ctime(), stat.ctime_nsec()))
    };
    fs::write(mount.at("new"), b"new").expect("write");
    for (path, change) in [
        ("file", "echo more >> file"),
        ("new", "echo more >> new"),
        ("new", "truncate -s 1 new"),
        ("file", "touch -m -d 2040-01-01 file"),
        ("dir", "echo x > dir/other"),
        ("dir", "rm dir/other"),
        ("dir", "touch -m -d 2040-01-01 dir"),
    ] {
        let before = times(path);
        std::thread::sleep(Duration::from_millis(20));
        mount.sh(change);
        let after = times(path);
        assert_eq!(after.0, before.0, "{change}: atime");
        assert!(after.1 > before.1 && after.2 > before.2, "{change}: {before:?} {after:?}");
    }
}

#[test]
fn a_large_file_that_is_moved_keeps_its_time_and_type_for_others() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let mount = Mount::with(&backend, &bucket, LONG);
    mount.sh("mkdir d");
    for name in ["known", "d/inside", "remounted", "r/inside"] {
        mount.sh(&format!("mkdir -p r; head -c 20000000 /dev/urandom > {name}"));
        assert!(!metadata(&bucket, name).contains_key("mtime"), "others see the server's time");
        let kind = bucket.headers(name).and_then(|now| now.content_type);
        assert_eq!(kind.as_deref(), Some("application/octet-stream"), "as a small one has");
    }
    let other = Mount::with(&backend, &bucket, LONG);
    let [known, inside, remounted, inside_remounted] =
        ["known", "d/inside", "remounted", "r/inside"].map(|path| {
            other.read(path);
            shown(&other.at(path)).3
        });
    other.stop();
    std::thread::sleep(Duration::from_millis(2100));
    mount.sh("mv known moved; mv d e");
    mount.stop();
    let mount = Mount::with(&backend, &bucket, LONG);
    mount.sh("mv remounted again; mv r s");
    for (name, before) in
        [("moved", known), ("e/inside", inside), ("again", remounted), ("s/inside", inside_remounted)]
    {
        let stored = metadata(&bucket, name);
        let seconds: i64 = stored["mtime"].split('.').next().expect("seconds").parse().expect("a number");
        assert!((seconds - before).abs() <= 1, "{name}: {seconds} {before}");
        // A listing tells no time of the file's own; reading the file does.
        mount.read(name);
        assert_eq!(shown(&mount.at(name)).3, seconds, "{name}");
    }
}
