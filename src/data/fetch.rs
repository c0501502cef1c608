//! Gets blocks from the store: at most one GET in flight for a block, whoever asks for it.
//!
//! Lock rank: `flights` is a leaf, never held across an await.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use super::flight::Flight;
use super::{BLOCK, BlockCache, ObjectId, ReadError, Reader};
use crate::stats::Stats;
use crate::store::{ObjectHead, ObjectStore};

/// Evictions of a block between its arrival and its use that a reader puts up with.
const EVICTIONS: u32 = 3;

/// What a long request takes of the read-ahead budget.
pub(super) const STREAM_SHARE: u64 = 16 << 20;

/// Told of the headers of each GET of the expected version.
pub type Seen = Box<dyn Fn(&ObjectId, &ObjectHead) + Send + Sync>;

/// What flights need.
pub(super) struct Shared {
    pub store: Arc<dyn ObjectStore>,
    pub cache: Arc<BlockCache>,
    pub stats: Arc<Stats>,
    pub pace: Pace,
    /// Bytes that may still be read ahead.
    pub ahead: Arc<AtomicU64>,
    on_seen: Seen,
}

impl Shared {
    pub(super) fn seen(&self, object: &ObjectId, head: &ObjectHead) {
        (self.on_seen)(object, head);
    }
}

/// How long the server takes to the first byte, and how much of it grows with the object.
///
/// A self-hosted file backend hashes the whole object for every GET: there few long requests must win over
/// many ranges. The hosted service answers a range of any object at once.
#[derive(Default)]
pub(super) struct Pace {
    /// Nanoseconds to the first byte of small objects: the least seen, forgotten slowly. 0: none seen.
    base: AtomicU64,
    /// Bytes hashed per second; 0 while no sign of hashing was seen.
    hash_rate: AtomicU64,
    /// Signs in a row: one slow answer of a distant server is none.
    signs: AtomicU64,
}

/// Objects up to this size say nothing about hashing.
const SMALL: u64 = 4 << 20;

/// No server hashes faster than this: a shorter delay has another cause.
const FASTEST_HASH: u64 = 2_000_000_000;

/// Hashing that delays a range by less than this is not worth a slower way of reading.
const BEARABLE: Duration = Duration::from_millis(50);

impl Pace {
    /// Notes the time to the first byte of an object; `round_trip` is that of a request without a body.
    pub(super) fn learn(&self, size: u64, first_byte: Duration, round_trip: Duration) {
        let base = self.base.load(Ordering::Relaxed);
        let nanos = nanos(first_byte);
        if size <= SMALL {
            let next = if base == 0 || nanos < base { nanos.max(1) } else { base + (nanos - base) / 64 };
            self.base.store(next, Ordering::Relaxed);
            return;
        }
        // Before a small object was read, a plain request is the measure; a GET passes one more hop, so that
        // the sign must be clearer.
        let (usual, threshold) =
            if base == 0 { (self::nanos(round_trip), 4 * BEARABLE) } else { (base, BEARABLE) };
        let extra = nanos.saturating_sub(usual);
        let rate = mul_div(size, 1_000_000_000, extra);
        let is_hashing = usual != 0 && extra > self::nanos(threshold).max(usual) && rate < FASTEST_HASH;
        let signs = if is_hashing { self.signs.load(Ordering::Relaxed) + 1 } else { 0 };
        self.signs.store(signs, Ordering::Relaxed);
        let is_sure = signs >= 2 || extra > self::nanos(8 * BEARABLE);
        self.hash_rate.store(if is_hashing && is_sure { rate } else { 0 }, Ordering::Relaxed);
    }

    /// Whether a range of an object of this size costs more for its hashing than for its round trip.
    pub(super) fn prefers_one_stream(&self, size: u64) -> bool {
        let rate = self.hash_rate.load(Ordering::Relaxed);
        size > SMALL && rate != 0 && mul_div(size, 1_000_000_000, rate) > nanos(BEARABLE)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn mul_div(a: u64, b: u64, c: u64) -> u64 {
    u64::try_from(u128::from(a) * u128::from(b) / u128::from(c.max(1))).unwrap_or(u64::MAX)
}

/// See the module.
#[derive(Clone)]
pub struct Fetcher {
    pub(super) shared: Arc<Shared>,
    flights: Arc<Mutex<Flights>>,
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
        let shared = Shared { store, cache, stats, pace: Pace::default(), ahead, on_seen };
        Self { shared: Arc::new(shared), flights: Arc::default(), readers: Arc::default() }
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
        let mut answer = self.shared.store.get(&object.key, Some(range), object.size).await?;
        if answer.head.etag != object.etag || answer.head.size != object.size {
            return Err(ReadError::Changed(Arc::new(answer.head)));
        }
        let mut bytes = BytesMut::with_capacity(object.block_len(block));
        while let Some(piece) = answer.body.next().await? {
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes.freeze())
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
        Some(flights.launch(&self.shared, object, blocks.clone(), blocks.end, 0))
    }

    /// Sees to it that one long request brings `blocks`, read as far as `allowed`, if any of what is allowed is
    /// not there and not on its way. The request goes on to the end of the object.
    pub(super) fn stream(&self, object: &ObjectId, blocks: Range<u32>, allowed: u32) -> Option<Arc<Flight>> {
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
                return Some(flights.launch(&self.shared, object, next..blocks.end, allowed, reserved));
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
            bringing.push(flights.launch(&self.shared, object, next..end, end, bytes));
            next = end;
        }
        Some(bringing)
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
        allowed: u32,
        reserved: u64,
    ) -> Arc<Flight> {
        let flight = Flight::launch(shared, object, blocks, allowed, reserved);
        if self.0.len() > 64 {
            self.0.retain(|_, of_object| of_object.iter().any(|weak| weak.strong_count() > 0));
        }
        let of_object = self.0.entry(object.hash).or_default();
        of_object.retain(|weak| weak.strong_count() > 0);
        of_object.push(Arc::downgrade(&flight));
        flight
    }
}
