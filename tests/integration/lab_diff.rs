//! `supafs diff`: exactly the objects that one sees and the other does not, of any number, in bounded memory.

use std::collections::BTreeSet;
use std::fs;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use supafs_standin::{Command, Policy, Predicate, PutOptions};

use crate::common::{Backend, Bucket, Place, Random};

const ALICE: &str = "a11ce000-5a1e-4c1d-9f00-00000000a11c";
const BOB: &str = "b0b00000-7e57-4d0e-8b00-000000000b0b";

fn diff(backend: &Backend, path: &str, alice: &str, bob: &str, more: &[&str]) -> String {
    let (alice, bob) = (format!("alice={alice}"), format!("bob={bob}"));
    let args = ["diff", path, "--as", &alice, "--as", &bob];
    Place::new().supafs_as_owner(backend, args.iter().chain(more)).ok().stdout
}

#[test]
fn two_users_differ_by_their_own_folders() {
    let backend = Backend::start();
    let (bucket, lab) = backend.laboratory();
    for folder in [&lab.alice, &lab.bob, &lab.shared] {
        bucket.put_keys(["a", "d/b"].map(|name| format!("{folder}/{name}")));
    }
    let (alice, bob, name) = (&lab.alice, &lab.bob, &bucket.name);
    let of = |path: &str| diff(&backend, &format!("{name}/{path}"), alice, bob, &[]);
    let header = "--- alice\n+++ bob\n";
    assert_eq!(of(alice), format!("{header}-{name}/{alice}/a\n-{name}/{alice}/d/b\n"));
    assert_eq!(of(&format!("{bob}/d/")), format!("{header}+{name}/{bob}/d/b\n"));
    assert_eq!(of(&lab.shared), header);
    let found: Value =
        serde_json::from_str(&diff(&backend, &format!("{name}/{bob}"), alice, bob, &["--json"]))
            .expect("JSON");
    let row = |key: &str| json!({ "path": format!("{name}/{bob}/{key}"), "only": "bob" });
    assert_eq!(found, json!([row("a"), row("d/b")]));
    let same: Value =
        serde_json::from_str(&diff(&backend, &format!("{name}/{}", lab.shared), alice, bob, &["--json"]))
            .expect("JSON");
    assert_eq!(same, json!([]));
}

#[test]
fn the_exit_code_tells_of_differences_where_it_is_asked_for() {
    let backend = Backend::start();
    let (bucket, lab) = backend.laboratory();
    bucket.put_keys([format!("{}/a", lab.alice), format!("{}/a", lab.shared)]);
    let (alice, bob) = (format!("alice={}", lab.alice), format!("bob={}", lab.bob));
    for (folder, code) in [(&lab.alice, 1), (&lab.shared, 0)] {
        let path = format!("{}/{folder}", bucket.name);
        let args = ["diff", &path, "--as", &alice, "--as", &bob, "--exit-code"];
        let outcome = Place::new().supafs_as_owner(&backend, args);
        assert_eq!(outcome.status.code(), Some(code), "{outcome:#?}");
    }
    for identities in [vec!["--as", &*alice], vec!["--as", &alice, "--as", &bob, "--as", "anon"]] {
        let args = ["diff", &bucket.name].into_iter().chain(identities);
        let outcome = Place::new().supafs_as_owner(&backend, args);
        assert_eq!(outcome.status.code(), Some(2), "{outcome:#?}");
    }
}

/// A key of letters that sort in surprising ways around the ends of pages.
fn key(random: &mut Random) -> String {
    let letters: Vec<char> = "aAzZ09 !-./_+$'()*".chars().collect();
    let len = 1 + random.below(6);
    let tail: String = (0..len).map(|_| *random.pick(&letters)).collect();
    format!("k{tail}k")
}

#[test]
fn any_two_sets_differ_exactly_by_what_one_lacks() {
    let backend = standin_only!("it sets owners");
    let both = Predicate::And(vec![
        Predicate::Under("both".to_owned()),
        Predicate::Role("authenticated".to_owned()),
    ]);
    for seed in 0..3 {
        let bucket = backend.bucket();
        let visible = Predicate::Or(vec![Predicate::Owner, both.clone()]);
        backend.standin().set_policies(&bucket.name, vec![Policy::new(Command::Select, visible)]);
        let mut random = Random(seed);
        let mut expected = BTreeSet::new();
        for _ in 0..3500 {
            let key = key(&mut random);
            // Keys are taken over when they come twice.
            let (mark, owner, key) = match random.below(4) {
                0 => (Some('-'), Some(ALICE), key),
                1 => (Some('+'), Some(BOB), key),
                2 => (None, None, format!("both/{key}")),
                _ => (None, None, key),
            };
            expected.retain(|(_, other)| *other != key);
            // The owner of a row stays where the next version has none.
            backend.standin().delete(&bucket.name, &key);
            let options = PutOptions { owner: owner.map(ToOwned::to_owned), ..PutOptions::default() };
            backend.standin().put_with(&bucket.name, &key, "", options);
            expected.extend(mark.map(|mark| (mark, key)));
        }
        let found = diff(&backend, &bucket.name, ALICE, BOB, &[]);
        let prefix = format!("{}/", bucket.name);
        let found: Vec<(char, &str)> = found
            .lines()
            .skip(2)
            .map(|line| {
                (line.chars().next().expect("a mark"), line[1..].strip_prefix(&prefix).expect("a path"))
            })
            .collect();
        let mut expected: Vec<_> = expected.iter().map(|(mark, key)| (*mark, key.as_str())).collect();
        expected.sort_by_key(|(_, key)| *key);
        assert!(expected.len() > 1000, "{}", expected.len());
        let lacking = |a: &[(char, &str)], b: &[(char, &str)]| {
            a.iter().filter(|entry| !b.contains(entry)).map(|entry| format!("{entry:?}")).collect::<Vec<_>>()
        };
        assert_eq!(lacking(&found, &expected), [""; 0], "seed {seed}: too much");
        assert_eq!(lacking(&expected, &found), [""; 0], "seed {seed}: not found");
        assert!(found == expected, "seed {seed}: another order");
    }
}

#[test]
fn many_objects_need_no_memory_to_match() {
    let backend = standin_only!("it makes many objects");
    let put = |bucket: &Bucket<'_>, count: u32| {
        backend.standin().set_policies(&bucket.name, Policy::authenticated_read());
        bucket.put_keys((0..count).map(|i| format!("a/folder/with/a/long/name/object-{i:06}")));
    };
    let small = backend.bucket();
    put(&small, 4000);
    let before = peak(&backend, &small.name);
    let large = backend.bucket();
    put(&large, 100_000);
    backend.standin().clear_log();
    let after = peak(&backend, &large.name);
    assert_eq!(backend.standin().count("ListObjectsV2"), 2 * 101);
    eprintln!("{before} KiB for 4,000 objects, {after} KiB for 100,000");
    assert!(after < before + 8 * 1024, "{before} KiB for 4,000 objects, {after} KiB for 100,000");
}

/// The most that was resident while two users were compared who see the same, in KiB.
fn peak(backend: &Backend, bucket: &str) -> u64 {
    let place = Place::new();
    let (alice, bob) = (format!("alice={ALICE}"), format!("bob={BOB}"));
    let mut child = place
        .owners_command(backend, ["diff", bucket, "--as", &alice, "--as", &bob])
        .stdout(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    while child.try_wait().expect("a child of this process").is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        most = most.max(peak.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(child.wait().expect("its end").success());
    assert!(most > 0, "it was never seen");
    most
}
