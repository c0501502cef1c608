//! A file that is too large for its bucket is told by the write that crosses the limit, as far as the limit is known
//! then: a user's mount asks for it, one with access keys learns it from what was refused.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use serde_json::json;
use supafs_standin::{Action, Fault, mint_user};

use crate::common::{Backend, Bucket, Login, Mount, MountOptions, Ops, body, eventually, spent};
use crate::spool::staged;

const MIB: u64 = 1 << 20;
const LIMIT: u64 = 5 * MIB;
const LONG: &str = "--metadata-ttl 1h --negative-ttl 1h";

/// A mount by a token whose role sees every row of `storage.buckets`.
fn mount_who_sees<'a>(backend: &'a Backend, bucket: &Bucket<'_>, args: &str) -> MountOptions<'a> {
    let facts = backend.facts();
    let sub = "00000000-0000-4000-8000-000000000001";
    let token = mint_user(&facts.jwt_secret, sub, "service_role", 3600, &json!({}));
    MountOptions::new(backend, &bucket.name)
        .login(Login::Custom)
        .env("SUPABASE_PROJECT_REF", facts.project_ref)
        .env("SUPABASE_ANON_KEY", facts.anon_key)
        .env("SUPABASE_SESSION_TOKEN", token)
        .args(LONG)
        .args(args)
}

/// How many bytes a file takes, written by MiB, and what refuses the next ones: the write or the fsync behind it.
fn fill(mount: &Mount, name: &str, size: u64) -> (u64, io::Result<()>) {
    let mut file = File::create(mount.at(name)).expect("created");
    let chunk = body(1, 1 << 20);
    for written in 0..size / MIB {
        if let Err(error) = file.write_all(&chunk) {
            return (written * MIB, Err(error));
        }
    }
    (size, file.sync_all())
}

#[track_caller]
fn assert_too_large<T>(result: io::Result<T>) {
    let error = result.err().expect("it is too large");
    assert_eq!(error.raw_os_error(), Some(Errno::EFBIG as i32), "{error}");
}

fn last_error(mount: &Mount, path: &str) -> String {
    mount.sh(&format!("getfattr --only-values -n user.supabase.last-error {path} 2> /dev/null || true"))
}

/// Requests that bring bytes to the server.
fn uploads(ops: &Ops) -> u64 {
    ["PutObject", "CreateMultipartUpload", "UploadPart"].map(|name| ops.get(name)).iter().sum()
}

#[test]
fn who_may_see_the_limit_is_told_by_the_write_that_crosses_it_before_anything_is_sent() {
    let backend = Backend::start();
    for args in ["", "--write-back", "--part-size 5MiB"] {
        let bucket = backend.bucket();
        bucket.put("dir/old", "old");
        bucket.limit_size(LIMIT);
        let mount = mount_who_sees(&backend, &bucket, args).start();
        mount.names("dir");
        let used = spent(&backend, &mount, || {
            for name in ["dir/new", "dir/old"] {
                let mut file = File::create(mount.at(name)).expect("opened");
                for number in 0..5 {
                    file.write_all(&body(number, 1 << 20)).expect("up to the limit");
                }
                assert_too_large(file.write_all(b"x"));
                assert_too_large(file.sync_all());
                let handle = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
                let words = last_error(&mount, &handle);
                assert!(words.contains(&bucket.name) && words.contains("5242880 bytes"), "{words}");
                assert_eq!(nix::unistd::close(file), Err(Errno::EFBIG));
                assert!(last_error(&mount, "dir").contains("5242880 bytes"), "on the folder");
            }
        });
        assert_eq!((uploads(&used), used.get("GetBucket")), (0, 1), "{used:?}");
        let words = ["takes files of at most 5242880 bytes", "dashboard"];
        eventually("the log to say it", || words.iter().all(|word| mount.log().contains(word)).then_some(()));
        eventually("the version of the bucket", || (mount.read("dir/old") == b"old").then_some(()));
        fs::write(mount.at("dir/old"), body(1, 5 << 20)).expect("just the limit");
        mount.stop();
        assert_eq!(bucket.keys(), ["dir/old"], "{args}");
        assert_eq!(bucket.bytes("dir/old").map(|bytes| bytes.len()), Some(5 << 20));
    }
}

#[test]
fn a_file_cannot_be_extended_beyond_the_limit_and_stays_whole() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put("old", "old");
    bucket.limit_size(LIMIT);
    let mount = mount_who_sees(&backend, &bucket, "").start();
    let file = OpenOptions::new().write(true).open(mount.at("old")).expect("opened");
    assert_too_large(file.set_len(LIMIT + 1));
    let reserved = fallocate(&file, FallocateFlags::empty(), 0, (5 << 20) + 1);
    assert_eq!(reserved, Err(Errno::EFBIG));
    file.write_all_at(b"new", 0).expect("it is as it was");
    nix::unistd::close(file).expect("it is whole");
    assert_eq!(bucket.bytes("old").as_deref(), Some(&b"new"[..]));
    assert_too_large(File::options().write(true).open(mount.at("old")).and_then(|f| f.set_len(6 << 20)));
    assert_eq!(bucket.bytes("old").as_deref(), Some(&b"new"[..]));
    // What has no name never gets into the bucket.
    let file = File::create(mount.at("gone")).expect("created");
    fs::remove_file(mount.at("gone")).expect("removed");
    file.write_all_at(b"x", 2 * LIMIT).expect("it has no name");
    drop(file);
    mount.stop();
}

#[test]
fn a_limit_that_is_raised_is_noticed_without_a_new_mount() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.limit_size(LIMIT);
    let mount = mount_who_sees(&backend, &bucket, "").start();
    assert_too_large(fill(&mount, "file", 6 * MIB).1);
    bucket.limit_size(2 * LIMIT);
    eventually("the new limit", || fill(&mount, "file", 6 * MIB).1.ok());
    assert_eq!(bucket.bytes("file").map(|bytes| bytes.len()), Some(6 << 20));
    mount.stop();
}

#[test]
fn with_keys_a_size_that_was_refused_is_told_by_the_next_write_that_crosses_it() {
    let backend = Backend::start();
    for args in ["", "--write-back"] {
        let bucket = backend.bucket();
        bucket.limit_size(LIMIT);
        let options = MountOptions::new(&backend, &bucket.name).args(LONG).args(args);
        let mount = options.start();
        mount.names("");
        let (written, refused) = fill(&mount, "first", 6 * MIB);
        assert_eq!(written, 6 * MIB, "nothing is known yet");
        assert_too_large(refused);
        // With --write-back it was tried once more when it was closed.
        eventually("the first to be parked", || {
            staged(mount.place()).iter().any(|file| file["state"] == "parked").then_some(())
        });
        let used = spent(&backend, &mount, || {
            for name in ["second", "third"] {
                let (written, refused) = fill(&mount, name, 40 * MIB);
                assert_eq!(written, LIMIT, "{name}");
                assert_too_large(refused);
            }
        });
        assert_eq!((uploads(&used), used.get("GetBucket")), (0, 0), "{used:?}");
        let words = last_error(&mount, ".");
        assert!(words.contains("refused a file of 6291456 bytes") && words.contains(&bucket.name), "{words}");
        let logged = "refused a file of 6291456 bytes";
        eventually("the log to say it", || mount.log().contains(logged).then_some(()));
        let (_, taken) = fill(&mount, "fits", LIMIT);
        taken.expect("it fits");
        bucket.limit_size(2 * LIMIT);
        drop(mount.leave());
        let mount = MountOptions::new(&backend, &bucket.name).args(LONG).args(args).start();
        let (_, taken) = fill(&mount, "second", 6 * MIB);
        taken.expect("a new mount has no old knowledge");
        mount.stop();
        assert_eq!(bucket.keys(), ["fits", "second"], "{args}");
        assert_eq!(bucket.uploads(), 0);
    }
}

#[test]
fn with_keys_a_file_that_is_refused_while_it_is_written_tells_the_next_one() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.limit_size(12 * MIB);
    let mount = Mount::with(&backend, &bucket, &format!("{LONG} --part-size 5MiB"));
    for name in ["first", "second", "third"] {
        let (written, refused) = fill(&mount, name, 60 * MIB);
        assert!(written >= 12 * MIB, "{name}: {written}");
        assert_too_large(refused);
    }
    let used = spent(&backend, &mount, || {
        let (written, refused) = fill(&mount, "last", 200 * MIB);
        assert!((12 * MIB..200 * MIB).contains(&written), "{written}");
        assert_too_large(refused);
    });
    assert_eq!(used.get("CompleteMultipartUpload"), 0);
    let (_, taken) = fill(&mount, "fits", 12 * MIB);
    taken.expect("it fits");
    mount.stop();
    assert_eq!(bucket.keys(), ["fits"]);
    assert_eq!(bucket.uploads(), 0);
}

#[test]
fn a_user_who_does_not_see_the_limit_asks_once_and_learns_it() {
    let backend = Backend::start();
    let (bucket, users) = backend.users();
    let options = MountOptions::new(&backend, &bucket.name).login(Login::User(users.alice.clone()));
    let mount = options.args(LONG).start();
    fs::create_dir(mount.at(&users.alice)).expect("made");
    let at = |name: &str| format!("{}/{name}", users.alice);
    let used = spent(&backend, &mount, || {
        for name in ["1", "2", "3"] {
            fs::write(mount.at(&at(name)), "new").expect("written");
        }
    });
    assert_eq!(used, Ops::of([("GetBucket", 1), ("SignUploadUrl", 1), ("PutObject", 3)]));
    if !backend.is_real() {
        // Elsewhere others use the bucket.
        bucket.limit_size(LIMIT);
        assert_too_large(fill(&mount, &at("first"), 6 * MIB).1);
        let (written, refused) = fill(&mount, &at("second"), 6 * MIB);
        assert_eq!(written, LIMIT);
        assert_too_large(refused);
    }
    // The end of the last file may not have been heard yet.
    drop(mount.leave());
}

#[test]
fn a_limit_that_the_server_does_not_tell_forbids_nothing() {
    let backend = standin_only!("the question fails");
    let bucket = backend.bucket();
    bucket.limit_size(LIMIT);
    for fault in [Fault::new(Action::Hang), Fault::new(Action::Reset), Fault::status(500, "InternalError")] {
        let armed = backend.fault(fault.clone().on("GetBucket"));
        let mount = mount_who_sees(&backend, &bucket, "").start();
        let (written, taken) = fill(&mount, "fits", LIMIT);
        taken.expect("it fits");
        assert_eq!(written, LIMIT);
        assert_eq!(backend.standin().fault_hits(armed), 1, "{fault:?}");
        mount.stop();
        backend.standin().clear_fault(armed);
    }
}

#[test]
fn a_file_over_the_limit_of_one_put_goes_in_parts() {
    let backend = standin_only!("it sets limits of the project");
    let bucket = backend.bucket();
    backend.standin().set_size_limits(100 * MIB, 2 * MIB);
    let mount = Mount::with(&backend, &bucket, LONG);
    for (name, size) in [("small", 3), ("large", 40)] {
        let (_, taken) = fill(&mount, name, size * MIB);
        taken.expect("in parts it is not too large");
        assert_eq!(bucket.bytes(name).map(|bytes| bytes.len() as u64), Some(size * MIB));
    }
    assert_too_large(fill(&mount, "larger", 101 * MIB).1);
    mount.stop();
    assert_eq!(bucket.uploads(), 0);
}
