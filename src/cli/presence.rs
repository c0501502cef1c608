//! How `unmount` knows that the daemon has ended: a file that the daemon holds locked while it lives.
//!
//! The lock goes with the process however it ends, so a file that can be locked is a leftover. Its first line tells how
//! many files the daemon still has to upload, for whoever waits.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

use crate::daemon::{Left, Remaining};
use crate::{private_file, state_dir};

/// Held by a daemon for as long as it lives.
#[derive(Debug)]
pub struct Presence {
    path: PathBuf,
    lock: Flock<File>,
}

/// Digits of the number of files on the first line.
const WIDTH: usize = 12;
/// Digits of the seconds behind it: how long a server that does not answer is still waited for. Behind them stands the
/// number of files that the server refused.
const SECONDS: usize = 8;

/// A daemon that has not ended.
pub struct Outlived {
    pub pid: String,
}

impl Presence {
    /// Announces this process as the daemon of `mountpoint`.
    ///
    /// # Errors
    /// The file system's own.
    pub fn announce(mountpoint: &Path) -> io::Result<Self> {
        let dir = state_dir::below("mounts")?;
        let path = dir.join(format!("{}{}", prefix(mountpoint), std::process::id()));
        let mut file = private_file::open(&path, OpenOptions::new().write(true).create(true).truncate(true))?;
        write!(file, "{:>WIDTH$}{:>SECONDS$}{:>WIDTH$}\n{}\n", 0, 0, 0, mountpoint.display())?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno)?;
        Ok(Self { path, lock })
    }

    /// Tells how the upload at the end goes.
    pub fn tell(&self, Remaining { files, refused, away }: Remaining) {
        let seconds = away.map_or(0, |away| away.as_secs().max(1));
        // Who waits is told less then, and waits all the same.
        let line = format!("{files:>WIDTH$}{seconds:>SECONDS$}{refused:>WIDTH$}");
        let _untold = self.lock.write_all_at(line.as_bytes(), 0);
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        // A file left behind is recognised by its lock.
        let _ = fs::remove_file(&self.path);
    }
}

/// Waits until no daemon of `mountpoint` is left, and answers what they left in the spool. A daemon that
/// uploads is waited for as long as it does (`--drain-timeout` bounds that), another one for `patience`. `progress` is
/// told how it goes, whenever that changes.
///
/// # Errors
/// The process id of one that does not end.
pub fn wait_for_end(
    mountpoint: &Path,
    patience: Duration,
    mut progress: impl FnMut(Remaining),
) -> Result<Left, Outlived> {
    let prefix = prefix(mountpoint);
    let mut all = Left { late: 0, refused: 0 };
    for path in announced(&prefix) {
        let Ok(file) = File::open(&path) else { continue };
        let mut deadline = Instant::now() + patience;
        let mut told = Remaining { files: 0, refused: 0, away: None };
        while is_held(&file) {
            let left = read_left(&file);
            if left != told {
                progress(left);
                told = left;
            }
            if left.files > 0 {
                deadline = Instant::now() + patience;
            } else if Instant::now() > deadline {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                return Err(Outlived { pid: name[prefix.len()..].to_owned() });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // What it told last stands.
        let Remaining { files, refused, .. } = read_left(&file);
        all.late += files;
        all.refused += refused;
        let _ = fs::remove_file(&path);
    }
    Ok(all)
}

/// The files of daemons of a mount point: in this user's state directory, and, for root, whose home is not the
/// daemon's, where a running daemon holds it open.
fn announced(prefix: &str) -> BTreeSet<PathBuf> {
    let is_ours =
        |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
    let dir = state_dir::base().map(|base| base.join("mounts"));
    let here = dir.ok().and_then(|dir| fs::read_dir(dir).ok()).into_iter().flatten().flatten();
    let mut found: BTreeSet<PathBuf> = here.map(|entry| entry.path()).filter(|path| is_ours(path)).collect();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let is_daemon = fs::read(process.path().join("comm")).is_ok_and(|name| name == b"supafs\n");
        // Another user's are closed to all but root.
        let Some(held) = is_daemon.then(|| fs::read_dir(process.path().join("fd")).ok()).flatten() else {
            continue;
        };
        found.extend(
            held.flatten().filter_map(|held| fs::read_link(held.path()).ok()).filter(|path| is_ours(path)),
        );
    }
    found
}

fn read_left(file: &File) -> Remaining {
    let mut line = [0; WIDTH + SECONDS + WIDTH];
    let read = file.read_at(&mut line, 0).unwrap_or(0);
    let number = |digits: &[u8]| {
        // A daemon of an earlier version has nothing behind the first number.
        let text = std::str::from_utf8(digits).ok()?.lines().next()?;
        text.trim().parse::<u64>().ok()
    };
    let (files, rest) = line[..read].split_at(WIDTH.min(read));
    let (seconds, refused) = rest.split_at(SECONDS.min(rest.len()));
    let count = |digits| number(digits).and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
    Remaining {
        files: count(files),
        refused: count(refused),
        away: number(seconds).filter(|seconds| *seconds > 0).map(Duration::from_secs),
    }
}

fn is_held(file: &File) -> bool {
    // A lock of ours goes with the copy of the descriptor.
    let Ok(copy) = file.try_clone() else { return false };
    match Flock::lock(copy, FlockArg::LockSharedNonblock) {
        Ok(lock) => {
            drop(lock);
            false
        }
        Err(_) => true,
    }
}

fn prefix(mountpoint: &Path) -> String {
    format!("{}-", state_dir::short_hash(&mountpoint.to_string_lossy()))
}
