//! How many requests a change costs: one test for each row of the table, in a directory that was listed.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, chown};
use std::time::Duration;

use crate::common::{Backend, Bucket, Mount, MountOptions, Ops, body, eventually, sha256_hex, spent};
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, futimens, utimensat};
use nix::sys::time::TimeSpec;
use supafs_standin::{Fault, LogEntry, synthetic_bytes};

const MIB: u64 = 1 << 20;

/// Keeps what the mount knows for the whole test.
const LONG: &str = "--metadata-ttl 1h --negative-ttl 1h";

fn mounted(backend: &Backend, bucket: &Bucket<'_>, args: &str) -> Mount {
    let mount = MountOptions::new(backend, &bucket.name)
        .args(LONG)
        .args(args)
        .watchdog(Duration::from_secs(170))
        .start();
    mount.names("");
    mount
}

/// What the stand-in was asked for by this name.
fn logged(backend: &Backend, operation: &str) -> Vec<LogEntry> {
    backend.standin().log().into_iter().filter(|entry| entry.operation == operation).collect()
}

#[test]
fn a_small_file_costs_one_put() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["dir/one"]);
    let mount = mounted(&backend, &bucket, "");
    mount.names("dir");
    for (name, size) in [("empty", 0), ("dir/small", 5000), ("dir/large.bin", 8 * MIB)] {
        let bytes = body(1, usize::try_from(size).expect("fits"));
        let used = spent(&backend, &mount, || fs::write(mount.at(name), &bytes).expect("write"));
        assert_eq!(used, Ops::of([("PutObject", 1)]), "{name}");
        assert!(bucket.bytes(name) == Some(bytes));
    }
    // Each further close of a descriptor after a change is a PUT more; one without a change costs nothing.
    let used = spent(&backend, &mount, || {
        let file = File::create(mount.at("twice")).expect("create");
        file.write_all_at(b"one", 0).expect("write");
        drop(file.try_clone().expect("dup"));
        file.write_all_at(b"two", 0).expect("write");
        drop(file.try_clone().expect("dup"));
        drop(file.try_clone().expect("dup"));
        file.sync_all().expect("fsync");
    });
    assert_eq!(used, Ops::of([("PutObject", 2)]));
    assert_eq!(bucket.bytes("twice").as_deref(), Some(&b"two"[..]));
    let used =
        spent(&backend, &mount, || drop(mount.sh("cat dir/small dir/large.bin twice > /dev/null; ls -lR")));
    assert_eq!(used.get("HeadObject"), 0, "{used:?}");
}

#[test]
fn what_was_written_here_is_read_and_changed_again_without_a_fetch() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put("log", "line 0\n");
    let mount = mounted(&backend, &bucket, "");
    let append = |line: u32| {
        let mut file = OpenOptions::new().append(true).open(mount.at("log")).expect("open");
        writeln!(file, "line {line}").expect("append");
    };
    append(1);
    let used = spent(&backend, &mount, || (2..12).for_each(append));
    assert_eq!((used.get("PutObject"), used.get("GetObject")), (10, 0), "{used:?}");
    let lines = (0..12).map(|line| format!("line {line}\n")).collect::<Vec<_>>().concat();
    assert_eq!(bucket.bytes("log").expect("stored"), lines.into_bytes());
    let mut bytes = body(2, 1_500_000);
    fs::write(mount.at("pack"), &bytes).expect("written");
    let used = spent(&backend, &mount, || {
        assert!(mount.read("pack") == bytes);
        let file = OpenOptions::new().write(true).open(mount.at("pack")).expect("open");
        file.write_all_at(b"changed", 700_000).expect("write");
    });
    assert_eq!(used.get("GetObject"), 0, "{used:?}");
    bytes[700_000..700_007].copy_from_slice(b"changed");
    assert!(bucket.bytes("pack") == Some(bytes));
}

#[test]
fn what_is_set_on_a_folder_costs_one_put_a_moment_later() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let mount = mounted(&backend, &bucket, "");
    fs::create_dir(mount.at("dir")).expect("mkdir");
    let metadata = |key: &str| bucket.headers(key).expect("made").metadata;
    let used = spent(&backend, &mount, || {
        mount.sh("chmod 700 dir; touch -d 2001-02-03T04:05:06Z dir; chmod 750 dir");
        eventually("what was set", || {
            let stored = metadata("dir/.emptyFolderPlaceholder");
            (stored.get("mode").map(String::as_str) == Some("16872")).then_some(())
        });
    });
    assert_eq!(used.get("PutObject"), 1, "{used:?}");
    assert!(metadata("dir/.emptyFolderPlaceholder")["mtime"].starts_with("981173106"));
}

#[test]
fn a_tree_costs_one_put_for_each_file_and_folder_with_write_back() {
    let backend = standin_only!("requests of an unmount are counted");
    let bucket = backend.bucket();
    let mount = mounted(&backend, &bucket, "--write-back --write-back-delay 1h");
    let used = spent(&backend, &mount, || {
        mount.sh("mkdir -p a/b gone; echo 1 > a/b/f; chmod 700 a a/b; touch -d 2001-02-03 a a/b; rmdir gone");
    });
    assert_eq!(used.get("PutObject") + used.get("DeleteObject"), 0, "nothing waits: {used:?}");
    let before = backend.standin().count("PutObject");
    mount.stop();
    assert_eq!(backend.standin().count("PutObject") - before, 3);
    let folder = |key: &str| format!("{key}/.emptyFolderPlaceholder");
    assert_eq!(bucket.keys(), [folder("a"), folder("a/b"), "a/b/f".to_owned()]);
    assert_eq!(bucket.headers(&folder("a/b")).expect("made").metadata["mode"], "16832");
}

#[test]
fn a_close_after_which_the_writer_goes_on_costs_nothing() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put("over", "what was there");
    let mount = mounted(&backend, &bucket, "");
    mount.names("");
    // A shell opens the file, makes it its output, and closes the first descriptor.
    for (command, key, bytes) in [
        ("echo new > shell", "shell", "new\n"),
        ("printf %s again > over", "over", "again"),
        ("seq 3 | dd of=dd status=none", "dd", "1\n2\n3\n"),
        ("exec 7> held; echo a >&7; sh -c 'echo b' >&7; exec 7>&-", "held", "a\nb\n"),
    ] {
        let used = spent(&backend, &mount, || drop(mount.sh(command)));
        let writers = if key == "held" { 2 } else { 1 };
        assert_eq!(used.get("PutObject"), writers, "{command}: {used:?}");
        assert_eq!(bucket.bytes(key).as_deref(), Some(bytes.as_bytes()), "{command}");
    }
    // Two opens are two writers, and each close is told.
    let open =
        || File::options().write(true).create(true).truncate(false).open(mount.at("both")).expect("open");
    let (first, second) = (open(), open());
    let used = spent(&backend, &mount, || drop(first));
    assert_eq!(used.get("PutObject"), 1, "{used:?}");
    assert_eq!(bucket.bytes("both").as_deref(), Some(&b""[..]));
    drop(second);
    // A child that starts another program closes its copies; the file is half written.
    let mut file = File::create(mount.at("parent")).expect("create");
    let used = spent(&backend, &mount, || {
        std::io::Write::write_all(&mut file, b"half").expect("write");
        mount.sh("true");
    });
    assert_eq!(used, Ops::default(), "the child's close is not the writer's");
    assert_eq!(bucket.bytes("parent"), None);
    let used = spent(&backend, &mount, || {
        std::io::Write::write_all(&mut file, b" whole").expect("write");
        drop(file);
    });
    assert_eq!(used, Ops::of([("PutObject", 1)]));
    assert_eq!(bucket.bytes("parent").as_deref(), Some(&b"half whole"[..]));
}

#[test]
fn what_only_a_stranger_closed_last_is_uploaded_too() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let mount = mounted(&backend, &bucket, "");
    // The child holds the last descriptor, and neither opened the file nor wrote to it.
    let half = "exec 7> late; sleep 0.3 & echo first >&7; exec 7>&-; wait";
    mount.sh(half);
    eventually("the file in the bucket", || (bucket.bytes("late")? == b"first\n").then_some(()));
}

#[test]
fn sixteen_files_are_sent_at_once() {
    let backend = standin_only!("it tells how many requests were in flight");
    let bucket = backend.bucket();
    let mount = mounted(&backend, &bucket, "");
    backend.standin().set_latency(Duration::from_secs(1));
    let used = spent(&backend, &mount, || {
        std::thread::scope(|scope| {
            for number in 0..16 {
                let path = mount.at(&format!("file{number}"));
                scope.spawn(move || fs::write(path, b"at once").expect("write"));
            }
        });
    });
    backend.standin().set_latency(Duration::ZERO);
    assert_eq!(used, Ops::of([("PutObject", 16)]));
    assert_eq!(backend.standin().peak_of("PutObject"), 16);
}

#[test]
fn what_an_append_needs_is_asked_for_at_once() {
    let backend = standin_only!("it tells how many requests were in flight");
    let bucket = backend.bucket();
    bucket.put("log", "first\n");
    let mount = mounted(&backend, &bucket, "");
    backend.standin().clear_log();
    backend.standin().set_latency(Duration::from_millis(300));
    let used = spent(&backend, &mount, || drop(mount.sh("echo second >> log")));
    backend.standin().set_latency(Duration::ZERO);
    assert_eq!(used, Ops::of([("HeadObject", 1), ("GetObject", 1), ("PutObject", 1)]));
    assert_eq!(backend.standin().peak_in_flight(), 2, "one after the other");
    assert_eq!(bucket.bytes("log").as_deref(), Some(b"first\nsecond\n".as_slice()));
}

#[test]
fn what_an_append_needs_and_cannot_have_is_asked_for_once() {
    let backend = standin_only!("the server refuses");
    let bucket = backend.bucket();
    bucket.put("log", "first\n");
    let mount = mounted(&backend, &bucket, "");
    backend.fault(Fault::status(403, "AccessDenied").on("GetObject"));
    let mut file = OpenOptions::new().append(true).open(mount.at("log")).expect("open");
    let used = spent(&backend, &mount, || {
        file.write_all(b"second\n").expect("into the spool");
        let error = file.sync_all().expect_err("there is nothing to append to");
        assert_eq!(error.raw_os_error(), Some(libc::EACCES));
    });
    assert_eq!((used.get("GetObject"), used.get("PutObject")), (1, 0), "{used:?}");
    assert_eq!(bucket.bytes("log").as_deref(), Some(b"first\n".as_slice()));
}

#[test]
fn a_large_file_is_sent_while_it_is_written() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let size = if backend.is_real() { 64 * MIB } else { 200 * MIB } + 12_345;
    let mount = mounted(&backend, &bucket, "");
    let piece = usize::try_from(MIB).expect("fits");
    let used = spent(&backend, &mount, || {
        let mut file = File::create(mount.at("file")).expect("create");
        let mut at = 0;
        while at < size {
            let len = piece.min(usize::try_from(size - at).expect("fits"));
            file.write_all(&synthetic_bytes(5, at, len)).expect("write");
            at += len as u64;
        }
        if !backend.is_real() {
            // All but the last parts go up with no close in sight.
            let whole = size / (8 * MIB) - 2;
            eventually("the parts that were written", || {
                let sent = logged(&backend, "UploadPart").iter().filter(|part| part.finished).count() as u64;
                (sent >= whole).then_some(())
            });
            assert!(logged(&backend, "CompleteMultipartUpload").is_empty());
        }
        drop(file);
    });
    let parts = size.div_ceil(8 * MIB);
    let all = [("CreateMultipartUpload", 1), ("UploadPart", parts), ("CompleteMultipartUpload", 1)];
    assert_eq!(used, Ops::of(all));
    let sum = mount.sh("sha256sum < file | cut -c -64");
    let model = synthetic_bytes(5, 0, usize::try_from(size).expect("fits"));
    assert_eq!(sum.trim(), sha256_hex(&model));
    assert!(bucket.bytes("file").as_deref() == Some(&model[..]));
}

/// A large object: computed on the stand-in, uploaded to a real server. Gives its size.
fn put_large(backend: &Backend, bucket: &Bucket<'_>, key: &str) -> u64 {
    if backend.is_real() {
        bucket.put(key, body(7, usize::try_from(48 * MIB).expect("fits")));
        return 48 * MIB;
    }
    backend.standin().put_synthetic(&bucket.name, key, 1024 * MIB, 7);
    1024 * MIB
}

/// Bytes that the daemon has sent and received.
fn moved(mount: &Mount) -> (u64, u64) {
    let status = mount.status();
    let bytes = |name: &str| status[name].as_u64().expect("a counter");
    (bytes("bytes_sent"), bytes("bytes_received"))
}

#[track_caller]
fn assert_content(bucket: &Bucket<'_>, key: &str, size: u64, changes: &[(u64, &[u8])]) {
    let bytes = bucket.bytes(key).expect("there");
    let mut model = synthetic_bytes(7, 0, usize::try_from(size).expect("fits")).to_vec();
    for (at, change) in changes {
        let at = usize::try_from(*at).expect("fits");
        model.resize(model.len().max(at + change.len()), 0);
        model[at..at + change.len()].copy_from_slice(change);
    }
    assert!(bytes == model, "{key} is not what was written");
}

#[test]
fn an_append_to_a_large_object_moves_what_is_appended() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let size = put_large(&backend, &bucket, "file");
    let mount = mounted(&backend, &bucket, "");
    let more = body(2, 1024);
    let before = moved(&mount);
    let used = spent(&backend, &mount, || {
        let mut file = OpenOptions::new().append(true).open(mount.at("file")).expect("open");
        file.write_all(&more).expect("write");
    });
    let expected = [
        ("CreateMultipartUpload", 1),
        ("UploadPartCopy", 1),
        ("UploadPart", 1),
        ("CompleteMultipartUpload", 1),
        // Whether it is still what was opened: before anything moves, and before it counts.
        ("HeadObject", 2),
    ];
    assert_eq!(used, Ops::of(expected));
    let after = moved(&mount);
    assert_eq!((after.0 - before.0, after.1 - before.1), (1024, 0));
    assert_content(&bucket, "file", size, &[(size, &more)]);
}

#[test]
fn a_change_in_the_middle_of_a_large_object_moves_one_part() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let size = put_large(&backend, &bucket, "file");
    let mount = mounted(&backend, &bucket, "");
    let change = body(3, 4096);
    let at = size / 2;
    let before = moved(&mount);
    let used = spent(&backend, &mount, || {
        let mut file = OpenOptions::new().write(true).open(mount.at("file")).expect("open");
        file.seek(SeekFrom::Start(at)).expect("seek");
        file.write_all(&change).expect("write");
    });
    // A part has 5 MiB at least: what is missing of the one that is touched is read.
    let expected = [
        ("CreateMultipartUpload", 1),
        ("UploadPartCopy", 2),
        ("UploadPart", 1),
        ("GetObject", 1),
        ("CompleteMultipartUpload", 1),
        ("HeadObject", 2),
    ];
    assert_eq!(used, Ops::of(expected));
    let after = moved(&mount);
    assert_eq!((after.0 - before.0, after.1 - before.1), (5 * MIB, 5 * MIB - 4096));
    assert_content(&bucket, "file", size, &[(at, &change)]);
}

#[test]
fn a_large_object_is_cut_and_extended_without_reading_it() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let size = put_large(&backend, &bucket, "file");
    let mount = mounted(&backend, &bucket, "");
    let file = OpenOptions::new().write(true).open(mount.at("file")).expect("open");
    let used = spent(&backend, &mount, || {
        file.set_len(size - MIB).expect("truncate");
        file.sync_all().expect("fsync");
    });
    assert_eq!(used.get("GetObject"), 0, "{used:?}");
    file.set_len(size).expect("truncate");
    drop(file);
    assert_content(&bucket, "file", size, &[(size - MIB, &vec![0; usize::try_from(MIB).expect("fits")])]);
}

#[test]
fn a_rename_in_a_small_folder_asks_once_what_is_there() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put("from", "text");
    let mount = Mount::with(&backend, &bucket, LONG);
    let used = spent(&backend, &mount, || fs::rename(mount.at("from"), mount.at("to")).expect("rename"));
    // The name, and its folder at the same time: that tells of the other name.
    let counts = ["ListObjectsV2", "CopyObject", "DeleteObject"].map(|operation| used.get(operation));
    assert_eq!((counts, used.total()), ([2, 1, 1], 4), "{used:?}");
}

#[test]
fn a_rename_costs_one_copy_and_one_delete() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["dir/a", "dir/b", "dir/c"]);
    let mount = mounted(&backend, &bucket, "");
    mount.names("dir");
    for (from, to) in [("dir/a", "dir/new"), ("dir/b", "dir/c"), ("dir/c", "top")] {
        let used = spent(&backend, &mount, || fs::rename(mount.at(from), mount.at(to)).expect("rename"));
        assert_eq!(used, Ops::of([("CopyObject", 1), ("DeleteObject", 1)]), "{from} {to}");
    }
    fs::write(mount.at("written"), b"here").expect("write");
    let used = spent(&backend, &mount, || fs::rename(mount.at("written"), mount.at("top")).expect("rename"));
    assert_eq!(used, Ops::of([("CopyObject", 1), ("DeleteObject", 1)]));
    assert_eq!(bucket.bytes("top").as_deref(), Some(&b"here"[..]));
}

#[test]
fn removing_a_tree_costs_one_delete_a_file_and_a_put_and_a_delete_a_folder() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys((0..30).map(|i| format!("tree/a/{i}")));
    bucket.put_keys((0..10).map(|i| format!("tree/b/{i}")));
    let mount = mounted(&backend, &bucket, "");
    mount.sh("ls -lR > /dev/null");
    let used = spent(&backend, &mount, || drop(mount.sh("rm -r tree")));
    assert!(used.get("DeleteObject") <= 40 + 3, "{used:?}");
    assert!(used.get("PutObject") <= 3, "{used:?}");
    assert_eq!(used.total(), used.get("DeleteObject") + used.get("PutObject"), "{used:?}");
    assert_eq!(bucket.keys(), Vec::<String>::new());
}

#[test]
fn with_write_back_a_tree_is_removed_in_batches() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys((0..50).map(|i| format!("tree/{i}")));
    let mount = mounted(&backend, &bucket, "--write-back --write-back-delay 500ms");
    mount.sh("ls -lR > /dev/null");
    let used = spent(&backend, &mount, || {
        mount.sh("rm -r tree");
        assert_eq!(mount.names(""), Vec::<String>::new());
        eventually("nothing is left", || bucket.keys().is_empty().then_some(()));
    });
    assert_eq!(used.get("HeadObject") + used.get("GetObject") + used.get("PutObject"), 0, "{used:?}");
    assert!(used.total() <= 10, "{used:?}");
}

#[test]
fn an_editors_save_costs_what_its_steps_cost() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["notes.txt"]);
    let save = "import os; f=open('.notes.txt.new','w'); f.write('saved'); f.flush(); SYNC; f.close(); \
                os.replace('.notes.txt.new','notes.txt')";
    let mount = mounted(&backend, &bucket, "");
    let used = spent(&backend, &mount, || {
        mount.sh(&format!("python3 -c \"{}\"", save.replace("SYNC", "os.fsync(f.fileno())")));
    });
    assert_eq!(used, Ops::of([("PutObject", 1), ("CopyObject", 1), ("DeleteObject", 1)]));
    assert_eq!(bucket.bytes("notes.txt").as_deref(), Some(&b"saved"[..]));
    mount.stop();
    // While the new one is still staged, nothing but the one upload.
    let mount = mounted(&backend, &bucket, "--write-back --write-back-delay 1m");
    let used = spent(&backend, &mount, || {
        for _ in 0..3 {
            mount.sh(&format!("python3 -c \"{}\"", save.replace("SYNC", "0").replace("saved", "again")));
        }
    });
    assert_eq!(used, Ops::default());
    mount.stop();
    assert_eq!(bucket.keys(), ["notes.txt"]);
    assert_eq!(bucket.bytes("notes.txt").as_deref(), Some(&b"again"[..]));
}

#[test]
fn attributes_that_are_set_together_cost_one_copy() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put("file", body(1, 3_000_000));
    let mount = mounted(&backend, &bucket, "");
    let path = mount.at("file");
    let used = spent(&backend, &mount, || {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
        let (atime, mtime) = (TimeSpec::new(1, 0), TimeSpec::new(981_158_400, 0));
        utimensat(AT_FDCWD, &path, &atime, &mtime, UtimensatFlags::FollowSymlink).expect("utimens");
        chown(&path, Some(12), Some(34)).expect("chown");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("chmod");
        eventually("the attributes in the bucket", || {
            let metadata = bucket.headers("file")?.metadata;
            (metadata.get("mode")? == &0o100_640.to_string()).then_some(())
        });
    });
    assert_eq!(used.get("CopyObject"), 1, "{used:?}");
    // To know what it had, and that nobody else changed it.
    assert_eq!((used.get("HeadObject"), used.total()), (1, 2), "{used:?}");
    // Before close they ride on the upload.
    let used = spent(&backend, &mount, || {
        let file = File::create(mount.at("new")).expect("create");
        file.write_all_at(b"x", 0).expect("write");
        // Not by other processes: each would close a copy of the descriptor.
        file.set_permissions(fs::Permissions::from_mode(0o600)).expect("chmod");
        let (atime, mtime) = (TimeSpec::new(1, 0), TimeSpec::new(981_158_400, 0));
        futimens(&file, &atime, &mtime).expect("utimens");
        drop(file);
    });
    assert_eq!(used, Ops::of([("PutObject", 1)]));
    let headers = bucket.headers("new").expect("there");
    assert_eq!(headers.metadata["mode"], 0o100_600.to_string());
    assert_eq!(headers.metadata.get("mtime").map(|mtime| &mtime[..9]), Some("981158400"));
}
