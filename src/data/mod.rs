//! File contents: the block cache, the fetches that fill it, and the read-ahead that keeps them coming.
//!
//! The read path: [`Reader::read`] looks into the [`BlockCache`], asks the [`Fetcher`] for what is missing and
//! waits for it; the reader's own window decides how far ahead the fetcher goes. [`Lookahead`] does the same from file to
//! file.

mod cache;
mod exact;
mod fetch;
mod flight;
mod lookahead;
mod pace;
mod reader;

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

pub use cache::BlockCache;
pub use fetch::Fetcher;
pub use lookahead::{Leave, Lookahead};
pub use reader::Reader;

use crate::attrs::Modified;
use crate::etag::ETag;
use crate::store::{ObjectHead, StoreError};

/// The unit of the cache, in bytes.
pub const BLOCK: u64 = 128 * 1024;

/// Immutable bytes: one version of one key. A block of it can be evicted, never stale.
#[derive(Clone)]
pub struct ObjectId {
    pub key: Arc<str>,
    pub etag: ETag,
    pub size: u64,
    /// Not part of the identity, handed back with what is learned.
    pub modified: Modified,
    hash: [u8; 16],
}

impl ObjectId {
    #[must_use]
    pub fn new(key: &str, etag: ETag, size: u64, modified: Modified) -> Self {
        let digest = Sha256::new()
            .chain_update(key.as_bytes())
            .chain_update([0])
            .chain_update(etag.to_string().as_bytes())
            .chain_update(size.to_le_bytes())
            .finalize();
        let hash = digest[..16].try_into().expect("a digest has 32 bytes");
        Self { key: key.into(), etag, size, modified, hash }
    }

    /// How many blocks the object has.
    #[must_use]
    fn blocks(&self) -> u32 {
        u32::try_from(self.size.div_ceil(BLOCK)).unwrap_or(u32::MAX)
    }

    /// The length of a block: all are full but the last.
    fn block_len(&self, block: u32) -> usize {
        let start = u64::from(block) * BLOCK;
        usize::try_from(BLOCK.min(self.size.saturating_sub(start))).unwrap_or(0)
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({}, {} bytes)", self.key, self.etag, self.size)
    }
}

/// Why bytes could not be read.
#[derive(Debug, Clone)]
pub enum ReadError {
    Store(StoreError),
    /// The key now holds another version, described by these headers.
    Changed(Arc<ObjectHead>),
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

#[cfg(test)]
mod tests;
