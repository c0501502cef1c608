//! The S3 client: one HTTP connection pool, one bound on requests in flight, one credential.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, IdentityCache, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives;
use aws_smithy_runtime_api::client::http::{HttpConnectorSettings, SharedHttpConnector, http_client_fn};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::bucket::Bucket;
use super::buckets::Buckets;
use super::check::Checks;
use super::clock::Clock;
use super::limits::Limits;
use super::policies::PolicyErrors;
use super::retry::{Call, Failure};
use super::verbatim::{Verbatim, spelled};
use super::{BucketEntry, ByteStream, GetBody, ObjectHead, ObjectStore, StoreError, StoreErrorKind};
use crate::config::{Root, Service, Tuning};
use crate::etag::ETag;
use crate::http;
use crate::identity::Authority;
use crate::obstacle::Way;
use crate::proxy::Proxy;
use crate::stats::{Operation, Stats};

/// A self-hosted server hashes the whole object before the first byte of a GET; this slow at the worst.
pub(super) const HASH_BYTES_PER_SECOND: u64 = 100_000_000;

/// Below the 60 s after which Supabase's server closes an idle connection.
const POOL_IDLE: Duration = Duration::from_secs(45);

/// A connection to one S3 endpoint under one credential. Cheap to clone.
#[derive(Debug, Clone)]
pub struct S3Service {
    connection: Arc<Connection>,
}

/// What all buckets of a mount share.
pub(super) struct Connection {
    pub client: Client,
    pub authority: Arc<dyn Authority>,
    pub stats: Arc<Stats>,
    pub op_timeout: Duration,
    pub(super) checks: Checks,
    pub(super) limits: Limits,
    /// To the endpoint, for messages.
    pub way: Way,
    pub region: String,
    pub(super) policies: PolicyErrors,
    places: Places,
    /// Nanoseconds.
    round_trip: AtomicU64,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("authority", &self.authority).finish_non_exhaustive()
    }
}

impl S3Service {
    /// Builds the client; sends nothing.
    ///
    /// # Errors
    /// When a certificate file named by `AWS_CA_BUNDLE` cannot be used.
    pub fn new(
        service: &Service,
        provider: SharedCredentialsProvider,
        authority: Arc<dyn Authority>,
        tuning: &Tuning,
        stats: Arc<Stats>,
    ) -> Result<Self, String> {
        let checks = Checks::new(&service.endpoint, provider.clone());
        let connect_timeout = (tuning.op_timeout / 3).min(Duration::from_secs(10));
        let settings = HttpConnectorSettings::builder().connect_timeout(connect_timeout).build();
        let connector = http::connector_with(&service.endpoint, settings, Some(POOL_IDLE))?;
        let connector = SharedHttpConnector::new(connector);
        let proxy = Proxy::to(&service.endpoint)?;
        if let Some(proxy) = &proxy {
            tracing::info!(%proxy, "requests go by way of a proxy");
        }
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(&service.endpoint)
            .region(Region::new(service.region.clone()))
            .force_path_style(true)
            .credentials_provider(provider)
            // The provider answers from memory; the SDK's cache could not be emptied after a 403.
            .identity_cache(IdentityCache::no_cache())
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().connect_timeout(connect_timeout).build())
            // Bodies are paused on purpose when their reader is slow.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .interceptor(Verbatim)
            .http_client(http_client_fn(move |_, _| connector.clone()))
            .build();
        Ok(Self {
            connection: Arc::new(Connection {
                client: Client::from_conf(config),
                authority,
                stats: Arc::clone(&stats),
                op_timeout: tuning.op_timeout,
                checks,
                limits: Limits::default(),
                region: service.region.clone(),
                way: Way::to(&service.endpoint, proxy.as_ref()),
                policies: PolicyErrors::default(),
                places: Places { semaphore: Arc::new(Semaphore::new(tuning.max_requests)), stats },
                round_trip: AtomicU64::new(0),
            }),
        })
    }

    /// The buckets that the credential can list, by name.
    ///
    /// # Errors
    /// When the service refuses or cannot be reached.
    pub async fn buckets(&self) -> Result<Vec<BucketEntry>, StoreError> {
        self.connection.buckets().await
    }

    /// Host and port of the endpoint, for messages.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.connection.way.host
    }

    /// The object store at the root of a mount.
    #[must_use]
    pub fn root(&self, root: &Root) -> Arc<dyn ObjectStore> {
        match root {
            Root::Bucket { bucket, prefix } => Arc::new(self.bucket(bucket, prefix)),
            Root::Buckets { named } => Arc::new(Buckets::new(self.clone(), named.clone())),
        }
    }

    pub(super) fn round_trip(&self) -> Duration {
        self.connection.round_trip()
    }

    pub(super) fn distrust_checks(&self) {
        self.connection.checks.distrust();
    }

    pub(super) fn bucket(&self, bucket: &str, prefix: &str) -> Bucket {
        Bucket::new(Arc::clone(&self.connection), bucket, prefix)
    }
}

/// The bound on requests in flight.
#[derive(Clone)]
struct Places {
    semaphore: Arc<Semaphore>,
    stats: Arc<Stats>,
}

impl Places {
    async fn acquire(&self) -> InFlight {
        let permit =
            Arc::clone(&self.semaphore).acquire_owned().await.expect("the semaphore is never closed");
        self.held(permit)
    }

    fn try_acquire(&self) -> Option<InFlight> {
        Some(self.held(Arc::clone(&self.semaphore).try_acquire_owned().ok()?))
    }

    fn held(&self, permit: OwnedSemaphorePermit) -> InFlight {
        self.stats.in_flight.add(1);
        InFlight { stats: Arc::clone(&self.stats), _permit: permit }
    }
}

/// Held while a request is under way.
pub(super) struct InFlight {
    stats: Arc<Stats>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.stats.in_flight.sub(1);
    }
}

impl Connection {
    /// Waits for a place among the requests in flight. `None`: nothing has moved for the operation time-out. Where
    /// something has, the wait does not count.
    pub(super) async fn begin(&self, clock: &Clock) -> Option<InFlight> {
        if let Some(place) = self.places.try_acquire() {
            return Some(place);
        }
        loop {
            let moved = self.stats.answers.get() + self.stats.bytes_received.get();
            let place = tokio::time::timeout(clock.left(self.op_timeout), self.places.acquire()).await.ok();
            if self.stats.answers.get() + self.stats.bytes_received.get() > moved {
                clock.progress();
            } else if place.is_none() {
                return None;
            }
            if place.is_some() {
                return place;
            }
        }
    }

    /// Notes how long an answer without a body took: the least counts, and is forgotten slowly.
    pub(super) fn note_round_trip(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(1);
        let least = self.round_trip.load(Ordering::Relaxed);
        let next = if least == 0 || nanos < least { nanos } else { least + (nanos - least) / 64 };
        self.round_trip.store(next, Ordering::Relaxed);
    }

    pub(super) fn round_trip(&self) -> Duration {
        Duration::from_nanos(self.round_trip.load(Ordering::Relaxed))
    }

    pub(super) async fn buckets(&self) -> Result<Vec<BucketEntry>, StoreError> {
        let call = Call::new(Operation::ListBuckets, "", "");
        self.attempt(call, |place| async move {
            let _in_flight = place;
            let output =
                self.client.list_buckets().send().await.map_err(|error| Failure::of(call, &error))?;
            let mut buckets: Vec<_> = output
                .buckets
                .unwrap_or_default()
                .into_iter()
                .filter_map(|bucket| {
                    let created = bucket.creation_date.and_then(|date| SystemTime::try_from(date).ok());
                    Some(BucketEntry { name: bucket.name?, created })
                })
                .collect();
            buckets.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(buckets)
        })
        .await
    }

    pub(super) async fn head(&self, bucket: &str, key: &str) -> Result<ObjectHead, StoreError> {
        let call = Call::new(Operation::HeadObject, bucket, key);
        self.attempt(call, |place| {
            Box::pin(async move {
                let _in_flight = place;
                let output = self.client.head_object().bucket(bucket).key(spelled(key)).send().await;
                let output = match output {
                    Ok(output) => output,
                    Err(error) => return Err(Box::pin(self.in_full(call, Failure::of(call, &error))).await),
                };
                Ok(ObjectHead {
                    // An empty object's HEAD has no Content-Length.
                    size: output.content_length.and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
                    etag: ETag::new(output.e_tag().unwrap_or_default()),
                    modified: output.last_modified.and_then(|date| SystemTime::try_from(date).ok()),
                    content_type: output.content_type,
                    cache_control: output.cache_control,
                    metadata: output.metadata.unwrap_or_default().into_iter().collect(),
                })
            })
        })
        .await
    }

    /// What a HEAD failed for: its answer has no body, and a GET of one byte gets the words.
    async fn in_full(&self, call: Call<'_>, failure: Failure) -> Failure {
        if !matches!(failure.error.status, 400 | 500 | 503) {
            return failure;
        }
        let Call { bucket, key, .. } = call;
        self.stats.count(Operation::GetObject);
        let answer =
            self.client.get_object().bucket(bucket).key(spelled(key)).range("bytes=0-0").send().await;
        match answer {
            Err(error) => Some(Failure::of(call, &error)).filter(Failure::is_by_policy).unwrap_or(failure),
            Ok(_) => failure,
        }
    }

    pub(super) async fn get(
        &self,
        bucket: &str,
        key: &str,
        range: Option<Range<u64>>,
        size_hint: u64,
    ) -> Result<GetBody, StoreError> {
        let allowance = Duration::from_secs(size_hint / HASH_BYTES_PER_SECOND);
        let call = Call { allowance, ..Call::new(Operation::GetObject, bucket, key) };
        let range = &range;
        self.attempt(call, |in_flight| async move {
            let sent = Instant::now();
            let header = range.as_ref().map(|range| format!("bytes={}-{}", range.start, range.end - 1));
            let output = self
                .client
                .get_object()
                .bucket(bucket)
                .key(spelled(key))
                .set_range(header)
                .send()
                .await
                .map_err(|error| Failure::of(call, &error))?;
            self.body(call, range.as_ref(), output, sent.elapsed(), in_flight)
        })
        .await
    }

    /// Checks that the answer is what was asked for.
    fn body(
        &self,
        call: Call<'_>,
        wanted: Option<&Range<u64>>,
        output: GetObjectOutput,
        first_byte: Duration,
        in_flight: InFlight,
    ) -> Result<GetBody, Failure> {
        let length = output.content_length.and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        let (range, size) = match (&output.content_range, wanted) {
            (Some(text), _) => parse_content_range(text)
                .ok_or_else(|| Failure::protocol(call, format!("unreadable Content-Range {text:?}")))?,
            // Some backends answer an odd range with the whole object.
            (None, _) => (0..length, length),
        };
        if range.end - range.start != length {
            return Err(Failure::protocol(call, "Content-Length and Content-Range disagree"));
        }
        if wanted.is_some_and(|wanted| range.start != wanted.start || range.end > wanted.end) {
            return Err(Failure::protocol(call, format!("asked for {wanted:?}, got {range:?}")));
        }
        let head = ObjectHead {
            size,
            etag: ETag::new(output.e_tag.as_deref().unwrap_or_default()),
            modified: output.last_modified.and_then(|date| SystemTime::try_from(date).ok()),
            content_type: output.content_type,
            cache_control: output.cache_control,
            metadata: output.metadata.unwrap_or_default().into_iter().collect(),
        };
        let body = Body {
            inner: output.body,
            remaining: length,
            patience: self.op_timeout,
            clock: Clock::current(),
            key: call.key.to_owned(),
            in_flight: Some(in_flight),
            places: self.places.clone(),
            stats: Arc::clone(&self.stats),
        };
        Ok(GetBody { head, range, first_byte, body: Box::new(body) })
    }
}

/// `bytes 0-9/100` as the range `0..10` and the size 100.
fn parse_content_range(text: &str) -> Option<(Range<u64>, u64)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, size) = (first.parse().ok()?, last.parse::<u64>().ok()?, size.parse().ok()?);
    (first <= last && last < size).then_some((first..last + 1, size))
}

struct Body {
    inner: primitives::ByteStream,
    remaining: u64,
    patience: Duration,
    clock: Arc<Clock>,
    key: String,
    /// Given back as soon as the last byte is here, and while the reader does not want more.
    in_flight: Option<InFlight>,
    places: Places,
    stats: Arc<Stats>,
}

impl Body {
    fn failed(&self, kind: StoreErrorKind, message: String) -> StoreError {
        StoreError {
            kind,
            operation: Operation::GetObject.name(),
            key: self.key.clone(),
            status: 0,
            code: String::new(),
            message,
        }
    }
}

#[async_trait]
impl ByteStream for Body {
    fn pause(&mut self) {
        self.in_flight = None;
    }

    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        if self.remaining == 0 {
            self.in_flight = None;
            return Ok(None);
        }
        if self.in_flight.is_none() {
            self.in_flight = Some(self.places.acquire().await);
        }
        let running = self.clock.run();
        let piece = tokio::time::timeout(self.clock.left(self.patience), self.inner.next()).await;
        if piece.is_ok() {
            self.clock.progress();
        }
        drop(running);
        let piece = piece
            .map_err(|_| self.failed(StoreErrorKind::TimedOut, "the body stopped arriving".to_owned()))?;
        match piece {
            Some(Ok(bytes)) if bytes.len() as u64 <= self.remaining => {
                self.remaining -= bytes.len() as u64;
                self.stats.bytes_received.add(bytes.len() as u64);
                if self.remaining == 0 {
                    // Lets the connection go back to the pool and the next request begin.
                    let _end = self.inner.next().await;
                    self.in_flight = None;
                }
                Ok(Some(bytes))
            }
            Some(Ok(_)) => {
                Err(self.failed(StoreErrorKind::Protocol, "the body is longer than announced".to_owned()))
            }
            Some(Err(error)) => Err(self.failed(StoreErrorKind::Unavailable, error.to_string())),
            None => Err(self.failed(
                StoreErrorKind::Unavailable,
                format!("the body ended {} bytes early", self.remaining),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_range_is_read_as_a_half_open_range() {
        assert_eq!(parse_content_range("bytes 0-9/100"), Some((0..10, 100)));
        assert_eq!(parse_content_range("bytes 5-5/6"), Some((5..6, 6)));
        for bad in ["bytes 9-0/100", "bytes 0-100/100", "bytes */100", "0-9/100", "bytes 0-9/*"] {
            assert_eq!(parse_content_range(bad), None, "{bad}");
        }
    }
}
