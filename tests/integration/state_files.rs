//! Every file that supafs makes is its owner's alone, whatever the umask.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};

use crate::common::{Backend, Login, Place, eventually, outcome};

/// Runs the binary under this umask.
fn under(umask: &str, place: &Place, backend: &Backend, args: &[&str]) {
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "umask $0; exec \"$@\"", umask, env!("CARGO_BIN_EXE_supafs")]).args(args);
    command.env_clear().current_dir(place.path()).env("PATH", std::env::var_os("PATH").expect("a path"));
    command.env("HOME", place.home()).env("XDG_STATE_HOME", place.home().join("state"));
    command.envs(Login::Keys.variables(&backend.facts(), |_| String::new()));
    outcome(command).ok();
}

/// Everything below, with its kind and mode.
fn walk(dir: &Path, found: &mut Vec<(PathBuf, bool, u32)>) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        let meta = fs::symlink_metadata(&path).expect("attributes");
        found.push((path.clone(), meta.is_dir(), meta.permissions().mode() & 0o7777));
        if meta.is_dir() {
            walk(&path, found);
        }
    }
}

fn all(place: &Place) -> Vec<(PathBuf, bool, u32)> {
    let mut found = Vec::new();
    walk(&place.home().join("state"), &mut found);
    for file in ["own.log", "own.status"] {
        let path = place.path().join(file);
        let mode = fs::metadata(&path).expect("a file").permissions().mode() & 0o7777;
        found.push((path, false, mode));
    }
    found
}

#[test]
fn every_file_is_0600_and_every_directory_0700_whatever_the_umask() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    for umask in ["0000", "0022", "0777"] {
        let place = Place::new();
        let mount = [
            "mount",
            "--write-back",
            "--write-back-delay",
            "300s",
            "--drain-timeout",
            "60s",
            "--log-file",
            "own.log",
            "--status-file",
            "own.status",
            &bucket.name,
            "mnt",
        ];
        under(umask, &place, &backend, &mount);
        fs::write(place.mountpoint().join("waits"), "in the spool").expect("a file");
        // So that an attribute is put on record.
        fs::write(place.mountpoint().join("kept"), "changed").expect("a file");
        fs::File::open(place.mountpoint().join("kept"))
            .and_then(|file| file.sync_all())
            .expect("in the bucket");
        fs::set_permissions(place.mountpoint().join("kept"), fs::Permissions::from_mode(0o640))
            .expect("a mode");
        for pid in place.daemons() {
            kill(pid, Signal::SIGUSR1).expect("it lives");
        }
        eventually("the counters", || place.path().join("own.status").exists().then_some(()));
        let found = all(&place);
        place.supafs(["unmount", "mnt"], &[]).ok();
        let names: Vec<String> = found.iter().map(|(path, ..)| path.display().to_string()).collect();
        for kind in [".attributes", ".data", ".json", "lock", "/mounts/", "own.log", "own.status"] {
            assert!(names.iter().any(|name| name.contains(kind)), "{umask}: no {kind} among {names:#?}");
        }
        for (path, is_dir, mode) in found.into_iter().chain(all(&place)) {
            let wanted = if is_dir { 0o700 } else { 0o600 };
            assert_eq!(format!("{mode:o}"), format!("{wanted:o}"), "umask {umask}: {}", path.display());
        }
    }
}

#[test]
fn what_an_older_version_left_open_to_others_is_closed_by_the_next_mount() {
    let backend = Backend::start();
    let bucket = backend.bucket();
    let place = Place::new();
    let mount = ["mount", "--log-file", "own.log", "--status-file", "own.status", &bucket.name, "mnt"];
    under("0022", &place, &backend, &mount);
    place.supafs(["unmount", "mnt"], &[]).ok();
    fs::write(place.path().join("own.status"), "{}").expect("a status");
    let mut made = Vec::new();
    walk(&place.home().join("state/supafs/identity"), &mut made);
    let files: Vec<_> = made.into_iter().filter(|(_, is_dir, _)| !is_dir).collect();
    assert!(files.iter().any(|(path, ..)| path.extension().is_some_and(|e| e == "attributes")), "{files:?}");
    for (path, ..) in &files {
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("its mode");
    }
    under("0022", &place, &backend, &mount);
    place.supafs(["unmount", "mnt"], &[]).ok();
    for (path, ..) in &files {
        let bits = fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!(format!("{bits:o}"), "600", "{}", path.display());
    }
}
