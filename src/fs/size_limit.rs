//! A file that grows beyond what the bucket takes: told at the write that crosses the limit, as far as it is known then.

use super::{ErrorKind, Fs, FsError};
use crate::store::MAX_OBJECT;
use crate::writeback::Draft;

impl Fs {
    /// Whether a file may grow to this size. One that is larger already may be changed: the server says what it takes.
    ///
    /// # Errors
    /// `TooLarge`, with the limit in the log and in `last-error`.
    pub(super) async fn check_size(&self, draft: &Draft, size: u64) -> Result<(), FsError> {
        let (key, was_told) = {
            let state = draft.state();
            if size <= state.size {
                return Ok(());
            }
            (state.key.clone(), state.failed.is_some())
        };
        if size > MAX_OBJECT {
            return Err(ErrorKind::TooLarge.into());
        }
        // What has no name goes into no bucket.
        let Some(key) = key else { return Ok(()) };
        let Some(error) = self.store.too_large(&key, size).await else { return Ok(()) };
        if was_told {
            // A program that goes on writing is not worth a line for each write.
            return Err(ErrorKind::TooLarge.into());
        }
        self.note_refusal(&key, error.message.as_str().into());
        Err(error.into())
    }
}
