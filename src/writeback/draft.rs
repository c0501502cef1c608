//! A draft: the content of a file that was changed here, from its first change until its last user is gone.
//!
//! Bytes lie in a sparse spool file. What was not written is read from the base, the object that the file was opened
//! on, so that a small change of a large object downloads nothing. `generation` counts changes; the draft is clean
//! while `stored` has caught up with it.
//!
//! Locks: `gate` is the one lock held across an await: a change holds it shared, an upload alone, so that what is
//! uploaded is one state of the file. `state` is short, taken behind it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{RwLock, RwLockReadGuard};
use tokio::time::Instant;

use super::plan::Shape;
use super::ranges::Ranges;
use super::record::{Base, Record, RecordState};
use super::spool::{Spool, SpoolFile};
use super::stream::Stream;
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
    /// What differs from the base, below `base_limit`.
    pub dirty: Ranges,
    pub base: Option<Base>,
    /// Bytes of the base that are still part of the file.
    pub base_limit: u64,
    /// What the key held when the file was opened, or after our last upload.
    pub expected: Option<Expected>,
    /// Our last upload.
    pub uploaded: Option<Instant>,
    /// It was left in the spool: what the key holds now may be newer, also where it held nothing.
    pub is_recovered: bool,
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
}

/// Where a stretch of a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Local(Range<u64>),
    Base(Range<u64>),
    Zero(Range<u64>),
}

impl Piece {
    #[must_use]
    pub fn range(&self) -> &Range<u64> {
        match self {
            Self::Local(range) | Self::Base(range) | Self::Zero(range) => range,
        }
    }
}

/// See the module.
pub struct Draft {
    file: SpoolFile,
    pub(super) gate: RwLock<()>,
    state: Mutex<State>,
    pub(super) stream: Mutex<Option<Stream>>,
}

impl Draft {
    /// A draft of a new file, or of what a base holds.
    ///
    /// # Errors
    /// When the spool cannot take another file.
    pub fn new(spool: &Arc<Spool>, state: State) -> io::Result<Arc<Self>> {
        let mut record = Record::new(spool.owner());
        fill_record(&mut record, &state);
        let file = spool.create(record)?;
        file.data().set_len(state.size)?;
        Ok(Arc::new(Self::of(file, state)))
    }

    /// A draft that was left in the spool.
    #[must_use]
    pub fn recovered(file: SpoolFile, record: &Record) -> Arc<Self> {
        let state = State {
            key: Some(record.key.clone()),
            size: record.size,
            local: record.local.iter().map(|&(start, end)| start..end).collect(),
            dirty: record.local.iter().map(|&(start, end)| start..end).collect(),
            base: record.base.clone(),
            base_limit: record.base_limit,
            expected: record.expected(),
            uploaded: None,
            is_recovered: true,
            stored_headers: None,
            changes: HeaderChanges {
                content_type: record.content_type.clone(),
                cache_control: record.cache_control.clone(),
                metadata: record
                    .metadata
                    .iter()
                    .map(|(name, value)| (name.clone(), Some(value.clone())))
                    .collect(),
            },
            attrs: Attrs::from_metadata(&record.metadata),
            mtime_is_set: true,
            generation: 1,
            stored: 0,
            error: None,
        };
        Arc::new(Self::of(file, state))
    }

    fn of(file: SpoolFile, state: State) -> Self {
        Self { file, gate: RwLock::default(), state: Mutex::new(state), stream: Mutex::default() }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    #[must_use]
    pub fn data(&self) -> &Arc<File> {
        self.file.data()
    }

    #[must_use]
    pub fn id(&self) -> &str {
        self.file.id()
    }

    /// Held while the file is changed. Waits for an upload that is under way.
    pub async fn changing(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().await
    }

    /// # Errors
    /// When the spool is full, or its disk fails.
    pub fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let range = offset..offset + data.len() as u64;
        let mut state = self.state.lock();
        self.file.reserve(state.local.missing(range.clone()))?;
        self.data().write_all_at(data, offset)?;
        state.local.insert(range.clone());
        state.dirty.insert(range.clone());
        state.size = state.size.max(range.end);
        state.touch();
        drop(state);
        if let Some(stream) = &*self.stream.lock() {
            stream.written(&range);
        }
        Ok(())
    }

    /// Cuts the file off, or fills it up with zeros.
    ///
    /// # Errors
    /// When the disk of the spool fails.
    pub fn truncate(&self, size: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        if size < state.size
            && let Some(stream) = self.stream.lock().take()
        {
            stream.abandon();
        }
        self.data().set_len(size)?;
        let cut = state.local.truncate(size);
        self.file.release(cut);
        state.dirty.truncate(size);
        state.base_limit = state.base_limit.min(size);
        state.size = size;
        state.touch();
        Ok(())
    }

    /// Where the bytes of a range are, in order; nothing behind the end of the file.
    #[must_use]
    pub fn pieces(&self, range: Range<u64>) -> Vec<Piece> {
        let state = self.state.lock();
        let range = range.start.min(state.size)..range.end.min(state.size);
        let mut pieces = Vec::new();
        let mut at = range.start;
        let rest = |from: u64, to: u64, pieces: &mut Vec<Piece>| {
            let limit = state.base_limit.clamp(from, to);
            if from < limit {
                pieces.push(Piece::Base(from..limit));
            }
            if limit < to {
                pieces.push(Piece::Zero(limit..to));
            }
        };
        for local in state.local.overlapping(range.clone()) {
            rest(at, local.start, &mut pieces);
            at = local.end;
            pieces.push(Piece::Local(local));
        }
        rest(at, range.end, &mut pieces);
        pieces
    }

    /// Takes over bytes of the base that were fetched, where nothing newer was written.
    ///
    /// # Errors
    /// When the spool is full, or its disk fails.
    pub fn fetched(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        let range = offset..(offset + data.len() as u64).min(state.base_limit);
        for gap in state.local.gaps(range) {
            self.file.reserve(gap.end - gap.start)?;
            let at = |at: u64| usize::try_from(at - offset).unwrap_or(usize::MAX);
            self.data().write_all_at(&data[at(gap.start)..at(gap.end)], gap.start)?;
            state.local.insert(gap);
        }
        Ok(())
    }

    /// Writes what the state says into the record.
    ///
    /// # Errors
    /// When the spool's disk fails; the old record is intact then.
    pub fn save(&self, set: impl FnOnce(&mut Record)) -> io::Result<()> {
        let state = self.state.lock().clone();
        self.file.update(|record| {
            fill_record(record, &state);
            set(record);
        })
    }

    /// What the draft holds is to be uploaded, also by the next mount.
    ///
    /// # Errors
    /// When the spool's disk fails.
    pub fn commit(&self) -> io::Result<()> {
        let state = self.state.lock().clone();
        self.file.seal(|record| {
            fill_record(record, &state);
            record.state = RecordState::Committed;
        })
    }

    /// What the draft holds stays in the spool until somebody decides.
    ///
    /// # Errors
    /// When the spool's disk fails.
    pub fn park(&self) -> io::Result<()> {
        self.save(|record| record.state = RecordState::Parked)
    }

    /// Takes the draft out of the spool: its content is in the bucket, or nobody can want it any more.
    pub fn discard(&self) {
        if let Some(stream) = self.stream.lock().take() {
            stream.abandon();
        }
        if let Err(error) = self.file.remove() {
            tracing::warn!(id = self.file.id(), %error, "a file stays behind in the spool; `supafs spool discard` removes it");
        }
    }
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
            dirty: Ranges::new(),
            base,
            base_limit: size,
            expected,
            uploaded: None,
            is_recovered: false,
            stored_headers: None,
            changes: HeaderChanges::default(),
            attrs,
            mtime_is_set: true,
            generation: 0,
            stored: 0,
            error: None,
        }
    }

    /// Whether an object is what an upload of this state makes: by its size, and by a time in nanoseconds that nobody
    /// else set.
    #[must_use]
    pub fn is_what_was_sent(&self, head: &ObjectHead) -> bool {
        self.attrs.mtime.is_some()
            && head.size == self.size
            && Attrs::from_metadata(&head.metadata).mtime == self.attrs.mtime
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

fn fill_record(record: &mut Record, state: &State) {
    record.key = state.key.clone().unwrap_or_default();
    record.size = state.size;
    record.local = state.local.iter().map(|range| (range.start, range.end)).collect();
    record.base.clone_from(&state.base);
    record.base_limit = state.base_limit;
    record.expected = state.expected.as_ref().map(|expected| (expected.etag.to_string(), expected.size));
    record.set_headers(state.headers(Some(&ObjectHeaders::default()), ObjectHeaders::default));
    record.changed_ms = nanos_now() / 1_000_000;
}
