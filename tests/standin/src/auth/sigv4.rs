//! AWS Signature Version 4 as the server checks it: the canonical URI is the raw path as received, the
//! query is decoded and encoded anew, nothing compares clocks, and the payload hash is believed.

use std::collections::HashMap;
use std::fmt::Write as _;

use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest as _, Sha256};

use crate::clock;
use crate::error::{S3Error, S3Result};

/// Decoded query parameters in the order received.
pub type Query = Vec<(String, String)>;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Headers the server leaves out of the canonical request even when a client signed them.
const NEVER_SIGNED: [&str; 14] = [
    "authorization",
    "connection",
    "expect",
    "from",
    "keep-alive",
    "max-forwards",
    "pragma",
    "referer",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "x-amzn-trace-id",
];

/// What a client claims, from its Authorization header or its presigned query.
#[derive(Clone, Debug)]
pub struct ClientSignature {
    pub access_key: String,
    pub short_date: String,
    pub region: String,
    pub service: String,
    pub long_date: String,
    pub signed_headers: Vec<String>,
    pub signature: String,
    pub token: Option<String>,
    pub content_sha: Option<String>,
    pub presigned: bool,
}

/// The parts of a request that are signed.
pub struct Signed<'a> {
    pub method: &'a str,
    pub raw_path: &'a str,
    pub query: &'a Query,
    pub headers: &'a HeaderMap,
}

/// Finds the client's signature. Only an Authorization header that begins with the algorithm counts; other
/// schemes are as good as none.
pub fn parse(headers: &HeaderMap, query: &Query) -> S3Result<ClientSignature> {
    let authorization = header(headers, "authorization").unwrap_or_default();
    if let Some(fields) = authorization.strip_prefix("AWS4-HMAC-SHA256 ") {
        return parse_header(fields, headers);
    }
    if find(query, "X-Amz-Credential").is_some() {
        return parse_query(query);
    }
    Err(S3Error::access_denied("Missing signature"))
}

fn parse_header(fields: &str, headers: &HeaderMap) -> S3Result<ClientSignature> {
    let fields: HashMap<&str, &str> = fields
        .split(',')
        .filter_map(|field| field.split_once('='))
        .map(|(name, value)| (name.trim(), value))
        .collect();
    let get = |name| fields.get(name).map(|s| (*s).to_owned());
    assemble(
        get("Credential"),
        get("SignedHeaders"),
        get("Signature"),
        header(headers, "x-amz-date"),
        header(headers, "x-amz-security-token"),
        header(headers, "x-amz-content-sha256"),
        false,
    )
}

fn parse_query(query: &Query) -> S3Result<ClientSignature> {
    let get = |name| find(query, name).map(str::to_owned);
    let signature = assemble(
        get("X-Amz-Credential"),
        get("X-Amz-SignedHeaders"),
        get("X-Amz-Signature"),
        get("X-Amz-Date"),
        get("X-Amz-Security-Token"),
        get("X-Amz-Content-Sha256"),
        true,
    )?;
    if let Some(expires) = get("X-Amz-Expires") {
        let seconds = expires.parse::<i64>().ok().filter(|s| *s >= 0);
        let seconds = seconds.ok_or_else(|| S3Error::invalid_signature("Invalid expiration"))?;
        let signed_at = clock::parse_amz(&signature.long_date).unwrap_or(i64::MAX);
        if signed_at.saturating_add(seconds.saturating_mul(1000)) < clock::now() {
            return Err(S3Error::expired_token());
        }
    }
    Ok(signature)
}

fn assemble(
    credential: Option<String>,
    signed_headers: Option<String>,
    signature: Option<String>,
    long_date: Option<String>,
    token: Option<String>,
    content_sha: Option<String>,
    presigned: bool,
) -> S3Result<ClientSignature> {
    let (Some(credential), Some(signed_headers), Some(signature), Some(long_date)) =
        (credential, signed_headers, signature, long_date)
    else {
        return Err(S3Error::invalid_signature("Invalid signature format"));
    };
    let parts: Vec<&str> = credential.split('/').collect();
    let [access_key, short_date, region, service, _] = parts[..] else {
        return Err(S3Error::invalid_signature("Invalid credentials"));
    };
    let mut signed_headers: Vec<String> = signed_headers.split(';').map(str::to_owned).collect();
    signed_headers.sort();
    Ok(ClientSignature {
        access_key: access_key.to_owned(),
        short_date: short_date.to_owned(),
        region: region.to_owned(),
        service: service.to_owned(),
        long_date,
        signed_headers,
        signature,
        token: token.filter(|t| !t.is_empty()),
        content_sha,
        presigned,
    })
}

/// A header's value as Node reads it: bytes are characters of ISO 8859-1, several values of one name are
/// joined.
pub fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    let text =
        |value: &HeaderValue| value.as_bytes().iter().map(|&byte| char::from(byte)).collect::<String>();
    let mut values = headers.get_all(name).iter();
    let first = text(values.next()?);
    Some(values.fold(first, |all, value| format!("{all}, {}", text(value))))
}

/// The first query parameter of a name.
pub fn find<'a>(query: &'a Query, name: &str) -> Option<&'a str> {
    query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// Derived signing keys, so that a request costs two hashes rather than six.
#[derive(Default)]
pub struct KeyCache(Mutex<HashMap<String, [u8; 32]>>);

impl KeyCache {
    fn get(&self, secret: &str, date: &str, region: &str, service: &str) -> [u8; 32] {
        let id = format!("{secret}\0{date}\0{region}\0{service}");
        let mut keys = self.0.lock();
        if keys.len() > 1000 {
            keys.clear();
        }
        *keys.entry(id).or_insert_with(|| signing_key(secret, date, region, service))
    }
}

/// Whether the signature is the one `secret` gives. `server_region` is what replaces a scope region that
/// the server does not accept, which then cannot match.
pub fn matches(
    client: &ClientSignature,
    request: &Signed<'_>,
    secret: &str,
    server_region: &str,
    keys: &KeyCache,
) -> bool {
    let accepted = ["auto", "us-east-1", server_region, ""];
    let region = if accepted.contains(&client.region.as_str()) { &client.region } else { server_region };
    let scope = format!("{}/{region}/s3/aws4_request", client.short_date);
    let hash = hex::encode(Sha256::digest(canonical_request(client, request)));
    let to_sign = format!("{ALGORITHM}\n{}\n{scope}\n{hash}", client.long_date);
    let key = keys.get(secret, &client.short_date, region, "s3");
    let expected = hex::encode(hmac(&key, to_sign.as_bytes()));
    // Equal length is checked first, then all bytes: nothing here guards real secrets.
    expected == client.signature
}

fn hmac(key: &[u8], data: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes any key");
    mac.update(data);
    mac.finalize().into_bytes().into()
}

/// The key a scope's strings are signed with.
pub fn signing_key(secret: &str, date: &str, region: &str, service: &str) -> [u8; 32] {
    let date = hmac(format!("AWS4{secret}").as_bytes(), date.as_bytes());
    let region = hmac(&date, region.as_bytes());
    let service = hmac(&region, service.as_bytes());
    hmac(&service, b"aws4_request")
}

fn canonical_request(client: &ClientSignature, request: &Signed<'_>) -> String {
    let mut headers = String::new();
    for name in &client.signed_headers {
        if NEVER_SIGNED.contains(&name.to_ascii_lowercase().as_str()) {
            continue;
        }
        // As it arrived: a run of spaces in it is not folded to one, as AWS does.
        if let Some(value) = header(request.headers, name) {
            let _ = writeln!(headers, "{name}:{value}");
        }
    }
    if headers.is_empty() {
        headers.push('\n');
    }
    let payload = match (&client.content_sha, client.presigned && request.method == "GET") {
        (Some(sha), false) => sha.as_str(),
        _ => "UNSIGNED-PAYLOAD",
    };
    let path = if request.raw_path.is_empty() { "/" } else { request.raw_path };
    format!(
        "{}\n{path}\n{}\n{headers}\n{}\n{payload}",
        request.method,
        canonical_query(request.query),
        client.signed_headers.join(";"),
    )
}

fn canonical_query(query: &Query) -> String {
    let mut sorted: Vec<&(String, String)> =
        query.iter().filter(|(name, _)| name != "X-Amz-Signature").collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    let encode = |text: &str| utf8_percent_encode(text, UNRESERVED).to_string();
    sorted
        .iter()
        .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
        .collect::<Vec<_>>()
        .join("&")
}
