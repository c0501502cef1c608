//! Row Level Security: each identity sees exactly what the policies of `tests/rls.sql` let it see, nothing of one is
//! served to another, and a hidden key is as absent as one that never was.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::common::{Backend, Bucket, Login, Mount, MountOptions, Users};
use nix::errno::Errno;
use serde_json::json;
use supafs_standin::{Command, Policy, Predicate, mint_user};

/// Follows changes at once.
const QUICK: &str = "--metadata-ttl 100ms --negative-ttl 100ms";

/// Some objects in each user's folder, some shared, and one that no policy speaks of.
fn fill(bucket: &Bucket<'_>, users: &Users) -> Vec<String> {
    let mut keys = Vec::new();
    for folder in [&users.alice, &users.bob, &users.shared] {
        keys.extend(["one.txt", "two.txt", "deep/er/three.txt"].map(|name| format!("{folder}/{name}")));
    }
    bucket.put_keys(&keys);
    keys.sort();
    keys
}

fn mount_as<'a>(backend: &'a Backend, bucket: &Bucket<'_>, login: Login) -> MountOptions<'a> {
    MountOptions::new(backend, &bucket.name).login(login)
}

fn mount_user(backend: &Backend, bucket: &Bucket<'_>, user: &str) -> Mount {
    mount_as(backend, bucket, Login::User(user.to_owned())).args(QUICK).start()
}

/// Signed as a session of the role `anon`, which is nobody in particular.
fn mount_anon(backend: &Backend, bucket: &Bucket<'_>) -> Mount {
    let facts = backend.facts();
    let token = mint_user(&facts.jwt_secret, "", "anon", 3600, &json!({ "sub": null }));
    mount_as(backend, bucket, Login::Custom)
        .env("SUPABASE_PROJECT_REF", facts.project_ref)
        .env("SUPABASE_ANON_KEY", facts.anon_key)
        .env("SUPABASE_SESSION_TOKEN", token)
        .args(QUICK)
        .start()
}

/// Keys below these folders.
fn below(keys: &[String], folders: &[&str]) -> Vec<String> {
    let is_below = |key: &&String| folders.iter().any(|folder| key.starts_with(&format!("{folder}/")));
    keys.iter().filter(is_below).cloned().collect()
}

/// Files below a folder as paths from the root, each with its bytes compared.
fn read_below(mount: &Mount, folder: &str) -> Vec<String> {
    let found = crate::common::sorted_lines(&mount.sh(&format!("find '{folder}' -type f")));
    for path in &found {
        assert_eq!(String::from_utf8_lossy(&mount.read(path)), *path);
    }
    found
}

#[track_caller]
fn assert_absent(path: &Path) {
    let errno = |error: io::Error| error.raw_os_error();
    let enoent = Err(Some(Errno::ENOENT as i32));
    assert_eq!(fs::metadata(path).map(|found| found.len()).map_err(errno), enoent, "stat {}", path.display());
    assert_eq!(File::open(path).map(drop).map_err(errno), enoent.map(drop), "open {}", path.display());
    assert_eq!(fs::read_dir(path).map(drop).map_err(errno), enoent.map(drop), "list {}", path.display());
}

#[test]
fn access_keys_see_everything() {
    let backend = Backend::start();
    let (bucket, users) = backend.users();
    let keys = fill(&bucket, &users);
    let mount = Mount::new(&backend, &bucket);
    for folder in [&users.alice, &users.bob, &users.shared] {
        assert_eq!(read_below(&mount, folder), below(&keys, &[folder]));
    }
}

#[test]
fn a_user_sees_exactly_their_own_folder_and_what_is_shared() {
    let backend = Backend::start();
    let (bucket, users) = backend.users();
    let keys = fill(&bucket, &users);
    for (own, other) in [(&users.alice, &users.bob), (&users.bob, &users.alice)] {
        for cold in [true, false] {
            let mount = mount_user(&backend, &bucket, own);
            if !cold {
                assert_eq!(mount.names(""), [own.as_str(), "shared"]);
            }
            assert_eq!(read_below(&mount, own), below(&keys, &[own]));
            assert_eq!(read_below(&mount, &users.shared), below(&keys, &[&users.shared]));
            assert_absent(&mount.at(other));
            for hidden in below(&keys, &[other]) {
                assert_absent(&mount.at(&hidden));
            }
            assert_eq!(mount.names(""), [own.as_str(), "shared"]);
            // Just as absent as what never was.
            assert_absent(&mount.at("nothing"));
            assert_absent(&mount.at(&format!("{other}/nothing")));
        }
    }
}

#[test]
fn nobody_in_particular_sees_nothing() {
    let backend = Backend::start();
    let (bucket, users) = backend.users();
    let keys = fill(&bucket, &users);
    let mount = mount_anon(&backend, &bucket);
    assert_eq!(mount.names(""), [""; 0]);
    for key in &keys {
        assert_absent(&mount.at(key));
    }
}

#[test]
fn a_bucket_without_rights_is_empty_for_a_user() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["file", "dir/inside"]);
    let (_, users) = backend.users();
    let mount = mount_user(&backend, &bucket, &users.alice);
    assert_eq!(mount.names(""), [""; 0]);
    assert_eq!(mount.sh("find ."), ".\n");
    assert_absent(&mount.at("file"));
    assert_absent(&mount.at("dir/inside"));
    assert_eq!(Mount::new(&backend, &bucket).files(), ["dir/inside", "file"], "with access keys");
}

#[test]
fn a_user_can_mount_their_own_folder_and_another_one_is_empty() {
    let backend = Backend::start();
    let (bucket, users) = backend.users();
    fill(&bucket, &users);
    let mount_folder = |folder: &str| {
        let target = format!("{}/{folder}", bucket.name);
        MountOptions::new(&backend, &target).login(Login::User(users.alice.clone())).start()
    };
    let own = mount_folder(&users.alice);
    assert_eq!(own.files(), ["deep/er/three.txt", "one.txt", "two.txt"]);
    assert_eq!(own.read("one.txt"), format!("{}/one.txt", users.alice).as_bytes());
    let other = mount_folder(&users.bob);
    assert_eq!(other.names(""), [""; 0]);
    assert_absent(&other.at("one.txt"));
}

#[test]
fn all_buckets_of_a_user_are_those_they_name() {
    let backend = Backend::start();
    let (bucket, users) = backend.users();
    let keys = fill(&bucket, &users);
    let hidden = backend.bucket();
    hidden.put_keys(["file"]);
    let mount = MountOptions::new(&backend, "")
        .login(Login::User(users.alice.clone()))
        .args(&format!("--all --bucket {} --bucket {}", bucket.name, hidden.name))
        .start();
    let mut names = vec![bucket.name.clone(), hidden.name.clone()];
    names.sort();
    assert_eq!(mount.names(""), names);
    let at = |path: &str| format!("{}/{path}", bucket.name);
    assert_eq!(mount.names(&bucket.name), [users.alice.as_str(), "shared"]);
    for key in below(&keys, &[&users.alice, &users.shared]) {
        assert_eq!(mount.read(&at(&key)), key.as_bytes());
    }
    for key in below(&keys, &[&users.bob]) {
        assert_absent(&mount.at(&at(&key)));
    }
    assert_eq!(mount.names(&hidden.name), [""; 0]);
    assert_absent(&mount.at(&format!("{}/file", hidden.name)));
    // A bucket that was not named is not there.
    assert_absent(&mount.at("another"));
}

#[test]
fn a_user_who_names_no_bucket_is_told_to() {
    let backend = standin_only!("policies on the buckets of a real stack are its owner's");
    let (_bucket, users) = backend.users();
    let refused = MountOptions::new(&backend, "").login(Login::User(users.alice)).args("--all").try_start();
    match refused {
        Ok(mount) => {
            assert_eq!(mount.names(""), [""; 0]);
            assert!(mount.log().contains("--bucket"), "{}", mount.log());
        }
        Err(refused) => assert!(refused.stderr.contains("--bucket"), "{refused:#?}"),
    }
}

#[test]
fn a_change_of_policies_shows_after_the_time_to_live() {
    let backend = standin_only!("it changes policies");
    let (bucket, users) = backend.users();
    let keys = fill(&bucket, &users);
    let mount = mount_user(&backend, &bucket, &users.alice);
    let bobs = format!("{}/one.txt", users.bob);
    let own = format!("{}/one.txt", users.alice);
    assert_absent(&mount.at(&bobs));

    backend.standin().set_policies(&bucket.name, Policy::authenticated_read());
    crate::common::eventually("all to be shown", || (mount.files() == keys).then_some(()));
    assert_eq!(mount.read(&bobs), bobs.as_bytes());
    assert_eq!(mount.read(&own), own.as_bytes());

    let shared = Predicate::Under("shared".to_owned());
    backend.standin().set_policies(&bucket.name, vec![Policy::new(Command::Select, shared)]);
    crate::common::eventually("all but what is shared to be gone", || {
        (mount.names("") == ["shared"]).then_some(())
    });
    // Not from any cache, of the daemon or of the kernel.
    for path in [&bobs, &own] {
        crate::common::eventually("a file to be gone", || (!mount.at(path).exists()).then_some(()));
        assert_absent(&mount.at(path));
    }
    // Nobody is signed in for this policy.
    let anon = mount_anon(&backend, &bucket);
    assert_eq!(anon.files(), below(&keys, &["shared"]));

    backend.standin().set_policies(&bucket.name, Vec::new());
    for mount in [&mount, &anon] {
        crate::common::eventually("all to be gone", || mount.names("").is_empty().then_some(()));
    }
}

#[test]
fn nothing_of_one_identity_is_served_to_another() {
    let backend = Backend::start();
    let (bucket, users) = backend.users();
    let keys = fill(&bucket, &users);
    let root = Mount::new(&backend, &bucket);
    let alice = mount_user(&backend, &bucket, &users.alice);
    let bob = mount_user(&backend, &bucket, &users.bob);
    let anon = mount_anon(&backend, &bucket);
    std::thread::scope(|scope| {
        for (mount, own, other) in
            [(&alice, &users.alice, Some(&users.bob)), (&bob, &users.bob, Some(&users.alice))]
        {
            let (keys, users, root, anon) = (&keys, &users, &root, &anon);
            scope.spawn(move || {
                for _ in 0..5 {
                    for key in below(keys, &[own, &users.shared]) {
                        assert_eq!(root.read(&key), key.as_bytes());
                        assert_eq!(mount.read(&key), key.as_bytes());
                        assert_absent(&anon.at(&key));
                    }
                    for key in below(keys, &[other.expect("one")]) {
                        assert_absent(&mount.at(&key));
                    }
                }
            });
        }
    });
    assert_eq!(alice.names(""), [users.alice.as_str(), "shared"]);
    assert_eq!(bob.names(""), [users.bob.as_str(), "shared"]);
    assert_eq!(anon.names(""), [""; 0]);
    assert_eq!(anon.status()["bytes_received"], 0);
}
