//! Whether an object may be uploaded, by one request that stores nothing.
//!
//! Supabase's REST API has a route that makes a URL for an upload (`POST /object/upload/sign/<bucket>/<key>`). Before
//! it does, it runs the check of an upload in a transaction that it rolls back (storage's `signUploadObjectUrl` and
//! `canUpload`); with `x-upsert: true` it is the check of S3's PUT. The URL itself is thrown away.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_smithy_http_client::Connector;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::UploadCheck;
use super::clock::Clock;
use super::s3::Connection;
use crate::http::{self, Request};
use crate::secret::Secret;
use crate::stats::Operation;

/// Characters of a key that stand for themselves in a URL.
const IN_PATHS: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// How long a check waits for its answer: whoever opens a file waits for it.
const PATIENCE: Duration = Duration::from_secs(3);

/// How checks are sent.
pub(super) struct Checks {
    provider: SharedCredentialsProvider,
    /// What the routes of the REST API begin with, where the endpoint tells.
    api: Option<String>,
    /// S3 has allowed what the API did not: it is not asked again.
    is_misleading: AtomicBool,
    connector: OnceLock<Result<Connector, String>>,
}

impl Checks {
    pub(super) fn new(endpoint: &str, provider: SharedCredentialsProvider) -> Self {
        let api = endpoint.strip_suffix("/s3/").map(|api| format!("{api}/"));
        Self { provider, api, is_misleading: AtomicBool::new(false), connector: OnceLock::new() }
    }

    pub(super) fn distrust(&self) {
        self.is_misleading.store(true, Ordering::Relaxed);
    }

    async fn send(&self, bucket: &str, key: &str, content_type: Option<&str>) -> Result<u16, String> {
        let api = self.api.as_ref().ok_or("the endpoint does not end in /s3")?;
        let credentials = self.provider.provide_credentials().await.map_err(|error| error.to_string())?;
        let token = credentials.session_token().ok_or("there is no user")?;
        let escaped = |text| utf8_percent_encode(text, IN_PATHS);
        let url = format!("{api}object/upload/sign/{}/{}", escaped(bucket), escaped(key));
        let bearer = Secret::new(format!("Bearer {token}"));
        let api_key = Secret::new(credentials.secret_access_key());
        let upsert = Secret::new("true");
        let content_type = content_type.map(Secret::new);
        let mut headers = vec![("authorization", &bearer), ("apikey", &api_key), ("x-upsert", &upsert)];
        headers.extend(content_type.as_ref().map(|kind| ("content-type", kind)));
        // The server insists on a document where the type says that there is one.
        let empty = Secret::new("{}");
        let is_json = content_type.as_ref().is_some_and(|kind| kind.expose() == "application/json");
        let body = is_json.then_some(&empty);
        let connector = self.connector.get_or_init(|| http::connector(api, PATIENCE)).as_ref()?;
        let request = Request { method: "POST", url: &url, headers: &headers, body };
        let answer = http::send_over(connector, request, PATIENCE).await;
        answer.map(|answer| answer.status).map_err(|error| error.to_string())
    }
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
        match checks.send(bucket, key, content_type).await {
            Ok(200) => UploadCheck::Allowed,
            Ok(429 | 500..) => UploadCheck::NoAnswer,
            Ok(status) => {
                tracing::debug!(key, status, "the API does not allow an upload");
                UploadCheck::Doubtful
            }
            Err(error) => {
                tracing::debug!(key, %error, "the API does not tell whether an upload is allowed");
                UploadCheck::NoAnswer
            }
        }
    }
}
