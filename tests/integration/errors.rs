//! What goes wrong, and what a program sees of it: one test for each row of the table in the README.

use std::fs::{self, File};
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::{Backend, Login, Mount, MountOptions, body, errno, eventually, sha256_hex};
use nix::errno::Errno;
use supafs_standin::{Action, Credentials, Fault};

const MIB: usize = 1 << 20;
const LONG: &str = "--metadata-ttl 1h --negative-ttl 1h";
const IMPATIENT: &str = "--metadata-ttl 0s --negative-ttl 0s --op-timeout 2s";

/// What passes by itself.
const PASSING: [(u16, &str); 9] = [
    (429, "SlowDown"),
    (500, "InternalError"),
    (500, "DatabaseError"),
    (502, "BadGateway"),
    (503, "LockTimeout"),
    (504, "GatewayTimeout"),
    (544, "DatabaseTimeout"),
    (423, "ResourceLocked"),
    (404, "S3Error"),
];

#[test]
fn a_missing_object_is_enoent() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["file", "gone"]);
    let mount = Mount::with(&backend, &bucket, LONG);
    mount.names("");
    bucket.delete("gone");
    assert_eq!(errno(fs::read(mount.at("gone"))), Errno::ENOENT);
    assert_eq!(errno(fs::metadata(mount.at("never"))), Errno::ENOENT);
    assert_eq!(mount.read("file"), b"file");
}

#[test]
fn what_a_policy_forbids_is_eacces() {
    let backend = standin_only!("it refuses on demand");
    let bucket = backend.bucket();
    bucket.put_keys(["file", "dir/inside", "other"]);
    let mount = Mount::with(&backend, &bucket, IMPATIENT);
    backend.fault(Fault::status(403, "AccessDenied").on("GetObject").key("file"));
    backend.fault(Fault::status(403, "AccessDenied").on("ListObjectsV2").key("dir/"));
    assert_eq!(errno(fs::read(mount.at("file"))), Errno::EACCES);
    assert_eq!(
        errno(fs::read_dir(mount.at("dir")).and_then(Iterator::collect::<Result<Vec<_>, _>>)),
        Errno::EACCES
    );
    assert_eq!(mount.read("other"), b"other", "its neighbour is not affected");
}

#[test]
fn an_expired_token_is_eacces_with_a_line_in_the_log() {
    let backend = Backend::start();
    let (bucket, users) = backend.users();
    let key = format!("{}/file", users.alice);
    bucket.put(&key, "mine");
    let mount = MountOptions::new(&backend, &bucket.name)
        .args(IMPATIENT)
        .login(Login::User(users.alice.clone()))
        .env("SUPABASE_SESSION_TOKEN", backend.token(&users.alice, 3))
        .start();
    assert_eq!(mount.read(&key), b"mine");
    mount.drop_kernel_caches();
    eventually("the token to expire", || {
        fs::metadata(mount.at(&key)).err().filter(|error| error.raw_os_error() == Some(Errno::EACCES as i32))
    });
    let log = mount.log();
    assert!(
        log.lines()
            .any(|line| line.contains("expired at") && (line.contains("WARN") || line.contains("ERROR"))),
        "no word of it in the log"
    );
}

#[test]
fn a_refused_credential_is_eacces_with_a_line_in_the_log() {
    let backend = standin_only!("it takes the keys back");
    let bucket = backend.bucket();
    bucket.put_keys(["file"]);
    let mount = Mount::with(&backend, &bucket, IMPATIENT);
    assert_eq!(mount.read("file"), b"file");
    let mut credentials = backend.standin().credentials();
    credentials.secret_access_key = "rotated-away".to_owned();
    backend.standin().set_credentials(credentials);
    assert_eq!(errno(fs::metadata(mount.at("file"))), Errno::EACCES);
    assert!(mount.log().contains("supafs doctor"), "no advice in the log");
    backend.standin().set_credentials(Credentials::default());
    assert_eq!(mount.read("file"), b"file", "it works again when they come back");
}

#[test]
fn a_mount_with_a_bad_credential_fails_with_a_message() {
    let backend = Backend::start();
    let (bucket, users) = backend.users();
    let bad = [
        (Login::Keys, "SUPABASE_S3_SECRET_ACCESS_KEY", "wrong".to_owned()),
        (Login::Keys, "SUPABASE_S3_ACCESS_KEY_ID", "unknown".to_owned()),
        (Login::User(users.alice.clone()), "SUPABASE_ANON_KEY", "wrong".to_owned()),
        (Login::User(users.alice.clone()), "SUPABASE_SESSION_TOKEN", backend.token(&users.alice, -60)),
        (Login::User(users.alice.clone()), "SUPABASE_SESSION_TOKEN", "no.jwt.atall".to_owned()),
        (
            Login::User(users.alice.clone()),
            "SUPABASE_SESSION_TOKEN",
            supafs_standin::mint_user(
                "another secret",
                &users.alice,
                "authenticated",
                60,
                &serde_json::json!({}),
            ),
        ),
    ];
    for (login, variable, value) in bad {
        let refused =
            MountOptions::new(&backend, &bucket.name).login(login).env(variable, value.clone()).try_start();
        let refused = refused.err().unwrap_or_else(|| panic!("mounted with a bad {variable}"));
        assert!(!refused.status.success() && !refused.is_mounted, "{refused:#?}");
        assert!(refused.stderr.lines().any(|line| line.starts_with("supafs: ")), "{refused:#?}");
        assert!(
            value == "unknown" || value == "wrong" || !refused.stderr.contains(&value),
            "a secret was printed"
        );
    }
}

#[test]
fn a_mount_of_a_missing_bucket_fails_with_a_message() {
    let backend = Backend::start();
    let refused = MountOptions::new(&backend, "no-such-bucket").try_start().err().expect("no mount");
    assert!(!refused.status.success() && !refused.is_mounted, "{refused:#?}");
    assert!(refused.stderr.contains("there is no bucket \"no-such-bucket\""), "{refused:#?}");
}

#[test]
fn a_mount_of_a_server_that_is_not_there_fails_with_a_message() {
    let backend = Backend::start();
    let refused = MountOptions::new(&backend, "bucket")
        .args("--op-timeout 2s")
        .env("SUPABASE_S3_ENDPOINT", "http://127.0.0.1:9/storage/v1/s3")
        .try_start()
        .err()
        .expect("no mount");
    assert!(!refused.status.success() && !refused.is_mounted, "{refused:#?}");
    assert!(refused.stderr.contains("127.0.0.1:9 refuses the connection"), "{refused:#?}");
}

#[test]
fn what_passes_by_itself_is_retried_until_it_has_passed() {
    let backend = standin_only!("it fails on demand");
    let bucket = backend.bucket();
    let bytes = body(1, MIB + 1);
    for (i, (status, code)) in PASSING.into_iter().enumerate() {
        let mount = Mount::with(&backend, &bucket, LONG);
        let name = format!("file{i}");
        bucket.put(&name, bytes.clone());
        for operation in ["ListObjectsV2", "GetObject", "HeadObject"] {
            backend.fault(Fault::status(status, code).on(operation).times(2));
        }
        assert!(mount.names("").contains(&name), "{status} {code}");
        assert!(mount.read(&name) == bytes, "{status} {code}");
        mount.sh(&format!("getfattr -d {name}"));
        assert!(mount.status()["retries"].as_u64().expect("a counter") >= 4, "{status} {code}");
        backend.standin().clear_faults();
    }
}

#[test]
fn what_does_not_pass_is_eio_or_etimedout() {
    let backend = standin_only!("it fails on demand");
    let bucket = backend.bucket();
    bucket.put_keys(["file", "dir/inside", "other"]);
    for (status, code) in PASSING {
        let mount = Mount::with(&backend, &bucket, IMPATIENT);
        backend.fault(Fault::status(status, code).on("GetObject").key("file"));
        backend.fault(Fault::status(status, code).on("ListObjectsV2").key_prefix("dir"));
        let read = errno(fs::read(mount.at("file")));
        assert!(matches!(read, Errno::EIO | Errno::ETIMEDOUT), "{status} {code}: {read}");
        let list = errno(fs::read_dir(mount.at("dir")).and_then(Iterator::collect::<Result<Vec<_>, _>>));
        assert!(matches!(list, Errno::EIO | Errno::ETIMEDOUT), "{status} {code}: {list}");
        assert_eq!(mount.read("other"), b"other", "its neighbour is not affected");
        backend.standin().clear_faults();
        assert_eq!(mount.read("file"), b"file", "and it works again");
        assert_eq!(mount.names("dir"), ["inside"], "and it works again");
    }
}

#[test]
fn a_reset_connection_is_retried() {
    let backend = standin_only!("it resets connections");
    let bucket = backend.bucket();
    let bytes = body(1, 3 * MIB);
    bucket.put("file", bytes.clone());
    let mount = Mount::with(&backend, &bucket, IMPATIENT);
    backend.fault(Fault::new(Action::Reset).times(3));
    assert_eq!(mount.names(""), ["file"]);
    backend.fault(Fault::new(Action::Reset).on("GetObject").times(2));
    assert!(mount.read("file") == bytes);
    mount.drop_kernel_caches();
    backend.standin().clear_faults();
    backend.fault(Fault::new(Action::Reset));
    let error = errno(fs::metadata(mount.at("file")));
    assert!(matches!(error, Errno::EIO | Errno::ETIMEDOUT), "{error}");
    backend.standin().clear_faults();
    assert!(mount.read("file") == bytes, "and it works again");
}

#[test]
fn a_truncated_body_is_never_cached_and_recovered() {
    let backend = standin_only!("it cuts bodies short");
    let bucket = backend.bucket();
    for (name, size, cut) in [("small", 10_000, 7), ("one", MIB, 300_000), ("large", 20 * MIB, 555_555)] {
        let bytes = body(1, size);
        bucket.put(name, bytes.clone());
        let mount = Mount::with(&backend, &bucket, LONG);
        mount.names("");
        backend.fault(Fault::new(Action::Truncate(cut)).on("GetObject").key(name).times(3));
        assert!(mount.read(name) == bytes, "{name}");
        backend.standin().clear_faults();
        mount.drop_kernel_caches();
        assert_eq!(
            mount.sh(&format!("sha256sum < {name} | cut -c -64")).trim(),
            sha256_hex(&bytes),
            "{name} from the cache"
        );
    }
}

#[test]
fn a_body_that_always_ends_early_is_eio() {
    let backend = standin_only!("it cuts bodies short");
    let bucket = backend.bucket();
    bucket.put("file", body(1, 10_000));
    let mount = Mount::with(&backend, &bucket, IMPATIENT);
    backend.fault(Fault::new(Action::Truncate(7)).on("GetObject"));
    let error = errno(fs::read(mount.at("file")));
    assert!(matches!(error, Errno::EIO | Errno::ETIMEDOUT), "{error}");
    backend.standin().clear_faults();
    assert!(mount.read("file") == body(1, 10_000), "and it works again");
}

#[test]
fn a_body_that_stops_arriving_is_asked_for_again_or_ends_by_the_deadline() {
    let backend = standin_only!("it stalls");
    let bucket = backend.bucket();
    bucket.put("file", body(1, 5 * MIB));
    let mount = Mount::with(&backend, &bucket, IMPATIENT);
    let stall = |after| Action::Stall { after, pause: Duration::from_mins(10) };
    backend.fault(Fault::new(stall(200_000)).on("GetObject").times(1));
    match fs::read(mount.at("file")) {
        Ok(bytes) => assert!(bytes == body(1, 5 * MIB)),
        Err(error) => assert_eq!(errno::<()>(Err(error)), Errno::ETIMEDOUT),
    }
    assert!(mount.read("file") == body(1, 5 * MIB));
    mount.drop_kernel_caches();
    bucket.put("file2", body(2, 5 * MIB));
    // Less than a block each time: no progress.
    backend.fault(Fault::new(stall(100_000)).on("GetObject"));
    let error = errno(fs::read(mount.at("file2")));
    assert!(matches!(error, Errno::EIO | Errno::ETIMEDOUT), "{error}");
}

#[test]
fn a_slow_but_steady_body_is_waited_for() {
    let backend = standin_only!("it is slow on demand");
    let bucket = backend.bucket();
    bucket.put("file", body(1, 400_000));
    let mount = Mount::with(&backend, &bucket, "--op-timeout 1s");
    // Four seconds in all, but there is always progress.
    backend.fault(Fault::new(Action::Slow(100_000)).on("GetObject"));
    assert!(mount.read("file") == body(1, 400_000));
}

#[test]
fn the_first_byte_of_a_large_object_may_take_as_long_as_hashing_it() {
    let backend = standin_only!("it hashes as fast as it is told");
    let bucket = backend.bucket();
    // 500 MB at 150 MB/s: more than three seconds, of which one is the operation's own.
    backend.standin().put_synthetic(&bucket.name, "file", 500_000_000, 9);
    let mount = Mount::with(&backend, &bucket, "--op-timeout 1s");
    backend.standin().set_hash_rate(Some(150_000_000));
    let mut start = [0; 1000];
    File::open(mount.at("file")).and_then(|mut file| file.read_exact(&mut start)).expect("the first bytes");
    assert_eq!(start[..], supafs_standin::synthetic_bytes(9, 0, 1000)[..]);
}

#[test]
fn a_reader_can_be_killed_while_the_server_hangs_and_the_mount_lives_on() {
    let backend = standin_only!("it hangs on demand");
    let bucket = backend.bucket();
    bucket.put_keys(["stuck", "fine", "dir/inside"]);
    let mount = Mount::with(&backend, &bucket, "--op-timeout 3s --metadata-ttl 1h");
    mount.names("");
    backend.fault(Fault::new(Action::Hang).on("GetObject").key("stuck"));
    backend.fault(Fault::new(Action::Hang).on("ListObjectsV2").key("dir/"));
    for command in [["cat", "stuck"], ["ls", "dir"]] {
        let before = backend.standin().in_flight();
        let mut child = Command::new(command[0])
            .arg(command[1])
            .current_dir(&mount.path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        eventually("its request", || (backend.standin().in_flight() > before).then_some(()));
        child.kill().expect("SIGKILL");
        assert_eq!(mount.read("fine"), b"fine", "others go on");
        eventually("the killed reader to end", || child.try_wait().expect("a child"));
        mount.drop_kernel_caches();
    }
    backend.standin().clear_faults();
    assert_eq!(mount.read("stuck"), b"stuck");
    mount.stop();
}

#[test]
fn a_hang_ends_by_the_deadline() {
    let backend = standin_only!("it hangs on demand");
    let bucket = backend.bucket();
    bucket.put_keys(["file", "dir/inside"]);
    let mount = Mount::with(&backend, &bucket, IMPATIENT);
    backend.fault(Fault::new(Action::Hang).on("GetObject"));
    assert_eq!(errno(fs::read(mount.at("file"))), Errno::ETIMEDOUT);
    backend.fault(Fault::new(Action::Hang));
    assert_eq!(errno(fs::metadata(mount.at("file"))), Errno::ETIMEDOUT);
    assert_eq!(
        errno(fs::read_dir(mount.at("dir")).and_then(Iterator::collect::<Result<Vec<_>, _>>)),
        Errno::ETIMEDOUT
    );
    backend.standin().clear_faults();
    assert_eq!(mount.read("file"), b"file");
}

#[test]
fn a_hang_of_one_attempt_is_survived_by_another() {
    let backend = standin_only!("it hangs on demand");
    let bucket = backend.bucket();
    bucket.put_keys(["file"]);
    let mount = Mount::with(&backend, &bucket, "--op-timeout 3s");
    backend.fault(Fault::new(Action::Hang).on("GetObject").times(1));
    backend.fault(Fault::new(Action::Hang).on("ListObjectsV2").times(1));
    assert_eq!(mount.read("file"), b"file");
}

#[test]
fn an_unmount_does_not_wait_for_a_server_that_hangs() {
    let backend = standin_only!("it hangs on demand");
    let bucket = backend.bucket();
    bucket.put_keys(["file"]);
    let mount = Mount::with(&backend, &bucket, "--op-timeout 300s");
    mount.names("");
    backend.fault(Fault::new(Action::Hang));
    let mut reader = Command::new("cat").arg(mount.at("file")).stderr(Stdio::null()).spawn().expect("cat");
    eventually("its request", || (backend.standin().in_flight() > 0).then_some(()));
    mount.stop();
    eventually("the reader to end", || reader.try_wait().expect("a child"));
}

#[test]
fn names_that_a_server_refuses_do_not_exist() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["file", "dir/file"]);
    let mount = Mount::new(&backend, &bucket);
    for name in ["caf\u{e9}", "100%", "a~", "[x]", "a\\b", "tab\there", "\u{1F600}", "dir/#x#"] {
        assert_eq!(errno(fs::metadata(mount.at(name))), Errno::ENOENT, "{name}");
    }
}
