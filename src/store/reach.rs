//! One plain request without a signature: whether the endpoint can be reached, what answers there, and what
//! time it has.

use std::error::Error;
use std::time::{Duration, Instant, SystemTime};

use aws_smithy_http_client::{Connector, tls};
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorSettings};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::DateTime;
use aws_smithy_types::byte_stream::{AggregatedBytes, ByteStream};
use aws_smithy_types::date_time::Format;

/// An error document is shorter.
const LOOK_AT: usize = 4096;

/// What answered.
#[derive(Debug, Clone)]
pub struct Reached {
    pub status: u16,
    /// The server's clock when it answered, in whole seconds.
    pub date: Option<SystemTime>,
    pub round_trip: Duration,
    /// Whether the answer is an S3 error document, as an unsigned request should get.
    pub speaks_s3: bool,
}

/// Sends `GET <endpoint>` and waits for the answer's head for `patience` at most.
///
/// # Errors
/// Why there was no answer: name resolution, connection, TLS, time-out.
pub async fn reach(endpoint: &str, patience: Duration) -> Result<Reached, String> {
    let settings = HttpConnectorSettings::builder().connect_timeout(patience).read_timeout(patience).build();
    let connector = Connector::builder()
        .connector_settings(settings)
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .tls_context(super::s3::tls_context()?)
        .build();
    let request = HttpRequest::get(endpoint).map_err(|error| error.to_string())?;
    let began = Instant::now();
    let answer = tokio::time::timeout(patience, connector.call(request))
        .await
        .map_err(|_| format!("no answer within {} s", patience.as_secs()))?
        .map_err(|error| causes(&error))?;
    let round_trip = began.elapsed();
    let status = answer.status().as_u16();
    let date = answer.headers().get("date").and_then(|text| DateTime::from_str(text, Format::HttpDate).ok());
    let body = tokio::time::timeout(patience, ByteStream::new(answer.into_body()).collect()).await;
    let body = body.ok().and_then(Result::ok).map(AggregatedBytes::into_bytes).unwrap_or_default();
    let text = String::from_utf8_lossy(&body[..body.len().min(LOOK_AT)]).into_owned();
    Ok(Reached {
        status,
        date: date.and_then(|date| SystemTime::try_from(date).ok()),
        round_trip,
        speaks_s3: text.contains("<Error") && text.contains("<Code>"),
    })
}

/// An error with its causes: the last one is the one that helps.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        next = cause.source();
    }
    text
}
