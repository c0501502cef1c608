//! Keys in the wrong place are found, and never shown.

use serde_json::json;

use super::*;
use crate::auth::jwt;
use crate::cli::setting::Setting;
use crate::cli::settings::{Layer, Source};

fn check_keys(values: &[(Setting, &str)]) -> Vec<Check> {
    let mut layer = Layer::new(Source::Environment);
    for (setting, value) in values {
        layer.set(*setting, Some(*value));
    }
    let settings = Settings::new(vec![layer]);
    let choice = access::choose(&settings).expect("a choice");
    let parts = identity::read(&settings, &choice).expect("parts");
    local::keys(&choice, parts.as_ref())
}

fn session(api_key: &str) -> Check {
    let token = jwt::tests::token(&json!({ "sub": "a", "iss": "https://abc.supabase.co/auth/v1" }));
    let checks = check_keys(&[(Setting::AnonKey, api_key), (Setting::SessionToken, &token)]);
    checks.into_iter().next().expect("a check")
}

#[test]
fn api_keys_are_told_apart() {
    let key = |role, project| jwt::tests::token(&json!({ "role": role, "ref": project, "iss": "supabase" }));
    assert_eq!(session("sb_publishable_x").status, Status::Ok);
    assert_eq!(session(&key("anon", "abc")).status, Status::Ok);
    assert_eq!(session("something").status, Status::Warn);
    for wrong in [key("service_role", "abc"), key("anon", "other")] {
        let check = session(&wrong);
        assert_eq!(check.status, Status::Fail);
        assert!(check.fix.is_some() && !check.detail.contains(&wrong), "{check:?}");
    }
}

#[test]
fn api_keys_are_no_access_keys() {
    let mut layer = Layer::new(Source::Environment);
    layer.set(Setting::AccessKeyId, Some("id"));
    layer.set(Setting::SecretAccessKey, Some("sb_secret_hunter2"));
    let why = access::choose(&Settings::new(vec![layer])).expect_err("no pair").to_string();
    assert!(why.contains("API key") && !why.contains("hunter2"), "{why}");
}
