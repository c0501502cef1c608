//! From drafts to the bucket: what close and fsync do, what becomes of a draft when its last user is gone, and what
//! follows from an upload, a refusal, or somebody else's change.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio::time::Instant;

use super::contents::Cached;
use super::handle::FileHandle;
use super::inode::InodeTable;
use super::{ErrorKind, Fs, FsError};
use crate::attrs::Modified;
use crate::config::{OnConflict, Writing};
use crate::content_type;
use crate::data::Fetcher;
use crate::meta::{Entry, FileVersion, Kind};
use crate::store::{ObjectHead, ObjectHeaders, ObjectStore, StoreError, StoreErrorKind, timed};
use crate::writeback::{
    Delay, Draft, Ends, Job, Limits, Outcome, Queue, Removals, Spool, UploadError, Uploaded, Uploader,
    is_final, nanos_now,
};

/// What a mount that may write has.
pub(super) struct Writer {
    pub spool: Arc<Spool>,
    pub uploader: Uploader,
    pub queue: Queue,
    /// What `--write-back` deletes behind the caller's back.
    pub removals: Removals,
    pub options: Writing,
}

impl Writer {
    /// `places`: for files that are uploaded behind the caller's back at a time.
    pub fn new(
        store: &Arc<dyn ObjectStore>,
        fetcher: Fetcher,
        (spool, options): (Arc<Spool>, Writing),
        places: usize,
    ) -> Self {
        let cache_control = options.cache_control.clone();
        let defaults = move |key: &str| ObjectHeaders {
            content_type: Some(content_type::of_new(key)),
            cache_control: cache_control.clone(),
            ..ObjectHeaders::default()
        };
        let overwrites = options.on_conflict == OnConflict::Overwrite;
        // Without --write-back only attributes are queued, for a moment, so that several become one change.
        let delay = match options.delay {
            _ if !options.write_back => Delay::Fixed(SETTLE),
            Some(delay) => Delay::Fixed(delay),
            None => Delay::Measured(Arc::clone(store)),
        };
        let removals = Removals::new(Arc::clone(store), delay.clone());
        let contents = Arc::new(Cached(fetcher));
        let ends = Ends { store: Arc::clone(store), spool: Arc::clone(&spool), contents };
        Self {
            uploader: Uploader::new(
                ends,
                Limits { part_size: options.part_size, holes: options.max_holes },
                overwrites,
                Arc::new(defaults),
                removals.clone(),
            ),
            queue: Queue::new(delay, places),
            removals,
            spool,
            options,
        }
    }
}

/// How long attributes wait for others that are set with them.
const SETTLE: Duration = Duration::from_millis(50);

/// What fsync told of a file, close does not try again for so long.
const TOLD: Duration = Duration::from_mins(1);

/// A draft in the queue.
struct Save {
    fs: Arc<Fs>,
    ino: u64,
    draft: Arc<Draft>,
}

#[async_trait]
impl Job for Save {
    async fn attempt(&self) -> Outcome {
        // What is half written waits for its writer; what was closed before is safe in the spool.
        if !self.draft.is_sealed() && self.fs.handles.writers(self.ino) > 0 {
            return if self.fs.ends.load(Ordering::Relaxed) { Outcome::Failed } else { Outcome::Changed };
        }
        match timed(self.fs.upload_draft(self.ino, &self.draft)).await {
            Ok(()) => {
                let state = self.draft.state();
                if state.is_clean() || state.key.is_none() { Outcome::Done } else { Outcome::Changed }
            }
            Err(error) if error.kind == ErrorKind::NoDescriptor => Outcome::Later,
            Err(error) => match error.cause {
                Some(cause) if cause.is_unreached() => Outcome::Unreached,
                Some(cause) if !is_final(cause.kind) => Outcome::Retry,
                _ => Outcome::Failed,
            },
        }
    }

    fn ended(&self, failed: bool) {
        if failed {
            self.fs.refused_later.parks(&self.draft);
            self.fs.park(self.ino, &self.draft);
        } else {
            self.fs.drop_draft(self.ino, &self.draft);
        }
    }
}

impl Fs {
    /// A thread opened the file for writing, or got it opened: its close will count.
    pub fn opened_by(&self, handle: u64, thread: u32) {
        if let Some(file) = self.handles.file(handle).filter(|file| file.is_writable) {
            file.users.opened(thread);
        }
    }

    /// A thread closes a descriptor of the file.
    ///
    /// # Errors
    /// Why what was written is not in the bucket.
    pub async fn flush(&self, handle: u64, thread: u32) -> Result<(), FsError> {
        let Some(file) = self.handles.file(handle) else { return Ok(()) };
        if !file.is_writable {
            return Ok(());
        }
        self.whole(&file)?;
        if self.dirty_draft(file.ino).is_none() {
            return Ok(());
        }
        let name = self.inodes.lock().get(file.ino).map(|inode| Box::<[u8]>::from(inode.name()));
        // Another open of the file has a close of its own.
        let is_only = self.handles.of(file.ino).len() == 1;
        if name.is_some_and(|name| file.users.goes_on_after_close(thread, file.ino, &name, is_only)) {
            return Ok(());
        }
        self.save(file.ino).await
    }

    /// # Errors
    /// Why what was written is not in the bucket.
    pub async fn fsync(&self, handle: u64) -> Result<(), FsError> {
        let file = self.handles.file(handle).ok_or(ErrorKind::BadHandle)?;
        let writer = self.writer()?;
        self.whole(&file)?;
        if writer.options.write_back && writer.options.fsync_local {
            self.save(file.ino).await
        } else {
            // Another try is what a second fsync is for.
            self.upload(file.ino, Duration::ZERO).await
        }
    }

    /// Brings a file's changes to safety: into the bucket, or into the queue.
    pub(super) async fn save(&self, ino: u64) -> Result<(), FsError> {
        if !self.writer()?.options.write_back {
            return self.upload(ino, TOLD).await;
        }
        let Some(draft) = self.dirty_draft(ino) else { return Ok(()) };
        let permitted = {
            let _changing = draft.changing().await;
            let permitted = self.writer()?.uploader.permit(&draft);
            if permitted.is_ok() {
                draft.commit()?;
            }
            permitted
        };
        if let Err(error) = permitted {
            return Err(self.has_failed(ino, &draft, error.into()).await);
        }
        self.enqueue(ino, &draft);
        Ok(())
    }

    /// Whether every write of a file reached it since it was last empty.
    fn whole(&self, file: &FileHandle) -> Result<(), FsError> {
        // Not with the table held: a write holds the draft's state while the spool's disk is slow.
        let draft = self.inodes.lock().get(file.ino).and_then(|inode| inode.draft().cloned());
        let failed = draft.and_then(|draft| draft.state().failed);
        let failed = failed.map(|errno| FsError::kind_of(&io::Error::from_raw_os_error(errno)));
        failed.or(*file.failed.lock()).map_or(Ok(()), |kind| Err(kind.into()))
    }

    fn dirty_draft(&self, ino: u64) -> Option<Arc<Draft>> {
        let inodes = self.inodes.lock();
        let draft = inodes.get(ino)?.draft()?;
        let state = draft.state();
        (!state.is_clean() && state.key.is_some()).then(|| Arc::clone(draft))
    }

    /// Uploads a file's changes, and waits for it. An upload of them that failed meanwhile, or no longer ago than `told`,
    /// is not tried again: its error is this one's.
    pub(super) async fn upload(&self, ino: u64, told: Duration) -> Result<(), FsError> {
        let asked = Instant::now();
        let Some(draft) = self.dirty_draft(ino) else { return Ok(()) };
        drop(draft.changing().await);
        if let Some(error) = draft.state().failed_after(asked.checked_sub(told).unwrap_or(asked)) {
            return Err(error.clone().into());
        }
        let generation = draft.state().generation;
        let result = self.upload_draft(ino, &draft).await;
        if let Err(FsError { cause: Some(error), .. }) = &result {
            draft.state().upload_failed = Some((generation, Instant::now(), error.clone()));
        }
        let cause = result.as_ref().err().and_then(|error| error.cause.as_ref());
        if cause.is_some_and(|cause| cause.kind.is_by_policy()) {
            draft.state().told = Some(generation);
        }
        result
    }

    pub(super) async fn upload_draft(&self, ino: u64, draft: &Arc<Draft>) -> Result<(), FsError> {
        let writer = self.writer()?;
        if let Some(error) = draft.torn().filter(|_| draft.state().key.is_some()) {
            return Err(FsError::kind_of(&error).into());
        }
        let publish = |uploaded: &Uploaded| self.uploaded(ino, draft, uploaded);
        let error = match writer.uploader.upload(draft, publish).await {
            Ok(_) => return Ok(()),
            Err(UploadError::Conflict(head)) => return self.conflict(ino, draft, &head).await,
            Err(UploadError::Replaced) => {
                self.was_replaced(ino, draft);
                return Ok(());
            }
            Err(UploadError::Store(error)) => FsError::from(error),
            Err(UploadError::Io(error)) => error.into(),
        };
        if error.kind == ErrorKind::NoDescriptor {
            // Nothing was tried.
            return Err(error);
        }
        Err(self.has_failed(ino, draft, error).await)
    }

    /// Notes why a file did not get into the bucket.
    async fn has_failed(&self, ino: u64, draft: &Draft, error: FsError) -> FsError {
        if let Some(cause) = &error.cause {
            // Also where the server was only asked what the key holds. The last error decides what becomes of the file.
            draft.state().error = Some(cause.clone());
        }
        self.refused(ino, draft, &error);
        if error.cause.as_ref().is_some_and(|cause| is_final(cause.kind)) {
            // The listing tells the truth when the writer hears of it.
            self.lost_name(ino);
            self.forgotten().await;
        }
        error
    }

    /// The bucket holds what the draft holds. Comes before the draft is clean, and so before it may be dropped.
    pub(super) fn uploaded(&self, ino: u64, draft: &Draft, uploaded: &Uploaded) {
        let modified_ms = nanos_now() / 1_000_000;
        let modified = Modified::unlisted(modified_ms);
        let version = FileVersion { etag: uploaded.etag.clone(), size: uploaded.size, modified };
        let attrs = uploaded.attrs;
        self.refusals.lock().pop(uploaded.key.as_str());
        self.refused_later.deletion_settled(&uploaded.key);
        self.refused_later.settings_stored(&uploaded.key);
        if self.may_be_refused {
            self.rights.uploaded(&uploaded.key);
        }
        let mut inodes = self.inodes.lock();
        // With the table held: a version that is about to be replaced, of the same bytes, must not take these over.
        self.known.wrote(&uploaded.key, &version, attrs, &uploaded.headers);
        let key = inodes.key(ino);
        let Some(inode) = inodes.get_mut(ino) else { return };
        let is_link = inode.file().is_some_and(|file| file.is_link);
        if let Some(file) = inode.file_mut() {
            file.version = version.clone();
            file.handed_out = true;
        }
        let extra = inode.extra_mut();
        extra.attrs = attrs;
        // Not the moment of the upload: closing a file changes nothing about it.
        extra.ctime = extra.ctime.max(draft.state().written()).or(Some(modified_ms * 1_000_000));
        extra.headers = Some((Arc::new(uploaded.headers.clone()), Instant::now()));
        draft.state().error = None;
        // It lost its name while the answer was on its way, or a rename is about to give it the new one.
        if inode.is_removed() || key.as_deref() != Some(uploaded.key.as_str()) {
            return;
        }
        let (parent, name) = (inode.parent(), Box::<[u8]>::from(inode.name()));
        let component = inode.component().to_owned();
        let Some(prefix) = inodes.key(parent) else { return };
        let component = (component.as_bytes() != &*name).then(|| component.into());
        let kind = if is_link { Kind::Link(version) } else { Kind::File(version) };
        let entry = Entry { name: name.clone(), component, kind };
        // With the table held, so that nobody sees the one changed and not the other.
        self.meta.changed(&prefix, &name, Some(entry), false);
    }

    /// Notes why an upload failed, where people look for it.
    fn refused(&self, ino: u64, draft: &Draft, error: &FsError) {
        let words: Arc<str> =
            error.cause.as_ref().map_or_else(|| error.to_string(), |cause| cause.message.clone()).into();
        if let Err(error) = draft.save(|record| record.error = Some(words.to_string())) {
            tracing::warn!(%error, "cannot note in the spool why an upload failed");
        }
        let key = draft.state().key.clone().or_else(|| self.inodes.lock().key(ino)).unwrap_or_default();
        if error.cause.as_ref().is_some_and(|cause| cause.kind.is_by_policy()) {
            self.rights.refused(&key);
        }
        self.note_refusal(&key, words);
    }

    /// Keeps the server's words for what it refused: for the name, and for its folder. The key of a folder ends in a slash.
    pub(super) fn note_refusal(&self, key: &str, words: Arc<str>) {
        let folder = super::behind::split(key.trim_end_matches('/')).0;
        let mut refusals = self.refusals.lock();
        refusals.put(folder.into(), Arc::clone(&words));
        refusals.put(key.into(), words);
    }

    /// Keeps the server's words where a policy raised an error as a file was read or a folder was listed.
    pub(super) fn noted(&self, key: &str, error: FsError) -> FsError {
        if let Some(cause) = error.cause.as_ref().filter(|cause| cause.kind == StoreErrorKind::PolicyError) {
            self.note_refusal(key, cause.message.as_str().into());
        }
        error
    }

    /// Somebody else changed the object: theirs keeps the name.
    async fn conflict(&self, ino: u64, draft: &Arc<Draft>, head: &ObjectHead) -> Result<(), FsError> {
        let writer = self.writer()?;
        self.stats.conflicts.add(1);
        let key = draft.state().key.clone().unwrap_or_default();
        if writer.options.on_conflict == OnConflict::Fail {
            let error = lost_to(&key);
            draft.state().error.clone_from(&error.cause);
            tracing::error!(%key, etag = %head.etag, "the object was changed by somebody else; what was written here stays in the spool (--on-conflict fail)");
            self.refused(ino, draft, &error);
            return Err(error);
        }
        if self.drop_settings(ino, draft) {
            tracing::warn!(%key, "the object was replaced by somebody else meanwhile; what was set on the one before counts no more");
            return Ok(());
        }
        let beside = conflict_key(&key);
        {
            let _changing = draft.changing().await;
            let mut state = draft.state();
            // What is not here was part of a version that is gone.
            if state.local.missing(0..state.base_limit) > 0 {
                let error = lost_to(&key);
                state.error.clone_from(&error.cause);
                drop(state);
                tracing::error!(%key, "the object was changed by somebody else while parts of it were changed here; the changes stay in the spool");
                self.refused(ino, draft, &error);
                return Err(error);
            }
            state.key = Some(beside.clone());
            state.expected = None;
            state.replaces = None;
            state.attempted.clear();
            state.base = None;
            state.base_limit = 0;
        }
        draft.reseal()?;
        match writer.uploader.upload(draft, |_| self.lost_name(ino)).await {
            Ok(_) => {}
            Err(error) => {
                let error = match error {
                    UploadError::Store(error) => FsError::from(error),
                    UploadError::Io(error) => error.into(),
                    UploadError::Conflict(_) | UploadError::Replaced => ErrorKind::Stale.into(),
                };
                self.refused(ino, draft, &error);
                return Err(error);
            }
        }
        tracing::warn!(%key, copy = %beside, "the object was changed by somebody else; theirs keeps the name, ours lies beside it");
        Ok(())
    }

    /// The last mount ended in a rename over this file, which the server had carried out.
    fn was_replaced(&self, ino: u64, draft: &Draft) {
        let key = draft.state().key.take();
        tracing::info!(key, "not uploaded: the last mount ended when it had renamed another file over it");
        self.lost_name(ino);
    }

    /// What was set on content that is gone is not wanted. `false`: the file is open, and what is written to it next must
    /// not go with its draft, or there is more than settings.
    fn drop_settings(&self, ino: u64, draft: &Arc<Draft>) -> bool {
        let lost = {
            // With the table held, so that whoever opens the file finds the draft or a name that is lost.
            let mut inodes = self.inodes.lock();
            let is_open = inodes.get(ino).is_some_and(|inode| inode.opens() > 0);
            let mut state = draft.state();
            if is_open || !state.is_settings_only() {
                return false;
            }
            state.key = None;
            drop(state);
            let lost = take_name(&mut inodes, ino);
            inodes.end_draft(ino, draft);
            lost
        };
        self.forget_name(lost);
        true
    }

    /// The name of a file stands for what the server has, from now on.
    fn lost_name(&self, ino: u64) {
        let lost = take_name(&mut self.inodes.lock(), ino);
        self.forget_name(lost);
    }

    fn forget_name(&self, lost: Option<(u64, String, Box<[u8]>)>) {
        let Some((parent, prefix, name)) = lost else { return };
        self.meta.unchanged(&prefix, &name);
        self.meta.invalidate(&prefix);
        self.invalidate(super::Invalidation::Name { parent, name });
    }

    /// The last user of a file is gone: its draft ends, with what is not in the bucket yet.
    pub(super) fn end_draft(&self, ino: u64) {
        let draft = {
            let inodes = self.inodes.lock();
            let Some(inode) = inodes.get(ino) else { return };
            let Some(draft) = inode.draft().filter(|_| inode.opens() == 0) else { return };
            Arc::clone(draft)
        };
        let (is_clean, has_name, error, was_told) = {
            let state = draft.state();
            let was_told = state.told == Some(state.generation);
            (state.is_clean(), state.key.is_some(), state.error.clone(), was_told)
        };
        if is_clean || !has_name {
            return self.drop_draft(ino, &draft);
        }
        let Ok(writer) = self.writer() else { return };
        if writer.queue.holds(draft.id()) {
            draft.rest();
            return;
        }
        if was_told && draft.is_unacknowledged() {
            return self.give_up(ino, &draft);
        }
        if draft.torn().is_some() {
            return self.park(ino, &draft);
        }
        // Whoever waited for an upload that is under way was killed meanwhile: nobody was told anything.
        let is_told = !draft.is_being_uploaded();
        match error {
            Some(error) if is_told && (is_final(error.kind) || !writer.options.write_back) => {
                // Close says at once what is refused here.
                if writer.options.write_back && !error.is_refused_here() {
                    self.refused_later.parks(&draft);
                }
                self.park(ino, &draft);
            }
            // Pages that were written through a mapping come after close.
            _ => {
                if let Err(error) = draft.commit() {
                    tracing::warn!(%error, "a change is not on record until it is uploaded");
                }
                draft.rest();
                self.enqueue(ino, &draft);
            }
        }
    }

    /// Ends a draft that nobody uses, whose content is in the bucket or not wanted.
    pub(super) fn drop_draft(&self, ino: u64, draft: &Arc<Draft>) {
        {
            let mut inodes = self.inodes.lock();
            let is_open = inodes.get(ino).is_some_and(|inode| inode.opens() > 0);
            let state = draft.state();
            // Somebody opened or changed it in this moment.
            if is_open || !(state.is_clean() || state.key.is_none()) {
                return;
            }
            let is_stored = state.key.is_some();
            drop(state);
            if is_stored {
                self.unshow_draft(&inodes, ino, draft);
            }
            inodes.end_draft(ino, draft);
        }
        draft.discard();
    }

    /// A change that came to nothing holds its name no longer than one that the bucket has.
    fn unshow_draft(&self, inodes: &InodeTable, ino: u64, draft: &Arc<Draft>) {
        let Some(inode) = inodes.get(ino).filter(|inode| !inode.is_detached()) else { return };
        // A file that was saved again since has a draft of its own.
        let is_its = inode.draft().is_some_and(|current| Arc::ptr_eq(current, draft));
        if let Some(prefix) = inodes.key(inode.parent()).filter(|_| is_its) {
            self.meta.unpin(&prefix, inode.name());
        }
    }

    /// Nothing remains of what a policy forbids, where its writer was told and nothing had been said to be safe.
    pub(super) fn give_up(&self, ino: u64, draft: &Arc<Draft>) {
        let key = draft.state().key.clone().unwrap_or_default();
        tracing::warn!(%key, "a policy forbids what was written, and its writer was told: nothing of it is kept");
        self.lost_name(ino);
        self.inodes.lock().end_draft(ino, draft);
        draft.discard();
    }

    /// Leaves in the spool what the bucket does not take; the name shows what the server has.
    pub(super) fn park(&self, ino: u64, draft: &Arc<Draft>) {
        let is_open = self.inodes.lock().get(ino).is_some_and(|inode| inode.opens() > 0);
        if is_open {
            // Its last user decides.
            return;
        }
        if draft.state().key.is_none() {
            return self.drop_draft(ino, draft);
        }
        let key = draft.state().key.clone().unwrap_or_default();
        let is_forbidden = draft.state().error.as_ref().is_some_and(|error| error.kind.is_by_policy());
        if is_forbidden && draft.state().is_settings_only() {
            let why = draft.why_not_uploaded().unwrap_or_default();
            tracing::error!(%key, why, "what was set on a file is not in the bucket");
            self.refused_later.settings(&key);
            self.lost_name(ino);
            self.inodes.lock().end_draft(ino, draft);
            return draft.discard();
        }
        let torn = draft.torn();
        let closed = match draft.park() {
            Ok(closed) => {
                if let Some(error) = torn {
                    tracing::error!(%key, id = draft.id(), %error, "a write failed, so the file is not uploaded and the bucket keeps its version; what was written takes up room in the spool until `supafs spool discard`");
                } else {
                    let why = draft.why_not_uploaded().unwrap_or_default();
                    tracing::error!(%key, id = draft.id(), why, "not uploaded; what was written is kept: see `supafs spool list`");
                }
                closed
            }
            Err(error) => {
                tracing::error!(%key, %error, "cannot note in the spool that an upload failed");
                None
            }
        };
        self.lost_name(ino);
        self.inodes.lock().end_draft(ino, draft);
        self.resume(closed.into_iter().collect(), vec![]);
    }

    /// Uploads in the background, again and again where that helps.
    pub(super) fn enqueue(&self, ino: u64, draft: &Arc<Draft>) {
        let (Ok(writer), Some(fs)) = (self.writer(), self.me.upgrade()) else { return };
        // Most of what is streamed is there already.
        let delays = if draft.is_streaming() { 0.25 } else { 1.0 };
        writer.queue.push(draft.id(), delays, Arc::new(Save { fs, ino, draft: Arc::clone(draft) }));
    }
}

/// Takes the name off a file; answers the directory, with its prefix, and the name.
fn take_name(inodes: &mut InodeTable, ino: u64) -> Option<(u64, String, Box<[u8]>)> {
    let inode = inodes.get(ino)?;
    let (parent, name) = (inode.parent(), Box::<[u8]>::from(inode.name()));
    inodes.detach(ino);
    Some((parent, inodes.key(parent)?, name))
}

/// Where ours goes when somebody else's keeps the name.
fn conflict_key(key: &str) -> String {
    let (folder, file) = key.rsplit_once('/').map_or(("", key), |(folder, file)| (folder, file));
    let (stem, extension) = match file.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() && extension.len() < 32 => {
            (stem, format!(".{extension}"))
        }
        _ => (file, String::new()),
    };
    let millis = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    let slash = if folder.is_empty() { "" } else { "/" };
    let suffix = format!(" (conflict {millis}){extension}");
    let room = crate::name::MAX_LEN.saturating_sub(suffix.len()).min(stem.len());
    // A component is ASCII, and too long an extension is no extension.
    format!("{folder}{slash}{}{suffix}", stem.get(..room).unwrap_or_default())
}

/// What is noted of a change that lost to somebody else's.
fn lost_to(key: &str) -> FsError {
    let cause = StoreError {
        kind: StoreErrorKind::Refused,
        operation: "HeadObject",
        key: key.to_owned(),
        status: 0,
        code: String::new(),
        message: "the object was changed by somebody else meanwhile".to_owned(),
    };
    FsError { kind: ErrorKind::Stale, cause: Some(cause) }
}
