//! What Linux tells of other processes: which threads belong together, and what they hold open.
//!
//! Everything here reads `/proc` and answers "unknown" where that is not to be had: in another process namespace, for
//! another user's processes, or for one that is gone.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Descriptors that are looked at: a process with more of them is not worth the time.
const MOST_DESCRIPTORS: usize = 256;

/// The process that a thread belongs to.
#[must_use]
pub fn of_thread(thread: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

/// Whether a process has a descriptor of the file with this inode number and name. Asks the kernel only, never the
/// file's own file system: it may be the one that asks.
#[must_use]
pub fn holds(process: u32, ino: u64, name: &[u8]) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{process}/fd")) else { return false };
    descriptors.flatten().take(MOST_DESCRIPTORS).any(|descriptor| {
        let is_named = |target: &Path| target.file_name().is_some_and(|file| file.as_bytes() == name);
        fs::read_link(descriptor.path()).is_ok_and(|target| is_named(&target))
            && ino_of(process, &descriptor.file_name().to_string_lossy()) == Some(ino)
    })
}

fn ino_of(process: u32, descriptor: &str) -> Option<u64> {
    let info = fs::read_to_string(format!("/proc/{process}/fdinfo/{descriptor}")).ok()?;
    info.lines().find_map(|line| line.strip_prefix("ino:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;

    use super::{holds, of_thread};

    #[test]
    fn threads_belong_to_their_process() {
        let me = std::process::id();
        let thread =
            std::thread::spawn(|| nix::unistd::gettid().as_raw().unsigned_abs()).join().expect("a thread");
        assert_ne!(thread, me);
        assert_eq!(of_thread(nix::unistd::gettid().as_raw().unsigned_abs()), Some(me));
        assert_eq!(of_thread(0), None);
    }

    #[test]
    fn an_open_file_is_held_until_it_is_closed() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = File::create(folder.path().join("held")).expect("a file");
        let (me, ino) = (std::process::id(), file.metadata().expect("attributes").ino());
        assert!(holds(me, ino, b"held"));
        assert!(!holds(me, ino + 1, b"held") && !holds(me, ino, b"other"));
        drop(file);
        assert!(!holds(me, ino, b"held"));
    }
}
