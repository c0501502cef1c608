//! Renewal under a clock of its own: ahead of expiry, one at a time, for one user only.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::*;

const BEGAN: u64 = 1_800_000_000;

/// Gives what it is told, in order; then the last once more.
#[derive(Debug, Default)]
struct Script {
    answers: Mutex<VecDeque<Result<String, String>>>,
    loads: AtomicUsize,
    changed: AtomicBool,
    takes: Duration,
}

#[derive(Debug)]
struct Scripted(Arc<Script>);

impl TokenSource for Scripted {
    fn describe(&self) -> String {
        "the script".to_owned()
    }

    fn load(&self) -> Result<Secret, String> {
        self.0.loads.fetch_add(1, Ordering::SeqCst);
        self.0.changed.store(false, Ordering::SeqCst);
        std::thread::sleep(self.0.takes);
        let mut answers = self.0.answers.lock();
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        answer.unwrap_or_else(|| Err("nothing to give".to_owned())).map(Secret::new)
    }

    fn changed(&self) -> bool {
        self.0.changed.load(Ordering::SeqCst)
    }

    fn remedy(&self) -> String {
        "write a better script".to_owned()
    }

    fn renewal(&self) -> String {
        "by the script".to_owned()
    }
}

fn token(sub: &str, from: u64, lifetime: u64) -> String {
    let exp = BEGAN + from + lifetime;
    jwt::tests::token(&json!({ "sub": sub, "role": "authenticated", "iat": BEGAN + from, "exp": exp }))
}

fn start(
    lifetime: u64,
    answers: impl IntoIterator<Item = Result<String, String>>,
) -> (SessionCredentials, Arc<Script>) {
    let script = Script { answers: Mutex::new(answers.into_iter().collect()), ..Script::default() };
    start_with(lifetime, script)
}

fn start_with(lifetime: u64, script: Script) -> (SessionCredentials, Arc<Script>) {
    let script = Arc::new(script);
    let began = Instant::now();
    let session = Session {
        project_ref: "abc".to_owned(),
        api_key: Secret::new("sb_publishable_x"),
        source: Box::new(Scripted(Arc::clone(&script))),
        token: Secret::new(token("alice", 0, lifetime)),
    };
    let clock = move || UNIX_EPOCH + Duration::from_secs(BEGAN) + began.elapsed();
    (SessionCredentials::start(session, clock).expect("a session"), script)
}

async fn token_in_force(session: &SessionCredentials) -> Result<String, String> {
    match session.provide_credentials().await {
        Ok(credentials) => Ok(credentials.session_token().expect("a token").to_owned()),
        Err(error) => Err(std::error::Error::source(&error).expect("a cause").to_string()),
    }
}

fn loads(script: &Script) -> usize {
    script.loads.load(Ordering::SeqCst)
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_ahead_of_expiry() {
    let (session, script) = start(3600, [Ok(token("alice", 3500, 3600))]);
    assert_eq!(token_in_force(&session).await, Ok(token("alice", 0, 3600)));
    sleep(Duration::from_secs(3505)).await;
    assert_eq!(token_in_force(&session).await, Ok(token("alice", 0, 3600)));
    assert_eq!(loads(&script), 0, "90 s before it expires are early enough");
    sleep(Duration::from_secs(10)).await;
    assert_eq!(token_in_force(&session).await, Ok(token("alice", 3500, 3600)));
    assert_eq!(loads(&script), 1);
    assert_eq!(session.expires_at(), Some(UNIX_EPOCH + Duration::from_secs(BEGAN + 7100)));
}

#[tokio::test(start_paused = true)]
async fn the_margin_of_a_short_token_is_a_fifth_of_its_life() {
    let (session, script) = start(10, [Ok(token("alice", 8, 10))]);
    token_in_force(&session).await.expect("valid");
    sleep(Duration::from_millis(7900)).await;
    assert_eq!(loads(&script), 0);
    sleep(Duration::from_millis(300)).await;
    assert_eq!(token_in_force(&session).await, Ok(token("alice", 8, 10)));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_fails_is_asked_at_intervals_and_then_fails_fast() {
    let (session, script) = start(3600, [Err("no network".to_owned())]);
    token_in_force(&session).await.expect("valid");
    sleep(Duration::from_secs(3595)).await;
    token_in_force(&session).await.expect("still valid");
    assert!((5..=8).contains(&loads(&script)), "{}", loads(&script));
    sleep(Duration::from_secs(10)).await;
    let before = loads(&script);
    for _ in 0..100 {
        let why = token_in_force(&session).await.expect_err("expired");
        assert!(
            why.contains("expired at") && why.contains("no network") && why.contains("write a better"),
            "{why}"
        );
    }
    assert!(loads(&script) <= before + 1, "an expired token does not hammer its source");
    assert!(matches!(session.renew(false).await, Renewal::Expired(_)));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_recovers_is_heard() {
    let (session, _script) = start(3600, [Err("no network".to_owned()), Ok(token("alice", 3600, 3600))]);
    token_in_force(&session).await.expect("valid");
    sleep(Duration::from_secs(3560)).await;
    assert_eq!(token_in_force(&session).await, Ok(token("alice", 3600, 3600)));
}

#[tokio::test(start_paused = true)]
async fn a_token_of_another_user_never_comes_into_force() {
    let (session, script) = start(3600, [Ok(token("bob", 100, 3600)), Ok(token("alice", 200, 3600))]);
    token_in_force(&session).await.expect("valid");
    let mut estranged = session.estranged().expect("news");
    sleep(Duration::from_secs(100)).await;
    script.changed.store(true, Ordering::SeqCst);
    estranged.changed().await.expect("news");
    assert!(*estranged.borrow_and_update(), "somebody else is there");
    let why = token_in_force(&session).await.expect_err("not even the old token serves its time");
    assert!(why.contains("bob") && why.contains("alice") && why.contains("unmount"), "{why}");
    assert!(matches!(session.renew(false).await, Renewal::Expired(why) if why.contains("bob")));
    let Identity::User { sub, .. } = session.identity() else { panic!("a user") };
    assert_eq!(sub.as_deref(), Some("alice"));
    script.changed.store(true, Ordering::SeqCst);
    estranged.changed().await.expect("news");
    assert!(!*estranged.borrow_and_update(), "alice is back");
    assert_eq!(token_in_force(&session).await, Ok(token("alice", 200, 3600)));
}

#[tokio::test(start_paused = true)]
async fn the_first_token_again_ends_an_estrangement() {
    let (session, script) = start(3600, [Ok(token("bob", 100, 3600)), Ok(token("alice", 0, 3600))]);
    token_in_force(&session).await.expect("valid");
    let mut estranged = session.estranged().expect("news");
    for expected in [true, false] {
        script.changed.store(true, Ordering::SeqCst);
        estranged.changed().await.expect("news");
        assert_eq!(*estranged.borrow_and_update(), expected);
    }
    assert_eq!(token_in_force(&session).await, Ok(token("alice", 0, 3600)));
}

#[tokio::test]
async fn an_expired_token_fails_at_once_while_its_source_hangs() {
    let script = Arc::new(Script::default());
    let late = Arc::new(AtomicBool::new(false));
    let session = Session {
        project_ref: "abc".to_owned(),
        api_key: Secret::new("key"),
        source: Box::new(Scripted(Arc::clone(&script))),
        token: Secret::new(token("alice", 0, 3600)),
    };
    let switch = Arc::clone(&late);
    let clock = move || {
        let passed = if switch.load(Ordering::SeqCst) { 7000 } else { 0 };
        UNIX_EPOCH + Duration::from_secs(BEGAN + passed)
    };
    let session = SessionCredentials::start(session, clock).expect("a session");
    // As after a night's sleep: the first request asks the source, which gives nothing.
    late.store(true, Ordering::SeqCst);
    token_in_force(&session).await.expect_err("expired");
    // Now the source is being asked without end; nobody waits for that.
    let _asking = session.0.renewing.lock().await;
    for _ in 0..10 {
        let why = token_in_force(&session).await.expect_err("expired");
        assert!(why.contains("nothing to give"), "{why}");
        assert!(matches!(session.renew(true).await, Renewal::Expired(_)));
    }
    assert_eq!(loads(&script), 1);
}

#[tokio::test(start_paused = true)]
async fn a_changed_source_is_asked_at_once() {
    let (session, script) = start(3600, [Ok(token("alice", 100, 3600))]);
    token_in_force(&session).await.expect("valid");
    sleep(Duration::from_secs(200)).await;
    script.changed.store(true, Ordering::SeqCst);
    token_in_force(&session).await.expect("valid");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(token_in_force(&session).await, Ok(token("alice", 100, 3600)));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_a_valid_token_means_what_it_says() {
    let (session, script) = start(3600, [Ok(token("alice", 100, 3600))]);
    assert_eq!(session.renew(false).await, Renewal::StillValid);
    assert_eq!(loads(&script), 0);
    script.changed.store(true, Ordering::SeqCst);
    assert_eq!(session.renew(false).await, Renewal::Renewed);
    assert_eq!(
        session.renew(false).await,
        Renewal::Renewed,
        "the refused request may have had the old token"
    );
    sleep(Duration::from_secs(40)).await;
    assert_eq!(session.renew(false).await, Renewal::StillValid);
    assert_eq!(loads(&script), 1);
}

#[tokio::test]
async fn concurrent_requests_share_one_renewal() {
    let answers = [Ok(token("alice", 7000, 3600))].into();
    let takes = Duration::from_millis(100);
    let script = Arc::new(Script { answers: Mutex::new(answers), takes, ..Script::default() });
    let late = Arc::new(AtomicBool::new(false));
    let session = Session {
        project_ref: "abc".to_owned(),
        api_key: Secret::new("key"),
        source: Box::new(Scripted(Arc::clone(&script))),
        token: Secret::new(token("alice", 0, 3600)),
    };
    let switch = Arc::clone(&late);
    let clock = move || {
        let passed = if switch.load(Ordering::SeqCst) { 7000 } else { 0 };
        UNIX_EPOCH + Duration::from_secs(BEGAN + passed)
    };
    let session = SessionCredentials::start(session, clock).expect("a session");
    late.store(true, Ordering::SeqCst);
    let all = futures::future::join_all((0..50).map(|_| token_in_force(&session))).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    assert_eq!(loads(&script), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_without_exp_is_never_renewed() {
    let script = Arc::new(Script::default());
    let session = Session {
        project_ref: "abc".to_owned(),
        api_key: Secret::new("key"),
        source: Box::new(Scripted(Arc::clone(&script))),
        token: Secret::new(jwt::tests::token(&json!({ "role": "anon" }))),
    };
    let session = SessionCredentials::start(session, SystemTime::now).expect("a session");
    token_in_force(&session).await.expect("valid");
    sleep(Duration::from_hours(10)).await;
    token_in_force(&session).await.expect("valid");
    assert_eq!(loads(&script), 0);
}

#[test]
fn an_expired_token_is_refused_at_the_start() {
    let session = Session {
        project_ref: "abc".to_owned(),
        api_key: Secret::new("key"),
        source: Box::new(Scripted(Arc::default())),
        token: Secret::new(token("alice", 0, 3600)),
    };
    let late = || UNIX_EPOCH + Duration::from_secs(BEGAN + 3600);
    let why = SessionCredentials::start(session, late).expect_err("expired");
    assert!(why.contains("expired at 2027") && why.contains("write a better script"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn the_refresher_moves_to_the_runtime_in_use() {
    // A command lists buckets in a runtime of its own before the daemon has one.
    let (session, _script) = start(3600, [Ok(token("alice", 3500, 3600))]);
    let other = session.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(token_in_force(&other)).expect("valid");
    })
    .join()
    .expect("no panic");
    token_in_force(&session).await.expect("valid");
    sleep(Duration::from_secs(3520)).await;
    assert_eq!(token_in_force(&session).await, Ok(token("alice", 3500, 3600)));
}

#[test]
fn nothing_secret_is_in_debug() {
    let (session, _script) = start(3600, []);
    let shown = format!("{session:?}");
    assert!(!shown.contains("sb_publishable") && !shown.contains("eyJ"), "{shown}");
}
