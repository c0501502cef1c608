//! Credentials and settings through the binary: which source wins, what is refused, secrets that stay secret, and
//! tokens that are replaced in time.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::{Backend, Bucket, Login, MountOptions, Place, Users, is_mounted};

fn variables(backend: &Backend, login: &Login) -> Vec<(String, String)> {
    login.variables(&backend.facts(), |sub| backend.token(sub, 3600))
}

fn borrowed(variables: &[(String, String)]) -> Vec<(&str, &str)> {
    variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// A profile table of the backend's access keys.
fn profile(backend: &Backend, name: &str, more: &str) -> String {
    let facts = backend.facts();
    format!(
        "[profile.{name}]\nendpoint = \"{}\"\nregion = \"{}\"\naccess_key_id = \"{}\"\nsecret_access_key = \"{}\"\n{more}\n",
        facts.endpoint, facts.region, facts.access_key_id, facts.secret_access_key
    )
}

fn env_file(backend: &Backend, more: &str) -> String {
    let facts = backend.facts();
    format!(
        "SUPABASE_S3_ENDPOINT={}\nSUPABASE_S3_ACCESS_KEY_ID={}\nSUPABASE_S3_SECRET_ACCESS_KEY={}\n{more}\n",
        facts.endpoint, facts.access_key_id, facts.secret_access_key
    )
}

fn mode(path: &Path) -> String {
    crate::common::run(path, "stat -c '%a' file").trim().to_owned()
}

/// The mode of a file, as set by every source from the weakest on: each beats the one before.
#[test]
fn a_flag_beats_the_environment_beats_the_env_file_beats_the_profile() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["file"]);
    let file_mode = |args: &str, env: &[(&str, &str)], place: Place| {
        let mut options =
            MountOptions::new(&backend, &bucket.name).login(Login::Custom).place(place).args(args);
        for (name, value) in env {
            options = options.env(name, *value);
        }
        mode(&options.start().path)
    };
    let place = || {
        let place = Place::new();
        place.file(
            "home/config/supafs/config.toml",
            &(profile(&backend, "work", "file_mode = \"401\"")
                + &profile(&backend, "default", "file_mode = \"400\"")),
            0o600,
        );
        place.file("env", &env_file(&backend, "SUPAFS_FILE_MODE=402"), 0o600);
        place
    };
    assert_eq!(file_mode("", &[], place()), "400", "the default profile");
    assert_eq!(file_mode("--profile work", &[], place()), "401", "a profile by flag");
    assert_eq!(file_mode("", &[("SUPAFS_PROFILE", "work")], place()), "401", "a profile by variable");
    assert_eq!(file_mode("--profile work --env-file env", &[], place()), "402", "the env file");
    assert_eq!(
        file_mode("--env-file env", &[("SUPAFS_FILE_MODE", "403")], place()),
        "403",
        "the environment"
    );
    assert_eq!(
        file_mode("--env-file env -o file_mode=404", &[("SUPAFS_FILE_MODE", "403")], place()),
        "404",
        "-o"
    );
    assert_eq!(
        file_mode("--env-file env -o file_mode=404 --file-mode 405", &[("SUPAFS_FILE_MODE", "403")], place()),
        "405",
        "the flag"
    );
}

type Case<'a> = (&'a str, Vec<&'a str>, Vec<(&'a str, &'a str)>);

#[test]
fn a_file_with_secrets_that_others_may_read_is_refused_with_the_chmod() {
    let backend = Backend::start();
    let (bucket, users) = backend.users();
    let facts = backend.facts();
    let endpoint = ("SUPABASE_S3_ENDPOINT", facts.endpoint.as_str());
    for mode in [0o644, 0o640, 0o604, 0o660] {
        let place = Place::new();
        place.file("home/config/supafs/config.toml", &profile(&backend, "default", ""), mode);
        place.file("env", &env_file(&backend, ""), mode);
        place.file("token", &backend.token(&users.alice, 3600), mode);
        place.file("anon", &facts.anon_key, mode);
        place.file("home/good/supafs/empty.toml", "", mode);
        let good = place.home().join("good/supafs/empty.toml");
        let good = good.to_str().expect("text");
        let anon = ("SUPABASE_ANON_KEY", facts.anon_key.as_str());
        let token = backend.token(&users.alice, 3600);
        let session = ("SUPABASE_SESSION_TOKEN", token.as_str());
        let cases: [Case<'_>; 4] = [
            ("config.toml", vec![], vec![]),
            ("env", vec!["--config", good, "--env-file", "env"], vec![]),
            ("token", vec!["--config", good, "--session-token-file", "token"], vec![endpoint, anon]),
            ("anon", vec!["--config", good, "--anon-key-file", "anon"], vec![endpoint, session]),
        ];
        for (file, args, env) in cases {
            let args: Vec<&str> = ["mount", &bucket.name, "mnt"].into_iter().chain(args).collect();
            let stderr = place.supafs(args, &env).refused();
            assert!(stderr.contains("chmod 600") && stderr.contains(file), "{file} {mode:o}: {stderr}");
            assert!(!is_mounted(place.mountpoint()));
        }
    }
}

#[test]
fn both_kinds_of_credentials_ask_for_auth() {
    let backend = Backend::start();
    let (bucket, users) = backend.users();
    bucket.put(&format!("{}/mine", users.alice), "a");
    bucket.put(&format!("{}/other", users.bob), "b");
    let env =
        [variables(&backend, &Login::Keys), variables(&backend, &Login::User(users.alice.clone()))].concat();
    let place = Place::new();
    let stderr = place.supafs(["mount", &bucket.name, "mnt"], &borrowed(&env)).refused();
    assert!(stderr.contains("--auth keys or --auth session"), "{stderr}");
    let bob = |auth: &str| {
        let mut options = MountOptions::new(&backend, &bucket.name).login(Login::Custom).args(auth);
        for (name, value) in &env {
            options = options.env(name, value.clone());
        }
        options.start().at(&format!("{}/other", users.bob)).exists()
    };
    assert!(bob("--auth keys"), "keys see everything");
    assert!(!bob("--auth session"), "alice does not");
}

#[test]
fn the_aws_chain_is_asked_only_where_nothing_of_supabase_is_set() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["file"]);
    let facts = backend.facts();
    let aws_files = || {
        let place = Place::new();
        place.file(
            "home/.aws/config",
            &format!("[default]\nregion = {r}\nendpoint_url = {e}\n[profile other]\nregion = {r}\nendpoint_url = {e}\n", r = facts.region, e = facts.endpoint),
            0o600,
        );
        place.file(
            "home/.aws/credentials",
            &format!("[default]\naws_access_key_id = nobody\naws_secret_access_key = nothing\n[other]\naws_access_key_id = {}\naws_secret_access_key = {}\n", facts.access_key_id, facts.secret_access_key),
            0o600,
        );
        place
    };
    let custom = || MountOptions::new(&backend, &bucket.name).login(Login::Custom).place(aws_files());
    assert!(custom().try_start().is_err(), "the default profile has no good keys");
    assert_eq!(custom().args("--aws-profile other").start().read("file"), b"file");
    assert_eq!(custom().env("AWS_PROFILE", "other").start().read("file"), b"file");
    let from_environment = MountOptions::new(&backend, &bucket.name)
        .login(Login::Custom)
        .env("AWS_ACCESS_KEY_ID", &facts.access_key_id)
        .env("AWS_SECRET_ACCESS_KEY", &facts.secret_access_key)
        .env("AWS_ENDPOINT_URL_S3", &facts.endpoint)
        .env("AWS_REGION", &facts.region)
        .start();
    assert_eq!(from_environment.read("file"), b"file");
    drop(from_environment);
    let by_process = Place::new();
    let answer = format!(
        r#"{{"Version": 1, "AccessKeyId": "{}", "SecretAccessKey": "{}"}}"#,
        facts.access_key_id, facts.secret_access_key
    );
    by_process.file("home/answer", &answer, 0o600);
    by_process.file(
        "home/.aws/config",
        &format!(
            "[default]\nregion = {}\nendpoint_url = {}\ncredential_process = /bin/cat {}\n",
            facts.region,
            facts.endpoint,
            by_process.home().join("answer").display()
        ),
        0o600,
    );
    let by_process = MountOptions::new(&backend, &bucket.name).login(Login::Custom).place(by_process).start();
    assert_eq!(by_process.read("file"), b"file");
    drop(by_process);
    let supabase_first = MountOptions::new(&backend, &bucket.name)
        .env("AWS_ACCESS_KEY_ID", "nobody")
        .env("AWS_SECRET_ACCESS_KEY", "nothing")
        .start();
    assert_eq!(supabase_first.read("file"), b"file");
}

#[test]
fn the_documented_triple_in_the_aws_environment_is_a_user_session() {
    let backend = Backend::start();
    let (bucket, users) = backend.users();
    let facts = backend.facts();
    bucket.put(&format!("{}/mine", users.alice), "a");
    bucket.put(&format!("{}/other", users.bob), "b");
    let mount = MountOptions::new(&backend, &bucket.name)
        .login(Login::Custom)
        .env("AWS_ACCESS_KEY_ID", &facts.project_ref)
        .env("AWS_SECRET_ACCESS_KEY", &facts.anon_key)
        .env("AWS_SESSION_TOKEN", backend.token(&users.alice, 3600))
        .env("AWS_ENDPOINT_URL_S3", &facts.endpoint)
        .env("AWS_REGION", &facts.region)
        .start();
    assert_eq!(mount.read(&format!("{}/mine", users.alice)), b"a");
    assert!(!mount.at(&users.bob).exists());
    assert!(mount.log().contains(&users.alice), "the log says who it is");
}

#[test]
fn secrets_are_neither_in_the_command_line_nor_in_the_log() {
    let backend = Backend::start();
    let (bucket, users) = backend.users();
    bucket.put(&format!("{}/file", users.alice), "a");
    let facts = backend.facts();
    let token = backend.token(&users.alice, 3600);
    let place = Place::new();
    place.file(
        "home/config/supafs/config.toml",
        &profile(&backend, "default", "log_level = \"trace\""),
        0o600,
    );
    place.file("token", &token, 0o600);
    place.file("anon", &facts.anon_key, 0o600);
    let args = format!(
        "mount --auth session --anon-key-file anon --session-token-file token --project-ref {} --log-file log {} mnt",
        facts.project_ref, bucket.name
    );
    place.supafs(args.split_whitespace(), &[]).ok();
    fs::read(place.mountpoint().join(&users.alice).join("file")).expect("it answers");
    let secrets = [&token, &facts.anon_key, &facts.secret_access_key];
    for pid in place.daemons() {
        let line = String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/cmdline")).expect("a process"))
            .into_owned();
        assert!(line.contains("mnt"));
        assert!(secrets.iter().all(|secret| !line.contains(secret.as_str())), "{line}");
    }
    place.supafs(["unmount", "mnt"], &[]).ok();
    let log = fs::read_to_string(place.path().join("log")).expect("a log");
    assert!(log.contains("mounted"), "{log}");
    assert!(secrets.iter().all(|secret| !log.contains(secret.as_str())), "a secret is in the log");
    let is_private = crate::common::run(place.path(), "stat -c %a log");
    assert_eq!(is_private.trim(), "600");
    let doctor = place.supafs(["doctor", "--auth", "keys", &bucket.name], &[]);
    assert!(secrets.iter().all(|secret| !format!("{doctor:?}").contains(secret.as_str())), "{doctor:?}");
}

#[test]
fn no_secret_is_a_flag() {
    let place = Place::new();
    let help = place.supafs(["mount", "--help"], &[]).ok().stdout;
    for flag in ["--secret", "--access-key", "--anon-key ", "--session-token "] {
        assert!(!help.contains(flag), "{flag}");
    }
}

/// Reads through a mount for several lives of a token; none may fail.
fn read_through_many_tokens(
    backend: &Backend,
    bucket: &Bucket<'_>,
    users: &Users,
    options: MountOptions<'_>,
    renew: impl Fn() + Sync,
) {
    let key = format!("{}/file", users.alice);
    bucket.put(&key, "mine");
    let mount = options.login(Login::Custom).args("--metadata-ttl 0s --negative-ttl 0s").start();
    let stop = AtomicBool::new(false);
    let read = || {
        let (began, mut reads) = (Instant::now(), 0);
        // On a machine under load, dropping the caches takes long.
        while began.elapsed() < Duration::from_secs(12) || reads <= 10 {
            assert_eq!(fs::read(mount.at(&key)).expect("a read under an expiring token"), b"mine");
            assert!(fs::metadata(mount.at(&users.alice)).expect("a stat").is_dir());
            mount.drop_kernel_caches();
            reads += 1;
            std::thread::sleep(Duration::from_millis(30));
        }
    };
    std::thread::scope(|scope| {
        // However long a read takes, there is always a new token in time.
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                renew();
                std::thread::sleep(Duration::from_millis(500));
            }
        });
        let reader = scope.spawn(read).join();
        stop.store(true, Ordering::Relaxed);
        reader.expect("no error");
    });
    let _ = backend;
}

#[test]
fn a_token_file_is_read_again_before_its_token_expires() {
    let backend = Backend::start();
    let (bucket, users) = backend.users();
    let facts = backend.facts();
    let place = Place::new();
    let write = |path: &Path| {
        let next = path.with_extension("next");
        fs::write(&next, backend.token(&users.alice, 5)).expect("a token");
        fs::set_permissions(&next, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("its mode");
        fs::rename(&next, path).expect("renamed");
    };
    let path = place.path().join("token");
    write(&path);
    let options = MountOptions::new(&backend, &bucket.name)
        .place(place)
        .args("--session-token-file token")
        .env("SUPABASE_S3_ENDPOINT", &facts.endpoint)
        .env("SUPABASE_PROJECT_REF", &facts.project_ref)
        .env("SUPABASE_ANON_KEY", &facts.anon_key);
    read_through_many_tokens(&backend, &bucket, &users, options, || write(&path));
}

#[test]
fn a_token_command_is_run_again_before_its_token_expires() {
    let backend = Backend::start();
    let (bucket, users) = backend.users();
    let facts = backend.facts();
    let place = Place::new();
    // A stock of tokens, each to be valid from a moment on: the command prints the newest that the test has put there.
    let path = place.path().join("stock");
    let write = |path: &Path| {
        let next = path.with_extension("next");
        fs::write(&next, backend.token(&users.alice, 5)).expect("a token");
        fs::rename(&next, path).expect("renamed");
    };
    write(&path);
    let options = MountOptions::new(&backend, &bucket.name)
        .place(place)
        .env("SUPABASE_SESSION_TOKEN_COMMAND", "echo run >> runs; cat stock")
        .env("SUPABASE_S3_ENDPOINT", &facts.endpoint)
        .env("SUPABASE_PROJECT_REF", &facts.project_ref)
        .env("SUPABASE_ANON_KEY", &facts.anon_key);
    read_through_many_tokens(&backend, &bucket, &users, options, || write(&path));
}

#[test]
fn doctor_finds_nothing_wrong_where_nothing_is() {
    let backend = Backend::start();
    let (bucket, users) = backend.users();
    let key = format!("{}/file", users.alice);
    bucket.put(&key, "bytes");
    for login in [Login::Keys, Login::User(users.alice.clone())] {
        let place = Place::new();
        let env = variables(&backend, &login);
        // Where the objects of this test are.
        let target = format!("{}/{}", bucket.name, users.alice);
        let outcome = place.supafs(["doctor", &target], &borrowed(&env)).ok();
        for check in
            ["fuse", "endpoint", "reachable", "clock", "credential", "region", "listable", "readable"]
        {
            assert!(outcome.stdout.lines().any(|line| line.contains(check)), "no {check}: {outcome:?}");
        }
        assert!(!outcome.stdout.contains("FAIL"), "{outcome:?}");
        if login != Login::Keys {
            assert!(
                outcome.stdout.contains(&users.alice) && outcome.stdout.contains("authenticated"),
                "{outcome:?}"
            );
        }
        let json = place.supafs(["doctor", "--json", &target], &borrowed(&env)).ok().stdout;
        let checks: Vec<serde_json::Value> = serde_json::from_str(&json).expect("JSON");
        assert!(checks.iter().all(|check| check["status"] != "fail"), "{json}");
        assert!(checks.len() > 5);
        let facts = backend.facts();
        assert!(!json.contains(&facts.secret_access_key) && !json.contains(&facts.anon_key), "{json}");
    }
}

#[test]
fn doctor_says_what_is_wrong_and_how_to_mend_it() {
    let backend = Backend::start();
    let (bucket, users) = backend.users();
    let keys = variables(&backend, &Login::Keys);
    let alice = variables(&backend, &Login::User(users.alice.clone()));
    let with = |base: &[(String, String)], name: &str, value: &str| {
        [base, &[(name.to_owned(), value.to_owned())]].concat()
    };
    let cases = [
        (vec![], "credential"),
        (with(&keys, "SUPABASE_S3_SECRET_ACCESS_KEY", "wrong"), "secret does not belong"),
        (with(&keys, "SUPABASE_S3_ACCESS_KEY_ID", "sb_publishable_abc"), "publishable"),
        (with(&keys, "SUPABASE_S3_ENDPOINT", "http://127.0.0.1:9/storage/v1/s3"), "reachable"),
        (with(&alice, "SUPABASE_ANON_KEY", "sb_secret_abc"), "sb_secret_"),
        (with(&alice, "SUPABASE_ANON_KEY", "sb_publishable_abc"), "the project's other key"),
        (with(&alice, "SUPABASE_SESSION_TOKEN", &backend.token(&users.alice, -100)), "expired"),
        (with(&alice, "SUPABASE_SESSION_TOKEN", "nonsense"), "JWT"),
    ];
    for (env, word) in cases {
        let place = Place::new();
        let outcome = place.supafs(["doctor", &bucket.name], &borrowed(&env));
        assert_eq!(outcome.status.code(), Some(1), "{word}: {outcome:?}");
        assert!(outcome.stdout.contains(word), "{word}: {outcome:?}");
        assert!(outcome.stdout.contains("FAIL") && outcome.stdout.contains("Fix: "), "{word}: {outcome:?}");
        let json = place.supafs(["doctor", "--json", &bucket.name], &borrowed(&env));
        assert_eq!(json.status.code(), Some(1), "{word}");
        let checks: Vec<serde_json::Value> = serde_json::from_str(&json.stdout).expect("JSON");
        assert!(checks.iter().any(|check| check["status"] == "fail"), "{word}");
    }
    let place = Place::new();
    let outcome = place.supafs(["doctor", "no-such-bucket"], &borrowed(&keys));
    assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
    assert!(
        outcome.stdout.contains("no-such-bucket") || outcome.stdout.contains("NoSuchBucket"),
        "{outcome:?}"
    );
}
