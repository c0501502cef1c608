//! `ListObjectsV2` and V1: parameters in, a page of the store's listing out.

use std::cell::RefCell;
use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::Call;
use super::reply::Reply;
use crate::clock;
use crate::error::{S3Error, S3Result};
use crate::rls::{Access, Command, Row};
use crate::store::list::{self, Entry, Listing, Page};
use crate::store::object::Object;
use crate::xml::Document;

/// What JavaScript's encodeURIComponent leaves alone.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'!')
    .remove(b'~')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');

/// The parameters both versions share.
struct Params<'a> {
    prefix: &'a str,
    delimiter: Option<&'a str>,
    encoding: Option<&'a str>,
    limit: usize,
}

impl<'a> Params<'a> {
    fn of(call: &'a Call<'_>) -> S3Result<Self> {
        let encoding = call.target.param("encoding-type");
        if encoding.is_some_and(|e| e != "url") {
            return Err(S3Error::invalid_request(
                "Querystring, encoding-type must be equal to one of the allowed values",
            ));
        }
        let limit = match call.target.param("max-keys") {
            None => 1000,
            Some(text) => max_keys(text)?,
        };
        Ok(Self {
            prefix: call.target.param("prefix").unwrap_or_default(),
            delimiter: call.target.param("delimiter"),
            encoding,
            limit,
        })
    }

    fn name(&self, name: &str) -> String {
        if self.encoding.is_some() { encode_component(name) } else { name.to_owned() }
    }
}

/// JavaScript's encodeURIComponent.
pub fn encode_component(name: &str) -> String {
    utf8_percent_encode(name, COMPONENT).to_string()
}

/// 0 means 1000, as does anything above.
fn max_keys(text: &str) -> S3Result<usize> {
    // JavaScript's idea of an integer: `2.0` is one.
    let number = text.trim().parse::<f64>().ok().filter(|n| n.is_finite() && n.fract() == 0.0);
    let number = number.ok_or_else(|| S3Error::invalid_request("Querystring, max-keys must be integer"))?;
    if number < 0.0 {
        return Err(S3Error::invalid_request("Querystring, max-keys must be >= 0"));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1000")]
    let number = number.min(1000.0) as usize;
    Ok(if number == 0 { 1000 } else { number })
}

fn page(call: &Call<'_>, params: &Params<'_>, after: &str) -> S3Result<Page> {
    let query = Listing {
        prefix: params.prefix,
        delimiter: params.delimiter.unwrap_or_default(),
        after,
        limit: params.limit,
        exact: !call.shared.list_loss.load(Ordering::Relaxed),
    };
    let listed = call.shared.store.read(&call.target.bucket, |bucket| {
        let access = Access { identity: call.identity, policies: &bucket.policies };
        let failure = RefCell::new(None);
        let visible = |key: &str, object: &Object| {
            let seen = access.allows(Command::Select, Row { key, owner: object.owner.as_deref() });
            seen.unwrap_or_else(|error| {
                failure.replace(Some(error));
                false
            })
        };
        let page = list::list(&bucket.objects, &query, &visible);
        failure.take().map_or(Ok(page), Err)
    });
    listed.ok_or_else(S3Error::no_such_bucket)?
}

fn contents(doc: &mut Document, params: &Params<'_>, page: &Page) {
    for entry in &page.entries {
        if let Entry::Object(name, object) = entry {
            doc.open("Contents");
            doc.leaf("Key", &params.name(name))
                .leaf("LastModified", &clock::iso(object.updated_at))
                .leaf("ETag", &object.quoted_etag())
                .leaf("Size", &object.size().to_string())
                .leaf("StorageClass", "STANDARD");
            doc.close("Contents");
        }
    }
}

fn common_prefixes(doc: &mut Document, params: &Params<'_>, page: &Page) {
    for entry in &page.entries {
        if let Entry::Prefix(name) = entry {
            doc.open("CommonPrefixes").leaf("Prefix", &params.name(name)).close("CommonPrefixes");
        }
    }
}

/// `ListObjectsV2`
pub fn version_two(call: &Call<'_>) -> S3Result<Reply> {
    let params = Params::of(call)?;
    let token = call.target.param("continuation-token").filter(|t| !t.is_empty());
    let from_token = token.map(decode_token).transpose()?;
    let order = from_token.as_ref().map_or("", |_| "\no:asc");
    let from_token = from_token.filter(|after| !after.is_empty());
    let after = from_token.unwrap_or_else(|| call.target.param("start-after").unwrap_or_default().to_owned());
    let page = page(call, &params, &after)?;
    let mut doc = Document::new("ListBucketResult");
    doc.leaf("Name", &call.target.bucket).leaf("Prefix", params.prefix);
    doc.optional("ContinuationToken", call.target.param("continuation-token"));
    contents(&mut doc, &params, &page);
    doc.leaf("IsTruncated", if page.truncated { "true" } else { "false" })
        .leaf("MaxKeys", &params.limit.to_string())
        .optional("Delimiter", params.delimiter)
        .optional("EncodingType", params.encoding)
        .leaf("KeyCount", &page.entries.len().to_string());
    common_prefixes(&mut doc, &params, &page);
    // A page that ends with the folder of a key `/x` has an empty name, for which the server makes no token.
    if page.truncated && !page.last.is_empty() {
        doc.leaf("NextContinuationToken", &STANDARD.encode(format!("l:{}{order}", page.last)));
    }
    Ok(Reply::xml(doc))
}

/// `ListObjects`, in which `Marker` is the next marker.
pub fn version_one(call: &Call<'_>) -> S3Result<Reply> {
    let params = Params::of(call)?;
    let page = page(call, &params, call.target.param("marker").unwrap_or_default())?;
    let next = Some(page.last.as_str()).filter(|last| page.truncated && !last.is_empty());
    let mut doc = Document::new("ListBucketResult");
    doc.leaf("Name", &call.target.bucket).leaf("Prefix", params.prefix).optional("Marker", next);
    doc.optional("NextMarker", next.filter(|_| params.delimiter.is_some_and(|d| !d.is_empty())));
    doc.leaf("MaxKeys", &params.limit.to_string())
        .leaf("IsTruncated", if page.truncated { "true" } else { "false" });
    contents(&mut doc, &params, &page);
    common_prefixes(&mut doc, &params, &page);
    doc.optional("EncodingType", params.encoding);
    Ok(Reply::xml(doc))
}

/// The name a token continues after: base64 of lines `letter:value`, of which `l` matters.
pub fn decode_token(token: &str) -> S3Result<String> {
    let invalid = || S3Error::invalid_parameter("Invalid Parameter continuation token");
    // Node's decoder takes tokens with and without padding.
    let bytes = STANDARD_NO_PAD.decode(token.trim_end_matches('=')).map_err(|_| invalid())?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let mut after = String::new();
    for line in text.split('\n') {
        match line.split_once(':') {
            Some(("l", name)) => name.clone_into(&mut after),
            Some(("o" | "c" | "a", _)) => {}
            _ => return Err(invalid()),
        }
    }
    Ok(after)
}
