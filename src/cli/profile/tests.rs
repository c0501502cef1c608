//! Profiles: chosen by name, checked key by key, private where they hold secrets.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn config(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("config.toml");
    fs::write(&path, text).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
    (dir, path)
}

fn read_text(text: &str, mode: u32, named: Option<&str>) -> Result<Option<Layer>, CliError> {
    let (_dir, path) = config(text, mode);
    read(Some(&path), named)
}

fn region(layer: &Layer) -> &str {
    layer.values[&Setting::Region].expose()
}

const TWO: &str =
    "[profile.default]\nregion = 'a'\n[profile.work]\nregion = 'b'\nmax_requests = 8\nread_only = true\n";

#[test]
fn the_named_profile_applies_else_default() {
    assert_eq!(region(&read_text(TWO, 0o644, None).expect("read").expect("a profile")), "a");
    let work = read_text(TWO, 0o644, Some("work")).expect("read").expect("a profile");
    assert_eq!(region(&work), "b");
    assert_eq!(work.values[&Setting::MaxRequests].expose(), "8");
    assert_eq!(work.values[&Setting::ReadOnly].expose(), "true");
    let why = read_text(TWO, 0o644, Some("wrok")).expect_err("no such profile").to_string();
    assert!(why.contains("wrok") && why.contains("default, work"), "{why}");
    assert!(read_text("[profile.x]\n", 0o644, None).expect("read").is_none());
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest() {
    let why = read_text("[profile.x]\nacces_key = 'a'", 0o600, None).expect_err("unknown").to_string();
    assert!(why.contains("`acces_key`") && why.contains("`access_key_id`"), "{why}");
    assert!(
        read_text("region = 'a'", 0o600, None).expect_err("top level").to_string().contains("[profile.NAME]")
    );
    assert!(read_text("[profile.x]\nregion = ['a']", 0o600, None).is_err());
}

#[test]
fn a_file_with_secrets_must_be_private() {
    for key in ["secret_access_key", "anon_key", "publishable_key", "session_token"] {
        let text = format!("[profile.x]\n{key} = 'hunter2'");
        for mode in [0o640, 0o604] {
            let why = read_text(&text, mode, None).expect_err("refused").to_string();
            assert!(why.contains("chmod 600") && why.contains(key) && !why.contains("hunter2"), "{why}");
        }
        assert!(read_text(&text, 0o600, None).is_ok());
    }
}

#[test]
fn a_syntax_error_shows_the_line_number_and_not_the_line() {
    let why = read_text("[profile.x]\nsecret_access_key = hunter2\n", 0o600, None)
        .expect_err("no TOML")
        .to_string();
    assert!(why.contains("line 2") && !why.contains("hunter2"), "{why}");
}
