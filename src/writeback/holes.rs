//! Holes: stretches of a file that nobody wrote to. They are zeros, and take up no room in the spool.

use std::fs::File;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;

use lru::LruCache;
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use parking_lot::Mutex;

use super::draft::Draft;
use super::plan::MIN_PART;
use super::ranges::Ranges;
use super::record::Base;
use super::state::State;
use crate::etag::ETag;
use crate::size;
use crate::store::{StoreError, StoreErrorKind};

/// What a file of this size holds, without its holes: in blocks of the file system, and the whole file where that knows
/// no holes.
///
/// This moves the position of the file.
pub(super) fn data_of(file: &File, size: u64) -> Ranges {
    let seek = |at: u64, whence| lseek(file, i64::try_from(at).unwrap_or(i64::MAX), whence);
    let mut data = Ranges::new();
    let mut at = 0;
    while at < size {
        let start = match seek(at, Whence::SeekData) {
            Ok(start) => u64::try_from(start).unwrap_or(at),
            // There is no data behind this place.
            Err(Errno::ENXIO) => break,
            Err(_) => return std::iter::once(0..size).collect(),
        };
        let end = seek(start, Whence::SeekHole).map_or(size, |end| u64::try_from(end).unwrap_or(size));
        at = end.max(start + 1);
        data.insert(start..at.min(size));
    }
    data
}

/// Objects that are known to have a long stretch of zeros, from which the server can copy the zeros of a hole.
#[derive(Clone)]
pub(super) struct Zeros(Arc<Mutex<LruCache<String, Stretch>>>);

/// A stretch of zeros in one version of an object.
type Stretch = (ETag, Range<u64>);

impl Default for Zeros {
    fn default() -> Self {
        const OBJECTS: NonZeroUsize = NonZeroUsize::new(256).unwrap();
        Self(Arc::new(Mutex::new(LruCache::new(OBJECTS))))
    }
}

impl Zeros {
    /// An object was stored that holds what this state is of.
    pub fn stored(&self, key: &str, etag: &ETag, state: &State) {
        let longest = state.holes.iter().max_by_key(|hole| hole.end - hole.start);
        match longest.filter(|hole| hole.end - hole.start >= MIN_PART) {
            Some(hole) => drop(self.0.lock().put(key.to_owned(), (etag.clone(), hole))),
            None => drop(self.0.lock().pop(key)),
        }
    }

    /// The longest stretch of zeros of an object, as far as one is known.
    pub fn of(&self, base: &Base) -> Option<Range<u64>> {
        let mut known = self.0.lock();
        let (_, zeros) = known.get(&base.key).filter(|(etag, _)| *etag == base.etag())?;
        Some(zeros.clone())
    }
}

/// Whether bytes are all zero.
pub(super) fn are_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// Refuses a file whose holes are larger than may be sent: every zero of them goes over the network.
///
/// # Errors
/// `TooLarge`, which is also noted as the draft's own error.
pub(super) fn permit(draft: &Draft, most: u64) -> Result<(), StoreError> {
    let mut state = draft.state();
    let Some(key) = state.key.clone() else { return Ok(()) };
    let holes = state.holes_to_send();
    if holes <= most {
        return Ok(());
    }
    let (holes, most) = match (size::shown(holes), size::shown(most)) {
        // What is over by little looks the same.
        (holes_shown, most_shown) if holes_shown == most_shown => {
            (format!("{holes} bytes"), format!("{most} bytes"))
        }
        both => both,
    };
    tracing::error!(%key, holes, "not uploaded: the holes of the file are larger than --max-holes ({most}); raise --max-holes, or write a smaller file");
    let error = StoreError {
        kind: StoreErrorKind::TooLarge,
        operation: "PutObject",
        key,
        status: 0,
        code: String::new(),
        message: format!(
            "the file has holes of {holes}, and --max-holes allows {most}; nothing of it was sent"
        ),
    };
    state.error = Some(error.clone());
    Err(error)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn the_data_of_a_sparse_file_is_found() {
        const MIB: u64 = 1 << 20;
        let file = tempfile::tempfile().expect("a file");
        file.set_len(64 * MIB).expect("grown");
        assert!(data_of(&file, 64 * MIB).is_empty());
        for at in [0, 32 * MIB] {
            file.write_all_at(b"island", at).expect("written");
        }
        let data = data_of(&file, 64 * MIB);
        assert!(data.contains(0..6) && data.contains(32 * MIB..32 * MIB + 6), "{data:?}");
        assert!(data.total() < MIB, "{data:?}");
        file.write_all_at(b"end", 64 * MIB - 3).expect("written");
        let data = data_of(&file, 64 * MIB);
        assert!(data.contains(64 * MIB - 3..64 * MIB) && data.missing(0..64 * MIB) > 60 * MIB, "{data:?}");
    }
}
