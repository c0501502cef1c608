//! One directory as one listing saw it: append-only while pages arrive, then immutable.
//!
//! A reader keeps the listing it began with, so that its offsets stay true under change. Entries stand in one
//! text and one vector of fixed-size records: about 48 bytes and the name for each.
//!
//! Lock rank: `state` is a leaf, never held across an await.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::attrs::Modified;
use crate::budget::{Budget, Share};
use crate::etag::ETag;
use crate::name;
use crate::store::{ListPage, ListedObject, StoreError};

/// Which version of a file a listing shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileVersion {
    pub etag: ETag,
    pub size: u64,
    /// The ETag alone is a hash of the content and misses a touch.
    pub modified: Modified,
}

impl From<ListedObject> for FileVersion {
    fn from(object: ListedObject) -> Self {
        Self { etag: object.etag, size: object.size, modified: Modified::listed(object.modified_ms) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Directory,
    File(FileVersion),
    /// A symbolic link; the object holds its target.
    Link(FileVersion),
    /// A node of this mount alone.
    Node(NodeKind),
}

/// What is in no bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind {
    Pipe,
    Socket,
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: Box<[u8]>,
    /// The key component, where it is not the name itself.
    pub component: Option<Box<str>>,
    pub kind: Kind,
}

impl Entry {
    /// What a component of a key is shown as.
    #[must_use]
    pub fn of_component(component: &str, kind: Kind) -> Self {
        let name = name::from_component(component);
        let component = (component.as_bytes() != &*name).then(|| component.into());
        Self { name: name.into(), component, kind }
    }

    /// The object's version; `None` for what is not one object.
    #[must_use]
    pub fn version(&self) -> Option<&FileVersion> {
        match &self.kind {
            Kind::Directory | Kind::Node(_) => None,
            Kind::File(version) | Kind::Link(version) => Some(version),
        }
    }

    pub fn version_mut(&mut self) -> Option<&mut FileVersion> {
        match &mut self.kind {
            Kind::Directory | Kind::Node(_) => None,
            Kind::File(version) | Kind::Link(version) => Some(version),
        }
    }

    /// Whether this is a file that the bucket never held under this name.
    #[must_use]
    pub fn is_staged(&self) -> bool {
        self.version().is_some_and(|version| version.etag == ETag::none())
    }

    /// The component of the key that this entry stands for.
    #[must_use]
    pub fn component(&self) -> &str {
        match &self.component {
            Some(component) => component,
            None => std::str::from_utf8(&self.name).unwrap_or_default(),
        }
    }
}

/// A component that is the name itself and not stored again. An empty component is not.
const SAME: u16 = u16::MAX;

struct Record {
    at: u32,
    name_len: u8,
    /// [`SAME`] where the component is the name.
    component_len: u16,
    is_directory: bool,
    is_link: bool,
    modified_ms: i64,
    size: u64,
    etag: ETag,
}

#[derive(Default)]
struct State {
    text: Vec<u8>,
    records: Vec<Record>,
    /// Record numbers in the order of their names; filled when the listing is complete.
    by_name: Vec<u32>,
}

/// How far a listing has come.
#[derive(Debug, Clone)]
enum Progress {
    Growing(usize),
    Complete,
    Failed(StoreError),
}

const NO_LIMIT: usize = usize::MAX;
const GIVEN_UP: usize = 0;

/// The entries of one directory.
pub struct Listing {
    state: RwLock<State>,
    progress: watch::Sender<Progress>,
    begun: Mutex<Instant>,
    completed: OnceLock<Instant>,
    /// Pages that may be read for lookups alone; [`NO_LIMIT`] once a reader wants it, [`GIVEN_UP`] once they were read.
    limit: AtomicUsize,
    /// It was read ahead by a walk, and nobody has come for it yet.
    is_ahead: AtomicBool,
    /// What it takes of the memory.
    share: OnceLock<Share>,
    /// The folder is kept by a placeholder, or by an object of its own key.
    placeholder: AtomicBool,
    marker: AtomicBool,
}

impl Listing {
    pub(super) fn new() -> Self {
        Self {
            state: RwLock::default(),
            progress: watch::Sender::new(Progress::Growing(0)),
            begun: Mutex::new(Instant::now()),
            completed: OnceLock::new(),
            limit: AtomicUsize::new(NO_LIMIT),
            is_ahead: AtomicBool::new(false),
            share: OnceLock::new(),
            placeholder: AtomicBool::new(false),
            marker: AtomicBool::new(false),
        }
    }

    /// When the first of its pages was asked for: what changed since may be missing.
    pub(super) fn begun(&self) -> Instant {
        *self.begun.lock()
    }

    /// A listing that lookups share: to be given up after so many pages, unless a reader comes.
    pub(super) fn for_lookups(pages: usize) -> Self {
        Self { limit: AtomicUsize::new(pages.max(1)), ..Self::new() }
    }

    /// The listing of a directory that has just been made.
    pub(super) fn empty() -> Self {
        let listing = Self::new();
        listing.placeholder.store(true, Ordering::Relaxed);
        listing.finish(Instant::now());
        listing
    }

    /// Takes over what a walk has read of the directory. A listing ages from when it was asked for.
    pub(super) fn take(&self, folder: &mut PageFolder, page: ListPage, asked: Instant) {
        *self.begun.lock() = asked;
        folder.add_as_of(self, page, asked);
    }

    pub(super) fn has_limit(&self) -> bool {
        self.limit.load(Ordering::Relaxed) != NO_LIMIT
    }

    /// A reader wants it to its end. `false`: too late, it is given up.
    pub(super) fn lift_limit(&self) -> bool {
        let lifted = |limit| (limit != GIVEN_UP).then_some(NO_LIMIT);
        self.limit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, lifted).is_ok()
    }

    /// Whether as many pages have been read as lookups are worth.
    pub(super) fn gives_up(&self, pages: usize) -> bool {
        let given_up = |limit| (limit <= pages).then_some(GIVEN_UP);
        self.limit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, given_up).is_ok()
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.limit.load(Ordering::Relaxed) == GIVEN_UP
    }

    pub(super) fn set_ahead(&self) {
        self.is_ahead.store(true, Ordering::Relaxed);
    }

    /// The first to come for what was read ahead is told so.
    pub(super) fn was_ahead(&self) -> bool {
        self.is_ahead.swap(false, Ordering::Relaxed)
    }

    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.completed.get().is_some()
    }

    /// Counts what it takes of the memory, as long as it lives. It must be complete.
    pub(super) fn charge(&self, budget: &Arc<Budget>) {
        let state = self.state.read();
        let records = state.records.len() * (size_of::<Record>() + size_of::<u32>());
        let bytes = (size_of::<Self>() + records + state.text.len()) as u64;
        self.share.get_or_init(|| budget.take(bytes));
    }

    /// Whether the folder has a placeholder.
    pub(super) fn has_placeholder(&self) -> bool {
        self.placeholder.load(Ordering::Relaxed)
    }

    pub(super) fn set_placeholder(&self) {
        self.placeholder.store(true, Ordering::Relaxed);
    }

    /// Whether the folder's own key is an object.
    pub(super) fn has_marker(&self) -> bool {
        self.marker.load(Ordering::Relaxed)
    }

    /// Entries so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.read().records.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How much longer the listing may be believed: it ages from its end on.
    #[must_use]
    pub fn valid_for(&self, ttl: Duration) -> Duration {
        ttl.saturating_sub(self.completed.get().map_or(Duration::ZERO, Instant::elapsed))
    }

    /// Waits until entry `index` is there: `false` if the listing ends before it.
    ///
    /// # Errors
    /// When the listing could not be read to that point.
    pub async fn reaches(&self, index: usize) -> Result<bool, StoreError> {
        let mut progress = self.progress.subscribe();
        loop {
            match &*progress.borrow_and_update() {
                Progress::Growing(count) if *count > index => return Ok(true),
                Progress::Growing(_) => {}
                Progress::Complete => return Ok(self.len() > index),
                Progress::Failed(error) => return Err(error.clone()),
            }
            if progress.changed().await.is_err() {
                // The sender lives in `self`.
                return Ok(self.len() > index);
            }
        }
    }

    /// Waits for a page, or for the end of the listing. `true`: it has ended.
    ///
    /// # Errors
    /// When the listing could not be read so far.
    pub(super) async fn begins(&self) -> Result<bool, StoreError> {
        self.reaches(0).await.map(|_| self.is_complete())
    }

    /// Where to cut the key space so that the parts have about as many entries each: the components there.
    pub(super) fn cuts(&self, part: usize) -> VecDeque<String> {
        let state = self.state.read();
        let cuts = (1..).map(|number| number * part - 1).take_while(|&at| at < state.records.len());
        let mut cuts: Vec<String> = cuts.map(|at| state.entry(at).component().to_owned()).collect();
        // Pages show folders behind objects.
        cuts.sort_unstable();
        cuts.into()
    }

    /// Whether so many directories have names behind this one.
    pub(super) fn has_directories_after(&self, name: &[u8], count: usize) -> bool {
        let state = self.state.read();
        let behind = state.by_name.iter().rev().map(|&record| record as usize);
        let behind = behind.take_while(|&record| state.name(record) > name);
        behind.filter(|&record| state.records[record].is_directory).take(count).count() == count
    }

    /// Waits for the end of the listing.
    pub(super) async fn complete(&self) -> Result<(), StoreError> {
        self.reaches(usize::MAX - 1).await.map(|_| ())
    }

    /// The entry with this name. The listing must be complete.
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<Entry> {
        self.position(name).and_then(|position| self.get(position))
    }

    /// Where a name stands, in the order in which pages arrived. The listing must be complete.
    #[must_use]
    pub fn position(&self, name: &[u8]) -> Option<usize> {
        let state = self.state.read();
        let slot = state.by_name.binary_search_by(|&record| state.name(record as usize).cmp(name)).ok()?;
        Some(state.by_name[slot] as usize)
    }

    /// The entry at a position, in the order in which pages arrived.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Entry> {
        let state = self.state.read();
        (index < state.records.len()).then(|| state.entry(index))
    }

    /// Ends a listing that is still growing.
    pub(super) fn fail(&self, error: StoreError) {
        self.progress.send_replace(Progress::Failed(error));
    }

    fn finish(&self, as_of: Instant) {
        let mut state = self.state.write();
        state.text.shrink_to_fit();
        state.records.shrink_to_fit();
        let count = u32::try_from(state.records.len()).unwrap_or(u32::MAX);
        let mut by_name: Vec<u32> = (0..count).collect();
        by_name.sort_unstable_by(|&a, &b| state.name(a as usize).cmp(state.name(b as usize)));
        state.by_name = by_name;
        drop(state);
        // Only one task fills a listing, and it ends once.
        let _first = self.completed.set(as_of);
        self.progress.send_replace(Progress::Complete);
    }
}

impl State {
    fn name(&self, index: usize) -> &[u8] {
        let record = &self.records[index];
        &self.text[record.at as usize..][..usize::from(record.name_len)]
    }

    fn entry(&self, index: usize) -> Entry {
        let record = &self.records[index];
        let name = self.name(index).into();
        let component = (record.component_len != SAME).then(|| {
            let rest = &self.text[record.at as usize + usize::from(record.name_len)..];
            String::from_utf8_lossy(&rest[..usize::from(record.component_len)]).into()
        });
        let modified = Modified::listed(record.modified_ms);
        let version = FileVersion { etag: record.etag.clone(), size: record.size, modified };
        let kind = match (record.is_directory, record.is_link) {
            (true, _) => Kind::Directory,
            (_, true) => Kind::Link(version),
            _ => Kind::File(version),
        };
        Entry { name, component, kind }
    }

    fn push(&mut self, name: &[u8], component: &str, file: Option<FileVersion>, is_link: bool) -> bool {
        let (Ok(at), Ok(name_len)) = (u32::try_from(self.text.len()), u8::try_from(name.len())) else {
            return false;
        };
        let (explicit, component_len) = if component.as_bytes() == name {
            ("", SAME)
        } else {
            let Ok(len) = u16::try_from(component.len()) else { return false };
            (component, len)
        };
        self.text.extend_from_slice(name);
        self.text.extend_from_slice(explicit.as_bytes());
        let is_directory = file.is_none();
        let file = file.unwrap_or(FileVersion { etag: ETag::none(), size: 0, modified: Modified::listed(0) });
        self.records.push(Record {
            at,
            name_len,
            component_len,
            is_directory,
            is_link,
            modified_ms: file.modified.ms,
            size: file.size,
            etag: file.etag,
        });
        true
    }
}

/// Turns pages of keys into entries: hides placeholders, gives every key one name.
///
/// An object `a` whose folder `a/` exists is shown beside it, and `a/` may stand pages behind `a` in byte order
/// (`a-1`, `a.txt` lie between): such objects wait until the listing has passed the place of the folder.
pub(super) struct PageFolder {
    prefix: String,
    waiting: Vec<(String, FileVersion)>,
    /// Symbolic links, until all other names are known.
    links: Vec<(String, FileVersion)>,
    /// Names that were decoded from something else: only these can meet each other.
    decoded: HashSet<Box<[u8]>>,
    /// Keys that cannot be shown.
    pub(super) unshowable: Vec<String>,
}

impl PageFolder {
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            waiting: Vec::new(),
            links: Vec::new(),
            decoded: HashSet::new(),
            unshowable: Vec::new(),
        }
    }

    /// Adds a page to the listing, which is complete with the page that has no `next`.
    pub(super) fn add(&mut self, listing: &Listing, page: ListPage) {
        self.add_as_of(listing, page, Instant::now());
    }

    fn add_as_of(&mut self, listing: &Listing, page: ListPage, as_of: Instant) {
        let prefix_len = self.prefix.len();
        let folders: HashSet<&str> = page.prefixes.iter().map(|p| &p[prefix_len..p.len() - 1]).collect();
        for ListedObject { key, size, etag, modified_ms } in page.objects {
            let component = &key[prefix_len..];
            // `dir/` with nothing in it is how some clients make a folder.
            let is_marker = component.is_empty() && size == 0;
            if component == name::PLACEHOLDER {
                listing.set_placeholder();
            } else if is_marker {
                listing.marker.store(true, Ordering::Relaxed);
            } else {
                self.waiting.push((
                    component.to_owned(),
                    FileVersion { etag, size, modified: Modified::listed(modified_ms) },
                ));
            }
        }
        let mut state = listing.state.write();
        for (component, version) in std::mem::take(&mut self.waiting) {
            let has_folder = folders.contains(component.as_str());
            let folder = format!("{}{component}/", self.prefix);
            let undecided = page.next.as_ref().is_some_and(|next| *next <= folder);
            let is_link = component.len() > name::LINK_SUFFIX.len() && component.ends_with(name::LINK_SUFFIX);
            if undecided && !has_folder {
                self.waiting.push((component, version));
            } else if is_link && !has_folder {
                self.links.push((component, version));
            } else {
                self.push(&mut state, &component, Some(version), has_folder);
            }
        }
        for folder in &page.prefixes {
            self.push(&mut state, &folder[prefix_len..folder.len() - 1], None, false);
        }
        if page.next.is_none() {
            self.push_links(&mut state);
        }
        let count = state.records.len();
        drop(state);
        if page.next.is_none() {
            listing.finish(as_of);
        } else {
            listing.progress.send_replace(Progress::Growing(count));
        }
    }

    /// Symbolic links, whose names must not be taken by anything else: so they come last.
    fn push_links(&mut self, state: &mut State) {
        let links = std::mem::take(&mut self.links);
        if links.is_empty() {
            return;
        }
        let taken: HashSet<Box<[u8]>> =
            (0..state.records.len()).map(|index| state.name(index).into()).collect();
        for (component, version) in links {
            let stem = &component[..component.len() - name::LINK_SUFFIX.len()];
            let name = name::from_component(stem);
            if name::alias(stem).is_some() || taken.contains(&*name) {
                self.push(state, &component, Some(version), false);
            } else if !state.push(&name, &component, Some(version), true) {
                self.unshowable.push(format!("{}{component}", self.prefix));
            }
        }
    }

    fn push(&mut self, state: &mut State, component: &str, file: Option<FileVersion>, has_folder: bool) {
        let mut name = name::alias(component).unwrap_or_else(|| name::from_component(component).into_owned());
        if has_folder {
            name = name::beside(&name);
        }
        if name != component.as_bytes() || !component.bytes().all(name::is_allowed) {
            if self.decoded.contains(name.as_slice()) {
                name = name::beside(&name);
            }
            if !self.decoded.insert(name.as_slice().into()) {
                self.unshowable.push(format!("{}{component}", self.prefix));
                return;
            }
        }
        if !state.push(&name, component, file, false) {
            self.unshowable.push(format!("{}{component}", self.prefix));
        }
    }
}

#[cfg(test)]
mod tests;
