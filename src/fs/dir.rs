//! Reading directories.

use std::sync::Arc;
use std::time::Duration;

use super::handle::Stream;
use super::inode::InodeTable;
use super::{Attributes, ErrorKind, Fs, FsError};
use crate::meta::{Entry, Kind};
use crate::store::StoreError;

/// One entry on its way to the kernel.
#[derive(Debug)]
pub struct DirItem {
    pub name: Box<[u8]>,
    pub attributes: Attributes,
    /// Where the stream goes on behind this entry.
    pub next_offset: u64,
    /// How long name and attributes may be believed.
    pub valid: Duration,
    /// The inode is held for the kernel: to be given back by [`Fs::forget`] if the kernel does not get it.
    pub is_held: bool,
}

/// A place in a directory stream.
pub struct DirCursor<'a> {
    fs: &'a Fs,
    parent: u64,
    offset: u64,
    stream: Stream,
    valid: Duration,
}

impl Fs {
    /// # Errors
    /// `NotDirectory` or `Stale`.
    pub fn opendir(&self, ino: u64) -> Result<u64, FsError> {
        self.prefix(ino)?;
        self.inodes.lock().opened(ino);
        Ok(self.handles.open_directory(ino))
    }

    pub fn releasedir(&self, ino: u64, handle: u64) {
        self.handles.close(handle);
        self.inodes.lock().closed(ino);
    }

    /// The entries from `offset` on that have arrived, waiting for the first of them.
    ///
    /// # Errors
    /// `BadHandle`, or why the listing could not be read so far; never `NotFound`, which the C library takes for
    /// the end of the directory.
    pub async fn read_dir(&self, handle: u64, offset: u64) -> Result<DirCursor<'_>, FsError> {
        let directory = self.handles.directory(handle).ok_or(ErrorKind::BadHandle)?;
        let kept = directory.listing.lock().clone().filter(|_| offset > 0);
        let stream = if let Some(kept) = kept {
            kept
        } else {
            // The start, or the start again: rewinddir shows the directory as it is now.
            let prefix = self.prefix(directory.ino)?;
            let changes = Arc::new(self.meta.changes_to_show(&prefix));
            let stream = Stream { listing: self.meta.browse(&prefix), changes, prefix: prefix.into() };
            *directory.listing.lock() = Some(stream.clone());
            stream
        };
        let listing = &stream.listing;
        let mut offset = offset;
        while listing
            .reaches(index(offset))
            .await
            .map_err(|error| self.noted(&stream.prefix, as_listing_error(error)))?
        {
            // An empty answer would end the stream, so what was removed here is passed over before it.
            let entry = listing.get(index(offset)).filter(|_| offset >= 2);
            let is_removed =
                |entry: Entry| self.meta.change_beside(&stream.prefix, &entry.name, listing) == Some(None);
            if !entry.is_some_and(is_removed) {
                break;
            }
            offset += 1;
        }
        let valid = listing.valid_for(self.ttl);
        Ok(DirCursor { fs: self, parent: directory.ino, offset, stream, valid })
    }
}

fn as_listing_error(error: StoreError) -> FsError {
    let mut error = FsError::from(error);
    if error.kind == ErrorKind::NotFound {
        error.kind = ErrorKind::Io;
    }
    error
}

/// Offsets 0 and 1 are `.` and `..`.
fn index(offset: u64) -> usize {
    usize::try_from(offset.saturating_sub(2)).unwrap_or(usize::MAX - 1)
}

impl DirCursor<'_> {
    /// `.` and `..`, of which the kernel takes no reference.
    fn dot(&self, name: &[u8], ino: u64) -> Option<DirItem> {
        let attributes = self.fs.attributes_of(ino).ok()?;
        let next_offset = self.offset + 1;
        Some(DirItem { name: name.into(), attributes, next_offset, valid: self.valid, is_held: false })
    }

    /// The entry at the offset, as it is after what was changed here. Names that are new come behind the listing.
    fn entry(&mut self) -> Option<DirItem> {
        loop {
            let index = index(self.offset);
            let Stream { prefix, listing, changes } = &self.stream;
            let (entry, is_listed) = match listing.get(index) {
                Some(entry) => (Some(entry), true),
                None if !listing.is_complete() => return None,
                None => {
                    let (name, entry) = changes.get(index - listing.len())?;
                    (entry.clone().filter(|_| listing.find(name).is_none()), false)
                }
            };
            let Some(entry) = entry else {
                self.offset += 1;
                continue;
            };
            let mut inodes = self.fs.inodes.lock();
            // What was a change when the stream began may be in the bucket by now, and another version.
            let (entry, valid) = match self.fs.meta.change_beside(prefix, &entry.name, listing) {
                Some(changed) => (changed, self.valid),
                None if is_listed => (Some(entry), self.valid),
                // A node that was removed since is nowhere.
                None if matches!(entry.kind, Kind::Node(_)) => (None, Duration::ZERO),
                None => (Some(entry), Duration::ZERO),
            };
            if let Some(entry) = entry {
                return self.item(&mut inodes, entry, valid);
            }
            self.offset += 1;
        }
    }

    fn item(&self, inodes: &mut InodeTable, entry: Entry, valid: Duration) -> Option<DirItem> {
        let ino = match inodes.named(self.parent, &entry.name) {
            // What an aged listing says does not undo what was learned since.
            Some(ino) if valid.is_zero() => ino,
            _ => inodes.upsert(self.parent, &entry),
        };
        inodes.remember(ino);
        self.fs.refresh_attrs(inodes, ino);
        let attributes = self.fs.attributes(ino, inodes.get(ino)?);
        let next_offset = self.offset + 1;
        Some(DirItem { name: entry.name, attributes, next_offset, valid, is_held: true })
    }
}

impl Iterator for DirCursor<'_> {
    type Item = DirItem;

    fn next(&mut self) -> Option<DirItem> {
        let item = match self.offset {
            0 => self.dot(b".", self.parent),
            1 => {
                let above = self.fs.inodes.lock().get(self.parent)?.parent();
                self.dot(b"..", above)
            }
            _ => self.entry(),
        }?;
        self.offset += 1;
        Some(item)
    }
}
