//! Writing: drafts of files that are open for it, and how they get into the bucket.
//!
//! The write path: the first change of a file makes a [`Draft`] of it, later ones go straight into the draft's spool
//! file; close and fsync call [`Fs::save`], which waits for the upload, or leaves it to the queue (`--write-back`).

use std::io;
use std::sync::Arc;

use tokio::sync::RwLockReadGuard;

use super::handle::FileHandle;
use super::rights::Right;
use super::save::Writer;
use super::{Attributes, ErrorKind, Fs, FsError, Opened};
use crate::attrs::{Attrs, Modified};
use crate::data::{ObjectId, ReadError, Reader};
use crate::meta::{Entry, FileVersion, Kind};
use crate::name;
use crate::store::MAX_OBJECT;
use crate::writeback::{Base, Draft, Piece, State, nanos_now};

/// Who creates something, and how.
#[derive(Debug, Clone, Copy)]
pub struct Creation {
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
}

impl Fs {
    pub(super) fn writer(&self) -> Result<&Arc<Writer>, FsError> {
        self.writer.as_ref().ok_or_else(|| ErrorKind::ReadOnly.into())
    }

    /// The key component of a name that is to be made.
    pub(super) fn new_component(&self, name: &[u8]) -> Result<String, FsError> {
        if name.len() > name::MAX_LEN {
            return Err(ErrorKind::NameTooLong.into());
        }
        let is_reserved =
            name == name::PLACEHOLDER.as_bytes() || name.ends_with(name::LINK_SUFFIX.as_bytes());
        let component = name::to_component(name).filter(|_| !is_reserved).ok_or_else(|| {
            tracing::warn!(name = %String::from_utf8_lossy(name), "this name is reserved; choose another one");
            FsError::new(ErrorKind::Invalid)
        })?;
        if self.writer()?.options.strict_names && component.as_bytes() != name {
            let refused: String = String::from_utf8_lossy(name)
                .chars()
                .filter(|c| !u8::try_from(*c).is_ok_and(name::is_allowed))
                .collect();
            tracing::warn!(name = %String::from_utf8_lossy(name), %refused, "Supabase takes no name with these characters");
            return Err(ErrorKind::Invalid.into());
        }
        if component.len() > name::MAX_LEN {
            return Err(ErrorKind::NameTooLong.into());
        }
        Ok(component)
    }

    /// What differs from the mount's options for something that is made.
    pub(super) fn attrs_of_new(&self, parent: u64, creation: Creation, is_directory: bool) -> Attrs {
        const SETGID: u16 = 0o2000;
        let presentation = &self.presentation;
        let default_mode = if is_directory { presentation.dir_mode } else { presentation.file_mode };
        let (mut mode, mut gid) = (creation.mode & 0o7777, creation.gid);
        // A directory with the bit hands its group down, and to directories the bit as well.
        if let Ok(parent) = self.attributes_of(parent)
            && parent.mode & SETGID != 0
        {
            gid = parent.gid;
            mode |= if is_directory { SETGID } else { 0 };
        }
        Attrs {
            mtime: Some(nanos_now()),
            mode: (mode != default_mode).then_some(mode),
            uid: (creation.uid != presentation.uid).then_some(creation.uid),
            gid: (gid != presentation.gid).then_some(gid),
        }
    }

    /// Makes a file and opens it. One that exists is opened, unless `exclusive`.
    ///
    /// # Errors
    /// `Exists`, `NoSpace`, `Access` where a policy forbids it, or why the name cannot be had.
    pub async fn create(
        &self,
        parent: u64,
        name: &[u8],
        creation: Creation,
        exclusive: bool,
        truncates: bool,
    ) -> Result<(Attributes, Opened), FsError> {
        let component = self.new_component(name)?;
        let ([prefix], change) = self.at_rest([parent]).await?;
        let found = self.meta.lookup(&prefix, name).await?;
        if let Some(entry) = found.entry {
            drop(change);
            if exclusive {
                return Err(ErrorKind::Exists.into());
            }
            let ino = {
                let mut inodes = self.inodes.lock();
                let ino = inodes.upsert(parent, &entry);
                inodes.remember(ino);
                ino
            };
            let opened =
                self.open_and_cut(ino, true, truncates).await.inspect_err(|_| self.forget(ino, 1))?;
            return Ok((self.attributes_of(ino)?, opened));
        }
        self.may_create(&prefix)?;
        self.check_right(Right::Create, &format!("{prefix}{component}")).await?;
        let writer = self.writer()?;
        // One of the same key is waited for by the upload.
        for end in [name::LINK_SUFFIX, "/"] {
            writer.removals.settled(&format!("{prefix}{component}{end}")).await?;
        }
        let mut state =
            State::on(&format!("{prefix}{component}"), None, self.attrs_of_new(parent, creation, false));
        // Another client may have made it in an outage: its upload looks first.
        state.was_made_unseen = found.has_aged;
        // Also a file that nothing is written to is one.
        state.generation = 1;
        state.mtime_is_set = false;
        let draft = Draft::new(&writer.spool, state)?;
        let entry = file_entry(name, component, 0);
        self.meta.changed(&prefix, name, Some(entry.clone()), true);
        let mut inodes = self.inodes.lock();
        if let Some(old) = inodes.named(parent, name) {
            inodes.detach(old);
        }
        let ino = inodes.upsert(parent, &entry);
        inodes.remember(ino);
        inodes.opened(ino);
        if let Some(inode) = inodes.get_mut(ino) {
            let extra = inode.extra_mut();
            extra.atime = draft.state().attrs.mtime;
            extra.draft = Some(Arc::clone(&draft));
            extra.ctime = Some(nanos_now());
        }
        self.changed_directory(&mut inodes, parent);
        drop(inodes);
        let reader = self.reader_of(&draft);
        let handle = self.handles.open_file(ino, reader, true);
        Ok((self.attributes_of(ino)?, Opened { handle, keep_cache: false, is_writable: true }))
    }

    /// Opens a file, and empties it if asked to.
    ///
    /// # Errors
    /// As [`open`](Self::open), `NoSpace`, and `Access` where a policy forbids to replace it.
    pub async fn open_and_cut(
        &self,
        ino: u64,
        for_writing: bool,
        truncates: bool,
    ) -> Result<Opened, FsError> {
        if for_writing && let Some(key) = self.stored_key(ino) {
            self.check_right(Right::Overwrite, &key).await?;
        }
        let mut opened = self.open(ino, for_writing).await?;
        if truncates {
            if let Err(error) = self.truncate(ino, 0).await {
                self.release(ino, opened.handle);
                return Err(error);
            }
            opened.keep_cache = false;
        }
        Ok(opened)
    }

    /// The key of a file whose content nobody is changing.
    fn stored_key(&self, ino: u64) -> Option<String> {
        let (key, draft) = {
            let inodes = self.inodes.lock();
            let inode = inodes.get(ino).filter(|inode| !inode.is_detached())?;
            inode.file()?;
            (inodes.key(ino)?, inode.draft().cloned())
        };
        // Not with the table held: a write holds the draft's state while the spool's disk is slow.
        draft.is_none_or(|draft| draft.state().is_settings_only()).then_some(key)
    }

    /// Whether files can be made here at all: not beside the buckets of `mount --all`.
    pub(super) fn may_create(&self, prefix: &str) -> Result<(), FsError> {
        if self.store.is_listed_only(prefix) { Err(ErrorKind::NotPermitted.into()) } else { Ok(()) }
    }

    /// Times of a directory in which something was made or removed.
    pub(super) fn changed_directory(&self, inodes: &mut super::inode::InodeTable, ino: u64) {
        let key = inodes.key(ino).filter(|key| !key.is_empty());
        self.keep_atime(inodes, ino);
        let Some(inode) = inodes.get_mut(ino) else { return };
        let extra = inode.extra_mut();
        extra.attrs.mtime = Some(nanos_now());
        extra.ctime = extra.attrs.mtime;
        // A prefix has no time on the server: this is the one that lasts.
        if let Some(key) = key {
            self.known.set_directory(&key, extra.attrs);
        }
    }

    /// The draft of a file, made if there is none.
    pub(super) fn draft_of(&self, ino: u64) -> Result<Arc<Draft>, FsError> {
        let writer = self.writer()?;
        let _one_at_a_time = self.drafting.lock();
        let state = {
            let inodes = self.inodes.lock();
            let inode = inodes.get(ino).ok_or(ErrorKind::Stale)?;
            if let Some(draft) = inode.draft() {
                return Ok(Arc::clone(draft));
            }
            let file = inode.file().ok_or(ErrorKind::IsDirectory)?;
            let key = inodes.key(ino).ok_or(ErrorKind::Stale)?;
            let extra = inode.extra();
            let base = base_of(&key, &file.version);
            let mut attrs = extra.map(|extra| extra.attrs).unwrap_or_default();
            // A new version of the object gets a new time from the server; the file keeps its own.
            attrs.mtime = attrs.mtime.or(Some(file.version.modified.nanos()));
            let mut state = writer.uploader.state_on(&key, base, attrs);
            if let Some((headers, at)) = extra.and_then(|extra| extra.headers.as_ref()) {
                state.stored_headers = Some((**headers).clone());
                state.uploaded = Some(*at);
            }
            if inode.is_removed() {
                state.key = None;
            }
            state
        };
        let draft = Draft::new(&writer.spool, state)?;
        let mut inodes = self.inodes.lock();
        self.keep_atime(&mut inodes, ino);
        if let Some(inode) = inodes.get_mut(ino) {
            inode.extra_mut().draft = Some(Arc::clone(&draft));
        }
        Ok(draft)
    }

    /// Begins a change of a file: no upload is under way meanwhile. From the first change until the bucket has it, its
    /// name stands for it, whatever a listing says.
    pub(super) async fn change<'a>(&self, ino: u64, draft: &'a Arc<Draft>) -> RwLockReadGuard<'a, ()> {
        self.find_out_whether_stored(ino, draft).await;
        let changing = draft.changing().await;
        let is_first = {
            let state = draft.state();
            state.is_clean() && state.key.is_some()
        };
        if is_first {
            self.show_draft(ino);
        }
        changing
    }

    /// The last daemon may have been killed when the bucket already held what the draft does, and no longer the version
    /// that the draft lacks parts of. Once the draft is changed, nobody could tell: its upload looks first.
    async fn find_out_whether_stored(&self, ino: u64, draft: &Arc<Draft>) {
        let is_unknown = {
            let state = draft.state();
            state.is_recovered && state.error.is_none() && !state.is_all_here()
        };
        if !is_unknown {
            return;
        }
        // A server that is away is not asked before every change: its error is noted.
        drop(self.upload_draft(ino, draft).await);
    }

    pub(super) fn show_draft(&self, ino: u64) {
        let inodes = self.inodes.lock();
        let Some(inode) = inodes.get(ino).filter(|inode| !inode.is_detached()) else { return };
        let (Some(file), Some(prefix)) = (inode.file(), inodes.key(inode.parent())) else { return };
        let component = inode.component();
        let component = (component.as_bytes() != inode.name()).then(|| component.into());
        let version = file.version.clone();
        let kind = if file.is_link { Kind::Link(version) } else { Kind::File(version) };
        let entry = Entry { name: inode.name().into(), component, kind };
        self.meta.changed(&prefix, inode.name(), Some(entry), true);
    }

    /// Writes at an offset, or at the end of the file, for a thread.
    ///
    /// # Errors
    /// `NoSpace` when the spool is full, `TooLarge` behind what an object can hold.
    pub async fn write(
        &self,
        (handle, thread): (u64, u32),
        offset: u64,
        data: &[u8],
        appends: bool,
    ) -> Result<u32, FsError> {
        self.admit()?;
        let file = self.handles.file(handle).ok_or(ErrorKind::BadHandle)?;
        if !file.is_writable {
            return Err(ErrorKind::BadHandle.into());
        }
        file.users.wrote(thread);
        let written = self.write_to(&file, offset, data, appends).await;
        if written.is_err()
            && let Some(node) = self.inodes.lock().get_mut(file.ino).and_then(|inode| inode.file_mut())
        {
            node.has_lost_bytes = true;
        }
        written
    }

    async fn write_to(
        &self,
        file: &FileHandle,
        offset: u64,
        data: &[u8],
        appends: bool,
    ) -> Result<u32, FsError> {
        let draft = self.draft_of(file.ino).inspect_err(|error| {
            if !matches!(error.kind, ErrorKind::Stale | ErrorKind::IsDirectory | ErrorKind::ReadOnly) {
                file.failed.lock().get_or_insert(error.kind);
            }
        })?;
        let _changing = self.change(file.ino, &draft).await;
        let offset = if appends { draft.state().size } else { offset };
        let end = offset.saturating_add(data.len() as u64);
        if let Err(error) = self.check_size(&draft, end).await {
            draft.write_failed(&io::ErrorKind::FileTooLarge.into());
            return Err(error);
        }
        draft.write(offset, data)?;
        self.writer()?.uploader.stream(&draft);
        Ok(u32::try_from(data.len()).unwrap_or(u32::MAX))
    }

    /// Cuts a file off or extends it. Without a writer that has it open, the change is saved at once.
    pub(super) async fn truncate(&self, ino: u64, size: u64) -> Result<(), FsError> {
        if size > MAX_OBJECT {
            return Err(ErrorKind::TooLarge.into());
        }
        let _held = self.hold(ino);
        let draft = self.draft_of(ino)?;
        {
            let _changing = self.change(ino, &draft).await;
            self.check_size(&draft, size).await?;
            if draft.state().size != size {
                draft.truncate(size)?;
            } else if size == 0 {
                // `O_TRUNC` is a change also where there is nothing to cut off, and comes as this.
                let mut state = draft.state();
                state.failed = None;
                state.touch();
            }
        }
        if size == 0 {
            self.handles.of(ino).iter().for_each(|file| *file.failed.lock() = None);
        }
        if self.handles.writers(ino) == 0 { self.save(ino).await } else { Ok(()) }
    }

    /// Reserves room: the file grows, or stays as it is with `keep_size`.
    ///
    /// # Errors
    /// `NotSupported` for holes, `TooLarge` behind what an object can hold.
    pub async fn allocate(&self, handle: u64, offset: u64, len: u64, mode: i32) -> Result<(), FsError> {
        let file = self.handles.file(handle).ok_or(ErrorKind::BadHandle)?;
        let keeps_size = mode == libc::FALLOC_FL_KEEP_SIZE;
        if mode != 0 && !keeps_size {
            return Err(ErrorKind::NotSupported.into());
        }
        let end = offset.saturating_add(len);
        if end > MAX_OBJECT {
            return Err(ErrorKind::TooLarge.into());
        }
        if keeps_size {
            return Ok(());
        }
        let draft = self.draft_of(file.ino)?;
        let _changing = self.change(file.ino, &draft).await;
        self.check_size(&draft, end).await?;
        if draft.state().size < end {
            draft.truncate(end)?;
        }
        Ok(())
    }

    /// Makes a new file of a whole other one, which the server then copies.
    ///
    /// # Errors
    /// `CrossDevice` where it is not that simple: the kernel then copies by reading and writing.
    pub async fn clone_range(
        &self,
        (from, from_offset): (u64, u64),
        (to, to_offset): (u64, u64),
        len: u64,
    ) -> Result<u64, FsError> {
        let source = self.handles.file(from).ok_or(ErrorKind::BadHandle)?;
        let target = self.handles.file(to).ok_or(ErrorKind::BadHandle)?;
        let (base, size) = {
            let inodes = self.inodes.lock();
            let inode = inodes.get(source.ino).ok_or(ErrorKind::Stale)?;
            let file = inode.file().ok_or(ErrorKind::IsDirectory)?;
            let key = inodes.key(source.ino).ok_or(ErrorKind::Stale)?;
            if inode.draft().is_some_and(|draft| !draft.state().is_clean()) || inode.is_detached() {
                return Err(ErrorKind::CrossDevice.into());
            }
            (base_of(&key, &file.version), file.version.size)
        };
        let draft = self.draft_of(target.ino)?;
        let _changing = self.change(target.ino, &draft).await;
        draft.unseal()?;
        let mut state = draft.state();
        let is_new = state.size == 0 && state.expected.is_none() && state.local.is_empty();
        // A reply counts in 32 bits.
        let is_whole = from_offset == 0 && to_offset == 0 && len >= size && u32::try_from(size).is_ok();
        if !is_new || !is_whole || size == 0 || !target.is_writable {
            return Err(ErrorKind::CrossDevice.into());
        }
        state.base = Some(base);
        state.base_limit = size;
        state.size = size;
        state.touch();
        Ok(size)
    }

    /// Reads a file that is being changed.
    pub(super) async fn read_draft(
        &self,
        file: &FileHandle,
        draft: &Arc<Draft>,
        offset: u64,
        len: u32,
    ) -> Result<bytes::Bytes, FsError> {
        const ATTEMPTS: u32 = 8;
        for _ in 0..ATTEMPTS {
            let (pieces, base) = {
                let base = draft.state().base.clone();
                (draft.pieces(offset..offset.saturating_add(u64::from(len))), base)
            };
            let Some(end) = pieces.last().map(|piece| piece.range().end) else {
                return Ok(bytes::Bytes::new());
            };
            let mut bytes = vec![0; usize::try_from(end - offset).unwrap_or(0)];
            match self.read_pieces(file, draft, base.as_ref(), &pieces, offset, &mut bytes).await {
                Ok(()) => return Ok(bytes.into()),
                // The file was cut off meanwhile.
                Err(error) if error.kind == ErrorKind::Busy => {}
                Err(error) if error.kind == ErrorKind::Stale => {
                    // An upload or a rename may be about to give the draft another base.
                    self.moves_settled(base.as_ref().map_or("", |base| &base.key)).await;
                    drop(draft.changing().await);
                    // The last daemon may have been killed when the bucket already held what the draft does.
                    let may_be_stored = draft.state().is_recovered;
                    let is_stored = may_be_stored && self.upload_draft(file.ino, draft).await.is_ok();
                    if draft.state().base == base && !is_stored {
                        return Err(error);
                    }
                }
                Err(_) if draft.state().base != base => {}
                Err(error) => return Err(error),
            }
        }
        Err(ErrorKind::Stale.into())
    }

    async fn read_pieces(
        &self,
        file: &FileHandle,
        draft: &Arc<Draft>,
        base: Option<&Base>,
        pieces: &[Piece],
        offset: u64,
        bytes: &mut [u8],
    ) -> Result<(), FsError> {
        use std::os::unix::fs::FileExt;
        for piece in pieces {
            let range = piece.range();
            let at = |at: u64| usize::try_from(at - offset).unwrap_or(usize::MAX);
            let target = &mut bytes[at(range.start)..at(range.end)];
            match piece {
                Piece::Zero(_) => {}
                Piece::Local(range) => match draft.data()?.read_exact_at(target, range.start) {
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                        return Err(ErrorKind::Busy.into());
                    }
                    other => other?,
                },
                Piece::Base(range) => {
                    let base = base.ok_or(ErrorKind::Stale)?;
                    let reader = self.base_reader(file, base);
                    let mut done = 0;
                    while done < target.len() {
                        let want = u32::try_from(target.len() - done).unwrap_or(u32::MAX);
                        let got = reader.read(range.start + done as u64, want).await.map_err(read_error)?;
                        if got.is_empty() {
                            return Err(ErrorKind::Stale.into());
                        }
                        target[done..done + got.len()].copy_from_slice(&got);
                        done += got.len();
                    }
                }
            }
        }
        Ok(())
    }

    /// The handle's reader, of the object that the draft is based on.
    fn base_reader(&self, file: &FileHandle, base: &Base) -> Arc<Reader> {
        let mut reader = file.reader.lock();
        let object = reader.object();
        if *object.key != *base.key || object.etag != base.etag() || object.size != base.size {
            *reader = Reader::new(object_of(base), self.fetcher.clone());
        }
        Arc::clone(&reader)
    }

    /// A reader for a handle whose file is a draft.
    pub(super) fn reader_of(&self, draft: &Draft) -> Arc<Reader> {
        let state = draft.state();
        let object = match &state.base {
            Some(base) => object_of(base),
            None => ObjectId::new(
                state.key.as_deref().unwrap_or_default(),
                crate::etag::ETag::none(),
                0,
                Modified::unlisted(0),
            ),
        };
        drop(state);
        Reader::new(object, self.fetcher.clone())
    }
}

pub(super) fn read_error(error: ReadError) -> FsError {
    match error {
        ReadError::Changed(_) => ErrorKind::Stale.into(),
        ReadError::Store(error) if error.kind == crate::store::StoreErrorKind::NotFound => {
            FsError { kind: ErrorKind::Stale, cause: Some(error) }
        }
        ReadError::Store(error) => error.into(),
    }
}

fn base_of(key: &str, version: &FileVersion) -> Base {
    Base {
        key: key.to_owned(),
        etag: version.etag.to_string(),
        size: version.size,
        modified_ms: version.modified.ms,
    }
}

pub(super) fn object_of(base: &Base) -> ObjectId {
    ObjectId::new(&base.key, base.etag(), base.size, Modified::unlisted(base.modified_ms))
}

/// An entry of a file that is not in the bucket yet.
pub(super) fn file_entry(name: &[u8], component: String, size: u64) -> Entry {
    let modified = Modified::unlisted(nanos_now() / 1_000_000);
    let component = (component.as_bytes() != name).then(|| component.into());
    Entry {
        name: name.into(),
        component,
        kind: Kind::File(FileVersion { etag: crate::etag::ETag::none(), size, modified }),
    }
}
