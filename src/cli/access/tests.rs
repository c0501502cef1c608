//! Nothing is guessed about whom to be.

use serde_json::json;

use super::*;
use crate::cli::settings::{Layer, Source};
use crate::identity::Identity;

fn settings(values: &[(Setting, &str)]) -> Settings {
    let mut layer = Layer::new(Source::Environment);
    for (setting, value) in values {
        layer.set(*setting, Some(*value));
    }
    Settings::new(vec![layer])
}

const PAIR: [(Setting, &str); 2] = [(Setting::AccessKeyId, "id"), (Setting::SecretAccessKey, "hunter2")];

fn user(claims: &serde_json::Value) -> String {
    jwt::tests::token(claims)
}

fn alice() -> String {
    user(&json!({ "sub": "alice", "role": "authenticated", "iss": "https://abc.supabase.co/auth/v1" }))
}

fn with(more: &[&[(Setting, &str)]]) -> Settings {
    settings(&more.concat())
}

#[test]
fn both_kinds_need_a_decision() {
    let token = alice();
    let session = [(Setting::AnonKey, "k"), (Setting::SessionToken, token.as_str())];
    let why = choose(&with(&[&PAIR, &session])).expect_err("undecided").to_string();
    for part in
        ["SUPABASE_S3_ACCESS_KEY_ID in the environment", "SUPABASE_SESSION_TOKEN in the", "--auth keys"]
    {
        assert!(why.contains(part), "{why}");
    }
    assert!(!why.contains(&token) && !why.contains("hunter2"));
    let decided = |kind| choose(&with(&[&PAIR, &session, &[(Setting::Auth, kind)]]));
    assert!(matches!(decided("keys"), Ok(Choice::Keys { .. })));
    assert!(matches!(decided("session"), Ok(Choice::Session { .. })));
    assert_eq!(decided("both").expect_err("unknown").code(), 2);
}

#[test]
fn an_anon_key_alone_is_no_session() {
    assert!(matches!(choose(&with(&[&PAIR, &[(Setting::AnonKey, "k")]])), Ok(Choice::Keys { .. })));
    let why = choose(&settings(&[(Setting::AnonKey, "k")])).expect_err("no token").to_string();
    assert!(why.contains("SUPABASE_SESSION_TOKEN"), "{why}");
}

#[test]
fn half_a_pair_names_the_other_half() {
    for (half, other) in
        [(&PAIR[..1], "SUPABASE_S3_SECRET_ACCESS_KEY"), (&PAIR[1..], "SUPABASE_S3_ACCESS_KEY_ID")]
    {
        let why = choose(&settings(half)).expect_err("half").to_string();
        assert!(why.contains(&format!("set {other} as well")), "{why}");
    }
    let why = choose(&settings(&[(Setting::SessionToken, "t")])).expect_err("no key").to_string();
    assert!(why.contains("SUPABASE_PUBLISHABLE_KEY"), "{why}");
}

#[test]
fn two_api_keys_in_one_place_are_refused() {
    let token = alice();
    let keys =
        [(Setting::AnonKey, "a"), (Setting::PublishableKey, "b"), (Setting::SessionToken, token.as_str())];
    assert!(choose(&settings(&keys)).is_err());
}

fn identity(values: &[(Setting, &str)]) -> Result<Identity, CliError> {
    resolve(&settings(values)).map(|access| access.credential.authority.identity())
}

fn project(token: &str, more: &[(Setting, &str)]) -> Result<String, CliError> {
    let session = [(Setting::AnonKey, "k"), (Setting::SessionToken, token)];
    identity(&[&session[..], more].concat()).map(|identity| match identity {
        Identity::User { project_ref, .. } => project_ref,
        Identity::Keys { .. } => panic!("a user"),
    })
}

#[test]
fn the_project_comes_from_the_first_place_that_names_it() {
    let (named, nameless) = (alice(), user(&json!({ "sub": "alice" })));
    let local = (Setting::Endpoint, "http://127.0.0.1:54321/storage/v1/s3");
    let hosted = (Setting::Endpoint, "https://def.supabase.co/storage/v1/s3");
    let elsewhere = (Setting::Endpoint, "https://example.com/storage/v1/s3");
    assert_eq!(project(&named, &[local, (Setting::ProjectRef, "given")]), Ok("given".to_owned()));
    assert_eq!(project(&named, &[local]), Ok("abc".to_owned()));
    assert_eq!(project(&nameless, &[hosted]), Ok("def".to_owned()));
    assert_eq!(project(&nameless, &[local]), Ok("stub".to_owned()));
    assert!(project(&nameless, &[elsewhere]).expect_err("unknown").to_string().contains("--project-ref"));
    let why = project(&named, &[]).expect_err("no endpoint").to_string();
    assert!(why.contains("the token is of project abc"), "{why}");
}

#[test]
fn a_secret_key_is_refused_wherever_it_is_put() {
    let token = alice();
    let endpoint = (Setting::ProjectRef, "abc");
    let as_key = [(Setting::AnonKey, "sb_secret_hunter2"), (Setting::SessionToken, token.as_str()), endpoint];
    let as_token = [(Setting::AnonKey, "k"), (Setting::SessionToken, "sb_secret_hunter2"), endpoint];
    for values in [as_key, as_token] {
        let why = identity(&values).expect_err("refused").to_string();
        assert!(why.contains("secret key") && !why.contains("hunter2"), "{why}");
    }
}

#[test]
fn keys_resolve_with_the_default_region() {
    let access = resolve(&with(&[&PAIR, &[(Setting::ProjectRef, "abc")]])).expect("access");
    assert_eq!(access.service.endpoint, "https://abc.storage.supabase.co/storage/v1/s3/");
    assert_eq!(access.service.region, "us-east-1");
    assert_eq!(access.credential.authority.identity(), Identity::Keys { access_key_id: "id".to_owned() });
    assert!(!format!("{access:?}").contains("hunter2"));
}

#[test]
fn a_user_named_for_this_command_beats_keys_that_lie_around() {
    let token = alice();
    let flag = |values: &[(Setting, &str)]| {
        let mut layer = Layer::new(Source::Flag);
        for (setting, value) in values {
            layer.set(*setting, Some(*value));
        }
        layer
    };
    let around = |source: Source| {
        let mut layer = Layer::new(source);
        for (setting, value) in [PAIR.as_slice(), &[(Setting::AnonKey, "k")]].concat() {
            layer.set(setting, Some(value));
        }
        layer
    };
    let who = [(Setting::SessionToken, token.as_str())];
    for source in [Source::Environment, Source::LocalStack] {
        let chosen = choose(&Settings::new(vec![flag(&who), around(source)])).expect("a choice");
        assert!(matches!(chosen, Choice::Session { .. }), "{chosen:?}");
    }
    let both = [who.as_slice(), &PAIR].concat();
    choose(&Settings::new(vec![flag(&both), around(Source::Environment)])).expect_err("said in one breath");
    let keys_only = choose(&Settings::new(vec![flag(&[]), around(Source::LocalStack)])).expect("keys");
    assert!(matches!(keys_only, Choice::Keys { .. }));
}

#[test]
fn a_url_and_a_project_go_together() {
    let url = |text| (Setting::Url, text);
    let place =
        |values: &[(Setting, &str)]| endpoint(&settings(values), None, None).expect("an endpoint").url;
    assert_eq!(place(&[url("https://abc.supabase.co")]), "https://abc.storage.supabase.co/storage/v1/s3/");
    let both = [url("https://supabase.example.com"), (Setting::ProjectRef, "tenant")];
    assert_eq!(place(&both), "https://supabase.example.com/storage/v1/s3/");
    let auth = api_url(&settings(&[both[0], (Setting::Endpoint, "http://storage:5000/s3")]), None);
    assert_eq!(auth.expect("a URL"), "https://supabase.example.com");
}
