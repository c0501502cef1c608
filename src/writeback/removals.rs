//! Objects that are deleted behind the caller's back (`--write-back`): gathered for a moment, deleted in batches,
//! each on record in the spool until the server has answered.
//!
//! What puts an object in the place of one that is to go waits until it is gone ([`Removals::settled`]). Lock rank:
//! leaf, never held across an await.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::delay::Delay;
use super::spool::Note;
use super::uploaded::is_final;
use crate::name;
use crate::store::{ObjectStore, StoreError, StoreErrorKind};

/// Objects that one request deletes.
const BATCH: usize = 1000;

/// After these, a request that failed is sent again.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_mins(5);

/// An object to be deleted.
pub struct Removal {
    /// The prefix of its folder, and its name there.
    pub prefix: String,
    pub name: Box<[u8]>,
    pub note: Note,
    /// Queued by an earlier mount: it goes only if it is what it was then.
    pub is_recovered: bool,
}

/// Learns what became of removals.
#[async_trait]
pub trait Watcher: Send + Sync {
    /// An object is gone, or stays for this reason.
    fn removed(&self, removal: &Removal, refused: Option<&StoreError>);
    /// The last objects are about to leave a folder that is to stay.
    async fn keep(&self, prefix: &str);
}

#[derive(Default)]
struct State {
    waiting: BTreeMap<String, Removal>,
    /// Those that wait for an upload of the same key to end, by key and the draft that it is of.
    held: BTreeMap<(String, String), Removal>,
    sending: BTreeSet<String>,
    is_running: bool,
    /// Somebody waits: no further delay.
    hurries: bool,
    /// The last attempt, if it failed, and how many did before it.
    failure: Option<(u32, StoreError)>,
}

struct Inner {
    store: Arc<dyn ObjectStore>,
    delay: Delay,
    state: Mutex<State>,
    wake: Notify,
    /// Counts attempts that ended.
    rounds: watch::Sender<u64>,
    watcher: OnceLock<Weak<dyn Watcher>>,
}

/// See the module.
#[derive(Clone)]
pub struct Removals(Arc<Inner>);

impl Removal {
    #[must_use]
    pub fn key(&self) -> &str {
        &self.note.record.key
    }
}

impl State {
    fn len(&self) -> usize {
        self.waiting.len() + self.held.len() + self.sending.len()
    }

    /// Whether a key, or anything below a prefix, is to go; but for what waits for an upload of this draft.
    fn concerns(&self, key: &str, draft: Option<&str>) -> bool {
        let is_it = |other: &str| if key.ends_with('/') { other.starts_with(key) } else { other == key };
        let from = key.to_owned();
        self.waiting.range(from.clone()..).next().is_some_and(|(other, _)| is_it(other))
            || self.sending.range(from.clone()..).next().is_some_and(|other| is_it(other))
            || self
                .held
                .range((from, String::new())..)
                .take_while(|((other, _), _)| is_it(other))
                .any(|((_, of), _)| draft != Some(of))
    }
}

impl Removals {
    /// A queue that gathers for `delay`.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, delay: Delay) -> Self {
        Self(Arc::new(Inner {
            store,
            delay,
            state: Mutex::default(),
            wake: Notify::new(),
            rounds: watch::Sender::new(0),
            watcher: OnceLock::new(),
        }))
    }

    /// Who is told. Has effect once.
    pub fn watch(&self, watcher: Weak<dyn Watcher>) {
        drop(self.0.watcher.set(watcher));
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.0.state.lock().len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Queues a removal.
    pub fn push(&self, removal: Removal) {
        let mut state = self.0.state.lock();
        if let Some(earlier) = state.waiting.insert(removal.key().to_owned(), removal) {
            earlier.note.remove();
        }
        if state.waiting.len() >= BATCH {
            state.hurries = true;
            self.0.wake.notify_one();
        }
        if !std::mem::replace(&mut state.is_running, true) {
            drop(tokio::spawn(Arc::clone(&self.0).run()));
        }
    }

    /// Queues a removal of what an upload may be putting there now. It waits until [`release`](Self::release).
    pub fn hold(&self, draft: &str, removal: Removal) {
        let place = (removal.key().to_owned(), draft.to_owned());
        self.0.state.lock().held.insert(place, removal);
    }

    /// The upload that a removal waits for has ended, and has put something there, or not.
    pub fn release(&self, key: &str, draft: &str, is_stored: bool) {
        let Some(removal) = self.0.state.lock().held.remove(&(key.to_owned(), draft.to_owned())) else {
            return;
        };
        if is_stored {
            return self.push(removal);
        }
        removal.note.remove();
        if let Some(watcher) = self.0.watcher.get().and_then(Weak::upgrade) {
            watcher.removed(&removal, None);
        }
        self.0.rounds.send_modify(|rounds| *rounds += 1);
    }

    /// Whether a key, or anything below a prefix, is still to go.
    #[must_use]
    pub fn concern(&self, key: &str) -> bool {
        self.0.state.lock().concerns(key, None)
    }

    /// Waits until a key, or everything below a prefix, is gone as far as it was to go.
    ///
    /// # Errors
    /// Why the server cannot be asked now.
    pub async fn settled(&self, key: &str) -> Result<(), StoreError> {
        self.settled_but_for(key, None).await
    }

    /// The same for an upload of a draft: what waits for its end is not waited for.
    ///
    /// # Errors
    /// As [`settled`](Self::settled).
    pub async fn settled_but_for(&self, key: &str, draft: Option<&str>) -> Result<(), StoreError> {
        let mut rounds = self.0.rounds.subscribe();
        loop {
            let before = *rounds.borrow_and_update();
            {
                let mut state = self.0.state.lock();
                if !state.concerns(key, draft) {
                    return Ok(());
                }
                state.hurries = true;
            }
            self.0.wake.notify_one();
            while *rounds.borrow_and_update() == before {
                if rounds.changed().await.is_err() {
                    return Ok(());
                }
            }
            if let Some((_, error)) = &self.0.state.lock().failure {
                return Err(error.clone());
            }
        }
    }

    /// Waits until nothing is left.
    ///
    /// # Errors
    /// How many removals are left at `until`.
    pub async fn drain(&self, until: Instant, progress: impl Fn(usize)) -> Result<(), usize> {
        let mut rounds = self.0.rounds.subscribe();
        loop {
            rounds.borrow_and_update();
            let left = {
                let mut state = self.0.state.lock();
                state.hurries = true;
                state.len()
            };
            progress(left);
            if left == 0 {
                return Ok(());
            }
            self.0.wake.notify_one();
            if tokio::time::timeout_at(until, rounds.changed()).await.is_err() {
                return Err(self.len());
            }
        }
    }
}

impl Inner {
    async fn run(self: Arc<Self>) {
        loop {
            self.pause().await;
            let batch = {
                let mut state = self.state.lock();
                let mut batch = Vec::new();
                while batch.len() < BATCH
                    && let Some((key, removal)) = state.waiting.pop_first()
                {
                    state.sending.insert(key);
                    batch.push(removal);
                }
                if batch.is_empty() {
                    state.is_running = false;
                    state.hurries = false;
                    return;
                }
                batch
            };
            let result = self.delete(&batch).await;
            self.ended(batch, result);
            self.rounds.send_modify(|rounds| *rounds += 1);
        }
    }

    /// The time in which removals gather, or that a server in trouble is left alone.
    async fn pause(&self) {
        let (failures, hurries) = {
            let state = self.state.lock();
            (state.failure.as_ref().map(|(count, _)| *count), state.hurries || state.waiting.len() >= BATCH)
        };
        let pause = match failures {
            Some(count) => (FIRST_PAUSE * 2u32.pow(count.min(9))).min(MAX_PAUSE),
            None if hurries => return,
            None => self.delay.now(),
        };
        let until = Instant::now() + pause;
        let soonest = Instant::now() + if failures.is_some() { FIRST_PAUSE } else { Duration::ZERO };
        tokio::select! {
            () = tokio::time::sleep_until(until) => {}
            () = async { self.wake.notified().await; tokio::time::sleep_until(soonest).await } => {}
        }
    }

    /// The refusals by key; an error where nothing is known of any of them.
    async fn delete(&self, batch: &[Removal]) -> Result<BTreeMap<String, StoreError>, StoreError> {
        let mut keys = Vec::with_capacity(batch.len());
        for removal in batch {
            if !removal.is_recovered || self.is_unchanged(removal).await? {
                keys.push(removal.key().to_owned());
            }
        }
        self.keep_folders(batch).await;
        match keys.as_slice() {
            [] => Ok(BTreeMap::new()),
            [key] => match self.store.delete(key).await {
                Ok(()) => Ok(BTreeMap::new()),
                Err(error) if is_final(error.kind) => Ok(BTreeMap::from([(key.clone(), error)])),
                Err(error) => Err(error),
            },
            keys => match self.store.delete_many(keys).await {
                Ok(refused) => Ok(refused.into_iter().map(|error| (error.key.clone(), error)).collect()),
                Err(error) if is_final(error.kind) => {
                    Ok(keys.iter().map(|key| (key.clone(), error.clone())).collect())
                }
                Err(error) => Err(error),
            },
        }
    }

    /// What an earlier mount wanted to delete may have been replaced since.
    async fn is_unchanged(&self, removal: &Removal) -> Result<bool, StoreError> {
        let Some(expected) = removal.note.record.expected() else { return Ok(true) };
        match self.store.head(removal.key()).await {
            Ok(head) if expected.is(&head) => Ok(true),
            Ok(_) => {
                tracing::warn!(key = removal.key(), "not deleted: somebody has replaced it since");
                Ok(false)
            }
            Err(error) if error.kind == StoreErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Folders that lose their last object here stay, unless they are to go themselves.
    async fn keep_folders(&self, batch: &[Removal]) {
        let Some(watcher) = self.watcher.get().and_then(Weak::upgrade) else { return };
        let folders: BTreeSet<&str> = batch
            .iter()
            .filter(|removal| removal.note.record.keeps_folder)
            .map(|removal| removal.prefix.as_str())
            .collect();
        for folder in folders {
            let placeholder = format!("{folder}{}", name::PLACEHOLDER);
            if !self.state.lock().concerns(&placeholder, None) {
                watcher.keep(folder).await;
            }
        }
    }

    fn ended(&self, batch: Vec<Removal>, result: Result<BTreeMap<String, StoreError>, StoreError>) {
        let mut state = self.state.lock();
        for removal in &batch {
            state.sending.remove(removal.key());
        }
        match result {
            Ok(refused) => {
                state.failure = None;
                drop(state);
                let watcher = self.watcher.get().and_then(Weak::upgrade);
                for removal in batch {
                    removal.note.remove();
                    if let Some(watcher) = &watcher {
                        watcher.removed(&removal, refused.get(removal.key()));
                    }
                }
            }
            Err(error) => {
                tracing::warn!(objects = batch.len(), %error, "not deleted yet; trying again");
                let count = state.failure.as_ref().map_or(0, |(count, _)| count + 1);
                state.failure = Some((count, error));
                for removal in batch {
                    match state.waiting.entry(removal.key().to_owned()) {
                        Entry::Vacant(place) => drop(place.insert(removal)),
                        Entry::Occupied(_) => removal.note.remove(),
                    }
                }
            }
        }
    }
}
