//! `supafs test`: expectations of a file, held against the server as a test runner does.

use supafs_standin::{Command, Policy, Predicate};

use crate::common::{Backend, Bucket, Laboratory, Place};
use crate::signing_in::{status, with_input};

/// Objects of every folder, and a file of the identities.
fn start(backend: &Backend) -> (Bucket<'_>, Laboratory, String) {
    let (bucket, lab) = backend.laboratory();
    for folder in [&lab.alice, &lab.shared, &lab.public, &lab.team] {
        bucket.put_keys(["a.txt", "d/b.txt"].map(|name| format!("{folder}/{name}")));
        bucket.put(&format!("{folder}/e/.emptyFolderPlaceholder"), "");
    }
    let team = lab.team.trim_start_matches("team/");
    let identities = format!(
        "[identities]\nalice = {{ as_user = \"{}\", claims = {{ app_metadata = {{ team = \"{team}\" }} }} }}\n\
         bob = {{ as_user = \"{}\", email = \"bob@example.com\" }}\nanon = {{ anon = true }}\nservice = {{ keys = true }}\n",
        lab.alice, lab.bob
    );
    (bucket, lab, identities)
}

fn expect(who: &str, bucket: &Bucket<'_>, path: &str, rest: &str) -> String {
    format!("[[expect]]\nas = {who}\npath = \"{}/{path}\"\n{rest}\n", bucket.name)
}

#[test]
fn what_is_as_expected_passes() {
    let backend = Backend::start();
    let (bucket, lab, mut file) = start(&backend);
    let all = r#"allow = ["list", "read", "create", "overwrite"]"#;
    let none = r#"deny = ["list", "read", "create", "overwrite", "delete"]"#;
    file += &expect(
        r#""alice""#,
        &bucket,
        &format!("{}/", lab.alice),
        &format!("{all}\nsees = [\"a.txt\", \"d/\"]"),
    );
    file += &expect(r#"["bob", "anon"]"#, &bucket, &lab.alice, &format!("{none}\nsees = 0"));
    file += &expect(
        r#"["alice", "bob"]"#,
        &bucket,
        &format!("{}/a.txt", lab.shared),
        "allow = [\"read\"]\nsees = 1",
    );
    file +=
        &expect(r#""bob""#, &bucket, &format!("{}/new.txt", lab.public), "allow = [\"create\"]\nsees = []");
    file +=
        &expect(r#""anon""#, &bucket, &lab.public, "sees = [\"a.txt\", \"d/b.txt\"]\ndeny = [\"create\"]");
    file += &expect(r#""alice""#, &bucket, &lab.team, all);
    file += &expect(r#""bob""#, &bucket, &lab.team, none);
    let before = bucket.own();
    let place = Place::new();
    place.file("policies.toml", &file, 0o644);
    let outcome = place.supafs_as_owner(&backend, ["test", "policies.toml", "--junit", "out.xml"]).ok();
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(lines[0], "running 34 expectations of policies.toml");
    assert_eq!(lines.iter().filter(|line| line.starts_with("ok    ")).count(), 34, "{}", outcome.stdout);
    assert_eq!(lines.last(), Some(&"34 passed, 0 failed"));
    assert!(lines.contains(&format!("ok    bob may not read {}/{}", bucket.name, lab.alice).as_str()));
    let junit = std::fs::read_to_string(place.path().join("out.xml")).expect("a report");
    assert!(junit.contains("tests=\"34\"") && junit.contains("failures=\"0\""), "{junit}");
    assert_eq!(junit.matches("<testcase ").count(), 34);
    assert_eq!(bucket.own(), before, "a trace is left");
}

#[test]
fn what_is_not_as_expected_fails_with_what_is_instead() {
    let backend = Backend::start();
    let (bucket, lab, mut file) = start(&backend);
    let alices = format!("{}/a.txt", lab.alice);
    file += &expect(r#""bob""#, &bucket, &alices, "allow = [\"read\"]\nsees = 1");
    file += &expect(r#""alice""#, &bucket, &alices, "deny = [\"overwrite\"]\nallow = [\"read\", \"delete\"]");
    file += &expect(r#""alice""#, &bucket, &lab.shared, "sees = [\"a.txt\", \"c/\"]\nallow = [\"create\"]");
    file += &expect(r#""alice""#, &bucket, &format!("{}/nothing", lab.shared), "deny = [\"read\"]");
    let place = Place::new();
    place.file("policies.toml", &file, 0o644);
    let outcome = place.supafs_as_owner(&backend, ["test", "policies.toml", "--junit", "out.xml"]);
    assert_eq!(outcome.status.code(), Some(1), "{outcome:#?}");
    let text = &outcome.stdout;
    let failed = |title: &str, words: &str| {
        let at = text.find(&format!("FAIL  {title}")).unwrap_or_else(|| panic!("{title}: {text}"));
        let why = text[at..].lines().nth(1).expect("a reason");
        assert!(why.contains(words), "{title}: {why}");
    };
    let name = &bucket.name;
    failed(&format!("bob may read {name}/{alices}"), "404 NoSuchKey");
    failed(&format!("bob sees 1 objects in {name}/{alices}"), "it sees 0");
    failed(&format!("alice may not overwrite {name}/{alices}"), "was accepted");
    failed(&format!("alice may delete {name}/{alices}"), "--probe-delete");
    failed(&format!("alice may create {name}/{}", lab.shared), "row-level security");
    failed(
        &format!("alice sees [a.txt, c/] in {name}/{}", lab.shared),
        "it does not see \"c/\"; it sees \"d/b.txt\" as well",
    );
    failed(&format!("alice may not read {name}/{}/nothing", lab.shared), "not known");
    assert!(text.ends_with("1 passed, 7 failed\n"), "{text}");
    let junit = std::fs::read_to_string(place.path().join("out.xml")).expect("a report");
    assert!(junit.contains("failures=\"7\""), "{junit}");
    assert_eq!(junit.matches("<failure ").count(), 7, "{junit}");
    assert!(junit.contains("&quot;c/&quot;"), "{junit}");
}

#[test]
fn deleting_is_tried_when_the_file_says_so() {
    let backend = Backend::start();
    let (bucket, lab, identities) = start(&backend);
    let mut file = format!("probe_delete = true\n{identities}");
    file += &expect(r#""alice""#, &bucket, &lab.team, "allow = [\"delete\"]");
    file += &expect(r#""bob""#, &bucket, &lab.shared, "deny = [\"delete\"]");
    file += &expect(r#""anon""#, &bucket, &lab.public, "deny = [\"delete\"]");
    let before = bucket.own();
    let place = Place::new();
    place.file("policies.toml", &file, 0o644);
    let outcome = place.supafs_as_owner(&backend, ["test", "policies.toml"]).ok();
    assert!(outcome.stdout.ends_with("3 passed, 0 failed\n"), "{}", outcome.stdout);
    assert_eq!(bucket.own(), before, "a trace is left");
}

#[test]
fn the_local_stack_is_enough() {
    let backend = Backend::start();
    let (bucket, lab, mut file) = start(&backend);
    file += &expect(r#""alice""#, &bucket, &lab.team, "allow = [\"list\", \"create\"]");
    file += &expect(r#""bob""#, &bucket, &lab.team, "deny = [\"list\", \"create\"]");
    let place = Place::new();
    place.file("policies.toml", &file, 0o644);
    let args = ["test", "--local", "--env-file", "-", "policies.toml"];
    let outcome = with_input(&place, &args, &[], &status(&backend)).ok();
    assert!(outcome.stdout.ends_with("4 passed, 0 failed\n"), "{}", outcome.stdout);
}

#[test]
fn a_file_with_a_mistake_is_told_by_line_and_column() {
    let backend = standin_only!("nothing is asked of the server");
    let place = Place::new();
    place.file(
        "bad.toml",
        "[identities]\nanon = { anon = true }\n\n[[expect]]\nas = \"anno\"\npath = \"b\"\nsees = 0\n",
        0o644,
    );
    let outcome = place.supafs_as_owner(&backend, ["test", "bad.toml"]);
    assert_eq!(outcome.status.code(), Some(2), "{outcome:#?}");
    assert!(outcome.stderr.contains("bad.toml:5:6: ") && outcome.stderr.contains("\"anon\""), "{outcome:#?}");
    let outcome = place.supafs_as_owner(&backend, ["test", "missing.toml"]);
    assert_eq!(outcome.status.code(), Some(2), "{outcome:#?}");
    assert_eq!(backend.standin().log().len(), 0);
}

#[test]
fn a_server_that_cannot_be_asked_is_no_pass() {
    let backend = standin_only!("it injects faults");
    let (bucket, lab, mut file) = start(&backend);
    file += &expect(r#""bob""#, &bucket, &lab.alice, "deny = [\"read\", \"create\"]");
    backend.fault(supafs_standin::Fault::status(500, "DatabaseError").on("CreateMultipartUpload"));
    let place = Place::new();
    place.file("policies.toml", &file, 0o644);
    let outcome = place.supafs_as_owner(&backend, ["test", "policies.toml"]);
    assert_eq!(outcome.status.code(), Some(1), "{outcome:#?}");
    assert!(
        outcome.stdout.contains("not known") && outcome.stdout.contains("500 DatabaseError"),
        "{outcome:#?}"
    );
    backend.fault(supafs_standin::Fault::status(500, "DatabaseError").on("ListObjectsV2"));
    let outcome = place.supafs_as_owner(&backend, ["test", "policies.toml"]);
    assert_eq!(outcome.status.code(), Some(1), "{outcome:#?}");
    assert!(outcome.stderr.contains("cannot list as"), "{outcome:#?}");
}

#[test]
fn the_example_of_the_readme_is_true() {
    let backend = standin_only!("it sets policies");
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("a file");
    let at = readme.find("```toml\n[identities]").expect("the example");
    let example = readme[at + "```toml\n".len()..].split("```").next().expect("its end");
    let bucket = backend.bucket();
    let policies = vec![
        Policy::all(Predicate::FirstFolderIsSub).to("authenticated"),
        Policy::new(Command::Select, Predicate::Under("handbook".to_owned())).to("authenticated"),
    ];
    backend.standin().set_policies(&bucket.name, policies);
    bucket.put_keys(["a11ce000-5a1e-4c1d-9f00-00000000a11c/letter.txt", "handbook/welcome.txt"]);
    let place = Place::new();
    let path = |name: &str| format!("\"{name}/");
    place.file("storage.toml", &example.replace(&path("documents"), &path(&bucket.name)), 0o644);
    let outcome = place.supafs_as_owner(&backend, ["test", "storage.toml"]).ok();
    assert!(outcome.stdout.ends_with("23 passed, 0 failed\n"), "{}", outcome.stdout);
}
