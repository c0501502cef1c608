//! From request line and headers to bucket, key and operation, with the real router's blind spots: it
//! knows a few query keys and lets every other sub-resource fall through to the plain operation.

use http::{HeaderMap, Method, Uri};
use percent_encoding::percent_decode_str;

use crate::auth::sigv4::{Query, find};

/// What the gateway puts before the S3 routes.
pub const PREFIX: &str = "/storage/v1/s3";

/// Where REST clients ask for a URL to upload to.
const SIGN_UPLOAD: &str = "/storage/v1/object/upload/sign/";

/// Operations, by their S3 names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    ListBuckets,
    CreateBucket,
    HeadBucket,
    DeleteBucket,
    GetBucketLocation,
    GetBucketVersioning,
    ListObjects,
    ListObjectsV2,
    HeadObject,
    GetObject,
    GetObjectTagging,
    PutObject,
    CopyObject,
    DeleteObject,
    DeleteObjects,
    CreateMultipartUpload,
    UploadPart,
    UploadPartCopy,
    CompleteMultipartUpload,
    AbortMultipartUpload,
    ListParts,
    ListMultipartUploads,
    /// `POST /storage/v1/object/move`
    MoveObject,
    /// `POST /storage/v1/object/upload/sign/<bucket>/<key>`
    SignUploadUrl,
    /// `GET /storage/v1/bucket/<id>`
    GetBucket,
    /// `POST /auth/v1/token?grant_type=password`, and with any unknown grant
    AuthPassword,
    /// `POST /auth/v1/token?grant_type=refresh_token`
    AuthRefresh,
    /// `POST /auth/v1/logout`
    AuthLogout,
    /// A method or path without a route.
    Unknown,
}

impl Op {
    pub fn name(self) -> &'static str {
        match self {
            Self::ListBuckets => "ListBuckets",
            Self::CreateBucket => "CreateBucket",
            Self::HeadBucket => "HeadBucket",
            Self::DeleteBucket => "DeleteBucket",
            Self::GetBucketLocation => "GetBucketLocation",
            Self::GetBucketVersioning => "GetBucketVersioning",
            Self::ListObjects => "ListObjects",
            Self::ListObjectsV2 => "ListObjectsV2",
            Self::HeadObject => "HeadObject",
            Self::GetObject => "GetObject",
            Self::GetObjectTagging => "GetObjectTagging",
            Self::PutObject => "PutObject",
            Self::CopyObject => "CopyObject",
            Self::DeleteObject => "DeleteObject",
            Self::DeleteObjects => "DeleteObjects",
            Self::CreateMultipartUpload => "CreateMultipartUpload",
            Self::UploadPart => "UploadPart",
            Self::UploadPartCopy => "UploadPartCopy",
            Self::CompleteMultipartUpload => "CompleteMultipartUpload",
            Self::AbortMultipartUpload => "AbortMultipartUpload",
            Self::ListParts => "ListParts",
            Self::ListMultipartUploads => "ListMultipartUploads",
            Self::MoveObject => "MoveObject",
            Self::SignUploadUrl => "SignUploadUrl",
            Self::GetBucket => "GetBucket",
            Self::AuthPassword => "AuthPassword",
            Self::AuthRefresh => "AuthRefresh",
            Self::AuthLogout => "AuthLogout",
            Self::Unknown => "Unknown",
        }
    }

    pub fn lists(self) -> bool {
        matches!(self, Self::ListObjects | Self::ListObjectsV2 | Self::ListMultipartUploads)
    }

    /// Uploads of parts, by body or by copy.
    pub fn of_part(self) -> bool {
        matches!(self, Self::UploadPart | Self::UploadPartCopy)
    }

    /// What changes objects; uploads of parts do so when they are completed.
    pub fn changes(self) -> bool {
        matches!(
            self,
            Self::PutObject
                | Self::CopyObject
                | Self::DeleteObject
                | Self::DeleteObjects
                | Self::CompleteMultipartUpload
                | Self::MoveObject
        )
    }

    /// The routes of the REST API.
    pub fn is_rest(self) -> bool {
        matches!(self, Self::MoveObject | Self::SignUploadUrl | Self::GetBucket)
    }

    /// The routes of Supabase Auth.
    pub fn is_auth(self) -> bool {
        matches!(self, Self::AuthPassword | Self::AuthRefresh | Self::AuthLogout)
    }

    /// The routes that take a raw body; their failures close the connection.
    pub fn uploads(self) -> bool {
        matches!(self, Self::PutObject | Self::UploadPart)
    }
}

/// A parsed request target.
#[derive(Clone, Debug)]
pub struct Target {
    pub op: Op,
    /// Decoded; empty for `ListBuckets`.
    pub bucket: String,
    /// Decoded; empty for operations on buckets.
    pub key: String,
    /// What error answers name: the raw path without prefix and empty segments.
    pub resource: String,
    pub query: Query,
    /// Of a move, from its body: bucket and key of what is to be moved.
    pub source: Option<(String, String)>,
}

/// Why a target is refused before anything else is looked at.
#[derive(Debug, PartialEq, Eq)]
pub enum BadTarget {
    /// Below the API, but not the S3 endpoint.
    NoRoute,
    /// A broken percent escape.
    BadEscape,
}

impl Target {
    pub fn parse(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Self, BadTarget> {
        let raw = uri.path();
        if let Some(beside) = Self::beside_s3(method, uri)? {
            return Ok(beside);
        }
        let path = match raw.strip_prefix(PREFIX) {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => rest,
            // A client that forgets the slash after the endpoint ends here, as behind the real gateway.
            _ if raw.starts_with("/storage/v1/") => return Err(BadTarget::NoRoute),
            _ => raw,
        };
        let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
        let path = path.strip_prefix('/').unwrap_or(path);
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        let bucket = decode(bucket)?;
        let key = decode(key)?;
        let query = parse_query(uri.query().unwrap_or_default());
        let op = route(method, &bucket, &key, &query, headers);
        Ok(Self { op, bucket, key, resource: segments.join("/"), query, source: None })
    }

    /// The key, or for listings the prefix.
    pub fn subject(&self) -> &str {
        if self.op.lists() { self.param("prefix").unwrap_or_default() } else { &self.key }
    }

    /// The few routes that are not S3's.
    fn beside_s3(method: &Method, uri: &Uri) -> Result<Option<Self>, BadTarget> {
        let query = parse_query(uri.query().unwrap_or_default());
        let (mut bucket, mut key) = (String::new(), String::new());
        let op = match (method.as_str(), uri.path()) {
            ("POST", "/storage/v1/object/move") => Op::MoveObject,
            ("POST", path) if path.starts_with(SIGN_UPLOAD) => {
                let Some((id, name)) = path[SIGN_UPLOAD.len()..].split_once('/') else { return Ok(None) };
                (bucket, key) = (decode(id)?, decode(name)?);
                Op::SignUploadUrl
            }
            ("POST", "/auth/v1/logout") => Op::AuthLogout,
            ("POST", "/auth/v1/token") if find(&query, "grant_type") == Some("refresh_token") => {
                Op::AuthRefresh
            }
            ("POST", "/auth/v1/token") => Op::AuthPassword,
            ("GET", path) => match path.strip_prefix("/storage/v1/bucket/") {
                Some(id) if !id.is_empty() && !id.contains('/') => {
                    bucket = decode(id)?;
                    Op::GetBucket
                }
                _ => return Ok(None),
            },
            _ => return Ok(None),
        };
        Ok(Some(Self { op, bucket, key, resource: String::new(), query, source: None }))
    }

    /// The first query parameter of a name.
    pub fn param(&self, name: &str) -> Option<&str> {
        find(&self.query, name)
    }
}

fn decode(text: &str) -> Result<String, BadTarget> {
    let bytes = text.as_bytes();
    let broken = bytes.iter().enumerate().any(|(i, b)| {
        *b == b'%' && !bytes.get(i + 1..i + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit))
    });
    if broken {
        return Err(BadTarget::BadEscape);
    }
    percent_decode_str(text).decode_utf8().map(std::borrow::Cow::into_owned).map_err(|_| BadTarget::BadEscape)
}

/// Form decoding (`+` is a space); values of one name are joined by commas, as JavaScript prints arrays.
fn parse_query(raw: &str) -> Query {
    let mut query = Query::new();
    for pair in raw.split('&').filter(|p| !p.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let text = |s: &str| percent_decode_str(&s.replace('+', " ")).decode_utf8_lossy().into_owned();
        let (name, value) = (text(name), text(value));
        match query.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => {
                values.push(',');
                values.push_str(&value);
            }
            None => query.push((name, value)),
        }
    }
    query
}

fn route(method: &Method, bucket: &str, key: &str, query: &Query, headers: &HeaderMap) -> Op {
    let has = |name: &str| find(query, name).is_some();
    if bucket.is_empty() {
        return if *method == Method::GET && key.is_empty() { Op::ListBuckets } else { Op::Unknown };
    }
    if key.is_empty() {
        return match method.as_str() {
            "PUT" => Op::CreateBucket,
            "HEAD" => Op::HeadBucket,
            "DELETE" => Op::DeleteBucket,
            "POST" if has("delete") => Op::DeleteObjects,
            "GET" if has("uploads") => Op::ListMultipartUploads,
            "GET" if has("location") => Op::GetBucketLocation,
            "GET" if has("versioning") => Op::GetBucketVersioning,
            "GET" if find(query, "list-type") == Some("2") => Op::ListObjectsV2,
            "GET" => Op::ListObjects,
            _ => Op::Unknown,
        };
    }
    let part = has("partNumber") && has("uploadId");
    let copies = headers.contains_key("x-amz-copy-source");
    match method.as_str() {
        "PUT" if part && copies => Op::UploadPartCopy,
        "PUT" if copies => Op::CopyObject,
        "PUT" if part => Op::UploadPart,
        "PUT" => Op::PutObject,
        "GET" if has("uploadId") => Op::ListParts,
        "GET" if has("tagging") => Op::GetObjectTagging,
        "GET" => Op::GetObject,
        "HEAD" => Op::HeadObject,
        "DELETE" if has("uploadId") => Op::AbortMultipartUpload,
        "DELETE" => Op::DeleteObject,
        "POST" if has("uploads") => Op::CreateMultipartUpload,
        "POST" if has("uploadId") => Op::CompleteMultipartUpload,
        _ => Op::Unknown,
    }
}
