//! How far an upload has got, and telling so while it takes long.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, interval_at};

use super::draft::Draft;
use crate::size;
use crate::store::Section;

/// How often an upload that takes long is logged.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// The bytes of one file that are on the server or on their way to it.
#[derive(Clone, Default)]
pub(super) struct Meter(Arc<Mutex<BTreeMap<u64, Arc<AtomicU64>>>>);

impl Meter {
    /// A section that is about to be sent. One that is sent again counts once.
    pub fn section(&self, draft: &Draft, range: Range<u64>) -> io::Result<Section> {
        let unwritten = draft.state().unwritten(range.clone());
        Ok(self.counted(Section::with_unwritten(draft.data()?, range, &unwritten)))
    }

    fn counted(&self, section: Section) -> Section {
        let start = section.range.start;
        self.0.lock().insert(start, section.sent());
        section
    }

    /// The server has copied a range.
    pub fn copied(&self, range: &Range<u64>) {
        self.0.lock().insert(range.start, Arc::new(AtomicU64::new(range.end - range.start)));
    }

    /// What was sent counts for nothing: the file is sent anew.
    pub fn clear(&self) {
        self.0.lock().clear();
    }

    pub fn sent(&self) -> u64 {
        self.0.lock().values().map(|sent| sent.load(Ordering::Relaxed)).sum()
    }

    /// Carries out an upload, and logs every ten seconds how far it is.
    pub async fn tell<T>(&self, key: &str, total: u64, upload: impl Future<Output = T>) -> T {
        let mut upload = std::pin::pin!(upload);
        let mut ticks = interval_at(Instant::now() + TELL_EVERY, TELL_EVERY);
        loop {
            tokio::select! {
                biased;
                result = &mut upload => return result,
                _ = ticks.tick() => {
                    let sent = self.sent();
                    let rest = if sent < total { "" } else { ", waiting for the server" };
                    tracing::info!("uploading {key}: {} of {}{rest}", size::shown(sent), size::shown(total));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_again_counts_once() {
        let meter = Meter::default();
        let file = Arc::new(tempfile::tempfile().expect("a file"));
        for _ in 0..2 {
            let section = meter.counted(Section::new(Arc::clone(&file), 0..100));
            section.sent().store(40, Ordering::Relaxed);
            assert_eq!(meter.sent(), 40);
        }
        meter.copied(&(100..300));
        assert_eq!(meter.sent(), 240);
        meter.clear();
        assert_eq!(meter.sent(), 0);
    }
}
