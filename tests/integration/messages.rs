//! What people are told when something small is wrong: the name that was meant, the place of the mistake, the next step.

use std::fs;
use std::process::{Command, Stdio};

use supafs_standin::{Action, Fault};

use crate::common::{Backend, Login, Place, outcome};

fn keys(backend: &Backend) -> Vec<(String, String)> {
    Login::Keys.variables(&backend.facts(), |_| String::new())
}

fn borrowed(variables: &[(String, String)]) -> Vec<(&str, &str)> {
    variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

#[test]
fn a_bucket_that_is_missing_is_named_with_the_one_that_was_meant() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["file"]);
    let place = Place::new();
    let env = keys(&backend);
    let near = format!("{}x", bucket.name);
    let expectations = format!(
        "[identities]\nservice = {{ keys = true }}\n\n[[expect]]\nas = \"service\"\npath = \"{near}/\"\nallow = [\"list\"]\n"
    );
    place.file("expectations.toml", &expectations, 0o600);
    let commands: [&[&str]; 5] = [
        &["mount", "--all", "--bucket", &bucket.name, "--bucket", &near, "mnt"],
        &["mount", &near, "mnt"],
        &["access", &near, "--as", "service"],
        &["test", "expectations.toml"],
        &["diff", &near, "--as", "one=service", "--as", "two=service"],
    ];
    for args in commands {
        let stderr = place.supafs(args, &borrowed(&env)).refused();
        assert!(stderr.contains(&format!("there is no bucket {near:?}")), "{args:?}: {stderr}");
        assert!(stderr.contains(&format!("did you mean {:?}?", bucket.name)), "{args:?}: {stderr}");
        assert!(stderr.contains("supafs buckets"), "{args:?}: {stderr}");
    }
    let stderr = place.supafs(["mount", "completely-different", "mnt"], &borrowed(&env)).refused();
    assert!(stderr.contains("there is no bucket") && !stderr.contains("did you mean"), "{stderr}");
}

#[test]
fn a_region_that_the_server_refuses_is_named() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let place = Place::new();
    let mut env = keys(&backend);
    env.push(("SUPABASE_S3_REGION".to_owned(), "eu-nowhere-7".to_owned()));
    for args in [
        &["mount", &bucket.name, "mnt"][..],
        &["buckets"],
        &["access", &bucket.name, "--as", "service"],
        &["doctor"],
    ] {
        let outcome = place.supafs(args, &borrowed(&env));
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        assert!(!outcome.status.success(), "{args:?}: {said}");
        assert!(said.contains("region in use is \"eu-nowhere-7\""), "{args:?}: {said}");
    }
}

#[test]
fn the_url_of_another_api_is_told_as_one() {
    let place = Place::new();
    for api in ["/rest/v1", "/rest/v1/", "/auth/v1", "/storage/v1"] {
        for variable in ["SUPABASE_URL", "SUPABASE_S3_ENDPOINT"] {
            let url = format!("https://abcdefghijklmnopqrst.supabase.co{api}");
            let env = [
                (variable, url.as_str()),
                ("SUPABASE_S3_ACCESS_KEY_ID", "a"),
                ("SUPABASE_S3_SECRET_ACCESS_KEY", "b"),
            ];
            let stderr = place.supafs(["buckets"], &env).refused();
            assert!(stderr.contains(&format!("leave the {} away", api.trim_end_matches('/'))), "{stderr}");
            assert!(stderr.trim_end().ends_with("https://abcdefghijklmnopqrst.supabase.co"), "{stderr}");
        }
    }
}

#[test]
fn without_credentials_the_profiles_are_named_and_nothing_of_a_library() {
    let place = Place::new();
    place.file(
        "home/config/supafs/config.toml",
        "[profile.work]\nregion = \"x\"\n[profile.home]\nregion = \"y\"\n",
        0o600,
    );
    let endpoint = ("SUPABASE_URL", "http://127.0.0.1:9");
    for args in [&["mount", "b", "mnt"][..], &["buckets"], &["whoami"]] {
        let stderr = place.supafs(args, &[endpoint]).refused();
        assert!(stderr.contains("no credentials"), "{args:?}: {stderr}");
        for words in ["--profile", "home, work", "SUPABASE_S3_ACCESS_KEY_ID"] {
            assert!(stderr.contains(words), "{args:?}: no {words}: {stderr}");
        }
        for inside in ["provider", "CredentialsNotLoaded", "WARN", "aws_config"] {
            assert!(!stderr.contains(inside), "{args:?} shows {inside}: {stderr}");
        }
    }
    // A warning of the library, which reads its files several times.
    place.file("home/.aws/config", "[default]\nregion = x\n[profile default]\nregion = y\n", 0o600);
    place.file(
        "home/.aws/credentials",
        "[default]\naws_access_key_id = 625729a08b95bf1b7ff351a663f3a23c\naws_secret_access_key = abc\n",
        0o600,
    );
    let stderr = place.supafs(["buckets"], &[endpoint]).refused();
    assert_eq!(stderr.matches("WARN").count(), 1, "{stderr}");
}

#[test]
fn an_env_file_with_an_open_quote_names_line_and_quote() {
    let place = Place::new();
    for (text, line, quote) in [
        ("A=1\n# it's a comment\nSUPABASE_S3_SECRET_ACCESS_KEY=\"hunter2\nC=3\n", 3, '"'),
        ("SUPABASE_DB_PASSWORD=it's hunter2\nSUPABASE_PROJECT_REF=abcdefghijklmnopqrst\n", 1, '\''),
    ] {
        place.file("env", text, 0o600);
        for args in [&["mount", "--env-file", "env", "b", "mnt"][..], &["buckets", "--env-file", "env"]] {
            let stderr = place.supafs(args, &[]).refused();
            let told = format!("env, line {line}: the quote {quote} is not closed");
            assert!(stderr.contains(&told), "{args:?}: {stderr}");
            assert!(!stderr.contains("hunter2"), "{args:?} shows a value: {stderr}");
        }
    }
}

#[test]
fn a_token_file_that_is_being_written_is_read_again_and_one_that_stays_empty_is_named() {
    let backend = Backend::start();
    let (bucket, users) = backend.users();
    let facts = backend.facts();
    let place = Place::new();
    let file = place.file("token", "", 0o600);
    let env = [
        ("SUPABASE_S3_ENDPOINT", facts.endpoint.as_str()),
        ("SUPABASE_S3_REGION", &facts.region),
        ("SUPABASE_PROJECT_REF", &facts.project_ref),
        ("SUPABASE_ANON_KEY", &facts.anon_key),
    ];
    for args in [&["mount", "--session-token-file", "token", &bucket.name, "mnt"][..], &["whoami"]] {
        let mut args = args.to_vec();
        if args[0] == "whoami" {
            args.extend(["--session-token-file", "token"]);
        }
        let outcome = place.supafs(args.iter().copied(), &env);
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        assert!(
            !outcome.status.success() && said.contains(&format!("{} is empty", file.display())),
            "{said}"
        );
    }
    // Its writer has truncated it and is about to write.
    let token = backend.token(&users.alice, 3600);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(200));
            fs::write(&file, &token).expect("written in place");
        });
        let mount = ["mount", "--session-token-file", "token", &bucket.name, "mnt"];
        let outcome = place.supafs(mount, &env).ok();
        assert_eq!(outcome.stderr, "");
    });
    place.supafs(["unmount", "mnt"], &[]).ok();
}

#[test]
fn an_anon_key_for_a_session_token_is_told_at_mount() {
    let backend = Backend::start();
    let (bucket, _users) = backend.users();
    let facts = backend.facts();
    let place = Place::new();
    let env = [
        ("SUPABASE_S3_ENDPOINT", facts.endpoint.as_str()),
        ("SUPABASE_S3_REGION", &facts.region),
        ("SUPABASE_PROJECT_REF", &facts.project_ref),
        ("SUPABASE_ANON_KEY", &facts.anon_key),
        ("SUPABASE_SESSION_TOKEN", &facts.anon_key),
    ];
    let outcome = place.supafs(["mount", &bucket.name, "mnt"], &env).ok();
    assert!(outcome.stderr.contains("the session token is an anon key"), "{outcome:?}");
    place.supafs(["unmount", "mnt"], &[]).ok();
    let asked_for = place.supafs(["mount", "--as-anon", &bucket.name, "mnt"], &env[..4]).ok();
    assert_eq!(asked_for.stderr, "");
    place.supafs(["unmount", "mnt"], &[]).ok();
}

/// What a command prints on a terminal of this width.
fn on_a_terminal(columns: usize, line: &str) -> String {
    let shell = format!("stty cols {columns} rows 50; {} {line}", env!("CARGO_BIN_EXE_supafs"));
    let mut command = Command::new("script");
    command.args(["-qec", &shell, "/dev/null"]).stdin(Stdio::null()).env_remove("COLUMNS");
    let outcome = outcome(command).ok();
    // Styles take no room.
    let mut plain = String::new();
    let mut rest = outcome.stdout.as_str();
    while let Some(at) = rest.find('\u{1b}') {
        plain += &rest[..at];
        rest = rest[at..].split_once('m').map_or("", |(_, rest)| rest);
    }
    (plain + rest).replace('\r', "")
}

#[test]
fn help_is_wrapped_to_the_terminal_and_short_by_its_short_name() {
    for columns in [80, 100, 160] {
        for line in
            ["--help", "-h", "mount --help", "mount -h", "access --help", "login --help", "spool list --help"]
        {
            let help = on_a_terminal(columns, line);
            let long: Vec<&str> = help.lines().filter(|line| line.chars().count() > columns).collect();
            assert!(long.is_empty(), "{line} at {columns}: {long:#?}");
        }
    }
    // The room is used, too.
    let wide = on_a_terminal(160, "mount --help");
    assert!(wide.lines().any(|line| line.chars().count() > 120), "{wide}");
    let lines = |line: &str| on_a_terminal(100, line).lines().count();
    assert!(lines("-h") <= 30, "{}", on_a_terminal(100, "-h"));
    assert!(lines("mount -h") <= 50, "{}", on_a_terminal(100, "mount -h"));
    assert!(lines("mount --help") > 100);
}

#[test]
fn the_examples_of_the_help_can_be_pasted() {
    let help = on_a_terminal(80, "--help");
    let examples: Vec<&str> = {
        let begin = help.lines().skip_while(|line| *line != "Examples:").skip(1);
        begin.take_while(|line| line.is_empty() || line.starts_with("  ")).collect()
    };
    assert!(examples.iter().filter(|line| line.starts_with("  supafs ")).count() >= 6, "{help}");
    let place = Place::new();
    for line in examples {
        assert!(!line.contains(['…', '<', '>']), "{line}");
        // A shell takes it, and so does the command line: what fails then is the missing project, not the usage.
        let path = format!("{}:{}", place.path().display(), std::env::var("PATH").expect("a path"));
        let binary = place.path().join("supafs");
        if !binary.exists() {
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_supafs"), &binary).expect("a link");
        }
        let mut command = Command::new("bash");
        command
            .args(["-c", line])
            .env_clear()
            .env("PATH", path)
            .env("HOME", place.home())
            .stdin(Stdio::null());
        command.env("SUPABASE_URL", "http://127.0.0.1:9").current_dir(place.path());
        let outcome = outcome(command);
        assert_ne!(outcome.status.code(), Some(127), "{line}: {outcome:?}");
        assert!(
            !outcome.stderr.contains("Usage:") && !outcome.stderr.contains("syntax"),
            "{line}: {outcome:?}"
        );
    }
}

#[test]
fn the_list_of_the_spool_is_for_people() {
    let backend = standin_only!("it makes uploads hang");
    let bucket = backend.bucket();
    let place = Place::new();
    let env = keys(&backend);
    assert_eq!(place.supafs(["spool", "list"], &[]).ok().stdout, "nothing waits\n");
    backend.fault(Fault::new(Action::Hang).on("PutObject"));
    let mount = ["mount", "--write-back", "--drain-timeout", "1s", &bucket.name, "mnt"];
    place.supafs(mount, &borrowed(&env)).ok();
    fs::write(place.mountpoint().join("small"), vec![b'x'; 17]).expect("close does not wait");
    fs::write(place.mountpoint().join("larger"), vec![b'x'; 1536 << 10]).expect("close does not wait");
    assert_eq!(place.supafs(["unmount", "mnt"], &[]).status.code(), Some(75));
    let list = place.supafs(["spool", "list"], &[]).ok().stdout;
    let lines: Vec<&str> = list.lines().collect();
    assert_eq!(lines.len(), 4, "a title, a line a file, and a total: {list}");
    let line_of =
        |name: &str| lines.iter().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{list}"));
    assert!(line_of("/small").contains(" 17 B "), "{list}");
    assert!(line_of("/larger").contains(" 1.5 MiB "), "{list}");
    assert_eq!(lines[3], "2 files, 1.5 MiB");
}

#[test]
fn an_unmount_while_the_server_is_away_says_so_and_how_long_it_waits() {
    let backend = standin_only!("it goes away on demand");
    let bucket = backend.bucket();
    let place = Place::new();
    let env = keys(&backend);
    for action in [Action::Reset, Action::Hang] {
        let mount = ["mount", "--write-back", "--drain-timeout", "9s", &bucket.name, "mnt"];
        place.supafs(mount, &borrowed(&env)).ok();
        let fault = backend.fault(Fault::new(action).on("PutObject"));
        fs::write(place.mountpoint().join("file"), "late").expect("close does not wait");
        let outcome = place.supafs(["unmount", "mnt"], &[]);
        backend.standin().clear_fault(fault);
        assert_eq!(outcome.status.code(), Some(75), "{outcome:?}");
        let told: Vec<&str> =
            outcome.stderr.lines().filter(|line| line.contains("does not answer")).collect();
        assert_eq!(told.len(), 1, "{}", outcome.stderr);
        assert!(
            told[0].contains("waiting for it for up to ") && told[0].contains("1 upload left"),
            "{}",
            told[0]
        );
        let seconds: u64 = told[0]
            .split("up to ")
            .nth(1)
            .and_then(|rest| rest.split('s').next()?.parse().ok())
            .expect("a time");
        assert!((1..=9).contains(&seconds), "{}", told[0]);
        place.supafs(["mount", &bucket.name, "mnt"], &borrowed(&env)).ok();
        place.supafs(["unmount", "mnt"], &[]).ok();
    }
    assert_eq!(bucket.bytes("file").as_deref(), Some(&b"late"[..]));
}

#[test]
fn an_unmount_says_what_the_server_refused_after_it_was_closed() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.limit_size(1 << 20);
    let place = Place::new();
    let env = keys(&backend);
    let mount = ["mount", "--write-back", "--write-back-delay", "2s", &bucket.name, "mnt"];
    place.supafs(mount, &borrowed(&env)).ok();
    let content = vec![b'x'; 2 << 20];
    fs::write(place.mountpoint().join("large"), &content).expect("close does not wait");
    fs::write(place.mountpoint().join("small"), "fits").expect("close does not wait");
    let outcome = place.supafs(["unmount", "mnt"], &[]);
    assert_eq!(outcome.status.code(), Some(75), "{outcome:?}");
    assert!(!outcome.stderr.contains("everything is uploaded"), "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("not sent in time"), "{}", outcome.stderr);
    let told = "refused by the server after they had been acknowledged: 1 file or folder; not in the bucket";
    assert!(outcome.stderr.contains(told), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("supafs spool list"), "{}", outcome.stderr);
    assert_eq!((bucket.bytes("large"), bucket.bytes("small")), (None, Some(b"fits".to_vec())));
    let list = place.supafs(["spool", "list"], &[]).ok().stdout;
    assert!(list.contains("/large") && list.contains("parked"), "{list}");

    bucket.limit_size(4 << 20);
    place.supafs(["spool", "retry", "--all"], &[]).ok();
    place.supafs(mount, &borrowed(&env)).ok();
    let outcome = place.supafs(["unmount", "mnt"], &[]).ok();
    assert!(outcome.stderr.contains("everything is uploaded"), "{}", outcome.stderr);
    assert_eq!(bucket.bytes("large"), Some(content));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    bucket.put_keys(["file"]);
    let place = Place::new();
    let env = keys(&backend);
    let commands: [&[&str]; 6] = [
        &["buckets"],
        &["buckets", "--json"],
        &["whoami"],
        &["doctor"],
        &["spool", "list"],
        &["access", &bucket.name, "--as", "service"],
    ];
    for args in commands {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = place.command(args);
        command.envs(borrowed(&env)).stdout(writer);
        let outcome = command.output().expect("the binary runs");
        let stderr = String::from_utf8_lossy(&outcome.stderr);
        assert_eq!((outcome.status.code(), &*stderr), (Some(0), ""), "{args:?}");
    }
}
