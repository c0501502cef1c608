//! Renames of folders: every object is copied on the server and then deleted, in batches.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};

use super::rename::End;
use super::{ErrorKind, Fs, FsError};
use crate::etag::ETag;
use crate::meta::{Entry, FileVersion, Kind};
use crate::name;
use crate::store::{ListRequest, ListedObject, StoreError, undo};
use crate::writeback::Draft;

/// Copies in flight.
const COPIES: usize = 32;

/// Objects that are copied before their sources are deleted.
const BATCH: usize = 1000;

/// A file that the kernel knows, and what it is now: the copy of an object has an `ETag` of its own.
struct Moved {
    ino: u64,
    target: String,
    etag: ETag,
}

impl Fs {
    pub(super) async fn rename_directory(
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
        // Names that are being changed below are in the bucket, or known, when it moves.
        let _closed = self.writer()?.uploader.moves().close(&source).await;
        // What is written below goes up first, and what was removed goes, so that the bucket is as it is shown.
        self.writer()?.removals.settled(&source).await?;
        self.settle_name(&to.prefix, target[to.prefix.len()..].trim_end_matches('/')).await?;
        self.save_below(&source).await?;
        if replaces {
            self.settle_folders(&target).await?;
        }
        let _moving = self.writer()?.uploader.moves().begin(&source);
        for (_, draft) in self.drafts_below(&source) {
            // An upload under way ends first, so that the listing has it.
            drop(draft.changing().await);
        }
        self.finish_folders(&source).await;
        let attrs = self.known.directory(&source);
        self.keep_folder(&from.prefix, from.name).await?;
        let (moved, files) = self.move_objects(&source, &target).await?;
        tracing::info!(%source, %target, objects = moved, "renamed a folder");
        // Nothing of what it replaces, also where no placeholder came along.
        match attrs {
            Some(attrs) => self.known.set_directory(&target, attrs),
            None => self.known.forget(&target),
        }
        self.known.forget(&source);
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
            self.meta.move_nodes(&source, &target);
            self.changed_directory(&mut inodes, from.parent);
            self.changed_directory(&mut inodes, to.parent);
        }
        self.meta.forget_below(&source);
        self.meta.forget_below(&target);
        self.placeholders.forget_below(&source);
        self.placeholders.forget_below(&target);
        self.meta.changed(&from.prefix, from.name, None, false);
        let moved = Entry { name: to.name.into(), component, kind: Kind::Directory };
        self.meta.changed(&to.prefix, to.name, Some(moved), false);
        for file in files {
            self.moved_on_server(file.ino, &file.target, &file.etag);
        }
        self.redirect_below(&source, &target);
        self.redirect_folders(&source, &target);
        Ok(())
    }

    /// Every object below a prefix, copied and then deleted in batches: at any time each is at the source, the target
    /// or both.
    async fn move_objects(&self, source: &str, target: &str) -> Result<(usize, Vec<Moved>), FsError> {
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
        let mut files = Vec::new();
        for batch in keys.chunks(BATCH) {
            let sending = batch.iter().cloned().map(|object| async move {
                let to = format!("{target}{}", &object.key[source.len()..]);
                let version = FileVersion::from(object.clone());
                let copied = async {
                    let headers = self.timed_headers(&object.key, &version).await?;
                    self.copy(&object.key, &to, object.size, headers.as_ref()).await
                };
                let etag = match copied.await {
                    Ok(etag) => etag,
                    // Somebody removed it meanwhile: nothing is left to move.
                    Err(error) if error.kind == ErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(error),
                };
                let key = object.key.clone();
                let folder = (key.strip_suffix(name::PLACEHOLDER), to.strip_suffix(name::PLACEHOLDER));
                if let (Some(folder), Some(to)) = folder {
                    self.known.moved_directory(folder, to);
                    return Ok(None);
                }
                self.known.copied(&key, &version, &to, &etag);
                super::contents::moved(&self.fetcher, (&key, &version), (&to, &etag));
                let ino = self.file_of(&key, &version);
                Ok::<_, FsError>(ino.map(|ino| Moved { ino, target: to, etag }))
            });
            let copied = stream::iter(sending).buffer_unordered(COPIES).try_collect::<Vec<_>>().await;
            let result = match copied {
                Ok(copied) => {
                    files.extend(copied.into_iter().flatten());
                    self.delete_sources(batch).await
                }
                Err(error) => Err((error, batch.iter().map(|object| object.key.clone()).collect())),
            };
            if let Err((error, kept)) = result {
                // What is still at the source goes from the target.
                let to_remove: Vec<String> =
                    kept.iter().map(|key| format!("{target}{}", &key[source.len()..])).collect();
                if let Err(error) = undo(self.store.delete_many(&to_remove)).await {
                    tracing::warn!(%target, %error, "copies of a rename that failed are left behind");
                }
                tracing::error!(%source, %target, done, total, %error, "a folder was renamed in part; `rsync -a --remove-source-files` from the old one to the new one moves the rest");
                self.meta.forget_below(source);
                self.meta.forget_below(target);
                return Err(error);
            }
            done += batch.len();
            if total > BATCH {
                tracing::info!(%source, %target, done, total, "renaming a folder");
            }
        }
        Ok((total, files))
    }

    /// The file that is known to be this version of an object.
    fn file_of(&self, key: &str, version: &FileVersion) -> Option<u64> {
        let inodes = self.inodes.lock();
        let ino = inodes.find(key)?;
        let file = inodes.get(ino)?.file()?;
        (file.version.etag == version.etag).then_some(ino)
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
        self.settle_folders(prefix).await?;
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
        for (ino, draft) in self.drafts_below(target) {
            if !draft.state().is_clean() {
                self.show_draft(ino);
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
