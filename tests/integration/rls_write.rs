//! Writing as a user under Row Level Security: what the policies allow works, what they forbid is `EACCES` at the
//! call, and the listing tells the truth afterwards.

use std::fs::{self, File};
use std::io;

use nix::errno::Errno;
use supafs_standin::{Command, Policy, Predicate};

use crate::common::{Backend, Bucket, Login, Mount, MountOptions, eventually};
use crate::spool::staged;

fn mount_user(backend: &Backend, bucket: &Bucket<'_>, user: &str, args: &str) -> Mount {
    MountOptions::new(backend, &bucket.name).login(Login::User(user.to_owned())).args(args).start()
}

#[track_caller]
fn assert_denied<T>(result: io::Result<T>) {
    let error = result.err().expect("it is refused");
    assert_eq!(error.raw_os_error(), Some(Errno::EACCES as i32), "{error}");
}

/// A stand-in's bucket with exactly these commands allowed, and a mount as a user.
fn with_commands<'a>(backend: &'a Backend, commands: &[Command]) -> (Bucket<'a>, Mount) {
    let (bucket, users) = backend.users();
    let allow = |command: &Command| Policy::new(*command, Predicate::Always);
    backend.standin().set_policies(&bucket.name, commands.iter().map(allow).collect());
    bucket.put("d/old", "old");
    bucket.put("d/other", "other");
    let mount = mount_user(backend, &bucket, &users.alice, "");
    (bucket, mount)
}

#[test]
fn a_user_does_everything_in_their_own_folder() {
    let backend = Backend::start();
    let (bucket, users) = backend.users();
    for args in ["", "--write-back"] {
        let mount = mount_user(&backend, &bucket, &users.alice, args);
        mount.sh(&format!(
            "mkdir -p {0}/d; cd {0}; echo one > a; echo two >> a; echo other > b; echo over > b; mv b d/c; mv a d/c2
            cp d/c gone; rm gone; mv d e; [ \"$(cat e/c2)\" = $'one\\ntwo' ]",
            users.alice
        ));
        mount.stop();
        let at = |name: &str| format!("{}/{name}", users.alice);
        assert_eq!(bucket.bytes(&at("e/c")).as_deref(), Some(&b"over\n"[..]));
        assert_eq!(bucket.bytes(&at("e/c2")).as_deref(), Some(&b"one\ntwo\n"[..]));
        bucket.delete(&at("e/c"));
        bucket.delete(&at("e/c2"));
        bucket.delete(&at("e/.emptyFolderPlaceholder"));
    }
}

#[test]
fn where_a_policy_forbids_it_every_change_is_eacces_and_nothing_remains() {
    let backend = Backend::start();
    let (bucket, users) = backend.users();
    let (shared, own) = (format!("{}/a", users.shared), format!("{}/a", users.alice));
    bucket.put(&shared, "shared");
    bucket.put(&own, "own");
    let mount = mount_user(&backend, &bucket, &users.alice, "");
    let at = |path: &str| mount.at(path);
    assert_denied(fs::create_dir(at(&format!("{}/d", users.shared))));
    let new = format!("{}/new", users.shared);
    assert_denied(File::create(at(&new)));
    assert_denied(File::create(at(&shared)));
    assert!(!at(&new).exists());
    assert_eq!(mount.names(&users.shared), ["a"]);
    // The writer knows: nothing is kept for anybody to decide about.
    eventually("an empty spool", || staged(mount.place()).is_empty().then_some(()));
    assert_denied(fs::remove_file(at(&shared)));
    assert_denied(fs::rename(at(&shared), at(&format!("{}/moved", users.alice))));
    assert_denied(fs::rename(at(&own), at(&new)));
    assert_denied(fs::rename(at(&own), at(&shared)));
    // In both directions everything is as it was, here and at the server.
    assert_eq!(mount.names(&users.alice), ["a"]);
    assert_eq!((mount.read(&shared), mount.read(&own)), (b"shared".to_vec(), b"own".to_vec()));
    mount.stop();
    assert_eq!(bucket.bytes(&shared).as_deref(), Some(&b"shared"[..]));
    assert_eq!(bucket.bytes(&own).as_deref(), Some(&b"own"[..]));
    assert_eq!(bucket.bytes(&format!("{}/moved", users.alice)), None);
    assert_eq!(bucket.bytes(&new), None);
}

#[test]
fn a_forbidden_write_behind_is_parked_with_the_servers_words() {
    let backend = Backend::start();
    let (bucket, lab) = backend.laboratory();
    let (theirs, own) = (format!("{}/theirs", lab.board), format!("{}/own", lab.board));
    bucket.put(&theirs, "theirs");
    let mount = mount_user(&backend, &bucket, &lab.bob, "--write-back --write-back-delay 50ms");
    // Who may replace one file of a folder is not asked about the next one: by owner, only the server tells.
    for version in ["one", "two"] {
        fs::write(mount.at(&own), version).expect("one's own");
        eventually("the upload", || (bucket.bytes(&own)? == version.as_bytes()).then_some(()));
        eventually("an empty spool", || staged(mount.place()).is_empty().then_some(()));
    }
    fs::write(mount.at(&theirs), "secret").expect("close does not ask the server");
    eventually("the version of the server", || (mount.read(&theirs) == b"theirs").then_some(()));
    let words = mount.sh(&format!("getfattr --only-values -n user.supabase.last-error '{}'", lab.board));
    assert!(words.contains("row-level security"), "{words}");
    assert!(mount.log().contains("supafs spool list"));
    assert_eq!(bucket.bytes(&theirs).as_deref(), Some(&b"theirs"[..]));
}

#[test]
fn without_the_right_to_update_new_files_work_and_old_ones_are_eacces() {
    let backend = standin_only!("it sets policies");
    let (bucket, mount) = with_commands(&backend, &[Command::Select, Command::Insert]);
    fs::write(mount.at("d/new"), "new").expect("a new file");
    assert_denied(File::create(mount.at("d/old")));
    assert_denied(fs::remove_file(mount.at("d/other")));
    // The target is new, the source cannot go: its copy cannot go either, so nothing may be lost.
    assert_denied(fs::rename(mount.at("d/other"), mount.at("d/moved")));
    assert_eq!(bucket.bytes("d/new").as_deref(), Some(&b"new"[..]));
    assert_eq!(bucket.bytes("d/old").as_deref(), Some(&b"old"[..]));
    assert_eq!(mount.read("d/other"), b"other");
}

#[test]
fn a_rename_whose_source_stays_leaves_the_target_as_it_was() {
    let backend = standin_only!("it sets policies");
    let (bucket, mount) = with_commands(&backend, &[Command::Select, Command::Insert, Command::Update]);
    assert_denied(fs::rename(mount.at("d/other"), mount.at("d/old")));
    assert_eq!(bucket.bytes("d/old").as_deref(), Some(&b"old"[..]));
    assert_eq!(bucket.bytes("d/other").as_deref(), Some(&b"other"[..]));
    assert_eq!((mount.read("d/old"), mount.read("d/other")), (b"old".to_vec(), b"other".to_vec()));
}

#[test]
fn a_folder_that_cannot_be_kept_goes_with_its_last_file() {
    let backend = standin_only!("it sets policies");
    let (bucket, mount) = with_commands(&backend, &[Command::Select, Command::Delete]);
    fs::remove_file(mount.at("d/old")).expect("deleted");
    fs::remove_file(mount.at("d/other")).expect("deleted, though its folder cannot be kept");
    assert_eq!(bucket.keys(), [""; 0]);
}
