//! A token that the server refuses is explained where a user sees it: at mount and by `doctor`, by its claims, the
//! server's words and the server's clock.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use supafs_standin::mint_jwt;

use crate::common::{Backend, Place, is_mounted};

const ALICE: &str = "a11ce000-0000-4000-8000-000000000001";

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// A token of alice with these claims as well.
fn token(secret: &str, more: &Value) -> String {
    let mut claims =
        json!({ "sub": ALICE, "role": "authenticated", "exp": seconds() + 3600, "iat": seconds() });
    claims.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    mint_jwt(secret, &claims)
}

#[test]
fn tokens_that_are_wrong_in_different_ways_are_told_apart() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let facts = backend.facts();
    let right = facts.jwt_secret.as_str();
    let elsewhere = json!({ "iss": "https://abcdefghijklmnopqrst.supabase.co/auth/v1" });
    let cut = token(right, &json!({}));
    let cut = &cut[..cut.len() - 7];
    let cases: [(&str, String, &[&str]); 6] = [
        ("expired", token(right, &json!({ "exp": seconds() - 60 })), &["expired at"]),
        (
            "not yet valid",
            token(right, &json!({ "nbf": seconds() + 600 })),
            &["not valid before", "server's clock says"],
        ),
        ("malformed", "eyJhbGciOi.nonsense.x".to_owned(), &["no JWT"]),
        ("cut off", cut.to_owned(), &["another project", "SUPABASE_JWT_SECRET"]),
        (
            "wrong project",
            token("another-secret-of-at-least-32-characters", &elsewhere),
            &["project abcdefghijklmnopqrst"],
        ),
        (
            "wrong secret",
            token("another-secret-of-at-least-32-characters", &json!({})),
            &["SUPABASE_JWT_SECRET"],
        ),
    ];
    for (what, token, words) in cases {
        let place = Place::new();
        let env = [
            ("SUPABASE_S3_ENDPOINT", facts.endpoint.as_str()),
            ("SUPABASE_PROJECT_REF", facts.project_ref.as_str()),
            ("SUPABASE_ANON_KEY", facts.anon_key.as_str()),
            ("SUPABASE_SESSION_TOKEN", token.as_str()),
        ];
        let why = place.supafs(["mount", &bucket.name, "mnt"], &env).refused();
        assert!(words.iter().all(|word| why.contains(word)), "{what}: {why}");
        assert!(!why.contains(&token), "{what}: {why}");
        assert!(!is_mounted(place.mountpoint()));
        let doctor = place.supafs(["doctor"], &env);
        assert_eq!(doctor.status.code(), Some(1), "{what}: {doctor:?}");
        assert!(words.iter().all(|word| doctor.stdout.contains(word)), "{what}: {doctor:?}");
    }
}

#[test]
fn a_wrong_project_ref_and_a_wrong_key_are_told_apart() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let facts = backend.facts();
    let token = token(&facts.jwt_secret, &json!({}));
    let refused = |project_ref: &str, key: &str| {
        let place = Place::new();
        let env = [
            ("SUPABASE_S3_ENDPOINT", facts.endpoint.as_str()),
            ("SUPABASE_PROJECT_REF", project_ref),
            ("SUPABASE_ANON_KEY", key),
            ("SUPABASE_SESSION_TOKEN", token.as_str()),
        ];
        place.supafs(["mount", &bucket.name, "mnt"], &env).refused()
    };
    let project = refused("nobody", &facts.anon_key);
    assert!(project.contains("does not know the project nobody"), "{project}");
    let key = refused(&facts.project_ref, "sb_publishable_other");
    assert!(key.contains("the project's other key"), "{key}");
}
