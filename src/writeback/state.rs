//! Everything about a draft but its bytes: where it goes, what it is made of, what is known of the object there.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::SystemTime;

use tokio::time::Instant;

use super::plan::Shape;
use super::ranges::Ranges;
use super::record::{Base, Successor};
use crate::attrs::Attrs;
use crate::etag::ETag;
use crate::store::{ObjectHead, ObjectHeaders, StoreError};

/// What was asked to change in an object's headers; what is not named stays.
#[derive(Debug, Clone, Default)]
pub struct HeaderChanges {
    pub content_type: Option<String>,
    pub cache_control: Option<String>,
    /// `None` removes an entry.
    pub metadata: BTreeMap<String, Option<String>>,
}

/// The version that a key is known to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    pub etag: ETag,
    pub size: u64,
}

impl Expected {
    /// Whether this is what the server has.
    #[must_use]
    pub fn is(&self, head: &ObjectHead) -> bool {
        head.etag == self.etag && head.size == self.size
    }
}

/// Everything about a draft but its bytes.
#[derive(Debug, Clone)]
pub struct State {
    /// Where it goes; `None` once its name is gone.
    pub key: Option<String>,
    pub size: u64,
    /// What was written here, or fetched.
    pub local: Ranges,
    /// What of `local` is known to be zeros, in the base as well as here, and takes up no room in the spool.
    pub holes: Ranges,
    /// What differs from the base, below `base_limit`.
    pub dirty: Ranges,
    pub base: Option<Base>,
    /// Bytes of the base that are still part of the file.
    pub base_limit: u64,
    /// What the key held when the file was opened, or after our last upload.
    pub expected: Option<Expected>,
    /// What a rename put it in the place of: no conflict.
    pub replaces: Option<Expected>,
    /// What a rename is putting in its place.
    pub gives_way: Option<Successor>,
    /// Size and time of versions whose upload failed, and which may have got through nevertheless.
    pub attempted: Vec<(u64, i64)>,
    /// Our last upload.
    pub uploaded: Option<Instant>,
    /// It was left in the spool: what the key holds now may be newer, also where it held nothing.
    pub is_recovered: bool,
    /// It got its name while no server answered: another client may have taken that, too.
    pub was_made_unseen: bool,
    /// The headers that the object at `key` has, where known.
    pub stored_headers: Option<ObjectHeaders>,
    pub changes: HeaderChanges,
    pub attrs: Attrs,
    /// The modification time was set, and is not that of the last write.
    pub mtime_is_set: bool,
    pub generation: u64,
    pub stored: u64,
    /// Why the last upload failed.
    pub error: Option<StoreError>,
    /// The generation whose upload failed while its caller waited, when, and why.
    pub upload_failed: Option<(u64, Instant, StoreError)>,
    /// The generation that a policy forbids, as its writer was told.
    pub told: Option<u64>,
    /// The errno of a write that did not reach the file. It stays until the file is truncated to nothing: without the
    /// bytes of that write, the rest is torn.
    pub failed: Option<i32>,
}

impl State {
    /// The state of a file that begins with what an object holds.
    #[must_use]
    pub fn on(key: &str, base: Option<Base>, attrs: Attrs) -> Self {
        let size = base.as_ref().map_or(0, |base| base.size);
        let expected = base.as_ref().map(|base| Expected { etag: ETag::new(&base.etag), size: base.size });
        Self {
            key: Some(key.to_owned()),
            size,
            local: Ranges::new(),
            holes: Ranges::new(),
            dirty: Ranges::new(),
            base,
            base_limit: size,
            expected,
            replaces: None,
            gives_way: None,
            attempted: vec![],
            uploaded: None,
            is_recovered: false,
            was_made_unseen: false,
            stored_headers: None,
            changes: HeaderChanges::default(),
            attrs,
            mtime_is_set: true,
            generation: 0,
            stored: 0,
            error: None,
            upload_failed: None,
            told: None,
            failed: None,
        }
    }

    /// Why an upload of this very content failed, if that was after `since`.
    #[must_use]
    pub fn failed_after(&self, since: Instant) -> Option<&StoreError> {
        let (generation, at, error) = self.upload_failed.as_ref()?;
        (*generation == self.generation && *at >= since).then_some(error)
    }

    /// Whether an object is what an upload of this state makes: by its size, and by a time in nanoseconds that nobody
    /// else set.
    #[must_use]
    pub fn is_what_was_sent(&self, head: &ObjectHead) -> bool {
        self.attrs.mtime.is_some()
            && head.size == self.size
            && Attrs::from_metadata(&head.metadata).mtime == self.attrs.mtime
    }

    /// Whether an object is an earlier version of ours, whose upload seemed to fail.
    #[must_use]
    pub fn was_attempted(&self, head: &ObjectHead) -> bool {
        let mtime = Attrs::from_metadata(&head.metadata).mtime;
        self.attempted.iter().any(|&(size, at)| size == head.size && Some(at) == mtime)
    }

    /// Whether the key may hold an object: of this file, or what this file is to replace. After an error, and after the
    /// end of an earlier daemon, nobody knows.
    #[must_use]
    pub fn may_be_stored(&self) -> bool {
        self.holds().is_some() || self.error.is_some() || self.is_recovered
    }

    /// The version that the key held when it was last seen.
    #[must_use]
    pub fn holds(&self) -> Option<&Expected> {
        self.expected.as_ref().or(self.replaces.as_ref())
    }

    /// The bucket holds what the file holds, in this version. What was set beside it may still be missing.
    pub(super) fn is_at(&mut self, key: &str, etag: &ETag, headers: &ObjectHeaders) {
        let size = self.size;
        self.is_recovered = false;
        self.was_made_unseen = false;
        self.replaces = None;
        self.gives_way = None;
        self.attempted.clear();
        self.expected = Some(Expected { etag: etag.clone(), size });
        self.uploaded = Some(Instant::now());
        self.stored_headers = Some(headers.clone());
        self.base = Some(Base { key: key.to_owned(), etag: etag.to_string(), size, modified_ms: 0 });
        // What was never written is zeros in the object, too: nobody has to ask for it.
        for hole in self.local.gaps(self.base_limit.min(size)..size) {
            self.local.insert(hole.clone());
            self.holes.insert(hole);
        }
        self.base_limit = size;
        self.dirty.clear();
    }

    /// The upload to another key counts for nothing: the file is of what it was of before.
    pub fn goes_back_to(&mut self, before: &Self) {
        self.key.clone_from(&before.key);
        self.expected.clone_from(&before.expected);
        self.replaces.clone_from(&before.replaces);
        self.attempted.clone_from(&before.attempted);
        self.stored_headers.clone_from(&before.stored_headers);
        self.uploaded = before.uploaded;
        self.base.clone_from(&before.base);
        self.base_limit = before.base_limit.min(self.size);
        self.dirty = before.dirty.iter().chain(self.dirty.iter()).collect();
        self.generation += 1;
    }

    /// Whether all bytes of the file are here.
    #[must_use]
    pub fn is_all_here(&self) -> bool {
        self.local.contains(0..self.base_limit.min(self.size))
    }

    /// What of a range nobody wrote to, and no base has, in order: zeros that the spool's file has no room for.
    #[must_use]
    pub fn unwritten(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut written = self.local.clone();
        self.holes.iter().for_each(|hole| written.remove(hole));
        written.gaps(range)
    }

    /// Bytes of holes that the bucket does not hold yet.
    #[must_use]
    pub fn holes_to_send(&self) -> u64 {
        self.local.missing(self.base_limit.min(self.size)..self.size)
    }

    /// Whether the key holds these bytes already: only what is set beside them is to be stored.
    #[must_use]
    pub fn is_settings_only(&self) -> bool {
        let is_of_key = |base: &Base| {
            self.key.as_ref() == Some(&base.key) && base.size == self.size && self.base_limit == self.size
        };
        self.base.as_ref().is_some_and(is_of_key) && self.dirty.is_empty()
    }

    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.generation == self.stored
    }

    /// The content changed: now.
    pub fn touch(&mut self) {
        self.generation += 1;
        self.attrs.mtime = Some(nanos_now());
        self.mtime_is_set = false;
        // What was written now is wanted, whatever a rename before a crash meant to replace.
        self.gives_way = None;
    }

    /// When the content was last changed, as far as nobody set another time since.
    #[must_use]
    pub fn written(&self) -> Option<i64> {
        self.attrs.mtime.filter(|_| !self.mtime_is_set)
    }

    #[must_use]
    pub fn shape(&self) -> Shape<'_> {
        Shape {
            size: self.size,
            local: &self.local,
            holes: &self.holes,
            dirty: &self.dirty,
            base_limit: self.base_limit,
            base_size: self.base.as_ref().map_or(0, |base| base.size),
        }
    }

    /// The headers of the object to be: what it had, or what a new one gets, with the changes.
    #[must_use]
    pub fn headers(&self, had: Option<&ObjectHeaders>, new: impl FnOnce() -> ObjectHeaders) -> ObjectHeaders {
        let mut headers = had.cloned().unwrap_or_else(new);
        let changes = &self.changes;
        if changes.content_type.is_some() {
            headers.content_type.clone_from(&changes.content_type);
        }
        if changes.cache_control.is_some() {
            headers.cache_control.clone_from(&changes.cache_control);
        }
        for (name, value) in &changes.metadata {
            match value {
                Some(value) => headers.metadata.insert(name.clone(), value.clone()),
                None => headers.metadata.remove(name),
            };
        }
        self.attrs.write_to(&mut headers.metadata, false);
        headers
    }
}

/// Now, in nanoseconds since the Unix epoch.
#[must_use]
pub fn nanos_now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
