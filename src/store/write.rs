//! The requests that change a bucket: PUT, copy, delete, multipart.
//!
//! Bodies are sections of files (`section.rs`). They go out plain, with their length and unsigned: the server verifies no checksum, and TLS guards the way.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use aws_sdk_s3::types::{
    CompletedMultipartUpload, CompletedPart, Delete, MetadataDirective, ObjectIdentifier,
};
use tokio::time::{Instant, Sleep, sleep};

use super::clock::Clock;
use super::retry::{Call, Failure};
use super::s3::{Connection, HASH_BYTES_PER_SECOND};
use super::section::SectionBody;
use super::verbatim::spelled;
use super::{Doubt, ObjectHeaders, Part, Section, StoreError, StoreErrorKind};
use crate::content_type::UNTYPED;
use crate::etag::ETag;
use crate::stats::Operation;

/// Keys that one `DeleteObjects` names.
const DELETES: usize = 1000;

/// How long the body of an upload waits for an answer after the connection was cut under the one before. It doubles
/// with each cut up to [`LONGEST_HOLD`].
const FIRST_HOLD: Duration = Duration::from_millis(500);
const LONGEST_HOLD: Duration = Duration::from_secs(4);

/// When a byte of an upload last moved.
#[derive(Debug)]
pub(super) struct Progress {
    begun: Instant,
    /// Milliseconds since `begun`.
    last: AtomicU64,
    attempts: AtomicU32,
    /// Attempts that ended by a connection that was cut.
    cuts: AtomicU32,
    clock: Arc<Clock>,
}

impl Progress {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            begun: Instant::now(),
            last: AtomicU64::new(0),
            attempts: AtomicU32::new(0),
            cuts: AtomicU32::new(0),
            clock: Clock::current(),
        })
    }

    pub(super) fn begin_attempt(&self) {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        self.note();
    }

    /// Bytes moved. Those that are sent again keep their attempt alive and bring the operation no further.
    pub(super) fn moved(&self) {
        self.note();
        if self.attempts.load(Ordering::Relaxed) <= 1 {
            self.clock.progress();
        }
    }

    pub(super) fn note(&self) {
        let since = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(since, Ordering::Relaxed);
    }

    pub(super) fn last(&self) -> Instant {
        self.begun + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }

    /// The connection was cut before an answer was read.
    pub(super) fn note_cut(&self) {
        self.cuts.fetch_add(1, Ordering::Relaxed);
    }

    /// How long the next attempt keeps its body back. The server refuses an upload (413 for its size, 403 for a policy)
    /// by its headers, answers, and closes the connection while the body is still arriving: the reset that follows
    /// overtakes the answer. An attempt that has sent no byte of its body yet is not reset, and its answer is read.
    fn hold(&self, op_timeout: Duration) -> Option<Sleep> {
        let cuts = self.cuts.load(Ordering::Relaxed);
        let wait = FIRST_HOLD.saturating_mul(1 << cuts.checked_sub(1)?.min(10));
        Some(sleep(wait.min(LONGEST_HOLD).min(op_timeout / 3)))
    }
}

/// How much longer a request may take for each object that it deletes.
const DELETING: Duration = Duration::from_millis(30);

/// How much longer than another request one may take that copies this many bytes on the server, and hashes them.
fn copy_allowance(bytes: u64) -> Duration {
    allowance(bytes.saturating_mul(2))
}

/// How much longer than another request one may take for which the server reads or writes this many bytes.
fn allowance(bytes: u64) -> Duration {
    Duration::from_secs(bytes / HASH_BYTES_PER_SECOND)
}

impl Connection {
    fn section_body(&self, section: &Section, progress: &Arc<Progress>) -> ByteStream {
        if section.is_empty() {
            return ByteStream::from_static(b"");
        }
        let hold = progress.hold(self.op_timeout);
        let body = SectionBody::new(section.clone(), Arc::clone(progress), Arc::clone(&self.stats), hold);
        ByteStream::new(SdkBody::from_body_1_x(body))
    }

    pub(super) async fn put(
        &self,
        bucket: &str,
        key: &str,
        headers: &ObjectHeaders,
        section: &Section,
    ) -> Result<ETag, StoreError> {
        let progress = Progress::new();
        let call = Call {
            allowance: allowance(section.len()),
            progress: Some(&progress),
            ..Call::new(Operation::PutObject, bucket, key)
        };
        let answer = self.attempt(call, |place| async {
            let _in_flight = place;
            let output = self
                .client
                .put_object()
                .bucket(bucket)
                .key(spelled(key))
                .set_content_type(headers.content_type.clone())
                .set_cache_control(headers.cache_control.clone())
                .set_metadata(metadata(headers))
                .content_length(i64::try_from(section.len()).unwrap_or(i64::MAX))
                .body(self.section_body(section, &progress))
                .customize()
                .disable_payload_signing()
                .send()
                .await
                .map_err(|error| Failure::of(call, &error))?;
            Ok(ETag::new(output.e_tag().unwrap_or_default()))
        });
        let answer = answer.await;
        self.limits.put(bucket, key, section.len(), &answer);
        answer
    }

    /// `from` is a bucket and a key.
    pub(super) async fn copy(
        &self,
        (from_bucket, from): (&str, &str),
        size: u64,
        (bucket, key): (&str, &str),
        headers: Option<&ObjectHeaders>,
    ) -> Result<ETag, StoreError> {
        if from.ends_with(' ') {
            return self.copy_by_hand((from_bucket, from), size, (bucket, key), headers).await;
        }
        let call = Call { allowance: copy_allowance(size), ..Call::new(Operation::CopyObject, bucket, from) };
        self.attempt(call, |place| {
            Box::pin(async move {
                let _in_flight = place;
                let mut request = self
                    .client
                    .copy_object()
                    .bucket(bucket)
                    .key(spelled(key))
                    // As it is: the server decodes nothing, and a key can hold no percent sign.
                    .copy_source(format!("{from_bucket}/{from}"));
                if let Some(headers) = headers {
                    request = request
                        .metadata_directive(MetadataDirective::Replace)
                        .content_type(kind_of(headers))
                        .set_cache_control(headers.cache_control.clone())
                        .set_metadata(metadata(headers));
                }
                let output = request.send().await.map_err(|error| Failure::of(call, &error))?;
                let result = output.copy_object_result();
                Ok(ETag::new(result.and_then(|result| result.e_tag()).unwrap_or_default()))
            })
        })
        .await
    }

    pub(super) async fn delete(&self, bucket: &str, key: &str) -> Result<(), StoreError> {
        let call = Call::new(Operation::DeleteObject, bucket, key);
        self.attempt(call, |place| async move {
            let _in_flight = place;
            let request = self.client.delete_object().bucket(bucket).key(spelled(key));
            request.send().await.map_err(|error| Failure::of(call, &error))?;
            Ok(())
        })
        .await
    }

    /// The refusals, each with its key.
    pub(super) async fn delete_many(
        &self,
        bucket: &str,
        keys: &[String],
    ) -> Result<Vec<StoreError>, StoreError> {
        let mut refused = Vec::new();
        for keys in keys.chunks(DELETES) {
            let Some(first) = keys.first() else { break };
            let many = u32::try_from(keys.len()).unwrap_or(u32::MAX);
            let call =
                Call { allowance: DELETING * many, ..Call::new(Operation::DeleteObjects, bucket, first) };
            let objects: Vec<_> =
                keys.iter().filter_map(|key| ObjectIdentifier::builder().key(key).build().ok()).collect();
            let delete =
                Delete::builder().set_objects(Some(objects)).build().map_err(|error| StoreError {
                    kind: StoreErrorKind::Refused,
                    operation: call.operation.name(),
                    key: first.clone(),
                    status: 0,
                    code: String::new(),
                    message: error.to_string(),
                })?;
            let delete = &delete;
            let output = self
                .attempt(call, |place| async move {
                    let _in_flight = place;
                    let request = self.client.delete_objects().bucket(bucket).delete(delete.clone());
                    request.send().await.map_err(|error| Failure::of(call, &error))
                })
                .await?;
            refused.extend(output.errors().iter().map(|error| StoreError {
                kind: if error.code() == Some("AccessDenied") {
                    StoreErrorKind::Denied
                } else {
                    StoreErrorKind::Refused
                },
                operation: call.operation.name(),
                key: error.key().unwrap_or_default().to_owned(),
                status: 200,
                code: error.code().unwrap_or_default().to_owned(),
                message: error.message().unwrap_or_default().to_owned(),
            }));
        }
        Ok(refused)
    }

    pub(super) async fn create_upload(
        &self,
        bucket: &str,
        key: &str,
        headers: &ObjectHeaders,
        doubt: &Doubt,
    ) -> Result<String, StoreError> {
        let call = Call { doubt: Some(doubt), ..Call::new(Operation::CreateMultipartUpload, bucket, key) };
        self.attempt(call, |place| {
            Box::pin(async move {
                let _in_flight = place;
                let output = self
                    .client
                    .create_multipart_upload()
                    .bucket(bucket)
                    .key(spelled(key))
                    .content_type(kind_of(headers))
                    .set_cache_control(headers.cache_control.clone())
                    .set_metadata(metadata(headers))
                    .send()
                    .await
                    .map_err(|error| Failure::of(call, &error))?;
                output.upload_id.ok_or_else(|| Failure::protocol(call, "an upload without an id"))
            })
        })
        .await
    }

    pub(super) async fn upload_part(
        &self,
        bucket: &str,
        key: &str,
        id: &str,
        number: u16,
        section: &Section,
    ) -> Result<Part, StoreError> {
        let progress = Progress::new();
        let call = Call {
            allowance: allowance(section.len()),
            progress: Some(&progress),
            ..Call::new(Operation::UploadPart, bucket, key)
        };
        self.attempt(call, |place| async {
            let _in_flight = place;
            self.limits.counts(id, section.len());
            let output = self
                .client
                .upload_part()
                .bucket(bucket)
                .key(spelled(key))
                .upload_id(id)
                .part_number(i32::from(number))
                .content_length(i64::try_from(section.len()).unwrap_or(i64::MAX))
                .body(self.section_body(section, &progress))
                .customize()
                .disable_payload_signing()
                .send()
                .await
                .map_err(|error| self.part_failed(call, Failure::of(call, &error), id, section))?;
            let etag = output.e_tag.ok_or_else(|| Failure::protocol(call, "a part without an ETag"))?;
            Ok(Part { number, etag, size: section.len() })
        })
        .await
    }

    /// What a part that failed tells of the bucket's limits, and whether the server may have it all the same.
    fn part_failed(&self, call: Call<'_>, failure: Failure, id: &str, section: &Section) -> Failure {
        let size = section.len();
        if failure.error.exceeds_a_limit() {
            self.limits.part_refused(call.bucket, call.key, id, size);
        }
        let is_answered = failure.error.status != 0;
        if is_answered || section.sent().load(Ordering::Relaxed) < size {
            self.limits.does_not_count(id, size);
        }
        failure
    }

    pub(super) async fn copy_part(
        &self,
        (bucket, key): (&str, &str),
        id: &str,
        number: u16,
        (from_bucket, from): (&str, &str),
        range: Range<u64>,
    ) -> Result<Part, StoreError> {
        if from.ends_with(' ') {
            return self.copy_part_by_hand((bucket, key), id, number, (from_bucket, from), range).await;
        }
        let call = Call {
            allowance: copy_allowance(range.end - range.start),
            ..Call::new(Operation::UploadPartCopy, bucket, from)
        };
        let range = &range;
        self.attempt(call, |place| async move {
            let _in_flight = place;
            self.limits.counts(id, range.end - range.start);
            let output = self
                .client
                .upload_part_copy()
                .bucket(bucket)
                .key(spelled(key))
                .upload_id(id)
                .part_number(i32::from(number))
                .copy_source(format!("{from_bucket}/{from}"))
                .copy_source_range(format!("bytes={}-{}", range.start, range.end - 1))
                .send()
                .await
                .map_err(|error| Failure::of(call, &error))?;
            let etag = output.copy_part_result.and_then(|result| result.e_tag);
            let etag = etag.ok_or_else(|| Failure::protocol(call, "a part without an ETag"))?;
            Ok(Part { number, etag, size: range.end - range.start })
        })
        .await
    }

    pub(super) async fn complete_upload(
        &self,
        bucket: &str,
        key: &str,
        id: &str,
        parts: &[Part],
    ) -> Result<ETag, StoreError> {
        // A file backend joins and hashes the parts before it answers.
        let size = parts.iter().map(|part| part.size).sum();
        let call = Call {
            allowance: copy_allowance(size),
            ..Call::new(Operation::CompleteMultipartUpload, bucket, key)
        };
        let parts = parts
            .iter()
            .map(|part| {
                CompletedPart::builder().part_number(i32::from(part.number)).e_tag(&part.etag).build()
            })
            .collect();
        let upload = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let upload = &upload;
        let answer = self.attempt(call, |place| async move {
            let _in_flight = place;
            let output = self
                .client
                .complete_multipart_upload()
                .bucket(bucket)
                .key(spelled(key))
                .upload_id(id)
                .multipart_upload(upload.clone())
                .send()
                .await
                .map_err(|error| Failure::of(call, &error))?;
            Ok(ETag::new(output.e_tag().unwrap_or_default()))
        });
        let etag = answer.await?;
        self.limits.ended(id);
        self.limits.accepted(bucket, size);
        Ok(etag)
    }

    pub(super) async fn abort_upload(&self, bucket: &str, key: &str, id: &str) -> Result<(), StoreError> {
        self.limits.ended(id);
        let call = Call::new(Operation::AbortMultipartUpload, bucket, key);
        let result = self
            .attempt(call, |place| async move {
                let _in_flight = place;
                let request =
                    self.client.abort_multipart_upload().bucket(bucket).key(spelled(key)).upload_id(id);
                request.send().await.map_err(|error| Failure::of(call, &error))?;
                Ok(())
            })
            .await;
        match result {
            Err(error) if matches!(error.kind, StoreErrorKind::NoSuchUpload | StoreErrorKind::NotFound) => {
                Ok(())
            }
            other => other,
        }
    }
}

/// The server gives this type to a PUT without one, and none to a copy or an upload in parts.
fn kind_of(headers: &ObjectHeaders) -> &str {
    headers.content_type.as_deref().unwrap_or(UNTYPED)
}

fn metadata(headers: &ObjectHeaders) -> Option<std::collections::HashMap<String, String>> {
    let metadata = &headers.metadata;
    (!metadata.is_empty())
        .then(|| metadata.iter().map(|(name, value)| (name.clone(), value.clone())).collect())
}
