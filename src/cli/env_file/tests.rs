//! Env files: quoted as usual, private where they hold secrets.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn read_text(text: &str, mode: u32) -> Result<HashMap<String, Secret>, CliError> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join(".env");
    fs::write(&path, text).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
    read(&path)
}

#[test]
fn values_are_read_without_touching_the_environment() {
    let text =
        "# comment\nSUPABASE_S3_REGION='a b'\nexport SUPABASE_PROJECT_REF=\"abc\"\nSUPAFS_UID=\nOTHER=x\n";
    let values = read_text(text, 0o644).expect("read");
    assert_eq!(values["SUPABASE_S3_REGION"].expose(), "a b");
    assert_eq!(values["SUPABASE_PROJECT_REF"].expose(), "abc");
    assert!(!values.contains_key("SUPAFS_UID"));
    assert_eq!(std::env::var_os("OTHER"), None);
}

#[test]
fn a_file_with_secrets_must_be_private() {
    let text = "SUPABASE_S3_SECRET_ACCESS_KEY=hunter2\n";
    let why = read_text(text, 0o644).expect_err("refused").to_string();
    assert!(why.contains("chmod 600") && why.contains("0644") && !why.contains("hunter2"), "{why}");
    assert!(read_text(text, 0o600).is_ok());
}

#[test]
fn a_line_that_is_none_is_not_shown() {
    let why = read_text("A=1\nSUPABASE_SESSION_TOKEN hunter2\n", 0o600).expect_err("no entry").to_string();
    assert!(why.contains("line 2") && !why.contains("hunter2"), "{why}");
}

#[test]
fn a_quote_that_is_not_closed_is_told_by_line_and_sign() {
    for (text, line, quote) in [
        ("A=1\n# it's a comment\nB=\"hunter2\nC=3\nD=4\n", 3, '"'),
        ("A=it's hunter2\nB=2\n", 1, '\''),
        ("A='one\ntwo'\nB=\"x\\\"y\"\nC='hunter2\n", 4, '\''),
    ] {
        let why = read_text(text, 0o600).expect_err("an open quote").to_string();
        assert!(why.contains(&format!("line {line}")) && why.contains(&format!("quote {quote} ")), "{why}");
        assert!(!why.contains("hunter2"), "{why}");
    }
    let values = read_text("A='one\ntwo' # it's\nB=\"x'y\"\nC=\\'\n", 0o600).expect("all are closed");
    assert_eq!((values["A"].expose(), values["B"].expose(), values["C"].expose()), ("one\ntwo", "x'y", "'"));
}
