//! POSIX meaning: inodes, handles and the operations on them.
//!
//! The read path, from the kernel down: `fuse` decodes a request and calls [`Fs::read`] (`read.rs`), which asks the
//! handle's `Reader` (`data/reader.rs`) for blocks.

mod aside;
mod attr;
mod behind;
mod contents;
mod dir;
mod drain;
mod error;
mod folders;
mod foreign;
mod handle;
pub mod inode;
mod look_ahead;
mod lookup;
mod names;
mod nodes;
mod read;
mod refused_later;
mod rename;
mod rename_folder;
mod rights;
mod save;
mod second_question;
mod setattr;
mod size_limit;
mod suspend;
mod unheard;
mod users;
mod write;
mod xattr;

use std::num::NonZeroUsize;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use lru::LruCache;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

pub use attr::{Attributes, FileKind};
pub use dir::{DirCursor, DirItem};
pub use drain::{Left, Unsent};
pub use error::{ErrorKind, FsError};
pub use lookup::Found;
pub use read::Opened;
pub use refused_later::RefusedCount;
pub use setattr::Changes;
pub use write::Creation;
pub use xattr::Listed;

use crate::budget::Budget;
use crate::config::{Presentation, Tuning, Writing};
use crate::data::{BlockCache, Fetcher, Lookahead};
use crate::fs::handle::Handles;
use crate::fs::inode::InodeTable;
use crate::meta::{DirCache, FileVersion, Known};
use crate::single_flight::SingleFlight;
use crate::stats::Stats;
use crate::store::{ObjectHead, ObjectStore, StoreError};
use crate::writeback::{Change, Spool};
use save::Writer;
use second_question::Unanswered;

/// What one request holds beside the cache: its connection's buffer and the block it is filling.
const BYTES_IN_FLIGHT: u64 = 512 * 1024;

/// Refusals that are remembered.
const REFUSALS: NonZeroUsize = NonZeroUsize::new(1000).unwrap();

/// What the kernel is to forget, because the bucket was seen to have changed.
#[derive(Debug)]
pub enum Invalidation {
    /// The name leads to something else now.
    Name { parent: u64, name: Box<[u8]> },
    /// Size or times of an inode are not what they were.
    Attributes { ino: u64 },
    /// Nothing of an inode may be shown again.
    Contents { ino: u64 },
    /// Tells that the kernel has forgotten what was sent before.
    Done(oneshot::Sender<()>),
}

/// How long an answer waits for the kernel to forget: it may be busy in the same directory.
const FORGETTING: Duration = Duration::from_secs(1);

/// A bucket as a file system.
pub struct Fs {
    store: Arc<dyn ObjectStore>,
    meta: DirCache,
    known: Arc<Known>,
    stats: Arc<Stats>,
    /// `None`: the mount is read-only.
    writer: Option<Arc<Writer>>,
    /// Placeholders that are to be written.
    folders: folders::Folders,
    placeholders: folders::Placeholders,
    /// Held while a draft is made, so that a file has one. Rank: before the inode table.
    drafting: Mutex<()>,
    /// Rights may be missing that no request tells beforehand: a user's, not a key's.
    may_be_refused: bool,
    rights: rights::Rights,
    refused_later: refused_later::RefusedLater,
    /// Unmounted: what is open now is not waited for.
    ends: std::sync::atomic::AtomicBool,
    /// The user is another one than this mount is for.
    suspended: std::sync::atomic::AtomicBool,
    me: Weak<Self>,
    fetcher: Fetcher,
    lookahead: Lookahead,
    inodes: Mutex<InodeTable>,
    handles: Handles,
    presentation: Presentation,
    ttl: Duration,
    started: SystemTime,
    scan: xattr::Scan,
    /// Names, by their directory, that were looked up in vain.
    unanswered_lookups: Unanswered<(u64, Box<[u8]>)>,
    /// Handles that were read in vain.
    unanswered_reads: Unanswered<u64>,
    /// The server's words for what it refused last, by key; a folder's ends in `/`.
    refusals: Mutex<LruCache<Box<str>, Arc<str>>>,
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
        writing: Option<(Arc<Spool>, Writing)>,
        (may_be_refused, known): (bool, Arc<Known>),
    ) -> Arc<Self> {
        // The budget covers what is on its way, in both directions, and listings as well.
        let in_flight = (tuning.max_requests as u64 * BYTES_IN_FLIGHT).min(tuning.cache_memory / 2);
        let budget = Budget::new(tuning.cache_memory - in_flight);
        let cache = Arc::new(BlockCache::new(Arc::clone(&budget)));
        let learning = Arc::clone(&known);
        let on_seen = Box::new(move |object: &crate::data::ObjectId, head: &crate::store::ObjectHead| {
            let version =
                FileVersion { etag: object.etag.clone(), size: object.size, modified: object.modified };
            learning.learn(&object.key, &version, head);
        });
        // Half of the cache may hold what was not asked for yet, so that reading ahead never drives out itself.
        let ahead = budget.total() / 2;
        let fetcher = Fetcher::new(Arc::clone(&store), cache, Arc::clone(stats), ahead, on_seen);
        // Requests that somebody waits for must find a place, too.
        let lookahead =
            Lookahead::new(fetcher.clone(), Arc::clone(stats), ahead / 4, tuning.max_requests * 3 / 4);
        let places = tuning.max_requests * 3 / 4;
        let bridges_outages = writing.as_ref().is_some_and(|(_, writing)| writing.write_back);
        let writer = writing.map(|writing| Arc::new(Writer::new(&store, fetcher.clone(), writing, places)));
        let fs = Arc::new_cyclic(|me: &Weak<Self>| Self {
            refused_later: refused_later::RefusedLater::default(),
            ends: std::sync::atomic::AtomicBool::new(false),
            suspended: std::sync::atomic::AtomicBool::new(false),
            me: Weak::clone(me),
            stats: Arc::clone(stats),
            writer,
            folders: Mutex::default(),
            placeholders: folders::Placeholders::default(),
            drafting: Mutex::default(),
            may_be_refused,
            rights: rights::Rights::new(tuning),
            meta: DirCache::new(Arc::clone(&store), tuning, (Arc::clone(stats), budget), bridges_outages),
            fetcher,
            lookahead,
            store,
            known,
            inodes: Mutex::default(),
            handles: Handles::default(),
            presentation,
            ttl: tuning.metadata_ttl,
            started: SystemTime::now(),
            scan: xattr::Scan::default(),
            unanswered_lookups: Unanswered::default(),
            unanswered_reads: Unanswered::default(),
            refusals: Mutex::new(LruCache::new(REFUSALS)),
            heads: SingleFlight::new(),
            invalidations,
        });
        if let Some(writer) = &fs.writer {
            let watcher: Weak<dyn crate::writeback::Watcher> = fs.me.clone();
            writer.removals.watch(watcher);
        }
        fs
    }

    /// How long an answer may be believed that is as fresh as can be.
    #[must_use]
    pub fn validity(&self) -> Duration {
        self.ttl
    }

    /// The prefix of a directory's keys.
    fn prefix(&self, ino: u64) -> Result<String, FsError> {
        self.admit()?;
        let inodes = self.inodes.lock();
        match inodes.get(ino) {
            Some(inode) if inode.is_directory() => {}
            Some(_) => return Err(ErrorKind::NotDirectory.into()),
            None => return Err(ErrorKind::Stale.into()),
        }
        inodes.key(ino).ok_or_else(|| ErrorKind::Stale.into())
    }

    /// The same for who changes names in directories, which stay where they are until that is done. Of folders that
    /// are being moved, when that has ended: at the old place the change would be lost, or bring the folder back.
    async fn at_rest<const N: usize>(&self, inodes: [u64; N]) -> Result<([String; N], Change), FsError> {
        let moves = self.writer()?.uploader.moves();
        loop {
            let prefixes = self.prefixes(inodes)?;
            let Some(change) = moves.change(&prefixes) else {
                moves.at_rest(&prefixes).await;
                continue;
            };
            // A move may have ended in between.
            if self.prefixes(inodes)? == prefixes {
                return Ok((prefixes, change));
            }
        }
    }

    fn prefixes<const N: usize>(&self, inodes: [u64; N]) -> Result<[String; N], FsError> {
        let mut prefixes = [const { String::new() }; N];
        for (prefix, ino) in prefixes.iter_mut().zip(inodes) {
            *prefix = self.prefix(ino)?;
        }
        Ok(prefixes)
    }

    /// Has the kernel forget something.
    pub fn invalidate(&self, invalidation: Invalidation) {
        // The receiver is gone only while the mount comes down.
        let _unmounting = self.invalidations.send(invalidation);
    }

    /// Waits until the kernel has forgotten what it was told to.
    async fn forgotten(&self) {
        let (done, heard) = oneshot::channel();
        self.invalidate(Invalidation::Done(done));
        // It will in a moment, or its time to live ends.
        let _late = tokio::time::timeout(FORGETTING, heard).await;
    }

    /// Writes what is still in memory only.
    pub fn end(&self) {
        self.known.flush();
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
