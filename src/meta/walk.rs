//! Reading ahead of a walk: who has gone through a few sub-folders in order probably goes through the rest, so one flat
//! listing of all that is below brings their listings, folded here, many to a page.
//!
//! A walk runs at most as far ahead as it was of use, and ends when nobody follows it, when the folders turn out to be
//! so large that each is better listed by itself, or when something below is moved. A folder that it does not bring
//! soon is listed by itself: nobody waits for a guess longer than for two pages.
//!
//! Lock rank: a walk's `state` is a leaf, `Walks` comes before it; neither is held across an await.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::dir_cache::{Inner, PAGE};
use super::fill;
use super::listing::{Listing, PageFolder};
use super::pages::{Page, Pages};
use crate::store::{ListPage, ListedObject};

/// Walks at a time.
const MAX_WALKS: usize = 8;

/// Entries that a walk may be ahead before it has been of any use, and at most.
const FIRST_AHEAD: usize = 3 * PAGE;
const MAX_AHEAD: usize = 16 * PAGE;

/// Folders that a page must bring, for the flat listing to be the cheaper one.
const FOLDERS_A_PAGE: usize = 2;

/// Pages one after the other without the end of a folder, after which a walk ends.
const DRY_PAGES: usize = 2;

/// A walk that nobody has followed for so long ends.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sorts just before a slash.
const BEFORE_SLASH: char = '.';
/// Sorts behind everything that a key can contain.
const LAST: char = '\u{10FFFF}';

#[derive(Default)]
struct State {
    /// All keys up to here are folded.
    position: String,
    /// Folders that somebody waits for.
    waiting: HashMap<String, Weak<Listing>>,
    /// Entries that nobody has come for yet, and those that somebody has.
    ahead: usize,
    used: usize,
    /// The folders are too large for it.
    is_vain: bool,
    ended: bool,
}

impl State {
    /// Whether the walk has gone by a folder.
    fn has_passed(&self, prefix: &str) -> bool {
        *self.position >= *prefix && !self.position.starts_with(prefix)
    }
}

/// One flat listing under way.
pub(super) struct Walk {
    /// What it goes through: a prefix.
    root: String,
    max_ahead: usize,
    state: Mutex<State>,
    wake: Notify,
}

/// The walks under way.
#[derive(Default)]
pub(super) struct Walks(Mutex<Vec<Arc<Walk>>>);

impl Walks {
    fn find(&self, prefix: &str, is_it: impl Fn(&Walk) -> bool) -> Option<Arc<Walk>> {
        let walks = self.0.lock();
        walks.iter().find(|walk| prefix.starts_with(&walk.root) && is_it(walk)).cloned()
    }

    /// Whether a walk will bring a folder: then the listing waits for it.
    pub fn brings(&self, prefix: &str, listing: &Arc<Listing>) -> bool {
        self.find(prefix, |walk| walk.waits(prefix, listing)).is_some()
    }

    /// Somebody has come for what was read ahead.
    pub fn used(&self, prefix: &str, listing: &Listing) {
        if listing.was_ahead()
            && let Some(walk) = self.find(prefix, |_| true)
        {
            let mut state = walk.state.lock();
            let weight = weight(listing);
            state.ahead = state.ahead.saturating_sub(weight);
            state.used += weight;
            drop(state);
            walk.wake.notify_one();
        }
    }

    /// Ends the walks that go through a place: what they have asked for is no longer true.
    pub fn stop(&self, prefix: &str) {
        let overlaps = |walk: &Walk| walk.root.starts_with(prefix) || prefix.starts_with(&walk.root);
        for walk in self.0.lock().iter().filter(|walk| overlaps(walk)) {
            walk.state.lock().ended = true;
            walk.wake.notify_one();
        }
    }

    /// Begins a walk below `root` at one of its folders. `None`: there are enough.
    fn begin(&self, root: &str, first: &str, max_ahead: usize) -> Option<Arc<Walk>> {
        let mut walks = self.0.lock();
        if walks.len() >= MAX_WALKS || walks.iter().any(|walk| walk.root == root) {
            return None;
        }
        let state = State { position: start(first), ..State::default() };
        let max_ahead = max_ahead.min(MAX_AHEAD);
        let walk = Walk { root: root.to_owned(), max_ahead, state: Mutex::new(state), wake: Notify::new() };
        walks.push(Arc::new(walk));
        walks.last().cloned()
    }
}

fn weight(listing: &Listing) -> usize {
    1 + listing.len()
}

/// What sorts just before all keys of a folder.
fn start(folder: &str) -> String {
    format!("{}{BEFORE_SLASH}{LAST}", folder.strip_suffix('/').unwrap_or(folder))
}

/// Begins a walk below `root` that brings `first`, one of its folders, for which `listing` waits, and what follows.
pub(super) fn spawn(inner: &Arc<Inner>, root: &str, first: &str, listing: &Arc<Listing>) -> bool {
    let Some(walk) = inner.walks.begin(root, first, inner.max_weight / 4) else { return false };
    let is_waiting = walk.waits(first, listing);
    let running = Running { inner: Arc::clone(inner), walk };
    tokio::spawn(async move { running.run().await });
    is_waiting
}

impl Walk {
    fn waits(&self, prefix: &str, listing: &Arc<Listing>) -> bool {
        let mut state = self.state.lock();
        if state.ended || state.has_passed(prefix) || prefix == self.root {
            return false;
        }
        state.waiting.insert(prefix.to_owned(), Arc::downgrade(listing));
        drop(state);
        self.wake.notify_one();
        true
    }

    /// Pages that may be asked for now; `None`: the walk has ended.
    fn allowed(&self) -> Option<usize> {
        let state = self.state.lock();
        if state.ended {
            return None;
        }
        let limit = (FIRST_AHEAD + state.used).min(self.max_ahead);
        Some(limit.saturating_sub(state.ahead) / PAGE)
    }

    /// Takes out what waits and satisfies a condition.
    fn waiting(&self, which: impl Fn(&State, &str) -> bool) -> Vec<(String, Arc<Listing>)> {
        let mut state = self.state.lock();
        let taken: Vec<String> =
            state.waiting.keys().filter(|prefix| which(&state, prefix)).cloned().collect();
        let take = |prefix: String| {
            let listing = state.waiting.remove(&prefix)?.upgrade()?;
            Some((prefix, listing))
        };
        taken.into_iter().filter_map(take).collect()
    }
}

/// The task of a walk. However it ends, whoever waits gets a listing.
struct Running {
    inner: Arc<Inner>,
    walk: Arc<Walk>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.inner.walks.0.lock().retain(|walk| !Arc::ptr_eq(walk, &self.walk));
        let was_in_vain = {
            let mut state = self.walk.state.lock();
            state.ended = true;
            state.is_vain || state.used < state.ahead
        };
        if was_in_vain {
            self.inner.note_vain_walk(&self.walk.root);
        }
        self.list_by_themselves(|_, _| true);
    }
}

impl Running {
    async fn run(&self) {
        let (inner, walk) = (&self.inner, &self.walk);
        let after = walk.state.lock().position.clone();
        let mut pages = Pages::new(&inner.store, &walk.root, false, Some(after), VecDeque::new());
        let mut tree = Tree::new(&walk.root);
        let (mut count, mut folders, mut dry) = (0, 0, 0);
        loop {
            let Some(allowed) = walk.allowed() else { return };
            if allowed == 0 {
                // What would be read before and behind the pause is not put together.
                tree.tear();
                self.list_by_themselves(|_, _| true);
                let patience = inner.ttl.min(PATIENCE);
                if tokio::time::timeout(patience, walk.wake.notified()).await.is_err() {
                    return;
                }
                continue;
            }
            let page = tokio::select! {
                page = pages.next(allowed) => page,
                () = walk.wake.notified() => continue,
            };
            // An error is told to those who ask themselves.
            let Ok(Some(page)) = page else { return };
            if page.asked.elapsed() >= inner.ttl {
                return;
            }
            let position = page.page.next.clone();
            let complete = tree.add(page, position.is_none());
            count += 1;
            folders += complete.len();
            dry = if complete.is_empty() { dry + 1 } else { 0 };
            for folder in complete {
                self.keep(folder);
            }
            let Some(position) = position else {
                // All is here: whoever follows will come.
                walk.state.lock().ahead = 0;
                return;
            };
            walk.state.lock().position = position;
            self.list_by_themselves(|state, prefix| state.has_passed(prefix) || tree.is_large(prefix));
            if folders < count * FOLDERS_A_PAGE || dry >= DRY_PAGES {
                walk.state.lock().is_vain = true;
                return;
            }
        }
    }

    /// Lists by itself what the walk does not bring, or not soon.
    fn list_by_themselves(&self, which: impl Fn(&State, &str) -> bool) {
        for (prefix, listing) in self.walk.waiting(which) {
            fill::spawn(&self.inner, &prefix, &listing, VecDeque::new());
        }
    }

    /// Puts a folder into the directory cache, as the listing that somebody waits for, if somebody does.
    fn keep(&self, folder: Folder) {
        let waiting = self.walk.state.lock().waiting.remove(&folder.prefix).map(|weak| weak.upgrade());
        let is_wanted = waiting.is_some();
        let waiting = waiting.flatten();
        let Folder { prefix, page, asked, .. } = folder;
        if !self.inner.takes(&prefix, asked) {
            if let Some(listing) = waiting {
                fill::spawn(&self.inner, &prefix, &listing, VecDeque::new());
            }
            return;
        }
        let listing = waiting.unwrap_or_else(|| Arc::new(Listing::new()));
        let mut into_names = PageFolder::new(&prefix);
        listing.take(&mut into_names, page, asked);
        fill::report_unshowable(&self.inner.stats, &into_names.unshowable);
        let weight = weight(&listing);
        if !is_wanted {
            listing.set_ahead();
        }
        let is_kept = self.inner.keep_unless(&prefix, listing, || self.walk.state.lock().ended);
        let mut state = self.walk.state.lock();
        match is_wanted {
            true => state.used += weight,
            false if is_kept => state.ahead += weight,
            false => {}
        }
    }
}

/// A folder that is being put together.
struct Folder {
    prefix: String,
    page: ListPage,
    /// When the earliest of its pages was asked for.
    asked: Instant,
    /// Keys below it so far.
    keys: usize,
    /// Its beginning was not seen.
    is_torn: bool,
}

/// Folds keys in byte order into the folders below a prefix.
struct Tree {
    /// The folders around the last key, outermost first.
    open: Vec<Folder>,
}

impl Tree {
    /// The root itself has begun before the walk.
    fn new(root: &str) -> Self {
        let mut root = Folder::new(root.to_owned(), Instant::now());
        root.is_torn = true;
        Self { open: vec![root] }
    }

    /// Adds a page; gives the folders that are complete.
    fn add(&mut self, page: Page, is_last: bool) -> Vec<Folder> {
        let mut complete = vec![];
        for object in page.page.objects {
            self.close(&object.key, &mut complete);
            self.push(object, page.asked);
        }
        if let Some(next) = &page.page.next {
            self.close(next, &mut complete);
        }
        if is_last {
            complete.extend(self.open.drain(1..).rev());
        }
        complete.retain(|folder| !folder.is_torn);
        complete
    }

    /// Closes the folders that a key is not in.
    fn close(&mut self, key: &str, complete: &mut Vec<Folder>) {
        while self.open.len() > 1 && self.open.last().is_some_and(|folder| !key.starts_with(&folder.prefix)) {
            complete.extend(self.open.pop());
        }
    }

    fn push(&mut self, object: ListedObject, asked: Instant) {
        let Some(mut inmost) = self.open.last_mut() else { return };
        let mut at = inmost.prefix.len();
        while let Some(slash) = object.key[at..].find('/') {
            at += slash + 1;
            let prefix = object.key[..at].to_owned();
            if !inmost.is_torn {
                inmost.page.prefixes.push(prefix.clone());
            }
            self.open.push(Folder::new(prefix, asked));
            inmost = self.open.last_mut().expect("it was just put there");
        }
        if !inmost.is_torn {
            inmost.page.objects.push(object);
        }
        for folder in &mut self.open {
            folder.keys += 1;
            folder.asked = folder.asked.min(asked);
        }
    }

    /// Nothing is known any more of what was begun.
    fn tear(&mut self) {
        for folder in &mut self.open {
            folder.is_torn = true;
            folder.page = ListPage::default();
        }
    }

    /// Whether a folder is better listed by itself: it was not seen whole, or is not for a page of keys.
    fn is_large(&self, prefix: &str) -> bool {
        self.open.iter().any(|folder| folder.prefix == prefix && (folder.is_torn || folder.keys > PAGE))
    }
}

impl Folder {
    fn new(prefix: String, asked: Instant) -> Self {
        let page = ListPage::default();
        Self { prefix, page, asked, keys: 0, is_torn: false }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::etag::ETag;

    fn object(key: &str) -> ListedObject {
        ListedObject { key: key.to_owned(), size: 1, etag: ETag::new("x"), modified_ms: 1 }
    }

    /// What a directory shows: its objects and its folders.
    type Shown = BTreeMap<String, (Vec<String>, Vec<String>)>;

    /// Folds keys below `root/` in pages of so many; the tear comes behind this page.
    fn folded(keys: &[String], size: usize, tear: Option<usize>) -> Shown {
        let mut tree = Tree::new("root/");
        let mut shown = Shown::new();
        let pages: Vec<&[String]> = keys.chunks(size).collect();
        for (number, keys) in pages.iter().enumerate() {
            let is_last = number + 1 == pages.len();
            let next = keys.last().filter(|_| !is_last).map(|key| format!("{key}\u{1}"));
            let page =
                ListPage { objects: keys.iter().map(|key| object(key)).collect(), prefixes: vec![], next };
            for folder in tree.add(Page { page, asked: Instant::now() }, is_last) {
                let objects = folder.page.objects.into_iter().map(|object| object.key).collect();
                let twice = shown.insert(folder.prefix, (objects, folder.page.prefixes));
                assert_eq!(twice, None);
            }
            if tear == Some(number) {
                tree.tear();
            }
        }
        shown
    }

    /// The same, each directory by itself.
    fn directories(keys: &[String]) -> Shown {
        let mut shown = Shown::new();
        for key in keys {
            let slashes: Vec<usize> = key.match_indices('/').map(|(at, _)| at + 1).collect();
            for (number, &at) in slashes.iter().enumerate() {
                let (objects, prefixes) = shown.entry(key[..at].to_owned()).or_default();
                match slashes.get(number + 1) {
                    None => objects.push(key.clone()),
                    Some(&end) if prefixes.last().is_none_or(|last| *last != key[..end]) => {
                        prefixes.push(key[..end].to_owned());
                    }
                    Some(_) => {}
                }
            }
        }
        shown.remove("root/");
        shown
    }

    proptest! {
        #[test]
        fn a_flat_listing_is_folded_into_its_directories(
            keys in proptest::collection::btree_set("([ab!.-]{0,2}/){0,3}[ab!.-]{0,2}", 1..80),
            size in 1..30_usize,
            tear in proptest::option::of(0..6_usize),
        ) {
            let keys: Vec<String> = keys.iter().map(|key| format!("root/{key}")).collect();
            let wanted = directories(&keys);
            prop_assert_eq!(&folded(&keys, size, None), &wanted);
            // What a tear leaves is what it would be without.
            for (prefix, shown) in folded(&keys, size, tear) {
                prop_assert_eq!(Some(&shown), wanted.get(&prefix), "{}", prefix);
            }
        }
    }

    #[test]
    fn a_folder_is_passed_when_all_its_keys_are() {
        let at = |position: &str| State { position: position.to_owned(), ..State::default() };
        assert!(!at(&start("p/b/")).has_passed("p/b/"));
        assert!(at(&start("p/b/")).has_passed("p/a/") && at("p/b-1\u{1}").has_passed("p/a/"));
        assert!(!at("p/b/x\u{1}").has_passed("p/b/") && !at("p/b/x\u{1}").has_passed("p/"));
        assert!(at("p/b0").has_passed("p/b/"));
    }
}
