//! `CopyObject`. The source header is taken literally, the conditions on it are not looked at. A copy
//! shares its source's bytes, whatever their size.

use std::sync::Arc;

use super::get::find;
use super::put::{check_backend, check_write, metadata};
use super::reply::Reply;
use super::{Backend, Call};
use crate::clock;
use crate::error::{S3Error, S3Result};
use crate::key::check_key;
use crate::store::etag::{self, Etag};
use crate::store::object::Object;
use crate::xml::Document;

/// Bucket and key of `x-amz-copy-source`, undecoded; either may be empty. A leading slash is optional.
pub fn source(call: &Call<'_>) -> S3Result<(String, String)> {
    let source = call.header("x-amz-copy-source").unwrap_or_default();
    if source.is_empty() {
        return Err(S3Error::missing_parameter("CopySource"));
    }
    let source = source.strip_prefix('/').unwrap_or(&source);
    let (bucket, key) = source.split_once('/').unwrap_or((source, ""));
    Ok((bucket.to_owned(), key.to_owned()))
}

/// `CopyObject`
pub fn copy(call: &Call<'_>) -> S3Result<Reply> {
    let (source_bucket, source_key) = source(call)?;
    if source_bucket.is_empty() {
        return Err(S3Error::invalid_bucket_name());
    }
    if source_key.is_empty() {
        return Err(S3Error::missing_parameter("CopySource"));
    }
    let (bucket, key) = (&call.target.bucket, &call.target.key);
    check_key(key)?;
    let original = find(call, &source_bucket, &source_key)?;
    check_write(call, bucket, key)?;
    check_backend(call, bucket, key)?;
    let mut object = (*original).clone();
    if call.header("x-amz-metadata-directive").is_some_and(|d| !d.is_empty() && d != "COPY") {
        // Only what is sent is kept, except that absent user metadata leaves the destination's.
        object.content_type = call.header("content-type").map(Arc::from);
        object.cache_control = call.header("cache-control").map(Arc::from);
        object.metadata = match metadata(call) {
            Some(metadata) => Some(Arc::new(metadata)),
            None => call.shared.store.get(bucket, key).and_then(|old| old.metadata.clone()),
        };
    }
    object.etag = copied_etag(call, &original)?;
    object.owner = call.identity.sub.as_deref().map(Arc::from);
    object.created_at = clock::now();
    object.updated_at = object.created_at;
    let stored = call.shared.store.put(bucket, key, object)?;
    let mut doc = Document::new("CopyObjectResult");
    doc.leaf("ETag", &stored.quoted_etag()).leaf("LastModified", &clock::iso(stored.updated_at));
    Ok(Reply::xml(doc))
}

/// The s3 backend copies in one piece, whatever pieces the source came in.
fn copied_etag(call: &Call<'_>, original: &Object) -> S3Result<Etag> {
    if call.shared.backend == Backend::File || original.etag.parts == 0 {
        return Ok(original.etag);
    }
    let hashes = call.shared.store.hashes();
    let hash = tokio::task::block_in_place(|| etag::of_content(&original.content, hashes))?;
    Ok(Etag::plain(hash))
}
