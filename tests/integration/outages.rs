//! While no server answers, a mount with `--write-back` goes on in folders that it knows, though what it knows has aged.

use std::fs;
use std::io::Write as _;
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;
use supafs_standin::{Action, Fault};

use crate::common::{Mount, errno, eventually};
use crate::spool::staged;

const AGES_SOON: &str = "--metadata-ttl 1s --negative-ttl 1s --op-timeout 6s";
const AGED: Duration = Duration::from_millis(1500);

/// With whether it is silence.
fn faults() -> [(Fault, bool); 3] {
    let others = [Fault::new(Action::Reset), Fault::status(503, "SlowDown")];
    let [reset, slow_down] = others.map(|fault| (fault, false));
    [(Fault::new(Action::Hang), true), reset, slow_down]
}

fn until_uploaded(mount: &Mount) {
    eventually("everything to be uploaded", || (mount.status()["waiting"] == 0).then_some(()));
}

#[test]
fn files_are_made_and_changed_in_folders_that_are_known() {
    let backend = standin_only!("it goes away on demand");
    for (fault, is_silent) in faults() {
        let bucket = backend.bucket();
        bucket.put("theirs/old", "old");
        let mount =
            Mount::with(&backend, &bucket, &format!("--write-back --write-back-delay 20ms {AGES_SOON}"));
        assert_eq!(mount.names("theirs"), ["old"]);
        fs::create_dir(mount.at("ours")).expect("made");
        fs::write(mount.at("ours/stored"), "first").expect("written");
        until_uploaded(&mount);
        let outage = backend.fault(fault.bucket(&bucket.name));
        fs::write(mount.at("ours/waiting"), "first").expect("it is known that there is none");
        sleep(AGED);
        for number in 0..200 {
            for folder in ["ours", "theirs"] {
                let path = mount.at(&format!("{folder}/{number}"));
                fs::write(&path, number.to_string()).expect("what is known has aged");
            }
        }
        // A change waits for an upload of the same file that is under way, which a silent server never ends.
        if !is_silent {
            fs::write(mount.at("ours/waiting"), "second").expect("it waits");
        }
        fs::write(mount.at("ours/stored"), "second").expect("it is known");
        fs::create_dir(mount.at("ours/folder")).expect("made");
        fs::write(mount.at("ours/folder/new"), "new").expect("written");
        fs::remove_file(mount.at("ours/1")).expect("it waits");
        assert_eq!(mount.read("ours/199"), b"199");
        assert_eq!(errno(fs::read(mount.at("ours/none"))), Errno::ENOENT);
        assert!(mount.log().contains("no server answers"));
        // Why they wait is told in words for people.
        assert!(staged(mount.place()).iter().all(|file| !file.to_string().contains("unhandled error")));
        backend.standin().clear_fault(outage);
        until_uploaded(&mount);
        for number in 2..200 {
            for folder in ["ours", "theirs"] {
                let stored = bucket.bytes(&format!("{folder}/{number}"));
                assert_eq!(stored, Some(number.to_string().into_bytes()));
            }
        }
        let waiting = if is_silent { "first" } else { "second" };
        for (key, content) in [("waiting", waiting), ("stored", "second"), ("folder/new", "new"), ("0", "0")]
        {
            assert_eq!(bucket.bytes(&format!("ours/{key}")).as_deref(), Some(content.as_bytes()), "{key}");
        }
        assert_eq!(bucket.bytes("ours/1"), None);
        // What others did meanwhile shows again.
        bucket.put("theirs/late", "late");
        sleep(AGED);
        assert_eq!(mount.read("theirs/late"), b"late");
        mount.stop();
    }
}

#[test]
fn what_others_made_meanwhile_keeps_its_name() {
    let backend = standin_only!("it goes away on demand");
    let bucket = backend.bucket();
    bucket.put("dir/old", "old");
    let mount = Mount::with(&backend, &bucket, &format!("--write-back {AGES_SOON}"));
    assert_eq!(mount.names("dir"), ["old"]);
    let outage = backend.fault(Fault::new(Action::Reset).bucket(&bucket.name));
    sleep(AGED);
    bucket.put("dir/new", "theirs");
    let mut file = fs::File::create(mount.at("dir/new")).expect("it is known that there is none");
    file.write_all(b"ours").expect("written");
    drop(file);
    backend.standin().clear_fault(outage);
    until_uploaded(&mount);
    assert_eq!(bucket.bytes("dir/new").as_deref(), Some(&b"theirs"[..]));
    let beside: Vec<_> = bucket.own().into_keys().filter(|key| key.contains("new (conflict ")).collect();
    assert_eq!(beside.len(), 1, "{beside:?}");
    assert_eq!(bucket.bytes(&beside[0]).as_deref(), Some(&b"ours"[..]));
    mount.stop();
}

#[test]
fn a_file_that_is_renamed_to_what_others_made_meanwhile_leaves_theirs() {
    let backend = standin_only!("it goes away on demand");
    let bucket = backend.bucket();
    bucket.put("dir/old", "old");
    let options = format!("--write-back --write-back-delay 15s {AGES_SOON}");
    let mount = Mount::with(&backend, &bucket, &options);
    assert_eq!(mount.names("dir"), ["old"]);
    fs::write(mount.at("dir/draft"), "ours").expect("it waits");
    let outage = backend.fault(Fault::new(Action::Reset).bucket(&bucket.name));
    sleep(AGED);
    bucket.put("dir/new", "theirs");
    fs::rename(mount.at("dir/draft"), mount.at("dir/new")).expect("it is known that there is none");
    backend.standin().clear_fault(outage);
    until_uploaded(&mount);
    assert_eq!(bucket.bytes("dir/new").as_deref(), Some(&b"theirs"[..]));
    let beside: Vec<_> = bucket.own().into_keys().filter(|key| key.contains("new (conflict ")).collect();
    assert_eq!(beside.len(), 1, "{beside:?}");
    mount.stop();
}

#[test]
fn where_close_waits_for_the_server_so_does_a_lookup() {
    let backend = standin_only!("it goes away on demand");
    let bucket = backend.bucket();
    bucket.put("dir/old", "old");
    let mount = Mount::with(&backend, &bucket, AGES_SOON);
    assert_eq!(mount.names("dir"), ["old"]);
    let outage = backend.fault(Fault::new(Action::Hang).bucket(&bucket.name));
    sleep(AGED);
    assert_eq!(errno(fs::write(mount.at("dir/new"), "new")), Errno::ETIMEDOUT);
    backend.standin().clear_fault(outage);
    mount.stop();
}
