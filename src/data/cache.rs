//! The block cache: least recently used blocks leave when the budget is reached.
//!
//! It fills what the others leave of the mount's budget.
//!
//! The buffers of blocks that leave are used again, so that a long read does not fault in its size in new memory.
//!
//! Lock rank: leaf.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use lru::LruCache;
use parking_lot::Mutex;

use super::{BLOCK, ObjectId};
use crate::budget::Budget;

/// What an entry costs beside its bytes: list node, hash slot, allocation header.
const OVERHEAD: u64 = 160;

/// Buffers that are kept for the next blocks: a thirty-second of the budget, up to 4 MiB.
const SPARE: u64 = 32;

/// Object, block, and 0 for the whole of it, else which piece of it, from 1 on.
type BlockKey = ([u8; 16], u32, u8);

struct Blocks {
    lru: LruCache<BlockKey, Bytes>,
    bytes: u64,
    spare: Vec<BytesMut>,
}

/// See the module.
pub struct BlockCache {
    blocks: Mutex<Blocks>,
    budget: Arc<Budget>,
    spare: usize,
}

impl BlockCache {
    #[must_use]
    pub fn new(budget: Arc<Budget>) -> Self {
        let spare = usize::try_from((budget.total() / 32 / BLOCK).min(SPARE)).unwrap_or(0);
        let blocks = Blocks { lru: LruCache::unbounded(), bytes: 0, spare: Vec::with_capacity(spare) };
        Self { blocks: Mutex::new(blocks), budget, spare }
    }

    /// What blocks and pieces may take now.
    fn limit(&self) -> u64 {
        self.budget.left().saturating_sub(self.spare as u64 * BLOCK)
    }

    fn insert(&self, key: BlockKey, bytes: Bytes) {
        let limit = self.limit();
        let mut blocks = self.blocks.lock();
        blocks.bytes += bytes.len() as u64 + OVERHEAD;
        if let Some(old) = blocks.lru.put(key, bytes) {
            blocks.release(old, self.spare);
        }
        while blocks.bytes > limit {
            let Some((_, evicted)) = blocks.lru.pop_lru() else { break };
            blocks.release(evicted, self.spare);
        }
    }

    #[must_use]
    pub fn get(&self, object: &ObjectId, block: u32) -> Option<Bytes> {
        self.blocks.lock().lru.get(&(object.hash, block, 0)).cloned()
    }

    #[must_use]
    pub(super) fn contains(&self, object: &ObjectId, block: u32) -> bool {
        self.blocks.lock().lru.contains(&(object.hash, block, 0))
    }

    pub(super) fn put(&self, object: &ObjectId, block: u32, bytes: Bytes) {
        self.insert((object.hash, block, 0), bytes);
    }

    /// A part of a block that was fetched alone.
    pub(super) fn piece(&self, object: &ObjectId, block: u32, piece: u8) -> Option<Bytes> {
        self.blocks.lock().lru.get(&(object.hash, block, piece + 1)).cloned()
    }

    pub(super) fn put_piece(&self, object: &ObjectId, block: u32, piece: u8, bytes: Bytes) {
        self.insert((object.hash, block, piece + 1), bytes);
    }

    /// Drops a block that will not be asked for again.
    pub(super) fn forget(&self, object: &ObjectId, block: u32) {
        let mut blocks = self.blocks.lock();
        if let Some(bytes) = blocks.lru.pop(&(object.hash, block, 0)) {
            blocks.release(bytes, self.spare);
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        let mut blocks = self.blocks.lock();
        blocks.lru.clear();
        blocks.bytes = 0;
    }

    /// Whether an object of this size would drive out most else, and itself before it is read again.
    #[must_use]
    pub(super) fn is_too_large(&self, size: u64) -> bool {
        size > self.limit() / 2
    }

    /// What one of so many readers may have fetched and not read, so that they do not drive out each other's.
    pub(super) fn share(&self, readers: u64) -> u64 {
        self.limit() / 2 / readers.max(1)
    }

    /// An empty buffer for a block.
    pub(super) fn buffer(&self, length: usize) -> BytesMut {
        // A short block in a full-sized buffer would take more than it is counted for.
        let is_full = length as u64 == BLOCK;
        let spare = is_full.then(|| self.blocks.lock().spare.pop()).flatten();
        spare.unwrap_or_else(|| BytesMut::with_capacity(length))
    }

    /// Bytes held, overhead included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.blocks.lock().bytes
    }
}

impl Blocks {
    fn release(&mut self, bytes: Bytes, spare: usize) {
        self.bytes -= bytes.len() as u64 + OVERHEAD;
        if self.spare.len() < spare
            && bytes.len() as u64 == BLOCK
            // Nobody else reads it.
            && let Ok(mut buffer) = bytes.try_into_mut()
        {
            buffer.clear();
            self.spare.push(buffer);
        }
    }
}
