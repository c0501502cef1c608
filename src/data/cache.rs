//! The block cache: least recently used blocks leave when the budget is reached.
//!
//! Lock rank: leaf.

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;

use super::ObjectId;

/// What an entry costs beside its bytes: list node, hash slot, allocation header.
const OVERHEAD: u64 = 160;

type BlockKey = ([u8; 16], u32);

struct Blocks {
    lru: LruCache<BlockKey, Bytes>,
    bytes: u64,
}

/// See the module.
pub struct BlockCache {
    blocks: Mutex<Blocks>,
    budget: u64,
}

impl BlockCache {
    /// A cache of at most `budget` bytes.
    #[must_use]
    pub fn new(budget: u64) -> Self {
        Self { blocks: Mutex::new(Blocks { lru: LruCache::unbounded(), bytes: 0 }), budget }
    }

    #[must_use]
    pub fn get(&self, object: &ObjectId, block: u32) -> Option<Bytes> {
        self.blocks.lock().lru.get(&(object.hash, block)).cloned()
    }

    #[must_use]
    pub(super) fn contains(&self, object: &ObjectId, block: u32) -> bool {
        self.blocks.lock().lru.contains(&(object.hash, block))
    }

    pub(super) fn put(&self, object: &ObjectId, block: u32, bytes: Bytes) {
        let mut blocks = self.blocks.lock();
        blocks.bytes += bytes.len() as u64 + OVERHEAD;
        if let Some(old) = blocks.lru.put((object.hash, block), bytes) {
            blocks.bytes -= old.len() as u64 + OVERHEAD;
        }
        while blocks.bytes > self.budget {
            let Some((_, evicted)) = blocks.lru.pop_lru() else { break };
            blocks.bytes -= evicted.len() as u64 + OVERHEAD;
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        let mut blocks = self.blocks.lock();
        blocks.lru.clear();
        blocks.bytes = 0;
    }

    /// Bytes held, overhead included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.blocks.lock().bytes
    }
}
