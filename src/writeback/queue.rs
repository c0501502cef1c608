//! What is uploaded behind the writer's back: each file after a short delay that joins saves, again after failures
//! that pass, until it is done or refused for good. A file that is saved again and again waits longer, but not for ever.
//!
//! The queue knows ids and jobs, not files. Lock rank: leaf, never held across an await.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::delay::Delay;

/// Attempts that the server answers before a job counts as failed: some twenty minutes with the pauses below.
const ATTEMPTS: u32 = 12;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_mins(5);
/// A server that comes back finds the first attempts soon.
const MAX_PAUSE_UNREACHED: Duration = Duration::from_mins(1);

/// What could not be saved because it is being changed is looked at again after this at the earliest.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A file that is saved again before its upload waits anew, but at most so many times the delay.
const PATIENCE: u32 = 10;

/// When a job is due.
#[derive(Clone, Copy)]
struct Due {
    at: Instant,
    /// Saves after this time do not put it off any more.
    latest: Instant,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// It was changed meanwhile.
    Changed,
    /// It failed in a way that passes.
    Retry,
    /// It could not even begin: this process lacks something for the moment. However often, that is no failure.
    Later,
    /// No server answered. However often, that is no failure.
    Unreached,
    Failed,
}

/// Something to be uploaded.
#[async_trait]
pub trait Job: Send + Sync {
    async fn attempt(&self) -> Outcome;
    /// It has left the queue.
    fn ended(&self, failed: bool);
}

struct Inner {
    delay: Delay,
    /// For attempts: what waits for its turn here can still be taken back, and leaves requests to those who wait.
    places: Semaphore,
    due: Mutex<HashMap<String, Due>>,
    length: watch::Sender<usize>,
    hurry: watch::Sender<bool>,
}

/// See the module.
#[derive(Clone)]
pub struct Queue(Arc<Inner>);

impl Queue {
    /// A queue that waits for `delay` before it begins with a job, and attempts so many at a time.
    #[must_use]
    pub fn new(delay: Delay, places: usize) -> Self {
        Self(Arc::new(Inner {
            delay,
            places: Semaphore::new(places.max(1)),
            due: Mutex::default(),
            length: watch::Sender::new(0),
            hurry: watch::Sender::new(false),
        }))
    }

    #[must_use]
    pub fn len(&self) -> usize {
        *self.0.length.borrow()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[must_use]
    pub fn holds(&self, id: &str) -> bool {
        self.0.due.lock().contains_key(id)
    }

    /// Queues a job, to wait for so many delays; one that waits already waits anew.
    pub fn push(&self, id: &str, delays: f64, job: Arc<dyn Job>) {
        let inner = Arc::clone(&self.0);
        let (now, delay) = (Instant::now(), inner.delay.now());
        let mut due = inner.due.lock();
        // What is due is being uploaded, and waits for the next time.
        let waiting = due.get(id).filter(|queued| queued.at > now);
        let latest = waiting.map_or(now + delay * PATIENCE, |queued| queued.latest);
        let mut at = (now + delay.mul_f64(delays)).min(latest);
        if due.get(id).is_some_and(|queued| queued.at == at) {
            // By its time it is known that a job was queued again.
            at += Duration::from_nanos(1);
        }
        let is_new = due.insert(id.to_owned(), Due { at, latest }).is_none();
        inner.length.send_replace(due.len());
        drop(due);
        if is_new {
            tokio::spawn(inner.run(id.to_owned(), job));
        }
    }

    /// Waits until the queue is empty, without further delays.
    ///
    /// # Errors
    /// How many jobs are left at `until`.
    pub async fn drain(&self, until: Instant, progress: impl Fn(usize)) -> Result<(), usize> {
        self.0.hurry.send_replace(true);
        let mut length = self.0.length.subscribe();
        loop {
            let left = *length.borrow_and_update();
            progress(left);
            if left == 0 {
                return Ok(());
            }
            if tokio::time::timeout_at(until, length.changed()).await.is_err() {
                return Err(self.len());
            }
        }
    }
}

impl Inner {
    async fn run(self: Arc<Self>, id: String, job: Arc<dyn Job>) {
        let (mut attempts, mut answers) = (0, 0);
        let failed = loop {
            let begun = self.wait(&id).await;
            let outcome = {
                let _place = self.places.acquire().await;
                job.attempt().await
            };
            let pause = match outcome {
                Outcome::Done if self.leave(&id, begun) => break false,
                Outcome::Failed if self.leave(&id, begun) => break true,
                // It was queued again meanwhile.
                Outcome::Done | Outcome::Failed => {
                    (attempts, answers) = (0, 0);
                    continue;
                }
                Outcome::Changed => {
                    (attempts, answers) = (0, 0);
                    self.delay.now().max(LOOK_AGAIN)
                }
                Outcome::Later => FIRST_PAUSE,
                Outcome::Unreached => {
                    attempts += 1;
                    pause_after(attempts).min(MAX_PAUSE_UNREACHED)
                }
                // At the end of a mount, attempts follow each other too quickly to mean anything.
                Outcome::Retry if *self.hurry.borrow() => FIRST_PAUSE,
                Outcome::Retry => {
                    (attempts, answers) = (attempts + 1, answers + 1);
                    if answers >= ATTEMPTS && self.leave(&id, begun) {
                        break true;
                    }
                    pause_after(attempts)
                }
            };
            let at = Instant::now() + pause;
            self.due.lock().insert(id.clone(), Due { at, latest: at + self.delay.now() * PATIENCE });
        };
        job.ended(failed);
        let left = self.due.lock().len();
        self.length.send_replace(left);
    }

    /// Takes a job off the queue, before it is told, so that what it does next may be queued again. `false`: it was
    /// queued again since it was due at `begun`.
    fn leave(&self, id: &str, begun: Instant) -> bool {
        let mut due = self.due.lock();
        let is_same = due.get(id).is_none_or(|due| due.at == begun);
        if is_same {
            due.remove(id);
        }
        is_same
    }

    /// Waits until a job is due; answers when that was.
    async fn wait(&self, id: &str) -> Instant {
        let mut hurry = self.hurry.subscribe();
        loop {
            let queued = self.due.lock().get(id).map_or_else(Instant::now, |due| due.at);
            let is_draining = *hurry.borrow_and_update();
            // The last moments are for those that were never tried; a pause after a failure is cut to a second.
            let due = if is_draining {
                queued.min(Instant::now() + FIRST_PAUSE.min(self.delay.now()))
            } else {
                queued
            };
            if due <= Instant::now() {
                return queued;
            }
            tokio::select! {
                () = tokio::time::sleep_until(due) => if is_draining { return queued },
                _ = hurry.changed() => {}
            }
        }
    }
}

/// With jitter, so that the files of one outage do not come back in step.
fn pause_after(attempts: u32) -> Duration {
    (FIRST_PAUSE * 2u32.pow(attempts.min(10))).min(MAX_PAUSE).mul_f64(0.5 + rand::random::<f64>() / 2.0)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const DELAY: Duration = Duration::from_millis(100);

    #[derive(Default)]
    struct Counted(AtomicU32);

    #[async_trait]
    impl Job for Counted {
        async fn attempt(&self) -> Outcome {
            self.0.fetch_add(1, Ordering::Relaxed);
            Outcome::Done
        }

        fn ended(&self, _failed: bool) {}
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_saved_all_the_time_is_uploaded_now_and_then() {
        let queue = Queue::new(Delay::Fixed(DELAY), 4);
        let job = Arc::new(Counted::default());
        for _ in 0..100 {
            queue.push("id", 1.0, Arc::clone(&job) as Arc<dyn Job>);
            tokio::time::sleep(DELAY / 2).await;
        }
        tokio::time::sleep(DELAY * 2).await;
        let uploads = job.0.load(Ordering::Relaxed);
        assert!((4..=6).contains(&uploads), "{uploads} uploads in fifty delays");
    }

    /// Counts, and is being written for a second.
    struct Busy(AtomicU32, Instant);

    #[async_trait]
    impl Job for Busy {
        async fn attempt(&self) -> Outcome {
            self.0.fetch_add(1, Ordering::Relaxed);
            if self.1.elapsed() < Duration::from_secs(1) { Outcome::Changed } else { Outcome::Done }
        }

        fn ended(&self, _failed: bool) {}
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_being_written_is_not_looked_at_all_the_time() {
        let queue = Queue::new(Delay::Fixed(Duration::from_millis(5)), 4);
        let job = Arc::new(Busy(AtomicU32::new(0), Instant::now()));
        queue.push("id", 1.0, Arc::clone(&job) as Arc<dyn Job>);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!((job.0.load(Ordering::Relaxed), queue.len()), (11, 0));
    }

    /// Fails in one way so often, then succeeds.
    struct Failing(Outcome, AtomicU32, AtomicU32);

    #[async_trait]
    impl Job for Failing {
        async fn attempt(&self) -> Outcome {
            if self.1.fetch_sub(1, Ordering::Relaxed) > 1 { self.0 } else { Outcome::Done }
        }

        fn ended(&self, failed: bool) {
            self.2.fetch_add(u32::from(failed) + 1, Ordering::Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_a_server_answers_again_and_again_is_given_up() {
        const DONE: u32 = 1;
        const FAILED: u32 = 2;
        for (outcome, ended) in [(Outcome::Retry, FAILED), (Outcome::Unreached, DONE), (Outcome::Later, DONE)]
        {
            let queue = Queue::new(Delay::Fixed(DELAY), 4);
            let job = Arc::new(Failing(outcome, AtomicU32::new(100), AtomicU32::new(0)));
            queue.push("id", 1.0, Arc::clone(&job) as Arc<dyn Job>);
            tokio::time::sleep(Duration::from_hours(2)).await;
            assert_eq!((job.2.load(Ordering::Relaxed), queue.len()), (ended, 0), "{outcome:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_before_the_end_of_a_mount_is_left_for_the_next() {
        let queue = Queue::new(Delay::Fixed(DELAY), 4);
        let job = Arc::new(Failing(Outcome::Retry, AtomicU32::new(1_000_000), AtomicU32::new(0)));
        queue.push("id", 1.0, Arc::clone(&job) as Arc<dyn Job>);
        let left = queue.drain(Instant::now() + Duration::from_mins(5), |_| {}).await;
        assert_eq!((left, job.2.load(Ordering::Relaxed)), (Err(1), 0));
    }

    #[tokio::test(start_paused = true)]
    async fn saves_in_a_row_are_one_upload() {
        let queue = Queue::new(Delay::Fixed(DELAY), 4);
        let job = Arc::new(Counted::default());
        for _ in 0..5 {
            queue.push("id", 1.0, Arc::clone(&job) as Arc<dyn Job>);
            tokio::time::sleep(DELAY / 2).await;
        }
        assert_eq!((job.0.load(Ordering::Relaxed), queue.len()), (0, 1));
        tokio::time::sleep(DELAY).await;
        assert_eq!((job.0.load(Ordering::Relaxed), queue.len()), (1, 0));
    }
}
