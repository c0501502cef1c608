//! `supafs access`: what each identity may do, in the server's own words, without a trace.

use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use supafs_standin::{Command, Fault, Policy, Predicate, PutOptions};

use crate::common::{Backend, Bucket, Ops, Place, eventually};

const ALICE: &str = "a11ce000-5a1e-4c1d-9f00-00000000a11c";
const BOB: &str = "b0b00000-7e57-4d0e-8b00-000000000b0b";
const AS_ALICE: &str = "alice=a11ce000-5a1e-4c1d-9f00-00000000a11c";
const AS_BOB: &str = "bob=b0b00000-7e57-4d0e-8b00-000000000b0b";
const WORDS: &str = "new row violates row-level security policy";

/// A bucket of a stand-in with these policies.
fn bucket_with(backend: &Backend, policies: Vec<Policy>) -> Bucket<'_> {
    let bucket = backend.bucket();
    backend.standin().set_policies(&bucket.name, policies);
    bucket
}

/// Verdicts as JSON.
fn rows(backend: &Backend, args: &[&str]) -> Vec<Value> {
    let outcome = Place::new().supafs_as_owner(backend, ["access", "--json"].iter().chain(args)).ok();
    serde_json::from_str(&outcome.stdout).expect("JSON")
}

/// The one verdict on an identity and an operation.
#[track_caller]
fn verdict<'a>(rows: &'a [Value], identity: &str, operation: &str) -> (Option<bool>, &'a str) {
    let mut is = rows.iter().filter(|row| row["identity"] == identity && row["operation"] == operation);
    let row = is.next().unwrap_or_else(|| panic!("{identity} {operation}: {rows:#?}"));
    assert!(is.next().is_none(), "{rows:#?}");
    assert_eq!(row.as_object().map(serde_json::Map::len), Some(5), "{row}");
    (row["allowed"].as_bool(), row["message"].as_str().expect("text"))
}

/// What each operation came to, in order.
fn all(rows: &[Value], identity: &str) -> [Option<bool>; 5] {
    ["list", "read", "create", "overwrite", "delete"].map(|operation| verdict(rows, identity, operation).0)
}

const YES: Option<bool> = Some(true);
const NO: Option<bool> = Some(false);

#[test]
fn an_object_is_a_table_with_the_servers_words() {
    let backend = Backend::start();
    let (bucket, lab) = backend.laboratory();
    bucket.put(&format!("{}/plan.txt", lab.shared), "x");
    let path = format!("{}/{}/plan.txt", bucket.name, lab.shared);
    let alice = format!("alice={}", lab.alice);
    let args = ["access", &path, "--as", &alice, "--as", "anon", "--as", "service"];
    let outcome = Place::new().supafs_as_owner(&backend, args).ok();
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(
        lines[..5],
        [
            path.as_str(),
            "         list  read  create  overwrite  delete",
            "alice    yes   yes   no      no         ?",
            "anon     no    no    no      no         no",
            "service  yes   yes   yes     yes        ?",
        ]
    );
    let refused = |who: &str, operation: &str, words: &str| {
        let is = |line: &&&str| line.starts_with(who) && line.contains(operation) && line.contains(words);
        assert!(lines[5..].iter().filter(is).count() == 1, "{who} {operation}: {}", outcome.stdout);
    };
    refused("alice", " create ", &format!("403 AccessDenied: {WORDS}"));
    refused("alice", " overwrite ", &format!("403 AccessDenied: {WORDS}"));
    refused("anon", " list ", "shows nothing; alice sees");
    refused("anon", " read ", "404 NoSuchKey");
    // Where S3 differs from the client libraries.
    assert!(outcome.stderr.contains("an upsert") && outcome.stderr.contains("SELECT"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("storage.operation()"), "{}", outcome.stderr);
}

#[test]
fn a_folder_is_a_tree() {
    let backend = Backend::start();
    let (bucket, lab) = backend.laboratory();
    bucket.put_keys(["a.txt", "d/x", "d/deep/y", "z.txt"].map(|name| format!("{}/{name}", lab.shared)));
    let alice = format!("alice={}", lab.alice);
    let path = format!("{}/{}", bucket.name, lab.shared);
    let args = ["access", &path, "--as", &alice, "--as", "anon", "--names", "2", "--depth", "2"];
    let outcome = Place::new().supafs_as_owner(&backend, args).ok();
    let tree: Vec<&str> = outcome.stdout.lines().take_while(|line| !line.is_empty()).collect();
    let wide = path.len() + 1;
    let line = |label: &str| format!("{label:wide$}  lr--?  -----");
    assert_eq!(
        tree,
        [
            "l list, r read, c create, o overwrite, d delete; - refused, ? not known".to_owned(),
            format!("{:wide$}  alice  anon", ""),
            line(&format!("{path}/")),
            line("├── a.txt"),
            line("└── d/"),
            line("    ├── deep/"),
            line("    └── x"),
            "… and more (--names)".to_owned(),
        ]
    );
}

#[test]
fn what_nobody_sees_has_no_verdict_and_a_new_name_is_tried_itself() {
    let backend = Backend::start();
    let (bucket, lab) = backend.laboratory();
    let (alice, bob) = (format!("alice={}", lab.alice), format!("bob={}", lab.bob));
    let path = format!("{}/{}/new.txt", bucket.name, lab.alice);
    let found = rows(&backend, &[&path, "--as", &alice, "--as", &bob]);
    assert_eq!(all(&found, "alice"), [None, None, YES, None, None]);
    assert_eq!(all(&found, "bob"), [None, None, NO, None, None]);
    let key = format!("{}/new.txt", lab.alice);
    for (who, words) in [("alice", "accepted"), ("bob", WORDS)] {
        let (_, message) = verdict(&found, who, "create");
        assert!(message.contains(&format!("{key:?}")) && message.contains(words), "{message}");
    }
    assert!(verdict(&found, "alice", "read").1.contains("no identity of this call sees it"));
    assert!(verdict(&found, "alice", "delete").1.contains("--probe-delete"));
    assert_eq!(bucket.own().len(), 0);
}

#[test]
fn roles_and_claims_go_into_the_token() {
    let backend = Backend::start();
    let (bucket, lab) = backend.laboratory();
    bucket.put(&format!("{}/a", lab.team), "x");
    let path = format!("{}/{}/a", bucket.name, lab.team);
    let place = Place::new();
    let claims = place.file("claims.json", &lab.claims().to_string(), 0o644);
    let (alice, bob) = (format!("alice={}", lab.alice), format!("bob={}", lab.bob));
    let (claims, role) = (format!("alice=@{}", claims.display()), "root=service_role");
    let args =
        [&path, "--as", &alice, "--claims", &claims, "--as", &bob, "--as", "root=anon", "--role", role];
    let found = rows(&backend, &args);
    assert_eq!(all(&found, "alice"), [YES, YES, YES, YES, None]);
    assert_eq!(all(&found, "bob"), [NO; 5]);
    assert_eq!(all(&found, "root"), [YES, YES, YES, YES, None]);
}

#[test]
fn users_who_sign_in_are_identities_too() {
    let backend = standin_only!("there is no Auth");
    let bucket = bucket_with(&backend, Policy::user_folders());
    bucket.put(&format!("{BOB}/a"), "x");
    let path = format!("{}/{BOB}/a", bucket.name);
    let place = Place::new();
    let url = backend.standin().plain_endpoint();
    let run = |password: Option<&str>| {
        let args =
            ["access", "--json", &path, "--url", &url, "--as", AS_ALICE, "--as", "bob=bob@example.com"];
        let mut command = place.owners_command(&backend, args);
        command.env_remove("SUPABASE_S3_ENDPOINT");
        command.envs(password.map(|password| ("SUPABASE_PASSWORD", password)));
        crate::common::outcome(command)
    };
    let check = |outcome: crate::common::Outcome| {
        let found: Vec<Value> = serde_json::from_str(&outcome.ok().stdout).expect("JSON");
        assert_eq!(all(&found, "bob"), [YES, YES, YES, YES, None]);
        assert_eq!(all(&found, "alice"), [NO; 5]);
    };
    assert!(run(Some("another")).refused().contains("bob@example.com"));
    check(run(Some("bob-password")));
    // Kept, it needs no password.
    let key = backend.facts().anon_key;
    let env = [("SUPABASE_ANON_KEY", key.as_str()), ("SUPABASE_PASSWORD", "bob-password")];
    place.supafs(["login", "--url", &url, "--email", "bob@example.com"], &env).ok();
    check(run(None));
}

#[test]
fn what_is_tried_on_an_object_is_told_with_its_name() {
    let backend = standin_only!("it sets owners");
    let under = |name: &str| Predicate::Under(name.to_owned());
    let change = |command| Policy::new(command, Predicate::Owner);
    let policies = vec![
        Policy::new(Command::Select, under("board")),
        change(Command::Insert),
        change(Command::Update),
        change(Command::Delete),
    ];
    let bucket = bucket_with(&backend, policies);
    let owned = |sub: &str| PutOptions { owner: Some(sub.to_owned()), ..PutOptions::default() };
    backend.standin().put_with(&bucket.name, "board/by-alice.png", "x", owned(ALICE));
    backend.standin().put_with(&bucket.name, "board/by-bob.png", "", owned(BOB));
    let path = format!("{}/board/", bucket.name);
    let found = rows(&backend, &[&path, "--depth", "0", "--as", AS_ALICE, "--as", AS_BOB]);
    assert_eq!(all(&found, "alice"), [YES, YES, YES, YES, None]);
    assert_eq!(all(&found, "bob"), [YES, YES, YES, NO, None]);
    for operation in ["list", "read", "overwrite"] {
        assert!(verdict(&found, "bob", operation).1.contains("\"board/by-alice.png\""), "{found:#?}");
    }
    // A new name has the ending of its neighbours, for policies that look at it.
    let (_, created) = verdict(&found, "bob", "create");
    assert!(created.contains("\"board/supafs-probe-") && created.contains(".png\""), "{created}");
    // Bob's own object, which is empty: there is no first byte, and he may read it all the same.
    let found = rows(&backend, &[&format!("{path}by-bob.png"), "--as", AS_BOB]);
    assert_eq!(all(&found, "bob"), [YES, YES, YES, YES, None]);
}

#[test]
fn a_bucket_that_takes_pictures_only_is_probed_with_a_picture() {
    let backend = standin_only!("it sets limits");
    let bucket = bucket_with(&backend, Policy::authenticated_all());
    let limits = supafs_standin::BucketLimits {
        file_size_limit: None,
        allowed_mime_types: vec!["image/*".to_owned()],
    };
    backend.standin().set_bucket_limits(&bucket.name, limits);
    bucket.put("a.png", "x");
    let found = rows(&backend, &[&bucket.name, "--depth", "0", "--as", AS_ALICE]);
    assert_eq!(all(&found, "alice"), [YES, YES, YES, YES, None]);
    let found = rows(&backend, &[&format!("{}/new.txt", bucket.name), "--as", AS_ALICE]);
    let (allowed, message) = verdict(&found, "alice", "create");
    assert_eq!(allowed, NO);
    assert!(message.contains("415") && message.contains("text/plain"), "{message}");
}

#[test]
fn deleting_is_tried_on_an_object_of_its_own_only_when_asked_for() {
    let backend = standin_only!("it sets policies and counts requests");
    let allow = |commands: &[Command]| -> Vec<Policy> {
        commands.iter().map(|command| Policy::new(*command, Predicate::Always)).collect()
    };
    for (commands, allowed, words) in [
        (&Command::ALL[..], YES, "which the identity made itself, was done"),
        // It made the object, and only the access keys could take it away.
        (&[Command::Select, Command::Insert][..], NO, "that the identity made itself"),
        // The access keys made it.
        (&[Command::Select, Command::Delete][..], YES, "as the identity may not create one"),
        (&[Command::Select][..], NO, "as the identity may not create one"),
    ] {
        let bucket = bucket_with(&backend, allow(commands));
        bucket.put("d/a", "x");
        let path = format!("{}/d/", bucket.name);
        backend.standin().clear_log();
        let found = rows(&backend, &[&path, "--depth", "0", "--as", AS_ALICE]);
        assert_eq!(verdict(&found, "alice", "delete").0, None);
        let changed = ["PutObject", "DeleteObject", "DeleteObjects", "CompleteMultipartUpload", "CopyObject"];
        assert_eq!(changed.map(|operation| backend.standin().count(operation)), [0; 5]);
        let found = rows(&backend, &[&path, "--depth", "0", "--as", AS_ALICE, "--probe-delete"]);
        let (told, message) = verdict(&found, "alice", "delete");
        assert_eq!(told, allowed, "{commands:?}: {message}");
        assert!(message.contains(words) && message.contains("supafs-probe-"), "{message}");
        assert_eq!(bucket.keys(), ["d/a"], "{commands:?}");
    }
}

#[test]
fn without_keys_the_service_role_takes_away_what_was_made() {
    let backend = standin_only!("it sets policies");
    let make = vec![
        Policy::new(Command::Select, Predicate::Always),
        Policy::new(Command::Insert, Predicate::Always),
    ];
    let bucket = bucket_with(&backend, make);
    let place = Place::new();
    let mut command = place.owners_command(
        &backend,
        ["access", &format!("{}/d/", bucket.name), "--as", AS_ALICE, "--probe-delete"],
    );
    command.env_remove("SUPABASE_S3_ACCESS_KEY_ID").env_remove("SUPABASE_S3_SECRET_ACCESS_KEY");
    let outcome = crate::common::outcome(command).ok();
    assert!(outcome.stdout.contains("403 AccessDenied: Access denied"), "{}", outcome.stdout);
    assert_eq!(bucket.keys(), [""; 0]);
}

#[test]
fn probing_costs_what_it_says_and_every_upload_is_aborted() {
    let backend = standin_only!("it counts requests");
    let bucket = bucket_with(&backend, Policy::authenticated_all());
    bucket.put_keys(["d/a", "d/b", "d/c"]);
    backend.standin().clear_log();
    rows(&backend, &[&format!("{}/d/a", bucket.name), "--as", AS_ALICE]);
    let counts = |pairs| Ops::of(pairs);
    let spent = || {
        let of = |name: &'static str| (name, backend.standin().count(name));
        let names = ["ListObjectsV2", "GetObject", "CreateMultipartUpload", "AbortMultipartUpload"];
        counts(names.map(of))
    };
    let expected = counts([
        ("ListObjectsV2", 1),
        ("GetObject", 1),
        ("CreateMultipartUpload", 2),
        ("AbortMultipartUpload", 2),
    ]);
    assert_eq!(spent(), expected);
    assert_eq!(backend.standin().counts().values().sum::<u64>(), 6);
    // Of a folder, new names are tried once for all that is in it.
    backend.standin().clear_log();
    rows(&backend, &[&format!("{}/d/", bucket.name), "--as", AS_ALICE]);
    let expected = counts([
        ("ListObjectsV2", 4),
        ("GetObject", 4),
        ("CreateMultipartUpload", 5),
        ("AbortMultipartUpload", 5),
    ]);
    assert_eq!(spent(), expected);
    assert_eq!(backend.standin().uploads(&bucket.name), []);
}

#[test]
fn an_upload_that_its_maker_may_not_abort_is_aborted_by_the_keys() {
    let backend = standin_only!("it injects faults");
    let bucket = bucket_with(&backend, Policy::authenticated_all());
    bucket.put("d/a", "x");
    let args = ["access", &format!("{}/d/a", bucket.name), "--as", AS_ALICE];
    // A policy that calls storage.operation() can tell an abort from what it ends.
    let refuse = || Fault::status(403, "AccessDenied").on("AbortMultipartUpload");
    let fault = backend.fault(refuse().times(1));
    Place::new().supafs_as_owner(&backend, args).ok();
    assert_eq!(backend.standin().fault_hits(fault), 1);
    assert_eq!(backend.standin().uploads(&bucket.name), []);
    // Where nobody may, it is told, and the command fails.
    backend.fault(refuse());
    let outcome = Place::new().supafs_as_owner(&backend, args);
    assert!(outcome.refused().contains("left behind: the upload "));
    assert_eq!(backend.standin().uploads(&bucket.name).len(), 2);
}

#[test]
fn an_interrupt_leaves_nothing_behind() {
    let backend = standin_only!("it sets latency");
    let bucket = bucket_with(&backend, Policy::authenticated_all());
    bucket.put_keys((0..20).map(|i| format!("d/{i:02}")));
    backend.standin().clear_log();
    backend.standin().set_latency(Duration::from_millis(100));
    let place = Place::new();
    let path = format!("{}/d/", bucket.name);
    let mut child = place
        .owners_command(&backend, ["access", &path, "--as", AS_ALICE, "--as", AS_BOB, "--probe-delete"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    eventually("an upload under way", || (!backend.standin().uploads(&bucket.name).is_empty()).then_some(()));
    kill(Pid::from_raw(i32::try_from(child.id()).expect("a pid")), Signal::SIGINT).expect("it lives");
    assert_eq!(child.wait().expect("its end").code(), Some(1));
    assert_eq!(backend.standin().uploads(&bucket.name), []);
    assert_eq!(bucket.keys().len(), 20);
    assert!(backend.standin().count("CreateMultipartUpload") < 42, "it went on to the end");
}

#[test]
fn an_identity_that_the_server_does_not_take_is_named() {
    let backend = Backend::start();
    let (bucket, lab) = backend.laboratory();
    let alice = format!("alice={}", lab.alice);
    let place = Place::new();
    let args = ["access", &bucket.name, "--as", "service", "--as", &alice];
    let mut command = place.owners_command(&backend, args);
    command.env("SUPABASE_JWT_SECRET", "another-secret-with-at-least-32-characters");
    let told = crate::common::outcome(command).refused();
    assert!(told.contains("identity alice") && told.contains("signature"), "{told}");
    let missing = ["access", "supafs-test-no-such-bucket", "--as", &alice];
    assert!(place.supafs_as_owner(&backend, missing).refused().contains("there is no bucket"));
}

#[test]
fn what_is_missing_is_asked_for() {
    let backend = standin_only!("it is about settings");
    let place = Place::new();
    for (unset, words) in [
        ("SUPABASE_JWT_SECRET", "JWT secret"),
        ("SUPABASE_ANON_KEY", "SUPABASE_ANON_KEY"),
        ("SUPABASE_S3_ACCESS_KEY_ID", "SUPABASE_S3_ACCESS_KEY_ID"),
    ] {
        let mut command =
            place.owners_command(&backend, ["access", "b", "--as", AS_ALICE, "--as", "service"]);
        command.env_remove(unset);
        let told = crate::common::outcome(command).refused();
        assert!(told.contains(words), "{unset}: {told}");
    }
    for args in
        [vec!["access", "b"], vec!["access", "b", "--as", "alice"], vec!["access", "/b", "--as", "anon"]]
    {
        let outcome = place.supafs_as_owner(&backend, &args);
        assert_eq!(outcome.status.code(), Some(2), "{args:?}: {outcome:#?}");
    }
}

#[test]
fn a_failing_server_gives_no_verdict() {
    let backend = standin_only!("it injects faults");
    let bucket = bucket_with(&backend, Policy::authenticated_all());
    bucket.put("a", "x");
    backend.fault(Fault::status(500, "DatabaseError").on("GetObject"));
    let found = rows(&backend, &[&format!("{}/a", bucket.name), "--as", AS_ALICE]);
    let (allowed, message) = verdict(&found, "alice", "read");
    assert_eq!(allowed, None);
    assert!(message.contains("500 DatabaseError"), "{message}");
    assert_eq!(
        found[0],
        json!({"identity": "alice", "path": format!("{}/a", bucket.name), "operation": "list",
        "allowed": true, "message": found[0]["message"]})
    );
}

#[test]
fn an_upload_whose_answer_was_lost_is_told_of() {
    let backend = standin_only!("it injects faults");
    let bucket = bucket_with(&backend, Policy::authenticated_all());
    bucket.put("a", "x");
    backend.fault(Fault::reply_lost().on("CreateMultipartUpload").times(1));
    let args = ["access", &format!("{}/a", bucket.name), "--as", AS_ALICE];
    let outcome = Place::new().supafs_as_owner(&backend, args).ok();
    assert!(outcome.stderr.contains("requests of alice were sent again"), "{}", outcome.stderr);
    assert_eq!(backend.standin().uploads(&bucket.name).len(), 1);
}
