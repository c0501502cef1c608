//! Request bodies: read piece by piece (through the aws-chunked decoder where announced), read whole, or
//! drained after an early answer.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::Call;
use crate::auth::chunked::ChunkDecoder;
use crate::auth::sigv4::header;
use crate::error::{S3Error, S3Result};
use crate::store::sink::Sink;

/// A request body that may be read or not.
pub struct Input(Option<Incoming>);

impl Input {
    pub fn new(body: Incoming) -> Self {
        Self(Some(body))
    }

    /// Next wire bytes.
    async fn next(&mut self, call: &Call<'_>) -> S3Result<Option<Bytes>> {
        let Some(body) = &mut self.0 else { return Ok(None) };
        loop {
            match body.frame().await {
                None => {
                    self.0 = None;
                    return Ok(None);
                }
                // A client that goes away: nobody reads the answer.
                Some(Err(_)) => return Err(S3Error::new(500, "AbortedTerminate", "aborted")),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        call.in_flight.received(data.len() as u64);
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// Streams the payload into a sink; more than `limit` bytes are refused.
    pub async fn copy_to(&mut self, call: &Call<'_>, sink: &mut Sink, limit: u64) -> S3Result<()> {
        let sha = call.header("x-amz-content-sha256").unwrap_or_default();
        let mut decoder = ChunkDecoder::applies(&sha).then(ChunkDecoder::new);
        let mut pieces = Vec::new();
        while let Some(data) = self.next(call).await? {
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
        const MAX_DOCUMENT: usize = 1024 * 1024;
        let mut all = BytesMut::new();
        while let Some(data) = self.next(call).await? {
            if all.len() + data.len() > MAX_DOCUMENT {
                return Err(S3Error::new(413, "InvalidRequest", "Request body is too large"));
            }
            all.extend_from_slice(&data);
        }
        Ok(all.freeze())
    }

    /// Reads on in the background what an early answer left unread, for at most `limit`.
    pub fn drain(self, limit: Option<Duration>) {
        let Some(mut body) = self.0 else { return };
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

/// The web framework looks at the Content-Type before anything else of the request.
pub fn check_content_type(method: &Method, headers: &HeaderMap) -> S3Result<()> {
    let Some(kind) = header(headers, "content-type") else { return Ok(()) };
    if matches!(*method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    if kind.split_once('/').is_none_or(|(a, b)| a.is_empty() || b.is_empty()) {
        return Err(S3Error::new(415, "InvalidRequest", "Unsupported Media Type"));
    }
    Ok(())
}
