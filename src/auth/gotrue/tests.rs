//! The client against the stand-in's Auth, which answers as the documentation says.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use supafs_standin::{ALICE, Config, Fault, Standin, User};

use super::*;
use crate::auth::jwt;

const EMAIL: &str = "alice@example.com";

fn password() -> Secret {
    Secret::new("alice-password")
}

fn start() -> (Standin, Auth) {
    let standin = Standin::start(Config::default()).expect("a stand-in");
    let auth = Auth::new(&standin.plain_endpoint(), Secret::new(standin.credentials().anon_key));
    (standin, auth)
}

#[test]
fn a_password_and_then_each_refresh_token_give_a_session() {
    let (_standin, auth) = start();
    let first = auth.sign_in(EMAIL, &password()).expect("signed in");
    assert_eq!(first.email.as_deref(), Some(EMAIL));
    let claims = jwt::user_claims(first.access_token.expose()).expect("a token");
    assert_eq!(claims.sub.as_deref(), Some(ALICE));
    let second = auth.refresh(&first.refresh_token).expect("refreshed");
    assert_ne!(second.refresh_token, first.refresh_token, "it is rotated");
    let third = auth.refresh(&second.refresh_token).expect("refreshed again");
    assert_ne!(third.refresh_token, second.refresh_token);
}

#[test]
fn a_refresh_token_used_twice_ends_the_session() {
    let (standin, auth) = start();
    standin.configure_auth(|auth| auth.reuse_interval = Duration::ZERO);
    let first = auth.sign_in(EMAIL, &password()).expect("signed in");
    let second = auth.refresh(&first.refresh_token).expect("refreshed");
    // The answer may have been lost: the parent of the live token is taken again.
    assert_eq!(auth.refresh(&first.refresh_token).expect("again").refresh_token, second.refresh_token);
    let third = auth.refresh(&second.refresh_token).expect("refreshed");
    let refusal = auth.refresh(&first.refresh_token).expect_err("used long ago");
    assert_eq!(refusal.kind, RefusalKind::Ended);
    assert!(
        refusal.message.contains("Already Used") && refusal.message.contains("supafs login"),
        "{refusal}"
    );
    assert_eq!(auth.refresh(&third.refresh_token).expect_err("revoked").kind, RefusalKind::Ended);
    assert_eq!(auth.refresh(&Secret::new("nonsense")).expect_err("unknown").kind, RefusalKind::Ended);
}

#[test]
fn who_may_not_sign_in_is_told_why() {
    let (standin, auth) = start();
    let refusal = auth.sign_in(EMAIL, &Secret::new("hunter2")).expect_err("a wrong password");
    assert_eq!(refusal.kind, RefusalKind::BadLogin);
    assert!(refusal.message.contains("Invalid login credentials"), "{refusal}");
    assert!(!format!("{refusal} {refusal:?}").contains("hunter2"));
    let unconfirmed = User { confirmed: false, ..User::new("eve@example.com", "x", ALICE) };
    standin.configure_auth(|auth| auth.users.push(unconfirmed));
    let refusal = auth.sign_in("eve@example.com", &Secret::new("x")).expect_err("not confirmed");
    assert!(refusal.message.contains("Email not confirmed"), "{refusal}");
    let stranger = Auth::new(&standin.plain_endpoint(), Secret::new("another key"));
    let refusal = stranger.sign_in(EMAIL, &password()).expect_err("a wrong key");
    assert_eq!(refusal.kind, RefusalKind::BadKey);
    assert!(refusal.message.contains("SUPABASE_ANON_KEY"), "{refusal}");
}

#[test]
fn a_rate_limit_says_how_long_to_wait() {
    let (standin, auth) = start();
    standin.fault(Fault::status(429, "over_request_rate_limit").on("AuthPassword"));
    let refusal = auth.sign_in(EMAIL, &password()).expect_err("too often");
    assert_eq!(refusal.kind, RefusalKind::RateLimited);
    assert!(refusal.message.contains("wait 1m"), "{refusal}");
}

#[test]
fn a_server_that_is_away_is_no_refusal() {
    let (standin, auth) = start();
    let grant = auth.sign_in(EMAIL, &password()).expect("signed in");
    standin.fault(Fault::status(503, "unavailable").on("AuthRefresh"));
    assert_eq!(auth.refresh(&grant.refresh_token).expect_err("503").kind, RefusalKind::Away);
    drop(standin);
    let refusal = auth.refresh(&grant.refresh_token).expect_err("nobody listens");
    assert_eq!(refusal.kind, RefusalKind::Away);
    assert!(refusal.message.contains("cannot reach Supabase Auth"), "{refusal}");
    assert!(!format!("{refusal:?} {auth:?}").contains(grant.refresh_token.expose()));
}

#[test]
fn signing_out_ends_one_session() {
    let (standin, auth) = start();
    let one = auth.sign_in(EMAIL, &password()).expect("signed in");
    let other = auth.sign_in(EMAIL, &password()).expect("signed in");
    auth.sign_out(&one.access_token).expect("signed out");
    auth.sign_out(&one.access_token).expect("once more is no error");
    assert_eq!(standin.session_count(ALICE), 1);
    assert_eq!(auth.refresh(&one.refresh_token).expect_err("over").kind, RefusalKind::Ended);
    auth.refresh(&other.refresh_token).expect("the other goes on");
}

/// Answers every request like this, and counts them.
fn answering(answer: &'static str) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let count = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&count);
    // It ends with the process of the test.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            counting.fetch_add(1, Ordering::SeqCst);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (url, count)
}

#[test]
fn what_the_server_asks_for_in_retry_after_is_told() {
    let body = r#"{"code":429,"error_code":"over_request_rate_limit","msg":"Request rate limit reached"}"#;
    let answer = format!(
        "HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let (url, count) = answering(answer.leak());
    let auth = Auth::new(&url, Secret::new("key"));
    let refusal = auth.refresh(&Secret::new("token")).expect_err("too often");
    assert_eq!((refusal.kind, refusal.retry_after), (RefusalKind::RateLimited, Some(Duration::from_secs(7))));
    assert!(
        refusal.message.contains("Request rate limit reached") && refusal.message.contains("wait 7s"),
        "{refusal}"
    );
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[test]
fn what_is_no_auth_is_told() {
    let (url, _) = answering("HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\n<html>");
    let refusal = Auth::new(&url, Secret::new("key")).refresh(&Secret::new("token")).expect_err("a web page");
    assert_eq!(refusal.kind, RefusalKind::Other);
    assert!(refusal.message.contains("must be the API URL"), "{refusal}");
}

#[test]
fn errors_of_older_servers_and_of_the_gateway_are_understood() {
    assert_eq!(kind(400, "invalid_grant", "Invalid login credentials"), RefusalKind::BadLogin);
    assert_eq!(kind(400, "invalid_grant", "Invalid Refresh Token: Already Used"), RefusalKind::Ended);
    assert_eq!(kind(401, "", "Invalid API key"), RefusalKind::BadKey);
    assert_eq!(kind(401, "", "No API key found in request"), RefusalKind::BadKey);
    assert_eq!(kind(521, "", ""), RefusalKind::Away);
}
