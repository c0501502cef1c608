//! Token files are private and read again when they change; token commands end.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

use super::*;

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

#[test]
fn a_token_file_is_read_again_when_it_changes() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("token");
    write(&path, " one\n", 0o600);
    let source = TokenFile::new(path.clone());
    assert_eq!(source.load().expect("a token").expose(), "one");
    assert!(!source.changed());
    // As careful writers do it: a new file in its place.
    let next = dir.path().join("next");
    write(&next, "two", 0o600);
    fs::rename(&next, &path).expect("renamed");
    assert!(source.changed());
    assert_eq!(source.load().expect("a token").expose(), "two");
    assert!(!source.changed());
    fs::remove_file(&path).expect("removed");
    assert!(!source.changed(), "a file that is gone gives nothing new");
}

#[test]
fn a_token_file_that_others_can_read_is_refused_with_the_chmod() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("token");
    for mode in [0o640, 0o604, 0o610] {
        write(&path, "one", mode);
        let why = TokenFile::new(path.clone()).load().expect_err("refused");
        assert!(why.contains(&format!("chmod 600 {}", path.display())), "{why}");
    }
}

fn command(text: &str) -> TokenCommand {
    TokenCommand::new(Secret::new(text), PathBuf::from("/"))
}

#[test]
fn a_command_gives_its_trimmed_output() {
    assert_eq!(command("echo; echo ' tok'; echo noise >&2").load().expect("a token").expose(), "tok");
}

#[test]
fn a_failing_command_shows_its_own_words() {
    let why = command("echo sign in first >&2; exit 3").load().expect_err("failed");
    assert!(why.contains("sign in first") && why.contains('3'), "{why}");
}

#[test]
fn a_command_that_hangs_is_killed_with_its_children() {
    let began = Instant::now();
    let source = command("sleep 100 & sleep 100").with_timeout(Duration::from_millis(200));
    let why = source.load().expect_err("timed out");
    assert!(why.contains("did not end"), "{why}");
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_command_may_leave_something_running() {
    let began = Instant::now();
    assert_eq!(command("sleep 60 & echo tok").load().expect("a token").expose(), "tok");
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_command_that_prints_without_end_is_stopped() {
    assert!(command("yes").load().expect_err("stopped").contains("without end"));
}

#[test]
fn a_token_file_between_truncation_and_writing_is_read_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("token");
    write(&path, "", 0o600);
    let source = TokenFile::new(path.clone());
    let why = source.load().expect_err("it stays empty");
    assert!(why.contains(&path.display().to_string()) && why.contains("is empty"), "{why}");
    let writer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(120));
        fs::write(&path, "token").expect("written");
    });
    assert_eq!(source.load().expect("a token").expose(), "token");
    writer.join().expect("it writes");
}
