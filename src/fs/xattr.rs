//! Extended attributes: what Supabase knows of an object beyond its bytes.
//!
//! `user.supabase.key` and `.etag` are known from the listing; `.content-type`, `.cache-control` and `.meta.<name>`
//! cost one HEAD for a version that was not read before.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{ErrorKind, Fs, FsError};
use crate::meta::FileVersion;
use crate::store::ObjectHead;

const NAMESPACE: &str = "user.supabase.";
const METADATA: &str = "meta.";

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
        if let Some(version) = &target.version {
            names.push("etag".to_owned());
            let is_scan = self.scan.0.fetch_add(1, Ordering::Relaxed) >= LISTS_OF_A_SCAN;
            let head = match self.known.head(&target.key, version) {
                None if !is_scan => Some(self.head(&target.key, version).await?),
                known => known,
            };
            if let Some(head) = head {
                names.extend(head.content_type.iter().map(|_| "content-type".to_owned()));
                names.extend(head.cache_control.iter().map(|_| "cache-control".to_owned()));
                names.extend(head.metadata.keys().map(|name| format!("{METADATA}{name}")));
            }
        }
        Ok(names.iter().flat_map(|name| format!("{NAMESPACE}{name}\0").into_bytes()).collect())
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
}
