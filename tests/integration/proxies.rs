//! The proxy that the environment names is used for storage and for Auth, with its password, which nobody else sees.

use std::fs;
use std::net::SocketAddr;

use crate::common::outcome;
use crate::common::{
    Backend, Certificate, Facts, Login, Mount, MountOptions, Place, Proxy, TlsFront, is_mounted,
};
use crate::signing_in::{PASSWORD, email, known};

/// No resolver knows it: only the proxy of the test leads there.
const HOST: &str = "storage.invalid";

/// `me:pa ss`, as the header has it.
const LOGIN: &str = "Basic bWU6cGEgc3M=";

fn address(facts: &Facts) -> SocketAddr {
    let rest = facts.endpoint.split_once("://").expect("a URL").1;
    let authority = rest.split('/').next().expect("a host");
    authority.replace("localhost", "127.0.0.1").parse().expect("an address")
}

fn reads_and_writes(mount: &Mount) {
    assert_eq!(mount.read("file"), b"file");
    let large = vec![7u8; 20 << 20];
    fs::write(mount.at("large"), &large).expect("it is written");
    mount.drop_kernel_caches();
    assert_eq!(mount.read("large"), large);
}

/// Nothing that leaves the process shows the password.
fn keeps_the_password(log: &str) {
    for password in ["pa%20ss", "pa ss", LOGIN] {
        assert!(!log.contains(password), "{log}");
    }
}

#[test]
fn https_goes_through_a_tunnel_of_the_proxy_with_its_password() {
    let backend = standin_only!("it is put behind TLS");
    let bucket = backend.bucket();
    bucket.put_keys(["file"]);
    let certificate = Certificate::of(HOST);
    let front = TlsFront::start(&certificate, address(&backend.facts()));
    let proxy = Proxy::start(front.address(), Some(LOGIN));
    let place = Place::new();
    certificate.write(&place.path().join("authority.pem"));
    let named = format!("http://me:pa%20ss@{}", proxy.address());
    let mount = MountOptions::new(&backend, &bucket.name)
        .env("SSL_CERT_FILE", place.path().join("authority.pem").display().to_string())
        .env("SUPABASE_S3_ENDPOINT", format!("https://{HOST}/storage/v1/s3"))
        .env("HTTPS_PROXY", named)
        .start();
    reads_and_writes(&mount);
    let heads = proxy.heads();
    assert!(!heads.is_empty());
    for head in heads {
        assert!(head.starts_with(&format!("CONNECT {HOST}:443 ")), "{head}");
    }
    let log = mount.log();
    assert!(log.contains(&format!("{} (the proxy of HTTPS_PROXY)", proxy.address())), "{log}");
    keeps_the_password(&log);
}

#[test]
fn http_is_forwarded_by_the_proxy_and_hosts_of_no_proxy_are_reached_directly() {
    let backend = standin_only!("its name is made up");
    let bucket = backend.bucket();
    bucket.put_keys(["file"]);
    let server = address(&backend.facts());
    let proxy = Proxy::start(server, Some(LOGIN));
    let named = format!("http://me:pa%20ss@{}", proxy.address());
    let endpoint = format!("http://{HOST}:{}/storage/v1/s3", server.port());
    for variable in ["http_proxy", "HTTP_PROXY", "ALL_PROXY"] {
        let before = proxy.heads().len();
        let mount = MountOptions::new(&backend, &bucket.name)
            .env("SUPABASE_S3_ENDPOINT", endpoint.clone())
            .env(variable, named.clone())
            .start();
        reads_and_writes(&mount);
        let heads = proxy.heads();
        assert!(heads.len() > before, "{variable}");
        assert!(heads.iter().all(|head| head.contains(&format!("http://{HOST}"))), "{heads:?}");
        keeps_the_password(&mount.log());
    }
    let before = proxy.heads().len();
    let mount = MountOptions::new(&backend, &bucket.name)
        .env("ALL_PROXY", named)
        .env("NO_PROXY", "example.com, 127.0.0.0/8,localhost")
        .start();
    assert_eq!(mount.read("file"), b"file");
    assert_eq!(proxy.heads().len(), before);
}

#[test]
fn a_sign_in_goes_by_way_of_the_proxy() {
    let backend = standin_only!("there is no Auth");
    let (_bucket, users) = known(&backend);
    let email = email(&users.alice);
    let facts = backend.facts();
    let server = address(&facts);
    let proxy = Proxy::start(server, None);
    let named = format!("http://{}", proxy.address());
    let url = format!("http://{HOST}:{}", server.port());
    let place = Place::new();
    let env = [
        ("SUPABASE_URL", url.as_str()),
        ("SUPABASE_PROJECT_REF", facts.project_ref.as_str()),
        ("SUPABASE_ANON_KEY", facts.anon_key.as_str()),
        ("SUPABASE_PASSWORD", PASSWORD),
        ("http_proxy", named.as_str()),
    ];
    place.supafs(["login", "--email", &email], &env).ok();
    let heads = proxy.heads();
    assert!(heads.iter().any(|head| head.starts_with(&format!("POST {url}/auth/v1/token"))), "{heads:?}");
}

#[test]
fn a_proxy_that_is_no_help_is_named() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let facts = backend.facts();
    let proxy = Proxy::start(address(&facts), Some(LOGIN));
    let closed = "127.0.0.1:9";
    let without_login = format!("http://me:hidden@{}", proxy.address());
    let closed_with_login = format!("http://me:hidden@{closed}");
    let cases: [(&str, &[&str]); 5] = [
        ("http://me:hidden@no-such-host.invalid:9", &["http_proxy", "does not resolve", "that variable"]),
        (&closed_with_login, &["http_proxy", closed, "refuses the connection"]),
        (&without_login, &["http_proxy", "user name and a password"]),
        ("socks5://me:hidden@127.0.0.1:9", &["http_proxy", "socks5", "NO_PROXY"]),
        ("http://me:hidden word@127.0.0.1:9", &["http_proxy", "USER:PASSWORD@"]),
    ];
    for (value, words) in cases {
        let place = Place::new();
        let mut env = Login::Keys.variables(&facts, |_| String::new());
        env.push(("SUPABASE_S3_ENDPOINT".to_owned(), facts.endpoint.clone()));
        env.push(("http_proxy".to_owned(), value.to_owned()));
        let env: Vec<(&str, &str)> =
            env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let why = place.supafs(["mount", &bucket.name, "mnt"], &env).refused();
        for word in words {
            assert!(why.contains(word), "{value}: {why}");
        }
        assert!(!why.contains("hidden"), "{why}");
        assert!(!is_mounted(place.mountpoint()));
    }
    // An env file counts like the environment.
    let place = Place::new();
    place.file("env", &format!("http_proxy={closed_with_login}\n"), 0o600);
    let mut command = place.command(["mount", "--env-file", "env", &bucket.name, "mnt"]);
    command
        .envs(Login::Keys.variables(&facts, |_| String::new()))
        .env("SUPABASE_S3_ENDPOINT", &facts.endpoint);
    let why = outcome(command).refused();
    assert!(
        why.contains("http_proxy") && why.contains("refuses the connection") && !why.contains("hidden"),
        "{why}"
    );
    let named = "http://me:hidden@127.0.0.1:9";
    let env = [("SUPABASE_S3_ENDPOINT", facts.endpoint.as_str()), ("http_proxy", named)];
    let checks = Place::new().supafs(["doctor"], &env).stdout;
    assert!(
        checks.contains("127.0.0.1:9 (the proxy of http_proxy)") && !checks.contains("hidden"),
        "{checks}"
    );
}
