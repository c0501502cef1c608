//! Renames of folders: every object is copied on the server and then deleted, in batches.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};

use super::rename::End;
use super::{ErrorKind, Fs, FsError};
use crate::meta::{Entry, Kind};
use crate::name;
use crate::store::{ListRequest, ListedObject, StoreError};
use crate::writeback::Draft;

/// Copies in flight.
const COPIES: usize = 32;

/// Objects that are copied before their sources are deleted.
const BATCH: usize = 1000;

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
        // What is written below goes up first, and what was removed goes, so that the bucket is as it is shown.
        self.writer()?.removals.settled(&source).await?;
        self.settle_name(&to.prefix, target[to.prefix.len()..].trim_end_matches('/')).await?;
        self.save_below(&source).await?;
        if replaces {
            self.settle_folders(&target).await?;
        }
        let attrs = self.known.directory(&source);
        self.keep_folder(&from.prefix, from.name).await?;
        let moved = self.move_objects(&source, &target).await?;
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
            let sending = batch.iter().cloned().map(|object| async move {
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
            let copied = stream::iter(sending).buffer_unordered(COPIES).try_collect::<Vec<()>>().await;
            let result = match copied {
                Ok(_) => self.delete_sources(batch).await,
                Err(error) => Err((error, batch.iter().map(|object| object.key.clone()).collect())),
            };
            if let Err((error, kept)) = result {
                // What is still at the source goes from the target.
                let to_remove: Vec<String> =
                    kept.iter().map(|key| format!("{target}{}", &key[source.len()..])).collect();
                if let Err(error) = self.store.delete_many(&to_remove).await {
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
        let open: Vec<u64> = self.handles.inodes();
        for ino in open {
            let key = self.inodes.lock().key(ino);
            if let Some(key) = key.filter(|key| key.starts_with(target) && !key.ends_with('/')) {
                self.redirect_readers(ino, &key);
            }
        }
    }
}
