//! Claims are read as the server reads them, and keys are told apart from tokens.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::*;

/// A token with these claims; nobody here checks the signature.
pub(crate) fn token(claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.c2ln", part(&json!({ "alg": "HS256", "typ": "JWT" })), part(claims))
}

#[test]
fn claims_are_read() {
    let claims = decode(&token(&json!({
        "sub": "6c7b", "role": "authenticated", "exp": 2_000_000_000, "iat": 1_999_996_400.5,
        "iss": "https://abcdefghijklmnopqrst.supabase.co/auth/v1", "aud": ["x"],
    })))
    .expect("a JWT");
    assert_eq!(claims.sub.as_deref(), Some("6c7b"));
    assert_eq!(claims.who(), "user 6c7b (authenticated)");
    assert_eq!(claims.expires, Some(UNIX_EPOCH + Duration::from_secs(2_000_000_000)));
    assert_eq!(claims.project_ref.as_deref(), Some("abcdefghijklmnopqrst"));
    assert_eq!(claims.not_before, None);
}

#[test]
fn a_token_without_role_is_anon() {
    assert_eq!(decode(&token(&json!({}))).expect("a JWT").role, "anon");
}

#[test]
fn the_project_of_an_anon_key_is_its_ref_claim() {
    let key = json!({ "iss": "supabase", "ref": "abc", "role": "anon" });
    assert_eq!(decode(&token(&key)).expect("a JWT").project_ref.as_deref(), Some("abc"));
    let local = json!({ "iss": "http://127.0.0.1:54321/auth/v1" });
    assert_eq!(decode(&token(&local)).expect("a JWT").project_ref, None);
}

#[test]
fn keys_and_tokens_are_told_apart() {
    assert_eq!(kind("sb_publishable_abc"), KeyKind::Publishable);
    assert_eq!(kind("sb_secret_abc"), KeyKind::Secret);
    assert!(matches!(kind(&token(&json!({ "role": "anon" }))), KeyKind::Jwt(_)));
    for other in ["", "a.b.c", "eyJhbGciOiJIUzI1NiJ9.e30", "x.y.z.w", "e30.e30.s"] {
        assert_eq!(kind(other), KeyKind::Other, "{other}");
    }
}

#[test]
fn what_is_no_user_token_is_named_but_not_shown() {
    for (text, word) in
        [("sb_secret_xyzzy", "secret key"), ("sb_publishable_xyzzy", "publishable"), ("xyzzy", "JWT")]
    {
        let why = user_claims(text).expect_err("no token");
        assert!(why.contains(word), "{why}");
        assert!(!why.contains("xyzzy"), "{why}");
    }
}
