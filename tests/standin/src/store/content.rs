//! Where bytes are: slices of immutable pieces (memory, files, computed), and ropes of them. Slicing and
//! joining copy nothing, so copies of parts cost the same whatever their size.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::synthetic::{fill_synthetic, synthetic_bytes};

/// A file below the data directory that is never changed, only unlinked.
#[derive(Debug)]
pub struct FileRef {
    path: PathBuf,
    /// Goes with the last reference. Harmless after the file was moved to where it stays.
    temporary: bool,
}

impl FileRef {
    pub fn kept(path: PathBuf) -> Arc<Self> {
        Arc::new(Self { path, temporary: false })
    }

    pub fn temporary(path: PathBuf) -> Arc<Self> {
        Arc::new(Self { path, temporary: true })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for FileRef {
    fn drop(&mut self) {
        if self.temporary {
            // A leftover is removed at the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Immutable bytes.
#[derive(Clone, Debug)]
pub enum Content {
    Memory(Bytes),
    File {
        file: Arc<FileRef>,
        offset: u64,
        size: u64,
    },
    /// Bytes of `synthetic_bytes(seed, …)` from `offset` on.
    Synthetic {
        seed: u64,
        offset: u64,
        size: u64,
    },
    Rope(Arc<Rope>),
}

/// Pieces one after the other; never empty ones, and never ropes.
#[derive(Debug)]
pub struct Rope {
    /// Each with the offset at which it ends.
    pieces: Vec<(u64, Content)>,
}

impl Rope {
    pub fn size(&self) -> u64 {
        self.pieces.last().map_or(0, |(end, _)| *end)
    }

    /// The piece at an offset inside, and where it begins.
    pub fn at(&self, offset: u64) -> (u64, &Content) {
        let index = self.pieces.partition_point(|(end, _)| *end <= offset);
        let start = index.checked_sub(1).map_or(0, |before| self.pieces[before].0);
        (start, &self.pieces[index].1)
    }

    pub fn pieces(&self) -> impl Iterator<Item = &Content> {
        self.pieces.iter().map(|(_, piece)| piece)
    }
}

impl Content {
    pub fn size(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File { size, .. } | Self::Synthetic { size, .. } => *size,
            Self::Rope(rope) => rope.size(),
        }
    }

    /// A range, which must lie inside. Nothing is copied.
    pub fn slice(&self, offset: u64, size: u64) -> Self {
        match self {
            Self::Memory(bytes) => {
                let (start, len) = (in_memory(offset), in_memory(size));
                Self::Memory(bytes.slice(start..start + len))
            }
            Self::File { file, offset: first, .. } => {
                Self::File { file: Arc::clone(file), offset: first + offset, size }
            }
            Self::Synthetic { seed, offset: first, .. } => {
                Self::Synthetic { seed: *seed, offset: first + offset, size }
            }
            Self::Rope(rope) => {
                let mut pieces = Vec::new();
                let (mut at, end) = (offset, offset + size);
                while at < end {
                    let (start, piece) = rope.at(at);
                    let take = (start + piece.size()).min(end) - at;
                    pieces.push(piece.slice(at - start, take));
                    at += take;
                }
                Self::join(pieces)
            }
        }
    }

    /// One content of several, without copying any.
    pub fn join(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut pieces: Vec<(u64, Self)> = Vec::new();
        for part in parts {
            match part {
                Self::Rope(rope) => rope.pieces().cloned().for_each(|piece| push(&mut pieces, piece)),
                piece => push(&mut pieces, piece),
            }
        }
        match pieces.len() {
            0 => Self::Memory(Bytes::new()),
            1 => pieces.remove(0).1,
            _ => Self::Rope(Arc::new(Rope { pieces })),
        }
    }

    /// Reads a range that must lie inside. Blocking, for files.
    pub fn read(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        match self {
            Self::Memory(bytes) => {
                let start = in_memory(offset);
                Ok(bytes.slice(start..start + len))
            }
            Self::Synthetic { seed, offset: first, .. } => Ok(synthetic_bytes(*seed, first + offset, len)),
            Self::File { .. } | Self::Rope(_) => {
                let mut buffer = BytesMut::zeroed(len);
                self.fill(offset, &mut buffer)?;
                Ok(buffer.freeze())
            }
        }
    }

    fn fill(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Memory(bytes) => {
                let start = in_memory(offset);
                buffer.copy_from_slice(&bytes[start..start + buffer.len()]);
                Ok(())
            }
            Self::Synthetic { seed, offset: first, .. } => {
                fill_synthetic(*seed, first + offset, buffer);
                Ok(())
            }
            Self::File { file, offset: first, .. } => {
                File::open(file.path())?.read_exact_at(buffer, first + offset)
            }
            Self::Rope(rope) => {
                let (mut at, mut rest) = (offset, buffer);
                while !rest.is_empty() {
                    let (start, piece) = rope.at(at);
                    let take = in_memory((start + piece.size() - at).min(rest.len() as u64));
                    let (head, tail) = rest.split_at_mut(take);
                    piece.fill(at - start, head)?;
                    at += take as u64;
                    rest = tail;
                }
                Ok(())
            }
        }
    }

    /// Hands all bytes out in order, a mebibyte at most at a time. Blocking.
    pub fn each_chunk(&self, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        const CHUNK: u64 = 1024 * 1024;
        let (mut at, size) = (0, self.size());
        while at < size {
            let len = CHUNK.min(size - at);
            take(&self.read(at, in_memory(len))?)?;
            at += len;
        }
        Ok(())
    }

    /// The pieces, a single one for what is no rope.
    pub fn pieces(&self) -> Vec<Self> {
        match self {
            Self::Rope(rope) => rope.pieces().cloned().collect(),
            single => vec![single.clone()],
        }
    }
}

/// Appends a piece; computed bytes that go on where the last piece ends become one with it.
fn push(pieces: &mut Vec<(u64, Content)>, piece: Content) {
    if piece.size() == 0 {
        return;
    }
    let start = pieces.last().map_or(0, |(end, _)| *end);
    let end = start + piece.size();
    if let (
        Some((last_end, Content::Synthetic { seed, offset, size })),
        Content::Synthetic { seed: next, offset: at, size: more },
    ) = (pieces.last_mut(), &piece)
        && seed == next
        && *offset + *size == *at
    {
        *size += more;
        *last_end = end;
        return;
    }
    pieces.push((end, piece));
}

/// Offsets into what is in memory fit.
fn in_memory(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ropes_read_and_slice_as_one() {
        let memory = |text: &'static str| Content::Memory(Bytes::from_static(text.as_bytes()));
        let rope = Content::join([memory("01234"), memory(""), memory("567"), memory("89")]);
        assert!(matches!(&rope, Content::Rope(r) if r.pieces().count() == 3));
        for (offset, len) in [(0, 10), (4, 2), (5, 3), (9, 1), (2, 7), (10, 0)] {
            let expected = &b"0123456789"[in_memory(offset)..in_memory(offset) + len];
            assert_eq!(rope.read(offset, len).unwrap(), expected, "{offset} {len}");
            assert_eq!(rope.slice(offset, len as u64).read(0, len).unwrap(), expected);
        }
        let nested = Content::join([rope.slice(3, 4), rope.slice(0, 1)]);
        assert_eq!(nested.read(0, 5).unwrap(), "34560");
    }

    #[test]
    fn computed_neighbours_become_one_again() {
        let whole = Content::Synthetic { seed: 7, offset: 0, size: 1 << 40 };
        let again = Content::join([whole.slice(0, 5), whole.slice(5, (1 << 40) - 5)]);
        assert!(matches!(again, Content::Synthetic { offset: 0, size, .. } if size == 1 << 40));
        let moved = Content::join([whole.slice(9, 5), whole.slice(0, 4)]);
        assert_eq!(moved.size(), 9);
        assert_eq!(moved.read(5, 4).unwrap(), synthetic_bytes(7, 0, 4));
    }
}
