//! Rename: of files by one copy and one delete on the server, of what is not in the bucket yet by changing where it
//! will go, of folders object by object (`rename_folder.rs`).
//!
//! No object is ever lost: a source is deleted after its copy is there, and where a policy refuses that, the copy is
//! taken back, what it replaced is put back, and rename answers `EACCES`.

use std::io;
use std::sync::Arc;

use super::aside::Aside;
use super::{ErrorKind, Fs, FsError};
use crate::attrs::Attrs;
use crate::content_type;
use crate::etag::ETag;
use crate::meta::{Entry, FileVersion, Kind};
use crate::name;
use crate::store::{MAX_COPY, ObjectHeaders, StoreErrorKind, undo};
use crate::writeback::{Draft, Expected, State, Successor, UploadError, Uploaded, is_final};

/// Uploads of a file that may come between the steps of its rename.
const UPLOADS_BETWEEN: u32 = 8;

/// One end of a rename.
pub(super) struct End<'a> {
    pub parent: u64,
    pub prefix: String,
    pub name: &'a [u8],
}

/// A file on its way.
struct Move<'a> {
    from: &'a End<'a>,
    to: &'a End<'a>,
    ino: u64,
    entry: &'a Entry,
    source: String,
    target: String,
    /// What has the new name, as far as it is in the bucket.
    replaced: Option<&'a Entry>,
    /// No server answers: another client may have taken the new name.
    is_unseen: bool,
    /// The version of it that is there, as far as it is known.
    is_replaced: Option<Expected>,
    /// What uploads of it may have put there instead, by size and time.
    attempted: Vec<(u64, i64)>,
    /// What of it is not in the bucket.
    unsaved: Option<Arc<Draft>>,
}

impl Move<'_> {
    /// The key of what had the target's name, where that is another one: a link gives way to a file, or the reverse.
    fn other_key(&self) -> Option<String> {
        let key = format!("{}{}", self.to.prefix, self.replaced?.component());
        (key != self.target).then_some(key)
    }

    /// Notes in the spool what is about to be in the place of a file that is not uploaded: a crash must not bring back
    /// the file beside it.
    fn gives_way(&self, to: Successor) -> io::Result<()> {
        let Some(draft) = &self.unsaved else { return Ok(()) };
        draft.state().gives_way = Some(to);
        draft.save(|_| {})
    }
}

/// Why an object is not deleted.
enum Kept {
    Refused(FsError),
    /// The server did not say, and cannot be asked.
    Unknown(FsError),
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
        let ([prefix, new_prefix], _change) = self.at_rest([parent, new_parent]).await?;
        let from = End { parent, prefix, name };
        let to = End { parent: new_parent, prefix: new_prefix, name: new_name };
        self.may_create(&from.prefix)?;
        self.may_create(&to.prefix)?;
        if parent == new_parent && name == new_name {
            return Ok(());
        }
        let entry = self.meta.lookup(&from.prefix, name).await?.entry.ok_or(ErrorKind::NotFound)?;
        let found = self.meta.lookup(&to.prefix, new_name).await?;
        let replaced = found.entry;
        if replaced.is_some() && no_replace {
            return Err(ErrorKind::Exists.into());
        }
        let is_directory = matches!(entry.kind, Kind::Directory);
        match replaced.as_ref().map(|replaced| matches!(replaced.kind, Kind::Directory)) {
            Some(true) if !is_directory => return Err(ErrorKind::IsDirectory.into()),
            Some(false) if is_directory => return Err(ErrorKind::NotDirectory.into()),
            _ => {}
        }
        if let Kind::Node(kind) = entry.kind {
            return self.rename_node(&from, &to, kind, &component, replaced.as_ref()).await;
        }
        if is_directory {
            self.rename_directory(&from, &to, &entry, component, replaced.is_some()).await
        } else {
            // A node is in the way of no object.
            let replaced = replaced.filter(|replaced| !matches!(replaced.kind, Kind::Node(_)));
            self.rename_file(&from, &to, &entry, component, (replaced.as_ref(), found.has_aged)).await
        }
    }

    async fn rename_file(
        &self,
        from: &End<'_>,
        to: &End<'_>,
        entry: &Entry,
        mut component: String,
        (replaced, is_unseen): (Option<&Entry>, bool),
    ) -> Result<(), FsError> {
        if matches!(entry.kind, Kind::Link(_)) {
            component.push_str(name::LINK_SUFFIX);
        }
        let (ino, old_target) = {
            let mut inodes = self.inodes.lock();
            let ino = inodes.upsert(from.parent, entry);
            inodes.opened(ino);
            let is_file = |ino: &u64| inodes.get(*ino).is_some_and(|inode| inode.file().is_some());
            (ino, inodes.named(to.parent, to.name).filter(is_file))
        };
        let source = format!("{}{}", from.prefix, entry.component());
        let target = format!("{}{component}", to.prefix);
        let moving = self.writer()?.uploader.moves().begin(&source);
        let mut step = Move {
            from,
            to,
            ino,
            entry,
            source,
            target,
            replaced,
            is_unseen,
            is_replaced: None,
            attempted: vec![],
            unsaved: None,
        };
        let result = self.move_content(&mut step, old_target).await;
        let result = result.map(|uploaded| {
            self.moved_file((from, &step.source), to, ino, entry, component);
            if let Some((draft, uploaded)) = uploaded {
                self.uploaded(ino, &draft, &uploaded);
            }
        });
        drop(moving);
        self.inodes.lock().closed(ino);
        // An upload that ended meanwhile left the draft to the rename.
        self.end_draft(ino);
        result
    }

    /// Brings the bytes from one key to another.
    async fn move_content(
        &self,
        step: &mut Move<'_>,
        old_target: Option<u64>,
    ) -> Result<Option<(Arc<Draft>, Uploaded)>, FsError> {
        // What is to go from the target would take the new object with it.
        let (prefix, component) = step.target.split_at(step.to.prefix.len());
        self.settle_name(prefix, component.strip_suffix(name::LINK_SUFFIX).unwrap_or(component)).await?;
        let kept = self.keep_content(old_target).await?;
        step.replaced = step.replaced.filter(|_| kept.is_stored);
        step.is_replaced = step.replaced.and_then(|entry| kept.is_replaced(entry.version()));
        step.attempted.clone_from(&kept.attempted);
        step.unsaved = kept.unsaved();
        let mut moved = Err(ErrorKind::Busy.into());
        for _ in 0..UPLOADS_BETWEEN {
            moved = self.move_over(step).await;
            if !moved.as_ref().is_err_and(|error: &FsError| error.kind == ErrorKind::Busy) {
                break;
            }
        }
        if moved.is_ok() {
            self.orphan(old_target);
        }
        // Now what had the name may be uploaded again, if it still has it.
        kept.let_go();
        moved
    }

    /// The same, with what had the target's name out of the way.
    async fn move_over(&self, step: &Move<'_>) -> Result<Option<(Arc<Draft>, Uploaded)>, FsError> {
        let Move { from, to, ino, entry, source, target, replaced, .. } = step;
        let draft = self.inodes.lock().get(*ino).and_then(|inode| inode.draft().cloned());
        if let Some(draft) = draft {
            // An upload under way ends first.
            drop(draft.changing().await);
            if !draft.state().is_clean() {
                return self.move_draft(step, &draft).await;
            }
        }
        // An upload may have ended since the name was looked up.
        let version = self.inodes.lock().get(*ino).and_then(|inode| Some(inode.file()?.version.clone()));
        let version = version.or_else(|| entry.version().cloned());
        self.keep_folder(&from.prefix, from.name).await?;
        if let Some(version) = &version {
            let mtime = self.inodes.lock().get(*ino).and_then(|inode| inode.extra()?.attrs.mtime);
            step.gives_way(Successor { etag: version.etag.to_string(), size: version.size, mtime })?;
        }
        // A policy that refuses the delete is known only afterwards: until then the old version is kept.
        let aside = match replaced {
            Some(replaced) if self.may_be_refused => self.set_aside(&to.prefix, replaced).await?,
            _ => None,
        };
        let size = version.as_ref().map_or(0, |version| version.size);
        let headers = match &version {
            Some(version) => self.renamed_headers(*ino, (source, target), version).await?,
            None => None,
        };
        let etag = match self.copy(source, target, size, headers.as_ref()).await {
            Ok(etag) => etag,
            Err(error) => {
                let is_unchanged = error.cause.as_ref().is_some_and(|cause| is_final(cause.kind));
                match aside {
                    Some(aside) if is_unchanged => self.drop_aside(aside).await,
                    Some(aside) => undo(self.put_back(aside)).await,
                    None => {}
                }
                return Err(error);
            }
        };
        self.let_go(step, aside).await?;
        if let Some(headers) = headers
            && let Some(inode) = self.inodes.lock().get_mut(*ino)
            && let Some((stored, _)) = &mut inode.extra_mut().headers
        {
            *stored = Arc::new(headers);
        }
        if let Some(version) = &version {
            self.known.copied(source, version, target, &etag);
            super::contents::moved(&self.fetcher, (source, version), (target, &etag));
        }
        self.known.forget(source);
        self.moved_on_server(*ino, target, &etag);
        Ok(None)
    }

    /// Deletes what a rename leaves behind, now that the target holds what it should: what had the name under
    /// another key, the source, and the copy of the old version. Where that is refused, all is as it was.
    async fn let_go(&self, step: &Move<'_>, aside: Option<Aside>) -> Result<(), FsError> {
        let other = step.other_key();
        let keys = other.iter().chain([&step.source]);
        for key in keys {
            match self.delete_for_sure(key).await {
                Ok(()) => {}
                Err(Kept::Refused(error)) => {
                    self.take_back(&step.target, aside).await;
                    return Err(error);
                }
                Err(Kept::Unknown(error)) => {
                    let kept = aside.as_ref().map(Aside::key);
                    tracing::error!(source = step.source, target = step.target, kept, %error, "nobody knows whether a rename has removed its source; nothing more is removed");
                    if let Some(aside) = &aside {
                        self.show_aside(aside);
                    }
                    self.meta.invalidate(&step.to.prefix);
                    self.meta.invalidate(&step.from.prefix);
                    return Err(error);
                }
            }
        }
        if let Some(aside) = aside {
            self.drop_aside(aside).await;
        }
        Ok(())
    }

    async fn delete_for_sure(&self, key: &str) -> Result<(), Kept> {
        let error = match self.store.delete(key).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if error.kind.is_by_policy() {
            return Err(Kept::Refused(error.into()));
        }
        // It may be gone, with the answer lost.
        match self.store.head(key).await {
            Err(gone) if gone.kind == StoreErrorKind::NotFound => Ok(()),
            _ => Err(Kept::Unknown(error.into())),
        }
    }

    /// After a refused delete: the target is what it was.
    async fn take_back(&self, target: &str, aside: Option<Aside>) {
        let is_replaced = aside.as_ref().is_some_and(|aside| aside.of == target);
        if !is_replaced && let Err(error) = self.store.delete(target).await {
            tracing::warn!(key = target, %error, "a policy refused to remove the source of a rename, and now its copy: both are there");
        }
        if let Some(aside) = aside {
            self.put_back(aside).await;
        }
    }

    /// A file that was moved on the server is the object under its new key, and so is what its draft is made of.
    pub(super) fn moved_on_server(&self, ino: u64, target: &str, etag: &ETag) {
        let draft = {
            let mut inodes = self.inodes.lock();
            let Some(inode) = inodes.get_mut(ino) else { return };
            if let Some(file) = inode.file_mut() {
                file.version.etag = etag.clone();
                file.version.modified.is_listed = false;
            }
            inode.draft().cloned()
        };
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

    /// What is not in the bucket yet goes to another key; what is there goes with it.
    async fn move_draft(
        &self,
        step: &Move<'_>,
        draft: &Arc<Draft>,
    ) -> Result<Option<(Arc<Draft>, Uploaded)>, FsError> {
        let Move { from, to, source, target, replaced, .. } = step;
        // After an error nobody knows: then it may be there.
        let is_stored = State::may_be_stored;
        let was_stored = is_stored(&draft.state());
        if was_stored {
            self.keep_folder(&from.prefix, from.name).await?;
        }
        if draft.state().expected.is_some() && draft.state().stored_headers.is_none() {
            // What the object had goes with it.
            match self.store.head(source).await {
                Ok(head) => draft.state().stored_headers = Some(head.into()),
                Err(error) if error.kind == StoreErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        let aside = match replaced {
            Some(replaced) if self.may_be_refused && was_stored => {
                self.set_aside(&to.prefix, replaced).await?
            }
            _ => None,
        };
        let before = {
            let _changing = draft.changing().await;
            let mut state = draft.state();
            if state.is_clean() || is_stored(&state) != was_stored {
                // An upload came between.
                None
            } else {
                let before = state.clone();
                state.key = Some(target.clone());
                state.expected = None;
                state.was_made_unseen |= step.is_unseen;
                let renamed =
                    state.stored_headers.as_ref().and_then(|had| renamed_headers(had, source, target));
                state.stored_headers = renamed.or(state.stored_headers.take());
                // To replace what is there is what a rename is for; after a crash somebody else's is told from that.
                state.replaces.clone_from(&step.is_replaced);
                state.attempted.extend_from_slice(&step.attempted);
                Some(before)
            }
        };
        let Some(before) = before else {
            if let Some(aside) = aside {
                self.drop_aside(aside).await;
            }
            return Err(ErrorKind::Busy.into());
        };
        let go_back = |is_unknown: bool| {
            let mut state = draft.state();
            let base = state.base.clone();
            state.goes_back_to(&before);
            if is_unknown {
                // The copy that stays is the best place for what is not here.
                state.base_limit = base.as_ref().map_or(0, |base| base.size.min(state.size));
                state.base = base;
            }
            drop(state);
            if let Err(error) = draft.reseal() {
                tracing::warn!(%error, "the spool has the new name of a file that was not moved");
            }
        };
        let to = Successor { etag: String::new(), size: before.size, mtime: before.attrs.mtime };
        if let Err(error) = step.gives_way(to).and_then(|()| draft.save(|_| {})) {
            go_back(false);
            if let Some(aside) = aside {
                self.drop_aside(aside).await;
            }
            return Err(error.into());
        }
        if !was_stored {
            if let Some(other) = step.other_key()
                && let Err(error) = self.store.delete(&other).await
            {
                go_back(false);
                return Err(error.into());
            }
            return Ok(None);
        }
        let moved = self.send_moved(step, draft, aside).await;
        match moved {
            Ok(uploaded) => Ok(uploaded.map(|uploaded| (Arc::clone(draft), uploaded))),
            Err(error) => {
                let is_sent = draft.state().is_clean();
                let is_unknown = error.cause.as_ref().is_some_and(|cause| !is_final(cause.kind));
                go_back(is_sent && is_unknown);
                Err(error)
            }
        }
    }

    /// Uploads a draft to its new key, and lets the old one go.
    async fn send_moved(
        &self,
        step: &Move<'_>,
        draft: &Arc<Draft>,
        aside: Option<Aside>,
    ) -> Result<Option<Uploaded>, FsError> {
        // Published under its new name, once it has that; until then the rename holds the file, and so its draft.
        match self.writer()?.uploader.upload_moved(draft).await {
            Ok(uploaded) => {
                self.let_go(step, aside).await?;
                Ok(uploaded)
            }
            Err(error) => {
                let is_unchanged = matches!(&error, UploadError::Store(error) if is_final(error.kind));
                match aside {
                    Some(aside) if is_unchanged => self.drop_aside(aside).await,
                    Some(aside) => undo(self.put_back(aside)).await,
                    None => {}
                }
                Err(error.into())
            }
        }
    }

    /// The headers of a file that changes its name, where they change: its type may follow from the name, and its time,
    /// which was the server's so far, has to be written down.
    async fn renamed_headers(
        &self,
        ino: u64,
        (source, target): (&str, &str),
        version: &FileVersion,
    ) -> Result<Option<ObjectHeaders>, FsError> {
        let (headers, mtime) = {
            let inodes = self.inodes.lock();
            let extra = inodes.get(ino).and_then(|inode| inode.extra());
            let headers =
                extra.and_then(|extra| extra.headers.as_ref()).map(|(headers, _)| (**headers).clone());
            (headers, extra.and_then(|extra| extra.attrs.mtime))
        };
        let headers = match headers {
            Some(headers) => Some(headers),
            None => self.headers_to_move(source, version).await?,
        };
        let Some(had) = headers else { return Ok(None) };
        let renamed = renamed_headers(&had, source, target);
        Ok(timed(renamed.as_ref().unwrap_or(&had), mtime.unwrap_or(version.modified.nanos())).or(renamed))
    }

    /// The headers of an object that is to be copied with the time that others see; `None` if it keeps that by itself,
    /// as far as is known. Only what was uploaded while it was written, and so is large, has none among its headers.
    pub(super) async fn timed_headers(
        &self,
        key: &str,
        version: &FileVersion,
    ) -> Result<Option<ObjectHeaders>, FsError> {
        let Some(had) = self.headers_to_move(key, version).await? else { return Ok(None) };
        let mtime = self.known.attrs(key, version).and_then(|attrs| attrs.mtime);
        Ok(timed(&had, mtime.unwrap_or(version.modified.nanos())))
    }

    /// The headers of a version, if they are known or it may be one that has no time.
    async fn headers_to_move(
        &self,
        key: &str,
        version: &FileVersion,
    ) -> Result<Option<ObjectHeaders>, FsError> {
        if let Some(head) = self.known.head(key, version) {
            return Ok(Some((*head).clone().into()));
        }
        if version.size <= self.writer()?.uploader.largest_put() {
            return Ok(None);
        }
        Ok(Some(self.store.head(key).await?.into()))
    }

    /// A copy on the server, of any size.
    pub(super) async fn copy(
        &self,
        source: &str,
        target: &str,
        size: u64,
        headers: Option<&ObjectHeaders>,
    ) -> Result<ETag, FsError> {
        if size <= MAX_COPY {
            return Ok(self.store.copy(source, target, size, headers).await?);
        }
        let head = self.store.head(source).await?;
        let size = head.size;
        let own = ObjectHeaders::from(head);
        Ok(self.writer()?.uploader.copy_in_parts(source, target, size, headers.unwrap_or(&own)).await?)
    }

    /// What the file system knows follows the file.
    fn moved_file(
        &self,
        (from, source): (&End<'_>, &str),
        to: &End<'_>,
        ino: u64,
        entry: &Entry,
        component: String,
    ) {
        let component = (component.as_bytes() != to.name).then(|| component.into_boxed_str());
        let mut inodes = self.inodes.lock();
        if let Some(old) = inodes.named(to.parent, to.name).filter(|&old| old != ino) {
            if inodes.get(old).is_some_and(|inode| inode.node_kind().is_some()) {
                inodes.unname(old, to.parent, to.name);
            } else {
                inodes.remove(old);
            }
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
        // With the table held, so that an upload that ends now finds the one or the other.
        self.no_name(&from.prefix, from.name, source);
        self.meta.changed(&to.prefix, to.name, Some(moved), is_pinned);
        drop(inodes);
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
}

impl From<UploadError> for FsError {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Store(error) if error.kind == StoreErrorKind::NotFound => {
                Self { kind: ErrorKind::Stale, cause: Some(error) }
            }
            UploadError::Store(error) => error.into(),
            UploadError::Io(error) => error.into(),
            UploadError::Conflict(_) | UploadError::Replaced => ErrorKind::Stale.into(),
        }
    }
}

/// Headers with a modification time, if they have none.
fn timed(had: &ObjectHeaders, mtime: i64) -> Option<ObjectHeaders> {
    let mut headers = had.clone();
    let is_missing = !headers.metadata.contains_key("mtime");
    Attrs { mtime: Some(mtime), ..Attrs::default() }.write_to(&mut headers.metadata, false);
    is_missing.then_some(headers)
}

/// The headers of an object that changes its name, if they change with it: the type follows from a new name where it
/// followed from the old one.
fn renamed_headers(had: &ObjectHeaders, source: &str, target: &str) -> Option<ObjectHeaders> {
    let (was, is) = (content_type::of_new(source), content_type::of_new(target));
    // The server tells this type of what was stored with none.
    let had_type = had.content_type.as_deref().unwrap_or(content_type::UNTYPED);
    if was == is || had_type != was {
        return None;
    }
    Some(ObjectHeaders { content_type: Some(is), ..had.clone() })
}
