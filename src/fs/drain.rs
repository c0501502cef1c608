//! What is not in the bucket yet: how much it is, and waiting for it at the end of a mount.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::Fs;
use super::refused_later::RefusedCount;
use super::save::Writer;
use crate::writeback::Draft;

/// What was acknowledged and is still to be sent. This mount, or the next one, goes on with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unsent {
    /// Files, new folders, and settings of either.
    pub uploads: usize,
    /// Objects to be deleted.
    pub deletions: usize,
}

impl Unsent {
    #[must_use]
    pub fn total(&self) -> usize {
        self.uploads + self.deletions
    }
}

/// What was acknowledged and is not so in the bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Left {
    pub unsent: Unsent,
    pub refused: RefusedCount,
}

impl Left {
    #[must_use]
    pub fn total(&self) -> usize {
        self.unsent.total() + self.refused.total()
    }
}

impl Fs {
    /// Waits for everything that is queued; answers what is left.
    pub async fn drain(&self, until: Instant, progress: impl Fn(Unsent)) -> Left {
        let Ok(writer) = self.writer() else { return Left::default() };
        self.ends.store(true, Ordering::Relaxed);
        self.end_what_was_told();
        let progress = |_| progress(self.waiting());
        // How much is left at the end of the time is counted below.
        let _ = tokio::join!(writer.queue.drain(until, progress), writer.removals.drain(until, progress));
        // What an upload that was waited for has left to delete.
        let _ = writer.removals.drain(until, progress).await;
        let waiting = self.waiting();
        let unsent = Unsent { uploads: waiting.uploads + self.unsaved(writer), ..waiting };
        Left { unsent, refused: self.refused_later.count(&writer.spool) }
    }

    /// What is queued.
    #[must_use]
    pub fn waiting(&self) -> Unsent {
        let Ok(writer) = self.writer() else { return Unsent::default() };
        Unsent { uploads: writer.queue.len(), deletions: writer.removals.len() }
    }

    /// Drafts in use, uploads and removals that wait, and bytes in the spool.
    #[must_use]
    pub fn unsent(&self) -> (usize, usize, u64) {
        let Some(writer) = &self.writer else { return (0, 0, 0) };
        let drafts = self.inodes.lock().iter().filter(|(_, inode)| inode.draft().is_some()).count();
        (drafts, self.waiting().total(), writer.spool.used())
    }

    /// The mount is gone, and the end of a file that a policy forbids may not have been heard yet: nothing of it is kept.
    fn end_what_was_told(&self) {
        for (ino, draft) in self.drafts() {
            let is_told = {
                let state = draft.state();
                state.told == Some(state.generation) && !state.is_clean()
            };
            if is_told && draft.is_unacknowledged() {
                self.give_up(ino, &draft);
            }
        }
    }

    /// Files that are open with changes that nobody saved: the next mount finds them in the spool.
    fn unsaved(&self, writer: &Writer) -> usize {
        let is_unsaved = |draft: &Draft| {
            let state = draft.state();
            !state.is_clean() && state.key.is_some() && !writer.queue.holds(draft.id())
        };
        self.drafts().iter().filter(|(_, draft)| is_unsaved(draft)).count()
    }

    fn drafts(&self) -> Vec<(u64, Arc<Draft>)> {
        let inodes = self.inodes.lock();
        inodes.iter().filter_map(|(ino, inode)| Some((ino, Arc::clone(inode.draft()?)))).collect()
    }
}
