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
    /// `bucket/key` a copy or a move is made from, as received.
    pub copy_source: Option<String>,
    /// Of uploads and copies of parts.
    pub part_number: Option<u32>,
    /// Of everything that concerns a multipart upload.
    pub upload_id: Option<String>,
    /// How many faults struck the request.
    pub faults: usize,
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
    arrival: Arrival,
    faults: AtomicUsize,
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
            operation: self.arrival.operation,
            bucket: self.arrival.bucket.clone(),
            key: self.arrival.key.clone(),
            query: self.arrival.query.clone(),
            range: self.arrival.range.clone(),
            copy_source: self.arrival.copy_source.clone(),
            part_number: self.arrival.part_number,
            upload_id: self.arrival.upload_id.clone(),
            faults: self.faults.load(Ordering::Acquire),
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
    tallies: Mutex<BTreeMap<&'static str, Tally>>,
    in_flight: AtomicUsize,
    peak: AtomicUsize,
    capacity: usize,
    totals: Mutex<Totals>,
}

/// What all requests together moved and did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Request body bytes received.
    pub bytes_in: u64,
    /// Response body bytes handed to connections.
    pub bytes_out: u64,
    /// When the last change was answered with success.
    pub last_change: Option<SystemTime>,
}

/// Requests of one operation.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    count: u64,
    in_flight: usize,
    peak: usize,
}

/// What is known of a request on arrival.
#[derive(Debug, Default)]
pub struct Arrival {
    pub operation: &'static str,
    pub bucket: String,
    pub key: String,
    pub query: String,
    pub range: Option<String>,
    pub copy_source: Option<String>,
    pub part_number: Option<u32>,
    pub upload_id: Option<String>,
}

impl RequestLog {
    pub fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            entries: Mutex::default(),
            tallies: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            capacity,
            totals: Mutex::default(),
        })
    }

    /// Records an arrival; the request is in flight until the handle is dropped.
    pub fn begin(self: &Arc<Self>, arrival: Arrival) -> InFlight {
        let now = self.in_flight.fetch_add(1, Ordering::AcqRel) + 1;
        self.peak.fetch_max(now, Ordering::AcqRel);
        let mut tallies = self.tallies.lock();
        let tally = tallies.entry(arrival.operation).or_default();
        tally.count += 1;
        tally.in_flight += 1;
        tally.peak = tally.peak.max(tally.in_flight);
        drop(tallies);
        let live = Arc::new(Live {
            arrival,
            faults: AtomicUsize::new(0),
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
        let tallies = self.tallies.lock();
        let asked = tallies.iter().filter(|(_, tally)| tally.count > 0);
        asked.map(|(name, tally)| ((*name).to_owned(), tally.count)).collect()
    }

    /// Most requests of an operation that were in flight at once.
    pub fn peak_of(&self, operation: &str) -> usize {
        self.tallies.lock().get(operation).map_or(0, |tally| tally.peak)
    }

    pub fn totals(&self) -> Totals {
        *self.totals.lock()
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    pub fn peak(&self) -> usize {
        self.peak.load(Ordering::Acquire)
    }

    /// Forgets entries, counts and peaks.
    pub fn clear(&self) {
        self.entries.lock().clear();
        for tally in self.tallies.lock().values_mut() {
            *tally = Tally { count: 0, in_flight: tally.in_flight, peak: tally.in_flight };
        }
        self.peak.store(self.in_flight(), Ordering::Release);
        *self.totals.lock() = Totals::default();
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
        self.log.totals.lock().bytes_in += bytes;
    }

    pub fn sent(&self, bytes: u64) {
        self.live.bytes_out.fetch_add(bytes, Ordering::AcqRel);
        self.log.totals.lock().bytes_out += bytes;
    }

    pub fn status(&self, status: u16) {
        self.live.status.store(status, Ordering::Release);
    }

    /// The request has changed what is stored.
    pub fn changed(&self) {
        self.log.totals.lock().last_change = Some(SystemTime::now());
    }

    pub fn faults(&self, struck: usize) {
        self.live.faults.store(struck, Ordering::Release);
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
        if let Some(tally) = self.log.tallies.lock().get_mut(self.live.arrival.operation) {
            tally.in_flight -= 1;
        }
    }
}
