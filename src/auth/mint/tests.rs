//! Minted tokens: what they say, who they are for, and that the secret stays inside.

use serde_json::json;

use super::*;
use crate::auth::jwt;

const ALICE: &str = "a11ce000-0000-4000-8000-000000000001";
const ISSUER: &str = "http://127.0.0.1:54321/auth/v1";
const SECRET: &str = "super-secret-jwt-token-with-at-least-32-characters-long";

fn mint(who: Impersonation) -> Mint {
    Mint::new(Secret::new(SECRET), who, ISSUER).expect("a mint")
}

fn payload(token: &Secret) -> Value {
    let part = token.expose().split('.').nth(1).expect("a payload");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64")).expect("JSON")
}

#[test]
fn a_user_gets_what_auth_would_say() {
    const NOW: u64 = 1_800_000_000;
    let now = UNIX_EPOCH + Duration::from_secs(NOW);
    let token = mint(Impersonation::user(ALICE).expect("a user")).token_at(now);
    let expected = json!({
        "iss": ISSUER, "sub": ALICE, "aud": "authenticated", "role": "authenticated", "aal": "aal1",
        "is_anonymous": false, "app_metadata": {}, "user_metadata": {},
        "iat": NOW, "exp": NOW + 300,
    });
    assert_eq!(payload(&token), expected);
    // Another program signs the same claims the same way.
    assert_eq!(supafs_standin::mint_jwt(SECRET, &expected), token.expose());
    assert_ne!(supafs_standin::mint_jwt("another", &expected), token.expose());
}

#[test]
fn anon_has_a_role_and_no_user() {
    let token = mint(Impersonation::anon()).load().expect("a token");
    let claims = jwt::user_claims(token.expose()).expect("a JWT");
    assert_eq!((claims.sub, claims.role.as_str()), (None, "anon"));
    assert!(claims.expires.is_some_and(|at| at <= SystemTime::now() + LIFETIME));
    assert_eq!(payload(&token).get("aud"), None);
}

#[test]
fn claims_and_role_are_added_and_identity_is_not_theirs_to_change() {
    let who = || Impersonation::user(&ALICE.to_uppercase()).expect("a user");
    let editor = who().with_role("editor").expect("a role");
    let editor = editor.with_claims(r#"{"aal": "aal2", "app_metadata": {"team": "red"}}"#).expect("claims");
    let said = payload(&mint(editor).token_at(SystemTime::now()));
    assert_eq!((&said["role"], &said["aal"]), (&json!("editor"), &json!("aal2")));
    assert_eq!((&said["sub"], &said["app_metadata"]), (&json!(ALICE), &json!({ "team": "red" })));
    for forbidden in OURS {
        let why = who().with_claims(&json!({ *forbidden: 1 }).to_string()).expect_err("refused");
        assert!(why.contains(forbidden), "{why}");
    }
    who().with_claims("[1]").expect_err("no object");
    who().with_role("a role").expect_err("a space");
    Impersonation::user("alice").expect_err("no UUID");
}

#[test]
fn the_secret_is_in_no_debug_and_no_message() {
    let mint = mint(Impersonation::anon());
    let shown = format!("{mint:?} {} {}", mint.describe(), mint.remedy());
    assert!(!shown.contains(SECRET), "{shown}");
    let key = mint.load().expect("a token");
    let why = Mint::new(key.clone(), Impersonation::anon(), ISSUER).expect_err("a token is no secret");
    assert!(why.contains("JWT_SECRET") && !why.contains(key.expose()), "{why}");
    Mint::new(Secret::new(""), Impersonation::anon(), ISSUER).expect_err("empty");
    Mint::new(Secret::new("sb_secret_x"), Impersonation::anon(), ISSUER).expect_err("an API key");
}
