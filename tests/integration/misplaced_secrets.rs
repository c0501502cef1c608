//! A secret in the wrong variable is told as what it is, and neither shown nor kept anywhere.

use std::fs;
use std::path::Path;

use crate::common::{Backend, Login, Place};

/// Settings that a person may put a key into by mistake, and those that hold ids.
const VARIABLES: [&str; 22] = [
    "SUPABASE_S3_ACCESS_KEY_ID",
    "SUPABASE_PROJECT_REF",
    "SUPABASE_URL",
    "SUPABASE_S3_ENDPOINT",
    "SUPABASE_S3_REGION",
    "SUPABASE_ANON_KEY_FILE",
    "SUPABASE_SESSION_TOKEN_FILE",
    "SUPABASE_EMAIL",
    "SUPAFS_AUTH",
    "SUPAFS_AWS_PROFILE",
    "SUPAFS_USER",
    "SUPAFS_AS_USER",
    "SUPAFS_ROLE",
    "SUPAFS_CLAIMS",
    "SUPAFS_PROFILE",
    "SUPAFS_CONFIG",
    "SUPAFS_ENV_FILE",
    "SUPAFS_METADATA_TTL",
    "SUPAFS_UID",
    "SUPAFS_SPOOL_DIR",
    "SUPAFS_LOG_FILE",
    "AWS_ACCESS_KEY_ID",
];

/// What no output may hold: the ninth character of the secret and those behind it.
fn assert_hidden(secret: &str, text: &str, what: &str) {
    // A JWT begins like every other; no nine characters at its beginning tell anything, those that follow do.
    let beyond = &secret[8..];
    for start in 0..beyond.len().saturating_sub(12) {
        let piece = &beyond[start..start + 12];
        assert!(!text.contains(piece), "{what} shows {piece:?} of the secret: {text}");
    }
}

fn assert_nothing_kept(secret: &str, dir: &Path, what: &str) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        assert_hidden(secret, &path.display().to_string(), what);
        if path.is_dir() {
            assert_nothing_kept(secret, &path, what);
        } else if let Ok(bytes) = fs::read(&path) {
            assert_hidden(secret, &String::from_utf8_lossy(&bytes), &format!("{what}: {}", path.display()));
        }
    }
}

#[test]
fn a_secret_in_any_variable_is_in_no_output_and_in_no_file() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let facts = backend.facts();
    let service_key = backend.token_with(None, &serde_json::json!({ "role": "service_role" }));
    let secrets = [
        "850181e4652dd023b7a98c58ae0d2d34bd487ee0cc3254aed6eda37307425907",
        &service_key,
        "sb_secret_N7UND0UgjKTVK-Uodkm0Hg_xSvEMPvz",
    ];
    let commands: [&[&str]; 6] = [
        &["mount", &bucket.name, "mnt"],
        &["buckets"],
        &["doctor", &bucket.name],
        &["whoami"],
        &["access", &bucket.name, "--as", "service"],
        &["login", "--email", "a@example.com"],
    ];
    // A command each in turn, so that every one meets every kind of secret and many variables.
    let mut turn = 0;
    for variable in VARIABLES {
        for secret in secrets {
            let place = Place::new();
            for args in [commands[turn % commands.len()], commands[(turn + 1) % commands.len()]] {
                let mut env = Login::Keys.variables(&facts, |_| String::new());
                if variable == "AWS_ACCESS_KEY_ID" {
                    env.retain(|(name, _)| !name.contains("ACCESS_KEY"));
                    env.push((
                        "AWS_SECRET_ACCESS_KEY".to_owned(),
                        "625729a08b95bf1b7ff351a663f3a23c".to_owned(),
                    ));
                }
                env.push((variable.to_owned(), secret.to_owned()));
                env.push(("SUPABASE_PASSWORD".to_owned(), "hunter2".to_owned()));
                let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (&**name, &**value)).collect();
                let outcome = place.supafs(args, &env);
                let what = format!("{variable} in {args:?}");
                assert!(!outcome.status.success(), "{what}: {outcome:?}");
                assert_hidden(secret, &format!("{outcome:?}"), &what);
                assert_nothing_kept(secret, place.path(), &what);
            }
            turn += 1;
        }
    }
}

#[test]
fn the_mistake_is_named_before_a_request_is_made() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let facts = backend.facts();
    let service_key = backend.token_with(None, &serde_json::json!({ "role": "service_role" }));
    let (id, secret) = ("625729a08b95bf1b7ff351a663f3a23c", "850181e4652dd023b7a98c58ae0d2d34".repeat(2));
    let cases = [
        (secret.as_str(), id, "id and secret look swapped"),
        (service_key.as_str(), secret.as_str(), "the id is an API key"),
        (id, service_key.as_str(), "the secret is an API key"),
        (id, "sb_secret_abcdefghij", "the secret is an API key"),
        ("sb_publishable_abcdefghij", secret.as_str(), "the id is an API key"),
    ];
    let place = Place::new();
    // Nothing listens there: whatever was sent would be told as a refused connection.
    let endpoint = ("SUPABASE_S3_ENDPOINT", "http://127.0.0.1:9/storage/v1/s3");
    for (id, secret, words) in cases {
        let env = [endpoint, ("SUPABASE_S3_ACCESS_KEY_ID", id), ("SUPABASE_S3_SECRET_ACCESS_KEY", secret)];
        for args in [
            &["mount", &bucket.name, "mnt"][..],
            &["buckets"],
            &["access", &bucket.name, "--as", "service"],
            &["doctor"],
        ] {
            let outcome = place.supafs(args, &env);
            let said = format!("{}{}", outcome.stdout, outcome.stderr);
            assert!(!outcome.status.success() && said.contains(words), "{args:?} {words}: {said}");
            assert!(args == ["doctor"] || !said.contains("refuses the connection"), "{args:?}: {said}");
        }
    }
    for variable in ["SUPABASE_ANON_KEY", "SUPABASE_PUBLISHABLE_KEY"] {
        let env = [endpoint, (variable, secret.as_str()), ("SUPABASE_SESSION_TOKEN", service_key.as_str())];
        let stderr = place.supafs(["mount", &bucket.name, "mnt"], &env).refused();
        assert!(stderr.contains(variable) && stderr.contains("is a secret access key"), "{stderr}");
        assert!(!stderr.contains(&secret), "{stderr}");
    }
    let elsewhere = [("SUPABASE_PROJECT_REF", service_key.as_str()), ("SUPABASE_S3_REGION", "sb_secret_abc")];
    for wrong in elsewhere {
        let mut env = Login::Keys.variables(&facts, |_| String::new());
        env.push((wrong.0.to_owned(), wrong.1.to_owned()));
        let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (&**name, &**value)).collect();
        let stderr = place.supafs(["mount", &bucket.name, "mnt"], &env).refused();
        assert!(stderr.contains(wrong.0) && stderr.contains("is an API key or a token"), "{stderr}");
    }
}

#[test]
fn an_access_key_id_is_shown_by_its_first_eight_characters() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["file"]);
    let facts = backend.facts();
    let place = Place::new();
    let env = Login::Keys.variables(&facts, |_| String::new());
    let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (&**name, &**value)).collect();
    let whole = facts.access_key_id.as_str();
    assert!(whole.len() > 8);
    let shown = format!("{}…", &whole[..8]);
    let whoami = place.supafs(["whoami"], &env).ok().stdout;
    assert!(whoami.contains(&shown) && !whoami.contains(whole), "{whoami}");
    let json = place.supafs(["whoami", "--json"], &env).ok().stdout;
    assert!(json.contains(&shown) && !json.contains(whole), "{json}");
    let doctor = place.supafs(["doctor", &bucket.name], &env).ok().stdout;
    assert!(doctor.contains(&shown) && !doctor.contains(whole), "{doctor}");
    let args = ["mount", "--write-back", "--log-level", "trace", "--log-file", "log", &bucket.name, "mnt"];
    place.supafs(args, &env).ok();
    fs::write(place.mountpoint().join("file"), "changed").expect("a file");
    place.supafs(["unmount", "mnt"], &[]).ok();
    let log = fs::read_to_string(place.path().join("log")).expect("a log");
    assert!(log.contains(&shown) && !log.contains(whole), "{log}");
    // A server that repeats the id it was given is no way round.
    let wrong = [&env[..], &[("SUPABASE_S3_SECRET_ACCESS_KEY", "wrong")]].concat();
    let refused = place.supafs(["buckets"], &wrong).refused();
    assert!(!refused.contains(whole), "{refused}");
}
