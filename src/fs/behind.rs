//! Removals behind the caller's back (`--write-back`): the name is gone at once, the object a moment later, on record
//! in between. One that a policy refuses brings the name back.

use std::sync::Arc;

use async_trait::async_trait;

use super::inode::ROOT;
use super::{Fs, FsError, Invalidation};
use crate::attrs::Modified;
use crate::meta::{Entry, FileVersion, Kind};
use crate::name;
use crate::store::{ObjectHeaders, Section, StoreError};
use crate::writeback::{Draft, Expected, Note, Record, RecordState, Removal, Watcher, end_upload};

impl Fs {
    /// Deletes an object: now, or behind the caller's back. `version` is what it holds, where that is known.
    pub(super) async fn delete_object(
        &self,
        prefix: &str,
        name: &[u8],
        component: &str,
        version: Option<Expected>,
    ) -> Result<(), FsError> {
        let writer = self.writer()?;
        if !writer.options.write_back {
            return Ok(self.store.delete(&format!("{prefix}{component}")).await?);
        }
        writer.removals.push(self.removal(prefix, name, component, version)?);
        Ok(())
    }

    /// Deletes the object that an upload may be putting in the bucket now, when that has ended.
    pub(super) fn delete_uploading(
        &self,
        prefix: &str,
        name: &[u8],
        component: &str,
        draft: Arc<Draft>,
    ) -> Result<(), FsError> {
        let writer = Arc::clone(self.writer()?);
        let removal = self.removal(prefix, name, component, None)?;
        let key = removal.key().to_owned();
        writer.removals.hold(draft.id(), removal);
        let known = Arc::clone(&self.known);
        tokio::spawn(async move {
            let _ended = draft.holding().await;
            let is_stored = draft.state().may_be_stored();
            known.forget(&key);
            writer.removals.release(&key, draft.id(), is_stored);
        });
        Ok(())
    }

    /// A removal, on record in the spool from now on.
    fn removal(
        &self,
        prefix: &str,
        name: &[u8],
        component: &str,
        version: Option<Expected>,
    ) -> Result<Removal, FsError> {
        let writer = self.writer()?;
        let mut record = Record::new(writer.spool.owner());
        record.state = RecordState::Removed;
        record.key = format!("{prefix}{component}");
        record.expected = version.map(|version| (version.etag.to_string(), version.size));
        record.keeps_folder = name != name::PLACEHOLDER.as_bytes() && self.can_be_kept(prefix);
        record.changed_ms = crate::writeback::nanos_now() / 1_000_000;
        let note = writer.spool.note(record)?;
        Ok(Removal { prefix: prefix.to_owned(), name: name.into(), note, is_recovered: false })
    }

    /// Nothing of the bucket has a name any more. While an object of its key is still to go, no listing can tell.
    pub(super) fn no_name(&self, prefix: &str, name: &[u8], key: &str) {
        self.meta.changed(prefix, name, None, true);
        // Whoever ends a removal looks for the name afterwards: one of the two finds it.
        if !self.writer.as_ref().is_some_and(|writer| writer.removals.concern(key)) {
            self.meta.removal_ended(prefix, name);
        }
    }

    /// Before something takes a name: a folder, a file and a link of one name are objects of different keys, so what
    /// is still to go under it would show beside the new one.
    pub(super) async fn settle_name(&self, prefix: &str, component: &str) -> Result<(), FsError> {
        let removals = &self.writer()?.removals;
        for end in ["", name::LINK_SUFFIX, "/"] {
            removals.settled(&format!("{prefix}{component}{end}")).await?;
        }
        Ok(())
    }

    /// Goes on with what an earlier mount left in the spool: shown as it will be, and on its way.
    pub fn resume(&self, drafts: Vec<Arc<Draft>>, removals: Vec<Note>) {
        let Ok(writer) = self.writer() else { return };
        // First what is to go: a file that was made in its place since is shown, and waits until it is gone.
        for note in removals {
            let (prefix, component) = split(&note.record.key);
            // A symbolic link is shown without the ending of its key.
            let stem = component.strip_suffix(name::LINK_SUFFIX).filter(|stem| !stem.is_empty());
            let shown = name::from_component(stem.unwrap_or(component)).into_owned();
            if component != name::PLACEHOLDER {
                self.meta.changed(prefix, &shown, None, true);
            } else if let Some(folder) = prefix.strip_suffix('/') {
                // A placeholder stands for the folder that it keeps.
                let (above, component) = split(folder);
                self.meta.changed(above, &name::from_component(component), None, true);
            }
            let (prefix, name) = (prefix.to_owned(), shown.into());
            writer.removals.push(Removal { prefix, name, note, is_recovered: true });
        }
        for draft in drafts {
            let key = draft.state().key.clone().unwrap_or_default();
            if key.ends_with(&format!("/{}", name::PLACEHOLDER)) {
                self.resume_folder(split(&key).0, &draft);
                continue;
            }
            let ino = self.settle_in(&key, &draft);
            self.enqueue(ino, &draft);
        }
    }

    /// Goes on with files in the spool that somebody has decided about.
    pub fn rescan(&self) {
        let Ok(writer) = self.writer() else { return };
        match writer.spool.rescan() {
            Ok(found) if found.is_empty() => {}
            Ok(found) => {
                tracing::info!(files = found.len(), "uploading what was parked");
                let drafts = found.into_iter().map(|(file, record)| Draft::recovered(file, &record));
                self.resume(drafts.collect(), vec![]);
            }
            Err(error) => tracing::warn!(%error, "cannot look through the spool"),
        }
    }

    /// Ends multipart uploads that an earlier daemon began.
    pub fn abort_abandoned(&self, uploads: Vec<Note>) {
        for note in uploads {
            drop(tokio::spawn(end_upload(Arc::clone(&self.store), note)));
        }
    }

    /// Gives a draft that was left in the spool its place in the tree. The number 0 stands for none.
    fn settle_in(&self, key: &str, draft: &Arc<Draft>) -> u64 {
        let (prefix, component) = split(key);
        let is_link = component.ends_with(name::LINK_SUFFIX);
        if component.is_empty() || component == name::PLACEHOLDER || is_link {
            return 0;
        }
        let modified = Modified::unlisted(crate::writeback::nanos_now() / 1_000_000);
        let version = FileVersion { etag: crate::etag::ETag::none(), size: draft.state().size, modified };
        let file = Entry::of_component(component, Kind::File(version));
        let mut inodes = self.inodes.lock();
        let mut parent = ROOT;
        for folder in prefix.split_terminator('/') {
            parent = inodes.upsert(parent, &Entry::of_component(folder, Kind::Directory));
        }
        let ino = inodes.upsert(parent, &file);
        let Some(inode) = inodes.get_mut(ino).filter(|inode| inode.draft().is_none()) else { return 0 };
        inode.extra_mut().draft = Some(Arc::clone(draft));
        drop(inodes);
        self.meta.changed(prefix, &file.name, Some(file.clone()), true);
        ino
    }

    /// Puts a placeholder, without waiting for removals: for those who run them.
    pub(super) async fn put_placeholder_now(
        &self,
        prefix: &str,
        headers: &ObjectHeaders,
    ) -> Result<(), FsError> {
        let writer = self.writer()?;
        let section = Section::new(Arc::clone(writer.spool.nothing()), 0..0);
        self.store.put(&format!("{prefix}{}", name::PLACEHOLDER), headers, &section).await?;
        self.placeholders.set(prefix, headers);
        Ok(())
    }
}

#[async_trait]
impl Watcher for Fs {
    fn removed(&self, removal: &Removal, refused: Option<&StoreError>) {
        let is_folder = *removal.name == *name::PLACEHOLDER.as_bytes();
        // A placeholder stands for the folder that it keeps.
        let (prefix, name) = match removal.prefix.strip_suffix('/') {
            Some(folder) if is_folder => {
                let (prefix, component) = split(folder);
                (prefix, name::from_component(component).into_owned().into_boxed_slice())
            }
            _ => (removal.prefix.as_str(), removal.name.clone()),
        };
        if !self.meta.removal_ended(prefix, &name) {
            // Something else has the name by now.
            return;
        }
        let Some(error) = refused else { return self.refused_later.deletion_settled(removal.key()) };
        self.refused_later.deletion(removal.key());
        tracing::error!(key = removal.key(), %error, "the server refused to delete it; it is shown again");
        self.meta.unchanged(prefix, &name);
        self.meta.invalidate(prefix);
        self.note_refusal(removal.key(), error.message.as_str().into());
        let parent = self.inodes.lock().find(prefix);
        if let Some(parent) = parent {
            self.invalidate(Invalidation::Name { parent, name });
        }
    }

    async fn keep(&self, prefix: &str) {
        // What is removed by the same batch counts as gone already.
        match self.holds(prefix, b"", true).await {
            Ok(held) if held.is_lost() => {}
            Ok(_) => return,
            Err(error) => return tracing::debug!(prefix, %error, "an empty folder is not kept"),
        }
        // A folder that was removed itself is not to come back.
        let (above, component) = split(prefix.trim_end_matches('/'));
        if self.meta.is_gone(above, &name::from_component(component)) {
            return;
        }
        match self.put_placeholder_now(prefix, &ObjectHeaders::default()).await {
            Ok(()) => self.meta.kept(prefix),
            Err(error) => tracing::debug!(prefix, %error, "an empty folder is not kept"),
        }
    }
}

/// A key's prefix, with its slash, and its last component.
pub(super) fn split(key: &str) -> (&str, &str) {
    key.split_at(key.rfind('/').map_or(0, |at| at + 1))
}
