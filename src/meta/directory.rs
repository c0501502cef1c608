//! What the directory cache knows of one directory, and what it makes of the questions that come: listing the directory
//! instead of asking for one name more, and reading ahead of whoever goes through its sub-folders.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::dir_cache::PAGE;
use super::{Entry, Listing};

/// After this many single lookups in a directory of unknown size, its listing is cheaper than the next ones.
const LOOKUPS_BEFORE_LISTING: usize = 3;

/// Sub-folders that were gone through in order, one soon after the other, before the rest is read ahead.
const FOLDERS_BEFORE_WALK: usize = 2;

/// Listings of sub-folders that follow each other within this time are one walk.
const SOON: Duration = Duration::from_secs(10);

/// What is known of one directory.
#[derive(Default)]
pub(super) struct Directory {
    pub listing: Option<Arc<Listing>>,
    /// A listing under way; whoever wants it holds it.
    pub growing: Weak<Listing>,
    pub lookups: HashMap<Box<[u8]>, (Option<Entry>, Instant)>,
    /// Single lookups that came within the time to live of each other.
    pub lookups_in_a_row: usize,
    pub last_lookup: Option<Instant>,
    /// What the last listing held, at least.
    pub known_len: Option<usize>,
    /// Whether it was looked whether it is a small one.
    pub was_glanced_at: bool,
    /// The sub-folder that was last listed, how many were so in order, and when.
    pub last_folder: Option<(Box<str>, usize, Instant)>,
    /// Walks through it that were in vain: each doubles what it takes to begin another.
    pub vain_walks: u32,
    /// What was asked before this is not to be remembered: somebody else was seen to have changed something.
    pub invalidated: Option<Instant>,
}

impl Directory {
    pub fn weight(&self) -> usize {
        1 + self.lookups.len() + self.listing.as_ref().map_or(0, |listing| listing.len())
    }

    /// Counts a lookup that has to ask. `true`: listing the directory is the cheaper way to find out.
    pub fn prefers_listing(&mut self, ttl: Duration, max_len: usize) -> bool {
        if self.last_lookup.is_none_or(|at| at.elapsed() > ttl) {
            self.lookups_in_a_row = 0;
        }
        self.last_lookup = Some(Instant::now());
        self.lookups_in_a_row += 1;
        match self.known_len {
            // One page tells what the next lookups ask for, too.
            Some(len) if len < PAGE => true,
            // It would drive out everything else.
            Some(len) if len >= max_len => false,
            known => self.lookups_in_a_row > LOOKUPS_BEFORE_LISTING.max(known.unwrap_or(0) / PAGE),
        }
    }

    /// A listing that is believed, or on its way.
    pub fn shared(&self, ttl: Duration) -> Option<Arc<Listing>> {
        let is_valid = |listing: &&Arc<Listing>| !listing.valid_for(ttl).is_zero();
        if let Some(listing) = self.listing.as_ref().filter(is_valid) {
            return Some(Arc::clone(listing));
        }
        // It may be complete, and not put away yet.
        let counts = |listing: &Arc<Listing>| {
            self.is_since(listing.begun()) && (!listing.is_complete() || is_valid(&listing))
        };
        self.growing.upgrade().filter(counts)
    }

    /// Notes that a sub-folder is listed. `true`: several were, in order and one soon after the other.
    pub fn is_walked(&mut self, folder: &str) -> bool {
        let count = match &self.last_folder {
            Some((last, count, at)) if **last < *folder && at.elapsed() < SOON => count + 1,
            _ => 0,
        };
        self.last_folder = Some((folder.into(), count, Instant::now()));
        count >= FOLDERS_BEFORE_WALK << self.vain_walks.min(16)
    }

    pub fn is_since(&self, asked: Instant) -> bool {
        self.invalidated.is_none_or(|at| asked > at)
    }
}
