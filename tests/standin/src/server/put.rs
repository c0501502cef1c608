//! `PutObject`: rights are checked before the body is read, the version is committed after its last byte.

use std::sync::Arc;

use super::input::{Input, announced};
use super::limits;
use super::reply::Reply;
use super::{Backend, Call};
use crate::error::{S3Error, S3Result};
use crate::key::{PLACEHOLDER, check_key, check_storable};
use crate::rls::{Access, Row};
use crate::store::content::Content;
use crate::store::etag::{self, Etag};
use crate::store::object::{Metadata, Object, default_cache, default_type};
use crate::store::sink::Sink;

/// The s3 backend takes larger bodies in parts of this size, which shows in the `ETag`.
const BACKEND_PART: u64 = 16 * 1024 * 1024;

/// The `x-amz-meta-*` headers; nothing if there are none.
pub fn metadata(call: &Call<'_>) -> Option<Metadata> {
    let mut metadata = Metadata::new();
    for name in call.head.headers.keys() {
        if let Some(short) = name.as_str().strip_prefix("x-amz-meta-") {
            metadata.insert(short.to_owned(), call.header(name.as_str()).unwrap_or_default());
        }
    }
    Some(metadata).filter(|m| !m.is_empty())
}

/// Whether the caller may write `key` of `bucket`, in which an object may exist. A bucket that is missing
/// has no policies, and for the service role breaks a foreign key.
pub fn check_write(call: &Call<'_>, bucket: &str, key: &str) -> S3Result<()> {
    let checked = call.shared.store.read(bucket, |bucket| {
        let access = Access { identity: call.identity, policies: &bucket.policies };
        let existing = bucket.objects.get(key);
        access.check_upsert(key, existing.map(|o| Row { key, owner: o.owner.as_deref() }))
    });
    match checked {
        Some(result) => result,
        None if call.identity.bypasses_policies() => Err(S3Error::related_missing()),
        None => Err(S3Error::row_security()),
    }
}

/// What the backend cannot store under a key.
pub fn check_backend(call: &Call<'_>, bucket: &str, key: &str) -> S3Result<()> {
    check_storable(key, &call.shared.credentials.read().project_ref, bucket)
}

/// The key a PUT stores under: an empty body to `dir/` makes the placeholder that stands for a folder.
fn stored_key(call: &Call<'_>) -> String {
    let key = &call.target.key;
    let empty = call.header("content-length").is_some_and(|l| l.trim().parse() == Ok(0_u64));
    if key.ends_with('/') && empty { format!("{key}{PLACEHOLDER}") } else { key.clone() }
}

/// `PutObject`
pub async fn put(call: &Call<'_>, input: &mut Input) -> S3Result<Reply> {
    let bucket = &call.target.bucket;
    let key = stored_key(call);
    let limits = limits::of_bucket(call.shared, bucket)?;
    let placeholder = key.ends_with(PLACEHOLDER);
    if !placeholder {
        let kind = call.header("content-type").filter(|k| !k.is_empty());
        limits.check_type(kind.as_deref().unwrap_or("application/octet-stream"))?;
    }
    let limit = if placeholder { 0 } else { limits.single(call.shared) };
    let announced = announced(call);
    if announced.is_some_and(|length| length > limit) {
        return Err(S3Error::too_large());
    }
    check_key(&key)?;
    check_write(call, bucket, &key)?;
    check_backend(call, bucket, &key)?;
    // Clients compare the tag of what they sent in one piece.
    let small = announced.is_some_and(|length| length <= BACKEND_PART);
    let md5 = small || call.shared.store.hashes();
    let mut sink = Sink::new(&call.shared.store, announced.unwrap_or(0), md5)?;
    input.copy_to(call, &mut sink, limit).await?;
    let (content, hash) = sink.finish();
    let etag = put_etag(call, &content, hash)?;
    let object = with_headers(call, Object::new(content, etag));
    let object = call.shared.store.put(bucket, &key, object)?;
    Ok(Reply::new(200).header("etag", &object.quoted_etag()))
}

/// The `ETag` of a body that came in one piece.
fn put_etag(call: &Call<'_>, content: &Content, hash: [u8; 16]) -> S3Result<Etag> {
    let size = content.size();
    if call.shared.backend == Backend::File || size <= BACKEND_PART {
        return Ok(Etag::plain(hash));
    }
    let hash_of = |first: u64| {
        let part = content.slice(first, BACKEND_PART.min(size - first));
        etag::of_content(&part, call.shared.store.hashes())
    };
    let step = usize::try_from(BACKEND_PART).unwrap_or(usize::MAX);
    let hashes = tokio::task::block_in_place(|| (0..size).step_by(step).map(hash_of).collect());
    let hashes: Vec<_> = std::io::Result::from(hashes)?;
    Ok(etag::of_parts(&hashes))
}

/// Takes what a request says about an object; other headers (Content-Encoding, Expires, …) are dropped.
fn with_headers(call: &Call<'_>, mut object: Object) -> Object {
    let shared = |name| call.header(name).filter(|v| !v.is_empty()).map(Arc::<str>::from);
    object.content_type = shared("content-type").or_else(|| Some(default_type()));
    object.cache_control = shared("cache-control").or_else(|| Some(default_cache()));
    object.metadata = metadata(call).map(Arc::new);
    object.owner = call.identity.sub.as_deref().map(Arc::from);
    object
}
