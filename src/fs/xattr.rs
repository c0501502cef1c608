//! Extended attributes: what Supabase knows of an object beyond its bytes.
//!
//! `user.supabase.key` and `.etag` are known from the listing; `.content-type`, `.cache-control` and `.meta.<name>`
//! cost one HEAD for a version that was not read before.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{ErrorKind, Fs, FsError};
use crate::content_type::{UNTYPED, content_type};
use crate::meta::FileVersion;
use crate::store::{ObjectHead, ObjectHeaders, is_header_value, is_media_type, is_token};
use crate::writeback::State;

const NAMESPACE: &str = "user.supabase.";
const METADATA: &str = "meta.";

/// Names that tell what is, and nobody sets.
const READ_ONLY: [&str; 3] = ["key", "etag", "last-error"];

/// The server stores longer ones and does not give them back.
const LONGEST_VALUE: usize = 4096;

/// After this many lists of names in a row without a look at one of ours, a tool like `ls` goes through a
/// directory, and answering it must not cost a request a file.
const LISTS_OF_A_SCAN: u32 = 2;

/// Tells a tool that wants our attributes from one that passes by.
#[derive(Default)]
pub(super) struct Scan(AtomicU32);

/// Attribute names, each followed by a NUL.
pub type Listed = Vec<u8>;

struct Target {
    key: String,
    version: Option<FileVersion>,
}

impl Fs {
    /// The value of an extended attribute.
    ///
    /// # Errors
    /// `NoAttribute`, or why HEAD failed.
    pub async fn getxattr(&self, ino: u64, name: &[u8]) -> Result<Vec<u8>, FsError> {
        // Asked of every file by ls, cp and the kernel: answered from nothing. "Not supported" rather than "not
        // there", so that ls asks once for the whole file system.
        if !name.starts_with(b"user.") {
            return Err(ErrorKind::NotSupported.into());
        }
        let name = std::str::from_utf8(name).ok().and_then(|name| name.strip_prefix(NAMESPACE));
        let name = name.ok_or(ErrorKind::NoAttribute)?;
        self.scan.0.store(0, Ordering::Relaxed);
        let target = self.target(ino)?;
        if name == "key" {
            return Ok(target.key.into_bytes());
        }
        if name == "last-error" {
            return self
                .last_error(ino)
                .map(|words| words.as_bytes().to_vec())
                .ok_or_else(|| ErrorKind::NoAttribute.into());
        }
        if let Some(changed) = self.changed_header(ino, name) {
            return changed.map(String::into_bytes).ok_or_else(|| ErrorKind::NoAttribute.into());
        }
        let version = target.version.ok_or(ErrorKind::NoAttribute)?;
        if name == "etag" {
            return Ok(version.etag.to_string().into_bytes());
        }
        let is_ours = matches!(name, "content-type" | "cache-control") || name.starts_with(METADATA);
        if !is_ours {
            return Err(ErrorKind::NoAttribute.into());
        }
        let head = self.head(&target.key, &version).await?;
        let value = match name {
            "content-type" => head.content_type.as_ref(),
            "cache-control" => head.cache_control.as_ref(),
            _ => head.metadata.get(&name[METADATA.len()..].to_ascii_lowercase()),
        };
        value.map(|value| value.clone().into_bytes()).ok_or_else(|| ErrorKind::NoAttribute.into())
    }

    /// The names of an inode's extended attributes.
    ///
    /// # Errors
    /// `Stale`, or why HEAD failed.
    pub async fn listxattr(&self, ino: u64) -> Result<Listed, FsError> {
        let target = self.target(ino)?;
        let mut names = vec!["key".to_owned()];
        if self.last_error(ino).is_some() {
            names.push("last-error".to_owned());
        }
        let draft = self.changed_state(ino);
        if let Some(state) = draft.as_ref().filter(|state| state.expected.is_none()) {
            // There is no object to ask about a file that is not in the bucket.
            names.extend(header_names(&state.headers(None, || self.default_headers(&target.key))));
        } else if let Some(version) = &target.version {
            names.push("etag".to_owned());
            let is_scan = self.scan.0.fetch_add(1, Ordering::Relaxed) >= LISTS_OF_A_SCAN;
            let head = match self.known.head(&target.key, version) {
                None if !is_scan => Some(self.head(&target.key, version).await?),
                known => known,
            };
            let headers = head.map(|head| ObjectHeaders::from((*head).clone()));
            let headers = match &draft {
                Some(state) => Some(state.headers(headers.as_ref(), ObjectHeaders::default)),
                None => headers,
            };
            names.extend(headers.iter().flat_map(header_names));
        }
        Ok(names.iter().flat_map(|name| format!("{NAMESPACE}{name}\0").into_bytes()).collect())
    }

    /// The state of a file with changes that are not in the bucket yet.
    fn changed_state(&self, ino: u64) -> Option<State> {
        let draft = self.inodes.lock().get(ino)?.draft().cloned()?;
        let state = draft.state().clone();
        (!state.is_clean()).then_some(state)
    }

    /// What a new object of this key gets, beside what is asked for.
    fn default_headers(&self, key: &str) -> ObjectHeaders {
        let cache_control = self.writer.as_ref().and_then(|writer| writer.options.cache_control.clone());
        ObjectHeaders { content_type: content_type(key), cache_control, ..ObjectHeaders::default() }
    }

    fn default_type(&self, ino: u64) -> Option<String> {
        let key = self.inodes.lock().key(ino)?;
        content_type(&key).or_else(|| Some(UNTYPED.to_owned()))
    }

    fn default_cache_control(&self) -> String {
        let chosen = self.writer.as_ref().and_then(|writer| writer.options.cache_control.clone());
        chosen.unwrap_or_else(|| "no-cache".to_owned())
    }

    fn last_error(&self, ino: u64) -> Option<Arc<str>> {
        let key = self.inodes.lock().key(ino)?;
        self.refusals.lock().get(key.as_str()).cloned()
    }

    /// A header that was changed here and is not in the bucket yet: what it is to be. `Some(None)`: nothing.
    #[expect(clippy::option_option, reason = "removed is not the same as unchanged")]
    fn changed_header(&self, ino: u64, name: &str) -> Option<Option<String>> {
        let draft = self.inodes.lock().get(ino)?.draft().cloned()?;
        let state = draft.state();
        let changed = match name {
            "content-type" => state.changes.content_type.clone().map(Some),
            "cache-control" => state.changes.cache_control.clone().map(Some),
            _ => state.changes.metadata.get(&name.strip_prefix(METADATA)?.to_ascii_lowercase()).cloned(),
        };
        let is_new = state.expected.is_none();
        let default = || {
            let defaults = self.default_headers(state.key.as_deref().unwrap_or_default());
            match name {
                "content-type" => defaults.content_type,
                "cache-control" => defaults.cache_control,
                _ => None,
            }
        };
        // There is no object to ask about a file that is not in the bucket.
        changed.or_else(|| is_new.then(default))
    }

    fn target(&self, ino: u64) -> Result<Target, FsError> {
        self.admit()?;
        let inodes = self.inodes.lock();
        let inode = inodes.get(ino).ok_or(ErrorKind::Stale)?;
        let version = inode.file().map(|file| file.version.clone());
        Ok(Target { key: inodes.key(ino).ok_or(ErrorKind::Stale)?, version })
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
    /// `Exists`, `NoAttribute`, `Invalid` for a value that no header can hold and for a Content-Type that is none,
    /// `NotPermitted` for names that stand for nothing.
    pub async fn setxattr(
        &self,
        ino: u64,
        name: &[u8],
        value: Option<&[u8]>,
        flags: i32,
    ) -> Result<(), FsError> {
        self.writer()?;
        if !name.starts_with(b"user.") {
            return Err(ErrorKind::NotSupported.into());
        }
        let short = std::str::from_utf8(name).ok().and_then(|name| name.strip_prefix(NAMESPACE));
        // Attributes of other kinds have no place in an object's headers.
        let short = short.ok_or(ErrorKind::NotSupported)?.to_owned();
        // Tools that copy attributes (rsync -X, cp --preserve=xattr) bring along, or take away, also what only tells
        // what is: that is no failure of the copy.
        if READ_ONLY.contains(&short.as_str()) {
            return Ok(());
        }
        let is_settable = matches!(short.as_str(), "content-type" | "cache-control")
            || short.strip_prefix(METADATA).is_some_and(|entry| !entry.is_empty());
        if !is_settable {
            return Err(ErrorKind::NotPermitted.into());
        }
        if !short.bytes().all(is_token) {
            return Err(ErrorKind::Invalid.into());
        }
        let value = match value {
            Some(value) if !is_header_value(value) || value.len() > LONGEST_VALUE => {
                return Err(ErrorKind::Invalid.into());
            }
            Some(value) => Some(String::from_utf8_lossy(value).into_owned()),
            None => None,
        };
        if short == "content-type" && value.as_deref().is_some_and(|value| !is_media_type(value)) {
            return Err(ErrorKind::Invalid.into());
        }
        let current = match self.getxattr(ino, name).await {
            Ok(current) => Some(current),
            Err(error) if error.kind == ErrorKind::NoAttribute => None,
            Err(error) => return Err(error),
        };
        match (&value, current.is_some()) {
            (None, false) => return Err(ErrorKind::NoAttribute.into()),
            (Some(_), true) if flags & libc::XATTR_CREATE != 0 => return Err(ErrorKind::Exists.into()),
            (Some(_), false) if flags & libc::XATTR_REPLACE != 0 => return Err(ErrorKind::NoAttribute.into()),
            _ => {}
        }
        // An object always has these two: removing one gives the default back.
        let value = value.or_else(|| match short.as_str() {
            "content-type" => self.default_type(ino),
            "cache-control" => Some(self.default_cache_control()),
            _ => None,
        });
        if value.as_ref().map(String::as_bytes) == current.as_deref() {
            return Ok(());
        }
        let _held = self.hold(ino);
        let draft = self.draft_of(ino)?;
        {
            let _changing = self.change(ino, &draft).await;
            let mut state = draft.state();
            match short.as_str() {
                "content-type" => state.changes.content_type = value,
                "cache-control" => state.changes.cache_control = value,
                entry => {
                    let entry = entry[METADATA.len()..].to_ascii_lowercase();
                    state.changes.metadata.insert(entry, value);
                }
            }
            state.generation += 1;
        }
        self.settle(ino, &draft)
    }
}

/// The names under which headers are shown.
fn header_names(headers: &ObjectHeaders) -> Vec<String> {
    let fixed = [("content-type", &headers.content_type), ("cache-control", &headers.cache_control)];
    let fixed = fixed.into_iter().filter(|(_, value)| value.is_some()).map(|(name, _)| name.to_owned());
    fixed.chain(headers.metadata.keys().map(|name| format!("{METADATA}{name}"))).collect()
}
