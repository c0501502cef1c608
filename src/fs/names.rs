//! Making and removing names: mkdir, rmdir, unlink, symlink.
//!
//! A folder is kept by a placeholder, as Supabase's dashboard keeps it: `mkdir` writes one, and the last entry that
//! leaves a folder leaves one behind. It goes with the folder.

use std::sync::Arc;

use tokio::sync::OwnedRwLockReadGuard;
use tokio::time::Instant;

use super::write::Creation;
use super::{Attributes, ErrorKind, Fs, FsError};
use crate::etag::ETag;
use crate::meta::{Entry, FileVersion, Kind};
use crate::name;
use crate::store::{ListRequest, ObjectHeaders, StoreErrorKind};
use crate::writeback::{Draft, Expected, State, UploadError, nanos_now};

/// What is known of the object of a key.
enum Holds {
    /// What its listing says.
    Listed,
    /// Our last upload, which a listing need not show yet.
    Version(Expected),
    /// After an upload that failed, or one of an earlier mount, nobody knows: what it was before.
    Unknown(Option<Expected>),
}

/// What a folder holds.
pub(super) struct Held {
    pub others: bool,
    /// One that was there already says what was set on the folder.
    placeholder: bool,
}

impl Held {
    /// Whether nothing keeps the folder.
    pub fn is_lost(&self) -> bool {
        !self.others && !self.placeholder
    }
}

/// What became of a file's content before its object goes.
pub(super) struct Kept {
    /// The bucket may hold an object of the key.
    pub is_stored: bool,
    holds: Holds,
    /// What uploads of ours may have put there, by size and time.
    pub attempted: Vec<(u64, i64)>,
    /// Until the object is gone, no upload of the file begins: one that was in the queue must not leave it, for the
    /// object may stay after all.
    held: Option<(Arc<Draft>, OwnedRwLockReadGuard<()>)>,
}

impl Kept {
    /// The version that goes; `None` where it could be any.
    fn goes(&self, listed: Option<&FileVersion>) -> Option<Expected> {
        match &self.holds {
            Holds::Listed => listed.and_then(expected),
            Holds::Version(version) => Some(version.clone()),
            Holds::Unknown(_) => None,
        }
    }

    /// The version that is replaced, as far as it can be told from others.
    pub fn is_replaced(&self, listed: Option<&FileVersion>) -> Option<Expected> {
        let before = match &self.holds {
            Holds::Unknown(before) => before.clone(),
            _ => None,
        };
        self.goes(listed).or(before).or_else(|| listed.and_then(expected))
    }

    /// The file's draft, if there is something in it that the bucket does not have.
    pub fn unsaved(&self) -> Option<Arc<Draft>> {
        let (draft, _) = self.held.as_ref()?;
        let state = draft.state();
        (!state.is_clean() && state.key.is_some()).then(|| Arc::clone(draft))
    }

    /// What was to take its place did, or did not.
    pub fn let_go(self) {
        let Some((draft, _held)) = self.held else { return };
        {
            let mut state = draft.state();
            if state.gives_way.take().is_none() || state.key.is_none() {
                return;
            }
            // The copy may have stayed, and be all that is left of the source: it is not to be overwritten unseen.
            state.is_recovered = true;
            state.uploaded = None;
        }
        if let Err(error) = draft.save(|_| {}) {
            tracing::warn!(%error, "the spool still says that a file was replaced by a rename, which failed");
        }
    }
}

/// A version that a listing showed; `None` for one that is not in the bucket yet.
fn expected(version: &FileVersion) -> Option<Expected> {
    let is_known = version.etag != ETag::none();
    is_known.then(|| Expected { etag: version.etag.clone(), size: version.size })
}

impl Fs {
    /// Makes a directory; the kernel then holds its inode.
    ///
    /// # Errors
    /// `Exists`, `Access` where a policy forbids it.
    pub async fn mkdir(&self, parent: u64, name: &[u8], creation: Creation) -> Result<Attributes, FsError> {
        let component = self.new_component(name)?;
        let ([prefix], _change) = self.at_rest([parent]).await?;
        self.may_create(&prefix)?;
        if self.meta.lookup(&prefix, name).await?.entry.is_some() {
            return Err(ErrorKind::Exists.into());
        }
        self.settle_name(&prefix, &component).await?;
        let key = format!("{prefix}{component}/");
        let attrs = self.attrs_of_new(parent, creation, true);
        let mut headers = ObjectHeaders::default();
        crate::attrs::Attrs { mtime: None, ..attrs }.write_to(&mut headers.metadata, true);
        let is_deferred = self.defers_folders();
        if is_deferred {
            self.queue_folder(&key, super::folders::entries(headers.metadata), (true, None))?;
        } else {
            self.put_placeholder(&key, &headers).await?;
        }
        self.known.set_directory(&key, crate::attrs::Attrs { mtime: None, ..attrs });
        let component = (component.as_bytes() != name).then(|| component.into());
        let entry = Entry { name: name.into(), component, kind: Kind::Directory };
        self.meta.changed(&prefix, name, Some(entry.clone()), is_deferred);
        self.meta.made(&key);
        let mut inodes = self.inodes.lock();
        let ino = inodes.upsert(parent, &entry);
        inodes.remember(ino);
        if let Some(inode) = inodes.get_mut(ino) {
            inode.extra_mut().attrs = attrs;
            inode.extra_mut().ctime = attrs.mtime;
        }
        self.changed_directory(&mut inodes, parent);
        let inode = inodes.get(ino).ok_or(ErrorKind::Stale)?;
        Ok(self.attributes(ino, inode))
    }

    /// Makes an empty file without opening it.
    ///
    /// # Errors
    /// As [`create`](Self::create), and why it is not in the bucket.
    pub async fn mknod(&self, parent: u64, name: &[u8], creation: Creation) -> Result<Attributes, FsError> {
        let (attributes, opened) = self.create(parent, name, creation, true, false).await?;
        let ino = attributes.ino;
        let saved = self.save(ino).await;
        self.release(ino, opened.handle);
        if let Err(error) = saved {
            self.forget(ino, 1);
            return Err(error);
        }
        self.attributes_of(ino)
    }

    /// # Errors
    /// `NotEmpty`, `NotDirectory`, `Access`.
    pub async fn rmdir(&self, parent: u64, name: &[u8]) -> Result<(), FsError> {
        self.writer()?;
        let ([prefix], _change) = self.at_rest([parent]).await?;
        let entry = self.meta.lookup(&prefix, name).await?.entry.ok_or(ErrorKind::NotFound)?;
        if !matches!(entry.kind, Kind::Directory) {
            return Err(ErrorKind::NotDirectory.into());
        }
        self.may_create(&prefix)?;
        let key = format!("{prefix}{}/", entry.component());
        if self.holds_others(&key, b"").await? {
            return Err(ErrorKind::NotEmpty.into());
        }
        self.keep_folder(&prefix, name).await?;
        // A folder that another client made is an object of the folder's own key.
        if self.meta.has_marker(&key) {
            self.store.delete(&key).await?;
        }
        let is_stored = self.cancel_folder(&key).await;
        if is_stored {
            self.delete_object(&key, name::PLACEHOLDER.as_bytes(), name::PLACEHOLDER, None).await?;
        }
        self.meta.forget_below(&key);
        self.placeholders.forget_below(&key);
        self.known.forget(&key);
        self.removed_name(parent, &prefix, name, &key);
        Ok(())
    }

    /// # Errors
    /// `IsDirectory`, `Access` where a policy forbids it.
    pub async fn unlink(&self, parent: u64, name: &[u8]) -> Result<(), FsError> {
        self.writer()?;
        let ([prefix], _change) = self.at_rest([parent]).await?;
        let entry = self.meta.lookup(&prefix, name).await?.entry.ok_or(ErrorKind::NotFound)?;
        if matches!(entry.kind, Kind::Directory) {
            return Err(ErrorKind::IsDirectory.into());
        }
        self.remove_file(parent, &prefix, name, &entry).await
    }

    /// Removes what is no folder.
    pub(super) async fn remove_file(
        &self,
        parent: u64,
        prefix: &str,
        name: &[u8],
        entry: &Entry,
    ) -> Result<(), FsError> {
        let key = format!("{prefix}{}", entry.component());
        if matches!(entry.kind, Kind::Node(_)) {
            self.remove_node(parent, prefix, name);
            return Ok(());
        }
        let ino = self.inodes.lock().named(parent, name);
        let writes_back = self.writer()?.options.write_back;
        if !writes_back {
            self.keep_folder(prefix, name).await?;
        }
        let uploading = ino.filter(|_| writes_back).and_then(|ino| self.uploading(ino));
        if let Some(draft) = uploading {
            // What it puts there goes when it has ended.
            self.delete_uploading(prefix, name, entry.component(), draft)?;
        } else {
            let kept = self.keep_content(ino).await?;
            if kept.is_stored {
                let goes = kept.goes(entry.version());
                self.delete_object(prefix, name, entry.component(), goes).await?;
            }
        }
        self.orphan(ino);
        self.known.forget(&key);
        self.removed_name(parent, prefix, name, &key);
        Ok(())
    }

    /// The draft of a file whose upload is under way, where nothing of its content would be missing without the object.
    fn uploading(&self, ino: u64) -> Option<Arc<Draft>> {
        let (draft, is_open) = {
            let inodes = self.inodes.lock();
            let inode = inodes.get(ino)?;
            (Arc::clone(inode.draft()?), inode.opens() > 0)
        };
        let is_whole = {
            let state = draft.state();
            state.local.missing(0..state.base_limit) == 0
        };
        (draft.hold_now().is_none() && (is_whole || !is_open)).then_some(draft)
    }

    /// Before an object goes: what is open keeps its content, and what was not uploaded stays here.
    pub(super) async fn keep_content(&self, ino: Option<u64>) -> Result<Kept, FsError> {
        let stored = |holds| Kept { is_stored: true, holds, attempted: vec![], held: None };
        let Some(ino) = ino else { return Ok(stored(Holds::Listed)) };
        let (is_open, draft, holds) = {
            let inodes = self.inodes.lock();
            let Some(inode) = inodes.get(ino) else { return Ok(stored(Holds::Listed)) };
            // An upload may have ended since the name was looked up.
            let uploaded =
                inode.file().map(|file| &file.version).filter(|version| !version.modified.is_listed);
            let holds = uploaded.and_then(expected).map_or(Holds::Listed, Holds::Version);
            (inode.opens() > 0, inode.draft().cloned(), holds)
        };
        let draft = match draft {
            None if !is_open => return Ok(stored(holds)),
            None => self.draft_of(ino)?,
            Some(draft) => draft,
        };
        if is_open {
            match self.writer()?.uploader.fill_all(&draft).await {
                // After a change by somebody else, later reads of what is missing give ESTALE.
                Ok(()) | Err(UploadError::Conflict(_) | UploadError::Replaced) => {}
                Err(UploadError::Io(error)) => {
                    tracing::warn!(%error, "an open file that is removed does not fit into the spool; what was not read yet is lost to its readers");
                }
                Err(UploadError::Store(error)) if error.kind == StoreErrorKind::NotFound => {}
                Err(UploadError::Store(error)) => return Err(error.into()),
            }
        }
        // An upload that is under way ends first, and no other begins.
        let held = draft.holding().await;
        let state = draft.state();
        let is_stored = state.may_be_stored();
        let is_unknown = state.error.is_some() || state.is_recovered;
        let holds = match state.holds().cloned() {
            Some(version) if !is_unknown => Holds::Version(version),
            before => Holds::Unknown(before),
        };
        let attempted = state.attempted.clone();
        drop(state);
        Ok(Kept { is_stored, holds, attempted, held: Some((draft, held)) })
    }

    /// The name of a file is gone: what was not saved is wanted by its open descriptors only.
    pub(super) fn orphan(&self, ino: Option<u64>) {
        let Some(ino) = ino else { return };
        let draft = self.inodes.lock().get(ino).and_then(|inode| inode.draft().cloned());
        let Some(draft) = draft else { return };
        draft.state().key = None;
        if let Err(error) = draft.save(|_| {}) {
            tracing::debug!(%error, "a removed file is still on record in the spool");
        }
        let is_open = self.inodes.lock().get(ino).is_some_and(|inode| inode.opens() > 0);
        if !is_open {
            self.drop_draft(ino, &draft);
        }
    }

    pub(super) fn removed_name(&self, parent: u64, prefix: &str, name: &[u8], key: &str) {
        // Together, so that an upload which just ended does not bring the name back.
        let mut inodes = self.inodes.lock();
        self.no_name(prefix, name, key);
        // A pipe may have taken the name while the removal went on without its caller.
        let is_node = |ino: u64| inodes.get(ino).is_some_and(|inode| inode.node_kind().is_some());
        if let Some(ino) = inodes.named(parent, name).filter(|&ino| !is_node(ino)) {
            if let Some(inode) = inodes.get_mut(ino)
                && inode.opens() > 0
            {
                inode.extra_mut().ctime = Some(nanos_now());
            }
            inodes.remove(ino);
        }
        self.changed_directory(&mut inodes, parent);
    }

    /// Whether a folder holds anything but `name` and its placeholder.
    pub(super) async fn holds_others(&self, prefix: &str, name: &[u8]) -> Result<bool, FsError> {
        Ok(self.holds(prefix, name, false).await?.others)
    }

    /// What a folder holds beside `name`; with `is_stored`, in the bucket.
    pub(super) async fn holds(&self, prefix: &str, name: &[u8], is_stored: bool) -> Result<Held, FsError> {
        if let Some(others) = self.meta.holds_others(prefix, name, is_stored) {
            return Ok(Held { others, placeholder: self.meta.has_placeholder(prefix) });
        }
        let asked = Instant::now();
        let page = self
            .store
            .list(&ListRequest { prefix: prefix.to_owned(), fold: true, after: None, limit: 4 })
            .await?;
        let component = name::to_component(name).unwrap_or_default();
        let changes = if is_stored {
            self.meta.changes_of_bucket(prefix, asked)
        } else {
            self.meta.changes(prefix, asked)
        };
        let is_gone = |found: &str| {
            let shown = name::from_component(found);
            found.is_empty()
                || found == name::PLACEHOLDER
                || found == component
                || changes.iter().any(|(name, entry)| {
                    // An object below a new file is one that is still to go.
                    let is_gone = entry.as_ref().is_none_or(|entry| is_stored && entry.is_staged());
                    **name == *shown && is_gone
                })
        };
        let objects = page.objects.iter().map(|object| &object.key[prefix.len()..]);
        let placeholder = objects.clone().any(|found| found == name::PLACEHOLDER);
        let folders = page.prefixes.iter().map(|folder| &folder[prefix.len()..folder.len() - 1]);
        let others = objects.chain(folders).any(|found| !is_gone(found));
        if others || page.next.is_none() {
            return Ok(Held { others, placeholder });
        }
        // Few in number and all of them gone or hidden: only the whole listing tells.
        self.meta.complete(prefix).await?;
        let others = self.meta.holds_others(prefix, name, is_stored).unwrap_or(true);
        Ok(Held { others, placeholder: placeholder || self.meta.has_placeholder(prefix) })
    }

    /// Before the last entry leaves a folder: the folder stays.
    pub(super) async fn keep_folder(&self, prefix: &str, name: &[u8]) -> Result<(), FsError> {
        if !self.can_be_kept(prefix) || self.meta.has_placeholder(prefix) {
            return Ok(());
        }
        // What is still to be uploaded does not keep it until then.
        if !self.holds(prefix, name, true).await?.is_lost() {
            return Ok(());
        }
        match self.put_placeholder(prefix, &ObjectHeaders::default()).await {
            Ok(()) => self.meta.kept(prefix),
            // Where a policy forbids it, the folder goes with its last file.
            Err(error) => tracing::debug!(prefix, %error, "an empty folder is not kept"),
        }
        Ok(())
    }

    /// Whether a folder stands by what it holds: not the root of the mount or of a bucket.
    pub(super) fn can_be_kept(&self, prefix: &str) -> bool {
        !(prefix.is_empty() || self.store.is_listed_only(prefix) || self.is_bucket_root(prefix))
    }

    /// The root of a bucket in `mount --all`.
    fn is_bucket_root(&self, prefix: &str) -> bool {
        self.store.is_listed_only("") && prefix.find('/') == Some(prefix.len() - 1)
    }

    /// Makes a symbolic link, as rclone keeps it: an object `<name>.rclonelink` that holds the target.
    ///
    /// # Errors
    /// `Exists`, and why it is not in the bucket.
    pub async fn symlink(
        &self,
        parent: u64,
        name: &[u8],
        target: &[u8],
        creation: Creation,
    ) -> Result<Attributes, FsError> {
        let component = self.new_component(name)?;
        let ([prefix], _change) = self.at_rest([parent]).await?;
        self.may_create(&prefix)?;
        if self.meta.lookup(&prefix, name).await?.entry.is_some() {
            return Err(ErrorKind::Exists.into());
        }
        self.settle_name(&prefix, &component).await?;
        let component = format!("{component}{}", name::LINK_SUFFIX);
        if component.len() > name::MAX_LEN {
            return Err(ErrorKind::NameTooLong.into());
        }
        let writer = self.writer()?;
        let attrs = crate::attrs::Attrs { mode: None, ..self.attrs_of_new(parent, creation, false) };
        let mut state = State::on(&format!("{prefix}{component}"), None, attrs);
        state.changes.content_type = Some("text/plain".to_owned());
        let draft = Draft::new(&writer.spool, state)?;
        draft.write(0, target)?;
        let uploaded = writer.uploader.upload(&draft, |_| {}).await;
        draft.discard();
        let uploaded = match uploaded {
            Ok(Some(uploaded)) => uploaded,
            Ok(None) => return Err(ErrorKind::Io.into()),
            Err(UploadError::Store(error)) => return Err(error.into()),
            Err(UploadError::Io(error)) => return Err(error.into()),
            Err(UploadError::Conflict(_) | UploadError::Replaced) => return Err(ErrorKind::Exists.into()),
        };
        let version = crate::meta::FileVersion {
            etag: uploaded.etag.clone(),
            size: uploaded.size,
            modified: crate::attrs::Modified::unlisted(nanos_now() / 1_000_000),
        };
        self.known.wrote(&uploaded.key, &version, attrs, &uploaded.headers);
        let entry = Entry { name: name.into(), component: Some(component.into()), kind: Kind::Link(version) };
        self.meta.changed(&prefix, name, Some(entry.clone()), false);
        let mut inodes = self.inodes.lock();
        let ino = inodes.upsert(parent, &entry);
        inodes.remember(ino);
        if let Some(inode) = inodes.get_mut(ino) {
            inode.extra_mut().attrs = attrs;
        }
        self.changed_directory(&mut inodes, parent);
        let inode = inodes.get(ino).ok_or(ErrorKind::Stale)?;
        Ok(self.attributes(ino, inode))
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// `Invalid` for anything else, or why it cannot be read.
    pub async fn readlink(&self, ino: u64) -> Result<Vec<u8>, FsError> {
        const LONGEST: u64 = 4096;
        self.admit()?;
        let object = {
            let inodes = self.inodes.lock();
            let inode = inodes.get(ino).ok_or(ErrorKind::Stale)?;
            let file = inode.file().filter(|file| file.is_link).ok_or(ErrorKind::Invalid)?;
            let key = inodes.key(ino).ok_or(ErrorKind::Stale)?;
            crate::data::ObjectId::new(
                &key,
                file.version.etag.clone(),
                file.version.size,
                file.version.modified,
            )
        };
        if object.size == 0 || object.size > LONGEST {
            return Err(ErrorKind::Invalid.into());
        }
        let len = u32::try_from(object.size).unwrap_or(0);
        let reader = crate::data::Reader::new(object, self.fetcher.clone());
        let target = reader.read(0, len).await.map_err(super::write::read_error)?;
        // rclone writes the bytes alone; a line ending that somebody's editor left is not part of a path.
        Ok(target.strip_suffix(b"\n").unwrap_or(&target).to_vec())
    }
}
