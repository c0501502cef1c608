//! One plain HTTP request, over the TLS stack and the certificates that the S3 client uses: for what is no S3.
//!
//! Redirects are not followed: no service that is asked here sends any, and a token must not go to another host.

use std::env;
use std::error::Error;
use std::fmt;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::{Connector, tls};
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorSettings};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::DateTime;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::{AggregatedBytes, ByteStream};
use aws_smithy_types::date_time::Format;

use crate::obstacle::{Obstacle, Way};
use crate::proxy::Proxy;
use crate::secret::Secret;

/// "Proxy Authentication Required": a proxy's own answer to a request that it was to forward.
pub const PROXY_LOGIN: u16 = 407;

/// What one request gets.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// The server's clock when it answered, in whole seconds.
    pub date: Option<SystemTime>,
    /// How long the server wants to be left alone.
    pub retry_after: Option<Duration>,
    /// Until the head of the answer was here.
    pub round_trip: Duration,
    /// It may hold tokens.
    pub body: Secret,
}

/// Why there was no answer, in words that name the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoAnswer {
    /// What stands in the way, where that is known.
    pub obstacle: Option<Obstacle>,
    words: String,
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl From<String> for NoAnswer {
    fn from(words: String) -> Self {
        Self { obstacle: None, words }
    }
}

impl NoAnswer {
    fn of(error: &(dyn Error + 'static), way: &Way) -> Self {
        match Obstacle::of(error) {
            Some(obstacle) => Self::at(obstacle, way),
            None => Self::from(format!("{}: {}", way.host, causes(error))),
        }
    }

    fn at(obstacle: Obstacle, way: &Way) -> Self {
        Self { words: way.sentence(&obstacle), obstacle: Some(obstacle) }
    }
}

/// A request.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub method: &'static str,
    pub url: &'a str,
    pub headers: &'a [(&'static str, &'a Secret)],
    /// JSON.
    pub body: Option<&'a Secret>,
}

/// Sends a request and waits for each part of the answer for `patience` at most.
///
/// # Errors
/// Why there was no answer: name resolution, connection, TLS, time-out.
pub async fn send(request: Request<'_>, patience: Duration) -> Result<Answer, NoAnswer> {
    send_over(&connector(request.url, patience)?, request, patience).await
}

/// What opens connections to the server of a URL and keeps those that are idle, for more than one request. It waits for a
/// connection, and for each part of an answer, for `patience` at most.
///
/// # Errors
/// When the certificates cannot be read, or a variable names no proxy that can be used.
pub fn connector(url: &str, patience: Duration) -> Result<Connector, String> {
    let settings = HttpConnectorSettings::builder().connect_timeout(patience).read_timeout(patience).build();
    connector_with(url, settings, None)
}

/// [`connector`] with settings of the caller's, which closes connections that were idle for so long.
///
/// # Errors
/// As [`connector`].
pub fn connector_with(
    url: &str,
    settings: HttpConnectorSettings,
    idle: Option<Duration>,
) -> Result<Connector, String> {
    let proxy = match Proxy::to(url)? {
        // The library's own words for what it does not take would show the password.
        Some(proxy) => {
            Some(ProxyConfig::all(proxy.url().expose()).map_err(|_| format!("{proxy} cannot be used"))?)
        }
        None => None,
    };
    let mut builder = Connector::builder()
        .connector_settings(settings)
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .tls_context(tls_context(url)?);
    builder.set_proxy_config(proxy);
    builder.set_pool_idle_timeout(idle.map(Some));
    Ok(builder.build())
}

/// [`send`] over connections that are shared with other requests.
///
/// # Errors
/// As [`send`].
pub async fn send_over(
    connector: &Connector,
    request: Request<'_>,
    patience: Duration,
) -> Result<Answer, NoAnswer> {
    let way = Way::to(request.url, Proxy::to(request.url)?.as_ref());
    let request = build(request)?;
    let began = Instant::now();
    let answer = tokio::time::timeout(patience, connector.call(request))
        .await
        .map_err(|_| NoAnswer::at(Obstacle::Silent, &way))?
        .map_err(|error| NoAnswer::of(&error, &way))?;
    let round_trip = began.elapsed();
    let status = answer.status().as_u16();
    if status == PROXY_LOGIN {
        return Err(NoAnswer::at(Obstacle::ProxyLogin, &way));
    }
    let date = answer.headers().get("date").and_then(|text| DateTime::from_str(text, Format::HttpDate).ok());
    let retry_after = answer.headers().get("retry-after").and_then(|text| text.trim().parse().ok());
    let body = tokio::time::timeout(patience, ByteStream::new(answer.into_body()).collect()).await;
    let body = body.ok().and_then(Result::ok).map(AggregatedBytes::into_bytes).unwrap_or_default();
    Ok(Answer {
        status,
        date: date.and_then(|date| SystemTime::try_from(date).ok()),
        retry_after: retry_after.map(Duration::from_secs),
        round_trip,
        body: Secret::new(String::from_utf8_lossy(&body).into_owned()),
    })
}

/// The same for who has no runtime. No thread is left behind.
///
/// # Errors
/// As [`send`].
pub fn send_blocking(request: Request<'_>, patience: Duration) -> Result<Answer, NoAnswer> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    runtime.block_on(send(request, patience))
}

fn build(request: Request<'_>) -> Result<HttpRequest, String> {
    let Request { method, url, headers, body } = request;
    let content = body.map_or_else(SdkBody::empty, |body| SdkBody::from(body.expose()));
    let mut built = HttpRequest::new(content);
    built.set_method(method).map_err(|error| error.to_string())?;
    built.set_uri(url).map_err(|error| error.to_string())?;
    if body.is_some() {
        built.headers_mut().insert("content-type", "application/json");
    }
    for (name, value) in headers {
        // The library's own words for a value that no header can have would show it.
        built
            .headers_mut()
            .try_insert(*name, value.expose().to_owned())
            .map_err(|_| format!("the header {name} would have characters that no header can have"))?;
    }
    Ok(built)
}

/// The system's certificates (`SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured by their loader), and those of
/// `AWS_CA_BUNDLE`.
///
/// # Errors
/// Where a file that one of the variables names cannot be read or holds no certificate, and the URL needs it.
pub fn tls_context(url: &str) -> Result<tls::TlsContext, String> {
    let mut trust = tls::TrustStore::default();
    let is_needed = url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"));
    if is_needed {
        // The loader would go on without a word, and no server would be trusted.
        certificates("SSL_CERT_FILE")?;
        if let Some(pem) = certificates("AWS_CA_BUNDLE")? {
            trust = trust.with_pem_certificate(pem);
        }
    }
    tls::TlsContext::builder()
        .with_trust_store(trust)
        .build()
        .map_err(|error| format!("cannot set up TLS: {error}"))
}

/// The certificates of the file that a variable names, in PEM.
fn certificates(variable: &str) -> Result<Option<Vec<u8>>, String> {
    let Some(path) = env::var_os(variable).filter(|path| !path.is_empty()) else { return Ok(None) };
    let read = fs::read(&path);
    let path = Path::new(&path).display();
    let pem = read.map_err(|error| {
        format!("cannot read the certificates that {variable} names, {path}: {error}; correct the variable, or unset it")
    })?;
    let holds = |label: &[u8]| pem.windows(label.len()).any(|window| window == label);
    if holds(b"-----BEGIN CERTIFICATE-----") || holds(b"-----BEGIN TRUSTED CERTIFICATE-----") {
        return Ok(Some(pem));
    }
    Err(format!(
        "{path}, which {variable} names, holds no certificate in PEM; name another file, or unset the variable"
    ))
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
