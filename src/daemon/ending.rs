//! The end of a mount: waiting for uploads and deletions, and telling whoever waits how it goes.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use crate::fs::{Fs, Left, Unsent};
use crate::stats::Stats;

/// How long the server may do nothing that was asked for, before who waits is told.
const SILENCE: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_secs(1);

/// How the waiting stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Remaining {
    pub left: Left,
    pub trouble: Option<Trouble>,
}

/// Why it takes long, and for how long it is waited at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trouble {
    pub kind: TroubleKind,
    pub patience: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TroubleKind {
    /// The server does not answer.
    Silence,
    /// The server answers with errors that may pass.
    Errors,
}

/// Waits for uploads and deletions; returns what is left.
pub(super) async fn drain(fs: &Fs, stats: &Stats, timeout: Duration, tell: impl Fn(Remaining)) -> Left {
    let until = Instant::now() + timeout;
    let progress = |unsent: Unsent| {
        tell(Remaining { left: Left { unsent, ..Left::default() }, trouble: None });
        if unsent.total() > 0 {
            let Unsent { uploads, deletions } = unsent;
            tracing::info!(uploads, deletions, "sending what is left before the end");
        }
    };
    let left = tokio::select! {
        left = fs.drain(until, progress) => left,
        () = watch(fs, stats, until, &tell) => unreachable!("it watches until it is dropped"),
    };
    tell(Remaining { left, trouble: None });
    let Left { unsent, refused } = left;
    if unsent.total() > 0 {
        tracing::error!(
            uploads = unsent.uploads,
            deletions = unsent.deletions,
            "not sent in time; the next mount of the same bucket and prefix goes on: see `supafs spool list`"
        );
    }
    if refused.contents > 0 {
        tracing::error!(
            files = refused.contents,
            "closed, and then refused by the server; they are kept in the spool: see `supafs spool list`"
        );
    }
    if refused.settings + refused.deletions > 0 {
        tracing::error!(
            settings = refused.settings,
            deletions = refused.deletions,
            "refused by the server after they were acknowledged; the errors above say which"
        );
    }
    left
}

/// Tells once whenever the server has come to do nothing that it is asked for.
async fn watch(fs: &Fs, stats: &Stats, until: Instant, tell: &impl Fn(Remaining)) {
    let mut then = Progress::of(fs, stats);
    let mut seen = Instant::now();
    let mut is_told = false;
    loop {
        sleep(LOOK).await;
        let now = Progress::of(fs, stats);
        if now.is_ahead_of(&then) {
            (then, seen, is_told) = (now, Instant::now(), false);
        }
        if seen.elapsed() >= SILENCE && !is_told {
            let patience = until.saturating_duration_since(Instant::now());
            let (kind, words) = if now.errors > then.errors {
                (TroubleKind::Errors, "the server answers with errors")
            } else {
                (TroubleKind::Silence, "the server does not answer")
            };
            let left = Left { unsent: fs.waiting(), ..Left::default() };
            tell(Remaining { left, trouble: Some(Trouble { kind, patience }) });
            tracing::warn!(
                left = left.total(),
                seconds = patience.as_secs(),
                "{words}; it is waited for before the end (--drain-timeout)"
            );
            is_told = true;
        }
    }
}

#[derive(Clone, Copy)]
struct Progress {
    waiting: usize,
    stored: u64,
    bytes: u64,
    retries: u64,
    errors: u64,
}

impl Progress {
    fn of(fs: &Fs, stats: &Stats) -> Self {
        Self {
            waiting: fs.waiting().total(),
            stored: stats.stored.get(),
            bytes: stats.bytes_sent.get(),
            retries: stats.retries.get(),
            errors: stats.error_answers.get(),
        }
    }

    fn is_ahead_of(&self, then: &Self) -> bool {
        // Bytes that are sent again and again in vain are no sign of life.
        let has_moved = self.bytes > then.bytes && self.retries == then.retries;
        self.waiting < then.waiting || self.stored > then.stored || has_moved
    }
}
