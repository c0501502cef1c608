//! Receives a body piece by piece and becomes a content: in memory, or in a temporary file below the data
//! directory. Dropped unfinished, it leaves nothing.

use std::fs::File;
use std::io::Write as _;
use std::sync::{Arc, LazyLock};

use bytes::{Bytes, BytesMut};
use md5::{Digest as _, Md5};

use super::Store;
use super::content::{Content, FileRef};
use super::etag;
use crate::error::S3Result;

/// Memory is taken in blocks of this size, so that a large body is never moved when it grows.
const BLOCK: usize = 8 * 1024 * 1024;

/// Smaller bodies are kept as they are.
const LEAST: usize = 64 * 1024;

/// A body on its way in.
pub struct Sink {
    /// Absent where `ETag`s are to cost nothing.
    md5: Option<Md5>,
    size: u64,
    to: Target,
}

enum Target {
    Memory { full: Vec<Content>, block: BytesMut },
    Disk { path: Arc<FileRef>, file: File },
}

impl Sink {
    /// `md5`: whether the tag is to be the MD5 of the bytes.
    pub fn new(store: &Store, expected: u64, md5: bool) -> S3Result<Self> {
        let to = if let Some(disk) = store.disk() {
            let (path, file) = disk.temporary()?;
            Target::Disk { path: FileRef::temporary(path), file }
        } else {
            let first = usize::try_from(expected).unwrap_or(BLOCK).min(BLOCK);
            Target::Memory { full: Vec::new(), block: BytesMut::with_capacity(first) }
        };
        Ok(Self { md5: md5.then(Md5::new), size: 0, to })
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// Blocks for the time of a buffered write.
    pub fn write(&mut self, piece: &Bytes) -> S3Result<()> {
        if let Some(md5) = &mut self.md5 {
            md5.update(piece);
        }
        self.size += piece.len() as u64;
        match &mut self.to {
            Target::Memory { full, block } => append(full, block, piece),
            Target::Disk { file, .. } => file.write_all(piece)?,
        }
        Ok(())
    }

    /// The finished content and its tag.
    pub fn finish(self) -> (Content, [u8; 16]) {
        let tag = self.md5.map_or_else(etag::unique, |md5| md5.finalize().into());
        let content = match self.to {
            Target::Memory { mut full, block } => {
                full.push(kept(block));
                Content::join(full)
            }
            Target::Disk { path, .. } => Content::File { file: path, offset: 0, size: self.size },
        };
        (content, tag)
    }
}

/// A block as a content. Zeros, of which sparse files bring many, take up no memory.
fn kept(block: BytesMut) -> Content {
    static ZEROS: LazyLock<Bytes> = LazyLock::new(|| vec![0; BLOCK].into());
    let is_zero = block.len() >= LEAST && block.len() <= BLOCK && block.iter().all(|byte| *byte == 0);
    Content::Memory(if is_zero { ZEROS.slice(..block.len()) } else { block.freeze() })
}

fn append(full: &mut Vec<Content>, block: &mut BytesMut, mut piece: &[u8]) {
    while !piece.is_empty() {
        // A body longer than announced goes on in whole blocks; short ones grow as vectors do.
        let room =
            if block.capacity() >= BLOCK { block.capacity() - block.len() } else { BLOCK - block.len() };
        if room == 0 {
            let done = std::mem::replace(block, BytesMut::with_capacity(BLOCK));
            full.push(kept(done));
            continue;
        }
        let (head, tail) = piece.split_at(room.min(piece.len()));
        block.extend_from_slice(head);
        piece = tail;
    }
}
