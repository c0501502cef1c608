//! What stat shows.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Fs;
use super::inode::{Inode, InodeTable, Node, ROOT};

/// The attributes of an inode.
#[derive(Debug, Clone)]
pub struct Attributes {
    pub ino: u64,
    pub is_directory: bool,
    pub size: u64,
    pub mtime: SystemTime,
    /// When the server last changed the object, which tools that compare before and after rely on.
    pub ctime: SystemTime,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
}

impl Fs {
    pub(super) fn attributes(&self, ino: u64, inode: &Inode) -> Attributes {
        let presentation = &self.presentation;
        let (is_directory, size, mtime, ctime, mode) = match &inode.node {
            // Prefixes have no time of their own: a fixed one, so that tools see no change where there is none.
            Node::Directory => (true, 0, self.started, self.started, presentation.dir_mode),
            Node::File(file) => {
                let ctime = from_nanos(i128::from(file.version.modified_ms) * 1_000_000);
                let mtime = file.mtime.map_or(ctime, |nanos| from_nanos(i128::from(nanos)));
                (false, file.version.size, mtime, ctime, presentation.file_mode)
            }
        };
        let (uid, gid) = (presentation.uid, presentation.gid);
        Attributes { ino, is_directory, size, mtime, ctime, mode, uid, gid }
    }

    /// Takes over a modification time that became known since, unless the file is open: it must not change its
    /// time under a reader.
    pub(super) fn refresh_mtime(&self, inodes: &mut InodeTable, ino: u64) {
        if ino == ROOT || !self.known.has_mtimes() {
            return;
        }
        let Some(key) = inodes.key(ino) else { return };
        let Some(inode) = inodes.get_mut(ino).filter(|inode| inode.opens() == 0) else { return };
        if let Some(file) = inode.file_mut()
            && file.mtime.is_none()
        {
            file.mtime = self.known.mtime(&key, &file.version);
        }
    }
}

fn from_nanos(nanos: i128) -> SystemTime {
    let magnitude = u64::try_from(nanos.unsigned_abs()).unwrap_or(u64::MAX);
    let span = Duration::from_nanos(magnitude);
    if nanos < 0 { UNIX_EPOCH - span } else { UNIX_EPOCH + span }
}

/// Milliseconds since the epoch.
pub(super) fn millis(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
    }
}
