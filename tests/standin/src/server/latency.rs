//! Waiting to a fraction of a millisecond. Tokio's own timer counts whole ones and rounds up, which would turn a round
//! trip of 20 ms into one of 21 to 22: a thread waits instead, for the earliest of all.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

#[derive(Default)]
struct Sleepers {
    /// By the time of their end, and by a number where two have the same.
    ends: Mutex<BTreeMap<(Instant, u64), oneshot::Sender<()>>>,
    earlier: Condvar,
}

pub async fn sleep(duration: Duration) {
    let (wake, woken) = oneshot::channel();
    SLEEPERS.add(Instant::now() + duration, wake);
    let _always = woken.await;
}

static SLEEPERS: LazyLock<&Sleepers> = LazyLock::new(|| {
    let sleepers: &Sleepers = Box::leak(Box::default());
    std::thread::spawn(|| sleepers.wake_in_time());
    sleepers
});

impl Sleepers {
    fn add(&self, end: Instant, wake: oneshot::Sender<()>) {
        let mut ends = self.ends.lock();
        let number = ends.range((end, 0)..=(end, u64::MAX)).next_back().map_or(0, |((_, last), _)| last + 1);
        ends.insert((end, number), wake);
        let is_first = ends.first_key_value().is_some_and(|(first, _)| *first == (end, number));
        drop(ends);
        if is_first {
            self.earlier.notify_one();
        }
    }

    fn wake_in_time(&self) -> ! {
        let mut ends = self.ends.lock();
        loop {
            let Some(first) = ends.first_entry() else {
                self.earlier.wait(&mut ends);
                continue;
            };
            let end = first.key().0;
            if end <= Instant::now() {
                let _gone = first.remove().send(());
            } else {
                self.earlier.wait_until(&mut ends, end);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_waits_for_its_time_and_not_less() {
        let begun = Instant::now();
        let wait = async |micros| {
            sleep(Duration::from_micros(micros)).await;
            begun.elapsed()
        };
        let (late, early) = tokio::join!(wait(9500), wait(2500));
        assert!(late >= Duration::from_micros(9500) && early >= Duration::from_micros(2500));
    }
}
