//! How identities are written on the command line.

use serde_json::json;

use super::*;

const ALICE: &str = "a11ce000-5a1e-4c1d-9f00-00000000a11c";

fn args(identities: &[&str], role: &[&str], claims: &[&str]) -> WhoArgs {
    let owned = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect();
    WhoArgs { identities: owned(identities), role: owned(role), claims: owned(claims) }
}

#[test]
fn users_roles_and_keys_are_told_apart() {
    let alice = format!("alice={ALICE}");
    let given = [&*alice, "anon", "nobody=anon", "service", "root=service", "bob=b@example.com"];
    let all = parse(&args(&given, &[], &[])).expect("right");
    let names: Vec<_> = all.iter().map(|who| who.name.as_str()).collect();
    assert_eq!(names, ["alice", "anon", "nobody", "service", "root", "bob"]);
    let nobody = Kind::Minted { sub: None, role: None, claims: Map::new() };
    let kinds: Vec<_> = all.into_iter().map(|who| who.kind).collect();
    let user = Kind::Minted { sub: Some(ALICE.to_owned()), role: None, claims: Map::new() };
    let bob = Kind::SignsIn("b@example.com".to_owned());
    assert_eq!(kinds, [user, nobody.clone(), nobody, Kind::Keys, Kind::Keys, bob]);
}

#[test]
fn roles_and_claims_go_to_the_identity_they_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("claims");
    std::fs::write(&file, r#"{"b": "=1"}"#).expect("a file");
    let (alice, from_file) = (format!("alice={ALICE}"), format!("bob=@{}", file.display()));
    let given = args(&[&alice, "bob=anon"], &["bob=staff"], &[r#"alice={"a": {"x": "y=z"}}"#, &from_file]);
    let all = parse(&given).expect("right");
    let of = |index: usize| match &all[index].kind {
        Kind::Minted { role, claims, .. } => (role.clone(), Value::from(claims.clone())),
        other => panic!("{other:?}"),
    };
    assert_eq!(of(0), (None, json!({"a": {"x": "y=z"}})));
    assert_eq!(of(1), (Some("staff".to_owned()), json!({"b": "=1"})));
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let alice = format!("alice={ALICE}");
    for (given, words) in [
        (args(&["alice"], &[], &[]), "NAME=UUID"),
        (args(&["alice=alice"], &[], &[]), "UUID"),
        (args(&[&format!("={ALICE}")], &[], &[]), "no name"),
        (args(&[&alice, &alice], &[], &[]), "two identities"),
        (args(&[&alice], &["bob=x"], &[]), "no --as bob"),
        (args(&[&alice], &["x"], &[]), "NAME="),
        (args(&["bob=b@example.com"], &["bob=x"], &[]), "of their own"),
        (args(&["service"], &["service=x"], &[]), "neither"),
        (args(&["service"], &[], &["service={}"]), "neither"),
        (args(&[&alice], &[], &["alice=[]"]), "JSON"),
        (args(&[&alice], &[], &["alice=@/nowhere"]), "/nowhere"),
        (args(&[&alice], &[], &[r#"alice={"sub": "x"}"#]), "sub"),
        (args(&[&alice], &["alice=a b"], &[]), "role"),
    ] {
        let told = parse(&given).expect_err("wrong").to_string();
        assert!(told.contains(words), "{given:?}: {told}");
    }
}
