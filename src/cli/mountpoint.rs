//! The directory that is mounted on: finding it, checking it, clearing what a dead daemon left there.
//!
//! Invariant: a path that the mount table lists is not looked at through the file system first, because a
//! daemon that hangs would hang this process too.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use super::error::CliError;
use super::mount_table::{self, Entry};

/// Checks that supafs can mount on `path`, and returns it absolute and without symbolic links.
///
/// # Errors
/// What is in the way, with the next step.
pub fn prepare(path: &Path, nonempty: bool) -> Result<PathBuf, CliError> {
    let (target, entry) = find(path)?;
    if let Some(entry) = entry.filter(Entry::is_supafs) {
        if !is_dead(&target) {
            return Err(CliError::failed(format!(
                "{} is already mounted on {}; unmount it first: supafs unmount {}",
                entry.source,
                target.display(),
                target.display()
            )));
        }
        tracing::info!(mountpoint = %target.display(), "clearing a dead mount point");
        detach(&target)?;
    }
    let meta = fs::metadata(&target).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => CliError::failed(format!(
            "the mount point {0} does not exist; create it: mkdir -p {0}",
            target.display()
        )),
        _ if is_disconnected(&error) => CliError::failed(format!(
            "{0} is a dead mount of another file system; clear it: fusermount3 -uz {0}",
            target.display()
        )),
        _ => CliError::failed(format!("the mount point {}: {error}", target.display())),
    })?;
    if !meta.is_dir() {
        return Err(CliError::failed(format!("the mount point {} is not a directory", target.display())));
    }
    let mut entries = fs::read_dir(&target)
        .map_err(|error| CliError::failed(format!("the mount point {}: {error}", target.display())))?;
    if entries.next().is_some() && !nonempty {
        return Err(CliError::failed(format!(
            "the mount point {} is not empty: what is in it would be hidden. Choose an empty directory, or give \
             -o nonempty",
            target.display()
        )));
    }
    Ok(target)
}

/// The path absolute and without symbolic links, and what is mounted on it.
///
/// # Errors
/// Where its parent does not exist.
pub fn find(path: &Path) -> Result<(PathBuf, Option<Entry>), CliError> {
    let told = |error: io::Error| CliError::failed(format!("{}: {error}", path.display()));
    let absolute = std::path::absolute(path).map_err(told)?;
    // Only the parent is resolved at first: see the invariant.
    if let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name())
        && let Ok(parent) = parent.canonicalize()
    {
        let target = parent.join(name);
        let entry = mount_table::at(&target).map_err(told)?;
        if entry.is_some() {
            return Ok((target, entry));
        }
    }
    match absolute.canonicalize() {
        Ok(target) => {
            let entry = mount_table::at(&target).map_err(told)?;
            Ok((target, entry))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((absolute, None)),
        Err(error) => Err(told(error)),
    }
}

/// Whether the daemon behind a mount point is gone.
#[must_use]
pub fn is_dead(target: &Path) -> bool {
    fs::metadata(target).is_err_and(|error| is_disconnected(&error))
}

fn is_disconnected(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(code, Some(Errno::ENOTCONN | Errno::ECONNABORTED))
}

/// Detaches a mount point at once, whoever uses it.
///
/// # Errors
/// The system's own or fusermount's.
pub fn detach(target: &Path) -> Result<(), CliError> {
    let told = |why: String| CliError::failed(format!("cannot clear {}: {why}", target.display()));
    if nix::unistd::geteuid().is_root() {
        umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
            .map_err(|errno| told(errno.desc().to_owned()))
    } else {
        fusermount(&["-u", "-z"], target).map_err(told)
    }
}

/// Runs fusermount3, which unmounts on behalf of users that are not root.
///
/// # Errors
/// What it printed, or why it could not be started.
pub fn fusermount(options: &[&str], target: &Path) -> Result<(), String> {
    let output = Command::new("fusermount3")
        .args(options)
        .arg("--")
        .arg(target)
        .env("LC_ALL", "C")
        .output()
        .map_err(|error| format!("fusermount3: {error}; install the package fuse3"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}
