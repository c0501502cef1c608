//! Multipart uploads up to their completion: creating, parts, parts copied from objects, aborting. Every
//! call checks the caller's right to write the key anew.

use std::sync::Arc;

use super::copy;
use super::get::find;
use super::input::{Input, chunked};
use super::limits;
use super::put::{check_backend, check_write, metadata};
use super::reply::Reply;
use super::{Backend, Call};
use crate::clock;
use crate::error::{S3Error, S3Result};
use crate::key::{check_bucket_name, check_key};
use crate::store::content::Content;
use crate::store::etag;
use crate::store::object::Object;
use crate::store::sink::Sink;
use crate::store::uploads::{Part, Upload};
use crate::xml::Document;

/// Most bytes of an aws-chunked part.
const MAX_PART: u64 = 5 * 1024 * 1024 * 1024;

/// What the s3 backend says to an upload it does not know under a key.
const NO_UPLOAD: &str = "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed.";

/// The upload a request names; an empty name is none.
pub fn upload_id<'a>(call: &'a Call<'_>) -> &'a str {
    call.target.param("uploadId").unwrap_or_default()
}

/// A whole number from the query, or the complaint of the server's schema.
pub fn query_number(call: &Call<'_>, name: &str, range: std::ops::RangeInclusive<u32>) -> S3Result<u32> {
    let text = call.target.param(name).unwrap_or_default();
    let refuse = |what: String| Err(S3Error::invalid_request(format!("Querystring, {name} must be {what}")));
    match text.trim().parse::<i64>() {
        Ok(number) if number < i64::from(*range.start()) => refuse(format!(">= {}", range.start())),
        Ok(number) if number > i64::from(*range.end()) => refuse(format!("<= {}", range.end())),
        Ok(number) => Ok(u32::try_from(number).unwrap_or(0)),
        Err(_) => refuse("integer".to_owned()),
    }
}

/// What a backend makes of an upload id that was created for another key.
pub fn other_key(call: &Call<'_>) -> S3Error {
    match call.shared.backend {
        Backend::File => S3Error::internal(),
        Backend::S3 => S3Error::backend(404, NO_UPLOAD),
    }
}

/// The `ETag` of a part as the client is told it.
fn part_etag(call: &Call<'_>, hash: [u8; 16]) -> String {
    let text = hex::encode(hash);
    match call.shared.backend {
        Backend::File => text,
        Backend::S3 => format!("\"{text}\""),
    }
}

/// `CreateMultipartUpload`
pub fn create(call: &Call<'_>) -> S3Result<Reply> {
    let (bucket, key) = (&call.target.bucket, &call.target.key);
    check_bucket_name(bucket)?;
    check_key(key)?;
    let limits = limits::of_bucket(call.shared, bucket)?;
    let content_type = call.header("content-type").filter(|k| !k.is_empty());
    if let Some(kind) = &content_type {
        limits.check_type(kind)?;
    }
    check_write(call, bucket, key)?;
    check_backend(call, bucket, key)?;
    let id = match call.shared.backend {
        Backend::File => etag::uuid(),
        // Long, and no UUID, as S3's are.
        Backend::S3 => format!("{}.{}", hex::encode(etag::unique()), hex::encode(etag::unique())),
    };
    let mut upload = Upload::new(bucket, key);
    upload.content_type = content_type.map(Arc::from);
    upload.cache_control = call.header("cache-control").filter(|c| !c.is_empty()).map(Arc::from);
    upload.metadata = metadata(call).map(Arc::new);
    call.shared.store.uploads.create(&id, upload);
    let mut doc = Document::new("InitiateMultipartUploadResult");
    doc.leaf("Bucket", bucket).leaf("Key", key).leaf("UploadId", &id);
    Ok(Reply::xml(doc))
}

/// Bytes counted for a part that may yet fail.
struct Reservation<'a> {
    call: &'a Call<'a>,
    id: &'a str,
    bytes: u64,
    kept: bool,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.call.shared.store.uploads.release(self.id, self.bytes);
        }
    }
}

/// `UploadPart`
pub async fn part(call: &Call<'_>, input: &mut Input) -> S3Result<Reply> {
    let number = query_number(call, "partNumber", 1..=10_000)?;
    let id = upload_id(call);
    if id.is_empty() {
        return Err(S3Error::new(400, "InvalidUploadId", "Invalid upload id"));
    }
    // aws-chunked bodies are longer on the wire, so that only the decoded length counts.
    let name = if chunked(call) { "x-amz-decoded-content-length" } else { "content-length" };
    let length = call.header(name).and_then(|l| l.trim().parse::<u64>().ok());
    let length = length.ok_or_else(|| {
        S3Error::new(400, "MissingContentLength", "You must provide the Content-Length HTTP header.")
    })?;
    let (bucket, key) = (&call.target.bucket, &call.target.key);
    let limits = limits::of_bucket(call.shared, bucket)?;
    let uploads = &call.shared.store.uploads;
    let own = uploads.with(id, |upload| upload.is_for(bucket, key))?;
    check_write(call, bucket, key)?;
    uploads.reserve(id, length, limits.multipart(call.shared))?;
    let mut reservation = Reservation { call, id, bytes: length, kept: false };
    if !own {
        return Err(other_key(call));
    }
    let mut sink = Sink::new(&call.shared.store, length, call.shared.store.hashes())?;
    let most = if chunked(call) { length.min(MAX_PART) } else { length };
    input.copy_to(call, &mut sink, most).await?;
    let (content, hash) = sink.finish();
    let etag = part_etag(call, hash);
    uploads.put_part(id, number, Part { content, hash }, &etag)?;
    reservation.kept = true;
    Ok(Reply::new(200).header("etag", &etag).header("access-control-expose-headers", "etag"))
}

/// `UploadPartCopy`
pub fn part_copy(call: &Call<'_>) -> S3Result<Reply> {
    let number = query_number(call, "partNumber", 1..=10_000)?;
    let id = upload_id(call);
    if id.is_empty() {
        return Err(S3Error::missing_parameter("UploadId"));
    }
    let (source_bucket, source_key) = copy::source(call)?;
    if source_bucket.is_empty() {
        return Err(S3Error::no_such_bucket());
    }
    if source_key.is_empty() {
        return Err(S3Error::no_such_key());
    }
    let source = find(call, &source_bucket, &source_key)?;
    let (first, size) = match call.header("x-amz-copy-source-range").filter(|r| !r.is_empty()) {
        Some(range) => source_range(&range, source.size()).ok_or_else(|| S3Error::invalid_range(400))?,
        None => (0, source.size()),
    };
    let (bucket, key) = (&call.target.bucket, &call.target.key);
    let limits = limits::of_bucket(call.shared, bucket)?;
    let uploads = &call.shared.store.uploads;
    let own = uploads.with(id, |upload| upload.is_for(bucket, key))?;
    check_write(call, bucket, key)?;
    // What is counted here stays counted, also if the copy then fails.
    uploads.reserve(id, size, limits.multipart(call.shared))?;
    if !own {
        return Err(other_key(call));
    }
    let (content, hash) = tokio::task::block_in_place(|| shared_range(call, &source, first, size))?;
    let etag = part_etag(call, hash);
    let at = uploads.put_part(id, number, Part { content, hash }, &etag)?;
    let mut doc = Document::new("CopyPartResult");
    doc.leaf("ETag", &etag).leaf("LastModified", &clock::iso(at));
    Ok(Reply::xml(doc))
}

/// A range of a source's bytes, which the part shares with it.
fn shared_range(
    call: &Call<'_>,
    source: &Object,
    first: u64,
    size: u64,
) -> std::io::Result<(Content, [u8; 16])> {
    let store = &call.shared.store;
    let content = source.content.slice(first, size);
    // On disk the source's file may go before the upload is completed.
    let content = store.disk().map_or_else(|| Ok(content.clone()), |disk| disk.link(&content))?;
    let whole = size == source.size() && source.etag.parts == 0;
    let hash = if whole { source.etag.hash } else { etag::of_content(&content, store.hashes())? };
    Ok((content, hash))
}

/// `bytes=a-b`, both given and inside the source: first byte and length.
fn source_range(text: &str, size: u64) -> Option<(u64, u64)> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit()).then(|| s.parse::<u64>().ok()).flatten();
    let (first, last) = (digits(first)?, digits(last)?);
    (first <= last && last < size).then(|| (first, last - first + 1))
}

/// `AbortMultipartUpload`. On files any key will do: the id says it all.
pub fn abort(call: &Call<'_>) -> S3Result<Reply> {
    let id = upload_id(call);
    if id.is_empty() {
        return Err(S3Error::new(400, "InvalidUploadId", "Invalid upload id"));
    }
    let uploads = &call.shared.store.uploads;
    uploads.with(id, |_| ())?;
    check_write(call, &call.target.bucket, &call.target.key)?;
    uploads.remove(id)?;
    Ok(Reply::new(200))
}
