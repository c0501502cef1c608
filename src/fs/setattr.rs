//! Size, times, mode and owner.
//!
//! What is set on a file that is being written rides on its upload. On a file at rest it becomes a draft without a
//! byte of its own, which goes into the bucket as one copy on the server, a moment later, so that tools that set one
//! thing after the other cost one request.

use std::sync::Arc;
use std::time::Duration;

use super::inode::ROOT;
use super::{Attributes, ErrorKind, Fs, FsError};
use crate::attrs::Attrs;
use crate::name;
use crate::store::ObjectHeaders;
use crate::writeback::nanos_now;

/// What setattr asks for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Changes {
    pub size: Option<u64>,
    pub atime: Option<i64>,
    pub attrs: Attrs,
}

impl Fs {
    /// Changes attributes; answers what they are then.
    ///
    /// # Errors
    /// `ReadOnly`, `NoSpace`, or why a cut file is not in the bucket.
    pub async fn setattr(&self, ino: u64, changes: Changes) -> Result<(Attributes, Duration), FsError> {
        self.admit()?;
        self.writer()?;
        let (is_directory, is_node) = {
            let inodes = self.inodes.lock();
            let inode = inodes.get(ino).ok_or(ErrorKind::Stale)?;
            (inode.is_directory(), inode.node_kind().is_some())
        };
        if is_node {
            return Ok((self.set_node(ino, changes)?, self.ttl));
        }
        if is_directory {
            if changes.size.is_some() {
                return Err(ErrorKind::IsDirectory.into());
            }
            self.set_directory(ino, changes).await?;
            return Ok((self.attributes_of(ino)?, self.ttl));
        }
        if let Some(size) = changes.size {
            self.truncate(ino, size).await?;
        }
        if changes.atime.is_some() {
            let mut inodes = self.inodes.lock();
            if let Some(inode) = inodes.get_mut(ino) {
                inode.extra_mut().atime = changes.atime;
                inode.extra_mut().ctime = Some(nanos_now());
            }
        }
        if !changes.attrs.is_empty() {
            self.set_file(ino, changes.attrs).await?;
        }
        Ok((self.attributes_of(ino)?, self.ttl))
    }

    async fn set_file(&self, ino: u64, attrs: Attrs) -> Result<(), FsError> {
        let now = {
            let inodes = self.inodes.lock();
            let inode = inodes.get(ino).ok_or(ErrorKind::Stale)?;
            self.attributes(ino, inode)
        };
        // What is so already is no change: tools set times and modes to what they are.
        let same = attrs.mode.is_none_or(|mode| mode == now.mode)
            && attrs.uid.is_none_or(|uid| uid == now.uid)
            && attrs.gid.is_none_or(|gid| gid == now.gid)
            && attrs.mtime.is_none_or(|mtime| super::attr::nanos(now.mtime) == mtime);
        if let Some(inode) = self.inodes.lock().get_mut(ino) {
            inode.extra_mut().ctime = Some(nanos_now());
        }
        if same {
            return Ok(());
        }
        let _held = self.hold(ino);
        let draft = self.draft_of(ino)?;
        {
            let _changing = self.change(ino, &draft).await;
            let mut state = draft.state();
            state.attrs = attrs.over(&state.attrs);
            state.mtime_is_set |= attrs.mtime.is_some();
            state.generation += 1;
        }
        self.settle(ino, &draft)
    }

    /// What was set on a file rides on the upload of its writer, or is saved soon where there is none.
    pub(super) fn settle(&self, ino: u64, draft: &Arc<crate::writeback::Draft>) -> Result<(), FsError> {
        if self.handles.writers(ino) == 0 && draft.state().key.is_some() {
            draft.commit()?;
            self.enqueue(ino, draft);
        }
        Ok(())
    }

    /// A directory's attributes go into the metadata of its placeholder.
    async fn set_directory(&self, ino: u64, changes: Changes) -> Result<(), FsError> {
        let ([key], _change) = self.at_rest([ino]).await?;
        let (before, attrs) = {
            let mut inodes = self.inodes.lock();
            self.keep_atime(&mut inodes, ino);
            let inode = inodes.get_mut(ino).ok_or(ErrorKind::Stale)?;
            let extra = inode.extra_mut();
            extra.ctime = Some(nanos_now());
            extra.atime = changes.atime.or(extra.atime);
            if changes.attrs.is_empty() {
                return Ok(());
            }
            let before = extra.attrs;
            extra.attrs = changes.attrs.over(&before);
            (before, extra.attrs)
        };
        self.known.set_directory(&key, attrs);
        if ino == ROOT || self.store.is_listed_only(&self.parent_prefix(ino)) {
            return Ok(());
        }
        let mut metadata = std::collections::BTreeMap::new();
        attrs.write_to(&mut metadata, true);
        let entries = super::folders::entries(metadata);
        let result = self.set_placeholder(&key, entries.clone(), Some(before)).await;
        if result.is_err() {
            self.unset_directory(&key, &entries, Some(before));
        }
        result
    }

    pub(super) fn parent_prefix(&self, ino: u64) -> String {
        let inodes = self.inodes.lock();
        inodes.get(ino).and_then(|inode| inodes.key(inode.parent())).unwrap_or_default()
    }

    pub(super) async fn put_placeholder(&self, prefix: &str, headers: &ObjectHeaders) -> Result<(), FsError> {
        let writer = self.writer()?;
        // One that is to go would take the new one with it.
        writer.removals.settled(&format!("{prefix}{}", name::PLACEHOLDER)).await?;
        self.put_placeholder_now(prefix, headers).await
    }
}
