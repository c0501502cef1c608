//! The program: variables, demo data, manifest, tokens, signals.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::Client;
use sha2::{Digest as _, Sha256};

#[test]
fn serves_demo_data_until_told_to_stop() {
    let dir = tempfile::tempdir().unwrap();
    let (env, manifest) = (dir.path().join("env"), dir.path().join("manifest"));
    let mut child = Command::new(env!("CARGO_BIN_EXE_supafs-standin"))
        .args(["--demo-data", "--env-file"])
        .arg(&env)
        .arg("--manifest")
        .arg(&manifest)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while !env.exists() {
        assert!(begun.elapsed() < Duration::from_mins(1), "not ready");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(std::fs::metadata(&env).unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&env).unwrap();
    let vars: HashMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let host = vars["SUPABASE_S3_ENDPOINT"].trim_start_matches("http://").split('/').next().unwrap();
    let admin = Client {
        host: host.to_owned(),
        prefix: "/storage/v1/s3".into(),
        region: vars["SUPABASE_S3_REGION"].into(),
        service: "s3".into(),
        access_key: vars["SUPABASE_S3_ACCESS_KEY_ID"].into(),
        secret: vars["SUPABASE_S3_SECRET_ACCESS_KEY"].into(),
        token: None,
        date: "20260102T030405Z".into(),
    };
    let alice = Client {
        access_key: vars["SUPABASE_PROJECT_REF"].into(),
        secret: vars["SUPABASE_ANON_KEY"].into(),
        token: Some(vars["ALICE_TOKEN"].into()),
        ..admin.clone()
    };
    let sums = std::fs::read_to_string(&manifest).unwrap();
    assert!(sums.lines().count() > 200);
    for (sum, path) in sums.lines().filter_map(|line| line.split_once("  ")) {
        if path.ends_with("logo.png") || path.ends_with("both/inside.txt") || path.ends_with("notes 007.txt")
        {
            let body = admin.get(&format!("/{}", path.replace(' ', "%20"))).body;
            assert_eq!(hex::encode(Sha256::digest(&body)), sum, "{path}");
        }
    }
    let folders = alice.list_all("team", &[("delimiter", "/")]).1;
    assert_eq!(folders, [format!("{}/", vars["ALICE_ID"]), "shared/".to_owned()]);
    assert_eq!(alice.put("/team/shared/x", b"").status, 403);
    assert_eq!(admin.head_of("/demo/videos/big.bin").header("content-length"), Some("209715200"));
    let killed = Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert!(killed.success());
    assert!(child.wait().unwrap().success(), "SIGTERM is a clean end");
}

#[test]
fn mints_tokens() {
    let output = Command::new(env!("CARGO_BIN_EXE_supafs-standin"))
        .args(["token", "--sub", "u", "--ttl", "-5", "--claims", r#"{"team":"red"}"#])
        .output()
        .unwrap();
    let token = String::from_utf8(output.stdout).unwrap();
    assert_eq!(token.trim().split('.').count(), 3);
    let standin = crate::common::standin();
    let refusal = Client::user(&standin, token.trim()).get("/b?list-type=2").refusal();
    assert_eq!(refusal.2, "\"exp\" claim timestamp check failed");
}
