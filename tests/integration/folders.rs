//! Folders: made, kept and removed as Supabase's dashboard has them.

use std::fs;

use crate::common::{Backend, Login, Mount, MountOptions, errno};
use nix::errno::Errno;
use supafs_standin::{Command, Policy, Predicate};

const PLACEHOLDER: &str = ".emptyFolderPlaceholder";

#[test]
fn a_folder_that_is_made_is_a_placeholder_and_survives() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let mount = Mount::new(&backend, &bucket);
    fs::create_dir_all(mount.at("a/b")).expect("mkdir");
    let keys = [format!("a/{PLACEHOLDER}"), format!("a/b/{PLACEHOLDER}")];
    assert_eq!(bucket.keys(), keys);
    assert_eq!(bucket.bytes(&keys[0]).as_deref(), Some(&b""[..]));
    assert_eq!(errno(fs::create_dir(mount.at("a"))), Errno::EEXIST);
    fs::write(mount.at("file"), b"").expect("write");
    assert_eq!(errno(fs::create_dir(mount.at("file"))), Errno::EEXIST);
    assert_eq!(mount.names("a"), ["b"], "the placeholder is not shown");
    mount.stop();
    let mount = Mount::new(&backend, &bucket);
    assert_eq!(mount.names("a/b"), Vec::<String>::new());
    fs::remove_dir(mount.at("a/b")).expect("rmdir");
    fs::remove_dir(mount.at("a")).expect("rmdir");
    assert_eq!(bucket.keys(), ["file"]);
    assert_eq!(mount.names(""), ["file"]);
}

#[test]
fn a_folder_that_holds_something_is_not_removed() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["listed/file", "folder/sub/file"]);
    let mount = Mount::new(&backend, &bucket);
    assert_eq!(errno(fs::remove_dir(mount.at("listed"))), Errno::ENOTEMPTY);
    assert_eq!(errno(fs::remove_dir(mount.at("folder"))), Errno::ENOTEMPTY);
    fs::create_dir(mount.at("made")).expect("mkdir");
    fs::write(mount.at("made/file"), b"x").expect("write");
    assert_eq!(errno(fs::remove_dir(mount.at("made"))), Errno::ENOTEMPTY);
    assert_eq!(errno(fs::remove_dir(mount.at("made/file"))), Errno::ENOTDIR);
    assert_eq!(errno(fs::remove_file(mount.at("made"))), Errno::EISDIR);
    assert_eq!(errno(fs::remove_dir(mount.at("nothing"))), Errno::ENOENT);
    // What another client put there meanwhile.
    fs::create_dir(mount.at("shared")).expect("mkdir");
    bucket.put_keys(["shared/theirs"]);
    let mount = Mount::new(&backend, &bucket);
    assert_eq!(errno(fs::remove_dir(mount.at("shared"))), Errno::ENOTEMPTY);
    mount.sh("rm -r listed folder made shared");
    assert_eq!(bucket.keys(), Vec::<String>::new());
}

#[test]
fn the_last_file_that_leaves_a_folder_leaves_the_folder() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["a/one", "a/two", "b/file", "c/sub/file", "d/file"]);
    let mount = Mount::new(&backend, &bucket);
    fs::remove_file(mount.at("a/one")).expect("unlink");
    assert!(!bucket.keys().contains(&format!("a/{PLACEHOLDER}")), "one is still there");
    fs::remove_file(mount.at("a/two")).expect("unlink");
    // By a rename, and as the last folder in a folder.
    fs::rename(mount.at("b/file"), mount.at("file")).expect("rename");
    mount.sh("rm -r c/sub");
    // In a file that was new here.
    fs::remove_file(mount.at("d/file")).expect("unlink");
    fs::write(mount.at("d/new"), b"x").expect("write");
    fs::remove_file(mount.at("d/new")).expect("unlink");
    let left = ["a", "b", "c", "d"].map(|folder| format!("{folder}/{PLACEHOLDER}"));
    assert_eq!(bucket.keys(), [&left[..], &["file".to_owned()]].concat());
    mount.stop();
    let mount = Mount::new(&backend, &bucket);
    assert_eq!(mount.names(""), ["a", "b", "c", "d", "file"]);
    mount.sh("rmdir a b c d");
    assert_eq!(bucket.keys(), ["file"]);
}

#[test]
fn a_file_goes_where_a_policy_refuses_to_keep_its_folder() {
    let backend = standin_only!("it takes policies of the test's own");
    let (bucket, users) = backend.users();
    let mut policies = vec![Policy::new(Command::Select, Predicate::Always)];
    policies.push(Policy::new(Command::Delete, Predicate::Always));
    backend.standin().set_policies(&bucket.name, policies);
    bucket.put_keys(["folder/file"]);
    let mount = MountOptions::new(&backend, &bucket.name).login(Login::User(users.alice)).start();
    fs::remove_file(mount.at("folder/file")).expect("unlink");
    assert_eq!(bucket.keys(), Vec::<String>::new());
}

#[test]
fn a_folder_that_a_policy_forbids_is_eacces() {
    let backend = Backend::start();
    let (bucket, users) = backend.users();
    bucket.put_keys([format!("{}/file", users.shared), format!("{}/file", users.alice)]);
    let mount = MountOptions::new(&backend, &bucket.name).login(Login::User(users.alice.clone())).start();
    assert_eq!(errno(fs::create_dir(mount.at(&format!("{}/sub", users.shared)))), Errno::EACCES);
    assert!(!mount.at(&format!("{}/sub", users.shared)).exists());
    fs::create_dir(mount.at(&format!("{}/sub", users.alice))).expect("one's own folder");
    let path = format!("{}/file", users.shared);
    assert_eq!(errno(fs::remove_file(mount.at(&path))), Errno::EACCES);
    assert!(mount.at(&path).exists(), "it is still there, and still shown");
    assert_eq!(errno(fs::File::create(mount.at(&format!("{}/new", users.shared)))), Errno::EACCES);
    assert_eq!(mount.names(&users.shared), ["file"]);
}

#[test]
fn a_folder_that_another_client_marked_by_its_own_key_is_removed() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put("marked/", "");
    let mount = Mount::new(&backend, &bucket);
    assert_eq!(mount.names("marked"), Vec::<String>::new());
    fs::remove_dir(mount.at("marked")).expect("rmdir");
    assert_eq!(bucket.keys(), Vec::<String>::new());
}
