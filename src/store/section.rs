//! Sections of files: what an upload sends, and how it is read.
//!
//! A section is read as the transport takes it: a retry reads again, and memory holds one piece. What lies in a hole of
//! the file is not read at all: its zeros come from one buffer that all uploads share. A hole is what its owner never
//! wrote and the file system holds nothing for: some file systems have shown data that was just written as a hole
//! (`OpenZFS` up to 2.2.1).

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use tokio::task::JoinHandle;
use tokio::time::Sleep;

use super::write::Progress;
use crate::stats::Stats;

/// What is read from the file at a time.
const PIECE: u64 = 256 * 1024;

/// The zeros of every hole.
static ZEROS: LazyLock<Bytes> = LazyLock::new(|| vec![0; usize::try_from(PIECE).unwrap_or(0)].into());

/// A section of an open file: what an upload sends. It must not change while it is sent.
#[derive(Debug, Clone)]
pub struct Section {
    pub file: Arc<File>,
    pub range: Range<u64>,
    /// What of it nobody wrote to, in order.
    unwritten: Arc<[Range<u64>]>,
    /// How many of its bytes the last attempt has handed to the transport.
    sent: Arc<AtomicU64>,
}

impl Section {
    #[must_use]
    pub fn new(file: Arc<File>, range: Range<u64>) -> Self {
        Self::with_unwritten(file, range, &[])
    }

    /// A section in which nobody wrote to these ranges, which are in order and do not overlap.
    #[must_use]
    pub fn with_unwritten(file: Arc<File>, range: Range<u64>, unwritten: &[Range<u64>]) -> Self {
        Self { file, range, unwritten: unwritten.into(), sent: Arc::default() }
    }

    /// What follows of the section that nobody wrote to.
    fn unwritten(&self) -> Range<u64> {
        let start = self.range.start;
        let found = self.unwritten.partition_point(|part| part.end <= start);
        let part = self.unwritten.get(found).filter(|part| part.start <= start);
        start..part.map_or(start, |part| part.end.min(self.range.end))
    }

    #[must_use]
    pub fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Where the number of bytes that are on their way can be read, also while the section is sent.
    #[must_use]
    pub fn sent(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.sent)
    }
}

/// A section of a file on its way.
pub(super) struct SectionBody {
    section: Section,
    begins: u64,
    reading: Option<JoinHandle<io::Result<Piece>>>,
    /// Up to here the file has a hole.
    hole_end: u64,
    progress: Arc<Progress>,
    stats: Arc<Stats>,
    /// No byte goes out before its end.
    hold: Option<Pin<Box<Sleep>>>,
}

/// What a file holds at one place.
enum Piece {
    Data(Bytes),
    /// Nothing up to here.
    HoleUpTo(u64),
}

impl SectionBody {
    pub(super) fn new(
        section: Section,
        progress: Arc<Progress>,
        stats: Arc<Stats>,
        hold: Option<Sleep>,
    ) -> Self {
        let begins = section.range.start;
        section.sent.store(0, Ordering::Relaxed);
        Self { section, begins, reading: None, hole_end: 0, progress, stats, hold: hold.map(Box::pin) }
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        loop {
            let range = self.section.range.clone();
            let hole = self.hole_end.min(range.end).saturating_sub(range.start);
            if hole > 0 {
                let len = usize::try_from(hole.min(PIECE)).unwrap_or(0);
                return Poll::Ready(Ok(ZEROS.slice(..len)));
            }
            let section = &self.section;
            let reading = self.reading.get_or_insert_with(|| {
                let (file, unwritten) = (Arc::clone(&section.file), section.unwritten());
                tokio::task::spawn_blocking(move || read_piece(&file, range, unwritten))
            });
            let read = ready!(Pin::new(reading).poll(context));
            self.reading = None;
            match read.map_err(io::Error::other).flatten()? {
                Piece::Data(bytes) => return Poll::Ready(Ok(bytes)),
                Piece::HoleUpTo(end) => self.hole_end = end,
            }
        }
    }
}

impl Body for SectionBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.section.is_empty() {
            return Poll::Ready(None);
        }
        let this = &mut *self;
        if let Some(hold) = &mut this.hold {
            ready!(hold.as_mut().poll(context));
            this.hold = None;
            this.progress.note();
        }
        let bytes = ready!(this.poll_piece(context))?;
        this.section.range.start += bytes.len() as u64;
        this.section.sent.store(this.section.range.start - this.begins, Ordering::Relaxed);
        this.progress.moved();
        this.stats.bytes_sent.add(bytes.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.section.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.section.len())
    }
}

/// `unwritten`: what of the range, from its beginning, nobody wrote to.
fn read_piece(file: &File, range: Range<u64>, unwritten: Range<u64>) -> io::Result<Piece> {
    let next = range.end.min(range.start + PIECE);
    // Reading a shorter hole is cheaper than sending it by itself.
    if unwritten.end >= next
        && let Some(end) = hole_end(file, &unwritten).filter(|end| *end >= next)
    {
        return Ok(Piece::HoleUpTo(end));
    }
    let mut piece = vec![0; usize::try_from(next - range.start).unwrap_or(0)];
    file.read_exact_at(&mut piece, range.start)?;
    Ok(Piece::Data(piece.into()))
}

/// The end of the hole in which a range begins, or the range's own end if that comes first. `None`: the range begins
/// with data, or the file system knows no holes.
///
/// This moves the position of the file: whoever shares it reads by offset.
fn hole_end(file: &File, range: &Range<u64>) -> Option<u64> {
    match lseek(file, i64::try_from(range.start).ok()?, Whence::SeekData) {
        Ok(data) => Some(u64::try_from(data).ok()?.min(range.end)),
        // No data follows. A file that was cut off has no hole behind its end.
        Err(Errno::ENXIO) if file.metadata().ok()?.len() >= range.end => Some(range.end),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_hole_is_known_by_its_end_and_data_is_read() {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(64 * MIB).expect("grown");
        file.write_all_at(b"island", 32 * MIB).expect("written");
        let of = |range: Range<u64>| match read_piece(&file, range.clone(), range).expect("read") {
            Piece::HoleUpTo(end) => Err(end),
            Piece::Data(bytes) => Ok(bytes),
        };
        assert_eq!(of(0..64 * MIB), Err(32 * MIB));
        assert_eq!(of(8 * MIB..16 * MIB), Err(16 * MIB));
        assert_eq!(of(33 * MIB..64 * MIB), Err(64 * MIB));
        let island = of(32 * MIB..40 * MIB).expect("data");
        assert_eq!(&island[..6], b"island");
        assert_eq!(island.len() as u64, PIECE);
        // Reading a short hole is cheaper than sending it by itself.
        assert_eq!(of(32 * MIB - 4096..40 * MIB).expect("data").len() as u64, PIECE);
        let behind = 64 * MIB..65 * MIB;
        assert!(read_piece(&file, behind.clone(), behind).is_err(), "a file that was cut off");
    }

    #[test]
    fn what_was_written_is_read_though_the_file_system_shows_a_hole() {
        let file = Arc::new(tempfile::tempfile().expect("a file"));
        file.set_len(64 * MIB).expect("grown");
        let section =
            Section::with_unwritten(Arc::clone(&file), 0..64 * MIB, &[MIB..8 * MIB, 9 * MIB..99 * MIB]);
        let of = |at: u64| {
            let section = Section { range: at..section.range.end, ..section.clone() };
            match read_piece(&file, section.range.clone(), section.unwritten()).expect("read") {
                Piece::HoleUpTo(end) => Err(end),
                Piece::Data(bytes) => Ok(bytes.len() as u64),
            }
        };
        assert_eq!((of(0), of(8 * MIB), of(9 * MIB - 1)), (Ok(PIECE), Ok(PIECE), Ok(PIECE)));
        assert_eq!((of(MIB), of(7 * MIB), of(9 * MIB)), (Err(8 * MIB), Err(8 * MIB), Err(64 * MIB)));
        assert_eq!(of(8 * MIB - 1), Ok(PIECE), "a short hole");
    }
}
