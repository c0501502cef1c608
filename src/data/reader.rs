//! One reader of one version: takes blocks from the cache, and keeps a sequential reader supplied.
//!
//! A reader that goes on where it stopped gets a window ahead of it that grows with what it has consumed; one
//! that jumps about gets what it asks for and nothing more. The window is never more than the link brings in a moment.
//! On a server that hashes whole objects, the window is the part of one long request that we let through, and one
//! that jumps about in a file that fits into the cache soon gets all of it, since every jump costs a hashing.
//!
//! What a sequence has passed of a file that is too large for the cache is dropped: the kernel has it, and it would
//! be gone before it is read again.
//!
//! Lock rank: `ahead` comes before the fetcher's `flights`; never held across an await.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use super::fetch::STREAM_SHARE;
use super::flight::{Flight, REACH};
use super::{BLOCK, Fetcher, ObjectId, ReadError, exact};

/// Files up to this size are fetched whole with the first read.
pub(super) const WHOLE: u64 = 1 << 20;
/// What the first read of a larger file fetches, and the least a sequential reader asks for.
const FIRST: u64 = 1 << 20;
/// The largest part: one GET. Larger ones gain nothing on a network, and hold up those who wait for their end.
const PART: u64 = 8 << 20;
/// The largest window ahead of one reader.
const WINDOW: u64 = 64 << 20;
/// How far off the expected place a read may be and still belong to a sequence: the kernel reads ahead with
/// several requests at once, which come in any order.
const SLACK: u64 = 1 << 20;
/// Reads here and there after which a file is fetched whole, on a server that hashes all of it for each of them.
const JUMPS: u32 = 8;
/// A reader that has not read for this long may lose what was read ahead for it.
const IDLE: Duration = Duration::from_secs(2);

#[derive(Default)]
struct Ahead {
    /// Where the next read of a sequence begins.
    next: u64,
    /// Bytes read in sequence; 0 after a jump.
    consumed: u64,
    started: bool,
    /// Blocks before this one are there or on their way.
    scheduled: u32,
    flights: VecDeque<Arc<Flight>>,
    last_read: Option<Instant>,
    one_stream: bool,
    /// Brings all of the file to one who jumps about in it.
    whole: Option<Arc<Flight>>,
    /// Reads that were in no sequence.
    jumps: u32,
    /// Blocks before this one were dropped.
    dropped: u32,
}

/// What to fetch if a read finds nothing under way.
struct Demand {
    blocks: Range<u32>,
    /// A small read in no sequence: only its own bytes.
    is_lone: bool,
}

impl Ahead {
    /// A new sequence may begin with this read.
    fn jump(&mut self, next: u64, first: u32) {
        *self = Self {
            started: true,
            next,
            scheduled: first,
            dropped: first,
            last_read: self.last_read,
            one_stream: self.one_stream,
            jumps: self.jumps + 1,
            whole: self.whole.take(),
            ..Self::default()
        };
    }
}

/// See the module.
pub struct Reader {
    object: ObjectId,
    fetcher: Fetcher,
    ahead: Mutex<Ahead>,
}

impl Reader {
    #[must_use]
    pub fn new(object: ObjectId, fetcher: Fetcher) -> Arc<Self> {
        let reader = Arc::new(Self { object, fetcher, ahead: Mutex::default() });
        reader.fetcher.register(&reader);
        reader
    }

    /// Gives up what was read ahead for a reader that has stopped reading: others need the budget.
    pub(super) fn release_if_idle(&self) {
        // A reader that is busy is not idle.
        if let Some(mut ahead) = self.ahead.try_lock()
            && ahead.last_read.is_some_and(|at| at.elapsed() > IDLE)
        {
            ahead.flights.clear();
            ahead.scheduled = 0;
        }
    }

    #[must_use]
    pub fn object(&self) -> &ObjectId {
        &self.object
    }

    /// Up to `len` bytes from `offset`; fewer only at the end of the object.
    ///
    /// # Errors
    /// When the bytes cannot be had, or the key now holds another version.
    pub async fn read(&self, offset: u64, len: u32) -> Result<Bytes, ReadError> {
        let end = offset.saturating_add(u64::from(len)).min(self.object.size);
        if offset >= end {
            return Ok(Bytes::new());
        }
        let blocks = blocks_of(offset, end);
        let all_there = blocks.clone().all(|block| self.fetcher.shared.cache.contains(&self.object, block));
        let Demand { blocks: fetch, is_lone } = self.plan(offset, end, &blocks);
        if is_lone && let Some(read) = self.fetcher.exact(&self.object, offset..end).await {
            return read;
        }
        let stats = &self.fetcher.shared.stats;
        if all_there { &stats.read_hits } else { &stats.read_misses }.add(1);

        let first = self.fetcher.block(&self.object, blocks.start, fetch.clone()).await?;
        let skip = usize::try_from(offset % BLOCK).unwrap_or(0);
        let wanted = usize::try_from(end - offset).unwrap_or(usize::MAX);
        if first.len() - skip >= wanted {
            return Ok(first.slice(skip..skip + wanted));
        }
        let mut bytes = BytesMut::with_capacity(wanted);
        bytes.extend_from_slice(&first[skip..]);
        for block in blocks.start + 1..blocks.end {
            let next = self.fetcher.block(&self.object, block, fetch.clone()).await?;
            bytes.extend_from_slice(&next[..next.len().min(wanted - bytes.len())]);
        }
        Ok(bytes.freeze())
    }

    /// Notes the read, sends for what a sequence will need next, and says what to fetch if the read itself
    /// finds nothing under way.
    fn plan(&self, offset: u64, end: u64, blocks: &Range<u32>) -> Demand {
        let size = self.object.size;
        let mut ahead = self.ahead.lock();
        ahead.last_read = Some(Instant::now());
        if size <= WHOLE {
            let whole = 0..self.object.blocks();
            self.send_for(&mut ahead, blocks, &whole);
            return Demand { blocks: whole, is_lone: false };
        }
        // Once a long request is open, it stays with it.
        ahead.one_stream |= self.fetcher.shared.pace.prefers_one_stream(size);
        let from_start = !ahead.started && offset == 0;
        let in_sequence =
            ahead.started && offset + SLACK >= ahead.next && offset <= ahead.next.saturating_add(SLACK);
        if !ahead.started {
            self.fetcher.shared.reading.fetch_add(1, Ordering::Relaxed);
        }
        if !in_sequence {
            ahead.jump(end, blocks.start);
            if !from_start {
                return self.jumped(&mut ahead, offset, end, blocks);
            }
        }
        ahead.next = ahead.next.max(end);
        ahead.consumed += end - offset;
        self.drop_passed(&mut ahead);
        // A sequence that began in the middle of the file proves itself first.
        let at_least = if ahead.consumed > FIRST / 4 || from_start { FIRST } else { FIRST / 4 };
        let at_least = at_least.min(self.share());
        let demand = blocks.start..block_after((offset + at_least).max(end).min(size)).max(blocks.end);
        while ahead.flights.front().is_some_and(|flight| u64::from(flight.end()) * BLOCK + SLACK <= offset) {
            ahead.flights.pop_front();
        }
        if ahead.one_stream {
            self.extend_stream(&mut ahead, blocks, &demand);
        } else {
            self.send_for(&mut ahead, blocks, &demand);
            if !from_start {
                self.extend_window(&mut ahead, &demand);
            }
        }
        Demand { blocks: demand, is_lone: false }
    }

    /// A read in no sequence.
    fn jumped(&self, ahead: &mut Ahead, offset: u64, end: u64, blocks: &Range<u32>) -> Demand {
        let size = self.object.size;
        if !ahead.one_stream {
            return Demand { blocks: blocks.clone(), is_lone: exact::is_small(offset, end) };
        }
        // The hashing takes longer than the bytes.
        let whole = 0..self.object.blocks();
        if ahead.jumps >= JUMPS && !self.fetcher.shared.cache.is_too_large(size) {
            let stream = self.fetcher.stream(&self.object, whole.clone(), whole.end, u32::MAX);
            ahead.whole = stream.or_else(|| ahead.whole.take());
        }
        let around = block_after((offset + FIRST).min(size)).max(blocks.end);
        Demand { blocks: blocks.start..around, is_lone: false }
    }

    /// Bytes that may wait for this reader, so that readers do not drive out each other's.
    fn share(&self) -> u64 {
        let readers = self.fetcher.shared.reading.load(Ordering::Relaxed);
        self.fetcher.shared.cache.share(readers)
    }

    fn drop_passed(&self, ahead: &mut Ahead) {
        let cache = &self.fetcher.shared.cache;
        if !cache.is_too_large(self.object.size) {
            return;
        }
        let passed = u32::try_from(ahead.next.saturating_sub(SLACK) / BLOCK).unwrap_or(u32::MAX);
        for block in ahead.dropped..passed {
            cache.forget(&self.object, block);
        }
        ahead.dropped = ahead.dropped.max(passed);
    }

    /// Sends for what the read needs and more behind it. The reader holds the flight, so that it goes on after
    /// this read has what it wants.
    fn send_for(&self, ahead: &mut Ahead, blocks: &Range<u32>, demand: &Range<u32>) {
        let missing = blocks.clone().find(|&block| !self.fetcher.shared.cache.contains(&self.object, block));
        let flight = missing.and_then(|block| self.fetcher.join_or_launch(&self.object, block, demand));
        if let Some(flight) = flight
            && !ahead.flights.iter().any(|held| Arc::ptr_eq(held, &flight))
        {
            ahead.flights.push_back(flight);
        }
    }

    /// Parts ahead of the reader, as many as its window holds.
    fn extend_window(&self, ahead: &mut Ahead, demand: &Range<u32>) {
        let size = self.object.size;
        let window = (FIRST + 2 * ahead.consumed).min(WINDOW).min(self.fetcher.shared.flow.window());
        let window = window.min(self.share());
        let part = (window / 4).clamp(FIRST, PART);
        let window_end = block_after((ahead.next + window).min(size));
        let part_blocks = u32::try_from(part / BLOCK).unwrap_or(1);
        ahead.scheduled = ahead.scheduled.max(demand.start);
        while ahead.scheduled < window_end {
            let end = (ahead.scheduled + part_blocks).min(self.object.blocks());
            // A part is sent for once the window holds all of it, so that a sliding window makes no small ones.
            if end > window_end {
                return;
            }
            let part = ahead.scheduled..end;
            let flights = self.fetcher.ahead(&self.object, part.clone()).or_else(|| {
                self.fetcher.release_idle();
                self.fetcher.ahead(&self.object, part)
            });
            let Some(flights) = flights else { return };
            ahead.flights.extend(flights);
            ahead.scheduled = end;
        }
    }

    /// One long request, let through as far as the window.
    fn extend_stream(&self, ahead: &mut Ahead, blocks: &Range<u32>, demand: &Range<u32>) {
        let window = (FIRST + 2 * ahead.consumed).min(STREAM_SHARE);
        let allowed = block_after((ahead.next + window).min(self.object.size)).max(demand.end);
        let blocks = blocks.start..self.object.blocks();
        if let Some(flight) = self.fetcher.stream(&self.object, blocks, allowed, REACH) {
            ahead.flights.push_back(flight);
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if self.ahead.get_mut().started {
            self.fetcher.shared.reading.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The blocks that hold `start..end`.
fn blocks_of(start: u64, end: u64) -> Range<u32> {
    u32::try_from(start / BLOCK).unwrap_or(u32::MAX)..block_after(end)
}

/// The first block behind `end`.
pub(super) fn block_after(end: u64) -> u32 {
    u32::try_from(end.div_ceil(BLOCK)).unwrap_or(u32::MAX)
}
