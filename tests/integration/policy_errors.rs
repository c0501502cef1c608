//! A policy that raises an SQL error is told as what it is: not as a refused credential, and not as a broken server.

use std::fs;

use nix::errno::Errno;
use serde_json::json;
use supafs_standin::mint_user;

use crate::common::{Backend, Login, MountOptions, Place, errno, is_mounted};

/// The SQLSTATE of a division by zero.
const DIVISION_BY_ZERO: &str = "22012";

#[test]
fn a_policy_that_raises_an_error_is_eacces_and_named_and_other_buckets_are_mounted() {
    let backend = Backend::start();
    let (good, users) = backend.users();
    good.put(&format!("{}/file", users.alice), "hers");
    let (broken, folder, _) = backend.broken();
    broken.put(&format!("{folder}/file"), "nobody's");
    let all = format!("--all --bucket {} --bucket {}", good.name, broken.name);
    let mount = MountOptions::new(&backend, "").login(Login::User(users.alice.clone())).args(&all).start();
    assert_eq!(mount.read(&format!("{}/{}/file", good.name, users.alice)), b"hers");

    let path = |name: &str| mount.at(&format!("{}/{name}", broken.name));
    for _ in 0..2 {
        assert_eq!(
            errno(fs::read_dir(path(&folder)).and_then(Iterator::collect::<Result<Vec<_>, _>>)),
            Errno::EACCES
        );
        assert_eq!(errno(fs::read(path(&format!("{folder}/file")))), Errno::EACCES);
        assert_eq!(errno(fs::write(path(&format!("{folder}/new")), "x")), Errno::EACCES);
    }
    // Of the bucket, which can be asked for its attributes: its folders cannot be found.
    let last_error = format!("getfattr --only-values -n user.supabase.last-error '{}'", broken.name);
    let words = mount.sh(&last_error);
    assert!(words.contains(DIVISION_BY_ZERO), "{words}");
    let log = mount.log();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("policy error")).collect();
    assert_eq!(told.len(), 1, "{log}");
    assert!(told[0].contains(&broken.name) && told[0].contains(DIVISION_BY_ZERO), "{}", told[0]);
    assert!(!log.contains("doctor"), "the credential is not to blame: {log}");
}

#[test]
fn a_policy_error_at_mount_names_bucket_and_words() {
    let backend = Backend::start();
    let (broken, folder, user) = backend.broken();
    broken.put(&format!("{folder}/file"), "nobody's");
    let refused = MountOptions::new(&backend, &broken.name)
        .login(Login::User(user.clone()))
        .try_start()
        .err()
        .expect("nothing can be listed");
    assert!(!refused.is_mounted);
    for words in ["policy error", &broken.name, DIVISION_BY_ZERO] {
        assert!(refused.stderr.contains(words), "{words}: {}", refused.stderr);
    }
    assert!(!refused.stderr.contains("refuses the credential"), "{}", refused.stderr);

    let facts = backend.facts();
    let place = Place::new();
    let token = backend.token(&user, 3600);
    let env = [
        ("SUPABASE_S3_ENDPOINT", facts.endpoint.as_str()),
        ("SUPABASE_PROJECT_REF", facts.project_ref.as_str()),
        ("SUPABASE_ANON_KEY", facts.anon_key.as_str()),
        ("SUPABASE_SESSION_TOKEN", token.as_str()),
    ];
    let examined = place.supafs(["doctor", &broken.name], &env);
    let listable = examined.stdout.lines().find(|line| line.contains("listable")).expect("a line");
    assert!(listable.contains(DIVISION_BY_ZERO) && listable.contains("policy"), "{listable}");
}

#[test]
fn a_role_that_the_database_does_not_have_is_named() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let facts = backend.facts();
    let place = Place::new();
    let user = "c1e4c000-0000-4000-8000-000000000001";
    let token = mint_user(&facts.jwt_secret, user, "clerk", 3600, &json!({}));
    let common = [
        ("SUPABASE_S3_ENDPOINT", facts.endpoint.as_str()),
        ("SUPABASE_PROJECT_REF", facts.project_ref.as_str()),
        ("SUPABASE_ANON_KEY", facts.anon_key.as_str()),
    ];
    let by_token = [&common[..], &[("SUPABASE_SESSION_TOKEN", token.as_str())]].concat();
    let by_secret = [&common[..], &[("SUPABASE_JWT_SECRET", facts.jwt_secret.as_str())]].concat();
    let minted = ["mount", &bucket.name, "mnt", "--as-user", user, "--role", "clerk"];
    let access = ["access", &bucket.name, "--as", &format!("a={user}"), "--role", "a=clerk"];
    let why = place.supafs(access, &by_secret).refused();
    assert!(why.contains("no role \"clerk\""), "{why}");
    for (args, env) in [(&minted[..3], &by_token), (&minted[..], &by_secret)] {
        let why = place.supafs(args, env).refused();
        assert!(why.contains("no role \"clerk\"") && why.contains("--role"), "{why}");
        assert!(!is_mounted(place.mountpoint()));
    }
}
