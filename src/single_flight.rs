//! One computation at a time for a key: callers that come while it runs share its result.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;

/// Joins concurrent callers of the same key. Lock rank: leaf, never held across an await.
///
/// The computation runs in its callers: when the last of them is gone, it is dropped, too.
pub struct SingleFlight<K, V: Clone> {
    running: Mutex<HashMap<K, WeakShared<BoxFuture<'static, V>>>>,
}

impl<K: Hash + Eq + Clone, V: Clone + Send + Sync + 'static> SingleFlight<K, V> {
    #[must_use]
    pub fn new() -> Self {
        Self { running: Mutex::new(HashMap::new()) }
    }

    /// The result of `work`, or of the computation for `key` that already runs.
    pub async fn run<F>(&self, key: K, work: impl FnOnce() -> F) -> V
    where
        F: Future<Output = V> + Send + 'static,
    {
        let shared: Shared<_> = {
            let mut running = self.running.lock();
            if let Some(shared) = running.get(&key).and_then(WeakShared::upgrade) {
                shared
            } else {
                // Entries of callers that were dropped in mid-flight stay behind; clear them now and then.
                if running.len() >= 1024 {
                    running.retain(|_, weak| weak.upgrade().is_some());
                }
                let shared = work().boxed().shared();
                if let Some(weak) = shared.downgrade() {
                    running.insert(key.clone(), weak);
                }
                shared
            }
        };
        let value = shared.clone().await;
        let mut running = self.running.lock();
        // Another computation may have begun since; its entry stays.
        if running.get(&key).is_some_and(|weak| weak.upgrade().is_none_or(|other| other.ptr_eq(&shared))) {
            running.remove(&key);
        }
        value
    }
}

impl<K: Hash + Eq + Clone, V: Clone + Send + Sync + 'static> Default for SingleFlight<K, V> {
    fn default() -> Self {
        Self::new()
    }
}
