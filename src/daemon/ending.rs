//! The end of a mount: waiting for uploads, and telling whoever waits how it goes.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::fs::{Fs, Left};
use crate::stats::Stats;

/// How long nothing may be heard of the server before who waits is told that it is away.
const SILENCE: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_secs(1);

/// How the waiting stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remaining {
    /// Files that are not in the bucket yet.
    pub files: usize,
    /// Files that were closed and that the server refused: they stay in the spool until somebody decides.
    pub refused: usize,
    /// Where the server does not answer: how long it is still waited for.
    pub away: Option<Duration>,
}

/// Waits for uploads; returns how many files are left in the spool.
pub(super) async fn drain(fs: &Fs, stats: &Stats, timeout: Duration, tell: impl Fn(Remaining)) -> usize {
    let until = Instant::now() + timeout;
    let progress = |files| {
        tell(Remaining { files, refused: fs.refused_behind(), away: None });
        if files > 0 {
            tracing::info!(left = files, "uploading before the end");
        }
    };
    let Left { late, refused } = tokio::select! {
        left = fs.drain(until, progress) => left,
        () = watch(fs, stats, until, &tell) => unreachable!("it watches until it is dropped"),
    };
    tell(Remaining { files: late, refused, away: None });
    if late > 0 {
        tracing::error!(
            left = late,
            "not uploaded in time; the next mount of this bucket goes on: see `supafs spool list`"
        );
    }
    if refused > 0 {
        tracing::error!(
            files = refused,
            "closed, and then refused by the server; they are kept in the spool: see `supafs spool list`"
        );
    }
    late + refused
}

/// Tells once whenever the server has become silent.
async fn watch(fs: &Fs, stats: &Stats, until: Instant, tell: &impl Fn(Remaining)) {
    let mut heard = Instant::now();
    let (mut answers, mut bytes, mut retries) = counters(stats);
    let mut is_told = false;
    loop {
        sleep(LOOK).await;
        let now = counters(stats);
        // Bytes that are sent again and again in vain are no sign of life.
        if now.0 > answers || (now.1 > bytes && now.2 == retries) {
            heard = Instant::now();
            (answers, bytes, retries) = now;
            is_told = false;
        }
        if heard.elapsed() >= SILENCE && !is_told {
            let (_, files, _) = fs.unsent();
            let left = until.saturating_duration_since(Instant::now());
            tell(Remaining { files, refused: fs.refused_behind(), away: Some(left) });
            tracing::warn!(
                left = files,
                seconds = left.as_secs(),
                "the server does not answer; it is waited for before the end (--drain-timeout)"
            );
            is_told = true;
        }
    }
}

fn counters(stats: &Stats) -> (u64, u64, u64) {
    (stats.answers.get(), stats.bytes_sent.get(), stats.retries.get())
}
