//! The directory cache: an LRU of listings and of single lookups, each believed for its time to live.
//!
//! A lookup is answered, in this order, by a fresh listing (also that a name is absent), by a fresh lookup of the
//! same name, or by the server: one request for the name, with the first one in a directory a short listing of it, or
//! a whole listing where that is cheaper.
//!
//! Lock rank: `dirs` comes after the inode table and is never held across an await.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Weak};
use std::time::Duration;

use lru::LruCache;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::directory::Directory;
use super::fill;
use super::outage::Outage;
use super::overlay::Overlay;
use super::probe::{self, Probed};
use super::walk::{self, Walks};
use super::{Entry, Kind, Listing};
use crate::budget::Budget;
use crate::config::Tuning;
use crate::name;
use crate::single_flight::SingleFlight;
use crate::stats::Stats;
use crate::store::{ObjectStore, StoreError};

/// After this many single lookups beside a listing that is believed but for absences, these are listed anew as well.
const LOOKUPS_BESIDE_LISTING: usize = 16;

/// Single lookups remembered for one directory before those that have aged are cleared away.
const MAX_LOOKUPS: usize = 1000;

/// Pages that a directory of unknown size is listed for, because of lookups.
const PAGES_FOR_LOOKUPS: usize = 16;

/// Entries that one request lists.
pub(super) const PAGE: usize = 999;

/// The answer to a lookup.
#[derive(Debug, Clone)]
pub struct Lookup {
    pub entry: Option<Entry>,
    /// How long the answer may still be believed.
    pub valid: Duration,
    /// When the server was asked: what was changed here since is not in the answer of itself.
    pub asked: Instant,
    /// It has aged, and no server answers: the bucket may hold something else by now.
    pub has_aged: bool,
}

pub(super) struct Directories {
    pub(super) lru: LruCache<Box<str>, Directory>,
    weight: usize,
}

pub(super) struct Inner {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) stats: Arc<Stats>,
    budget: Arc<Budget>,
    pub(super) dirs: Mutex<Directories>,
    probes: SingleFlight<String, Probed>,
    pub(super) overlay: Overlay,
    pub(super) outage: Outage,
    pub(super) walks: Walks,
    pub(super) ttl: Duration,
    negative_ttl: Duration,
    pub(super) max_weight: usize,
}

/// See the module.
#[derive(Clone)]
pub struct DirCache(pub(super) Arc<Inner>);

impl DirCache {
    /// A cache that knows nothing yet. `bridges_outages`: while no server answers, what was last known counts.
    #[must_use]
    pub fn new(
        store: Arc<dyn ObjectStore>,
        tuning: &Tuning,
        (stats, budget): (Arc<Stats>, Arc<Budget>),
        bridges_outages: bool,
    ) -> Self {
        Self(Arc::new(Inner {
            store,
            outage: Outage::new(bridges_outages, Arc::clone(&stats)),
            stats,
            budget,
            dirs: Mutex::new(Directories { lru: LruCache::unbounded(), weight: 0 }),
            probes: SingleFlight::new(),
            overlay: Overlay::new(tuning.metadata_ttl),
            walks: Walks::default(),
            ttl: tuning.metadata_ttl,
            // What was changed here is laid over for one time to live: an absence must not be believed beyond that.
            negative_ttl: tuning.negative_ttl.min(tuning.metadata_ttl),
            max_weight: NonZeroUsize::new(tuning.metadata_entries).map_or(1, NonZeroUsize::get),
        }))
    }

    /// The entry `name` of the directory whose keys begin with `prefix`.
    ///
    /// # Errors
    /// When the server had to be asked and did not answer.
    pub async fn lookup(&self, prefix: &str, name: &[u8]) -> Result<Lookup, StoreError> {
        let mut answer = self.ask_or_recall(prefix, name).await?;
        answer.entry = self.changed_since(prefix, name, answer.asked, answer.entry);
        if answer.entry.is_none() {
            answer.entry = self.folder_being_written(prefix, name);
        }
        Ok(answer)
    }

    pub(super) async fn ask(&self, prefix: &str, name: &[u8]) -> Result<Lookup, StoreError> {
        let inner = &*self.0;
        let now = Instant::now();
        if name == name::PLACEHOLDER.as_bytes() {
            return Ok(Lookup { entry: None, valid: inner.negative_ttl, asked: now, has_aged: false });
        }
        if let Some((entry, valid)) = inner.overlay.get(prefix, name) {
            return Ok(Lookup { entry, valid, asked: now, has_aged: false });
        }
        let (list_first, glance) = match inner.remembered(prefix, name) {
            Remembered::Answer(answer) => return Ok(answer),
            Remembered::Nothing { list_first, glance } => (list_first, glance),
        };
        let must_list = name::needs_listing(name) || inner.store.is_listed_only(prefix);
        if !(list_first || must_list) {
            let glance = async {
                if glance {
                    inner.glance(prefix).await;
                }
            };
            return futures::join!(self.probe(prefix, name), glance).0;
        }
        let mut listing = self.listing_for(prefix, inner.ttl, must_list);
        match listing.begins().await {
            Ok(is_complete) if is_complete || must_list => {}
            Err(error) if must_list || !listing.is_given_up() => return Err(error),
            _ => {
                // It is not to be had by one request: one name is.
                return tokio::select! {
                    biased;
                    Ok(()) = listing.complete() => Ok(inner.found(&listing, listing.find(name))),
                    found = self.probe(prefix, name) => found,
                };
            }
        }
        listing.complete().await?;
        let mut entry = listing.find(name);
        if entry.is_none() && inner.negative_ttl < inner.ttl {
            // The listing is believed, but not for what it does not contain.
            listing = self.listing_for(prefix, inner.negative_ttl, true);
            listing.complete().await?;
            entry = listing.find(name);
        }
        Ok(inner.found(&listing, entry))
    }

    /// The listing of a directory for somebody who goes through it, fresh or on its way. If that is a walk, it may be
    /// read ahead.
    #[must_use]
    pub fn browse(&self, prefix: &str) -> Arc<Listing> {
        let inner = &self.0;
        let mut dirs = inner.dirs.lock();
        let directory = dirs.entry(prefix);
        if let Some(listing) = directory.shared(inner.ttl).filter(|listing| listing.lift_limit()) {
            drop(dirs);
            inner.walks.used(prefix, &listing);
            return listing;
        }
        let listing = Arc::new(Listing::new());
        directory.growing = Arc::downgrade(&listing);
        let cuts = fill::cuts(directory.listing.as_ref());
        let root = inner.walk_to(&mut dirs, prefix);
        drop(dirs);
        let is_brought = inner.walks.brings(prefix, &listing)
            || root.is_some_and(|root| walk::spawn(inner, root, prefix, &listing));
        if !is_brought {
            fill::spawn(inner, prefix, &listing, cuts);
        }
        listing
    }

    /// `whole`: it is wanted to its end, however large it is.
    fn listing_for(&self, prefix: &str, ttl: Duration, whole: bool) -> Arc<Listing> {
        let inner = &self.0;
        let mut dirs = inner.dirs.lock();
        let directory = dirs.entry(prefix);
        if let Some(listing) = directory.shared(ttl).filter(|listing| !whole || listing.lift_limit()) {
            return listing;
        }
        let pages = directory.known_len.unwrap_or(0) / PAGE * 4;
        let pages = pages.max(PAGES_FOR_LOOKUPS).min(inner.max_weight / PAGE);
        let listing = Arc::new(if whole { Listing::new() } else { Listing::for_lookups(pages) });
        directory.growing = Arc::downgrade(&listing);
        let cuts = fill::cuts(directory.listing.as_ref());
        drop(dirs);
        fill::spawn(inner, prefix, &listing, cuts);
        listing
    }

    /// Forgets what is known of a directory: something in it was seen to have changed.
    pub fn invalidate(&self, prefix: &str) {
        let mut dirs = self.0.dirs.lock();
        let Some(directory) = dirs.lru.get_mut(prefix) else { return };
        let before = directory.weight();
        directory.listing = None;
        directory.lookups = HashMap::new();
        directory.invalidated = Some(Instant::now());
        let after = directory.weight();
        self.0.reweigh(&mut dirs, before, after);
    }

    /// Forgets what the server said of every directory. Changes made here are kept: the server may not know of them.
    pub fn purge(&self) {
        let mut dirs = self.0.dirs.lock();
        dirs.lru.clear();
        dirs.weight = 0;
    }

    /// A name stands for something else now, by a change made here. `pinned`: until the next change; the bucket does
    /// not show it yet.
    ///
    /// What was asked for before stays of use, also a listing that is under way: the change is laid over it. Otherwise a
    /// folder that is being written would be listed again for each of its uploads, in vain.
    pub fn changed(&self, prefix: &str, name: &[u8], entry: Option<Entry>, pinned: bool) {
        self.0.overlay.set(prefix, name, entry, pinned);
    }

    /// A removal that hid a name has ended. `false`: something else has the name by now.
    pub fn removal_ended(&self, prefix: &str, name: &[u8]) -> bool {
        self.0.overlay.unpin_gone(prefix, name)
    }

    /// What a name stands for is in the bucket: listings show it from now on.
    pub fn unpin(&self, prefix: &str, name: &[u8]) {
        self.0.overlay.unpin(prefix, name);
    }

    /// What a name stands for by a change made here, if there is one.
    #[must_use]
    pub fn change(&self, prefix: &str, name: &[u8]) -> Option<Option<Entry>> {
        self.0.overlay.get(prefix, name).map(|(entry, _)| entry)
    }

    /// What a name in a listing stands for by a change made here that the listing may miss.
    #[must_use]
    pub fn change_beside(&self, prefix: &str, name: &[u8], listing: &Listing) -> Option<Option<Entry>> {
        self.0.overlay.since(prefix, name, listing.begun())
    }

    /// What a name stands for, where the server was asked at this time and answered `found`.
    #[must_use]
    pub fn changed_since(
        &self,
        prefix: &str,
        name: &[u8],
        asked: Instant,
        found: Option<Entry>,
    ) -> Option<Entry> {
        self.0.overlay.since(prefix, name, asked).unwrap_or(found)
    }

    /// A folder that others have emptied, with something in it that is still to be uploaded.
    fn folder_being_written(&self, prefix: &str, name: &[u8]) -> Option<Entry> {
        let component = name::to_component(name)?;
        let is_shown = self.0.overlay.has_pinned_below(&format!("{prefix}{component}/"));
        is_shown.then(|| Entry::of_component(&component, Kind::Directory))
    }

    /// What was changed here and may be missing in the listing of a directory that [`browse`](Self::browse) gives next,
    /// by name, with the folders that others have emptied, but for what is still to be uploaded.
    #[must_use]
    pub fn changes_to_show(&self, prefix: &str) -> Vec<(Box<[u8]>, Option<Entry>)> {
        let shared = self.0.dirs.lock().lru.peek(prefix).and_then(|directory| directory.shared(self.0.ttl));
        let asked = shared.map_or_else(Instant::now, |listing| listing.begun());
        let mut changes = self.changes(prefix, asked);
        for component in self.0.overlay.folders_with_pinned(prefix) {
            let folder = Entry::of_component(&component, Kind::Directory);
            if let Err(at) = changes.binary_search_by(|(name, _)| (**name).cmp(&*folder.name)) {
                changes.insert(at, (folder.name.clone(), Some(folder)));
            }
        }
        changes
    }

    /// What was changed here and may be missing in what is asked for at this time, by name.
    #[must_use]
    pub fn changes(&self, prefix: &str, asked: Instant) -> Vec<(Box<[u8]>, Option<Entry>)> {
        self.0.overlay.all_since(prefix, asked)
    }

    /// The same without nodes: what they hide, for questions about the bucket.
    #[must_use]
    pub fn changes_of_bucket(&self, prefix: &str, asked: Instant) -> Vec<(Box<[u8]>, Option<Entry>)> {
        self.0.overlay.all_of_bucket_since(prefix, asked)
    }

    /// Whether a name was removed from the bucket here, whatever node has it by now.
    #[must_use]
    pub fn is_gone(&self, prefix: &str, name: &[u8]) -> bool {
        self.0.overlay.is_gone(prefix, name)
    }

    /// A directory was made here: it is known to be empty.
    pub fn made(&self, prefix: &str) {
        let listing = Arc::new(Listing::empty());
        self.0.overlay.forget_below(prefix);
        self.0.keep(prefix, listing);
    }

    /// Forgets everything below a prefix, which was moved or removed.
    pub fn forget_below(&self, prefix: &str) {
        self.0.walks.stop(prefix);
        self.0.overlay.forget_below(prefix);
        let mut dirs = self.0.dirs.lock();
        let gone: Vec<Box<str>> = dirs
            .lru
            .iter()
            .filter(|(other, _)| other.starts_with(prefix))
            .map(|(other, _)| other.clone())
            .collect();
        for prefix in gone {
            if let Some(directory) = dirs.lru.pop(&prefix) {
                dirs.weight -= directory.weight();
            }
        }
    }

    /// A local change of a name counts no more: the server's word does.
    pub fn unchanged(&self, prefix: &str, name: &[u8]) {
        self.0.overlay.forget(prefix, name);
    }

    /// A node of this mount has lost its name, which stands for what it hid.
    pub fn node_gone(&self, prefix: &str, name: &[u8]) {
        self.0.overlay.forget_node(prefix, name);
    }

    /// A folder has moved: nodes below it, which no listing shows, are at the new place.
    pub fn move_nodes(&self, source: &str, target: &str) {
        self.0.overlay.move_nodes(source, target);
    }

    /// The last complete listing of a directory, also where it has aged.
    #[must_use]
    pub fn last_listing(&self, prefix: &str) -> Option<Arc<Listing>> {
        self.0.dirs.lock().lru.get(prefix)?.listing.clone()
    }

    /// Whether a directory is known to be kept by a placeholder.
    #[must_use]
    pub fn has_placeholder(&self, prefix: &str) -> bool {
        self.last_listing(prefix).is_some_and(|listing| listing.has_placeholder())
    }

    /// A directory is kept by a placeholder from now on.
    pub fn kept(&self, prefix: &str) {
        if let Some(listing) = self.last_listing(prefix) {
            listing.set_placeholder();
        }
    }

    /// Whether a directory's own key is known to be an object.
    #[must_use]
    pub fn has_marker(&self, prefix: &str) -> bool {
        self.last_listing(prefix).is_some_and(|listing| listing.has_marker())
    }

    /// Waits for the whole listing of a directory.
    ///
    /// # Errors
    /// When it cannot be had.
    pub async fn complete(&self, prefix: &str) -> Result<(), StoreError> {
        self.listing_for(prefix, self.0.ttl, true).complete().await
    }

    /// Whether a directory holds anything but `name`, as far as that is known without asking; in the bucket, if
    /// `is_stored`.
    #[must_use]
    pub fn holds_others(&self, prefix: &str, name: &[u8], is_stored: bool) -> Option<bool> {
        let listing = self.0.dirs.lock().lru.get(prefix).and_then(|directory| directory.listing.clone());
        let asked = listing.as_ref().map_or_else(Instant::now, |listing| listing.begun());
        let changes =
            if is_stored { self.changes_of_bucket(prefix, asked) } else { self.changes(prefix, asked) };
        let is_new_folder = |entry: &Entry| {
            matches!(entry.kind, Kind::Directory) && self.0.overlay.is_pinned(prefix, &entry.name)
        };
        let counts = |entry: &Entry| {
            let is_here_alone = || entry.is_staged() || is_new_folder(entry);
            *entry.name != *name && !(is_stored && is_here_alone())
        };
        if changes.iter().filter_map(|(_, entry)| entry.as_ref()).any(counts) {
            return Some(true);
        }
        let listing = listing?;
        if listing.valid_for(self.0.ttl).is_zero() {
            return None;
        }
        let mut index = 0;
        while let Some(entry) = listing.get(index) {
            let is_gone = changes.binary_search_by(|(other, _)| (**other).cmp(&*entry.name)).is_ok();
            if *entry.name != *name && !is_gone {
                return Some(true);
            }
            index += 1;
        }
        Some(false)
    }

    async fn probe(&self, prefix: &str, name: &[u8]) -> Result<Lookup, StoreError> {
        // A name that does not need a listing is its own component.
        let component = String::from_utf8_lossy(name);
        let key = format!("{prefix}{component}");
        let store = Arc::clone(&self.0.store);
        let (kind, asked) = self.0.probes.run(key.clone(), move || probe::probe(store, key)).await?;
        let entry = kind.map(|kind| {
            let is_link = matches!(kind, Kind::Link(_));
            let component = is_link.then(|| format!("{component}{}", name::LINK_SUFFIX).into_boxed_str());
            Entry { name: name.into(), component, kind }
        });
        self.0.remember(prefix, name, entry.clone(), asked);
        let ttl = if entry.is_some() { self.0.ttl } else { self.0.negative_ttl };
        Ok(Lookup { entry, valid: ttl.saturating_sub(asked.elapsed()), asked, has_aged: false })
    }
}

enum Remembered {
    Answer(Lookup),
    /// `list_first`: a listing of the directory is the cheaper way to find out. `glance`: it may be a small one.
    Nothing {
        list_first: bool,
        glance: bool,
    },
}

impl Inner {
    fn remembered(&self, prefix: &str, name: &[u8]) -> Remembered {
        let ttl = |entry: &Option<Entry>| if entry.is_some() { self.ttl } else { self.negative_ttl };
        let mut dirs = self.dirs.lock();
        let directory = dirs.entry(prefix);
        let mut listing_holds = false;
        if let Some(listing) = &directory.listing {
            listing_holds = !listing.valid_for(self.ttl).is_zero();
            let entry = listing.find(name);
            let valid = listing.valid_for(ttl(&entry));
            if !valid.is_zero() {
                return Remembered::Answer(Lookup { entry, valid, asked: listing.begun(), has_aged: false });
            }
        }
        if let Some((entry, at)) = directory.lookups.get(name) {
            let valid = ttl(entry).saturating_sub(at.elapsed());
            if !valid.is_zero() {
                return Remembered::Answer(Lookup {
                    entry: entry.clone(),
                    valid,
                    asked: *at,
                    has_aged: false,
                });
            }
        }
        // Where only the absence has become too old, a probe is cheaper than listing all again, unless more names follow.
        let max_len = self.max_weight.max(PAGE);
        let list_first = directory.prefers_listing(self.ttl, max_len)
            && (!listing_holds || directory.lookups_in_a_row > LOOKUPS_BESIDE_LISTING);
        let is_unknown = directory.known_len.is_none() && directory.growing.strong_count() == 0;
        let glance =
            is_unknown && !self.ttl.is_zero() && !std::mem::replace(&mut directory.was_glanced_at, true);
        Remembered::Nothing { list_first, glance }
    }

    /// Keeps the listing of a directory if it is a small one.
    async fn glance(&self, prefix: &str) {
        if let Some((listing, unshowable)) = probe::glance(&*self.store, prefix).await
            // Who lists it meanwhile knows better.
            && self.takes(prefix, listing.begun())
        {
            fill::report_unshowable(&self.stats, &unshowable);
            self.keep(prefix, Arc::new(listing));
        }
    }

    fn remember(&self, prefix: &str, name: &[u8], entry: Option<Entry>, asked: Instant) {
        let mut dirs = self.dirs.lock();
        let directory = dirs.entry(prefix);
        if !directory.is_since(asked) {
            return;
        }
        let before = directory.weight();
        if directory.lookups.len() >= MAX_LOOKUPS {
            let ttl = |entry: &Option<Entry>| if entry.is_some() { self.ttl } else { self.negative_ttl };
            directory.lookups.retain(|_, (entry, at)| at.elapsed() < ttl(entry));
        }
        if directory.lookups.len() >= MAX_LOOKUPS {
            directory.lookups.clear();
        }
        directory.lookups.insert(name.into(), (entry, asked));
        let after = directory.weight();
        self.reweigh(&mut dirs, before, after);
    }

    /// A lookup's answer out of a complete listing.
    fn found(&self, listing: &Listing, entry: Option<Entry>) -> Lookup {
        let ttl = if entry.is_some() { self.ttl } else { self.negative_ttl };
        Lookup { valid: listing.valid_for(ttl), entry, asked: listing.begun(), has_aged: false }
    }

    /// What a walk that has come to a folder probably goes through: the directory above it.
    fn walk_to<'a>(&self, dirs: &mut Directories, folder: &'a str) -> Option<&'a str> {
        let name = folder.strip_suffix('/')?;
        let (root, component) = name.split_at(name.rfind('/').map_or(0, |slash| slash + 1));
        if self.ttl.is_zero() || self.store.is_listed_only(root) {
            return None;
        }
        let directory = dirs.lru.get_mut(root)?;
        let is_walked = directory.is_walked(folder);
        let listing = directory.listing.as_ref().filter(|_| is_walked)?;
        // For the last one alone it would be no gain.
        listing.has_directories_after(&name::from_component(component), 1).then_some(root)
    }

    pub(super) fn note_vain_walk(&self, root: &str) {
        if let Some(directory) = self.dirs.lock().lru.peek_mut(root) {
            directory.vain_walks += 1;
            directory.last_folder = None;
        }
    }

    /// Whether what was asked for at a time, beside listings of a directory, is of use for it.
    pub(super) fn takes(&self, prefix: &str, asked: Instant) -> bool {
        let mut dirs = self.dirs.lock();
        let directory = dirs.entry(prefix);
        let is_fresh = |listing: &Arc<Listing>| !listing.valid_for(self.ttl).is_zero();
        directory.is_since(asked) && !directory.listing.as_ref().is_some_and(is_fresh)
    }

    pub(super) fn keep(&self, prefix: &str, listing: Arc<Listing>) {
        self.keep_unless(prefix, listing, || false);
    }

    /// Keeps a listing, if nothing has changed since it began.
    pub(super) fn keep_unless(
        &self,
        prefix: &str,
        listing: Arc<Listing>,
        is_over: impl FnOnce() -> bool,
    ) -> bool {
        let mut dirs = self.dirs.lock();
        let directory = dirs.entry(prefix);
        directory.known_len = Some(listing.len());
        // One that is older than what is known, of a folder that was made anew meanwhile, is of no use either.
        let is_newest = directory.listing.as_ref().is_none_or(|known| known.begun() <= listing.begun());
        if !is_newest || !directory.is_since(listing.begun()) || is_over() {
            return false;
        }
        self.overlay.listed(prefix, listing.begun());
        listing.charge(&self.budget);
        let before = directory.weight();
        directory.listing = Some(listing);
        directory.growing = Weak::new();
        directory.lookups = HashMap::new();
        let after = directory.weight();
        self.reweigh(&mut dirs, before, after);
        true
    }

    /// A directory has so many entries at least, on so many pages.
    pub(super) fn note_len(&self, prefix: &str, len: usize, pages: usize) {
        // As many as can be remembered: it is not to be tried again.
        let len = if pages >= self.max_weight / PAGE { self.max_weight.max(PAGE) } else { len };
        let mut dirs = self.dirs.lock();
        let directory = dirs.entry(prefix);
        directory.known_len = directory.known_len.max(Some(len));
    }

    pub(super) fn drop_growing(&self, prefix: &str, listing: &Arc<Listing>) {
        if let Some(directory) = self.dirs.lock().lru.get_mut(prefix)
            && std::ptr::eq(directory.growing.as_ptr(), Arc::as_ptr(listing))
        {
            directory.growing = Weak::new();
        }
    }

    fn reweigh(&self, dirs: &mut Directories, before: usize, after: usize) {
        dirs.weight = dirs.weight + after - before;
        while dirs.weight > self.max_weight && dirs.lru.len() > 1 {
            let Some((_, evicted)) = dirs.lru.pop_lru() else { break };
            dirs.weight -= evicted.weight();
        }
    }
}

impl Directories {
    fn entry(&mut self, prefix: &str) -> &mut Directory {
        if !self.lru.contains(prefix) {
            self.lru.put(prefix.into(), Directory::default());
            self.weight += Directory::default().weight();
        }
        self.lru.get_mut(prefix).expect("it was just put there")
    }
}
