//! Reading ahead from file to file: who goes through a folder in the order of its listing has the next files sent
//! for before it asks.
//!
//! A cursor is one pass through one folder. It begins with a file that is read, proves itself when the next file is
//! read as well, and from then on may hold as many bytes unread as it has read: so the pass catches up in doubling
//! steps, and one that stops has wasted at most what it used. The same bound holds for the whole mount: bytes that
//! were fetched ahead and not read, or not yet, never exceed those that were read. A lone read sends for nothing.
//!
//! Lock rank: `state` comes before the fetcher's `flights`; never held across an await.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::fetch::Sent;
use super::reader::{WHOLE, block_after};
use super::{Fetcher, ObjectId};
use crate::stats::Stats;

/// Passes that are followed at once: some programs read many folders, or parts of one, in parallel.
const CURSORS: usize = 64;
/// How far behind the furthest file of a pass another reader of the same pass may be.
const SLACK: usize = 32;
/// How far ahead the next file of a pass may be: a folder or an empty file may stand between two.
const STEP: usize = 2;
/// What a pass may hold unread before it has read as much: it costs a network nothing.
const FLOOR: u64 = 64 << 10;
/// What was not read for this long will not be.
const PATIENCE: Duration = Duration::from_secs(10);
/// A pass that ended this recently goes on with the first file of another folder.
const WALK: Duration = Duration::from_secs(1);

/// One pass through one folder.
struct Cursor {
    id: u64,
    folder: u64,
    /// The furthest file that was read.
    reached: usize,
    /// The first one that was not considered yet.
    next: usize,
    is_proven: bool,
    /// Bytes it has read, fetched ahead or not.
    read: u64,
    /// Bytes fetched ahead and not read yet, or never.
    unread: u64,
    wasted: u64,
}

/// A file that was sent for and not read yet.
struct Unread {
    cursor: u64,
    position: usize,
    bytes: u64,
    since: Instant,
}

#[derive(Default)]
struct State {
    /// The most recent one last.
    cursors: Vec<Cursor>,
    next_id: u64,
    unread: HashMap<[u8; 16], Unread>,
    unread_bytes: u64,
    read: u64,
    wasted: u64,
    /// When a proven pass last went on.
    walked: Option<Instant>,
}

/// A place in a listing from where on files may be sent for.
pub struct Leave {
    cursor: u64,
    pub from: usize,
}

/// See the module.
pub struct Lookahead {
    fetcher: Fetcher,
    stats: Arc<Stats>,
    state: Mutex<State>,
    /// Bytes unread at most.
    budget: u64,
    /// Requests of its own in flight at most.
    requests: u64,
}

/// What is fetched of a file: all of a small one, else what its reader's first read would fetch.
fn head(object: &ObjectId) -> u64 {
    object.size.min(WHOLE)
}

impl Lookahead {
    /// Fetches at most `budget` bytes ahead, with at most `requests` requests in flight.
    #[must_use]
    pub fn new(fetcher: Fetcher, stats: Arc<Stats>, budget: u64, requests: usize) -> Self {
        Self { fetcher, stats, state: Mutex::default(), budget, requests: requests.max(1) as u64 }
    }

    /// Notes that the file at a position of a folder's listing is read for the first time since it was opened.
    /// `is_first`: no other file stands before it. `None`: nothing is to be sent for.
    pub fn first_read(
        &self,
        folder: u64,
        position: usize,
        is_first: bool,
        object: &ObjectId,
    ) -> Option<Leave> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let bytes = head(object);
        state.read += bytes;
        self.take(state, object);
        let cursor = match state.find(folder, position) {
            Some(index) => {
                let mut cursor = state.cursors.remove(index);
                cursor.is_proven |= position > cursor.reached;
                cursor.reached = cursor.reached.max(position);
                cursor
            }
            None => state.begin(folder, position, is_first),
        };
        let (id, reached) = (cursor.id, cursor.reached);
        state.cursors.push(Cursor {
            read: cursor.read + bytes,
            next: cursor.next.max(reached + 1),
            ..cursor
        });
        self.give_up(state, |unread| unread.cursor == id && unread.position + SLACK < reached);
        let cursor = state.cursors.last().filter(|cursor| cursor.is_proven)?;
        state.walked = Some(Instant::now());
        Some(Leave { cursor: id, from: cursor.next })
    }

    /// Sends for a file. `false`: no more for now.
    pub fn send(&self, leave: &Leave, position: usize, object: &ObjectId) -> bool {
        let bytes = head(object);
        let mut state = self.state.lock();
        let state = &mut *state;
        if self.stats.lookahead_in_flight.get() >= self.requests
            || state.unread_bytes + bytes > self.budget
            || state.unread_bytes + state.wasted + bytes > state.read
        {
            return false;
        }
        let Some(cursor) = state.cursors.iter_mut().rev().find(|cursor| cursor.id == leave.cursor) else {
            return false;
        };
        if cursor.unread + cursor.wasted + bytes > cursor.read.max(FLOOR) {
            return false;
        }
        match self.fetcher.send_ahead(object, 0..block_after(bytes)) {
            Sent::NoBudget => return false,
            Sent::NotNeeded => {}
            Sent::Flights(flights) => {
                cursor.unread += bytes;
                state.unread_bytes += bytes;
                self.stats.lookahead_bytes.add(bytes);
                self.stats.lookahead_in_flight.add(1);
                let unread = Unread { cursor: cursor.id, position, bytes, since: Instant::now() };
                state.unread.insert(object.hash, unread);
                let counters = Arc::clone(&self.stats);
                tokio::spawn(async move {
                    for flight in flights {
                        flight.landed().await;
                    }
                    counters.lookahead_in_flight.sub(1);
                });
            }
        }
        cursor.next = position + 1;
        true
    }

    /// Counts what has waited for too long.
    pub fn sweep(&self) {
        self.give_up(&mut self.state.lock(), |unread| unread.since.elapsed() > PATIENCE);
    }

    /// A file is read: what was fetched of it has been of use, if it is still there.
    fn take(&self, state: &mut State, object: &ObjectId) {
        let Some(unread) = state.unread.remove(&object.hash) else { return };
        let is_there = self.fetcher.is_coming(object, &(0..block_after(unread.bytes)));
        state.settle(&unread, !is_there);
        let counter =
            if is_there { &self.stats.lookahead_bytes_used } else { &self.stats.lookahead_bytes_wasted };
        counter.add(unread.bytes);
    }

    fn give_up(&self, state: &mut State, is_lost: impl Fn(&Unread) -> bool) {
        // What has aged goes along whenever somebody looks.
        let gone = state
            .unread
            .extract_if(|_, unread| is_lost(unread) || unread.since.elapsed() > PATIENCE)
            .map(|(_, unread)| unread)
            .collect::<Vec<_>>();
        for unread in gone {
            state.settle(&unread, true);
            self.stats.lookahead_bytes_wasted.add(unread.bytes);
        }
    }
}

impl State {
    /// The pass that a file belongs to: the one that is nearest.
    fn find(&self, folder: u64, position: usize) -> Option<usize> {
        let is_near = |cursor: &Cursor| {
            let last = cursor.next.max(cursor.reached + 1) - 1 + STEP;
            cursor.folder == folder && (cursor.reached.saturating_sub(SLACK)..=last).contains(&position)
        };
        let near = self.cursors.iter().enumerate().filter(|(_, cursor)| is_near(cursor));
        near.min_by_key(|(_, cursor)| cursor.reached.abs_diff(position)).map(|(index, _)| index)
    }

    fn begin(&mut self, folder: u64, position: usize, is_first: bool) -> Cursor {
        if self.cursors.len() >= CURSORS {
            self.cursors.remove(0);
        }
        self.next_id += 1;
        let is_walk = is_first && self.walked.is_some_and(|at| at.elapsed() < WALK);
        Cursor {
            id: self.next_id,
            folder,
            reached: position,
            next: position + 1,
            is_proven: is_walk,
            read: 0,
            unread: 0,
            wasted: 0,
        }
    }

    /// A file that was sent for is read, or given up.
    fn settle(&mut self, unread: &Unread, is_wasted: bool) {
        self.unread_bytes -= unread.bytes;
        self.wasted += if is_wasted { unread.bytes } else { 0 };
        if let Some(cursor) = self.cursors.iter_mut().find(|cursor| cursor.id == unread.cursor) {
            cursor.unread -= unread.bytes;
            cursor.wasted += if is_wasted { unread.bytes } else { 0 };
        }
    }
}
