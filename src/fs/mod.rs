//! POSIX meaning: inodes, handles and the operations on them.
//!
//! The read path, from the kernel down: `fuse` decodes a request and calls [`Fs::read`] (`read.rs`), which asks the
//! handle's `Reader` (`data/reader.rs`) for blocks.

mod attr;
mod dir;
mod error;
mod handle;
pub mod inode;
mod lookup;
mod read;
mod xattr;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::mpsc;

pub use attr::Attributes;
pub use dir::{DirCursor, DirItem};
pub use error::{ErrorKind, FsError};
pub use lookup::Found;
pub use read::Opened;
pub use xattr::Listed;

use crate::config::{Presentation, Tuning};
use crate::data::{BlockCache, Fetcher};
use crate::fs::handle::Handles;
use crate::fs::inode::InodeTable;
use crate::meta::{DirCache, FileVersion, Known};
use crate::single_flight::SingleFlight;
use crate::stats::Stats;
use crate::store::{ObjectHead, ObjectStore, StoreError};

/// What one request holds beside the cache: its connection's buffer and the block it is filling.
const BYTES_IN_FLIGHT: u64 = 512 * 1024;

/// What the kernel is to forget, because the bucket was seen to have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invalidation {
    /// The name leads to something else now.
    Name { parent: u64, name: Box<[u8]> },
    /// Size or times of an inode are not what they were.
    Attributes { ino: u64 },
}

/// A bucket as a file system.
pub struct Fs {
    store: Arc<dyn ObjectStore>,
    meta: DirCache,
    known: Arc<Known>,
    fetcher: Fetcher,
    inodes: Mutex<InodeTable>,
    handles: Handles,
    presentation: Presentation,
    ttl: Duration,
    started: SystemTime,
    scan: xattr::Scan,
    heads: SingleFlight<String, Result<ObjectHead, StoreError>>,
    invalidations: mpsc::UnboundedSender<Invalidation>,
}

impl Fs {
    /// A file system over a store. What the kernel is to forget is sent to `invalidations`.
    #[must_use]
    pub fn new(
        store: Arc<dyn ObjectStore>,
        presentation: Presentation,
        tuning: &Tuning,
        stats: &Arc<Stats>,
        invalidations: mpsc::UnboundedSender<Invalidation>,
    ) -> Self {
        let known = Arc::new(Known::new());
        // The budget covers what is on its way as well.
        let in_flight = (tuning.max_requests as u64 * BYTES_IN_FLIGHT).min(tuning.cache_memory / 2);
        let budget = tuning.cache_memory - in_flight;
        let cache = Arc::new(BlockCache::new(budget));
        let learning = Arc::clone(&known);
        let on_seen = Box::new(move |object: &crate::data::ObjectId, head: &crate::store::ObjectHead| {
            let version =
                FileVersion { etag: object.etag.clone(), size: object.size, modified_ms: object.modified_ms };
            learning.learn(&object.key, &version, head);
        });
        // Half of the cache may hold what was not asked for yet, so that reading ahead never drives out itself.
        let ahead = budget / 2;
        Self {
            meta: DirCache::new(Arc::clone(&store), tuning, Arc::clone(stats)),
            fetcher: Fetcher::new(Arc::clone(&store), cache, Arc::clone(stats), ahead, on_seen),
            store,
            known,
            inodes: Mutex::default(),
            handles: Handles::default(),
            presentation,
            ttl: tuning.metadata_ttl,
            started: SystemTime::now(),
            scan: xattr::Scan::default(),
            heads: SingleFlight::new(),
            invalidations,
        }
    }

    /// The prefix of a directory's keys.
    fn prefix(&self, ino: u64) -> Result<String, FsError> {
        let inodes = self.inodes.lock();
        match inodes.get(ino) {
            Some(inode) if inode.file().is_none() => {}
            Some(_) => return Err(ErrorKind::NotDirectory.into()),
            None => return Err(ErrorKind::Stale.into()),
        }
        inodes.key(ino).ok_or_else(|| ErrorKind::Stale.into())
    }

    fn invalidate(&self, invalidation: Invalidation) {
        // The receiver is gone only while the mount comes down.
        let _unmounting = self.invalidations.send(invalidation);
    }

    /// Inodes that the kernel, handles or children hold.
    #[must_use]
    pub fn inode_count(&self) -> usize {
        self.inodes.lock().count()
    }

    /// Handles that are open.
    #[must_use]
    pub fn handle_count(&self) -> usize {
        self.handles.len()
    }
}
