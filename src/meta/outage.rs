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

use crate::stats::Stats;
use crate::store::{StoreError, StoreErrorKind};

/// How long a lookup waits for a server that answers nothing at all.
const SILENCE: Duration = Duration::from_secs(3);
/// Between two questions behind the caller's back.
const PAUSE: Duration = Duration::from_secs(5);

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
