//! A mount whose user is no longer the one it was made for: it answers `EACCES`, and nothing that the first user read
//! is kept where another could see it. What they wrote waits in the spool until they are back.

use std::sync::atomic::Ordering;

use super::inode::ROOT;
use super::{ErrorKind, Fs, FsError, Invalidation};

impl Fs {
    /// Refuses all that would show or change something, and forgets what was read; or, with `false`, serves again.
    pub fn suspend(&self, suspended: bool) {
        if self.suspended.swap(suspended, Ordering::SeqCst) || !suspended {
            return;
        }
        self.meta.purge();
        self.fetcher.purge();
        let known: Vec<(u64, u64, Box<[u8]>)> = {
            let inodes = self.inodes.lock();
            inodes.iter().map(|(ino, inode)| (ino, inode.parent(), inode.name().into())).collect()
        };
        for (ino, parent, name) in known.into_iter().filter(|(ino, ..)| *ino != ROOT) {
            self.invalidate(Invalidation::Contents { ino });
            self.invalidate(Invalidation::Name { parent, name });
        }
    }

    /// Whether there is somebody to serve.
    pub(super) fn admit(&self) -> Result<(), FsError> {
        if self.suspended.load(Ordering::SeqCst) { Err(ErrorKind::Access.into()) } else { Ok(()) }
    }
}
