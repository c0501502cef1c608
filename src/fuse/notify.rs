//! Tells the kernel what to forget, from a thread of its own: a notification waits for locks that an operation in
//! progress may hold, so it must never be sent from within one.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::thread;

use fuser::{INodeNo, Notifier};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::fs::Invalidation;

/// Serves until the file system is gone.
pub(super) fn spawn(notifier: Notifier, mut invalidations: UnboundedReceiver<Invalidation>) {
    let serve = move || {
        while let Some(invalidation) = invalidations.blocking_recv() {
            let shown = format!("{invalidation:?}");
            let result = match invalidation {
                Invalidation::Name { parent, name } => {
                    notifier.inval_entry(INodeNo(parent), OsStr::from_bytes(&name))
                }
                // A negative offset: attributes only, the pages are replaced by the next open.
                Invalidation::Attributes { ino } => notifier.inval_inode(INodeNo(ino), -1, 0),
                Invalidation::Contents { ino } => notifier.inval_inode(INodeNo(ino), 0, 0),
                Invalidation::Done(done) => {
                    // Who asked may have stopped waiting.
                    let _unheard = done.send(());
                    Ok(())
                }
            };
            if let Err(error) = result {
                // ENOENT: the kernel had forgotten by itself.
                tracing::trace!(invalidation = shown, %error, "the kernel did not need to be told");
            }
        }
    };
    if let Err(error) = thread::Builder::new().name("notify".to_owned()).spawn(serve) {
        tracing::warn!(%error, "cannot start the notifier: changes by others show after --metadata-ttl");
    }
}
