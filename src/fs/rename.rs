//! Rename: of files by one copy and one delete on the server, of folders object by object, of what is not in the
//! bucket yet by changing where it will go.
//!
//! No object is ever lost: a source is deleted after its copy is there, and where a policy refuses that, the copy is
//! taken back, what it replaced is put back, and rename answers `EACCES`.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};

use super::save::content_type;
use super::{ErrorKind, Fs, FsError};
use crate::meta::{Entry, Kind};
use crate::name;
use crate::store::{ListRequest, ListedObject, MAX_COPY, ObjectHeaders, StoreError, StoreErrorKind};
use crate::writeback::{Draft, Expected, State, UploadError, Uploaded, is_final};

/// Copies of a folder's objects in flight.
const COPIES: usize = 32;

/// Objects of a folder that are copied before their sources are deleted.
const BATCH: usize = 1000;

/// Uploads of a file that may come between the steps of its rename.
const UPLOADS_BETWEEN: u32 = 8;

/// One end of a rename.
struct End<'a> {
    parent: u64,
    prefix: String,
    name: &'a [u8],
}

impl Fs {
    /// Renames a file or a directory, replacing what has the new name unless `no_replace`.
    ///
    /// # Errors
    /// `Exists`, `NotEmpty`, `IsDirectory`, `NotDirectory`, `Access`.
    pub async fn rename(
        &self,
        (parent, name): (u64, &[u8]),
        (new_parent, new_name): (u64, &[u8]),
        no_replace: bool,
    ) -> Result<(), FsError> {
        let component = self.new_component(new_name)?;
        let from = End { parent, prefix: self.prefix(parent)?, name };
        let to = End { parent: new_parent, prefix: self.prefix(new_parent)?, name: new_name };
        self.may_create(&from.prefix)?;
        self.may_create(&to.prefix)?;
        if parent == new_parent && name == new_name {
            return Ok(());
        }
        let entry = self.meta.lookup(&from.prefix, name).await?.entry.ok_or(ErrorKind::NotFound)?;
        let replaced = self.meta.lookup(&to.prefix, new_name).await?.entry;
        if replaced.is_some() && no_replace {
            return Err(ErrorKind::Exists.into());
        }
        let is_directory = matches!(entry.kind, Kind::Directory);
        match replaced.as_ref().map(|replaced| matches!(replaced.kind, Kind::Directory)) {
            Some(true) if !is_directory => return Err(ErrorKind::IsDirectory.into()),
            Some(false) if is_directory => return Err(ErrorKind::NotDirectory.into()),
            _ => {}
        }
        if is_directory {
            self.rename_directory(&from, &to, &entry, component, replaced.is_some()).await
        } else {
            self.rename_file(&from, &to, &entry, component, replaced.as_ref()).await
        }
    }

    async fn rename_file(
        &self,
        from: &End<'_>,
        to: &End<'_>,
        entry: &Entry,
        mut component: String,
        replaced: Option<&Entry>,
    ) -> Result<(), FsError> {
        if matches!(entry.kind, Kind::Link(_)) {
            component.push_str(name::LINK_SUFFIX);
        }
        let source = format!("{}{}", from.prefix, entry.component());
        let target = format!("{}{component}", to.prefix);
        let (ino, old_target) = {
            let mut inodes = self.inodes.lock();
            let ino = inodes.upsert(from.parent, entry);
            inodes.opened(ino);
            (ino, inodes.named(to.parent, to.name))
        };
        let result = self.move_content(from, ino, entry, (&source, &target), old_target, replaced).await;
        let result = result.map(|uploaded| {
            self.moved_file(from, to, ino, entry, component);
            if let Some((draft, uploaded)) = uploaded {
                self.uploaded(ino, &draft, &uploaded);
            }
        });
        self.inodes.lock().closed(ino);
        result
    }

    /// Brings the bytes from one key to another.
    async fn move_content(
        &self,
        from: &End<'_>,
        ino: u64,
        entry: &Entry,
        (source, target): (&str, &str),
        old_target: Option<u64>,
        replaced: Option<&Entry>,
    ) -> Result<Option<(Arc<Draft>, Uploaded)>, FsError> {
        // What is to go from the target would take the new object with it.
        self.writer()?.removals.settled(target).await?;
        let kept = self.keep_content(old_target).await?;
        let replaced = replaced.filter(|_| kept.is_stored);
        let mut moved = Err(ErrorKind::Busy.into());
        for _ in 0..UPLOADS_BETWEEN {
            moved = self.move_over(from, ino, entry, (source, target), replaced).await;
            if !moved.as_ref().is_err_and(|error: &FsError| error.kind == ErrorKind::Busy) {
                break;
            }
        }
        match moved {
            Ok(_) => self.orphan(old_target),
            Err(_) => kept.give_back(),
        }
        moved
    }

    /// The same, with what had the target's name out of the way.
    async fn move_over(
        &self,
        from: &End<'_>,
        ino: u64,
        entry: &Entry,
        (source, target): (&str, &str),
        replaced: Option<&Entry>,
    ) -> Result<Option<(Arc<Draft>, Uploaded)>, FsError> {
        let draft = self.inodes.lock().get(ino).and_then(|inode| inode.draft().cloned());
        if let Some(draft) = draft {
            // An upload under way ends first.
            drop(draft.changing().await);
            if !draft.state().is_clean() {
                return self.move_draft(from, &draft, (source, target), replaced).await;
            }
        }
        // A policy that refuses the delete is known only afterwards: until then the old version is kept.
        let kept = match replaced {
            Some(replaced) if self.may_be_refused => Some(self.keep_object(target, replaced).await?),
            _ => None,
        };
        let size = entry.version().map_or(0, |version| version.size);
        self.keep_folder(&from.prefix, from.name).await?;
        let headers = self.renamed_headers(ino, target);
        let etag = self.copy(source, target, size, headers.as_ref()).await?;
        if let Err(error) = self.store.delete(source).await {
            self.not_deleted(target, kept.as_ref(), &error).await;
            return Err(error.into());
        }
        if let Some(kept) = kept {
            kept.discard();
        }
        if let Some(version) = entry.version() {
            self.known.copied(source, version, target, &etag);
        }
        self.known.forget(source);
        self.rebase(ino, target, &etag);
        if let Some(file) = self.inodes.lock().get_mut(ino).and_then(|inode| inode.file_mut()) {
            file.version.etag = etag;
            file.version.modified.is_listed = false;
        }
        Ok(None)
    }

    /// A clean draft of a file that was moved on the server is of the object under its new key.
    fn rebase(&self, ino: u64, target: &str, etag: &crate::etag::ETag) {
        let draft = self.inodes.lock().get(ino).and_then(|inode| inode.draft().cloned());
        let Some(draft) = draft else { return };
        {
            let mut state = draft.state();
            state.key = Some(target.to_owned());
            if let Some(expected) = &mut state.expected {
                expected.etag.clone_from(etag);
            }
            if let Some(base) = &mut state.base {
                target.clone_into(&mut base.key);
                base.etag = etag.to_string();
            }
        }
        if let Err(error) = draft.save(|_| {}) {
            tracing::warn!(%error, "the spool still has the old name of a file that was moved");
        }
    }

    /// The source of a rename may still be there. Only where the server said so may the copy go again: a request whose
    /// answer is missing may have been carried out, or may be yet.
    async fn not_deleted(&self, target: &str, kept: Option<&Arc<Draft>>, error: &StoreError) {
        if is_final(error.kind) {
            return self.take_back(target, kept).await;
        }
        tracing::error!(key = target, %error, "nobody knows whether the source of a rename is still there; its copy stays");
        if let Some(kept) = kept
            && let Err(error) = kept.park()
        {
            tracing::error!(%error, "cannot note in the spool what a rename replaced");
        }
    }

    /// What is not in the bucket yet goes to another key; what is there goes with it.
    async fn move_draft(
        &self,
        from: &End<'_>,
        draft: &Arc<Draft>,
        (source, target): (&str, &str),
        replaced: Option<&Entry>,
    ) -> Result<Option<(Arc<Draft>, Uploaded)>, FsError> {
        // After an error nobody knows: then it may be there.
        let is_stored = |state: &State| state.expected.is_some() || state.error.is_some();
        let was_stored = is_stored(&draft.state());
        if was_stored {
            self.keep_folder(&from.prefix, from.name).await?;
        }
        let kept = match replaced {
            Some(replaced) if self.may_be_refused && was_stored => {
                Some(self.keep_object(target, replaced).await?)
            }
            _ => None,
        };
        if draft.state().expected.is_some() && draft.state().stored_headers.is_none() {
            // What the object had goes with it.
            match self.store.head(source).await {
                Ok(head) => draft.state().stored_headers = Some(head.into()),
                Err(error) if error.kind == StoreErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        let before = {
            let _changing = draft.changing().await;
            let mut state = draft.state();
            if state.is_clean() || is_stored(&state) != was_stored {
                // An upload came between.
                return Err(ErrorKind::Busy.into());
            }
            let before = state.clone();
            state.key = Some(target.to_owned());
            state.expected = None;
            // To replace what is there is what a rename is for; after a crash somebody else's is told from that.
            state.replaces = replaced
                .and_then(Entry::version)
                .map(|version| Expected { etag: version.etag.clone(), size: version.size });
            before
        };
        if let Err(error) = draft.save(|_| {}) {
            draft.state().goes_back_to(&before);
            return Err(error.into());
        }
        let mut uploaded = None;
        if was_stored {
            let writer = self.writer()?;
            let refused = match writer.uploader.upload(draft).await {
                Ok(done) => {
                    uploaded = done;
                    self.store.delete(source).await.err().map(|error| (error.clone(), FsError::from(error)))
                }
                Err(error) => {
                    draft.state().goes_back_to(&before);
                    drop(draft.save(|_| {}));
                    return Err(error.into());
                }
            };
            if let Some((cause, error)) = refused {
                {
                    // Unless the copy is taken back, it is the best place for what is not here.
                    let base = draft.state().base.clone();
                    let mut state = draft.state();
                    state.goes_back_to(&before);
                    if !is_final(cause.kind) {
                        state.base_limit = base.as_ref().map_or(0, |base| base.size.min(state.size));
                        state.base = base;
                    }
                }
                drop(draft.reseal());
                self.not_deleted(target, kept.as_ref(), &cause).await;
                return Err(error);
            }
            if let Some(kept) = kept {
                kept.discard();
            }
        }
        Ok(uploaded.map(|uploaded| (Arc::clone(draft), uploaded)))
    }

    /// The headers of a file that changes its name, where they are known and follow from it.
    fn renamed_headers(&self, ino: u64, target: &str) -> Option<ObjectHeaders> {
        let mut inodes = self.inodes.lock();
        let source = inodes.key(ino)?;
        let extra = inodes.get_mut(ino)?.extra_mut();
        let (headers, _) = extra.headers.as_mut()?;
        let (was, is) = (content_type(&source), content_type(target));
        if was == is || headers.content_type != was {
            return None;
        }
        let mut renamed = (**headers).clone();
        renamed.content_type = is;
        *headers = Arc::new(renamed.clone());
        Some(renamed)
    }

    /// An object's content and headers, in the spool.
    async fn keep_object(&self, key: &str, entry: &Entry) -> Result<Arc<Draft>, FsError> {
        let writer = self.writer()?;
        let head = self.store.head(key).await?;
        let version = entry.version().ok_or(ErrorKind::IsDirectory)?;
        let base = crate::writeback::Base {
            key: key.to_owned(),
            etag: head.etag.to_string(),
            size: head.size,
            modified_ms: version.modified.ms,
        };
        let mut state = State::on(key, Some(base), crate::attrs::Attrs::default());
        state.stored_headers = Some(head.into());
        let draft = Draft::new(&writer.spool, state)?;
        writer.uploader.fill_all(&draft).await?;
        // A crash must find it.
        draft.save(|_| {})?;
        Ok(draft)
    }

    /// After a refused delete: the target is what it was.
    async fn take_back(&self, target: &str, kept: Option<&Arc<Draft>>) {
        let result = match kept {
            None => self.store.delete(target).await.map_err(FsError::from),
            Some(kept) => {
                {
                    let mut state = kept.state();
                    state.generation += 1;
                    state.expected = None;
                    state.base = None;
                    state.base_limit = 0;
                }
                match self.writer() {
                    Ok(writer) => writer.uploader.upload(kept).await.map(|_| ()).map_err(FsError::from),
                    Err(error) => Err(error),
                }
            }
        };
        match (result, kept) {
            (Ok(()), Some(kept)) => kept.discard(),
            (Ok(()), None) => {}
            (Err(error), Some(kept)) => {
                tracing::error!(key = target, id = kept.id(), %error, "a policy refused a rename, and what it replaced cannot be put back; it is kept: see `supafs spool list`");
                if let Err(error) = kept.park() {
                    tracing::error!(%error, "cannot note it in the spool");
                }
            }
            (Err(error), None) => {
                tracing::warn!(key = target, %error, "a policy refused to remove the source of a rename, and now its copy: both are there");
            }
        }
    }

    /// A copy on the server, of any size.
    pub(super) async fn copy(
        &self,
        source: &str,
        target: &str,
        size: u64,
        headers: Option<&ObjectHeaders>,
    ) -> Result<crate::etag::ETag, FsError> {
        if size <= MAX_COPY {
            return Ok(self.store.copy(source, target, headers).await?);
        }
        let head = self.store.head(source).await?;
        let size = head.size;
        let own = ObjectHeaders::from(head);
        Ok(self.writer()?.uploader.copy_in_parts(source, target, size, headers.unwrap_or(&own)).await?)
    }

    /// What the file system knows follows the file.
    fn moved_file(&self, from: &End<'_>, to: &End<'_>, ino: u64, entry: &Entry, component: String) {
        let component = (component.as_bytes() != to.name).then(|| component.into_boxed_str());
        let mut inodes = self.inodes.lock();
        if let Some(old) = inodes.named(to.parent, to.name).filter(|&old| old != ino) {
            inodes.remove(old);
        }
        inodes.rename(ino, to.parent, to.name, component.clone());
        let new_key = inodes.key(ino);
        let now = crate::writeback::nanos_now();
        let mut moved = Entry { name: to.name.into(), component, kind: entry.kind.clone() };
        let mut is_pinned = false;
        if let Some(inode) = inodes.get_mut(ino) {
            inode.extra_mut().ctime = Some(now);
            is_pinned = inode.draft().is_some_and(|draft| !draft.state().is_clean());
            if let (Some(version), Some(file)) = (moved.version_mut(), inode.file_mut()) {
                version.clone_from(&file.version);
            }
        }
        self.changed_directory(&mut inodes, from.parent);
        self.changed_directory(&mut inodes, to.parent);
        drop(inodes);
        self.meta.changed(&from.prefix, from.name, None, false);
        self.meta.changed(&to.prefix, to.name, Some(moved), is_pinned);
        if let Some(key) = new_key {
            self.redirect_readers(ino, &key);
        }
    }

    /// Open files go on reading, from where the object is now.
    pub(super) fn redirect_readers(&self, ino: u64, key: &str) {
        let version =
            self.inodes.lock().get(ino).and_then(|inode| inode.file().map(|file| file.version.clone()));
        let Some(version) = version else { return };
        for handle in self.handles.of(ino) {
            let object =
                crate::data::ObjectId::new(key, version.etag.clone(), version.size, version.modified);
            *handle.reader.lock() = crate::data::Reader::new(object, self.fetcher.clone());
        }
    }

    async fn rename_directory(
        &self,
        from: &End<'_>,
        to: &End<'_>,
        entry: &Entry,
        component: String,
        replaces: bool,
    ) -> Result<(), FsError> {
        let source = format!("{}{}/", from.prefix, entry.component());
        let target = format!("{}{component}/", to.prefix);
        if target.starts_with(&source) {
            return Err(ErrorKind::Invalid.into());
        }
        if replaces && self.holds_others(&target, b"").await? {
            return Err(ErrorKind::NotEmpty.into());
        }
        // What is to go there would be copied, or take its successor along.
        self.writer()?.removals.settled(&source).await?;
        self.writer()?.removals.settled(&target).await?;
        // What is written below goes up first, so that everything there is is in the bucket.
        self.save_below(&source).await?;
        self.keep_folder(&from.prefix, from.name).await?;
        let moved = self.move_objects(&source, &target).await?;
        tracing::info!(%source, %target, objects = moved, "renamed a folder");
        let ino = self.inodes.lock().named(from.parent, from.name);
        let component = (component.as_bytes() != to.name).then(|| component.into_boxed_str());
        {
            let mut inodes = self.inodes.lock();
            if let Some(old) = inodes.named(to.parent, to.name).filter(|&old| Some(old) != ino) {
                inodes.remove(old);
            }
            if let Some(ino) = ino {
                inodes.rename(ino, to.parent, to.name, component.clone());
                if let Some(inode) = inodes.get_mut(ino) {
                    inode.extra_mut().ctime = Some(crate::writeback::nanos_now());
                }
            }
            self.changed_directory(&mut inodes, from.parent);
            self.changed_directory(&mut inodes, to.parent);
        }
        self.meta.forget_below(&source);
        self.meta.forget_below(&target);
        self.meta.changed(&from.prefix, from.name, None, false);
        let moved = Entry { name: to.name.into(), component, kind: Kind::Directory };
        self.meta.changed(&to.prefix, to.name, Some(moved), false);
        self.redirect_below(&source, &target);
        Ok(())
    }

    /// Every object below a prefix, copied and then deleted in batches: at any time each is at the source, the target
    /// or both.
    async fn move_objects(&self, source: &str, target: &str) -> Result<usize, FsError> {
        let mut request = ListRequest { prefix: source.to_owned(), ..ListRequest::default() };
        let mut keys = Vec::new();
        loop {
            let page = self.store.list(&request).await?;
            keys.extend(page.objects);
            request.after = page.next;
            if request.after.is_none() {
                break;
            }
        }
        let total = keys.len();
        let mut done = 0;
        for batch in keys.chunks(BATCH) {
            let copies = batch.to_vec().into_iter().map(|object| async move {
                let to = format!("{target}{}", &object.key[source.len()..]);
                let etag = match self.copy(&object.key, &to, object.size, None).await {
                    Ok(etag) => etag,
                    // Somebody removed it meanwhile: nothing is left to move.
                    Err(error) if error.kind == ErrorKind::NotFound => return Ok(()),
                    Err(error) => return Err(error),
                };
                let key = object.key.clone();
                match (key.strip_suffix(name::PLACEHOLDER), to.strip_suffix(name::PLACEHOLDER)) {
                    (Some(folder), Some(to)) => self.known.moved_directory(folder, to),
                    _ => self.known.copied(&key, &object.into(), &to, &etag),
                }
                Ok::<_, FsError>(())
            });
            let copied = stream::iter(copies).buffer_unordered(COPIES).try_collect::<Vec<()>>().await;
            let result = match copied {
                Ok(_) => self.delete_sources(batch).await,
                Err(error) => Err((error, batch.iter().map(|object| object.key.clone()).collect())),
            };
            if let Err((error, kept)) = result {
                // What is still at the source goes from the target.
                let copies: Vec<String> =
                    kept.iter().map(|key| format!("{target}{}", &key[source.len()..])).collect();
                if let Err(error) = self.store.delete_many(&copies).await {
                    tracing::warn!(%target, %error, "copies of a rename that failed are left behind");
                }
                tracing::error!(%source, %target, done, total, %error, "a folder was renamed in part; renaming it again goes on");
                self.meta.forget_below(source);
                self.meta.forget_below(target);
                return Err(error);
            }
            done += batch.len();
            if total > BATCH {
                tracing::info!(%source, %target, done, total, "renaming a folder");
            }
        }
        Ok(total)
    }

    /// Deletes; the error names those that are still there.
    async fn delete_sources(&self, batch: &[ListedObject]) -> Result<(), (FsError, Vec<String>)> {
        let keys: Vec<String> = batch.iter().map(|object| object.key.clone()).collect();
        let refused: Vec<StoreError> = match self.store.delete_many(&keys).await {
            Ok(refused) => refused,
            // Nobody knows which of them are gone: both stay.
            Err(error) => return Err((error.into(), vec![])),
        };
        match refused.first() {
            None => Ok(()),
            Some(first) => {
                let error = FsError::from(first.clone());
                Err((error, refused.into_iter().map(|error| error.key).collect()))
            }
        }
    }

    /// Uploads everything that is being changed below a prefix.
    async fn save_below(&self, prefix: &str) -> Result<(), FsError> {
        for (ino, draft) in self.drafts_below(prefix) {
            if !draft.state().is_clean() {
                self.upload_draft(ino, &draft).await?;
            }
        }
        Ok(())
    }

    fn drafts_below(&self, prefix: &str) -> Vec<(u64, Arc<Draft>)> {
        self.inodes
            .lock()
            .iter()
            .filter_map(|(ino, inode)| Some((ino, Arc::clone(inode.draft()?))))
            .filter(|(_, draft)| draft.state().key.as_ref().is_some_and(|key| key.starts_with(prefix)))
            .collect()
    }

    fn redirect_below(&self, source: &str, target: &str) {
        let moved = |key: &str| format!("{target}{}", &key[source.len()..]);
        for (_, draft) in self.drafts_below(source) {
            let mut state = draft.state();
            state.key = state.key.as_deref().map(moved);
            if let Some(base) = &mut state.base
                && base.key.starts_with(source)
            {
                base.key = moved(&base.key);
            }
            drop(state);
            if let Err(error) = draft.save(|_| {}) {
                tracing::warn!(%error, "the spool still has the old name of a file that was moved");
            }
        }
        let open: Vec<u64> = self.handles.inodes();
        for ino in open {
            let key = self.inodes.lock().key(ino);
            if let Some(key) = key.filter(|key| key.starts_with(target) && !key.ends_with('/')) {
                self.redirect_readers(ino, &key);
            }
        }
    }
}

impl From<UploadError> for FsError {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Store(error) if error.kind == StoreErrorKind::NotFound => {
                Self { kind: ErrorKind::Stale, cause: Some(error) }
            }
            UploadError::Store(error) => error.into(),
            UploadError::Io(error) => error.into(),
            UploadError::Conflict(_) => ErrorKind::Stale.into(),
        }
    }
}
