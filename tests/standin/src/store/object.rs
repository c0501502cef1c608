//! One version of one object: its row and its bytes. Immutable; an overwrite makes another.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use md5::{Digest as _, Md5};

use super::content::Content;
use super::etag::Etag;
use super::synthetic::synthetic_etag;
use crate::clock::{self, Millis};

/// User metadata, names in lower case.
pub type Metadata = BTreeMap<String, String>;

/// A row of `storage.objects` and its content.
#[derive(Clone, Debug)]
pub struct Object {
    pub content: Content,
    pub etag: Etag,
    /// Absent after a REPLACE copy without one.
    pub content_type: Option<Arc<str>>,
    pub cache_control: Option<Arc<str>>,
    pub metadata: Option<Arc<Metadata>>,
    /// `sub` of the last uploader.
    pub owner: Option<Arc<str>>,
    pub created_at: Millis,
    pub updated_at: Millis,
    /// Identity of the version on disk; 0 in memory.
    pub version: u64,
}

impl Object {
    /// An object as PUT stores it without any header.
    pub fn new(content: Content, etag: Etag) -> Self {
        let now = clock::now();
        Self {
            content,
            etag,
            content_type: Some(default_type()),
            cache_control: Some(default_cache()),
            metadata: None,
            owner: None,
            created_at: now,
            updated_at: now,
            version: 0,
        }
    }

    pub fn from_bytes(bytes: Bytes) -> Self {
        let etag = Etag::plain(Md5::digest(&bytes).into());
        Self::new(Content::Memory(bytes), etag)
    }

    pub fn synthetic(size: u64, seed: u64) -> Self {
        Self::new(Content::Synthetic { seed, offset: 0, size }, Etag::plain(synthetic_etag(seed, size)))
    }

    pub fn size(&self) -> u64 {
        self.content.size()
    }

    /// The `ETag` as headers and listings show it, quotes included.
    pub fn quoted_etag(&self) -> String {
        self.etag.quoted()
    }
}

/// `application/octet-stream`, shared by a million rows.
pub fn default_type() -> Arc<str> {
    static SHARED: std::sync::OnceLock<Arc<str>> = std::sync::OnceLock::new();
    Arc::clone(SHARED.get_or_init(|| Arc::from("application/octet-stream")))
}

/// `no-cache`, likewise.
pub fn default_cache() -> Arc<str> {
    static SHARED: std::sync::OnceLock<Arc<str>> = std::sync::OnceLock::new();
    Arc::clone(SHARED.get_or_init(|| Arc::from("no-cache")))
}
