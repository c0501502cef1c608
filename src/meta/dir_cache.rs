//! The directory cache: an LRU of listings and of single lookups, each believed for its time to live.
//!
//! A lookup is answered, in this order, by a fresh listing (also that a name is absent), by a fresh lookup of the
//! same name, or by the server: two requests at once for one name, or one listing where that is cheaper.
//!
//! Lock rank: `dirs` comes after the inode table and is never held across an await.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Weak};
use std::time::Duration;

use lru::LruCache;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::listing::PageFolder;
use super::overlay::Overlay;
use super::{Entry, Kind, Listing};
use crate::budget::Budget;
use crate::config::Tuning;
use crate::name;
use crate::single_flight::SingleFlight;
use crate::stats::Stats;
use crate::store::{ListRequest, ListedObject, ObjectStore, StoreError, StoreErrorKind};

/// After this many single lookups in a directory of unknown size, its listing is cheaper than the next ones.
const LOOKUPS_BEFORE_LISTING: usize = 3;

/// Single lookups remembered for one directory before those that have aged are cleared away.
const MAX_LOOKUPS: usize = 1000;

/// Entries that one request lists.
const PAGE: usize = 999;

/// The answer to a lookup.
#[derive(Debug, Clone)]
pub struct Lookup {
    pub entry: Option<Entry>,
    /// How long the answer may still be believed.
    pub valid: Duration,
    /// When the server was asked: what was changed here since is not in the answer of itself.
    pub asked: Instant,
}

#[derive(Default)]
struct Directory {
    listing: Option<Arc<Listing>>,
    /// A listing under way; whoever wants it holds it.
    growing: Weak<Listing>,
    lookups: HashMap<Box<[u8]>, (Option<Entry>, Instant)>,
    /// Single lookups that came within the time to live of each other.
    lookups_in_a_row: usize,
    last_lookup: Option<Instant>,
    /// What the last listing held.
    known_len: Option<usize>,
    /// What was asked before this is not to be remembered: something was seen to have changed.
    invalidated: Option<Instant>,
}

impl Directory {
    fn weight(&self) -> usize {
        1 + self.lookups.len() + self.listing.as_ref().map_or(0, |listing| listing.len())
    }

    /// Counts a lookup that has to ask. `true`: listing the directory is the cheaper way to find out.
    fn prefers_listing(&mut self, ttl: Duration) -> bool {
        if self.last_lookup.is_none_or(|at| at.elapsed() > ttl) {
            self.lookups_in_a_row = 0;
        }
        self.last_lookup = Some(Instant::now());
        self.lookups_in_a_row += 1;
        match self.known_len {
            // One page costs less than the two requests of a lookup.
            Some(len) if len < PAGE => true,
            known => self.lookups_in_a_row > LOOKUPS_BEFORE_LISTING.max(known.unwrap_or(0) / PAGE),
        }
    }

    fn is_since(&self, asked: Instant) -> bool {
        self.invalidated.is_none_or(|at| asked > at)
    }
}

struct Directories {
    lru: LruCache<Box<str>, Directory>,
    weight: usize,
}

struct Inner {
    store: Arc<dyn ObjectStore>,
    stats: Arc<Stats>,
    budget: Arc<Budget>,
    dirs: Mutex<Directories>,
    probes: SingleFlight<String, Probed>,
    overlay: Overlay,
    ttl: Duration,
    negative_ttl: Duration,
    max_weight: usize,
}

/// See the module.
#[derive(Clone)]
pub struct DirCache(Arc<Inner>);

impl DirCache {
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, tuning: &Tuning, stats: Arc<Stats>, budget: Arc<Budget>) -> Self {
        Self(Arc::new(Inner {
            store,
            stats,
            budget,
            dirs: Mutex::new(Directories { lru: LruCache::unbounded(), weight: 0 }),
            probes: SingleFlight::new(),
            overlay: Overlay::new(tuning.metadata_ttl),
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
        let mut answer = self.ask(prefix, name).await?;
        answer.entry = self.changed_since(prefix, name, answer.asked, answer.entry);
        Ok(answer)
    }

    async fn ask(&self, prefix: &str, name: &[u8]) -> Result<Lookup, StoreError> {
        let inner = &*self.0;
        let now = Instant::now();
        if name == name::PLACEHOLDER.as_bytes() {
            return Ok(Lookup { entry: None, valid: inner.negative_ttl, asked: now });
        }
        if let Some((entry, valid)) = inner.overlay.get(prefix, name) {
            return Ok(Lookup { entry, valid, asked: now });
        }
        let list_first = match inner.remembered(prefix, name) {
            Remembered::Answer(answer) => return Ok(answer),
            Remembered::Nothing { list_first } => list_first,
        };
        if !(list_first || name::needs_listing(name) || inner.store.is_listed_only(prefix)) {
            return self.probe(prefix, name).await;
        }
        let mut listing = self.listing(prefix);
        listing.complete().await?;
        let mut entry = listing.find(name);
        if entry.is_none() && inner.negative_ttl < inner.ttl {
            // The listing is believed, but not for what it does not contain.
            listing = self.listing_within(prefix, inner.negative_ttl);
            listing.complete().await?;
            entry = listing.find(name);
        }
        let ttl = if entry.is_some() { inner.ttl } else { inner.negative_ttl };
        Ok(Lookup { valid: listing.valid_for(ttl), entry, asked: listing.begun })
    }

    /// The listing of a directory, fresh or on its way.
    #[must_use]
    pub fn listing(&self, prefix: &str) -> Arc<Listing> {
        self.listing_within(prefix, self.0.ttl)
    }

    fn listing_within(&self, prefix: &str, ttl: Duration) -> Arc<Listing> {
        let inner = &self.0;
        let mut dirs = inner.dirs.lock();
        let directory = dirs.entry(prefix);
        if let Some(listing) = &directory.listing
            && !listing.valid_for(ttl).is_zero()
        {
            return Arc::clone(listing);
        }
        if let Some(listing) = directory.growing.upgrade()
            && directory.is_since(listing.begun)
        {
            return listing;
        }
        let listing = Arc::new(Listing::new());
        directory.growing = Arc::downgrade(&listing);
        drop(dirs);
        tokio::spawn(fill(Arc::clone(inner), prefix.to_owned(), Arc::downgrade(&listing)));
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
    pub fn changed(&self, prefix: &str, name: &[u8], entry: Option<Entry>, pinned: bool) {
        self.0.overlay.set(prefix, name, entry, pinned);
        // A listing that is under way may have missed it.
        if let Some(directory) = self.0.dirs.lock().lru.get_mut(prefix) {
            directory.invalidated = Some(Instant::now());
        }
    }

    /// What a name stands for by a change made here, if there is one.
    #[must_use]
    pub fn change(&self, prefix: &str, name: &[u8]) -> Option<Option<Entry>> {
        self.0.overlay.get(prefix, name).map(|(entry, _)| entry)
    }

    /// What a name in a listing stands for by a change made here that the listing may miss.
    #[must_use]
    pub fn change_beside(&self, prefix: &str, name: &[u8], listing: &Listing) -> Option<Option<Entry>> {
        self.0.overlay.since(prefix, name, listing.begun)
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

    /// What was changed here and may be missing in what is asked for at this time, by name.
    #[must_use]
    pub fn changes(&self, prefix: &str, asked: Instant) -> Vec<(Box<[u8]>, Option<Entry>)> {
        self.0.overlay.all_since(prefix, asked)
    }

    /// A directory was made here: it is known to be empty.
    pub fn made(&self, prefix: &str) {
        let listing = Arc::new(Listing::empty());
        self.0.overlay.forget_below(prefix);
        self.0.keep(prefix, listing);
    }

    /// Forgets everything below a prefix, which was moved or removed.
    pub fn forget_below(&self, prefix: &str) {
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
        self.listing(prefix).complete().await
    }

    /// Whether a directory holds anything but `name`, as far as that is known without asking.
    #[must_use]
    pub fn holds_others(&self, prefix: &str, name: &[u8]) -> Option<bool> {
        let changes = self.changes(prefix, Instant::now());
        if changes.iter().any(|(other, entry)| **other != *name && entry.is_some()) {
            return Some(true);
        }
        let listing = self.0.dirs.lock().lru.get(prefix)?.listing.clone()?;
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
        let (kind, asked) = self.0.probes.run(key.clone(), move || probe(store, key)).await?;
        let entry = kind.map(|kind| {
            let is_link = matches!(kind, Kind::Link(_));
            let component = is_link.then(|| format!("{component}{}", name::LINK_SUFFIX).into_boxed_str());
            Entry { name: name.into(), component, kind }
        });
        self.0.remember(prefix, name, entry.clone(), asked);
        let ttl = if entry.is_some() { self.0.ttl } else { self.0.negative_ttl };
        Ok(Lookup { entry, valid: ttl.saturating_sub(asked.elapsed()), asked })
    }
}

/// What a probe found, and when it asked.
type Probed = Result<(Option<Kind>, Instant), StoreError>;

/// What the server has under this key: a folder, else an object, else a symbolic link, else nothing.
async fn probe(store: Arc<dyn ObjectStore>, key: String) -> Probed {
    let asked = Instant::now();
    let first = |prefix: String| ListRequest { prefix, limit: 1, ..ListRequest::default() };
    // The object is listed, not asked for by HEAD: a listing's times are in milliseconds, HEAD's in seconds,
    // and a file must not change its time with the way it was found. It is the first key with its own prefix.
    let link_key = format!("{key}{}", name::LINK_SUFFIX);
    let (object, folder, link) = (first(key.clone()), first(format!("{key}/")), first(link_key.clone()));
    let (object, folder, link) = futures::join!(store.list(&object), store.list(&folder), store.list(&link));
    if !folder?.objects.is_empty() {
        return Ok((Some(Kind::Directory), asked));
    }
    let is = |key: String| move |object: &ListedObject| object.key == key;
    let file = object?.objects.into_iter().next().filter(is(key));
    if let Some(file) = file {
        return Ok((Some(Kind::File(file.into())), asked));
    }
    let link = link?.objects.into_iter().next().filter(is(link_key));
    Ok((link.map(|link| Kind::Link(link.into())), asked))
}

/// Ends a listing whose task ends without doing so, by a panic: nobody must wait for it for ever.
struct Fill {
    inner: Arc<Inner>,
    prefix: String,
    listing: Weak<Listing>,
}

impl Fill {
    fn fail(&self, error: StoreError) {
        if let Some(listing) = self.listing.upgrade() {
            self.inner.drop_growing(&self.prefix, &listing);
            listing.fail(error);
        }
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.fail(StoreError {
                kind: StoreErrorKind::Protocol,
                operation: "ListObjectsV2",
                key: self.prefix.clone(),
                status: 0,
                code: String::new(),
                message: "the listing could not be understood".to_owned(),
            });
        }
    }
}

/// Reads a listing to its end, or until nobody wants it any more.
async fn fill(inner: Arc<Inner>, prefix: String, listing: Weak<Listing>) {
    let mut folder = PageFolder::new(&prefix);
    let mut request = ListRequest { prefix: prefix.clone(), fold: true, ..ListRequest::default() };
    let fill = Fill { inner, prefix, listing };
    loop {
        let page = match fill.inner.store.list(&request).await {
            Ok(page) => page,
            Err(error) => return fill.fail(error),
        };
        let Some(listing) = fill.listing.upgrade() else { return };
        request.after.clone_from(&page.next);
        folder.add(&listing, page);
        if request.after.is_none() {
            report_unshowable(&fill.inner.stats, &folder.unshowable);
            fill.inner.keep(&fill.prefix, listing);
            return;
        }
    }
}

fn report_unshowable(stats: &Stats, keys: &[String]) {
    let Some(first) = keys.first() else { return };
    if stats.unshowable_keys.get() == 0 {
        tracing::warn!(
            key = first,
            count = keys.len(),
            "keys that cannot be shown as a file name are left out; rename them with another client"
        );
    }
    stats.unshowable_keys.add(keys.len() as u64);
}

enum Remembered {
    Answer(Lookup),
    /// `list_first`: a listing of the directory is the cheaper way to find out.
    Nothing {
        list_first: bool,
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
                return Remembered::Answer(Lookup { entry, valid, asked: listing.begun });
            }
        }
        if let Some((entry, at)) = directory.lookups.get(name) {
            let valid = ttl(entry).saturating_sub(at.elapsed());
            if !valid.is_zero() {
                return Remembered::Answer(Lookup { entry: entry.clone(), valid, asked: *at });
            }
        }
        // Where only the absence has become too old, a probe is cheaper than listing all again.
        let list_first = directory.prefers_listing(self.ttl) && !listing_holds;
        Remembered::Nothing { list_first }
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

    fn keep(&self, prefix: &str, listing: Arc<Listing>) {
        let mut dirs = self.dirs.lock();
        let directory = dirs.entry(prefix);
        directory.known_len = Some(listing.len());
        if !directory.is_since(listing.begun) {
            return;
        }
        self.overlay.listed(prefix, listing.begun);
        listing.charge(&self.budget);
        let before = directory.weight();
        directory.listing = Some(listing);
        directory.growing = Weak::new();
        directory.lookups = HashMap::new();
        let after = directory.weight();
        self.reweigh(&mut dirs, before, after);
    }

    fn drop_growing(&self, prefix: &str, listing: &Arc<Listing>) {
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
