//! What becomes of an operation whose caller was killed while it waited: the kernel gave up on it, and nobody hears of
//! its result.

use std::sync::Arc;

use super::{Fs, FsError, Invalidation};
use crate::name;

impl Fs {
    /// A name was changed after all: the kernel still has what the name was before.
    pub fn changed_unheard(&self, parent: u64, name: &[u8]) {
        self.invalidate(Invalidation::Name { parent, name: name.into() });
    }

    /// A name could not be changed: the attribute `last-error` of its directory, and of the file if there is one, tells
    /// why.
    pub fn failed_unheard(&self, parent: u64, name: &[u8], error: &FsError) {
        let Some(prefix) = self.inodes.lock().key(parent) else { return };
        let Some(component) = name::to_component(name) else { return };
        let words: Arc<str> =
            error.cause.as_ref().map_or_else(|| error.to_string(), |cause| cause.message.clone()).into();
        self.note_refusal(&format!("{prefix}{component}"), words);
    }
}
