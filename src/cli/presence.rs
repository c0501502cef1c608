//! How `unmount` knows that the daemon has ended: a file that the daemon holds locked while it lives.
//!
//! The lock goes with the process however it ends, so a file that can be locked is a leftover.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

use crate::state_dir;

/// Held by a daemon for as long as it lives.
#[derive(Debug)]
pub struct Presence {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Presence {
    /// Announces this process as the daemon of `mountpoint`.
    ///
    /// # Errors
    /// The file system's own.
    pub fn announce(mountpoint: &Path) -> io::Result<Self> {
        let dir = state_dir::below("mounts")?;
        let path = dir.join(format!("{}{}", prefix(mountpoint), std::process::id()));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        writeln!(file, "{}", mountpoint.display())?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno)?;
        Ok(Self { path, _lock: lock })
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        // A file left behind is recognised by its lock.
        let _ = fs::remove_file(&self.path);
    }
}

/// Waits until no daemon of `mountpoint` is left; the process id of one that outlives `patience`.
///
/// # Errors
/// That process id.
pub fn wait_for_end(mountpoint: &Path, patience: Duration) -> Result<(), String> {
    let deadline = Instant::now() + patience;
    let prefix = prefix(mountpoint);
    let Ok(dir) = state_dir::base().map(|base| base.join("mounts")) else { return Ok(()) };
    let names = fs::read_dir(dir).into_iter().flatten().flatten();
    let ours = names.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
    for path in ours.map(|entry| entry.path()) {
        while is_held(&path) {
            if Instant::now() > deadline {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                return Err(name[prefix.len()..].to_owned());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = fs::remove_file(&path);
    }
    Ok(())
}

fn is_held(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    Flock::lock(file, FlockArg::LockSharedNonblock).is_err()
}

fn prefix(mountpoint: &Path) -> String {
    format!("{}-", state_dir::short_hash(&mountpoint.to_string_lossy()))
}
