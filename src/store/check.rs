//! What the REST API tells beforehand: whether an object may be uploaded, by one request that stores nothing, and the
//! row of a bucket.
//!
//! Supabase's REST API has a route that makes a URL for an upload (`POST /object/upload/sign/<bucket>/<key>`). Before
//! it does, it runs the check of an upload in a transaction that it rolls back (storage's `signUploadObjectUrl` and
//! `canUpload`); with `x-upsert: true` it is the check of S3's PUT. The URL itself is thrown away.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_smithy_http_client::Connector;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use serde::Deserialize;

use super::clock::Clock;
use super::retry::Call;
use super::s3::Connection;
use super::{StoreError, StoreErrorKind, UploadCheck, policies};
use crate::http::{self, Answer, Request};
use crate::secret::Secret;
use crate::stats::Operation;

/// Characters of a key that stand for themselves in a URL.
const IN_PATHS: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// How long a check waits for its answer: whoever opens a file waits for it.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// How checks are sent.
pub(super) struct Checks {
    provider: SharedCredentialsProvider,
    /// What the routes of the REST API begin with, where the endpoint tells.
    api: Option<String>,
    /// S3 has allowed what the API did not: it is not asked again.
    is_misleading: AtomicBool,
    connector: OnceLock<Result<Connector, String>>,
    has_user: OnceLock<bool>,
}

impl Checks {
    pub(super) fn new(endpoint: &str, provider: SharedCredentialsProvider) -> Self {
        let api = endpoint.strip_suffix("/s3/").map(|api| format!("{api}/"));
        Self {
            provider,
            api,
            is_misleading: AtomicBool::new(false),
            connector: OnceLock::new(),
            has_user: OnceLock::new(),
        }
    }

    pub(super) fn distrust(&self) {
        self.is_misleading.store(true, Ordering::Relaxed);
    }

    /// Whether there is an API to ask, and a user to ask it as: access keys sign no request of the API's.
    pub(super) async fn has_user(&self) -> bool {
        if let Some(known) = self.has_user.get() {
            return *known;
        }
        let Ok(credentials) = self.provider.provide_credentials().await else { return false };
        *self.has_user.get_or_init(|| self.api.is_some() && credentials.session_token().is_some())
    }

    async fn upload(&self, bucket: &str, key: &str, content_type: Option<&str>) -> Result<Answer, String> {
        let route = format!("object/upload/sign/{}/{}", escaped(bucket), escaped(key));
        let upsert = Secret::new("true");
        let content_type = content_type.map(Secret::new);
        let mut headers = vec![("x-upsert", &upsert)];
        headers.extend(content_type.as_ref().map(|kind| ("content-type", kind)));
        // The server insists on a document where the type says that there is one.
        let empty = Secret::new("{}");
        let is_json = content_type.as_ref().is_some_and(|kind| kind.expose() == "application/json");
        let body = is_json.then_some(&empty);
        self.send("POST", &route, headers, body).await
    }

    /// The row of a bucket, as far as policies on `storage.buckets` show it.
    pub(super) async fn bucket(&self, bucket: &str) -> Result<Answer, String> {
        self.send("GET", &format!("bucket/{}", escaped(bucket)), vec![], None).await
    }

    async fn send<'a>(
        &self,
        method: &'static str,
        route: &str,
        mut headers: Vec<(&'static str, &'a Secret)>,
        body: Option<&'a Secret>,
    ) -> Result<Answer, String> {
        let api = self.api.as_ref().ok_or("the endpoint does not end in /s3")?;
        let credentials = self.provider.provide_credentials().await.map_err(|error| error.to_string())?;
        let token = credentials.session_token().ok_or("there is no user")?;
        let bearer = Secret::new(format!("Bearer {token}"));
        let api_key = Secret::new(credentials.secret_access_key());
        headers.extend([("authorization", &bearer), ("apikey", &api_key)]);
        let connector = self.connector.get_or_init(|| http::connector(api, PATIENCE)).as_ref()?;
        let url = format!("{api}{route}");
        let request = Request { method, url: &url, headers: &headers, body };
        http::send_over(connector, request, PATIENCE).await.map_err(|error| error.to_string())
    }
}

/// An error of the REST API, as it describes it.
#[derive(Deserialize)]
struct Described {
    code: String,
    message: String,
}

/// The error that a policy raised, where that is the answer.
fn raised(answer: &Answer, key: &str) -> Option<StoreError> {
    let Described { code, message } = serde_json::from_str(answer.body.expose()).ok()?;
    policies::is_raised(answer.status, &code, &message).then(|| StoreError {
        kind: StoreErrorKind::PolicyError,
        operation: Operation::SignUploadUrl.name(),
        key: key.to_owned(),
        status: answer.status,
        code,
        message,
    })
}

/// A part of a route.
fn escaped(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, IN_PATHS)
}

impl Connection {
    pub(super) async fn check_upload(
        &self,
        bucket: &str,
        key: &str,
        content_type: Option<&str>,
    ) -> UploadCheck {
        let checks = &self.checks;
        if checks.api.is_none() || checks.is_misleading.load(Ordering::Relaxed) {
            return UploadCheck::Doubtful;
        }
        let Some(_in_flight) = self.begin(&Clock::current()).await else { return UploadCheck::NoAnswer };
        self.stats.count(Operation::SignUploadUrl);
        let answer = match checks.upload(bucket, key, content_type).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(key, %error, "the API does not tell whether an upload is allowed");
                return UploadCheck::NoAnswer;
            }
        };
        if answer.status == 200 {
            return UploadCheck::Allowed;
        }
        if let Some(error) = raised(&answer, key) {
            let call = Call::new(Operation::SignUploadUrl, bucket, key);
            let error = self.policies.attribute(call, &*self.authority, error);
            let is_by_policy = error.kind == StoreErrorKind::PolicyError;
            return if is_by_policy { UploadCheck::Refused(error) } else { UploadCheck::NoAnswer };
        }
        if matches!(answer.status, 429 | 500..) {
            return UploadCheck::NoAnswer;
        }
        tracing::debug!(key, status = answer.status, "the API does not allow an upload");
        UploadCheck::Doubtful
    }
}
