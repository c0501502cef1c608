//! Which files come after the one that is read: the order is that of the folder's listing.
//!
//! The listing may have aged: what is fetched is named by its version, so that a file that has changed since is not
//! shown by it, only fetched in vain.

use super::Fs;
use super::read::object_id;
use crate::data::ObjectId;
use crate::meta::{Kind, Listing};

/// Entries looked at after one read: a folder of folders is not gone through to its end.
const SCAN: usize = 64;

impl Fs {
    /// A file is read for the first time since it was opened: sends for those that a pass through its folder would
    /// read next.
    pub(super) fn look_ahead(&self, ino: u64, object: &ObjectId) {
        let (folder, name, prefix) = {
            let inodes = self.inodes.lock();
            let Some(inode) = inodes.get(ino).filter(|inode| !inode.is_detached()) else { return };
            let folder = inode.parent();
            let Some(prefix) = inodes.key(folder) else { return };
            (folder, Box::<[u8]>::from(inode.name()), prefix)
        };
        let Some(listing) = self.meta.last_listing(&prefix) else { return };
        let Some(position) = listing.position(&name) else { return };
        let is_first = is_first(&listing, position);
        let Some(leave) = self.lookahead.first_read(folder, position, is_first, object) else { return };
        for position in leave.from..leave.from + SCAN {
            let Some(entry) = listing.get(position) else { return };
            let Kind::File(version) = &entry.kind else { continue };
            if version.size == 0 || self.meta.change(&prefix, &entry.name).is_some() {
                continue;
            }
            let key = format!("{prefix}{}", entry.component());
            if !self.lookahead.send(&leave, position, &object_id(&key, version)) {
                return;
            }
        }
    }

    /// Brings the counters up to date.
    pub fn sweep(&self) {
        self.lookahead.sweep();
    }
}

/// Whether only folders stand before a position, few enough to be looked at.
fn is_first(listing: &Listing, position: usize) -> bool {
    let is_folder = |index| listing.get(index).is_some_and(|entry| entry.kind == Kind::Directory);
    position < SCAN && (0..position).all(is_folder)
}
