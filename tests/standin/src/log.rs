//! The request log: every request from its arrival on, with what was sent so far, so that a test that has
//! its answer finds the entry. Lock rank: leaf; nothing is called under it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

/// One request, as seen at the time of asking.
#[derive(Clone, Debug)]
pub struct LogEntry {
    /// The S3 operation, e.g. `ListObjectsV2`.
    pub operation: &'static str,
    /// Empty for `ListBuckets`.
    pub bucket: String,
    /// The key; for listings the prefix.
    pub key: String,
    /// The query string as received.
    pub query: String,
    /// The Range header (for copies of parts, the source range).
    pub range: Option<String>,
    /// HTTP status; 0 while there is no answer, and for requests that got none.
    pub status: u16,
    /// Request body bytes received.
    pub bytes_in: u64,
    /// Response body bytes handed to the connection.
    pub bytes_out: u64,
    /// Access key id, or the token's subject; empty if the request was refused before that was known.
    pub identity: String,
    /// Arrival.
    pub started: SystemTime,
    /// Until the last byte was handed out, or until now.
    pub duration: Duration,
    /// Whether the answer is complete (or was given up).
    pub finished: bool,
}

/// An entry while its request runs.
#[derive(Debug)]
pub struct Live {
    operation: &'static str,
    bucket: String,
    key: String,
    query: String,
    range: Option<String>,
    status: AtomicU16,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    identity: OnceLock<String>,
    started: SystemTime,
    clock: Instant,
    /// Nanoseconds; 0 while running.
    took: AtomicU64,
}

impl Live {
    fn snapshot(&self) -> LogEntry {
        let took = self.took.load(Ordering::Acquire);
        LogEntry {
            operation: self.operation,
            bucket: self.bucket.clone(),
            key: self.key.clone(),
            query: self.query.clone(),
            range: self.range.clone(),
            status: self.status.load(Ordering::Acquire),
            bytes_in: self.bytes_in.load(Ordering::Acquire),
            bytes_out: self.bytes_out.load(Ordering::Acquire),
            identity: self.identity.get().cloned().unwrap_or_default(),
            started: self.started,
            duration: if took == 0 { self.clock.elapsed() } else { Duration::from_nanos(took) },
            finished: took != 0,
        }
    }
}

/// The log of one stand-in.
#[derive(Debug)]
pub struct RequestLog {
    entries: Mutex<Vec<Arc<Live>>>,
    counts: Mutex<BTreeMap<&'static str, u64>>,
    in_flight: AtomicUsize,
    peak: AtomicUsize,
    capacity: usize,
}

/// What is known of a request on arrival.
pub struct Arrival {
    pub operation: &'static str,
    pub bucket: String,
    pub key: String,
    pub query: String,
    pub range: Option<String>,
}

impl RequestLog {
    pub fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            entries: Mutex::default(),
            counts: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            capacity,
        })
    }

    /// Records an arrival; the request is in flight until the handle is dropped.
    pub fn begin(self: &Arc<Self>, arrival: Arrival) -> InFlight {
        let now = self.in_flight.fetch_add(1, Ordering::AcqRel) + 1;
        self.peak.fetch_max(now, Ordering::AcqRel);
        *self.counts.lock().entry(arrival.operation).or_default() += 1;
        let live = Arc::new(Live {
            operation: arrival.operation,
            bucket: arrival.bucket,
            key: arrival.key,
            query: arrival.query,
            range: arrival.range,
            status: AtomicU16::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            identity: OnceLock::new(),
            started: SystemTime::now(),
            clock: Instant::now(),
            took: AtomicU64::new(0),
        });
        let mut entries = self.entries.lock();
        if entries.len() < self.capacity {
            entries.push(Arc::clone(&live));
        }
        drop(entries);
        InFlight { live, log: Arc::clone(self) }
    }

    pub fn entries(&self) -> Vec<LogEntry> {
        self.entries.lock().iter().map(|live| live.snapshot()).collect()
    }

    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.lock().iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    pub fn peak(&self) -> usize {
        self.peak.load(Ordering::Acquire)
    }

    /// Forgets entries, counts and peak.
    pub fn clear(&self) {
        self.entries.lock().clear();
        self.counts.lock().clear();
        self.peak.store(self.in_flight(), Ordering::Release);
    }
}

/// A request in flight; its drop ends it.
#[derive(Debug)]
pub struct InFlight {
    live: Arc<Live>,
    log: Arc<RequestLog>,
}

impl InFlight {
    pub fn received(&self, bytes: u64) {
        self.live.bytes_in.fetch_add(bytes, Ordering::AcqRel);
    }

    pub fn sent(&self, bytes: u64) {
        self.live.bytes_out.fetch_add(bytes, Ordering::AcqRel);
    }

    pub fn status(&self, status: u16) {
        self.live.status.store(status, Ordering::Release);
    }

    pub fn identity(&self, label: &str) {
        let _ = self.live.identity.set(label.to_owned());
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let nanos = u64::try_from(self.live.clock.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.live.took.store(nanos.max(1), Ordering::Release);
        self.log.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}
