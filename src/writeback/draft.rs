//! A draft: the content of a file that was changed here, from its first change until its last user is gone.
//!
//! Bytes lie in a sparse spool file. What was not written is read from the base, the object that the file was opened
//! on, so that a small change of a large object downloads nothing. `generation` counts changes; the draft is clean
//! while `stored` has caught up with it.
//!
//! The record in the spool promises one state of the content: that of the last close (`Committed`), or none (`Open`,
//! `Clean`). Before the first change after a close a copy takes over the promise, so that a crash finds what was
//! acknowledged, whole.
//!
//! Locks: `gate` is the one lock held across an await: a change holds it shared, an upload alone, so that what is
//! uploaded is one state of the file. Behind it and short, in this order: `seal`, `stream`, `state`.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{OwnedRwLockReadGuard, RwLock, RwLockReadGuard};
use tokio::time::Instant;

use super::holes;
use super::ranges::Ranges;
use super::record::{Record, RecordState};
use super::spool::{Spool, SpoolFile};
use super::state::{Expected, HeaderChanges, State, nanos_now};
use super::stream::Stream;
use crate::attrs::Attrs;
use crate::store::ObjectHeaders;

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

/// How long the record of a changed object may lack what was written.
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// What the record says of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Promise {
    /// That it is being changed.
    Open,
    /// That it is whole and to be uploaded.
    Committed,
    /// That nothing is lost with it, or that somebody has to decide.
    Settled,
}

struct Seal {
    promise: Promise,
    /// What was closed last, while the file is changed again before it is uploaded.
    shadow: Option<SpoolFile>,
    /// When the record was last brought up to date.
    noted: Option<Instant>,
}

/// See the module.
pub struct Draft {
    file: SpoolFile,
    pub(super) gate: Arc<RwLock<()>>,
    seal: Mutex<Seal>,
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
        fill_names(&mut record, &state);
        fill_content(&mut record, &state);
        let file = spool.create(record)?;
        if state.size > 0
            && let Err(error) = file.set_len(state.size)
        {
            drop(file.remove());
            return Err(error);
        }
        Ok(Arc::new(Self::of(file, state, Promise::Open)))
    }

    /// A draft that was left in the spool.
    #[must_use]
    pub fn recovered(file: SpoolFile, record: &Record) -> Arc<Self> {
        // The daemon may have died behind an upload that was carried out: what it finds then is its own.
        let sent = Attrs::from_metadata(&record.metadata).mtime.map(|mtime| (record.size, mtime));
        let attempted = record.attempted.iter().copied().chain(sent).collect();
        let state = State {
            key: Some(record.key.clone()),
            size: record.size,
            local: record.local.iter().map(|&(start, end)| start..end).collect(),
            holes: Ranges::new(),
            dirty: record.local.iter().map(|&(start, end)| start..end).collect(),
            base: record.base.clone(),
            base_limit: record.base_limit,
            expected: record.expected(),
            replaces: record.replaces(),
            gives_way: record.gives_way.clone(),
            attempted,
            uploaded: None,
            is_recovered: true,
            was_made_unseen: false,
            stored_headers: None,
            changes: HeaderChanges {
                content_type: record.content_type.clone(),
                cache_control: record.cache_control.clone(),
                metadata: record
                    .metadata
                    .iter()
                    .map(|(name, value)| (name.clone(), Some(value.clone())))
                    .chain(record.unset.iter().map(|name| (name.clone(), None)))
                    .collect(),
            },
            attrs: Attrs::from_metadata(&record.metadata),
            mtime_is_set: true,
            generation: 1,
            stored: 0,
            error: None,
            upload_failed: None,
            told: None,
            failed: None,
        };
        Arc::new(Self::of(file, state, Promise::Committed))
    }

    fn of(file: SpoolFile, state: State, promise: Promise) -> Self {
        let seal = Mutex::new(Seal { promise, shadow: None, noted: None });
        Self { file, gate: Arc::default(), seal, state: Mutex::new(state), stream: Mutex::default() }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// The spool file, for as long as the caller keeps it.
    ///
    /// # Errors
    /// When it cannot be opened: it was not in use, and no descriptor is free.
    pub fn data(&self) -> io::Result<Arc<File>> {
        self.file.data()
    }

    /// Nobody has the file open; what it holds waits in the spool without a descriptor.
    pub fn rest(&self) {
        self.file.rest();
    }

    #[must_use]
    pub fn id(&self) -> &str {
        self.file.id()
    }

    /// Held while the file is changed. Waits for an upload that is under way.
    pub async fn changing(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().await
    }

    /// Held while the file's name is taken away: until that is done or has failed, no upload begins, and the draft is
    /// neither lost nor dropped.
    pub async fn holding(&self) -> OwnedRwLockReadGuard<()> {
        Arc::clone(&self.gate).read_owned().await
    }

    /// [`holding`](Self::holding), where that waits for nothing. `None`: an upload is under way.
    #[must_use]
    pub fn hold_now(&self) -> Option<OwnedRwLockReadGuard<()>> {
        Arc::clone(&self.gate).try_read_owned().ok()
    }

    /// Whether parts of it are sent while it is written.
    #[must_use]
    pub fn is_streaming(&self) -> bool {
        self.stream.lock().is_some()
    }

    /// Whether the record speaks for what the file holds now.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.seal.lock().promise != Promise::Open
    }

    /// Whether nothing that is here was ever said to be safe.
    #[must_use]
    pub fn is_unacknowledged(&self) -> bool {
        let seal = self.seal.lock();
        seal.promise == Promise::Open && seal.shadow.is_none()
    }

    /// Before the content is changed otherwise than by a write.
    ///
    /// # Errors
    /// When the spool is full, or its disk fails.
    pub fn unseal(&self) -> io::Result<()> {
        self.before_change(&mut self.seal.lock())
    }

    /// From now on the record promises nothing; what it promised until now is kept.
    fn before_change(&self, seal: &mut Seal) -> io::Result<()> {
        if seal.promise == Promise::Open {
            return Ok(());
        }
        let state = self.state.lock().clone();
        if seal.promise == Promise::Committed && !state.is_clean() && state.key.is_some() {
            seal.shadow = Some(self.file.duplicate()?);
        }
        let opened = self.file.update(|record| {
            fill_names(record, &state);
            fill_content(record, &state);
            record.state = RecordState::Open;
        });
        if opened.is_err()
            && let Some(shadow) = seal.shadow.take()
        {
            drop(shadow.remove());
        }
        opened?;
        seal.promise = Promise::Open;
        seal.noted = None;
        Ok(())
    }

    /// Notes now and then which parts of an object were changed: a crash must not leave bytes of nobody knows where.
    fn note(&self, seal: &mut Seal, state: &State) {
        if state.base_limit == 0 || seal.noted.is_some_and(|at| at.elapsed() < NOTE_EVERY) {
            return;
        }
        seal.noted = Some(Instant::now());
        if let Err(error) = self.file.update(|record| fill_content(record, state)) {
            tracing::debug!(%error, "the spool does not know yet what was changed");
        }
    }

    /// A write that fails makes the file torn, see [`torn`](Self::torn).
    ///
    /// # Errors
    /// When the spool is full, or its disk fails.
    pub fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.try_write(offset, data).inspect_err(|error| self.write_failed(error))
    }

    fn try_write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let range = offset..offset + data.len() as u64;
        let file = self.file.hold()?;
        let mut seal = self.seal.lock();
        self.before_change(&mut seal)?;
        let mut state = self.state.lock();
        let hole: u64 = state.holes.overlapping(range.clone()).iter().map(|hole| hole.end - hole.start).sum();
        let missing = state.local.missing(range.clone()) + hole;
        self.file.reserve(missing)?;
        if let Err(error) = file.write_all_at(data, offset) {
            self.file.release(missing);
            return Err(error);
        }
        state.local.insert(range.clone());
        state.holes.remove(range.clone());
        state.dirty.insert(range.clone());
        state.size = state.size.max(range.end);
        state.touch();
        self.note(&mut seal, &state);
        drop(state);
        if let Some(stream) = &*self.stream.lock() {
            stream.written(&range);
        }
        Ok(())
    }

    /// Notes that a write did not reach the file: nothing of it is uploaded until it is truncated to nothing.
    pub fn write_failed(&self, error: &io::Error) {
        let seal = self.seal.lock();
        if let Some(stream) = self.stream.lock().take() {
            stream.abandon();
        }
        let state = {
            let mut state = self.state.lock();
            state.failed.get_or_insert(errno_of(error));
            state.clone()
        };
        // A record that still promises what was closed before keeps its promise.
        if seal.promise != Promise::Open {
            return;
        }
        let noted = self.file.update(|record| {
            fill_content(record, &state);
            record.error = state.failed.map(words_of_torn);
        });
        if let Err(error) = noted {
            // The record says that the file is being written: after a crash it is parked all the same.
            tracing::debug!(%error, "the spool does not know why a file is not whole");
        }
    }

    /// Why the file is not whole: a write failed, and the file holds others than those that were closed before.
    #[must_use]
    pub fn torn(&self) -> Option<io::Error> {
        let seal = self.seal.lock();
        let failed = self.state.lock().failed.filter(|_| seal.promise == Promise::Open);
        failed.map(io::Error::from_raw_os_error)
    }

    /// Cuts the file off, or fills it up with zeros.
    ///
    /// # Errors
    /// When the disk of the spool fails.
    pub fn truncate(&self, size: u64) -> io::Result<()> {
        let mut seal = self.seal.lock();
        self.before_change(&mut seal)?;
        let mut stream = self.stream.lock();
        let mut state = self.state.lock();
        if size < state.size
            && let Some(stream) = stream.take()
        {
            stream.abandon();
        }
        drop(stream);
        self.file.set_len(size)?;
        let cut = state.local.truncate(size) - state.holes.truncate(size);
        self.file.release(cut);
        state.dirty.truncate(size);
        if size < state.base_limit {
            state.base_limit = size;
            self.file.update(|record| fill_content(record, &state))?;
        }
        state.size = size;
        if size == 0 {
            state.failed = None;
        }
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
        let file = self.data()?;
        let mut state = self.state.lock();
        let range = offset..(offset + data.len() as u64).min(state.base_limit);
        for gap in state.local.gaps(range) {
            let len = gap.end - gap.start;
            let at = |at: u64| usize::try_from(at - offset).unwrap_or(usize::MAX);
            let bytes = &data[at(gap.start)..at(gap.end)];
            if holes::are_zero(bytes) {
                // As it is in the spool's file, without a block of the disk.
                state.local.insert(gap.clone());
                state.holes.insert(gap);
                continue;
            }
            self.file.reserve(len)?;
            if let Err(error) = file.write_all_at(bytes, gap.start) {
                self.file.release(len);
                return Err(error);
            }
            state.local.insert(gap);
        }
        Ok(())
    }

    /// Writes into the record where the file is to go, and what it holds unless the record promises that already.
    ///
    /// # Errors
    /// When the spool's disk fails; the old record is intact then.
    pub fn save(&self, set: impl FnOnce(&mut Record)) -> io::Result<()> {
        let mut seal = self.seal.lock();
        let state = self.state.lock().clone();
        self.file.update(|record| {
            fill_names(record, &state);
            if seal.promise != Promise::Committed {
                fill_content(record, &state);
            }
            set(record);
        })?;
        match &seal.shadow {
            Some(shadow) if state.key.is_some() => shadow.update(|record| fill_place(record, &state)),
            _ => seal.drop_shadow(),
        }
    }

    /// What the draft holds is to be uploaded, also by the next mount.
    ///
    /// # Errors
    /// When the spool's disk fails, or a write of the file did.
    pub fn commit(&self) -> io::Result<()> {
        let mut seal = self.seal.lock();
        let state = self.state.lock().clone();
        if let Some(errno) = state.failed.filter(|_| seal.promise == Promise::Open) {
            return Err(io::Error::from_raw_os_error(errno));
        }
        self.file.seal(|record| {
            fill_names(record, &state);
            fill_content(record, &state);
            record.state = RecordState::Committed;
            record.error = None;
        })?;
        seal.promise = Promise::Committed;
        seal.drop_shadow()
    }

    /// What the record promised, it promises of the content as it is now: nothing was written, but its place changed.
    ///
    /// # Errors
    /// When the spool's disk fails.
    pub fn reseal(&self) -> io::Result<()> {
        let promise = self.seal.lock().promise;
        if promise == Promise::Committed { self.commit() } else { self.save(|_| {}) }
    }

    /// The bucket holds what the draft holds.
    pub(super) fn settle(&self) {
        let mut seal = self.seal.lock();
        let state = self.state.lock().clone();
        if !state.is_clean() {
            return;
        }
        let settled = self.file.update(|record| {
            fill_names(record, &state);
            record.state = RecordState::Clean;
        });
        match settled.and_then(|()| seal.drop_shadow()) {
            Ok(()) => seal.promise = Promise::Settled,
            Err(error) => tracing::debug!(%error, "the spool does not know yet that a file was uploaded"),
        }
    }

    /// What the draft holds stays in the spool until somebody decides. Of a torn file, the version that was closed
    /// before is handed back where it is not in the bucket yet: it is still to be uploaded.
    ///
    /// # Errors
    /// When the spool's disk fails.
    pub fn park(&self) -> io::Result<Option<Arc<Self>>> {
        let mut seal = self.seal.lock();
        let state = self.state.lock().clone();
        let torn = state.failed.filter(|_| seal.promise == Promise::Open);
        self.file.update(|record| {
            fill_names(record, &state);
            fill_content(record, &state);
            record.state = RecordState::Parked;
            if let Some(errno) = torn {
                record.error = Some(words_of_torn(errno));
            }
        })?;
        seal.promise = Promise::Settled;
        let Some(closed) = seal.shadow.take() else { return Ok(None) };
        if torn.is_none() {
            closed.remove()?;
            return Ok(None);
        }
        closed.update(|record| record.until = None)?;
        Ok(closed.record().map(|record| Self::recovered(closed, &record)))
    }

    /// Why it is not in the bucket, as its record says.
    #[must_use]
    pub fn why_not_uploaded(&self) -> Option<String> {
        self.file.record()?.error
    }

    /// Whether an upload of it is under way, or about to be.
    #[must_use]
    pub fn is_being_uploaded(&self) -> bool {
        self.gate.try_read().is_err()
    }

    /// Takes the draft out of the spool: its content is in the bucket, or nobody can want it any more.
    pub fn discard(&self) {
        if let Some(stream) = self.stream.lock().take() {
            stream.abandon();
        }
        let mut seal = self.seal.lock();
        if let Err(error) = seal.drop_shadow().and_then(|()| self.file.remove()) {
            tracing::warn!(id = self.file.id(), %error, "a file stays behind in the spool; `supafs spool discard` removes it");
        }
    }
}

impl Seal {
    fn drop_shadow(&mut self) -> io::Result<()> {
        self.shadow.take().map_or(Ok(()), |shadow| shadow.remove())
    }
}

/// What a caller is told of a failed write.
fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(match error.kind() {
        io::ErrorKind::StorageFull => nix::libc::ENOSPC,
        io::ErrorKind::QuotaExceeded => nix::libc::EDQUOT,
        io::ErrorKind::FileTooLarge => nix::libc::EFBIG,
        _ => nix::libc::EIO,
    })
}

/// Why a torn file is parked, as `supafs spool list` shows it.
fn words_of_torn(errno: i32) -> String {
    format!("a write failed, so the file is not whole: {}", io::Error::from_raw_os_error(errno))
}

/// Where a file is to go, and what may be there.
fn fill_place(record: &mut Record, state: &State) {
    let version = |expected: &Expected| (expected.etag.to_string(), expected.size);
    record.key = state.key.clone().unwrap_or_default();
    record.expected = state.expected.as_ref().map(version);
    record.replaces = state.replaces.as_ref().map(version);
    record.gives_way.clone_from(&state.gives_way);
    record.attempted.clone_from(&state.attempted);
}

/// All but what it holds.
fn fill_names(record: &mut Record, state: &State) {
    fill_place(record, state);
    record.set_headers(state.headers(Some(&ObjectHeaders::default()), ObjectHeaders::default));
    let changes = state.changes.metadata.iter();
    record.unset = changes.filter(|(_, value)| value.is_none()).map(|(name, _)| name.clone()).collect();
    record.changed_ms = nanos_now() / 1_000_000;
}

fn fill_content(record: &mut Record, state: &State) {
    record.size = state.size;
    // A hole is what stands in its place in the base, or nothing.
    let mut local = state.local.clone();
    state.holes.iter().for_each(|hole| local.remove(hole));
    record.local = local.iter().map(|range| (range.start, range.end)).collect();
    record.base.clone_from(&state.base);
    record.base_limit = state.base_limit;
    record.settings_only = state.is_settings_only();
    // Of other bytes; who promises these adds theirs.
    record.digest = None;
}
