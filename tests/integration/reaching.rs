//! Before anything is mounted: a server that cannot be reached is told at once, in one sentence with its host, and
//! `--wait-online` goes on trying.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Certificate, Login, Outcome, Place, TlsFront, eventually, is_mounted, outcome};

/// What a person at a terminal waits at most, on a machine that has other work.
const AT_ONCE: Duration = Duration::from_secs(8);

/// Every command that talks to the network, as the owner of a project at `endpoint`.
const COMMANDS: [(&str, &[&str]); 7] = [
    ("mount", &["mount", "bucket", "mnt"]),
    ("mount in the foreground", &["mount", "--foreground", "bucket", "mnt"]),
    ("mount --all", &["mount", "--all", "mnt"]),
    ("buckets", &["buckets"]),
    ("access", &["access", "bucket", "--as", "service"]),
    ("diff", &["diff", "bucket", "--as", "service", "--as", "anon"]),
    ("test", &["test", "expectations.toml"]),
];

const EXPECTATIONS: &str = "[identities]\nservice = { keys = true }\n\n[[expect]]\nas = \"service\"\npath = \"bucket/\"\nallow = [\"list\"]\n";

struct Project {
    place: Place,
    env: Vec<(&'static str, String)>,
}

impl Project {
    fn at(origin: &str) -> Self {
        let place = Place::new();
        place.file("expectations.toml", EXPECTATIONS, 0o600);
        let env = vec![
            ("SUPABASE_URL", origin.to_owned()),
            ("SUPABASE_PROJECT_REF", "stub".to_owned()),
            ("SUPABASE_S3_ACCESS_KEY_ID", "id".to_owned()),
            ("SUPABASE_S3_SECRET_ACCESS_KEY", "secret".to_owned()),
            ("SUPABASE_ANON_KEY", "sb_publishable_x".to_owned()),
            ("SUPABASE_JWT_SECRET", "a-secret-of-a-project-for-tests-only".to_owned()),
        ];
        Self { place, env }
    }

    fn run(&self, args: &[&str]) -> (Outcome, Duration) {
        let mut command = self.place.command(args);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        let began = Instant::now();
        (outcome(command), began.elapsed())
    }

    /// What the command says of a server that it cannot reach.
    fn complaint(&self, name: &str, args: &[&str], limit: Duration) -> String {
        let (outcome, took) = self.run(args);
        assert!(took < limit, "{name} took {took:?}: {outcome:?}");
        assert_eq!(outcome.status.code(), Some(1), "{name}: {outcome:?}");
        let stderr = outcome.refused();
        for word in ["dispatch failure", "ConnectorError", "client error", "hyper", "os error"] {
            assert!(!stderr.contains(word), "{name} shows {word:?}: {stderr}");
        }
        let sentences: Vec<&str> = stderr.lines().filter(|line| line.contains("cannot reach")).collect();
        assert_eq!(sentences.len(), 1, "{name}: {stderr}");
        assert!(!is_mounted(self.place.mountpoint()) && self.place.daemons().is_empty(), "{name}");
        sentences[0].to_owned()
    }
}

/// A port at which nothing listens.
fn closed_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port").local_addr().expect("an address").port()
}

#[test]
fn a_refused_connection_ends_every_command_at_once_in_one_sentence_with_the_host() {
    let port = closed_port();
    let project = Project::at(&format!("http://127.0.0.1:{port}"));
    for (name, args) in COMMANDS {
        let sentence = project.complaint(name, args, AT_ONCE);
        assert!(sentence.contains(&format!("127.0.0.1:{port} refuses the connection")), "{name}: {sentence}");
    }
    for args in [
        &["login", "--email", "a@example.com"][..],
        &["whoami", "--auth", "session", "--email", "a@example.com"],
    ] {
        let mut command = project.place.command(args);
        command
            .envs(project.env.iter().map(|(name, value)| (name, value)))
            .env("SUPABASE_PASSWORD", "hunter2");
        let began = Instant::now();
        let stderr = outcome(command).refused();
        assert!(began.elapsed() < AT_ONCE, "{args:?}");
        assert!(stderr.contains(&format!("127.0.0.1:{port} refuses the connection")), "{args:?}: {stderr}");
    }
}

#[test]
fn a_name_that_does_not_resolve_ends_every_command_at_once() {
    let project = Project::at("http://no-such-project.invalid");
    for (name, args) in COMMANDS {
        // Only the resolver's own patience is beyond this program.
        let sentence = project.complaint(name, args, Duration::from_secs(25));
        assert!(sentence.contains("the name no-such-project.invalid does not resolve"), "{name}: {sentence}");
        assert!(sentence.contains("--project-ref"), "{name}: {sentence}");
    }
}

#[test]
fn a_server_that_never_answers_is_given_up_after_ten_seconds() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let host = listener.local_addr().expect("an address");
    std::thread::scope(|scope| {
        // The last two share the way of the others.
        for (name, args) in &COMMANDS[..5] {
            scope.spawn(move || {
                let project = Project::at(&format!("http://{host}"));
                let sentence = project.complaint(name, args, Duration::from_secs(30));
                assert!(sentence.contains(&format!("no answer from {host}")), "{name}: {sentence}");
            });
        }
    });
}

#[test]
fn a_terminal_is_told_after_a_moment_that_the_command_still_tries() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let host = listener.local_addr().expect("an address");
    let lines = [
        "supafs mount bucket mnt",
        "supafs mount -f bucket mnt",
        "supafs buckets",
        "supafs access bucket --as service",
    ];
    std::thread::scope(|scope| {
        for line in lines {
            scope.spawn(move || told_on_a_terminal(&host.to_string(), line));
        }
    });
}

fn told_on_a_terminal(host: &str, line: &str) {
    let project = Project::at(&format!("http://{host}"));
    let binary = env!("CARGO_BIN_EXE_supafs");
    // script(1) gives it a terminal.
    let mut command = Command::new("script");
    command.args(["-qec", &line.replacen("supafs", binary, 1), "/dev/null"]);
    command.current_dir(project.place.path()).env("HOME", project.place.home()).stdin(Stdio::null());
    command.env("XDG_STATE_HOME", project.place.home().join("state"));
    command.envs(project.env.iter().map(|(name, value)| (name, value)));
    let outcome = outcome(command);
    assert!(!outcome.status.success(), "{line}: {outcome:?}");
    let hints = outcome.stdout.matches(&format!("still trying to reach {host}")).count();
    assert_eq!(hints, 1, "{line}: {}", outcome.stdout);
}

#[test]
fn wait_online_keeps_trying_until_the_server_is_there() {
    let backend = standin_only!("it is started late");
    let bucket = backend.bucket();
    bucket.put_keys(["file"]);
    let facts = backend.facts();
    let behind = backend_address(&facts.endpoint);
    let place = Place::new();
    let port = closed_port();
    for (args, variable) in [
        (&["--wait-online", "50s"][..], None),
        (&["-o", "wait_online=50s,_netdev"], None),
        (&[], Some("50s")),
    ] {
        let mut command = place.command(["mount", &bucket.name, "mnt"].iter().chain(args));
        command.envs(Login::Keys.variables(&facts, |_| String::new()));
        command.env("SUPABASE_S3_ENDPOINT", format!("http://127.0.0.1:{port}/storage/v1/s3"));
        if let Some(time) = variable {
            command.env("SUPAFS_WAIT_ONLINE", time);
        }
        let mut mounting = command.stderr(Stdio::null()).spawn().expect("the binary starts");
        std::thread::sleep(Duration::from_millis(2500));
        assert!(mounting.try_wait().expect("a child").is_none(), "{args:?}: it has given up");
        let front = plain_front(port, behind);
        let status = eventually("the mount", || mounting.try_wait().expect("a child"));
        assert!(status.success(), "{args:?}");
        assert_eq!(fs::read(place.mountpoint().join("file")).expect("it answers"), b"file");
        place.supafs(["unmount", "mnt"], &[]).ok();
        drop(front);
    }
    // The time ends, too, and not before.
    let project = Project::at(&format!("http://127.0.0.1:{}", closed_port()));
    for args in [&["mount", "--wait-online", "3s", "bucket", "mnt"][..], &["buckets", "--wait-online", "3s"]]
    {
        let (outcome, took) = project.run(args);
        assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(20), "{args:?}: {took:?}");
        assert!(outcome.refused().contains("refuses the connection"), "{args:?}");
    }
}

#[test]
fn a_certificate_that_is_not_accepted_is_told_with_what_to_do() {
    let backend = standin_only!("it is put behind TLS");
    let bucket = backend.bucket();
    bucket.put_keys(["file"]);
    let facts = backend.facts();
    let behind = backend_address(&facts.endpoint);
    let (own, old, other) =
        (Certificate::of("localhost"), Certificate::expired("localhost"), Certificate::of("storage.example"));
    let cases = [
        ("unknown", &own, false, "SSL_CERT_FILE"),
        ("expired", &old, true, "expired"),
        ("of another name", &other, true, "another host name"),
    ];
    for (name, certificate, is_trusted, word) in cases {
        let front = TlsFront::start(certificate, behind);
        let place = Place::new();
        certificate.write(&place.path().join("certificate.pem"));
        for args in [&["mount", &bucket.name, "mnt"][..], &["buckets"], &["doctor"]] {
            let mut command = place.command(args.iter().copied());
            command.envs(Login::Keys.variables(&facts, |_| String::new()));
            command.env("SUPABASE_S3_ENDPOINT", front.endpoint("localhost"));
            if is_trusted {
                command.env("SSL_CERT_FILE", place.path().join("certificate.pem"));
            }
            let began = Instant::now();
            let outcome = outcome(command);
            assert!(began.elapsed() < AT_ONCE, "{name} {args:?}: {:?}", began.elapsed());
            assert!(!outcome.status.success(), "{name} {args:?}: {outcome:?}");
            let said = format!("{}{}", outcome.stdout, outcome.stderr);
            assert!(
                said.contains("the certificate of localhost") && said.contains(word),
                "{name} {args:?}: {said}"
            );
            assert!(!said.contains("no answer"), "{name} {args:?}: {said}");
        }
    }
    // With the advice followed, it is mounted.
    let front = TlsFront::start(&own, behind);
    let place = Place::new();
    own.write(&place.path().join("certificate.pem"));
    place.file("empty.pem", "no certificate", 0o600);
    for variable in ["SSL_CERT_FILE", "AWS_CA_BUNDLE"] {
        for (file, words) in
            [("nowhere.pem", "cannot read the certificates"), ("empty.pem", "holds no certificate")]
        {
            let mut command = place.command(["buckets"]);
            command.envs(Login::Keys.variables(&facts, |_| String::new()));
            command.env("SUPABASE_S3_ENDPOINT", front.endpoint("localhost")).env(variable, file);
            let stderr = outcome(command).refused();
            assert!(stderr.contains(words) && stderr.contains(variable) && stderr.contains(file), "{stderr}");
            assert_eq!(stderr.lines().count(), 1, "{stderr}");
        }
        // As in the environment, so in an env file.
        place.file("env", &format!("{variable}=certificate.pem\n"), 0o600);
        let mut command = place.command(["mount", "--env-file", "env", &bucket.name, "mnt"]);
        for other in ["SSL_CERT_FILE", "SSL_CERT_DIR", "AWS_CA_BUNDLE"] {
            command.env_remove(other);
        }
        command.envs(Login::Keys.variables(&facts, |_| String::new()));
        command.env("SUPABASE_S3_ENDPOINT", front.endpoint("localhost"));
        outcome(command).ok();
        assert_eq!(fs::read(place.mountpoint().join("file")).expect("it answers"), b"file");
        place.supafs(["unmount", "mnt"], &[]).ok();
    }
    let mut command = place.command(["mount", &bucket.name, "mnt"]);
    command.envs(Login::Keys.variables(&facts, |_| String::new()));
    command.env("SUPABASE_S3_ENDPOINT", front.endpoint("localhost"));
    command.env("SSL_CERT_FILE", place.path().join("certificate.pem"));
    outcome(command).ok();
    assert_eq!(fs::read(place.mountpoint().join("file")).expect("it answers"), b"file");
    place.supafs(["unmount", "mnt"], &[]).ok();
}

/// Where the stand-in listens.
fn backend_address(endpoint: &str) -> SocketAddr {
    let rest = endpoint.split_once("://").expect("a URL").1;
    rest.split('/').next().expect("a host").replace("localhost", "127.0.0.1").parse().expect("an address")
}

/// Passes connections to `port` on, from now on and until it is dropped.
fn plain_front(port: u16, behind: SocketAddr) -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let listener =
        runtime.block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port))).expect("the port");
    runtime.spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(mut server) = tokio::net::TcpStream::connect(behind).await else { return };
                let _ended = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    runtime
}
