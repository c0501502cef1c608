//! A relative path means what it meant where the command was given, also to the daemon of a background mount, which
//! works in `/`.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};

use crate::common::{Backend, Bucket, Certificate, Facts, Login, Place, TlsFront, eventually, outcome};

/// The settings that name a file, each with the relative path that the test gives. One that is missing here fails the
/// test, which goes by the help.
const FILES: [(&str, &str); 8] = [
    ("config", "deep/config.toml"),
    ("env-file", "deep/env"),
    ("log-file", "deep/log"),
    ("status-file", "deep/status"),
    ("spool-dir", "deep/spool"),
    ("anon-key-file", "deep/anon"),
    ("session-token-file", "deep/token"),
    ("claims", "@deep/claims.json"),
];

/// The ways to give a setting.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Flag,
    Variable,
    OptionList,
    Profile,
}

fn path(flag: &str) -> &'static str {
    FILES.iter().find(|(name, _)| *name == flag).expect("a file").1
}

/// The options of `mount` that the help shows with a file or a directory for their value.
fn in_the_help(place: &Place) -> BTreeSet<String> {
    let help = place.supafs(["mount", "--help"], &[]).ok().stdout;
    let options =
        help.lines().filter_map(|line| line.trim().strip_prefix("--").or(line.split(", --").nth(1)));
    let named = options.filter_map(|option| option.split_once(' '));
    let files =
        named.filter(|(_, value)| ["<FILE>", "<DIR>", "@FILE>"].iter().any(|kind| value.contains(kind)));
    files.map(|(name, _)| name.to_owned()).collect()
}

fn variable(flag: &str) -> String {
    match flag {
        "anon-key-file" | "session-token-file" => {
            format!("SUPABASE_{}", flag.replace('-', "_").to_uppercase())
        }
        _ => format!("SUPAFS_{}", flag.replace('-', "_").to_uppercase()),
    }
}

/// A background mount with these files given in this way, and further variables.
fn mount(place: &Place, bucket: &Bucket<'_>, way: Way, flags: &[&str], more: &[(&str, &str)]) {
    let mut args = vec!["mount".to_owned(), bucket.name.clone(), "mnt".to_owned()];
    args.extend(["--metadata-ttl", "0s", "--negative-ttl", "0s"].map(ToOwned::to_owned));
    let mut env: Vec<(String, String)> =
        more.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let mut profile = String::from("[profile.default]\n");
    for flag in flags {
        // Where settings come from is no setting of a profile.
        match way {
            Way::Profile if !["config", "env-file"].contains(flag) => {
                let line = format!("{} = \"{}\"\n", flag.replace('-', "_"), path(flag));
                profile.push_str(&line);
            }
            Way::Flag | Way::Profile => args.extend([format!("--{flag}"), path(flag).to_owned()]),
            Way::Variable => env.push((variable(flag), path(flag).to_owned())),
            Way::OptionList => {
                args.extend(["-o".to_owned(), format!("{}={}", flag.replace('-', "_"), path(flag))]);
            }
        }
    }
    if !flags.contains(&"config") {
        args.extend(["--config".to_owned(), path("config").to_owned()]);
    }
    place.file(path("config"), &profile, 0o600);
    let mut command = place.command(args);
    command.envs(env);
    outcome(command).ok();
    for pid in place.daemons() {
        assert_eq!(
            fs::read_link(format!("/proc/{pid}/cwd")).ok().as_deref(),
            Some(Path::new("/")),
            "the daemon's directory"
        );
    }
}

fn unmount(place: &Place) {
    place.supafs(["unmount", "mnt"], &[]).ok();
}

const WAYS: [Way; 4] = [Way::Flag, Way::Variable, Way::OptionList, Way::Profile];

#[test]
fn every_setting_that_names_a_file_may_be_relative_in_a_background_mount() {
    let backend = Backend::start();
    let (bucket, users) = backend.users();
    bucket.put(&format!("{}/file", users.alice), "mine");
    let facts = backend.facts();
    let known: BTreeSet<String> = FILES.iter().map(|(flag, _)| (*flag).to_owned()).collect();
    assert_eq!(in_the_help(&Place::new()), known, "each option that names a file has its part in this test");
    for way in WAYS {
        with_keys(&backend, &bucket, &users.alice, way);
        let server = [
            ("SUPABASE_S3_ENDPOINT", facts.endpoint.as_str()),
            ("SUPABASE_S3_REGION", &facts.region),
            ("SUPABASE_PROJECT_REF", &facts.project_ref),
        ];
        // A user's token.
        let place = Place::new();
        place.file(path("anon-key-file"), &facts.anon_key, 0o600);
        let write =
            |seconds| place.file(path("session-token-file"), &backend.token(&users.alice, seconds), 0o600);
        write(4);
        mount(&place, &bucket, way, &["anon-key-file", "session-token-file"], &server);
        let file = place.mountpoint().join(&users.alice).join("file");
        assert_eq!(fs::read(&file).expect("it answers"), b"mine", "{way:?}");
        // The daemon finds the next one.
        write(3600);
        std::thread::sleep(Duration::from_secs(5));
        let listed = eventually("the new token", || fs::read_dir(place.mountpoint().join(&users.alice)).ok());
        assert!(listed.count() > 0, "{way:?}");
        unmount(&place);
        // And claims.
        place.file("deep/claims.json", "{\"app_metadata\": {\"team\": \"x\"}}", 0o600);
        let minted = [("SUPAFS_AS_USER", users.alice.as_str()), ("SUPABASE_JWT_SECRET", &facts.jwt_secret)];
        mount(&place, &bucket, way, &["anon-key-file", "claims"], &[&server[..], &minted].concat());
        assert_eq!(fs::read(&file).expect("it answers"), b"mine", "{way:?}");
        unmount(&place);
    }
}

/// Log, status, spool, profile and env file, with access keys.
fn with_keys(backend: &Backend, bucket: &Bucket<'_>, folder: &str, way: Way) {
    let place = Place::new();
    let lines: Vec<String> = Login::Keys
        .variables(&backend.facts(), |_| String::new())
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    place.file(path("env-file"), &lines.join("\n"), 0o600);
    mount(&place, bucket, way, &["config", "env-file", "log-file", "status-file", "spool-dir"], &[]);
    fs::write(place.mountpoint().join(folder).join("written"), "here").expect("it is written");
    for pid in place.daemons() {
        kill(pid, Signal::SIGUSR1).expect("it lives");
    }
    eventually("the counters", || place.path().join("deep/status").exists().then_some(()));
    assert!(fs::read_to_string(place.path().join("deep/log")).expect("a log").contains("mounted"), "{way:?}");
    assert!(fs::read_dir(place.path().join("deep/spool")).expect("a spool").count() > 0, "{way:?}");
    assert!(!place.home().join("state/supafs/spool").exists(), "{way:?}");
    unmount(&place);
}

/// Mounts with access keys behind TLS, with one more variable.
fn behind_tls(place: &Place, facts: &Facts, bucket: &str, endpoint: &str, name: &str, value: &str) {
    let mut command = place.command(["mount", bucket, "mnt"]);
    for other in ["SSL_CERT_FILE", "SSL_CERT_DIR", "AWS_CA_BUNDLE"] {
        command.env_remove(other);
    }
    command.envs(Login::Keys.variables(facts, |_| String::new()));
    command.env("SUPABASE_S3_ENDPOINT", endpoint).env(name, value);
    outcome(command).ok();
}

#[test]
fn certificates_may_be_named_by_relative_paths_in_a_background_mount() {
    let backend = standin_only!("it is put behind TLS");
    let bucket = backend.bucket();
    bucket.put_keys(["file"]);
    let facts = backend.facts();
    let behind: SocketAddr = {
        let rest = facts.endpoint.split_once("://").expect("a URL").1;
        rest.split('/').next().expect("a host").replace("localhost", "127.0.0.1").parse().expect("an address")
    };
    let certificate = Certificate::of("localhost");
    let front = TlsFront::start(&certificate, behind);
    let place = Place::new();
    fs::create_dir(place.path().join("certificates")).expect("a directory");
    // A directory of certificates has names of this form.
    certificate.write(&place.path().join("certificates/0a1b2c3d.0"));
    for (name, value) in [
        ("SSL_CERT_FILE", "certificates/0a1b2c3d.0"),
        ("AWS_CA_BUNDLE", "certificates/0a1b2c3d.0"),
        ("SSL_CERT_DIR", "nowhere:certificates"),
    ] {
        behind_tls(&place, &facts, &bucket.name, &front.endpoint("localhost"), name, value);
        assert_eq!(fs::read(place.mountpoint().join("file")).expect("it answers"), b"file", "{name}");
        unmount(&place);
    }
}

#[test]
fn the_files_of_aws_may_be_named_by_relative_paths_in_a_background_mount() {
    let backend = Backend::start();
    let (bucket, users) = backend.users();
    bucket.put(&format!("{}/file", users.alice), "mine");
    let facts = backend.facts();
    let place = Place::new();
    place.file(
        "deep/aws-config",
        &format!("[default]\nregion = {}\nendpoint_url = {}\n", facts.region, facts.endpoint),
        0o600,
    );
    let write = |seconds| {
        place.file(
            "deep/aws-credentials",
            &format!(
                "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\naws_session_token = {}\n",
                facts.project_ref,
                facts.anon_key,
                backend.token(&users.alice, seconds)
            ),
            0o600,
        );
    };
    write(4);
    let mut command = place.command(["mount", "--metadata-ttl", "0s", &bucket.name, "mnt"]);
    command
        .env("AWS_CONFIG_FILE", "deep/aws-config")
        .env("AWS_SHARED_CREDENTIALS_FILE", "deep/aws-credentials");
    outcome(command).ok();
    assert_eq!(fs::read(place.mountpoint().join(&users.alice).join("file")).expect("it answers"), b"mine");
    write(3600);
    std::thread::sleep(Duration::from_secs(5));
    let listed = eventually("the new token", || fs::read_dir(place.mountpoint().join(&users.alice)).ok());
    assert_eq!(listed.count(), 1);
    unmount(&place);
}
