//! Mounting by ourselves, where we are privileged to: the mount then has the type `fuse.supafs`, which fuser's own
//! direct way cannot give it. Everyone else goes through fusermount3.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use fuser::MountOption;
use nix::errno::Errno;
use nix::mount::MsFlags;
use nix::unistd::{getgid, getuid};

/// Mounts a new connection. `None`: the kernel wants a privilege that we lack.
pub(super) fn mount_directly(
    mountpoint: &Path,
    source: &str,
    options: &[MountOption],
    allow_other: bool,
) -> io::Result<Option<OwnedFd>> {
    let device = File::options().read(true).write(true).open("/dev/fuse")?;
    let mode = fs::metadata(mountpoint)?.mode();
    let mut data = format!(
        "fd={},rootmode={mode:o},user_id={},group_id={},default_permissions",
        device.as_raw_fd(),
        getuid(),
        getgid()
    );
    if allow_other {
        data.push_str(",allow_other");
    }
    let flags = options.iter().filter_map(flag).fold(MsFlags::empty(), |all, one| all | one);
    match nix::mount::mount(Some(source), mountpoint, Some("fuse.supafs"), flags, Some(data.as_str())) {
        Ok(()) => Ok(Some(device.into())),
        Err(Errno::EPERM) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn flag(option: &MountOption) -> Option<MsFlags> {
    match option {
        MountOption::NoDev => Some(MsFlags::MS_NODEV),
        MountOption::NoSuid => Some(MsFlags::MS_NOSUID),
        MountOption::RO => Some(MsFlags::MS_RDONLY),
        MountOption::NoExec => Some(MsFlags::MS_NOEXEC),
        MountOption::NoAtime => Some(MsFlags::MS_NOATIME),
        MountOption::Sync => Some(MsFlags::MS_SYNCHRONOUS),
        MountOption::DirSync => Some(MsFlags::MS_DIRSYNC),
        _ => None,
    }
}
