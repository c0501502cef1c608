//! What is known of versions beyond their listing, which carries no user metadata, and a stat must not cost a request.
//!
//! Times, mode and owner are remembered per key in a small database in the state directory, so that they survive a
//! remount; whole sets of headers for a few versions, in memory. What was written here is bound to its listed time by
//! the first listing that shows it: the server does not tell it before.
//!
//! Lock rank: leaf.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::FileVersion;
use super::memory::{Memory, Remembered};
use crate::attrs::Attrs;
use crate::etag::ETag;
use crate::store::{ObjectHead, ObjectHeaders};

const HEADS: NonZeroUsize = NonZeroUsize::new(2_000).unwrap();

/// A version of a key, in 16 bytes.
type VersionHash = [u8; 16];

/// See the module.
pub struct Known {
    memory: Memory,
    heads: Mutex<LruCache<VersionHash, Arc<ObjectHead>>>,
}

impl Known {
    /// Remembers until the end of the mount.
    #[must_use]
    pub fn new() -> Self {
        Self { memory: Memory::new(), heads: Mutex::new(LruCache::new(HEADS)) }
    }

    /// Remembers beyond the end of the mount, in a file; without it where that cannot be.
    #[must_use]
    pub fn open(file: &Path) -> Self {
        Self { memory: Memory::open(file), ..Self::new() }
    }

    /// Remembers the headers of an answer, if it is of the listed version.
    pub fn learn(&self, key: &str, version: &FileVersion, head: &ObjectHead) -> Option<Arc<ObjectHead>> {
        if head.etag != version.etag || head.size != version.size {
            return None;
        }
        let id = hash(key, version);
        if let Some(known) = self.heads.lock().get(&id) {
            return Some(Arc::clone(known));
        }
        let attrs = Attrs::from_metadata(&head.metadata);
        // Of a version that is not listed yet, what was noted when it was written counts.
        let is_noted = || self.memory.get(key).is_some_and(|noted| noted.is_of(&version.etag));
        if !attrs.is_empty() && (version.modified.is_listed || !is_noted()) {
            let listed_ms = version.modified.is_listed.then_some(version.modified.ms);
            self.memory.set(key, &Remembered::new(&version.etag, listed_ms, attrs));
        }
        let head = Arc::new(head.clone());
        self.heads.lock().put(id, Arc::clone(&head));
        Some(head)
    }

    /// A version was written here; its listed time is not known yet.
    pub fn wrote(&self, key: &str, version: &FileVersion, attrs: Attrs, headers: &ObjectHeaders) {
        self.memory.set(key, &Remembered::new(&version.etag, None, attrs));
        let head = ObjectHead {
            size: version.size,
            etag: version.etag.clone(),
            modified: None,
            content_type: headers.content_type.clone(),
            cache_control: headers.cache_control.clone(),
            metadata: headers.metadata.clone(),
        };
        self.heads.lock().put(hash(key, version), Arc::new(head));
    }

    /// Whether anything is remembered at all.
    #[must_use]
    pub fn has_attrs(&self) -> bool {
        !self.memory.is_empty()
    }

    /// What was stored with this version.
    #[must_use]
    pub fn attrs(&self, key: &str, version: &FileVersion) -> Option<Attrs> {
        let remembered = self.memory.get(key)?;
        if !remembered.is_of(&version.etag) {
            return None;
        }
        if version.modified.is_listed {
            let listed_ms = Some(version.modified.ms);
            match remembered.modified_ms {
                None => self.memory.set(key, &Remembered { modified_ms: listed_ms, ..remembered }),
                bound if bound != listed_ms => return None,
                _ => {}
            }
        }
        Some(remembered.attrs)
    }

    /// What was set for a directory, whose key ends in `/`.
    #[must_use]
    pub fn directory(&self, key: &str) -> Option<Attrs> {
        self.memory.get(key).map(|remembered| remembered.attrs)
    }

    pub fn set_directory(&self, key: &str, attrs: Attrs) {
        self.memory.set(key, &Remembered::new(&ETag::none(), None, attrs));
    }

    /// A directory has another key.
    pub fn moved_directory(&self, from: &str, to: &str) {
        if let Some(attrs) = self.directory(from) {
            self.set_directory(to, attrs);
            self.forget(from);
        }
    }

    pub fn forget(&self, key: &str) {
        if self.has_attrs() {
            self.memory.remove(key);
        }
    }

    /// A version was copied here under another key, where it has this tag: it keeps its attributes, also the time
    /// that the server alone knew.
    pub fn copied(&self, from: &str, version: &FileVersion, to: &str, etag: &ETag) {
        let mut attrs = self.attrs(from, version).unwrap_or_default();
        attrs.mtime = attrs.mtime.or(Some(version.modified.nanos()));
        self.memory.set(to, &Remembered::new(etag, None, attrs));
    }

    /// Writes what is not on disk yet.
    pub fn flush(&self) {
        self.memory.flush();
    }

    /// The headers of this version, if they were seen.
    #[must_use]
    pub fn head(&self, key: &str, version: &FileVersion) -> Option<Arc<ObjectHead>> {
        self.heads.lock().get(&hash(key, version)).cloned()
    }
}

impl Default for Known {
    fn default() -> Self {
        Self::new()
    }
}

fn hash(key: &str, version: &FileVersion) -> VersionHash {
    let digest = Sha256::new()
        .chain_update(key.as_bytes())
        .chain_update([0])
        .chain_update(version.etag.to_string().as_bytes())
        .chain_update(version.modified.ms.to_le_bytes())
        .finalize();
    digest[..16].try_into().expect("a digest has 32 bytes")
}
