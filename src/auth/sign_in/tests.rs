//! Kept sessions: one refresh for all who share one, nothing lost when it cannot be kept, and no end of asking.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use supafs_standin::{ALICE, Config, Fault, Standin};
use tempfile::TempDir;

use super::*;

struct Stage {
    standin: Standin,
    dir: TempDir,
}

impl Stage {
    /// Alice, signed in with tokens of so many seconds, kept as `alice`.
    fn new(seconds: u64) -> Self {
        let standin = Standin::start(Config::default()).expect("a stand-in");
        let stage = Self { standin, dir: tempfile::tempdir().expect("a directory") };
        stage.lifetime(seconds);
        stage.sign_in();
        stage
    }

    fn lifetime(&self, seconds: u64) {
        self.standin.configure_auth(|auth| auth.token_lifetime = Duration::from_secs(seconds));
    }

    fn sign_in(&self) {
        let url = self.standin.plain_endpoint();
        let credentials = self.standin.credentials();
        let auth = Auth::new(&url, Secret::new(&credentials.anon_key));
        let grant = auth.sign_in("alice@example.com", &Secret::new("alice-password")).expect("signed in");
        let file = self.file();
        let kept = Kept {
            url,
            project_ref: credentials.project_ref,
            api_key: Secret::new(credentials.anon_key),
            email: grant.email,
            access_token: grant.access_token,
            refresh_token: grant.refresh_token,
        };
        file.lock().expect("a lock").write(&kept).expect("kept");
    }

    fn file(&self) -> SessionFile {
        SessionFile::below(&self.dir.path().join("sessions"), "alice").expect("a name")
    }

    fn session(&self) -> KeptSession {
        KeptSession::new(self.file())
    }

    fn kept(&self) -> Kept {
        self.file().read().expect("readable").expect("a session")
    }

    fn refreshes(&self) -> u64 {
        self.standin.count("AuthRefresh")
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").permissions().mode() & 0o777
}

#[test]
fn a_fresh_token_is_used_as_it_is_kept() {
    let stage = Stage::new(3600);
    assert_eq!(stage.session().load().expect("a token"), stage.kept().access_token);
    assert_eq!(stage.refreshes(), 0);
    assert_eq!(mode(&stage.dir.path().join("sessions/alice.json")), 0o600);
    assert_eq!(mode(&stage.dir.path().join("sessions")), 0o700);
}

#[test]
fn many_who_share_a_session_refresh_it_once() {
    let stage = Stage::new(0);
    stage.standin.configure_auth(|auth| auth.reuse_interval = Duration::ZERO);
    stage.lifetime(3600);
    let sessions: Vec<KeptSession> = (0..8).map(|_| stage.session()).collect();
    let tokens: Vec<Secret> = std::thread::scope(|scope| {
        let each = sessions.iter().map(|session| scope.spawn(|| session.load().expect("a token")));
        each.collect::<Vec<_>>().into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    assert_eq!(stage.refreshes(), 1);
    assert!(tokens.iter().all(|token| *token == stage.kept().access_token));
    // Asked again, the token in use must be due: the first to ask refreshes, the others see the change.
    sessions[0].load().expect("a token");
    assert_eq!(stage.refreshes(), 2);
    assert!(sessions[1].changed());
    assert_eq!(sessions[1].load().expect("a token"), stage.kept().access_token);
    assert_eq!(stage.refreshes(), 2);
    assert!(!sessions[1].changed());
}

#[test]
fn a_lost_answer_is_asked_for_again() {
    let stage = Stage::new(0);
    stage.lifetime(3600);
    stage.standin.fault(Fault::reply_lost().on("AuthRefresh").times(1));
    let token = stage.session().load().expect("a token");
    assert_eq!(token, stage.kept().access_token);
    assert_eq!(stage.refreshes(), 2);
}

#[test]
fn what_cannot_be_kept_is_not_used_and_costs_no_session() {
    let stage = Stage::new(0);
    stage.lifetime(3600);
    stage.standin.configure_auth(|auth| auth.reuse_interval = Duration::ZERO);
    let (session, before) = (stage.session(), stage.kept());
    // Root may write anywhere, but nobody can put a file in the place of a directory.
    let next = stage.dir.path().join(format!("sessions/alice.json.{}.new", std::process::id()));
    fs::create_dir(&next).expect("an obstacle");
    let why = session.load().expect_err("it cannot be kept");
    assert!(why.contains("cannot keep the session"), "{why}");
    assert_eq!(stage.kept(), before);
    fs::remove_dir(&next).expect("out of the way");
    assert_eq!(session.load().expect("a token"), stage.kept().access_token);
    assert_ne!(stage.kept(), before);
}

#[test]
fn a_session_that_is_over_is_not_asked_for_again_until_somebody_signs_in() {
    let stage = Stage::new(0);
    let session = stage.session();
    stage.standin.end_sessions(ALICE);
    for _ in 0..3 {
        let why = session.load().expect_err("it is over");
        assert!(why.contains("supafs login"), "{why}");
    }
    assert_eq!(stage.refreshes(), 1);
    stage.lifetime(3600);
    stage.sign_in();
    assert!(session.changed());
    assert_eq!(session.load().expect("a token"), stage.kept().access_token);
}

#[test]
fn a_session_that_was_signed_out_says_so() {
    let stage = Stage::new(3600);
    let session = stage.session();
    session.load().expect("a token");
    stage.file().lock().expect("a lock").remove().expect("removed");
    assert!(!session.changed(), "nothing new is to be had");
    let why = session.load().expect_err("gone");
    assert!(why.contains("no session \"alice\"") && why.contains("supafs login"), "{why}");
}

#[test]
fn a_session_others_can_read_is_refused_and_nothing_secret_is_shown() {
    let stage = Stage::new(3600);
    let path = stage.dir.path().join("sessions/alice.json");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("chmod");
    let why = stage.session().load().expect_err("not private");
    assert!(why.contains("chmod 600"), "{why}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
    let (session, kept) = (stage.session(), stage.kept());
    session.load().expect("a token");
    let shown = format!("{session:?} {kept:?} {} {}", session.describe(), session.remedy());
    for secret in [&kept.access_token, &kept.refresh_token, &kept.api_key] {
        assert!(!shown.contains(secret.expose()), "{shown}");
    }
    for name in ["", ".x", "a/b", "a\nb", &"x".repeat(200)] {
        SessionFile::below(stage.dir.path(), name).expect_err("no name");
    }
}

#[test]
fn a_session_of_ones_own_goes_on_in_memory() {
    let stage = Stage::new(3600);
    let auth = stage.kept().auth();
    let own =
        OwnSession::sign_in(auth, "alice@example.com", &Secret::new("alice-password")).expect("signed in");
    let (first, second, third) = (own.load(), own.load(), own.load());
    assert_eq!(stage.refreshes(), 2);
    assert!(first.is_ok() && second.is_ok() && third.is_ok());
    stage.standin.end_sessions(ALICE);
    for _ in 0..3 {
        own.load().expect_err("over");
    }
    assert_eq!(stage.refreshes(), 3, "what is over is not asked for again");
}

#[test]
fn a_rest_that_auth_asks_for_is_granted() {
    let refresh = |restraint: &mut Restraint, auth: &Auth| restraint.refresh(auth, &Secret::new("token"));
    let stage = Stage::new(3600);
    let auth = stage.kept().auth();
    let mut restraint = Restraint {
        rest: Some((Instant::now() + Duration::from_mins(1), "too often".to_owned())),
        ..Restraint::default()
    };
    assert_eq!(refresh(&mut restraint, &auth), Err("too often".to_owned()));
    assert_eq!(stage.refreshes(), 0, "nothing is asked meanwhile");
    restraint.rest = Some((Instant::now(), "too often".to_owned()));
    refresh(&mut restraint, &auth).expect_err("unknown, but asked");
    assert_eq!(stage.refreshes(), 1);
}
