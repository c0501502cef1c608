//! One clock for everything that an operation asks of the server: how long it has waited in vain.
//!
//! It runs while a request is under way, and begins anew whenever something comes of one: an answer, or bytes that move.
//! What an operation does after it has waited for the operation time-out fails at once. A request outside of
//! [`timed`] has a clock of its own.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

tokio::task_local! {
    static CLOCK: Arc<Clock>;
}

/// Runs an operation with one clock for all its requests. Tasks that it begins do not share the clock.
pub async fn timed<T>(operation: impl Future<Output = T>) -> T {
    CLOCK.scope(Arc::default(), operation).await
}

/// Takes back what an operation had begun that fails: the operation's own time may be over, and whoever waits for it is
/// not to wait for as long again. It has half of the operation time-out.
pub async fn undo<T>(work: impl Future<Output = T>) -> T {
    CLOCK.scope(Arc::new(Clock { share: 2, ..Clock::default() }), work).await
}

/// Counts the time in which an operation waits for what others have begun on its behalf, as if for a request of its own.
pub async fn waits<T>(work: impl Future<Output = T>, brings: impl FnOnce(&T) -> bool) -> T {
    let clock = Clock::current();
    let running = clock.run();
    let result = work.await;
    if brings(&result) {
        clock.progress();
    }
    drop(running);
    result
}

/// See the module.
#[derive(Debug)]
pub(super) struct Clock {
    state: Mutex<State>,
    /// One of so many parts of a limit is this clock's.
    share: u32,
}

#[derive(Debug)]
struct State {
    /// Requests under way.
    running: u32,
    /// Since when they are, or since something came of one.
    since: Instant,
    /// What was waited before `since`.
    spent: Duration,
}

impl Default for Clock {
    fn default() -> Self {
        let state = State { running: 0, since: Instant::now(), spent: Duration::ZERO };
        Self { state: Mutex::new(state), share: 1 }
    }
}

/// While it is held, the clock runs.
pub(super) struct Running(Arc<Clock>);

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.running -= 1;
        if state.running == 0 {
            let now = Instant::now();
            let ran = now - state.since;
            state.spent += ran;
            state.since = now;
        }
    }
}

impl Clock {
    /// The clock of the operation that this is a part of, or a new one.
    pub fn current() -> Arc<Self> {
        CLOCK.try_with(Arc::clone).unwrap_or_default()
    }

    pub fn run(self: &Arc<Self>) -> Running {
        let mut state = self.state.lock();
        if state.running == 0 {
            state.since = Instant::now();
        }
        state.running += 1;
        Running(Arc::clone(self))
    }

    /// Something came of a request.
    pub fn progress(&self) {
        let mut state = self.state.lock();
        state.since = Instant::now();
        state.spent = Duration::ZERO;
    }

    /// What is left of a limit.
    pub fn left(&self, limit: Duration) -> Duration {
        let state = self.state.lock();
        let running = if state.running == 0 { Duration::ZERO } else { state.since.elapsed() };
        (limit / self.share).saturating_sub(state.spent + running)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    const fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[tokio::test(start_paused = true)]
    async fn requests_one_after_the_other_share_the_limit() {
        timed(async {
            for left in [8, 6, 4] {
                let clock = Clock::current();
                let _running = clock.run();
                tokio::time::sleep(seconds(2)).await;
                assert_eq!(clock.left(LIMIT), seconds(left));
            }
            // What is not a request does not count.
            tokio::time::sleep(seconds(100)).await;
            assert_eq!(Clock::current().left(LIMIT), seconds(4));
            Clock::current().progress();
            assert_eq!(Clock::current().left(LIMIT), LIMIT);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn requests_at_the_same_time_count_once() {
        timed(async {
            let clock = Clock::current();
            let (first, second) = (clock.run(), clock.run());
            tokio::time::sleep(seconds(3)).await;
            drop(first);
            tokio::time::sleep(seconds(3)).await;
            drop(second);
            assert_eq!(clock.left(LIMIT), seconds(4));
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_outside_of_an_operation_has_a_clock_of_its_own() {
        for _ in 0..2 {
            let clock = Clock::current();
            let _running = clock.run();
            tokio::time::sleep(seconds(3)).await;
            assert_eq!(clock.left(LIMIT), seconds(7));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_back_has_time_when_none_is_left() {
        timed(async {
            waits(tokio::time::sleep(seconds(30)), |()| false).await;
            assert_eq!(Clock::current().left(LIMIT), Duration::ZERO);
            assert_eq!(undo(async { Clock::current().left(LIMIT) }).await, LIMIT / 2);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_waited_for_counts_unless_it_brings_something() {
        timed(async {
            waits(tokio::time::sleep(seconds(3)), |()| false).await;
            assert_eq!(Clock::current().left(LIMIT), seconds(7));
            waits(tokio::time::sleep(seconds(30)), |()| true).await;
            assert_eq!(Clock::current().left(LIMIT), LIMIT);
        })
        .await;
    }
}
