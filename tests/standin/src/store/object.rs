//! One version of one object: its row and its bytes. Immutable; an overwrite makes another.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use md5::{Digest as _, Md5};

use super::synthetic::{synthetic_bytes, synthetic_etag};
use crate::clock::{self, Millis};

/// Where the bytes are.
#[derive(Clone, Debug)]
pub enum Content {
    Memory(Bytes),
    /// A file below the data directory that is never changed, only unlinked.
    File {
        path: Arc<PathBuf>,
        size: u64,
    },
    Synthetic {
        seed: u64,
        size: u64,
    },
}

impl Content {
    pub fn size(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File { size, .. } | Self::Synthetic { size, .. } => *size,
        }
    }

    /// Reads a range that must lie inside. Blocking, for `File`.
    pub fn read(&self, offset: u64, len: usize) -> std::io::Result<Bytes> {
        match self {
            Self::Memory(bytes) => {
                let start = usize::try_from(offset).map_err(std::io::Error::other)?;
                Ok(bytes.slice(start..start + len))
            }
            Self::Synthetic { seed, .. } => Ok(synthetic_bytes(*seed, offset, len)),
            Self::File { path, .. } => {
                use std::os::unix::fs::FileExt as _;
                let mut buffer = vec![0; len];
                std::fs::File::open(path.as_path())?.read_exact_at(&mut buffer, offset)?;
                Ok(Bytes::from(buffer))
            }
        }
    }
}

/// User metadata, names in lower case.
pub type Metadata = BTreeMap<String, String>;

/// A row of `storage.objects` and its content.
#[derive(Clone, Debug)]
pub struct Object {
    pub content: Content,
    pub etag: [u8; 16],
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
    pub fn new(content: Content, etag: [u8; 16]) -> Self {
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
        let etag = Md5::digest(&bytes).into();
        Self::new(Content::Memory(bytes), etag)
    }

    pub fn synthetic(size: u64, seed: u64) -> Self {
        Self::new(Content::Synthetic { seed, size }, synthetic_etag(seed, size))
    }

    pub fn size(&self) -> u64 {
        self.content.size()
    }

    /// The `ETag` as headers and listings show it, quotes included.
    pub fn quoted_etag(&self) -> String {
        format!("\"{}\"", hex::encode(self.etag))
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
