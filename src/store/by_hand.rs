//! Copies of objects whose key ends in a space.
//!
//! `x-amz-copy-source` names the source of a copy. HTTP drops the spaces at the end of a header's value, and the server
//! decodes no escape in it, so that no header can name such a key. The bytes are fetched and sent.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::s3::Connection;
use super::{GetBody, ObjectHead, ObjectHeaders, Part, Section, StoreError, StoreErrorKind};
use crate::etag::ETag;
use crate::stats::Operation;

impl Connection {
    /// As [`copy`](Self::copy).
    pub(super) async fn copy_by_hand(
        &self,
        (from_bucket, from): (&str, &str),
        size: u64,
        (bucket, key): (&str, &str),
        headers: Option<&ObjectHeaders>,
    ) -> Result<ETag, StoreError> {
        let got = self.get(from_bucket, from, None, size).await?;
        let (head, section) = kept(from, got, Operation::CopyObject).await?;
        let own = ObjectHeaders::from(head);
        self.put(bucket, key, headers.unwrap_or(&own), &section).await
    }

    /// As [`copy_part`](Self::copy_part).
    pub(super) async fn copy_part_by_hand(
        &self,
        (bucket, key): (&str, &str),
        id: &str,
        number: u16,
        (from_bucket, from): (&str, &str),
        range: Range<u64>,
    ) -> Result<Part, StoreError> {
        let got = self.get(from_bucket, from, Some(range.clone()), range.end).await?;
        let (_, section) = kept(from, got, Operation::UploadPartCopy).await?;
        if section.len() != range.end - range.start {
            let message = format!("asked for {} bytes, got {}", range.end - range.start, section.len());
            return Err(failed(from, Operation::UploadPartCopy, StoreErrorKind::Protocol, message));
        }
        self.upload_part(bucket, key, id, number, &section).await
    }
}

/// The bytes of an answer in a file without a name: an upload that fails is read again.
async fn kept(
    key: &str,
    mut got: GetBody,
    operation: Operation,
) -> Result<(ObjectHead, Section), StoreError> {
    let unkept = |error: io::Error| {
        let message = format!("cannot keep the object for a moment: {error}");
        failed(key, operation, StoreErrorKind::Unavailable, message)
    };
    let file = tempfile::tempfile().map_err(unkept)?;
    let mut at = 0;
    while let Some(bytes) = got.body.next().await? {
        File::write_all_at(&file, &bytes, at).map_err(unkept)?;
        at += bytes.len() as u64;
    }
    Ok((got.head, Section::new(Arc::new(file), 0..at)))
}

fn failed(key: &str, operation: Operation, kind: StoreErrorKind, message: String) -> StoreError {
    StoreError {
        kind,
        operation: operation.name(),
        key: key.to_owned(),
        status: 0,
        code: String::new(),
        message,
    }
}
