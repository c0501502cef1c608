//! Response bodies: slices of memory, pieces of a file, or computed bytes, in frames, shaped by faults.
//! The body owns the request's log handle, so that a request ends when its last byte was handed out.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::task::JoinHandle;
use tokio::time::Sleep;

use crate::log::InFlight;
use crate::store::content::{Content, Rope};
use crate::store::synthetic::synthetic_bytes;

/// Bytes computed or read at once.
const FRAME: u64 = 256 * 1024;
/// Bytes of a memory slice given to the connection at once: no copy is made, so this only bounds how far
/// the log runs ahead of the socket.
const MEMORY_FRAME: u64 = 1024 * 1024;
/// What a truncated body waits before it closes the connection, so that its bytes leave first.
const FLUSH: Duration = Duration::from_millis(30);

/// Where a body's bytes come from.
#[derive(Debug)]
pub enum Source {
    Memory(Bytes),
    /// A file, and where its bytes begin.
    File(Arc<File>, u64),
    /// A seed, and where its bytes begin.
    Synthetic(u64, u64),
    Rope(Arc<Rope>),
}

impl Source {
    /// Opens an object's content for the whole length of an answer.
    pub fn open(content: &Content) -> io::Result<Self> {
        Ok(match content {
            Content::Memory(bytes) => Self::Memory(bytes.clone()),
            Content::File { file, offset, .. } => Self::File(Arc::new(File::open(file.path())?), *offset),
            Content::Synthetic { seed, offset, .. } => Self::Synthetic(*seed, *offset),
            Content::Rope(rope) => Self::Rope(Arc::clone(rope)),
        })
    }
}

/// What faults do to a body.
#[derive(Debug, Default)]
pub struct Shape {
    /// Fail after so many bytes.
    pub truncate: Option<u64>,
    /// Bytes per second.
    pub rate: Option<u64>,
    /// Pause once after so many bytes.
    pub stall: Option<(u64, Duration)>,
}

/// A streaming response body.
pub struct ReplyBody {
    source: Source,
    offset: u64,
    length: u64,
    sent: u64,
    shape: Shape,
    flushed: bool,
    sleep: Option<Pin<Box<Sleep>>>,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
    in_flight: Option<InFlight>,
}

impl ReplyBody {
    /// `length` bytes of `source` from `offset` on.
    pub fn new(source: Source, offset: u64, length: u64) -> Self {
        Self {
            source,
            offset,
            length,
            sent: 0,
            shape: Shape::default(),
            flushed: false,
            sleep: None,
            reading: None,
            in_flight: None,
        }
    }

    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let length = bytes.len() as u64;
        Self::new(Source::Memory(bytes), 0, length)
    }

    pub fn empty() -> Self {
        Self::bytes(Bytes::new())
    }

    pub fn length(&self) -> u64 {
        self.length
    }

    /// Binds the body to its request.
    pub fn attach(&mut self, shape: Shape, in_flight: InFlight) {
        self.shape = shape;
        self.in_flight = Some(in_flight);
    }

    /// How much the source gives at once from here on.
    fn at_hand(&self) -> u64 {
        match &self.source {
            Source::Memory(_) => MEMORY_FRAME,
            Source::File(..) | Source::Synthetic(..) => FRAME,
            Source::Rope(rope) => {
                let at = self.offset + self.sent;
                let (start, piece) = rope.at(at);
                let most = if matches!(piece, Content::Memory(_)) { MEMORY_FRAME } else { FRAME };
                most.min(start + piece.size() - at)
            }
        }
    }

    /// The next frame's length: up to the next event, never 0 here.
    fn frame(&self) -> u64 {
        let mut frame = self.at_hand().min(self.length - self.sent);
        for event in [self.shape.truncate, self.shape.stall.map(|(after, _)| after)].into_iter().flatten() {
            if event > self.sent {
                frame = frame.min(event - self.sent);
            }
        }
        // Ten frames a second at least, so that slow bodies trickle.
        self.shape.rate.map_or(frame, |rate| frame.min((rate / 10).max(1)))
    }

    /// Bytes of the next frame, or nothing while a file is being read.
    fn produce(&mut self, context: &mut Context<'_>, frame: u64) -> Poll<io::Result<Bytes>> {
        let at = self.offset + self.sent;
        // A frame is at most a mebibyte.
        let len = usize::try_from(frame).unwrap_or(0);
        let (file, at) = match &self.source {
            Source::Memory(bytes) => {
                let start = usize::try_from(at).map_err(io::Error::other)?;
                return Poll::Ready(Ok(bytes.slice(start..start + len)));
            }
            Source::Synthetic(seed, first) => {
                return Poll::Ready(Ok(synthetic_bytes(*seed, first + at, len)));
            }
            Source::Rope(rope) => {
                let (start, piece) = rope.at(at);
                return Poll::Ready(piece.read(at - start, len));
            }
            Source::File(file, first) => (Arc::clone(file), first + at),
        };
        let reading = self.reading.get_or_insert_with(|| {
            tokio::task::spawn_blocking(move || {
                let mut buffer = vec![0; len];
                file.read_exact_at(&mut buffer, at)?;
                Ok(Bytes::from(buffer))
            })
        });
        let read = std::task::ready!(Pin::new(reading).poll(context));
        self.reading = None;
        Poll::Ready(read.map_err(io::Error::other)?)
    }
}

use std::future::Future as _;

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        loop {
            if let Some(sleep) = &mut this.sleep {
                std::task::ready!(sleep.as_mut().poll(context));
                this.sleep = None;
            }
            if this.shape.truncate.is_some_and(|after| this.sent >= after) {
                if this.flushed {
                    return Poll::Ready(Some(Err(io::Error::other("truncated by a fault"))));
                }
                this.flushed = true;
                this.sleep = Some(Box::pin(tokio::time::sleep(FLUSH)));
                continue;
            }
            if this.sent >= this.length {
                this.in_flight = None;
                return Poll::Ready(None);
            }
            if let Some((_, pause)) = this.shape.stall.take_if(|(after, _)| this.sent >= *after) {
                this.sleep = Some(Box::pin(tokio::time::sleep(pause)));
                continue;
            }
            let frame = this.frame();
            let data = std::task::ready!(this.produce(context, frame))?;
            this.sent += frame;
            if let Some(rate) = this.shape.rate {
                let pause = Duration::from_nanos(frame * 1_000_000_000 / rate.max(1));
                this.sleep = Some(Box::pin(tokio::time::sleep(pause)));
            }
            if let Some(in_flight) = &this.in_flight {
                in_flight.sent(frame);
            }
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.sent >= self.length && self.shape.truncate.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length - self.sent)
    }
}
