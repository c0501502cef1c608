//! Open, read, close.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::handle::FileHandle;
use super::{ErrorKind, Fs, FsError, Invalidation};
use crate::attrs::Modified;
use crate::data::{ObjectId, ReadError, Reader};
use crate::meta::FileVersion;
use crate::store::{ObjectHead, StoreErrorKind};

/// New versions that one read puts up with before it gives up on an object that never rests.
const ADOPTIONS: u32 = 8;

/// An opened file.
#[derive(Debug, Clone, Copy)]
pub struct Opened {
    pub handle: u64,
    /// The kernel's pages are of this version and may stay.
    pub keep_cache: bool,
    pub is_writable: bool,
}

/// A use of a file by no handle.
pub(super) struct Held<'a> {
    fs: &'a Fs,
    ino: u64,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.fs.inodes.lock().closed(self.ino);
        self.fs.end_draft(self.ino);
    }
}

impl Fs {
    /// Opens a file in the version its inode shows.
    ///
    /// # Errors
    /// `IsDirectory`, `ReadOnly`, or `Stale`, after which the kernel looks the name up again by itself.
    pub async fn open(&self, ino: u64, for_writing: bool) -> Result<Opened, FsError> {
        self.admit()?;
        if for_writing {
            self.writer()?;
        }
        let (is_stale, parent, name) = {
            let inodes = self.inodes.lock();
            let inode = inodes.get(ino).ok_or(ErrorKind::Stale)?;
            if inode.is_directory() {
                return Err(ErrorKind::IsDirectory.into());
            }
            // A descriptor opens what has lost its name by way of /proc/self/fd; nothing else gets here.
            if inode.is_detached() && inode.draft().is_none() {
                return Err(ErrorKind::Stale.into());
            }
            let is_stale = inode.stale && inode.draft().is_none();
            (is_stale, inode.parent(), Box::<[u8]>::from(inode.name()))
        };
        if is_stale && self.revalidate(ino, parent, &name).await.is_err() {
            return Err(ErrorKind::Stale.into());
        }
        let mut inodes = self.inodes.lock();
        let key = inodes.key(ino).ok_or(ErrorKind::Stale)?;
        let draft = inodes.get(ino).and_then(|inode| inode.draft().cloned());
        let file = inodes.get_mut(ino).and_then(|inode| inode.file_mut()).ok_or(ErrorKind::Stale)?;
        // A read of this version proves that the kernel has dropped the pages of the one before.
        let has_lost_bytes = std::mem::take(&mut file.has_lost_bytes);
        let keep_cache = file.handed_out && !has_lost_bytes;
        let object = object_id(&key, &file.version);
        inodes.opened(ino);
        drop(inodes);
        let reader = match draft {
            Some(draft) => self.reader_of(&draft),
            None => Reader::new(object, self.fetcher.clone()),
        };
        let handle = self.handles.open_file(ino, reader, for_writing);
        Ok(Opened { handle, keep_cache, is_writable: for_writing })
    }

    /// Reads up to `len` bytes; fewer only at the end of the file.
    ///
    /// # Errors
    /// `Stale` when the object was replaced under its reader.
    pub async fn read(&self, handle: u64, offset: u64, len: u32) -> Result<Bytes, FsError> {
        self.admit()?;
        let file = self.handles.file(handle).ok_or(ErrorKind::BadHandle)?;
        let draft = self.inodes.lock().get(file.ino).and_then(|inode| inode.draft().cloned());
        if let Some(draft) = draft {
            return self.read_draft(&file, &draft, offset, len).await;
        }
        self.unanswered_reads.ask(&handle)?;
        let read = self.read_object(&file, offset, len).await;
        self.unanswered_reads.ended(handle, &read);
        read
    }

    async fn read_object(&self, file: &Arc<FileHandle>, offset: u64, len: u32) -> Result<Bytes, FsError> {
        if !file.was_read.swap(true, Ordering::Relaxed) {
            let reader = Arc::clone(&*file.reader.lock());
            self.look_ahead(file.ino, reader.object());
        }
        for _ in 0..ADOPTIONS {
            let reader = Arc::clone(&*file.reader.lock());
            match reader.read(offset, len).await {
                Ok(bytes) if self.hand_out(file, &reader) => return Ok(bytes),
                // Another read of this file adopted a newer version meanwhile.
                Ok(_) => self.follow(file, &reader)?,
                Err(ReadError::Changed(head)) => self.adopt(file, &reader, &head)?,
                Err(ReadError::Store(error)) if error.kind == StoreErrorKind::NotFound => {
                    if self.was_moved(file, &reader).await {
                        continue;
                    }
                    self.went_stale(file);
                    let gone = file.handed_out.load(Ordering::Relaxed);
                    let kind = if gone { ErrorKind::Stale } else { ErrorKind::NotFound };
                    return Err(FsError { kind, cause: Some(error) });
                }
                Err(ReadError::Store(error)) => return Err(self.noted(&reader.object().key, error.into())),
            }
        }
        Err(ErrorKind::Stale.into())
    }

    /// Whether an object is gone because it is renamed here: once that is done, its handles have other readers.
    async fn was_moved(&self, file: &FileHandle, reader: &Arc<Reader>) -> bool {
        self.moves_settled(&reader.object().key).await;
        !Arc::ptr_eq(&file.reader.lock(), reader)
    }

    /// Waits for a rename of an object that is under way.
    pub(super) async fn moves_settled(&self, key: &str) {
        if let Some(writer) = &self.writer {
            writer.uploader.moves().settled(key).await;
        }
    }

    pub fn release(&self, ino: u64, handle: u64) {
        self.handles.close(handle);
        self.inodes.lock().closed(ino);
        self.end_draft(ino);
    }

    /// Keeps a file's draft while it is changed by path: nobody has to have the file open for that.
    pub(super) fn hold(&self, ino: u64) -> Held<'_> {
        self.inodes.lock().opened(ino);
        Held { fs: self, ino }
    }

    /// Notes that bytes of the reader's version go to the caller. `false`: the inode has another version by now.
    fn hand_out(&self, file: &FileHandle, reader: &Arc<Reader>) -> bool {
        if !Arc::ptr_eq(&file.reader.lock(), reader) {
            return false;
        }
        if file.handed_out.load(Ordering::Acquire) {
            return true;
        }
        let mut inodes = self.inodes.lock();
        let Some(node) = inodes.get_mut(file.ino).and_then(|inode| inode.file_mut()) else { return true };
        if !is_version(&node.version, reader.object()) {
            return false;
        }
        node.handed_out = true;
        file.handed_out.store(true, Ordering::Release);
        true
    }

    /// The first GET showed another version than the one listed. While no byte of the old one was handed out,
    /// to any reader and so to the kernel's cache, the file simply has the new one. Its size must be the same: the
    /// kernel has told the old one to the caller, and would fill up or cut off the new bytes to fit it.
    fn adopt(&self, file: &FileHandle, reader: &Arc<Reader>, head: &ObjectHead) -> Result<(), FsError> {
        {
            let mut inodes = self.inodes.lock();
            let Some(node) = inodes.get_mut(file.ino).and_then(|inode| inode.file_mut()) else {
                return Err(ErrorKind::Stale.into());
            };
            if is_version(&node.version, reader.object()) {
                if node.handed_out || head.size != node.version.size {
                    drop(inodes);
                    self.went_stale(file);
                    return Err(ErrorKind::Stale.into());
                }
                node.version = FileVersion {
                    etag: head.etag.clone(),
                    size: head.size,
                    modified: Modified::unlisted(
                        head.modified.map_or(node.version.modified.ms, crate::fs::attr::millis),
                    ),
                };
                tracing::debug!(key = %reader.object().key, "the object is newer than its listing");
            }
        }
        self.went_stale(file);
        self.follow(file, reader)
    }

    /// Gives a handle the version that its inode has now, unless another read has done so.
    fn follow(&self, file: &FileHandle, reader: &Arc<Reader>) -> Result<(), FsError> {
        if !Arc::ptr_eq(&file.reader.lock(), reader) {
            return Ok(());
        }
        let inodes = self.inodes.lock();
        let key = inodes.key(file.ino).ok_or(ErrorKind::Stale)?;
        let node = inodes.get(file.ino).and_then(|inode| inode.file()).ok_or(ErrorKind::Stale)?;
        let object = object_id(&key, &node.version);
        drop(inodes);
        *file.reader.lock() = Reader::new(object, self.fetcher.clone());
        Ok(())
    }

    /// What is remembered of the file is no longer true: forgets it, here and in the kernel.
    fn went_stale(&self, file: &FileHandle) {
        let mut inodes = self.inodes.lock();
        let Some(inode) = inodes.get_mut(file.ino) else { return };
        inode.stale = true;
        let (parent, name) = (inode.parent(), Box::from(inode.name()));
        let prefix = inodes.key(parent);
        drop(inodes);
        if let Some(prefix) = prefix {
            self.meta.invalidate(&prefix);
        }
        self.invalidate(Invalidation::Attributes { ino: file.ino });
        self.invalidate(Invalidation::Name { parent, name });
    }
}

pub(super) fn object_id(key: &str, version: &FileVersion) -> ObjectId {
    ObjectId::new(key, version.etag.clone(), version.size, version.modified)
}

fn is_version(version: &FileVersion, object: &ObjectId) -> bool {
    version.etag == object.etag && version.size == object.size
}
