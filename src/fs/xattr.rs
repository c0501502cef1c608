//! Extended attributes: what Supabase knows of an object beyond its bytes, and what other programs keep beside a file.
//!
//! `user.supabase.key` and `.etag` are known from the listing; `.content-type`, `.cache-control`, `.meta.<name>` and the
//! attributes of other programs (`foreign.rs`) are headers of the object, or of a folder's placeholder: they cost one
//! HEAD for a version that was not read before.
//!
//! One set of [`Shown`] attributes answers all calls, so that a name which is listed can be read and removed.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lru::LruCache;
use parking_lot::Mutex;

use super::{ErrorKind, Fs, FsError, foreign};
use crate::content_type;
use crate::etag::ETag;
use crate::meta::FileVersion;
use crate::process;
use crate::store::{ObjectHead, ObjectHeaders, StoreErrorKind, is_header_value, is_media_type, is_token};
use crate::writeback::{State, nanos_now};

const USER: &[u8] = b"user.";
const NAMESPACE: &str = "supabase.";
const METADATA: &str = "meta.";

/// Names that tell what is, and nobody sets.
const READ_ONLY: [&str; 3] = ["key", "etag", "last-error"];

/// Entries that say what stat shows: chmod, chown and touch set them. A tool that takes them off a private file before
/// it looks at the mode, as rsync does, must not make it public.
const STAT: [&str; 4] = ["mtime", "mode", "uid", "gid"];

/// The server stores longer ones and does not give them back.
const LONGEST_VALUE: usize = 4096;

/// After lists of names of this many files in a row without a look at an attribute, a tool like `ls` goes through a
/// directory, and answering it must not cost a request a file.
const LISTS_OF_A_SCAN: u32 = 2;

/// After this long without a list, a thread begins another series; or it is another thread of the same number.
const A_WHILE: Duration = Duration::from_secs(1);

/// Threads whose lists are counted.
const THREADS: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// Tells a tool that wants attributes from one that passes by. By process: what one does says nothing of another.
pub(super) struct Scan(Mutex<LruCache<u32, Lister>>);

/// A thread that lists names.
struct Lister {
    process: u32,
    /// Files since anybody in the process looked at an attribute.
    files: u32,
    last: u64,
    at: Instant,
}

impl Default for Scan {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(THREADS)))
    }
}

impl Scan {
    /// Counts a list of names. `true`: its thread passes by.
    fn passes(&self, thread: u32, ino: u64) -> bool {
        let is_known = self.0.lock().contains(&thread);
        let process = if is_known { 0 } else { process::of_thread(thread).unwrap_or(thread) };
        let mut threads = self.0.lock();
        let now = Instant::now();
        let lister = threads.get_or_insert_mut(thread, || Lister { process, files: 0, last: 0, at: now });
        if lister.at.elapsed() > A_WHILE {
            lister.files = 0;
        }
        lister.at = now;
        if lister.last != ino {
            (lister.files, lister.last) = (lister.files.saturating_add(1), ino);
        }
        lister.files > LISTS_OF_A_SCAN
    }

    /// A thread looks at an attribute, and with it its process.
    fn looks(&self, thread: u32) {
        let is_idle = self.0.lock().is_empty();
        if is_idle {
            return;
        }
        let process = process::of_thread(thread).unwrap_or(thread);
        for (_, lister) in self.0.lock().iter_mut().filter(|(_, lister)| lister.process == process) {
            (lister.files, lister.last) = (0, 0);
        }
    }
}

/// Attribute names, each followed by a NUL.
pub type Listed = Vec<u8>;

/// An attribute that exists here, by what it stands for.
enum Attribute {
    /// One that tells what is.
    Fact(&'static str),
    ContentType,
    CacheControl,
    /// An entry of the user metadata: also what another program set.
    Entry {
        name: String,
        is_foreign: bool,
    },
}

impl Attribute {
    /// What a name stands for; `None` for one that never exists.
    fn of(name: &[u8]) -> Option<Self> {
        let name = name.strip_prefix(USER).filter(|name| !name.is_empty())?;
        let Some(ours) = name.strip_prefix(NAMESPACE.as_bytes()) else {
            return Some(Self::Entry { name: foreign::entry_of(name), is_foreign: true });
        };
        let ours = std::str::from_utf8(ours).ok()?;
        if let Some(fact) = READ_ONLY.into_iter().find(|fact| *fact == ours) {
            return Some(Self::Fact(fact));
        }
        match ours {
            "content-type" => Some(Self::ContentType),
            "cache-control" => Some(Self::CacheControl),
            _ => {
                let name = ours.strip_prefix(METADATA).filter(|name| !name.is_empty())?.to_ascii_lowercase();
                // It is shown under its own name.
                foreign::name_of(&name).is_none().then_some(Self::Entry { name, is_foreign: false })
            }
        }
    }
}

/// The attributes of an inode.
#[derive(Default)]
struct Shown {
    key: String,
    etag: Option<String>,
    last_error: Option<Arc<str>>,
    /// `None`: they were not asked for.
    headers: Option<ObjectHeaders>,
    is_folder: bool,
    /// A file with changes that are not in the bucket yet.
    is_changed: bool,
}

impl Shown {
    fn names(&self) -> Vec<Vec<u8>> {
        let ours = |name: &str| [USER, NAMESPACE.as_bytes(), name.as_bytes()].concat();
        let mut names = vec![ours("key")];
        names.extend(self.etag.iter().map(|_| ours("etag")));
        names.extend(self.last_error.iter().map(|_| ours("last-error")));
        let Some(headers) = &self.headers else { return names };
        names.extend(headers.content_type.iter().map(|_| ours("content-type")));
        names.extend(headers.cache_control.iter().map(|_| ours("cache-control")));
        names.extend(headers.metadata.iter().filter_map(|(entry, value)| match foreign::name_of(entry) {
            Some(name) => foreign::decode(value).map(|_| [USER, &name].concat()),
            None => Some(ours(&format!("{METADATA}{entry}"))),
        }));
        names
    }

    fn value(&self, attribute: &Attribute) -> Option<Vec<u8>> {
        let headers = self.headers.as_ref();
        let text = match attribute {
            Attribute::Fact("key") => Some(self.key.as_str()),
            Attribute::Fact("etag") => self.etag.as_deref(),
            Attribute::Fact(_) => self.last_error.as_deref(),
            Attribute::ContentType => headers?.content_type.as_deref(),
            Attribute::CacheControl => headers?.cache_control.as_deref(),
            Attribute::Entry { name, is_foreign } => {
                let value = headers?.metadata.get(name)?;
                return if *is_foreign { foreign::decode(value) } else { Some(value.clone().into_bytes()) };
            }
        };
        text.map(|text| text.as_bytes().to_vec())
    }
}

/// What an inode is, for its attributes.
enum Subject {
    File {
        version: FileVersion,
        draft: Option<Box<State>>,
        is_removed: bool,
    },
    /// `is_placed`: it has a placeholder, or can have one.
    Folder {
        is_placed: bool,
    },
    /// The kernel lets nobody read or set an attribute of a link, a pipe or a socket.
    Other,
}

impl Fs {
    /// The value of an extended attribute, for a thread.
    ///
    /// # Errors
    /// `NoAttribute`, or why HEAD failed.
    pub async fn getxattr(&self, ino: u64, name: &[u8], thread: u32) -> Result<Vec<u8>, FsError> {
        // Asked of every file by ls, cp and the kernel: answered from nothing. "Not supported" rather than "not
        // there", so that ls asks once for the whole file system.
        if !name.starts_with(USER) {
            return Err(ErrorKind::NotSupported.into());
        }
        let attribute = Attribute::of(name).ok_or(ErrorKind::NoAttribute)?;
        self.scan.looks(thread);
        let asks = !matches!(attribute, Attribute::Fact(_));
        let shown = self.shown(ino, |_| asks).await?.ok_or(ErrorKind::NoAttribute)?;
        shown.value(&attribute).ok_or_else(|| ErrorKind::NoAttribute.into())
    }

    /// The names of an inode's extended attributes, for a thread.
    ///
    /// # Errors
    /// `Stale`, or why HEAD failed.
    pub async fn listxattr(&self, ino: u64, thread: u32) -> Result<Listed, FsError> {
        let shown = self.shown(ino, |scan| !scan.passes(thread, ino)).await?;
        let names = shown.iter().flat_map(Shown::names);
        Ok(names.flat_map(|name| [&name[..], b"\0"].concat()).collect())
    }

    /// Everything that is shown of an inode; `None` for one that has no attributes. `asks`: whether it may cost a
    /// request.
    async fn shown(&self, ino: u64, asks: impl FnOnce(&Scan) -> bool) -> Result<Option<Shown>, FsError> {
        self.admit()?;
        let (key, subject) = self.subject(ino)?;
        let last_error = self.refusals.lock().get(key.as_str()).cloned();
        let mut shown = Shown { key, last_error, ..Shown::default() };
        let key = &shown.key;
        match subject {
            Subject::Other => return Ok(None),
            Subject::Folder { is_placed } => {
                shown.headers = match self.folder_headers_at_hand(key).filter(|_| is_placed) {
                    None if is_placed && asks(&self.scan) => Some(self.folder_headers(key).await?),
                    known => known,
                };
                shown.is_folder = true;
            }
            Subject::File { version, draft, is_removed } => {
                let had = match &draft {
                    Some(state) if state.stored_headers.is_some() => state.stored_headers.clone(),
                    // There is no object to ask about a file that is not in the bucket.
                    Some(state) if state.expected.is_none() => None,
                    _ => match self.known.head(key, &version) {
                        Some(head) => Some((*head).clone().into()),
                        // Its key may be another file's by now.
                        None if is_removed => None,
                        None if asks(&self.scan) => self.object_headers(key, &version).await?,
                        None => {
                            shown.etag = Some(version.etag.to_string());
                            return Ok(Some(shown));
                        }
                    },
                };
                shown.is_changed = draft.is_some();
                shown.etag = (version.etag != ETag::none()).then(|| version.etag.to_string());
                shown.headers = match draft {
                    Some(state) => Some(state.headers(had.as_ref(), || self.default_headers(key))),
                    None => had,
                };
            }
        }
        Ok(Some(shown))
    }

    fn subject(&self, ino: u64) -> Result<(String, Subject), FsError> {
        let inodes = self.inodes.lock();
        let inode = inodes.get(ino).ok_or(ErrorKind::Stale)?;
        let key = inodes.key(ino).ok_or(ErrorKind::Stale)?;
        let subject = match inode.file() {
            Some(file) if !file.is_link => {
                let state = inode.draft().map(|draft| draft.state().clone());
                Subject::File {
                    version: file.version.clone(),
                    draft: state.filter(|state| !state.is_clean()).map(Box::new),
                    is_removed: inode.is_removed(),
                }
            }
            None if inode.is_directory() => Subject::Folder { is_placed: !self.store.is_listed_only(&key) },
            _ => Subject::Other,
        };
        Ok((key, subject))
    }

    /// The headers of a version, from the server; `None` if it has just gone.
    async fn object_headers(
        &self,
        key: &str,
        version: &FileVersion,
    ) -> Result<Option<ObjectHeaders>, FsError> {
        match self.head(key, version).await {
            Ok(head) => Ok(Some((*head).clone().into())),
            Err(error)
                if error.cause.as_ref().is_some_and(|cause| cause.kind == StoreErrorKind::NotFound) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// What a new object of this key gets, beside what is asked for.
    fn default_headers(&self, key: &str) -> ObjectHeaders {
        let cache_control = self.writer.as_ref().and_then(|writer| writer.options.cache_control.clone());
        ObjectHeaders {
            content_type: Some(content_type::of_new(key)),
            cache_control,
            ..ObjectHeaders::default()
        }
    }

    fn default_cache_control(&self) -> String {
        let chosen = self.writer.as_ref().and_then(|writer| writer.options.cache_control.clone());
        chosen.unwrap_or_else(|| "no-cache".to_owned())
    }

    async fn head(&self, key: &str, version: &FileVersion) -> Result<Arc<ObjectHead>, FsError> {
        if let Some(head) = self.known.head(key, version) {
            return Ok(head);
        }
        let (store, asked) = (Arc::clone(&self.store), key.to_owned());
        let ask = move || async move { store.head(&asked).await };
        let head = self.heads.run(key.to_owned(), ask).await?;
        Ok(self.known.learn(key, version, &head).unwrap_or_else(|| Arc::new(head)))
    }

    /// Sets or removes what goes into an object's headers.
    ///
    /// # Errors
    /// `Exists`, `NoAttribute`, `Invalid` for a value that no header can hold and for a Content-Type that is none, `TooLong` and `NoSpace` for what the
    /// headers have no room for, `NotPermitted` for names that stand for nothing.
    pub async fn setxattr(
        &self,
        ino: u64,
        name: &[u8],
        value: Option<&[u8]>,
        flags: i32,
    ) -> Result<(), FsError> {
        self.writer()?;
        if !name.starts_with(USER) {
            return Err(ErrorKind::NotSupported.into());
        }
        if name == USER {
            return Err(ErrorKind::Invalid.into());
        }
        let attribute = match (Attribute::of(name), value) {
            (Some(attribute), _) => attribute,
            (None, Some(_)) => return Err(ErrorKind::NotPermitted.into()),
            (None, None) => return Err(ErrorKind::NoAttribute.into()),
        };
        let header = value.map(|value| header_of(&attribute, value)).transpose()?;
        let shown = self.shown(ino, |_| true).await?.ok_or(ErrorKind::NotPermitted)?;
        let current = shown.value(&attribute);
        let only_tells = match &attribute {
            Attribute::Fact(_) => true,
            Attribute::Entry { name, is_foreign: false } => STAT.contains(&name.as_str()),
            _ => false,
        };
        match (value, current.is_some()) {
            (None, false) => return Err(ErrorKind::NoAttribute.into()),
            // Tools that copy attributes (rsync -X, cp --preserve=xattr) bring along, or take away, also what only
            // tells what is: that is no failure of the copy.
            _ if only_tells => return Ok(()),
            (Some(_), true) if flags & libc::XATTR_CREATE != 0 => return Err(ErrorKind::Exists.into()),
            (Some(_), false) if flags & libc::XATTR_REPLACE != 0 => return Err(ErrorKind::NoAttribute.into()),
            _ => {}
        }
        // An object always has these two: removing one gives the default back.
        let header = header.or_else(|| match &attribute {
            Attribute::ContentType => Some(content_type::of_new(&shown.key)),
            Attribute::CacheControl => Some(self.default_cache_control()),
            _ => None,
        });
        if shown.is_folder {
            self.set_on_folder(ino, attribute, header).await?;
        } else if is_a_change(&attribute, value, header.as_deref(), current.as_deref(), shown.is_changed) {
            self.set_on_file(ino, &attribute, (value.is_none(), header), &shown).await?;
        }
        if let Some(inode) = self.inodes.lock().get_mut(ino) {
            inode.extra_mut().ctime = Some(nanos_now());
        }
        Ok(())
    }

    async fn set_on_file(
        &self,
        ino: u64,
        attribute: &Attribute,
        (is_removal, header): (bool, Option<String>),
        shown: &Shown,
    ) -> Result<(), FsError> {
        let _held = self.hold(ino);
        let draft = self.draft_of(ino)?;
        {
            let _changing = self.change(ino, &draft).await;
            let mut state = draft.state();
            // What a new file gets follows from the name that it has in the end.
            let has_object = state.expected.is_some() || state.stored_headers.is_some();
            let header = if is_removal && !has_object { None } else { header };
            if let (Attribute::Entry { name, .. }, Some(value)) = (attribute, &header) {
                // With what others have set since.
                let headers = state.headers(shown.headers.as_ref(), ObjectHeaders::default);
                has_room(headers, name, value)?;
            }
            match attribute {
                Attribute::ContentType => state.changes.content_type = header,
                Attribute::CacheControl => state.changes.cache_control = header,
                Attribute::Entry { name, .. } => {
                    state.changes.metadata.insert(name.clone(), header);
                }
                Attribute::Fact(_) => {}
            }
            state.generation += 1;
        }
        self.settle(ino, &draft)
    }

    async fn set_on_folder(
        &self,
        ino: u64,
        attribute: Attribute,
        header: Option<String>,
    ) -> Result<(), FsError> {
        // A placeholder has neither a type nor a life in caches.
        let Attribute::Entry { name, .. } = attribute else { return Err(ErrorKind::NotSupported.into()) };
        let ([key], _change) = self.at_rest([ino]).await?;
        if self.store.is_listed_only(&key) {
            return Err(ErrorKind::NotSupported.into());
        }
        if let Some(value) = &header {
            has_room(self.folder_headers(&key).await?, &name, value)?;
        }
        self.set_placeholder(&key, [(name, header)].into(), None).await
    }
}

/// Whether setting an attribute, or removing it, makes a difference for a file.
fn is_a_change(
    attribute: &Attribute,
    value: Option<&[u8]>,
    header: Option<&str>,
    current: Option<&[u8]>,
    is_changed: bool,
) -> bool {
    let is_entry = matches!(attribute, Attribute::Entry { .. });
    let is_same = if is_entry { value == current } else { header.map(str::as_bytes) == current };
    // Of a file that is not in the bucket yet also a type that is the default so far: another name has another.
    !is_same || (is_changed && value.is_some())
}

/// The header that holds a value.
fn header_of(attribute: &Attribute, value: &[u8]) -> Result<String, FsError> {
    let name = match attribute {
        Attribute::Entry { name, is_foreign: true } => {
            let header = foreign::encode(value);
            let alone = ObjectHeaders::default();
            return match has_room(alone, name, &header) {
                Ok(()) => Ok(header),
                Err(_) => Err(ErrorKind::TooLong.into()),
            };
        }
        Attribute::Entry { name, .. } => name,
        _ => "",
    };
    let is_fact = matches!(attribute, Attribute::Fact(_));
    let is_held = name.bytes().all(is_token) && is_header_value(value) && value.len() <= LONGEST_VALUE;
    let text = String::from_utf8_lossy(value).into_owned();
    let is_taken = !matches!(attribute, Attribute::ContentType) || is_media_type(&text);
    if !(is_fact || is_held && is_taken) {
        return Err(ErrorKind::Invalid.into());
    }
    Ok(text)
}

/// Whether one more entry fits beside the others.
fn has_room(mut headers: ObjectHeaders, name: &str, value: &str) -> Result<(), FsError> {
    headers.metadata.insert(name.to_owned(), value.to_owned());
    if foreign::fits(&headers.metadata) {
        return Ok(());
    }
    tracing::warn!(
        name,
        "there is no room for another attribute: the server takes 16 KiB of headers for an object, and less behind a long token"
    );
    Err(ErrorKind::NoSpace.into())
}
