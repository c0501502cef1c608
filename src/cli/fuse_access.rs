//! Whether this user can mount with FUSE, and what is missing.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::PathBuf;

/// Why FUSE cannot be used, with the fix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    pub problem: String,
    pub fix: String,
}

fn obstacle(problem: impl Into<String>, fix: impl Into<String>) -> Obstacle {
    Obstacle { problem: problem.into(), fix: fix.into() }
}

/// Checks the device and, for users that are not root, the helper that mounts for them.
///
/// # Errors
/// The first thing that is missing.
pub fn check() -> Result<String, Obstacle> {
    match OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(obstacle(
                "this user may not open /dev/fuse",
                "allow it: sudo chmod 666 /dev/fuse; in a container, run it with --device /dev/fuse and \
                 --cap-add SYS_ADMIN",
            ));
        }
        Err(error) => {
            return Err(obstacle(
                format!("/dev/fuse: {error}"),
                "load the module: sudo modprobe fuse; in a container, run it with --device /dev/fuse and \
                 --cap-add SYS_ADMIN",
            ));
        }
    }
    if nix::unistd::geteuid().is_root() {
        return Ok("/dev/fuse, as root".to_owned());
    }
    let Some(helper) = find_program("fusermount3") else {
        return Err(obstacle("fusermount3 is not installed", "sudo apt install fuse3"));
    };
    Ok(format!("/dev/fuse, {}", helper.display()))
}

/// Whether users that are not root may let others into their mounts.
#[must_use]
pub fn others_may_be_let_in() -> bool {
    let conf = fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    nix::unistd::geteuid().is_root() || conf.lines().any(|line| line.trim() == "user_allow_other")
}

fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|program| program.is_file())
}
