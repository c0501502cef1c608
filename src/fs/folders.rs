//! Placeholders that are written behind the caller's back: what was set on a folder, several changes at once; with
//! `--write-back` and all rights also new folders.
//!
//! Each is on record in the spool as an empty draft until the server has it. Lock rank: before the inode table.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lru::LruCache;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Fs, FsError, Invalidation};
use crate::attrs::Attrs;
use crate::meta::{Entry, Kind};
use crate::name;
use crate::store::{ObjectHeaders, StoreErrorKind};
use crate::writeback::{Draft, Job, Outcome, State, is_final};

/// By the prefix of the folder.
pub(super) type Folders = Mutex<HashMap<Box<str>, Arc<Folder>>>;

/// Entries of a placeholder's user metadata that are to change; `None` removes one.
pub(super) type Entries = BTreeMap<String, Option<String>>;

/// What placeholders were seen to say, by the prefix of their folder. Lock rank: leaf.
pub(super) struct Placeholders(Mutex<LruCache<Box<str>, (ObjectHeaders, Instant)>>);

const PLACEHOLDERS: NonZeroUsize = NonZeroUsize::new(2_000).unwrap();

impl Default for Placeholders {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(PLACEHOLDERS)))
    }
}

impl Placeholders {
    fn get(&self, prefix: &str, ttl: Duration) -> Option<ObjectHeaders> {
        let mut seen = self.0.lock();
        seen.get(prefix).filter(|(_, at)| at.elapsed() < ttl).map(|(headers, _)| headers.clone())
    }

    pub fn set(&self, prefix: &str, headers: &ObjectHeaders) {
        self.0.lock().put(prefix.into(), (headers.clone(), Instant::now()));
    }

    /// Folders below a prefix, and its own, have moved or gone.
    pub fn forget_below(&self, prefix: &str) {
        let mut seen = self.0.lock();
        let gone: Vec<_> = seen
            .iter()
            .filter(|(other, _)| other.starts_with(prefix))
            .map(|(other, _)| other.clone())
            .collect();
        for prefix in gone {
            seen.pop(&prefix);
        }
    }
}

/// A placeholder that is to be written.
pub(super) struct Folder {
    prefix: Box<str>,
    /// Keeps it through a crash.
    record: Arc<Draft>,
    /// The bucket holds nothing of the folder yet.
    is_new: bool,
    wanted: Mutex<Wanted>,
    /// Held while it is written. Whether that was tried.
    writing: tokio::sync::Mutex<bool>,
}

#[derive(Clone, Default)]
struct Wanted {
    entries: Entries,
    /// What the folder looked like before the first of the changes that show.
    before: Option<Attrs>,
    /// Counts changes.
    generation: u64,
}

struct Write {
    fs: Arc<Fs>,
    folder: Arc<Folder>,
}

#[async_trait]
impl Job for Write {
    async fn attempt(&self) -> Outcome {
        match self.fs.write_folder(&self.folder).await {
            Ok(true) => Outcome::Done,
            Ok(false) => Outcome::Changed,
            Err(error) => {
                self.fs.folder_refused(&self.folder, &error);
                match error.cause {
                    Some(cause) if cause.is_unreached() => Outcome::Unreached,
                    Some(cause) if !is_final(cause.kind) => Outcome::Retry,
                    _ => Outcome::Failed,
                }
            }
        }
    }

    fn ended(&self, failed: bool) {
        let folder = &self.folder;
        if self.fs.forget_folder(folder) && failed {
            self.fs.give_up_folder(folder);
        } else {
            folder.record.discard();
        }
    }
}

impl Fs {
    /// Whether new folders are written later: where nobody can refuse them.
    pub(super) fn defers_folders(&self) -> bool {
        !self.may_be_refused && self.writer.as_ref().is_some_and(|writer| writer.options.write_back)
    }

    /// Writes a folder's placeholder a moment later. `before`: what the folder looked like without the change.
    pub(super) fn queue_folder(
        &self,
        prefix: &str,
        entries: Entries,
        (is_new, before): (bool, Option<Attrs>),
    ) -> Result<(), FsError> {
        let (writer, Some(fs)) = (self.writer()?, self.me.upgrade()) else { return Ok(()) };
        let mut folders = self.folders.lock();
        let folder = if let Some(folder) = folders.get(prefix) {
            Arc::clone(folder)
        } else {
            let mut state = State::on(&format!("{prefix}{}", name::PLACEHOLDER), None, Attrs::default());
            state.generation = 1;
            let folder = Arc::new(Folder {
                prefix: prefix.into(),
                record: Draft::new(&writer.spool, state)?,
                is_new,
                wanted: Mutex::default(),
                writing: tokio::sync::Mutex::default(),
            });
            folders.insert(prefix.into(), Arc::clone(&folder));
            folder
        };
        {
            let mut wanted = folder.wanted.lock();
            wanted.entries.extend(entries);
            wanted.before = wanted.before.or(before);
            wanted.generation += 1;
            folder.record.state().changes.metadata.clone_from(&wanted.entries);
        }
        folder.record.commit()?;
        folder.record.rest();
        writer.queue.push(folder.record.id(), 1.0, Arc::new(Write { fs, folder: Arc::clone(&folder) }));
        Ok(())
    }

    /// What a folder's placeholder says, with what is still to be written; where there is none, nothing.
    pub(super) async fn folder_headers(&self, prefix: &str) -> Result<ObjectHeaders, FsError> {
        if let Some(headers) = self.folder_headers_at_hand(prefix) {
            return Ok(headers);
        }
        let had = self.placeholder_on_server(prefix).await?;
        Ok(self.with_pending(prefix, had))
    }

    /// The same, if nobody has to be asked.
    pub(super) fn folder_headers_at_hand(&self, prefix: &str) -> Option<ObjectHeaders> {
        let is_new = || self.folders.lock().get(prefix).is_some_and(|folder| folder.is_new);
        let had =
            self.placeholders.get(prefix, self.ttl).or_else(|| is_new().then(ObjectHeaders::default))?;
        Some(self.with_pending(prefix, had))
    }

    fn with_pending(&self, prefix: &str, had: ObjectHeaders) -> ObjectHeaders {
        let folder = self.folders.lock().get(prefix).cloned();
        match folder {
            Some(folder) => changed(had, &folder.wanted.lock().entries),
            None => had,
        }
    }

    async fn placeholder_on_server(&self, prefix: &str) -> Result<ObjectHeaders, FsError> {
        let headers = match self.store.head(&format!("{prefix}{}", name::PLACEHOLDER)).await {
            Ok(head) => ObjectHeaders { metadata: head.metadata, ..ObjectHeaders::default() },
            Err(error) if error.kind == StoreErrorKind::NotFound => ObjectHeaders::default(),
            Err(error) => return Err(error.into()),
        };
        self.placeholders.set(prefix, &headers);
        Ok(headers)
    }

    /// Changes entries of a folder's metadata: a moment later, or as a user now, with the server's answer.
    pub(super) async fn set_placeholder(
        &self,
        prefix: &str,
        entries: Entries,
        before: Option<Attrs>,
    ) -> Result<(), FsError> {
        if !self.may_be_refused {
            return self.queue_folder(prefix, entries, (false, before));
        }
        let had = self.folder_headers(prefix).await?;
        self.put_placeholder(prefix, &changed(had, &entries)).await
    }

    /// Goes on with a placeholder that an earlier mount left in the spool: the folder is shown at once.
    pub(super) fn resume_folder(&self, prefix: &str, record: &Arc<Draft>) {
        let headers = record.state().headers(None, ObjectHeaders::default);
        let attrs = Attrs::from_metadata(&headers.metadata);
        let entries = record.state().changes.metadata.clone();
        if let Err(error) = self.queue_folder(prefix, entries, (true, None)) {
            return tracing::warn!(folder = prefix, %error, "a folder waits in the spool for the next mount");
        }
        record.discard();
        if let Some(folder) = self.folders.lock().get(prefix)
            && let Ok(mut tried) = folder.writing.try_lock()
        {
            // Nobody knows: the bucket may have it.
            *tried = true;
        }
        if !attrs.is_empty() {
            self.known.set_directory(prefix, attrs);
        }
        self.show_folder(prefix, true);
    }

    fn show_folder(&self, prefix: &str, is_pinned: bool) {
        let (above, component) = super::behind::split(prefix.trim_end_matches('/'));
        let entry = Entry::of_component(component, Kind::Directory);
        self.meta.changed(above, &entry.name.clone(), Some(entry), is_pinned);
    }

    /// Writes what is wanted now. `false`: it was changed meanwhile.
    async fn write_folder(&self, folder: &Arc<Folder>) -> Result<bool, FsError> {
        let moves = self.writer()?.uploader.moves();
        let mut tried = loop {
            let tried = folder.writing.lock().await;
            // One that moves away is written where it arrives. With the lock held: a rename that began before waits
            // for it, or is seen here.
            if !moves.concern(&folder.prefix) {
                break tried;
            }
            drop(tried);
            moves.settled(&folder.prefix).await;
        };
        if !self.folders.lock().get(&*folder.prefix).is_some_and(|other| Arc::ptr_eq(other, folder)) {
            return Ok(true);
        }
        let was_tried = std::mem::replace(&mut *tried, true);
        let wanted = folder.wanted.lock().clone();
        let had = match self.placeholders.get(&folder.prefix, self.ttl) {
            Some(had) => had,
            None if folder.is_new && !was_tried => ObjectHeaders::default(),
            None => self.placeholder_on_server(&folder.prefix).await?,
        };
        self.put_placeholder(&folder.prefix, &changed(had, &wanted.entries)).await?;
        let mut folders = self.folders.lock();
        if folder.wanted.lock().generation != wanted.generation {
            return Ok(false);
        }
        folders.remove(&folder.prefix);
        drop(folders);
        self.refused_later.settings_stored(&folder.prefix);
        self.refusals.lock().pop(&*folder.prefix);
        // Also where the queue did not ask for it: what is done must not be done again after a crash.
        folder.record.discard();
        let (above, component) = super::behind::split(folder.prefix.trim_end_matches('/'));
        let shown = name::from_component(component).into_owned();
        let is_shown = |entry: Entry| matches!(entry.kind, Kind::Directory);
        if folder.is_new && self.meta.change(above, &shown).flatten().is_some_and(is_shown) {
            self.show_folder(&folder.prefix, false);
        }
        Ok(true)
    }

    /// A folder is on its way elsewhere: what is being written below it arrives first.
    pub(super) async fn finish_folders(&self, prefix: &str) {
        for folder in self.folders_below(prefix) {
            drop(folder.writing.lock().await);
        }
    }

    /// A folder has moved: what is still to be written below it is written at the new place.
    pub(super) fn redirect_folders(&self, source: &str, target: &str) {
        for folder in self.folders_below(source) {
            if !self.forget_folder(&folder) {
                continue;
            }
            let to = format!("{target}{}", &folder.prefix[source.len()..]);
            let Wanted { entries, before, .. } = folder.wanted.lock().clone();
            self.known.moved_directory(&folder.prefix, &to);
            if let Err(error) = self.queue_folder(&to, entries, (folder.is_new, before)) {
                // What was acknowledged stays in the spool.
                tracing::error!(
                    folder = to, %error,
                    "a folder that moved could not be put on record at its new place; make room in the spool and set \
                     it again, or the next mount makes it at the old place"
                );
                continue;
            }
            // The new record is safe; the old one would bring the old folder back.
            folder.record.discard();
            if folder.is_new {
                self.show_folder(&to, true);
            }
        }
    }

    fn folders_below(&self, prefix: &str) -> Vec<Arc<Folder>> {
        let folders = self.folders.lock();
        let below = folders.iter().filter(|(other, _)| other.starts_with(prefix));
        below.map(|(_, folder)| Arc::clone(folder)).collect()
    }

    /// Before objects are looked for on the server: the placeholders of folders below a prefix, and its own, are there.
    pub(super) async fn settle_folders(&self, prefix: &str) -> Result<(), FsError> {
        for folder in self.folders_below(prefix) {
            while !self.write_folder(&folder).await? {}
        }
        Ok(())
    }

    /// A folder is removed: nothing more is written for it. Whether the bucket may hold its placeholder.
    pub(super) async fn cancel_folder(&self, prefix: &str) -> bool {
        let Some(folder) = self.folders.lock().remove(prefix) else { return true };
        // What is on its way arrives first.
        let tried = *folder.writing.lock().await;
        folder.record.state().key = None;
        if let Err(error) = folder.record.save(|_| {}) {
            tracing::debug!(%error, "a removed folder is still on record in the spool");
        }
        tried || !folder.is_new
    }

    /// Whether it was still to be written.
    fn forget_folder(&self, folder: &Arc<Folder>) -> bool {
        let mut folders = self.folders.lock();
        let is_wanted = folders.get(&*folder.prefix).is_some_and(|other| Arc::ptr_eq(other, folder));
        if is_wanted {
            folders.remove(&folder.prefix);
        }
        is_wanted
    }

    /// Notes why a placeholder was not written, where people look for it.
    fn folder_refused(&self, folder: &Folder, error: &FsError) {
        let words: Arc<str> =
            error.cause.as_ref().map_or_else(|| error.to_string(), |cause| cause.message.clone()).into();
        if let Err(error) = folder.record.save(|record| record.error = Some(words.to_string())) {
            tracing::warn!(%error, "cannot note in the spool why a folder was not written");
        }
        self.note_refusal(&folder.prefix, words);
    }

    /// Nothing more is tried: a new folder is kept in the spool, and what was set on another one is as it was before.
    fn give_up_folder(&self, folder: &Folder) {
        let prefix = &*folder.prefix;
        let why = folder.record.why_not_uploaded().unwrap_or_default();
        if !folder.is_new {
            tracing::error!(folder = prefix, why, "what was set on a folder is not in the bucket");
            self.refused_later.settings(prefix);
            let Wanted { entries, before, .. } = folder.wanted.lock().clone();
            self.unset_directory(prefix, &entries, before);
            return folder.record.discard();
        }
        tracing::error!(folder = prefix, why, "the server refused a new folder; see `supafs spool list`");
        self.hide_folder(prefix);
        self.refused_later.parks(&folder.record);
        if let Err(error) = folder.record.park() {
            tracing::error!(folder = prefix, %error, "cannot note in the spool that a folder was not made");
        }
    }

    /// What the server refused to set on a folder is not shown either.
    pub(super) fn unset_directory(&self, prefix: &str, entries: &Entries, before: Option<Attrs>) {
        let Some(before) = before else { return };
        let set = entries.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?)));
        let set = Attrs::from_metadata(&set.collect());
        let back = |shown: Attrs| Attrs {
            mode: if shown.mode == set.mode { before.mode } else { shown.mode },
            uid: if shown.uid == set.uid { before.uid } else { shown.uid },
            gid: if shown.gid == set.gid { before.gid } else { shown.gid },
            mtime: if shown.mtime == set.mtime { before.mtime } else { shown.mtime },
        };
        let mut inodes = self.inodes.lock();
        let ino = inodes.find(prefix);
        let shown = match ino.and_then(|ino| inodes.get_mut(ino)) {
            Some(inode) => {
                let extra = inode.extra_mut();
                extra.attrs = back(extra.attrs);
                extra.attrs
            }
            None => back(self.known.directory(prefix).unwrap_or_default()),
        };
        drop(inodes);
        self.known.set_directory(prefix, shown);
        if let Some(ino) = ino {
            self.invalidate(Invalidation::Attributes { ino });
        }
    }

    /// A folder that is not there is not shown any more.
    fn hide_folder(&self, prefix: &str) {
        let (above, component) = super::behind::split(prefix.trim_end_matches('/'));
        let name: Box<[u8]> = name::from_component(component).into_owned().into();
        self.meta.unchanged(above, &name);
        self.meta.invalidate(above);
        self.meta.forget_below(prefix);
        let parent = self.inodes.lock().find(above);
        if let Some(parent) = parent {
            self.invalidate(Invalidation::Name { parent, name });
        }
    }
}

fn changed(mut headers: ObjectHeaders, entries: &Entries) -> ObjectHeaders {
    for (name, value) in entries {
        match value {
            Some(value) => headers.metadata.insert(name.clone(), value.clone()),
            None => headers.metadata.remove(name),
        };
    }
    headers
}

/// Entries that are to be set.
pub(super) fn entries(metadata: BTreeMap<String, String>) -> Entries {
    metadata.into_iter().map(|(name, value)| (name, Some(value))).collect()
}
