//! What an answer means, and when a request is worth sending again.
//!
//! The SDK's own retries are off: it does not know Supabase's codes (544, 423, the 404 of a read that raced an
//! overwrite), and a deadline belongs to the whole operation, not to one attempt.

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use http::StatusCode;

use super::clock::Clock;
use super::first_answer::obstacle;
use super::policies;
use super::s3::{Connection, InFlight};
use super::write::Progress;
use super::{Doubt, StoreError, StoreErrorKind};
use crate::identity::Renewal;
use crate::obstacle::Obstacle;
use crate::stats::Operation;

/// The first pause between two attempts; it doubles up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(3);

/// Attempts at what may be a lasting fault that looks like a passing one: the server answers 500 also for a
/// name that its disk cannot hold.
const DOUBTFUL_ATTEMPTS: u32 = 6;

/// One request, described for errors and deadlines.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    pub operation: Operation,
    /// Empty where the request is about no bucket.
    pub bucket: &'a str,
    pub key: &'a str,
    /// Time on top of the operation's deadline: a server may hash an object before its first byte.
    pub allowance: Duration,
    /// Of an upload: an attempt goes on as long as bytes move.
    pub progress: Option<&'a Progress>,
    /// Learns of attempts that may have been carried out without an answer.
    pub doubt: Option<&'a Doubt>,
}

impl<'a> Call<'a> {
    pub(super) fn new(operation: Operation, bucket: &'a str, key: &'a str) -> Self {
        Self { operation, bucket, key, allowance: Duration::ZERO, progress: None, doubt: None }
    }
}

/// A failed attempt.
pub(super) struct Failure {
    pub error: StoreError,
    pub(super) verdict: Verdict,
    /// What kept the server from answering, where that is known.
    pub(super) obstacle: Option<Obstacle>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Final,
    /// Passes by itself: again until the deadline.
    Again,
    /// Probably passes: again a few times.
    AgainDoubtful,
    /// Again once the credential has been renewed.
    AfterRenewal,
}

impl Connection {
    /// Sends a request until it succeeds, fails for good, or the deadline has come.
    pub(super) async fn attempt<T, F>(
        &self,
        call: Call<'_>,
        send: impl Fn(InFlight) -> F + Send + Sync,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Failure>> + Send,
    {
        self.attempts(call, send)
            .await
            .map_err(|error| self.policies.attribute(call, &*self.authority, error))
    }

    async fn attempts<T, F>(
        &self,
        call: Call<'_>,
        send: impl Fn(InFlight) -> F + Send + Sync,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Failure>> + Send,
    {
        let op_timeout = self.patience();
        let clock = Clock::current();
        let _running = clock.run();
        if clock.left(op_timeout).is_zero() {
            return Err(timed_out(call).error);
        }
        let mut in_flight = Some(self.begin(&clock).await.ok_or_else(|| timed_out(call).error)?);
        let left = || clock.left(op_timeout) + call.allowance;
        // A hung attempt leaves time for another one before the deadline. What the kernel has taken of an upload is still
        // on its way when no byte has moved here for a while.
        let attempts = if call.progress.is_some() { 2 } else { 3 };
        let patience = op_timeout / attempts + call.allowance;
        let mut renewed = false;
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            let place = match in_flight.take() {
                Some(place) => place,
                None => self.begin(&clock).await.ok_or_else(|| timed_out(call).error)?,
            };
            self.stats.count(call.operation);
            let patience = if call.progress.is_some() { patience } else { left().min(patience) };
            let answer = self.patiently(call, patience, send(place)).await;
            let failure = match answer {
                Some(Ok(value)) => {
                    self.stats.note_answer();
                    self.stats.answers.add(1);
                    if call.operation.stores() {
                        self.stats.stored.add(1);
                    }
                    clock.progress();
                    return Ok(value);
                }
                Some(Err(failure)) => self.heard(failure),
                None => self.heard(timed_out(call)),
            };
            if let Some(doubt) = call.doubt {
                doubt.note(&failure);
            }
            let error = match failure.verdict {
                Verdict::Final => return Err(answered(&clock, failure)),
                Verdict::AgainDoubtful if attempt >= DOUBTFUL_ATTEMPTS => {
                    return Err(answered(&clock, failure));
                }
                Verdict::AfterRenewal if renewed => return Err(answered(&clock, failure)),
                Verdict::AfterRenewal => {
                    self.renew(failure.error).await?;
                    renewed = true;
                    continue;
                }
                Verdict::Again | Verdict::AgainDoubtful => failure.error,
            };
            if let Some(progress) = call.progress
                && error.status == 0
                && error.kind == StoreErrorKind::Unavailable
            {
                progress.note_cut();
            }
            let is_over = match call.progress {
                // Bytes that moved in vain count for nothing: a few attempts, however long each of them took.
                Some(_) => attempt >= DOUBTFUL_ATTEMPTS,
                None => false,
            };
            // Full jitter, so that the clients of a recovering server do not come back in step.
            let wait = pause.mul_f64(rand::random::<f64>());
            if is_over || wait >= left() {
                return Err(error);
            }
            tracing::debug!(%error, attempt, "trying again");
            self.stats.retries.add(1);
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
        unreachable!("the loop ends by a return")
    }

    /// Waits for an answer; `None` where it does not come in time.
    async fn patiently<T>(
        &self,
        call: Call<'_>,
        patience: Duration,
        answer: impl Future<Output = T>,
    ) -> Option<T> {
        let Some(progress) = call.progress else { return tokio::time::timeout(patience, answer).await.ok() };
        progress.begin_attempt();
        let mut answer = std::pin::pin!(answer);
        loop {
            let until = progress.last() + patience;
            match tokio::time::timeout_at(until, &mut answer).await {
                Ok(answer) => return Some(answer),
                Err(_) if progress.last() + patience > until => {}
                Err(_) => return None,
            }
        }
    }

    /// After a 403: `Ok` if the request may be made once more, else what the refusal means.
    async fn renew(&self, mut error: StoreError) -> Result<(), StoreError> {
        let says_expired = error.message.contains("\"exp\" claim");
        match self.authority.renew(says_expired).await {
            Renewal::Renewed => Ok(()),
            Renewal::StillValid => Err(error),
            Renewal::Expired(advice) => {
                error.kind = StoreErrorKind::Expired;
                error.message = advice;
                Err(error)
            }
        }
    }
}

/// The error of a server that has answered.
fn answered(clock: &Clock, failure: Failure) -> StoreError {
    clock.progress();
    failure.error
}

fn timed_out(call: Call<'_>) -> Failure {
    Failure {
        error: StoreError {
            kind: StoreErrorKind::TimedOut,
            operation: call.operation.name(),
            key: call.key.to_owned(),
            status: 0,
            code: String::new(),
            message: "no answer in time".to_owned(),
        },
        verdict: Verdict::Again,
        obstacle: Some(Obstacle::Silent),
    }
}

impl Failure {
    pub(super) fn is_by_policy(&self) -> bool {
        self.error.kind.is_by_policy()
    }

    /// Reads an SDK error: HTTP status first (HEAD has no body, and a backend's code says little).
    pub(super) fn of<E>(call: Call<'_>, error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let status = error.raw_response().map_or(0, |response| response.status().as_u16());
        let code = error.code().unwrap_or_default().to_owned();
        let expired = status == 0 && is_credentials_error(error);
        let is_ours = matches!(error, SdkError::ConstructionFailure(_));
        let (kind, verdict) = if expired {
            (StoreErrorKind::Expired, Verdict::AfterRenewal)
        } else if is_ours {
            // The request cannot even be made, for a key of blanks: it will not be another time either.
            (StoreErrorKind::Refused, Verdict::Final)
        } else {
            meaning(call.operation, status, &code, error.message().unwrap_or_default())
        };
        let message = match (error.message(), StatusCode::from_u16(status)) {
            (Some(message), _) => message.to_owned(),
            // The answer to a HEAD has no body, and a gateway's has none of S3.
            (None, Ok(status)) if status.as_u16() >= 400 => {
                format!("the server gives no reason but {status}")
            }
            _ => in_words(error),
        };
        let obstacle = if expired { None } else { obstacle(error, status) };
        Self {
            error: StoreError {
                kind,
                operation: call.operation.name(),
                key: call.key.to_owned(),
                status,
                code,
                message,
            },
            verdict,
            obstacle,
        }
    }

    /// An answer that contradicts itself.
    pub(super) fn protocol(call: Call<'_>, message: impl Into<String>) -> Self {
        Self {
            error: StoreError {
                kind: StoreErrorKind::Protocol,
                operation: call.operation.name(),
                key: call.key.to_owned(),
                status: 0,
                code: String::new(),
                message: message.into(),
            },
            verdict: Verdict::AgainDoubtful,
            obstacle: None,
        }
    }
}

/// An error with its causes, each once, in the words they have for people.
fn in_words(error: &(dyn Error + 'static)) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut cause = Some(error);
    while let Some(error) = cause {
        let text = error.to_string();
        if !words.iter().any(|earlier| earlier.contains(&text)) {
            words.push(text);
        }
        cause = error.source();
    }
    words.join(": ")
}

fn is_credentials_error(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<CredentialsError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn meaning(operation: Operation, status: u16, code: &str, message: &str) -> (StoreErrorKind, Verdict) {
    use StoreErrorKind as Kind;
    match (status, code) {
        (_, "NoSuchBucket") => (Kind::NoSuchBucket, Verdict::Final),
        // The backend's object is gone while the database row stands: a read raced an overwrite.
        (404, "S3Error") => (Kind::Unavailable, Verdict::AgainDoubtful),
        // A listing always exists: this is a gateway's answer, and must not pass for an empty directory.
        (404, _) if operation == Operation::ListObjectsV2 => (Kind::Unavailable, Verdict::AgainDoubtful),
        (404, "NoSuchUpload") => (Kind::NoSuchUpload, Verdict::Final),
        (404, _) => (Kind::NotFound, Verdict::Final),
        (413, _) => (Kind::TooLarge, Verdict::Final),
        (415, _) => (Kind::UnsupportedType, Verdict::Final),
        (416, _) => (Kind::RangeNotSatisfiable, Verdict::Final),
        (_, "InvalidKey") => (Kind::InvalidKey, Verdict::Final),
        (_, "SignatureDoesNotMatch" | "InvalidAccessKeyId" | "InvalidSignature" | "ExpiredToken") => {
            (Kind::BadCredential, Verdict::AfterRenewal)
        }
        (401 | 403, _) if is_about_the_credential(message) => (Kind::BadCredential, Verdict::AfterRenewal),
        _ if policies::is_raised(status, code, message) => (Kind::PolicyError, Verdict::Final),
        (401 | 403, _) => (Kind::Denied, Verdict::AfterRenewal),
        (500, _) => (Kind::Unavailable, Verdict::AgainDoubtful),
        (0 | 408 | 423 | 425 | 429 | 502.., _) => (Kind::Unavailable, Verdict::Again),
        _ => (Kind::Refused, Verdict::Final),
    }
}

/// Supabase answers `AccessDenied` for a refused credential and for a policy alike; the words differ.
fn is_about_the_credential(message: &str) -> bool {
    [
        "Invalid Access Key",
        "Missing signature",
        "Invalid Service",
        "claim timestamp check failed",
        "signature verification failed",
        "JWS",
        "JWT",
        "Header Parameter",
        "Key for the",
    ]
    .iter()
    .any(|words| message.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_that_raced_an_overwrite_is_not_a_missing_object() {
        assert_eq!(
            meaning(Operation::GetObject, 404, "S3Error", ""),
            (StoreErrorKind::Unavailable, Verdict::AgainDoubtful)
        );
        assert_eq!(
            meaning(Operation::GetObject, 404, "NoSuchKey", ""),
            (StoreErrorKind::NotFound, Verdict::Final)
        );
        assert_eq!(meaning(Operation::GetObject, 404, "", ""), (StoreErrorKind::NotFound, Verdict::Final));
        let listing = meaning(Operation::ListObjectsV2, 404, "", "");
        assert_eq!(listing, (StoreErrorKind::Unavailable, Verdict::AgainDoubtful));
    }

    #[test]
    fn an_overloaded_or_unreachable_server_is_asked_again() {
        for status in [0, 423, 429, 502, 503, 504, 544] {
            assert_eq!(meaning(Operation::GetObject, status, "X", "").1, Verdict::Again, "{status}");
        }
        assert_eq!(meaning(Operation::GetObject, 500, "InternalError", "").1, Verdict::AgainDoubtful);
        assert_eq!(meaning(Operation::GetObject, 501, "NotImplemented", "").1, Verdict::Final);
    }

    #[test]
    fn a_policy_and_a_bad_credential_are_told_apart() {
        let denied =
            meaning(Operation::GetObject, 403, "AccessDenied", "new row violates row-level security policy");
        assert_eq!(denied.0, StoreErrorKind::Denied);
        for words in ["Invalid Access Key", "\"exp\" claim timestamp check failed", "Invalid Compact JWS"] {
            assert_eq!(
                meaning(Operation::GetObject, 403, "AccessDenied", words).0,
                StoreErrorKind::BadCredential
            );
        }
        assert_eq!(
            meaning(Operation::GetObject, 403, "SignatureDoesNotMatch", "").0,
            StoreErrorKind::BadCredential
        );
    }
}
