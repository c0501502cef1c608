//! Extended attributes: what Supabase knows of an object beyond its bytes.
//!
//! `user.supabase.key` and `.etag` are known from the listing; `.content-type`, `.cache-control` and `.meta.<name>`
//! cost one HEAD for a version that was not read before.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{ErrorKind, Fs, FsError};
use crate::etag::ETag;
use crate::meta::FileVersion;
use crate::store::ObjectHead;

const NAMESPACE: &str = "user.supabase.";
const METADATA: &str = "meta.";

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
            if version.etag == ETag::none() {
                return Err(ErrorKind::NoAttribute.into());
            }
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
            _ => head.metadata.get(&name[METADATA.len()..]),
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
        if let Some(version) = &target.version {
            let is_scan = self.scan.0.fetch_add(1, Ordering::Relaxed) >= LISTS_OF_A_SCAN;
            let changed = self.changed_names(ino);
            // There is no object to ask about a file that is not in the bucket.
            let is_stored = version.etag != ETag::none();
            let head = match self.known.head(&target.key, version) {
                None if is_stored && !is_scan => Some(self.head(&target.key, version).await?),
                known => known,
            };
            let mut headers = BTreeSet::new();
            if let Some(head) = head {
                headers.extend(head.content_type.iter().map(|_| "content-type".to_owned()));
                headers.extend(head.cache_control.iter().map(|_| "cache-control".to_owned()));
                headers.extend(head.metadata.keys().map(|name| format!("{METADATA}{name}")));
            }
            for (name, is_set) in changed {
                if is_set {
                    headers.insert(name)
                } else {
                    headers.remove(&name)
                };
            }
            names.extend(is_stored.then(|| "etag".to_owned()));
            names.extend(headers);
        }
        Ok(names.iter().flat_map(|name| format!("{NAMESPACE}{name}\0").into_bytes()).collect())
    }

    fn last_error(&self, ino: u64) -> Option<Arc<str>> {
        self.inodes.lock().get(ino)?.extra()?.last_error.clone()
    }

    /// The headers that were changed here and are not in the bucket yet, and whether they are to be there.
    fn changed_names(&self, ino: u64) -> Vec<(String, bool)> {
        let draft = self.inodes.lock().get(ino).and_then(|inode| inode.draft().cloned());
        let Some(draft) = draft else { return vec![] };
        let state = draft.state();
        let metadata = state.changes.metadata.iter();
        let mut names: Vec<String> = metadata.map(|(name, _)| format!("{METADATA}{name}")).collect();
        names.extend(["content-type", "cache-control"].map(ToOwned::to_owned));
        drop(state);
        names
            .into_iter()
            .filter_map(|name| self.changed_header(ino, &name).map(|value| (name, value.is_some())))
            .collect()
    }

    /// A header that was changed here and is not in the bucket yet: what it is to be. `Some(None)`: nothing.
    fn changed_header(&self, ino: u64, name: &str) -> Option<Option<String>> {
        let draft = self.inodes.lock().get(ino)?.draft().cloned()?;
        let state = draft.state();
        let changed = match name {
            "content-type" => state.changes.content_type.clone().map(Some),
            "cache-control" => state.changes.cache_control.clone().map(Some),
            _ => state.changes.metadata.get(name.strip_prefix(METADATA)?).cloned(),
        };
        let is_new = state.expected.is_none();
        let default = || match name {
            "content-type" => super::save::content_type(state.key.as_deref().unwrap_or_default()),
            _ => None,
        };
        // There is no object to ask about a file that is not in the bucket.
        changed.or_else(|| is_new.then(default))
    }

    fn target(&self, ino: u64) -> Result<Target, FsError> {
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
    /// `Exists`, `NoAttribute`, `Invalid` for a value that no header can hold, `NotPermitted` for the names that tell
    /// what is.
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
        let is_settable = matches!(short.as_str(), "content-type" | "cache-control")
            || short.strip_prefix(METADATA).is_some_and(|entry| !entry.is_empty());
        if !is_settable {
            return Err(ErrorKind::NotPermitted.into());
        }
        let is_header = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
        let value = match value {
            Some(value) if !value.iter().all(is_header) || value.len() > LONGEST_VALUE => {
                return Err(ErrorKind::Invalid.into());
            }
            Some(value) => Some(String::from_utf8_lossy(value).into_owned()),
            None => None,
        };
        let exists = match self.getxattr(ino, name).await {
            Ok(_) => true,
            Err(error) if error.kind == ErrorKind::NoAttribute => false,
            Err(error) => return Err(error),
        };
        match (&value, exists) {
            (None, false) => return Err(ErrorKind::NoAttribute.into()),
            (Some(_), true) if flags & libc::XATTR_CREATE != 0 => return Err(ErrorKind::Exists.into()),
            (Some(_), false) if flags & libc::XATTR_REPLACE != 0 => return Err(ErrorKind::NoAttribute.into()),
            _ => {}
        }
        let draft = self.draft_of(ino)?;
        {
            let _changing = draft.changing().await;
            let mut state = draft.state();
            match short.as_str() {
                "content-type" => {
                    state.changes.content_type = value.or_else(|| Some("application/octet-stream".to_owned()))
                }
                "cache-control" => {
                    state.changes.cache_control = value.or_else(|| Some("no-cache".to_owned()))
                }
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
