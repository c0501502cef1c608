//! Small reads at random places: what is read is fetched, not the whole block around it, which would take a distant
//! server, or a connection that has rested, several times as long.
//!
//! Pieces are cached beside the blocks. A second place in the same block shows that more of it is wanted: then the
//! block is fetched whole, so that neighbours are merged into one request.
//!
//! Lock rank: `underway` is a leaf, never held across an await.

use std::collections::HashMap;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use super::flight::fetch_range;
use super::{BLOCK, Fetcher, ObjectId, ReadError};
use crate::single_flight::SingleFlight;

/// The unit, in bytes.
const PIECE: u64 = 16 << 10;
const PIECES: u8 = 8;
const _: () = assert!(PIECE * PIECES as u64 == BLOCK);
/// Longer reads are served by blocks.
const LONGEST: u64 = 64 << 10;

type Place = ([u8; 16], u32);

/// The small requests under way.
#[derive(Default)]
pub(super) struct Exact {
    underway: Mutex<HashMap<Place, Range<u8>>>,
    flights: SingleFlight<(Place, u8, u8), Result<Bytes, ReadError>>,
}

/// Keeps a place marked as long as its request is under way.
struct Underway<'a> {
    exact: &'a Exact,
    place: Place,
    is_first: bool,
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        if self.is_first {
            self.exact.underway.lock().remove(&self.place);
        }
    }
}

impl Exact {
    /// `None`: another part of the same block is on its way.
    fn enter(&self, place: Place, pieces: &Range<u8>) -> Option<Underway<'_>> {
        let mut underway = self.underway.lock();
        let is_first = match underway.get(&place) {
            Some(other) if other != pieces => return None,
            Some(_) => false,
            None => underway.insert(place, pieces.clone()).is_none(),
        };
        Some(Underway { exact: self, place, is_first })
    }
}

/// Whether a read is small enough.
pub(super) fn is_small(start: u64, end: u64) -> bool {
    end - start <= LONGEST && start / BLOCK == (end - 1) / BLOCK
}

impl Fetcher {
    /// The bytes of a small read, if it is [small](is_small) and alone: `None` where the block is there or on its way,
    /// or has become worth having.
    pub(super) async fn exact(
        &self,
        object: &ObjectId,
        read: Range<u64>,
    ) -> Option<Result<Bytes, ReadError>> {
        let block = u32::try_from(read.start / BLOCK).ok()?;
        if self.is_coming(object, &(block..block + 1)) {
            return None;
        }
        let base = u64::from(block) * BLOCK;
        let piece = |offset: u64| u8::try_from((offset - base) / PIECE).unwrap_or(PIECES);
        let pieces = piece(read.start)..piece(read.end - 1) + 1;
        let from_piece = usize::try_from((read.start - base) % PIECE).unwrap_or(0);
        let wanted = from_piece..from_piece + usize::try_from(read.end - read.start).unwrap_or(0);
        if let Some(bytes) = self.pieces(object, block, &pieces) {
            self.shared.stats.read_hits.add(1);
            return Some(Ok(bytes.slice(wanted)));
        }
        if (0..PIECES).any(|piece| self.shared.cache.piece(object, block, piece).is_some()) {
            return None;
        }
        let place = (object.hash, block);
        let _underway = self.exact.enter(place, &pieces)?;
        self.shared.stats.read_misses.add(1);
        let (shared, of) = (self.shared.clone(), object.clone());
        let range =
            base + u64::from(pieces.start) * PIECE..(base + u64::from(pieces.end) * PIECE).min(object.size);
        let fetch = move || async move { fetch_range(&shared, &of, range).await };
        let fetched = self.exact.flights.run((place, pieces.start, pieces.end), fetch).await;
        Some(fetched.map(|bytes| {
            self.keep_pieces(object, block, pieces.start, &bytes);
            bytes.slice(wanted)
        }))
    }

    fn pieces(&self, object: &ObjectId, block: u32, pieces: &Range<u8>) -> Option<Bytes> {
        let mut found = pieces.clone().map(|piece| self.shared.cache.piece(object, block, piece));
        let first = found.next()??;
        if pieces.len() == 1 {
            return Some(first);
        }
        let mut bytes = BytesMut::from(&first[..]);
        for piece in found {
            bytes.extend_from_slice(&piece?);
        }
        Some(bytes.freeze())
    }

    fn keep_pieces(&self, object: &ObjectId, block: u32, first: u8, bytes: &Bytes) {
        let length = usize::try_from(PIECE).unwrap_or(usize::MAX);
        for (piece, bytes) in (first..).zip(bytes.chunks(length)) {
            // A copy: a slice would keep all of the answer in memory as long as any piece of it is.
            self.shared.cache.put_piece(object, block, piece, Bytes::copy_from_slice(bytes));
        }
    }
}
