//! Request bodies: read piece by piece (through the aws-chunked decoder where announced), read whole, or
//! drained after an early answer.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::{Call, Shared};
use crate::auth::chunked::ChunkDecoder;
use crate::auth::sigv4::header;
use crate::error::{S3Error, S3Result};
use crate::fault::FaultId;
use crate::log::InFlight;
use crate::store::sink::Sink;

/// Most bytes of a request that is a document.
const MAX_DOCUMENT: usize = 1024 * 1024;

/// What faults do to a request body on its way in.
#[derive(Debug, Default)]
pub struct Obstacle {
    /// Reset the connection after so many bytes.
    pub reset_after: Option<u64>,
    /// Stop reading after so many bytes, until the fault is cleared.
    pub stop_after: Option<(u64, FaultId)>,
    /// Bytes per second.
    pub rate: Option<u64>,
    /// Whether a refusal is lost to a reset while the body is on its way.
    pub loses_refusal: bool,
}

/// How long a refusal that is to be lost waits for bytes of the body.
const OVERTAKEN: Duration = Duration::from_millis(100);

/// A request body that may be read or not.
pub struct Input {
    body: Option<Incoming>,
    obstacle: Obstacle,
    received: u64,
    reset: bool,
    /// A document that was read before its time.
    prefetched: Option<Bytes>,
}

impl Input {
    pub fn new(body: Incoming) -> Self {
        Self { body: Some(body), obstacle: Obstacle::default(), received: 0, reset: false, prefetched: None }
    }

    /// Puts faults in the way of what was not read yet.
    pub fn obstruct(&mut self, obstacle: Obstacle) {
        self.obstacle = obstacle;
    }

    /// Reads the whole body, a document, before the request is in the log; too long a one is empty.
    pub async fn prefetch(&mut self) -> Bytes {
        let Some(body) = self.body.take() else { return Bytes::new() };
        let whole = http_body_util::Limited::new(body, MAX_DOCUMENT).collect().await;
        let whole = whole.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        self.prefetched = Some(whole.clone());
        whole
    }

    /// Whether a fault has reset the connection: there is to be no answer.
    pub fn was_reset(&self) -> bool {
        self.reset
    }

    /// Next wire bytes.
    async fn next(&mut self, shared: &Shared, in_flight: &InFlight) -> S3Result<Option<Bytes>> {
        let Some(body) = &mut self.body else { return Ok(None) };
        // A client that goes away: nobody reads the answer.
        let aborted = || S3Error::new(500, "AbortedTerminate", "aborted");
        loop {
            if self.obstacle.reset_after.is_some_and(|after| self.received >= after) {
                self.reset = true;
                return Err(aborted());
            }
            if let Some((_, id)) = self.obstacle.stop_after.take_if(|(after, _)| self.received >= *after) {
                shared.faults.cleared(id).await;
            }
            match body.frame().await {
                None => {
                    self.body = None;
                    return Ok(None);
                }
                Some(Err(_)) => return Err(aborted()),
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    let len = data.len() as u64;
                    self.received += len;
                    in_flight.received(len);
                    if let Some(rate) = self.obstacle.rate {
                        tokio::time::sleep(Duration::from_nanos(len * 1_000_000_000 / rate.max(1))).await;
                    }
                    return Ok(Some(data));
                }
            }
        }
    }

    /// Streams the payload into a sink; more than `limit` bytes are refused.
    pub async fn copy_to(&mut self, call: &Call<'_>, sink: &mut Sink, limit: u64) -> S3Result<()> {
        let mut decoder = chunked(call).then(ChunkDecoder::new);
        let mut pieces = Vec::new();
        while let Some(data) = self.next(call.shared, call.in_flight).await? {
            match &mut decoder {
                Some(decoder) => decoder.push(&data, &mut pieces)?,
                None => pieces.push(data),
            }
            for piece in pieces.drain(..) {
                if sink.size() + piece.len() as u64 > limit {
                    return Err(S3Error::too_large());
                }
                sink.write(&piece)?;
            }
        }
        decoder.map_or(Ok(()), |decoder| decoder.finish())
    }

    /// A small document, whole.
    pub async fn document(&mut self, call: &Call<'_>) -> S3Result<Bytes> {
        self.whole(call.shared, call.in_flight).await
    }

    /// As `document`, before it is known who asks.
    pub async fn whole(&mut self, shared: &Shared, in_flight: &InFlight) -> S3Result<Bytes> {
        if let Some(all) = self.prefetched.take() {
            in_flight.received(all.len() as u64);
            return Ok(all);
        }
        let mut all = BytesMut::new();
        while let Some(data) = self.next(shared, in_flight).await? {
            if all.len() + data.len() > MAX_DOCUMENT {
                return Err(S3Error::new(413, "InvalidRequest", "Request body is too large"));
            }
            all.extend_from_slice(&data);
        }
        Ok(all.freeze())
    }

    /// Whether a refusal is lost: the client was sending the body when it was made.
    pub async fn is_refusal_lost(&mut self) -> bool {
        let Some(body) = self.body.as_mut().filter(|_| self.obstacle.loses_refusal) else { return false };
        tokio::time::timeout(OVERTAKEN, body.frame()).await.is_ok_and(|frame| frame.is_some())
    }

    /// Reads on in the background what an early answer left unread, for at most `limit`.
    pub fn drain(self, limit: Option<Duration>) {
        let Some(mut body) = self.body else { return };
        if http_body::Body::is_end_stream(&body) {
            return;
        }
        tokio::spawn(async move {
            let all = async { while let Some(Ok(_)) = body.frame().await {} };
            match limit {
                Some(limit) => drop(tokio::time::timeout(limit, all).await),
                None => all.await,
            }
        });
    }
}

/// The payload's length, if the request tells it.
pub fn announced(call: &Call<'_>) -> Option<u64> {
    let name = if chunked(call) { "x-amz-decoded-content-length" } else { "content-length" };
    let length = call.header(name).or_else(|| call.header("content-length"));
    length.and_then(|l| l.trim().parse::<u64>().ok())
}

/// Whether the body is aws-chunked.
pub fn chunked(call: &Call<'_>) -> bool {
    call.header("x-amz-content-sha256").is_some_and(|sha| ChunkDecoder::applies(&sha))
}

/// The web framework looks at the Content-Type before anything else of the request.
pub fn check_content_type(method: &Method, headers: &HeaderMap) -> S3Result<()> {
    let Some(kind) = header(headers, "content-type") else { return Ok(()) };
    if matches!(*method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    let is_token = |text: &str| {
        let is_in = |c: char| c.is_ascii_alphanumeric() || "_!#$%&'*+.^`|~-".contains(c);
        !text.is_empty() && text.chars().all(is_in)
    };
    let media = kind.split(';').next().unwrap_or_default().trim();
    if media.split_once('/').is_none_or(|(kind, subtype)| !is_token(kind) || !is_token(subtype)) {
        return Err(S3Error::new(415, "InvalidRequest", "Unsupported Media Type"));
    }
    Ok(())
}
