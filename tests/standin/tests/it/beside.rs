//! What is not S3: moving objects and looking at buckets by REST, signing in with Auth.

use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};
use supafs_standin::{ALICE, Action, BOB, BucketLimits, Command, Fault, Policy, Predicate, Standin, User};

use crate::common::{Answer, Client, json_request, standin};

const HOUR: Duration = Duration::from_hours(1);

fn body(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("no JSON: {}", answer.text()))
}

fn moved(standin: &Standin, token: &str, from: &str, to: &str) -> (u16, String, String) {
    let request = json!({"bucketId": "b", "sourceKey": from, "destinationKey": to}).to_string();
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("apikey", "any")];
    let answer = json_request(standin, "POST", "/storage/v1/object/move", &headers, &request).unwrap();
    let body = body(&answer);
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    (answer.status, text("statusCode"), text("code"))
}

#[test]
fn a_move_renames_a_row() {
    let standin = standin();
    standin.set_policies("b", Policy::user_folders());
    let token = standin.mint(ALICE, "authenticated", HOUR, &json!({}));
    let alice = Client::user(&standin, &token);
    let key = |name: &str| format!("{ALICE}/{name}");
    alice.send(
        "PUT",
        &format!("/b/{}", key("a")),
        &[("x-amz-meta-q", "w"), ("content-type", "t/p")],
        b"body",
    );
    alice.put(&format!("/b/{}", key("taken")), b"there");
    let before = (standin.stat("b", &key("a")).unwrap(), alice.head_of(&format!("/b/{}", key("a"))));
    let fails = |status: &str, code: &str| (400, status.to_owned(), code.to_owned());
    let done = (200, String::new(), String::new());
    assert_eq!(moved(&standin, &token, &key("a"), &key("taken")), fails("409", "ResourceAlreadyExists"));
    std::thread::sleep(Duration::from_millis(10));
    assert_eq!(moved(&standin, &token, &key("a"), &key("z")), done);
    let after = standin.stat("b", &key("z")).unwrap();
    assert_eq!(
        (&after.etag, &after.metadata, &after.content_type),
        (&before.0.etag, &before.0.metadata, &before.0.content_type)
    );
    assert!(after.last_modified > before.0.last_modified);
    let head = alice.head_of(&format!("/b/{}", key("z")));
    assert_eq!(head.header("created-at"), before.1.header("created-at"));
    assert_eq!(standin.get("b", &key("a")), None);
    assert_eq!(moved(&standin, &token, &key("z"), &key("z")), done, "onto itself");
    assert_eq!(standin.stat("b", &key("z")).unwrap(), after, "which changes nothing");
    assert_eq!(moved(&standin, &token, &key("none"), &key("x")), fails("404", "NoSuchKey"));
    assert_eq!(moved(&standin, &token, &key("z"), "shared/x"), fails("403", "AccessDenied"));
    standin.put("b", "shared/s", "s");
    assert_eq!(moved(&standin, &token, "shared/s", &key("x")), fails("404", "NoSuchKey"), "no UPDATE");
    assert_eq!(moved(&standin, &token, &key("z"), &key("~")), fails("400", "InvalidKey"));
    let expired = standin.mint(ALICE, "authenticated", Duration::ZERO, &json!({}));
    assert_eq!(moved(&standin, &expired, &key("z"), &key("y")), fails("403", "AccessDenied"));
    let entry = standin.log().into_iter().rfind(|e| e.operation == "MoveObject" && e.status == 200).unwrap();
    assert_eq!((entry.key, entry.copy_source), (key("z"), Some(format!("b/{}", key("z")))));
    assert_eq!(entry.identity, ALICE);
}

#[test]
fn signing_an_upload_checks_what_a_put_needs_and_stores_nothing() {
    use Command::{Insert, Select, Update};
    let standin = standin();
    standin.put("b", "old", "1");
    let bearer = format!("Bearer {}", standin.mint(ALICE, "authenticated", HOUR, &json!({})));
    let sign = |key: &str, upsert: &str| {
        let path = format!("/storage/v1/object/upload/sign/b/{key}");
        let headers = [("authorization", bearer.as_str()), ("x-upsert", upsert)];
        let answer = json_request(&standin, "POST", &path, &headers, "").unwrap();
        let body = body(&answer);
        (answer.status, body["code"].as_str().unwrap_or_default().to_owned(), body)
    };
    let cases: [(&[Command], [u16; 2]); 4] = [
        (&[Select], [400, 400]),
        (&[Insert], [400, 400]),
        (&[Select, Insert], [200, 400]),
        (&[Select, Insert, Update], [200, 200]),
    ];
    for (commands, expected) in cases {
        let policies = commands.iter().map(|c| Policy::new(*c, Predicate::Always)).collect();
        standin.set_policies("b", policies);
        for (key, expected) in ["new", "old"].into_iter().zip(expected) {
            let (status, code, body) = sign(key, "true");
            assert_eq!(status, expected, "{commands:?} {key}");
            if status == 200 {
                let url = body["url"].as_str().unwrap();
                assert!(url.starts_with(&format!("/object/upload/sign/b/{key}?token=")), "{url}");
            } else {
                assert_eq!((&*code, &body["statusCode"]), ("AccessDenied", &json!("403")));
                assert_eq!(body["message"], "new row violates row-level security policy");
            }
        }
    }
    // Without `x-upsert` a name that is taken is refused.
    assert_eq!(sign("old", "false").1, "ResourceAlreadyExists");
    assert_eq!((standin.keys("b"), standin.uploads("b").len()), (vec!["old".to_owned()], 0));
    let entry = standin.log().into_iter().rfind(|e| e.operation == "SignUploadUrl").unwrap();
    assert_eq!((entry.bucket, entry.key, entry.identity), ("b".into(), "old".into(), ALICE.into()));
}

#[test]
fn moves_fail_on_demand() {
    let standin = standin();
    let token = standin.mint(ALICE, "service_role", HOUR, &json!({}));
    standin.put("b", "a", "1");
    standin.fault(Fault::status(503, "SlowDown").on("MoveObject").key("a").times(1));
    assert_eq!(moved(&standin, &token, "a", "z").0, 503);
    standin.fault(Fault::late_status(504, "GatewayTimeout").on("MoveObject").key("z").times(1));
    assert_eq!(moved(&standin, &token, "a", "z").0, 504);
    assert_eq!(standin.keys("b"), ["z"], "made all the same");
}

#[test]
fn buckets_show_their_limits_to_those_who_see_them() {
    let standin = standin();
    let types = vec!["image/*".to_owned()];
    standin.set_bucket_limits("b", BucketLimits { file_size_limit: Some(5), allowed_mime_types: types });
    let get = |role: &str| {
        let bearer = format!("Bearer {}", standin.mint(ALICE, role, HOUR, &json!({})));
        json_request(&standin, "GET", "/storage/v1/bucket/b", &[("authorization", &bearer)], "").unwrap()
    };
    let row = body(&get("service_role"));
    assert_eq!((row["file_size_limit"].as_u64(), &row["allowed_mime_types"]), (Some(5), &json!(["image/*"])));
    let hidden = get("authenticated");
    assert_eq!((hidden.status, body(&hidden)["statusCode"].as_str()), (400, Some("404")));
    standin.set_bucket_visible_to("b", &["authenticated"]);
    assert_eq!(get("authenticated").status, 200);
    standin.set_bucket_limits("b", BucketLimits::default());
    assert_eq!(body(&get("authenticated"))["file_size_limit"], Value::Null);
}

fn auth(standin: &Standin, grant: &str, request: &Value) -> Answer {
    let key = standin.credentials().anon_key;
    let path = format!("/auth/v1/token?grant_type={grant}");
    json_request(standin, "POST", &path, &[("apikey", &key)], &request.to_string()).unwrap()
}

fn refresh(standin: &Standin, token: &str) -> Result<String, String> {
    let answer = auth(standin, "refresh_token", &json!({"refresh_token": token}));
    let body = body(&answer);
    let text = |name: &str| body[name].as_str().map(str::to_owned);
    if answer.status == 200 { Ok(text("refresh_token").unwrap()) } else { Err(text("error_code").unwrap()) }
}

#[test]
fn signing_in_gives_tokens_that_work() {
    let standin = standin();
    standin.set_policies("b", Policy::authenticated_all());
    standin.configure_auth(|auth| auth.token_lifetime = Duration::from_secs(90));
    let answer =
        auth(&standin, "password", &json!({"email": "alice@example.com", "password": "alice-password"}));
    let granted = body(&answer);
    assert_eq!(
        (answer.status, &granted["token_type"], &granted["expires_in"]),
        (200, &json!("bearer"), &json!(90))
    );
    assert_eq!(granted["user"]["id"], ALICE);
    let token = granted["access_token"].as_str().unwrap();
    let claims =
        base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!((&claims["sub"], &claims["role"]), (&json!(ALICE), &json!("authenticated")));
    assert_eq!(claims["exp"], granted["expires_at"]);
    assert_eq!(Client::user(&standin, token).put("/b/k", b"1").status, 200);
    let code = |grant: &str, request: Value| {
        let answer = auth(&standin, grant, &request);
        (answer.status, body(&answer)["error_code"].as_str().unwrap().to_owned())
    };
    let wrong = json!({"email": "alice@example.com", "password": "x"});
    assert_eq!(code("password", wrong), (400, "invalid_credentials".into()));
    assert_eq!(code("magic", json!({})), (400, "invalid_credentials".into()));
    assert_eq!(
        code("refresh_token", json!({"refresh_token": "none"})),
        (400, "refresh_token_not_found".into())
    );
    standin.configure_auth(|auth| {
        auth.users.push(User { confirmed: false, ..User::new("new@example.com", "pw", BOB) });
    });
    let unconfirmed = json!({"email": "new@example.com", "password": "pw"});
    assert_eq!(code("password", unconfirmed), (400, "email_not_confirmed".into()));
    for key in [None, Some("other")] {
        let headers: Vec<_> = key.map(|key| ("apikey", key)).into_iter().collect();
        let answer =
            json_request(&standin, "POST", "/auth/v1/token?grant_type=password", &headers, "{}").unwrap();
        assert_eq!(answer.status, 401);
    }
    assert_eq!(standin.count("AuthRefresh"), 1);
}

#[test]
fn refresh_tokens_are_good_for_one_use() {
    let standin = standin();
    let first = standin.sign_in("alice@example.com", "alice-password").refresh_token;
    let second = refresh(&standin, &first).unwrap();
    assert_ne!(first, second);
    assert_eq!(refresh(&standin, &first), Ok(second.clone()), "the answer was lost: the same once more");
    let third = refresh(&standin, &second).unwrap();
    let again = refresh(&standin, &first).unwrap();
    assert!(again != third && again != second, "within the interval another branch grows");
    standin.configure_auth(|auth| auth.reuse_interval = Duration::ZERO);
    let fourth = refresh(&standin, &again).unwrap();
    assert_eq!(refresh(&standin, &again), Ok(fourth.clone()), "the live token's parent always may");
    assert_eq!(standin.session_count(ALICE), 1);
    assert_eq!(refresh(&standin, &first), Err("refresh_token_already_used".into()));
    assert_eq!(refresh(&standin, &fourth), Err("refresh_token_already_used".into()), "the session is over");
    assert_eq!(standin.session_count(ALICE), 0);
    let counted = standin.log().iter().filter(|e| e.operation == "AuthRefresh" && e.status == 200).count();
    assert_eq!(counted, 6);
}

#[test]
fn signing_out_ends_sessions() {
    let standin = standin();
    let sign_in = || standin.sign_in("alice@example.com", "alice-password");
    let (one, two, three) = (sign_in(), sign_in(), sign_in());
    let key = standin.credentials().anon_key;
    let out = |token: &str, scope: &str| {
        let bearer = format!("Bearer {token}");
        let headers = [("apikey", key.as_str()), ("authorization", bearer.as_str())];
        json_request(&standin, "POST", &format!("/auth/v1/logout{scope}"), &headers, "").unwrap().status
    };
    assert_eq!(out(&one.access_token, "?scope=local"), 204);
    assert_eq!(refresh(&standin, &one.refresh_token), Err("refresh_token_not_found".into()));
    assert_eq!(out(&one.access_token, "?scope=local"), 403, "no such session");
    assert_eq!(out("junk", ""), 403);
    assert_eq!(out(&two.access_token, "?scope=others"), 204);
    assert_eq!(standin.session_count(ALICE), 1);
    assert!(refresh(&standin, &three.refresh_token).is_err());
    assert_eq!(out(&two.access_token, ""), 204);
    assert_eq!(standin.session_count(ALICE), 0);
}

#[test]
fn auth_fails_on_demand() {
    let standin = standin();
    let first = standin.sign_in("bob@example.com", "bob-password").refresh_token;
    standin.fault(Fault::status(429, "over_request_rate_limit").on("AuthRefresh").times(1));
    assert_eq!(refresh(&standin, &first), Err("over_request_rate_limit".into()));
    let lost = standin.fault(Fault::reply_lost().on("AuthRefresh").times(1));
    let request = json!({"refresh_token": first}).to_string();
    let key = standin.credentials().anon_key;
    let path = "/auth/v1/token?grant_type=refresh_token";
    assert!(json_request(&standin, "POST", path, &[("apikey", &key)], &request).is_err());
    assert_eq!(standin.fault_hits(lost), 1);
    assert!(refresh(&standin, &first).is_ok(), "the token it was traded for is live");
    standin.fault(Fault::new(Action::Reset).on("AuthPassword"));
    assert!(json_request(&standin, "POST", "/auth/v1/token?grant_type=password", &[], "{}").is_err());
}
