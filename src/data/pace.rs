//! What is measured of this server: the time to the first byte, and the bytes a second that arrive.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

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

/// A rate is taken over so many bytes of a body.
const SAMPLE: u64 = 1 << 20;
/// What is read ahead arrives within so many seconds.
const AHEAD: u64 = 2;
/// However slow it is.
const LEAST: u64 = 2 << 20;

/// Bytes a second that the link brings, all bodies together.
///
/// Reading ahead further than the link brings in a moment delays what is needed next, which shares the link with it.
#[derive(Default)]
pub(super) struct Flow {
    /// Bodies that are arriving.
    bodies: AtomicU64,
    /// 0: not measured yet.
    rate: AtomicU64,
}

/// One body that is arriving.
pub(super) struct Arriving<'a> {
    flow: &'a Flow,
    since: Option<Instant>,
    bytes: u64,
}

impl Flow {
    pub(super) fn begin(&self) -> Arriving<'_> {
        self.bodies.fetch_add(1, Ordering::Relaxed);
        Arriving { flow: self, since: None, bytes: 0 }
    }

    /// How many bytes it is sensible to have on the way.
    pub(super) fn window(&self) -> u64 {
        match self.rate.load(Ordering::Relaxed) {
            0 => u64::MAX,
            rate => rate.saturating_mul(AHEAD).max(LEAST),
        }
    }
}

impl Arriving<'_> {
    /// A piece has arrived. The first one only starts the clock: it may have waited for us.
    pub(super) fn arrived(&mut self, bytes: u64, now: Instant) {
        let Some(since) = self.since else {
            self.since = Some(now);
            return;
        };
        self.bytes += bytes;
        if self.bytes < SAMPLE {
            return;
        }
        let took = nanos(now.saturating_duration_since(since));
        let bodies = self.flow.bodies.load(Ordering::Relaxed);
        let sample = mul_div(self.bytes, 1_000_000_000, took).saturating_mul(bodies);
        let rate = self.flow.rate.load(Ordering::Relaxed);
        let next = if rate == 0 { sample } else { rate - rate / 4 + sample / 4 };
        self.flow.rate.store(next.max(1), Ordering::Relaxed);
        self.pause();
        self.since = Some(now);
    }

    /// Nobody wants more for now.
    pub(super) fn pause(&mut self) {
        self.since = None;
        self.bytes = 0;
    }
}

impl Drop for Arriving<'_> {
    fn drop(&mut self) {
        self.flow.bodies.fetch_sub(1, Ordering::Relaxed);
    }
}
