//! Staying who one is: tokens of seconds under load, an Auth server that goes away, mounts that share a session, a
//! source that begins to speak for somebody else, and secrets that stay inside.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::unistd::Pid;
use supafs_standin::{Action, Fault};

use crate::common::{Backend, Bucket, Login, Mount, MountOptions, Place, Users, eventually};
use crate::signing_in::{PASSWORD, known, login};

/// Everything is asked of the server each time.
const NOTHING_KEPT: &str = "--metadata-ttl 0s --negative-ttl 0s";

fn is_denied<T>(result: &io::Result<T>) -> bool {
    result.as_ref().is_err_and(|error| error.raw_os_error() == Some(Errno::EACCES as i32))
}

fn lifetime(backend: &Backend, seconds: u64) {
    backend.standin().configure_auth(|auth| auth.token_lifetime = Duration::from_secs(seconds));
}

/// A mount of the kept session of a place, served in the foreground.
fn as_kept<'a>(backend: &'a Backend, bucket: &Bucket<'_>, place: Place, name: &str) -> MountOptions<'a> {
    MountOptions::new(backend, &bucket.name)
        .login(Login::Custom)
        .place(place)
        .args(&format!("--user {name} {NOTHING_KEPT}"))
}

/// Copies a kept session to where another mount looks, by a link to the one directory.
fn sharing(place: &Place) -> Place {
    let other = Place::new();
    let (state, sessions) = (other.home().join("state/supafs"), place.home().join("state/supafs/sessions"));
    fs::create_dir_all(&state).expect("a state directory");
    std::os::unix::fs::symlink(sessions, state.join("sessions")).expect("linked");
    other
}

/// Reads, lists and writes until told to stop; not one operation may fail.
fn load(mount: &Path, own: &str, stop: &AtomicBool, done: &AtomicU64) {
    let (dir, file) = (mount.join(own), mount.join(own).join("file"));
    let mut turn = 0_u32;
    while !stop.load(Ordering::Relaxed) {
        assert_eq!(fs::read(&file).expect("a read"), b"a");
        assert!(fs::read_dir(&dir).expect("a listing").count() >= 1);
        if turn.is_multiple_of(16) {
            fs::write(dir.join(format!("new-{}", turn % 64)), "written").expect("a write");
        }
        // Not from the kernel's pages the next time.
        let file = fs::File::open(&file).expect("open");
        let _ = nix::fcntl::posix_fadvise(&file, 0, 0, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        turn += 1;
        done.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn two_mounts_of_one_session_with_tokens_of_ten_seconds_never_show_an_error() {
    let backend = standin_only!("there is no Auth");
    let (bucket, users) = known(&backend);
    // A token that is used a second time ends the session: whoever refreshes beside another one is found out.
    backend.standin().configure_auth(|auth| auth.reuse_interval = Duration::ZERO);
    lifetime(&backend, 10);
    let place = Place::new();
    login(&place, &backend, &users.alice, &["--name", "alice"]).ok();
    let other = sharing(&place);
    let mounts = [place, other].map(|place| as_kept(&backend, &bucket, place, "alice").start());
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let workers: Vec<_> = mounts
            .iter()
            .flat_map(|mount| [mount, mount])
            .map(|mount| scope.spawn(|| load(&mount.path, &users.alice, &stop, &done)))
            .collect();
        let until = Instant::now() + Duration::from_secs(32);
        while Instant::now() < until && !workers.iter().any(std::thread::ScopedJoinHandle::is_finished) {
            std::thread::sleep(Duration::from_millis(50));
        }
        stop.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.join().expect("no error");
        }
    });
    let refreshes = backend.standin().count("AuthRefresh");
    // Three lives or more have passed, and each token was traded once, not once by each mount.
    assert!(
        (3..=8).contains(&refreshes),
        "{refreshes} refreshes for {} rounds",
        done.load(Ordering::Relaxed)
    );
    assert_eq!(backend.standin().session_count(&users.alice), 1, "nobody ended the session");
    assert!(done.load(Ordering::Relaxed) > 20);
}

#[test]
fn while_auth_is_away_what_is_valid_serves_and_then_fails_at_once_until_it_is_back() {
    let backend = standin_only!("there is no Auth");
    let (bucket, users) = known(&backend);
    lifetime(&backend, 10);
    let place = Place::new();
    login(&place, &backend, &users.alice, &["--name", "alice"]).ok();
    let mount = as_kept(&backend, &bucket, place, "alice").start();
    let dir = mount.at(&users.alice);
    assert!(fs::read_dir(&dir).is_ok());
    let down = backend.fault(Fault::new(Action::Reset).on("AuthRefresh"));
    // It tries, in vain, and the token in force still serves.
    eventually("an attempt", || (backend.standin().fault_hits(down) > 0).then_some(()));
    assert!(fs::read_dir(&dir).is_ok(), "the token is still good");
    eventually("the end of the token", || is_denied(&fs::read_dir(&dir)).then_some(()));
    let log = mount.log();
    let line = log.lines().find(|line| line.contains("ERROR") && line.contains("expired at"));
    assert!(line.is_some_and(|line| line.contains("supafs login") && line.contains("the network")), "{log}");

    // Now it does not even answer: nobody waits for it.
    backend.standin().clear_fault(down);
    let hangs = backend.fault(Fault::new(Action::Hang).on("AuthRefresh"));
    eventually("an attempt that hangs", || (backend.standin().fault_hits(hangs) > 0).then_some(()));
    let before = backend.standin().fault_hits(hangs);
    for _ in 0..200 {
        assert!(is_denied(&fs::read_dir(&dir)));
    }
    let asked = backend.standin().fault_hits(hangs) - before;
    assert!(asked <= 2, "{asked} attempts for 200 operations");
    backend.standin().clear_fault(hangs);
    lifetime(&backend, 3600);
    eventually("the session to go on", || fs::read_dir(&dir).is_ok().then_some(()));
}

#[test]
fn a_session_that_was_ended_elsewhere_says_so_and_a_new_sign_in_mends_the_mount() {
    let backend = standin_only!("there is no Auth");
    let (bucket, users) = known(&backend);
    lifetime(&backend, 5);
    let place = Place::new();
    login(&place, &backend, &users.alice, &["--name", "alice"]).ok();
    let mount = as_kept(&backend, &bucket, place, "alice").start();
    let dir = mount.at(&users.alice);
    backend.standin().end_sessions(&users.alice);
    eventually("the end of the token", || is_denied(&fs::read_dir(&dir)).then_some(()));
    assert!(mount.log().contains("supafs login"), "{}", mount.log());
    assert_eq!(backend.standin().count("AuthRefresh"), 1, "what is over is not asked for again");
    lifetime(&backend, 3600);
    login(mount.place(), &backend, &users.alice, &["--name", "alice"]).ok();
    eventually("the new session to be taken up", || fs::read_dir(&dir).is_ok().then_some(()));
}

#[test]
fn minted_tokens_are_renewed_through_the_same_path() {
    // Its lifetime is minutes; what can be seen in seconds is that a refusal as expired mints the next one.
    let backend = standin_only!("faults");
    let (bucket, users) = backend.users();
    bucket.put(&format!("{}/file", users.alice), "a");
    let facts = backend.facts();
    let mount = MountOptions::new(&backend, &bucket.name)
        .login(Login::Custom)
        .env("SUPABASE_ANON_KEY", facts.anon_key)
        .env("SUPABASE_PROJECT_REF", facts.project_ref)
        .env("SUPABASE_JWT_SECRET", facts.jwt_secret)
        .args(&format!("--as-user {} {NOTHING_KEPT}", users.alice))
        .start();
    // Tokens of one second are the same.
    std::thread::sleep(Duration::from_millis(1100));
    let action = Action::Status {
        status: 403,
        code: "AccessDenied".to_owned(),
        message: "\"exp\" claim timestamp check failed".to_owned(),
    };
    let refused = backend.fault(Fault::new(action).on("GetObject").times(1));
    assert_eq!(mount.read(&format!("{}/file", users.alice)), b"a");
    assert_eq!(backend.standin().fault_hits(refused), 1);
    assert!(mount.log().contains("the session token was renewed"), "{}", mount.log());
}

/// A mount with a token file that holds a token of this user.
fn with_token_file(backend: &Backend, bucket: &Bucket<'_>, sub: &str, args: &str) -> Mount {
    let facts = backend.facts();
    let place = Place::new();
    place.file("token", &backend.token(sub, 3600), 0o600);
    MountOptions::new(backend, &bucket.name)
        .login(Login::Custom)
        .place(place)
        .args(&format!("--session-token-file token {args}"))
        .env("SUPABASE_PROJECT_REF", &facts.project_ref)
        .env("SUPABASE_ANON_KEY", &facts.anon_key)
        .start()
}

#[test]
fn a_token_of_somebody_else_shows_nothing_and_uploads_nothing_until_the_first_user_is_back() {
    let backend = Backend::start();
    let (bucket, users) = backend.users();
    let Users { alice, bob, .. } = &users;
    bucket.put(&format!("{alice}/file"), "a");
    bucket.put(&format!("{bob}/file"), "b");
    // Everything is believed for long, and uploads take their time: what is hidden is hidden by the switch alone.
    let calm = "--metadata-ttl 10m --negative-ttl 10m --write-back --write-back-delay 7s";
    let mount = with_token_file(&backend, &bucket, alice, calm);
    let (own, theirs, staged) = (
        mount.at(&format!("{alice}/file")),
        mount.at(&format!("{bob}/file")),
        mount.at(&format!("{alice}/staged")),
    );
    let open = fs::File::open(&own).expect("open before the switch");
    assert_eq!(fs::read(&own).expect("alice's own"), b"a");
    assert!(!theirs.exists());
    fs::write(&staged, "hers").expect("staged");

    mount.place().file("token", &backend.token(bob, 3600), 0o600);
    eventually("the switch", || is_denied(&fs::metadata(&own)).then_some(()));
    let hidden = |path: &PathBuf| is_denied(&fs::read(path)) && is_denied(&fs::metadata(path));
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        assert!(hidden(&own) && hidden(&staged), "nothing of hers is shown");
        // The kernel may still know that there was no such name.
        assert!(fs::read(&theirs).is_err(), "nor anything of his");
        assert!(is_denied(&fs::read_dir(mount.at(alice))));
        assert!(is_denied(&fs::write(mount.at(&format!("{alice}/new")), "x")));
        assert!(fs::write(mount.at(&format!("{bob}/new")), "x").is_err());
        let mut byte = [0];
        assert!(is_denied(&std::os::unix::fs::FileExt::read_at(&open, &mut byte, 0)), "nor what is open");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(bucket.bytes(&format!("{alice}/staged")), None, "bob does not upload what alice wrote");
    let log = mount.log();
    assert!(
        log.contains(alice) && log.contains(bob) && log.contains("nothing is shown or uploaded"),
        "{log}"
    );

    mount.place().file("token", &backend.token(alice, 3600), 0o600);
    eventually("alice", || fs::read(&own).is_ok_and(|bytes| bytes == b"a").then_some(()));
    assert!(!theirs.exists());
    assert_eq!(fs::read(&staged).expect("hers again"), b"hers");
    eventually("the upload", || bucket.bytes(&format!("{alice}/staged")));
    mount.stop();
}

#[test]
fn what_one_user_staged_stays_in_the_spool_when_another_takes_the_mount_down() {
    let backend = Backend::start();
    let (bucket, users) = backend.users();
    let Users { alice, bob, .. } = &users;
    let mount =
        with_token_file(&backend, &bucket, alice, "--write-back --write-back-delay 20s --drain-timeout 2s");
    bucket.put(&format!("{alice}/file"), "a");
    fs::write(mount.at(&format!("{alice}/staged")), "hers").expect("staged");
    mount.place().file("token", &backend.token(bob, 3600), 0o600);
    eventually("the switch", || is_denied(&fs::metadata(mount.at(&format!("{alice}/file")))).then_some(()));
    let (place, code) = mount.leave();
    assert_eq!(code, Some(75), "it is said that something is left");
    assert_eq!(bucket.bytes(&format!("{alice}/staged")), None);
    let listed = place.supafs(["spool", "list"], &[]).ok().stdout;
    assert!(listed.contains("staged"), "{listed}");
}

/// All that a process of ours shows of itself, and all that it leaves in its home, except where sessions are kept.
fn shown(place: &Place, pid: Pid) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for name in ["cmdline", "environ", "mountinfo"] {
        let path = PathBuf::from(format!("/proc/{pid}/{name}"));
        all.push((path.clone(), fs::read(&path).expect("readable for root and the owner")));
    }
    let mut dirs = vec![place.path().to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let (path, kind) = (entry.path(), entry.file_type().expect("a type"));
            let is_kept =
                path.ends_with("supafs/sessions") || path.ends_with("mnt") || path.ends_with("input");
            if kind.is_dir() && !is_kept {
                dirs.push(path);
            } else if kind.is_file() && !is_kept {
                all.push((path.clone(), fs::read(&path).expect("a file")));
            }
        }
    }
    all
}

#[test]
fn no_secret_is_seen_from_outside() {
    let backend = standin_only!("there is no Auth");
    let (bucket, users) = known(&backend);
    lifetime(&backend, 5);
    let facts = backend.facts();
    let place = Place::new();
    login(&place, &backend, &users.alice, &["--name", "alice"]).ok();
    let mount = as_kept(&backend, &bucket, place, "alice").args("--log-level trace").start();
    let kept = |mount: &Mount| -> serde_json::Value {
        let file = mount.place().home().join("state/supafs/sessions/alice.json");
        serde_json::from_slice(&fs::read(file).expect("kept")).expect("JSON")
    };
    let mut secrets = vec![PASSWORD.to_owned(), facts.anon_key, facts.jwt_secret, facts.secret_access_key];
    let note = |secrets: &mut Vec<String>, kept: &serde_json::Value| {
        for name in ["access_token", "refresh_token"] {
            secrets.push(kept[name].as_str().expect("a token").to_owned());
        }
    };
    note(&mut secrets, &kept(&mount));
    fs::write(mount.at(&format!("{}/new", users.alice)), "x").expect("a write");
    eventually("a refresh", || (backend.standin().count("AuthRefresh") > 0).then_some(()));
    eventually("the new token to be used", || mount.log().contains("was renewed").then_some(()));
    note(&mut secrets, &kept(&mount));
    let _ = mount.status();
    for (path, bytes) in shown(mount.place(), mount.pid()) {
        let text = String::from_utf8_lossy(&bytes);
        for secret in &secrets {
            assert!(!text.contains(secret.as_str()), "a secret is in {}", path.display());
        }
    }
    let limits = fs::read_to_string(format!("/proc/{}/limits", mount.pid())).expect("limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a line");
    assert_eq!(core.split_whitespace().filter(|word| *word == "0").count(), 2, "{core}");
    mount.stop();
}

/// A program without a capability, whatever the user: the kernel then asks whether memory may be looked at.
fn powerless(program: &OsStr) -> Command {
    if !nix::unistd::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all"]).arg(program);
    command
}

/// Whether another process of the user can look into this one, as a debugger does. Of a core dump the kernel asks the
/// same.
fn is_open(child: &Child) -> bool {
    let environ = format!("/proc/{}/environ", child.id());
    let read = powerless("cat".as_ref()).arg(environ).stdout(Stdio::null()).stderr(Stdio::null()).status();
    read.expect("cat").success()
}

#[test]
fn the_memory_of_a_command_is_closed_to_other_processes_of_the_user_and_is_not_dumped() {
    let place = Place::new();
    // A process like any other shows that the look itself is possible.
    let mut other = powerless("sleep".as_ref()).arg("60").spawn().expect("sleep");
    eventually("a look into an open process", || is_open(&other).then_some(()));
    let _ = (other.kill(), other.wait());
    // It waits for the password.
    let inner = place.command(["login", "--url", "http://127.0.0.1:9", "--email", "x@example.com"]);
    let mut command = powerless(inner.get_program());
    command
        .args(inner.get_args())
        .env_clear()
        .current_dir(place.path())
        .stdin(Stdio::piped())
        .stderr(Stdio::null());
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut login = command.env("SUPABASE_ANON_KEY", "sb_publishable_x").spawn().expect("the binary");
    let limits = format!("/proc/{}/limits", login.id());
    eventually("the limit on core files", || {
        let text = fs::read_to_string(&limits).ok()?;
        let core = text.lines().find(|line| line.starts_with("Max core file size"))?.to_owned();
        (core.split_whitespace().filter(|word| *word == "0").count() == 2).then_some(())
    });
    eventually("the memory to be closed", || (!is_open(&login)).then_some(()));
    let _ = (login.kill(), login.wait());
}
