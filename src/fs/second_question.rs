//! The kernel's second question: after a lookup of a name it knows, or a read of a page it needs, has ended by its
//! deadline, the kernel asks once more within one call of the caller. The answer is the first one's; else the caller
//! would wait twice.

use std::hash::Hash;
use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{ErrorKind, FsError};

/// The second question follows within this time.
const FOLLOWS: Duration = Duration::from_millis(100);

/// Questions that ended by their deadline and that are remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// Questions that ended by their deadline just now.
pub(super) struct Unanswered<Q: Hash + Eq>(Mutex<LruCache<Q, Instant>>);

impl<Q: Hash + Eq> Default for Unanswered<Q> {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED)))
    }
}

impl<Q: Hash + Eq> Unanswered<Q> {
    /// # Errors
    /// `TimedOut`, where this very question has just ended by its deadline.
    pub fn ask(&self, question: &Q) -> Result<(), FsError> {
        let ended = self.0.lock().peek(question).copied();
        if ended.is_some_and(|ended| ended.elapsed() < FOLLOWS) {
            return Err(ErrorKind::TimedOut.into());
        }
        Ok(())
    }

    /// Notes how a question ended.
    pub fn ended<T>(&self, question: Q, result: &Result<T, FsError>) {
        if matches!(result, Err(error) if error.kind == ErrorKind::TimedOut) {
            self.0.lock().put(question, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_the_same_question_is_answered_and_only_for_a_moment() {
        let unanswered = Unanswered::default();
        let timed_out: Result<(), FsError> = Err(ErrorKind::TimedOut.into());
        unanswered.ended(1, &timed_out);
        unanswered.ended(2, &Err::<(), _>(ErrorKind::NotFound.into()));
        assert!(unanswered.ask(&2).is_ok() && unanswered.ask(&3).is_ok());
        assert_eq!(unanswered.ask(&1).map_err(|error| error.kind), Err(ErrorKind::TimedOut));
        tokio::time::sleep(FOLLOWS).await;
        assert!(unanswered.ask(&1).is_ok());
    }
}
