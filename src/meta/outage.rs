//! Lookups while no server answers, on a mount that keeps changes here until it does (`--write-back`): files go on being
//! made and changed in folders that are known, though what is known has aged.
//!
//! An outage begins with a lookup that fails, or that has waited for a while in which no request was answered. From
//! then on lookups are answered at once by what was last known, and now and then one is asked behind the caller's back.
//! The outage ends with the first request that is answered. Lock rank: leaf.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::dir_cache::{DirCache, Inner, Lookup};
use crate::stats::Stats;
use crate::store::{StoreError, StoreErrorKind};

/// How long a lookup waits for a server that answers nothing at all.
const SILENCE: Duration = Duration::from_secs(3);
/// Between two questions behind the caller's back.
const PAUSE: Duration = Duration::from_secs(5);

/// How long the kernel may go on with an answer that has aged.
const RECALLED: Duration = Duration::from_secs(1);

struct Since {
    /// Requests that were answered until it began.
    answers: u64,
    next_question: Instant,
}

/// See the module.
pub(super) struct Outage {
    is_bridged: bool,
    stats: Arc<Stats>,
    since: Mutex<Option<Since>>,
}

impl Outage {
    pub fn new(is_bridged: bool, stats: Arc<Stats>) -> Self {
        Self { is_bridged, stats, since: Mutex::new(None) }
    }

    pub fn is_on(&self) -> bool {
        let mut since = self.since.lock();
        if since.as_ref().is_some_and(|since| self.stats.answers.get() > since.answers) {
            *since = None;
        }
        since.is_some()
    }

    pub fn begins(&self) {
        let mut since = self.since.lock();
        if self.is_bridged && since.is_none() {
            tracing::warn!("no server answers: lookups are answered by what was last known");
            let next_question = Instant::now() + PAUSE;
            *since = Some(Since { answers: self.stats.answers.get(), next_question });
        }
    }

    pub fn ends(&self) {
        *self.since.lock() = None;
    }

    /// Whether it is time to ask the server again. Whoever hears so is the one to ask.
    pub fn is_question_due(&self) -> bool {
        let mut since = self.since.lock();
        let Some(since) = since.as_mut().filter(|since| Instant::now() >= since.next_question) else {
            return false;
        };
        since.next_question = Instant::now() + PAUSE;
        true
    }

    /// Whether an error means that no server answers, to a mount that goes on then.
    pub fn is_one(&self, error: &StoreError) -> bool {
        self.is_bridged && matches!(error.kind, StoreErrorKind::Unavailable | StoreErrorKind::TimedOut)
    }

    /// Ends when no request was answered for a while; never for a mount that does not go on then.
    pub async fn silence(&self) {
        if !self.is_bridged {
            return std::future::pending().await;
        }
        loop {
            let answers = self.stats.answers.get();
            sleep(SILENCE).await;
            if self.stats.answers.get() == answers {
                return;
            }
        }
    }
}

impl DirCache {
    /// Asks; while no server answers, what was last known counts.
    pub(super) async fn ask_or_recall(&self, prefix: &str, name: &[u8]) -> Result<Lookup, StoreError> {
        let inner = &*self.0;
        if inner.outage.is_on()
            && let Some(answer) = inner.last_known(prefix, name)
        {
            if inner.outage.is_question_due() {
                let (cache, prefix, name) = (self.clone(), prefix.to_owned(), name.to_owned());
                tokio::spawn(async move {
                    if cache.ask(&prefix, &name).await.is_ok() {
                        cache.0.outage.ends();
                    }
                });
            }
            return Ok(answer);
        }
        let mut asking = std::pin::pin!(self.ask(prefix, name));
        let answer = tokio::select! {
            biased;
            answer = &mut asking => answer,
            () = inner.outage.silence() => match inner.last_known(prefix, name) {
                Some(answer) => {
                    inner.outage.begins();
                    return Ok(answer);
                }
                None => asking.await,
            },
        };
        match answer {
            Err(error) if inner.outage.is_one(&error) => {
                inner.outage.begins();
                inner.last_known(prefix, name).ok_or(error)
            }
            answer => answer,
        }
    }
}

impl Inner {
    /// What a name stood for when that was last known, however long ago; `None`: nothing is known of it.
    fn last_known(&self, prefix: &str, name: &[u8]) -> Option<Lookup> {
        let dirs = self.dirs.lock();
        let directory = dirs.lru.peek(prefix);
        let listed = directory.and_then(|directory| directory.listing.as_ref());
        let listed = listed.map(|listing| (listing.find(name), listing.begun()));
        let asked = directory.and_then(|directory| directory.lookups.get(name).cloned());
        drop(dirs);
        let newest = [listed, asked].into_iter().flatten().max_by_key(|(_, asked)| *asked);
        let changed = self.overlay.last(prefix, name);
        let (entry, asked) = [newest, changed].into_iter().flatten().max_by_key(|(_, asked)| *asked)?;
        Some(Lookup { entry, valid: RECALLED, asked, has_aged: true })
    }
}
