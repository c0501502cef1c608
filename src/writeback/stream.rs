//! Parts that are uploaded while the file is still being written.
//!
//! A file that is written from its start gets a multipart upload as soon as it is too large for one PUT. What the
//! writer has left behind goes up part by part; close then waits for the tail only. A part that is written to again
//! is sent again at the end.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::begun::{abort_behind, begin};
use super::draft::Draft;
use super::meter::Meter;
use super::plan::stream_part;
use super::spool::{Note, Spool};
use crate::store::{ObjectHeaders, ObjectStore, Part, StoreError, StoreErrorKind, waits};

/// Parts of one file in flight.
pub(super) const IN_FLIGHT: usize = 8;

/// What the writer and the sender tell each other.
struct Shared {
    grown: Notify,
    /// Part numbers that the sender has begun with, and those written to since.
    begun: Mutex<(u16, BTreeSet<u16>)>,
    stop: watch::Sender<Stop>,
    part_size: u64,
    meter: Meter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    No,
    /// No new parts: the caller goes on from here.
    Finish,
    /// The upload is not wanted any more.
    Abandon,
}

/// The sender of one draft's parts.
pub(super) struct Stream {
    /// Where they are to go.
    pub key: String,
    shared: Arc<Shared>,
    task: JoinHandle<Result<Sent, StoreError>>,
}

/// What has been sent.
pub(super) struct Sent {
    pub id: String,
    pub note: Option<Note>,
    pub headers: ObjectHeaders,
    /// In ascending order, from 1 on, without a gap.
    pub parts: Vec<Part>,
    /// Those that were written to after they were sent.
    pub stale: BTreeSet<u16>,
}

impl Stream {
    /// Begins to upload a draft.
    pub fn start(
        draft: Arc<Draft>,
        (store, spool): (Arc<dyn ObjectStore>, Arc<Spool>),
        key: String,
        headers: ObjectHeaders,
        part_size: u64,
    ) -> Self {
        let shared = Arc::new(Shared {
            grown: Notify::new(),
            begun: Mutex::default(),
            stop: watch::Sender::new(Stop::No),
            part_size,
            meter: Meter::default(),
        });
        let sender = Arc::clone(&shared);
        let target = key.clone();
        let task = tokio::spawn(async move { sender.run(&draft, (&store, &spool), target, headers).await });
        Self { key, shared, task }
    }

    /// Bytes of this range changed.
    pub fn written(&self, range: &Range<u64>) {
        let mut begun = self.shared.begun.lock();
        let (count, stale) = &mut *begun;
        let touched = (1..=*count)
            .rev()
            .take_while(|&number| stream_part(number, self.shared.part_size).end > range.start);
        for number in touched {
            if stream_part(number, self.shared.part_size).start < range.end {
                stale.insert(number);
            }
        }
        drop(begun);
        self.shared.grown.notify_one();
    }

    /// What counts the bytes that were sent.
    pub fn meter(&self) -> Meter {
        self.shared.meter.clone()
    }

    /// Ends the upload, in the background.
    pub fn abandon(self) {
        self.shared.stop.send_replace(Stop::Abandon);
        self.shared.grown.notify_one();
    }

    /// Waits for the parts under way. The draft must not change meanwhile.
    pub async fn finish(self) -> Result<Sent, StoreError> {
        self.shared.stop.send_replace(Stop::Finish);
        self.shared.grown.notify_one();
        // Only a server that is silent uses up the time of the operation that waits.
        let brings = |sent: &Result<Result<Sent, StoreError>, _>| !matches!(sent, Ok(Err(error)) if error.kind == StoreErrorKind::TimedOut);
        waits(self.task, brings).await.unwrap_or_else(|error| {
            Err(StoreError {
                kind: StoreErrorKind::Unavailable,
                operation: "UploadPart",
                key: String::new(),
                status: 0,
                code: String::new(),
                message: error.to_string(),
            })
        })
    }
}

impl Shared {
    async fn run(
        &self,
        draft: &Arc<Draft>,
        (store, spool): (&Arc<dyn ObjectStore>, &Arc<Spool>),
        key: String,
        headers: ObjectHeaders,
    ) -> Result<Sent, StoreError> {
        let (id, note) = begin(store, spool, &key, &headers).await?;
        let parts = self.send(draft, &**store, &key, &id).await;
        let stop = *self.stop.borrow();
        match parts {
            Ok(parts) if stop != Stop::Abandon => {
                let stale = std::mem::take(&mut self.begun.lock().1);
                Ok(Sent { id, note, headers, parts, stale })
            }
            parts => {
                abort_behind(store, &key, &id, note);
                parts.map(|_| Sent {
                    id: String::new(),
                    note: None,
                    headers,
                    parts: vec![],
                    stale: BTreeSet::new(),
                })
            }
        }
    }

    async fn send(
        &self,
        draft: &Arc<Draft>,
        store: &dyn ObjectStore,
        key: &str,
        id: &str,
    ) -> Result<Vec<Part>, StoreError> {
        let mut stop = self.stop.subscribe();
        let mut sending = FuturesUnordered::new();
        let mut parts = Vec::new();
        loop {
            while *stop.borrow_and_update() == Stop::No && sending.len() < IN_FLIGHT {
                let Some((number, range)) = self.next(draft) else { break };
                let section = self.meter.section(draft, range).map_err(|error| unopened(key, &error))?;
                sending.push(async move { store.upload_part(key, id, number, &section).await });
            }
            let stopping = *stop.borrow();
            if stopping == Stop::Abandon || (stopping == Stop::Finish && sending.is_empty()) {
                break;
            }
            tokio::select! {
                Some(part) = sending.next() => parts.push(part?),
                () = self.grown.notified() => {}
            }
        }
        parts.sort_by_key(|part: &Part| part.number);
        Ok(parts)
    }

    /// The next part that the writer has left behind.
    fn next(&self, draft: &Draft) -> Option<(u16, Range<u64>)> {
        // Before the part is read: what is written from now on makes it stale.
        let state = draft.state();
        let mut begun = self.begun.lock();
        let number = begun.0 + 1;
        let range = stream_part(number, self.part_size);
        if state.size <= range.end || !state.local.contains(range.clone()) {
            return None;
        }
        begun.0 = number;
        Some((number, range))
    }
}

/// A part of a spool file that cannot be opened now: the file is sent again later.
fn unopened(key: &str, error: &io::Error) -> StoreError {
    StoreError {
        kind: StoreErrorKind::Unavailable,
        operation: "UploadPart",
        key: key.to_owned(),
        status: 0,
        code: String::new(),
        message: format!("cannot open the file in the spool: {error}"),
    }
}
