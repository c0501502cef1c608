//! The one budget of memory: who keeps something in it takes a share, and gives it back by dropping it.
//!
//! File contents fill what the others leave.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// See the module.
#[derive(Debug)]
pub struct Budget {
    total: u64,
    taken: AtomicU64,
}

/// Bytes taken out of a budget.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    #[must_use]
    pub fn new(total: u64) -> Arc<Self> {
        Arc::new(Self { total, taken: AtomicU64::new(0) })
    }

    /// Takes a share. It is not refused: what is there is counted.
    #[must_use]
    pub fn take(self: &Arc<Self>, bytes: u64) -> Share {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
        Share { budget: Arc::clone(self), bytes }
    }

    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// What nobody has taken; an eighth is always left, so that reading goes on.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.total.saturating_sub(self.taken.load(Ordering::Relaxed)).max(self.total / 8)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_given_back_by_dropping_it() {
        let budget = Budget::new(800);
        let first = budget.take(300);
        assert_eq!(budget.left(), 500);
        let second = budget.take(700);
        assert_eq!(budget.left(), 100, "an eighth is always left");
        drop(first);
        drop(second);
        assert_eq!(budget.left(), 800);
    }
}
