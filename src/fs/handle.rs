//! Open files and directories, by the number that the kernel hands back.
//!
//! Lock rank: before the inode table; never held across an await.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::ErrorKind;
use super::users::Users;
use crate::data::Reader;
use crate::meta::{Entry, Listing};

/// An open file.
pub(super) struct FileHandle {
    pub ino: u64,
    pub is_writable: bool,
    pub users: Users,
    /// Replaced when the first GET shows another version and nothing was handed out yet.
    pub reader: Mutex<Arc<Reader>>,
    /// Bytes went to the caller: the version can no longer be replaced.
    pub handed_out: AtomicBool,
    /// It was read since it was opened.
    pub was_read: AtomicBool,
    /// Why a write through it failed before there was a draft to note that in.
    pub failed: Mutex<Option<ErrorKind>>,
}

/// An open directory.
pub(super) struct DirHandle {
    pub ino: u64,
    /// What this stream began with, so that its offsets stay true.
    pub listing: Mutex<Option<Stream>>,
}

/// A name, and what it stands for now.
pub(super) type Change = (Box<[u8]>, Option<Entry>);

/// A directory as a stream shows it: what was listed, and what was changed here.
#[derive(Clone)]
pub(super) struct Stream {
    pub prefix: Arc<str>,
    pub listing: Arc<Listing>,
    /// By name.
    pub changes: Arc<Vec<Change>>,
}

#[derive(Clone)]
enum Handle {
    File(Arc<FileHandle>),
    Directory(Arc<DirHandle>),
}

/// See the module.
#[derive(Default)]
pub(super) struct Handles {
    open: Mutex<HashMap<u64, Handle>>,
    next: AtomicU64,
}

impl Handles {
    fn insert(&self, handle: Handle) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.open.lock().insert(number, handle);
        number
    }

    pub fn open_file(&self, ino: u64, reader: Arc<Reader>, is_writable: bool) -> u64 {
        let reader = Mutex::new(reader);
        self.insert(Handle::File(Arc::new(FileHandle {
            ino,
            is_writable,
            users: Users::default(),
            reader,
            handed_out: AtomicBool::new(false),
            was_read: AtomicBool::new(false),
            failed: Mutex::default(),
        })))
    }

    pub fn open_directory(&self, ino: u64) -> u64 {
        self.insert(Handle::Directory(Arc::new(DirHandle { ino, listing: Mutex::new(None) })))
    }

    pub fn file(&self, number: u64) -> Option<Arc<FileHandle>> {
        match self.open.lock().get(&number)? {
            Handle::File(file) => Some(Arc::clone(file)),
            Handle::Directory(_) => None,
        }
    }

    pub fn directory(&self, number: u64) -> Option<Arc<DirHandle>> {
        match self.open.lock().get(&number)? {
            Handle::Directory(directory) => Some(Arc::clone(directory)),
            Handle::File(_) => None,
        }
    }

    pub fn close(&self, number: u64) {
        let closed = self.open.lock().remove(&number);
        drop(closed);
    }

    /// The open descriptions of a file.
    pub fn of(&self, ino: u64) -> Vec<Arc<FileHandle>> {
        let open = self.open.lock();
        let files = open.values().filter_map(|handle| match handle {
            Handle::File(file) if file.ino == ino => Some(Arc::clone(file)),
            _ => None,
        });
        files.collect()
    }

    /// How many of them may write.
    pub fn writers(&self, ino: u64) -> usize {
        self.of(ino).iter().filter(|file| file.is_writable).count()
    }

    /// The files that are open.
    pub fn inodes(&self) -> Vec<u64> {
        let open = self.open.lock();
        let mut inodes: Vec<u64> = open
            .values()
            .filter_map(|handle| match handle {
                Handle::File(file) => Some(file.ino),
                Handle::Directory(_) => None,
            })
            .collect();
        inodes.sort_unstable();
        inodes.dedup();
        inodes
    }

    pub fn len(&self) -> usize {
        self.open.lock().len()
    }
}
