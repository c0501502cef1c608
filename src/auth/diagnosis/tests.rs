//! Each way in which a token can be wrong is told from the others, by the words the real server has for it.

use std::time::UNIX_EPOCH;

use serde_json::json;

use super::*;
use crate::auth::jwt;

const NOW: u64 = 1_800_000_000;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn told(more: &serde_json::Value, code: &str, message: &str, server: u64) -> String {
    let mut claims = json!({ "sub": "a", "role": "authenticated", "iss": "https://abc.supabase.co/auth/v1" });
    claims.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    let claims = jwt::decode(&jwt::tests::token(&claims)).expect("a token");
    let expires = claims.expires;
    let token = Subject { claims: &claims, project_ref: "abc", source: "the file", expires, now: at(NOW) };
    of_token(&token, &Refused { code, message, date: Some(at(server)) })
}

#[test]
fn an_expired_token_is_told_from_a_wrong_clock() {
    let expired = |server| {
        told(&json!({ "exp": NOW + 60 }), "AccessDenied", "\"exp\" claim timestamp check failed", server)
    };
    assert!(expired(NOW + 1).contains("a new one is needed from the file"), "{}", expired(NOW + 1));
    assert!(expired(NOW + 300).contains("300 s behind the server's"), "{}", expired(NOW + 300));
}

#[test]
fn a_token_of_later_is_told_from_a_wrong_clock() {
    let early = |server| {
        told(&json!({ "nbf": NOW + 60 }), "AccessDenied", "\"nbf\" claim timestamp check failed", server)
    };
    assert!(
        early(NOW).contains("not valid before 2027") && early(NOW).contains("made for later"),
        "{}",
        early(NOW)
    );
    assert!(early(NOW - 100).contains("100 s ahead of the server's"), "{}", early(NOW - 100));
}

#[test]
fn a_wrong_project_is_told_from_a_wrong_secret() {
    let words = "signature verification failed";
    let other = told(&json!({ "iss": "https://def.supabase.co/auth/v1" }), "AccessDenied", words, NOW);
    assert!(other.contains("project def") && other.contains("abc"), "{other}");
    for issuer in [json!({}), json!({ "iss": "http://127.0.0.1:54321/auth/v1" })] {
        let secret = told(&issuer, "AccessDenied", words, NOW);
        assert!(secret.contains("SUPABASE_JWT_SECRET") && secret.contains("another project"), "{secret}");
    }
    let unknown = told(&json!({}), "AccessDenied", "Invalid Access Key", NOW);
    assert!(unknown.contains("does not know the project abc"), "{unknown}");
    let key = told(&json!({}), "SignatureDoesNotMatch", "The request signature we calculated", NOW);
    assert!(key.contains("the project's other key"), "{key}");
}

#[test]
fn a_malformed_token_and_an_unclear_refusal_are_told() {
    for words in
        ["Invalid Compact JWS", "JWS Protected Header is invalid", "Failed to base64url decode the signature"]
    {
        let malformed = told(&json!({}), "AccessDenied", words, NOW);
        assert!(malformed.contains("malformed"), "{malformed}");
    }
    let unclear = told(&json!({}), "AccessDenied", "", NOW);
    assert!(
        unclear.contains("what remains") && unclear.contains("the clocks the token is good"),
        "{unclear}"
    );
}
