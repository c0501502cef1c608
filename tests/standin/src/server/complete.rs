//! `CompleteMultipartUpload`: which parts make the object, and in which order.

use std::sync::Arc;

use super::input::Input;
use super::multipart::{other_key, upload_id};
use super::put::check_write;
use super::reply::Reply;
use super::{Backend, Call};
use crate::error::{S3Error, S3Result};
use crate::store::content::Content;
use crate::store::etag::{self, Etag};
use crate::store::object::{Object, default_cache, default_type};
use crate::store::uploads::{Part, Upload};
use crate::xml::{self, Document};

/// The s3 backend takes no smaller part but the last.
const MIN_PART: u64 = 5 * 1024 * 1024;

const BAD_PART: &str = "One or more of the specified parts could not be found.  The part may not have been uploaded, or the specified entity tag may not match the part's entity tag.";
const TOO_SMALL: &str = "Your proposed upload is smaller than the minimum allowed object size.";
const BAD_ORDER: &str = "The list of parts was not in ascending order. Parts must be ordered by part number.";

/// A part as the client lists it.
type Listed = (u32, String);

/// `CompleteMultipartUpload`
pub async fn complete(call: &Call<'_>, input: &mut Input) -> S3Result<Reply> {
    let listed = listed_parts(call, input).await?;
    let id = upload_id(call);
    if id.is_empty() {
        return Err(S3Error::new(400, "InvalidUploadId", "Invalid upload id"));
    }
    let (bucket, key) = (&call.target.bucket, &call.target.key);
    let upload = call.shared.store.uploads.with(id, |upload| upload.clone())?;
    check_write(call, bucket, key)?;
    let listed = if listed.is_empty() { recorded(&upload) } else { listed };
    let parts = match call.shared.backend {
        Backend::File => file_parts(call, &upload, &listed)?,
        Backend::S3 => s3_parts(call, &upload, &listed)?,
    };
    let object = tokio::task::block_in_place(|| assemble(call, &upload, &parts))?;
    // Whoever ends the upload makes the object; the slower of two has no upload any more.
    call.shared.store.uploads.remove(id)?;
    let object = tokio::task::block_in_place(|| call.shared.store.put(bucket, key, object))?;
    let mut doc = Document::new("CompleteMultipartUploadResult");
    doc.leaf("Location", &format!("{bucket}/{key}"))
        .leaf("Bucket", bucket)
        .leaf("Key", key)
        .leaf("ETag", &object.quoted_etag());
    Ok(Reply::xml(doc))
}

/// Every part ever recorded, replaced ones included: why a part that was uploaded twice breaks this.
fn recorded(upload: &Upload) -> Vec<Listed> {
    let mut rows: Vec<Listed> = upload.rows.iter().map(|row| (row.number, row.etag.clone())).collect();
    rows.sort_by_key(|(number, _)| *number);
    rows
}

/// The file backend: tags compared as strings, parts taken in the order listed. All parts are looked for at
/// once, so that a missing one is reported before one that is there with another tag.
fn file_parts(call: &Call<'_>, upload: &Upload, listed: &[Listed]) -> S3Result<Vec<Part>> {
    let own = upload.is_for(&call.target.bucket, &call.target.key);
    let part = |number: &u32| upload.parts.get(number).filter(|_| own);
    if let Some((number, _)) = listed.iter().find(|(number, _)| part(number).is_none()) {
        let message = format!("Part {number} is missing for upload id {}", upload_id(call));
        return Err(S3Error::new(400, "MissingPart", message));
    }
    if !own {
        return Err(other_key(call));
    }
    let mut parts = Vec::with_capacity(listed.len());
    for (number, etag) in listed {
        let Some(part) = part(number).filter(|part| hex::encode(part.hash) == *etag) else {
            return Err(S3Error::new(400, "InvalidChecksum", format!("Invalid ETag for part {number}")));
        };
        parts.push(part.clone());
    }
    Ok(parts)
}

/// The s3 backend: quotes do not matter, order and sizes do.
fn s3_parts(call: &Call<'_>, upload: &Upload, listed: &[Listed]) -> S3Result<Vec<Part>> {
    if !upload.is_for(&call.target.bucket, &call.target.key) {
        return Err(other_key(call));
    }
    if listed.is_empty() {
        return Err(S3Error::backend(400, "You must specify at least one part"));
    }
    if listed.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
        return Err(S3Error::backend(400, BAD_ORDER));
    }
    let mut parts = Vec::with_capacity(listed.len());
    for (number, etag) in listed {
        let part = upload.parts.get(number).filter(|part| hex::encode(part.hash) == etag.trim_matches('"'));
        parts.push(part.cloned().ok_or_else(|| S3Error::backend(400, BAD_PART))?);
    }
    if parts.iter().rev().skip(1).any(|part| part.content.size() < MIN_PART) {
        return Err(S3Error::backend(400, TOO_SMALL));
    }
    Ok(parts)
}

/// The object of the parts. Blocking: the file backend hashes it all again.
fn assemble(call: &Call<'_>, upload: &Upload, parts: &[Part]) -> S3Result<Object> {
    let content = Content::join(parts.iter().map(|part| part.content.clone()));
    let etag = match call.shared.backend {
        Backend::S3 => etag::of_parts(&parts.iter().map(|part| part.hash).collect::<Vec<_>>()),
        Backend::File => match parts {
            [only] => Etag::plain(only.hash),
            _ => Etag::plain(etag::of_content(&content, call.shared.store.hashes())?),
        },
    };
    let mut object = Object::new(content, etag);
    object.content_type = upload.content_type.clone().or_else(|| Some(default_type()));
    object.cache_control = upload.cache_control.clone().or_else(|| Some(default_cache()));
    object.metadata.clone_from(&upload.metadata);
    object.owner = call.identity.sub.as_deref().map(Arc::from);
    Ok(object)
}

/// The parts a client lists; none if it sends no document the server parses, which means all.
async fn listed_parts(call: &Call<'_>, input: &mut Input) -> S3Result<Vec<Listed>> {
    let kind = call.header("content-type").unwrap_or_default();
    let body = input.document(call).await?;
    if kind.starts_with("text/plain") {
        return Err(S3Error::invalid_request("Body must be object"));
    }
    let is_xml = ["application/xml", "text/xml"].iter().any(|k| kind.starts_with(k));
    if !is_xml || body.is_empty() {
        return Ok(Vec::new());
    }
    parts_of(&xml::elements(&body)?)
}

/// The parts of a document, or the complaint of the server's schema. Another root lists none.
fn parts_of(elements: &[(String, String)]) -> S3Result<Vec<Listed>> {
    let refuse = |at: &str, what: &str| {
        Err(S3Error::invalid_request(format!("Body, CompleteMultipartUpload{at} must {what}")))
    };
    match elements.last() {
        Some((root, _)) if root == "CompleteMultipartUpload" => {}
        _ => return Ok(Vec::new()),
    }
    if elements.len() == 1 {
        return refuse("", "be object");
    }
    let mut parts: Vec<Listed> = Vec::new();
    let (mut number, mut etag, mut children) = (None, None, 0);
    for (path, text) in elements {
        match path.strip_prefix("CompleteMultipartUpload/Part") {
            Some("") => {
                let at = format!(", Part, {}", parts.len());
                let (number, etag) = match (number.take(), etag.take()) {
                    _ if children == 0 => return refuse(&at, "be object"),
                    (None, _) => return refuse(&at, "have required property 'PartNumber'"),
                    (_, None) => return refuse(&at, "have required property 'ETag'"),
                    (Some(number), Some(etag)) => (number, etag),
                };
                let number = match str::parse::<i64>(number) {
                    Err(_) => return refuse(&format!("{at}, PartNumber"), "be integer"),
                    Ok(n) if n < 1 => return refuse(&format!("{at}, PartNumber"), "be >= 1"),
                    Ok(n) if n > 10_000 => return refuse(&format!("{at}, PartNumber"), "be <= 10000"),
                    Ok(n) => u32::try_from(n).unwrap_or(0),
                };
                parts.push((number, String::clone(etag)));
                children = 0;
            }
            Some(child) => {
                children += 1;
                match child {
                    "/PartNumber" => number = Some(text.trim()),
                    "/ETag" => etag = Some(text),
                    _ => {}
                }
            }
            None => {}
        }
    }
    Ok(parts)
}
