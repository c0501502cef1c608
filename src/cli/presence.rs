//! How `unmount` knows that the daemon has ended: a file that the daemon holds locked while it lives.
//!
//! The lock goes with the process however it ends, so a file that can be locked is a leftover. Its first line tells what
//! the daemon still has to send, for whoever waits.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::daemon::{Left, RefusedCount, Remaining, Trouble, TroubleKind, Unsent};
use crate::{private_file, state_dir};

/// Held by a daemon for as long as it lives.
#[derive(Debug)]
pub struct Presence {
    path: PathBuf,
    lock: Flock<File>,
}

/// The first line has room for the longest report, so that a reader never finds half of one behind another.
const WIDTH: usize = 256;

/// The first line, as JSON.
#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct Report {
    uploads: usize,
    deletions: usize,
    refused_contents: usize,
    refused_settings: usize,
    refused_deletions: usize,
    trouble: Option<TroubleKind>,
    patience_seconds: u64,
    /// The mount is gone; what is left is being sent.
    is_ending: bool,
}

/// How long a mount waits for the daemon of an earlier one at the same place: for one that is sending what is left, and
/// for one that may not have seen yet that its mount is gone.
const ENDING: Duration = Duration::from_secs(10);
const BEGINNING_TO_END: Duration = Duration::from_secs(3);

/// How long a daemon that has told all may take to exit. Until then it holds the database of attributes.
const EXITING: Duration = Duration::from_secs(2);

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
        writeln!(file, "{}{}", line(&Report::default()), mountpoint.display())?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno)?;
        Ok(Self { path, lock })
    }

    /// Tells how the upload at the end goes.
    pub fn tell(&self, remaining: Remaining) {
        // Who waits is told less then, and waits all the same.
        let _untold = self.lock.write_all_at(line(&Report::of(remaining)).as_bytes(), 0);
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        // A file left behind is recognised by its lock.
        let _ = fs::remove_file(&self.path);
    }
}

/// The daemons of a mount point. They are looked for before it is unmounted: one that has nothing to send ends, and takes
/// its file away, in a moment.
pub struct Daemons {
    prefix: String,
    found: Vec<(PathBuf, File)>,
}

impl Daemons {
    #[must_use]
    pub fn of(mountpoint: &Path) -> Self {
        let prefix = prefix(mountpoint);
        let found = announced(&prefix).into_iter().filter_map(|path| {
            let file = File::open(&path).ok()?;
            if is_held(&file) {
                return Some((path, file));
            }
            // Of a daemon that was killed: what it told last has been taken over by another one since.
            let _ = fs::remove_file(&path);
            None
        });
        let found = found.collect();
        Self { prefix, found }
    }

    /// Before a mount point is mounted again, where nothing is mounted: waits for a daemon that is about to end, which may
    /// still store what was set last, but not for long.
    pub fn wait_before_mount(self) {
        for (path, file) in &self.found {
            let begun = Instant::now();
            while is_held(file) {
                let patience = if report(file).is_ending { ENDING } else { BEGINNING_TO_END };
                if begun.elapsed() > patience {
                    tracing::info!(state = %path.display(), "the daemon of an earlier mount here has not ended yet");
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            wait_for_exit(self.pid(path));
        }
    }

    /// Waits until they have ended, and answers what they left. One that still sends is waited for as long as it does
    /// (`--drain-timeout` bounds that), another one for `patience`. `progress` is told how it goes, whenever that changes.
    ///
    /// # Errors
    /// The process id of one that does not end.
    pub fn wait(self, patience: Duration, mut progress: impl FnMut(Remaining)) -> Result<Left, Outlived> {
        let mut all = Left::default();
        for (path, file) in &self.found {
            let mut deadline = Instant::now() + patience;
            let mut told = Remaining::default();
            while is_held(file) {
                let remaining = read(file);
                if remaining != told {
                    progress(remaining);
                    told = remaining;
                }
                if remaining.left.unsent.total() > 0 {
                    deadline = Instant::now() + patience;
                } else if Instant::now() > deadline {
                    return Err(Outlived { pid: self.pid(path).to_owned() });
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            wait_for_exit(self.pid(path));
            // What it told last stands.
            let Left { unsent, refused } = read(file).left;
            all.unsent.uploads += unsent.uploads;
            all.unsent.deletions += unsent.deletions;
            all.refused.contents += refused.contents;
            all.refused.settings += refused.settings;
            all.refused.deletions += refused.deletions;
            let _ = fs::remove_file(path);
        }
        Ok(all)
    }

    fn pid<'a>(&self, path: &'a Path) -> &'a str {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.get(self.prefix.len()..).unwrap_or_default()
    }
}

fn wait_for_exit(pid: &str) {
    let begun = Instant::now();
    while !pid.is_empty() && Path::new("/proc").join(pid).exists() && begun.elapsed() < EXITING {
        std::thread::sleep(Duration::from_millis(10));
    }
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

impl Report {
    fn of(Remaining { left: Left { unsent, refused }, trouble }: Remaining) -> Self {
        Self {
            uploads: unsent.uploads,
            deletions: unsent.deletions,
            refused_contents: refused.contents,
            refused_settings: refused.settings,
            refused_deletions: refused.deletions,
            trouble: trouble.map(|trouble| trouble.kind),
            patience_seconds: trouble.map_or(0, |trouble| trouble.patience.as_secs().max(1)),
            is_ending: true,
        }
    }
}

fn line(report: &Report) -> String {
    let json = serde_json::to_string(report).unwrap_or_default();
    format!("{json:<WIDTH$}\n")
}

fn report(file: &File) -> Report {
    let mut line = [0; WIDTH];
    let len = file.read_at(&mut line, 0).unwrap_or(0);
    let text = String::from_utf8_lossy(&line[..len]);
    let first = text.lines().next().unwrap_or_default();
    serde_json::from_str(first.trim()).unwrap_or_else(|_| Report {
        // A daemon of an earlier version begins with the number of files in 12 digits.
        uploads: first.get(..12).and_then(|digits| digits.trim().parse().ok()).unwrap_or(0),
        ..Report::default()
    })
}

fn read(file: &File) -> Remaining {
    let report = report(file);
    let refused = RefusedCount {
        contents: report.refused_contents,
        settings: report.refused_settings,
        deletions: report.refused_deletions,
    };
    let patience = Duration::from_secs(report.patience_seconds);
    Remaining {
        left: Left { unsent: Unsent { uploads: report.uploads, deletions: report.deletions }, refused },
        trouble: report.trouble.map(|kind| Trouble { kind, patience }),
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
