//! `supafs unmount`: returns when the mount point is free and the daemon has ended.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use super::args::UnmountArgs;
use super::error::CliError;
use super::presence::Daemons;
use super::{mount, mount_table, mountpoint};
use crate::daemon::{Left, Remaining, Trouble, TroubleKind, Unsent};

/// How long the daemon may take to end after its mount is gone.
const PATIENCE: Duration = Duration::from_mins(2);

/// Runs the command.
///
/// # Errors
/// Nothing of supafs is mounted there, or it is in use: the text says by whom.
pub fn run(args: &UnmountArgs) -> Result<(), CliError> {
    let (target, entry) = mountpoint::find(&args.mountpoint)?;
    let shown = target.display();
    let Some(entry) = entry else {
        return Err(CliError::failed(format!("nothing is mounted on {shown}")));
    };
    if !entry.is_supafs() {
        return Err(CliError::failed(format!(
            "what is mounted on {shown} is no mount of supafs but {} of type {}; use umount",
            entry.source, entry.fstype
        )));
    }
    let daemons = Daemons::of(&target);
    if args.lazy || mountpoint::is_dead(&target) {
        mountpoint::detach(&target)?;
    } else {
        unmount(&target)?;
    }
    wait_until_free(&target)?;
    if args.lazy {
        return Ok(());
    }
    let mut was_waiting = false;
    let progress = |remaining: Remaining| {
        was_waiting |= remaining.left.unsent.total() > 0;
        say(remaining);
    };
    let left = daemons.wait(PATIENCE, progress).map_err(|outlived| {
        CliError::failed(format!(
            "{shown} is unmounted, but the daemon (process {}) does not end; see its log",
            outlived.pid
        ))
    })?;
    say_what_is_left(left);
    if left.total() > 0 {
        return Err(CliError::Told(mount::STAGED));
    }
    if was_waiting {
        eprintln!("supafs: everything is uploaded");
    }
    Ok(())
}

/// Tells how it goes while the daemon sends what is left.
fn say(Remaining { left: Left { unsent, .. }, trouble }: Remaining) {
    if unsent.total() == 0 {
        return;
    }
    let Some(Trouble { kind, patience }) = trouble else {
        return eprintln!("supafs: {} left", of(unsent));
    };
    let what = match kind {
        TroubleKind::Silence => "the server does not answer; waiting for it",
        TroubleKind::Errors => "the server answers with errors; trying again",
    };
    eprintln!(
        "supafs: {what} for up to {}, with {} left; what is not sent then stays in the spool for the next mount",
        humantime::format_duration(patience),
        of(unsent)
    );
}

/// Tells what was acknowledged and is not so in the bucket.
fn say_what_is_left(Left { unsent, refused }: Left) {
    if unsent.total() > 0 {
        eprintln!(
            "supafs: {} not sent in time; the spool keeps what is to be sent, and the next mount of the same \
             bucket and prefix goes on: see `supafs spool list`",
            of(unsent)
        );
    }
    let told = |count: usize, one: &str, many: &str, rest: &str| {
        if count > 0 {
            let what = if count == 1 { one } else { many };
            eprintln!(
                "supafs: refused by the server after they had been acknowledged: {count} {what}; {rest}"
            );
        }
    };
    told(
        refused.contents,
        "file or folder",
        "files or folders",
        "not in the bucket, but kept in the spool: see `supafs spool list`, then `supafs spool retry`, `export` or \
         `discard`",
    );
    told(
        refused.settings,
        "change of a mode, an owner, times or attributes",
        "changes of modes, owners, times or attributes",
        "the bucket holds what was set before; the log says of which file or folder, and why",
    );
    told(refused.deletions, "deletion", "deletions", "still in the bucket; the log says which, and why");
}

/// `3 uploads and 1 deletion`.
fn of(Unsent { uploads, deletions }: Unsent) -> String {
    let count = |count: usize, one: &str| match count {
        0 => None,
        1 => Some(format!("1 {one}")),
        _ => Some(format!("{count} {one}s")),
    };
    let both = [count(uploads, "upload"), count(deletions, "deletion")];
    both.into_iter().flatten().collect::<Vec<_>>().join(" and ")
}

fn unmount(target: &Path) -> Result<(), CliError> {
    let told = |why: &str| CliError::failed(format!("cannot unmount {}: {why}", target.display()));
    if nix::unistd::geteuid().is_root() {
        return match umount2(target, MntFlags::UMOUNT_NOFOLLOW) {
            // EINVAL: unmounted by another in the meantime.
            Ok(()) | Err(Errno::EINVAL) => Ok(()),
            Err(Errno::EBUSY) => Err(busy(target)),
            Err(errno) => Err(told(errno.desc())),
        };
    }
    match mountpoint::fusermount(&["-u"], target) {
        Ok(()) => Ok(()),
        Err(why) if why.contains("busy") => Err(busy(target)),
        Err(why) => Err(told(&why)),
    }
}

fn busy(target: &Path) -> CliError {
    let users = users_of(target);
    let who = if users.is_empty() {
        "a process of another user, or another mount on top of it".to_owned()
    } else {
        users.join(", ")
    };
    CliError::failed(format!(
        "{0} is in use by {who}. Close that and try again, or detach it now: supafs unmount --lazy {0}",
        target.display()
    ))
}

fn wait_until_free(target: &Path) -> Result<(), CliError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let entry = mount_table::at(target)
            .map_err(|error| CliError::failed(format!("cannot read the mount table: {error}")))?;
        match entry {
            Some(entry) if entry.is_supafs() && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Some(entry) if entry.is_supafs() => {
                return Err(CliError::failed(format!("{} is still mounted", target.display())));
            }
            _ => return Ok(()),
        }
    }
}

/// The processes that hold something below `target` open, as `name (pid)`: those that this user may see.
fn users_of(target: &Path) -> Vec<String> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .map(|entry| entry.path())
        .filter(|process| uses(process, target))
        .map(|p| describe(&p))
        .collect()
}

fn uses(process: &Path, target: &Path) -> bool {
    // The links are read, not followed: following would ask the daemon.
    let points_below = |link: PathBuf| fs::read_link(link).is_ok_and(|path| path.starts_with(target));
    let is_process =
        process.file_name().is_some_and(|name| name.to_string_lossy().bytes().all(|b| b.is_ascii_digit()));
    if !is_process {
        return false;
    }
    let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten().map(|entry| entry.path());
    // Maps hold a file as well, after its descriptor is closed.
    let mapped = || {
        fs::read_dir(process.join("map_files"))
            .into_iter()
            .flatten()
            .flatten()
            .any(|entry| points_below(entry.path()))
    };
    files.chain(["cwd", "root", "exe"].map(|name| process.join(name))).any(points_below) || mapped()
}

fn describe(process: &Path) -> String {
    let pid = process.file_name().unwrap_or_default().to_string_lossy();
    let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
    format!("{} ({pid})", name.trim())
}
