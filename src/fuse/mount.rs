//! The session: mounting, waiting for its end, unmounting.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use fuser::{Config, MountOption, Session, SessionACL};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;

use super::adapter::Adapter;
use super::device;
use super::notify;
use super::reply::Dispatcher;
use crate::config::Presentation;
use crate::fs::{Fs, Invalidation};

/// Threads that read requests from the kernel. They only decode and answer from memory; what waits is a task.
const LOOPS: usize = 2;

/// A mount that is being served.
pub struct Mounted {
    pub unmount: Unmount,
    /// Tells of the end of the mount, whoever brought it about.
    pub end: oneshot::Receiver<()>,
}

/// How the kernel is asked to mount.
pub struct MountRequest<'a> {
    pub mountpoint: &'a Path,
    /// Shown as the source in /proc/mounts.
    pub source: &'a str,
    pub presentation: &'a Presentation,
    pub kernel_options: &'a [String],
    pub max_requests: usize,
}

/// Mounts and begins to serve.
///
/// # Errors
/// When the kernel or fusermount3 refuses.
pub fn mount(
    fs: Arc<Fs>,
    invalidations: UnboundedReceiver<Invalidation>,
    request: &MountRequest<'_>,
    runtime: Handle,
) -> io::Result<Mounted> {
    // A comma would end the option and begin another.
    let source = request.source.replace([',', '\\'], "_");
    let mut options = vec![
        MountOption::FSName(source.clone()),
        MountOption::Subtype("supafs".to_owned()),
        MountOption::DefaultPermissions,
        MountOption::NoSuid,
        MountOption::NoDev,
    ];
    if request.presentation.read_only {
        options.push(MountOption::RO);
    }
    options.extend(request.kernel_options.iter().filter_map(|name| kernel_option(name)));
    let mut config = Config::default();
    let allow_other = request.presentation.allow_other;
    let unmount = Unmount { mountpoint: request.mountpoint.to_owned() };
    let device = device::mount_directly(request.mountpoint, &source, &options, allow_other)?;
    let was_mounted = device.is_some();
    config.mount_options = options;
    config.acl = if allow_other { SessionACL::All } else { SessionACL::Owner };
    config.n_threads = Some(LOOPS);
    config.clone_fd = true;
    // Requests that read ahead count against this; the store bounds what is sent.
    let max_background = u16::try_from(request.max_requests.clamp(16, 1024)).unwrap_or(64);
    let (ended, end) = oneshot::channel();
    let adapter = Adapter::new(fs, Dispatcher::new(runtime), max_background, ended);
    let session = match device {
        Some(device) => Session::from_fd(adapter, device, config.acl, config),
        None => Session::new(adapter, request.mountpoint, &config),
    };
    let session = session.and_then(Session::spawn);
    if let (Err(_), true) = (&session, was_mounted)
        && let Err(error) = unmount.run()
    {
        tracing::warn!(%error, "a dead mount point stays behind; `supafs unmount` clears it");
    }
    let session = session?;
    notify::spawn(session.notifier(), invalidations);
    // Dropping the session unmounts whatever is at the mount point by then, which may be another mount. The
    // adapter tells of the end instead.
    std::mem::forget(session);
    Ok(Mounted { unmount, end })
}

fn kernel_option(name: &str) -> Option<MountOption> {
    match name {
        "noatime" => Some(MountOption::NoAtime),
        "atime" => Some(MountOption::Atime),
        "noexec" => Some(MountOption::NoExec),
        "exec" => Some(MountOption::Exec),
        "sync" => Some(MountOption::Sync),
        "async" => Some(MountOption::Async),
        "dirsync" => Some(MountOption::DirSync),
        other => {
            tracing::debug!(option = other, "a mount option that means nothing here");
            None
        }
    }
}

/// Takes the mount off its mount point.
#[derive(Debug, Clone)]
pub struct Unmount {
    mountpoint: PathBuf,
}

impl Unmount {
    /// Unmounts; where something still uses the mount, it is detached and ends with its last user.
    ///
    /// # Errors
    /// When neither is possible.
    pub fn run(&self) -> io::Result<()> {
        let error = match umount2(&self.mountpoint, MntFlags::empty()) {
            // EINVAL: it is no mount point any more.
            Ok(()) | Err(Errno::EINVAL) => return Ok(()),
            Err(error) => error,
        };
        if error == Errno::EPERM {
            return self.fusermount(&["-u"]).or_else(|_| self.fusermount(&["-u", "-z"]));
        }
        umount2(&self.mountpoint, MntFlags::MNT_DETACH).map_err(io::Error::from)
    }

    fn fusermount(&self, flags: &[&str]) -> io::Result<()> {
        let status = Command::new("fusermount3")
            .args(flags)
            .arg("--")
            .arg(&self.mountpoint)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        if status.success() { Ok(()) } else { Err(io::Error::other("fusermount3 refused")) }
    }
}
