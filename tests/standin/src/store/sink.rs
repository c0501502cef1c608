//! Receives a body piece by piece and becomes the content of a version: in memory, or in a temporary
//! file below the data directory. Dropped unfinished, it leaves nothing.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use md5::{Digest as _, Md5};

use super::Store;
use super::object::{Content, Object};
use crate::error::S3Result;

/// Most that is reserved on the word of a Content-Length.
const MAX_RESERVE: u64 = 64 * 1024 * 1024;

/// A body on its way in.
pub struct Sink {
    md5: Md5,
    size: u64,
    to: Target,
}

enum Target {
    Memory(BytesMut),
    Disk { path: PathBuf, file: File, armed: bool },
}

impl Sink {
    pub fn new(store: &Store, expected: u64) -> S3Result<Self> {
        let to = if let Some(disk) = store.disk() {
            let (path, file) = disk.temporary()?;
            Target::Disk { path, file, armed: true }
        } else {
            let reserve = usize::try_from(expected.min(MAX_RESERVE)).unwrap_or(0);
            Target::Memory(BytesMut::with_capacity(reserve))
        };
        Ok(Self { md5: Md5::new(), size: 0, to })
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// Blocks for the time of a buffered write.
    pub fn write(&mut self, piece: &Bytes) -> S3Result<()> {
        self.md5.update(piece);
        self.size += piece.len() as u64;
        match &mut self.to {
            Target::Memory(buffer) => buffer.extend_from_slice(piece),
            Target::Disk { file, .. } => file.write_all(piece)?,
        }
        Ok(())
    }

    /// The finished version, not yet committed.
    pub fn finish(mut self) -> Object {
        let etag = std::mem::take(&mut self.md5).finalize().into();
        let content = match &mut self.to {
            Target::Memory(buffer) => Content::Memory(std::mem::take(buffer).freeze()),
            Target::Disk { path, armed, .. } => {
                *armed = false;
                Content::File { path: Arc::new(path.clone()), size: self.size }
            }
        };
        Object::new(content, etag)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Self::Disk { path, armed: true, .. } = self {
            // A leftover is removed at the next start.
            let _ = std::fs::remove_file(path);
        }
    }
}
