//! Small files that were uploaded stay in the block cache: to read them back, or to change them once more, fetches
//! nothing.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use bytes::Bytes;

use super::write::object_of;
use crate::data::{BLOCK, Fetcher, ObjectId};
use crate::etag::ETag;
use crate::meta::FileVersion;
use crate::writeback::{Base, Contents};

/// Larger files would drive out of the cache what is read again more often.
const LARGEST: u64 = 2 << 20;

/// The server has copied an object: what is in memory of it is in memory of its copy.
pub(super) fn moved(
    fetcher: &Fetcher,
    (source, version): (&str, &FileVersion),
    (target, etag): (&str, &ETag),
) {
    if version.size > LARGEST {
        return;
    }
    let from = ObjectId::new(source, version.etag.clone(), version.size, version.modified);
    let to = ObjectId::new(target, etag.clone(), version.size, version.modified);
    for number in 0..blocks(version.size) {
        if let Some(bytes) = fetcher.cached(&from, number) {
            fetcher.keep(&to, number, bytes);
        }
    }
}

fn blocks(size: u64) -> u32 {
    u32::try_from(size.div_ceil(BLOCK)).unwrap_or(0)
}

pub(super) struct Cached(pub Fetcher);

impl Contents for Cached {
    fn stored(&self, base: &Base, file: &File) {
        if base.size > LARGEST {
            return;
        }
        let object = object_of(base);
        for number in 0..blocks(base.size) {
            let start = u64::from(number) * BLOCK;
            let mut block = vec![0; usize::try_from(BLOCK.min(base.size - start)).unwrap_or(0)];
            if let Err(error) = file.read_exact_at(&mut block, start) {
                return tracing::debug!(%error, "what was uploaded is not kept in memory");
            }
            self.0.keep(&object, number, block.into());
        }
    }

    fn cached(&self, base: &Base, range: Range<u64>) -> Option<Vec<Bytes>> {
        if base.size > LARGEST {
            return None;
        }
        let object = object_of(base);
        let mut pieces = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let number = u32::try_from(at / BLOCK).ok()?;
            let block = self.0.cached(&object, number)?;
            let first = u64::from(number) * BLOCK;
            let end = range.end.min(first + block.len() as u64);
            let piece = usize::try_from(at - first).ok()?..usize::try_from(end.checked_sub(first)?).ok()?;
            if piece.is_empty() {
                return None;
            }
            pieces.push(block.slice(piece));
            at = end;
        }
        Some(pieces)
    }
}
