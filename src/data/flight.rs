//! One GET under way: fills the cache block by block, and tells those who wait.
//!
//! A flight lives as long as somebody holds it; when the last holder is gone the request is aborted. It reads
//! no further than it is allowed to, so that one open-ended request can serve a slow reader: the pause is on
//! our side, and TCP holds the server back.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::fetch::Shared;
use super::{BLOCK, ObjectId, ReadError};
use crate::etag::ETag;
use crate::store::{GetBody, ObjectHead, StoreError, StoreErrorKind};

/// A flight that nobody lets go on for this long gives its connection back.
const IDLE: Duration = Duration::from_secs(10);

/// How many blocks ahead of where a flight is it is worth waiting for: 16 MiB.
pub(super) const REACH: u32 = 128;

/// A failed body is asked for again this often without a byte of progress.
const BARREN_ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(50);

/// How an answer ended before its time.
enum Ended {
    /// In the middle of the body: the rest can be asked for.
    BrokeOff(StoreError),
    ForGood(ReadError),
}

impl From<ReadError> for Ended {
    fn from(error: ReadError) -> Self {
        Self::ForGood(error)
    }
}

#[derive(Debug, Clone)]
pub(super) enum State {
    /// Blocks before this one are in the cache.
    Flying(u32),
    /// Over, in order or because nobody let it go on.
    Landed,
    Failed(ReadError),
}

/// See the module.
pub(super) struct Flight {
    blocks: Range<u32>,
    /// How many blocks ahead of where it is others wait for it.
    reach: u32,
    state: watch::Receiver<State>,
    allowed: watch::Sender<u32>,
    abort: AbortHandle,
    /// Bytes taken from the read-ahead budget, given back at the end.
    reserved: u64,
    budget: Arc<AtomicU64>,
}

impl Flight {
    /// Sends a GET for these blocks, of which those before `allowed` are wanted now.
    pub(super) fn launch(
        shared: &Arc<Shared>,
        object: &ObjectId,
        blocks: Range<u32>,
        (allowed, reach): (u32, u32),
        reserved: u64,
    ) -> Arc<Self> {
        let (state_sender, state) = watch::channel(State::Flying(blocks.start));
        let (allowed, allowed_receiver) = watch::channel(allowed);
        let pilot = Pilot {
            shared: Arc::clone(shared),
            object: object.clone(),
            next: blocks.start,
            end: blocks.end,
            state: state_sender,
            allowed: allowed_receiver,
        };
        let abort = tokio::spawn(pilot.fly()).abort_handle();
        let budget = Arc::clone(&shared.ahead);
        Arc::new(Self { blocks, reach, state, allowed, abort, reserved, budget })
    }

    /// Whether the block is soon to come from this flight. What lies far ahead in a long stream is sooner had
    /// by a request of its own.
    pub(super) fn will_deliver(&self, block: u32) -> bool {
        self.blocks.contains(&block)
            && matches!(&*self.state.borrow(), State::Flying(next) if (*next..next.saturating_add(self.reach)).contains(&block))
    }

    pub(super) fn end(&self) -> u32 {
        self.blocks.end
    }

    /// Lets the flight go on to `block`.
    pub(super) fn allow(&self, block: u32) {
        self.allowed.send_if_modified(|allowed| {
            let more = block > *allowed;
            *allowed = block.max(*allowed);
            more
        });
    }

    /// Waits until the block has come into the cache, or the flight has ended without it.
    pub(super) async fn wait(&self, block: u32) -> Result<(), ReadError> {
        self.allow(block + 1);
        let mut state = self.state.clone();
        loop {
            match &*state.borrow_and_update() {
                State::Flying(next) if block < *next => return Ok(()),
                State::Flying(_) => {}
                State::Landed => return Ok(()),
                State::Failed(error) => return Err(error.clone()),
            }
            if state.changed().await.is_err() {
                return Ok(());
            }
        }
    }
}

impl Flight {
    /// Waits for the end of the flight, whatever it is.
    pub(super) async fn landed(&self) {
        let mut state = self.state.clone();
        // An error: the task is gone.
        let _end = state.wait_for(|state| !matches!(state, State::Flying(_))).await;
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.abort.abort();
        self.budget.fetch_add(self.reserved, Ordering::Relaxed);
    }
}

/// The task that reads the body.
struct Pilot {
    shared: Arc<Shared>,
    object: ObjectId,
    next: u32,
    end: u32,
    state: watch::Sender<State>,
    allowed: watch::Receiver<u32>,
}

impl Pilot {
    async fn fly(mut self) {
        let mut barren = 0;
        loop {
            let before = self.next;
            let error = match self.stretch().await {
                Ok(()) => {
                    self.state.send_replace(State::Landed);
                    return;
                }
                Err(Ended::ForGood(error)) => {
                    self.state.send_replace(State::Failed(error));
                    return;
                }
                Err(Ended::BrokeOff(error)) => error,
            };
            // Goes on where the body broke off, unless that leads nowhere.
            barren = if self.next > before { 0 } else { barren + 1 };
            if barren >= BARREN_ATTEMPTS {
                self.state.send_replace(State::Failed(error.into()));
                return;
            }
            tracing::debug!(%error, block = self.next, "the body broke off, going on");
            self.shared.stats.retries.add(1);
            tokio::time::sleep(PAUSE * barren * barren).await;
        }
    }

    /// Reads one answer to its end, or until nobody has wanted more for a while.
    async fn stretch(&mut self) -> Result<(), Ended> {
        let start = u64::from(self.next) * BLOCK;
        let end = (u64::from(self.end) * BLOCK).min(self.object.size);
        let whole = start == 0 && end == self.object.size;
        let range = (!whole).then_some(start..end);
        let mut answer = request(&self.shared, &self.object, range).await?;
        self.receive(&mut answer).await.map_err(|error| match error.kind {
            StoreErrorKind::Unavailable => Ended::BrokeOff(error),
            _ => Ended::ForGood(error.into()),
        })
    }

    async fn receive(&mut self, answer: &mut GetBody) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.shared);
        let mut arriving = shared.flow.begin();
        let mut block = BytesMut::new();
        while self.next < self.end {
            let must_wait = self.next >= *self.allowed.borrow();
            if must_wait {
                answer.body.pause();
                arriving.pause();
            }
            if !self.may_go_on().await {
                self.end = self.next;
                return Ok(());
            }
            let Some(mut piece) = answer.body.next().await? else {
                // Shorter than asked for, as a backend may answer: what is missing is asked for again.
                return Err(ended_early(&self.object.key));
            };
            arriving.arrived(piece.len() as u64, Instant::now());
            while !piece.is_empty() && self.next < self.end {
                let full = self.object.block_len(self.next);
                if block.is_empty() {
                    block = self.shared.cache.buffer(full);
                }
                let take = piece.len().min(full - block.len());
                block.extend_from_slice(&piece.split_to(take));
                if block.len() == full {
                    self.deliver(std::mem::take(&mut block).freeze());
                }
            }
        }
        // Reads the end of the body, so that the connection can serve the next request.
        let _end = answer.body.next().await;
        Ok(())
    }

    fn deliver(&mut self, block: Bytes) {
        self.shared.cache.put(&self.object, self.next, block);
        self.next += 1;
        self.state.send_replace(State::Flying(self.next));
    }

    /// Waits for leave to read the next block.
    async fn may_go_on(&mut self) -> bool {
        let next = self.next;
        let leave = self.allowed.wait_for(|allowed| next < *allowed);
        matches!(tokio::time::timeout(IDLE, leave).await, Ok(Ok(_)))
    }
}

/// Gets a range by a request of its own, past the cache.
pub(super) async fn fetch_range(
    shared: &Shared,
    object: &ObjectId,
    range: Range<u64>,
) -> Result<Bytes, ReadError> {
    let mut bytes = BytesMut::with_capacity(usize::try_from(range.end - range.start).unwrap_or(0));
    let mut barren = 0;
    loop {
        let before = bytes.len();
        let rest = range.start + before as u64..range.end;
        let error = match fetch_rest(shared, object, rest, &mut bytes).await {
            Ok(()) => return Ok(bytes.freeze()),
            Err(Ended::ForGood(error)) => return Err(error),
            Err(Ended::BrokeOff(error)) => error,
        };
        barren = if bytes.len() > before { 0 } else { barren + 1 };
        if barren >= BARREN_ATTEMPTS {
            return Err(error.into());
        }
        tracing::debug!(%error, "the body broke off, going on");
        shared.stats.retries.add(1);
        tokio::time::sleep(PAUSE * barren * barren).await;
    }
}

async fn fetch_rest(
    shared: &Shared,
    object: &ObjectId,
    range: Range<u64>,
    bytes: &mut BytesMut,
) -> Result<(), Ended> {
    let wanted = range.end - range.start;
    let mut answer = request(shared, object, Some(range)).await?;
    let before = bytes.len();
    let broke_off = |error: StoreError| match error.kind {
        StoreErrorKind::Unavailable => Ended::BrokeOff(error),
        _ => Ended::ForGood(error.into()),
    };
    while let Some(piece) = answer.body.next().await.map_err(broke_off)? {
        bytes.extend_from_slice(&piece);
    }
    if (bytes.len() - before) as u64 == wanted {
        return Ok(());
    }
    Err(Ended::BrokeOff(ended_early(&object.key)))
}

/// Sends a GET; the answer is of the version that is wanted.
async fn request(
    shared: &Shared,
    object: &ObjectId,
    range: Option<Range<u64>>,
) -> Result<GetBody, ReadError> {
    let answer = shared.store.get(&object.key, range, object.size).await.map_err(|error| {
        // The object is shorter than the version we know. Other failures have had their retries.
        if error.kind == StoreErrorKind::RangeNotSatisfiable { changed_unseen(&error) } else { error.into() }
    })?;
    tracing::debug!(key = %object.key, first_byte = ?answer.first_byte, "answered");
    shared.pace.learn(object.size, answer.first_byte, shared.store.round_trip());
    if answer.head.etag != object.etag || answer.head.size != object.size {
        return Err(ReadError::Changed(Arc::new(answer.head)));
    }
    shared.seen(object, &answer.head);
    Ok(answer)
}

fn ended_early(key: &str) -> StoreError {
    StoreError {
        kind: StoreErrorKind::Unavailable,
        operation: "GetObject",
        key: key.to_owned(),
        status: 0,
        code: String::new(),
        message: "the answer was shorter than asked for".to_owned(),
    }
}

/// The range begins behind the end: another, shorter version, of which the answer tells nothing more.
fn changed_unseen(error: &StoreError) -> ReadError {
    tracing::debug!(%error, "the object has become shorter");
    ReadError::Changed(Arc::new(ObjectHead {
        size: 0,
        etag: ETag::none(),
        modified: None,
        content_type: None,
        cache_control: None,
        metadata: BTreeMap::new(),
    }))
}
