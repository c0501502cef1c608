//! `ListParts` and `ListMultipartUploads`. Their tables have no policies, so that users see nothing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Call;
use super::listing::{decode_token, encode_component};
use super::multipart::{query_number, upload_id};
use super::reply::Reply;
use crate::clock;
use crate::error::{S3Error, S3Result};
use crate::store::uploads::PartRow;
use crate::xml::Document;

fn flag(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

/// A limit from the query, 1000 if absent.
fn limit(call: &Call<'_>, name: &str) -> S3Result<usize> {
    let limit = if call.target.param(name).is_some() { query_number(call, name, 1..=1000)? } else { 1000 };
    Ok(limit as usize)
}

/// `ListParts`: every row, also those of parts that were replaced.
pub fn parts(call: &Call<'_>) -> S3Result<Reply> {
    let limit = limit(call, "max-parts")?;
    let id = upload_id(call);
    if id.is_empty() {
        return Err(S3Error::missing_parameter("UploadId"));
    }
    let mut rows: Vec<PartRow> = call.shared.store.uploads.with(id, |upload| upload.rows.clone())?;
    let marker = call.target.param("part-number-marker").filter(|m| !m.is_empty());
    let after = marker.map_or(Ok(0), str::parse).map_err(|_| S3Error::internal())?;
    rows.retain(|row| row.number > after && call.identity.bypasses_policies());
    rows.sort_by_key(|row| row.number);
    let truncated = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| truncated).map(|row| row.number.to_string());
    let mut doc = Document::new("ListPartsResult");
    doc.leaf("Bucket", &call.target.bucket)
        .leaf("Key", &call.target.key)
        .leaf("UploadId", id)
        .optional("PartNumberMarker", marker)
        .optional("NextPartNumberMarker", next.as_deref())
        .leaf("MaxParts", &limit.to_string())
        .leaf("IsTruncated", flag(truncated));
    for row in rows {
        doc.open("Part")
            .leaf("PartNumber", &row.number.to_string())
            .leaf("LastModified", &clock::iso(row.created_at))
            .leaf("ETag", &row.etag)
            .close("Part");
    }
    Ok(Reply::xml(doc))
}

/// An upload, or a folder of some.
enum Entry {
    Upload { key: String, id: String, created_at: i64 },
    Folder(String),
}

/// `ListMultipartUploads`
pub fn uploads(call: &Call<'_>) -> S3Result<Reply> {
    let limit = limit(call, "max-uploads")?;
    let encoding = call.target.param("encoding-type");
    let bucket = &call.target.bucket;
    if call.shared.store.read(bucket, |_| ()).is_none() {
        return Err(S3Error::no_such_bucket());
    }
    let mut entries = found(call)?;
    let truncated = entries.len() > limit;
    entries.truncate(limit);
    let name = |key: &str| if encoding.is_some() { encode_component(key) } else { key.to_owned() };
    let mut doc = Document::new("ListMultipartUploadsResult");
    doc.leaf("Name", bucket).leaf("Prefix", call.target.param("prefix").unwrap_or_default());
    doc.optional("KeyMarker", call.target.param("key-marker"));
    doc.optional("UploadIdMarker", call.target.param("upload-id-marker"));
    if let Some(last) = entries.last().filter(|_| truncated) {
        let (key, id) = match last {
            Entry::Upload { key, id, .. } => (key, id.as_str()),
            Entry::Folder(key) => (key, ""),
        };
        doc.leaf("NextKeyMarker", &STANDARD.encode(format!("l:{key}")));
        doc.leaf("NextUploadIdMarker", &STANDARD.encode(format!("l:{id}")));
    }
    for entry in &entries {
        if let Entry::Upload { key, id, created_at } = entry {
            doc.open("Upload")
                .leaf("Key", &name(key))
                .leaf("Initiated", &clock::iso(*created_at))
                .leaf("UploadId", id)
                .leaf("StorageClass", "STANDARD")
                .close("Upload");
        }
    }
    doc.leaf("IsTruncated", flag(truncated))
        .leaf("MaxUploads", &limit.to_string())
        .optional("Delimiter", call.target.param("delimiter"))
        .optional("EncodingType", encoding)
        .leaf("KeyCount", &entries.len().to_string());
    for entry in &entries {
        if let Entry::Folder(key) = entry {
            doc.open("CommonPrefixes").leaf("Prefix", &name(key)).close("CommonPrefixes");
        }
    }
    Ok(Reply::xml(doc))
}

/// The uploads after the markers. A prefix matches whatever its case, as it does on the real server.
fn found(call: &Call<'_>) -> S3Result<Vec<Entry>> {
    let marker = |name| {
        let token = call.target.param(name).filter(|t| !t.is_empty());
        token.map_or_else(|| Ok(String::new()), decode_token)
    };
    let (after_key, after_id) = (marker("key-marker")?, marker("upload-id-marker")?);
    let prefix = call.target.param("prefix").unwrap_or_default().to_lowercase();
    let mut entries: Vec<Entry> = Vec::new();
    for (key, id, created_at) in call.shared.store.uploads.of_bucket(&call.target.bucket) {
        let past = key > after_key || key == after_key && !after_id.is_empty() && id > after_id;
        if !call.identity.bypasses_policies() || !past || !key.to_lowercase().starts_with(&prefix) {
            continue;
        }
        let delimiter = call.target.param("delimiter").filter(|d| !d.is_empty());
        let folder = delimiter.and_then(|delimiter| {
            let end = key.get(prefix.len()..)?.find(delimiter)? + prefix.len() + delimiter.len();
            key.get(..end).map(str::to_owned)
        });
        match (folder, entries.last()) {
            (Some(folder), Some(Entry::Folder(last))) if folder == *last => {}
            (Some(folder), _) => entries.push(Entry::Folder(folder)),
            (None, _) => entries.push(Entry::Upload { key, id, created_at }),
        }
    }
    Ok(entries)
}
