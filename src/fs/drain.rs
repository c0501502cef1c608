//! What is not in the bucket yet: how much it is, and waiting for it at the end of a mount.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::Fs;
use super::save::Writer;
use crate::writeback::Draft;

/// What a mount leaves in the spool when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// Files that were not uploaded in time: the next mount goes on with them.
    pub late: usize,
    /// Files that the server refused after they were closed: they stay until somebody decides.
    pub refused: usize,
}

impl Fs {
    /// Waits for everything that is queued; answers what is left in the spool.
    pub async fn drain(&self, until: Instant, progress: impl Fn(usize)) -> Left {
        let Ok(writer) = self.writer() else { return Left { late: 0, refused: 0 } };
        self.ends.store(true, Ordering::Relaxed);
        self.end_what_was_told();
        let uploads = writer.queue.drain(until, progress).await;
        let removals = writer.removals.drain(until).await;
        let unsaved = self.unsaved(writer);
        let is_all = uploads.is_ok() && removals.is_ok() && unsaved == 0;
        Left { late: if is_all { 0 } else { writer.staged() + unsaved }, refused: self.refused_behind() }
    }

    /// Drafts in use, uploads and removals that wait, and bytes in the spool.
    #[must_use]
    pub fn unsent(&self) -> (usize, usize, u64) {
        let Some(writer) = &self.writer else { return (0, 0, 0) };
        let drafts = self.inodes.lock().iter().filter(|(_, inode)| inode.draft().is_some()).count();
        (drafts, writer.staged(), writer.spool.used())
    }

    /// Notes that a file is about to be parked whose writer has heard that all is well. The writer of a torn one has not.
    pub(super) fn keeps(&self, draft: &Draft) {
        if let Ok(writer) = self.writer()
            && draft.torn().is_none()
        {
            writer.kept.lock().insert(draft.id().to_owned());
        }
    }

    /// Files that this mount parked after their writers had heard that all is well, but for those that somebody has
    /// decided about since.
    #[must_use]
    pub fn refused_behind(&self) -> usize {
        let Ok(writer) = self.writer() else { return 0 };
        let kept = writer.kept.lock().clone();
        kept.iter().filter(|id| writer.spool.is_parked(id)).count()
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
