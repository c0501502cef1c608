//! Who is let in, and with which words the others are turned away.

use std::time::Duration;

use crate::common::{Client, other_credentials, standin};
use serde_json::json;
use supafs_standin::{ALICE, Policy, mint_jwt};

const HOUR: Duration = Duration::from_hours(1);
const MISMATCH: &str = "The request signature we calculated does not match the signature you provided. Check your key and signing method.";

fn denied(message: &str) -> (u16, String, String) {
    (403, "AccessDenied".to_owned(), message.to_owned())
}

#[test]
fn access_keys_are_checked_key_service_signature() {
    let standin = standin();
    standin.put("b", "k", "v");
    let good = Client::admin(&standin);
    assert_eq!(good.get("/b/k").status, 200);
    for region in ["local", "auto", "", "us-east-1"] {
        assert_eq!(Client { region: region.into(), ..good.clone() }.get("/b/k").status, 200, "{region}");
    }
    let mismatch = (403, "SignatureDoesNotMatch".to_owned(), MISMATCH.to_owned());
    let wrong = Client { access_key: "nobody".into(), secret: "x".into(), ..good.clone() };
    assert_eq!(wrong.get("/b/k").refusal(), denied("Invalid Access Key"));
    let wrong = Client { service: "ec2".into(), ..good.clone() };
    assert_eq!(wrong.get("/b/k").refusal(), denied("Invalid Service"));
    assert_eq!(Client { secret: "x".into(), ..good.clone() }.get("/b/k").refusal(), mismatch);
    assert_eq!(Client { region: "eu-west-1".into(), ..good.clone() }.get("/b/k").refusal(), mismatch);
    // No clock is compared.
    assert_eq!(Client { date: "20010101T000000Z".into(), ..good.clone() }.get("/b/k").status, 200);
}

#[test]
fn requests_without_signature_are_refused() {
    let standin = standin();
    let client = Client::admin(&standin);
    let with =
        |value: &str| client.send("GET", "/b?list-type=2", &[("x-test", "1"), ("authorization", value)], b"");
    // The test client appends its own header behind; the first one counts for the format.
    assert_eq!(with("AWS4-HMAC-SHA256 junk").refusal().0, 400);
    let presigned = client.get("/b/k?X-Amz-Credential=a");
    assert_eq!(presigned.status, 404, "a header wins over the query");
}

#[test]
fn tokens_give_their_users_rights() {
    let standin = standin();
    standin.set_policies("b", Policy::user_folders());
    let token = standin.mint(ALICE, "authenticated", HOUR, &json!({}));
    let alice = Client::user(&standin, &token);
    assert_eq!(alice.put(&format!("/b/{ALICE}/x"), b"1").status, 200);
    assert_eq!(alice.get(&format!("/b/{ALICE}/x")).text(), "1");
    assert_eq!(standin.stat("b", &format!("{ALICE}/x")).and_then(|s| s.owner).as_deref(), Some(ALICE));
    let log = standin.log();
    assert!(log.iter().all(|entry| entry.identity == ALICE), "{log:?}");
    let wrong = Client { access_key: "otherref".into(), ..alice.clone() };
    assert_eq!(wrong.get("/b/k").refusal(), denied("Invalid Access Key"));
    let wrong = Client { secret: "other".into(), ..alice.clone() };
    assert_eq!(wrong.get("/b/k").refusal().1, "SignatureDoesNotMatch");
    assert!(wrong.get("/b/k").one("Message").ends_with("The session token should be a valid JWT token"));
    // The service key as a token sees everything.
    standin.put("b", "root", "r");
    let service = standin.mint(ALICE, "service_role", HOUR, &json!({}));
    assert_eq!(Client::user(&standin, &service).get("/b/root").status, 200);
}

#[test]
fn bad_tokens_are_refused_with_the_servers_words() {
    let standin = standin();
    let secret = standin.credentials().jwt_secret;
    let refusal = |token: &str| Client::user(&standin, token).get("/b?list-type=2").refusal();
    let expired = mint_jwt(&secret, &json!({"sub": ALICE, "role": "authenticated", "exp": 1}));
    assert_eq!(refusal(&expired), denied("\"exp\" claim timestamp check failed"));
    let early = mint_jwt(&secret, &json!({"sub": ALICE, "nbf": 9_999_999_999_u64}));
    assert_eq!(refusal(&early), denied("\"nbf\" claim timestamp check failed"));
    assert_eq!(refusal(&mint_jwt("x", &json!({}))), denied("signature verification failed"));
    assert_eq!(refusal("junk"), denied("Invalid Compact JWS"));
    let role = mint_jwt(&secret, &json!({"sub": ALICE, "role": "nobody"}));
    assert_eq!(refusal(&role), (500, "DatabaseError".into(), "database error, code: 22023".into()));
    let anon = mint_jwt(&secret, &json!({"sub": ALICE}));
    assert_eq!(Client::user(&standin, &anon).list("b", &[]).one("KeyCount"), "0", "no role is anon");
}

#[test]
fn a_subject_that_is_no_uuid_breaks_policies_that_ask_for_it() {
    let standin = standin();
    standin.set_policies("b", Policy::user_folders());
    standin.put("b", "shared/s", "s");
    standin.put("b", "other/o", "o");
    let user = Client::user(&standin, &standin.mint("alice", "authenticated", HOUR, &json!({})));
    let broken =
        (400, "InvalidParameter".to_owned(), "invalid input syntax for type uuid: \"alice\"".to_owned());
    assert_eq!(user.get("/b/other/o").refusal(), broken);
    assert_eq!(user.list("b", &[]).refusal(), broken);
    assert_eq!(user.put("/b/alice/x", b"").refusal(), broken);
    assert_eq!(user.get("/b/shared/s").status, 200, "another policy lets this row through");
}

#[test]
fn credentials_can_be_rotated_while_running() {
    let standin = standin();
    let (old, token) = (Client::admin(&standin), standin.mint(ALICE, "authenticated", HOUR, &json!({})));
    let old_user = Client::user(&standin, &token);
    assert_eq!((old.get("/b?list-type=2").status, old_user.get("/b?list-type=2").status), (200, 200));
    standin.set_credentials(other_credentials());
    assert_eq!(old.get("/b?list-type=2").refusal(), denied("Invalid Access Key"));
    assert_eq!(old_user.get("/b?list-type=2").refusal(), denied("Invalid Access Key"));
    assert_eq!(Client::admin(&standin).get("/b?list-type=2").status, 200);
    // Right anon key, token of the old secret.
    assert_eq!(
        Client::user(&standin, &token).get("/b?list-type=2").refusal(),
        denied("signature verification failed")
    );
    let token = standin.mint(ALICE, "authenticated", HOUR, &json!({}));
    assert_eq!(Client::user(&standin, &token).get("/b?list-type=2").status, 200);
}

#[test]
fn requests_without_the_prefix_are_served_too() {
    let standin = standin();
    standin.put("b", "k", "v");
    let plain = Client { prefix: String::new(), ..Client::admin(&standin) };
    assert_eq!(plain.get("/b/k").text(), "v");
    // Without the slash behind the endpoint (aws-sdk-rust#1387) there is no route.
    let glued = Client { prefix: "/storage/v1/s3b".into(), ..Client::admin(&standin) };
    assert_eq!(glued.get("/k").status, 404);
}
