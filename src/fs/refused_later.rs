//! Changes that the server refused after their callers had heard that all was well (`--write-back`, and settings of
//! files and folders): `supafs unmount` tells how many of them nobody has put right since.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;

use crate::writeback::{Draft, Spool};

/// How many changes were acknowledged and then refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RefusedCount {
    /// Files and new folders that are not in the bucket: the spool keeps them until a person decides.
    pub contents: usize,
    /// Files and folders whose mode, owner, times or metadata are in the bucket as they were before.
    pub settings: usize,
    /// Deletions: the objects are still in the bucket.
    pub deletions: usize,
}

impl RefusedCount {
    #[must_use]
    pub fn total(&self) -> usize {
        self.contents + self.settings + self.deletions
    }
}

/// As many keys of refused deletions, and of refused settings, are told apart; more are not counted.
const KEYS: usize = 10_000;

#[derive(Default)]
struct State {
    /// By the id of a parked draft: whether it holds settings alone.
    parked: BTreeMap<String, bool>,
    /// Prefixes of folders, and keys of files, whose settings were refused and are not in the spool.
    settings: BTreeSet<Box<str>>,
    /// Keys that were not deleted.
    deletions: BTreeSet<Box<str>>,
}

/// See the module. Lock rank: leaf.
#[derive(Default)]
pub(super) struct RefusedLater(Mutex<State>);

impl RefusedLater {
    /// A draft is about to be parked. The writer of a torn one has not heard that all was well.
    pub fn parks(&self, draft: &Draft) {
        if draft.torn().is_none() {
            let is_settings = draft.state().is_settings_only();
            self.0.lock().parked.insert(draft.id().to_owned(), is_settings);
        }
    }

    pub fn settings(&self, key: &str) {
        insert(&mut self.0.lock().settings, key);
    }

    pub fn deletion(&self, key: &str) {
        insert(&mut self.0.lock().deletions, key);
    }

    /// The settings of a folder or a file are stored after all.
    pub fn settings_stored(&self, key: &str) {
        self.0.lock().settings.remove(key);
    }

    /// The object is gone after all, or was replaced.
    pub fn deletion_settled(&self, key: &str) {
        self.0.lock().deletions.remove(key);
    }

    /// What is refused still; not what a person has decided about since.
    pub fn count(&self, spool: &Spool) -> RefusedCount {
        let (parked, unparked, deletions) = {
            let state = self.0.lock();
            (state.parked.clone(), state.settings.len(), state.deletions.len())
        };
        let left: Vec<bool> = parked
            .iter()
            .filter(|(id, _)| spool.is_parked(id))
            .map(|(_, is_settings)| *is_settings)
            .collect();
        let settings = left.iter().filter(|is_settings| **is_settings).count();
        RefusedCount { contents: left.len() - settings, settings: settings + unparked, deletions }
    }
}

fn insert(keys: &mut BTreeSet<Box<str>>, key: &str) {
    if keys.len() < KEYS {
        keys.insert(key.into());
    }
}
