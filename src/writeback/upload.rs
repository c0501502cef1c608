//! From a draft to an object: checks that nobody else changed it, then moves as little as possible.

mod fill;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::RwLockWriteGuard;

use super::begun::{abort_behind, begin};
use super::draft::Draft;
use super::fingerprint;
use super::holes::{self, Zeros};
use super::meter::Meter;
use super::moves::Moves;
use super::plan::{PartSource, Plan, Shape, plan, stream_part};
use super::ranges::Ranges;
use super::record::Base;
use super::removals::Removals;
use super::spool::{Note, Spool};
use super::state::State;
use super::stream::{IN_FLIGHT, Sent, Stream};
use super::uploaded::{UploadError, Uploaded, is_final};
use crate::attrs::Attrs;
use crate::etag::ETag;
use crate::store::{MAX_COPY, ObjectHead, ObjectHeaders, ObjectStore, Part, StoreError, StoreErrorKind};

/// A version that we put there this recently is not checked again.
const TRUSTED: Duration = Duration::from_secs(1);

/// What new objects get, beside what is asked for.
pub type Defaults = dyn Fn(&str) -> ObjectHeaders + Send + Sync;

/// What is in memory of objects.
pub trait Contents: Send + Sync {
    /// The bucket holds what the file holds.
    fn stored(&self, base: &Base, file: &File);
    /// The bytes of a range, in order, if all are at hand.
    fn cached(&self, base: &Base, range: Range<u64>) -> Option<Vec<Bytes>>;
}

/// Between what an uploader moves bytes.
#[derive(Clone)]
pub struct Ends {
    pub store: Arc<dyn ObjectStore>,
    pub spool: Arc<Spool>,
    pub contents: Arc<dyn Contents>,
}

/// Bounds of uploads.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a part, unless more are needed to stay below the most parts.
    pub part_size: u64,
    /// Bytes of holes that one file may have.
    pub holes: u64,
}

/// Uploads drafts to one store.
#[derive(Clone)]
pub struct Uploader {
    store: Arc<dyn ObjectStore>,
    spool: Arc<Spool>,
    contents: Arc<dyn Contents>,
    part_size: u64,
    max_holes: u64,
    zeros: Zeros,
    /// What an object of this key gets.
    defaults: Arc<Defaults>,
    overwrites: bool,
    /// What is to be deleted, before something is put in its place.
    removals: Removals,
    moves: Moves,
}

/// What the key of a draft holds.
enum Found {
    /// What it is known to hold, or nothing; with the headers, where they were asked for.
    Expected(Option<ObjectHeaders>),
    /// Something else, which is to be overwritten.
    Other(ObjectHeaders),
    /// This very content: an upload went through whose answer was lost.
    Ours(ObjectHead),
}

/// A draft as it stands while its gate is held.
struct Job<'a> {
    draft: &'a Draft,
    state: State,
    key: String,
    headers: ObjectHeaders,
    /// The base is what the key was just found to hold.
    is_base_there: bool,
    meter: Meter,
}

impl Uploader {
    #[must_use]
    pub fn new(
        Ends { store, spool, contents }: Ends,
        limits: Limits,
        overwrites: bool,
        defaults: Arc<Defaults>,
        removals: Removals,
    ) -> Self {
        let Limits { part_size, holes: max_holes } = limits;
        let (moves, zeros) = (Moves::default(), Zeros::default());
        Self { store, spool, contents, part_size, max_holes, zeros, defaults, overwrites, removals, moves }
    }

    /// What is being moved on the server.
    #[must_use]
    pub fn moves(&self) -> &Moves {
        &self.moves
    }

    /// Larger files are uploaded in parts, if they are new, while they are written.
    #[must_use]
    pub fn largest_put(&self) -> u64 {
        2 * self.part_size
    }

    /// Refuses a file with larger holes than may be sent. An upload does so by itself, before it sends anything.
    ///
    /// # Errors
    /// `TooLarge`; the draft notes it.
    pub fn permit(&self, draft: &Draft) -> Result<(), StoreError> {
        holes::permit(draft, self.max_holes)
    }

    /// The state of a file that begins with what an object holds. What that is known to have of zeros is here.
    #[must_use]
    pub fn state_on(&self, key: &str, base: Base, attrs: Attrs) -> State {
        let zeros = self.zeros.of(&base);
        let mut state = State::on(key, Some(base), attrs);
        if let Some(zeros) = zeros {
            state.local.insert(zeros.clone());
            state.holes.insert(zeros);
        }
        state
    }

    /// Begins to send a file that is being written, once it is too large for one PUT.
    pub fn stream(&self, draft: &Arc<Draft>) {
        let mut slot = draft.stream.lock();
        if slot.is_some() {
            return;
        }
        let state = draft.state();
        let enough = self.largest_put();
        if state.failed.is_some()
            || state.base_limit > 0
            || state.size <= enough
            || state.holes_to_send() > self.max_holes
            || !state.local.contains(0..enough)
        {
            return;
        }
        let Some(key) = state.key.clone() else { return };
        // Close knows the right time, the server's own; one that is set is added then.
        let mut headers = state.headers(state.stored_headers.as_ref(), || (self.defaults)(&key));
        if !state.mtime_is_set {
            headers.metadata.remove("mtime");
        }
        drop(state);
        let ends = (Arc::clone(&self.store), Arc::clone(&self.spool));
        *slot = Some(Stream::start(Arc::clone(draft), ends, key, headers, self.part_size));
    }

    /// Uploads a draft that is not clean. `None`: there was nothing to do.
    ///
    /// `publish` is told what the bucket holds before the draft counts as clean, and while nobody can change it: a
    /// clean draft may be dropped at any moment, and what is known without it must be the new version by then.
    ///
    /// # Errors
    /// See [`UploadError`]. The draft stays as it is.
    pub async fn upload(
        &self,
        draft: &Arc<Draft>,
        publish: impl FnOnce(&Uploaded) + Send,
    ) -> Result<Option<Uploaded>, UploadError> {
        let gate = self.alone_with(draft).await;
        self.upload_with(gate, draft, publish).await
    }

    /// The same for a rename, whose own upload waits for no other rename: that one may wait for it.
    ///
    /// # Errors
    /// See [`upload`](Self::upload).
    pub async fn upload_moved(&self, draft: &Arc<Draft>) -> Result<Option<Uploaded>, UploadError> {
        self.upload_with(draft.gate.write().await, draft, |_| {}).await
    }

    async fn upload_with(
        &self,
        _gate: RwLockWriteGuard<'_, ()>,
        draft: &Arc<Draft>,
        publish: impl FnOnce(&Uploaded) + Send,
    ) -> Result<Option<Uploaded>, UploadError> {
        let state = draft.state().clone();
        let Some(key) = state.key.clone().filter(|_| !state.is_clean()) else { return Ok(None) };
        if let Some(error) = draft.torn() {
            return Err(error.into());
        }
        self.permit(draft)?;
        self.removals.settled_but_for(&key, Some(draft.id())).await?;
        // It was removed meanwhile.
        if draft.state().key.is_none() {
            return Ok(None);
        }
        // Open until the attempt ends, for one that merely waited.
        let _open = draft.data()?;
        // What is missing is asked for together with what the key holds: most often both are needed.
        let filling = async { Ok(self.fill_first(draft, &state).await) };
        let (found, filled) = tokio::try_join!(self.check(draft, &key, &state), filling)?;
        if !matches!(found, Found::Ours(_)) {
            filled?;
        }
        let had = match &found {
            Found::Expected(Some(headers)) | Found::Other(headers) => Some(headers),
            _ => state.stored_headers.as_ref(),
        };
        let headers = state.headers(had, || (self.defaults)(&key));
        let is_base = |base: &Base| {
            base.key == key && state.expected.as_ref().is_some_and(|expected| expected.etag == base.etag())
        };
        let is_base_there = matches!(found, Found::Expected(_)) && state.base.as_ref().is_some_and(is_base);
        let stream = draft.stream.lock().take();
        let meter = stream.as_ref().map(Stream::meter).unwrap_or_default();
        let job = Job { draft, state, key, headers, is_base_there, meter };
        let sending = Box::pin(self.send(&job, found, stream));
        let result = job.meter.tell(&job.key, job.state.size, sending).await;
        if let Ok((etag, _)) = &result {
            self.keep(&job, etag);
        }
        match result {
            Ok((etag, headers)) => {
                let Job { key, state: sent, .. } = job;
                let uploaded = Uploaded { key, etag, size: sent.size, headers, attrs: sent.attrs };
                publish(&uploaded);
                let mut state = draft.state();
                state.stored = sent.generation;
                state.error = None;
                state.is_at(&uploaded.key, &uploaded.etag, &uploaded.headers);
                self.zeros.stored(&uploaded.key, &uploaded.etag, &state);
                drop(state);
                draft.settle();
                Ok(Some(uploaded))
            }
            Err(error) => {
                let mut state = draft.state();
                if let UploadError::Store(error) = &error {
                    state.error = Some(error.clone());
                    if let Some(mtime) = state.attrs.mtime
                        && !is_final(error.kind)
                    {
                        let sent = (state.size, mtime);
                        state.attempted.retain(|earlier| *earlier != sent);
                        state.attempted.push(sent);
                    }
                }
                Err(error)
            }
        }
    }

    async fn send(
        &self,
        job: &Job<'_>,
        found: Found,
        stream: Option<Stream>,
    ) -> Result<(ETag, ObjectHeaders), UploadError> {
        match (found, stream) {
            (Found::Ours(ours), stream) => {
                stream.into_iter().for_each(Stream::abandon);
                let etag = ours.etag.clone();
                self.with_headers(job, etag, ours.into()).await
            }
            (_, Some(stream)) if stream.key == job.key => self.finish(job, stream).await,
            (_, stream) => {
                // It was renamed while its parts went up under the old name.
                stream.into_iter().for_each(Stream::abandon);
                self.send_all(job).await
            }
        }
    }

    /// Nobody changes the draft meanwhile, and its object is not on its way elsewhere.
    async fn alone_with<'a>(&self, draft: &'a Draft) -> RwLockWriteGuard<'a, ()> {
        loop {
            let gate = draft.gate.write().await;
            let key = draft.state().key.clone();
            // With the gate held: a rename that began before waits for it, or is seen here.
            let Some(key) = key.filter(|key| self.moves.concern(key)) else { return gate };
            drop(gate);
            self.moves.settled(&key).await;
        }
    }

    /// Keeps in memory what was uploaded: while nobody can change it, and before the draft counts as clean, so that
    /// nobody drops it meanwhile.
    fn keep(&self, job: &Job<'_>, etag: &ETag) {
        let size = job.state.size;
        if job.draft.state().is_all_here() {
            let base = Base { key: job.key.clone(), etag: etag.to_string(), size, modified_ms: 0 };
            match job.draft.data() {
                Ok(file) => self.contents.stored(&base, &file),
                Err(error) => tracing::debug!(%error, "what was uploaded is not kept in memory"),
            }
        }
    }

    /// Copies an object that is too large for one copy.
    ///
    /// # Errors
    /// When a part of it fails; the upload is given up then.
    pub async fn copy_in_parts(
        &self,
        from: &str,
        to: &str,
        size: u64,
        headers: &ObjectHeaders,
    ) -> Result<ETag, StoreError> {
        let (id, note) = begin(&self.store, &self.spool, to, headers).await?;
        let nothing = Ranges::new();
        let shape = Shape {
            size,
            local: &nothing,
            holes: &nothing,
            dirty: &nothing,
            base_limit: size,
            base_size: size,
        };
        let Plan::Parts(parts) = plan(shape, self.part_size) else { unreachable!("one copy would do") };
        let copies = (1u16..).zip(parts).map(|(number, part)| {
            let (id, range) = (&id, part.range().clone());
            async move { self.store.copy_part(to, id, number, from, range).await }
        });
        let parts = stream::iter(copies).buffer_unordered(IN_FLIGHT).try_collect::<Vec<_>>().await;
        let result = match parts {
            Ok(mut parts) => {
                parts.sort_by_key(|part| part.number);
                self.store.complete_upload(to, &id, &parts).await
            }
            Err(error) => Err(error),
        };
        if result.is_err() {
            abort_behind(&self.store, to, &id, note);
        } else {
            note.iter().for_each(Note::remove);
        }
        result
    }

    /// Compares what the key holds with what the draft was made of.
    async fn check(&self, draft: &Draft, key: &str, state: &State) -> Result<Found, UploadError> {
        // For a name that is new here nothing is asked, unless an upload may have got through already.
        let may_be_there = state.is_recovered || state.was_made_unseen || state.error.is_some();
        if state.expected.is_none() && !may_be_there {
            return Ok(Found::Expected(None));
        }
        let knows_headers = state.stored_headers.is_some();
        if knows_headers && state.uploaded.is_some_and(|at| at.elapsed() < TRUSTED) {
            return Ok(Found::Expected(None));
        }
        match self.store.head(key).await {
            Ok(head) if state.expected.as_ref().is_some_and(|expected| expected.is(&head)) => {
                Ok(Found::Expected(Some(head.into())))
            }
            Ok(head) if may_be_there && state.is_what_was_sent(&head) => Ok(Found::Ours(head)),
            Ok(head) if state.gives_way.as_ref().is_some_and(|successor| successor.is(&head)) => {
                Err(UploadError::Replaced)
            }
            Ok(head) if state.was_attempted(&head) => Ok(Found::Other(head.into())),
            Ok(head) if state.replaces.as_ref().is_some_and(|replaced| replaced.is(&head)) => {
                Ok(Found::Expected(None))
            }
            // Whoever put it there: the content is what it is to be.
            Ok(head) if may_be_there && self.is_same(draft, state, &head).await => Ok(Found::Ours(head)),
            Ok(head) if self.overwrites => Ok(Found::Other(head.into())),
            Ok(head) => Err(UploadError::Conflict(Box::new(head))),
            // Somebody deleted it; saving the file brings it back.
            Err(error) if error.kind == StoreErrorKind::NotFound => Ok(Found::Expected(None)),
            Err(error) => Err(error.into()),
        }
    }

    async fn send_all(&self, job: &Job<'_>) -> Result<(ETag, ObjectHeaders), UploadError> {
        job.meter.clear();
        let etag = match plan(job.state.shape(), self.part_size) {
            Plan::Put => {
                self.fill(job, 0..job.state.size).await?;
                let section = job.meter.section(job.draft, 0..job.state.size)?;
                match self.store.put(&job.key, &job.headers, &section).await {
                    // A project may take larger files in parts than by one PUT.
                    Err(error) if error.exceeds_a_limit() && job.state.size > 0 => {
                        job.meter.clear();
                        self.in_parts(job, vec![PartSource::Here(0..job.state.size)]).await?
                    }
                    answer => answer?,
                }
            }
            Plan::Copy => {
                let base = job.base()?;
                if !job.is_base_there {
                    self.still_there(base).await?;
                }
                self.store.copy(&base.key, &job.key, base.size, Some(&job.headers)).await?
            }
            Plan::Parts(parts) => self.in_parts(job, parts).await?,
        };
        Ok((etag, job.headers.clone()))
    }

    async fn in_parts(&self, job: &Job<'_>, parts: Vec<PartSource>) -> Result<ETag, UploadError> {
        let (id, note) = begin(&self.store, &self.spool, &job.key, &job.headers).await?;
        let copies = parts.iter().any(|part| part.copied().is_some());
        let numbered = (1u16..).zip(parts);
        let sent = stream::iter(numbered.map(|(number, part)| self.part(job, &id, number, part)))
            .buffer_unordered(IN_FLIGHT)
            .try_collect::<Vec<_>>();
        let result = async {
            let parts = sent.await?;
            if copies {
                // A copy of a part is not conditional: what was copied must still be what is there.
                self.still_there(job.base()?).await?;
            }
            self.complete(job, &id, parts).await
        };
        match result.await {
            Ok(etag) => {
                note.iter().for_each(Note::remove);
                Ok(etag)
            }
            Err(error) => {
                abort_behind(&self.store, &job.key, &id, note);
                Err(error)
            }
        }
    }

    async fn part(
        &self,
        job: &Job<'_>,
        id: &str,
        number: u16,
        source: PartSource,
    ) -> Result<Part, UploadError> {
        let range = source.range().clone();
        if let Some(copied) = source.copied() {
            let part = self.store.copy_part(&job.key, id, number, &job.base()?.key, copied).await?;
            job.meter.copied(&range);
            return Ok(part);
        }
        self.fill(job, range.clone()).await?;
        let section = job.meter.section(job.draft, range)?;
        Ok(self.store.upload_part(&job.key, id, number, &section).await?)
    }

    /// Ends an upload whose parts went up while the file was written.
    async fn finish(&self, job: &Job<'_>, stream: Stream) -> Result<(ETag, ObjectHeaders), UploadError> {
        let mut sent = match stream.finish().await {
            Ok(sent) => sent,
            Err(error) if is_final(error.kind) => return Err(error.into()),
            Err(error) => {
                tracing::info!(%error, "the parts sent so far are lost; sending the file again");
                return self.send_all(job).await;
            }
        };
        let (id, note, sent_headers) = (sent.id.clone(), sent.note.take(), sent.headers.clone());
        let result = async {
            let parts = self.rest(job, sent).await?;
            self.complete(job, &id, parts).await
        };
        let etag = match result.await {
            Ok(etag) => etag,
            Err(error) => {
                abort_behind(&self.store, &job.key, &id, note);
                return Err(error);
            }
        };
        note.iter().for_each(Note::remove);
        self.with_headers(job, etag, sent_headers).await
    }

    /// The object holds the content, and may lack headers: those of an upload are fixed when it begins, and what was
    /// set since takes a copy onto itself.
    async fn with_headers(
        &self,
        job: &Job<'_>,
        etag: ETag,
        has: ObjectHeaders,
    ) -> Result<(ETag, ObjectHeaders), UploadError> {
        let mut wanted = job.headers.clone();
        if !job.state.mtime_is_set && !has.metadata.contains_key("mtime") {
            wanted.metadata.remove("mtime");
        }
        // The server gives these to what has none.
        wanted.content_type = wanted.content_type.or_else(|| has.content_type.clone());
        wanted.cache_control = wanted.cache_control.or_else(|| has.cache_control.clone());
        // If the copy fails, the next attempt is a copy again.
        job.draft.state().is_at(&job.key, &etag, &has);
        if wanted == has {
            return Ok((etag, has));
        }
        let etag = if job.state.size > MAX_COPY {
            self.copy_in_parts(&job.key, &job.key, job.state.size, &wanted).await?
        } else {
            self.store.copy(&job.key, &job.key, job.state.size, Some(&wanted)).await?
        };
        Ok((etag, wanted))
    }

    /// Whether an object holds just what the draft holds, as far as its `ETag` can tell.
    async fn is_same(&self, draft: &Draft, state: &State, head: &ObjectHead) -> bool {
        if head.size != state.size || !state.is_all_here() {
            return false;
        }
        let layouts = fingerprint::layouts(state.size, self.part_size);
        let Ok(file) = draft.data() else { return false };
        let etag = head.etag.clone();
        let compared = tokio::task::spawn_blocking(move || fingerprint::is_of(&file, &etag, &layouts));
        compared.await.unwrap_or(false)
    }

    /// The parts that changed after they were sent, and the tail.
    async fn rest(&self, job: &Job<'_>, sent: Sent) -> Result<Vec<Part>, UploadError> {
        let Sent { id, mut parts, stale, .. } = sent;
        parts.retain(|part| !stale.contains(&part.number));
        let done: std::collections::BTreeSet<u16> = parts.iter().map(|part| part.number).collect();
        let todo: Vec<(u16, Range<u64>)> = (1..=u16::MAX)
            .map(|number| (number, stream_part(number, self.part_size)))
            .take_while(|(_, range)| range.start < job.state.size)
            .map(|(number, range)| (number, range.start..range.end.min(job.state.size)))
            .filter(|(number, _)| !done.contains(number))
            .collect();
        let more = stream::iter(
            todo.into_iter().map(|(number, range)| self.part(job, &id, number, PartSource::Here(range))),
        )
        .buffer_unordered(IN_FLIGHT)
        .try_collect::<Vec<_>>()
        .await?;
        parts.extend(more);
        Ok(parts)
    }

    async fn complete(&self, job: &Job<'_>, id: &str, mut parts: Vec<Part>) -> Result<ETag, UploadError> {
        parts.sort_by_key(|part| part.number);
        match self.store.complete_upload(&job.key, id, &parts).await {
            Err(error) if !is_final(error.kind) => {
                // It may have been completed by an attempt whose answer was lost.
                let Ok(head) = self.store.head(&job.key).await else { return Err(error.into()) };
                let was = job.state.expected.as_ref().map(|expected| &expected.etag);
                let is_gone = error.kind == StoreErrorKind::NoSuchUpload;
                let is_new = was != Some(&head.etag);
                // The same bytes have the same tag again.
                let is_there = head.size == job.state.size
                    && match (is_new, is_gone) {
                        (true, true) => true,
                        (false, false) => false,
                        _ => self.is_same(job.draft, &job.state, &head).await,
                    };
                if is_there { Ok(head.etag) } else { Err(error.into()) }
            }
            other => Ok(other?),
        }
    }

    async fn still_there(&self, base: &Base) -> Result<(), UploadError> {
        let head = self.store.head(&base.key).await?;
        if head.etag == ETag::new(&base.etag) && head.size == base.size {
            Ok(())
        } else {
            Err(UploadError::Conflict(Box::new(head)))
        }
    }
}

impl Job<'_> {
    fn base(&self) -> Result<&Base, UploadError> {
        self.state.base.as_ref().ok_or_else(|| io::Error::other("a draft lost its base").into())
    }
}

#[cfg(test)]
mod tests;
