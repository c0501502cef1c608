//! What is not in the bucket: how it is kept, listed and decided about by `supafs spool`.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::Value;
use supafs_standin::{Command, Policy, Predicate};

use crate::common::{Backend, Bucket, Login, Mount, MountOptions, Place, body, eventually};

/// What `supafs spool list` says of a place.
pub fn staged(place: &Place) -> Vec<Value> {
    let listed = place.supafs(["spool", "list", "--json"], &[]).ok();
    let listed: Value = serde_json::from_str(&listed.stdout).expect("JSON");
    listed["files"].as_array().expect("files").clone()
}

/// Of the stand-in: a user who may read all and write nothing, until told otherwise.
fn reader_only(backend: &Backend, bucket: &Bucket<'_>) {
    backend.standin().set_policies(&bucket.name, Policy::authenticated_read());
}

fn as_user<'a>(backend: &'a Backend, bucket: &Bucket<'_>, place: Place) -> MountOptions<'a> {
    let user = Login::User("00000000-0000-4000-8000-000000000001".to_owned());
    MountOptions::new(backend, &bucket.name).login(user).place(place)
}

/// A file that a policy refused after close had acknowledged it, left in the spool; with its id.
fn refused(backend: &Backend, bucket: &Bucket<'_>, bytes: &[u8]) -> (Place, String) {
    backend.standin().set_policies(&bucket.name, Policy::authenticated_all());
    let mount = as_user(backend, bucket, Place::new()).args("--write-back --write-back-delay 50ms").start();
    let mut file = fs::File::create(mount.at("kept.txt")).expect("it is allowed still");
    reader_only(backend, bucket);
    file.write_all(bytes).expect("into the spool");
    // Close does not ask the server.
    drop(file);
    eventually("the file to be parked", || {
        (staged(mount.place()).iter().any(|file| file["state"] == "parked")).then_some(())
    });
    assert!(mount.names("").is_empty(), "the listing tells the truth");
    let id = staged(mount.place())[0]["id"].as_str().expect("an id").to_owned();
    let (place, code) = mount.leave();
    assert_eq!(code, Some(75), "what was refused after close is told at the end");
    (place, id)
}

#[test]
fn a_refused_file_is_listed_exported_and_discarded_without_a_mount() {
    let backend = standin_only!("the policies change");
    let bucket = backend.bucket();
    let bytes = body(1, 100_000);
    let (place, id) = refused(&backend, &bucket, &bytes);
    let listed = &staged(&place)[0];
    assert_eq!(listed["key"], format!("{}/kept.txt", bucket.name));
    assert_eq!((&listed["state"], &listed["size"]), (&Value::from("parked"), &Value::from(100_000)));
    assert!(listed["error"].as_str().is_some_and(|error| error.contains("row-level security")), "{listed}");
    let out = place.path().join("out");
    let to = out.to_str().expect("a path");
    place.supafs(["spool", "export", &id, to], &[]).ok();
    assert_eq!(fs::read(out.join("kept.txt")).expect("exported"), bytes);
    assert!(place.supafs(["spool", "export", &id, to], &[]).refused().contains("exists already"));
    let unsure = place.supafs(["spool", "discard", &id], &[]);
    assert_eq!(unsure.status.code(), Some(2));
    assert!(unsure.stderr.contains("--yes"));
    place.supafs(["spool", "discard", &id, "--yes"], &[]).ok();
    assert!(staged(&place).is_empty());
    let unknown = place.supafs(["spool", "retry", &id], &[]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(unknown.stderr.contains("spool list"));
}

#[test]
fn a_retried_file_is_uploaded_by_the_next_mount_and_by_the_one_that_runs() {
    let backend = standin_only!("the policies change");
    for runs in [false, true] {
        let bucket = backend.bucket();
        let (place, id) = refused(&backend, &bucket, b"once more");
        let mount = if runs {
            let mount = as_user(&backend, &bucket, place).start();
            backend.standin().set_policies(&bucket.name, vec![Policy::all(Predicate::Always)]);
            mount.place().supafs(["spool", "retry", &id], &[]).ok();
            mount
        } else {
            backend.standin().set_policies(&bucket.name, vec![Policy::all(Predicate::Always)]);
            place.supafs(["spool", "retry", "--all"], &[]).ok();
            as_user(&backend, &bucket, place).start()
        };
        eventually("the upload", || bucket.bytes("kept.txt"));
        assert_eq!(bucket.bytes("kept.txt").expect("it is there"), b"once more");
        eventually("an empty spool", || staged(mount.place()).is_empty().then_some(()));
        assert_eq!(mount.read("kept.txt"), b"once more");
    }
}

#[test]
fn a_signal_to_look_at_the_spool_has_no_other_effect() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let mount = Mount::new(&backend, &bucket);
    mount.signal(Signal::SIGUSR2);
    fs::write(mount.at("a"), b"a").expect("it lives");
    mount.signal(Signal::SIGUSR2);
    assert_eq!(mount.read("a"), b"a");
    mount.stop();
}

#[test]
fn a_retried_version_does_not_overwrite_a_later_one() {
    let backend = standin_only!("the policies change");
    let bucket = backend.bucket();
    let (place, id) = refused(&backend, &bucket, b"refused then");
    bucket.put("kept.txt", "later");
    backend.standin().set_policies(&bucket.name, vec![Policy::all(Predicate::Always)]);
    place.supafs(["spool", "retry", &id], &[]).ok();
    let mount = as_user(&backend, &bucket, place).start();
    eventually("the conflict copy", || (bucket.keys().len() == 2).then_some(()));
    assert_eq!(bucket.bytes("kept.txt").expect("it stays"), b"later");
    let copy = bucket.keys().into_iter().find(|key| key.contains("conflict")).expect("a copy");
    assert_eq!(bucket.bytes(&copy).expect("ours"), b"refused then");
    drop(mount);
}

#[test]
fn a_refused_deletion_makes_the_name_appear_again() {
    let backend = standin_only!("policies of the stand-in");
    let bucket = backend.bucket();
    bucket.put("kept.txt", "mine");
    let policies = [Command::Select, Command::Insert, Command::Update];
    let allow = |command| Policy::new(command, Predicate::Always);
    backend.standin().set_policies(&bucket.name, policies.map(allow).to_vec());
    let mount =
        as_user(&backend, &bucket, Place::new()).args("--write-back --write-back-delay 100ms").start();
    fs::remove_file(mount.at("kept.txt")).expect("it is queued");
    eventually("the name", || mount.names("").contains(&"kept.txt".to_owned()).then_some(()));
    assert_eq!(mount.read("kept.txt"), b"mine");
    assert!(mount.log().contains("refused to delete"), "{}", mount.log());
    let words = mount.sh("getfattr --only-values -n user.supabase.last-error .");
    assert!(words.to_lowercase().contains("access denied"), "{words}");
    assert!(staged(mount.place()).is_empty());
}

/// Every directory and file below, with its mode.
fn modes(dir: &Path, found: &mut Vec<(bool, u32)>) {
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        let metadata = entry.metadata().expect("its mode");
        found.push((metadata.is_dir(), metadata.permissions().mode() & 0o777));
        if metadata.is_dir() {
            modes(&entry.path(), found);
        }
    }
}

#[test]
fn nobody_else_can_look_into_the_spool() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let mount = Mount::with(&backend, &bucket, "--write-back --write-back-delay 1h");
    fs::write(mount.at("a"), b"a").expect("written");
    let mut found = Vec::new();
    modes(&mount.place().home().join("state/supafs/spool"), &mut found);
    assert!(found.len() > 3);
    assert!(found.iter().all(|&(is_dir, mode)| mode == if is_dir { 0o700 } else { 0o600 }), "{found:?}");
}

#[test]
fn a_full_spool_is_enospc_and_loses_nothing() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let mount =
        Mount::with(&backend, &bucket, "--write-back --write-back-delay 1h --spool-size 1MiB --fsync local");
    let first = body(1, 700_000);
    fs::write(mount.at("first"), &first).expect("there is room");
    let full = fs::write(mount.at("second"), body(2, 700_000)).expect_err("there is none");
    assert_eq!(full.raw_os_error(), Some(nix::errno::Errno::ENOSPC as i32));
    assert_eq!(mount.read("first"), first);
    mount.stop();
    assert_eq!(bucket.bytes("first").expect("uploaded"), first);
}

#[test]
fn a_full_disk_below_the_spool_is_enospc_and_loses_nothing() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can mount a small disk");
        return;
    }
    let backend = Backend::start();
    let bucket = backend.bucket();
    let place = Place::new();
    let disk = place.path().join("disk");
    fs::create_dir(&disk).expect("a directory");
    crate::common::run(place.path(), "mount -t tmpfs -o size=2m,mode=700 tmpfs disk");
    let options =
        format!("--write-back --write-back-delay 1h --fsync local --spool-dir {}/spool", disk.display());
    let mount = MountOptions::new(&backend, &bucket.name).args(&options).place(place).start();
    let first = body(1, 1_000_000);
    fs::write(mount.at("first"), &first).expect("there is room");
    let full = fs::write(mount.at("second"), body(2, 2_000_000)).expect_err("there is none");
    assert_eq!(full.raw_os_error(), Some(nix::errno::Errno::ENOSPC as i32));
    let place = mount.kill();
    // What a full disk held comes up again.
    let mount = MountOptions::new(&backend, &bucket.name).args(&options).place(place).start();
    assert_eq!(mount.read("first"), first);
    let (place, _) = mount.leave();
    crate::common::run(place.path(), "umount disk");
    assert_eq!(bucket.bytes("first").expect("uploaded"), first);
}

#[test]
fn another_identity_does_not_upload_what_one_staged() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let mount = Mount::with(&backend, &bucket, "--write-back --write-back-delay 1h");
    fs::write(mount.at("of-the-keys"), b"staged").expect("written");
    let place = mount.kill();
    let user = Login::User("00000000-0000-4000-8000-000000000002".to_owned());
    let other = MountOptions::new(&backend, &bucket.name).login(user).place(place).start();
    assert!(!other.names("").contains(&"of-the-keys".to_owned()));
    assert_eq!(staged(other.place()).len(), 1);
    let (place, code) = other.leave();
    assert_eq!((code, bucket.keys().len()), (Some(0), 0));
    let mount = MountOptions::new(&backend, &bucket.name).place(place).start();
    assert_eq!(mount.read("of-the-keys"), b"staged");
    mount.stop();
    assert_eq!(bucket.bytes("of-the-keys").expect("uploaded"), b"staged");
}
