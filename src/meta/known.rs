//! User metadata that was seen in passing, remembered for one version of one key.
//!
//! A listing carries none, and a stat must not cost a request: so what a GET or HEAD showed is kept here.
//!
//! Lock rank: leaf.

use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::FileVersion;
use crate::store::ObjectHead;

const MTIMES: NonZeroUsize = NonZeroUsize::new(100_000).unwrap();
const HEADS: NonZeroUsize = NonZeroUsize::new(2_000).unwrap();

/// A version of a key, in 16 bytes.
type VersionHash = [u8; 16];

/// What is known of versions beyond their listing.
pub struct Known {
    /// Nanoseconds since the epoch, from the metadata entry `mtime`.
    mtimes: Mutex<LruCache<VersionHash, i64>>,
    heads: Mutex<LruCache<VersionHash, Arc<ObjectHead>>>,
}

impl Known {
    #[must_use]
    pub fn new() -> Self {
        Self { mtimes: Mutex::new(LruCache::new(MTIMES)), heads: Mutex::new(LruCache::new(HEADS)) }
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
        if let Some(mtime) = head.metadata.get("mtime").and_then(|text| parse_mtime(text)) {
            self.mtimes.lock().put(id, mtime);
        }
        let head = Arc::new(head.clone());
        self.heads.lock().put(id, Arc::clone(&head));
        Some(head)
    }

    /// Whether any stored modification time was seen.
    #[must_use]
    pub fn has_mtimes(&self) -> bool {
        !self.mtimes.lock().is_empty()
    }

    /// The modification time that another tool stored with this version, in nanoseconds since the epoch.
    #[must_use]
    pub fn mtime(&self, key: &str, version: &FileVersion) -> Option<i64> {
        self.mtimes.lock().get(&hash(key, version)).copied()
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
        .chain_update(version.modified_ms.to_le_bytes())
        .finalize();
    digest[..16].try_into().expect("a digest has 32 bytes")
}

/// Seconds since the epoch with an optional fraction, as rclone and s3fs write `mtime`.
fn parse_mtime(text: &str) -> Option<i64> {
    let text = text.trim();
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (seconds, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if !fraction.bytes().all(|b| b.is_ascii_digit()) || !seconds.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos: i64 = format!("{fraction:0<9.9}").parse().ok()?;
    let total = seconds.parse::<i64>().ok()?.checked_mul(1_000_000_000)?.checked_add(nanos)?;
    Some(if negative { -total } else { total })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mtime_is_read_as_rclone_and_s3fs_write_it() {
        assert_eq!(parse_mtime("1600000000"), Some(1_600_000_000_000_000_000));
        assert_eq!(parse_mtime("1600000000.123456789"), Some(1_600_000_000_123_456_789));
        assert_eq!(parse_mtime("1600000000.5"), Some(1_600_000_000_500_000_000));
        assert_eq!(parse_mtime("-1.5"), Some(-1_500_000_000));
        for bad in ["", "now", "1e9", "1.x", "+1", "99999999999999999999"] {
            assert_eq!(parse_mtime(bad), None, "{bad}");
        }
    }
}
