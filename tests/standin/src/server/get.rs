//! Reading objects: HEAD answers from the row, GET from the "backend", as on the real server; that is why
//! the two differ in small ways.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::body::{ReplyBody, Source};
use super::reply::Reply;
use super::{Backend, Call};
use crate::clock;
use crate::error::{S3Error, S3Result};
use crate::key::check_key;
use crate::rls::{Access, Command, Row};
use crate::store::object::Object;
use crate::xml::Document;

/// The object, if it is there and the caller may see it. A missing bucket is a missing key.
pub fn find(call: &Call<'_>, bucket: &str, key: &str) -> S3Result<Arc<Object>> {
    let found = call.shared.store.read(bucket, |bucket| {
        let access = Access { identity: call.identity, policies: &bucket.policies };
        let object = bucket.objects.get(key).ok_or_else(S3Error::no_such_key)?;
        let seen = access.allows(Command::Select, Row { key, owner: object.owner.as_deref() })?;
        if seen { Ok(Arc::clone(object)) } else { Err(S3Error::no_such_key()) }
    });
    found.unwrap_or_else(|| Err(S3Error::no_such_key()))
}

/// Longest metadata value that fits a header of the real server's answers.
const MAX_META: usize = 8 * 1024;

fn with_metadata(mut reply: Reply, object: &Object) -> Reply {
    let mut missing = 0;
    for (name, value) in object.metadata.iter().flat_map(|m| m.iter()) {
        let header = format!("x-amz-meta-{name}");
        let fits = value.is_ascii() && value.len() <= MAX_META;
        if fits {
            reply.push(&header, value);
        }
        if !fits || !reply.has(&header) {
            missing += 1;
        }
    }
    if missing > 0 {
        reply.push("x-amz-missing-meta", &missing.to_string());
    }
    reply
}

/// `HeadObject`
pub fn head(call: &Call<'_>) -> S3Result<Reply> {
    let key = &call.target.key;
    check_key(key)?;
    let object = find(call, &call.target.bucket, key)?;
    // JavaScript's `||` drops a size of 0.
    let length = Some(object.size()).filter(|s| *s > 0).map(|s| s.to_string());
    let reply = Reply::new(200)
        .header("created-at", &clock::javascript(object.created_at))
        .header("cache-control", object.cache_control.as_deref().unwrap_or_default())
        .header("content-length", &length.unwrap_or_default())
        .header("content-type", object.content_type.as_deref().unwrap_or_default())
        .header("etag", &object.quoted_etag())
        .header("last-modified", &clock::http(object.updated_at));
    Ok(with_metadata(reply, &object))
}

/// `GetObject`
pub async fn get(call: &Call<'_>) -> S3Result<Reply> {
    let expires = call.target.param("response-expires").filter(|e| !e.is_empty());
    let expires = expires
        .map(|text| {
            let parsed = clock::parse_http(text);
            parsed.ok_or_else(|| S3Error::invalid_parameter("Invalid Parameter response-expires"))
        })
        .transpose()?;
    let key = &call.target.key;
    check_key(key)?;
    let object = find(call, &call.target.bucket, key)?;
    let source = Source::open(&object.content)?;
    let rate = call.shared.hash_rate.load(Ordering::Relaxed);
    if rate > 0 {
        // The file backend reads the whole object for its ETag, also for a range and for a 304.
        let nanos = u128::from(object.size()) * 1_000_000_000 / u128::from(rate);
        tokio::time::sleep(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))).await;
    }
    let reply = if not_modified(call, &object)? {
        Reply::new(304).header("content-length", "0")
    } else {
        with_content(call, &object, source)?
    };
    let reply = reply
        .header("cache-control", object.cache_control.as_deref().unwrap_or("no-cache"))
        .header("content-type", object.content_type.as_deref().unwrap_or("application/octet-stream"))
        .header("etag", &object.quoted_etag())
        .header("last-modified", &clock::http(object.updated_at));
    let mut reply = with_metadata(reply, &object);
    for name in
        ["content-disposition", "content-type", "cache-control", "content-encoding", "content-language"]
    {
        if let Some(value) = call.target.param(&format!("response-{name}")).filter(|v| !v.is_empty()) {
            reply.push(name, value);
        }
    }
    if let Some(expires) = expires {
        reply.push("expires", &clock::http(expires));
    }
    Ok(reply)
}

/// `If-None-Match` is compared as a string; `If-Match` and `If-Unmodified-Since` are not looked at.
fn not_modified(call: &Call<'_>, object: &Object) -> S3Result<bool> {
    let same = call.header("if-none-match").is_some_and(|etag| etag == object.quoted_etag());
    let Some(since) = call.header("if-modified-since") else { return Ok(same) };
    // The real server trips over a date that is none.
    let since = clock::parse_http(&since).ok_or_else(S3Error::internal)?;
    Ok(same || object.updated_at <= since)
}

fn with_content(call: &Call<'_>, object: &Object, source: Source) -> S3Result<Reply> {
    let size = object.size();
    let Some(range) = call.header("range").filter(|r| !r.is_empty()) else {
        let reply = Reply::new(200).header("content-length", &size.to_string());
        return Ok(reply.stream(ReplyBody::new(source, 0, size)));
    };
    let (first, last) = parse_range(&range, size).ok_or_else(|| match call.shared.backend {
        Backend::File => S3Error::invalid_range(416),
        Backend::S3 => S3Error::backend(416, "The requested range is not satisfiable"),
    })?;
    let length = last - first + 1;
    Ok(Reply::new(206)
        .header("content-length", &length.to_string())
        .header("content-range", &format!("bytes {first}-{last}/{size}"))
        .stream(ReplyBody::new(source, first, length)))
}

/// One range, clamped to the object. Nothing else will do: several ranges, reversed ones and any range of
/// an empty object are refused.
pub fn parse_range(text: &str, size: u64) -> Option<(u64, u64)> {
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit()).then(|| s.parse::<u64>().ok()).flatten();
    let (first, last) = text.trim().strip_prefix("bytes=")?.split_once('-')?;
    let end = size.checked_sub(1)?;
    let (first, last) = match (first.is_empty(), last.is_empty()) {
        (true, true) => return None,
        (true, false) => (size.saturating_sub(digits(last).filter(|n| *n > 0)?), end),
        (false, true) => (digits(first)?, end),
        (false, false) => (digits(first)?, digits(last)?.min(end)),
    };
    (first <= last).then_some((first, last))
}

/// `GetObjectTagging`: there are no tags.
pub fn tagging(call: &Call<'_>) -> S3Result<Reply> {
    check_key(&call.target.key)?;
    find(call, &call.target.bucket, &call.target.key)?;
    let mut doc = Document::new("Tagging");
    doc.leaf("TagSet", "");
    Ok(Reply::xml(doc))
}
