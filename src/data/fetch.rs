//! Gets blocks from the store: at most one GET in flight for a block, whoever asks for it.
//!
//! Lock rank: `flights` is a leaf, never held across an await.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

use super::exact::Exact;
use super::flight::{Flight, REACH, fetch_range};
use super::pace::{Flow, Pace};
use super::{BLOCK, BlockCache, ObjectId, ReadError, Reader};
use crate::stats::Stats;
use crate::store::{ObjectHead, ObjectStore};

/// Evictions of a block between its arrival and its use that a reader puts up with.
const EVICTIONS: u32 = 3;

/// What a long request takes of the read-ahead budget.
pub(super) const STREAM_SHARE: u64 = 16 << 20;

/// Told of the headers of each GET of the expected version.
pub type Seen = Box<dyn Fn(&ObjectId, &ObjectHead) + Send + Sync>;

/// What became of sending for something ahead of need.
pub(super) enum Sent {
    /// All of it is there or on its way.
    NotNeeded,
    NoBudget,
    Flights(Vec<Arc<Flight>>),
}

/// What flights need.
pub(super) struct Shared {
    pub store: Arc<dyn ObjectStore>,
    pub cache: Arc<BlockCache>,
    pub stats: Arc<Stats>,
    pub pace: Pace,
    pub flow: Flow,
    /// Bytes that may still be read ahead.
    pub ahead: Arc<AtomicU64>,
    /// Readers of large files that have begun to read.
    pub reading: AtomicU64,
    on_seen: Seen,
}

impl Shared {
    pub(super) fn seen(&self, object: &ObjectId, head: &ObjectHead) {
        (self.on_seen)(object, head);
    }
}

/// See the module.
#[derive(Clone)]
pub struct Fetcher {
    pub(super) shared: Arc<Shared>,
    flights: Arc<Mutex<Flights>>,
    pub(super) exact: Arc<Exact>,
    /// Those that may hold a share of the read-ahead budget.
    readers: Arc<Mutex<Vec<Weak<Reader>>>>,
}

impl Fetcher {
    /// A fetcher that reads ahead at most `ahead` bytes beyond what readers have asked for.
    #[must_use]
    pub fn new(
        store: Arc<dyn ObjectStore>,
        cache: Arc<BlockCache>,
        stats: Arc<Stats>,
        ahead: u64,
        on_seen: Seen,
    ) -> Self {
        let ahead = Arc::new(AtomicU64::new(ahead));
        let shared = Shared {
            store,
            cache,
            stats,
            pace: Pace::default(),
            flow: Flow::default(),
            ahead,
            reading: AtomicU64::new(0),
            on_seen,
        };
        Self {
            shared: Arc::new(shared),
            flights: Arc::default(),
            exact: Arc::default(),
            readers: Arc::default(),
        }
    }

    pub(super) fn register(&self, reader: &Arc<Reader>) {
        let mut readers = self.readers.lock();
        if readers.len() == readers.capacity() {
            readers.retain(|reader| reader.strong_count() > 0);
        }
        readers.push(Arc::downgrade(reader));
    }

    /// Takes the budget back from readers that have stopped reading.
    pub(super) fn release_idle(&self) {
        let readers: Vec<_> = self.readers.lock().iter().filter_map(Weak::upgrade).collect();
        for reader in readers {
            reader.release_if_idle();
        }
    }

    /// Forgets every block that is in memory.
    pub fn purge(&self) {
        self.shared.cache.clear();
    }

    /// A block that is in memory.
    #[must_use]
    pub fn cached(&self, object: &ObjectId, block: u32) -> Option<Bytes> {
        self.shared.cache.get(object, block)
    }

    /// Keeps a block of an object that was put there from here.
    pub fn keep(&self, object: &ObjectId, block: u32, bytes: Bytes) {
        self.shared.cache.put(object, block, bytes);
    }

    /// A block, waiting for the flight that brings it. If none does, one is sent for `or_fetch`, which holds it.
    pub(super) async fn block(
        &self,
        object: &ObjectId,
        block: u32,
        or_fetch: Range<u32>,
    ) -> Result<Bytes, ReadError> {
        for _ in 0..EVICTIONS {
            if let Some(bytes) = self.cached(object, block) {
                return Ok(bytes);
            }
            if let Some(flight) = self.join_or_launch(object, block, &or_fetch) {
                flight.wait(block).await?;
            }
        }
        match self.cached(object, block) {
            Some(bytes) => Ok(bytes),
            // More is read at once than the cache holds.
            None => self.alone(object, block).await,
        }
    }

    /// Gets one block past the cache.
    async fn alone(&self, object: &ObjectId, block: u32) -> Result<Bytes, ReadError> {
        let start = u64::from(block) * BLOCK;
        let range = start..start + object.block_len(block) as u64;
        fetch_range(&self.shared, object, range).await
    }

    /// The flight that brings `block`: one under way, or a new one for `blocks`. `None`: it has just arrived.
    pub(super) fn join_or_launch(
        &self,
        object: &ObjectId,
        block: u32,
        blocks: &Range<u32>,
    ) -> Option<Arc<Flight>> {
        let mut flights = self.flights.lock();
        if let Some(flight) = flights.bringing(object, block) {
            return Some(flight);
        }
        // A flight puts a block into the cache before it says so: seen under the lock, this is the last word.
        if self.shared.cache.contains(object, block) {
            return None;
        }
        let there = |b| self.shared.cache.contains(object, b) || flights.bringing(object, b).is_some();
        let mut blocks = blocks.clone();
        while blocks.start < block && there(blocks.start) {
            blocks.start += 1;
        }
        // Stops at the first block that is there or on its way: none is fetched twice.
        blocks.end = (block + 1..blocks.end).find(|&b| there(b)).unwrap_or(blocks.end);
        Some(flights.launch(&self.shared, object, blocks.clone(), (blocks.end, REACH), 0))
    }

    /// Sees to it that one long request brings `blocks`, read as far as `allowed`, if any of what is allowed is
    /// not there and not on its way. The request goes on to the end of the object; others wait for what it will bring
    /// in the next `reach` blocks.
    pub(super) fn stream(
        &self,
        object: &ObjectId,
        blocks: Range<u32>,
        allowed: u32,
        reach: u32,
    ) -> Option<Arc<Flight>> {
        let mut flights = self.flights.lock();
        let mut next = blocks.start;
        while next < allowed {
            if self.shared.cache.contains(object, next) {
                next += 1;
            } else if let Some(flight) = flights.bringing(object, next) {
                flight.allow(allowed);
                next = flight.end().min(allowed);
            } else {
                // Without a share of the budget it only runs as far as it is waited for.
                let reserved = if self.reserve(STREAM_SHARE) { STREAM_SHARE } else { 0 };
                let allowed = if reserved == 0 { next + 1 } else { allowed };
                return Some(flights.launch(
                    &self.shared,
                    object,
                    next..blocks.end,
                    (allowed, reach),
                    reserved,
                ));
            }
        }
        None
    }

    /// Sees to it that `blocks`, a part ahead of need, are there or on their way, as far as the budget goes.
    /// `None`: the budget for reading ahead is used up.
    pub(super) fn ahead(&self, object: &ObjectId, blocks: Range<u32>) -> Option<Vec<Arc<Flight>>> {
        let mut flights = self.flights.lock();
        let mut bringing = Vec::new();
        let mut next = blocks.start;
        while next < blocks.end {
            if let Some(flight) = flights.bringing(object, next) {
                next = flight.end();
                bringing.push(flight);
                continue;
            }
            if self.shared.cache.contains(object, next) {
                next += 1;
                continue;
            }
            let there = |b| self.shared.cache.contains(object, b) || flights.bringing(object, b).is_some();
            let end = (next + 1..blocks.end).find(|&b| there(b)).unwrap_or(blocks.end);
            let bytes = u64::from(end - next) * BLOCK;
            if !self.reserve(bytes) {
                return None;
            }
            bringing.push(flights.launch(&self.shared, object, next..end, (end, REACH), bytes));
            next = end;
        }
        Some(bringing)
    }

    /// Sends for `blocks`, if any of them is neither there nor on its way and the budget allows it.
    pub(super) fn send_ahead(&self, object: &ObjectId, blocks: Range<u32>) -> Sent {
        if self.is_coming(object, &blocks) {
            return Sent::NotNeeded;
        }
        self.ahead(object, blocks).map_or(Sent::NoBudget, Sent::Flights)
    }

    /// Whether blocks are there or on their way.
    pub(super) fn is_coming(&self, object: &ObjectId, blocks: &Range<u32>) -> bool {
        let flights = self.flights.lock();
        let mut blocks = blocks.clone();
        blocks.all(|b| self.shared.cache.contains(object, b) || flights.bringing(object, b).is_some())
    }

    fn reserve(&self, bytes: u64) -> bool {
        self.shared
            .ahead
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes))
            .is_ok()
    }
}

/// The flights under way, by object.
#[derive(Default)]
struct Flights(HashMap<[u8; 16], Vec<Weak<Flight>>>);

impl Flights {
    fn bringing(&self, object: &ObjectId, block: u32) -> Option<Arc<Flight>> {
        self.0.get(&object.hash)?.iter().filter_map(Weak::upgrade).find(|flight| flight.will_deliver(block))
    }

    fn launch(
        &mut self,
        shared: &Arc<Shared>,
        object: &ObjectId,
        blocks: Range<u32>,
        (allowed, reach): (u32, u32),
        reserved: u64,
    ) -> Arc<Flight> {
        let flight = Flight::launch(shared, object, blocks, (allowed, reach), reserved);
        if self.0.len() > 64 {
            self.0.retain(|_, of_object| of_object.iter().any(|weak| weak.strong_count() > 0));
        }
        let of_object = self.0.entry(object.hash).or_default();
        of_object.retain(|weak| weak.strong_count() > 0);
        of_object.push(Arc::downgrade(&flight));
        flight
    }
}
